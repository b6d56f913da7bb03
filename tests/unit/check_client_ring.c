/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_client_ring.c - entries, completions, waiting, steps, synchronous calls.
 *
 * The fake daemon makes the session; then the test plays both sides in one
 * thread, or lets a second thread be the daemon where the client waits.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libkvclient/internal.h"
#include "tests/unit/client_fake.h"

static struct fake f;
static struct kvc *k;
static const struct kvmd_cqe *cqe;

static void script_session(struct fake *x)
{
	fake_accept(x);
	fake_hello(x);
	fake_space(x, 0);
}

static void session(uint64_t features)
{
	struct kvc_opts o;
	struct kvc_space s;

	fake_init(&f);
	f.features = features;
	f.device = "null";
	fake_start(&f, script_session);
	kvc_opts_init(&o);
	o.socket = f.path;
	kvc_space_init(&s, "s");
	ck_assert_int_eq(kvc_create(&o, &s, &k), 0);
	pthread_join(f.thread, NULL);
	ck_assert_int_eq(kvc_peek_cqe(k, &cqe), -EAGAIN);
}

static void setup(void)
{
	session(KVMD_FEATURES);
}

static void second(struct fake *x)
{
	(void)x;
}

static void teardown(void)
{
	kvc_destroy(k);
	fake_start(&f, second);
	fake_stop(&f);
}

static void *script_run(void *arg)
{
	((struct fake *)arg)->script(arg);
	return NULL;
}

/* Runs @script as the daemon while the test goes on. */
static void daemon_start(void (*script)(struct fake *x))
{
	f.script = script;
	ck_assert_int_eq(pthread_create(&f.thread, NULL, script_run, &f), 0);
}

static void daemon_join(void)
{
	pthread_join(f.thread, NULL);
}

static void take(uint64_t user_data)
{
	struct kvmd_sqe *e = kvc_get_sqe(k);

	ck_assert_ptr_nonnull(e);
	kvc_prep_nop(e);
	e->user_data = user_data;
}

static void submit(uint32_t nr)
{
	for (uint32_t i = 0; i < nr; i++)
		take(i);
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
		take(i);
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
		take(i);
	ck_assert_ptr_null(kvc_get_sqe(k));
	ck_assert_int_eq(kvc_submit(k), (int)FAKE_SQ);
	ck_assert_ptr_null(kvc_get_sqe(k));
	ck_assert(fake_sqe(&f, &got));
	take(99);
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
		take(i);
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
	kvc_destroy(k);
	fake_start(&f, second);
	fake_stop(&f);
	session(0);
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
	daemon_start(answer_a_sleeper);
	ck_assert_int_eq(kvc_wait_cqe(k, UINT64_MAX, &cqe), 0);
	ck_assert_uint_eq(cqe->user_data, 77);
	daemon_join();
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
	daemon_start(end_a_sleeper);
	ck_assert_int_eq(kvc_wait_cqe(k, UINT64_MAX, &cqe), -ECONNRESET);
	daemon_join();
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
	daemon_start(vanish);
	ck_assert_int_eq(kvc_wait_cqe(k, UINT64_MAX, &cqe), -ECONNRESET);
	daemon_join();
}
END_TEST

