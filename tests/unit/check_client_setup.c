/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_client_setup.c - handshake and slabs, against a scripted daemon.
 */
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libkvclient/internal.h"
#include "tests/quiet.h"
#include "tests/suite.h"
#include "tests/unit/client_fake.h"

#define SLAB_SLOTS	64u

static struct fake f;
static struct kvc *k;
static struct kvc_opts opts;
static struct kvc_space space;
static const struct kvmd_cqe *cqe;
static unsigned nr_fds;

static void setup(void)
{
	fake_init(&f);
	nr_fds = fake_nr_fds();
	kvc_opts_init(&opts);
	opts.socket = f.path;
	kvc_space_init(&space, "models");
	k = NULL;
}

/* Stops the fake; with the client destroyed nothing may be left open. */
static void finish(void)
{
	kvc_destroy(k);
	k = NULL;
	fake_stop(&f);
	ck_assert_uint_eq(fake_nr_fds(), nr_fds - 1);	/* the fake's listener */
}

/* -------------------------------------------------------------- refusals */

START_TEST(nobody_there)
{
	opts.socket = "/nonexistent/kvmd.sock";
	ck_assert_int_eq(kvc_create(&opts, &space, &k), -ENOENT);
	ck_assert_ptr_nonnull(strstr(kvc_refusal(), "/nonexistent/kvmd.sock"));
	opts.socket = "@kvmd-nobody-listens-here";
	ck_assert_int_eq(kvc_create(&opts, &space, &k), -ECONNREFUSED);
	opts.wait_ns = 30000000;
	ck_assert_int_eq(kvc_create(&opts, &space, &k), -ECONNREFUSED);
	ck_assert_ptr_null(k);
	close(f.listener);
}
END_TEST

START_TEST(bad_arguments)
{
	char name[KVMD_NAME_BYTES + 1];

	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	space.name = name;
	ck_assert_int_eq(kvc_create(&opts, &space, &k), -EINVAL);
	ck_assert_ptr_nonnull(strstr(kvc_refusal(), "space"));
	space.name = NULL;
	ck_assert_int_eq(kvc_create(&opts, &space, &k), -EINVAL);
	kvc_space_init(&space, "s");
	space.nr_groups = KVMD_MAX_GROUPS + 1;
	ck_assert_int_eq(kvc_create(&opts, &space, &k), -EINVAL);
	kvc_space_init(&space, "s");
	opts.tenant = name;
	ck_assert_int_eq(kvc_create(&opts, &space, &k), -EINVAL);
	ck_assert_ptr_nonnull(strstr(kvc_refusal(), "tenant"));
	opts.tenant = NULL;
	opts.size = 3;
	ck_assert_int_eq(kvc_create(&opts, &space, &k), -EINVAL);
	kvc_destroy(NULL);
	close(f.listener);
}
END_TEST

static void script_refuse(struct fake *x)
{
	fake_accept(x);
	fake_refuse_hello(x, -EACCES, "tenant 'blue' is not for uid 7");
}

START_TEST(refusal_text_surfaces)
{
	fake_start(&f, script_refuse);
	ck_assert_int_eq(kvc_create(&opts, &space, &k), -EACCES);
	ck_assert_str_eq(kvc_refusal(), "tenant 'blue' is not for uid 7");
	finish();
}
END_TEST

static void script_space_refuse(struct fake *x)
{
	unsigned char buf[KVMD_MSG_MAX_BYTES] __attribute__((aligned(8)));
	struct kvmd_space_reply r = { .h.type = KVMD_MSG_SPACE_REPLY, .h.err = -EINVAL };

	fake_accept(x);
	fake_hello(x);
	fake_recv(x, KVMD_MSG_SPACE, buf);
	r.h.cookie = x->cookie;
	strcpy(r.text, "group 0: plane_bytes is 4096, not 8192");
	fake_send(x, &r, sizeof(r), NULL, 0);
}

START_TEST(geometry_is_refused)
{
	fake_start(&f, script_space_refuse);
	ck_assert_int_eq(kvc_create(&opts, &space, &k), -EINVAL);
	ck_assert_str_eq(kvc_refusal(), "group 0: plane_bytes is 4096, not 8192");
	finish();
}
END_TEST

static void script_hello(struct fake *x)
{
	fake_accept(x);
	fake_hello(x);
}

START_TEST(other_version)
{
	f.version = 2;
	fake_start(&f, script_hello);
	ck_assert_int_eq(kvc_create(&opts, &space, &k), -EPROTO);
	ck_assert_ptr_nonnull(strstr(kvc_refusal(), "version 2"));
	finish();
}
END_TEST

