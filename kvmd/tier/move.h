/* SPDX-License-Identifier: Apache-2.0 */
/*
 * move.h - what moves are made of, for the files that begin and end them.
 *
 * Core thread only.
 */
#ifndef KVMD_TIER_MOVE_H
#define KVMD_TIER_MOVE_H

#include "kvmd/tier/tiers.h"

/*
 * A place in RAM for @b, coded or not, charged to its tenant; 0: none, or making room
 * took the last move. Making room may begin a move of @b itself: ask pool_is_moving()
 * after.
 */
uint32_t tiers_ram_get(struct tiers *t, struct gpool *gp, struct block *b, bool coded);
void tiers_ram_put(struct tiers *t, struct gpool *gp, uint32_t place, bool coded);
/* @for_good: a restart does not bring it back. */
void tiers_disk_put(struct tiers *t, struct gpool *gp, uint32_t place, bool coded, bool for_good);

/*
 * Is a move free, @b in none, and budget left in the direction of @kind (enum
 * move_kind)? One block always may go.
 */
bool tiers_may_start(struct tiers *t, unsigned kind, struct gpool *gp, struct block *b);
/* @b is moving from now on; the caller sets place, ends and done() of its request. */
struct move *tiers_move_get(struct tiers *t, unsigned kind, struct gpool *gp, struct block *b);
/* It may be taken again at once; what it says stays until then. */
void tiers_move_put(struct move *m);
void tiers_warn(struct tiers *t, const struct move *m, const struct block *b, const char *what,
		uint32_t place);
/* The device says that the memory of @b's slot is broken. */
void tiers_poisoned(struct tiers *t, struct move *m, struct block *b);

/* An idle block of level RAM that is next to go. True: its place is free now. */
bool tiers_send_off(struct tiers *t, struct block *b);

/* There is something to do at @ns, too, though nothing happens before. */
static inline void tiers_retry(struct tiers *t, uint64_t ns)
{
	t->retry_ns = clock_earlier(t->retry_ns, ns);
}

/* @b of list @l comes last. */
static inline void tiers_to_tail(struct tiers *t, struct blklist *l, struct block *b)
{
	blklist_del(t->pool->blk, l, b);
	blklist_add_tail(t->pool->blk, l, b);
}

#endif
