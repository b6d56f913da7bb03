// SPDX-License-Identifier: Apache-2.0
/*
 * common.c - messages, options and loading, shared by kvtrace's verbs.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "kvmd/lib/conf.h"
#include "kvmd/lib/json.h"
#include "tools/kvtrace/kvtrace.h"
#include "tools/kvtrace/progress.h"

void kvt_warn(const char *fmt, ...)
{
	va_list ap;

	fputs("kvtrace: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

int kvt_try_help(const char *verb)
{
	fprintf(stderr, "Try 'kvtrace %s --help'.\n", verb);
	return KVT_USAGE;
}

int kvt_usage(const char *verb, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "kvtrace %s: ", verb);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return kvt_try_help(verb);
}

int kvt_opt_u64(const char *verb, const char *name, const char *arg,
		uint64_t lo, uint64_t hi, uint64_t *ret_v)
{
	uint64_t v;

	if (conf_parse_u64(arg, &v))
		return kvt_usage(verb, "--%s: '%s' is not a whole number", name, arg);
	if (v < lo || v > hi)
		return kvt_usage(verb, "--%s: %s is outside %" PRIu64 " to %" PRIu64,
				 name, arg, lo, hi);
	*ret_v = v;
	return 0;
}

int kvt_opt_time(const char *verb, const char *name, const char *arg,
		 uint64_t lo_ns, uint64_t hi_ns, uint64_t *ret_ns)
{
	uint64_t v;

	if (conf_parse_time(arg, &v))
		return kvt_usage(verb, "--%s: '%s' is not a time like 250ms, 30 or 2min",
				 name, arg);
	if (v < lo_ns || v > hi_ns)
		return kvt_usage(verb, "--%s: %s is outside %g s to %g s", name, arg,
				 (double)lo_ns / 1e9, (double)hi_ns / 1e9);
	*ret_ns = v;
	return 0;
}

int kvt_load(struct trace *t, const char *path, struct trace_opts o, bool quiet)
{
	char msg[TRACE_MSG_BYTES];
	struct progress p;
	unsigned int w;
	int err;

	progress_start(&p, "reading", quiet);
	o.progress = progress_callback;
	o.progress_ctx = &p;
	err = trace_load(t, path, &o, msg, sizeof(msg));
	progress_end(&p);
	if (err) {
		kvt_warn("%s", msg);
		return KVT_REFUSED;
	}
	if (quiet)
		return KVT_OK;
	if (t->nr_bad)
		kvt_warn("%s: %" PRIu64 " bad lines skipped, the first: %s", path, t->nr_bad,
			 t->first_bad);
	for (w = 0; w < NR_TRACE_WARN; w++)
		if (t->warn[w])
			kvt_warn("%s: %" PRIu64 " %s", path, t->warn[w],
				 trace_warn_text((enum trace_warn)w));
	return KVT_OK;
}

int kvt_json_print(struct json *j)
{
	int err = j->err;

	if (!err)
		puts(j->buf);
	json_exit(j);
	return err;
}

int kvt_flush(void)
{
	if (!fflush(stdout) && !ferror(stdout))
		return KVT_OK;
	kvt_warn("standard output: %s", strerror(errno ? errno : EIO));
	return KVT_REFUSED;
}
