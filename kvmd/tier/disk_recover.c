// SPDX-License-Identifier: Apache-2.0
/*
 * disk_recover.c - what is in the files, told to the owner.
 *
 * A pass reads summaries, some megabytes at a time, several at once; slow workers
 * check heads and headers; the core thread offers what is right to the owner, a
 * bounded number of blocks per poll. The first pass reads all summaries; no block
 * is stored before it is over. Later passes read those of segments that have
 * parked blocks, because a space was opened.
 *
 * A segment whose summary is being read has nr_io, so that it is not reused; one
 * that is emptied meanwhile has dropped its parked places, which is seen.
 */
#include "kvmd/lib/fault.h"
#include "kvmd/lib/mem.h"
#include "kvmd/tier/disk_int.h"

/* --------------------------------------------------------------------- checking */

/* The head counts for nothing: of all that looks like a header the last generation. */
static uint64_t last_generation(const struct dfile *f, const struct disk_header *h, uint32_t seg)
{
	uint64_t gen = 0;

	for (uint32_t i = 0; i < f->sb->nr_headers; i++)
		if (h[i].magic == DISK_HEADER_MAGIC && h[i].generation > gen &&
		    !disk_header_check(f->sb, &h[i], seg, h[i].generation))
			gen = h[i].generation;
	return gen;
}

/* False: there is nothing in it. */
static bool check_head(const struct dfile *f, const uint8_t *mem, uint32_t seg,
		       struct dscan_seg *i, uint32_t *ret_nr)
{
	const struct disk_head *h = (const struct disk_head *)mem;
	enum disk_why why = disk_head_check(f->sb, h, seg);

	i->has_head = !why;
	if (why) {
		i->gen = last_generation(f, (const void *)(mem + DISK_ALIGN), seg);
		i->bad_head = why != DISK_OLD && !mem_is_zero(mem, DISK_ALIGN);
		return false;
	}
	i->gen = h->generation;
	i->seq = h->seq;
	*ret_nr = h->state == DISK_SEG_SEALED ? h->nr : 0;
	return h->state != DISK_SEG_FREE;
}

static void check_segment(struct dscan *sc, uint32_t k)
{
	const struct dfile *f = sc->f;
	uint64_t at = (uint64_t)k * f->sb->summary_bytes;
	const struct disk_header *h = (const struct disk_header *)(sc->mem + at + DISK_ALIGN);
	struct dscan_seg *info = &sc->info[k];
	uint32_t sealed = 0, seg = sc->seg + k;

	info->nr = info->nr_broken = 0;
	info->bad_head = info->has_head = info->empty = false;
	if (sc->first && !check_head(f, sc->mem + at, seg, info, &sealed)) {
		info->empty = true;
		return;
	}
	for (uint32_t i = 0; i < f->sb->nr_headers; i++) {
		enum disk_why why;

		if (h[i].magic != DISK_HEADER_MAGIC) {
			/* A write that failed left zeros, or a former generation's. */
			info->nr_broken += i < sealed && h[i].generation == info->gen;
			continue;
		}
		why = disk_header_check(f->sb, &h[i], seg, info->gen);
		info->nr_broken += why == DISK_BAD_CRC && i < sealed;
		if (why)
			continue;
		info->nr = i + 1;
		if (!(h[i].flags & DISK_HDR_DEAD))
			sc->found[sc->nr_found++] = (uint32_t)((const uint8_t *)&h[i] - sc->mem) /
						    (uint32_t)sizeof(*h);
	}
	info->nr = max(info->nr, sealed);
}

static void check_fn(struct work *w)
{
	struct dscan *sc = container_of(w, struct dscan, work);

	sc->nr_found = sc->at = 0;
	for (uint32_t k = 0; k < sc->nr; k++)
		if (sc->info[k].wanted)
			check_segment(sc, k);
}

/* --------------------------------------------------------------------- offering */

static enum disk_verdict ask(struct disk *d, const struct disk_header *h, uint32_t place,
			     uint32_t *ret_owner)
{
	const struct dspace *sp = &d->sp[h->space];
	const struct kvmd_group *g;

	if (!sp->used || sp->e->inc != h->space_inc || h->epoch < sp->e->epoch ||
	    h->group >= sp->e->nr_groups)
		return DISK_GONE;
	/* How many bytes a coded one has is for who takes it to know. */
	g = &sp->e->group[h->group];
	if (h->codec ? h->codec != g->codec.id : h->bytes != tier_group_bytes(g, sp->e->nr_shards))
		return DISK_GONE;
	return d->ev.found ? d->ev.found(d->ev.ctx, sp->e, h, place, ret_owner) : DISK_PARK;
}

