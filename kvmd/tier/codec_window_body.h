/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec_window_body.h - window's coding for one instruction set: the inside of
 * codec_window*.c.
 *
 * Each of them includes it, once, after #define WINDOW_VECTOR: 512 or 256 (bits; an
 * x86 that has AVX-512F and BW, AVX2), or 0, what every processor has. Where the
 * build is not for x86 the first two are there and never usable.
 *
 * encode_64() and decode_64() do 64 values and say whether any of them is an escape;
 * these few are then done one by one, in order. All else is the same code for all.
 */
#ifndef KVMD_TIER_CODEC_WINDOW_BODY_H
#define KVMD_TIER_CODEC_WINDOW_BODY_H

#include "kvmd/tier/codec_window_impl.h"

#ifndef WINDOW_VECTOR
#define WINDOW_VECTOR	0
#endif

#if defined(__x86_64__) && WINDOW_VECTOR
#include <immintrin.h>
#if WINDOW_VECTOR == 512
#define WINDOW_TARGET	__attribute__((target("avx512f,avx512bw")))
#define WINDOW_USABLE	(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw"))
#else
#define WINDOW_TARGET	__attribute__((target("avx2")))
#define WINDOW_USABLE	__builtin_cpu_supports("avx2")
#endif
#else
#define WINDOW_TARGET
#define WINDOW_USABLE	(WINDOW_VECTOR == 0)
#endif

#if WINDOW_VECTOR == 512
#define WINDOW_IMPL	window_impl_avx512
#define WINDOW_NAME	"avx512"
#elif WINDOW_VECTOR == 256
#define WINDOW_IMPL	window_impl_avx2
#define WINDOW_NAME	"avx2"
#else
#define WINDOW_IMPL	window_impl_plain
#define WINDOW_NAME	"plain"
#endif

/* -------------------------------------------------------------- one by one */

/* Code @i of @nr together, half of them in the low halves. */
static inline uint8_t get_code(const uint8_t *codes, unsigned i, unsigned nr)
{
	unsigned half = (nr + 1) / 2;

	return i < half ? codes[i] & 15 : codes[i - half] >> 4;
}

/* @nr of WINDOW_AT_ONCE or fewer; true: there are escapes. */
static inline bool encode_few(const uint16_t *src, unsigned nr, uint8_t base, uint8_t *rest,
			      uint8_t *codes)
{
	unsigned half = (nr + 1) / 2, most = 0;
	uint8_t a, b;

	for (unsigned i = 0; i < nr; i++)
		rest[i] = window_rest(src[i]);
	for (unsigned i = 0; i < half; i++) {
		a = window_code(src[i], base);
		b = half + i < nr ? window_code(src[half + i], base) : 0;
		most = max(most, (unsigned)a);
		most = max(most, (unsigned)b);
		codes[i] = (uint8_t)(a | b << 4);
	}
	return most == WINDOW_ESCAPE;
}

static inline bool decode_few(const uint8_t *rest, const uint8_t *codes, unsigned nr, uint8_t base,
			      uint16_t *dst)
{
	unsigned most = 0, code;

	for (unsigned i = 0; i < nr; i++) {
		code = get_code(codes, i, nr);
		most = max(most, code);
		dst[i] = window_value(rest[i], (uint8_t)(base + code));
	}
	return most == WINDOW_ESCAPE;
}

/* Append the exponents of escapes at @at..; how many there are now. */
static inline size_t add_escapes(const uint16_t *src, const uint8_t *codes, unsigned nr,
				 const struct window_parts *p, size_t at)
{
	for (unsigned i = 0; i < nr; i++) {
		if (get_code(codes, i, nr) != WINDOW_ESCAPE)
			continue;
		if (at < p->nr_escapes)
			p->escapes[at] = window_exponent(src[i]);
		at++;
	}
	return at;
}

