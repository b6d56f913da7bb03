// SPDX-License-Identifier: Apache-2.0
/*
 * attend_rig.c - see attend_rig.h. The bounds are those of kernels.h.
 */
#include "tests/kernels/attend_rig.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FAR_OUTSIDE	0x7ffffff0

static uint32_t ceil_div(uint32_t a, uint32_t b)
{
	return (a + b - 1) / b;
}

static uint32_t nr_seqs(const struct arig *g)
{
	return g->s.is_chunk ? 1 : g->s.rows;
}

uint32_t arig_pieces(const struct arig *g)
{
	uint32_t len = 1;

	for (uint32_t r = 0; r < g->s.rows; r++)
		len = g->row[r].len > len ? g->row[r].len : len;
	return ceil_div(len, KN_SPLIT);
}

size_t arig_outs(const struct arig *g)
{
	return (size_t)g->s.rows * g->s.q_heads * g->s.v_dim;
}

bool arig_sees(const struct arig *g, uint32_t row, uint32_t token)
{
	const struct kn_row *r = &g->row[row];

	if (token >= r->len)
		return false;
	if (g->s.window && token >= g->s.sinks && (uint64_t)token + g->s.window < r->len)
		return false;
	return g->slot[r->seq * g->table.stride + token / g->s.block_tokens] != 0;
}

uint64_t arig_at(const struct arig *g, uint32_t seq, uint32_t token, uint32_t head)
{
	uint64_t slot = (uint64_t)g->slot[seq * g->table.stride + token / g->s.block_tokens];

	return slot * g->kv.slot_bytes / kn_dtype_bytes(g->s.dtype) +
	       (uint64_t)(token % g->s.block_tokens) * g->kv.token_stride +
	       (uint64_t)head * g->kv.head_stride;
}

void arig_set_k(struct arig *g, uint32_t seq, uint32_t token, uint32_t head, const float *k)
{
	for (uint32_t d = 0; d < g->s.k_dim; d++)
		kn_store(g->kv.k, arig_at(g, seq, token, head) + d, g->s.dtype,
			 k[d] / g->s.k_scale);
}

void arig_set_v(struct arig *g, uint32_t seq, uint32_t token, uint32_t head, const float *v)
{
	for (uint32_t d = 0; d < g->s.v_dim; d++)
		kn_store(g->kv.v, arig_at(g, seq, token, head) + d, g->s.dtype,
			 v[d] / g->s.v_scale);
}

/* ---------------------------------------------------------------- reference */

/*
 * The row's and head's scores and weights; the returned bound is relative, of a weight
 * or of the sum of |weight * v|.
 */
static double weights(const struct arig *g, uint32_t row, uint32_t head, double *w)
{
	const struct arig_shape *s = &g->s;
	const uint32_t kv_head = head / (s->q_heads / s->kv_heads), len = g->row[row].len;
	const float *q = g->q + row * g->q_stride + (uint64_t)head * s->k_dim;
	double top = -INFINITY, sum = 0, most = 0, by = (double)g->scale * s->k_scale;

	for (uint32_t t = 0; t < len; t++) {
		double dot = 0, size = 0;
		uint64_t at;

		w[t] = -INFINITY;
		if (!arig_sees(g, row, t))
			continue;
		at = arig_at(g, g->row[row].seq, t, kv_head);
		for (uint32_t d = 0; d < s->k_dim; d++) {
			double x = (double)q[d] * kn_load(g->kv.k, at + d, s->dtype);

			dot += x;
			size += fabs(x);
		}
		w[t] = dot * by;
		top = w[t] > top ? w[t] : top;
		most = size * by > most ? size * by : most;
	}
	for (uint32_t t = 0; t < len; t++) {
		w[t] = w[t] == -INFINITY ? 0 : exp(w[t] - top);
		sum += w[t];
	}
	for (uint32_t t = 0; t < len; t++)
		w[t] = sum > 0 ? w[t] / sum : 0;
	return expm1(2 * (s->k_dim + 4) * REF_EPS * most +
		     (800 + 200.0 * arig_pieces(g)) * REF_EPS);
}

