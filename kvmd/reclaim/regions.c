// SPDX-License-Identifier: Apache-2.0
/*
 * regions.c - the idle blocks of the default policy. Core thread only.
 */
#include "kvmd/reclaim/regions.h"
#include "kvmd/lib/mem.h"

int regions_init(struct regions *r, struct block *blk, uint32_t size)
{
	*r = (struct regions){ .blk = blk, .size = max(size, 1u) };
	r->id = mem_big_alloc((size_t)r->size * sizeof(*r->id), false);
	return r->id ? 0 : -ENOMEM;
}

void regions_exit(struct regions *r)
{
	mem_big_free(r->id, (size_t)r->size * sizeof(*r->id));
}

static void put(struct regions *r, uint32_t id, uint32_t place)
{
	r->id[place] = id;
	r->blk[id].prev = place;
}

/* Swap @b with the block at @place. */
static void swap_with(struct regions *r, struct block *b, uint32_t place)
{
	uint32_t other = r->id[place], from = b->prev;

	if (from == place)
		return;
	put(r, (uint32_t)(b - r->blk), place);
	put(r, other, from);
}

void regions_move(struct regions *r, struct block *b, uint32_t to)
{
	uint32_t region = regions_where(r, b);

	for (; region < to; region++)
		swap_with(r, b, --r->end[region]);
	for (; region > to; region--)
		swap_with(r, b, r->end[region - 1]++);
}

void regions_add(struct regions *r, struct block *b, uint32_t region)
{
	BUG_ON(r->nr == r->size);
	put(r, (uint32_t)(b - r->blk), r->nr++);
	r->end[REGIONS_NR - 1] = r->nr;
	if (region != REGIONS_NR - 1)
		regions_move(r, b, region);
}

void regions_del(struct regions *r, struct block *b)
{
	regions_move(r, b, REGIONS_NR - 1);
	swap_with(r, b, r->nr - 1);
	r->end[REGIONS_NR - 1] = --r->nr;
}
