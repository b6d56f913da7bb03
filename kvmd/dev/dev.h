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
	void *map;		/* host address of its bytes; NULL: none */
	uint64_t bytes;
	uint64_t handle;	/* backend's own; 0 for host memory */
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

/* What a device is opened with. */
struct dev_opts {
	const char *uuid;		/* wanted, "GPU-" before it or not; NULL: the first free one */
	uint64_t bytes;			/* budget; with share: upper limit, 0: none */
	unsigned share;			/* percent of the memory free now; 0: bytes */
	/* Bytes of extents that will be attached to that device: taken, but ours; NULL: none. */
	uint64_t (*kept_bytes)(const void *ctx, const char *uuid);
	const void *ctx;
	bool legacy;			/* hand out cuIpcGetMemHandle handles, not fds */
	unsigned copy_threads;		/* each direction */
	uint64_t copy_timeout_ns;	/* a copy that takes longer is reported */
};

struct dev_ops {
	const char *name;		/* "host", "null", "cuda" */
	uint32_t handle_kind;		/* enum kvmd_handle for clients, unless open() says another */
	bool has_memory;		/* false: extents hold nothing, copies do nothing */
	bool sums;			/* copy() can add the bytes to batch->sum in order */
	uint64_t granularity;		/* extents are multiples of it, unless open() says another */
	uint64_t grace_ns;		/* default wait after a client's death */

	/*
	 * Find and prepare the device; NULL: nothing to do. Start-up, may take
	 * seconds. -errno with @msg: what was wrong and what to do; @d is then not
	 * to be used. Fills uuid, model, budget_bytes, granularity, handle_kind.
	 */
	int (*open)(struct dev *d, const struct dev_opts *o, char *msg, size_t n);
	/* All extents are destroyed, no batch is on its way. */
	void (*close)(struct dev *d);
	/*
	 * @mem becomes fast to copy from and to, for all devices of this kind; NULL:
	 * it is anyway. Blocks for long (0.1 s a GiB). What cannot be pinned (-errno
	 * with @msg) can be copied all the same, slower. Any thread.
	 */
	int (*host_pin)(void *mem, uint64_t bytes, char *msg, size_t n);
	void (*host_unpin)(void *mem);	/* no copy with it is on its way */

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
	 * extent with fd -1 and a map (a RAM chunk). err: -EIO the device failed,
	 * nothing of it is under way any more; -EHWPOISON memory that one of the ends
	 * lies in is broken, it must not be used again.
	 */
	void (*copy)(struct dev *d, struct dev_batch *b);
};

enum dev_way {
	DEV_OUT,			/* device to host */
	DEV_IN,				/* host to device */
	DEV_WITHIN,			/* device to device */
	NR_DEV_WAY
};

struct dev {
	const struct dev_ops *ops;
	char name[40];			/* the configuration's */
	char uuid[40];			/* what clients name it by: "host-0", a GPU's without "GPU-" */
	uint8_t uuid_bytes[16];		/* a GPU's; 0: none */
	char model[64];			/* "" if there is nothing to say */
	void *priv;			/* backend's own */
	uint32_t handle_kind;		/* enum kvmd_handle */
	uint64_t granularity;		/* extents are multiples of it, bytes */
	uint64_t budget_bytes;		/* memory kvmd may use on it */
	uint64_t used_bytes;		/* in extents, core thread's account */
	uint64_t copied_bytes[NR_DEV_WAY];	/* by batches that are done, core thread's account */
	uint64_t nr_resets;		/* contexts rebuilt after an error */
	bool is_open;
	bool down;			/* could not be opened or is lost; text says why */
	char text[256];			/* last trouble, "" if none */
	/* Core thread: text has changed. NULL: nobody wants to know. */
	void (*troubled)(struct dev *d);
	uint64_t grace_ns;		/* in force */
	bool hugetlb;			/* host: try 2 MiB pages; read by workers, reloadable */
	struct workers *workers;	/* not owned */
};

extern const struct dev_ops dev_host_ops, dev_null_ops, dev_cuda_ops;

/* For backends: @b's work to the threads, before the rest when it is urgent. */
void dev_batch_submit(struct dev *d, struct dev_batch *b);

/* By kind name; NULL: no such backend in this build. */
const struct dev_ops *dev_ops_find(const char *kind);
/* Space-separated names of all backends. */
const char *dev_ops_names(void);

void dev_init(struct dev *d, const struct dev_ops *ops, const char *uuid,
	      uint64_t budget_bytes, struct workers *w);
/* After dev_init(): 0, or -errno with @msg, the device is down then. */
int dev_open(struct dev *d, const struct dev_opts *o, char *msg, size_t n);
void dev_close(struct dev *d);		/* also of one that is down */
/*
 * For every kind that wants it and has an open device: 1 done, 0 nobody wants it,
 * -errno with @msg. Any thread, while no device is opened or closed.
 */
int dev_host_pin(void *mem, uint64_t bytes, char *msg, size_t n);
void dev_host_unpin(void *mem);

#endif
