/* SPDX-License-Identifier: Apache-2.0 */
/*
 * announce.c - telling client processes which slabs to map and to unmap.
 *
 * A new slab is sent to every connection of its space and used when all have
 * answered, or when the deadline has passed: then those that have not answered
 * are held back (their rings are not served) until they do.
 */
#include "kvmd/svc/keep.h"

#include "kvmd/lib/log.h"
#include "kvmd/lib/stats.h"

static struct daemon *pool_daemon(struct pool *p)
{
	return p->events_ctx;
}

static bool conn_in_space(const struct conn *c, const struct space *sp)
{
	return c->state == CONN_LIVE && c->s && c->s->state == SESSION_LIVE && c->s->sp == sp;
}

/* -------------------------------------------------------------- sending */

static int send_slab(struct conn *c, struct slab *s)
{
	struct kvmd_slab m = {
		.h = { .type = KVMD_MSG_SLAB_ADD },
		.slab = s->id, .gen = s->gen, .group = s->gp->idx, .first_slot = s->first,
		.nr_slots = s->nr, .extent_bytes = s->extent_bytes,
		.handle_kind = s->gp->sp->dev[0]->handle_kind,
	};
	int fds[KVMD_MAX_FDS], err;
	uint32_t at = 0, n;

	/* Also when sending fails half-way: the process may have the first handles. */
	slab_bit_set(s->mapped, c->id);
	slab_bit_set(s->ever, c->id);
	keep_slab(c->d, s);
	m.fd_total = s->gp->sp->dev[0]->ops->has_memory ? s->nr_ext : 0;
	do {
		for (n = 0; n < KVMD_MAX_FDS && at + n < m.fd_total; n++)
			fds[n] = s->ext[at + n].fd;
		m.fd_first = at;
		err = conn_send(c, &m, sizeof(m), fds, n);
		if (err)
			return err;
		at += n;
	} while (at < m.fd_total);
	slab_bit_set(s->unacked, c->id);
	return 0;
}

/* May be called from inside one of its own operations: it is closed later. */
static void lost(struct conn *c, int err)
{
	if (c->doomed)
		return;
	log_warn("client pid %d: control socket: %s: session ends", (int)c->pid,
		 strerror(-err));
	c->doomed = true;
	c->d->nr_doomed++;
}

static void slab_ready(struct pool *p, struct slab *s)
{
	struct daemon *d = pool_daemon(p);

	s->deadline_ns = d->now_ns + d->conf.pool.slab_deadline_ns;
	for (uint32_t i = 0; i < POOL_MAX_CONNS; i++) {
		struct conn *c = &d->conn[i];
		int err = conn_in_space(c, s->gp->sp) ? send_slab(c, s) : 0;

		if (err)
			lost(c, err);
	}
	d->rc.kick = true;
	slab_advance(p, s);
}

static void slab_unmap(struct pool *p, struct slab *s)
{
	struct daemon *d = pool_daemon(p);
	struct kvmd_slab m = {
		.h = { .type = KVMD_MSG_SLAB_DEL },
		.slab = s->id, .gen = s->gen, .group = s->gp->idx, .first_slot = s->first,
		.nr_slots = s->nr, .extent_bytes = s->extent_bytes,
	};

	for (uint32_t i = 0; i < POOL_MAX_CONNS; i++) {
		int err;

		if (!slab_bit(s->unacked, i) || !conn_in_space(&d->conn[i], s->gp->sp))
			continue;	/* gone ones answer by their process's end */
		err = conn_send(&d->conn[i], &m, sizeof(m), NULL, 0);
		if (err)
			lost(&d->conn[i], err);
	}
}

static void slab_failed(struct pool *p, struct gpool *gp, int err)
{
	static struct log_ratelimit rl;

	if (log_ratelimited(&rl, 5, 10000000000ull))
		log_warn("space %s group %u: a slab could not be created: %s", gp->sp->name,
			 gp->idx, strerror(-err));
	pool_daemon(p)->rc.kick = true;
}

static void slab_changed(struct pool *p, struct slab *s)
{
	keep_slab(pool_daemon(p), s);
}

static void space_changed(struct pool *p, struct space *sp)
{
	keep_space(pool_daemon(p), sp);
}

const struct pool_events announce_events = {
	.slab_ready = slab_ready,
	.slab_unmap = slab_unmap,
	.slab_failed = slab_failed,
	.slab_changed = slab_changed,
	.space_changed = space_changed,
};

