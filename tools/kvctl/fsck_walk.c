// SPDX-License-Identifier: Apache-2.0
/*
 * fsck_walk.c - see fsck.h.
 *
 * Superblocks, space table, then segment by segment: head, headers, and on
 * request payloads. A segment's pages are marked as headers claim them, so that
 * two blocks in one place are seen. What is only unfinished is no fault: that is
 * what a crash leaves.
 */
#include "tools/kvctl/fsck.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kvmd/lib/mem.h"
#include "kvmd/lib/sum.h"
#include "kvmd/codec.h"

#define PIECE_BYTES	(1u << 20)	/* of a payload read at once */

struct walk {
	const struct fsck_ops *ops;
	struct fsck_file *f;
	int fd;
	bool is_file;			/* zero where nothing was written; a device need not be */
	uint8_t *summary;		/* summary_bytes */
	uint8_t *pages;			/* a bit per 4 KiB of a segment: claimed */
	uint8_t *piece;			/* PIECE_BYTES; NULL: payloads are not read */
};

__printf(3, 4) static void fault(struct walk *w, uint64_t off, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	w->f->nr_faults++;
	w->ops->fault(w->ops->ctx, off, text);
}

/* All of [off, off + bytes), or a fault that names @what. */
static bool get(struct walk *w, void *buf, size_t bytes, uint64_t off, const char *what)
{
	for (size_t at = 0; at < bytes;) {
		ssize_t n = pread(w->fd, (char *)buf + at, bytes - at, (off_t)(off + at));

		if (n > 0) {
			at += (size_t)n;
		} else if (!n) {
			fault(w, off, "%s: the file ends before it", what);
			return false;
		} else if (errno != EINTR) {
			fault(w, off, "%s: cannot be read: %s", what, strerror(errno));
			return false;
		}
	}
	return true;
}

/* -------------------------------------------------------------- superblocks */

/* The same but for what changes in a file's life. */
static bool same_layout(const struct disk_super *a, const struct disk_super *b)
{
	return a->nr_segments == b->nr_segments && a->segment_bytes == b->segment_bytes &&
	       a->nr_headers == b->nr_headers && a->data_off == b->data_off &&
	       !memcmp(a->set_uuid, b->set_uuid, sizeof(a->set_uuid));
}

static bool walk_supers(struct walk *w)
{
	static const char *const names[2] = { "superblock A", "superblock B" };
	struct disk_super s[2];
	bool fine[2];
	unsigned best;

	for (unsigned i = 0; i < 2; i++) {
		enum disk_why why;

		fine[i] = get(w, &s[i], sizeof(s[i]), i * DISK_ALIGN, names[i]);
		if (!fine[i])
			continue;
		why = disk_super_check(&s[i]);
		fine[i] = why == DISK_FINE;
		if (why == DISK_NO_MAGIC && i && fine[0] && mem_is_zero(&s[i], sizeof(s[i])))
			continue;		/* the file was just being made */
		if (why == DISK_BAD_VERSION)
			fault(w, i * DISK_ALIGN, "%s: version %u, this program knows %u", names[i],
			      s[i].version, DISK_VERSION);
		else if (why)
			fault(w, i * DISK_ALIGN, "%s: %s", names[i], disk_why_name(why));
	}
	if (!fine[0] && !fine[1])
		return false;
	if (fine[0] && fine[1] && !same_layout(&s[0], &s[1]))
		fault(w, DISK_ALIGN, "superblock B has another layout than A");
	best = !fine[0] || (fine[1] && s[1].seq > s[0].seq);
	w->f->super = s[best];
	w->f->has_super = true;
	if (disk_data_at(&s[best], s[best].nr_segments) > w->f->bytes)
		fault(w, w->f->bytes, "the file ends here, %u segments need %llu bytes: truncated?",
		      s[best].nr_segments,
		      (unsigned long long)disk_data_at(&s[best], s[best].nr_segments));
	return true;
}

/* -------------------------------------------------------------- space table */

/* One entry from its copies. A copy that was never written is zero. */
static void walk_space(struct walk *w, uint32_t idx, const struct disk_space *copies)
{
	struct fsck_space *sp = &w->f->space[idx];

	for (unsigned i = 0; i < 2; i++) {
		enum disk_why why = disk_space_check(&copies[i], idx);

		if (why == DISK_NO_MAGIC && mem_is_zero(&copies[i], sizeof(copies[i])))
			continue;
		if (why) {
			fault(w, disk_space_at(idx, i), "space %u, copy %c: %s", idx, 'A' + (int)i,
			      disk_why_name(why));
			continue;
		}
		if (!sp->there || copies[i].seq > sp->e.seq)
			sp->e = copies[i];
		sp->there = true;
	}
	for (uint32_t g = 0; sp->there && g < sp->e.nr_groups; g++)
		sp->coded_bytes[g] = kvmd_codec_bytes(&sp->e.group[g], sp->e.nr_shards);
}

