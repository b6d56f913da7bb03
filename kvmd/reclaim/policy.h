/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policy.h - the policies there are, and what they have in common.
 *
 * What a client advised decides first, the policy second: advised cold or past
 * its time to live, then low priority, then what nobody said anything about,
 * then high priority. A priority or a time to live that has ended is noticed
 * when the policy meets the block, not before. A block that is used again is no
 * longer cold. Time is pool.now, the policy clock in ticks of 1/16 s, set once
 * a turn. Core thread only.
 */
#ifndef KVMD_RECLAIM_POLICY_H
#define KVMD_RECLAIM_POLICY_H

#include "kvmd/pool/policy.h"
#include "kvmd/pool/pool.h"

#define POLICY_DEFAULT	"density"

extern const struct policy_ops policy_lru;
extern const struct policy_ops policy_s3fifo;
extern const struct policy_ops policy_density;

const struct policy_ops *policy_find(const char *name);	/* NULL: no such policy */
/* Name of policy @i, default first; NULL: @i is past the last. */
const char *policy_name(unsigned i);
const char *policy_names(void);				/* "density, lru, s3fifo" */

/* Order of reclaim as advised; lower goes first. */
enum policy_rank {
	RANK_COLD,
	RANK_LOW,
	RANK_NORMAL,
	RANK_HIGH,
	NR_POLICY_RANK
};
const char *policy_rank_name(unsigned rank);

static inline bool policy_is_over(const struct block *b, uint32_t now)
{
	return (int32_t)(now - b->until) >= 0;
}

static inline bool policy_is_expired(const struct block *b, uint32_t now)
{
	return (b->flags & BLK_F_TTL) && policy_is_over(b, now);
}

/* Whether @b has any advice at all: without, its rank is normal at any time. */
static inline bool policy_is_advised(const struct block *b)
{
	return b->flags & (BLK_F_COLD | BLK_F_TTL) || b->prio != KVMD_PRIO_DEFAULT;
}

static inline enum policy_rank policy_rank(const struct block *b, uint32_t now)
{
	if (b->flags & BLK_F_COLD || policy_is_expired(b, now))
		return RANK_COLD;
	if (b->prio == KVMD_PRIO_DEFAULT ||
	    ((b->flags & BLK_F_PRIO) && policy_is_over(b, now)))
		return RANK_NORMAL;
	return b->prio < KVMD_PRIO_DEFAULT ? RANK_LOW : RANK_HIGH;
}

/* The same, without reading the time for a block that nothing was said about. */
static inline enum policy_rank policy_rank_now(const struct policy *pol, const struct block *b)
{
	return likely(!policy_is_advised(b)) ? RANK_NORMAL : policy_rank(b, pol->pool->now);
}

#endif
