/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec_vec.h - 32 values at once, for an instruction set that the includer says: one
 * vocabulary, so that what is made of it (codec_lossy_body.h) is the same text for all.
 *
 * LOSSY_VECTOR: 512 or 256 (bits; an x86 that has AVX-512F and BW, AVX2). Numbers in a
 * struct vec are words of 16 bits, with a sign where a name does not say otherwise; 32
 * bytes are an __m256i. Everything here is inlined. Any thread.
 */
#ifndef KVMD_TIER_CODEC_VEC_H
#define KVMD_TIER_CODEC_VEC_H

#ifndef LOSSY_VECTOR
#define LOSSY_VECTOR	256
#endif

#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>

#if LOSSY_VECTOR == 512
#define V_TARGET	__attribute__((target("avx512f,avx512bw")))
#define V_USABLE	(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw"))
#define V(op)		_mm512_##op
#define V_SI(op)	_mm512_##op##_si512
#define V_TO_PS		_mm512_castsi512_ps
#define V_OF_PS		_mm512_castps_si512
#define V_BOTH(p, q)	((struct vec){ p })
#define V_INT		__m512i
#define V_FLOAT		__m512
struct vec {
	__m512i a;
};
#else
#define V_TARGET	__attribute__((target("avx2")))
#define V_USABLE	__builtin_cpu_supports("avx2")
#define V(op)		_mm256_##op
#define V_SI(op)	_mm256_##op##_si256
#define V_TO_PS		_mm256_castsi256_ps
#define V_OF_PS		_mm256_castps_si256
#define V_BOTH(p, q)	((struct vec){ p, q })
#define V_INT		__m256i
#define V_FLOAT		__m256
struct vec {
	__m256i a, b;		/* 16 each, in order */
};
#endif

#define V_FN		V_TARGET __attribute__((always_inline)) static inline

/* --------------------------------------------------------------- one by one */

#define V_BINARY(name, op) \
V_FN struct vec name(struct vec x, struct vec y) \
{ \
	return V_BOTH(op(x.a, y.a), op(x.b, y.b)); \
}

V_BINARY(v_and, V_SI(and))
V_BINARY(v_or, V_SI(or))
V_BINARY(v_xor, V_SI(xor))
V_BINARY(v_add, V(add_epi16))
V_BINARY(v_sub, V(sub_epi16))
V_BINARY(v_sub_to_0, V(subs_epu16))	/* without signs: what is below 0 is 0 */
V_BINARY(v_mul, V(mullo_epi16))
V_BINARY(v_min, V(min_epi16))
V_BINARY(v_max, V(max_epi16))
/* Bytes of v_table() @x: in each byte of @y the number of one, or 0x80: 0. */
V_BINARY(v_look_up, V(shuffle_epi8))

#define v_shl(x, by)	V_BOTH(V(slli_epi16)((x).a, by), V(slli_epi16)((x).b, by))
#define v_shr(x, by)	V_BOTH(V(srli_epi16)((x).a, by), V(srli_epi16)((x).b, by))
#define v_sar(x, by)	V_BOTH(V(srai_epi16)((x).a, by), V(srai_epi16)((x).b, by))

V_FN struct vec v_set(int x)
{
	return V_BOTH(V(set1_epi16)((short)x), V(set1_epi16)((short)x));
}

V_FN struct vec v_load(const void *p)
{
	return V_BOTH(V_SI(loadu)(p), V_SI(loadu)((const void *)((const uint16_t *)p + 16)));
}

V_FN void v_store(void *p, struct vec x)
{
#if LOSSY_VECTOR == 512
	_mm512_storeu_si512(p, x.a);
#else
	_mm256_storeu_si256(p, x.a);
	_mm256_storeu_si256((void *)((uint16_t *)p + 16), x.b);
#endif
}

/* Eight numbers, for v_look_up(). */
V_FN struct vec v_table(const uint16_t *t)
{
	__m128i x = _mm_loadu_si128((const void *)t);

#if LOSSY_VECTOR == 512
	return V_BOTH(_mm512_broadcast_i32x4(x), );
#else
	return V_BOTH(_mm256_broadcastsi128_si256(x), _mm256_broadcastsi128_si256(x));
#endif
}

/* Number x[] = 0..7 of a table, each. */
V_FN struct vec v_of_table(struct vec table, struct vec x)
{
	return v_look_up(table, v_add(v_mul(x, v_set(0x0202)), v_set(0x0100)));
}

