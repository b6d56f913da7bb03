/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tier_traffic.h - a client that makes a daemon move blocks.
 *
 * Sequences that write take new blocks, publish them under new keys and close:
 * the pool is small, so that what they leave has to go down. Those that read open
 * chains that were published long ago, with all their blocks, and close. One
 * thread, no waiting: traffic_pump() whenever there is time.
 */
#ifndef KVBENCH_TIER_TRAFFIC_H
#define KVBENCH_TIER_TRAFFIC_H

#include "tools/kvbench/tier.h"

#define TRAFFIC_SEQS	8u
#define TRAFFIC_CHAIN	(4ull << 20)	/* bytes of a sequence */

struct traffic {
	struct kvmd_proc *p;
	struct kvc *k;
	uint64_t block;
	uint32_t chain_blocks;
	uint8_t *args;			/* keys of each sequence */
	uint64_t args_off;
	uint64_t nr_chains;		/* published so far */
	unsigned may_write;		/* chains, before somebody says that more may be */
	uint64_t next_read;		/* chain */
	uint64_t read_first, read_end;	/* chains that are read, round and round */
	unsigned pending[TRAFFIC_SEQS];	/* completions to come */
	bool writing[TRAFFIC_SEQS];	/* what they are of */
	uint64_t nr_short;		/* chains of which not all was there */
	uint64_t nr_refused;		/* entries */
};

void traffic_init(struct traffic *t, struct kvmd_proc *p, uint64_t block, uint64_t slots);
/*
 * The first @writers sequences write, the last @readers read chains from
 * read_first to read_end. False: nothing to do now.
 */
bool traffic_pump(struct traffic *t, unsigned writers, unsigned readers);
unsigned traffic_writing(const struct traffic *t);	/* chains on their way */
void traffic_wait(struct traffic *t);		/* for a completion, at most 1 ms */
void traffic_drain(struct traffic *t);		/* all sequences closed */
void traffic_exit(struct traffic *t);

#endif
