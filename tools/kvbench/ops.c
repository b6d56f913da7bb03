/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ops.c - part "ops": operations through the daemon beside bare arrays.
 *
 * Both pools hold the same blocks under the same keys. Before each request the
 * client writes the keys to shared memory (not timed); the server has to fetch
 * them from the client's cache, in both. After each the client reads the row,
 * which checks the answer and makes the server write it anew. The floor of an
 * operation is this round's bare echo and the work that the floor server timed.
 */
#include "tools/kvbench/floor.h"

#define NR_CHAINS	16u		/* of 100 blocks */
#define NR_LONG		4u		/* of 1000 */
#define LONG_KEY	(NR_CHAINS * 100u)
#define PUBLISH_KEY	10000u		/* never cached between two requests */
#define MISSING_KEY	999999999u
#define NR_CACHED	(LONG_KEY + NR_LONG * 1000u)
#define NR_BARE		16384u
#define NR_SEQS		FLOOR_SEQS	/* sequences that hold 256 blocks each */

static struct kvc *k;
static uint8_t *args;			/* where the daemon reads keys */
static uint64_t args_off;
static uint8_t chain_keys[FLOOR_KEYS][KVMD_KEY_BYTES];

static struct samples samples;		/* of the slice, ticks */
static struct samples closes;		/* the closes of an open's slice */
static struct samples behind;		/* answered NOPs behind the operations of a slice */
static struct samples none;		/* what is not timed */

/* -------------------------------------------------------------- both sides */

/* Keys first.. of @nr blocks to where a server reads them; the last one missing? */
static void put_keys(uint8_t *to, uint32_t first, uint32_t nr, bool miss)
{
	for (uint32_t i = 0; i < nr; i++)
		bench_key(first + i, chain_keys[i]);
	if (miss)
		bench_key(MISSING_KEY, chain_keys[nr - 1]);
	memcpy(to, chain_keys, (size_t)nr * KVMD_KEY_BYTES);
	smp_mb();	/* written before the clock starts */
}

static void check_row(const volatile int32_t *row, uint32_t nr)
{
	uint32_t zero = 0;

	for (uint32_t i = 0; i < nr; i++)
		zero += !row[i];
	if (zero)
		kvb_die("a row misses %u of %u blocks", zero, nr);
}

static void must(int64_t res, int64_t want, const char *what)
{
	if (res != want)
		kvb_die("%s: %lld instead of %lld%s%s", what, (long long)res, (long long)want,
		    res < 0 ? ": " : "", res < 0 ? kvc_strerror((int)res) : "");
}

/* What a slice does: chains of @nr blocks, @count of them from key @first on. */
struct chain_work {
	uint32_t first, count, nr;
	bool miss;
};

static double result(void)
{
	return sample_median(&samples) * tick_ns;
}

/* --------------------------------------------------------------- the floor */

static uint64_t bare(enum floor_op op, uint32_t seq, uint32_t nr, uint32_t first,
		     uint64_t *ret_work)
{
	const struct floor_req r = { .op = op, .seq = seq, .nr = nr, .first = first };

	return floor_call(&r, ret_work, NULL);
}

static double floor_open(void *ctx)
{
	const struct chain_work *w = (const struct chain_work *)ctx;
	uint32_t hit = w->nr - w->miss, n = 0;
	uint64_t end, work;

	closes.nr = 0;
	floor_mode(FLOOR_WORK, 1);
	for (end = time_ns() + bench.slice_ns; time_ns() < end; n++) {
		put_keys(floor_shm->keys[0], w->first + n % w->count * w->nr, w->nr, w->miss);
		must((int64_t)bare(FLOOR_OPEN, 0, w->nr, 0, &work), hit, "floor open");
		sample_add(&samples, (double)work);
		check_row(floor_shm->row[0], hit);
		bare(FLOOR_CLOSE, 0, hit, 0, &work);
		sample_add(&closes, (double)work);
	}
	floor_mode(FLOOR_PARK, 0);
	return result();
}

/* As after floor_open() or ours_open(): the closes of that slice. */
static double last_close(void *ctx)
{
	(void)ctx;
	return sample_median(&closes) * tick_ns;
}

