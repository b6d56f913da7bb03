// SPDX-License-Identifier: Apache-2.0
/*
 * disk_compact.c - segments emptied and given back.
 *
 * One segment at a time: of those looked at the one whose emptiness times age is
 * largest. Its owner is asked for each block; those that stay are read, verified,
 * written to compaction's own open segment, and only then moved. Before the
 * segment is reused the copies are synced, so that a crash finds the block in one
 * of the two places.
 *
 *   BLOCKS -> SYNC (something was moved) -> HEAD, DISCARD (discard is on) -> free
 *
 * One free segment is never given to new blocks, so that the copies of one
 * victim always find room. Core thread; discards on a worker.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include "kvmd/lib/fault.h"
#include "kvmd/lib/mem.h"
#include "kvmd/tier/disk_int.h"

#define LOOK		4096u		/* segments looked at for one victim */
#define ASK		256u		/* blocks asked for per poll */
#define FUTILE_NS	100000000ull	/* nothing was gained: wait */
#define NR_FUTILE	4u		/* victims in a row of which all blocks stayed */

/* ---------------------------------------------------------------------- copies */

bool disk_copy_room(struct dcopy *c, uint64_t bytes)
{
	bytes = align_up(bytes, 1u << 20);
	if (bytes <= c->mem_bytes)
		return true;
	mem_big_free(c->mem, c->mem_bytes);
	c->mem = mem_big_alloc(bytes, false);
	c->mem_bytes = c->mem ? bytes : 0;
	return c->mem;
}

static void drop(struct disk *d, uint32_t place)
{
	struct dfile *f;
	struct dseg *s;
	struct dplace *pl = disk_place(d, place, &f, &s);

	disk_place_drop(d, f, s, pl);
}

/* It should have been kept, and cannot be. */
static void lose(struct disk *d, uint32_t owner, uint32_t place)
{
	drop(d, place);
	if (d->ev.lost)
		d->ev.lost(d->ev.ctx, owner, place);
}

static bool is_still(struct disk *d, const struct dcopy *c)
{
	const struct dplace *pl = disk_place(d, c->from, NULL, NULL);

	return pl->state == DP_LIVE && pl->owner == c->owner;
}

static void copy_over(struct dcopy *c)
{
	c->busy = false;
	c->d->c.nr_copies--;
}

static void copy_written(struct tier_req *r)
{
	struct dcopy *c = container_of(r, struct dcopy, r);
	struct disk *d = c->d;

	if (!is_still(d, c)) {
		drop(d, c->to);		/* freed meanwhile */
	} else if (r->err) {
		lose(d, c->owner, c->from);
	} else {
		fault_crash(CRASH_COMPACT);
		d->c.moved = true;
		d->c.kept_pages += disk_pages(r->bytes);
		drop(d, c->from);
		if (d->ev.moved)
			d->ev.moved(d->ev.ctx, c->owner, c->from, c->to);
	}
	copy_over(c);
}

static void copy_read(struct tier_req *r)
{
	struct dcopy *c = container_of(r, struct dcopy, r);
	struct disk *d = c->d;
	struct dfile *f;
	struct dseg *s;
	struct dplace *to = disk_place(d, c->to, &f, &s);

	if (!r->err && is_still(d, c) && to->state == DP_ALLOC) {
		r->place = c->to;
		r->done = copy_written;
		to->state = DP_WRITING;
		disk_dopen(f, s)->nr_writing++;
		disk_queue(d, r, DQ_WRITE);
		return;
	}
	if (is_still(d, c))
		lose(d, c->owner, c->from);
	drop(d, c->to);
	copy_over(c);
}

static void copy_start(struct disk *d, struct dcopy *c, struct dplace *pl, uint32_t place)
{
	uint32_t to = 0;

	if (disk_copy_room(c, pl->bytes))
		to = disk_take_copy(d, pl->owner, pl->bytes);
	if (!to) {
		disk_say(d, "%s: no room to move a block of %u bytes from segment %u: dropped",
			 d->c.f->path, pl->bytes, dseg_idx(d->c.f, d->c.s));
		lose(d, pl->owner, place);
		return;
	}
	c->d = d;
	c->busy = true;
	c->owner = pl->owner;
	c->from = place;
	c->to = to;
	c->r = (struct tier_req) {
		.block = pl->owner, .place = place, .mem = c->mem, .buf = -1, .bytes = pl->bytes,
		.gp = pool_gpool(d->p, pool_block(d->p, pl->owner)), .verify = true,
		.done = copy_read,
	};
	d->c.nr_copies++;
	disk_queue(d, &c->r, DQ_BACK);
}

