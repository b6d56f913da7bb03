/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_crash_keep.c - SIGKILL under a keeper: engines go on where they were.
 *
 * As check_crash.c, but kvkeeper(8) starts the daemon again each time, with the
 * memory that it had. The actors stay: they reconnect, find every sequence as it
 * was, byte by byte, and go on; who dies with the daemon leaves nothing behind.
 *
 * KVMD_TEST_SEED: the first seed. KVMD_CRASH_SEEDS: four times as many as here [16].
 */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kvmd/lib/base.h"
#include "tests/crash/actor.h"
#include "tools/kvctl/fsck.h"

#define NEWS		50u		/* turns between two words of an actor */
#define PATIENCE	8u		/* words, until an armed crash point is given up */

static const char conf[] =
	"log_level = info\n"
	"[pool]\nslab_bytes = 1M\nblocks = 8192\nnodes = 4096\nalloc_timeout = 10s\ndeadlock_time = 20ms\n"
	"resume_timeout = 2s\n"
	"%s"
	"[device host-0]\nbytes = 8M\n"
	"[ram]\nbytes = 16M\nlock = no\nhugetlb = no\n"
	"[disk]\npath = %s\nbytes = 40M\nsegment = 1M\nblock_bytes_hint = 4096\nadmission = 1\n";

static const struct {
	const char *point;		/* "": at any moment */
	uint32_t most;			/* of nth */
} deaths[] = {
	{ "", 0 }, { "", 0 }, { "crash-data", 20 }, { "crash-header", 20 }, { "crash-seal", 3 },
	{ "crash-compact", 10 }, { "crash-ram", 100 }, { "crash-keep", 6 },
};

static struct actor_shared *shared;
static uint64_t rnd, first_seed;
static unsigned nr_anew;		/* actors whose session did not go on */

static uint64_t below(uint64_t n)
{
	return test_random(&rnd) % n;
}

/* Words: 1 some turns are over, 2 told to stop and done, 3 resumed, 4 not, and gone. */
static void act(struct peer *me, struct hd *d, void *arg)
{
	uint64_t seed = *(uint64_t *)arg;
	struct actor a;
	unsigned nr = 0;
	int res;

	while (!actor_init(&a, d, shared, (uint32_t)(seed & 1), seed))
		;			/* waits for a daemon; that one died at once */
	while (!ld_rlx(&shared->stop)) {
		if (actor_turn(&a)) {
			if (++nr % NEWS == 0)
				say(me, 1);
			continue;
		}
		do
			res = actor_reconnect(&a);
		while (res < 0);
		say(me, res ? 3 : 4);
		/* What the former session held is given back when this process is gone. */
		if (!res)
			_exit(0);
	}
	T(actor_verify(&a));
	actor_exit(&a);
	say(me, 2);
}

/* It goes while the daemon is away, or before: what it held has to come back. */
static void victim(struct peer *me, struct hd *d, void *arg)
{
	uint64_t seed = *(uint64_t *)arg;
	struct actor a;

	while (!actor_init(&a, d, shared, (uint32_t)(seed & 1), seed))
		;
	for (unsigned i = 0; i < 20; i++)
		if (!actor_turn(&a))
			break;
	say(me, 1);
	while (actor_turn(&a))
		;
	raise(SIGKILL);			/* without a word to the next daemon */
}

static void verify(struct peer *me, struct hd *d, void *arg)
{
	uint32_t space = *(uint32_t *)arg;
	struct actor a;
	int res;

	T(actor_init(&a, d, shared, space, 1));
	T(actor_verify(&a));
	T_EQ(kvc_seq_open(a.k, 0, 1000, NULL, 0, 0, 0, 0, NULL), 0);
	res = kvc_seq_extend(a.k, 0, 1000, 0, ACTOR_SLOTS, 0, WAIT_NS, NULL);
	if (res != (int)ACTOR_SLOTS)
		fprintf(stderr, "not all of HBM can be had: %d\n%s\n", res,
			hd_ask(d, space ? "space show space=crash-b" : "space show space=crash-a"));
	T_EQ(res, ACTOR_SLOTS);
	actor_exit(&a);
	say(me, 0);
}

/* ------------------------------------------------------------------- daemons */

static void configure(struct hd *d, const char *fault)
{
	char text[1024], file[160];

	snprintf(file, sizeof(file), "%s/disk", d->dir);
	snprintf(text, sizeof(text), conf, fault, file);
	hd_conf(d, text);
}

static void arm(struct hd *d, const char *point, uint32_t nth)
{
	char line[96];

	snprintf(line, sizeof(line), "fault arm spec=%s:nth=%u", point, nth);
	T(!strstr(hd_ask(d, line), "\"error\""));
}

