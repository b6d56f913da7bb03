// SPDX-License-Identifier: Apache-2.0
/*
 * check_policy_advice.c - what clients advised, under every policy: cold first,
 * low before normal before high, priorities and times to live that end.
 */
#include <check.h>

#include "kvmd/reclaim/policy.h"
#include "policy_rig.h"
#include "tests/quiet.h"
#include "tests/suite.h"

#define NR_POLICY	3
#define SECOND		POLICY_TICKS_PER_S

static struct rig r;

static void start(int policy)
{
	rig_init(&r, policy_name((unsigned)policy));
}

START_TEST(order_of_ranks)
{
	uint32_t id[4];
	unsigned i;

	start(_i);
	for (i = 0; i < 4; i++)
		id[i] = rig_chain(&r, 1);
	rig_prio(&r, id[0], 90, 0);
	rig_prio(&r, id[2], 10, 0);
	rig_cold(&r, id[3]);
	ck_assert_uint_eq(rig_evict(&r), id[3]);
	ck_assert_uint_eq(rig_evict(&r), id[2]);
	ck_assert_uint_eq(rig_evict(&r), id[1]);
	ck_assert_uint_eq(rig_evict(&r), id[0]);
	ck_assert_uint_eq(rig_evict(&r), 0);
	rig_exit(&r);
}
END_TEST

START_TEST(advised_before_it_is_idle)
{
	uint32_t a, b, c;

	start(_i);
	a = rig_seal(&r, 0);
	b = rig_seal(&r, 0);
	c = rig_seal(&r, 0);
	rig_prio(&r, a, 60, 0);
	rig_cold(&r, c);
	rig_idle(&r, a);
	rig_idle(&r, b);
	rig_idle(&r, c);
	ck_assert_uint_eq(rig_evict(&r), c);
	ck_assert_uint_eq(rig_evict(&r), b);
	ck_assert_uint_eq(rig_evict(&r), a);
	rig_exit(&r);
}
END_TEST

START_TEST(cold_chain_goes_whole)
{
	uint32_t old, cold, i;

	start(_i);
	old = rig_chain(&r, 8);
	cold = rig_chain(&r, 8);
	for (i = 0; i < 8; i++)
		rig_cold(&r, cold + i);
	for (i = 8; i-- > 0;)
		ck_assert_uint_eq(rig_evict(&r), cold + i);
	ck_assert_uint_eq(rig_evict(&r), old + 7);
	rig_exit(&r);
}
END_TEST

/* A cold block with a child that is not: it waits, nobody else does. */
START_TEST(cold_parent_waits)
{
	uint32_t a, other;

	start(_i);
	other = rig_chain(&r, 1);
	rig_clock(&r, 16000 + 600 * SECOND);
	a = rig_chain(&r, 2);
	rig_cold(&r, a);
	ck_assert_uint_eq(rig_evict(&r), other);
	ck_assert_uint_eq(rig_evict(&r), a + 1);
	other = rig_chain(&r, 1);
	ck_assert_uint_eq(rig_evict(&r), a);
	ck_assert_uint_eq(rig_evict(&r), other);
	rig_exit(&r);
}
END_TEST

START_TEST(used_again_is_not_cold)
{
	uint32_t a, b;

	start(_i);
	a = rig_chain(&r, 1);
	rig_cold(&r, a);
	rig_hit(&r, a);
	b = rig_chain(&r, 1);
	rig_idle(&r, a);
	ck_assert(!(r.pool->blk[a].flags & BLK_F_COLD));
	rig_cold(&r, b);
	ck_assert_uint_eq(rig_evict(&r), b);
	ck_assert_uint_eq(rig_evict(&r), a);
	rig_exit(&r);
}
END_TEST

START_TEST(high_priority_ends)
{
	uint32_t high, normal, now = 16000;

	start(_i);
	high = rig_chain(&r, 1);
	rig_prio(&r, high, 100, now + 10 * SECOND);
	rig_clock(&r, now + SECOND);
	normal = rig_chain(&r, 1);
	ck_assert_uint_eq(rig_victim(&r), normal);
	rig_clock(&r, now + 10 * SECOND - 1);
	ck_assert_uint_eq(rig_victim(&r), normal);
	rig_clock(&r, now + 10 * SECOND);
	ck_assert_uint_eq(rig_evict(&r), high);
	ck_assert_uint_eq(rig_evict(&r), normal);
	rig_exit(&r);
}
END_TEST

