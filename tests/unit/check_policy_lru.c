// SPDX-License-Identifier: Apache-2.0
/*
 * check_policy_lru.c - lru without advice is LRU over leaves; the table of policies.
 */
#include <check.h>

#include "kvmd/lib/fault.h"
#include "kvmd/reclaim/policy.h"
#include "policy_rig.h"
#include "tests/suite.h"

static struct rig r;

static void setup(void)
{
	rig_init(&r, "lru");
}

static void teardown(void)
{
	rig_exit(&r);
}

START_TEST(nothing_idle_no_victim)
{
	uint32_t a;

	ck_assert_uint_eq(rig_victim(&r), 0);
	a = rig_seal(&r, 0);
	ck_assert_uint_eq(rig_victim(&r), 0);
	rig_idle(&r, a);
	ck_assert_uint_eq(rig_victim(&r), a);
	ck_assert_uint_eq(rig_victim(&r), a);
	rig_hit(&r, a);
	ck_assert_uint_eq(rig_victim(&r), 0);
}
END_TEST

/* Two chains: all of the older one goes first, tail to root. */
START_TEST(chain_goes_from_its_tail)
{
	uint32_t a = rig_chain(&r, 5), b = rig_chain(&r, 3), i;

	for (i = 0; i < 5; i++)
		ck_assert_uint_eq(rig_evict(&r), a + 4 - i);
	for (i = 0; i < 3; i++)
		ck_assert_uint_eq(rig_evict(&r), b + 2 - i);
	ck_assert_uint_eq(rig_evict(&r), 0);
}
END_TEST

START_TEST(used_again_is_young_again)
{
	uint32_t a = rig_chain(&r, 1), b = rig_chain(&r, 1), c = rig_chain(&r, 1);

	rig_hit(&r, a);
	rig_idle(&r, a);
	ck_assert_uint_eq(rig_evict(&r), b);
	rig_hit(&r, c);
	ck_assert_uint_eq(rig_evict(&r), a);
	ck_assert_uint_eq(rig_evict(&r), 0);
	rig_idle(&r, c);
	ck_assert_uint_eq(rig_evict(&r), c);
}
END_TEST

/* A trimmed sequence: the parents are idle, and older, while the tail is leased. */
START_TEST(parents_wait_for_their_children)
{
	uint32_t root = rig_seal(&r, 0), mid = rig_seal(&r, root), tail = rig_seal(&r, mid);
	uint32_t other;

	rig_idle(&r, root);
	rig_idle(&r, mid);
	ck_assert_uint_eq(rig_victim(&r), 0);
	other = rig_chain(&r, 1);
	ck_assert_uint_eq(rig_victim(&r), other);
	rig_idle(&r, tail);
	ck_assert_uint_eq(rig_evict(&r), other);
	/* Back at the old end, each as its child goes. */
	other = rig_chain(&r, 1);
	ck_assert_uint_eq(rig_evict(&r), tail);
	ck_assert_uint_eq(rig_evict(&r), mid);
	ck_assert_uint_eq(rig_evict(&r), root);
	ck_assert_uint_eq(rig_evict(&r), other);
}
END_TEST

/* The child is dropped while leased: the policy is never told. */
START_TEST(leaf_that_nobody_told_of)
{
	uint32_t root = rig_seal(&r, 0), tail = rig_seal(&r, root), other = rig_chain(&r, 1);

	rig_idle(&r, root);
	ck_assert_uint_eq(rig_evict(&r), other);
	ck_assert_uint_eq(rig_victim(&r), 0);
	r.pool->blk[root].nr_kids--;
	r.pool->blk[tail].state = BLK_FREE;
	ck_assert_uint_eq(rig_evict(&r), root);
}
END_TEST

START_TEST(parked_block_is_hit)
{
	uint32_t root = rig_seal(&r, 0), tail = rig_seal(&r, root);

	rig_idle(&r, root);
	ck_assert_uint_eq(rig_victim(&r), 0);
	rig_hit(&r, root);
	rig_idle(&r, tail);
	ck_assert_uint_eq(rig_evict(&r), tail);
	ck_assert_uint_eq(rig_evict(&r), 0);
	rig_idle(&r, root);
	ck_assert_uint_eq(rig_evict(&r), root);
}
END_TEST

