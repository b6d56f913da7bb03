/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_reclaim.c - reserving, evicting, waiting, the background turn.
 *
 * Slabs of 8 slots of one page; the first of a space has 7, for slot 0 is the
 * NULL block's. Time is the test's own.
 */
#include "pool_rig.h"

#include "kvmd/lib/stats.h"
#include "tests/suite.h"

#define P	4096u
#define SLAB	(8 * P)

static struct prig r;
static struct space *sp;
static struct gpool *gp;
static uint32_t ids[4096];
static uint64_t now;

static struct {
	struct waiter *w;
	int err;
} served[16];
static unsigned nr_served;
static bool is_deadlocked;
static unsigned nr_asked;

static void serve(struct waiter *w, int err)
{
	uint32_t got[64];

	served[nr_served].w = w;
	served[nr_served++].err = err;
	ck_assert(!w->waiting);
	if (!err)
		ck_assert_int_eq(pool_alloc(r.p, w->gp, w->nr, w->session,
					    reclaim_reserve_slots(w->gp, w->nr), got), 0);
}

static bool deadlocked(struct reclaim *rc, struct space *s, uint64_t now_ns)
{
	ck_assert_ptr_eq(rc, &r.rc);
	ck_assert(s->in_use);
	ck_assert_uint_eq(now_ns, now);
	nr_asked++;
	return is_deadlocked;
}

static const struct reclaim_events events = { .serve = serve, .deadlocked = deadlocked };

static void init(uint32_t nr_blocks, uint64_t dev_bytes)
{
	prig_init(&r, "null", nr_blocks, SLAB, dev_bytes, &events);
	now = 1000;
	nr_served = nr_asked = 0;
	is_deadlocked = false;
}

static void space(uint32_t max_slots, unsigned nr_slabs)
{
	gp = prig_gpool(&r, "s", 0, P, max_slots, nr_slabs);
	sp = gp->sp;
}

/* One space of @max_slots slots with @nr_slabs slabs of them there. */
static void one_space(uint32_t max_slots, unsigned nr_slabs)
{
	init(256, 1 << 20);
	space(max_slots, nr_slabs);
}

static void teardown(void)
{
	prig_check(&r);
	prig_exit(&r);
}

static bool turn(void)
{
	return prig_turn(&r, now);
}

/* @nr private blocks, as an operation takes them. */
static int take(struct gpool *g, uint32_t nr)
{
	int err = reclaim_reserve(&r.rc, g, nr, nr);

	return err ? err : pool_alloc(r.p, g, nr, 7, reclaim_reserve_slots(g, nr), ids);
}

static void wait_for(struct waiter *w, struct gpool *g, uint32_t nr, uint64_t deadline)
{
	*w = (struct waiter) {
		.gp = g, .nr = nr, .records = nr, .session = 9, .deadline_ns = deadline,
	};
	reclaim_wait(&r.rc, w);
	ck_assert(w->waiting);
	ck_assert(r.rc.kick);
}

static void give(uint32_t id)
{
	prig_put(&r, id);
	reclaim_freed(&r.rc);
}

/* -------------------------------------------------------------- reserving */

START_TEST(free_slots_first_then_growth_then_idle_blocks)
{
	one_space(16, 1);
	prig_chain(&r, gp, 0, 4, ids);
	ck_assert_int_eq(take(gp, 3), 0);
	ck_assert_uint_eq(gp->nr_idle, 4);
	ck_assert_uint_eq(gp->nr_coming, 0);
	ck_assert_int_eq(take(gp, 2), -EAGAIN);	/* a slab comes for it */
	ck_assert_uint_eq(gp->nr_idle, 4);
	ck_assert_uint_eq(gp->nr_coming, 8);
	prig_work(&r);
	ck_assert_int_eq(take(gp, 6), 0);
	ck_assert_uint_eq(gp->nr_free, 2);
	ck_assert_int_eq(take(gp, 3), 0);	/* no more slabs: one idle block goes */
	ck_assert_uint_eq(gp->nr_idle, 3);
	ck_assert_uint_eq(gp->nr_free, 0);
}
END_TEST

