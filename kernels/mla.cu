// SPDX-License-Identifier: Apache-2.0
/*
 * mla.cu - attention over latents: what a token's key and value have in common is read
 * once for KN_MLA_HEADS heads. How a piece is computed: attend_piece.h.
 *
 * Source: DeepSeek-V2 (arXiv:2405.04434), 2.1, with the projections absorbed.
 */
#include "kernels/attend_piece.h"

#define MLA_TOKENS	(KN_RAW_TILES ? 64u : 128u)

template <int dtype>
KN_FN void latent(KN_CTX, const struct kn_mla_args &a,
		  struct piece_mem<KN_MLA_HEADS, MLA_TOKENS> &mem)
{
	const uint32_t r = kn_block.x, head = kn_block.y * KN_MLA_HEADS, number = kn_block.z;
	const struct kn_row row = a.row[r];
	const struct view view = view_of(row, a.window, a.sinks);
	const uint64_t floats = part_floats(a.kv_dim);
	const int32_t *slots = a.table.slot + (row.len ? row.seq : 0) * a.table.stride;
	struct piece p = {};

	p.k = p.v = (const char *)a.kv.k;
	p.k_dims = a.kv_dim + a.rope_dim;
	p.v_dims = a.kv_dim;
	p.is_k_wide = is_wide(a.kv, p.k, p.k_dims);
	p.is_v_wide = is_wide(a.kv, p.v, p.v_dims);
	p.first = number * KN_SPLIT;
	p.nr = p.first < row.len ? least(KN_SPLIT, row.len - p.first) : 0;
	p.from = view.from;
	p.sinks = a.sinks;
	p.dtype = a.kv.dtype;
	p.q = a.q + ((uint64_t)r * a.q_heads + head) * p.k_dims;
	p.heads = KN_MLA_HEADS;
	p.rows = least(KN_MLA_HEADS, a.q_heads - head);
	p.scale = a.scale * a.kv.k_scale;
	p.to = a.part + (((uint64_t)r * a.q_heads + head) * a.pieces + number) * floats;
	p.to_head = a.pieces * floats;
	const bool is_any = p.nr && sees_any(view, p.first, p.first + p.nr);

	KN_THREADS(t) {
		for (unsigned i = t; i < KN_MLA_HEADS; i += kn_threads)
			mem.view[i] = view;
		if (is_any)
			find_tokens(p, mem, a.kv, slots, t, kn_threads);
	}
	piece_to_part<dtype>(KN_CTX_ARGS, p, mem, is_any);
}

KN_KERNEL(kn_mla, struct kn_mla_args)
{
	using mem_type = struct piece_mem<KN_MLA_HEADS, MLA_TOKENS>;
	KN_SHARED(mem_type, mem, 1);

	KN_BY_DTYPE(a.kv.dtype, latent<dtype>(KN_CTX_ARGS, a, mem[0]));
}

KN_KERNEL(kn_mla_merge, struct kn_mla_args)
{
	const uint64_t nr = (uint64_t)kn_block.x * a.q_heads + kn_block.y;

	merge_out(KN_CTX_ARGS, a.out + nr * a.kv_dim,
		  a.part + nr * a.pieces * part_floats(a.kv_dim), a.kv_dim, a.pieces,
		  a.kv.k_scale);
}
