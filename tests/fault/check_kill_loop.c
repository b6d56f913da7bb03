/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_kill_loop.c - clients that die at random points, again and again.
 *
 * Each is a fuzzer's session in a process of its own which kills itself after a
 * random number of turns, with entries in flight or without, or is killed from
 * outside while it works. Published blocks stay, an honest client goes on, and
 * after each round the invariants hold and all memory is back.
 */
#include "tests/fuzzer.h"

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLOTS	120u
#define VICTIMS	3u

static struct hd d;

static void space_of(struct kvc_space *s)
{
	plain_space(s, "sp", SLOTS);
	s->nr_shards = 2;
	s->group[0].planes = 2;
}

static void victim(struct peer *me, struct hd *hd, void *arg)
{
	uint64_t rnd = *(uint64_t *)arg, turns = test_random(&rnd) % 300;
	struct kvc_space s;
	struct fuzzer f;

	space_of(&s);
	fuzzer_init(&f, hd, &rnd, &s);
	say(me, 1);
	for (uint64_t i = 0; i < turns; i++)
		fuzzer_turn(&f, &rnd);
	if (rnd % 4 == 0)
		fuzzer_finish(&f);
	if (rnd % 2)
		fuzzer_batch(&f, &rnd);
	raise(SIGKILL);
}

/* A chain of its own, published, read again, given back. */
static void honest(struct kvc *k, uint32_t stream)
{
	unsigned char keys[4][KEY];

	open_publish(k, 1, 4, stream);
	make_keys(keys, stream, 0, 4);
	T_EQ(kvc_seq_open(k, 2, 1, keys, 4, 4 * BT, 0, 0, NULL), 4);
	for (uint32_t i = 0; i < 4; i++)
		T(holds(k, 0, (uint32_t)slot_at(k, 0, 2, i), ((uint64_t)stream << 8) + i));
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	T_EQ(kvc_seq_close(k, 2, 1, 0, 0), 0);
}

START_TEST(killed_again_and_again)
{
	uint64_t rnd = test_seed(), rounds = test_fuzz_runs(test_cuda() ? 6 : 30);
	struct peer p[VICTIMS];
	struct kvc_space s;
	struct kvc *k;

	hd_start(&d, "[pool]\nslab_bytes = 256K\nblocks = 1024\nnodes = 512\n"
		 "ticket_timeout = 5ms\nalloc_timeout = 10s\ndeadlock_time = 1ms\n"
		 "slab_deadline = 5ms\n[tenant default]\npin_bytes = 256K\n");
	space_of(&s);
	k = client(&d, &s);
	for (uint64_t i = 0; i < rounds; i++) {
		bool outside = test_random(&rnd) % 2;

		for (unsigned v = 0; v < VICTIMS; v++) {
			uint64_t seed = test_random(&rnd);

			peer_start(&p[v], &d, victim, &seed, sizeof(seed));
		}
		for (unsigned v = 0; v < VICTIMS; v++)
			T_EQ(hear(&p[v]), 1);
		if (outside)
			kill(p[0].pid, SIGKILL);
		for (unsigned v = 0; v < VICTIMS; v++)
			T_EQ(peer_status(&p[v]), 128 + SIGKILL);
		honest(k, 1000 + (uint32_t)i);
		hd_check(&d);
		whole_pool(k, SLOTS);
		hd_check(&d);
	}
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("kill_loop");
	TCase *t = tcase_create("kill_loop");
	SRunner *r;
	int failed;

	suite_add_tcase(s, t);
	tcase_set_timeout(t, 0);
	tcase_add_test(t, killed_again_and_again);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
