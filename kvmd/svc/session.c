/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.c - taking entries from a session's ring and running them.
 *
 * An entry is copied into a free struct op, checked there, and run. Most
 * complete at once; one that has to wait keeps its op (OP_PARKED) until it is
 * resumed. Entries of one sequence take effect in order: while one of them
 * blocks the sequence the others queue behind it. Only the core thread runs
 * any of this, so an op is in exactly one place at a time.
 */
#include "kvmd/svc/daemon.h"

#include "kvmd/lib/clock.h"
#include "kvmd/lib/log.h"
#include "kvmd/lib/probe.h"
#include "kvmd/lib/stats.h"

static const char *const op_states[NR_OP_STATE] = {
	"free", "running", "queued", "waiting for memory", "waiting for a step", "copying",
	"loading", "going on",
};

const char *op_state_name(unsigned state)
{
	return state < NR_OP_STATE ? op_states[state] : "?";
}

/* --------------------------------------------------------------- op objects */

/* The op on top of the free ones is in use from now on. */
static void op_take(struct op *op)
{
	op->s->nr_op_free--;
	op->state = OP_RUNNING;
	op->phase = 0;
	op->step_done = op->answered = false;
	op->cursor = op->n0 = op->n1 = op->n2 = op->n3 = op->new_id = op->nr_swaps = 0;
}

static void op_put(struct op *op)
{
	struct session *s = op->s;

	op->state = OP_FREE;
	s->op_free[s->nr_op_free++] = op_id(op) - 1;
}

static const struct op_def *op_def(const struct op *op)
{
	return &op_defs[op->e.opcode];
}

static bool names_seq(const struct op *op)
{
	return op_def(op)->on_seq || op_def(op)->makes_seq;
}

/* -------------------------------------------------------- order in a sequence */

void op_block(struct op *op, uint32_t sq)
{
	op->s->st.seq[sq].blocked = op_id(op);
}

void op_unblock(struct op *op, uint32_t sq)
{
	struct seq *q = &op->s->st.seq[sq];

	if (q->blocked == op_id(op))
		q->blocked = SEQ_NO_OP;
}

static enum op_ret op_queue(struct op *op)
{
	struct session *s = op->s;
	struct seq *q = op_seq(op);

	op->state = OP_QUEUED;
	op->next = SEQ_NO_OP;
	if (q->q_tail == SEQ_NO_OP)
		q->q_head = op_id(op);
	else
		s->ops[q->q_tail - 1].next = op_id(op);
	q->q_tail = op_id(op);
	return OP_PARKED;
}

/* Must @op wait for another entry of its sequence? */
static bool must_queue(const struct op *op)
{
	const struct seq *q = op_seq(op);

	if (q->blocked != SEQ_NO_OP || (q->q_head != SEQ_NO_OP && !q->kicking))
		return true;
	if (!op_def(op)->structural || q->state != SEQ_LIVE)
		return false;
	return q->nr_publishing || (q->loading && op->e.opcode != KVMD_OP_SEQ_CLOSE);
}

/* What may be done to a sequence that was swapped out, or could not be read back? */
static int seq_flags_error(const struct op *op, const struct seq *q)
{
	if (op->e.opcode == KVMD_OP_SEQ_CLOSE)
		return 0;
	if (q->flags & SEQ_F_BROKEN)
		return -EIO;
	return (q->flags & SEQ_F_SWAPPED) && op->e.opcode != KVMD_OP_SEQ_SWAP_IN ? -EBUSY : 0;
}

static int seq_state_error(const struct op *op)
{
	const struct seq *q = op_seq(op);

	if (op_def(op)->makes_seq)
		return q->state == SEQ_FREE ? 0 : -EBUSY;
	if (q->state != SEQ_LIVE)
		return -ENOENT;
	if (q->gen != op->e.seq_gen)
		return -ESTALE;
	return q->flags & (SEQ_F_SWAPPED | SEQ_F_BROKEN) ? seq_flags_error(op, q) : 0;
}

/* ------------------------------------------------------------------ running */

