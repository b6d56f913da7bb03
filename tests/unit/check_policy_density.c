// SPDX-License-Identifier: Apache-2.0
/*
 * check_policy_density.c - the default policy: what it learns, which leaves it
 * knows of, what it remembers.
 */
#include <check.h>

#include "kvmd/reclaim/policy.h"
#include "policy_rig.h"
#include "tests/suite.h"

#define SECOND	POLICY_TICKS_PER_S

static struct rig r;

static void setup(void)
{
	rig_init(&r, "density");
}

static void teardown(void)
{
	rig_exit(&r);
}

static struct block *at(uint32_t id)
{
	return &r.pool->blk[id];
}

/* A new prompt of @nr blocks with @hints; idle again at once. Its first block. */
static uint32_t prompt(uint32_t nr, uint32_t hints)
{
	struct policy_req q = { .nr_keys = nr, .tokens = nr * 16, .hints = hints };
	uint32_t first = r.nr + 1, i, parent = 0;

	r.pol->ops->request(r.pol, &q);
	for (i = 0; i < nr; i++) {
		uint32_t id = ++r.nr;

		*at(id) = (struct block){
			.state = BLK_SEALED, .leases = 1, .slot = id, .parent = parent, .pos = i,
			.prio = KVMD_PRIO_DEFAULT,
		};
		if (parent)
			at(parent)->nr_kids++;
		r.pol->ops->insert(r.pol, at(id), NULL, q.tag_new, q.aux);
		parent = id;
	}
	for (i = nr; i-- > 0;)
		rig_idle(&r, first + i);
	return first;
}

/* The chain of @nr blocks from @first is asked for again, and idle at once. */
static void again(uint32_t first, uint32_t nr)
{
	const struct block *last = at(first + nr - 1);
	struct policy_req q = {
		.nr_keys = nr, .nr_hit = nr, .nr_seen = nr, .tokens = nr * 16,
		.seen_age = r.pool->now - last->last_use, .seen_uses = last->uses,
		.seen_aux = r.pol->ops->aux(r.pol, last),
	};
	uint32_t i;

	r.pol->ops->request(r.pol, &q);
	for (i = 0; i < nr; i++) {
		struct block *b = at(first + i);

		b->flags &= (uint8_t)~BLK_F_IDLE;
		r.pol->ops->busy(r.pol, b);
		b->leases = 1;
		b->uses++;
		r.pol->ops->hit(r.pol, b, &q);
	}
	for (i = nr; i-- > 0;)
		rig_idle(&r, first + i);
}

static void evict_all(void)
{
	while (rig_evict(&r))
		;
	r.nr = 0;
}

/* Prompts said to go on come back after 30 s, the others never. */
static void teach(void)
{
	uint32_t round, goes_on;

	for (round = 0; round < 300; round++) {
		goes_on = prompt(8, KVMD_HINT_WILL_CONTINUE);
		prompt(8, KVMD_HINT_LAST);
		rig_clock(&r, r.pool->now + 30 * SECOND);
		again(goes_on, 8);
		rig_clock(&r, r.pool->now + 10 * SECOND);
		evict_all();
	}
}

START_TEST(learns_from_hints)
{
	uint32_t ends, goes_on, i;

	teach();
	ends = prompt(4, KVMD_HINT_LAST);
	goes_on = prompt(4, KVMD_HINT_WILL_CONTINUE);
	ck_assert(r.pol->ops->beats(r.pol, at(goes_on), at(ends)));
	ck_assert(!r.pol->ops->beats(r.pol, at(ends), at(goes_on)));
	rig_clock(&r, r.pool->now + 5 * SECOND);
	for (i = 4; i-- > 0;)
		ck_assert_uint_eq(rig_evict(&r), ends + i);
	/* The same the other way round: LRU would be wrong once. */
	ends = prompt(4, KVMD_HINT_LAST);
	for (i = 4; i-- > 0;)
		ck_assert_uint_eq(rig_evict(&r), ends + i);
	for (i = 4; i-- > 0;)
		ck_assert_uint_eq(rig_evict(&r), goes_on + i);
	ck_assert_uint_eq(rig_evict(&r), 0);
}
END_TEST

/* More leaves than are drawn at a time: each block goes once, none is lost. */
START_TEST(many_chains_all_go)
{
	uint32_t i, nr = 0, left;

	for (i = 0; i < 500; i++)
		rig_chain(&r, 1 + i % 7);
	left = r.nr;
	while (rig_evict(&r))
		nr++;
	ck_assert_uint_eq(nr, left);
}
END_TEST

START_TEST(only_parents_are_idle)
{
	uint32_t root = rig_seal(&r, 0), mid = rig_seal(&r, root), tail = rig_seal(&r, mid);

	rig_idle(&r, mid);
	rig_idle(&r, root);
	ck_assert_uint_eq(rig_victim(&r), 0);
	rig_idle(&r, tail);
	ck_assert_uint_eq(rig_evict(&r), tail);
	ck_assert_uint_eq(rig_evict(&r), mid);
	ck_assert_uint_eq(rig_evict(&r), root);
}
END_TEST

/* Children dropped while leased: the policy is never told that these are leaves. */
START_TEST(leaves_that_nobody_told_of)
{
	uint32_t root[100], i, nr = 0;

	for (i = 0; i < 100; i++) {
		root[i] = rig_seal(&r, 0);
		at(root[i])->nr_kids = 1;
		rig_idle(&r, root[i]);
	}
	ck_assert_uint_eq(rig_victim(&r), 0);
	for (i = 0; i < 100; i++)
		at(root[i])->nr_kids = 0;
	while (rig_evict(&r))
		nr++;
	ck_assert_uint_eq(nr, 100);
}
END_TEST

