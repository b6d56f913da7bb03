/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_restart_damage.c - a restart that finds less than it should.
 *
 * The daemon dies again while it restores; what was kept is of another version or
 * build; bits of the block array are wrong. It goes on, or begins with an empty
 * pool and says why.
 */
#include "tests/harness.h"

#include <check.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define POOL	"[pool]\npolicy = lru\nblocks = 4096\nwmark_low = 0\nwmark_high = 0\n" \
		"slab_bytes = 1M\nslab_deadline = 5ms\ndeadlock_time = 1h\n"

static struct hd d;

static void start(const char *conf)
{
	hd_prepare(&d);
	d.keeper = true;
	hd_conf(&d, conf);
	hd_run(&d);
}

/* @sig to the daemon; the next one serves when this returns. */
static void restart(int sig)
{
	T_EQ(kill(hd_daemon_pid(&d), sig), 0);
	hd_said(&d, " serves ");
}

static void expect_lookup(struct kvc *k, uint32_t stream, uint32_t nr, int32_t hits)
{
	unsigned char keys[64][KEY];

	make_keys(keys, stream, 0, nr);
	T_EQ(kvc_lookup(k, 0, keys, nr, NULL), hits);
}

/* ----------------------------------------------------------------- in the middle */

/* Killed while it restores, at each point: every start goes on from the same state. */
START_TEST(killed_while_it_restores)
{
	char conf[512];
	struct kvc *k;

	start(POOL);
	k = plain_client(&d, "sp", 64);
	open_publish(k, 1, 8, 5);
	open_extend(k, 2, 3, 700);
	/* Records that are written anew, the scan, the index, the sessions. */
	snprintf(conf, sizeof(conf), POOL "fault = crash-keep:nth=%d\n", _i + 1);
	hd_conf(&d, conf);
	T_EQ(kill(hd_daemon_pid(&d), SIGKILL), 0);
	hd_said(&d, "starting it again");	/* the one that was killed */
	hd_said(&d, "starting it again");	/* the one that died restoring */
	hd_said(&d, "starting it again");	/* and once more */
	hd_conf(&d, POOL);
	hd_said(&d, " serves ");
	T_EQ(kvc_reconnect(k), 1);
	hd_check(&d);
	expect_lookup(k, 5, 8, 8);
	for (uint32_t i = 0; i < 3; i++)
		T(holds(k, 0, (uint32_t)slot_at(k, 0, 2, i), 700 + i));
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	T_EQ(kvc_seq_close(k, 2, 1, 0, 0), 0);
	whole_pool(k, 64);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* Open the kept block array of a daemon that stands still, by its name under /proc. */
static int kept_fd(pid_t pid, const char *name)
{
	char path[64], target[256];

	for (int i = 3; i < 256; i++) {
		ssize_t n;

		snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, i);
		n = readlink(path, target, sizeof(target) - 1);
		if (n <= 0)
			continue;
		target[n] = 0;
		if (strstr(target, name))
			return open(path, O_RDWR | O_CLOEXEC);
	}
	return -1;
}

/* -------------------------------------------------------- what is still under way */

/* Holds the state's lock as I/O under way would: from the daemon's end until it is told. */
static void late_io(struct peer *me, struct hd *hd, void *arg)
{
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int fd = *(int *)arg;

	(void)hd;
	T_EQ(fcntl(fd, F_OFD_SETLKW, &fl), 0);
	say(me, 1);
	hear(me);
	close(fd);
	say(me, 2);
}

