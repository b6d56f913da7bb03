// SPDX-License-Identifier: Apache-2.0
/*
 * check_codec.c - codecs: the table, window, damage.
 *
 * What comes back is what was there, every instruction set writes the same bits, and
 * what encode() did not write is refused.
 */
#include "kvmd/lib/crc32c.h"
#include "kvmd/tier/codec_int.h"
#include "kvmd/tier/codec_window_impl.h"

#include <check.h>

#include "tests/quiet.h"
#include "tests/suite.h"
#include "tests/unit/codec_rig.h"

/* ------------------------------------------------------------------- table */

START_TEST(ids_and_names_stay)
{
	static const char *const names[NR_CODEC] = { "none", "window", "fp8_e4m3", "fp8_e5m2",
						     "int8", "int4", "kivi2" };

	ck_assert_int_eq(NR_CODEC, 7);
	ck_assert_ptr_null(codec_get(CODEC_NONE));
	ck_assert_ptr_null(codec_get(NR_CODEC));
	ck_assert_ptr_null(codec_name(NR_CODEC));
	for (uint32_t i = 0; i < NR_CODEC; i++) {
		ck_assert_str_eq(codec_name(i), names[i]);
		if (i == CODEC_NONE)
			continue;
		ck_assert_uint_eq(codec_get(i)->id, i);
		ck_assert_int_eq(codec_get(i)->lossless, i == CODEC_WINDOW);
	}
}
END_TEST

START_TEST(shapes_and_room)
{
	static const struct { uint32_t ids; struct codec_shape s; } bad[] = {
		{ 0x7e, { 0, 64, 64, 0 } }, { 0x7e, { 64, 0, 64, 0 } },
		{ 0x7e, { 0, 64, 0, 0 } }, { 0x7e, { 1 << 20, 257, 64, 0 } },
		{ 0x7e, { 1 << 16, 1 << 16, 0, 0 } }, { 0x0e, { 4, 64, 64, 0 } },
		{ 0x0e, { 4, 64, 0, CODEC_PER_CHANNEL } }, { 0x70, { 4, 64, 0, 0 } },
		{ 0x70, { 4, 64, 31, 0 } }, { 0x70, { 4, 64, 129, 0 } },
		{ 0x30, { 4, 64, 64, CODEC_PER_CHANNEL } }, { 0x7e, { 4, 64, 64, NR_CODEC_AXIS } },
	};
	uint16_t *src = ct_tail(0, 512), *out = ct_tail(2, 512);
	struct codec_shape s;
	size_t most, n;

	memset(src, 0, 512);
	for (uint32_t id = 1; id < NR_CODEC; id++) {
		const struct codec_ops *ops = codec_get(id);

		for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
			if (!(bad[i].ids >> id & 1))
				continue;
			ck_assert_uint_eq(ops->encoded_max(&bad[i].s), 0);
			ck_assert_int_eq(ops->encode(&bad[i].s, src, ct_area[1], SPAN, &n),
					 -EINVAL);
			ck_assert_int_eq(ops->decode(&bad[i].s, ct_area[1], 64, out), -EINVAL);
		}
		s = (struct codec_shape){ 4, 64, ops->grouped ? 32 : 0, 0 };
		most = ops->encoded_max(&s);
		ck_assert_uint_gt(most, CODEC_HEAD_BYTES);
		n = 7;
		ck_assert_int_eq(ops->encode(&s, src, ct_area[1], most - 1, &n), -ENOSPC);
		ck_assert_uint_eq(n, 7);
		ck_assert_int_eq(ops->encode(&s, src, ct_tail(1, most), most, &n), 0);
		ck_assert_uint_le(n, most);
		ck_assert_int_eq(ops->decode(&s, ct_tail(1, most), n, out), 0);
		ck_assert_int_eq(memcmp(src, out, 512), 0);
	}
}
END_TEST

/* ------------------------------------------------------------------ window */

/* There and back; what it became. */
static size_t round_trip(const uint16_t *src, size_t nr, enum codec_form *ret_form)
{
	struct codec_shape s = ct_row_of((uint32_t)nr);
	size_t most = codec_window.encoded_max(&s), n = 0;
	uint16_t *out = ct_tail(2, 2 * nr);
	uint8_t *enc;

	quiet_assert_int_eq(codec_window.encode(&s, src, ct_tail(1, most), most, &n), 0);
	quiet_assert(n <= most);
	enc = ct_tail(3, n);
	memcpy(enc, ct_tail(1, most), n);
	memset(out, 0xa5, 2 * nr);
	quiet_assert_int_eq(codec_window.decode(&s, enc, n, out), 0);
	quiet_assert_msg(!memcmp(src, out, 2 * nr), "%zu values differ", nr);
	*ret_form = enc[offsetof(struct codec_head, form)];
	return n;
}

