/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_cuda.c - what only pools on GPUs can do, or can suffer.
 *
 * A real daemon on the fake driver, several client processes; what a real driver
 * can be made to do, too ($KVMD_REAL_CUDA=1), is tested there as well. That the rest
 * works as on the host, the other suites show when they run as "cuda:".
 */
#include "tests/fakecuda/fakecuda.h"
#include "tests/harness.h"
#include "tests/harness_int.h"
#include "tests/suite.h"

#include <kvmd/cuda_abi.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define POOL	"[pool]\npolicy = lru\nslab_bytes = 1M\nblocks = 4096\nwmark_low = 0\n" \
		"wmark_high = 0\ndeadlock_time = 1h\nslab_deadline = 5ms\n"
#define GPU	"[device gpu]\nkind = cuda\ngrace = 0\n"
#define ROUNDS	50u

static struct hd d;

/* ------------------------------------------------------------------- sharing */

static void writer(struct peer *me, struct hd *hd, void *arg)
{
	struct kvc *k = plain_client(hd, "sp", 32);

	(void)arg;
	open_publish(k, 1, 8, 7);
	say(me, 1);
	hear(me);
	kvc_destroy(k);
}

static void reader(struct peer *me, struct hd *hd, void *arg)
{
	unsigned char keys[8][KEY];
	struct kvc *k = plain_client(hd, "sp", 32);

	(void)arg;
	make_keys(keys, 7, 0, 8);
	T_EQ(kvc_seq_open(k, 1, 1, keys, 8, 8 * BT, 0, 0, NULL), 8);
	for (uint32_t i = 0; i < 8; i++)
		T(holds(k, 0, (uint32_t)slot_at(k, 0, 1, i), (7 << 8) + i));
	say(me, 1);
	hear(me);
	kvc_destroy(k);
}

START_TEST(a_prefix_of_another_process_costs_no_copy)
{
	struct peer a, b;

	hd_start(&d, POOL GPU);
	peer_start(&a, &d, writer, NULL, 0);
	T_EQ(hear(&a), 1);
	peer_start(&b, &d, reader, NULL, 0);
	T_EQ(hear(&b), 1);
	T_EQ(hd_stat(&d, "blocks_hit"), 8);
	T_EQ(hd_stat(&d, "bytes_copied"), 0);
	T_EQ(hd_stat(&d, "dev_copied_out_bytes"), 0);
	T_EQ(hd_stat(&d, "dev_copied_in_bytes"), 0);
	T_EQ(hd_stat(&d, "dev_copied_within_bytes"), 0);
	say(&a, 0);
	say(&b, 0);
	peer_end(&a);
	peer_end(&b);
	hd_stop(&d);
}
END_TEST

/* Open, extend, publish, look up, close, on memory that was mapped before. */
static void worker(struct peer *me, struct hd *hd, void *arg)
{
	struct kvc *k = plain_client(hd, "sp", 64);
	unsigned char keys[8][KEY];

	(void)arg;
	open_publish(k, 1, 8, 7);
	whole_pool(k, 64 - 8);
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	say(me, 1);
	hear(me);
	for (uint32_t i = 0; i < ROUNDS; i++) {
		make_keys(keys, 100 + i / 2, 0, 8);
		T_EQ(kvc_seq_open(k, 1, 1, keys, 8, 8 * BT, 0, 0, NULL), i % 2 ? 4 : 0);
		T_EQ(kvc_seq_extend(k, 1, 1, 0, i % 2 ? 4 : 8, 0, WAIT_NS, NULL), i % 2 ? 4 : 8);
		T_EQ(kvc_seq_publish(k, 1, 1, 0, i % 2 ? 4 : 0, keys[i % 2 ? 4 : 0], 4, 0, NULL),
		     4);
		T_EQ(kvc_lookup(k, 0, keys, 8, NULL), i % 2 ? 8 : 4);
		T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	}
	say(me, 2);
	hear(me);
	kvc_destroy(k);
}

START_TEST(requests_make_no_driver_call)
{
	uint64_t client, daemon;
	struct peer p;

	if (!test_only_fake())
		return;
	hd_start(&d, POOL GPU);
	peer_start(&p, &d, worker, NULL, 0);
	T_EQ(hear(&p), 1);
	client = fakecuda_state_calls(device_state(), p.pid);
	daemon = fakecuda_state_calls(device_state(), d.pid);
	T(client > 0 && daemon > 0);
	say(&p, 0);
	T_EQ(hear(&p), 2);
	T_EQ(fakecuda_state_calls(device_state(), p.pid), client);
	T_EQ(fakecuda_state_calls(device_state(), d.pid), daemon);
	say(&p, 0);
	peer_end(&p);
	hd_stop(&d);
}
END_TEST

