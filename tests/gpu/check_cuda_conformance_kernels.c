// SPDX-License-Identifier: Apache-2.0
/*
 * check_cuda_conformance_kernels.c - kernels on a GPU make what they make on the CPU.
 *
 * On the fake driver, which runs the CPU's own code with a GPU's threads, bit for bit. On
 * a real one within what both may be off: twice the bound of tests/kernels, stated with
 * each case. Their own tests, on the CPU, are in tests/kernels.
 */
#include <math.h>
#include <stdlib.h>

#include "tests/gpu/kernels_rig.h"

#define E	5.9604644775390625e-8	/* 2^-24: of one rounding */
#define ROOM	65536u			/* values that a case makes */
#define WORK	8u			/* addresses that a case takes */

/* A case: memory on one device, given back when it ends. */
struct work {
	struct kn_dev *d;
	void *mem[WORK];
	unsigned nr;
	uint64_t seed;
	float *out;		/* what it makes, in host memory: ROOM values */
	size_t made;
};

static void *keep(struct work *w, size_t bytes)
{
	void *p = kn_alloc(w->d, bytes);

	CR(p && w->nr < WORK);
	w->mem[w->nr++] = p;
	return p;
}

static void *give(struct work *w, const void *host, size_t bytes)
{
	void *p = keep(w, bytes);

	CR(!kn_put(w->d, p, host, bytes));
	return p;
}

static float uniform(struct work *w)
{
	w->seed = w->seed * 6364136223846793005ull + 1442695040888963407ull;
	return (float)(w->seed >> 40) * 0x1p-23f - 1;
}

/* @n values from -1 to 1. */
static float *values(struct work *w, size_t n)
{
	float *host = malloc(4 * n), *p;

	CR(host);
	for (size_t i = 0; i < n; i++)
		host[i] = uniform(w);
	p = give(w, host, 4 * n);
	free(host);
	return p;
}

static void take(struct work *w, const void *p, size_t n)
{
	CR(w->made + n <= ROOM);
	CR(!kn_get(w->d, w->out + w->made, p, 4 * n));
	w->made += n;
}

static void run(struct work *w, enum kn_kernel k, unsigned x, unsigned y, unsigned z,
		const void *args)
{
	CR(!kn_launch(w->d, k, x, y, z, 0, args));
}

/* -------------------------------------------------------------- basic.cu */

static void embed(struct work *w)
{
	const int32_t token[5] = { 3, 0, -1, 7, 6 };
	struct kn_embed_args a = { .rows = 5, .dim = 301, .vocab = 7 };

	a.token = give(w, token, sizeof(token));
	a.table = values(w, 7 * 301);
	a.out = keep(w, 4 * 5 * 301);
	run(w, KN_EMBED, 5, 1, 1, &a);
	take(w, a.out, 5 * 301);
}

static void norm(struct work *w)
{
	struct kn_norm_args a = { .rows = 6, .dim = 1030, .eps = 1e-5f };

	a.in = values(w, 6 * 1030);
	a.weight = values(w, 1030);
	a.out = keep(w, 4 * 6 * 1030);
	run(w, KN_NORM, 6, 1, 1, &a);
	take(w, a.out, 6 * 1030);
}

static void swiglu(struct work *w)
{
	struct kn_swiglu_args a = { .rows = 4, .n = 555 };

	a.in = values(w, 4 * 2 * 555);
	a.out = keep(w, 4 * 4 * 555);
	run(w, KN_SWIGLU, 4, 1, 1, &a);
	take(w, a.out, 4 * 555);
}

static void add(struct work *w)
{
	struct kn_add_args a = { values(w, 5001), values(w, 5001), 5001 };

	run(w, KN_ADD, 3, 2, 1, &a);
	take(w, a.x, 5001);
}

static void gemm(struct work *w)
{
	struct kn_gemm_args a = { .m = 35, .n = 130, .k = 200 };

	a.a = values(w, 35 * 200);
	a.b = values(w, 130 * 200);
	a.c = keep(w, 4 * 35 * 130);
	run(w, KN_GEMM, 3, 3, 1, &a);
	take(w, a.c, 35 * 130);
}

