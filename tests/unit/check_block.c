/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_block.c - every transition of a block, allowed or not; names.
 */
#include <check.h>
#include <signal.h>

#include "kvmd/pool/block.h"
#include "tests/suite.h"

/* Written from the picture in block.h, not from the table. */
static const bool allowed[NR_BLK_STATE][NR_BLK_STATE] = {
	[BLK_FREE] = { [BLK_OPEN] = true, [BLK_SEALED] = true },
	[BLK_OPEN] = {
		[BLK_SEALING] = true, [BLK_FREE] = true, [BLK_QUARANTINE] = true, [BLK_BAD] = true,
	},
	[BLK_SEALING] = {
		[BLK_SEALED] = true, [BLK_OPEN] = true, [BLK_FREE] = true,
		[BLK_QUARANTINE] = true, [BLK_BAD] = true,
	},
	[BLK_SEALED] = {
		[BLK_EVICTING] = true, [BLK_LOADING] = true, [BLK_QUARANTINE] = true,
		[BLK_BAD] = true,
	},
	[BLK_LOADING] = { [BLK_SEALED] = true, [BLK_QUARANTINE] = true, [BLK_BAD] = true },
	[BLK_EVICTING] = {
		[BLK_FREE] = true, [BLK_SEALED] = true, [BLK_QUARANTINE] = true, [BLK_BAD] = true,
	},
	[BLK_QUARANTINE] = { [BLK_FREE] = true, [BLK_BAD] = true },
};

START_TEST(table)
{
	for (unsigned from = 0; from < NR_BLK_STATE; from++)
		for (unsigned to = 0; to < NR_BLK_STATE; to++)
			ck_assert_msg(blk_transition_ok(from, to) == allowed[from][to],
				      "%s -> %s", blk_state_name(from), blk_state_name(to));
	ck_assert(!blk_transition_ok(NR_BLK_STATE, BLK_FREE));
	ck_assert(!blk_transition_ok(BLK_FREE, NR_BLK_STATE));
	ck_assert(!blk_transition_ok(UINT32_MAX, UINT32_MAX));
}
END_TEST

START_TEST(allowed_ones_happen)
{
	for (unsigned from = 0; from < NR_BLK_STATE; from++) {
		for (unsigned to = 0; to < NR_BLK_STATE; to++) {
			struct block b = { .state = (uint8_t)from };

			if (!allowed[from][to])
				continue;
			block_set_state(&b, (enum blk_state)to);
			ck_assert_uint_eq(b.state, to);
		}
	}
}
END_TEST

/* One process each: a denied transition stops it. */
START_TEST(denied_one_stops)
{
	unsigned from = (unsigned)_i / NR_BLK_STATE, to = (unsigned)_i % NR_BLK_STATE;
	struct block b = { .state = (uint8_t)from };

	if (allowed[from][to])
		abort();
	block_set_state(&b, (enum blk_state)to);
}
END_TEST

START_TEST(names)
{
	ck_assert_str_eq(blk_state_name(BLK_FREE), "free");
	ck_assert_str_eq(blk_state_name(BLK_BAD), "bad");
	ck_assert_str_eq(blk_state_name(NR_BLK_STATE), "?");
	for (unsigned i = 0; i < NR_BLK_STATE; i++)
		for (unsigned k = 0; k < i; k++)
			ck_assert_str_ne(blk_state_name(i), blk_state_name(k));
}
END_TEST

START_TEST(residence)
{
	struct block b = { .state = BLK_SEALED };

	ck_assert(!block_is_resident(&b));
	b.slot = 3;
	ck_assert(block_is_resident(&b));
	b.state = BLK_OPEN;
	ck_assert(!block_is_resident(&b));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("block");
	TCase *tc = tcase_create("block"), *stops = tcase_create("stops");

	tcase_add_test(tc, table);
	tcase_add_test(tc, allowed_ones_happen);
	tcase_add_test(tc, names);
	tcase_add_test(tc, residence);
	tcase_add_loop_test_raise_signal(stops, denied_one_stops, SIGABRT, 0,
					 NR_BLK_STATE * NR_BLK_STATE);
	suite_add_tcase(s, tc);
	suite_add_tcase(s, stops);
	return suite_run(s);
}
