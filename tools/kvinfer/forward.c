// SPDX-License-Identifier: Apache-2.0
/*
 * forward.c - one step of the model over a cache.
 *
 * All products have as many rows as the step's shape says; rows behind those used are
 * a token 0 without place in any sequence. What is between products takes each row for
 * itself. So a row's result is a function of its sequence and the shape alone.
 *
 * Memory for activations is taken once; that for logits and masses grows to the most
 * that was wanted. One thread, the device's.
 */
#include "tools/kvinfer/model_int.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kvmd/lib/base.h"

/* Of attention's pieces at a time; a row more than fits waits for the next launch. */
#define PART_BYTES	(64u << 20)
#define ADD_VALUES	4096u		/* of a block */

struct buf {
	float *p;
	uint64_t values;
};

struct ki_run {
	struct ki_model *m;
	struct ki_gemm *g;
	struct kn_dev *dev;
	struct ki_reduce *reduce;
	uint32_t rows, tokens;			/* of a step, at most */
	uint32_t part_rows;			/* of one launch of attention, at most */

	/* On the device; [rows]. */
	struct kn_row *row;
	int32_t *token, *out;			/* out: rows whose logits are wanted */
	float *x;				/* [dim]: the residual */
	float *h;				/* [dim]: into products and out of them */
	float *qkv, *att;			/* [q + 2 kv heads], [q heads][head_dim] */
	float *f, *s;				/* [2 ffn], [ffn] */
	float *part;
	struct buf logits, mass, layer_mass;

	/* On the host; [rows]. */
	struct kn_row *host_row;
	int32_t *host_token;

	char msg[KI_TEXT];
};

/* ------------------------------------------------------------------ memory */

static bool take(struct ki_run *r)
{
	uint64_t rows = r->rows, dim = r->m->shape.dim, hd = r->m->shape.head_dim;
	uint64_t q = r->m->heads * hd, kv = r->m->kv_heads * hd, ffn = r->m->ffn;
	uint32_t pieces = (uint32_t)div_round_up(r->tokens, KN_SPLIT);
	size_t part;

	part = kn_attend_part_bytes(1, r->m->heads, (uint32_t)hd, pieces);
	r->part_rows = (uint32_t)min(rows, max((uint64_t)(PART_BYTES / part), (uint64_t)1));
	part = kn_attend_part_bytes(r->part_rows, r->m->heads, (uint32_t)hd, pieces);
	r->row = kn_alloc(r->dev, rows * sizeof(*r->row));
	r->token = kn_alloc(r->dev, rows * sizeof(*r->token));
	r->out = kn_alloc(r->dev, rows * sizeof(*r->out));
	r->x = kn_alloc(r->dev, rows * dim * sizeof(float));
	r->h = kn_alloc(r->dev, rows * dim * sizeof(float));
	r->qkv = kn_alloc(r->dev, rows * (q + 2 * kv) * sizeof(float));
	r->att = kn_alloc(r->dev, rows * q * sizeof(float));
	r->f = kn_alloc(r->dev, rows * 2 * ffn * sizeof(float));
	r->s = kn_alloc(r->dev, rows * ffn * sizeof(float));
	r->part = kn_alloc(r->dev, part);
	r->host_row = calloc(rows, sizeof(*r->host_row));
	r->host_token = calloc(rows, sizeof(*r->host_token));
	return r->row && r->token && r->out && r->x && r->h && r->qkv && r->att && r->f &&
	       r->s && r->part && r->host_row && r->host_token;
}

int ki_run_create(struct ki_model *m, struct ki_gemm *g, uint32_t rows, uint32_t tokens,
		  struct ki_reduce *reduce, struct ki_run **ret_r, char *msg)
{
	struct ki_run *r;

