/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hazard.h - how soon a block of some class, unused for some time, is used again.
 *
 * Learned from all blocks, cached or only remembered. For each class and each
 * range of age it counts the blocks that were used again at that age, and those
 * that reached that age unused; the quotient is the chance of reuse there. The
 * index of (class, age) is the best ratio, over all horizons, of the chance of
 * reuse until the horizon to the time spent waiting for it: Gittins' index for
 * "keep the block and see". A class with few blocks leans on all classes
 * together.
 *
 * Who reached which age is counted in cohorts: blocks by class and time of last
 * use, in cells of 1/16 s that are merged in pairs as they grow old, so that the
 * memory is fixed (0.6 MB) however many requests a second come and however long
 * the daemon runs, and a cell is at most an eighth of its age wide. Old counts
 * fade, so that a changed workload is learned again.
 *
 * Times and ages are ticks of 1/16 s. Core thread only.
 */
#ifndef KVMD_RECLAIM_HAZARD_H
#define KVMD_RECLAIM_HAZARD_H

#include "kvmd/lib/base.h"

#define HAZARD_CLASSES	256
#define HAZARD_BINS	28	/* ages: below 0.5 s, then by factors of 1.45, to 2 h and over */

struct hazard;

struct hazard *hazard_create(uint32_t now);	/* NULL: out of memory */
void hazard_destroy(struct hazard *h);
uint64_t hazard_bytes(void);			/* of one */
/* Time goes on. Call it before the two below whenever the tick changed. */
void hazard_advance(struct hazard *h, uint32_t now);
/* A block of class @c was used last now. */
void hazard_born(struct hazard *h, uint8_t c);
/* Take back a birth at @when. */
void hazard_unborn(struct hazard *h, uint8_t c, uint32_t when);
/* A block of class @c that was used last at @when is used again now. */
void hazard_reused(struct hazard *h, uint8_t c, uint32_t when);
/* Expected uses per second of a block of class @c that was used last at @when. */
float hazard_index(const struct hazard *h, uint8_t c, uint32_t when);
/* Recompute the index of the next @nr classes that are in use. */
void hazard_refresh(struct hazard *h, unsigned nr);
/* What was counted of class @c at age bin @k; the first tick of the bin. For tests. */
uint32_t hazard_counts(const struct hazard *h, uint8_t c, unsigned k, double *ret_reused,
		       double *ret_reached);

#endif
