// SPDX-License-Identifier: Apache-2.0
/*
 * check_bench.c - kvbench's own parts: the bare arrays do what the daemon's
 * operations do, the floor server answers in every mode, the statistics.
 */
#include <check.h>

#include "tools/kvbench/bare.h"
#include "tools/kvbench/floor.h"
#include "tests/quiet.h"
#include "tests/suite.h"

#define NR	512u

static struct bare b;
static uint8_t keys[NR][KVMD_KEY_BYTES];
static uint32_t ids[NR];
static int32_t row[NR];

static void setup(void)
{
	ck_assert_uint_eq(bare_init(&b, NR, 100), NR);
}

static void get_keys(uint32_t first, uint32_t nr)
{
	for (uint32_t i = 0; i < nr; i++)
		bench_key(first + i, keys[i]);
}

START_TEST(open_finds_a_prefix)
{
	get_keys(0, 100);
	ck_assert_uint_eq(bare_open(&b, keys, 100, ids, row), 100);
	for (uint32_t i = 0; i < 100; i++) {
		ck_assert_uint_eq(b.rec[ids[i]].ref, 1);
		ck_assert_int_eq(row[i], (int32_t)b.rec[ids[i]].slot);
	}
	ck_assert_uint_eq(bare_close(&b, ids, 100), 100);
	ck_assert_uint_eq(b.rec[ids[0]].ref, 0);
	bench_key(NR, keys[99]);
	ck_assert_uint_eq(bare_open(&b, keys, 100, ids, row), 99);
	ck_assert_uint_eq(bare_lookup(&b, keys, 100), 99);
	ck_assert_uint_eq(bare_lookup_ahead(&b, keys, 100), 99);
}
END_TEST

START_TEST(alloc_takes_all_that_is_free)
{
	ck_assert_uint_eq(bare_alloc(&b, ids, NR, row), NR - 100);
	ck_assert_uint_eq(bare_alloc(&b, ids + 300, 1, row), 0);
	ck_assert_uint_eq(bare_free(&b, ids, NR - 100), NR - 100);
	ck_assert_uint_eq(bare_alloc(&b, ids, 1, row), 1);
}
END_TEST

START_TEST(published_is_found_dropped_is_not)
{
	get_keys(1000, 200);
	ck_assert_uint_eq(bare_alloc(&b, ids, 200, row), 200);
	ck_assert_uint_eq(bare_publish(&b, ids, keys, 200), 200);
	ck_assert_uint_eq(bare_lookup(&b, keys, 200), 200);
	ck_assert_uint_eq(bare_drop(&b, ids, 200), 200);
	ck_assert_uint_eq(bare_lookup(&b, keys, 200), 0);
	/* closing the gaps lost nobody */
	get_keys(0, 100);
	ck_assert_uint_eq(bare_lookup(&b, keys, 100), 100);
}
END_TEST

START_TEST(publish_stops_at_a_key_that_is_there)
{
	get_keys(1000, 3);
	bench_key(5, keys[1]);
	ck_assert_uint_eq(bare_alloc(&b, ids, 3, row), 3);
	ck_assert_uint_eq(bare_publish(&b, ids, keys, 3), 1);
}
END_TEST

START_TEST(keys_differ)
{
	uint8_t x[KVMD_KEY_BYTES], y[KVMD_KEY_BYTES];

	for (uint64_t i = 0; i < 1000; i++) {
		bench_key(i, x);
		bench_key(i + 1, y);
		quiet_assert_int_ne(memcmp(x, y, 8), 0);
		bench_key(i, y);
		quiet_assert_int_eq(memcmp(x, y, sizeof(x)), 0);
	}
}
END_TEST

START_TEST(floor_server_answers)
{
	struct floor_req r = { .op = FLOOR_FILL, .nr = NR, .first = 100 };
	uint64_t work;

	session_init();
	timing_init();
	cpus_init(NULL);
	bench.slice_ns = 1000000;
	floor_start();
	floor_mode(FLOOR_ECHO, 32);
	ck_assert_double_gt(floor_echo(32, 256), 0);
	floor_mode(FLOOR_PHASE, 1);
	ck_assert_double_gt(floor_phase(1, 32), 0);
	floor_mode(FLOOR_WORK, 1);
	ck_assert_uint_eq(floor_call(&r, NULL, NULL), NR);
	r = (struct floor_req){ .op = FLOOR_OPEN, .seq = 1, .nr = 100 };
	for (uint32_t i = 0; i < 100; i++)
		bench_key(i, floor_shm->keys[i]);
	ck_assert_uint_eq(floor_call(&r, &work, NULL), 100);
	ck_assert_int_ne(floor_shm->row[1][99], 0);
	floor_mode(FLOOR_PARK, 0);
	floor_end();
}
END_TEST

START_TEST(median_of_odd_and_even)
{
	double odd[] = { 5, 1, 3 }, even[] = { 4, 1, 3, 2 };

	ck_assert_double_eq(kvb_median(odd, 3), 3);
	ck_assert_double_eq(kvb_median(even, 4), 2.5);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("bench");
	TCase *tc = tcase_create("bare arrays");

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_test(tc, open_finds_a_prefix);
	tcase_add_test(tc, alloc_takes_all_that_is_free);
	tcase_add_test(tc, published_is_found_dropped_is_not);
	tcase_add_test(tc, publish_stops_at_a_key_that_is_there);
	tcase_add_test(tc, keys_differ);
	suite_add_tcase(s, tc);
	tc = tcase_create("floor server and statistics");
	tcase_add_test(tc, floor_server_answers);
	tcase_add_test(tc, median_of_odd_and_even);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
