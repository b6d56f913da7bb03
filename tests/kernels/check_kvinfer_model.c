// SPDX-License-Identifier: Apache-2.0
/*
 * check_kvinfer_model.c - steps of kvinfer's model against the model in double, and
 * against themselves: what must not change a row's result changes no bit of it.
 *
 * The bound: products and sums of fp32 are off by some 1e-6 of the largest logit. K and V
 * are rounded to the cache's type in both, but now and then two numbers that differ by
 * that little round apart, and then one value of K or V is off by a unit in its last
 * place. Measured over 32 seeds of weights and text, in parts of the largest logit: bf16
 * 0.00019, fp16 0.00005; the test allows ten times that.
 */
#include <check.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/infer_rig.h"
#include "tests/kernels/ref.h"
#include "tests/suite.h"

#define TOKENS		300u		/* more than one piece of attention */
#define CHUNK		32u
#define F16_BOUND	0.0005

static struct ki_shape small_shape(void)
{
	struct ki_shape s;
	char msg[KI_TEXT];

	ki_shape_init(&s);
	ck_assert_int_eq(ki_shape_parse(&s, "dim=64,layers=3,heads=4,kv_heads=2,ffn=104,vocab=61",
					msg), 0);
	ck_assert_int_eq(ki_shape_check(&s, 2, msg), 0);
	return s;
}

static void random_tokens(uint64_t seed, const struct ki_shape *s, int32_t *token, uint32_t nr)
{
	uint32_t i;

	for (i = 0; i < nr; i++)
		token[i] = (int32_t)ref_below(&seed, s->vocab);
}

/* A bound of each of two formats, in parts of the largest logit. */
static const struct {
	uint32_t dtype;
	double bound;
} formats[] = { { KN_BF16, 0.002 }, { KN_F16, F16_BOUND } };

static void assert_near(const char *what, const float *got, const struct rig_ref *ref,
			double bound)
{
	double most, off = rig_off(got, ref->logits, ref->m->shape.vocab, &most);

	if (!(off <= bound * most))
		ck_abort_msg("%s: token %u: logits are off by %g of %g", what, ref->len, off, most);
}

/* ------------------------------------------------------------- right answers */

/* Prefill in chunks up to @nr - 8, the others by decode, each compared. */
static void compare(struct rig *r, struct rig_cache *c, struct rig_ref *ref, const int32_t *token,
		    uint32_t nr, double bound)
{
	float *logits = ref_alloc(r->m->shape.vocab * sizeof(*logits));
	uint32_t at, i, n;

	for (at = 0; at < nr; at += n) {
		struct kn_row row = { .seq = 0, .pos = at, .len = at + 1 };

		n = at < nr - 8 ? CHUNK : 1;
		if (n > 1)
			n = n < nr - 8 - at ? n : nr - 8 - at;
		if (n > 1)
			rig_prefill(r, &c->c, CHUNK, 0, token, at, n, logits);
		else
			rig_decode(r, &c->c, 4, 1, &row, token + at, logits);
		for (i = 0; i < n; i++)
			rig_ref_token(ref, token[at + i]);
		assert_near(ki_gemm_name(r->g), logits, ref, bound);
	}
	free(logits);
}

START_TEST(steps_compute_the_model)
{
	enum ki_gemm_kind kind = _i & 1 ? KI_GEMM_PLAIN : KI_GEMM_AUTO;
	unsigned f = _i >> 1 & 1;
	struct ki_shape s = small_shape();
	struct rig_cache c;
	struct rig_ref ref;
	struct rig r;
	int32_t token[TOKENS];

	random_tokens(1 + (uint64_t)_i, &s, token, TOKENS);
	rig_init(&r, &s, 5 + (uint64_t)_i, kind, CHUNK, TOKENS, 0, NULL);
	rig_cache_init(&c, &s, s.kv_heads, 1, TOKENS, 16, formats[f].dtype);
	rig_ref_init(&ref, r.m, formats[f].dtype, TOKENS);
	compare(&r, &c, &ref, token, TOKENS, formats[f].bound);
	rig_ref_exit(&ref);
	rig_cache_exit(&c);
	rig_exit(&r);
}
END_TEST

