/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_session_fuzz.c - random entries through real rings of a real daemon.
 *
 * Two sessions of one space send batches of entries, most of which fit what the
 * sequence looks like, over few sequences and few keys, in a pool that is too
 * small, with steps that come late. Every entry must be answered; then the
 * invariants of pool and index must hold, and when the sessions are gone all
 * memory must be back.
 */
#include "tests/fuzzer.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS	120u

static struct hd d;

/* What operators do meanwhile: drain slabs or leave it; a new epoch now and then. */
static void operate(struct fuzzer *f, uint64_t *rnd)
{
	uint64_t r = test_random(rnd);
	char line[64];

	if (r % 8 == 0) {
		T_EQ(kvc_epoch_raise(f->k, NULL), 0);
		return;
	}
	snprintf(line, sizeof(line), "drain %s slab=%u", r % 4 ? "start" : "stop",
		 (unsigned)(r >> 8) % 10);
	hd_ask(&d, line);
}

static void fuzz(const struct kvc_space *s, const char *policy, uint64_t runs)
{
	uint64_t rnd = test_seed();
	struct fuzzer f[2];
	char conf[512];

	snprintf(conf, sizeof(conf), "[pool]\npolicy = %s\nslab_bytes = 64K\nblocks = 1024\n"
		 "nodes = 256\nticket_timeout = 5ms\nalloc_timeout = 10ms\ndeadlock_time = 1ms\n"
		 "slab_deadline = 5ms\n[tenant default]\npin_bytes = 32K\n", policy);
	hd_start(&d, conf);
	for (unsigned i = 0; i < 2; i++)
		fuzzer_init(&f[i], &d, &rnd, s);
	for (uint64_t done = 0, turn = 0; done < runs; turn++) {
		done += fuzzer_turn(&f[turn % 2], &rnd);
		if (turn % 300 == 299)
			operate(&f[0], &rnd);
		if (turn % 512 == 511) {
			fuzzer_finish(&f[0]);
			fuzzer_finish(&f[1]);
			hd_check(&d);
		}
	}
	fuzzer_finish(&f[0]);
	fuzzer_finish(&f[1]);
	hd_check(&d);
	kvc_destroy(f[0].k);
	kvc_destroy(f[1].k);
}

static void end(const struct kvc_space *s)
{
	struct kvc *k = client(&d, s);

	whole_pool(k, SLOTS);
	kvc_destroy(k);
	hd_stop(&d);
}

static const char *const policies[] = { "density", "lru", "s3fifo" };

START_TEST(plain_space_fuzz)
{
	struct kvc_space s;

	plain_space(&s, "sp", SLOTS);
	fuzz(&s, policies[_i], test_fuzz_runs(40000));
	end(&s);
}
END_TEST

START_TEST(hybrid_space_fuzz)
{
	struct kvc_space s;

	plain_space(&s, "sp", SLOTS);
	s.nr_groups = 3;
	s.nr_shards = 2;
	s.group[1] = s.group[2] = s.group[0];
	s.group[1].rule = KVMD_RULE_WINDOW;
	s.group[1].window = 3 * BT;
	s.group[1].sinks = BT;
	s.group[2].rule = KVMD_RULE_STATE;
	fuzz(&s, policies[_i], test_fuzz_runs(40000));
	end(&s);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("session_fuzz");
	TCase *t = tcase_create("session_fuzz");
	SRunner *r;
	int failed;

	suite_add_tcase(s, t);
	tcase_set_timeout(t, 0);
	tcase_add_loop_test(t, plain_space_fuzz, 0, 3);
	tcase_add_loop_test(t, hybrid_space_fuzz, 0, 3);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
