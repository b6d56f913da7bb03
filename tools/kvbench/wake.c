/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wake.c - parts "wake" and "idle": a daemon that sleeps, and one that adapts.
 *
 * Two more daemons: one that never spins (each request wakes it), one with the
 * default spin. They sleep whenever nobody asks, so they need no pausing.
 */
#include <time.h>

#include "tools/kvbench/bell.h"

#define SMALL_POOL	4096u
#define IDLE_CLIENTS	8

static struct kvmd_proc sleepy, adaptive;
static struct kvc *sleepy_client, *adaptive_client;

static void adaptive_start(void)
{
	const struct kvmd_opts o = { .name = "adaptive", .blocks = SMALL_POOL, .spin = NULL };

	if (!adaptive.pid)
		kvmd_start(&adaptive, &o);
}

static void measure(struct kvmd_proc *p, struct kvc *k, uint64_t think_ns, uint64_t for_ns,
		    struct bell_result *ret_r)
{
	uint64_t t0, t1, cpu, end, gap = (uint64_t)((double)think_ns / tick_ns);
	const struct kvmd_cqe *c;
	uint32_t n = 0;

	kvmd_go(p);
	/* As many requests as it takes to learn the gap. */
	for (int i = 0; i < 64; i++) {
		think(gap);
		kvc_prep_nop(kvc_get_sqe(k));
		client_wait(k, NULL);
	}
	cpu = cpu_of_process(p->pid);
	for (end = time_ns() + for_ns; time_ns() < end && n < BELL_SAMPLES; n++) {
		think(gap);
		t0 = ticks();
		kvc_prep_nop(kvc_get_sqe(k));
		if (kvc_submit(k) != 1)
			kvb_die("%s: the session ended", p->name);
		t1 = ticks();
		if (kvc_wait_cqe(k, 30000000000ull, &c))
			kvb_die("%s: no answer", p->name);
		bell_rtt[n] = (double)(ticks() - t0 - tick_cost);
		bell_send[n] = (double)(t1 - t0 - min(t1 - t0, tick_cost));
		kvc_cqe_seen(k);
	}
	ret_r->cpu_ns = (double)(cpu_of_process(p->pid) - cpu) / n;
	ret_r->rtt_ns = kvb_median(bell_rtt, n) * tick_ns;
	ret_r->send_ns = kvb_median(bell_send, n) * tick_ns;
}

void kvb_wake_setup(void)
{
	const struct kvmd_opts o = { .name = "sleepy", .blocks = SMALL_POOL, .spin = "0" };

	busy_start();
	bell_start();
	kvmd_start(&sleepy, &o);
	sleepy_client = client_open(&sleepy, SMALL_POOL, 16);
	adaptive_start();
	adaptive_client = client_open(&adaptive, SMALL_POOL, 16);
}

/* Floor and ours in turn, both asleep at every request. */
static void wake_pair(enum row_id row, uint64_t think_ns, double ret[2])
{
	struct bell_result r;
	double floor[NR_WAKE_SLICES], ours[NR_WAKE_SLICES];

	for (int s = 0; s < NR_WAKE_SLICES; s++) {
		bell_measure(0, think_ns, bench.wake_ns / NR_WAKE_SLICES, &r);
		floor[s] = r.rtt_ns;
		measure(&sleepy, sleepy_client, think_ns, bench.wake_ns / NR_WAKE_SLICES, &r);
		ours[s] = r.rtt_ns;
	}
	ret[0] = kvb_median(floor, NR_WAKE_SLICES);
	ret[1] = kvb_median(ours, NR_WAKE_SLICES);
	row_add(row, ret[0], ret[1]);
}

static void adapt_rtt(void)
{
	double floor[NR_WAKE_SLICES], ours[NR_WAKE_SLICES], fsend[NR_WAKE_SLICES], osend[NR_WAKE_SLICES];
	struct bell_result r;

	for (int s = 0; s < NR_WAKE_SLICES; s++) {
		bell_measure(BELL_NEVER_SLEEP, 10000, bench.wake_ns / NR_WAKE_SLICES, &r);
		floor[s] = r.rtt_ns;
		fsend[s] = r.send_ns;
		measure(&adaptive, adaptive_client, 10000, bench.wake_ns / NR_WAKE_SLICES, &r);
		ours[s] = r.rtt_ns;
		osend[s] = r.send_ns;
	}
	row_add(ROW_ADAPT, kvb_median(floor, NR_WAKE_SLICES), kvb_median(ours, NR_WAKE_SLICES));
	row_add(ROW_SEND, kvb_median(fsend, NR_WAKE_SLICES), kvb_median(osend, NR_WAKE_SLICES));
}

void kvb_wake_round(void)
{
	struct bell_result f, o;
	double a[2], b[2];

	wake_pair(ROW_WAKE20, 20000, a);
	wake_pair(ROW_WAKE100, 100000, b);
	row_add(ROW_WAKE, (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
	adapt_rtt();
	bell_measure(0, 1000000, bench.wake_ns * 5, &f);
	measure(&adaptive, adaptive_client, 1000000, bench.wake_ns * 5, &o);
	row_add(ROW_ADAPT_CPU, f.cpu_ns, o.cpu_ns);
	kvb_syscalls_round(&busy);
}

void kvb_wake_end(void)
{
	bell_end();
}

/* -------------------------------------------------------------------- idle */

void kvb_idle_setup(void)
{
	adaptive_start();
}

void kvb_idle_end(void)
{
	struct kvc *k[IDLE_CLIENTS];
	uint64_t ticks0, wakes0, end;
	double s = (double)bench.idle_ns / 1e9;

	for (int i = 0; i < IDLE_CLIENTS; i++) {
		k[i] = client_open(&adaptive, SMALL_POOL, 16);
		client_warm(k[i]);
	}
	ticks0 = kvmd_cpu_ticks(&adaptive);
	wakes0 = kvmd_wakeups(&adaptive);
	for (end = time_ns() + bench.idle_ns; time_ns() < end && !interrupted;) {
		const struct timespec nap = { .tv_nsec = 50000000 };

		nanosleep(&nap, NULL);
	}
	row_add(ROW_IDLE, 0, (double)(kvmd_cpu_ticks(&adaptive) - ticks0) * 10 / s);
	row_add(ROW_IDLE_WAKEUPS, 0, (double)(kvmd_wakeups(&adaptive) - wakes0) / s);
	for (int i = 0; i < IDLE_CLIENTS; i++)
		kvc_destroy(k[i]);
}