START_TEST(evicted_out_of_turn)
{
	uint32_t a = rig_chain(&r, 3), b = rig_chain(&r, 3);

	rig_remove(&r, b + 2);
	ck_assert_uint_eq(rig_evict(&r), a + 2);
	rig_remove(&r, b + 1);
	ck_assert_uint_eq(rig_evict(&r), a + 1);
	rig_remove(&r, a);
	ck_assert_uint_eq(rig_evict(&r), b);
	ck_assert_uint_eq(rig_evict(&r), 0);
}
END_TEST

/* Random moves against stamps: the victim is always the oldest leaf. */
START_TEST(always_the_oldest_leaf)
{
	static uint64_t stamp[RIG_BLOCKS + 1];
	uint32_t nr = 600, i, id, want;
	uint64_t now = 0, x = _i + 1;

	for (i = 0; i < nr; i++) {
		x = x * 6364136223846793005ULL + 1442695040888963407ULL;
		rig_seal(&r, i && x >> 62 ? (uint32_t)(x >> 33) % i + 1 : 0);
	}
	for (id = nr; id; id--) {
		rig_idle(&r, id);
		stamp[id] = ++now;
	}
	for (i = 0; i < 2000; i++) {
		x = x * 6364136223846793005ULL + 1442695040888963407ULL;
		id = (uint32_t)(x >> 33) % nr + 1;
		/* A leaf alone is younger; its parents keep their place behind it. */
		if (r.pool->blk[id].flags & BLK_F_IDLE && !r.pool->blk[id].nr_kids) {
			for (; id; id = r.pool->blk[id].parent)
				rig_hit(&r, id);
			for (id = (uint32_t)(x >> 33) % nr + 1; id; id = r.pool->blk[id].parent) {
				rig_idle(&r, id);
				stamp[id] = ++now;
			}
		}
		if (i % 4)
			continue;
		for (want = 0, id = 1; id <= nr; id++) {
			if (r.pool->blk[id].flags & BLK_F_IDLE && !r.pool->blk[id].nr_kids &&
			    (!want || stamp[id] < stamp[want]))
				want = id;
		}
		ck_assert_uint_eq(rig_evict(&r), want);
	}
}
END_TEST

START_TEST(table)
{
	unsigned i;

	ck_assert_str_eq(policy_name(0), POLICY_DEFAULT);
	for (i = 0; policy_name(i); i++) {
		const struct policy_ops *o = policy_find(policy_name(i));

		ck_assert_ptr_nonnull(o);
		ck_assert_str_eq(o->name, policy_name(i));
		ck_assert_ptr_nonnull(strstr(policy_names(), o->name));
		ck_assert_uint_gt(strlen(o->help), 10);
	}
	ck_assert_uint_eq(i, 3);
	ck_assert_ptr_null(policy_find("lfu"));
	ck_assert_ptr_null(policy_find(""));
	ck_assert_str_eq(policy_rank_name(RANK_LOW), "low");
	ck_assert_str_eq(policy_rank_name(NR_POLICY_RANK), "?");
}
END_TEST

START_TEST(no_memory)
{
	const struct policy_ops *o = policy_find(policy_name((unsigned)_i));
	char spec[] = "alloc:nth=1";
	struct policy *p = NULL;
	unsigned failed;

	for (failed = 0; !p; failed++) {
		spec[sizeof(spec) - 2] = (char)('1' + failed);
		ck_assert_int_eq(fault_arm(spec, NULL, 0), 0);
		p = o->create(r.pool, &r.gp);
		fault_disarm();
	}
	ck_assert_uint_ge(failed, 2);
	o->destroy(p);
	o->destroy(NULL);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("policy_lru");
	TCase *tc = tcase_create("lru");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, nothing_idle_no_victim);
	tcase_add_test(tc, chain_goes_from_its_tail);
	tcase_add_test(tc, used_again_is_young_again);
	tcase_add_test(tc, parents_wait_for_their_children);
	tcase_add_test(tc, leaf_that_nobody_told_of);
	tcase_add_test(tc, parked_block_is_hit);
	tcase_add_test(tc, evicted_out_of_turn);
	tcase_add_loop_test(tc, always_the_oldest_leaf, 0, 4);
	tcase_add_test(tc, table);
	tcase_add_loop_test(tc, no_memory, 0, 3);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