/* --------------------------------------------------------------- answers */

int announce_all(struct conn *c)
{
	struct pool *p = c->d->pool;
	int err;

	for (uint32_t i = 0; i < p->slab_end; i++) {
		struct slab *s = &p->slab[i];

		if (s->gp == NULL || s->gp->sp != c->s->sp || s->state < SLAB_ANNOUNCED ||
		    s->state > SLAB_DRAINING)
			continue;
		err = send_slab(c, s);
		if (err)
			return err;
		c->s->held++;		/* nothing is served before it has mapped all */
		slab_bit_set(s->late, c->id);
	}
	return 0;
}

/* @c owes no answer for @s any more. */
static void settled(struct conn *c, struct slab *s)
{
	slab_bit_clear(s->unacked, c->id);
	if (!slab_bit(s->late, c->id))
		return;
	slab_bit_clear(s->late, c->id);
	if (c->s && c->s->held)
		c->s->held--;
}

void announce_acked(struct conn *c, uint32_t slab, uint32_t gen, bool deleted)
{
	struct slab *s;

	if (slab >= POOL_MAX_SLABS)
		return;
	s = &c->d->pool->slab[slab];
	if (s->gen != gen || !slab_bit(s->unacked, c->id))
		return;
	/* An answer to an earlier announcement may come while unmapping is asked. */
	if (deleted != (s->state == SLAB_UNMAPPING))
		return;
	if (deleted) {
		slab_bit_clear(s->mapped, c->id);
		keep_slab(c->d, s);
	}
	settled(c, s);
	slab_advance(c->d->pool, s);
	c->d->rc.kick = true;
}

void announce_conn_closed(struct conn *c)
{
	for (uint32_t i = 0; i < c->d->pool->slab_end; i++) {
		struct slab *s = &c->d->pool->slab[i];

		if (!slab_bit(s->unacked, c->id) || s->state == SLAB_UNMAPPING)
			continue;
		settled(c, s);
		slab_advance(c->d->pool, s);
	}
}

/* It no longer maps any slab; @gone: nor can its process get at one. */
static void forget(struct conn *c, bool gone)
{
	for (uint32_t i = 0; i < c->d->pool->slab_end; i++) {
		struct slab *s = &c->d->pool->slab[i];
		bool owed = slab_bit(s->unacked, c->id) || slab_bit(s->ever, c->id);

		slab_bit_clear(s->mapped, c->id);
		if (slab_bit(s->unacked, c->id))
			settled(c, s);
		if (gone)
			slab_bit_clear(s->ever, c->id);
		if (!owed)
			continue;
		if (s->state != SLAB_NONE)
			keep_slab(c->d, s);
		slab_advance(c->d->pool, s);
	}
	c->d->rc.kick = true;
}

void announce_conn_gone(struct conn *c)
{
	forget(c, c->pid_gone);
}

void announce_conn_recycle(struct conn *c)
{
	for (uint32_t i = 0; i < c->d->pool->slab_end; i++) {
		struct slab *s = &c->d->pool->slab[i];

		if (!slab_bit(s->ever, c->id))
			continue;
		s->tainted = true;
		keep_slab(c->d, s);
	}
	forget(c, true);
}

/* ------------------------------------------------------------- deadlines */

static void hold_laggards(struct daemon *d, struct slab *s)
{
	for (uint32_t i = 0; i < POOL_MAX_CONNS; i++) {
		struct conn *c = &d->conn[i];

		if (!slab_bit(s->unacked, i) || slab_bit(s->late, i) || !c->s)
			continue;
		slab_bit_set(s->late, i);
		c->s->held++;
		stat_inc(SLAB_LAGGARDS);
		log_warn("client %u (%s, pid %d): has not mapped slab %u in time: held back until "
			 "it does", c->s->serial, c->s->label, (int)c->pid, s->id);
	}
}

uint64_t announce_turn(struct daemon *d)
{
	uint64_t next = 0;

	for (uint32_t i = 0; i < d->pool->slab_end; i++) {
		struct slab *s = &d->pool->slab[i];

		if (s->state != SLAB_ANNOUNCED || !s->deadline_ns)
			continue;
		if (d->now_ns < s->deadline_ns) {
			next = next ? min(next, s->deadline_ns) : s->deadline_ns;
			continue;
		}
		hold_laggards(d, s);
		slab_activate(d->pool, s);
		d->rc.kick = true;
	}
	return next;
}
