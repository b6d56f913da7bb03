// SPDX-License-Identifier: Apache-2.0
/*
 * trace_write.c - a trace in Mooncake's form, to a file, gzip or standard output.
 *
 * A line is built in memory and written whole. The first error sticks, later
 * calls do nothing, and trace_out_close() reports it and removes what a reader
 * could take for a complete trace.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kvmd/lib/mem.h"
#include "tools/kvtrace/trace.h"

#define PUT_MAX		128	/* bytes one put() adds at most */

static void __printf(2, 3) put(struct trace_out *o, const char *fmt, ...)
{
	va_list ap;
	int n;

	if (!o->err)
		o->err = trace_grow(&o->line, &o->cap, o->len + PUT_MAX, 1);
	if (o->err)
		return;
	va_start(ap, fmt);
	n = vsnprintf(o->line + o->len, PUT_MAX, fmt, ap);
	va_end(ap);
	if (n < 0 || n >= PUT_MAX)
		o->err = -EINVAL;
	else
		o->len += (uint64_t)n;
}

/* End the line and write it. */
static void flush_line(struct trace_out *o)
{
	int z;

	put(o, "}\n");
	if (o->err)
		return;
	if (o->gz && gzwrite(o->gz, o->line, (unsigned int)o->len) <= 0) {
		gzerror(o->gz, &z);
		o->err = z == Z_ERRNO && errno ? -errno : -EIO;
	} else if (o->f && fwrite(o->line, 1, o->len, o->f) != o->len) {
		o->err = errno ? -errno : -EIO;
	}
	o->len = 0;
}

static bool is_gz(const char *path)
{
	size_t n = strlen(path);

	return n > 3 && !strcmp(path + n - 3, ".gz");
}

int trace_out_open(struct trace_out *o, const char *path, enum trace_form form)
{
	int fd, err;

	*o = (struct trace_out){ .form = form };
	if (!path || !strcmp(path, "-")) {
		o->f = stdout;
		return 0;
	}
	o->path = mem_strdup(path);
	if (!o->path)
		return -ENOMEM;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (fd < 0) {
		err = -errno;
		goto err_path;
	}
	if (is_gz(path))
		o->gz = gzdopen(fd, "wb");
	else
		o->f = fdopen(fd, "w");
	if (!o->gz && !o->f) {
		err = -ENOMEM;
		goto err_fd;
	}
	return 0;

err_fd:
	close(fd);
err_path:
	mem_free(o->path);
	o->path = NULL;
	return err;
}

static void put_total(struct trace_out *o, const char *key, uint64_t v)
{
	if (v)
		put(o, ",\"%s\":%" PRIu64, key, v);
}

void trace_out_header(struct trace_out *o, const char *name, const char *timing,
		      const struct trace_header *h)
{
	put(o, "{");
	if (name)
		put(o, "\"trace\":\"%s\",", name);
	put(o, "\"block_tokens\":%" PRIu64, h->block_tokens);
	if (timing)
		put(o, ",\"timing\":\"%s\"", timing);
	put_total(o, "requests", h->requests);
	put_total(o, "sessions", h->sessions);
	put_total(o, "block_accesses", h->block_accesses);
	put_total(o, "distinct_blocks", h->distinct_blocks);
	flush_line(o);
}

static void put_ids(struct trace_out *o, const struct trace_idrun *r)
{
	uint64_t j;

	for (j = 0; j < r->count; j++)
		put(o, "%s%" PRIu64, j ? "," : "", r->first + j);
}

void trace_out_req(struct trace_out *o, const struct trace_rec *rec)
{
	uint64_t i;

	put(o, "{\"timestamp\":%" PRIu64, rec->ts_ns / 1000000);
	if (rec->ts_ns % 1000000)
		put(o, ".%06" PRIu64, rec->ts_ns % 1000000);
	if (rec->session != UINT64_MAX)
		put(o, ",\"session\":%" PRIu64, rec->session);
	put(o, ",\"input_length\":%" PRIu32 ",\"output_length\":%" PRIu32 ",\"%s\":[",
	    rec->input_tokens, rec->output_tokens,
	    o->form == TRACE_FORM_IDS ? "hash_ids" : "hash_runs");
	for (i = 0; i < rec->nr_runs; i++) {
		put(o, "%s", i ? "," : "");
		if (o->form == TRACE_FORM_IDS)
			put_ids(o, &rec->runs[i]);
		else
			put(o, "[%" PRIu64 ",%" PRIu64 "]", rec->runs[i].first,
			    rec->runs[i].count);
	}
	put(o, "]");
	flush_line(o);
}

int trace_out_close(struct trace_out *o)
{
	struct stat st;
	int err = o->err, z;

	if (o->gz) {
		z = gzclose(o->gz);
		if (z != Z_OK && !err)
			err = z == Z_ERRNO && errno ? -errno : -EIO;
	} else if (o->f) {
		if (o->f == stdout ? fflush(o->f) : fclose(o->f))
			err = err ? err : (errno ? -errno : -EIO);
	}
	/* A device or a pipe is not ours to remove. */
	if (err && o->path && !lstat(o->path, &st) && S_ISREG(st.st_mode))
		unlink(o->path);
	mem_free(o->path);
	mem_free(o->line);
	*o = (struct trace_out){ 0 };
	return err;
}
