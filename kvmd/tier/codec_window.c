// SPDX-License-Identifier: Apache-2.0
/*
 * codec_window.c - lossless exponent coding: the base, the frame, coding by plain
 * means, and the choice among the ways.
 *
 * Values of one block have few different exponents: the eight bits of each become
 * four, counted from a base that is chosen for the block. The way is chosen at the
 * first call, by whichever threads make it: all of them choose the same. Any thread.
 */
#include "kvmd/tier/codec_int.h"
#include "kvmd/tier/codec_window_body.h"

static const struct window_impl *const impls[] = {
	&window_impl_avx512,
	&window_impl_avx2,
	&window_impl_plain,
};

static const struct window_impl *chosen;

const struct window_impl *window_impl_get(unsigned i)
{
	for (unsigned k = 0; k < ARRAY_SIZE(impls); k++)
		if (impls[k]->usable() && i-- == 0)
			return impls[k];
	return NULL;
}

static inline const struct window_impl *impl(void)
{
	const struct window_impl *i = ld_rlx(&chosen);

	if (unlikely(!i)) {
		i = window_impl_get(0);
		st_rlx(&chosen, i);
	}
	return i;
}

const char *codec_window_by(void)
{
	return impl()->name;
}

/*
 * The least base whose window has most of the values looked at. Neighbours are counted
 * apart, or each would wait for the one before it, for they are often the same.
 */
static uint8_t choose_base(const uint16_t *v, uint32_t nr)
{
	unsigned seen[4][256] = { { 0 } }, in = 0, most, best = 0;
	uint32_t i, end;

	for (unsigned n = 0; n < WINDOW_STRETCHES; n++) {
		end = window_stretch(nr, n, &i);
		for (; i + 4 <= end; i += 4)
			for (unsigned k = 0; k < 4; k++)
				seen[k][window_exponent(v[i + k])]++;
		for (; i < end; i++)
			seen[0][window_exponent(v[i])]++;
	}
	for (unsigned e = 0; e < 256; e++)
		seen[0][e] += seen[1][e] + seen[2][e] + seen[3][e];
	for (unsigned e = 0; e < WINDOW_WIDE; e++)
		in += seen[0][e];
	most = in;
	for (unsigned b = 1; b <= WINDOW_MAX_BASE; b++) {
		in += seen[0][b + WINDOW_WIDE - 1] - seen[0][b - 1];
		if (in > most) {
			most = in;
			best = b;
		}
	}
	return (uint8_t)best;
}

static double window_bound(double v, double least, double most)
{
	(void)v;
	(void)least;
	(void)most;
	return 0;
}

static size_t window_max(const struct codec_shape *s)
{
	size_t n = codec_values(&codec_window, s);

	return n ? CODEC_HEAD_BYTES + 2 * n : 0;
}

static struct window_parts parts_at(const void *at, size_t nr, size_t nr_escapes)
{
	uint8_t *p = (uint8_t *)(uintptr_t)at + CODEC_HEAD_BYTES;

	return (struct window_parts){ p, p + nr, p + nr + (nr + 1) / 2, nr_escapes };
}

static int window_encode(const struct codec_shape *s, const uint16_t *src, void *dst,
			 size_t dst_bytes, size_t *ret_bytes)
{
	size_t nr = codec_values(&codec_window, s), bytes = CODEC_HEAD_BYTES + 2 * nr, n;
	struct codec_head h = { .form = CODEC_RAW };
	struct window_parts p;
	uint8_t base;

	if (!nr)
		return -EINVAL;
	if (dst_bytes < bytes)
		return -ENOSPC;
	if (nr >= 2) {
		/* One byte less than raw, at least. */
		p = parts_at(dst, nr, nr / 2 - 1);
		base = choose_base(src, (uint32_t)nr);
		n = impl()->encode(src, nr, base, &p);
		if (n <= p.nr_escapes) {
			h.form = CODEC_CODED;
			h.base = base;
			h.escapes = (uint32_t)n;
			bytes = CODEC_HEAD_BYTES + nr + (nr + 1) / 2 + n;
		}
	}
	if (h.form == CODEC_RAW)
		memcpy((uint8_t *)dst + CODEC_HEAD_BYTES, src, 2 * nr);
	codec_seal(&codec_window, s, &h, bytes, dst);
	*ret_bytes = bytes;
	return 0;
}

static int window_decode(const struct codec_shape *s, const void *src, size_t bytes, uint16_t *dst)
{
	size_t nr = codec_values(&codec_window, s), raw = CODEC_HEAD_BYTES + 2 * nr;
	struct window_parts p;
	struct codec_head h;
	int err;

	if (!nr)
		return -EINVAL;
	err = codec_open(&codec_window, s, src, bytes, &h);
	if (err)
		return err;
	if (h.form == CODEC_RAW) {
		if (bytes != raw || h.base || h.escapes)
			return -EBADMSG;
		memcpy(dst, (const uint8_t *)src + CODEC_HEAD_BYTES, 2 * nr);
		return 0;
	}
	if (bytes >= raw || h.base > WINDOW_MAX_BASE ||
	    bytes != CODEC_HEAD_BYTES + nr + (nr + 1) / 2 + h.escapes)
		return -EBADMSG;
	p = parts_at(src, nr, h.escapes);
	return impl()->decode(&p, nr, h.base, dst) ? 0 : -EBADMSG;
}

const struct codec_ops codec_window = {
	.id = CODEC_WINDOW,
	.name = "window",
	.lossless = true,
	.nr_axis = 1,
	.bound = window_bound,
	.encoded_max = window_max,
	.encode = window_encode,
	.decode = window_decode,
};
