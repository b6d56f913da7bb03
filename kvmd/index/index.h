/* SPDX-License-Identifier: Apache-2.0 */
/*
 * index.h - the prefix index: 32-byte keys to blocks.
 *
 * Open addressing over {32 bits of hash, record id}, linear probing, load at
 * most 4/5, deletion by shifting back: a hit costs one line of the table and
 * the record. A hash only proposes; identity is (space and epoch = sid, group,
 * key), compared whole in the record.
 *
 * Sealing and evicting go through here, so that the table, the parent's count
 * of children, the policy and the ghosts always agree. Prefix-closed: a block
 * of a full group is sealed only under a sealed parent, and sinks to a lower
 * tier only when it has no children above that (block_may_sink()).
 *
 * Levels (level.c). Sealed blocks without leases are idle on the list of their
 * level: HBM's policy, low[LEVEL_RAM], low[LEVEL_DISK] (least recently used
 * first). To leave HBM a block goes to its gpool's `out' queue (EVICTING), to
 * leave RAM to ram_out; when its copy below is there it goes on to the list of
 * its new level. A hit on the way takes it back (index_revive()).
 */
#ifndef KVMD_INDEX_INDEX_H
#define KVMD_INDEX_INDEX_H

#include "kvmd/index/ghost.h"
#include "kvmd/pool/pool.h"

struct index_entry {
	uint32_t hash;		/* low half of the bucket hash */
	uint32_t id;		/* record, 0: empty */
};

struct index {
	struct pool *pool;
	struct hash_seed seed;
	struct index_entry *tab;
	uint32_t mask;
	uint32_t nr;		/* entries */
	struct ghosts *ghosts;
	bool kept;			/* sessions' tables are to outlive the process */
	struct blklist low[NR_LEVEL];	/* idle blocks of level RAM and disk */
	struct blklist ram_out;	/* EVICTING without a slot, next to go first */
	uint32_t nr_lost;	/* records that lost their bytes, kept for their children */
};

int index_create(struct pool *p, uint32_t nr_ghosts, struct index **ret_ix);
void index_destroy(struct index *ix);
uint64_t index_bytes(const struct index *ix);	/* of the table, without ghosts */

static inline uint64_t index_hash(const struct index *ix, uint16_t sid, uint8_t group,
				  const void *key)
{
	return hash_key32(&ix->seed, key, (uint64_t)sid << 8 | group);
}

static inline void index_prefetch(const struct index *ix, uint64_t hash)
{
	__builtin_prefetch(&ix->tab[(uint32_t)hash & ix->mask]);
}

/* Record id of the first entry whose hash fits, unproven; 0: none. For prefetching. */
static inline uint32_t index_candidate(const struct index *ix, uint64_t hash)
{
	uint32_t i = (uint32_t)hash & ix->mask;

	for (; ix->tab[i].id; i = (i + 1) & ix->mask)
		if (ix->tab[i].hash == (uint32_t)hash)
			return ix->tab[i].id;
	return 0;
}

static inline bool key_equal(const uint8_t *a, const uint8_t *b)
{
	uint64_t x[4], y[4];

	memcpy(x, a, sizeof(x));
	memcpy(y, b, sizeof(y));
	return !((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3]));
}

/* The block of that identity, whole key compared; NULL: none. */
static inline struct block *index_find(const struct index *ix, uint16_t sid, uint8_t group,
				       const void *key, uint64_t hash)
{
	uint32_t i = (uint32_t)hash & ix->mask;

	for (; ix->tab[i].id; i = (i + 1) & ix->mask) {
		struct block *b;

		if (ix->tab[i].hash != (uint32_t)hash)
			continue;
		b = pool_block(ix->pool, ix->tab[i].id);
		if (b->sid == sid && b->group == group && key_equal(b->key, key))
			return b;
	}
	return NULL;
}

/* May a new request take @b? One whose time to live is over is as good as gone. */
static inline bool index_hittable(const struct index *ix, const struct block *b)
{
	return b && !(unlikely(b->flags & BLK_F_TTL) && (int32_t)(ix->pool->now - b->until) >= 0);
}

/*
 * Seal @b of @gp (SEALING, its key set, one lease; @hash of its identity) behind
 * @parent (0: root) at chain position @pos. If the identity exists already
 * nothing changes and the existing block is returned; NULL: sealed.
 */
static inline struct block *index_enter(struct index *ix, struct gpool *gp, struct block *b,
					uint64_t hash, uint32_t parent, uint32_t pos)
{
	struct pool *p = ix->pool;
	uint32_t i = (uint32_t)hash & ix->mask;

	for (; ix->tab[i].id; i = (i + 1) & ix->mask) {
		struct block *there;

		if (ix->tab[i].hash != (uint32_t)hash)
			continue;
		there = pool_block(p, ix->tab[i].id);
		if (there->sid == b->sid && there->group == b->group &&
		    key_equal(there->key, b->key))
			return there;
	}
	ix->tab[i] = (struct index_entry) { .hash = (uint32_t)hash, .id = pool_id(p, b) };
	ix->nr++;
	b->parent = parent;
	b->pos = pos;
	block_set_state(b, BLK_SEALED);
	if (parent)
		pool_block(p, parent)->nr_kids++;
	p->sid[b->sid].nr_sealed++;
	gp->sp->nr_stale += b->sid != gp->sp->sid;
	return NULL;
}

/*
 * index_enter() for the blocks @ids: the first under @parent at @pos, each other
 * one under the one before it (@chained; else all at the root). Stops before the
 * first that is not SEALING or whose hash is there already, which says nothing
 * yet. Returns how many were sealed. All are of the space's present epoch.
 */
