/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec_lossy_kivi.h - kivi2 for one instruction set: a part of codec_lossy_body.h, and
 * as that one included once by each codec_lossy_*.c.
 *
 * Levels are found by comparing with the three limits of a group (kivi_limit()), which
 * takes no division of each value, and groups' ranges and limits four at a time. A group
 * within a token is a few vectors; of groups within channels, KIVI_TILE are done together,
 * row after row as they lie in memory.
 */
#ifndef KVMD_TIER_CODEC_LOSSY_KIVI_H
#define KVMD_TIER_CODEC_LOSSY_KIVI_H

#include "kvmd/tier/codec_int.h"
#include "kvmd/tier/codec_lossy.h"
#include "kvmd/tier/codec_vec.h"

#if defined(__x86_64__)

#define KIVI_TILE	1024u		/* groups at most, within channels */
#define KIVI_BATCH	16u		/* within tokens */
#define KIVI_ABOVE_ALL	INT16_MAX	/* no value's key is above it */

/* Of groups, as keys: kivi_key(). */
struct kivi_tile {
	int16_t least[KIVI_TILE], most[KIVI_TILE];
	int16_t limit[3][KIVI_TILE];
};

/* Where the values of a tile's group @i are. */
struct kivi_where {
	const uint16_t *v;
	size_t next, step;		/* from group to group, from value to value */
};

V_FN struct vec keys_of(struct vec v)
{
	struct vec sign = v_sar(v, 15);

	return v_sub(v_xor(v_and(v, v_set(BF16_ABS)), sign), sign);
}

V_FN __m256i levels_of(struct vec v, struct vec a, struct vec b, struct vec c)
{
	struct vec key = keys_of(v), n = v_count_above(v_set(0), key, a);

	return v_bytes(v_count_above(v_count_above(n, key, b), key, c));
}

/* -------------------------------------------------------- ranges and limits */

#define LOW_HALVES	0, 2, 4, 6, 0, 2, 4, 6
#define HIGH_HALVES	1, 3, 5, 7, 1, 3, 5, 7

/* Those of four 64-bit numbers, as 32-bit ones. */
#define halves_of(x, which) \
	_mm256_castsi256_si128(_mm256_permutevar8x32_epi32((x), _mm256_setr_epi32(which)))

/* bf16 of keys. */
V_FN __m128i of_keys_4(__m128i key)
{
	return _mm_or_si128(_mm_abs_epi32(key),
			    _mm_and_si128(_mm_srai_epi32(key, 31), _mm_set1_epi32(0x8000)));
}

V_FN __m256d doubles_of_4(__m128i bf16)
{
	return _mm256_cvtps_pd(_mm_castsi128_ps(_mm_slli_epi32(bf16, 16)));
}

/* fp16_up(), of what it has an answer for. */
V_FN __m128i fp16_up_4(__m256d x)
{
	const __m256d below = _mm256_cmp_pd(x, _mm256_set1_pd(0x1p-14), _CMP_LT_OQ);
	__m256d units = _mm256_mul_pd(x, _mm256_set1_pd(0x1p24)), more;
	__m128i n = _mm256_cvttpd_epi32(units), least_ones;
	__m256i u;

	more = _mm256_cmp_pd(_mm256_cvtepi32_pd(n), units, _CMP_LT_OQ);
	least_ones = _mm_sub_epi32(n, halves_of(_mm256_castpd_si256(more), LOW_HALVES));
	u = _mm256_add_epi64(_mm256_castpd_si256(x), _mm256_set1_epi64x((1ll << 42) - 1));
	u = _mm256_sub_epi64(_mm256_srli_epi64(u, 42), _mm256_set1_epi64x((1023 - 15) << 10));
	return _mm_blendv_epi8(halves_of(u, LOW_HALVES), least_ones,
			       halves_of(_mm256_castpd_si256(below), LOW_HALVES));
}

/* fp16_to_float(), and on to a double. */
V_FN __m256d scales_of_4(__m128i h)
{
	__m128 low = _mm_mul_ps(_mm_cvtepi32_ps(h), _mm_set1_ps(0x1p-24f)), all;
	__m128i u = _mm_add_epi32(_mm_slli_epi32(h, 13), _mm_set1_epi32((127 - 15) << 23));

	all = _mm_blendv_ps(_mm_castsi128_ps(u), low,
			    _mm_castsi128_ps(_mm_cmplt_epi32(h, _mm_set1_epi32(0x400))));
	return _mm256_cvtps_pd(all);
}

