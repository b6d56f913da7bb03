/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_ram.c - places and chunks of the RAM tier: classes, stealing, size.
 */
#include "ram_rig.h"

#include "kvmd/tier/ram_int.h"
#include "tests/quiet.h"
#include "tests/suite.h"

#define MIB	(1ull << 20)
#define CHUNK	(2 * MIB)

static struct rrig r;
static struct gpool *small, *large;	/* 8 KiB and 512 KiB blocks */

static void setup(void)
{
	rrig_init(&r, "null");
	small = rrig_space(&r, 2, 1, 4096 - 64, false);
	large = rrig_space(&r, 1, 2, 256 * 1024, false);
}

static void teardown(void)
{
	rrig_exit(&r);
}

static uint32_t chunk_of(uint32_t place)
{
	return (place - 1) >> RAM_IDX_BITS;
}

/* ---------------------------------------------------------------------- places */

START_TEST(places_are_apart_and_all_of_them_are_given_out)
{
	uint32_t place[600], nr;
	uint8_t *lo = NULL;

	rrig_tier(&r, 2 * CHUNK, CHUNK);
	ck_assert_uint_eq(r.t->bytes, 2 * CHUNK);
	nr = rrig_fill(&r, small, 1, place, 600);
	ck_assert_uint_eq(nr, 512);
	ck_assert_uint_eq(r.t->used_bytes, 2 * CHUNK);
	for (uint32_t i = 0; i < nr; i++) {
		uint8_t *mem = ram_mem(r.t, place[i]);

		ck_assert_uint_ne(place[i], 0);
		ck_assert_uint_eq((uintptr_t)mem % 4096, 0);
		ck_assert_uint_eq(mem[0], 0);
		memset(mem, 1, 8192);
		lo = mem;
		ram_set_sum(r.t, place[i], i);
	}
	ck_assert_ptr_nonnull(lo);
	for (uint32_t i = 0; i < nr; i++)
		ck_assert_uint_eq(ram_sum(r.t, place[i]), i);
	rrig_clean(&r);
	for (uint32_t i = 0; i < nr; i += 2)
		rrig_free(&r, place[i]);
	rrig_clean(&r);
	ck_assert_uint_eq(rrig_fill(&r, small, 1000, place, 600), 256);
	rrig_clean(&r);
}
END_TEST

START_TEST(what_does_not_fit_is_not_given_a_place)
{
	struct gpool *huge = rrig_space(&r, 1, 1, CHUNK + 64, false);
	struct gpool *odd = rrig_space(&r, 1, 1, 3 * CHUNK / 4, false);

	r.no_buffers = true;
	rrig_tier(&r, 2 * CHUNK, CHUNK);
	ck_assert_str_eq(rrig_info(&r).text, "");
	ck_assert_uint_eq(rrig_alloc(&r, huge, 1), 0);
	ck_assert_ptr_nonnull(strstr(rrig_info(&r).text, "ram.chunk_bytes"));
	ck_assert_uint_eq(ram_steal(r.t, tier_block_bytes(huge)), 0);
	/* What is left over of a chunk is not free. */
	ck_assert_uint_ne(rrig_alloc(&r, odd, 1), 0);
	ck_assert_uint_eq(r.t->used_bytes, CHUNK);
	ck_assert_uint_ne(rrig_alloc(&r, odd, 2), 0);
	ck_assert_uint_eq(rrig_alloc(&r, odd, 3), 0);
	rrig_clean(&r);
	ck_assert_uint_eq(ram_owner(r.t, 0), 0);
	ck_assert_uint_eq(ram_owner(r.t, 2), 0);
	ck_assert_uint_eq(ram_owner(r.t, UINT32_MAX), 0);
}
END_TEST

START_TEST(a_partly_used_chunk_comes_first)
{
	uint32_t a, b, c, place[512];

	rrig_tier(&r, 4 * CHUNK, CHUNK);
	a = rrig_alloc(&r, small, 1);
	b = rrig_alloc(&r, large, 2);
	c = rrig_alloc(&r, small, 3);
	ck_assert_uint_eq(chunk_of(a), chunk_of(c));
	ck_assert_uint_ne(chunk_of(a), chunk_of(b));
	/* Three more fill b's chunk, the next takes another. */
	ck_assert_uint_eq(rrig_fill(&r, large, 10, place, 4), 4);
	ck_assert_uint_eq(chunk_of(place[2]), chunk_of(b));
	ck_assert_uint_ne(chunk_of(place[3]), chunk_of(b));
	rrig_clean(&r);
}
END_TEST

