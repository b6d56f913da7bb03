/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bell.h - the least a server that sleeps costs: a futex doorbell.
 *
 * A request and an answer are one word each, on cache lines of their own. The
 * server spins for a while after its last request, then sets a flag, looks
 * again, and waits in a futex; the client writes, fences, reads the flag, and
 * wakes only a server that sleeps. The client spins for its answer.
 */
#ifndef KVBENCH_BELL_H
#define KVBENCH_BELL_H

#include "tools/kvbench/kvbench.h"

struct bell_result {
	double rtt_ns, send_ns;		/* medians */
	double cpu_ns;			/* of the server, per request */
};

#define BELL_NEVER_SLEEP	UINT64_MAX

void bell_start(void);
void bell_end(void);
/* Requests @think_ns apart for @for_ns, to a server that spins @spin_ns. */
void bell_measure(uint64_t spin_ns, uint64_t think_ns, uint64_t for_ns, struct bell_result *ret_r);

/* Room for the samples of one measurement, shared with ours (wake.c). */
#define BELL_SAMPLES	200000u
extern double bell_rtt[BELL_SAMPLES], bell_send[BELL_SAMPLES];

#endif