	if (!rows || !tokens)
		return ki_refuse(msg, -EINVAL, "steps of no rows or no tokens");
	if (m->nr_ranks > 1 && !reduce)
		return ki_refuse(msg, -EINVAL, "a part of a model has nobody to add its part to");
	r = calloc(1, sizeof(*r));
	if (!r)
		return ki_refuse(msg, -ENOMEM, "no memory");
	r->m = m;
	r->g = g;
	r->dev = m->dev;
	r->reduce = reduce;
	r->rows = rows;
	r->tokens = tokens;
	if (!take(r)) {
		ki_run_free(r);
		return ki_refuse(msg, -ENOMEM, "no memory on %s for steps of %u rows over %u "
				 "tokens: choose smaller ones", kn_dev_name(m->dev), rows, tokens);
	}
	*ret_r = r;
	return 0;
}

void ki_run_free(struct ki_run *r)
{
	if (!r)
		return;
	kn_free(r->dev, r->row);
	kn_free(r->dev, r->token);
	kn_free(r->dev, r->out);
	kn_free(r->dev, r->x);
	kn_free(r->dev, r->h);
	kn_free(r->dev, r->qkv);
	kn_free(r->dev, r->att);
	kn_free(r->dev, r->f);
	kn_free(r->dev, r->s);
	kn_free(r->dev, r->part);
	kn_free(r->dev, r->logits.p);
	kn_free(r->dev, r->mass.p);
	kn_free(r->dev, r->layer_mass.p);
	free(r->host_row);
	free(r->host_token);
	free(r);
}

const char *ki_run_error(const struct ki_run *r)
{
	return r->msg;
}

static int grow(struct ki_run *r, struct buf *b, uint64_t values)
{
	if (b->values >= values)
		return 0;
	kn_free(r->dev, b->p);
	b->values = 0;
	b->p = kn_alloc(r->dev, values * sizeof(*b->p));
	if (!b->p)
		return ki_refuse(r->msg, -ENOMEM, "no memory on %s for %llu values of results",
				 kn_dev_name(r->dev), (unsigned long long)values);
	b->values = values;
	return 0;
}

/* ----------------------------------------------------------------- kernels */

static int failed(struct ki_run *r, int err, const char *what)
{
	const char *why = kn_error(r->dev);

	return ki_refuse(r->msg, err, "%s: %s", what, *why ? why : strerror(-err));
}

static int launch(struct ki_run *r, enum kn_kernel k, uint64_t x, uint32_t y, uint32_t z,
		  const void *args)
{
	int err = kn_launch(r->dev, k, (unsigned)x, y, z, 0, args);

	return err ? failed(r, err, kn_kernel_name(k)) : 0;
}

static int product(struct ki_run *r, uint32_t rows, uint64_t n, uint64_t k, const float *a,
		   const float *w, float *c)
{
	int err = ki_gemm(r->g, rows, (uint32_t)n, (uint32_t)k, a, w, c);

	return err ? ki_refuse(r->msg, err, "%s: %.200s", ki_gemm_name(r->g),
			       ki_gemm_error(r->g)) : 0;
}

static int embed(struct ki_run *r, const float *table, uint32_t entries, const int32_t *which,
		 uint32_t rows, float *to)
{
	struct kn_embed_args a = {
		.token = which, .table = table, .out = to, .rows = rows,
		.dim = r->m->shape.dim, .vocab = entries,
	};

	return launch(r, KN_EMBED, rows, 1, 1, &a);
}

static int norm(struct ki_run *r, const float *in, const float *weight, uint32_t rows, float *out)
{
	struct kn_norm_args a = {
		.in = in, .weight = weight, .out = out, .rows = rows, .dim = r->m->shape.dim,
		.eps = r->m->shape.eps,
	};

	return launch(r, KN_NORM, rows, 1, 1, &a);
}

static int add(struct ki_run *r, float *x, const float *y, uint64_t n)
{
	struct kn_add_args a = { .x = x, .y = y, .n = n };

	return launch(r, KN_ADD, min(div_round_up(n, ADD_VALUES), (uint64_t)1 << 16), 1, 1, &a);
}

