/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_entry.c - the check of submission entries: one wrong thing at a time.
 *
 * The table below says what each operation reads, apart from the daemon's own.
 */
#include "kvmd/ring/check.h"

#include <check.h>
#include <stdio.h>

#include "tests/suite.h"

static const struct ring_limits lim = {
	.max_seqs = 16, .nr_groups = 3, .args_bytes = 65536, .max_blocks = 100,
};

/* Fields an operation reads. */
#define SEQ	0x01
#define FIRST	0x02
#define NR	0x04
#define ARG	0x08
#define OFF	0x10
#define STEP	0x20
#define AUX	0x40
#define GROUP	0x80

static const struct {
	const char *name;
	uint16_t flags;
	uint8_t reads;
	struct kvmd_sqe good;
} ops[] = {
	[KVMD_OP_NOP] = { "nop", 0, 0, { 0 } },
	[KVMD_OP_SEQ_OPEN] = { "seq_open", 63, SEQ | OFF | NR | FIRST | ARG | AUX,
		{ .seq = 3, .seq_gen = 9, .off = 64, .nr = 10, .first = 160, .aux = 5 } },
	[KVMD_OP_SEQ_EXTEND] = { "seq_extend", 3, SEQ | GROUP | NR | AUX,
		{ .seq = 3, .seq_gen = 9, .group = 1, .nr = 4, .aux = 77 } },
	[KVMD_OP_SEQ_PUBLISH] = { "seq_publish", 0, SEQ | GROUP | FIRST | OFF | NR | STEP,
		{ .seq = 3, .seq_gen = 9, .group = 2, .first = 1, .off = 8, .nr = 2, .step = 4 } },
	[KVMD_OP_SEQ_FORK] = { "seq_fork", 0, SEQ | FIRST | ARG | STEP | AUX,
		{ .seq = 3, .seq_gen = 9, .first = 4, .arg = 1, .step = 2, .aux = 8 } },
	[KVMD_OP_SEQ_UNSHARE] = { "seq_unshare", 0, SEQ | GROUP | FIRST | STEP | AUX,
		{ .seq = 3, .seq_gen = 9, .group = 1, .first = 4, .step = 2, .aux = 8 } },
	[KVMD_OP_SEQ_TRIM] = { "seq_trim", 3, SEQ | GROUP | FIRST | NR | STEP,
		{ .seq = 3, .seq_gen = 9, .group = 1, .first = 4, .nr = 2, .step = 2 } },
	[KVMD_OP_SEQ_REPLACE] = { "seq_replace", 1, SEQ | GROUP | FIRST | NR | ARG | STEP,
		{ .seq = 3, .seq_gen = 9, .first = 4, .nr = 2, .arg = 2, .step = 2 } },
	[KVMD_OP_SEQ_SEND] = { "seq_send", 0, SEQ | STEP, { .seq = 3, .step = 2 } },
	[KVMD_OP_SEQ_RECV] = { "seq_recv", 0, SEQ | AUX, { .seq = 3, .aux = ~0ull } },
	[KVMD_OP_SEQ_SWAP_OUT] = { "seq_swap_out", 0, SEQ | STEP, { .seq = 3, .step = 2 } },
	[KVMD_OP_SEQ_SWAP_IN] = { "seq_swap_in", 0, SEQ | AUX, { .seq = 3, .aux = 2 } },
	[KVMD_OP_SEQ_CLOSE] = { "seq_close", 0, SEQ | STEP | ARG, { .seq = 3, .step = 2 } },
	[KVMD_OP_CANCEL] = { "cancel", 0, AUX, { .aux = 5 } },
	[KVMD_OP_LOOKUP] = { "lookup", 0, GROUP | OFF | NR, { .group = 1, .off = 32, .nr = 3 } },
	[KVMD_OP_ADVISE] = { "advise", 1, 0xff & ~(SEQ | FIRST | STEP | AUX),
		{ .group = 1, .off = 32, .nr = 3, .arg = KVMD_ADV_PIN } },
	[KVMD_OP_CLOCK] = { "clock", 0, AUX, { .aux = 5 } },
	[KVMD_OP_SEQ_WAIT] = { "seq_wait", 0, SEQ | FIRST, { .seq = 3, .seq_gen = 9, .first = 8 } },
};
BUILD_BUG_ON(ARRAY_SIZE(ops) != KVMD_NR_OP);

