/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec_form.h - the form in which codecs store values, and their arithmetic on single
 * ones: one text for C, C++ and CUDA, so that all of them write the same bits.
 *
 * What is written is described in codec.h. All of it is pure; any thread. Arithmetic in
 * float or double is exact but for one rounding, to nearest even, that is named. A
 * product that something is added to is always exact: whether a compiler makes one
 * operation of the two makes no difference.
 */
#ifndef KVMD_TIER_CODEC_FORM_H
#define KVMD_TIER_CODEC_FORM_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define CODEC_FN	static __host__ __device__ __forceinline__
#else
#define CODEC_FN	static inline
#endif

/* On a GPU, the correctly rounded ones whatever the compiler's options. */
#ifdef __CUDA_ARCH__
#define CODEC_ADD(a, b)		__fadd_rn((a), (b))
#define CODEC_MUL(a, b)		__fmul_rn((a), (b))
#define CODEC_DIV(a, b)		__fdiv_rn((a), (b))
#define CODEC_SUB_D(a, b)	__dsub_rn((a), (b))
#define CODEC_DIV_D(a, b)	__ddiv_rn((a), (b))
#else
#define CODEC_ADD(a, b)		((a) + (b))
#define CODEC_MUL(a, b)		((a) * (b))
#define CODEC_DIV(a, b)		((a) / (b))
#define CODEC_SUB_D(a, b)	((a) - (b))
#define CODEC_DIV_D(a, b)	((a) / (b))
#endif

/* Stored: never renumbered, never reused. */
enum codec_id {
	CODEC_NONE,		/* as they are, without a header; no struct codec_ops */
	CODEC_WINDOW,
	CODEC_FP8_E4M3,
	CODEC_FP8_E5M2,
	CODEC_INT8,
	CODEC_INT4,
	CODEC_KIVI2,
	NR_CODEC
};

enum codec_axis {
	CODEC_PER_TOKEN,
	CODEC_PER_CHANNEL,	/* kivi2 only */
	NR_CODEC_AXIS
};

#define CODEC_HEAD_BYTES	64u
#define CODEC_MAX_VALUES	(1u << 28)	/* 512 MiB */
#define CODEC_MIN_GROUP		32u
#define CODEC_MAX_GROUP		128u

struct codec_shape {
	uint32_t tokens, channels;	/* 1 or more each; at most CODEC_MAX_VALUES together */
	uint32_t group;			/* CODEC_MIN_GROUP..CODEC_MAX_GROUP, or 0: no groups */
	uint32_t axis;			/* enum codec_axis */
};

#define CODEC_MAGIC	0x4344564bu	/* "KVDC" */

enum codec_form {
	CODEC_CODED,
	CODEC_RAW,		/* window: the values as they are */
	NR_CODEC_FORM
};

struct codec_head {
	uint32_t magic;
	uint8_t codec;		/* enum codec_id */
	uint8_t form;		/* enum codec_form */
	uint8_t base;		/* window, coded: least exponent with a code of its own */
	uint8_t resv;		/* zero */
	uint32_t tokens, channels, group, axis;
	uint32_t bytes;		/* of all, this header too */
	uint32_t escapes;	/* window, coded: how many */
	uint32_t zero[7];
	uint32_t crc;		/* CRC-32C of the 60 bytes before */
};

/* How many values, 0: not a shape for a codec that has groups or not, and so many axes. */
CODEC_FN uint32_t codec_shape_values(const struct codec_shape *s, bool grouped, unsigned nr_axis)
{
	uint64_t n = (uint64_t)s->tokens * s->channels;

	if (!n || n > CODEC_MAX_VALUES || s->axis >= nr_axis)
		return 0;
	if (grouped ? s->group < CODEC_MIN_GROUP || s->group > CODEC_MAX_GROUP : s->group)
		return 0;
	return (uint32_t)n;
}

/* ------------------------------------------------------------------ groups */

