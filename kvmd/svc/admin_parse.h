/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin_parse.h - one request line of the admin socket, taken apart.
 *
 * "noun verb key=value ...": words of [a-z0-9_-], one or more blanks between
 * them; in a value %XX stands for any byte but NUL. The parse is a pure
 * function that writes only into the line and the struct.
 */
#ifndef KVMD_SVC_ADMIN_PARSE_H
#define KVMD_SVC_ADMIN_PARSE_H

#include "kvmd/lib/base.h"

#define ADMIN_LINE_BYTES	4096		/* of a request without a key list */
#define ADMIN_MAX_LINE_BYTES	(1u << 20)	/* of any request */
#define ADMIN_MAX_ARGS		12

struct admin_arg {
	const char *key, *val;
};

/* Points into the line it was parsed from. */
struct admin_req {
	const char *noun, *verb;
	struct admin_arg arg[ADMIN_MAX_ARGS];
	unsigned nr_args;
};

/* @line: @len bytes without the newline, and room for a NUL behind them. 0 or -EINVAL. */
int admin_parse(char *line, size_t len, struct admin_req *ret_rq, char *msg, size_t msg_bytes);
const char *admin_req_arg(const struct admin_req *rq, const char *key);	/* NULL: not given */

/* Hex digits into bytes; -EINVAL unless there are exactly 2 * @bytes of them in @len. */
int admin_parse_hex(const char *s, size_t len, void *ret_bytes, size_t bytes);

#endif