static void walk_spaces(struct walk *w)
{
	struct disk_space copies[2];

	for (uint32_t i = 0; i < DISK_MAX_SPACES; i++) {
		const struct fsck_space *sp = &w->f->space[i];

		if (!get(w, copies, sizeof(copies), disk_space_at(i, 0), "space table"))
			return;
		walk_space(w, i, copies);
		for (uint32_t k = 0; sp->there && k < i; k++) {
			const struct fsck_space *o = &w->f->space[k];

			if (o->there && !strcmp(o->e.name, sp->e.name) &&
			    !strcmp(o->e.tenant, sp->e.tenant))
				fault(w, disk_space_at(i, 0), "space %u is %s/%s, as space %u is",
				      i, sp->e.tenant, sp->e.name, k);
		}
	}
}

/* ----------------------------------------------------------------- segments */

static void walk_payload(struct walk *w, uint32_t seg, const struct disk_header *h)
{
	uint64_t at = disk_data_at(&w->f->super, seg) + (uint64_t)h->off * DISK_ALIGN;
	struct sum s;

	sum_start(&s);
	for (uint64_t done = 0; done < h->bytes; done += PIECE_BYTES) {
		size_t n = (size_t)min(h->bytes - done, (uint64_t)PIECE_BYTES);

		if (!get(w, w->piece, n, at + done, "payload"))
			return;
		sum_add(&s, w->piece, n);
	}
	w->f->nr_verified++;
	w->f->verified_bytes += h->bytes;
	if (sum_end(&s) != h->sum)
		fault(w, at, "payload of %llu bytes in segment %u: wrong checksum",
		      (unsigned long long)h->bytes, seg);
}

/* Mark the pages of @h; false: one was taken. */
static bool claim(struct walk *w, const struct disk_header *h)
{
	uint64_t end = h->off + div_round_up(h->bytes, DISK_ALIGN);
	bool fine = true;

	for (uint64_t p = h->off; p < end; p++) {
		fine &= !(w->pages[p / 8] >> p % 8 & 1);
		w->pages[p / 8] |= (uint8_t)(1u << p % 8);
	}
	return fine;
}

static uint64_t block_bytes(const struct disk_space *e, uint32_t g)
{
	uint64_t one = e->group[g].planes * e->group[g].plane_bytes;

	return e->group[g].flags & KVMD_GROUP_REPLICA ? one : one * e->nr_shards;
}

/* What the payload of @h should have, its group and codec being the space's. */
static uint64_t stored_bytes(const struct fsck_space *sp, const struct disk_header *h)
{
	return h->codec ? sp->coded_bytes[h->group] : block_bytes(&sp->e, h->group);
}

/* A header that is right in itself, at @off of the file. */
static void walk_block(struct walk *w, uint32_t seg, const struct disk_header *h, uint64_t off)
{
	struct fsck_space *sp = &w->f->space[h->space];
	struct fsck_file *f = w->f;

	if (!claim(w, h))
		fault(w, off, "header in segment %u: its place %u is another block's too", seg,
		      h->off);
	if (h->flags & DISK_HDR_DEAD) {
		f->nr_dead++;
		return;
	}
	if (!sp->there) {
		fault(w, off, "header in segment %u: of space %u, which is not there", seg,
		      h->space);
		return;
	}
	/* Over, or of the space that had the entry before. */
	if (h->epoch < sp->e.epoch || h->space_inc != sp->e.inc) {
		f->nr_old++;
		return;
	}
	if (h->epoch > sp->e.epoch)
		fault(w, off, "header in segment %u: epoch %llu, the space's is %llu", seg,
		      (unsigned long long)h->epoch, (unsigned long long)sp->e.epoch);
	else if (h->group >= sp->e.nr_groups)
		fault(w, off, "header in segment %u: group %u of %u", seg, h->group,
		      sp->e.nr_groups);
	else if (h->codec && h->codec != sp->e.group[h->group].codec.id)
		fault(w, off, "header in segment %u: coded by %s, the group's codec is %s", seg,
		      kvmd_codec_name(h->codec),
		      kvmd_codec_name(sp->e.group[h->group].codec.id));
	else if (h->bytes != stored_bytes(sp, h))
		fault(w, off, "header in segment %u: %llu bytes, a block of the space has %llu",
		      seg, (unsigned long long)h->bytes,
		      (unsigned long long)stored_bytes(sp, h));
	f->nr_live++;
	f->live_bytes += h->bytes;
	sp->nr_live++;
	sp->live_bytes += h->bytes;
	if (w->ops->block)
		w->ops->block(w->ops->ctx, sp, h);
	if (w->piece)
		walk_payload(w, seg, h);
}

