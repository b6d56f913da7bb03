/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replay_hist.h - latencies in classes that grow with their size.
 *
 * 32 classes to each power of two: a quantile is off by at most 1/32. Plain
 * memory, so that it may lie in a shared page; one writer. Readers take what
 * the writer has put there when it is done.
 */
#ifndef KVTRACE_REPLAY_HIST_H
#define KVTRACE_REPLAY_HIST_H

#include "kvmd/lib/base.h"

#define HIST_SUB_BITS	5
#define HIST_SUB	(1U << HIST_SUB_BITS)
#define HIST_CLASSES	(HIST_SUB * (64 - HIST_SUB_BITS + 1))

struct hist {
	uint64_t nr;			/* values */
	uint64_t max_ns;
	uint32_t class[HIST_CLASSES];	/* values by class */
};

void hist_add(struct hist *h, uint64_t ns);
void hist_merge(struct hist *to, const struct hist *from);
/* The value that @permyriad of 10000 do not exceed; 0: no values. */
uint64_t hist_quantile(const struct hist *h, uint32_t permyriad);

/* The class of a value, and the largest value of a class. */
uint32_t hist_class(uint64_t ns);
uint64_t hist_class_max(uint32_t class);

#endif
