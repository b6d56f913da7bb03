// SPDX-License-Identifier: Apache-2.0
/*
 * check_codec_kernels.c - codecs as kernels: the bytes, sizes and errors are those of
 * kvmd/tier/codec.h, in both directions, for whatever values, shapes and damage.
 *
 * Memory lies askew by a few bytes, ends where it must end (a sanitizer sees to the
 * reading), and has marks behind it (what is written).
 */
#include "kvmd/lib/crc32c.h"
#include "kvmd/tier/codec_int.h"
#include "kernels/kernels.h"

#include <check.h>
#include <math.h>

#include "tests/kernels/ref.h"
#include "tests/quiet.h"
#include "tests/suite.h"

#define MARK		0xa5
#define MARKS		32u		/* bytes of it behind what is written */
#define MAX_PARTS	5u

static uint64_t seed = 11;

static unsigned some_threads(void)
{
	static const unsigned nr[] = { 0, 1, 7, 32, 64, 256 };

	return nr[ref_below(&seed, ARRAY_SIZE(nr))];
}

/* ------------------------------------------------------------------ values */

enum kind {
	NORMAL, WIDE, ANY, ZEROES, TIES, TINY, WITH_NAN, WITH_INF, TOO_LARGE, ONE_VALUE, ESCAPES,
	FEW_ESCAPES, NR_KIND
};

static uint16_t bf16(double v)
{
	return kn_to_bf16((float)v);
}

static uint16_t value_of(enum kind kind, unsigned i, unsigned some)
{
	double v = (double)ref_normal(&seed);

	switch (kind) {
	case WIDE:
		return bf16(ldexp(v, (int)ref_below(&seed, 60) - 40));
	case ANY:
		return (uint16_t)ref_rand(&seed);
	case ZEROES:
		return ref_below(&seed, 2) ? 0x8000 : 0;
	case TIES:
		/* With 127, 7 or 3 among them these are q + 1/2, exactly. */
		return bf16(ldexp(i % 16 == some % 16 ? some % 3 ? some % 2 ? 127 : 7 : 3 :
				  (int)ref_below(&seed, 16) - 8 + 0.5, (int)some % 20 - 10));
	case TINY:
		return (uint16_t)(ref_below(&seed, 2) << 15 | ref_below(&seed, 0x100));
	case WITH_NAN:
		return i % 331 == some % 331 ? 0x7fc1 : bf16(v);
	case WITH_INF:
		return i % 331 == some % 331 ? 0xff80 : bf16(v);
	case TOO_LARGE:
		return bf16(ldexp(v, i % 97 == 5 ? 120 : 0));
	case ONE_VALUE:
		return (uint16_t)(some & 0xbfff);
	case ESCAPES:
		return bf16(ldexp(v, i % 8 < some % 9 ? (int)ref_below(&seed, 200) - 100 : 0));
	case FEW_ESCAPES:
		return ref_below(&seed, 100) ? bf16(v) : (uint16_t)ref_rand(&seed);
	default:
		return bf16(v);
	}
}

static void fill(uint16_t *v, size_t n, enum kind kind)
{
	unsigned some = (unsigned)ref_rand(&seed);

	for (size_t i = 0; i < n; i++)
		v[i] = value_of(kind, (unsigned)i, some);
}

static struct codec_shape some_shape(const struct codec_ops *ops)
{
	struct codec_shape s = { 0 };

	s.tokens = 1 + ref_below(&seed, ref_below(&seed, 4) ? 40 : 200);
	s.channels = 1 + ref_below(&seed, ref_below(&seed, 4) ? 150 : 400);
	if (ref_below(&seed, 2)) {
		s.tokens = 16 * (1 + s.tokens / 16);
		s.channels = 64 * (1 + s.channels / 64);
	}
	if (ops->grouped) {
		s.group = ref_below(&seed, 2) ? 32u << ref_below(&seed, 3) :
			  32 + ref_below(&seed, 97);
		s.axis = ref_below(&seed, ops->nr_axis);
	}
	return s;
}

/* ------------------------------------------------------------------- parts */

/* @bytes that begin @askew behind a multiple of 64, and marks behind them. */
struct area {
	uint8_t *mem, *p;
	size_t bytes;
};

static struct area area_of(size_t bytes, unsigned askew)
{
	struct area a = { .mem = ref_alloc(askew + bytes + MARKS), .bytes = bytes };

