/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_client_resume.c - a session that goes on with the daemon that came after,
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
static int fds[64], fds_after[64];

/* Two slabs: slots 0 to 63 and 64 to 127. */
static void script_begin(struct fake *x)
{
	fake_accept(x);
	fake_hello(x);
	fake_space(x, 2);
	fake_slab_add(x, 0, 0, SLAB_SLOTS, 0, fds);
	fake_slab_added(x, 0, 0);
	fake_slab_add(x, 1, SLAB_SLOTS, SLAB_SLOTS, 1, fds + 2);
	fake_slab_added(x, 1, 0);
}

static void close_fds(int *fd, int nr)
{
	for (int i = 0; i < nr; i++)
		close(fd[i]);
}

static void setup(void)
{
	fake_init(&f);
	nr_fds = fake_nr_fds();
	kvc_opts_init(&opts);
	opts.socket = f.path;
	kvc_space_init(&space, "models");
	fake_start(&f, script_begin);
	ck_assert_int_eq(kvc_create(&opts, &space, &k), 0);
	pthread_join(f.thread, NULL);
	close_fds(fds, 4);
}

static void nothing(struct fake *x)
{
	(void)x;
}

static void teardown(void)
{
	kvc_destroy(k);
	fake_start(&f, nothing);
	fake_stop(&f);
	ck_assert_uint_eq(fake_nr_fds(), nr_fds - 1);	/* the fake's listener */
}

static void kill_daemon(void)
{
	fake_hangup(&f);
	ck_assert_int_eq(kvc_poll(k), -ECONNRESET);
}

static void script_resume(struct fake *x)
{
	fake_accept_kept(x);
	fake_resume(x, 2);
	fake_slab_add(x, 0, 0, SLAB_SLOTS, 0, fds);
	fake_slab_added(x, 0, 0);
	fake_slab_add(x, 1, SLAB_SLOTS, SLAB_SLOTS, 1, fds + 2);
	fake_slab_added(x, 1, 0);
}

/* The session goes on with @script. */
static void resume_by(void (*script)(struct fake *x))
{
	fake_start(&f, script);
	ck_assert_int_eq(kvc_reconnect(k), 1);
	pthread_join(f.thread, NULL);
}

static void echo_nop(struct fake *x)
{
	fake_echo(x, 1);
}

static void nop(void)
{
	fake_start(&f, echo_nop);
	ck_assert_int_eq(kvc_nop(k), 0);
	pthread_join(f.thread, NULL);
}

static void submit(uint64_t user_data)
{
	struct kvmd_sqe *e = kvc_get_sqe(k);

	ck_assert_ptr_nonnull(e);
	kvc_prep_nop(e);
	e->user_data = user_data;
	ck_assert_int_eq(kvc_submit(k), 1);
}

static void expect(uint64_t user_data, int res)
{
	ck_assert_int_eq(kvc_peek_cqe(k, &cqe), 0);
	ck_assert_uint_eq(cqe->user_data, user_data);
	ck_assert_int_eq(cqe->res, res);
	kvc_cqe_seen(k);
}

/* ------------------------------------------------------- what is kept */

