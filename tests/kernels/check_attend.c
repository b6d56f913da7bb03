// SPDX-License-Identifier: Apache-2.0
/*
 * check_attend.c - attention over blocks, against the same in double within the bounds
 * of kernels.h, and bit for bit where a row's result is not to depend on the launch.
 *
 * Shapes are random; what is wrong is told with the seed, KVMD_SEED=n runs that one
 * alone, KVMD_SEEDS=n so many.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/attend_rig.h"
#include "tests/quiet.h"
#include "tests/suite.h"

#define NR_SEEDS	48u

static const unsigned threads[] = { 0, 1, 7, 128, 256 };
#define NR_THREADS	(sizeof(threads) / sizeof(threads[0]))

static struct arig_shape random_shape(uint64_t *seed, bool is_chunk)
{
	static const uint32_t dims[] = { 8, 24, 32, 64, 80, 128, 136, 256 };
	static const uint32_t groups[][2] = {
		{ 1, 1 }, { 4, 4 }, { 8, 2 }, { 6, 2 }, { 5, 1 }, { 9, 1 }, { 17, 1 },
	};
	uint32_t g = ref_below(seed, 7);
	struct arig_shape s = {
		.rows = 1 + ref_below(seed, is_chunk ? 40 : 6),
		.q_heads = groups[g][0], .kv_heads = groups[g][1],
		.block_tokens = 1 + ref_below(seed, 40),
		.max_len = ref_below(seed, 3) ? 700 : 40,
		.dtype = ref_below(seed, 4),
		.layout = ref_below(seed, NR_ARIG_LAYOUT),
		.k_scale = 1, .v_scale = 1,
		.spread = ref_below(seed, 2) ? 1 : 20,
		.is_chunk = is_chunk,
		.has_holes = ref_below(seed, 3) == 0,
	};

	s.k_dim = s.v_dim = dims[ref_below(seed, 8)];
	if (s.max_len > 40 && s.k_dim > 80)
		s.max_len = 300;
	if (ref_below(seed, 2)) {
		s.window = 1 + ref_below(seed, s.max_len);
		s.sinks = ref_below(seed, 2) ? ref_below(seed, 20) : 0;
	}
	if (s.dtype == KN_E4M3 || s.dtype == KN_E5M2) {
		s.k_scale = ref_uniform(seed, 0.01f, 3);
		s.v_scale = ref_uniform(seed, 0.01f, 3);
	}
	return s;
}

/* Rows and blocks of a launch leave no trace in a row's result. */
static void compare_launches(struct arig *g, uint32_t seed)
{
	const uint32_t heads = g->s.q_heads * g->s.v_dim;
	size_t nr = arig_outs(g), masses = g->s.rows * g->mass_stride;
	float *out = ref_alloc(nr * sizeof(*out)), *mass = ref_alloc(masses * sizeof(*mass));

	for (unsigned i = 0; i < NR_THREADS; i++) {
		memset(out, 0xff, nr * sizeof(*out));
		memset(mass, 0xff, masses * sizeof(*mass));
		arig_decode(g, 0, g->s.rows, i % 2 ? arig_pieces(g) + i : 0, threads[i], out, mass);
		ck_assert_msg(ref_same("threads and pieces", out, g->out, nr), "seed %u", seed);
		ck_assert_msg(ref_same("mass", mass, g->mass, masses), "seed %u", seed);
	}
	memset(out, 0xff, nr * sizeof(*out));
	for (uint32_t r = 0; r < g->s.rows; r += 1 + r / 4)
		arig_decode(g, r, 1, 0, 0, out, NULL);
	for (uint32_t r = 0; r < g->s.rows; r += 1 + r / 4)
		ck_assert_msg(ref_same("a row alone", out + r * heads, g->out + r * heads, heads),
			      "seed %u", seed);
	free(out);
	free(mass);
}

/* Blocks that no row of the sequence sees, by their number, become NULL. */
static void forget_unseen(struct arig *g)
{
	const uint32_t bt = g->s.block_tokens;

	for (uint32_t r = 0; r < g->s.rows; r++) {
		if (g->s.is_chunk && r)
			break;
		for (uint32_t i = 0; i * bt < g->row[r].len; i++) {
			bool is_any = false;

			for (uint32_t t = i * bt; t < (i + 1) * bt; t++)
				is_any |= arig_sees(g, r, t) ||
					  (g->s.is_chunk && t >= g->row[r].len);
			if (!is_any)
				g->slot[g->row[r].seq * g->table.stride + i] = 0;
		}
	}
}

static void check_decode(uint32_t number)
{
	uint64_t seed = number;
	struct arig_shape s = random_shape(&seed, false);
	struct arig g;
	size_t nr;

	arig_init(&g, &s, seed);
	nr = arig_outs(&g);
	memset(g.out, 0xff, nr * sizeof(*g.out));
	memset(g.mass, 0xff, g.s.rows * g.mass_stride * sizeof(*g.mass));
	arig_decode(&g, 0, s.rows, 0, 0, g.out, g.mass);
	ck_assert_msg(ref_within("attention", g.out, g.want, g.bound, nr), "seed %u", number);
	ck_assert_msg(ref_within("mass", g.mass, g.want_mass, g.bound_mass,
				 s.rows * g.mass_stride), "seed %u", number);
	compare_launches(&g, number);
	forget_unseen(&g);
	compare_launches(&g, number);
	arig_exit(&g);
}