/* By the copy engine, past the library's own check. */
static void scribbler(struct peer *me, struct hd *hd, void *arg)
{
	struct kvc *k = plain_client(hd, "sp", 32);
	static struct cu cu;
	unsigned char keys[1][KEY];
	char msg[256] = "", junk[64] = "junk";
	const void *at;
	cu_stream s;
	cu_ctx ctx;
	int r;

	(void)arg;
	make_keys(keys, 7, 0, 1);
	T_EQ(kvc_seq_open(k, 1, 1, keys, 1, BT, 0, 0, NULL), 1);
	at = kvc_addr_ro(kvc_view(k), 0, 0, 0, (uint32_t)slot_at(k, 0, 1, 0));
	T_EQ(cu_load(&cu, msg, sizeof(msg)), 0);
	T(!cu.ctx_retain(&ctx, kvc_cuda_device(k, 0)) && !cu.ctx_set(ctx));
	T(!cu.stream_create(&s, 1, 0));
	r = cu.copy((cu_ptr)(uintptr_t)at, (cu_ptr)(uintptr_t)junk, sizeof(junk), s);
	T(r || cu.stream_sync(s));
	say(me, 1);
	peer_halt(me);
}

START_TEST(a_copy_engine_cannot_write_through_the_reading_window)
{
	struct peer p;
	struct kvc *k;

	hd_start(&d, POOL GPU);
	k = plain_client(&d, "sp", 32);
	open_publish(k, 1, 1, 7);
	peer_start(&p, &d, scribbler, NULL, 0);
	T_EQ(hear(&p), 1);
	peer_kill(&p);
	T(holds(k, 0, (uint32_t)slot_at(k, 0, 1, 0), 7 << 8));
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* ------------------------------------------------------------------- clients */

static void blind(struct peer *me, struct hd *hd, void *arg)
{
	struct kvc_space s;
	struct kvc_opts o;
	struct kvc *k;

	(void)arg;
	if (test_fake_cuda())
		setenv("KVMD_FAKECUDA", "gpus=0", 1);
	else
		setenv("CUDA_VISIBLE_DEVICES", "", 1);
	plain_space(&s, "sp", 32);
	opts_for(hd, &o);
	T_EQ(kvc_create(&o, &s, &k), -ENODEV);
	T(*kvc_refusal());
	say(me, 1);
}

START_TEST(a_client_that_sees_no_gpu_is_told)
{
	struct peer p;
	struct kvc *k;

	hd_start(&d, POOL GPU);
	peer_start(&p, &d, blind, NULL, 0);
	T_EQ(hear(&p), 1);
	peer_end(&p);
	k = plain_client(&d, "sp", 32);
	whole_pool(k, 32);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

static void parent(struct peer *me, struct hd *hd, void *arg)
{
	struct kvc *k = plain_client(hd, "sp", 32), *mine;
	struct kvc_space s;
	struct kvc_opts o;
	pid_t pid;

	(void)arg;
	open_publish(k, 1, 4, 7);
	pid = fork();
	if (!pid) {
		plain_space(&s, "sp", 32);
		opts_for(hd, &o);
		T_EQ(kvc_create(&o, &s, &mine), -ENODEV);
		T(strstr(kvc_refusal(), "fork before the first session"));
		_exit(0);
	}
	T_EQ(test_wait(pid), 0);
	T(holds(k, 0, (uint32_t)slot_at(k, 0, 1, 3), (7 << 8) + 3));
	kvc_destroy(k);
	say(me, 1);
}

START_TEST(a_child_forked_too_late_is_told)
{
	struct peer p;

	hd_start(&d, POOL GPU);
	peer_start(&p, &d, parent, NULL, 0);
	T_EQ(hear(&p), 1);
	peer_end(&p);
	hd_stop(&d);
}
END_TEST

/* More planes than it may have descriptors: they come in batches and are closed. */
static void short_of_fds(struct peer *me, struct hd *hd, void *arg)
{
	struct rlimit lim;
	struct kvc_space s;
	struct kvc_opts o;
	struct kvc *k = NULL;
	int err;

	(void)arg;
	plain_space(&s, "sp", 32);
	s.group[0].planes = 64;
	opts_for(hd, &o);
	T(!getrlimit(RLIMIT_NOFILE, &lim));
	lim.rlim_cur = 24;
	T(!setrlimit(RLIMIT_NOFILE, &lim));
	err = kvc_create(&o, &s, &k);
	/* The first slab comes with the space's reply, or soon after it. */
	while (!err)
		err = kvc_nop(k);
	/* A real driver does not even start with so few. */
	T(test_fake_cuda() ? strstr(kvc_refusal(), "raise RLIMIT_NOFILE") : kvc_refusal());
	kvc_destroy(k);
	say(me, 1);
}

START_TEST(a_client_without_descriptors_is_told)
{
	struct kvc_space s;
	struct peer p;
	struct kvc *k;

	hd_start(&d, POOL GPU);
	peer_start(&p, &d, short_of_fds, NULL, 0);
	T_EQ(hear(&p), 1);
	peer_end(&p);
	plain_space(&s, "sp", 32);
	s.group[0].planes = 64;
	k = client(&d, &s);
	open_publish(k, 1, 4, 7);
	T(holds(k, 0, (uint32_t)slot_at(k, 0, 1, 3), (7 << 8) + 3));
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* ------------------------------------------------------------------ geometry */

/* Planes of 4 KiB a block where memory comes in pieces of 2 MiB. */
START_TEST(planes_smaller_than_a_piece_share_it)
{
	struct kvc_space s;
	struct kvc_opts o;
	struct kvc *k;

	if (!test_only_fake() || test_skip(test_bytes(1) > 1, "it has a scale of its own"))
		return;
	hd_prepare_fake(&d, POOL GPU "bytes = 16M\n", "granularity=2M");
	hd_run(&d);
	plain_space(&s, "sp", 1023);
	s.group[0].planes = 4;
	k = client(&d, &s);
	open_publish(k, 1, 600, 7);	/* two slabs of 512 slots, and all memory */
	for (uint32_t i = 0; i < 600; i += 7)
		T(holds(k, 0, (uint32_t)slot_at(k, 0, 1, i), (7 << 8) + i));
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	whole_pool(k, 1023);
	kvc_destroy(k);
	plain_space(&s, "many", 1023);
	s.group[0].planes = 9;
	opts_for(&d, &o);
	T_EQ(kvc_create(&o, &s, &k), -ENOMEM);
	T(strstr(kvc_refusal(), "fewer planes"));
	hd_stop(&d);
}
END_TEST

/* --------------------------------------------------------------- other handles */

START_TEST(legacy_handles_end_to_end)
{
	struct peer a, b;

	hd_start(&d, POOL GPU "ipc = legacy\nbytes = 16M\n");
	T(strstr(hd_ask(&d, "dev list"), "legacy"));
	peer_start(&a, &d, writer, NULL, 0);
	T_EQ(hear(&a), 1);
	peer_start(&b, &d, reader, NULL, 0);
	T_EQ(hear(&b), 1);
	T_EQ(hd_stat(&d, "blocks_hit"), 8);
	say(&a, 0);
	say(&b, 0);
	peer_end(&a);
	peer_end(&b);
	hd_stop(&d);
}
END_TEST

/* -------------------------------------------------------------------- two GPUs */

static uint32_t slot_of(struct kvc *k, uint32_t seq, uint32_t pos)
{
	return (uint32_t)slot_at(k, 0, seq, pos);
}

static void expect_chain(struct kvc *k, uint32_t seq, uint32_t nr, uint32_t stream)
{
	for (uint32_t i = 0; i < nr; i++)
		T(holds(k, 0, slot_of(k, seq, i), (stream << 8) + i));
}

#define TWO	"[device a]\nkind = cuda\ngrace = 0\n[device b]\nkind = cuda\ngrace = 0\n"

/* The other machine has only one. */
static bool two_gpus(void)
{
	return !test_skip(!test_fake_cuda(), "two GPUs are the fake driver's");
}

static void two_space(struct kvc_space *s)
{
	plain_space(s, "sp", 32);
	s->nr_shards = 2;
}

START_TEST(two_gpus_are_two_shards)
{
	struct kvc_space s;
	struct kvc *k;

	if (!two_gpus())
		return;
	hd_start(&d, POOL TWO);
	two_space(&s);
	k = client(&d, &s);
	T_EQ(kvc_cuda_device(k, 0), 0);
	T_EQ(kvc_cuda_device(k, 1), 1);
	open_publish(k, 1, 8, 7);
	T_EQ(kvc_seq_unshare(k, 1, 1, 0, 3, 0), 1);
	expect_chain(k, 1, 8, 7);
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	whole_pool(k, 32);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* What fill() and holds() do, of the one shard that this rank has. */
static void fill_shard(struct kvc *k, uint32_t sh, uint32_t slot, uint64_t word)
{
	const struct kvc_view *v = kvc_view(k);
	uint64_t bytes = v->group[0].plane_bytes, *buf = malloc(bytes);

	T(buf);
	for (uint64_t i = 0; i < bytes / 8; i++)
		buf[i] = word ^ (uint64_t)sh << 40 ^ i << 20;
	T_EQ(kvc_mem_put(k, kvc_addr(v, 0, sh, 0, slot), buf, bytes), 0);
	free(buf);
}

static void rank1(struct peer *me, struct hd *hd, void *arg)
{
	struct kvc_opts o;
	struct kvc *k;
	uint64_t token = hear(me), slot;

	(void)arg;
	setenv("CUDA_VISIBLE_DEVICES", "1", 1);
	opts_for(hd, &o);
	T_EQ(kvc_join(&o, token, 1, &k), 0);
	T_EQ(kvc_cuda_device(k, 0), -ENODEV);
	T_EQ(kvc_cuda_device(k, 1), 0);		/* its only one */
	T(!kvc_view(k)->group[0].plane[0].rw);
	say(me, 1);
	slot = hear(me);
	T_EQ(kvc_poll(k), 0);
	fill_shard(k, 1, (uint32_t)slot, 7 << 8);
	kvc_step_complete(k, 1, 1);
	say(me, 2);
	hear(me);
	kvc_destroy(k);
}

static void rank0(struct peer *me, struct hd *hd, void *arg)
{
	unsigned char key[1][KEY];
	struct kvc_space s;
	struct kvc_opts o;
	struct kvc *k;

	(void)arg;
	setenv("CUDA_VISIBLE_DEVICES", "0", 1);
	two_space(&s);
	opts_for(hd, &o);
	o.nr_ranks = 2;
	k = client_opts(hd, &s, &o);
	T_EQ(kvc_cuda_device(k, 0), 0);
	T_EQ(kvc_cuda_device(k, 1), -ENODEV);
	say(me, kvc_group_token(k));
	hear(me);
	T_EQ(kvc_seq_open(k, 1, 1, NULL, 0, BT, 0, 0, NULL), 0);
	T_EQ(kvc_seq_extend(k, 1, 1, 0, 1, 0, WAIT_NS, NULL), 1);
	kvc_step_submit(k, 1);
	fill_shard(k, 0, slot_of(k, 1, 0), 7 << 8);
	kvc_step_complete(k, 0, 1);
	say(me, slot_of(k, 1, 0));
	make_keys(key, 7, 0, 1);
	T_EQ(kvc_seq_publish(k, 1, 1, 0, 0, key, 1, 1, NULL), 1);	/* both are over */
	say(me, 2);
	hear(me);
	kvc_destroy(k);
}

START_TEST(ranks_have_a_gpu_each)
{
	unsigned char key[1][KEY];
	struct kvc_space s;
	struct peer a, b;
	struct kvc *k;

	if (!two_gpus())
		return;
	hd_start(&d, POOL TWO);
	peer_start(&a, &d, rank0, NULL, 0);
	peer_start(&b, &d, rank1, NULL, 0);
	say(&b, hear(&a));
	T_EQ(hear(&b), 1);
	say(&a, 0);
	say(&b, hear(&a));
	T_EQ(hear(&b), 2);
	T_EQ(hear(&a), 2);
	/* Somebody who sees both GPUs. */
	two_space(&s);
	k = client(&d, &s);
	make_keys(key, 7, 0, 1);
	T_EQ(kvc_seq_open(k, 1, 1, key, 1, BT, 0, 0, NULL), 1);
	expect_chain(k, 1, 1, 7);
	say(&b, 0);
	say(&a, 0);
	peer_end(&b);
	peer_end(&a);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cuda");
	TCase *t = suite_group(s, "cuda", NULL, NULL);

	setenv("KVMD_TEST_DEVICE", "cuda", 1);
	tcase_add_test(t, a_prefix_of_another_process_costs_no_copy);
	tcase_add_test(t, requests_make_no_driver_call);
	tcase_add_test(t, a_copy_engine_cannot_write_through_the_reading_window);
	tcase_add_test(t, a_client_that_sees_no_gpu_is_told);
	tcase_add_test(t, a_child_forked_too_late_is_told);
	tcase_add_test(t, a_client_without_descriptors_is_told);
	tcase_add_test(t, planes_smaller_than_a_piece_share_it);
	tcase_add_test(t, legacy_handles_end_to_end);
	tcase_add_test(t, two_gpus_are_two_shards);
	tcase_add_test(t, ranks_have_a_gpu_each);
	return suite_run(s);
}
