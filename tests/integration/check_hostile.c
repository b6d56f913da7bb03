/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_hostile.c - a client that rewrites what it shares with the daemon while
 * the daemon reads it, and one that floods it: neither hurts anybody else.
 */
#include "tests/entries.h"
#include "tests/harness.h"
#include "tests/raw.h"

#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POOL	"[pool]\npolicy = lru\nslab_bytes = 1M\nblocks = 8192\nslab_deadline = 5ms\n" \
		"alloc_timeout = 20ms\nticket_timeout = 20ms\n[tenant vandals]\n"

#define VANDALS	12
#define WRITES	60000u

static struct hd d;

/* ----------------------------------------------------------------------- vandals */

struct vandal {
	struct raw r;
	uint64_t rnd;
	bool wild;		/* indices and lanes too: its session ends soon */
	const bool *stop;
};

static void scribble_word(struct vandal *v, uint64_t *at)
{
	uint64_t w = test_random(&v->rnd);

	switch (w % 4) {
	case 0:
		__atomic_store_n(at, w, __ATOMIC_RELAXED);
		break;
	case 1:
		__atomic_store_n(at, w >> (w % 64), __ATOMIC_RELAXED);
		break;
	default:
		__atomic_fetch_xor(at, 1ull << (w >> 8) % 64, __ATOMIC_RELAXED);
		break;
	}
}

static void scribble(struct vandal *v)
{
	uint64_t w = test_random(&v->rnd);
	uint32_t nr = (v->r.sq_mask + 1) * (uint32_t)sizeof(struct kvmd_sqe) / 8;

	if (w % 2)
		scribble_word(v, (uint64_t *)(void *)v->r.sq + (w >> 8) % nr);
	else
		scribble_word(v, (uint64_t *)(void *)v->r.args + (w >> 8) % 8192);
	if (!v->wild || w >> 40 & 0x3fff)
		return;
	if (w >> 32 & 1)
		scribble_word(v, (uint64_t *)(void *)v->r.ring + (w >> 8) % 512);
	else
		scribble_word(v, (uint64_t *)(void *)v->r.steps + (w >> 8) % 512);
}

/* The second thread: at entries and arguments while the daemon looks at them. */
static void *scribbler(void *arg)
{
	struct vandal *v = arg;

	while (!__atomic_load_n(v->stop, __ATOMIC_RELAXED))
		scribble(v);
	return NULL;
}

static bool ended(struct vandal *v)
{
	return __atomic_load_n(&v->r.ring->ended, __ATOMIC_RELAXED) != 0;
}

