/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_ops.c - every operation of one client against a real daemon, end to end.
 *
 * A NOP submitted behind an entry is the fence of these tests: entries are taken
 * in order, so when the NOP is answered and the entry is not, the entry waits.
 */
#include "tests/harness.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define POOL	"[pool]\npolicy = lru\nslab_bytes = 1M\nblocks = 4096\nwmark_low = 0\n" \
		"wmark_high = 0\n"
#define PATIENT	"deadlock_time = 1h\n"

static struct hd d;

/* An entry that has to wait; a NOP behind it shows that it does. */
static struct kvmd_sqe *entry(struct kvc *k)
{
	struct kvmd_sqe *e = kvc_get_sqe(k);

	T(e);
	return e;
}

static void nop(struct kvc *k, uint64_t user_data)
{
	struct kvmd_sqe *e = entry(k);

	kvc_prep_nop(e);
	e->user_data = user_data;
	T(kvc_submit(k) > 0);
}

/* ---------------------------------------------------------------- fork, unshare */

START_TEST(fork_shares_sealed_blocks_and_copies_private_ones)
{
	struct kvc *k;

	hd_start(&d, POOL);
	k = plain_client(&d, "sp", 64);
	open_publish(k, 1, 8, 3);
	T_EQ(kvc_seq_extend(k, 1, 1, 0, 2, 0, 0, NULL), 2);
	fill(k, 0, (uint32_t)slot_at(k, 0, 1, 8), 88);
	fill(k, 0, (uint32_t)slot_at(k, 0, 1, 9), 99);
	T_EQ(kvc_seq_fork(k, 1, 1, 2, 5, 0), 10);
	for (uint32_t i = 0; i < 8; i++)
		T_EQ(slot_at(k, 0, 1, i), slot_at(k, 0, 2, i));
	for (uint32_t i = 8; i < 10; i++)
		T(slot_at(k, 0, 1, i) != slot_at(k, 0, 2, i));
	T(holds(k, 0, (uint32_t)slot_at(k, 0, 2, 8), 88));
	T(holds(k, 0, (uint32_t)slot_at(k, 0, 2, 9), 99));
	fill(k, 0, (uint32_t)slot_at(k, 0, 2, 9), 7);
	T(holds(k, 0, (uint32_t)slot_at(k, 0, 1, 9), 99));
	T_EQ(hd_stat(&d, "blocks_copied"), 2);
	T_EQ(kvc_seq_fork(k, 1, 1, 2, 6, 0), -EBUSY);
	T_EQ(kvc_seq_fork(k, 1, 2, 3, 6, 0), -ESTALE);
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	T(holds(k, 0, (uint32_t)slot_at(k, 0, 2, 8), 88));
	T_EQ(kvc_seq_close(k, 2, 5, 0, 0), 0);
	whole_pool(k, 64);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

START_TEST(fork_waits_for_its_step)
{
	struct kvmd_sqe *e;
	struct kvmd_cqe c;
	struct kvc *k;

	hd_start(&d, POOL);
	k = plain_client(&d, "sp", 16);
	open_extend(k, 1, 2, 50);
	kvc_step_submit(k, 4);
	e = entry(k);
	kvc_prep_fork(e, 1, 1, 2, 1, 4, 0);
	e->user_data = 10;
	nop(k, 11);
	take_for(k, 11);
	fill(k, 0, (uint32_t)slot_at(k, 0, 1, 1), 1234);	/* step 4 writes it */
	kvc_step_complete(k, 0, 4);
	c = take_for(k, 10);
	T_EQ(c.res, 2);
	T_EQ(c.v0, 2);
	T(holds(k, 0, (uint32_t)slot_at(k, 0, 2, 1), 1234));
	/* A step that was not submitted is no step. */
	T_EQ(kvc_seq_fork(k, 1, 1, 3, 1, 5), -EINVAL);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

START_TEST(unshare_copies_one_block)
{
	struct kvc *k;
	int32_t was;

	hd_start(&d, POOL);
	k = plain_client(&d, "sp", 16);
	open_publish(k, 1, 4, 9);
	T_EQ(kvc_seq_fork(k, 1, 1, 2, 1, 0), 4);
	was = slot_at(k, 0, 2, 2);
	T_EQ(kvc_seq_unshare(k, 2, 1, 0, 2, 0), 1);
	T(slot_at(k, 0, 2, 2) != was);
	T_EQ(slot_at(k, 0, 1, 2), was);
	T(holds(k, 0, (uint32_t)slot_at(k, 0, 2, 2), (9 << 8) + 2));
	fill(k, 0, (uint32_t)slot_at(k, 0, 2, 2), 1);
	T(holds(k, 0, (uint32_t)was, (9 << 8) + 2));
	T_EQ(hd_stat(&d, "blocks_copied"), 1);
	T_EQ(hd_stat(&d, "bytes_copied"), test_bytes(4096));
	T_EQ(kvc_seq_unshare(k, 2, 1, 0, 2, 0), 0);
	T_EQ(kvc_seq_unshare(k, 2, 1, 0, 4, 0), -EINVAL);
	T_EQ(kvc_seq_trim(k, 2, 1, 0, 0, 0, 1, 0), 1);
	T_EQ(kvc_seq_unshare(k, 2, 1, 0, 0, 0), -EINVAL);
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	T_EQ(kvc_seq_close(k, 2, 1, 0, 0), 0);
	whole_pool(k, 16);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

START_TEST(failed_copies_leave_everything_as_it_was)
{
	struct kvc *k;

	hd_start(&d, POOL);
	k = plain_client(&d, "sp", 16);
	open_publish(k, 1, 2, 9);
	T_EQ(kvc_seq_extend(k, 1, 1, 0, 2, 0, 0, NULL), 2);
	T(strstr(hd_ask(&d, "fault arm spec=copy:every=1"), "armed"));
	T_EQ(kvc_seq_unshare(k, 1, 1, 0, 0, 0), -EIO);
	T_EQ(kvc_seq_fork(k, 1, 1, 2, 1, 0), -EIO);
	T(holds(k, 0, (uint32_t)slot_at(k, 0, 1, 0), 9 << 8));
	hd_ask(&d, "fault disarm");
	T_EQ(hd_stat(&d, "copies_failed"), 2);
	T_EQ(kvc_seq_fork(k, 1, 1, 2, 1, 0), 4);
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	T_EQ(kvc_seq_close(k, 2, 1, 0, 0), 0);
	whole_pool(k, 16);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* ---------------------------------------------------------------------- cancel */

START_TEST(cancel_ends_waiting_and_queued_entries)
{
	struct kvmd_sqe *e;
	struct kvc *k;

	hd_start(&d, POOL PATIENT);
	k = plain_client(&d, "sp", 16);
	open_extend(k, 1, 16, 0);
	T_EQ(kvc_seq_open(k, 2, 1, NULL, 0, 0, 0, 0, NULL), 0);
	e = entry(k);
	kvc_prep_extend(e, 2, 1, 0, 4, 0);
	e->user_data = 100;
	e = entry(k);
	kvc_prep_trim(e, 2, 1, 0, KVMD_TRIM_TAIL, 0, 0, 0);
	e->user_data = 101;
	nop(k, 102);
	take_for(k, 102);
	T_EQ(kvc_cancel(k, 101), 0);
	T_EQ(take_for(k, 101).res, -ECANCELED);
	T_EQ(kvc_cancel(k, 100), 0);
	T_EQ(take_for(k, 100).res, -ECANCELED);
	T_EQ(kvc_cancel(k, 100), -ENOENT);
	kvc_step_submit(k, 1);
	e = entry(k);
	kvc_prep_close(e, 1, 1, 1, 0);
	e->user_data = 103;
	nop(k, 104);
	take_for(k, 104);
	T_EQ(kvc_cancel(k, 103), -EALREADY);
	kvc_step_complete(k, 0, 1);
	T_EQ(take_for(k, 103).res, 0);
	T_EQ(hd_stat(&d, "cancels"), 2);
	whole_pool(k, 16);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

START_TEST(entries_of_one_sequence_keep_their_order)
{
	struct kvmd_sqe *e;
	struct kvc *k;

	hd_start(&d, POOL PATIENT);
	k = plain_client(&d, "sp", 16);
	open_extend(k, 1, 12, 0);
	T_EQ(kvc_seq_open(k, 2, 1, NULL, 0, 0, 0, 0, NULL), 0);
	e = entry(k);
	kvc_prep_extend(e, 2, 1, 0, 8, 0);
	e->user_data = 1;
	e = entry(k);
	kvc_prep_extend(e, 2, 1, 0, 1, 0);
	e->user_data = 2;
	e = entry(k);
	kvc_prep_close(e, 2, 1, 0, 0);
	e->user_data = 3;
	e = entry(k);
	kvc_prep_open(e, 2, 2, 0, 0, 0, 0);
	e->user_data = 4;
	nop(k, 5);
	take_for(k, 5);
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	T_EQ(take_for(k, 1).res, 8);
	T_EQ(take_for(k, 2).res, 1);
	T_EQ(take_for(k, 3).res, 0);
	T_EQ(take_for(k, 4).res, 0);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* --------------------------------------------------------------- trim, replace */

START_TEST(trim_in_its_three_forms)
{
	unsigned char keys[2][KEY];
	struct kvmd_cqe c;
	int32_t slot[10];
	struct kvc *k;

	hd_start(&d, POOL);
	k = plain_client(&d, "sp", 32);
	open_publish(k, 1, 8, 4);
	T_EQ(kvc_seq_extend(k, 1, 1, 0, 2, 0, 0, NULL), 2);
	for (uint32_t i = 0; i < 10; i++)
		slot[i] = slot_at(k, 0, 1, i);
	T_EQ(kvc_seq_trim(k, 1, 1, 0, 0, 2, 3, 0), 3);
	for (uint32_t i = 0; i < 10; i++)
		T_EQ(slot_at(k, 0, 1, i), i >= 2 && i < 5 ? 0 : slot[i]);
	T_EQ(kvc_seq_trim(k, 1, 1, 0, KVMD_TRIM_KEEP, 1, 3, 0), 3);
	for (uint32_t i = 0; i < 10; i++)
		T_EQ(slot_at(k, 0, 1, i), i >= 1 && i < 7 ? 0 : slot[i]);
	/* Behind a hole nothing is published. */
	make_keys(keys, 44, 8, 2);
	T_EQ(kvc_seq_publish(k, 1, 1, 0, 8, keys, 2, 0, &c), 0);
	T_EQ(c.v1, 2);
	T_EQ(kvc_lookup(k, 0, keys, 1, NULL), 0);
	T_EQ(kvc_seq_trim(k, 1, 1, 0, KVMD_TRIM_TAIL, 9, 0, 0), 1);
	T_EQ(slot_at(k, 0, 1, 9), 0);
	T_EQ(kvc_seq_extend(k, 1, 1, 0, 1, 0, 0, &c), 1);
	T_EQ(c.v0, 9);
	T_EQ(kvc_seq_trim(k, 1, 1, 0, 0, 9, 2, 0), -EINVAL);
	T_EQ(kvc_seq_trim(k, 1, 1, 0, KVMD_TRIM_TAIL | KVMD_TRIM_KEEP, 0, 0, 0), -EINVAL);
	/* Without the holes it can be published again. */
	T_EQ(kvc_seq_trim(k, 1, 1, 0, KVMD_TRIM_TAIL, 1, 0, 0), 3);
	T_EQ(kvc_seq_extend(k, 1, 1, 0, 1, 0, 0, &c), 1);
	T_EQ(c.v0, 1);
	T_EQ(kvc_seq_publish(k, 1, 1, 0, 1, keys, 1, 0, &c), 1);
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	whole_pool(k, 32);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

START_TEST(replace_compacts_or_leaves_holes)
{
	int32_t slot[2][11];
	struct kvc *k;

	hd_start(&d, POOL);
	k = plain_client(&d, "sp", 32);
	for (uint32_t s = 0; s < 2; s++) {
		open_publish(k, s, 8, s);
		T_EQ(kvc_seq_extend(k, s, 1, 0, 3, 0, 0, NULL), 3);
		for (uint32_t i = 0; i < 11; i++)
			slot[s][i] = slot_at(k, 0, s, i);
	}
	T_EQ(kvc_seq_replace(k, 0, 1, 0, 0, 2, 4, 3, 0), 7);
	for (uint32_t i = 0; i < 11; i++)
		T_EQ(slot_at(k, 0, 0, i), i < 2 ? slot[0][i] : i < 5 ? slot[0][8 + i - 2] :
		     i < 7 ? slot[0][i + 1] : 0);
	T_EQ(kvc_seq_replace(k, 1, 1, 0, KVMD_REPLACE_HOLES, 2, 4, 3, 0), 8);
	for (uint32_t i = 0; i < 11; i++)
		T_EQ(slot_at(k, 0, 1, i), i < 2 ? slot[1][i] : i < 5 ? slot[1][8 + i - 2] :
		     i == 5 || i > 7 ? 0 : slot[1][i]);
	/* The replacing blocks must be private and behind the range. */
	T_EQ(kvc_seq_replace(k, 1, 1, 0, 0, 0, 1, 1, 0), -EINVAL);
	T_EQ(kvc_seq_replace(k, 1, 1, 0, 0, 7, 2, 0, 0), -EINVAL);
	T_EQ(kvc_seq_replace(k, 1, 1, 0, 0, 0, 1, 2, 0), -EINVAL);
	T_EQ(kvc_seq_close(k, 0, 1, 0, 0), 0);
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	whole_pool(k, 32);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* ---------------------------------------------------------------------- advise */

START_TEST(pins_keep_blocks_within_their_budget)
{
	unsigned char keys[5][KEY];
	struct kvc *k;

	hd_start(&d, POOL PATIENT "[tenant default]\npin_bytes = 12K\n");
	k = plain_client(&d, "sp", 16);
	make_keys(keys, 1, 0, 5);
	open_publish(k, 1, 5, 1);
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	/* From the last to the first: three of five. */
	T_EQ(kvc_advise_keys(k, KVMD_ADV_PIN, 0, keys, 5, 0), 3);
	T_EQ(kvc_advise_keys(k, KVMD_ADV_PIN, 0, keys, 1, 0), -EDQUOT);
	T_EQ(hd_stat(&d, "pins_refused"), 2);
	/* A pinned block keeps its chain: 11 can be had, not one more. */
	T_EQ(kvc_seq_open(k, 2, 1, NULL, 0, 0, 0, 0, NULL), 0);
	T_EQ(kvc_seq_extend(k, 2, 1, 0, 11, KVMD_EXTEND_NOWAIT, 0, NULL), 11);
	T_EQ(kvc_seq_extend(k, 2, 1, 0, 1, KVMD_EXTEND_NOWAIT, 0, NULL), -EAGAIN);
	T_EQ(kvc_lookup(k, 0, keys, 5, NULL), 5);
	T_EQ(kvc_advise_keys(k, KVMD_ADV_UNPIN, 0, keys, 5, 0), 3);
	T_EQ(kvc_seq_extend(k, 2, 1, 0, 5, KVMD_EXTEND_NOWAIT, 0, NULL), 5);
	T_EQ(kvc_seq_close(k, 2, 1, 0, 0), 0);
	open_publish(k, 1, 2, 1);
	T_EQ(kvc_advise_keys(k, KVMD_ADV_PIN, 0, keys, 2, 0), 2);
	kvc_destroy(k);		/* its pins end with it */
	k = plain_client(&d, "sp", 16);
	whole_pool(k, 16);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* Which of the chains (one block each) are there? Bit per chain. */
static unsigned present(struct kvc *k, uint32_t nr)
{
	unsigned char key[1][KEY];
	unsigned bits = 0;

	for (uint32_t i = 0; i < nr; i++) {
		make_keys(key, i, 0, 1);
		bits |= (unsigned)(kvc_lookup(k, 0, key, 1, NULL) == 1) << i;
	}
	return bits;
}

static void advise(struct kvc *k, uint32_t chain, uint32_t advice, uint64_t aux)
{
	unsigned char key[1][KEY];

	make_keys(key, chain, 0, 1);
	T_EQ(kvc_advise_keys(k, advice, 0, key, 1, aux), 1);
}

/* Take all but @left blocks of the pool of 8, and give them back. */
static void squeeze(struct kvc *k, uint32_t left)
{
	T_EQ(kvc_seq_open(k, 60, 1, NULL, 0, 0, 0, 0, NULL), 0);
	T_EQ(kvc_seq_extend(k, 60, 1, 0, 8 - left, 0, WAIT_NS, NULL), 8 - left);
	T_EQ(kvc_seq_close(k, 60, 1, 0, 0), 0);
}

START_TEST(priority_decays_on_the_driven_clock)
{
	const uint64_t s = 1000000000;
	struct kvc *k;

	hd_start(&d, "clock = driven\n" POOL);
	k = plain_client(&d, "sp", 8);
	for (uint32_t i = 0; i < 4; i++) {
		T_EQ(kvc_clock(k, (100 + i) * s), 0);
		open_publish(k, i, 1, i);
		T_EQ(kvc_seq_close(k, i, 1, 0, 0), 0);
	}
	T_EQ(present(k, 4), 15);
	advise(k, 0, KVMD_ADV_PRIORITY, KVMD_PRIO(100, 10000));
	advise(k, 3, KVMD_ADV_COLD, 0);
	squeeze(k, 3);			/* the cold one goes first */
	T_EQ(present(k, 4), 7);
	squeeze(k, 2);			/* then the oldest, but not the important one */
	T_EQ(present(k, 4), 5);
	T_EQ(kvc_clock(k, 120 * s), 0);
	squeeze(k, 1);			/* which is one like any other by now */
	T_EQ(present(k, 4), 4);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

START_TEST(ttl_drop_and_no_store)
{
	const uint64_t s = 1000000000;
	unsigned char key[1][KEY];
	struct kvmd_cqe c;
	struct kvc *k;

	hd_start(&d, "clock = driven\n" POOL);
	k = plain_client(&d, "sp", 8);
	T_EQ(kvc_clock(k, 100 * s), 0);
	for (uint32_t i = 0; i < 3; i++) {
		open_publish(k, i, 1, i);
		T_EQ(kvc_seq_close(k, i, 1, 0, 0), 0);
	}
	advise(k, 0, KVMD_ADV_TTL, 5000);
	advise(k, 1, KVMD_ADV_DROP, 0);
	advise(k, 2, KVMD_ADV_NO_STORE, 0);
	advise(k, 2, KVMD_ADV_WILLNEED, 0);
	T_EQ(present(k, 3), 5);
	make_keys(key, 1, 0, 1);
	T_EQ(kvc_lookup(k, 0, key, 1, &c), 0);
	T_EQ(c.v2, KVMD_MISS_DROPPED);
	T_EQ(kvc_clock(k, 106 * s), 0);
	make_keys(key, 0, 0, 1);
	T_EQ(kvc_seq_open(k, 5, 1, key, 1, BT, 0, 0, NULL), 0);
	T_EQ(present(k, 3), 4);		/* an expired block is no hit for anybody */
	T_EQ(kvc_seq_close(k, 5, 1, 0, 0), 0);
	/* A sequence that asks for it is not cached at all. */
	make_keys(key, 9, 0, 1);
	T_EQ(kvc_seq_open(k, 5, 1, key, 1, BT, 0, KVMD_OPEN_NO_STORE, NULL), 0);
	T_EQ(kvc_seq_extend(k, 5, 1, 0, 1, 0, 0, NULL), 1);
	T_EQ(kvc_seq_publish(k, 5, 1, 0, 0, key, 1, 0, &c), 0);
	T_EQ(c.v1, 1);
	T_EQ(kvc_lookup(k, 0, key, 1, NULL), 0);
	/* And one may refuse to hit. */
	make_keys(key, 2, 0, 1);
	T_EQ(kvc_seq_open(k, 6, 1, key, 1, BT, 0, KVMD_OPEN_NO_HIT, &c), 0);
	T_EQ(c.v2, KVMD_MISS_UNASKED);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

START_TEST(the_clock_is_only_driven_where_configured)
{
	struct kvc *k;

	hd_start(&d, POOL);
	k = plain_client(&d, "sp", 8);
	T_EQ(kvc_clock(k, 1), -EPERM);
	T_EQ(kvc_nop(k), 0);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* ------------------------------------------------------------------- long lists */

#define MANY	65536u

static struct kvc *long_client(void)
{
	struct kvc_space s;
	struct kvc_opts o;

	plain_space(&s, "long", MANY + 64);
	s.group[0].plane_bytes = test_bytes(64);
	opts_for(&d, &o);
	o.max_tokens = (MANY + 64) * BT;
	o.args_bytes = 8 << 20;
	return client_opts(&d, &s, &o);
}

static const char long_conf[] =
	"[pool]\npolicy = lru\nslab_bytes = 4M\nblocks = 70000\nwmark_low = 0\nwmark_high = 0\n";

START_TEST(a_list_of_65536_keys_takes_several_turns)
{
	unsigned char (*keys)[KEY] = malloc((size_t)MANY * KEY);
	struct kvmd_cqe c;
	struct kvc *k;

	T(keys);
	hd_start(&d, long_conf);
	k = long_client();
	make_keys(keys, 1, 0, MANY);
	T_EQ(kvc_seq_open(k, 1, 1, keys, MANY, MANY * BT, 0, 0, &c), 0);
	T_EQ(c.v2, KVMD_MISS_NEVER);
	T_EQ(kvc_seq_extend(k, 1, 1, 0, MANY, 0, WAIT_NS, NULL), MANY);
	for (uint32_t i = 0; i < MANY; i += 1021)
		fill(k, 0, (uint32_t)slot_at(k, 0, 1, i), i);
	T_EQ(kvc_seq_publish(k, 1, 1, 0, 0, keys, MANY, 0, &c), MANY);
	T_EQ(c.v1, 0);
	T_EQ(kvc_seq_open(k, 2, 1, keys, MANY, MANY * BT, 0, 0, &c), MANY);
	T_EQ(c.v1, MANY * BT);
	for (uint32_t i = 0; i < MANY; i += 1021)
		T(holds(k, 0, (uint32_t)slot_at(k, 0, 2, i), i));
	T_EQ(kvc_lookup(k, 0, keys, MANY, NULL), MANY);
	T_EQ(kvc_seq_fork(k, 2, 1, 3, 1, 0), MANY);
	T_EQ(kvc_seq_trim(k, 3, 1, 0, KVMD_TRIM_KEEP, 4, 100, 0), MANY - 104);
	for (uint32_t s = 1; s <= 3; s++)
		T_EQ(kvc_seq_close(k, s, 1, 0, 0), 0);
	whole_pool(k, MANY);
	kvc_destroy(k);
	hd_stop(&d);
	free(keys);
}
END_TEST

/* A publish that was behind a long one in the same step stayed private. */
START_TEST(publish_behind_a_long_publish_is_sealed)
{
	enum { LONG = 3000 };
	static unsigned char keys[LONG + 1][KEY];
	struct kvmd_sqe *e;
	struct kvmd_cqe c;
	uint64_t off, off2;
	struct kvc *k;

	hd_start(&d, long_conf);
	k = long_client();
	make_keys(keys, 1, 0, LONG + 1);
	T_EQ(kvc_seq_open(k, 1, 1, NULL, 0, 0, 0, 0, NULL), 0);
	T_EQ(kvc_seq_extend(k, 1, 1, 0, LONG + 1, 0, WAIT_NS, NULL), LONG + 1);
	kvc_step_submit(k, 1);
	memcpy(kvc_args_alloc(k, (size_t)LONG * KEY, &off), keys, (size_t)LONG * KEY);
	memcpy(kvc_args_alloc(k, KEY, &off2), keys[LONG], KEY);
	e = entry(k);
	kvc_prep_publish(e, 1, 1, 0, 0, off, LONG, 1);
	e->user_data = 1;
	e = entry(k);
	kvc_prep_publish(e, 1, 1, 0, LONG, off2, 1, 1);
	e->user_data = 2;
	nop(k, 3);
	take_for(k, 3);
	T_EQ(kvc_nop(k), 0);	/* both are accepted by now: it takes a turn per 1024 keys */
	T_EQ(kvc_nop(k), 0);
	T_EQ(kvc_nop(k), 0);
	kvc_step_complete(k, 0, 1);
	c = take_for(k, 1);
	T_EQ(c.res, LONG);
	c = take_for(k, 2);
	T_EQ(c.res, 1);
	T_EQ(c.v1, 0);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ops");
	TCase *t = tcase_create("ops");
	SRunner *r;
	int failed;

	suite_add_tcase(s, t);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, fork_shares_sealed_blocks_and_copies_private_ones);
	tcase_add_test(t, fork_waits_for_its_step);
	tcase_add_test(t, unshare_copies_one_block);
	tcase_add_test(t, failed_copies_leave_everything_as_it_was);
	tcase_add_test(t, cancel_ends_waiting_and_queued_entries);
	tcase_add_test(t, entries_of_one_sequence_keep_their_order);
	tcase_add_test(t, trim_in_its_three_forms);
	tcase_add_test(t, replace_compacts_or_leaves_holes);
	tcase_add_test(t, pins_keep_blocks_within_their_budget);
	tcase_add_test(t, priority_decays_on_the_driven_clock);
	tcase_add_test(t, ttl_drop_and_no_store);
	tcase_add_test(t, the_clock_is_only_driven_where_configured);
	tcase_add_test(t, a_list_of_65536_keys_takes_several_turns);
	tcase_add_test(t, publish_behind_a_long_publish_is_sealed);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