static void sample(struct work *w, uint32_t top_k, float temperature)
{
	const uint64_t seed[8] = { 1, 2, 3, 4, 5, 6, 7, 1ull << 40 };
	struct kn_sample_args a = { .rows = 8, .vocab = 2003, .top_k = top_k,
				    .temperature = temperature };

	a.logits = values(w, 8 * 2003);
	a.seed = give(w, seed, sizeof(seed));
	a.token = keep(w, 4 * 8);
	a.logprob = keep(w, 4 * 8);
	run(w, KN_SAMPLE, 8, 1, 1, &a);
	/* Numbers of tokens as they are: those that are next to each other would pass. */
	take(w, a.token, 8);
	for (size_t i = w->made - 8; i < w->made; i++) {
		int32_t token;

		memcpy(&token, &w->out[i], 4);
		w->out[i] = (float)token;
	}
	take(w, a.logprob, 8);
}

static void largest(struct work *w)
{
	sample(w, 0, 0);
}

static void draw(struct work *w)
{
	sample(w, 0, 0.9f);
}

static void draw_of_top(struct work *w)
{
	sample(w, 30, 1.5f);
}

/* ------------------------------------------------------------ with blocks */

#define SLOTS	12u
#define TOKENS	16u
#define HEADS	2u
#define DIM	64u
#define ROW	(HEADS * DIM)

/* Blocks of KV: random in bf16, K then V. */
static struct kn_kv blocks(struct work *w)
{
	const size_t n = (size_t)SLOTS * TOKENS * ROW * 2;
	uint16_t *host = malloc(2 * n);
	struct kn_kv kv = {
		.slot_bytes = TOKENS * ROW * 4, .token_stride = ROW, .head_stride = DIM,
		.block_tokens = TOKENS, .dtype = KN_BF16, .k_scale = 1, .v_scale = 1,
	};

	CR(host);
	for (size_t i = 0; i < n; i++)
		host[i] = kn_to_bf16(uniform(w));
	kv.k = give(w, host, 2 * n);
	kv.v = (char *)kv.k + TOKENS * ROW * 2;
	free(host);
	return kv;
}

static const int32_t slots[2][8] = { { 5, 2, 0, 9, 1, 0, 0, 0 }, { 3, 4, 11, 10, 7, 8, 6, 0 } };

static void rope(struct work *w)
{
	const struct kn_row row[4] = { { 0, 20, 21, 0 }, { 1, 9999, 100, 0 }, { 0, 7, 0, 0 },
				       { 0, 40, 41, 0 } };
	struct kn_rope_args a = { .rows = 4, .q_heads = 4, .kv_heads = HEADS, .head_dim = DIM,
				  .theta = 10000 };

	a.kv = blocks(w);
	a.qkv = values(w, 4 * 8 * DIM);
	a.table = (struct kn_table){ give(w, slots, sizeof(slots)), 8 };
	a.row = give(w, row, sizeof(row));
	run(w, KN_ROPE, 4, 1, 1, &a);
	take(w, a.qkv, 4 * 8 * DIM);
}

static struct kn_attend_args attention(struct work *w, const struct kn_row *row, uint32_t rows)
{
	struct kn_attend_args a = { .rows = rows, .q_heads = 3 * HEADS, .kv_heads = HEADS,
				    .head_dim = DIM, .pieces = 1, .scale = 0.125f };

	a.kv = blocks(w);
	a.table = (struct kn_table){ give(w, slots, sizeof(slots)), 8 };
	a.row = give(w, row, rows * sizeof(*row));
	a.q_stride = a.q_heads * DIM;
	a.q = values(w, rows * a.q_stride);
	a.out = keep(w, 4 * rows * a.q_stride);
	return a;
}