/* An exponent of the @wide from @base on. */
static uint16_t value_near(uint8_t base, unsigned wide)
{
	return (uint16_t)((base + ct_rnd(wide)) % 256 << 7 | (ct_rnd(65536) & 0x807f));
}

START_TEST(window_brings_every_pattern_back)
{
	uint16_t *src = ct_tail(0, 2 * VALUES);
	enum codec_form form;
	size_t n;

	/* All at once: not to be shrunk. */
	for (unsigned i = 0; i < VALUES; i++)
		src[i] = (uint16_t)i;
	n = round_trip(src, VALUES, &form);
	ck_assert_int_eq(form, CODEC_RAW);
	ck_assert_uint_eq(n, CODEC_HEAD_BYTES + 2 * VALUES);
	/* Each one among three that fit: NaN, infinities and denormals as escapes. */
	for (unsigned base = 0; base < 256; base += 15)
		for (unsigned turn = 0; turn < 4; turn++) {
			for (unsigned i = 0; i < VALUES; i++)
				src[i] = i % 4 == turn ? (uint16_t)i : value_near((uint8_t)base, 15);
			round_trip(src, VALUES, &form);
			quiet_assert_int_eq(form, CODEC_CODED);
		}
	/* And every pattern where its exponent is the most usual. */
	for (unsigned e = 0; e < 256; e++) {
		for (unsigned i = 0; i < 256; i++)
			src[i] = (uint16_t)((i & 0x80) << 8 | e << 7 | (i & 0x7f));
		n = round_trip(src, 256, &form);
		quiet_assert_int_eq(form, CODEC_CODED);
		quiet_assert_uint_eq(n, CODEC_HEAD_BYTES + 384);
	}
}
END_TEST

START_TEST(window_of_any_length)
{
	enum codec_form form;

	for (size_t n = 1; n < 700; n += n < 300 ? 1 : 1 + ct_rnd(40))
		for (unsigned spread = 0; spread < 40; spread += 13) {
			uint16_t *src = ct_tail(0, 2 * n);

			for (size_t i = 0; i < n; i++)
				src[i] = ct_rnd_value(spread);
			round_trip(src, n, &form);
		}
}
END_TEST

START_TEST(window_shrinks_what_has_few_exponents)
{
	uint16_t *src = ct_tail(0, 2 * VALUES);
	enum codec_form form;

	for (unsigned i = 0; i < VALUES; i++)
		src[i] = ct_rnd_value(3);
	ck_assert_uint_lt(round_trip(src, VALUES, &form) * 13, 2 * VALUES * 10);
	memset(src, 0, 2 * VALUES);
	ck_assert_uint_eq(round_trip(src, VALUES, &form), CODEC_HEAD_BYTES + VALUES * 3 / 2);
	/* Noise. */
	for (unsigned i = 0; i < VALUES; i++)
		src[i] = (uint16_t)ct_rnd(65536);
	ck_assert_uint_eq(round_trip(src, VALUES, &form), CODEC_HEAD_BYTES + 2 * VALUES);
	ck_assert_int_eq(form, CODEC_RAW);
}
END_TEST

static struct window_parts parts_in(uint8_t *p, size_t nr, size_t nr_escapes)
{
	return (struct window_parts){ p, p + nr, p + nr + (nr + 1) / 2, nr_escapes };
}

