/* SPDX-License-Identifier: Apache-2.0 */
/*
 * points.h - points of a client's life at which it may be killed.
 */
#ifndef KVMD_TESTS_POINTS_H
#define KVMD_TESTS_POINTS_H

#include "tests/harness.h"

#define POINT_SLOTS	64u	/* of the pool */
#define POINT_KEPT	8u	/* blocks that somebody else holds */
#define POINT_STREAM	500u	/* chain that points publish */
#define POINT_KEYS	4u	/* its length */

struct point {
	const char *name;
	void (*reach)(struct kvc *k);	/* bring a fresh session there */
	int published;			/* blocks of the chain that must stay */
};

extern const struct point points[];
extern const unsigned nr_points;

#endif
