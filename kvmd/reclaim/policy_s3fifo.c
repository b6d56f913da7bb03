// SPDX-License-Identifier: Apache-2.0
/*
 * policy_s3fifo.c - S3-FIFO, fitted to chains of blocks.
 *
 * After Yang et al., "FIFO queues are all you need for cache eviction" (SOSP
 * 2023): new blocks pass through a small queue, and only what is used again
 * there, or is remembered from before, gets into the main queue. Fitted: a
 * block is promoted at its first reuse, the small queue has 40 % of the idle
 * blocks, and a reused block goes to the young end of the main queue, since it
 * left the queue while it was leased; that is its further round, and counting
 * uses for more of them keeps finished conversations (measured: 83 instead of
 * 90 % hits on recorded coding agents). With advice: see policy.h.
 *
 * No memory beyond the block records. Core thread only.
 */
#include "kvmd/lib/mem.h"
#include "kvmd/reclaim/lanes.h"
#include "kvmd/reclaim/policy.h"

#define SMALL_PERCENT	40	/* of the blocks in both queues */
#define EXPIRE_MAX	64	/* priorities that are let end per victim */
#define HEAL_MAX	64	/* parked blocks looked at when nothing else is left */

/* block.tag */
#define TAG_MAIN	0x80	/* belongs to the main queue */

enum s3_lane {
	LANE_COLD,
	LANE_LOW,
	LANE_SMALL,
	LANE_MAIN,
	LANE_HIGH,
	NR_S3_LANE
};
BUILD_BUG_ON(NR_S3_LANE > LANES_MAX);

struct s3 {
	struct policy pol;
	struct lanes lanes;
};

static struct s3 *to_s3(struct policy *pol)
{
	return container_of(pol, struct s3, pol);
}

static struct policy *s3_create(struct pool *p, struct gpool *gp)
{
	struct s3 *s = mem_zalloc(sizeof(*s));

	if (!s)
		return NULL;
	s->pol = (struct policy){ .ops = &policy_s3fifo, .pool = p, .gp = gp };
	s->lanes.blk = p->blk;
	return &s->pol;
}

static void s3_destroy(struct policy *pol)
{
	if (pol)
		mem_free(to_s3(pol));
}

static enum s3_lane lane_of(const struct block *b, enum policy_rank rank)
{
	switch (rank) {
	case RANK_COLD:
		return LANE_COLD;
	case RANK_LOW:
		return LANE_LOW;
	case RANK_HIGH:
		return LANE_HIGH;
	default:
		return b->tag & TAG_MAIN ? LANE_MAIN : LANE_SMALL;
	}
}

static void s3_request(struct policy *pol, struct policy_req *r)
{
	(void)pol;
	r->tag_new = r->tag_hit = r->aux = 0;
}

static void s3_hit(struct policy *pol, struct block *b, const struct policy_req *r)
{
	(void)pol;
	(void)r;
	b->tag = TAG_MAIN;
	b->flags &= (uint8_t)~BLK_F_COLD;
}

static void s3_ghost(struct policy *pol, struct ghost *g, const struct policy_req *r)
{
	(void)pol;
	(void)g;
	(void)r;
}

static void s3_insert(struct policy *pol, struct block *b, const struct ghost *g,
		      uint8_t tag_new, uint8_t aux)
{
	(void)pol;
	(void)tag_new;
	(void)aux;
	b->tag = g ? TAG_MAIN : 0;
}

static void s3_busy(struct policy *pol, struct block *b)
{
	struct s3 *s = to_s3(pol);
	struct block *p;

	lanes_del(&s->lanes, b);
	p = lanes_unpark_parent(&s->lanes, b);
	if (p)
		lanes_add_old(&s->lanes, p, lane_of(p, policy_rank_now(pol, p)));
}

