// SPDX-License-Identifier: Apache-2.0
/*
 * infer_rig.c - see infer_rig.h. The reference is the formulas of model.h as they are
 * written in the papers that kernels.h names: one token, one sum after the other.
 */
#include "tests/kernels/infer_rig.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/ref.h"

/* ------------------------------------------------------------------- cache */

void rig_cache_init(struct rig_cache *r, const struct ki_shape *s, uint32_t kv_heads,
		    uint32_t seqs, uint32_t tokens, uint32_t block_tokens, uint32_t dtype)
{
	uint32_t blocks = (tokens + block_tokens - 1) / block_tokens, row, i, l;
	uint64_t values = (uint64_t)block_tokens * kv_heads * s->head_dim;
	uint64_t half = values * kn_dtype_bytes(dtype), slot_bytes = half * 2 * s->layers;
	uint32_t nr = seqs * blocks;
	uint64_t state = 7;

	memset(r, 0, sizeof(*r));
	r->mem = ref_alloc((nr + 1) * slot_bytes);
	r->table = ref_alloc(nr * sizeof(*r->table));
	/* What is not written is as bad as can be. */
	memset(r->mem + slot_bytes, 0xff, nr * slot_bytes);
	for (i = 0; i < nr; i++)
		r->table[i] = (int32_t)i + 1;
	for (i = nr - 1; i; i--) {
		uint32_t j = ref_below(&state, i + 1);
		int32_t t = r->table[i];

		r->table[i] = r->table[j];
		r->table[j] = t;
	}
	row = kv_heads * s->head_dim;
	for (l = 0; l < s->layers; l++) {
		struct kn_kv kv = {
			.k = r->mem + l * 2 * half, .v = r->mem + (l * 2 + 1) * half,
			.slot_bytes = slot_bytes, .token_stride = row, .head_stride = s->head_dim,
			.block_tokens = block_tokens, .dtype = dtype, .k_scale = 1, .v_scale = 1,
		};

		r->c.read[l] = r->c.write[l] = kv;
	}
	r->c.table = (struct kn_table){ .slot = r->table, .stride = blocks };
	r->c.block_tokens = block_tokens;
	r->c.dtype = dtype;
}

void rig_cache_exit(struct rig_cache *r)
{
	free(r->mem);
	free(r->table);
}

/* ------------------------------------------------------------------- steps */

void rig_init(struct rig *r, const struct ki_shape *s, uint64_t seed, enum ki_gemm_kind kind,
	      uint32_t rows, uint32_t tokens, uint32_t rank, struct ki_reduce *reduce)
{
	char msg[KI_TEXT] = "";
	int err;

	memset(r, 0, sizeof(*r));
	err = ki_model_random(ref_cpu(), s, seed, rank, reduce ? 2 : 1, &r->m, msg);
	if (!err)
		err = ki_gemm_open(ref_cpu(), kind, 1, &r->g, msg);
	if (!err)
		err = ki_run_create(r->m, r->g, rows, tokens, reduce, &r->run, msg);
	if (err)
		ck_abort_msg("%d: %s", err, msg);
}

void rig_exit(struct rig *r)
{
	ki_run_free(r->run);
	ki_gemm_close(r->g);
	ki_model_free(r->m);
}

static void step(struct rig *r, const struct ki_cache *c, const struct ki_step *s)
{
	int err = ki_step(r->run, c, s);

	if (err)
		ck_abort_msg("%d: %s", err, ki_run_error(r->run));
}

void rig_prefill(struct rig *r, const struct ki_cache *c, uint32_t shape, uint32_t seq,
		 const int32_t *token, uint32_t from, uint32_t nr, float *logits)
{
	struct kn_row *row = ref_alloc(nr * sizeof(*row));
	uint32_t last = nr - 1, i;
	struct ki_step s = {
		.shape = shape, .nr = nr, .token = token + from, .row = row, .one_seq = true,
		.nr_out = 1, .out_shape = 1, .out = &last, .ret_logits = logits,
	};

	for (i = 0; i < nr; i++)
		row[i] = (struct kn_row){ .seq = seq, .pos = from + i, .len = from + i + 1 };
	step(r, c, &s);
	free(row);
}

void rig_decode(struct rig *r, const struct ki_cache *c, uint32_t shape, uint32_t nr,
		const struct kn_row *row, const int32_t *token, float *logits)
{
	uint32_t *out = ref_alloc(nr * sizeof(*out)), i;
	struct ki_step s = {
		.shape = shape, .nr = nr, .token = token, .row = row,
		.nr_out = nr, .out_shape = shape, .out = out, .ret_logits = logits,
	};

	for (i = 0; i < nr; i++)
		out[i] = i;
	step(r, c, &s);
	free(out);
}

void rig_run(struct rig *r, const struct ki_cache *c, uint32_t chunk, uint32_t seq,
	     const int32_t *token, uint32_t nr, float *logits)
{
	struct kn_row row = { .seq = seq, .pos = nr - 1, .len = nr };
	uint32_t at, n;

	for (at = 0; at < nr - 1; at += n) {
		n = nr - 1 - at < chunk ? nr - 1 - at : chunk;
		rig_prefill(r, c, chunk, seq, token, at, n, NULL);
	}
	rig_decode(r, c, 1, 1, &row, token + nr - 1, logits);
}

/* --------------------------------------------------------------- reference */

void rig_ref_init(struct rig_ref *r, const struct ki_model *m, uint32_t dtype, uint32_t tokens)
{
	size_t n = (size_t)m->shape.layers * tokens * m->shape.kv_heads * m->shape.head_dim;

	*r = (struct rig_ref){ .m = m, .dtype = dtype, .tokens = tokens,
			       .layers = m->shape.layers };
	r->k = ref_alloc(n * sizeof(double));
	r->v = ref_alloc(n * sizeof(double));
	r->logits = ref_alloc(m->shape.vocab * sizeof(double));
	r->mass = ref_alloc(tokens * sizeof(double));
}

