/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_ram_life.c - the RAM tier's memory in its first and second life: what can
 * be lacking when chunks are made, and what a restart finds of them.
 */
#include "ram_rig.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kvmd/lib/fault.h"
#include "kvmd/lib/sum.h"
#include "kvmd/tier/ram_int.h"
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

/* --------------------------------------------------------- what can be lacking */

START_TEST(it_serves_while_it_grows)
{
	uint32_t place = 0;

	if (!rrig_may_register())
		return;
	ck_assert_int_eq(rrig_create(&r, 6 * CHUNK, CHUNK), 0);
	ck_assert_uint_eq(r.t->bytes, 0);
	ck_assert_uint_eq(rrig_alloc(&r, large, 1), 0);
	while (!r.t->bytes)
		ck_assert(rrig_turn(&r));
	place = rrig_alloc(&r, large, 1);
	ck_assert_uint_ne(place, 0);
	ck_assert_int_eq(ram_buf(r.t, place), -1);
	ck_assert_uint_eq(rrig_info(&r).start_ns, 0);
	rrig_settle(&r);
	rrig_clean(&r);
	/* One registration a turn at most. */
	for (uint32_t n = 1; r.t->ops->next_ns(r.t); n++) {
		uint64_t was = rrig_info(&r).registered_bytes;

		(void)r.t->ops->poll(r.t);
		ck_assert_uint_le(rrig_info(&r).registered_bytes, was + CHUNK);
	}
	ck_assert_uint_eq(rrig_info(&r).registered_bytes, 6 * CHUNK);
	ck_assert_int_eq(ram_buf(r.t, place), (int)chunk_of(place));
}
END_TEST

START_TEST(a_chunk_that_cannot_be_made_ends_the_growth)
{
	char spec[32];

	for (unsigned n = 1; n <= 3; n++) {
		struct ram_info i;

		r.no_buffers = true;
		snprintf(spec, sizeof(spec), "chunk:nth=%u", n);
		rrig_arm(spec);
		rrig_tier(&r, 3 * CHUNK, CHUNK);
		i = rrig_info(&r);
		ck_assert_uint_eq(i.nr_ready, n - 1);
		ck_assert_uint_eq(r.t->bytes, (n - 1) * CHUNK);
		ck_assert_uint_eq(i.start_ns, 0);
		ck_assert_ptr_nonnull(strstr(i.text, "could not be made"));
		ck_assert_int_eq(!rrig_alloc(&r, small, 1), n == 1);
		rrig_clean(&r);
		/* Asked again, it is tried again. */
		fault_disarm();
		ck_assert_int_eq(ram_resize(r.t, 3 * CHUNK), 0);
		rrig_settle(&r);
		ck_assert_uint_eq(r.t->bytes, 3 * CHUNK);
		teardown();
		setup();
	}
}
END_TEST

/* The first, second, ... allocation fails: no tier, or one that works. */
START_TEST(lack_of_memory_leaves_nothing)
{
	unsigned refused = 0, stuck = 0;
	char spec[32];
	bool hit = true;

	for (unsigned n = 1; hit; n++) {
		int err;

		snprintf(spec, sizeof(spec), "alloc:nth=%u", n);
		rrig_arm(spec);
		err = rrig_create(&r, 2 * CHUNK, CHUNK);
		ck_assert(!err || err == -ENOMEM);
		if (!err) {
			rrig_settle(&r);
			rrig_poll(&r);
			stuck += r.t->bytes < 2 * CHUNK;
			rrig_clean(&r);
		}
		hit = fault_nr_hits(FAULT_ALLOC);
		refused += err != 0;
		teardown();
		setup();
		ck_assert_uint_lt(n, 100);
	}
	ck_assert_uint_gt(refused, 2);
	ck_assert_uint_gt(stuck, 2);
}
END_TEST

START_TEST(what_cannot_be_locked_is_used_unlocked)
{
	const struct ram_opts o = { .bytes = 3 * CHUNK, .chunk_bytes = CHUNK, .lock = true };

	rrig_arm("lock:every=1");
	ck_assert_int_eq(ram_create(&o, NULL, r.slow, NULL, &r.t), 0);
	rrig_settle(&r);
	ck_assert_uint_eq(r.t->bytes, 3 * CHUNK);
	ck_assert_uint_eq(rrig_info(&r).locked_bytes, 0);
	ck_assert_ptr_nonnull(strstr(rrig_info(&r).text, "chunk 0 is used unlocked"));
	ck_assert_ptr_nonnull(strstr(rrig_info(&r).text, "RLIMIT_MEMLOCK"));
	ck_assert_int_eq(ram_buf(r.t, rrig_alloc(&r, small, 1)), -1);
	ck_assert_uint_eq(r.t->ops->next_ns(r.t), 0);
}
END_TEST

