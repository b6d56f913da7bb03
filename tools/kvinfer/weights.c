// SPDX-License-Identifier: Apache-2.0
/*
 * weights.c - weights on their way to a device: the digest of all, a rank's part of each.
 *
 * A tensor passes through a piece of host memory in whole rows, all of it in every
 * rank: so the digest is that of the whole model, and a rank's part is cut out of the
 * very values that the other ranks see. Random weights are a function of seed, tensor
 * and place, by integers and single roundings alone: no machine has others.
 */
#include "tools/kvinfer/model_int.h"

#include <errno.h>
#include <math.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "kvmd/lib/base.h"

#define PIECE_VALUES	(256u << 10)	/* 1 MiB of floats; one row if it is longer */

const char *ki_weight_name(unsigned w)
{
	static const char *const names[] = {
		"embed", "norm1", "wq", "wk", "wv", "wo", "norm2", "gate", "up", "down", "norm",
		"out",
	};

	BUILD_BUG_ON(ARRAY_SIZE(names) != NR_KI_WEIGHT);
	return w < NR_KI_WEIGHT ? names[w] : NULL;
}

bool ki_weight_in_layer(enum ki_weight w)
{
	return w >= KI_NORM1 && w <= KI_DOWN;
}

void ki_weight_dims(const struct ki_shape *s, enum ki_weight w, uint64_t *ret_rows,
		    uint64_t *ret_cols)
{
	uint64_t q = (uint64_t)s->heads * s->head_dim, kv = (uint64_t)s->kv_heads * s->head_dim;
	const uint64_t dims[NR_KI_WEIGHT][2] = {
		[KI_EMBED] = { s->vocab, s->dim }, [KI_OUT] = { s->vocab, s->dim },
		[KI_NORM1] = { 1, s->dim }, [KI_NORM2] = { 1, s->dim }, [KI_NORM] = { 1, s->dim },
		[KI_WQ] = { q, s->dim }, [KI_WK] = { kv, s->dim }, [KI_WV] = { kv, s->dim },
		[KI_WO] = { s->dim, q },
		[KI_GATE] = { s->ffn, s->dim }, [KI_UP] = { s->ffn, s->dim },
		[KI_DOWN] = { s->dim, s->ffn },
	};

	*ret_rows = dims[w][0];
	*ret_cols = dims[w][1];
}

/* ------------------------------------------------------------------ a rank's */

/* What a rank keeps of a tensor, and where. */
struct part {
	uint64_t row, rows, col, cols;
	float *to;			/* NULL: nothing is kept */
};

static void part_of(const struct ki_model *m, enum ki_weight w, uint32_t layer, struct part *p)
{
	const struct ki_layer *l = &m->layer[layer];
	uint64_t q = (uint64_t)m->heads * m->shape.head_dim;
	uint64_t kv = (uint64_t)m->kv_heads * m->shape.head_dim;
	uint64_t dim = m->shape.dim, ffn = m->ffn;

	p->row = p->col = 0;
	ki_weight_dims(&m->shape, w, &p->rows, &p->cols);
	switch (w) {
	case KI_EMBED:
		p->to = m->embed;
		return;
	case KI_NORM1:
		p->to = l->norm1;
		return;
	case KI_NORM2:
		p->to = l->norm2;
		return;
	case KI_NORM:
		p->to = m->norm;
		return;
	case KI_OUT:
		p->to = m->out == m->embed ? NULL : m->out;
		return;
	case KI_WQ:
		p->rows = q;
		p->to = l->wqkv;
		break;
	case KI_WK:
		p->rows = kv;
		p->to = l->wqkv + q * dim;
		break;
	case KI_WV:
		p->rows = kv;
		p->to = l->wqkv + (q + kv) * dim;
		break;
	case KI_GATE:
		p->rows = ffn;
		p->to = l->w13;
		break;
	case KI_UP:
		p->rows = ffn;
		p->to = l->w13 + ffn * dim;
		break;
	case KI_WO:
	default:
		p->cols = w == KI_WO ? q : ffn;
		p->col = m->rank * p->cols;
		p->to = w == KI_WO ? l->wo : l->w2;
		return;
	}
	p->row = m->rank * p->rows;
}

/* Rows first .. first + nr - 1, of @cols values, are in @piece: the part's go out. */
static int put_rows(struct ki_model *m, const struct part *p, uint64_t first, uint64_t nr,
		    uint64_t cols, float *piece)
{
	uint64_t lo = max(first, p->row), hi = min(first + nr, p->row + p->rows), r;
	float *from = piece;

	if (!p->to || lo >= hi)
		return 0;
	if (p->cols == cols)
		from += (lo - first) * cols;
	else
		for (r = 0; r < hi - lo; r++)
			memmove(from + r * p->cols, piece + (lo - first + r) * cols + p->col,
				p->cols * sizeof(*from));
	return kn_put(m->dev, p->to + (lo - p->row) * p->cols, from,
		      (hi - lo) * p->cols * sizeof(*from));
}

