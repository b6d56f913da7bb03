/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trace.h - request traces in Mooncake's public form: reader and writer.
 *
 * A trace is JSON lines. Each request is one object:
 *
 *   timestamp      ms since the trace began, fractions allowed
 *   input_length   prompt tokens
 *   output_length  generated tokens
 *   hash_ids       [id, id, ...], one id per prompt block, or
 *   hash_runs      [[first, count], ...], the same ids run-length coded
 *   session        optional, a number or a string
 *
 * and the first line may be a header instead, an object with block_tokens and
 * totals. Other keys are checked for syntax and ignored. Plain or gzip.
 *
 * An id stands for the whole chain of blocks from the start of the prompt, so
 * a block has one parent. In memory ids are dense: 0 is the first block that
 * the file names, 1 the second, and so on; a request is a list of runs of
 * dense ids, so millions of block accesses stay small.
 *
 * Not for the daemon: used by one thread of a tool.
 */
#ifndef KVTRACE_TRACE_H
#define KVTRACE_TRACE_H

#include <stdio.h>
#include <zlib.h>

#include "kvmd/lib/base.h"

#define TRACE_NONE		UINT32_MAX	/* no block: the parent of a root */
#define TRACE_BLOCK_TOKENS	512		/* Mooncake's, when no header says */
#define TRACE_MAX_BLOCK_TOKENS	(1U << 20)
#define TRACE_MAX_LINE		(64U << 20)	/* bytes of one line */
#define TRACE_MAX_CHAIN		(1U << 22)	/* blocks of one request */
#define TRACE_MAX_BLOCKS	(1U << 27)	/* distinct blocks of a trace */
#define TRACE_MAX_MS		(1ULL << 43)	/* 278 years; in ns it fits 63 bits */
#define TRACE_MSG_BYTES		512

/* ------------------------------------------------------------ one line */

struct trace_idrun {
	uint64_t first;		/* id as in the file */
	uint64_t count;		/* ids first, first + 1, ... */
};

/* What a header line claims; 0: it does not say. */
struct trace_header {
	uint64_t block_tokens;
	uint64_t requests;
	uint64_t sessions;
	uint64_t block_accesses;
	uint64_t distinct_blocks;
};

/* One parsed line. Reused from line to line; only runs is owned. */
struct trace_line {
	bool is_header;			/* only header is set */
	struct trace_header header;
	uint64_t ts_ns;
	uint32_t input_tokens, output_tokens;
	bool has_session;
	bool session_is_text;		/* session is a hash of the text */
	uint64_t session;
	struct trace_idrun *runs;	/* owned */
	uint64_t nr_runs, cap_runs;
	uint64_t nr_blocks;		/* sum of the runs' counts */
};

/*
 * Parse @len bytes at @s, one line without its newline. Touches nothing but
 * @l and @msg. 0, -EINVAL with the reason and column in @msg, or -ENOMEM.
 */
int trace_line_parse(struct trace_line *l, const char *s, size_t len,
		     char *msg, size_t msg_bytes);
void trace_line_free(struct trace_line *l);

/* ------------------------------------------------------------ a trace */

struct trace_run {
	uint32_t first;		/* dense id */
	uint32_t count;
};

struct trace_req {
	uint64_t ts_ns;		/* since the trace's zero */
	uint64_t first_run;	/* index into trace.runs */
	uint32_t nr_runs;
	uint32_t nr_blocks;	/* sum of the runs' counts */
	uint32_t input_tokens, output_tokens;
	uint32_t session;	/* dense, by first appearance */
	uint32_t pad;
};

/* Things that are odd but do not stop a replay; each counted once per case. */
enum trace_warn {
	TRACE_WARN_PARENT,	/* accesses whose block had another parent before */
	TRACE_WARN_BACKWARDS,	/* requests earlier than the one before */
	TRACE_WARN_OVERLONG,	/* requests with more blocks than their tokens fill */
	TRACE_WARN_SESSION,	/* requests without a session where others have one */
	TRACE_WARN_HEADER,	/* totals that differ from the header's */
	NR_TRACE_WARN
};

const char *trace_warn_name(enum trace_warn w);		/* snake_case, a JSON key */
const char *trace_warn_text(enum trace_warn w);		/* for people, after a count */

struct trace {
	uint32_t block_tokens;
	bool has_header;
	bool sessions_inferred;		/* see trace_load() */
	struct trace_header header;

	struct trace_req *reqs;
	uint64_t nr_reqs, cap_reqs;
	struct trace_run *runs;
	uint64_t nr_runs, cap_runs;
	uint64_t nr_accesses;		/* blocks of all requests */

	uint64_t *orig;			/* dense id -> id in the file */
	uint32_t *parent;		/* dense id -> dense id or TRACE_NONE */
	uint64_t cap_orig, cap_parent;
	uint32_t nr_blocks;		/* distinct */
	uint32_t nr_sessions;