START_TEST(nothing_moves)
{
	const struct kvc_view *v = kvc_view(k);
	char *old = kvc_addr(v, 0, 0, 1, 3), *far = kvc_addr(v, 0, 0, 0, SLAB_SLOTS + 1);
	uint64_t *word = kvc_step_word(k, 0), off;
	char *args = kvc_args_alloc(k, 64, &off);

	strcpy(old, "sealed");
	strcpy(far, "private");
	strcpy(args, "keys");
	kvc_step_submit(k, 9);
	*word = 8;
	f.tables[(2 * 1024 + 64) / 4] = 42;
	ck_assert_int_eq(kvc_reconnect(k), -EISCONN);
	kill_daemon();
	/* While no daemon is there blocks can be used. */
	ck_assert_str_eq(old, "sealed");
	resume_by(script_resume);
	close_fds(fds, 4);
	ck_assert_ptr_eq(kvc_view(k), v);
	ck_assert_uint_eq(v->session, 7);
	/* The same memory, not what the second announcement brought. */
	ck_assert_str_eq(old, "sealed");
	ck_assert_str_eq(far, "private");
	ck_assert_str_eq(args, "keys");
	ck_assert_ptr_eq(kvc_step_word(k, 0), word);
	ck_assert_uint_eq(*word, 8);
	ck_assert_uint_eq(f.ring->submitted_step, 9);
	ck_assert_int_eq(kvc_row(v, 0, 2)[0], 42);
	ck_assert_int_eq(kvc_poll(k), 0);
	kvc_args_free(k, off);
	nop();
	/* And once more, with the boot id of the second. */
	kill_daemon();
	resume_by(script_resume);
	close_fds(fds, 4);
	ck_assert_str_eq(old, "sealed");
	nop();
}
END_TEST

static void script_other_slabs(struct fake *x)
{
	fake_accept_kept(x);
	fake_resume(x, 2);
	x->slab_gen = 2;	/* slab 0 was deleted and made again */
	fake_slab_add(x, 0, 0, SLAB_SLOTS, 1, fds);
	fake_slab_added(x, 0, 0);
	fake_slab_add(x, 9, SLAB_SLOTS + 32, SLAB_SLOTS, 0, fds + 2);	/* over slab 1 */
	fake_slab_added(x, 9, 0);
	x->slab_gen = 1;
}

START_TEST(slabs_of_other_generations)
{
	const struct kvc_view *v = kvc_view(k);
	char *slot = kvc_addr(v, 0, 0, 1, 3);

	strcpy(slot, "of the old slab");
	kill_daemon();
	resume_by(script_other_slabs);
	ck_assert_str_eq(slot, "");
	strcpy(slot, "new");
	ck_assert_str_eq(kvc_addr_ro(v, 0, 0, 1, 3), "new");
	/* Slab 1 is gone, slab 9 is there. */
	ck_assert(!fake_readable(kvc_addr(v, 0, 0, 0, SLAB_SLOTS)));
	ck_assert(!fake_readable(kvc_addr_ro(v, 0, 0, 1, SLAB_SLOTS + 31)));
	ck_assert(fake_writable(kvc_addr(v, 0, 0, 0, SLAB_SLOTS + 32)));
	ck_assert(fake_writable(kvc_addr(v, 0, 0, 1, 2 * SLAB_SLOTS + 31)));
	close_fds(fds, 4);
	nop();
}
END_TEST

static void script_no_slabs(struct fake *x)
{
	fake_accept_kept(x);
	fake_resume(x, 0);
}

START_TEST(slabs_that_are_gone)
{
	kill_daemon();
	resume_by(script_no_slabs);
	ck_assert(!fake_readable(kvc_addr(kvc_view(k), 0, 0, 0, 1)));
	ck_assert(!fake_readable(kvc_addr(kvc_view(k), 0, 0, 1, SLAB_SLOTS)));
	ck_assert(fake_readable(kvc_addr(kvc_view(k), 0, 0, 0, 0)));	/* the NULL block */
	nop();
}
END_TEST

/* --------------------------------------------- what was on its way */

