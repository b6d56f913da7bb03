/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_dev_cuda.c - GPUs over the fake driver: opening, memory, copies.
 */
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kvmd/lib/fault.h"
#include "kvmd/lib/mem.h"
#include "kvmd/lib/stats.h"
#include "kvmd/wire.h"
#include "tests/quiet.h"
#include "tests/suite.h"
#include "tests/unit/dev_rig.h"

#define EXT	(4 * GRIG_MIB)

static struct dev d;
static char msg[256];

/* ------------------------------------------------------------------ opening */

START_TEST(a_gpu_is_opened)
{
	struct dev_opts o = grig_opts();

	grig_driver("driver=12080");
	o.bytes = 33 * GRIG_MIB;
	grig_open(&d, &o);
	ck_assert_uint_eq(d.budget_bytes, 32 * GRIG_MIB);
	ck_assert_uint_eq(d.granularity, 2 * GRIG_MIB);
	ck_assert_uint_eq(d.handle_kind, KVMD_HANDLE_CUDA_VMM);
	ck_assert_uint_eq(strlen(d.uuid), 36);
	ck_assert_str_eq(d.model, "Fake GPU 0 (CUDA 12.8)");
	ck_assert(!d.down);
	dev_close(&d);
	ck_assert_ptr_null(d.priv);
	grig_open(&d, &o);
	dev_close(&d);
}
END_TEST

START_TEST(a_budget_is_a_share)
{
	struct dev_opts o = { .share = 50 };

	grig_driver("mem=100M");
	grig_open(&d, &o);
	ck_assert_uint_eq(d.budget_bytes, 50 * GRIG_MIB);
	dev_close(&d);
	o.bytes = 20 * GRIG_MIB;
	grig_open(&d, &o);
	ck_assert_uint_eq(d.budget_bytes, 20 * GRIG_MIB);
	dev_close(&d);
	o.bytes = 0;
	o.share = 1;
	ck_assert_int_eq(grig_try(&d, &o, msg), -ENOMEM);
	ck_assert_ptr_nonnull(strstr(msg, "raise it"));
	ck_assert(d.down);
	dev_close(&d);
}
END_TEST

static uint64_t two_mib_kept(const void *ctx, const char *uuid)
{
	(void)ctx;
	return strlen(uuid) == 36 ? 2 * GRIG_MIB : 0;
}

START_TEST(a_budget_that_is_not_free_is_refused)
{
	struct dev_opts o = { .bytes = 102 * GRIG_MIB };

	grig_driver("mem=100M");
	ck_assert_int_eq(grig_try(&d, &o, msg), -ENOMEM);
	ck_assert_ptr_nonnull(strstr(msg, "100 of 100 MiB free, 102 MiB are wanted"));
	ck_assert_uint_eq(d.budget_bytes, 0);
	/* What a former daemon's extents hold is ours. */
	o.kept_bytes = two_mib_kept;
	grig_open(&d, &o);
	dev_close(&d);
}
END_TEST

START_TEST(gpus_are_named_by_uuid)
{
	struct dev_opts o = grig_opts();
	struct dev a, b, c;
	char name[48];

	grig_driver("gpus=2");
	grig_open(&a, &o);
	grig_open(&b, &o);
	ck_assert_str_ne(a.uuid, b.uuid);
	ck_assert_int_eq(grig_try(&c, &o, msg), -ENODEV);
	ck_assert_ptr_nonnull(strstr(msg, "all 2 GPUs"));
	dev_close(&a);
	grig_open(&a, &o);
	snprintf(name, sizeof(name), "gpu-%s", b.uuid);
	o.uuid = name;
	ck_assert_int_eq(grig_try(&c, &o, msg), -EBUSY);
	ck_assert_ptr_nonnull(strstr(msg, "name each GPU once"));
	dev_close(&b);
	for (char *p = name; *p; p++)
		*p = (char)(*p >= 'a' && *p <= 'f' ? *p - 32 : *p);
	grig_open(&c, &o);
	ck_assert_str_eq(c.uuid, b.uuid);
	o.uuid = "GPU-12345678-0000-0000-0000-000000000000";
	ck_assert_int_eq(grig_try(&b, &o, msg), -ENODEV);
	ck_assert_ptr_nonnull(strstr(msg, "no GPU 12345678-"));
	ck_assert_ptr_nonnull(strstr(msg, a.uuid));
	ck_assert_ptr_nonnull(strstr(msg, c.uuid));
	dev_close(&c);
	dev_close(&a);
}
END_TEST