/* Where x > y, @p, else @q. */
V_FN struct vec v_if_above(struct vec x, struct vec y, struct vec p, struct vec q)
{
#if LOSSY_VECTOR == 512
	return V_BOTH(_mm512_mask_blend_epi16(_mm512_cmpgt_epi16_mask(x.a, y.a), q.a, p.a), );
#else
	return V_BOTH(_mm256_blendv_epi8(q.a, p.a, _mm256_cmpgt_epi16(x.a, y.a)),
		      _mm256_blendv_epi8(q.b, p.b, _mm256_cmpgt_epi16(x.b, y.b)));
#endif
}

/* One more where x > y. */
V_FN struct vec v_count_above(struct vec n, struct vec x, struct vec y)
{
#if LOSSY_VECTOR == 512
	return V_BOTH(_mm512_mask_add_epi16(n.a, _mm512_cmpgt_epi16_mask(x.a, y.a), n.a,
					    _mm512_set1_epi16(1)), );
#else
	return V_BOTH(_mm256_sub_epi16(n.a, _mm256_cmpgt_epi16(x.a, y.a)),
		      _mm256_sub_epi16(n.b, _mm256_cmpgt_epi16(x.b, y.b)));
#endif
}

/* ---------------------------------------------------------------------- all */

/* The least of 8. */
V_FN int v_least_of_8(__m128i x)
{
	const __m128i sign = _mm_set1_epi16((short)0x8000);

	return (int16_t)(_mm_extract_epi16(_mm_minpos_epu16(_mm_xor_si128(x, sign)), 0) ^ 0x8000);
}

V_FN int v_least(struct vec x)
{
#if LOSSY_VECTOR == 512
	__m256i y = _mm256_min_epi16(_mm512_castsi512_si256(x.a),
				     _mm512_extracti64x4_epi64(x.a, 1));
#else
	__m256i y = _mm256_min_epi16(x.a, x.b);
#endif
	return v_least_of_8(_mm_min_epi16(_mm256_castsi256_si128(y),
					  _mm256_extracti128_si256(y, 1)));
}

V_FN int v_most(struct vec x)
{
	return ~v_least(v_xor(x, v_set(-1)));
}

/* -------------------------------------------------------------------- bytes */

V_FN __m256i v_load_bytes(const uint8_t *p)
{
	return _mm256_loadu_si256((const void *)p);
}

V_FN void v_store_bytes(uint8_t *p, __m256i x)
{
	_mm256_storeu_si256((void *)p, x);
}

V_FN struct vec v_of_bytes(__m256i x)	/* 0..255 */
{
#if LOSSY_VECTOR == 512
	return V_BOTH(_mm512_cvtepu8_epi16(x), );
#else
	return V_BOTH(_mm256_cvtepu8_epi16(_mm256_castsi256_si128(x)),
		      _mm256_cvtepu8_epi16(_mm256_extracti128_si256(x, 1)));
#endif
}

V_FN struct vec v_of_signed(__m256i x)	/* -128..127 */
{
#if LOSSY_VECTOR == 512
	return V_BOTH(_mm512_cvtepi8_epi16(x), );
#else
	return V_BOTH(_mm256_cvtepi8_epi16(_mm256_castsi256_si128(x)),
		      _mm256_cvtepi8_epi16(_mm256_extracti128_si256(x, 1)));
#endif
}

/* The low byte of each. */
V_FN __m256i v_bytes(struct vec x)
{
#if LOSSY_VECTOR == 512
	return _mm512_cvtepi16_epi8(x.a);
#else
	const __m256i low = _mm256_set1_epi16(0xff);

	/* A pack puts 8 of each into a lane. */
	return _mm256_permute4x64_epi64(_mm256_packus_epi16(_mm256_and_si256(x.a, low),
							    _mm256_and_si256(x.b, low)), 0xd8);
#endif
}

/* 32 numbers of 4 bits to 16 bytes, the first one low; of each byte the rest is 0. */
V_FN __m128i v_pack_4(__m256i x)
{
	x = _mm256_or_si256(x, _mm256_srli_epi16(x, 4));
	x = _mm256_and_si256(x, _mm256_set1_epi16(0xff));
	x = _mm256_permute4x64_epi64(_mm256_packus_epi16(x, x), 0x08);
	return _mm256_castsi256_si128(x);
}

V_FN __m256i v_unpack_4(__m128i p)
{
	__m256i x = _mm256_cvtepu8_epi16(p);

	return _mm256_and_si256(_mm256_or_si256(x, _mm256_slli_epi16(x, 4)),
				_mm256_set1_epi8(15));
}

