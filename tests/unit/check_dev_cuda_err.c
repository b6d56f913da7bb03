/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_dev_cuda_err.c - GPUs over the fake driver: when it fails.
 *
 * Errors that end a context, memory that is broken or not there, copies that never
 * end, a GPU that is lost. Bytes are right afterwards, blame falls on whose fault it
 * is, and nothing is handed back that is still under way.
 */
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "kvmd/lib/fault.h"
#include "kvmd/lib/stats.h"
#include "tests/quiet.h"
#include "tests/suite.h"
#include "tests/unit/dev_rig.h"

#define EXT	(4 * GRIG_MIB)

static struct dev d;
static char msg[256];

/* ------------------------------------------------------------------ creating */

/* A driver call of a creation, and what a failure of it is called. */
static const struct {
	const char *fail;
	int err;
} steps[] = {
	{ "fail=cuMemCreate:1:2", -ENOMEM },
	{ "fail=cuMemExportToShareableHandle:1:304", -EIO },
	{ "fail=cuMemAddressReserve:1:2", -ENOMEM },
	{ "fail=cuMemMap:1:205", -EIO },
	{ "fail=cuMemSetAccess:1:1", -EINVAL },
	{ "fail=cuStreamCreateWithPriority:1:2", -ENOMEM },
	{ "fail=cuMemsetD8Async:1:1", -EINVAL },
	{ "fail=cuStreamSynchronize:1:304", -EIO },
};

