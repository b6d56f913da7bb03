/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda_int.h - what the files of the cuda backend share.
 *
 *   cuda.c         the driver, finding and opening a GPU, closing it
 *   cuda_ctx.c     who may use a GPU's context, and rebuilding it after an error
 *   cuda_extent.c  memory: made, exported, attached, scrubbed
 *   cuda_move.c    copies: the queues and the threads that empty them
 *   cuda_copy.c    one group of copies: made few, submitted, waited for, summed
 *   cuda_pin.c     host memory registered with the driver
 *
 * The core thread makes driver calls in open and close only. Whoever else uses a
 * context holds its lock for reading (cuda_enter()) as long as anything of his is
 * under way in it; who finds it broken takes the lock for writing and makes a new
 * one. So nothing is under way when a context is replaced, and what its owner does
 * before he lets go runs alone.
 *
 * Locks, in the order in which they are taken: pins' op; contexts by rising index;
 * pins' table; one of ext_lock, news_lock, lane->lock.
 */
#ifndef KVMD_DEV_CUDA_INT_H
#define KVMD_DEV_CUDA_INT_H

#include "kvmd/dev/dev.h"

#include <pthread.h>

#include "kvmd/cuda_abi.h"
#include "kvmd/lib/list.h"

#define CUDA_MAX_GPUS		32	/* one bit each in a mask; the thread checker bears 64 locks */
#define CUDA_ALL_GPUS		(~0ull >> (64 - CUDA_MAX_GPUS))
#define CUDA_GRANULE		(2ull << 20)	/* where the driver does not say */
#define CUDA_TEXT		224
#define CUDA_GROUP_BYTES	(16u << 20)
#define CUDA_GROUP_COPIES	1024	/* and batches */

struct cuda;

/* Device memory; dev_extent.handle points at it. */
struct cuda_extent {
	struct list node;	/* in c->extents */
	struct cuda *c;		/* whose memory it is */
	cu_ptr addr;		/* 0: not mapped; changes when the context is rebuilt */
	uint64_t bytes;
	int fd;			/* the exported handle; -1: legacy. Closed with dev_extent.fd */
};

enum cuda_lane {
	LANE_OUT,		/* device to host */
	LANE_IN,		/* host to device */
	LANE_URGENT,		/* urgent ones of any way, and device to device */
	NR_LANE
};

/* Batches that wait for a mover. */
struct lane {
	pthread_mutex_t lock;	/* all below */
	pthread_cond_t wake;
	struct work *head, *tail;	/* of struct dev_batch */
	uint64_t bytes;		/* of all that wait */
	unsigned nr_idle;	/* movers asleep */
	bool stop;		/* movers end when the lane is empty */
};

struct item {
	struct dev_batch *b;
	bool summed;		/* what it had to */
};

/* Copies that are waited for together; the arrays are filled from both ends. */
struct piece {
	unsigned nr;		/* first, with one call */
	unsigned nr_single;	/* last, with a call each */
	uint64_t bytes;
	uintptr_t dst_id, src_id;	/* of the last of nr: see struct end */
	cu_ptr dst[CUDA_GROUP_COPIES], src[CUDA_GROUP_COPIES];
	size_t len[CUDA_GROUP_COPIES];
};

/* A thread and its group. */
struct mover {
	struct cuda *c;
	struct lane *lane;
	pthread_t thread;
	unsigned gen;		/* stream and event belong to this context; 0: to none */
	cu_stream stream;
	cu_event event;
	unsigned nr;		/* of item */
	uint64_t also;		/* other GPUs that the group's copies touch */
	struct item item[CUDA_GROUP_COPIES];
	struct piece piece;
};

/* One GPU, open or not: its locks exist from the loading of the driver on. */
struct cuda {
	unsigned idx;			/* in cuda_gpu[] and for the driver, its ordinal */
	int ord;			/* CUdevice */
	struct cu_uuid uuid_bytes;
	char uuid[CU_UUID_TEXT];
	struct dev *d;			/* core thread; NULL: not open */
	struct workers *workers;	/* work comes back through it */
	bool legacy;			/* cuMemAlloc and its handles instead of VMM */
	uint64_t timeout_ns;		/* a copy that takes longer is reported; 0: none */

	pthread_rwlock_t lock;		/* read: the context is used; write: all below */
	cu_ctx ctx;
	unsigned gen;			/* contexts there were; streams belong to one */
	bool open;			/* also read without lock */
	bool lost;			/* no context can be had any more; also read without lock */
	pthread_mutex_t ext_lock;	/* extents, among those who hold lock for reading */
	struct list extents;

	struct lane lane[NR_LANE];
	struct mover *mover;
	unsigned nr_movers;

	/* What the core thread is to be told. */
	pthread_mutex_t news_lock;	/* text, posted */
	struct work news;
	bool posted;			/* news is on its way */
	char text[CUDA_TEXT];
	bool oom_said;			/* atomic; until a creation succeeds again */
	/* Since they were last added to the counters; atomic. */
	uint64_t nr_groups, nr_merged, nr_resets, nr_timeouts;
};