static int step_error(struct op *op)
{
	/* Pairs with kvc_step_submit(): a step is submitted before an entry names it. */
	return op->e.step > ld_acq(&op->s->ring.sh->submitted_step) ? -EINVAL : 0;
}

/* From a fresh or queued op to its first run(). */
static enum op_ret op_start(struct op *op, struct kvmd_cqe *c)
{
	const struct op_def *def = op_def(op);
	struct session *s = op->s;
	int err;

	if (names_seq(op)) {
		if (must_queue(op))
			return op_queue(op);
		err = seq_state_error(op);
		if (err)
			return op_done(c, err);
	}
	op->state = OP_RUNNING;
	if (def->takes && unlikely(s->stalled)) {
		stat_inc(ALLOC_STALLED);
		return op_done(c, -EBUSY);
	}
	if (op->e.step) {
		err = step_error(op);
		if (err)
			return op_done(c, err);
		if (def->after_step && op->e.step > s->completed) {
			session_read_steps(s);
			if (op->e.step > s->completed || !list_empty(&s->step_ops))
				return op_park_step(op, true);
		}
	}
	op->step_done = true;
	return def->run(op, 0, c);
}

void seq_kick(struct session *s, uint32_t sq)
{
	struct seq *q = &s->st.seq[sq];

	if (q->kicking)
		return;
	q->kicking = true;
	while (q->q_head != SEQ_NO_OP && q->blocked == SEQ_NO_OP) {
		struct op *op = &s->ops[q->q_head - 1];
		struct kvmd_cqe c = { 0 };

		if (must_queue(op))
			break;		/* its publishes are not over */
		q->q_head = op->next;
		if (q->q_head == SEQ_NO_OP)
			q->q_tail = SEQ_NO_OP;
		if (op_start(op, &c) == OP_DONE)
			op_complete(op, &c);
	}
	q->kicking = false;
}

void op_answer(struct op *op, struct kvmd_cqe *c)
{
	c->user_data = op->e.user_data;
	ring_complete(&op->s->ring, c);
	op->answered = true;
}

void op_complete(struct op *op, struct kvmd_cqe *c)
{
	struct session *s = op->s;
	uint32_t sq = op->e.seq, other = op->e.first;
	bool seq = names_seq(op), fork = op->e.opcode == KVMD_OP_SEQ_FORK;

	if (!op->answered)
		op_answer(op, c);
	if (op->held.head)
		nodeq_splice(s->d->pool, &s->cq_defer, &op->held, s->ring.cq_tail);
	if (seq)
		op_unblock(op, sq);
	if (fork)
		op_unblock(op, other);
	op_put(op);
	if (seq && s->st.seq[sq].q_head != SEQ_NO_OP)
		seq_kick(s, sq);
	if (fork)
		seq_kick(s, other);
}

void op_resume(struct op *op, int err)
{
	struct kvmd_cqe c = { 0 };

	if (op->state == OP_WAIT_ALLOC)
		op->s->nr_waiting--;
	op->state = OP_RUNNING;
	if (op_def(op)->run(op, err, &c) == OP_DONE)
		op_complete(op, &c);
}

/* ------------------------------------------------------------------ parking */

enum op_ret op_park_step(struct op *op, bool block)
{
	op->state = OP_WAIT_STEP;
	if (block)
		op_block(op, op->e.seq);
	if (list_empty(&op->s->step_ops))
		op->s->completed_ns = op->s->d->now_ns;
	list_add_tail(&op->link, &op->s->step_ops);
	return OP_PARKED;
}

enum op_ret op_park_more(struct op *op, bool block)
{
	op->state = OP_MORE;
	if (block)
		op_block(op, op->e.seq);
	list_add_tail(&op->link, &op->s->more);
	return OP_PARKED;
}

enum op_ret op_park_alloc(struct op *op, struct gpool *gp, uint32_t nr, uint32_t records)
{
	struct session *s = op->s;

	op->state = OP_WAIT_ALLOC;
	op_block(op, op->e.seq);
	op->w.gp = gp;
	op->w.nr = nr;
	op->w.records = records;
	op->w.session = s->id;
	op->w.deadline_ns = op->e.aux ? op->e.aux :
			    clock_ns() + s->d->conf.pool.alloc_timeout_ns;
	s->nr_waiting++;
	reclaim_wait(&s->d->rc, &op->w);
	return OP_PARKED;
}