void rig_ref_exit(struct rig_ref *r)
{
	free(r->k);
	free(r->v);
	free(r->logits);
	free(r->mass);
}

static void norm(const double *x, const float *w, uint32_t n, float eps, double *out)
{
	double sum = 0;
	uint32_t i;

	for (i = 0; i < n; i++)
		sum += x[i] * x[i];
	for (i = 0; i < n; i++)
		out[i] = x[i] / sqrt(sum / n + eps) * w[i];
}

/* out[rows] = w[rows][n] x[n], or added to. */
static void times(const float *w, const double *x, uint32_t rows, uint32_t n, bool add, double *out)
{
	uint32_t i, j;

	for (i = 0; i < rows; i++) {
		double sum = 0;

		for (j = 0; j < n; j++)
			sum += (double)w[(size_t)i * n + j] * x[j];
		out[i] = add ? out[i] + sum : sum;
	}
}

static void rotate(double *x, uint32_t heads, uint32_t hd, uint32_t pos, double theta)
{
	uint32_t h, i;

	for (h = 0; h < heads; h++, x += hd)
		for (i = 0; i < hd / 2; i++) {
			double w = pos * pow(theta, -2.0 * i / hd), lo = x[i], hi = x[i + hd / 2];

			x[i] = lo * cos(w) - hi * sin(w);
			x[i + hd / 2] = hi * cos(w) + lo * sin(w);
		}
}

static bool sees(const struct rig_ref *r, uint32_t i)
{
	return !r->window || i < r->sinks || i + r->window >= r->len;
}

/* One head of q over keys and values with a row of @stride. */
static void attend_head(struct rig_ref *r, const double *q, const double *k, const double *v,
			uint32_t stride, double *out)
{
	uint32_t hd = r->m->shape.head_dim, i, j;
	double *p = ref_alloc(r->len * sizeof(*p)), most = -INFINITY, sum = 0;

	memset(out, 0, hd * sizeof(*out));
	for (i = 0; i < r->len; i++) {
		for (j = 0; j < hd; j++)
			p[i] += q[j] * k[(size_t)i * stride + j] / sqrt(hd);
		if (sees(r, i))
			most = fmax(most, p[i]);
	}
	for (i = 0; i < r->len; i++) {
		p[i] = sees(r, i) ? exp(p[i] - most) : 0;
		sum += p[i];
	}
	for (i = 0; i < r->len; i++) {
		for (j = 0; j < hd; j++)
			out[j] += p[i] / sum * v[(size_t)i * stride + j];
		r->mass[i] += p[i] / sum;
	}
	free(p);
}

static void layer(struct rig_ref *r, uint32_t l, double *x, double *tmp)
{
	const struct ki_shape *s = &r->m->shape;
	const struct ki_layer *w = &r->m->layer[l];
	uint32_t hd = s->head_dim, q = s->heads * hd, kv = s->kv_heads * hd, h, i;
	double *k = r->k + (size_t)l * r->tokens * kv, *v = r->v + (size_t)l * r->tokens * kv;
	double *att = tmp + s->dim, *qkv = att + q, *f = qkv + q + 2 * kv;

	norm(x, w->norm1, s->dim, s->eps, tmp);
	times(w->wqkv, tmp, q + 2 * kv, s->dim, false, qkv);
	rotate(qkv, s->heads + s->kv_heads, hd, r->len - 1, s->theta);
	for (i = 0; i < kv; i++) {
		k[(size_t)(r->len - 1) * kv + i] = ref_round(r->dtype, (float)qkv[q + i]);
		v[(size_t)(r->len - 1) * kv + i] = ref_round(r->dtype, (float)qkv[q + kv + i]);
	}
	for (h = 0; h < s->heads; h++) {
		uint32_t at = h / (s->heads / s->kv_heads) * hd;

		attend_head(r, qkv + h * hd, k + at, v + at, kv, att + h * hd);
	}
	times(w->wo, att, s->dim, q, true, x);
	norm(x, w->norm2, s->dim, s->eps, tmp);
	times(w->w13, tmp, 2 * s->ffn, s->dim, false, f);
	for (i = 0; i < s->ffn; i++)
		f[i] = f[i] / (1 + exp(-f[i])) * f[s->ffn + i];
	times(w->w2, f, s->dim, s->ffn, true, x);
}

void rig_ref_token(struct rig_ref *r, int32_t token)
{
	const struct ki_shape *s = &r->m->shape;
	size_t room = 2 * s->dim + (2 * s->heads + 2 * s->kv_heads) * s->head_dim + 2 * s->ffn;
	double *x = ref_alloc(room * sizeof(*x));
	uint32_t i;

	for (i = 0; i < s->dim; i++)
		x[i] = r->m->embed[(size_t)token * s->dim + i];
	r->len++;
	memset(r->mass, 0, r->tokens * sizeof(*r->mass));
	for (i = 0; i < r->layers; i++)
		layer(r, i, x, x + s->dim);
	norm(x, r->m->norm, s->dim, s->eps, x);
	times(r->m->out, x, s->vocab, s->dim, false, r->logits);
	free(x);
}

double rig_off(const float *got, const double *want, size_t n, double *ret_most)
{
	double off = 0, most = 0, d;
	size_t i;

	for (i = 0; i < n; i++) {
		d = fabs(got[i] - want[i]);
		/* NaN is farther off than anything. */
		if (!(d <= off))
			off = isnan(d) ? INFINITY : d;
		most = fmax(most, fabs(want[i]));
	}
	if (ret_most)
		*ret_most = most;
	return off;
}