/* Sum over the ranks, where there are several. */
static int reduce(struct ki_run *r, float *x, uint64_t n)
{
	int err;

	if (r->m->nr_ranks == 1)
		return 0;
	err = r->reduce->sum(r->reduce, x, n);
	return err ? ki_refuse(r->msg, err, "no sum over the ranks: %s", strerror(-err)) : 0;
}

/* --------------------------------------------------------------- attention */

static int rope(struct ki_run *r, const struct ki_cache *c, uint32_t layer, uint32_t nr)
{
	struct kn_rope_args a = {
		.qkv = r->qkv, .kv = c->write[layer], .table = c->table, .row = r->row,
		.rows = nr, .q_heads = r->m->heads, .kv_heads = r->m->kv_heads,
		.head_dim = r->m->shape.head_dim, .theta = r->m->shape.theta,
	};

	return launch(r, KN_ROPE, nr, 1, 1, &a);
}

static void attend_args(struct ki_run *r, const struct ki_cache *c, uint32_t layer,
			struct kn_attend_args *a)
{
	uint32_t hd = r->m->shape.head_dim;

	*a = (struct kn_attend_args){
		.kv = c->read[layer], .table = c->table, .row = r->row, .q = r->qkv,
		.out = r->att, .part = r->part, .q_heads = r->m->heads,
		.kv_heads = r->m->kv_heads, .head_dim = hd, .window = c->window,
		.sinks = c->sinks, .scale = (float)(1 / sqrt(hd)),
	};
	a->q_stride = (uint64_t)(a->q_heads + 2 * a->kv_heads) * hd;
}

static int prefill(struct ki_run *r, const struct ki_cache *c, uint32_t layer, uint32_t nr)
{
	struct kn_attend_args a;

	attend_args(r, c, layer, &a);
	a.rows = nr;
	return launch(r, KN_PREFILL, div_round_up(nr, KN_PREFILL_ROWS), a.kv_heads, 1, &a);
}

/* Any rows, as many at a time as there is memory for. */
static int attend(struct ki_run *r, const struct ki_cache *c, uint32_t layer,
		  const struct ki_step *s, float *mass)
{
	struct kn_attend_args a;
	uint32_t at, i, longest;
	int err = 0;

	attend_args(r, c, layer, &a);
	a.mass_stride = s->mass_tokens;
	for (at = 0; at < s->nr && !err; at += a.rows) {
		a.rows = min(s->nr - at, r->part_rows);
		a.row = r->row + at;
		a.q = r->qkv + at * a.q_stride;
		a.out = r->att + (uint64_t)at * a.q_heads * a.head_dim;
		a.mass = mass ? mass + at * a.mass_stride : NULL;
		for (i = longest = 0; i < a.rows; i++)
			longest = max(longest, s->row[at + i].len);
		a.pieces = max((uint32_t)div_round_up(longest, KN_SPLIT), 1u);
		err = launch(r, KN_ATTEND, a.rows, a.kv_heads, a.pieces, &a);
		if (!err)
			err = launch(r, KN_ATTEND_MERGE, a.rows, a.q_heads, 1, &a);
	}
	return err;
}

static int attention(struct ki_run *r, const struct ki_cache *c, uint32_t layer,
		     const struct ki_step *s)
{
	float *mass;
	int err;

	err = rope(r, c, layer, s->nr);
	if (err)
		return err;
	if (!s->ret_mass)
		return s->one_seq ? prefill(r, c, layer, s->nr) : attend(r, c, layer, s, NULL);
	mass = layer ? r->layer_mass.p : r->mass.p;
	err = attend(r, c, layer, s, mass);
	if (!err && layer)
		err = add(r, r->mass.p, mass, (uint64_t)s->nr * s->mass_tokens);
	return err;
}

