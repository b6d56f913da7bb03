/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker_bell.c - see worker_bell.h.
 */
#include "kvmd/lib/worker_bell.h"

#include "kvmd/lib/workers.h"

static int arm(struct worker_bell *b)
{
	return uring_read(b->u, &b->req, b->fd, &b->count, sizeof(b->count));
}

static void rung(struct uring_req *r, int res)
{
	(void)res;
	(void)arm(container_of(r, struct worker_bell, req));
}

int worker_bell_start(struct worker_bell *b, struct uring *u, const struct workers *w)
{
	*b = (struct worker_bell) { .req.done = rung, .u = u, .fd = workers_notify_fd(w) };
	return arm(b);
}
