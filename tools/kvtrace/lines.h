/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lines.h - lines of a plain or gzip file, bounded, with line numbers.
 *
 * zlib passes plain files through. A gzip file that ends early or does not
 * verify is an error at the line where it shows, never a short file.
 */
#ifndef KVTRACE_LINES_H
#define KVTRACE_LINES_H

#include <zlib.h>

#include "kvmd/lib/base.h"

struct lines {
	const char *name;	/* the path, or "standard input" */
	gzFile gz;
	uint64_t file_bytes;	/* compressed; 0: not known */
	uint64_t max_line;	/* bytes */
	char *buf;		/* owned; unread bytes are [pos, len) */
	uint64_t pos, len, cap;
	uint64_t line_no;	/* of the line given last, from 1 */
	bool is_end;		/* zlib has no more */
	char msg[128];		/* why lines_next() failed */
};

/* @path "-": standard input. 0 or -errno; @in->name is set either way. */
int lines_open(struct lines *in, const char *path, uint64_t max_line);
/*
 * The next line, without its newline, valid until the next call: 1; 0 at the
 * end. -E2BIG: the line is longer than max_line and was skipped, go on as you
 * like; -EIO and -ENOMEM are final. The reason is in @in->msg.
 */
int lines_next(struct lines *in, const char **ret_s, size_t *ret_len);
/* Bytes of the file read so far, at most file_bytes. */
uint64_t lines_offset(const struct lines *in);
void lines_close(struct lines *in);

#endif
