/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tiers.h - what moves between HBM, RAM and disk, when, and in which order.
 *
 *   clean   HBM slot -> RAM place        before a block leaves HBM, or ahead of need
 *   store   RAM place -> disk place      before it leaves RAM, or ahead of need
 *   fetch   disk place -> RAM place      first half of a load from disk
 *   load    RAM place -> HBM slot        verified on the way
 *
 * Two phases each: the bytes are copied, then the record says so, then the place
 * that is left is freed. A record has at most one move at a time
 * (pool_is_moving()), and none of its places is freed during it. Loads that
 * somebody waits for come before everything else; the bytes in flight are
 * bounded in each direction. A failed copy leaves the block where it was; bytes
 * that do not verify are dropped, and the block with them if it has no other
 * copy (index_lost()).
 *
 * Disk is written chain from its root: a block is stored after its parents. RAM
 * needs that no parent is below its child (block_may_sink()).
 *
 * Core thread only; nothing here blocks or allocates after tiers_create().
 */
#ifndef KVMD_TIER_TIERS_H
#define KVMD_TIER_TIERS_H

#include "kvmd/index/index.h"
#include "kvmd/lib/meter.h"
#include "kvmd/tier/disk.h"
#include "kvmd/tier/ram.h"

#define NR_MOVES	512
#define NR_PREFETCH	8192u	/* power of two */
#define NR_ARRIVED	65536u	/* power of two */

enum move_kind { MOVE_CLEAN, MOVE_STORE, MOVE_FETCH, MOVE_LOAD, MOVE_SWAP_OUT, MOVE_SWAP_IN,
		 NR_MOVE_KIND };

struct tiers;

/* Somebody who waits for one block's swap. */
struct swap_wait {
	void (*done)(struct swap_wait *w, struct block *b, int err);
};

struct move {
	struct tier_req req;
	struct tiers *t;
	uint8_t kind;			/* enum move_kind */
	bool fetched;			/* LOAD: the bytes came from disk just now */
	bool again;			/* FETCH: second try, verified at once; LOAD: its bytes */
	bool loading;			/* FETCH: first half of a load */
	uint32_t block;			/* record */
	uint32_t ram;			/* FETCH: the place it goes to */
	struct gpool *gp;
	struct swap_wait *wait;		/* SWAP_* */
	struct move *next;		/* free list */
};

struct tiers_opts {
	struct ram_opts ram;		/* bytes 0: no tiers at all */
	struct disk_opts disk;		/* nr_paths 0: no disk */
	const char *ram_test, *disk_test; /* stacks of test tiers, NULL: none */
	uint32_t admission;		/* uses of a block before it is stored */
	uint32_t clean_ahead;		/* permille of a gpool's slots */
	uint64_t copy_bytes;		/* in flight each way */
	bool recompute;			/* refuse loads slower than recomputing */
};

struct tiers_events {
	void (*warn)(void *ctx, const char *text);	/* rate limited by the listener */
	void (*recovered)(void *ctx);	/* the disk tier has read what it had */
	void *ctx;
};

struct tiers {
	struct pool *pool;
	struct index *ix;
	struct tier *ram, *disk;	/* tops of their stacks; disk NULL: none */
	struct tiers_opts o;
	const struct tiers_events *ev;
	struct disk_events disk_ev;
	struct move move[NR_MOVES];
	struct move *free_move;
	uint32_t nr_free_move;
	struct move *early;		/* prefetches whose parent is still on its way */
	struct blklist load_q;		/* LOADING, its move not begun */
	uint64_t load_q_ram, load_q_disk; /* bytes of those */
	uint64_t prefetch[NR_PREFETCH];	/* ring: record id and generation */
	uint32_t prefetch_head, prefetch_tail;
	uint64_t arrived[NR_ARRIVED];	/* ring: blocks that came to RAM, to be stored ahead */
	uint32_t arrived_head, arrived_tail;
	uint64_t ahead_ns;		/* nothing is stored ahead before then */
	struct meter out, in, fetch, store;
	uint64_t nr_done;		/* loads and swaps ended: sequences look when it changes */
	bool freed;			/* HBM or RAM got free, or a clean ended: reclaim looks */
	bool stopping;			/* no new moves */
	bool ram_short;			/* an allocation in RAM failed since the last turn */
	bool in_out;			/* blocks that wait for their store are being walked */
	uint32_t steps;			/* parents walked in this turn */
	uint32_t dup_scan;		/* cursor over records: copies in RAM that HBM has too */
	uint32_t drain_scan, drain_quiet; /* disk drained: cursor, records looked at in vain */
	uint64_t drain_ns;		/* ... and not before then */
	uint64_t now_ns;
	uint64_t retry_ns;		/* when to look again though nothing happened; 0: no need */
};

/* ------------------------------------------------------------- tiers.c */

/*
 * RAM (made, or attached when @kept is not NULL) and disk. 0 or -errno with text
 * that names the file and the remedy. pool->lower is set.
 */
struct ram_kept {
	int table_fd;
	const int *fd;			/* by chunk, -1: gone */
	unsigned nr;
};
int tiers_create(const struct tiers_opts *o, struct pool *p, struct index *ix, struct uring *u,
		 struct workers *workers, struct workers *slow, const struct ram_keep *keep,
		 const struct ram_kept *kept, const struct tiers_events *ev,
		 struct tiers **ret_t, char *msg, size_t msg_bytes);
