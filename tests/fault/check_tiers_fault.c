/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_tiers_fault.c - I/O that fails, memory that is short, devices that are
 * slow or full, under a daemon that serves all the while.
 *
 * After each: no wrong byte, free + used + bad = total in each tier, nothing is
 * left when all is let go of, and a fault of the file is said with its place.
 */
#include "tests/fault/tiers_rig.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "kvmd/lib/fault.h"
#include "kvmd/lib/stats.h"

#define CHAINS	16u		/* 128 blocks: HBM and RAM hold 88 */

static struct trig r;

static void setup(void)
{
	trig_init(&r);
}

static void teardown(void)
{
	fault_disarm();
	trig_exit(&r);
}

static void arm(const char *spec)
{
	char msg[256];

	ck_assert_msg(!fault_arm(spec, msg, sizeof(msg)), "%s", msg);
}

/* Everything is as it should be, and all can be let go of. */
static void end(void)
{
	fault_disarm();
	trig_serve(&r, 1, CHAINS);
	trig_empty(&r);
	trig_stop(&r);
}

/* ----------------------------------------------------------------- I/O and copies */

static const struct {
	const char *spec;
	enum fault_site site;
	bool said;			/* the log names file and offset */
} faults[] = {
	{ "short:every=1", FAULT_SHORT, false },
	{ "short:every=3", FAULT_SHORT, false },
	{ "read:every=3", FAULT_READ, true },
	{ "read:every=1", FAULT_READ, true },
	{ "write:every=3", FAULT_WRITE, true },
	{ "write:every=1", FAULT_WRITE, true },
	{ "sync:every=1", FAULT_SYNC, false },
	{ "copy:every=7", FAULT_COPY, false },
	{ "tier-alloc:every=2", FAULT_TIER_ALLOC, false },
	{ "tier-alloc:every=1", FAULT_TIER_ALLOC, false },
	{ "read:every=5;write:every=7;short:every=2;copy:every=11;tier-alloc:every=13",
	  FAULT_READ, true },
};

START_TEST(it_goes_on_while_this_fails)
{
	char at[128];

	trig_keep_log(&r);
	trig_start(&r);
	/* Seals are synced a second apart: the first one is. */
	if (faults[_i].site == FAULT_SYNC)
		arm(faults[_i].spec);
	trig_serve(&r, 1, CHAINS);
	if (faults[_i].site != FAULT_SYNC)
		arm(faults[_i].spec);
	for (uint32_t n = 1; n < 4; n++) {
		trig_serve(&r, 1, CHAINS);
		trig_serve(&r, 1 + n * CHAINS, CHAINS / 2);
	}
	ck_assert_uint_gt(fault_nr_hits(faults[_i].site), 0);
	fault_disarm();
	snprintf(at, sizeof(at), "tiers: %s: ", r.path);
	ck_assert_int_eq(trig_said(&r, at, " at offset "), faults[_i].said);
	end();
}
END_TEST

/* What short counts cut into pieces is whole, here and after a restart. */
START_TEST(short_counts_lose_nothing)
{
	trig_start(&r);
	arm("short:every=2");
	trig_serve(&r, 1, CHAINS);
	ck_assert_uint_eq(trig_serve(&r, 1, CHAINS), CHAINS * CHAIN);
	ck_assert_uint_gt(stat_get(TOKENS_DISK), 0);
	ck_assert_uint_eq(stat_get(MOVES_FAILED), 0);
	trig_stop(&r);
	trig_start(&r);
	ck_assert_uint_gt(trig_serve(&r, 1, CHAINS), CHAINS * CHAIN / 2);
	end();
}
END_TEST

/* Writes that fail again and again: no more are tried, reads go on, until a restart. */
START_TEST(a_disk_that_takes_nothing_any_more)
{
	trig_start(&r);
	trig_serve(&r, 1, CHAINS);
	arm("write:every=1");
	trig_serve(&r, CHAINS + 1, CHAINS);
	ck_assert(r.c.d->tiers->disk->broken);
	fault_disarm();
	trig_serve(&r, 1, CHAINS);
	trig_stop(&r);
	trig_start(&r);
	ck_assert(!r.c.d->tiers->disk->broken);
	ck_assert_uint_gt(trig_serve(&r, 1, CHAINS), 0);
	trig_empty(&r);
	trig_stop(&r);
}
END_TEST

