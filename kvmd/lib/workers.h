/* SPDX-License-Identifier: Apache-2.0 */
/*
 * workers.h - a small pool of threads for what can only block.
 *
 * The core thread submits; a worker runs work->fn(); the core thread reaps
 * and runs work->done(). The caller owns the struct work from done() on, and
 * must not touch it between submit and done(). Completions raise the notify
 * eventfd, so that a sleeping core loop wakes; workers_reap() is cheap when
 * nothing is there (one load).
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
void workers_submit(struct workers *w, struct work *work);
/* As workers_submit(), but before all that is queued and was not urgent. */
void workers_submit_urgent(struct workers *w, struct work *work);
unsigned workers_reap(struct workers *w);	/* runs done() of all finished; count */
unsigned workers_nr_pending(const struct workers *w);

#endif
