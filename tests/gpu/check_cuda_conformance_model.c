// SPDX-License-Identifier: Apache-2.0
/*
 * check_cuda_conformance_model.c - kvinfer's model on a GPU: the CPU's answers, and rows
 * that do not depend on one another.
 *
 * On the fake driver, whose kernels are the CPU's own, bit for bit. On a real one, with
 * cuBLAS where that is, within twice what tests/kernels/check_kvinfer_model.c allows the
 * CPU to be off; that a row's bits are its own holds there too.
 */
#include <math.h>
#include <stdlib.h>

#include "tests/gpu/kernels_rig.h"
#include "tools/kvinfer/model.h"

#define SEQS		8u
#define TOKENS		320u
#define BLOCK		16u
#define CHUNK		32u
#define BOUND		0.001		/* of the largest logit; K and V are fp16 */

/* The model on one device, with a cache of its own. */
struct side {
	struct kn_dev *dev;
	struct ki_model *m;
	struct ki_gemm *g;
	struct ki_run *run;
	struct ki_cache c;
	void *mem;
	int32_t *table;
	uint32_t vocab;
};

static int32_t token_of(uint32_t seq, uint32_t i)
{
	uint32_t z = (seq * TOKENS + i + 1) * 2654435761u;	/* Knuth's, of the golden ratio */

	return (int32_t)(z >> 24);
}

static void make_cache(struct side *d)
{
	const struct ki_shape *s = &d->m->shape;
	uint32_t row = s->kv_heads * s->head_dim, blocks = TOKENS / BLOCK, nr = SEQS * blocks, i;
	uint64_t half = (uint64_t)BLOCK * row * kn_dtype_bytes(KN_F16);
	uint64_t slot_bytes = half * 2 * s->layers;
	int32_t table[SEQS * TOKENS / BLOCK];

	d->mem = kn_alloc(d->dev, (nr + 1) * slot_bytes);
	d->table = kn_alloc(d->dev, sizeof(table));
	CR(d->mem && d->table && !kn_zero(d->dev, d->mem, (nr + 1) * slot_bytes));
	for (i = 0; i < nr; i++)
		table[i] = (int32_t)(i * 7 % nr) + 1;
	CR(!kn_put(d->dev, d->table, table, sizeof(table)));
	for (i = 0; i < s->layers; i++)
		d->c.read[i] = d->c.write[i] = (struct kn_kv){
			.k = (char *)d->mem + i * 2 * half,
			.v = (char *)d->mem + (i * 2 + 1) * half,
			.slot_bytes = slot_bytes, .token_stride = row, .head_stride = s->head_dim,
			.block_tokens = BLOCK, .dtype = KN_F16, .k_scale = 1, .v_scale = 1,
		};
	d->c.table = (struct kn_table){ .slot = d->table, .stride = blocks };
	d->c.block_tokens = BLOCK;
	d->c.dtype = KN_F16;
}

static void open_side(struct side *d, struct kn_dev *dev, enum ki_gemm_kind kind)
{
	struct ki_shape s;
	char msg[KI_TEXT] = "";
	int err;

	memset(d, 0, sizeof(*d));
	d->dev = dev;
	ki_shape_init(&s);
	err = ki_shape_parse(&s, "dim=128,heads=4,ffn=344,layers=3", msg);
	if (!err)
		err = ki_model_random(dev, &s, 3, 0, 1, &d->m, msg);
	if (!err)
		err = ki_gemm_open(dev, kind, 1, &d->g, msg);
	if (!err)
		err = ki_run_create(d->m, d->g, CHUNK, TOKENS, NULL, &d->run, msg);
	if (err)
		ck_abort_msg("%d: %s", err, msg);
	d->vocab = s.vocab;
	make_cache(d);
}

static void close_side(struct side *d)
{
	ki_run_free(d->run);
	ki_gemm_close(d->g);
	ki_model_free(d->m);
	kn_free(d->dev, d->mem);
	kn_free(d->dev, d->table);
	kn_close(d->dev);
}

static void step(struct side *d, const struct ki_step *s)
{
	int err = ki_step(d->run, &d->c, s);

	if (err)
		ck_abort_msg("%d: %s", err, ki_run_error(d->run));
}

/* Tokens from .. to - 1 of @seq in chunks. */
static void prefill(struct side *d, uint32_t seq, uint32_t from, uint32_t to)
{
	struct kn_row row[CHUNK];
	int32_t token[CHUNK];
	struct ki_step s = { .shape = CHUNK, .token = token, .row = row, .one_seq = true };

	for (; from < to; from += s.nr) {
		for (s.nr = 0; s.nr < CHUNK && from + s.nr < to; s.nr++) {
			token[s.nr] = token_of(seq, from + s.nr);
			row[s.nr] = (struct kn_row){ .seq = seq, .pos = from + s.nr,
						     .len = from + s.nr + 1 };
		}
		step(d, &s);
	}
}

