/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dev.h - device backends: memory for slabs and copies between them.
 *
 * struct dev_ops is the only place that knows a vendor. An extent is one
 * exportable piece of device memory (one plane of one slab on one shard).
 * Creating, scrubbing and destroying may block and run on a worker; copies are
 * submitted by the core thread and finish later: batch->done() runs in the core
 * thread. Memory named by a submitted batch is not reused before its done().
 */
#ifndef KVMD_DEV_DEV_H
#define KVMD_DEV_DEV_H

#include "kvmd/lib/base.h"
#include "kvmd/lib/sum.h"
#include "kvmd/lib/workers.h"

struct dev;

/* One exportable piece of device memory. */
struct dev_extent {
	int fd;			/* to pass to clients; -1: none */
	void *map;		/* the daemon's own mapping; NULL: none */
	uint64_t bytes;
	uint64_t handle;	/* backend's own */
};

/* One contiguous copy. */
struct dev_copy {
	const struct dev_extent *dst, *src;
	uint64_t dst_off, src_off;	/* bytes */
	uint64_t bytes;
};

/* Copies that finish together; the caller owns it again in done(). */
struct dev_batch {
	struct work work;		/* backend's own */
	struct dev *dev;
	struct dev_copy *copy;
	unsigned nr;
	bool urgent;			/* overtakes batches that are not */
	struct sum *sum;		/* not NULL and ops->sums: bytes are added as they go */
	int err;			/* 0 or -errno, set before done() */
	void (*done)(struct dev_batch *b);
};

struct dev_ops {
	const char *name;		/* "host", "null" */
	uint32_t handle_kind;		/* enum kvmd_handle for clients */
	bool has_memory;		/* false: extents hold nothing, copies do nothing */
	bool sums;			/* copy() can add the bytes to batch->sum in order */
	uint64_t granularity;		/* extents are multiples of it, bytes */
	uint64_t grace_ns;		/* default wait after a client's death */

	/* May block (worker). 0 or -errno; *ret_e untouched on failure. */
	int (*extent_create)(struct dev *d, uint64_t bytes, struct dev_extent *ret_e);
	/*
	 * One that a former daemon made and whose @fd was kept (-1 without memory).
	 * Owns @fd on success; -EINVAL: not of this size, or not what it made.
	 */
	int (*extent_attach)(struct dev *d, int fd, uint64_t bytes, struct dev_extent *ret_e);
	/* Zeroes all of it, and proves it by the backend's own means. May block. */
	int (*extent_scrub)(struct dev *d, struct dev_extent *e);
	void (*extent_destroy)(struct dev *d, struct dev_extent *e);
	/*
	 * Core thread, never blocks. Either end of a copy may be host memory: an
	 * extent with fd -1 and a map (a RAM chunk).
	 */
	void (*copy)(struct dev *d, struct dev_batch *b);
};

struct dev {
	const struct dev_ops *ops;
	char uuid[40];			/* "host-0"... */
	uint64_t budget_bytes;		/* memory kvmd may use on it */
	uint64_t used_bytes;		/* in extents, core thread's account */
	uint64_t grace_ns;		/* in force */
	bool hugetlb;			/* host: try 2 MiB pages; read by workers, reloadable */
	struct workers *workers;	/* not owned */
};

extern const struct dev_ops dev_host_ops, dev_null_ops;

/* For backends: @b's work to the threads, before the rest when it is urgent. */
void dev_batch_submit(struct dev *d, struct dev_batch *b);

/* By kind name; NULL: no such backend in this build. */
const struct dev_ops *dev_ops_find(const char *kind);
/* Space-separated names of all backends. */
const char *dev_ops_names(void);

void dev_init(struct dev *d, const struct dev_ops *ops, const char *uuid,
	      uint64_t budget_bytes, struct workers *w);

#endif
