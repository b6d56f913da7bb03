/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policy.h - what a replacement policy is told, and what it is asked.
 *
 * A policy scores, it never copies or frees. One instance per gpool. The rooms
 * below reclaim/ call it through these ops only; implementations are in
 * reclaim/. It owns prev, next, tag and BLK_F_POL* of idle blocks and whatever
 * it allocated in create(); it reads time from pool.now alone.
 *
 * The calls of one request, in order: request() once, when its keys are known;
 * hit() for each block leased, first to last; ghost() for each key that missed
 * but is remembered; insert() when a block of it is sealed under a new key;
 * idle() when a block's last lease ends, LAST BLOCK OF THE CHAIN FIRST, so that
 * in an LRU list the tail of a chain leaves first. busy() takes a block off the
 * idle lists again.
 *
 * block.last_use is when it last became idle, set before idle(); hit() reads it,
 * and a ghost's when is a copy of it. At hit() block.uses and block.leases count
 * that lease already. hit() and insert() do not care whether the block is on the
 * idle lists.
 *
 * No call allocates or fails. victim() must be bounded: O(64) blocks looked at
 * per call, amortised.
 */
#ifndef KVMD_POOL_POLICY_H
#define KVMD_POOL_POLICY_H

#include "kvmd/pool/block.h"

struct pool;
struct gpool;

/* A remembered block that is no longer cached (index/ghost.h keeps them). */
struct ghost {
	uint32_t hash;		/* high half of the key's bucket hash; 0: empty */
	uint32_t when;		/* last use, policy clock, 1/16 s */
	uint8_t why;		/* enum kvmd_miss: evicted, dropped, epoch */
	uint8_t uses;		/* as block.uses */
	uint8_t tag;		/* as block.tag */
	uint8_t aux;		/* policy's own */
};

/* One arriving request. */
struct policy_req {
	uint32_t nr_keys;	/* blocks of the prompt */
	uint32_t nr_hit;	/* of those cached, leading */
	uint32_t nr_seen;	/* of those cached or remembered, leading; >= nr_hit */
	uint32_t tokens;	/* asked for */
	uint32_t hints;		/* KVMD_HINT_* */
	uint64_t gap_ns;	/* expected gap to the next request; 0: not said */
	uint32_t seen_age;	/* 1/16 s since the deepest seen block was used */
	uint8_t seen_uses;	/* of the deepest seen block */
	uint8_t seen_aux;	/* of the deepest seen block: ghost.aux or policy's aux() */
	uint8_t tag_new;	/* out: tag for blocks this request will insert */
	uint8_t tag_hit;	/* out: policy's own, given back in hit() */
	uint8_t aux;		/* out: policy's own, given back in insert() and hit() */
};

struct policy_ops {
	const char *name;
	const char *help;			/* one line */
	bool wants_ghosts;			/* request() wants nr_seen, ghost() is called */
	struct policy *(*create)(struct pool *p, struct gpool *gp);	/* NULL: -ENOMEM */
	void (*destroy)(struct policy *pol);
	void (*request)(struct policy *pol, struct policy_req *r);
	void (*hit)(struct policy *pol, struct block *b, const struct policy_req *r);
	void (*ghost)(struct policy *pol, struct ghost *g, const struct policy_req *r);
	/* @g: what was remembered of this key, NULL: new. tag_new and aux as request() said. */
	void (*insert)(struct policy *pol, struct block *b, const struct ghost *g,
		       uint8_t tag_new, uint8_t aux);
	void (*busy)(struct policy *pol, struct block *b);
	void (*idle)(struct policy *pol, struct block *b);
	/* flags or prio of an idle block changed (cold, priority). */
	void (*advised)(struct policy *pol, struct block *b);
	/*
	 * The idle block without children in HBM (nr_kids == 0) that should go
	 * first; it stays on the lists until busy() is called for it. NULL: none.
	 */
	struct block *(*victim)(struct policy *pol);
	/* What ghost() entries should remember of @b (ghost.aux). */
	uint8_t (*aux)(struct policy *pol, const struct block *b);
	/*
	 * Is @a worth keeping when the idle block @b would have to go for it? HBM
	 * never asks: a running request's blocks must be there. A tier below does,
	 * before it takes a block, and refuses what is not.
	 */
	bool (*beats)(struct policy *pol, const struct block *a, const struct block *b);
};

struct policy {
	const struct policy_ops *ops;
	struct pool *pool;
	struct gpool *gp;
};



/* Policy clock in 1/16 s, as stored in records. */
#define POLICY_TICKS_PER_S	16

#endif
