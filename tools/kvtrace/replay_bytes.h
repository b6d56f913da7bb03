/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replay_bytes.h - what stands in a block, as a function of its key.
 *
 * A block's bytes are a stream of 8-byte words that depends on the key, the
 * shard, the plane and the place in the plane, so that a block of another key, a
 * plane of another shard and bytes at another place all differ. No word depends
 * on the one before it: any part can be checked alone. With @bf16 the words are four
 * bf16 values each, whose exponents are near one another as those of KV are. Pure
 * functions, any thread.
 */
#ifndef KVTRACE_REPLAY_BYTES_H
#define KVTRACE_REPLAY_BYTES_H

#include "kvmd/lib/base.h"

#define BYTES_SAMPLE	4	/* words of a plane that a sample looks at */

/* The stream's seed of a block with this 32-byte key. */
uint64_t bytes_seed(const void *key);
/* @bytes: a multiple of 8; @p: 8-byte aligned. */
void bytes_fill(void *p, uint64_t bytes, uint64_t seed, uint32_t shard, uint32_t plane, bool bf16);
/* How many bytes differ; *ret_first the first of them (untouched: none). */
uint64_t bytes_verify(const void *p, uint64_t bytes, uint64_t seed, uint32_t shard,
		      uint32_t plane, bool bf16, uint64_t *ret_first);
/* The same for a few words: the first, the last and others that @pick chooses. */
uint64_t bytes_sample(const void *p, uint64_t bytes, uint64_t seed, uint32_t shard,
		      uint32_t plane, bool bf16, uint64_t pick, uint64_t *ret_first);

/* splitmix64's finaliser: a good mix of 64 bits. */
static inline uint64_t bytes_mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ULL;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

#endif
