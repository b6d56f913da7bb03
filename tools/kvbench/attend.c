// SPDX-License-Identifier: Apache-2.0
/*
 * attend.c - attention of decode over blocks, in a pool and in private memory.
 *
 * Sequences of the pool grow in turn, some blocks at a time, so that a sequence's blocks
 * lie apart as they do in a server. Runs go over the layers one after the other: what
 * one has read the next one does not find in a cache.
 */
#include <math.h>
#include <stdlib.h>

#include "tools/kvbench/on_dev.h"

#define GROW	8u			/* blocks of a sequence at a time */

/* ------------------------------------------------------------ sizes */

static uint64_t part_bytes(const struct attend_shape *s)
{
	return 2ull * BENCH_TOKENS * s->kv_heads * s->head_dim;
}

uint64_t attend_layer_bytes(const struct attend_shape *s)
{
	return 2 * part_bytes(s);
}

uint64_t attend_block_bytes(const struct attend_shape *s)
{
	return s->layers * attend_layer_bytes(s);
}

static uint32_t blocks_of(const struct attend_shape *s)
{
	return s->tokens / BENCH_TOKENS;
}

uint32_t attend_slots(const struct attend_shape *s)
{
	return s->seqs * blocks_of(s) + 1;
}

uint64_t attend_bytes(const struct attend_shape *s)
{
	return (uint64_t)s->seqs * blocks_of(s) * attend_layer_bytes(s);
}

/* ------------------------------------------------------------ runs */

static struct kn_kv kv_at(const struct attend *a, enum attend_at at, uint32_t layer)
{
	const struct attend_shape *s = &a->s;
	const uint64_t slot = at == ATTEND_LAYERS ? attend_layer_bytes(s) : attend_block_bytes(s);
	const uint64_t plane = at == ATTEND_LAYERS ? attend_slots(s) * slot : attend_layer_bytes(s);
	const char *mem = at == ATTEND_POOL || at == ATTEND_POOL_ROWS ? a->pool : a->mem;

	mem += layer * plane;
	return (struct kn_kv) {
		.k = (void *)(uintptr_t)mem, .v = (void *)(uintptr_t)(mem + part_bytes(s)),
		.slot_bytes = slot, .token_stride = s->kv_heads * s->head_dim,
		.head_stride = s->head_dim, .block_tokens = BENCH_TOKENS, .dtype = KN_BF16,
		.k_scale = 1, .v_scale = 1,
	};
}

static int run_layer(struct attend *a, enum attend_at at, uint32_t layer)
{
	const struct attend_shape *s = &a->s;
	const struct kn_attend_args args = {
		.kv = kv_at(a, at, layer),
		.table = { at == ATTEND_POOL_ROWS ? a->rows : a->slots, a->stride },
		.row = a->row, .q = a->q, .out = a->out[at], .part = a->part,
		.q_stride = (uint64_t)s->q_heads * s->head_dim, .rows = s->seqs,
		.q_heads = s->q_heads, .kv_heads = s->kv_heads, .head_dim = s->head_dim,
		.pieces = (s->tokens + KN_SPLIT - 1) / KN_SPLIT,
		.scale = 1 / sqrtf((float)s->head_dim),
	};
	int err = kn_launch(a->d, KN_ATTEND, s->seqs, s->kv_heads, args.pieces, 0, &args);

	return err ? err : kn_launch(a->d, KN_ATTEND_MERGE, s->seqs, s->q_heads, 1, 0, &args);
}

int attend_launch(void *run)
{
	struct attend_run *r = (struct attend_run *)run;
	struct attend *a = r->a;

	a->layer = (a->layer + 1) % a->s.layers;
	return run_layer(a, r->at, a->layer);
}

int attend_same(struct attend *a, enum attend_at at)
{
	const size_t n = sizeof(float) * a->s.seqs * a->s.q_heads * a->s.head_dim;
	char *v = (char *)malloc(2 * n);
	int err = v ? run_layer(a, ATTEND_PRIVATE, 0) : -ENOMEM;

	if (!err)
		err = run_layer(a, at, 0);
	if (!err)
		err = kn_get(a->d, v, a->out[ATTEND_PRIVATE], n);
	if (!err)
		err = kn_get(a->d, v + n, a->out[at], n);
	if (!err && memcmp(v, v + n, n))
		err = -EILSEQ;
	free(v);
	return err;
}

/* ------------------------------------------------------------ set-up */

/* The sequences of the pool, and @slots their tables. */
static int grow(struct attend *a, int32_t *slots)
{
	const struct kvc_view *v;
	const uint32_t nr = blocks_of(&a->s);
	int err = 0;

	for (uint32_t i = 0; i < a->s.seqs && err >= 0; i++)
		err = kvc_seq_open(a->k, i, 1, NULL, 0, a->s.tokens, 0, 0, NULL);
	for (uint32_t b = 0; b < nr && err >= 0; b += GROW)
		for (uint32_t i = 0; i < a->s.seqs && err >= 0; i++)
			err = kvc_seq_extend(a->k, i, 1, 0, min(GROW, nr - b), 0, 0, NULL);
	if (err < 0)
		return err;
	v = kvc_view(a->k);
	a->pool = v->group[0].plane[0].ro;
	for (uint32_t i = 0; i < a->s.seqs; i++)
		for (uint32_t b = 0; b < nr; b++)
			slots[i * a->stride + b] = kvc_row(v, 0, i)[b];
	return a->pool ? 0 : -ENODEV;
}

