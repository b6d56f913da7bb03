/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attend_piece.h - attention of some rows over one piece of KN_SPLIT tokens, and the
 * merging of pieces: what attend.cu and mla.cu are made of.
 *
 * For a row and a head, in this order, whoever asks and however many rows share K and V:
 * scores s = (q * scale) . k by attend_tile.h; m, the largest of those that are seen;
 * p = exp(s - m); l, the sum of p over SUM_LANES sums of every SUM_LANES-th token; o, the
 * sum of p * v by attend_tile.h. Pieces are merged one after the other, see merge().
 * A piece that nothing of is seen is m = -infinity, l = 0 and is left out of it.
 */
#ifndef KVMD_KERNELS_ATTEND_PIECE_H
#define KVMD_KERNELS_ATTEND_PIECE_H

#include "kernels/attend_tile.h"
#include "kernels/shim.h"

#define SUM_LANES	16u
#define LANES_AT_ONCE	(KN_RAW_TILES ? 1u : SUM_LANES)

#define MINUS_INF	(-__builtin_inff())

/*
 * e^x for x <= 0, NaN of NaN; relative error below 2^-23, below e^-87 it is 0. By
 * 2^n * e^r, |r| <= ln(2) / 2, and the polynomial of Cephes' expf.
 */
KN_FN float exp_neg(float x)
{
	const float round = 12582912.0f;		/* 1.5 * 2^23 */
	float n = mul_add(x, 1.44269504088896341f, round) - round, r, y;

	r = mul_add(n, -0.693359375f, x);
	r = mul_add(n, 2.12194440e-4f, r);
	y = mul_add(1.9875691500e-4f, r, 1.3981999507e-3f);
	y = mul_add(y, r, 8.3334519073e-3f);
	y = mul_add(y, r, 4.1665795894e-2f);
	y = mul_add(y, r, 1.6666665459e-1f);
	y = mul_add(y, r, 5.0000001201e-1f);
	y = mul_add(y, r * r, r) + 1;
	y *= kn_float((kn_bits(n + round) - 0x4b400000u + 127) << 23);
	return kn_float(kn_bits(y) & ((uint32_t)(x < -87.0f) - 1));
}

KN_FN uint32_t least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* ------------------------------------------------------------------ merging */

KN_FN bool is_nothing(float m, float l)
{
	return m == MINUS_INF && l == 0;
}

/* What was merged so far, and what the next piece makes of it. */
struct merged {
	float m, l;
	float old_weight, new_weight;
	bool is_first, is_same;		/* the first that counts; one that does not */
};

/* @r takes the piece (@m, @l); then merge() each value of it. */
KN_FN void merge_piece(struct merged &r, float m, float l)
{
	const float top = m > r.m ? m : r.m;

	r.is_same = is_nothing(m, l);
	r.is_first = is_nothing(r.m, r.l);
	if (r.is_same)
		return;
	r.old_weight = r.is_first ? 0 : exp_neg(r.m - top);
	r.new_weight = exp_neg(m - top);
	r.l = mul_add(l, r.new_weight, r.l * r.old_weight);
	r.m = top;
}

KN_FN void merge(kn_vec *o, const struct merged &r, const kn_vec *piece)
{
	const kn_vec old = r.is_first ? kn_vec {} : *o;

	if (r.is_same)
		return;
#if KN_ON_GPU
	*o = __fmaf_rn(*piece, r.new_weight, __fmul_rn(old, r.old_weight));
#else
	*o = *piece * r.new_weight + old * r.old_weight;
#endif
}

/* By what a merged value is to be multiplied. */
KN_FN float merged_scale(const struct merged &r, float scale)
{
	return is_nothing(r.m, r.l) ? 0 : scale / r.l;
}

/* A piece of a row and head in part: dims values, m, l, and two that fill up. */
KN_FN uint64_t part_floats(uint32_t dims)
{
	return dims + 4ull;
}

#define MERGE_LOADS	8u	/* pieces that are fetched before the first is waited for */

