/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker_bell.h - workers that finish end the wait of an io_uring.
 *
 * A read of the workers' eventfd is always under way; that it completes is all it
 * is for: workers_reap() is the owner's, in its next turn. Its thread is the ring's.
 */
#ifndef KVMD_LIB_WORKER_BELL_H
#define KVMD_LIB_WORKER_BELL_H

#include "kvmd/lib/uring.h"

struct workers;

struct worker_bell {
	struct uring_req req;
	struct uring *u;
	int fd;				/* the workers' */
	uint64_t count;			/* what was read: finished works */
};

/* @b stays where it is until @u is destroyed. 0 or -errno (queue full). */
int worker_bell_start(struct worker_bell *b, struct uring *u, const struct workers *w);

#endif