static const struct {
	const char *driver, *says;
	int err;
} refusals[] = {
	{ "mps=1", "no MPS control daemon is reached", -EPERM },
	{ "vmm=0", "set ipc = legacy", -EOPNOTSUPP },
	{ "driver=11080", "CUDA 12.0", -ENODEV },
	{ "gpus=0", "no GPU is visible", -ENODEV },
	{ "fail=cuInit:1:999", "does not start", -ENODEV },
	{ "fail=cuDevicePrimaryCtxRetain:1:46", "nvidia-smi -c DEFAULT", -ENODEV },
	{ "fail=cuMemGetInfo:1:999", "CUDA_ERROR_UNKNOWN", -EIO },
};

START_TEST(what_cannot_be_used_is_refused)
{
	struct dev_opts o = grig_opts();

	grig_driver(refusals[_i].driver);
	ck_assert_int_eq(grig_try(&d, &o, msg), refusals[_i].err);
	ck_assert_msg(strstr(msg, refusals[_i].says), "%s", msg);
	ck_assert_str_eq(d.text, msg);
	ck_assert(d.down);
	dev_close(&d);
}
END_TEST

/* What is asked of one that could not be opened. */
START_TEST(a_gpu_that_is_down_does_nothing)
{
	struct dev_opts o = grig_opts();
	struct dev_extent e = { .fd = 99 }, ram = grig_chunk(4096, false);

	grig_driver("mps=1");
	ck_assert_int_ne(grig_try(&d, &o, msg), 0);
	ck_assert_int_eq(d.ops->extent_create(&d, EXT, &e), -ENODEV);
	ck_assert_int_eq(d.ops->extent_attach(&d, 99, EXT, &e), -ENODEV);
	ck_assert_int_eq(e.fd, 99);
	ck_assert_int_eq(grig_copy(&d, &ram, 0, &ram, 0, 16, false), -EIO);
	ck_assert_int_eq(dev_host_pin(ram.map, 4096, msg, sizeof(msg)), 0);
	grig_drop(&d, &ram);
	dev_close(&d);
}
END_TEST

/* ------------------------------------------------------------------ extents */

static void filled(const uint8_t *b, uint64_t bytes, int with)
{
	for (uint64_t i = 0; i < bytes; i++)
		quiet_assert_msg(b[i] == with, "byte %llu is %d", (unsigned long long)i, b[i]);
}

START_TEST(an_extent_is_zeroed_and_exported)
{
	struct dev_extent e;

	grig_open(&d, NULL);
	e = grig_extent(&d, EXT);
	ck_assert_ptr_null(e.map);
	ck_assert_uint_eq(e.bytes, EXT);
	ck_assert_int_eq(fcntl(e.fd, F_GETFD), FD_CLOEXEC);
	filled(grig_bytes(&e), EXT, 0);
	grig_drop(&d, &e);
	dev_close(&d);
}
END_TEST

