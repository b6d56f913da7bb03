// SPDX-License-Identifier: Apache-2.0
/*
 * check_mla.c - attention over latents, against the same in double within the bounds of
 * kernels.h, and bit for bit where a row's result is not to depend on the launch.
 *
 * Shapes are random; what is wrong is told with the seed, KVMD_SEED=n runs that one
 * alone, KVMD_SEEDS=n so many.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/attend_rig.h"
#include "tests/quiet.h"
#include "tests/suite.h"

#define NR_SEEDS	24u

static const unsigned threads[] = { 0, 1, 7, 128, 256 };
#define NR_THREADS	(sizeof(threads) / sizeof(threads[0]))

static struct arig_shape random_shape(uint64_t *seed)
{
	static const uint32_t dims[][2] = {
		{ 8, 8 }, { 64, 16 }, { 120, 24 }, { 128, 32 }, { 256, 64 }, { 512, 64 },
		{ 512, 128 }, { 64, 0 },
	};
	static const uint32_t heads[] = { 1, 3, 4, 16, 17, 20 };
	uint32_t d = ref_below(seed, 8);
	struct arig_shape s = {
		.rows = 1 + ref_below(seed, 3), .q_heads = heads[ref_below(seed, 6)], .kv_heads = 1,
		.k_dim = dims[d][0] + dims[d][1], .v_dim = dims[d][0],
		.block_tokens = 1 + ref_below(seed, 40),
		.max_len = dims[d][0] < 256 ? 600 : ref_below(seed, 3) ? 60 : 300,
		.dtype = ref_below(seed, 4),
		.layout = ref_below(seed, 2) ? ARIG_TOKENS : ARIG_ODD,
		.k_scale = 1, .v_scale = 1,
		.spread = ref_below(seed, 2) ? 1 : 10,
		.is_latent = true,
		.has_holes = ref_below(seed, 3) == 0,
	};

	if (ref_below(seed, 2)) {
		s.window = 1 + ref_below(seed, s.max_len);
		s.sinks = ref_below(seed, 2) ? ref_below(seed, 20) : 0;
	}
	if (s.dtype == KN_E4M3 || s.dtype == KN_E5M2)
		s.k_scale = s.v_scale = ref_uniform(seed, 0.01f, 3);
	return s;
}

static void check_shape(uint32_t number)
{
	uint64_t seed = number;
	struct arig_shape s = random_shape(&seed);
	uint32_t per_row = s.q_heads * s.v_dim;
	struct arig g;
	size_t nr;
	float *out;

	arig_init(&g, &s, seed);
	nr = arig_outs(&g);
	out = ref_alloc(nr * sizeof(*out));
	memset(g.out, 0xff, nr * sizeof(*g.out));
	arig_decode(&g, 0, s.rows, 0, 0, g.out, NULL);
	ck_assert_msg(ref_within("latents", g.out, g.want, g.bound, nr), "seed %u", number);
	g.kv.v_scale = NAN;
	for (unsigned i = 0; i < NR_THREADS; i++) {
		memset(out, 0xff, nr * sizeof(*out));
		arig_decode(&g, 0, s.rows, i % 2 ? arig_pieces(&g) + i : 0, threads[i], out, NULL);
		ck_assert_msg(ref_same("threads and pieces", out, g.out, nr), "seed %u", number);
	}
	for (uint32_t r = 0; r < s.rows; r++) {
		memset(out, 0xff, nr * sizeof(*out));
		arig_decode(&g, r, 1, 0, 0, out, NULL);
		ck_assert_msg(ref_same("a row alone", out + r * per_row, g.out + r * per_row,
				       per_row), "seed %u", number);
	}
	free(out);
	arig_exit(&g);
}

START_TEST(any_shape)
{
	arig_each_seed(NR_SEEDS, check_shape);
}
END_TEST

/* One latent that all heads agree on, by a score of 1e30 over those of -1e30. */
START_TEST(one_token_dominates)
{
	struct arig_shape s = {
		.rows = 1, .q_heads = 16, .kv_heads = 1, .k_dim = 144, .v_dim = 128,
		.block_tokens = 16, .max_len = 600, .dtype = KN_BF16, .k_scale = 1, .v_scale = 1,
		.spread = 0, .is_latent = true,
	};
	struct arig g;
	float k[144];
	uint32_t top;

	arig_init(&g, &s, 4);
	top = g.row[0].len / 2;
	for (uint32_t h = 0; h < s.q_heads; h++)
		g.q[h * s.k_dim + 143] = 1e30f;
	for (uint32_t t = 0; t < g.row[0].len; t++) {
		ref_fill_normal(&g.seed, k, 143);
		k[143] = t == top ? 1 : -1;
		arig_set_k(&g, 0, t, 0, k);
	}
	arig_decode(&g, 0, 1, 0, 0, g.out, NULL);
	for (uint32_t i = 0; i < s.q_heads * s.v_dim; i++)
		quiet_assert(g.out[i] == kn_load(g.kv.k, arig_at(&g, 0, top, 0) + i % s.v_dim,
						 s.dtype));
	arig_exit(&g);
}
END_TEST

START_TEST(what_sees_nothing_is_zero)
{
	struct arig_shape s = {
		.rows = 2, .q_heads = 3, .kv_heads = 1, .k_dim = 40, .v_dim = 32,
		.block_tokens = 16, .max_len = 300, .dtype = KN_F16, .k_scale = 1, .v_scale = 1,
		.spread = 1, .is_latent = true,
	};
	struct arig g;

	arig_init(&g, &s, 6);
	g.row[0].len = 0;
	for (uint32_t i = 0; i < g.table.stride; i++)
		g.slot[g.table.stride + i] = 0;
	memset(g.out, 0xff, arig_outs(&g) * sizeof(*g.out));
	arig_decode(&g, 0, s.rows, 0, 0, g.out, NULL);
	for (uint32_t i = 0; i < arig_outs(&g); i++)
		quiet_assert(g.out[i] == 0);
	arig_exit(&g);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("kernels: latent attention");
	TCase *tc = suite_slow_group(s, "any shape", NULL, NULL, 120);

	tcase_add_test(tc, any_shape);
	suite_test(s, "one token", one_token_dominates, NULL, NULL);
	suite_test(s, "nothing", what_sees_nothing_is_zero, NULL, NULL);
	return suite_run(s);
}
