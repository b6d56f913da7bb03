// SPDX-License-Identifier: Apache-2.0
/*
 * gpu_peer.c - another process that imports slabs, as a client does; and a first look.
 */
#include "tools/kvbench/gpu.h"

#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

struct order {
	uint64_t bytes;			/* 0: end */
};

struct answer {
	int err;
	uint64_t free_bytes;
	char what[200];
};

static pid_t peer;
static int to_peer = -1;

/* ------------------------------------------------------------ a first look */

static void look(struct answer *a)
{
	char name[96] = "?";
	size_t total;
	cu_ctx ctx;
	struct cu cu;
	int dev, r;

	if (cu_load(&cu, a->what, sizeof(a->what))) {
		a->err = -ENODEV;
		return;
	}
	r = cu.device_get(&dev, 0);
	if (!r)
		r = cu.ctx_retain(&ctx, dev);
	if (!r)
		r = cu.ctx_set(ctx);
	if (!r)
		r = cu.mem_info((size_t *)&a->free_bytes, &total);
	if (r) {
		a->err = -ENODEV;
		snprintf(a->what, sizeof(a->what), "no usable GPU: %s", cu_error(&cu, r));
		return;
	}
	cu.device_name(name, sizeof(name), dev);
	snprintf(a->what, sizeof(a->what), "%s, CUDA %d.%d%s", name, cu.version / 1000,
		 cu.version % 1000 / 10, dlsym(cu.so, "fakecuda_calls") ? ", the fake driver" : "");
}

int gpu_look(char *what, size_t n, uint64_t *ret_free)
{
	struct answer a = { .err = -ENODEV, .what = "the process that looked for a GPU ended" };
	int p[2];
	pid_t pid;

	if (pipe(p))
		kvb_die("pipe: %s", strerror(errno));
	pid = kvb_spawn();
	if (!pid) {
		a = (struct answer) { 0 };
		look(&a);
		if (write(p[1], &a, sizeof(a)) != sizeof(a))
			_exit(1);
		_exit(0);
	}
	close(p[1]);
	if (read(p[0], &a, sizeof(a)) != sizeof(a))
		a.err = -ENODEV;
	close(p[0]);
	kvb_reap(pid, 0);
	snprintf(what, n, "%s", a.what);
	*ret_free = a.free_bytes;
	return a.err;
}

/* ------------------------------------------------------------ imports */

/* Twice, as libkvclient does: a window to read and one to fill. */
static int import(struct cu *cu, int dev, int fd, uint64_t bytes)
{
	cu_ptr window[2] = { 0, 0 };
	cu_mem h = 0;
	int r = cu->mem_import(&h, (void *)(uintptr_t)fd, CU_MEM_POSIX_FD);

	for (int i = 0; i < 2 && !r; i++) {
		const struct cu_mem_access access = {
			{ CU_LOC_DEVICE, dev }, i ? CU_PROT_READWRITE : CU_PROT_READ,
		};

		r = cu->mem_reserve(&window[i], bytes, 0, 0, 0);
		r = r ? r : cu->mem_map(window[i], bytes, 0, h, 0);
		r = r ? r : cu->mem_set_access(window[i], bytes, &access, 1);
	}
	if (write(to_peer, &r, sizeof(r)) != sizeof(r))
		_exit(1);
	for (int i = 0; i < 2 && window[i]; i++) {
		cu->mem_unmap(window[i], bytes);
		cu->mem_unreserve(window[i], bytes);
	}
	if (h)
		cu->mem_release(h);
	return r;
}

static int receive(uint64_t *ret_bytes)
{
	union {
		struct cmsghdr h;
		char room[CMSG_SPACE(sizeof(int))];
	} c;
	struct order o;
	struct iovec iov = { &o, sizeof(o) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &c,
			    .msg_controllen = sizeof(c) };
	int fd = -1;

	if (recvmsg(to_peer, &m, MSG_CMSG_CLOEXEC) != sizeof(o) || !CMSG_FIRSTHDR(&m))
		return -1;
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(int));
	*ret_bytes = o.bytes;
	return fd;
}

static void __attribute__((noreturn)) serve(void)
{
	uint64_t bytes = 0;
	char msg[200];
	struct cu cu;
	cu_ctx ctx;
	int dev = 0, fd;
	bool ready;

	cpu_any();
	ready = !cu_load(&cu, msg, sizeof(msg)) && !cu.device_get(&dev, 0) &&
		!cu.ctx_retain(&ctx, dev) && !cu.ctx_set(ctx);
	while (ready && (fd = receive(&bytes)) >= 0) {
		import(&cu, dev, fd, bytes);
		close(fd);
	}
	_exit(0);
}

void gpu_peer_start(void)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		kvb_die("socketpair: %s", strerror(errno));
	peer = kvb_spawn();
	if (!peer) {
		close(pair[0]);
		to_peer = pair[1];
		serve();
	}
	close(pair[1]);
	to_peer = pair[0];
}

double gpu_peer_import(int fd, uint64_t bytes)
{
	union {
		struct cmsghdr h;
		char room[CMSG_SPACE(sizeof(int))];
	} c;
	struct order o = { bytes };
	struct iovec iov = { &o, sizeof(o) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &c,
			    .msg_controllen = sizeof(c) };
	uint64_t t0 = time_ns();
	int r = -1;

	memset(&c, 0, sizeof(c));
	c.h.cmsg_level = SOL_SOCKET;
	c.h.cmsg_type = SCM_RIGHTS;
	c.h.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&c.h), &fd, sizeof(int));
	if (sendmsg(to_peer, &m, MSG_NOSIGNAL) != sizeof(o) ||
	    read(to_peer, &r, sizeof(r)) != sizeof(r) || r)
		return -EIO;
	return (double)(time_ns() - t0) / 1e6;
}

void gpu_peer_end(void)
{
	if (!peer)
		return;
	close(to_peer);
	kvb_reap(peer, SIGKILL);
	peer = 0;
}
