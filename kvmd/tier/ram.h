/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ram.h - the RAM tier: locked memfd chunks, registered with io_uring.
 *
 * Memory is a row of chunks of one size, at most 1 GiB. A chunk serves blocks of
 * one size class (payload rounded up to 4 KiB) from its first block until it is
 * empty again. place = (chunk << RAM_IDX_BITS | index) + 1. A block is one run
 * of bytes, page-first: shard by shard, plane by plane (tier_block_bytes()).
 *
 * Chunks are made one after the other by a slow worker (hugetlb, else huge shmem
 * pages, else 4 KiB; touched, locked), then registered by the core thread as
 * fixed buffer number `chunk'; the tier grows with each, and serves meanwhile.
 *
 * What a place has of a block of a group with a codec may be coded (image.h):
 * tier_req.coded says which, the two are of different classes.
 *
 * A write takes the checksum, a read verifies it (-EBADMSG). The planes of a block
 * that has several are used as they arrive: it is verified before the first one
 * counts in tier_req.planes. used_bytes counts whole places and what is left over
 * at the end of a chunk in use; a freed place whose memory is still held counts.
 *
 * The table of chunks and the checksum of every place are in a memfd of their
 * own, so that with the chunks' fds and the block array the tier survives the
 * daemon (ram_attach()).
 */
#ifndef KVMD_TIER_RAM_H
#define KVMD_TIER_RAM_H

#include "kvmd/lib/uring.h"
#include "kvmd/tier/tier.h"

#define RAM_IDX_BITS	18
#define RAM_MAX_CHUNKS	8192u

struct ram_opts {
	uint64_t bytes;			/* rounded up to whole chunks */
	uint64_t chunk_bytes;		/* 0: bytes / 64, at least 2 MiB, at most 1 GiB */
	bool hugetlb;			/* try 2 MiB hugetlb pages first */
	bool lock;			/* mlock; what cannot be locked is said and used unlocked */
};

struct ram_info {
	uint64_t bytes, chunk_bytes;
	uint32_t nr_chunks, nr_ready;	/* wanted, usable */
	uint64_t nr_places;		/* in use */
	uint64_t hugetlb_bytes, thp_bytes, small_bytes;	/* by page size found */
	uint64_t locked_bytes, registered_bytes;
	uint64_t pinned_bytes;		/* for devices that want it (dev_host_pin()) */
	uint32_t nr_bad;		/* places never used again */
	uint64_t start_ns;		/* time it took until all were ready; 0: not yet */
	char text[160];			/* what went wrong last, "" if nothing */
};

/* fds the keeper holds for us: called when they are made, and when a chunk goes. */
struct ram_keep {
	void (*add)(void *ctx, const char *name, int fd);
	void (*del)(void *ctx, const char *name);
	void *ctx;
};

/* An empty tier that grows in the background. @slow: workers for what may take long. */
int ram_create(const struct ram_opts *o, struct uring *u, struct workers *slow,
	       const struct ram_keep *keep, struct tier **ret_t);
/*
 * The tier of a former daemon: @table_fd and @fd[nr] (by chunk, -1: gone). Its
 * places are all free until ram_claim(), which ends with the first alloc(). The
 * chunks' size is the table's, which may make the tier smaller than @o->bytes
 * (said). -EINVAL: not a table of this version. Owns the fds on success; what the
 * table does not know is closed and given up (keep->del). Grows or shrinks to @o
 * in the background.
 */
int ram_attach(const struct ram_opts *o, struct uring *u, struct workers *slow,
	       const struct ram_keep *keep, int table_fd, const int *fd, unsigned nr,
	       struct tier **ret_t);
/*
 * After ram_attach(): @place is @block's, whose copy has @bytes. False: it cannot be
 * (class, range, taken).
 */
bool ram_claim(struct tier *t, uint32_t place, uint64_t bytes, uint32_t block);
/*
 * Blocks of @gp will be coded on their way: have memory for that, pinned in the
 * background. -ENOMEM: their requests will fail until it is asked for again.
 */
int ram_code_fit(struct tier *t, const struct gpool *gp);

/* t: any tier of the stack. */
void *ram_mem(struct tier *t, uint32_t place);		/* its bytes */
int ram_buf(struct tier *t, uint32_t place);		/* fixed buffer, -1: not registered */
uint32_t ram_owner(struct tier *t, uint32_t place);	/* record, 0: free */
uint64_t ram_sum(struct tier *t, uint32_t place);
void ram_set_sum(struct tier *t, uint32_t place, uint64_t sum);	/* bytes came from elsewhere */
/*
 * The bytes of @place, which nobody else wrote, did not verify. After the second
 * time it is bad: freed like any other, but never given out again.
 */
void ram_blame(struct tier *t, uint32_t place);
/* I/O on the memory of @place that is not this tier's: it is not reused before the put. */
void ram_hold(struct tier *t, uint32_t place);
void ram_put(struct tier *t, uint32_t place);

/*
 * No place for blocks of @bytes and none of their class can be evicted: a chunk of
 * another class that should be emptied for them. Next record to evict from it
 * (0: none is left or all are held): call again after each.
 */
uint32_t ram_steal(struct tier *t, uint64_t bytes);
/*
 * Change the size, up at once in the background, down as chunks become empty; 0
 * is possible. What could not be made before is tried again. -EINVAL: too large.
 */
int ram_resize(struct tier *t, uint64_t bytes);
bool ram_is_growing(struct tier *t);	/* chunks are still being made */
/*
 * The next record to evict from chunks that are to go, last first (draining: all
 * of them); 0: end of a pass, the next call begins another one.
 */
uint32_t ram_drain_next(struct tier *t);
void ram_get_info(struct tier *t, struct ram_info *ret_i);
/* free + used + held = total, places and owners agree. 0 or -EUCLEAN with text. */
int ram_check(struct tier *t, char *msg, size_t msg_bytes);

#endif
