/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec_int.h - what the codecs share: the header, groups, bf16 and fp16.
 *
 * All of it is pure; any thread. Where arithmetic is done in float or double it
 * is either exact or its one rounding is named, so that no compiler and no
 * instruction set gives other bits.
 */
#ifndef KVMD_TIER_CODEC_INT_H
#define KVMD_TIER_CODEC_INT_H

#include "kvmd/tier/codec.h"

BUILD_BUG_ON(__BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__);

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
BUILD_BUG_ON(sizeof(struct codec_head) != CODEC_HEAD_BYTES);

extern const struct codec_ops codec_window, codec_fp8_e4m3, codec_fp8_e5m2, codec_int8,
	codec_int4, codec_kivi2;

/* Number of values, 0: not a shape for @ops. */
size_t codec_values(const struct codec_ops *ops, const struct codec_shape *s);
/* Write the header of what is complete but for it. */
void codec_seal(const struct codec_ops *ops, const struct codec_shape *s, struct codec_head *h,
		size_t bytes, void *dst);
/* The header of @bytes at @src: -EBADMSG unless it is one of @ops and @s and that size. */
int codec_open(const struct codec_ops *ops, const struct codec_shape *s, const void *src,
	       size_t bytes, struct codec_head *ret_h);

/* ------------------------------------------------------------------ groups */

struct codec_group {
	size_t first;		/* number of its first value */
	size_t step;		/* to the next one */
	unsigned nr;		/* 1..CODEC_MAX_GROUP */
};

static inline size_t codec_nr_groups(const struct codec_shape *s)
{
	if (s->axis == CODEC_PER_CHANNEL)
		return div_round_up(s->tokens, s->group) * s->channels;
	return div_round_up(s->channels, s->group) * s->tokens;
}

static inline struct codec_group codec_group(const struct codec_shape *s, size_t i)
{
	struct codec_group g;
	size_t across, at;

	if (s->axis == CODEC_PER_CHANNEL) {
		at = i / s->channels * s->group;
		g.first = at * s->channels + i % s->channels;
		g.step = s->channels;
		g.nr = (unsigned)min((size_t)s->group, s->tokens - at);
	} else {
		across = div_round_up(s->channels, s->group);
		at = i % across * s->group;
		g.first = i / across * s->channels + at;
		g.step = 1;
		g.nr = (unsigned)min((size_t)s->group, s->channels - at);
	}
	return g;
}

/* ---------------------------------------------------------------- numbers */

#define BF16_INF	0x7f80u		/* without the sign: at and above it are no numbers */
#define BF16_ABS	0x7fffu

static inline float bf16_to_float(uint16_t v)
{
	uint32_t u = (uint32_t)v << 16;
	float f;

	memcpy(&f, &u, sizeof(f));
	return f;
}

/* To nearest even, of a finite number. */
static inline uint16_t bf16_of_float(float f)
{
	uint32_t u;

	memcpy(&u, &f, sizeof(u));
	return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

/* To nearest even; |x| < 2^22. The sum has no bits below 1. */
static inline float round_even(float x)
{
	const float magic = 12582912.0f;	/* 1.5 * 2^23 */

	return (x + magic) - magic;
}

/*
 * fp16 of @x >= 0, upwards, so that no value is further than the last code from 0;
 * -ERANGE: above 65504. A double's exponent bias is 1023, fp16's 15; fp16 keeps 10
 * of the 52 bits, and below 2^-14 counts in units of 2^-24.
 */
static inline int fp16_up(double x, uint16_t *ret)
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

#define FP16_INF	0x7c00u

/* A scale: finite and not negative. */
static inline bool fp16_is_scale(uint16_t h)
{
	return h < FP16_INF;
}

/* Exact; of a scale. */
static inline float fp16_to_float(uint16_t h)
{
	uint32_t u = ((uint32_t)h << 13) + ((127u - 15u) << 23);
	float f;

	if (h < 0x400)
		return (float)h * 0x1p-24f;
	memcpy(&f, &u, sizeof(f));
	return f;
}

static inline uint16_t get_u16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline void put_u16(uint8_t *p, uint16_t v)
{
	memcpy(p, &v, sizeof(v));
}

/* A loss of @e, and the rounding of the outcome to bf16 after it. */
static inline double bound_bf16(double v, double e)
{
	return e + ((v < 0 ? -v : v) + e) / 256 + 0x1p-134;
}

#endif
