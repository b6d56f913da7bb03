/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blklist.h - doubly linked lists of records, by id, through prev and next.
 *
 * A record is on at most one; which one follows from its state (block.h).
 */
#ifndef KVMD_POOL_BLKLIST_H
#define KVMD_POOL_BLKLIST_H

#include "kvmd/pool/block.h"

struct blklist {
	uint32_t head, tail;		/* record ids, 0: empty */
	uint32_t nr;
};

static inline void blklist_add_tail(struct block *blk, struct blklist *l, struct block *b)
{
	uint32_t id = (uint32_t)(b - blk);

	b->next = 0;
	b->prev = l->tail;
	if (l->tail)
		blk[l->tail].next = id;
	else
		l->head = id;
	l->tail = id;
	l->nr++;
}

static inline void blklist_add_head(struct block *blk, struct blklist *l, struct block *b)
{
	uint32_t id = (uint32_t)(b - blk);

	b->prev = 0;
	b->next = l->head;
	if (l->head)
		blk[l->head].prev = id;
	else
		l->tail = id;
	l->head = id;
	l->nr++;
}

static inline void blklist_del(struct block *blk, struct blklist *l, struct block *b)
{
	if (b->prev)
		blk[b->prev].next = b->next;
	else
		l->head = b->next;
	if (b->next)
		blk[b->next].prev = b->prev;
	else
		l->tail = b->prev;
	b->prev = b->next = 0;
	l->nr--;
}

#endif
