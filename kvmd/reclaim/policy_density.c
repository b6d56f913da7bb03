// SPDX-License-Identifier: Apache-2.0
/*
 * policy_density.c - the default: least expected hits per block and second first.
 *
 * Each block has a class (its tag), given by the request that used it last: was
 * the block known before, how often was it used, how long had the request's
 * known prefix waited (the pace of the conversation), for new blocks how long
 * the prompt is and whether the conversation is past its third turn, and what
 * the client said of the future. hazard.h learns how soon blocks of each class
 * are used again, and rates a block by class and age. The victim is the lowest
 * of 64 leaves drawn at random, then its parent, and so on along the chain
 * while class and age stay the same.
 *
 * A running request's blocks must be in HBM, whatever they are worth; those of
 * little worth are the first to go when they are idle. Tiers below ask beats()
 * and refuse them.
 *
 * Idle blocks are in regions.h's array: leaves by rank (see policy.h), then
 * blocks with children. The policy is not told when a block becomes a leaf: the
 * parent of a leaf that leaves is put among the leaves, on trust, and put back
 * when it is drawn and has children; what that misses is found by looking at
 * one inner block per victim.
 *
 * Memory: 4 bytes per slot of the group, and 0.6 MB per group for what is
 * learned, touched as needed. BLK_F_POL* holds the turn of the conversation,
 * which is also what ghosts remember (aux). Random numbers have a fixed seed:
 * the same calls give the same victims. Core thread only.
 */
#include "kvmd/lib/mem.h"
#include "kvmd/reclaim/hazard.h"
#include "kvmd/reclaim/policy.h"
#include "kvmd/reclaim/regions.h"

#define SAMPLES		64	/* leaves compared per victim */
#define SEARCH_MAX	256	/* inner blocks looked at when no leaf is known */
#define REFRESH_REQS	4	/* requests per class refreshed */
#define REFRESH_MAX	4u	/* classes refreshed at once */
#define NR_RECENT	256	/* requests remembered for their inserts */
#define HUB_USES	200	/* so often used: a template, not a turn */
#define TURN_MAX	6
#define TURN_SHIFT	5
#define TURN_BITS	(BLK_F_POL0 | BLK_F_POL1 | BLK_F_POL2)
BUILD_BUG_ON(TURN_BITS != 7 << TURN_SHIFT || TURN_MAX > 7);

/* Classes. 0 is never learned: what no class is known of. */
enum {
	NR_SAID = 3,			/* nothing, goes on, ends */
	NR_PACE = 6,			/* new conversation, under 8, 20, 60, 200 s, more */
	NR_USES = 3,			/* 2-3, 4-7, 8 and more */
	NR_LENGTH = 4,			/* tokens: under 1k, 8k, 32k, more */
	CLASS_NONE = 0,
	CLASS_OTHER,			/* new, of no known request */
	CLASS_END,			/* new, holds the end of a prompt: + said */
	CLASS_KNOWN = CLASS_END + NR_SAID,
	CLASS_NEW = CLASS_KNOWN + NR_SAID * NR_PACE * NR_USES,
	NR_CLASS = CLASS_NEW + NR_SAID * 2 * NR_PACE * NR_LENGTH
};
BUILD_BUG_ON(NR_CLASS > HAZARD_CLASSES);

/* Regions of the idle blocks: the ranks' leaves, then what has children. */
#define REGION_INNER	NR_POLICY_RANK
#define NR_REGION	(NR_POLICY_RANK + 1)
BUILD_BUG_ON(NR_REGION != REGIONS_NR);

/* ghost.aux: the turn, and whether ghost() was called since it was evicted. */
#define GHOST_TURN	0x07
#define GHOST_TOLD	0x80

/* What insert() needs of a request; found again by policy_req.aux. */
struct recent {
	uint32_t end;			/* block that holds the end of the prompt */
	uint8_t tag_hit;
	uint8_t turn;
	uint8_t said;
};

struct density {
	struct policy pol;
	struct block *blk;
	struct hazard *hz;
	struct regions idle;
	uint32_t now;
	uint64_t seed;
	uint32_t cursor;		/* inner block to look at next */
	uint32_t nr_reqs;		/* since the last refresh */
	struct recent recent[NR_RECENT];
	uint8_t nr_recent;		/* next to be used; wraps */

	/* The chain being taken: its next block, if it is as the last one was. */
	uint32_t chain;
	uint32_t chain_when;
	uint8_t chain_tag;
	uint8_t chain_region;
	bool chain_ok;			/* no request came since */
};

static struct density *to_density(struct policy *pol)
{
	return container_of(pol, struct density, pol);
}