/* kivi_limit(), to @to. */
V_FN void put_limits_4(__m256d least, __m256d scale, double above, int minus, __m128i none,
		       int16_t *to)
{
	__m256d sum = _mm256_add_pd(least, _mm256_mul_pd(_mm256_set1_pd(above), scale));
	__m256i u = _mm256_castpd_si256(sum), sign = _mm256_cmpgt_epi64(_mm256_setzero_si256(), u);
	__m128i key;

	u = _mm256_and_si256(u, _mm256_set1_epi64x(INT64_MAX));
	u = _mm256_sub_epi64(u, _mm256_set1_epi64x((1023ll - 127) << 52));
	u = _mm256_sub_epi64(_mm256_xor_si256(u, sign), sign);
	u = _mm256_sub_epi64(u, _mm256_set1_epi64x(minus));
	/* The sign is in the high half, and so are all bits that are not shifted out. */
	key = halves_of(_mm256_srai_epi32(u, 45 - 32), HIGH_HALVES);
	key = _mm_blendv_epi8(key, _mm_set1_epi32(KIVI_ABOVE_ALL), none);
	_mm_storel_epi64((void *)to, _mm_packs_epi32(key, key));
}

/* Range and limits of groups @i .. @i + 3; false: one of them has none. */
V_FN bool put_ranges_4(struct kivi_tile *t, unsigned i, uint8_t *to)
{
	__m128i least = _mm_cvtepi16_epi32(_mm_loadl_epi64((const void *)(t->least + i)));
	__m128i most = _mm_cvtepi16_epi32(_mm_loadl_epi64((const void *)(t->most + i)));
	__m128i inf = _mm_set1_epi32(BF16_INF - 1), bad, low = of_keys_4(least), scale, none;
	__m256d from = doubles_of_4(low), x, step;

	bad = _mm_or_si128(_mm_cmpgt_epi32(most, inf),
			   _mm_cmpgt_epi32(_mm_sub_epi32(_mm_setzero_si128(), least), inf));
	x = _mm256_sub_pd(doubles_of_4(of_keys_4(most)), from);
	x = _mm256_div_pd(x, _mm256_set1_pd(3));
	if (unlikely(!_mm_testz_si128(bad, bad) ||
		     _mm256_movemask_pd(_mm256_cmp_pd(x, _mm256_set1_pd(65504), _CMP_NLE_UQ))))
		return false;
	scale = fp16_up_4(x);
	_mm_storeu_si128((void *)to, _mm_or_si128(scale, _mm_slli_epi32(low, 16)));
	none = _mm_cmpeq_epi32(scale, _mm_setzero_si128());
	step = scales_of_4(scale);
	put_limits_4(from, step, 0.5 + 0x1p-25, 0, none, t->limit[0] + i);
	put_limits_4(from, step, 1.5 - 0x1p-24, 1, none, t->limit[1] + i);
	put_limits_4(from, step, 2.5 + 0x1p-23, 0, none, t->limit[2] + i);
	return true;
}

/* Why the first one of four that has no range has none. */
static inline int why_none(const struct kivi_tile *t, unsigned i)
{
	uint16_t scale;
	int err = 0;

	for (; !err; i++)
		err = t->most[i] >= (int)BF16_INF || t->least[i] <= -(int)BF16_INF ? -EDOM :
		      kivi_scale(kivi_of_key(t->least[i]), kivi_of_key(t->most[i]), &scale);
	return err;
}

/*
 * Ranges of a tile's @nr groups to @to, and their limits. What is in the tile beyond @nr,
 * up to a multiple of 4, has a range too. 0, -EDOM, -ERANGE: codec.h.
 */
V_FN int put_ranges(struct kivi_tile *t, const struct kivi_where *w, unsigned nr, uint8_t *to)
{
	uint8_t four[16];
	const uint16_t *v;

	for (unsigned i = 0; i < nr; i += 4) {
		if (!put_ranges_4(t, i, four))
			return why_none(t, i);
		memcpy(to + 4ul * i, four, 4ul * min(4u, nr - i));
	}
	/* Of both zeros the first one is the least. */
	for (unsigned i = 0; i < nr; i++) {
		if (likely(t->least[i]))
			continue;
		for (v = w->v + i * w->next; *v & BF16_ABS;)
			v += w->step;
		put_u16(to + 4ul * i + 2, *v);
	}
	return 0;
}

