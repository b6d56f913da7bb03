// SPDX-License-Identifier: Apache-2.0
/*
 * replay_bytes.c - the generator of a block's bytes, and its check.
 *
 * Word i of a plane is one round of multiply and shift over base + i * odd:
 * cheap enough to check every byte of every hit, and without a carried
 * dependency. It need not resist an adversary, only accidents.
 */
#include "tools/kvtrace/replay_bytes.h"

#define STRIDE	0xd1342543de82ef95ULL
#define MULT	0xaf251af3b0f025b5ULL
#define BF16_ONES 0x3f803f803f803f80ULL	/* four times 1.0 */
#define BF16_VARY 0x83ff83ff83ff83ffULL	/* sign, mantissa and three bits of the exponent */

uint64_t bytes_seed(const void *key)
{
	uint64_t k[4];

	memcpy(k, key, sizeof(k));
	return bytes_mix(bytes_mix(bytes_mix(k[0] ^ bytes_mix(k[1])) ^ k[2]) ^ k[3]);
}

static uint64_t plane_base(uint64_t seed, uint32_t shard, uint32_t plane)
{
	return bytes_mix(seed ^ bytes_mix((uint64_t)shard << 32 | plane));
}

/* The bits of a word that vary, and what the others are. */
struct form {
	uint64_t base, vary, ones;
};

static struct form form_of(uint64_t seed, uint32_t shard, uint32_t plane, bool bf16)
{
	uint64_t base = plane_base(seed, shard, plane);

	return bf16 ? (struct form){ base, BF16_VARY, BF16_ONES } : (struct form){ base, ~0ULL, 0 };
}

static inline uint64_t word(const struct form *f, uint64_t i)
{
	uint64_t x = f->base + i * STRIDE;

	x = (x ^ x >> 32) * MULT;
	return ((x ^ x >> 29) & f->vary) ^ f->ones;
}

void bytes_fill(void *p, uint64_t bytes, uint64_t seed, uint32_t shard, uint32_t plane, bool bf16)
{
	const struct form f = form_of(seed, shard, plane, bf16);
	uint64_t *w = p, i;

	for (i = 0; i < bytes / 8; i++)
		w[i] = word(&f, i);
}

/* Bytes of word @i that differ from @have, which is known to. */
static uint64_t word_wrong(uint64_t have, uint64_t want, uint64_t i, uint64_t before,
			   uint64_t *ret_first)
{
	uint64_t diff = have ^ want, nr = 0;
	unsigned int b;

	for (b = 0; b < 8; b++) {
		if (!(diff >> b * 8 & 0xff))
			continue;
		if (!before && !nr)
			*ret_first = i * 8 + b;
		nr++;
	}
	return nr;
}

uint64_t bytes_verify(const void *p, uint64_t bytes, uint64_t seed, uint32_t shard,
		      uint32_t plane, bool bf16, uint64_t *ret_first)
{
	const struct form f = form_of(seed, shard, plane, bf16);
	uint64_t wrong = 0, bad = 0, i;
	const uint64_t *w = p;

	for (i = 0; i < bytes / 8; i++)
		bad |= w[i] ^ word(&f, i);
	if (likely(!bad))
		return 0;
	for (i = 0; i < bytes / 8; i++)
		if (w[i] != word(&f, i))
			wrong += word_wrong(w[i], word(&f, i), i, wrong, ret_first);
	/* It was wrong when first looked at, even if it is right by now. */
	if (!wrong)
		*ret_first = 0;
	return max(wrong, (uint64_t)1);
}

uint64_t bytes_sample(const void *p, uint64_t bytes, uint64_t seed, uint32_t shard,
		      uint32_t plane, bool bf16, uint64_t pick, uint64_t *ret_first)
{
	const struct form f = form_of(seed, shard, plane, bf16);
	uint64_t nr = bytes / 8, wrong = 0;
	const uint64_t *w = p;
	unsigned int n;

	for (n = 0; n < BYTES_SAMPLE; n++) {
		uint64_t i = n == 0 ? 0 : n == 1 ? nr - 1 : bytes_mix(pick + n) % nr;

		if (w[i] != word(&f, i))
			wrong += word_wrong(w[i], word(&f, i), i, wrong, ret_first);
	}
	return wrong;
}
