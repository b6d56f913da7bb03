// SPDX-License-Identifier: Apache-2.0
/*
 * check_lib_crc32c.c - known values, and that the table agrees with the instruction.
 */
#include "kvmd/lib/crc32c.h"

#include <check.h>

#include "tests/quiet.h"
#include "tests/suite.h"

/* RFC 3720 appendix B.4, and the check value of the CRC catalogues. */
START_TEST(known_values)
{
	unsigned char buf[32];

	ck_assert_uint_eq(crc32c("", 0), 0);
	ck_assert_uint_eq(crc32c("123456789", 9), 0xe3069283);
	memset(buf, 0, sizeof(buf));
	ck_assert_uint_eq(crc32c(buf, 32), 0x8a9136aa);
	memset(buf, 0xff, sizeof(buf));
	ck_assert_uint_eq(crc32c(buf, 32), 0x62a8ab43);
	for (unsigned i = 0; i < 32; i++)
		buf[i] = (unsigned char)i;
	ck_assert_uint_eq(crc32c(buf, 32), 0x46dd794e);
	for (unsigned i = 0; i < 32; i++)
		buf[i] = (unsigned char)(31 - i);
	ck_assert_uint_eq(crc32c(buf, 32), 0x113fdb5c);
}
END_TEST

START_TEST(table_and_instruction_agree)
{
	unsigned char buf[300];
	uint32_t x = 1;

	for (unsigned i = 0; i < sizeof(buf); i++)
		buf[i] = (unsigned char)((x = x * 1664525 + 1013904223) >> 24);
	/* All lengths, from odd addresses too. */
	for (unsigned at = 0; at < 9; at++)
		for (unsigned n = 0; n + at <= sizeof(buf); n++)
			quiet_assert_uint_eq(crc32c(buf + at, n), crc32c_table(buf + at, n));
}
END_TEST

static void add(Suite *s, const char *behaviour, const TTest *test)
{
	suite_test(s, behaviour, test, NULL, NULL);
}

int main(void)
{
	Suite *s = suite_create("lib_crc32c");

	add(s, "known values", known_values);
	add(s, "table and instruction agree", table_and_instruction_agree);

	return suite_run(s);
}
