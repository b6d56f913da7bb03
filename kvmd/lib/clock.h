/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clock.h - real time, and the one clock that policies read.
 *
 * clock_ns() is CLOCK_MONOTONIC. Policies, TTLs and priority decay read
 * clock_policy_ns() and nothing else; a replay may drive it
 * (clock_policy_drive) and from then on it stands still between calls.
 * Core thread only, except clock_ns().
 */
#ifndef KVMD_LIB_CLOCK_H
#define KVMD_LIB_CLOCK_H

#include "kvmd/lib/base.h"

uint64_t clock_ns(void);			/* CLOCK_MONOTONIC, ns */

/* The earlier of two times, of which 0 says none. */
static inline uint64_t clock_earlier(uint64_t a, uint64_t b)
{
	return !a || (b && b < a) ? b : a;
}

uint64_t clock_policy_ns(void);			/* ns since start, or as driven */
void clock_policy_drive(uint64_t ns);		/* from now on; never goes back */
bool clock_policy_is_driven(void);

/* Cheap per-cpu tick counter for spin budgets; unit: ticks. */
static inline uint64_t clock_ticks(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#else
	return clock_ns();
#endif
}
uint64_t clock_ticks_per_us(void);		/* calibrated once, first call ~2 ms */

#endif