/* ---------------------------------------------------------- within a token */

/* Key extremes of @nr neighbours. */
V_FN void look_at_group(const uint16_t *v, unsigned nr, int16_t *ret_least, int16_t *ret_most)
{
	struct vec key = keys_of(v_load(v)), least = key, most = key;

	for (unsigned k = LOSSY_AT_ONCE; k < nr; k += LOSSY_AT_ONCE) {
		key = keys_of(v_load(v + k));
		least = v_min(least, key);
		most = v_max(most, key);
	}
	*ret_least = (int16_t)v_least(least);
	*ret_most = (int16_t)v_most(most);
}

/* @nr groups of @group each, KIVI_BATCH or fewer, that lie together. */
V_FN int kivi_encode_batch(const uint16_t *v, unsigned nr, unsigned group, uint8_t *ranges,
			   uint8_t *codes)
{
	struct kivi_where where = { v, group, 1 };
	struct vec a, b, c;
	struct kivi_tile t;
	int err;

	for (unsigned i = 0; i < nr; i++)
		look_at_group(v + (size_t)i * group, group, t.least + i, t.most + i);
	for (unsigned i = nr; i % 4; i++)
		t.least[i] = t.most[i] = 0;
	err = put_ranges(&t, &where, nr, ranges);
	if (err)
		return err;
	for (unsigned i = 0; i < nr; i++) {
		a = v_set(t.limit[0][i]);
		b = v_set(t.limit[1][i]);
		c = v_set(t.limit[2][i]);
		for (unsigned k = 0; k < group; k += LOSSY_AT_ONCE) {
			v_store_2(codes, levels_of(v_load(v), a, b, c));
			v += LOSSY_AT_ONCE;
			codes += LOSSY_AT_ONCE / KIVI_LEVELS;
		}
	}
	return 0;
}

/* Where rows end with a group that is shorter, that one is a batch. */
V_FN int kivi_encode_tokens(const struct codec_shape *s, const uint16_t *src, uint8_t *ranges,
			    uint8_t *codes)
{
	uint64_t left = (uint64_t)s->tokens * s->channels;
	uint32_t at = 0, most = s->channels % s->group ? s->channels : UINT32_MAX, nr, group;
	int err;

	for (size_t values; left; left -= values) {
		group = min(s->group, most - at);
		nr = min((most - at) / group, KIVI_BATCH);
		nr = (uint32_t)min((uint64_t)nr, left / group);
		err = kivi_encode_batch(src, nr, group, ranges, codes);
		if (err)
			return err;
		values = (size_t)nr * group;
		src += values;
		codes += values / KIVI_LEVELS;
		ranges += 4ul * nr;
		/* Without shorter ones, all rows are one. */
		at = most == UINT32_MAX || at + values == most ? 0 : at + (uint32_t)values;
	}
	return 0;
}

V_FN bool kivi_decode_tokens(const struct codec_shape *s, const uint8_t *ranges,
			     const uint8_t *codes, uint16_t *dst)
{
	uint16_t value[8] = { 0 };
	uint32_t rows = s->tokens, nr;
	struct vec table;

	for (uint32_t at = 0; rows; at = at < s->channels ? at : 0, rows -= !at) {
		nr = min(s->group, s->channels - at);
		at += nr;
		if (!kivi_values(ranges, value))
			return false;
		ranges += 4;
		table = v_table(value);
		for (; nr; nr -= LOSSY_AT_ONCE) {
			v_store(dst, v_of_table(table, v_of_bytes(v_load_2(codes))));
			dst += LOSSY_AT_ONCE;
			codes += LOSSY_AT_ONCE / KIVI_LEVELS;
		}
	}
	return true;
}

/* -------------------------------------------------------- within a channel */

