// SPDX-License-Identifier: Apache-2.0
/*
 * check_sample.c - which token is drawn, from which, how often, and its probability.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/ref.h"
#include "tests/quiet.h"
#include "tests/suite.h"

static const unsigned threads[] = { 0, 1, 7, 100, 256 };
#define NR_THREADS	(sizeof(threads) / sizeof(threads[0]))

/* ------------------------------------------------- the same again, in double */

static void philox(uint32_t x[4], uint32_t k[2])
{
	for (int i = 0; i < 10; i++) {
		const uint64_t p0 = 0xd2511f53ull * x[0], p1 = 0xcd9e8d57ull * x[2];
		const uint32_t next[4] = { (uint32_t)(p1 >> 32) ^ x[1] ^ k[0], (uint32_t)p1,
					   (uint32_t)(p0 >> 32) ^ x[3] ^ k[1], (uint32_t)p0 };

		memcpy(x, next, sizeof(next));
		k[0] += 0x9e3779b9u;
		k[1] += 0xbb67ae85u;
	}
}

static double gumbel(uint64_t seed, uint32_t token)
{
	uint32_t x[4] = { token / 4, 0, 0, 0 }, k[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) };
	double v;

	philox(x, k);
	v = fmin((x[token % 4] + 0.5) * 0x1p-32, 1 - 0x1p-24);
	return -log(-log1p(-v));
}

/* Whether logit i is among the k largest, the first of equals before others. */
static bool is_in_top(const float *x, uint32_t n, uint32_t i, uint32_t k)
{
	uint32_t before = 0;

	for (uint32_t j = 0; k && j < n; j++)
		before += x[j] > x[i] || (x[j] == x[i] && j < i) || (isnan(x[i]) && !isnan(x[j]));
	return !k || before < k;
}

static uint32_t largest(const float *x, uint32_t n)
{
	uint32_t at = 0;

	while (at < n && isnan(x[at]))
		at++;
	for (uint32_t i = at; i < n; i++)
		if (x[i] > x[at])
			at = i;
	return at < n ? at : 0;
}

/*
 * Whether @token may be the draw: of those it could be, none has a score in double that is
 * above its own by more than both can be off. A score is off by its subtraction and
 * quotient (2e), noise below 24 by what its logarithms are (16e), and its sum (e).
 */
static bool may_be_drawn(const struct kn_sample_args *a, const float *x, uint64_t seed,
			 uint32_t token)
{
	const double top = x[largest(x, a->vocab)];
	double best = -INFINITY, own = 0, score, off = 0;

	if (!is_in_top(x, a->vocab, token, a->top_k))
		return false;
	for (uint32_t i = 0; i < a->vocab; i++) {
		if (!is_in_top(x, a->vocab, i, a->top_k) || isnan(x[i]))
			continue;
		score = (x[i] - top) / a->temperature + gumbel(seed, i);
		if (i == token)
			own = score;
		if (score > best)
			best = score;
	}
	off = 3 * (fabs(best) + fabs(own) + 24) + 16 * 24;
	return own >= best - 2 * off * REF_EPS;
}

/* log of the softmax, and how far the kernel may be off. */
static double logprob(const float *x, uint32_t n, uint32_t token, double *ret_off)
{
	const double top = x[largest(x, n)];
	double sum = 0;

	for (uint32_t i = 0; i < n; i++)
		sum += isnan(x[i]) ? 0 : exp(x[i] - top);
	/*
	 * Terms: x - top is off by e of itself, which is e * 104 of the term at most, exp by
	 * 2e; sums of n / 256 and 8 terms; so is their logarithm, which is off by 2e of its own,
	 * and then two differences.
	 */
	*ret_off = (104 + 2 + n / 256 + 9 + 3 * log(sum) + 2 * fabs(x[token] - top) + 2) * REF_EPS;
	return x[token] - top - log(sum);
}

/* -------------------------------------------------------------------- tests */