static void attend(struct work *w)
{
	const struct kn_row row[3] = { { 0, 70, 71, 0 }, { 1, 111, 112, 0 }, { 1, 0, 0, 0 } };
	struct kn_attend_args a = attention(w, row, 3);

	a.part = keep(w, kn_attend_part_bytes(3, a.q_heads, DIM, 1));
	a.mass = keep(w, 4 * 3 * 128);
	a.mass_stride = 128;
	CR(!kn_zero(w->d, a.mass, 4 * 3 * 128));
	run(w, KN_ATTEND, 3, HEADS, 1, &a);
	run(w, KN_ATTEND_MERGE, 3, a.q_heads, 1, &a);
	take(w, a.out, 3 * a.q_stride);
	take(w, a.mass, 3 * 128);
}

static void prefill(struct work *w)
{
	struct kn_row row[20];
	struct kn_attend_args a;

	for (uint32_t i = 0; i < 20; i++)
		row[i] = (struct kn_row){ 1, 80 + i, 81 + i, 0 };
	a = attention(w, row, 20);
	a.window = 50;
	a.sinks = 4;
	run(w, KN_PREFILL, 2, HEADS, 1, &a);
	take(w, a.out, 20 * a.q_stride);
}

static void mla(struct work *w)
{
	const struct kn_row row[2] = { { 0, 70, 71, 0 }, { 1, 111, 112, 0 } };
	struct kn_mla_args a = { .rows = 2, .q_heads = 5, .kv_dim = 96, .rope_dim = 32,
				 .pieces = 1, .scale = 0.1f };

	/* A token's K of both heads is its latent. */
	a.kv = blocks(w);
	a.table = (struct kn_table){ give(w, slots, sizeof(slots)), 8 };
	a.row = give(w, row, sizeof(row));
	a.q = values(w, 2 * 5 * ROW);
	a.out = keep(w, 4 * 2 * 5 * 96);
	a.part = keep(w, kn_attend_part_bytes(2, 5, 96, 1));
	run(w, KN_MLA, 2, 1, 1, &a);
	run(w, KN_MLA_MERGE, 2, 5, 1, &a);
	take(w, a.out, 2 * 5 * 96);
}

static void tokens(struct work *w)
{
	const struct kn_token_move move[3] = { { 1, 3, 5, 0 }, { 2, 15, 5, 1 }, { 9, 0, 4, 9 } };
	struct kn_tokens_args a = { .nr = 3, .kv_heads = HEADS, .head_dim = DIM };

	a.kv = blocks(w);
	a.move = give(w, move, sizeof(move));
	run(w, KN_TOKENS, 3, 1, 1, &a);
	take(w, a.kv.k, SLOTS * TOKENS * ROW);
}

/* ------------------------------------------------------------------ cases */

/*
 * @off: how much two right answers can differ. Inputs are from -1 to 1. Attention: scores
 * of 64 (MLA: 128) products are below 8 (13), off by 66e (130e) of that, and so is the
 * exponent; values of up to 112 tokens are averaged.
 */
static const struct {
	const char *name;
	void (*fn)(struct work *w);
	double off;
} cases[] = {
	{ "embed", embed, 0 },
	{ "norm", norm, 2 * 12 * E * 2 },
	{ "swiglu", swiglu, 2 * 6 * E },
	{ "add", add, 0 },
	{ "gemm", gemm, 2 * 202 * E * 200 },
	{ "largest", largest, 2 * (104 + 40) * E },
	{ "draw", draw, 2 * (104 + 40) * E },
	{ "draw of top", draw_of_top, 2 * (104 + 40) * E },
	{ "rope", rope, 2 * 2 * (2 + 1 + 2 + 0.2) * E },
	{ "attend", attend, 6 * (2 * 66 * 8 + 200) * E },
	{ "prefill", prefill, 2 * (2 * 66 * 8 + 200) * E },
	{ "mla", mla, 2 * (2 * 130 * 13 + 200) * E },
	{ "tokens", tokens, 0 },
};
#define NR_CASE		((int)(sizeof(cases) / sizeof(cases[0])))

static void make(struct work *w, struct kn_dev *d, int i)
{
	*w = (struct work){ .d = d, .seed = (uint64_t)i, .out = malloc(4 * ROOM) };
	CR(w->out);
	cases[i].fn(w);
	while (w->nr)
		kn_free(d, w->mem[--w->nr]);
}