/* Merges the @pieces at @part to @out; a phase of its own. */
KN_FN void merge_out(KN_CTX, float *out, const float *part, uint32_t dims, uint32_t pieces,
		     float scale)
{
	const uint64_t floats = part_floats(dims);

	KN_THREADS(t)
		KN_EACH(i, t, dims / KN_VEC) {
			struct merged r = { MINUS_INF, 0, 0, 0, true, true };
			kn_vec o = {}, v[MERGE_LOADS];
			float m[MERGE_LOADS], l[MERGE_LOADS];

			for (uint32_t n = 0; n < pieces; n += MERGE_LOADS) {
				KN_UNROLL
				for (unsigned u = 0; u < MERGE_LOADS; u++) {
					const float *p = part + least(n + u, pieces - 1) * floats;

					m[u] = p[dims];
					l[u] = p[dims + 1];
					v[u] = *(const kn_vec *)(p + i * KN_VEC);
				}
				KN_UNROLL
				for (unsigned u = 0; u < MERGE_LOADS; u++)
					if (n + u < pieces) {
						merge_piece(r, m[u], l[u]);
						merge(&o, r, &v[u]);
					}
			}
			o *= merged_scale(r, scale);
			*(kn_vec *)(out + i * KN_VEC) = o;
		}
}

/* ------------------------------------------------------------------ a piece */

/*
 * Rows of attention over one piece, all with the same K and V: number i of them, from
 * @skip on, is head i % heads of row i / heads of q, of scores, and of @to.
 */
struct piece {
	const char *k, *v;		/* value 0 of the head, but for the token's offset */
	uint32_t k_dims, v_dims;
	uint32_t first, nr;		/* tokens */
	uint32_t from, sinks;		/* as struct view, of the row that sees most */
	uint32_t dtype;
	bool is_k_wide, is_v_wide;
	const float *q;
	uint64_t q_row;			/* floats between two rows of q; heads are k_dims apart */
	float *to;
	uint64_t to_row, to_head;
	uint32_t heads, skip, rows;
	float scale;
};

/* Shared memory for it, for @most rows. */
template <unsigned most, unsigned tokens> struct piece_mem {
	uint64_t off[KN_SPLIT];		/* of a token behind k and v */
	uint32_t token[KN_SPLIT];	/* its number; UINT32_MAX: not there */
	alignas(16) float score[most * SCORE_ROW];
	alignas(16) float x[most * TILE_DIMS];	/* of q, sums of softmax, of o: one at a time */
	float m[most], l[most];
	struct view view[most];
	struct tile<tokens> tile;
};

/* Whether values at any token of @kv behind @p, @dims of them, are whole 16-byte chunks. */
KN_FN bool is_wide(const struct kn_kv &kv, const void *p, uint32_t dims)
{
	const uint64_t bytes = kn_dtype_bytes(kv.dtype);

	return ((uintptr_t)p | kv.slot_bytes | kv.token_stride * bytes | dims * bytes) % 16 == 0;
}

KN_FN struct view view_of(const struct kn_row &row, uint32_t window, uint32_t sinks)
{
	return { row.len, window && row.len > window ? row.len - window : 0, sinks };
}

/* In a phase: where the tokens of the piece are. */
template <unsigned most, unsigned tokens>
KN_FN void find_tokens(const struct piece &p, struct piece_mem<most, tokens> &mem,
		       const struct kn_kv &kv, const int32_t *slots, unsigned t, unsigned threads)
{
	const uint64_t token_bytes = (uint64_t)kv.token_stride * kn_dtype_bytes(kv.dtype);

	for (unsigned j = t; j < KN_SPLIT; j += threads) {
		const uint32_t token = p.first + j;
		int32_t slot = 0;

		if (j < p.nr && (token < p.sinks || token >= p.from))
			slot = slots[token / kv.block_tokens];
		mem.token[j] = slot > 0 ? token : UINT32_MAX;
		mem.off[j] = slot > 0 ? (uint32_t)slot * kv.slot_bytes +
				token % kv.block_tokens * token_bytes : ABSENT;
	}
}

/* Whether a row needs the tile from token @at of the piece on. */
KN_FN bool needs(const struct piece &p, unsigned at, unsigned tokens)
{
	return p.first + at < p.sinks || p.first + at + tokens > p.from;
}

/* In a phase: dims d0 .. of q. */
template <unsigned most, unsigned tokens>
KN_FN void load_q(const struct piece &p, struct piece_mem<most, tokens> &mem, unsigned d0,
		  unsigned t, unsigned threads)
{
	constexpr unsigned per_row = TILE_DIMS / KN_VEC;
	const unsigned rows = (p.rows + ITEM_ROWS - 1) / ITEM_ROWS * ITEM_ROWS;

	for (unsigned i = t; i < rows * per_row; i += threads) {
		const unsigned row = p.skip + i / per_row, d = d0 + i % per_row * KN_VEC;
		kn_vec v = {};

		if (i / per_row < p.rows && d < p.k_dims)
			v = *(const kn_vec *)(p.q + row / p.heads * p.q_row +
					      (uint64_t)(row % p.heads) * p.k_dims + d) * p.scale;
		*(kn_vec *)(mem.x + i * KN_VEC) = v;
	}
}

