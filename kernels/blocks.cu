// SPDX-License-Identifier: Apache-2.0
/*
 * blocks.cu - single tokens, whole blocks between layouts, and clearing.
 *
 * Rows are handed to teams of as many threads as a row has pieces of 16 bytes, so that
 * neighbouring threads touch neighbouring memory; on the CPU a team is one thread.
 */
#include "kernels/bytes.h"
#include "kernels/kernels.h"

/* ------------------------------------------------------------------- tokens */

KN_KERNEL(kn_tokens, struct kn_tokens_args)
{
	const struct kn_token_move m = a.move[kn_block.x];
	const uint64_t size = kn_dtype_bytes(a.kv.dtype);
	const bool whole = a.kv.head_stride == a.head_dim;
	const uint32_t heads = whole ? 1 : a.kv_heads;
	const uint64_t row = size * a.head_dim * (whole ? a.kv_heads : 1);
	const uint64_t from = m.from_slot * a.kv.slot_bytes + size * m.from * a.kv.token_stride;
	const uint64_t to = m.to_slot * a.kv.slot_bytes + size * m.to * a.kv.token_stride;
	const unsigned lanes = kn_lanes(row, kn_threads), teams = kn_threads / lanes;
	const uint32_t rows = m.to_slot ? (a.kv.v ? 2 : 1) * heads : 0;

	KN_THREADS(t) {
		for (uint32_t r = t / lanes; r < rows && t / lanes < teams; r += teams) {
			uint8_t *p = (uint8_t *)(r < heads ? a.kv.k : a.kv.v);
			uint64_t at = size * a.kv.head_stride * (r < heads ? r : r - heads);

			kn_copy_bytes(p + to + at, p + from + at, row, t % lanes, lanes);
		}
	}
}

/* ------------------------------------------------------------------ layouts */

KN_FN uint8_t *block_at(const struct kn_layout &l, uint64_t slot, uint32_t layer, uint32_t part)
{
	return (uint8_t *)l.plane[layer * l.layer_planes + part * l.part_planes] +
	       slot * l.slot_bytes + layer * l.layer_bytes + part * l.part_bytes;
}

/* One layer's K or V of one block. @order: the one to go through it by. */
KN_FN void move_block(KN_CTX, const struct kn_gather_args &a, const struct kn_layout &order)
{
	const uint32_t layer = kn_block.y / a.parts, part = kn_block.y % a.parts;
	const int64_t from_slot = a.from_slot ? a.from_slot[kn_block.x] : (int64_t)kn_block.x;
	const int64_t to_slot = a.to_slot ? a.to_slot[kn_block.x] : (int64_t)kn_block.x;
	const uint8_t *from = block_at(a.from, (uint64_t)from_slot, layer, part);
	uint8_t *to = block_at(a.to, (uint64_t)to_slot, layer, part);
	uint32_t heads = a.heads, tokens = a.tokens;
	uint64_t row = a.row_bytes;
	unsigned lanes, teams;

	/* What lies together in both is one row. */
	if (a.from.head_bytes == row && a.to.head_bytes == row) {
		row *= heads;
		heads = 1;
		if (a.from.token_bytes == row && a.to.token_bytes == row) {
			row *= tokens;
			tokens = 1;
		}
	} else if (a.from.token_bytes == row && a.to.token_bytes == row) {
		row *= tokens;
		tokens = 1;
	}
	if (a.to_slot && !to_slot)
		tokens = 0;
	lanes = kn_lanes(row, kn_threads);
	teams = kn_threads / lanes;
	KN_THREADS(t) {
		for (uint32_t r = t / lanes; r < tokens * heads && t / lanes < teams; r += teams) {
			bool by_head = order.head_bytes > order.token_bytes;
			uint32_t token = by_head ? r % tokens : r / heads;
			uint32_t head = by_head ? r / tokens : r % heads;

			kn_copy_bytes(to + token * a.to.token_bytes + head * a.to.head_bytes,
				      from + token * a.from.token_bytes + head * a.from.head_bytes,
				      row, t % lanes, lanes);
		}
	}
}

KN_KERNEL(kn_gather, struct kn_gather_args)
{
	move_block(KN_CTX_ARGS, a, a.to);
}

KN_KERNEL(kn_scatter, struct kn_gather_args)
{
	move_block(KN_CTX_ARGS, a, a.from);
}

/* -------------------------------------------------------------------- scrub */

/* Bytes of @v that are not zero. */
KN_FN uint32_t bytes_set(uint32_t v)
{
	uint32_t m = (((v & 0x7f7f7f7fu) + 0x7f7f7f7fu) | v) & 0x80808080u;

	return ((m >> 7) * 0x01010101u) >> 24;
}

KN_FN uint8_t pattern_byte(uint32_t pattern, uint64_t at)
{
	return (uint8_t)(pattern >> at % 4 * 8);
}

/* Wide pieces of a slot, and the bytes behind them: all of them where it lies askew. */
KN_FN uint64_t nr_wide(const void *p, uint64_t bytes)
{
	return (uintptr_t)p % 16 ? 0 : bytes / 16;
}

KN_KERNEL(kn_scrub, struct kn_scrub_args)
{
	const uint64_t slot = a.slot ? (uint64_t)a.slot[kn_block.x] : kn_block.x;
	uint8_t *p = (uint8_t *)a.plane + slot * a.slot_bytes;
	const uint64_t nr = nr_wide(p, a.bytes), all = (uint64_t)kn_grid.y * kn_threads;
	const struct kn_wide v = { { a.pattern, a.pattern, a.pattern, a.pattern } };

	KN_THREADS(t) {
		const uint64_t i0 = (uint64_t)kn_block.y * kn_threads + t;

		for (uint64_t i = i0; i < nr; i += all)
			kn_write<16, 16>(p + 16 * i, &v);
		for (uint64_t i = 16 * nr + i0; i < a.bytes; i += all)
			p[i] = pattern_byte(a.pattern, i);
	}
}

KN_KERNEL(kn_scrub_check, struct kn_scrub_check_args)
{
	KN_SHARED(uint32_t, sum, 1);
	const uint64_t slot = a.slot ? (uint64_t)a.slot[kn_block.x] : kn_block.x;
	const uint8_t *p = (const uint8_t *)a.plane + slot * a.slot_bytes;
	const uint64_t nr = nr_wide(p, a.bytes), all = (uint64_t)kn_grid.y * kn_threads;

	KN_THREADS(t)
		if (t == 0)
			sum[0] = 0;
	KN_THREADS(t) {
		const uint64_t i0 = (uint64_t)kn_block.y * kn_threads + t;
		struct kn_wide v;
		uint32_t n = 0;

		for (uint64_t i = i0; i < nr; i += all) {
			kn_read<16, 16>(&v, p + 16 * i);
			for (unsigned k = 0; k < 4; k++)
				n += bytes_set(v.w[k] ^ a.pattern);
		}
		for (uint64_t i = 16 * nr + i0; i < a.bytes; i += all)
			n += p[i] != pattern_byte(a.pattern, i);
		if (n)
			kn_atomic_add(&sum[0], n);
	}
	KN_THREADS(t)
		if (t == 0 && sum[0])
			kn_atomic_add(&a.differ[kn_block.x], sum[0]);
}
