/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool.h - records, slots, slabs, spaces, tenants: who owns which memory.
 *
 * A space is one KV geometry and one sharing domain; it belongs to one tenant.
 * Each of its groups has a gpool: a range of slot numbers, backed slab by slab
 * by device memory (one extent per plane and shard). Slot numbers of slab k are
 * [k * slab_slots, ...), the same on every shard, so one block table serves all
 * ranks. Slot 0 is the zeroed NULL block.
 *
 * Raising a space's epoch gives it a new sid; blocks of the old one can no
 * longer be found and are swept out in the background.
 *
 * Invariants, checked by pool_check():
 *   slots of an active slab = free + owned by exactly one record
 *   tenant's hbm_bytes = sum over its gpools of used slots * slot_bytes
 *   a slot of a record has that record as its slot_owner
 *   a record that is SEALED, EVICTING or OPEN may have left HBM (slot 0) when
 *   another tier has it (block.h)
 *   parent's nr_kids, nr_kids_ram, nr_kids_disk = records naming it, by level
 *   level(parent) >= level(child)
 *
 * Core thread only. No allocation after a space was made, except slabs, which
 * workers create.
 */
#ifndef KVMD_POOL_POOL_H
#define KVMD_POOL_POOL_H

#include "kvmd/dev/dev.h"
#include "kvmd/lib/hash.h"
#include "kvmd/lib/list.h"
#include "kvmd/pool/blklist.h"

#define POOL_MAX_SPACES		256
#define POOL_MAX_TENANTS	64
#define POOL_MAX_DEVS		8
#define POOL_MAX_SLABS		4096
#define POOL_MAX_CONNS		256	/* client processes */
#define POOL_MAX_SIDS		4096	/* live (space, epoch) pairs */
#define POOL_MAX_UIDS		16	/* per tenant */

struct policy;
struct policy_ops;
struct pool;
struct space;

/* Limits in bytes of HBM; memcg's words. 0 for high and max: no limit. */
struct tenant {
	char name[KVMD_NAME_BYTES];
	uint32_t id;
	uint32_t uid[POOL_MAX_UIDS];	/* who may name it; besides root and the daemon's own */
	uint32_t nr_uids;
	uint64_t hbm_min;		/* kept for it, hard */
	uint64_t hbm_low;		/* kept while others have slack */
	uint64_t hbm_high;		/* over it: own blocks first, throttled */
	uint64_t hbm_max;		/* never over it */
	uint64_t ram_max, disk_max;	/* blocks over it are not stored there */
	uint32_t max_sessions;
	uint32_t max_seqs;		/* over all its sessions */
	uint64_t max_ring_bytes;	/* rings, args and tables of all its sessions */
	uint64_t pin_bytes;		/* budget */

	uint64_t hbm_bytes;		/* charged: slots in use */
	uint64_t ram_bytes, disk_bytes;	/* charged: places in use, payload bytes */
	uint64_t pinned_bytes;
	uint64_t ring_bytes;
	uint32_t nr_sessions;
	uint32_t nr_seqs;		/* granted at hello */
	uint64_t events_low, events_high, events_max;	/* counted */
};

enum slab_state {
	SLAB_NONE,		/* record unused */
	SLAB_CREATING,		/* a worker makes the extents */
	SLAB_ANNOUNCED,		/* sessions are mapping it */
	SLAB_ACTIVE,
	SLAB_DRAINING,		/* no new blocks; blocks are being evicted */
	SLAB_UNMAPPING,		/* sessions are unmapping it */
	SLAB_WAIT_TENANT,	/* cross-tenant: waits for the old processes' end */
	SLAB_SCRUBBING,		/* a worker zeroes it */
	SLAB_DESTROYING,	/* a worker gives it back */
	NR_SLAB_STATE
};
const char *slab_state_name(unsigned state);

