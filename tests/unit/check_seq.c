/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_seq.c - sequences: rows follow the mirror, the last block goes first.
 */
#include "pool_rig.h"
#include "tests/suite.h"

static struct prig r;
static struct kvmd_space m;
static struct space *sp;
static struct seqtab st;

static void setup(void)
{
	prig_init(&r, "null", 256, 1 << 20, 64 << 20, NULL);
	prig_geometry(&m, 4096, 65);
	m.nr_groups = 2;
	m.group[1] = m.group[0];
	m.group[1].block_tokens = 64;
	sp = prig_space(&r, "s", r.t[0], &m, "lru");
	prig_grow(&r, &sp->gp[0], 1);
	prig_grow(&r, &sp->gp[1], 1);
	ck_assert_int_eq(seqtab_create(r.ix, sp, 3, 1000, &st), 0);
}

static void teardown(void)
{
	seqtab_destroy(&st);
	seqtab_destroy(&st);
	prig_exit(&r);
}

static void rows_follow(uint32_t s)
{
	for (uint32_t g = 0; g < 2; g++) {
		for (uint32_t i = 0; i < st.row_blocks[g]; i++) {
			uint32_t id = seq_blocks(&st, s, g)[i];

			ck_assert(i < st.seq[s].len[g] || !id);
			ck_assert_int_eq(seq_row(&st, s, g)[i],
					 id ? (int32_t)pool_block(r.p, id)->slot : 0);
		}
	}
}

static void append(uint32_t s, uint32_t g, uint32_t nr)
{
	uint32_t ids[16];

	ck_assert_int_eq(pool_alloc(r.p, &sp->gp[g], nr, 7, 0, ids), 0);
	seq_append(&st, s, g, ids, nr);
}

START_TEST(shape)
{
	ck_assert_uint_eq(st.row_blocks[0], 63);
	ck_assert_uint_eq(st.row_blocks[1], 16);
	ck_assert_uint_eq(st.row_off[1] % 64, 0);
	ck_assert_uint_ge(st.row_off[1], 63 * 4);
	ck_assert_uint_eq(st.stride % 64, 0);
	ck_assert_uint_ge(seqtab_rows_bytes(&st), 3 * st.stride);
	ck_assert_ptr_eq(seq_row(&st, 1, 0), st.rows + st.stride + st.row_off[0]);
	ck_assert_uint_eq(st.row_off[0], sizeof(struct kvmd_seq_status));
	ck_assert_ptr_eq(seq_status(&st, 1), st.rows + st.stride);
}
END_TEST

START_TEST(starts_empty)
{
	seq_start(&st, 1, 77);
	ck_assert_uint_eq(st.seq[1].state, SEQ_LIVE);
	ck_assert_uint_eq(st.seq[1].gen, 77);
	ck_assert_uint_eq(st.seq[1].sid, sp->sid);
	ck_assert_uint_eq(st.seq[1].hole[1], UINT32_MAX);
	ck_assert_uint_eq(st.nr_live, 1);
	ck_assert_uint_eq(seq_nr_blocks(&st, 1), 0);
	rows_follow(1);
}
END_TEST

/* What queued on the sequence before it was there stays queued. */
START_TEST(queue_survives_the_start)
{
	st.seq[1].q_head = 5;
	st.seq[1].q_tail = 6;
	st.seq[1].blocked = 4;
	st.seq[1].kicking = true;
	seq_start(&st, 1, 1);
	ck_assert_uint_eq(st.seq[1].q_head, 5);
	ck_assert_uint_eq(st.seq[1].q_tail, 6);
	ck_assert_uint_eq(st.seq[1].blocked, 4);
	ck_assert(st.seq[1].kicking);
}
END_TEST

START_TEST(rows_follow_the_mirror)
{
	seq_start(&st, 0, 1);
	append(0, 0, 5);
	append(0, 1, 2);
	append(0, 0, 3);
	ck_assert_uint_eq(st.seq[0].len[0], 8);
	ck_assert_uint_eq(seq_nr_blocks(&st, 0), 10);
	rows_follow(0);
	prig_put(&r, seq_blocks(&st, 0, 0)[3]);
	seq_set(&st, 0, 0, 3, 0);
	ck_assert_int_eq(seq_row(&st, 0, 0)[3], KVMD_SLOT_NULL);
	ck_assert_uint_eq(seq_nr_blocks(&st, 0), 9);
	rows_follow(0);
	rows_follow(1);
}
END_TEST

START_TEST(drains_last_first_within_budget)
{
	uint32_t budget = 3, last;
	const struct block *b;

	seq_start(&st, 0, 1);
	append(0, 0, 4);
	append(0, 1, 2);
	for (uint32_t i = 0; i < 4; i++)
		prig_seal(&r, seq_blocks(&st, 0, 0)[i], i,
			  i ? seq_blocks(&st, 0, 0)[i - 1] : 0);
	last = seq_blocks(&st, 0, 0)[3];
	ck_assert(!seq_drain(&st, 0, &budget));
	ck_assert_uint_eq(budget, 0);
	ck_assert_uint_eq(st.seq[0].len[1], 0);
	ck_assert_uint_eq(st.seq[0].len[0], 3);
	ck_assert_uint_eq(st.seq[0].state, SEQ_LIVE);
	rows_follow(0);
	budget = 100;
	ck_assert(seq_drain(&st, 0, &budget));
	ck_assert_uint_eq(budget, 97);
	ck_assert_uint_eq(st.seq[0].state, SEQ_FREE);
	ck_assert_uint_eq(st.nr_live, 0);
	rows_follow(0);
	/* In an LRU list the tail leaves first. */
	b = sp->gp[0].policy->ops->victim(sp->gp[0].policy);
	ck_assert_uint_eq(pool_id(r.p, b), last);
	prig_check(&r);
}
END_TEST

START_TEST(state_names)
{
	for (unsigned i = 0; i < NR_SEQ_STATE; i++)
		ck_assert_str_ne(seq_state_name(i), "?");
	ck_assert_str_eq(seq_state_name(NR_SEQ_STATE), "?");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("seq");
	TCase *tc = tcase_create("seq");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, shape);
	tcase_add_test(tc, starts_empty);
	tcase_add_test(tc, queue_survives_the_start);
	tcase_add_test(tc, rows_follow_the_mirror);
	tcase_add_test(tc, drains_last_first_within_budget);
	tcase_add_test(tc, state_names);
	tcase_set_timeout(tc, 120);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
