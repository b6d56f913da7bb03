/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvctl.h - the operator's tool: one table of nouns and verbs, one file per noun.
 *
 * A verb asks the daemon one question over the admin socket (ask.c), gets one
 * JSON document and shows it: as it is with -j, else as a table or a record
 * (table.c). The table of verbs feeds dispatch, help and completion, and through
 * `help --list` the check of the manual.
 */
#ifndef KVCTL_KVCTL_H
#define KVCTL_KVCTL_H

#include <json-c/json.h>
#include <stdio.h>

#include "kvmd/lib/base.h"

#ifndef KVMD_KVCTL_NAME
#define KVMD_KVCTL_NAME "kvctl"
#endif

/* Exit statuses; a verb returns one. */
enum ctl_exit {
	CTL_OK,
	CTL_REFUSED,		/* the daemon said no, or an error on this side */
	CTL_USAGE,
	CTL_NO_DAEMON,
	CTL_PERMISSION,
	CTL_TIMEOUT,
};

/* Options of single verbs, by the letter in ctl_verb.opts; most are long only. */
enum ctl_opt {
	OPT_COLS = 'o', OPT_NO_HEADER = 'n', OPT_BYTES = 'b', OPT_SKIP = 'y',
	OPT_SPACE = 'S', OPT_GROUP = 'G', OPT_STATE = 'T', OPT_LIMIT = 'L', OPT_OFFSET = 'F',
	OPT_SESSION = 'E', OPT_EPOCH = 'P', OPT_ALL = 'A', OPT_PROM = 'M', OPT_KEY = 'K',
	OPT_OUTPUT = 'O', OPT_COUNT = 'C', OPT_BUFFER = 'B', OPT_LIST = 'I',
	OPT_DATA = 'D', OPT_WAIT = 'w', OPT_TIER = 'R',
};

struct ctl {
	const char *socket;		/* path, "@name": abstract */
	uint64_t timeout_ms;		/* 0: none */
	bool timeout_given;
	bool json;
	bool no_header, bytes, skip_first, all, prom, list, data, wait;
	const char *cols;		/* -o; NULL: the default ones */
	/* Values of options as given; NULL: not given. */
	const char *space, *group, *state, *limit, *offset, *session, *epoch, *key, *tier;
	const char *output, *count, *buffer;
	const struct ctl_verb *verb;	/* being run */
};

struct ctl_verb {
	const char *verb;
	const char *args;		/* for the usage line; "": none */
	int min_args, max_args;
	const char *opts;		/* letters of enum ctl_opt it takes */
	const char *help;		/* one line */
	int (*run)(struct ctl *k, int argc, char **argv);	/* enum ctl_exit */
};

/* The first verb is what the noun alone does. */
struct ctl_noun {
	const char *noun, *help;
	const struct ctl_verb *verbs;	/* verb NULL: end */
};

extern const struct ctl_noun ctl_nouns[];	/* noun NULL: end */
extern const struct ctl_verb ctl_status_verbs[], ctl_stat_verbs[], ctl_space_verbs[],
	ctl_client_verbs[], ctl_seq_verbs[], ctl_block_verbs[], ctl_tenant_verbs[],
	ctl_dev_verbs[], ctl_slab_verbs[], ctl_drain_verbs[], ctl_conf_verbs[],
	ctl_tier_verbs[], ctl_iostat_verbs[], ctl_prefetch_verbs[], ctl_explain_verbs[],
	ctl_pressure_verbs[], ctl_trace_verbs[], ctl_fault_verbs[],
	ctl_check_verbs[], ctl_fsck_verbs[], ctl_log_verbs[], ctl_completion_verbs[],
	ctl_help_verbs[], ctl_version_verbs[];

/* ----------------------------------------------------------- dispatch.c */

struct ctl_option {
	int letter;			/* enum ctl_opt, or a global one's */
	const char *name, *arg, *help;	/* arg NULL: takes none */
	bool is_short;			/* -letter works too */
	bool global;
};
extern const struct ctl_option ctl_options[];	/* name NULL: end */

/* Whole command line; the exit status. */
int ctl_main(int argc, char **argv);
const struct ctl_noun *ctl_noun_find(const char *noun);	/* NULL: no such */
/* "kvctl: message" on stderr; returns @ret. */
int ctl_fail(int ret, const char *fmt, ...) __printf(2, 3);
int ctl_usage(const char *fmt, ...) __printf(1, 2);	/* same, CTL_USAGE and a hint */

/* ------------------------------------------------------------- ask.c */

/* Connected and the request sent: CTL_OK and the socket, or why not (said). */
int ctl_send(struct ctl *k, const char *noun, const char *verb, const char *const *kv,
	     int *ret_fd);
