// SPDX-License-Identifier: Apache-2.0
/*
 * codec_group.c - int8 and int4: whole numbers times a scale per group.
 *
 * A group's absmax is found in integers. value / scale is one division in float, which
 * no rounding carries over a half: a half times a scale has 19 bits, a value 8, so a
 * quotient is that half exactly or at least 2^-12 away from it.
 * Pure functions; any thread.
 */
#include "kvmd/tier/codec_int.h"

struct whole {
	const struct codec_ops *ops;
	int most;		/* |q| */
	unsigned per_byte;	/* 1 or 2 */
};

static const struct whole int8 = { &codec_int8, 127, 1 }, int4 = { &codec_int4, 7, 2 };

static double whole_bound(const struct whole *w, double v, double least, double most)
{
	double a = max(-least, most);

	return bound_bf16(v, a / (2 * w->most) * (1 + 0x1p-10) + 0x1p-25);
}

static size_t whole_bytes(const struct whole *w, const struct codec_shape *s)
{
	size_t n = codec_values(w->ops, s);

	if (!n)
		return 0;
	return CODEC_HEAD_BYTES + 2 * codec_nr_groups(s) + div_round_up(n, w->per_byte);
}

/* The scale of @nr neighbours. */
static int scale_of(const uint16_t *v, unsigned nr, int most, uint16_t *ret)
{
	uint16_t a = 0;

	for (unsigned i = 0; i < nr; i++)
		a = max(a, (uint16_t)(v[i] & BF16_ABS));
	if (a >= BF16_INF)
		return -EDOM;
	return fp16_up((double)bf16_to_float(a) / most, ret);
}

static void quantise(const uint16_t *v, unsigned nr, float scale, int8_t *q)
{
	if (scale == 0) {
		memset(q, 0, nr);
		return;
	}
	for (unsigned i = 0; i < nr; i++)
		q[i] = (int8_t)round_even(bf16_to_float(v[i]) / scale);
}

static void pack(const struct whole *w, const int8_t *q, unsigned nr, uint8_t *to, size_t at)
{
	if (w->per_byte == 1) {
		memcpy(to + at, q, nr);
		return;
	}
	for (unsigned i = 0; i < nr; i++, at++) {
		if (at % 2)
			to[at / 2] |= (uint8_t)((q[i] & 15) << 4);
		else
			to[at / 2] = q[i] & 15;
	}
}

/* False: one that is never written. */
static bool unpack(const struct whole *w, const uint8_t *from, size_t at, unsigned nr, int8_t *q)
{
	bool good = true;

	if (w->per_byte == 1)
		memcpy(q, from + at, nr);
	else
		for (unsigned i = 0; i < nr; i++, at++)
			q[i] = (int8_t)((at % 2 ? from[at / 2] >> 4 : from[at / 2] & 15) ^ 8) - 8;
	for (unsigned i = 0; i < nr; i++)
		good &= q[i] >= -w->most;
	return good;
}

static int whole_encode(const struct whole *w, const struct codec_shape *s, const uint16_t *src,
			void *dst, size_t dst_bytes, size_t *ret_bytes)
{
	size_t bytes = whole_bytes(w, s), nr;
	struct codec_head h = { 0 };
	uint8_t *scales, *codes;
	struct codec_group g;
	int8_t q[CODEC_MAX_GROUP];
	uint16_t scale;
	int err;

	if (!bytes)
		return -EINVAL;
	if (dst_bytes < bytes)
		return -ENOSPC;
	nr = codec_nr_groups(s);
	scales = (uint8_t *)dst + CODEC_HEAD_BYTES;
	codes = scales + 2 * nr;
	for (size_t i = 0; i < nr; i++) {
		g = codec_group(s, i);
		err = scale_of(src + g.first, g.nr, w->most, &scale);
		if (err)
			return err;
		put_u16(scales + 2 * i, scale);
		quantise(src + g.first, g.nr, fp16_to_float(scale), q);
		pack(w, q, g.nr, codes, g.first);
	}
	codec_seal(w->ops, s, &h, bytes, dst);
	*ret_bytes = bytes;
	return 0;
}

static int whole_decode(const struct whole *w, const struct codec_shape *s, const void *src,
			size_t bytes, uint16_t *dst)
{
	const uint8_t *scales = (const uint8_t *)src + CODEC_HEAD_BYTES, *codes;
	size_t want = whole_bytes(w, s), nr;
	int8_t q[CODEC_MAX_GROUP];
	struct codec_group g;
	struct codec_head h;
	uint16_t scale;
	int err;

	if (!want)
		return -EINVAL;
	err = codec_open(w->ops, s, src, bytes, &h);
	if (err)
		return err;
	if (bytes != want)
		return -EBADMSG;
	nr = codec_nr_groups(s);
	codes = scales + 2 * nr;
	for (size_t i = 0; i < nr; i++) {
		g = codec_group(s, i);
		scale = get_u16(scales + 2 * i);
		if (!fp16_is_scale(scale) || !unpack(w, codes, g.first, g.nr, q))
			return -EBADMSG;
		for (unsigned k = 0; k < g.nr; k++)
			dst[g.first + k] = bf16_of_float((float)q[k] * fp16_to_float(scale));
	}
	/* The half byte that no value has. */
	nr = codec_values(w->ops, s);
	if (w->per_byte == 2 && nr % 2 && codes[nr / 2] >> 4)
		return -EBADMSG;
	return 0;
}

#define WHOLE(w, codec) \
static double w##_bound(double v, double least, double most) \
{ \
	return whole_bound(&w, v, least, most); \
} \
static size_t w##_bytes(const struct codec_shape *s) \
{ \
	return whole_bytes(&w, s); \
} \
static int w##_encode(const struct codec_shape *s, const uint16_t *src, void *dst, \
		      size_t dst_bytes, size_t *ret_bytes) \
{ \
	return whole_encode(&w, s, src, dst, dst_bytes, ret_bytes); \
} \
static int w##_decode(const struct codec_shape *s, const void *src, size_t bytes, uint16_t *dst) \
{ \
	return whole_decode(&w, s, src, bytes, dst); \
} \
const struct codec_ops codec_##w = { \
	.id = codec, \
	.name = #w, \
	.grouped = true, \
	.nr_axis = 1, \
	.bound = w##_bound, \
	.encoded_max = w##_bytes, \
	.encode = w##_encode, \
	.decode = w##_decode, \
}

WHOLE(int8, CODEC_INT8);
WHOLE(int4, CODEC_INT4);
