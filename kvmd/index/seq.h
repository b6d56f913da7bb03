/* SPDX-License-Identifier: Apache-2.0 */
/*
 * seq.h - sequences: a client's ordered lists of blocks, and their rows.
 *
 * Per session one table of sequences. Each has, per group, a row of slot
 * numbers in shared memory (the client maps it read-only, a GPU may read it)
 * and a private mirror of the same shape that holds record ids; the mirror is
 * the truth, the row follows. Both are sparse memfds: memory is charged as
 * rows are used. A row entry holds 0 where the sequence has no block.
 *
 * A sequence holds one lease of each block in its mirror. It frees them from
 * the last block to the first, which is what makes an LRU list leave tail
 * first. In front of a sequence's rows is its status line (wire.h).
 *
 * A sequence with blocks to come (seq.loading) has leases of blocks below HBM or
 * on their way up; its row entries are set as they arrive (seq_arrivals()).
 */
#ifndef KVMD_INDEX_SEQ_H
#define KVMD_INDEX_SEQ_H

#include "kvmd/index/index.h"

#define SEQ_NO_OP	0u

enum seq_state {
	SEQ_FREE,		/* zero */
	SEQ_LIVE,
	SEQ_CLOSING,		/* waits for its step, or gives its blocks back in turns */
	NR_SEQ_STATE
};
const char *seq_state_name(unsigned state);

#define SEQ_F_NO_STORE	0x1	/* nothing of it is cached */
#define SEQ_F_BY_PLANE	0x2	/* row entries are set before the block is there */
#define SEQ_F_SWAPPED	0x4	/* swapped out: only CLOSE, SWAP_IN and ADVISE */
#define SEQ_F_BROKEN	0x8	/* a block could not be read back: only CLOSE */
#define SEQ_F_ENDED	0x10	/* CLOSING when a former daemon ended: closed by this one */

struct seq {
	uint32_t gen;			/* client's */
	uint8_t state;			/* enum seq_state */
	uint8_t flags;			/* SEQ_F_* */
	uint16_t sid;			/* of the space when it was opened */
	uint32_t len[KVMD_MAX_GROUPS];	/* positions in use, NULL entries included */
	uint32_t hole[KVMD_MAX_GROUPS];	/* from here on nothing is published; UINT32_MAX: none */
	uint32_t nr_publishing;		/* accepted publishes whose step is to come */
	uint32_t q_head, q_tail;	/* ops queued behind a parked one, SEQ_NO_OP: none */
	uint32_t blocked;		/* op that all others wait for, SEQ_NO_OP: none */
	uint32_t tokens_asked;		/* attribution: asked, not yet attributed */
	uint32_t tokens_full;		/* of the prompt, in full blocks of group 0 */
	uint32_t tokens_tail;		/* behind them, not yet attributed */
	uint8_t miss;			/* enum kvmd_miss of the rest */
	uint8_t tag_new[KVMD_MAX_GROUPS], aux[KVMD_MAX_GROUPS];	/* from policy request() */
	bool kicking;			/* its queue is being run */
	bool loading;			/* on its session's list of sequences with blocks to come */
	uint8_t pad;
	uint32_t load_next;		/* next on that list, index + 1 */
	uint32_t rdy[KVMD_MAX_GROUPS];	/* loading: leading positions that are there */
	uint32_t begun[KVMD_MAX_GROUPS];	/* loading: loads of positions before it have begun */
	uint32_t nr_hbm, nr_ram;	/* of group 0 at open: in HBM; then in RAM; then on disk */
	uint64_t load_ns;		/* when it last got on, CLOCK_MONOTONIC */
	uint64_t load_since_ns;		/* when its loads began */
	int32_t load_err;		/* -errno of the load that failed */
};

struct seqtab {
	struct index *ix;
	struct space *sp;
	uint32_t max_seqs;
	uint64_t stride;		/* bytes from one sequence's rows to the next */
	uint32_t row_off[KVMD_MAX_GROUPS];	/* bytes */
	uint32_t row_blocks[KVMD_MAX_GROUPS];	/* entries */
	struct seq *seq;		/* [max_seqs], memfd */
	char *rows;			/* shared, read-only for the client */
	char *mirror;			/* private */
	int seq_fd, rows_fd, mirror_fd;
	int client_fd;			/* what clients get of rows: cannot be written through */
	uint32_t nr_live;		/* sequences not FREE */
	uint32_t loading;		/* first sequence with blocks to come, index + 1; 0: none */
	uint64_t used_bytes;		/* of rows, high-water */
};

int seqtab_create(struct index *ix, struct space *sp, uint32_t max_seqs, uint32_t max_tokens,
		  struct seqtab *ret_st);
