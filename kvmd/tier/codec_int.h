/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec_int.h - what the codecs share here: the table, the header, bounds. All of it is
 * pure; any thread. Their arithmetic is in codec_form.h.
 */
#ifndef KVMD_TIER_CODEC_INT_H
#define KVMD_TIER_CODEC_INT_H

#include "kvmd/tier/codec.h"

BUILD_BUG_ON(__BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__);

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

/* int8 and int4 by the bits of a code: the largest. */
static inline int whole_most(unsigned bits)
{
	return bits == 8 ? INT8_MOST : INT4_MOST;
}

/* kivi2: what the levels of a group with that range are. False: it is none. */
static inline bool kivi_values(const uint8_t *range, uint16_t value[KIVI_LEVELS])
{
	uint16_t scale = get_u16(range), least = get_u16(range + 2);

	if (!fp16_is_scale(scale) || (least & BF16_ABS) >= BF16_INF)
		return false;
	for (unsigned q = 0; q < KIVI_LEVELS; q++)
		value[q] = kivi_value(least, q, fp16_to_float(scale));
	return true;
}

/* @worst, or how far @b is from @a where that is more and @a finite. */
static inline float worse(float worst, uint16_t a, uint16_t b)
{
	float d = bf16_to_float(a) - bf16_to_float(b);

	d = d < 0 ? -d : d;
	return d > worst && (a & BF16_ABS) < BF16_INF ? d : worst;
}

/* A loss of @e, and the rounding of the outcome to bf16 after it. */
static inline double bound_bf16(double v, double e)
{
	return e + ((v < 0 ? -v : v) + e) / 256 + 0x1p-134;
}

#endif
