// SPDX-License-Identifier: Apache-2.0
/*
 * codec_lossy.c - fp8, int8, int4 and kivi2 by plain means, and the choice among the ways.
 *
 * The way is chosen at the first call, by whichever threads make it: all of them choose
 * the same. Any thread.
 */
#include "kvmd/tier/codec_int.h"
#include "kvmd/tier/codec_lossy.h"

/* --------------------------------------------------------------------- fp8 */

static void fp8_encode(const struct codec_fp8 *f, const uint16_t *src, size_t nr, uint8_t *to)
{
	for (size_t i = 0; i < nr; i++)
		to[i] = fp8_of(f, src[i]);
}

static bool fp8_decode(const struct codec_fp8 *f, const uint8_t *from, size_t nr, uint16_t *dst)
{
	uint16_t value[128];
	bool good = true;

	for (unsigned i = 0; i < ARRAY_SIZE(value); i++)
		value[i] = fp8_to(f, (uint8_t)i);
	for (size_t i = 0; i < nr; i++) {
		good &= fp8_is_written(f, from[i]);
		dst[i] = (uint16_t)(value[from[i] & 0x7f] | (from[i] & 0x80) << 8);
	}
	return good;
}

/* -------------------------------------------------------------- int8, int4 */

/* The scale of @nr neighbours. */
static int scale_of(const uint16_t *v, unsigned nr, int most, uint16_t *ret)
{
	uint16_t a = 0;

	for (unsigned i = 0; i < nr; i++)
		a = max(a, (uint16_t)(v[i] & BF16_ABS));
	return whole_scale(a, most, ret);
}

static void quantise(const uint16_t *v, unsigned nr, float scale, int8_t *q)
{
	if (scale == 0) {
		memset(q, 0, nr);
		return;
	}
	for (unsigned i = 0; i < nr; i++)
		q[i] = whole_of(v[i], scale);
}

