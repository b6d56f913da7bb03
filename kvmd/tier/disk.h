/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk.h - the disk tier: append-only segments in files or block devices.
 *
 * O_DIRECT through the daemon's io_uring, fixed buffers and files. Blocks go in
 * turn to the open segment of each file (striping). Payloads are cut into
 * pieces of at most 512 KiB; a bounded number of bytes is in flight, reads first;
 * while reads come writes step back to 512 KiB in flight. poll() only queues I/O in
 * the ring: the owner's next uring_poll() or uring_wait() hands over all there is.
 *
 * A write is over (done) when payload and header are written; a segment's head
 * follows when it is full. fdatasync runs at seals, a second apart, and at the
 * end. A crash may lose the blocks of the unsealed tail whose headers were not
 * written, a power cut those of the last second; what is read is verified or it
 * is not served.
 *
 * A place is a range of the open segment of a file, given out once in each use of
 * that segment; alloc() says 0 when there is none now (full, recovering, a cap on
 * writes, the space's entry not durable yet), not that there never will be. The
 * memory of a request has room for its bytes rounded up to 4 KiB.
 *
 * Space comes back a segment at a time: of the oldest and emptiest the owner is
 * asked for each block whether it goes or stays; those that stay are copied to
 * the open segment first. A place that fails verification is lost; one that
 * fails a second time is bad: its bytes are never used again.
 *
 * Recovery reads the summaries, a worker per file checks them, the core thread
 * adopts the blocks in bounded pieces (disk_events.found) while the pool serves.
 * Blocks of a space that is not open are parked: kept until their segment is
 * needed, adopted when the space comes (disk_space_opened()).
 */
#ifndef KVMD_TIER_DISK_H
#define KVMD_TIER_DISK_H

#include "kvmd/lib/uring.h"
#include "kvmd/tier/disk_format.h"
#include "kvmd/tier/tier.h"

#define DISK_MAX_FILES	8

struct disk_opts {
	const char *path[DISK_MAX_FILES];	/* file (made when absent) or block device */
	unsigned nr_paths;
	uint64_t bytes;			/* of each file that is made; block devices: all of it */
	uint64_t segment_bytes;		/* of files made, less in small ones; default 64 MiB */
	uint64_t block_bytes_hint;	/* smallest block expected: headers per segment */
	uint64_t inflight_bytes;	/* of a file, while no reads come; default 4 MiB */
	uint64_t inflight_read_bytes;	/* writes in flight while they do; default 512 KiB */
	uint64_t write_rate;		/* bytes/s, 0: no cap */
	uint64_t write_day;		/* bytes in any 24 h, 0: no cap */
	uint64_t scrub_rate;		/* bytes/s read by the background scrub, 0: off */
	bool discard;			/* punch holes / BLKDISCARD for segments that become free */
	unsigned file_base;		/* first fixed file number that is ours */
	uint64_t lock_wait_ns;		/* longest wait for another's lock on a file; default 10 s */
};

enum disk_verdict {
	DISK_TAKEN,		/* the returned record has it now */
	DISK_PARK,		/* its space is not open: keep */
	DISK_LATER,		/* its parent is not known yet: offer it again in this pass */
	DISK_GONE,		/* old epoch, duplicate, no record: drop */
};

struct disk_events {
	/*
	 * Recovery met a block. @sp_entry: its space as the file has it. TAKEN:
	 * *ret_block is its record.
	 */
	enum disk_verdict (*found)(void *ctx, const struct disk_space *sp_entry,
				   const struct disk_header *h, uint32_t place,
				   uint32_t *ret_block);
	/*
	 * The segment of @place is to be reused. True: copy it first (moved()
	 * follows, or lost() when that fails); false: the owner has let go of
	 * @place, and must not free it.
	 */
	bool (*keep)(void *ctx, uint32_t block, uint32_t place);
	void (*moved)(void *ctx, uint32_t block, uint32_t from, uint32_t to);
	/* Verification of @place failed (scrub, copy, an earlier read): it is gone. */
	void (*lost)(void *ctx, uint32_t block, uint32_t place);
	void (*recovered)(void *ctx);		/* the pass is over */
	void *ctx;
};

struct disk_info {
	uint32_t nr_files, nr_segments, nr_free_segments;
	uint64_t bytes, used_bytes;	/* data area; in segments not free */
	uint64_t live_bytes;		/* of live and parked blocks */
	uint64_t nr_places, nr_parked, nr_bad;
	bool recovering;
	uint64_t recover_done, recover_total;	/* segments */
	uint64_t scrubbed_bytes, scrub_pass;
	uint64_t written_day;			/* in the last 24 h */
	uint64_t read_inflight, write_inflight;	/* bytes */
	uint64_t read_bps, write_bps;		/* measured while busy, bytes/s, 0: not yet */
	char text[256];				/* what went wrong last, "" if nothing */
};

/* One file of the set. */
struct disk_file {
	const char *path;
	uint64_t bytes, used_bytes, live_bytes;	/* as in disk_info */
	bool is_block_device, read_only, draining;
};

/*
 * Open or make the files, take their locks (-EBUSY with text: another daemon, or
 * I/O of a dead one, still has it), start recovery. Text names file, offset and
 * remedy. Never truncates; a file that is not ours is refused, not overwritten.
 */
int disk_create(const struct disk_opts *o, struct pool *p, struct uring *u, struct workers *workers,
		struct workers *slow, const struct disk_events *ev, struct tier **ret_t,
		char *msg, size_t msg_bytes);
/* @sp was made: its parked blocks are offered again, in the background. */
void disk_space_opened(struct tier *t, const struct space *sp);
/* The epoch that @sp had on disk; 0: unknown to the files. */
uint64_t disk_space_epoch(struct tier *t, const char *tenant, const char *name);
/* Make @sp's epoch durable; @done(ctx, err) when it is. */
void disk_space_raise(struct tier *t, const struct space *sp, uint64_t epoch,
		      void (*done)(void *ctx, int err), void *ctx);
uint32_t disk_owner(struct tier *t, uint32_t place);	/* record, 0: none */
/*
 * Dropped for good (not merely evicted): as free(), and a restart does not bring
 * this copy back, as soon as the header is rewritten.
 */
void disk_forget(struct tier *t, uint32_t place);
/*
 * Bytes read from @place (without verify) were not those of the request's sum:
 * lost() follows at once, and the range is bad when it happens to it again.
 */
void disk_mismatch(struct tier *t, uint32_t place);
/*
 * alloc() had no place for a block of @gp, but a segment is being opened, or emptied:
 * try again. False: it will have none for long.
 */
bool disk_room_soon(struct tier *t, const struct gpool *gp, uint64_t bytes);
/* Give back the oldest segment although there is room (records are needed). */
void disk_shrink(struct tier *t);
int disk_add_path(struct tier *t, const char *path, uint64_t bytes, char *msg, size_t msg_bytes);
/* Stop using file @path; its blocks are moved or let go, then it is closed. -ENOENT, -EBUSY. */
int disk_drain_path(struct tier *t, const char *path, char *msg, size_t msg_bytes);
/* Use it after all. -ENOENT, -EBUSY: it is empty and about to be closed. */
int disk_undrain_path(struct tier *t, const char *path, char *msg, size_t msg_bytes);
void disk_set_rates(struct tier *t, uint64_t write_rate, uint64_t write_day, uint64_t scrub_rate);
void disk_get_info(struct tier *t, struct disk_info *ret_i);
/* File @idx, below DISK_MAX_FILES; false: there is none. Looks at all its segments. */
bool disk_get_file(struct tier *t, unsigned idx, struct disk_file *ret_f);
/* Seal open segments and sync, for an ordered stop; true: all is on disk. Call until true. */
bool disk_stop(struct tier *t);
int disk_check(struct tier *t, char *msg, size_t msg_bytes);

#endif
