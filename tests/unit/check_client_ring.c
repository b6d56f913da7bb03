/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_client_ring.c - entries, completions, waiting, steps.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libkvclient/internal.h"
#include "tests/suite.h"
#include "tests/unit/client_rig.h"

static struct fake f;
static struct kvc *k;
static const struct kvmd_cqe *cqe;

static void setup(void)
{
	k = crig_session(&f, KVMD_FEATURES);
}

static void teardown(void)
{
	crig_drop(&f, k);
}

static void submit(uint32_t nr)
{
	for (uint32_t i = 0; i < nr; i++)
		crig_take(k, i);
	ck_assert_int_eq(kvc_submit(k), (int)nr);
}

static void expect(uint64_t user_data)
{
	ck_assert_int_eq(kvc_peek_cqe(k, &cqe), 0);
	ck_assert_uint_eq(cqe->user_data, user_data);
	kvc_cqe_seen(k);
}

/* ------------------------------------------------------------ submission */

START_TEST(entries_are_zeroed_and_published_with_pos)
{
	struct kvmd_sqe *e = kvc_get_sqe(k), got;

	memset(e, 0xff, offsetof(struct kvmd_sqe, pos));
	ck_assert_uint_eq(f.ring->sq_tail, 0);
	ck_assert_int_eq(kvc_submit(k), 1);
	ck_assert_uint_eq(f.ring->sq_tail, 1);
	ck_assert(fake_sqe(&f, &got));
	ck_assert_uint_eq(got.pos, 1);
	for (unsigned i = 1; i < FAKE_SQ; i++)
		crig_take(k, i);
	e = kvc_get_sqe(k);		/* the first entry again */
	ck_assert_ptr_nonnull(e);
	for (unsigned i = 0; i < offsetof(struct kvmd_sqe, pos); i++)
		ck_assert_uint_eq(((unsigned char *)e)[i], 0);
	ck_assert_int_eq(kvc_submit(k), (int)FAKE_SQ);
	ck_assert_int_eq(kvc_submit(k), 0);
}
END_TEST

START_TEST(full_ring_gives_no_entry)
{
	struct kvmd_sqe got;

	for (unsigned i = 0; i < FAKE_SQ; i++)
		crig_take(k, i);
	ck_assert_ptr_null(kvc_get_sqe(k));
	ck_assert_int_eq(kvc_submit(k), (int)FAKE_SQ);
	ck_assert_ptr_null(kvc_get_sqe(k));
	ck_assert(fake_sqe(&f, &got));
	crig_take(k, 99);
	ck_assert_ptr_null(kvc_get_sqe(k));
}
END_TEST

START_TEST(indices_wrap)
{
	const uint32_t at = UINT32_MAX - 2;
	struct kvmd_sqe got;

	k->sq_taken = k->sq_tail = k->sq_head = k->cq_head = k->cq_tail = at;
	f.ring->sq_tail = f.ring->sq_head = f.ring->cq_head = f.ring->cq_tail = at;
	f.sq_head = f.cq_tail = at;
	/* as the round before left them: no fresh ring gets this far */
	for (unsigned i = 0; i < FAKE_CQ; i++)
		f.cq[i].pos = 12345;
	for (unsigned i = 0; i < 3 * FAKE_CQ; i++) {
		crig_take(k, i);
		ck_assert_int_eq(kvc_submit(k), 1);
		ck_assert(fake_sqe(&f, &got));
		ck_assert_int_eq(kvc_peek_cqe(k, &cqe), -EAGAIN);
		fake_cqe(&f, i, 0, 0, 0);
		fake_cq_publish(&f);
		expect(i);
	}
	ck_assert_int_eq(f.failed_line, 0);
}
END_TEST

START_TEST(bell_rings_only_for_a_sleeper)
{
	uint64_t n;

	submit(1);
	ck_assert_int_eq(read(f.bell, &n, 8), -1);
	f.ring->daemon_flags = KVMD_RING_NEED_WAKEUP;
	submit(1);
	ck_assert_int_eq(read(f.bell, &n, 8), 8);
	f.ring->daemon_flags = KVMD_RING_WANT_STEP;
	submit(1);
	ck_assert_int_eq(read(f.bell, &n, 8), -1);
}
END_TEST

/* ------------------------------------------------------------ completion */

START_TEST(one_entry_is_seen_by_its_pos)
{
	submit(1);
	fake_cqe(&f, 5, 0, 0, 0);
	expect(5);			/* cq_tail is not stored yet */
	ck_assert_uint_eq(f.ring->cq_head, 1);
	ck_assert_int_eq(kvc_peek_cqe(k, &cqe), -EAGAIN);
	fake_cq_publish(&f);
	ck_assert_int_eq(kvc_peek_cqe(k, &cqe), -EAGAIN);
}
END_TEST

