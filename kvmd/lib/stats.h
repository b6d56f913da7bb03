/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats.h - the daemon's counters, on a page that readers map.
 *
 * Core thread only writes; others read whenever they like. Before
 * stats_init() the counters live in a private array, so that every room can be
 * tested alone.
 */
#ifndef KVMD_LIB_STATS_H
#define KVMD_LIB_STATS_H

#include "kvmd/lib/base.h"
#include "kvmd/stats.h"

extern uint64_t *stats_val;		/* [KVMD_NR_STAT] */

int stats_init(void);			/* 0 or -errno: makes the page */
void stats_exit(void);
int stats_fd(void);			/* memfd of the page, sealed; -1 before init */
const char *stats_name(unsigned id);	/* NULL: no such counter */
const char *stats_unit(unsigned id);
const char *stats_help(unsigned id);
char stats_kind(unsigned id);		/* 'c' or 'g' */

#define stat_add(id, n)	st_rlx(&stats_val[KVMD_STAT_##id], \
			       stats_val[KVMD_STAT_##id] + (uint64_t)(n))
#define stat_inc(id)	stat_add(id, 1)
#define stat_sub(id, n)	stat_add(id, -(uint64_t)(n))
#define stat_get(id)	ld_rlx(&stats_val[KVMD_STAT_##id])

#endif