struct codec_group {
	uint32_t first;		/* number of its first value */
	uint32_t step;		/* to the next one */
	uint32_t nr;		/* 1..CODEC_MAX_GROUP */
};

/* @group of @n, the last one perhaps shorter. */
CODEC_FN uint32_t codec_pieces(uint32_t n, uint32_t group)
{
	return n / group + (n % group != 0);
}

CODEC_FN uint32_t codec_nr_groups(const struct codec_shape *s)
{
	if (s->axis == CODEC_PER_CHANNEL)
		return codec_pieces(s->tokens, s->group) * s->channels;
	return codec_pieces(s->channels, s->group) * s->tokens;
}

CODEC_FN struct codec_group codec_nth_group(const struct codec_shape *s, uint32_t i)
{
	struct codec_group g;
	uint32_t across, at, left;

	if (s->axis == CODEC_PER_CHANNEL) {
		at = i / s->channels * s->group;
		left = s->tokens - at;
		g.first = at * s->channels + i % s->channels;
		g.step = s->channels;
	} else {
		across = codec_pieces(s->channels, s->group);
		at = i % across * s->group;
		left = s->channels - at;
		g.first = i / across * s->channels + at;
		g.step = 1;
	}
	g.nr = left < s->group ? left : s->group;
	return g;
}

/* ---------------------------------------------------------------- numbers */

#define BF16_INF	0x7f80u		/* without the sign: at and above it are no numbers */
#define BF16_ABS	0x7fffu
#define FP16_INF	0x7c00u

CODEC_FN float bf16_to_float(uint16_t v)
{
	uint32_t u = (uint32_t)v << 16;
	float f;

	memcpy(&f, &u, sizeof(f));
	return f;
}