/* Put them into @dst; false: there are not so many, or one is no escape. */
static inline bool put_escapes(const struct window_parts *p, const uint8_t *rest,
			       const uint8_t *codes, unsigned nr, uint8_t base, uint16_t *dst,
			       size_t *at)
{
	uint8_t e;

	for (unsigned i = 0; i < nr; i++) {
		if (get_code(codes, i, nr) != WINDOW_ESCAPE)
			continue;
		if (*at >= p->nr_escapes)
			return false;
		e = p->escapes[(*at)++];
		if (!window_is_escape(e, base))
			return false;
		dst[i] = window_value(rest[i], e);
	}
	return true;
}

/* -------------------------------------------------------------- 64 at once */

#if defined(__x86_64__) && WINDOW_VECTOR
/* Which of 64 codes are escapes: bit i for value i. */
WINDOW_TARGET static inline uint64_t escapes_64(const uint8_t *codes)
{
	__m256i x = _mm256_loadu_si256((const __m256i *)codes), m = _mm256_set1_epi8(15);
	__m256i lo = _mm256_and_si256(x, m);
	__m256i hi = _mm256_and_si256(_mm256_srli_epi16(x, 4), m);

	return (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(lo, m)) |
	       (uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(hi, m)) << 32;
}
#else
static inline uint64_t escapes_64(const uint8_t *codes)
{
	uint64_t m = 0;

	for (unsigned i = 0; i < WINDOW_AT_ONCE; i++)
		m |= (uint64_t)(get_code(codes, i, WINDOW_AT_ONCE) == WINDOW_ESCAPE) << i;
	return m;
}
#endif

#if defined(__x86_64__) && WINDOW_VECTOR == 512
WINDOW_TARGET static inline bool encode_64(const uint16_t *src, uint8_t base, uint8_t *rest,
					   uint8_t *codes)
{
	const __m512i sign = _mm512_set1_epi16(0x80), low = _mm512_set1_epi16(0x7f);
	const __m512i byte = _mm512_set1_epi16(0xff);
	const __m512i in_order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
	__m512i a = _mm512_loadu_si512(src), b = _mm512_loadu_si512(src + 32), ra, rb, ea, eb, c;
	__mmask64 esc;

	/* 0xca: where @low has a bit, that of the value, else that of the sign's byte. */
	ra = _mm512_and_si512(_mm512_srli_epi16(a, 8), sign);
	rb = _mm512_and_si512(_mm512_srli_epi16(b, 8), sign);
	ra = _mm512_ternarylogic_epi64(low, a, ra, 0xca);
	rb = _mm512_ternarylogic_epi64(low, b, rb, 0xca);
	/* A pack puts 8 of a and 8 of b into each lane. */
	_mm512_storeu_si512(rest, _mm512_permutexvar_epi64(in_order, _mm512_packus_epi16(ra, rb)));
	ea = _mm512_and_si512(_mm512_srli_epi16(a, 7), byte);
	eb = _mm512_and_si512(_mm512_srli_epi16(b, 7), byte);
	c = _mm512_sub_epi8(_mm512_packus_epi16(ea, eb), _mm512_set1_epi8((char)base));
	esc = _mm512_cmpgt_epu8_mask(c, _mm512_set1_epi8(WINDOW_WIDE - 1));
	c = _mm512_min_epu8(c, _mm512_set1_epi8(WINDOW_ESCAPE));
	/* In a lane the codes of b lie 8 bytes behind those that share their bytes. */
	c = _mm512_or_si512(c, _mm512_slli_epi64(_mm512_bsrli_epi128(c, 8), 4));
	_mm256_storeu_si256((__m256i *)codes,
			    _mm512_castsi512_si256(_mm512_permutexvar_epi64(in_order, c)));
	return esc;
}

