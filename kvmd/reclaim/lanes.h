/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lanes.h - idle blocks on a few lists, oldest first, leaves found in O(1).
 *
 * A policy with lists (lru, s3fifo) has up to six lanes, chained through
 * block.prev and block.next by block number. Which lane a block is on is in
 * its BLK_F_POL bits; 0: on none.
 *
 * Only leaves may go. A block with children that is met at the old end of a
 * lane is parked: set aside on a list of its own, and put back at the old end
 * of its lane when a child of it leaves the lanes. So each block is passed over
 * once for each time it or a child comes, and asking for the oldest leaf is
 * O(1) amortised. A parked block whose last child vanished without passing
 * through here is found by lanes_heal(), one look per call.
 */
#ifndef KVMD_RECLAIM_LANES_H
#define KVMD_RECLAIM_LANES_H

#include "kvmd/pool/block.h"

#define LANES_MAX	6
#define LANE_PARKED	LANES_MAX
#define LANE_NONE	UINT32_MAX

struct lane {
	uint32_t old, young;		/* block numbers, 0: empty */
	uint32_t nr;
};

struct lanes {
	struct block *blk;		/* the pool's array */
	struct lane lane[LANES_MAX + 1];	/* the last one: parked */
};

/* Which lane @b is on: LANE_NONE, LANE_PARKED, or what it was added to. */
static inline uint32_t lanes_where(const struct block *b)
{
	return (uint32_t)(b->flags >> 5) - 1;
}

static inline struct block *lanes_oldest(const struct lanes *l, uint32_t lane)
{
	return l->lane[lane].old ? &l->blk[l->lane[lane].old] : NULL;
}

void lanes_add_young(struct lanes *l, struct block *b, uint32_t lane);
void lanes_add_old(struct lanes *l, struct block *b, uint32_t lane);
/* In order of last_use, looking at up to 64 blocks from the old end. */
void lanes_add_by_age(struct lanes *l, struct block *b, uint32_t lane);
void lanes_del(struct lanes *l, struct block *b);
/* Oldest leaf of @lane; what is older and has children is parked. NULL: none. */
struct block *lanes_leaf(struct lanes *l, uint32_t lane);
/* @b's parent if it is parked, taken off: the caller puts it on its lane's old end. */
struct block *lanes_unpark_parent(struct lanes *l, const struct block *b);
/* A parked block that has become a leaf, taken off, out of the next @nr; NULL: none. */
struct block *lanes_heal(struct lanes *l, unsigned nr);

#endif
