// SPDX-License-Identifier: Apache-2.0
/*
 * policy_rig.c - one policy and a few blocks, moved by hand.
 */
#include "policy_rig.h"

#include <check.h>

#include "kvmd/lib/mem.h"
#include "kvmd/reclaim/policy.h"
#include "tests/quiet.h"

void rig_init(struct rig *r, const char *policy)
{
	*r = (struct rig){ 0 };
	r->pool = mem_zalloc(sizeof(*r->pool));
	ck_assert_ptr_nonnull(r->pool);
	r->pool->blk = mem_calloc(RIG_BLOCKS + 1, sizeof(struct block));
	ck_assert_ptr_nonnull(r->pool->blk);
	r->pool->nr_blocks = RIG_BLOCKS;
	r->pool->now = 16000;
	r->gp.max_slots = RIG_BLOCKS + 1;
	r->gp.nr_slots = RIG_BLOCKS;
	r->gp.geo.block_tokens = 16;
	ck_assert_ptr_nonnull(policy_find(policy));
	r->pol = policy_find(policy)->create(r->pool, &r->gp);
	ck_assert_ptr_nonnull(r->pol);
}

void rig_exit(struct rig *r)
{
	r->pol->ops->destroy(r->pol);
	mem_free(r->pool->blk);
	mem_free(r->pool);
}

void rig_clock(struct rig *r, uint32_t ticks)
{
	r->pool->now = ticks;
}

uint32_t rig_seal(struct rig *r, uint32_t parent)
{
	uint32_t id = ++r->nr;
	struct block *b = &r->pool->blk[id];

	quiet_assert_uint_le(id, RIG_BLOCKS);
	*b = (struct block){
		.state = BLK_SEALED, .leases = 1, .slot = id, .parent = parent,
		.prio = KVMD_PRIO_DEFAULT,
		.pos = parent ? r->pool->blk[parent].pos + 1 : 0,
	};
	if (parent)
		r->pool->blk[parent].nr_kids++;
	r->pol->ops->insert(r->pol, b, NULL, 0, 0);
	return id;
}

uint32_t rig_chain(struct rig *r, uint32_t nr)
{
	uint32_t first = rig_seal(r, 0), last = first;

	while (last - first + 1 < nr)
		last = rig_seal(r, last);
	for (; last >= first; last--)
		rig_idle(r, last);
	return first;
}

void rig_idle(struct rig *r, uint32_t id)
{
	struct block *b = &r->pool->blk[id];

	quiet_assert(!(b->flags & BLK_F_IDLE));
	b->leases = 0;
	b->last_use = r->pool->now;
	b->flags |= BLK_F_IDLE;
	r->pol->ops->idle(r->pol, b);
}

static void busy(struct rig *r, struct block *b)
{
	quiet_assert(b->flags & BLK_F_IDLE);
	b->flags &= (uint8_t)~BLK_F_IDLE;
	r->pol->ops->busy(r->pol, b);
}

void rig_hit(struct rig *r, uint32_t id)
{
	struct policy_req q = { .nr_keys = 1, .nr_hit = 1, .nr_seen = 1, .tokens = 16 };
	struct block *b = &r->pool->blk[id];

	r->pol->ops->request(r->pol, &q);
	busy(r, b);
	b->leases = 1;
	b->uses++;
	r->pol->ops->hit(r->pol, b, &q);
}

uint32_t rig_victim(struct rig *r)
{
	struct block *b = r->pol->ops->victim(r->pol);

	if (!b)
		return 0;
	quiet_assert(b->flags & BLK_F_IDLE);
	quiet_assert_uint_eq(b->nr_kids, 0);
	return pool_id(r->pool, b);
}

void rig_remove(struct rig *r, uint32_t id)
{
	struct block *b = &r->pool->blk[id];

	busy(r, b);
	if (b->parent)
		r->pool->blk[b->parent].nr_kids--;
	b->state = BLK_FREE;
}

uint32_t rig_evict(struct rig *r)
{
	uint32_t id = rig_victim(r);

	if (id)
		rig_remove(r, id);
	return id;
}

static void advised(struct rig *r, struct block *b)
{
	if (b->flags & BLK_F_IDLE)
		r->pol->ops->advised(r->pol, b);
}

void rig_cold(struct rig *r, uint32_t id)
{
	struct block *b = &r->pool->blk[id];

	b->flags |= BLK_F_COLD;
	advised(r, b);
}

void rig_prio(struct rig *r, uint32_t id, uint8_t prio, uint32_t until)
{
	struct block *b = &r->pool->blk[id];

	b->prio = prio;
	b->until = until;
	if (until)
		b->flags |= BLK_F_PRIO;
	advised(r, b);
}

void rig_ttl(struct rig *r, uint32_t id, uint32_t until)
{
	struct block *b = &r->pool->blk[id];

	b->until = until;
	b->flags |= BLK_F_TTL;
	advised(r, b);
}
