/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_drain.c - emptying slabs, taking them from others, sweeping what is over.
 *
 * Slabs of 8 slots of one page; the first of a space has 7.
 */
#include "pool_rig.h"

#include "kvmd/lib/stats.h"
#include "tests/suite.h"

#define P	4096u
#define SLAB	(8 * P)
#define NOW	1000

static struct prig r;
static struct space *sp;
static struct gpool *gp;
static uint32_t ids[6000];
static unsigned nr_served;
static int last_err;

static void serve(struct waiter *w, int err)
{
	uint32_t got[16];

	nr_served++;
	last_err = err;
	if (!err)
		ck_assert_int_eq(pool_alloc(r.p, w->gp, w->nr, 9, 0, got), 0);
}

static bool deadlocked(struct reclaim *rc, struct space *s, uint64_t now_ns)
{
	(void)rc;
	(void)s;
	(void)now_ns;
	return false;
}

static const struct reclaim_events events = { .serve = serve, .deadlocked = deadlocked };

static struct gpool *space(const char *name, unsigned t, uint32_t max_slots, unsigned nr_slabs)
{
	return prig_gpool(&r, name, t, P, max_slots, nr_slabs);
}

static void one_space(unsigned nr_slabs)
{
	prig_init(&r, "null", 256, SLAB, 1 << 20, &events);
	gp = space("s", 0, 64, nr_slabs);
	sp = gp->sp;
}

static void teardown(void)
{
	prig_check(&r);
	prig_exit(&r);
}

static bool turn(void)
{
	return prig_turn(&r, NOW);
}

static void settle(void)
{
	for (int i = 0; i < 32; i++)
		turn();
}

static void drain(struct slab *s)
{
	s->scan = 0;
	slab_drain(r.p, s, NULL);
	settle();
}

static void private(struct gpool *g, uint32_t nr, uint32_t *ret_ids)
{
	ck_assert_int_eq(pool_alloc(r.p, g, nr, 7, 0, ret_ids), 0);
}

static bool cached(uint32_t key)
{
	return prig_find(&r, sp, 0, key) != NULL;
}

/* ---------------------------------------------------------------- draining */

START_TEST(children_outside_go_with_their_parents)
{
	uint64_t used;

	one_space(3);
	prig_chain(&r, gp, 0, 12, ids);		/* 7 in slab 0, 5 in slab 1 */
	prig_chain(&r, gp, 50, 3, ids + 12);	/* the rest of slab 1 */
	used = r.p->dev[0].used_bytes;
	drain(gp->slab[0]);
	ck_assert_ptr_null(gp->slab[0]);
	ck_assert_uint_eq(r.p->dev[0].used_bytes, used - SLAB);
	ck_assert_uint_eq(r.p->nr_draining, 0);
	for (uint32_t i = 0; i < 12; i++)
		ck_assert(!cached(i));
	for (uint32_t i = 50; i < 53; i++)
		ck_assert(cached(i));
	ck_assert_uint_eq(gp->nr_idle, 3);
}
END_TEST

START_TEST(parents_outside_stay)
{
	one_space(3);
	prig_chain(&r, gp, 0, 12, ids);
	drain(gp->slab[1]);
	ck_assert_ptr_null(gp->slab[1]);
	for (uint32_t i = 0; i < 12; i++)
		ck_assert(cached(i) == (i < 7));
}
END_TEST

START_TEST(a_lease_is_waited_for)
{
	struct slab *s;

	one_space(3);
	s = gp->slab[0];
	prig_chain(&r, gp, 0, 12, ids);
	prig_get(&r, ids[9]);			/* in slab 1, hangs from slab 0 */
	drain(s);
	ck_assert_uint_eq(s->state, SLAB_DRAINING);
	ck_assert_uint_eq(gp->nr_slots, 16);
	for (uint32_t i = 0; i < 12; i++)
		ck_assert(cached(i) == (i < 10));
	ck_assert_uint_ne(r.rc.retry_ns, 0);	/* the clock looks again */
	ck_assert_uint_ne(r.rc.retry_ns, UINT64_MAX);
	r.rc.kick = false;
	prig_put(&r, ids[9]);
	reclaim_freed(&r.rc);
	ck_assert(r.rc.kick);			/* and so does who gives it back */
	settle();
	ck_assert_ptr_null(gp->slab[0]);
	ck_assert_uint_eq(gp->nr_idle, 0);
}
END_TEST