	uint64_t nr_lines;		/* read, blank and bad ones too */
	uint64_t nr_bad;		/* lines skipped */
	char first_bad[TRACE_MSG_BYTES];	/* message of the first of them */
	uint64_t warn[NR_TRACE_WARN];
};

struct trace_opts {
	uint32_t block_tokens;	/* overrides the header; 0: header, else 512 */
	uint64_t max_reqs;	/* stop after so many requests; 0: all */
	bool skip_bad;		/* count and skip malformed lines */
	/* Called now and then with the share of the file read, in permille. */
	void (*progress)(void *ctx, uint64_t done, uint64_t total);
	void *progress_ctx;
};

/*
 * Read @path ("-": standard input). On failure nothing is kept and @msg holds
 * "FILE:LINE: reason": -EINVAL a malformed line, -EIO a read error or a damaged
 * or truncated gzip file, -ENOMEM, or the errno of open. A damaged file is refused
 * with skip_bad too: what is missing cannot be counted.
 *
 * When not every request names a session, all are inferred: a request goes on
 * with the session of the latest request whose full blocks are a prefix of its
 * own, unless that prefix ends in a hub (a block with 8 or more different
 * continuations: a shared template, not a conversation).
 */
int trace_load(struct trace *t, const char *path, const struct trace_opts *o,
	       char *msg, size_t msg_bytes);
void trace_free(struct trace *t);

static inline const struct trace_run *trace_req_runs(const struct trace *t,
						     const struct trace_req *r)
{
	return t->runs + r->first_run;
}

/* Tokens of the first @nr_blocks blocks of @r: the last one may be partial. */
static inline uint64_t trace_req_tokens(const struct trace *t, const struct trace_req *r,
					uint64_t nr_blocks)
{
	return min(nr_blocks * t->block_tokens, (uint64_t)r->input_tokens);
}

/* Blocks of @r that its prompt fills whole; a partly filled tail is not one. */
static inline uint32_t trace_req_full_blocks(const struct trace *t, const struct trace_req *r)
{
	return min(r->input_tokens / t->block_tokens, r->nr_blocks);
}

/*
 * Walk a request's dense ids in order:
 *
 *	struct trace_iter it = trace_iter(t, r);
 *	uint32_t id;
 *	while (trace_iter_next(&it, &id))
 */
struct trace_iter {
	const struct trace_run *run, *end;
	uint32_t at;		/* within run */
};

static inline struct trace_iter trace_iter(const struct trace *t, const struct trace_req *r)
{
	const struct trace_run *run = trace_req_runs(t, r);

	return (struct trace_iter){ .run = run, .end = run + r->nr_runs };
}

static inline bool trace_iter_next(struct trace_iter *it, uint32_t *ret_id)
{
	if (it->run == it->end)
		return false;
	*ret_id = it->run->first + it->at;
	if (++it->at == it->run->count) {
		it->run++;
		it->at = 0;
	}
	return true;
}

/* Copy dense ids [@from, @from + @nr) of @r to @ids; how many there were. */
uint32_t trace_expand(const struct trace *t, const struct trace_req *r,
		      uint32_t from, uint32_t nr, uint32_t *ids);

/* Room for @need elements of @elem bytes at *@pp (a pointer). 0 or -ENOMEM. */
int trace_grow(void *pp, uint64_t *cap, uint64_t need, size_t elem);

/* ------------------------------------------------------------ writing */

enum trace_form {
	TRACE_FORM_RUNS,	/* hash_runs */
	TRACE_FORM_IDS,		/* hash_ids */
	NR_TRACE_FORM
};

struct trace_out {
	gzFile gz;		/* a path that ends in .gz, or */
	FILE *f;		/* anything else */
	char *path;		/* NULL: standard output; else removed on failure */
	char *line;		/* the line being built */
	uint64_t len, cap;
	enum trace_form form;
	int err;		/* sticky: 0 or -errno */
};

/* One request to write. */
struct trace_rec {
	uint64_t ts_ns;		/* written in ms, with the fraction if there is one */
	uint64_t session;	/* UINT64_MAX: none */
	uint32_t input_tokens, output_tokens;
	const struct trace_idrun *runs;
	uint64_t nr_runs;
};

/* @path NULL or "-": standard output. 0 or -errno. */
int trace_out_open(struct trace_out *o, const char *path, enum trace_form form);
/* Zero totals are left out. @name and @timing: NULL or plain text. */
void trace_out_header(struct trace_out *o, const char *name, const char *timing,
		      const struct trace_header *h);
void trace_out_req(struct trace_out *o, const struct trace_rec *rec);
/* 0, or the first error; then a regular file at @path is gone. */
int trace_out_close(struct trace_out *o);

#endif
