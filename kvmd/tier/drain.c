/* SPDX-License-Identifier: Apache-2.0 */
/*
 * drain.c - tiers emptied or made smaller, for an operator.
 *
 * RAM gives its last chunks back: what HBM has too is dropped there, the rest goes
 * to disk or is let go of. Of the disk tier as a whole nothing is kept: nothing is
 * stored any more, blocks that only disk has are let go of, the end of a chain
 * first; of those that are higher up too the place on disk is freed, once no child
 * of them is left there. What somebody holds stays until then. The bytes on disk
 * are not touched: a restart finds again what was not written over. Core thread
 * only; a bounded piece in each turn.
 */
#include "kvmd/tier/move.h"

#include "kvmd/lib/stats.h"

#define RAM_TURN	32		/* blocks of RAM looked at in a turn */
#define RETRY_NS	20000000ull	/* what RAM should give back is held: look again then */
#define EVICT_TURN	64		/* blocks of the list looked at in a turn */
#define SCAN_TURN	2048		/* records */
#define QUIET_NS	100000000ull	/* between two passes when the last one found nothing */

/* ---------------------------------------------------------------------- RAM */

bool tiers_drain_ram(struct tiers *t)
{
	bool did = false, stuck = false;

	for (uint32_t i = 0; i < RAM_TURN; i++) {
		uint32_t id = ram_drain_next(t->ram);
		struct block *b = pool_block(t->pool, id);

		if (!id)
			break;
		if (!pool_is_moving(t->pool, b) && b->state == BLK_EVICTING && b->slot &&
		    tiers_may_stay(t, b))
			/* It was about to leave HBM for a place that goes. */
			tiers_stay(t, pool_gpool(t->pool, b), b);
		if (!pool_is_moving(t->pool, b) && b->state == BLK_SEALED && b->slot) {
			tiers_drop_ram(t, b);
			did = true;
		} else if (!pool_is_moving(t->pool, b) && b->state == BLK_SEALED && !b->leases &&
			   !b->nr_kids_ram) {
			tiers_send_off(t, b);
			did = true;
		} else {
			stuck = true;	/* held, a parent, or on its way: in the next pass */
		}
	}
	if (stuck && !did)
		tiers_retry(t, t->now_ns + RETRY_NS);
	return did;
}

/* --------------------------------------------------------------------- disk */

static bool evict_some(struct tiers *t)
{
	struct blklist *l = &t->ix->low[LEVEL_DISK];
	bool did = false;

	for (uint32_t i = 0; i < EVICT_TURN && l->nr; i++) {
		struct block *b = pool_block(t->pool, l->head);

		if (index_can_evict(t->ix, b)) {
			stat_inc(BLOCKS_DROPPED_DISK);
			index_evict(t->ix, b, KVMD_MISS_EVICTED);
			did = true;
			continue;
		}
		tiers_to_tail(t, l, b);	/* its children are behind it */
	}
	return did;
}

/* Copies on disk of blocks that are in HBM or RAM. */
static bool free_copies(struct tiers *t)
{
	struct pool *p = t->pool;
	bool did = false;

	for (uint32_t i = 0; i < SCAN_TURN; i++) {
		struct block *b;

		if (++t->drain_scan >= p->next_fresh)
			t->drain_scan = 1;
		b = pool_block(p, t->drain_scan);
		if (!b->disk || !(b->slot | b->ram) || b->nr_kids_disk || pool_is_moving(p, b))
			continue;
		if (b->state == BLK_EVICTING && b->slot && tiers_may_stay(t, b))
			tiers_stay(t, pool_gpool(p, b), b);	/* it may have counted on it */
		if (b->state != BLK_SEALED)
			continue;
		tiers_disk_put(t, pool_gpool(p, b), b->disk, b->disk_coded, false);
		b->disk = 0;
		did = true;
	}
	return did;
}

static bool has_blocks(const struct pool *p)
{
	for (uint32_t i = 0; i < p->nr_tenants; i++)
		if (p->tenant[i].disk_bytes)
			return true;
	return false;
}

bool tiers_drain_disk(struct tiers *t)
{
	bool did;

	if (!t->disk || !t->disk->draining || !has_blocks(t->pool))
		return false;
	if (t->now_ns < t->drain_ns) {
		tiers_retry(t, t->drain_ns);
		return false;
	}
	did = evict_some(t);
	did |= free_copies(t);
	if (did) {
		t->drain_quiet = 0;
		return true;
	}
	t->drain_quiet += SCAN_TURN;
	if (t->drain_quiet < t->pool->next_fresh)
		return true;
	t->drain_quiet = 0;
	t->drain_ns = t->now_ns + QUIET_NS;
	tiers_retry(t, t->drain_ns);
	return false;
}
