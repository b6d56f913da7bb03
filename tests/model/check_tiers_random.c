/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_tiers_random.c - random requests over HBM, RAM and disk that are all too
 * small, with faults, in the whole daemon turned by hand.
 *
 * Prompts are paths in a tree of keys; a block's bytes follow from its key, so
 * that every block a sequence is given can be proven. After every few requests
 * everything is compared with everything (core_walk()). A failing seed is printed
 * and can be run alone: KVMD_SEED=n.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/core_rig.h"
#include "tests/quiet.h"

#include "kvmd/lib/clock.h"
#include "kvmd/lib/fault.h"
#include "kvmd/lib/stats.h"

#define BLOCK	32768u
#define SEQS	6u
#define DEPTH	24u
#define STEPS	1500

static struct core c;
static struct core_client cl;
static char dir[64], disk_opt[128];
static uint64_t rnd_state;

static uint32_t rnd(uint32_t below)
{
	rnd_state = rnd_state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(rnd_state >> 33) % below;
}

/* What the test knows of a sequence. */
static struct {
	bool open, swapped;
	uint32_t path[DEPTH];		/* key number of each position */
	uint32_t len, sealed;		/* blocks held; leading ones published */
} seq[SEQS];

/* Key @n: 32 bytes that name it. */
static void key_of(uint32_t n, uint8_t *key)
{
	memset(key, 0, KVMD_KEY_BYTES);
	memcpy(key, &n, sizeof(n));
	key[31] = 7;
}

/* Child @i of key @n: a tree three wide. */
static uint32_t child(uint32_t n, uint32_t i)
{
	return n * 3 + 1 + i;
}

/* As core_do(); what waits for slots is given time, 50 ms at once. */
static struct kvmd_cqe ask(const struct kvmd_sqe *e)
{
	struct kvmd_cqe q;

	core_submit(&cl, e);
	core_settle(&c);
	for (int i = 0; i < 1000; i++) {
		if (core_take(&cl, &q))
			return q;
		c.skew_ns += 50000000;
		core_settle(&c);
	}
	core_ok_msg(false, "entry %u has no completion", e->opcode);
	return q;
}

static void random_path(uint32_t *path, uint32_t nr)
{
	uint32_t n = rnd(4);

	for (uint32_t i = 0; i < nr; i++) {
		path[i] = n;
		/* Mostly the same way, so that prefixes are shared. */
		n = child(n, rnd(8) ? 0 : rnd(3));
		n = n > 1u << 30 ? n % 1000003 + 1000 : n;
	}
}

static uint32_t *bytes_at(uint32_t s, uint32_t pos)
{
	int32_t slot = seq_row(&cl.s->st, s, 0)[pos];

	quiet_assert_int_gt(slot, 0);
	return core_mem(&cl.s->sp->gp[0], (uint32_t)slot, 0, 0);
}

/* Word @k of key @n's block; of most keys they are values that a codec takes. */
static uint32_t word_of(uint32_t n, uint32_t k)
{
	uint32_t w = n * 2654435761u ^ k;	/* k is below 2^13 */

	return n * 2654435761u >> 13 & 3 ? 0x3f803f80u ^ (w & 0x3ff) ^ (w >> 12 & 0x3ff) << 16 : w;
}

static void paint(uint32_t s, uint32_t pos)
{
	uint32_t *p = bytes_at(s, pos);

	for (uint32_t k = 0; k < BLOCK / 4; k++)
		p[k] = word_of(seq[s].path[pos], k);
}

/* @when: what gave the blocks. */
static void prove(uint32_t s, uint32_t first, uint32_t nr, const char *when)
{
	for (uint32_t i = first; i < first + nr; i++) {
		const uint32_t *p = bytes_at(s, i);
		uint32_t id = seq_blocks(&cl.s->st, s, 0)[i];
		const struct block *b = pool_block(c.d->pool, id);

		for (uint32_t k = 0; k < BLOCK / 4; k += 61)
			core_ok_msg(p[k] == word_of(seq[s].path[i], k),
				    "%s: seq %u position %u of %u word %u: wrong byte: key %u, has %x; "
				    "block %u (%s, %u leases, slot %u, ram %u, disk %u, uses %u)", when,
				    s, i, seq[s].len, k, seq[s].path[i], p[k], id,
				    blk_state_name(b->state), b->leases, b->slot, b->ram, b->disk,
				    b->uses);
	}
}

static uint64_t put_keys(uint32_t s, uint32_t first, uint32_t nr, uint8_t *keys)
{
	for (uint32_t i = 0; i < nr; i++)
		key_of(seq[s].path[first + i], keys + i * KVMD_KEY_BYTES);
	return nr;
}

