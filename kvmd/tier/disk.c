// SPDX-License-Identifier: Apache-2.0
/*
 * disk.c - the disk tier as the outside sees it; see disk.h and disk_int.h.
 *
 * Core thread only. disk_create() blocks on files being opened and made; nothing
 * else does.
 */
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/random.h>

#include "kvmd/lib/clock.h"
#include "kvmd/lib/err.h"
#include "kvmd/lib/fault.h"
#include "kvmd/lib/mem.h"
#include "kvmd/tier/disk_int.h"

#define WAIT_NS		1000000ull	/* of destroy for what is under way */
#define LOCK_NS		10000000000ull	/* longest wait for a lock at start */
#define LOCK_LOOK_MS	10

void disk_say(struct disk *d, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(d->text, sizeof(d->text), fmt, ap);
	va_end(ap);
	d->t.nr_said++;
}

bool disk_writable(const struct disk *d)
{
	const struct dfile *f;

	for_each_file(d, f)
		if (!f->read_only)
			return true;
	return false;
}

/* -------------------------------------------------------------- the tier's ops */

static uint32_t op_alloc(struct tier *t, struct gpool *gp, uint32_t block, uint64_t bytes)
{
	struct disk *d = disk_of(t);

	if (t->draining || t->broken || d->stopping || d->recovering || !bytes ||
	    bytes > DISK_MAX_SEGMENT || fault_hit(FAULT_TIER_ALLOC))
		return 0;
	d->now = clock_ns();
	d->asked = d->kick = true;
	if (!disk_space_of(d, gp->sp) || !disk_rate_ok(d))
		return 0;
	return disk_take(d, block, bytes);
}

static void op_free(struct tier *t, uint32_t place)
{
	struct disk *d = disk_of(t);
	struct dfile *f;
	struct dseg *s;
	struct dplace *pl = disk_place(d, place, &f, &s);

	if (pl)
		disk_place_drop(d, f, s, pl);
}

static void op_read(struct tier *t, struct tier_req *r)
{
	struct disk *d = disk_of(t);
	struct dplace *pl = disk_place(d, r->place, NULL, NULL);

	if (!pl || pl->state != DP_LIVE)
		disk_fail(d, r, -ENODATA);
	else if (pl->bytes != r->bytes)
		disk_fail(d, r, -EINVAL);
	else
		disk_queue(d, r, r->urgent ? DQ_URGENT : DQ_READ);
}

static void op_write(struct tier *t, struct tier_req *r)
{
	struct disk *d = disk_of(t);
	struct dfile *f;
	struct dseg *s;
	struct dplace *pl = disk_place(d, r->place, &f, &s);

	if (!pl || pl->state != DP_ALLOC || pl->bytes != r->bytes || pl->owner != r->block) {
		disk_fail(d, r, pl && pl->state == DP_DEAD ? -ECANCELED : -EINVAL);
		return;
	}
	pl->state = DP_WRITING;
	disk_dopen(f, s)->nr_writing++;
	disk_queue(d, r, DQ_WRITE);
}

static uint64_t when_next(struct disk *d);

static unsigned op_poll(struct tier *t)
{
	struct disk *d = disk_of(t);
	struct dfile *f;

	/* Most turns of the core thread end here. */
	if (!d->kick && !d->next_ns)
		return 0;
	d->now = clock_ns();
	if (!d->kick && d->now < d->next_ns)
		return 0;
	d->kick = false;
	d->nr_done = 0;
	if (d->refused_ns && d->now >= d->refused_ns)
		d->refused_ns = 0;
	dio_resume(d);
	disk_run_finished(d);
	disk_recover_pump(d);
	disk_compact_pump(d);
	disk_forget_pump(d);
	disk_space_pump(d);
	disk_scrub_pump(d);
	for_each_file(d, f) {
		for (unsigned i = 0; i < DISK_NR_OPEN; i++)
			dopen_pump(&f->open[i]);
		dfile_pump(f);
	}
	d->next_ns = when_next(d);
	return d->nr_done;
}

static uint64_t when_next(struct disk *d)
{
	struct dfile *f;
	uint64_t at = 0;

	if (!list_empty(&d->fin) || d->failed.head || d->stalled || disk_recover_more(d) ||
	    (d->sp_cur == SP_IDLE && disk_space_busy(d)))
		return 1;		/* at once */
	for_each_file(d, f)
		for (unsigned i = 0; i < DISK_NR_OPEN; i++)
			at = clock_earlier(at, dopen_next_ns(&f->open[i]));
	at = clock_earlier(at, disk_scrub_next(d));
	at = clock_earlier(at, disk_compact_next(d));
	at = clock_earlier(at, d->refused_ns);
	return at;
}

