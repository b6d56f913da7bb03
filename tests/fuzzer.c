/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzzer.c - see fuzzer.h.
 */
#include "tests/fuzzer.h"

#include <string.h>

#define BATCH	6u	/* entries submitted at once, at most */

void fuzzer_init(struct fuzzer *f, struct hd *d, uint64_t *rnd, const struct kvc_space *s)
{
	struct kvc_opts o;
	uint64_t off;
	void *args;

	opts_for(d, &o);
	o.max_seqs = SEQS;
	o.max_tokens = 24 * BT;
	o.args_bytes = 65536;
	o.sq_entries = 64;
	*f = (struct fuzzer) { .k = client_opts(d, s, &o) };
	f->b = (struct entry_bounds) {
		.max_seqs = SEQS, .nr_groups = s->nr_groups, .max_blocks = 24, .args_bytes = 32768,
	};
	args = kvc_args_alloc(f->k, 32768, &off);
	T(args && !off);
	random_keys(rnd, args, 32768);
}

static uint32_t below(uint64_t *rnd, uint32_t n)
{
	return (uint32_t)(test_random(rnd) % n);
}

/* Positions in use, as the row tells at the moment. */
static uint32_t length(struct fuzzer *f, uint32_t g, uint32_t seq)
{
	uint32_t n = 24;

	while (n && !slot_at(f->k, g, seq, n - 1))
		n--;
	return n;
}

static void open_chain(struct fuzzer *f, uint64_t *rnd, uint32_t seq, struct kvmd_sqe *e)
{
	f->chain[seq] = below(rnd, 4);
	kvc_prep_open(e, seq, 1, (uint64_t)f->chain[seq] * CHAIN * KEY, below(rnd, 25), 0, 0);
}

/* What an engine might do next with a sequence of @len blocks in group @g. */
static void sensible(struct fuzzer *f, uint64_t *rnd, uint32_t seq, uint8_t g, uint32_t len,
		     struct kvmd_sqe *e)
{
	uint32_t first = below(rnd, 4) ? 0 : below(rnd, len), dst = below(rnd, SEQS);
	uint64_t step = below(rnd, 3) ? 0 : f->submitted;

	switch (below(rnd, 16)) {
	case 0: case 1: case 2: case 3: case 4: case 5:
		kvc_prep_publish(e, seq, 1, g, first, ((uint64_t)f->chain[seq] * CHAIN + first) *
				 KEY, len - first, step);
		break;
	case 6: case 7:
		kvc_prep_close(e, seq, 1, step, 0);
		break;
	case 8:
		kvc_prep_send(e, seq, 1, step);
		e->user_data = 1000;
		break;
	case 9: case 10:
		if (dst == seq)
			break;
		f->chain[dst] = f->chain[seq];
		kvc_prep_fork(e, seq, 1, dst, 1, step, 1);
		break;
	case 11:
		kvc_prep_unshare(e, seq, 1, g, first, step, 1);
		break;
	case 12:
		kvc_prep_trim(e, seq, 1, g, KVMD_TRIM_TAIL, below(rnd, len), 0, step);
		break;
	case 13:
		kvc_prep_replace(e, seq, 1, g, (uint16_t)below(rnd, 2), first, 1 + below(rnd, 3),
				 below(rnd, 2), step);
		break;
	default:
		kvc_prep_extend(e, seq, 1, g, 1 + below(rnd, 4), 1);
		break;
	}
}

static void make(struct fuzzer *f, uint64_t *rnd, struct kvmd_sqe *e)
{
	uint32_t seq = below(rnd, SEQS), len;
	uint8_t g = (uint8_t)below(rnd, f->b.nr_groups);

	if (!below(rnd, 4)) {
		random_entry(rnd, &f->b, e);
		return;
	}
	memset(e, 0, sizeof(*e));
	len = length(f, g, seq);
	if (len) {
		sensible(f, rnd, seq, g, len, e);
	} else if (f->ticket && !below(rnd, 4)) {
		kvc_prep_recv(e, seq, 1, f->ticket);
		f->ticket = 0;
	} else if (below(rnd, 2)) {
		open_chain(f, rnd, seq, e);
	} else {
		kvc_prep_extend(e, seq, 1, g, 1 + below(rnd, 8), 0);
		e->flags = KVMD_EXTEND_NOWAIT;
	}
}

void fuzzer_reap(struct fuzzer *f)
{
	struct kvmd_cqe c[64];
	int n = kvc_reap(f->k, c, 64);

	T(n >= 0);
	for (int i = 0; i < n; i++)
		if (c[i].user_data == 1000 && !c[i].res)
			f->ticket = (uint64_t)c[i].v1 << 32 | c[i].v0;
	f->unanswered -= (uint32_t)n;
}

void fuzzer_advance(struct fuzzer *f, uint64_t *rnd)
{
	if (test_random(rnd) % 2)
		kvc_step_submit(f->k, ++f->submitted);
	if (f->completed < f->submitted && test_random(rnd) % 2)
		kvc_step_complete(f->k, 0, ++f->completed);
	f->b.submitted = f->submitted;
}

uint64_t fuzzer_batch(struct fuzzer *f, uint64_t *rnd)
{
	uint32_t n = 1 + (uint32_t)(test_random(rnd) % BATCH), i;

	for (i = 0; i < n; i++) {
		struct kvmd_sqe *e = kvc_get_sqe(f->k), made;

		if (!e)
			break;
		make(f, rnd, &made);
		memcpy(e, &made, offsetof(struct kvmd_sqe, pos));
		f->unanswered++;
	}
	T(kvc_submit(f->k) >= 0);
	return i;
}

/* All steps done: nothing is left that could wait, but what another's steps hold up. */
void fuzzer_finish(struct fuzzer *f)
{
	const struct kvmd_cqe *c;

	f->completed = f->submitted;
	kvc_step_complete(f->k, 0, f->completed);
	while (f->unanswered) {
		T_EQ(kvc_wait_cqe(f->k, WAIT_NS, &c), 0);
		kvc_cqe_seen(f->k);
		f->unanswered--;
	}
}

uint64_t fuzzer_turn(struct fuzzer *f, uint64_t *rnd)
{
	uint64_t n;

	fuzzer_advance(f, rnd);
	n = fuzzer_batch(f, rnd);
	while (f->unanswered > 16 && f->completed < f->submitted)
		kvc_step_complete(f->k, 0, ++f->completed);
	do
		fuzzer_reap(f);
	while (f->unanswered > 24);
	return n;
}
