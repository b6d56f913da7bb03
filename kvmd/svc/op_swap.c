/* SPDX-License-Identifier: Apache-2.0 */
/*
 * op_swap.c - SWAP_OUT and SWAP_IN: a whole sequence leaves HBM and comes back.
 *
 * Out: first every block that only this sequence holds is copied to RAM, private
 * ones included, then their slots are freed, last position first, so that no
 * parent sinks below its child. When RAM has no room nothing has changed but that
 * some blocks are clean. In: all slots are reserved at once; private blocks are
 * copied back by swaps, sealed ones are loaded like any other hit.
 */
#include "kvmd/svc/daemon.h"
#include "kvmd/svc/ops.h"

#include "kvmd/lib/stats.h"

enum { OUT_START, OUT_COPY, OUT_FREE };
enum { IN_START, IN_SERVED, IN_COPY, IN_LOAD };

static struct block *block_at(const struct session *s, uint32_t sq, uint32_t g, uint32_t pos)
{
	uint32_t id = seq_blocks(&s->st, sq, g)[pos];

	return id ? pool_block(s->d->pool, id) : NULL;
}

/* A copy ended; the op may have been dropped with its session meanwhile. */
static void copied(struct swap_wait *w, struct block *b, int err)
{
	struct op *op = container_of(w, struct op, swap);

	(void)b;
	op->s->nr_copying--;
	op->nr_swaps--;
	if (op->state != OP_WAIT_COPY)
		return;
	if (err && !op->n2)
		op->n2 = (uint32_t)-err;
	if (!op->nr_swaps)
		op_resume(op, 0);
}

static enum op_ret wait_copies(struct op *op)
{
	if (!op->nr_swaps)
		return op_park_more(op, true);	/* others have the budget: next turn */
	op->state = OP_WAIT_COPY;
	op_block(op, op->e.seq);
	return OP_PARKED;
}

/* ----------------------------------------------------------------- SWAP_OUT */

/* Is @b this sequence's alone, and in HBM? */
static bool is_ours(const struct block *b)
{
	return b && b->slot && (b->state == BLK_OPEN || (b->state == BLK_SEALED && b->leases == 1));
}

/* Begin copies from (grp, cursor) down. 0: all have begun; -EAGAIN, -ENOSPC. */
static int out_copies(struct op *op)
{
	struct session *s = op->s;
	int err;

	for (;;) {
		struct block *b;

		while (!op->cursor) {
			if (!op->grp)
				return 0;
			op->cursor = op_seq(op)->len[--op->grp];
		}
		b = block_at(s, op->e.seq, op->grp, op->cursor - 1);
		if (is_ours(b) && !b->ram) {
			err = pool_is_moving(s->d->pool, b) ? -EAGAIN :
			      tiers_swap_out(s->d->tiers, &s->sp->gp[op->grp], b, &op->swap);
			if (err)
				return err;
			s->nr_copying++;
			op->nr_swaps++;
		}
		op->cursor--;
	}
}

static void free_slot(struct op *op, uint32_t g, uint32_t pos, struct block *b)
{
	struct session *s = op->s;
	enum blk_level from = block_level(b);

	pool_slot_put(s->d->pool, b);
	if (b->state == BLK_SEALED)
		index_relevel(s->d->ix, b, from);
	st_rlx(&seq_row(&s->st, op->e.seq, g)[pos], KVMD_SLOT_NULL);
	stat_inc(BLOCKS_SWAPPED_OUT);
	op->n0++;
}

/* All copies are there: free the slots, last position first. True: done. */
static bool out_free(struct op *op)
{
	struct session *s = op->s;
	uint32_t budget = WORK_BLOCKS;

	while (op->grp || op->cursor) {
		struct block *b;

		if (!op->cursor) {
			op->cursor = op_seq(op)->len[--op->grp];
			continue;
		}
		if (!budget--)
			return false;
		b = block_at(s, op->e.seq, op->grp, --op->cursor);
		if (is_ours(b) && b->ram && !pool_is_moving(s->d->pool, b) &&
		    (b->state == BLK_OPEN || (!b->nr_kids && !s->sp->hold)))
			free_slot(op, op->grp, op->cursor, b);
	}
	return true;
}

/* Without room nothing is swapped: copies of private blocks go again. */
static void out_undo(struct op *op)
{
	struct session *s = op->s;

	for (uint32_t g = 0; g < s->sp->nr_groups; g++)
		for (uint32_t i = 0; i < op_seq(op)->len[g]; i++) {
			struct block *b = block_at(s, op->e.seq, g, i);

			if (b && b->state == BLK_OPEN && b->ram)
				s->d->pool->lower->drop(s->d->pool, b, false);
		}
}

enum op_ret op_seq_swap_out(struct op *op, int err, struct kvmd_cqe *c)
{
	struct session *s = op->s;

	if (!s->d->tiers)
		return op_done(c, -EOPNOTSUPP);
	if (op->phase == OUT_START) {
		op->swap.done = copied;
		op->grp = (uint8_t)s->sp->nr_groups;
		op->cursor = 0;
		op->phase = OUT_COPY;
	}
	if (op->phase == OUT_COPY) {
		err = op->n2 ? -(int)op->n2 : out_copies(op);
		if (err == -EAGAIN || (op->nr_swaps && !err))
			return wait_copies(op);
		if (err && op->nr_swaps) {
			op->n2 = (uint32_t)-err;
			return wait_copies(op);
		}
		if (err) {
			out_undo(op);
			return op_done(c, err);
		}
		op->grp = (uint8_t)s->sp->nr_groups;
		op->cursor = 0;
		op->phase = OUT_FREE;
	}
	if (!out_free(op))
		return op_park_more(op, true);
	op_seq(op)->flags |= SEQ_F_SWAPPED;
	reclaim_freed(&s->d->rc);
	return op_done(c, (int)op->n0);
}

