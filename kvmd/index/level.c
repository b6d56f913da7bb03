/* SPDX-License-Identifier: Apache-2.0 */
/*
 * level.c - where a cached block is, and its way down and up.
 *
 *   idle in HBM -> out -> idle in RAM -> ram_out -> idle on disk
 *        ^          |          |            |            |
 *        +- revive -+          |  <-revive--+            |
 *        +------------- LOADING <-------------------------
 *
 * Only metadata: bytes are moved by the tier room, which calls these when they
 * are where they should be. Every change of level moves the block from one of
 * its parent's three counts to another.
 */
#include "kvmd/index/index.h"

#include "kvmd/lib/stats.h"

/* ------------------------------------------------------------------ counts */

static uint32_t *kids_at(struct block *parent, enum blk_level l)
{
	switch (l) {
	case LEVEL_HBM:
		return &parent->nr_kids;
	case LEVEL_RAM:
		return &parent->nr_kids_ram;
	case LEVEL_DISK:
		return &parent->nr_kids_disk;
	default:
		return NULL;
	}
}

static void count(struct index *ix, const struct block *b, enum blk_level l, int by)
{
	uint32_t *n = b->parent ? kids_at(pool_block(ix->pool, b->parent), l) : NULL;

	if (n)
		*n += (uint32_t)by;
}

void index_relevel(struct index *ix, struct block *b, enum blk_level from)
{
	enum blk_level to = block_level(b);

	if (from == to)
		return;
	count(ix, b, from, -1);
	count(ix, b, to, 1);
}

void index_unparent(struct index *ix, struct block *b)
{
	struct block *up = pool_block(ix->pool, b->parent);

	if (!b->parent)
		return;
	count(ix, b, block_level(b), -1);
	b->parent = 0;
	if (unlikely(block_is_lost(up)))
		index_lost_put(ix, up);
}

/* -------------------------------------------------------------- idle, busy */

/* Near the end that goes first: advised so, or of low priority. */
static bool goes_first(const struct index *ix, const struct block *b)
{
	bool prio = b->prio < KVMD_PRIO_DEFAULT &&
		    !((b->flags & BLK_F_PRIO) && (int32_t)(ix->pool->now - b->until) >= 0);

	return (b->flags & BLK_F_COLD) || prio;
}

static void low_add(struct index *ix, struct block *b)
{
	struct blklist *l = &ix->low[block_level(b)];

	b->flags |= BLK_F_IDLE;
	if (goes_first(ix, b))
		blklist_add_head(ix->pool->blk, l, b);
	else
		blklist_add_tail(ix->pool->blk, l, b);
}

void index_idle(struct index *ix, struct gpool *gp, struct block *b)
{
	if (likely(b->slot)) {
		gpool_idle(ix->pool, gp, b);
		return;
	}
	b->last_use = ix->pool->now;
	low_add(ix, b);
}

void index_busy(struct index *ix, struct gpool *gp, struct block *b)
{
	if (likely(b->slot)) {
		gpool_busy(gp, b);
		return;
	}
	b->flags &= (uint8_t)~BLK_F_IDLE;
	blklist_del(ix->pool->blk, &ix->low[block_level(b)], b);
}

/* ---------------------------------------------------------------- the way out */

void index_out(struct index *ix, struct gpool *gp, struct block *b)
{
	enum blk_level from = block_level(b);
	struct blklist *q = b->slot ? &gp->out : &ix->ram_out;

	index_busy(ix, gp, b);
	block_set_state(b, BLK_EVICTING);
	index_relevel(ix, b, from);
	blklist_add_tail(ix->pool->blk, q, b);
	if (b->slot && !gp->out_next)
		gp->out_next = pool_id(ix->pool, b);
}

static void leave_queue(struct index *ix, struct gpool *gp, struct block *b)
{
	if (b->slot && gp->out_next == pool_id(ix->pool, b))
		gp->out_next = b->next;
	blklist_del(ix->pool->blk, b->slot ? &gp->out : &ix->ram_out, b);
}

void index_revive(struct index *ix, struct gpool *gp, struct block *b)
{
	enum blk_level from = block_level(b);

	leave_queue(ix, gp, b);
	block_set_state(b, BLK_SEALED);
	index_relevel(ix, b, from);
}

void index_sink(struct index *ix, struct gpool *gp, struct block *b)
{
	enum blk_level from = block_level(b);

	BUG_ON(b->state != BLK_EVICTING || pool_is_moving(ix->pool, b));
	leave_queue(ix, gp, b);
	if (b->slot)
		pool_slot_put(ix->pool, b);
	else
		b->ram = 0;
	BUG_ON(!block_may_sink(b, b->ram ? LEVEL_RAM : LEVEL_DISK) || !(b->ram | b->disk));
	block_set_state(b, BLK_SEALED);
	index_relevel(ix, b, from);
	low_add(ix, b);
}

/* ----------------------------------------------------------------- the way up */

void index_load(struct index *ix, struct gpool *gp, struct block *b)
{
	enum blk_level from = block_level(b);

	if (b->flags & BLK_F_IDLE)
		index_busy(ix, gp, b);
	/* First: who finds it SEALED with a slot after a crash believes the bytes there. */
	block_set_state(b, BLK_LOADING);
	pool_slot_get(ix->pool, gp, b);
	index_relevel(ix, b, from);
}

void index_loaded(struct index *ix, struct gpool *gp, struct block *b)
{
	block_set_state(b, BLK_SEALED);
	if (!b->leases)
		gpool_idle(ix->pool, gp, b);
}