START_TEST(what_is_not_registered_is_used_all_the_same)
{
	uint32_t place[64];

	if (!rrig_may_register())
		return;
	rrig_arm("register:nth=2");
	rrig_tier(&r, 3 * CHUNK, CHUNK);
	ck_assert_uint_eq(rrig_info(&r).registered_bytes, 2 * CHUNK);
	ck_assert_ptr_nonnull(strstr(rrig_info(&r).text, "no fixed buffer"));
	ck_assert_uint_eq(rrig_fill(&r, large, 1, place, 64), 12);
	for (int i = 0; i < 12; i++)
		ck_assert_int_eq(ram_buf(r.t, place[i]),
				 chunk_of(place[i]) == 1 ? -1 : (int)chunk_of(place[i]));
	rrig_clean(&r);
	for (int i = 0; i < 12; i++)
		rrig_free(&r, place[i]);
	ck_assert_int_eq(ram_resize(r.t, 0), 0);
	rrig_settle(&r);
	ck_assert_uint_eq(rrig_info(&r).registered_bytes, 0);
	ck_assert_uint_eq(r.t->ops->next_ns(r.t), 0);
}
END_TEST

START_TEST(pages_are_told_and_add_up)
{
	const struct ram_opts o = {
		.bytes = 2 * CHUNK, .chunk_bytes = CHUNK, .hugetlb = true, .lock = true,
	};
	struct ram_info i;

	ck_assert_int_eq(ram_create(&o, NULL, r.slow, NULL, &r.t), 0);
	rrig_settle(&r);
	i = rrig_info(&r);
	ck_assert_uint_eq(i.hugetlb_bytes + i.thp_bytes + i.small_bytes, 2 * CHUNK);
	ck_assert(i.locked_bytes || strstr(i.text, "unlocked"));
	if (!i.hugetlb_bytes && i.locked_bytes)
		ck_assert_ptr_nonnull(strstr(i.text, "hugetlb"));
}
END_TEST

/* The owner joined its workers: what they finished last nobody reaped. */
START_TEST(an_end_in_the_middle_of_a_job)
{
	ck_assert_int_eq(rrig_create(&r, 2 * CHUNK, CHUNK), 0);
	if (_i)
		ck_assert(rrig_turn(&r));
	workers_destroy(r.slow);
	r.t->ops->destroy(r.t);
	r.t = NULL;
	ck_assert_int_eq(workers_create(1, &r.slow), 0);
}
END_TEST

/* ----------------------------------------------------------------- second life */

START_TEST(a_restart_finds_what_was_there)
{
	uint32_t place[8], s, fresh;

	rrig_tier(&r, 2 * CHUNK, CHUNK);
	ck_assert_uint_eq(rrig_fill(&r, large, 1, place, 3), 3);
	s = rrig_alloc(&r, small, 4);
	for (int i = 0; i < 3; i++) {
		memset(ram_mem(r.t, place[i]), 0x40 + i, 512 * 1024);
		ram_set_sum(r.t, place[i], sum_of(ram_mem(r.t, place[i]), 512 * 1024));
	}
	memset(ram_mem(r.t, s), 7, 8064);
	ram_set_sum(r.t, s, 77);
	ck_assert_int_eq(rrig_restart(&r, 3 * CHUNK), 0);
	ck_assert_uint_eq(r.t->bytes, 2 * CHUNK);
	ck_assert_uint_eq(r.t->used_bytes, 0);
	ck_assert_uint_eq(ram_owner(r.t, place[0]), 0);
	/* Class, range, number, record, twice. */
	ck_assert(!ram_claim(r.t, place[0], tier_block_bytes(small), 1));
	ck_assert(!ram_claim(r.t, s, tier_block_bytes(large), 1));
	ck_assert(!ram_claim(r.t, place[0] + 4, tier_block_bytes(large), 1));
	ck_assert(!ram_claim(r.t, 0, tier_block_bytes(large), 1));
	ck_assert(!ram_claim(r.t, UINT32_MAX, tier_block_bytes(large), 1));
	ck_assert(!ram_claim(r.t, (2u << RAM_IDX_BITS) + 1, tier_block_bytes(large), 1));
	ck_assert(!ram_claim(r.t, place[0], tier_block_bytes(large), 0));
	rrig_clean(&r);
	ck_assert(ram_claim(r.t, place[0], tier_block_bytes(large), 11));
	ck_assert(!ram_claim(r.t, place[0], tier_block_bytes(large), 12));
	ck_assert(ram_claim(r.t, place[2], tier_block_bytes(large), 13));
	ck_assert(ram_claim(r.t, s, tier_block_bytes(small), 14));
	rrig_clean(&r);
	ck_assert_uint_eq(ram_owner(r.t, place[2]), 13);
	for (int i = 0; i < 3; i += 2)
		ck_assert_uint_eq(ram_sum(r.t, place[i]),
				  sum_of(ram_mem(r.t, place[i]), 512 * 1024));
	ck_assert_uint_eq(ram_sum(r.t, s), 77);
	ck_assert_uint_eq(*(uint8_t *)ram_mem(r.t, s), 7);
	/* Whoever did not ask until now has lost it. */
	fresh = rrig_alloc(&r, large, 20);
	ck_assert_uint_eq(fresh, place[1]);
	rrig_free(&r, fresh);
	ck_assert(!ram_claim(r.t, place[1], tier_block_bytes(large), 12));
	rrig_settle(&r);
	rrig_poll(&r);
	ck_assert_uint_eq(r.t->bytes, 3 * CHUNK);
	ck_assert_int_ge(r.chunk_fd[2], 0);
	if (rrig_may_register())
		ck_assert_uint_eq(rrig_info(&r).registered_bytes, 3 * CHUNK);
	/* And once more. */
	ck_assert_int_eq(rrig_restart(&r, 3 * CHUNK), 0);
	ck_assert(ram_claim(r.t, place[0], tier_block_bytes(large), 11));
	ck_assert_uint_eq(*(uint8_t *)ram_mem(r.t, place[0]), 0x40);
}
END_TEST