static void reference_head(struct arig *g, uint32_t row, uint32_t head, double *w)
{
	const struct arig_shape *s = &g->s;
	const uint32_t kv_head = head / (s->q_heads / s->kv_heads), len = g->row[row].len;
	const uint64_t first = ((uint64_t)row * s->q_heads + head) * s->v_dim;
	const double eps = weights(g, row, head, w), cut = len * exp(-87);

	for (uint32_t d = 0; d < s->v_dim; d++) {
		double sum = 0, size = 0, most = 0;

		for (uint32_t t = 0; t < len; t++) {
			double v;

			if (!arig_sees(g, row, t))
				continue;
			v = (double)kn_load(g->kv.v, arig_at(g, g->row[row].seq, t, kv_head) + d,
					    s->dtype) * s->v_scale;
			sum += w[t] * v;
			size += w[t] * fabs(v);
			most = fabs(v) > most ? fabs(v) : most;
		}
		g->want[first + d] = sum;
		g->bound[first + d] = eps * size + cut * most + 1e-42 * len;
	}
	for (uint32_t t = 0; t < len; t++) {
		g->want_mass[row * g->mass_stride + t] += w[t];
		g->bound_mass[row * g->mass_stride + t] += (eps + s->q_heads * REF_EPS) * w[t] +
							   exp(-87);
	}
}

void arig_reference(struct arig *g)
{
	double *w = ref_alloc(g->mass_stride * sizeof(*w));

	memset(g->want, 0, arig_outs(g) * sizeof(*g->want));
	memset(g->bound, 0, arig_outs(g) * sizeof(*g->bound));
	memset(g->want_mass, 0, g->s.rows * g->mass_stride * sizeof(*g->want_mass));
	memset(g->bound_mass, 0, g->s.rows * g->mass_stride * sizeof(*g->bound_mass));
	for (uint32_t r = 0; r < g->s.rows; r++)
		for (uint32_t h = 0; h < g->s.q_heads; h++)
			reference_head(g, r, h, w);
	free(w);
}

/* -------------------------------------------------------------------- input */

static void init_rows(struct arig *g)
{
	const struct arig_shape *s = &g->s;
	uint32_t len = 1 + ref_below(&g->seed, s->max_len);

	if (s->is_chunk && len < s->rows)
		len = s->rows;
	for (uint32_t r = 0; r < s->rows; r++) {
		g->row[r].seq = s->is_chunk ? 0 : r;
		if (s->is_chunk)
			g->row[r].len = len - s->rows + r + 1;
		else
			g->row[r].len = r % 5 == 3 ? 0 : 1 + ref_below(&g->seed, s->max_len);
		g->row[r].pos = 12345;
		if (!g->row[r].len)
			g->row[r].seq = UINT32_MAX;
	}
}

/* A slot of its own for each block, in random order. */
static void init_table(struct arig *g)
{
	const uint32_t stride = (uint32_t)g->table.stride, nr = nr_seqs(g) * stride;

	for (uint32_t i = 0; i < nr; i++) {
		uint32_t j = ref_below(&g->seed, i + 1);

		g->slot[i] = g->slot[j];
		g->slot[j] = (int32_t)i + 1;
	}
	for (uint32_t seq = 0; seq < nr_seqs(g); seq++) {
		uint32_t len = 0;

		for (uint32_t r = 0; r < g->s.rows; r++)
			if (g->row[r].seq == seq)
				len = g->row[r].len;
		for (uint32_t i = 0; i < stride; i++) {
			if (i >= ceil_div(len, g->s.block_tokens))
				g->slot[seq * stride + i] = FAR_OUTSIDE;
			else if (g->s.has_holes && ref_below(&g->seed, 4) == 0)
				g->slot[seq * stride + i] = 0;
		}
	}
}