/* Before anything that counts or rates. */
static void tick(struct density *d)
{
	if (likely(d->now == d->pol.pool->now))
		return;
	d->now = d->pol.pool->now;
	hazard_advance(d->hz, d->now);
}

/* ------------------------------------------------------------ who is idle */

/* An idle inner block may have lost its last child: try it as a leaf. */
static void try_leaf(struct density *d, uint32_t id)
{
	struct block *b = &d->blk[id];

	if (id && regions_has(&d->idle, b) && regions_where(&d->idle, b) == REGION_INNER)
		regions_move(&d->idle, b, policy_rank(b, d->now));
}

/* ---------------------------------------------------------------- classes */

static uint8_t said_of(const struct policy_req *r)
{
	if (r->hints & KVMD_HINT_LAST)
		return 2;
	return r->hints & KVMD_HINT_WILL_CONTINUE || r->gap_ns ? 1 : 0;
}

static unsigned pace_of(const struct policy_req *r)
{
	static const uint16_t limit_s[NR_PACE - 2] = { 8, 20, 60, 200 };
	unsigned i = 0;

	if (!r->nr_seen)
		return 0;
	while (i < ARRAY_SIZE(limit_s) && r->seen_age >= limit_s[i] * POLICY_TICKS_PER_S)
		i++;
	return i + 1;
}

static unsigned length_of(uint32_t tokens)
{
	return tokens < 1024 ? 0 : tokens < 8192 ? 1 : tokens < 32768 ? 2 : 3;
}

static uint8_t turn_of(const struct policy_req *r)
{
	int turn;

	if (!r->nr_seen)
		return 1;
	turn = min(max(r->seen_aux & GHOST_TURN, 1), TURN_MAX);
	return (uint8_t)(r->seen_uses < HUB_USES && turn < TURN_MAX ? turn + 1 : turn);
}

/* @uses: leases taken by opens, this one too; the making of it was the first use. */
static uint8_t known_class(uint8_t tag_hit, unsigned uses)
{
	return (uint8_t)(tag_hit + (uses + 1 < 4 ? 0 : uses + 1 < 8 ? 1 : 2));
}

static void set_turn(struct block *b, unsigned turn)
{
	b->flags = (uint8_t)((b->flags & ~TURN_BITS) | (turn << TURN_SHIFT & TURN_BITS));
}

/* -------------------------------------------------------------- what comes */

static void density_request(struct policy *pol, struct policy_req *r)
{
	struct density *d = to_density(pol);
	uint32_t block_tokens = pol->gp->geo.block_tokens;
	uint32_t tokens = r->tokens ? r->tokens : r->nr_keys * block_tokens;
	unsigned said = said_of(r), pace = pace_of(r), turn = turn_of(r);
	struct recent *q;

	tick(d);
	d->nr_reqs++;
	d->chain_ok = false;

	r->tag_hit = (uint8_t)(CLASS_KNOWN + (said * NR_PACE + pace) * NR_USES);
	r->tag_new = (uint8_t)(CLASS_NEW + ((said * 2 + (turn > 3)) * NR_PACE + pace) * NR_LENGTH +
			       length_of(tokens));
	r->aux = d->nr_recent;
	q = &d->recent[d->nr_recent++];
	q->end = block_tokens ? tokens / block_tokens : UINT32_MAX;
	q->tag_hit = r->tag_hit;
	q->turn = (uint8_t)turn;
	q->said = (uint8_t)said;
}

/*
 * Reuse is counted from idle to use: while a block is leased nobody can take it.
 * A cohort holds what is idle or remembered, each block once.
 */
static void density_hit(struct policy *pol, struct block *b, const struct policy_req *r)
{
	struct density *d = to_density(pol);

	if (b->leases <= 1)
		hazard_reused(d->hz, b->tag, b->last_use);
	b->tag = known_class(r->tag_hit, b->uses);
	b->flags &= (uint8_t)~BLK_F_COLD;
}

static void density_ghost(struct policy *pol, struct ghost *g, const struct policy_req *r)
{
	struct density *d = to_density(pol);

	hazard_reused(d->hz, g->tag, g->when);
	if (g->uses < UINT8_MAX)
		g->uses++;
	g->tag = known_class(r->tag_hit, g->uses);
	g->when = d->now;
	g->aux |= GHOST_TOLD;
	hazard_born(d->hz, g->tag);
}

