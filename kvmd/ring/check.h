/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check.h - is a submission entry well formed? A pure function.
 *
 * It reads the private copy of an entry and the session's fixed limits, nothing
 * else: no pointers are followed, no state is kept, so it can be fuzzed alone.
 * What depends on state (does the sequence exist, is the step submitted) is
 * asked later, by the operation.
 */
#ifndef KVMD_RING_CHECK_H
#define KVMD_RING_CHECK_H

#include "kvmd/lib/base.h"
#include "kvmd/wire.h"

struct ring_limits {
	uint32_t max_seqs;
	uint32_t nr_groups;
	uint64_t args_bytes;
	uint32_t max_blocks;	/* positions of the longest row */
};

/*
 * 0, or -EINVAL (unknown opcode or flag, a field set that the operation does
 * not read, an index out of range), -EFAULT (a range outside the args area).
 */
int ring_check(const struct kvmd_sqe *e, const struct ring_limits *lim);

/* A key list of OPEN_LISTS, fetched from the args area. */
int ring_check_list(const struct kvmd_key_list *l, const struct ring_limits *lim);

const char *ring_op_name(unsigned opcode);	/* "seq_open"; "?" */

#endif
