/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_slab.c - slabs are made, announced, drained, moved, and scrubbed.
 */
#include <stdio.h>

#include "kvmd/lib/fault.h"
#include "kvmd/lib/stats.h"
#include "pool_rig.h"
#include "tests/suite.h"

static struct prig r;
static struct kvmd_space m;
static struct space *a;
static struct gpool *gp;
static unsigned nr_ready, nr_unmap, nr_failed;

/* Slabs of 8 slots of 4 KiB. */
static void setup(void)
{
	prig_init(&r, "host", 256, 8 * 4096, 1 << 20, NULL);
	prig_geometry(&m, 4096, 24);
	a = prig_space(&r, "a", r.t[0], &m, "lru");
	gp = &a->gp[0];
	nr_ready = nr_unmap = nr_failed = 0;
}

static void teardown(void)
{
	fault_disarm();
	prig_exit(&r);
}

/* Connection 3 maps every slab. */
static void ready(struct pool *p, struct slab *s)
{
	(void)p;
	nr_ready++;
	slab_bit_set(s->mapped, 3);
	slab_bit_set(s->unacked, 3);
	slab_bit_set(s->ever, 3);
}

static void unmap(struct pool *p, struct slab *s)
{
	(void)p;
	(void)s;
	nr_unmap++;
}

static void failed(struct pool *p, struct gpool *g, int err)
{
	(void)p;
	ck_assert_ptr_eq(g, gp);
	ck_assert_int_eq(err, -ENOMEM);
	nr_failed++;
}

static const struct pool_events events = {
	.slab_ready = ready, .slab_unmap = unmap, .slab_failed = failed,
};

static void acked(struct slab *s)
{
	slab_bit_clear(s->unacked, 3);
	slab_advance(r.p, s);
}

START_TEST(names)
{
	for (unsigned i = 0; i < NR_SLAB_STATE; i++)
		ck_assert_str_ne(slab_state_name(i), "?");
	ck_assert_str_eq(slab_state_name(NR_SLAB_STATE), "?");
}
END_TEST

START_TEST(bits)
{
	uint64_t map[POOL_MAX_CONNS / 64] = { 0 };

	ck_assert(slab_bits_empty(map));
	slab_bit_set(map, 255);
	ck_assert(slab_bit(map, 255) && !slab_bit(map, 254) && !slab_bits_empty(map));
	slab_bit_clear(map, 255);
	ck_assert(slab_bits_empty(map));
}
END_TEST

START_TEST(used_only_when_mapped)
{
	struct slab *s;

	r.p->events = &events;
	prig_grow(&r, gp, 1);
	s = gp->slab[0];
	ck_assert_uint_eq(s->state, SLAB_ANNOUNCED);
	ck_assert_uint_eq(gp->nr_free, 0);
	ck_assert_uint_eq(gp->nr_coming, 7);
	slab_advance(r.p, s);
	ck_assert_uint_eq(s->state, SLAB_ANNOUNCED);
	acked(s);
	ck_assert_uint_eq(s->state, SLAB_ACTIVE);
	ck_assert_uint_eq(gp->nr_free, 7);
	ck_assert_uint_eq(gp->nr_coming, 0);
	prig_check(&r);
}
END_TEST

START_TEST(last_slab_is_partial)
{
	struct space *odd;

	prig_geometry(&m, 4096, 19);
	odd = prig_space(&r, "odd", r.t[0], &m, "lru");
	prig_grow(&r, &odd->gp[0], 3);
	ck_assert_uint_eq(odd->gp[0].slab[2]->nr, 3);
	ck_assert_uint_eq(odd->gp[0].slab[2]->extent_bytes, 3 * 4096);
	ck_assert_uint_eq(odd->gp[0].nr_slots, 18);
	ck_assert(!slab_can_grow(r.p, &odd->gp[0]));
	ck_assert_int_eq(slab_grow(r.p, &odd->gp[0]), -ENOSPC);
	prig_check(&r);
}
END_TEST