START_TEST(many_entries_are_seen_by_the_tail)
{
	struct kvmd_cqe got[FAKE_CQ];

	submit(10);
	for (unsigned i = 0; i < 10; i++)
		fake_cqe(&f, i, 0, 0, 0);
	ck_assert_int_eq(kvc_reap(k, got, FAKE_CQ), 0);
	fake_cq_publish(&f);
	ck_assert_int_eq(kvc_reap(k, got, 3), 3);
	ck_assert_int_eq(kvc_reap(k, got + 3, FAKE_CQ), 7);
	for (unsigned i = 0; i < 10; i++)
		ck_assert_uint_eq(got[i].user_data, i);
	ck_assert_uint_eq(f.ring->cq_head, 10);
	ck_assert_int_eq(kvc_reap(k, got, FAKE_CQ), 0);
	ck_assert_int_eq(kvc_reap(k, got, 0), 0);
}
END_TEST

START_TEST(without_the_pos_feature)
{
	crig_drop(&f, k);
	k = crig_session(&f, 0);
	submit(1);
	fake_cqe(&f, 5, 0, 0, 0);
	ck_assert_int_eq(kvc_peek_cqe(k, &cqe), -EAGAIN);
	fake_cq_publish(&f);
	expect(5);
}
END_TEST

START_TEST(seen_without_peek_is_nothing)
{
	submit(2);
	fake_cqe(&f, 1, 0, 0, 0);
	fake_cqe(&f, 2, 0, 0, 0);
	fake_cq_publish(&f);
	kvc_cqe_seen(k);
	expect(1);
	kvc_cqe_seen(k);
	expect(2);
}
END_TEST

/* --------------------------------------------------------------- waiting */

START_TEST(wait_ends_at_its_time)
{
	ck_assert_int_eq(kvc_wait_cqe(k, 0, &cqe), -ETIMEDOUT);
	ck_assert_int_eq(kvc_wait_cqe(k, 3000000, &cqe), -ETIMEDOUT);
	ck_assert_uint_eq(f.ring->client_flags, 0);
}
END_TEST

static void answer_a_sleeper(struct fake *x)
{
	FAKE_CHECK(x, fake_wait_bits(&x->ring->client_flags, KVMD_RING_NEED_WAKEUP));
	fake_cqe(x, 77, 0, 0, 0);
	fake_cq_publish(x);
}

START_TEST(sleeper_is_woken)
{
	submit(1);
	crig_start(&f, answer_a_sleeper);
	ck_assert_int_eq(kvc_wait_cqe(k, UINT64_MAX, &cqe), 0);
	ck_assert_uint_eq(cqe->user_data, 77);
	crig_join(&f);
	ck_assert_uint_eq(f.ring->client_flags, 0);
}
END_TEST

static void end_a_sleeper(struct fake *x)
{
	FAKE_CHECK(x, fake_wait_bits(&x->ring->client_flags, KVMD_RING_NEED_WAKEUP));
	fake_ended(x, -EPROTO);
}

START_TEST(ended_word_ends_a_wait)
{
	submit(1);
	crig_start(&f, end_a_sleeper);
	ck_assert_int_eq(kvc_wait_cqe(k, UINT64_MAX, &cqe), -ECONNRESET);
	crig_join(&f);
	ck_assert_ptr_nonnull(strstr(kvc_refusal(), "ended the session"));
	ck_assert_int_eq(kvc_submit(k), -ECONNRESET);
	ck_assert_int_eq(kvc_nop(k), -ECONNRESET);
	ck_assert_int_eq(kvc_poll(k), -ECONNRESET);
}
END_TEST

START_TEST(completions_before_the_end_are_delivered)
{
	submit(2);
	fake_cqe(&f, 1, 0, 0, 0);
	fake_cq_publish(&f);
	fake_ended(&f, -ECONNRESET);
	expect(1);
	ck_assert_int_eq(kvc_peek_cqe(k, &cqe), -ECONNRESET);
	ck_assert_int_eq(kvc_wait_cqe(k, UINT64_MAX, &cqe), -ECONNRESET);
}
END_TEST

static void vanish(struct fake *x)
{
	FAKE_CHECK(x, fake_wait_bits(&x->ring->client_flags, KVMD_RING_NEED_WAKEUP));
	fake_hangup(x);
}