WINDOW_TARGET static inline bool decode_64(const uint8_t *rest, const uint8_t *codes, uint8_t base,
					   uint16_t *dst)
{
	/* Such that what unpacklo takes is the first half, lane by lane. */
	const __m512i spread = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
	const __m512i twice = _mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3);
	const __m512i by = _mm512_setr_epi64(0, 4, 0, 4, 0, 4, 0, 4);
	const __m512i sign = _mm512_set1_epi8((char)0x80), esc = _mm512_set1_epi8(WINDOW_ESCAPE);
	__m512i r = _mm512_permutexvar_epi64(spread, _mm512_loadu_si512(rest)), c, e, lo, hi;

	c = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)codes));
	c = _mm512_srlv_epi64(_mm512_permutexvar_epi64(twice, c), by);
	c = _mm512_and_si512(c, esc);
	e = _mm512_add_epi8(c, _mm512_set1_epi8((char)base));
	/* 0xca: where @sign has a bit the first, else the second. */
	lo = _mm512_ternarylogic_epi64(sign, _mm512_slli_epi16(e, 7), r, 0xca);
	hi = _mm512_ternarylogic_epi64(sign, r, _mm512_srli_epi16(e, 1), 0xca);
	_mm512_storeu_si512(dst, _mm512_unpacklo_epi8(lo, hi));
	_mm512_storeu_si512(dst + 32, _mm512_unpackhi_epi8(lo, hi));
	return _mm512_cmpeq_epi8_mask(c, esc);
}
#elif defined(__x86_64__) && WINDOW_VECTOR == 256
/* Bytes of 32 words, in order. */
WINDOW_TARGET static inline __m256i pack_32(__m256i a, __m256i b)
{
	return _mm256_permute4x64_epi64(_mm256_packus_epi16(a, b), 0xd8);
}

WINDOW_TARGET static inline __m256i rest_16(__m256i v)
{
	return _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(v, 8), _mm256_set1_epi16(0x80)),
			       _mm256_and_si256(v, _mm256_set1_epi16(0x7f)));
}

WINDOW_TARGET static inline __m256i exponents_16(__m256i v)
{
	return _mm256_and_si256(_mm256_srli_epi16(v, 7), _mm256_set1_epi16(0xff));
}

/* The codes of 32 values; their rests are written. */
WINDOW_TARGET static inline __m256i encode_32(const uint16_t *src, uint8_t base, uint8_t *rest)
{
	__m256i a = _mm256_loadu_si256((const __m256i *)src);
	__m256i b = _mm256_loadu_si256((const __m256i *)(src + 16)), e;

	_mm256_storeu_si256((__m256i *)rest, pack_32(rest_16(a), rest_16(b)));
	e = pack_32(exponents_16(a), exponents_16(b));
	return _mm256_min_epu8(_mm256_sub_epi8(e, _mm256_set1_epi8((char)base)),
			       _mm256_set1_epi8(WINDOW_ESCAPE));
}

WINDOW_TARGET static inline bool encode_64(const uint16_t *src, uint8_t base, uint8_t *rest,
					   uint8_t *codes)
{
	__m256i a = encode_32(src, base, rest), b = encode_32(src + 32, base, rest + 32);

	_mm256_storeu_si256((__m256i *)codes, _mm256_or_si256(a, _mm256_slli_epi16(b, 4)));
	return _mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_max_epu8(a, b),
						      _mm256_set1_epi8(WINDOW_ESCAPE)));
}

WINDOW_TARGET static inline void decode_32(const uint8_t *rest, __m256i codes, uint8_t base,
					   uint16_t *dst)
{
	const __m256i sign = _mm256_set1_epi8((char)0x80), low = _mm256_set1_epi8(0x7f);
	__m256i r = _mm256_loadu_si256((const __m256i *)rest);
	__m256i e = _mm256_add_epi8(codes, _mm256_set1_epi8((char)base)), lo, hi, a, b;

	lo = _mm256_or_si256(_mm256_and_si256(r, low),
			     _mm256_and_si256(_mm256_slli_epi16(e, 7), sign));
	hi = _mm256_or_si256(_mm256_and_si256(r, sign),
			     _mm256_and_si256(_mm256_srli_epi16(e, 1), low));
	a = _mm256_unpacklo_epi8(lo, hi);
	b = _mm256_unpackhi_epi8(lo, hi);
	_mm256_storeu_si256((__m256i *)dst, _mm256_permute2x128_si256(a, b, 0x20));
	_mm256_storeu_si256((__m256i *)(dst + 16), _mm256_permute2x128_si256(a, b, 0x31));
}