/* 32 numbers of 2 bits to 8 bytes, the first one lowest. */
V_FN void v_store_2(uint8_t *p, __m256i x)
{
	const __m256i first = _mm256_setr_epi32(0, 4, 0, 4, 0, 4, 0, 4);
	const __m256i of_each = _mm256_set1_epi32(0x0c080400);

	/* 4 bits in each word, 8 in each double word. */
	x = _mm256_or_si256(x, _mm256_srli_epi16(x, 6));
	x = _mm256_and_si256(x, _mm256_set1_epi16(15));
	x = _mm256_or_si256(x, _mm256_srli_epi32(x, 12));
	x = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(x, of_each), first);
	_mm_storel_epi64((void *)p, _mm256_castsi256_si128(x));
}

V_FN __m256i v_load_2(const uint8_t *p)
{
	__m256i x = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p));

	x = _mm256_or_si256(x, _mm256_slli_epi32(x, 12));
	x = _mm256_or_si256(x, _mm256_slli_epi16(x, 6));
	return _mm256_and_si256(x, _mm256_set1_epi8(3));
}

/* ------------------------------------------------------------------- floats */

/*
 * A word below 16 zeros is a bf16 as a float. Unpacking takes 4 words of each lane for
 * either half, a pack puts them back.
 */
V_FN V_INT v_divide_half(V_INT x, V_FLOAT by)
{
	const V_INT zero = V_SI(setzero)();
	V_INT lo = V(unpacklo_epi16)(zero, x), hi = V(unpackhi_epi16)(zero, x);

	return V(packs_epi32)(V(cvtps_epi32)(V(div_ps)(V_TO_PS(lo), by)),
			      V(cvtps_epi32)(V(div_ps)(V_TO_PS(hi), by)));
}

/* Of finite bf16: as whole_of() does it, what it says is within 16 bits. */
V_FN struct vec v_divide(struct vec x, float by)
{
	return V_BOTH(v_divide_half(x.a, V(set1_ps)(by)), v_divide_half(x.b, V(set1_ps)(by)));
}

/* bf16 of what is above 16 zeros, times @by, in the low words. */
V_FN V_INT v_times_quarter(V_INT x, V_FLOAT by)
{
	V_INT u = V_OF_PS(V(mul_ps)(V(cvtepi32_ps)(V(srai_epi32)(x, 16)), by));
	V_INT odd = V_SI(and)(V(srli_epi32)(u, 16), V(set1_epi32)(1));

	u = V(add_epi32)(V(add_epi32)(u, V(set1_epi32)(0x7fff)), odd);
	return V(srli_epi32)(u, 16);
}

V_FN V_INT v_times_half(V_INT x, V_FLOAT by)
{
	const V_INT zero = V_SI(setzero)();
	V_INT lo = V(unpacklo_epi16)(zero, x), hi = V(unpackhi_epi16)(zero, x);

	return V(packus_epi32)(v_times_quarter(lo, by), v_times_quarter(hi, by));
}

/* bf16 of whole numbers times @by: as whole_to() does it. */
V_FN struct vec v_times(struct vec x, float by)
{
	return V_BOTH(v_times_half(x.a, V(set1_ps)(by)), v_times_half(x.b, V(set1_ps)(by)));
}

V_FN V_INT v_further_half(V_INT most, V_INT x, V_INT y)
{
	const V_INT zero = V_SI(setzero)(), size = V(set1_epi32)(0x7fffffff);
	V_FLOAT lo = V(sub_ps)(V_TO_PS(V(unpacklo_epi16)(zero, x)),
			       V_TO_PS(V(unpacklo_epi16)(zero, y)));
	V_FLOAT hi = V(sub_ps)(V_TO_PS(V(unpackhi_epi16)(zero, x)),
			       V_TO_PS(V(unpackhi_epi16)(zero, y)));

	/* Where one is NaN, the second one is taken. */
	lo = V(max_ps)(V_TO_PS(V_SI(and)(V_OF_PS(lo), size)), V_TO_PS(most));
	return V_OF_PS(V(max_ps)(V_TO_PS(V_SI(and)(V_OF_PS(hi), size)), lo));
}

/* 16 floats: @most, or where that is more how far bf16 @x is from @y. */
V_FN struct vec v_further(struct vec most, struct vec x, struct vec y)
{
	return V_BOTH(v_further_half(most.a, x.a, y.a), v_further_half(most.b, x.b, y.b));
}

#endif
#endif
