/* SPDX-License-Identifier: Apache-2.0 */
/*
 * meter.h - bytes per second, measured while there was something to do.
 *
 * Idle time does not count: what is measured is how fast it goes when asked, not
 * how much is asked. One thread.
 */
#ifndef KVMD_LIB_METER_H
#define KVMD_LIB_METER_H

#include "kvmd/lib/clock.h"

struct meter {
	uint64_t inflight;		/* bytes */
	uint64_t bytes, busy_ns;	/* of this sample */
	uint64_t since_ns;		/* busy since, or counted up to, CLOCK_MONOTONIC */
	uint64_t bps;			/* smoothed; 0: not measured yet */
};

static inline void meter_start(struct meter *m, uint64_t bytes)
{
	if (!m->inflight)
		m->since_ns = clock_ns();
	m->inflight += bytes;
}

/* A sample is @sample_ns of busy time; it counts for one part in @parts. */
static inline void meter_end(struct meter *m, uint64_t bytes, uint64_t sample_ns, unsigned parts)
{
	uint64_t now = clock_ns(), bps;

	m->inflight -= bytes;
	m->bytes += bytes;
	m->busy_ns += now - m->since_ns;
	m->since_ns = now;
	if (m->busy_ns < sample_ns)
		return;
	bps = (uint64_t)((double)m->bytes * 1e9 / (double)m->busy_ns);
	m->bps = m->bps ? (m->bps * (parts - 1) + bps) / parts : bps;
	m->bytes = m->busy_ns = 0;
}

#endif
