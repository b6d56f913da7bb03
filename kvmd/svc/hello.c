/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hello.c - making a session: its rings, its operations, its space.
 */
#include "kvmd/svc/daemon.h"

#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kvmd/lib/clock.h"
#include "kvmd/lib/log.h"
#include "kvmd/lib/mem.h"
#include "kvmd/lib/stats.h"
#include "kvmd/reclaim/policy.h"
#include "kvmd/svc/keep.h"

static const char *const session_states[NR_SESSION_STATE] = {
	"free", "hello", "live", "kept", "dead", "grace", "reaping",
};

const char *session_state_name(unsigned state)
{
	return state < NR_SESSION_STATE ? session_states[state] : "?";
}

/* ------------------------------------------------------------------- tenants */

/* Rings and tables in use by all sessions of @t; tables count as far as they were touched. */
static uint64_t tenant_ring_bytes(const struct daemon *d, const struct tenant *t)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < POOL_MAX_CONNS; i++) {
		const struct session *s = &d->session[i];
		struct stat st;

		if (s->state == SESSION_FREE || s->tenant != t)
			continue;
		bytes += s->ring_bytes;
		if (s->st.seq && !fstat(s->st.rows_fd, &st))
			bytes += (uint64_t)st.st_blocks * 512 * 2;	/* and the mirror */
	}
	return bytes;
}

static int check_tenant(struct conn *c, const struct kvmd_hello *h, struct tenant **ret_t,
			char *msg, size_t n)
{
	struct daemon *d = c->d;
	const char *name = h->tenant[0] ? h->tenant : "default";
	struct tenant *t = tenant_find(d->pool, name);
	bool may = c->uid == 0 || c->uid == geteuid();
	uint64_t bytes = h->args_bytes + h->sq_entries * sizeof(struct kvmd_sqe) +
			 h->cq_entries * sizeof(struct kvmd_cqe);

	if (!t) {
		snprintf(msg, n, "no tenant %s: add [tenant %s] to the configuration", name, name);
		return -ENOENT;
	}
	for (uint32_t i = 0; i < t->nr_uids; i++)
		may |= t->uid[i] == c->uid;
	if (!may) {
		snprintf(msg, n, "uid %u may not use tenant %s: add it to its uids",
			 (unsigned)c->uid, t->name);
		return -EACCES;
	}
	if (t->nr_sessions >= t->max_sessions) {
		snprintf(msg, n, "tenant %s has %u sessions, its max_sessions", t->name,
			 t->nr_sessions);
		return -EDQUOT;
	}
	if (h->max_seqs > t->max_seqs - min(t->nr_seqs, t->max_seqs)) {
		snprintf(msg, n, "tenant %s: %u sequences asked for, %u of max_seqs = %u are taken",
			 t->name, h->max_seqs, t->nr_seqs, t->max_seqs);
		return -EDQUOT;
	}
	t->ring_bytes = tenant_ring_bytes(d, t);
	if (t->ring_bytes + bytes > t->max_ring_bytes) {
		snprintf(msg, n, "tenant %s: %llu more bytes of rings would be over ring_bytes = %llu",
			 t->name, (unsigned long long)bytes, (unsigned long long)t->max_ring_bytes);
		return -EDQUOT;
	}
	*ret_t = t;
	return 0;
}

/* ------------------------------------------------------------------- sessions */

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void bell_done(struct uring_req *r, int res)
{
	(void)r;
	(void)res;		/* armed again before the next sleep */
}

static int make_ops(struct session *s, uint32_t nr)
{
	s->nr_ops = s->nr_op_free = nr;
	s->ops = mem_big_alloc(nr * sizeof(*s->ops), false);
	s->op_free = mem_calloc(nr, sizeof(*s->op_free));
	if (!s->ops || !s->op_free)
		return -ENOMEM;
	for (uint32_t i = 0; i < nr; i++) {
		s->ops[i].s = s;
		list_init(&s->ops[i].link);
		s->op_free[i] = nr - 1 - i;
	}
	return 0;
}

static int make_shared(struct session *s, const struct kvmd_hello *h)
{
	void *map;
	int err;

	err = ring_create(h->sq_entries, h->cq_entries, &s->ring);
	if (err)
		return err;
	s->ring.use_pos = h->features & KVMD_FEAT_POS;
	s->ring.bulk = !s->ring.use_pos;
	s->args_fd = mem_fd_create("kvmd-args", h->args_bytes, false, &map);
	if (s->args_fd < 0)
		return s->args_fd;
	s->args = map;
	s->lim.args_bytes = h->args_bytes;
	err = mem_fd_seal(s->args_fd, false);
	if (err)
		return err;
	s->steps_fd = mem_fd_create("kvmd-steps", sizeof(struct kvmd_steps), false, &map);
	if (s->steps_fd < 0)
		return s->steps_fd;
	s->steps = map;
	err = mem_fd_seal(s->steps_fd, false);
	if (err)
		return err;
	s->bell_fd = eventfd(0, EFD_CLOEXEC);
	return s->bell_fd < 0 ? -errno : 0;
}

