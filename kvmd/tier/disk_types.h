/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_types.h - what the disk tier keeps of its files, segments, places, requests.
 *
 * For the disk tier's own files, by way of disk_int.h, which has the states and
 * their order. Core thread only.
 */
#ifndef KVMD_TIER_DISK_TYPES_H
#define KVMD_TIER_DISK_TYPES_H

#include "kvmd/lib/hash.h"
#include "kvmd/lib/list.h"
#include "kvmd/lib/meter.h"
#include "kvmd/lib/sum.h"
#include "kvmd/lib/workers.h"
#include "kvmd/tier/disk.h"

#define DISK_PLACE_BITS	29
#define DISK_PIECE	(512u << 10)	/* largest payload I/O, bytes */
#define DISK_NR_DREQ	1024u		/* requests started */
#define DISK_NR_PIECE	1024u		/* payload I/Os under way */
#define DISK_NR_OPEN	4u		/* open and sealing segments of a file */
#define DISK_NR_COPY	4u		/* blocks being moved by compaction */
#define DISK_NR_SCAN	4u		/* summaries being read by recovery */
#define DISK_SCAN_BYTES	(2u << 20)	/* of summaries at once, at least one */
#define DISK_NR_BADS	512u		/* suspect and bad ranges remembered */
#define DISK_NR_WAITER	256u		/* of epochs being raised */
#define DISK_NR_ORPHANS	(256u << 10)	/* blocks whose parent is still to come */
#define DISK_ADOPT	256u		/* blocks offered per poll */
#define DISK_RESERVE	1u		/* free segments that only compaction takes */
#define DISK_MAX_TRIES	64u		/* of one piece, while EINTR and EAGAIN come */
#define DISK_BROKEN_AT	8u		/* write errors in a row */
#define DISK_HDR_BATCH	32u		/* headers wait for so many, */
#define DISK_SYNC_NS	1000000000ull	/* a file is synced at the first seal after that */
#define DISK_HDR_NS	4000000ull	/* or so long, or half of what is being written */
#define DISK_CALM_NS	2000000ull	/* after the last read writes step forward again */

struct disk;
struct dfile;
struct dreq;

/* ------------------------------------------------------------------ pieces */

enum dio_op { DIO_READ, DIO_WRITE, DIO_SYNC };

/* One I/O, retried until it is whole or has failed. Its owner has it again in done(). */
struct dio {
	struct uring_req u;
	struct dfile *f;
	enum dio_op op;
	unsigned tries;
	int buf;			/* fixed buffer of p, -1: none */
	uint8_t *p;			/* what is left: */
	uint32_t bytes;
	uint64_t off;
	void (*done)(struct dio *io, int err);
	void *ctx;
	struct dio *next;		/* free, or waiting for room in the ring */
};

/* ------------------------------------------------------------------ places */

enum dplace_state {
	DP_NONE, DP_ALLOC, DP_WRITING, DP_LIVE, DP_PARKED, DP_LATER, DP_DEAD, NR_DP,
};

#define DPF_FORGET	0x01		/* header on disk is to be marked dead */
#define DPF_FAILED	0x02		/* a read of it failed (not: did not verify) */
#define DPF_LATE	0x04		/* DPF_FORGET, when its write is over */

struct dplace {
	uint64_t sum;			/* XXH3-64 of the payload */
	uint32_t owner;			/* record; ALLOC, WRITING, LIVE */
	uint32_t off;			/* in the segment, 4 KiB */
	uint32_t bytes;			/* of the payload */
	uint8_t state;			/* enum dplace_state */
	uint8_t flags;			/* DPF_* */
	uint16_t resv;
};
BUILD_BUG_ON(sizeof(struct dplace) != 24);

enum dseg_state {
	DS_UNREAD,		/* recovery has not seen it */
	DS_FREE,
	DS_OPENING,		/* head is being written */
	DS_OPEN,
	DS_SEALING,		/* takes no more: last writes, head, fdatasync */
	DS_FULL,
	DS_EMPTYING,		/* compaction */
	DS_FREEING,		/* its blocks are elsewhere: sync, discard */
	DS_GONE,		/* not in the file (truncated), or of no use */
	NR_DS,
};

struct dseg {
	uint64_t gen;			/* 0: never used */
	uint64_t seq;			/* of this use: age */
	uint64_t parked_in;		/* spaces (entry % 64) that parked blocks may be of */
	uint32_t nr;			/* headers given out, or found */
	uint32_t nr_live;		/* ALLOC, WRITING, LIVE */
	uint32_t nr_parked;		/* PARKED, LATER */
	uint32_t live_pages;		/* 4 KiB, of all those */
	uint32_t nr_forget;		/* places with DPF_FORGET */
	uint32_t nr_io;			/* requests and summary reads on it */
	uint8_t state;			/* enum dseg_state */
	struct list link;		/* FREE: dfile.free, oldest first */
};