static void script_eof_hello(struct fake *x)
{
	unsigned char buf[KVMD_MSG_MAX_BYTES] __attribute__((aligned(8)));

	fake_accept(x);
	fake_recv(x, KVMD_MSG_HELLO, buf);
	fake_hangup(x);
}

static void script_eof_space(struct fake *x)
{
	unsigned char buf[KVMD_MSG_MAX_BYTES] __attribute__((aligned(8)));

	script_hello(x);
	fake_recv(x, KVMD_MSG_SPACE, buf);
	fake_hangup(x);
}

static void script_eof_slabs(struct fake *x)
{
	script_hello(x);
	fake_space(x, 2);
	fake_slab_add(x, 0, 0, SLAB_SLOTS, 0, NULL);
	fake_slab_added(x, 0, 0);
	fake_hangup(x);
}

START_TEST(end_in_the_handshake)
{
	static void (*const script[])(struct fake *) = {
		script_eof_hello, script_eof_space, script_eof_slabs,
	};

	fake_start(&f, script[_i]);
	ck_assert_int_eq(kvc_create(&opts, &space, &k), -ECONNRESET);
	ck_assert_str_ne(kvc_refusal(), "");
	finish();
}
END_TEST

static void script_wrong_type(struct fake *x)
{
	unsigned char buf[KVMD_MSG_MAX_BYTES] __attribute__((aligned(8)));
	struct kvmd_epoch m = { .h.type = KVMD_MSG_EPOCH_REPLY };

	fake_accept(x);
	fake_recv(x, KVMD_MSG_HELLO, buf);
	fake_send(x, &m, sizeof(m), &x->listener, 1);
}

static void script_short_reply(struct fake *x)
{
	unsigned char buf[KVMD_MSG_MAX_BYTES] __attribute__((aligned(8)));
	struct kvmd_hello_reply r = { .h.type = KVMD_MSG_HELLO_REPLY };

	fake_accept(x);
	fake_recv(x, KVMD_MSG_HELLO, buf);
	r.h.cookie = x->cookie;
	r.version = KVMD_WIRE_VERSION;
	fake_send(x, &r, 64, &x->listener, 1);
}

START_TEST(malformed_reply)
{
	fake_start(&f, _i ? script_short_reply : script_wrong_type);
	ck_assert_int_eq(kvc_create(&opts, &space, &k), -EPROTO);
	ck_assert_str_ne(kvc_refusal(), "");
	finish();
}
END_TEST

/* ----------------------------------------------------------- the session */

static void script_plain(struct fake *x)
{
	script_hello(x);
	fake_space(x, 0);
}

START_TEST(view_and_rows)
{
	const struct kvc_view *v;

	fake_start(&f, script_plain);
	ck_assert_int_eq(kvc_create(&opts, &space, &k), 0);
	v = kvc_view(k);
	ck_assert_uint_eq(v->session, 7);
	ck_assert_uint_eq(v->max_seqs, FAKE_SEQS);
	ck_assert_uint_eq(v->nr_groups, 1);
	ck_assert_uint_eq(v->group[0].plane_bytes, 4096);
	ck_assert_uint_eq(v->group[0].max_slots, FAKE_SLOTS);
	ck_assert_uint_eq(v->group[0].row_blocks, FAKE_ROW);
	ck_assert_uint_eq(kvc_group_token(k), 0x1234);
	pthread_join(f.thread, NULL);
	f.tables[(2 * 1024 + 64) / 4 + 3] = 42;
	ck_assert_int_eq(kvc_row(v, 0, 2)[3], 42);
	ck_assert(!fake_writable((void *)(uintptr_t)&kvc_row(v, 0, 0)[0]));
	ck_assert_int_ne(fcntl(kvc_fd(k), F_GETFD) & FD_CLOEXEC, 0);
	/* Addresses are there before any slab is. */
	ck_assert_ptr_nonnull(kvc_addr(v, 0, 0, 1, 5));
	ck_assert(!fake_readable(kvc_addr(v, 0, 0, 1, 5)));
	fake_start(&f, fake_hangup);
	finish();
}
END_TEST

static int slab_fds[64];

static void script_two_slabs(struct fake *x)
{
	script_hello(x);
	fake_space(x, 2);
	fake_slab_add(x, 0, 0, SLAB_SLOTS, 0, slab_fds);
	fake_slab_added(x, 0, 0);
	fake_slab_add(x, 1, SLAB_SLOTS, SLAB_SLOTS, 1, slab_fds + 8);
	fake_slab_added(x, 1, 0);
}

static void close_slabs(int first, int nr)
{
	for (int i = first; i < first + nr; i++)
		close(slab_fds[i]);
}