START_TEST(a_window_with_sinks_hides_the_rest)
{
	struct ki_shape s = small_shape();
	struct rig_cache c;
	struct rig_ref ref;
	struct rig r;
	int32_t token[TOKENS];

	random_tokens(3, &s, token, TOKENS);
	rig_init(&r, &s, 4, KI_GEMM_AUTO, CHUNK, TOKENS, 0, NULL);
	rig_cache_init(&c, &s, s.kv_heads, 1, TOKENS, 16, KN_F16);
	rig_ref_init(&ref, r.m, KN_F16, TOKENS);
	c.c.window = ref.window = 50;
	c.c.sinks = ref.sinks = 3;
	compare(&r, &c, &ref, token, TOKENS, F16_BOUND);
	rig_ref_exit(&ref);
	rig_cache_exit(&c);
	rig_exit(&r);
}
END_TEST

/* The first layers alone, over the K and V that the whole model left for them. */
START_TEST(a_draft_is_the_first_layers)
{
	struct ki_shape s = small_shape();
	struct rig_cache c;
	struct rig_ref ref;
	struct rig r;
	int32_t token[40];
	float logits[61];
	uint32_t zero = 0, i;
	struct kn_row row = { .pos = 39, .len = 40 };
	struct ki_step st = {
		.shape = 1, .nr = 1, .token = token + 39, .row = &row, .layers = 2,
		.nr_out = 1, .out_shape = 1, .out = &zero, .ret_logits = logits,
	};

	random_tokens(8, &s, token, 40);
	rig_init(&r, &s, 9, KI_GEMM_AUTO, CHUNK, 40, 0, NULL);
	rig_cache_init(&c, &s, s.kv_heads, 1, 40, 8, KN_F16);
	rig_ref_init(&ref, r.m, KN_F16, 40);
	ref.layers = 2;
	for (i = 0; i < 40; i++)
		rig_ref_token(&ref, token[i]);
	rig_prefill(&r, &c.c, CHUNK, 0, token, 0, 32, NULL);
	rig_prefill(&r, &c.c, CHUNK, 0, token, 32, 7, NULL);
	ck_assert_int_eq(ki_step(r.run, &c.c, &st), 0);
	assert_near("draft", logits, &ref, F16_BOUND);
	rig_ref_exit(&ref);
	rig_cache_exit(&c);
	rig_exit(&r);
}
END_TEST

/* Each row's masses add up to one per layer and head, and are the reference's. */
START_TEST(masses_are_what_attention_gave)
{
	struct ki_shape s = small_shape();
	struct rig_cache c;
	struct rig_ref ref;
	struct rig r;
	int32_t token[CHUNK];
	struct kn_row row[CHUNK];
	float mass[CHUNK * 40], with[61], without[61];
	uint32_t last = CHUNK - 1, i, j;
	struct ki_step st = {
		.shape = CHUNK, .nr = CHUNK, .token = token, .row = row, .one_seq = true,
		.nr_out = 1, .out_shape = 1, .out = &last, .ret_logits = with,
		.ret_mass = mass, .mass_tokens = 40,
	};

	random_tokens(8, &s, token, CHUNK);
	rig_init(&r, &s, 9, KI_GEMM_AUTO, CHUNK, 40, 0, NULL);
	rig_cache_init(&c, &s, s.kv_heads, 1, 40, 8, KN_F16);
	rig_ref_init(&ref, r.m, KN_F16, 40);
	for (i = 0; i < CHUNK; i++)
		row[i] = (struct kn_row){ .pos = i, .len = i + 1 };
	memset(mass, 0xff, sizeof(mass));
	ck_assert_int_eq(ki_step(r.run, &c.c, &st), 0);
	for (i = 0; i < CHUNK; i++) {
		double sum = 0;

		rig_ref_token(&ref, token[i]);
		for (j = 0; j < 40; j++) {
			sum += mass[i * 40 + j];
			if (!(fabs(mass[i * 40 + j] - ref.mass[j]) < 0.01))
				ck_abort_msg("row %u: token %u has %g, should have %g", i, j,
					     (double)mass[i * 40 + j], ref.mass[j]);
		}
		if (!(fabs(sum - 3 * 4) < 1e-4))
			ck_abort_msg("row %u: masses add up to %g", i, sum);
	}
	/* That they were asked for changes nothing else. */
	rig_prefill(&r, &c.c, CHUNK, 0, token, 0, CHUNK, without);
	ck_assert(ref_same("logits", without, with, s.vocab));
	rig_ref_exit(&ref);
	rig_cache_exit(&c);
	rig_exit(&r);
}
END_TEST

