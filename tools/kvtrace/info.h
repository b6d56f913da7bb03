/* SPDX-License-Identifier: Apache-2.0 */
/*
 * info.h - what can be said of a trace without a cache.
 *
 * The prefix rule: a request's hits are its leading blocks that are all there;
 * after the first that is not, nothing counts. "Unlimited" is a cache that
 * never evicts: the best any policy and size can reach.
 */
#ifndef KVTRACE_INFO_H
#define KVTRACE_INFO_H

#include "tools/kvtrace/trace.h"

#define INFO_HOT_USES	100	/* a block used so often is hot */

enum info_pct { INFO_P10, INFO_P25, INFO_P50, INFO_P75, INFO_P90, INFO_P99, INFO_MAX,
		NR_INFO_PCT };

/* Reuse times fall into classes; the last is open. */
#define INFO_NR_REUSE_CLASSES	8
extern const uint64_t info_reuse_edges_s[INFO_NR_REUSE_CLASSES - 1];

enum info_uses { INFO_USES_1, INFO_USES_2, INFO_USES_3_10, INFO_USES_MORE, NR_INFO_USES };

struct info {
	uint64_t span_ns;		/* first to last request */
	uint64_t input_tokens, output_tokens;
	uint64_t partial_tails;		/* requests whose last block is not full */
	uint64_t hit_blocks;		/* of an unlimited cache */
	uint64_t hit_tokens;
	uint64_t hot_blocks;		/* distinct ones */
	uint32_t max_uses;		/* of one block */
	uint64_t uses[NR_INFO_USES];	/* distinct blocks by number of uses */

	uint64_t nr_reuses;		/* accesses that are not a block's first */
	uint64_t chain_blocks[NR_INFO_PCT];	/* of a request */
	uint64_t reuse_ns[NR_INFO_PCT];		/* since the block's last use */
	uint64_t reuse_requests[NR_INFO_PCT];	/* the same, in requests */
	uint64_t reuse_class[INFO_NR_REUSE_CLASSES];	/* accesses */
};

/* 0 or -ENOMEM. */
int info_compute(const struct trace *t, struct info *ret_info);

#endif
