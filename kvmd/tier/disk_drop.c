// SPDX-License-Identifier: Apache-2.0
/*
 * disk_drop.c - what failed, and what is to be forgotten.
 *
 * A place whose bytes are not what was written is lost at once, and its range of
 * the segment is suspect; a range that fails a second time, in this use of the
 * segment or a later one, is bad and skipped from then on. Both are kept in the
 * heads of their segments, as these are written (up to DISK_MAX_BAD a segment).
 *
 * Forgetting marks a header on disk dead: in the image of an open segment, else
 * by reading the summary and writing the page back, one segment at a time.
 * Core thread only.
 */
#include "kvmd/lib/mem.h"
#include "kvmd/tier/disk_int.h"

#define LOOK_SEGS	4096u		/* segments looked at per poll */

/* --------------------------------------------------------------- bad ranges */

static bool overlap(const struct dbad *b, const struct dfile *f, uint32_t seg, uint32_t off,
		    uint32_t len)
{
	return b->file == f->idx && b->seg == seg && b->r.off < off + len &&
	       off < b->r.off + b->r.len;
}

/* Room for one more: of the suspect ones the oldest goes. NULL: all are bad. */
static struct dbad *new_bad(struct disk *d)
{
	if (d->nr_bads < DISK_NR_BADS)
		return &d->bad[d->nr_bads++];
	for (unsigned i = 0; i < DISK_NR_BADS; i++) {
		struct dbad *b = &d->bad[d->bad_next++ % DISK_NR_BADS];

		if (b->r.times < 2)
			return b;
	}
	return NULL;
}

void disk_bad_note(struct disk *d, struct dfile *f, uint32_t seg, uint32_t off, uint32_t len,
		   uint32_t times)
{
	struct dbad *b = NULL;

	for (unsigned i = 0; i < d->nr_bads && !b; i++)
		if (overlap(&d->bad[i], f, seg, off, len))
			b = &d->bad[i];
	if (b && b->r.times == 2)
		return;
	if (b)
		times = 2;
	else
		b = new_bad(d);
	if (!b)
		return;
	*b = (struct dbad) { .file = f->idx, .seg = seg, .r = { off, len, times } };
	if (times == 2) {
		d->nr_bad++;
		disk_say(d, "%s: %llu bytes at offset %llu failed twice and are not used again",
			 f->path, (unsigned long long)len * DISK_ALIGN,
			 (unsigned long long)(disk_data_at(f->sb, seg) +
					      (uint64_t)off * DISK_ALIGN));
	}
}

/* The first page from @off on where @len pages are not bad; maybe behind the segment. */
uint32_t disk_bad_skip(const struct disk *d, const struct dfile *f, uint32_t seg, uint32_t off,
		       uint32_t len)
{
	for (unsigned i = 0; i < d->nr_bads; i++) {
		const struct dbad *b = &d->bad[i];

		if (b->r.times == 2 && overlap(b, f, seg, off, len)) {
			off = b->r.off + b->r.len;
			i = -1u;	/* what was passed may be met now */
		}
	}
	return off;
}

void disk_bad_fill(const struct disk *d, const struct dfile *f, uint32_t seg,
		   struct disk_head *h)
{
	for (unsigned i = 0; i < d->nr_bads && h->nr_bad < DISK_MAX_BAD; i++)
		if (d->bad[i].file == f->idx && d->bad[i].seg == seg)
			h->bad[h->nr_bad++] = d->bad[i].r;
}

void disk_bad_close(struct disk *d, const struct dfile *f)
{
	for (unsigned i = 0; i < d->nr_bads;) {
		if (d->bad[i].file != f->idx) {
			i++;
			continue;
		}
		d->nr_bad -= d->bad[i].r.times == 2;
		d->bad[i] = d->bad[--d->nr_bads];
	}
}

/* The bytes of @pl are not those that were written, or cannot be read. */
void disk_place_failed(struct disk *d, struct dfile *f, struct dseg *s, struct dplace *pl)
{
	uint32_t seg = dseg_idx(f, s), owner = pl->owner;
	bool live = pl->state == DP_LIVE;

	if (pl->state == DP_DEAD)
		return;
	disk_say(d, "%s: the block of %u bytes at offset %llu is not what was written: dropped",
		 f->path, pl->bytes,
		 (unsigned long long)(disk_data_at(f->sb, seg) + (uint64_t)pl->off * DISK_ALIGN));
	disk_bad_note(d, f, seg, pl->off, disk_pages(pl->bytes), 1);
	disk_place_drop(d, f, s, pl);
	if (live && d->ev.lost)
		d->ev.lost(d->ev.ctx, owner, disk_place_no(f, pl));
}

/* ------------------------------------------------------------------ forgetting */

static void forget(struct disk *d, struct dseg *s, struct dplace *pl)
{
	pl->flags |= DPF_FORGET;
	s->nr_forget++;
	d->kick = true;
	d->nr_forget++;
}