START_TEST(only_what_is_missing_is_evicted)
{
	uint64_t direct = stat_get(RECLAIM_DIRECT);

	one_space(8, 1);
	prig_chain(&r, gp, 0, 6, ids);
	ck_assert_int_eq(reclaim_reserve(&r.rc, gp, 3, 3), 0);
	ck_assert_uint_eq(gp->nr_free, 3);
	ck_assert_uint_eq(gp->nr_idle, 4);
	ck_assert_uint_eq(stat_get(RECLAIM_DIRECT) - direct, 2);
	for (uint32_t i = 0; i < 6; i++)
		ck_assert((i < 4) == !!prig_find(&r, sp, 0, i));
}
END_TEST

START_TEST(leased_blocks_stay)
{
	one_space(8, 1);
	prig_chain(&r, gp, 0, 6, ids);
	prig_get(&r, ids[3]);
	ck_assert_int_eq(take(gp, 4), -EAGAIN);
	ck_assert_uint_eq(gp->nr_free, 3);	/* the two behind it went */
	ck_assert_uint_eq(reclaim_evict(&r.rc, gp, 100), 0);
	for (uint32_t i = 0; i < 6; i++)
		ck_assert((i < 4) == !!prig_find(&r, sp, 0, i));
	prig_put(&r, ids[3]);
	ck_assert_uint_eq(reclaim_evict(&r.rc, gp, 100), 4);
}
END_TEST

START_TEST(leaves_go_first)
{
	uint32_t branch;

	one_space(32, 4);
	prig_chain(&r, gp, 0, 6, ids);
	branch = prig_alloc(&r, gp);		/* a second child of block 2, the youngest */
	ck_assert_ptr_null(prig_seal(&r, branch, 50, ids[2]));
	prig_put(&r, branch);
	for (uint32_t left = 7; left--;) {
		ck_assert_uint_eq(reclaim_evict(&r.rc, gp, 1), 1);
		ck_assert_uint_eq(gp->nr_idle, left);
		prig_check(&r);
		for (uint32_t i = 1; i < 6; i++)
			if (prig_find(&r, sp, 0, i))
				ck_assert_ptr_nonnull(prig_find(&r, sp, 0, i - 1));
		if (prig_find(&r, sp, 0, 50))
			ck_assert_ptr_nonnull(prig_find(&r, sp, 0, 2));
	}
	ck_assert_uint_eq(reclaim_evict(&r.rc, gp, 1), 0);
}
END_TEST

START_TEST(more_than_there_can_ever_be)
{
	struct waiter w;

	one_space(8, 1);
	ck_assert_int_eq(reclaim_reserve(&r.rc, gp, 8, 8), -ENOMEM);
	ck_assert_int_eq(reclaim_reserve(&r.rc, gp, UINT32_MAX, UINT32_MAX), -ENOMEM);
	ck_assert_int_eq(reclaim_reserve(&r.rc, gp, 1, 257), -ENOMEM);
	ck_assert_int_eq(reclaim_reserve(&r.rc, gp, 7, 7), 0);
	wait_for(&w, gp, 7, 0);
	ck_assert_int_eq(reclaim_reserve(&r.rc, gp, 8, 8), -ENOMEM);	/* not even in line */
	reclaim_unwait(&r.rc, &w);
}
END_TEST

