// SPDX-License-Identifier: Apache-2.0
/*
 * bug.c - the end of the process, with the place and the broken condition.
 *
 * Uses no memory and no locks, so that any thread may call it in any state.
 */
#include "kvmd/lib/base.h"

#include <stdio.h>
#include <unistd.h>

void bug(const char *file, int line, const char *what)
{
	char buf[256];
	int len;

	len = snprintf(buf, sizeof(buf), "bug: %s:%d: %s\n", file, line, what);
	len = min(len, (int)sizeof(buf) - 1);
	if (len > 0 && write(STDERR_FILENO, buf, (size_t)len) < 0)
		abort();	/* nobody reads stderr: the core file tells */
	abort();
}
