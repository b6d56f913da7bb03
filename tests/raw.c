/* SPDX-License-Identifier: Apache-2.0 */
/*
 * raw.c - the wire by hand.
 */
#include "libkvclient/internal.h"
#include "tests/raw.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

void raw_connect(struct raw *r, struct hd *d)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };

	memset(r, 0, sizeof(*r));
	r->bell = -1;
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", d->sock);
	r->sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	T(r->sock >= 0 && !connect(r->sock, (struct sockaddr *)&sa, sizeof(sa)));
}

void raw_hello_init(struct kvmd_hello *m)
{
	*m = (struct kvmd_hello) {
		.h = { .type = KVMD_MSG_HELLO, .bytes = sizeof(*m), .cookie = 7 },
		.version = KVMD_WIRE_VERSION, .sq_entries = 64, .cq_entries = 128, .max_seqs = 16,
		.features = KVMD_FEATURES, .args_bytes = 65536, .max_tokens = 4096, .nr_lanes = 1,
		.nr_ranks = 1, .label = "raw",
	};
}

void raw_space_init(struct kvmd_space *m, const char *name, uint32_t slots)
{
	*m = (struct kvmd_space) {
		.h = { .type = KVMD_MSG_SPACE, .bytes = sizeof(*m), .cookie = 8 },
		.nr_groups = 1, .nr_shards = 1,
	};
	kvci_salt_digest(NULL, 0, m->salt_digest);	/* as a library client without a salt */
	snprintf(m->name, sizeof(m->name), "%s", name);
	m->group[0] = (struct kvmd_group) {
		.plane_bytes = test_bytes(4096), .planes = 1, .block_tokens = BT, .max_slots = slots + 1,
	};
}

void raw_send(struct raw *r, const void *msg, size_t bytes)
{
	T(send(r->sock, msg, bytes, MSG_NOSIGNAL) == (ssize_t)bytes);
}

