/* SPDX-License-Identifier: Apache-2.0 */
/*
 * entries.h - random submission entries: mostly such that they mean something.
 */
#ifndef KVMD_TESTS_ENTRIES_H
#define KVMD_TESTS_ENTRIES_H

#include "kvmd/wire.h"

struct entry_bounds {
	uint32_t max_seqs;
	uint32_t nr_groups;
	uint32_t max_blocks;		/* of a row */
	uint64_t args_bytes;
	uint64_t submitted;		/* GPU steps handed out so far */
};

/* Well formed as a rule; one in sixteen is damaged in a field or in any bit. */
void random_entry(uint64_t *rnd, const struct entry_bounds *b, struct kvmd_sqe *ret_e);
/* Well formed always. */
void random_good_entry(uint64_t *rnd, const struct entry_bounds *b, struct kvmd_sqe *ret_e);
/* Keys out of few chains, so that they meet, over all of @args. */
void random_keys(uint64_t *rnd, void *args, uint64_t bytes);

#endif
