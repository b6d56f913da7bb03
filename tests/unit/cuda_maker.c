/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda_maker.c - see cuda_maker.h.
 */
#include <check.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <kvmd/cuda_abi.h>

#include "tests/unit/cuda_maker.h"

#define MAX_PIECES	64

enum what { UUID, MAKE, MAKE_LEGACY, GET, PUT };

struct msg {
	enum what what;
	int err;
	unsigned gpu, piece;
	size_t off, bytes;
	unsigned char buf[MAKER_BYTES];
};

/* ---------------------------------------------------------- the process */

static struct cu cu;
static cu_ctx ctx[8];
static cu_stream stream[8];
static struct piece {
	cu_ptr ptr;
	unsigned gpu;
} pieces[MAX_PIECES];
static unsigned nr_pieces;

static int use_gpu(unsigned gpu)
{
	int dev, r;

	if (!cu.so) {
		char why[256];

		if (cu_load(&cu, why, sizeof(why))) {
			fprintf(stderr, "maker: %s\n", why);
			return CU_NOT_INITIALIZED;
		}
	}
	r = cu.device_get(&dev, (int)gpu);
	if (!r && !ctx[gpu])
		r = cu.ctx_retain(&ctx[gpu], dev);
	if (!r)
		r = cu.ctx_set(ctx[gpu]);
	if (!r && !stream[gpu])
		r = cu.stream_create(&stream[gpu], CU_STREAM_OWN_ORDER, 0);
	return r;
}

static int make_vmm(struct piece *p, size_t bytes, int *ret_fd)
{
	const struct cu_mem_prop prop = {
		.type = CU_MEM_PINNED,
		.handle_types = CU_MEM_POSIX_FD,
		.location = { .type = CU_LOC_DEVICE, .id = (int)p->gpu },
	};
	const struct cu_mem_access rw = { .location = prop.location, .flags = CU_PROT_READWRITE };
	cu_mem mem;
	int r;

	r = cu.mem_create(&mem, bytes, &prop, 0);
	if (!r)
		r = cu.mem_reserve(&p->ptr, bytes, 0, 0, 0);
	if (!r)
		r = cu.mem_map(p->ptr, bytes, 0, mem, 0);
	if (!r)
		r = cu.mem_set_access(p->ptr, bytes, &rw, 1);
	if (!r)
		r = cu.mem_export(ret_fd, mem, CU_MEM_POSIX_FD, 0);
	return r;
}

static int make_legacy(struct piece *p, size_t bytes, int *ret_fd)
{
	struct cu_ipc_handle h;
	int r = cu.mem_alloc(&p->ptr, bytes);

	if (!r)
		r = cu.ipc_get(&h, p->ptr);
	if (r)
		return r;
	*ret_fd = memfd_create("kvmd-test", MFD_CLOEXEC);
	return write(*ret_fd, &h, sizeof(h)) == sizeof(h) ? 0 : CU_OPERATING_SYSTEM;
}

static int copy(cu_ptr dst, cu_ptr src, size_t bytes, unsigned gpu)
{
	int r = use_gpu(gpu);

	if (!r)
		r = cu.copy(dst, src, bytes, stream[gpu]);
	return r ? r : cu.stream_sync(stream[gpu]);
}

static void serve(struct msg *m, int *ret_fd)
{
	struct piece *p;

	switch (m->what) {
	case UUID:
		m->err = use_gpu(m->gpu);
		if (!m->err)
			m->err = cu.device_uuid((struct cu_uuid *)(void *)m->buf, (int)m->gpu);
		break;
	case MAKE:
	case MAKE_LEGACY:
		p = &pieces[nr_pieces++];
		p->gpu = m->gpu;
		m->err = use_gpu(m->gpu);
		if (!m->err)
			m->err = m->what == MAKE ? make_vmm(p, m->bytes, ret_fd) :
				 make_legacy(p, m->bytes, ret_fd);
		if (!m->err)
			m->err = cu.set8(p->ptr, 0, m->bytes, stream[m->gpu]);
		if (!m->err)
			m->err = cu.stream_sync(stream[m->gpu]);
		break;
	case GET:
		p = &pieces[m->piece];
		m->err = copy((cu_ptr)(uintptr_t)m->buf, p->ptr + m->off, m->bytes, p->gpu);
		break;
	case PUT:
		p = &pieces[m->piece];
		m->err = copy(p->ptr + m->off, (cu_ptr)(uintptr_t)m->buf, m->bytes, p->gpu);
		break;
	}
}

