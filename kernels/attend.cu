// SPDX-License-Identifier: Apache-2.0
/*
 * attend.cu - attention over blocks: by pieces that are merged (decode), and of rows
 * that share K and V (prefill). How a piece is computed: attend_piece.h.
 *
 * Sources: see kernels.h.
 */
#include "kernels/attend_piece.h"

/* Rows that share a tile, and tokens of it: of decode, and of prefill and mass. */
#define DECODE_ROWS	(KN_RAW_TILES ? 8u : 64u)
#define DECODE_TOKENS	128u
#define SHARE_ROWS	(KN_RAW_TILES ? 16u : 64u)
#define SHARE_TOKENS	(KN_RAW_TILES ? 64u : 128u)

/* What all pieces of a launch have in common, for heads of @kv_head. */
KN_FN struct piece piece_of(const struct kn_attend_args &a, uint32_t kv_head, uint32_t row)
{
	const uint64_t head_bytes = (uint64_t)kv_head * a.kv.head_stride *
		kn_dtype_bytes(a.kv.dtype);
	const uint32_t heads = a.q_heads / a.kv_heads;
	struct piece p = {};

	p.k = (const char *)a.kv.k + head_bytes;
	p.v = (const char *)a.kv.v + head_bytes;
	p.k_dims = p.v_dims = a.head_dim;
	p.is_k_wide = is_wide(a.kv, p.k, a.head_dim);
	p.is_v_wide = is_wide(a.kv, p.v, a.head_dim);
	p.q = a.q + row * a.q_stride + (uint64_t)kv_head * heads * a.head_dim;
	p.q_row = a.q_stride;
	p.heads = heads;
	p.sinks = a.sinks;
	p.dtype = a.kv.dtype;
	p.scale = a.scale * a.kv.k_scale;
	return p;
}

/* ------------------------------------------------------------------- decode */

template <int dtype, unsigned most, unsigned tokens>
KN_FN void attend(KN_CTX, const struct kn_attend_args &a, struct piece_mem<most, tokens> &mem)
{
	const uint32_t r = kn_block.x, kv_head = kn_block.y, number = kn_block.z;
	const struct kn_row row = a.row[r];
	const struct view view = view_of(row, a.window, a.sinks);
	const uint64_t floats = part_floats(a.head_dim);
	const int32_t *slots = a.table.slot + (row.len ? row.seq : 0) * a.table.stride;
	struct piece p = piece_of(a, kv_head, r);

	p.first = number * KN_SPLIT;
	p.nr = p.first < row.len ? least(KN_SPLIT, row.len - p.first) : 0;
	p.from = view.from;
	p.to = a.part +
		(((uint64_t)r * a.q_heads + kv_head * p.heads) * a.pieces + number) * floats;
	p.to_head = a.pieces * floats;
	const bool is_any = p.nr && sees_any(view, p.first, p.first + p.nr);

	KN_THREADS(t) {
		for (unsigned i = t; i < most; i += kn_threads)
			mem.view[i] = view;
		if (is_any)
			find_tokens(p, mem, a.kv, slots, t, kn_threads);
	}
	for (; p.skip < p.heads; p.skip += most) {
		p.rows = least(most, p.heads - p.skip);
		piece_to_part<dtype>(KN_CTX_ARGS, p, mem, is_any);
	}
}

KN_KERNEL(kn_attend, struct kn_attend_args)
{
	using mem_type = struct piece_mem<DECODE_ROWS, DECODE_TOKENS>;
	KN_SHARED(mem_type, mem, 1);

	KN_BY_DTYPE(a.kv.dtype, attend<dtype>(KN_CTX_ARGS, a, mem[0]));
}

/* -------------------------------------------------------------------- merge */

/* For mass: m and 1 / l of the row's heads that are at work, and sums over heads. */
template <unsigned most> struct mass_mem {
	float m[most], per_l[most];
	float sum[KN_SPLIT];
};

/* In a phase: m and l of heads @first .. of row @r over all pieces. */
template <unsigned most>
KN_FN void merge_sums(const struct kn_attend_args &a, uint32_t r, uint32_t first, unsigned nr,
		      struct mass_mem<most> &mass, unsigned t, unsigned threads)
{
	const uint64_t floats = part_floats(a.head_dim);

	for (unsigned i = t; i < nr; i += threads) {
		const float *p = a.part +
			((uint64_t)r * a.q_heads + first + i) * a.pieces * floats;
		struct merged s = { MINUS_INF, 0, 0, 0, true, true };

		for (uint32_t n = 0; n < a.pieces; n++, p += floats)
			merge_piece(s, p[a.head_dim], p[a.head_dim + 1]);
		mass.m[i] = s.m;
		mass.per_l[i] = merged_scale(s, 1);
	}
}

