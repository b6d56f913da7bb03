// SPDX-License-Identifier: Apache-2.0
/*
 * driver_rig.c - one device, one stream, and processes, for tests of the driver's ways.
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/gpu/driver_rig.h"

#define CHILD_FAILED	99

static bool in_child;
static struct cu *loaded;

void cr_true(bool ok, const char *what, const char *file, int line, int r)
{
	const char *name = r && loaded ? cu_error(loaded, r) : "";

	if (ok)
		return;
	if (!in_child)
		ck_abort_msg("%s:%d: %s (%d %s)", file, line, what, r, name);
	fprintf(stderr, "process %d: %s:%d: %s (%d %s)\n", getpid(), file, line, what, r, name);
	_exit(CHILD_FAILED);
}

void cr_result(int r, int want, const char *what, const char *file, int line)
{
	cr_true(r == want, what, file, line, r);
}

void cr_refused(int r, const char *what, const char *file, int line)
{
	cr_true(r != CU_OK, what, file, line, r);
}

/* ------------------------------------------------------------ the device */

void cr_context(struct cr *r)
{
	CR_OK(r->cu.ctx_retain(&r->ctx, 0));
	CR_OK(r->cu.ctx_set(r->ctx));
	CR_OK(r->cu.stream_create(&r->s, CU_STREAM_OWN_ORDER, 0));
	CR_OK(r->cu.event_create(&r->e, CU_EVENT_NO_TIMING));
}

static const struct cu_mem_prop prop = {
	.type = CU_MEM_PINNED, .handle_types = CU_MEM_POSIX_FD,
	.location = { CU_LOC_DEVICE, 0 },
};

void cr_open(struct cr *r)
{
	char msg[256];

	memset(r, 0, sizeof(*r));
	if (cu_load(&r->cu, msg, sizeof(msg)))
		cr_true(false, msg, "cu_load", 0, 0);
	loaded = &r->cu;
	cr_context(r);
	CR_OK(r->cu.mem_gran(&r->gran, &prop, CU_MEM_GRAN_MINIMUM));
}

/* What makes these tests meaningless here; a process of its own, as it starts CUDA. */
static void look(struct cr_child *me, void *arg)
{
	static const int needed[] = { CU_ATTR_VMM, CU_ATTR_POSIX_FD, CU_ATTR_UNIFIED_ADDRESSING };
	struct cu cu;
	char msg[256] = "";
	int has;

	(void)arg;
	if (!cu_load(&cu, msg, sizeof(msg)))
		for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
			if (cu.device_attr(&has, needed[i], 0) || !has)
				snprintf(msg, sizeof(msg), "device 0 lacks attribute %d",
					 needed[i]);
	cr_say_bytes(me, msg, sizeof(msg));
}

bool cr_there(char *why, size_t n)
{
	struct cr_child c;
	char msg[256];

	cr_fork(&c, look, NULL);
	cr_hear_bytes(&c, msg, sizeof(msg));
	cr_end(&c);
	snprintf(why, n, "%s", msg);
	return !msg[0];
}

void *cr_fake(const char *name)
{
	void *so = dlopen(CU_LIBRARY, RTLD_NOW | RTLD_LOCAL);

	return so ? dlsym(so, name) : NULL;
}

const char *cr_state(void)
{
	return getenv("KVMD_FAKECUDA_STATE");
}

