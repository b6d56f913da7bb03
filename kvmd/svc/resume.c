/* SPDX-License-Identifier: Apache-2.0 */
/*
 * resume.c - clients of a former daemon come back, or do not.
 *
 *   KEPT -> LIVE    RESUME of rank 0: same process, same token; the rings begin at
 *                   zero, the sequences are as their rows say
 *        -> DEAD    its process is over, or it did not come in resume_timeout
 *
 * The rings are served when all ranks have come back: one that has not is told of no
 * new slab, and must not find its slots in the tables.
 *
 * The barrier. What a session had released when the former daemon ended, and from
 * which step on, nobody knows any more. So no block of a space leaves HBM, and no
 * slot that was in use is used anew, before every session of the space that was
 * there has completed what it had submitted until this daemon began, or is gone.
 * Lanes can be read without a word from the client.
 */
#include "kvmd/svc/keep.h"

#include <stdio.h>

#include "kvmd/lib/log.h"
#include "kvmd/lib/stats.h"

#define LOOK_NS		5000000ull	/* between looks at lanes while a barrier stands */
#define LOOK_LATE_NS	100000000ull	/* when it has stood for a second */
#define RETRY_MS	20u		/* for ranks that are ahead of rank 0 */

/* --------------------------------------------------------------------- RESUME */

static bool knows_boot_id(const struct keep *k, const uint8_t *boot_id)
{
	for (uint32_t i = 0; i < min(k->run.nr_former, KEEP_FORMER); i++)
		if (!memcmp(k->run.former[i], boot_id, sizeof(k->run.boot_id)))
			return true;
	return false;
}

static struct session *find_session(struct daemon *d, uint64_t token)
{
	for (uint32_t i = 0; token && i < POOL_MAX_CONNS; i++) {
		struct session *s = &d->session[i];

		if ((s->state == SESSION_KEPT || s->state == SESSION_LIVE) && s->kept &&
		    s->group_token == token)
			return s;
	}
	return NULL;
}

/* The process of rank @rank that has not come back yet. */
static struct conn *find_conn(struct daemon *d, const struct session *s, uint32_t rank)
{
	for (uint32_t i = 0; i < POOL_MAX_CONNS; i++)
		if (d->conn[i].s == s && d->conn[i].waiting && d->conn[i].rank == rank)
			return &d->conn[i];
	return NULL;
}

static int check(struct conn *c, const struct kvmd_resume *m, struct conn **ret_o, char *text,
		 uint32_t *ret_retry_ms)
{
	struct daemon *d = c->d;
	struct session *s = keep_is_warm(d) ? find_session(d, m->group_token) : NULL;
	struct conn *o = s ? find_conn(d, s, m->rank) : NULL;

	if (c->s) {
		snprintf(text, KVMD_TEXT_BYTES, "this connection has its session already");
		return -EALREADY;
	}
	if (!o || (!m->rank && (m->session != s->serial || !knows_boot_id(d->keep, m->boot_id)))) {
		snprintf(text, KVMD_TEXT_BYTES, "this daemon has not kept that session: say hello");
		return -ESTALE;
	}
	if (o->uid != c->uid || o->pid != c->pid || conn_is_over(o)) {
		snprintf(text, KVMD_TEXT_BYTES, "session %u is that of process %d", s->serial,
			 (int)o->pid);
		return -EACCES;
	}
	if (m->rank && s->state == SESSION_KEPT) {
		snprintf(text, KVMD_TEXT_BYTES, "rank 0 has not come back yet");
		*ret_retry_ms = RETRY_MS;
		return -EAGAIN;
	}
	*ret_o = o;
	return 0;
}

static uint32_t nr_ranks_away(const struct daemon *d, const struct session *s)
{
	uint32_t nr = 0;

	for (uint32_t i = 0; i < POOL_MAX_CONNS; i++)
		nr += d->conn[i].s == s && d->conn[i].waiting && d->conn[i].rank;
	return nr;
}

static void go_live(struct session *s)
{
	struct daemon *d = s->d;

	ring_rewind(&s->ring);
	st_rlx(&s->ring.sh->epoch, (uint32_t)s->sp->epoch);
	s->news_pressure = KVMD_PRESSURE_NONE;
	s->held = nr_ranks_away(d, s);
	s->flags_set = false;
	s->state = SESSION_LIVE;
	s->last_entry_ns = s->completed_ns = d->now_ns;
	d->live[d->nr_live++] = s;
	d->keep->nr.resumed++;
	log_info("client %u (%s, pid %d): resumed, %u sequences", s->serial, s->label,
		 (int)d->conn[s->id].pid, s->st.nr_live);
}

static uint32_t nr_slabs(const struct pool *p, const struct space *sp)
{
	uint32_t nr = 0;

	for (uint32_t i = 0; i < p->slab_end; i++) {
		const struct slab *s = &p->slab[i];

		nr += s->gp && s->gp->sp == sp && s->state >= SLAB_ANNOUNCED &&
		      s->state <= SLAB_DRAINING;
	}
	return nr;
}

