// SPDX-License-Identifier: Apache-2.0
/*
 * sample.cu - one token per row of logits.
 *
 * Every token has a rank, a number of 64 bits: the upper half orders the logits, the
 * lower one is larger for earlier tokens. No two are equal, so that the top_k largest
 * are well defined, and what is found does not depend on who looks where. NaN is
 * below all numbers.
 *
 * The least rank of the top_k is found digit by digit, of 8 bits: how many of those that
 * begin as it does have which next digit. That ends as soon as all that are left belong.
 *
 * Gumbel's maximum (Gumbel 1954; arXiv:1411.0030): the largest of logit / temperature +
 * g, g = -log(-log(u)), is a draw from the softmax. u = 1 - (x + 1/2) * 2^-32, where x is
 * word (token % 4) of Philox 4x32-10 (Salmon et al., SC 2011) with the row's seed as key
 * and token / 4 as counter.
 */
#include "kernels/kernels.h"
#include "kernels/lanes.h"
#include "kernels/shim.h"

#define DIGITS		256u
#define MOST_NOISE	24.0f		/* gumbel(0) is 22.9 */

KN_FN uint64_t rank_of(float f, uint32_t token)
{
	const uint32_t u = kn_bits(f + 0.0f);		/* no -0 */
	const uint32_t order = f != f ? 0 : u >> 31 ? ~u : u | 0x80000000u;

	return (uint64_t)order << 32 | (uint32_t)~token;
}

KN_FN uint32_t token_of(uint64_t rank)
{
	return ~(uint32_t)rank;
}

KN_FN void philox_round(uint32_t x[4], uint32_t k0, uint32_t k1)
{
	const uint64_t p0 = (uint64_t)0xd2511f53u * x[0], p1 = (uint64_t)0xcd9e8d57u * x[2];

	x[0] = (uint32_t)(p1 >> 32) ^ x[1] ^ k0;
	x[1] = (uint32_t)p1;
	x[2] = (uint32_t)(p0 >> 32) ^ x[3] ^ k1;
	x[3] = (uint32_t)p0;
}

/* Of tokens 4 * @counter and the next three. */
KN_FN void philox(uint64_t seed, uint32_t counter, uint32_t x[4])
{
	uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);

	x[0] = counter;
	x[1] = x[2] = x[3] = 0;
	for (int i = 0; i < 10; i++) {
		philox_round(x, k0, k1);
		k0 += 0x9e3779b9u;
		k1 += 0xbb67ae85u;
	}
}

KN_FN float gumbel(uint32_t x)
{
	float v = ((float)x + 0.5f) * 2.3283064365386963e-10f;	/* 2^-32 */

	v = v < 0.99999994f ? v : 0.99999994f;
	return -logf(-log1pf(-v));
}

/* What the search for the least rank knows. */
struct found {
	uint64_t rank;			/* its digits so far, the others 0 */
	uint32_t want;			/* this many of those that begin so */
	uint32_t is_done;
};

/* The next digit, counted from the largest on. */
KN_FN void pick_digit(struct found *f, const uint32_t *count, unsigned shift)
{
	uint32_t d = DIGITS - 1;

	for (; d && count[d] < f->want; d--)
		f->want -= count[d];
	f->rank |= (uint64_t)d << shift;
	f->is_done = count[d] == f->want;
}

/* The largest rank of what thread @t of @threads looks at. */
KN_FN uint64_t best_logit(const float *x, uint32_t n, unsigned t, unsigned threads)
{
	uint64_t best = 0;

	for (uint32_t i = t; i < n; i += threads) {
		const uint64_t rank = rank_of(x[i], i);

		best = best < rank ? rank : best;
	}
	return best;
}

/*
 * The same with noise, of those whose own rank is @least or more. Noise is made for those
 * alone that could get above the best so far with the most that there is.
 */
