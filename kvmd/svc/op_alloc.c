/* SPDX-License-Identifier: Apache-2.0 */
/*
 * op_alloc.c - EXTEND, UNSHARE, FORK: operations that take memory.
 *
 * All or nothing: every gpool that must give slots is reserved in the same turn
 * before any of them allocates. What cannot be served now waits in line.
 */
#include "kvmd/svc/daemon.h"
#include "kvmd/svc/ops.h"

#include "kvmd/lib/log.h"
#include "kvmd/lib/stats.h"

static void count_refusal(struct op *op, struct gpool *gp, int err)
{
	static struct log_ratelimit rl;
	char report[320];

	if (err == -EAGAIN)
		stat_inc(ALLOC_REFUSED_AGAIN);
	else if (err == -EDQUOT)
		stat_inc(ALLOC_REFUSED_QUOTA);
	else if (err == -ENOMEM)
		stat_inc(ALLOC_REFUSED_NOMEM);
	if (err != -ENOMEM || !log_ratelimited(&rl, 5, 10000000000ull))
		return;
	reclaim_report(&op->s->d->rc, gp, report, sizeof(report));
	log_warn("client %u (%s): no memory for %u blocks: %s", op->s->serial, op->s->label,
		 op->w.nr, report);
}

/* ------------------------------------------------------------------- EXTEND */

/* Blocks group @g needs for this entry. -ENOSPC: the row ends before. */
static int extend_need(const struct op *op, uint32_t g, uint32_t *ret_nr)
{
	const struct session *s = op->s;
	const struct kvmd_group *geo = &s->sp->gp[g].geo;
	uint32_t len = op_seq(op)->len[g];
	uint64_t want = op->e.nr;

	if (op->e.flags & KVMD_EXTEND_TOKENS) {
		want = geo->rule == KVMD_RULE_STATE ? 0 : div_round_up(op->e.nr,
								       geo->block_tokens);
		want = want > len ? want - len : 0;
	} else if (g != op->e.group) {
		want = 0;
	}
	if (len + want > s->st.row_blocks[g])
		return -ENOSPC;
	*ret_nr = (uint32_t)want;
	return 0;
}

static void extend_group(struct op *op, uint32_t g, uint32_t nr)
{
	struct session *s = op->s;
	struct gpool *gp = &s->sp->gp[g];
	uint32_t *ids = s->d->ids;

	stat_add(BLOCKS_ALLOCATED, nr);
	while (nr) {
		uint32_t n = min(nr, (uint32_t)WORK_BLOCKS);

		/* reserved in this turn: cannot fail */
		BUG_ON(pool_alloc(s->d->pool, gp, n, s->id, 0, ids));
		seq_append(&s->st, op->e.seq, g, ids, n);
		nr -= n;
	}
}

/* Blocks and bytes of all groups together. */
static int extend_total(const struct op *op, uint32_t *ret_nr, uint64_t *ret_bytes)
{
	const struct session *s = op->s;
	uint64_t total = 0, bytes = 0;
	uint32_t nr;

	for (uint32_t g = 0; g < s->sp->nr_groups; g++) {
		int err = extend_need(op, g, &nr);

		if (err)
			return err;
		total += nr;
		bytes += nr * s->sp->gp[g].slot_bytes;
	}
	*ret_nr = (uint32_t)min(total, (uint64_t)UINT32_MAX);
	*ret_bytes = bytes;
	return 0;
}

/* The tenant's max for all groups at once: each alone may fit. */
static int extend_max(struct session *s, uint64_t bytes)
{
	struct tenant *t = s->sp->tenant;
	uint64_t over = t->hbm_max && t->hbm_bytes + bytes > t->hbm_max ?
			t->hbm_bytes + bytes - t->hbm_max : 0;

	return over && reclaim_tenant(&s->d->rc, t, over) < over ? -EDQUOT : 0;
}

/*
 * Reserve all groups, @records in all; 0, or what the first that cannot says.
 * @served was reserved by reclaim.
 */