START_TEST(an_extent_is_attached_with_its_bytes)
{
	struct dev_extent e, again = { .fd = 99 };
	int fd, other = mem_fd_create("not-the-gpus", EXT, false, NULL);

	grig_open(&d, NULL);
	e = grig_extent(&d, EXT);
	memset(grig_bytes(&e), 7, EXT);
	fd = dup(e.fd);
	grig_drop(&d, &e);
	dev_close(&d);

	grig_open(&d, NULL);
	ck_assert_int_eq(d.ops->extent_attach(&d, fd, EXT / 2, &again), -EINVAL);
	ck_assert_int_eq(d.ops->extent_attach(&d, other, EXT, &again), -EINVAL);
	ck_assert_int_eq(again.fd, 99);
	ck_assert_int_ne(fcntl(fd, F_GETFD), -1);
	ck_assert_int_eq(d.ops->extent_attach(&d, fd, EXT, &again), 0);
	ck_assert_int_eq(again.fd, fd);
	filled(grig_bytes(&again), EXT, 7);
	/* As a restore that fails later does: the fd stays its owner's. */
	again.fd = -1;
	grig_drop(&d, &again);
	ck_assert_int_eq(d.ops->extent_attach(&d, fd, EXT, &again), 0);
	grig_drop(&d, &again);
	ck_assert_int_eq(fcntl(fd, F_GETFD), -1);
	close(other);
	dev_close(&d);
}
END_TEST

START_TEST(scrub_zeroes_and_proves_it)
{
	struct dev_extent e;

	grig_open(&d, NULL);
	e = grig_extent(&d, EXT);
	memset(grig_bytes(&e), 7, EXT);
	ck_assert_int_eq(fault_arm("scrub:nth=1", NULL, 0), 0);
	ck_assert_int_eq(d.ops->extent_scrub(&d, &e), -EIO);
	filled(grig_bytes(&e), EXT, 7);
	ck_assert_int_eq(d.ops->extent_scrub(&d, &e), 0);
	filled(grig_bytes(&e), EXT, 0);
	ck_assert_uint_gt(grig_calls("cuMemcpyAsync"), 10);
	fault_disarm();
	grig_drop(&d, &e);
	dev_close(&d);
}
END_TEST

START_TEST(an_injected_failure_makes_nothing)
{
	struct dev_extent e = { .fd = 99 };

	grig_open(&d, NULL);
	ck_assert_int_eq(fault_arm("slab:every=1,times=2", NULL, 0), 0);
	ck_assert_int_eq(d.ops->extent_create(&d, EXT, &e), -ENOMEM);
	ck_assert_int_eq(d.ops->extent_attach(&d, 0, EXT, &e), -ENOMEM);
	ck_assert_int_eq(e.fd, 99);
	e = grig_extent(&d, EXT);
	fault_disarm();
	grig_drop(&d, &e);
	dev_close(&d);
}
END_TEST

START_TEST(legacy_handles_are_64_bytes)
{
	struct dev_opts o = grig_opts();
	struct dev_extent e, ram = grig_chunk(EXT, false);
	struct cu_ipc_handle h;
	struct stat st;
	int fd;

	grig_driver("vmm=0");
	o.legacy = true;
	grig_open(&d, &o);
	ck_assert_uint_eq(d.handle_kind, KVMD_HANDLE_CUDA_LEGACY);
	ck_assert_uint_eq(d.granularity, 2 * GRIG_MIB);
	e = grig_extent(&d, EXT);
	filled(grig_bytes(&e), EXT, 0);
	ck_assert_int_eq(fstat(e.fd, &st), 0);
	ck_assert_int_eq(st.st_size, 64);
	ck_assert_int_eq(pread(e.fd, &h, sizeof(h), 0), 64);
	ck_assert_int_eq(pwrite(e.fd, &h, sizeof(h), 0), -1);
	memset(ram.map, 3, EXT);
	ck_assert_int_eq(grig_copy(&d, &e, 0, &ram, 0, EXT, false), 0);
	filled(grig_bytes(&e), EXT, 3);
	fd = dup(e.fd);
	grig_drop(&d, &e);
	ck_assert_int_eq(d.ops->extent_attach(&d, fd, EXT, &e), -EINVAL);
	close(fd);
	grig_drop(&d, &ram);
	dev_close(&d);
}
END_TEST

/* ------------------------------------------------------------------- copies */

