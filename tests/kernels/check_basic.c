// SPDX-License-Identifier: Apache-2.0
/*
 * check_basic.c - embedding, RMSNorm, RoPE and its store, SwiGLU, sum.
 *
 * Against the same in double, within bounds that follow from the number of roundings
 * (e = 2^-24 each); and bit for bit with other numbers of threads, and with a row alone.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/ref.h"
#include "tests/quiet.h"
#include "tests/suite.h"

static const unsigned threads[] = { 0, 1, 7, 32, 100, 256 };
#define NR_THREADS	(sizeof(threads) / sizeof(threads[0]))

/* --------------------------------------------------------------- embedding */

START_TEST(embedding_is_a_copy)
{
	enum { ROWS = 9, DIM = 37, VOCAB = 11 };
	static const int32_t token[ROWS] = { 0, 10, 3, -1, 11, INT32_MAX, INT32_MIN, 7, 7 };
	float table[VOCAB * DIM], out[ROWS * DIM], want[DIM];
	struct kn_embed_args a = { token, table, out, ROWS, DIM, VOCAB, 0 };
	uint64_t seed = 1;

	ref_fill_normal(&seed, table, VOCAB * DIM);
	for (size_t i = 0; i < NR_THREADS; i++) {
		memset(out, 0xff, sizeof(out));
		ref_launch(KN_EMBED, ROWS, 1, 1, threads[i], &a);
		for (int r = 0; r < ROWS; r++) {
			memset(want, 0, sizeof(want));
			if (token[r] >= 0 && token[r] < VOCAB)
				memcpy(want, table + token[r] * DIM, sizeof(want));
			quiet_assert_mem_eq(out + r * DIM, want, sizeof(want));
		}
	}
}
END_TEST

/* -------------------------------------------------------------------- norm */

static void norm_ref(const struct kn_norm_args *a, uint32_t r, double *want, double *bound)
{
	const float *in = a->in + (size_t)r * a->dim;
	double sum = 0, by;

	for (uint32_t i = 0; i < a->dim; i++)
		sum += (double)in[i] * in[i];
	by = 1 / sqrt(sum / a->dim + a->eps);
	for (uint32_t i = 0; i < a->dim; i++) {
		want[i] = in[i] * by * a->weight[i];
		/*
		 * Under the root: a square, dim / 256 sums in a lane, 8 of lanes, the mean
		 * and eps, half of which is left; then root, 1 /, and two products.
		 */
		bound[i] = ((a->dim / 256 + 12) / 2.0 + 4) * REF_EPS * fabs(want[i]) + 1e-44;
	}
}

static void norm_one(uint32_t rows, uint32_t dim, float scale, uint64_t *seed)
{
	const size_t n = (size_t)rows * dim;
	float *in = ref_alloc(4 * n), *out = ref_alloc(4 * n), *again = ref_alloc(4 * n);
	float *weight = ref_alloc(4ul * dim);
	double *want = ref_alloc(8 * n), *bound = ref_alloc(8 * n);
	struct kn_norm_args a = { in, weight, out, rows, dim, 1e-5f, 0 };

	ref_fill_normal(seed, in, n);
	ref_fill_normal(seed, weight, dim);
	for (size_t i = 0; i < n; i++)
		in[i] *= scale;
	for (uint32_t r = 0; r < rows; r++)
		norm_ref(&a, r, want + (size_t)r * dim, bound + (size_t)r * dim);
	ref_launch(KN_NORM, rows, 1, 1, 0, &a);
	quiet_assert(ref_within("norm", out, want, bound, n));
	a.out = again;
	for (size_t i = 0; i < NR_THREADS; i++) {
		memset(again, 0xff, 4 * n);
		ref_launch(KN_NORM, rows, 1, 1, threads[i], &a);
		quiet_assert(ref_same("other threads", again, out, n));
	}
	/* The last row alone; then all of them in place. */
	a.in = in + (size_t)(rows - 1) * dim;
	ref_launch(KN_NORM, 1, 1, 1, 0, &a);
	quiet_assert(ref_same("alone", again, out + (size_t)(rows - 1) * dim, dim));
	a.in = a.out = in;
	ref_launch(KN_NORM, rows, 1, 1, 0, &a);
	quiet_assert(ref_same("in place", in, out, n));
	free(in);
	free(out);
	free(again);
	free(weight);
	free(want);
	free(bound);
}

START_TEST(norm_is_within_its_bound)
{
	static const uint32_t dim[] = { 1, 2, 31, 255, 256, 257, 576, 1000, 4096 };
	static const float scale[] = { 1, 1e-18f, 1e15f, 1e-3f };
	uint64_t seed = 2;

	for (size_t i = 0; i < sizeof(dim) / sizeof(dim[0]); i++)
		for (size_t j = 0; j < sizeof(scale) / sizeof(scale[0]); j++)
			norm_one(3, dim[i], scale[j], &seed);
}
END_TEST

