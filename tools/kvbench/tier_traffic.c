// SPDX-License-Identifier: Apache-2.0
/*
 * tier_traffic.c - see tier_traffic.h.
 */
#include "tools/kvbench/tier_traffic.h"

#define EXTEND_NS	2000000000ull	/* an allocation waits for room so long */

static void chain_keys(const struct traffic *t, unsigned seq, uint64_t chain)
{
	uint8_t *to = t->args + (size_t)seq * t->chain_blocks * KVMD_KEY_BYTES;

	for (uint32_t i = 0; i < t->chain_blocks; i++)
		bench_key(chain * t->chain_blocks + i, to + (size_t)i * KVMD_KEY_BYTES);
}

static uint64_t keys_off(const struct traffic *t, unsigned seq)
{
	return t->args_off + (uint64_t)seq * t->chain_blocks * KVMD_KEY_BYTES;
}

/* Sequences are closed before they are opened again. */
#define GEN	1u

/* The next entry of @seq; @counts: its result is a number of blocks. */
static struct kvmd_sqe *entry(struct traffic *t, unsigned seq, bool counts)
{
	struct kvmd_sqe *e = kvc_get_sqe(t->k);

	if (!e)
		kvb_die("the ring is full");
	e->user_data = seq << 1 | counts;
	t->pending[seq]++;
	return e;
}

static void start_write(struct traffic *t, unsigned seq)
{
	chain_keys(t, seq, t->nr_chains++);
	kvc_prep_open(entry(t, seq, false), seq, GEN, keys_off(t, seq), 0, 0, 0);
	kvc_prep_extend(entry(t, seq, false), seq, GEN, 0, t->chain_blocks,
			time_ns() + EXTEND_NS);
	kvc_prep_publish(entry(t, seq, false), seq, GEN, 0, 0, keys_off(t, seq),
			 t->chain_blocks, 0);
	kvc_prep_close(entry(t, seq, false), seq, GEN, 0, 0);
}

static void start_read(struct traffic *t, unsigned seq)
{
	struct kvmd_sqe *e;

	if (t->next_read < t->read_first || t->next_read >= t->read_end)
		t->next_read = t->read_first;
	chain_keys(t, seq, t->next_read++);
	e = entry(t, seq, true);
	kvc_prep_open(e, seq, GEN, keys_off(t, seq), t->chain_blocks, 0, 0);
	e->flags |= KVMD_OPEN_LOAD | KVMD_OPEN_WAIT;
	kvc_prep_close(entry(t, seq, false), seq, GEN, 0, 0);
}

static void __attribute__((noreturn)) session_over(const struct traffic *t, int err)
{
	kvmd_show_log(t->p);
	kvb_die("%s: the session ended: %s", t->p->name, kvc_strerror(err));
}

static bool reap(struct traffic *t)
{
	struct kvmd_cqe c[32];
	int nr = kvc_reap(t->k, c, ARRAY_SIZE(c));

	if (nr < 0)
		session_over(t, nr);
	for (int i = 0; i < nr; i++) {
		t->pending[c[i].user_data >> 1]--;
		if (c[i].res < 0)
			t->nr_refused++;
		else if (c[i].user_data & 1)
			t->nr_short += (uint32_t)c[i].res < t->chain_blocks;
	}
	return nr > 0;
}

bool traffic_pump(struct traffic *t, unsigned writers, unsigned readers)
{
	bool did = reap(t), queued = false;

	if (interrupted)
		kvb_die("interrupted");
	for (unsigned i = 0; i < TRAFFIC_SEQS; i++) {
		bool write = i < writers;

		/* Readers are the last ones, so that they are the same whoever writes. */
		if (t->pending[i] || (write ? !t->may_write : i < TRAFFIC_SEQS - readers))
			continue;
		t->writing[i] = write;
		t->may_write -= write;
		if (write)
			start_write(t, i);
		else
			start_read(t, i);
		queued = true;
	}
	if (queued) {
		int err = kvc_submit(t->k);

		if (err < 0)
			session_over(t, err);
	}
	return did || queued;
}

unsigned traffic_writing(const struct traffic *t)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < TRAFFIC_SEQS; i++)
		nr += t->pending[i] && t->writing[i];
	return nr;
}

void traffic_wait(struct traffic *t)
{
	const struct kvmd_cqe *c;
	int err = kvc_wait_cqe(t->k, 1000000, &c);

	if (err && err != -ETIMEDOUT)
		session_over(t, err);
}

void traffic_drain(struct traffic *t)
{
	const uint64_t until = time_ns() + 30000000000ull;
	unsigned left;

	do {
		left = 0;
		if (!reap(t))
			traffic_wait(t);
		for (unsigned i = 0; i < TRAFFIC_SEQS; i++)
			left += t->pending[i];
		if (time_ns() > until)
			kvb_die("%u requests of the traffic never ended", left);
	} while (left);
}

/* Fill the pool's memory once, so that it is there and is not all zeroes. */
static void fill(struct traffic *t, uint32_t slots)
{
	const struct kvc_view *v = kvc_view(t->k);
	const volatile int32_t *row = kvc_row(v, 0, 0);
	uint32_t nr = slots - slots / 8;
	int res;

	kvc_prep_open(kvc_get_sqe(t->k), 0, GEN, t->args_off, 0, 0, 0);
	client_wait(t->k, NULL);
	kvc_prep_extend(kvc_get_sqe(t->k), 0, GEN, 0, nr, time_ns() + 30000000000ull);
	res = client_wait(t->k, NULL);
	for (uint32_t i = 0; res >= 0 && i < nr; i++) {
		uint8_t *p = (uint8_t *)kvc_addr(v, 0, 0, 0, (uint32_t)row[i]);
		uint64_t x = i + 1;

		for (uint64_t k = 0; k < t->block; k += sizeof(x)) {
			x = x * 6364136223846793005ull + 1442695040888963407ull;
			memcpy(p + k, &x, sizeof(x));
		}
	}
	kvc_prep_close(kvc_get_sqe(t->k), 0, GEN, 0, 0);
	client_wait(t->k, NULL);
	if (res < 0)
		kvb_die("the pool of %u blocks gives none: %s", slots, kvc_strerror(res));
}

void traffic_init(struct traffic *t, struct kvmd_proc *p, uint64_t block, uint64_t slots)
{
	*t = (struct traffic) {
		.p = p, .block = block, .chain_blocks = (uint32_t)(TRAFFIC_CHAIN / block),
	};
	t->k = client_open(p, slots, TRAFFIC_SEQS);
	t->args = (uint8_t *)kvc_args_alloc(t->k, TRAFFIC_SEQS * (size_t)t->chain_blocks *
					    KVMD_KEY_BYTES, &t->args_off);
	if (!t->args)
		kvb_die("no room for keys");
	fill(t, (uint32_t)slots);
}

void traffic_exit(struct traffic *t)
{
	kvc_destroy(t->k);
	t->k = NULL;
}
