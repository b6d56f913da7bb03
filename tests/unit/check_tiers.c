/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_tiers.c - blocks on their way between HBM, RAM and disk, in the whole
 * daemon turned by hand.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/core_rig.h"
#include "tests/quiet.h"

#include "kvmd/lib/clock.h"
#include "kvmd/lib/fault.h"
#include "kvmd/lib/stats.h"

#define BLOCK	4096u

static struct core c;
static struct core_client cl;
static char dir[64], disk_opt[128];

static void start(const char *const *opts, uint32_t slots)
{
	struct kvmd_space m;

	core_init(&c, opts);
	core_geometry(&m, "s", BLOCK, slots + 1);
	core_client(&c, &cl, "default", &m, 64, 4096);
	core_quiet(&c);
	core_recovered(&c);
	core_settle(&c);
}

static void stop(void)
{
	fault_disarm();
	core_walk(&c);
	core_exit(&c);
}

static void start_ram(uint32_t slots)
{
	static const char *const opts[] = {
		"pool.blocks=4096", "pool.policy=lru", "ram.bytes=16M", "ram.lock=no", "ram.hugetlb=no",
		"pool.wmark_low=0", "pool.wmark_high=0", "pool.clean_ahead=0", NULL,
	};

	start(opts, slots);
}

static void make_dir(void)
{
	snprintf(dir, sizeof(dir), "/tmp/kvmd-tiers.XXXXXX");
	ck_assert(mkdtemp(dir));
	snprintf(disk_opt, sizeof(disk_opt), "disk.path=%s/kv.img", dir);
}

static void drop_dir(void)
{
	char path[96];

	snprintf(path, sizeof(path), "%s/kv.img", dir);
	unlink(path);
	rmdir(dir);
}

static void start_disk(uint32_t slots, const char *ram)
{
	const char *const opts[] = {
		"pool.blocks=4096", "pool.policy=lru", ram, "ram.lock=no", "ram.hugetlb=no", "ram.chunk=2M",
		disk_opt, "disk.bytes=64M", "disk.segment=1M", "disk.block_bytes_hint=4096",
		"disk.admission=1", "pool.wmark_low=0", "pool.wmark_high=0", "pool.clean_ahead=0",
		NULL,
	};

	start(opts, slots);
}

/* The bytes that belong to block @i of @chain. */
static void paint(uint32_t seq, uint32_t chain, uint32_t first, uint32_t nr)
{
	const struct gpool *gp = &cl.s->sp->gp[0];

	for (uint32_t i = 0; i < nr; i++) {
		uint32_t *p = core_mem(gp, (uint32_t)seq_row(&cl.s->st, seq, 0)[first + i], 0, 0);

		for (uint32_t k = 0; k < BLOCK / 4; k++)
			p[k] = chain << 20 ^ (first + i) << 10 ^ k;
	}
}

static void check_paint(uint32_t seq, uint32_t chain, uint32_t nr)
{
	const struct gpool *gp = &cl.s->sp->gp[0];

	for (uint32_t i = 0; i < nr; i++) {
		int32_t slot = seq_row(&cl.s->st, seq, 0)[i];
		const uint32_t *p = core_mem(gp, (uint32_t)slot, 0, 0);

		quiet_assert_int_gt(slot, 0);
		for (uint32_t k = 0; k < BLOCK / 4; k++)
			quiet_assert_uint_eq(p[k], chain << 20 ^ i << 10 ^ k);
	}
}

static int32_t close_seq(uint32_t seq)
{
	struct kvmd_sqe e = core_op(KVMD_OP_SEQ_CLOSE, seq);

	return core_do(&cl, &e).res;
}

/* A chain of @nr painted blocks, published and closed. */
static void make_chain(uint32_t chain, uint32_t nr)
{
	uint8_t keys[KVMD_KEY_BYTES * 64];
	struct kvmd_sqe e;

	core_keys(chain, 0, nr, keys);
	e = core_open(&cl, 0, keys, nr);
	ck_assert_int_ge(core_do(&cl, &e).res, 0);
	e = core_extend(0, nr - cl.s->st.seq[0].len[0]);
	ck_assert_int_ge(core_do(&cl, &e).res, 0);
	paint(0, chain, 0, nr);
	e = core_publish(&cl, 0, 0, keys, nr);
	ck_assert_int_eq(core_do(&cl, &e).res, (int)nr);
	ck_assert_int_eq(close_seq(0), 0);
	core_walk(&c);
}

static struct kvmd_cqe open_all(uint32_t seq, uint32_t chain, uint32_t nr, uint16_t flags)
{
	uint8_t keys[KVMD_KEY_BYTES * 64];
	struct kvmd_sqe e;

	core_keys(chain, 0, nr, keys);
	e = core_open(&cl, seq, keys, nr);
	e.flags |= flags;
	return core_do(&cl, &e);
}

