// SPDX-License-Identifier: Apache-2.0
/*
 * check_codec_bound.c - lossy codecs: fp8 as its specification has it, for every bf16;
 * int8, int4 and kivi2 within the bounds of codec.h, on random and on hard values.
 *
 * The references are in double and share no code with the codecs but the conversion
 * of a bf16.
 */
#include "kvmd/tier/codec_int.h"

#include <check.h>
#include <math.h>

#include "tests/quiet.h"
#include "tests/suite.h"
#include "tests/unit/codec_rig.h"

/* --------------------------------------------------------------------- fp8 */

/* OCP 8-bit Floating Point Specification 1.0: the value of a code below 128. */
static double fp8_value(unsigned code, unsigned bits, int bias)
{
	unsigned e = code >> bits, m = code & ((1u << bits) - 1);

	return e ? ldexp(1 + ldexp(m, -(int)bits), (int)e - bias) :
	       ldexp(m, 1 - bias - (int)bits);
}

/* The nearest of all, of two the even one. */
static unsigned fp8_nearest(double a, unsigned bits, int bias, unsigned most)
{
	unsigned best = 0;
	double d, least = a;

	if (a >= fp8_value(most, bits, bias))
		return most;
	for (unsigned c = 1; c <= most; c++) {
		d = fabs(fp8_value(c, bits, bias) - a);
		if (d < least || (d == least && c % 2 == 0)) {
			least = d;
			best = c;
		}
	}
	return best;
}

static void fp8_all(const struct codec_ops *ops, unsigned bits, int bias, unsigned most)
{
	struct codec_shape s = ct_row_of(VALUES);
	uint16_t *src = ct_tail(0, 2 * VALUES), *out = ct_tail(2, 2 * VALUES);
	uint8_t *enc = ct_tail(1, CODEC_HEAD_BYTES + VALUES);
	unsigned bad = 0, bad_value = 0, bad_bound = 0, want;
	double v, back;
	size_t n;

	for (unsigned i = 0; i < VALUES; i++)
		src[i] = (uint16_t)i;
	ck_assert_int_eq(ops->encode(&s, src, enc, CODEC_HEAD_BYTES + VALUES, &n), 0);
	ck_assert_uint_eq(n, CODEC_HEAD_BYTES + VALUES);
	ck_assert_int_eq(ops->decode(&s, enc, n, out), 0);
	for (unsigned i = 0; i < VALUES; i++) {
		v = (double)bf16_to_float(src[i]);
		back = (double)bf16_to_float(out[i]);
		if (isnan(v)) {
			bad += enc[CODEC_HEAD_BYTES + i] != (0x7f | (i >> 8 & 0x80));
			bad_value += !isnan(back);
			continue;
		}
		want = isinf(v) ? most : fp8_nearest(fabs(v), bits, bias, most);
		bad += enc[CODEC_HEAD_BYTES + i] != (want | (i >> 8 & 0x80));
		bad_value += fabs(back) != fp8_value(want, bits, bias);
		bad_value += !signbit(back) != !signbit(v);
		bad_bound += !isinf(v) && fabs(back - v) > ops->bound(v, v, v);
	}
	ck_assert_uint_eq(bad, 0);
	ck_assert_uint_eq(bad_value, 0);
	ck_assert_uint_eq(bad_bound, 0);
}

START_TEST(fp8_is_ocps)
{
	ck_assert_double_eq(fp8_value(0x7e, 3, 7), 448);
	ck_assert_double_eq(fp8_value(0x7b, 2, 15), 57344);
	fp8_all(&codec_fp8_e4m3, 3, 7, 0x7e);
	fp8_all(&codec_fp8_e5m2, 2, 15, 0x7b);
}
END_TEST

/* ------------------------------------------------------------------ groups */

/* The group of value @i as codec.h says it: its extremes. */
static void extremes(const struct codec_shape *s, const uint16_t *v, size_t i, double *ret_least,
		     double *ret_most)
{
	size_t t = i / s->channels, c = i % s->channels;
	size_t t0 = t, t1 = t + 1, c0 = c, c1 = c + 1;
	double x;

	if (s->axis == CODEC_PER_CHANNEL) {
		t0 = t / s->group * s->group;
		t1 = min(t0 + s->group, (size_t)s->tokens);
	} else {
		c0 = c / s->group * s->group;
		c1 = min(c0 + s->group, (size_t)s->channels);
	}
	*ret_least = INFINITY;
	*ret_most = -INFINITY;
	for (t = t0; t < t1; t++)
		for (c = c0; c < c1; c++) {
			x = (double)bf16_to_float(v[t * s->channels + c]);
			*ret_least = fmin(*ret_least, x);
			*ret_most = fmax(*ret_most, x);
		}
}

/* The bounds as codec.h has them, without its rounding to bf16. */
static double lost(enum codec_id id, double least, double most)
{
	double a = fmax(fabs(least), fabs(most));

	if (id == CODEC_KIVI2)
		return (most - least) / 6 * (1 + 0x1p-10) + 0x1p-25;
	return a / (id == CODEC_INT8 ? 254 : 14) * (1 + 0x1p-10) + 0x1p-25;
}