static int extend_reserve(struct op *op, const struct gpool *served, struct gpool **ret_gp,
			  uint32_t *ret_records)
{
	struct session *s = op->s;
	uint32_t nr, nr_groups = 0;
	uint64_t bytes;
	int err = extend_total(op, ret_records, &bytes);

	for (uint32_t g = 0; g < s->sp->nr_groups && !err; g++) {
		struct gpool *gp = &s->sp->gp[g];

		extend_need(op, g, &nr);
		if (!nr)
			continue;
		nr_groups++;
		*ret_gp = gp;
		op->w.nr = nr;
		if (gp != served)
			err = reclaim_reserve(&s->d->rc, gp, nr, *ret_records);
	}
	return !err && nr_groups > 1 ? extend_max(s, bytes) : err;
}

enum op_ret op_seq_extend(struct op *op, int err, struct kvmd_cqe *c)
{
	struct session *s = op->s;
	struct seq *q = op_seq(op);
	struct gpool *served = op->phase ? op->w.gp : NULL, *gp = &s->sp->gp[0];
	uint32_t total = 0, records = 0, nr, g0 = op->e.flags & KVMD_EXTEND_TOKENS ? 0 : op->e.group;

	if (!err)
		err = extend_reserve(op, served, &gp, &records);
	if (err == -EAGAIN && !(op->e.flags & KVMD_EXTEND_NOWAIT)) {
		op->phase = 1;
		return op_park_alloc(op, gp, op->w.nr, records);
	}
	if (err) {
		count_refusal(op, gp, err);
		return op_done(c, err);
	}
	c->v0 = q->len[g0];
	for (uint32_t g = 0; g < s->sp->nr_groups; g++) {
		extend_need(op, g, &nr);
		if (nr)
			extend_group(op, g, nr);
		total += nr;
	}
	return op_done(c, (int)total);
}

/* ------------------------------------------------------------------ UNSHARE */

enum { UNSHARE_ALLOC, UNSHARE_SERVED, UNSHARE_JOB, UNSHARE_COPY };

static enum op_ret unshare_copy(struct op *op)
{
	op->phase = UNSHARE_JOB;
	if (!copy_job_free(op->s->d))
		return op_park_more(op, true);
	op->phase = UNSHARE_COPY;
	op_block(op, op->e.seq);
	return copy_start(op, op->e.group, op->cursor, op->n0);
}

static enum op_ret unshare_done(struct op *op, struct kvmd_cqe *c)
{
	struct session *s = op->s;

	/* A node first: without one the old lease could not wait for its readers. */
	if (!op_release_later(op, op->cursor)) {
		pool_free(s->d->pool, pool_block(s->d->pool, op->n0));
		return op_done(c, -ENOBUFS);
	}
	seq_set(&s->st, op->e.seq, op->e.group, op->e.first, op->n0);
	return op_done(c, 1);
}

enum op_ret op_seq_unshare(struct op *op, int err, struct kvmd_cqe *c)
{
	struct session *s = op->s;
	struct gpool *gp = &s->sp->gp[op->e.group];
	struct seq *q = op_seq(op);

	if (op->phase == UNSHARE_COPY) {
		if (!err)
			return unshare_done(op, c);
		pool_free(s->d->pool, pool_block(s->d->pool, op->n0));
		return op_done(c, err);
	}
	if (op->phase == UNSHARE_JOB)
		return unshare_copy(op);
	if (op->phase == UNSHARE_ALLOC) {
		if (op->e.first >= q->len[op->e.group])
			return op_done(c, -EINVAL);
		op->cursor = seq_blocks(&s->st, op->e.seq, op->e.group)[op->e.first];
		if (!op->cursor)
			return op_done(c, -EINVAL);
		if (pool_block(s->d->pool, op->cursor)->state != BLK_SEALED)
			return op_done(c, 0);
		err = reclaim_reserve(&s->d->rc, gp, 1, 1);
		if (err == -EAGAIN) {
			op->phase = UNSHARE_SERVED;
			return op_park_alloc(op, gp, 1, 1);
		}
	}
	if (err) {
		count_refusal(op, gp, err);
		return op_done(c, err);
	}
	BUG_ON(pool_alloc(s->d->pool, gp, 1, s->id, 0, &op->n0));
	op->new_id = op->n0;
	return unshare_copy(op);
}

/* --------------------------------------------------------------------- FORK */

enum { FORK_START, FORK_SHARE, FORK_ALLOC, FORK_SERVED, FORK_COPY, FORK_COPIED, FORK_UNDO };

static enum op_ret fork_undo(struct op *op, struct kvmd_cqe *c)
{
	uint32_t budget = WORK_BLOCKS;