/* --------------------------------------------------------------- messages */

union control {
	struct cmsghdr align;
	char room[CMSG_SPACE(sizeof(int))];
};

static bool send_msg(int sock, struct msg *m, int fd)
{
	union control control = { 0 };
	struct iovec iov = { .iov_base = m, .iov_len = sizeof(*m) };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		struct cmsghdr *cm;

		mh.msg_control = control.room;
		mh.msg_controllen = sizeof(control.room);
		cm = CMSG_FIRSTHDR(&mh);
		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cm), &fd, sizeof(fd));
	}
	return sendmsg(sock, &mh, MSG_NOSIGNAL) == sizeof(*m);
}

static bool recv_msg(int sock, struct msg *m, int *ret_fd)
{
	union control control = { 0 };
	struct iovec iov = { .iov_base = m, .iov_len = sizeof(*m) };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.room,
			     .msg_controllen = sizeof(control.room) };
	struct cmsghdr *cm;

	*ret_fd = -1;
	if (recvmsg(sock, &mh, MSG_CMSG_CLOEXEC) != sizeof(*m))
		return false;
	cm = CMSG_FIRSTHDR(&mh);
	if (cm)
		memcpy(ret_fd, CMSG_DATA(cm), sizeof(int));
	return true;
}

static void run(int sock)
{
	struct msg m;
	int fd;

	while (recv_msg(sock, &m, &fd)) {
		serve(&m, &fd);
		if (!send_msg(sock, &m, fd))
			_exit(1);
		if (fd >= 0)
			close(fd);
	}
	_exit(0);
}

static int ask(struct maker *m, struct msg *q, int *ret_fd)
{
	ck_assert(send_msg(m->sock, q, -1));
	ck_assert_msg(recv_msg(m->sock, q, ret_fd), "the maker of memory died");
	return q->err;
}

/* ------------------------------------------------------------------ calls */

void maker_start(struct maker *m)
{
	int fd[2];

	memset(m, 0, sizeof(*m));
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fd), 0);
	m->pid = fork();
	ck_assert_int_ge(m->pid, 0);
	if (!m->pid) {
		close(fd[0]);
		run(fd[1]);
	}
	close(fd[1]);
	m->sock = fd[0];
}

void maker_stop(struct maker *m)
{
	int status;

	close(m->sock);
	ck_assert_int_eq(waitpid(m->pid, &status, 0), m->pid);
	ck_assert_int_eq(status, 0);
}

int maker_uuid(struct maker *m, unsigned gpu, uint8_t ret_uuid[16])
{
	struct msg q = { .what = UUID, .gpu = gpu };
	int fd, err = ask(m, &q, &fd);

	if (!err)
		memcpy(ret_uuid, q.buf, 16);
	return err;
}

int maker_make(struct maker *m, unsigned gpu, size_t bytes, bool legacy)
{
	struct msg q = { .what = legacy ? MAKE_LEGACY : MAKE, .gpu = gpu, .bytes = bytes };
	int fd, err;

	if (m->nr == MAX_PIECES)
		return -1;
	err = ask(m, &q, &fd);
	m->nr++;
	if (err)
		fprintf(stderr, "maker: %zu bytes on GPU %u: CUDA error %d\n", bytes, gpu, err);
	return err ? -1 : fd;
}

int maker_get(struct maker *m, unsigned piece, size_t off, void *ret_buf, size_t bytes)
{
	struct msg q = { .what = GET, .piece = piece, .off = off, .bytes = bytes };
	int fd, err = ask(m, &q, &fd);

	memcpy(ret_buf, q.buf, bytes);
	return err;
}

int maker_put(struct maker *m, unsigned piece, size_t off, const void *buf, size_t bytes)
{
	struct msg q = { .what = PUT, .piece = piece, .off = off, .bytes = bytes };
	int fd;

	memcpy(q.buf, buf, bytes);
	return ask(m, &q, &fd);
}