START_TEST(an_empty_chunk_is_for_any_class)
{
	uint32_t place[512], nr;

	rrig_tier(&r, 2 * CHUNK, CHUNK);
	for (int round = 0; round < 4; round++) {
		struct gpool *gp = round % 2 ? small : large;
		struct gpool *other = round % 2 ? large : small;

		nr = rrig_fill(&r, gp, 1, place, 512);
		ck_assert_uint_eq(nr, round % 2 ? 512 : 8);
		ck_assert_uint_eq(rrig_alloc(&r, other, 1), 0);
		for (uint32_t i = 1; i < nr; i++)
			rrig_free(&r, place[i]);
		rrig_clean(&r);
		/* One chunk is empty, the other one keeps its class. */
		place[1] = rrig_alloc(&r, other, 2);
		ck_assert_uint_ne(place[1], 0);
		ck_assert_uint_ne(chunk_of(place[1]), chunk_of(place[0]));
		rrig_free(&r, place[0]);
		rrig_free(&r, place[1]);
		ck_assert_uint_eq(r.t->used_bytes, 0);
		rrig_clean(&r);
	}
}
END_TEST

START_TEST(held_memory_is_not_reused)
{
	uint32_t place[512], nr;

	rrig_tier(&r, CHUNK, CHUNK);
	nr = rrig_fill(&r, large, 1, place, 512);
	ck_assert_uint_eq(nr, 4);
	ram_hold(r.t, place[1]);
	ram_hold(r.t, place[1]);
	for (uint32_t i = 0; i < nr; i++)
		rrig_free(&r, place[i]);
	ck_assert_uint_eq(ram_owner(r.t, place[1]), 0);
	ck_assert_ptr_nonnull(ram_mem(r.t, place[1]));
	rrig_clean(&r);
	ck_assert_uint_eq(rrig_alloc(&r, small, 1), 0);
	ck_assert_uint_eq(rrig_fill(&r, large, 1, place, 512), 3);
	for (uint32_t i = 0; i < 3; i++)
		rrig_free(&r, place[i]);
	ram_put(r.t, (0 << RAM_IDX_BITS | 1) + 1);
	ck_assert_uint_eq(rrig_alloc(&r, small, 1), 0);
	ram_put(r.t, (0 << RAM_IDX_BITS | 1) + 1);
	rrig_clean(&r);
	ck_assert_uint_ne(rrig_alloc(&r, small, 1), 0);
}
END_TEST

START_TEST(a_draining_or_broken_tier_gives_no_place)
{
	rrig_tier(&r, CHUNK, CHUNK);
	r.t->draining = true;
	ck_assert_uint_eq(rrig_alloc(&r, small, 1), 0);
	r.t->draining = false;
	r.t->broken = true;
	ck_assert_uint_eq(rrig_alloc(&r, small, 1), 0);
	r.t->broken = false;
	rrig_arm("tier-alloc:nth=2");
	ck_assert_uint_ne(rrig_alloc(&r, small, 1), 0);
	ck_assert_uint_eq(rrig_alloc(&r, small, 2), 0);
	ck_assert_uint_ne(rrig_alloc(&r, small, 2), 0);
	rrig_clean(&r);
}
END_TEST