/* -------------------------------------------------------------------- a full disk */

START_TEST(no_room_for_the_file)
{
	unsigned fds, maps;

	trig_opt(&r, "disk.bytes=24M");
	trig_start(&r);			/* what a first start leaves behind for good */
	trig_stop(&r);
	unlink(r.path);
	fds = core_nr_fds();
	maps = core_nr_maps();
	trig_keep_log(&r);
	trig_opt(&r, "disk.bytes=8T");
	ck_assert_int_lt(trig_try(&r), 0);
	ck_assert_int_ne(access(r.path, F_OK), 0);
	ck_assert(trig_said(&r, r.path, "8796093022208"));
	ck_assert_uint_eq(core_nr_fds(), fds);
	ck_assert_uint_eq(core_nr_maps(), maps);
}
END_TEST

/* The kernel itself refuses to write from some offset on. */
START_TEST(writes_behind_the_limit_fail)
{
	struct rlimit old, rl;

	trig_keep_log(&r);
	trig_start(&r);
	trig_serve(&r, 1, 4);
	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
	rl = old;
	rl.rlim_cur = 4 << 20;
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &rl), 0);
	for (int n = 0; n < 3; n++)
		trig_serve(&r, 1, CHAINS * 2);
	ck_assert_uint_gt(stat_get(MOVES_FAILED), 0);
	ck_assert(trig_said(&r, r.path, " at offset ") &&
		  trig_said(&r, "not written at disk place ", strerror(EFBIG)));
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
	trig_empty(&r);
	trig_stop(&r);
}
END_TEST

/* More than fits: old segments are emptied for new blocks, what is used again stays. */
START_TEST(a_full_disk_is_compacted)
{
	trig_start(&r);
	for (uint32_t i = 0; i < 14; i++) {
		trig_serve(&r, 1, 2);
		trig_serve(&r, 3 + i * 8, 8);
	}
	ck_assert_uint_gt(stat_get(BYTES_STORED), 24u << 20);
	ck_assert_uint_gt(stat_get(BLOCKS_DROPPED_DISK), 0);
	trig_stop(&r);
	trig_start(&r);
	ck_assert_uint_gt(trig_count(&r, 1, 2 + 14 * 8), 200);
	trig_empty(&r);
	trig_stop(&r);
}
END_TEST

START_TEST(a_full_disk_that_fails)
{
	trig_start(&r);
	arm("read:every=9;write:every=12;short:every=5;sync:every=2");
	for (uint32_t i = 0; i < 14; i++) {
		trig_serve(&r, 1, 2);
		trig_serve(&r, 3 + i * 8, 8);
	}
	fault_disarm();
	trig_serve(&r, 1, 2 + 14 * 8);
	trig_empty(&r);
	trig_stop(&r);
}
END_TEST

/* ------------------------------------------------------------------- a slow disk */

/* The answer to @e; nobody waits for the disk. */
static struct kvmd_cqe at_once(struct kvmd_sqe e)
{
	struct kvmd_cqe q;

	core_submit(&r.cl, &e);
	while (!core_take(&r.cl, &q))
		core_turn(&r.c);
	core_ok_msg(q.res >= 0, "entry %u: %d", e.opcode, q.res);
	return q;
}

/* Requests for what HBM has, and copies to RAM, do not wait for writes to disk. */
START_TEST(a_slow_disk_holds_nobody_up)
{
	const struct tiers *t;
	uint8_t keys[KVMD_KEY_BYTES * CHAIN];
	uint32_t opens = 0, cleans = 0;

	trig_opt(&r, "disk.test=delay:20ms");
	trig_start(&r);
	t = r.c.d->tiers;
	for (uint32_t i = 1; i <= CHAINS; i++) {
		uint64_t cleaned = stat_get(BLOCKS_CLEANED);
		bool busy = t->store.inflight;

		core_keys(i, 0, CHAIN, keys);
		at_once(core_op(KVMD_OP_SEQ_OPEN, 0));
		at_once(core_extend(0, CHAIN));
		for (uint32_t k = 0; k < CHAIN; k++)
			trig_paint(&r, 0, i, k);
		at_once(core_publish(&r.cl, 0, 0, keys, CHAIN));
		cleans += busy && t->store.inflight && stat_get(BLOCKS_CLEANED) > cleaned;
		core_ok(at_once(core_open(&r.cl, 1, keys, CHAIN)).res == (int)CHAIN);
		opens += t->store.inflight != 0;
		trig_prove(&r, 1, i, CHAIN);
		at_once(core_op(KVMD_OP_SEQ_CLOSE, 1));
		at_once(core_op(KVMD_OP_SEQ_CLOSE, 0));
		core_walk(&r.c);
	}
	ck_assert_uint_gt(opens, 0);
	ck_assert_uint_gt(cleans, 0);
	end();
}
END_TEST

