/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_tiers_nth.c - the 1st, 2nd, ... nth call of each of the tiers' fault sites
 * fails, in a life of fill, eviction, load, swap, stop and start, until none is
 * hit: no wrong byte, nothing leaked, and the state after it is as before.
 */
#include "tests/fault/tiers_rig.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "kvmd/lib/fault.h"
#include "kvmd/lib/stats.h"

#define CHAINS	7u		/* 21 blocks: HBM and RAM hold 14 */
#define ALL	16u		/* so many one by one, then fewer and fewer */

static struct trig r;

static const enum fault_site sites[] = {
	FAULT_TIER_ALLOC, FAULT_COPY, FAULT_READ, FAULT_WRITE, FAULT_CHUNK, FAULT_LOCK,
	FAULT_REGISTER, FAULT_SYNC, FAULT_SHORT,
};

static void swap(void)
{
	struct kvmd_sqe e;
	int32_t out, in;

	trig_hold(&r, 1, 1);
	e = core_extend(1, 1);
	core_ok(trig_ask(&r, &e).res == 1);
	trig_paint(&r, 1, 1, r.chain);
	e = core_op(KVMD_OP_SEQ_SWAP_OUT, 1);
	out = trig_ask(&r, &e).res;
	core_walk(&r.c);
	core_ok_msg(out == (int)r.chain + 1 || out == -EIO || out == -ENOSPC, "swap out: %d", out);
	if (out >= 0) {
		trig_serve(&r, 2, 1);
		e = core_op(KVMD_OP_SEQ_SWAP_IN, 1);
		in = trig_ask(&r, &e).res;
		core_walk(&r.c);
		core_ok_msg(in == out || in == -EIO, "swap in: %d", in);
		out = in;
	}
	if (out >= 0 || out == -ENOSPC)
		trig_prove(&r, 1, 1, r.chain + 1);
	trig_close(&r, 1);
}

static void life(void)
{
	trig_start(&r);
	trig_serve(&r, 1, CHAINS);
	trig_serve(&r, 1, 3);
	swap();
	trig_stop(&r);
	trig_start(&r);
	trig_count(&r, 1, CHAINS);
	trig_serve(&r, 1, 2);
}

START_TEST(the_nth_fails)
{
	const char *site = fault_name(sites[_i]);
	unsigned fds = 0, maps = 0, nr = 0;
	uint64_t hits = 1;
	char spec[64];

	trig_init(&r);
	r.chain = 3;
	r.block = 256 << 10;
	r.slots = 6;
	trig_opt(&r, "ram.lock=yes");
	trig_opt(&r, "disk.bytes=16M");
	for (unsigned n = 0; hits; n += n < ALL ? 1 : n / 4) {
		/* The first life is without a fault: how much remains open afterwards? */
		snprintf(spec, sizeof(spec), "%s:nth=%u", site, n);
		if (n)
			ck_assert_int_eq(fault_arm(spec, NULL, 0), 0);
		life();
		hits = n ? fault_nr_hits(sites[_i]) : 1;
		fault_disarm();
		trig_empty(&r);
		trig_stop(&r);
		unlink(r.path);
		if (!n) {
			fds = core_nr_fds();
			maps = core_nr_maps();
		}
		ck_assert_uint_eq(core_nr_fds(), fds);
		ck_assert_uint_eq(core_nr_maps(), maps);
		nr += n && hits;
	}
	printf("%s: %u\n", site, nr);
	ck_assert_uint_gt(nr, 0);
	trig_exit(&r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("tiers_nth");
	TCase *tc = tcase_create("tiers_nth");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, the_nth_fails, 0, ARRAY_SIZE(sites));
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
