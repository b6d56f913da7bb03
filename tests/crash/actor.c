/* SPDX-License-Identifier: Apache-2.0 */
/*
 * actor.c - see actor.h.
 */
#include "tests/crash/actor.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define CALL_WAIT	5000000000ull	/* an extension waits so long for memory */

/* What an operation came to: gone, or something that the caller looks at. */
#define GONE(res)	((res) == -ECONNRESET)

void actor_space(struct kvc_space *s, uint32_t space)
{
	plain_space(s, space ? "crash-b" : "crash-a", ACTOR_SLOTS);
	s->group[0].plane_bytes = test_bytes(16384);
	if (space) {			/* gathered from four places: 64 KiB, and coded */
		s->nr_shards = 2;
		s->group[0].planes = 2;
		s->group[0].codec = (struct kvmd_codec) {
			.id = KVMD_CODEC_WINDOW, .dtype = KVMD_DTYPE_BF16, .parts = 4,
			.channels = (uint16_t)(s->group[0].plane_bytes / (4 * BT * 2)), .kv_run = 1,
		};
	}
}

static uint64_t below(struct actor *a, uint64_t n)
{
	return test_random(&a->rnd) % n;
}

/* fill() adds shard, plane and position in the plane from bits 20 and 40 on. */
static uint64_t word_of(const struct actor *a, uint32_t stream, uint32_t pos)
{
	return a->epoch << 54 | (uint64_t)a->space << 53 | stream << 5 | pos;
}

static uint64_t private_word(const struct actor_seq *q, uint32_t pos)
{
	return 1ull << 63 | (uint64_t)(q->tag & 1023) << 10 | pos;
}

/* In space 1 every second block has values that its codec takes. */
static bool is_calm(const struct actor *a, uint64_t word)
{
	return a->space && word % 2;
}

/* Of plane @n, counted over all shards, of block @word: four values. */
static uint64_t calm_word(uint64_t word, uint64_t n, uint64_t i)
{
	uint64_t h = (word ^ n << 56 ^ i << 32) * 0x9e3779b97f4a7c15ull;

	return 0x3f803f803f803f80ull ^ ((h ^ h >> 29) & 0x03ff03ff03ff03ffull);
}

/* Write the block, or compare it: true when it is as it should be. */
static bool calm(struct actor *a, uint32_t slot, uint64_t word, bool write)
{
	static uint64_t buf[1 << 17];
	const struct kvc_view *v = kvc_view(a->k);
	const struct kvc_group_view *g = &v->group[0];
	uint64_t nr = g->plane_bytes / 8;

	T(g->plane_bytes <= sizeof(buf));
	for (uint32_t n = 0; n < g->nr_shards * g->planes; n++) {
		uint32_t sh = n / g->planes, p = n % g->planes;

		for (uint64_t i = 0; write && i < nr; i++)
			buf[i] = calm_word(word, n, i);
		if (write) {
			T_EQ(kvc_mem_put(a->k, kvc_addr(v, 0, sh, p, slot), buf, 8 * nr), 0);
			continue;
		}
		T_EQ(kvc_mem_get(a->k, buf, kvc_addr_ro(v, 0, sh, p, slot), 8 * nr), 0);
		for (uint64_t i = 0; i < nr; i++)
			if (buf[i] != calm_word(word, n, i))
				return false;
	}
	return true;
}

static void put(struct actor *a, uint32_t slot, uint64_t word)
{
	if (is_calm(a, word))
		calm(a, slot, word, true);
	else
		fill(a->k, 0, slot, word);
}

static bool has(struct actor *a, uint32_t slot, uint64_t word)
{
	return is_calm(a, word) ? calm(a, slot, word, false) : holds(a->k, 0, slot, word);
}

bool actor_init(struct actor *a, struct hd *d, struct actor_shared *sh, uint32_t space,
		uint64_t seed)
{
	struct kvc_space s;
	struct kvc_opts o;
	int err;

	memset(a, 0, sizeof(*a));
	a->rnd = seed;
	a->space = space;
	a->sh = sh;
	actor_space(&s, space);
	opts_for(d, &o);
	o.max_seqs = ACTOR_SEQS;
	o.max_tokens = ACTOR_SLOTS * BT;
	o.wait_ns = a->sh->wait_ns;
	err = kvc_create(&o, &s, &a->k);
	if (err == -ECONNREFUSED || err == -ENOENT || err == -ECONNRESET)
		return false;
	if (err)
		fprintf(stderr, "kvc_create: %s: %s\n", kvc_strerror(err), kvc_refusal());
	T_EQ(err, 0);
	a->epoch = kvc_epoch(a->k);
	/* What was acknowledged is never forgotten. */
	if (!space)
		T(a->epoch >= sh->epoch);
	return true;
}

void actor_exit(struct actor *a)
{
	kvc_destroy(a->k);
	a->k = NULL;
}

