/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client_fake.c - see client_fake.h.
 */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/client_fake.h"

#define LIMIT_S		20

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

int fake_memfd(size_t bytes)
{
	int fd = memfd_create("kvmd-test", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, (off_t)bytes), 0);
	return fd;
}

unsigned fake_nr_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	ck_assert_ptr_nonnull(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

void fake_init(struct fake *f)
{
	static unsigned nr;
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	socklen_t len;

	memset(f, 0, sizeof(*f));
	snprintf(f->path, sizeof(f->path), "@kvmd-fake-%d-%u", (int)getpid(), nr++);
	f->version = KVMD_WIRE_VERSION;
	f->planes = 2;
	f->nr_shards = 1;
	f->plane_bytes = 4096;
	f->features = KVMD_FEATURES;
	f->device = "host";
	f->handle_kind = KVMD_HANDLE_MEMFD;
	f->boot = 1;
	f->slab_gen = 1;
	f->conn = f->bell = f->ring_fd = f->args_fd = f->steps_fd = f->tables_fd = -1;
	f->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	ck_assert_int_ge(f->listener, 0);
	memcpy(sa.sun_path + 1, f->path + 1, strlen(f->path) - 1);
	len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(f->path));
	ck_assert_int_eq(bind(f->listener, (struct sockaddr *)&sa, len), 0);
	ck_assert_int_eq(listen(f->listener, 4), 0);
}

static void session_drop(struct fake *f)
{
	int *fd[] = { &f->bell, &f->ring_fd, &f->args_fd, &f->steps_fd, &f->tables_fd };

	if (f->ring)
		munmap(f->ring, 16384);
	if (f->steps)
		munmap(f->steps, 4096);
	if (f->args)
		munmap(f->args, FAKE_ARGS);
	if (f->tables)
		munmap(f->tables, 4096);
	f->ring = NULL;
	f->steps = NULL;
	f->args = NULL;
	f->tables = NULL;
	for (size_t i = 0; i < sizeof(fd) / sizeof(fd[0]); i++) {
		if (*fd[i] >= 0)
			close(*fd[i]);
		*fd[i] = -1;
	}
}

void fake_hangup(struct fake *f)
{
	if (f->conn >= 0)
		close(f->conn);
	f->conn = -1;
}

static void *run(void *arg)
{
	struct fake *f = arg;

	f->script(f);
	return NULL;
}

void fake_start(struct fake *f, void (*script)(struct fake *f))
{
	f->script = script;
	ck_assert_int_eq(pthread_create(&f->thread, NULL, run, f), 0);
}

void fake_stop(struct fake *f)
{
	pthread_join(f->thread, NULL);
	fake_hangup(f);
	session_drop(f);
	close(f->listener);
	ck_assert_msg(!f->failed_line, "script, line %d: %s (errno %d)", f->failed_line,
		      f->failed_what, errno);
}

void fake_accept(struct fake *f)
{
	session_drop(f);
	fake_accept_kept(f);
}

void fake_accept_kept(struct fake *f)
{
	struct timeval tv = { .tv_sec = LIMIT_S };

	fake_hangup(f);
	setsockopt(f->listener, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	f->conn = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC);
	FAKE_CHECK(f, f->conn >= 0);
	setsockopt(f->conn, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
}

void fake_recv(struct fake *f, uint32_t type, void *buf)
{
	const struct kvmd_msg *h = buf;
	ssize_t n;

	memset(buf, 0, KVMD_MSG_MAX_BYTES);
	n = recv(f->conn, buf, KVMD_MSG_MAX_BYTES, 0);
	FAKE_CHECK(f, n >= (ssize_t)sizeof(*h));
	FAKE_CHECK(f, h->bytes == (uint32_t)n);
	FAKE_CHECK(f, h->type == type);
	FAKE_CHECK(f, h->nr_fds == 0);
	f->cookie = h->cookie;
}

void fake_send(struct fake *f, void *msg, size_t bytes, const int *fds, uint32_t nr_fds)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(int) * KVMD_MAX_FDS)];
	} control = { 0 };
	struct iovec iov = { .iov_base = msg, .iov_len = bytes };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct kvmd_msg *h = msg;

	h->bytes = (uint32_t)bytes;
	h->nr_fds = nr_fds;
	if (nr_fds) {
		struct cmsghdr *cm;

		mh.msg_control = control.room;
		mh.msg_controllen = CMSG_SPACE(sizeof(int) * nr_fds);
		cm = CMSG_FIRSTHDR(&mh);
		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN(sizeof(int) * nr_fds);
		memcpy(CMSG_DATA(cm), fds, sizeof(int) * nr_fds);
	}
	FAKE_CHECK(f, sendmsg(f->conn, &mh, MSG_NOSIGNAL) == (ssize_t)bytes);
}