START_TEST(io_of_the_dead_daemon_is_waited_for)
{
	struct kvc *k;
	struct peer p;
	pid_t pid;
	int fd;

	start(POOL);
	k = plain_client(&d, "sp", 64);
	open_publish(k, 1, 8, 5);
	pid = hd_daemon_pid(&d);
	fd = kept_fd(pid, "kvmd-state");
	T(fd >= 0);
	peer_fork(&p, &d, late_io, &fd);
	close(fd);
	T_EQ(kill(d.pid, SIGSTOP), 0);		/* nothing is started before it has the lock */
	T_EQ(kill(pid, SIGKILL), 0);
	T_EQ(hear(&p), 1);
	T_EQ(kill(d.pid, SIGCONT), 0);
	hd_said(&d, "waiting until the former daemon and its I/O are gone");
	T(!d.text || !strstr(d.text + d.mark, "restored"));
	say(&p, 1);
	T_EQ(hear(&p), 2);
	hd_said(&d, "restored");
	hd_said(&d, " serves ");
	T_EQ(kvc_reconnect(k), 1);
	expect_lookup(k, 5, 8, 8);
	hd_check(&d);
	peer_end(&p);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* ------------------------------------------------------------ of another version */

/* @change what is kept, then kill: the daemon after it says @why and begins anew. */
static void expect_cold(const char *memfd, off_t at, uint32_t value, const char *why)
{
	struct kvc *k;
	pid_t pid;
	int fd;

	start(POOL);
	k = plain_client(&d, "sp", 16);
	open_publish(k, 1, 8, 5);
	pid = hd_daemon_pid(&d);
	fd = kept_fd(pid, memfd);
	T(fd >= 0);
	T_EQ(pwrite(fd, &value, sizeof(value), at), sizeof(value));
	close(fd);
	T_EQ(kill(pid, SIGKILL), 0);
	hd_said(&d, why);
	hd_said(&d, " serves ");
	T_EQ(kvc_reconnect(k), 0);
	expect_lookup(k, 5, 8, 0);
	hd_check(&d);
	whole_pool(k, 16);
	/* What was not used is not kept either: the next restart is warm again. */
	open_publish(k, 2, 4, 9);
	restart(SIGKILL);
	T_EQ(kvc_reconnect(k), 1);
	expect_lookup(k, 9, 4, 4);
	kvc_destroy(k);
	hd_stop(&d);
}

START_TEST(a_block_array_of_another_version)
{
	expect_cold("kvmd-blocks", 8, 99, "version 99");
}
END_TEST

START_TEST(a_state_of_another_version)
{
	expect_cold("kvmd-state", 8, 98, "version 98");
}
END_TEST

START_TEST(a_state_of_another_build)
{
	expect_cold("kvmd-state", 16, 104, "another build");
}
END_TEST

/*
 * Bits of the array are flipped at random while nobody looks: whatever the next
 * daemon makes of it, its invariants hold and it serves. Only a state, a slot or
 * (the test's are simple) a key that changed into another possible one cannot be
 * told from a true one: in every second round these are spared, and no byte may be
 * wrong.
 */
static void flip(int fd, uint64_t *seed, bool spare)
{
	uint64_t at;
	unsigned char b;

	do {
		at = test_random(seed) % 96;
	} while (spare && (at < KEY || at == 39 || (at >= 44 && at < 48)));
	at += 96 * (1 + test_random(seed) % 40);
	T_EQ(pread(fd, &b, 1, (off_t)at), 1);
	b ^= (unsigned char)(1u << test_random(seed) % 8);
	T_EQ(pwrite(fd, &b, 1, (off_t)at), 1);
}

static void damaged_one(struct peer *me, struct hd *hd, void *arg)
{
	struct kvc *k = plain_client(hd, "sp", 64);

	(void)arg;
	for (uint32_t i = 0; i < 4; i++)
		open_publish(k, i, 8, 40 + i);
	open_extend(k, 7, 6, 900);
	say(me, 1);
	hear(me);
	T(kvc_reconnect(k) >= 0);
	say(me, 2);
	peer_halt(me);
}

/* What is found of chain @stream. */
static void look_at(struct kvc *k, uint32_t stream, bool bytes)
{
	unsigned char keys[8][KEY];
	int32_t nr;

	make_keys(keys, stream, 0, 8);
	nr = kvc_seq_open(k, 1, 1, keys, 8, 0, 0, 0, NULL);
	T(nr >= 0);
	for (int32_t j = 0; bytes && j < nr; j++)
		T(holds(k, 0, (uint32_t)slot_at(k, 0, 1, (uint32_t)j),
			(stream << 8) + (uint64_t)j));
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
}

START_TEST(a_damaged_block_array)
{
	uint64_t seed = test_seed();

	for (int round = 0; round < 12; round++) {
		struct peer p;
		struct kvc *k;
		pid_t pid;
		int fd;

		start(POOL);
		peer_start(&p, &d, damaged_one, NULL, 0);
		T_EQ(hear(&p), 1);
		pid = hd_daemon_pid(&d);
		fd = kept_fd(pid, "kvmd-blocks");
		T(fd >= 0);
		T_EQ(kill(pid, SIGSTOP), 0);
		for (int i = 0; i < 1 + round * 4; i++)
			flip(fd, &seed, round & 1);
		close(fd);
		T_EQ(kill(pid, SIGKILL), 0);
		hd_said(&d, " serves ");
		hd_check(&d);
		k = plain_client(&d, "sp", 64);
		for (uint32_t i = 0; i < 4; i++)
			look_at(k, 40 + i, round & 1);
		say(&p, 1);
		T_EQ(hear(&p), 2);
		hd_check(&d);
		peer_kill(&p);
		if (round & 1)
			whole_pool(k, 64);
		kvc_destroy(k);
		hd_stop(&d);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("restart_damage");
	TCase *t = tcase_create("restart_damage");
	SRunner *r;
	int failed;

	suite_add_tcase(s, t);
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, killed_while_it_restores, 0, 12);
	tcase_add_test(t, io_of_the_dead_daemon_is_waited_for);
	tcase_add_test(t, a_block_array_of_another_version);
	tcase_add_test(t, a_state_of_another_version);
	tcase_add_test(t, a_state_of_another_build);
	tcase_add_test(t, a_damaged_block_array);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
