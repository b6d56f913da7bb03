/* SPDX-License-Identifier: Apache-2.0 */
/*
 * core_rig.c - the daemon without its loop, and clients without processes.
 */
#include "core_rig.h"

#include <dirent.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kvmd/lib/clock.h"
#include "kvmd/lib/mem.h"
#include "kvmd/lib/stats.h"
#include "kvmd/tier/disk_int.h"
#include "tests/quiet.h"

/* ------------------------------------------------------------------ the daemon */

static unsigned nr_tries;

int core_try(struct core *c, const char *const *opts)
{
	char msg[256] = "", opt[128];
	int err;

	*c = (struct core) { .ticks = 16000, .features = KVMD_FEAT_POS };
	c->d = mem_big_alloc(sizeof(*c->d), false);
	if (!c->d)
		return -ENOMEM;
	err = config_init(&c->d->conf);
	/* The kernel gives a socket back some time after its ring is gone: a new name each. */
	snprintf(opt, sizeof(opt), "daemon.socket=@kvmd-core-%d-%u", (int)getpid(), nr_tries++);
	err = err ? err : config_set(&c->d->conf, opt, msg, sizeof(msg));
	err = err ? err : config_set(&c->d->conf, "daemon.log_level=err", msg, sizeof(msg));
	for (; !err && opts && *opts; opts++)
		err = config_set(&c->d->conf, *opts, msg, sizeof(msg));
	err = err ? err : config_finish(&c->d->conf, msg, sizeof(msg));
	if (!err) {
		err = daemon_init(c->d);
		if (err)
			daemon_exit(c->d);
	}
	if (err) {
		config_exit(&c->d->conf);
		mem_big_free(c->d, sizeof(*c->d));
		c->d = NULL;
	}
	return err;
}

void core_init(struct core *c, const char *const *opts)
{
	ck_assert_int_eq(core_try(c, opts), 0);
}

void core_exit(struct core *c)
{
	if (!c->d)
		return;
	daemon_exit(c->d);
	config_exit(&c->d->conf);
	mem_big_free(c->d, sizeof(*c->d));
	c->d = NULL;
}

static void after(const struct core *c)
{
	if (c->after)
		c->after();
}

bool core_turn(struct core *c)
{
	struct daemon *d = c->d;
	bool did = false;

	d->now_ns = (c->base_ns ? c->base_ns : clock_ns()) + c->skew_ns;
	d->pool->now = c->ticks;
	for (uint32_t i = 0; i < d->nr_live; i++) {
		did |= session_turn(d->live[i]);
		after(c);
	}
	if (d->tiers) {
		if (!c->by_hand)
			did |= workers_reap(d->slow) + uring_poll(d->u) > 0;
		did |= tiering_turn(d);
		after(c);
	}
	if (d->rc.kick || d->rc.retry_ns)
		did |= reclaim_turn(&d->rc, d->now_ns);
	after(c);
	if (!c->by_hand)
		did |= workers_reap(d->workers) > 0;
	conn_close_doomed(d);
	announce_turn(d);
	death_turn(d);
	ticket_turn(d);
	daemon_set_pressure(d);
	after(c);
	return did;
}

/* With tiers completions come through the ring too, and so does the workers' bell. */
static bool tiers_busy(const struct core *c)
{
	const struct daemon *d = c->d;

	return d->tiers && (tiers_is_busy(d->tiers) || workers_nr_pending(d->slow));
}

static void tiers_work(struct core *c)
{
	struct daemon *d = c->d;

	while (workers_nr_pending(d->workers) || tiers_busy(c)) {
		unsigned nr = workers_reap(d->workers) + workers_reap(d->slow);

		if (!nr && !uring_wait(d->u, 1000000))
			d->now_ns = clock_ns() + c->skew_ns;	/* what is due gets done */
		tiering_turn(d);
		after(c);
	}
}

void core_work(struct core *c)
{
	struct pollfd p = { .fd = workers_notify_fd(c->d->workers), .events = POLLIN };
	uint64_t n;

	if (c->d->tiers) {
		tiers_work(c);
		return;
	}
	while (workers_nr_pending(c->d->workers)) {
		if (!workers_reap(c->d->workers) && poll(&p, 1, -1) == 1)
			core_ok(read(p.fd, &n, sizeof(n)) == sizeof(n));
		after(c);
	}
}

void core_settle(struct core *c)
{
	unsigned quiet = 0;

	while (quiet < 3) {
		quiet = core_turn(c) || workers_nr_pending(c->d->workers) || tiers_busy(c) ?
			0 : quiet + 1;
		core_work(c);
		for (unsigned i = 0; i < ARRAY_SIZE(c->client); i++)
			if (c->client[i])
				quiet = core_pump(c->client[i]) ? 0 : quiet;
	}
}