START_TEST(min_slots_are_for_tenants_below_their_min)
{
	one_space(16, 2);
	ck_assert_int_eq(take(gp, 8), 0);
	gp->wmark_min = 5;			/* 7 are free */
	ck_assert_uint_eq(reclaim_reserve_slots(gp, 3), 5);
	ck_assert_int_eq(reclaim_reserve(&r.rc, gp, 2, 2), 0);
	ck_assert_int_eq(reclaim_reserve(&r.rc, gp, 3, 3), -EAGAIN);
	ck_assert_int_eq(reclaim_reserve(&r.rc, gp, 11, 11), -ENOMEM);
	r.t[0]->hbm_min = 11 * P;		/* 8 are in use */
	ck_assert_uint_eq(reclaim_reserve_slots(gp, 3), 0);
	ck_assert_uint_eq(reclaim_reserve_slots(gp, 4), 5);
	ck_assert_int_eq(take(gp, 3), 0);
	ck_assert_int_eq(take(gp, 1), -EAGAIN);	/* at its min now */
}
END_TEST

START_TEST(records_run_out_before_slots)
{
	struct gpool *other;

	init(10, 1 << 20);
	space(32, 2);
	other = prig_gpool(&r, "o", 1, P, 32, 1);
	prig_chain(&r, gp, 0, 4, ids);
	prig_chain(&r, other, 20, 5, ids);
	ck_assert_uint_eq(r.p->nr_free_blk, 1);
	ck_assert_int_eq(take(gp, 3), 0);	/* its own first */
	ck_assert_uint_eq(gp->nr_idle, 2);
	ck_assert_uint_eq(other->nr_idle, 5);
	r.t[1]->hbm_low = 4 * P;		/* then others', down to their low */
	ck_assert_int_eq(take(gp, 3), 0);
	ck_assert_uint_eq(gp->nr_idle, 0);
	ck_assert_uint_eq(other->nr_idle, 4);
	ck_assert_int_eq(take(gp, 1), -EAGAIN);
	r.t[1]->hbm_low = 0;
	ck_assert_int_eq(take(gp, 1), 0);
}
END_TEST

/* ---------------------------------------------------------------- limits */

START_TEST(over_max_its_own_blocks_go_or_it_is_refused)
{
	struct gpool *same, *other;
	uint64_t events_max;

	one_space(16, 2);
	same = prig_gpool(&r, "same", 0, P, 16, 1);
	other = prig_gpool(&r, "other", 1, P, 16, 1);
	prig_chain(&r, gp, 0, 1, ids);
	prig_chain(&r, same, 10, 1, ids);
	prig_chain(&r, other, 20, 3, ids);
	ck_assert_int_eq(take(gp, 2), 0);
	r.t[0]->hbm_max = 4 * P;
	ck_assert_int_eq(take(gp, 5), -EDQUOT);	/* hopeless: nothing goes for it */
	ck_assert_uint_eq(gp->nr_idle + same->nr_idle, 2);
	ck_assert_int_eq(take(gp, 2), 0);	/* in both of its spaces */
	ck_assert_uint_eq(gp->nr_idle + same->nr_idle, 0);
	ck_assert_uint_eq(r.t[0]->hbm_bytes, 4 * P);
	events_max = r.t[0]->events_max;
	ck_assert_int_eq(take(gp, 1), -EDQUOT);
	ck_assert_uint_eq(r.t[0]->events_max, events_max + 1);
	ck_assert_int_eq(take(same, 1), -EDQUOT);
	ck_assert_uint_eq(other->nr_idle, 3);
	ck_assert_int_eq(take(other, 4), 0);
}
END_TEST

/* More idle blocks to evict than one call may: not over max, only not yet done. */
START_TEST(a_large_allocation_at_max_is_not_refused)
{
	prig_init(&r, "null", 4095, 4096ull * P, 4096ull * P, &events);
	space(4096, 1);
	prig_chain(&r, gp, 0, 3000, ids);
	r.t[0]->hbm_max = 3000ull * P;
	ck_assert_int_eq(reclaim_reserve(&r.rc, gp, 2000, 2000), -EAGAIN);
	ck_assert_uint_eq(gp->nr_idle, 3000 - 1024);
	ck_assert_int_eq(reclaim_reserve(&r.rc, gp, 2000, 2000), 0);
	ck_assert_uint_eq(gp->nr_idle, 1000);
	ck_assert_uint_eq(r.t[0]->events_max, 0);
}
END_TEST

