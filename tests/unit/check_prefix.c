/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_prefix.c - what a key list hits: leading blocks, windows, states, and the
 * longest length that all groups can serve, against a search of all lengths.
 */

#include "pool_rig.h"
#include "tests/core_rig.h"
#include "tests/quiet.h"
#include "tests/suite.h"

#define MAX_KEYS	64
#define MAX_TOKENS	512

static struct prig r;
static struct kvmd_space m;
static struct space *sp;
static struct seqtab st;
static bool have[KVMD_MAX_GROUPS][MAX_TOKENS];	/* position is cached */
static uint32_t rng;

static uint32_t rnd(uint32_t below)
{
	rng = rng * 1664525u + 1013904223u;
	return (rng >> 8) % below;
}

static void open_space(void)
{
	prig_init(&r, "null", 2048, 1 << 20, 256 << 20, NULL);
	sp = prig_space(&r, "s", r.t[0], &m, "lru");
	for (uint32_t g = 0; g < sp->nr_groups; g++)
		prig_grow(&r, &sp->gp[g], 1);
	ck_assert_int_eq(seqtab_create(r.ix, sp, 2, MAX_TOKENS * 4, &st), 0);
	memset(have, 0, sizeof(have));
}

static void teardown(void)
{
	seqtab_destroy(&st);
	prig_exit(&r);
}

static void setup(void)
{
	prig_geometry(&m, 4096, 200);
	open_space();
}

static uint32_t key_of(uint32_t g, uint32_t pos)
{
	return 1000 * g + pos;
}

/* Cache position @pos of group @g; in a full group all before it are there. */
static uint32_t cache(uint32_t g, uint32_t pos)
{
	struct block *before = pos && sp->gp[g].geo.rule == KVMD_RULE_FULL ?
			       prig_find(&r, sp, (uint8_t)g, key_of(g, pos - 1)) : NULL;
	uint32_t id = prig_alloc(&r, &sp->gp[g]);

	quiet_assert_ptr_null(prig_seal(&r, id, key_of(g, pos), before ? pool_id(r.p, before) : 0));
	prig_put(&r, id);
	have[g][pos] = true;
	return id;
}

static const uint8_t *keys_of(uint32_t g, uint32_t first, uint32_t nr)
{
	static uint8_t keys[MAX_TOKENS * KVMD_KEY_BYTES];

	for (uint32_t i = 0; i < nr; i++)
		prig_key(key_of(g, first + i), keys + i * KVMD_KEY_BYTES);
	return keys;
}

/* Lease what leads, and tell the policy, as an open does. */
static uint32_t lease(uint32_t g, uint32_t from, uint32_t nr)
{
	uint32_t got = seq_lease_prefix(&st, 0, g, from, keys_of(g, from, nr), nr);

	seq_lease_settle(&st, 0, g, from, got);
	return got;
}

/* ---------------------------------------------------------------- one group */

START_TEST(leading_blocks)
{
	for (uint32_t i = 0; i < 40; i++)
		cache(0, i);
	seq_start(&st, 0, 1);
	ck_assert_uint_eq(lease(0, 0, 50), 40);
	for (uint32_t i = 0; i < 40; i++) {
		const struct block *b = pool_block(r.p, seq_blocks(&st, 0, 0)[i]);

		ck_assert_uint_eq(b->leases, 1);
		ck_assert_uint_eq(b->uses, 1);
		ck_assert_int_eq(seq_row(&st, 0, 0)[i], (int32_t)b->slot);
	}
	ck_assert_uint_eq(seq_blocks(&st, 0, 0)[40], 0);
	ck_assert_uint_eq(sp->gp[0].nr_idle, 0);
	prig_check(&r);
}
END_TEST

START_TEST(in_pieces)
{
	for (uint32_t i = 0; i < 40; i++)
		cache(0, i);
	seq_start(&st, 0, 1);
	ck_assert_uint_eq(lease(0, 0, 7), 7);
	ck_assert_uint_eq(lease(0, 7, 33), 33);
	ck_assert_uint_eq(lease(0, 40, 5), 0);
	ck_assert_uint_eq(lease(0, 40, 0), 0);
	prig_check(&r);
}
END_TEST

/* Each length around the batch the look-up works in. */
START_TEST(every_length)
{
	for (uint32_t i = 0; i < 80; i++)
		cache(0, i);
	for (uint32_t nr = 0; nr <= 90; nr++) {
		uint32_t budget = 1000, got;

		seq_start(&st, 0, 1);
		got = lease(0, 0, nr);
		ck_assert_uint_eq(got, min(nr, 80u));
		st.seq[0].len[0] = got;
		seq_drain(&st, 0, &budget);
	}
	ck_assert_uint_eq(sp->gp[0].nr_idle, 80);
	prig_check(&r);
}
END_TEST

