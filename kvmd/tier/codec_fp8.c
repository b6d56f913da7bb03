// SPDX-License-Identifier: Apache-2.0
/*
 * codec_fp8.c - bf16 to the two 8-bit floats of OCP's specification, and back.
 *
 * All in integers. Pure functions; any thread.
 */
#include "kvmd/tier/codec_int.h"

#define NAN_CODE	0x7fu		/* the one of e5m2's three that is written */
#define BF16_NAN	0x7fc0u

struct fp8 {
	unsigned bits, bias;		/* of the mantissa; of the exponent */
	uint8_t most;			/* code of the largest */
};

static const struct fp8 e4m3 = { 3, 7, 0x7e }, e5m2 = { 2, 15, 0x7b };

/* @v >> @by, to nearest even; @by > 0. */
static inline uint32_t shift_even(uint32_t v, unsigned by)
{
	return (v + (1u << (by - 1)) - 1 + (v >> by & 1)) >> by;
}

static inline uint8_t fp8_of(const struct fp8 *f, uint16_t v)
{
	uint32_t a = v & BF16_ABS, e = a >> 7, code;
	uint8_t sign = (uint8_t)(v >> 8 & 0x80);
	unsigned by;

	if (a > BF16_INF)
		return sign | NAN_CODE;
	if (e + f->bias >= 128) {
		code = shift_even(a, 7 - f->bits) - ((127 - f->bias) << f->bits);
		return sign | (uint8_t)min(code, (uint32_t)f->most);
	}
	/* Below the least normal: in units of 2^(1 - bias - bits); half a unit is 0. */
	by = 135 - f->bias - f->bits - e;
	return sign | (uint8_t)(by > 8 ? 0 : shift_even(0x80 | (a & 0x7f), by));
}

/* A code that is written, without its sign; exact. */
static uint16_t fp8_to(const struct fp8 *f, uint8_t code)
{
	uint32_t e = code >> f->bits, m = code & ((1u << f->bits) - 1);
	uint32_t at = 127 - f->bias;

	if (code == NAN_CODE)
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

static double fp8_bound(const struct fp8 *f, double v, double most)
{
	double a = v < 0 ? -v : v, part = a / (double)(2u << f->bits);
	double least = 1.0 / (double)(1ull << (f->bias + f->bits));

	if (a > most)
		return a - most;
	return part > least ? part : least;
}

static size_t fp8_max(const struct codec_ops *ops, const struct codec_shape *s)
{
	size_t n = codec_values(ops, s);

	return n ? CODEC_HEAD_BYTES + n : 0;
}

static int fp8_encode(const struct codec_ops *ops, const struct fp8 *f,
		      const struct codec_shape *s, const uint16_t *src, void *dst,
		      size_t dst_bytes, size_t *ret_bytes)
{
	size_t n = codec_values(ops, s);
	struct codec_head h = { 0 };
	uint8_t *to = (uint8_t *)dst + CODEC_HEAD_BYTES;

	if (!n)
		return -EINVAL;
	if (dst_bytes < CODEC_HEAD_BYTES + n)
		return -ENOSPC;
	for (size_t i = 0; i < n; i++)
		to[i] = fp8_of(f, src[i]);
	codec_seal(ops, s, &h, CODEC_HEAD_BYTES + n, dst);
	*ret_bytes = CODEC_HEAD_BYTES + n;
	return 0;
}

static int fp8_decode(const struct codec_ops *ops, const struct fp8 *f,
		      const struct codec_shape *s, const void *src, size_t bytes, uint16_t *dst)
{
	const uint8_t *from = (const uint8_t *)src + CODEC_HEAD_BYTES;
	size_t n = codec_values(ops, s);
	uint16_t value[128];
	struct codec_head h;
	bool bad = false;
	int err;

	if (!n)
		return -EINVAL;
	err = codec_open(ops, s, src, bytes, &h);
	if (err)
		return err;
	if (bytes != CODEC_HEAD_BYTES + n)
		return -EBADMSG;
	for (unsigned i = 0; i < ARRAY_SIZE(value); i++)
		value[i] = fp8_to(f, (uint8_t)i);
	for (size_t i = 0; i < n; i++) {
		unsigned code = from[i] & 0x7f;

		/* Between the largest and that NaN: e5m2's infinity and other NaNs. */
		bad |= code > f->most && code != NAN_CODE;
		dst[i] = (uint16_t)(value[code] | (from[i] & 0x80) << 8);
	}
	return bad ? -EBADMSG : 0;
}

#define FP8(f, codec, largest) \
static double f##_bound(double v, double least, double most) \
{ \
	(void)least; \
	(void)most; \
	return fp8_bound(&f, v, largest); \
} \
static size_t f##_max(const struct codec_shape *s) \
{ \
	return fp8_max(&codec_fp8_##f, s); \
} \
static int f##_encode(const struct codec_shape *s, const uint16_t *src, void *dst, \
		      size_t dst_bytes, size_t *ret_bytes) \
{ \
	return fp8_encode(&codec_fp8_##f, &f, s, src, dst, dst_bytes, ret_bytes); \
} \
static int f##_decode(const struct codec_shape *s, const void *src, size_t bytes, uint16_t *dst) \
{ \
	return fp8_decode(&codec_fp8_##f, &f, s, src, bytes, dst); \
} \
const struct codec_ops codec_fp8_##f = { \
	.id = codec, \
	.name = "fp8_" #f, \
	.nr_axis = 1, \
	.bound = f##_bound, \
	.encoded_max = f##_max, \
	.encode = f##_encode, \
	.decode = f##_decode, \
}

FP8(e4m3, CODEC_FP8_E4M3, 448);
FP8(e5m2, CODEC_FP8_E5M2, 57344);
