/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_cuda_more.c - pools on GPUs where daemon and client have little in common: a
 * client in another container, one of another user, a daemon out of descriptors.
 */
#include "tests/harness.h"
#include "tests/harness_int.h"
#include "tests/suite.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <kvmd/cuda_abi.h>

#define POOL	"[pool]\npolicy = lru\nslab_bytes = 1M\nblocks = 4096\nwmark_low = 0\n" \
		"wmark_high = 0\ndeadlock_time = 1h\nslab_deadline = 5ms\n"
#define GPU	"[device gpu]\nkind = cuda\ngrace = 0\n"
#define NOBODY	65534u

static struct hd d;

static void expect_chain(struct kvc *k, uint32_t seq, uint32_t nr, uint32_t stream)
{
	for (uint32_t i = 0; i < nr; i++)
		T(holds(k, 0, (uint32_t)slot_at(k, 0, seq, i), (stream << 8) + i));
}

/* What somebody else has published, where it is. */
static void open_others(struct kvc *k, uint32_t seq, uint32_t nr, uint32_t stream)
{
	unsigned char keys[8][KEY];

	make_keys(keys, stream, 0, nr);
	T_EQ(kvc_seq_open(k, seq, 1, keys, nr, nr * BT, 0, 0, NULL), (int)nr);
	expect_chain(k, seq, nr, stream);
}

/* ------------------------------------------------------------ another container */

enum { IN_CONTAINER = 1, NO_CONTAINER };

/* As a container runtime does: own processes, own mounts, nothing of ours in /dev/shm. */
static bool close_off(void)
{
	return !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) &&
	       !mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) &&
	       !mount("none", "/dev/shm", "tmpfs", 0, "size=1M");
}

/* Its process 1. It dies with its session when it is told to. */
static void contained(struct peer *me, struct hd *hd)
{
	struct kvc *k;

	if (!close_off()) {
		say(me, NO_CONTAINER);
		return;
	}
	T_EQ(getpid(), 1);
	say(me, IN_CONTAINER);
	hear(me);
	k = plain_client(hd, "sp", 32);
	open_others(k, 1, 8, 7);
	open_publish(k, 2, 8, 8);
	open_extend(k, 3, 8, 900);
	say(me, 1);
	hear(me);
}

static void container(struct peer *me, struct hd *hd, void *arg)
{
	pid_t pid;

	(void)arg;
	if (unshare(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS)) {
		say(me, NO_CONTAINER);
		return;
	}
	pid = fork();
	T(pid >= 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		contained(me, hd);
		_exit(0);
	}
	T_EQ(test_wait(pid), 0);
}