/* -------------------------------------------------------------------- step */

/* x += attention(norm(x)); x += ffn(norm(x)). Sums over ranks are of the rows used. */
static int layer_step(struct ki_run *r, const struct ki_cache *c, uint32_t layer,
		      const struct ki_step *s)
{
	const struct ki_layer *l = &r->m->layer[layer];
	uint64_t dim = r->m->shape.dim, hd = r->m->shape.head_dim, ffn = r->m->ffn;
	uint64_t q = r->m->heads * hd, kv = r->m->kv_heads * hd;
	struct kn_swiglu_args swiglu = {
		.in = r->f, .out = r->s, .rows = s->shape, .n = r->m->ffn,
	};
	uint32_t rows = s->shape;
	int err;

	err = norm(r, r->x, l->norm1, rows, r->h);
	if (!err)
		err = product(r, rows, q + 2 * kv, dim, r->h, l->wqkv, r->qkv);
	if (!err)
		err = attention(r, c, layer, s);
	if (!err)
		err = product(r, rows, dim, q, r->att, l->wo, r->h);
	if (!err)
		err = reduce(r, r->h, s->nr * dim);
	if (!err)
		err = add(r, r->x, r->h, rows * dim);

	if (!err)
		err = norm(r, r->x, l->norm2, rows, r->h);
	if (!err)
		err = product(r, rows, 2 * ffn, dim, r->h, l->w13, r->f);
	if (!err)
		err = launch(r, KN_SWIGLU, rows, 1, 1, &swiglu);
	if (!err)
		err = product(r, rows, dim, ffn, r->s, l->w2, r->h);
	if (!err)
		err = reduce(r, r->h, s->nr * dim);
	return err ? err : add(r, r->x, r->h, rows * dim);
}

/* Norm and logits of the rows wanted. */
static int output(struct ki_run *r, const struct ki_step *s)
{
	uint64_t vocab = r->m->shape.vocab;
	uint32_t i;
	int err;

	memset(r->host_token, 0, s->out_shape * sizeof(*r->host_token));
	for (i = 0; i < s->nr_out; i++)
		r->host_token[i] = (int32_t)s->out[i];
	err = kn_put(r->dev, r->out, r->host_token, s->out_shape * sizeof(*r->out));
	if (err)
		return failed(r, err, "rows do not go to the device");
	/* Rows of the residual are taken as an embedding's are. */
	err = embed(r, r->x, s->shape, r->out, s->out_shape, r->h);
	if (!err)
		err = norm(r, r->h, r->m->norm, s->out_shape, r->h);
	if (!err)
		err = product(r, s->out_shape, vocab, r->m->shape.dim, r->h, r->m->out,
			      r->logits.p);
	if (err)
		return err;
	err = kn_get(r->dev, s->ret_logits, r->logits.p, s->nr_out * vocab * sizeof(float));
	return err ? failed(r, err, "logits do not come back") : 0;
}

static int check_rows(struct ki_run *r, const struct ki_step *s)
{
	uint32_t i, longest = 0;

	for (i = 0; i < s->nr; i++) {
		const struct kn_row *row = &s->row[i];

		if (!row->len || row->len > r->tokens)
			return ki_refuse(r->msg, -EINVAL, "row %u is token %u of its sequence; "
					 "1 to %u are possible", i, row->len, r->tokens);
		if (s->one_seq && i &&
		    (row->seq != row[-1].seq || row->len != row[-1].len + 1))
			return ki_refuse(r->msg, -EINVAL, "row %u is not the token behind the "
					 "one before", i);
		if (s->token[i] < 0 || (uint32_t)s->token[i] >= r->m->shape.vocab)
			return ki_refuse(r->msg, -EINVAL, "token %d of row %u is none of the "
					 "model's %u", s->token[i], i, r->m->shape.vocab);
		longest = max(longest, row->len);
	}
	if (s->ret_mass && s->mass_tokens < longest)
		return ki_refuse(r->msg, -EINVAL, "masses of %u tokens are wanted, and there are "
				 "%u", s->mass_tokens, longest);
	return 0;
}

