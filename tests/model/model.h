/* SPDX-License-Identifier: Apache-2.0 */
/*
 * model.h - what sequences must look like: a reference that knows no slots.
 *
 * It holds, per sequence, what each position is (nothing, private, sealed under
 * a key) and which content it must read as. Operations are applied when their
 * completion is seen; each function says what the completion had to be. A key is
 * a node of a tree of prompts: (parent's key, token).
 */
#ifndef KVMD_TESTS_MODEL_H
#define KVMD_TESTS_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#define M_SESSIONS	3
#define M_SPACES	2
#define M_SEQS		4
#define M_POS		12
#define M_TICKETS	4
#define M_KEYS		4096		/* power of two */
#define M_NO_HOLE	UINT32_MAX

enum m_kind { M_NULL, M_PRIVATE, M_SEALED };

struct m_pos {
	enum m_kind kind;
	bool filled;			/* a step that writes it was submitted */
	uint64_t fill_step;		/* that step */
	uint64_t tag;			/* content */
	uint32_t batch;			/* in which it became what it is */
};

struct m_seq {
	bool live, no_store;
	uint32_t gen, space, epoch, len, hole;
	uint32_t node[M_POS];		/* its prompt */
	struct m_pos pos[M_POS];
	unsigned nr_pending;		/* entries in flight that name it */
	unsigned nr_structural;		/* of those: may release or move positions */
	unsigned nr_publishing, nr_unsharing;
};

struct m_key {
	uint32_t node, space, epoch;	/* node 0: free */
	uint32_t nr_published;		/* publishes submitted under it */
};

struct model {
	uint32_t epoch[M_SPACES];
	struct m_seq seq[M_SESSIONS][M_SEQS];
	struct m_key key[M_KEYS];
	uint64_t next_tag;		/* of private content */
	uint32_t batch;			/* completions seen at once: their order is not known */
};

uint32_t m_child(uint32_t node, uint32_t token);
uint64_t m_tag(uint32_t node);		/* content under that key */

/* A publish of @node was submitted. */
void m_note_publish(struct model *m, const struct m_seq *q, uint32_t pos);
/* Is it in the cache for certain: sealed in a sequence that nothing can release now? */
bool m_is_held(const struct model *m, uint32_t space, uint32_t epoch, uint32_t node);
/* How many leading positions of @q's prompt hit at least, at most. */
void m_hit_bounds(const struct model *m, const struct m_seq *q, uint32_t nr, uint32_t *ret_lo,
		  uint32_t *ret_hi);

void m_open(const struct model *m, struct m_seq *q, uint32_t hit);
void m_extend(struct m_seq *q, uint32_t nr);
/* Positions that the publish takes, from @first; 0: -EINVAL. */
uint32_t m_publish_takes(const struct m_seq *q, uint32_t first, uint32_t nr);
/* Seal what may be sealed: counts, and how many merge at least, at most. */
void m_publish(const struct model *m, struct m_seq *q, uint32_t first, uint32_t nr,
	       uint32_t *ret_sealed, uint32_t *ret_private, uint32_t *ret_merge_lo,
	       uint32_t *ret_merge_hi);
void m_touch(const struct model *m, struct m_seq *q);	/* it came in this batch */
uint32_t m_fork(const struct m_seq *q, struct m_seq *to, uint32_t gen);	/* blocks copied */
int m_unshare(struct m_seq *q, uint32_t pos);		/* 1, 0, -EINVAL */
int m_trim(struct m_seq *q, uint16_t flags, uint32_t first, uint32_t nr);
int m_replace(struct m_seq *q, uint16_t flags, uint32_t first, uint32_t nr, uint32_t nr_new);

#endif
