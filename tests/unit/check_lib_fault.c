// SPDX-License-Identifier: Apache-2.0
/*
 * check_lib_fault.c - which calls fail, and what a spec may say.
 */
#include "kvmd/lib/fault.h"

#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/suite.h"

static void arm(const char *spec)
{
	char msg[256] = "";

	ck_assert_msg(!fault_arm(spec, msg, sizeof(msg)), "%s: %s", spec, msg);
}

/* Bit i is the fate of call i+1. */
static uint64_t fates(enum fault_site site, unsigned nr)
{
	uint64_t bits = 0;
	unsigned i;

	for (i = 0; i < nr; i++)
		bits |= (uint64_t)fault_hit(site) << i;
	return bits;
}

START_TEST(disarmed_never_fails)
{
	unsigned i;

	for (i = 0; i < NR_FAULT; i++)
		ck_assert_uint_eq(fates((enum fault_site)i, 10), 0);
}
END_TEST

START_TEST(nth_fails_once)
{
	arm("copy:nth=3");
	ck_assert_uint_eq(fates(FAULT_COPY, 10), 1 << 2);
	ck_assert_uint_eq(fault_nr_calls(FAULT_COPY), 10);
	ck_assert_uint_eq(fault_nr_hits(FAULT_COPY), 1);
	/* Again from now. */
	arm("copy:nth=1");
	ck_assert_uint_eq(fates(FAULT_COPY, 10), 1);
	fault_disarm();
	ck_assert_uint_eq(fates(FAULT_COPY, 10), 0);
}
END_TEST

START_TEST(every_and_times)
{
	arm("read:every=3");
	ck_assert_uint_eq(fates(FAULT_READ, 9), 1 << 2 | 1 << 5 | 1 << 8);
	arm("read:every=2,times=2");
	ck_assert_uint_eq(fates(FAULT_READ, 10), 1 << 1 | 1 << 3);
	ck_assert_uint_eq(fault_nr_hits(FAULT_READ), 2);
}
END_TEST

START_TEST(prob_follows_its_seed)
{
	uint64_t seven, eight;

	arm("write:prob=0.5,seed=7");
	seven = fates(FAULT_WRITE, 64);
	arm("write:prob=0.5,seed=8");
	eight = fates(FAULT_WRITE, 64);
	ck_assert_uint_ne(seven, eight);
	arm("write:prob=0.5,seed=7");
	ck_assert_uint_eq(fates(FAULT_WRITE, 64), seven);
	ck_assert_int_gt(__builtin_popcountll(seven), 8);
	ck_assert_int_lt(__builtin_popcountll(seven), 56);
	arm("write:prob=1");
	ck_assert_uint_eq(fates(FAULT_WRITE, 64), UINT64_MAX);
}
END_TEST

START_TEST(sites_are_apart)
{
	arm("alloc:nth=1;send:nth=2");
	ck_assert_uint_eq(fates(FAULT_ALLOC, 3), 1);
	ck_assert_uint_eq(fates(FAULT_SEND, 3), 2);
	ck_assert_uint_eq(fates(FAULT_SLAB, 3), 0);
	ck_assert_uint_eq(fates(FAULT_SCRUB, 3), 0);
}
END_TEST

START_TEST(every_site_has_a_name_that_arms_it)
{
	char spec[64];
	unsigned i;

	for (i = 0; i < NR_FAULT; i++) {
		snprintf(spec, sizeof(spec), "%s:nth=1", fault_name((enum fault_site)i));
		arm(spec);
		ck_assert(fault_hit((enum fault_site)i));
	}
	ck_assert_str_eq(fault_name(NR_FAULT), "?");
}
END_TEST

