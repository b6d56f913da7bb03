/* SPDX-License-Identifier: Apache-2.0 */
/*
 * timing.c - the clock, the processors, and whether the machine is quiet.
 */
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tools/kvbench/kvbench.h"

#define CALIB_SLICES	40

double tick_ns = 1;
uint64_t tick_cost;
bool one_cpu;

static int cpu_of[2] = { -1, -1 };	/* client, server; -1: not pinned */
static cpu_set_t all_cpus;		/* that this process was given */
static char text[64];

uint64_t time_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

double sample_median(struct samples *s)
{
	unsigned nr = s->nr;

	s->nr = 0;
	return nr ? kvb_median(s->v, nr) : 0;
}

void timing_init(void)
{
	uint64_t n0 = time_ns(), t0 = ticks(), n1, t1, a, best = UINT64_MAX;

	do
		n1 = time_ns();
	while (n1 - n0 < 20000000);
	t1 = ticks();
	tick_ns = (double)(n1 - n0) / (double)(t1 - t0);
	for (int i = 0; i < 1000; i++) {
		a = ticks();
		best = min(best, ticks() - a);
	}
	tick_cost = best;
}

static void pin(int cpu)
{
	cpu_set_t s;

	if (cpu < 0)
		return;
	CPU_ZERO(&s);
	CPU_SET((unsigned)cpu, &s);
	if (sched_setaffinity(0, sizeof(s), &s))
		kvb_die("cannot run on cpu %d: %s", cpu, strerror(errno));
}

void cpu_client(void)
{
	pin(cpu_of[0]);
}

void cpu_server(void)
{
	pin(cpu_of[1]);
}

void cpu_any(void)
{
	if (CPU_COUNT(&all_cpus))
		sched_setaffinity(0, sizeof(all_cpus), &all_cpus);
}

const char *cpus_text(void)
{
	return text;
}

void cpus_init(const char *arg)
{
	cpu_set_t s;
	int n = 0;

	CPU_ZERO(&s);
	if (sched_getaffinity(0, sizeof(s), &s))
		kvb_die("sched_getaffinity: %s", strerror(errno));
	all_cpus = s;
	for (int i = 0; i < CPU_SETSIZE && n < 2; i++)
		if (CPU_ISSET((unsigned)i, &s))
			cpu_of[n++] = i;
	if (arg && sscanf(arg, "%d,%d", &cpu_of[0], &cpu_of[1]) != 2)
		kvb_die("--cpus: '%s' is not like 0,1", arg);
	if (!arg && n < 2) {
		cpu_of[0] = cpu_of[1] = -1;
		one_cpu = true;
		snprintf(text, sizeof(text), "not pinned: one processor");
		kvb_note("warning: one processor: client and server take turns on it, the figures "
		     "are those of the scheduler");
		return;
	}
	one_cpu = cpu_of[0] == cpu_of[1];
	snprintf(text, sizeof(text), "client on cpu %d, server on cpu %d", cpu_of[0], cpu_of[1]);
	cpu_client();
}

uint64_t cpu_of_process(pid_t pid)
{
	struct timespec t;
	clockid_t id;

	if (clock_getcpuclockid(pid, &id) || clock_gettime(id, &t))
		kvb_die("cpu clock of process %d: %s", (int)pid, strerror(errno));
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

void spin_slow(uint32_t n)
{
	static uint64_t since;

	if (one_cpu)
		sched_yield();
	if (n % (1u << 20))
		return;
	if (n == 1u << 20)
		since = time_ns();
	if (interrupted || time_ns() - since > 20000000000ull)
		kvb_die(interrupted ? "interrupted" : "a server does not answer any more");
}

/* Slowest over median of equal pieces of work. */
static double calib_here(unsigned long work)
{
	double v[CALIB_SLICES], mid;

	for (int i = 0; i < CALIB_SLICES; i++) {
		volatile uint64_t sink;
		uint64_t x = 3, t = ticks();

		for (unsigned long k = 0; k < work; k++)
			x = x * 6364136223846793005ull + 1442695040888963407ull;
		sink = x;
		(void)sink;
		v[i] = (double)(ticks() - t);
	}
	mid = kvb_median(v, CALIB_SLICES);	/* sorts */
	return v[CALIB_SLICES - 1] / mid;
}

double calib_worst(bool quick)
{
	unsigned long work = quick ? 100000 : 2000000;
	double *other, mine;
	pid_t pid;

	other = (double *)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			       -1, 0);
	if (other == MAP_FAILED)
		kvb_die("mmap: %s", strerror(errno));
	pid = kvb_spawn();
	if (!pid) {
		cpu_server();
		*other = calib_here(work);
		_exit(0);
	}
	mine = calib_here(work);
	kvb_reap(pid, 0);
	if (*other > mine)
		mine = *other;
	munmap(other, 4096);
	return mine;
}
