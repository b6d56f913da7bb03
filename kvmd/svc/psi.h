/* SPDX-License-Identifier: Apache-2.0 */
/*
 * psi.h - pressure in PSI form: shares of the last 10, 60 and 300 seconds.
 *
 * Of three resources:
 *   hbm	blocks were asked for and there were too few (reclaim_pressure())
 *   load	a session waited for blocks to come from RAM or disk
 *   clean	an allocation waited for copies of blocks that were to leave HBM
 * "some": somebody was held up (KVMD_PRESSURE_SOME or worse); "full": as
 * KVMD_PRESSURE_FULL says of hbm, and of the others: everybody who was at work.
 *
 * The level is constant between two looks, so the averages (exponential, as the
 * kernel's Documentation/accounting/psi.rst) need no sampling timer: they are
 * carried forward when the level changes and when somebody asks. Core thread only.
 */
#ifndef KVMD_SVC_PSI_H
#define KVMD_SVC_PSI_H

#include "kvmd/lib/base.h"
#include "kvmd/wire.h"

enum psi_res {
	PSI_HBM,
	PSI_LOAD,
	PSI_CLEAN,
	NR_PSI_RES
};
const char *psi_res_name(unsigned res);

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

/* One resource. All zero: never any pressure. */
struct psi {
	double avg[NR_PSI_KIND][NR_PSI_WINDOW];	/* share of time, 0 to 1, up to since_ns */
	uint64_t level_ns[KVMD_NR_PRESSURE];	/* time spent at each level */
	uint32_t level;				/* now */
	uint64_t since_ns;
};

/*
 * The pressure is @level from @now_ns on: the time before it is accounted to
 * the level before. Cheap when the level stays; @now_ns never goes back.
 */
void psi_update(struct psi *p, uint32_t level, uint64_t now_ns);
/* The averages carried forward to @now_ns. */
void psi_averages(const struct psi *p, uint64_t now_ns,
		  double ret_avg[NR_PSI_KIND][NR_PSI_WINDOW]);
/* Time spent under @kind until @now_ns. */
uint64_t psi_total_ns(const struct psi *p, enum psi_kind kind, uint64_t now_ns);
bool psi_counts(enum psi_kind kind, uint32_t level);	/* does @level count as @kind? */

/*
 * A share of some window of time, to be told when it is reached. As the kernel's
 * triggers: only time since it was set counts, and of the window before the
 * present one as much as still overlaps.
 */
struct psi_trigger {
	enum psi_kind kind;
	uint64_t window_ns, stall_ns;	/* reached: stall_ns within window_ns */
	uint64_t start_ns, start_total;	/* of the present window */
	uint64_t before_ns;		/* stall in the window before it */
};

void psi_trigger_set(struct psi_trigger *t, const struct psi *p, enum psi_kind kind,
		     uint64_t window_ns, uint64_t stall_ns, uint64_t now_ns);
/*
 * Reached? Else *ret_next_ns is when to look again if the level stays; 0: only
 * when it changes. *ret_stall_ns: stall in the window.
 */
bool psi_trigger_look(struct psi_trigger *t, const struct psi *p, uint64_t now_ns,
		      uint64_t *ret_stall_ns, uint64_t *ret_next_ns);

struct daemon;
/* Look at what sessions and allocations wait for; @hbm is the level of that. */
void psi_look(struct daemon *d, uint32_t hbm, uint64_t now_ns);

#endif
