/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_admin_parse.c - request lines of the admin socket, good and malformed.
 */
#include <check.h>
#include <stdio.h>

#include "kvmd/svc/admin_parse.h"
#include "tests/suite.h"

static char line[512], msg[128];
static struct admin_req rq;

static int parse_n(const char *s, size_t len)
{
	memcpy(line, s, len);
	line[len] = 'X';	/* the parser puts its NUL here */
	msg[0] = '\0';
	return admin_parse(line, len, &rq, msg, sizeof(msg));
}

static int parse(const char *s)
{
	return parse_n(s, strlen(s));
}

START_TEST(a_request_is_taken_apart)
{
	ck_assert_int_eq(parse("block list space=llama limit=10 offset=7"), 0);
	ck_assert_str_eq(rq.noun, "block");
	ck_assert_str_eq(rq.verb, "list");
	ck_assert_uint_eq(rq.nr_args, 3);
	ck_assert_str_eq(admin_req_arg(&rq, "space"), "llama");
	ck_assert_str_eq(admin_req_arg(&rq, "limit"), "10");
	ck_assert_str_eq(admin_req_arg(&rq, "offset"), "7");
	ck_assert_ptr_null(admin_req_arg(&rq, "group"));
}
END_TEST

START_TEST(blanks_do_not_count)
{
	ck_assert_int_eq(parse("  status   show  "), 0);
	ck_assert_str_eq(rq.noun, "status");
	ck_assert_str_eq(rq.verb, "show");
	ck_assert_uint_eq(rq.nr_args, 0);
}
END_TEST

START_TEST(values_are_decoded)
{
	ck_assert_int_eq(parse("space show space=a%20b%25%3d= group="), 0);
	ck_assert_str_eq(admin_req_arg(&rq, "space"), "a b%==");
	ck_assert_str_eq(admin_req_arg(&rq, "group"), "");
}
END_TEST

static const struct {
	const char *text, *says;
} bad[] = {
	{ "", "NOUN VERB" },
	{ "   ", "NOUN VERB" },
	{ "status", "NOUN VERB" },
	{ "Status show", "no noun" },
	{ "st=1 show", "no noun" },
	{ "status sh\tow", "no verb" },
	{ "status show\r", "no verb" },
	{ "status show x", "KEY=VALUE" },
	{ "status show =1", "no name" },
	{ "status show A=1", "no name" },
	{ "status show a=%", "two hex digits" },
	{ "status show a=%4", "two hex digits" },
	{ "status show a=%zz", "two hex digits" },
	{ "status show a=%00", "zero byte" },
	{ "status show a=1 a=2", "twice" },
	{ "n v a=1 b=1 c=1 d=1 e=1 f=1 g=1 h=1 i=1 j=1 k=1 l=1 m=1", "more than 12" },
};

START_TEST(malformed_lines_are_named)
{
	struct admin_req before = rq;

	ck_assert_int_eq(parse(bad[_i].text), -EINVAL);
	ck_assert_msg(strstr(msg, bad[_i].says) != NULL, "'%s': %s", bad[_i].text, msg);
	ck_assert_mem_eq(&rq, &before, sizeof(rq));	/* untouched on failure */
}
END_TEST

START_TEST(a_zero_byte_is_refused)
{
	ck_assert_int_eq(parse_n("status show\0 a=1", 16), -EINVAL);
	ck_assert_ptr_nonnull(strstr(msg, "zero byte"));
}
END_TEST

START_TEST(a_message_quotes_little)
{
	char text[400];

	memset(text, 'Q', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	ck_assert_int_eq(parse(text), -EINVAL);
	ck_assert_uint_lt(strlen(msg), 80);
}
END_TEST

/* Any bytes at all: no crash, and what is accepted has a noun and a verb. */
START_TEST(random_bytes_do_no_harm)
{
	static const char alphabet[] = "ab=%% 0f\n\t\xff_-";
	uint64_t seed = 1;

	for (int run = 0; run < 200000; run++) {
		size_t len = 0;

		for (int i = 0; i < 40; i++) {
			seed = seed * 6364136223846793005ull + 1442695040888963407ull;
			if ((seed >> 60) == 0)
				break;
			line[len++] = alphabet[(seed >> 33) % (sizeof(alphabet) - 1)];
		}
		if (admin_parse(line, len, &rq, msg, sizeof(msg)))
			continue;
		ck_assert_ptr_nonnull(rq.noun);
		ck_assert_ptr_nonnull(rq.verb);
		for (unsigned i = 0; i < rq.nr_args; i++)
			ck_assert_ptr_eq(admin_req_arg(&rq, rq.arg[i].key), rq.arg[i].val);
	}
}
END_TEST

START_TEST(hex)
{
	uint8_t b[4];

	ck_assert_int_eq(admin_parse_hex("00fFaB10", 8, b, 4), 0);
	ck_assert_mem_eq(b, "\x00\xff\xab\x10", 4);
	ck_assert_int_eq(admin_parse_hex("00ffab1", 7, b, 4), -EINVAL);
	ck_assert_int_eq(admin_parse_hex("00ffab100", 9, b, 4), -EINVAL);
	ck_assert_int_eq(admin_parse_hex("00ffabg0", 8, b, 4), -EINVAL);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("admin_parse");
	TCase *tc = tcase_create("lines");

	tcase_add_test(tc, a_request_is_taken_apart);
	tcase_add_test(tc, blanks_do_not_count);
	tcase_add_test(tc, values_are_decoded);
	tcase_add_loop_test(tc, malformed_lines_are_named, 0, (int)ARRAY_SIZE(bad));
	tcase_add_test(tc, a_zero_byte_is_refused);
	tcase_add_test(tc, a_message_quotes_little);
	tcase_add_test(tc, random_bytes_do_no_harm);
	tcase_add_test(tc, hex);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
