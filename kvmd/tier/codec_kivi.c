// SPDX-License-Identifier: Apache-2.0
/*
 * codec_kivi.c - kivi2, four levels between a group's least and most value: bounds and
 * the frame. The coding is codec_lossy.h's.
 *
 * Keys have channels that are large in all tokens: a group is within one channel.
 * Values have none: a group is within one token (KIVI, arXiv:2402.02750). The least
 * value is kept as the bf16 it is, so only the scale and the level are rounded; the
 * differences are taken in double, wherein all but those of values more than 2^44
 * apart are exact. Pure functions; any thread.
 */
#include "kvmd/tier/codec_int.h"
#include "kvmd/tier/codec_lossy.h"

static double kivi_bound(double v, double least, double most)
{
	return bound_bf16(v, (most - least) / 6 * (1 + 0x1p-10) + 0x1p-25);
}

static size_t kivi_bytes(const struct codec_shape *s)
{
	size_t n = codec_values(&codec_kivi2, s);

	if (!n)
		return 0;
	return CODEC_HEAD_BYTES + 4 * codec_nr_groups(s) + div_round_up(n, KIVI_LEVELS);
}

static int kivi_encode(const struct codec_shape *s, const uint16_t *src, void *dst,
		       size_t dst_bytes, size_t *ret_bytes)
{
	uint8_t *ranges = (uint8_t *)dst + CODEC_HEAD_BYTES;
	size_t bytes = kivi_bytes(s);
	struct codec_head h = { 0 };
	int err;

	if (!bytes)
		return -EINVAL;
	if (dst_bytes < bytes)
		return -ENOSPC;
	err = lossy_impl(s)->kivi_encode(s, src, ranges, ranges + 4ul * codec_nr_groups(s));
	if (err)
		return err;
	codec_seal(&codec_kivi2, s, &h, bytes, dst);
	*ret_bytes = bytes;
	return 0;
}

static int kivi_decode(const struct codec_shape *s, const void *src, size_t bytes, uint16_t *dst)
{
	const uint8_t *ranges = (const uint8_t *)src + CODEC_HEAD_BYTES, *codes;
	size_t want = kivi_bytes(s), n = codec_values(&codec_kivi2, s);
	struct codec_head h;
	int err;

	if (!want)
		return -EINVAL;
	err = codec_open(&codec_kivi2, s, src, bytes, &h);
	if (err)
		return err;
	if (bytes != want)
		return -EBADMSG;
	codes = ranges + 4ul * codec_nr_groups(s);
	if (!lossy_impl(s)->kivi_decode(s, ranges, codes, dst))
		return -EBADMSG;
	/* The bits that no value has. */
	if (n % KIVI_LEVELS && codes[n / KIVI_LEVELS] >> n % KIVI_LEVELS * 2)
		return -EBADMSG;
	return 0;
}

const struct codec_ops codec_kivi2 = {
	.id = CODEC_KIVI2,
	.name = "kivi2",
	.grouped = true,
	.nr_axis = NR_CODEC_AXIS,
	.bound = kivi_bound,
	.encoded_max = kivi_bytes,
	.encode = kivi_encode,
	.decode = kivi_decode,
};
