/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policy_sim.h - a policy alone, under a replayed trace.
 *
 * The least pool that policy_ops can be called with: a block array and one
 * gpool, filled by hand, with real ghosts and no daemon. Time is the trace's.
 *
 * The rules are the prefix rule: the hits of a request are its leading blocks
 * that are all cached when it arrives. They are leased, room is made for the
 * others as they are inserted, first to last, and at the end all become idle,
 * last block first. A request longer than the pool runs with its leading
 * blocks. With @may_refuse the pool stands for a tier below HBM: from the first
 * new block on that the policy says is not worth its victim, nothing more of
 * that request is taken in.
 */
#ifndef TEST_POLICY_SIM_H
#define TEST_POLICY_SIM_H

#include "kvmd/pool/policy.h"

struct policy_sim;

struct policy_sim_opts {
	const char *policy;
	uint32_t nr_slots;		/* capacity in blocks */
	uint32_t nr_ids;		/* distinct blocks of the trace */
	uint32_t nr_ghosts;		/* 0: nothing is remembered */
	uint32_t block_tokens;
	bool may_refuse;
	uint64_t start_ns;		/* the clock at creation; it never goes back */
};

struct policy_sim_stats {
	uint64_t nr_blocks, nr_hit;
	uint64_t nr_evicted, nr_refused;
};

/* 0, -ENOMEM, or -EINVAL: no such policy. */
int policy_sim_create(const struct policy_sim_opts *o, struct policy_sim **ret_s);
void policy_sim_destroy(struct policy_sim *s);
/*
 * One request for blocks @ids[0..nr), each the child of the one before, at
 * @now_ns. Returns its hits. A broken promise of the policy (a victim that is
 * busy, or has children, or none while there are leaves) is a BUG.
 */
uint32_t policy_sim_request(struct policy_sim *s, const uint32_t *ids, uint32_t nr,
			    uint32_t tokens, uint32_t hints, uint64_t now_ns);
const struct policy_sim_stats *policy_sim_stats(const struct policy_sim *s);
/* For tests that look closer: the block that holds @id, NULL: not cached. */
struct block *policy_sim_block(struct policy_sim *s, uint32_t id);
struct policy *policy_sim_policy(struct policy_sim *s);

#endif
