/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.c - answering control messages: hello, space, join, epoch, slabs.
 *
 * A refused hello or space is answered with what was wrong and what to do, and
 * the connection may try again; a message that makes no sense where it comes
 * ends the connection.
 */
#include "kvmd/svc/control_check.h"
#include "kvmd/svc/keep.h"

#include <stdio.h>

#include "kvmd/lib/log.h"
#include "kvmd/lib/stats.h"

static void refused(struct conn *c, const char *what, int err, const char *text)
{
	static struct log_ratelimit rl;

	stat_inc(SESSIONS_REFUSED);
	if (log_ratelimited(&rl, 10, 10000000000ull))
		log_warn("client pid %d: %s refused: %s (%s)", (int)c->pid, what, text,
			 strerror(-err));
}

static void reply(struct conn *c, const struct kvmd_msg *to, struct kvmd_msg *m, size_t bytes,
		  uint32_t type, int err, const int *fds, unsigned nr_fds)
{
	m->type = type;
	m->cookie = to->cookie;
	m->err = err;
	err = conn_send(c, m, bytes, fds, nr_fds);
	if (err) {
		log_warn("client pid %d: control socket: %s", (int)c->pid, strerror(-err));
		conn_close(c);
	}
}

/* -------------------------------------------------------------------- hello */

/* The device that a client is told of before it has a space. */
static const struct dev *first_up(const struct pool *p)
{
	for (uint32_t i = 0; i < p->nr_devs; i++)
		if (!p->dev[i].down)
			return &p->dev[i];
	return &p->dev[0];
}

static void do_hello(struct conn *c, const struct kvmd_hello *h, int err, char *text)
{
	struct daemon *d = c->d;
	struct kvmd_hello_reply r = { .version = KVMD_WIRE_VERSION };
	struct session *s = NULL;
	int fds[4];

	if (!err && c->s) {
		snprintf(text, KVMD_TEXT_BYTES, "this connection has said hello already");
		err = -EALREADY;
	}
	if (!err)
		err = session_create(c, h, text, KVMD_TEXT_BYTES, &s);
	if (err) {
		snprintf(r.text, sizeof(r.text), "%s", text);
		refused(c, "hello", err, text);
		reply(c, &h->h, &r.h, sizeof(r), KVMD_MSG_HELLO_REPLY, err, NULL, 0);
		return;
	}
	r.session = s->serial;
	r.features = h->features & KVMD_FEATURES;
	memcpy(r.boot_id, d->boot_id, sizeof(r.boot_id));
	r.group_token = s->group_token;
	r.ring_bytes = s->ring.bytes;
	r.args_bytes = s->lim.args_bytes;
	r.sq_entries = s->ring.sq_mask + 1;
	r.cq_entries = s->ring.cq_mask + 1;
	r.sq_off = ring_sq_off();
	r.cq_off = ring_cq_off(&s->ring);
	r.max_seqs = s->lim.max_seqs;
	r.max_tokens = s->max_tokens;
	snprintf(r.device, sizeof(r.device), "%s", first_up(d->pool)->ops->name);
	fds[0] = s->ring.fd;
	fds[1] = s->args_fd;
	fds[2] = s->steps_fd;
	fds[3] = s->bell_fd;
	reply(c, &h->h, &r.h, sizeof(r), KVMD_MSG_HELLO_REPLY, 0, fds, 4);
}

/* -------------------------------------------------------------------- space */

static void fill_space_reply(const struct session *s, struct kvmd_space_reply *r)
{
	const struct space *sp = s->sp;

	r->space = sp->id;
	r->nr_groups = sp->nr_groups;
	r->nr_shards = sp->nr_shards;
	r->epoch = sp->epoch;
	r->tables_bytes = seqtab_rows_bytes(&s->st);
	r->seq_stride = s->st.stride;
	memcpy(r->salt_digest, sp->salt_digest, sizeof(r->salt_digest));
	r->handle_kind = sp->dev[0]->handle_kind;
	for (uint32_t i = 0; i < sp->nr_shards; i++)
		memcpy(r->device[i], sp->dev[i]->uuid_bytes, sizeof(r->device[i]));
	for (uint32_t g = 0; g < sp->nr_groups; g++) {
		r->group[g] = sp->gp[g].geo;
		r->row_off[g] = s->st.row_off[g];
		r->row_blocks[g] = s->st.row_blocks[g];
	}
	for (uint32_t i = 0; i < s->d->pool->slab_end; i++) {
		const struct slab *sl = &s->d->pool->slab[i];

		r->nr_slabs += sl->gp && sl->gp->sp == sp && sl->state >= SLAB_ANNOUNCED &&
			       sl->state <= SLAB_DRAINING;
	}
}