START_TEST(philox_is_philox)
{
	/* Random123's known answers (kat_vectors, philox4x32 10). */
	uint32_t zero[4] = { 0 }, kz[2] = { 0 };
	uint32_t ones[4] = { ~0u, ~0u, ~0u, ~0u }, ko[2] = { ~0u, ~0u };
	uint32_t pi[4] = { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 };
	uint32_t kp[2] = { 0xa4093822, 0x299f31d0 };
	static const uint32_t want[3][4] = {
		{ 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 },
		{ 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd },
		{ 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 },
	};

	philox(zero, kz);
	philox(ones, ko);
	philox(pi, kp);
	ck_assert_mem_eq(zero, want[0], 16);
	ck_assert_mem_eq(ones, want[1], 16);
	ck_assert_mem_eq(pi, want[2], 16);
}
END_TEST

#define MAX_VOCAB	3000u
#define MAX_ROWS	24u

static float logits[MAX_ROWS * MAX_VOCAB], prob[MAX_ROWS];
static int32_t token[MAX_ROWS], first[MAX_ROWS];
static uint64_t seeds[MAX_ROWS];

/* Spread, equal, special: by @kind. */
static void make_logits(uint64_t *state, uint32_t rows, uint32_t n, int kind)
{
	for (uint32_t i = 0; i < rows * n; i++) {
		logits[i] = kind == 1 ? (float)ref_below(state, 4) : 3 * ref_normal(state);
		if (kind == 2 && ref_below(state, 3) == 0)
			logits[i] = ref_below(state, 2) ? NAN : -INFINITY;
		if (kind == 3)
			logits[i] = ref_below(state, 2) ? 0.0f : -0.0f;
		if (kind == 4)
			logits[i] *= 1e30f;
	}
	for (uint32_t r = 0; r < rows; r++)
		seeds[r] = ref_rand(state);
}
#define NR_KIND	5

static void check_row(const struct kn_sample_args *a, uint32_t r)
{
	const float *x = logits + (size_t)r * a->vocab;
	double off, want;

	quiet_assert(token[r] >= 0 && (uint32_t)token[r] < a->vocab);
	if (!isfinite(x[largest(x, a->vocab)])) {
		quiet_assert_uint_eq(token[r], largest(x, a->vocab));
		return;
	}
	if (a->temperature == 0)
		quiet_assert_uint_eq(token[r], largest(x, a->vocab));
	else
		quiet_assert(may_be_drawn(a, x, seeds[r], (uint32_t)token[r]));
	want = logprob(x, a->vocab, (uint32_t)token[r], &off);
	quiet_assert(ref_within("logprob", &prob[r], &want, &off, 1));
}

static void check_launch(struct kn_sample_args *a)
{
	for (size_t t = 0; t < NR_THREADS; t++) {
		float was[MAX_ROWS];

		memcpy(was, prob, sizeof(was));
		memset(token, 0xff, sizeof(token));
		ref_launch(KN_SAMPLE, a->rows, 1, 1, threads[t], a);
		if (!t) {
			for (uint32_t r = 0; r < a->rows; r++)
				check_row(a, r);
			memcpy(first, token, sizeof(first));
		} else {
			quiet_assert_mem_eq(token, first, 4ul * a->rows);
			quiet_assert_mem_eq(prob, was, 4ul * a->rows);
		}
	}
}

START_TEST(the_draw_is_the_one_of_its_noise)
{
	static const uint32_t vocab[] = { 1, 2, 5, 256, 259, 1021 };
	static const float temperature[] = { 0, 1, 0.2f, 3, 1e-30f };
	static const uint32_t top[] = { 0, 1, 2, 7, 40, 100000 };
	uint64_t state = 1;

	for (size_t v = 0; v < sizeof(vocab) / sizeof(vocab[0]); v++)
		for (int kind = 0; kind < NR_KIND; kind++)
			for (size_t i = 0; i < sizeof(top) / sizeof(top[0]); i++) {
				struct kn_sample_args a = {
					logits, seeds, token, prob, 4, vocab[v], top[i],
					temperature[ref_below(&state, 5)],
				};

				make_logits(&state, a.rows, a.vocab, kind);
				check_launch(&a);
			}
}
END_TEST

