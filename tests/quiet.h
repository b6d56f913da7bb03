/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quiet.h - libcheck's assertions for loops: nothing is written while they hold.
 *
 * libcheck's own write a message each time they are reached, to a file in TEMP that
 * nobody reads unless a test dies. In a loop that is megabytes, and where the disk
 * is full in between, the torn file makes libcheck itself give up. These have the
 * same meaning and the same text when they fail; a crash is told with the last
 * ordinary assertion before it.
 */
#ifndef KVMD_TESTS_QUIET_H
#define KVMD_TESTS_QUIET_H

#include <check.h>
#include <inttypes.h>
#include <string.h>

#define quiet_assert_msg(cond, ...) do { \
	if (!(cond)) \
		ck_abort_msg(__VA_ARGS__); \
} while (0)
#define quiet_assert(cond) quiet_assert_msg(cond, "Assertion '%s' failed", #cond)

#define QUIET_NUMBERS(type, fmt, x, op, y) do { \
	type quiet_x = (x), quiet_y = (y); \
	quiet_assert_msg(quiet_x op quiet_y, \
			 "Assertion '%s' failed: %s == %" fmt ", %s == %" fmt, \
			 #x " " #op " " #y, #x, quiet_x, #y, quiet_y); \
} while (0)
#define quiet_assert_int_eq(x, y) QUIET_NUMBERS(intmax_t, PRIdMAX, x, ==, y)
#define quiet_assert_int_ne(x, y) QUIET_NUMBERS(intmax_t, PRIdMAX, x, !=, y)
#define quiet_assert_int_gt(x, y) QUIET_NUMBERS(intmax_t, PRIdMAX, x, >, y)
#define quiet_assert_int_ge(x, y) QUIET_NUMBERS(intmax_t, PRIdMAX, x, >=, y)
#define quiet_assert_uint_eq(x, y) QUIET_NUMBERS(uintmax_t, PRIuMAX, x, ==, y)
#define quiet_assert_uint_ne(x, y) QUIET_NUMBERS(uintmax_t, PRIuMAX, x, !=, y)
#define quiet_assert_uint_lt(x, y) QUIET_NUMBERS(uintmax_t, PRIuMAX, x, <, y)
#define quiet_assert_uint_le(x, y) QUIET_NUMBERS(uintmax_t, PRIuMAX, x, <=, y)
#define quiet_assert_uint_ge(x, y) QUIET_NUMBERS(uintmax_t, PRIuMAX, x, >=, y)
#define quiet_assert_ptr_eq(x, y) quiet_assert((x) == (y))
#define quiet_assert_ptr_null(x) quiet_assert((x) == NULL)
#define quiet_assert_ptr_nonnull(x) quiet_assert((x) != NULL)
#define quiet_assert_mem_eq(x, y, bytes) quiet_assert(!memcmp(x, y, bytes))

#endif