START_TEST(window_is_the_same_by_all_means)
{
	const struct window_impl *im, *plain = &window_impl_plain;

	ck_assert_str_eq(codec_window_by(), window_impl_get(0)->name);
	for (unsigned round = 0; round < 3000; round++) {
		size_t nr = 1 + ct_rnd(ct_rnd(8) ? 400 : 9000), n;
		size_t room = ct_rnd(4) ? nr : ct_rnd(nr);
		unsigned spread = (unsigned)ct_rnd(24);
		size_t whole = nr + (nr + 1) / 2 + room;
		uint8_t base = (uint8_t)ct_rnd(WINDOW_MAX_BASE + 1), *a = ct_tail(1, whole), *b;
		uint16_t *src = ct_tail(0, 2 * nr), *out = ct_tail(2, 2 * nr);
		struct window_parts p = parts_in(a, nr, room), q;

		for (size_t i = 0; i < nr; i++)
			src[i] = ct_rnd(64) ? value_near(base, 15 + spread / 8) :
				 (uint16_t)ct_rnd(65536);
		n = plain->encode(src, nr, base, &p);
		for (unsigned i = 0; (im = window_impl_get(i)); i++) {
			b = ct_tail(3, whole);
			q = parts_in(b, nr, room);
			memset(b, 0xa5, whole);
			/* Where they do not fit, that is all there is to agree on. */
			if (n > room) {
				quiet_assert(im->encode(src, nr, base, &q) > room);
				continue;
			}
			quiet_assert_uint_eq(im->encode(src, nr, base, &q), n);
			quiet_assert_msg(!memcmp(a, b, nr + (nr + 1) / 2 + n), "%s: %zu values",
					 im->name, nr);
			memset(out, 0xa5, 2 * nr);
			q.nr_escapes = n;
			quiet_assert(im->decode(&q, nr, base, out));
			quiet_assert_msg(!memcmp(src, out, 2 * nr), "%s: %zu values", im->name, nr);
			q.nr_escapes = n + 1;
			quiet_assert(!im->decode(&q, nr, base, out));
			q.nr_escapes = n - 1;
			quiet_assert(!n || !im->decode(&q, nr, base, out));
		}
	}
}
END_TEST

/* ------------------------------------------------------------------ damage */

/* Encode @nr values @v; where they are. */
static uint8_t *encoded(const struct codec_ops *ops, const struct codec_shape *s,
			const uint16_t *v, size_t *ret_n)
{
	ck_assert_int_eq(ops->encode(s, v, ct_area[3], SPAN, ret_n), 0);
	return memcpy(ct_tail(1, *ret_n), ct_area[3], *ret_n);
}

static void seal(uint8_t *enc)
{
	uint32_t crc = crc32c(enc, offsetof(struct codec_head, crc));

	memcpy(enc + offsetof(struct codec_head, crc), &crc, sizeof(crc));
}

START_TEST(a_damaged_header_or_size)
{
	for (uint32_t id = 1; id < NR_CODEC; id++) {
		const struct codec_ops *ops = codec_get(id);
		struct codec_shape s = { 3, 67, ops->grouped ? 32 : 0, 0 }, other;
		uint16_t *src = ct_tail(0, 402), *out = ct_tail(2, 402);
		unsigned bad = 0;
		uint8_t *enc;
		size_t n;

		for (unsigned i = 0; i < 201; i++)
			src[i] = ct_rnd_value(4);
		enc = encoded(ops, &s, src, &n);
		for (unsigned i = 0; i < 8 * CODEC_HEAD_BYTES; i++) {
			enc[i / 8] ^= (uint8_t)(1 << i % 8);
			bad += ops->decode(&s, enc, n, out) != -EBADMSG;
			/* And where somebody meant it: the base alone may have another meaning. */
			if (i / 8 < 60 && i / 8 != offsetof(struct codec_head, base)) {
				seal(enc);
				bad += ops->decode(&s, enc, n, out) != -EBADMSG;
			}
			enc[i / 8] ^= (uint8_t)(1 << i % 8);
			seal(enc);
		}
		ck_assert_uint_eq(bad, 0);
		ck_assert_int_eq(ops->decode(&s, enc, n, out), 0);
		/* Cut short, with what is left at the end of memory; too long. */
		memcpy(ct_area[3], enc, n);
		for (size_t cut = 0; cut < n; cut++) {
			memcpy(ct_tail(1, cut), ct_area[3], cut);
			bad += ops->decode(&s, ct_tail(1, cut), cut, out) != -EBADMSG;
		}
		bad += ops->decode(&s, ct_area[3], n + 1, out) != -EBADMSG;
		other = s;
		other.tokens = 67;
		other.channels = 3;
		bad += ops->decode(&other, ct_area[3], n, out) != -EBADMSG;
		bad += codec_get(id % (NR_CODEC - 1) + 1)->decode(&s, ct_area[3], n, out) == 0;
		ck_assert_uint_eq(bad, 0);
		ck_assert_int_eq(ops->decode(&s, ct_area[3], n, out), 0);
	}
}
END_TEST