/* --------------------------------------------------------------- cancelling */

static void unqueue(struct op *op)
{
	struct session *s = op->s;
	struct seq *q = op_seq(op);
	uint32_t id = op_id(op), at = q->q_head, prev = SEQ_NO_OP;

	while (at != id) {
		prev = at;
		at = s->ops[at - 1].next;
	}
	if (prev == SEQ_NO_OP)
		q->q_head = op->next;
	else
		s->ops[prev - 1].next = op->next;
	if (q->q_tail == id)
		q->q_tail = prev;
}

int session_cancel(struct session *s, uint64_t user_data)
{
	struct kvmd_cqe c = { .res = -ECANCELED };
	struct op *op = NULL;

	for (uint32_t i = 0; i < s->nr_ops && !op; i++)
		if (s->ops[i].state > OP_RUNNING && s->ops[i].e.user_data == user_data)
			op = &s->ops[i];
	if (!op)
		return -ENOENT;
	switch (op->state) {
	case OP_QUEUED:
		unqueue(op);
		op_complete(op, &c);
		break;
	case OP_WAIT_ALLOC:
		reclaim_unwait(&s->d->rc, &op->w);
		op_resume(op, -ECANCELED);
		break;
	case OP_WAIT_LOAD:
		list_del(&op->link);
		op_resume(op, -ECANCELED);
		break;
	case OP_MORE:
		if (op->e.opcode != KVMD_OP_SEQ_OPEN)
			return -EALREADY;
		list_del(&op->link);
		op_resume(op, -ECANCELED);
		break;
	default:
		return -EALREADY;
	}
	stat_inc(CANCELS);
	return 0;
}

void session_abort_ops(struct session *s)
{
	for (uint32_t i = 0; i < s->nr_ops; i++) {
		struct op *op = &s->ops[i];

		if (op->state == OP_WAIT_ALLOC)
			reclaim_unwait(&s->d->rc, &op->w);
		if (op->state == OP_WAIT_STEP || op->state == OP_MORE || op->state == OP_WAIT_LOAD)
			list_del(&op->link);
		if (op->held.head)
			nodeq_splice(s->d->pool, &s->step_defer, &op->held, 0);
		/* An UNSHARE that waits for a copy job: its new block is nobody's. */
		if (op->state == OP_MORE && op->new_id)
			pool_free(s->d->pool, pool_block(s->d->pool, op->new_id));
		op->new_id = 0;
		if (op->state > OP_RUNNING)
			op_put(op);
	}
	s->nr_waiting = 0;
}

/* -------------------------------------------------------------------- steps */

bool session_read_steps(struct session *s)
{
	uint64_t least = UINT64_MAX;

	for (uint32_t i = 0; i < s->nr_lanes; i++)
		/* Pairs with kvc_step_complete() or the GPU's write: data before the step. */
		least = min(least, ld_acq(&s->steps->lane[i].completed_step));
	if (least <= s->completed)
		return false;
	s->completed = least;
	s->completed_ns = s->d->now_ns;
	if (s->stalled) {
		s->stalled = false;
		log_info("client %u (%s): step advances again", s->serial, s->label);
	}
	return true;
}

bool session_wants_step(const struct session *s)
{
	return !list_empty(&s->step_ops) || s->step_defer.head;
}

static void check_stall(struct session *s)
{
	if (s->stalled || s->d->now_ns - s->completed_ns < s->d->conf.pool.step_stall_ns)
		return;
	s->stalled = true;
	stat_inc(STEP_STALLS);
	log_warn("client %u (%s, pid %d): step stands at %llu for %llu s while blocks wait for it; "
		 "it gets nothing new until it advances", s->serial, s->label,
		 (int)s->d->conn[s->id].pid, (unsigned long long)s->completed,
		 (unsigned long long)(s->d->conf.pool.step_stall_ns / 1000000000));
}