START_TEST(a_private_block_is_waited_for)
{
	struct slab *s;

	one_space(2);
	s = gp->slab[0];
	private(gp, 1, ids);
	drain(s);
	ck_assert_uint_eq(s->state, SLAB_DRAINING);
	ck_assert_uint_eq(slab_nr_used(s), 1);
	pool_free(r.p, pool_block(r.p, ids[0]));
	prig_work(&r);
	ck_assert_ptr_null(gp->slab[0]);
}
END_TEST

START_TEST(nothing_new_goes_into_it)
{
	one_space(2);
	private(gp, 1, ids);
	drain(gp->slab[0]);
	ck_assert_uint_eq(gp->nr_free, 8);
	private(gp, 8, ids + 1);
	for (int i = 1; i <= 8; i++)
		ck_assert_uint_ge(pool_block(r.p, ids[i])->slot, 8);
	ck_assert_int_eq(pool_alloc(r.p, gp, 1, 7, 0, ids + 9), -EAGAIN);
}
END_TEST

START_TEST(an_empty_slab_goes_at_once)
{
	one_space(2);
	slab_drain(r.p, gp->slab[1], NULL);
	ck_assert_uint_eq(r.p->nr_draining, 0);
	prig_work(&r);
	ck_assert_ptr_null(gp->slab[1]);
	ck_assert_uint_eq(gp->nr_slots, 7);
}
END_TEST

START_TEST(draining_can_be_taken_back)
{
	struct slab *s;

	one_space(2);
	s = gp->slab[0];
	private(gp, 2, ids);
	drain(s);
	slab_undrain(r.p, s);
	ck_assert_uint_eq(s->state, SLAB_ACTIVE);
	ck_assert_uint_eq(r.p->nr_draining, 0);
	ck_assert_uint_eq(gp->nr_free, 13);
	ck_assert_uint_eq(gp->nr_coming, 0);
	private(gp, 13, ids + 2);
}
END_TEST

START_TEST(a_turn_is_bounded)
{
	prig_init(&r, "null", 5000, 5000ull * P, 1ull << 30, &events);
	gp = space("s", 0, 5000, 1);
	sp = gp->sp;
	for (uint32_t i = 0; i < 4999; i++)
		prig_chain(&r, gp, i, 1, ids + i);
	slab_drain(r.p, gp->slab[0], NULL);
	for (uint32_t left = 4999; gp->slab[0]; left = gp->nr_idle) {
		turn();
		ck_assert_uint_le(left - gp->nr_idle, 2048);
		ck_assert(!gp->slab[0] || gp->nr_idle < left);
	}
	ck_assert_uint_eq(gp->nr_idle, 0);
}
END_TEST

/* ------------------------------------------------------------------ taking */

/* The device is full; "needy" of tenant 0 waits for three blocks and has no slab. */
static struct gpool *needy, *donor, *other;
static struct waiter w;

static void full_device(unsigned donor_slabs, unsigned other_slabs)
{
	prig_init(&r, "null", 256, SLAB, (donor_slabs + other_slabs) * SLAB, &events);
	needy = space("needy", 0, 64, 0);
	donor = space("donor", 1, 64, donor_slabs);
	other = other_slabs ? space("other", 2, 64, other_slabs) : NULL;
	w = (struct waiter) { .gp = needy, .nr = 3, .records = 3 };
}

static void ask(void)
{
	reclaim_wait(&r.rc, &w);
	settle();
}

