/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tier.h - what a tier below HBM has to do.
 *
 * Block-granular and asynchronous; tiers stack (a test tier over a real one).
 * A place in a tier is a non-zero number that fits block.ram or block.disk.
 * read and write never block: request->done() runs in the core thread. Memory
 * named by a request belongs to the tier until then.
 */
#ifndef KVMD_TIER_TIER_H
#define KVMD_TIER_TIER_H

#include "kvmd/pool/block.h"

struct tier;

/* One block to or from a tier. The caller owns it again in done(). */
struct tier_req {
	struct tier *tier;
	uint32_t block;			/* record id */
	uint32_t place;			/* in the tier */
	void *buf;			/* page-first bytes of the block */
	uint64_t bytes;
	int err;			/* 0 or -errno, set before done() */
	void (*done)(struct tier_req *r);
	struct tier_req *next;		/* the tier's own */
};

struct tier_ops {
	const char *name;
	/* A place for @bytes; 0: full. */
	uint32_t (*alloc)(struct tier *t, uint64_t bytes);
	void (*free)(struct tier *t, uint32_t place);
	void (*read)(struct tier *t, struct tier_req *r);
	void (*write)(struct tier *t, struct tier_req *r);
	/* Finish what can be finished; how many done() ran. */
	unsigned (*poll)(struct tier *t);
};

struct tier {
	const struct tier_ops *ops;
	uint64_t nr_places, nr_free;
	struct tier *below;		/* stacked test tiers pass on to it; NULL: none */
	struct tier_req *head, *tail;	/* requests accepted, in order */
};

/* Takes every write, keeps nothing: every read is -ENODATA. For tests and floors. */
extern const struct tier_ops tier_null_ops;
void tier_null_init(struct tier *t, uint64_t nr_places);

#endif
