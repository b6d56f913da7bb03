/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ring.c - part "ring": NOPs through our rings beside a bare echo.
 */
#include "tools/kvbench/floor.h"

#define BUSY_BLOCKS	16384u
#define BUSY_SEQS	64u

struct kvmd_proc busy;
struct kvc *busy_client;
double echo_rtt_ns;

static struct samples samples;

void busy_start(void)
{
	const struct kvmd_opts o = { .name = "busy", .blocks = BUSY_BLOCKS, .spin = "1s" };

	if (busy.pid)
		return;
	kvmd_start(&busy, &o);
	busy_client = client_open(&busy, BUSY_BLOCKS, BUSY_SEQS);
	kvmd_pause(&busy);
}

/* ------------------------------------------------------------------ slices */

/* The floor's server in @mode for a slice; ns of one round trip. */
static double slice_of(enum floor_mode mode, uint32_t batch, uint32_t depth)
{
	double ns;

	floor_mode(mode, batch);
	ns = mode == FLOOR_ECHO ? floor_echo(batch, depth) : floor_phase(batch, depth);
	floor_mode(FLOOR_PARK, 0);
	return ns;
}

static double slice_echo(void *ctx)
{
	(void)ctx;
	return slice_of(FLOOR_ECHO, 1, 1);
}

static double slice_phase(void *ctx)
{
	(void)ctx;
	return slice_of(FLOOR_PHASE, 1, 1);
}

double nop_rtt(void *ctx)
{
	uint64_t last, end, now;
	uint32_t nr = 0, from = 0;

	(void)ctx;
	kvmd_go(&busy);
	client_warm(busy_client);
	now = last = time_ns();
	for (end = now + bench.slice_ns; now < end; last = now) {
		do {
			kvc_prep_nop(kvc_get_sqe(busy_client));
			client_wait(busy_client, NULL);
		} while (!floor_look(++nr));
		now = time_ns();
		sample_add(&samples, (double)(now - last) / (nr - from));
		from = nr;
	}
	kvmd_pause(&busy);
	return sample_median(&samples);
}

/* As floor_echo(): up to @depth on their way, submitted up to @batch at a time. */
static double nop_rate(uint32_t batch, uint32_t depth)
{
	struct kvc *k = busy_client;
	uint64_t last, end, now;
	uint32_t sent = 0, got = 0, from = 0;
	struct kvmd_cqe c[256];
	int n;

	kvmd_go(&busy);
	client_warm(k);
	now = last = time_ns();
	end = now + bench.slice_ns;
	for (uint32_t i = 1; now < end || got != sent; i++) {
		uint32_t nr = now < end ? min(depth - (sent - got), batch) : 0, w = 0;

		for (uint32_t x = 0; x < nr; x++) {
			struct kvmd_sqe *e = kvc_get_sqe(k);

			kvc_prep_nop(e);
			e->user_data = sent + x;
		}
		sent += nr;
		if (kvc_submit(k) < 0)
			kvb_die("the session ended");
		do {
			n = kvc_reap(k, c, ARRAY_SIZE(c));
			if (n < 0)
				kvb_die("the session ended");
			if (!n)
				spin(&w);
			got += (uint32_t)n;
		} while (!n && (sent - got == depth || now >= end));
		if (!floor_look(i))
			continue;
		now = time_ns();
		if (got != from)
			sample_add(&samples, (double)(now - last) / (got - from));
		from = got;
		last = now;
	}
	kvmd_pause(&busy);
	return sample_median(&samples);
}

static double slice_echo32(void *ctx)
{
	(void)ctx;
	return slice_of(FLOOR_ECHO, 32, 256);
}

static double slice_nop32(void *ctx)
{
	(void)ctx;
	return nop_rate(32, 256);
}

static double slice_echo_pipe(void *ctx)
{
	(void)ctx;
	return slice_of(FLOOR_ECHO, 1, 32);
}

static double slice_phase_pipe(void *ctx)
{
	(void)ctx;
	return slice_of(FLOOR_PHASE, 1, 32);
}

static double slice_nop_pipe(void *ctx)
{
	(void)ctx;
	return nop_rate(1, 32);
}

double echo_measure(void)
{
	struct turn t = { slice_echo, NULL, 0 };

	floor_start();
	take_turns(&t, 1);
	echo_rtt_ns = t.ret;
	return echo_rtt_ns;
}

/* --------------------------------------------------------------- the part */

void kvb_ring_setup(void)
{
	floor_start();
	busy_start();
}

void kvb_ring_round(void)
{
	struct turn one[] = { { slice_echo, NULL, 0 }, { nop_rtt, NULL, 0 },
			      { slice_phase, NULL, 0 } };
	struct turn bulk[] = { { slice_echo32, NULL, 0 }, { slice_nop32, NULL, 0 } };
	struct turn pipe[] = { { slice_echo_pipe, NULL, 0 }, { slice_nop_pipe, NULL, 0 },
			       { slice_phase_pipe, NULL, 0 } };

	take_turns(one, ARRAY_SIZE(one));
	echo_rtt_ns = one[0].ret;
	row_add(ROW_NOP, one[0].ret, one[1].ret);
	row_add(ROW_PHASE, one[2].ret, one[1].ret);
	take_turns(bulk, ARRAY_SIZE(bulk));
	row_add(ROW_BATCH, 1e3 / bulk[0].ret, 1e3 / bulk[1].ret);
	take_turns(pipe, ARRAY_SIZE(pipe));
	row_add(ROW_PIPE, 1e3 / (pipe[0].ret < pipe[2].ret ? pipe[0].ret : pipe[2].ret),
		1e3 / pipe[1].ret);
}

void kvb_ring_end(void)
{
}
