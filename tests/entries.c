/* SPDX-License-Identifier: Apache-2.0 */
/*
 * entries.c - random entries; see entries.h.
 */
#include "tests/entries.h"
#include "tests/harness.h"

#include <string.h>

#define CHAINS	4u

static uint32_t below(uint64_t *rnd, uint32_t n)
{
	return n ? (uint32_t)(test_random(rnd) % n) : 0;
}

static uint32_t few(uint64_t *rnd, const struct entry_bounds *b)
{
	return below(rnd, 8) ? below(rnd, 12) : below(rnd, b->max_blocks + 1);
}

static void put_seq(uint64_t *rnd, const struct entry_bounds *b, struct kvmd_sqe *e)
{
	e->seq = below(rnd, b->max_seqs);
	e->seq_gen = below(rnd, 32) ? 1 : 2;
}

static void put_keys(uint64_t *rnd, const struct entry_bounds *b, struct kvmd_sqe *e, uint32_t nr)
{
	uint64_t most = b->args_bytes / KEY;

	e->nr = nr > most ? (uint32_t)most : nr;
	/* Chains start at multiples of their length: mostly from there. */
	e->off = below(rnd, CHAINS) * (most / CHAINS) * KEY;
	if (e->off + (uint64_t)e->nr * KEY > b->args_bytes)
		e->off = 0;
}

static void put_step(uint64_t *rnd, const struct entry_bounds *b, struct kvmd_sqe *e)
{
	e->step = below(rnd, 2) ? 0 : b->submitted;
}

static void advise(uint64_t *rnd, const struct entry_bounds *b, struct kvmd_sqe *e)
{
	e->arg = below(rnd, KVMD_NR_ADV);
	if (e->arg == KVMD_ADV_PRIORITY)
		e->aux = KVMD_PRIO(below(rnd, 101), below(rnd, 3) * 1000);
	else if (e->arg == KVMD_ADV_TTL)
		e->aux = below(rnd, 3) * 100;
	if (below(rnd, 2)) {
		e->flags = KVMD_ADVISE_SEQ;
		put_seq(rnd, b, e);
		e->first = below(rnd, 4);
		e->nr = below(rnd, 4);
	} else {
		put_keys(rnd, b, e, few(rnd, b));
	}
}

/* Mostly none, or what kvc_seq_open() asks for. */
static const uint16_t open_flags[] = {
	0, 0, 0, 0, KVMD_OPEN_LOAD | KVMD_OPEN_WAIT, KVMD_OPEN_LOAD | KVMD_OPEN_WAIT,
	KVMD_OPEN_LOAD | KVMD_OPEN_WAIT | KVMD_OPEN_NO_STORE, KVMD_OPEN_LOAD, KVMD_OPEN_LOAD,
	KVMD_OPEN_LOAD | KVMD_OPEN_BY_PLANE, KVMD_OPEN_NO_STORE, KVMD_OPEN_NO_HIT,
};

/* Fields behind seq and group. */
static void put_fields(uint64_t *rnd, const struct entry_bounds *b, struct kvmd_sqe *e)
{
	switch (e->opcode) {
	case KVMD_OP_SEQ_OPEN:
		put_keys(rnd, b, e, few(rnd, b));
		e->flags = open_flags[below(rnd, sizeof(open_flags) / sizeof(open_flags[0]))];
		e->arg = below(rnd, 4) ? 0 : KVMD_HINT_WILL_CONTINUE;
		e->group = 0;
		break;
	case KVMD_OP_SEQ_EXTEND:
		e->nr = 1 + few(rnd, b);
		e->flags = below(rnd, 4) ? KVMD_EXTEND_NOWAIT : 0;
		e->aux = e->flags ? 0 : 1;	/* a deadline that is over: look once */
		break;
	case KVMD_OP_SEQ_PUBLISH:
		put_keys(rnd, b, e, 1 + below(rnd, 8));
		e->first = below(rnd, 4) ? 0 : below(rnd, 8);
		put_step(rnd, b, e);
		break;
	case KVMD_OP_SEQ_FORK:
		e->group = 0;
		e->first = (e->seq + 1 + below(rnd, b->max_seqs - 1)) % b->max_seqs;
		e->arg = 1;
		e->aux = 1;
		put_step(rnd, b, e);
		break;
	case KVMD_OP_SEQ_UNSHARE:
		e->first = below(rnd, 8);
		e->aux = 1;
		put_step(rnd, b, e);
		break;
	case KVMD_OP_SEQ_TRIM:
		e->flags = (uint16_t)below(rnd, 3);
		e->first = below(rnd, 8);
		e->nr = e->flags == KVMD_TRIM_TAIL ? 0 : below(rnd, 6);
		put_step(rnd, b, e);
		break;
	case KVMD_OP_SEQ_REPLACE:
		e->flags = (uint16_t)below(rnd, 2);
		e->first = below(rnd, 6);
		e->nr = 1 + below(rnd, 4);
		e->arg = below(rnd, e->nr + 1);
		put_step(rnd, b, e);
		break;
	default:
		break;
	}
}

