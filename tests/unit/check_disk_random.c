// SPDX-License-Identifier: Apache-2.0
/*
 * check_disk_random.c - the disk tier under random operations, faults and restarts.
 *
 * What is known of each block is what its owner was told. A block that was
 * written and told, and neither freed nor lost, is there with its bytes, also
 * after a kill; one that was forgotten, or of an older epoch, never is. The
 * seed is printed when something is wrong; KVMD_SEED=n runs that one alone,
 * KVMD_SEEDS=n so many.
 */
#include "disk_rig.h"

#include <stdio.h>
#include <unistd.h>

#include "kvmd/lib/fault.h"
#include "kvmd/tier/disk_int.h"
#include "tests/quiet.h"
#include "tests/suite.h"

#define NR_BLOCKS	600u
#define NR_REQS		8u
#define NR_OPS		1500u
#define NR_SEEDS	6u

enum fate {
	F_NONE,			/* never written, or known to be gone */
	F_WRITING,
	F_THERE,		/* must be there */
	F_MAYBE,		/* freed: a restart may bring it back */
	F_NEVER,		/* must not come back: forgotten, or of an old epoch */
};

static struct drig r;
static uint32_t seed;
static uint64_t rnd_state, epoch;
static uint8_t fate[NR_BLOCKS + 1];
static struct drig_req req[NR_REQS];
static bool req_used[NR_REQS], req_reads[NR_REQS];

static uint32_t rnd(uint32_t below)
{
	rnd_state ^= rnd_state << 13;
	rnd_state ^= rnd_state >> 7;
	rnd_state ^= rnd_state << 17;
	return (uint32_t)(rnd_state >> 20) % below;
}

static bool is_busy(uint32_t n)
{
	for (unsigned i = 0; i < NR_REQS; i++)
		if (req_used[i] && req[i].r.block == n)
			return true;
	return false;
}

static void end_of(unsigned i)
{
	uint32_t n = req[i].r.block;
	int err = req[i].r.err;
	uint8_t *want;

	req_used[i] = false;
	if (!req_reads[i]) {
		if (fate[n] != F_WRITING)
			return;			/* freed under way */
		fate[n] = err ? F_MAYBE : F_THERE;
		if (err)
			r.rec[n].place = 0;
		ck_assert_msg(!err || err == -EIO, "seed %u: write of %u: %d", seed, n, err);
		return;
	}
	/* Gone before the read began: freed, or its segment was needed. */
	ck_assert_msg(!err || err == -EIO || (err == -ENODATA && !r.rec[n].place),
		      "seed %u: read of %u: %d, fate %u", seed, n, err, fate[n]);
	if (err)
		return;
	want = malloc(r.block_bytes);
	drig_bytes(n, want, r.block_bytes);
	ck_assert_msg(!memcmp(want, req[i].r.mem, r.block_bytes), "seed %u: bytes of %u", seed, n);
	free(want);
}

static void step(void)
{
	drig_step(&r);
	for (unsigned i = 0; i < NR_REQS; i++)
		if (req_used[i] && req[i].over)
			end_of(i);
	/* What compaction or a failed read took. */
	for (uint32_t n = 1; n <= NR_BLOCKS; n++)
		if (fate[n] == F_THERE && !r.rec[n].place)
			fate[n] = F_MAYBE;
}

static void settle(void)
{
	for (;;) {
		unsigned busy = 0;

		step();
		for (unsigned i = 0; i < NR_REQS; i++)
			busy += req_used[i];
		if (!busy)
			break;
	}
	drig_quiet(&r);
	for (uint32_t n = 1; n <= NR_BLOCKS; n++)
		if (fate[n] == F_THERE && !r.rec[n].place)
			fate[n] = F_MAYBE;
	drig_check(&r);
}

static void op_write(unsigned i)
{
	uint32_t n = 1 + rnd(NR_BLOCKS);

	if (r.rec[n].place || is_busy(n))
		return;
	drig_block(&r, n, 0, 0);
	r.rec[n].keep = rnd(4) == 0;
	if (!drig_write_start(&r, &req[i], n, i * r.block_bytes))
		return;
	req_used[i] = true;
	req_reads[i] = false;
	fate[n] = F_WRITING;
}

static void op_read(unsigned i)
{
	uint32_t n = 1 + rnd(NR_BLOCKS);

	if (fate[n] != F_THERE || !r.rec[n].place)
		return;
	drig_read_start(&r, &req[i], n, i * r.block_bytes);
	req[i].r.urgent = rnd(2);
	req_used[i] = true;
	req_reads[i] = true;
}