START_TEST(a_waiter_meets_max)
{
	struct waiter w;

	one_space(8, 1);
	ck_assert_int_eq(take(gp, 7), 0);
	wait_for(&w, gp, 1, 0);
	r.t[0]->hbm_max = 7 * P;
	turn();
	ck_assert_uint_eq(nr_served, 1);
	ck_assert_int_eq(served[0].err, -EDQUOT);
	ck_assert_uint_eq(r.rc.nr_waiters, 0);
}
END_TEST

START_TEST(over_high_its_own_blocks_go_first)
{
	one_space(16, 2);
	prig_chain(&r, gp, 0, 3, ids);
	ck_assert_int_eq(take(gp, 2), 0);
	r.t[0]->hbm_high = 4 * P;
	ck_assert_uint_eq(gp->nr_free, 10);	/* slots are not what is short */
	ck_assert_int_eq(take(gp, 1), 0);
	ck_assert_uint_eq(gp->nr_idle, 1);
	ck_assert_uint_eq(r.t[0]->hbm_bytes, 4 * P);
	ck_assert_uint_eq(r.t[0]->events_high, 1);
	ck_assert_uint_eq(r.t[0]->events_max, 0);
}
END_TEST

/* Throttled is not short of memory: nobody loses a slab for it. */
START_TEST(over_high_it_is_throttled_and_then_served)
{
	struct gpool *other;
	struct waiter w;

	one_space(32, 2);
	other = prig_gpool(&r, "other", 1, P, 32, 2);
	ck_assert_int_eq(take(gp, 4), 0);
	r.t[0]->hbm_high = 4 * P;
	ck_assert_int_eq(take(gp, 1), -EAGAIN);
	ck_assert_uint_eq(r.t[0]->events_high, 1);
	wait_for(&w, gp, 1, 0);
	r.rc.throttle_ns = UINT64_MAX;
	turn();
	turn();
	ck_assert_uint_eq(nr_served, 0);
	ck_assert_uint_eq(r.p->nr_draining, 0);
	ck_assert_uint_eq(other->nr_slots, 15);
	r.rc.throttle_ns = 0;
	turn();
	ck_assert_uint_eq(nr_served, 1);
	ck_assert_int_eq(served[0].err, 0);
	ck_assert_uint_eq(r.t[0]->hbm_bytes, 5 * P);
	ck_assert_uint_eq(r.t[0]->events_high, 1);	/* one event, however long it waits */
}
END_TEST

/* -------------------------------------------------------------- background */

START_TEST(background_works_from_low_to_high)
{
	uint64_t before = stat_get(RECLAIM_BACKGROUND);

	one_space(32, 4);			/* 31 slots */
	prig_chain(&r, gp, 0, 27, ids);
	gp->wmark_low = 4;
	gp->wmark_high = 10;
	while (turn())
		;
	ck_assert_uint_eq(gp->nr_idle, 27);	/* at low: not yet */
	ck_assert_int_eq(take(gp, 1), 0);
	ck_assert(r.rc.kick);			/* it said so itself */
	while (turn())
		;
	ck_assert_uint_eq(gp->nr_free, 10);
	ck_assert_uint_eq(gp->nr_idle, 20);
	ck_assert_uint_eq(stat_get(RECLAIM_BACKGROUND) - before, 7);
	ck_assert(!gp->reclaiming);
	ck_assert_int_eq(take(gp, 5), 0);	/* 5 are free: between low and high */
	while (turn())
		;
	ck_assert_uint_eq(gp->nr_free, 5);
}
END_TEST

