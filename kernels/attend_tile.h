/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attend_tile.h - some tokens of K or V in shared memory, and the two products that
 * attention makes with them. Part of attend_piece.h.
 *
 * A product is made in items of ITEM_ROWS rows by one token or one dimension (CPU: by
 * KN_VEC neighbouring ones). A sum takes one product after the other, in the order of
 * dimensions (scores) or of tokens (values), and waits in memory between two tiles: it
 * depends neither on the tile's size nor on who computes it. A token that is not there
 * lies in a tile as zeroes.
 *
 * Two forms. On a GPU a tile has the stored bytes, converted as they are used: a row of
 * 256 bytes per token, of K with its 16-byte chunks swapped about by the token's number,
 * so that neighbouring tokens' lie in different banks. On the CPU it is fp32, K
 * transposed. KN_RAW_TILES=1 gives the CPU the first form, to test it there.
 */
#ifndef KVMD_KERNELS_ATTEND_TILE_H
#define KVMD_KERNELS_ATTEND_TILE_H

#include "kernels/bytes.h"
#include "kernels/kernels.h"

#ifndef KN_RAW_TILES
#define KN_RAW_TILES	KN_ON_GPU
#endif

#if KN_ON_GPU
#define KN_UNROLL	_Pragma("unroll")
#else
#define KN_UNROLL
#endif

#define TILE_DIMS	128u		/* of a token, at most */
#define ITEM_ROWS	4u
#define ITEM_COLS	(KN_RAW_TILES ? 1u : KN_VEC)
#define SCORE_ROW	(KN_SPLIT + 16)	/* floats between two rows of scores */
#define ABSENT		UINT64_MAX

/* What a row of attention sees: tokens below len that are below sinks or not below from. */
struct view {
	uint32_t len, from, sinks;
};

KN_FN bool is_seen(const struct view &v, uint32_t token)
{
	return (token < v.len) & ((token < v.sinks) | (token >= v.from));
}

/* Every one of tokens first .. end - 1. */
KN_FN bool sees_all(const struct view &v, uint32_t first, uint32_t end)
{
	return end <= v.len && (first >= v.from || end <= v.sinks || v.sinks >= v.from);
}

KN_FN bool sees_any(const struct view &v, uint32_t first, uint32_t end)
{
	return first < v.len && (first < v.sinks || end > v.from);
}

/* a * b + c: one rounding on a GPU, two on the CPU; never the compiler's choice. */
KN_FN float mul_add(float a, float b, float c)
{
#if KN_ON_GPU
	return __fmaf_rn(a, b, c);
#else
	return a * b + c;
#endif
}

/*
 * One tile: tokens at base + off[0 .. nr - 1], dims values of each, which are whole
 * 16-byte chunks at such addresses if is_wide.
 */
struct tile_of {
	const char *base;
	const uint64_t *off;
	unsigned nr, dims;
	uint32_t dtype;
	bool is_wide;
};

/*
 * @call with what is stored as a constant, in @dtype; where tiles are converted as they
 * are loaded there is but one form of it.
 */
#if KN_RAW_TILES
#define KN_BY_DTYPE(stored, call) do { \
	switch (stored) { \
	case KN_BF16: { \
		constexpr int dtype = KN_BF16; \
		call; \
		break; \
	} \
	case KN_F16: { \
		constexpr int dtype = KN_F16; \
		call; \
		break; \
	} \
	case KN_E4M3: { \
		constexpr int dtype = KN_E4M3; \
		call; \
		break; \
	} \
	case KN_E5M2: { \
		constexpr int dtype = KN_E5M2; \
		call; \
		break; \
	} \
	} \
} while (0)
#else
#define KN_BY_DTYPE(stored, call) do { \
	constexpr int dtype = KN_F32; \
	call; \
} while (0)
#endif

#if KN_RAW_TILES

#define TILE_CHUNKS	(TILE_DIMS * 2 / 16)	/* of a token */
#define LOADS		8u			/* of a thread, before it waits for them */

template <unsigned tokens> struct tile {
	struct kn_wide chunk[tokens * TILE_CHUNKS];
};

template <int dtype> struct in_chunk {
	static constexpr unsigned bytes = dtype == KN_BF16 || dtype == KN_F16 ? 2 : 1;
	static constexpr unsigned nr = 16 / bytes;
};

KN_FN unsigned chunk_at(bool is_k, unsigned token, unsigned c)
{
	return token * TILE_CHUNKS + (is_k ? c ^ (token & 7) : c);
}