/* ---------------------------------------------------------------- same bits */

/* Of OpenBLAS: code for processors that this one can stand for; "": its own. */
static const char *const cores[] = { "", "Haswell", "Nehalem", "Prescott", "Sandybridge" };

/* @nr sequences of lengths 5, 12, 19, ... are in the cache. */
static void fill(struct rig *r, struct rig_cache *c, uint32_t nr, int32_t (*token)[TOKENS])
{
	uint32_t i, at, n, len;

	for (i = 0; i < nr; i++) {
		random_tokens(100 + i, &r->m->shape, token[i], TOKENS);
		len = 5 + 7 * i;
		for (at = 0; at < len; at += n) {
			n = len - at < CHUNK ? len - at : CHUNK;
			rig_prefill(r, &c->c, CHUNK, i, token[i], at, n, NULL);
		}
	}
}

/* Whoever else is in a step, and wherever a row is in it. */
static void rows_alone_and_together(enum ki_gemm_kind kind, uint32_t shape)
{
	struct ki_shape s = small_shape();
	static int32_t token[16][TOKENS];
	struct kn_row row[16], other[16];
	int32_t next[16], moved[16];
	float *all, *one;
	struct rig_cache c;
	struct rig r;
	uint32_t nr = shape < 16 ? shape : 16, i;

	rig_init(&r, &s, 11, kind, shape > CHUNK ? shape : CHUNK, TOKENS, 0, NULL);
	rig_cache_init(&c, &s, s.kv_heads, 16, TOKENS, 16, KN_BF16);
	fill(&r, &c, nr, token);
	all = ref_alloc(nr * s.vocab * sizeof(*all));
	one = ref_alloc(nr * s.vocab * sizeof(*one));
	for (i = 0; i < nr; i++) {
		row[i] = (struct kn_row){ .seq = i, .pos = 5 + 7 * i, .len = 6 + 7 * i };
		next[i] = token[i][5 + 7 * i];
	}
	rig_decode(&r, &c.c, shape, nr, row, next, all);
	/* Each alone. */
	for (i = 0; i < nr; i++) {
		rig_decode(&r, &c.c, shape, 1, &row[i], &next[i], one);
		ck_assert(ref_same("alone", one, all + i * s.vocab, s.vocab));
	}
	/* All in another order. */
	for (i = 0; i < nr; i++) {
		other[i] = row[(i * 7 + 3) % nr];
		moved[i] = next[(i * 7 + 3) % nr];
	}
	rig_decode(&r, &c.c, shape, nr, other, moved, one);
	for (i = 0; i < nr; i++)
		ck_assert(ref_same("moved", one + i * s.vocab, all + (i * 7 + 3) % nr * s.vocab,
				   s.vocab));
	free(all);
	free(one);
	rig_cache_exit(&c);
	rig_exit(&r);
}

START_TEST(rows_do_not_depend_on_one_another)
{
	static const uint32_t shapes[] = { 1, 3, 16, 33 };
	const char *core = cores[_i / 4];

	/* The library reads it when it is loaded, in this process. */
	if (*core)
		setenv("OPENBLAS_CORETYPE", core, 1);
	rows_alone_and_together(KI_GEMM_AUTO, shapes[_i % 4]);
}
END_TEST

START_TEST(rows_of_the_kernels_products_neither)
{
	rows_alone_and_together(KI_GEMM_PLAIN, 16);
}
END_TEST