struct slab {
	uint32_t id, gen;		/* gen grows at every reuse of the id */
	uint32_t state;			/* enum slab_state */
	struct gpool *gp;
	uint32_t first, nr;		/* slots, slot 0 included in slab 0 */
	uint32_t nr_free;		/* on the slab's part of gp->free_slot */
	struct list avail;		/* on gp->avail while ACTIVE with free slots */
	struct dev_extent *ext;		/* [shard * planes + plane] */
	uint32_t nr_ext;
	uint64_t extent_bytes;
	uint64_t mapped[POOL_MAX_CONNS / 64]; /* connections that were sent it and hold it */
	uint64_t unacked[POOL_MAX_CONNS / 64]; /* of those: owe an answer */
	uint64_t late[POOL_MAX_CONNS / 64]; /* of those: held back until they answer */
	uint64_t ever[POOL_MAX_CONNS / 64]; /* processes that had it and may still live */
	bool tainted;			/* a process had it that is no longer watched */
	uint64_t deadline_ns;		/* of the answers, 0: none */
	struct gpool *taker;		/* who gets its memory; NULL: back to the device */
	uint32_t scan;			/* reclaim's cursor while DRAINING */
	struct work work;
	int work_err;
};

/* One group of one space. */
struct gpool {
	struct space *sp;
	uint32_t idx;			/* group number */
	struct kvmd_group geo;
	uint64_t slot_bytes;		/* over all planes and shards */
	uint64_t coded_bytes;		/* of a block below HBM when coded; 0: it never is */
	double codec_error;		/* largest |error| of a value that a codec made so far */
	uint32_t max_slots;		/* slot numbers, slot 0 included */
	uint32_t slab_slots;		/* of a full slab */
	uint32_t max_slabs;
	struct slab **slab;		/* [max_slabs] by slot / slab_slots; NULL: none */
	uint32_t *slot_owner;		/* [max_slots] record, 0: none */
	uint32_t *free_slot;		/* [max_slots] LIFO per slab, in the slab's range */
	struct list avail;		/* slabs with free slots */
	uint32_t nr_slots;		/* in active slabs, without slot 0 */
	uint32_t nr_free;
	uint32_t nr_idle;		/* sealed without leases: what reclaim can have */
	uint32_t nr_coming;		/* slots in CREATING and ANNOUNCED slabs */
	uint32_t wmark_min, wmark_low, wmark_high;	/* free slots */
	struct policy *policy;
	struct blklist out;		/* EVICTING with a slot, next to go first */
	uint32_t out_next;		/* first on it whose copy down has not begun, 0: none */
	struct list waiters;		/* waiting allocations, reclaim/ owns it */
	uint32_t nr_waiters;
	bool growth_failed;		/* last slab creation failed: until something is freed, */
	uint64_t growth_retry_ns;	/* or until then, CLOCK_MONOTONIC */
	bool reclaiming;		/* background reclaim runs until wmark_high */
};

struct space {
	char name[KVMD_NAME_BYTES];
	uint32_t id;
	uint16_t sid;			/* of its present epoch */
	uint64_t epoch;
	struct tenant *tenant;
	uint8_t salt_digest[16];
	uint32_t nr_groups, nr_shards;
	struct gpool gp[KVMD_MAX_GROUPS];
	struct dev *dev[KVMD_MAX_SHARDS];
	uint32_t nr_sessions;		/* that have it open */
	uint32_t nr_stale;		/* blocks of former epochs still resident */
	bool in_use;
	bool hold;			/* no block leaves HBM: clients of a former daemon may read it */
};

struct sid_info {
	struct space *sp;		/* NULL: free sid */
	uint64_t epoch;
	uint32_t nr_records;		/* records of it that are not FREE */
	uint32_t nr_sealed;		/* of those SEALED */
};

/* Deferred releases and tickets: 12 block ids a node, from one fixed pool. */
#define NODE_IDS	12
struct node {
	uint32_t next;			/* node, 0: end */
	uint32_t nr;
	uint64_t when;			/* step or completion index, see user */
	uint32_t id[NODE_IDS];
};
BUILD_BUG_ON(sizeof(struct node) != 64);

/* What a room above wants to hear (the session room announces slabs). */
struct pool_events {
	void (*slab_ready)(struct pool *p, struct slab *s);	/* created: announce it */
	void (*slab_unmap)(struct pool *p, struct slab *s);	/* drained: have it unmapped */
	void (*slab_failed)(struct pool *p, struct gpool *gp, int err);
	/* For who keeps a record of it outside the process; NULL: nobody. */
	void (*slab_changed)(struct pool *p, struct slab *s);	/* before its memory goes */
	void (*space_changed)(struct pool *p, struct space *sp); /* made, or its epoch raised */
};

/* What tiers below HBM do for the pool. */
struct pool_lower {
	/* Give b->ram and b->disk back (@for_good: a restart must not bring it back). */
	void (*drop)(struct pool *p, struct block *b, bool for_good);
};