KN_FN struct kn_wide wide_at(const char *p)
{
	struct kn_wide w;

#if KN_ON_GPU
	const uint4 v = __ldg((const uint4 *)p);

	w.w[0] = v.x;
	w.w[1] = v.y;
	w.w[2] = v.z;
	w.w[3] = v.w;
#else
	kn_read<16, 16>(&w, p);
#endif
	return w;
}

/* Chunk of any alignment, @bytes of it there. */
KN_FN struct kn_wide narrow_at(const char *p, unsigned bytes)
{
	struct kn_wide w = {};

	for (unsigned i = 0; i < 4; i++)
		for (unsigned b = 0; b < 4; b++)
			if (4 * i + b < bytes)
				w.w[i] |= (uint32_t)(uint8_t)p[4 * i + b] << 8 * b;
	return w;
}

/* Thread @t's part of a tile of K (is_k) or V. */
template <int dtype, bool is_k, unsigned tokens>
KN_FN void load_tile(struct tile<tokens> &to, const struct tile_of &of, unsigned t,
		     unsigned threads)
{
	const unsigned bytes = of.dims * in_chunk<dtype>::bytes, chunks = (bytes + 15) / 16;
	unsigned shift = 0;

	while (1u << shift < chunks)
		shift++;
	const unsigned nr = of.nr << shift, mask = (1u << shift) - 1;

	if (!of.is_wide) {
		for (unsigned i = t; i < nr; i += threads) {
			const unsigned token = i >> shift, c = i & mask;

			if (c >= chunks)
				continue;
			to.chunk[chunk_at(is_k, token, c)] = of.off[token] == ABSENT ? kn_wide() :
				narrow_at(of.base + of.off[token] + 16 * c, bytes - 16 * c);
		}
		return;
	}
	/* No branch between the loads: what is not there is read from the zero block. */
	for (unsigned first = t; first < nr; first += LOADS * threads) {
		struct kn_wide w[LOADS];
		bool is_there[LOADS];

		KN_UNROLL
		for (unsigned u = 0; u < LOADS; u++) {
			const unsigned i = first + u * threads;
			const uint64_t off = of.off[i < nr ? i >> shift : 0];

			is_there[u] = off != ABSENT;
			w[u] = wide_at(of.base + (is_there[u] ? off : 0) +
				       16 * ((i & mask) < chunks ? i & mask : 0));
		}
		KN_UNROLL
		for (unsigned u = 0; u < LOADS; u++) {
			const unsigned i = first + u * threads;

			if (i < nr && (i & mask) < chunks)
				to.chunk[chunk_at(is_k, i >> shift, i & mask)] =
					is_there[u] ? w[u] : kn_wide();
		}
	}
}

KN_FN float f16_of(uint32_t bits)
{
#if KN_ON_GPU
	float v;

	asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"((uint16_t)bits));
	return v;
#else
	return kn_from_f16((uint16_t)bits);
#endif
}

KN_FN float e4m3_of(uint32_t bits)
{
#if KN_ON_GPU
#if __CUDA_ARCH__ >= 890
	uint32_t two;

	asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(two) : "h"((uint16_t)bits));
	return f16_of(two);
#endif
#endif
	/* As a float its exponent is 120 too small, also where it is 0. */
	const float v = kn_float((bits & 0x80u) << 24 | (bits & 0x7fu) << 20) * 0x1p120f;

	return (bits & 0x7fu) == 0x7fu ? __builtin_nanf("") : v;
}

/* What is stored in the low bits of @bits. */
template <int dtype> KN_FN float from_stored(uint32_t bits)
{
	return dtype == KN_BF16 ? kn_float(bits << 16) : dtype == KN_F16 ? f16_of(bits) :
	       dtype == KN_E4M3 ? e4m3_of(bits) : f16_of(bits << 8 & 0xff00u);
}

/* Value @i of what is in @w, where i is known to the compiler. */
template <int dtype> KN_FN float value_of(const struct kn_wide &w, unsigned i)
{
	constexpr unsigned per_word = in_chunk<dtype>::nr / 4;

	if (dtype == KN_BF16 && i % 2)
		return kn_float(w.w[i / 2] & 0xffff0000u);
	return from_stored<dtype>(w.w[i / per_word] >> i % per_word * (32 / per_word));
}

/* Four neighbouring floats at a multiple of 16 bytes. */
struct alignas(16) four {
	float f[4];
};

