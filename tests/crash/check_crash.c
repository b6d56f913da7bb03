/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_crash.c - SIGKILL at marked points and at any moment: no wrong byte after it.
 *
 * A seed decides everything of a round: two actors (actor.h) work on a daemon with
 * HBM, RAM and a small disk, all of them full; it kills itself at a crash point,
 * or is killed; the file is walked offline and must be clean; perhaps it is
 * killed again while it recovers; then it comes back, every chain is looked at,
 * and nothing is lost: all metadata agree and all of HBM can be had at once.
 *
 * KVMD_TEST_SEED: the first seed. KVMD_CRASH_SEEDS: how many [8].
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kvmd/lib/base.h"
#include "tests/crash/actor.h"
#include "tools/kvctl/fsck.h"

#define ROOM_SEGMENTS	10u	/* free: nothing is dropped for want of room */
#define ROUNDS	600u		/* turns of an actor after which the daemon is killed anyway */

static const char conf[] =
	"log_level = info\n"
	"[pool]\nslab_bytes = 1M\nblocks = 8192\nnodes = 4096\nalloc_timeout = 10s\ndeadlock_time = 1ms\n"
	"%s%s%s"
	"[device host-0]\nbytes = 8M\n"
	"[ram]\nbytes = 16M\nlock = no\nhugetlb = no\n"
	"[disk]\npath = %s\nbytes = 40M\nsegment = 1M\nblock_bytes_hint = 4096\nadmission = 1\n";

/* Where it dies. The most that nth is drawn from: about what a round comes to. */
static const struct {
	const char *point;		/* "": at any moment */
	uint32_t most;
} deaths[] = {
	{ "", 0 }, { "crash-data", 60 }, { "crash-header", 60 }, { "crash-seal", 8 },
	{ "crash-sync", 8 }, { "crash-compact", 20 }, { "crash-ram", 400 }, { "", 0 },
};

static struct actor_shared *shared;
static uint64_t rnd, first_seed;
static char file[160];
static uint32_t on_disk[ACTOR_SPACES][ACTOR_STREAMS];	/* bit per position */

static uint64_t below(uint64_t n)
{
	return test_random(&rnd) % n;
}

/* ------------------------------------------------------------------- actors */

/*
 * Words to the test: 1 it has had its turns and the daemon lives, 2 the daemon is
 * gone. The daemon is killed while nobody says anything, or everybody has.
 */
static void act(struct peer *me, struct hd *d, void *arg)
{
	uint64_t seed = *(uint64_t *)arg;
	struct actor a;

	if (actor_init(&a, d, shared, (uint32_t)(seed & 1), seed)) {
		for (unsigned i = 0; i < ROUNDS; i++) {
			if (!actor_turn(&a)) {
				actor_exit(&a);
				say(me, 2);
				return;
			}
		}
		say(me, 1);
		/* In the middle of something, if it can be. */
		while (actor_turn(&a))
			;
		actor_exit(&a);
	}
	say(me, 2);
}

static void verify(struct peer *me, struct hd *d, void *arg)
{
	uint32_t space = *(uint32_t *)arg;
	struct actor a;

	T(actor_init(&a, d, shared, space, 1));
	say(me, 0);			/* its blocks on disk are looked for from now on */
	T_EQ(hear(me), 0);
	shared->nr_hit = shared->nr_asked = 0;
	T(actor_verify(&a));
	say(me, shared->nr_hit);
	whole_pool(a.k, ACTOR_SLOTS);
	T(actor_verify(&a));
	actor_exit(&a);
}

/* ------------------------------------------------------------------- daemons */

static void configure(struct hd *d, const char *point, uint32_t nth)
{
	char text[1024], num[16];

	snprintf(num, sizeof(num), ":nth=%u\n", nth);
	snprintf(text, sizeof(text), conf, *point ? "fault = " : "", point, *point ? num : "",
		 file);
	hd_conf(d, text);
}

/* It died by SIGKILL, its own or ours, and of nothing else. */
static void died(struct hd *d)
{
	siginfo_t si = { 0 };

	kill(d->pid, SIGKILL);
	T(!waitid(P_PID, (id_t)d->pid, &si, WEXITED | WNOWAIT));
	if (si.si_code != CLD_KILLED || si.si_status != SIGKILL) {
		while (hd_says(d, "\1"))
			;
		fprintf(stderr, "the daemon died of %d:\n%s\n", si.si_status, d->text);
	}
	hd_kill(d);
}

static void on_fault(void *ctx, uint64_t off, const char *text)
{
	(void)ctx;
	fprintf(stderr, "fsck: offset %llu: %s\n", (unsigned long long)off, text);
}

/* The last I/O of a killed daemon may outlive it; its lock goes with that. */
static void file_is_free(void)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int fd = open(file, O_RDWR | O_CLOEXEC);

	T(fd >= 0 && !fcntl(fd, F_OFD_SETLKW, &l));
	close(fd);
}

/* Which positions of which chains the file has. */
static void on_block(void *ctx, const struct fsck_space *sp, const struct disk_header *h)
{
	uint32_t stream;

	(void)ctx;
	memcpy(&stream, h->key, sizeof(stream));
	on_disk[!strcmp(sp->e.name, "crash-b")][stream] |= 1u << h->pos;
}