static void pack(unsigned bits, const int8_t *q, unsigned nr, uint8_t *to, size_t at)
{
	if (bits == 8) {
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
static bool unpack(unsigned bits, const uint8_t *from, size_t at, unsigned nr, int8_t *q)
{
	int most = whole_most(bits);
	bool good = true;

	if (bits == 8)
		memcpy(q, from + at, nr);
	else
		for (unsigned i = 0; i < nr; i++, at++)
			q[i] = (int8_t)((at % 2 ? from[at / 2] >> 4 : from[at / 2] & 15) ^ 8) - 8;
	for (unsigned i = 0; i < nr; i++)
		good &= q[i] >= -most;
	return good;
}

static int whole_encode(const struct codec_shape *s, unsigned bits, const uint16_t *src,
			uint8_t *scales, uint8_t *codes)
{
	uint32_t nr = codec_nr_groups(s);
	int8_t q[CODEC_MAX_GROUP];
	struct codec_group g;
	uint16_t scale;
	int err;

	for (uint32_t i = 0; i < nr; i++) {
		g = codec_nth_group(s, i);
		err = scale_of(src + g.first, g.nr, whole_most(bits), &scale);
		if (err)
			return err;
		put_u16(scales + 2ul * i, scale);
		quantise(src + g.first, g.nr, fp16_to_float(scale), q);
		pack(bits, q, g.nr, codes, g.first);
	}
	return 0;
}

static bool whole_decode(const struct codec_shape *s, unsigned bits, const uint8_t *scales,
			 const uint8_t *codes, uint16_t *dst)
{
	uint32_t nr = codec_nr_groups(s);
	int8_t q[CODEC_MAX_GROUP];
	struct codec_group g;
	uint16_t scale;

	for (uint32_t i = 0; i < nr; i++) {
		g = codec_nth_group(s, i);
		scale = get_u16(scales + 2ul * i);
		if (!fp16_is_scale(scale) || !unpack(bits, codes, g.first, g.nr, q))
			return false;
		for (unsigned k = 0; k < g.nr; k++)
			dst[g.first + k] = whole_to(q[k], fp16_to_float(scale));
	}
	return true;
}

/* ------------------------------------------------------------------- kivi2 */

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
	return kivi_scale(least, most, ret_scale);
}

static int kivi_encode(const struct codec_shape *s, const uint16_t *src, uint8_t *ranges,
		       uint8_t *codes)
{
	uint32_t nr = codec_nr_groups(s), at;
	uint16_t least, scale;
	struct codec_group g;
	int limit[3], key;
	unsigned level;
	int err;

	memset(codes, 0, div_round_up((uint64_t)s->tokens * s->channels, KIVI_LEVELS));
	for (uint32_t i = 0; i < nr; i++) {
		g = codec_nth_group(s, i);
		err = range_of(&g, src, &least, &scale);
		if (err)
			return err;
		put_u16(ranges + 4ul * i, scale);
		put_u16(ranges + 4ul * i + 2, least);
		if (!scale)
			continue;
		for (unsigned k = 0; k < 3; k++)
			limit[k] = kivi_limit(least, fp16_to_float(scale), k);
		for (unsigned k = 0; k < g.nr; k++) {
			at = g.first + k * g.step;
			key = kivi_key(src[at]);
			level = 0;
			for (unsigned q = 0; q < 3; q++)
				level += key > limit[q];
			codes[at / KIVI_LEVELS] |= (uint8_t)(level << at % KIVI_LEVELS * 2);
		}
	}
	return 0;
}

static bool kivi_decode(const struct codec_shape *s, const uint8_t *ranges, const uint8_t *codes,
			uint16_t *dst)
{
	uint32_t nr = codec_nr_groups(s), at;
	uint16_t value[KIVI_LEVELS];
	struct codec_group g;

	for (uint32_t i = 0; i < nr; i++) {
		g = codec_nth_group(s, i);
		if (!kivi_values(ranges + 4ul * i, value))
			return false;
		for (unsigned k = 0; k < g.nr; k++) {
			at = g.first + k * g.step;
			dst[at] = value[codes[at / KIVI_LEVELS] >> at % KIVI_LEVELS * 2 & 3];
		}
	}
	return true;
}

static float worst_of(const uint16_t *a, const uint16_t *b, size_t nr)
{
	float worst = 0;

	for (size_t i = 0; i < nr; i++)
		worst = worse(worst, a[i], b[i]);
	return worst;
}

/* --------------------------------------------------------------- the choice */

static bool usable(void)
{
	return true;
}

const struct lossy_impl lossy_impl_plain = {
	.name = "plain",
	.usable = usable,
	.fp8_encode = fp8_encode,
	.fp8_decode = fp8_decode,
	.whole_encode = whole_encode,
	.whole_decode = whole_decode,
	.kivi_encode = kivi_encode,
	.kivi_decode = kivi_decode,
	.worst = worst_of,
};

static const struct lossy_impl *const impls[] = {
	&lossy_impl_avx512,
	&lossy_impl_avx2,
	&lossy_impl_plain,
};

static const struct lossy_impl *chosen;

const struct lossy_impl *lossy_impl_get(unsigned i)
{
	for (unsigned k = 0; k < ARRAY_SIZE(impls); k++)
		if (impls[k]->usable() && i-- == 0)
			return impls[k];
	return NULL;
}

void lossy_impl_use(const struct lossy_impl *im)
{
	st_rlx(&chosen, im);
}

static const struct lossy_impl *best(void)
{
	const struct lossy_impl *i = ld_rlx(&chosen);

	if (unlikely(!i)) {
		i = lossy_impl_get(0);
		st_rlx(&chosen, i);
	}
	return i;
}

const struct lossy_impl *lossy_impl(const struct codec_shape *s)
{
	if (s->group % LOSSY_AT_ONCE || (s->group && s->channels % LOSSY_AT_ONCE))
		return &lossy_impl_plain;
	return best();
}

float codec_worst(const uint16_t *a, const uint16_t *b, size_t nr)
{
	return best()->worst(a, b, nr);
}
