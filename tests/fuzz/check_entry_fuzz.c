/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_entry_fuzz.c - the check of submission entries: whatever it lets pass
 * keeps within the session's bounds, and it lets pass what is well formed.
 */
#include "kvmd/ring/check.h"
#include "tests/entries.h"
#include "tests/harness.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static const struct ring_limits lims[] = {
	{ .max_seqs = 16, .nr_groups = 1, .args_bytes = 65536, .max_blocks = 256 },
	{ .max_seqs = 1, .nr_groups = 8, .args_bytes = 4096, .max_blocks = 1 },
	{ .max_seqs = 65536, .nr_groups = 3, .args_bytes = 256u << 20, .max_blocks = 1u << 20 },
};

static bool names_keys(const struct kvmd_sqe *e)
{
	switch (e->opcode) {
	case KVMD_OP_SEQ_OPEN:
		return !(e->flags & KVMD_OPEN_LISTS);
	case KVMD_OP_ADVISE:
		return !(e->flags & KVMD_ADVISE_SEQ);
	default:
		return e->opcode == KVMD_OP_SEQ_PUBLISH || e->opcode == KVMD_OP_LOOKUP;
	}
}

/* What every operation relies on. */
static void passed(const struct kvmd_sqe *e, const struct ring_limits *l)
{
	bool tokens = e->opcode == KVMD_OP_SEQ_EXTEND && (e->flags & KVMD_EXTEND_TOKENS);

	T(e->opcode < KVMD_NR_OP);
	T_EQ(e->resv, 0);
	T(e->seq < l->max_seqs);
	T(tokens ? e->group == KVMD_GROUP_ALL : e->group < l->nr_groups);
	if (names_keys(e)) {
		T(e->nr <= l->max_blocks && e->off % 8 == 0);
		T(e->off <= l->args_bytes && (uint64_t)e->nr * KEY <= l->args_bytes - e->off);
	}
	if (e->opcode == KVMD_OP_SEQ_OPEN && (e->flags & KVMD_OPEN_LISTS))
		T(e->nr == l->nr_groups && e->off <= l->args_bytes &&
		  e->nr * sizeof(struct kvmd_key_list) <= l->args_bytes - e->off);
	if (e->opcode == KVMD_OP_SEQ_FORK)
		T(e->first < l->max_seqs && e->first != e->seq);
	if (e->opcode == KVMD_OP_SEQ_REPLACE)
		T(e->nr && e->arg <= e->nr);
	if (e->opcode == KVMD_OP_ADVISE)
		T(e->arg < KVMD_NR_ADV && !e->step);
}

static int ask(const struct kvmd_sqe *e, const struct ring_limits *l)
{
	struct kvmd_sqe copy = *e;
	int err = ring_check(e, l);

	T(!memcmp(&copy, e, sizeof(copy)));
	T(err == 0 || err == -EINVAL || err == -EFAULT);
	T_EQ(ring_check(e, l), err);
	if (!err)
		passed(e, l);
	return err;
}

START_TEST(what_passes_keeps_the_bounds)
{
	uint64_t rnd = test_seed(), runs = test_fuzz_runs(200000);
	struct kvmd_sqe e;

	for (uint64_t i = 0; i < runs; i++) {
		const struct ring_limits *l = &lims[test_random(&rnd) % 3];
		struct entry_bounds b = {
			.max_seqs = l->max_seqs, .nr_groups = l->nr_groups,
			.max_blocks = l->max_blocks, .args_bytes = l->args_bytes,
		};
		uint64_t w[8];

		if (i % 4) {
			random_entry(&rnd, &b, &e);
		} else {
			for (int k = 0; k < 8; k++)
				w[k] = test_random(&rnd) >> test_random(&rnd) % 64;
			memcpy(&e, w, sizeof(e));
			e.opcode %= KVMD_NR_OP + 1;
		}
		ask(&e, l);
	}
}
END_TEST

START_TEST(what_is_well_formed_passes)
{
	const struct ring_limits *l = &lims[0];
	uint64_t rnd = test_seed(), runs = test_fuzz_runs(100000);
	struct entry_bounds b = {
		.max_seqs = l->max_seqs, .nr_groups = l->nr_groups, .max_blocks = l->max_blocks,
		.args_bytes = l->args_bytes,
	};
	struct kvmd_sqe e;

	for (uint64_t i = 0; i < runs; i++) {
		random_good_entry(&rnd, &b, &e);
		T_EQ(ask(&e, l), e.opcode == KVMD_OP_SEQ_EXTEND && e.nr > l->max_blocks + 1 ?
		     -EINVAL : 0);
	}
}
END_TEST

/* One bit in a word that the operation does not read: refused, always. */
START_TEST(any_bit_of_an_unread_field_is_refused)
{
	static const uint8_t plain[] = { KVMD_OP_NOP, KVMD_OP_CANCEL, KVMD_OP_CLOCK };
	static const struct { unsigned from, to; } user_data = { 64, 128 }, aux = { 384, 448 },
		pos = { 480, 512 };

	for (size_t i = 0; i < sizeof(plain); i++)
		for (unsigned bit = 8; bit < 512; bit++) {
			struct kvmd_sqe e = { .opcode = plain[i] };
			unsigned char *at = (unsigned char *)&e;
			bool read = (bit >= user_data.from && bit < user_data.to) ||
				    (bit >= pos.from && bit < pos.to) ||
				    (plain[i] != KVMD_OP_NOP && bit >= aux.from && bit < aux.to);

			at[bit / 8] |= (unsigned char)(1u << bit % 8);
			T_EQ(ask(&e, &lims[0]), read ? 0 : -EINVAL);
		}
}
END_TEST

START_TEST(key_lists)
{
	uint64_t rnd = test_seed(), runs = test_fuzz_runs(100000);

	for (uint64_t i = 0; i < runs; i++) {
		const struct ring_limits *l = &lims[i % 3];
		struct kvmd_key_list kl = {
			.off = test_random(&rnd) >> test_random(&rnd) % 64,
			.nr = (uint32_t)(test_random(&rnd) >> (32 + test_random(&rnd) % 32)),
			.resv = test_random(&rnd) % 8 == 0,
		};

		if (ring_check_list(&kl, l))
			continue;
		T(!kl.resv && kl.nr <= l->max_blocks && kl.off % 8 == 0);
		T(kl.off <= l->args_bytes && (uint64_t)kl.nr * KEY <= l->args_bytes - kl.off);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("entry_fuzz");
	TCase *t = tcase_create("entry_fuzz");
	SRunner *r;
	int failed;

	suite_add_tcase(s, t);
	tcase_set_timeout(t, 0);
	tcase_add_test(t, what_passes_keeps_the_bounds);
	tcase_add_test(t, what_is_well_formed_passes);
	tcase_add_test(t, any_bit_of_an_unread_field_is_refused);
	tcase_add_test(t, key_lists);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