/* ------------------------------------------------------------------- RAM */

START_TEST(hbm_full_goes_to_ram_and_comes_back)
{
	struct kvmd_cqe q;

	start_ram(16);
	for (uint32_t i = 1; i <= 6; i++)
		make_chain(i, 8);
	ck_assert_uint_eq(stat_get(BLOCKS_SUNK_RAM), 32);
	for (uint32_t i = 1; i <= 6; i++) {
		q = open_all(1, i, 8, KVMD_OPEN_LOAD | KVMD_OPEN_WAIT);
		ck_assert_int_eq(q.res, 8);
		ck_assert_uint_eq(q.v0, 0);
		check_paint(1, i, 8);
		core_walk(&c);
		ck_assert_int_eq(close_seq(1), 0);
	}
	ck_assert_uint_ge(stat_get(TOKENS_RAM), 32);
	stop();
}
END_TEST

START_TEST(an_open_without_load_looks_only_at_hbm)
{
	struct kvmd_cqe q;

	start_ram(16);
	for (uint32_t i = 1; i <= 4; i++)
		make_chain(i, 8);
	q = open_all(1, 1, 8, 0);
	ck_assert_int_eq(q.res, 0);
	ck_assert_uint_eq(q.v2, KVMD_MISS_EVICTED);
	stop();
}
END_TEST

START_TEST(publish_of_what_ram_has_refills_it)
{
	start_ram(16);
	for (uint32_t i = 1; i <= 4; i++)
		make_chain(i, 8);
	make_chain(1, 8);		/* recomputed: opened without LOAD */
	ck_assert_int_eq(open_all(1, 1, 8, 0).res, 8);
	check_paint(1, 1, 8);
	stop();
}
END_TEST

START_TEST(a_flipped_bit_in_ram_is_a_miss)
{
	struct kvmd_cqe q;
	uint32_t ram = 0;

	start_ram(16);
	for (uint32_t i = 1; i <= 4; i++)
		make_chain(i, 8);
	for (uint32_t id = 1; id < c.d->pool->next_fresh && !ram; id++) {
		const struct block *b = pool_block(c.d->pool, id);

		if (b->state == BLK_SEALED && !b->slot && b->pos == 3)
			ram = b->ram;
	}
	ck_assert_uint_ne(ram, 0);
	((char *)ram_mem(c.d->tiers->ram, ram))[77] ^= 4;
	for (uint32_t i = 1; i <= 4; i++) {
		q = open_all(1, i, 8, KVMD_OPEN_LOAD | KVMD_OPEN_WAIT);
		ck_assert(q.res == 8 || q.res == 3);
		check_paint(1, i, (uint32_t)q.res);
		core_walk(&c);
		close_seq(1);
	}
	ck_assert_uint_eq(stat_get(CHECKSUM_ERRORS), 1);
	stop();
}
END_TEST

/* Chain @chain's block @pos leaves HBM, and its bytes in RAM get a flipped bit. */
static uint32_t flip_in_ram(uint32_t pos)
{
	for (uint32_t id = 1; id < c.d->pool->next_fresh; id++) {
		const struct block *b = pool_block(c.d->pool, id);

		if (b->state != BLK_SEALED || b->slot || b->pos != pos || !b->ram)
			continue;
		((char *)ram_mem(c.d->tiers->ram, b->ram))[5] ^= 1;
		return b->ram;
	}
	return 0;
}

START_TEST(a_ram_place_that_fails_twice_is_bad)
{
	struct ram_info i;
	uint32_t chain = 1, nr = 0, bad = 0, place;

	start_ram(16);
	for (; chain <= 4; chain++)
		make_chain(chain, 8);
	for (int n = 0; n < 40 && nr < 2; n++, chain++) {
		place = flip_in_ram(7);
		ck_assert_uint_ne(place, 0);
		/* Whose it was finds out; the place is free, and last freed is first used. */
		for (uint32_t k = 1; k < chain; k++) {
			open_all(1, k, 8, KVMD_OPEN_LOAD | KVMD_OPEN_WAIT);
			close_seq(1);
		}
		nr += !bad || place == bad;
		bad = bad ? bad : place;
		ram_get_info(c.d->tiers->ram, &i);
		ck_assert_uint_eq(i.nr_bad, nr == 2);
		make_chain(chain, 8);
	}
	ck_assert_uint_eq(i.nr_bad, 1);
	stop();
}
END_TEST