/* The same for the NOPs behind the operations. */
static double last_behind(void *ctx)
{
	(void)ctx;
	return sample_median(&behind) * tick_ns;
}

static double floor_lookup(void *ctx)
{
	const struct chain_work *w = (const struct chain_work *)ctx;
	uint64_t end, work;
	uint32_t n = 0;

	floor_mode(FLOOR_WORK, 1);
	for (end = time_ns() + bench.slice_ns; time_ns() < end; n++) {
		put_keys(floor_shm->keys[0], w->first + n % w->count * w->nr, w->nr, false);
		must((int64_t)bare(FLOOR_LOOKUP, 0, w->nr, 0, &work), w->nr, "floor lookup");
		sample_add(&samples, (double)work);
	}
	floor_mode(FLOOR_PARK, 0);
	return result();
}

static double floor_alloc256(void *ctx)
{
	uint64_t end, work;

	(void)ctx;
	floor_mode(FLOOR_WORK, 1);
	for (end = time_ns() + bench.slice_ns; time_ns() < end;) {
		for (uint32_t s = 0; s < NR_SEQS; s++) {
			must((int64_t)bare(FLOOR_ALLOC, s, 256, 0, &work), 256, "floor alloc");
			sample_add(&samples, (double)work);
			check_row(floor_shm->row[s], 256);
		}
		for (uint32_t s = 0; s < NR_SEQS; s++)
			bare(FLOOR_FREE, s, 256, 0, &work);
	}
	floor_mode(FLOOR_PARK, 0);
	return result();
}

static double floor_alloc1(void *ctx)
{
	uint64_t end, work;

	(void)ctx;
	floor_mode(FLOOR_WORK, 1);
	for (end = time_ns() + bench.slice_ns; time_ns() < end;) {
		for (uint32_t i = 0; i < 256; i++) {
			must((int64_t)bare(FLOOR_ALLOC, 0, 1, i, &work), 1, "floor alloc");
			sample_add(&samples, (double)work);
		}
		bare(FLOOR_FREE, 0, 256, 0, &work);
	}
	floor_mode(FLOOR_PARK, 0);
	return result();
}

static double floor_publish(void *ctx)
{
	uint64_t end, work;
	uint32_t n = 0;

	(void)ctx;
	floor_mode(FLOOR_WORK, 1);
	for (end = time_ns() + bench.slice_ns; time_ns() < end; n++) {
		must((int64_t)bare(FLOOR_ALLOC, 0, 100, 0, &work), 100, "floor alloc");
		put_keys(floor_shm->keys[0], PUBLISH_KEY + n % NR_CHAINS * 100, 100, false);
		must((int64_t)bare(FLOOR_PUBLISH, 0, 100, 0, &work), 100, "floor publish");
		sample_add(&samples, (double)work);
		bare(FLOOR_DROP, 0, 100, 0, &work);
	}
	floor_mode(FLOOR_PARK, 0);
	return result();
}

/* -------------------------------------------------------------------- ours */

/* One request: its result; ticks from before the submission to the answer. */
static int timed(struct samples *to)
{
	uint64_t t0;
	int res;

	smp_mb();
	t0 = ticks();
	res = client_wait(k, NULL);
	sample_add(to, (double)(ticks() - t0 - tick_cost));
	return res;
}

/*
 * As timed(), and a NOP behind it: the daemon answers an operation before it has
 * told its policy, the NOP is answered after that.
 */
static int timed_and_nop(struct samples *to)
{
	uint64_t t0, t1;
	int res;

	if (to != &samples)
		return timed(to);
	smp_mb();
	t0 = ticks();
	res = client_wait(k, NULL);
	t1 = ticks();
	sample_add(to, (double)(t1 - t0 - tick_cost));
	kvc_prep_nop(kvc_get_sqe(k));
	client_wait(k, NULL);
	sample_add(&behind, (double)(ticks() - t0 - tick_cost));
	return res;
}

static int do_open(uint32_t seq, uint32_t nr, struct samples *to)
{
	kvc_prep_open(kvc_get_sqe(k), seq, 1, args_off, nr, 0, 0);
	return timed_and_nop(to);
}

static int do_close(uint32_t seq, struct samples *to)
{
	kvc_prep_close(kvc_get_sqe(k), seq, 1, 0, 0);
	return timed(to);
}