static uint64_t op_next_ns(struct tier *t)
{
	const struct disk *d = disk_of(t);

	return d->kick ? 1 : d->next_ns;	/* 1: at once */
}

/* What is still under way is ours alone: requests are over. */
static void wait_for_io(struct disk *d)
{
	d->closing = true;
	while (d->nr_io || d->nr_work) {
		dio_resume(d);
		(void)uring_wait(d->u, WAIT_NS);
		(void)workers_reap(d->workers);
		(void)workers_reap(d->slow);
	}
}

static void op_destroy(struct tier *t)
{
	struct disk *d;

	if (!t)
		return;
	d = disk_of(t);
	wait_for_io(d);
	for (unsigned i = 0; i < DISK_MAX_FILES; i++)
		if (d->file[i].path)
			dfile_close(&d->file[i]);
	disk_scrub_exit(d);
	disk_recover_exit(d);
	disk_compact_exit(d);
	disk_forget_exit(d);
	disk_space_exit(d);
	disk_io_exit(d);
	mem_free(d);
}

static const struct tier_ops disk_ops = {
	.name = "disk",
	.alloc = op_alloc,
	.free = op_free,
	.read = op_read,
	.write = op_write,
	.poll = op_poll,
	.next_ns = op_next_ns,
	.destroy = op_destroy,
};

/* ---------------------------------------------------------------------- set-up */

static int make_fresh(struct disk *d, unsigned nr_members, unsigned nr, uint8_t *uuid,
		      char *msg, size_t n)
{
	unsigned index = nr_members;
	struct dfile *f;
	int err;

	if (!nr_members && getrandom(uuid, 16, 0) != 16)
		return err_text(-EIO, msg, n, "no random number for a new set of files");
	for_each_file(d, f) {
		if (!f->fresh)
			continue;
		err = dfile_make(f, index++, nr, uuid, msg, n);
		if (err)
			return err;
	}
	return 0;
}

/* All files are open and of one set: tables, space table, what the set is now. */
static int join(struct disk *d, unsigned nr, char *msg, size_t n)
{
	unsigned index = 0;
	struct dfile *f;
	int err = 0;

	for_each_file(d, f) {
		err = dfile_set_up(f, msg, n);
		if (!err && !f->fresh)
			err = disk_space_load(d, f, msg, n);
		if (err)
			return err;
		d->t.bytes += f->nr_usable * f->sb->segment_bytes;
		if (f->sb->nr_files != nr || f->sb->index != index)
			d->sb_dirty = true;
		f->sb->nr_files = nr;
		f->sb->index = index++;
		if (f->read_only)
			disk_say(d, "%s: read-only: what it has is served, nothing is stored in it",
				 f->path);
	}
	if (!disk_writable(d))
		d->t.broken = true;
	for_each_file(d, f)
		if (f->fresh)
			disk_space_all_dirty(d);
	if (!disk_forget_fit(d) && !disk_recover_fit(d))
		return 0;
	return err_text(-ENOMEM, msg, n, "disk tier: out of memory for the summaries of %s",
			d->file[0].path);
}

/* A daemon that was killed has the lock until its last I/O has ended. */
static int open_or_wait(struct disk *d, struct dfile *f, const struct disk_opts *o, unsigned i,
			char *msg, size_t n)
{
	uint64_t until = clock_ns() + (o->lock_wait_ns ? o->lock_wait_ns : LOCK_NS);
	int err;

	do {
		err = dfile_open(d, f, o->path[i], o->bytes, msg, n);
	} while (err == -EBUSY && clock_ns() < until && poll(NULL, 0, LOCK_LOOK_MS) <= 0);
	return err;
}

static int open_files(struct disk *d, const struct disk_opts *o, char *msg, size_t n)
{
	uint8_t uuid[16];
	unsigned nr_members = 0;
	int err;

	for (unsigned i = 0; i < o->nr_paths; i++) {
		err = open_or_wait(d, &d->file[i], o, i, msg, n);
		if (err)
			return err;
	}
	err = disk_set_check(d, uuid, &nr_members, msg, n);
	if (!err)
		err = make_fresh(d, nr_members, o->nr_paths, uuid, msg, n);
	if (!err)
		err = join(d, o->nr_paths, msg, n);
	return err;
}