START_TEST(background_grows_before_it_evicts)
{
	one_space(32, 1);
	prig_chain(&r, gp, 0, 6, ids);
	gp->wmark_low = 4;
	gp->wmark_high = 6;
	while (turn())
		;
	ck_assert_uint_eq(gp->nr_slots, 15);
	ck_assert_uint_eq(gp->nr_idle, 6);
	ck_assert_uint_eq(gp->nr_free, 9);
}
END_TEST

START_TEST(background_is_bounded_and_ends)
{
	init(256, 1 << 20);
	space(201, 26);
	ck_assert_uint_eq(gp->nr_slots, 200);
	prig_chain(&r, gp, 0, 150, ids);
	gp->wmark_low = gp->wmark_high = 180;
	ck_assert(turn());
	ck_assert_uint_eq(gp->nr_idle, 150 - 64);
	ck_assert(turn());
	ck_assert(turn());
	ck_assert_uint_eq(gp->nr_free, 180);
	ck_assert(!turn());
	ck_assert_int_eq(take(gp, 180), 0);	/* nothing but 20 idle and leased ones */
	ck_assert(turn());
	ck_assert(!turn());
	ck_assert_uint_eq(gp->nr_free, 20);
	ck_assert(!reclaim_turn(&r.rc, now));	/* and nobody kicks it */
}
END_TEST

/* ----------------------------------------------------------------- waiting */

START_TEST(served_in_order_and_nobody_overtakes)
{
	struct waiter a, b, c;
	uint32_t held[7];

	one_space(8, 1);
	ck_assert_int_eq(take(gp, 7), 0);
	memcpy(held, ids, sizeof(held));
	wait_for(&a, gp, 4, 0);
	wait_for(&b, gp, 1, 0);
	wait_for(&c, gp, 2, 0);
	ck_assert_uint_eq(gp->nr_waiters, 3);
	for (int i = 0; i < 3; i++)
		give(held[i]);
	turn();
	ck_assert_uint_eq(nr_served, 0);	/* b would fit, and is not first */
	ck_assert_int_eq(reclaim_reserve(&r.rc, gp, 1, 1), -EAGAIN);
	for (int i = 3; i < 5; i++)
		give(held[i]);
	turn();
	ck_assert_uint_eq(nr_served, 2);
	ck_assert_ptr_eq(served[0].w, &a);
	ck_assert_ptr_eq(served[1].w, &b);
	ck_assert_int_eq(served[0].err | served[1].err, 0);
	give(held[5]);
	give(held[6]);
	turn();
	ck_assert_uint_eq(nr_served, 3);
	ck_assert_ptr_eq(served[2].w, &c);
	ck_assert_uint_eq(r.rc.nr_waiters, 0);
	ck_assert_uint_eq(gp->nr_free, 0);
}
END_TEST

START_TEST(who_leaves_the_line_lets_the_next_go)
{
	struct waiter a, b;

	one_space(8, 1);
	ck_assert_int_eq(take(gp, 6), 0);
	wait_for(&a, gp, 2, 0);
	wait_for(&b, gp, 1, 0);
	turn();
	ck_assert_uint_eq(nr_served, 0);
	reclaim_unwait(&r.rc, &a);
	ck_assert(r.rc.kick);
	reclaim_unwait(&r.rc, &a);		/* twice is fine */
	ck_assert_uint_eq(gp->nr_waiters, 1);
	turn();
	ck_assert_uint_eq(nr_served, 1);
	ck_assert_ptr_eq(served[0].w, &b);
}
END_TEST