START_TEST(copies_go_all_ways)
{
	struct dev_extent a, b, ram[2];

	grig_open(&d, NULL);
	a = grig_extent(&d, EXT);
	b = grig_extent(&d, EXT);
	for (int i = 0; i < 2; i++) {
		ram[i] = grig_chunk(EXT, !i);
		for (uint64_t k = 0; k < EXT; k++)
			((uint8_t *)ram[i].map)[k] = (uint8_t)(k * 7 + k / 4096);
		/* In, within, out, at odd places. */
		ck_assert_int_eq(grig_copy(&d, &a, 5, &ram[i], 5, EXT - 9, i), 0);
		ck_assert_int_eq(grig_copy(&d, &b, 1, &a, 5, EXT - 9, i), 0);
		memset(ram[i].map, 0, EXT);
		ck_assert_int_eq(grig_copy(&d, &ram[i], 0, &b, 1, EXT - 9, i), 0);
		for (uint64_t k = 5; k < EXT - 4; k++)
			quiet_assert(((uint8_t *)ram[i].map)[k - 5] == (uint8_t)(k * 7 + k / 4096));
		ck_assert_int_eq(grig_copy(&d, &ram[i], 0, &ram[i], EXT / 2, 100, i), 0);
	}
	ck_assert_uint_eq(d.copied_bytes[DEV_OUT], 2 * (EXT - 9));
	ck_assert_uint_eq(d.copied_bytes[DEV_IN], 2 * (EXT - 9));
	ck_assert_uint_eq(d.copied_bytes[DEV_WITHIN], 2 * (EXT - 9));
	ck_assert_uint_eq(stat_get(DEV_COPIED_OUT_BYTES), 2 * (EXT - 9));
	for (int i = 0; i < 2; i++)
		grig_drop(&d, &ram[i]);
	grig_drop(&d, &a);
	grig_drop(&d, &b);
	dev_close(&d);
}
END_TEST

START_TEST(neighbours_are_merged)
{
	enum { NR = 16, PIECE = 4096 };
	struct dev_extent a, ram;
	struct dev_copy k[NR];
	struct dev_batch b = { .copy = k, .nr = NR, .done = grig_done };

	grig_open(&d, NULL);
	a = grig_extent(&d, EXT);
	ram = grig_chunk(EXT, true);
	for (int i = 0; i < NR; i++)
		k[i] = (struct dev_copy) { .dst = &ram, .dst_off = (uint64_t)i * PIECE, .src = &a,
					   .src_off = 64 + (uint64_t)i * PIECE, .bytes = PIECE };
	d.ops->copy(&d, &b);
	grig_wait(1);
	ck_assert_uint_eq(stat_get(DEV_COPIES_MERGED), NR - 1);
	ck_assert_uint_eq(stat_get(DEV_COPY_GROUPS), 1);
	ck_assert_uint_eq(grig_calls("cuMemcpyAsync"), 1);
	ck_assert_uint_eq(grig_calls("cuMemcpyBatchAsync"), 0);
	/* Every other: none follows another. */
	for (int i = 0; i < NR; i++)
		k[i].src_off *= 2;
	d.ops->copy(&d, &b);
	grig_wait(2);
	ck_assert_uint_eq(stat_get(DEV_COPIES_MERGED), NR - 1);
	ck_assert_uint_eq(stat_get(DEV_COPY_GROUPS), 2);
	ck_assert_uint_eq(grig_calls("cuMemcpyAsync"), 1);
	ck_assert_uint_eq(grig_calls("cuMemcpyBatchAsync"), 1);
	ck_assert_uint_eq(d.copied_bytes[DEV_OUT], 2 * NR * PIECE);
	grig_drop(&d, &ram);
	grig_drop(&d, &a);
	dev_close(&d);
}
END_TEST

