// SPDX-License-Identifier: Apache-2.0
/*
 * lines.c - a line reader over zlib.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kvmd/lib/mem.h"
#include "tools/kvtrace/lines.h"
#include "tools/kvtrace/trace.h"

#define CHUNK		(128U << 10)	/* bytes asked of zlib at a time */

int lines_open(struct lines *in, const char *path, uint64_t max_line)
{
	bool is_stdin = !strcmp(path, "-");
	struct stat st;
	int fd, err;

	*in = (struct lines){
		.name = is_stdin ? "standard input" : path,
		.max_line = max_line,
	};
	fd = is_stdin ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st)) {
		err = -errno;
		goto err_close;
	}
	if (S_ISDIR(st.st_mode)) {
		err = -EISDIR;
		goto err_close;
	}
	in->file_bytes = S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
	in->gz = gzdopen(fd, "rb");
	if (!in->gz) {
		err = -ENOMEM;
		goto err_close;
	}
	gzbuffer(in->gz, CHUNK);
	return 0;

err_close:
	close(fd);
	return err;
}

static int fail(struct lines *in, int err, const char *why)
{
	snprintf(in->msg, sizeof(in->msg), "%s", why);
	return err;
}

/* What zlib met: it tells of a cut-off stream only when all was handed out. */
static int check_stream(struct lines *in)
{
	const char *text;
	int z;

	text = gzerror(in->gz, &z);
	switch (z) {
	case Z_OK:
	case Z_STREAM_END:
		return 0;
	case Z_BUF_ERROR:
		return fail(in, -EIO, "gzip data ends early: the file is truncated");
	case Z_MEM_ERROR:
		return fail(in, -ENOMEM, "out of memory");
	case Z_ERRNO:
		/* Never -E2BIG: that one is not final. */
		return fail(in, -EIO, strerror(errno ? errno : EIO));
	default:
		snprintf(in->msg, sizeof(in->msg), "gzip data is damaged: %s", text);
		return -EIO;
	}
}

/* More bytes behind the unread ones, which move to the front; sets is_end. */
static int fill(struct lines *in)
{
	int n, err;

	if (in->pos)
		memmove(in->buf, in->buf + in->pos, in->len - in->pos);
	in->len -= in->pos;
	in->pos = 0;
	if (trace_grow(&in->buf, &in->cap, in->len + CHUNK, 1))
		return fail(in, -ENOMEM, "out of memory");
	errno = 0;
	n = gzread(in->gz, in->buf + in->len, CHUNK);
	if (n > 0) {
		in->len += (uint64_t)n;
		return 0;
	}
	err = check_stream(in);
	in->is_end = !err;
	return err;
}

int lines_next(struct lines *in, const char **ret_s, size_t *ret_len)
{
	uint64_t scanned = 0;	/* unread bytes without a newline */
	bool is_long = false;
	char *nl = NULL;
	int err;

	in->line_no++;
	for (;;) {
		if (in->len - in->pos > scanned)
			nl = memchr(in->buf + in->pos + scanned, '\n',
				    in->len - in->pos - scanned);
		scanned = in->len - in->pos;
		if (nl || in->is_end)
			break;
		if (scanned > in->max_line) {
			is_long = true;
			in->pos = in->len;
			scanned = 0;
		}
		err = fill(in);
		if (err)
			return err;
	}
	if (!nl && !scanned && !is_long) {
		in->line_no--;
		return 0;
	}
	*ret_s = in->buf + in->pos;
	*ret_len = nl ? (size_t)(nl - *ret_s) : scanned;
	in->pos += *ret_len + (nl ? 1 : 0);
	if (!is_long && *ret_len <= in->max_line)
		return 1;
	snprintf(in->msg, sizeof(in->msg), "line is longer than %llu bytes",
		 (unsigned long long)in->max_line);
	return -E2BIG;
}

uint64_t lines_offset(const struct lines *in)
{
	z_off_t at = gzoffset(in->gz);

	return at < 0 ? 0 : min((uint64_t)at, in->file_bytes);
}

void lines_close(struct lines *in)
{
	if (in->gz)
		gzclose_r(in->gz);
	mem_free(in->buf);
	in->gz = NULL;
	in->buf = NULL;
}