static void not_served(void)
{
	ck_assert_uint_eq(nr_served, 0);
	ck_assert_uint_eq(r.p->nr_draining, 0);
	ck_assert_uint_eq(needy->nr_slots, 0);
	reclaim_unwait(&r.rc, &w);
}

static void was_served(void)
{
	ck_assert_uint_eq(nr_served, 1);
	ck_assert_int_eq(last_err, 0);
	ck_assert_uint_eq(needy->nr_slots, 7);
}

START_TEST(the_emptiest_slab_moves)
{
	uint64_t moved = stat_get(SLABS_MOVED), scrubbed = stat_get(SLABS_SCRUBBED);

	full_device(2, 0);
	private(donor, 3, ids);			/* in slab 0 */
	ask();
	was_served();
	ck_assert_uint_eq(donor->nr_slots, 7);
	ck_assert_ptr_null(donor->slab[1]);
	ck_assert_uint_eq(stat_get(SLABS_MOVED) - moved, 1);
	ck_assert_uint_eq(stat_get(SLABS_SCRUBBED) - scrubbed, 1);
	ck_assert_uint_eq(r.p->dev[0].used_bytes, 2 * SLAB);
}
END_TEST

START_TEST(idle_blocks_are_slack_leased_ones_are_not)
{
	full_device(2, 0);
	private(donor, 8, ids);
	ask();					/* 7 free: not a slab's worth of 8 */
	not_served();
	for (int i = 4; i < 8; i++)		/* the last is in slab 1 */
		ck_assert_ptr_null(prig_seal(&r, ids[i], (uint32_t)i, 0));
	for (int i = 4; i < 8; i++)
		prig_put(&r, ids[i]);
	ask();
	was_served();
	ck_assert_uint_eq(donor->nr_slots, 7);
}
END_TEST

START_TEST(min_is_kept)
{
	full_device(2, 0);
	r.t[1]->hbm_min = 7 * P + 1;		/* it holds 15 */
	ask();
	not_served();
	r.t[1]->hbm_min = 7 * P;
	ask();
	was_served();
}
END_TEST

START_TEST(below_low_is_taken_last_and_counted)
{
	full_device(2, 2);
	r.t[1]->hbm_low = 15 * P;
	private(other, 4, ids);			/* less slack than the donor */
	ask();
	was_served();
	ck_assert_uint_eq(donor->nr_slots, 15);
	ck_assert_uint_eq(r.t[1]->events_low, 0);
	ck_assert_uint_eq(r.t[2]->events_low, 0);
}
END_TEST

START_TEST(below_low_is_taken_when_there_is_nobody_else)
{
	full_device(2, 0);
	r.t[1]->hbm_low = 15 * P;
	ask();
	was_served();
	ck_assert_uint_eq(r.t[1]->events_low, 1);
}
END_TEST

START_TEST(over_high_gives_first)
{
	full_device(2, 2);
	r.t[1]->hbm_high = 14 * P;
	private(donor, 5, ids);			/* and has less slack */
	ask();
	was_served();
	ck_assert_uint_eq(donor->nr_slots, 7);
	ck_assert_uint_eq(other->nr_slots, 15);
}
END_TEST

START_TEST(in_a_class_whoever_has_more_slack)
{
	full_device(2, 2);
	private(donor, 1, ids);
	ask();
	was_served();
	ck_assert_uint_eq(donor->nr_slots, 15);
	ck_assert_uint_eq(other->nr_slots, 7);
}
END_TEST

START_TEST(who_waits_itself_gives_nothing)
{
	struct waiter v;

	full_device(2, 0);
	v = (struct waiter) { .gp = donor, .nr = 16, .records = 16 };
	reclaim_wait(&r.rc, &v);
	ask();
	not_served();
	reclaim_unwait(&r.rc, &v);
}
END_TEST

