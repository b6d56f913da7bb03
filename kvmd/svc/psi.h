/* SPDX-License-Identifier: Apache-2.0 */
/*
 * psi.h - pressure in PSI form: shares of the last 10, 60 and 300 seconds.
 *
 * "some": the level is KVMD_PRESSURE_SOME or worse; "full": it is
 * KVMD_PRESSURE_FULL. The level is constant between two calls, so the averages
 * (exponential, as the kernel's Documentation/accounting/psi.rst) are exact and
 * need no sampling timer: they are carried forward when the level changes and
 * when somebody asks. Core thread only.
 */
#ifndef KVMD_SVC_PSI_H
#define KVMD_SVC_PSI_H

#include "kvmd/lib/base.h"
#include "kvmd/wire.h"

enum psi_kind {
	PSI_SOME,
	PSI_FULL,
	NR_PSI_KIND
};
const char *psi_kind_name(unsigned kind);
const char *psi_level_name(unsigned level);	/* "none", "some", "full" */

enum psi_window {
	PSI_10S,
	PSI_60S,
	PSI_300S,
	NR_PSI_WINDOW
};

/* Share of time, 0 to 1, per kind and window. All zero: never any pressure. */
struct psi {
	double avg[NR_PSI_KIND][NR_PSI_WINDOW];
};

/* @dt_ns went by at @level. */
void psi_advance(struct psi *psi, uint32_t level, uint64_t dt_ns);

struct daemon;
/*
 * The pressure is @level from @now_ns on: the time before it is accounted to
 * the level before. Cheap when the level stays; @now_ns never goes back.
 */
void psi_update(struct daemon *d, uint32_t level, uint64_t now_ns);
/* Time spent under "some" or "full" until @now_ns. */
uint64_t psi_total_ns(const struct daemon *d, enum psi_kind kind, uint64_t now_ns);

#endif
