// SPDX-License-Identifier: Apache-2.0
/*
 * check_lib_sum.c - cold copies and checksums: every instruction set gives what
 * memcpy() and libxxhash give, whatever the length, alignment and cuts.
 */
#include "kvmd/lib/sum.h"
#include "kvmd/lib/sum_impl.h"

#include <check.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "tests/quiet.h"
#include "tests/suite.h"

#define SPAN	(1u << 17)
#define GUARD	0xa5

static uint8_t *src, *dst;
static uint64_t rnd_state = 0x9e3779b97f4a7c15;

static uint64_t rnd(uint64_t below)
{
	rnd_state ^= rnd_state << 13;
	rnd_state ^= rnd_state >> 7;
	rnd_state ^= rnd_state << 17;
	return rnd_state % below;
}

/* Mostly short, with all sizes around the limits of the code. */
static size_t rnd_len(void)
{
	static const size_t near[] = { 16, 64, 128, 240, 256, 1024, 4096, 8192, 12288, 65536 };

	switch (rnd(4)) {
	case 0: return rnd(300);
	case 1: return near[rnd(ARRAY_SIZE(near))] - rnd(2) + rnd(3);
	case 2: return rnd(9000);
	default: return rnd(SPAN - 8192);
	}
}

static void setup(void)
{
	/* With a hole after the source: what reads beyond it is killed. */
	src = mmap(NULL, SPAN + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	dst = mmap(NULL, SPAN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(src, MAP_FAILED);
	ck_assert_ptr_ne(dst, MAP_FAILED);
	ck_assert_int_eq(mprotect(src + SPAN, 4096, PROT_NONE), 0);
	for (size_t i = 0; i < SPAN; i++)
		src[i] = (uint8_t)rnd(256);
}

static void teardown(void)
{
	munmap(src, SPAN + 4096);
	munmap(dst, SPAN);
}

static void copied(size_t to, size_t from, size_t n, const char *name)
{
	size_t nr_before = 0, nr_beyond = 0;

	for (size_t i = 0; i < 64; i++) {
		nr_before += dst[to - 64 + i] != GUARD;
		nr_beyond += dst[to + n + i] != GUARD;
	}
	quiet_assert_msg(!memcmp(dst + to, src + from, n), "%s: %zu bytes, %zu to %zu", name, n,
			 from, to);
	quiet_assert_msg(!nr_before, "%s: wrote before %zu of %zu", name, to, n);
	quiet_assert_msg(!nr_beyond, "%s: wrote beyond %zu of %zu", name, to, n);
}

START_TEST(there_is_a_best_and_a_plain_one)
{
	const struct sum_impl *im, *last = NULL;

	for (unsigned i = 0; (im = sum_impl_get(i)); i++) {
		ck_assert(im->usable());
		last = im;
	}
	ck_assert_ptr_eq(last, &sum_impl_memcpy);
	ck_assert_str_eq(last->name, "memcpy");
	ck_assert_str_eq(mem_copy_name(), sum_impl_get(0)->name);
}
END_TEST

START_TEST(the_format_is_xxh3_64)
{
	struct sum s;

	/* From xxHash's own sanity checks. */
	sum_start(&s);
	ck_assert_uint_eq(sum_end(&s), 0x2d06800538d394c2);
	ck_assert_uint_eq(sum_of("", 0), 0x2d06800538d394c2);
	sum_add(&s, NULL, 0);
	ck_assert_uint_eq(sum_end(&s), 0x2d06800538d394c2);
	/* An end is not the end: more may follow. */
	sum_add(&s, src, 1000);
	ck_assert_uint_eq(sum_end(&s), XXH3_64bits(src, 1000));
	sum_add(&s, src + 1000, 5000);
	ck_assert_uint_eq(sum_end(&s), XXH3_64bits(src, 6000));
	ck_assert_uint_eq(sum_of(src, 6000), XXH3_64bits(src, 6000));
}
END_TEST

START_TEST(sums_agree_however_they_are_cut)
{
	const struct sum_impl *im;
	struct sum s;

	for (unsigned i = 0; (im = sum_impl_get(i)); i++) {
		for (unsigned round = 0; round < 1500; round++) {
			size_t len = rnd_len(), from = rnd(64), at = 0;
			uint64_t want = XXH3_64bits(src + from, len);

			quiet_assert_uint_eq(im->of(src + from, len), want);
			im->start(&s);
			while (at < len) {
				size_t n = min(len - at, rnd_len() + 1);

				im->add(&s, src + from + at, n);
				at += n;
			}
			quiet_assert_msg(im->end(&s) == want, "%s: %zu bytes at %zu", im->name, len,
					 from);
		}
	}
}
END_TEST

START_TEST(copies_are_exact)
{
	const struct sum_impl *im;

	for (unsigned i = 0; (im = sum_impl_get(i)); i++) {
		for (unsigned round = 0; round < 1000; round++) {
			size_t n = rnd_len(), from = rnd(SPAN - n + 1), to = 64 + rnd(128);

			memset(dst, GUARD, n + 512);
			im->copy(dst + to, src + from, n);
			copied(to, from, n, im->name);
		}
		/* Up to the very end of what may be read. */
		for (size_t n = 0; n < 9000; n += 1 + rnd(97)) {
			memset(dst, GUARD, n + 512);
			im->copy(dst + 64, src + SPAN - n, n);
			copied(64, SPAN - n, n, im->name);
		}
	}
}
END_TEST

START_TEST(copies_that_sum_do_both)
{
	const struct sum_impl *im;
	struct sum s;

	for (unsigned i = 0; (im = sum_impl_get(i)); i++) {
		for (unsigned round = 0; round < 1000; round++) {
			size_t n = rnd_len(), from = rnd(SPAN - n + 1), to = 64 + rnd(128);
			size_t cut = rnd(n + 1);

			memset(dst, GUARD, n + 512);
			im->start(&s);
			im->copy_sum(dst + to, src + from, cut, &s, src + from + cut, n - cut);
			im->copy_sum(dst + to + cut, src + from + cut, n - cut, &s, NULL, 0);
			copied(to, from, n, im->name);
			quiet_assert_msg(im->end(&s) == XXH3_64bits(src + from, n),
					 "%s: %zu bytes cut at %zu", im->name, n, cut);
		}
	}
}
END_TEST

/* A restart on another machine, or a build of another compiler, goes on with it. */
START_TEST(one_sum_by_several_instruction_sets)
{
	struct sum s;
	size_t at = 0, n;
	unsigned nr = 0;

	while (sum_impl_get(nr))
		nr++;
	sum_start(&s);
	for (unsigned i = 0; at < SPAN; i++, at += n) {
		n = min(SPAN - at, rnd_len());
		if (i & 1)
			sum_impl_get(i % nr)->add(&s, src + at, n);
		else
			sum_impl_get(i % nr)->copy_sum(dst + at, src + at, n, &s, NULL, 0);
	}
	for (unsigned i = 0; i < nr; i++)
		ck_assert_uint_eq(sum_impl_get(i)->end(&s), XXH3_64bits(src, SPAN));
}
END_TEST

START_TEST(the_public_functions_use_one)
{
	struct sum s;

	sum_start(&s);
	mem_copy_sum(dst, src, 20000, &s);
	mem_copy_sum_next(dst + 20000, src + 20000, 30000, &s, src + 50000, SPAN - 50000);
	mem_copy_cold(dst + 50000, src + 50000, SPAN - 50000);
	sum_add(&s, src + 50000, SPAN - 50000);
	ck_assert_int_eq(memcmp(dst, src, SPAN), 0);
	ck_assert_uint_eq(sum_end(&s), XXH3_64bits(src, SPAN));
}
END_TEST

static void add(Suite *s, const char *behaviour, const TTest *test)
{
	suite_test(s, behaviour, test, setup, teardown);
}

int main(void)
{
	Suite *s = suite_create("lib_sum");

	add(s, "there is a best and a plain one", there_is_a_best_and_a_plain_one);
	add(s, "the format is XXH3-64", the_format_is_xxh3_64);
	add(s, "sums agree however they are cut", sums_agree_however_they_are_cut);
	add(s, "copies are exact", copies_are_exact);
	add(s, "copies that sum do both", copies_that_sum_do_both);
	add(s, "one sum by several instruction sets", one_sum_by_several_instruction_sets);
	add(s, "the public functions use one", the_public_functions_use_one);

	return suite_run(s);
}