/* Blocks that hits can come to, in chains from their roots. */
static uint64_t file_is_clean(void)
{
	static struct fsck_file f;
	const struct fsck_ops ops = { .data = true, .fault = on_fault, .block = on_block };
	uint64_t nr = 0;

	file_is_free();
	memset(on_disk, 0, sizeof(on_disk));
	T_EQ(fsck_walk(file, &ops, &f), 0);
	T(!f.locked);
	T_EQ(f.nr_faults, 0);
	for (unsigned i = 0; i < ACTOR_SPACES; i++)
		for (unsigned k = 0; k < ACTOR_STREAMS; k++)
			nr += (unsigned)__builtin_ctz(~on_disk[i][k]);
	/* Compaction may drop some at once when there is little room. */
	return f.nr_segs[DISK_SEG_FREE] >= ROOM_SEGMENTS ? nr : 0;
}

/* Two actors, until the daemon has died. */
static void live_and_die(struct hd *d)
{
	uint64_t seeds[ACTOR_SPACES];
	struct peer p[ACTOR_SPACES];

	for (unsigned i = 0; i < ACTOR_SPACES; i++) {
		seeds[i] = (test_random(&rnd) & ~1ull) | i;
		peer_start(&p[i], d, act, &seeds[i], sizeof(seeds[i]));
	}
	/* Whoever is first: a limit reached, or the end. The others are working then. */
	if (hear(&p[below(ACTOR_SPACES)]) == 1)
		kill(d->pid, SIGKILL);
	died(d);
	for (unsigned i = 0; i < ACTOR_SPACES; i++)
		peer_end(&p[i]);
	file_is_clean();
}

/* Comes up and is killed in the middle of that; several times. */
static void die_recovering(struct hd *d, unsigned times)
{
	while (times--) {
		configure(d, below(4) ? "crash-recover" : "", 1 + (uint32_t)below(40));
		hd_try_run(d);
		died(d);
		file_is_clean();
	}
}

/* Recovery is over, that of the blocks of spaces that were just opened too. */
static void recovered(struct hd *d)
{
	const char *said;

	do {
		said = hd_ask(d, "tier show tier=disk");
		T(strstr(said, "\"recovering\":"));
	} while (strstr(said, "\"recovering\":true"));
}

/* Every chain: right, and at least @least blocks of them, which the file had. */
static uint64_t look_at_all(struct hd *d, uint64_t least)
{
	uint64_t nr = 0;

	for (uint32_t i = 0; i < ACTOR_SPACES; i++) {
		struct peer p;

		peer_start(&p, d, verify, &i, sizeof(i));
		T_EQ(hear(&p), 0);
		recovered(d);
		say(&p, 0);
		nr += hear(&p);
		peer_end(&p);
	}
	hd_check(d);
	if (nr < least)
		fprintf(stderr, "%llu blocks hit, the file has %llu\n%s\n", (unsigned long long)nr,
			(unsigned long long)least, hd_ask(d, "stat show"));
	T(nr >= least);
	return nr;
}

/* --------------------------------------------------------------------- test */

static uint64_t stop(struct hd *d)
{
	hd_check(d);
	T_EQ(hd_end(d), 0);
	return file_is_clean();
}

START_TEST(killed_and_back)
{
	uint64_t seed = first_seed + (uint64_t)_i, death, least, hit;
	struct hd d = { 0 };
	uint32_t nth;

	rnd = seed;
	death = below(ARRAY_SIZE(deaths));
	nth = 1 + (uint32_t)(deaths[death].most ? below(deaths[death].most) : 0);
	printf("seed %llu: %s:nth=%u\n", (unsigned long long)seed, *deaths[death].point ?
	       deaths[death].point : "any moment", nth);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		      -1, 0);
	T(shared != MAP_FAILED);

	hd_prepare(&d);
	snprintf(file, sizeof(file), "%s/disk", d.dir);
	configure(&d, deaths[death].point, nth);
	hd_run(&d);
	live_and_die(&d);
	die_recovering(&d, (unsigned)below(3));
	configure(&d, "", 0);
	least = file_is_clean();
	hd_run(&d);
	hit = look_at_all(&d, least);
	least = stop(&d);
	/* An ordered stop loses nothing of the disk. */
	hd_run(&d);
	least = look_at_all(&d, least);
	printf("seed %llu: %llu turns, %llu unpublished, %llu of %llu blocks hit, %llu after a stop\n",
	       (unsigned long long)seed, (unsigned long long)shared->nr_rounds,
	       (unsigned long long)shared->nr_unpublished,
	       (unsigned long long)hit, 1ull * ACTOR_STREAMS * ACTOR_CHAIN * ACTOR_SPACES,
	       (unsigned long long)least);
	stop(&d);
	unlink(file);
	hd_remove(&d);
	munmap(shared, sizeof(*shared));
}
END_TEST

int main(void)
{
	const char *env = getenv("KVMD_CRASH_SEEDS");
	int nr = env ? atoi(env) : 8, failed;
	Suite *s = suite_create("crash");
	TCase *t = tcase_create("crash");
	SRunner *r;

	first_seed = test_seed();
	printf("seeds %llu to %llu\n", (unsigned long long)first_seed,
	       (unsigned long long)first_seed + (unsigned)nr - 1);
	suite_add_tcase(s, t);
	tcase_set_timeout(t, 0);
	tcase_add_loop_test(t, killed_and_back, 0, nr);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