/* Killed between giving up the last block of a chunk and the chunk's class. */
START_TEST(a_chunk_nobody_claims_is_empty_in_the_table_too)
{
	uint32_t place[8], s;

	rrig_tier(&r, 2 * CHUNK, CHUNK);
	ck_assert_uint_eq(rrig_fill(&r, large, 1, place, 3), 3);
	s = rrig_alloc(&r, small, 4);
	ck_assert_int_eq(rrig_restart(&r, 2 * CHUNK), 0);
	ck_assert(ram_claim(r.t, place[0], tier_block_bytes(large), 1));
	ck_assert_uint_eq(rrig_alloc(&r, large, 5), place[1]);
	rrig_clean(&r);
	/* The third life may give it to anybody. */
	ck_assert_int_eq(rrig_restart(&r, 2 * CHUNK), 0);
	ck_assert(!ram_claim(r.t, s, tier_block_bytes(small), 4));
	rrig_clean(&r);
}
END_TEST

START_TEST(a_smaller_second_life_keeps_what_is_claimed)
{
	uint32_t place[16], owner, nr = 0;

	rrig_tier(&r, 4 * CHUNK, CHUNK);
	ck_assert_uint_eq(rrig_fill(&r, large, 1, place, 16), 16);
	ck_assert_int_eq(rrig_restart(&r, CHUNK), 0);
	rrig_settle(&r);
	ck_assert_uint_eq(r.t->bytes, 4 * CHUNK);
	for (uint32_t i = 0; i < 16; i++)
		if (chunk_of(place[i]) != 2)
			ck_assert(ram_claim(r.t, place[i], tier_block_bytes(large), i + 1));
	rrig_clean(&r);
	ck_assert_uint_eq(rrig_alloc(&r, large, 99), 0);
	rrig_settle(&r);
	ck_assert_uint_eq(r.t->bytes, 3 * CHUNK);	/* the unclaimed one is gone */
	ck_assert_int_eq(r.chunk_fd[2], -1);
	while ((owner = ram_drain_next(r.t))) {
		rrig_free(&r, place[owner - 1]);
		nr++;
	}
	rrig_settle(&r);
	ck_assert_uint_eq(nr, 8);
	ck_assert_uint_eq(r.t->bytes, CHUNK);
}
END_TEST

