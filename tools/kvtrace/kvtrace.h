/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvtrace.h - what the verbs of kvtrace share: exit codes, the command table's
 * row, option parsing that says what was wrong.
 *
 * A verb is one file with one cmd_<verb>(argc, argv), argv[0] being the verb.
 * It prints results on standard output and everything else on standard error.
 */
#ifndef KVTRACE_KVTRACE_H
#define KVTRACE_KVTRACE_H

#include "kvmd/lib/base.h"
#include "tools/kvtrace/trace.h"

enum kvt_exit {
	KVT_OK = 0,
	KVT_REFUSED = 1,	/* bad data, or a file that cannot be read or written */
	KVT_USAGE = 2,		/* bad options */
};

struct kvt_cmd {
	const char *name;
	int (*func)(int argc, char **argv);	/* returns an exit code */
	const char *args;			/* for the list of commands */
	const char *help;			/* one line */
};

int cmd_gen(int argc, char **argv);
int cmd_info(int argc, char **argv);
int cmd_replay(int argc, char **argv);

/* "kvtrace: ..." on standard error. */
void kvt_warn(const char *fmt, ...) __printf(1, 2);
/* "kvtrace VERB: ..." and the hint to ask for help; returns KVT_USAGE. */
int kvt_usage(const char *verb, const char *fmt, ...) __printf(2, 3);

/* The hint alone, after getopt's own message; returns KVT_USAGE. */
int kvt_try_help(const char *verb);

/*
 * The value of option @name (for messages). A number, or a time with a unit
 * (ns us ms s min h; plain: seconds), within [@lo, @hi]. 0, or KVT_USAGE after
 * a message.
 */
int kvt_opt_u64(const char *verb, const char *name, const char *arg,
		uint64_t lo, uint64_t hi, uint64_t *ret_v);
int kvt_opt_time(const char *verb, const char *name, const char *arg,
		 uint64_t lo_ns, uint64_t hi_ns, uint64_t *ret_ns);

/*
 * Load @path with a progress bar, report what was skipped and what is odd.
 * KVT_OK or KVT_REFUSED. @quiet: neither bar nor warnings.
 */
int kvt_load(struct trace *t, const char *path, struct trace_opts o, bool quiet);
/* Print a finished document and free it: 0 or -errno. */
struct json;
int kvt_json_print(struct json *j);
/* Flush standard output: KVT_OK, or KVT_REFUSED after a message. */
int kvt_flush(void);

#endif
