// SPDX-License-Identifier: Apache-2.0
/*
 * codec_fp8.c - bf16 to the two 8-bit floats of OCP's specification, and back: bounds
 * and the frame.
 *
 * The coding is codec_lossy.h's, all in integers. Pure functions; any thread.
 */
#include "kvmd/tier/codec_int.h"
#include "kvmd/tier/codec_lossy.h"

static const struct codec_fp8 e4m3 = FP8_E4M3, e5m2 = FP8_E5M2;

static double fp8_bound(const struct codec_fp8 *f, double v, double most)
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

static int fp8_encode(const struct codec_ops *ops, const struct codec_fp8 *f,
		      const struct codec_shape *s, const uint16_t *src, void *dst,
		      size_t dst_bytes, size_t *ret_bytes)
{
	size_t n = codec_values(ops, s);
	struct codec_head h = { 0 };

	if (!n)
		return -EINVAL;
	if (dst_bytes < CODEC_HEAD_BYTES + n)
		return -ENOSPC;
	lossy_impl(s)->fp8_encode(f, src, n, (uint8_t *)dst + CODEC_HEAD_BYTES);
	codec_seal(ops, s, &h, CODEC_HEAD_BYTES + n, dst);
	*ret_bytes = CODEC_HEAD_BYTES + n;
	return 0;
}

static int fp8_decode(const struct codec_ops *ops, const struct codec_fp8 *f,
		      const struct codec_shape *s, const void *src, size_t bytes, uint16_t *dst)
{
	const uint8_t *from = (const uint8_t *)src + CODEC_HEAD_BYTES;
	size_t n = codec_values(ops, s);
	struct codec_head h;
	int err;

	if (!n)
		return -EINVAL;
	err = codec_open(ops, s, src, bytes, &h);
	if (err)
		return err;
	if (bytes != CODEC_HEAD_BYTES + n)
		return -EBADMSG;
	return lossy_impl(s)->fp8_decode(f, from, n, dst) ? 0 : -EBADMSG;
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