START_TEST(a_client_in_another_container)
{
	struct peer p;
	struct kvc *k;

	hd_start(&d, POOL GPU);
	peer_start(&p, &d, container, NULL, 0);
	if (test_skip(hear(&p) != IN_CONTAINER, "no namespaces can be made here")) {
		peer_end(&p);
		hd_stop(&d);
		return;
	}
	k = plain_client(&d, "sp", 32);
	open_publish(k, 1, 8, 7);
	say(&p, 0);
	T_EQ(hear(&p), 1);
	open_others(k, 2, 8, 8);
	T_EQ(hd_stat(&d, "bytes_copied"), 0);
	/* The daemon sees the end of a process that has another number where it lives. */
	say(&p, 0);
	peer_end(&p);
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	T_EQ(kvc_seq_close(k, 2, 1, 0, 0), 0);
	whole_pool(k, 32);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* ------------------------------------------------------------ another user */

/* Opened while that is allowed: the fake driver's own library and file are a test's. */
static void open_for_others(void)
{
	char path[48];
	int fd;

	T(dlopen(CU_LIBRARY, RTLD_NOW | RTLD_LOCAL));
	if (!test_fake_cuda())
		return;
	fd = open(device_state(), O_RDWR);
	T(fd >= 0);
	T(!fchmod(fd, 0666));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	setenv("KVMD_FAKECUDA_STATE", path, 1);
}

static void guest(struct peer *me, struct hd *hd, void *arg)
{
	struct kvc_space s;
	struct kvc_opts o;
	struct kvc *k;

	(void)arg;
	open_for_others();
	T(!chdir(hd->dir));
	T(!setgid(NOBODY) && !setuid(NOBODY));
	prctl(PR_SET_DUMPABLE, 1);	/* as after an exec: /proc/self is its own */
	plain_space(&s, "sp", 32);
	opts_for(hd, &o);
	o.socket = "k";
	T_EQ(kvc_create(&o, &s, &k), -EACCES);
	T(strstr(kvc_refusal(), "uid 65534 may not use tenant default"));
	o.tenant = "guests";
	k = client_opts(hd, &s, &o);
	open_others(k, 1, 8, 7);
	open_publish(k, 2, 8, 8);
	say(me, 1);
	hear(me);
	kvc_destroy(k);
	say(me, 2);
}

START_TEST(a_client_of_another_user)
{
	struct kvc_space s;
	struct kvc_opts o;
	struct peer p;
	struct kvc *k;

	if (test_skip(geteuid(), "only root can become another user"))
		return;
	hd_start(&d, "socket_mode = 666\n" POOL GPU "[tenant guests]\nuids = 65534\n");
	T(!chmod(d.dir, 0755));
	plain_space(&s, "sp", 32);
	opts_for(&d, &o);
	o.tenant = "guests";
	k = client_opts(&d, &s, &o);
	open_publish(k, 1, 8, 7);
	peer_start(&p, &d, guest, NULL, 0);
	T_EQ(hear(&p), 1);
	open_others(k, 2, 8, 8);
	T_EQ(hd_stat(&d, "bytes_copied"), 0);
	say(&p, 0);
	T_EQ(hear(&p), 2);
	peer_end(&p);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* ------------------------------------------------------------ out of descriptors */

static unsigned fds_of(pid_t pid)
{
	char path[48];
	unsigned nr = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	T(dir);
	for (struct dirent *e; (e = readdir(dir));)
		nr += e->d_name[0] != '.';
	closedir(dir);
	return nr;
}

static void limit_fds(pid_t pid, rlim_t nr, struct rlimit *ret_old)
{
	struct rlimit lim;

	T(!prlimit(pid, RLIMIT_NOFILE, NULL, &lim));
	if (ret_old)
		*ret_old = lim;
	lim.rlim_cur = nr;
	T(!prlimit(pid, RLIMIT_NOFILE, &lim, NULL));
}

/* Enough for a session, not for a slab of 64 planes. */
START_TEST(a_daemon_out_of_descriptors_says_so_and_goes_on)
{
	struct kvc *k, *wide = NULL;
	struct rlimit old;
	struct kvc_space s;
	struct kvc_opts o;
	int err;

	if (!test_only_fake())
		return;
	hd_start(&d, POOL GPU);
	k = plain_client(&d, "sp", 32);
	open_publish(k, 1, 8, 7);
	limit_fds(d.pid, fds_of(d.pid) + 32, &old);
	plain_space(&s, "wide", 32);
	s.group[0].planes = 64;
	opts_for(&d, &o);
	err = kvc_create(&o, &s, &wide);
	if (!err) {
		T_EQ(kvc_seq_open(wide, 1, 1, NULL, 0, BT, 0, 0, NULL), 0);
		err = kvc_seq_extend(wide, 1, 1, 0, 1, 0, 1000000, NULL);
	}
	T(err < 0);
	hd_said(&d, "LimitNOFILE=");
	T(strstr(hd_ask(&d, "dev list"), "LimitNOFILE="));
	/* Whom it serves already it goes on serving. */
	expect_chain(k, 1, 8, 7);
	open_publish(k, 2, 8, 8);
	expect_chain(k, 2, 8, 8);
	kvc_destroy(wide);
	/* With room again it makes what it could not. */
	limit_fds(d.pid, old.rlim_cur, NULL);
	s.name = "wider";
	wide = client(&d, &s);
	open_publish(wide, 1, 4, 9);
	expect_chain(wide, 1, 4, 9);
	kvc_destroy(wide);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cuda_more");
	TCase *t = suite_group(s, "cuda", NULL, NULL);

	setenv("KVMD_TEST_DEVICE", "cuda", 1);
	tcase_add_test(t, a_client_in_another_container);
	tcase_add_test(t, a_client_of_another_user);
	tcase_add_test(t, a_daemon_out_of_descriptors_says_so_and_goes_on);
	return suite_run(s);
}