KN_FN uint64_t best_draw(const struct kn_sample_args *a, const float *x, uint64_t seed, float top,
			 uint64_t least, unsigned t, unsigned threads)
{
	float most = -INFINITY;
	uint64_t best = 0;

	for (uint32_t i = 4 * t; i < a->vocab; i += 4 * threads) {
		bool has_noise = false;
		uint32_t noise[4];

		for (uint32_t j = 0; j < 4 && i + j < a->vocab; j++) {
			float f = (x[i + j] - top) / a->temperature;

			if (f + MOST_NOISE < most || rank_of(x[i + j], i + j) < least)
				continue;
			if (!has_noise)
				philox(seed, i / 4, noise);
			has_noise = true;
			f += gumbel(noise[j]);
			if (rank_of(f, i + j) > best) {
				best = rank_of(f, i + j);
				most = f;
			}
		}
	}
	return best;
}

KN_FN void count_digits(uint32_t *count, const float *x, uint32_t n, uint64_t begin,
			unsigned shift, unsigned t, unsigned threads)
{
	for (uint32_t i = t; i < n; i += threads) {
		const uint64_t rank = rank_of(x[i], i);

		if (shift == 56 || (rank ^ begin) >> (shift + 8) == 0)
			kn_atomic_add(&count[rank >> shift & (DIGITS - 1)], 1u);
	}
}

/* exp(x - top), in lanes; NaN counts nothing. */
KN_FN void sum_exp(float *part, const float *x, uint32_t n, float top, unsigned t,
		   unsigned threads)
{
	for (uint32_t l = t; l < KN_LANES; l += threads)
		part[l] = 0;
	for (uint32_t base = 0; base < n; base += KN_LANES)
		for (uint32_t l = t; l < KN_LANES && l < n - base; l += threads)
			part[l] += x[base + l] <= top ? expf(x[base + l] - top) : 0;
}

KN_KERNEL(kn_sample, struct kn_sample_args)
{
	KN_SHARED(uint64_t, best, KN_LANES);
	KN_SHARED(float, part, KN_LANES);
	KN_SHARED(uint32_t, count, DIGITS);
	KN_SHARED(struct found, least, 1);
	KN_SHARED(float, top, 1);
	const float *x = a.logits + (uint64_t)kn_block.x * a.vocab;

	KN_THREADS(t)
		for (uint32_t l = t; l < KN_LANES; l += kn_threads)
			best[l] = l == t ? best_logit(x, a.vocab, t, kn_threads) : 0;
	KN_LANES_MAX(best);
	KN_THREADS(t)
		if (!t) {
			top[0] = x[token_of(best[0])];
			*least = (struct found){ 0, a.top_k, !a.top_k || a.top_k >= a.vocab };
		}

	const bool is_drawn = a.temperature > 0 && fabsf(top[0]) < INFINITY;

	for (unsigned shift = 56; is_drawn && !least->is_done; shift -= 8) {
		KN_THREADS(t)
			for (uint32_t i = t; i < DIGITS; i += kn_threads)
				count[i] = 0;
		KN_THREADS(t)
			count_digits(count, x, a.vocab, least->rank, shift, t, kn_threads);
		KN_THREADS(t)
			if (!t)
				pick_digit(least, count, shift);
	}
	if (is_drawn) {
		KN_THREADS(t)
			for (uint32_t l = t; l < KN_LANES; l += kn_threads)
				best[l] = l != t ? 0 :
					best_draw(&a, x, a.seed[kn_block.x], top[0], least->rank, t,
						  kn_threads);
		KN_LANES_MAX(best);
	}
	if (a.logprob) {
		KN_THREADS(t)
			sum_exp(part, x, a.vocab, top[0], t, kn_threads);
		KN_LANES_SUM(part);
	}
	KN_THREADS(t)
		if (!t) {
			const uint32_t token = token_of(best[0]);

			a.token[kn_block.x] = (int32_t)token;
			if (a.logprob)
				a.logprob[kn_block.x] = x[token] - top[0] - logf(part[0]);
		}
}