static void op_free(void)
{
	uint32_t n = 1 + rnd(NR_BLOCKS);

	if (!r.rec[n].place || (fate[n] == F_WRITING && rnd(2)))
		return;
	if (rnd(3)) {
		drig_free(&r, n);
		fate[n] = F_MAYBE;
	} else {
		disk_forget(r.t, r.rec[n].place);
		r.rec[n].place = 0;
		/* An older copy that was merely freed is not what was forgotten. */
		fate[n] = F_MAYBE;
	}
}

static void op_raise(void)
{
	settle();
	for (uint32_t n = 1; n <= NR_BLOCKS; n++) {
		if (r.rec[n].place)
			drig_free(&r, n);
		if (fate[n] != F_NONE)
			fate[n] = F_NEVER;
	}
	drig_raise(&r, 0, ++epoch);
	ck_assert_msg(!r.raised || r.raised == -EIO, "seed %u", seed);
	if (r.raised) {
		fault_disarm();
		drig_raise(&r, 0, epoch);
		ck_assert_int_eq(r.raised, 0);
	}
}

static void op_restart(void)
{
	uint8_t before[NR_BLOCKS + 1];

	fault_disarm();
	settle();
	memcpy(before, fate, sizeof(before));
	if (rnd(2))
		drig_close(&r, true);
	drig_reopen(&r);
	ck_assert_uint_eq(disk_space_epoch(r.t, "default", "space-0"), epoch);
	drig_space(&r, 0, epoch);
	for (uint32_t n = 1; n <= NR_BLOCKS; n++) {
		bool there = r.rec[n].place;

		quiet_assert_msg(there || before[n] != F_THERE, "seed %u: block %u is gone", seed,
				 n);
		quiet_assert_msg(!there || (before[n] != F_NEVER && before[n] != F_NONE),
				 "seed %u: block %u is back", seed, n);
		if (there)
			quiet_assert_int_eq(drig_read(&r, n), 0);
		fate[n] = there ? F_THERE : before[n] == F_THERE ? F_MAYBE : before[n];
		if (there)
			r.rec[n].keep = rnd(4) == 0;
	}
	drig_check(&r);
}

static void op_faults(void)
{
	char spec[128];

	fault_disarm();
	if (rnd(2))
		return;
	snprintf(spec, sizeof(spec),
		 "short:prob=0.1,seed=%u;write:prob=0.01,seed=%u;read:prob=0.01,seed=%u;"
		 "sync:prob=0.05,seed=%u;tier-alloc:prob=0.02,seed=%u", seed, seed + 1, seed + 2,
		 seed + 3, seed + 4);
	ck_assert_int_eq(fault_arm(spec, NULL, 0), 0);
}

static void run_seed(uint32_t s)
{
	seed = s;
	rnd_state = s * 0x9e3779b97f4a7c15ull + 0x1234567;
	epoch = 1;
	memset(fate, 0, sizeof(fate));
	memset(req_used, 0, sizeof(req_used));
	drig_init(&r);
	drig_files(&r, 1 + rnd(3));
	r.o.bytes = 12 << 20;
	r.o.discard = rnd(2);
	r.o.scrub_rate = rnd(2) ? 100 << 20 : 0;
	drig_open(&r);
	drig_space(&r, 0, epoch);
	for (unsigned k = 0; k < NR_OPS; k++) {
		unsigned i = rnd(NR_REQS), what = rnd(1000);

		if (what < 500 && !req_used[i])
			op_write(i);
		else if (what < 700 && !req_used[i])
			op_read(i);
		else if (what < 760)
			op_free();
		else if (what < 763)
			op_raise();
		else if (what < 768)
			op_restart();
		else if (what < 775)
			op_faults();
		else if (what < 778)
			disk_shrink(r.t);
		else
			step();
		if (r.t->broken)
			op_restart();
	}
	fault_disarm();
	settle();
	drig_exit(&r);
}

static uint32_t number(const char *name, uint32_t other)
{
	const char *v = getenv(name);

	return v ? (uint32_t)strtoul(v, NULL, 10) : other;
}

START_TEST(random_operations)
{
	uint32_t first = number("KVMD_SEED", 0);

	if (first)
		run_seed(first);
	else
		run_seed((uint32_t)_i + 1);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("disk_random");
	TCase *tc = tcase_create("random operations, faults and restarts");

	tcase_add_loop_test(tc, random_operations, 0,
			    number("KVMD_SEED", 0) ? 1 : (int)number("KVMD_SEEDS", NR_SEEDS));
	tcase_set_timeout(tc, 120);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
