/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_restart.c - a daemon that dies under its clients, and the one after it.
 *
 * The daemon runs under the keeper. It is killed or asked to stop; the next one is
 * waited for by its log, and clients go on with kvc_reconnect(). What they had must
 * be where it was, and what nobody has any more must come back to the pool.
 */
#include "tests/harness.h"
#include "tests/raw.h"

#include <check.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define POOL	"[pool]\npolicy = lru\nblocks = 4096\nwmark_low = 0\nwmark_high = 0\n" \
		"slab_bytes = 1M\nslab_deadline = 5ms\ndeadlock_time = 1h\n"
#define SOON	"resume_timeout = 100ms\n"

static struct hd d;

static void start(const char *conf)
{
	hd_prepare(&d);
	d.keeper = true;
	hd_conf(&d, conf);
	hd_run(&d);
}

/* @sig to the daemon; the next one serves when this returns. */
static void restart(int sig)
{
	T_EQ(kill(hd_daemon_pid(&d), sig), 0);
	hd_said(&d, " serves ");
}

/* The successor may serve before the last of a killed one's sockets is closed. */
static int reconnect(struct kvc *k)
{
	struct pollfd pfd = { .fd = kvc_fd(k), .events = POLLRDHUP };

	T(poll(&pfd, 1, WAIT_MS) == 1);
	return kvc_reconnect(k);
}

static void expect_lookup(struct kvc *k, uint32_t stream, uint32_t nr, int32_t hits)
{
	unsigned char keys[64][KEY];

	make_keys(keys, stream, 0, nr);
	T_EQ(kvc_lookup(k, 0, keys, nr, NULL), hits);
}

/* ----------------------------------------------------------- the pool is kept */

