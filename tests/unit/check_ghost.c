// SPDX-License-Identifier: Apache-2.0
/*
 * check_ghost.c - the table of remembered blocks.
 */
#include <check.h>
#include <stdio.h>

#include "kvmd/index/ghost.h"
#include "kvmd/lib/fault.h"
#include "tests/suite.h"

static uint64_t nth_hash(uint64_t i)
{
	i = (i + 1) * 0x9e3779b97f4a7c15ULL;
	i = (i ^ i >> 30) * 0xbf58476d1ce4e5b9ULL;
	return i ^ i >> 27;
}

START_TEST(found_until_deleted)
{
	struct ghosts *g;
	struct ghost *e;

	ck_assert_int_eq(ghosts_create(1000, &g), 0);
	ck_assert_ptr_null(ghosts_find(g, nth_hash(1)));
	e = ghosts_add(g, nth_hash(1));
	ck_assert_ptr_nonnull(e);
	ck_assert_uint_eq(e->when, 0);
	ck_assert_uint_eq(e->uses, 0);
	e->when = 7;
	e->tag = 3;
	ck_assert_ptr_eq(ghosts_find(g, nth_hash(1)), e);
	ck_assert_ptr_eq(ghosts_add(g, nth_hash(1)), e);
	ck_assert_uint_eq(e->when, 7);
	ghosts_del(g, nth_hash(1));
	ck_assert_ptr_null(ghosts_find(g, nth_hash(1)));
	ghosts_del(g, nth_hash(1));
	ghosts_destroy(g);
}
END_TEST

/* One line: five entries, then the oldest gives way, and a hole before it. */
START_TEST(oldest_of_its_line_gives_way)
{
	static const uint32_t when[] = { 50, 20, 40, 10, 30 };
	struct ghosts *g;
	uint64_t i;

	ck_assert_int_eq(ghosts_create(5, &g), 0);
	for (i = 0; i < 5; i++)
		ghosts_add(g, (i + 1) << 32)->when = when[i];
	for (i = 0; i < 5; i++)
		ck_assert_uint_eq(ghosts_find(g, (i + 1) << 32)->when, when[i]);
	ghosts_add(g, 6ULL << 32)->when = 60;
	ck_assert_ptr_null(ghosts_find(g, 4ULL << 32));
	ghosts_add(g, 7ULL << 32)->when = 70;
	ck_assert_ptr_null(ghosts_find(g, 2ULL << 32));
	ghosts_del(g, 1ULL << 32);
	ghosts_add(g, 8ULL << 32)->when = 80;
	ck_assert_ptr_nonnull(ghosts_find(g, 5ULL << 32));
	ghosts_destroy(g);
}
END_TEST

START_TEST(age_wraps)
{
	struct ghosts *g;
	uint64_t i;

	ck_assert_int_eq(ghosts_create(5, &g), 0);
	for (i = 0; i < 5; i++)
		ghosts_add(g, (i + 1) << 32)->when = (uint32_t)(0xfffffffeU + i);
	ghosts_add(g, 6ULL << 32)->when = 5;
	ck_assert_ptr_null(ghosts_find(g, 1ULL << 32));
	ck_assert_ptr_nonnull(ghosts_find(g, 3ULL << 32));
	ghosts_destroy(g);
}
END_TEST

START_TEST(hash_with_empty_high_half)
{
	struct ghosts *g;

	ck_assert_int_eq(ghosts_create(100, &g), 0);
	ck_assert_ptr_null(ghosts_find(g, 5));
	ck_assert_ptr_nonnull(ghosts_add(g, 5));
	ck_assert_uint_ne(ghosts_find(g, 5)->hash, 0);
	ghosts_del(g, 5);
	ck_assert_ptr_null(ghosts_find(g, 5));
	ghosts_destroy(g);
}
END_TEST

START_TEST(size_zero_remembers_nothing)
{
	struct ghosts *g;

	ck_assert_int_eq(ghosts_create(0, &g), 0);
	ck_assert_ptr_null(ghosts_add(g, nth_hash(1)));
	ck_assert_ptr_null(ghosts_find(g, nth_hash(1)));
	ghosts_del(g, nth_hash(1));
	ghosts_destroy(g);
	ghosts_destroy(NULL);
}
END_TEST

START_TEST(room_and_budget)
{
	struct ghosts *g;
	uint64_t i, kept = 0;

	ck_assert_int_eq(ghosts_create(10000, &g), 0);
	ck_assert_uint_ge(ghosts_bytes(g), 10000 / 5 * 64);
	ck_assert_uint_le(ghosts_bytes(g), 10000 / 5 * 64 + 4096);
	for (i = 0; i < 5000; i++)
		ghosts_add(g, nth_hash(i))->when = (uint32_t)i;
	for (i = 0; i < 5000; i++)
		kept += ghosts_find(g, nth_hash(i)) != NULL;
	/* Half full: few lines of five have been asked for a sixth. */
	ck_assert_uint_ge(kept, 4750);
	ghosts_destroy(g);
}
END_TEST

START_TEST(no_memory)
{
	struct ghosts *g = NULL;
	int nth;

	for (nth = 1; nth <= 2; nth++) {
		char spec[32];

		snprintf(spec, sizeof(spec), "alloc:nth=%d", nth);
		ck_assert_int_eq(fault_arm(spec, NULL, 0), 0);
		ck_assert_int_eq(ghosts_create(10, &g), -ENOMEM);
		fault_disarm();
		ck_assert_ptr_null(g);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ghost");
	TCase *tc = tcase_create("ghost");

	tcase_add_test(tc, found_until_deleted);
	tcase_add_test(tc, oldest_of_its_line_gives_way);
	tcase_add_test(tc, age_wraps);
	tcase_add_test(tc, hash_with_empty_high_half);
	tcase_add_test(tc, size_zero_remembers_nothing);
	tcase_add_test(tc, room_and_budget);
	tcase_add_test(tc, no_memory);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