/* As sequences have them that came and went: any block anywhere. */
static void shuffle(struct attend *a, int32_t *slots)
{
	uint32_t nr = attend_slots(&a->s) - 1;
	uint64_t rng = 88172645463325252ull;

	for (uint32_t i = 0; i < nr; i++) {
		uint32_t k;

		rng ^= rng << 13;
		rng ^= rng >> 7;
		rng ^= rng << 17;
		k = (uint32_t)(rng >> 32) % (i + 1);
		slots[i] = slots[k];
		slots[k] = (int32_t)i + 1;
	}
}

static int open_pool(struct attend *a, struct kvmd_proc *pool, char *msg, size_t n)
{
	uint64_t rows;

	a->k = client_try(pool, attend_slots(&a->s) - 1, a->s.seqs, msg, n);
	if (!a->k)
		return -EIO;
	a->stride = kvc_view(a->k)->group[0].seq_stride / sizeof(int32_t);
	if (!kn_is_cuda(a->d))
		a->rows = (const int32_t *)(uintptr_t)kvc_row(kvc_view(a->k), 0, 0);
	else if (!kvc_cuda_rows(a->k, 0, &rows))
		a->rows = (const int32_t *)(uintptr_t)rows;
	return 0;
}

/* The table, here and there. */
static int open_table(struct attend *a, char *msg, size_t n)
{
	const size_t bytes = a->s.seqs * a->stride * sizeof(int32_t);
	int32_t *slots = (int32_t *)calloc(1, bytes);
	int err = slots ? 0 : -ENOMEM;

	if (!err && a->k)
		err = grow(a, slots);
	else if (!err)
		shuffle(a, slots);
	if (err < 0)
		snprintf(msg, n, "blocks of the pool: %s (%s)", kvc_strerror(err), kvc_refusal());
	a->slots = (int32_t *)kn_alloc(a->d, bytes);
	if (!err)
		err = a->slots ? kn_put(a->d, a->slots, slots, bytes) : -ENOMEM;
	/* The same bytes in the pool. */
	for (uint32_t i = 0; a->k && i < a->s.seqs && !err; i++)
		for (uint32_t b = 0; b < blocks_of(&a->s) && !err; b++) {
			uint32_t slot = (uint32_t)slots[i * a->stride + b];

			err = kn_copy(a->d, kvc_addr(kvc_view(a->k), 0, 0, 0, slot),
				      a->mem + slot * attend_block_bytes(&a->s),
				      attend_block_bytes(&a->s));
		}
	free(slots);
	return err;
}

/* Rows, queries, and where results go. */
static int open_rows(struct attend *a)
{
	const struct attend_shape *s = &a->s;
	const size_t values = (size_t)s->seqs * s->q_heads * s->head_dim;
	const uint32_t pieces = (s->tokens + KN_SPLIT - 1) / KN_SPLIT;
	struct kn_row *row = (struct kn_row *)calloc(s->seqs, sizeof(*row));
	float *q = (float *)calloc(values, sizeof(*q));
	int err;

	a->row = (struct kn_row *)kn_alloc(a->d, s->seqs * sizeof(*row));
	a->q = (float *)kn_alloc(a->d, values * sizeof(*q));
	a->part = (float *)kn_alloc(a->d, kn_attend_part_bytes(s->seqs, s->q_heads, s->head_dim,
							       pieces));
	err = row && q && a->row && a->q && a->part ? 0 : -ENOMEM;
	for (unsigned i = 0; i < NR_ATTEND_AT && !err; i++) {
		a->out[i] = (float *)kn_alloc(a->d, values * sizeof(float));
		err = a->out[i] ? 0 : -ENOMEM;
	}
	for (uint32_t i = 0; i < s->seqs && !err; i++)
		row[i] = (struct kn_row) { .seq = i, .pos = s->tokens - 1, .len = s->tokens };
	for (size_t i = 0; i < values && !err; i++)
		q[i] = (float)(i * 2654435761u % 2048) / 1024 - 1;
	if (!err)
		err = kn_put(a->d, a->row, row, s->seqs * sizeof(*row));
	if (!err)
		err = kn_put(a->d, a->q, q, values * sizeof(*q));
	free(row);
	free(q);
	return err;
}

int attend_open(struct attend *a, struct kn_dev *d, const struct attend_shape *s, void *mem,
		struct kvmd_proc *pool, char *msg, size_t n)
{
	int err;

	*a = (struct attend) { .d = d, .s = *s, .mem = (char *)mem, .stride = blocks_of(s) };
	err = fill_normal(d, mem, attend_slots(s) * attend_block_bytes(s));
	if (!err && pool) {
		err = open_pool(a, pool, msg, n);
		if (err)
			return err;
	}
	if (!err)
		err = open_rows(a);
	if (!err) {
		msg[0] = 0;
		err = open_table(a, msg, n);
		if (err < 0 && msg[0])
			return err;
	}
	if (err < 0)
		snprintf(msg, n, "attention: %s", err == -EIO ? kn_error(d) : strerror(-err));
	return err;
}

void attend_close(struct attend *a)
{
	if (!a->d)
		return;
	kn_free(a->d, a->slots);
	kn_free(a->d, a->row);
	kn_free(a->d, a->q);
	kn_free(a->d, a->part);
	for (unsigned i = 0; i < NR_ATTEND_AT; i++)
		kn_free(a->d, a->out[i]);
	kvc_destroy(a->k);
	a->d = NULL;
}