/* To nearest even, of a finite number. */
CODEC_FN uint16_t bf16_of_float(float f)
{
	uint32_t u;

	memcpy(&u, &f, sizeof(u));
	return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

/* To nearest even; |x| < 2^22. The sum has no bits below 1. */
CODEC_FN float round_even(float x)
{
	const float magic = 12582912.0f;	/* 1.5 * 2^23 */

	return CODEC_ADD(CODEC_ADD(x, magic), -magic);
}

/*
 * fp16 of @x >= 0, upwards, so that no value is further than the last code from 0;
 * -ERANGE: above 65504. A double's exponent bias is 1023, fp16's 15; fp16 keeps 10
 * of the 52 bits, and below 2^-14 counts in units of 2^-24.
 */
CODEC_FN int fp16_up(double x, uint16_t *ret)
{
	uint64_t u;
	uint32_t n;

	if (!(x <= 65504))
		return -ERANGE;
	if (x < 0x1p-14) {
		n = (uint32_t)(x * 0x1p24);
		*ret = (uint16_t)(n + (n < x * 0x1p24));
		return 0;
	}
	memcpy(&u, &x, sizeof(u));
	*ret = (uint16_t)(((u + (1ull << 42) - 1) >> 42) - ((1023u - 15u) << 10));
	return 0;
}

/* A scale: finite and not negative. */
CODEC_FN bool fp16_is_scale(uint16_t h)
{
	return h < FP16_INF;
}

/* Exact; of a scale. */
CODEC_FN float fp16_to_float(uint16_t h)
{
	uint32_t u = ((uint32_t)h << 13) + ((127u - 15u) << 23);
	float f;

	if (h < 0x400)
		return (float)h * 0x1p-24f;
	memcpy(&f, &u, sizeof(f));
	return f;
}

/* --------------------------------------------------------------------- fp8 */

#define FP8_NAN		0x7fu		/* the one of e5m2's three that is written */
#define BF16_NAN	0x7fc0u

struct codec_fp8 {
	unsigned bits, bias;		/* of the mantissa; of the exponent */
	uint8_t most;			/* code of the largest */
};

#define FP8_E4M3	{ 3, 7, 0x7e }
#define FP8_E5M2	{ 2, 15, 0x7b }

/* @v >> @by, to nearest even; @by > 0. */
CODEC_FN uint32_t shift_even(uint32_t v, unsigned by)
{
	return (v + (1u << (by - 1)) - 1 + (v >> by & 1)) >> by;
}

CODEC_FN uint8_t fp8_of(const struct codec_fp8 *f, uint16_t v)
{
	uint32_t a = v & BF16_ABS, e = a >> 7, code;
	uint8_t sign = (uint8_t)(v >> 8 & 0x80);
	unsigned by;

	if (a > BF16_INF)
		return sign | FP8_NAN;
	if (e + f->bias >= 128) {
		code = shift_even(a, 7 - f->bits) - ((127 - f->bias) << f->bits);
		return (uint8_t)(sign | (code < f->most ? code : f->most));
	}
	/* Below the least normal: in units of 2^(1 - bias - bits); half a unit is 0. */
	by = 135 - f->bias - f->bits - e;
	return (uint8_t)(sign | (by > 8 ? 0 : shift_even(0x80 | (a & 0x7f), by)));
}

/* Between the largest and that NaN are e5m2's infinity and other NaNs. */
CODEC_FN bool fp8_is_written(const struct codec_fp8 *f, uint8_t code)
{
	return (code & 0x7f) <= f->most || (code & 0x7f) == FP8_NAN;
}

/* A code that is written, without its sign; exact. */
CODEC_FN uint16_t fp8_to(const struct codec_fp8 *f, uint8_t code)
{
	uint32_t e = code >> f->bits, m = code & ((1u << f->bits) - 1);
	uint32_t at = 127 - f->bias;

	if (code == FP8_NAN)
		return BF16_NAN;
	if (e)
		return (uint16_t)((at + e) << 7 | m << (7 - f->bits));
	if (!m)
		return 0;
	/* Subnormal there, normal here. */
	for (at++; !(m >> f->bits); at--)
		m <<= 1;
	return (uint16_t)(at << 7 | (m << (7 - f->bits) & 0x7f));
}

/* -------------------------------------------------------------- int8, int4 */

#define INT8_MOST	127
#define INT4_MOST	7

/* The scale of a group whose largest value has the bits @absmax. -EDOM, -ERANGE: codec.h */
CODEC_FN int whole_scale(uint16_t absmax, int most, uint16_t *ret)
{
	if (absmax >= BF16_INF)
		return -EDOM;
	return fp16_up(CODEC_DIV_D((double)bf16_to_float(absmax), (double)most), ret);
}

/*
 * One division, which no rounding carries over a half: a half times a scale has 19
 * bits, a value 8, so a quotient is that half exactly or at least 2^-12 away from it.
 * @scale is not 0; a group of that scale has zeros.
 */
CODEC_FN int8_t whole_of(uint16_t v, float scale)
{
	return (int8_t)round_even(CODEC_DIV(bf16_to_float(v), scale));
}

/* The product is exact: 18 bits. */
CODEC_FN uint16_t whole_to(int8_t q, float scale)
{
	return bf16_of_float(CODEC_MUL((float)q, scale));
}

/* ------------------------------------------------------------------- kivi2 */

#define KIVI_LEVELS	4u

CODEC_FN int kivi_scale(uint16_t least, uint16_t most, uint16_t *ret)
{
	double span = CODEC_SUB_D((double)bf16_to_float(most), (double)bf16_to_float(least));

	return fp16_up(CODEC_DIV_D(span, 3.0), ret);
}

/* @scale is not 0; a group of that scale has level 0. */
CODEC_FN unsigned kivi_level(uint16_t v, double least, double scale)
{
	double x = CODEC_DIV_D(CODEC_SUB_D((double)bf16_to_float(v), least), scale);
	float level = round_even((float)x);

	return level > 3 ? 3 : (unsigned)level;
}

/* Values as whole numbers in their order; both zeros are 0. */
CODEC_FN int kivi_key(uint16_t v)
{
	return v >> 15 ? -(int)(v & BF16_ABS) : v;
}

CODEC_FN uint16_t kivi_of_key(int key)
{
	return (uint16_t)(key < 0 ? 0x8000 - key : key);
}

/*
 * The key of the last value whose level is not above @k = 0..2: how many of a
 * group's three limits a value is above is what kivi_level() says of it, without a
 * division of each. @scale is not 0, and one that kivi_scale() has for that @least.
 *
 * Its quotient, once it is a float, is above 1/2, at least 3/2 or above 5/2 where the
 * difference d of value and @least is above, at least or above @scale times that number
 * and half a float's step. That product is exact, of 37 bits, and no rounding of d or of
 * d / @scale carries over it. Nor does the one of the sum here carry over a bf16: one
 * that differs from the sum at all does by more than 2^-40 of the product.
 */
CODEC_FN int kivi_limit(uint16_t least, float scale, unsigned k)
{
	double above = k == 0 ? 0.5 + 0x1p-25 : k == 1 ? 1.5 - 0x1p-24 : 2.5 + 0x1p-23;
	double sum = (double)bf16_to_float(least) + above * (double)scale;
	int64_t u, key;

	memcpy(&u, &sum, sizeof(u));
	/* A double's exponent bias is 1023, bf16's 127; bf16 keeps 7 of the 52 bits. */
	key = (u & INT64_MAX) - ((1023ll - 127) << 52);
	key = u < 0 ? -key : key;
	return (int)((key - (k == 1)) >> 45);
}

/* The product is exact: 13 bits. */
CODEC_FN uint16_t kivi_value(uint16_t least, unsigned level, float scale)
{
	return bf16_of_float(CODEC_ADD(bf16_to_float(least), CODEC_MUL((float)level, scale)));
}

/* ------------------------------------------------------------------ window */

#define WINDOW_WIDE	15u		/* exponents with a code */
#define WINDOW_ESCAPE	15u		/* the code of the others */
#define WINDOW_AT_ONCE	64u		/* values whose codes lie together */
#define WINDOW_MAX_BASE	(256u - WINDOW_WIDE)

#define WINDOW_STRETCH		256u	/* values next to each other that are looked at */
#define WINDOW_STRETCHES	16u	/* at most so many of these */

/*
 * Stretch @n of the values that the base is chosen by, of @nr: from *ret_first to below
 * what is returned; nothing, where that is not below. All of a small block, of a large
 * one a few stretches, each further into its part of the block than the one before it,
 * so that they are not of the same channels.
 */
CODEC_FN uint32_t window_stretch(uint32_t nr, uint32_t n, uint32_t *ret_first)
{
	uint32_t part = codec_pieces(nr, WINDOW_STRETCHES), first;

	if (part < WINDOW_STRETCH)
		part = WINDOW_STRETCH;
	first = n * part + n * WINDOW_STRETCH % (part - WINDOW_STRETCH + 1);
	*ret_first = first;
	return first + WINDOW_STRETCH < nr ? first + WINDOW_STRETCH : nr;
}

CODEC_FN uint8_t window_exponent(uint16_t v)
{
	return (uint8_t)(v >> 7);
}

CODEC_FN uint8_t window_rest(uint16_t v)
{
	return (uint8_t)((v >> 8 & 0x80) | (v & 0x7f));
}

CODEC_FN uint16_t window_value(uint8_t rest, uint8_t exponent)
{
	return (uint16_t)((rest & 0x80) << 8 | exponent << 7 | (rest & 0x7f));
}

CODEC_FN uint8_t window_code(uint16_t v, uint8_t base)
{
	uint8_t code = (uint8_t)(window_exponent(v) - base);

	return code < WINDOW_ESCAPE ? code : (uint8_t)WINDOW_ESCAPE;
}

/* Is @exponent one that has no code? */
CODEC_FN bool window_is_escape(uint8_t exponent, uint8_t base)
{
	return (uint8_t)(exponent - base) >= WINDOW_WIDE;
}

#endif