static double fp16_value(unsigned h)
{
	return h < 1024 ? ldexp(h, -24) : ldexp(1024 + (h & 1023), (int)(h >> 10) - 25);
}

/* What stands there before it is rounded to bf16: read by the format of codec.h. */
static double stored(enum codec_id id, const struct codec_shape *s, const uint8_t *enc, size_t i)
{
	size_t t = i / s->channels, c = i % s->channels;
	size_t across = div_round_up(s->channels, s->group);
	size_t down = div_round_up(s->tokens, s->group);
	size_t g = s->axis == CODEC_PER_CHANNEL ? t / s->group * s->channels + c :
		   t * across + c / s->group;
	size_t nr = s->axis == CODEC_PER_CHANNEL ? down * s->channels : across * s->tokens;
	const uint8_t *scales = enc + CODEC_HEAD_BYTES, *codes;
	unsigned each = id == CODEC_KIVI2 ? 4 : 2, h, q;
	double scale;

	h = scales[each * g] | (unsigned)scales[each * g + 1] << 8;
	scale = fp16_value(h);
	codes = scales + each * nr;
	if (id == CODEC_INT8)
		return (int8_t)codes[i] * scale;
	if (id == CODEC_INT4) {
		q = codes[i / 2] >> i % 2 * 4 & 15;
		return (q < 8 ? (double)q : (double)q - 16) * scale;
	}
	q = codes[i / 4] >> i % 4 * 2 & 3;
	return (double)bf16_to_float((uint16_t)(scales[each * g + 2] | scales[each * g + 3] << 8)) +
	       q * scale;
}

static void within_bound(const struct codec_ops *ops, const struct codec_shape *s,
			 const uint16_t *src)
{
	size_t nr = (size_t)s->tokens * s->channels, most = ops->encoded_max(s), n = 0;
	uint16_t *out = ct_tail(2, 2 * nr);
	uint8_t *enc = ct_tail(1, most);
	double least, top, v, e, back;

	quiet_assert_int_eq(ops->encode(s, src, enc, most, &n), 0);
	quiet_assert_uint_eq(n, most);
	memset(out, 0xff, 2 * nr);
	quiet_assert_int_eq(ops->decode(s, enc, n, out), 0);
	for (size_t i = 0; i < nr; i++) {
		extremes(s, src, i, &least, &top);
		v = (double)bf16_to_float(src[i]);
		back = (double)bf16_to_float(out[i]);
		e = lost(ops->id, least, top);
		quiet_assert_msg(fabs(stored(ops->id, s, enc, i) - v) <= e * (1 + 0x1p-40),
				 "%s: value %zu, %g, stored as %g", ops->name, i, v,
				 stored(ops->id, s, enc, i));
		quiet_assert_msg(fabs(back - v) <= e + (fabs(v) + e) / 256 + 0x1p-134,
				 "%s: value %zu, %g, came back as %g", ops->name, i, v, back);
		quiet_assert(fabs(back - v) <= ops->bound(v, least, top));
	}
}

/* Values that are hard on a scale: @kind 0.. */
#define NR_HARD	8u
static void hard_values(uint16_t *v, size_t nr, unsigned kind)
{
	uint16_t top = (uint16_t)(0x3000 + ct_rnd(0x1500));
	float f = bf16_to_float(top);

	for (size_t i = 0; i < nr; i++)
		switch (kind) {
		case 0: v[i] = ct_rnd_value(0); break;
		case 1: v[i] = ct_rnd_value(15); break;
		case 2: v[i] = (uint16_t)(ct_rnd(2) << 15 | ct_rnd(0x4780)); break;
		/* Half way between two codes, about: of int8, int4, kivi2. */
		case 3:
			v[i] = i % 32 ? bf16_of_float(f * ((float)ct_rnd(254) - 127) / 254) : top;
			break;
		case 4:
			v[i] = i % 32 ? bf16_of_float(f * ((float)ct_rnd(28) - 14) / 14) : top;
			break;
		case 5: v[i] = i % 32 ? bf16_of_float(f * (float)ct_rnd(7) / 6) : 0; break;
		/* Nothing but zeros, denormals, and what fp16 has denormals for. */
		case 6: v[i] = (uint16_t)(ct_rnd(2) << 15 | ct_rnd(3) * ct_rnd(0x80)); break;
		default: v[i] = (uint16_t)(ct_rnd(2) << 15 | (0x3000 + ct_rnd(0x900))); break;
		}
}

static void bounds_hold(const struct codec_ops *ops)
{
	struct codec_shape s;
	uint16_t *src;
	size_t nr;

	for (unsigned round = 0; round < 60 * NR_HARD; round++) {
		s.tokens = (uint32_t)(1 + ct_rnd(40));
		s.channels = (uint32_t)(1 + ct_rnd(150));
		s.group = CODEC_MIN_GROUP;
		s.group += (uint32_t)ct_rnd(CODEC_MAX_GROUP - CODEC_MIN_GROUP + 1);
		s.axis = (uint32_t)ct_rnd(ops->nr_axis);
		nr = (size_t)s.tokens * s.channels;
		src = ct_tail(0, 2 * nr);
		hard_values(src, nr, round % NR_HARD);
		within_bound(ops, &s, src);
	}
}