	op->phase = FORK_UNDO;
	if (!seq_drain(&op->s->st, op->e.first, &budget))
		return op_park_more(op, true);
	return op_done(c, -(int)op->n2);
}

/* Share sealed blocks, note the private ones: a bounded piece a turn. */
static bool fork_share(struct op *op)
{
	struct session *s = op->s;
	struct seqtab *st = &s->st;
	struct seq *from = op_seq(op), *to = &st->seq[op->e.first];
	uint32_t budget = WORK_BLOCKS;

	for (; op->grp < s->sp->nr_groups; op->grp++, op->cursor = 0) {
		const uint32_t *blocks = seq_blocks(st, op->e.seq, op->grp);

		for (; op->cursor < from->len[op->grp]; op->cursor++) {
			uint32_t id = blocks[op->cursor];
			struct block *b = pool_block(s->d->pool, id);

			if (!budget--)
				return false;
			if (id && b->state == BLK_SEALED) {
				index_get(s->d->ix, &s->sp->gp[op->grp], b);
				seq_set(st, op->e.first, op->grp, op->cursor, id);
			}
			to->len[op->grp] = op->cursor + 1;
		}
		to->hole[op->grp] = from->hole[op->grp];
	}
	return true;
}

/* Next position at or behind (grp, cursor) whose private block is to be copied. */
static bool fork_next(struct op *op, uint32_t *ret_src)
{
	struct session *s = op->s;
	struct seq *from = op_seq(op);

	for (; op->grp < s->sp->nr_groups; op->grp++, op->cursor = 0) {
		const uint32_t *src = seq_blocks(&s->st, op->e.seq, op->grp);
		const uint32_t *dst = seq_blocks(&s->st, op->e.first, op->grp);

		for (; op->cursor < from->len[op->grp]; op->cursor++) {
			if (!src[op->cursor] || dst[op->cursor])
				continue;
			*ret_src = src[op->cursor];
			return true;
		}
	}
	return false;
}

/* One private block after the other: memory, then its copy. */
static enum op_ret fork_copies(struct op *op, struct kvmd_cqe *c)
{
	struct session *s = op->s;
	struct gpool *gp;
	uint32_t src, dst;
	int err;

	if (!fork_next(op, &src)) {
		stat_inc(SEQ_FORKS);
		c->v0 = op->n0;
		return op_done(c, (int)op_seq(op)->len[0]);
	}
	gp = &s->sp->gp[op->grp];
	if (!copy_job_free(s->d)) {
		op->phase = FORK_ALLOC;	/* what was reserved was so for this turn */
		return op_park_more(op, true);
	}
	err = op->phase == FORK_SERVED ? 0 : reclaim_reserve(&s->d->rc, gp, 1, 1);
	if (err == -EAGAIN) {
		op->phase = FORK_SERVED;
		return op_park_alloc(op, gp, 1, 1);
	}
	if (err) {
		count_refusal(op, gp, err);
		op->n2 = (uint32_t)-err;
		return fork_undo(op, c);
	}
	BUG_ON(pool_alloc(s->d->pool, gp, 1, s->id, 0, &dst));
	seq_set(&s->st, op->e.first, op->grp, op->cursor, dst);
	op->n0++;
	op->phase = FORK_COPY;
	return copy_start(op, op->grp, src, dst);
}

enum op_ret op_seq_fork(struct op *op, int err, struct kvmd_cqe *c)
{
	struct session *s = op->s;

	if (err) {
		op->n2 = (uint32_t)-err;
		return fork_undo(op, c);
	}
	switch (op->phase) {
	case FORK_UNDO:
		return fork_undo(op, c);
	case FORK_START:
		if (s->st.seq[op->e.first].state != SEQ_FREE)
			return op_done(c, -EBUSY);
		seq_start(&s->st, op->e.first, op->e.arg);
		s->st.seq[op->e.first].flags = op_seq(op)->flags;
		s->st.seq[op->e.first].sid = op_seq(op)->sid;
		op_block(op, op->e.seq);
		op_block(op, op->e.first);
		op->grp = 0;
		op->phase = FORK_SHARE;
		/* fall through */
	case FORK_SHARE:
		if (!fork_share(op))
			return op_park_more(op, true);
		op->grp = 0;
		op->cursor = 0;
		op->phase = FORK_ALLOC;
		/* fall through */
	default:
		return fork_copies(op, c);
	}
}
