/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_cuda_fail.c - GPUs that are not there, break, or lose their daemon.
 *
 * A real daemon on the fake driver, which is told what to do wrong. Others go on, what is
 * there stays right, and what is broken is named.
 */
#include "tests/fakecuda/fakecuda.h"
#include "tests/harness.h"
#include "tests/suite.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POOL	"[pool]\npolicy = lru\nslab_bytes = 1M\nblocks = 4096\nwmark_low = 0\n" \
		"wmark_high = 0\ndeadlock_time = 1h\nslab_deadline = 5ms\n"
#define GPU	"[device gpu]\nkind = cuda\ngrace = 0\n"
#define HOST	"[device host-0]\nkind = host\n"

static struct hd d;

/* ------------------------------------------------------------- devices not there */

#define GPU0	"66616b65-6375-6461-4000-800000000000"

static const struct {
	const char *fake, *gpu, *says;	/* of the driver; of the section; what is said */
	bool hide;			/* there is no driver at all */
} bad[] = {
	{ "", "", "no NVIDIA driver", true },
	{ "driver=11080", "", "install a newer one", false },
	{ "gpus=0", "", "no GPU is visible", false },
	{ "", "uuid = GPU-12345678-0000-0000-0000-000000000000\n", "there is no GPU 12345678-",
	  false },
	{ "mem=64M", "bytes = 1G\n", "lower the budget", false },
	{ "mps=1", "", "MPS", false },
	{ "vmm=0", "", "ipc = legacy", false },
	{ "fail=cuDevicePrimaryCtxRetain:1:2", "", "its memory is full", false },
	{ "fail=cuInit:1:999", "", "does not start", false },
};

/* Run with the environment of case @i; false: it did not serve. */
static bool run_bad(int i)
{
	const char *env = getenv("LD_LIBRARY_PATH");
	char *path = strdup(env ? env : "");
	bool up;

	T(path);
	if (bad[i].hide)
		unsetenv("LD_LIBRARY_PATH");
	up = hd_try_run(&d);
	setenv("LD_LIBRARY_PATH", path, 1);
	free(path);
	return up;
}

START_TEST(a_device_that_is_not_there_is_named_and_done_without)
{
	char conf[1024];
	const char *dev;
	struct kvc *k;

	if (!test_only_fake())
		return;
	snprintf(conf, sizeof(conf), POOL GPU "%s" HOST, bad[_i].gpu);
	hd_prepare_fake(&d, conf, bad[_i].fake);
	T(run_bad(_i));
	if (!strstr(d.text, bad[_i].says))
		fprintf(stderr, "no '%s' in: %s\n", bad[_i].says, d.text);
	T(strstr(d.text, "device gpu is not used") && strstr(d.text, bad[_i].says));
	dev = hd_ask(&d, "dev list");
	T(strstr(dev, "\"state\":\"down\"") && strstr(dev, "\"state\":\"up\""));
	T(strstr(dev, bad[_i].says));
	k = plain_client(&d, "sp", 32);
	open_publish(k, 1, 4, 7);
	T(holds(k, 0, (uint32_t)slot_at(k, 0, 1, 3), (7 << 8) + 3));
	T_EQ(kvc_cuda_device(k, 0), -EOPNOTSUPP);
	kvc_destroy(k);
	hd_stop(&d);
	/* Without another one there is nothing to serve. */
	snprintf(conf, sizeof(conf), POOL GPU "%s", bad[_i].gpu);
	hd_prepare_fake(&d, conf, bad[_i].fake);
	T(!run_bad(_i));
	T(strstr(d.text, bad[_i].says) && strstr(d.text, "cannot start"));
	T(hd_reap(&d) != 0);
	hd_remove(&d);
}
END_TEST

START_TEST(a_gpu_is_named_once)
{
	if (!test_only_fake())
		return;
	hd_start(&d, POOL GPU "uuid = " GPU0 "\n[device b]\nkind = cuda\nuuid = GPU-" GPU0 "\n");
	T(strstr(d.text, "is the device 'gpu' already"));
	hd_stop(&d);
}
END_TEST