int session_create(struct conn *c, const struct kvmd_hello *h, char *msg, size_t n,
		   struct session **ret_s)
{
	struct daemon *d = c->d;
	struct session *s = &d->session[c->id];
	struct tenant *t;
	int err;

	err = check_tenant(c, h, &t, msg, n);
	if (err)
		return err;
	*s = (struct session) {
		.d = d, .id = c->id, .serial = ++d->next_serial, .state = SESSION_HELLO,
		.tenant = t, .nr_ranks = h->nr_ranks, .nr_conns = 1, .nr_lanes = h->nr_lanes,
		.max_tokens = h->max_tokens, .recompute_tps = h->recompute_tps,
		.args_fd = -1, .steps_fd = -1, .bell_fd = -1, .ring.fd = -1,
		.bell_req.done = bell_done,
	};
	s->lim.max_seqs = h->max_seqs;
	snprintf(s->label, sizeof(s->label), "%s", h->label);
	list_init(&s->step_ops);
	list_init(&s->more);
	list_init(&s->load_ops);
	t->nr_sessions++;
	t->nr_seqs += h->max_seqs;
	err = make_shared(s, h);
	if (!err)
		err = make_ops(s, h->cq_entries);
	/* Other ranks prove by it that they belong here; rank 0 when it resumes. */
	if (!err && (h->nr_ranks > 1 || keep_is_on(d)) &&
	    getrandom(&s->group_token, sizeof(s->group_token), GRND_NONBLOCK) !=
	    sizeof(s->group_token))
		err = -EAGAIN;
	if (err) {
		snprintf(msg, n, "no memory for the session's rings: %s", strerror(-err));
		session_free(s);
		return err;
	}
	s->ring_bytes = s->ring.bytes + h->args_bytes;
	c->s = s;
	c->state = CONN_LIVE;
	stat_inc(SESSIONS);
	stat_inc(SESSIONS_OPENED);
	*ret_s = s;
	return 0;
}

/* Take apart what was made or attached, as far as it got; fds of -1 stay open. */
static void session_unmake(struct session *s)
{
	seqtab_destroy(&s->st);
	if (s->args)
		munmap(s->args, s->lim.args_bytes);
	if (s->steps)
		munmap(s->steps, sizeof(*s->steps));
	ring_destroy(&s->ring);
	if (s->ops)
		mem_big_free(s->ops, s->nr_ops * sizeof(*s->ops));
	mem_free(s->op_free);
	close_fd(&s->args_fd);
	close_fd(&s->steps_fd);
	close_fd(&s->bell_fd);
}

/* Its tables are there: it is one of @sp's. */
static void join_space(struct session *s, struct space *sp)
{
	s->sp = sp;
	sp->nr_sessions++;
	s->lim.nr_groups = sp->nr_groups;
	for (uint32_t g = 0; g < sp->nr_groups; g++)
		s->lim.max_blocks = max(s->lim.max_blocks, s->st.row_blocks[g]);
}

/* ---------------------------------------------------------- a former daemon's */

static int attach_shared(int fd, uint64_t bytes, void **ret_map)
{
	struct stat st;
	void *map;

	if (fstat(fd, &st) || (uint64_t)st.st_size != bytes)
		return -EINVAL;
	map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	*ret_map = map;
	return 0;
}

static int attach_all(struct session *s, const struct keep_session *k, const int *fd)
{
	void *map;
	int err = ring_attach(fd[KEEP_FD_RING], k->sq_entries, k->cq_entries, &s->ring);

	if (err)
		return err;
	s->ring.use_pos = k->use_pos;
	err = attach_shared(fd[KEEP_FD_ARGS], k->args_bytes, &map);
	if (err)
		return err;
	s->args = map;
	err = attach_shared(fd[KEEP_FD_STEPS], sizeof(struct kvmd_steps), &map);
	if (err)
		return err;
	s->steps = map;
	err = seqtab_attach(s->d->ix, s->sp, k->max_seqs, k->max_tokens, fd + KEEP_FD_SEQS,
			    &s->st);
	if (err)
		return err;
	s->bell_fd = eventfd(0, EFD_CLOEXEC);
	return s->bell_fd < 0 ? -errno : make_ops(s, k->cq_entries);
}

/* Half-way there: nothing of it is ours, the fds go back. */
static void detach_all(struct session *s)
{
	s->st.seq_fd = s->st.mirror_fd = s->st.rows_fd = -1;
	s->ring.fd = s->args_fd = s->steps_fd = -1;
	session_unmake(s);
	memset(s, 0, sizeof(*s));
}