static void init_kv(struct arig *g)
{
	const struct arig_shape *s = &g->s;
	const uint32_t bytes = kn_dtype_bytes(s->dtype);
	const uint32_t pad = s->layout == ARIG_ODD ? 1 : 0;
	size_t all;

	g->kv.token_stride = s->kv_heads * (s->k_dim + pad) + pad;
	g->kv.head_stride = s->k_dim + pad;
	if (s->layout == ARIG_HEADS) {
		g->kv.token_stride = s->k_dim;
		g->kv.head_stride = s->k_dim * s->block_tokens;
	}
	g->kv.slot_bytes = (uint64_t)s->block_tokens * s->kv_heads * (s->k_dim + 2 * pad) * bytes;
	all = (nr_seqs(g) * g->table.stride + 1) * g->kv.slot_bytes + 16;
	g->pool_k = ref_alloc(all);
	g->pool_v = ref_alloc(all);
	memset(g->pool_k, 0xff, all);
	memset(g->pool_v, 0xff, all);
	g->kv.k = g->pool_k + (pad ? bytes : 0);
	g->kv.v = s->is_latent ? g->kv.k : g->pool_v + (pad ? bytes : 0);
	g->kv.block_tokens = s->block_tokens;
	g->kv.dtype = s->dtype;
	g->kv.k_scale = s->k_scale;
	g->kv.v_scale = s->v_scale;
}

static void fill_kv(struct arig *g)
{
	float *v = ref_alloc(g->s.k_dim * sizeof(*v));

	for (uint32_t r = 0; r < g->s.rows; r++)
		for (uint32_t t = 0; t < g->row[r].len; t++) {
			/* In a chunk, what an earlier row saw is there already. */
			if (!arig_sees(g, r, t) || (r && g->s.is_chunk && arig_sees(g, r - 1, t)))
				continue;
			for (uint32_t h = 0; h < g->s.kv_heads; h++) {
				ref_fill_normal(&g->seed, v, g->s.k_dim);
				arig_set_k(g, g->row[r].seq, t, h, v);
				if (g->s.is_latent)
					continue;
				ref_fill_normal(&g->seed, v, g->s.v_dim);
				arig_set_v(g, g->row[r].seq, t, h, v);
			}
		}
	free(v);
}

void arig_init(struct arig *g, const struct arig_shape *s, uint64_t seed)
{
	const uint32_t longest = s->max_len > s->rows ? s->max_len : s->rows;
	size_t masses, outs;

	memset(g, 0, sizeof(*g));
	g->s = *s;
	g->seed = seed;
	g->scale = 1 / sqrtf((float)s->k_dim);
	g->row = ref_alloc(s->rows * sizeof(*g->row));
	init_rows(g);
	g->table.stride = ceil_div(longest, s->block_tokens) + 1;
	g->slot = ref_alloc(nr_seqs(g) * g->table.stride * sizeof(*g->slot));
	g->table.slot = g->slot;
	init_table(g);
	init_kv(g);
	fill_kv(g);
	g->q_stride = (uint64_t)(s->q_heads + (s->is_latent ? 0 : 3)) * s->k_dim;
	g->q = ref_alloc(s->rows * g->q_stride * sizeof(*g->q));
	for (size_t i = 0; i < s->rows * g->q_stride; i++)
		g->q[i] = s->spread * ref_normal(&g->seed);
	g->mass_stride = longest + ref_below(&g->seed, 400);
	masses = s->rows * g->mass_stride;
	outs = arig_outs(g);
	g->out = ref_alloc(outs * sizeof(*g->out));
	g->mass = ref_alloc(masses * sizeof(*g->mass));
	g->want = ref_alloc(outs * sizeof(*g->want));
	g->bound = ref_alloc(outs * sizeof(*g->bound));
	g->want_mass = ref_alloc(masses * sizeof(*g->want_mass));
	g->bound_mass = ref_alloc(masses * sizeof(*g->bound_mass));
	arig_reference(g);
}