static bool session_steps(struct session *s)
{
	bool moved = false;

	if (!session_read_steps(s)) {
		check_stall(s);
		if (list_empty(&s->step_ops) || list_first(&s->step_ops, struct op, link)->e.step >
		    s->completed)
			return false;
	}
	while (!list_empty(&s->step_ops)) {
		struct op *op = list_first(&s->step_ops, struct op, link);

		if (op->e.step > s->completed)
			break;
		list_del(&op->link);
		op->step_done = true;
		op_resume(op, 0);
		moved = true;
	}
	return moved;
}

/* --------------------------------------------------------------------- turns */

static bool run_more(struct session *s)
{
	struct list now;

	if (list_empty(&s->more))
		return false;
	/* Each once: what parks itself again goes on next turn. */
	now.next = s->more.next;
	now.prev = s->more.prev;
	now.next->prev = now.prev->next = &now;
	list_init(&s->more);
	while (!list_empty(&now)) {
		struct op *op = list_first(&now, struct op, link);

		list_del(&op->link);
		op_resume(op, 0);
	}
	return true;
}

/*
 * The entry is copied into the next free op; a refused one and a NOP are
 * answered from there and the op stays free. Returns about how many blocks it
 * had to look at.
 */
static uint32_t run_entry(struct session *s)
{
	struct op *op = &s->ops[s->op_free[s->nr_op_free - 1]];
	struct kvmd_cqe c = { 0 };
	uint32_t work;
	int err;

	ring_take(&s->ring, &op->e);
	err = ring_check(&op->e, &s->lim);
	if (err || op->e.opcode == KVMD_OP_NOP) {
		if (unlikely(err))
			stat_inc(REFUSED_ENTRIES);
		c.user_data = op->e.user_data;
		c.res = err;
		ring_complete(&s->ring, &c);
		return 1;
	}
	KVMD_PROBE3(entry, s->serial, op->e.opcode, op->e.seq);
	work = 16 + op->e.nr;
	if (op->e.opcode == KVMD_OP_SEQ_CLOSE)
		work += s->st.seq[op->e.seq].len[0];
	op_take(op);
	if (op_start(op, &c) == OP_DONE)
		op_complete(op, &c);
	return work;
}

static bool take_entries(struct session *s)
{
	int nr = ring_poll(&s->ring);
	uint32_t n, room, work = 0;

	if (likely(!nr))
		return false;
	if (unlikely(nr < 0)) {
		stat_inc(BROKEN_RINGS);
		session_end(s, -EPROTO);
		return true;
	}
	n = min((uint32_t)nr, (uint32_t)TURN_ENTRIES);
	room = ring_cq_room(&s->ring, s->nr_ops - s->nr_op_free, n);
	n = min(n, room);
	if (!n)
		return false;		/* the client has to take completions first */
	for (nr = 0; (uint32_t)nr < n && work < TURN_BLOCKS; nr++)
		work += run_entry(s);
	n = (uint32_t)nr;
	stat_add(ENTRIES, n);
	s->nr_entries += n;
	s->last_entry_ns = s->d->now_ns;
	session_flush(s);
	if (!s->ring.bulk || n == 1) {
		nr = ring_poll_more(&s->ring);
		if (unlikely(nr < 0)) {
			stat_inc(BROKEN_RINGS);
			session_end(s, -EPROTO);
		}
	}
	return true;
}

void session_flush(struct session *s)
{
	stat_add(COMPLETIONS, s->ring.cq_tail - s->ring.cq_flushed);
	if (ring_flush(&s->ring)) {
		stat_inc(CLIENT_WAKES);
		ring_wake(&s->ring);
	}
}

bool session_turn(struct session *s)
{
	bool did = false;

	if (unlikely(session_wants_step(s)))
		did |= session_steps(s);
	if (unlikely(s->cq_defer.head || s->step_defer.head))
		did |= defer_turn(s);
	if (unlikely(!list_empty(&s->more)))
		did |= run_more(s);
	if (unlikely(s->st.loading))
		did |= loads_turn(s);
	if (likely(!s->held))
		did |= take_entries(s);
	if (s->ring.cq_tail != s->ring.cq_flushed)
		session_flush(s);
	return did;
}
