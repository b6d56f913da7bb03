/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_client_cuda.c - slabs on GPUs as a client maps them: a scripted daemon, a
 * process that owns the memory, and the fake driver.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/suite.h"
#include "tests/unit/cuda_rig.h"

static const struct kvmd_cqe *cqe;

START_TEST(same_bytes_through_both_windows)
{
	char buf[16] = "";

	cr_start(2, 2, NULL);
	cr_create(cr_slab);
	cr_close_slab();
	cr_use_driver();
	/* Handle 3 is plane 1 of shard 1. */
	cr_put(cr_rw(1, 1, 3), "filled");
	cr_expect(cr_rw(1, 1, 3), "filled");
	cr_expect(cr_ro(1, 1, 3), "filled");
	ck_assert_int_eq(maker_get(&cr.maker, 3, 3 * PLANE, buf, 7), 0);
	ck_assert_str_eq(buf, "filled");
	ck_assert_int_eq(maker_put(&cr.maker, 0, 5 * PLANE, "daemon", 7), 0);
	cr_expect(cr_ro(0, 0, 5), "daemon");
	ck_assert_int_eq(cr_access(cr_rw(0, 0, 1)), CU_PROT_READWRITE);
	ck_assert_int_eq(cr_access(cr_ro(0, 0, 1)), CU_PROT_READ);
	/* Each shard's windows are its own GPU's. */
	ck_assert_int_eq(cr_access(cr_rw(1, 0, 1)), CU_PROT_NONE);
	ck_assert_int_eq(kvc_cuda_device(cr.k, 0), 0);
	ck_assert_int_eq(kvc_cuda_device(cr.k, 1), 1);
	ck_assert_int_eq(kvc_cuda_device(cr.k, 2), -EINVAL);
	cr_finish();
}
END_TEST

START_TEST(the_reading_window_cannot_be_written)
{
	char byte = 7;
	cu_stream s;

	cr_start(1, 1, NULL);
	cr_create(cr_slab);
	cr_close_slab();
	cr_use_driver();
	ck_assert_int_eq(kvc_mem_put(cr.k, (void *)(uintptr_t)cr_ro(0, 0, 1), &byte, 1), -EINVAL);
	ck_assert_ptr_nonnull(strstr(kvc_refusal(), "filling"));
	ck_assert_int_eq(kvc_mem_put(cr.k, &byte, &byte, 1), -EINVAL);
	/* The end of the last slot; no byte more. */
	ck_assert_int_eq(kvc_mem_get(cr.k, &byte, cr_rw(0, 0, FAKE_SLOTS - 1) + PLANE - 1, 2),
			 -EINVAL);
	s = cr_stream();
	if (!cr.cu.copy((cu_ptr)(uintptr_t)cr_ro(0, 0, 1), (cu_ptr)(uintptr_t)&byte, 1, s))
		ck_assert_int_eq(cr.cu.stream_sync(s), CU_ILLEGAL_ADDRESS);
	ck_assert_int_eq(kvc_mem_get(cr.k, &byte, cr_ro(0, 0, 1), 1), -EIO);
	ck_assert_ptr_nonnull(strstr(kvc_refusal(), "CUDA_ERROR_ILLEGAL_ADDRESS"));
	cr_finish();
}
END_TEST

/* A row's NULL entries name slot 0: whoever follows them reads zeroes, always. */
START_TEST(slot_zero_outlives_its_slab)
{
	cr_start(1, 1, NULL);
	cr_create(cr_plain);
	cr_use_driver();
	for (int round = 0; round < 4; round++) {
		for (uint32_t p = 0; p < 2; p++) {
			ck_assert(cr_is_zero(cr_rw(0, p, 0), PLANE));
			ck_assert(cr_is_zero(cr_ro(0, p, 0), PLANE));
			ck_assert_int_eq(cr_access(cr_rw(0, p, 0)), CU_PROT_READ);
			ck_assert_int_eq(cr_access(cr_ro(0, p, 0)), CU_PROT_READ);
		}
		/* In the later rounds with another slab in use. */
		if (round == 2)
			cr_change(cr_add, 9, FAR);
		cr_change(cr_add, 5, 0);
		for (uint32_t p = 0; p < 2; p++) {
			ck_assert(cr_is_zero(cr_rw(0, p, 0), PLANE));
			ck_assert(cr_is_zero(cr_ro(0, p, 0), PLANE));
			ck_assert_int_eq(cr_access(cr_rw(0, p, 1)), CU_PROT_READWRITE);
			cr_put(cr_rw(0, p, 1), "dirty");
		}
		cr_change(cr_del, 5, 0);
	}
	cr_finish();
}
END_TEST

