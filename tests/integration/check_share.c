/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_share.c - one pool, several processes: the same memory, handed on,
 * merged, seen when its step is over.
 */
#include "tests/harness.h"

#include <check.h>
#include <poll.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define POOL	"[pool]\npolicy = lru\nslab_bytes = 1M\nblocks = 4096\nwmark_low = 0\n" \
		"wmark_high = 0\ndeadlock_time = 1h\nslab_deadline = 5ms\n"

static struct hd d;

static struct kvmd_sqe *entry(struct kvc *k, uint64_t user_data)
{
	struct kvmd_sqe *e = kvc_get_sqe(k);

	T(e);
	e->user_data = user_data;
	return e;
}

static uint64_t put_key(struct kvc *k, uint32_t stream, uint32_t pos)
{
	uint64_t off;
	void *at = kvc_args_alloc(k, KEY, &off);

	T(at);
	make_keys(at, stream, pos, 1);
	return off;
}

/* -------------------------------------------------------------------- sharing */

static void writer(struct peer *me, struct hd *hd, void *arg)
{
	struct kvc *k = plain_client(hd, "sp", 32);

	(void)arg;
	open_publish(k, 1, 8, 7);
	for (uint32_t i = 0; i < 8; i++)
		say(me, (uint64_t)slot_at(k, 0, 1, i));
	hear(me);
	kvc_destroy(k);
}

static void reader(struct peer *me, struct hd *hd, void *arg)
{
	unsigned char keys[9][KEY];
	struct kvmd_cqe c;
	struct kvc *k = plain_client(hd, "sp", 32);

	(void)arg;
	make_keys(keys, 7, 0, 9);
	T_EQ(kvc_seq_open(k, 4, 9, keys, 9, 9 * BT, 0, 0, &c), 8);
	T_EQ(c.v1, 8 * BT);
	T_EQ(c.v2, KVMD_MISS_NEVER);
	for (uint32_t i = 0; i < 8; i++) {
		T(holds(k, 0, (uint32_t)slot_at(k, 0, 4, i), (7 << 8) + i));
		say(me, (uint64_t)slot_at(k, 0, 4, i));
	}
	hear(me);
	kvc_destroy(k);
}

START_TEST(two_processes_read_one_block_of_memory)
{
	struct peer a, b;
	uint64_t slot[8];

	hd_start(&d, POOL);
	peer_start(&a, &d, writer, NULL, 0);
	for (int i = 0; i < 8; i++)
		slot[i] = hear(&a);
	peer_start(&b, &d, reader, NULL, 0);
	T(a.pid != b.pid);
	for (int i = 0; i < 8; i++)
		T_EQ(hear(&b), slot[i]);
	T_EQ(hd_stat(&d, "blocks_copied"), 0);
	T_EQ(hd_stat(&d, "bytes_copied"), 0);
	T_EQ(hd_stat(&d, "blocks_hit"), 8);
	say(&a, 0);
	say(&b, 0);
	peer_end(&a);
	peer_end(&b);
	hd_stop(&d);
}
END_TEST

/* What is read-only is so: a write through the window for reading faults. */
static void scribbler(struct peer *me, struct hd *hd, void *arg)
{
	unsigned char keys[1][KEY];
	struct kvc *k = plain_client(hd, "sp", 32);
	void *at;

	(void)arg;
	(void)me;
	make_keys(keys, 7, 0, 1);
	T_EQ(kvc_seq_open(k, 1, 1, keys, 1, BT, 0, 0, NULL), 1);
	at = (void *)(uintptr_t)kvc_addr_ro(kvc_view(k), 0, 0, 0, (uint32_t)slot_at(k, 0, 1, 0));
	if (test_cuda())
		_exit(kvc_mem_put(k, at, "x", 1) ? 1 : 0);	/* by a copy engine */
	*(volatile char *)at = 1;
}