static int do_extend(uint32_t seq, uint32_t nr, struct samples *to)
{
	kvc_prep_extend(kvc_get_sqe(k), seq, 1, 0, nr, 0);
	return timed(to);
}

static int do_publish(uint32_t seq, uint32_t nr, struct samples *to)
{
	kvc_prep_publish(kvc_get_sqe(k), seq, 1, 0, 0, args_off, nr, 0);
	return timed_and_nop(to);
}

static int do_drop(uint32_t nr)
{
	kvc_prep_advise_keys(kvc_get_sqe(k), KVMD_ADV_DROP, 0, args_off, nr, 0);
	return timed(&none);
}

static double ours_open(void *ctx)
{
	const struct chain_work *w = (const struct chain_work *)ctx;
	const volatile int32_t *row = kvc_row(kvc_view(k), 0, 0);
	uint64_t end;
	uint32_t hit = w->nr - w->miss, n = 0;

	closes.nr = behind.nr = 0;
	kvmd_go(&busy);
	client_warm(k);
	for (end = time_ns() + bench.slice_ns; time_ns() < end; n++) {
		put_keys(args, w->first + n % w->count * w->nr, w->nr, w->miss);
		must(do_open(0, w->nr, &samples), hit, "open");
		check_row(row, hit);
		must(do_close(0, &closes), 0, "close");
	}
	kvmd_pause(&busy);
	return result();
}

/* The library's own call, which copies the keys. */
static double ours_open_sync(void *ctx)
{
	const struct chain_work *w = (const struct chain_work *)ctx;
	uint64_t end, t0;
	uint32_t n = 0;

	kvmd_go(&busy);
	client_warm(k);
	for (end = time_ns() + bench.slice_ns; time_ns() < end; n++) {
		for (uint32_t i = 0; i < w->nr; i++)
			bench_key(w->first + n % w->count * w->nr + i, chain_keys[i]);
		t0 = ticks();
		must(kvc_seq_open(k, 0, 1, chain_keys, w->nr, 0, 0, 0, NULL), w->nr, "open");
		sample_add(&samples, (double)(ticks() - t0 - tick_cost));
		must(do_close(0, &none), 0, "close");
	}
	kvmd_pause(&busy);
	return result();
}

static double ours_lookup(void *ctx)
{
	const struct chain_work *w = (const struct chain_work *)ctx;
	uint64_t end;
	uint32_t n = 0;

	kvmd_go(&busy);
	client_warm(k);
	for (end = time_ns() + bench.slice_ns; time_ns() < end; n++) {
		put_keys(args, w->first + n % w->count * w->nr, w->nr, false);
		kvc_prep_lookup(kvc_get_sqe(k), 0, args_off, w->nr);
		must(timed(&samples), w->nr, "lookup");
	}
	kvmd_pause(&busy);
	return result();
}

static double ours_alloc256(void *ctx)
{
	uint64_t end;

	(void)ctx;
	kvmd_go(&busy);
	client_warm(k);
	for (end = time_ns() + bench.slice_ns; time_ns() < end;) {
		for (uint32_t s = 0; s < NR_SEQS; s++) {
			must(do_open(s, 0, &none), 0, "open");
			must(do_extend(s, 256, &samples), 256, "extend");
			check_row(kvc_row(kvc_view(k), 0, s), 256);
		}
		for (uint32_t s = 0; s < NR_SEQS; s++)
			must(do_close(s, &none), 0, "close");
	}
	kvmd_pause(&busy);
	return result();
}

static double ours_alloc1(void *ctx)
{
	uint64_t end;

	(void)ctx;
	kvmd_go(&busy);
	client_warm(k);
	for (end = time_ns() + bench.slice_ns; time_ns() < end;) {
		must(do_open(0, 0, &none), 0, "open");
		for (uint32_t i = 0; i < 256; i++)
			must(do_extend(0, 1, &samples), 1, "extend");
		must(do_close(0, &none), 0, "close");
	}
	kvmd_pause(&busy);
	return result();
}