START_TEST(slabs_come_and_go_while_waiting)
{
	char *p;

	cr_start(1, 1, NULL);
	cr_create(cr_slab);
	cr_close_slab();
	cr_use_driver();
	p = cr_rw(0, 1, FAR + 2);
	cr_put(cr_rw(0, 1, 2), "stays");
	for (int round = 0; round < 2; round++) {
		ck_assert_int_eq(cr_access(p), -1);
		cr_change(cr_add, 5, FAR);
		ck_assert_ptr_eq(cr_rw(0, 1, FAR + 2), p);
		cr_put(p, "here");
		cr_expect(cr_ro(0, 1, FAR + 2), "here");
		cr_change(cr_del, 5, FAR);
		ck_assert_int_eq(cr_access(cr_ro(0, 1, FAR + 2)), -1);
	}
	cr_expect(cr_ro(0, 1, 2), "stays");
	cr_finish();
}
END_TEST

static void script_join(struct fake *x)
{
	unsigned char buf[KVMD_MSG_MAX_BYTES] __attribute__((aligned(8)));
	int conn;

	cr_slab(x);
	conn = x->conn;
	x->conn = -1;
	fake_accept_kept(x);
	fake_recv(x, KVMD_MSG_JOIN, buf);
	fake_space_reply(x, KVMD_MSG_JOIN_REPLY, 0);
	fake_hangup(x);
	x->conn = conn;
}

/* Two sessions of one process, on one GPU. */
START_TEST(a_rank_has_windows_too)
{
	struct kvc *rank;
	int err;

	cr_start(1, 1, NULL);
	fake_start(&cr.f, script_join);
	ck_assert_int_eq(kvc_create(&cr.opts, &cr.space, &cr.k), 0);
	err = kvc_join(&cr.opts, 0x1234, 1, &rank);
	ck_assert_msg(!err, "%d: %s", err, kvc_refusal());
	pthread_join(cr.f.thread, NULL);
	cr_close_slab();
	cr_use_driver();
	ck_assert_int_eq(cr_access(kvc_addr(kvc_view(rank), 0, 0, 1, 0)), CU_PROT_READ);
	ck_assert_ptr_ne(kvc_addr(kvc_view(rank), 0, 0, 1, 0), cr_rw(0, 1, 0));
	kvc_destroy(rank);
	cr_put(cr_rw(0, 1, 2), "works");
	cr_finish();
}
END_TEST

/* ------------------------------------------------------------ which GPU */

START_TEST(a_shard_may_be_out_of_sight)
{
	const struct kvc_plane *p;

	cr_start(2, 2, NULL);
	setenv("CUDA_VISIBLE_DEVICES", "1", 1);
	cr_create(cr_slab);
	cr_close_slab();
	p = kvc_view(cr.k)->group[0].plane;
	ck_assert_ptr_null(p[0].rw);
	ck_assert_ptr_null(p[1].ro);
	ck_assert_ptr_nonnull(p[2].rw);
	ck_assert_int_eq(kvc_cuda_device(cr.k, 0), -ENODEV);
	ck_assert_int_eq(kvc_cuda_device(cr.k, 1), 0);
	cr_put(cr_rw(1, 0, 3), "seen");
	cr_change(cr_del, 0, 0);
	cr_finish();
}
END_TEST

START_TEST(no_shard_is_in_sight)
{
	struct cu_uuid uuid;
	char text[CU_UUID_TEXT];

	cr_start(2, 1, NULL);
	setenv("CUDA_VISIBLE_DEVICES", "1", 1);
	fake_start(&cr.f, cr_plain);
	ck_assert_int_eq(kvc_create(&cr.opts, &cr.space, &cr.k), -ENODEV);
	memcpy(uuid.bytes, cr.f.uuid[0], 16);
	cu_uuid_text(&uuid, text);
	ck_assert_ptr_nonnull(strstr(kvc_refusal(), text));
	ck_assert_ptr_nonnull(strstr(kvc_refusal(), "CUDA_VISIBLE_DEVICES=1"));
	pthread_join(cr.f.thread, NULL);
	cr_finish();
}
END_TEST

