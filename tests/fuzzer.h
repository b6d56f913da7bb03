/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzzer.h - a session that does what an engine might do next, and what none would.
 */
#ifndef KVMD_TESTS_FUZZER_H
#define KVMD_TESTS_FUZZER_H

#include "tests/entries.h"
#include "tests/harness.h"

#define SEQS	6u
#define CHAIN	(32768u / KEY / 4u)	/* keys of one chain in args */

struct fuzzer {
	struct kvc *k;
	uint32_t chain[SEQS];		/* that a sequence was opened with */
	uint64_t ticket;		/* the last that was sent */
	struct entry_bounds b;
	uint64_t submitted, completed;
	uint32_t unanswered;
};

void fuzzer_init(struct fuzzer *f, struct hd *d, uint64_t *rnd, const struct kvc_space *s);
/* A few more entries are submitted; how many. */
uint64_t fuzzer_batch(struct fuzzer *f, uint64_t *rnd);
/* A step is handed out, a step is completed; perhaps. */
void fuzzer_advance(struct fuzzer *f, uint64_t *rnd);
void fuzzer_reap(struct fuzzer *f);		/* what has been answered */
/* A batch, and answers until only few are outstanding. */
uint64_t fuzzer_turn(struct fuzzer *f, uint64_t *rnd);
void fuzzer_finish(struct fuzzer *f);		/* all steps done, all entries answered */

#endif
