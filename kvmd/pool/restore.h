/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restore.h - the pool of a former daemon, rebuilt from its block array.
 *
 * The array outlives the process in its memfd; nothing in it is believed before
 * it was looked at: it may have been left in the middle of a store, or damaged.
 * Order of a restore:
 *
 *   pool_array_check()      is it an array of this version
 *   space_restore(), slab_restore() for what was kept beside it
 *   pool_restore_scan()     every record: state, slot, places; counts
 *   (index/restore.h)       table, chains, sequences, idle lists
 *   pool_restore_finish()   free slots
 *
 * The scan may be cut off at any point and begun again by another process: it
 * never frees a slot that was in use. A slot whose block could not be kept is
 * held instead, by a record in QUARANTINE, until nobody can be reading it any
 * more (pool_restore_release()).
 *
 * Core thread, before anything is served. One allocation (marks), by the caller.
 */
#ifndef KVMD_POOL_RESTORE_H
#define KVMD_POOL_RESTORE_H

#include "kvmd/pool/pool.h"

/* ------------------------------------------------- head of the block array */

#define POOL_ARRAY_MAGIC	0x6b6c622d646d766bull	/* "kvmd-blk" */
#define POOL_ARRAY_VERSION	1u
#define POOL_FRESH_STEP		4096u

/* Lies in record 0, which is never a block's (its state is FREE for ever). */
struct pool_array {
	uint64_t magic;
	uint32_t version;		/* POOL_ARRAY_VERSION: of the record's meaning */
	uint32_t block_bytes;
	uint32_t nr_blocks;		/* records, without this one */
	uint32_t fresh;			/* records from here on were never used */
	uint64_t resv;
};
BUILD_BUG_ON(sizeof(struct pool_array) <= offsetof(struct block, gen) ? 0 : 1);

/* Is @fd a block array that this daemon understands? 0, or -EINVAL with the reason. */
int pool_array_check(int fd, uint32_t *ret_nr_blocks, char *msg, size_t msg_bytes);
void pool_array_init(struct block *blk, uint32_t nr_blocks);
/* Records below it may be in use; it is written before they are. */
uint32_t pool_array_fresh(const struct block *blk);
void pool_array_set_fresh(struct block *blk, uint32_t fresh);

/* --------------------------------------------------------- spaces and slabs */

/* A space as it was; everything in it was checked by nobody yet. */
struct space_kept {
	char name[KVMD_NAME_BYTES];
	char tenant[KVMD_NAME_BYTES];
	uint8_t salt_digest[16];
	uint64_t epoch;
	uint32_t nr_groups, nr_shards;
	uint32_t sid;
	uint32_t slab_slots[KVMD_MAX_GROUPS];
	struct kvmd_group group[KVMD_MAX_GROUPS];	/* as granted */
	char device[KVMD_MAX_SHARDS][40];		/* UUIDs */
};

struct slab_kept {
	uint32_t state, gen;
	uint32_t space, group;
	uint32_t first, nr, nr_ext;
	uint32_t tainted;
	uint64_t extent_bytes;
	uint64_t mapped[POOL_MAX_CONNS / 64], ever[POOL_MAX_CONNS / 64];
};

/* The space with number @id again. 0 or -errno with text. */
int space_restore(struct pool *p, uint32_t id, const struct space_kept *k, struct tenant *t,
		  const struct policy_ops *pol, char *msg, size_t msg_bytes);
/* A former epoch's sid. False: it makes no sense. */
bool sid_restore(struct pool *p, uint32_t sid, uint32_t space, uint64_t epoch);
/*
 * Slab @id again, ACTIVE whether it was being mapped, drained or unmapped then:
 * clients are told of it anew. @fd[nr_ext] stay the caller's on failure, are the
 * slab's on success. -EINVAL: makes no sense; or what the device says.
 */
int slab_restore(struct pool *p, uint32_t id, const struct slab_kept *k, const int *fd);

/* ------------------------------------------------------------------ the scan */

#define POOL_REF_SWAPPED	(1u << 31)	/* named by a sequence that is swapped out */
#define POOL_REF_NR(r)		((r) & ~POOL_REF_SWAPPED)

/* block.owner during a restore */
#define POOL_HELD	UINT32_MAX		/* QUARANTINE, on a held list */
#define POOL_UNOWNED	(UINT32_MAX - 1)	/* private, until its sequence takes it */

struct pool_restore {
	struct pool *p;
	/* [nr_blocks + 1] how often kept sequences name each record; set before the scan */
	uint32_t *refs;
	uint32_t fresh;			/* records from here on are free */
	/* The RAM tier has @place for record @id again; NULL: there is no RAM tier. */
	bool (*claim)(void *ctx, struct gpool *gp, uint32_t id, uint32_t place);
	void *ctx;
	struct blklist held[POOL_MAX_SPACES];	/* QUARANTINE, nobody's, by space */
	struct blklist loading;		/* private to the scan */
	/* What became of them. */
	uint32_t nr_hbm, nr_ram;	/* sealed blocks kept, by level */
	uint32_t nr_open;		/* private blocks kept */
	uint32_t nr_held;		/* slots that wait for the barrier */
	uint32_t nr_bad;
	uint32_t nr_disk;		/* only on disk: that tier brings them back */
	uint32_t nr_damaged;		/* records that made no sense */
	uint32_t nr_lost;		/* blocks whose bytes are nowhere any more */
};

void pool_restore_scan(struct pool_restore *r);
/* @b cannot be kept: its slot is held if it has one, else the record is free. */
void pool_restore_drop(struct pool_restore *r, struct block *b);
/* @b goes on without its slot, which is held. False: no record is free for that. */
bool pool_restore_unslot(struct pool_restore *r, struct block *b);
/* Slot @slot of @gp may be read by somebody, and no record has it: held. */
void pool_restore_hold_slot(struct pool_restore *r, struct gpool *gp, uint32_t slot);
/* All records are settled: free slots, charges. */
void pool_restore_finish(struct pool_restore *r);
/* Nobody reads what was held of @sp any more: free. How many slots. */
uint32_t pool_restore_release(struct pool *p, struct blklist *held);

#endif