void resume_message(struct conn *c, const struct kvmd_resume *m, int err, char *text)
{
	struct kvmd_resume_reply r = { .h.type = KVMD_MSG_RESUME_REPLY, .h.cookie = m->h.cookie };
	struct daemon *d = c->d;
	struct conn *o = c;
	struct session *s;

	if (!err)
		err = check(c, m, &o, text, &r.retry_ms);
	memcpy(r.boot_id, d->boot_id, sizeof(r.boot_id));
	r.h.err = err;
	if (err) {
		snprintf(r.text, sizeof(r.text), "%s", text);
		if (err != -EAGAIN)
			log_info("client pid %d: not resumed: %s", (int)c->pid, text);
		if (conn_send(c, &r, sizeof(r), NULL, 0))
			conn_close(c);
		return;
	}
	s = o->s;
	if (!m->rank)
		go_live(s);
	conn_take_over(o, c);
	r.nr_slabs = nr_slabs(d->pool, s->sp);
	r.epoch = s->sp->epoch;
	if (conn_send(o, &r, sizeof(r), &s->bell_fd, m->rank ? 0 : 1) || announce_all(o)) {
		conn_close(o);
		return;
	}
	/* Instead of the rank itself, the slabs that it has to map. */
	if (m->rank)
		s->held--;
}

/* ------------------------------------------------------------------ the barrier */

static bool is_past(struct session *s)
{
	session_read_steps(s);
	return s->completed >= s->barrier_step;
}

static bool stands(const struct daemon *d, const struct space *sp)
{
	if (d->now_ns < d->start_ns + sp->dev[0]->grace_ns)
		return true;		/* copies of the former daemon may still land */
	for (uint32_t i = 0; i < POOL_MAX_CONNS; i++)
		if (d->session[i].barrier && d->session[i].sp == sp)
			return true;
	return false;
}

static void lift_barriers(struct daemon *d)
{
	struct pool *p = d->pool;

	for (uint32_t i = 0; i < POOL_MAX_CONNS; i++) {
		struct session *s = &d->session[i];

		if (s->state == SESSION_FREE || !s->barrier || !is_past(s))
			continue;
		s->barrier = false;
		d->keep->nr_barrier--;
	}
	for (uint32_t i = 0; i < p->space_end; i++) {
		struct space *sp = &p->space[i];

		if (!sp->in_use || (!sp->hold && !d->keep->held[i].nr) || stands(d, sp))
			continue;
		sp->hold = false;
		pool_restore_release(p, &d->keep->held[i]);
		d->rc.kick = true;
	}
}

static bool any_hold(const struct daemon *d)
{
	for (uint32_t i = 0; i < d->pool->space_end; i++)
		if (d->pool->space[i].in_use &&
		    (d->pool->space[i].hold || d->keep->held[i].nr))
			return true;
	return false;
}

/* ------------------------------------------------------- what nobody came for */

/* Closes that the former daemon had begun; true: there is more of it. */
static bool close_ended(struct session *s)
{
	uint32_t budget = WORK_BLOCKS;

	for (uint32_t q = 0; s->nr_ended && q < s->st.max_seqs; q++) {
		const struct seq *sq = &s->st.seq[q];

		if (sq->state != SEQ_CLOSING || !(sq->flags & SEQ_F_ENDED))
			continue;
		if (!seq_drain(&s->st, q, &budget))
			return true;
		s->nr_ended--;
	}
	return false;
}

static bool close_all_ended(struct daemon *d)
{
	bool more = false;

	for (uint32_t i = 0; i < POOL_MAX_CONNS; i++) {
		struct session *s = &d->session[i];

		if ((s->state != SESSION_KEPT && s->state != SESSION_LIVE) || !s->nr_ended ||
		    s->barrier)
			continue;
		more |= close_ended(s);
		d->rc.kick = true;
	}
	return more;
}

static bool any_waiting(const struct daemon *d)
{
	for (uint32_t i = 0; i < POOL_MAX_CONNS; i++)
		if (d->conn[i].waiting && d->conn[i].s)
			return true;
	return false;
}

static void end_waiting(struct daemon *d)
{
	for (uint32_t i = 0; i < POOL_MAX_CONNS; i++) {
		struct conn *c = &d->conn[i];

		if (!c->waiting)
			continue;
		c->waiting = false;
		if (c->s)
			session_end(c->s, -ETIMEDOUT);
	}
}

uint64_t resume_turn(struct daemon *d)
{
	struct keep *k = d->keep;
	uint64_t next = 0;

	if (!keep_is_warm(d) || k->over)
		return 0;
	if (any_hold(d)) {
		lift_barriers(d);
		next = !any_hold(d) ? 0 : d->now_ns +
		       (d->now_ns - d->start_ns < 1000000000ull ? LOOK_NS : LOOK_LATE_NS);
	}
	if (close_all_ended(d))
		next = d->now_ns;
	if (k->deadline_ns && !any_waiting(d))
		k->deadline_ns = 0;
	if (k->deadline_ns && d->now_ns >= k->deadline_ns) {
		k->deadline_ns = 0;
		end_waiting(d);
	}
	k->over = !next && !k->deadline_ns && !k->nr_barrier;
	if (k->deadline_ns && (!next || k->deadline_ns < next))
		next = k->deadline_ns;
	return next;
}