static struct kvmd_sqe good(int op)
{
	struct kvmd_sqe e = ops[op].good;

	e.opcode = (uint8_t)op;
	e.user_data = 0xdeadbeef12345678;
	e.pos = 0x77;
	return e;
}

static int check(const struct kvmd_sqe *e)
{
	return ring_check(e, &lim);
}

#define REFUSED(e, err, ...) do {						\
	int got_ = check(e);							\
	char what_[96];								\
	snprintf(what_, sizeof(what_), __VA_ARGS__);				\
	ck_assert_msg(got_ == (err), "%s, %s: %d", ring_op_name((e)->opcode), what_, got_); \
} while (0)

/* --------------------------------------------------------- every operation */

START_TEST(good_entries_pass)
{
	struct kvmd_sqe e = good(_i);

	REFUSED(&e, 0, "good");
	e.user_data = ~0ull;
	e.pos = 0;
	REFUSED(&e, 0, "any user_data, any pos");
	e.seq = ops[_i].reads & SEQ ? lim.max_seqs - 1 : 0;
	e.seq_gen = ops[_i].reads & SEQ ? UINT32_MAX : 0;
	e.group = ops[_i].reads & GROUP ? (uint8_t)(lim.nr_groups - 1) : 0;
	REFUSED(&e, 0, "last sequence and group");
}
END_TEST

START_TEST(names)
{
	ck_assert_str_eq(ring_op_name((unsigned)_i), ops[_i].name);
}
END_TEST

START_TEST(unknown_opcodes)
{
	for (unsigned op = KVMD_NR_OP; op < 256; op++) {
		struct kvmd_sqe e = { .opcode = (uint8_t)op };

		REFUSED(&e, -EINVAL, "opcode %u", op);
		ck_assert_str_eq(ring_op_name(op), "?");
	}
	ck_assert_str_eq(ring_op_name(UINT32_MAX), "?");
}
END_TEST

START_TEST(unknown_flags)
{
	for (unsigned bit = 0; bit < 16; bit++) {
		struct kvmd_sqe e = good(_i);

		if (ops[_i].flags >> bit & 1)
			continue;
		e.flags = (uint16_t)(1u << bit);
		REFUSED(&e, -EINVAL, "flag %u", bit);
	}
}
END_TEST

START_TEST(unread_fields)
{
	uint8_t reads = ops[_i].reads;

#define UNREAD(bit, field, bits) do {						\
	for (unsigned b_ = 0; !(reads & (bit)) && b_ < (bits); b_++) {		\
		struct kvmd_sqe e = good(_i);					\
		e.field = (__typeof__(e.field))(1ull << b_);			\
		REFUSED(&e, -EINVAL, #field " bit %u", b_);			\
	}									\
} while (0)
	UNREAD(SEQ, seq, 32);
	UNREAD(SEQ, seq_gen, 32);
	UNREAD(FIRST, first, 32);
	UNREAD(NR, nr, 32);
	UNREAD(ARG, arg, 32);
	UNREAD(OFF, off, 64);
	UNREAD(STEP, step, 64);
	UNREAD(AUX, aux, 64);
	UNREAD(GROUP, group, 8);
	UNREAD(0, resv, 32);
#undef UNREAD
}
END_TEST

START_TEST(sequence_out_of_range)
{
	static const uint32_t bad[] = { 16, 17, 0x80000000, UINT32_MAX };
	struct kvmd_sqe e = good(_i);

	for (size_t i = 0; (ops[_i].reads & SEQ) && i < ARRAY_SIZE(bad); i++) {
		e.seq = bad[i];
		REFUSED(&e, -EINVAL, "seq %u", bad[i]);
	}
}
END_TEST

START_TEST(group_out_of_range)
{
	static const uint8_t bad[] = { 3, 8, 254, KVMD_GROUP_ALL };
	struct kvmd_sqe e = good(_i);

	for (size_t i = 0; (ops[_i].reads & GROUP) && i < ARRAY_SIZE(bad); i++) {
		e.group = bad[i];
		REFUSED(&e, -EINVAL, "group %u", bad[i]);
	}
}
END_TEST