/*
 * Ask: @kv is KEY, VALUE, ... NULL; pairs without a value are left out. The
 * answer is the caller's (json_object_put()). A refusal is printed here.
 */
int ctl_ask(struct ctl *k, const char *noun, const char *verb, const char *const *kv,
	    json_object **ret_doc);
/* "error" of a document: its exit status, printed; CTL_OK: there is none. */
int ctl_doc_error(struct ctl *k, json_object *doc);

/* ------------------------------------------------------------- keys.c */

/* 64 hex digits each, commas between them; buf is freed by the caller. */
struct ctl_keys {
	char *buf;
	size_t len;
};
int ctl_keys_init(struct ctl_keys *keys);
bool ctl_keys_full(const struct ctl_keys *keys);	/* no room for one more in a request */
int ctl_keys_add(struct ctl_keys *keys, const char *key);

/* ------------------------------------------------------------- sample.c */

/* A question that is asked every interval. */
struct ctl_sampler {
	const char *noun, *verb;
	void *ctx;
	/* Before the first sample, unless -j: columns, their heads. CTL_OK, or why not (said). */
	int (*begin)(const struct ctl *k, void *ctx, json_object *doc);
	/* One sample; @was: the one before, NULL: none, or of another daemon. */
	void (*show)(const struct ctl *k, void *ctx, json_object *doc, json_object *was);
};

/* [INTERVAL [COUNT]] of @noun; one more with --skip-first. */
int ctl_interval(struct ctl *k, const char *noun, int argc, char **argv, uint64_t *ret_ns,
		 uint64_t *ret_count);
int ctl_sample(struct ctl *k, const struct ctl_sampler *s, uint64_t interval_ns, uint64_t count);
/* Between two samples; @was NULL: since the daemon's start. */
double ctl_seconds(json_object *doc, json_object *was);

/* -------------------------------------------------------------- table.c */

enum ctl_type {
	CTL_STR, CTL_NUM, CTL_BYTES, CTL_MS, CTL_BOOL, CTL_LIST,
	CTL_LIMIT,		/* bytes, 0: no limit */
};

struct ctl_col {
	const char *name;		/* for -o; printed in capitals */
	const char *key;		/* of the row object; NULL: fn */
	enum ctl_type type;
	bool shown;			/* without -o */
	/* Fills @buf from the row; NULL: by key and type. */
	void (*fn)(const struct ctl *k, json_object *row, char *buf, size_t n);
};

/* Rows of array @key of @doc as a table. */
int ctl_table(struct ctl *k, json_object *doc, const char *key, const struct ctl_col *cols);
/* One object as lines of NAME and value; all columns unless -o. */
int ctl_record(struct ctl *k, json_object *row, const struct ctl_col *cols);
void ctl_print_json(json_object *doc);
/* Ask and show array @key: -j or a table. The usual list verb. */
int ctl_list(struct ctl *k, const char *noun, const char *verb, const char *const *kv,
	     const char *key, const struct ctl_col *cols);
/* `NOUN show`: the object as a record, then its rows under @key as a table. */
int ctl_show(struct ctl *k, const char *noun, const char *const *kv, const struct ctl_col *cols,
	     const char *key, const struct ctl_col *row_cols);
/* Ask and show -j, or what @text makes of the answer: it returns an exit status. */
int ctl_view(struct ctl *k, const char *noun, const char *verb, const char *const *kv,
	     int (*text)(struct ctl *k, json_object *doc));
/* Ask and show -j, or @text and member @member ("": none). The usual acting verb. */
int ctl_act(struct ctl *k, const char *noun, const char *verb, const char *const *kv,
	    const char *text, const char *member);
/* Says on stderr that a bounded listing goes on. */
void ctl_note_next(json_object *doc);

extern const struct ctl_col ctl_slab_cols[];	/* slab.c, for drain too */

uint64_t ctl_u64(json_object *row, const char *key);	/* 0 if it is not there */
const char *ctl_str(json_object *row, const char *key);	/* "" if it is not there */
bool ctl_has(json_object *row, const char *key);	/* there and not null */
json_object *ctl_get(json_object *row, const char *key);	/* NULL: not there */
void ctl_fmt_bytes(const struct ctl *k, uint64_t v, char *buf, size_t n);
void ctl_fmt_ms(uint64_t ms, char *buf, size_t n);
void ctl_fmt_count(const struct ctl *k, double v, char *buf, size_t n);	/* powers of 1000 */
void ctl_fmt_head(const char *name, char *buf, size_t n);	/* of a column: in capitals */

#endif
