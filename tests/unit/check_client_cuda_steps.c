/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_client_cuda_steps.c - rows and steps on GPUs, what a session does not ask of
 * the driver, and what a reconnection keeps.
 */
#include <check.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/suite.h"
#include "tests/unit/cuda_rig.h"

static const struct kvmd_cqe *cqe;

/* ---------------------------------------------------------- rows and steps */

START_TEST(rows_for_kernels)
{
	int32_t got[2] = { 0 };
	uint64_t ptr, again;
	cu_stream s;

	cr_start(1, 1, NULL);
	cr_create(cr_plain);
	cr_use_driver();
	ck_assert_int_eq(kvc_cuda_rows(cr.k, 1, &ptr), -EINVAL);
	ck_assert_int_eq(kvc_cuda_rows(cr.k, 0, &ptr), 0);
	ck_assert_int_eq(kvc_cuda_rows(cr.k, 0, &again), 0);
	ck_assert_uint_eq(ptr, again);
	/* As the daemon writes them. */
	cr.f.tables[(2 * 1024 + 64) / 4 + 3] = 42;
	cr.f.tables[(2 * 1024 + 64) / 4 + 4] = 43;
	s = cr_stream();
	ck_assert_int_eq(cr.cu.copy((cu_ptr)(uintptr_t)got,
				 ptr + 2 * kvc_view(cr.k)->group[0].seq_stride + 12, 8, s), 0);
	ck_assert_int_eq(cr.cu.stream_sync(s), 0);
	ck_assert_int_eq(got[0], 42);
	ck_assert_int_eq(got[1], 43);
	cr_finish();
}
END_TEST

START_TEST(rows_that_the_gpu_cannot_read)
{
	uint64_t ptr;

	cr_start(1, 1, "rohost=0");
	cr_create(cr_plain);
	ck_assert_int_eq(kvc_cuda_rows(cr.k, 0, &ptr), -EOPNOTSUPP);
	ck_assert_ptr_nonnull(strstr(kvc_refusal(), "copy the rows"));
	cr_finish();
}
END_TEST

START_TEST(the_gpu_writes_a_step)
{
	uint64_t ptr;
	cu_stream s;
	cu_ctx now;

	cr_start(2, 2, NULL);
	cr_create(cr_plain);
	cr_use_driver();
	ck_assert_int_eq(kvc_cuda_step_word(cr.k, KVMD_MAX_LANES, &ptr), -EINVAL);
	ck_assert_int_eq(kvc_cuda_step_write(cr.k, KVMD_MAX_LANES, 1, NULL), -EINVAL);
	/* A stream of the second GPU's, while the first one is current. */
	ck_assert_int_eq(cr.cu.ctx_retain(&now, 1), 0);
	ck_assert_int_eq(cr.cu.ctx_set(now), 0);
	s = cr_stream();
	ck_assert_int_eq(cr.cu.ctx_set(cr.ctx), 0);
	ck_assert_int_eq(kvc_cuda_step_write(cr.k, 3, 17, s), 0);
	ck_assert_int_eq(kvc_cuda_step_word(cr.k, 3, &ptr), 0);
	ck_assert_int_eq(cr.cu.ctx_set(now), 0);
	ck_assert_int_eq(cr.cu.stream_sync(s), 0);
	ck_assert_uint_eq(*kvc_step_word(cr.k, 3), 17);
	ck_assert_uint_eq(cr.f.steps->lane[3].completed_step, 17);
	/* A kernel can as well. */
	ck_assert_int_eq(cr.cu.stream_write64(s, ptr, 18, 0), 0);
	ck_assert_int_eq(cr.cu.stream_sync(s), 0);
	ck_assert_uint_eq(cr.f.steps->lane[3].completed_step, 18);
	cr_finish();
}
END_TEST

/* A stream that stands still until lane 31 says so. */
static cu_stream blocked_stream(void)
{
	cu_stream s = cr_stream();
	uint64_t gate;

	ck_assert_int_eq(kvc_cuda_step_word(cr.k, 31, &gate), 0);
	ck_assert_int_eq(cr.cu.stream_wait64(s, gate, 1, 0), 0);
	return s;
}

