/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_cuda_holds.c - no copy of the daemon touches a block that somebody holds.
 *
 * The fake driver is told which blocks an engine reads and writes, and for how long:
 * as a GPU's step would, until the step is complete, after the sequence was closed.
 * Any copy of another process that writes what is read, or touches what is written,
 * is a violation, which hd_stop() looks for. The pool is so small that blocks go to
 * RAM and come back all the time. That violations are seen, gpu/check_fakecuda shows.
 */
#include "tests/fakecuda/fakecuda.h"
#include "tests/harness.h"
#include "tests/suite.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include <kvmd/cuda_abi.h>

#define POOL	"[pool]\npolicy = lru\nslab_bytes = 32K\nblocks = 4096\nwmark_low = 10%\n" \
		"wmark_high = 30%\nclean_ahead = 50%\n"
#define GPU	"[device gpu]\nkind = cuda\n"
#define RAM	"[ram]\nbytes = 16M\nlock = no\nhugetlb = no\n"
#define SLOTS	24u
#define CHAIN	8u
#define CHAINS	12u
#define ROUNDS	120u

static struct hd d;

static void *fake_function(const char *name)
{
	void *so = dlopen(CU_LIBRARY, RTLD_NOW | RTLD_NOLOAD), *sym = so ? dlsym(so, name) : NULL;

	T(sym);
	return sym;
}

static void hold(struct kvc *k, int32_t slot, bool write)
{
	void *sym = fake_function("fakecuda_hold");
	int (*fn)(uint64_t, size_t, bool);
	const struct kvc_view *v = kvc_view(k);

	memcpy(&fn, &sym, sizeof(fn));
	T_EQ(fn((uint64_t)(uintptr_t)kvc_addr_ro(v, 0, 0, 0, (uint32_t)slot),
		v->group[0].plane_bytes, write), 0);
}

static void unhold(struct kvc *k, int32_t slot)
{
	void *sym = fake_function("fakecuda_unhold");
	int (*fn)(uint64_t);

	memcpy(&fn, &sym, sizeof(fn));
	T_EQ(fn((uint64_t)(uintptr_t)kvc_addr_ro(kvc_view(k), 0, 0, 0, (uint32_t)slot)), 0);
}

/* Close as an engine does whose last step still runs; it reads until that is over. */
static void close_behind(struct kvc *k, const int32_t *slot, uint64_t step)
{
	struct kvmd_sqe *e;

	kvc_step_submit(k, step);
	e = kvc_get_sqe(k);
	T(e);
	kvc_prep_close(e, 1, 1, step, 0);
	e->user_data = step;
	T(kvc_submit(k) >= 0);
	/* The daemon is asked for other things meanwhile. */
	for (uint32_t i = 0; i < 4; i++)
		T_EQ(kvc_nop(k), 0);
	for (uint32_t i = 0; i < CHAIN; i++)
		unhold(k, slot[i]);
	kvc_step_complete(k, 0, step);
	T_EQ(take_for(k, step).res, 0);
}

static void one_round(struct kvc *k, uint32_t chain, uint64_t step)
{
	unsigned char keys[CHAIN][KEY];
	int32_t slot[CHAIN];
	int hit;

	make_keys(keys, chain, 0, CHAIN);
	hit = kvc_seq_open(k, 1, 1, keys, CHAIN, CHAIN * BT, 0, 0, NULL);
	T(hit >= 0);
	for (uint32_t i = 0; i < (uint32_t)hit; i++)
		hold(k, slot_at(k, 0, 1, i), false);
	if ((uint32_t)hit < CHAIN) {
		uint32_t nr = CHAIN - (uint32_t)hit;

		T_EQ(kvc_seq_extend(k, 1, 1, 0, nr, 0, WAIT_NS, NULL), nr);
		for (uint32_t i = (uint32_t)hit; i < CHAIN; i++) {
			hold(k, slot_at(k, 0, 1, i), true);
			fill(k, 0, (uint32_t)slot_at(k, 0, 1, i), ((uint64_t)chain << 8) + i);
		}
		/* Written: from here on it is read, by us and by whoever finds it. */
		for (uint32_t i = (uint32_t)hit; i < CHAIN; i++)
			unhold(k, slot_at(k, 0, 1, i));
		T(kvc_seq_publish(k, 1, 1, 0, (uint32_t)hit, keys[hit], nr, 0, NULL) >= 0);
		for (uint32_t i = (uint32_t)hit; i < CHAIN; i++)
			hold(k, slot_at(k, 0, 1, i), false);
	}
	for (uint32_t i = 0; i < CHAIN; i++) {
		slot[i] = slot_at(k, 0, 1, i);
		T(holds(k, 0, (uint32_t)slot[i], ((uint64_t)chain << 8) + i));
	}
	close_behind(k, slot, step);
}

static void engine(struct peer *me, struct hd *hd, void *arg)
{
	struct kvc *k = plain_client(hd, "sp", SLOTS);
	uint64_t rnd = *(uint64_t *)arg;

	for (uint32_t i = 1; i <= ROUNDS; i++)
		one_round(k, (uint32_t)(test_random(&rnd) % CHAINS), i);
	say(me, 1);
	hear(me);
	kvc_destroy(k);
}

START_TEST(no_copy_touches_what_an_engine_holds)
{
	uint64_t seed = test_seed(), second = ~seed;
	struct peer a, b;

	if (!test_only_fake())
		return;
	hd_start(&d, POOL GPU RAM);
	peer_start(&a, &d, engine, &seed, sizeof(seed));
	peer_start(&b, &d, engine, &second, sizeof(second));
	T_EQ(hear(&a), 1);
	T_EQ(hear(&b), 1);
	T(hd_stat(&d, "blocks_loaded") > ROUNDS);
	T(hd_stat(&d, "blocks_cleaned") > CHAIN * CHAINS / 2);
	T(hd_stat(&d, "dev_copied_out_bytes") > 0);
	hd_check(&d);
	say(&a, 0);
	say(&b, 0);
	peer_end(&a);
	peer_end(&b);
	hd_stop(&d);		/* and no violation was written down */
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cuda_holds");
	TCase *t = suite_group(s, "holds", NULL, NULL);

	setenv("KVMD_TEST_DEVICE", "cuda", 1);
	tcase_add_test(t, no_copy_touches_what_an_engine_holds);
	return suite_run(s);
}
