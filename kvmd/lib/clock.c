// SPDX-License-Identifier: Apache-2.0
/*
 * clock.c - CLOCK_MONOTONIC, the policies' clock, the tick rate.
 *
 * The policies' clock counts from the start of the process and belongs to the
 * core thread; once driven it moves only when it is told to.
 */
#include "kvmd/lib/clock.h"

#include <time.h>

#define NSEC_PER_SEC	1000000000ULL
#define CALIBRATE_NS	2000000ULL	/* long enough for 0.1 % at a 50 ns read */

static uint64_t start_ns;		/* CLOCK_MONOTONIC at the first reading */
static uint64_t driven_ns;		/* the time, while driven */
static bool driven;
static uint64_t ticks_per_us;		/* 0: not calibrated yet */

uint64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

__attribute__((constructor)) static void clock_start(void)
{
	start_ns = clock_ns();
}

uint64_t clock_policy_ns(void)
{
	return driven ? driven_ns : clock_ns() - start_ns;
}

void clock_policy_drive(uint64_t ns)
{
	driven_ns = driven ? max(driven_ns, ns) : ns;
	driven = true;
}

bool clock_policy_is_driven(void)
{
	return driven;
}

uint64_t clock_ticks_per_us(void)
{
	uint64_t rate = ld_rlx(&ticks_per_us);
	uint64_t t0, t1, n0, n1;

	if (rate)
		return rate;

	n0 = clock_ns();
	t0 = clock_ticks();
	do {
		cpu_relax();
		n1 = clock_ns();
	} while (n1 - n0 < CALIBRATE_NS);
	t1 = clock_ticks();

	rate = max((t1 - t0) * 1000 / (n1 - n0), (uint64_t)1);
	st_rlx(&ticks_per_us, rate);
	return rate;
}
