/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_spaces.c - geometries: several groups with their rules, planes, shards;
 * epochs; spaces that take memory from one another.
 */
#include "tests/harness.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POOL	"[pool]\npolicy = lru\nblocks = 4096\nwmark_low = 0\nwmark_high = 0\n" \
		"deadlock_time = 1h\nslab_deadline = 5ms\n"
#define SLAB	"slab_bytes = 1M\n"

static struct hd d;

/* ------------------------------------------------------------------------ shards */

static const struct {
	uint32_t shards, planes;
} layouts[] = {
	{ 1, 1 }, { 1, 7 }, { 2, 1 }, { 2, 4 }, { 8, 1 },
	{ 8, 20 },			/* more handles than one message carries */
};

START_TEST(every_plane_of_every_shard_has_the_same_slot)
{
	unsigned char keys[6][KEY];
	struct kvc_space s;
	struct kvc *a, *b;

	hd_start(&d, POOL SLAB);
	plain_space(&s, "sp", 32);
	s.nr_shards = layouts[_i].shards;
	s.group[0].planes = layouts[_i].planes;
	a = client(&d, &s);
	b = client(&d, &s);
	T_EQ(kvc_view(b)->nr_shards, layouts[_i].shards);
	open_publish(a, 1, 6, 3);
	make_keys(keys, 3, 0, 6);
	T_EQ(kvc_seq_open(b, 1, 1, keys, 6, 6 * BT, 0, 0, NULL), 6);
	for (uint32_t i = 0; i < 6; i++)
		T(holds(b, 0, (uint32_t)slot_at(b, 0, 1, i), (3 << 8) + i));
	/* Copies go plane by plane, on every shard. */
	T_EQ(kvc_seq_unshare(b, 1, 1, 0, 3, 0), 1);
	T(holds(b, 0, (uint32_t)slot_at(b, 0, 1, 3), (3 << 8) + 3));
	T_EQ(hd_stat(&d, "bytes_copied"), test_bytes(4096) * layouts[_i].planes * layouts[_i].shards);
	/* The null slot is zero and stays so. */
	T(is_blank(b, 0, KVMD_SLOT_NULL));
	T_EQ(kvc_seq_close(a, 1, 1, 0, 0), 0);
	T_EQ(kvc_seq_close(b, 1, 1, 0, 0), 0);
	whole_pool(a, 32);
	kvc_destroy(a);
	kvc_destroy(b);
	hd_stop(&d);
}
END_TEST

/* ------------------------------------------------------------------------ groups */

#define FULL	0
#define WINDOW	1
#define STATE	2
#define BLOCKS	8u	/* of 16 tokens */

static void hybrid_space(struct kvc_space *s)
{
	plain_space(s, "hybrid", 64);
	s->nr_groups = 3;
	s->group[WINDOW] = (struct kvmd_group) {
		.plane_bytes = test_bytes(8192), .planes = 2, .block_tokens = 16, .max_slots = 65,
		.rule = KVMD_RULE_WINDOW, .window = 32, .sinks = 16,
	};
	s->group[STATE] = (struct kvmd_group) {
		.plane_bytes = test_bytes(65536), .planes = 1, .block_tokens = 64, .max_slots = 33,
		.rule = KVMD_RULE_STATE,
	};
}

static unsigned char gkeys[3][BLOCKS][KEY];
static const uint32_t nr_gkeys[3] = { BLOCKS, BLOCKS, 2 };

static int open_all(struct kvc *k, uint32_t seq, struct kvmd_cqe *c)
{
	const void *lists[3] = { gkeys[0], gkeys[1], gkeys[2] };

	return kvc_seq_open_lists(k, seq, 1, lists, nr_gkeys, BLOCKS * 16, 0, 0, c);
}

