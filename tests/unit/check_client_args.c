/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_client_args.c - the allocator of the args area.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "libkvclient/internal.h"
#include "tests/quiet.h"
#include "tests/suite.h"

#define UNITS	64u

static struct kvci_args a;

static void setup(void)
{
	ck_assert_int_eq(kvci_args_init(&a, UNITS * 64), 0);
}

static void teardown(void)
{
	kvci_args_exit(&a);
}

START_TEST(whole_area_and_no_more)
{
	ck_assert_int_eq(kvci_args_get(&a, UNITS * 64 + 1), -ENOSPC);
	ck_assert_int_eq(kvci_args_get(&a, UNITS * 64), 0);
	ck_assert_int_eq(kvci_args_get(&a, 1), -ENOSPC);
	ck_assert_int_eq(kvci_args_put(&a, 0), 0);
	ck_assert_int_eq(kvci_args_get(&a, UNITS * 64), 0);
}
END_TEST

START_TEST(aligned_and_rounded_up)
{
	ck_assert_int_eq(kvci_args_get(&a, 1), 0);
	ck_assert_int_eq(kvci_args_get(&a, 65), 64);
	ck_assert_int_eq(kvci_args_get(&a, 64), 192);
}
END_TEST

START_TEST(bad_sizes_and_offsets)
{
	ck_assert_int_eq(kvci_args_get(&a, 0), -ENOSPC);
	ck_assert_int_eq(kvci_args_get(&a, SIZE_MAX), -ENOSPC);
	ck_assert_int_eq(kvci_args_get(&a, 200), 0);
	ck_assert_int_eq(kvci_args_put(&a, 64), -EINVAL);	/* inside */
	ck_assert_int_eq(kvci_args_put(&a, 192), -EINVAL);	/* its last unit */
	ck_assert_int_eq(kvci_args_put(&a, 256), -EINVAL);	/* free */
	ck_assert_int_eq(kvci_args_put(&a, 1), -EINVAL);
	ck_assert_int_eq(kvci_args_put(&a, UINT64_MAX & ~63ull), -EINVAL);
	ck_assert_int_eq(kvci_args_put(&a, 0), 0);
	ck_assert_int_eq(kvci_args_put(&a, 0), -EINVAL);	/* twice */
}
END_TEST

START_TEST(neighbours_join)
{
	int64_t off[UNITS];

	for (unsigned i = 0; i < UNITS; i++)
		off[i] = kvci_args_get(&a, 64);
	for (unsigned i = 0; i < UNITS; i += 2)
		ck_assert_int_eq(kvci_args_put(&a, (uint64_t)off[i]), 0);
	/* Half is free, but in holes of one unit. */
	ck_assert_int_eq(kvci_args_get(&a, 128), -ENOSPC);
	ck_assert_int_eq(kvci_args_put(&a, (uint64_t)off[5]), 0);
	ck_assert_int_eq(kvci_args_get(&a, 3 * 64), off[4]);
	ck_assert_int_eq(kvci_args_put(&a, (uint64_t)off[4]), 0);
	for (unsigned i = 1; i < UNITS; i += 2) {
		if (i != 5)
			ck_assert_int_eq(kvci_args_put(&a, (uint64_t)off[i]), 0);
	}
	ck_assert_int_eq(kvci_args_get(&a, UNITS * 64), 0);
}
END_TEST

START_TEST(lowest_is_used_first)
{
	ck_assert_int_eq(kvci_args_get(&a, 64), 0);
	ck_assert_int_eq(kvci_args_get(&a, 64), 64);
	ck_assert_int_eq(kvci_args_put(&a, 0), 0);
	ck_assert_int_eq(kvci_args_get(&a, 128), 128);
	ck_assert_int_eq(kvci_args_get(&a, 64), 0);
}
END_TEST

/* Random requests against a map of who owns each unit. */
START_TEST(random_against_a_map)
{
	struct { int64_t off; uint32_t units; } held[UNITS];
	uint8_t owned[UNITS] = { 0 };
	uint32_t nr = 0, seed = 12345;

	for (int step = 0; step < 20000; step++) {
		seed = seed * 1664525u + 1013904223u;
		if (nr && (seed >> 16) % 2) {
			uint32_t i = (seed >> 20) % nr;

			quiet_assert_int_eq(kvci_args_put(&a, (uint64_t)held[i].off), 0);
			memset(owned + held[i].off / 64, 0, held[i].units);
			held[i] = held[--nr];
		} else {
			uint32_t units = 1 + (seed >> 20) % 9, run = 0, best = 0;
			int64_t off = kvci_args_get(&a, (size_t)units * 64);

			for (uint32_t u = 0; u < UNITS; u++) {
				run = owned[u] ? 0 : run + 1;
				best = run > best ? run : best;
			}
			quiet_assert_int_eq(off >= 0, best >= units);
			if (off < 0)
				continue;
			for (uint32_t u = 0; u < units; u++) {
				quiet_assert_int_eq(owned[off / 64 + u], 0);
				owned[off / 64 + u] = 1;
			}
			held[nr].off = off;
			held[nr++].units = units;
		}
	}
	while (nr)
		ck_assert_int_eq(kvci_args_put(&a, (uint64_t)held[--nr].off), 0);
	ck_assert_int_eq(kvci_args_get(&a, UNITS * 64), 0);
}
END_TEST

START_TEST(no_area_at_all)
{
	struct kvci_args none;

	ck_assert_int_eq(kvci_args_init(&none, 0), 0);
	ck_assert_int_eq(kvci_args_get(&none, 64), -ENOSPC);
	ck_assert_int_eq(kvci_args_put(&none, 0), -EINVAL);
	kvci_args_exit(&none);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("client_args");
	TCase *tc = tcase_create("args");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, whole_area_and_no_more);
	tcase_add_test(tc, aligned_and_rounded_up);
	tcase_add_test(tc, bad_sizes_and_offsets);
	tcase_add_test(tc, neighbours_join);
	tcase_add_test(tc, lowest_is_used_first);
	tcase_add_test(tc, random_against_a_map);
	tcase_add_test(tc, no_area_at_all);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