static void *map(struct fake *f, int fd, size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	FAKE_CHECK(f, p != MAP_FAILED);
	return p;
}

void fake_hello(struct fake *f)
{
	unsigned char buf[KVMD_MSG_MAX_BYTES] __attribute__((aligned(8)));
	struct kvmd_hello_reply r = { .h.type = KVMD_MSG_HELLO_REPLY };
	const struct kvmd_hello *m = (const void *)buf;
	int fds[4];

	fake_recv(f, KVMD_MSG_HELLO, buf);
	FAKE_CHECK(f, m->h.bytes == sizeof(*m));
	FAKE_CHECK(f, m->version == KVMD_WIRE_VERSION);
	f->ring_fd = fake_memfd(16384);
	f->args_fd = fake_memfd(FAKE_ARGS);
	f->steps_fd = fake_memfd(4096);
	f->tables_fd = fake_memfd(4096);
	f->bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	f->ring = map(f, f->ring_fd, 16384);
	f->sq = (struct kvmd_sqe *)((char *)f->ring + 4096);
	f->cq = (struct kvmd_cqe *)((char *)f->ring + 8192);
	f->args = map(f, f->args_fd, FAKE_ARGS);
	f->steps = map(f, f->steps_fd, 4096);
	f->tables = map(f, f->tables_fd, 4096);
	f->sq_head = f->cq_tail = f->cq_held = 0;
	r.h.cookie = f->cookie;
	r.version = f->version;
	r.session = 7;
	r.boot_id[0] = f->boot;
	r.features = f->features & m->features;
	r.group_token = 0x1234;
	r.ring_bytes = 16384;
	r.args_bytes = FAKE_ARGS;
	r.sq_entries = FAKE_SQ;
	r.cq_entries = FAKE_CQ;
	r.sq_off = 4096;
	r.cq_off = 8192;
	r.max_seqs = FAKE_SEQS;
	r.max_tokens = FAKE_ROW * 16;
	snprintf(r.device, sizeof(r.device), "%s", f->device);
	fds[0] = f->ring_fd;
	fds[1] = f->args_fd;
	fds[2] = f->steps_fd;
	fds[3] = f->bell;
	fake_send(f, &r, sizeof(r), fds, 4);
}

void fake_refuse_hello(struct fake *f, int err, const char *text)
{
	unsigned char buf[KVMD_MSG_MAX_BYTES] __attribute__((aligned(8)));
	struct kvmd_hello_reply r = { .h.type = KVMD_MSG_HELLO_REPLY };

	fake_recv(f, KVMD_MSG_HELLO, buf);
	r.h.cookie = f->cookie;
	r.h.err = err;
	r.version = f->version;
	snprintf(r.text, sizeof(r.text), "%s", text);
	fake_send(f, &r, sizeof(r), NULL, 0);
}

void fake_resume(struct fake *f, uint32_t nr_slabs)
{
	unsigned char buf[KVMD_MSG_MAX_BYTES] __attribute__((aligned(8)));
	struct kvmd_resume_reply r = { .h.type = KVMD_MSG_RESUME_REPLY };
	const struct kvmd_resume *m = (const void *)buf;

	fake_recv(f, KVMD_MSG_RESUME, buf);
	FAKE_CHECK(f, m->h.bytes == sizeof(*m));
	FAKE_CHECK(f, m->version == KVMD_WIRE_VERSION && !m->rank && m->session == 7);
	FAKE_CHECK(f, m->group_token == 0x1234 && m->boot_id[0] == f->boot);
	/* The client left nothing that the next daemon could take for an entry. */
	FAKE_CHECK(f, !f->ring->sq_tail && !f->ring->cq_head && !f->ring->client_flags);
	for (uint32_t i = 0; i < FAKE_SQ; i++)
		FAKE_CHECK(f, !f->sq[i].pos);
	f->sq_head = f->cq_tail = f->cq_held = 0;
	f->ring->daemon_flags = 0;
	close(f->bell);
	f->bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	r.h.cookie = f->cookie;
	r.nr_slabs = nr_slabs;
	r.boot_id[0] = ++f->boot;
	fake_send(f, &r, sizeof(r), &f->bell, 1);
}

