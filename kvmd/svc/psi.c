/* SPDX-License-Identifier: Apache-2.0 */
/*
 * psi.c - how much of the time somebody was held up, and by what.
 */
#include "kvmd/svc/psi.h"

#include <math.h>

#include "kvmd/svc/daemon.h"

#define LOOK_NS		1000000ull	/* between two looks of a trigger, at least */

static const char *const resources[NR_PSI_RES] = { "hbm", "load", "clean" };
static const char *const kinds[NR_PSI_KIND] = { "some", "full" };
static const char *const levels[KVMD_NR_PRESSURE] = { "none", "some", "full" };
static const double window_s[NR_PSI_WINDOW] = { 10, 60, 300 };

const char *psi_res_name(unsigned res)
{
	return res < NR_PSI_RES ? resources[res] : "?";
}

const char *psi_kind_name(unsigned kind)
{
	return kind < NR_PSI_KIND ? kinds[kind] : "?";
}

const char *psi_level_name(unsigned level)
{
	return level < KVMD_NR_PRESSURE ? levels[level] : "?";
}

bool psi_counts(enum psi_kind kind, uint32_t level)
{
	return level >= (kind == PSI_SOME ? KVMD_PRESSURE_SOME : KVMD_PRESSURE_FULL);
}

/* ----------------------------------------------------------------- averages */

static uint64_t since(const struct psi *p, uint64_t now_ns)
{
	return now_ns > p->since_ns ? now_ns - p->since_ns : 0;
}

void psi_averages(const struct psi *p, uint64_t now_ns,
		  double ret_avg[NR_PSI_KIND][NR_PSI_WINDOW])
{
	double dt = (double)since(p, now_ns) / 1e9;

	for (unsigned w = 0; w < NR_PSI_WINDOW; w++) {
		double keep = exp(-dt / window_s[w]);

		for (unsigned k = 0; k < NR_PSI_KIND; k++)
			ret_avg[k][w] = p->avg[k][w] * keep +
					(psi_counts(k, p->level) ? 1 - keep : 0);
	}
}

void psi_update(struct psi *p, uint32_t level, uint64_t now_ns)
{
	if (level == p->level)
		return;
	psi_averages(p, now_ns, p->avg);
	p->level_ns[p->level] += since(p, now_ns);
	p->level = level;
	p->since_ns = now_ns;
}

uint64_t psi_total_ns(const struct psi *p, enum psi_kind kind, uint64_t now_ns)
{
	uint64_t total = psi_counts(kind, p->level) ? since(p, now_ns) : 0;

	for (uint32_t level = 0; level < KVMD_NR_PRESSURE; level++)
		if (psi_counts(kind, level))
			total += p->level_ns[level];
	return total;
}

/* ----------------------------------------------------------------- triggers */

void psi_trigger_set(struct psi_trigger *t, const struct psi *p, enum psi_kind kind,
		     uint64_t window_ns, uint64_t stall_ns, uint64_t now_ns)
{
	*t = (struct psi_trigger) {
		.kind = kind, .window_ns = window_ns, .stall_ns = stall_ns,
		.start_ns = now_ns, .start_total = psi_total_ns(p, kind, now_ns),
	};
}

bool psi_trigger_look(struct psi_trigger *t, const struct psi *p, uint64_t now_ns,
		      uint64_t *ret_stall_ns, uint64_t *ret_next_ns)
{
	uint64_t total = max(psi_total_ns(p, t->kind, now_ns), t->start_total);
	uint64_t stall = total - t->start_total;
	uint64_t elapsed = now_ns > t->start_ns ? now_ns - t->start_ns : 0;
	bool active = psi_counts(t->kind, p->level);

	if (elapsed >= t->window_ns) {
		/* A look that comes late sees more than a window: its share counts. */
		stall = (uint64_t)((double)stall * (double)t->window_ns / (double)elapsed);
		t->start_ns = now_ns;
		t->start_total = total;
		t->before_ns = stall;
		elapsed = 0;
	} else {
		stall += (uint64_t)((double)t->before_ns * (double)(t->window_ns - elapsed) /
				    (double)t->window_ns);
	}
	*ret_stall_ns = stall;
	*ret_next_ns = 0;
	if (stall >= t->stall_ns)
		return true;
	if (active)
		*ret_next_ns = now_ns + max(min(t->stall_ns - stall, t->window_ns - elapsed),
					    (uint64_t)LOOK_NS);
	else if (stall)
		*ret_next_ns = t->start_ns + t->window_ns;
	return false;
}

/* --------------------------------------------------------- who waits for what */

static uint32_t level_of(uint32_t held_up, uint32_t at_work)
{
	if (!held_up)
		return KVMD_PRESSURE_NONE;
	return held_up < at_work ? KVMD_PRESSURE_SOME : KVMD_PRESSURE_FULL;
}

/* Sessions with sequences, and those of them with one whose blocks are coming. */
static uint32_t load_level(const struct daemon *d)
{
	uint32_t held_up = 0, at_work = 0;

	for (uint32_t i = 0; i < d->nr_live; i++) {
		at_work += d->live[i]->st.nr_live != 0;
		held_up += d->live[i]->st.loading != 0;
	}
	return level_of(held_up, at_work);
}

/* Groups with sequences, and those in which allocations wait for blocks on their way out. */
static uint32_t clean_level(const struct daemon *d)
{
	uint32_t held_up = 0, at_work = 0;

	for (uint32_t i = 0; i < d->pool->space_end; i++) {
		const struct space *sp = &d->pool->space[i];

		for (uint32_t g = 0; sp->in_use && g < sp->nr_groups; g++) {
			at_work += sp->nr_sessions != 0;
			held_up += sp->gp[g].nr_waiters && sp->gp[g].out.nr;
		}
	}
	return level_of(held_up, at_work);
}

void psi_look(struct daemon *d, uint32_t hbm, uint64_t now_ns)
{
	psi_update(&d->psi[PSI_HBM], hbm, now_ns);
	if (!d->tiers)
		return;
	psi_update(&d->psi[PSI_LOAD], load_level(d), now_ns);
	psi_update(&d->psi[PSI_CLEAN], clean_level(d), now_ns);
}