START_TEST(deadlines_end_with_enomem)
{
	struct waiter a, b, c, d;

	one_space(8, 1);
	ck_assert_int_eq(take(gp, 7), 0);
	wait_for(&a, gp, 1, 0);			/* none */
	wait_for(&b, gp, 1, 3000);
	wait_for(&c, gp, 1, 2000);
	now = 1999;
	turn();
	ck_assert_uint_eq(nr_served, 0);
	now = 2000;
	turn();
	ck_assert_uint_eq(nr_served, 1);	/* behind the first, in time all the same */
	ck_assert_ptr_eq(served[0].w, &c);
	ck_assert_int_eq(served[0].err, -ENOMEM);
	reclaim_unwait(&r.rc, &a);
	now = 5000;
	wait_for(&d, gp, 1, 0);
	turn();
	ck_assert_uint_eq(nr_served, 2);
	ck_assert_ptr_eq(served[1].w, &b);
	ck_assert_int_eq(served[1].err, -ENOMEM);
	reclaim_unwait(&r.rc, &d);
}
END_TEST

START_TEST(memory_that_came_in_time_beats_the_deadline)
{
	struct waiter a;

	one_space(8, 1);
	ck_assert_int_eq(take(gp, 7), 0);
	wait_for(&a, gp, 1, 2000);
	give(ids[0]);
	now = 9000;
	turn();
	ck_assert_uint_eq(nr_served, 1);
	ck_assert_int_eq(served[0].err, 0);
}
END_TEST

START_TEST(the_clock_looks_again)
{
	struct waiter a;

	one_space(8, 1);
	ck_assert_int_eq(take(gp, 7), 0);
	wait_for(&a, gp, 1, 0);
	while (reclaim_turn(&r.rc, now))
		;
	ck_assert_uint_ne(r.rc.retry_ns, 0);
	ck_assert_uint_gt(r.rc.retry_ns, now);
	ck_assert(!reclaim_turn(&r.rc, now));
	pool_free(r.p, pool_block(r.p, ids[0]));	/* nobody kicks */
	now = r.rc.retry_ns;
	reclaim_turn(&r.rc, now);
	ck_assert_uint_eq(nr_served, 1);
}
END_TEST

START_TEST(below_its_min_it_is_served_first)
{
	struct waiter a, b;
	struct gpool *other;

	init(256, SLAB);			/* there is one slab for both */
	space(32, 0);
	other = prig_gpool(&r, "o", 1, P, 32, 0);
	r.t[1]->hbm_min = SLAB;
	wait_for(&a, gp, 2, 0);
	wait_for(&b, other, 2, 0);
	turn();
	turn();
	ck_assert_uint_eq(nr_served, 1);
	ck_assert_ptr_eq(served[0].w, &b);
	ck_assert_uint_eq(gp->nr_slots, 0);
	reclaim_unwait(&r.rc, &a);
}
END_TEST

START_TEST(the_youngest_gives_way_in_a_deadlock)
{
	struct waiter a, b;

	one_space(8, 1);
	ck_assert_int_eq(take(gp, 7), 0);
	wait_for(&a, gp, 2, 0);
	wait_for(&b, gp, 1, 0);
	turn();
	ck_assert_uint_eq(nr_asked, 1);
	ck_assert_uint_eq(nr_served, 0);
	is_deadlocked = true;
	turn();
	ck_assert_uint_eq(nr_served, 1);
	ck_assert_ptr_eq(served[0].w, &b);
	ck_assert_int_eq(served[0].err, -EDEADLK);
	nr_asked = 0;
	for (int i = 0; i < 2; i++)
		give(ids[i]);
	turn();					/* one is served: nobody asks */
	ck_assert_uint_eq(nr_asked, 0);
	ck_assert_int_eq(served[1].err, 0);
}
END_TEST

/* ----------------------------------------------------------------- reports */

START_TEST(pressure)
{
	struct waiter w;

	one_space(11, 2);			/* 10 slots */
	ck_assert_uint_eq(reclaim_pressure(sp), KVMD_PRESSURE_NONE);
	ck_assert_int_eq(take(gp, 8), 0);
	prig_chain(&r, gp, 0, 2, ids + 100);	/* idle: not under pressure */
	ck_assert_uint_eq(reclaim_pressure(sp), KVMD_PRESSURE_NONE);
	prig_get(&r, ids[100]);
	ck_assert_uint_eq(reclaim_pressure(sp), KVMD_PRESSURE_SOME);
	wait_for(&w, gp, 3, 0);
	ck_assert_uint_eq(reclaim_pressure(sp), KVMD_PRESSURE_FULL);
	reclaim_unwait(&r.rc, &w);
	prig_put(&r, ids[100]);
	ck_assert_uint_eq(reclaim_pressure(sp), KVMD_PRESSURE_NONE);
}
END_TEST