START_TEST(a_driver_without_gpus)
{
	cr_start(1, 1, NULL);
	setenv("CUDA_VISIBLE_DEVICES", "", 1);
	fake_start(&cr.f, cr_plain);
	ck_assert_int_eq(kvc_create(&cr.opts, &cr.space, &cr.k), -ENODEV);
	ck_assert_ptr_nonnull(strstr(kvc_refusal(), "no GPU is visible"));
	pthread_join(cr.f.thread, NULL);
	cr_finish();
}
END_TEST

START_TEST(no_vmm)
{
	cr_start(1, 1, "vmm=0");
	fake_start(&cr.f, cr_plain);
	ck_assert_int_eq(kvc_create(&cr.opts, &cr.space, &cr.k), -EOPNOTSUPP);
	ck_assert_ptr_nonnull(strstr(kvc_refusal(), "ipc = legacy"));
	pthread_join(cr.f.thread, NULL);
	cr_finish();
}
END_TEST

/* --------------------------------------------------------------- legacy */

static void add_all(struct fake *x)
{
	fake_slab_add(x, 0, 0, FAKE_SLOTS, 1, cr.fds);
	fake_news(x);
	fake_slab_added(x, 0, 0);
	fake_cqe(x, 1, 0, 0, 0);
	fake_cq_publish(x);
}

static void add_second(struct fake *x)
{
	fake_slab_add(x, 1, FAR, SLAB_SLOTS, 0, cr.fds);
	fake_news(x);
	fake_slab_added(x, 1, -EOPNOTSUPP);
}

START_TEST(legacy_handles)
{
	const struct kvc_plane *p;
	char buf[16] = "";

	cr_start(2, 2, NULL);
	cr.f.handle_kind = KVMD_HANDLE_CUDA_LEGACY;
	cr.f.plane_bytes = 4096;
	cr_create(cr_plain);
	p = kvc_view(cr.k)->group[0].plane;
	ck_assert_ptr_null(p[3].rw);
	for (int round = 0; round < 2; round++) {
		cr_change(add_all, 0, 0);
		cr_close_slab();
		ck_assert_ptr_nonnull(p[3].rw);
		ck_assert_ptr_eq(p[3].rw, p[3].ro);
		cr_put(cr_rw(1, 1, 1000), "old way");
		ck_assert_int_eq(maker_get(&cr.maker, cr.maker.nr - 1, 1000 * 4096, buf, 8), 0);
		ck_assert_str_eq(buf, "old way");
		ck_assert(cr_is_zero(cr_ro(0, 0, 0), 4096));
		if (round)
			break;
		cr_change(cr_del, 0, 0);
		ck_assert_ptr_null(p[3].rw);
		ck_assert_ptr_null(p[3].ro);
	}
	fake_start(&cr.f, add_second);
	ck_assert_int_eq(kvc_wait_cqe(cr.k, UINT64_MAX, &cqe), -ECONNRESET);
	ck_assert_ptr_nonnull(strstr(kvc_refusal(), "one slab"));
	pthread_join(cr.f.thread, NULL);
	cr_close_slab();
	cr_expect(cr_rw(1, 1, 1000), "old way");
	cr_finish();
}
END_TEST

static void add_no_handle(struct fake *x)
{
	fake_slab_add(x, 1, 0, FAKE_SLOTS, 0, cr.fds);
	fake_news(x);
	fake_slab_added(x, 1, -EPROTO);
}

START_TEST(a_legacy_handle_has_64_bytes)
{
	cr_start(1, 1, NULL);
	cr.f.handle_kind = KVMD_HANDLE_CUDA_LEGACY;
	cr.f.handle = NULL;
	cr_create(cr_plain);
	fake_start(&cr.f, add_no_handle);
	ck_assert_int_eq(kvc_wait_cqe(cr.k, UINT64_MAX, &cqe), -ECONNRESET);
	ck_assert_ptr_nonnull(strstr(kvc_refusal(), "64 bytes"));
	pthread_join(cr.f.thread, NULL);
	cr_close_slab();
	cr_finish();
}
END_TEST

/* ---------------------------------------------------------- kinds of handles */