START_TEST(the_reading_window_cannot_be_written)
{
	struct peer p;
	struct kvc *k;
	int status;

	hd_start(&d, POOL);
	k = plain_client(&d, "sp", 32);
	open_publish(k, 1, 1, 7);
	peer_start(&p, &d, scribbler, NULL, 0);
	status = peer_status(&p);
	T(status != 0 && status != 99);
	T(holds(k, 0, (uint32_t)slot_at(k, 0, 1, 0), 7 << 8));
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* -------------------------------------------------------------------- publishing */

START_TEST(a_block_is_seen_when_its_step_is_over)
{
	unsigned char key[1][KEY];
	struct kvmd_cqe c;
	struct kvmd_sqe *e;
	struct kvc *a, *b;

	hd_start(&d, POOL);
	a = plain_client(&d, "sp", 32);
	b = plain_client(&d, "sp", 32);
	open_extend(a, 1, 1, 5);
	kvc_step_submit(a, 1);
	make_keys(key, 3, 0, 1);
	e = entry(a, 1);
	kvc_prep_publish(e, 1, 1, 0, 0, put_key(a, 3, 0), 1, 1);
	T_EQ(kvc_submit(a), 1);
	T_EQ(kvc_nop(a), 0);
	T_EQ(kvc_lookup(b, 0, key, 1, &c), 0);
	T_EQ(c.v2, KVMD_MISS_PENDING);
	T_EQ(kvc_seq_open(b, 1, 1, key, 1, BT, 0, 0, &c), 0);
	T_EQ(c.v2, KVMD_MISS_PENDING);
	kvc_step_complete(a, 0, 1);
	T_EQ(take_for(a, 1).res, 1);
	T_EQ(kvc_lookup(b, 0, key, 1, &c), 1);
	kvc_destroy(a);
	kvc_destroy(b);
	hd_stop(&d);
}
END_TEST

/* The other process: what it is told, and what came of it. */
enum { PUBLISH = 1, TRY, GET, END };

static void other(struct peer *me, struct hd *hd, void *arg)
{
	struct kvc *k = plain_client(hd, "sp", 8);
	uint64_t cmd;

	(void)arg;
	T_EQ(kvc_seq_open(k, 2, 1, NULL, 0, 0, 0, 0, NULL), 0);
	while ((cmd = hear(me)) != END) {
		if (cmd == PUBLISH) {
			open_publish(k, 1, 1, 6);
			say(me, (uint64_t)slot_at(k, 0, 1, 0));
		} else {
			say(me, (uint64_t)kvc_seq_extend(k, 2, 1, 0, 7, cmd == TRY ?
							 KVMD_EXTEND_NOWAIT : 0, WAIT_NS, NULL));
		}
	}
	kvc_destroy(k);
}

static int tell(struct peer *p, uint64_t cmd)
{
	say(p, cmd);
	return (int)hear(p);
}

/*
 * Two processes compute the same block. The second one's entry is pointed at the
 * first one's block; its own memory is used again only when it took the
 * completion and finished the steps it had submitted by then.
 */
START_TEST(a_block_computed_twice_is_merged_and_freed_in_time)
{
	uint64_t until = test_now_ns() + WAIT_NS;
	struct kvmd_sqe *e;
	struct kvmd_cqe c;
	int32_t dup, theirs;
	struct peer p;
	struct kvc *k;

	hd_start(&d, POOL);
	peer_start(&p, &d, other, NULL, 0);
	k = plain_client(&d, "sp", 8);
	open_extend(k, 1, 1, 6 << 8);
	dup = slot_at(k, 0, 1, 0);
	theirs = tell(&p, PUBLISH);
	kvc_step_submit(k, 1);
	e = entry(k, 1);
	kvc_prep_publish(e, 1, 1, 0, 0, put_key(k, 6, 0), 1, 1);
	T_EQ(kvc_submit(k), 1);
	T_EQ(kvc_nop(k), 0);
	T_EQ(slot_at(k, 0, 1, 0), dup);		/* step 1 may be reading the row */
	kvc_step_complete(k, 0, 1);
	while (slot_at(k, 0, 1, 0) == dup && test_now_ns() < until)
		sched_yield();
	T_EQ(slot_at(k, 0, 1, 0), theirs);
	/* Merged; the completion is not taken: 6 of 8 are free. */
	T_EQ(tell(&p, TRY), -EAGAIN);
	kvc_step_submit(k, 2);
	c = take_for(k, 1);
	T_EQ(c.res, 1);
	T_EQ(c.v0, 1);
	/* Taken, but step 2 was on its way by then. */
	T_EQ(kvc_nop(k), 0);
	T_EQ(tell(&p, TRY), -EAGAIN);
	kvc_step_complete(k, 0, 2);
	T_EQ(tell(&p, GET), 7);
	T(holds(k, 0, (uint32_t)slot_at(k, 0, 1, 0), 6 << 8));
	T_EQ(hd_stat(&d, "blocks_merged"), 1);
	T_EQ(hd_stat(&d, "tokens_merged"), BT);
	say(&p, END);
	peer_end(&p);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* -------------------------------------------------------------------- handing on */

static void prefill(struct peer *me, struct hd *hd, void *arg)
{
	struct kvc *k = plain_client(hd, "sp", 32);
	uint64_t ticket;

	(void)arg;
	open_publish(k, 1, 4, 2);
	T_EQ(kvc_seq_extend(k, 1, 1, 0, 2, 0, 0, NULL), 2);
	fill(k, 0, (uint32_t)slot_at(k, 0, 1, 4), 444);
	fill(k, 0, (uint32_t)slot_at(k, 0, 1, 5), 555);
	T_EQ(kvc_seq_send(k, 1, 1, 0, &ticket), 0);
	T_EQ(slot_at(k, 0, 1, 0), 0);
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), -ENOENT);
	say(me, ticket);
	hear(me);
	kvc_destroy(k);
}

