/* SPDX-License-Identifier: Apache-2.0 */
/*
 * workers.h - a small pool of threads for what can only block.
 *
 * The core thread submits; a worker runs work->fn(); the core thread reaps
 * and runs work->done(). The caller owns the struct work from done() on, and
 * must not touch it between submit and done(). Completions raise the notify
 * eventfd, so that a sleeping core loop wakes; workers_reap() is cheap when
 * nothing is there (one load). Threads that are not of the pool hand work back
 * in the same way: workers_adopt(), later workers_finish().
 */
#ifndef KVMD_LIB_WORKERS_H
#define KVMD_LIB_WORKERS_H

#include "kvmd/lib/base.h"

struct work {
	void (*fn)(struct work *w);	/* worker thread */
	void (*done)(struct work *w);	/* core thread, from workers_reap() */
	struct work *next;		/* private */
};

struct workers;

int workers_create(unsigned nr_threads, struct workers **ret_w) __must_check;
/* Runs what is queued, joins the threads, drops completions unreaped. */
void workers_destroy(struct workers *w);
int workers_notify_fd(const struct workers *w);	/* eventfd; owned by @w */
/* Any thread, like workers_adopt(); done() runs in the core thread. */
void workers_submit(struct workers *w, struct work *work);
/* As workers_submit(), but before all that is queued and was not urgent. */
void workers_submit_urgent(struct workers *w, struct work *work);
/*
 * Count one work that threads of the caller's do: fn() is not run. workers_finish()
 * hands it back, as if a worker had done it; both from any thread, in this order,
 * while @w lives.
 */
void workers_adopt(struct workers *w);
void workers_finish(struct workers *w, struct work *work);
unsigned workers_reap(struct workers *w);	/* runs done() of all finished; count */
unsigned workers_nr_pending(const struct workers *w);	/* given, done() not run yet */

#endif
