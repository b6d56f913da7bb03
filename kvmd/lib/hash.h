/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash.h - a seeded hash of 32-byte keys for table buckets.
 *
 * Multiply-fold of the four key words, each masked by a secret word drawn at
 * start-up, so that a client who chooses its own keys cannot aim at a bucket.
 * It only finds candidates: identity is always the whole key, compared.
 */
#ifndef KVMD_LIB_HASH_H
#define KVMD_LIB_HASH_H

#include "kvmd/lib/base.h"

struct hash_seed {
	uint64_t s[5];		/* secret; from getrandom(2) */
};

int hash_seed_init(struct hash_seed *seed);	/* 0 or -errno */

static inline uint64_t hash_fold(uint64_t a, uint64_t b)
{
	unsigned __int128 m = (unsigned __int128)a * b;

	return (uint64_t)m ^ (uint64_t)(m >> 64);
}

/* @tag: what else identifies (space incarnation, group). */
static inline uint64_t hash_key32(const struct hash_seed *seed, const void *key, uint64_t tag)
{
	uint64_t k[4];

	memcpy(k, key, sizeof(k));
	/* Two independent products, so that neighbours in a batch overlap. */
	return hash_fold(k[0] ^ seed->s[0], k[1] ^ seed->s[1]) ^
	       hash_fold(k[2] ^ seed->s[2], k[3] ^ seed->s[3]) ^ tag * (seed->s[4] | 1);
}

#endif
