/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loads.c - sequences whose blocks are still coming from lower tiers; SEQ_WAIT.
 *
 * An open leases what it found in any tier. Here it is decided whether loading
 * is faster than recomputing, loads begin in chain order as slots in HBM can be
 * had, and row entries are set as blocks arrive. A sequence with blocks to come
 * is on its session's list (seqtab.loading) until all are there or one failed:
 * then the positions from the first that is missing on are given up.
 */
#include "kvmd/svc/daemon.h"
#include "kvmd/svc/ops.h"

#include "kvmd/lib/clock.h"
#include "kvmd/lib/stats.h"

#define BEGIN_TURN	256u	/* loads begun for one sequence in a turn */
#define SLOTS_AT_ONCE	32u	/* slots asked of reclaim at a time */

/* ------------------------------------------------------------------- the list */

static void list_loading(struct session *s, uint32_t sq)
{
	struct seq *q = &s->st.seq[sq];

	q->loading = true;
	q->load_next = s->st.loading;
	s->st.loading = sq + 1;
	q->load_ns = q->load_since_ns = s->d->now_ns;
}

/* The sequence that link @at names is on the list no more: nothing of it is coming. */
static void unlist_loading(struct session *s, uint32_t *at)
{
	struct seq *q = &s->st.seq[*at - 1];

	*at = q->load_next;
	q->load_next = 0;
	q->loading = false;
	stat_add(LOAD_STALL_NS, s->d->now_ns - q->load_since_ns);
}

/* Entries that wait for blocks. */
static void wake_waiters(struct session *s)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &s->load_ops) {
		struct op *op = list_entry(pos, struct op, link);
		const struct seq *q = op_seq(op);

		if (q->loading && (op->e.opcode != KVMD_OP_SEQ_WAIT || q->rdy[0] < op->e.first))
			continue;
		list_del(&op->link);
		op_resume(op, 0);
	}
}

void loads_stop(struct session *s, uint32_t sq)
{
	uint32_t *at = &s->st.loading;

	while (*at && *at != sq + 1)
		at = &s->st.seq[*at - 1].load_next;
	if (*at)
		unlist_loading(s, at);
	if (!list_empty(&s->load_ops))
		wake_waiters(s);
}

static bool is_coming(const struct session *s, uint32_t id)
{
	const struct block *b = pool_block(s->d->pool, id);

	return id && (!b->slot || b->state == BLK_LOADING);
}

/* ------------------------------------------------------------ worth loading? */

struct below {
	uint64_t ram_bytes, disk_bytes;
	uint32_t first;			/* first position below HBM, len: none */
	uint32_t nr, nr_ram;		/* positions below HBM; of those in RAM or on their way */
};

/* What of @sq is below HBM; entries of the row are set for all that is not. */
static struct below look_below(const struct session *s, uint32_t sq, uint32_t g)
{
	const struct seq *q = &s->st.seq[sq];
	const uint32_t *blocks = seq_blocks(&s->st, sq, g);
	int32_t *row = seq_row(&s->st, sq, g);
	struct below w = { .first = q->len[g] };
	const struct gpool *gp = &s->sp->gp[g];

	for (uint32_t i = 0; i < q->len[g]; i++) {
		const struct block *b = pool_block(s->d->pool, blocks[i]);

		if (!is_coming(s, blocks[i])) {
			/* It may have come since it was leased, for somebody else. */
			if (blocks[i])
				st_rlx(&row[i], (int32_t)b->slot);
			continue;
		}
		if (!w.nr++)
			w.first = i;
		if (b->ram || b->state == BLK_LOADING) {
			w.nr_ram++;
			w.ram_bytes += tier_ram_bytes(gp, b);
		} else {
			w.disk_bytes += tier_disk_bytes(gp, b);
		}
	}
	return w;
}

/*
 * Blocks were given up at the end: what is left of it need not be a prefix that every
 * group serves, a window before the end may never have been leased.
 */
static void settle(struct session *s, uint32_t sq)
{
	if (s->sp->nr_groups > 1 || s->sp->gp[0].geo.rule != KVMD_RULE_FULL)
		seq_settle(&s->st, sq);
}

/* Positions from @w->first on of group 0 are not worth it: without them. */
static void refuse_all(struct op *op, const struct below *w)
{
	struct session *s = op->s;

	stat_add(LOAD_REFUSED_SLOW, w->nr);
	op->n2 = KVMD_MISS_REFUSED;
	seq_cut(&s->st, op->e.seq, 0, w->first);
	settle(s, op->e.seq);
}

