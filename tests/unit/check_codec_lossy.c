// SPDX-License-Identifier: Apache-2.0
/*
 * check_codec_lossy.c - fp8, int8, int4 and kivi2: every instruction set that this
 * processor has writes the bytes, gives back the values and says the errors of the plain
 * code.
 *
 * Encoded is by the whole codec, with one way after the other in use, so that shapes are
 * among them which a way leaves to the plain one.
 */
#include <check.h>
#include <math.h>

#include "kvmd/lib/crc32c.h"
#include "kvmd/tier/codec_int.h"
#include "kvmd/tier/codec_lossy.h"

#include "tests/quiet.h"
#include "tests/suite.h"
#include "tests/unit/codec_rig.h"

#define ROUNDS	1000u

/* ------------------------------------------------------------------ values */

enum kind {
	NORMAL, WIDE, ANY, ZEROS, SOME_ZEROS, TIES, NEAR_TIES, TINY, FEW_NAN, FEW_INF, TOO_LARGE,
	ONE_VALUE, LEVELS, NR_KIND
};

static uint16_t bf16(double v)
{
	return bf16_of_float((float)v);
}

static uint16_t value_of(enum kind kind, size_t i, unsigned some)
{
	switch (kind) {
	case WIDE:
		return ct_rnd_value(40);
	case ANY:
		return (uint16_t)ct_rnd(65536);
	case ZEROS:
		return (uint16_t)(ct_rnd(2) << 15);
	/* The least is a zero of either sign. */
	case SOME_ZEROS:
		return ct_rnd(3) ? ct_rnd_value(2) & BF16_ABS : (uint16_t)(ct_rnd(2) << 15);
	/* With 127, 7 or 3 among them these are q + 1/2, exactly. */
	case TIES:
		return bf16(ldexp(i % 32 == some % 32 ? some % 3 ? some % 2 ? 127 : 7 : 3 :
				  (double)ct_rnd(16) - 8 + 0.5, (int)some % 20 - 10));
	case NEAR_TIES:
		return (uint16_t)(bf16(ldexp(i % 32 == some % 32 ? 127 :
					     (double)ct_rnd(254) - 126.5, (int)some % 20 - 10)) +
				  (i % 32 == some % 32 ? 0 : ct_rnd(3)));
	case TINY:
		return (uint16_t)(ct_rnd(2) << 15 | ct_rnd(0x100));
	case FEW_NAN:
		return ct_rnd(1000) ? ct_rnd_value(2) : (uint16_t)(0x7f81 | ct_rnd(2) << 15);
	case FEW_INF:
		return ct_rnd(1000) ? ct_rnd_value(2) : (uint16_t)(0x7f80 | ct_rnd(2) << 15);
	case TOO_LARGE:
		return ct_rnd(1000) ? ct_rnd_value(2) : (uint16_t)(0x4800 + ct_rnd(0x3780));
	case ONE_VALUE:
		return (uint16_t)(some & 0xbfff);
	/* From a least one in steps that are halves of kivi2's, and a little more. */
	case LEVELS:
		return bf16(ldexp((double)ct_rnd(7) / 2 - (some % 4) +
				  (ct_rnd(4) ? 0 : ldexp(1, -(int)ct_rnd(30))), (int)some % 9));
	default:
		return ct_rnd_value(2);
	}
}

static void fill(uint16_t *v, size_t nr, enum kind kind)
{
	unsigned some = (unsigned)ct_rnd(1 << 30);

	for (size_t i = 0; i < nr; i++)
		v[i] = value_of(kind, i, some);
}

/* One that is in rows of 32 as often as not. */
static struct codec_shape some_shape(const struct codec_ops *ops)
{
	struct codec_shape s = { 0 };

	s.tokens = (uint32_t)(1 + ct_rnd(ct_rnd(3) ? 20 : 140));
	s.channels = (uint32_t)(1 + ct_rnd(ct_rnd(4) ? 150 : 900));
	if (ops->grouped) {
		s.group = (uint32_t)(32 + ct_rnd(97));
		s.axis = (uint32_t)ct_rnd(ops->nr_axis);
	}
	if (ct_rnd(4)) {
		s.channels = 32 * (1 + s.channels / 32);
		s.group = s.group / 32 * 32;
	}
	if (s.tokens * s.channels > VALUES)
		s.tokens = VALUES / s.channels;
	return s;
}

/* -------------------------------------------------------------- comparisons */

/* By @im: the error; what is written lies at the end of area @area. */
static int encode_by(const struct lossy_impl *im, const struct codec_ops *ops,
		     const struct codec_shape *s, const uint16_t *src, unsigned area)
{
	size_t most = ops->encoded_max(s), n = 0;
	uint8_t *to = ct_tail(area, most);
	int err;

	memset(to, 0xa5, most);
	lossy_impl_use(im);
	err = ops->encode(s, src, to, most, &n);
	lossy_impl_use(NULL);
	quiet_assert(err ? !n : n == most);
	return err;
}