/* Submit without looking at what comes back; completions are taken unread. */
static void submit(struct vandal *v, const struct entry_bounds *b)
{
	uint64_t *at = (uint64_t *)(void *)&v->r.sq[v->r.tail & v->r.sq_mask], w[8];
	struct kvmd_sqe e;
	uint32_t head = __atomic_load_n(&v->r.ring->sq_head, __ATOMIC_ACQUIRE);

	__atomic_store_n(&v->r.ring->cq_head,
			 __atomic_load_n(&v->r.ring->cq_tail, __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
	if (v->r.tail - head > v->r.sq_mask)
		return;
	random_entry(&v->rnd, b, &e);
	e.pos = v->r.tail + 1;
	memcpy(w, &e, sizeof(w));
	for (int i = 0; i < 8; i++)
		__atomic_store_n(&at[i], w[i], __ATOMIC_RELEASE);
	__atomic_store_n(&v->r.ring->sq_tail, ++v->r.tail, __ATOMIC_RELEASE);
	if (v->r.tail % 16 == 0)
		raw_ring(&v->r);
}

static void vandal(struct peer *me, struct hd *hd, void *arg)
{
	struct entry_bounds b = {
		.max_seqs = 16, .nr_groups = 1, .max_blocks = 256, .args_bytes = 65536,
	};
	struct vandal v = { .rnd = *(uint64_t *)arg, .wild = *(uint64_t *)arg % 2 }, second;
	bool stop = false;
	struct kvmd_hello h;
	struct kvmd_space s;
	pthread_t t;

	raw_connect(&v.r, hd);
	raw_hello_init(&h);
	memcpy(h.tenant, "vandals", 7);
	T_EQ(raw_hello(&v.r, &h, NULL), 0);
	raw_space_init(&s, "theirs", 128);
	T_EQ(raw_space(&v.r, &s, NULL), 0);
	random_keys(&v.rnd, v.r.args, 65536);
	v.stop = &stop;
	second = v;
	second.rnd ^= 0x1234567;
	T(!pthread_create(&t, NULL, scribbler, &second));
	for (uint32_t i = 0; i < WRITES && !ended(&v); i++) {
		if (i % 64 == 0) {
			__atomic_store_n(&v.r.ring->submitted_step, ++b.submitted,
					 __ATOMIC_RELEASE);
			__atomic_store_n(&v.r.steps->lane[0].completed_step, b.submitted - 1,
					 __ATOMIC_RELEASE);
		}
		submit(&v, &b);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	T(!pthread_join(t, NULL));
	say(me, 1);
	peer_halt(me);
}

/* What an honest client does meanwhile: its bytes are its own. */
static void honest_round(struct kvc *k, uint32_t stream)
{
	unsigned char keys[8][KEY];

	open_publish(k, 1, 8, stream);
	make_keys(keys, stream, 0, 8);
	T_EQ(kvc_seq_open(k, 2, 1, keys, 8, 8 * BT, 0, 0, NULL), 8);
	for (uint32_t i = 0; i < 8; i++)
		T(holds(k, 0, (uint32_t)slot_at(k, 0, 2, i), ((uint64_t)stream << 8) + i));
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	T_EQ(kvc_seq_close(k, 2, 1, 0, 0), 0);
}

START_TEST(a_vandal_hurts_only_itself)
{
	uint64_t seed = test_seed();
	struct kvc_space sp;
	struct kvc_opts o;
	struct kvc *k;
	struct peer p;

	hd_start(&d, POOL);
	k = plain_client(&d, "ours", 64);
	for (uint32_t i = 0; i < VANDALS; i++) {
		uint64_t s = (seed & ~1ull) + i;

		peer_start(&p, &d, vandal, &s, sizeof(s));
		for (uint32_t n = 0; n < 50; n++)
			honest_round(k, 1000 + i * 50 + n);
		T_EQ(hear(&p), 1);
		peer_kill(&p);
		hd_check(&d);
	}
	whole_pool(k, 64);
	kvc_destroy(k);
	/* All that the vandals held is back too. */
	opts_for(&d, &o);
	o.tenant = "vandals";
	plain_space(&sp, "theirs", 128);
	k = client_opts(&d, &sp, &o);
	whole_pool(k, 128);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* In the same space it can hide nothing and change no byte through the daemon. */
static void neighbour(struct peer *me, struct hd *hd, void *arg)
{
	uint64_t rnd = *(uint64_t *)arg;
	struct entry_bounds b = {
		.max_seqs = 16, .nr_groups = 1, .max_blocks = 256, .args_bytes = 65536,
	};
	struct vandal v = { .rnd = rnd };

	raw_open(&v.r, hd, "ours", 64);
	random_keys(&v.rnd, v.r.args, 65536);
	for (uint32_t i = 0; i < WRITES && !ended(&v); i++)
		submit(&v, &b);
	say(me, 1);
	peer_halt(me);
}

START_TEST(a_bad_neighbour_in_the_same_space)
{
	uint64_t seed = test_seed();
	unsigned char keys[8][KEY];
	struct kvc *k;
	struct peer p;

	hd_start(&d, POOL);
	k = plain_client(&d, "ours", 64);
	open_publish(k, 1, 8, 77);
	make_keys(keys, 77, 0, 8);
	peer_start(&p, &d, neighbour, &seed, sizeof(seed));
	for (uint32_t n = 0; n < 200; n++) {
		T_EQ(kvc_seq_open(k, 2, 1, keys, 8, 8 * BT, 0, 0, NULL), 8);
		for (uint32_t i = 0; i < 8; i++)
			T(holds(k, 0, (uint32_t)slot_at(k, 0, 2, i), (77 << 8) + i));
		T_EQ(kvc_seq_close(k, 2, 1, 0, 0), 0);
	}
	T_EQ(hear(&p), 1);
	peer_kill(&p);
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
	whole_pool(k, 64);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

/* ---------------------------------------------------------------------- flooding */

/* A full ring of long look-ups, all the time. */
static void flooder(struct peer *me, struct hd *hd, void *arg)
{
	struct kvmd_cqe c[256];
	struct kvc_space s;
	struct kvc_opts o;
	struct kvc *k;
	uint64_t off;

	(void)arg;
	plain_space(&s, "flood", 64);
	opts_for(hd, &o);
	o.tenant = "vandals";
	o.sq_entries = 1024;
	k = client_opts(hd, &s, &o);
	T(kvc_args_alloc(k, 2048 * KEY, &off));
	for (uint64_t n = 0;; n++) {
		struct kvmd_sqe *e;

		while ((e = kvc_get_sqe(k))) {
			kvc_prep_lookup(e, 0, off, 2048);
			if (n % 2)
				kvc_prep_nop(memset(e, 0, offsetof(struct kvmd_sqe, pos)));
		}
		T(kvc_submit(k) >= 0);
		T(kvc_reap(k, c, 256) >= 0);
		if (n == 100)
			say(me, 1);
	}
}

START_TEST(a_flood_starves_nobody)
{
	uint64_t ticket;
	struct peer p[2];
	struct kvc *k;

	hd_start(&d, POOL);
	k = plain_client(&d, "ours", 64);
	for (unsigned i = 0; i < 2; i++) {
		peer_start(&p[i], &d, flooder, NULL, 0);
		T_EQ(hear(&p[i]), 1);
	}
	for (uint32_t i = 0; i < 200; i++)
		T_EQ(kvc_nop(k), 0);
	for (uint32_t i = 0; i < 10; i++)
		honest_round(k, i);
	/* What goes by the clock goes on: a ticket ends, and an allocation waits for that. */
	open_extend(k, 3, 64, 0);
	T_EQ(kvc_seq_send(k, 3, 1, 0, &ticket), 0);
	whole_pool(k, 64);
	peer_kill(&p[0]);
	peer_kill(&p[1]);
	kvc_destroy(k);
	hd_stop(&d);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("hostile");
	TCase *t = tcase_create("hostile");
	SRunner *r;
	int failed;

	suite_add_tcase(s, t);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, a_vandal_hurts_only_itself);
	tcase_add_test(t, a_bad_neighbour_in_the_same_space);
	tcase_add_test(t, a_flood_starves_nobody);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
