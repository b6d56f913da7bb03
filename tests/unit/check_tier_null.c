/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_tier_null.c - the null tier.
 */
#include <check.h>
#include <stdlib.h>

START_TEST(test_nothing)
{
}
END_TEST

int main(void)
{
	Suite *s = suite_create("tier_null");
	TCase *tc = tcase_create("tier_null");
	SRunner *sr;
	int failed;

	tcase_add_test(tc, test_nothing);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
