// SPDX-License-Identifier: Apache-2.0
/*
 * suite.c - see suite.h.
 */
#include "tests/suite.h"

#include <stdlib.h>

TCase *suite_group(Suite *s, const char *name, SFun setup, SFun teardown)
{
	TCase *tc = tcase_create(name);

	if (setup || teardown)
		tcase_add_checked_fixture(tc, setup, teardown);
	suite_add_tcase(s, tc);
	return tc;
}

TCase *suite_slow_group(Suite *s, const char *name, SFun setup, SFun teardown, double seconds)
{
	TCase *tc = suite_group(s, name, setup, teardown);

	tcase_set_timeout(tc, seconds);
	return tc;
}

TCase *suite_test(Suite *s, const char *behaviour, const TTest *test, SFun setup, SFun teardown)
{
	TCase *tc = suite_group(s, behaviour, setup, teardown);

	tcase_add_test(tc, test);
	return tc;
}

int suite_run(Suite *s)
{
	SRunner *sr = srunner_create(s);
	int nr_failed;

	srunner_run_all(sr, CK_ENV);
	nr_failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return nr_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
