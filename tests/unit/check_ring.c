/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_ring.c - the daemon's side of the rings, with the client played by hand.
 */
#include "kvmd/ring/ring.h"

#include <check.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/quiet.h"
#include "tests/suite.h"

#define SQ	8u
#define CQ	16u

static struct ring r;
static uint32_t sq_tail;		/* the client's */

static void setup(void)
{
	ck_assert_int_eq(ring_create(SQ, CQ, &r), 0);
	r.use_pos = true;
	sq_tail = 0;
}

static void teardown(void)
{
	ring_destroy(&r);
}

/* All indices, as after @at entries both ways. */
static void start_at(uint32_t at)
{
	for (uint32_t i = 0; i < SQ; i++)
		r.sqe[(at - 1 - i) & r.sq_mask].pos = at - i;
	r.sq_head = r.sq_seen = r.sq_published = sq_tail = at;
	r.cq_tail = r.cq_flushed = r.cq_head = at;
	r.sh->sq_tail = r.sh->sq_head = r.sh->cq_tail = r.sh->cq_head = at;
}

/* The client fills an entry, and not yet the tail. */
static void put(uint64_t user_data)
{
	struct kvmd_sqe *e = &r.sqe[sq_tail & r.sq_mask];

	*e = (struct kvmd_sqe) { .opcode = KVMD_OP_NOP, .user_data = user_data };
	st_rel(&e->pos, ++sq_tail);
}

static void put_tail(void)
{
	st_rel(&r.sh->sq_tail, sq_tail);
}

static uint64_t take(void)
{
	struct kvmd_sqe e;

	ring_take(&r, &e);
	return e.user_data;
}

static void complete(unsigned nr)
{
	while (nr--)
		ring_complete(&r, &(struct kvmd_cqe) { .user_data = r.cq_tail });
}

/* ------------------------------------------------------------------ layout */

START_TEST(words_are_where_the_protocol_says)
{
	ck_assert_uint_eq(offsetof(struct kvmd_ring, sq_tail), 0);
	ck_assert_uint_eq(offsetof(struct kvmd_ring, sq_head), 128);
	ck_assert_uint_eq(offsetof(struct kvmd_ring, cq_tail), 256);
	ck_assert_uint_eq(offsetof(struct kvmd_ring, cq_head), 384);
	ck_assert_uint_eq(offsetof(struct kvmd_ring, daemon_flags), 512);
	ck_assert_uint_eq(offsetof(struct kvmd_ring, client_flags), 640);
	ck_assert_uint_eq(offsetof(struct kvmd_ring, submitted_step), 768);
	ck_assert_uint_eq(offsetof(struct kvmd_ring, news_seq), 896);
	ck_assert_uint_eq(offsetof(struct kvmd_ring, pressure), 900);
	ck_assert_uint_eq(offsetof(struct kvmd_ring, control_seq), 904);
	ck_assert_uint_eq(offsetof(struct kvmd_ring, epoch), 908);
	ck_assert_uint_eq(offsetof(struct kvmd_ring, ended), 912);
	ck_assert_uint_eq(offsetof(struct kvmd_sqe, user_data), 8);
	ck_assert_uint_eq(offsetof(struct kvmd_sqe, pos), 60);
	ck_assert_uint_eq(offsetof(struct kvmd_cqe, pos), 28);
	ck_assert_uint_eq(ring_sq_off(), 4096);
	ck_assert_uint_eq(ring_cq_off(&r), 4096 + SQ * 64);
	ck_assert_ptr_eq(r.sqe, (char *)r.sh + 4096);
	ck_assert_ptr_eq(r.cqe, (char *)r.sh + 4096 + SQ * 64);
}
END_TEST