struct pool_opts {
	uint32_t nr_blocks;		/* records */
	int kept_fd;			/* block array of a former daemon; 0: make one (restore.h) */
	uint32_t nr_nodes;
	uint64_t slab_bytes;		/* aim for one slab over all planes and shards */
	uint32_t wmark_min, wmark_low, wmark_high;	/* permille of a gpool's slots */
	bool populate;			/* touch all metadata at once (tests, benchmarks) */
	bool hugetlb;
	struct dev *dev;		/* devices, opened; outlive the pool; NULL: pool->own_dev */
	uint32_t nr_devs;
};

struct pool {
	struct block *blk;		/* [nr_blocks + 1] */
	int blk_fd;			/* memfd of the array */
	uint32_t nr_blocks;
	uint32_t free_head;		/* records given back, by block.next */
	uint32_t next_fresh;		/* records never used yet start here */
	uint32_t noted_fresh;		/* what the array's head says of it, at least that */
	uint32_t nr_free_blk;
	struct node *node;		/* [nr_nodes + 1] */
	uint32_t node_head, nr_nodes, nr_free_nodes;
	struct sid_info sid[POOL_MAX_SIDS];
	uint32_t last_sid;		/* given out last */
	struct space space[POOL_MAX_SPACES];
	uint32_t space_end;		/* records from here on were never used */
	struct tenant tenant[POOL_MAX_TENANTS];
	uint32_t nr_tenants;
	struct dev *dev;		/* [nr_devs]: the caller's, or own_dev */
	struct dev own_dev[POOL_MAX_DEVS];
	uint32_t nr_devs;
	struct slab slab[POOL_MAX_SLABS];
	uint32_t slab_end;		/* records from here on were never used */
	uint32_t nr_draining;		/* slabs DRAINING or WAIT_TENANT */
	struct pool_opts opts;
	struct workers *workers;	/* not owned */
	const struct pool_events *events;
	const struct pool_lower *lower;	/* NULL: no tiers below */
	void *lower_ctx;
	uint64_t *moving;		/* bit per record: bytes of it are being copied (pool_is_moving()) */
	uint64_t *poisoned;		/* bit per record: its slot is broken (pool_poison()) */
	void *events_ctx;		/* the listener's own */
	uint64_t metadata_bytes;	/* block array and per-slot arrays, as allocated */
	uint32_t now;			/* policy clock in 1/16 s, set once per turn */
};

/* ------------------------------------------------------------- pool.c */

int pool_create(const struct pool_opts *o, struct workers *w, struct pool **ret_p);
void pool_destroy(struct pool *p);
/* Touch the whole block array; any thread, while the core thread uses it. */
void pool_populate(struct pool *p);
/* Walks everything and compares; 0, or -EUCLEAN with what is wrong in @msg. */
int pool_check(const struct pool *p, char *msg, size_t msg_bytes);

static inline struct block *pool_block(const struct pool *p, uint32_t id)
{
	return &p->blk[id];
}

static inline uint32_t pool_id(const struct pool *p, const struct block *b)
{
	return (uint32_t)(b - p->blk);
}

static inline struct gpool *pool_gpool(const struct pool *p, const struct block *b)
{
	return &p->sid[b->sid].sp->gp[b->group];
}

static inline struct slab *gpool_slab(const struct gpool *gp, uint32_t slot)
{
	return gp->slab[slot / gp->slab_slots];
}

/* Policy calls with the gpool's account of idle blocks kept. */
void gpool_idle(struct pool *p, struct gpool *gp, struct block *b);	/* last lease ended */
void gpool_busy(struct gpool *gp, struct block *b);	/* leased again, or leaves */

/*
 * @nr private blocks (OPEN, one lease, owner) of @gp into @ret_ids; all or
 * nothing. Charges the tenant. -EAGAIN: not that many free slots above
 * @reserve; -ENOSPC: no records; never waits, evicts nothing.
 */
int pool_alloc(struct pool *p, struct gpool *gp, uint32_t nr, uint32_t owner, uint32_t reserve,
	       uint32_t *ret_ids);