/* @pl is PARKED or LATER. */
static void offer(struct disk *d, const struct disk_header *h, struct dfile *f, struct dseg *s,
		  struct dplace *pl)
{
	uint32_t place = disk_place_no(f, pl), owner = 0;

	switch (ask(d, h, place, &owner)) {
	case DISK_TAKEN:
		fault_crash(CRASH_RECOVER);
		pl->state = DP_LIVE;
		pl->owner = owner;
		s->nr_parked--;
		d->nr_parked--;
		s->nr_live++;
		d->nr_live++;
		d->pass_taken++;
		disk_orphan_wake(d, h);
		break;
	case DISK_PARK:
		pl->state = DP_PARKED;
		s->parked_in |= 1ull << h->space % 64;
		break;
	case DISK_LATER:
		pl->state = DP_LATER;
		s->parked_in |= 1ull << h->space % 64;
		if (!disk_orphan_add(d, h, place))
			d->spilled = true;
		break;
	case DISK_GONE:
		disk_place_drop(d, f, s, pl);
		break;
	}
}

static void offer_found(struct disk *d, struct dscan *sc)
{
	uint32_t at = sc->found[sc->at++];
	const struct disk_header *h = (const struct disk_header *)sc->mem + at;
	struct dseg *s = &sc->f->seg[h->seg];
	uint32_t per = sc->f->sb->summary_bytes / (uint32_t)sizeof(*h);
	uint32_t i = at % per - DISK_ALIGN / (uint32_t)sizeof(*h);
	struct dplace *pl = dseg_place(sc->f, s, i);

	if (sc->first) {
		pl->sum = h->sum;
		pl->off = h->off;
		pl->bytes = h->bytes;
		pl->state = DP_PARKED;
		s->nr_parked++;
		d->nr_parked++;
		s->live_pages += disk_pages(h->bytes);
		d->live_pages += disk_pages(h->bytes);
		d->t.used_bytes = d->live_pages * DISK_ALIGN;
	} else if (s->gen != h->generation ||
		   (pl->state != DP_PARKED && pl->state != DP_LATER)) {
		return;
	}
	offer(d, h, sc->f, s, pl);
}

static void offer_orphan(struct disk *d, const struct disk_header *h, uint32_t place)
{
	struct dfile *f;
	struct dseg *s;
	struct dplace *pl = disk_place(d, place, &f, &s);

	if (pl && pl->state == DP_LATER && s->gen == h->generation)
		offer(d, h, f, s, pl);
}

/* -------------------------------------------------------------------- summaries */

static void let_go(struct disk *d, struct dscan *sc)
{
	struct dfile *f = sc->f;

	sc->f = NULL;
	sc->ready = false;
	for (uint32_t k = 0; k < sc->nr; k++) {
		struct dseg *s = &f->seg[sc->seg + k];

		if (!sc->info[k].wanted)
			continue;
		d->scan_done += s->state != DS_UNREAD;
		s->nr_io--;
		disk_maybe_free(d, f, s);
	}
}

/* What was said of the segments, before their blocks are offered. */
static void take_info(struct disk *d, struct dscan *sc)
{
	for (uint32_t k = 0; k < sc->nr; k++) {
		const struct disk_head *h = (const void *)(sc->mem +
							   (uint64_t)k * sc->f->sb->summary_bytes);
		const struct dscan_seg *i = &sc->info[k];
		uint32_t seg = sc->seg + k;
		struct dseg *s = &sc->f->seg[seg];

		if (!sc->first || !i->wanted)
			continue;
		s->state = DS_FULL;
		s->gen = i->gen;
		s->seq = i->seq;
		s->nr = i->nr;
		d->seg_seq = max(d->seg_seq, i->seq);
		d->nr_broken += i->nr_broken + i->bad_head;
		if (i->bad_head || i->nr_broken)
			disk_say(d, "%s: segment %u (summary at offset %llu): %s: what it named is "
				 "lost", sc->f->path, seg,
				 (unsigned long long)disk_summary_at(sc->f->sb, seg),
				 i->bad_head ? "its head is broken" : "headers are broken");
		for (uint32_t b = 0; i->has_head && b < h->nr_bad; b++)
			disk_bad_note(d, sc->f, seg, h->bad[b].off, h->bad[b].len, h->bad[b].times);
	}
}