START_TEST(bad_specs_name_the_word)
{
	static const struct { const char *spec, *word; } bad[] = {
		{ "alloc", "'alloc'" }, { "disk:nth=1", "'disk'" },
		{ "alloc:nth", "'nth'" }, { "alloc:nht=1", "'nht'" },
		{ "alloc:nth=x", "'x'" }, { "alloc:nth=", "''" },
		{ "alloc:nth=-1", "'-1'" }, { "alloc:nth=1z", "'1z'" },
		{ "alloc:nth=99999999999999999999", "'99999999999999999999'" },
		{ "alloc:prob=2", "'2'" }, { "alloc:prob=-1", "'-1'" },
		{ "alloc:prob=nan", "'nan'" }, { "alloc:times=2", "alloc" },
		{ "alloc:nth=1,times=0", "alloc" }, { "alloc:", "''" },
		{ "copy:nth=1;alloc:nth=1,zap=1", "'zap'" },
	};
	char msg[256];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		msg[0] = '\0';
		ck_assert_int_eq(fault_arm(bad[i].spec, msg, sizeof(msg)), -EINVAL);
		ck_assert_msg(strstr(msg, bad[i].word) != NULL, "%s: %s", bad[i].spec, msg);
		ck_assert_int_eq(fault_arm(bad[i].spec, NULL, 0), -EINVAL);
	}
	/* A spec with one bad part arms nothing. */
	ck_assert(!fault_hit(FAULT_COPY));
}
END_TEST

/* Which call of a crash point ends a process: nothing of it runs behind that. */
static int dies_at(const char *spec, enum fault_site point)
{
	int p[2], status, nr = 0;
	pid_t pid;
	char c;

	ck_assert_int_eq(pipe(p), 0);
	pid = fork();
	if (!pid) {
		arm(spec);
		for (int i = 0; i < 10; i++) {
			fault_crash(point);
			if (write(p[1], "x", 1) != 1)
				_exit(1);
		}
		_exit(0);
	}
	ck_assert_int_gt(pid, 0);
	close(p[1]);
	while (read(p[0], &c, 1) == 1)
		nr++;
	close(p[0]);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status))
		ck_assert_int_eq(WTERMSIG(status), SIGKILL);
	else
		ck_assert_int_eq(status, 0);
	return nr;
}

START_TEST(a_crash_point_kills)
{
	ck_assert_int_eq(dies_at("crash-data:nth=1", CRASH_DATA), 0);
	ck_assert_int_eq(dies_at("crash-recover:nth=4", CRASH_RECOVER), 3);
	ck_assert_int_eq(dies_at("crash-seal:nth=1", CRASH_SYNC), 10);
}
END_TEST

static void *hit_many(void *arg)
{
	uint64_t *ret_nr = arg;
	unsigned i;

	for (i = 0; i < 10000; i++)
		*ret_nr += fault_hit(FAULT_COPY);
	return NULL;
}

START_TEST(threads_share_the_count)
{
	uint64_t a = 0, b = 0;
	pthread_t t;

	arm("copy:every=100,times=150");
	ck_assert_int_eq(pthread_create(&t, NULL, hit_many, &a), 0);
	hit_many(&b);
	pthread_join(t, NULL);
	ck_assert_uint_eq(a + b, 150);
	ck_assert_uint_eq(fault_nr_hits(FAULT_COPY), 150);
	ck_assert_uint_eq(fault_nr_calls(FAULT_COPY), 20000);
}
END_TEST

static void add(Suite *s, const char *behaviour, const TTest *test)
{
	suite_test(s, behaviour, test, NULL, NULL);
}

int main(void)
{
	Suite *s = suite_create("lib_fault");

	add(s, "disarmed never fails", disarmed_never_fails);
	add(s, "nth fails once", nth_fails_once);
	add(s, "every and times", every_and_times);
	add(s, "prob follows its seed", prob_follows_its_seed);
	add(s, "sites are apart", sites_are_apart);
	add(s, "every site has a name that arms it", every_site_has_a_name_that_arms_it);
	add(s, "bad specs name the word", bad_specs_name_the_word);
	add(s, "a crash point kills", a_crash_point_kills);
	add(s, "threads share the count", threads_share_the_count);

	return suite_run(s);
}
