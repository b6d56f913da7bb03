/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_client_sync.c - calls of the library that wait for their own completion.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "libkvclient/internal.h"
#include "tests/suite.h"
#include "tests/unit/client_rig.h"

static struct fake f;
static struct kvc *k;
static const struct kvmd_cqe *cqe;

static void setup(void)
{
	k = crig_session(&f, KVMD_FEATURES);
}

static void teardown(void)
{
	crig_drop(&f, k);
}

static void echo_one(struct fake *x)
{
	fake_echo(x, 1);
}

START_TEST(sync_call_carries_keys)
{
	unsigned char keys[3][KVMD_KEY_BYTES];
	struct kvmd_sqe *e = &f.sq[0];
	struct kvmd_cqe c;

	memset(keys, 0xab, sizeof(keys));
	crig_start(&f, echo_one);
	ck_assert_int_eq(kvc_seq_open(k, 2, 9, keys, 3, 48, KVMD_HINT_LAST, KVMD_OPEN_NO_STORE, &c),
			 3);
	crig_join(&f);
	ck_assert_int_eq(c.res, 3);
	ck_assert_uint_eq(e->opcode, KVMD_OP_SEQ_OPEN);
	ck_assert_uint_eq(e->seq, 2);
	ck_assert_uint_eq(e->seq_gen, 9);
	ck_assert_uint_eq(e->nr, 3);
	ck_assert_uint_eq(e->first, 48);
	ck_assert_uint_eq(e->arg, KVMD_HINT_LAST);
	ck_assert_uint_eq(e->flags, KVMD_OPEN_NO_STORE | KVMD_OPEN_LOAD | KVMD_OPEN_WAIT);
	ck_assert_mem_eq(f.args + e->off, keys, sizeof(keys));
	/* and the room is free again */
	ck_assert_int_eq(kvci_args_get(&k->args, FAKE_ARGS), 0);
}
END_TEST

START_TEST(sync_lists_one_per_group)
{
	unsigned char keys[2][KVMD_KEY_BYTES];
	const void *list[] = { keys };
	const uint32_t nr[] = { 2 };
	struct kvmd_sqe *e = &f.sq[0];
	struct kvmd_key_list l;

	memset(keys, 0x5a, sizeof(keys));
	crig_start(&f, echo_one);
	ck_assert_int_eq(kvc_seq_open_lists(k, 0, 1, list, nr, 0, 0, 0, NULL), 1);
	crig_join(&f);
	ck_assert_uint_eq(e->flags, KVMD_OPEN_LISTS | KVMD_OPEN_LOAD | KVMD_OPEN_WAIT);
	memcpy(&l, f.args + e->off, sizeof(l));
	ck_assert_uint_eq(l.nr, 2);
	ck_assert_uint_eq(l.resv, 0);
	ck_assert_uint_eq(l.off % 8, 0);
	ck_assert_mem_eq(f.args + l.off, keys, sizeof(keys));
	ck_assert_int_eq(kvci_args_get(&k->args, FAKE_ARGS), 0);
}
END_TEST

/* What kvc_seq_open() makes of @flags. */
static uint16_t opened_with(uint16_t flags)
{
	uint32_t at = f.sq_head;

	crig_start(&f, echo_one);
	ck_assert_int_eq(kvc_seq_open(k, 0, 1, NULL, 0, 0, 0, flags, NULL), 0);
	crig_join(&f);
	return f.sq[at & (FAKE_SQ - 1)].flags;
}

START_TEST(open_loads_unless_told_otherwise)
{
	static const uint16_t as_told[] = {
		KVMD_OPEN_LOAD, KVMD_OPEN_LOAD | KVMD_OPEN_BY_PLANE, KVMD_OPEN_NO_HIT,
		KVMD_OPEN_NO_HIT | KVMD_OPEN_NO_STORE, KVMD_OPEN_LOAD | KVMD_OPEN_WAIT,
	};

	ck_assert_uint_eq(opened_with(0), KVMD_OPEN_LOAD | KVMD_OPEN_WAIT);
	ck_assert_uint_eq(opened_with(KVC_OPEN_NO_LOAD), 0);
	ck_assert_uint_eq(opened_with(KVC_OPEN_NO_LOAD | KVMD_OPEN_NO_STORE), KVMD_OPEN_NO_STORE);
	for (size_t i = 0; i < sizeof(as_told) / sizeof(as_told[0]); i++)
		ck_assert_uint_eq(opened_with(as_told[i]), as_told[i]);
}
END_TEST