/* mem.score of all tokens; of those that are not seen, anything. */
template <int dtype, unsigned most, unsigned tokens>
KN_FN void make_scores(KN_CTX, const struct piece &p, struct piece_mem<most, tokens> &mem)
{
	constexpr unsigned cols = tokens / ITEM_COLS;
	const unsigned items = (p.rows + ITEM_ROWS - 1) / ITEM_ROWS * cols;

	for (unsigned d0 = 0; d0 < p.k_dims; d0 += TILE_DIMS) {
		const unsigned dims = least(TILE_DIMS, p.k_dims - d0);
		bool has_q = false;

		for (unsigned at = 0; at < p.nr; at += tokens) {
			const unsigned nr = (least(tokens, p.nr - at) + 7) / 8 * 8;
			const struct tile_of of = {
				p.k + (uint64_t)d0 * kn_dtype_bytes(p.dtype), mem.off + at, nr,
				dims, p.dtype, p.is_k_wide,
			};

			if (!needs(p, at, tokens))
				continue;
			KN_THREADS(t) {
				if (!has_q)
					load_q(p, mem, d0, t, kn_threads);
				load_tile<dtype, true>(mem.tile, of, t, kn_threads);
			}
			has_q = true;
			KN_THREADS(t)
				for (unsigned i = t; i < items; i += kn_threads) {
					const unsigned col = i % cols * ITEM_COLS;
					const unsigned row = i / cols * ITEM_ROWS;

					if (col < nr)
						add_scores<dtype>(mem.score + row * SCORE_ROW + at,
								  mem.x + row * TILE_DIMS, mem.tile,
								  col, dims, d0 == 0);
				}
		}
	}
}

/* Score to weight, in place; m and l. */
template <unsigned most, unsigned tokens>
KN_FN void make_weights(KN_CTX, const struct piece &p, struct piece_mem<most, tokens> &mem)
{
	constexpr unsigned w = LANES_AT_ONCE;
	const unsigned items = p.rows * (SUM_LANES / w);
	const unsigned nr = (p.nr + SUM_LANES - 1) / SUM_LANES * SUM_LANES;

	KN_THREADS(t)
		for (unsigned i = t; i < items; i += kn_threads) {
			const unsigned row = i / (SUM_LANES / w), lane = i % (SUM_LANES / w) * w;
			const struct view view = mem.view[row];
			float *s = mem.score + row * SCORE_ROW + lane, top[w];

			for (unsigned u = 0; u < w; u++)
				top[u] = MINUS_INF;
			for (unsigned j = 0; j < nr; j += SUM_LANES)
				for (unsigned u = 0; u < w; u++) {
					s[j + u] = is_seen(view, mem.token[j + lane + u]) ?
						s[j + u] : MINUS_INF;
					top[u] = s[j + u] > top[u] ? s[j + u] : top[u];
				}
			for (unsigned u = 0; u < w; u++)
				mem.x[row * TILE_DIMS + lane + u] = top[u];
		}
	KN_THREADS(t)
		for (unsigned i = t; i < items; i += kn_threads) {
			const unsigned row = i / (SUM_LANES / w), lane = i % (SUM_LANES / w) * w;
			float *s = mem.score + row * SCORE_ROW + lane, sum[w] = {};
			float m = MINUS_INF;

			for (unsigned u = 0; u < SUM_LANES; u++) {
				const float top = mem.x[row * TILE_DIMS + u];

				m = top > m ? top : m;
			}
			/* What is not seen is -infinity, and so it weighs nothing. */
			const float by = m == MINUS_INF ? 0 : m;

			for (unsigned j = 0; j < nr; j += SUM_LANES)
				for (unsigned u = 0; u < w; u++) {
					s[j + u] = exp_neg(s[j + u] - by);
					sum[u] += s[j + u];
				}
			for (unsigned u = 0; u < w; u++)
				mem.x[row * TILE_DIMS + SUM_LANES + lane + u] = sum[u];
		}
	KN_THREADS(t)
		for (unsigned row = t; row < p.rows; row += kn_threads) {
			const float *x = mem.x + row * TILE_DIMS;
			float m = MINUS_INF, l = 0;

			for (unsigned u = 0; u < SUM_LANES; u++) {
				m = x[u] > m ? x[u] : m;
				l += x[SUM_LANES + u];
			}
			mem.m[row] = m;
			mem.l[row] = l;
		}
}