/* Sequence 1 computes 128 tokens and publishes all of every group. */
static void compute(struct kvc *k)
{
	struct kvmd_cqe c;

	for (uint32_t g = 0; g < 3; g++)
		make_keys(gkeys[g], 100 + g, 0, nr_gkeys[g]);
	T_EQ(open_all(k, 1, &c), 0);
	T_EQ(kvc_seq_extend(k, 1, 1, KVMD_GROUP_ALL, BLOCKS * 16, KVMD_EXTEND_TOKENS, WAIT_NS, &c),
	     2 * BLOCKS);
	T_EQ(kvc_seq_extend(k, 1, 1, STATE, 2, 0, WAIT_NS, NULL), 2);
	for (uint32_t g = 0; g < 3; g++) {
		for (uint32_t i = 0; i < nr_gkeys[g]; i++)
			fill(k, g, (uint32_t)slot_at(k, g, 1, i), g << 20 | i);
		T_EQ(kvc_seq_publish(k, 1, 1, (uint8_t)g, 0, gkeys[g], nr_gkeys[g], 0, NULL),
		     nr_gkeys[g]);
	}
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
}

static void drop(struct kvc *k, uint8_t g, uint32_t pos)
{
	T_EQ(kvc_advise_keys(k, KVMD_ADV_DROP, g, gkeys[g][pos], 1, 0), 1);
}

/* Open in sequence 2, expect @blocks of group 0 and @tokens, close. */
static void expect(struct kvc *k, int blocks, uint32_t tokens)
{
	struct kvmd_cqe c;

	T_EQ(open_all(k, 2, &c), blocks);
	T_EQ(c.v1, tokens);
	for (int i = 0; i < blocks; i++)
		T(holds(k, FULL, (uint32_t)slot_at(k, FULL, 2, (uint32_t)i), (uint64_t)i));
	for (uint32_t i = 0; i < BLOCKS; i++) {
		int32_t slot = slot_at(k, WINDOW, 2, i);
		bool inside = i < tokens / 16 && (i == 0 || i + 2 >= tokens / 16);

		T_EQ(slot != 0, inside);
		if (slot)
			T(holds(k, WINDOW, (uint32_t)slot, 1u << 20 | i));
	}
	for (uint32_t i = 0; i < 2; i++)
		T_EQ(slot_at(k, STATE, 2, i) != 0, tokens && i == tokens / 64 - 1);
	T_EQ(kvc_seq_close(k, 2, 1, 0, 0), 0);
}

START_TEST(a_hit_is_as_long_as_every_group_can_serve)
{
	struct kvc_space s;
	struct kvc *a, *b;

	hd_start(&d, POOL SLAB);
	hybrid_space(&s);
	a = client(&d, &s);
	b = client(&d, &s);
	compute(a);
	expect(b, 8, 128);
	drop(a, WINDOW, 4);		/* between sinks and window: not needed */
	expect(b, 8, 128);
	drop(a, WINDOW, 7);		/* no state at 112: the one at 64 needs 2, 3 and the sink */
	expect(b, 4, 64);
	drop(a, STATE, 0);
	expect(b, 0, 0);
	kvc_destroy(a);
	kvc_destroy(b);
	hd_stop(&d);
}
END_TEST