/* Blocks [0, n) of the sequence hold what their keys, or their owner, say. */
static void compare(struct actor *a, uint32_t seq, uint32_t n)
{
	const struct actor_seq *q = &a->seq[seq];

	for (uint32_t i = 0; i < n; i++) {
		int32_t slot = slot_at(a->k, 0, seq, i);
		bool mine = i >= q->len - q->private;
		uint64_t word = mine ? private_word(q, i) : word_of(a, q->stream, i);

		T(slot > 0);
		if (!has(a, (uint32_t)slot, word))
			fprintf(stderr, "space %u epoch %llu chain %u block %u of %u: wrong bytes "
				"in slot %d\n", a->space, (unsigned long long)a->epoch, q->stream,
				i, n, slot);
		T(has(a, (uint32_t)slot, word));
	}
}

static bool close_seq(struct actor *a, uint32_t seq)
{
	struct actor_seq *q = &a->seq[seq];
	int res = kvc_seq_close(a->k, seq, q->gen, 0, 0);

	if (GONE(res))
		return false;
	T_EQ(res, 0);
	q->open = false;
	return true;
}

static bool close_all(struct actor *a)
{
	for (uint32_t i = 0; i < ACTOR_SEQS; i++)
		if (a->seq[i].open && !close_seq(a, i))
			return false;
	return true;
}

/* Private blocks at the end, filled; how many (0: no memory), or -ECONNRESET. */
static int extend(struct actor *a, uint32_t seq, uint32_t nr)
{
	struct actor_seq *q = &a->seq[seq];
	int res = kvc_seq_extend(a->k, seq, q->gen, 0, nr, 0, CALL_WAIT, NULL);

	if (res == -ENOMEM || res == -EAGAIN || res == -EDEADLK || res == -ETIMEDOUT)
		return 0;
	if (!GONE(res))
		T_EQ(res, nr);
	return res;
}

/* Open a chain over all tiers, compare, compute what is missing, publish it. */
static bool open_chain(struct actor *a, uint32_t seq)
{
	struct actor_seq *q = &a->seq[seq];
	unsigned char keys[ACTOR_CHAIN][KEY];
	uint32_t want = 1 + (uint32_t)below(a, ACTOR_CHAIN), have;
	uint16_t flags = below(a, 8) ? KVMD_OPEN_LOAD | KVMD_OPEN_WAIT : 0;
	int res;

	*q = (struct actor_seq) { .gen = ++a->gen, .stream = (uint32_t)below(a, ACTOR_STREAMS) };
	make_keys(keys, q->stream, 0, want);
	res = kvc_seq_open(a->k, seq, q->gen, keys, want, want * BT, 0, flags, NULL);
	if (GONE(res))
		return false;
	T(res >= 0 && res <= (int)want);
	q->open = true;
	q->len = have = (uint32_t)res;
	compare(a, seq, have);
	if (have == want)
		return true;
	res = extend(a, seq, want - have);
	if (res <= 0)
		return !GONE(res) && close_seq(a, seq);
	for (uint32_t i = have; i < want; i++)
		put(a, (uint32_t)slot_at(a->k, 0, seq, i), word_of(a, q->stream, i));
	res = kvc_seq_publish(a->k, seq, q->gen, 0, have, keys[have], want - have, 0, NULL);
	if (GONE(res))
		return false;
	/* Behind a block that lost its bytes nothing can be published: the rest stays private. */
	T(res >= 0 && res <= (int)(want - have));
	a->sh->nr_unpublished += want - have - (uint32_t)res;
	q->len = want;
	return true;
}

static bool grow(struct actor *a, uint32_t seq)
{
	struct actor_seq *q = &a->seq[seq];
	uint32_t nr = 1 + (uint32_t)below(a, 4);
	int res;

	if (q->private)
		return true;
	res = extend(a, seq, nr);
	if (res <= 0)
		return !GONE(res);
	q->tag = ++a->tag;
	q->private = nr;
	q->len += nr;
	for (uint32_t i = q->len - nr; i < q->len; i++)
		put(a, (uint32_t)slot_at(a->k, 0, seq, i), private_word(q, i));
	return true;
}

/* One entry; its res, or -ECONNRESET. */
static int one(struct actor *a, struct kvmd_sqe *e)
{
	const struct kvmd_cqe *c;
	int res;

	e->user_data = 1;
	res = kvc_submit(a->k);
	if (res >= 0)
		res = kvc_wait_cqe(a->k, WAIT_NS, &c);
	if (GONE(res))
		return res;
	T_EQ(res, 0);
	T_EQ(c->user_data, 1);
	res = c->res;
	kvc_cqe_seen(a->k);
	return res;
}

static bool swap(struct actor *a, uint32_t seq)
{
	struct actor_seq *q = &a->seq[seq];
	struct kvmd_sqe *e = kvc_get_sqe(a->k);
	int res;

	T(e);
	if (!q->swapped) {
		kvc_prep_swap_out(e, seq, q->gen, 0);
		res = one(a, e);
		if (GONE(res))
			return false;
		T(res >= 0 || res == -ENOSPC || res == -EOPNOTSUPP);
		q->swapped = res >= 0;
		return true;
	}
	kvc_prep_swap_in(e, seq, q->gen, 0);
	res = one(a, e);
	if (GONE(res))
		return false;
	if (res == -ENOMEM || res == -EAGAIN || res == -EDEADLK || res == -EIO)
		return close_seq(a, seq);
	T(res >= 0);
	q->swapped = false;
	compare(a, seq, q->len);
	return true;
}