uint32_t index_enter_run(struct index *ix, const uint32_t *ids, uint32_t nr,
			 const uint64_t *hash, uint32_t parent, uint32_t pos, bool chained);
/* The rest of index_seal() for a block that was entered: policy and ghosts hear of it. */
void index_tell(struct index *ix, struct gpool *gp, struct block *b, uint64_t hash,
		uint8_t tag_new, uint8_t aux);
/* Both at once. */
struct block *index_seal(struct index *ix, struct gpool *gp, struct block *b, uint64_t hash,
			 uint32_t parent, uint32_t pos, uint8_t tag_new, uint8_t aux);

/* Drop a block without leases and children from all tiers; remembers why (enum kvmd_miss). */
void index_evict(struct index *ix, struct block *b, uint32_t why);
/* The same for a block that is on no list any more. */
void index_evict_busy(struct index *ix, struct block *b, uint32_t why);
static inline bool index_can_evict(const struct index *ix, const struct block *b)
{
	return (b->state == BLK_SEALED || b->state == BLK_EVICTING) && !b->leases &&
	       block_may_sink(b, LEVEL_NONE) && !pool_is_moving(ix->pool, b) &&
	       !(b->slot && ix->pool->sid[b->sid].sp->hold);
}

/* Why @key is not there, from the ghosts: enum kvmd_miss. */
uint32_t index_miss_reason(struct index *ix, const struct space *sp, uint8_t group,
			   const void *key);

/* Every sealed record is found under its key and nothing else is in the table. */
int index_check(const struct index *ix, char *msg, size_t msg_bytes);

/*
 * One lease of a block ends: a sealed one becomes idle with its last lease, a
 * private one (OPEN, SEALING, QUARANTINE) is freed.
 */
void index_put(struct index *ix, struct block *b);

/* Take @id out of the table (its identity ends). */
void index_table_del(struct index *ix, uint64_t hash, uint32_t id);

/* --------------------------------------------------------------- level.c */

/* @b counts as nobody's child any more. */
void index_unparent(struct index *ix, struct block *b);

/* @b's level was @from: its parent counts it anew. */
void index_relevel(struct index *ix, struct block *b, enum blk_level from);
/* Without leases any more: on the idle list of its level. */
void index_idle(struct index *ix, struct gpool *gp, struct block *b);
/* Leased or leaving: off it. */
void index_busy(struct index *ix, struct gpool *gp, struct block *b);
/* An idle leaf of HBM (of RAM) is chosen to go: to the end of the queue. */
void index_out(struct index *ix, struct gpool *gp, struct block *b);
/* A hit on a block that was leaving: SEALED again, on no list, not leased yet. */
void index_revive(struct index *ix, struct gpool *gp, struct block *b);
/*
 * The first of the queue leaves: slot freed (level RAM's: ram place freed through
 * pool->lower), idle on the list of its new level. It has a copy below and no
 * child above that.
 */
void index_sink(struct index *ix, struct gpool *gp, struct block *b);
/* A copy of @b in a lower tier went (ram or disk was cleared): level follows, NONE: lost. */
void index_place_gone(struct index *ix, struct block *b, enum blk_level from);
/* SEALED without a slot, idle or leased: takes a free slot of @gp, LOADING. */
void index_load(struct index *ix, struct gpool *gp, struct block *b);
/* Its bytes are there. */
void index_loaded(struct index *ix, struct gpool *gp, struct block *b);
/* They could not be loaded: slot back, SEALED at the level that is left, NONE: lost. */
void index_load_failed(struct index *ix, struct gpool *gp, struct block *b);
/*
 * A sealed or loading block has no bytes any more: its identity goes, the record
 * stays, QUARANTINE, until its leases and children are gone.
 */
void index_lost(struct index *ix, struct block *b);
/* An idle or leaving block of HBM goes although others hang from it below: it is lost to them. */
void index_lose(struct index *ix, struct gpool *gp, struct block *b);
/*
 * The device reports that the memory of the slot of @b is broken: a block that can be
 * hit is lost, the slot of any is BAD once nobody holds it.
 */
void index_poisoned(struct index *ix, struct gpool *gp, struct block *b);
static inline bool block_is_lost(const struct block *b)
{
	return b->state == BLK_QUARANTINE && !b->ram && (!b->slot || (b->flags & BLK_F_LOST));
}
/* A lost record that nobody holds and nothing hangs from is freed. */
void index_lost_put(struct index *ix, struct block *b);
/*
 * Publish met @there, its identity in a lower tier: it takes over the slot of @b
 * (SEALING; freed) and with it its place in the chain, behind @parent.
 */
void index_refill(struct index *ix, struct gpool *gp, struct block *there, struct block *b,
		  uint32_t parent);
/*
 * A block of level disk that recovery found, behind @parent (record, 0: root).
 * The record, 0: none is free. Its place is set by the caller before anything else.
 */
uint32_t index_adopt(struct index *ix, struct gpool *gp, const void *key, uint64_t hash,
		     uint32_t parent, uint32_t pos, uint32_t disk);

/* One more lease of a block that can be hit. */
static inline void index_get(struct index *ix, struct gpool *gp, struct block *b)
{
	if (unlikely(b->state == BLK_EVICTING))
		index_revive(ix, gp, b);
	if (!b->leases++ && (b->flags & BLK_F_IDLE))
		index_busy(ix, gp, b);
}

#endif
