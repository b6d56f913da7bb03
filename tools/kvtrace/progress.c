// SPDX-License-Identifier: Apache-2.0
/*
 * progress.c - a progress bar on a terminal.
 */
#include <stdio.h>
#include <unistd.h>

#include "kvmd/lib/clock.h"
#include "tools/kvtrace/progress.h"

#define SHOW_AFTER_NS	1000000000ULL
#define REDRAW_NS	100000000ULL
#define BAR_WIDTH	32

void progress_start(struct progress *p, const char *label, bool quiet)
{
	*p = (struct progress){
		.label = label,
		.start_ns = clock_ns(),
		.is_tty = !quiet && isatty(STDERR_FILENO),
	};
}

static void draw(const struct progress *p, uint64_t done, uint64_t total, uint64_t spent_ns)
{
	static const char full[] = "################################";
	static const char rest[] = "--------------------------------";
	double share = total ? (double)min(done, total) / (double)total : 0;
	double spent_s = (double)spent_ns / 1e9;
	int n = (int)(share * BAR_WIDTH);

	BUILD_BUG_ON(sizeof(full) != BAR_WIDTH + 1 || sizeof(rest) != BAR_WIDTH + 1);
	if (!total)
		fprintf(stderr, "\r%s %.0f s\033[K", p->label, spent_s);
	else
		fprintf(stderr, "\r%s [%.*s%.*s] %3.0f %%, %.0f s, %.0f s left\033[K", p->label,
			n, full, BAR_WIDTH - n, rest, share * 100, spent_s,
			share > 0 ? spent_s / share - spent_s : 0);
	fflush(stderr);
}

void progress_update(struct progress *p, uint64_t done, uint64_t total)
{
	uint64_t now;

	if (!p->is_tty)
		return;
	now = clock_ns();
	if (now - p->start_ns < SHOW_AFTER_NS || now - p->drawn_ns < REDRAW_NS)
		return;
	p->drawn_ns = now;
	draw(p, done, total, now - p->start_ns);
}

void progress_end(struct progress *p)
{
	if (p->drawn_ns) {
		fputs("\r\033[K", stderr);
		fflush(stderr);
	}
	p->drawn_ns = 0;
}

void progress_callback(void *ctx, uint64_t done, uint64_t total)
{
	progress_update(ctx, done, total);
}