int cr_main(Suite *s)
{
	const char *dir = getenv("TMPDIR");
	SRunner *r = srunner_create(s);
	char path[256], why[256];
	int failed;

	snprintf(path, sizeof(path), "%s/fakecuda.%d", dir ? dir : "/tmp", getpid());
	setenv("KVMD_FAKECUDA_STATE", path, 1);
	unsetenv("KVMD_FAKECUDA");
	if (!cr_there(why, sizeof(why))) {
		printf("SKIP: %s\n", why);
		srunner_free(r);
		unlink(path);
		return 77;
	}
	printf("on %s driver\n", cr_fake("fakecuda_calls") ? "the fake" : "the real");
	fflush(stdout);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	unlink(path);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* ------------------------------------------------------------ memory */

cu_mem cr_create(struct cr *r, size_t bytes)
{
	cu_mem mem;

	CR_OK(r->cu.mem_create(&mem, bytes, &prop, 0));
	return mem;
}

int cr_export(struct cr *r, cu_mem mem)
{
	int fd = -1;

	CR_OK(r->cu.mem_export(&fd, mem, CU_MEM_POSIX_FD, 0));
	CR(fd >= 0);
	return fd;
}

cu_mem cr_import(struct cr *r, int fd)
{
	cu_mem mem;

	CR_OK(r->cu.mem_import(&mem, (void *)(intptr_t)fd, CU_MEM_POSIX_FD));
	return mem;
}

void cr_access(struct cr *r, cu_ptr ptr, size_t bytes, int prot)
{
	struct cu_mem_access a = { .location = { CU_LOC_DEVICE, 0 }, .flags = prot };

	CR_OK(r->cu.mem_set_access(ptr, bytes, &a, 1));
}

cu_ptr cr_map(struct cr *r, cu_mem mem, size_t bytes, int prot)
{
	cu_ptr ptr;

	CR_OK(r->cu.mem_reserve(&ptr, bytes, 0, 0, 0));
	CR_OK(r->cu.mem_map(ptr, bytes, 0, mem, 0));
	if (prot != CU_PROT_NONE)
		cr_access(r, ptr, bytes, prot);
	return ptr;
}

void cr_unmap(struct cr *r, cu_ptr ptr, size_t bytes)
{
	CR_OK(r->cu.mem_unmap(ptr, bytes));
	CR_OK(r->cu.mem_unreserve(ptr, bytes));
}

void cr_new(struct cr *r, struct cr_mem *m, size_t bytes)
{
	m->bytes = bytes;
	m->mem = cr_create(r, bytes);
	m->ptr = cr_map(r, m->mem, bytes, CU_PROT_READWRITE);
}

void cr_free(struct cr *r, struct cr_mem *m)
{
	cr_unmap(r, m->ptr, m->bytes);
	CR_OK(r->cu.mem_release(m->mem));
}

/* ------------------------------------------------------------ bytes */

static int copy(struct cr *r, cu_ptr dst, cu_ptr src, size_t n)
{
	int err = r->cu.copy(dst, src, n, r->s);

	return err ? err : r->cu.stream_sync(r->s);
}

int cr_put(struct cr *r, cu_ptr dst, const void *src, size_t n)
{
	return copy(r, dst, cr_ptr(src), n);
}

int cr_get(struct cr *r, void *dst, cu_ptr src, size_t n)
{
	return copy(r, cr_ptr(dst), src, n);
}

void cr_fill(struct cr *r, cu_ptr ptr, int c, size_t n)
{
	char *b = malloc(n);

	CR(b);
	memset(b, c, n);
	CR_OK(cr_put(r, ptr, b, n));
	free(b);
}

bool cr_is(struct cr *r, cu_ptr ptr, int c, size_t n)
{
	char *b = calloc(1, n);
	size_t i;

	CR(b);
	b[0] = (char)~c;
	CR_OK(cr_get(r, b, ptr, n));
	for (i = 0; i < n && b[i] == (char)c; i++)
		;
	free(b);
	return i == n;
}

void *cr_host(struct cr *r, size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	CR(p != MAP_FAILED);
	CR_OK(r->cu.host_register(p, n, CU_HOST_PORTABLE | CU_HOST_DEVICEMAP));
	return p;
}

uint64_t *cr_gate(struct cr *r)
{
	return cr_host(r, 4096);
}

void cr_stop(struct cr *r, cu_stream s, uint64_t *gate)
{
	CR_OK(r->cu.stream_wait64(s, cr_ptr(gate), 1, 0));
}

void cr_go(uint64_t *gate)
{
	__atomic_store_n(gate, 1, __ATOMIC_RELEASE);
}

/* ------------------------------------------------------------ processes */

void cr_fork(struct cr_child *c, cr_child_fn *fn, void *arg)
{
	int sv[2];

	CR(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
	c->pid = fork();
	CR(c->pid >= 0);
	if (!c->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		in_child = true;
		close(sv[0]);
		c->sock = sv[1];
		fn(c, arg);
		_exit(0);
	}
	close(sv[1]);
	c->sock = sv[0];
}

void cr_say_bytes(struct cr_child *c, const void *p, size_t n)
{
	CR(send(c->sock, p, n, MSG_NOSIGNAL) == (ssize_t)n);
}

void cr_hear_bytes(struct cr_child *c, void *p, size_t n)
{
	CR(recv(c->sock, p, n, MSG_WAITALL) == (ssize_t)n);
}

void cr_say(struct cr_child *c, uint64_t v)
{
	cr_say_bytes(c, &v, sizeof(v));
}

uint64_t cr_hear(struct cr_child *c)
{
	uint64_t v = 0;

	cr_hear_bytes(c, &v, sizeof(v));
	return v;
}

void cr_send(struct cr_child *c, int fd)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { .room = "" };
	struct iovec iov = { .iov_base = (char[]){ 1 }, .iov_len = 1 };
	struct msghdr mh = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
		.msg_controllen = sizeof(control.room),
	};
	struct cmsghdr *cm = CMSG_FIRSTHDR(&mh);

	cm->cmsg_level = SOL_SOCKET;
	cm->cmsg_type = SCM_RIGHTS;
	cm->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cm), &fd, sizeof(fd));
	CR(sendmsg(c->sock, &mh, MSG_NOSIGNAL) == 1);
	close(fd);
}

int cr_take(struct cr_child *c)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { .room = "" };
	char byte;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr mh = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
		.msg_controllen = sizeof(control.room),
	};
	struct cmsghdr *cm;
	int fd;

	CR(recvmsg(c->sock, &mh, MSG_CMSG_CLOEXEC) == 1);
	cm = CMSG_FIRSTHDR(&mh);
	CR(cm && cm->cmsg_type == SCM_RIGHTS);
	memcpy(&fd, CMSG_DATA(cm), sizeof(fd));
	return fd;
}

int cr_status(struct cr_child *c)
{
	int status;

	CR(waitpid(c->pid, &status, 0) == c->pid);
	close(c->sock);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void cr_end(struct cr_child *c)
{
	CR(cr_status(c) == 0);
}

void cr_kill(struct cr_child *c)
{
	CR(!kill(c->pid, SIGKILL));
	CR(cr_status(c) == 128 + SIGKILL);
}