/* ---------------------------------------------------------------- key lists */

static const uint8_t with_keys[] = {
	KVMD_OP_SEQ_OPEN, KVMD_OP_SEQ_PUBLISH, KVMD_OP_LOOKUP, KVMD_OP_ADVISE,
};

START_TEST(keys_outside_args)
{
	struct kvmd_sqe e = good(with_keys[_i]);
	uint64_t bytes = (uint64_t)e.nr * KVMD_KEY_BYTES;
	const uint64_t bad[] = {
		65536 - bytes + 8, 65536 - 8, 65536, 65536 + 8, 1ull << 32, 1ull << 63,
		-bytes, UINT64_MAX - 7,
	};

	e.off = 65536 - bytes;
	REFUSED(&e, 0, "up to the end");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		e.off = bad[i];
		REFUSED(&e, -EFAULT, "off %llx", (unsigned long long)bad[i]);
	}
}
END_TEST

START_TEST(keys_misaligned)
{
	struct kvmd_sqe e = good(with_keys[_i]);

	for (uint64_t off = 1; off < 8; off++) {
		e.off = 64 + off;
		REFUSED(&e, -EINVAL, "off %llu", (unsigned long long)e.off);
	}
}
END_TEST

START_TEST(too_many_keys)
{
	static const uint32_t bad[] = { 101, 2048, 1u << 27, UINT32_MAX };
	struct kvmd_sqe e = good(with_keys[_i]);

	e.off = 0;
	e.nr = lim.max_blocks;
	REFUSED(&e, 0, "as many as a row holds");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		e.nr = bad[i];
		REFUSED(&e, -EINVAL, "nr %u", bad[i]);
	}
}
END_TEST

START_TEST(no_keys)
{
	struct kvmd_sqe e = good(with_keys[_i]);

	e.nr = 0;
	REFUSED(&e, e.opcode == KVMD_OP_SEQ_PUBLISH ? -EINVAL : 0, "no keys");
	e.off = 65536;
	REFUSED(&e, e.opcode == KVMD_OP_SEQ_PUBLISH ? -EINVAL : 0, "no keys at the end");
}
END_TEST

START_TEST(open_lists)
{
	struct kvmd_sqe e = good(KVMD_OP_SEQ_OPEN);

	e.flags = KVMD_OPEN_LISTS;
	for (e.nr = 0; e.nr < 6; e.nr++)
		REFUSED(&e, e.nr == lim.nr_groups ? 0 : -EINVAL, "%u lists", e.nr);
	e.nr = lim.nr_groups;
	e.off = 65536 - 3 * sizeof(struct kvmd_key_list);
	REFUSED(&e, 0, "up to the end");
	e.off += 8;
	REFUSED(&e, -EFAULT, "beyond the end");
	e.off = 4;
	REFUSED(&e, -EINVAL, "misaligned");
	e.off = 0;
	e.arg = 1 << 10;
	REFUSED(&e, -EINVAL, "hints");
}
END_TEST

START_TEST(a_list_of_open_lists)
{
	struct kvmd_key_list l = { .off = 8, .nr = 100 };

	ck_assert_int_eq(ring_check_list(&l, &lim), 0);
	l.nr = 101;
	ck_assert_int_eq(ring_check_list(&l, &lim), -EINVAL);
	l = (struct kvmd_key_list) { .off = 8, .nr = 1, .resv = 1 };
	ck_assert_int_eq(ring_check_list(&l, &lim), -EINVAL);
	l = (struct kvmd_key_list) { .off = 12, .nr = 1 };
	ck_assert_int_eq(ring_check_list(&l, &lim), -EINVAL);
	l = (struct kvmd_key_list) { .off = 65536 - 32, .nr = 1 };
	ck_assert_int_eq(ring_check_list(&l, &lim), 0);
	l.nr = 2;
	ck_assert_int_eq(ring_check_list(&l, &lim), -EFAULT);
	l = (struct kvmd_key_list) { .off = UINT64_MAX - 7, .nr = 1 };
	ck_assert_int_eq(ring_check_list(&l, &lim), -EFAULT);
	l = (struct kvmd_key_list) { .off = 65536 };
	ck_assert_int_eq(ring_check_list(&l, &lim), 0);
}
END_TEST