START_TEST(a_gpu_makes_what_the_cpu_makes)
{
	const bool is_fake = cr_fake("fakecuda_calls");
	struct kn_dev *cpu, *gpu;
	struct work want, got;

	if (!kr_open(&gpu, NULL))
		return;
	CR(!kn_cpu_open(&cpu));
	CR(kn_is_cuda(gpu) && kn_stream(gpu));
	make(&want, cpu, _i);
	make(&got, gpu, _i);
	CR(want.made == got.made && want.made);
	for (size_t i = 0; i < want.made; i++) {
		const bool same = kn_bits(want.out[i]) == kn_bits(got.out[i]);
		const double off = fabs((double)want.out[i] - got.out[i]);

		if (!same && (is_fake || cases[_i].off == 0 || !(off <= cases[_i].off)))
			ck_abort_msg("%s: value %zu is %.9g, on the CPU %.9g: off by %.3g of %.3g",
				     cases[_i].name, i, (double)got.out[i], (double)want.out[i],
				     off, cases[_i].off);
	}
	kn_close(gpu);
	kn_close(cpu);
	free(want.out);
	free(got.out);
}
END_TEST

/* Many small pieces and some large, from memory that changes at once. */
START_TEST(what_was_put_is_what_it_was)
{
	enum { SMALL = 3000, PIECES = 1500, LARGE = 400000 };
	char *host = malloc(LARGE), *back = malloc(LARGE), *p;
	struct kn_dev *gpu;

	CR(host && back);
	if (!kr_open(&gpu, NULL))
		return;
	p = kn_alloc(gpu, (size_t)SMALL * PIECES);
	CR(p);
	for (int i = 0; i < PIECES; i++) {
		memset(host, i % 251, SMALL);
		CR(!kn_put(gpu, p + (size_t)i * SMALL, host, SMALL));
	}
	for (int i = 0; i < PIECES; i++) {
		CR(!kn_get(gpu, back, p + (size_t)i * SMALL, SMALL));
		memset(host, i % 251, SMALL);
		CR(!memcmp(host, back, SMALL));
	}
	memset(host, 77, LARGE);
	CR(!kn_put(gpu, p, host, LARGE));
	memset(host, 78, LARGE);
	CR(!kn_put(gpu, p + LARGE, host, LARGE));
	CR(!kn_zero(gpu, p + 100, 50));
	CR(!kn_copy(gpu, p + 2 * LARGE, p, LARGE));
	CR(!kn_get(gpu, back, p + 2 * LARGE, LARGE));
	CR(back[0] == 77 && back[99] == 77 && !back[100] && !back[149] && back[150] == 77);
	CR(!kn_get(gpu, back, p + LARGE, LARGE));
	CR(!memcmp(host, back, LARGE));
	CR(!kn_sync(gpu));
	kn_free(gpu, p);
	kn_close(gpu);
	free(host);
	free(back);
}
END_TEST

START_TEST(two_devices_of_one_gpu)
{
	struct kn_dev *one, *two;
	uint32_t v = 7, back = 0;
	void *p;

	if (!kr_open(&one, NULL) || !kr_open(&two, NULL))
		return;
	p = kn_alloc(one, 4);
	CR(p && !kn_put(one, p, &v, 4) && !kn_sync(one));
	/* The primary context is one, so are its addresses. */
	CR(!kn_get(two, &back, p, 4) && back == 7);
	kn_close(two);
	CR(!kn_get(one, &back, p, 4));
	kn_free(one, p);
	kn_close(one);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cuda: kernels");
	TCase *t = tcase_create("kernels");

	tcase_add_loop_test(t, a_gpu_makes_what_the_cpu_makes, 0, NR_CASE);
	tcase_add_test(t, what_was_put_is_what_it_was);
	tcase_add_test(t, two_devices_of_one_gpu);
	tcase_set_timeout(t, 60);
	suite_add_tcase(s, t);
	return cr_main(s);
}