/* ------------------------------------------------------------------- RAM is short */

/* Swapped-out sequences hold all of RAM: nothing can go, and nothing is wrong. */
START_TEST(ram_is_full_of_what_cannot_go)
{
	uint32_t nr = 0;
	struct kvmd_sqe e;
	int32_t res = 0;

	r.disk = _i;
	trig_start(&r);
	for (; nr < 12 && res >= 0; nr++) {
		e = core_open(&r.cl, 1 + nr, NULL, 0);
		core_ok(trig_ask(&r, &e).res == 0);
		e = core_extend(1 + nr, CHAIN);
		core_ok(trig_ask(&r, &e).res == (int)CHAIN);
		for (uint32_t i = 0; i < CHAIN; i++)
			trig_paint(&r, 1 + nr, 100 + nr, i);
		e = core_op(KVMD_OP_SEQ_SWAP_OUT, 1 + nr);
		res = trig_ask(&r, &e).res;
		core_ok_msg(res == (int)CHAIN || res == -ENOSPC, "swap out: %d", res);
		core_walk(&r.c);
	}
	ck_assert_int_eq(res, -ENOSPC);
	ck_assert_uint_eq(nr, 9);	/* eight fill 2 MiB */
	trig_prove(&r, nr, 100 + nr - 1, CHAIN);
	trig_serve(&r, 1, CHAINS);
	ck_assert_uint_gt(stat_get(CLEAN_REFUSED_FULL), 0);
	trig_close(&r, nr);
	for (uint32_t i = 1; i < nr; i++) {
		e = core_op(KVMD_OP_SEQ_SWAP_IN, i);
		core_ok(trig_ask(&r, &e).res == (int)CHAIN);
		trig_prove(&r, i, 100 + i - 1, CHAIN);
		trig_close(&r, i);
		core_walk(&r.c);
	}
	end();
}
END_TEST

/* All that HBM has is held: who wants more is told, who has it keeps it. */
START_TEST(hbm_and_ram_are_held)
{
	struct kvmd_sqe e;

	r.disk = false;
	trig_start(&r);
	trig_serve(&r, 1, CHAINS);
	for (uint32_t i = 0; i < 3; i++)
		trig_hold(&r, 1 + i, 1 + i);
	e = core_open(&r.cl, 5, NULL, 0);
	core_ok(trig_ask(&r, &e).res == 0);
	e = core_extend(5, 1);
	e.flags = KVMD_EXTEND_NOWAIT;
	core_ok(trig_ask(&r, &e).res < 0);
	core_walk(&r.c);
	for (uint32_t i = 0; i < 3; i++) {
		trig_prove(&r, 1 + i, 1 + i, CHAIN);
		trig_close(&r, 1 + i);
	}
	e = core_extend(5, 1);
	core_ok(trig_ask(&r, &e).res == 1);
	trig_close(&r, 5);
	end();
}
END_TEST

static const struct {
	const char *spec, *said;
	bool none;			/* there is no RAM tier at all then */
} chunks[] = {
	{ "lock:every=1", "is used unlocked: mlock: ", false },
	{ "lock:nth=1", "is used unlocked: mlock: ", false },
	{ "register:every=1", "is no fixed buffer: ", false },
	{ "register:nth=1", "is no fixed buffer: ", false },
	{ "chunk:every=1", " of 1 could not be made: ", true },
	{ "chunk:nth=1", " of 1 could not be made: ", true },
};

