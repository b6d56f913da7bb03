/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_admin_psi.c - pressure averages against a reference in small steps, and
 * triggers.
 */
#include <check.h>
#include <math.h>

#include "kvmd/svc/psi.h"
#include "tests/suite.h"

#define MS	1000000ull

static const double windows[NR_PSI_WINDOW] = { 10, 60, 300 };
static struct psi p;

static void setup(void)
{
	memset(&p, 0, sizeof(p));
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
	double avg[NR_PSI_KIND][NR_PSI_WINDOW];

	p.since_ns = now;
	for (size_t i = 0; i < ARRAY_SIZE(run); i++) {
		psi_update(&p, run[i].level, now);
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
		psi_averages(&p, now, avg);
		for (int k = 0; k < NR_PSI_KIND; k++)
			for (int w = 0; w < NR_PSI_WINDOW; w++)
				ck_assert_double_eq_tol(avg[k][w], ref[k][w], 1e-9);
		ck_assert_uint_eq(psi_total_ns(&p, PSI_SOME, now), some * MS);
		ck_assert_uint_eq(psi_total_ns(&p, PSI_FULL, now), full * MS);
	}
}
END_TEST

START_TEST(constant_pressure_reaches_one)
{
	double avg[NR_PSI_KIND][NR_PSI_WINDOW];

	psi_update(&p, KVMD_PRESSURE_FULL, 0);
	psi_averages(&p, 10 * 1000 * MS, avg);
	/* After one window: 1 - 1/e. */
	ck_assert_double_eq_tol(avg[PSI_FULL][PSI_10S], 1 - exp(-1), 1e-12);
	psi_averages(&p, 86400 * 1000 * MS, avg);
	for (int w = 0; w < NR_PSI_WINDOW; w++) {
		ck_assert_double_eq_tol(avg[PSI_SOME][w], 1, 1e-9);
		ck_assert_double_eq_tol(avg[PSI_FULL][w], 1, 1e-9);
	}
}
END_TEST

START_TEST(some_is_not_full)
{
	psi_update(&p, KVMD_PRESSURE_SOME, 1000 * MS);
	psi_update(&p, KVMD_PRESSURE_NONE, 3000 * MS);
	ck_assert_double_gt(p.avg[PSI_SOME][PSI_10S], 0.1);
	ck_assert_double_eq(p.avg[PSI_FULL][PSI_10S], 0);
	ck_assert_uint_eq(psi_total_ns(&p, PSI_SOME, 9000 * MS), 2000 * MS);
	ck_assert_uint_eq(psi_total_ns(&p, PSI_FULL, 9000 * MS), 0);
}
END_TEST

START_TEST(a_clock_that_stands_still_is_harmless)
{
	psi_update(&p, KVMD_PRESSURE_FULL, 1000 * MS);
	psi_update(&p, KVMD_PRESSURE_NONE, 1000 * MS);
	psi_update(&p, KVMD_PRESSURE_FULL, 1000 * MS);
	ck_assert_uint_eq(psi_total_ns(&p, PSI_FULL, 1000 * MS), 0);
	ck_assert_uint_eq(psi_total_ns(&p, PSI_FULL, 500 * MS), 0);
	ck_assert_double_eq(p.avg[PSI_FULL][PSI_10S], 0);
}
END_TEST

/* Follow the trigger's own advice when to look, until @end; when it fired, 0: not. */
static uint64_t follow(struct psi_trigger *t, uint64_t now, uint64_t end, unsigned *ret_looks)
{
	uint64_t stall, next;

	while (now < end) {
		++*ret_looks;
		if (psi_trigger_look(t, &p, now, &stall, &next)) {
			ck_assert_uint_ge(stall, t->stall_ns);
			return now;
		}
		if (!next)
			return 0;	/* it waits for a change */
		ck_assert_uint_gt(next, now);
		now = next;
	}
	return 0;
}

