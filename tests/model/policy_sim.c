// SPDX-License-Identifier: Apache-2.0
/*
 * policy_sim.c - a policy alone, under a replayed trace.
 */
#include "policy_sim.h"

#include "kvmd/index/ghost.h"
#include "kvmd/lib/clock.h"
#include "kvmd/lib/hash.h"
#include "kvmd/lib/mem.h"
#include "kvmd/pool/pool.h"
#include "kvmd/reclaim/policy.h"

#define TICK_NS	(1000000000U / POLICY_TICKS_PER_S)

struct policy_sim {
	struct policy_sim_opts o;
	struct pool *pool;
	struct gpool gp;
	const struct policy_ops *ops;
	struct policy *pol;
	struct ghosts *ghosts;
	uint32_t *at;			/* [nr_ids] block that holds it, 0: none */
	uint32_t *id;			/* [nr_slots + 2] the other way round */
	uint32_t *free;
	uint32_t nr_free;
	uint32_t nr_idle;
	struct policy_sim_stats stats;
};

int policy_sim_create(const struct policy_sim_opts *o, struct policy_sim **ret_s)
{
	struct policy_sim *s;
	uint32_t i;

	if (!policy_find(o->policy))
		return -EINVAL;
	s = mem_zalloc(sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->o = *o;
	s->pool = mem_zalloc(sizeof(*s->pool));
	s->at = mem_calloc(o->nr_ids, sizeof(*s->at));
	/* One record more than slots: it stands for a block that is refused. */
	s->id = mem_calloc(o->nr_slots + 2, sizeof(*s->id));
	s->free = mem_calloc(o->nr_slots + 1, sizeof(*s->free));
	if (!s->pool || !s->at || !s->id || !s->free)
		goto err;
	s->pool->blk = mem_calloc(o->nr_slots + 2, sizeof(struct block));
	if (!s->pool->blk || ghosts_create(o->nr_ghosts, &s->ghosts))
		goto err;
	s->pool->nr_blocks = o->nr_slots + 1;
	s->gp.max_slots = o->nr_slots + 1;
	s->gp.nr_slots = o->nr_slots;
	s->gp.geo.block_tokens = o->block_tokens;
	for (i = o->nr_slots; i; i--)
		s->free[s->nr_free++] = i;
	clock_policy_drive(o->start_ns);
	s->pool->now = (uint32_t)(clock_policy_ns() / TICK_NS);
	s->ops = policy_find(o->policy);
	s->pol = s->ops->create(s->pool, &s->gp);
	if (!s->pol)
		goto err;
	*ret_s = s;
	return 0;

err:
	policy_sim_destroy(s);
	return -ENOMEM;
}

void policy_sim_destroy(struct policy_sim *s)
{
	if (!s)
		return;
	if (s->pol)
		s->ops->destroy(s->pol);
	ghosts_destroy(s->ghosts);
	if (s->pool)
		mem_free(s->pool->blk);
	mem_free(s->pool);
	mem_free(s->free);
	mem_free(s->id);
	mem_free(s->at);
	mem_free(s);
}

/* As if the key were a hash of the id. */
static uint64_t hash_of_id(uint32_t id)
{
	return hash_fold(id + 0x9e3779b97f4a7c15ULL, 0xbf58476d1ce4e5b9ULL);
}

static struct block *block_of(struct policy_sim *s, uint32_t id)
{
	return s->at[id] ? &s->pool->blk[s->at[id]] : NULL;
}

static void remember(struct policy_sim *s, const struct block *b)
{
	uint32_t n = (uint32_t)(b - s->pool->blk);
	struct ghost *g = ghosts_add(s->ghosts, hash_of_id(s->id[n]));

	if (!g)
		return;
	g->when = b->last_use;
	g->why = KVMD_MISS_EVICTED;
	g->uses = b->uses;
	g->tag = b->tag;
	g->aux = s->ops->aux(s->pol, b);
}

static void make_idle(struct policy_sim *s, struct block *b)
{
	b->flags |= BLK_F_IDLE;
	b->leases = 0;
	b->last_use = s->pool->now;
	s->nr_idle++;
	s->ops->idle(s->pol, b);
}

static void make_busy(struct policy_sim *s, struct block *b)
{
	b->flags &= (uint8_t)~BLK_F_IDLE;
	s->nr_idle--;
	s->ops->busy(s->pol, b);
}

static void evict(struct policy_sim *s, struct block *b)
{
	uint32_t n = (uint32_t)(b - s->pool->blk);

	BUG_ON(!(b->flags & BLK_F_IDLE) || b->nr_kids || b->leases);
	remember(s, b);
	make_busy(s, b);
	if (b->parent)
		s->pool->blk[b->parent].nr_kids--;
	s->at[s->id[n]] = 0;
	s->free[s->nr_free++] = n;
	b->state = BLK_FREE;
	s->stats.nr_evicted++;
}

/* A fresh record @n for @id, leased, after @parent at position @pos. */
static struct block *fill(struct policy_sim *s, uint32_t n, uint32_t id, uint32_t parent,
			  uint32_t pos, const struct policy_req *r)
{
	struct block *b = &s->pool->blk[n];
	uint64_t hash = hash_of_id(id);

	*b = (struct block){
		.state = BLK_SEALED, .leases = 1, .slot = n, .parent = parent, .pos = pos,
		.prio = KVMD_PRIO_DEFAULT,
	};
	s->id[n] = id;
	s->ops->insert(s->pol, b, ghosts_find(s->ghosts, hash), r->tag_new, r->aux);
	ghosts_del(s->ghosts, hash);
	return b;
}

/* Room for one more. False: everything is busy, or not worth less than @b. */
static bool make_room(struct policy_sim *s, const struct block *b)
{
	struct block *v;

	if (s->nr_free)
		return true;
	v = s->ops->victim(s->pol);
	if (!v)
		BUG_ON(s->nr_idle);
	if (!v || (b && !s->ops->beats(s->pol, b, v)))
		return false;
	evict(s, v);
	return true;
}

static uint32_t insert_rest(struct policy_sim *s, const uint32_t *ids, uint32_t from, uint32_t nr,
			    const struct policy_req *r)
{
	uint32_t parent = from ? s->at[ids[from - 1]] : 0;
	struct block *b;
	uint32_t i, n;

	for (i = from; i < nr; i++) {
		if (s->o.may_refuse) {
			/* Its class must be known before it can be weighed. */
			b = fill(s, s->o.nr_slots + 1, ids[i], parent, i, r);
			b->last_use = s->pool->now;
			if (!make_room(s, b))
				break;
			n = s->free[--s->nr_free];
			s->pool->blk[n] = *b;
			s->pool->blk[n].slot = n;
			s->id[n] = ids[i];
		} else {
			if (!make_room(s, NULL))
				break;
			n = s->free[--s->nr_free];
			fill(s, n, ids[i], parent, i, r);
		}
		if (parent)
			s->pool->blk[parent].nr_kids++;
		s->at[ids[i]] = parent = n;
	}
	return i;
}

/*
 * Blocks that were refused are remembered all the same. They pass through the
 * record that is in no slot: inserted, idle, gone. The first is there already.
 */
static void remember_refused(struct policy_sim *s, const uint32_t *ids, uint32_t from, uint32_t nr,
			     const struct policy_req *r)
{
	struct block *b;
	uint32_t i;

	for (i = from; i < nr; i++) {
		b = &s->pool->blk[s->o.nr_slots + 1];
		if (i > from)
			fill(s, s->o.nr_slots + 1, ids[i], 0, i, r);
		b->parent = 0;
		make_idle(s, b);
		remember(s, b);
		make_busy(s, b);
		s->stats.nr_refused++;
	}
}

static void ask(struct policy_sim *s, const uint32_t *ids, uint32_t nr, struct policy_req *r)
{
	const struct block *b;
	const struct ghost *g;

	while (r->nr_hit < nr && s->at[ids[r->nr_hit]])
		r->nr_hit++;
	r->nr_seen = r->nr_hit;
	if (r->nr_hit) {
		b = block_of(s, ids[r->nr_hit - 1]);
		r->seen_age = s->pool->now - b->last_use;
		r->seen_uses = b->uses;
		r->seen_aux = s->ops->aux(s->pol, b);
	}
	while (s->ops->wants_ghosts && r->nr_seen < nr) {
		g = ghosts_find(s->ghosts, hash_of_id(ids[r->nr_seen]));
		if (!g)
			break;
		r->nr_seen++;
		r->seen_age = s->pool->now - g->when;
		r->seen_uses = g->uses;
		r->seen_aux = g->aux;
	}
	s->ops->request(s->pol, r);
}

uint32_t policy_sim_request(struct policy_sim *s, const uint32_t *ids, uint32_t nr,
			    uint32_t tokens, uint32_t hints, uint64_t now_ns)
{
	struct policy_req r = { .nr_keys = nr, .tokens = tokens, .hints = hints };
	uint32_t i, end;
	struct block *b;
	struct ghost *g;

	clock_policy_drive(now_ns);
	s->pool->now = (uint32_t)(clock_policy_ns() / TICK_NS);
	ask(s, ids, nr, &r);
	for (i = 0; i < r.nr_hit; i++) {
		b = block_of(s, ids[i]);
		make_busy(s, b);
		b->leases = 1;
		b->uses += b->uses != UINT8_MAX;
		s->ops->hit(s->pol, b, &r);
	}
	for (i = r.nr_hit; s->ops->wants_ghosts && i < nr; i++) {
		g = ghosts_find(s->ghosts, hash_of_id(ids[i]));
		if (g)
			s->ops->ghost(s->pol, g, &r);
	}
	end = insert_rest(s, ids, r.nr_hit, nr, &r);
	for (i = end; i-- > 0;)
		make_idle(s, block_of(s, ids[i]));
	if (s->o.may_refuse)
		remember_refused(s, ids, end, nr, &r);
	s->stats.nr_blocks += nr;
	s->stats.nr_hit += r.nr_hit;
	return r.nr_hit;
}

const struct policy_sim_stats *policy_sim_stats(const struct policy_sim *s)
{
	return &s->stats;
}

struct block *policy_sim_block(struct policy_sim *s, uint32_t id)
{
	return block_of(s, id);
}

struct policy *policy_sim_policy(struct policy_sim *s)
{
	return s->pol;
}