static void s3_idle(struct policy *pol, struct block *b)
{
	struct s3 *s = to_s3(pol);

	lanes_add_young(&s->lanes, b, lane_of(b, policy_rank_now(pol, b)));
}

static void s3_advised(struct policy *pol, struct block *b)
{
	struct s3 *s = to_s3(pol);
	enum policy_rank rank = policy_rank(b, pol->pool->now);
	enum s3_lane lane = lane_of(b, rank);

	if (lanes_where(b) == lane)
		return;
	lanes_del(&s->lanes, b);
	if (rank == RANK_NORMAL)
		lanes_add_by_age(&s->lanes, b, lane);
	else
		lanes_add_young(&s->lanes, b, lane);
}

/* Let priorities that are over end, as far as they are at the old end. */
static void expire(struct s3 *s, enum s3_lane lane, uint32_t now)
{
	struct block *b;
	unsigned i;

	for (i = 0; i < EXPIRE_MAX; i++) {
		b = lanes_oldest(&s->lanes, lane);
		if (!b || policy_rank(b, now) != RANK_NORMAL)
			return;
		lanes_del(&s->lanes, b);
		lanes_add_by_age(&s->lanes, b, lane_of(b, RANK_NORMAL));
	}
}

static struct block *normal_leaf(struct s3 *s)
{
	uint64_t nr_small = s->lanes.lane[LANE_SMALL].nr;
	uint64_t nr_main = s->lanes.lane[LANE_MAIN].nr;
	struct block *b;

	if (nr_small * 100 > (nr_small + nr_main) * SMALL_PERCENT) {
		b = lanes_leaf(&s->lanes, LANE_SMALL);
		return b ? b : lanes_leaf(&s->lanes, LANE_MAIN);
	}
	b = lanes_leaf(&s->lanes, LANE_MAIN);
	return b ? b : lanes_leaf(&s->lanes, LANE_SMALL);
}

static struct block *s3_victim(struct policy *pol)
{
	static const enum s3_lane order[] = { LANE_COLD, LANE_LOW };
	struct s3 *s = to_s3(pol);
	uint32_t now = pol->pool->now;
	struct block *b;
	unsigned i;

	b = lanes_heal(&s->lanes, 1);
	if (b)
		lanes_add_old(&s->lanes, b, lane_of(b, policy_rank(b, now)));
	expire(s, LANE_LOW, now);
	expire(s, LANE_HIGH, now);

	for (i = 0; i < NR_S3_LANE; i++) {
		b = lanes_leaf(&s->lanes, i);
		if (b && policy_is_expired(b, now))
			return b;
	}
	for (i = 0; i < ARRAY_SIZE(order); i++) {
		b = lanes_leaf(&s->lanes, order[i]);
		if (b)
			return b;
	}
	b = normal_leaf(s);
	if (!b)
		b = lanes_leaf(&s->lanes, LANE_HIGH);
	if (!b) {
		b = lanes_heal(&s->lanes, HEAL_MAX);
		if (b)
			lanes_add_old(&s->lanes, b, lane_of(b, policy_rank(b, now)));
	}
	return b;
}

static uint8_t s3_aux(struct policy *pol, const struct block *b)
{
	(void)pol;
	(void)b;
	return 0;
}

static bool s3_beats(struct policy *pol, const struct block *a, const struct block *b)
{
	uint32_t now = pol->pool->now;

	return policy_rank(a, now) >= policy_rank(b, now);
}

const struct policy_ops policy_s3fifo = {
	.name = "s3fifo",
	.help = "a small queue for new blocks, a main queue for reused ones",
	.wants_ghosts = true,
	.create = s3_create,
	.destroy = s3_destroy,
	.request = s3_request,
	.hit = s3_hit,
	.ghost = s3_ghost,
	.insert = s3_insert,
	.busy = s3_busy,
	.idle = s3_idle,
	.advised = s3_advised,
	.victim = s3_victim,
	.aux = s3_aux,
	.beats = s3_beats,
};
