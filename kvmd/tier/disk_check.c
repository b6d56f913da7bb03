// SPDX-License-Identifier: Apache-2.0
/*
 * disk_check.c - does all that is counted add up? Walks every place: not while
 * requests are served.
 */
#include "kvmd/lib/err.h"
#include "kvmd/tier/disk_int.h"

struct count {
	uint64_t live, parked, pages, forget;
};

static void count_segment(const struct dfile *f, const struct dseg *s, struct count *c)
{
	for (uint32_t i = 0; i < s->nr; i++) {
		const struct dplace *pl = dseg_place(f, s, i);

		c->forget += !!(pl->flags & DPF_FORGET);
		if (pl->state == DP_NONE || pl->state == DP_DEAD)
			continue;
		if (pl->state == DP_PARKED || pl->state == DP_LATER)
			c->parked++;
		else
			c->live++;
		c->pages += disk_pages(pl->bytes);
	}
}

static int check_segment(const struct dfile *f, const struct dseg *s, struct count *all,
			 char *msg, size_t n)
{
	struct count c = { 0 };
	uint32_t seg = dseg_idx(f, s);

	count_segment(f, s, &c);
	if (c.live != s->nr_live || c.parked != s->nr_parked || c.pages != s->live_pages ||
	    c.forget != s->nr_forget)
		return err_text(-EUCLEAN, msg, n, "%s: segment %u counts %u live, %u parked, %u "
				"pages, %u to forget; there are %llu, %llu, %llu, %llu", f->path,
				seg, s->nr_live, s->nr_parked, s->live_pages, s->nr_forget,
				(unsigned long long)c.live, (unsigned long long)c.parked,
				(unsigned long long)c.pages, (unsigned long long)c.forget);
	if ((c.live || c.parked) && (s->state == DS_FREE || s->state == DS_UNREAD ||
				     s->state == DS_FREEING))
		return err_text(-EUCLEAN, msg, n, "%s: segment %u has blocks in state %u", f->path,
				seg, s->state);
	if (s->state == DS_FREE && s->nr_io)
		return err_text(-EUCLEAN, msg, n, "%s: free segment %u has I/O under way", f->path,
				seg);
	all->live += c.live;
	all->parked += c.parked;
	all->pages += c.pages;
	all->forget += c.forget;
	return 0;
}

static int check_file(const struct dfile *f, struct count *all, char *msg, size_t n)
{
	uint32_t nr_free = 0, nr_gone = 0, nr_list = 0, nr_open = 0, nr_dopen = 0;
	const struct list *l;

	for (uint32_t i = 0; i < f->sb->nr_segments; i++) {
		const struct dseg *s = &f->seg[i];
		int err = check_segment(f, s, all, msg, n);

		if (err)
			return err;
		nr_free += s->state == DS_FREE;
		nr_gone += s->state == DS_GONE;
		nr_open += s->state >= DS_OPENING && s->state <= DS_SEALING;
	}
	list_for_each(l, &f->free)
		nr_list++;
	for (unsigned i = 0; i < DISK_NR_OPEN; i++)
		nr_dopen += f->open[i].s != NULL;
	if (nr_free != f->nr_free || nr_free != nr_list)
		return err_text(-EUCLEAN, msg, n, "%s: %u free segments, %u counted, %u listed",
				f->path, nr_free, f->nr_free, nr_list);
	if (nr_gone + f->nr_usable != f->sb->nr_segments)
		return err_text(-EUCLEAN, msg, n, "%s: %u segments, %u usable, %u lost", f->path,
				f->sb->nr_segments, f->nr_usable, nr_gone);
	if (nr_open != nr_dopen)
		return err_text(-EUCLEAN, msg, n, "%s: %u segments open, %u in use for that",
				f->path, nr_open, nr_dopen);
	return 0;
}

int disk_check(struct tier *t, char *msg, size_t n)
{
	struct disk *d = disk_of(tier_bottom(t));
	uint32_t nr_free = 0, nr_dreq = 0;
	struct count all = { 0 };
	const struct list *l;
	struct dfile *f;
	int err;

	for_each_file(d, f) {
		err = check_file(f, &all, msg, n);
		if (err)
			return err;
		nr_free += f->draining || f->read_only ? 0 : f->nr_free;
	}
	if (nr_free != d->nr_free)
		return err_text(-EUCLEAN, msg, n, "disk tier: %u free segments, %u counted",
				nr_free, d->nr_free);
	if (all.live != d->nr_live || all.parked != d->nr_parked || all.pages != d->live_pages ||
	    all.forget != d->nr_forget || d->t.used_bytes != all.pages * DISK_ALIGN)
		return err_text(-EUCLEAN, msg, n, "disk tier: %llu live, %llu parked, %llu pages "
				"are not what is counted: %llu, %llu, %llu",
				(unsigned long long)all.live, (unsigned long long)all.parked,
				(unsigned long long)all.pages, (unsigned long long)d->nr_live,
				(unsigned long long)d->nr_parked,
				(unsigned long long)d->live_pages);
	list_for_each(l, &d->dreq_free)
		nr_dreq++;
	if (nr_dreq != d->nr_dreq_free)
		return err_text(-EUCLEAN, msg, n, "disk tier: %u free requests, %u counted",
				nr_dreq, d->nr_dreq_free);
	if (!d->t.nr_inflight && !d->c.nr_copies && !d->sc.busy && nr_dreq != DISK_NR_DREQ)
		return err_text(-EUCLEAN, msg, n, "disk tier: nothing is under way, and %u "
				"requests are not free", DISK_NR_DREQ - nr_dreq);
	return 0;
}
