/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tier.h - what a tier below HBM has to do.
 *
 * Block-granular and asynchronous; tiers stack (a test tier over a real one,
 * `below'). A place in a tier is a non-zero number that fits block.ram or
 * block.disk. The RAM tier moves bytes between an HBM slot and its own memory;
 * the disk tier between memory (of the RAM tier, a fixed buffer) and a file.
 *
 * read and write never block and never call done() themselves: done() runs in
 * the core thread, from poll() or from the completion of a device copy, worker
 * or io_uring request. Until then the place and both ends of the request are
 * the tier's: they are neither freed nor reused. A request accepted always ends
 * in exactly one done(). Core thread only.
 */
#ifndef KVMD_TIER_TIER_H
#define KVMD_TIER_TIER_H

#include "kvmd/pool/pool.h"

struct tier;

enum tier_kind { TIER_RAM, TIER_DISK, NR_TIER };
const char *tier_kind_name(unsigned kind);	/* "ram", "disk" */

/*
 * One block to or from a tier. The caller owns it again in done(). Errors:
 * -EIO, -EBADMSG (the bytes are not those of the checksum), -ENODATA (the tier
 * does not have it after all), -ENOSPC, -ECANCELED (tier is being drained), -E2BIG
 * (RAM write, coded: it has to be written plain).
 */
struct tier_req {
	struct tier *tier;		/* set by tier_read(), tier_write() */
	uint32_t block;			/* record; 0: none */
	uint32_t place;			/* in the tier */
	struct gpool *gp;		/* whose block it is */
	uint32_t slot;			/* RAM tier: the HBM end */
	void *mem;			/* disk tier: the memory end, 4 KiB aligned */
	int buf;			/* disk tier: fixed buffer that has mem; -1: none */
	uint64_t bytes;			/* of the payload */
	bool coded;			/* it is, or is to be, a coded block (image.h) */
	uint64_t sum;			/* XXH3-64 of the payload; disk write: in, else: out */
	uint32_t planes;		/* RAM read: planes in place so far, grows (shard 0's) */
	bool urgent;			/* somebody waits for it: before what is not */
	bool verify;			/* disk read: compare with the checksum before done() */
	int err;			/* 0 or -errno, set before done() */
	void (*done)(struct tier_req *r);
	struct tier_req *next;		/* whoever's queue it is on */
	uint64_t due_ns;		/* test tiers' own */
};

struct tier_ops {
	const char *name;
	/* A place for record @block of @gp, @bytes; 0: full. */
	uint32_t (*alloc)(struct tier *t, struct gpool *gp, uint32_t block, uint64_t bytes);
	/* Also while requests on it are under way: it is reused after them. */
	void (*free)(struct tier *t, uint32_t place);
	void (*read)(struct tier *t, struct tier_req *r);
	void (*write)(struct tier *t, struct tier_req *r);
	/* Go on with what can go on; how many done() ran. */
	unsigned (*poll)(struct tier *t);
	/* When poll() must be called again, CLOCK_MONOTONIC ns; 0: no need. */
	uint64_t (*next_ns)(struct tier *t);
	/* No request is under way. NULL is fine. */
	void (*destroy)(struct tier *t);
};

struct tier {
	const struct tier_ops *ops;
	enum tier_kind kind;
	struct tier *below;		/* stacked test tiers pass on to it; NULL: the real one */
	uint64_t bytes, used_bytes;	/* capacity now, and taken */
	uint64_t nr_inflight;		/* requests accepted, done() still to come */
	uint32_t nr_said;		/* changes of the text in its info; of the real tier */
	bool draining;			/* takes no new block */
	bool broken;			/* failed too often: takes no new block, still reads */
};

/* Requests in the order they came, by `next'. A request is on one queue at a time. */
struct tier_queue {
	struct tier_req *head, *tail;
};

static inline void tier_queue_push(struct tier_queue *q, struct tier_req *r)
{
	r->next = NULL;
	if (q->tail)
		q->tail->next = r;
	else
		q->head = r;
	q->tail = r;
}

/* The oldest; NULL: none. */
static inline struct tier_req *tier_queue_pop(struct tier_queue *q)
{
	struct tier_req *r = q->head;

	if (r) {
		q->head = r->next;
		if (!q->head)
			q->tail = NULL;
		r->next = NULL;
	}
	return r;
}

static inline struct tier *tier_bottom(struct tier *t)
{
	while (t->below)
		t = t->below;
	return t;
}

static inline void tier_read(struct tier *t, struct tier_req *r)
{
	r->tier = t;
	t->ops->read(t, r);
}

static inline void tier_write(struct tier *t, struct tier_req *r)
{
	r->tier = t;
	t->ops->write(t, r);
}

/* Bytes of a block of @g below HBM: page-first, all planes of all shards (replicas once). */
static inline uint64_t tier_group_bytes(const struct kvmd_group *g, uint32_t nr_shards)
{
	uint64_t one = g->planes * g->plane_bytes;

	return g->flags & KVMD_GROUP_REPLICA ? one : one * nr_shards;
}

static inline uint64_t tier_block_bytes(const struct gpool *gp)
{
	return tier_group_bytes(&gp->geo, gp->sp->nr_shards);
}

/* Of a copy of a block, plain or coded. The two never need places of one class. */
static inline uint64_t tier_copy_bytes(const struct gpool *gp, bool coded)
{
	return coded ? gp->coded_bytes : tier_block_bytes(gp);
}

/* enum kvmd_codec_id of a copy of @bytes. */
static inline uint16_t tier_codec_of(const struct gpool *gp, uint64_t bytes)
{
	return gp->coded_bytes && bytes == gp->coded_bytes ? gp->geo.codec.id : KVMD_CODEC_NONE;
}

static inline uint64_t tier_ram_bytes(const struct gpool *gp, const struct block *b)
{
	return tier_copy_bytes(gp, b->ram_coded);
}

static inline uint64_t tier_disk_bytes(const struct gpool *gp, const struct block *b)
{
	return tier_copy_bytes(gp, b->disk_coded);
}

/* Blocks of @gp that come back from a coded copy may have other bytes. */
static inline bool tier_is_lossy(const struct gpool *gp)
{
	return gp->coded_bytes && gp->geo.codec.id != KVMD_CODEC_WINDOW;
}

/* ------------------------------------------------------------ test tiers */

/*
 * A stack over @bottom from a spec of words, the first on top: "null",
 * "delay:2ms", "delay:read=1ms,write=5ms", "error:read,nth=3",
 * "error:write,prob=0.01,seed=7,times=2", "error:alloc,every=5",
 * "error:flip,prob=0.1" (one bit of what was read). @bottom belongs to the stack
 * from then on. 0; -EINVAL with the word named in @msg; -ENOMEM.
 */
int tier_stack(struct tier *bottom, const char *spec, struct tier **ret_top,
	       char *msg, size_t msg_bytes);
/* Destroys the whole stack, the real tier included. NULL is fine. */
void tier_destroy(struct tier *top);

#endif