/* An open segment: image of its summary, headers on their way into it. */
struct dopen {
	struct dfile *f;
	struct dseg *s;			/* NULL: unused */
	uint8_t *image;			/* head page, then headers */
	uint32_t fill;			/* pages given out */
	uint32_t nr_pending;		/* places ALLOC or with a request */
	uint32_t nr_writing;		/* requests accepted, not over */
	uint32_t nr_ready;		/* on ready */
	uint64_t ready_ns;		/* when the first of them came */
	struct list ready;		/* dreqs whose payload is written */
	struct list flying;		/* dreqs whose header is being written */
	struct dio io;			/* head, headers, sync: one at a time */
	bool busy;			/* io is under way */
	bool closed;			/* gives out no more places */
	bool failed;			/* its head could not be written: nor is anything else */
};

/* -------------------------------------------------------------------- files */

/* Queues of requests not started, first served first. */
enum dclass { DQ_URGENT, DQ_READ, DQ_WRITE, DQ_BACK, NR_DQ };

struct dqueue {
	struct tier_queue wait;
	struct dreq *cur;		/* started, pieces still to be submitted */
};

struct dfile {
	struct disk *d;
	unsigned idx;			/* in d->file and in places */
	char *path;			/* NULL: unused */
	int fd;
	bool is_blk, read_only, fresh;
	uint64_t synced_ns;		/* when a seal last began to sync it, 0: never */
	bool unsynced;			/* a seal since then was not synced */
	bool draining;			/* takes no blocks, its segments are emptied */
	bool drained;			/* empty: leaves the set with the next superblocks */
	struct disk_super *sb;		/* aligned; what is on disk */
	struct dseg *seg;		/* [sb->nr_segments] */
	struct dplace *place;		/* [sb->nr_segments * nr_headers] */
	size_t place_bytes;
	uint32_t seg_pages;		/* of data, 4 KiB */
	struct list free;		/* segments */
	uint32_t nr_free;
	uint32_t nr_usable;		/* segments not GONE */
	struct dopen open[DISK_NR_OPEN];
	struct dopen *cur;		/* takes blocks, NULL: none */
	struct dqueue q[NR_DQ];
	uint64_t rd_bytes, wr_bytes, bg_bytes;	/* of payload, in flight */
	uint64_t last_read_ns;
	unsigned nr_io;			/* dios of any kind under way */
	uint32_t scan_seg;		/* recovery's cursor */
	uint32_t scan_single;		/* up to here one summary at a time: a read failed */
};

/* ----------------------------------------------------------------- requests */

struct dreq {
	struct tier_req *r;
	struct dfile *f;
	struct dseg *s;
	struct dplace *pl;
	struct dopen *o;		/* write */
	enum dclass class;
	uint64_t off;			/* of the payload in the file */
	uint64_t at, bytes;		/* submitted; in all, whole pages */
	unsigned nr_pieces;		/* under way */
	int err;
	struct disk_header hdr;		/* write */
	struct work work;		/* verification */
	uint64_t sum;			/* what was read */
	struct list link;		/* ready, flying, finished, free */
};

/* ---------------------------------------------------------------- the others */

struct dbad {
	uint32_t file, seg;
	struct disk_bad r;
};

struct dcopy {
	struct tier_req r;		/* tier is NULL: not counted as the outside's */
	struct disk *d;
	void *mem;
	size_t mem_bytes;
	uint32_t owner, from, to;
	bool busy;
};

/* What compaction is doing to its one segment. */
enum dvictim_step { DV_NONE, DV_BLOCKS, DV_SYNC, DV_HEAD, DV_DISCARD };

struct dcompact {
	enum dvictim_step step;
	struct dfile *f;
	struct dseg *s;
	uint32_t at;			/* next header */
	uint32_t nr_copies;		/* under way */
	unsigned sync_file;		/* next to be synced */
	bool moved;			/* a block was copied: sync before reuse */
	bool busy;			/* io or work under way */
	struct dopen *dst;		/* copies go here */
	struct dcopy copy[DISK_NR_COPY];
	uint8_t *page;			/* head */
	struct dio io;
	struct work work;		/* discard */
	unsigned nr_shrink;		/* asked for by disk_shrink() */
	uint32_t had_pages;		/* live ones, at the beginning */
	uint32_t kept_pages;		/* of those moved */
	unsigned nr_futile;		/* victims in a row of which all blocks stayed */
	uint64_t retry_ns;		/* nothing was gained: not before then, 0: at once */
	bool again;			/* there is more to do at once */
	unsigned cur_file;		/* choice: where to look next */
	uint32_t cur_seg;
};

/* What the checking of one segment's summary said. */
struct dscan_seg {
	uint64_t gen, seq;
	uint32_t nr;			/* headers given out */
	uint32_t nr_broken;		/* headers that once were right */
	bool wanted;
	bool empty;			/* free, or never used */
	bool has_head;			/* it is right */
	bool bad_head;			/* it once was */
};

struct dscan {
	struct disk *d;
	struct dfile *f;		/* NULL: unused */
	uint32_t seg, nr;		/* segments in mem */
	uint8_t *mem;			/* summaries */
	size_t mem_bytes;
	uint32_t *found;		/* headers to offer: bytes in mem / 128 */
	uint32_t nr_found, at;		/* at: next one */
	struct dscan_seg *info;		/* [nr] */
	bool first;			/* recovery, not a rescan */
	bool ready;			/* checked, to be offered */
	struct dio io;
	struct work work;
};

