/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_admin_psi.c - pressure averages against a reference in small steps.
 */
#include <check.h>
#include <math.h>

#include "kvmd/svc/daemon.h"

#define MS	1000000ull

static const double windows[NR_PSI_WINDOW] = { 10, 60, 300 };
static struct daemon *d;

static void setup(void)
{
	d = calloc(1, sizeof(*d));
	ck_assert_ptr_nonnull(d);
}

static void teardown(void)
{
	free(d);
}

START_TEST(averages_follow_a_reference)
{
	/* Level and how long, ms. */
	static const struct { uint32_t level, ms; } run[] = {
		{ 0, 500 }, { 1, 2500 }, { 2, 40 }, { 1, 1 }, { 0, 9000 }, { 2, 30000 },
		{ 0, 120000 }, { 1, 7 }, { 2, 65000 },
	};
	double ref[NR_PSI_KIND][NR_PSI_WINDOW] = { { 0 } };
	uint64_t now = 5000 * MS, some = 0, full = 0;
	struct psi psi;

	d->pressure_since_ns = now;
	for (size_t i = 0; i < ARRAY_SIZE(run); i++) {
		psi_update(d, run[i].level, now);
		for (uint32_t t = 0; t < run[i].ms; t++) {
			for (int w = 0; w < NR_PSI_WINDOW; w++) {
				double a = 1 - exp(-0.001 / windows[w]);

				ref[PSI_SOME][w] += ((run[i].level >= 1) - ref[PSI_SOME][w]) * a;
				ref[PSI_FULL][w] += ((run[i].level >= 2) - ref[PSI_FULL][w]) * a;
			}
		}
		now += run[i].ms * MS;
		some += run[i].level >= 1 ? run[i].ms : 0;
		full += run[i].level >= 2 ? run[i].ms : 0;
		psi = d->psi;
		psi_advance(&psi, d->pressure, now - d->pressure_since_ns);
		for (int k = 0; k < NR_PSI_KIND; k++)
			for (int w = 0; w < NR_PSI_WINDOW; w++)
				ck_assert_double_eq_tol(psi.avg[k][w], ref[k][w], 1e-9);
		ck_assert_uint_eq(psi_total_ns(d, PSI_SOME, now), some * MS);
		ck_assert_uint_eq(psi_total_ns(d, PSI_FULL, now), full * MS);
	}
}
END_TEST

START_TEST(constant_pressure_reaches_one)
{
	psi_update(d, KVMD_PRESSURE_FULL, 0);
	psi_advance(&d->psi, KVMD_PRESSURE_FULL, 10 * 1000 * MS);
	/* After one window: 1 - 1/e. */
	ck_assert_double_eq_tol(d->psi.avg[PSI_FULL][PSI_10S], 1 - exp(-1), 1e-12);
	psi_advance(&d->psi, KVMD_PRESSURE_FULL, 86400 * 1000 * MS);
	for (int w = 0; w < NR_PSI_WINDOW; w++) {
		ck_assert_double_eq_tol(d->psi.avg[PSI_SOME][w], 1, 1e-9);
		ck_assert_double_eq_tol(d->psi.avg[PSI_FULL][w], 1, 1e-9);
	}
}
END_TEST

START_TEST(some_is_not_full)
{
	psi_update(d, KVMD_PRESSURE_SOME, 1000 * MS);
	psi_update(d, KVMD_PRESSURE_NONE, 3000 * MS);
	ck_assert_double_gt(d->psi.avg[PSI_SOME][PSI_10S], 0.1);
	ck_assert_double_eq(d->psi.avg[PSI_FULL][PSI_10S], 0);
	ck_assert_uint_eq(psi_total_ns(d, PSI_SOME, 9000 * MS), 2000 * MS);
	ck_assert_uint_eq(psi_total_ns(d, PSI_FULL, 9000 * MS), 0);
}
END_TEST

START_TEST(a_clock_that_stands_still_is_harmless)
{
	psi_update(d, KVMD_PRESSURE_FULL, 1000 * MS);
	psi_update(d, KVMD_PRESSURE_NONE, 1000 * MS);
	psi_update(d, KVMD_PRESSURE_FULL, 1000 * MS);
	ck_assert_uint_eq(psi_total_ns(d, PSI_FULL, 1000 * MS), 0);
	ck_assert_uint_eq(psi_total_ns(d, PSI_FULL, 500 * MS), 0);
	ck_assert_double_eq(d->psi.avg[PSI_FULL][PSI_10S], 0);
}
END_TEST

START_TEST(names)
{
	ck_assert_str_eq(psi_kind_name(PSI_SOME), "some");
	ck_assert_str_eq(psi_kind_name(PSI_FULL), "full");
	ck_assert_str_eq(psi_kind_name(NR_PSI_KIND), "?");
	ck_assert_str_eq(psi_level_name(KVMD_PRESSURE_NONE), "none");
	ck_assert_str_eq(psi_level_name(KVMD_NR_PRESSURE), "?");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("admin_psi");
	TCase *tc = tcase_create("psi");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, averages_follow_a_reference);
	tcase_add_test(tc, constant_pressure_reaches_one);
	tcase_add_test(tc, some_is_not_full);
	tcase_add_test(tc, a_clock_that_stands_still_is_harmless);
	tcase_add_test(tc, names);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