static void checked(struct work *w)
{
	struct dscan *sc = container_of(w, struct dscan, work);

	sc->d->nr_work--;
	sc->d->kick = true;
	sc->ready = true;
	take_info(sc->d, sc);
}

/* Read them again one by one; one alone that cannot be read is out of use. */
static void failed(struct disk *d, struct dscan *sc, int err)
{
	struct dfile *f = sc->f;

	if (sc->nr > 1) {
		f->scan_single = max(f->scan_single, sc->seg + sc->nr);
		f->scan_seg = min(f->scan_seg, sc->seg);
	} else {
		struct dseg *s = &f->seg[sc->seg];

		disk_say(d, "%s: summary of segment %u (offset %llu): %s: not used until a restart",
			 f->path, sc->seg, (unsigned long long)disk_summary_at(f->sb, sc->seg),
			 strerror(-err));
		if (sc->first) {
			s->state = DS_GONE;
			f->nr_usable--;
			d->t.bytes -= f->sb->segment_bytes;
		}
	}
	let_go(d, sc);
}

static void was_read(struct dio *io, int err)
{
	struct dscan *sc = io->ctx;

	if (err || sc->d->closing) {
		failed(sc->d, sc, err);
		return;
	}
	sc->work.fn = check_fn;
	sc->work.done = checked;
	sc->d->nr_work++;
	workers_submit(sc->d->slow, &sc->work);
}

static bool is_wanted(const struct disk *d, const struct dseg *s)
{
	if (s->nr_io && s->state == DS_UNREAD)
		return false;		/* somebody reads it */
	if (d->recovering)
		return s->state == DS_UNREAD;
	return s->nr_parked && s->parked_in & d->scan_in && s->state == DS_FULL;
}

/* Read the next summaries of @f; false: there are none. */
static bool read_some(struct disk *d, struct dscan *sc, struct dfile *f)
{
	uint32_t most = (uint32_t)(sc->mem_bytes / f->sb->summary_bytes), last = 0;

	while (f->scan_seg < f->sb->nr_segments && !is_wanted(d, &f->seg[f->scan_seg]))
		f->scan_seg++;
	if (f->scan_seg >= f->sb->nr_segments)
		return false;
	if (f->scan_seg < f->scan_single)
		most = 1;
	sc->f = f;
	sc->seg = f->scan_seg;
	sc->first = d->recovering;
	for (uint32_t k = 0; k < most && sc->seg + k < f->sb->nr_segments; k++) {
		struct dseg *s = &f->seg[sc->seg + k];

		sc->info[k].wanted = is_wanted(d, s);
		sc->info[k].gen = s->gen;
		if (!sc->info[k].wanted)
			continue;
		s->nr_io++;
		last = k;
	}
	sc->nr = last + 1;
	f->scan_seg += sc->nr;
	dio_start(&sc->io, f, DIO_READ, sc->mem, sc->nr * f->sb->summary_bytes,
		  disk_summary_at(f->sb, sc->seg), was_read, sc);
	return true;
}

static bool read_next(struct disk *d, struct dscan *sc)
{
	for (unsigned i = 0; i < DISK_MAX_FILES; i++) {
		struct dfile *f = &d->file[d->scan_file++ % DISK_MAX_FILES];

		if (f->path && !f->drained && read_some(d, sc, f))
			return true;
	}
	return false;
}

/* ------------------------------------------------------------------------ passes */

void disk_recover_start(struct disk *d, bool first)
{
	struct dfile *f;

	d->kick = true;
	d->recovering = first;
	d->scanning = true;
	d->scan_in = d->spilled ? d->scan_in : 0;
	d->scan_in |= first ? UINT64_MAX : d->rescan_in;
	d->rescan = d->spilled = false;
	d->rescan_in = 0;
	d->pass_taken = 0;
	d->scan_done = d->scan_total = 0;
	for_each_file(d, f) {
		f->scan_seg = f->scan_single = 0;
		for (uint32_t i = 0; i < f->sb->nr_segments; i++)
			d->scan_total += is_wanted(d, &f->seg[i]);
	}
}

