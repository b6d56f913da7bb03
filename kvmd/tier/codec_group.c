// SPDX-License-Identifier: Apache-2.0
/*
 * codec_group.c - int8 and int4, whole numbers times a scale per group: bounds and the
 * frame.
 *
 * The coding is codec_lossy.h's. Pure functions; any thread.
 */
#include "kvmd/tier/codec_int.h"
#include "kvmd/tier/codec_lossy.h"

struct whole {
	const struct codec_ops *ops;
	unsigned bits;		/* of a code: 8 or 4 */
};

static const struct whole int8 = { &codec_int8, 8 }, int4 = { &codec_int4, 4 };

static double whole_bound(const struct whole *w, double v, double least, double most)
{
	double a = max(-least, most);

	return bound_bf16(v, a / (2 * whole_most(w->bits)) * (1 + 0x1p-10) + 0x1p-25);
}

static size_t whole_bytes(const struct whole *w, const struct codec_shape *s)
{
	size_t n = codec_values(w->ops, s);

	if (!n)
		return 0;
	return CODEC_HEAD_BYTES + 2 * codec_nr_groups(s) + div_round_up(n, 8 / w->bits);
}

static int whole_encode(const struct whole *w, const struct codec_shape *s, const uint16_t *src,
			void *dst, size_t dst_bytes, size_t *ret_bytes)
{
	uint8_t *scales = (uint8_t *)dst + CODEC_HEAD_BYTES;
	size_t bytes = whole_bytes(w, s);
	struct codec_head h = { 0 };
	int err;

	if (!bytes)
		return -EINVAL;
	if (dst_bytes < bytes)
		return -ENOSPC;
	err = lossy_impl(s)->whole_encode(s, w->bits, src, scales,
					  scales + 2ul * codec_nr_groups(s));
	if (err)
		return err;
	codec_seal(w->ops, s, &h, bytes, dst);
	*ret_bytes = bytes;
	return 0;
}

static int whole_decode(const struct whole *w, const struct codec_shape *s, const void *src,
			size_t bytes, uint16_t *dst)
{
	const uint8_t *scales = (const uint8_t *)src + CODEC_HEAD_BYTES, *codes;
	size_t want = whole_bytes(w, s), n = codec_values(w->ops, s);
	struct codec_head h;
	int err;

	if (!want)
		return -EINVAL;
	err = codec_open(w->ops, s, src, bytes, &h);
	if (err)
		return err;
	if (bytes != want)
		return -EBADMSG;
	codes = scales + 2ul * codec_nr_groups(s);
	if (!lossy_impl(s)->whole_decode(s, w->bits, scales, codes, dst))
		return -EBADMSG;
	/* The half byte that no value has. */
	if (w->bits == 4 && n % 2 && codes[n / 2] >> 4)
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
