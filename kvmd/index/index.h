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
 * of a full group is sealed only under a sealed parent, and leaves HBM only
 * when it has no children there.
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

/* Drop a sealed block without leases and children; remembers why (enum kvmd_miss). */
void index_evict(struct index *ix, struct block *b, uint32_t why);
static inline bool index_can_evict(const struct block *b)
{
	return b->state == BLK_SEALED && !b->leases && !b->nr_kids;
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

/* One more lease of a sealed block of @gp. */
static inline void index_get(struct gpool *gp, struct block *b)
{
	if (!b->leases++)
		gpool_busy(gp, b);
}

#endif