/* ------------------------------------------------------------------ SWAP_IN */

/* Did a block lose its bytes while it was out (a load of it by others failed)? */
static bool lost_some(const struct op *op)
{
	for (uint32_t g = 0; g < op->s->sp->nr_groups; g++) {
		for (uint32_t i = 0; i < op_seq(op)->len[g]; i++) {
			const struct block *b = block_at(op->s, op->e.seq, g, i);

			if (b && block_is_lost(b))
				return true;
		}
	}
	return false;
}

static uint32_t nr_out(const struct op *op, uint32_t g)
{
	uint32_t nr = 0;

	for (uint32_t i = 0; i < op_seq(op)->len[g]; i++) {
		const struct block *b = block_at(op->s, op->e.seq, g, i);

		nr += b && !b->slot;
	}
	return nr;
}

/* Every group's slots, in one turn. @served was reserved by reclaim. */
static int in_reserve(struct op *op, const struct gpool *served, struct gpool **ret_gp)
{
	struct session *s = op->s;
	int err = 0;

	for (uint32_t g = 0; g < s->sp->nr_groups && !err; g++) {
		struct gpool *gp = &s->sp->gp[g];
		uint32_t nr = nr_out(op, g);

		if (!nr)
			continue;
		*ret_gp = gp;
		op->w.nr = nr;
		if (gp != served)
			err = reclaim_reserve(&s->d->rc, gp, nr, 0);
	}
	return err;
}

/*
 * Behind a hole the block before @b is not this sequence's, and may have left HBM while
 * @b had: it does not come back for this, so @b is no child of it any more.
 */
static void in_load(struct session *s, struct gpool *gp, struct block *b)
{
	if (b->parent && block_level(pool_block(s->d->pool, b->parent)) < LEVEL_HBM)
		index_unparent(s->d->ix, b);
	tiers_load(s->d->tiers, gp, b);
}

/* Slots for all: sealed blocks begin to load, private ones are copied next. */
static void in_slots(struct op *op)
{
	struct session *s = op->s;
	struct seq *q = op_seq(op);

	for (uint32_t g = 0; g < s->sp->nr_groups; g++) {
		for (uint32_t i = 0; i < q->len[g]; i++) {
			struct block *b = block_at(s, op->e.seq, g, i);

			if (!b || b->slot)
				continue;
			if (b->state == BLK_SEALED)
				in_load(s, &s->sp->gp[g], b);
			else
				pool_slot_get(s->d->pool, &s->sp->gp[g], b);
			op->n0++;
		}
		q->begun[g] = q->len[g];
		q->rdy[g] = 0;
	}
	stat_add(BLOCKS_SWAPPED_IN, op->n0);
}

/* Private blocks from (grp, cursor) up. 0: all have begun; -EAGAIN. */
static int in_copies(struct op *op)
{
	struct session *s = op->s;

	for (; op->grp < s->sp->nr_groups; op->grp++, op->cursor = 0) {
		for (; op->cursor < op_seq(op)->len[op->grp]; op->cursor++) {
			struct block *b = block_at(s, op->e.seq, op->grp, op->cursor);
			int err;

			if (!b || b->state != BLK_OPEN || !b->ram)
				continue;
			if (pool_is_moving(s->d->pool, b))
				continue;	/* begun already */
			err = tiers_swap_in(s->d->tiers, &s->sp->gp[op->grp], b, &op->swap);
			if (err)
				return err;
			s->nr_copying++;
			op->nr_swaps++;
		}
	}
	return 0;
}

static enum op_ret in_over(struct op *op, struct kvmd_cqe *c)
{
	struct seq *q = op_seq(op);

	q->flags &= (uint8_t)~SEQ_F_SWAPPED;
	if (!q->load_err && !op->n2)
		return op_done(c, (int)op->n0);
	q->flags |= SEQ_F_BROKEN;
	return op_done(c, -EIO);
}

enum op_ret op_seq_swap_in(struct op *op, int err, struct kvmd_cqe *c)
{
	struct session *s = op->s;
	struct gpool *gp = &s->sp->gp[0];

	if (op->phase <= IN_SERVED) {
		if (!(op_seq(op)->flags & SEQ_F_SWAPPED))
			return op_done(c, err ? err : 0);
		err = err ? err : in_reserve(op, op->phase ? op->w.gp : NULL, &gp);
		if (err == -EAGAIN) {
			op->phase = IN_SERVED;
			return op_park_alloc(op, gp, op->w.nr, 0);
		}
		if (err)
			return op_done(c, err);
		if (lost_some(op)) {
			op_seq(op)->flags |= SEQ_F_BROKEN;
			return op_done(c, -EIO);
		}
		op->swap.done = copied;
		in_slots(op);
		op->grp = 0;
		op->cursor = 0;
		op->phase = IN_COPY;
	}
	if (op->phase == IN_COPY) {
		err = op->n2 ? 0 : in_copies(op);
		if (err || op->nr_swaps)
			return wait_copies(op);
		op->phase = IN_LOAD;
		if (loads_resume(s, op->e.seq))
			return op_park_load(op, true);
	}
	return in_over(op, c);
}
