/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec_lossy_body.h - fp8, int8, int4 and kivi2 for one instruction set: the inside of
 * codec_lossy_*.c.
 *
 * Each of them includes it, once, after #define LOSSY_VECTOR (codec_vec.h). Where the
 * build is not for x86 they are there and never usable.
 *
 * Values go by LOSSY_AT_ONCE. What there is to know of a group is codec_form.h's, one
 * group at a time; what is done to its values is codec_form.h's arithmetic in as many
 * lanes, or comes to the same, as said there.
 */
#ifndef KVMD_TIER_CODEC_LOSSY_BODY_H
#define KVMD_TIER_CODEC_LOSSY_BODY_H

#include "kvmd/tier/codec_int.h"
#include "kvmd/tier/codec_lossy.h"
#include "kvmd/tier/codec_vec.h"

#if LOSSY_VECTOR == 512
#define LOSSY_IMPL	lossy_impl_avx512
#define LOSSY_NAME	"avx512"
#else
#define LOSSY_IMPL	lossy_impl_avx2
#define LOSSY_NAME	"avx2"
#endif

#if defined(__x86_64__)

/* --------------------------------------------------------------------- fp8 */

/* shift_even() by 4, 5 or 8: where it is inlined @by is a constant. */
V_FN struct vec shift_32_even(struct vec v, unsigned by)
{
	struct vec odd = by == 4 ? v_shr(v, 4) : by == 5 ? v_shr(v, 5) : v_shr(v, 8);

	v = v_add(v, v_add(v_and(odd, v_set(1)), v_set((1 << (by - 1)) - 1)));
	return by == 4 ? v_shr(v, 4) : by == 5 ? v_shr(v, 5) : v_shr(v, 8);
}

V_FN __m256i fp8_of_32(struct codec_fp8 f, struct vec v)
{
	/* 2^(n - 1) at n > 0. */
	static const uint16_t powers[8] = { 0x0100, 0x0402, 0x1008, 0x4020, 0x80 };
	struct vec a = v_and(v, v_set(BF16_ABS)), code, less, by;

	code = shift_32_even(a, 7 - f.bits);
	code = v_sub(code, v_set((int)((127 - f.bias) << f.bits)));
	code = v_min(code, v_set(f.most));
	/*
	 * Below the least normal: not to the right by 8..1, but to the left by 0..7 and
	 * then to the right by 8; what would have to go further becomes 0.
	 */
	by = v_sub_to_0(v_shr(a, 7), v_set((int)(126 - f.bias - f.bits)));
	by = v_look_up(v_table(powers), v_or(by, v_set(0x8000)));
	less = v_mul(v_or(v_and(a, v_set(0x7f)), v_set(0x80)), by);
	less = shift_32_even(less, 8);
	code = v_if_above(a, v_set((int)((128 - f.bias) << 7) - 1), code, less);
	code = v_if_above(a, v_set(BF16_INF), v_set(FP8_NAN), code);
	return v_bytes(v_or(code, v_and(v_shr(v, 8), v_set(0x80))));
}

V_FN void fp8_encode_as(struct codec_fp8 f, const uint16_t *src, size_t nr, uint8_t *to)
{
	size_t i;

	for (i = 0; i + LOSSY_AT_ONCE <= nr; i += LOSSY_AT_ONCE)
		v_store_bytes(to + i, fp8_of_32(f, v_load(src + i)));
	for (; i < nr; i++)
		to[i] = fp8_of(&f, src[i]);
}

V_TARGET static void fp8_encode(const struct codec_fp8 *f, const uint16_t *src, size_t nr,
				uint8_t *to)
{
	if (f->bits == 3)
		fp8_encode_as((struct codec_fp8)FP8_E4M3, src, nr, to);
	else
		fp8_encode_as((struct codec_fp8)FP8_E5M2, src, nr, to);
}