START_TEST(int8_is_within_its_bound)
{
	bounds_hold(&codec_int8);
}
END_TEST

START_TEST(int4_is_within_its_bound)
{
	bounds_hold(&codec_int4);
}
END_TEST

START_TEST(kivi2_is_within_its_bound)
{
	bounds_hold(&codec_kivi2);
}
END_TEST

START_TEST(zeros_and_extremes_of_a_group)
{
	struct codec_shape s = { 1, 96, 32, 0 };
	uint16_t *src = ct_tail(0, 192), *out = ct_tail(2, 192);
	uint8_t *enc = ct_area[1];
	size_t n;

	for (unsigned i = 0; i < 96; i++)
		src[i] = i < 32 ? 0x8000 : i < 64 ? 0x3f80 : 0;
	for (uint32_t id = CODEC_INT8; id <= CODEC_KIVI2; id++) {
		ck_assert_int_eq(codec_get(id)->encode(&s, src, enc, SPAN, &n), 0);
		ck_assert_int_eq(codec_get(id)->decode(&s, enc, n, out), 0);
		for (unsigned i = 0; i < 96; i++)
			ck_assert_uint_eq(out[i] & 0x7fff, src[i] & 0x7fff);
	}
	/* The largest that has a scale: 65504 * 127, 65504 * 7, 65504 * 3 rounded down. */
	for (uint32_t id = CODEC_INT8; id <= CODEC_KIVI2; id++) {
		static const float most[NR_CODEC] = { [CODEC_INT8] = 65504.f * 127,
			[CODEC_INT4] = 65504.f * 7, [CODEC_KIVI2] = 65504.f * 3 };
		uint16_t v = bf16_of_float(most[id]);

		v = (uint16_t)(bf16_to_float(v) > most[id] ? v - 1 : v);
		src[40] = v;
		src[41] = 0;
		within_bound(codec_get(id), &s, src);
		src[40] = v + 1;
		ck_assert_int_eq(codec_get(id)->encode(&s, src, enc, SPAN, &n), -ERANGE);
	}
}
END_TEST

/* A group of one value, and 0: what its scale is. */
START_TEST(a_scale_is_the_least_that_reaches)
{
	static const double steps[NR_CODEC] = { [CODEC_INT8] = 127, [CODEC_INT4] = 7,
						[CODEC_KIVI2] = 3 };
	struct codec_shape s = { 1, 2, 32, 0 };
	uint16_t *src = ct_tail(0, 4);
	unsigned bad = 0, h;
	double v;
	size_t n;

	src[0] = 0;
	for (uint32_t id = CODEC_INT8; id <= CODEC_KIVI2; id++)
		for (src[1] = 0; src[1] < 0x4800; src[1]++) {
			v = (double)bf16_to_float(src[1]) / steps[id];
			if (v > 65504)
				break;
			bad += codec_get(id)->encode(&s, src, ct_area[1], SPAN, &n) != 0;
			h = ct_area[1][CODEC_HEAD_BYTES] |
			    (unsigned)ct_area[1][CODEC_HEAD_BYTES + 1] << 8;
			bad += fp16_value(h) < v || (h && fp16_value(h - 1) >= v);
		}
	ck_assert_uint_eq(bad, 0);
}
END_TEST

START_TEST(no_scale_for_what_is_no_number)
{
	static const uint16_t none[] = { 0x7f80, 0xff80, 0x7fc0, 0xffff, 0x7f81 };
	struct codec_shape s = { 5, 67, 32, 0 };
	uint16_t *src = ct_tail(0, 2 * 5 * 67);
	unsigned bad = 0;
	int err;
	size_t n;

	memset(src, 0, 2 * 5 * 67);
	for (uint32_t id = CODEC_INT8; id <= CODEC_KIVI2; id++)
		for (s.axis = 0; s.axis < codec_get(id)->nr_axis; s.axis++)
			for (unsigned i = 0; i < 5 * 67; i++) {
				src[i] = none[i % ARRAY_SIZE(none)];
				err = codec_get(id)->encode(&s, src, ct_area[1], SPAN, &n);
				bad += err != -EDOM;
				src[i] = 0;
			}
	ck_assert_uint_eq(bad, 0);
}
END_TEST

static void add(Suite *s, const char *behaviour, const TTest *test)
{
	suite_test(s, behaviour, test, ct_setup, ct_teardown);
}

int main(void)
{
	Suite *s = suite_create("codec_bound");

	add(s, "fp8 is OCP's", fp8_is_ocps);
	add(s, "int8 is within its bound", int8_is_within_its_bound);
	add(s, "int4 is within its bound", int4_is_within_its_bound);
	add(s, "kivi2 is within its bound", kivi2_is_within_its_bound);
	add(s, "zeros and extremes of a group", zeros_and_extremes_of_a_group);
	add(s, "a scale is the least that reaches", a_scale_is_the_least_that_reaches);
	add(s, "no scale for what is no number", no_scale_for_what_is_no_number);

	return suite_run(s);
}