START_TEST(another_device_is_no_help)
{
	full_device(2, 0);
	donor->sp->dev[0] = &r.p->dev[1];
	ask();
	not_served();
	donor->sp->dev[0] = &r.p->dev[0];
}
END_TEST

START_TEST(one_slab_at_a_time)
{
	full_device(3, 0);
	private(donor, 23, ids);
	for (int i = 0; i < 22; i++)		/* one stays in slab 2 */
		pool_free(r.p, pool_block(r.p, ids[i]));
	for (int i = 0; i < 2; i++)		/* one in the others */
		private(donor, 7, ids + 7 * i);
	reclaim_wait(&r.rc, &w);
	settle();
	ck_assert_uint_le(r.p->nr_draining, 1);
	ck_assert_uint_ge(donor->nr_slots, 15);
	reclaim_unwait(&r.rc, &w);
}
END_TEST

START_TEST(a_space_of_its_largest_size_takes_nothing)
{
	struct gpool *small;

	prig_init(&r, "null", 256, SLAB, 3 * SLAB, &events);
	small = space("small", 0, 8, 1);
	donor = space("donor", 1, 64, 2);
	private(small, 7, ids);
	w = (struct waiter) { .gp = small, .nr = 1, .records = 1 };
	ask();
	ck_assert_uint_eq(nr_served, 0);
	ck_assert_uint_eq(donor->nr_slots, 15);
	reclaim_unwait(&r.rc, &w);
}
END_TEST

/* ---------------------------------------------------------------- sweeping */

START_TEST(a_former_epoch_is_swept)
{
	uint64_t stale = stat_get(BLOCKS_STALE);

	one_space(3);
	prig_chain(&r, gp, 0, 5, ids);
	prig_get(&r, ids[1]);
	ck_assert_int_eq(space_raise_epoch(r.p, sp, 0), 0);
	ck_assert_uint_eq(sp->nr_stale, 5);
	ck_assert(!cached(0));
	prig_chain(&r, gp, 0, 2, ids + 5);	/* the same keys anew */
	settle();
	ck_assert_uint_eq(sp->nr_stale, 2);	/* the leased one and its parent */
	ck_assert_uint_eq(stat_get(BLOCKS_STALE) - stale, 3);
	prig_put(&r, ids[1]);
	settle();
	ck_assert_uint_eq(sp->nr_stale, 0);
	ck_assert_uint_eq(gp->nr_idle, 2);
	ck_assert(cached(0) && cached(1));
}
END_TEST

static void set_ttl(uint32_t id, uint32_t ticks)
{
	struct block *b = pool_block(r.p, id);

	b->flags |= BLK_F_TTL;
	b->until = r.p->now + ticks;
	r.rc.nr_ttl++;
}

START_TEST(blocks_end_with_their_time)
{
	uint64_t dropped = stat_get(BLOCKS_DROPPED);
	uint8_t key[KVMD_KEY_BYTES];

	one_space(3);
	r.p->now = _i ? UINT32_MAX - 7 : 16000;	/* the clock may run through zero */
	prig_chain(&r, gp, 0, 4, ids);
	set_ttl(ids[2], 16);
	set_ttl(ids[3], 32);
	settle();
	ck_assert_uint_eq(gp->nr_idle, 4);
	r.p->now += 16;
	settle();
	ck_assert_uint_eq(gp->nr_idle, 4);	/* its child is still there */
	r.p->now += 15;
	settle();
	ck_assert_uint_eq(gp->nr_idle, 4);
	r.p->now += 1;
	settle();
	ck_assert_uint_eq(gp->nr_idle, 2);	/* both, and no other */
	ck_assert(cached(1));
	ck_assert_uint_eq(stat_get(BLOCKS_DROPPED) - dropped, 2);
	ck_assert_uint_eq(r.rc.nr_ttl, 0);
	prig_key(3, key);
	ck_assert_uint_eq(index_miss_reason(r.ix, sp, 0, key), KVMD_MISS_DROPPED);
}
END_TEST