START_TEST(norm_of_zeros_is_zero)
{
	float x[40] = { 0 }, weight[40], zero[40] = { 0 };
	struct kn_norm_args a = { x, weight, x, 1, 40, 1e-6f, 0 };

	for (int i = 0; i < 40; i++)
		weight[i] = 3;
	ref_launch(KN_NORM, 1, 1, 1, 0, &a);
	ck_assert(ref_same("zeros", x, zero, 40));
}
END_TEST

/* -------------------------------------------------------------------- rope */

struct rope {
	struct kn_rope_args a;
	float *was;			/* qkv before */
	char *pool, *want;		/* 2 planes of SLOTS slots, and what they should hold */
	size_t nr, pool_bytes;
};

#define SLOTS	5u
#define TOKENS	4u
#define ROWS	7u
#define STRIDE	3u			/* entries of a row of the table */

static const int32_t table[4 * STRIDE] = { 1, 2, 3, 0, 4, 0, 0, 0, 0, 4, 3, 2 };
static const struct kn_row rows[ROWS] = {
	{ 0, 0, 1, 0 }, { 0, 4, 5, 0 }, { 0, 1048575, 12, 0 }, { 1, 9, 5, 0 },
	{ 1, 3, 4, 0 },		/* entry 0: stores nothing */
	{ 3, 77, 0, 0 },	/* fills up the shape */
	{ 3, 40000, 6, 0 },
};

static void rope_make(struct rope *p, uint32_t dtype, uint32_t q, uint32_t kv, uint32_t head_dim,
		      bool by_head, uint64_t *seed)
{
	const uint32_t bytes = kn_dtype_bytes(dtype);
	const uint64_t plane = (uint64_t)TOKENS * kv * head_dim * bytes;
	struct kn_rope_args *a = &p->a;

	*a = (struct kn_rope_args){
		.kv = { .slot_bytes = 2 * plane + 16, .block_tokens = TOKENS, .dtype = dtype,
			.k_scale = bytes == 1 ? 0.25f : 1, .v_scale = bytes == 1 ? 3 : 1,
			.token_stride = by_head ? head_dim : kv * head_dim,
			.head_stride = by_head ? TOKENS * head_dim : head_dim },
		.table = { table, STRIDE }, .row = rows, .rows = ROWS, .q_heads = q,
		.kv_heads = kv, .head_dim = head_dim, .theta = 10000,
	};
	p->nr = (size_t)ROWS * (q + 2 * kv) * head_dim;
	a->qkv = ref_alloc(4 * p->nr);
	p->was = ref_alloc(4 * p->nr);
	ref_fill_normal(seed, p->was, p->nr);
	memcpy(a->qkv, p->was, 4 * p->nr);
	p->pool_bytes = SLOTS * a->kv.slot_bytes;
	p->pool = ref_alloc(p->pool_bytes);
	p->want = ref_alloc(p->pool_bytes);
	memset(p->pool, 0xa5, p->pool_bytes);
	memset(p->want, 0xa5, p->pool_bytes);
	a->kv.k = p->pool;
	a->kv.v = p->pool + plane;
}

static void rope_free(struct rope *p)
{
	free(p->a.qkv);
	free(p->was);
	free(p->pool);
	free(p->want);
}

/* Two values of a head, as they should be, and how far off they may be. */
static void rope_pair(const struct kn_rope_args *a, uint32_t pos, uint32_t i, double x, double y,
		      double want[2], double *bound)
{
	const double w = pos * pow(a->theta, -2.0 * i / a->head_dim);
	/*
	 * The angle: as a float below pi off by 2^-23, and what double loses of so many
	 * turns; sine and cosine 2^-24 more; then a product each and a sum.
	 */
	const double off = 0x1p-23 + pos * 0x1p-47 + REF_EPS;

	want[0] = x * cos(w) - y * sin(w);
	want[1] = y * cos(w) + x * sin(w);
	*bound = (fabs(x) + fabs(y)) * (off + 2 * REF_EPS);
}

/* q and k of one row, against double. */
static void rope_row(const struct rope *p, uint32_t r, double *want, double *bound)
{
	const struct kn_rope_args *a = &p->a;
	const uint32_t half = a->head_dim / 2, heads = a->q_heads + a->kv_heads;
	const size_t at = (size_t)r * (heads + a->kv_heads) * a->head_dim;
	double two[2];

	for (uint32_t h = 0; h < heads; h++)
		for (uint32_t i = 0; i < half; i++) {
			const size_t lo = at + (size_t)h * a->head_dim + i, hi = lo + half;

			rope_pair(a, rows[r].pos, i, p->was[lo], p->was[hi], two, &bound[lo]);
			want[lo] = two[0];
			want[hi] = two[1];
			bound[hi] = bound[lo];
		}
	for (size_t i = at + (size_t)heads * a->head_dim; i < at + p->nr / ROWS; i++) {
		want[i] = p->was[i];
		bound[i] = 0;
	}
}