START_TEST(a_space_asks_for_a_device_that_is_down)
{
	struct kvc_space s;
	struct kvc_opts o;
	struct kvc *k;

	if (!test_only_fake())
		return;
	hd_prepare_fake(&d, POOL GPU HOST, "gpus=0");
	hd_run(&d);
	plain_space(&s, "sp", 32);
	opts_for(&d, &o);
	s.device[0] = "gpu";
	T_EQ(kvc_create(&o, &s, &k), -ENODEV);
	T(strstr(kvc_refusal(), "no GPU is visible"));
	hd_stop(&d);
}
END_TEST

/* ---------------------------------------------------------------- GPUs that fail */

static uint32_t slot_of(struct kvc *k, uint32_t seq, uint32_t pos)
{
	return (uint32_t)slot_at(k, 0, seq, pos);
}

static void expect_chain(struct kvc *k, uint32_t seq, uint32_t nr, uint32_t stream)
{
	for (uint32_t i = 0; i < nr; i++)
		T(holds(k, 0, slot_of(k, seq, i), (stream << 8) + i));
}

/* The daemon's context breaks; the slabs outlive it, and the copy is made after all. */
START_TEST(a_broken_context_is_made_anew)
{
	struct kvc *k;

	if (!test_only_fake())
		return;
	hd_prepare_fake(&d, POOL GPU "[ram]\nbytes = 16M\nlock = no\nhugetlb = no\n",
		"fail=cuMemcpyAsync:3:700");
	hd_run(&d);
	device_fake("");
	k = plain_client(&d, "sp", 32);
	open_publish(k, 1, 8, 7);
	for (uint32_t i = 0; i < 8; i++)
		T_EQ(kvc_seq_unshare(k, 1, 1, 0, i, 0), 1);
	expect_chain(k, 1, 8, 7);
	T(hd_stat(&d, "dev_resets") >= 1);
	T_EQ(hd_stat(&d, "blocks_bad"), 0);
	T(strstr(hd_ask(&d, "dev list"), "\"state\":\"up\""));
	/* New slabs, new sessions, as before. */
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	kvc_destroy(k);
	k = plain_client(&d, "other", 64);
	open_publish(k, 1, 60, 9);
	T_EQ(kvc_seq_unshare(k, 1, 1, 0, 5, 0), 1);
	expect_chain(k, 1, 60, 9);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* The same under moves to RAM and back: chains of four times as many blocks as HBM has. */
START_TEST(moves_survive_a_broken_context)
{
	unsigned char keys[8][KEY];
	struct kvc *k;

	if (!test_only_fake())
		return;
	hd_prepare_fake(&d, POOL GPU "[ram]\nbytes = 16M\nlock = no\nhugetlb = no\n",
			"fail=cuMemcpyAsync:5:700,fail=cuMemcpyAsync:30:700,"
			"fail=cuMemcpyBatchAsync:2:700,fail=cuEventQuery:200:719");
	hd_run(&d);
	device_fake("");
	hd_said(&d, " ready after ");
	k = plain_client(&d, "sp", 16);
	for (uint32_t i = 0; i < 8; i++) {
		open_publish(k, 1, 8, 60 + i);
		T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	}
	for (uint32_t i = 0; i < 16; i++) {
		make_keys(keys, 60 + i % 8, 0, 8);
		T_EQ(kvc_seq_open(k, 1, 1, keys, 8, 0, 0, 0, NULL), 8);
		expect_chain(k, 1, 8, 60 + i % 8);
		T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	}
	T(hd_stat(&d, "dev_resets") >= 1);
	hd_check(&d);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* It never comes back: its spaces fail, the other device's go on. */
START_TEST(a_lost_gpu_is_done_without)
{
	struct kvc *k, *host;
	struct kvc_space s;

	if (!test_only_fake())
		return;
	hd_prepare_fake(&d, POOL GPU HOST, "fail=cuMemcpyBatchAsync:1:700:100000,"
		"fail=cuMemcpyAsync:1:700:100000,fail=cuDevicePrimaryCtxRetain:2:700:100000");
	hd_run(&d);
	device_fake("");
	plain_space(&s, "h", 32);
	s.device[0] = "host-0";
	host = client(&d, &s);
	plain_space(&s, "sp", 32);
	s.device[0] = "gpu";
	k = client(&d, &s);
	open_publish(k, 1, 4, 7);
	T(kvc_seq_unshare(k, 1, 1, 0, 1, 0) < 0);
	hd_said(&d, "device gpu: ");
	open_publish(host, 1, 8, 9);
	T_EQ(kvc_seq_unshare(host, 1, 1, 0, 3, 0), 1);
	expect_chain(host, 1, 8, 9);
	T_EQ(kvc_nop(k), 0);
	expect_chain(k, 1, 4, 7);	/* the client's own GPU context is not the daemon's */
	hd_check(&d);
	kvc_destroy(k);
	kvc_destroy(host);
	hd_stop(&d);
}
END_TEST

/* Memory that is broken is used no more, and told. */
START_TEST(broken_memory_is_never_used_again)
{
	unsigned char keys[6][KEY];
	struct kvc *k;

	if (!test_only_fake())
		return;
	hd_prepare_fake(&d, POOL GPU, "ecc=2");
	hd_run(&d);
	device_fake("");
	k = plain_client(&d, "sp", 16);
	open_publish(k, 1, 6, 7);
	T_EQ(kvc_seq_unshare(k, 1, 1, 0, 0, 0), 1);
	T_EQ(kvc_seq_unshare(k, 1, 1, 0, 1, 0), -EIO);
	T(hd_stat(&d, "blocks_bad") >= 1);
	make_keys(keys, 7, 0, 6);
	T_EQ(kvc_lookup(k, 0, keys, 6, NULL), 1);	/* nor is it shared any more */
	T_EQ(kvc_seq_unshare(k, 1, 1, 0, 2, 0), 1);
	T_EQ(kvc_seq_unshare(k, 1, 1, 0, 3, 0), 1);
	T(holds(k, 0, slot_of(k, 1, 2), (7 << 8) + 2));
	T(holds(k, 0, slot_of(k, 1, 3), (7 << 8) + 3));
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	hd_check(&d);
	/* The shared one goes when all behind it are gone. */
	whole_pool(k, 14);
	T_EQ(kvc_seq_open(k, 2, 1, NULL, 0, 0, 0, 0, NULL), 0);
	T(kvc_seq_extend(k, 2, 1, 0, 15, 0, 20000000, NULL) < 0);
	T_EQ(hd_stat(&d, "blocks_bad"), 2);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* ------------------------------------------------------------------- restart */

START_TEST(the_keeper_keeps_the_memory_of_gpus)
{
	struct fakecuda_sum was, is;
	struct kvc *k;

	hd_prepare(&d);
	d.keeper = true;
	hd_conf(&d, POOL GPU);
	hd_run(&d);
	k = plain_client(&d, "sp", 32);
	open_publish(k, 1, 8, 7);
	if (test_fake_cuda())
		T_EQ(fakecuda_state(device_state(), &was), 0);
	for (int i = 0; i < 2; i++) {
		T_EQ(kill(hd_daemon_pid(&d), i ? SIGTERM : SIGKILL), 0);
		hd_said(&d, " serves ");
		T_EQ(kvc_reconnect(k), 1);
		expect_chain(k, 1, 8, 7);
		T_EQ(kvc_seq_unshare(k, 1, 1, 0, 2 + (uint32_t)i, 0), 1);
		expect_chain(k, 1, 8, 7);
		hd_check(&d);
	}
	if (test_fake_cuda()) {
		T_EQ(fakecuda_state(device_state(), &is), 0);
		T_EQ(is.nr_mem, was.nr_mem);
		T_EQ(is.mem_bytes, was.mem_bytes);
	}
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cuda_fail");
	TCase *t = suite_group(s, "cuda_fail", NULL, NULL);

	setenv("KVMD_TEST_DEVICE", "cuda", 1);
	tcase_add_loop_test(t, a_device_that_is_not_there_is_named_and_done_without, 0,
			    (int)(sizeof(bad) / sizeof(bad[0])));
	tcase_add_test(t, a_gpu_is_named_once);
	tcase_add_test(t, a_space_asks_for_a_device_that_is_down);
	tcase_add_test(t, a_broken_context_is_made_anew);
	tcase_add_test(t, moves_survive_a_broken_context);
	tcase_add_test(t, a_lost_gpu_is_done_without);
	tcase_add_test(t, broken_memory_is_never_used_again);
	tcase_add_test(t, the_keeper_keeps_the_memory_of_gpus);
	return suite_run(s);
}