START_TEST(any_shape)
{
	arig_each_seed(NR_SEEDS, check_decode);
}
END_TEST

/* ------------------------------------------------------------------ prefill */

static void compare_prefill(struct arig *g, uint32_t seed)
{
	const uint32_t rows = g->s.rows;
	size_t nr = arig_outs(g);
	float *out = ref_alloc(nr * sizeof(*out));

	for (unsigned i = 0; i < NR_THREADS; i++) {
		memset(out, 0xff, nr * sizeof(*out));
		arig_prefill(g, 0, rows, threads[i], out);
		ck_assert_msg(ref_same("prefill", out, g->out, nr), "seed %u", seed);
	}
	/* Another start of the chunk, another place in a block's rows. */
	memset(out, 0xff, nr * sizeof(*out));
	arig_prefill(g, rows / 3, rows - rows / 3, 0, out);
	if (rows / 3)
		arig_prefill(g, 0, rows / 3, 0, out);
	ck_assert_msg(ref_same("two chunks", out, g->out, nr), "seed %u", seed);
	arig_prefill(g, rows - 1, 1, 0, out);
	ck_assert_msg(ref_same("one row", out, g->out, nr), "seed %u", seed);
	free(out);
}

static void check_prefill(uint32_t number)
{
	uint64_t seed = number;
	struct arig_shape s = random_shape(&seed, true);
	struct arig g;
	size_t nr;

	arig_init(&g, &s, seed);
	nr = arig_outs(&g);
	memset(g.out, 0xff, nr * sizeof(*g.out));
	arig_decode(&g, 0, s.rows, 0, 0, g.out, NULL);
	ck_assert_msg(ref_within("attention", g.out, g.want, g.bound, nr), "seed %u", number);
	compare_prefill(&g, number);
	forget_unseen(&g);
	compare_prefill(&g, number);
	arig_exit(&g);
}

START_TEST(prefill_is_decode)
{
	arig_each_seed(NR_SEEDS, check_prefill);
}
END_TEST

/* Rows that see token @at, whose V is infinite and then K is NaN, and rows that do not. */
static void check_bad_token(struct arig *g, uint32_t at)
{
	const uint32_t per_row = g->s.q_heads * g->s.v_dim;
	float *out = ref_alloc(arig_outs(g) * sizeof(*out)), bad[32];
	uint32_t nr_seen = 0;

	for (unsigned is_nan = 0; is_nan < 2; is_nan++) {
		for (int i = 0; i < 32; i++)
			bad[i] = is_nan ? NAN : i % 2 ? INFINITY : -INFINITY;
		for (uint32_t h = 0; h < g->s.kv_heads; h++)
			(is_nan ? arig_set_k : arig_set_v)(g, 0, at, h, bad);
		arig_prefill(g, 0, g->s.rows, 0, out);
		arig_decode(g, 0, g->s.rows, 0, 0, g->out, NULL);
		for (uint32_t r = 0; r < g->s.rows; r++) {
			const uint32_t i = r * per_row;

			nr_seen += arig_sees(g, r, at);
			if (!arig_sees(g, r, at)) {
				quiet_assert(ref_within("row", out + i, g->want + i, g->bound + i,
							per_row));
				quiet_assert(ref_same("row", out + i, g->out + i, per_row));
				continue;
			}
			for (uint32_t d = i; d < i + per_row; d++)
				quiet_assert(is_nan ? isnan(out[d]) && isnan(g->out[d]) :
					     isinf(out[d]) && isinf(g->out[d]));
		}
	}
	ck_assert_uint_gt(nr_seen, 0);
	ck_assert_uint_lt(nr_seen, 2 * g->s.rows);
	free(out);
}

/* Of rows that share tiles, what one does not see leaves no trace in it. */
START_TEST(prefill_keeps_others_tokens_out)
{
	struct arig_shape s = {
		.rows = 33, .q_heads = 4, .kv_heads = 2, .k_dim = 32, .v_dim = 32,
		.block_tokens = 16, .max_len = 400, .dtype = KN_F16, .k_scale = 1, .v_scale = 1,
		.spread = 1, .is_chunk = true,
	};
	struct arig g;

	arig_init(&g, &s, 7);
	check_bad_token(&g, g.row[20].len - 1);
	arig_exit(&g);
	s.window = 30;
	for (s.sinks = 0; s.sinks < 9; s.sinks += 8) {
		arig_init(&g, &s, 7);
		ck_assert_uint_gt(g.row[0].len, 100);
		check_bad_token(&g, g.row[9].len - 30);
		arig_exit(&g);
		arig_init(&g, &s, 7);
		check_bad_token(&g, g.row[20].len - 1);
		arig_exit(&g);
	}
}
END_TEST