void seqtab_destroy(struct seqtab *st);
uint64_t seqtab_rows_bytes(const struct seqtab *st);	/* size of the shared memfd */
/* For restore.c: offsets of rows, size of the array of sequences, the clients' fd. */
void seqtab_shape(struct seqtab *st, const struct space *sp, uint32_t max_tokens);
uint64_t seqtab_seqs_bytes(const struct seqtab *st);
int seqtab_rows_open(struct seqtab *st);

static inline int32_t *seq_row(const struct seqtab *st, uint32_t s, uint32_t g)
{
	return (int32_t *)(void *)(st->rows + s * st->stride + st->row_off[g]);
}

static inline uint32_t *seq_blocks(const struct seqtab *st, uint32_t s, uint32_t g)
{
	return (uint32_t *)(void *)(st->mirror + s * st->stride + st->row_off[g]);
}

static inline struct kvmd_seq_status *seq_status(const struct seqtab *st, uint32_t s)
{
	return (struct kvmd_seq_status *)(void *)(st->rows + s * st->stride);
}

/* Position @pos names @id (0: nothing). */
static inline void seq_set(struct seqtab *st, uint32_t s, uint32_t g, uint32_t pos, uint32_t id)
{
	seq_blocks(st, s, g)[pos] = id;
	st_rlx(&seq_row(st, s, g)[pos],
	       id ? (int32_t)pool_block(st->ix->pool, id)->slot : KVMD_SLOT_NULL);
}

/* FREE -> LIVE, empty. What queued on the sequence stays queued. */
void seq_start(struct seqtab *st, uint32_t s, uint32_t gen);
/* Put ids behind the end of group @g. */
void seq_append(struct seqtab *st, uint32_t s, uint32_t g, const uint32_t *ids, uint32_t nr);
/*
 * Give back up to @budget blocks, last position first, of all groups; true when
 * the sequence is empty (its rows zeroed) and FREE.
 */
bool seq_drain(struct seqtab *st, uint32_t s, uint32_t *budget);
uint32_t seq_nr_blocks(const struct seqtab *st, uint32_t s);	/* leases held */

/* ------------------------------------------------------------ prefix walk */

/*
 * Lease the leading blocks of group @g that are cached, from position @from on:
 * keys[i] is that of position from + i. Stops at the first that is not. Returns
 * how many were leased; they are in the rows. The policy does not know yet:
 * seq_lease_settle() for the same positions has to follow in the same turn,
 * before anything else happens to the pool.
 */
uint32_t seq_lease_prefix(struct seqtab *st, uint32_t s, uint32_t g, uint32_t from,
			  const void *keys, uint32_t nr);
void seq_lease_settle(struct seqtab *st, uint32_t s, uint32_t g, uint32_t from, uint32_t nr);
/*
 * Lease every cached one of them (window and state groups), with @lower those
 * below HBM too; others stay unset.
 */
uint32_t seq_lease_any(struct seqtab *st, uint32_t s, uint32_t g, uint32_t from,
		       const void *keys, uint32_t nr, bool lower);
/* Positions from @nr on of group @g are given back, last first; len is @nr. */
void seq_cut(struct seqtab *st, uint32_t s, uint32_t g, uint32_t nr);

/* ------------------------------------------------------------ blocks to come */

/*
 * Set the row entries of @g's positions that arrived. True: all are there.
 * *ret_lost: a position before @begun is not there and not on its way.
 */
bool seq_arrivals(struct seqtab *st, uint32_t s, uint32_t g, uint32_t begun, bool *ret_lost);
/* Write the status line. */
void seq_tell_status(struct seqtab *st, uint32_t s);
/*
 * As seq_lease_prefix(), of all tiers, and the policy knows. Row entries of
 * blocks that are not in HBM stay unset; no load begins.
 */
uint32_t seq_lease_lower(struct seqtab *st, uint32_t s, uint32_t g, uint32_t from,
			 const void *keys, uint32_t nr);
/*
 * How many leading @keys are cached: n[LEVEL_HBM] in HBM, n[LEVEL_RAM] there or in
 * RAM, n[LEVEL_DISK] in any tier. Takes no lease. Returns the last.
 */
uint32_t prefix_count(const struct index *ix, uint16_t sid, uint8_t g, const uint8_t *keys,
		      uint32_t nr, uint32_t n[NR_LEVEL]);
/*
 * All groups were leased as far as they go: find the longest length that every
 * group can serve, give back what lies behind it or is not needed for it.
 * Returns it in tokens; len[] is set.
 */
uint32_t seq_settle(struct seqtab *st, uint32_t s);

#endif