START_TEST(extend_by_tokens_grows_every_group_that_grows)
{
	struct kvc_space s;
	struct kvmd_cqe c;
	struct kvc *k;

	hd_start(&d, POOL SLAB "alloc_timeout = 20ms\n");
	hybrid_space(&s);
	k = client(&d, &s);
	T_EQ(kvc_seq_open(k, 1, 1, NULL, 0, 0, 0, 0, NULL), 0);
	T_EQ(kvc_seq_extend(k, 1, 1, KVMD_GROUP_ALL, 33, KVMD_EXTEND_TOKENS, WAIT_NS, &c), 6);
	T_EQ(c.v0, 0);
	T_EQ(kvc_seq_extend(k, 1, 1, KVMD_GROUP_ALL, 48, KVMD_EXTEND_TOKENS, WAIT_NS, &c), 0);
	T_EQ(kvc_seq_extend(k, 1, 1, KVMD_GROUP_ALL, 49, KVMD_EXTEND_TOKENS, WAIT_NS, &c), 2);
	T_EQ(c.v0, 3);
	T_EQ(slot_at(k, STATE, 1, 0), 0);
	T(slot_at(k, WINDOW, 1, 3) != 0);
	/* All or nothing over all groups: 65 blocks are more than there can be. */
	T_EQ(kvc_seq_extend(k, 1, 1, KVMD_GROUP_ALL, 65 * 16, KVMD_EXTEND_TOKENS, 0, &c), -ENOMEM);
	T_EQ(kvc_seq_extend(k, 1, 1, KVMD_GROUP_ALL, 64 * 16, KVMD_EXTEND_TOKENS, 0, &c), 120);
	T_EQ(kvc_seq_fork(k, 1, 1, 2, 1, 0), -ENOMEM);	/* nothing is left for the copies */
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	whole_pool(k, 64);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* -------------------------------------------------------------------------- epoch */

START_TEST(a_raised_epoch_makes_all_blocks_unreachable_at_once)
{
	unsigned char keys[4][KEY];
	struct kvmd_cqe c;
	struct kvc *a, *b;
	uint64_t epoch;

	hd_start(&d, POOL SLAB);
	a = plain_client(&d, "sp", 16);
	b = plain_client(&d, "sp", 16);
	open_publish(a, 1, 4, 5);
	make_keys(keys, 5, 0, 4);
	T_EQ(kvc_lookup(b, 0, keys, 4, NULL), 4);
	T_EQ(kvc_epoch_raise(b, &epoch), 0);
	T_EQ(epoch, 1);
	T_EQ(kvc_lookup(b, 0, keys, 4, &c), 0);
	T_EQ(c.v2, KVMD_MISS_EPOCH);
	T_EQ(kvc_nop(a), 0);
	T_EQ(kvc_epoch(a), 1);
	/* Who was reading goes on; what it computes now is not shared. */
	T(holds(a, 0, (uint32_t)slot_at(a, 0, 1, 3), (5 << 8) + 3));
	T_EQ(kvc_seq_extend(a, 1, 1, 0, 1, 0, WAIT_NS, NULL), 1);
	make_keys(keys, 5, 4, 1);
	T_EQ(kvc_seq_publish(a, 1, 1, 0, 4, keys, 1, 0, &c), 0);
	T_EQ(c.v1, 1);
	/* The same keys mean other bytes from now on. */
	open_publish(b, 1, 4, 5);
	T(slot_at(a, 0, 1, 0) != slot_at(b, 0, 1, 0));
	T_EQ(kvc_seq_close(a, 1, 1, 0, 0), 0);
	T_EQ(kvc_seq_close(b, 1, 1, 0, 0), 0);
	whole_pool(a, 16);
	kvc_destroy(a);
	kvc_destroy(b);
	hd_stop(&d);
}
END_TEST

/* ------------------------------------------------------------------- slabs move on */

START_TEST(a_slab_moves_to_another_space_scrubbed)
{
	const struct kvmd_cqe *c;
	struct kvmd_sqe *e;
	struct kvc *a, *b;
	int err;

	/* Memory for four slabs of 16 slots; the first space takes all of it. */
	hd_start(&d, POOL "slab_bytes = 64K\n[device host-0]\nbytes = 256K\n");
	a = plain_client(&d, "one", 63);
	open_publish(a, 1, 63, 7);
	T_EQ(kvc_seq_close(a, 1, 1, 0, 0), 0);
	b = plain_client(&d, "two", 63);
	T_EQ(kvc_seq_open(b, 1, 1, NULL, 0, 0, 0, 0, NULL), 0);
	e = kvc_get_sqe(b);
	kvc_prep_extend(e, 1, 1, 0, 10, test_now_ns() + WAIT_NS);
	T_EQ(kvc_submit(b), 1);
	/* The owner is asked to unmap; it answers whenever it looks. */
	do {
		T_EQ(kvc_nop(a), 0);
		err = kvc_peek_cqe(b, &c);
	} while (err == -EAGAIN);
	T_EQ(err, 0);
	T_EQ(c->res, 10);
	kvc_cqe_seen(b);
	T(hd_stat(&d, "slabs_moved") >= 1);
	T(hd_stat(&d, "slabs_scrubbed") >= 1);
	for (uint32_t i = 0; i < 10; i++)
		T(is_blank(b, 0, (uint32_t)slot_at(b, 0, 1, i)));
	kvc_destroy(a);
	kvc_destroy(b);
	hd_stop(&d);
}
END_TEST

START_TEST(a_drained_slab_goes_back_to_the_device)
{
	unsigned char keys[30][KEY];
	const char *list;
	struct kvc *k;
	char line[64];
	unsigned id = 0;

	hd_start(&d, POOL "slab_bytes = 64K\n");
	k = plain_client(&d, "sp", 63);
	open_publish(k, 1, 30, 7);
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	list = hd_ask(&d, "slab list");
	T(strstr(list, "\"slab\":") && sscanf(strstr(list, "\"slab\":"), "\"slab\":%u", &id) == 1);
	snprintf(line, sizeof(line), "drain start slab=%u", id);
	T(!strstr(hd_ask(&d, line), "error"));
	while (!hd_stat(&d, "slabs_destroyed"))
		T_EQ(kvc_nop(k), 0);		/* it unmaps the slab when it is told */
	make_keys(keys, 7, 0, 30);
	T(kvc_lookup(k, 0, keys, 30, NULL) < 30);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/*
 * A load fails inside the window: the hit gets shorter, and before its new end there
 * may be blocks that the longer one did not need.
 */
START_TEST(a_window_hit_that_gets_shorter_is_whole)
{
	unsigned char keys[10][KEY];
	struct kvc_space s;
	struct kvmd_cqe c;
	struct kvc *k;
	uint32_t len;

	/* Loaded are the sink, 7, 8 and 9; 8 fails. */
	hd_start(&d, POOL SLAB "[ram]\nbytes = 16M\nlock = no\nhugetlb = no\n"
		 "test = error:read,nth=3\n");
	hd_said(&d, " ready after ");
	plain_space(&s, "sp", 16);
	s.group[0].rule = KVMD_RULE_WINDOW;
	s.group[0].window = 3 * BT;
	s.group[0].sinks = BT;
	k = client(&d, &s);
	for (uint32_t i = 0; i < 8; i++) {
		open_publish(k, 1, 10, 5 + i);
		T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	}
	make_keys(keys, 5, 0, 10);
	T_EQ(kvc_seq_open(k, 1, 1, keys, 10, 10 * BT, 0, _i ? KVMD_OPEN_LOAD : 0, &c) >= 0, 1);
	len = (uint32_t)c.res;
	if (_i) {
		T(kvc_seq_wait(k, 1, 1, 10, &c) >= 0);
		len = kvc_status_ready(kvc_seq_status(k, 1));
		T(kvc_status_err(kvc_seq_status(k, 1)) != 0);
	} else {
		T_EQ(c.v1, len * BT);
	}
	T(len < 10);
	for (uint32_t i = 0; i < len; i++)
		if (i < 1 || i + 3 >= len)
			T(holds(k, 0, (uint32_t)slot_at(k, 0, 1, i), (5 << 8) + i));
	T_EQ(kvc_seq_trim(k, 1, 1, 0, KVMD_TRIM_TAIL, len, 0, 0) >= 0, 1);
	hd_check(&d);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("spaces");
	TCase *t = tcase_create("spaces");
	SRunner *r;
	int failed;

	suite_add_tcase(s, t);
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, every_plane_of_every_shard_has_the_same_slot, 0,
			    (int)(sizeof(layouts) / sizeof(layouts[0])));
	tcase_add_test(t, a_hit_is_as_long_as_every_group_can_serve);
	tcase_add_test(t, extend_by_tokens_grows_every_group_that_grows);
	tcase_add_loop_test(t, a_window_hit_that_gets_shorter_is_whole, 0, 2);
	tcase_add_test(t, a_raised_epoch_makes_all_blocks_unreachable_at_once);
	tcase_add_test(t, a_slab_moves_to_another_space_scrubbed);
	tcase_add_test(t, a_drained_slab_goes_back_to_the_device);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