START_TEST(events_complete_steps_in_order)
{
	cu_stream slow, quick;

	cr_start(1, 1, NULL);
	cr_create(cr_plain);
	cr_use_driver();
	ck_assert_int_eq(kvc_cuda_steps(cr.k), 0);
	slow = blocked_stream();
	quick = cr_stream();
	ck_assert_int_eq(kvc_cuda_step_event(cr.k, KVMD_MAX_LANES, 1, quick), -EINVAL);
	ck_assert_int_eq(kvc_cuda_step_event(cr.k, 0, 1, slow), 0);
	ck_assert_int_eq(kvc_cuda_step_event(cr.k, 0, 2, quick), 0);
	ck_assert_int_eq(kvc_cuda_step_event(cr.k, 1, 5, quick), 0);
	ck_assert_int_eq(cr.cu.stream_sync(quick), 0);
	/* Step 2 has passed, but step 1 has not. */
	ck_assert_int_eq(kvc_cuda_steps(cr.k), 2);
	ck_assert_uint_eq(*kvc_step_word(cr.k, 0), 0);
	ck_assert_uint_eq(*kvc_step_word(cr.k, 1), 5);
	kvc_step_complete(cr.k, 31, 1);
	ck_assert_int_eq(cr.cu.stream_sync(slow), 0);
	ck_assert_int_eq(kvc_cuda_steps(cr.k), 0);
	ck_assert_uint_eq(*kvc_step_word(cr.k, 0), 2);
	ck_assert_uint_eq(cr.f.steps->lane[0].completed_step, 2);
	cr_finish();
}
END_TEST

START_TEST(so_many_events)
{
	cu_stream s;
	int err = 0;

	cr_start(1, 1, NULL);
	cr_create(cr_plain);
	cr_use_driver();
	for (int round = 0; round < 2; round++) {
		s = blocked_stream();
		for (uint32_t i = 0; !err && i < KVC_CUDA_EVENTS; i++)
			err = kvc_cuda_step_event(cr.k, i % 4, i + 1, s);
		ck_assert_int_eq(err, 0);
		ck_assert_int_eq(kvc_cuda_step_event(cr.k, 0, 300, s), -EBUSY);
		ck_assert_int_eq(kvc_cuda_steps(cr.k), KVC_CUDA_EVENTS);
		kvc_step_complete(cr.k, 31, 1);
		ck_assert_int_eq(cr.cu.stream_sync(s), 0);
		ck_assert_int_eq(kvc_cuda_steps(cr.k), 0);
		ck_assert_uint_eq(*kvc_step_word(cr.k, 3), KVC_CUDA_EVENTS);
		*kvc_step_word(cr.k, 31) = 0;
	}
	/* Some are left for kvc_destroy(). */
	ck_assert_int_eq(kvc_cuda_step_event(cr.k, 0, 301, NULL), 0);
	cr_finish();
}
END_TEST

/* --------------------------------------------------------- no driver call */

static void echo_four(struct fake *x)
{
	fake_echo(x, 4);
}

START_TEST(operations_make_no_driver_call)
{
	unsigned char keys[2][KVMD_KEY_BYTES] = { { 1 } };
	uint64_t before;

	cr_start(1, 1, NULL);
	cr_create(cr_slab);
	cr_close_slab();
	cr_use_driver();
	before = cr.calls(NULL);
	ck_assert_uint_gt(before, 0);
	fake_start(&cr.f, echo_four);
	ck_assert_int_ge(kvc_seq_open(cr.k, 1, 1, keys, 2, 32, 0, 0, NULL), 0);
	ck_assert_int_eq(kvc_seq_extend(cr.k, 1, 1, 0, 2, 0, 0, NULL), 2);
	ck_assert_int_eq(kvc_seq_publish(cr.k, 1, 1, 0, 0, keys, 2, 1, NULL), 2);
	ck_assert_int_eq(kvc_seq_close(cr.k, 1, 1, 1, 0), 0);
	pthread_join(cr.f.thread, NULL);
	ck_assert_int_eq(kvc_peek_cqe(cr.k, &cqe), -EAGAIN);
	ck_assert_int_eq(kvc_poll(cr.k), 0);
	kvc_step_submit(cr.k, 1);
	kvc_step_complete(cr.k, 0, 1);
	ck_assert_uint_eq(cr.calls(NULL), before);
	cr_finish();
}
END_TEST

START_TEST(the_callers_context_stays)
{
	uint64_t ptr;
	cu_ctx now;
	char byte;

	cr_start(2, 2, NULL);
	cr_create(cr_slab);
	cr_close_slab();
	cr_use_driver();
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(cr.cu.ctx_set(i ? cr.ctx : NULL), 0);
		cr_change(cr_add, 5, FAR);
		cr_change(cr_del, 5, FAR);
		ck_assert_int_eq(kvc_mem_get(cr.k, &byte, cr_rw(1, 0, 0), 1), 0);
		ck_assert_int_eq(kvc_cuda_rows(cr.k, 0, &ptr), 0);
		ck_assert_int_eq(kvc_cuda_step_word(cr.k, 0, &ptr), 0);
		ck_assert_int_eq(cr.cu.ctx_get(&now), 0);
		ck_assert_ptr_eq(now, i ? cr.ctx : NULL);
	}
	cr_finish();
}
END_TEST