/* In a phase: adds the weights of the piece's rows, in the order of heads. */
template <unsigned most, unsigned tokens>
KN_FN void add_mass(const struct piece &p, const struct piece_mem<most, tokens> &mem,
		    struct mass_mem<most> &mass, unsigned t, unsigned threads)
{
	for (unsigned j = t; j < p.nr; j += threads) {
		if (!is_seen(mem.view[0], mem.token[j]))
			continue;
		for (unsigned i = 0; i < p.rows; i++) {
			const float s = mem.score[i * SCORE_ROW + j];

			if (s != MINUS_INF)
				mass.sum[j] = mul_add(exp_neg(s - mass.m[i]), mass.per_l[i],
						      mass.sum[j]);
		}
	}
}

/* One piece of @r's mass: all heads of all groups, one after the other. */
template <int dtype, unsigned most, unsigned tokens>
KN_FN void mass_of_piece(KN_CTX, const struct kn_attend_args &a, uint32_t r, uint32_t number,
			 struct piece_mem<most, tokens> &mem, struct mass_mem<most> &mass)
{
	const struct kn_row row = a.row[r];
	const struct view view = view_of(row, a.window, a.sinks);
	const int32_t *slots = a.table.slot + (row.len ? row.seq : 0) * a.table.stride;
	const uint32_t first = number * KN_SPLIT;
	const uint32_t nr = first < row.len ? least(KN_SPLIT, row.len - first) : 0;
	const bool is_any = nr && sees_any(view, first, first + nr);

	KN_THREADS(t)
		for (unsigned j = t; j < KN_SPLIT; j += kn_threads)
			mass.sum[j] = 0;
	for (uint32_t kv_head = 0; is_any && kv_head < a.kv_heads; kv_head++) {
		struct piece p = piece_of(a, kv_head, r);

		p.first = first;
		p.nr = nr;
		p.from = view.from;
		for (; p.skip < p.heads; p.skip += most) {
			p.rows = least(most, p.heads - p.skip);
			KN_THREADS(t) {
				if (t == 0)
					mem.view[0] = view;
				find_tokens(p, mem, a.kv, slots, t, kn_threads);
				merge_sums(a, r, kv_head * p.heads + p.skip, p.rows, mass, t,
					   kn_threads);
			}
			make_scores<dtype>(KN_CTX_ARGS, p, mem);
			KN_THREADS(t)
				add_mass(p, mem, mass, t, kn_threads);
		}
	}
	KN_THREADS(t)
		for (uint64_t j = t; j < KN_SPLIT && first + j < a.mass_stride; j += kn_threads)
			a.mass[r * a.mass_stride + first + j] = mass.sum[j];
}

/* The row's pieces are shared out among the blocks of its heads. */
template <int dtype, unsigned most, unsigned tokens>
KN_FN void mass_of_row(KN_CTX, const struct kn_attend_args &a,
		       struct piece_mem<most, tokens> &mem, struct mass_mem<most> &mass)
{
	for (uint64_t n = kn_block.y; n * KN_SPLIT < a.mass_stride; n += kn_grid.y)
		mass_of_piece<dtype>(KN_CTX_ARGS, a, kn_block.x, (uint32_t)n, mem, mass);
}

KN_KERNEL(kn_attend_merge, struct kn_attend_args)
{
	using mem_type = struct piece_mem<SHARE_ROWS, SHARE_TOKENS>;
	KN_SHARED(mem_type, mem, 1);
	KN_SHARED(struct mass_mem<SHARE_ROWS>, mass, 1);
	const uint64_t nr = (uint64_t)kn_block.x * a.q_heads + kn_block.y;

	merge_out(KN_CTX_ARGS, a.out + nr * a.head_dim,
		  a.part + nr * a.pieces * part_floats(a.head_dim), a.head_dim, a.pieces,
		  a.kv.v_scale);
	if (!a.mass)
		return;
	KN_BY_DTYPE(a.kv.dtype, mass_of_row<dtype>(KN_CTX_ARGS, a, mem[0], mass[0]));
}

/* ------------------------------------------------------------------ prefill */

/* Rows of a block: those that are there, and what they see together. */
struct chunk {
	uint32_t first, rows, seq;
	uint32_t len, from;
};

