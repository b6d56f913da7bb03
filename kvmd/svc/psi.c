/* SPDX-License-Identifier: Apache-2.0 */
/*
 * psi.c - how much of the time somebody was short of blocks.
 */
#include "kvmd/svc/psi.h"

#include <math.h>

#include "kvmd/svc/daemon.h"

static const char *const kinds[NR_PSI_KIND] = { "some", "full" };
static const char *const levels[KVMD_NR_PRESSURE] = { "none", "some", "full" };
static const double window_s[NR_PSI_WINDOW] = { 10, 60, 300 };

const char *psi_kind_name(unsigned kind)
{
	return kind < NR_PSI_KIND ? kinds[kind] : "?";
}

const char *psi_level_name(unsigned level)
{
	return level < KVMD_NR_PRESSURE ? levels[level] : "?";
}

static bool counts(enum psi_kind kind, uint32_t level)
{
	return level >= (kind == PSI_SOME ? KVMD_PRESSURE_SOME : KVMD_PRESSURE_FULL);
}

void psi_advance(struct psi *psi, uint32_t level, uint64_t dt_ns)
{
	for (unsigned w = 0; w < NR_PSI_WINDOW; w++) {
		double keep = exp(-(double)dt_ns / 1e9 / window_s[w]);

		for (unsigned k = 0; k < NR_PSI_KIND; k++)
			psi->avg[k][w] = psi->avg[k][w] * keep +
					 (counts(k, level) ? 1 - keep : 0);
	}
}

void psi_update(struct daemon *d, uint32_t level, uint64_t now_ns)
{
	uint64_t dt = now_ns > d->pressure_since_ns ? now_ns - d->pressure_since_ns : 0;

	if (level == d->pressure)
		return;
	psi_advance(&d->psi, d->pressure, dt);
	d->pressure_ns[d->pressure] += dt;
	d->pressure = level;
	d->pressure_since_ns = now_ns;
}

uint64_t psi_total_ns(const struct daemon *d, enum psi_kind kind, uint64_t now_ns)
{
	uint64_t total = 0;

	for (uint32_t level = 0; level < KVMD_NR_PRESSURE; level++)
		if (counts(kind, level))
			total += d->pressure_ns[level];
	if (counts(kind, d->pressure) && now_ns > d->pressure_since_ns)
		total += now_ns - d->pressure_since_ns;
	return total;
}