WINDOW_TARGET static inline bool decode_64(const uint8_t *rest, const uint8_t *codes, uint8_t base,
					   uint16_t *dst)
{
	__m256i x = _mm256_loadu_si256((const __m256i *)codes), m = _mm256_set1_epi8(15);
	__m256i a = _mm256_and_si256(x, m), b = _mm256_and_si256(_mm256_srli_epi16(x, 4), m);

	decode_32(rest, a, base, dst);
	decode_32(rest + 32, b, base, dst + 32);
	return _mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_max_epu8(a, b), m));
}
#else
static inline bool encode_64(const uint16_t *src, uint8_t base, uint8_t *rest, uint8_t *codes)
{
	return encode_few(src, WINDOW_AT_ONCE, base, rest, codes);
}

static inline bool decode_64(const uint8_t *rest, const uint8_t *codes, uint8_t base,
			     uint16_t *dst)
{
	return decode_few(rest, codes, WINDOW_AT_ONCE, base, dst);
}
#endif

/* --------------------------------------------------------------- the whole */

WINDOW_TARGET static size_t encode(const uint16_t *src, size_t nr, uint8_t base,
				   const struct window_parts *p)
{
	uint8_t *rest = p->rest, *codes = p->codes;
	size_t n = 0, at;
	uint64_t m;

	for (at = 0; nr - at >= WINDOW_AT_ONCE; at += WINDOW_AT_ONCE) {
		if (likely(!encode_64(src + at, base, rest + at, codes + at / 2)))
			continue;
		m = escapes_64(codes + at / 2);
		if (unlikely(n + (size_t)__builtin_popcountll(m) > p->nr_escapes))
			return p->nr_escapes + 1;
		for (; m; m &= m - 1)
			p->escapes[n++] = window_exponent(src[at + (unsigned)__builtin_ctzll(m)]);
	}
	if (at < nr && encode_few(src + at, (unsigned)(nr - at), base, rest + at, codes + at / 2))
		n = add_escapes(src + at, codes + at / 2, (unsigned)(nr - at), p, n);
	return n;
}

WINDOW_TARGET static bool decode(const struct window_parts *p, size_t nr, uint8_t base,
				 uint16_t *dst)
{
	const uint8_t *rest = p->rest, *codes = p->codes;
	size_t n = 0, at;
	unsigned i, left;
	uint64_t m;
	uint8_t e;

	for (at = 0; nr - at >= WINDOW_AT_ONCE; at += WINDOW_AT_ONCE) {
		if (likely(!decode_64(rest + at, codes + at / 2, base, dst + at)))
			continue;
		m = escapes_64(codes + at / 2);
		if (unlikely(n + (size_t)__builtin_popcountll(m) > p->nr_escapes))
			return false;
		for (; m; m &= m - 1) {
			i = (unsigned)__builtin_ctzll(m);
			e = p->escapes[n++];
			if (unlikely(!window_is_escape(e, base)))
				return false;
			dst[at + i] = window_value(rest[at + i], e);
		}
	}
	left = (unsigned)(nr - at);
	if (left && decode_few(rest + at, codes + at / 2, left, base, dst + at) &&
	    !put_escapes(p, rest + at, codes + at / 2, left, base, dst + at, &n))
		return false;
	/* The half byte that no value has. */
	if (left % 2 && codes[at / 2 + left / 2] >> 4)
		return false;
	return n == p->nr_escapes;
}

static bool usable(void)
{
	return WINDOW_USABLE;
}

const struct window_impl WINDOW_IMPL = {
	.name = WINDOW_NAME,
	.usable = usable,
	.encode = encode,
	.decode = decode,
};

#endif