void arig_exit(struct arig *g)
{
	free(g->pool_k);
	free(g->pool_v);
	free(g->slot);
	free(g->row);
	free(g->q);
	free(g->out);
	free(g->mass);
	free(g->want);
	free(g->bound);
	free(g->want_mass);
	free(g->bound_mass);
}

/* ------------------------------------------------------------------ launches */

static struct kn_attend_args attend_args(struct arig *g, uint32_t first, uint32_t nr, float *out)
{
	return (struct kn_attend_args){
		.kv = g->kv, .table = g->table, .row = g->row + first,
		.q = g->q + first * g->q_stride,
		.out = out + (size_t)first * g->s.q_heads * g->s.v_dim,
		.q_stride = g->q_stride, .mass_stride = g->mass_stride,
		.rows = nr, .q_heads = g->s.q_heads, .kv_heads = g->s.kv_heads,
		.head_dim = g->s.k_dim, .window = g->s.window, .sinks = g->s.sinks,
		.scale = g->scale,
	};
}

static struct kn_mla_args mla_args(struct arig *g, uint32_t first, uint32_t nr, float *out)
{
	return (struct kn_mla_args){
		.kv = g->kv, .table = g->table, .row = g->row + first,
		.q = g->q + first * g->q_stride,
		.out = out + (size_t)first * g->s.q_heads * g->s.v_dim,
		.rows = nr, .q_heads = g->s.q_heads, .kv_dim = g->s.v_dim,
		.rope_dim = g->s.k_dim - g->s.v_dim,
		.window = g->s.window, .sinks = g->s.sinks, .scale = g->scale,
	};
}

void arig_decode(struct arig *g, uint32_t first, uint32_t nr, uint32_t pieces, unsigned threads,
		 float *out, float *mass)
{
	uint32_t heads = g->s.q_heads, z = pieces ? pieces : arig_pieces(g);
	size_t bytes = kn_attend_part_bytes(nr, heads, g->s.v_dim, z);
	float *part = ref_alloc(bytes);

	/* What nobody wrote is not to be read: NaN. */
	memset(part, 0xff, bytes);
	if (g->s.is_latent) {
		struct kn_mla_args a = mla_args(g, first, nr, out);

		a.part = part;
		a.pieces = z;
		ref_launch(KN_MLA, nr, ceil_div(heads, KN_MLA_HEADS), z, threads, &a);
		ref_launch(KN_MLA_MERGE, nr, heads, 1, threads, &a);
	} else {
		struct kn_attend_args a = attend_args(g, first, nr, out);

		a.part = part;
		a.pieces = z;
		a.mass = mass ? mass + first * g->mass_stride : NULL;
		ref_launch(KN_ATTEND, nr, g->s.kv_heads, z, threads, &a);
		ref_launch(KN_ATTEND_MERGE, nr, heads, 1, threads, &a);
	}
	free(part);
}

void arig_prefill(struct arig *g, uint32_t first, uint32_t nr, unsigned threads, float *out)
{
	struct kn_attend_args a = attend_args(g, first, nr, out);

	ref_launch(KN_PREFILL, ceil_div(nr, KN_PREFILL_ROWS), g->s.kv_heads, 1, threads, &a);
}

/* --------------------------------------------------------------------- seeds */

static uint32_t env(const char *name, uint32_t otherwise)
{
	const char *v = getenv(name);

	return v && *v ? (uint32_t)strtoul(v, NULL, 10) : otherwise;
}

void arig_each_seed(uint32_t nr, void (*check)(uint32_t seed))
{
	uint32_t only = env("KVMD_SEED", 0), last = env("KVMD_SEEDS", nr);

	if (only) {
		check(only);
		return;
	}
	for (uint32_t i = 1; i <= last; i++)
		check(i);
}
