// SPDX-License-Identifier: Apache-2.0
/*
 * replay_page.c - the shared page, and whose turn it is.
 *
 * Each client shows the request that it runs or will run next. Request i may
 * start when it is less than a window ahead of the oldest of them: a window of
 * one puts all requests in the trace's order, a larger one keeps clients from
 * drifting apart in trace time when they go as fast as they can.
 *
 *	client that waits		client that has finished
 *	want = i			next = its next request
 *	fence				fence
 *	may i start? no: sleep		for each want that may start: wake
 *
 * One of the two sees the other's store, so no wake-up is lost.
 */
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tools/kvtrace/replay.h"

static const char *const op_names[NR_REPLAY_OP] = {
	[REPLAY_OPEN]	 = "open",
	[REPLAY_EXTEND]	 = "extend",
	[REPLAY_PUBLISH] = "publish",
	[REPLAY_CLOSE]	 = "close",
	[REPLAY_CLOCK]	 = "clock",
};

const char *replay_op_name(enum replay_op op)
{
	return op < NR_REPLAY_OP ? op_names[op] : "?";
}

int run_page_make(struct replay_run *r, uint32_t clients)
{
	uint32_t c;

	for (c = 0; c < REPLAY_MAX_CLIENTS; c++)
		r->event[c] = -1;
	r->page_bytes = sizeof(*r->page) + clients * sizeof(r->page->c[0]);
	r->page = mmap(NULL, r->page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);
	if (r->page == MAP_FAILED) {
		r->page = NULL;
		return -errno;
	}
	r->page->nr = clients;
	for (c = 0; c < clients; c++) {
		r->page->c[c].want = REPLAY_DONE;
		r->event[c] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (r->event[c] < 0)
			goto err_free;
	}
	return 0;

err_free:
	c = (uint32_t)errno;
	run_page_free(r);
	return -(int)c;
}

void run_page_free(struct replay_run *r)
{
	uint32_t c;

	for (c = 0; c < REPLAY_MAX_CLIENTS; c++) {
		if (r->event[c] >= 0)
			close(r->event[c]);
		r->event[c] = -1;
	}
	if (r->page)
		munmap(r->page, r->page_bytes);
	r->page = NULL;
}

static uint64_t oldest(const struct replay_run *r)
{
	uint64_t least = REPLAY_DONE;
	uint32_t c;

	for (c = 0; c < r->page->nr; c++)
		/* acquire: what the client did for requests before it has happened */
		least = min(least, ld_acq(&r->page->c[c].next));
	return least;
}

static bool in_window(const struct replay_run *r, uint64_t i, uint64_t first)
{
	return i <= first || i - first < r->window;
}

bool run_may_start(const struct replay_run *r, uint64_t i)
{
	return in_window(r, i, oldest(r));
}

void run_advance(struct replay_run *r, uint32_t c, uint64_t next)
{
	const uint64_t one = 1;
	uint64_t first, want;
	uint32_t i;

	/* release: pairs with oldest() */
	st_rel(&r->page->c[c].next, next);
	smp_mb();
	first = oldest(r);
	for (i = 0; i < r->page->nr; i++) {
		want = ld_rlx(&r->page->c[i].want);
		if (want == REPLAY_DONE || !in_window(r, want, first))
			continue;
		/* A full counter is a pending wake-up already. */
		if (write(r->event[i], &one, sizeof(one)) < 0)
			continue;
	}
}

uint64_t run_done(const struct replay_run *r)
{
	uint64_t done = 0;
	uint32_t c;

	for (c = 0; c < r->page->nr; c++)
		done += ld_rlx(&r->page->c[c].done);
	return done;
}