	a.p = a.mem + askew;
	memset(a.mem, MARK, askew + bytes + MARKS);
	return a;
}

static bool marks_are_there(const struct area *a)
{
	for (const uint8_t *p = a->mem; p < a->p; p++)
		if (*p != MARK)
			return false;
	for (unsigned i = 0; i < MARKS; i++)
		if (a->p[a->bytes + i] != MARK)
			return false;
	return true;
}

/* Memory that is only read: nothing behind it. */
static struct area copy_of(const void *from, size_t bytes, unsigned askew)
{
	struct area a = { .mem = malloc(askew + bytes + !bytes), .bytes = bytes };

	quiet_assert(a.mem);
	a.p = a.mem + askew;
	memcpy(a.p, from, bytes);
	return a;
}

static void launch(bool decode, const struct codec_ops *ops, const struct codec_shape *s,
		   const struct kn_part *part, unsigned nr, int32_t *status, uint32_t *bytes)
{
	struct kn_codec_args args = { part, status, bytes, s->tokens, s->channels, s->group,
				      s->axis };

	memset(status, 0x77, nr * sizeof(*status));
	if (bytes)
		memset(bytes, 0x77, nr * sizeof(*bytes));
	ref_launch(decode ? KN_DECODE(ops->id) : KN_ENCODE(ops->id), nr, 1, 1, some_threads(),
		   &args);
}

/* |decoded - v| is within what codec.h says, of the finite values. */
static bool within_bound(const struct codec_ops *ops, const struct codec_shape *s,
			 const uint16_t *v, const uint16_t *back)
{
	uint32_t n = s->tokens * s->channels, groups = ops->grouped ? codec_nr_groups(s) : n;

	for (uint32_t i = 0; i < groups; i++) {
		struct codec_group g = { i, 1, 1 };
		double least = INFINITY, most = -INFINITY, x, y;

		if (ops->grouped)
			g = codec_nth_group(s, i);
		for (uint32_t k = 0; k < g.nr; k++) {
			x = (double)kn_from_bf16(v[g.first + k * g.step]);
			least = fmin(least, x);
			most = fmax(most, x);
		}
		for (uint32_t k = 0; k < g.nr; k++) {
			x = (double)kn_from_bf16(v[g.first + k * g.step]);
			y = (double)kn_from_bf16(back[g.first + k * g.step]);
			if (isfinite(x) && !(fabs(x - y) <= ops->bound(x, least, most)))
				return false;
		}
	}
	return true;
}

/* What a kernel wrote of one part, beside what kvmd writes; then back by both. */
static void compare_part(const struct codec_ops *ops, const struct codec_shape *s,
			 const uint16_t *v, const struct area *out, int32_t status, uint32_t bytes)
{
	size_t max = ops->encoded_max(s), n = 2ul * s->tokens * s->channels, want_bytes = 0;
	struct area enc = area_of(max, 0), want = area_of(n, 0), in, got;
	int err = ops->encode(s, v, enc.p, max, &want_bytes);
	struct kn_part part = { 0 };

	quiet_assert_int_eq(status, err);
	quiet_assert(marks_are_there(out));
	quiet_assert_uint_eq(bytes, err ? 0 : want_bytes);
	if (!err) {
		quiet_assert_msg(!memcmp(out->p, enc.p, bytes), "%s %u x %u, %u, %u", ops->name,
				 s->tokens, s->channels, s->group, s->axis);
		quiet_assert_int_eq(ops->decode(s, out->p, bytes, (uint16_t *)want.p), 0);
		in = copy_of(enc.p, want_bytes, ref_below(&seed, 3) * 5);
		got = area_of(n, ref_below(&seed, 3) * 2);
		part = (struct kn_part){ in.p, got.p, bytes, 0 };
		launch(true, ops, s, &part, 1, &status, &bytes);
		quiet_assert_int_eq(status, 0);
		quiet_assert_uint_eq(bytes, want_bytes);
		quiet_assert(marks_are_there(&got));
		quiet_assert_msg(!memcmp(got.p, want.p, n), "%s %u x %u, %u, %u", ops->name,
				 s->tokens, s->channels, s->group, s->axis);
		quiet_assert(within_bound(ops, s, v, (uint16_t *)got.p));
		quiet_assert(!ops->lossless || !memcmp(got.p, v, n));
		free(in.mem);
		free(got.mem);
	}
	free(enc.mem);
	free(want.mem);
}