static const uint8_t weights[] = {
	KVMD_OP_SEQ_OPEN, KVMD_OP_SEQ_OPEN, KVMD_OP_SEQ_OPEN, KVMD_OP_SEQ_EXTEND,
	KVMD_OP_SEQ_EXTEND, KVMD_OP_SEQ_EXTEND, KVMD_OP_SEQ_PUBLISH, KVMD_OP_SEQ_PUBLISH,
	KVMD_OP_SEQ_PUBLISH, KVMD_OP_SEQ_CLOSE, KVMD_OP_SEQ_CLOSE, KVMD_OP_SEQ_FORK,
	KVMD_OP_SEQ_UNSHARE, KVMD_OP_SEQ_TRIM, KVMD_OP_SEQ_REPLACE, KVMD_OP_SEQ_SEND,
	KVMD_OP_SEQ_RECV, KVMD_OP_SEQ_SWAP_OUT, KVMD_OP_SEQ_SWAP_IN, KVMD_OP_SEQ_SWAP_IN,
	KVMD_OP_SEQ_WAIT, KVMD_OP_CANCEL, KVMD_OP_LOOKUP, KVMD_OP_ADVISE, KVMD_OP_NOP,
};

void random_good_entry(uint64_t *rnd, const struct entry_bounds *b, struct kvmd_sqe *e)
{
	memset(e, 0, sizeof(*e));
	e->opcode = weights[below(rnd, sizeof(weights))];
	e->user_data = below(rnd, 64);
	switch (e->opcode) {
	case KVMD_OP_NOP:
		return;
	case KVMD_OP_CANCEL:
		e->aux = below(rnd, 64);
		return;
	case KVMD_OP_LOOKUP:
		e->group = (uint8_t)below(rnd, b->nr_groups);
		put_keys(rnd, b, e, few(rnd, b));
		return;
	case KVMD_OP_ADVISE:
		e->group = (uint8_t)below(rnd, b->nr_groups);
		advise(rnd, b, e);
		return;
	case KVMD_OP_SEQ_RECV:
		put_seq(rnd, b, e);
		e->aux = test_random(rnd);
		return;
	case KVMD_OP_SEQ_SWAP_IN:
		put_seq(rnd, b, e);
		e->aux = 1;
		return;
	case KVMD_OP_SEQ_WAIT:
		put_seq(rnd, b, e);
		e->first = few(rnd, b);
		return;
	case KVMD_OP_SEQ_SEND:
	case KVMD_OP_SEQ_SWAP_OUT:
	case KVMD_OP_SEQ_CLOSE:
		put_seq(rnd, b, e);
		put_step(rnd, b, e);
		return;
	default:
		put_seq(rnd, b, e);
		e->group = (uint8_t)below(rnd, b->nr_groups);
		put_fields(rnd, b, e);
	}
}

void random_entry(uint64_t *rnd, const struct entry_bounds *b, struct kvmd_sqe *e)
{
	uint64_t w[sizeof(*e) / 8];

	random_good_entry(rnd, b, e);
	if (below(rnd, 16))
		return;
	memcpy(w, e, sizeof(w));
	if (below(rnd, 2))
		w[below(rnd, 8)] ^= 1ull << below(rnd, 64);
	else
		w[below(rnd, 8)] = test_random(rnd) >> below(rnd, 64);
	memcpy(e, w, sizeof(w));
	/* A deadline in the far future would be waited for. */
	if (e->opcode == KVMD_OP_SEQ_EXTEND || e->opcode == KVMD_OP_SEQ_FORK ||
	    e->opcode == KVMD_OP_SEQ_UNSHARE || e->opcode == KVMD_OP_SEQ_SWAP_IN)
		e->aux = e->aux != 0;
}

void random_keys(uint64_t *rnd, void *args, uint64_t bytes)
{
	uint32_t most = (uint32_t)(bytes / KEY), per = most / CHAINS;
	unsigned char (*keys)[KEY] = args;

	(void)rnd;
	for (uint32_t c = 0; c < CHAINS; c++)
		make_keys(keys + c * per, c, 0, per);
}