/* Random places of five classes against a plain list of who has what. */
START_TEST(random_use_stays_clean)
{
	static struct { uint32_t place, block; struct gpool *gp; bool held; } have[512];
	struct gpool *gp[5] = { small, large };
	uint32_t nr = 0, seed = 12345u + (uint32_t)_i, next = 1;

	gp[2] = rrig_space(&r, 3, 1, 20480, false);
	gp[3] = rrig_space(&r, 1, 3, 65536, true);
	gp[4] = rrig_space(&r, 1, 1, 640 * 1024, false);
	rrig_tier(&r, 8 * CHUNK, CHUNK);
	for (uint32_t n = 0; n < 20000; n++) {
		uint32_t dice, i;

		seed = seed * 1664525u + 1013904223u;
		dice = seed >> 16;
		i = nr ? dice / 8 % nr : 0;
		if (dice % 8 < 4 && nr < 512) {
			have[nr].gp = gp[dice / 8 % 5];
			have[nr].block = next++;
			have[nr].held = false;
			have[nr].place = rrig_alloc(&r, have[nr].gp, have[nr].block);
			if (have[nr].place) {
				memset(ram_mem(r.t, have[nr].place), (int)have[nr].block & 0xff,
				       tier_block_bytes(have[nr].gp));
				nr++;
			}
		} else if (dice % 8 == 4 && nr && !have[i].held) {
			ram_hold(r.t, have[i].place);
			have[i].held = true;
		} else if (nr) {
			uint64_t bytes = tier_block_bytes(have[i].gp);
			const uint8_t *mem = ram_mem(r.t, have[i].place);

			quiet_assert_uint_eq(ram_owner(r.t, have[i].place), have[i].block);
			quiet_assert_uint_eq(mem[0], have[i].block & 0xff);
			quiet_assert_uint_eq(mem[bytes - 1], have[i].block & 0xff);
			rrig_free(&r, have[i].place);
			if (have[i].held)
				ram_put(r.t, have[i].place);
			have[i] = have[--nr];
		}
		if (n % 500 == 0)
			rrig_clean(&r);
	}
	while (nr--) {
		rrig_free(&r, have[nr].place);
		if (have[nr].held)
			ram_put(r.t, have[nr].place);
	}
	ck_assert_uint_eq(r.t->used_bytes, 0);
}
END_TEST

/* -------------------------------------------------------------------- stealing */

START_TEST(a_chunk_is_stolen_for_another_class)
{
	uint32_t place[513] = { 0 }, owner, got = 0, nr = 0;

	rrig_tier(&r, 2 * CHUNK, CHUNK);
	ck_assert_uint_eq(ram_steal(r.t, tier_block_bytes(large)), 0);	/* there is room */
	ck_assert_uint_eq(rrig_fill(&r, small, 1, &place[1], 512), 512);
	rrig_free(&r, place[512]);			/* its chunk has the fewest */
	place[512] = 0;
	while (!(got = rrig_alloc(&r, large, 1000))) {
		owner = ram_steal(r.t, tier_block_bytes(large));
		ck_assert_uint_ne(owner, 0);
		ck_assert_uint_ne(place[owner], 0);
		ck_assert_uint_eq(ram_owner(r.t, place[owner]), owner);
		rrig_free(&r, place[owner]);
		place[owner] = 0;
		nr++;
	}
	ck_assert_uint_eq(nr, 255);
	ck_assert_uint_eq(chunk_of(got), 1);
	rrig_clean(&r);
	/* And back: 4 large ones would have to go, there is one. */
	ck_assert_uint_eq(rrig_alloc(&r, small, 2000), 0);
	ck_assert_uint_eq(ram_steal(r.t, tier_block_bytes(small)), 1000);
	rrig_free(&r, got);
	ck_assert_uint_ne(rrig_alloc(&r, small, 2000), 0);
}
END_TEST

/* The chunk of one class is being emptied when that class needs room itself. */
START_TEST(a_robbed_class_may_rob_too)
{
	uint32_t place[600], nr;

	rrig_tier(&r, 2 * CHUNK, CHUNK);
	place[0] = rrig_alloc(&r, large, 1);
	ck_assert_uint_eq(rrig_fill(&r, large, 2, &place[1], 3), 3);
	nr = rrig_fill(&r, small, 5, &place[4], 500);
	ck_assert_uint_eq(nr, 256);
	ck_assert_uint_eq(ram_steal(r.t, tier_block_bytes(small)), 1);
	ck_assert_uint_eq(rrig_alloc(&r, large, 1000), 0);
	ck_assert_uint_eq(ram_steal(r.t, tier_block_bytes(large)), 5);
	rrig_clean(&r);
	ck_assert_uint_eq(ram_steal(r.t, tier_block_bytes(small)), 1);
	rrig_free(&r, place[1]);
	ck_assert_uint_eq(ram_steal(r.t, tier_block_bytes(large)), 0);
	ck_assert_uint_eq(rrig_alloc(&r, large, 1000), place[1]);
}
END_TEST