/* Extents are multiples of what the device hands out, whatever the plane. */
START_TEST(granularity)
{
	struct space *small;

	prig_geometry(&m, 192, 1000);
	small = prig_space(&r, "small", r.t[0], &m, "lru");
	ck_assert_uint_eq((uint64_t)small->gp[0].slab_slots * 192 % 4096, 0);
	prig_grow(&r, &small->gp[0], 1);
	ck_assert_uint_eq(small->gp[0].slab[0]->ext[0].bytes % 4096, 0);
	ck_assert_uint_ge(small->gp[0].slab[0]->ext[0].bytes,
			  (uint64_t)small->gp[0].slab_slots * 192);
}
END_TEST

START_TEST(budget_bounds_growth)
{
	r.p->dev[0].budget_bytes = 2 * 8 * 4096 + 100;
	prig_grow(&r, gp, 2);
	ck_assert(!slab_can_grow(r.p, gp));
	ck_assert_int_eq(slab_grow(r.p, gp), -ENOMEM);
	ck_assert_uint_eq(r.p->dev[0].used_bytes, 2 * 8 * 4096);
}
END_TEST

START_TEST(creation_fails)
{
	r.p->events = &events;
	ck_assert_int_eq(fault_arm("slab:nth=1", NULL, 0), 0);
	prig_grow(&r, gp, 1);
	ck_assert_uint_eq(nr_failed, 1);
	ck_assert_uint_eq(nr_ready, 0);
	ck_assert_uint_eq(gp->nr_coming, 0);
	ck_assert_ptr_null(gp->slab[0]);
	ck_assert_uint_eq(r.p->dev[0].used_bytes, 0);
	/* Not asked again at once. */
	ck_assert(gp->growth_failed);
	gp->growth_retry_ns = UINT64_MAX;
	ck_assert_int_eq(slab_grow(r.p, gp), -ENOMEM);
	gp->growth_retry_ns = 0;
	prig_grow(&r, gp, 1);
	ck_assert_uint_eq(nr_ready, 1);
}
END_TEST

START_TEST(drain_to_the_device)
{
	uint32_t id;

	prig_grow(&r, gp, 2);
	id = prig_alloc(&r, gp);
	slab_drain(r.p, gp->slab[0], NULL);
	ck_assert_uint_eq(gp->slab[0]->state, SLAB_DRAINING);
	ck_assert_uint_eq(gp->nr_free, 8);
	ck_assert_uint_eq(gp->nr_slots, 8);
	prig_check(&r);
	/* Nothing new from it. */
	for (int i = 0; i < 8; i++)
		ck_assert_uint_ge(pool_block(r.p, prig_alloc(&r, gp))->slot, 8);
	pool_free(r.p, pool_block(r.p, id));
	prig_work(&r);
	ck_assert_ptr_null(gp->slab[0]);
	ck_assert_uint_eq(r.p->dev[0].used_bytes, 8 * 4096);
	prig_check(&r);
	/* Its place is taken again. */
	prig_grow(&r, gp, 1);
	ck_assert_uint_eq(gp->slab[0]->nr, 8);
	ck_assert_uint_eq(gp->nr_free, 7);
}
END_TEST

START_TEST(undrain)
{
	uint32_t id, ids[6];

	prig_grow(&r, gp, 1);
	id = prig_alloc(&r, gp);
	slab_drain(r.p, gp->slab[0], NULL);
	slab_drain(r.p, gp->slab[0], NULL);
	slab_undrain(r.p, gp->slab[0]);
	slab_undrain(r.p, gp->slab[0]);
	ck_assert_uint_eq(gp->slab[0]->state, SLAB_ACTIVE);
	ck_assert_uint_eq(gp->nr_free, 6);
	ck_assert_uint_eq(gp->nr_coming, 0);
	ck_assert_int_eq(pool_alloc(r.p, gp, 6, 7, 0, ids), 0);
	pool_free(r.p, pool_block(r.p, id));
	prig_check(&r);
}
END_TEST

START_TEST(full_slab_drains)
{
	uint32_t ids[7];

	prig_grow(&r, gp, 1);
	ck_assert_int_eq(pool_alloc(r.p, gp, 7, 7, 0, ids), 0);
	slab_drain(r.p, gp->slab[0], NULL);
	for (int i = 0; i < 7; i++)
		pool_free(r.p, pool_block(r.p, ids[i]));
	prig_work(&r);
	ck_assert_ptr_null(gp->slab[0]);
	prig_check(&r);
}
END_TEST

