// SPDX-License-Identifier: Apache-2.0
/*
 * disk_seg.c - places, and the segments that are being written.
 *
 * A block's header goes into the image of its segment's summary when its payload
 * is on disk, and from there to disk with those of other blocks that came
 * together: never two writes at once to one summary, never a page changed while
 * it is being written, identical bytes for the headers that were there already.
 * Only then the block's write is over.
 *
 *   payload written -> ready -> (image, write) flying -> LIVE, done()
 *
 * A full segment is sealed when the last of its requests is over: head, then
 * fdatasync, at most one a second. Core thread only.
 */
#include "kvmd/lib/clock.h"
#include "kvmd/lib/fault.h"
#include "kvmd/tier/disk_int.h"

/* ------------------------------------------------------------------- places */

struct dplace *disk_place(struct disk *d, uint32_t place, struct dfile **ret_f,
			  struct dseg **ret_s)
{
	uint32_t n = place & ((1u << DISK_PLACE_BITS) - 1);
	struct dfile *f = &d->file[place >> DISK_PLACE_BITS];

	if (!f->path || !n || n > f->sb->nr_segments * f->sb->nr_headers)
		return NULL;
	if (ret_f)
		*ret_f = f;
	if (ret_s)
		*ret_s = &f->seg[(n - 1) / f->sb->nr_headers];
	return &f->place[n - 1];
}

/* @pl has no block any more; a request on it may still be under way. */
void disk_place_drop(struct disk *d, struct dfile *f, struct dseg *s, struct dplace *pl)
{
	uint32_t pages = disk_pages(pl->bytes);
	struct dopen *o;

	switch (pl->state) {
	case DP_ALLOC:
		o = disk_dopen(f, s);
		if (o)
			o->nr_pending--;
		/* fall through */
	case DP_WRITING:
	case DP_LIVE:
		s->nr_live--;
		d->nr_live--;
		break;
	case DP_PARKED:
	case DP_LATER:
		s->nr_parked--;
		d->nr_parked--;
		break;
	default:
		return;
	}
	d->kick = true;
	s->live_pages -= pages;
	d->live_pages -= pages;
	d->t.used_bytes = d->live_pages * DISK_ALIGN;
	pl->state = DP_DEAD;
	pl->owner = 0;
	disk_maybe_free(d, f, s);
}

/* ---------------------------------------------------------- free segments */

void disk_seg_free(struct disk *d, struct dfile *f, struct dseg *s)
{
	s->state = DS_FREE;
	s->nr = 0;
	list_add_tail(&s->link, &f->free);
	f->nr_free++;
	if (!f->draining && !f->read_only)
		d->nr_free++;
}

/* A full segment without a block needs no compaction, unless it is discarded. */
void disk_maybe_free(struct disk *d, struct dfile *f, struct dseg *s)
{
	if (s->state != DS_FULL || s->nr_live || s->nr_parked || s->nr_io || s->nr_forget ||
	    f->read_only || d->recovering)
		return;
	if (d->o.discard && s->nr)
		d->nr_empty++;		/* disk_compact.c finds it */
	else
		disk_seg_free(d, f, s);
}

static struct dseg *take_free(struct dfile *f)
{
	struct dseg *s = list_first(&f->free, struct dseg, link);

	list_del(&s->link);
	f->nr_free--;
	f->d->nr_free--;
	return s;
}

/* ------------------------------------------------------------- open segments */

struct dopen *disk_dopen(struct dfile *f, const struct dseg *s)
{
	for (unsigned i = 0; i < DISK_NR_OPEN; i++)
		if (f->open[i].s == s)
			return &f->open[i];
	return NULL;
}

void disk_head_make(struct dfile *f, const struct dseg *s, enum disk_seg_state state,
		    struct disk_head *h)
{
	memset(h, 0, sizeof(*h));
	h->seg = dseg_idx(f, s);
	h->state = state;
	h->generation = s->gen;
	h->nr = state == DISK_SEG_SEALED ? s->nr : 0;
	h->seq = s->seq;
	memcpy(h->set_uuid, f->sb->set_uuid, sizeof(h->set_uuid));
	disk_bad_fill(f->d, f, h->seg, h);
	disk_head_finish(h);
}

/*
 * What is not synced is verified when it is read like anything else: a power cut
 * costs the blocks of the last second, not more, and nobody writes while it lasts.
 */
