// SPDX-License-Identifier: Apache-2.0
/*
 * check_lib_json.c - the JSON writer.
 */
#include "kvmd/lib/fault.h"
#include "kvmd/lib/json.h"

#include <check.h>
#include <math.h>

#include "tests/suite.h"

START_TEST(values_and_commas)
{
	struct json j;

	json_init(&j);
	json_obj(&j, NULL);
	json_u64(&j, "u", UINT64_MAX);
	json_i64(&j, "i", INT64_MIN);
	json_f64(&j, "f", 0.25);
	json_bool(&j, "t", true);
	json_bool(&j, "n", false);
	json_null(&j, "z");
	json_str(&j, "s", "x");
	json_str(&j, "none", NULL);
	json_hex(&j, "h", "\x00\xff\x1a", 3);
	json_arr(&j, "a");
	json_u64(&j, NULL, 1);
	json_obj(&j, NULL);
	json_obj_end(&j);
	json_arr(&j, NULL);
	json_arr_end(&j);
	json_u64(&j, NULL, 2);
	json_arr_end(&j);
	json_u64(&j, "last", 0);
	json_obj_end(&j);
	ck_assert_int_eq(j.err, 0);
	ck_assert_str_eq(j.buf,
			 "{\"u\":18446744073709551615,\"i\":-9223372036854775808,\"f\":0.25,"
			 "\"t\":true,\"n\":false,\"z\":null,\"s\":\"x\",\"none\":null,"
			 "\"h\":\"00ff1a\",\"a\":[1,{},[],2],\"last\":0}");
	ck_assert_uint_eq(j.len, strlen(j.buf));
	json_exit(&j);
}
END_TEST

START_TEST(strings_are_escaped)
{
	struct json j;

	json_init(&j);
	json_str(&j, NULL, "q\" b\\ n\n t\t c\x01 d\x7f");
	ck_assert_str_eq(j.buf, "\"q\\\" b\\\\ n\\n t\\t c\\u0001 d\\u007f\"");
	json_exit(&j);
}
END_TEST

START_TEST(broken_utf8_is_replaced)
{
	struct json j;

	json_init(&j);
	/* A good two-byte letter, a lone tail, an overlong slash, a surrogate, a cut end. */
	json_str(&j, NULL, "\xc3\xa9|\x80|\xc0\xaf|\xed\xa0\x80|\xe2\x82");
	ck_assert_str_eq(j.buf, "\"\xc3\xa9|\\ufffd|\\ufffd\\ufffd|"
				"\\ufffd\\ufffd\\ufffd|\\ufffd\\ufffd\"");
	json_exit(&j);
}
END_TEST

START_TEST(not_a_number_is_null)
{
	struct json j;

	json_init(&j);
	json_arr(&j, NULL);
	json_f64(&j, NULL, NAN);
	json_f64(&j, NULL, INFINITY);
	json_f64(&j, NULL, -INFINITY);
	json_f64(&j, NULL, 1e300);
	json_arr_end(&j);
	ck_assert_str_eq(j.buf, "[null,null,null,1e+300]");
	json_exit(&j);
}
END_TEST

START_TEST(long_text_grows)
{
	struct json j;
	unsigned i;

	json_init(&j);
	json_arr(&j, NULL);
	for (i = 0; i < 5000; i++)
		json_str(&j, NULL, "0123456789");
	json_arr_end(&j);
	ck_assert_int_eq(j.err, 0);
	ck_assert_uint_eq(j.len, 5000 * 13 + 1);
	ck_assert_uint_eq(strlen(j.buf), j.len);
	json_exit(&j);
}
END_TEST

START_TEST(out_of_memory_is_sticky)
{
	struct json j;
	unsigned i;

	json_init(&j);
	ck_assert_int_eq(fault_arm("alloc:nth=2", NULL, 0), 0);
	for (i = 0; i < 1000; i++)
		json_u64(&j, "key", i);
	ck_assert_int_eq(j.err, -ENOMEM);
	ck_assert_uint_lt(j.len, 1024);
	ck_assert_uint_eq(strlen(j.buf), j.len);
	ck_assert_uint_eq(fault_nr_calls(FAULT_ALLOC), 2);
	fault_disarm();
	json_exit(&j);
}
END_TEST

static void add(Suite *s, const char *behaviour, const TTest *test)
{
	suite_test(s, behaviour, test, NULL, NULL);
}

int main(void)
{
	Suite *s = suite_create("lib_json");

	add(s, "values and commas", values_and_commas);
	add(s, "strings are escaped", strings_are_escaped);
	add(s, "broken utf8 is replaced", broken_utf8_is_replaced);
	add(s, "not a number is null", not_a_number_is_null);
	add(s, "long text grows", long_text_grows);
	add(s, "out of memory is sticky", out_of_memory_is_sticky);

	return suite_run(s);
}