START_TEST(expired_block_ends_the_prefix)
{
	uint32_t ids[5];

	for (uint32_t i = 0; i < 5; i++)
		ids[i] = cache(0, i);
	pool_block(r.p, ids[2])->flags |= BLK_F_TTL;
	pool_block(r.p, ids[2])->until = r.p->now;
	seq_start(&st, 0, 1);
	ck_assert_uint_eq(lease(0, 0, 5), 2);
}
END_TEST

START_TEST(former_epoch_does_not_hit)
{
	for (uint32_t i = 0; i < 5; i++)
		cache(0, i);
	ck_assert_int_eq(space_raise_epoch(r.p, sp, 0), 0);
	seq_start(&st, 0, 1);
	ck_assert_uint_eq(lease(0, 0, 5), 0);
}
END_TEST

START_TEST(uses_saturate)
{
	uint32_t id = cache(0, 0);

	pool_block(r.p, id)->uses = UINT8_MAX - 1;
	for (int i = 0; i < 3; i++) {
		uint32_t budget = 10;

		seq_start(&st, 0, 1);
		st.seq[0].len[0] = lease(0, 0, 1);
		seq_drain(&st, 0, &budget);
	}
	ck_assert_uint_eq(pool_block(r.p, id)->uses, UINT8_MAX);
}
END_TEST

/* ------------------------------------------------------------- several groups */

/* Can group @g serve exactly @tokens, by the rule's own words? */
static bool serves(uint32_t g, uint32_t tokens, uint32_t nr_keys)
{
	const struct kvmd_group *k = &sp->gp[g].geo;
	uint32_t nr = tokens / k->block_tokens;

	if (tokens % k->block_tokens || nr > nr_keys)
		return false;
	for (uint32_t i = 0; i < nr; i++) {
		uint32_t first = i * k->block_tokens, behind = first + k->block_tokens;
		bool needed = true;

		if (k->rule == KVMD_RULE_WINDOW)
			needed = first < k->sinks || nr - i <= div_round_up(k->window,
									    k->block_tokens);
		else if (k->rule == KVMD_RULE_STATE)
			needed = behind == tokens;
		if (needed && !have[g][i])
			return false;
	}
	return true;
}

static uint32_t longest(const uint32_t *nr_keys)
{
	for (uint32_t t = MAX_TOKENS; t; t--) {
		bool all = true;

		for (uint32_t g = 0; g < sp->nr_groups && all; g++)
			all = serves(g, t, nr_keys[g]);
		if (all)
			return t;
	}
	return 0;
}

static void random_space(void)
{
	static const uint32_t bt[] = { 1, 2, 3, 4, 8 };

	prig_geometry(&m, 4096, 400);
	m.nr_groups = 1 + rnd(4);
	for (uint32_t g = 0; g < m.nr_groups; g++) {
		struct kvmd_group *k = &m.group[g];

		*k = m.group[0];
		k->block_tokens = bt[rnd(ARRAY_SIZE(bt))];
		k->rule = rnd(KVMD_NR_RULE);
		k->window = k->rule == KVMD_RULE_WINDOW ? 1 + rnd(20) : 0;
		k->sinks = k->rule == KVMD_RULE_WINDOW ? rnd(6) : 0;
	}
	open_space();
}

/* What is cached: mostly there, with gaps where the rule allows gaps. */
static void random_presence(void)
{
	for (uint32_t g = 0; g < sp->nr_groups; g++) {
		uint32_t nr = rnd(MAX_KEYS + 1), gap = 2 + rnd(12);

		for (uint32_t i = 0; i < nr; i++)
			if (sp->gp[g].geo.rule == KVMD_RULE_FULL || rnd(gap))
				cache(g, i);
	}
}