KN_FN struct chunk chunk_of(const struct kn_attend_args &a, uint32_t number)
{
	struct chunk c = { number * KN_PREFILL_ROWS, 0, 0, 0, UINT32_MAX };

	c.rows = least(KN_PREFILL_ROWS, a.rows - c.first);
	for (uint32_t i = 0; i < c.rows; i++) {
		const struct kn_row row = a.row[c.first + i];
		const struct view view = view_of(row, a.window, a.sinks);

		if (!row.len)
			continue;
		c.seq = row.seq;
		c.len = row.len > c.len ? row.len : c.len;
		c.from = least(view.from, c.from);
	}
	return c;
}

/* Adds a piece's values in mem.x to where the rows' are. */
template <unsigned most, unsigned tokens>
KN_FN void merge_values(const struct piece &p, const struct piece_mem<most, tokens> &mem,
			const struct merged *run, unsigned d0, unsigned dims, unsigned t,
			unsigned threads)
{
	constexpr unsigned per_row = TILE_DIMS / KN_VEC;

	for (unsigned i = t; i < p.rows * per_row; i += threads) {
		const unsigned row = i / per_row, d = i % per_row * KN_VEC;

		if (d < dims)
			merge((kn_vec *)(to_of(p, row) + d0 + d), run[row],
			      (const kn_vec *)(mem.x + i * KN_VEC));
	}
}

/* @p.rows rows over all pieces below @len. */
template <int dtype, unsigned most, unsigned tokens>
KN_FN void prefill_rows(KN_CTX, const struct kn_attend_args &a, struct piece p, uint32_t len,
			const int32_t *slots, struct piece_mem<most, tokens> &mem,
			struct merged *run)
{
	for (p.first = 0; p.first < len; p.first += KN_SPLIT) {
		p.nr = least(KN_SPLIT, len - p.first);
		if (!needs(p, 0, p.nr))
			continue;
		KN_THREADS(t)
			find_tokens(p, mem, a.kv, slots, t, kn_threads);
		make_scores<dtype>(KN_CTX_ARGS, p, mem);
		make_weights(KN_CTX_ARGS, p, mem);
		KN_THREADS(t)
			for (unsigned i = t; i < p.rows; i += kn_threads)
				merge_piece(run[i], mem.m[i], mem.l[i]);
		make_values<dtype>(KN_CTX_ARGS, p, mem, [&](unsigned d0, unsigned dims) {
			KN_THREADS(t)
				merge_values(p, mem, run, d0, dims, t, kn_threads);
		});
	}
	KN_THREADS(t)
		for (unsigned i = t; i < p.rows * (p.v_dims / KN_VEC); i += kn_threads) {
			const unsigned row = i / (p.v_dims / KN_VEC);
			kn_vec *o = (kn_vec *)(to_of(p, row) + i % (p.v_dims / KN_VEC) * KN_VEC);

			if (is_nothing(run[row].m, run[row].l))
				*o = kn_vec {};
			else
				*o *= merged_scale(run[row], a.kv.v_scale);
		}
}

template <int dtype, unsigned most, unsigned tokens>
KN_FN void prefill(KN_CTX, const struct kn_attend_args &a, struct piece_mem<most, tokens> &mem,
		   struct merged *run)
{
	const struct chunk c = chunk_of(a, kn_block.x);
	const int32_t *slots = a.table.slot + c.seq * a.table.stride;
	struct piece p = piece_of(a, kn_block.y, c.first);
	const uint32_t rows = c.rows * p.heads;

	p.from = c.from;
	p.to_head = a.head_dim;
	p.to_row = (uint64_t)a.q_heads * a.head_dim;
	p.to = a.out + c.first * p.to_row + (uint64_t)kn_block.y * p.heads * a.head_dim;
	for (; p.skip < rows; p.skip += most) {
		p.rows = least(most, rows - p.skip);
		KN_THREADS(t)
			for (unsigned i = t; i < most; i += kn_threads) {
				const uint32_t r = c.first + (p.skip + i) / p.heads;

				mem.view[i] = {};
				if (i < p.rows)
					mem.view[i] = view_of(a.row[r], a.window, a.sinks);
				run[i] = { MINUS_INF, 0, 0, 0, true, true };
			}
		prefill_rows<dtype>(KN_CTX_ARGS, a, p, c.len, slots, mem, run);
	}
}

KN_KERNEL(kn_prefill, struct kn_attend_args)
{
	using mem_type = struct piece_mem<SHARE_ROWS, SHARE_TOKENS>;
	KN_SHARED(mem_type, mem, 1);
	KN_SHARED(struct merged, run, SHARE_ROWS);

	KN_BY_DTYPE(a.kv.dtype, prefill<dtype>(KN_CTX_ARGS, a, mem[0], run));
}