START_TEST(entries_end_once)
{
	struct kvmd_sqe e;

	for (uint64_t i = 0; i < 8; i++)
		submit(100 + i);
	for (int i = 0; i < 6; i++)
		ck_assert(fake_sqe(&f, &e));
	fake_cqe(&f, 102, 5, 0, 0);
	fake_cqe(&f, 100, 6, 0, 0);
	fake_cqe(&f, 104, 7, 0, 0);
	fake_cq_publish(&f);
	expect(102, 5);
	kvc_get_sqe(k)->user_data = 999;	/* never submitted */
	fake_cqe(&f, 105, 8, 0, 0);		/* killed before it stored cq_tail */
	kill_daemon();
	resume_by(script_resume);
	close_fds(fds, 4);
	expect(100, 6);
	expect(104, 7);
	expect(105, 8);
	expect(101, -ECONNRESET);
	expect(103, -ECONNRESET);
	expect(106, -ECONNRESET);
	expect(107, -ECONNRESET);
	ck_assert_int_eq(kvc_peek_cqe(k, &cqe), -EAGAIN);
	nop();
	ck_assert_int_eq(kvc_peek_cqe(k, &cqe), -EAGAIN);
}
END_TEST

START_TEST(a_peeked_completion_is_seen_after)
{
	submit(1);
	submit(2);
	fake_cqe(&f, 1, 0, 0, 0);
	fake_cq_publish(&f);
	ck_assert_int_eq(kvc_peek_cqe(k, &cqe), 0);
	kill_daemon();
	resume_by(script_resume);
	close_fds(fds, 4);
	ck_assert_uint_eq(cqe->user_data, 1);
	kvc_cqe_seen(k);
	expect(2, -ECONNRESET);
	ck_assert_int_eq(kvc_peek_cqe(k, &cqe), -EAGAIN);
}
END_TEST

static void echo_many(struct fake *x)
{
	fake_echo(x, 3 * FAKE_CQ + 5);
}

/* pos words of the rounds before are no completions. */
START_TEST(rings_begin_again)
{
	fake_start(&f, echo_many);
	for (uint32_t i = 0; i < 3 * FAKE_CQ + 5; i++)
		ck_assert_int_eq(kvc_nop(k), 0);
	pthread_join(f.thread, NULL);
	kill_daemon();
	resume_by(script_resume);
	close_fds(fds, 4);
	for (uint32_t i = 0; i < 2; i++) {
		submit(i);
		ck_assert_int_eq(kvc_peek_cqe(k, &cqe), -EAGAIN);
	}
	fake_start(&f, echo_many);
	for (uint32_t i = 0; i < 3 * FAKE_CQ + 3; i++)
		ck_assert_int_eq(kvc_nop(k), 0);
	pthread_join(f.thread, NULL);
	expect(0, 0);
	expect(1, 0);
}
END_TEST

static void vanish(struct fake *x)
{
	struct kvmd_sqe e;

	FAKE_CHECK(x, fake_sqe(x, &e) && fake_sqe(x, &e));
	fake_hangup(x);
}

/* A synchronous call knows already that it failed. */
START_TEST(synchronous_calls_end_once)
{
	submit(5);
	fake_start(&f, vanish);
	ck_assert_int_eq(kvc_seq_open(k, 0, 1, "0123456789abcdef0123456789abcdef", 1, 0, 0, 0,
				      NULL), -ECONNRESET);
	pthread_join(f.thread, NULL);
	resume_by(script_resume);
	close_fds(fds, 4);
	expect(5, -ECONNRESET);
	ck_assert_int_eq(kvc_peek_cqe(k, &cqe), -EAGAIN);
	/* and its keys are out of the args area */
	ck_assert_int_eq(kvci_args_get(&k->args, FAKE_ARGS), 0);
}
END_TEST

/* -------------------------------------------------------- the way there */

static void script_recovering(struct fake *x)
{
	fake_accept_kept(x);
	for (int i = 0; i < 3; i++)
		fake_refuse_resume(x, -EAGAIN, 1, "still recovering");
	fake_resume(x, 0);
}

START_TEST(recovery_is_waited_for)
{
	kill_daemon();
	resume_by(script_recovering);
	nop();
}
END_TEST

static void script_recovers_for_long(struct fake *x)
{
	fake_accept_kept(x);
	fake_refuse_resume(x, -EAGAIN, 1, "still recovering, 40 %");
	fake_hangup(x);
}