START_TEST(a_trigger_fires_when_its_share_is_reached)
{
	struct psi_trigger t;
	unsigned looks = 0;
	uint64_t at;

	psi_update(&p, KVMD_PRESSURE_SOME, 100 * MS);
	/* What was before it was set does not count. */
	psi_trigger_set(&t, &p, PSI_SOME, 2000 * MS, 200 * MS, 5000 * MS);
	at = follow(&t, 5000 * MS, 60000 * MS, &looks);
	ck_assert_uint_eq(at, 5200 * MS);
	ck_assert_uint_le(looks, 3);
	/* "full" it never was. */
	psi_trigger_set(&t, &p, PSI_FULL, 2000 * MS, 200 * MS, 5000 * MS);
	ck_assert_uint_eq(follow(&t, 5000 * MS, 60000 * MS, &looks), 0);
}
END_TEST

START_TEST(a_trigger_does_not_add_up_what_is_far_apart)
{
	struct psi_trigger t;
	uint64_t now = 1000 * MS, stall, next;
	unsigned looks = 0;

	/* 50 ms in each second, 10 % of 1 s wanted: never. */
	psi_trigger_set(&t, &p, PSI_SOME, 1000 * MS, 100 * MS, now);
	for (int i = 0; i < 100; i++) {
		psi_update(&p, KVMD_PRESSURE_SOME, now);
		ck_assert_uint_eq(follow(&t, now, now + 50 * MS, &looks), 0);
		psi_update(&p, KVMD_PRESSURE_NONE, now + 50 * MS);
		ck_assert_uint_eq(follow(&t, now + 50 * MS, now + 1000 * MS, &looks), 0);
		now += 1000 * MS;
	}
	ck_assert_uint_lt(looks, 1000);
	/* Two such bursts close together do, after some time without. */
	ck_assert_uint_eq(follow(&t, now, now + 3000 * MS, &looks), 0);
	now += 3000 * MS;
	psi_update(&p, KVMD_PRESSURE_SOME, now);
	ck_assert(!psi_trigger_look(&t, &p, now, &stall, &next));
	psi_update(&p, KVMD_PRESSURE_NONE, now + 60 * MS);
	ck_assert(!psi_trigger_look(&t, &p, now + 60 * MS, &stall, &next));
	psi_update(&p, KVMD_PRESSURE_SOME, now + 100 * MS);
	ck_assert_uint_ne(follow(&t, now + 100 * MS, now + 200 * MS, &looks), 0);
}
END_TEST

START_TEST(a_trigger_that_is_asked_late_sees_the_share)
{
	struct psi_trigger t;
	uint64_t stall, next;

	psi_trigger_set(&t, &p, PSI_SOME, 1000 * MS, 500 * MS, 0);
	psi_update(&p, KVMD_PRESSURE_SOME, 0);
	psi_update(&p, KVMD_PRESSURE_NONE, 2000 * MS);
	/* 2 of 10 s: 20 %, not 2 s in one second. */
	ck_assert(!psi_trigger_look(&t, &p, 10000 * MS, &stall, &next));
	ck_assert_uint_eq(stall, 200 * MS);
	/* A clock that goes back is no stall. */
	ck_assert(!psi_trigger_look(&t, &p, 9000 * MS, &stall, &next));
}
END_TEST

START_TEST(names)
{
	ck_assert_str_eq(psi_kind_name(PSI_SOME), "some");
	ck_assert_str_eq(psi_kind_name(PSI_FULL), "full");
	ck_assert_str_eq(psi_kind_name(NR_PSI_KIND), "?");
	ck_assert_str_eq(psi_level_name(KVMD_PRESSURE_NONE), "none");
	ck_assert_str_eq(psi_level_name(KVMD_NR_PRESSURE), "?");
	ck_assert_str_eq(psi_res_name(PSI_HBM), "hbm");
	ck_assert_str_eq(psi_res_name(PSI_CLEAN), "clean");
	ck_assert_str_eq(psi_res_name(NR_PSI_RES), "?");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("admin_psi");
	TCase *tc = tcase_create("psi");

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_test(tc, averages_follow_a_reference);
	tcase_add_test(tc, constant_pressure_reaches_one);
	tcase_add_test(tc, some_is_not_full);
	tcase_add_test(tc, a_clock_that_stands_still_is_harmless);
	tcase_add_test(tc, a_trigger_fires_when_its_share_is_reached);
	tcase_add_test(tc, a_trigger_does_not_add_up_what_is_far_apart);
	tcase_add_test(tc, a_trigger_that_is_asked_late_sees_the_share);
	tcase_add_test(tc, names);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