START_TEST(a_sequence_changes_process_with_its_private_tail)
{
	unsigned char key[2][KEY];
	struct kvmd_cqe c;
	struct kvc *k, *other;
	uint64_t ticket;
	struct peer p;

	hd_start(&d, POOL);
	peer_start(&p, &d, prefill, NULL, 0);
	ticket = hear(&p);
	peer_kill(&p);			/* the sender's death changes nothing */
	k = plain_client(&d, "sp", 32);
	other = plain_client(&d, "another", 32);
	T_EQ(kvc_seq_recv(other, 1, 1, ticket, NULL), -ENOENT);
	T_EQ(kvc_seq_recv(k, 1, 1, ticket ^ 1, NULL), -ENOENT);
	T_EQ(kvc_seq_recv(k, 3, 8, ticket, &c), 6);
	T_EQ(c.v1, 6 * BT);
	T_EQ(kvc_seq_recv(k, 4, 8, ticket, NULL), -ENOENT);
	for (uint32_t i = 0; i < 4; i++)
		T(holds(k, 0, (uint32_t)slot_at(k, 0, 3, i), (2 << 8) + i));
	T(holds(k, 0, (uint32_t)slot_at(k, 0, 3, 4), 444));
	T(holds(k, 0, (uint32_t)slot_at(k, 0, 3, 5), 555));
	fill(k, 0, (uint32_t)slot_at(k, 0, 3, 5), 556);
	make_keys(key, 2, 4, 2);
	T_EQ(kvc_seq_publish(k, 3, 8, 0, 4, key, 2, 0, NULL), 2);
	T_EQ(kvc_seq_extend(k, 3, 8, 0, 1, 0, 0, &c), 1);
	T_EQ(c.v0, 6);
	T_EQ(hd_stat(&d, "bytes_copied"), 0);
	T_EQ(kvc_seq_close(k, 3, 8, 0, 0), 0);
	whole_pool(k, 32);
	kvc_destroy(k);
	kvc_destroy(other);
	hd_stop(&d);
}
END_TEST