/*
 * Every header that verifies counts. One of a former use, or none at all, is a
 * hole: its write failed or was not over. Anything else was written and changed.
 */
static void walk_headers(struct walk *w, uint32_t seg, const struct disk_head *head)
{
	const struct disk_header *h = (const void *)(w->summary + DISK_ALIGN);
	const struct disk_super *s = &w->f->super;
	bool sealed = head->state == DISK_SEG_SEALED;
	uint32_t nr = sealed ? head->nr : s->nr_headers;

	memset(w->pages, 0, s->segment_bytes / DISK_ALIGN / 8);
	for (uint32_t i = 0; i < nr; i++) {
		uint64_t off = disk_summary_at(s, seg) + DISK_ALIGN + i * sizeof(*h);
		enum disk_why why = disk_header_check(s, &h[i], seg, head->generation);

		if (!why)
			walk_block(w, seg, &h[i], off);
		else if (why != DISK_OLD &&
			 (why != DISK_NO_MAGIC || (w->is_file && !mem_is_zero(&h[i], sizeof(h[i])))))
			fault(w, off, "header %u of segment %u: %s", i, seg, disk_why_name(why));
		else
			w->f->nr_holes += sealed;
	}
	for (uint32_t i = 0; i < head->nr_bad; i++)
		if (head->bad[i].times > 1)
			w->f->bad_bytes += (uint64_t)head->bad[i].len * DISK_ALIGN;
}

static void walk_segment(struct walk *w, uint32_t seg)
{
	struct fsck_file *f = w->f;
	uint64_t off = disk_summary_at(&f->super, seg);
	const struct disk_head *head = (const void *)w->summary;
	enum disk_why why;

	if (!get(w, w->summary, f->super.summary_bytes, off, "segment summary")) {
		f->nr_bad_segs++;
		return;
	}
	why = disk_head_check(&f->super, head, seg);
	if (why == DISK_OLD || (why == DISK_NO_MAGIC &&
				(!w->is_file || mem_is_zero(head, sizeof(*head))))) {
		f->nr_segs[DISK_SEG_FREE]++;	/* never used */
	} else if (why) {
		f->nr_bad_segs++;
		fault(w, off, "head of segment %u: %s", seg, disk_why_name(why));
	} else {
		f->nr_segs[head->state]++;
		if (head->state != DISK_SEG_FREE)
			walk_headers(w, seg, head);
	}
}

static int walk_segments(struct walk *w)
{
	const struct disk_super *s = &w->f->super;
	int err = -ENOMEM;

	w->summary = malloc(s->summary_bytes);
	w->pages = malloc(s->segment_bytes / DISK_ALIGN / 8);
	w->piece = w->ops->data ? malloc(PIECE_BYTES) : NULL;
	if (!w->summary || !w->pages || (w->ops->data && !w->piece))
		goto out;
	for (uint32_t seg = 0; seg < s->nr_segments; seg++) {
		/* What a truncated file lacks was said once. */
		if (disk_summary_at(s, seg) + s->summary_bytes > w->f->bytes)
			break;
		walk_segment(w, seg);
		if (w->ops->progress)
			w->ops->progress(w->ops->ctx, seg + 1, s->nr_segments);
	}
	err = 0;
out:
	free(w->piece);
	free(w->pages);
	free(w->summary);
	return err;
}

/* --------------------------------------------------------------------- file */

/* Has another process the lock that the daemon takes? */
static bool is_locked(int fd)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	return !fcntl(fd, F_OFD_GETLK, &l) && l.l_type != F_UNLCK;
}

static int open_file(const char *path, uint64_t *ret_bytes, bool *ret_is_file)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), err;
	struct stat st;
	off_t end;

	if (fd < 0)
		return -errno;
	err = fstat(fd, &st) ? -errno : S_ISREG(st.st_mode) || S_ISBLK(st.st_mode) ? 0 : -EINVAL;
	end = lseek(fd, 0, SEEK_END);
	if (!err && end < 0)
		err = -errno;
	if (err) {
		close(fd);
		return err;
	}
	*ret_bytes = (uint64_t)end;
	*ret_is_file = S_ISREG(st.st_mode);
	return fd;
}

int fsck_walk(const char *path, const struct fsck_ops *ops, struct fsck_file *ret_f)
{
	struct walk w = { .ops = ops, .f = ret_f };
	int err = 0;

	memset(ret_f, 0, sizeof(*ret_f));
	w.fd = open_file(path, &ret_f->bytes, &w.is_file);
	if (w.fd < 0)
		return w.fd;
	ret_f->locked = is_locked(w.fd);
	posix_fadvise(w.fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	if (walk_supers(&w)) {
		walk_spaces(&w);
		err = walk_segments(&w);
	}
	close(w.fd);
	return err;
}
