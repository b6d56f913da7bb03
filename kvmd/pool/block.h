/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block.h - the block record and its life.
 *
 * One flat memfd array of fixed-size records is the truth about every block in
 * every tier; hash table, free lists and policy lists are rebuilt from it. Only
 * the core thread writes it. Record 0 is never used: 0 means "no block".
 *
 *   FREE -> OPEN -> SEALING -> SEALED <-> EVICTING -> FREE
 *    |       |         |        ^  ^ |
 *    |       |         |        |  | +-> LOADING (copy in from below, not visible)
 *    +-- found on disk ---------+  +------- |
 *            +---------+- owner died, bytes lost -> QUARANTINE -> FREE   BAD: never reused
 *
 * OPEN: private to one sequence, being filled. SEALING: publish accepted, its
 * step not yet completed; the key is in the record, the block is not findable.
 * SEALED: findable, immutable; leases counts the sequences, pins and tickets
 * that hold it. EVICTING: chosen to leave its highest tier and on the way out:
 * with a slot HBM, without one RAM; still findable, a hit makes it SEALED again.
 * LOADING: has a slot that its bytes are being copied to. Every change of state
 * goes through block_set_state(), which checks the one table.
 *
 * The level of a block is the highest tier it can be hit in; slot, ram and disk
 * say where copies are. Rule: level(parent) >= level(child). nr_kids,
 * nr_kids_ram, nr_kids_disk count children by level, those on the way out by
 * the level they go to (block_level()).
 *
 * A sealed block with leases is on no list; without, it is on the lists of its
 * level: HBM's policy (prev, next belong to it), or the LRU list of RAM or disk.
 * In every other state prev and next belong to the room that put the block
 * there; FREE: the free list (next).
 *
 * OPEN with ram and without a slot: swapped out.
 *
 * uncoded: a copy of what is in HBM is made as it is, though the group has a codec: the
 * codec does not take it, or it came back from a lossy copy, whose error must not grow.
 */
#ifndef KVMD_POOL_BLOCK_H
#define KVMD_POOL_BLOCK_H

#include "kvmd/lib/base.h"
#include "kvmd/wire.h"

enum blk_state {
	BLK_FREE,		/* zero: a fresh record is free */
	BLK_OPEN,
	BLK_SEALING,
	BLK_SEALED,
	BLK_LOADING,
	BLK_EVICTING,
	BLK_QUARANTINE,
	BLK_BAD,
	NR_BLK_STATE
};

/* flags */
#define BLK_F_NO_STORE	0x01	/* never copied to a lower tier */
#define BLK_F_TTL	0x02	/* until: dropped then */
#define BLK_F_PRIO	0x04	/* until: priority falls back to normal then */
#define BLK_F_COLD	0x08	/* advised cold: first to be reclaimed */
#define BLK_F_IDLE	0x10	/* on the lists of its level */
#define BLK_F_POL0	0x20	/* policy's own */
#define BLK_F_POL1	0x40	/* policy's own */
#define BLK_F_POL2	0x80	/* policy's own */
#define BLK_F_LOST	BLK_F_POL0 /* in QUARANTINE: its identity is gone, its slot is broken */

struct block {
	uint8_t key[KVMD_KEY_BYTES];	/*  0 valid from SEALING on */
	uint32_t gen;			/* 32 grows at every FREE: (block, gen) is a handle */
	uint16_t sid;			/* 36 space incarnation: (space, epoch) */
	uint8_t group : 5;		/* 38 of the space */
	uint8_t ram_coded : 1;		/* the copy in RAM is coded (tier/image.h) */
	uint8_t disk_coded : 1;		/* the copy on disk is */
	uint8_t uncoded : 1;		/* see below */
	uint8_t state;			/* 39 enum blk_state */
	uint32_t leases;		/* 40 sequences, pins, tickets that hold it */
	uint32_t slot;			/* 44 in HBM; 0: not there */
	union {
		uint32_t parent;	/* 48 SEALED: block before it in the chain, 0: root */
		uint32_t owner;		/* 48 OPEN, SEALING, QUARANTINE: session id */
	};
	uint32_t nr_kids;		/* 52 children of level HBM */
	uint8_t flags;			/* 56 BLK_F_* */
	uint8_t prio;			/* 57 0-100, 50 normal */
	uint8_t uses;			/* 58 leases taken by opens, saturating */
	uint8_t tag;			/* 59 policy's class of the block */
	uint32_t until;			/* 60 policy clock, 1/16 s: see flags */
	uint32_t prev, next;		/* 64 whoever's list the block is on */
	uint32_t ram;			/* 72 slot in the RAM tier; 0: not there */
	uint32_t disk;			/* 76 place in the disk tier; 0: not there */
	uint32_t nr_kids_ram;		/* 80 children of level RAM */
	uint32_t last_use;		/* 84 policy clock, 1/16 s */
	uint32_t nr_kids_disk;		/* 88 children of level disk */
	uint32_t pos;			/* 92 blocks before it in its chain */
};
BUILD_BUG_ON(sizeof(struct block) != 96);

const char *blk_state_name(unsigned state);	/* "free", "open", ... */
/* The one transition table: bit @to of blk_next[@from]. */
extern const uint8_t blk_next[NR_BLK_STATE];

static inline bool blk_transition_ok(unsigned from, unsigned to)
{
	return from < NR_BLK_STATE && to < NR_BLK_STATE && (blk_next[from] >> to & 1);
}

/*
 * The only way to change a state; a transition that is not in the table is a
 * BUG. The state is stored after the fields that it makes valid (release), so
 * that whoever scans the array after a crash never takes a half-written record
 * for a whole one.
 */
static inline void block_set_state(struct block *b, enum blk_state to)
{
	BUG_ON(!blk_transition_ok(b->state, to));
	st_rel(&b->state, (uint8_t)to);
}

enum blk_level {
	LEVEL_NONE,
	LEVEL_DISK,
	LEVEL_RAM,
	LEVEL_HBM,
	NR_LEVEL
};
const char *blk_level_name(unsigned level);	/* "none", "disk", "ram", "hbm" */

/* The level its parent counts it under. */
static inline enum blk_level block_level(const struct block *b)
{
	if (b->state == BLK_EVICTING)
		return b->slot ? LEVEL_RAM : LEVEL_DISK;
	return b->slot ? LEVEL_HBM : b->ram ? LEVEL_RAM : b->disk ? LEVEL_DISK : LEVEL_NONE;
}

/* May it be lowered to @to (NONE: dropped), as far as its children go? */
static inline bool block_may_sink(const struct block *b, enum blk_level to)
{
	return !b->nr_kids && (to >= LEVEL_RAM || !b->nr_kids_ram) &&
	       (to >= LEVEL_DISK || !b->nr_kids_disk);
}

static inline bool block_is_resident(const struct block *b)
{
	return b->state == BLK_SEALED && b->slot;
}

#endif