START_TEST(a_copy_keeps_to_one_registration)
{
	struct dev_extent a, ram = grig_chunk(EXT, false), half = ram;

	grig_open(&d, NULL);
	a = grig_extent(&d, EXT);
	half.bytes /= 2;
	ck_assert_int_eq(dev_host_pin(half.map, half.bytes, msg, sizeof(msg)), 1);
	ck_assert_int_eq(dev_host_pin(half.map, 4096, msg, sizeof(msg)), -EEXIST);
	memset(ram.map, 9, EXT);
	/* Across the end of the registered half, then across two of them. */
	ck_assert_int_eq(grig_copy(&d, &a, 0, &ram, 0, EXT, false), 0);
	filled(grig_bytes(&a), EXT, 9);
	ck_assert_int_eq(dev_host_pin((char *)ram.map + half.bytes, half.bytes, msg, sizeof(msg)),
			 1);
	memset(ram.map, 0, EXT);
	ck_assert_int_eq(grig_copy(&d, &ram, 0, &a, 0, EXT, false), 0);
	filled(ram.map, EXT, 9);
	dev_host_unpin((char *)ram.map + half.bytes);
	grig_drop(&d, &ram);
	grig_drop(&d, &a);
	dev_close(&d);
}
END_TEST

START_TEST(big_batches_go_in_pieces)
{
	enum { NR = 2500 };
	struct dev_extent a, ram;
	static struct dev_copy k[NR];
	struct dev_batch b = { .copy = k, .nr = NR, .done = grig_done };

	grig_open(&d, NULL);
	a = grig_extent(&d, 40 * GRIG_MIB);
	ram = grig_chunk(40 * GRIG_MIB, true);
	memset(ram.map, 5, 40 * GRIG_MIB);
	ck_assert_int_eq(grig_copy(&d, &a, 0, &ram, 0, 40 * GRIG_MIB, false), 0);
	filled(grig_bytes(&a), 40 * GRIG_MIB, 5);
	ck_assert_uint_eq(stat_get(DEV_COPY_GROUPS), 3);
	memset(ram.map, 0, 40 * GRIG_MIB);
	for (int i = 0; i < NR; i++)
		k[i] = (struct dev_copy) { .dst = &ram, .dst_off = (uint64_t)i * 100, .src = &a,
					   .src_off = (uint64_t)i * 512, .bytes = 100 };
	d.ops->copy(&d, &b);
	grig_wait(2);
	ck_assert_int_eq(b.err, 0);
	filled(ram.map, NR * 100, 5);
	filled((uint8_t *)ram.map + NR * 100, 4096, 0);
	ck_assert_uint_eq(stat_get(DEV_COPY_GROUPS), 6);
	b.nr = 0;
	d.ops->copy(&d, &b);
	grig_wait(3);
	ck_assert_int_eq(b.err, 0);
	grig_drop(&d, &ram);
	grig_drop(&d, &a);
	dev_close(&d);
}
END_TEST

/* While movers cannot enter the context, submitting goes on, without the driver. */
START_TEST(submitting_asks_nothing_of_the_driver)
{
	enum { NR = 64, PIECE = 32768 };
	struct dev_extent a, ram;
	static struct dev_copy k[NR];
	static struct dev_batch b[NR];
	uint64_t calls;

	grig_open(&d, NULL);
	a = grig_extent(&d, EXT);
	ram = grig_chunk(EXT, true);
	memset(ram.map, 6, EXT);
	pthread_rwlock_wrlock(&cuda_extent_of(&a)->c->lock);
	calls = grig_calls(NULL);
	for (unsigned i = 0; i < NR; i++) {
		k[i] = (struct dev_copy) { .src = &ram, .dst = &a, .src_off = i * PIECE,
					   .dst_off = i * PIECE, .bytes = PIECE };
		b[i] = (struct dev_batch) { .copy = &k[i], .nr = 1, .done = grig_done };
		d.ops->copy(&d, &b[i]);
	}
	ck_assert_uint_eq(grig_calls(NULL), calls);
	ck_assert_uint_eq(workers_nr_pending(grig_w), NR);
	pthread_rwlock_unlock(&cuda_extent_of(&a)->c->lock);
	grig_wait(NR);
	filled(grig_bytes(&a), NR * PIECE, 6);
	/* Batches that waited together went together. */
	ck_assert_uint_lt(stat_get(DEV_COPY_GROUPS), NR / 2);
	ck_assert_uint_gt(stat_get(DEV_COPIES_MERGED), NR / 2);
	grig_drop(&d, &ram);
	grig_drop(&d, &a);
	dev_close(&d);
}
END_TEST