/* LATER blocks that the table had no room for, when nothing more will come. */
static void drop_spilled(struct disk *d)
{
	struct dfile *f;

	for_each_file(d, f)
		for (uint32_t k = 0; k < f->sb->nr_segments; k++)
			for (uint32_t i = 0; f->seg[k].nr_parked && i < f->seg[k].nr; i++) {
				struct dplace *pl = dseg_place(f, &f->seg[k], i);

				if (pl->state == DP_LATER)
					disk_place_drop(d, f, &f->seg[k], pl);
			}
}

static void pass_over(struct disk *d)
{
	bool first = d->recovering, more;
	struct dfile *f;

	/* A space came in the middle: what seems orphaned may have parked parents. */
	d->spilled |= d->rescan && d->nr_parked;
	more = d->spilled && (d->pass_taken || d->rescan);
	d->recovering = d->scanning = false;
	if (more) {
		disk_orphan_exit(d);	/* all of them are read again */
	} else {
		disk_orphan_drop(d);
		if (d->spilled)
			drop_spilled(d);
	}
	for_each_file(d, f)
		for (uint32_t i = 0; first && i < f->sb->nr_segments; i++)
			disk_maybe_free(d, f, &f->seg[i]);
	if (more || (d->rescan && d->nr_parked))
		disk_recover_start(d, false);
	d->first_over |= first;
	if (d->first_over && !more && !d->told) {
		d->told = true;
		if (d->ev.recovered)
			d->ev.recovered(d->ev.ctx);
	}
}

void disk_recover_pump(struct disk *d)
{
	struct disk_header h;
	unsigned n = 0, nr_busy = 0;
	uint32_t place;

	if (d->closing)
		return;
	if (!d->scanning && d->rescan && !d->stopping)
		disk_recover_start(d, false);
	if (!d->scanning)
		return;
	while (n < DISK_ADOPT && disk_orphan_next(d, &h, &place)) {
		offer_orphan(d, &h, place);
		n++;
	}
	for (unsigned i = 0; i < DISK_NR_SCAN; i++) {
		struct dscan *sc = &d->scan[i];

		for (; sc->ready && n < DISK_ADOPT && sc->at < sc->nr_found; n++)
			offer_found(d, sc);
		if (sc->ready && sc->at == sc->nr_found)
			let_go(d, sc);
		if (!sc->f && (d->stopping || !read_next(d, sc)))
			continue;
		nr_busy++;
	}
	if (!nr_busy && !d->orphan_ready && !d->stopping)
		pass_over(d);
}

bool disk_recover_more(const struct disk *d)
{
	if (d->orphan_ready || (!d->scanning && d->rescan && !d->stopping))
		return true;
	for (unsigned i = 0; i < DISK_NR_SCAN; i++)
		if (d->scan[i].ready)
			return true;
	return false;
}

/* ------------------------------------------------------------------------ set-up */

int disk_recover_init(struct disk *d)
{
	for (unsigned i = 0; i < DISK_NR_SCAN; i++)
		d->scan[i].d = d;
	d->orphan_most = DISK_NR_ORPHANS;
	return hash_seed_init(&d->seed);
}

static void scan_free(struct dscan *sc)
{
	mem_big_free(sc->mem, sc->mem_bytes);
	mem_free(sc->found);
	mem_free(sc->info);
	sc->mem = NULL;
	sc->found = NULL;
	sc->info = NULL;
	sc->mem_bytes = 0;
}

int disk_recover_fit(struct disk *d)
{
	size_t bytes = DISK_SCAN_BYTES;
	struct dfile *f;

	for_each_file(d, f)
		bytes = max(bytes, (size_t)f->sb->summary_bytes);
	for (unsigned i = 0; i < DISK_NR_SCAN; i++) {
		struct dscan *sc = &d->scan[i];

		if (sc->mem_bytes >= bytes)
			continue;
		scan_free(sc);
		sc->mem = mem_big_alloc(bytes, false);
		sc->found = mem_calloc(bytes / sizeof(struct disk_header), sizeof(*sc->found));
		sc->info = mem_calloc(bytes / DISK_ALIGN, sizeof(*sc->info));
		if (!sc->mem || !sc->found || !sc->info)
			return -ENOMEM;
		sc->mem_bytes = bytes;
	}
	return 0;
}

void disk_recover_exit(struct disk *d)
{
	disk_orphan_exit(d);
	for (unsigned i = 0; i < DISK_NR_SCAN; i++)
		scan_free(&d->scan[i]);
}