void core_recovered(struct core *c)
{
	struct disk_info i = { .recovering = true };

	while (c->d->tiers->disk && i.recovering) {
		core_settle(c);
		disk_get_info(c->d->tiers->disk, &i);
		if (i.recovering)
			(void)uring_wait(c->d->u, 1000000);
	}
}

void core_quiet(struct core *c)
{
	struct daemon *d = c->d;
	const struct disk *k = d->tiers && d->tiers->disk ?
			       disk_of(tier_bottom(d->tiers->disk)) : NULL;

	core_settle(c);
	while (k && (k->nr_io || k->nr_work || k->recovering || disk_space_busy(k))) {
		if (!(workers_reap(d->workers) + workers_reap(d->slow)))
			(void)uring_wait(d->u, 1000000);
		core_settle(c);
	}
}

/* ------------------------------------------------------------------- clients */

static void close_fds(struct msghdr *mh)
{
	for (struct cmsghdr *cm = CMSG_FIRSTHDR(mh); cm; cm = CMSG_NXTHDR(mh, cm)) {
		size_t nr = (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		int fds[KVMD_MAX_FDS];

		memcpy(fds, CMSG_DATA(cm), nr * sizeof(int));
		while (nr--)
			close(fds[nr]);
	}
}

static void answer(struct core_client *cl, const struct kvmd_slab *m)
{
	struct kvmd_slab_ack a = {
		.h = { .type = KVMD_MSG_SLAB_ADDED, .bytes = sizeof(a) },
		.slab = m->slab, .gen = m->gen,
	};
	uint32_t left = m->fd_total - m->fd_first;

	if (m->h.type == KVMD_MSG_SLAB_DEL)
		a.h.type = KVMD_MSG_SLAB_DELETED;
	else if (left > KVMD_MAX_FDS)
		return;			/* more of it follows */
	control_message(cl->conn, &a, sizeof(a));
}

bool core_pump(struct core_client *cl)
{
	uint32_t before = cl->nr_msgs;

	union {
		char buf[CMSG_SPACE(sizeof(int) * KVMD_MAX_FDS)];
		struct cmsghdr align;
	} u;
	union {
		struct kvmd_msg h;
		struct kvmd_hello_reply hello;
		struct kvmd_space_reply space;
		struct kvmd_epoch epoch;
		struct kvmd_slab slab;
		char buf[KVMD_MSG_MAX_BYTES];
	} m;

	while (!cl->mute) {
		struct iovec iov = { .iov_base = &m, .iov_len = sizeof(m) };
		struct msghdr mh = {
			.msg_iov = &iov, .msg_iovlen = 1, .msg_control = u.buf,
			.msg_controllen = sizeof(u.buf),
		};
		ssize_t n = recvmsg(cl->peer, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

		if (n <= 0)
			break;
		core_ok((size_t)n == m.h.bytes);
		close_fds(&mh);
		cl->nr_msgs++;
		if (m.h.type == KVMD_MSG_SLAB_ADD || m.h.type == KVMD_MSG_SLAB_DEL) {
			answer(cl, &m.slab);
			continue;
		}
		cl->last_err = m.h.err;
		if (m.h.type == KVMD_MSG_HELLO_REPLY)
			memcpy(cl->text, m.hello.text, sizeof(cl->text));
		else if (m.h.type == KVMD_MSG_SPACE_REPLY)
			memcpy(cl->text, m.space.text, sizeof(cl->text));
		else if (m.h.type == KVMD_MSG_EPOCH_REPLY)
			memcpy(cl->text, m.epoch.text, sizeof(cl->text));
	}
	return cl->nr_msgs != before;
}

void core_hello_fill(struct kvmd_hello *h, const char *tenant, uint32_t max_seqs,
		     uint32_t max_tokens)
{
	*h = (struct kvmd_hello) {
		.h = { .type = KVMD_MSG_HELLO, .bytes = sizeof(*h) },
		.version = KVMD_WIRE_VERSION, .sq_entries = 64, .cq_entries = 64,
		.max_seqs = max_seqs, .features = KVMD_FEAT_POS, .args_bytes = 1 << 20,
		.max_tokens = max_tokens, .nr_lanes = 1, .nr_ranks = 1,
	};
	strncpy(h->tenant, tenant, sizeof(h->tenant) - 1);
}

/* In the list of those that core_settle() looks after, or out of it. */
static void enlist(struct core_client *cl, bool in)
{
	unsigned i = 0;

	while (i < ARRAY_SIZE(cl->c->client) && cl->c->client[i] != (in ? NULL : cl))
		i++;
	if (i < ARRAY_SIZE(cl->c->client))
		cl->c->client[i] = in ? cl : NULL;
}

static struct conn *new_conn(struct daemon *d, int sock)
{
	uint32_t i = 0;

	while (d->conn[i].state != CONN_FREE || d->session[i].state != SESSION_FREE)
		ck_assert_uint_lt(++i, POOL_MAX_CONNS);
	d->conn[i] = (struct conn) {
		.d = d, .id = i, .state = CONN_NEW, .sock = sock, .pidfd = -1,
		.pid = getpid(), .uid = geteuid(), .connected_ns = d->now_ns,
	};
	return &d->conn[i];
}

int core_hello_with(struct core *c, struct core_client *cl, const struct kvmd_hello *h)
{
	int sv[2];

	*cl = (struct core_client) { .c = c, .peer = -1 };
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	cl->peer = sv[1];
	enlist(cl, true);
	cl->conn = new_conn(c->d, sv[0]);
	control_message(cl->conn, h, sizeof(*h));
	cl->s = cl->conn->s;
	core_pump(cl);
	if (!cl->s)
		core_gone(cl);
	return cl->last_err;
}

int core_hello(struct core *c, struct core_client *cl, const char *tenant, uint32_t max_seqs,
	       uint32_t max_tokens)
{
	struct kvmd_hello h;

	core_hello_fill(&h, tenant, max_seqs, max_tokens);
	h.features = c->features;
	return core_hello_with(c, cl, &h);
}

void core_geometry(struct kvmd_space *m, const char *name, uint64_t plane_bytes,
		   uint32_t max_slots)
{
	*m = (struct kvmd_space) { .nr_groups = 1, .nr_shards = 1 };
	strncpy(m->name, name, sizeof(m->name) - 1);
	m->group[0] = (struct kvmd_group) {
		.plane_bytes = plane_bytes, .planes = 1, .block_tokens = 16,
		.max_slots = max_slots,
	};
}

int core_space(struct core_client *cl, struct kvmd_space *m)
{
	m->h = (struct kvmd_msg) { .type = KVMD_MSG_SPACE, .bytes = sizeof(*m) };
	control_message(cl->conn, m, sizeof(*m));
	core_pump(cl);
	return cl->last_err;
}

void core_client(struct core *c, struct core_client *cl, const char *tenant,
		 const struct kvmd_space *m, uint32_t max_seqs, uint32_t max_tokens)
{
	struct kvmd_space copy = *m;
	int err = core_hello(c, cl, tenant, max_seqs, max_tokens);

	ck_assert_msg(!err, "hello: %s", cl->text);
	err = core_space(cl, &copy);
	ck_assert_msg(!err, "space: %s", cl->text);
	core_settle(c);
}

void core_close(struct core_client *cl)
{
	enlist(cl, false);
	if (cl->peer >= 0)
		close(cl->peer);
	cl->peer = -1;
	conn_close(cl->conn);
}

void core_gone(struct core_client *cl)
{
	core_close(cl);
	cl->conn->pid_gone = true;
	announce_conn_gone(cl->conn);
	if (!cl->conn->s)
		conn_session_gone(cl->conn);
	cl->s = NULL;
}

/* ---------------------------------------------------------------------- rings */

uint64_t core_args(struct core_client *cl, const void *data, size_t bytes)
{
	uint64_t at = cl->args_at;

	core_ok(bytes <= cl->s->lim.args_bytes);
	if (at + bytes > cl->s->lim.args_bytes)
		at = 0;
	memcpy(cl->s->args + at, data, bytes);
	cl->args_at = align_up(at + bytes, 8);
	return at;
}

void core_submit(struct core_client *cl, const struct kvmd_sqe *e)
{
	struct ring *r = &cl->s->ring;
	struct kvmd_sqe *d = &r->sqe[cl->sq_tail & r->sq_mask];

	core_ok(cl->sq_tail - ld_acq(&r->sh->sq_head) <= r->sq_mask);
	memcpy(d, e, offsetof(struct kvmd_sqe, pos));
	cl->sq_tail++;
	st_rel(&d->pos, cl->sq_tail);
	st_rel(&r->sh->sq_tail, cl->sq_tail);
}

bool core_peek(struct core_client *cl, struct kvmd_cqe *ret_c)
{
	struct ring *r = &cl->s->ring;
	const struct kvmd_cqe *q = &r->cqe[cl->cq_head & r->cq_mask];

	if (ld_acq(&q->pos) != cl->cq_head + 1)
		return false;
	*ret_c = *q;
	return true;
}

bool core_take(struct core_client *cl, struct kvmd_cqe *ret_c)
{
	if (!core_peek(cl, ret_c))
		return false;
	st_rel(&cl->s->ring.sh->cq_head, ++cl->cq_head);
	return true;
}

struct kvmd_cqe core_do(struct core_client *cl, const struct kvmd_sqe *e)
{
	struct kvmd_cqe q;

	core_submit(cl, e);
	core_settle(cl->c);
	quiet_assert_msg(core_take(cl, &q), "entry %u has no completion", e->opcode);
	quiet_assert_uint_eq(q.user_data, e->user_data);
	return q;
}

void core_step_submit(struct core_client *cl, uint64_t step)
{
	st_rel(&cl->s->ring.sh->submitted_step, step);
}

void core_step_complete(struct core_client *cl, uint64_t step)
{
	st_rel(&cl->s->steps->lane[0].completed_step, step);
}

/* -------------------------------------------------------------------- entries */

struct kvmd_sqe core_op(uint8_t opcode, uint32_t seq)
{
	return (struct kvmd_sqe) {
		.opcode = opcode, .seq = seq, .seq_gen = 1, .user_data = opcode,
	};
}

struct kvmd_sqe core_open(struct core_client *cl, uint32_t seq, const void *keys, uint32_t nr)
{
	struct kvmd_sqe e = core_op(KVMD_OP_SEQ_OPEN, seq);

	e.nr = nr;
	e.off = nr ? core_args(cl, keys, (size_t)nr * KVMD_KEY_BYTES) : 0;
	return e;
}

struct kvmd_sqe core_extend(uint32_t seq, uint32_t nr)
{
	struct kvmd_sqe e = core_op(KVMD_OP_SEQ_EXTEND, seq);

	e.nr = nr;
	return e;
}

struct kvmd_sqe core_publish(struct core_client *cl, uint32_t seq, uint32_t first,
			     const void *keys, uint32_t nr)
{
	struct kvmd_sqe e = core_op(KVMD_OP_SEQ_PUBLISH, seq);

	e.first = first;
	e.nr = nr;
	e.off = core_args(cl, keys, (size_t)nr * KVMD_KEY_BYTES);
	return e;
}

void core_keys(uint32_t chain, uint32_t first, uint32_t nr, uint8_t *ret_keys)
{
	for (uint32_t i = 0; i < nr; i++) {
		uint32_t w[8];

		for (uint32_t k = 0; k < 8; k++)
			w[k] = (chain * 0x9e3779b1u) ^ ((first + i) * 0x85ebca6bu) ^ (k << 24);
		memcpy(ret_keys + (size_t)i * KVMD_KEY_BYTES, w, sizeof(w));
	}
}

void core_fill(struct core_client *cl, uint32_t seq, uint32_t chain, uint32_t nr)
{
	uint8_t *keys = mem_calloc(nr, KVMD_KEY_BYTES);
	struct kvmd_sqe e;
	struct kvmd_cqe q;
	uint32_t have;

	core_keys(chain, 0, nr, keys);
	e = core_open(cl, seq, keys, nr);
	q = core_do(cl, &e);
	ck_assert_int_ge(q.res, 0);
	have = (uint32_t)q.res;
	if (have < nr) {
		e = core_extend(seq, nr - have);
		q = core_do(cl, &e);
		ck_assert_int_eq(q.res, (int)(nr - have));
		e = core_publish(cl, seq, have, keys + (size_t)have * KVMD_KEY_BYTES, nr - have);
		q = core_do(cl, &e);
		ck_assert_int_eq(q.res, (int)(nr - have));
	}
	mem_free(keys);
}

void *core_mem(const struct gpool *gp, uint32_t slot, uint32_t shard, uint32_t plane)
{
	const struct slab *s = gpool_slab(gp, slot);

	return (char *)s->ext[shard * gp->geo.planes + plane].map +
	       (slot - s->first) * gp->geo.plane_bytes;
}

/* ------------------------------------------------------------------- counting */

unsigned core_nr_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned nr = 0;

	ck_assert_ptr_nonnull(dir);
	while (readdir(dir))
		nr++;
	closedir(dir);
	return nr;
}

unsigned core_nr_maps(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	char line[512];
	unsigned nr = 0;

	ck_assert_ptr_nonnull(f);
	while (fgets(line, sizeof(line), f))
		nr += strstr(line, "memfd:") != NULL;
	fclose(f);
	return nr;
}