START_TEST(chunks_that_cannot_be_had)
{
	trig_keep_log(&r);
	trig_opt(&r, "ram.lock=yes");
	r.disk = _i % 2;
	arm(chunks[_i].spec);
	trig_start(&r);
	ck_assert_msg(trig_said(&r, "tiers: chunk ", chunks[_i].said), "not said: %s",
		      chunks[_i].said);
	for (int n = 0; n < 2; n++)
		trig_serve(&r, 1, CHAINS);
	ck_assert_int_eq(!r.c.d->tiers->ram->bytes, chunks[_i].none);
	fault_disarm();
	/* Asked for again, what was missing comes. */
	ck_assert_int_eq(ram_resize(r.c.d->tiers->ram, 2 << 20), 0);
	core_settle(&r.c);
	ck_assert_uint_eq(r.c.d->tiers->ram->bytes, 2 << 20);
	trig_serve(&r, 1, CHAINS);
	ck_assert_uint_gt(stat_get(BLOCKS_CLEANED), 0);
	end();
}
END_TEST

/* --------------------------------------------------------------------- test tiers */

static const char *const stacks[] = {
	"disk.test=null",
	"disk.test=delay:1ms",
	"disk.test=delay:read=2ms,write=1ms",
	"disk.test=error:read,every=3",
	"disk.test=error:write,every=3",
	"disk.test=error:alloc,every=2",
	"disk.test=error:flip,every=3,seed=5",
	"disk.test=delay:1ms error:read,prob=0.2 error:write,prob=0.2 error:flip,prob=0.2",
	"ram.test=null",
	"ram.test=delay:1ms",
	"ram.test=error:read,every=5",
	"ram.test=error:write,every=5",
	"ram.test=error:alloc,every=3",
	"ram.test=error:flip,every=5,seed=9",
	"ram.test=delay:200us error:read,prob=0.1 error:write,prob=0.1 error:flip,prob=0.1",
};

START_TEST(test_tiers_from_the_config)
{
	trig_start(&r);
	trig_serve(&r, 1, CHAINS);
	trig_stop(&r);
	trig_opt(&r, stacks[_i]);
	trig_start(&r);
	for (uint32_t n = 0; n < 2; n++)
		trig_serve(&r, 1 + n * CHAINS / 2, CHAINS);
	trig_stop(&r);
	/* The same file without them again. */
	r.opt[0] = NULL;
	trig_start(&r);
	trig_serve(&r, 1, CHAINS);
	end();
}
END_TEST

START_TEST(a_bad_word_of_a_stack_is_named)
{
	static const char *const bad[] = { "ram.test=nul", "disk.test=delay:often" };
	unsigned fds, maps;

	trig_start(&r);
	trig_stop(&r);
	fds = core_nr_fds();
	maps = core_nr_maps();
	trig_keep_log(&r);
	trig_opt(&r, bad[_i]);
	ck_assert_int_eq(trig_try(&r), -EINVAL);
	ck_assert(trig_said(&r, "test tier", _i ? "often" : "nul"));
	ck_assert_uint_eq(core_nr_fds(), fds);
	ck_assert_uint_eq(core_nr_maps(), maps);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("tiers_fault");
	TCase *tc = tcase_create("tiers_fault");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, it_goes_on_while_this_fails, 0, ARRAY_SIZE(faults));
	tcase_add_test(tc, short_counts_lose_nothing);
	tcase_add_test(tc, a_disk_that_takes_nothing_any_more);
	tcase_add_test(tc, no_room_for_the_file);
	tcase_add_test(tc, writes_behind_the_limit_fail);
	tcase_add_test(tc, a_full_disk_is_compacted);
	tcase_add_test(tc, a_full_disk_that_fails);
	tcase_add_test(tc, a_slow_disk_holds_nobody_up);
	tcase_add_loop_test(tc, ram_is_full_of_what_cannot_go, 0, 2);
	tcase_add_test(tc, hbm_and_ram_are_held);
	tcase_add_loop_test(tc, chunks_that_cannot_be_had, 0, ARRAY_SIZE(chunks));
	tcase_add_loop_test(tc, test_tiers_from_the_config, 0, ARRAY_SIZE(stacks));
	tcase_add_loop_test(tc, a_bad_word_of_a_stack_is_named, 0, 2);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
