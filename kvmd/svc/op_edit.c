/* SPDX-License-Identifier: Apache-2.0 */
/*
 * op_edit.c - TRIM, REPLACE, CLOSE: leases end, once their step is over.
 *
 * The step an entry carries is the last that reads what it gives up, so when it
 * is completed row entries may be rewritten and leases dropped at once.
 */
#include "kvmd/svc/daemon.h"
#include "kvmd/svc/ops.h"

#include "kvmd/lib/stats.h"

/* Drop position @pos; true: there was a block. */
static bool drop(struct session *s, uint32_t sq, uint32_t g, uint32_t pos)
{
	uint32_t id = seq_blocks(&s->st, sq, g)[pos];

	if (!id)
		return false;
	seq_set(&s->st, sq, g, pos, 0);
	index_put(s->d->ix, pool_block(s->d->pool, id));
	return true;
}

/* --------------------------------------------------------------------- TRIM */

/* The range an entry names, as positions [*from, *to). */
static int trim_range(const struct op *op, uint32_t *from, uint32_t *to)
{
	uint32_t len = op_seq(op)->len[op->e.group], first = op->e.first, nr = op->e.nr;

	if (op->e.flags & KVMD_TRIM_TAIL) {
		*from = min(first, len);
		*to = len;
	} else if (op->e.flags & KVMD_TRIM_KEEP) {
		*from = min(first, len);
		*to = nr < len - *from ? len - nr : *from;
	} else {
		if (first > len || nr > len - first)
			return -EINVAL;
		*from = first;
		*to = first + nr;
	}
	return 0;
}

enum op_ret op_seq_trim(struct op *op, int err, struct kvmd_cqe *c)
{
	struct session *s = op->s;
	struct seq *q = op_seq(op);
	uint32_t g = op->e.group, from, to, budget = WORK_BLOCKS;

	if (op->phase == 0) {
		err = trim_range(op, &from, &to);
		if (err)
			return op_done(c, err);
		op->phase = 1;
		op->n1 = from;
		op->cursor = to;
		if (from < to && !(op->e.flags & KVMD_TRIM_TAIL))
			q->hole[g] = min(q->hole[g], from);
	}
	while (op->cursor > op->n1 && budget--)
		op->n0 += drop(s, op->e.seq, g, --op->cursor);
	if (op->cursor > op->n1)
		return op_park_more(op, true);
	if (op->e.flags & KVMD_TRIM_TAIL) {
		q->len[g] = op->n1;
		if (q->hole[g] >= op->n1)
			q->hole[g] = UINT32_MAX;
		if (q->load_err && !g && op->n1 <= q->rdy[0]) {
			q->load_err = 0;	/* what failed to load is off */
			seq_tell_status(&s->st, op->e.seq);
		}
	}
	reclaim_freed(&s->d->rc);
	return op_done(c, (int)op->n0);
}

/* ------------------------------------------------------------------ REPLACE */

/* @nr_new private blocks at the end, all behind the range they replace. */
static int replace_check(const struct op *op)
{
	const struct session *s = op->s;
	uint32_t g = op->e.group, len = op_seq(op)->len[g], nr_new = op->e.arg;
	const uint32_t *blocks = seq_blocks(&s->st, op->e.seq, g);

	if (op->e.first > len || op->e.nr > len - op->e.first ||
	    nr_new > len - op->e.first - op->e.nr)
		return -EINVAL;
	for (uint32_t i = len - nr_new; i < len; i++)
		if (!blocks[i] || pool_block(s->d->pool, blocks[i])->state != BLK_OPEN)
			return -EINVAL;
	return 0;
}

/* Move the entry at @from to the empty @to. */
static void move_entry(struct session *s, uint32_t sq, uint32_t g, uint32_t to, uint32_t from)
{
	uint32_t id = seq_blocks(&s->st, sq, g)[from];

	seq_set(&s->st, sq, g, to, id);
	seq_set(&s->st, sq, g, from, 0);
}

enum op_ret op_seq_replace(struct op *op, int err, struct kvmd_cqe *c)
{
	struct session *s = op->s;
	struct seq *q = op_seq(op);
	uint32_t g = op->e.group, first = op->e.first, nr = op->e.nr, nr_new = op->e.arg;
	uint32_t end, to;

	err = replace_check(op);
	if (err)
		return op_done(c, err);
	end = q->len[g] - nr_new;
	for (uint32_t i = nr; i-- > 0;)
		drop(s, op->e.seq, g, first + i);
	for (uint32_t i = 0; i < nr_new; i++)
		move_entry(s, op->e.seq, g, first + i, end + i);
	q->len[g] = end;
	q->hole[g] = min(q->hole[g], first);
	if (!(op->e.flags & KVMD_REPLACE_HOLES) && nr_new < nr) {
		to = first + nr_new;
		for (uint32_t from = first + nr; from < end; from++)
			move_entry(s, op->e.seq, g, to++, from);
		q->len[g] = to;
	}
	reclaim_freed(&s->d->rc);
	return op_done(c, (int)q->len[g]);
}

/* -------------------------------------------------------------------- CLOSE */

enum op_ret op_seq_close(struct op *op, int err, struct kvmd_cqe *c)
{
	struct session *s = op->s;
	struct seq *q = op_seq(op);
	uint32_t budget = WORK_BLOCKS;
	bool empty;

	(void)err;
	if (op->phase == 0) {
		op->phase = 1;
		if (q->loading)
			loads_stop(s, op->e.seq);
		attrib_close(s, q);
		for (uint32_t g = 0; g < s->sp->nr_groups; g++)
			op->n0 += q->len[g];
		q->state = SEQ_CLOSING;
	}
	empty = seq_drain(&s->st, op->e.seq, &budget);
	reclaim_freed(&s->d->rc);
	if (!empty)
		return op_park_more(op, true);
	stat_inc(SEQ_CLOSES);
	c->v0 = op->n0;
	return op_done(c, 0);
}