static bool sync_is_due(const struct dopen *o)
{
	const struct disk *d = o->f->d;

	return d->stopping || !o->f->synced_ns || d->now >= o->f->synced_ns + DISK_SYNC_NS;
}

static void dopen_io_done(struct dio *io, int err);

static void dopen_io(struct dopen *o, enum dio_op op, uint32_t at, uint32_t bytes)
{
	o->busy = true;
	dio_start(&o->io, o->f, op, o->image + at, bytes,
		  disk_summary_at(o->f->sb, dseg_idx(o->f, o->s)) + at, dopen_io_done, o);
}

static void write_head(struct dopen *o, enum disk_seg_state state)
{
	disk_head_make(o->f, o->s, state, (struct disk_head *)o->image);
	dopen_io(o, DIO_WRITE, 0, DISK_ALIGN);
}

static struct dopen *open_segment(struct dfile *f)
{
	struct dopen *o = disk_dopen(f, NULL);
	struct disk *d = f->d;
	uint32_t seg;

	if (!o || list_empty(&f->free))
		return NULL;
	o->s = take_free(f);
	seg = dseg_idx(f, o->s);
	o->s->gen = max(o->s->gen, f->sb->gen0) + 1;
	o->s->seq = ++d->seg_seq;
	o->s->state = DS_OPENING;
	o->s->nr = 0;
	o->s->parked_in = 0;
	o->fill = 0;
	o->nr_pending = o->nr_writing = o->nr_ready = 0;
	o->closed = o->failed = false;
	list_init(&o->ready);
	list_init(&o->flying);
	memset(o->image, 0, f->sb->summary_bytes);
	memset(&f->place[(uint64_t)seg * f->sb->nr_headers], 0,
	       f->sb->nr_headers * sizeof(struct dplace));
	write_head(o, DISK_SEG_OPEN);
	return o;
}

static uint32_t fit(const struct dopen *o, uint32_t pages)
{
	return disk_bad_skip(o->f->d, o->f, dseg_idx(o->f, o->s), o->fill, pages);
}

static bool has_room(const struct dopen *o, uint32_t pages)
{
	return o && !o->closed && o->s->nr < o->f->sb->nr_headers &&
	       (uint64_t)fit(o, pages) + pages <= o->f->seg_pages;
}

void dopen_close(struct dopen *o)
{
	o->closed = true;
	if (o->f->cur == o)
		o->f->cur = NULL;
	if (o->f->d->c.dst == o)
		o->f->d->c.dst = NULL;
}

static uint32_t take(struct dopen *o, uint32_t owner, uint64_t bytes)
{
	struct disk *d = o->f->d;
	uint32_t pages = disk_pages(bytes), i = o->s->nr++;
	struct dplace *pl = dseg_place(o->f, o->s, i);

	pl->owner = owner;
	pl->bytes = (uint32_t)bytes;
	pl->off = fit(o, pages);
	pl->state = DP_ALLOC;
	o->fill = pl->off + pages;
	o->nr_pending++;
	o->s->nr_live++;
	d->nr_live++;
	o->s->live_pages += pages;
	d->live_pages += pages;
	d->t.used_bytes = d->live_pages * DISK_ALIGN;
	disk_rate_take(d, pages * (uint64_t)DISK_ALIGN);
	return disk_place_no(o->f, pl);
}

/* *@o has room for @pages, or is replaced by one that has; -ENOSPC. */
static int make_room(struct dfile *f, struct dopen **o, uint32_t pages, uint32_t reserve)
{
	struct dopen *new;

	if (has_room(*o, pages))
		return 0;
	if (f->d->nr_free <= reserve)
		return -ENOSPC;
	new = open_segment(f);
	if (!new)
		return -ENOSPC;
	if (*o)
		dopen_close(*o);
	*o = new;
	return has_room(new, pages) ? 0 : -ENOSPC;
}

static bool takes_blocks(const struct dfile *f, uint32_t pages)
{
	return f->path && !f->draining && !f->read_only && pages <= f->seg_pages;
}