static void start_actor(struct hd *d, struct peer *p, uint32_t space)
{
	uint64_t seed = (test_random(&rnd) & ~1ull) | space;

	peer_start(&p[space], d, act, &seed, sizeof(seed));
}

/* A word of an actor; one that could not go on is followed by another. */
static uint64_t word(struct hd *d, struct peer *p, uint32_t space)
{
	uint64_t v = hear(&p[space]);

	if (v == 4) {
		peer_end(&p[space]);
		nr_anew++;
		start_actor(d, p, space);
	}
	return v;
}

static void some_turns(struct hd *d, struct peer *p, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		(void)word(d, p, (uint32_t)below(ACTOR_SPACES));
}

/* While @v, which holds something, may be dead or die with it. */
static void kill_once(struct hd *d, struct peer *p)
{
	unsigned death = (unsigned)below(ARRAY_SIZE(deaths));
	uint64_t seed = test_random(&rnd) | 1;	/* of the space that nobody raises */
	bool recovering = !*deaths[death].point && below(2);
	pid_t pid = hd_daemon_pid(d);
	struct peer v;

	peer_start(&v, d, victim, &seed, sizeof(seed));
	T_EQ(hear(&v), 1);
	if (*deaths[death].point)
		arm(d, deaths[death].point, 1 + (uint32_t)below(deaths[death].most));
	some_turns(d, p, 1 + (unsigned)below(PATIENCE));
	if (below(2))
		peer_kill(&v);
	/* The next one dies while it recovers, the one after that comes up. */
	if (recovering)
		configure(d, "fault = crash-recover:nth=2\n");
	kill(pid, SIGKILL);		/* if it is not dead already */
	hd_said(d, "killed by signal 9");
	configure(d, "");
	hd_said(d, " serves ");
	if (v.pid)
		peer_kill(&v);		/* it is dead already, or will be */
}

/* Until both have said so. */
static void end_actors(struct hd *d, struct peer *p)
{
	st_rlx(&shared->stop, true);
	for (unsigned i = 0; i < ACTOR_SPACES; i++) {
		while (word(d, p, i) != 2)
			;
		peer_end(&p[i]);
	}
}

START_TEST(killed_and_resumed)
{
	uint64_t seed = first_seed + (uint64_t)_i;
	struct peer p[ACTOR_SPACES], v;
	struct hd d = { 0 };
	unsigned kills;
	char file[160];

	rnd = seed;
	kills = 1 + (unsigned)below(4);
	printf("seed %llu: %u deaths\n", (unsigned long long)seed, kills);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		      -1, 0);
	T(shared != MAP_FAILED);
	shared->wait_ns = WAIT_NS;
	hd_prepare(&d);
	d.keeper = true;
	configure(&d, "");
	hd_run(&d);
	nr_anew = 0;
	for (uint32_t i = 0; i < ACTOR_SPACES; i++)
		start_actor(&d, p, i);
	while (kills--)
		kill_once(&d, p);
	end_actors(&d, p);
	if (nr_anew)
		fprintf(stderr, "%u sessions did not go on:\n%s\n", nr_anew, d.text);
	T_EQ(nr_anew, 0);
	while (strstr(hd_ask(&d, "client list"), "\"session\":"))
		;			/* what the actors held is on its way back */
	for (uint32_t i = 0; i < ACTOR_SPACES; i++) {
		peer_start(&v, &d, verify, &i, sizeof(i));
		T_EQ(hear(&v), 0);
		peer_end(&v);
	}
	hd_check(&d);
	T_EQ(hd_end(&d), 0);
	printf("seed %llu: %llu turns, %u begun anew, %llu unpublished, %llu of %llu blocks hit\n",
	       (unsigned long long)seed,
	       (unsigned long long)shared->nr_rounds, nr_anew,
	       (unsigned long long)shared->nr_unpublished, (unsigned long long)shared->nr_hit,
	       (unsigned long long)shared->nr_asked);
	snprintf(file, sizeof(file), "%s/disk", d.dir);
	unlink(file);
	hd_remove(&d);
	munmap(shared, sizeof(*shared));
}
END_TEST

int main(void)
{
	const char *env = getenv("KVMD_CRASH_SEEDS");
	int nr = env ? (atoi(env) + 3) / 4 : 4, failed;
	Suite *s = suite_create("crash_keep");
	TCase *t = tcase_create("crash_keep");
	SRunner *r;

	first_seed = test_seed();
	printf("seeds %llu to %llu\n", (unsigned long long)first_seed,
	       (unsigned long long)first_seed + (unsigned)nr - 1);
	suite_add_tcase(s, t);
	tcase_set_timeout(t, 0);
	tcase_add_loop_test(t, killed_and_resumed, 0, nr);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