struct filler {
	struct ki_model *m;
	struct ki_source *src;
	EVP_MD_CTX *sum;
	float *piece;
	char *msg;
};

static int fill_one(struct filler *f, enum ki_weight w, uint32_t layer)
{
	uint64_t rows, cols, nr, at;
	struct part p;
	int err;

	ki_weight_dims(&f->m->shape, w, &rows, &cols);
	part_of(f->m, w, layer, &p);
	for (at = 0; at < rows; at += nr) {
		nr = min(rows - at, max(PIECE_VALUES / cols, (uint64_t)1));
		err = f->src->rows(f->src, w, layer, at, nr, f->piece, f->msg);
		if (err)
			return err;
		if (EVP_DigestUpdate(f->sum, f->piece, nr * cols * sizeof(float)) != 1)
			return ki_refuse(f->msg, -EIO, "libcrypto computes no SHA-256");
		err = put_rows(f->m, &p, at, nr, cols, f->piece);
		if (err)
			return ki_refuse(f->msg, err, "weights do not go to the device: %s",
					 kn_error(f->m->dev));
	}
	return 0;
}

static int fill_all(struct filler *f)
{
	unsigned w, layer;
	int err;

	err = fill_one(f, KI_EMBED, 0);
	for (layer = 0; layer < f->m->shape.layers && !err; layer++)
		for (w = KI_NORM1; w <= KI_DOWN && !err; w++)
			err = fill_one(f, w, layer);
	if (!err)
		err = fill_one(f, KI_NORM, 0);
	return err ? err : fill_one(f, KI_OUT, 0);
}

/* Positions do not change what is computed of those that there are. */
static bool sum_shape(EVP_MD_CTX *sum, const struct ki_shape *s)
{
	const uint32_t v[] = {
		s->vocab, s->dim, s->layers, s->heads, s->kv_heads, s->head_dim, s->ffn,
		kn_bits(s->theta), kn_bits(s->eps),
	};

	return EVP_DigestInit_ex(sum, EVP_sha256(), NULL) == 1 &&
	       EVP_DigestUpdate(sum, v, sizeof(v)) == 1;
}

static int fill(struct ki_model *m, struct ki_source *src, char *msg)
{
	struct filler f = { .m = m, .src = src, .msg = msg };
	const struct ki_shape *s = &m->shape;
	uint32_t inner = max(s->ffn, s->heads * s->head_dim), longest = max(inner, s->dim);
	int err;

	f.piece = malloc(max(PIECE_VALUES, longest) * sizeof(*f.piece));
	f.sum = EVP_MD_CTX_new();
	if (!f.piece || !f.sum) {
		err = ki_refuse(msg, -ENOMEM, "no memory");
		goto out;
	}
	err = sum_shape(f.sum, s) ? fill_all(&f) :
	      ki_refuse(msg, -EIO, "libcrypto computes no SHA-256");
	if (!err && EVP_DigestFinal_ex(f.sum, m->digest, NULL) != 1)
		err = ki_refuse(msg, -EIO, "libcrypto computes no SHA-256");
out:
	EVP_MD_CTX_free(f.sum);
	free(f.piece);
	return err;
}

/* ------------------------------------------------------------------ memory */

static float *take(struct ki_model *m, uint64_t rows, uint64_t cols)
{
	float *p = kn_alloc(m->dev, rows * cols * sizeof(*p));

	if (p)
		m->bytes += rows * cols * sizeof(*p);
	return p;
}

static bool take_all(struct ki_model *m, bool tied)
{
	uint64_t dim = m->shape.dim, q = (uint64_t)m->heads * m->shape.head_dim;
	uint64_t kv = (uint64_t)m->kv_heads * m->shape.head_dim;
	uint32_t i;

	m->embed = take(m, m->shape.vocab, dim);
	m->norm = take(m, 1, dim);
	m->out = tied ? m->embed : take(m, m->shape.vocab, dim);
	if (!m->embed || !m->norm || !m->out)
		return false;
	for (i = 0; i < m->shape.layers; i++) {
		struct ki_layer *l = &m->layer[i];

		l->norm1 = take(m, 1, dim);
		l->wqkv = take(m, q + 2 * kv, dim);
		l->wo = take(m, dim, q);
		l->norm2 = take(m, 1, dim);
		l->w13 = take(m, 2ull * m->ffn, dim);
		l->w2 = take(m, dim, m->ffn);
		if (!l->norm1 || !l->wqkv || !l->wo || !l->norm2 || !l->w13 || !l->w2)
			return false;
	}
	return true;
}