static void do_open(uint32_t s)
{
	uint8_t keys[KVMD_KEY_BYTES * DEPTH];
	uint32_t nr = 1 + rnd(DEPTH - 4), got;
	struct kvmd_sqe e;
	struct kvmd_cqe q;

	random_path(seq[s].path, DEPTH);
	put_keys(s, 0, nr, keys);
	e = core_open(&cl, s, keys, nr);
	if (rnd(8))
		e.flags |= KVMD_OPEN_LOAD;
	if ((e.flags & KVMD_OPEN_LOAD) && rnd(3))
		e.flags |= KVMD_OPEN_WAIT;
	q = ask(&e);
	core_ok_msg(q.res >= 0, "open: %d", q.res);
	seq[s].open = true;
	seq[s].swapped = false;
	if ((e.flags & KVMD_OPEN_LOAD) && !(e.flags & KVMD_OPEN_WAIT)) {
		uint32_t want = (uint32_t)q.res + q.v0;

		e = core_op(KVMD_OP_SEQ_WAIT, s);
		e.first = want;
		q = ask(&e);
		core_ok_msg(q.res >= 0 && (uint32_t)q.res <= want, "wait: %d", q.res);
		if ((uint32_t)q.res < want) {
			core_ok(q.v1);
			e = core_op(KVMD_OP_SEQ_TRIM, s);
			e.flags = KVMD_TRIM_TAIL;
			e.first = (uint32_t)q.res;
			core_ok(ask(&e).res >= 0);
		}
	}
	got = (uint32_t)q.res;
	core_ok(got == cl.s->st.seq[s].len[0]);
	seq[s].len = seq[s].sealed = got;
	prove(s, 0, got, "open");
}

static void do_extend(uint32_t s)
{
	uint32_t nr = 1 + rnd(4);
	struct kvmd_sqe e;
	int32_t res;

	if (seq[s].len + nr > DEPTH)
		return;
	e = core_extend(s, nr);
	e.flags = KVMD_EXTEND_NOWAIT;
	res = ask(&e).res;
	if (res < 0) {
		core_ok_msg(res == -EAGAIN || res == -ENOMEM, "extend: %d", res);
		return;
	}
	for (uint32_t i = 0; i < nr; i++)
		paint(s, seq[s].len + i);
	seq[s].len += nr;
}

static void do_publish(uint32_t s)
{
	uint8_t keys[KVMD_KEY_BYTES * DEPTH];
	uint32_t nr = seq[s].len - seq[s].sealed;
	struct kvmd_sqe e;
	struct kvmd_cqe q;

	if (!nr)
		return;
	put_keys(s, seq[s].sealed, nr, keys);
	e = core_publish(&cl, s, seq[s].sealed, keys, nr);
	prove(s, 0, seq[s].len, "before publish");
	q = ask(&e);
	core_ok_msg(q.res >= 0, "publish: %d", q.res);
	prove(s, 0, seq[s].len, "publish");
	if (!q.v1)
		seq[s].sealed = seq[s].len;
}

static void do_close(uint32_t s)
{
	struct kvmd_sqe e = core_op(KVMD_OP_SEQ_CLOSE, s);

	core_ok(ask(&e).res == 0);
	seq[s].open = false;
}

static void do_swap(uint32_t s)
{
	struct kvmd_sqe e = core_op(seq[s].swapped ? KVMD_OP_SEQ_SWAP_IN : KVMD_OP_SEQ_SWAP_OUT, s);
	int32_t res;

	if (seq[s].swapped)
		e.aux = clock_ns() + 1000000;	/* give up soon */
	c.skew_ns += 2000000;
	res = ask(&e).res;
	if (res == -EIO && seq[s].swapped) {
		do_close(s);		/* lost: only CLOSE is left */
		return;
	}
	core_ok_msg(res >= 0 || res == -ENOSPC || res == -ENOMEM || res == -EIO || res == -EDEADLK,
		    "swap %s: %d", seq[s].swapped ? "in" : "out", res);
	if (res < 0)
		return;
	seq[s].swapped = !seq[s].swapped;
	if (!seq[s].swapped)
		prove(s, 0, seq[s].len, "swap in");
}

static void do_advise(uint32_t s)
{
	struct kvmd_sqe e = core_op(KVMD_OP_ADVISE, 0);
	static const uint32_t advice[] = {
		KVMD_ADV_WILLNEED, KVMD_ADV_COLD, KVMD_ADV_DROP, KVMD_ADV_NO_STORE,
	};
	uint8_t keys[KVMD_KEY_BYTES * DEPTH];
	uint32_t path[DEPTH];

	(void)s;
	random_path(path, DEPTH);
	for (uint32_t i = 0; i < DEPTH; i++)
		key_of(path[i], keys + i * KVMD_KEY_BYTES);
	e.seq_gen = 0;
	e.arg = advice[rnd(ARRAY_SIZE(advice))];
	e.nr = 1 + rnd(DEPTH - 1);
	e.off = core_args(&cl, keys, e.nr * KVMD_KEY_BYTES);
	core_ok(ask(&e).res >= 0);
}