static bool advise(struct actor *a)
{
	static const uint32_t what[] = { KVMD_ADV_DROP, KVMD_ADV_COLD, KVMD_ADV_WILLNEED };
	uint32_t nr = 1 + (uint32_t)below(a, ACTOR_CHAIN), w = what[below(a, 3)];
	unsigned char keys[ACTOR_CHAIN][KEY];
	int res;

	make_keys(keys, (uint32_t)below(a, ACTOR_STREAMS), 0, nr);
	res = kvc_advise_keys(a->k, w, 0, keys, nr, 0);
	if (!GONE(res))
		T(res >= 0);
	return !GONE(res);
}

/* Everything that this process has open is of the old epoch, and ends. */
static bool raise_epoch(struct actor *a)
{
	uint64_t epoch;
	int res;

	a->doubt = UINT32_MAX;
	if (!close_all(a))
		return false;
	res = kvc_epoch_raise(a->k, &epoch);
	if (GONE(res))
		return false;
	T_EQ(res, 0);
	T(epoch > a->epoch);
	a->sh->epoch = a->epoch = epoch;
	return true;
}

bool actor_turn(struct actor *a)
{
	uint32_t seq = (uint32_t)below(a, ACTOR_SEQS);
	struct actor_seq *q = &a->seq[seq];
	uint64_t dice = below(a, 100);

	a->sh->nr_rounds++;
	a->doubt = 1u << seq;
	if (!a->space && !below(a, 300))
		return raise_epoch(a);
	if (dice < 5)
		return advise(a);
	if (!q->open)
		return open_chain(a, seq);
	if (q->swapped || dice < 15)
		return swap(a, seq);
	if (dice < 30)
		return grow(a, seq);
	if (dice < 40)
		compare(a, seq, q->len);
	return close_seq(a, seq);
}

bool actor_verify(struct actor *a)
{
	unsigned char keys[ACTOR_CHAIN][KEY];
	struct actor_seq *q = &a->seq[0];

	if (!close_all(a))
		return false;
	for (uint32_t s = 0; s < ACTOR_STREAMS; s++) {
		int res;

		*q = (struct actor_seq) { .open = true, .gen = ++a->gen, .stream = s };
		make_keys(keys, s, 0, ACTOR_CHAIN);
		res = kvc_seq_open(a->k, 0, q->gen, keys, ACTOR_CHAIN, ACTOR_CHAIN * BT, 0,
				   KVMD_OPEN_LOAD | KVMD_OPEN_WAIT, NULL);
		if (GONE(res))
			return false;
		T(res >= 0 && res <= (int)ACTOR_CHAIN);
		q->len = (uint32_t)res;
		compare(a, 0, q->len);
		a->sh->nr_hit += q->len;
		a->sh->nr_asked += ACTOR_CHAIN;
		if (!close_seq(a, 0))
			return false;
	}
	return true;
}

/* What the last turn was about may have taken effect or not: it ends. */
static bool settle(struct actor *a)
{
	for (uint32_t i = 0; i < ACTOR_SEQS; i++) {
		if (!(a->doubt >> i & 1))
			continue;
		if (GONE(kvc_seq_close(a->k, i, a->seq[i].gen, 0, 0)))
			return false;
		a->seq[i].open = false;
	}
	a->doubt = 0;
	return true;
}

/* Whatever is open is as it was. */
static bool same(struct actor *a)
{
	for (uint32_t i = 0; i < ACTOR_SEQS; i++) {
		if (!a->seq[i].open)
			continue;
		if (!a->seq[i].swapped) {
			compare(a, i, a->seq[i].len);
			continue;
		}
		a->doubt = 1u << i;
		if (!swap(a, i))
			return false;
	}
	a->doubt = 0;
	return true;
}

int actor_reconnect(struct actor *a)
{
	struct kvmd_cqe c[4];
	int res;

	do
		res = kvc_reconnect(a->k);	/* waits for a daemon */
	while (res == -ECONNREFUSED || res == -ENOENT || GONE(res));
	if (res < 0)
		fprintf(stderr, "kvc_reconnect: %s: %s\n", kvc_strerror(res), kvc_refusal());
	T(res == 0 || res == 1);
	a->epoch = kvc_epoch(a->k);
	if (!a->space)
		T(a->epoch >= a->sh->epoch);
	if (!res) {
		memset(a->seq, 0, sizeof(a->seq));
		return 0;
	}
	while (kvc_reap(a->k, c, 4) > 0)
		;			/* what was under way has ended, so it says */
	return settle(a) && same(a) ? 1 : -ECONNRESET;
}