/* ---------------------------------------------------------- one operation's */

START_TEST(hints)
{
	struct kvmd_sqe e = good(_i ? KVMD_OP_SEQ_CLOSE : KVMD_OP_SEQ_OPEN);

	for (unsigned bit = 0; bit < 32; bit++) {
		e.arg = 1u << bit;
		REFUSED(&e, bit < 10 ? 0 : -EINVAL, "hint %u", bit);
	}
	e.arg = KVMD_HINT_CLASS_MASK | KVMD_HINT_WILL_CONTINUE | KVMD_HINT_LAST;
	REFUSED(&e, 0, "all hints");
}
END_TEST

START_TEST(open_flags)
{
	struct kvmd_sqe e = good(KVMD_OP_SEQ_OPEN);

	e.nr = lim.nr_groups;		/* good with and without lists */
	for (e.flags = 0; e.flags < 64; e.flags++) {
		bool load = e.flags & KVMD_OPEN_LOAD, wait = e.flags & KVMD_OPEN_WAIT;
		bool plane = e.flags & KVMD_OPEN_BY_PLANE, no_hit = e.flags & KVMD_OPEN_NO_HIT;
		bool bad = ((wait || plane) && !load) || (wait && plane) || (load && no_hit);

		REFUSED(&e, bad ? -EINVAL : 0, "flags %x", e.flags);
	}
}
END_TEST

START_TEST(extend)
{
	struct kvmd_sqe e = good(KVMD_OP_SEQ_EXTEND);

	e.flags = KVMD_EXTEND_NOWAIT;
	REFUSED(&e, 0, "nowait");
	e.nr = 0;
	REFUSED(&e, -EINVAL, "nothing");
	e = good(KVMD_OP_SEQ_EXTEND);
	e.flags = KVMD_EXTEND_TOKENS;
	REFUSED(&e, -EINVAL, "tokens of one group");
	e.group = KVMD_GROUP_ALL;
	REFUSED(&e, 0, "tokens of all groups");
	e.flags |= KVMD_EXTEND_NOWAIT;
	REFUSED(&e, 0, "and nowait");
	e.nr = 0;
	REFUSED(&e, -EINVAL, "no tokens");
}
END_TEST

START_TEST(fork_destination)
{
	struct kvmd_sqe e = good(KVMD_OP_SEQ_FORK);

	e.first = e.seq;
	REFUSED(&e, -EINVAL, "onto itself");
	e.first = lim.max_seqs;
	REFUSED(&e, -EINVAL, "out of range");
	e.first = UINT32_MAX;
	REFUSED(&e, -EINVAL, "far out of range");
	e.first = lim.max_seqs - 1;
	REFUSED(&e, 0, "the last");
}
END_TEST

START_TEST(trim)
{
	struct kvmd_sqe e = good(KVMD_OP_SEQ_TRIM);

	e.flags = KVMD_TRIM_KEEP;
	REFUSED(&e, 0, "keep");
	e.flags = KVMD_TRIM_TAIL;
	REFUSED(&e, -EINVAL, "tail with nr");
	e.nr = 0;
	REFUSED(&e, 0, "tail");
	e.flags = KVMD_TRIM_TAIL | KVMD_TRIM_KEEP;
	REFUSED(&e, -EINVAL, "both");
}
END_TEST

START_TEST(replace)
{
	struct kvmd_sqe e = good(KVMD_OP_SEQ_REPLACE);

	e.flags = KVMD_REPLACE_HOLES;
	REFUSED(&e, 0, "holes");
	e.flags = 0;
	e.arg = 0;
	REFUSED(&e, 0, "by nothing");
	e.arg = e.nr + 1;
	REFUSED(&e, -EINVAL, "by more than there were");
	e.nr = e.arg = 0;
	REFUSED(&e, -EINVAL, "nothing");
}
END_TEST