/* Number @len of each of the sequences named; [nr][vocab]. */
static float *decode(struct side *d, const uint32_t *seq, uint32_t nr, const uint32_t *len)
{
	float *logits = malloc(nr * d->vocab * sizeof(*logits));
	struct kn_row row[SEQS];
	int32_t token[SEQS];
	uint32_t out[SEQS], i;
	struct ki_step s = {
		.shape = SEQS, .nr = nr, .token = token, .row = row, .nr_out = nr,
		.out_shape = SEQS, .out = out, .ret_logits = logits,
	};

	CR(logits);
	for (i = 0; i < nr; i++) {
		out[i] = i;
		token[i] = token_of(seq[i], len[i] - 1);
		row[i] = (struct kn_row){ .seq = seq[i], .pos = len[i] - 1, .len = len[i] };
	}
	step(d, &s);
	return logits;
}

static bool same(const float *a, const float *b, uint32_t n)
{
	return !memcmp(a, b, n * sizeof(*a));
}

START_TEST(a_gpu_answers_as_the_cpu)
{
	const bool is_fake = cr_fake("fakecuda_calls");
	const uint32_t seq = 2, len = 300;
	double most = 0, off = 0;
	struct kn_dev *cpu, *gpu;
	struct side a, b;
	float *want, *got;
	uint32_t i;

	if (!kr_open(&gpu, NULL))
		return;
	CR(!kn_cpu_open(&cpu));
	open_side(&a, cpu, is_fake ? KI_GEMM_PLAIN : KI_GEMM_AUTO);
	open_side(&b, gpu, KI_GEMM_AUTO);
	printf("products on the CPU by %s, on the GPU by %s\n", ki_gemm_name(a.g),
	       ki_gemm_name(b.g));
	CR(!memcmp(a.m->digest, b.m->digest, sizeof(a.m->digest)));
	prefill(&a, seq, 0, len - 1);
	prefill(&b, seq, 0, len - 1);
	want = decode(&a, &seq, 1, &len);
	got = decode(&b, &seq, 1, &len);
	for (i = 0; i < a.vocab; i++) {
		most = fmax(most, fabs(want[i]));
		off = fmax(off, fabs(want[i] - got[i]));
		CR(!isnan(got[i]));
	}
	printf("logits are off by %.3g of %.3g\n", off, most);
	ck_assert_msg(is_fake ? same(want, got, a.vocab) : off <= BOUND * most,
		      "off by %g of %g", off, most);
	free(want);
	free(got);
	close_side(&a);
	close_side(&b);
}
END_TEST

START_TEST(rows_on_a_gpu_do_not_depend_on_one_another)
{
	uint32_t seq[SEQS], len[SEQS], turned[SEQS], turned_len[SEQS], i;
	float *all, *other;
	struct kn_dev *gpu;
	struct side d;

	if (!kr_open(&gpu, NULL))
		return;
	open_side(&d, gpu, KI_GEMM_AUTO);
	for (i = 0; i < SEQS; i++) {
		seq[i] = i;
		len[i] = 6 + 40 * i;
		turned[(i + 3) % SEQS] = i;
		turned_len[(i + 3) % SEQS] = len[i];
		prefill(&d, i, 0, len[i] - 1);
	}
	all = decode(&d, seq, SEQS, len);
	for (i = 0; i < SEQS; i++) {
		other = decode(&d, &seq[i], 1, &len[i]);
		ck_assert_msg(same(other, all + i * d.vocab, d.vocab), "row %u alone", i);
		free(other);
	}
	other = decode(&d, turned, SEQS, turned_len);
	for (i = 0; i < SEQS; i++)
		ck_assert_msg(same(other + (i + 3) % SEQS * d.vocab, all + i * d.vocab, d.vocab),
			      "row %u elsewhere", i);
	free(other);
	free(all);
	close_side(&d);
}
END_TEST

/* From any boundary of chunks on: what was there before does not show. */
START_TEST(warm_on_a_gpu_is_cold)
{
	const uint32_t seq = 0, len = 200;
	float *cold, *warm;
	struct kn_dev *gpu;
	struct side d;
	uint32_t at;

	if (!kr_open(&gpu, NULL))
		return;
	open_side(&d, gpu, KI_GEMM_AUTO);
	prefill(&d, seq, 0, len - 1);
	cold = decode(&d, &seq, 1, &len);
	for (at = 0; at < len - 1; at += CHUNK) {
		prefill(&d, 1, 0, TOKENS);
		prefill(&d, seq, at, len - 1);
		warm = decode(&d, &seq, 1, &len);
		ck_assert_msg(same(warm, cold, d.vocab), "warm from token %u on", at);
		free(warm);
	}
	free(cold);
	close_side(&d);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cuda: model");
	TCase *t = tcase_create("model");

	tcase_set_timeout(t, 120);
	tcase_add_test(t, a_gpu_answers_as_the_cpu);
	tcase_add_test(t, rows_on_a_gpu_do_not_depend_on_one_another);
	tcase_add_test(t, warm_on_a_gpu_is_cold);
	suite_add_tcase(s, t);
	return cr_main(s);
}
