/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restore.h - table, chains, sequences and idle lists of a kept block array.
 *
 * After pool_restore_scan(): the table is made anew, every chain is followed to
 * its root once, and what does not hang from a root in the same or a higher tier
 * goes. Then the kept sessions' sequences take their leases, and what nobody
 * leases becomes idle in the order of its last use.
 */
#ifndef KVMD_INDEX_RESTORE_H
#define KVMD_INDEX_RESTORE_H

#include "kvmd/index/seq.h"
#include "kvmd/pool/restore.h"

/*
 * The tables of a former daemon's session. The maps' sizes are compared with
 * what @max_seqs and @max_tokens ask for (-EINVAL). Owns the fds on success.
 */
int seqtab_attach(struct index *ix, struct space *sp, uint32_t max_seqs, uint32_t max_tokens,
		  const int fd[3], struct seqtab *ret_st);	/* sequences, mirror, rows */
/* Before the scan: count every position of every sequence in @refs[0 .. nr). */
void seqtab_count(const struct seqtab *st, uint32_t *refs, uint32_t nr);

/* Table and chains. -ENOMEM. */
int index_restore(struct index *ix, struct pool_restore *r);
/*
 * The sequences of session @owner take their leases. What was on its way up is
 * cut off, as a failed load; what was swapped out stays so. False: a sequence
 * names what is not there any more, its session cannot go on; it still has to be
 * drained like a dead one's.
 */
bool seqtab_restore(struct seqtab *st, struct pool_restore *r, uint32_t owner);
/* All leases are there: idle lists. -ENOMEM. */
int index_restore_idle(struct index *ix, struct pool_restore *r);

#endif