/* One message with its descriptors; 0: the socket is closed. */
static size_t receive(struct raw *r, void *buf, size_t bytes, int *fds, uint32_t *ret_nr_fds)
{
	char control[CMSG_SPACE(sizeof(int) * KVMD_MAX_FDS)];
	struct iovec iov = { .iov_base = buf, .iov_len = bytes };
	struct msghdr mh = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *cm;
	ssize_t n = recvmsg(r->sock, &mh, MSG_CMSG_CLOEXEC);

	*ret_nr_fds = 0;
	if (n <= 0) {
		r->closed = true;
		return 0;
	}
	cm = CMSG_FIRSTHDR(&mh);
	if (cm) {
		*ret_nr_fds = (uint32_t)((cm->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(cm), *ret_nr_fds * sizeof(int));
	}
	return (size_t)n;
}

static void *map(int fd, uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	T(p != MAP_FAILED);
	return p;
}

static void take_hello(struct raw *r, int *fds)
{
	const struct kvmd_hello_reply *h = &r->hello;

	r->ring = map(fds[0], h->ring_bytes);
	r->args = map(fds[1], h->args_bytes);
	r->steps = map(fds[2], sizeof(*r->steps));
	r->bell = fds[3];
	fds[3] = -1;
	r->sq = (struct kvmd_sqe *)(void *)((char *)r->ring + h->sq_off);
	r->cq = (struct kvmd_cqe *)(void *)((char *)r->ring + h->cq_off);
	r->sq_mask = h->sq_entries - 1;
	r->cq_mask = h->cq_entries - 1;
}

static void answer_slab(struct raw *r, const struct kvmd_slab *m)
{
	struct kvmd_slab_ack a = {
		.h = { .type = m->h.type == KVMD_MSG_SLAB_ADD ? KVMD_MSG_SLAB_ADDED :
		       KVMD_MSG_SLAB_DELETED, .bytes = sizeof(a) },
		.slab = m->slab, .gen = m->gen,
	};

	if (!r->mute && (m->h.type != KVMD_MSG_SLAB_ADD || m->fd_first + m->h.nr_fds ==
			 m->fd_total))
		(void)send(r->sock, &a, sizeof(a), MSG_NOSIGNAL);
}

/* Take one message; its type, 0: closed. */
static uint32_t one_message(struct raw *r, void *msg, size_t bytes)
{
	int fds[KVMD_MAX_FDS];
	uint32_t nr_fds;
	union {
		struct kvmd_msg h;
		struct kvmd_slab slab;
		struct kvmd_hello_reply hello;
		char b[KVMD_MSG_MAX_BYTES];
	} u;
	size_t n = receive(r, &u, sizeof(u), fds, &nr_fds);

	if (!n)
		return 0;
	T(n >= sizeof(u.h) && u.h.bytes == n && u.h.nr_fds == nr_fds);
	if (u.h.type == KVMD_MSG_SLAB_ADD || u.h.type == KVMD_MSG_SLAB_DEL)
		answer_slab(r, &u.slab);
	if (u.h.type == KVMD_MSG_HELLO_REPLY && !u.h.err) {
		r->hello = u.hello;
		take_hello(r, fds);
	}
	for (uint32_t i = 0; i < nr_fds; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	if (msg)
		memcpy(msg, &u, n < bytes ? n : bytes);
	return u.h.type;
}

static bool readable(struct raw *r, int ms)
{
	struct pollfd pfd = { .fd = r->sock, .events = POLLIN };

	return poll(&pfd, 1, ms) == 1;
}

void raw_recv(struct raw *r, uint32_t type, void *msg, size_t bytes)
{
	uint32_t got;

	do {
		T(readable(r, WAIT_MS));
		got = one_message(r, msg, bytes);
		T(got != 0);
	} while (got != type);
}

bool raw_is_closed(struct raw *r)
{
	while (!r->closed) {
		if (!readable(r, WAIT_MS))
			return false;
		one_message(r, NULL, 0);
	}
	return true;
}

int raw_hello(struct raw *r, const struct kvmd_hello *m, char *text)
{
	struct kvmd_hello_reply rep;

	raw_send(r, m, sizeof(*m));
	raw_recv(r, KVMD_MSG_HELLO_REPLY, &rep, sizeof(rep));
	T_EQ(rep.h.cookie, m->h.cookie);
	if (text)
		memcpy(text, rep.text, KVMD_TEXT_BYTES);
	return rep.h.err;
}

int raw_space(struct raw *r, const struct kvmd_space *m, char *text)
{
	raw_send(r, m, sizeof(*m));
	raw_recv(r, KVMD_MSG_SPACE_REPLY, &r->space, sizeof(r->space));
	T_EQ(r->space.h.cookie, m->h.cookie);
	if (text)
		memcpy(text, r->space.text, KVMD_TEXT_BYTES);
	return r->space.h.err;
}

void raw_open(struct raw *r, struct hd *d, const char *space, uint32_t slots)
{
	struct kvmd_hello h;
	struct kvmd_space s;

	raw_connect(r, d);
	raw_hello_init(&h);
	raw_space_init(&s, space, slots);
	T_EQ(raw_hello(r, &h, NULL), 0);
	T_EQ(raw_space(r, &s, NULL), 0);
}

void raw_close(struct raw *r)
{
	struct kvmd_msg bye = { .type = KVMD_MSG_BYE, .bytes = sizeof(bye) };

	if (r->ring)
		(void)send(r->sock, &bye, sizeof(bye), MSG_NOSIGNAL);
	if (r->ring) {
		munmap(r->ring, r->hello.ring_bytes);
		munmap(r->args, r->hello.args_bytes);
		munmap(r->steps, sizeof(*r->steps));
		close(r->bell);
	}
	close(r->sock);
}

void raw_ring(struct raw *r)
{
	const uint64_t one = 1;

	T(write(r->bell, &one, sizeof(one)) == sizeof(one));
}

void raw_put(struct raw *r, const struct kvmd_sqe *e)
{
	struct kvmd_sqe *at = &r->sq[r->tail & r->sq_mask];

	memcpy(at, e, offsetof(struct kvmd_sqe, pos));
	__atomic_store_n(&at->pos, ++r->tail, __ATOMIC_RELEASE);
	__atomic_store_n(&r->ring->sq_tail, r->tail, __ATOMIC_RELEASE);
	raw_ring(r);
}

/* Sleep until the daemon has news, a little at most; answer what it announces. */
static void nap(struct raw *r, uint32_t seen)
{
	const struct timespec ts = { .tv_nsec = 20000000 };

	while (!r->closed && readable(r, 0))
		one_message(r, NULL, 0);
	syscall(SYS_futex, &r->ring->cq_tail, FUTEX_WAIT, seen, &ts, NULL, 0);
}

struct kvmd_cqe raw_take(struct raw *r)
{
	uint64_t until = test_now_ns() + WAIT_NS;
	struct kvmd_cqe c;
	uint32_t tail;

	__atomic_store_n(&r->ring->client_flags, KVMD_RING_NEED_WAKEUP, __ATOMIC_SEQ_CST);
	while ((tail = __atomic_load_n(&r->ring->cq_tail, __ATOMIC_ACQUIRE)) == r->head) {
		T(test_now_ns() < until && !r->closed);
		nap(r, tail);
	}
	__atomic_store_n(&r->ring->client_flags, 0, __ATOMIC_RELAXED);
	c = r->cq[r->head & r->cq_mask];
	__atomic_store_n(&r->ring->cq_head, ++r->head, __ATOMIC_RELEASE);
	return c;
}

int raw_do(struct raw *r, const struct kvmd_sqe *e)
{
	struct kvmd_cqe c;

	raw_put(r, e);
	c = raw_take(r);
	T_EQ(c.user_data, e->user_data);
	return c.res;
}

int raw_ended(struct raw *r)
{
	T(raw_is_closed(r));		/* for reading: it may still say bye */
	return __atomic_load_n(&r->ring->ended, __ATOMIC_ACQUIRE);
}