void fake_refuse_resume(struct fake *f, int err, uint32_t retry_ms, const char *text)
{
	unsigned char buf[KVMD_MSG_MAX_BYTES] __attribute__((aligned(8)));
	struct kvmd_resume_reply r = { .h.type = KVMD_MSG_RESUME_REPLY };

	fake_recv(f, KVMD_MSG_RESUME, buf);
	r.h.cookie = f->cookie;
	r.h.err = err;
	r.retry_ms = retry_ms;
	snprintf(r.text, sizeof(r.text), "%s", text);
	fake_send(f, &r, sizeof(r), NULL, 0);
}

void fake_space_reply(struct fake *f, uint32_t type, uint32_t nr_slabs)
{
	struct kvmd_space_reply r = { .h.type = type };
	int fds[2] = { f->steps_fd, f->tables_fd };
	bool join = type == KVMD_MSG_JOIN_REPLY;

	r.h.cookie = f->cookie;
	r.space = 1;
	r.nr_groups = 1;
	r.nr_shards = f->nr_shards;
	r.nr_slabs = nr_slabs;
	r.epoch = 3;
	r.tables_bytes = 4096;
	r.seq_stride = 1024;
	r.group[0].plane_bytes = f->plane_bytes;
	r.group[0].planes = f->planes;
	r.group[0].block_tokens = 16;
	r.group[0].max_slots = FAKE_SLOTS;
	r.row_off[0] = 64;
	r.row_blocks[0] = FAKE_ROW;
	r.handle_kind = strcmp(f->device, "null") ? f->handle_kind : KVMD_HANDLE_NONE;
	memcpy(r.device, f->uuid, sizeof(r.device));
	fake_send(f, &r, sizeof(r), join ? fds : fds + 1, join ? 2 : 1);
}

void fake_space(struct fake *f, uint32_t nr_slabs)
{
	unsigned char buf[KVMD_MSG_MAX_BYTES] __attribute__((aligned(8)));
	const struct kvmd_space *m = (const void *)buf;

	fake_recv(f, KVMD_MSG_SPACE, buf);
	FAKE_CHECK(f, m->h.bytes == sizeof(*m));
	fake_space_reply(f, KVMD_MSG_SPACE_REPLY, nr_slabs);
}

void fake_slab_add(struct fake *f, uint32_t slab, uint32_t first_slot, uint32_t nr_slots,
		   uint32_t per_message, int *ret_fds)
{
	const uint32_t total = ret_fds ? f->planes * f->nr_shards : 0;
	struct kvmd_slab m = { .h.type = KVMD_MSG_SLAB_ADD, .slab = slab,
			       .gen = f->slab_gen };

	m.first_slot = first_slot;
	m.nr_slots = nr_slots;
	m.fd_total = total;
	m.handle_kind = ret_fds ? f->handle_kind : KVMD_HANDLE_NONE;
	m.extent_bytes = ret_fds ? nr_slots * f->plane_bytes : 0;
	for (uint32_t i = 0; i < total; i++)
		ret_fds[i] = f->handle ? f->handle(f, i, m.extent_bytes) :
			     fake_memfd(m.extent_bytes);
	do {
		uint32_t n = total - m.fd_first;

		if (per_message && n > per_message)
			n = per_message;
		fake_send(f, &m, sizeof(m), ret_fds ? ret_fds + m.fd_first : NULL, n);
		m.fd_first += n;
	} while (m.fd_first < total);
}

static void slab_answer(struct fake *f, uint32_t type, uint32_t slab, int err)
{
	unsigned char buf[KVMD_MSG_MAX_BYTES] __attribute__((aligned(8)));
	const struct kvmd_slab_ack *m = (const void *)buf;

	fake_recv(f, type, buf);
	FAKE_CHECK(f, m->h.bytes == sizeof(*m));
	FAKE_CHECK(f, m->slab == slab && m->gen == f->slab_gen);
	FAKE_CHECK(f, m->h.err == err);
}