bool loads_begin(struct op *op)
{
	struct session *s = op->s;
	struct seq *q = op_seq(op);
	uint64_t ram = 0, disk = 0;
	struct below w0 = { 0 };
	bool any = false;

	for (uint32_t g = 0; g < s->sp->nr_groups; g++) {
		struct below w = look_below(s, op->e.seq, g);

		if (!g)
			w0 = w;
		any |= w.nr != 0;
		ram += w.ram_bytes;
		disk += w.disk_bytes;
		q->rdy[g] = q->begun[g] = w.first;
	}
	q->nr_hbm = w0.first;
	q->nr_ram = w0.nr_ram;
	if (!any)
		return false;
	if (!tiers_worth(s->d->tiers, ram, disk, (uint64_t)w0.nr * s->sp->gp[0].geo.block_tokens,
			 s->recompute_tps)) {
		refuse_all(op, &w0);
		/* Other groups may still have blocks below: look at what is left. */
		any = false;
		for (uint32_t g = 0; g < s->sp->nr_groups; g++) {
			q->rdy[g] = q->begun[g] = look_below(s, op->e.seq, g).first;
			any |= q->rdy[g] < q->len[g];
		}
		if (!any)
			return false;
	}
	list_loading(s, op->e.seq);
	s->loads_seen = s->d->tiers->nr_done - 1;	/* look at once */
	return true;
}

bool loads_resume(struct session *s, uint32_t sq)
{
	struct seq *q = &s->st.seq[sq];
	bool all = true, lost = false;

	for (uint32_t g = 0; g < s->sp->nr_groups; g++)
		all &= seq_arrivals(&s->st, sq, g, q->begun[g], &lost);
	q->load_err = lost ? -EIO : 0;
	if (all || lost)
		return false;
	q->nr_hbm = q->len[0];		/* nothing of it is a hit */
	list_loading(s, sq);
	return true;
}

/* --------------------------------------------------------------- going on */

/* Slots for loads of @gp: what can be had now. */
static bool want_slot(struct session *s, struct gpool *gp, uint32_t left)
{
	struct reclaim *rc = &s->d->rc;
	uint32_t reserve = reclaim_reserve_slots(gp, 1);

	if (gp->nr_waiters)
		return false;		/* no overtaking */
	if (gp->nr_free > reserve && gp->nr_free > gp->wmark_low)
		return true;
	return !reclaim_reserve(rc, gp, min(left, SLOTS_AT_ONCE), 0) ||
	       !reclaim_reserve(rc, gp, 1, 0);
}

/* Begin loads of @g in chain order, as slots can be had. True: some began. */
static bool begin_more(struct session *s, uint32_t sq, uint32_t g)
{
	struct seq *q = &s->st.seq[sq];
	struct gpool *gp = &s->sp->gp[g];
	const uint32_t *blocks = seq_blocks(&s->st, sq, g);
	uint32_t nr = 0;

	for (; q->begun[g] < q->len[g] && nr < BEGIN_TURN; q->begun[g]++) {
		struct block *b = pool_block(s->d->pool, blocks[q->begun[g]]);

		if (!blocks[q->begun[g]] || b->slot || b->state != BLK_SEALED)
			continue;
		/* Its parent's load failed meanwhile: the chain ends there. */
		if (b->parent && block_level(pool_block(s->d->pool, b->parent)) < LEVEL_HBM)
			break;
		if (!want_slot(s, gp, q->len[g] - q->begun[g]))
			break;
		tiers_load(s->d->tiers, gp, b);
		if (q->flags & SEQ_F_BY_PLANE)
			st_rlx(&seq_row(&s->st, sq, g)[q->begun[g]], (int32_t)b->slot);
		nr++;
	}
	return nr > 0;
}

/* Planes that are in place in every block of group 0 the sequence holds. */
static uint32_t planes_ready(struct session *s, uint32_t sq)
{
	const struct seq *q = &s->st.seq[sq];
	const uint32_t *blocks = seq_blocks(&s->st, sq, 0);
	uint32_t planes = s->sp->gp[0].geo.planes;

	for (uint32_t i = q->rdy[0]; i < q->len[0] && planes; i++)
		if (is_coming(s, blocks[i]))
			planes = min(planes, tiers_planes(s->d->tiers, blocks[i]));
	return planes;
}