START_TEST(a_ticket_that_nobody_takes_ends)
{
	uint64_t ticket;
	struct kvc *k;

	hd_start(&d, POOL "ticket_timeout = 1ms\n");
	k = plain_client(&d, "sp", 8);
	open_extend(k, 1, 8, 0);
	T_EQ(kvc_seq_send(k, 1, 1, 0, &ticket), 0);
	whole_pool(k, 8);		/* waits until it is over */
	T_EQ(hd_stat(&d, "tickets_expired"), 1);
	T_EQ(kvc_seq_recv(k, 1, 1, ticket, NULL), -ENOENT);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

START_TEST(a_sequence_is_sent_when_its_step_is_over)
{
	struct kvmd_sqe *e;
	struct kvmd_cqe c;
	struct kvc *k;

	hd_start(&d, POOL);
	k = plain_client(&d, "sp", 8);
	open_extend(k, 1, 2, 0);
	kvc_step_submit(k, 1);
	e = entry(k, 1);
	kvc_prep_send(e, 1, 1, 1);
	T_EQ(kvc_submit(k), 1);
	T_EQ(kvc_nop(k), 0);
	T(slot_at(k, 0, 1, 0) != 0);
	kvc_step_complete(k, 0, 1);
	c = take_for(k, 1);
	T_EQ(c.res, 0);
	T_EQ(kvc_seq_recv(k, 2, 1, (uint64_t)c.v1 << 32 | c.v0, NULL), 2);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* -------------------------------------------------------------------- groups of ranks */

/* Wait for the other side as an engine does: slabs that are announced meanwhile are mapped. */
static void hear_and_map(struct peer *me, struct kvc *k)
{
	struct pollfd p[2] = {
		{ .fd = me->from, .events = POLLIN },
		{ .fd = kvc_fd(k), .events = POLLIN },
	};

	do {
		T(poll(p, 2, -1) > 0);
		if (p[1].revents)
			T_EQ(kvc_poll(k), 0);
	} while (!p[0].revents);
	hear(me);
}

static void rank1(struct peer *me, struct hd *hd, void *arg)
{
	struct kvc_opts o;
	struct kvc *k = NULL;
	uint64_t token = hear(me);

	(void)arg;
	opts_for(hd, &o);
	T_EQ(kvc_join(&o, token ^ 1, 1, &k), -ENOENT);
	T_EQ(kvc_join(&o, token, 2, &k), -EINVAL);
	T_EQ(kvc_join(&o, token, 1, &k), 0);
	say(me, 1);
	hear_and_map(me, k);
	T_EQ(kvc_poll(k), 0);
	T(holds(k, 0, (uint32_t)slot_at(k, 0, 1, 0), 70));
	kvc_step_complete(k, 1, 1);
	say(me, 2);
	peer_halt(me);
}

START_TEST(ranks_of_a_group_share_tables_and_the_slowest_lane_counts)
{
	struct kvc *k, *late = NULL;
	struct kvmd_sqe *e;
	struct kvc_space s;
	struct kvc_opts o;
	struct peer p;
	int err;

	hd_start(&d, POOL);
	plain_space(&s, "sp", 8);
	opts_for(&d, &o);
	o.nr_ranks = 2;
	k = client_opts(&d, &s, &o);
	peer_start(&p, &d, rank1, NULL, 0);
	say(&p, kvc_group_token(k));
	T_EQ(hear(&p), 1);
	T_EQ(kvc_join(&o, kvc_group_token(k), 1, &late), -EBUSY);
	open_extend(k, 1, 1, 70);
	kvc_step_submit(k, 1);
	e = entry(k, 1);
	kvc_prep_publish(e, 1, 1, 0, 0, put_key(k, 1, 0), 1, 1);
	T_EQ(kvc_submit(k), 1);
	kvc_step_complete(k, 0, 1);
	T_EQ(kvc_nop(k), 0);
	T_EQ(hd_stat(&d, "blocks_published"), 0);	/* lane 1 is not there yet */
	say(&p, 0);
	T_EQ(hear(&p), 2);
	T_EQ(take_for(k, 1).res, 1);
	/* A dead rank ends the group. */
	peer_kill(&p);
	do
		err = kvc_nop(k);
	while (!err);
	T_EQ(err, -ECONNRESET);
	hd_said(&d, "ended");
	/* A rank that lives on starts anew; its old blocks do not wait for its end. */
	T_EQ(kvc_reconnect(k), 0);
	whole_pool(k, 8);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

START_TEST(rank_0_may_work_before_the_others_are_there)
{
	struct kvc_space s;
	struct kvc_opts o;
	struct kvc *k;

	hd_start(&d, POOL);
	plain_space(&s, "sp", 8);
	opts_for(&d, &o);
	o.nr_ranks = 9;
	T_EQ(kvc_create(&o, &s, &k), -EINVAL);
	o.nr_ranks = 8;
	k = client_opts(&d, &s, &o);
	T(kvc_group_token(k) != 0);
	open_publish(k, 1, 2, 3);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* -------------------------------------------------------------------- many */

START_TEST(two_hundred_sessions_at_once)
{
	enum { MANY = 200 };
	static struct kvc *k[MANY];
	struct kvc_space s;
	struct kvc_opts o;

	hd_start(&d, POOL "[tenant default]\nmax_sessions = 256\n");
	plain_space(&s, "sp", 2 * MANY);
	opts_for(&d, &o);
	o.max_seqs = 4;
	o.max_tokens = 8192;
	o.args_bytes = 65536;
	for (uint32_t i = 0; i < MANY; i++)
		k[i] = client_opts(&d, &s, &o);
	for (uint32_t i = 0; i < MANY; i++)
		open_publish(k[i], 1, 2, i / 2);
	for (uint32_t i = 0; i < MANY; i++) {
		T(holds(k[i], 0, (uint32_t)slot_at(k[i], 0, 1, 1), ((i / 2) << 8) + 1));
		T_EQ(slot_at(k[i], 0, 1, 1), slot_at(k[i ^ 1], 0, 1, 1));
	}
	T_EQ(hd_stat(&d, "blocks_merged"), MANY);
	for (uint32_t i = 0; i < MANY - 1; i++)
		kvc_destroy(k[i]);
	T_EQ(kvc_seq_close(k[MANY - 1], 1, 1, 0, 0), 0);
	whole_pool(k[MANY - 1], 2 * MANY);
	kvc_destroy(k[MANY - 1]);
	hd_stop(&d);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("share");
	TCase *t = tcase_create("share");
	SRunner *r;
	int failed;

	suite_add_tcase(s, t);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, two_processes_read_one_block_of_memory);
	tcase_add_test(t, the_reading_window_cannot_be_written);
	tcase_add_test(t, a_block_is_seen_when_its_step_is_over);
	tcase_add_test(t, a_block_computed_twice_is_merged_and_freed_in_time);
	tcase_add_test(t, a_sequence_changes_process_with_its_private_tail);
	tcase_add_test(t, a_ticket_that_nobody_takes_ends);
	tcase_add_test(t, a_sequence_is_sent_when_its_step_is_over);
	tcase_add_test(t, ranks_of_a_group_share_tables_and_the_slowest_lane_counts);
	tcase_add_test(t, rank_0_may_work_before_the_others_are_there);
	tcase_add_test(t, two_hundred_sessions_at_once);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
