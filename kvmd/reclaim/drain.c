/* SPDX-License-Identifier: Apache-2.0 */
/*
 * drain.c - empty chosen slabs, and choose one to take from another space.
 *
 * A block leaves only as a leaf, so draining a slab evicts the idle blocks in
 * it and the idle descendants that keep them. Leased blocks are waited for.
 */
#include "kvmd/reclaim/reclaim.h"

#include "kvmd/lib/stats.h"

#define DRAIN_STEPS	2048	/* slots or parents looked at in a turn */

static bool in_slab(const struct slab *s, uint32_t slot)
{
	return slot >= s->first && slot - s->first < s->nr;
}

/* Does @b, or a block it hangs from, lie in @s? */
static bool hangs_from(const struct pool *p, const struct slab *s, const struct block *b,
		       uint32_t *steps)
{
	for (;;) {
		++*steps;
		if (in_slab(s, b->slot))
			return true;
		if (!b->parent)
			return false;
		b = pool_block(p, b->parent);
	}
}

/* An idle leaf of HBM. Others may have an owner where these have a parent. */
static bool can_go(const struct block *b)
{
	return b->state == BLK_SEALED && b->slot && !b->leases && !b->nr_kids;
}

/* With tiers by way of RAM, else it is dropped. */
static void send_away(struct reclaim *rc, struct gpool *gp, struct block *b)
{
	if (rc->tiers) {
		index_out(rc->ix, gp, b);
		return;
	}
	stat_inc(BLOCKS_EVICTED);
	index_evict(rc->ix, b, KVMD_MISS_EVICTED);
}

/* Look at up to DRAIN_STEPS slots of the gpool from s->scan on. */
static bool drain_slab(struct reclaim *rc, struct slab *s)
{
	struct pool *p = rc->pool;
	struct gpool *gp = s->gp;
	uint32_t steps = 0, evicted = 0;

	if (gp->sp->hold)
		return false;
	while (steps < DRAIN_STEPS && s->state == SLAB_DRAINING && s->scan < gp->max_slots) {
		uint32_t slot = gp->max_slots - 1 - s->scan++;
		uint32_t id = gp->slot_owner[slot];
		struct block *b = pool_block(p, id);

		steps++;
		while (id && can_go(b) && hangs_from(p, s, b, &steps)) {
			uint32_t parent = b->parent;

			send_away(rc, gp, b);
			evicted++;
			id = parent;	/* it may have become a leaf */
			b = pool_block(p, id);
		}
	}
	if (rc->tiers && gp->out.nr) {
		tiers_pump_clean(rc->tiers, gp);
		evicted += tiers_finish_out(rc->tiers, gp, DRAIN_STEPS);
	}
	if (s->state != SLAB_DRAINING)
		return true;
	if (s->scan < gp->max_slots)
		return true;
	s->scan = 0;			/* next pass: what leases held this time */
	return evicted > 0;
}

bool reclaim_drain_turn(struct reclaim *rc)
{
	bool more = false, waiting = false;

	if (!rc->pool->nr_draining)
		return false;
	for (uint32_t i = 0; i < rc->pool->slab_end; i++) {
		struct slab *s = &rc->pool->slab[i];

		if (s->state == SLAB_DRAINING) {
			more |= drain_slab(rc, s);
			waiting = true;
		} else if (s->state == SLAB_WAIT_TENANT) {
			slab_advance(rc->pool, s);
			waiting = true;
		}
	}
	if (waiting && !more)
		rc->retry_ns = UINT64_MAX;	/* made finite by the caller's turn */
	return more;
}

/* ------------------------------------------------------------------- taking */

/* Bytes of @t's spaces that slabs hold, used or not. */
static uint64_t held_bytes(const struct pool *p, const struct tenant *t)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < p->space_end; i++) {
		const struct space *sp = &p->space[i];

		for (uint32_t g = 0; sp->in_use && sp->tenant == t && g < sp->nr_groups; g++)
			bytes += (uint64_t)sp->gp[g].nr_slots * sp->gp[g].slot_bytes;
	}
	return bytes;
}

/* The slab of @gp with most free slots. */
static struct slab *emptiest(const struct gpool *gp)
{
	struct slab *best = NULL;

	for (uint32_t k = 0; k < gp->max_slabs; k++) {
		struct slab *s = gp->slab[k];

		if (s && s->state == SLAB_ACTIVE && (!best || s->nr_free > best->nr_free))
			best = s;
	}
	return best;
}

/*
 * How willingly @from gives one slab for @to: 0 not at all, larger is better:
 * over high, over low, others; in a class whoever has more slack.
 */
static double willingness(const struct pool *p, const struct gpool *from, const struct gpool *to)
{
	const struct tenant *t = from->sp->tenant;
	uint64_t held = held_bytes(p, t), slab;
	uint64_t slack = (uint64_t)from->nr_free + from->nr_idle + from->out.nr;
	const struct slab *s = emptiest(from);
	double class = 1;

	/* Slack for the blocks of the slab it would be; the NULL slot is none. */
	if (from == to || !s || from->nr_waiters || slack < s->nr - (s->first == 0))
		return 0;
	slab = (s->nr - (s->first == 0)) * from->slot_bytes;
	if (from->sp->dev[0] != to->sp->dev[0])
		return 0;
	if (t != to->sp->tenant) {
		if (held < slab || held - slab < t->hbm_min)
			return 0;
		if (t->hbm_high && held > t->hbm_high)
			class = 4;
		else if (held - slab >= t->hbm_low)
			class = 2;
	}
	return class + (double)slack / (from->nr_slots + 1);
}

/* Could @gp use one more slab? One that has its largest size waits for its own blocks. */
static bool has_place(const struct gpool *gp)
{
	for (uint32_t k = 0; k < gp->max_slabs; k++)
		if (!gp->slab[k])
			return true;
	return false;
}

void reclaim_take_slab(struct reclaim *rc, struct gpool *gp)
{
	struct pool *p = rc->pool;
	struct gpool *donor = NULL;
	double best = 0;
	struct slab *s;

	if (!has_place(gp))
		return;
	for (uint32_t i = 0; i < p->slab_end; i++)
		if (p->slab[i].state != SLAB_NONE && p->slab[i].taker == gp)
			return;		/* one is on its way */
	for (uint32_t i = 0; i < p->space_end; i++) {
		struct space *sp = &p->space[i];

		for (uint32_t g = 0; sp->in_use && g < sp->nr_groups; g++) {
			double w = willingness(p, &sp->gp[g], gp);

			if (w > best) {
				best = w;
				donor = &sp->gp[g];
			}
		}
	}
	s = donor ? emptiest(donor) : NULL;
	if (!s)
		return;
	if (donor->sp->tenant != gp->sp->tenant &&
	    held_bytes(p, donor->sp->tenant) < donor->sp->tenant->hbm_low +
	    (uint64_t)donor->slab_slots * donor->slot_bytes) {
		donor->sp->tenant->events_low++;
		stat_inc(TENANT_LOW_EVENTS);
	}
	s->scan = 0;
	slab_drain(p, s, gp);
	rc->kick = true;
}