/* A pass that freed something is followed by another: the rest was only slow. */
START_TEST(stealing_goes_on_while_it_gets_on)
{
	uint32_t place[8];

	rrig_tier(&r, CHUNK, CHUNK);
	ck_assert_uint_eq(rrig_fill(&r, large, 1, place, 8), 4);
	for (uint32_t i = 1; i <= 4; i++)
		ck_assert_uint_eq(ram_steal(r.t, tier_block_bytes(small)), i);
	rrig_free(&r, place[0]);
	ck_assert_uint_eq(ram_steal(r.t, tier_block_bytes(small)), 0);
	for (uint32_t i = 2; i <= 4; i++) {
		ck_assert_uint_eq(ram_steal(r.t, tier_block_bytes(small)), i);
		rrig_free(&r, place[i - 1]);
	}
	ck_assert_uint_ne(rrig_alloc(&r, small, 9), 0);
}
END_TEST

START_TEST(a_chunk_that_stays_is_given_up)
{
	uint32_t place[8], owner, nr = 0, seen = 0;

	rrig_tier(&r, CHUNK, CHUNK);
	ck_assert_uint_eq(rrig_fill(&r, large, 0x10, place, 8), 4);
	ram_hold(r.t, place[2]);
	/* One pass names each owner once, but not what is held; nobody lets go. */
	while ((owner = ram_steal(r.t, tier_block_bytes(small)))) {
		ck_assert_uint_eq(seen & 1u << (owner - 0x10), 0);
		seen |= 1u << (owner - 0x10);
		nr++;
		rrig_clean(&r);
	}
	ck_assert_uint_eq(nr, 3);
	ck_assert_uint_eq(seen, 0xb);
	rrig_clean(&r);
	/* Its own class takes it back when it is half empty. */
	ck_assert_uint_eq(ram_steal(r.t, tier_block_bytes(small)), 0x10);
	rrig_free(&r, place[0]);
	ck_assert_uint_eq(rrig_alloc(&r, large, 0x20), place[0]);
	rrig_clean(&r);
	for (int i = 0; i < 4; i++)
		rrig_free(&r, place[i]);
	ck_assert_uint_eq(rrig_alloc(&r, small, 1), 0);
	ck_assert_uint_eq(ram_steal(r.t, tier_block_bytes(small)), 0);	/* only held ones are left */
	ram_put(r.t, place[2]);
	ck_assert_uint_ne(rrig_alloc(&r, small, 1), 0);
}
END_TEST

/* ------------------------------------------------------------------------ size */

START_TEST(it_grows_and_shrinks)
{
	uint32_t place[64], owner, nr;

	rrig_tier(&r, 2 * CHUNK, CHUNK);
	ck_assert_uint_gt(rrig_info(&r).start_ns, 0);
	ck_assert_uint_eq(r.nr_adds, 3);
	ck_assert_int_eq(ram_resize(r.t, 5 * CHUNK - 1), 0);
	rrig_settle(&r);
	rrig_poll(&r);
	ck_assert_uint_eq(r.t->bytes, 5 * CHUNK);
	ck_assert_uint_eq(rrig_info(&r).nr_ready, 5);
	ck_assert_uint_eq(rrig_fill(&r, large, 1, place, 64), 20);
	ck_assert_uint_eq(ram_drain_next(r.t), 0);
	ck_assert_int_eq(ram_resize(r.t, 2 * CHUNK), 0);
	rrig_settle(&r);
	ck_assert_uint_eq(r.t->bytes, 5 * CHUNK);
	rrig_clean(&r);
	for (nr = 0; (owner = ram_drain_next(r.t)); nr++) {
		ck_assert_uint_ge(chunk_of(place[owner - 1]), 2);
		rrig_free(&r, place[owner - 1]);
		rrig_settle(&r);
		rrig_clean(&r);
	}
	ck_assert_uint_eq(nr, 12);
	ck_assert_uint_eq(r.t->bytes, 2 * CHUNK);
	ck_assert_uint_eq(r.nr_dels, 3);
	ck_assert_int_eq(r.chunk_fd[2], -1);
	ck_assert_int_ge(r.chunk_fd[1], 0);
	ck_assert_uint_eq(rrig_alloc(&r, large, 99), 0);
	ck_assert_int_eq(ram_resize(r.t, 3 * CHUNK), 0);
	rrig_settle(&r);
	rrig_poll(&r);
	ck_assert_uint_ne(rrig_alloc(&r, large, 99), 0);
	ck_assert_int_eq(ram_resize(r.t, CHUNK * (RAM_MAX_CHUNKS + 1ull)), -EINVAL);
}
END_TEST