/* What should be in the pool: the rotated k and the v of the rows that store. */
static void rope_stored(struct rope *p)
{
	const struct kn_rope_args *a = &p->a;
	const size_t width = p->nr / ROWS;

	for (uint32_t r = 0; r < ROWS; r++) {
		const uint32_t own = rows[r].len - 1;
		const float *k = a->qkv + r * width + (size_t)a->q_heads * a->head_dim;
		const float *v = k + (size_t)a->kv_heads * a->head_dim;
		uint64_t slot, at;

		if (!rows[r].len || !table[rows[r].seq * STRIDE + own / TOKENS])
			continue;
		slot = (uint64_t)table[rows[r].seq * STRIDE + own / TOKENS] * a->kv.slot_bytes;
		for (uint32_t h = 0; h < a->kv_heads; h++)
			for (uint32_t i = 0; i < a->head_dim; i++) {
				at = own % TOKENS * a->kv.token_stride + h * a->kv.head_stride + i;
				kn_store(p->want + slot, at, a->kv.dtype,
					 k[h * a->head_dim + i] / a->kv.k_scale);
				kn_store(p->want + slot + ((char *)a->kv.v - p->pool), at,
					 a->kv.dtype, v[h * a->head_dim + i] / a->kv.v_scale);
			}
	}
}

static void rope_one(uint32_t dtype, uint32_t q, uint32_t kv, uint32_t head_dim, bool by_head,
		     uint64_t *seed)
{
	struct rope p;
	double *want, *bound;
	float *first;

	rope_make(&p, dtype, q, kv, head_dim, by_head, seed);
	want = ref_alloc(8 * p.nr);
	bound = ref_alloc(8 * p.nr);
	first = ref_alloc(4 * p.nr);
	for (uint32_t r = 0; r < ROWS; r++)
		rope_row(&p, r, want, bound);
	for (size_t i = 0; i < NR_THREADS; i++) {
		memcpy(p.a.qkv, p.was, 4 * p.nr);
		memset(p.pool, 0xa5, p.pool_bytes);
		ref_launch(KN_ROPE, ROWS, 1, 1, threads[i], &p.a);
		if (i) {
			quiet_assert(ref_same("other threads", p.a.qkv, first, p.nr));
		} else {
			quiet_assert(ref_within("rope", p.a.qkv, want, bound, p.nr));
			memcpy(first, p.a.qkv, 4 * p.nr);
			rope_stored(&p);
		}
		quiet_assert_mem_eq(p.pool, p.want, p.pool_bytes);
	}
	/* A row alone. */
	memcpy(p.a.qkv, p.was + 2 * p.nr / ROWS, 4 * p.nr / ROWS);
	p.a.row = rows + 2;
	ref_launch(KN_ROPE, 1, 1, 1, 0, &p.a);
	quiet_assert(ref_same("alone", p.a.qkv, first + 2 * p.nr / ROWS, p.nr / ROWS));
	quiet_assert_mem_eq(p.pool, p.want, p.pool_bytes);
	rope_free(&p);
	free(want);
	free(bound);
	free(first);
}

START_TEST(rope_turns_and_stores)
{
	static const struct { uint32_t q, kv, head_dim; } shape[] = {
		{ 1, 1, 2 }, { 4, 2, 64 }, { 3, 1, 30 }, { 8, 8, 128 }, { 2, 1, 1026 },
	};
	uint64_t seed = 3;

	for (uint32_t dtype = 0; dtype < KN_F32; dtype++)
		for (size_t i = 0; i < sizeof(shape) / sizeof(shape[0]); i++)
			rope_one(dtype, shape[i].q, shape[i].kv, shape[i].head_dim,
				 (i + dtype) % 2, &seed);
}
END_TEST

/* Only the difference of positions matters: what makes RoPE what it is. */
START_TEST(rope_keeps_products)
{
	enum { DIM = 64 };
	float qkv[2 * 3 * DIM], was[3 * DIM];
	struct kn_row row[2] = { { 0, 5, 0, 0 }, { 0, 3, 0, 0 } };
	struct kn_rope_args a = {
		.qkv = qkv, .row = row, .rows = 2, .q_heads = 1, .kv_heads = 1, .head_dim = DIM,
		.theta = 500000, .kv = { .block_tokens = 1, .dtype = KN_BF16 },
	};
	double first = 0, sum, size = 0;
	uint64_t seed = 4;

	ref_fill_normal(&seed, was, 3 * DIM);
	for (int i = 0; i < DIM; i++)
		size += fabs((double)was[i]) + fabs((double)was[DIM + i]);
	for (uint32_t by = 0; by < 100000; by += 7777) {
		row[0].pos = 5 + by;
		row[1].pos = 3 + by;
		memcpy(qkv, was, sizeof(was));
		memcpy(qkv + 3 * DIM, was, sizeof(was));
		ref_launch(KN_ROPE, 2, 1, 1, 0, &a);
		sum = 0;
		for (int i = 0; i < DIM; i++)
			sum += (double)qkv[i] * qkv[4 * DIM + i];
		if (!by)
			first = sum;
		/* Each value off by 5e, times the other one, which is below 5 here. */
		quiet_assert(fabs(sum - first) < 2 * 2 * 5 * 8 * REF_EPS * size);
	}
}
END_TEST