static void scribble(const struct slab *s)
{
	memset(s->ext[0].map, 0x5a, s->ext[0].bytes);
}

static bool is_clean(const struct slab *s)
{
	const uint8_t *p = s->ext[0].map;

	for (uint64_t i = 0; i < s->ext[0].bytes; i++)
		if (p[i])
			return false;
	return true;
}

/* The very memory goes to another space of the tenant, zeroed. */
START_TEST(move_same_shape)
{
	struct space *b = prig_space(&r, "b", r.t[0], &m, "lru");
	struct slab *s;
	const void *map;
	uint32_t gen;

	prig_grow(&r, gp, 2);
	s = gp->slab[1];
	map = s->ext[0].map;
	gen = s->gen;
	scribble(s);
	slab_drain(r.p, s, &b->gp[0]);
	prig_work(&r);
	ck_assert_uint_eq(s->state, SLAB_ACTIVE);
	ck_assert_ptr_eq(s->gp, &b->gp[0]);
	ck_assert_ptr_eq(s->ext[0].map, map);
	ck_assert_uint_ne(s->gen, gen);
	ck_assert_uint_eq(s->first, 0);
	ck_assert_uint_eq(b->gp[0].nr_free, 7);
	ck_assert_uint_eq(gp->nr_slots, 7);
	ck_assert_ptr_null(gp->slab[1]);
	ck_assert(is_clean(s));
	prig_check(&r);
}
END_TEST

/* Another shape: the memory goes back, and the taker grows from it. */
START_TEST(move_other_shape)
{
	struct space *b;

	r.p->dev[0].budget_bytes = 8 * 4096;
	prig_geometry(&m, 8192, 24);
	b = prig_space(&r, "b", r.t[0], &m, "lru");
	prig_grow(&r, gp, 1);
	ck_assert(!slab_can_grow(r.p, &b->gp[0]));
	slab_drain(r.p, gp->slab[0], &b->gp[0]);
	prig_work(&r);
	ck_assert_uint_eq(b->gp[0].nr_free, 3);
	ck_assert_uint_eq(gp->nr_slots, 0);
	ck_assert_uint_eq(r.p->dev[0].used_bytes, 4 * 8192);
	prig_check(&r);
}
END_TEST

START_TEST(tenants_wait_for_processes)
{
	struct space *b = prig_space(&r, "b", r.t[1], &m, "lru");
	struct slab *s;

	r.p->events = &events;
	prig_grow(&r, gp, 1);
	s = gp->slab[0];
	acked(s);
	scribble(s);
	slab_drain(r.p, s, &b->gp[0]);
	ck_assert_uint_eq(s->state, SLAB_UNMAPPING);
	ck_assert_uint_eq(nr_unmap, 1);
	slab_bit_clear(s->mapped, 3);
	acked(s);
	/* Unmapped, but the process could still have it. */
	ck_assert_uint_eq(s->state, SLAB_WAIT_TENANT);
	slab_advance(r.p, s);
	ck_assert_uint_eq(s->state, SLAB_WAIT_TENANT);
	slab_bit_clear(s->ever, 3);
	slab_advance(r.p, s);
	ck_assert_uint_eq(s->state, SLAB_SCRUBBING);
	prig_work(&r);
	ck_assert_ptr_eq(s->gp, &b->gp[0]);
	ck_assert(is_clean(s));
	prig_check(&r);
}
END_TEST

/* In one tenant the unmapping is enough. */
START_TEST(same_tenant_does_not_wait)
{
	struct space *b = prig_space(&r, "b", r.t[0], &m, "lru");
	struct slab *s;

	r.p->events = &events;
	prig_grow(&r, gp, 1);
	s = gp->slab[0];
	acked(s);
	slab_drain(r.p, s, &b->gp[0]);
	slab_bit_clear(s->mapped, 3);
	acked(s);
	prig_work(&r);
	ck_assert_ptr_eq(s->gp, &b->gp[0]);
	ck_assert_uint_eq(nr_ready, 2);
	prig_check(&r);
}
END_TEST