static struct dcopy *free_copy(struct disk *d)
{
	for (unsigned i = 0; i < DISK_NR_COPY; i++)
		if (!d->c.copy[i].busy)
			return &d->c.copy[i];
	return NULL;
}

/* ---------------------------------------------------------------------- the end */

static void victim_over(struct disk *d)
{
	struct dcompact *c = &d->c;

	c->step = DV_NONE;
	c->again = true;	/* for another */
	if (!c->kept_pages || c->kept_pages < c->had_pages || c->f->draining)
		c->nr_futile = 0;
	else if (++c->nr_futile == NR_FUTILE) {
		/* Nothing is to be gained now. One alone says little: the next may be empty. */
		c->nr_futile = 0;
		c->retry_ns = d->now + FUTILE_NS;
	}
	disk_seg_free(d, c->f, c->s);
}

static void next_step(struct disk *d);

static void io_done(struct dio *io, int err)
{
	struct disk *d = io->ctx;

	d->c.busy = false;
	if (err)
		disk_say(d, "%s: %s: %s", io->f->path,
			 io->op == DIO_SYNC ? "fdatasync" : "head of a free segment",
			 strerror(-err));
	if (d->c.step == DV_HEAD)
		d->c.step = DV_DISCARD;
	next_step(d);
}

static void io(struct disk *d, struct dfile *f, enum dio_op op, uint64_t off)
{
	d->c.busy = true;
	dio_start(&d->c.io, f, op, d->c.page, DISK_ALIGN, off, io_done, d);
}

static void discard_fn(struct work *w)
{
	struct dcompact *c = container_of(w, struct dcompact, work);
	uint64_t range[2] = {
		disk_data_at(c->f->sb, dseg_idx(c->f, c->s)), c->f->sb->segment_bytes,
	};

	/* A hint: what cannot discard keeps its bytes. */
	if (c->f->is_blk)
		(void)ioctl(c->f->fd, BLKDISCARD, range);
	else
		(void)fallocate(c->f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				(off_t)range[0], (off_t)range[1]);
}

static void discard_done(struct work *w)
{
	struct disk *d = container_of(w, struct disk, c.work);

	d->nr_work--;
	d->kick = true;
	d->c.busy = false;
	victim_over(d);
}

static void next_step(struct disk *d)
{
	struct dcompact *c = &d->c;

	switch (c->step) {
	case DV_SYNC:
		for (; c->sync_file < DISK_MAX_FILES; c->sync_file++) {
			struct dfile *f = &d->file[c->sync_file];

			if (!f->path || f->read_only)
				continue;
			c->sync_file++;
			io(d, f, DIO_SYNC, 0);
			return;
		}
		c->step = DV_HEAD;
		/* fall through */
	case DV_HEAD:
		if (!d->o.discard || c->f->read_only) {
			victim_over(d);
			return;
		}
		disk_head_make(c->f, c->s, DISK_SEG_FREE, (struct disk_head *)c->page);
		io(d, c->f, DIO_WRITE, disk_summary_at(c->f->sb, dseg_idx(c->f, c->s)));
		return;
	case DV_DISCARD:
		c->busy = true;
		c->work.fn = discard_fn;
		c->work.done = discard_done;
		d->nr_work++;
		workers_submit(d->slow, &c->work);
		return;
	default:
		return;
	}
}

/* ------------------------------------------------------------------- the blocks */

/* Ask for the blocks; those that stay are copied. */
static void blocks(struct disk *d)
{
	struct dcompact *c = &d->c;
	struct dcopy *copy;

	for (unsigned n = 0; c->at < c->s->nr; n++, c->at++) {
		/* The last one first: a block may go only when those that hang from it are gone. */
		struct dplace *pl = dseg_place(c->f, c->s, c->s->nr - 1 - c->at);
		uint32_t place = disk_place_no(c->f, pl);

		if (n == ASK) {
			c->again = true;
			return;
		}
		if (pl->state == DP_PARKED || pl->state == DP_LATER)
			disk_place_drop(d, c->f, c->s, pl);
		if (pl->state != DP_LIVE)
			continue;
		copy = free_copy(d);
		if (!copy)
			return;
		if (d->ev.keep && d->ev.keep(d->ev.ctx, pl->owner, place))
			copy_start(d, copy, pl, place);
		else
			disk_place_drop(d, c->f, c->s, pl);
	}
	if (c->nr_copies || c->s->nr_io || c->s->nr_forget)
		return;
	c->s->state = DS_FREEING;
	c->step = c->moved ? DV_SYNC : DV_HEAD;
	c->sync_file = 0;
	next_step(d);
}