/* From a boundary of chunks on: what was cached does not show. */
START_TEST(warm_is_cold)
{
	enum ki_gemm_kind kind = _i & 1 ? KI_GEMM_PLAIN : KI_GEMM_AUTO;
	struct ki_shape s = small_shape();
	int32_t token[TOKENS];
	float cold[61], warm[61];
	struct rig_cache c;
	struct rig r;
	uint32_t at;

	random_tokens(21, &s, token, TOKENS);
	rig_init(&r, &s, 22, kind, CHUNK, TOKENS, 0, NULL);
	rig_cache_init(&c, &s, s.kv_heads, 2, TOKENS, 16, KN_BF16);
	rig_run(&r, &c.c, CHUNK, 0, token, TOKENS - 1, cold);
	/* Another answer in between, to the last bit of scratch memory. */
	rig_run(&r, &c.c, CHUNK, 1, token + 7, TOKENS - 7, warm);
	for (at = 0; at < TOKENS - 2; at += CHUNK) {
		struct kn_row row = { .seq = 0, .pos = TOKENS - 2, .len = TOKENS - 1 };
		uint32_t i, n;

		for (i = at; i < TOKENS - 2; i += n) {
			n = TOKENS - 2 - i < CHUNK ? TOKENS - 2 - i : CHUNK;
			rig_prefill(&r, &c.c, CHUNK, 0, token, i, n, NULL);
		}
		rig_decode(&r, &c.c, 1, 1, &row, token + TOKENS - 2, warm);
		ck_assert(ref_same("warm", warm, cold, s.vocab));
	}
	rig_cache_exit(&c);
	rig_exit(&r);
}
END_TEST

/* Rows of one sequence share tiles in prefill, and do not otherwise. */
START_TEST(prefill_is_decode_of_many_rows)
{
	struct ki_shape s = small_shape();
	struct kn_row row[CHUNK];
	uint32_t out[CHUNK], i;
	int32_t token[TOKENS];
	float *a = ref_alloc(CHUNK * 61 * sizeof(*a)), *b = ref_alloc(CHUNK * 61 * sizeof(*b));
	struct rig_cache c;
	struct rig r;
	struct ki_step st = {
		.shape = CHUNK, .nr = CHUNK, .row = row, .one_seq = true, .nr_out = CHUNK,
		.out_shape = CHUNK, .out = out, .ret_logits = a,
	};

	random_tokens(31, &s, token, TOKENS);
	rig_init(&r, &s, 32, KI_GEMM_AUTO, CHUNK, TOKENS, 0, NULL);
	rig_cache_init(&c, &s, s.kv_heads, 1, TOKENS, 16, KN_BF16);
	rig_run(&r, &c.c, CHUNK, 0, token, 256, a);
	st.token = token + 256;
	for (i = 0; i < CHUNK; i++) {
		row[i] = (struct kn_row){ .pos = 256 + i, .len = 257 + i };
		out[i] = i;
	}
	ck_assert_int_eq(ki_step(r.run, &c.c, &st), 0);
	st.one_seq = false;
	st.ret_logits = b;
	ck_assert_int_eq(ki_step(r.run, &c.c, &st), 0);
	ck_assert(ref_same("logits", b, a, CHUNK * 61));
	free(a);
	free(b);
	rig_cache_exit(&c);
	rig_exit(&r);
}
END_TEST