/* Its idle blocks are still there, its slots are not counted any more. */
START_TEST(no_pressure_from_a_slab_that_drains)
{
	char text[256];

	one_space(16, 2);
	prig_chain(&r, gp, 0, 6, ids);
	slab_drain(r.p, gp->slab[0], NULL);
	ck_assert_uint_eq(reclaim_pressure(sp), KVMD_PRESSURE_NONE);
	reclaim_report(&r.rc, gp, text, sizeof(text));
	ck_assert_msg(strstr(text, " 0 leased"), "%s", text);
}
END_TEST

START_TEST(report_says_who_holds_what)
{
	static const char *const words[] = {
		"space s group 0", "15 slots", "8 free", "3 idle", "4 leased", "default",
		"28672 bytes", "max 90000", "249 records",
	};
	char text[256], few[8];

	one_space(16, 2);
	prig_chain(&r, gp, 0, 3, ids);
	ck_assert_int_eq(take(gp, 4), 0);
	r.t[0]->hbm_max = 90000;
	reclaim_report(&r.rc, gp, text, sizeof(text));
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		ck_assert_msg(strstr(text, words[i]), "\"%s\" lacks \"%s\"", text, words[i]);
	reclaim_report(&r.rc, gp, few, sizeof(few));
	ck_assert_uint_eq(strlen(few), 7);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("reclaim");
	TCase *tc = suite_group(s, "reserving", NULL, teardown);

	tcase_add_test(tc, free_slots_first_then_growth_then_idle_blocks);
	tcase_add_test(tc, only_what_is_missing_is_evicted);
	tcase_add_test(tc, leased_blocks_stay);
	tcase_add_test(tc, leaves_go_first);
	tcase_add_test(tc, more_than_there_can_ever_be);
	tcase_add_test(tc, min_slots_are_for_tenants_below_their_min);
	tcase_add_test(tc, records_run_out_before_slots);
	tc = suite_group(s, "limits", NULL, teardown);
	tcase_add_test(tc, over_max_its_own_blocks_go_or_it_is_refused);
	tcase_add_test(tc, a_large_allocation_at_max_is_not_refused);
	tcase_add_test(tc, a_waiter_meets_max);
	tcase_add_test(tc, over_high_its_own_blocks_go_first);
	tcase_add_test(tc, over_high_it_is_throttled_and_then_served);
	tc = suite_group(s, "background", NULL, teardown);
	tcase_add_test(tc, background_works_from_low_to_high);
	tcase_add_test(tc, background_grows_before_it_evicts);
	tcase_add_test(tc, background_is_bounded_and_ends);
	tc = suite_group(s, "waiting", NULL, teardown);
	tcase_add_test(tc, served_in_order_and_nobody_overtakes);
	tcase_add_test(tc, who_leaves_the_line_lets_the_next_go);
	tcase_add_test(tc, deadlines_end_with_enomem);
	tcase_add_test(tc, memory_that_came_in_time_beats_the_deadline);
	tcase_add_test(tc, the_clock_looks_again);
	tcase_add_test(tc, below_its_min_it_is_served_first);
	tcase_add_test(tc, the_youngest_gives_way_in_a_deadlock);
	tc = suite_group(s, "reports", NULL, teardown);
	tcase_add_test(tc, pressure);
	tcase_add_test(tc, no_pressure_from_a_slab_that_drains);
	tcase_add_test(tc, report_says_who_holds_what);
	return suite_run(s);
}