static void density_insert(struct policy *pol, struct block *b, const struct ghost *g,
			   uint8_t tag_new, uint8_t aux)
{
	struct density *d = to_density(pol);
	const struct recent *q = &d->recent[aux];

	tick(d);
	b->tag = tag_new ? tag_new : CLASS_OTHER;
	if (!g) {
		set_turn(b, q->turn);
		if (tag_new && b->pos == q->end)
			b->tag = (uint8_t)(CLASS_END + q->said);
		return;
	}
	set_turn(b, g->aux & GHOST_TURN);
	if (g->aux & GHOST_TOLD) {
		/* ghost() said what it is now; the block takes its place. */
		b->uses = max(b->uses, g->uses);
		b->tag = g->tag;
		hazard_unborn(d->hz, g->tag, g->when);
		return;
	}
	b->uses = max(b->uses, (uint8_t)(g->uses + (g->uses < UINT8_MAX)));
	hazard_reused(d->hz, g->tag, g->when);
	if (tag_new)
		b->tag = known_class(q->tag_hit, b->uses);
}

static void density_idle(struct policy *pol, struct block *b)
{
	struct density *d = to_density(pol);

	tick(d);
	hazard_born(d->hz, b->tag);
	regions_add(&d->idle, b, b->nr_kids ? REGION_INNER : policy_rank_now(pol, b));
}

static void density_busy(struct policy *pol, struct block *b)
{
	struct density *d = to_density(pol);

	if (regions_where(&d->idle, b) != REGION_INNER)
		try_leaf(d, b->parent);
	regions_del(&d->idle, b);
}

static void density_advised(struct policy *pol, struct block *b)
{
	struct density *d = to_density(pol);

	if (regions_where(&d->idle, b) != REGION_INNER)
		regions_move(&d->idle, b, policy_rank(b, pol->pool->now));
}

/* --------------------------------------------------------------- what goes */