static unsigned nr_fds(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

START_TEST(a_creation_that_fails_leaves_nothing)
{
	struct dev_extent e = { .fd = 99 };
	unsigned fds;

	grig_driver(steps[_i].fail);
	grig_open(&d, NULL);
	fds = nr_fds();
	ck_assert_int_eq(d.ops->extent_create(&d, EXT, &e), steps[_i].err);
	ck_assert_int_eq(e.fd, 99);
	ck_assert_uint_eq(nr_fds(), fds);
	grig_wait_trouble(1);
	ck_assert_msg(strstr(d.text, "cannot make 4 MiB of memory: CUDA_ERROR_"), "%s", d.text);
	ck_assert(!d.down);
	e = grig_extent(&d, EXT);
	grig_drop(&d, &e);
	ck_assert_uint_eq(nr_fds(), fds);
	dev_close(&d);
}
END_TEST

START_TEST(the_heap_is_empty)
{
	struct dev_opts o = grig_opts();
	struct dev_extent e = { .fd = 99 };

	/* The movers, when it is opened. */
	ck_assert_int_eq(fault_arm("alloc:nth=1", NULL, 0), 0);
	ck_assert_int_eq(grig_try(&d, &o, msg), -ENOMEM);
	dev_close(&d);
	grig_open(&d, NULL);
	ck_assert_int_eq(fault_arm("alloc:nth=1", NULL, 0), 0);
	ck_assert_int_eq(d.ops->extent_create(&d, EXT, &e), -ENOMEM);
	ck_assert_int_eq(e.fd, 99);
	fault_disarm();
	e = grig_extent(&d, EXT);
	ck_assert_int_eq(fault_arm("alloc:nth=1", NULL, 0), 0);
	ck_assert_int_eq(d.ops->extent_scrub(&d, &e), -ENOMEM);
	fault_disarm();
	grig_drop(&d, &e);
	dev_close(&d);
}
END_TEST

START_TEST(out_of_memory_is_said_once)
{
	struct dev_opts o = { .bytes = 16 * GRIG_MIB };
	struct dev_extent e[4], more = { .fd = 99 };

	grig_driver("mem=16M");
	grig_open(&d, &o);
	for (int i = 0; i < 4; i++)
		e[i] = grig_extent(&d, EXT);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(d.ops->extent_create(&d, EXT, &more), -ENOMEM);
	ck_assert_int_eq(more.fd, 99);
	grig_wait_trouble(1);
	ck_assert_ptr_nonnull(strstr(d.text, "other processes took"));
	ck_assert_uint_eq(workers_reap(grig_w), 0);
	grig_drop(&d, &e[0]);
	e[0] = grig_extent(&d, EXT);
	ck_assert_int_eq(d.ops->extent_create(&d, EXT, &more), -ENOMEM);
	grig_wait_trouble(2);
	for (int i = 0; i < 4; i++)
		grig_drop(&d, &e[i]);
	dev_close(&d);
}
END_TEST

/* ----------------------------------------------------------------- registering */

START_TEST(memory_that_cannot_be_pinned)
{
	struct dev_extent a, ram = grig_chunk(EXT, false);

	grig_driver("fail=cuMemHostRegister:1:2");
	/* No GPU: nobody wants it. */
	ck_assert_int_eq(dev_host_pin(ram.map, EXT, msg, sizeof(msg)), 0);
	grig_open(&d, NULL);
	ck_assert_int_eq(dev_host_pin(ram.map, EXT, msg, sizeof(msg)), -ENOMEM);
	ck_assert_msg(strstr(msg, "LimitMEMLOCK="), "%s", msg);
	a = grig_extent(&d, EXT);
	memset(ram.map, 4, EXT);
	ck_assert_int_eq(grig_copy(&d, &a, 0, &ram, 0, EXT, false), 0);
	ck_assert_mem_eq(grig_bytes(&a), ram.map, EXT);
	ck_assert_int_eq(dev_host_pin(ram.map, EXT, msg, sizeof(msg)), 1);
	grig_drop(&d, &a);
	grig_drop(&d, &ram);
	ck_assert_uint_eq(grig_calls("cuMemHostUnregister"), 1);
	dev_close(&d);
}
END_TEST

/* ------------------------------------------------------------- broken contexts */

/* Two at most: a batch is tried three times. */
static const char *const breaks[] = {
	"fail=cuMemcpyBatchAsync:3:700,fail=cuMemcpyAsync:40:719",
	"fail=cuMemcpyBatchAsync:3:700,fail=cuEventQuery:60:999",
	"fail=cuEventRecord:5:719,fail=cuEventRecord:50:719",
	"fail=cuEventQuery:20:226",
	"driver=12000,fail=cuMemcpyAsync:30:700,fail=cuMemcpyAsync:130:700",
	"fail=cuStreamCreateWithPriority:4:2,fail=cuMemcpyBatchAsync:2:1",
};

START_TEST(a_context_is_rebuilt_under_traffic)
{
	bool sticky = _i < 5;

	grig_driver(breaks[_i]);
	grig_open(&d, NULL);
	grig_traffic(&d, 8, 100 + (uint64_t)_i);
	grig_settle();
	ck_assert((d.nr_resets > 0) == sticky);
	ck_assert_uint_eq(stat_get(DEV_RESETS), d.nr_resets);
	ck_assert(!d.down);
	if (sticky) {
		ck_assert_msg(strstr(d.text, "it was made anew"), "%s", d.text);
		/* Two chunks are pinned, and again after a reset. */
		ck_assert_uint_gt(grig_calls("cuMemHostRegister"), 2);
	}
	dev_close(&d);
}
END_TEST

/* Two calls break it, wherever they are: at worst one within the other's repair. */
START_TEST(a_context_breaks_anywhere)
{
	char conf[128];

	snprintf(conf, sizeof(conf), "seed=%d,fail=cuEventQuery:%d:719,fail=cuMemcpyBatchAsync:%d:700",
		 _i + 1, 1 + _i * _i, 1 + _i % 11);
	grig_driver(conf);
	grig_open(&d, NULL);
	grig_traffic(&d, 3, 500 + (uint64_t)_i);
	ck_assert(!d.down);
	dev_close(&d);
}
END_TEST

/* A worker's call breaks the context: it is done again in the next one. */
START_TEST(a_creation_survives_a_broken_context)
{
	struct dev_extent a, b, ram;

	grig_driver("fail=cuMemsetD8Async:2:719,fail=cuMemsetD8Async:5:719");
	grig_open(&d, NULL);
	a = grig_extent(&d, EXT);
	memset(grig_bytes(&a), 3, EXT);
	b = grig_extent(&d, EXT);
	ck_assert_int_eq(grig_bytes(&a)[EXT - 1], 3);
	ck_assert_int_eq(grig_bytes(&b)[EXT - 1], 0);
	memset(grig_bytes(&b), 3, EXT);
	ck_assert_int_eq(d.ops->extent_scrub(&d, &b), 0);
	memset(grig_bytes(&b), 3, EXT);
	ck_assert_int_eq(d.ops->extent_scrub(&d, &b), 0);
	ck_assert_int_eq(grig_bytes(&b)[0] | grig_bytes(&b)[EXT - 1], 0);
	grig_settle();
	ck_assert_uint_eq(d.nr_resets, 2);
	ram = grig_chunk(EXT, true);
	ck_assert_int_eq(grig_copy(&d, &ram, 0, &a, 0, EXT, true), 0);
	ck_assert_int_eq(((uint8_t *)ram.map)[77], 3);
	grig_drop(&d, &ram);
	grig_drop(&d, &a);
	grig_drop(&d, &b);
	dev_close(&d);
}
END_TEST

/* The wait for a scrub fails, and so does the question whether it is over: it might go on. */
START_TEST(a_scrub_whose_end_is_unknown_ends_the_context)
{
	struct dev_extent a;

	grig_driver("fail=cuStreamSynchronize:2:304,fail=cuStreamQuery:1:304");
	grig_open(&d, NULL);
	a = grig_extent(&d, EXT);
	memset(grig_bytes(&a), 3, EXT);
	ck_assert_int_eq(d.ops->extent_scrub(&d, &a), 0);
	ck_assert_int_eq(grig_bytes(&a)[0] | grig_bytes(&a)[EXT - 1], 0);
	grig_settle();
	ck_assert_uint_eq(d.nr_resets, 1);
	grig_drop(&d, &a);
	dev_close(&d);
}
END_TEST

/* Of blocks in granules of their own one is broken: only its copies fail, and always. */
START_TEST(broken_memory_is_blamed_alone)
{
	enum { NR = 8, BLOCK = 65536 };
	struct dev_extent e[NR], ram;
	struct dev_copy k[NR];
	struct dev_batch b[NR];
	unsigned poisoned = 0, which = NR;

	grig_driver("ecc=14,mem=128M");
	grig_open(&d, NULL);
	ram = grig_chunk(NR * BLOCK, true);
	for (int i = 0; i < NR; i++) {
		e[i] = grig_extent(&d, 2 * GRIG_MIB);
		memset(grig_bytes(&e[i]), i + 1, BLOCK);
	}
	for (int round = 0; round < 3; round++) {
		memset(ram.map, 0, NR * BLOCK);
		for (unsigned i = 0; i < NR; i++) {
			k[i] = (struct dev_copy) { .src = &e[i], .dst = &ram,
						   .dst_off = (uint64_t)i * BLOCK, .bytes = BLOCK };
			b[i] = (struct dev_batch) { .copy = &k[i], .nr = 1, .urgent = i % 3 == 2,
						    .done = grig_done };
			d.ops->copy(&d, &b[i]);
		}
		grig_wait(NR * ((unsigned)round + 1));
		poisoned = 0;
		for (unsigned i = 0; i < NR; i++) {
			if (b[i].err) {
				ck_assert_int_eq(b[i].err, -EHWPOISON);
				ck_assert(which == NR || which == i);
				which = i;
				poisoned++;
				continue;
			}
			ck_assert_int_eq(((uint8_t *)ram.map)[i * BLOCK], i + 1);
			ck_assert_int_eq(((uint8_t *)ram.map)[(i + 1) * BLOCK - 1], i + 1);
		}
	}
	ck_assert_uint_eq(poisoned, 1);
	grig_settle();
	ck_assert_uint_ge(d.nr_resets, 2);
	ck_assert(!d.down);
	ck_assert_int_eq(d.ops->extent_scrub(&d, &e[which]), -EHWPOISON);
	for (int i = 0; i < NR; i++)
		grig_drop(&d, &e[i]);
	grig_drop(&d, &ram);
	dev_close(&d);
}
END_TEST

/* Two in a row for one batch: given up; the others go on. */
START_TEST(a_batch_that_breaks_contexts_is_given_up)
{
	struct dev_extent a, ram;

	grig_driver("fail=cuEventRecord:1:719:3");
	grig_open(&d, NULL);
	a = grig_extent(&d, EXT);
	ram = grig_chunk(EXT, true);
	ck_assert_int_eq(grig_copy(&d, &a, 0, &ram, 0, EXT, false), -EIO);
	ck_assert_uint_eq(d.copied_bytes[DEV_IN], 0);
	ck_assert_int_eq(grig_copy(&d, &a, 0, &ram, 0, EXT, false), 0);
	grig_settle();
	ck_assert_uint_eq(d.nr_resets, 3);
	grig_drop(&d, &a);
	grig_drop(&d, &ram);
	dev_close(&d);
}
END_TEST

/* ------------------------------------------------------------------- lost GPUs */

static const char *const ends[] = {
	"gpus=2,fail=cuEventRecord:1:719,fail=cuDevicePrimaryCtxRetain:3:999:100",
	"gpus=2,fail=cuEventRecord:1:719,fail=cuMemImportFromShareableHandle:1:999:100",
};

START_TEST(a_gpu_is_lost)
{
	struct dev_extent a, other, ram, e = { .fd = 99 };
	struct dev d2;

	grig_driver(ends[_i]);
	grig_open(&d, NULL);
	grig_open(&d2, NULL);
	a = grig_extent(&d, EXT);
	other = grig_extent(&d2, EXT);
	ram = grig_chunk(EXT, true);
	memset(ram.map, 8, EXT);
	ck_assert_int_eq(grig_copy(&d, &a, 0, &ram, 0, EXT, false), -EIO);
	grig_wait_trouble(1);
	ck_assert(d.down);
	ck_assert_msg(strstr(d.text, "lost after CUDA_ERROR_LAUNCH_FAILED"), "%s", d.text);
	ck_assert_int_eq(grig_copy(&d, &ram, 0, &a, 0, EXT, true), -EIO);
	ck_assert_int_eq(d.ops->extent_create(&d, EXT, &e), -ENODEV);
	ck_assert_int_eq(d.ops->extent_scrub(&d, &a), -ENODEV);
	ck_assert_int_eq(e.fd, 99);
	/* The other one goes on, and memory is registered through it. */
	ck_assert_int_eq(grig_copy(&d2, &other, 0, &ram, 0, EXT, false), 0);
	ck_assert_int_eq(grig_bytes(&other)[EXT - 1], 8);
	grig_settle();
	ck_assert_uint_eq(grig_calls("cuMemHostRegister"), 2);
	ck_assert(!d2.down);
	ck_assert_int_eq(grig_copy(&d2, &other, 0, &a, 0, EXT, false), -EIO);
	grig_drop(&d, &a);
	dev_close(&d);
	grig_drop(&d2, &other);
	grig_drop(&d2, &ram);
	dev_close(&d2);
}
END_TEST

START_TEST(legacy_memory_goes_with_its_context)
{
	struct dev_opts o = grig_opts();
	struct dev_extent a, ram = grig_chunk(EXT, false);

	grig_driver("fail=cuEventRecord:2:719");
	o.legacy = true;
	grig_open(&d, &o);
	a = grig_extent(&d, EXT);
	ck_assert_int_eq(grig_copy(&d, &a, 0, &ram, 0, EXT, false), 0);
	ck_assert_int_eq(grig_copy(&d, &a, 0, &ram, 0, EXT, false), -EIO);
	grig_wait_trouble(1);
	ck_assert(d.down);
	ck_assert_msg(strstr(d.text, "ipc = legacy"), "%s", d.text);
	grig_drop(&d, &a);
	grig_drop(&d, &ram);
	dev_close(&d);
}
END_TEST

/* ------------------------------------------------------------- copies that hang */

START_TEST(a_copy_that_hangs_is_waited_for)
{
	struct dev_opts o = grig_opts();
	struct dev_extent a, b, ram;
	struct dev_copy k[2];
	struct dev_batch late[2];

	grig_driver("hang=1");
	o.copy_threads = 1;
	o.copy_timeout_ns = 20000000;
	grig_open(&d, &o);
	a = grig_extent(&d, EXT);
	b = grig_extent(&d, EXT);
	ram = grig_chunk(2 * EXT, true);
	memset(grig_bytes(&a), 6, EXT);
	for (unsigned i = 0; i < 2; i++) {
		k[i] = (struct dev_copy) { .src = &a, .src_off = i * 4096, .dst = &ram,
					   .dst_off = i * 4096, .bytes = 4096 };
		late[i] = (struct dev_batch) { .copy = &k[i], .nr = 1, .done = grig_done };
	}
	d.ops->copy(&d, &late[0]);
	grig_wait_trouble(1);
	ck_assert_msg(strstr(d.text, "out of the GPU have taken"), "%s", d.text);
	ck_assert_uint_eq(stat_get(DEV_COPY_TIMEOUTS), 1);
	d.ops->copy(&d, &late[1]);
	/* Others do not wait for it: the other way, urgent ones, work on memory. */
	ck_assert_int_eq(grig_copy(&d, &b, 0, &ram, EXT, EXT, false), 0);
	ck_assert_int_eq(grig_copy(&d, &ram, EXT, &a, 0, 4096, true), 0);
	ck_assert_int_eq(((uint8_t *)ram.map)[EXT + 4095], 6);
	ck_assert_int_eq(d.ops->extent_scrub(&d, &b), 0);
	ck_assert_uint_eq(grig_nr_done, 2);
	ck_assert(!d.down);
	grig_unhang();
	grig_wait(4);
	ck_assert_int_eq(late[0].err | late[1].err, 0);
	ck_assert_int_eq(((uint8_t *)ram.map)[0] & ((uint8_t *)ram.map)[8191], 6);
	grig_drop(&d, &a);
	grig_drop(&d, &b);
	grig_drop(&d, &ram);
	dev_close(&d);
}
END_TEST

/* A context that ends takes the hanging copy with it: it is made once more. */
START_TEST(a_reset_ends_a_copy_that_hangs)
{
	struct dev_extent a, ram;
	struct dev_copy k;
	struct dev_batch late = { .copy = &k, .nr = 1, .done = grig_done };

	grig_driver("hang=1,fail=cuMemsetD8Async:2:719");
	grig_open(&d, NULL);
	a = grig_extent(&d, EXT);
	memset(grig_bytes(&a), 6, EXT);
	ram = grig_chunk(EXT, true);
	k = (struct dev_copy) { .src = &a, .dst = &ram, .bytes = EXT };
	d.ops->copy(&d, &late);
	while (!grig_calls("cuEventQuery"))
		usleep(1000);
	ck_assert_int_eq(d.ops->extent_scrub(&d, &a), 0);
	grig_wait(1);
	ck_assert_int_eq(late.err, 0);
	ck_assert(((uint8_t *)ram.map)[0] == 6 || ((uint8_t *)ram.map)[0] == 0);
	grig_drop(&d, &a);
	grig_drop(&d, &ram);
	dev_close(&d);
}
END_TEST

/* -------------------------------------------------------------------- injected */

START_TEST(an_injected_copy_failure)
{
	struct dev_extent a, ram;

	grig_open(&d, NULL);
	a = grig_extent(&d, EXT);
	ram = grig_chunk(EXT, true);
	memset(ram.map, 7, EXT);
	ck_assert_int_eq(fault_arm("copy:nth=1", NULL, 0), 0);
	ck_assert_int_eq(grig_copy(&d, &a, 0, &ram, 0, 64, false), -EIO);
	ck_assert_int_eq(grig_bytes(&a)[0], 0);
	ck_assert_int_eq(grig_copy(&d, &a, 0, &ram, 0, 64, false), 0);
	ck_assert_int_eq(grig_bytes(&a)[63], 7);
	fault_disarm();
	grig_drop(&d, &a);
	grig_drop(&d, &ram);
	dev_close(&d);
}
END_TEST

static TCase *group(Suite *s, const char *name)
{
	return suite_slow_group(s, name, grig_init, grig_exit, 60);
}

int main(void)
{
	Suite *s = suite_create("dev_cuda_err");
	TCase *tc = group(s, "memory");

	if (!grig_is_fake()) {
		printf("SKIP: %s is not the fake driver\n", CU_LIBRARY);
		return 77;
	}
	tcase_add_loop_test(tc, a_creation_that_fails_leaves_nothing, 0, ARRAY_SIZE(steps));
	tcase_add_test(tc, the_heap_is_empty);
	tcase_add_test(tc, out_of_memory_is_said_once);
	tcase_add_test(tc, memory_that_cannot_be_pinned);
	tc = group(s, "broken contexts");
	tcase_add_loop_test(tc, a_context_is_rebuilt_under_traffic, 0, ARRAY_SIZE(breaks));
	tcase_add_loop_test(tc, a_context_breaks_anywhere, 0, 24);
	tcase_add_test(tc, a_creation_survives_a_broken_context);
	tcase_add_test(tc, a_scrub_whose_end_is_unknown_ends_the_context);
	tcase_add_test(tc, broken_memory_is_blamed_alone);
	tcase_add_test(tc, a_batch_that_breaks_contexts_is_given_up);
	tc = group(s, "lost gpus");
	tcase_add_loop_test(tc, a_gpu_is_lost, 0, ARRAY_SIZE(ends));
	tcase_add_test(tc, legacy_memory_goes_with_its_context);
	tc = group(s, "hanging copies");
	tcase_add_test(tc, a_copy_that_hangs_is_waited_for);
	tcase_add_test(tc, a_reset_ends_a_copy_that_hangs);
	tc = group(s, "injected");
	tcase_add_test(tc, an_injected_copy_failure);
	return suite_run(s);
}
