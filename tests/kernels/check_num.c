// SPDX-License-Identifier: Apache-2.0
/*
 * check_num.c - small floating point formats: every pattern, and every place to round.
 *
 * What a pattern stands for is worked out here from the formats' definitions, in double,
 * where all of it is exact; rounding is then a search for the nearest.
 */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kvmd/tier/codec.h"
#include "tests/kernels/ref.h"
#include "tests/suite.h"

/* ----------------------------------------------------------------- formats */

static float from_bf16(uint32_t code)
{
	return kn_from_bf16((uint16_t)code);
}

static float from_f16(uint32_t code)
{
	return kn_from_f16((uint16_t)code);
}

static float from_e4m3(uint32_t code)
{
	return kn_from_e4m3((uint8_t)code);
}

static float from_e5m2(uint32_t code)
{
	return kn_from_e5m2((uint8_t)code);
}

static uint32_t to_bf16(float f)
{
	return kn_to_bf16(f);
}

static uint32_t to_f16(float f)
{
	return kn_to_f16(f);
}

static uint32_t to_e4m3(float f)
{
	return kn_to_e4m3(f);
}

static uint32_t to_e5m2(float f)
{
	return kn_to_e5m2(f);
}

static const struct format {
	const char *name;
	uint32_t dtype;
	uint32_t bits, man, bias;
	uint32_t most;			/* code of the largest number */
	bool has_inf;			/* the next code; others above are NaN */
	bool saturates;
	float (*from)(uint32_t code);
	uint32_t (*to)(float f);
} formats[] = {
	{ "bf16", KN_BF16, 16, 7, 127, 0x7f7f, true, false, from_bf16, to_bf16 },
	{ "fp16", KN_F16, 16, 10, 15, 0x7bff, true, false, from_f16, to_f16 },
	{ "e4m3", KN_E4M3, 8, 3, 7, 0x7e, false, true, from_e4m3, to_e4m3 },
	{ "e5m2", KN_E5M2, 8, 2, 15, 0x7b, true, true, from_e5m2, to_e5m2 },
};
#define NR_FORMAT	((int)(sizeof(formats) / sizeof(formats[0])))

/* Of a code without its sign, up to the largest number and one step more. */
static double value(const struct format *f, uint32_t code)
{
	const uint32_t man = code & ((1u << f->man) - 1), exp = code >> f->man;

	if (!exp)
		return ldexp(man, 1 - (int)f->bias - (int)f->man);
	return ldexp(man + (1u << f->man), (int)exp - (int)f->bias - (int)f->man);
}

/* The nearest to @v, ties to the even code. */
static uint32_t nearest(const struct format *f, float v)
{
	const uint32_t sign = signbit(v) ? 1u << (f->bits - 1) : 0;
	const double mag = fabs((double)v);
	uint32_t lo = 0, hi = f->most + 1;	/* value(lo) <= mag < value(hi) */
	double below, above;

	if (mag >= value(f, hi))
		return sign | (f->saturates ? f->most : hi);
	while (hi - lo > 1) {
		const uint32_t mid = (lo + hi) / 2;

		if (value(f, mid) <= mag)
			lo = mid;
		else
			hi = mid;
	}
	below = mag - value(f, lo);
	above = value(f, hi) - mag;
	if (above < below || (above == below && lo & 1))
		lo = hi;
	return sign | (f->saturates && lo > f->most ? f->most : lo);
}

static bool rounds(const struct format *f, float v)
{
	if (f->to(v) == nearest(f, v))
		return true;
	fprintf(stderr, "%s: %.9g (%08x) became %x, should be %x\n", f->name, (double)v, kn_bits(v),
		f->to(v), nearest(f, v));
	return false;
}

START_TEST(every_pattern_is_what_it_stands_for)
{
	const struct format *f = &formats[_i];
	const uint32_t sign = 1u << (f->bits - 1), inf = f->has_inf ? f->most + 1 : 0;
	uint32_t wrong = 0;

	for (uint32_t code = 0; code < 1u << f->bits; code++) {
		const uint32_t mag = code & ~sign;
		const float got = f->from(code);

		if (mag > f->most && mag != inf)
			wrong += !isnan(got);
		else if (mag > f->most)
			wrong += got != (code & sign ? -INFINITY : INFINITY);
		else
			wrong += got != (code & sign ? -value(f, mag) : value(f, mag));
		wrong += !isnan(got) && !!signbit(got) != !!(code & sign);
	}
	ck_assert_uint_eq(wrong, 0);
}
END_TEST

START_TEST(every_number_comes_back)
{
	const struct format *f = &formats[_i];
	const uint32_t sign = 1u << (f->bits - 1);
	uint32_t wrong = 0;

	for (uint32_t code = 0; code < 1u << f->bits; code++) {
		const uint32_t mag = code & ~sign, back = f->to(f->from(code));

		if (mag <= f->most || (f->has_inf && !f->saturates && mag == f->most + 1))
			wrong += back != code;
		else if (f->has_inf && mag == f->most + 1)
			wrong += back != ((code & sign) | f->most);
		else
			wrong += !isnan(f->from(back)) || (back & sign) != (code & sign);
	}
	ck_assert_uint_eq(wrong, 0);
}
END_TEST