/* A drain takes blocks in no order; their parents are leaves then. */
START_TEST(evicted_out_of_turn)
{
	uint32_t a = rig_chain(&r, 4), b = rig_chain(&r, 4), i, nr = 0;

	rig_remove(&r, b + 3);
	rig_remove(&r, a + 3);
	rig_remove(&r, b + 2);
	for (i = 0; i < 5; i++)
		nr += rig_evict(&r) != 0;
	ck_assert_uint_eq(nr, 5);
	ck_assert_uint_eq(rig_evict(&r), 0);
}
END_TEST

START_TEST(ghost_carries_class_uses_and_turn)
{
	const struct policy_ops *o = r.pol->ops;
	struct policy_req q = { .nr_keys = 1, .nr_seen = 1, .tokens = 160, .seen_age = 5 * SECOND };
	uint32_t a = prompt(1, 0), id;
	struct ghost g = { .hash = 1, .when = at(a)->last_use, .uses = 4, .tag = at(a)->tag };

	g.aux = o->aux(r.pol, at(a));
	ck_assert_uint_eq(g.aux, 1);
	rig_remove(&r, a);
	rig_clock(&r, r.pool->now + 5 * SECOND);
	q.seen_aux = g.aux;
	o->request(r.pol, &q);
	o->ghost(r.pol, &g, &q);
	ck_assert_uint_eq(g.uses, 5);
	ck_assert_uint_eq(g.when, r.pool->now);
	ck_assert_uint_ne(g.tag, at(a)->tag);
	id = ++r.nr;
	*at(id) = (struct block){
		.state = BLK_SEALED, .leases = 1, .slot = id, .prio = KVMD_PRIO_DEFAULT,
	};
	o->insert(r.pol, at(id), &g, q.tag_new, q.aux);
	ck_assert_uint_eq(at(id)->tag, g.tag);
	ck_assert_uint_eq(at(id)->uses, 5);
	ck_assert_uint_eq(o->aux(r.pol, at(id)), 1);
	rig_idle(&r, id);
	ck_assert_uint_eq(rig_evict(&r), id);
}
END_TEST

/* Of a long prompt only a piece of the ghosts is asked for: insert() makes up for it. */
START_TEST(ghost_that_was_not_told)
{
	const struct policy_ops *o = r.pol->ops;
	struct policy_req q = { .nr_keys = 1, .tokens = 160 };
	uint32_t a = prompt(1, 0), told, untold;
	struct ghost g = { .hash = 1, .when = at(a)->last_use, .uses = 4, .tag = at(a)->tag };
	struct ghost h = g;

	g.aux = h.aux = o->aux(r.pol, at(a));
	rig_remove(&r, a);
	rig_clock(&r, r.pool->now + 5 * SECOND);
	o->request(r.pol, &q);
	o->ghost(r.pol, &g, &q);
	told = rig_seal(&r, 0);
	untold = rig_seal(&r, 0);
	o->insert(r.pol, at(told), &g, q.tag_new, q.aux);
	o->insert(r.pol, at(untold), &h, q.tag_new, q.aux);
	ck_assert_uint_eq(at(told)->tag, at(untold)->tag);
	ck_assert_uint_eq(at(told)->uses, at(untold)->uses);
	ck_assert_uint_eq(at(told)->flags, at(untold)->flags);
}
END_TEST

/* The turn goes up along a conversation, and not past a template that all use. */
START_TEST(turns_are_counted)
{
	uint32_t a = prompt(2, 0), turn;

	for (turn = 2; turn < 9; turn++) {
		struct policy_req q = {
			.nr_keys = 3, .nr_hit = 2, .nr_seen = 2, .seen_age = SECOND,
			.seen_aux = (uint8_t)(turn - 1 > 6 ? 6 : turn - 1),
		};
		uint32_t id = ++r.nr;

		r.pol->ops->request(r.pol, &q);
		*at(id) = (struct block){
			.state = BLK_SEALED, .leases = 1, .parent = a + 1, .pos = 2,
		};
		r.pol->ops->insert(r.pol, at(id), NULL, q.tag_new, q.aux);
		ck_assert_uint_eq(r.pol->ops->aux(r.pol, at(id)), min(turn, 6u));
		q.seen_uses = 250;
		q.seen_aux = 1;
		r.pol->ops->request(r.pol, &q);
		r.pol->ops->insert(r.pol, at(id), NULL, q.tag_new, q.aux);
		ck_assert_uint_eq(r.pol->ops->aux(r.pol, at(id)), 1);
	}
}
END_TEST

/* Two sequences hold a block: its second hit is no reuse, and it is idle once. */
START_TEST(hit_while_leased)
{
	struct policy_req q = { .nr_keys = 1, .nr_hit = 1, .nr_seen = 1, .tokens = 16 };
	uint32_t a = prompt(1, 0);

	rig_hit(&r, a);
	at(a)->leases = 2;
	at(a)->uses++;
	r.pol->ops->request(r.pol, &q);
	r.pol->ops->hit(r.pol, at(a), &q);
	ck_assert_uint_eq(rig_victim(&r), 0);
	rig_idle(&r, a);
	ck_assert_uint_eq(rig_evict(&r), a);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("policy_density");
	TCase *tc = tcase_create("density");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, learns_from_hints);
	tcase_add_test(tc, many_chains_all_go);
	tcase_add_test(tc, only_parents_are_idle);
	tcase_add_test(tc, leaves_that_nobody_told_of);
	tcase_add_test(tc, evicted_out_of_turn);
	tcase_add_test(tc, ghost_carries_class_uses_and_turn);
	tcase_add_test(tc, ghost_that_was_not_told);
	tcase_add_test(tc, turns_are_counted);
	tcase_add_test(tc, hit_while_leased);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
