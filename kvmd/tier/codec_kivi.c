// SPDX-License-Identifier: Apache-2.0
/*
 * codec_kivi.c - kivi2: four levels between a group's least and most value.
 *
 * Keys have channels that are large in all tokens: a group is within one channel.
 * Values have none: a group is within one token (KIVI, arXiv:2402.02750). The least
 * value is kept as the bf16 it is, so only the scale and the level are rounded; the
 * differences are taken in double, wherein all but those of values more than 2^44
 * apart are exact. Pure functions; any thread.
 */
#include "kvmd/tier/codec_int.h"

#define LEVELS	4u

static double kivi_bound(double v, double least, double most)
{
	return bound_bf16(v, (most - least) / 6 * (1 + 0x1p-10) + 0x1p-25);
}

static size_t kivi_bytes(const struct codec_shape *s)
{
	size_t n = codec_values(&codec_kivi2, s);

	if (!n)
		return 0;
	return CODEC_HEAD_BYTES + 4 * codec_nr_groups(s) + div_round_up(n, LEVELS);
}

/* -EDOM, -ERANGE: codec.h. */
static int range_of(const struct codec_group *g, const uint16_t *v, uint16_t *ret_least,
		    uint16_t *ret_scale)
{
	uint16_t least = v[g->first], most = least, x;

	for (unsigned k = 0; k < g->nr; k++) {
		x = v[g->first + k * g->step];
		if ((x & BF16_ABS) >= BF16_INF)
			return -EDOM;
		if (bf16_to_float(x) < bf16_to_float(least))
			least = x;
		if (bf16_to_float(x) > bf16_to_float(most))
			most = x;
	}
	*ret_least = least;
	return fp16_up(((double)bf16_to_float(most) - (double)bf16_to_float(least)) / 3, ret_scale);
}

static unsigned level_of(uint16_t v, double least, double scale)
{
	float level = round_even((float)(((double)bf16_to_float(v) - least) / scale));

	return level > 3 ? 3 : (unsigned)level;
}

static int kivi_encode(const struct codec_shape *s, const uint16_t *src, void *dst,
		       size_t dst_bytes, size_t *ret_bytes)
{
	size_t bytes = kivi_bytes(s), nr, at;
	struct codec_head h = { 0 };
	uint8_t *ranges, *codes;
	uint16_t least, scale;
	struct codec_group g;
	double low, step;
	unsigned level;
	int err;

	if (!bytes)
		return -EINVAL;
	if (dst_bytes < bytes)
		return -ENOSPC;
	nr = codec_nr_groups(s);
	ranges = (uint8_t *)dst + CODEC_HEAD_BYTES;
	codes = ranges + 4 * nr;
	memset(codes, 0, bytes - CODEC_HEAD_BYTES - 4 * nr);
	for (size_t i = 0; i < nr; i++) {
		g = codec_group(s, i);
		err = range_of(&g, src, &least, &scale);
		if (err)
			return err;
		put_u16(ranges + 4 * i, scale);
		put_u16(ranges + 4 * i + 2, least);
		low = (double)bf16_to_float(least);
		step = (double)fp16_to_float(scale);
		if (step == 0)
			continue;
		for (unsigned k = 0; k < g.nr; k++) {
			at = g.first + k * g.step;
			level = level_of(src[at], low, step);
			codes[at / LEVELS] |= (uint8_t)(level << at % LEVELS * 2);
		}
	}
	codec_seal(&codec_kivi2, s, &h, bytes, dst);
	*ret_bytes = bytes;
	return 0;
}

static int kivi_decode(const struct codec_shape *s, const void *src, size_t bytes, uint16_t *dst)
{
	const uint8_t *ranges = (const uint8_t *)src + CODEC_HEAD_BYTES, *codes;
	size_t want = kivi_bytes(s), nr, at, n;
	uint16_t scale, least, value[LEVELS];
	struct codec_group g;
	struct codec_head h;
	int err;

	if (!want)
		return -EINVAL;
	err = codec_open(&codec_kivi2, s, src, bytes, &h);
	if (err)
		return err;
	if (bytes != want)
		return -EBADMSG;
	nr = codec_nr_groups(s);
	codes = ranges + 4 * nr;
	for (size_t i = 0; i < nr; i++) {
		g = codec_group(s, i);
		scale = get_u16(ranges + 4 * i);
		least = get_u16(ranges + 4 * i + 2);
		if (!fp16_is_scale(scale) || (least & BF16_ABS) >= BF16_INF)
			return -EBADMSG;
		for (unsigned q = 0; q < LEVELS; q++)
			value[q] = bf16_of_float(bf16_to_float(least) +
						 (float)q * fp16_to_float(scale));
		for (unsigned k = 0; k < g.nr; k++) {
			at = g.first + k * g.step;
			dst[at] = value[codes[at / LEVELS] >> at % LEVELS * 2 & 3];
		}
	}
	/* The bits that no value has. */
	n = codec_values(&codec_kivi2, s);
	if (n % LEVELS && codes[n / LEVELS] >> n % LEVELS * 2)
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