START_TEST(open_without_the_loads_feature)
{
	crig_drop(&f, k);
	k = crig_session(&f, KVMD_FEATURES & ~KVMD_FEAT_LOADS);
	ck_assert_uint_eq(opened_with(0), 0);
	ck_assert_uint_eq(opened_with(KVC_OPEN_NO_LOAD), 0);
	ck_assert_ptr_null(kvc_seq_status(k, 0));
}
END_TEST

START_TEST(status_lines)
{
	const struct kvmd_seq_status *s = kvc_seq_status(k, 2);
	struct kvmd_seq_status *w = (void *)((char *)f.tables + 2 * 1024);

	ck_assert_ptr_nonnull(s);
	*w = (struct kvmd_seq_status) { .ready = 3, .coming = 4, .planes = 5, .err = -EIO };
	ck_assert_uint_eq(kvc_status_ready(s), 3);
	ck_assert_uint_eq(kvc_status_coming(s), 4);
	ck_assert_uint_eq(kvc_status_planes(s), 5);
	ck_assert_int_eq(kvc_status_err(s), -EIO);
	/* in front of the row, not in it */
	ck_assert_ptr_eq((const char *)(uintptr_t)kvc_row(kvc_view(k), 0, 2), (const char *)s + 64);
	ck_assert_ptr_null(kvc_seq_status(k, FAKE_SEQS));
}
END_TEST

START_TEST(sync_wait_and_swap)
{
	struct kvmd_sqe *e = f.sq;

	crig_start(&f, echo_one);
	ck_assert_int_eq(kvc_seq_wait(k, 2, 9, 12, NULL), 0);
	crig_join(&f);
	ck_assert_uint_eq(e->opcode, KVMD_OP_SEQ_WAIT);
	ck_assert(e->seq == 2 && e->seq_gen == 9 && e->first == 12 && !e->aux && !e->step);
	e++;
	crig_start(&f, echo_one);
	ck_assert_int_eq(kvc_seq_swap_out(k, 2, 9, 7), 0);
	crig_join(&f);
	ck_assert_uint_eq(e->opcode, KVMD_OP_SEQ_SWAP_OUT);
	ck_assert(e->seq == 2 && e->seq_gen == 9 && e->step == 7 && !e->aux);
	e++;
	crig_start(&f, echo_one);
	ck_assert_int_eq(kvc_seq_swap_in(k, 2, 9, 0), 0);
	crig_join(&f);
	ck_assert_uint_eq(e->opcode, KVMD_OP_SEQ_SWAP_IN);
	ck_assert(e->seq == 2 && e->seq_gen == 9 && !e->aux && !e->step);
	e++;
	crig_start(&f, echo_one);
	ck_assert_int_eq(kvc_seq_swap_in(k, 2, 9, 1000000000), 0);
	crig_join(&f);
	ck_assert_uint_gt(e->aux, 1000000000);
}
END_TEST

START_TEST(sync_keys_that_do_not_fit)
{
	const uint32_t too_many = FAKE_ARGS / KVMD_KEY_BYTES + 1;
	unsigned char *keys = calloc(too_many, KVMD_KEY_BYTES);
	uint64_t off;

	ck_assert_int_eq(kvc_lookup(k, 0, keys, too_many, NULL), -E2BIG);
	ck_assert_ptr_nonnull(kvc_args_alloc(k, FAKE_ARGS, &off));
	ck_assert_int_eq(kvc_lookup(k, 0, keys, 1, NULL), -ENOBUFS);
	ck_assert_ptr_null(kvc_args_alloc(k, 1, &off));
	free(keys);
}
END_TEST

static void echo_four(struct fake *x)
{
	struct kvmd_sqe e[4];

	/* The synchronous entry is the last one and is answered first but one. */
	for (int i = 0; i < 4; i++) {
		if (!fake_sqe(x, &e[i]))
			return;
	}
	fake_cqe(x, e[1].user_data, 0, 0, 0);
	fake_cqe(x, e[3].user_data, 11, 0, 0);
	fake_cqe(x, e[0].user_data, 0, 0, 0);
	fake_cqe(x, e[2].user_data, 0, 0, 0);
	fake_cq_publish(x);
}