/* ------------------------------------------------------------------ swiglu */

START_TEST(swiglu_is_within_its_bound)
{
	enum { R = 5, N = 301 };
	static const float hard[] = { 0.0f, -0.0f, 1e-30f, -1e-30f, 88, -88, 89, -89, 104, -104,
				      1e4f, -1e4f, 1e37f, -1e37f, 1e-45f, 0.5f };
	float *in = ref_alloc(4 * R * 2 * N), *out = ref_alloc(4 * R * N);
	float *first = ref_alloc(4 * R * N);
	double *want = ref_alloc(8 * R * N), *bound = ref_alloc(8 * R * N);
	struct kn_swiglu_args a = { in, out, R, N };
	uint64_t seed = 5;

	for (int i = 0; i < R * 2 * N; i++)
		in[i] = 4 * ref_normal(&seed);
	memcpy(in, hard, sizeof(hard));
	for (int r = 0; r < R; r++)
		for (int i = 0; i < N; i++) {
			const double x = in[r * 2 * N + i], u = in[r * 2 * N + N + i];
			const size_t at = (size_t)(r * N + i);

			want[at] = x / (1 + exp(-x)) * u;
			/* exp 2e, a sum, /, a product; below -88.7 exp(-x) is infinite. */
			bound[at] = 6 * REF_EPS * fabs(want[at]) + 2.8e-37 * fabs(u) + 1e-44;
		}
	for (size_t i = 0; i < NR_THREADS; i++) {
		ref_launch(KN_SWIGLU, R, 1, 1, threads[i], &a);
		if (!i) {
			quiet_assert(ref_within("swiglu", out, want, bound, R * N));
			memcpy(first, out, 4 * R * N);
		}
		quiet_assert(ref_same("other threads", out, first, R * N));
		memset(out, 0xff, 4 * R * N);
		ref_launch(KN_SWIGLU, R, 3 + (unsigned)i * 100, 1, threads[i], &a);
		quiet_assert(ref_same("shared rows", out, first, R * N));
	}
	a.in = in + 2 * N;
	ref_launch(KN_SWIGLU, 1, 1, 1, 0, &a);
	ck_assert(ref_same("alone", out, first + N, N));
	free(in);
	free(out);
	free(first);
	free(want);
	free(bound);
}
END_TEST

/* --------------------------------------------------------------------- add */

START_TEST(add_is_exact_over_any_grid)
{
	static const unsigned grid[][3] = { { 1, 1, 1 }, { 2, 3, 4 }, { 1000, 1, 1 }, { 1, 7, 1 } };
	static const size_t size[] = { 0, 1, 5, 23, 24, 25, 255, 4099 };
	static float x[4100], y[4100], want[4100];
	uint64_t seed = 6;

	for (size_t s = 0; s < sizeof(size) / sizeof(size[0]); s++)
		for (size_t g = 0; g < sizeof(grid) / sizeof(grid[0]); g++)
			for (size_t i = 0; i < NR_THREADS; i++) {
				struct kn_add_args a = { x, y, size[s] };

				ref_fill_normal(&seed, x, 4100);
				ref_fill_normal(&seed, y, 4100);
				for (size_t j = 0; j < 4100; j++)
					want[j] = j < size[s] ? x[j] + y[j] : x[j];
				ref_launch(KN_ADD, grid[g][0], grid[g][1], grid[g][2], threads[i],
					   &a);
				quiet_assert(ref_same("add", x, want, 4100));
			}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("kernels: basic");

	suite_test(s, "embed", embedding_is_a_copy, NULL, NULL);
	suite_test(s, "norm", norm_is_within_its_bound, NULL, NULL);
	suite_test(s, "norm of zeros", norm_of_zeros_is_zero, NULL, NULL);
	suite_test(s, "rope", rope_turns_and_stores, NULL, NULL);
	suite_test(s, "rope is relative", rope_keeps_products, NULL, NULL);
	suite_test(s, "swiglu", swiglu_is_within_its_bound, NULL, NULL);
	suite_test(s, "add", add_is_exact_over_any_grid, NULL, NULL);
	return suite_run(s);
}