START_TEST(recovery_that_takes_too_long)
{
	char *old = kvc_addr(kvc_view(k), 0, 0, 1, 3);

	strcpy(old, "sealed");
	submit(3);
	k->conf.opts.resume_ns = 1;
	kill_daemon();
	fake_start(&f, script_recovers_for_long);
	ck_assert_int_eq(kvc_reconnect(k), -EAGAIN);
	pthread_join(f.thread, NULL);
	ck_assert_str_eq(kvc_refusal(), "still recovering, 40 %");
	ck_assert_str_eq(old, "sealed");
	ck_assert_int_eq(kvc_submit(k), -ECONNRESET);
	ck_assert_int_eq(kvc_nop(k), -ECONNRESET);
	resume_by(script_resume);
	close_fds(fds, 4);
	ck_assert_str_eq(old, "sealed");
	expect(3, -ECONNRESET);
	nop();
}
END_TEST

static void script_dies_once(struct fake *x)
{
	fake_accept_kept(x);
	fake_hangup(x);
	script_no_slabs(x);
}

START_TEST(second_death_in_the_handshake)
{
	kill_daemon();
	resume_by(script_dies_once);
	nop();
}
END_TEST

static void script_does_not_know(struct fake *x)
{
	unsigned char buf[KVMD_MSG_MAX_BYTES] __attribute__((aligned(8)));

	for (int i = 0; i < 3; i++) {
		fake_accept_kept(x);
		fake_recv(x, KVMD_MSG_RESUME, buf);
		fake_hangup(x);
	}
	script_begin(x);
}

static void script_not_kept(struct fake *x)
{
	fake_accept_kept(x);
	fake_refuse_resume(x, -ESTALE, 0, "the pool was not kept");
	script_begin(x);
}

START_TEST(otherwise_a_new_session)
{
	char *old = kvc_addr(kvc_view(k), 0, 0, 1, 3);

	strcpy(old, "sealed");
	submit(3);
	kill_daemon();
	fake_start(&f, _i ? script_does_not_know : script_not_kept);
	ck_assert_int_eq(kvc_reconnect(k), 0);
	pthread_join(f.thread, NULL);
	close_fds(fds, 4);
	ck_assert_str_eq(old, "");
	ck_assert_str_eq(kvc_refusal(), "");
	ck_assert_int_eq(kvc_peek_cqe(k, &cqe), -EAGAIN);
	nop();
}
END_TEST

START_TEST(without_the_feature)
{
	kill_daemon();
	f.features = KVMD_FEATURES & ~KVMD_FEAT_RESUME;
	fake_start(&f, script_not_kept);
	ck_assert_int_eq(kvc_reconnect(k), 0);
	pthread_join(f.thread, NULL);
	close_fds(fds, 4);
	ck_assert_uint_eq(k->sent.size, 0);
	submit(3);
	kill_daemon();
	fake_start(&f, script_begin);		/* nobody asks to resume */
	ck_assert_int_eq(kvc_reconnect(k), 0);
	pthread_join(f.thread, NULL);
	close_fds(fds, 4);
	nop();
}
END_TEST

static void script_refuse(struct fake *x)
{
	fake_accept_kept(x);
	fake_refuse_resume(x, -EACCES, 0, "another user's session");
	fake_hangup(x);
}

static void script_unmappable(struct fake *x)
{
	fake_accept_kept(x);
	fake_resume(x, 1);
	fake_slab_add(x, 5, FAKE_SLOTS - 8, 16, 0, fds_after);
	fake_slab_added(x, 5, -EPROTO);
	fake_hangup(x);
}