START_TEST(memory_is_zeroed_sealed_and_whole_pages)
{
	const uint8_t *b = (const uint8_t *)r.sh;
	struct stat st;

	ck_assert_uint_ge(r.bytes, 4096 + SQ * 64 + CQ * 32);
	ck_assert_uint_eq(r.bytes % 4096, 0);
	for (uint64_t i = 0; i < r.bytes; i++)
		quiet_assert(!b[i]);
	ck_assert_int_eq(fstat(r.fd, &st), 0);
	ck_assert_uint_eq((uint64_t)st.st_size, r.bytes);
	ck_assert_int_eq(ftruncate(r.fd, 0), -1);
	ck_assert_int_eq(errno, EPERM);
	ck_assert_int_eq(ftruncate(r.fd, 1 << 20), -1);
	ck_assert_int_eq(errno, EPERM);
	ck_assert_int_eq(fcntl(r.fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
	ck_assert_int_eq(errno, EPERM);
}
END_TEST

START_TEST(destroyed_twice)
{
	int fd = r.fd;
	struct ring empty = { 0 };

	ring_destroy(&r);
	ck_assert_int_eq(fcntl(fd, F_GETFD), -1);
	ring_destroy(&r);
	ring_destroy(&empty);
}
END_TEST

/* ------------------------------------------------------------- submissions */

START_TEST(single_entries_are_found_by_their_pos)
{
	ck_assert_int_eq(ring_poll(&r), 0);
	put(11);
	ck_assert_int_eq(ring_poll(&r), 1);	/* before the tail's store */
	ck_assert_uint_eq(take(), 11);
	ck_assert_int_eq(ring_poll(&r), 0);
	put(12);
	put_tail();
	ck_assert_int_eq(ring_poll(&r), 1);
	ck_assert_int_eq(ring_poll(&r), 1);	/* still there until it is taken */
	ck_assert_uint_eq(take(), 12);
	ck_assert_int_eq(ring_poll(&r), 0);
}
END_TEST

START_TEST(other_pos_words_are_no_entry)
{
	uint32_t at = 3 * SQ + 2;

	start_at(at);
	r.sh->sq_tail = at + 1;			/* the tail is not looked at */
	ck_assert_int_eq(ring_poll(&r), 0);	/* last lap's pos */
	r.sqe[at & r.sq_mask].pos = at;
	ck_assert_int_eq(ring_poll(&r), 0);
	r.sqe[at & r.sq_mask].pos = at + 2;
	ck_assert_int_eq(ring_poll(&r), 0);
	r.sqe[at & r.sq_mask].pos = at + 1 + SQ;
	ck_assert_int_eq(ring_poll(&r), 0);
	r.sqe[at & r.sq_mask].pos = at + 1;
	ck_assert_int_eq(ring_poll(&r), 1);
}
END_TEST

START_TEST(batches_are_found_by_the_tail)
{
	r.bulk = true;
	for (int i = 0; i < 3; i++)
		put(20 + (uint64_t)i);
	ck_assert_int_eq(ring_poll(&r), 0);	/* the tail says nothing yet */
	put_tail();
	ck_assert_int_eq(ring_poll(&r), 3);
	ck_assert_uint_eq(take(), 20);
	put(23);
	put_tail();
	ck_assert_int_eq(ring_poll(&r), 2);	/* the known ones first */
	ck_assert_uint_eq(take(), 21);
	ck_assert_uint_eq(take(), 22);
	ck_assert_int_eq(ring_poll(&r), 1);
	ck_assert_uint_eq(take(), 23);
	ck_assert_int_eq(ring_poll(&r), 0);
}
END_TEST

START_TEST(a_full_ring_is_possible)
{
	r.bulk = true;
	for (uint32_t i = 0; i < SQ; i++)
		put(i);
	put_tail();
	ck_assert_int_eq(ring_poll(&r), SQ);
	for (uint32_t i = 0; i < SQ; i++)
		ck_assert_uint_eq(take(), i);
}
END_TEST

START_TEST(impossible_tails_break_the_ring)
{
	static const uint32_t jump[] = { SQ + 1, 2 * SQ, 0x80000000, 0xffffffff, -SQ, -SQ - 1 };

	start_at(100);
	r.bulk = true;
	r.sh->sq_tail = 100 + jump[_i];
	ck_assert_int_eq(ring_poll(&r), -EPROTO);
	ck_assert_uint_eq(r.sq_head, 100);
	ck_assert_uint_eq(r.sq_seen, 100);
	r.use_pos = false;
	ck_assert_int_eq(ring_poll_more(&r), -EPROTO);
}
END_TEST

START_TEST(entries_by_pos_may_be_ahead_of_the_tail)
{
	start_at(100);
	for (uint32_t behind = 1; behind <= SQ; behind++) {
		r.sh->sq_tail = 100 - behind;
		ck_assert_int_eq(ring_poll_more(&r), 0);
		ck_assert(!ring_peek_tail(&r));
		ck_assert(!r.bulk);
	}
	r.sh->sq_tail = 100 - SQ - 1;
	ck_assert_int_eq(ring_poll_more(&r), -EPROTO);
	ck_assert(ring_peek_tail(&r));		/* so that the next poll finds it out */
	ck_assert_int_eq(ring_poll(&r), -EPROTO);
}
END_TEST

START_TEST(more_than_one_waiting_is_bulk)
{
	put(1);
	put_tail();
	ck_assert_int_eq(ring_poll(&r), 1);
	take();
	ck_assert_int_eq(ring_poll_more(&r), 0);
	ck_assert(!r.bulk);
	put(2);
	put_tail();
	ck_assert_int_eq(ring_poll_more(&r), 1);
	ck_assert(!r.bulk);
	take();
	put(3);
	put(4);
	put_tail();
	ck_assert_int_eq(ring_poll_more(&r), 2);
	ck_assert(r.bulk);
	take();
	take();
	ck_assert_int_eq(ring_poll_more(&r), 0);
	ck_assert(!r.bulk);			/* one at a time again */
}
END_TEST

START_TEST(without_pos_the_tail_is_read_always)
{
	r.use_pos = false;
	ck_assert_int_eq(ring_poll_more(&r), 0);
	ck_assert(r.bulk);
	r.sh->sq_tail = 1;
	ck_assert_int_eq(ring_poll_more(&r), 1);
	ck_assert(r.bulk);
}
END_TEST

START_TEST(a_tail_without_pos_is_seen_before_sleep)
{
	ck_assert(!ring_peek_tail(&r));
	r.sh->sq_tail = 1;			/* and no pos word */
	ck_assert_int_eq(ring_poll(&r), 0);
	ck_assert(ring_peek_tail(&r));
	ck_assert_int_eq(ring_poll(&r), 1);
	take();
	ck_assert(!ring_peek_tail(&r));
}
END_TEST

START_TEST(an_entry_is_copied_once)
{
	struct kvmd_sqe e, was;
	uint64_t words[4] = { 1, 2, 3, 4 }, copy[4];

	put(5);
	memset(&r.sqe[0], 0xa5, offsetof(struct kvmd_sqe, pos));
	was = r.sqe[0];
	ring_take(&r, &e);
	memset(&r.sqe[0], 0, sizeof(e));
	ck_assert_mem_eq(&e, &was, sizeof(e));
	ring_fetch(copy, words, sizeof(copy));
	ck_assert_mem_eq(copy, words, sizeof(copy));
}
END_TEST

/* ------------------------------------------------------------- completions */

START_TEST(a_completion_is_written_whole)
{
	const struct kvmd_cqe c = {
		.user_data = 0x1122334455667788, .res = -EDEADLK, .flags = 3, .v0 = 4, .v1 = 5,
		.v2 = 6, .pos = 99, .resv = 7,
	};

	memset(r.cqe, 0xff, sizeof(c));
	ring_complete(&r, &c);
	ck_assert_uint_eq(r.cqe[0].user_data, c.user_data);
	ck_assert_int_eq(r.cqe[0].res, c.res);
	ck_assert_uint_eq(r.cqe[0].flags, 3);
	ck_assert_uint_eq(r.cqe[0].resv, 0);
	ck_assert_uint_eq(r.cqe[0].v0, 4);
	ck_assert_uint_eq(r.cqe[0].v1, 5);
	ck_assert_uint_eq(r.cqe[0].v2, 6);
	ck_assert_uint_eq(r.cqe[0].pos, 1);
	ck_assert_uint_eq(r.sh->cq_tail, 0);	/* with the flush */
}
END_TEST

START_TEST(room_counts_what_is_promised)
{
	ck_assert_uint_eq(ring_cq_room(&r, 0, 1), CQ);
	ck_assert_uint_eq(ring_cq_room(&r, 5, 1), CQ - 5);
	ck_assert_uint_eq(ring_cq_room(&r, CQ, 1), 0);
	ck_assert_uint_eq(ring_cq_room(&r, CQ + 3, 1), 0);
	complete(10);
	ck_assert_uint_eq(ring_cq_room(&r, 2, 1), CQ - 12);
	ck_assert_uint_eq(ring_cq_room(&r, 7, 1), 0);
	complete(CQ - 10);
	ck_assert_uint_eq(ring_cq_room(&r, 0, 1), 0);
	r.sh->cq_head = 3;
	ck_assert_uint_eq(ring_cq_room(&r, 0, 1), 3);
	ck_assert_uint_eq(ring_cq_room(&r, 2, 1), 1);
	ck_assert_uint_eq(ring_cq_room(&r, 3, 1), 0);
}
END_TEST

START_TEST(the_clients_head_is_read_when_short)
{
	complete(4);
	r.sh->cq_head = 4;
	ck_assert_uint_eq(ring_cq_room(&r, 0, 8), CQ - 4);
	ck_assert_uint_eq(r.cq_head, 0);
	ck_assert_uint_eq(ring_cq_room(&r, 0, CQ), CQ);
	ck_assert_uint_eq(r.cq_head, 4);
}
END_TEST

START_TEST(a_nonsense_head_leaves_no_room)
{
	static const uint32_t ahead[] = { 1, CQ, -CQ - 1, -100, 0x80000000, -2 * CQ };

	start_at(100);
	complete(CQ);				/* tail is at 100 + CQ */
	r.sh->cq_head = 100 + CQ + ahead[_i];
	ck_assert_uint_eq(ring_cq_room(&r, 0, 1), 0);
	ck_assert_uint_eq(ring_cq_room(&r, 3, 1), 0);
	r.sh->cq_head = 100 + CQ;		/* and it may come to its senses */
	ck_assert_uint_eq(ring_cq_room(&r, 0, 1), CQ);
}
END_TEST

START_TEST(flush_publishes_and_tells_of_sleepers)
{
	ck_assert(!ring_flush(&r));		/* nothing to tell */
	r.sh->client_flags = KVMD_RING_NEED_WAKEUP;
	ck_assert(!ring_flush(&r));
	complete(2);
	ck_assert(ring_flush(&r));
	ck_assert_uint_eq(r.sh->cq_tail, 2);
	ck_assert(!ring_flush(&r));		/* woken once */
	complete(1);
	r.sh->client_flags = ~KVMD_RING_NEED_WAKEUP;
	ck_assert(!ring_flush(&r));
	ck_assert_uint_eq(r.sh->cq_tail, 3);
}
END_TEST

START_TEST(flush_gives_places_back_without_waking)
{
	put(1);
	ck_assert_int_eq(ring_poll(&r), 1);
	take();
	r.sh->client_flags = KVMD_RING_NEED_WAKEUP;
	ck_assert_uint_eq(r.sh->sq_head, 0);
	ck_assert(!ring_flush(&r));
	ck_assert_uint_eq(r.sh->sq_head, 1);
	ck_assert_uint_eq(r.sh->cq_tail, 0);
}
END_TEST

static void *sleeper(void *arg)
{
	(void)arg;
	while (!ld_acq(&r.sh->cq_tail))
		syscall(SYS_futex, &r.sh->cq_tail, FUTEX_WAIT, 0, NULL, NULL, 0);
	return NULL;
}

START_TEST(a_sleeper_wakes)
{
	pthread_t th;

	ck_assert_int_eq(pthread_create(&th, NULL, sleeper, NULL), 0);
	r.sh->client_flags = KVMD_RING_NEED_WAKEUP;
	complete(1);
	ck_assert(ring_flush(&r));
	ring_wake(&r);
	ck_assert_int_eq(pthread_join(th, NULL), 0);
}
END_TEST

/* -------------------------------------------------------------- wraparound */

START_TEST(indices_run_through_zero)
{
	uint32_t batch = _i ? 5 : 1, at = 0u - 20;
	uint64_t n = 0, got = 0;

	start_at(at);
	r.bulk = batch > 1;
	while (got < 60) {
		for (uint32_t i = 0; i < batch; i++)
			put(n++);
		put_tail();
		for (int nr = ring_poll(&r); nr; nr--) {
			ck_assert_uint_eq(take(), got++);
			ck_assert_uint_ge(ring_cq_room(&r, 0, 1), 1);
			complete(1);
		}
		ck_assert_int_eq(ring_poll(&r), 0);
		ck_assert_int_eq(ring_poll_more(&r), 0);
		r.bulk = batch > 1;
		ring_flush(&r);
		ck_assert_uint_eq(r.sh->sq_head, at + (uint32_t)got);
		ck_assert_uint_eq(r.sh->cq_tail, at + (uint32_t)got);
		ck_assert_uint_eq(r.cqe[(r.cq_tail - 1) & r.cq_mask].pos, r.cq_tail);
		ck_assert_uint_eq(r.cqe[(r.cq_tail - 1) & r.cq_mask].user_data,
				  (uint32_t)(r.cq_tail - 1));
		r.sh->cq_head = r.cq_tail;
	}
}
END_TEST

START_TEST(room_and_jumps_through_zero)
{
	start_at(0u - 3);
	complete(CQ);
	ck_assert_uint_eq(ring_cq_room(&r, 0, 1), 0);
	r.sh->cq_head = 2;			/* 5 on */
	ck_assert_uint_eq(ring_cq_room(&r, 0, 1), 5);
	r.bulk = true;
	r.sh->sq_tail = 5;			/* 8 on */
	ck_assert_int_eq(ring_poll(&r), SQ);
	r.sq_seen = r.sq_head;
	r.sh->sq_tail = 6;
	ck_assert_int_eq(ring_poll(&r), -EPROTO);
}
END_TEST

static TCase *group(Suite *s, const char *name)
{
	TCase *tc = tcase_create(name);

	tcase_add_checked_fixture(tc, setup, teardown);
	suite_add_tcase(s, tc);
	return tc;
}

int main(void)
{
	Suite *s = suite_create("ring");
	TCase *tc = group(s, "layout");

	tcase_add_test(tc, words_are_where_the_protocol_says);
	tcase_add_test(tc, memory_is_zeroed_sealed_and_whole_pages);
	tcase_add_test(tc, destroyed_twice);
	tc = group(s, "submissions");
	tcase_add_test(tc, single_entries_are_found_by_their_pos);
	tcase_add_test(tc, other_pos_words_are_no_entry);
	tcase_add_test(tc, batches_are_found_by_the_tail);
	tcase_add_test(tc, a_full_ring_is_possible);
	tcase_add_loop_test(tc, impossible_tails_break_the_ring, 0, 6);
	tcase_add_test(tc, entries_by_pos_may_be_ahead_of_the_tail);
	tcase_add_test(tc, more_than_one_waiting_is_bulk);
	tcase_add_test(tc, without_pos_the_tail_is_read_always);
	tcase_add_test(tc, a_tail_without_pos_is_seen_before_sleep);
	tcase_add_test(tc, an_entry_is_copied_once);
	tc = group(s, "completions");
	tcase_add_test(tc, a_completion_is_written_whole);
	tcase_add_test(tc, room_counts_what_is_promised);
	tcase_add_test(tc, the_clients_head_is_read_when_short);
	tcase_add_loop_test(tc, a_nonsense_head_leaves_no_room, 0, 6);
	tcase_add_test(tc, flush_publishes_and_tells_of_sleepers);
	tcase_add_test(tc, flush_gives_places_back_without_waking);
	tcase_add_test(tc, a_sleeper_wakes);
	tc = group(s, "wraparound");
	tcase_add_loop_test(tc, indices_run_through_zero, 0, 2);
	tcase_add_test(tc, room_and_jumps_through_zero);
	return suite_run(s);
}