/* Give a record and all its places back: the caller made sure that nobody can reach it. */
void pool_free(struct pool *p, struct block *b);
/* A free slot of @gp (there is one) for @b, a record of it without; charged. */
void pool_slot_get(struct pool *p, struct gpool *gp, struct block *b);
/* @b's slot is free again; what is left of it is below. */
void pool_slot_put(struct pool *p, struct block *b);
/* A record of @gp without a slot, still FREE, zeroed but for its identity's sid and group; 0: none. */
uint32_t pool_record_get(struct pool *p, struct gpool *gp);
/* It was not used after all. */
void pool_record_put(struct pool *p, struct block *b);

/*
 * While bytes of a record are on the way to or from another tier it is moving:
 * none of its places is freed, it is not freed, and no second move begins.
 */
static inline bool pool_is_moving(const struct pool *p, const struct block *b)
{
	uint32_t id = pool_id(p, b);

	return p->moving[id / 64] >> (id % 64) & 1;
}
static inline void pool_set_moving(struct pool *p, const struct block *b, bool on)
{
	uint32_t id = pool_id(p, b);

	BUG_ON(pool_is_moving(p, b) == on);
	p->moving[id / 64] ^= 1ull << (id % 64);
}
/*
 * The device reports that the memory of @b's slot is broken. Whoever holds the
 * block goes on holding it; when it is freed it becomes BAD, with its slot.
 */
void pool_poison(struct pool *p, const struct block *b);
/* Never use this slot again (device error); the record stays as BAD. */
void pool_mark_bad(struct pool *p, struct block *b);

/* --------------------------------------------------------------- node.c */

uint32_t node_alloc(struct pool *p);		/* 0: none left */
void node_free(struct pool *p, uint32_t n);	/* one node */

/* -------------------------------------------------------------- space.c */

struct space *space_find(struct pool *p, const char *name);
/*
 * Make a space; geometry was checked. max_slots 0 is filled in from the
 * devices' budget. -ENOSPC: too many spaces, -ENOMEM; text in @msg.
 */
int space_create(struct pool *p, const struct kvmd_space *m, struct tenant *t,
		 const struct policy_ops *pol, struct space **ret_sp,
		 char *msg, size_t msg_bytes);
void space_destroy(struct pool *p, struct space *sp);	/* no sessions, no blocks */
/* Pure check of a geometry: 0 or -EINVAL, the field named in @msg. */
int space_check_geometry(const struct kvmd_space *m, char *msg, size_t msg_bytes);
/* Is @m the geometry of @sp? 0 or -EINVAL naming the field that differs. */
int space_same_geometry(const struct space *sp, const struct kvmd_space *m,
			char *msg, size_t msg_bytes);
/* New sid for a new epoch (0: the next). -ENOSPC: sids used up, -EINVAL: not higher. */
int space_raise_epoch(struct pool *p, struct space *sp, uint64_t epoch);
/* The watermarks in pool->opts, in slots of @gp. */
void gpool_wmarks(const struct pool *p, struct gpool *gp);
struct tenant *tenant_find(struct pool *p, const char *name);
int tenant_add(struct pool *p, const char *name, struct tenant **ret_t);

/* --------------------------------------------------------------- slab.c */

/* Start one more slab for @gp when budget and slot range allow. 0, -ENOSPC (range), -ENOMEM. */
int slab_grow(struct pool *p, struct gpool *gp);
bool slab_can_grow(const struct pool *p, const struct gpool *gp);
/* All sessions have mapped @s (or are held back): use it. */
void slab_activate(struct pool *p, struct slab *s);
/* Take no more blocks from @s; memory goes to @taker or the device when empty. */
void slab_drain(struct pool *p, struct slab *s, struct gpool *taker);
void slab_undrain(struct pool *p, struct slab *s);
/* A block of a draining slab is gone, or an answer came: go on when possible. */
void slab_advance(struct pool *p, struct slab *s);
/* Blocks still in it. */
static inline uint32_t slab_nr_used(const struct slab *s)
{
	return s->nr - s->nr_free - (s->first == 0);
}
static inline bool slab_bit(const uint64_t *map, uint32_t conn)
{
	return map[conn / 64] >> (conn % 64) & 1;
}
static inline void slab_bit_set(uint64_t *map, uint32_t conn)
{
	map[conn / 64] |= 1ull << (conn % 64);
}
static inline void slab_bit_clear(uint64_t *map, uint32_t conn)
{
	map[conn / 64] &= ~(1ull << (conn % 64));
}
bool slab_bits_empty(const uint64_t *map);

#endif