void tiers_destroy(struct tiers *t);	/* nothing is under way */
/* One bounded turn; true: something was done. */
bool tiers_turn(struct tiers *t, uint64_t now_ns);
uint64_t tiers_next_ns(struct tiers *t);	/* turn again then, CLOCK_MONOTONIC; 0: no need */
static inline bool tiers_is_busy(const struct tiers *t)	/* something is in flight */
{
	return t->nr_free_move != NR_MOVES || t->ram->nr_inflight ||
	       (t->disk && t->disk->nr_inflight);
}
/* No new moves; true: all that was under way is over and the disk is sealed. */
bool tiers_stop(struct tiers *t);
/* Places, owners and records agree. 0 or -EUCLEAN with text. */
int tiers_check(struct tiers *t, char *msg, size_t msg_bytes);

/*
 * Is loading worth it: @ram_bytes from RAM and @disk_bytes from disk, behind what
 * is queued, against recomputing @tokens at @tps tokens/s (0: not said, always)?
 */
bool tiers_worth(const struct tiers *t, uint64_t ram_bytes, uint64_t disk_bytes, uint64_t tokens,
		 uint64_t tps);

/* -------------------------------------------------------------- load.c */

/*
 * Begin to bring @b (SEALED, no slot) to HBM for somebody who waits; @gp has a free
 * slot. LOADING from now on.
 */
void tiers_load(struct tiers *t, struct gpool *gp, struct block *b);
/*
 * A hint that @b will be wanted: to HBM while that has slots free above its
 * watermark, else from disk to RAM, when nobody waits for a load. False: too many
 * are remembered already.
 */
bool tiers_prefetch(struct tiers *t, const struct block *b);
/* Begin what is queued, as far as the budget goes. True: something began. */
bool tiers_pump_loads(struct tiers *t);
/* LOADING: planes of @block that are in place. */
uint32_t tiers_planes(const struct tiers *t, uint32_t block);

/* -------------------------------------------------------------- move.c */

/*
 * HBM to RAM: the record gets a RAM place. 0: begun; -EAGAIN: not now; -ENOSPC; -EPERM:
 * it may not be stored.
 */
int tiers_clean(struct tiers *t, struct gpool *gp, struct block *b);
/* RAM to disk. As tiers_clean(). */
int tiers_store(struct tiers *t, struct gpool *gp, struct block *b);
/*
 * Copy @b (OPEN, or SEALED and leased) to RAM, or back into the slot it was given,
 * for a swap; w->done() later. 0, -EAGAIN (no move free), -ENOSPC (RAM is full).
 */
int tiers_swap_out(struct tiers *t, struct gpool *gp, struct block *b, struct swap_wait *w);
int tiers_swap_in(struct tiers *t, struct gpool *gp, struct block *b, struct swap_wait *w);
extern const struct pool_lower tiers_lower;

/* ------------------------------------------------------------- lower.c */

/* May @b be copied below HBM at all (no-store, ttl, epoch, parents, tenant's limit)? */
bool tiers_may_clean(const struct tiers *t, const struct block *b);
/*
 * EVICTING: can @b stay where it is? Not if a block above it in its chain has left
 * already. tiers_stay(): it does, idle, and with it the parents that were to follow.
 */
bool tiers_may_stay(const struct tiers *t, const struct block *b);
void tiers_stay(struct tiers *t, struct gpool *gp, struct block *b);
/* Begin copies of blocks on @gp's out queue, as far as budget goes. */
void tiers_pump_clean(struct tiers *t, struct gpool *gp);
/*
 * Free up to @nr slots from the head of @gp's out queue. Blocks that cannot be
 * stored are dropped. How many slots are free now that were not.
 */
uint32_t tiers_finish_out(struct tiers *t, struct gpool *gp, uint32_t nr);
/*
 * Free up to @nr slots from the head of @gp's out queue although what hangs below
 * from those blocks is lost with them: RAM takes nothing, and somebody waits.
 */
uint32_t tiers_force_out(struct tiers *t, struct gpool *gp, uint32_t nr);
/* Make room for one copy of @bytes in RAM, now or by stores under way; true: try again now. */
bool tiers_ram_room(struct tiers *t, uint64_t bytes);
/* Background: RAM below its watermark, stores ahead of need, drains. True: did something. */
bool tiers_lower_turn(struct tiers *t);
/* Records are short: let go of up to @nr that are only in lower tiers. */
uint32_t tiers_shed(struct tiers *t, uint32_t nr);
/* Let go of @b's copy in RAM (in HBM or on disk it stays). Not moving. */
void tiers_drop_ram(struct tiers *t, struct block *b);

/* ------------------------------------------------------------- drain.c */

/* RAM is being drained or made smaller: empty its last chunks. True: did something. */
bool tiers_drain_ram(struct tiers *t);
/* disk->draining: let go of what it has, a piece; true: there is more to do at once. */
bool tiers_drain_disk(struct tiers *t);

/* ------------------------------------------------------------- adopt.c */

extern const struct disk_events tiers_disk_events;	/* ctx: struct tiers */
/* A space was made: memory for its codecs; its epoch on disk counts, its blocks are offered. */
void tiers_space_opened(struct tiers *t, struct space *sp);

#endif