START_TEST(blocks_and_sequences_survive)
{
	const int sig = _i ? SIGTERM : SIGKILL;
	uint32_t slot[8];
	struct kvc *k;

	start(POOL);
	k = plain_client(&d, "sp", 64);
	open_publish(k, 1, 8, 5);
	open_extend(k, 2, 3, 700);
	open_publish(k, 3, 4, 6);
	T_EQ(kvc_seq_close(k, 3, 1, 0, 0), 0);
	for (uint32_t i = 0; i < 8; i++)
		slot[i] = (uint32_t)slot_at(k, 0, 1, i);
	restart(sig);
	T_EQ(reconnect(k), 1);
	hd_check(&d);
	/* The same slots, and in them the same bytes. */
	for (uint32_t i = 0; i < 8; i++)
		T_EQ(slot_at(k, 0, 1, i), slot[i]);
	for (uint32_t i = 0; i < 3; i++)
		T(holds(k, 0, (uint32_t)slot_at(k, 0, 2, i), 700 + i));
	expect_lookup(k, 5, 8, 8);
	expect_lookup(k, 6, 4, 4);	/* nobody held it */
	/* It all goes on: longer, published, closed. */
	T_EQ(kvc_seq_extend(k, 2, 1, 0, 2, 0, WAIT_NS, NULL), 2);
	open_publish(k, 4, 5, 9);
	expect_lookup(k, 9, 5, 5);
	for (uint32_t q = 1; q <= 4; q += 1 + (q == 2))
		T_EQ(kvc_seq_close(k, q, 1, 0, 0), 0);
	hd_check(&d);
	whole_pool(k, 64);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

START_TEST(it_survives_again_and_again)
{
	struct kvc *k;

	start(POOL);
	k = plain_client(&d, "sp", 64);
	for (uint32_t i = 0; i < 4; i++) {
		open_publish(k, i, 4, 20 + i);
		restart(i & 1 ? SIGTERM : SIGKILL);
		T_EQ(reconnect(k), 1);
		hd_check(&d);
		for (uint32_t j = 0; j <= i; j++)
			expect_lookup(k, 20 + j, 4, 4);
	}
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* Nobody reconnects between the two: the second start continues the first's state. */
START_TEST(a_client_that_missed_two_restarts)
{
	struct kvc *k;

	start(POOL);
	k = plain_client(&d, "sp", 64);
	open_publish(k, 1, 4, 3);
	restart(SIGKILL);
	restart(SIGKILL);
	T_EQ(reconnect(k), 1);
	hd_check(&d);
	expect_lookup(k, 3, 4, 4);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

START_TEST(a_new_client_finds_what_was_kept)
{
	struct kvc *k;

	start(POOL);
	k = plain_client(&d, "sp", 64);
	open_publish(k, 1, 6, 3);
	kvc_destroy(k);
	restart(SIGKILL);
	k = plain_client(&d, "sp", 64);
	expect_lookup(k, 3, 6, 6);
	hd_check(&d);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* -------------------------------------------------------------------- the tiers */

#define RAM	"[ram]\nbytes = 16M\nlock = no\nhugetlb = no\n"

static void start_ram(const char *conf)
{
	start(conf);
	hd_said(&d, " ready after ");	/* its chunks are made in the background */
}

/* Chains of four times as many blocks as HBM has. */
static void fill_tiers(struct kvc *k)
{
	for (uint32_t i = 0; i < 8; i++) {
		open_publish(k, 1, 8, 60 + i);
		T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	}
}

static void expect_tiers(struct kvc *k)
{
	unsigned char keys[8][KEY];

	for (uint32_t i = 0; i < 8; i++) {
		make_keys(keys, 60 + i, 0, 8);
		T_EQ(kvc_seq_open(k, 1, 1, keys, 8, 0, 0, 0, NULL), 8);
		for (uint32_t j = 0; j < 8; j++)
			T(holds(k, 0, (uint32_t)slot_at(k, 0, 1, j), ((60 + i) << 8) + j));
		T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	}
}

START_TEST(ram_survives)
{
	struct kvc *k;

	start_ram(POOL RAM);
	k = plain_client(&d, "sp", 16);
	fill_tiers(k);
	expect_tiers(k);
	for (int i = 0; i < 2; i++) {
		restart(i ? SIGTERM : SIGKILL);
		T_EQ(reconnect(k), 1);
		hd_check(&d);
		expect_tiers(k);
		hd_check(&d);
	}
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

START_TEST(what_was_swapped_out_comes_back)
{
	struct kvc *k;

	start_ram(POOL RAM);
	k = plain_client(&d, "sp", 16);
	open_publish(k, 2, 4, 7);
	open_extend(k, 3, 5, 300);
	T_EQ(kvc_seq_swap_out(k, 3, 1, 0), 5);
	T_EQ(kvc_seq_swap_out(k, 2, 1, 0), 4);
	restart(SIGKILL);
	T_EQ(reconnect(k), 1);
	hd_check(&d);
	T_EQ(kvc_seq_extend(k, 3, 1, 0, 1, 0, WAIT_NS, NULL), -EBUSY);
	T_EQ(kvc_seq_swap_in(k, 3, 1, WAIT_NS), 5);
	for (uint32_t i = 0; i < 5; i++)
		T(holds(k, 0, (uint32_t)slot_at(k, 0, 3, i), 300 + i));
	T_EQ(kvc_seq_swap_in(k, 2, 1, WAIT_NS), 4);
	for (uint32_t i = 0; i < 4; i++)
		T(holds(k, 0, (uint32_t)slot_at(k, 0, 2, i), (7 << 8) + i));
	hd_check(&d);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* The block before those that come back left HBM meanwhile, and nobody holds it. */
START_TEST(a_swap_in_behind_a_hole)
{
	struct kvc *k;

	start_ram(POOL RAM);
	k = plain_client(&d, "sp", 16);
	open_publish(k, 2, 4, 7);
	T_EQ(kvc_seq_trim(k, 2, 1, 0, 0, 1, 1, 0), 1);
	/* The first stays: its child, which nobody holds, is in HBM still. */
	T_EQ(kvc_seq_swap_out(k, 2, 1, 0), 2);
	fill_tiers(k);
	T_EQ(kvc_seq_swap_in(k, 2, 1, WAIT_NS), 2);
	hd_check(&d);
	for (uint32_t i = 0; i < 4; i++)
		T(i == 1 ? !slot_at(k, 0, 2, i) :
		  holds(k, 0, (uint32_t)slot_at(k, 0, 2, i), (7 << 8) + i));
	fill_tiers(k);
	hd_check(&d);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* With RAM that answers late: what is on its way up, or out, when the daemon dies. */
START_TEST(moves_that_were_under_way)
{
	unsigned char keys[8][KEY];
	struct kvmd_sqe *e;
	struct kvmd_cqe c;
	struct kvc *k;
	uint64_t off;

	start_ram(POOL RAM "test = delay:10s\n");
	k = plain_client(&d, "sp", 16);
	open_publish(k, 1, 8, 60);
	open_extend(k, 3, 4, 300);
	/* Out: a swap that never ends. */
	e = kvc_get_sqe(k);
	T(e);
	kvc_prep_swap_out(e, 3, 1, 0);
	e->user_data = 5;
	T(kvc_submit(k) >= 0);
	T_EQ(kvc_nop(k), 0);
	hd_conf(&d, POOL RAM);
	restart(SIGKILL);
	T_EQ(reconnect(k), 1);
	T_EQ(take_for(k, 5).res, -ECONNRESET);
	hd_check(&d);
	for (uint32_t i = 0; i < 4; i++)
		T(holds(k, 0, (uint32_t)slot_at(k, 0, 3, i), 300 + i));
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	T_EQ(kvc_seq_close(k, 3, 1, 0, 0), 0);
	/* Up: loads that never end. First something to load, when RAM can take it. */
	hd_said(&d, " ready after ");
	fill_tiers(k);
	hd_conf(&d, POOL RAM "test = delay:10s\n");
	restart(SIGTERM);
	T_EQ(reconnect(k), 1);
	for (int i = 0; i < 8; i++) {
		make_keys(keys, 60 + (uint32_t)i, 0, 8);
		if (kvc_seq_open(k, 1, 1, keys, 8, 0, 0, KVC_OPEN_NO_LOAD, NULL) < 8)
			break;
		T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	}
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	memcpy(kvc_args_alloc(k, sizeof(keys), &off), keys, sizeof(keys));
	e = kvc_get_sqe(k);
	T(e);
	kvc_prep_open(e, 4, 1, off, 8, 0, 0);
	e->flags = KVMD_OPEN_LOAD;
	e->user_data = 6;
	T(kvc_submit(k) >= 0);
	c = take_for(k, 6);
	T(c.res >= 0 && c.v0 > 0);
	T_EQ(kvc_nop(k), 0);
	hd_conf(&d, POOL RAM);
	restart(SIGKILL);
	T_EQ(reconnect(k), 1);
	hd_check(&d);
	/* The sequence has what was there, the rest is where it was. */
	T_EQ(kvc_seq_close(k, 4, 1, 0, 0), 0);
	expect_tiers(k);
	hd_check(&d);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* -------------------------------------------------------- clients that do not come */

static void holder(struct peer *me, struct hd *hd, void *arg)
{
	struct kvc *k = plain_client(hd, "sp", 32);

	(void)arg;
	open_publish(k, 1, 4, 8);
	open_extend(k, 2, 8, 0);
	say(me, 1);
	peer_halt(me);
}

/* A step that the former daemon saw begin may read any block: none leaves HBM, whoever waits. */
START_TEST(no_block_leaves_before_steps_of_before_are_over)
{
	struct kvc *k;

	start_ram(POOL RAM);
	k = plain_client(&d, "sp", 16);
	for (uint32_t i = 0; i < 2; i++) {
		open_publish(k, 1, 8, 60 + i);
		T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	}
	kvc_step_submit(k, 1);
	restart(SIGKILL);
	T_EQ(reconnect(k), 1);
	hd_said(&d, " ready after ");
	T_EQ(kvc_seq_open(k, 2, 1, NULL, 0, BT, 0, 0, NULL), 0);
	T(kvc_seq_extend(k, 2, 1, 0, 4, 0, 200000000, NULL) < 0);
	T_EQ(hd_stat(&d, "blocks_evicted"), 0);
	kvc_step_complete(k, 0, 1);
	T_EQ(kvc_seq_extend(k, 2, 1, 0, 4, 0, WAIT_NS, NULL), 4);
	T(hd_stat(&d, "blocks_sunk_ram") > 0);
	T_EQ(kvc_seq_close(k, 2, 1, 0, 0), 0);
	hd_check(&d);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

START_TEST(a_client_that_died_meanwhile)
{
	struct kvc *k;
	struct peer p;
	pid_t pid;

	start(POOL);
	k = plain_client(&d, "sp", 32);
	open_extend(k, 1, 2, 50);
	peer_start(&p, &d, holder, NULL, 0);
	T_EQ(hear(&p), 1);
	pid = hd_daemon_pid(&d);
	T_EQ(kill(pid, SIGSTOP), 0);
	peer_kill(&p);
	T_EQ(kill(pid, SIGKILL), 0);
	hd_said(&d, " serves ");
	T_EQ(reconnect(k), 1);
	/* What it published stays, what it had for itself comes back. */
	expect_lookup(k, 8, 4, 4);
	T(holds(k, 0, (uint32_t)slot_at(k, 0, 1, 0), 50));
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	whole_pool(k, 32);
	hd_check(&d);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

START_TEST(a_client_that_lives_but_stays_away)
{
	struct kvc *k;
	struct peer p;

	start(POOL SOON);
	peer_start(&p, &d, holder, NULL, 0);
	T_EQ(hear(&p), 1);
	restart(SIGKILL);
	hd_said(&d, "ended");		/* after resume_timeout */
	k = plain_client(&d, "sp", 32);
	hd_check(&d);
	/* Its memory is its own until it is gone. */
	T_EQ(kvc_seq_open(k, 5, 1, NULL, 0, 0, 0, 0, NULL), 0);
	T_EQ(kvc_seq_extend(k, 5, 1, 0, 25, KVMD_EXTEND_NOWAIT, 0, NULL), -EAGAIN);
	T_EQ(kvc_seq_extend(k, 5, 1, 0, 20, KVMD_EXTEND_NOWAIT, 0, NULL), 20);
	T_EQ(kvc_seq_close(k, 5, 1, 0, 0), 0);
	peer_kill(&p);
	whole_pool(k, 32);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

START_TEST(who_comes_too_late_gets_a_new_session)
{
	struct kvc *k;

	start(POOL SOON);
	k = plain_client(&d, "sp", 32);
	open_publish(k, 1, 4, 8);
	restart(SIGKILL);
	hd_said(&d, "ended");
	T_EQ(reconnect(k), 0);
	expect_lookup(k, 8, 4, 4);
	hd_check(&d);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* ------------------------------------------------------------------- who it is */

struct told {
	uint32_t session;
	uint64_t token;
	uint8_t boot_id[16];
};

/* A session of its own; what RESUME asks of it goes to the test. */
static void teller(struct peer *me, struct hd *hd, void *arg)
{
	struct told t = { 0 };
	struct raw r;

	(void)arg;
	raw_open(&r, hd, "sp", 32);
	t.session = r.hello.session;
	t.token = r.hello.group_token;
	memcpy(t.boot_id, r.hello.boot_id, sizeof(t.boot_id));
	T_EQ(write(me->to, &t, sizeof(t)), sizeof(t));
	peer_halt(me);
}

static void resume_as(const struct told *t, int err)
{
	struct kvmd_resume m = {
		.h = { .type = KVMD_MSG_RESUME, .bytes = sizeof(m) },
		.version = KVMD_WIRE_VERSION, .session = t->session, .group_token = t->token,
	};
	struct kvmd_resume_reply reply;
	struct raw r;

	memcpy(m.boot_id, t->boot_id, sizeof(m.boot_id));
	raw_connect(&r, &d);
	raw_send(&r, &m, sizeof(m));
	raw_recv(&r, KVMD_MSG_RESUME_REPLY, &reply, sizeof(reply));
	T_EQ(reply.h.err, err);
	T(!err || reply.text[0]);
	raw_close(&r);
}

START_TEST(only_the_same_process_may_resume)
{
	struct told t, other;
	struct peer p;

	start(POOL);
	peer_start(&p, &d, teller, NULL, 0);
	T_EQ(read(p.from, &t, sizeof(t)), sizeof(t));
	resume_as(&t, -ESTALE);		/* of the daemon that is still there */
	restart(SIGKILL);
	other = t;
	other.token ^= 1;
	resume_as(&other, -ESTALE);
	other = t;
	other.boot_id[0] ^= 1;
	resume_as(&other, -ESTALE);
	other = t;
	other.session++;
	resume_as(&other, -ESTALE);
	resume_as(&t, -EACCES);		/* all of it is right, but we are not that process */
	hd_check(&d);
	peer_kill(&p);
	hd_said(&d, "ended");
	resume_as(&t, -ESTALE);
	hd_stop(&d);
}
END_TEST

/* As hear(), but slabs that come meanwhile are mapped: the group is held back until then. */
static uint64_t hear_and_map(struct peer *me, struct kvc *k)
{
	struct pollfd pfd[] = {
		{ .fd = me->from, .events = POLLIN }, { .fd = kvc_fd(k), .events = POLLIN },
	};

	while (!pfd[0].revents) {
		T(poll(pfd, 2, WAIT_MS) > 0);
		if (pfd[1].revents && kvc_poll(k))
			pfd[1].fd = -1;		/* the daemon is gone */
	}
	return hear(me);
}

static void rank_one(struct peer *me, struct hd *hd, void *arg)
{
	uint64_t token = hear(me);
	struct kvc_opts o;
	struct kvc *k;

	(void)arg;
	opts_for(hd, &o);
	T_EQ(kvc_join(&o, token, 1, &k), 0);
	say(me, 1);
	hear_and_map(me, k);
	T_EQ(reconnect(k), 1);
	say(me, 2);
	hear_and_map(me, k);
	T_EQ(kvc_poll(k), 0);
	kvc_destroy(k);
}

START_TEST(ranks_come_back_in_any_order)
{
	struct kvc_space s;
	struct kvc_opts o;
	struct kvc *k;
	struct peer p;

	start(POOL);
	peer_start(&p, &d, rank_one, NULL, 0);
	plain_space(&s, "sp", 32);
	opts_for(&d, &o);
	o.nr_ranks = o.nr_lanes = 2;
	k = client_opts(&d, &s, &o);
	say(&p, kvc_group_token(k));
	T_EQ(hear(&p), 1);
	open_publish(k, 1, 4, 5);
	restart(SIGKILL);
	say(&p, 0);		/* rank 1 may be first: it is told to come again */
	T_EQ(reconnect(k), 1);
	T_EQ(hear(&p), 2);
	expect_lookup(k, 5, 4, 4);
	/* Its lane counts as before. */
	kvc_step_submit(k, 1);
	kvc_step_complete(k, 0, 1);
	T_EQ(kvc_seq_extend(k, 1, 1, 0, 2, 0, WAIT_NS, NULL), 2);
	hd_check(&d);
	say(&p, 0);
	peer_end(&p);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* A rank that is not back knows nothing of new slabs: no table may name their slots. */
START_TEST(a_group_is_served_when_all_ranks_are_back)
{
	const struct kvmd_cqe *cqe;
	struct kvc_space s;
	struct kvc_opts o;
	struct kvmd_sqe *e;
	struct kvc *k, *other;
	struct peer p;

	start(POOL);
	peer_start(&p, &d, rank_one, NULL, 0);
	plain_space(&s, "sp", 1024);
	opts_for(&d, &o);
	o.nr_ranks = o.nr_lanes = 2;
	k = client_opts(&d, &s, &o);
	say(&p, kvc_group_token(k));
	T_EQ(hear(&p), 1);
	open_extend(k, 1, 4, 5);
	restart(SIGKILL);
	T_EQ(reconnect(k), 1);
	e = kvc_get_sqe(k);
	T(e);
	kvc_prep_extend(e, 1, 1, 0, 500, 0);
	T_EQ(kvc_submit(k), 1);
	/* The daemon has gone round often enough to have done it, with us mapping new slabs. */
	other = plain_client(&d, "other", 32);
	for (uint32_t i = 0; i < 32; i++) {
		open_publish(other, i, 1, i);
		T_EQ(kvc_poll(k), 0);
	}
	T_EQ(kvc_peek_cqe(k, &cqe), -EAGAIN);
	say(&p, 0);
	T_EQ(hear(&p), 2);
	T_EQ(take(k).res, 500);
	hd_check(&d);
	say(&p, 0);
	peer_end(&p);
	kvc_destroy(other);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* ------------------------------------------------------------------ the barrier */

/* A block that nobody leases may still be read by a step that was under way. */
START_TEST(nothing_leaves_while_a_step_is_under_way)
{
	struct kvc *k;

	start(POOL);
	k = plain_client(&d, "sp", 16);
	open_publish(k, 1, 10, 8);
	kvc_step_submit(k, 1);
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	restart(SIGKILL);
	T_EQ(reconnect(k), 1);
	T_EQ(kvc_seq_open(k, 2, 1, NULL, 0, 0, 0, 0, NULL), 0);
	T_EQ(kvc_seq_extend(k, 2, 1, 0, 6, KVMD_EXTEND_NOWAIT, 0, NULL), 6);
	T_EQ(kvc_seq_extend(k, 2, 1, 0, 1, KVMD_EXTEND_NOWAIT, 0, NULL), -EAGAIN);
	expect_lookup(k, 8, 10, 10);
	kvc_step_complete(k, 0, 1);
	T_EQ(kvc_seq_extend(k, 2, 1, 0, 10, 0, WAIT_NS, NULL), 10);
	expect_lookup(k, 8, 10, 0);
	hd_check(&d);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* A close that waited for its step is finished by the daemon that came after. */
START_TEST(a_close_that_waits_for_its_step)
{
	struct kvmd_sqe *e;
	struct kvmd_cqe c;
	struct kvc *k;

	start(POOL);
	k = plain_client(&d, "sp", 16);
	open_extend(k, 1, 16, 0);
	kvc_step_submit(k, 3);
	e = kvc_get_sqe(k);
	T(e);
	kvc_prep_close(e, 1, 1, 3, 0);
	e->user_data = 77;
	T(kvc_submit(k) >= 0);
	T_EQ(kvc_nop(k), 0);
	restart(SIGKILL);
	T_EQ(reconnect(k), 1);
	c = take_for(k, 77);
	T_EQ(c.res, -ECONNRESET);
	kvc_step_complete(k, 0, 3);
	/* Its close may have been begun or not: asked for again, it ends. */
	c.res = kvc_seq_close(k, 1, 1, 3, 0);
	T(c.res == 0 || c.res == -ENOENT);
	whole_pool(k, 16);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("restart");
	TCase *t = tcase_create("restart");
	SRunner *r;
	int failed;

	suite_add_tcase(s, t);
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, blocks_and_sequences_survive, 0, 2);
	tcase_add_test(t, it_survives_again_and_again);
	tcase_add_test(t, a_client_that_missed_two_restarts);
	tcase_add_test(t, a_new_client_finds_what_was_kept);
	tcase_add_test(t, ram_survives);
	tcase_add_test(t, what_was_swapped_out_comes_back);
	tcase_add_test(t, a_swap_in_behind_a_hole);
	tcase_add_test(t, moves_that_were_under_way);
	tcase_add_test(t, no_block_leaves_before_steps_of_before_are_over);
	tcase_add_test(t, a_client_that_died_meanwhile);
	tcase_add_test(t, a_client_that_lives_but_stays_away);
	tcase_add_test(t, who_comes_too_late_gets_a_new_session);
	tcase_add_test(t, only_the_same_process_may_resume);
	tcase_add_test(t, ranks_come_back_in_any_order);
	tcase_add_test(t, a_group_is_served_when_all_ranks_are_back);
	tcase_add_test(t, nothing_leaves_while_a_step_is_under_way);
	tcase_add_test(t, a_close_that_waits_for_its_step);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