/* Ranks that said JOIN before rank 0 had its space. */
static void answer_join(struct conn *c, const struct kvmd_msg *to)
{
	struct session *s = c->s;
	struct kvmd_space_reply r = { 0 };
	int fds[2] = { s->steps_fd, s->st.client_fd };

	fill_space_reply(s, &r);
	c->join_pending = false;
	keep_new_conn(c);
	reply(c, to, &r.h, sizeof(r), KVMD_MSG_JOIN_REPLY, 0, fds, 2);
	if (c->sock >= 0 && announce_all(c))
		conn_close(c);
}

static void do_space(struct conn *c, const struct kvmd_space *m, int err, char *text)
{
	struct session *s = c->s;
	struct kvmd_space_reply r = { 0 };

	if (!err && (!s || s->state != SESSION_HELLO || c->rank)) {
		snprintf(text, KVMD_TEXT_BYTES, s ? "this session has its space already" :
			 "say hello first");
		err = -EALREADY;
	}
	if (!err)
		err = session_open_space(s, m, text, KVMD_TEXT_BYTES);
	if (err) {
		snprintf(r.text, sizeof(r.text), "%s", text);
		refused(c, "space", err, text);
		reply(c, &m->h, &r.h, sizeof(r), KVMD_MSG_SPACE_REPLY, err, NULL, 0);
		return;
	}
	fill_space_reply(s, &r);
	reply(c, &m->h, &r.h, sizeof(r), KVMD_MSG_SPACE_REPLY, 0, &s->st.client_fd, 1);
	if (c->sock >= 0 && announce_all(c)) {
		conn_close(c);
		return;
	}
	for (uint32_t i = 0; i < POOL_MAX_CONNS; i++) {
		struct conn *o = &c->d->conn[i];
		struct kvmd_msg to = { .cookie = o->join_cookie };

		if (o->state == CONN_LIVE && o->s == s && o->join_pending)
			answer_join(o, &to);
	}
}

/* --------------------------------------------------------------------- join */

static struct session *find_group(struct daemon *d, uint64_t token)
{
	for (uint32_t i = 0; token && i < POOL_MAX_CONNS; i++) {
		struct session *s = &d->session[i];

		if ((s->state == SESSION_HELLO || s->state == SESSION_LIVE) &&
		    s->group_token == token)
			return s;
	}
	return NULL;
}

static int join_check(struct conn *c, const struct kvmd_join *m, struct session **ret_s,
		      char *text)
{
	struct session *s = c->s ? NULL : find_group(c->d, m->group_token);

	if (!s || c->uid != c->d->conn[s->id].uid) {
		snprintf(text, KVMD_TEXT_BYTES, "no session group has that token: rank 0 says "
			 "hello first and hands its token on");
		return -ENOENT;
	}
	if (m->rank >= s->nr_ranks) {
		snprintf(text, KVMD_TEXT_BYTES, "rank %u of a group of %u", m->rank, s->nr_ranks);
		return -EINVAL;
	}
	for (uint32_t i = 0; i < POOL_MAX_CONNS; i++) {
		const struct conn *o = &c->d->conn[i];

		if ((o->state == CONN_LIVE || o->waiting) && o->s == s && o->rank == m->rank) {
			snprintf(text, KVMD_TEXT_BYTES, "rank %u is there already (pid %d)",
				 m->rank, (int)o->pid);
			return -EBUSY;
		}
	}
	*ret_s = s;
	return 0;
}

static void do_join(struct conn *c, const struct kvmd_join *m, int err, char *text)
{
	struct kvmd_space_reply r = { 0 };
	struct session *s = NULL;

	if (!err)
		err = join_check(c, m, &s, text);
	if (err) {
		snprintf(r.text, sizeof(r.text), "%s", text);
		refused(c, "join", err, text);
		reply(c, &m->h, &r.h, sizeof(r), KVMD_MSG_JOIN_REPLY, err, NULL, 0);
		return;
	}
	c->s = s;
	c->rank = m->rank;
	c->state = CONN_LIVE;
	s->nr_conns++;
	c->join_cookie = m->h.cookie;
	c->join_pending = true;
	if (s->state == SESSION_LIVE)
		answer_join(c, &m->h);
}