START_TEST(swap_out_and_in)
{
	struct kvmd_sqe e;

	start_ram(16);
	make_chain(1, 8);
	ck_assert_int_eq(open_all(1, 1, 8, 0).res, 8);
	e = core_extend(1, 3);
	ck_assert_int_eq(core_do(&cl, &e).res, 3);
	paint(1, 1, 8, 3);
	e = core_op(KVMD_OP_SEQ_SWAP_OUT, 1);
	ck_assert_int_eq(core_do(&cl, &e).res, 11);
	core_walk(&c);
	ck_assert_uint_eq(cl.s->sp->gp[0].nr_free, 16);
	e = core_extend(1, 1);
	ck_assert_int_eq(core_do(&cl, &e).res, -EBUSY);
	make_chain(2, 8);
	make_chain(3, 8);
	e = core_op(KVMD_OP_SEQ_SWAP_IN, 1);
	ck_assert_int_eq(core_do(&cl, &e).res, 11);
	check_paint(1, 1, 11);
	core_walk(&c);
	close_seq(1);
	stop();
}
END_TEST

/* ------------------------------------------------------------------ disk */

START_TEST(through_disk_and_back)
{
	struct kvmd_cqe q;

	make_dir();
	start_disk(16, "ram.bytes=16M");
	ram_resize(c.d->tiers->ram, 2 << 20);
	core_quiet(&c);
	/* 2 MiB of RAM are 512 blocks: 40 chains of 32 do not fit. */
	for (uint32_t i = 1; i <= 80; i++)
		make_chain(i, 16);
	core_quiet(&c);
	ck_assert_uint_gt(stat_get(BLOCKS_STORED), 300);
	ck_assert_uint_gt(stat_get(BLOCKS_SUNK_DISK), 100);
	for (uint32_t i = 1; i <= 80; i++) {
		q = open_all(1, i, 16, KVMD_OPEN_LOAD | KVMD_OPEN_WAIT);
		ck_assert_int_eq(q.res, 16);
		check_paint(1, i, 16);
		close_seq(1);
	}
	ck_assert_uint_gt(stat_get(TOKENS_DISK), 0);
	stop();
	drop_dir();
}
END_TEST

START_TEST(a_store_that_waits_does_not_put_off_a_drain)
{
	struct tiers *t;
	struct kvmd_sqe e;
	uint64_t now;

	make_dir();
	start_disk(16, "ram.bytes=16M");
	make_chain(1, 8);
	ck_assert_int_eq(open_all(1, 1, 8, 0).res, 8);
	e = core_op(KVMD_OP_SEQ_SWAP_OUT, 1);
	ck_assert_int_eq(core_do(&cl, &e).res, 8);
	core_quiet(&c);
	/* RAM is to be emptied of what is held, and something is to be stored in a second. */
	t = c.d->tiers;
	t->ram->draining = true;
	now = clock_ns();
	t->ahead_ns = now + 1000000000;
	t->arrived_tail++;
	while (tiers_turn(t, now))
		;
	ck_assert_uint_gt(t->ram->used_bytes, 0);
	ck_assert_uint_gt(t->retry_ns, 0);
	ck_assert_uint_lt(t->retry_ns, t->ahead_ns);
	t->ram->draining = false;
	core_quiet(&c);
	e = core_op(KVMD_OP_SEQ_SWAP_IN, 1);
	ck_assert_int_eq(core_do(&cl, &e).res, 8);
	check_paint(1, 1, 8);
	close_seq(1);
	stop();
	drop_dir();
}
END_TEST

START_TEST(a_restart_finds_what_disk_has)
{
	uint32_t found = 0;

	make_dir();
	start_disk(16, "ram.bytes=16M");
	for (uint32_t i = 1; i <= 20; i++)
		make_chain(i, 16);
	core_quiet(&c);
	ck_assert_uint_gt(stat_get(BLOCKS_STORED), 200);
	stop();
	start_disk(16, "ram.bytes=16M");
	core_quiet(&c);
	for (uint32_t i = 1; i <= 20; i++) {
		struct kvmd_cqe q = open_all(1, i, 16, KVMD_OPEN_LOAD | KVMD_OPEN_WAIT);

		ck_assert_int_ge(q.res, 0);
		check_paint(1, i, (uint32_t)q.res);
		found += (uint32_t)q.res;
		core_walk(&c);
		close_seq(1);
	}
	ck_assert_uint_gt(found, 200);
	stop();
	drop_dir();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("tiers");
	TCase *tc = tcase_create("tiers");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, hbm_full_goes_to_ram_and_comes_back);
	tcase_add_test(tc, an_open_without_load_looks_only_at_hbm);
	tcase_add_test(tc, publish_of_what_ram_has_refills_it);
	tcase_add_test(tc, a_flipped_bit_in_ram_is_a_miss);
	tcase_add_test(tc, a_ram_place_that_fails_twice_is_bad);
	tcase_add_test(tc, swap_out_and_in);
	tcase_add_test(tc, through_disk_and_back);
	tcase_add_test(tc, a_store_that_waits_does_not_put_off_a_drain);
	tcase_add_test(tc, a_restart_finds_what_disk_has);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