/* A place for @bytes in the open segment of the file whose turn it is; 0: full. */
uint32_t disk_take(struct disk *d, uint32_t owner, uint64_t bytes)
{
	uint32_t pages = disk_pages(bytes);

	for (unsigned i = 0; i < DISK_MAX_FILES; i++) {
		struct dfile *f = &d->file[d->turn++ % DISK_MAX_FILES];

		if (takes_blocks(f, pages) && !make_room(f, &f->cur, pages, DISK_RESERVE))
			return take(f->cur, owner, bytes);
	}
	return 0;
}

bool disk_room_soon(struct tier *t, const struct gpool *gp, uint64_t bytes)
{
	struct disk *d = disk_of(tier_bottom(t));

	if (d->t.draining || d->t.broken || d->stopping || d->recovering || d->c.retry_ns ||
	    !(disk_space_of(d, gp->sp) || disk_space_coming(d, gp->sp)) || !disk_rate_ok(d))
		return false;
	for (unsigned i = 0; i < DISK_MAX_FILES; i++)
		if (takes_blocks(&d->file[i], disk_pages(bytes)))
			return true;
	return false;
}

/* The same for compaction, which has an open segment of its own. */
uint32_t disk_take_copy(struct disk *d, uint32_t owner, uint64_t bytes)
{
	uint32_t pages = disk_pages(bytes);
	struct dfile *f;

	if (d->c.dst && takes_blocks(d->c.dst->f, pages) && has_room(d->c.dst, pages))
		return take(d->c.dst, owner, bytes);
	for (unsigned i = 0; i < DISK_MAX_FILES; i++) {
		f = &d->file[d->turn++ % DISK_MAX_FILES];
		if (takes_blocks(f, pages) && !make_room(f, &d->c.dst, pages, 0))
			return take(d->c.dst, owner, bytes);
	}
	return 0;
}

/* ------------------------------------------------------------------- headers */

bool disk_header_fill(struct disk *d, struct dreq *q)
{
	const struct block *b = pool_block(d->p, q->r->block);
	const struct dspace *sp = disk_space_of(d, q->r->gp->sp);
	struct disk_header *h = &q->hdr;
	const struct disk_space *e;

	if (!sp)
		return false;
	e = sp->e;
	memset(h, 0, sizeof(*h));
	h->generation = q->s->gen;
	h->space = (uint16_t)e->idx;
	h->space_inc = e->inc;
	h->group = (uint8_t)q->r->gp->idx;
	h->pos = b->pos;
	memcpy(h->key, b->key, sizeof(h->key));
	if (b->parent)
		memcpy(h->parent, pool_block(d->p, b->parent)->key, sizeof(h->parent));
	h->epoch = d->p->sid[b->sid].epoch;
	h->bytes = q->pl->bytes;
	h->codec = tier_codec_of(q->r->gp, h->bytes);
	h->off = q->pl->off;
	h->seg = dseg_idx(q->f, q->s);
	h->sum = q->r->sum;
	h->block_gen = b->gen;
	disk_header_finish(h);
	q->pl->sum = q->r->sum;
	return true;
}

static uint32_t header_idx(const struct dreq *q)
{
	return (uint32_t)(q->pl - dseg_place(q->f, q->s, 0));
}

void dopen_ready(struct dreq *q)
{
	struct dopen *o = q->o;

	if (!o->nr_ready++)
		o->ready_ns = clock_ns();
	list_add_tail(&q->link, &o->ready);
}

void dopen_written(struct dreq *q)
{
	q->o->nr_writing--;
	q->o->nr_pending--;
}

/* Write the pages of the image that have headers @lo to @hi. */
static void write_headers(struct dopen *o, uint32_t lo, uint32_t hi)
{
	uint32_t per = DISK_ALIGN / sizeof(struct disk_header);
	uint32_t first = lo / per, last = hi / per;

	dopen_io(o, DIO_WRITE, DISK_ALIGN + first * DISK_ALIGN, (last - first + 1) * DISK_ALIGN);
}

static void fly(struct dopen *o)
{
	struct disk_header *image = dopen_headers(o);
	uint32_t lo = UINT32_MAX, hi = 0;
	struct list *n, *tmp;

	list_for_each_safe(n, tmp, &o->ready) {
		struct dreq *q = list_entry(n, struct dreq, link);
		uint32_t i = header_idx(q);

		list_del(n);
		if (q->pl->state != DP_WRITING) {
			disk_finish(q, -ECANCELED);	/* freed: no header */
			continue;
		}
		list_add_tail(n, &o->flying);
		image[i] = q->hdr;
		lo = min(lo, i);
		hi = max(hi, i);
	}
	o->nr_ready = 0;
	if (list_empty(&o->flying))
		return;
	fault_crash(CRASH_DATA);
	write_headers(o, lo, hi);
}

