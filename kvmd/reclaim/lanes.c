// SPDX-License-Identifier: Apache-2.0
/*
 * lanes.c - the lists of lru and s3fifo. Core thread only.
 */
#include "kvmd/reclaim/lanes.h"

#define LANE_SHIFT	5
#define LANE_BITS	(BLK_F_POL0 | BLK_F_POL1 | BLK_F_POL2)
BUILD_BUG_ON(LANE_BITS != 7 << LANE_SHIFT);

#define LOOK_MAX	64	/* blocks looked at to find a place by age */

static void mark(struct block *b, uint32_t lane)
{
	b->flags = (uint8_t)((b->flags & ~LANE_BITS) | (lane + 1) << LANE_SHIFT);
}

/* Put @b between @older and @younger, neighbours on @lane; 0: its end. */
static void insert(struct lanes *l, struct block *b, uint32_t lane, uint32_t older,
		   uint32_t younger)
{
	uint32_t id = (uint32_t)(b - l->blk);
	struct lane *q = &l->lane[lane];

	mark(b, lane);
	b->prev = older;
	b->next = younger;
	if (older)
		l->blk[older].next = id;
	else
		q->old = id;
	if (younger)
		l->blk[younger].prev = id;
	else
		q->young = id;
	q->nr++;
}

void lanes_add_young(struct lanes *l, struct block *b, uint32_t lane)
{
	insert(l, b, lane, l->lane[lane].young, 0);
}

void lanes_add_old(struct lanes *l, struct block *b, uint32_t lane)
{
	insert(l, b, lane, 0, l->lane[lane].old);
}

void lanes_add_by_age(struct lanes *l, struct block *b, uint32_t lane)
{
	uint32_t older = 0, younger = l->lane[lane].old;
	unsigned i;

	for (i = 0; i < LOOK_MAX && younger; i++) {
		if ((int32_t)(l->blk[younger].last_use - b->last_use) > 0)
			break;
		older = younger;
		younger = l->blk[younger].next;
	}
	insert(l, b, lane, older, younger);
}

void lanes_del(struct lanes *l, struct block *b)
{
	uint32_t lane = lanes_where(b);
	struct lane *q = &l->lane[lane];

	if (b->prev)
		l->blk[b->prev].next = b->next;
	else
		q->old = b->next;
	if (b->next)
		l->blk[b->next].prev = b->prev;
	else
		q->young = b->prev;
	q->nr--;
	mark(b, LANE_NONE);
}

struct block *lanes_leaf(struct lanes *l, uint32_t lane)
{
	struct block *b;

	while ((b = lanes_oldest(l, lane)) && b->nr_kids) {
		lanes_del(l, b);
		lanes_add_young(l, b, LANE_PARKED);
	}
	return b;
}

struct block *lanes_unpark_parent(struct lanes *l, const struct block *b)
{
	struct block *p = &l->blk[b->parent];

	if (!b->parent || lanes_where(p) != LANE_PARKED)
		return NULL;
	lanes_del(l, p);
	return p;
}

struct block *lanes_heal(struct lanes *l, unsigned nr)
{
	struct block *b;

	while (nr-- && (b = lanes_oldest(l, LANE_PARKED))) {
		lanes_del(l, b);
		if (!b->nr_kids)
			return b;
		lanes_add_young(l, b, LANE_PARKED);
	}
	return NULL;
}