/* Some parts of one shape, of one kind or each of another, in one launch. */
static void one_launch(const struct codec_ops *ops, const struct codec_shape *s, unsigned kind)
{
	unsigned nr = 1 + ref_below(&seed, MAX_PARTS);
	size_t max = ops->encoded_max(s), n = (size_t)s->tokens * s->channels;
	struct area src[MAX_PARTS], out[MAX_PARTS];
	struct kn_part part[MAX_PARTS];
	uint32_t bytes[MAX_PARTS];
	int32_t status[MAX_PARTS];

	for (unsigned i = 0; i < nr; i++) {
		uint16_t *v = ref_alloc(2 * n);

		fill(v, n, kind < NR_KIND ? (enum kind)kind : (enum kind)ref_below(&seed, NR_KIND));
		src[i] = copy_of(v, 2 * n, ref_below(&seed, 3) * 2);
		free(v);
		out[i] = area_of(max, ref_below(&seed, 2) * ref_below(&seed, 17));
		part[i] = (struct kn_part){ src[i].p, out[i].p, (uint32_t)max, 0 };
	}
	launch(false, ops, s, part, nr, status, bytes);
	for (unsigned i = 0; i < nr; i++) {
		compare_part(ops, s, (uint16_t *)src[i].p, &out[i], status[i], bytes[i]);
		free(src[i].mem);
		free(out[i].mem);
	}
}

/* ------------------------------------------------------------------- tests */

START_TEST(bytes_are_those_of_kvmd)
{
	const struct codec_ops *ops = codec_get((uint32_t)_i);
	struct codec_shape s;

	for (unsigned round = 0; round < 16 * (NR_KIND + 1); round++) {
		s = some_shape(ops);
		one_launch(ops, &s, round % (NR_KIND + 1));
	}
}
END_TEST

/* One row, every length: tiles, words of 64 and pieces that are not whole. */
START_TEST(any_length)
{
	const struct codec_ops *ops = codec_get((uint32_t)_i);
	struct codec_shape s = { 1, 1, ops->grouped ? 32 : 0, 0 };

	for (; s.channels < 300; s.channels++)
		one_launch(ops, &s, s.channels % 2 ? FEW_ESCAPES : NORMAL);
	for (s.channels = 4096 - 66; s.channels < 4096 + 66; s.channels += 13)
		one_launch(ops, &s, FEW_ESCAPES);
	for (s.channels = 12289; s.channels < 80000; s.channels += 30011)
		one_launch(ops, &s, FEW_ESCAPES);
}
END_TEST

/* Every bf16, where its exponent is usual and where it is not. */
START_TEST(every_pattern)
{
	const struct codec_ops *ops = codec_get((uint32_t)_i);
	struct codec_shape s = { 256, 256, 0, 0 };
	struct area out = area_of(ops->encoded_max(&s), 0);
	uint16_t *v = ref_alloc(131072);
	uint32_t bytes;
	int32_t status;

	for (unsigned turn = 0; turn < 3; turn++) {
		struct kn_part part = { v, out.p, (uint32_t)out.bytes, 0 };

		for (unsigned i = 0; i < 65536; i++)
			v[i] = (uint16_t)(turn == 0 ? i : i % 4 == turn ? i * 0x9e37u : 0x3f80);
		launch(false, ops, &s, &part, 1, &status, &bytes);
		compare_part(ops, &s, v, &out, status, bytes);
	}
	free(out.mem);
	free(v);
}
END_TEST

/* The escapes fill what is left to the byte, and are one more than that. */
START_TEST(window_up_to_raw)
{
	enum { N = 640, MOST = N / 2 - 1 };
	struct codec_shape s = { 1, N, 0, 0 };
	struct area out = area_of(codec_window.encoded_max(&s), 0);
	uint16_t *v = ref_alloc(2 * N);
	struct kn_part part = { v, out.p, (uint32_t)out.bytes, 0 };
	uint32_t bytes;
	int32_t status;

	for (unsigned escapes = MOST - 2; escapes <= MOST + 2; escapes++) {
		for (unsigned i = 0; i < N; i++)
			/* None of the others is in a window with those of 1. */
			v[i] = i % 2 && i / 2 < escapes ? (uint16_t)((i / 2 % 5 * 20) << 7) :
							   0x3f80;
		if (escapes > N / 2)
			v[0] = 0x0080;
		launch(false, &codec_window, &s, &part, 1, &status, &bytes);
		compare_part(&codec_window, &s, v, &out, status, bytes);
		ck_assert_uint_eq(bytes, CODEC_HEAD_BYTES + (escapes > MOST ? 2 * N :
							     N * 3 / 2 + escapes));
	}
	free(out.mem);
	free(v);
}
END_TEST