static int decode_by(const struct lossy_impl *im, const struct codec_ops *ops,
		     const struct codec_shape *s, uint16_t *dst, unsigned area)
{
	size_t n = ops->encoded_max(s);
	int err;

	memset(dst, 0xa5, 2ul * s->tokens * s->channels);
	lossy_impl_use(im);
	err = ops->decode(s, ct_tail(area, n), n, dst);
	lossy_impl_use(NULL);
	return err;
}

/* Of what lies at the end of area 1, by all ways: the error, and where there is none the values. */
static int decoded_alike(const struct codec_ops *ops, const struct codec_shape *s)
{
	size_t nr = (size_t)s->tokens * s->channels;
	uint16_t *want = ct_tail(2, 2 * nr), *got = ct_tail(0, 2 * nr);
	const struct lossy_impl *im;
	int err = decode_by(&lossy_impl_plain, ops, s, want, 1);

	for (unsigned i = 0; (im = lossy_impl_get(i)); i++) {
		quiet_assert_int_eq(decode_by(im, ops, s, got, 1), err);
		quiet_assert_msg(err || !memcmp(want, got, 2 * nr), "%s by %s: %u x %u, %u, %u",
				 ops->name, im->name, s->tokens, s->channels, s->group, s->axis);
	}
	return err;
}

/* True: there were codes, and they lie at the end of area 1. */
static bool encoded_alike(const struct codec_ops *ops, const struct codec_shape *s,
			  const uint16_t *src)
{
	size_t n = ops->encoded_max(s);
	const struct lossy_impl *im;
	int err = encode_by(&lossy_impl_plain, ops, s, src, 1);

	for (unsigned i = 0; (im = lossy_impl_get(i)); i++) {
		quiet_assert_int_eq(encode_by(im, ops, s, src, 3), err);
		quiet_assert_msg(err || !memcmp(ct_tail(1, n), ct_tail(3, n), n),
				 "%s by %s: %u x %u, %u, %u", ops->name, im->name, s->tokens,
				 s->channels, s->group, s->axis);
	}
	return !err;
}

/* One code or range becomes another, of which many are never written. */
static void damage(uint8_t *enc, size_t n)
{
	size_t at = CODEC_HEAD_BYTES + ct_rnd(n - CODEC_HEAD_BYTES);

	enc[at] = (uint8_t)(ct_rnd(2) ? ct_rnd(256) : 0x7b + ct_rnd(8) + ct_rnd(2) * 0x80);
}

/* ------------------------------------------------------------------- tests */

START_TEST(all_ways_are_the_same)
{
	const struct codec_ops *ops = codec_get((uint32_t)_i);
	unsigned coded = 0, refused = 0, damaged = 0;
	struct codec_shape s;
	uint16_t *src;
	size_t nr;

	for (unsigned round = 0; round < ROUNDS; round++) {
		s = some_shape(ops);
		nr = (size_t)s.tokens * s.channels;
		src = ct_tail(0, 2 * nr);
		fill(src, nr, round % NR_KIND);
		if (!encoded_alike(ops, &s, src)) {
			refused++;
			continue;
		}
		coded++;
		quiet_assert_int_eq(decoded_alike(ops, &s), 0);
		for (unsigned i = 0; i < 4; i++) {
			damage(ct_tail(1, ops->encoded_max(&s)), ops->encoded_max(&s));
			damaged += decoded_alike(ops, &s) != 0;
		}
	}
	ck_assert_uint_gt(coded, ROUNDS / 4);
	ck_assert_uint_eq(!refused, !ops->grouped);
	/* Any code is one of e4m3. */
	ck_assert_uint_eq(!damaged, ops->id == CODEC_FP8_E4M3);
}
END_TEST

/* Every bf16; with groups, those up to some largest one, in many rows. */
START_TEST(every_pattern)
{
	const struct codec_ops *ops = codec_get((uint32_t)_i);
	struct codec_shape s = { 256, 256, ops->grouped ? 32 : 0, 0 };
	uint16_t *src = ct_tail(0, 2 * VALUES);

	for (s.axis = 0; s.axis < ops->nr_axis; s.axis++)
		for (unsigned round = 0; round < (ops->grouped ? 60 : 1); round++) {
			unsigned most = ops->grouped ? (unsigned)ct_rnd(0x4700) : 0xffff;

			src = ct_tail(0, 2 * VALUES);
			for (unsigned i = 0; i < VALUES; i++)
				src[i] = (uint16_t)((i * 0x9e37u & BF16_ABS) % (most + 1) |
						    (i & 0x8000));
			if (!ops->grouped)
				for (unsigned i = 0; i < VALUES; i++)
					src[i] = (uint16_t)i;
			quiet_assert(encoded_alike(ops, &s, src));
			quiet_assert_int_eq(decoded_alike(ops, &s), 0);
		}
}
END_TEST

/* Every length, ending where memory ends. */
START_TEST(any_length)
{
	const struct codec_ops *ops = codec_get((uint32_t)_i);
	struct codec_shape s = { 1, 1, ops->grouped ? 32 : 0, 0 };

	for (; s.channels < 300; s.channels++) {
		uint16_t *src = ct_tail(0, 2ul * s.channels);

		fill(src, s.channels, NORMAL);
		quiet_assert(encoded_alike(ops, &s, src));
		quiet_assert_int_eq(decoded_alike(ops, &s), 0);
	}
}
END_TEST