START_TEST(a_forked_child_leaves_the_driver_alone)
{
	int status;
	pid_t pid;

	cr_start(1, 1, NULL);
	cr_create(cr_slab);
	cr_close_slab();
	cr_use_driver();
	cr_put(cr_rw(0, 0, 1), "parent");
	pid = fork();
	if (!pid) {
		uint64_t before = cr.calls(NULL);

		kvc_destroy(cr.k);
		_exit(cr.calls(NULL) == before ? 0 : 1);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	cr_expect(cr_ro(0, 0, 1), "parent");
	fake_start(&cr.f, cr_plain);
	pid = fork();
	if (!pid) {
		struct kvc *own;

		if (kvc_create(&cr.opts, &cr.space, &own) != -ENODEV)
			_exit(1);
		_exit(strstr(kvc_refusal(), "forked") ? 0 : 2);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	pthread_join(cr.f.thread, NULL);
	cr_finish();
}
END_TEST

/* ---------------------------------------------------------- reconnection */

static void script_resume(struct fake *x)
{
	fake_accept_kept(x);
	fake_resume(x, 1);
	fake_slab_add(x, 0, 0, SLAB_SLOTS, 0, cr.fds);
	fake_slab_added(x, 0, 0);
}

START_TEST(resume_keeps_all)
{
	uint64_t rows, word, again;
	char *p;

	cr_start(1, 1, NULL);
	cr_create(cr_slab);
	cr_close_slab();
	cr_use_driver();
	p = cr_rw(0, 1, 3);
	cr_put(p, "sealed");
	ck_assert_int_eq(kvc_cuda_rows(cr.k, 0, &rows), 0);
	ck_assert_int_eq(kvc_cuda_step_word(cr.k, 0, &word), 0);
	cr_kill_daemon();
	fake_start(&cr.f, script_resume);
	ck_assert_int_eq(kvc_reconnect(cr.k), 1);
	pthread_join(cr.f.thread, NULL);
	cr_close_slab();
	ck_assert_ptr_eq(cr_rw(0, 1, 3), p);
	cr_expect(cr_ro(0, 1, 3), "sealed");
	ck_assert_int_eq(kvc_cuda_rows(cr.k, 0, &again), 0);
	ck_assert_uint_eq(again, rows);
	ck_assert_uint_eq(cr.calls("cuMemHostRegister"), 2);
	ck_assert_uint_eq(cr.calls("cuMemHostUnregister"), 0);
	cr_finish();
}
END_TEST

/* The first of two handles, and then no more. */
static void add_half(struct fake *x)
{
	struct kvmd_slab m = {
		.h.type = KVMD_MSG_SLAB_ADD, .slab = 5, .gen = x->slab_gen, .nr_slots = SLAB_SLOTS,
		.fd_total = 2, .handle_kind = KVMD_HANDLE_CUDA_VMM,
		.extent_bytes = SLAB_SLOTS * PLANE,
	};
	int fd = cr_handle(x, 0, m.extent_bytes);

	fake_send(x, &m, sizeof(m), &fd, 1);
	close(fd);
	fake_news(x);
}

static void script_resume_first(struct fake *x)
{
	fake_accept_kept(x);
	fake_resume(x, 1);
	fake_slab_add(x, 5, 0, SLAB_SLOTS, 0, cr.fds);
	fake_slab_added(x, 5, 0);
}

START_TEST(half_a_slab_begins_anew)
{
	cr_start(1, 1, NULL);
	cr_create(cr_plain);
	fake_start(&cr.f, add_half);
	pthread_join(cr.f.thread, NULL);
	ck_assert_int_eq(kvc_poll(cr.k), 0);
	ck_assert_uint_eq(cr.k->slabs.slab[0].nr_mapped, 1);
	cr_kill_daemon();
	fake_start(&cr.f, script_resume_first);
	ck_assert_int_eq(kvc_reconnect(cr.k), 1);
	pthread_join(cr.f.thread, NULL);
	cr_close_slab();
	cr_put(cr_rw(0, 0, 3), "whole");
	cr_put(cr_rw(0, 1, 3), "whole");
	cr_finish();
}
END_TEST

static void script_new(struct fake *x)
{
	fake_accept_kept(x);
	fake_refuse_resume(x, -ESTALE, 0, "not kept");
	cr_slab(x);
}

START_TEST(a_new_session_has_the_same_windows)
{
	uint64_t word, rows;
	cu_stream s;
	char *p;

	cr_start(1, 1, NULL);
	cr_create(cr_slab);
	cr_close_slab();
	cr_use_driver();
	p = cr_rw(0, 1, 3);
	cr_put(p, "old");
	ck_assert_int_eq(kvc_cuda_step_word(cr.k, 0, &word), 0);
	ck_assert_int_eq(kvc_cuda_rows(cr.k, 0, &rows), 0);
	cr_kill_daemon();
	fake_start(&cr.f, script_new);
	ck_assert_int_eq(kvc_reconnect(cr.k), 0);
	pthread_join(cr.f.thread, NULL);
	cr_close_slab();
	ck_assert_ptr_eq(cr_rw(0, 1, 3), p);
	ck_assert(cr_is_zero(cr_ro(0, 1, 3), PLANE));
	/* The new page, without being asked for again. */
	s = cr_stream();
	ck_assert_int_eq(cr.cu.stream_write64(s, word, 4, 0), 0);
	ck_assert_int_eq(cr.cu.stream_sync(s), 0);
	ck_assert_uint_eq(cr.f.steps->lane[0].completed_step, 4);
	cr.f.tables[16] = 9;
	ck_assert_int_eq(kvc_cuda_rows(cr.k, 0, &rows), 0);
	ck_assert_int_eq(*(const int32_t *)(uintptr_t)rows, 9);
	cr_finish();
}
END_TEST

/* Its steps are counted anew: events of the old one say nothing of them. */
START_TEST(a_new_session_has_no_events_of_the_old_one)
{
	cu_stream s;

	cr_start(1, 1, NULL);
	cr_create(cr_slab);
	cr_close_slab();
	cr_use_driver();
	s = cr_stream();
	ck_assert_int_eq(kvc_cuda_step_event(cr.k, 0, 1000, s), 0);
	cr_kill_daemon();
	fake_start(&cr.f, script_new);
	ck_assert_int_eq(kvc_reconnect(cr.k), 0);
	pthread_join(cr.f.thread, NULL);
	cr_close_slab();
	ck_assert_int_eq(cr.cu.stream_sync(s), 0);
	ck_assert_int_eq(kvc_cuda_steps(cr.k), 0);
	ck_assert_uint_eq(*kvc_step_word(cr.k, 0), 0);
	ck_assert_int_eq(kvc_cuda_step_event(cr.k, 0, 1, s), 0);
	ck_assert_int_eq(cr.cu.stream_sync(s), 0);
	ck_assert_int_eq(kvc_cuda_steps(cr.k), 0);
	ck_assert_uint_eq(*kvc_step_word(cr.k, 0), 1);
	cr_finish();
}
END_TEST

START_TEST(another_kind_of_device)
{
	uint64_t word;
	cu_stream s;

	cr_start(1, 1, NULL);
	cr_create(cr_slab);
	cr_close_slab();
	cr_use_driver();
	ck_assert_int_eq(kvc_cuda_step_word(cr.k, 0, &word), 0);
	s = cr_stream();
	ck_assert_int_eq(kvc_cuda_step_event(cr.k, 2, 6, s), 0);
	cr_kill_daemon();
	cr.f.device = "host";
	cr.f.handle_kind = KVMD_HANDLE_MEMFD;
	cr.f.handle = NULL;
	fake_start(&cr.f, script_new);
	ck_assert_int_eq(kvc_reconnect(cr.k), 0);
	pthread_join(cr.f.thread, NULL);
	cr_close_slab();
	strcpy(cr_rw(0, 1, 3), "by hand");
	cr_expect(cr_ro(0, 1, 3), "by hand");
	ck_assert_int_eq(kvc_cuda_device(cr.k, 0), -EOPNOTSUPP);
	ck_assert_int_eq(kvc_cuda_step_word(cr.k, 0, &word), -EOPNOTSUPP);
	cr_kill_daemon();
	cr.f.device = "cuda";
	cr.f.handle_kind = KVMD_HANDLE_CUDA_VMM;
	cr.f.handle = cr_handle;
	fake_start(&cr.f, script_new);
	ck_assert_int_eq(kvc_reconnect(cr.k), 0);
	pthread_join(cr.f.thread, NULL);
	cr_close_slab();
	cr_put(cr_rw(0, 1, 3), "by DMA");
	cr_finish();
}
END_TEST

int main(void)
{
	Suite *s;
	TCase *tc;

	if (!cr_has_fake())
		return 77;
	s = suite_create("client_cuda_steps");
	tc = tcase_create("cuda");
	tcase_add_checked_fixture(tc, cr_setup, NULL);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, rows_for_kernels);
	tcase_add_test(tc, rows_that_the_gpu_cannot_read);
	tcase_add_test(tc, the_gpu_writes_a_step);
	tcase_add_test(tc, events_complete_steps_in_order);
	tcase_add_test(tc, so_many_events);
	tcase_add_test(tc, operations_make_no_driver_call);
	tcase_add_test(tc, the_callers_context_stays);
	tcase_add_test(tc, a_forked_child_leaves_the_driver_alone);
	tcase_add_test(tc, resume_keeps_all);
	tcase_add_test(tc, half_a_slab_begins_anew);
	tcase_add_test(tc, a_new_session_has_the_same_windows);
	tcase_add_test(tc, a_new_session_has_no_events_of_the_old_one);
	tcase_add_test(tc, another_kind_of_device);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