extern struct cu cuda_drv;			/* loaded with the first open, for good */
extern struct cuda cuda_gpu[CUDA_MAX_GPUS];

/* ------------------------------------------------------------------ contexts */

void cuda_ctx_init(struct cuda *c);		/* locks, once */
/* Take the primary context: a CUresult. Drop it, with what is left in it. */
int cuda_ctx_open(struct cuda *c);
void cuda_ctx_close(struct cuda *c);

static inline uint64_t cuda_bit(const struct cuda *c)
{
	return 1ull << c->idx;
}

/*
 * Use @c's context on this thread, and memory of the GPUs in @also; may wait for a
 * rebuild. *ret_gen: which context it is. -EIO: the GPU is lost, nothing to leave.
 */
int cuda_enter(struct cuda *c, uint64_t also, unsigned *ret_gen);
void cuda_leave(struct cuda *c, uint64_t also);
/*
 * The same when nobody else does. @why, a CUresult that context @gen gave: if it
 * broke it, there is a new one (nobody made it before). -EIO: there is none, the GPU is
 * lost. *ret_locked is for cuda_leave_alone().
 */
int cuda_enter_alone(struct cuda *c, uint64_t also, unsigned gen, int why, uint64_t *ret_locked);
void cuda_leave_alone(uint64_t locked);
/* Alone: make the context that @why broke anew. -EIO: lost. */
int cuda_rebuild(struct cuda *c, int why);

/*
 * fn() with the context; if it breaks it, once more alone in a new one. Its CUresult,
 * CU_DEVICE_UNAVAILABLE when the GPU is lost. Not the core thread.
 */
int cuda_run(struct cuda *c, int (*fn)(struct cuda *c, void *arg), void *arg);
int cuda_stream_end(cu_stream s);		/* waits for all of @s, destroys it: a CUresult */
int cuda_errno(int r);				/* of a CUresult */

/* Tell the core thread; the last text wins. Any thread. */
void cuda_say(struct cuda *c, const char *fmt, ...) __printf(2, 3);
void cuda_account(struct cuda *c);		/* core thread: add to the counters */

/* ------------------------------------------------------------------- extents */

static inline struct cuda_extent *cuda_extent_of(const struct dev_extent *e)
{
	return (struct cuda_extent *)(uintptr_t)e->handle;
}

/* Whose memory it is; NULL: host memory. */
static inline const struct cuda *cuda_gpu_of(const struct dev_extent *e)
{
	return e->handle ? cuda_extent_of(e)->c : NULL;
}

int cuda_extent_create(struct dev *d, uint64_t bytes, struct dev_extent *ret_e);
int cuda_extent_attach(struct dev *d, int fd, uint64_t bytes, struct dev_extent *ret_e);
int cuda_extent_scrub(struct dev *d, struct dev_extent *e);
void cuda_extent_destroy(struct dev *d, struct dev_extent *e);
/* Alone, after a reset: forget the mappings; make them again. */
void cuda_extents_unmap(struct cuda *c);
int cuda_extents_remap(struct cuda *c);		/* CUresult */

/* -------------------------------------------------------------------- movers */

int cuda_movers_start(struct cuda *c, unsigned copy_threads);	/* 0 or -errno */
void cuda_movers_stop(struct cuda *c);		/* when the lanes are empty */
void cuda_copy(struct dev *d, struct dev_batch *b);
enum dev_way cuda_way_of(const struct dev_copy *k);	/* host to host is DEV_IN */
/* Items @first to @end - 1: a CUresult. On return nothing of them is under way. */
int cuda_items_run(struct mover *m, unsigned first, unsigned end);
/* Add the host's side to the batch's sum, if it wants one, in the order of its copies. */
void cuda_item_sum(struct item *it);

/* ---------------------------------------------------------------------- pins */

int cuda_host_pin(void *mem, uint64_t bytes, char *msg, size_t n);
void cuda_host_unpin(void *mem);
/* @c may register memory. */
void cuda_pins_join(struct cuda *c);
/* @c is closed: its registrations go to another GPU, if there is one. */
void cuda_pins_part(struct cuda *c);
bool cuda_pins_via(const struct cuda *c);	/* is anything registered through @c? */
/* Alone with all GPUs: what was registered through @c is gone with its context. */
void cuda_pins_lost(struct cuda *c);
void cuda_pins_again(struct workers *w);	/* have it registered again, soon */

/* Between these, cuda_pin_span() may be asked. */
void cuda_pins_get(void);
void cuda_pins_put(void);
/*
 * How many of @bytes at @addr are alike: in one registered range (*ret_id is its
 * address), or in none (*ret_id 0).
 */
uint64_t cuda_pin_span(uintptr_t addr, uint64_t bytes, uintptr_t *ret_id);

#endif