static uint64_t next_random(struct density *d)
{
	uint64_t x = d->seed += 0x9e3779b97f4a7c15ULL;	/* splitmix64 */

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

/* The parent of the last victim, if it is as good as that was. */
static struct block *next_of_chain(struct density *d)
{
	struct block *b = &d->blk[d->chain];

	if (!d->chain || !regions_has(&d->idle, b) || b->nr_kids)
		return NULL;
	if (regions_where(&d->idle, b) == REGION_INNER)
		regions_move(&d->idle, b, policy_rank(b, d->now));
	if (!d->chain_ok || regions_where(&d->idle, b) != d->chain_region ||
	    b->tag != d->chain_tag || b->last_use != d->chain_when)
		return NULL;
	return b;
}

/* Draw @nr places of @region, and have them fetched. */
static void draw(struct density *d, uint32_t region, uint32_t *place, unsigned nr)
{
	uint32_t start = regions_start(&d->idle, region), size = regions_nr(&d->idle, region);
	unsigned i;

	for (i = 0; i < nr; i++) {
		place[i] = start + (uint32_t)(((next_random(d) & UINT32_MAX) * size) >> 32);
		__builtin_prefetch(&regions_at(&d->idle, place[i])->nr_kids);
	}
}

/* Whether @b still belongs in @region; if not it was moved. */
static bool still_in(struct density *d, struct block *b, uint32_t region)
{
	uint32_t right = REGION_INNER;

	if (!b->nr_kids)
		right = policy_is_advised(b) ? policy_rank(b, d->now) : RANK_NORMAL;
	if (right == region)
		return true;
	regions_move(&d->idle, b, right);
	return false;
}

struct best {
	struct block *b;
	float worth;
};

static void weigh(struct density *d, struct best *best, struct block *b)
{
	float worth = hazard_index(d->hz, b->tag, b->last_use);

	if (!best->b || worth < best->worth ||
	    (worth == best->worth && b->pos > best->b->pos)) {
		best->b = b;
		best->worth = worth;
	}
}

/*
 * The lowest of up to 64 leaves of @region. Blocks that turn out to belong
 * elsewhere are moved: each was put here on trust once, so that is paid for.
 */
static struct block *lowest_of(struct density *d, uint32_t region)
{
	uint32_t place[SAMPLES], i;
	struct best best = { 0 };
	struct block *b;

	while (!best.b && regions_nr(&d->idle, region) > SAMPLES) {
		draw(d, region, place, SAMPLES);
		for (i = 0; i < SAMPLES; i++) {
			/* Moves of others may have shifted what is there, or the region. */
			if (place[i] < regions_start(&d->idle, region) ||
			    place[i] >= d->idle.end[region])
				continue;
			b = regions_at(&d->idle, place[i]);
			if (still_in(d, b, region))
				weigh(d, &best, b);
		}
	}
	if (best.b)
		return best.b;
	/* From the end: what moves away to a later region leaves the rest in place. */
	for (i = d->idle.end[region]; i > regions_start(&d->idle, region); i--) {
		if (i > d->idle.end[region])
			continue;
		b = regions_at(&d->idle, i - 1);
		if (still_in(d, b, region))
			weigh(d, &best, b);
	}
	return best.b;
}

/* Look at @nr more inner blocks: has one become a leaf unnoticed? */
static void search_inner(struct density *d, unsigned nr)
{
	uint32_t start = regions_start(&d->idle, REGION_INNER);
	struct block *b;

	for (nr = min(nr, d->idle.nr - start); nr; nr--) {
		if (d->cursor < start || d->cursor >= d->idle.nr)
			d->cursor = start;
		b = regions_at(&d->idle, d->cursor++);
		if (!b->nr_kids) {
			regions_move(&d->idle, b, policy_rank(b, d->now));
			return;
		}
	}
}

/* Look at one leaf of @region: its advice may be over. */
static void check_one(struct density *d, uint32_t region)
{
	uint32_t start = regions_start(&d->idle, region), size = regions_nr(&d->idle, region);

	if (size)
		still_in(d, regions_at(&d->idle, start + next_random(d) % size), region);
}

static struct block *choose(struct density *d)
{
	struct block *b;
	uint32_t region;

	for (region = 0; region < NR_POLICY_RANK; region++) {
		b = lowest_of(d, region);
		if (!b)
			continue;
		/* One whose time to live is over may have been met on the way. */
		if (region != RANK_COLD && regions_nr(&d->idle, RANK_COLD))
			return lowest_of(d, RANK_COLD);
		return b;
	}
	return NULL;
}

static struct block *density_victim(struct policy *pol)
{
	struct density *d = to_density(pol);
	struct block *b;

	tick(d);
	search_inner(d, 1);
	check_one(d, RANK_LOW);
	check_one(d, RANK_HIGH);
	b = next_of_chain(d);
	/* None, or there are leaves of a lower rank. */
	if (!b || regions_start(&d->idle, regions_where(&d->idle, b))) {
		if (d->nr_reqs >= REFRESH_REQS) {
			hazard_refresh(d->hz, min(d->nr_reqs / REFRESH_REQS, REFRESH_MAX));
			d->nr_reqs %= REFRESH_REQS;
		}
		b = choose(d);
	}
	/* All leaves changed rank while they were looked at, or are not known as such. */
	if (!b) {
		search_inner(d, SEARCH_MAX);
		b = choose(d);
	}
	if (!b)
		return NULL;
	d->chain = b->parent;
	d->chain_when = b->last_use;
	d->chain_tag = b->tag;
	d->chain_region = (uint8_t)regions_where(&d->idle, b);
	d->chain_ok = true;
	return b;
}

static uint8_t density_aux(struct policy *pol, const struct block *b)
{
	(void)pol;
	return (b->flags & TURN_BITS) >> TURN_SHIFT;
}

static bool density_beats(struct policy *pol, const struct block *a, const struct block *b)
{
	struct density *d = to_density(pol);
	uint32_t ra, rb;

	tick(d);
	ra = policy_rank(a, d->now);
	rb = policy_rank(b, d->now);
	if (ra != rb)
		return ra > rb;
	return hazard_index(d->hz, a->tag, a->last_use) > hazard_index(d->hz, b->tag, b->last_use);
}

/* ------------------------------------------------------------ come and go */

static struct policy *density_create(struct pool *p, struct gpool *gp)
{
	struct density *d = mem_zalloc(sizeof(*d));

	if (!d)
		return NULL;
	d->pol = (struct policy){ .ops = &policy_density, .pool = p, .gp = gp };
	d->blk = p->blk;
	d->now = p->now;
	if (regions_init(&d->idle, p->blk, gp->max_slots))
		goto err_free;
	d->hz = hazard_create(d->now);
	if (!d->hz)
		goto err_idle;
	return &d->pol;

err_idle:
	regions_exit(&d->idle);
err_free:
	mem_free(d);
	return NULL;
}

static void density_destroy(struct policy *pol)
{
	struct density *d;

	if (!pol)
		return;
	d = to_density(pol);
	hazard_destroy(d->hz);
	regions_exit(&d->idle);
	mem_free(d);
}

const struct policy_ops policy_density = {
	.name = "density",
	.help = "least expected hits per block and second first, learned from use (default)",
	.wants_ghosts = true,
	.create = density_create,
	.destroy = density_destroy,
	.request = density_request,
	.hit = density_hit,
	.ghost = density_ghost,
	.insert = density_insert,
	.busy = density_busy,
	.idle = density_idle,
	.advised = density_advised,
	.victim = density_victim,
	.aux = density_aux,
	.beats = density_beats,
};