START_TEST(sync_call_keeps_the_others)
{
	struct kvmd_cqe got[4];

	crig_take(k, 100);
	crig_take(k, 101);
	crig_take(k, 102);
	crig_start(&f, echo_four);
	ck_assert_int_eq(kvc_nop(k), 11);
	crig_join(&f);
	ck_assert_int_eq(kvc_peek_cqe(k, &cqe), 0);
	ck_assert_uint_eq(cqe->user_data, 101);
	crig_start(&f, echo_one);
	ck_assert_int_eq(kvc_nop(k), 0);
	crig_join(&f);
	kvc_cqe_seen(k);			/* of the peek before that call */
	ck_assert_int_eq(kvc_reap(k, got, 4), 2);
	ck_assert_uint_eq(got[0].user_data, 100);
	ck_assert_uint_eq(got[1].user_data, 102);
	ck_assert_int_eq(kvc_peek_cqe(k, &cqe), -EAGAIN);
	ck_assert_uint_eq(f.ring->cq_head, 5);
}
END_TEST

static void echo_all(struct fake *x)
{
	fake_echo(x, 3 * FAKE_CQ + 1);
}

START_TEST(sync_call_with_a_full_ring)
{
	struct kvmd_cqe got[4 * FAKE_CQ];
	unsigned n = 0;

	crig_start(&f, echo_all);
	for (unsigned i = 0; i < 3 * FAKE_CQ; i++) {
		struct kvmd_sqe *e = kvc_get_sqe(k);

		if (!e) {
			kvc_submit(k);
			n += (unsigned)kvc_reap(k, got + n, FAKE_CQ);
			i--;
			continue;
		}
		kvc_prep_nop(e);
		e->user_data = i;
	}
	ck_assert_int_eq(kvc_nop(k), 0);
	crig_join(&f);
	while (n < 3 * FAKE_CQ) {
		int r = kvc_reap(k, got + n, FAKE_CQ);

		ck_assert_int_gt(r, 0);
		n += (unsigned)r;
	}
	for (unsigned i = 0; i < n; i++)
		ck_assert_uint_eq(got[i].user_data, i);
}
END_TEST

START_TEST(extend_makes_an_absolute_deadline)
{
	uint64_t now = kvci_now();

	crig_start(&f, echo_one);
	kvc_seq_extend(k, 1, 1, 0, 4, 0, 5000000000ull, NULL);
	crig_join(&f);
	ck_assert_uint_ge(f.sq[0].aux, now + 5000000000ull);
	ck_assert_uint_le(f.sq[0].aux, kvci_now() + 5000000000ull);
	crig_start(&f, echo_one);
	kvc_seq_extend(k, 1, 1, 0, 4, 0, 0, NULL);
	crig_join(&f);
	ck_assert_uint_eq(f.sq[1].aux, 0);
	crig_start(&f, echo_one);
	kvc_seq_extend(k, 1, 1, 0, 4, 0, UINT64_MAX, NULL);
	crig_join(&f);
	ck_assert_uint_eq(f.sq[2].aux, UINT64_MAX);
}
END_TEST

static void echo_ticket(struct fake *x)
{
	struct kvmd_sqe e;

	if (!fake_sqe(x, &e))
		return;
	fake_cqe(x, e.user_data, 0, 0x89abcdef, 0x01234567);
	fake_cq_publish(x);
}

START_TEST(ticket_has_two_halves)
{
	uint64_t ticket;

	crig_start(&f, echo_ticket);
	ck_assert_int_eq(kvc_seq_send(k, 1, 1, 0, &ticket), 0);
	crig_join(&f);
	ck_assert_uint_eq(ticket, 0x0123456789abcdefull);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("client_sync");
	TCase *tc = suite_group(s, "synchronous calls", setup, teardown);

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, sync_call_carries_keys);
	tcase_add_test(tc, sync_lists_one_per_group);
	tcase_add_test(tc, open_loads_unless_told_otherwise);
	tcase_add_test(tc, open_without_the_loads_feature);
	tcase_add_test(tc, status_lines);
	tcase_add_test(tc, sync_wait_and_swap);
	tcase_add_test(tc, sync_keys_that_do_not_fit);
	tcase_add_test(tc, sync_call_keeps_the_others);
	tcase_add_test(tc, sync_call_with_a_full_ring);
	tcase_add_test(tc, extend_makes_an_absolute_deadline);
	tcase_add_test(tc, ticket_has_two_halves);
	return suite_run(s);
}