static double ours_publish(void *ctx)
{
	uint64_t end;
	uint32_t n = 0;

	(void)ctx;
	behind.nr = 0;
	kvmd_go(&busy);
	client_warm(k);
	for (end = time_ns() + bench.slice_ns; time_ns() < end; n++) {
		must(do_open(0, 0, &none), 0, "open");
		must(do_extend(0, 100, &none), 100, "extend");
		put_keys(args, PUBLISH_KEY + n % NR_CHAINS * 100, 100, false);
		must(do_publish(0, 100, &samples), 100, "publish");
		must(do_close(0, &none), 0, "close");
		must(do_drop(100), 100, "drop");
	}
	kvmd_pause(&busy);
	return result();
}

/* ---------------------------------------------------------------- the part */

/* The chains that opens hit. */
static void fill(void)
{
	uint64_t work;

	kvmd_go(&busy);
	for (uint32_t i = 0; i < NR_CHAINS + NR_LONG; i++) {
		uint32_t nr = i < NR_CHAINS ? 100 : 1000;
		uint32_t first = i < NR_CHAINS ? i * 100 : LONG_KEY + (i - NR_CHAINS) * 1000;

		put_keys(args, first, nr, false);
		must(do_open(0, 0, &none), 0, "open");
		must(do_extend(0, nr, &none), nr, "extend");
		must(do_publish(0, nr, &none), nr, "publish");
		must(do_close(0, &none), 0, "close");
	}
	kvmd_pause(&busy);
	floor_mode(FLOOR_WORK, 1);
	must((int64_t)bare(FLOOR_FILL, 0, NR_BARE, NR_CACHED, &work), NR_BARE, "floor fill");
	floor_mode(FLOOR_PARK, 0);
}

void kvb_ops_setup(void)
{
	floor_start();
	busy_start();
	k = busy_client;
	args = (uint8_t *)kvc_args_alloc(k, FLOOR_KEYS * KVMD_KEY_BYTES, &args_off);
	if (!args)
		kvb_die("no room for keys");
	fill();
}

void kvb_ops_round(void)
{
	struct chain_work hundred = { 0, NR_CHAINS, 100, false };
	struct chain_work thousand = { LONG_KEY, NR_LONG, 1000, false };
	struct chain_work miss = { 0, NR_CHAINS, 100, true };
	struct turn open[] = {
		{ floor_open, &hundred, 0 }, { last_close, NULL, 0 },
		{ ours_open, &hundred, 0 }, { last_close, NULL, 0 }, { last_behind, NULL, 0 },
		{ ours_open_sync, &hundred, 0 },
	};
	const struct {
		enum row_id row;
		struct turn floor, ours;
	} pairs[] = {
		{ ROW_OPEN1000, { floor_open, &thousand, 0 }, { ours_open, &thousand, 0 } },
		{ ROW_MISS100, { floor_open, &miss, 0 }, { ours_open, &miss, 0 } },
		{ ROW_LOOKUP100, { floor_lookup, &hundred, 0 }, { ours_lookup, &hundred, 0 } },
		{ ROW_ALLOC1, { floor_alloc1, NULL, 0 }, { ours_alloc1, NULL, 0 } },
		{ ROW_ALLOC256, { floor_alloc256, NULL, 0 }, { ours_alloc256, NULL, 0 } },
		{ ROW_PUBLISH100, { floor_publish, NULL, 0 }, { ours_publish, NULL, 0 } },
	};
	double echo = echo_rtt_ns > 0 ? echo_rtt_ns : echo_measure();

	take_turns(open, ARRAY_SIZE(open));
	row_add(ROW_OPEN100, echo + open[0].ret, open[2].ret);
	row_add(ROW_CLOSE100, echo + open[1].ret, open[3].ret);
	row_add(ROW_OPEN_NOP, 2 * echo + open[0].ret, open[4].ret);
	row_add(ROW_OPEN_SYNC, open[2].ret, open[5].ret);
	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		struct turn t[] = { pairs[i].floor, pairs[i].ours, { last_behind, NULL, 0 } };

		take_turns(t, ARRAY_SIZE(t));
		row_add(pairs[i].row, echo + t[0].ret, t[1].ret);
		if (pairs[i].row == ROW_PUBLISH100)
			row_add(ROW_PUBLISH_NOP, 2 * echo + t[0].ret, t[2].ret);
	}
}

void kvb_ops_end(void)
{
}