KN_FN struct four four_at(const float *p)
{
	struct four v;

	memcpy(&v, __builtin_assume_aligned(p, 16), sizeof(v));
	return v;
}

/* Adds x . k to the scores @s of ITEM_ROWS rows and token @token of the tile. */
template <int dtype, unsigned tokens>
KN_FN void add_scores(float *s, const float *x, const struct tile<tokens> &k, unsigned token,
		      unsigned dims, bool is_first)
{
	constexpr unsigned nr = in_chunk<dtype>::nr;
	const unsigned chunks = (dims + nr - 1) / nr;
	float sum[ITEM_ROWS];

	for (unsigned r = 0; r < ITEM_ROWS; r++)
		sum[r] = is_first ? 0 : s[r * SCORE_ROW + token];
	for (unsigned c = 0; c < chunks; c++) {
		const struct kn_wide w = k.chunk[chunk_at(true, token, c)];

		KN_UNROLL
		for (unsigned i = 0; i < nr; i += 4)
			KN_UNROLL
			for (unsigned r = 0; r < ITEM_ROWS; r++) {
				const struct four q = four_at(x + r * TILE_DIMS + c * nr + i);

				KN_UNROLL
				for (unsigned u = 0; u < 4; u++)
					sum[r] = mul_add(q.f[u], value_of<dtype>(w, i + u), sum[r]);
			}
	}
	for (unsigned r = 0; r < ITEM_ROWS; r++)
		s[r * SCORE_ROW + token] = sum[r];
}

template <int dtype, unsigned tokens>
KN_FN float value_at(const struct tile<tokens> &v, unsigned token, unsigned dim)
{
	const uint8_t *row = (const uint8_t *)(v.chunk + token * TILE_CHUNKS);
	uint16_t two;

	if (in_chunk<dtype>::bytes == 1)
		return from_stored<dtype>(row[dim]);
	memcpy(&two, __builtin_assume_aligned(row + 2 * dim, 2), 2);
	return from_stored<dtype>(two);
}

/*
 * Adds p . v of @nr tokens to dimension @dim of ITEM_ROWS rows of @o. Where not all rows
 * see all tokens, from token @first on, @view (of each row) says which.
 */
template <int dtype, unsigned tokens>
KN_FN void add_values(float *o, const float *p, const struct tile<tokens> &v, unsigned dim,
		      unsigned nr, bool is_first, const struct view *view, uint32_t first)
{
	float sum[ITEM_ROWS];

	for (unsigned r = 0; r < ITEM_ROWS; r++)
		sum[r] = is_first ? 0 : o[r * TILE_DIMS + dim];
	if (view) {
		for (unsigned j = 0; j < nr; j++) {
			const float b = value_at<dtype>(v, j, dim);

			for (unsigned r = 0; r < ITEM_ROWS; r++)
				if (is_seen(view[r], first + j))
					sum[r] = mul_add(p[r * SCORE_ROW + j], b, sum[r]);
		}
	} else {
		for (unsigned j = 0; j < nr; j += 4) {
			float b[4];

			KN_UNROLL
			for (unsigned u = 0; u < 4; u++)
				b[u] = value_at<dtype>(v, j + u, dim);
			KN_UNROLL
			for (unsigned r = 0; r < ITEM_ROWS; r++) {
				const struct four w = four_at(p + r * SCORE_ROW + j);

				KN_UNROLL
				for (unsigned u = 0; u < 4; u++)
					sum[r] = mul_add(w.f[u], b[u], sum[r]);
			}
		}
	}
	for (unsigned r = 0; r < ITEM_ROWS; r++)
		o[r * TILE_DIMS + dim] = sum[r];
}

#else

template <unsigned tokens> struct tile {
	float f[tokens * TILE_DIMS];
};

template <int stored> KN_FN void convert(float *to, const char *p, unsigned dims)
{
	for (unsigned d = 0; d < dims; d++)
		to[d] = kn_load(p, d, stored);
}

KN_FN void row_at(float *to, const struct tile_of &of, unsigned token)
{
	const uint64_t off = of.off[token];
	const char *p = of.base + (off == ABSENT ? 0 : off);

	if (off == ABSENT)
		memset(to, 0, of.dims * sizeof(*to));
	else if (of.dtype == KN_BF16)
		convert<KN_BF16>(to, p, of.dims);
	else if (of.dtype == KN_F16)
		convert<KN_F16>(to, p, of.dims);
	else if (of.dtype == KN_E4M3)
		convert<KN_E4M3>(to, p, of.dims);
	else
		convert<KN_E5M2>(to, p, of.dims);
}