START_TEST(slabs_are_mapped_twice)
{
	const struct kvc_view *v;
	char byte;

	f.nr_shards = 2;
	fake_start(&f, script_two_slabs);
	ck_assert_int_eq(kvc_create(&opts, &space, &k), 0);
	v = kvc_view(k);
	/* plane 1 of shard 1, slot 3 of the second slab */
	strcpy(kvc_addr(v, 0, 1, 1, SLAB_SLOTS + 3), "bytes");
	ck_assert_str_eq(kvc_addr_ro(v, 0, 1, 1, SLAB_SLOTS + 3), "bytes");
	ck_assert(!fake_writable((void *)(uintptr_t)kvc_addr_ro(v, 0, 1, 1, SLAB_SLOTS + 3)));
	pthread_join(f.thread, NULL);
	ck_assert_int_eq(pread(slab_fds[8 + 3], &byte, 1, 3 * 4096), 1);
	ck_assert_int_eq(byte, 'b');
	/* Windows do not overlap. */
	for (uint32_t s = 0; s < 2; s++) {
		for (uint32_t p = 0; p < 2; p++)
			*(uint32_t *)kvc_addr(v, 0, s, p, 1) = s * 2 + p;
	}
	for (uint32_t s = 0; s < 2; s++) {
		for (uint32_t p = 0; p < 2; p++)
			ck_assert_uint_eq(*(const uint32_t *)kvc_addr_ro(v, 0, s, p, 1),
					  s * 2 + p);
	}
	ck_assert(!fake_readable(kvc_addr(v, 0, 0, 0, 2 * SLAB_SLOTS)));
	close_slabs(0, 4);
	close_slabs(8, 4);
	fake_start(&f, fake_hangup);
	finish();
}
END_TEST