START_TEST(draining_empties_all_of_it)
{
	uint32_t place[64], owner, nr = 0, last = UINT32_MAX;

	rrig_tier(&r, 3 * CHUNK, CHUNK);
	ck_assert_uint_eq(rrig_fill(&r, large, 1, place, 64), 12);
	ram_hold(r.t, place[5]);
	r.t->draining = true;
	while ((owner = ram_drain_next(r.t))) {
		ck_assert_uint_le(chunk_of(place[owner - 1]), last);
		last = chunk_of(place[owner - 1]);
		rrig_free(&r, place[owner - 1]);
		nr++;
	}
	ck_assert_uint_eq(nr, 11);
	ram_put(r.t, place[5]);
	ck_assert_uint_eq(ram_drain_next(r.t), 6);
	rrig_free(&r, place[5]);
	ck_assert_uint_eq(ram_drain_next(r.t), 0);
	ck_assert_uint_eq(r.t->used_bytes, 0);
	ck_assert_int_eq(ram_resize(r.t, 0), 0);
	rrig_settle(&r);
	ck_assert_uint_eq(r.t->bytes, 0);
	ck_assert_uint_eq(r.nr_dels, 3);
	ck_assert_uint_eq(r.t->ops->next_ns(r.t), 0);
}
END_TEST

/* Down and up again while a chunk is being made or given up. */
START_TEST(resizes_under_way_are_overtaken)
{
	ck_assert_int_eq(rrig_create(&r, 4 * CHUNK, CHUNK), 0);
	for (uint32_t n = 0; n < 40; n++) {
		ck_assert_int_eq(ram_resize(r.t, (n * 7 % 5) * CHUNK), 0);
		(void)rrig_turn(&r);
		(void)r.t->ops->poll(r.t);
		rrig_clean(&r);
	}
	ck_assert_int_eq(ram_resize(r.t, 3 * CHUNK), 0);
	rrig_settle(&r);
	rrig_poll(&r);
	ck_assert_uint_eq(r.t->bytes, 3 * CHUNK);
	for (int i = 0; i < 5; i++)
		ck_assert_int_eq(r.chunk_fd[i] >= 0, i < 3);
}
END_TEST

START_TEST(sizes_are_checked)
{
	ck_assert_int_eq(rrig_create(&r, 0, 0), -EINVAL);
	ck_assert_int_eq(rrig_create(&r, MIB, 4095), -EINVAL);
	ck_assert_int_eq(rrig_create(&r, MIB, (1024 + 1) * MIB), -EINVAL);
	ck_assert_int_eq(rrig_create(&r, 4096 * (RAM_MAX_CHUNKS + 1ull), 4096), -EINVAL);
	rrig_tier(&r, 3 * MIB, 0);
	ck_assert_uint_eq(rrig_info(&r).chunk_bytes, 2 * MIB);
	ck_assert_uint_eq(rrig_info(&r).bytes, 4 * MIB);
}
END_TEST

static TCase *group(Suite *s, const char *name)
{
	return suite_slow_group(s, name, setup, teardown, 60);
}

int main(void)
{
	Suite *s = suite_create("ram");
	TCase *tc = group(s, "places");

	tcase_add_test(tc, places_are_apart_and_all_of_them_are_given_out);
	tcase_add_test(tc, what_does_not_fit_is_not_given_a_place);
	tcase_add_test(tc, a_partly_used_chunk_comes_first);
	tcase_add_test(tc, an_empty_chunk_is_for_any_class);
	tcase_add_test(tc, held_memory_is_not_reused);
	tcase_add_test(tc, a_draining_or_broken_tier_gives_no_place);
	tcase_add_loop_test(tc, random_use_stays_clean, 0, 3);
	tc = group(s, "stealing");
	tcase_add_test(tc, a_chunk_is_stolen_for_another_class);
	tcase_add_test(tc, a_robbed_class_may_rob_too);
	tcase_add_test(tc, stealing_goes_on_while_it_gets_on);
	tcase_add_test(tc, a_chunk_that_stays_is_given_up);
	tc = group(s, "size");
	tcase_add_test(tc, it_grows_and_shrinks);
	tcase_add_test(tc, draining_empties_all_of_it);
	tcase_add_test(tc, resizes_under_way_are_overtaken);
	tcase_add_test(tc, sizes_are_checked);
	return suite_run(s);
}