START_TEST(a_leased_block_outlives_its_time)
{
	one_space(1);
	prig_chain(&r, gp, 0, 1, ids);
	prig_get(&r, ids[0]);
	set_ttl(ids[0], 16);
	r.p->now += 100;
	settle();
	ck_assert(cached(0));
	prig_put(&r, ids[0]);
	settle();
	ck_assert(!cached(0));
}
END_TEST

START_TEST(expired_blocks_are_evicted_as_dropped)
{
	uint64_t dropped = stat_get(BLOCKS_DROPPED), evicted = stat_get(BLOCKS_EVICTED);

	one_space(1);
	prig_chain(&r, gp, 0, 1, ids);
	prig_chain(&r, gp, 1, 1, ids + 1);
	set_ttl(ids[0], 16);
	r.p->now += 16;
	ck_assert_uint_eq(reclaim_evict(&r.rc, gp, 2), 2);
	ck_assert_uint_eq(stat_get(BLOCKS_DROPPED) - dropped, 1);
	ck_assert_uint_eq(stat_get(BLOCKS_EVICTED) - evicted, 1);
}
END_TEST

/* A pass takes several turns; what it has passed may be given a time meanwhile. */
START_TEST(a_time_given_behind_the_cursor_is_not_forgotten)
{
	prig_init(&r, "null", 6000, 6000ull * P, 1ull << 30, &events);
	gp = space("s", 0, 6000, 1);
	sp = gp->sp;
	for (uint32_t i = 0; i < 5000; i++)
		prig_chain(&r, gp, i, 1, ids + i);
	r.rc.nr_ttl = 1;			/* of one that is gone */
	ck_assert(turn());			/* 4096 from the end on */
	set_ttl(ids[4990], 16);
	settle();
	ck_assert_uint_eq(gp->nr_idle, 5000);
	r.p->now += 16;
	settle();
	ck_assert_uint_eq(gp->nr_idle, 4999);
	ck_assert(!cached(4990));
	ck_assert_uint_eq(r.rc.nr_ttl, 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("drain");
	TCase *tc = suite_group(s, "draining", NULL, teardown);

	tcase_add_test(tc, children_outside_go_with_their_parents);
	tcase_add_test(tc, parents_outside_stay);
	tcase_add_test(tc, a_lease_is_waited_for);
	tcase_add_test(tc, a_private_block_is_waited_for);
	tcase_add_test(tc, nothing_new_goes_into_it);
	tcase_add_test(tc, an_empty_slab_goes_at_once);
	tcase_add_test(tc, draining_can_be_taken_back);
	tcase_add_test(tc, a_turn_is_bounded);
	tc = suite_group(s, "taking", NULL, teardown);
	tcase_add_test(tc, the_emptiest_slab_moves);
	tcase_add_test(tc, idle_blocks_are_slack_leased_ones_are_not);
	tcase_add_test(tc, min_is_kept);
	tcase_add_test(tc, below_low_is_taken_last_and_counted);
	tcase_add_test(tc, below_low_is_taken_when_there_is_nobody_else);
	tcase_add_test(tc, over_high_gives_first);
	tcase_add_test(tc, in_a_class_whoever_has_more_slack);
	tcase_add_test(tc, who_waits_itself_gives_nothing);
	tcase_add_test(tc, another_device_is_no_help);
	tcase_add_test(tc, one_slab_at_a_time);
	tcase_add_test(tc, a_space_of_its_largest_size_takes_nothing);
	tc = suite_group(s, "sweeping", NULL, teardown);
	tcase_add_test(tc, a_former_epoch_is_swept);
	tcase_add_loop_test(tc, blocks_end_with_their_time, 0, 2);
	tcase_add_test(tc, a_leased_block_outlives_its_time);
	tcase_add_test(tc, expired_blocks_are_evicted_as_dropped);
	tcase_add_test(tc, a_time_given_behind_the_cursor_is_not_forgotten);
	return suite_run(s);
}