/* @low: what the first 8 codes are. */
V_FN struct vec fp8_to_32(struct codec_fp8 f, struct vec low, __m256i codes)
{
	struct vec w = v_of_bytes(codes), c = v_and(w, v_set(0x7f)), value;

	value = f.bits == 3 ? v_shl(c, 4) : v_shl(c, 5);
	value = v_add(value, v_set((int)((127 - f.bias) << 7)));
	value = v_if_above(c, v_set((1 << f.bits) - 1), value, v_of_table(low, c));
	value = v_if_above(c, v_set(FP8_NAN - 1), v_set(BF16_NAN), value);
	return v_or(value, v_shl(v_sub(w, c), 8));
}

V_FN bool fp8_decode_as(struct codec_fp8 f, const uint8_t *from, size_t nr, uint16_t *dst)
{
	const __m256i most = _mm256_set1_epi8((char)f.most), nan = _mm256_set1_epi8(FP8_NAN);
	__m256i codes, bad = _mm256_setzero_si256(), c;
	bool good = true;
	uint16_t low[8];
	struct vec table;
	size_t i;

	for (unsigned k = 0; k < ARRAY_SIZE(low); k++)
		low[k] = fp8_to(&f, (uint8_t)k);
	table = v_table(low);
	for (i = 0; i + LOSSY_AT_ONCE <= nr; i += LOSSY_AT_ONCE) {
		codes = v_load_bytes(from + i);
		c = _mm256_and_si256(codes, nan);
		c = _mm256_andnot_si256(_mm256_cmpeq_epi8(c, nan), _mm256_cmpgt_epi8(c, most));
		bad = _mm256_or_si256(bad, c);
		v_store(dst + i, fp8_to_32(f, table, codes));
	}
	for (; i < nr; i++) {
		good &= fp8_is_written(&f, from[i]);
		dst[i] = (uint16_t)(fp8_to(&f, from[i] & 0x7f) | (from[i] & 0x80) << 8);
	}
	return good && _mm256_testz_si256(bad, bad);
}

V_TARGET static bool fp8_decode(const struct codec_fp8 *f, const uint8_t *from, size_t nr,
				uint16_t *dst)
{
	if (f->bits == 3)
		return fp8_decode_as((struct codec_fp8)FP8_E4M3, from, nr, dst);
	return fp8_decode_as((struct codec_fp8)FP8_E5M2, from, nr, dst);
}

/* -------------------------------------------------------------- int8, int4 */

V_FN uint16_t absmax_of(const uint16_t *v, unsigned nr)
{
	struct vec a = v_set(0);

	for (unsigned k = 0; k < nr; k += LOSSY_AT_ONCE)
		a = v_max(a, v_and(v_load(v + k), v_set(BF16_ABS)));
	return (uint16_t)v_most(a);
}

V_FN void put_whole(uint8_t *to, __m256i q, unsigned bits)
{
	if (bits == 8)
		v_store_bytes(to, q);
	else
		_mm_storeu_si128((void *)to,
				 v_pack_4(_mm256_and_si256(q, _mm256_set1_epi8(15))));
}

V_FN int whole_encode_as(const struct codec_shape *s, unsigned bits, const uint16_t *src,
			 uint8_t *scales, uint8_t *codes)
{
	uint32_t rows = s->tokens, nr;
	uint16_t stored;
	float scale;
	int err;

	for (uint32_t c = 0; rows; c = c < s->channels ? c : 0, rows -= !c) {
		nr = min(s->group, s->channels - c);
		c += nr;
		err = whole_scale(absmax_of(src, nr), whole_most(bits), &stored);
		if (err)
			return err;
		put_u16(scales, stored);
		scales += 2;
		scale = fp16_to_float(stored);
		for (; nr; nr -= LOSSY_AT_ONCE) {
			if (unlikely(scale == 0))
				put_whole(codes, _mm256_setzero_si256(), bits);
			else
				put_whole(codes, v_bytes(v_divide(v_load(src), scale)), bits);
			src += LOSSY_AT_ONCE;
			codes += LOSSY_AT_ONCE * bits / 8;
		}
	}
	return 0;
}