START_TEST(a_kind_from_the_future)
{
	cr_start(1, 1, NULL);
	cr.f.handle_kind = KVMD_NR_HANDLE;
	fake_start(&cr.f, cr_plain);
	ck_assert_int_eq(kvc_create(&cr.opts, &cr.space, &cr.k), -EOPNOTSUPP);
	ck_assert_ptr_nonnull(strstr(kvc_refusal(), "older"));
	pthread_join(cr.f.thread, NULL);
	cr_finish();
}
END_TEST

START_TEST(a_slab_of_another_kind_than_its_space)
{
	cr_start(1, 1, NULL);
	cr_create(cr_plain);
	cr.f.handle_kind = KVMD_HANDLE_MEMFD;
	cr.f.handle = NULL;
	fake_start(&cr.f, add_no_handle);
	ck_assert_int_eq(kvc_wait_cqe(cr.k, UINT64_MAX, &cqe), -ECONNRESET);
	ck_assert_ptr_nonnull(strstr(kvc_refusal(), "its space has kind 2"));
	pthread_join(cr.f.thread, NULL);
	cr_close_slab();
	cr_finish();
}
END_TEST

/* ---------------------------------------------------------- driver errors */

static const struct {
	const char *fail;	/* function, call, code */
	int err;
	const char *text;
	bool late;		/* the slab is on its way by then */
} errors[] = {
	{ "cuDevicePrimaryCtxRetain:1:2", -ENOMEM, "GPU 0", false },
	{ "cuMemGetAllocationGranularity:1:999", -EIO, "GPU 0", false },
	{ "cuMemAddressReserve:1:2", -ENOMEM, "group 0", false },
	{ "cuStreamCreateWithPriority:1:2", -ENOMEM, "GPU 0", false },
	{ "cuMemCreate:1:2", -ENOMEM, "NULL block", false },
	{ "cuMemMap:1:2", -ENOMEM, "NULL block", false },
	{ "cuMemMap:3:999", -EIO, "NULL block", false },
	{ "cuMemSetAccess:1:2", -ENOMEM, "NULL block", false },
	{ "cuMemsetD8Async:1:2", -ENOMEM, "NULL block", false },
	{ "cuMemImportFromShareableHandle:1:304", -EIO, "slab 0, handle 0", true },
	{ "cuMemImportFromShareableHandle:2:2", -ENOMEM, "slab 0, handle 1", true },
	{ "cuMemUnmap:1:999", -EIO, "NULL block", true },
	/* The NULL block takes four mappings, and one access more to be filled. */
	{ "cuMemMap:5:2", -ENOMEM, "slab 0, handle 0", true },
	{ "cuMemMap:6:2", -ENOMEM, "slab 0, handle 0", true },
	{ "cuMemMap:8:2", -ENOMEM, "slab 0, handle 1", true },
	{ "cuMemSetAccess:7:2", -ENOMEM, "slab 0, handle 0", true },
};

static void script_slab_refused(struct fake *x)
{
	unsigned char buf[KVMD_MSG_MAX_BYTES] __attribute__((aligned(8)));

	fake_accept(x);
	fake_hello(x);
	fake_space(x, 1);
	fake_slab_add(x, 0, 0, SLAB_SLOTS, 0, cr.fds);
	/* The answer, with an error, or the end. */
	(void)!recv(x->conn, buf, sizeof(buf), 0);
}

START_TEST(a_driver_error_names_the_thing)
{
	char more[64], func[64];

	snprintf(more, sizeof(more), "fail=%s", errors[_i].fail);
	snprintf(func, sizeof(func), "%.*s", (int)strcspn(errors[_i].fail, ":"), errors[_i].fail);
	cr_start(1, 1, more);
	fake_start(&cr.f, errors[_i].late ? script_slab_refused : cr_plain);
	ck_assert_int_eq(kvc_create(&cr.opts, &cr.space, &cr.k), errors[_i].err);
	ck_assert_msg(strstr(kvc_refusal(), func) && strstr(kvc_refusal(), errors[_i].text) &&
		      strstr(kvc_refusal(), "CUDA_ERROR_"), "%s", kvc_refusal());
	pthread_join(cr.f.thread, NULL);
	if (errors[_i].late)
		cr_close_slab();
	cr_finish();
}
END_TEST

/* What cannot be unmapped is left behind; the next session has a range of its own. */
static void script_again(struct fake *x)
{
	fake_accept_kept(x);
	fake_refuse_resume(x, -ESTALE, 0, "not kept");
	cr_slab(x);
}