template <int dtype, bool is_k, unsigned tokens>
KN_FN void load_tile(struct tile<tokens> &to, const struct tile_of &of, unsigned t,
		     unsigned threads)
{
	float row[KN_VEC][TILE_DIMS];

	if (!is_k) {
		for (unsigned token = t; token < of.nr; token += threads)
			row_at(to.f + token * TILE_DIMS, of, token);
		return;
	}
	for (unsigned token = t * KN_VEC; token < of.nr; token += threads * KN_VEC) {
		for (unsigned i = 0; i < KN_VEC; i++)
			row_at(row[i], of, token + i);
		for (unsigned d = 0; d < of.dims; d++)
			for (unsigned i = 0; i < KN_VEC; i++)
				to.f[d * tokens + token + i] = row[i][d];
	}
}

/* What registers of any x86-64 and ARM take; ITEM_COLS are two. */
typedef float vec4 __attribute__((vector_size(16), aligned(4), may_alias));

struct item {
	vec4 r0[2], r1[2], r2[2], r3[2];
};

KN_FN void get_item(struct item &i, const float *p, unsigned row)
{
	for (unsigned u = 0; u < 2; u++) {
		i.r0[u] = *(const vec4 *)(p + 4 * u);
		i.r1[u] = *(const vec4 *)(p + row + 4 * u);
		i.r2[u] = *(const vec4 *)(p + 2 * row + 4 * u);
		i.r3[u] = *(const vec4 *)(p + 3 * row + 4 * u);
	}
}

KN_FN void put_item(const struct item &i, float *p, unsigned row)
{
	for (unsigned u = 0; u < 2; u++) {
		*(vec4 *)(p + 4 * u) = i.r0[u];
		*(vec4 *)(p + row + 4 * u) = i.r1[u];
		*(vec4 *)(p + 2 * row + 4 * u) = i.r2[u];
		*(vec4 *)(p + 3 * row + 4 * u) = i.r3[u];
	}
}

/* Adds x[n] * b[n] of each row for n < nr: rows of x are x_row apart, those of b b_row. */
KN_FN void add_products(struct item &i, const float *x, unsigned x_row, const float *b,
			unsigned b_row, unsigned nr)
{
	for (unsigned n = 0; n < nr; n++, b += b_row)
		for (unsigned u = 0; u < 2; u++) {
			const vec4 v = *(const vec4 *)(b + 4 * u);

			i.r0[u] += x[n] * v;
			i.r1[u] += x[x_row + n] * v;
			i.r2[u] += x[2 * x_row + n] * v;
			i.r3[u] += x[3 * x_row + n] * v;
		}
}

template <int dtype, unsigned tokens>
KN_FN void add_scores(float *s, const float *x, const struct tile<tokens> &k, unsigned token,
		      unsigned dims, bool is_first)
{
	struct item i = {};

	if (!is_first)
		get_item(i, s + token, SCORE_ROW);
	add_products(i, x, TILE_DIMS, k.f + token, tokens, dims);
	put_item(i, s + token, SCORE_ROW);
}

template <int dtype, unsigned tokens>
KN_FN void add_values(float *o, const float *p, const struct tile<tokens> &v, unsigned dim,
		      unsigned nr, bool is_first, const struct view *view, uint32_t first)
{
	struct item i = {};

	if (!is_first)
		get_item(i, o + dim, TILE_DIMS);
	if (!view)
		add_products(i, p, SCORE_ROW, v.f + dim, TILE_DIMS, nr);
	for (unsigned j = 0; view && j < nr; j++)
		for (unsigned u = 0; u < 2; u++) {
			const vec4 b = *(const vec4 *)(v.f + j * TILE_DIMS + dim + 4 * u);

			if (is_seen(view[0], first + j))
				i.r0[u] += p[j] * b;
			if (is_seen(view[1], first + j))
				i.r1[u] += p[SCORE_ROW + j] * b;
			if (is_seen(view[2], first + j))
				i.r2[u] += p[2 * SCORE_ROW + j] * b;
			if (is_seen(view[3], first + j))
				i.r3[u] += p[3 * SCORE_ROW + j] * b;
		}
	put_item(i, o + dim, TILE_DIMS);
}

#endif
#endif