int ki_model_fill(struct kn_dev *dev, const struct ki_shape *s, uint32_t rank, uint32_t nr_ranks,
		  struct ki_source *src, struct ki_model **ret_m, char *msg)
{
	struct ki_model *m = calloc(1, sizeof(*m));
	int err;

	if (!m)
		return ki_refuse(msg, -ENOMEM, "no memory");
	m->shape = *s;
	m->dev = dev;
	m->rank = rank;
	m->nr_ranks = nr_ranks;
	m->heads = s->heads / nr_ranks;
	m->kv_heads = s->kv_heads / nr_ranks;
	m->ffn = s->ffn / nr_ranks;
	m->layer = calloc(s->layers, sizeof(*m->layer));
	if (!m->layer || !take_all(m, src->tied)) {
		err = ki_refuse(msg, -ENOMEM, "no memory for the weights on %s beyond %zu MiB: "
				"choose a smaller model", kn_dev_name(dev), m->bytes >> 20);
		goto err_free;
	}
	err = fill(m, src, msg);
	if (err)
		goto err_free;
	*ret_m = m;
	return 0;

err_free:
	ki_model_free(m);
	return err;
}

void ki_model_free(struct ki_model *m)
{
	uint32_t i;

	if (!m)
		return;
	for (i = 0; m->layer && i < m->shape.layers; i++) {
		kn_free(m->dev, m->layer[i].norm1);
		kn_free(m->dev, m->layer[i].wqkv);
		kn_free(m->dev, m->layer[i].wo);
		kn_free(m->dev, m->layer[i].norm2);
		kn_free(m->dev, m->layer[i].w13);
		kn_free(m->dev, m->layer[i].w2);
	}
	if (m->out != m->embed)
		kn_free(m->dev, m->out);
	kn_free(m->dev, m->norm);
	kn_free(m->dev, m->embed);
	free(m->layer);
	free(m);
}

/* ------------------------------------------------------------------ random */

struct random_source {
	struct ki_source src;
	const struct ki_shape *shape;
	uint64_t seed;
};

/* The output function of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014). */
static uint64_t mix(uint64_t z)
{
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

/*
 * The deviation of a tensor's values. Rows of 1/sqrt(columns) keep a vector's size. Queries
 * and keys are larger, so that attention looks at few tokens; what is added to the
 * residual is smaller the more layers do it; logits are some nats apart, so that a
 * model of a few layers less often agrees.
 */
static double deviation(const struct ki_shape *s, enum ki_weight w, uint64_t cols)
{
	double unit = 1 / sqrt((double)cols);

	switch (w) {
	case KI_EMBED:
		return 1;
	case KI_NORM1:
	case KI_NORM2:
	case KI_NORM:
		return 0.125;
	case KI_WQ:
	case KI_WK:
		return 1.5 * unit;
	case KI_WO:
	case KI_DOWN:
		return unit / sqrt(2.0 * s->layers);
	case KI_OUT:
		return 4 * unit;
	default:
		return unit;
	}
}

/*
 * A value is the sum of four uniform ones of 16 bits each, which is close to normal.
 * One product in double and two roundings to float: nothing that machines differ in.
 */
static int random_rows(struct ki_source *src, enum ki_weight w, uint32_t layer, uint64_t first,
		       uint64_t nr, float *out, char *msg)
{
	struct random_source *r = container_of(src, struct random_source, src);
	const uint64_t step = 0x9e3779b97f4a7c15ull;
	uint64_t rows, cols, key, i, z;
	double by;
	float one;

	(void)msg;
	ki_weight_dims(r->shape, w, &rows, &cols);
	one = w == KI_NORM1 || w == KI_NORM2 || w == KI_NORM ? 1.0f : 0.0f;
	by = deviation(r->shape, w, cols) / sqrt((65536.0 * 65536.0 - 1) / 3);
	key = mix(mix(r->seed + step) + (uint64_t)layer * NR_KI_WEIGHT + w);
	for (i = 0; i < nr * cols; i++) {
		float v;

		z = mix(key + (first * cols + i + 1) * step);
		z = (z & 0xffff) + (z >> 16 & 0xffff) + (z >> 32 & 0xffff) + (z >> 48);
		v = (float)(((double)z - 4 * 32767.5) * by);
		out[i] = one + v;
	}
	return 0;
}

int ki_model_random(struct kn_dev *dev, const struct ki_shape *s, uint64_t seed, uint32_t rank,
		    uint32_t nr_ranks, struct ki_model **ret_m, char *msg)
{
	struct random_source r = { .src.rows = random_rows, .shape = s, .seed = seed };
	int err = ki_shape_check(s, nr_ranks, msg);

	if (!err && rank >= nr_ranks)
		err = ki_refuse(msg, -EINVAL, "there is no rank %u of %u", rank, nr_ranks);
	return err ? err : ki_model_fill(dev, s, rank, nr_ranks, &r.src, ret_m, msg);
}
