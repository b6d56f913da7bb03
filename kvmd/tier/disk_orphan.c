// SPDX-License-Identifier: Apache-2.0
/*
 * disk_orphan.c - recovered blocks whose parent is still to come.
 *
 * Summaries are read in the order they lie in, which after some use of a file
 * is not the order of their blocks. Who said LATER waits here, hashed by the key
 * of its parent, and is offered again when that was taken: one reading of the
 * summaries is enough. What does not fit is found by reading them once more
 * (disk.spilled). The table is there during a pass only. Core thread.
 */
#include "kvmd/lib/mem.h"
#include "kvmd/tier/disk_int.h"

#define NR_BUCKETS	(64u << 10)

struct dorphan {
	struct disk_header h;
	uint32_t place;
	uint32_t next;			/* bucket, ready or free; number + 1 */
};

#define ORPHAN_BYTES	(DISK_NR_ORPHANS * sizeof(struct dorphan))
#define BUCKET_BYTES	(NR_BUCKETS * sizeof(uint32_t))

static uint32_t *bucket(struct disk *d, const uint8_t *key, const struct disk_header *h)
{
	uint64_t v = hash_key32(&d->seed, key, (uint64_t)h->space << 8 | h->group);

	return &d->orphan_bucket[v % NR_BUCKETS];
}

static bool make_table(struct disk *d)
{
	if (d->orphan)
		return true;
	d->orphan = mem_big_alloc(ORPHAN_BYTES, false);
	d->orphan_bucket = mem_big_alloc(BUCKET_BYTES, false);
	if (d->orphan && d->orphan_bucket)
		return true;
	disk_orphan_exit(d);
	return false;
}

bool disk_orphan_add(struct disk *d, const struct disk_header *h, uint32_t place)
{
	struct dorphan *o;
	uint32_t *b, n;

	if (!make_table(d))
		return false;
	n = d->orphan_free;
	if (n)
		d->orphan_free = d->orphan[n - 1].next;
	else if (d->orphan_fresh < d->orphan_most)
		n = ++d->orphan_fresh;
	else
		return false;
	o = &d->orphan[n - 1];
	o->h = *h;
	o->place = place;
	b = bucket(d, h->parent, h);
	o->next = *b;
	*b = n;
	return true;
}

void disk_orphan_wake(struct disk *d, const struct disk_header *parent)
{
	uint32_t *at, n;

	if (!d->orphan)
		return;
	for (at = bucket(d, parent->key, parent); (n = *at);) {
		struct dorphan *o = &d->orphan[n - 1];

		if (memcmp(o->h.parent, parent->key, KVMD_KEY_BYTES) ||
		    o->h.space != parent->space || o->h.group != parent->group) {
			at = &o->next;
			continue;
		}
		*at = o->next;
		o->next = d->orphan_ready;
		d->orphan_ready = n;
	}
}

bool disk_orphan_next(struct disk *d, struct disk_header *ret_h, uint32_t *ret_place)
{
	uint32_t n = d->orphan_ready;
	struct dorphan *o;

	if (!n)
		return false;
	o = &d->orphan[n - 1];
	d->orphan_ready = o->next;
	o->next = d->orphan_free;
	d->orphan_free = n;
	*ret_h = o->h;
	*ret_place = o->place;
	return true;
}

void disk_orphan_drop(struct disk *d)
{
	if (!d->orphan)
		return;
	for (uint32_t i = 0; i < NR_BUCKETS; i++) {
		for (uint32_t n = d->orphan_bucket[i]; n; n = d->orphan[n - 1].next) {
			struct dfile *f;
			struct dseg *s;
			struct dplace *pl = disk_place(d, d->orphan[n - 1].place, &f, &s);

			if (pl && pl->state == DP_LATER && s->gen == d->orphan[n - 1].h.generation)
				disk_place_drop(d, f, s, pl);
		}
	}
	disk_orphan_exit(d);
}

void disk_orphan_exit(struct disk *d)
{
	mem_big_free(d->orphan, ORPHAN_BYTES);
	mem_big_free(d->orphan_bucket, BUCKET_BYTES);
	d->orphan = NULL;
	d->orphan_bucket = NULL;
	d->orphan_free = d->orphan_fresh = d->orphan_ready = 0;
}