START_TEST(killed_daemon_ends_a_synchronous_call)
{
	daemon_start(vanish);
	ck_assert_int_eq(kvc_nop(k), -ECONNRESET);
	daemon_join();
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

/* ----------------------------------------------------- synchronous calls */

static void echo_one(struct fake *x)
{
	fake_echo(x, 1);
}

START_TEST(sync_call_carries_keys)
{
	unsigned char keys[3][KVMD_KEY_BYTES];
	struct kvmd_sqe *e = &f.sq[0];
	struct kvmd_cqe c;

	memset(keys, 0xab, sizeof(keys));
	daemon_start(echo_one);
	ck_assert_int_eq(kvc_seq_open(k, 2, 9, keys, 3, 48, KVMD_HINT_LAST, KVMD_OPEN_NO_STORE, &c),
			 3);
	daemon_join();
	ck_assert_int_eq(c.res, 3);
	ck_assert_uint_eq(e->opcode, KVMD_OP_SEQ_OPEN);
	ck_assert_uint_eq(e->seq, 2);
	ck_assert_uint_eq(e->seq_gen, 9);
	ck_assert_uint_eq(e->nr, 3);
	ck_assert_uint_eq(e->first, 48);
	ck_assert_uint_eq(e->arg, KVMD_HINT_LAST);
	ck_assert_uint_eq(e->flags, KVMD_OPEN_NO_STORE | KVMD_OPEN_LOAD | KVMD_OPEN_WAIT);
	ck_assert_mem_eq(f.args + e->off, keys, sizeof(keys));
	/* and the room is free again */
	ck_assert_int_eq(kvci_args_get(&k->args, FAKE_ARGS), 0);
}
END_TEST

START_TEST(sync_lists_one_per_group)
{
	unsigned char keys[2][KVMD_KEY_BYTES];
	const void *list[] = { keys };
	const uint32_t nr[] = { 2 };
	struct kvmd_sqe *e = &f.sq[0];
	struct kvmd_key_list l;

	memset(keys, 0x5a, sizeof(keys));
	daemon_start(echo_one);
	ck_assert_int_eq(kvc_seq_open_lists(k, 0, 1, list, nr, 0, 0, 0, NULL), 1);
	daemon_join();
	ck_assert_uint_eq(e->flags, KVMD_OPEN_LISTS | KVMD_OPEN_LOAD | KVMD_OPEN_WAIT);
	memcpy(&l, f.args + e->off, sizeof(l));
	ck_assert_uint_eq(l.nr, 2);
	ck_assert_uint_eq(l.resv, 0);
	ck_assert_uint_eq(l.off % 8, 0);
	ck_assert_mem_eq(f.args + l.off, keys, sizeof(keys));
	ck_assert_int_eq(kvci_args_get(&k->args, FAKE_ARGS), 0);
}
END_TEST

/* What kvc_seq_open() makes of @flags. */
static uint16_t opened_with(uint16_t flags)
{
	uint32_t at = f.sq_head;

	daemon_start(echo_one);
	ck_assert_int_eq(kvc_seq_open(k, 0, 1, NULL, 0, 0, 0, flags, NULL), 0);
	daemon_join();
	return f.sq[at & (FAKE_SQ - 1)].flags;
}

START_TEST(open_loads_unless_told_otherwise)
{
	static const uint16_t as_told[] = {
		KVMD_OPEN_LOAD, KVMD_OPEN_LOAD | KVMD_OPEN_BY_PLANE, KVMD_OPEN_NO_HIT,
		KVMD_OPEN_NO_HIT | KVMD_OPEN_NO_STORE, KVMD_OPEN_LOAD | KVMD_OPEN_WAIT,
	};

	ck_assert_uint_eq(opened_with(0), KVMD_OPEN_LOAD | KVMD_OPEN_WAIT);
	ck_assert_uint_eq(opened_with(KVC_OPEN_NO_LOAD), 0);
	ck_assert_uint_eq(opened_with(KVC_OPEN_NO_LOAD | KVMD_OPEN_NO_STORE), KVMD_OPEN_NO_STORE);
	for (size_t i = 0; i < sizeof(as_told) / sizeof(as_told[0]); i++)
		ck_assert_uint_eq(opened_with(as_told[i]), as_told[i]);
}
END_TEST

START_TEST(open_without_the_loads_feature)
{
	kvc_destroy(k);
	fake_start(&f, second);
	fake_stop(&f);
	session(KVMD_FEATURES & ~KVMD_FEAT_LOADS);
	ck_assert_uint_eq(opened_with(0), 0);
	ck_assert_uint_eq(opened_with(KVC_OPEN_NO_LOAD), 0);
	ck_assert_ptr_null(kvc_seq_status(k, 0));
}
END_TEST

START_TEST(status_lines)
{
	const struct kvmd_seq_status *s = kvc_seq_status(k, 2);
	struct kvmd_seq_status *w = (void *)((char *)f.tables + 2 * 1024);

	ck_assert_ptr_nonnull(s);
	*w = (struct kvmd_seq_status) { .ready = 3, .coming = 4, .planes = 5, .err = -EIO };
	ck_assert_uint_eq(kvc_status_ready(s), 3);
	ck_assert_uint_eq(kvc_status_coming(s), 4);
	ck_assert_uint_eq(kvc_status_planes(s), 5);
	ck_assert_int_eq(kvc_status_err(s), -EIO);
	/* in front of the row, not in it */
	ck_assert_ptr_eq((const char *)(uintptr_t)kvc_row(kvc_view(k), 0, 2), (const char *)s + 64);
	ck_assert_ptr_null(kvc_seq_status(k, FAKE_SEQS));
}
END_TEST

START_TEST(sync_wait_and_swap)
{
	struct kvmd_sqe *e = f.sq;

	daemon_start(echo_one);
	ck_assert_int_eq(kvc_seq_wait(k, 2, 9, 12, NULL), 0);
	daemon_join();
	ck_assert_uint_eq(e->opcode, KVMD_OP_SEQ_WAIT);
	ck_assert(e->seq == 2 && e->seq_gen == 9 && e->first == 12 && !e->aux && !e->step);
	e++;
	daemon_start(echo_one);
	ck_assert_int_eq(kvc_seq_swap_out(k, 2, 9, 7), 0);
	daemon_join();
	ck_assert_uint_eq(e->opcode, KVMD_OP_SEQ_SWAP_OUT);
	ck_assert(e->seq == 2 && e->seq_gen == 9 && e->step == 7 && !e->aux);
	e++;
	daemon_start(echo_one);
	ck_assert_int_eq(kvc_seq_swap_in(k, 2, 9, 0), 0);
	daemon_join();
	ck_assert_uint_eq(e->opcode, KVMD_OP_SEQ_SWAP_IN);
	ck_assert(e->seq == 2 && e->seq_gen == 9 && !e->aux && !e->step);
	e++;
	daemon_start(echo_one);
	ck_assert_int_eq(kvc_seq_swap_in(k, 2, 9, 1000000000), 0);
	daemon_join();
	ck_assert_uint_gt(e->aux, 1000000000);
}
END_TEST

START_TEST(sync_keys_that_do_not_fit)
{
	const uint32_t too_many = FAKE_ARGS / KVMD_KEY_BYTES + 1;
	unsigned char *keys = calloc(too_many, KVMD_KEY_BYTES);
	uint64_t off;

	ck_assert_int_eq(kvc_lookup(k, 0, keys, too_many, NULL), -E2BIG);
	ck_assert_ptr_nonnull(kvc_args_alloc(k, FAKE_ARGS, &off));
	ck_assert_int_eq(kvc_lookup(k, 0, keys, 1, NULL), -ENOBUFS);
	ck_assert_ptr_null(kvc_args_alloc(k, 1, &off));
	free(keys);
}
END_TEST

static void echo_four(struct fake *x)
{
	struct kvmd_sqe e[4];

	/* The synchronous entry is the last one and is answered first but one. */
	for (int i = 0; i < 4; i++) {
		if (!fake_sqe(x, &e[i]))
			return;
	}
	fake_cqe(x, e[1].user_data, 0, 0, 0);
	fake_cqe(x, e[3].user_data, 11, 0, 0);
	fake_cqe(x, e[0].user_data, 0, 0, 0);
	fake_cqe(x, e[2].user_data, 0, 0, 0);
	fake_cq_publish(x);
}

START_TEST(sync_call_keeps_the_others)
{
	struct kvmd_cqe got[4];

	take(100);
	take(101);
	take(102);
	daemon_start(echo_four);
	ck_assert_int_eq(kvc_nop(k), 11);
	daemon_join();
	ck_assert_int_eq(kvc_peek_cqe(k, &cqe), 0);
	ck_assert_uint_eq(cqe->user_data, 101);
	daemon_start(echo_one);
	ck_assert_int_eq(kvc_nop(k), 0);
	daemon_join();
	kvc_cqe_seen(k);			/* of the peek before that call */
	ck_assert_int_eq(kvc_reap(k, got, 4), 2);
	ck_assert_uint_eq(got[0].user_data, 100);
	ck_assert_uint_eq(got[1].user_data, 102);
	ck_assert_int_eq(kvc_peek_cqe(k, &cqe), -EAGAIN);
	ck_assert_uint_eq(f.ring->cq_head, 5);
}
END_TEST

static void echo_all(struct fake *x)
{
	fake_echo(x, 3 * FAKE_CQ + 1);
}

START_TEST(sync_call_with_a_full_ring)
{
	struct kvmd_cqe got[4 * FAKE_CQ];
	unsigned n = 0;

	daemon_start(echo_all);
	for (unsigned i = 0; i < 3 * FAKE_CQ; i++) {
		struct kvmd_sqe *e = kvc_get_sqe(k);

		if (!e) {
			kvc_submit(k);
			n += (unsigned)kvc_reap(k, got + n, FAKE_CQ);
			i--;
			continue;
		}
		kvc_prep_nop(e);
		e->user_data = i;
	}
	ck_assert_int_eq(kvc_nop(k), 0);
	daemon_join();
	while (n < 3 * FAKE_CQ) {
		int r = kvc_reap(k, got + n, FAKE_CQ);

		ck_assert_int_gt(r, 0);
		n += (unsigned)r;
	}
	for (unsigned i = 0; i < n; i++)
		ck_assert_uint_eq(got[i].user_data, i);
}
END_TEST

START_TEST(extend_makes_an_absolute_deadline)
{
	uint64_t now = kvci_now();

	daemon_start(echo_one);
	kvc_seq_extend(k, 1, 1, 0, 4, 0, 5000000000ull, NULL);
	daemon_join();
	ck_assert_uint_ge(f.sq[0].aux, now + 5000000000ull);
	ck_assert_uint_le(f.sq[0].aux, kvci_now() + 5000000000ull);
	daemon_start(echo_one);
	kvc_seq_extend(k, 1, 1, 0, 4, 0, 0, NULL);
	daemon_join();
	ck_assert_uint_eq(f.sq[1].aux, 0);
	daemon_start(echo_one);
	kvc_seq_extend(k, 1, 1, 0, 4, 0, UINT64_MAX, NULL);
	daemon_join();
	ck_assert_uint_eq(f.sq[2].aux, UINT64_MAX);
}
END_TEST

static void echo_ticket(struct fake *x)
{
	struct kvmd_sqe e;

	if (!fake_sqe(x, &e))
		return;
	fake_cqe(x, e.user_data, 0, 0x89abcdef, 0x01234567);
	fake_cq_publish(x);
}

START_TEST(ticket_has_two_halves)
{
	uint64_t ticket;

	daemon_start(echo_ticket);
	ck_assert_int_eq(kvc_seq_send(k, 1, 1, 0, &ticket), 0);
	daemon_join();
	ck_assert_uint_eq(ticket, 0x0123456789abcdefull);
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
	TCase *tc = tcase_create("ring");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
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
	tcase_add_test(tc, sync_call_carries_keys);
	tcase_add_test(tc, sync_lists_one_per_group);
	tcase_add_test(tc, open_loads_unless_told_otherwise);
	tcase_add_test(tc, open_without_the_loads_feature);
	tcase_add_test(tc, status_lines);
	tcase_add_test(tc, sync_wait_and_swap);
	tcase_add_test(tc, sync_keys_that_do_not_fit);
	tcase_add_test(tc, sync_call_keeps_the_others);
	tcase_add_test(tc, sync_call_with_a_full_ring);
	tcase_add_test(tc, extend_makes_an_absolute_deadline);
	tcase_add_test(tc, ticket_has_two_halves);
	tcase_add_test(tc, steps_never_go_back);
	tcase_add_test(tc, step_rings_when_the_daemon_wants_it);
	tcase_add_test(tc, steps_from_several_threads);
	tcase_add_test(tc, news_words);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