/* So many tokens may come that attention of all rows takes more than one launch. */
START_TEST(rows_wait_for_memory_of_pieces)
{
	struct ki_shape s = small_shape();
	struct kn_row row[128];
	int32_t token[128];
	float *few = ref_alloc(128 * 61 * sizeof(*few));
	float *many = ref_alloc(128 * 61 * sizeof(*many));
	struct rig_cache c;
	struct rig few_tokens, many_tokens;
	uint32_t i;

	random_tokens(41, &s, token, 128);
	rig_init(&few_tokens, &s, 42, KI_GEMM_AUTO, 128, TOKENS, 0, NULL);
	rig_init(&many_tokens, &s, 42, KI_GEMM_AUTO, 128, 1u << 20, 0, NULL);
	rig_cache_init(&c, &s, s.kv_heads, 1, TOKENS, 16, KN_BF16);
	rig_run(&few_tokens, &c.c, CHUNK, 0, token, 128, few);
	for (i = 0; i < 128; i++)
		row[i] = (struct kn_row){ .pos = i, .len = i + 1 };
	rig_decode(&few_tokens, &c.c, 128, 128, row, token, few);
	rig_decode(&many_tokens, &c.c, 128, 128, row, token, many);
	ck_assert(ref_same("logits", many, few, 128 * 61));
	free(few);
	free(many);
	rig_cache_exit(&c);
	rig_exit(&few_tokens);
	rig_exit(&many_tokens);
}
END_TEST

/* -------------------------------------------------------------------- ranks */

struct both {
	pthread_barrier_t meet;
	float *part[2];
};

struct rank {
	struct ki_reduce reduce;
	struct both *both;
	uint32_t rank;
	int32_t *token;
	float logits[61];
	float mass[100];
};

/* Both ranks add the first one's part and the second one's, in this order. */
static int sum(struct ki_reduce *r, float *x, size_t n)
{
	struct rank *k = (struct rank *)r;
	float *to = ref_alloc(n * sizeof(*to));
	size_t i;

	k->both->part[k->rank] = x;
	pthread_barrier_wait(&k->both->meet);
	for (i = 0; i < n; i++)
		to[i] = k->both->part[0][i] + k->both->part[1][i];
	pthread_barrier_wait(&k->both->meet);
	memcpy(x, to, n * sizeof(*to));
	free(to);
	return 0;
}

static void *rank_main(void *arg)
{
	struct ki_shape s = small_shape();
	struct rank *k = arg;
	struct kn_row row = { .pos = 99, .len = 100 };
	struct ki_step st = {
		.shape = 1, .nr = 1, .token = k->token + 99, .row = &row, .ret_mass = k->mass,
		.mass_tokens = 100,
	};
	struct rig_cache c;
	struct rig r;

	rig_init(&r, &s, 52, KI_GEMM_PLAIN, CHUNK, TOKENS, k->rank, &k->reduce);
	rig_cache_init(&c, &s, r.m->kv_heads, 1, TOKENS, 16, KN_F16);
	rig_run(&r, &c.c, CHUNK, 0, k->token, 100, k->logits);
	/* The last token once more. */
	ck_assert_int_eq(ki_step(r.run, &c.c, &st), 0);
	rig_cache_exit(&c);
	rig_exit(&r);
	return NULL;
}

START_TEST(two_ranks_are_one)
{
	struct ki_shape s = small_shape();
	struct both both = { .part = { NULL } };
	struct rank k[2];
	int32_t token[TOKENS];
	struct rig_ref ref;
	struct rig r;
	pthread_t t;
	uint32_t i;

	ref_cpu();
	random_tokens(51, &s, token, TOKENS);
	ck_assert_int_eq(pthread_barrier_init(&both.meet, NULL, 2), 0);
	for (i = 0; i < 2; i++)
		k[i] = (struct rank){ .reduce.sum = sum, .both = &both, .rank = i,
				      .token = token };
	ck_assert_int_eq(pthread_create(&t, NULL, rank_main, &k[1]), 0);
	rank_main(&k[0]);
	pthread_join(t, NULL);
	pthread_barrier_destroy(&both.meet);
	ck_assert(ref_same("ranks", k[1].logits, k[0].logits, s.vocab));

	rig_init(&r, &s, 52, KI_GEMM_PLAIN, CHUNK, TOKENS, 0, NULL);
	rig_ref_init(&ref, r.m, KN_F16, TOKENS);
	for (i = 0; i < 100; i++)
		rig_ref_token(&ref, token[i]);
	assert_near("ranks", k[0].logits, &ref, F16_BOUND);
	/* Masses are of the heads of both. */
	ck_assert(ref_same("masses", k[1].mass, k[0].mass, 100));
	ck_assert_double_lt(rig_off(k[0].mass, ref.mass, 100, NULL), 0.01);
	rig_ref_exit(&ref);
	rig_exit(&r);
}
END_TEST

