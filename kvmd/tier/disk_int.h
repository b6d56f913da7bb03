/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_int.h - inside of the disk tier.
 *
 *   disk.c          set-up, poll, what the outside sees
 *   disk_open.c     one file: found or made, checked, locked
 *   disk_io.c       pieces of I/O
 *   disk_req.c      requests cut into pieces, budgets, order
 *   disk_seg.c      places, open segments, headers, seals
 *   disk_drop.c     failures, bad ranges, headers of what was forgotten
 *   disk_compact.c  segments emptied and given back
 *   disk_recover.c  summaries read and checked, blocks offered to the owner
 *   disk_orphan.c   recovered blocks whose parent is still to come
 *   disk_scrub.c    background verification; write rates
 *   disk_space.c    space table and superblocks made durable
 *   disk_files.c    the files one by one: shown, added, drained, closed
 *   disk_check.c    does all that is counted add up
 *
 * A place is `file << DISK_PLACE_BITS | (segment * nr_headers + header) + 1'. It
 * is given out once in each use of its segment. A segment is used again only when
 * its owner let go of every place, no request is on it and nobody reads its
 * summary (nr_io).
 *
 *   segment  UNREAD -> FREE | FULL (recovery)
 *            FREE -> OPENING -> OPEN -> SEALING -> FULL -> EMPTYING -> FREEING -> FREE
 *   place    NONE -> ALLOC -> WRITING -> LIVE -> DEAD       (DEAD from any)
 *            NONE -> LIVE | PARKED | LATER | DEAD (recovery), PARKED <-> LATER -> LIVE
 *
 * Core thread only, but work functions, which see what their struct has.
 */
#ifndef KVMD_TIER_DISK_INT_H
#define KVMD_TIER_DISK_INT_H

#include "kvmd/tier/disk_types.h"

static inline struct disk *disk_of(struct tier *t)
{
	return container_of(t, struct disk, t);
}

static inline uint32_t dseg_idx(const struct dfile *f, const struct dseg *s)
{
	return (uint32_t)(s - f->seg);
}

static inline struct dplace *dseg_place(const struct dfile *f, const struct dseg *s, uint32_t i)
{
	return &f->place[(uint64_t)dseg_idx(f, s) * f->sb->nr_headers + i];
}

static inline uint32_t disk_place_no(const struct dfile *f, const struct dplace *pl)
{
	return f->idx << DISK_PLACE_BITS | (uint32_t)(pl - f->place + 1);
}

static inline uint32_t disk_pages(uint64_t bytes)
{
	return (uint32_t)(align_up(bytes, DISK_ALIGN) / DISK_ALIGN);
}

static inline struct disk_header *dopen_headers(const struct dopen *o)
{
	return (struct disk_header *)(o->image + DISK_ALIGN);
}

#define for_each_file(d, f) \
	for ((f) = (d)->file; (f) < (d)->file + DISK_MAX_FILES; (f)++) \
		if (!(f)->path) {} else

/* disk.c */
void disk_say(struct disk *d, const char *fmt, ...) __printf(2, 3);
bool disk_writable(const struct disk *d);	/* a file of it can be written */

/* disk_open.c */
int dfile_open(struct disk *d, struct dfile *f, const char *path, uint64_t bytes,
	       char *msg, size_t n);
int dfile_make(struct dfile *f, unsigned index, unsigned nr_files, const uint8_t *uuid,
	       char *msg, size_t n);
int dfile_set_up(struct dfile *f, char *msg, size_t n);
void dfile_close(struct dfile *f);
int disk_set_check(struct disk *d, uint8_t *ret_uuid, unsigned *ret_nr, char *msg, size_t n);

/* disk_io.c */
int disk_io_init(struct disk *d);
void disk_io_exit(struct disk *d);
void dio_submit(struct dio *io);	/* f, op, buf, p, bytes, off, done set */
/* @bytes at @off of @f, from or to plain memory @p. */
void dio_start(struct dio *io, struct dfile *f, enum dio_op op, void *p, uint32_t bytes,
	       uint64_t off, void (*done)(struct dio *io, int err), void *ctx);
void dio_resume(struct disk *d);	/* those that found no room */

/* disk_req.c */
void dfile_pump(struct dfile *f);
void disk_queue(struct disk *d, struct tier_req *r, enum dclass class);
void disk_finish(struct dreq *q, int err);
void disk_fail(struct disk *d, struct tier_req *r, int err);
void disk_run_finished(struct disk *d);
bool dfile_writes_idle(const struct dfile *f);

/* disk_seg.c */
struct dplace *disk_place(struct disk *d, uint32_t place, struct dfile **ret_f,
			  struct dseg **ret_s);	/* NULL: no such place */
uint32_t disk_take(struct disk *d, uint32_t owner, uint64_t bytes);
uint32_t disk_take_copy(struct disk *d, uint32_t owner, uint64_t bytes);
void disk_place_drop(struct disk *d, struct dfile *f, struct dseg *s, struct dplace *pl);
void disk_maybe_free(struct disk *d, struct dfile *f, struct dseg *s);
void disk_seg_free(struct disk *d, struct dfile *f, struct dseg *s);
struct dopen *disk_dopen(struct dfile *f, const struct dseg *s);
bool disk_header_fill(struct disk *d, struct dreq *q);	/* false: its space is gone */
void dopen_ready(struct dreq *q);	/* payload is written */
void dopen_written(struct dreq *q);	/* request is over */
void dopen_pump(struct dopen *o);
uint64_t dopen_next_ns(const struct dopen *o);
void dopen_close(struct dopen *o);
void disk_head_make(struct dfile *f, const struct dseg *s, enum disk_seg_state state,
		    struct disk_head *ret_h);

/* disk_drop.c */
void disk_place_failed(struct disk *d, struct dfile *f, struct dseg *s, struct dplace *pl);
void disk_bad_note(struct disk *d, struct dfile *f, uint32_t seg, uint32_t off, uint32_t len,
		   uint32_t times);
uint32_t disk_bad_skip(const struct disk *d, const struct dfile *f, uint32_t seg, uint32_t off,
		       uint32_t len);
void disk_bad_fill(const struct disk *d, const struct dfile *f, uint32_t seg,
		   struct disk_head *h);
void disk_bad_close(struct disk *d, const struct dfile *f);
void disk_forget_late(struct disk *d, struct dseg *s, struct dplace *pl);
void disk_forget_place(struct disk *d, struct dfile *f, struct dseg *s, struct dplace *pl);
int disk_forget_fit(struct disk *d);	/* a buffer for the summaries of all files */
void disk_forget_exit(struct disk *d);
void disk_forget_pump(struct disk *d);

/* disk_compact.c */
int disk_compact_init(struct disk *d);
void disk_compact_exit(struct disk *d);
void disk_compact_pump(struct disk *d);
uint64_t disk_compact_next(const struct disk *d);
bool disk_copy_room(struct dcopy *c, uint64_t bytes);	/* memory for them; false: none */

/* disk_files.c */
void disk_drained(struct disk *d, struct dfile *f);	/* all its segments are free */

/* disk_recover.c */
int disk_recover_init(struct disk *d);
int disk_recover_fit(struct disk *d);	/* buffers for the summaries of all files */
void disk_recover_exit(struct disk *d);
void disk_recover_start(struct disk *d, bool first);
void disk_recover_pump(struct disk *d);
bool disk_recover_more(const struct disk *d);	/* there is more to do at once */

/* disk_orphan.c */
bool disk_orphan_add(struct disk *d, const struct disk_header *h, uint32_t place);
void disk_orphan_wake(struct disk *d, const struct disk_header *parent);
/* Next whose parent came; false: none. */
bool disk_orphan_next(struct disk *d, struct disk_header *ret_h, uint32_t *ret_place);
/* What waits in vain: its places are dropped. */
void disk_orphan_drop(struct disk *d);
void disk_orphan_exit(struct disk *d);

/* disk_scrub.c */
void disk_rate_init(struct disk *d);
bool disk_rate_ok(struct disk *d);	/* may something be written now? */
void disk_rate_take(struct disk *d, uint64_t bytes);
void disk_scrub_pump(struct disk *d);
uint64_t disk_scrub_next(const struct disk *d);
void disk_scrub_exit(struct disk *d);

/* disk_space.c */
int disk_space_init(struct disk *d);
void disk_space_exit(struct disk *d);
int disk_space_load(struct disk *d, struct dfile *f, char *msg, size_t n);
/* Entry of @sp, to be written before a header names it; NULL: not yet, or no room. */
struct dspace *disk_space_of(struct disk *d, const struct space *sp);
bool disk_space_coming(struct disk *d, const struct space *sp);	/* NULL, but it is being written */
void disk_space_all_dirty(struct disk *d);	/* a file joined: it has no table yet */
void disk_space_pump(struct disk *d);
bool disk_space_busy(const struct disk *d);

#endif