V_TARGET static int whole_encode(const struct codec_shape *s, unsigned bits, const uint16_t *src,
				 uint8_t *scales, uint8_t *codes)
{
	if (bits == 8)
		return whole_encode_as(s, 8, src, scales, codes);
	return whole_encode_as(s, 4, src, scales, codes);
}

V_FN __m256i get_whole(const uint8_t *from, unsigned bits)
{
	const __m256i eight = _mm256_set1_epi8(8);
	__m256i x;

	if (bits == 8)
		return v_load_bytes(from);
	x = v_unpack_4(_mm_loadu_si128((const void *)from));
	return _mm256_sub_epi8(_mm256_xor_si256(x, eight), eight);
}

V_FN bool whole_decode_as(const struct codec_shape *s, unsigned bits, const uint8_t *scales,
			  const uint8_t *codes, uint16_t *dst)
{
	const __m256i never = _mm256_set1_epi8((char)(-whole_most(bits) - 1));
	__m256i bad = _mm256_setzero_si256(), q;
	uint32_t rows = s->tokens, nr;
	uint16_t stored;
	float scale;

	for (uint32_t c = 0; rows; c = c < s->channels ? c : 0, rows -= !c) {
		nr = min(s->group, s->channels - c);
		c += nr;
		stored = get_u16(scales);
		scales += 2;
		if (!fp16_is_scale(stored))
			return false;
		scale = fp16_to_float(stored);
		for (; nr; nr -= LOSSY_AT_ONCE) {
			q = get_whole(codes, bits);
			bad = _mm256_or_si256(bad, _mm256_cmpeq_epi8(q, never));
			v_store(dst, v_times(v_of_signed(q), scale));
			dst += LOSSY_AT_ONCE;
			codes += LOSSY_AT_ONCE * bits / 8;
		}
	}
	return _mm256_testz_si256(bad, bad);
}

V_TARGET static bool whole_decode(const struct codec_shape *s, unsigned bits,
				  const uint8_t *scales, const uint8_t *codes, uint16_t *dst)
{
	if (bits == 8)
		return whole_decode_as(s, 8, scales, codes, dst);
	return whole_decode_as(s, 4, scales, codes, dst);
}

#include "kvmd/tier/codec_lossy_kivi.h"

/* -------------------------------------------------------------- differences */

V_TARGET static float worst_of(const uint16_t *a, const uint16_t *b, size_t nr)
{
	struct vec x, y, size, none = v_set(0), most = none;
	float worst = 0, lanes[16];
	size_t i;

	BUILD_BUG_ON(sizeof(lanes) != sizeof(most));
	for (i = 0; i + LOSSY_AT_ONCE <= nr; i += LOSSY_AT_ONCE) {
		x = v_load(a + i);
		size = v_and(x, v_set(BF16_ABS));
		y = v_if_above(size, v_set(BF16_INF - 1), none, v_load(b + i));
		x = v_if_above(size, v_set(BF16_INF - 1), none, x);
		most = v_further(most, x, y);
	}
	memcpy(lanes, &most, sizeof(most));
	for (unsigned k = 0; k < ARRAY_SIZE(lanes); k++)
		worst = max(worst, lanes[k]);
	for (; i < nr; i++)
		worst = worse(worst, a[i], b[i]);
	return worst;
}

static bool usable(void)
{
	return V_USABLE;
}

const struct lossy_impl LOSSY_IMPL = {
	.name = LOSSY_NAME,
	.usable = usable,
	.fp8_encode = fp8_encode,
	.fp8_decode = fp8_decode,
	.whole_encode = whole_encode,
	.whole_decode = whole_decode,
	.kivi_encode = kivi_encode,
	.kivi_decode = kivi_decode,
	.worst = worst_of,
};

#else

static bool usable(void)
{
	return false;
}

const struct lossy_impl LOSSY_IMPL = { .name = LOSSY_NAME, .usable = usable };

#endif
#endif
