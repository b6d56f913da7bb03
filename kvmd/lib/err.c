// SPDX-License-Identifier: Apache-2.0
/*
 * err.c - see err.h.
 */
#include "kvmd/lib/err.h"

#include <stdarg.h>
#include <stdio.h>

int err_text(int err, char *msg, size_t msg_bytes, const char *fmt, ...)
{
	va_list ap;

	if (msg && msg_bytes) {
		va_start(ap, fmt);
		vsnprintf(msg, msg_bytes, fmt, ap);
		va_end(ap);
	}
	return err;
}