START_TEST(a_slab_that_cannot_be_unmapped)
{
	char *old;

	/* Four of the NULL block go before. */
	cr_start(1, 1, "fail=cuMemUnmap:5:999");
	cr_create(cr_slab);
	cr_close_slab();
	old = cr_rw(0, 0, 1);
	cr_kill_daemon();
	fake_start(&cr.f, script_again);
	ck_assert_int_eq(kvc_reconnect(cr.k), 0);
	pthread_join(cr.f.thread, NULL);
	cr_close_slab();
	ck_assert_ptr_ne(cr_rw(0, 0, 1), old);
	cr_put(cr_rw(0, 0, 1), "new");
	/* It is the driver that forgot to. */
	cr_use_driver();
	ck_assert_int_eq(cr.cu.mem_unmap((cu_ptr)(uintptr_t)old - PLANE, SLAB_SLOTS * PLANE), 0);
	cr_finish();
}
END_TEST

static void add_refused(struct fake *x)
{
	fake_slab_add(x, 5, FAR, SLAB_SLOTS, 0, cr.fds);
	fake_news(x);
	fake_slab_added(x, 5, -ENOMEM);
}

START_TEST(a_late_slab_that_cannot_be_mapped)
{
	cr_start(1, 1, "fail=cuMemImportFromShareableHandle:4:2");
	cr_create(cr_slab);
	cr_close_slab();
	fake_start(&cr.f, add_refused);
	ck_assert_int_eq(kvc_wait_cqe(cr.k, UINT64_MAX, &cqe), -ECONNRESET);
	ck_assert_ptr_nonnull(strstr(kvc_refusal(), "slab 5, handle 1"));
	ck_assert_ptr_nonnull(strstr(kvc_refusal(), "CUDA_ERROR_OUT_OF_MEMORY"));
	pthread_join(cr.f.thread, NULL);
	cr_close_slab();
	/* What was mapped stays until kvc_destroy(). */
	cr_put(cr_rw(0, 0, 1), "still there");
	cr_finish();
}
END_TEST

START_TEST(granules_that_do_not_fit)
{
	cr_start(1, 1, "granularity=4M");
	fake_start(&cr.f, script_slab_refused);
	ck_assert_int_eq(kvc_create(&cr.opts, &cr.space, &cr.k), -EPROTO);
	ck_assert_ptr_nonnull(strstr(kvc_refusal(), "granules of 4194304"));
	pthread_join(cr.f.thread, NULL);
	cr_close_slab();
	cr_finish();
}
END_TEST

/* ------------------------------------------------------------- no driver */

/* What `check_client_cuda no-driver` runs: where the fake one cannot be found. */
START_TEST(refused_without_a_driver)
{
	fake_init(&cr.f);
	cr.f.device = "cuda";
	cr.f.handle_kind = KVMD_HANDLE_CUDA_VMM;
	cr.f.uuid[0][0] = 1;
	kvc_opts_init(&cr.opts);
	cr.opts.socket = cr.f.path;
	kvc_space_init(&cr.space, "models");
	fake_start(&cr.f, cr_plain);
	ck_assert_int_eq(kvc_create(&cr.opts, &cr.space, &cr.k), -ENODEV);
	ck_assert_ptr_nonnull(strstr(kvc_refusal(), "GPU"));
	fake_stop(&cr.f);
}
END_TEST

START_TEST(no_driver_here)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		unsetenv("LD_LIBRARY_PATH");
		execl("/proc/self/exe", "check_client_cuda", "no-driver", (char *)NULL);
		_exit(9);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
}
END_TEST

