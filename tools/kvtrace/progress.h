/* SPDX-License-Identifier: Apache-2.0 */
/*
 * progress.h - a progress bar for work that a person waits for.
 *
 * Drawn on standard error, only when that is a terminal and the work has
 * lasted longer than a second; redrawn at most ten times a second; wiped at the
 * end, so that what is printed next stands alone. One thread.
 */
#ifndef KVTRACE_PROGRESS_H
#define KVTRACE_PROGRESS_H

#include "kvmd/lib/base.h"

struct progress {
	const char *label;	/* what is being done, one or two words */
	uint64_t start_ns;	/* CLOCK_MONOTONIC */
	uint64_t drawn_ns;	/* last redraw; 0: not yet */
	bool is_tty;
};

/* @quiet: never draw. */
void progress_start(struct progress *p, const char *label, bool quiet);
/* @done of @total; a total of 0 draws only the time. Cheap to call often. */
void progress_update(struct progress *p, uint64_t done, uint64_t total);
void progress_end(struct progress *p);
/* progress_update() with the struct progress as @ctx, for trace_opts. */
void progress_callback(void *ctx, uint64_t done, uint64_t total);

#endif