void fake_slab_added(struct fake *f, uint32_t slab, int err)
{
	slab_answer(f, KVMD_MSG_SLAB_ADDED, slab, err);
}

void fake_slab_deleted(struct fake *f, uint32_t slab)
{
	slab_answer(f, KVMD_MSG_SLAB_DELETED, slab, 0);
}

void fake_slab_del(struct fake *f, uint32_t slab)
{
	struct kvmd_slab m = { .h.type = KVMD_MSG_SLAB_DEL, .slab = slab,
			       .gen = f->slab_gen };

	fake_send(f, &m, sizeof(m), NULL, 0);
}

static void wake(struct fake *f)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (__atomic_load_n(&f->ring->client_flags, __ATOMIC_RELAXED) & KVMD_RING_NEED_WAKEUP)
		syscall(SYS_futex, &f->ring->cq_tail, FUTEX_WAKE, 1, NULL, NULL, 0);
}

void fake_news(struct fake *f)
{
	__atomic_store_n(&f->ring->control_seq, f->ring->control_seq + 1, __ATOMIC_RELAXED);
	__atomic_store_n(&f->ring->news_seq, f->ring->news_seq + 1, __ATOMIC_RELEASE);
	wake(f);
}

void fake_ended(struct fake *f, int err)
{
	__atomic_store_n(&f->ring->ended, err, __ATOMIC_RELAXED);
	__atomic_store_n(&f->ring->news_seq, f->ring->news_seq + 1, __ATOMIC_RELEASE);
	wake(f);
}

bool fake_sqe(struct fake *f, struct kvmd_sqe *ret_e)
{
	double end = now_s() + LIMIT_S;

	while (__atomic_load_n(&f->ring->sq_tail, __ATOMIC_ACQUIRE) == f->sq_head) {
		if (now_s() > end) {
			FAKE_CHECK(f, !"no entry in time");
			return false;
		}
		sched_yield();
	}
	*ret_e = f->sq[f->sq_head & (FAKE_SQ - 1)];
	FAKE_CHECK(f, ret_e->pos == f->sq_head + 1);
	__atomic_store_n(&f->ring->sq_head, ++f->sq_head, __ATOMIC_RELEASE);
	return true;
}

void fake_cqe(struct fake *f, uint64_t user_data, int32_t res, uint32_t v0, uint32_t v1)
{
	struct kvmd_cqe *c = &f->cq[f->cq_tail & (FAKE_CQ - 1)];

	c->user_data = user_data;
	c->res = res;
	c->v0 = v0;
	c->v1 = v1;
	__atomic_store_n(&c->pos, f->cq_tail + 1, __ATOMIC_RELEASE);
	f->cq_tail++;
	f->cq_held++;
}

void fake_cq_publish(struct fake *f)
{
	__atomic_store_n(&f->ring->cq_tail, f->cq_tail, __ATOMIC_RELEASE);
	f->cq_held = 0;
	wake(f);
}

void fake_echo(struct fake *f, uint32_t nr)
{
	struct kvmd_sqe e;

	for (uint32_t i = 0; i < nr && fake_sqe(f, &e); i++) {
		fake_cqe(f, e.user_data, (int32_t)e.nr, 0, 0);
		fake_cq_publish(f);
	}
}

bool fake_wait_bits(const uint32_t *word, uint32_t mask)
{
	double end = now_s() + LIMIT_S;

	while ((__atomic_load_n(word, __ATOMIC_ACQUIRE) & mask) != mask) {
		if (now_s() > end)
			return false;
		sched_yield();
	}
	return true;
}

/* Both ask the kernel, which answers EFAULT where a program would die. */
bool fake_readable(const void *p)
{
	int fd[2];
	bool ok;

	ck_assert_int_eq(pipe(fd), 0);
	ok = write(fd[1], p, 1) == 1;
	close(fd[0]);
	close(fd[1]);
	return ok;
}

bool fake_writable(void *p)
{
	int fd[2];
	bool ok;

	ck_assert_int_eq(pipe(fd), 0);
	ck_assert_int_eq(write(fd[1], "x", 1), 1);
	ok = read(fd[0], p, 1) == 1;
	close(fd[0]);
	close(fd[1]);
	return ok;
}
