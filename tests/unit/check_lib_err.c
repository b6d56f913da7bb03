// SPDX-License-Identifier: Apache-2.0
/*
 * check_lib_err.c - errors with a text, and the small words of kvmd/lib: meters,
 * the earlier of two times, zeros.
 */
#include "kvmd/lib/err.h"
#include "kvmd/lib/mem.h"
#include "kvmd/lib/meter.h"

#include <check.h>

#include "tests/suite.h"

START_TEST(an_error_comes_back_with_its_text)
{
	char msg[16] = "untouched";

	ck_assert_int_eq(err_text(-EINVAL, msg, sizeof(msg), "%s is %d", "it", 7), -EINVAL);
	ck_assert_str_eq(msg, "it is 7");
	ck_assert_int_eq(err_text(-EBUSY, msg, sizeof(msg), "%s", "longer than the room"), -EBUSY);
	ck_assert_str_eq(msg, "longer than the");
}
END_TEST

START_TEST(a_text_that_nobody_wants)
{
	char msg[4] = "abc";

	ck_assert_int_eq(err_text(-EIO, NULL, 9, "text"), -EIO);
	ck_assert_int_eq(err_text(-EIO, msg, 0, "text"), -EIO);
	ck_assert_str_eq(msg, "abc");
}
END_TEST

START_TEST(none_is_later_than_any_time)
{
	ck_assert_uint_eq(clock_earlier(0, 0), 0);
	ck_assert_uint_eq(clock_earlier(5, 0), 5);
	ck_assert_uint_eq(clock_earlier(0, 5), 5);
	ck_assert_uint_eq(clock_earlier(4, 5), 4);
	ck_assert_uint_eq(clock_earlier(5, 4), 4);
}
END_TEST

START_TEST(a_meter_samples_busy_time)
{
	struct meter m = { 0 };

	meter_start(&m, 100);
	meter_start(&m, 50);
	ck_assert_uint_eq(m.inflight, 150);
	meter_end(&m, 100, UINT64_MAX, 4);
	/* The sample is not full. */
	ck_assert_uint_eq(m.inflight, 50);
	ck_assert_uint_eq(m.bytes, 100);
	ck_assert_uint_eq(m.bps, 0);
	/* As if it took a second. */
	m.since_ns = clock_ns();
	m.busy_ns = 1000000000;
	meter_end(&m, 50, 1000000000, 4);
	ck_assert_uint_eq(m.inflight, 0);
	ck_assert_uint_eq(m.bytes | m.busy_ns, 0);
	ck_assert_uint_gt(m.bps, 0);
	ck_assert_uint_le(m.bps, 150);
	/* One part in four is the new sample: here of nothing. */
	m.bps = 400;
	m.busy_ns = 1000000000;
	meter_start(&m, 0);
	meter_end(&m, 0, 1000000000, 4);
	ck_assert_uint_eq(m.bps, 300);
}
END_TEST

START_TEST(zeros)
{
	uint8_t mem[9] = { 0 };

	ck_assert(mem_is_zero(mem, 0) && mem_is_zero(mem, 1) && mem_is_zero(mem, sizeof(mem)));
	mem[8] = 1;
	ck_assert(mem_is_zero(mem, 8) && !mem_is_zero(mem, 9) && !mem_is_zero(mem + 8, 1));
	mem[0] = 1;
	ck_assert(!mem_is_zero(mem, 1) && mem_is_zero(mem, 0));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("lib_err");
	TCase *tc = tcase_create("lib_err");

	tcase_add_test(tc, an_error_comes_back_with_its_text);
	tcase_add_test(tc, a_text_that_nobody_wants);
	tcase_add_test(tc, none_is_later_than_any_time);
	tcase_add_test(tc, a_meter_samples_busy_time);
	tcase_add_test(tc, zeros);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
