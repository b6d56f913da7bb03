/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_keep.c - records with two copies, and the head of the kept state.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "kvmd/lib/mem.h"
#include "kvmd/lib/sum.h"
#include "kvmd/svc/keep.h"
#include "tests/suite.h"

static KEEP_RECORD(struct keep_sid) rec;

static void fresh(void)
{
	memset(&rec, 0, sizeof(rec));
}

static void put(uint64_t epoch)
{
	struct keep_sid v = { .space = 3, .epoch = epoch };

	keep_put(&rec, &v);
}

static uint64_t got(void)
{
	bool torn;
	const struct keep_sid *v = keep_get(&rec, &torn);

	ck_assert(!torn);
	ck_assert_ptr_nonnull(v);
	ck_assert_uint_eq(v->space, 3);
	return v->epoch;
}

START_TEST(what_was_written_last_counts)
{
	bool torn = true;

	fresh();
	ck_assert_ptr_null(keep_get(&rec, &torn));
	ck_assert(!torn);
	for (uint64_t i = 1; i < 10; i++) {
		put(i);
		ck_assert_uint_eq(got(), i);
	}
}
END_TEST

START_TEST(a_record_that_is_not_in_use)
{
	bool torn;

	fresh();
	put(1);
	keep_write(&rec, sizeof(rec.copy[0]), NULL, 0);
	ck_assert_ptr_null(keep_get(&rec, &torn));
	ck_assert(!torn);
	put(2);
	ck_assert_uint_eq(got(), 2);
}
END_TEST

/* Whatever byte of the copy that is being written is not there yet, the other one is. */
START_TEST(a_torn_copy_leaves_the_other)
{
	for (size_t at = 0; at < sizeof(rec.copy[0]); at++) {
		fresh();
		put(7);
		put(8);
		/* The first went to one copy, the second to the other. */
		for (int i = 0; i < 2; i++) {
			bool torn;
			const struct keep_sid *v = keep_get(&rec, &torn);
			uint8_t *copy = (uint8_t *)&rec.copy[i];

			ck_assert_uint_eq(v->epoch, 8);
			copy[at] ^= 0x10;
			v = keep_get(&rec, &torn);
			ck_assert_ptr_nonnull(v);
			ck_assert(!torn);
			ck_assert(v->epoch == 7 || v->epoch == 8);
			ck_assert(v == &rec.copy[!i].v);
			copy[at] ^= 0x10;
		}
	}
}
END_TEST

START_TEST(two_torn_copies_are_none)
{
	bool torn;

	fresh();
	put(7);
	put(8);
	rec.copy[0].v.epoch ^= 1;
	rec.copy[1].v.epoch ^= 1;
	ck_assert_ptr_null(keep_get(&rec, &torn));
	ck_assert(torn);
	put(9);
	ck_assert_uint_eq(got(), 9);
}
END_TEST

/* The number that says which is the later one runs over. */
START_TEST(numbers_run_over)
{
	struct keep_mark *m;

	fresh();
	put(1);
	m = rec.copy[0].m.nr ? &rec.copy[0].m : &rec.copy[1].m;
	m->nr = UINT32_MAX - 2;
	m->sum = sum_of(&m->nr, sizeof(rec.copy[0]) - sizeof(m->sum));
	for (uint64_t i = 1; i < 7; i++) {
		ck_assert_uint_eq(got(), i);
		put(i + 1);
	}
	ck_assert_uint_eq(got(), 7);
}
END_TEST

START_TEST(a_head_of_another_build_is_refused)
{
	struct keep_state *st = mem_big_alloc(sizeof(*st), false);
	uint32_t *const field[] = {
		&st->h.bytes, &st->h.block_bytes, &st->h.block_version, &st->h.seq_bytes,
		&st->h.wire_version, &st->h.max_spaces, &st->h.max_sids, &st->h.max_slabs,
		&st->h.max_conns, &st->h.record_bytes[0], &st->h.record_bytes[5],
	};
	char msg[160] = "";

	ck_assert_ptr_nonnull(st);
	keep_head_init(st);
	ck_assert_int_eq(keep_head_check(st, sizeof(*st), msg, sizeof(msg)), 0);
	ck_assert_int_eq(keep_head_check(st, sizeof(*st) - 1, msg, sizeof(msg)), -EINVAL);
	ck_assert_int_eq(keep_head_check(st, 8, msg, sizeof(msg)), -EINVAL);
	for (size_t i = 0; i < ARRAY_SIZE(field); i++) {
		++*field[i];
		ck_assert_int_eq(keep_head_check(st, sizeof(*st), msg, sizeof(msg)), -EINVAL);
		ck_assert_ptr_nonnull(strstr(msg, "another build"));
		--*field[i];
	}
	st->h.version++;
	ck_assert_int_eq(keep_head_check(st, sizeof(*st), msg, sizeof(msg)), -EINVAL);
	ck_assert_ptr_nonnull(strstr(msg, "version 2"));
	st->h.magic = 0;
	ck_assert_int_eq(keep_head_check(st, sizeof(*st), msg, sizeof(msg)), -EINVAL);
	mem_big_free(st, sizeof(*st));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("keep");
	TCase *t = tcase_create("keep");

	suite_add_tcase(s, t);
	tcase_add_test(t, what_was_written_last_counts);
	tcase_add_test(t, a_record_that_is_not_in_use);
	tcase_add_test(t, a_torn_copy_leaves_the_other);
	tcase_add_test(t, two_torn_copies_are_none);
	tcase_add_test(t, numbers_run_over);
	tcase_add_test(t, a_head_of_another_build_is_refused);
	return suite_run(s);
}