START_TEST(refusals_leave_everything_as_it_was)
{
	char *old = kvc_addr(kvc_view(k), 0, 0, 1, 3);
	int listener = f.listener;

	strcpy(old, "sealed");
	kill_daemon();
	fake_start(&f, script_refuse);
	ck_assert_int_eq(kvc_reconnect(k), -EACCES);
	pthread_join(f.thread, NULL);
	ck_assert_str_eq(kvc_refusal(), "another user's session");
	ck_assert_str_eq(old, "sealed");
	/* nobody there */
	memcpy(k->conf.socket, "@kvmd-nobody-listens-here", 26);
	ck_assert_int_eq(kvc_reconnect(k), -ECONNREFUSED);
	ck_assert_str_eq(old, "sealed");
	strcpy(k->conf.socket, f.path);
	fake_start(&f, script_unmappable);
	ck_assert_int_eq(kvc_reconnect(k), -EPROTO);
	pthread_join(f.thread, NULL);
	close_fds(fds_after, 2);
	ck_assert_int_eq(kvc_nop(k), -ECONNRESET);
	/* The daemon that was left in the middle knows the session no more. */
	fake_start(&f, script_not_kept);
	ck_assert_int_eq(kvc_reconnect(k), 0);
	pthread_join(f.thread, NULL);
	close_fds(fds, 4);
	nop();
	ck_assert_int_eq(f.listener, listener);
}
END_TEST

/* ----------------------------------------------------------------- ranks */

static void script_join(struct fake *x)
{
	unsigned char buf[KVMD_MSG_MAX_BYTES] __attribute__((aligned(8)));

	fake_accept(x);
	fake_recv(x, KVMD_MSG_JOIN, buf);
	x->steps_fd = fake_memfd(4096);
	x->tables_fd = fake_memfd(4096);
	fake_space_reply(x, KVMD_MSG_JOIN_REPLY, 1);
	fake_slab_add(x, 0, 0, SLAB_SLOTS, 0, fds);
	fake_slab_added(x, 0, 0);
}

static void rank_resume(struct fake *x, int err)
{
	unsigned char buf[KVMD_MSG_MAX_BYTES] __attribute__((aligned(8)));
	struct kvmd_resume_reply r = { .h.type = KVMD_MSG_RESUME_REPLY, .h.err = err };
	const struct kvmd_resume *m = (const void *)buf;
	static const uint8_t zero[16];

	fake_accept_kept(x);
	fake_recv(x, KVMD_MSG_RESUME, buf);
	FAKE_CHECK(x, m->rank == 1 && m->group_token == 0x1234);
	FAKE_CHECK(x, !m->session && !memcmp(m->boot_id, zero, 16));
	r.h.cookie = x->cookie;
	r.nr_slabs = 1;
	fake_send(x, &r, sizeof(r), NULL, 0);
}

static void script_rank(struct fake *x)
{
	rank_resume(x, 0);
	fake_slab_add(x, 0, 0, SLAB_SLOTS, 1, fds);
	fake_slab_added(x, 0, 0);
}

static void script_rank_gone(struct fake *x)
{
	rank_resume(x, -ESTALE);
}

START_TEST(a_rank_goes_on)
{
	char *old;

	kvc_destroy(k);
	fake_start(&f, script_join);
	ck_assert_int_eq(kvc_join(&opts, 0x1234, 1, &k), 0);
	pthread_join(f.thread, NULL);
	close_fds(fds, 2);
	ck_assert_ptr_nonnull(kvc_seq_status(k, 1));
	old = kvc_addr(kvc_view(k), 0, 0, 1, 3);
	strcpy(old, "sealed");
	*kvc_step_word(k, 1) = 4;
	kill_daemon();
	resume_by(script_rank);
	close_fds(fds, 2);
	ck_assert_str_eq(old, "sealed");
	ck_assert_uint_eq(*kvc_step_word(k, 1), 4);
	ck_assert_int_eq(kvc_poll(k), 0);
	kill_daemon();
	fake_start(&f, script_rank_gone);
	ck_assert_int_eq(kvc_reconnect(k), -ESTALE);
	pthread_join(f.thread, NULL);
	ck_assert_str_eq(old, "sealed");
}
END_TEST