START_TEST(shapes_and_room)
{
	static const struct codec_shape bad[] = {
		{ 0, 64, 64, 0 }, { 64, 0, 0, 0 }, { 1 << 16, 1 << 16, 0, 0 }, { 4, 64, 31, 0 },
		{ 4, 64, 129, 0 }, { 4, 64, 64, NR_CODEC_AXIS }, { 4, 64, 0, CODEC_PER_CHANNEL },
	};
	const struct codec_ops *ops = codec_get((uint32_t)_i);
	struct codec_shape s = { 3, 70, ops->grouped ? 64 : 0, 0 };
	struct area out = area_of(ops->encoded_max(&s), 0);
	uint16_t v[210] = { 0 };
	struct kn_part part = { v, out.p, (uint32_t)out.bytes - 1, 0 };
	uint32_t bytes;
	int32_t status;
	size_t n;

	for (unsigned i = 0; i < 2 * ARRAY_SIZE(bad); i++) {
		launch(i % 2, ops, &bad[i / 2], &part, 1, &status, &bytes);
		ck_assert_int_eq(status, -EINVAL);
		ck_assert_uint_eq(bytes, 0);
	}
	launch(false, ops, &s, &part, 1, &status, &bytes);
	ck_assert_int_eq(status, -ENOSPC);
	ck_assert_uint_eq(bytes, 0);
	ck_assert(marks_are_there(&out));
	/* Whoever does not ask is not told how many bytes. */
	part.bytes++;
	launch(false, ops, &s, &part, 1, &status, NULL);
	ck_assert_int_eq(status, 0);
	ck_assert_int_eq(ops->encode(&s, v, out.p, out.bytes, &n), 0);
	ck_assert_int_eq(ops->decode(&s, out.p, n, v), 0);
	free(out.mem);
}
END_TEST

/* ------------------------------------------------------------------ damage */

struct damaged {
	const struct codec_ops *ops;
	struct codec_shape s;
	uint8_t *enc;			/* and a byte more */
	size_t bytes;
};

/* The kernel says of @bytes what kvmd says, and they have the same values if any. */
static void same_verdict(const struct damaged *d, const struct codec_ops *ops,
			 const struct codec_shape *s, size_t bytes)
{
	size_t n = 2ul * s->tokens * s->channels;
	struct area in = copy_of(d->enc, bytes, 0), got = area_of(n, 0), want = area_of(n, 0);
	struct kn_part part = { in.p, got.p, (uint32_t)bytes, 0 };
	uint32_t told;
	int32_t status;

	launch(true, ops, s, &part, 1, &status, &told);
	quiet_assert_int_eq(status, ops->decode(s, in.p, bytes, (uint16_t *)want.p));
	quiet_assert_uint_eq(told, status ? 0 : bytes);
	quiet_assert(marks_are_there(&got));
	quiet_assert(status || !memcmp(got.p, want.p, n));
	free(in.mem);
	free(got.mem);
	free(want.mem);
}

static void reseal(uint8_t *enc)
{
	uint32_t crc = crc32c(enc, offsetof(struct codec_head, crc));

	memcpy(enc + offsetof(struct codec_head, crc), &crc, sizeof(crc));
}

static struct damaged some_coded(const struct codec_ops *ops, struct codec_shape s, enum kind kind)
{
	struct damaged d = { .ops = ops, .s = s };
	uint16_t *v = ref_alloc(2ul * s.tokens * s.channels);

	fill(v, (size_t)s.tokens * s.channels, kind);
	d.enc = ref_alloc(ops->encoded_max(&s) + 1);
	quiet_assert_int_eq(ops->encode(&s, v, d.enc, ops->encoded_max(&s), &d.bytes), 0);
	free(v);
	return d;
}