static void land(struct dopen *o, int err)
{
	while (!list_empty(&o->flying)) {
		struct dreq *q = list_first(&o->flying, struct dreq, link);

		list_del(&q->link);
		disk_finish(q, err);
	}
	if (!err)
		fault_crash(CRASH_HEADER);
}

/* Headers of this segment that are to be marked dead; false: none is in the image. */
static bool write_forgotten(struct dopen *o)
{
	struct disk *d = o->f->d;
	struct disk_header *image = dopen_headers(o);
	uint32_t lo = UINT32_MAX, hi = 0;

	for (uint32_t i = 0; i < o->s->nr; i++) {
		struct dplace *pl = dseg_place(o->f, o->s, i);

		if (!(pl->flags & DPF_FORGET) || pl->state != DP_DEAD)
			continue;
		pl->flags &= (uint8_t)~DPF_FORGET;
		o->s->nr_forget--;
		d->nr_forget--;
		if (!image[i].magic)
			continue;
		image[i].flags |= DISK_HDR_DEAD;
		disk_header_finish(&image[i]);
		lo = min(lo, i);
		hi = max(hi, i);
	}
	if (lo == UINT32_MAX)
		return false;
	write_headers(o, lo, hi);
	return true;
}

static bool is_time(const struct dopen *o)
{
	const struct disk *d = o->f->d;

	return o->nr_ready >= DISK_HDR_BATCH || o->nr_ready * 2 >= o->nr_writing ||
	       d->now >= o->ready_ns + DISK_HDR_NS || dfile_writes_idle(o->f);
}

uint64_t dopen_next_ns(const struct dopen *o)
{
	return o->s && o->nr_ready && !o->busy ? o->ready_ns + DISK_HDR_NS : 0;
}

/* -------------------------------------------------------------------- sealing */

static void sealed(struct dopen *o)
{
	struct dseg *s = o->s;

	o->s = NULL;
	s->state = DS_FULL;
	disk_maybe_free(o->f->d, o->f, s);
}

static void dopen_io_done(struct dio *io, int err)
{
	struct dopen *o = io->ctx;
	struct disk *d = o->f->d;

	o->busy = false;
	if (!err && o->s->state == DS_SEALING && io->op != DIO_SYNC)
		fault_crash(CRASH_SYNC);
	if (err)
		disk_say(d, "%s: %s of segment %u (offset %llu) failed: %s", o->f->path,
			 io->op == DIO_SYNC ? "fdatasync" : "write of the summary",
			 dseg_idx(o->f, o->s), (unsigned long long)io->off, strerror(-err));
	if (o->s->state == DS_OPENING) {
		o->s->state = DS_OPEN;
		o->failed = err != 0;
		if (err)
			dopen_close(o);
	} else if (o->s->state == DS_OPEN) {
		land(o, err);
	} else if (io->op == DIO_SYNC) {
		sealed(o);
	} else if (!err && sync_is_due(o)) {
		o->f->synced_ns = d->now;
		o->f->unsynced = false;
		dopen_io(o, DIO_SYNC, 0, 0);
	} else {
		o->f->unsynced = true;
		sealed(o);
	}
}

/* Places that were given out and not written to: at the end nobody will. */
static bool is_awaited(const struct dopen *o)
{
	const struct disk *d = o->f->d;

	return o->nr_pending &&
	       (!d->stopping || o->nr_writing || d->c.nr_copies || d->t.nr_inflight);
}

/* Start what can be started: headers, marks, seal. */
void dopen_pump(struct dopen *o)
{
	if (!o->s || o->busy || o->s->state == DS_OPENING)
		return;
	if (o->nr_ready && is_time(o))
		fly(o);
	if (o->busy || (o->s->nr_forget && !o->failed && write_forgotten(o)))
		return;
	if (!o->closed || is_awaited(o))
		return;
	if (o->failed) {
		sealed(o);
		return;
	}
	o->s->state = DS_SEALING;
	fault_crash(CRASH_SEAL);
	write_head(o, DISK_SEG_SEALED);
}
