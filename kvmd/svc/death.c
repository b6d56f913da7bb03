/* SPDX-License-Identifier: Apache-2.0 */
/*
 * death.c - a session's end: quarantine at once, release when it is safe.
 *
 *   LIVE -> DEAD        socket closed or ring broken: nothing is served, its
 *                       private blocks are marked QUARANTINE
 *        -> GRACE       all its processes are gone (pidfd) or said bye
 *        -> REAPING     the device's grace is over and no copy runs for it:
 *                       leases are dropped, private blocks freed, in pieces
 *        -> FREE
 *
 * Published blocks stay. Nobody else waits for any of this: one bounded piece
 * of work a turn.
 */
#include "kvmd/svc/keep.h"

#include <unistd.h>

#include "kvmd/lib/log.h"
#include "kvmd/lib/stats.h"

static void unlist_live(struct session *s)
{
	struct daemon *d = s->d;

	for (uint32_t i = 0; i < d->nr_live; i++) {
		if (d->live[i] != s)
			continue;
		d->live[i] = d->live[--d->nr_live];
		return;
	}
}

/* What the client sees: the end's reason, and a wake-up if it sleeps. */
static void tell_end(struct session *s, int err)
{
	st_rlx(&s->ring.sh->ended, err);
	st_rel(&s->ring.sh->news_seq, s->ring.sh->news_seq + 1);
	ring_wake(&s->ring);
}

void session_end(struct session *s, int err)
{
	struct daemon *d = s->d;

	if (s->state != SESSION_HELLO && s->state != SESSION_LIVE && s->state != SESSION_KEPT)
		return;
	unlist_live(s);
	s->state = SESSION_DEAD;
	keep_session(d, s);
	s->end_err = err;
	s->dead_ns = d->now_ns;
	s->reap_seq = 0;
	s->quarantined = false;
	d->nr_dying++;
	stat_sub(SESSIONS, 1);
	if (s->st.seq && s->st.nr_live)
		stat_inc(SESSIONS_DIED);
	tell_end(s, err);
	copy_orphan(s);
	session_abort_ops(s);
	d->rc.kick = true;
	log_info("client %u (%s, pid %d): ended: %s; %u sequences to give back", s->serial, s->label,
		 (int)d->conn[s->id].pid, strerror(-err), s->st.seq ? s->st.nr_live : 0);
	for (uint32_t i = 0; i < POOL_MAX_CONNS; i++)
		if (d->conn[i].s == s)
			conn_end(&d->conn[i]);
}

/* Mark private blocks of the next sequences; true: all are. */
static bool quarantine_piece(struct session *s)
{
	uint32_t budget = WORK_BLOCKS;

	for (; s->st.seq && s->reap_seq < s->st.max_seqs; s->reap_seq++) {
		const struct seq *q = &s->st.seq[s->reap_seq];

		if (q->state == SEQ_FREE)
			continue;
		if (budget < 64)
			return false;
		for (uint32_t g = 0; g < s->sp->nr_groups; g++) {
			const uint32_t *blocks = seq_blocks(&s->st, s->reap_seq, g);

			for (uint32_t i = 0; i < q->len[g]; i++) {
				struct block *b = pool_block(s->d->pool, blocks[i]);

				budget -= budget > 0;
				if (!blocks[i] || (b->state != BLK_OPEN &&
						   b->state != BLK_SEALING))
					continue;
				block_set_state(b, BLK_QUARANTINE);
				stat_inc(BLOCKS_DISCARDED);
			}
		}
	}
	s->reap_seq = 0;
	return true;
}

static bool processes_gone(const struct session *s)
{
	for (uint32_t i = 0; i < POOL_MAX_CONNS; i++) {
		const struct conn *c = &s->d->conn[i];

		if (c->s == s && !c->pid_gone && !c->said_bye)
			return false;
	}
	return true;
}

static uint64_t grace(const struct session *s)
{
	bool bye = true;

	for (uint32_t i = 0; i < POOL_MAX_CONNS; i++)
		if (s->d->conn[i].s == s)
			bye &= s->d->conn[i].said_bye;
	return bye || !s->sp ? 0 : s->sp->dev[0]->grace_ns;
}

/* Give back what the session holds; true: nothing is left. */
static bool reap_piece(struct session *s)
{
	uint32_t budget = WORK_BLOCKS;

	for (; s->st.seq && s->reap_seq < s->st.max_seqs; s->reap_seq++) {
		struct seq *q = &s->st.seq[s->reap_seq];

		if (q->state == SEQ_FREE)
			continue;
		attrib_close(s, q);
		if (!seq_drain(&s->st, s->reap_seq, &budget))
			return false;
	}
	nodeq_release(s->d->ix, &s->cq_defer);
	nodeq_release(s->d->ix, &s->step_defer);
	nodeq_release(s->d->ix, &s->pins);
	s->tenant->pinned_bytes -= s->pinned_bytes;
	s->pinned_bytes = 0;
	return true;
}

static void advance(struct session *s)
{
	struct daemon *d = s->d;

	if (s->state == SESSION_DEAD) {
		if (!s->quarantined)
			s->quarantined = quarantine_piece(s);
		if (!s->quarantined || !processes_gone(s))
			return;
		s->release_ns = d->now_ns + grace(s);
		s->state = SESSION_GRACE;
	}
	if (s->state == SESSION_GRACE) {
		if (d->now_ns < s->release_ns || s->nr_copying)
			return;
		s->state = SESSION_REAPING;
	}
	if (!reap_piece(s))
		return;
	if (s->bell_req.armed) {
		uring_cancel(d->u, &s->bell_req);
		return;
	}
	d->nr_dying--;
	d->rc.kick = true;
	session_free(s);
}

/* Does @s need another turn at once, at a time, or only when a process ends? */
static uint64_t next_look(const struct session *s)
{
	if (s->state == SESSION_REAPING || (s->state == SESSION_DEAD && !s->quarantined))
		return s->d->now_ns;
	if (s->state == SESSION_GRACE)
		return s->nr_copying ? 0 : s->release_ns;
	return processes_gone(s) ? s->d->now_ns : 0;
}

uint64_t death_turn(struct daemon *d)
{
	uint64_t next = 0, t;

	for (uint32_t i = 0; d->nr_dying && i < POOL_MAX_CONNS; i++) {
		struct session *s = &d->session[i];

		if (s->state < SESSION_DEAD)
			continue;
		advance(s);
		if (s->state < SESSION_DEAD)
			continue;
		t = next_look(s);
		if (t && (!next || t < next))
			next = t;
	}
	return next;
}