START_TEST(nothing_is_inherited_by_fork)
{
	const void *ptr[6];
	int status;
	pid_t pid;

	fake_start(&f, script_two_slabs);
	ck_assert_int_eq(kvc_create(&opts, &space, &k), 0);
	pthread_join(f.thread, NULL);
	ptr[0] = kvc_addr(kvc_view(k), 0, 0, 0, 0);
	ptr[1] = kvc_addr_ro(kvc_view(k), 0, 0, 1, 0);
	ptr[2] = k->ring;
	ptr[3] = k->steps;
	ptr[4] = k->args_mem;
	ptr[5] = k->tables;
	pid = fork();
	if (!pid) {
		for (int i = 0; i < 6; i++) {
			if (fake_readable(ptr[i]))
				_exit(1 + i);
		}
		/* What the child has put there is not the library's to unmap. */
		if (mmap((void *)(uintptr_t)ptr[0], 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS |
			 MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED)
			_exit(10);
		kvc_destroy(k);
		_exit(fake_readable(ptr[0]) ? 0 : 11);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	for (int i = 0; i < 6; i++)
		ck_assert(fake_readable(ptr[i]));
	close_slabs(0, 2);
	close_slabs(8, 2);
	fake_start(&f, fake_hangup);
	finish();
}
END_TEST

static void add_late(struct fake *x)
{
	fake_slab_add(x, 5, 128, SLAB_SLOTS, 1, slab_fds);
	fake_news(x);
	fake_slab_added(x, 5, 0);
	fake_cqe(x, 1, 0, 0, 0);
	fake_cq_publish(x);
}

static void del_late(struct fake *x)
{
	fake_slab_del(x, 5);
	fake_news(x);
	fake_slab_deleted(x, 5);
	fake_cqe(x, 2, 0, 0, 0);
	fake_cq_publish(x);
}

static void add_first(struct fake *x)
{
	fake_slab_add(x, 5, 0, SLAB_SLOTS, 0, slab_fds);
	fake_news(x);
	fake_slab_added(x, 5, 0);
	fake_cqe(x, 1, 0, 0, 0);
	fake_cq_publish(x);
}

/* A row's NULL entries name slot 0: whoever follows them reads zeroes, always. */
START_TEST(slot_zero_outlives_its_slab)
{
	const unsigned char *zero;

	fake_start(&f, script_plain);
	ck_assert_int_eq(kvc_create(&opts, &space, &k), 0);
	pthread_join(f.thread, NULL);
	zero = kvc_addr(kvc_view(k), 0, 0, 1, 0);
	for (int round = 0; round < 2; round++) {
		ck_assert(fake_readable(zero));
		ck_assert(!fake_writable((void *)(uintptr_t)zero));
		fake_start(&f, add_first);
		ck_assert_int_eq(kvc_wait_cqe(k, UINT64_MAX, &cqe), 0);
		kvc_cqe_seen(k);
		pthread_join(f.thread, NULL);
		ck_assert(fake_writable(kvc_addr(kvc_view(k), 0, 0, 1, 1)));
		fake_start(&f, del_late);
		ck_assert_int_eq(kvc_wait_cqe(k, UINT64_MAX, &cqe), 0);
		kvc_cqe_seen(k);
		pthread_join(f.thread, NULL);
		for (uint64_t i = 0; i < f.plane_bytes; i++)
			quiet_assert(!zero[i]);
		ck_assert(fake_readable(kvc_addr_ro(kvc_view(k), 0, 0, 1, 0)));
		ck_assert(!fake_readable(kvc_addr(kvc_view(k), 0, 0, 1, 1)));
		close_slabs(0, f.planes * f.nr_shards);
	}
	fake_start(&f, fake_hangup);
	finish();
}
END_TEST

START_TEST(slabs_come_and_go_while_waiting)
{
	char *p;

	fake_start(&f, script_plain);
	ck_assert_int_eq(kvc_create(&opts, &space, &k), 0);
	pthread_join(f.thread, NULL);
	p = kvc_addr(kvc_view(k), 0, 0, 1, 130);
	ck_assert(!fake_readable(p));
	for (int round = 0; round < 2; round++) {
		fake_start(&f, add_late);
		ck_assert_int_eq(kvc_wait_cqe(k, UINT64_MAX, &cqe), 0);
		kvc_cqe_seen(k);
		pthread_join(f.thread, NULL);
		ck_assert(fake_writable(p));
		fake_start(&f, del_late);
		ck_assert_int_eq(kvc_wait_cqe(k, UINT64_MAX, &cqe), 0);
		kvc_cqe_seen(k);
		pthread_join(f.thread, NULL);
		ck_assert(!fake_readable(p));
		ck_assert(!fake_readable(kvc_addr_ro(kvc_view(k), 0, 0, 1, 130)));
		close_slabs(0, 2);
	}
	fake_start(&f, fake_hangup);
	finish();
}
END_TEST

static void add_quietly(struct fake *x)
{
	fake_slab_add(x, 5, 128, SLAB_SLOTS, 0, slab_fds);
}

static void added(struct fake *x)
{
	fake_slab_added(x, 5, 0);
}

START_TEST(poll_maps_without_news)
{
	fake_start(&f, script_plain);
	ck_assert_int_eq(kvc_create(&opts, &space, &k), 0);
	pthread_join(f.thread, NULL);
	ck_assert_int_eq(kvc_poll(k), 0);
	fake_start(&f, add_quietly);
	pthread_join(f.thread, NULL);
	ck_assert_int_eq(kvc_poll(k), 0);
	ck_assert(fake_writable(kvc_addr(kvc_view(k), 0, 0, 0, 128)));
	fake_start(&f, added);
	pthread_join(f.thread, NULL);
	close_slabs(0, 2);
	fake_start(&f, fake_hangup);
	pthread_join(f.thread, NULL);
	ck_assert_int_eq(kvc_poll(k), -ECONNRESET);
	/* what was mapped stays until kvc_destroy() */
	ck_assert(fake_writable(kvc_addr(kvc_view(k), 0, 0, 0, 128)));
	fake_start(&f, fake_hangup);
	finish();
}
END_TEST

static void add_beyond(struct fake *x)
{
	fake_slab_add(x, 5, FAKE_SLOTS - 8, 16, 0, slab_fds);
	fake_news(x);
	fake_slab_added(x, 5, -EPROTO);
}

START_TEST(unmappable_slab_ends_the_session)
{
	fake_start(&f, script_plain);
	ck_assert_int_eq(kvc_create(&opts, &space, &k), 0);
	pthread_join(f.thread, NULL);
	fake_start(&f, add_beyond);
	ck_assert_int_eq(kvc_wait_cqe(k, UINT64_MAX, &cqe), -ECONNRESET);
	ck_assert_str_ne(kvc_refusal(), "");
	pthread_join(f.thread, NULL);
	close_slabs(0, 2);
	fake_start(&f, fake_hangup);
	finish();
}
END_TEST

/* The daemon reads no answers: a wait still ends in time, and nothing is lost. */
START_TEST(answers_wait_for_room)
{
	uint32_t nr = 0;

	f.device = "null";
	fake_start(&f, script_plain);
	ck_assert_int_eq(kvc_create(&opts, &space, &k), 0);
	pthread_join(f.thread, NULL);
	while (!k->has_ack && nr < 100000) {
		fake_slab_add(&f, nr++, 0, SLAB_SLOTS, 0, NULL);
		ck_assert_int_eq(kvc_poll(k), 0);
	}
	ck_assert(k->has_ack);
	fake_slab_add(&f, nr++, 0, SLAB_SLOTS, 0, NULL);
	fake_news(&f);
	ck_assert_int_eq(kvc_wait_cqe(k, 20000000, &cqe), -ETIMEDOUT);
	ck_assert(k->has_ack);
	for (uint32_t i = 0; i < nr; i++) {
		if (i >= nr - 2)
			ck_assert_int_eq(kvc_poll(k), 0);
		fake_slab_added(&f, i, 0);
	}
	ck_assert(!k->has_ack);
	fake_start(&f, fake_hangup);
	finish();
}
END_TEST

static void script_null(struct fake *x)
{
	script_hello(x);
	fake_space(x, 1);
	fake_slab_add(x, 0, 0, FAKE_SLOTS, 0, NULL);
	fake_slab_added(x, 0, 0);
}

START_TEST(null_device_maps_nothing)
{
	f.device = "null";
	f.plane_bytes = 1ull << 40;
	fake_start(&f, script_null);
	ck_assert_int_eq(kvc_create(&opts, &space, &k), 0);
	ck_assert_ptr_null(kvc_view(k)->group[0].plane[0].rw);
	pthread_join(f.thread, NULL);
	fake_start(&f, fake_hangup);
	finish();
}
END_TEST

START_TEST(no_address_space)
{
	f.plane_bytes = 1ull << 50;
	fake_start(&f, script_plain);
	ck_assert_int_eq(kvc_create(&opts, &space, &k), -ENOMEM);
	ck_assert_ptr_nonnull(strstr(kvc_refusal(), "address space"));
	finish();
}
END_TEST

START_TEST(two_sessions_in_one_process)
{
	struct kvc *other;
	struct kvc_opts o2;
	struct fake g;

	fake_init(&g);
	o2 = opts;
	o2.socket = g.path;
	fake_start(&f, script_plain);
	fake_start(&g, script_plain);
	ck_assert_int_eq(kvc_create(&opts, &space, &k), 0);
	ck_assert_int_eq(kvc_create(&o2, &space, &other), 0);
	pthread_join(f.thread, NULL);
	pthread_join(g.thread, NULL);
	kvc_step_submit(k, 3);
	kvc_step_submit(other, 4);
	ck_assert_uint_eq(f.ring->submitted_step, 3);
	ck_assert_uint_eq(g.ring->submitted_step, 4);
	ck_assert_ptr_ne(kvc_addr(kvc_view(k), 0, 0, 0, 0), kvc_addr(kvc_view(other), 0, 0, 0, 0));
	kvc_destroy(k);
	k = NULL;
	ck_assert_int_eq(kvc_poll(other), 0);
	kvc_destroy(other);
	fake_start(&g, fake_hangup);
	fake_stop(&g);
	fake_start(&f, fake_hangup);
	finish();
}
END_TEST

START_TEST(words_for_errors)
{
	ck_assert_str_eq(kvc_strerror(-EDEADLK), kvc_strerror(EDEADLK));
	ck_assert_str_ne(kvc_strerror(-EDEADLK), kvc_strerror(-ENOMEM));
	ck_assert_str_eq(kvc_strerror(-9999), "unknown error");
	ck_assert_str_ne(kvc_version(), "");
	close(f.listener);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("client_setup");
	TCase *tc = tcase_create("setup");

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, nobody_there);
	tcase_add_test(tc, bad_arguments);
	tcase_add_test(tc, refusal_text_surfaces);
	tcase_add_test(tc, geometry_is_refused);
	tcase_add_test(tc, other_version);
	tcase_add_loop_test(tc, end_in_the_handshake, 0, 3);
	tcase_add_loop_test(tc, malformed_reply, 0, 2);
	tcase_add_test(tc, view_and_rows);
	tcase_add_test(tc, slabs_are_mapped_twice);
	tcase_add_test(tc, nothing_is_inherited_by_fork);
	tcase_add_test(tc, slot_zero_outlives_its_slab);
	tcase_add_test(tc, slabs_come_and_go_while_waiting);
	tcase_add_test(tc, poll_maps_without_news);
	tcase_add_test(tc, unmappable_slab_ends_the_session);
	tcase_add_test(tc, answers_wait_for_room);
	tcase_add_test(tc, null_device_maps_nothing);
	tcase_add_test(tc, no_address_space);
	tcase_add_test(tc, two_sessions_in_one_process);
	tcase_add_test(tc, words_for_errors);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