/* @nr channels, @rows rows of a grid with @across channels. */
V_FN void look_at_tile(struct kivi_tile *t, const uint16_t *v, unsigned nr, unsigned rows,
		       size_t across)
{
	struct vec key;

	for (unsigned i = 0; i < nr; i += LOSSY_AT_ONCE) {
		key = keys_of(v_load(v + i));
		v_store(t->least + i, key);
		v_store(t->most + i, key);
	}
	for (unsigned r = 1; r < rows; r++) {
		v += across;
		for (unsigned i = 0; i < nr; i += LOSSY_AT_ONCE) {
			key = keys_of(v_load(v + i));
			v_store(t->least + i, v_min(key, v_load(t->least + i)));
			v_store(t->most + i, v_max(key, v_load(t->most + i)));
		}
	}
}

V_FN int kivi_encode_tile(const uint16_t *v, unsigned nr, unsigned rows, size_t across,
			  uint8_t *ranges, uint8_t *codes)
{
	struct kivi_where where = { v, 1, across };
	struct kivi_tile t;
	__m256i levels;
	int err;

	look_at_tile(&t, v, nr, rows, across);
	err = put_ranges(&t, &where, nr, ranges);
	if (err)
		return err;
	for (unsigned r = 0; r < rows; r++) {
		for (unsigned i = 0; i < nr; i += LOSSY_AT_ONCE) {
			levels = levels_of(v_load(v + i), v_load(t.limit[0] + i),
					   v_load(t.limit[1] + i), v_load(t.limit[2] + i));
			v_store_2(codes + i / KIVI_LEVELS, levels);
		}
		v += across;
		codes += across / KIVI_LEVELS;
	}
	return 0;
}

V_FN bool kivi_decode_tile(const uint8_t *ranges, const uint8_t *codes, unsigned nr,
			   unsigned rows, size_t across, uint16_t *dst)
{
	uint16_t value[KIVI_LEVELS][KIVI_TILE], one[KIVI_LEVELS];
	struct vec n, x;

	for (unsigned i = 0; i < nr; i++) {
		if (!kivi_values(ranges + 4ul * i, one))
			return false;
		for (unsigned q = 0; q < KIVI_LEVELS; q++)
			value[q][i] = one[q];
	}
	for (unsigned r = 0; r < rows; r++) {
		for (unsigned i = 0; i < nr; i += LOSSY_AT_ONCE) {
			n = v_of_bytes(v_load_2(codes + i / KIVI_LEVELS));
			x = v_if_above(n, v_set(0), v_load(value[1] + i), v_load(value[0] + i));
			x = v_if_above(n, v_set(1), v_load(value[2] + i), x);
			x = v_if_above(n, v_set(2), v_load(value[3] + i), x);
			v_store(dst + i, x);
		}
		dst += across;
		codes += across / KIVI_LEVELS;
	}
	return true;
}

/* --------------------------------------------------------------- the whole */

V_TARGET static inline int kivi_encode(const struct codec_shape *s, const uint16_t *src,
				       uint8_t *ranges, uint8_t *codes)
{
	uint32_t nr, rows;
	size_t at;
	int err;

	if (s->axis == CODEC_PER_TOKEN)
		return kivi_encode_tokens(s, src, ranges, codes);
	for (uint32_t row = 0; row < s->tokens; row += rows) {
		rows = min(s->group, s->tokens - row);
		for (uint32_t c = 0; c < s->channels; c += nr) {
			nr = min(KIVI_TILE, s->channels - c);
			at = (size_t)row * s->channels + c;
			err = kivi_encode_tile(src + at, nr, rows, s->channels, ranges,
					       codes + at / KIVI_LEVELS);
			if (err)
				return err;
			ranges += 4ul * nr;
		}
	}
	return 0;
}

V_TARGET static inline bool kivi_decode(const struct codec_shape *s, const uint8_t *ranges,
					const uint8_t *codes, uint16_t *dst)
{
	uint32_t nr, rows;
	size_t at;

	if (s->axis == CODEC_PER_TOKEN)
		return kivi_decode_tokens(s, ranges, codes, dst);
	for (uint32_t row = 0; row < s->tokens; row += rows) {
		rows = min(s->group, s->tokens - row);
		for (uint32_t c = 0; c < s->channels; c += nr) {
			nr = min(KIVI_TILE, s->channels - c);
			at = (size_t)row * s->channels + c;
			if (!kivi_decode_tile(ranges, codes + at / KIVI_LEVELS, nr, rows,
					      s->channels, dst + at))
				return false;
			ranges += 4ul * nr;
		}
	}
	return true;
}

#endif
#endif