START_TEST(killed_daemon_ends_a_wait)
{
	submit(1);
	crig_start(&f, vanish);
	ck_assert_int_eq(kvc_wait_cqe(k, UINT64_MAX, &cqe), -ECONNRESET);
	crig_join(&f);
}
END_TEST

START_TEST(killed_daemon_ends_a_synchronous_call)
{
	crig_start(&f, vanish);
	ck_assert_int_eq(kvc_nop(k), -ECONNRESET);
	crig_join(&f);
}
END_TEST

START_TEST(killed_daemon_ends_peeking)
{
	int err = -EAGAIN;

	fake_hangup(&f);
	for (unsigned i = 0; i <= KVCI_IDLE_PEEKS && err == -EAGAIN; i++)
		err = kvc_peek_cqe(k, &cqe);
	ck_assert_int_eq(err, -ECONNRESET);
}
END_TEST

/* ----------------------------------------------------------------- steps */

START_TEST(steps_never_go_back)
{
	kvc_step_submit(k, 5);
	kvc_step_submit(k, 3);
	ck_assert_uint_eq(f.ring->submitted_step, 5);
	kvc_step_complete(k, 2, 4);
	kvc_step_complete(k, 2, 1);
	ck_assert_uint_eq(f.steps->lane[2].completed_step, 4);
	ck_assert_uint_eq(f.steps->lane[0].completed_step, 0);
	*kvc_step_word(k, 1) = 8;
	ck_assert_uint_eq(f.steps->lane[1].completed_step, 8);
	ck_assert_ptr_null(kvc_step_word(k, KVMD_MAX_LANES));
	kvc_step_complete(k, KVMD_MAX_LANES, 9);
}
END_TEST

START_TEST(step_rings_when_the_daemon_wants_it)
{
	uint64_t n;

	f.ring->daemon_flags = KVMD_RING_NEED_WAKEUP;
	kvc_step_complete(k, 0, 1);
	ck_assert_int_eq(read(f.bell, &n, 8), -1);
	f.ring->daemon_flags = KVMD_RING_WANT_STEP;
	kvc_step_complete(k, 0, 2);
	ck_assert_int_eq(read(f.bell, &n, 8), -1);
	f.ring->daemon_flags = KVMD_RING_WANT_STEP | KVMD_RING_NEED_WAKEUP;
	kvc_step_complete(k, 0, 2);		/* nothing new */
	ck_assert_int_eq(read(f.bell, &n, 8), -1);
	kvc_step_complete(k, 0, 3);
	ck_assert_int_eq(read(f.bell, &n, 8), 8);
}
END_TEST

static void *complete_steps(void *arg)
{
	for (uint64_t s = 1; s <= 5000; s++)
		kvc_step_complete(arg, 0, s);
	return NULL;
}

START_TEST(steps_from_several_threads)
{
	pthread_t t[3];

	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(pthread_create(&t[i], NULL, complete_steps, k), 0);
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	ck_assert_uint_eq(f.steps->lane[0].completed_step, 5000);
}
END_TEST

START_TEST(news_words)
{
	f.ring->pressure = KVMD_PRESSURE_SOME;
	f.ring->epoch = 4;
	ck_assert_uint_eq(kvc_pressure(k), KVMD_PRESSURE_SOME);
	ck_assert_uint_eq(kvc_epoch(k), 4);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("client_ring");
	TCase *tc = suite_group(s, "ring", setup, teardown);

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, entries_are_zeroed_and_published_with_pos);
	tcase_add_test(tc, full_ring_gives_no_entry);
	tcase_add_test(tc, indices_wrap);
	tcase_add_test(tc, bell_rings_only_for_a_sleeper);
	tcase_add_test(tc, one_entry_is_seen_by_its_pos);
	tcase_add_test(tc, many_entries_are_seen_by_the_tail);
	tcase_add_test(tc, without_the_pos_feature);
	tcase_add_test(tc, seen_without_peek_is_nothing);
	tcase_add_test(tc, wait_ends_at_its_time);
	tcase_add_test(tc, sleeper_is_woken);
	tcase_add_test(tc, ended_word_ends_a_wait);
	tcase_add_test(tc, completions_before_the_end_are_delivered);
	tcase_add_test(tc, killed_daemon_ends_a_wait);
	tcase_add_test(tc, killed_daemon_ends_a_synchronous_call);
	tcase_add_test(tc, killed_daemon_ends_peeking);
	tcase_add_test(tc, steps_never_go_back);
	tcase_add_test(tc, step_rings_when_the_daemon_wants_it);
	tcase_add_test(tc, steps_from_several_threads);
	tcase_add_test(tc, news_words);
	return suite_run(s);
}
