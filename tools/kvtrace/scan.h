/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scan.h - a cursor over one line of JSON.
 *
 * The bytes need no NUL at the end and may hold any. Every function that
 * returns an int gives 0, or -EINVAL with the reason and the column in @msg.
 * Space before a value is skipped. Any thread; allocates nothing.
 */
#ifndef KVTRACE_SCAN_H
#define KVTRACE_SCAN_H

#include "kvmd/lib/base.h"

struct scan {
	const char *start, *p, *end;
	char *msg;		/* where the reason goes */
	size_t msg_bytes;
};

/* Write the reason and the column of @c->p; returns -EINVAL. */
int scan_fail(struct scan *c, const char *fmt, ...) __printf(2, 3);
void scan_space(struct scan *c);
/* The next character that is not space, not consumed; 0 at the end. */
char scan_peek(struct scan *c);
/* Consume @ch if it is next. */
bool scan_take(struct scan *c, char ch);
/* Consume @ch or fail; @where completes "... should be, ". */
int scan_expect(struct scan *c, char ch, const char *where);
/* The raw text between the quotes; escapes are checked, not decoded. */
int scan_string(struct scan *c, const char **ret_s, size_t *ret_len);
/* A whole number of at most @hi; "3.0" is one. @name is for the reason. */
int scan_whole(struct scan *c, const char *name, uint64_t hi, uint64_t *ret_v);
/* Milliseconds, up to @hi_ms, fraction and exponent allowed, as ns. */
int scan_ms(struct scan *c, const char *name, uint64_t hi_ms, uint64_t *ret_ns);
/* true, false or null. */
int scan_word(struct scan *c);
/* Walk over one value of any kind. */
int scan_skip(struct scan *c);

#endif