START_TEST(damaged_heads_and_sizes)
{
	const struct codec_ops *ops = codec_get((uint32_t)_i), *other;
	struct damaged d = some_coded(ops, (struct codec_shape){ 3, 67, ops->grouped ? 32 : 0, 0 },
				      NORMAL);
	struct codec_shape turned = { 67, 3, d.s.group, 0 };

	for (unsigned i = 0; i < 8 * CODEC_HEAD_BYTES; i++) {
		d.enc[i / 8] ^= (uint8_t)(1 << i % 8);
		same_verdict(&d, ops, &d.s, d.bytes);
		if (i / 8 < offsetof(struct codec_head, crc)) {
			reseal(d.enc);
			same_verdict(&d, ops, &d.s, d.bytes);
		}
		d.enc[i / 8] ^= (uint8_t)(1 << i % 8);
		reseal(d.enc);
	}
	for (size_t bytes = 0; bytes <= d.bytes + 1; bytes++)
		same_verdict(&d, ops, &d.s, bytes);
	same_verdict(&d, ops, &turned, d.bytes);
	for (uint32_t id = 1; id < NR_CODEC; id++) {
		other = codec_get(id);
		if (other->grouped == ops->grouped)
			same_verdict(&d, other, &d.s, d.bytes);
	}
	free(d.enc);
}
END_TEST

START_TEST(damaged_codes)
{
	const struct codec_ops *ops = codec_get((uint32_t)_i);

	for (unsigned round = 0; round < 40; round++) {
		struct damaged d = some_coded(ops, some_shape(ops),
					      round % 2 || ops->grouped ? NORMAL : WIDE);

		for (unsigned i = 0; i < 40; i++) {
			size_t at = CODEC_HEAD_BYTES +
				    ref_below(&seed, (uint32_t)(d.bytes - CODEC_HEAD_BYTES));
			uint8_t was = d.enc[at];

			/* Where the last ones are, bits that nothing has, too. */
			if (i % 4 == 3)
				at = d.bytes - 1 - ref_below(&seed, 3);
			was = d.enc[at];
			d.enc[at] = (uint8_t)ref_rand(&seed);
			same_verdict(&d, ops, &d.s, d.bytes);
			d.enc[at] = was;
		}
		same_verdict(&d, ops, &d.s, d.bytes);
		free(d.enc);
	}
}
END_TEST

/* Of window: the count, the base and the form, changed by somebody who can seal. */
START_TEST(forged_windows)
{
	for (unsigned round = 0; round < 400; round++) {
		struct damaged d = some_coded(&codec_window, some_shape(&codec_window),
					      round % 2 ? FEW_ESCAPES : WIDE);
		struct codec_head h;
		size_t bytes = d.bytes;

		memcpy(&h, d.enc, sizeof(h));
		if (round % 4 == 0)
			h.base = (uint8_t)ref_rand(&seed);
		if (round % 4 == 1)
			h.form ^= 1;
		if (round % 4 >= 2) {
			bytes = CODEC_HEAD_BYTES + ref_below(&seed, (uint32_t)(d.bytes -
									       CODEC_HEAD_BYTES));
			bytes = round % 3 ? d.bytes - 1 : bytes;
			h.escapes -= (uint32_t)(d.bytes - bytes);
			h.bytes = (uint32_t)bytes;
		}
		memcpy(d.enc, &h, sizeof(h));
		reseal(d.enc);
		same_verdict(&d, &codec_window, &d.s, bytes);
		free(d.enc);
	}
}
END_TEST

/* -------------------------------------------------------------------- main */

static void each(Suite *s, const char *behaviour, const TTest *test, int first, int last)
{
	tcase_add_loop_test(suite_slow_group(s, behaviour, NULL, NULL, 120), test, first, last + 1);
}

int main(void)
{
	Suite *s = suite_create("kernels/codec");

	each(s, "bytes are those of kvmd", bytes_are_those_of_kvmd, CODEC_WINDOW, CODEC_KIVI2);
	each(s, "any length", any_length, CODEC_WINDOW, CODEC_KIVI2);
	each(s, "every pattern", every_pattern, CODEC_WINDOW, CODEC_FP8_E5M2);
	suite_test(s, "window up to raw", window_up_to_raw, NULL, NULL);
	each(s, "shapes and room", shapes_and_room, CODEC_WINDOW, CODEC_KIVI2);
	each(s, "damaged heads and sizes", damaged_heads_and_sizes, CODEC_WINDOW, CODEC_KIVI2);
	each(s, "damaged codes", damaged_codes, CODEC_WINDOW, CODEC_KIVI2);
	suite_test(s, "forged windows", forged_windows, NULL, NULL);

	return suite_run(s);
}
