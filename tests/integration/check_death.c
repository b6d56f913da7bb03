/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_death.c - clients that die, stop, or go away, at every operation.
 *
 * A client process is brought to a point of the table in points.c, says so, and
 * is killed. Then a client that lived on finds the dead one's published blocks,
 * and can have the whole pool at once, which it waits for.
 */
#include "tests/harness.h"
#include "tests/integration/points.h"

#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define POOL	"[pool]\npolicy = lru\nblocks = 4096\nwmark_low = 0\nwmark_high = 0\n"
/* A test that waits for a process is away from the library: no slab waits for it. */
#define SLAB	"slab_bytes = 1M\nslab_deadline = 5ms\n"
#define PATIENT	"deadlock_time = 1h\nticket_timeout = 20ms\n"

static struct hd d;

static struct kvmd_sqe *entry(struct kvc *k, uint64_t user_data)
{
	struct kvmd_sqe *e = kvc_get_sqe(k);

	T(e);
	e->user_data = user_data;
	return e;
}

static void at_point(struct peer *me, struct hd *hd, void *arg)
{
	const struct point *p = arg;
	struct kvc *k = plain_client(hd, "sp", POINT_SLOTS);

	p->reach(k);
	say(me, 1);
	peer_halt(me);
}

START_TEST(killed_at_every_operation)
{
	const struct point *pt = &points[_i];
	unsigned char keys[POINT_KEYS][KEY];
	struct kvc *k;
	struct peer p;

	hd_start(&d, POOL SLAB PATIENT);
	k = plain_client(&d, "sp", POINT_SLOTS);
	open_extend(k, 1, POINT_KEPT, 40);
	peer_start(&p, &d, at_point, pt, sizeof(*pt));
	T_EQ(hear(&p), 1);
	peer_kill(&p);
	/* Others go on as if nothing had happened. */
	T_EQ(kvc_nop(k), 0);
	hd_said(&d, "ended");
	T_EQ(kvc_seq_open(k, 2, 1, NULL, 0, 0, 0, 0, NULL), 0);
	T_EQ(kvc_seq_extend(k, 2, 1, 0, 1, 0, WAIT_NS, NULL), 1);
	T_EQ(kvc_seq_close(k, 2, 1, 0, 0), 0);
	for (uint32_t i = 0; i < POINT_KEPT; i++)
		T(holds(k, 0, (uint32_t)slot_at(k, 0, 1, i), 40 + i));
	make_keys(keys, POINT_STREAM, 0, POINT_KEYS);
	T_EQ(kvc_lookup(k, 0, keys, POINT_KEYS, NULL), pt->published);
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	whole_pool(k, POINT_SLOTS);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* ----------------------------------------------------------------------- grace */

static void holder(struct peer *me, struct hd *hd, void *arg)
{
	struct kvc *k = plain_client(hd, "sp", 16);

	(void)arg;
	open_extend(k, 1, 8, 0);
	say(me, 1);
	peer_halt(me);
}

START_TEST(memory_of_the_dead_waits_for_the_grace)
{
	struct kvc *k;
	struct peer p;

	hd_start(&d, POOL SLAB PATIENT "[device host-0]\ngrace = 1h\n");
	k = plain_client(&d, "sp", 16);
	peer_start(&p, &d, holder, NULL, 0);
	T_EQ(hear(&p), 1);
	peer_kill(&p);
	hd_said(&d, "ended");
	T_EQ(kvc_seq_open(k, 1, 1, NULL, 0, 0, 0, 0, NULL), 0);
	T_EQ(kvc_seq_extend(k, 1, 1, 0, 9, KVMD_EXTEND_NOWAIT, 0, NULL), -EAGAIN);
	T_EQ(kvc_seq_extend(k, 1, 1, 0, 8, KVMD_EXTEND_NOWAIT, 0, NULL), 8);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

START_TEST(memory_of_the_dead_comes_back_after_the_grace)
{
	uint64_t killed_ns;
	struct kvc *k;
	struct peer p;

	hd_start(&d, POOL SLAB PATIENT "[device host-0]\ngrace = 300ms\n");
	k = plain_client(&d, "sp", 16);
	peer_start(&p, &d, holder, NULL, 0);
	T_EQ(hear(&p), 1);
	killed_ns = test_now_ns();
	peer_kill(&p);
	whole_pool(k, 16);
	T(test_now_ns() - killed_ns >= 300000000ull);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* ------------------------------------------------------- those that do not quite die */

static void parent(struct peer *me, struct hd *hd, void *arg)
{
	struct kvc *k = plain_client(hd, "sp", 16);
	char c;

	(void)arg;
	open_extend(k, 1, 8, 0);
	if (!fork()) {
		say(me, (uint64_t)getpid());
		while (read(me->from, &c, 1) > 0)
			;		/* ends when the test lets go */
		_exit(0);
	}
	peer_halt(me);
}

START_TEST(a_forked_child_that_outlives_its_parent_holds_nothing)
{
	struct kvc *k;
	struct peer p;
	pid_t child;

	hd_start(&d, POOL SLAB PATIENT);
	k = plain_client(&d, "sp", 16);
	peer_start(&p, &d, parent, NULL, 0);
	child = (pid_t)hear(&p);
	T(!kill(p.pid, SIGKILL));
	hd_said(&d, "ended");
	whole_pool(k, 16);
	T(!kill(child, 0));
	T_EQ(peer_status(&p), 128 + SIGKILL);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

static void leaver(struct peer *me, struct hd *hd, void *arg)
{
	struct kvc *k = plain_client(hd, "sp", 16);
	int *bye = arg;

	open_extend(k, 1, 8, 0);
	if (*bye)
		kvc_destroy(k);
	else
		close(kvc_fd(k));
	say(me, 1);
	peer_halt(me);
}

START_TEST(a_bye_gives_memory_back_at_once)
{
	int bye = 1;
	struct kvc *k;
	struct peer p;

	hd_start(&d, POOL SLAB PATIENT "[device host-0]\ngrace = 1h\n");
	k = plain_client(&d, "sp", 16);
	peer_start(&p, &d, leaver, &bye, sizeof(bye));
	T_EQ(hear(&p), 1);
	whole_pool(k, 16);
	peer_kill(&p);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

START_TEST(a_closed_socket_gives_nothing_back_while_the_process_lives)
{
	int bye = 0;
	struct kvmd_sqe *e;
	struct kvc *k;
	struct peer p;

	hd_start(&d, POOL SLAB PATIENT);
	k = plain_client(&d, "sp", 16);
	peer_start(&p, &d, leaver, &bye, sizeof(bye));
	T_EQ(hear(&p), 1);
	hd_said(&d, "ended");
	T_EQ(kvc_seq_open(k, 1, 1, NULL, 0, 0, 0, 0, NULL), 0);
	T_EQ(kvc_seq_extend(k, 1, 1, 0, 9, KVMD_EXTEND_NOWAIT, 0, NULL), -EAGAIN);
	e = entry(k, 5);
	kvc_prep_extend(e, 1, 1, 0, 16, test_now_ns() + WAIT_NS);
	T_EQ(kvc_submit(k), 1);
	T_EQ(kvc_nop(k), 0);
	peer_kill(&p);
	T_EQ(take_for(k, 5).res, 16);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

static void sleeper(struct peer *me, struct hd *hd, void *arg)
{
	struct kvc *k = plain_client(hd, "sp", 64);

	(void)arg;
	open_extend(k, 1, 4, 0);
	say(me, 1);
	hear(me);
	T_EQ(kvc_nop(k), 0);
	T_EQ(kvc_seq_extend(k, 1, 1, 0, 2, 0, WAIT_NS, NULL), 2);
	fill(k, 0, (uint32_t)slot_at(k, 0, 1, 5), 1);
	say(me, 2);
	kvc_destroy(k);
}

START_TEST(a_stopped_client_holds_nobody_up)
{
	struct kvc *k;
	struct peer p;

	/* Slabs of 16 slots: more of them are announced while it is stopped. */
	hd_start(&d, POOL PATIENT "slab_bytes = 64K\nslab_deadline = 20ms\n");
	k = plain_client(&d, "sp", 64);
	peer_start(&p, &d, sleeper, NULL, 0);
	T_EQ(hear(&p), 1);
	T(!kill(p.pid, SIGSTOP));
	open_extend(k, 1, 50, 100);
	hd_said(&d, "held back until");
	T(hd_stat(&d, "slab_laggards") >= 1);
	T(!kill(p.pid, SIGCONT));
	say(&p, 0);
	T_EQ(hear(&p), 2);
	peer_end(&p);
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	whole_pool(k, 64);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

START_TEST(a_step_that_stands_still_gets_nothing_new)
{
	struct kvmd_sqe *e;
	struct kvc *k, *other;

	hd_start(&d, POOL SLAB PATIENT "step_stall = 20ms\n");
	k = plain_client(&d, "sp", 16);
	other = plain_client(&d, "sp", 16);
	open_extend(k, 1, 4, 0);
	open_extend(k, 2, 4, 0);
	kvc_step_submit(k, 1);
	e = entry(k, 9);
	kvc_prep_close(e, 1, 1, 1, 0);
	T_EQ(kvc_submit(k), 1);
	hd_said(&d, "step stands at 0");
	T_EQ(kvc_seq_open(k, 3, 1, NULL, 0, 0, 0, 0, NULL), -EBUSY);
	T_EQ(kvc_seq_extend(k, 2, 1, 0, 1, 0, 0, NULL), -EBUSY);
	T_EQ(kvc_nop(k), 0);
	T_EQ(kvc_seq_close(k, 2, 1, 0, 0), 0);		/* giving back is welcome */
	T_EQ(hd_stat(&d, "step_stalls"), 1);
	T_EQ(hd_stat(&d, "alloc_stalled"), 2);
	open_extend(other, 1, 4, 0);
	kvc_step_complete(k, 0, 1);
	T_EQ(take_for(k, 9).res, 0);
	hd_said(&d, "advances again");
	open_extend(k, 3, 4, 0);
	kvc_destroy(k);
	kvc_destroy(other);
	hd_stop(&d);
}
END_TEST

/* ----------------------------------------------------------------- waiting in line */

START_TEST(two_half_grown_engines_both_finish)
{
	struct kvmd_sqe *e;
	struct kvc *a, *b;

	hd_start(&d, POOL SLAB "deadlock_time = 1ms\n");
	a = plain_client(&d, "sp", 16);
	b = plain_client(&d, "sp", 16);
	open_extend(a, 1, 8, 0);
	open_extend(b, 1, 8, 0);
	e = entry(a, 1);
	kvc_prep_extend(e, 1, 1, 0, 8, test_now_ns() + WAIT_NS);
	T_EQ(kvc_submit(a), 1);
	T_EQ(kvc_nop(a), 0);
	e = entry(b, 2);
	kvc_prep_extend(e, 1, 1, 0, 8, test_now_ns() + WAIT_NS);
	T_EQ(kvc_submit(b), 1);
	T_EQ(take_for(b, 2).res, -EDEADLK);
	T_EQ(kvc_pressure(a), KVMD_PRESSURE_FULL);
	T_EQ(kvc_seq_close(b, 1, 1, 0, 0), 0);		/* pre-empted */
	T_EQ(take_for(a, 1).res, 8);
	T_EQ(kvc_seq_close(a, 1, 1, 0, 0), 0);
	open_extend(b, 1, 16, 0);
	T_EQ(hd_stat(&d, "alloc_deadlocks"), 1);
	kvc_destroy(a);
	kvc_destroy(b);
	hd_stop(&d);
}
END_TEST

START_TEST(waiting_allocations_are_served_in_order)
{
	static const uint32_t want[3] = { 12, 1, 3 };
	struct kvmd_sqe *e;
	struct kvc *a, *b;

	hd_start(&d, POOL SLAB PATIENT);
	a = plain_client(&d, "sp", 16);
	b = plain_client(&d, "sp", 16);
	open_extend(a, 1, 16, 0);
	for (uint32_t i = 0; i < 3; i++) {
		T_EQ(kvc_seq_open(b, i, 1, NULL, 0, 0, 0, 0, NULL), 0);
		e = entry(b, i);
		kvc_prep_extend(e, i, 1, 0, want[i], test_now_ns() + WAIT_NS);
	}
	T(kvc_submit(b) > 0);
	T_EQ(kvc_nop(b), 0);
	/* Four are free, but the first in line wants twelve. */
	T_EQ(kvc_seq_trim(a, 1, 1, 0, KVMD_TRIM_TAIL, 12, 0, 0), 4);
	T_EQ(kvc_seq_open(a, 2, 1, NULL, 0, 0, 0, 0, NULL), 0);
	T_EQ(kvc_seq_extend(a, 2, 1, 0, 1, KVMD_EXTEND_NOWAIT, 0, NULL), -EAGAIN);
	T_EQ(kvc_seq_trim(a, 1, 1, 0, KVMD_TRIM_TAIL, 0, 0, 0), 12);
	for (uint32_t i = 0; i < 3; i++)
		T_EQ(take_for(b, i).res, want[i]);
	kvc_destroy(a);
	kvc_destroy(b);
	hd_stop(&d);
}
END_TEST

START_TEST(when_nothing_can_be_freed_the_answer_says_who_holds_what)
{
	struct kvc *a, *b;

	hd_start(&d, POOL SLAB PATIENT);
	a = plain_client(&d, "sp", 16);
	b = plain_client(&d, "sp", 16);
	open_extend(a, 1, 16, 0);
	T_EQ(kvc_seq_open(b, 1, 1, NULL, 0, 0, 0, 0, NULL), 0);
	T_EQ(kvc_seq_extend(b, 1, 1, 0, 3, 0, 5000000, NULL), -ENOMEM);
	hd_said(&d, "no memory for 3 blocks: space sp group 0: 16 slots, 0 free, 0 idle, 16 leased");
	T_EQ(kvc_seq_extend(b, 1, 1, 0, 17, 0, WAIT_NS, NULL), -ENOMEM);
	T_EQ(hd_stat(&d, "alloc_refused_nomem"), 2);
	kvc_destroy(a);
	kvc_destroy(b);
	hd_stop(&d);
}
END_TEST

/* --------------------------------------------------------------------- bugs that were */

static void unsharer(struct peer *me, struct hd *hd, void *arg)
{
	struct kvc_space s;
	struct kvc *k;

	(void)arg;
	plain_space(&s, "big", 300);
	s.group[0].plane_bytes = test_bytes(128 << 10);
	k = client(hd, &s);
	T_EQ(kvc_seq_open(k, 1, 1, NULL, 0, 0, 0, 0, NULL), 0);
	T_EQ(kvc_seq_extend(k, 1, 1, 0, 140, 0, WAIT_NS, NULL), 140);
	for (uint32_t i = 0; i < 140; i++) {
		unsigned char key[1][KEY];

		make_keys(key, 1, i, 1);
		T_EQ(kvc_seq_publish(k, 1, 1, 0, i, key, 1, 0, NULL), 1);
	}
	/* More than there are copy engines: some wait for one, with their block. */
	for (uint32_t i = 0; i < 140; i++)
		kvc_prep_unshare(entry(k, i), 1, 1, 0, i, 0, 0);
	say(me, 1);
	kvc_submit(k);
	raise(SIGKILL);
}

/* A block taken for an unshare that waited for a copy engine was lost with its client. */
START_TEST(an_unshare_that_waits_for_a_copy_engine_gives_its_block_back)
{
	struct kvc_space s;
	struct kvc *k;
	struct peer p;

	if (test_skip(test_bytes(1) > 1, "its 300 blocks are large already"))
		return;
	hd_start(&d, POOL PATIENT "slab_bytes = 64M\nslab_deadline = 5ms\n");
	plain_space(&s, "big", 300);
	s.group[0].plane_bytes = test_bytes(128 << 10);
	k = client(&d, &s);
	peer_start(&p, &d, unsharer, NULL, 0);
	T_EQ(hear(&p), 1);
	T_EQ(peer_status(&p), 128 + SIGKILL);
	whole_pool(k, 300);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("death");
	TCase *t = tcase_create("death");
	SRunner *r;
	int failed;

	suite_add_tcase(s, t);
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, killed_at_every_operation, 0, (int)nr_points);
	tcase_add_test(t, memory_of_the_dead_waits_for_the_grace);
	tcase_add_test(t, memory_of_the_dead_comes_back_after_the_grace);
	tcase_add_test(t, a_forked_child_that_outlives_its_parent_holds_nothing);
	tcase_add_test(t, a_bye_gives_memory_back_at_once);
	tcase_add_test(t, a_closed_socket_gives_nothing_back_while_the_process_lives);
	tcase_add_test(t, a_stopped_client_holds_nobody_up);
	tcase_add_test(t, a_step_that_stands_still_gets_nothing_new);
	tcase_add_test(t, two_half_grown_engines_both_finish);
	tcase_add_test(t, waiting_allocations_are_served_in_order);
	tcase_add_test(t, when_nothing_can_be_freed_the_answer_says_who_holds_what);
	tcase_add_test(t, an_unshare_that_waits_for_a_copy_engine_gives_its_block_back);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
