/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test.h - the test tiers: what lies between a mover and the tier it tests.
 *
 * One struct for all kinds. A request waits in the element's queue until it is
 * due, then it either ends here or goes on to the tier below as a request of the
 * element's own, one of a fixed number; what finds none waits for one. Nothing
 * is allocated after creation. Capacity, `broken' and `draining' are those of
 * the tier below, as of the last call. Core thread only.
 */
#ifndef KVMD_TIER_TEST_H
#define KVMD_TIER_TEST_H

#include "kvmd/lib/fault.h"
#include "kvmd/tier/tier.h"

#define TEST_PASSES	256u		/* requests passed on at a time */

enum test_kind { TEST_NULL, TEST_DELAY, TEST_ERROR, NR_TEST };
const char *test_kind_name(unsigned kind);	/* "null", "delay", "error" */

enum test_error { TEST_ERR_READ, TEST_ERR_WRITE, TEST_ERR_ALLOC, TEST_ERR_FLIP, NR_TEST_ERR };
const char *test_error_name(unsigned what);	/* "read", "write", "alloc", "flip" */

enum { TEST_READS, TEST_WRITES, NR_TEST_QUEUE };

/* What one element does. */
struct test_opts {
	enum test_kind kind;
	uint64_t delay_ns[NR_TEST_QUEUE];
	enum test_error what;		/* TEST_ERROR: what fails, */
	struct fault_rule rule;		/* and which of them */
};

/* 0 or -ENOMEM; *ret_t does not own @below: tier_destroy() goes down the stack. */
int test_tier_create(const struct test_opts *o, struct tier *below, struct tier **ret_t);

#endif