START_TEST(low_priority_ends)
{
	uint32_t low, normal, now = 16000;

	start(_i);
	normal = rig_chain(&r, 1);
	rig_clock(&r, now + 60 * SECOND);
	low = rig_chain(&r, 1);
	rig_prio(&r, low, 0, now + 70 * SECOND);
	ck_assert_uint_eq(rig_victim(&r), low);
	rig_clock(&r, now + 70 * SECOND);
	ck_assert_uint_eq(rig_evict(&r), normal);
	ck_assert_uint_eq(rig_evict(&r), low);
	rig_exit(&r);
}
END_TEST

START_TEST(priority_taken_back)
{
	uint32_t a, b;

	start(_i);
	a = rig_chain(&r, 1);
	rig_clock(&r, 16000 + 60 * SECOND);
	b = rig_chain(&r, 1);
	rig_prio(&r, a, 80, 0);
	ck_assert_uint_eq(rig_victim(&r), b);
	rig_prio(&r, a, KVMD_PRIO_DEFAULT, 0);
	ck_assert_uint_eq(rig_victim(&r), a);
	rig_exit(&r);
}
END_TEST

START_TEST(time_to_live_ends)
{
	uint32_t old, ttl, now = 16000;

	start(_i);
	old = rig_chain(&r, 1);
	rig_clock(&r, now + 60 * SECOND);
	ttl = rig_chain(&r, 1);
	rig_prio(&r, ttl, 90, 0);
	rig_ttl(&r, ttl, now + 65 * SECOND);
	ck_assert_uint_eq(rig_victim(&r), old);
	rig_clock(&r, now + 65 * SECOND);
	ck_assert_uint_eq(rig_evict(&r), ttl);
	ck_assert_uint_eq(rig_evict(&r), old);
	rig_exit(&r);
}
END_TEST

START_TEST(rank_beats_worth)
{
	const struct policy_ops *o;
	struct block *a, *b;

	start(_i);
	o = r.pol->ops;
	a = &r.pool->blk[rig_chain(&r, 1)];
	b = &r.pool->blk[rig_chain(&r, 1)];
	a->prio = 90;
	ck_assert(o->beats(r.pol, a, b));
	ck_assert(!o->beats(r.pol, b, a));
	a->prio = KVMD_PRIO_DEFAULT;
	a->flags |= BLK_F_COLD;
	ck_assert(!o->beats(r.pol, a, b));
	ck_assert(o->beats(r.pol, b, a));
	a->flags &= (uint8_t)~BLK_F_COLD;
	rig_exit(&r);
}
END_TEST

/* Many blocks, all ranks, random order of advice: never one before a lower rank's leaf. */
START_TEST(never_before_a_lower_rank)
{
	uint64_t x = 7;
	uint32_t i, id, k;

	start(_i);
	for (i = 0; i < 150; i++)
		rig_chain(&r, 4);
	for (i = 0; i < 900; i++) {
		x = x * 6364136223846793005ULL + 1442695040888963407ULL;
		id = (uint32_t)(x >> 33) % r.nr + 1;
		if (!(r.pool->blk[id].flags & BLK_F_IDLE))
			continue;
		if (x >> 63)
			rig_cold(&r, id);
		else
			rig_prio(&r, id, (uint8_t)((x >> 40) % 101), 0);
	}
	while ((id = rig_victim(&r))) {
		enum policy_rank rank = policy_rank(&r.pool->blk[id], r.pool->now);

		for (k = 1; k <= r.nr; k++) {
			struct block *b = &r.pool->blk[k];

			if (b->flags & BLK_F_IDLE && !b->nr_kids)
				quiet_assert_uint_ge(policy_rank(b, r.pool->now), rank);
		}
		rig_remove(&r, id);
	}
	for (k = 1; k <= r.nr; k++)
		ck_assert(!(r.pool->blk[k].flags & BLK_F_IDLE));
	rig_exit(&r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("policy_advice");
	TCase *tc = tcase_create("advice");

	tcase_add_loop_test(tc, order_of_ranks, 0, NR_POLICY);
	tcase_add_loop_test(tc, advised_before_it_is_idle, 0, NR_POLICY);
	tcase_add_loop_test(tc, cold_chain_goes_whole, 0, NR_POLICY);
	tcase_add_loop_test(tc, cold_parent_waits, 0, NR_POLICY);
	tcase_add_loop_test(tc, used_again_is_not_cold, 0, NR_POLICY);
	tcase_add_loop_test(tc, high_priority_ends, 0, NR_POLICY);
	tcase_add_loop_test(tc, low_priority_ends, 0, NR_POLICY);
	tcase_add_loop_test(tc, priority_taken_back, 0, NR_POLICY);
	tcase_add_loop_test(tc, time_to_live_ends, 0, NR_POLICY);
	tcase_add_loop_test(tc, rank_beats_worth, 0, NR_POLICY);
	tcase_add_loop_test(tc, never_before_a_lower_rank, 0, NR_POLICY);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
