// SPDX-License-Identifier: Apache-2.0
/*
 * check_attend_numbers.c - attention of scores and values that are hard to compute with:
 * equal, huge, tiny, infinite. Bounds: kernels.h.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/attend_rig.h"
#include "tests/quiet.h"
#include "tests/suite.h"

static struct arig_shape plain_shape(uint32_t dtype)
{
	return (struct arig_shape){
		.rows = 3, .q_heads = 4, .kv_heads = 2, .k_dim = 64, .v_dim = 64,
		.block_tokens = 16, .max_len = 600, .dtype = dtype, .k_scale = 1, .v_scale = 1,
		.spread = 1,
	};
}

static void decode_within(struct arig *g, const char *what)
{
	arig_reference(g);
	arig_decode(g, 0, g->s.rows, 0, 0, g->out, g->mass);
	ck_assert(ref_within(what, g->out, g->want, g->bound, arig_outs(g)));
	ck_assert(ref_within(what, g->mass, g->want_mass, g->bound_mass,
			     g->s.rows * g->mass_stride));
}

START_TEST(equal_scores_are_the_mean)
{
	for (uint32_t dtype = 0; dtype < KN_F32; dtype++) {
		struct arig_shape s = plain_shape(dtype);
		struct arig g;

		s.spread = 0;
		arig_init(&g, &s, dtype);
		decode_within(&g, "mean");
		for (uint32_t t = 0; t < g.row[0].len; t++)
			quiet_assert(fabs(g.mass[t] * g.row[0].len / s.q_heads - 1) < 1e-4);
		arig_exit(&g);
	}
}
END_TEST

/* Scores of +-1e4 and +-1e30: one token has all the weight, and nothing overflows. */
START_TEST(one_token_dominates)
{
	static const float sizes[] = { 1e4f, 1e30f, -1e4f, -1e30f };

	for (unsigned i = 0; i < 4; i++) {
		struct arig_shape s = plain_shape(KN_BF16);
		struct arig g;
		float k[64], v[64];

		arig_init(&g, &s, i);
		for (uint32_t r = 0; r < s.rows; r++) {
			uint32_t top = g.row[r].len ? ref_below(&g.seed, g.row[r].len) : 0;

			for (uint32_t h = 0; h < s.q_heads; h++)
				for (uint32_t d = 0; d < 64; d++)
					g.q[r * g.q_stride + h * 64 + d] = d ? 0 : sizes[i];
			for (uint32_t t = 0; t < g.row[r].len; t++)
				for (uint32_t h = 0; h < s.kv_heads; h++) {
					memset(k, 0, sizeof(k));
					k[0] = t == top ? 1 : -1;
					k[0] *= sizes[i] < 0 ? -1 : 1;
					arig_set_k(&g, r, t, h, k);
					ref_fill_normal(&g.seed, v, 64);
					arig_set_v(&g, r, t, h, v);
				}
			if (!g.row[r].len)
				continue;
			arig_decode(&g, r, 1, 0, 0, g.out, g.mass);
			for (uint32_t h = 0; h < s.q_heads; h++)
				for (uint32_t d = 0; d < 64; d++) {
					uint64_t at = arig_at(&g, r, top, h / 2) + d;

					quiet_assert(g.out[(r * s.q_heads + h) * 64 + d] ==
						     kn_load(g.kv.v, at, s.dtype));
				}
			for (uint32_t t = 0; t < g.row[r].len; t++)
				quiet_assert(g.mass[r * g.mass_stride + t] ==
					     (t == top ? (float)s.q_heads : 0));
		}
		arig_exit(&g);
	}
}
END_TEST