static const char *const drivers[] = { "driver=13000,delay=300", "driver=12080", "driver=12000" };

START_TEST(random_traffic_moves_every_byte)
{
	grig_driver(drivers[_i]);
	grig_open(&d, NULL);
	grig_traffic(&d, 12, 1 + (uint64_t)_i);
	ck_assert((grig_calls("cuMemcpyBatchAsync") > 0) == (_i < 2));
	dev_close(&d);
}
END_TEST

START_TEST(two_gpus_at_once)
{
	struct dev e;
	struct dev_extent a, b, ram;

	grig_driver("gpus=2");
	grig_open(&d, NULL);
	grig_open(&e, NULL);
	a = grig_extent(&d, EXT);
	b = grig_extent(&e, EXT);
	ram = grig_chunk(EXT, true);
	memset(ram.map, 1, EXT);
	ck_assert_int_eq(grig_copy(&d, &a, 0, &ram, 0, EXT, false), 0);
	ck_assert_int_eq(grig_copy(&e, &b, 0, &a, 0, EXT, false), 0);
	filled(grig_bytes(&b), EXT, 1);
	grig_drop(&d, &a);
	/* What was registered through the first is registered through the second now. */
	dev_close(&d);
	ck_assert_uint_eq(grig_calls("cuMemHostRegister"), 2);
	ck_assert_uint_eq(grig_calls("cuMemHostUnregister"), 1);
	memset(ram.map, 2, EXT);
	ck_assert_int_eq(grig_copy(&e, &b, 0, &ram, 0, EXT, true), 0);
	filled(grig_bytes(&b), EXT, 2);
	grig_traffic(&e, 4, 77);
	grig_drop(&e, &b);
	grig_drop(&e, &ram);
	ck_assert_uint_eq(grig_calls("cuMemHostUnregister"), 4);
	dev_close(&e);
}
END_TEST

static TCase *group(Suite *s, const char *name)
{
	return suite_slow_group(s, name, grig_init, grig_exit, 60);
}

int main(void)
{
	Suite *s = suite_create("dev_cuda");
	TCase *tc = group(s, "opening");

	if (!grig_is_fake()) {
		printf("SKIP: %s is not the fake driver\n", CU_LIBRARY);
		return 77;
	}
	tcase_add_test(tc, a_gpu_is_opened);
	tcase_add_test(tc, a_budget_is_a_share);
	tcase_add_test(tc, a_budget_that_is_not_free_is_refused);
	tcase_add_test(tc, gpus_are_named_by_uuid);
	tcase_add_loop_test(tc, what_cannot_be_used_is_refused, 0, ARRAY_SIZE(refusals));
	tcase_add_test(tc, a_gpu_that_is_down_does_nothing);
	tc = group(s, "extents");
	tcase_add_test(tc, an_extent_is_zeroed_and_exported);
	tcase_add_test(tc, an_extent_is_attached_with_its_bytes);
	tcase_add_test(tc, scrub_zeroes_and_proves_it);
	tcase_add_test(tc, an_injected_failure_makes_nothing);
	tcase_add_test(tc, legacy_handles_are_64_bytes);
	tc = group(s, "copies");
	tcase_add_test(tc, copies_go_all_ways);
	tcase_add_test(tc, neighbours_are_merged);
	tcase_add_test(tc, a_copy_keeps_to_one_registration);
	tcase_add_test(tc, submitting_asks_nothing_of_the_driver);
	tcase_add_test(tc, big_batches_go_in_pieces);
	tcase_add_loop_test(tc, random_traffic_moves_every_byte, 0, ARRAY_SIZE(drivers));
	tcase_add_test(tc, two_gpus_at_once);
	return suite_run(s);
}
