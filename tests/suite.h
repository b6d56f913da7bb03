/* SPDX-License-Identifier: Apache-2.0 */
/*
 * suite.h - how a libcheck suite is put together and run.
 */
#ifndef KVMD_TESTS_SUITE_H
#define KVMD_TESTS_SUITE_H

#include <check.h>

/* A case of @s; @setup and @teardown (NULL: none) around each of its tests. */
TCase *suite_group(Suite *s, const char *name, SFun setup, SFun teardown);
/* The same; each test may take @seconds. */
TCase *suite_slow_group(Suite *s, const char *name, SFun setup, SFun teardown, double seconds);
/* One test, a case of its own that is named for the behaviour. */
TCase *suite_test(Suite *s, const char *behaviour, const TTest *test, SFun setup, SFun teardown);
/* Run it and let go of it; what main() returns. */
int suite_run(Suite *s);

#endif