/* ---------------------------------------------------------------- bad steps */

START_TEST(steps_that_make_no_sense_are_refused)
{
	struct ki_shape s = small_shape();
	struct kn_row row[4] = { { .len = 1 }, { .pos = 1, .len = 2 }, { .pos = 2, .len = 3 } };
	int32_t token[4] = { 1, 2, 3 };
	uint32_t out[4] = { 0, 1, 2 };
	float logits[4 * 61], mass[4 * 8];
	struct ki_step good = {
		.shape = 4, .nr = 3, .token = token, .row = row, .one_seq = true, .nr_out = 3,
		.out_shape = 3, .out = out, .ret_logits = logits, .ret_mass = mass,
		.mass_tokens = 8,
	}, st;
	struct rig_cache c;
	struct rig r;

	rig_init(&r, &s, 1, KI_GEMM_PLAIN, 4, 8, 0, NULL);
	rig_cache_init(&c, &s, s.kv_heads, 1, 8, 8, KN_BF16);
#define REFUSED(what, ...) do { \
	st = good; \
	__VA_ARGS__; \
	ck_assert_int_eq(ki_step(r.run, &c.c, &st), -EINVAL); \
	ck_assert_msg(strstr(ki_run_error(r.run), what), "%s", ki_run_error(r.run)); \
} while (0)
	REFUSED("0 rows in a shape of 4", st.nr = 0);
	REFUSED("3 rows in a shape of 2", st.shape = 2);
	REFUSED("3 rows in a shape of 5", st.shape = 5);
	REFUSED("4 layers are wanted of 3", st.layers = 4);
	REFUSED("logits of 0 rows", st.nr_out = 0);
	REFUSED("logits of 3 rows in a shape of 2", st.out_shape = 2);
	REFUSED("logits of 3 rows in a shape of 5", st.out_shape = 5);
	REFUSED("masses of 2 tokens", st.mass_tokens = 2);
	REFUSED("logits of row 3 are wanted of 3", out[1] = 3);
	out[1] = 1;
	REFUSED("token 61 of row 2", token[2] = 61);
	REFUSED("token -1 of row 2", token[2] = -1);
	token[2] = 3;
	REFUSED("row 1 is token 9", row[1].len = 9);
	REFUSED("row 1 is token 0", row[1].len = 0);
	REFUSED("row 1 is not the token behind", row[1].len = 3);
	row[1].len = 2;
	REFUSED("row 2 is not the token behind", row[2].seq = 1);
	row[2].seq = 0;
	ck_assert_int_eq(ki_step(r.run, &c.c, &good), 0);
	ck_assert_str_eq(ki_run_error(r.run), "");
	rig_cache_exit(&c);
	rig_exit(&r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("kvinfer_model");
	TCase *t = tcase_create("answers"), *same = tcase_create("same bits");

	tcase_add_loop_test(t, steps_compute_the_model, 0, 4);
	tcase_add_test(t, a_window_with_sinks_hides_the_rest);
	tcase_add_test(t, a_draft_is_the_first_layers);
	tcase_add_test(t, masses_are_what_attention_gave);
	tcase_add_test(t, two_ranks_are_one);
	tcase_add_test(t, steps_that_make_no_sense_are_refused);
	tcase_set_timeout(t, 60);
	suite_add_tcase(s, t);
	tcase_add_loop_test(same, rows_do_not_depend_on_one_another, 0,
			    4 * (int)(sizeof(cores) / sizeof(cores[0])));
	tcase_add_test(same, rows_of_the_kernels_products_neither);
	tcase_add_loop_test(same, warm_is_cold, 0, 2);
	tcase_add_test(same, prefill_is_decode_of_many_rows);
	tcase_add_test(same, rows_wait_for_memory_of_pieces);
	tcase_set_timeout(same, 60);
	suite_add_tcase(s, same);
	return suite_run(s);
}
