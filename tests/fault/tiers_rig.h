/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tiers_rig.h - the whole daemon turned by hand, with HBM, RAM and disk that are
 * all too small, used by requests that prove every byte they are given.
 *
 * A chain is a few blocks whose bytes follow from chain and position. serve()
 * opens it, proves what came, writes and publishes the rest: it works whatever
 * the tiers below have lost, or the test fails. empty() lets go of everything and
 * finds that nothing is left of it in any tier. One client, one sequence at a
 * time; sequences are numbered by whoever uses them.
 */
#ifndef KVMD_TESTS_FAULT_TIERS_RIG_H
#define KVMD_TESTS_FAULT_TIERS_RIG_H

#include "tests/core_rig.h"

#define CHAIN		8u		/* most blocks of a chain */
#define RIG_OPTS	8u

struct trig {
	struct core c;
	struct core_client cl;
	char dir[64], path[80];		/* the disk tier's file */
	const char *opt[RIG_OPTS];	/* more options, NULL: none */
	const char *policy;
	const char *space;
	uint32_t chain;			/* blocks of one */
	uint32_t block;			/* bytes */
	uint32_t slots;			/* of HBM */
	uint64_t ram;			/* bytes, a multiple of 2 MiB */
	bool disk;
	char log[80];			/* what the daemon said, "": not kept */
};

/* A directory; a file of 24 MiB in it; 32 KiB blocks: 24 in HBM, 64 in RAM, about 600 on disk. */
void trig_init(struct trig *r);
void trig_exit(struct trig *r);			/* stopped; the directory goes */
void trig_opt(struct trig *r, const char *opt);
int trig_try(struct trig *r);			/* what daemon_init() says */
void trig_start(struct trig *r);
void trig_stop(struct trig *r);			/* in order: it seals what it has */
/* The daemon's log goes to a file from here on; trig_said(): has a line of it both? */
void trig_keep_log(struct trig *r);
bool trig_said(struct trig *r, const char *a, const char *b);

/* As core_do(); what waits is given time, 5 ms at once. */
struct kvmd_cqe trig_ask(struct trig *r, const struct kvmd_sqe *e);
void trig_paint(struct trig *r, uint32_t seq, uint32_t chain, uint32_t pos);
void trig_prove(struct trig *r, uint32_t seq, uint32_t chain, uint32_t nr);
/* Open @chain as @seq and load what there is of it, proven; how much that was. */
uint32_t trig_open(struct trig *r, uint32_t seq, uint32_t chain);
/* ... and make the rest of it. */
uint32_t trig_hold(struct trig *r, uint32_t seq, uint32_t chain);
void trig_close(struct trig *r, uint32_t seq);
/* All of the above for chains first .. first+nr-1: how many blocks were found. */
uint32_t trig_serve(struct trig *r, uint32_t first, uint32_t nr);
/* Only open and close them: how many blocks there are. */
uint32_t trig_count(struct trig *r, uint32_t first, uint32_t nr);
/* Let go of all by a new epoch: nothing is left in any tier. */
void trig_empty(struct trig *r);

#endif