void disk_forget_late(struct disk *d, struct dseg *s, struct dplace *pl)
{
	pl->flags &= (uint8_t)~DPF_LATE;
	forget(d, s, pl);
}

void disk_forget_place(struct disk *d, struct dfile *f, struct dseg *s, struct dplace *pl)
{
	if (!f->read_only) {
		if (pl->state == DP_WRITING)
			pl->flags |= DPF_LATE;
		else if (pl->state >= DP_LIVE && pl->state < DP_DEAD)
			forget(d, s, pl);
	}
	disk_place_drop(d, f, s, pl);
}

static void over(struct disk *d)
{
	struct dfile *f = d->fg_file;

	d->fg_file = NULL;
	d->fg_seg->nr_io--;
	disk_maybe_free(d, f, d->fg_seg);
}

static void written(struct dio *io, int err)
{
	struct disk *d = io->ctx;

	if (err)
		disk_say(d, "%s: headers of segment %u (offset %llu) could not be marked dead: %s",
			 d->fg_file->path, dseg_idx(d->fg_file, d->fg_seg),
			 (unsigned long long)io->off, strerror(-err));
	over(d);
}

/* Mark the headers of what is to be forgotten; false: none is there. */
static bool mark(struct disk *d)
{
	struct dfile *f = d->fg_file;
	struct dseg *s = d->fg_seg;
	uint32_t seg = dseg_idx(f, s);

	d->fg_lo = UINT32_MAX;
	d->fg_hi = 0;
	for (uint32_t i = 0; i < s->nr; i++) {
		struct dplace *pl = dseg_place(f, s, i);
		uint32_t at = DISK_ALIGN + i * (uint32_t)sizeof(struct disk_header);
		struct disk_header *h = (struct disk_header *)(d->fg_mem + at);

		if (!(pl->flags & DPF_FORGET))
			continue;
		pl->flags &= (uint8_t)~DPF_FORGET;
		s->nr_forget--;
		d->nr_forget--;
		if (disk_header_check(f->sb, h, seg, s->gen))
			continue;	/* not there, or it would not be found */
		h->flags |= DISK_HDR_DEAD;
		disk_header_finish(h);
		d->fg_lo = min(d->fg_lo, at / DISK_ALIGN * DISK_ALIGN);
		d->fg_hi = max(d->fg_hi, (at / DISK_ALIGN + 1) * DISK_ALIGN);
	}
	return d->fg_lo != UINT32_MAX;
}

static void fg_start(struct disk *d, enum dio_op op, uint32_t at, uint32_t bytes,
		     void (*done)(struct dio *io, int err))
{
	struct dfile *f = d->fg_file;

	dio_start(&d->fg_io, f, op, d->fg_mem + at, bytes,
		  disk_summary_at(f->sb, dseg_idx(f, d->fg_seg)) + at, done, d);
}

static void was_read(struct dio *io, int err)
{
	struct disk *d = io->ctx;

	if (err)	/* then recovery cannot read it either: mark() finds nothing in zeros */
		memset(d->fg_mem, 0, d->fg_file->sb->summary_bytes);
	if (mark(d))
		fg_start(d, DIO_WRITE, d->fg_lo, d->fg_hi - d->fg_lo, written);
	else
		over(d);
}

void disk_forget_pump(struct disk *d)
{
	if (!d->nr_forget || d->fg_file || d->closing)
		return;
	for (unsigned n = 0; n < LOOK_SEGS; n++) {
		struct dfile *f = &d->file[d->fg_at_file];
		struct dseg *s;

		if (!f->path || d->fg_at_seg >= f->sb->nr_segments) {
			d->fg_at_file = (d->fg_at_file + 1) % DISK_MAX_FILES;
			d->fg_at_seg = 0;
			continue;
		}
		s = &f->seg[d->fg_at_seg++];
		if (!s->nr_forget || (s->state != DS_FULL && s->state != DS_EMPTYING))
			continue;
		s->nr_io++;
		d->fg_file = f;
		d->fg_seg = s;
		fg_start(d, DIO_READ, 0, f->sb->summary_bytes, was_read);
		return;
	}
}

int disk_forget_fit(struct disk *d)
{
	size_t bytes = 0;
	struct dfile *f;

	for_each_file(d, f)
		bytes = max(bytes, (size_t)f->sb->summary_bytes);
	if (d->fg_file)
		return -EBUSY;
	if (bytes <= d->fg_bytes)
		return 0;
	disk_forget_exit(d);
	d->fg_mem = mem_big_alloc(bytes, false);
	if (!d->fg_mem)
		return -ENOMEM;
	d->fg_bytes = bytes;
	return 0;
}

void disk_forget_exit(struct disk *d)
{
	mem_big_free(d->fg_mem, d->fg_bytes);
	d->fg_mem = NULL;
	d->fg_bytes = 0;
}
