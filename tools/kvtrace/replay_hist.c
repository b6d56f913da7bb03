// SPDX-License-Identifier: Apache-2.0
/*
 * replay_hist.c - a logarithmic histogram with linear parts.
 */
#include "tools/kvtrace/replay_hist.h"

uint32_t hist_class(uint64_t ns)
{
	uint32_t shift;

	if (ns < HIST_SUB)
		return (uint32_t)ns;
	shift = 63 - HIST_SUB_BITS - (uint32_t)__builtin_clzll(ns);
	return shift * HIST_SUB + (uint32_t)(ns >> shift);
}

uint64_t hist_class_max(uint32_t class)
{
	uint32_t shift;

	if (class < 2 * HIST_SUB)
		return class;
	shift = class / HIST_SUB - 1;
	return ((uint64_t)(class % HIST_SUB + HIST_SUB) << shift) + ((1ULL << shift) - 1);
}

void hist_add(struct hist *h, uint64_t ns)
{
	h->nr++;
	h->max_ns = max(h->max_ns, ns);
	h->class[hist_class(ns)]++;
}

void hist_merge(struct hist *to, const struct hist *from)
{
	uint32_t c;

	to->nr += from->nr;
	to->max_ns = max(to->max_ns, from->max_ns);
	for (c = 0; c < HIST_CLASSES; c++)
		to->class[c] += from->class[c];
}

uint64_t hist_quantile(const struct hist *h, uint32_t permyriad)
{
	uint64_t rank = div_round_up(h->nr * permyriad, 10000), seen = 0;
	uint32_t c;

	if (!h->nr)
		return 0;
	rank = max(rank, (uint64_t)1);
	for (c = 0; c < HIST_CLASSES; c++) {
		seen += h->class[c];
		if (seen >= rank)
			return min(hist_class_max(c), h->max_ns);
	}
	return h->max_ns;
}