/* Any finite q that keeps scores finite, and values from denormal to the largest. */
START_TEST(denormals_and_giants)
{
	for (uint32_t dtype = 0; dtype < KN_F32; dtype++) {
		struct arig_shape s = plain_shape(dtype);
		const float least = dtype == KN_BF16 ? 1e-40f : dtype == KN_F16 ? 1e-7f :
			dtype == KN_E4M3 ? 0x1p-9f : 0x1p-16f;
		const float most = dtype == KN_BF16 ? 1e30f : dtype == KN_F16 ? 6e4f : 400;
		struct arig g;
		float k[64], v[64];

		arig_init(&g, &s, dtype + 10);
		for (uint32_t i = 0; i < s.rows * g.q_stride; i++)
			g.q[i] = i % 3 ? g.q[i] / most / 8 : 1e-41f * g.q[i];
		for (uint32_t r = 0; r < s.rows; r++)
			for (uint32_t t = 0; t < g.row[r].len; t++)
				for (uint32_t h = 0; h < s.kv_heads; h++) {
					for (uint32_t d = 0; d < 64; d++) {
						k[d] = ref_uniform(&g.seed, -1, 1) *
							(ref_below(&g.seed, 2) ? least * 4 : most);
						v[d] = ref_uniform(&g.seed, -1, 1) *
							(d % 2 ? least * 4 : most);
					}
					arig_set_k(&g, r, t, h, k);
					arig_set_v(&g, r, t, h, v);
				}
		decode_within(&g, "denormals and giants");
		arig_exit(&g);
	}
}
END_TEST

/* Tokens of falling score over some hundred: weights below e^-87 count as nothing. */
START_TEST(weights_fade_out)
{
	struct arig_shape s = plain_shape(KN_BF16);
	struct arig g;
	float k[64] = { 0 };

	arig_init(&g, &s, 5);
	for (uint32_t r = 0; r < s.rows; r++) {
		for (uint32_t h = 0; h < s.q_heads; h++)
			for (uint32_t d = 0; d < 64; d++)
				g.q[r * g.q_stride + h * 64 + d] = d ? 0 : 8;
		for (uint32_t t = 0; t < g.row[r].len; t++)
			for (uint32_t h = 0; h < s.kv_heads; h++) {
				k[0] = (h ? -0.5f : 0.5f) * (float)t;
				arig_set_k(&g, r, t, h, k);
			}
	}
	decode_within(&g, "fading");
	arig_exit(&g);
}
END_TEST

/* A score of infinity makes its own row NaN, one of -infinity is as if not there. */
START_TEST(infinite_scores)
{
	struct arig_shape s = plain_shape(KN_F16);
	const uint32_t per_row = s.q_heads * s.v_dim;
	float inf[64] = { INFINITY }, minus[64] = { -INFINITY };
	struct arig g;
	float *out;

	s.block_tokens = 1;
	arig_init(&g, &s, 9);
	out = ref_alloc(arig_outs(&g) * sizeof(*out));
	for (uint32_t r = 0; r < s.rows; r++)
		for (uint32_t h = 0; h < s.q_heads; h++)
			g.q[r * g.q_stride + h * 64] = 1;
	ck_assert_uint_gt(g.row[1].len, 2);
	for (uint32_t h = 0; h < s.kv_heads; h++) {
		arig_set_k(&g, 0, 0, h, inf);
		arig_set_k(&g, 1, 1, h, minus);
	}
	arig_decode(&g, 0, s.rows, 0, 0, g.out, NULL);
	g.slot[g.table.stride + 1] = 0;
	arig_decode(&g, 0, s.rows, 0, 0, out, NULL);
	for (uint32_t i = 0; i < per_row; i++)
		quiet_assert(isnan(g.out[i]));
	ck_assert(ref_same("others", g.out + per_row, out + per_row, 2 * per_row));
	arig_reference(&g);
	ck_assert(ref_within("others", out + per_row, g.want + per_row, g.bound + per_row,
			     2 * per_row));
	free(out);
	arig_exit(&g);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("kernels: attention, hard numbers");

	suite_test(s, "equal scores", equal_scores_are_the_mean, NULL, NULL);
	suite_test(s, "one token", one_token_dominates, NULL, NULL);
	suite_test(s, "denormals", denormals_and_giants, NULL, NULL);
	suite_test(s, "fading", weights_fade_out, NULL, NULL);
	suite_test(s, "infinite scores", infinite_scores, NULL, NULL);
	return suite_run(s);
}