START_TEST(advise_by_keys)
{
	struct kvmd_sqe e = good(KVMD_OP_ADVISE);

	e.seq = 1;
	REFUSED(&e, -EINVAL, "seq");
	e.seq = 0;
	e.seq_gen = 1;
	REFUSED(&e, -EINVAL, "seq_gen");
	e.seq_gen = 0;
	e.first = 1;
	REFUSED(&e, -EINVAL, "first");
	e.first = 0;
	e.step = 1;
	REFUSED(&e, -EINVAL, "step");
	e.step = 0;
	REFUSED(&e, 0, "good again");
}
END_TEST

START_TEST(advise_by_sequence)
{
	struct kvmd_sqe e = {
		.opcode = KVMD_OP_ADVISE, .flags = KVMD_ADVISE_SEQ, .seq = 15, .seq_gen = 3,
		.group = 2, .first = 7, .nr = UINT32_MAX, .arg = KVMD_ADV_COLD,
	};

	REFUSED(&e, 0, "good");
	e.off = 8;
	REFUSED(&e, -EINVAL, "off");
	e.off = 0;
	e.seq = 16;
	REFUSED(&e, -EINVAL, "seq out of range");
	e.seq = 0;
	e.step = 1;
	REFUSED(&e, -EINVAL, "step");
	e.step = 0;
	e.group = 3;
	REFUSED(&e, -EINVAL, "group");
}
END_TEST

START_TEST(advice)
{
	struct kvmd_sqe e = good(KVMD_OP_ADVISE);
	bool timed = _i == KVMD_ADV_PRIORITY || _i == KVMD_ADV_TTL;

	e.arg = (uint32_t)_i;
	REFUSED(&e, _i < KVMD_NR_ADV ? 0 : -EINVAL, "advice %d", _i);
	e.aux = 1;
	REFUSED(&e, timed ? 0 : -EINVAL, "advice %d with aux", _i);
	e.aux = 1ull << 63;
	REFUSED(&e, timed ? 0 : -EINVAL, "advice %d with a high aux", _i);
}
END_TEST

START_TEST(advised_priority)
{
	struct kvmd_sqe e = good(KVMD_OP_ADVISE);

	e.arg = KVMD_ADV_PRIORITY;
	for (uint64_t prio = 0; prio < 256; prio++) {
		e.aux = KVMD_PRIO(prio, 1000);
		REFUSED(&e, prio <= 100 ? 0 : -EINVAL, "priority %u", (unsigned)prio);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("entry");
	TCase *tc = tcase_create("every operation");

	tcase_add_loop_test(tc, good_entries_pass, 0, KVMD_NR_OP);
	tcase_add_loop_test(tc, names, 0, KVMD_NR_OP);
	tcase_add_test(tc, unknown_opcodes);
	tcase_add_loop_test(tc, unknown_flags, 0, KVMD_NR_OP);
	tcase_add_loop_test(tc, unread_fields, 0, KVMD_NR_OP);
	tcase_add_loop_test(tc, sequence_out_of_range, 0, KVMD_NR_OP);
	tcase_add_loop_test(tc, group_out_of_range, 0, KVMD_NR_OP);
	suite_add_tcase(s, tc);
	tc = tcase_create("key lists");
	tcase_add_loop_test(tc, keys_outside_args, 0, 4);
	tcase_add_loop_test(tc, keys_misaligned, 0, 4);
	tcase_add_loop_test(tc, too_many_keys, 0, 4);
	tcase_add_loop_test(tc, no_keys, 0, 4);
	tcase_add_test(tc, open_lists);
	tcase_add_test(tc, a_list_of_open_lists);
	suite_add_tcase(s, tc);
	tc = tcase_create("one operation's");
	tcase_add_loop_test(tc, hints, 0, 2);
	tcase_add_test(tc, open_flags);
	tcase_add_test(tc, extend);
	tcase_add_test(tc, fork_destination);
	tcase_add_test(tc, trim);
	tcase_add_test(tc, replace);
	tcase_add_test(tc, advise_by_keys);
	tcase_add_test(tc, advise_by_sequence);
	tcase_add_loop_test(tc, advice, 0, KVMD_NR_ADV + 2);
	tcase_add_test(tc, advised_priority);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
