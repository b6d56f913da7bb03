/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_tier_null.c - the tier that keeps nothing.
 */
#include <check.h>

#include "kvmd/tier/tier.h"

static struct tier t;
static struct tier_req *order[8];
static unsigned nr;

static void setup(void)
{
	tier_null_init(&t, 3);
	nr = 0;
}

static void done(struct tier_req *r)
{
	order[nr++] = r;
}

START_TEST(places_run_out)
{
	uint32_t p[3];

	for (int i = 0; i < 3; i++) {
		p[i] = t.ops->alloc(&t, 4096);
		ck_assert_uint_ne(p[i], 0);
	}
	ck_assert_uint_eq(t.ops->alloc(&t, 4096), 0);
	ck_assert_uint_eq(t.nr_free, 0);
	t.ops->free(&t, p[1]);
	ck_assert_uint_ne(t.ops->alloc(&t, 4096), 0);
	ck_assert_uint_eq(t.ops->alloc(&t, 4096), 0);
}
END_TEST

START_TEST(done_at_the_poll_in_order)
{
	struct tier_req r[3] = { { .done = done }, { .done = done }, { .done = done } };

	ck_assert_uint_eq(t.ops->poll(&t), 0);
	t.ops->write(&t, &r[0]);
	t.ops->read(&t, &r[1]);
	t.ops->write(&t, &r[2]);
	ck_assert_uint_eq(nr, 0);
	ck_assert_uint_eq(t.ops->poll(&t), 3);
	for (int i = 0; i < 3; i++) {
		ck_assert_ptr_eq(order[i], &r[i]);
		ck_assert_ptr_eq(r[i].tier, &t);
	}
	ck_assert_int_eq(r[0].err, 0);
	ck_assert_int_eq(r[1].err, -ENODATA);
	ck_assert_int_eq(r[2].err, 0);
	ck_assert_uint_eq(t.ops->poll(&t), 0);
}
END_TEST

static void again(struct tier_req *r)
{
	if (nr++ == 0)
		r->tier->ops->write(r->tier, r);
}

/* A request may be handed in again by its own done(). */
START_TEST(submitted_from_done)
{
	struct tier_req r = { .done = again };

	t.ops->write(&t, &r);
	ck_assert_uint_eq(t.ops->poll(&t), 1);
	ck_assert_uint_eq(nr, 1);
	ck_assert_uint_eq(t.ops->poll(&t), 1);
	ck_assert_uint_eq(nr, 2);
	ck_assert_uint_eq(t.ops->poll(&t), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("tier_null");
	TCase *tc = tcase_create("tier_null");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_test(tc, places_run_out);
	tcase_add_test(tc, done_at_the_poll_in_order);
	tcase_add_test(tc, submitted_from_done);
	tcase_set_timeout(tc, 120);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