/* In a phase: item @i of a tile of V, @nr tokens from token @at of the piece on. */
template <int dtype, unsigned most, unsigned tokens>
KN_FN void value_item(const struct piece &p, struct piece_mem<most, tokens> &mem, unsigned i,
		      unsigned at, unsigned nr, unsigned dims, bool is_first)
{
	constexpr unsigned cols = TILE_DIMS / ITEM_COLS;
	const unsigned dim = i % cols * ITEM_COLS, row = i / cols * ITEM_ROWS;
	const uint32_t first = p.first + at;
	const struct view *view = mem.view + row;
	bool all = true, any = is_first;

	if (dim >= dims)
		return;
	for (unsigned r = 0; r < ITEM_ROWS && row + r < p.rows; r++) {
		all &= sees_all(view[r], first, first + nr);
		any |= sees_any(view[r], first, first + nr);
	}
	if (any)
		add_values<dtype>(mem.x + row * TILE_DIMS, mem.score + row * SCORE_ROW + at,
				  mem.tile, dim, nr, is_first, all ? NULL : view, first);
}

/*
 * The values of the piece, dims d0 .. at a time in mem.x, for @use(d0, dims), which has
 * phases.
 */
template <int dtype, unsigned most, unsigned tokens, typename F>
KN_FN void make_values(KN_CTX, const struct piece &p, struct piece_mem<most, tokens> &mem, F use)
{
	const unsigned items = (p.rows + ITEM_ROWS - 1) / ITEM_ROWS * (TILE_DIMS / ITEM_COLS);

	for (unsigned d0 = 0; d0 < p.v_dims; d0 += TILE_DIMS) {
		const unsigned dims = least(TILE_DIMS, p.v_dims - d0);
		bool is_first = true;

		for (unsigned at = 0; at < p.nr; at += tokens) {
			const unsigned nr = least(tokens, p.nr - at);
			const struct tile_of of = {
				p.v + (uint64_t)d0 * kn_dtype_bytes(p.dtype), mem.off + at,
				(nr + 7) / 8 * 8, dims, p.dtype, p.is_v_wide,
			};

			if (!needs(p, at, tokens))
				continue;
			KN_THREADS(t)
				load_tile<dtype, false>(mem.tile, of, t, kn_threads);
			KN_THREADS(t)
				for (unsigned i = t; i < items; i += kn_threads)
					value_item<dtype>(p, mem, i, at, nr, dims, is_first);
			is_first = false;
		}
		use(d0, dims);
	}
}

/* Where number @i of the piece's rows has its values. */
KN_FN float *to_of(const struct piece &p, unsigned i)
{
	const unsigned row = p.skip + i;

	return p.to + row / p.heads * p.to_row + row % p.heads * p.to_head;
}

/*
 * Writes the piece to p.to as part has it. Of a piece that nothing of is seen, only
 * that.
 */
template <int dtype, unsigned most, unsigned tokens>
KN_FN void piece_to_part(KN_CTX, const struct piece &p, struct piece_mem<most, tokens> &mem,
			 bool is_any)
{
	if (!is_any) {
		KN_THREADS(t)
			for (unsigned i = t; i < p.rows; i += kn_threads) {
				to_of(p, i)[p.v_dims] = MINUS_INF;
				to_of(p, i)[p.v_dims + 1] = 0;
			}
		return;
	}
	make_scores<dtype>(KN_CTX_ARGS, p, mem);
	make_weights(KN_CTX_ARGS, p, mem);
	make_values<dtype>(KN_CTX_ARGS, p, mem, [&](unsigned d0, unsigned dims) {
		constexpr unsigned per_row = TILE_DIMS / KN_VEC;

		KN_THREADS(t)
			for (unsigned i = t; i < p.rows * per_row; i += kn_threads) {
				const unsigned row = i / per_row, d = i % per_row * KN_VEC;
				float *to = to_of(p, row);

				if (d < dims)
					*(kn_vec *)(to + d0 + d) =
						*(const kn_vec *)(mem.x + i * KN_VEC);
				if (d0 == 0 && d == 0) {
					to[p.v_dims] = mem.m[row];
					to[p.v_dims + 1] = mem.l[row];
				}
			}
	});
}

#endif