/* More than a tile's rows, in decode, prefill and mass. */
START_TEST(many_heads_of_a_group)
{
	struct arig_shape s = {
		.rows = 3, .q_heads = 140, .kv_heads = 2, .k_dim = 16, .v_dim = 16,
		.block_tokens = 16, .max_len = 300, .dtype = KN_BF16, .k_scale = 1, .v_scale = 1,
		.spread = 1, .is_chunk = true,
	};
	struct arig g;

	arig_init(&g, &s, 3);
	arig_decode(&g, 0, s.rows, 0, 0, g.out, g.mass);
	ck_assert(ref_within("attention", g.out, g.want, g.bound, arig_outs(&g)));
	ck_assert(ref_within("mass", g.mass, g.want_mass, g.bound_mass, s.rows * g.mass_stride));
	compare_prefill(&g, 3);
	arig_exit(&g);
}
END_TEST

/* Sinks that end right behind a tile's first token, and before, in and behind the window. */
START_TEST(sinks_of_any_length)
{
	static const uint32_t sinks[] = {
		1, 63, 64, 65, 127, 128, 129, 255, 256, 257, 385, 600, 1000,
	};
	struct arig_shape s = {
		.rows = 5, .q_heads = 4, .kv_heads = 2, .k_dim = 16, .v_dim = 16,
		.block_tokens = 16, .max_len = 600, .dtype = KN_BF16, .k_scale = 1, .v_scale = 1,
		.spread = 1, .is_chunk = true, .window = 7,
	};

	for (unsigned i = 0; i < sizeof(sinks) / sizeof(sinks[0]); i++) {
		struct arig g;

		s.sinks = sinks[i];
		s.window = i % 2 ? 7 : 150;
		arig_init(&g, &s, 36);
		quiet_assert(g.row[0].len > 500);
		arig_decode(&g, 0, s.rows, 0, 0, g.out, NULL);
		quiet_assert_msg(ref_within("attention", g.out, g.want, g.bound, arig_outs(&g)),
				 "%u sinks", s.sinks);
		compare_prefill(&g, s.sinks);
		arig_exit(&g);
	}
}
END_TEST

/* ------------------------------------------------------------------ nothing */

START_TEST(what_sees_nothing_is_zero)
{
	struct arig_shape s = {
		.rows = 3, .q_heads = 4, .kv_heads = 2, .k_dim = 64, .v_dim = 64,
		.block_tokens = 16, .max_len = 600, .dtype = KN_BF16, .k_scale = 1, .v_scale = 1,
		.spread = 1,
	};
	struct arig g;

	arig_init(&g, &s, 3);
	g.row[0].len = 0;
	for (uint32_t i = 0; i < g.table.stride; i++)
		g.slot[g.table.stride + i] = 0;
	memset(g.out, 0xff, arig_outs(&g) * sizeof(*g.out));
	memset(g.mass, 0xff, s.rows * g.mass_stride * sizeof(*g.mass));
	arig_reference(&g);
	arig_decode(&g, 0, s.rows, 0, 0, g.out, g.mass);
	ck_assert(ref_within("nothing", g.out, g.want, g.bound, arig_outs(&g)));
	ck_assert(ref_within("its mass", g.mass, g.want_mass, g.bound_mass,
			     s.rows * g.mass_stride));
	for (uint32_t i = 0; i < 2 * s.q_heads * s.v_dim; i++)
		quiet_assert(g.out[i] == 0);
	memset(g.out, 0xff, arig_outs(&g) * sizeof(*g.out));
	arig_prefill(&g, 0, 1, 0, g.out);
	arig_prefill(&g, 1, 1, 0, g.out);
	for (uint32_t i = 0; i < 2 * s.q_heads * s.v_dim; i++)
		quiet_assert(g.out[i] == 0);
	arig_exit(&g);
}
END_TEST

START_TEST(room_for_pieces)
{
	ck_assert_uint_eq(kn_attend_part_bytes(3, 4, 64, 2), 3 * 4 * 2 * (64 + 4) * 4);
	ck_assert_uint_eq(kn_attend_part_bytes(0, 4, 64, 2), 0);
	ck_assert(kn_attend_part_bytes(UINT32_MAX, UINT32_MAX, 256, UINT32_MAX) == SIZE_MAX);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("kernels: attention");
	TCase *tc = suite_slow_group(s, "any shape", NULL, NULL, 120);

	tcase_add_test(tc, any_shape);
	tcase_add_test(tc, prefill_is_decode);
	suite_test(s, "others' tokens", prefill_keeps_others_tokens_out, NULL, NULL);
	suite_test(s, "many heads", many_heads_of_a_group, NULL, NULL);
	suite_test(s, "sinks", sinks_of_any_length, NULL, NULL);
	suite_test(s, "nothing", what_sees_nothing_is_zero, NULL, NULL);
	suite_test(s, "room", room_for_pieces, NULL, NULL);
	return suite_run(s);
}
