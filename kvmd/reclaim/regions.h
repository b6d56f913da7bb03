/* SPDX-License-Identifier: Apache-2.0 */
/*
 * regions.h - idle blocks in one array, sorted into a few regions.
 *
 * For a policy that draws blocks at random: each region is a run of the array,
 * so that drawing from it is one random number. block.prev is the block's place.
 * To move to the next region a block is swapped to the edge, then the edge
 * moves; all is O(regions). 4 bytes per slot. Core thread only.
 */
#ifndef KVMD_RECLAIM_REGIONS_H
#define KVMD_RECLAIM_REGIONS_H

#include "kvmd/pool/block.h"

#define REGIONS_NR	5

struct regions {
	struct block *blk;		/* the pool's array */
	uint32_t *id;			/* [size] block numbers */
	uint32_t size;
	uint32_t nr;			/* of them in use */
	uint32_t end[REGIONS_NR];	/* each region ends where the next begins */
};

int regions_init(struct regions *r, struct block *blk, uint32_t size);	/* 0 or -ENOMEM */
void regions_exit(struct regions *r);
void regions_add(struct regions *r, struct block *b, uint32_t region);
void regions_del(struct regions *r, struct block *b);
void regions_move(struct regions *r, struct block *b, uint32_t to);

static inline bool regions_has(const struct regions *r, const struct block *b)
{
	return b->prev < r->nr && r->id[b->prev] == (uint32_t)(b - r->blk);
}

static inline uint32_t regions_where(const struct regions *r, const struct block *b)
{
	uint32_t region = 0;

	while (b->prev >= r->end[region])
		region++;
	return region;
}

static inline uint32_t regions_start(const struct regions *r, uint32_t region)
{
	return region ? r->end[region - 1] : 0;
}

static inline uint32_t regions_nr(const struct regions *r, uint32_t region)
{
	return r->end[region] - regions_start(r, region);
}

/* The block at @place of the array. */
static inline struct block *regions_at(const struct regions *r, uint32_t place)
{
	return &r->blk[r->id[place]];
}

#endif