int session_restore(struct daemon *d, uint32_t id, const struct keep_session *k, const int *fd)
{
	struct session *s = &d->session[id];
	int err;

	*s = (struct session) {
		.d = d, .id = id, .serial = k->serial, .state = SESSION_KEPT, .kept = true,
		.tenant = d->pool->space[k->space].tenant, .sp = &d->pool->space[k->space],
		.nr_ranks = k->nr_ranks, .nr_lanes = k->nr_lanes, .max_tokens = k->max_tokens,
		.recompute_tps = k->recompute_tps, .group_token = k->group_token,
		.args_fd = fd[KEEP_FD_ARGS], .steps_fd = fd[KEEP_FD_STEPS], .bell_fd = -1,
		.ring.fd = -1, .bell_req.done = bell_done,
	};
	s->lim.max_seqs = k->max_seqs;
	s->lim.args_bytes = k->args_bytes;
	snprintf(s->label, sizeof(s->label), "%s", k->label);
	list_init(&s->step_ops);
	list_init(&s->more);
	list_init(&s->load_ops);
	err = attach_all(s, k, fd);
	if (err) {
		detach_all(s);
		return err;
	}
	s->ring_bytes = s->ring.bytes + k->args_bytes;
	s->tenant->nr_sessions++;
	s->tenant->nr_seqs += k->max_seqs;
	join_space(s, s->sp);
	s->completed_ns = s->last_entry_ns = d->now_ns;
	stat_inc(SESSIONS);
	return 0;
}

/* --------------------------------------------------------------------- space */

static int get_space(struct session *s, const struct kvmd_space *m, struct space **ret_sp,
		     char *msg, size_t n)
{
	struct pool *p = s->d->pool;
	struct space *sp = space_find(p, m->name);
	int err;

	if (sp && sp->tenant != s->tenant) {
		snprintf(msg, n, "space %s belongs to another tenant", m->name);
		return -EACCES;
	}
	if (!sp && (m->flags & (KVMD_SPACE_EXISTING | KVMD_SPACE_ANY_GEOMETRY))) {
		snprintf(msg, n, "there is no space %s: open it with its geometry first", m->name);
		return -ENOENT;
	}
	if (!(m->flags & KVMD_SPACE_ANY_GEOMETRY)) {
		err = space_check_geometry(m, msg, n);
		if (err)
			return err;
		err = sp ? space_same_geometry(sp, m, msg, n) : 0;
		if (err)
			return err;
	} else if (memcmp(sp->salt_digest, m->salt_digest, sizeof(m->salt_digest))) {
		snprintf(msg, n, "space %s has another salt_digest: its keys cannot match", m->name);
		return -EINVAL;
	}
	if (sp) {
		*ret_sp = sp;
		return 0;
	}
	err = space_create(p, m, s->tenant, policy_find(s->d->conf.pool.policy), ret_sp, msg, n);
	if (!err && s->d->tiers)
		tiers_space_opened(s->d->tiers, *ret_sp);
	if (!err)
		log_info("space %s: made for tenant %s: %u groups, %u shards, group 0: %u slots of "
			 "%llu bytes, policy %s", m->name, s->tenant->name, m->nr_groups,
			 m->nr_shards, (*ret_sp)->gp[0].max_slots,
			 (unsigned long long)(*ret_sp)->gp[0].slot_bytes, s->d->conf.pool.policy);
	return err;
}

int session_open_space(struct session *s, const struct kvmd_space *m, char *msg, size_t n)
{
	struct daemon *d = s->d;
	struct space *sp;
	int err = get_space(s, m, &sp, msg, n);

	if (err)
		return err;
	err = seqtab_create(d->ix, sp, s->lim.max_seqs, s->max_tokens, &s->st);
	if (err) {
		snprintf(msg, n, "no memory for the block tables: %s", strerror(-err));
		return err;
	}
	join_space(s, sp);
	s->state = SESSION_LIVE;
	s->last_entry_ns = s->completed_ns = d->now_ns;
	st_rlx(&s->ring.sh->epoch, (uint32_t)sp->epoch);
	d->live[d->nr_live++] = s;
	keep_new_conn(&d->conn[s->id]);		/* before it: a kept session has its process */
	keep_new_session(s);
	for (uint32_t g = 0; g < sp->nr_groups; g++)
		if (!sp->gp[g].nr_slots && !sp->gp[g].nr_coming)
			(void)slab_grow(d->pool, &sp->gp[g]);	/* the first one ahead of need */
	log_info("client %u (%s, pid %d): tenant %s, space %s, %u sequences", s->serial, s->label,
		 (int)d->conn[s->id].pid, s->tenant->name, sp->name, s->lim.max_seqs);
	return 0;
}

void session_free(struct session *s)
{
	struct daemon *d = s->d;

	session_unmake(s);
	if (s->sp)
		s->sp->nr_sessions--;
	s->tenant->nr_sessions--;
	s->tenant->nr_seqs -= s->lim.max_seqs;
	s->state = SESSION_FREE;
	keep_session(d, s);
	s->kept = false;
	if (s->barrier)
		d->keep->nr_barrier--;
	s->barrier = false;
	for (uint32_t i = 0; i < POOL_MAX_CONNS; i++)
		if (d->conn[i].s == s)
			conn_session_gone(&d->conn[i]);
}
