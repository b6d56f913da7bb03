// SPDX-License-Identifier: Apache-2.0
/*
 * policy_lru.c - least recently used leaf first.
 *
 * Without advice exactly LRU in the order of idle(): one list, and since a
 * request's last block becomes idle first, its old end is a leaf. With advice
 * one list per rank, see policy.h. No memory beyond the block records.
 *
 * A sequence that was trimmed leaves blocks idle whose children are leased;
 * lanes.h sets them aside. Core thread only.
 */
#include "kvmd/lib/mem.h"
#include "kvmd/reclaim/lanes.h"
#include "kvmd/reclaim/policy.h"

#define EXPIRE_MAX	64	/* priorities that are let end per victim */
#define HEAL_MAX	64	/* parked blocks looked at when nothing else is left */

struct lru {
	struct policy pol;
	struct lanes lanes;		/* lane number is enum policy_rank */
};
BUILD_BUG_ON(NR_POLICY_RANK > LANES_MAX);

static struct lru *to_lru(struct policy *pol)
{
	return container_of(pol, struct lru, pol);
}

static struct policy *lru_create(struct pool *p, struct gpool *gp)
{
	struct lru *l = mem_zalloc(sizeof(*l));

	if (!l)
		return NULL;
	l->pol = (struct policy){ .ops = &policy_lru, .pool = p, .gp = gp };
	l->lanes.blk = p->blk;
	return &l->pol;
}

static void lru_destroy(struct policy *pol)
{
	if (pol)
		mem_free(to_lru(pol));
}

static void lru_request(struct policy *pol, struct policy_req *r)
{
	(void)pol;
	r->tag_new = r->tag_hit = r->aux = 0;
}

static void lru_hit(struct policy *pol, struct block *b, const struct policy_req *r)
{
	(void)pol;
	(void)r;
	b->flags &= (uint8_t)~BLK_F_COLD;
}

static void lru_ghost(struct policy *pol, struct ghost *g, const struct policy_req *r)
{
	(void)pol;
	(void)g;
	(void)r;
}

static void lru_insert(struct policy *pol, struct block *b, const struct ghost *g,
		       uint8_t tag_new, uint8_t aux)
{
	(void)pol;
	(void)g;
	(void)aux;
	b->tag = tag_new;
}

/* The parent of a block that goes may be the next leaf, and the oldest. */
static void lru_busy(struct policy *pol, struct block *b)
{
	struct lru *l = to_lru(pol);
	struct block *p;

	lanes_del(&l->lanes, b);
	p = lanes_unpark_parent(&l->lanes, b);
	if (p)
		lanes_add_old(&l->lanes, p, policy_rank_now(pol, p));
}

static void lru_idle(struct policy *pol, struct block *b)
{
	struct lru *l = to_lru(pol);

	lanes_add_young(&l->lanes, b, policy_rank_now(pol, b));
}

static void lru_advised(struct policy *pol, struct block *b)
{
	struct lru *l = to_lru(pol);
	uint32_t rank = policy_rank(b, pol->pool->now);

	if (lanes_where(b) == rank)
		return;
	lanes_del(&l->lanes, b);
	if (rank == RANK_NORMAL)
		lanes_add_by_age(&l->lanes, b, rank);
	else
		lanes_add_young(&l->lanes, b, rank);
}

/* Let priorities that are over end, as far as they are at the old end. */
static void expire(struct lru *l, uint32_t rank, uint32_t now)
{
	struct block *b;
	unsigned i;

	for (i = 0; i < EXPIRE_MAX; i++) {
		b = lanes_oldest(&l->lanes, rank);
		if (!b || policy_rank(b, now) != RANK_NORMAL)
			return;
		lanes_del(&l->lanes, b);
		lanes_add_by_age(&l->lanes, b, RANK_NORMAL);
	}
}

static struct block *lru_victim(struct policy *pol)
{
	struct lru *l = to_lru(pol);
	struct block *b, *first = NULL;
	uint32_t now = pol->pool->now;
	uint32_t rank;

	b = lanes_heal(&l->lanes, 1);
	if (b)
		lanes_add_old(&l->lanes, b, policy_rank(b, now));
	expire(l, RANK_LOW, now);
	expire(l, RANK_HIGH, now);

	for (rank = 0; rank < NR_POLICY_RANK; rank++) {
		b = lanes_leaf(&l->lanes, rank);
		if (b && (!first || policy_is_expired(b, now)))
			first = b;
		if (first && policy_rank(first, now) == RANK_COLD)
			return first;
	}
	if (!first) {
		first = lanes_heal(&l->lanes, HEAL_MAX);
		if (first)
			lanes_add_old(&l->lanes, first, policy_rank(first, now));
	}
	return first;
}

static uint8_t lru_aux(struct policy *pol, const struct block *b)
{
	(void)pol;
	(void)b;
	return 0;
}

static bool lru_beats(struct policy *pol, const struct block *a, const struct block *b)
{
	uint32_t now = pol->pool->now;

	return policy_rank(a, now) >= policy_rank(b, now);
}

const struct policy_ops policy_lru = {
	.name = "lru",
	.help = "least recently used first, the end of a chain before its start",
	.create = lru_create,
	.destroy = lru_destroy,
	.request = lru_request,
	.hit = lru_hit,
	.ghost = lru_ghost,
	.insert = lru_insert,
	.busy = lru_busy,
	.idle = lru_idle,
	.advised = lru_advised,
	.victim = lru_victim,
	.aux = lru_aux,
	.beats = lru_beats,
};
