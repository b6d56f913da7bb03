// SPDX-License-Identifier: Apache-2.0
/*
 * basic.cu - what lies between the products of a transformer's layer: embedding,
 * RMSNorm, RoPE with the store into blocks, SwiGLU, and the residual's sum.
 *
 * Sums over a row are made of KN_LANES partial ones, lane l of the values l, l +
 * KN_LANES, ..., which are then added by halves: the same order whatever the number of
 * threads is.
 */
#include "kernels/kernels.h"
#include "kernels/lanes.h"
#include "kernels/shim.h"

#define ANGLES	256u			/* of a row that are known at a time */

KN_KERNEL(kn_embed, struct kn_embed_args)
{
	const uint32_t r = kn_block.x;
	const uint32_t token = (uint32_t)a.token[r];	/* below 0 becomes large */
	const float *from = a.table + (uint64_t)token * a.dim;
	float *to = a.out + (uint64_t)r * a.dim;

	KN_THREADS(t)
		for (uint32_t i = t; i < a.dim; i += kn_threads)
			to[i] = token < a.vocab ? from[i] : 0;
}

KN_KERNEL(kn_norm, struct kn_norm_args)
{
	KN_SHARED(float, part, KN_LANES);
	const float *in = a.in + (uint64_t)kn_block.x * a.dim;
	float *out = a.out + (uint64_t)kn_block.x * a.dim;

	KN_THREADS(t) {
		for (uint32_t l = t; l < KN_LANES; l += kn_threads)
			part[l] = 0;
		for (uint32_t base = 0; base < a.dim; base += KN_LANES)
			for (uint32_t l = t; l < KN_LANES && l < a.dim - base; l += kn_threads)
				part[l] += in[base + l] * in[base + l];
	}
	KN_LANES_SUM(part);
	KN_THREADS(t) {
		const float by = 1 / sqrtf(part[0] / (float)a.dim + a.eps);

		for (uint32_t i = t; i < a.dim; i += kn_threads)
			out[i] = in[i] * by * a.weight[i];
	}
}

/* One head's values from @from to the cache. */
template <uint32_t dtype> KN_FN void store(void *to, uint64_t at, const float *from, uint32_t n,
					   float scale, unsigned t, unsigned threads)
{
	for (uint32_t i = t; i < n; i += threads)
		kn_store(to, at + i, dtype, from[i] / scale);
}

KN_FN void store_as(uint32_t dtype, void *to, uint64_t at, const float *from, uint32_t n,
		    float scale, unsigned t, unsigned threads)
{
	switch (dtype) {
	case KN_BF16:
		store<KN_BF16>(to, at, from, n, scale, t, threads);
		return;
	case KN_F16:
		store<KN_F16>(to, at, from, n, scale, t, threads);
		return;
	case KN_E4M3:
		store<KN_E4M3>(to, at, from, n, scale, t, threads);
		return;
	case KN_E5M2:
		store<KN_E5M2>(to, at, from, n, scale, t, threads);
		return;
	}
}

/*
 * Angle i of position p: p * theta^(-2i / head_dim), in double and less its whole
 * turns: what is left as a float is off by at most half its last place, at any position.
 */
KN_FN float angle_of(uint32_t pos, uint32_t i, uint32_t head_dim, double log_theta)
{
	const double two_pi = 6.283185307179586476925;
	double v = pos * exp(-2.0 * i / head_dim * log_theta);

	return (float)(v - two_pi * rint(v / two_pi));
}

KN_FN void rotate(float *lo, float *hi, const float *c, const float *s, uint32_t n, unsigned t,
		  unsigned threads)
{
	for (uint32_t i = t; i < n; i += threads) {
		const float x = lo[i], y = hi[i];

		lo[i] = x * c[i] - y * s[i];
		hi[i] = y * c[i] + x * s[i];
	}
}

KN_KERNEL(kn_rope, struct kn_rope_args)
{
	KN_SHARED(float, c, ANGLES);
	KN_SHARED(float, s, ANGLES);
	const struct kn_row row = a.row[kn_block.x];
	const uint32_t half = a.head_dim / 2, heads = a.q_heads + a.kv_heads;
	float *x = a.qkv + (uint64_t)kn_block.x * (heads + a.kv_heads) * a.head_dim;
	const uint32_t own = row.len - 1, block = own / a.kv.block_tokens;
	const uint64_t token_at = (uint64_t)(own % a.kv.block_tokens) * a.kv.token_stride;
	const int32_t slot = row.len ? a.table.slot[row.seq * a.table.stride + block] : 0;
	char *k = (char *)a.kv.k + (uint64_t)slot * a.kv.slot_bytes;
	char *v = (char *)a.kv.v + (uint64_t)slot * a.kv.slot_bytes;

	for (uint32_t base = 0; base < half; base += ANGLES) {
		const uint32_t nr = half - base < ANGLES ? half - base : ANGLES;

		KN_THREADS(t)
			for (uint32_t i = t; i < nr; i += kn_threads) {
				float w = angle_of(row.pos, base + i, a.head_dim,
						   log((double)a.theta));

				c[i] = cosf(w);
				s[i] = sinf(w);
			}
		/* As many heads at once as there are threads for; what is left over is idle. */
		const uint32_t width = nr < kn_threads ? nr : kn_threads;
		const uint32_t beside = kn_threads / width;

		KN_THREADS(t)
			for (uint32_t h = t / width < beside ? t / width : heads; h < heads;
			     h += beside) {
				float *lo = x + (uint64_t)h * a.head_dim + base;

				rotate(lo, lo + half, c, s, nr, t % width, width);
			}
	}
	KN_THREADS(t)
		for (uint32_t h = 0; slot && h < a.kv_heads; h++) {
			const float *kh = x + (uint64_t)(a.q_heads + h) * a.head_dim;
			const uint64_t at = token_at + (uint64_t)h * a.kv.head_stride;

			store_as(a.kv.dtype, k, at, kh, a.head_dim, a.kv.k_scale, t, kn_threads);
			store_as(a.kv.dtype, v, at, kh + (uint64_t)a.kv_heads * a.head_dim,
				 a.head_dim, a.kv.v_scale, t, kn_threads);
		}
}

KN_FN float silu(float x)
{
	return x / (1 + expf(-x));
}

KN_KERNEL(kn_swiglu, struct kn_swiglu_args)
{
	const float *in = a.in + 2ull * kn_block.x * a.n;
	float *out = a.out + (uint64_t)kn_block.x * a.n;
	const uint32_t share = (a.n + kn_grid.y - 1) / kn_grid.y;
	const uint32_t from = kn_block.y * share;

	KN_THREADS(t)
		for (uint32_t i = t; i < share && from + i < a.n; i += kn_threads)
			out[from + i] = silu(in[from + i]) * in[a.n + from + i];
}

KN_KERNEL(kn_add, struct kn_add_args)
{
	const uint64_t blocks = (uint64_t)kn_grid.x * kn_grid.y * kn_grid.z;
	const uint64_t share = (a.n + blocks - 1) / blocks;
	const uint64_t me = ((uint64_t)kn_block.z * kn_grid.y + kn_block.y) * kn_grid.x +
			    kn_block.x;
	const uint64_t from = me * share < a.n ? me * share : a.n;
	const uint64_t to = a.n - from < share ? a.n : from + share;

	KN_THREADS(t)
		for (uint64_t i = from + t; i < to; i += kn_threads)
			a.x[i] += a.y[i];
}