struct dspace {
	struct disk_space *e;		/* page of d->sp_mem */
	bool used;
	bool dirty;			/* to be written */
	bool durable;			/* some version with this inc is on disk */
};

#define SP_IDLE		(-1)
#define SP_SUPER	(-2)

struct dwaiter {
	uint32_t idx;
	uint64_t seq;			/* of the entry that must be on disk */
	void (*done)(void *ctx, int err);
	void *ctx;
};

struct disk {
	struct tier t;
	struct disk_opts o;
	struct pool *p;
	struct uring *u;
	struct workers *workers, *slow;
	struct disk_events ev;
	uint64_t now;			/* clock_ns() of this poll */
	struct dfile file[DISK_MAX_FILES];
	unsigned turn;			/* file of the next block */
	uint32_t nr_free;		/* free segments, all files in use */
	uint64_t seg_seq;		/* of the segment opened last */
	uint32_t nr_empty;		/* FULL without a block, discard on */
	bool kick;			/* poll() has something to do, */
	uint64_t next_ns;		/* or will have then; 0: no time is known */
	bool asked;			/* for a place, since the start: room is made */
	bool stopping, closing;
	char text[256];

	struct dreq *dreq;
	struct list dreq_free, fin;
	struct tier_queue failed;		/* never started, err is set */
	unsigned nr_dreq_free;
	struct dio *piece, *piece_free;
	struct dio *stalled, **stalled_tail;	/* waiting for room in the ring */
	unsigned nr_io;			/* dios under way */
	unsigned nr_work;		/* works under way */
	unsigned nr_done;		/* in this poll */
	unsigned nr_write_errs;		/* in a row */
	struct meter rd, wr;

	struct dbad bad[DISK_NR_BADS];	/* [nr_bads] */
	unsigned nr_bads, bad_next;
	uint64_t nr_bad;		/* ranges never used again */
	uint64_t nr_live, nr_parked, nr_forget;	/* places */
	uint64_t live_pages;

	struct dcompact c;

	/* recovery */
	struct dscan scan[DISK_NR_SCAN];
	bool recovering;		/* first pass */
	bool scanning;			/* any pass */
	bool rescan;			/* another pass is wanted, */
	uint64_t rescan_in;		/* of segments with blocks of these spaces */
	uint64_t scan_in;		/* the same of this pass */
	bool first_over, told;		/* recovery is over; the owner knows */
	uint64_t scan_done, scan_total;
	uint64_t nr_broken;		/* heads and headers that did not verify */
	unsigned scan_file;		/* where the next summaries are read */
	uint64_t pass_taken;		/* blocks adopted in this pass */
	bool spilled;			/* LATER blocks that were not remembered */
	struct dorphan *orphan;		/* NULL: none yet */
	uint32_t *orphan_bucket;
	uint32_t orphan_free, orphan_fresh, orphan_ready;
	uint32_t orphan_most;		/* remembered at once; at most DISK_NR_ORPHANS */
	struct hash_seed seed;

	/* forgetting */
	uint8_t *fg_mem;
	size_t fg_bytes;
	struct dfile *fg_file;		/* NULL: idle */
	struct dseg *fg_seg;
	uint32_t fg_lo, fg_hi;
	unsigned fg_at_file;
	uint32_t fg_at_seg;
	struct dio fg_io;

	/* scrub and rates */
	struct dcopy sc;
	unsigned sc_file;
	uint32_t sc_seg, sc_at;
	uint64_t sc_next_ns, sc_bytes, sc_pass;
	bool sc_any;			/* something was there to read in this pass */
	int64_t tokens;			/* bytes that may be written */
	uint64_t tokens_ns;
	uint64_t hour;			/* since 1970, of the last entry that counts */
	uint64_t hour_bytes[DISK_DAY_HOURS];
	uint64_t day_bytes;		/* their sum */
	uint64_t day_saved;		/* total_bytes when a superblock had it last */
	uint64_t total_bytes;		/* written in this run */
	uint64_t refused_ns;		/* when to try again what a rate refused, 0: nothing */

	/* space table, superblocks */
	struct dspace sp[DISK_MAX_SPACES];
	void *sp_mem;
	uint16_t sp_of[POOL_MAX_SPACES];	/* entry + 1 by number of the pool's space */
	uint8_t *sp_buf;		/* entry or superblock being written */
	bool sb_dirty;			/* superblocks are to be written */
	unsigned nr_dirty;		/* entries that are to be */
	int sp_cur;			/* entry being written, SP_IDLE, SP_SUPER */
	unsigned sp_step;		/* copy A, sync, copy B, sync */
	unsigned sp_file;		/* next file of this step */
	uint64_t sp_seq;		/* of the entry being written */
	int sp_err;
	struct dio sp_io;
	struct dwaiter waiter[DISK_NR_WAITER];
	unsigned nr_waiters;
};

#endif