static void one_step(void)
{
	uint32_t s = rnd(SEQS);

	c.ticks += rnd(3);
	c.skew_ns += 2000000;
	if (!seq[s].open) {
		do_open(s);
		return;
	}
	if (seq[s].swapped) {
		if (rnd(3))
			do_swap(s);
		else
			do_close(s);
		return;
	}
	switch (rnd(12)) {
	case 0: case 1: case 2: case 3:
		do_extend(s);
		break;
	case 4: case 5: case 6:
		do_publish(s);
		break;
	case 7:
		do_swap(s);
		break;
	case 8:
		do_advise(s);
		break;
	default:
		do_publish(s);
		do_close(s);
		break;
	}
}

static void run(uint64_t seed, const char *faults, bool disk)
{
	const char *const opts[] = {
		"pool.blocks=2048", seed % 2 ? "pool.policy=lru" : "pool.policy=density",
		"ram.bytes=16M", "ram.lock=no", "ram.hugetlb=no",
		seed % 2 ? "ram.chunk=256K" : "ram.chunk=2M",
		"disk.bytes=24M", "disk.segment=1M", "disk.block_bytes_hint=32K",
		seed % 3 ? "disk.admission=1" : "disk.admission=2", "pool.wmark_low=0",
		"pool.wmark_high=0", seed % 5 ? "pool.clean_ahead=5%" : "pool.clean_ahead=0",
		disk ? disk_opt : NULL, NULL,
	};
	struct kvmd_space m;

	rnd_state = seed * 2 + 1;
	memset(seq, 0, sizeof(seq));
	core_init(&c, opts);
	core_geometry(&m, "s", BLOCK, 49);
	if (seed % 2)
		m.group[0].codec = (struct kvmd_codec) {
			.id = KVMD_CODEC_WINDOW, .dtype = KVMD_DTYPE_BF16, .parts = 8, .channels = 128,
		};
	core_client(&c, &cl, "default", &m, SEQS, DEPTH * 16);
	core_settle(&c);
	core_recovered(&c);
	ck_assert_int_eq(ram_resize(c.d->tiers->ram, 2 << 20), 0);
	core_settle(&c);
	if (faults)
		ck_assert_int_eq(fault_arm(faults, NULL, 0), 0);
	for (int i = 0; i < STEPS; i++) {
		one_step();
		if (i % 16 == 0)
			core_walk(&c);
	}
	fault_disarm();
	for (uint32_t s = 0; s < SEQS; s++)
		if (seq[s].open)
			do_close(s);
	core_settle(&c);
	core_walk(&c);
	/* A run that never went below HBM would prove nothing. */
	core_ok(stat_get(BLOCKS_SUNK_RAM) > 50 && stat_get(BLOCKS_LOADED) > 50);
	core_ok(stat_get(CODEC_FAILED) == 0);
	core_ok(!(seed % 2) || stat_get(BLOCKS_ENCODED));
	printf("seed %llu: %llu coded, %llu not, %llu stored, %llu fetched\n",
	       (unsigned long long)seed, (unsigned long long)stat_get(BLOCKS_ENCODED),
	       (unsigned long long)stat_get(CODEC_OVERFLOWS),
	       (unsigned long long)stat_get(BLOCKS_STORED),
	       (unsigned long long)stat_get(BLOCKS_FETCHED));
	core_exit(&c);
}

static const char *const faults[] = {
	NULL,
	"copy:prob=0.02,seed=1",
	"read:prob=0.02,seed=2;write:prob=0.02,seed=3",
	"tier-alloc:prob=0.05,seed=4;short:prob=0.05,seed=5",
};

START_TEST(random_requests)
{
	const char *env = getenv("KVMD_SEED");
	uint64_t seed = env ? strtoull(env, NULL, 0) : (uint64_t)_i + 1;
	char path[96];

	printf("seed %llu\n", (unsigned long long)seed);
	fflush(stdout);
	snprintf(dir, sizeof(dir), "/tmp/kvmd-tiers.XXXXXX");
	ck_assert(mkdtemp(dir));
	snprintf(disk_opt, sizeof(disk_opt), "disk.path=%s/kv.img", dir);
	run(seed, faults[seed % ARRAY_SIZE(faults)], seed % 4 != 3);
	snprintf(path, sizeof(path), "%s/kv.img", dir);
	unlink(path);
	rmdir(dir);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("tiers_random");
	TCase *tc = tcase_create("random");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 30);
	tcase_add_loop_test(tc, random_requests, 0, getenv("KVMD_SEED") ? 1 : 12);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