/* Byte @at of an encoded block becomes @is. */
static int with_byte(const struct codec_ops *ops, const struct codec_shape *s, uint8_t *enc,
		     size_t n, size_t at, uint8_t is)
{
	uint8_t was = enc[at];
	int err;

	enc[at] = is;
	err = ops->decode(s, enc, n, ct_tail(2, 2ul * s->tokens * s->channels));
	enc[at] = was;
	return err;
}

START_TEST(codes_that_are_never_written)
{
	struct codec_shape s = ct_row_of(65), g = { 1, 65, 65, 0 };
	uint16_t *src = ct_tail(0, 130);
	uint8_t *enc;
	size_t n;

	for (unsigned i = 0; i < 65; i++)
		src[i] = 0x3f80;
	src[3] = 0x0080;
	enc = encoded(&codec_window, &s, src, &n);
	ck_assert_uint_eq(n, 64 + 65 + 33 + 1);
	/* An escape that is none, one more, one less, a code without a value. */
	ck_assert_int_eq(with_byte(&codec_window, &s, enc, n, n - 1, 0x7f), -EBADMSG);
	ck_assert_int_eq(with_byte(&codec_window, &s, enc, n, 64 + 65 + 7, 0x0f), -EBADMSG);
	ck_assert_int_eq(with_byte(&codec_window, &s, enc, n, 64 + 65 + 3, 0), -EBADMSG);
	ck_assert_int_eq(with_byte(&codec_window, &s, enc, n, 64 + 65 + 32, 0x1e), -EBADMSG);
	ck_assert_int_eq(with_byte(&codec_window, &s, enc, n, n - 1, 1), 0);
	enc = encoded(&codec_fp8_e5m2, &s, src, &n);
	for (uint8_t c = 0x7c; c < 0x7f; c++) {
		ck_assert_int_eq(with_byte(&codec_fp8_e5m2, &s, enc, n, 70, c), -EBADMSG);
		ck_assert_int_eq(with_byte(&codec_fp8_e5m2, &s, enc, n, 70, c | 0x80), -EBADMSG);
	}
	ck_assert_int_eq(with_byte(&codec_fp8_e5m2, &s, enc, n, 70, 0x7f), 0);
	enc = encoded(&codec_int8, &g, src, &n);
	ck_assert_int_eq(with_byte(&codec_int8, &g, enc, n, 66, 0x80), -EBADMSG);
	ck_assert_int_eq(with_byte(&codec_int8, &g, enc, n, 66, 0x81), 0);
	ck_assert_int_eq(with_byte(&codec_int8, &g, enc, n, 65, 0x7c), -EBADMSG);
	ck_assert_int_eq(with_byte(&codec_int8, &g, enc, n, 65, 0x80), -EBADMSG);
	enc = encoded(&codec_int4, &g, src, &n);
	ck_assert_int_eq(with_byte(&codec_int4, &g, enc, n, 66, 0x08), -EBADMSG);
	ck_assert_int_eq(with_byte(&codec_int4, &g, enc, n, 66, 0x80), -EBADMSG);
	ck_assert_int_eq(with_byte(&codec_int4, &g, enc, n, n - 1, 0x17), -EBADMSG);
	ck_assert_int_eq(with_byte(&codec_int4, &g, enc, n, n - 1, 0x06), 0);
	enc = encoded(&codec_kivi2, &g, src, &n);
	ck_assert_int_eq(with_byte(&codec_kivi2, &g, enc, n, 65, 0x7c), -EBADMSG);
	ck_assert_int_eq(with_byte(&codec_kivi2, &g, enc, n, 67, 0xff), -EBADMSG);
	ck_assert_int_eq(with_byte(&codec_kivi2, &g, enc, n, n - 1, 0x04), -EBADMSG);
	ck_assert_int_eq(with_byte(&codec_kivi2, &g, enc, n, n - 1, 0x02), 0);
}
END_TEST

static void add(Suite *s, const char *behaviour, const TTest *test)
{
	suite_test(s, behaviour, test, ct_setup, ct_teardown);
}

int main(void)
{
	Suite *s = suite_create("codec");

	add(s, "ids and names stay", ids_and_names_stay);
	add(s, "shapes and room", shapes_and_room);
	add(s, "window brings every pattern back", window_brings_every_pattern_back);
	add(s, "window of any length", window_of_any_length);
	add(s, "window shrinks what has few exponents", window_shrinks_what_has_few_exponents);
	add(s, "window is the same by all means", window_is_the_same_by_all_means);
	add(s, "a damaged header or size", a_damaged_header_or_size);
	add(s, "codes that are never written", codes_that_are_never_written);

	return suite_run(s);
}
