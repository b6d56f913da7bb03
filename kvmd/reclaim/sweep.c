/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sweep.c - drop what nobody may hit any more: former epochs, expired blocks,
 * what hangs from a block that lost its bytes.
 *
 * All can no longer be found by a request; the sweep only gives their memory
 * back early, a bounded piece of the block array a turn.
 */
#include "kvmd/reclaim/reclaim.h"

#include "kvmd/lib/clock.h"
#include "kvmd/lib/stats.h"

#define SWEEP_RECORDS	4096	/* looked at in a turn */
#define ORPHAN_WALK	4096	/* parents looked at for one block */

static bool has_stale(const struct pool *p)
{
	for (uint32_t i = 0; i < p->space_end; i++)
		if (p->space[i].in_use && p->space[i].nr_stale)
			return true;
	return false;
}

/* A block whose parent lost its bytes can never be hit again; nor can what hangs from it. */
static bool is_orphan(const struct pool *p, const struct block *b)
{
	for (unsigned i = 0; b->parent && i < ORPHAN_WALK; i++) {
		b = pool_block(p, b->parent);
		if (block_is_lost(b))
			return true;
	}
	return false;
}

static void sweep_block(struct reclaim *rc, struct block *b)
{
	const struct pool *p = rc->pool;

	rc->sweep_ttl += b->state == BLK_SEALED && (b->flags & BLK_F_TTL);
	if (!index_can_evict(rc->ix, b))
		return;
	if (b->sid != p->sid[b->sid].sp->sid) {
		stat_inc(BLOCKS_STALE);
		index_evict(rc->ix, b, KVMD_MISS_EPOCH);
	} else if ((b->flags & BLK_F_TTL) && (int32_t)(p->now - b->until) >= 0) {
		stat_inc(BLOCKS_DROPPED);
		index_evict(rc->ix, b, KVMD_MISS_DROPPED);
	} else if (rc->ix->nr_lost && is_orphan(p, b)) {
		stat_inc(BLOCKS_ORPHANED);
		index_evict(rc->ix, b, KVMD_MISS_EVICTED);
	} else {
		return;
	}
	rc->sweep_found++;
}

bool reclaim_sweep_turn(struct reclaim *rc)
{
	struct pool *p = rc->pool;
	uint32_t end;

	if (!rc->nr_ttl && !rc->ix->nr_lost && !has_stale(p))
		return false;
	if (rc->sweep == 1)
		rc->ttl_before = rc->nr_ttl;
	/* From the end down: children usually lie behind their parents. */
	end = min(p->next_fresh - rc->sweep, (uint32_t)SWEEP_RECORDS);
	for (uint32_t i = 0; i < end; i++, rc->sweep++)
		sweep_block(rc, pool_block(p, p->next_fresh - rc->sweep));
	if (rc->sweep < p->next_fresh)
		return true;
	rc->sweep = 1;
	end = rc->sweep_found;
	/* Those given during the pass may lie behind its cursor. */
	rc->nr_ttl = rc->sweep_ttl + (rc->nr_ttl - rc->ttl_before);
	rc->sweep_found = rc->sweep_ttl = 0;
	if (!end)
		rc->retry_ns = UINT64_MAX;
	return end > 0;
}