/* Somebody had it whom nobody watches any more: not for another tenant. */
START_TEST(tainted_memory_goes_back)
{
	struct space *b = prig_space(&r, "b", r.t[1], &m, "lru");
	struct slab *s;

	prig_grow(&r, gp, 1);
	s = gp->slab[0];
	s->tainted = true;
	slab_drain(r.p, s, &b->gp[0]);
	prig_work(&r);
	ck_assert_uint_eq(b->gp[0].nr_slots, 7);
	ck_assert_uint_eq(stat_get(SLABS_MOVED), 0);
	ck_assert_uint_eq(stat_get(SLABS_DESTROYED), 1);
	prig_check(&r);
}
END_TEST

START_TEST(not_scrubbed_not_moved)
{
	struct space *b = prig_space(&r, "b", r.t[0], &m, "lru");

	prig_grow(&r, gp, 1);
	ck_assert_int_eq(fault_arm("scrub:nth=1", NULL, 0), 0);
	slab_drain(r.p, gp->slab[0], &b->gp[0]);
	prig_work(&r);
	ck_assert_uint_eq(stat_get(SLABS_MOVED), 0);
	ck_assert_uint_eq(b->gp[0].nr_slots, 7);
	prig_check(&r);
}
END_TEST

/*
 * While a slab was scrubbed its taker grew by itself; only a partial slab was left
 * to it. The moved one was taken for that with more memory than was accounted.
 */
START_TEST(taker_grew_while_it_was_scrubbed)
{
	struct space *b;
	struct slab *s;

	prig_geometry(&m, 4096, 11);
	b = prig_space(&r, "b", r.t[0], &m, "lru");
	prig_grow(&r, gp, 1);
	s = gp->slab[0];
	slab_drain(r.p, s, &b->gp[0]);
	ck_assert_uint_eq(s->state, SLAB_SCRUBBING);
	ck_assert_int_eq(slab_grow(r.p, &b->gp[0]), 0);
	prig_work(&r);
	ck_assert_uint_eq(b->gp[0].nr_slots, 10);
	for (int k = 0; k < 2; k++)
		ck_assert_uint_eq(b->gp[0].slab[k]->ext[0].bytes, b->gp[0].slab[k]->extent_bytes);
	ck_assert_uint_eq(r.p->dev[0].used_bytes, 11 * 4096);
	prig_check(&r);
}
END_TEST

/* All of it idle, but one slot less than a slab, for slot 0 is nobody's: it gave nothing. */
START_TEST(the_only_slab_of_an_idle_space_is_taken)
{
	struct space *b = prig_space(&r, "b", r.t[_i], &m, "lru");
	uint32_t ids[7];

	prig_grow(&r, gp, 1);
	prig_chain(&r, gp, 1, 7, ids);
	reclaim_take_slab(&r.rc, &b->gp[0]);
	ck_assert_uint_eq(gp->slab[0]->state, SLAB_DRAINING);
	while (reclaim_drain_turn(&r.rc))
		;
	prig_work(&r);
	ck_assert_uint_eq(gp->nr_slots, 0);
	ck_assert_uint_eq(b->gp[0].nr_slots, 7);
	prig_check(&r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("slab");
	TCase *tc = tcase_create("slab");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, names);
	tcase_add_test(tc, bits);
	tcase_add_test(tc, used_only_when_mapped);
	tcase_add_test(tc, last_slab_is_partial);
	tcase_add_test(tc, granularity);
	tcase_add_test(tc, budget_bounds_growth);
	tcase_add_test(tc, creation_fails);
	tcase_add_test(tc, drain_to_the_device);
	tcase_add_test(tc, undrain);
	tcase_add_test(tc, full_slab_drains);
	tcase_add_test(tc, move_same_shape);
	tcase_add_test(tc, move_other_shape);
	tcase_add_test(tc, tenants_wait_for_processes);
	tcase_add_test(tc, same_tenant_does_not_wait);
	tcase_add_test(tc, tainted_memory_goes_back);
	tcase_add_test(tc, not_scrubbed_not_moved);
	tcase_add_test(tc, taker_grew_while_it_was_scrubbed);
	tcase_add_loop_test(tc, the_only_slab_of_an_idle_space_is_taken, 0, 2);
	tcase_set_timeout(tc, 120);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