/* -------------------------------------------------------------------- the choice */

static uint32_t nr_low(const struct disk *d)
{
	uint32_t nr = 0, nr_files = 0;
	const struct dfile *f;

	for_each_file(d, f) {
		if (f->draining || f->read_only)
			continue;
		nr_files++;
		nr += f->nr_usable;
	}
	return min(DISK_RESERVE + nr_files + nr / 64, max(nr / 4, DISK_RESERVE + 1));
}

static bool is_draining(const struct disk *d)
{
	const struct dfile *f;

	for_each_file(d, f)
		if (f->draining && f->nr_free < f->nr_usable)
			return true;
	return false;
}

/* A segment with blocks is to be emptied; one without is taken for d->nr_empty. */
static bool is_needed(const struct disk *d)
{
	return d->c.nr_shrink || is_draining(d) ||
	       (d->asked && disk_writable(d) && !d->t.broken && d->nr_free < nr_low(d));
}

static double score(const struct disk *d, const struct dfile *f, const struct dseg *s)
{
	double used = (double)s->live_pages / f->seg_pages;
	double age = (double)(d->seg_seq - s->seq) + 1;

	if (f->draining)
		return 1e30;
	if (!s->nr_live && !s->nr_parked)
		return 1e29;
	return d->c.nr_shrink ? age : (1.1 - used) * age;
}

/* The best of the next LOOK segments; all of them, if there are no more. */
static void choose(struct disk *d)
{
	struct dcompact *c = &d->c;
	struct dfile *f, *best_f = NULL;
	struct dseg *best = NULL;
	double most = 0;
	unsigned nr_ends = 0;

	for (unsigned n = 0; n < LOOK && nr_ends <= DISK_MAX_FILES; n++) {
		struct dseg *s;
		double now;

		f = &d->file[c->cur_file];
		if (!f->path || c->cur_seg >= f->sb->nr_segments) {
			c->cur_file = (c->cur_file + 1) % DISK_MAX_FILES;
			c->cur_seg = 0;
			nr_ends++;
			continue;
		}
		s = &f->seg[c->cur_seg++];
		if (s->state != DS_FULL || (f->read_only && !f->draining))
			continue;
		now = score(d, f, s);
		if (now > most) {
			most = now;
			best = s;
			best_f = f;
		}
	}
	if (best && !is_needed(d) && (best->nr_live || best->nr_parked))
		best = NULL;
	if (!best) {
		c->again = nr_ends <= DISK_MAX_FILES;
		if (!c->again)
			c->nr_shrink = d->nr_empty = 0;	/* there is none */
		return;
	}
	if (c->nr_shrink)
		c->nr_shrink--;
	best->state = DS_EMPTYING;
	c->step = DV_BLOCKS;
	c->f = best_f;
	c->s = best;
	c->at = c->kept_pages = 0;
	c->had_pages = best->live_pages;
	c->moved = false;
	blocks(d);
}

/* ------------------------------------------------------------------------- pump */

void disk_shrink(struct tier *t)
{
	struct disk *d = disk_of(tier_bottom(t));

	d->kick = true;
	d->c.nr_shrink++;
}

void disk_compact_pump(struct disk *d)
{
	struct dcompact *c = &d->c;
	struct dfile *f;

	c->again = false;
	if (d->recovering || d->closing)
		return;
	for_each_file(d, f)
		if (f->draining && f->nr_free == f->nr_usable) {
			disk_drained(d, f);
			break;
		}
	if (c->step == DV_BLOCKS) {
		blocks(d);
		return;
	}
	if (c->step != DV_NONE || d->stopping || (c->retry_ns && d->now < c->retry_ns))
		return;
	c->retry_ns = 0;
	if (d->nr_empty || (is_needed(d) && disk_rate_ok(d)))
		choose(d);
}

uint64_t disk_compact_next(const struct disk *d)
{
	return d->c.again ? 1 : d->c.retry_ns;
}

int disk_compact_init(struct disk *d)
{
	d->c.page = mem_big_alloc(DISK_ALIGN, false);
	return d->c.page ? 0 : -ENOMEM;
}

void disk_compact_exit(struct disk *d)
{
	mem_big_free(d->c.page, DISK_ALIGN);
	for (unsigned i = 0; i < DISK_NR_COPY; i++)
		mem_big_free(d->c.copy[i].mem, d->c.copy[i].mem_bytes);
}
