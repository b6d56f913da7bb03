// SPDX-License-Identifier: Apache-2.0
/*
 * disk_scrub.c - caps on what is written, and verification in the background.
 *
 * The rate is a bucket of one second's bytes, taken from when a place is given
 * out, so that nothing waits half done. The cap of a day is the sum of 24 hours'
 * bytes; the superblocks keep them across restarts, about: they are written when
 * a 64th of the cap was, and at an ordered stop.
 *
 * The scrub reads every block of full segments with its checksum, one at a time,
 * behind all other I/O. Core thread only.
 */
#include <time.h>

#include "kvmd/lib/mem.h"
#include "kvmd/tier/disk_int.h"

#define NS		1000000000ull
#define HOUR_S		3600u
#define LOOK		4096u		/* places or segments looked at per poll */

/* ----------------------------------------------------------------------- rates */

static int64_t bucket(const struct disk *d)
{
	return (int64_t)min(d->o.write_rate, (uint64_t)INT64_MAX / 2);
}

static void sum_day(struct disk *d)
{
	d->day_bytes = 0;
	for (unsigned i = 0; i < DISK_DAY_HOURS; i++)
		d->day_bytes += d->hour_bytes[i];
}

static void roll_hours(struct disk *d, uint64_t hour)
{
	if (hour <= d->hour)
		return;		/* also when the clock was put back */
	if (hour - d->hour >= DISK_DAY_HOURS) {
		memset(d->hour_bytes, 0, sizeof(d->hour_bytes));
		d->hour = hour;
	}
	while (d->hour < hour)
		d->hour_bytes[++d->hour % DISK_DAY_HOURS] = 0;
	sum_day(d);
}

/* What the superblocks remember. */
void disk_rate_init(struct disk *d)
{
	struct dfile *f;

	for_each_file(d, f) {
		if (f->sb->hour <= d->hour)
			continue;
		d->hour = f->sb->hour;
		memcpy(d->hour_bytes, f->sb->hour_bytes, sizeof(d->hour_bytes));
	}
	sum_day(d);
	roll_hours(d, (uint64_t)time(NULL) / HOUR_S);
	d->tokens = bucket(d);
	d->tokens_ns = d->now;
}

static void refill(struct disk *d)
{
	uint64_t dt = min(d->now - d->tokens_ns, NS);

	d->tokens += (int64_t)((unsigned __int128)d->o.write_rate * dt / NS);
	d->tokens = min(d->tokens, bucket(d));
	d->tokens_ns = d->now;
}

bool disk_rate_ok(struct disk *d)
{
	uint64_t now_s = (uint64_t)time(NULL);

	roll_hours(d, now_s / HOUR_S);
	if (d->o.write_day && d->day_bytes >= d->o.write_day) {
		d->refused_ns = d->now + (HOUR_S - now_s % HOUR_S) * NS;
		return false;
	}
	if (!d->o.write_rate)
		return true;
	refill(d);
	if (d->tokens > 0)
		return true;
	d->refused_ns = d->now + (uint64_t)((unsigned __int128)(1 - d->tokens) * NS /
					    d->o.write_rate) + 1;
	return false;
}

void disk_rate_take(struct disk *d, uint64_t bytes)
{
	if (d->o.write_rate)
		d->tokens -= (int64_t)bytes;
	roll_hours(d, (uint64_t)time(NULL) / HOUR_S);
	d->hour_bytes[d->hour % DISK_DAY_HOURS] += bytes;
	d->day_bytes += bytes;
	d->total_bytes += bytes;
	if (d->o.write_day && d->total_bytes - d->day_saved > d->o.write_day / 64) {
		d->day_saved = d->total_bytes;
		d->sb_dirty = true;
	}
}

void disk_set_rates(struct tier *t, uint64_t write_rate, uint64_t write_day, uint64_t scrub_rate)
{
	struct disk *d = disk_of(tier_bottom(t));

	d->o.write_rate = write_rate;
	d->o.write_day = write_day;
	d->o.scrub_rate = scrub_rate;
	d->tokens = bucket(d);
	d->kick = true;
	d->refused_ns = 0;
	d->sc_next_ns = 0;
}

/* ----------------------------------------------------------------------- scrub */

static void scrubbed(struct tier_req *r)
{
	struct dcopy *c = container_of(r, struct dcopy, r);

	c->busy = false;
	if (!r->err)
		c->d->sc_bytes += r->bytes;
}

static void scrub(struct disk *d, struct dfile *f, struct dplace *pl)
{
	struct dcopy *c = &d->sc;

	if (!disk_copy_room(c, pl->bytes))
		return;
	d->sc_any = true;
	d->sc_next_ns = max(d->sc_next_ns, d->now) +
			(uint64_t)((unsigned __int128)pl->bytes * NS / d->o.scrub_rate);
	c->busy = true;
	c->d = d;
	c->r = (struct tier_req) {
		.place = disk_place_no(f, pl), .mem = c->mem, .buf = -1, .bytes = pl->bytes,
		.verify = true, .done = scrubbed,
	};
	disk_queue(d, &c->r, DQ_BACK);
}

void disk_scrub_pump(struct disk *d)
{
	if (!d->o.scrub_rate || d->sc.busy || d->now < d->sc_next_ns || d->recovering ||
	    d->stopping || d->closing)
		return;
	for (unsigned n = 0; n < LOOK; n++) {
		struct dfile *f = &d->file[d->sc_file];
		struct dplace *pl;
		struct dseg *s;

		if (!f->path || d->sc_seg >= f->sb->nr_segments) {
			d->sc_seg = d->sc_at = 0;
			if (++d->sc_file < DISK_MAX_FILES)
				continue;
			d->sc_file = 0;
			d->sc_pass += d->sc_any;
			if (!d->sc_any)
				d->sc_next_ns = d->now + NS;	/* nothing is there */
			d->sc_any = false;
			return;
		}
		s = &f->seg[d->sc_seg];
		if (s->state != DS_FULL || d->sc_at >= s->nr || !(s->nr_live + s->nr_parked)) {
			d->sc_seg++;
			d->sc_at = 0;
			continue;
		}
		pl = dseg_place(f, s, d->sc_at++);
		if (pl->state != DP_LIVE && pl->state != DP_PARKED)
			continue;
		scrub(d, f, pl);
		return;
	}
}

uint64_t disk_scrub_next(const struct disk *d)
{
	return !d->o.scrub_rate || d->sc.busy || d->recovering || d->stopping ? 0 :
	       max(d->sc_next_ns, (uint64_t)1);
}

void disk_scrub_exit(struct disk *d)
{
	mem_big_free(d->sc.mem, d->sc.mem_bytes);
}