START_TEST(a_row_alone_draws_the_same)
{
	struct kn_sample_args a = { logits, seeds, token, prob, MAX_ROWS, MAX_VOCAB, 50, 0.8f };
	float was[MAX_ROWS];
	uint64_t state = 2;

	make_logits(&state, MAX_ROWS, MAX_VOCAB, 0);
	ref_launch(KN_SAMPLE, MAX_ROWS, 1, 1, 0, &a);
	memcpy(first, token, sizeof(first));
	memcpy(was, prob, sizeof(was));
	for (uint32_t r = 0; r < MAX_ROWS; r++) {
		a.logits = logits + (size_t)r * MAX_VOCAB;
		a.seed = seeds + r;
		ref_launch(KN_SAMPLE, 1, 1, 1, 0, &a);
		quiet_assert_int_eq(token[0], first[r]);
		quiet_assert(ref_same("logprob", prob, was + r, 1));
	}
}
END_TEST

START_TEST(the_first_of_equals)
{
	struct kn_sample_args a = { logits, NULL, token, NULL, 3, 6, 0, 0 };
	static const float x[18] = {
		1, 5, 5, 2, 5, 0,
		-0.0f, 0, -1, 0, -0.0f, -2,
		NAN, -INFINITY, NAN, -INFINITY, -INFINITY, NAN,
	};

	memcpy(logits, x, sizeof(x));
	ref_launch(KN_SAMPLE, 3, 1, 1, 0, &a);
	ck_assert_int_eq(token[0], 1);
	ck_assert_int_eq(token[1], 0);
	ck_assert_int_eq(token[2], 1);
	/* What cannot be divided by is still the largest. */
	logits[3] = INFINITY;
	a.seed = seeds;
	a.temperature = 0.5f;
	ref_launch(KN_SAMPLE, 1, 1, 1, 0, &a);
	ck_assert_int_eq(token[0], 3);
}
END_TEST

/*
 * How often each is drawn, of N seeds: the sum of (had - wanted)^2 / wanted has a mean of
 * 9 with 10 tokens, and is above 35 once in 17,000 times; seeds are always the same.
 */
START_TEST(draws_follow_the_softmax)
{
	enum { N = 20000, V = 10 };
	static const float x[V] = { 0, 1, 2, 3, -1, 0.5f, 2.5f, 1.5f, -0.5f, 0.25f };
	static const struct { float temperature; uint32_t top, left; } how[] = {
		{ 1, 0, 10 }, { 2, 0, 10 }, { 0.7f, 4, 4 }, { 1, 10, 10 },
	};
	float *many = ref_alloc(4ul * N * V);
	uint64_t *seed = ref_alloc(8ul * N), state = 3;
	int32_t *drawn = ref_alloc(4ul * N);

	for (uint32_t i = 0; i < N; i++) {
		memcpy(many + (size_t)i * V, x, sizeof(x));
		seed[i] = i < N / 2 ? i : ref_rand(&state);	/* neighbours are as good as any */
	}
	for (size_t h = 0; h < sizeof(how) / sizeof(how[0]); h++) {
		struct kn_sample_args a = { many, seed, drawn, NULL, N, V, how[h].top,
					    how[h].temperature };
		double sum = 0, chi = 0, had[V] = { 0 };
		uint32_t left = 0;

		ref_launch(KN_SAMPLE, N, 1, 1, 0, &a);
		for (uint32_t i = 0; i < N; i++)
			had[drawn[i]]++;
		for (uint32_t i = 0; i < V; i++)
			if (is_in_top(x, V, i, a.top_k))
				sum += exp(x[i] / a.temperature);
		for (uint32_t i = 0; i < V; i++) {
			const double want = N * exp(x[i] / a.temperature) / sum;

			if (!is_in_top(x, V, i, a.top_k)) {
				ck_assert(had[i] == 0);
				continue;
			}
			left++;
			chi += (had[i] - want) * (had[i] - want) / want;
		}
		ck_assert_uint_eq(left, how[h].left);
		ck_assert_msg(chi < 35, "chi squared is %.1f (case %zu)", chi, h);
	}
	free(many);
	free(seed);
	free(drawn);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("kernels: sample");

	suite_test(s, "philox", philox_is_philox, NULL, NULL);
	suite_test(s, "draw", the_draw_is_the_one_of_its_noise, NULL, NULL);
	suite_test(s, "alone", a_row_alone_draws_the_same, NULL, NULL);
	suite_test(s, "equals", the_first_of_equals, NULL, NULL);
	suite_test(s, "how often", draws_follow_the_softmax, NULL, NULL);
	return suite_run(s);
}
