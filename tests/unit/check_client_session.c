/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_client_session.c - reconnect, ranks of a session group, and the epoch,
 * against a scripted daemon.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libkvclient/internal.h"
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

static void script_refuse(struct fake *x)
{
	fake_accept(x);
	fake_refuse_hello(x, -EACCES, "tenant 'blue' is not for uid 7");
}

static void script_hello(struct fake *x)
{
	fake_accept(x);
	fake_hello(x);
}

static void script_plain(struct fake *x)
{
	script_hello(x);
	fake_space(x, 0);
}

/* The daemon that came after knows nothing of the session. */
static void script_not_kept(struct fake *x)
{
	fake_accept(x);
	fake_refuse_resume(x, -ESTALE, 0, "the pool was not kept");
	fake_hangup(x);
}

static void script_again(struct fake *x)
{
	script_not_kept(x);
	script_plain(x);
}

static void script_again_refused(struct fake *x)
{
	script_not_kept(x);
	script_refuse(x);
}

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

/* ------------------------------------------------------------- reconnect */

static void echo_nop(struct fake *x)
{
	fake_echo(x, 1);
}

START_TEST(reconnect_keeps_addresses)
{
	const void *addr;
	uint64_t *word;

	fake_start(&f, script_two_slabs);
	ck_assert_int_eq(kvc_create(&opts, &space, &k), 0);
	pthread_join(f.thread, NULL);
	addr = kvc_addr(kvc_view(k), 0, 0, 1, 3);
	word = kvc_step_word(k, 0);
	*word = 9;
	ck_assert_int_eq(kvc_reconnect(k), -EISCONN);
	close_slabs(0, 2);
	close_slabs(8, 2);
	fake_hangup(&f);
	ck_assert_int_eq(kvc_poll(k), -ECONNRESET);
	fake_start(&f, script_again);
	ck_assert_int_eq(kvc_reconnect(k), 0);
	pthread_join(f.thread, NULL);
	ck_assert_ptr_eq(kvc_addr(kvc_view(k), 0, 0, 1, 3), addr);
	ck_assert(!fake_readable(addr));		/* its slab is gone */
	ck_assert_ptr_eq(kvc_step_word(k, 0), word);
	ck_assert_uint_eq(*word, 0);		/* of the new session */
	*word = 5;
	ck_assert_uint_eq(f.steps->lane[0].completed_step, 5);
	ck_assert_int_eq(kvc_poll(k), 0);
	fake_start(&f, echo_nop);
	ck_assert_int_eq(kvc_nop(k), 0);
	pthread_join(f.thread, NULL);
	fake_start(&f, fake_hangup);
	finish();
}
END_TEST

START_TEST(reconnect_with_other_geometry)
{
	fake_start(&f, script_plain);
	ck_assert_int_eq(kvc_create(&opts, &space, &k), 0);
	pthread_join(f.thread, NULL);
	fake_hangup(&f);
	f.planes = 3;
	f.plane_bytes = 8192;
	fake_start(&f, script_again);
	ck_assert_int_eq(kvc_reconnect(k), 0);
	pthread_join(f.thread, NULL);
	ck_assert_uint_eq(kvc_view(k)->group[0].planes, 3);
	ck_assert_ptr_nonnull(kvc_addr(kvc_view(k), 0, 0, 2, 1));
	fake_start(&f, fake_hangup);
	finish();
}
END_TEST

START_TEST(reconnect_that_fails)
{
	fake_start(&f, script_plain);
	ck_assert_int_eq(kvc_create(&opts, &space, &k), 0);
	pthread_join(f.thread, NULL);
	fake_hangup(&f);
	fake_start(&f, script_again_refused);
	ck_assert_int_eq(kvc_reconnect(k), -EACCES);
	pthread_join(f.thread, NULL);
	/* Every call says so, none crashes. */
	ck_assert_ptr_null(kvc_get_sqe(k));
	ck_assert_int_eq(kvc_submit(k), -ECONNRESET);
	ck_assert_int_eq(kvc_peek_cqe(k, &cqe), -ECONNRESET);
	ck_assert_int_eq(kvc_wait_cqe(k, UINT64_MAX, &cqe), -ECONNRESET);
	ck_assert_int_eq(kvc_nop(k), -ECONNRESET);
	ck_assert_int_eq(kvc_lookup(k, 0, "", 1, NULL), -ECONNRESET);
	ck_assert_int_eq(kvc_epoch_raise(k, NULL), -ECONNRESET);
	kvc_step_submit(k, 3);
	kvc_step_complete(k, 0, 3);
	fake_start(&f, script_plain);
	ck_assert_int_eq(kvc_reconnect(k), 0);
	ck_assert_ptr_nonnull(kvc_get_sqe(k));
	pthread_join(f.thread, NULL);
	fake_start(&f, fake_hangup);
	finish();
}
END_TEST