/* Values around the limits that kivi2 has for a group, which has that scale. */
static unsigned wrong_limits(uint16_t least, uint16_t scale)
{
	double low = (double)bf16_to_float(least), step = (double)fp16_to_float(scale), v;
	unsigned bad = 0;
	int key, limit;

	for (unsigned k = 0; k < 3; k++) {
		limit = kivi_limit(least, fp16_to_float(scale), k);
		for (key = limit - 2; key <= limit + 3; key++) {
			if (key >= (int)BF16_INF || key <= -(int)BF16_INF)
				continue;
			v = (double)bf16_to_float(kivi_of_key(key));
			if (v < low || v - low > 3 * step)
				continue;
			bad += (kivi_level(kivi_of_key(key), low, step) > k) != (key > limit);
		}
	}
	return bad;
}

START_TEST(limits_are_where_levels_change)
{
	uint16_t scale, least;
	unsigned bad = 0;
	double step;

	for (unsigned i = 0; i < 1000000; i++) {
		scale = (uint16_t)(1 + ct_rnd(FP16_INF - 1));
		scale &= (uint16_t)(i % 3 ? 0xffff : 0xfff8);
		scale = scale ? scale : 8;
		step = (double)fp16_to_float(scale);
		switch (i % 4) {
		case 0: least = bf16(step * ((double)ct_rnd(1 << 20) / (1 << 18) - 2)); break;
		/* Where the sum is next to nothing, or the least is to the scale. */
		case 1: least = bf16(-step * (double)(1 + ct_rnd(6)) / 2); break;
		case 2: least = bf16(ldexp(step, -(int)ct_rnd(40)) * (ct_rnd(2) ? 1 : -1)); break;
		default:
			/* A scale is no less than a third of the way to the next value. */
			least = (uint16_t)ct_rnd(65536);
			if ((least & BF16_ABS) >= BF16_INF - 1 ||
			    kivi_scale(least, kivi_of_key(kivi_key(least) + 1 +
							  (int)ct_rnd(9)), &scale) || !scale)
				continue;
			break;
		}
		bad += wrong_limits(least, scale);
	}
	ck_assert_uint_eq(bad, 0);
}
END_TEST

/* Values beside some that are near them, or any. */
START_TEST(the_largest_difference)
{
	const struct lossy_impl *im;
	float want;

	for (unsigned round = 0; round < ROUNDS; round++) {
		size_t nr = ct_rnd(ct_rnd(2) ? 40 : 2000);
		uint16_t *a = ct_tail(0, 2 * nr), *b = ct_tail(1, 2 * nr);

		fill(a, nr, round % NR_KIND);
		for (size_t i = 0; i < nr; i++)
			b[i] = (uint16_t)(a[i] ^ ct_rnd(round % 7 ? 1u << round % 7 : 65536));
		want = lossy_impl_plain.worst(a, b, nr);
		for (unsigned i = 0; (im = lossy_impl_get(i)); i++)
			quiet_assert(im->worst(a, b, nr) == want);
		quiet_assert(codec_worst(a, b, nr) == want);
		quiet_assert(lossy_impl_plain.worst(a, a, nr) == 0);
	}
}
END_TEST

START_TEST(the_best_way_is_in_use)
{
	struct codec_shape even = { 4, 64, 32, 0 }, odd = { 4, 63, 32, 0 };

	ck_assert_ptr_eq(lossy_impl(&even), lossy_impl_get(0));
	ck_assert_ptr_eq(lossy_impl(&odd), &lossy_impl_plain);
	lossy_impl_use(&lossy_impl_plain);
	ck_assert_ptr_eq(lossy_impl(&even), &lossy_impl_plain);
	lossy_impl_use(NULL);
	ck_assert_ptr_eq(lossy_impl(&even), lossy_impl_get(0));
	for (unsigned i = 0; lossy_impl_get(i); i++)
		ck_assert(lossy_impl_get(i)->usable());
}
END_TEST

int main(void)
{
	Suite *s = suite_create("codec_lossy");
	TCase *tc = suite_slow_group(s, "all ways are the same", ct_setup, ct_teardown, 60);

	tcase_add_loop_test(tc, all_ways_are_the_same, CODEC_FP8_E4M3, NR_CODEC);
	tcase_add_loop_test(tc, every_pattern, CODEC_FP8_E4M3, NR_CODEC);
	tcase_add_loop_test(tc, any_length, CODEC_FP8_E4M3, NR_CODEC);
	suite_test(s, "limits are where levels change", limits_are_where_levels_change, ct_setup,
		   ct_teardown);
	suite_test(s, "the largest difference", the_largest_difference, ct_setup, ct_teardown);
	suite_test(s, "the best way is in use", the_best_way_is_in_use, ct_setup, ct_teardown);

	return suite_run(s);
}
