/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bare.c - the operations of a pool on bare arrays.
 *
 * Keys are taken as they are (they are random): their first word is the place
 * in the table. Looking ahead with prefetches gains a third in a cold pool and
 * costs a little in a hot one, so the cold floor does it and the hot one does not.
 */
#include <sys/mman.h>

#include "tools/kvbench/bare.h"

#define FREE_HEAD	0u
#define LRU_HEAD	1u

void bench_key(uint64_t i, uint8_t *ret_key)
{
	for (uint64_t w = 0; w < 4; w++) {
		uint64_t x = i * 4 + w + 0x9e3779b97f4a7c15ull * (w + 1);

		/* splitmix64's finaliser */
		x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
		x = (x ^ x >> 27) * 0x94d049bb133111ebull;
		x ^= x >> 31;
		memcpy(ret_key + w * 8, &x, 8);
	}
}

static inline void append(struct bare *b, uint32_t list, uint32_t x)
{
	uint32_t last = b->rec[list].prev;

	b->rec[x].prev = last;
	b->rec[x].next = list;
	b->rec[last].next = x;
	b->rec[list].prev = x;
}

static inline void unlink_rec(struct bare *b, uint32_t x)
{
	uint32_t p = b->rec[x].prev, n = b->rec[x].next;

	b->rec[p].next = n;
	b->rec[n].prev = p;
}

static inline uint32_t place(const struct bare *b, const uint8_t *key)
{
	uint32_t h;

	memcpy(&h, key, sizeof(h));
	return h & b->mask;
}

static inline bool same(const uint8_t *a, const uint8_t *b)
{
	uint64_t x[4], y[4];

	memcpy(x, a, sizeof(x));
	memcpy(y, b, sizeof(y));
	return !((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3]));
}

/* The record of @key, 0: none; *ret_at is where it is or would be. */
static inline uint32_t find(const struct bare *b, const uint8_t *key, uint32_t *ret_at)
{
	uint32_t i = place(b, key), x;

	for (; (x = b->tab[i]); i = (i + 1) & b->mask)
		if (same(b->rec[x].key, key))
			break;
	*ret_at = i;
	return x;
}

static void delete(struct bare *b, uint32_t x)
{
	uint32_t i, j, y;

	if (find(b, b->rec[x].key, &i) != x)
		return;
	/* close the gap, so that a search may stop at an empty place */
	for (j = i;;) {
		uint32_t home;

		j = (j + 1) & b->mask;
		y = b->tab[j];
		if (!y)
			break;
		home = place(b, b->rec[y].key);
		if (((j - home) & b->mask) >= ((j - i) & b->mask)) {
			b->tab[i] = y;
			i = j;
		}
	}
	b->tab[i] = 0;
	b->rec[x].cached = 0;
}

static void *get_memory(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		kvb_die("no memory for a floor of %zu bytes", bytes);
	madvise(p, bytes, MADV_HUGEPAGE);
	memset(p, 0, bytes);
	return p;
}

uint64_t bare_init(struct bare *b, uint32_t nr, uint32_t nr_keys)
{
	uint32_t at;

	if (b->rec) {
		munmap(b->rec, b->rec_bytes);
		munmap(b->tab, b->tab_bytes);
	}
	b->nr = nr;
	b->mask = (uint32_t)roundup_pow2(2ull * nr) - 1;
	b->rec_bytes = ((size_t)nr + 2) * sizeof(*b->rec);
	b->tab_bytes = ((size_t)b->mask + 1) * sizeof(*b->tab);
	b->rec = (struct bare_rec *)get_memory(b->rec_bytes);
	b->tab = (uint32_t *)get_memory(b->tab_bytes);
	b->rec[FREE_HEAD].prev = b->rec[FREE_HEAD].next = FREE_HEAD;
	b->rec[LRU_HEAD].prev = b->rec[LRU_HEAD].next = LRU_HEAD;
	for (uint32_t i = 0; i < nr; i++) {
		uint32_t x = i + 2;

		b->rec[x].slot = i + 1;
		append(b, i < nr_keys ? LRU_HEAD : FREE_HEAD, x);
		if (i >= nr_keys)
			continue;
		bench_key(i, b->rec[x].key);
		find(b, b->rec[x].key, &at);
		b->tab[at] = x;
		b->rec[x].cached = 1;
	}
	return nr;
}

uint64_t bare_open(struct bare *b, uint8_t (*keys)[KVMD_KEY_BYTES], uint32_t nr, uint32_t *ids,
		   int32_t *row)
{
	uint32_t at;

	for (uint32_t i = 0; i < nr; i++) {
		uint32_t x = find(b, keys[i], &at);

		if (!x)
			return i;
		if (!b->rec[x].ref++)
			unlink_rec(b, x);
		ids[i] = x;
		row[i] = (int32_t)b->rec[x].slot;
	}
	return nr;
}

uint64_t bare_close(struct bare *b, const uint32_t *ids, uint32_t nr)
{
	for (uint32_t i = nr; i-- > 0;)
		if (!--b->rec[ids[i]].ref)
			append(b, LRU_HEAD, ids[i]);
	return nr;
}

uint64_t bare_alloc(struct bare *b, uint32_t *ids, uint32_t nr, int32_t *row)
{
	for (uint32_t i = 0; i < nr; i++) {
		uint32_t x = b->rec[FREE_HEAD].next;

		if (x == FREE_HEAD)
			return i;
		unlink_rec(b, x);
		b->rec[x].ref = 1;
		ids[i] = x;
		row[i] = (int32_t)b->rec[x].slot;
	}
	return nr;
}

uint64_t bare_free(struct bare *b, const uint32_t *ids, uint32_t nr)
{
	for (uint32_t i = nr; i-- > 0;) {
		b->rec[ids[i]].ref = 0;
		append(b, FREE_HEAD, ids[i]);
	}
	return nr;
}

uint64_t bare_publish(struct bare *b, const uint32_t *ids, uint8_t (*keys)[KVMD_KEY_BYTES],
		      uint32_t nr)
{
	uint32_t at;

	for (uint32_t i = 0; i < nr; i++) {
		struct bare_rec *r = &b->rec[ids[i]];

		memcpy(r->key, keys[i], sizeof(r->key));
		if (find(b, r->key, &at))
			return i;
		b->tab[at] = ids[i];
		r->cached = 1;
	}
	return nr;
}

uint64_t bare_drop(struct bare *b, const uint32_t *ids, uint32_t nr)
{
	for (uint32_t i = 0; i < nr; i++)
		delete(b, ids[i]);
	return bare_free(b, ids, nr);
}

uint64_t bare_lookup_ahead(struct bare *b, uint8_t (*keys)[KVMD_KEY_BYTES], uint32_t nr)
{
	for (uint32_t i = 0; i < nr; i++)
		__builtin_prefetch(&b->tab[place(b, keys[i])]);
	for (uint32_t i = 0; i < nr; i++)
		__builtin_prefetch(&b->rec[b->tab[place(b, keys[i])]]);
	return bare_lookup(b, keys, nr);
}

uint64_t bare_lookup(struct bare *b, uint8_t (*keys)[KVMD_KEY_BYTES], uint32_t nr)
{
	uint32_t at;

	for (uint32_t i = 0; i < nr; i++)
		if (!find(b, keys[i], &at))
			return i;
	return nr;
}