int disk_create(const struct disk_opts *o, struct pool *p, struct uring *u, struct workers *workers,
		struct workers *slow, const struct disk_events *ev, struct tier **ret_t,
		char *msg, size_t msg_bytes)
{
	struct disk *d;
	int err;

	if (!o->nr_paths || o->nr_paths > DISK_MAX_FILES)
		return err_text(-EINVAL, msg, msg_bytes, "1 to %u paths, not %u", DISK_MAX_FILES,
				o->nr_paths);
	d = mem_zalloc(sizeof(*d));
	if (!d)
		return err_text(-ENOMEM, msg, msg_bytes, "disk tier: out of memory");
	d->t.ops = &disk_ops;
	d->t.kind = TIER_DISK;
	d->o = *o;
	d->p = p;
	d->u = u;
	d->workers = workers;
	d->slow = slow;
	d->ev = *ev;
	d->now = clock_ns();
	if (!d->o.inflight_bytes)
		d->o.inflight_bytes = 4ull << 20;
	if (!d->o.inflight_read_bytes)
		d->o.inflight_read_bytes = DISK_PIECE;
	if (!d->o.segment_bytes)
		d->o.segment_bytes = 64ull << 20;
	err = disk_io_init(d);
	if (!err)
		err = disk_space_init(d);
	if (!err)
		err = disk_compact_init(d);
	if (!err)
		err = disk_recover_init(d);
	if (err)
		snprintf(msg, msg_bytes, "disk tier: %s", strerror(-err));
	else
		err = open_files(d, o, msg, msg_bytes);
	if (err) {
		op_destroy(&d->t);
		return err;
	}
	disk_rate_init(d);
	disk_recover_start(d, true);
	*ret_t = &d->t;
	return 0;
}

/* ------------------------------------------------------------------- the others */

uint32_t disk_owner(struct tier *t, uint32_t place)
{
	const struct dplace *pl = disk_place(disk_of(tier_bottom(t)), place, NULL, NULL);

	return pl ? pl->owner : 0;
}

void disk_forget(struct tier *t, uint32_t place)
{
	struct disk *d = disk_of(tier_bottom(t));
	struct dfile *f;
	struct dseg *s;
	struct dplace *pl = disk_place(d, place, &f, &s);

	if (pl)
		disk_forget_place(d, f, s, pl);
}

void disk_mismatch(struct tier *t, uint32_t place)
{
	struct disk *d = disk_of(tier_bottom(t));
	struct dfile *f;
	struct dseg *s;
	struct dplace *pl = disk_place(d, place, &f, &s);

	if (pl)
		disk_place_failed(d, f, s, pl);
}

void disk_get_info(struct tier *t, struct disk_info *i)
{
	struct disk *d = disk_of(tier_bottom(t));
	uint64_t bg = 0;
	struct dfile *f;

	*i = (struct disk_info) {
		.live_bytes = d->live_pages * DISK_ALIGN, .nr_parked = d->nr_parked,
		.nr_places = d->nr_live + d->nr_parked, .nr_bad = d->nr_bad,
		.recovering = d->scanning || d->rescan, .recover_done = d->scan_done,
		.recover_total = d->scan_total, .scrubbed_bytes = d->sc_bytes,
		.scrub_pass = d->sc_pass, .written_day = d->day_bytes,
		.read_bps = d->rd.bps, .write_bps = d->wr.bps,
	};
	for_each_file(d, f) {
		i->nr_files++;
		i->nr_segments += f->nr_usable;
		i->nr_free_segments += f->nr_free;
		i->bytes += f->nr_usable * f->sb->segment_bytes;
		i->used_bytes += (f->nr_usable - f->nr_free) * f->sb->segment_bytes;
		bg += f->bg_bytes;
	}
	i->read_inflight = d->rd.inflight + bg;
	i->write_inflight = d->wr.inflight;
	memcpy(i->text, d->text, sizeof(i->text));
}

bool disk_stop(struct tier *t)
{
	struct disk *d = disk_of(tier_bottom(t));
	bool open = false;
	struct dfile *f;

	if (!d->stopping && d->total_bytes)
		d->sb_dirty = true;	/* the day's bytes */
	d->stopping = d->kick = true;
	for_each_file(d, f)
		for (unsigned i = 0; i < DISK_NR_OPEN; i++) {
			if (f->open[i].s)
				dopen_close(&f->open[i]);
			open |= f->open[i].s != NULL;
		}
	(void)op_poll(&d->t);
	return !open && !disk_space_busy(d) && !d->c.nr_copies && !d->nr_io && !d->nr_work &&
	       !d->t.nr_inflight;
}