static void settle_and_compare(void)
{
	uint32_t nr_keys[KVMD_MAX_GROUPS], tokens, want, leased = 0, budget = 10000;

	seq_start(&st, 0, 1);
	for (uint32_t g = 0; g < sp->nr_groups; g++) {
		nr_keys[g] = rnd(MAX_KEYS + 1);
		if (sp->gp[g].geo.rule == KVMD_RULE_FULL) {
			nr_keys[g] = lease(g, 0, nr_keys[g]);
		} else {
			seq_lease_any(&st, 0, g, 0, keys_of(g, 0, nr_keys[g]), nr_keys[g], false);
		}
		st.seq[0].len[g] = nr_keys[g];
	}
	want = longest(nr_keys);
	tokens = seq_settle(&st, 0);
	ck_assert_uint_eq(tokens, want);
	for (uint32_t g = 0; g < sp->nr_groups; g++) {
		const struct kvmd_group *k = &sp->gp[g].geo;
		uint32_t nr = tokens / k->block_tokens;

		ck_assert_uint_eq(st.seq[0].len[g], nr);
		for (uint32_t i = 0; i < st.row_blocks[g]; i++) {
			uint32_t id = seq_blocks(&st, 0, g)[i];

			core_ok(seq_row(&st, 0, g)[i] ==
				(id ? (int32_t)pool_block(r.p, id)->slot : 0));
			leased += id != 0;
			/* What is needed is held, and nothing behind the end. */
			core_ok(i < nr || !id);
			if (i < nr && (k->rule == KVMD_RULE_FULL ||
				       (k->rule == KVMD_RULE_STATE && i == nr - 1)))
				core_ok(id != 0);
		}
	}
	ck_assert_uint_eq(seq_nr_blocks(&st, 0), leased);
	prig_check(&r);
	ck_assert(seq_drain(&st, 0, &budget));
	prig_check(&r);
}

/* Group rules, block sizes and what is cached at random. */
START_TEST(longest_common_length)
{
	rng = 4711u + (uint32_t)_i * 77;
	for (int i = 0; i < 25; i++) {
		random_space();
		random_presence();
		for (int k = 0; k < 4; k++)
			settle_and_compare();
		teardown();
	}
}
END_TEST

static void two_groups(uint32_t rule, uint32_t window, uint32_t sinks, uint32_t tokens)
{
	prig_geometry(&m, 4096, 200);
	m.nr_groups = 2;
	m.group[1] = m.group[0];
	m.group[1].rule = rule;
	m.group[1].window = window;
	m.group[1].sinks = sinks;
	m.group[1].block_tokens = tokens;
	open_space();
	for (uint32_t i = 0; i < 20; i++)
		cache(0, i);
}

static uint32_t settle(uint32_t nr0, uint32_t nr1)
{
	seq_start(&st, 0, 1);
	st.seq[0].len[0] = lease(0, 0, nr0);
	seq_lease_any(&st, 0, 1, 0, keys_of(1, 0, nr1), nr1, false);
	st.seq[0].len[1] = nr1;
	return seq_settle(&st, 0);
}

START_TEST(window_with_sinks)
{
	two_groups(KVMD_RULE_WINDOW, 32, 16, 16);
	cache(1, 0);
	cache(1, 8);
	cache(1, 9);
	ck_assert_uint_eq(settle(20, 20), 10 * 16);
	ck_assert_uint_eq(st.seq[0].len[1], 10);
	/* Positions between the sinks and the window are NULL entries. */
	ck_assert_uint_ne(seq_blocks(&st, 0, 1)[0], 0);
	for (uint32_t i = 1; i < 8; i++)
		ck_assert_uint_eq(seq_blocks(&st, 0, 1)[i], 0);
	ck_assert_uint_ne(seq_blocks(&st, 0, 1)[8], 0);
	prig_check(&r);
	teardown();
}
END_TEST

START_TEST(missing_sink_leaves_nothing)
{
	two_groups(KVMD_RULE_WINDOW, 32, 16, 16);
	cache(1, 8);
	cache(1, 9);
	ck_assert_uint_eq(settle(20, 20), 0);
	ck_assert_uint_eq(seq_nr_blocks(&st, 0), 0);
	prig_check(&r);
	teardown();
}
END_TEST

START_TEST(state_at_its_exact_length)
{
	two_groups(KVMD_RULE_STATE, 0, 0, 32);
	cache(1, 2);
	cache(1, 4);
	ck_assert_uint_eq(settle(20, 10), 5 * 32);
	ck_assert_uint_eq(st.seq[0].len[0], 10);
	ck_assert_uint_eq(seq_blocks(&st, 0, 1)[2], 0);
	ck_assert_uint_ne(seq_blocks(&st, 0, 1)[4], 0);
	prig_check(&r);
	teardown();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("prefix");
	TCase *one = tcase_create("one group"), *more = tcase_create("groups");

	tcase_add_checked_fixture(one, setup, teardown);
	tcase_add_test(one, leading_blocks);
	tcase_add_test(one, in_pieces);
	tcase_add_test(one, every_length);
	tcase_add_test(one, expired_block_ends_the_prefix);
	tcase_add_test(one, former_epoch_does_not_hit);
	tcase_add_test(one, uses_saturate);
	tcase_add_loop_test(more, longest_common_length, 0, 6);
	tcase_add_test(more, window_with_sinks);
	tcase_add_test(more, missing_sink_leaves_nothing);
	tcase_add_test(more, state_at_its_exact_length);
	tcase_set_timeout(more, 120);
	suite_add_tcase(s, one);
	suite_add_tcase(s, more);
	return suite_run(s);
}