/* ------------------------------------------------------------------- others */

static void answer_epoch(struct epoch_wait *w, int err)
{
	struct conn *c = &w->d->conn[w->conn];
	struct kvmd_epoch r = { .epoch = w->epoch };

	if (c->state != CONN_LIVE || c->connected_ns != w->connected_ns)
		return;
	if (err)
		snprintf(r.text, sizeof(r.text), "the epoch is %llu now, but a restart may bring the "
			 "former one back: disk: %s", (unsigned long long)w->epoch, strerror(-err));
	reply(c, &w->h, &r.h, sizeof(r), KVMD_MSG_EPOCH_REPLY, err, NULL, 0);
}

static void do_epoch(struct conn *c, const struct kvmd_epoch *m)
{
	struct kvmd_epoch r = { 0 };
	struct session *s = c->s;
	struct epoch_wait w;
	int err = -ENOENT;

	if (s && s->state == SESSION_LIVE)
		err = space_raise_epoch(c->d->pool, s->sp, m->epoch);
	if (err)
		snprintf(r.text, sizeof(r.text), "%s", err == -EINVAL ?
			 "an epoch can only be raised" : err == -ENOSPC ?
			 "too many former epochs still have blocks" : "no space is open");
	else
		epoch_raised(c->d, s->sp);
	/* Durable before it is acknowledged. */
	w = (struct epoch_wait) {
		.done = answer_epoch, .conn = c->id, .connected_ns = c->connected_ns,
		.h = m->h, .epoch = !err ? s->sp->epoch : 0,
	};
	if (!err && epoch_make_durable(c->d, s->sp, &w))
		return;
	if (!err && c->d->tiers && c->d->tiers->disk) {
		err = -EBUSY;
		snprintf(r.text, sizeof(r.text), "the epoch was raised, but too many others are being "
			 "written to disk: raise it again");
	}
	r.epoch = s && s->sp ? s->sp->epoch : 0;
	reply(c, &m->h, &r.h, sizeof(r), KVMD_MSG_EPOCH_REPLY, err, NULL, 0);
}

void epoch_raised(struct daemon *d, struct space *sp)
{
	log_info("space %s: epoch is now %llu; %u blocks of former epochs will be dropped",
		 sp->name, (unsigned long long)sp->epoch, sp->nr_stale);
	d->rc.kick = true;
	for (uint32_t i = 0; i < d->nr_live; i++) {
		struct session *s = d->live[i];

		if (s->sp != sp)
			continue;
		st_rlx(&s->ring.sh->epoch, (uint32_t)sp->epoch);
		st_rel(&s->ring.sh->news_seq, s->ring.sh->news_seq + 1);
	}
}

static void do_slab_ack(struct conn *c, const struct kvmd_slab_ack *m)
{
	if (m->h.err < 0) {
		log_warn("client pid %d: could not map slab %u: %s", (int)c->pid, m->slab,
			 strerror(-m->h.err));
		conn_close(c);
		return;
	}
	announce_acked(c, m->slab, m->gen, m->h.type == KVMD_MSG_SLAB_DELETED);
}

void control_message(struct conn *c, const void *msg, size_t bytes)
{
	const struct kvmd_msg *h = msg;
	char text[KVMD_TEXT_BYTES] = "";
	int err = control_check(msg, bytes, text, sizeof(text));
	bool whole = bytes >= sizeof(*h) && h->bytes == bytes;

	/* A hello of another version has to be answered, whatever else is in it. */
	if (whole && h->type == KVMD_MSG_HELLO && bytes == sizeof(struct kvmd_hello)) {
		do_hello(c, msg, err, text);
	} else if (whole && h->type == KVMD_MSG_SPACE && bytes == sizeof(struct kvmd_space)) {
		do_space(c, msg, err, text);
	} else if (whole && h->type == KVMD_MSG_JOIN && bytes == sizeof(struct kvmd_join)) {
		do_join(c, msg, err, text);
	} else if (whole && h->type == KVMD_MSG_RESUME && bytes == sizeof(struct kvmd_resume)) {
		resume_message(c, msg, err, text);
	} else if (err) {
		refused(c, "message", err, text);
		conn_close(c);
	} else if (h->type == KVMD_MSG_EPOCH) {
		do_epoch(c, msg);
	} else if (h->type == KVMD_MSG_BYE) {
		c->said_bye = true;
		keep_conn(c->d, c);
		conn_close(c);
	} else {
		do_slab_ack(c, msg);
	}
}