/* Between any two neighbours, the middle and what is next to it; next to each of them too. */
START_TEST(every_place_to_round)
{
	const struct format *f = &formats[_i];
	bool ok = true;

	for (uint32_t code = 0; ok && code <= f->most; code++) {
		const float v = (float)value(f, code);
		const float mid = (float)((value(f, code) + value(f, code + 1)) / 2);
		const float at[] = { v, nextafterf(v, INFINITY), nextafterf(v, 0), mid,
				     nextafterf(mid, INFINITY), nextafterf(mid, 0) };

		for (size_t i = 0; ok && i < sizeof(at) / sizeof(at[0]); i++)
			ok = rounds(f, at[i]) && rounds(f, -at[i]);
	}
	ck_assert(ok);
}
END_TEST

START_TEST(any_float)
{
	const struct format *f = &formats[_i];
	uint64_t seed = 11;
	bool ok = true;

	for (int i = 0; ok && i < 300000; i++)
		ok = rounds(f, ref_finite(&seed)) && rounds(f, ref_normal(&seed));
	ck_assert(ok);
	ck_assert(rounds(f, 0.0f) && rounds(f, -0.0f) && rounds(f, 1e-45f) && rounds(f, 3.4e38f));
}
END_TEST

START_TEST(what_is_no_number)
{
	static const uint32_t nan[] = { 0x7fc00000, 0x7f800001, 0x7fffffff, 0xffc00000, 0xff800001,
					0x7f80ffff };
	const struct format *f = &formats[_i];
	const uint32_t sign = 1u << (f->bits - 1), inf = f->saturates ? f->most : f->most + 1;

	for (size_t i = 0; i < sizeof(nan) / sizeof(nan[0]); i++) {
		ck_assert(isnan(f->from(f->to(kn_float(nan[i])))));
		ck_assert_uint_eq(!!(f->to(kn_float(nan[i])) & sign), nan[i] >> 31);
	}
	ck_assert_uint_eq(f->to(INFINITY), inf);
	ck_assert_uint_eq(f->to(-INFINITY), inf | sign);
}
END_TEST

START_TEST(by_dtype)
{
	static const uint32_t bytes[NR_KN_DTYPE] = { 2, 2, 1, 1, 4 };
	uint8_t room[12];
	float v = 1.0f / 3;

	for (uint32_t d = 0; d < NR_KN_DTYPE; d++) {
		ck_assert_uint_eq(kn_dtype_bytes(d), bytes[d]);
		memset(room, 0xee, sizeof(room));
		kn_store(room, 1, d, v);
		/* The second value, and nothing beside it. */
		for (size_t i = 0; i < sizeof(room); i++)
			if (i < bytes[d] || i >= 2 * bytes[d])
				ck_assert_uint_eq(room[i], 0xee);
		if (d == KN_F32)
			ck_assert(kn_load(room, 1, d) == v);
		else
			ck_assert(kn_load(room, 1, d) == formats[d].from(nearest(&formats[d], v)));
	}
}
END_TEST

/* ------------------------------------------------------- the daemon's codec */

/* What the pool's fp8 codec makes of every bf16, a kernel makes of it as well. */
static void same_as_codec(enum codec_id id, const struct format *f)
{
	static uint16_t in[65536], out[65536];
	static uint8_t coded[65536 + 4096];
	const struct codec_shape shape = { 1, 65536, 0, 0 };
	const struct codec_ops *ops = codec_get(id);
	uint32_t wrong = 0;
	size_t n;

	for (uint32_t i = 0; i < 65536; i++)
		in[i] = (uint16_t)i;
	ck_assert_int_eq(ops->encode(&shape, in, coded, sizeof(coded), &n), 0);
	ck_assert_uint_eq(n, CODEC_HEAD_BYTES + 65536);
	ck_assert_int_eq(ops->decode(&shape, coded, n, out), 0);
	for (uint32_t i = 0; i < 65536; i++) {
		const uint8_t code = coded[CODEC_HEAD_BYTES + i];

		wrong += code != f->to(kn_from_bf16((uint16_t)i));
		if (!isnan(f->from(code)))
			wrong += out[i] != kn_to_bf16(f->from(code));
	}
	ck_assert_uint_eq(wrong, 0);
}

START_TEST(fp8_is_the_codecs)
{
	same_as_codec(CODEC_FP8_E4M3, &formats[2]);
	same_as_codec(CODEC_FP8_E5M2, &formats[3]);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("kernels: num");
	TCase *t = suite_slow_group(s, "formats", NULL, NULL, 60);

	tcase_add_loop_test(t, every_pattern_is_what_it_stands_for, 0, NR_FORMAT);
	tcase_add_loop_test(t, every_number_comes_back, 0, NR_FORMAT);
	tcase_add_loop_test(t, every_place_to_round, 0, NR_FORMAT);
	tcase_add_loop_test(t, any_float, 0, NR_FORMAT);
	tcase_add_loop_test(t, what_is_no_number, 0, NR_FORMAT);
	suite_test(s, "by dtype", by_dtype, NULL, NULL);
	suite_test(s, "codec", fp8_is_the_codecs, NULL, NULL);
	return suite_run(s);
}