void index_load_failed(struct index *ix, struct gpool *gp, struct block *b)
{
	pool_slot_put(ix->pool, b);
	if (!(b->ram | b->disk)) {
		count(ix, b, LEVEL_HBM, -1);
		index_lost(ix, b);
		return;
	}
	block_set_state(b, BLK_SEALED);
	index_relevel(ix, b, LEVEL_HBM);
	if (!b->leases)
		index_idle(ix, gp, b);
}

/* --------------------------------------------------------------------- losses */

void index_place_gone(struct index *ix, struct block *b, enum blk_level from)
{
	bool idle = b->flags & BLK_F_IDLE;

	if (b->slot || from == block_level(b))
		return;			/* it is still where it was counted */
	if (b->state == BLK_EVICTING) {
		/* It was leaving RAM, and RAM or the disk lost it. */
		blklist_del(ix->pool->blk, &ix->ram_out, b);
		block_set_state(b, BLK_SEALED);
	} else if (idle) {
		b->flags &= (uint8_t)~BLK_F_IDLE;
		blklist_del(ix->pool->blk, &ix->low[from], b);
	}
	if (!(b->ram | b->disk)) {
		count(ix, b, from, -1);
		index_lost(ix, b);
		return;
	}
	index_relevel(ix, b, from);
	if (!b->leases)
		low_add(ix, b);
}

/* The parent does not count it any more, though it still names it. */
void index_lost(struct index *ix, struct block *b)
{
	struct pool *p = ix->pool;
	struct gpool *gp = pool_gpool(p, b);
	struct block *up = pool_block(p, b->parent);	/* record 0 is free */

	index_table_del(ix, index_hash(ix, b->sid, b->group, b->key), pool_id(p, b));
	p->sid[b->sid].nr_sealed--;
	gp->sp->nr_stale -= b->sid != gp->sp->sid;
	b->parent = 0;
	if (unlikely(b->slot))
		b->flags = BLK_F_LOST;
	block_set_state(b, BLK_QUARANTINE);
	ix->nr_lost++;
	index_lost_put(ix, b);
	if (block_is_lost(up))
		index_lost_put(ix, up);
}

/* Off its lists and out of the tiers below; HBM does not count it any more. */
static void leave_all(struct index *ix, struct gpool *gp, struct block *b)
{
	if (b->state == BLK_EVICTING)
		index_revive(ix, gp, b);
	if (b->flags & BLK_F_IDLE)
		index_busy(ix, gp, b);
	if (b->ram | b->disk)
		ix->pool->lower->drop(ix->pool, b, false);
	count(ix, b, LEVEL_HBM, -1);
}

void index_lose(struct index *ix, struct gpool *gp, struct block *b)
{
	leave_all(ix, gp, b);
	pool_slot_put(ix->pool, b);
	index_lost(ix, b);
}

void index_poisoned(struct index *ix, struct gpool *gp, struct block *b)
{
	bool cached = b->state == BLK_SEALED || b->state == BLK_LOADING || b->state == BLK_EVICTING;

	pool_poison(ix->pool, b);
	if (!cached)
		return;			/* private, or lost already: BAD when it is freed */
	leave_all(ix, gp, b);
	index_lost(ix, b);
}

void index_lost_put(struct index *ix, struct block *b)
{
	if (b->leases || !block_may_sink(b, LEVEL_NONE) || pool_is_moving(ix->pool, b))
		return;
	ix->nr_lost--;
	pool_free(ix->pool, b);
}

/* ------------------------------------------------------- publish and recovery */

void index_refill(struct index *ix, struct gpool *gp, struct block *there, struct block *b,
		  uint32_t parent)
{
	struct pool *p = ix->pool;
	enum blk_level from;

	if (there->state == BLK_EVICTING)
		index_revive(ix, gp, there);
	if (there->flags & BLK_F_IDLE)
		index_busy(ix, gp, there);
	from = block_level(there);
	if (there->parent != parent) {
		struct block *up = pool_block(p, there->parent);
		bool had = there->parent != 0;

		count(ix, there, from, -1);
		there->parent = parent;
		count(ix, there, from, 1);
		if (had && block_is_lost(up))
			index_lost_put(ix, up);
	}
	there->slot = b->slot;
	gp->slot_owner[b->slot] = pool_id(p, there);
	there->flags &= (uint8_t)~BLK_F_TTL;
	index_relevel(ix, there, from);
	there->leases++;
	b->slot = 0;
	pool_free(p, b);
}

uint32_t index_adopt(struct index *ix, struct gpool *gp, const void *key, uint64_t hash,
		     uint32_t parent, uint32_t pos, uint32_t disk)
{
	struct pool *p = ix->pool;
	uint32_t id = pool_record_get(p, gp), i = (uint32_t)hash & ix->mask;
	struct block *b = pool_block(p, id);

	if (!id)
		return 0;
	memcpy(b->key, key, KVMD_KEY_BYTES);
	b->parent = parent;
	b->pos = pos;
	b->disk = disk;
	b->uses = 1;
	b->last_use = p->now;
	block_set_state(b, BLK_SEALED);
	while (ix->tab[i].id)
		i = (i + 1) & ix->mask;
	ix->tab[i] = (struct index_entry) { .hash = (uint32_t)hash, .id = id };
	ix->nr++;
	p->sid[b->sid].nr_sealed++;
	count(ix, b, LEVEL_DISK, 1);
	low_add(ix, b);
	return id;
}