/* ------------------------------------------------------------- the books */

static unsigned below(unsigned n)
{
	return (unsigned)random() % n;
}

/* Against a plain list, with equal user_data among them. */
START_TEST(books_of_what_was_sent)
{
	uint64_t list[48], got;
	struct kvci_sent s = { 0 };
	unsigned nr = 0;

	srandom((unsigned)_i);
	ck_assert_int_eq(kvci_sent_init(&s, 48), 0);
	s.head = s.tail = s.hint = UINT32_MAX - 500;
	for (int round = 0; round < 3000; round++) {
		if (nr < 48 && (!nr || below(100) < 50)) {
			list[nr] = below(_i % 2 ? 20 : 1000000);
			kvci_sent_put(&s, list[nr++]);
			continue;
		}
		/* mostly in order, sometimes any; equal ones: the first found counts */
		unsigned i = below(4) ? 0 : below(nr);
		uint64_t v = list[i];

		kvci_sent_done(&s, v);
		kvci_sent_done(&s, UINT64_MAX);	/* unknown: nothing */
		for (i = 0; list[i] != v; i++)
			;
		memmove(list + i, list + i + 1, (--nr - i) * sizeof(list[0]));
	}
	/* Which of several equal ones was taken does not matter: compare as sets. */
	for (unsigned left = nr; left; left--) {
		unsigned i = 0;

		ck_assert(kvci_sent_take(&s, &got));
		while (i < left && list[i] != got)
			i++;
		ck_assert_uint_lt(i, left);
		if (!(_i % 2))
			ck_assert_uint_eq(i, 0);	/* in order */
		memmove(list + i, list + i + 1, (left - 1 - i) * sizeof(list[0]));
	}
	ck_assert(!kvci_sent_take(&s, &got));
	kvci_sent_exit(&s);
}
END_TEST

/* One that waits for ever does not let the others pile up behind it. */
START_TEST(books_with_one_that_waits)
{
	struct kvci_sent s = { 0 };
	uint64_t got;

	ck_assert_int_eq(kvci_sent_init(&s, 8), 0);
	kvci_sent_put(&s, 7);
	for (uint64_t i = 0; i < 1000; i++) {
		kvci_sent_put(&s, 1000 + i);
		kvci_sent_done(&s, 1000 + i);
		ck_assert_uint_le(s.tail - s.head, s.size);
	}
	ck_assert(kvci_sent_take(&s, &got));
	ck_assert_uint_eq(got, 7);
	ck_assert(!kvci_sent_take(&s, &got));
	/* More than there can be: nothing is damaged. */
	for (uint64_t i = 0; i < 100; i++)
		kvci_sent_put(&s, i);
	ck_assert_uint_eq(s.tail - s.head, s.size);
	kvci_sent_exit(&s);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("client_resume");
	TCase *tc = tcase_create("resume");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, nothing_moves);
	tcase_add_test(tc, slabs_of_other_generations);
	tcase_add_test(tc, slabs_that_are_gone);
	tcase_add_test(tc, entries_end_once);
	tcase_add_test(tc, a_peeked_completion_is_seen_after);
	tcase_add_test(tc, rings_begin_again);
	tcase_add_test(tc, synchronous_calls_end_once);
	tcase_add_test(tc, recovery_is_waited_for);
	tcase_add_test(tc, recovery_that_takes_too_long);
	tcase_add_test(tc, second_death_in_the_handshake);
	tcase_add_loop_test(tc, otherwise_a_new_session, 0, 2);
	tcase_add_test(tc, without_the_feature);
	tcase_add_test(tc, refusals_leave_everything_as_it_was);
	tcase_add_test(tc, a_rank_goes_on);
	suite_add_tcase(s, tc);
	tc = tcase_create("books");
	tcase_add_loop_test(tc, books_of_what_was_sent, 0, 8);
	tcase_add_test(tc, books_with_one_that_waits);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
