/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bare.h - a block pool with nothing around it: the least that the work takes.
 *
 * 64-byte records with their 32-byte key, an open-addressing table of record
 * numbers at twice the blocks, two intrusive lists (free, LRU). No states, no
 * tenants, no checks, no restart, one owner of everything.
 */
#ifndef KVBENCH_BARE_H
#define KVBENCH_BARE_H

#include "tools/kvbench/kvbench.h"

struct bare_rec {
	uint32_t prev, next;
	uint32_t ref;
	uint32_t cached;	/* in the table */
	uint8_t key[KVMD_KEY_BYTES];
	uint32_t slot;
	uint32_t pad[3];
};
BUILD_BUG_ON(sizeof(struct bare_rec) != 64);

struct bare {
	struct bare_rec *rec;	/* [nr + 2]; 0 and 1 head the lists */
	uint32_t *tab;		/* [mask + 1], 0: empty */
	uint32_t mask;
	uint32_t nr;
	size_t rec_bytes, tab_bytes;
};

/* Make it new: @nr blocks, of which the first @nr_keys are cached under bench_key(i). */
uint64_t bare_init(struct bare *b, uint32_t nr, uint32_t nr_keys);

/* Each returns how many blocks it did. */
uint64_t bare_open(struct bare *b, uint8_t (*keys)[KVMD_KEY_BYTES], uint32_t nr, uint32_t *ids,
		   int32_t *row);
uint64_t bare_close(struct bare *b, const uint32_t *ids, uint32_t nr);
uint64_t bare_alloc(struct bare *b, uint32_t *ids, uint32_t nr, int32_t *row);
uint64_t bare_free(struct bare *b, const uint32_t *ids, uint32_t nr);
uint64_t bare_publish(struct bare *b, const uint32_t *ids, uint8_t (*keys)[KVMD_KEY_BYTES],
		      uint32_t nr);
uint64_t bare_drop(struct bare *b, const uint32_t *ids, uint32_t nr);
uint64_t bare_lookup(struct bare *b, uint8_t (*keys)[KVMD_KEY_BYTES], uint32_t nr);
/* The same for a pool that no cache holds. */
uint64_t bare_lookup_ahead(struct bare *b, uint8_t (*keys)[KVMD_KEY_BYTES], uint32_t nr);

#endif
