/* SPDX-License-Identifier: Apache-2.0 */
/*
 * actor.h - an engine whose daemon may die at any moment.
 *
 * It opens sequences on random chains, over all tiers, compares every byte of
 * every hit with what its key says, computes the rest and publishes it; it
 * swaps, forks, drops, prefetches and raises the epoch. Content follows from
 * (space, epoch, chain, position), so that any block can be checked at any time,
 * by any process. Daemon gone is the normal end; a wrong byte or an answer that
 * cannot be is a failure of the process.
 */
#ifndef KVMD_TESTS_ACTOR_H
#define KVMD_TESTS_ACTOR_H

#include "tests/harness.h"

#define ACTOR_SEQS	8u
#define ACTOR_CHAIN	16u		/* blocks of the longest */
#define ACTOR_SPACES	2u
#define ACTOR_STREAMS	64u		/* chains of a space */
#define ACTOR_SLOTS	64u		/* of a space in HBM */

/* Shared with the test, over all daemons and processes of a run. */
struct actor_shared {
	uint64_t epoch;			/* of space 0, acknowledged */
	uint64_t nr_hit, nr_asked;	/* blocks, of the last pass over all chains */
	uint64_t nr_rounds;
	uint64_t nr_unpublished;	/* blocks that stayed private at their publish */
	uint64_t wait_ns;		/* for a daemon that is not there */
	bool stop;			/* the actors are to end */
};

struct actor {
	struct kvc *k;
	struct actor_shared *sh;
	uint64_t rnd;
	uint32_t space;			/* 0, 1 */
	struct actor_seq {
		bool open, swapped;
		uint32_t gen, stream, len;	/* blocks, from position 0 on */
		uint32_t private;		/* the last ones: never published */
		uint32_t tag;			/* of the private ones' content */
	} seq[ACTOR_SEQS];
	uint32_t gen, tag;
	uint64_t epoch;
	uint32_t doubt;			/* bit per sequence that the turn under way may change */
};

void actor_space(struct kvc_space *s, uint32_t space);
/* Connect; false: there is no daemon. */
bool actor_init(struct actor *a, struct hd *d, struct actor_shared *sh, uint32_t space,
		uint64_t seed);
/* One random thing; false: the daemon is gone. */
bool actor_turn(struct actor *a);
/* Look at all chains of the space; false: the daemon is gone. */
bool actor_verify(struct actor *a);
/*
 * After the daemon was gone: 1 the session went on and every open sequence was
 * compared; 0 it is a new one; -ECONNRESET gone again.
 */
int actor_reconnect(struct actor *a);
void actor_exit(struct actor *a);

#endif
