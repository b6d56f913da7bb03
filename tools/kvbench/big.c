/* SPDX-License-Identifier: Apache-2.0 */
/*
 * big.c - part "big": a pool of many blocks on the null device.
 *
 * Filled with chains of 1000 blocks; then lookups of 100 keys at random, all of
 * them there, beside the same on arrays of as many blocks: nearly every key is a
 * miss of the caches in the table and in its record, in both.
 */
#include <unistd.h>

#include "tools/kvbench/floor.h"

#define CHAIN	1000u
#define NR	100u

static struct kvmd_proc big;
static struct kvc *k;
static uint8_t *args;
static uint64_t args_off;
static uint32_t nr_filled;		/* keys 0.. that are cached in both */
static struct samples samples;		/* of the slice, ticks */
static uint64_t rng = 88172645463325252ull;

static uint64_t random_u64(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

/* Blocks of one more chain; 0, or what refused. */
static int fill_chain(uint32_t first)
{
	int res;

	for (uint32_t i = 0; i < CHAIN; i++)
		bench_key(first + i, args + (size_t)i * KVMD_KEY_BYTES);
	kvc_prep_open(kvc_get_sqe(k), 0, 1, args_off, 0, 0, 0);
	kvc_prep_extend(kvc_get_sqe(k), 0, 1, 0, CHAIN, time_ns() + 5000000000ull);
	kvc_prep_publish(kvc_get_sqe(k), 0, 1, 0, 0, args_off, CHAIN, 0);
	kvc_prep_close(kvc_get_sqe(k), 0, 1, 0, 0);
	res = client_wait(k, NULL);
	for (int i = 0; i < 3; i++) {
		const struct kvmd_cqe *c;
		int err = kvc_wait_cqe(k, 30000000000ull, &c);

		if (err)
			kvb_die("filling the pool: %s", kvc_strerror(err));
		if (c->res < 0)
			res = c->res;
		kvc_cqe_seen(k);
	}
	return res;
}

static void put_random_keys(uint8_t *to)
{
	for (uint32_t i = 0; i < NR; i++)
		bench_key(random_u64() % nr_filled, to + (size_t)i * KVMD_KEY_BYTES);
	smp_mb();	/* written before the clock starts */
}

static double slice_floor(void *ctx)
{
	const struct floor_req r = { .op = FLOOR_LOOKUP, .pool = 1, .nr = NR };
	uint64_t end, work;

	(void)ctx;
	floor_mode(FLOOR_WORK, 1);
	for (end = time_ns() + bench.slice_ns; time_ns() < end;) {
		put_random_keys(floor_shm->keys[0]);
		if (floor_call(&r, &work, NULL) != NR)
			kvb_die("the floor's lookup missed");
		sample_add(&samples, (double)work);
	}
	floor_mode(FLOOR_PARK, 0);
	return sample_median(&samples) * tick_ns;
}

static double slice_ours(void *ctx)
{
	uint64_t end, t0;
	int res;

	(void)ctx;
	kvmd_go(&big);
	client_warm(k);
	for (end = time_ns() + bench.slice_ns; time_ns() < end;) {
		put_random_keys(args);
		kvc_prep_lookup(kvc_get_sqe(k), 0, args_off, NR);
		t0 = ticks();
		res = client_wait(k, NULL);
		sample_add(&samples, (double)(ticks() - t0 - tick_cost));
		if (res != (int)NR)
			kvb_die("a lookup of %u keys that are there found %d", NR, res);
	}
	kvmd_pause(&big);
	return sample_median(&samples) * tick_ns;
}

/* Records, per-slot arrays and the table, as the daemon allocated them. */
static void metadata(void)
{
	double pool, index, records;

	if (kvmd_status(&big, "pool_bytes", &pool) || kvmd_status(&big, "index_bytes", &index) ||
	    kvmd_status(&big, "records", &records) || records <= 0) {
		rows_skip(ROW_META, "not in the daemon's status");
		return;
	}
	row_add(ROW_META, 0, (pool + index) / records);
}

/* Memory of a daemon with next to no blocks: what is not per block. */
static double small_rss(double *ret_blocks)
{
	const struct kvmd_opts o = { .name = "small", .blocks = 4096, .spin = "1s" };
	struct kvmd_proc p;
	double rss;

	kvmd_start(&p, &o);
	rss = (double)kvmd_rss(&p);
	kvmd_end(&p);
	*ret_blocks = 4096;
	return rss;
}

void kvb_big_setup(void)
{
	const struct kvmd_opts o = { .name = "big", .blocks = bench.big_blocks, .spin = "1s" };
	const struct floor_req fill = { .op = FLOOR_FILL, .pool = 1, .nr = bench.big_blocks,
					.first = 0 };
	struct floor_req r = fill;
	double rss, blocks;

	floor_start();
	rss = small_rss(&blocks);
	kvmd_start(&big, &o);
	row_add(ROW_START, 0, big.start_ns / 1e6);
	k = client_open(&big, bench.big_blocks, 4);
	args = (uint8_t *)kvc_args_alloc(k, CHAIN * KVMD_KEY_BYTES, &args_off);
	if (!args)
		kvb_die("no room for keys");
	metadata();
	/* nine tenths: reclaim has nothing to do */
	while (nr_filled + CHAIN <= bench.big_blocks / 10 * 9 && !interrupted) {
		if (fill_chain(nr_filled) < 0)
			break;
		nr_filled += CHAIN;
	}
	if (!nr_filled)
		kvb_die("the pool takes no block");
	row_add(ROW_RSS, 0, ((double)kvmd_rss(&big) - rss) /
		((double)bench.big_blocks - blocks));
	kvmd_pause(&big);
	r.first = nr_filled;
	floor_mode(FLOOR_WORK, 1);
	floor_call(&r, NULL, NULL);
	floor_mode(FLOOR_PARK, 0);
}

void kvb_big_round(void)
{
	struct turn t[] = { { slice_floor, NULL, 0 }, { slice_ours, NULL, 0 } };
	double echo = echo_rtt_ns > 0 ? echo_rtt_ns : echo_measure();

	take_turns(t, ARRAY_SIZE(t));
	row_add(ROW_COLD, echo + t[0].ret, t[1].ret);
}

void kvb_big_end(void)
{
	kvc_destroy(k);
	kvmd_end(&big);
}