START_TEST(chunks_that_are_not_those_of_the_table_are_refused)
{
	uint32_t place[8];
	int fd;

	rrig_tier(&r, 3 * CHUNK, CHUNK);
	ck_assert_uint_eq(rrig_fill(&r, large, 1, place, 8), 8);
	/* 0 and 1 change places, 2 is lost, and there is a 3 that was given up. */
	fd = r.chunk_fd[0];
	r.chunk_fd[0] = r.chunk_fd[1];
	r.chunk_fd[1] = fd;
	close(r.chunk_fd[2]);
	r.chunk_fd[2] = -1;
	r.chunk_fd[3] = memfd_create("stale", MFD_CLOEXEC);
	ck_assert_int_eq(ftruncate(r.chunk_fd[3], CHUNK), 0);
	ck_assert_int_eq(rrig_restart(&r, 3 * CHUNK), 0);
	ck_assert_uint_eq(r.t->bytes, 0);
	ck_assert_uint_eq(r.nr_dels, 3);
	for (int i = 0; i < 8; i++)
		ck_assert(!ram_claim(r.t, place[i], tier_block_bytes(large), 1));
	rrig_settle(&r);
	ck_assert_uint_eq(r.t->bytes, 3 * CHUNK);
	/* New chunks, under the old numbers. */
	for (int i = 0; i < 8; i++)
		ck_assert(!ram_claim(r.t, place[i], tier_block_bytes(large), 1));
}
END_TEST

START_TEST(more_than_the_old_chunks_allow)
{
	rrig_tier(&r, 8192, 4096);
	ck_assert_int_eq(rrig_restart(&r, 4096ull * RAM_MAX_CHUNKS + 1), 0);
	ck_assert_uint_eq(rrig_info(&r).nr_chunks, RAM_MAX_CHUNKS);
	ck_assert_ptr_nonnull(strstr(rrig_info(&r).text, "no more than 32 MiB"));
	ck_assert_int_eq(ram_resize(r.t, 8192), 0);
}
END_TEST

START_TEST(a_table_of_another_version_is_refused)
{
	struct ram_table *table;

	rrig_tier(&r, CHUNK, CHUNK);
	table = mmap(NULL, sizeof(*table), PROT_READ | PROT_WRITE, MAP_SHARED, r.table_fd, 0);
	ck_assert_ptr_ne(table, MAP_FAILED);
	if (_i == 0)
		table->magic++;
	else if (_i == 1)
		table->version++;
	else if (_i == 2)
		table->chunk_bytes *= 2;
	else if (_i == 3)
		table->chunk_bytes = 0;
	else if (_i == 4)
		table->sums_off += 4096;
	else
		table->max_chunks--;
	munmap(table, sizeof(*table));
	ck_assert_int_eq(rrig_restart(&r, CHUNK), -EINVAL);
	ck_assert_ptr_null(r.t);
}
END_TEST

START_TEST(a_file_that_is_no_table_is_refused)
{
	const struct ram_opts o = { .bytes = CHUNK };
	int fd = memfd_create("other", MFD_CLOEXEC), none = -1;

	ck_assert_int_eq(ram_attach(&o, r.u, r.slow, NULL, fd, &none, 1, &r.t), -EINVAL);
	ck_assert_int_eq(ftruncate(fd, 1 << 20), 0);
	ck_assert_int_eq(ram_attach(&o, r.u, r.slow, NULL, fd, &none, 1, &r.t), -EINVAL);
	close(fd);
	ck_assert_int_ne(ram_attach(&o, r.u, r.slow, NULL, -1, &none, 1, &r.t), 0);
}
END_TEST

static TCase *group(Suite *s, const char *name)
{
	return suite_slow_group(s, name, setup, teardown, 60);
}

int main(void)
{
	Suite *s = suite_create("ram_life");
	TCase *tc = group(s, "lacking");

	tcase_add_test(tc, it_serves_while_it_grows);
	tcase_add_test(tc, a_chunk_that_cannot_be_made_ends_the_growth);
	tcase_add_test(tc, lack_of_memory_leaves_nothing);
	tcase_add_test(tc, what_cannot_be_locked_is_used_unlocked);
	tcase_add_test(tc, what_is_not_registered_is_used_all_the_same);
	tcase_add_test(tc, pages_are_told_and_add_up);
	tcase_add_loop_test(tc, an_end_in_the_middle_of_a_job, 0, 2);
	tc = group(s, "restart");
	tcase_add_test(tc, a_restart_finds_what_was_there);
	tcase_add_test(tc, a_chunk_nobody_claims_is_empty_in_the_table_too);
	tcase_add_test(tc, a_smaller_second_life_keeps_what_is_claimed);
	tcase_add_test(tc, chunks_that_are_not_those_of_the_table_are_refused);
	tcase_add_test(tc, more_than_the_old_chunks_allow);
	tcase_add_loop_test(tc, a_table_of_another_version_is_refused, 0, 6);
	tcase_add_test(tc, a_file_that_is_no_table_is_refused);
	return suite_run(s);
}