/* The same calls where there is no GPU in it. */
START_TEST(host_pools_need_no_driver)
{
	char byte = 0, two[2];
	uint64_t ptr;

	unsetenv("LD_LIBRARY_PATH");
	fake_init(&cr.f);
	kvc_opts_init(&cr.opts);
	cr.opts.socket = cr.f.path;
	kvc_space_init(&cr.space, "models");
	if (_i)
		cr.f.device = "null";
	cr_create(cr_plain);
	if (!_i) {
		cr_change(cr_add, 0, 0);
		cr_put(cr_rw(0, 0, 3), "bytes");
		cr_expect(cr_ro(0, 0, 3), "bytes");
		ck_assert_int_eq(kvc_mem_put(cr.k, (void *)(uintptr_t)cr_ro(0, 0, 3), &byte, 1),
				 -EINVAL);
		ck_assert_int_eq(kvc_mem_get(cr.k, &byte, &byte, 1), -EINVAL);
		/* A slot whose slab is not there, and bytes that run into one. */
		ck_assert_int_eq(kvc_mem_get(cr.k, &byte, cr_ro(0, 0, SLAB_SLOTS), 1), -EINVAL);
		ck_assert_ptr_nonnull(strstr(kvc_refusal(), "has no memory now"));
		ck_assert_int_eq(kvc_mem_get(cr.k, two, cr_ro(0, 0, SLAB_SLOTS) - 1, 2), -EINVAL);
		ck_assert_int_eq(kvc_mem_get(cr.k, two, cr_ro(0, 0, SLAB_SLOTS) - 2, 2), 0);
		cr_change(cr_del, 0, 0);
		ck_assert_int_eq(kvc_mem_get(cr.k, &byte, cr_ro(0, 0, 0), 1), 0);
		ck_assert_int_eq(kvc_mem_put(cr.k, cr_rw(0, 0, 0), &byte, 1), -EINVAL);
		ck_assert_int_eq(kvc_mem_get(cr.k, &byte, cr_ro(0, 0, 3), 1), -EINVAL);
	} else {
		ck_assert_int_eq(kvc_mem_get(cr.k, &byte, &byte, 1), -EOPNOTSUPP);
	}
	ck_assert_int_eq(kvc_cuda_device(cr.k, 0), -EOPNOTSUPP);
	ck_assert_int_eq(kvc_cuda_rows(cr.k, 0, &ptr), -EOPNOTSUPP);
	ck_assert_int_eq(kvc_cuda_step_word(cr.k, 0, &ptr), -EOPNOTSUPP);
	ck_assert_int_eq(kvc_cuda_step_write(cr.k, 0, 1, NULL), -EOPNOTSUPP);
	ck_assert_int_eq(kvc_cuda_step_event(cr.k, 0, 1, NULL), -EOPNOTSUPP);
	ck_assert_int_eq(kvc_cuda_steps(cr.k), -EOPNOTSUPP);
	kvc_destroy(cr.k);
	fake_start(&cr.f, fake_hangup);
	fake_stop(&cr.f);
}
END_TEST

int main(int argc, char **argv)
{
	bool no_driver = argc > 1 && !strcmp(argv[1], "no-driver");
	Suite *s;
	TCase *tc;

	if (!no_driver && !cr_has_fake())
		return 77;
	s = suite_create("client_cuda");
	tc = tcase_create("cuda");
	if (no_driver) {
		tcase_add_test(tc, refused_without_a_driver);
		suite_add_tcase(s, tc);
		return suite_run(s);
	}
	tcase_add_checked_fixture(tc, cr_setup, NULL);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, same_bytes_through_both_windows);
	tcase_add_test(tc, the_reading_window_cannot_be_written);
	tcase_add_test(tc, slot_zero_outlives_its_slab);
	tcase_add_test(tc, slabs_come_and_go_while_waiting);
	tcase_add_test(tc, a_rank_has_windows_too);
	tcase_add_test(tc, a_shard_may_be_out_of_sight);
	tcase_add_test(tc, no_shard_is_in_sight);
	tcase_add_test(tc, a_driver_without_gpus);
	tcase_add_test(tc, no_vmm);
	tcase_add_test(tc, legacy_handles);
	tcase_add_test(tc, a_legacy_handle_has_64_bytes);
	tcase_add_test(tc, a_kind_from_the_future);
	tcase_add_test(tc, a_slab_of_another_kind_than_its_space);
	tcase_add_loop_test(tc, a_driver_error_names_the_thing, 0,
			    sizeof(errors) / sizeof(errors[0]));
	tcase_add_test(tc, a_slab_that_cannot_be_unmapped);
	tcase_add_test(tc, a_late_slab_that_cannot_be_mapped);
	tcase_add_test(tc, granules_that_do_not_fit);
	suite_add_tcase(s, tc);
	tc = tcase_create("no driver");
	tcase_add_test(tc, no_driver_here);
	tcase_add_loop_test(tc, host_pools_need_no_driver, 0, 2);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