/* ----------------------------------------------------------- join, epoch */

static void script_join(struct fake *x)
{
	unsigned char buf[KVMD_MSG_MAX_BYTES] __attribute__((aligned(8)));
	const struct kvmd_join *m = (const void *)buf;

	fake_accept(x);
	fake_recv(x, KVMD_MSG_JOIN, buf);
	FAKE_CHECK(x, m->rank == 1 && m->group_token == 0x1234);
	x->steps_fd = fake_memfd(4096);
	x->tables_fd = fake_memfd(4096);
	fake_space_reply(x, KVMD_MSG_JOIN_REPLY, 1);
	fake_slab_add(x, 0, 0, SLAB_SLOTS, 0, slab_fds);
	fake_slab_added(x, 0, 0);
}

START_TEST(rank_maps_tables_and_slabs)
{
	fake_start(&f, script_join);
	ck_assert_int_eq(kvc_join(&opts, 0x1234, 1, &k), 0);
	pthread_join(f.thread, NULL);
	ck_assert_uint_eq(kvc_view(k)->max_seqs, 4);
	ck_assert(fake_writable(kvc_addr(kvc_view(k), 0, 0, 1, 3)));
	kvc_step_complete(k, 1, 6);
	ck_assert_uint_eq(*kvc_step_word(k, 1), 6);
	ck_assert_ptr_null(kvc_get_sqe(k));
	ck_assert_int_eq(kvc_submit(k), -EINVAL);
	ck_assert_int_eq(kvc_nop(k), -EINVAL);
	ck_assert_int_eq(kvc_peek_cqe(k, &cqe), -EINVAL);
	ck_assert_uint_eq(kvc_pressure(k), 0);
	ck_assert_int_eq(kvc_poll(k), 0);
	fake_hangup(&f);
	ck_assert_int_eq(kvc_poll(k), -ECONNRESET);
	close_slabs(0, 2);
	fake_start(&f, fake_hangup);
	finish();
}
END_TEST

static void epoch_once(struct fake *x)
{
	unsigned char buf[KVMD_MSG_MAX_BYTES] __attribute__((aligned(8)));
	struct kvmd_epoch r = { .h.type = KVMD_MSG_EPOCH_REPLY, .epoch = 17 };

	fake_recv(x, KVMD_MSG_EPOCH, buf);
	r.h.cookie = x->cookie;
	/* A slab that comes between is mapped meanwhile. */
	fake_slab_add(x, 5, 128, SLAB_SLOTS, 0, slab_fds);
	fake_send(x, &r, sizeof(r), NULL, 0);
	fake_slab_added(x, 5, 0);
}

static void epoch_refused(struct fake *x)
{
	unsigned char buf[KVMD_MSG_MAX_BYTES] __attribute__((aligned(8)));
	struct kvmd_epoch r = { .h.type = KVMD_MSG_EPOCH_REPLY, .text = "not yours" };

	fake_recv(x, KVMD_MSG_EPOCH, buf);
	r.h.cookie = x->cookie;
	r.h.err = -EPERM;
	fake_send(x, &r, sizeof(r), NULL, 0);
}

START_TEST(epoch_is_raised)
{
	uint64_t epoch = 0;

	fake_start(&f, script_plain);
	ck_assert_int_eq(kvc_create(&opts, &space, &k), 0);
	pthread_join(f.thread, NULL);
	fake_start(&f, epoch_once);
	ck_assert_int_eq(kvc_epoch_raise(k, &epoch), 0);
	ck_assert_uint_eq(epoch, 17);
	pthread_join(f.thread, NULL);
	ck_assert(fake_writable(kvc_addr(kvc_view(k), 0, 0, 0, 128)));
	close_slabs(0, 2);
	fake_start(&f, epoch_refused);
	ck_assert_int_eq(kvc_epoch_raise(k, &epoch), -EPERM);
	ck_assert_str_eq(kvc_refusal(), "not yours");
	pthread_join(f.thread, NULL);
	ck_assert_int_eq(kvc_poll(k), 0);
	fake_start(&f, fake_hangup);
	finish();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("client_session");
	TCase *tc = tcase_create("session");

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, reconnect_keeps_addresses);
	tcase_add_test(tc, reconnect_with_other_geometry);
	tcase_add_test(tc, reconnect_that_fails);
	tcase_add_test(tc, rank_maps_tables_and_slabs);
	tcase_add_test(tc, epoch_is_raised);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
