/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replay_engine.h - one client from the inside: operations under way, and the
 * "device" that does the work of a step late.
 *
 * Two threads. The engine's owns the struct kvc, submits and reaps. The
 * device's takes steps in order, writes and verifies the blocks named when the
 * step was submitted, and completes it (kvc_step_complete() is for any thread).
 * With a lateness of N it begins a step only when N more were submitted or the
 * engine has nothing to do but wait; with 0 there is no second thread and a
 * step is over when its submission returns.
 */
#ifndef KVTRACE_REPLAY_ENGINE_H
#define KVTRACE_REPLAY_ENGINE_H

#include <pthread.h>

#include "tools/kvtrace/replay.h"

#define ENGINE_OPS	1024		/* entries under way */

/* ------------------------------------------------------------ device */

enum work_kind { WORK_WRITE, WORK_VERIFY, WORK_SAMPLE };

/* One block's work in a step; the slot is what the row said at submission. */
struct work_item {
	uint64_t seed;			/* of its bytes */
	uint32_t slot;
	uint32_t pos;			/* in the sequence, for reports */
	enum work_kind kind;
};

struct work_step {
	uint64_t step, req;
	uint32_t nr, cap;
	struct work_item *item;
};

struct device {
	struct kvc *k;
	const struct replay_opts *o;
	struct replay_slot *page;	/* counters of what was written and verified */
	pthread_t thread;
	pthread_mutex_t lock;		/* of the words below */
	pthread_cond_t more, room;
	struct work_step *ring;		/* [nr_ring], by sequence number modulo */
	uint64_t nr_ring;
	uint64_t head, tail;		/* next to work on, next to submit */
	void *buf;			/* a plane of a block on a GPU; NULL: the CPU reaches it */
	bool idle, stop, has_thread;
};

/* 0 or -errno. */
int device_start(struct device *d, struct kvc *k, const struct replay_opts *o,
		 struct replay_slot *page);
/* Finish every step, end the thread. */
void device_stop(struct device *d);
/* The next step, empty; waits until one is free. */
struct work_step *device_begin(struct device *d, uint64_t step, uint64_t req);
/* 0 or -ENOMEM. */
int device_add(struct work_step *s, const struct work_item *it);
/* The step of the last device_begin() is complete as a list of work: go on with it. */
void device_submit(struct device *d);
/* The engine waits: work off what is there, however recent. Until the next submit. */
void device_idle(struct device *d);
/* Wait until every step is over. */
void device_quiesce(struct device *d);

/* ------------------------------------------------------------ operations */

struct engine_op {
	uint64_t start_ns;		/* when it was submitted */
	uint64_t args;			/* offset, if has_args */
	int32_t res;
	uint32_t v0;
	uint32_t seq;
	uint32_t nr;			/* blocks it is about (publish) */
	enum replay_op kind;
	bool busy, done;
	bool has_args;
	bool awaited;			/* somebody asks for the result */
};

struct engine {
	const struct replay_run *run;
	const struct replay_plan *plan;
	const struct replay_opts *o;
	uint32_t c;			/* this client */
	struct replay_slot *page;
	struct kvc *k;
	const struct kvc_view *view;
	struct device dev;
	uint64_t step;			/* last submitted */
	uint64_t clock_tick;		/* policy clock last told, in ticks */
	uint16_t open_flags;		/* KVMD_OPEN_* of every open */
	uint32_t gen;			/* of the sequence opened last */
	uint32_t nr_free_seqs, max_seqs;
	uint32_t *free_seq;		/* stack */
	uint32_t *seq_gen;		/* by sequence; 0: free */
	uint32_t nr_ops;		/* under way */
	uint32_t next_op;
	struct engine_op op[ENGINE_OPS];
	int err;			/* sticky: an operation that nobody awaits failed so */
	bool settling;			/* ... which is no news: see replay_recover.c */
	uint8_t *keys;			/* of the blocks of the request that runs */
};

/* All return 0 or -errno; -ECONNRESET: the session is over. */

/* Copy @nr keys into the args area; they go back when the entry that names them is done. */
int engine_keys(struct engine *e, const void *keys, uint32_t nr, uint64_t *ret_off);
/* Room for an entry of @kind on @seq; the caller fills *ret_e, and args if it has keys. */
int engine_op(struct engine *e, enum replay_op kind, uint32_t seq, struct engine_op **ret_op,
	      struct kvmd_sqe **ret_e);
/* Submit; with @await the caller must engine_wait() for it. */
int engine_go(struct engine *e, struct engine_op *op, struct kvmd_sqe *sqe, bool await);
/* The operation's result: >= 0 or -errno. */
int engine_wait(struct engine *e, struct engine_op *op, uint32_t *ret_v0);
/* Until nothing is under way. */
int engine_drain(struct engine *e);
/* Take a free sequence, with a new generation; waits until a close gives one back. */
int engine_seq(struct engine *e, uint32_t *ret_seq);
void engine_seq_put(struct engine *e, uint32_t seq);

/* ------------------------------------------------------------ requests */

/* What the library knows of the session: again after each reconnect. */
void engine_look(struct engine *e);
/* Run request @i to its end; again when there is no memory for it now. */
int engine_request(struct engine *e, uint64_t i);
/*
 * After -ECONNRESET, when daemons may be killed: connect to the one that comes
 * next. Nothing is under way then and no sequence is open. 0 or -errno.
 */
int engine_recover(struct engine *e);
/* Say on standard error what failed, and why, unless we may recover; returns @err. */
int engine_say(const struct engine *e, uint64_t req, const char *what, int err);

#endif