/* A load failed or cannot begin: what is behind the last that is there is given up. */
static void give_up(struct session *s, uint32_t sq, int err)
{
	struct seq *q = &s->st.seq[sq];
	const struct op *opener = q->blocked != SEQ_NO_OP ? &s->ops[q->blocked - 1] : NULL;
	bool waits = opener && opener->e.opcode == KVMD_OP_SEQ_OPEN;
	uint32_t len[KVMD_MAX_GROUPS];

	q->load_err = err;
	for (uint32_t g = 0; g < s->sp->nr_groups; g++) {
		len[g] = q->len[g];
		seq_cut(&s->st, sq, g, q->rdy[g]);
	}
	if (!(q->flags & SEQ_F_SWAPPED))
		settle(s, sq);
	for (uint32_t g = 0; g < s->sp->nr_groups; g++) {
		q->rdy[g] = q->len[g];
		if (waits || q->len[g] == len[g])
			continue;
		/* Positions keep their place, the client trims them. */
		q->len[g] = len[g];
		q->hole[g] = min(q->hole[g], q->rdy[g]);
	}
}

/*
 * Can no slot for @gp be hoped for? Allocations that wait have their own way out of
 * a deadlock. Loads that wait for each other give way one at a time: what the
 * client of the first does next may free some for the others.
 */
static bool hopeless(const struct session *s, const struct gpool *gp)
{
	const struct daemon *d = s->d;

	if (gp->nr_idle || gp->out.nr || gp->nr_coming || gp->nr_waiters ||
	    gp->nr_free > reclaim_reserve_slots(gp, 1) || tiers_is_busy(d->tiers))
		return false;
	return !s->step_defer.head && !s->cq_defer.head &&
	       d->now_ns - d->gave_up_ns >= d->conf.pool.deadlock_ns;
}

/* One sequence. True: it got on; *ret_over: nothing is coming any more. */
static bool seq_turn(struct session *s, uint32_t sq, bool *ret_over)
{
	struct seq *q = &s->st.seq[sq];
	bool all = true, lost = false, did = false, stuck = false;
	uint32_t before = q->rdy[0];

	for (uint32_t g = 0; g < s->sp->nr_groups; g++) {
		did |= begin_more(s, sq, g);
		all &= seq_arrivals(&s->st, sq, g, q->begun[g], &lost);
		stuck |= q->begun[g] < q->len[g] && hopeless(s, &s->sp->gp[g]);
	}
	if (q->rdy[0] != before) {
		if (!(q->flags & SEQ_F_SWAPPED))
			attrib_loaded(s, q, before, q->rdy[0] - before);
		did = true;
	}
	if (did)
		q->load_ns = s->d->now_ns;
	else if (s->d->now_ns - q->load_ns > s->d->conf.pool.alloc_timeout_ns)
		stuck = true;
	if (lost || stuck) {
		if (stuck) {
			s->d->gave_up_ns = s->d->now_ns;
			stat_add(LOAD_REFUSED_NOMEM, q->len[0] - q->begun[0]);
		}
		give_up(s, sq, lost ? -EIO : -ENOMEM);
		all = true;
	}
	*ret_over = all;
	if (q->flags & SEQ_F_BY_PLANE)
		st_rlx(&seq_status(&s->st, sq)->planes, planes_ready(s, sq));
	if (did || all)
		seq_tell_status(&s->st, sq);
	return did || all;
}

bool loads_turn(struct session *s)
{
	struct tiers *t = s->d->tiers;
	uint32_t *at = &s->st.loading;
	bool did = false;

	s->loads_seen = t->nr_done;
	while (*at) {
		uint32_t sq = *at - 1;
		struct seq *q = &s->st.seq[sq];
		bool over = false;

		did |= seq_turn(s, sq, &over);
		if (!over) {
			at = &q->load_next;
			continue;
		}
		unlist_loading(s, at);
		seq_tell_status(&s->st, sq);
		if (q->q_head != SEQ_NO_OP)
			seq_kick(s, sq);
	}
	if (did && !list_empty(&s->load_ops))
		wake_waiters(s);
	return did;
}

/* ------------------------------------------------------------------ waiting */

enum op_ret op_park_load(struct op *op, bool block)
{
	op->state = OP_WAIT_LOAD;
	if (block)
		op_block(op, op->e.seq);
	list_add_tail(&op->link, &op->s->load_ops);
	return OP_PARKED;
}

enum op_ret op_seq_wait(struct op *op, int err, struct kvmd_cqe *c)
{
	const struct seq *q = op_seq(op);
	uint32_t ready = q->loading || q->load_err ? q->rdy[0] : q->len[0];

	if (err)
		return op_done(c, err);
	if (q->state != SEQ_LIVE)
		return op_done(c, -ECANCELED);
	if (op->e.first > q->len[0])
		return op_done(c, -EINVAL);
	if (q->loading && ready < op->e.first)
		return op_park_load(op, false);
	c->v0 = q->loading ? q->len[0] - ready : 0;
	c->v1 = (uint32_t)-q->load_err;
	return op_done(c, (int)ready);
}