static int check(struct ki_run *r, const struct ki_step *s)
{
	uint32_t i;

	if (!s->nr || s->nr > s->shape || s->shape > r->rows)
		return ki_refuse(r->msg, -EINVAL, "%u rows in a shape of %u; 1 to %u are possible",
				 s->nr, s->shape, r->rows);
	if (s->layers > r->m->shape.layers)
		return ki_refuse(r->msg, -EINVAL, "%u layers are wanted of %u", s->layers,
				 r->m->shape.layers);
	if (s->ret_logits && (!s->nr_out || s->nr_out > s->out_shape || s->out_shape > r->rows))
		return ki_refuse(r->msg, -EINVAL, "logits of %u rows in a shape of %u; 1 to %u "
				 "are possible", s->nr_out, s->out_shape, r->rows);
	for (i = 0; s->ret_logits && i < s->nr_out; i++)
		if (s->out[i] >= s->nr)
			return ki_refuse(r->msg, -EINVAL, "logits of row %u are wanted of %u",
					 s->out[i], s->nr);
	return check_rows(r, s);
}

/* Rows and tokens to the device, and the start of the residual. */
static int begin(struct ki_run *r, const struct ki_step *s)
{
	uint64_t q = (uint64_t)r->m->heads * r->m->shape.head_dim;
	uint32_t rest = s->shape - s->nr;
	int err = 0;

	memcpy(r->host_row, s->row, s->nr * sizeof(*s->row));
	memset(r->host_row + s->nr, 0, rest * sizeof(*s->row));
	memcpy(r->host_token, s->token, s->nr * sizeof(*s->token));
	memset(r->host_token + s->nr, 0, rest * sizeof(*s->token));
	err = kn_put(r->dev, r->row, r->host_row, s->shape * sizeof(*r->row));
	if (!err)
		err = kn_put(r->dev, r->token, r->host_token, s->shape * sizeof(*r->token));
	/* Attention runs for the rows used alone. */
	if (!err && rest)
		err = kn_zero(r->dev, r->att + s->nr * q, rest * q * sizeof(float));
	if (err)
		return failed(r, err, "rows do not go to the device");
	return embed(r, r->m->embed, r->m->shape.vocab, r->token, s->shape, r->x);
}

static int finish(struct ki_run *r, const struct ki_step *s)
{
	uint64_t masses = (uint64_t)s->nr * s->mass_tokens;
	int err = 0;

	if (s->ret_logits)
		err = output(r, s);
	if (!err && s->ret_mass)
		err = reduce(r, r->mass.p, masses);
	if (err)
		return err;
	if (s->ret_mass)
		err = kn_get(r->dev, s->ret_mass, r->mass.p, masses * sizeof(float));
	if (!err)
		err = kn_sync(r->dev);
	return err ? failed(r, err, "the step does not end") : 0;
}

int ki_step(struct ki_run *r, const struct ki_cache *c, const struct ki_step *s)
{
	uint32_t layer, layers = s->layers ? s->layers : r->m->shape.layers;
	uint64_t masses = (uint64_t)s->nr * s->mass_tokens;
	int err;

	r->msg[0] = '\0';
	err = check(r, s);
	if (!err && s->ret_logits)
		err = grow(r, &r->logits, (uint64_t)s->out_shape * r->m->shape.vocab);
	if (!err && s->ret_mass)
		err = grow(r, &r->mass, masses);
	if (!err && s->ret_mass && layers > 1)
		err = grow(r, &r->layer_mass, masses);
	if (!err)
		err = begin(r, s);
	for (layer = 0; layer < layers && !err; layer++)
		err = layer_step(r, c, layer, s);
	return err ? err : finish(r, s);
}
