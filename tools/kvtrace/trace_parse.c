// SPDX-License-Identifier: Apache-2.0
/*
 * trace_parse.c - one line of a trace, strictly.
 *
 * A cursor walks the bytes once. Every value is bounded before it is used,
 * and nothing outside the line struct is touched: a bad line leaves no trace
 * of itself. Any thread; blocks on nothing.
 */
#include <stdio.h>

#include "tools/kvtrace/scan.h"
#include "tools/kvtrace/trace.h"

enum key {
	KEY_TIMESTAMP, KEY_INPUT, KEY_OUTPUT, KEY_IDS, KEY_RUNS, KEY_SESSION,
	KEY_BLOCK_TOKENS, KEY_REQUESTS, KEY_SESSIONS, KEY_ACCESSES, KEY_DISTINCT,
	NR_KEY
};

static const char *const key_names[NR_KEY] = {
	[KEY_TIMESTAMP] = "timestamp",
	[KEY_INPUT] = "input_length",
	[KEY_OUTPUT] = "output_length",
	[KEY_IDS] = "hash_ids",
	[KEY_RUNS] = "hash_runs",
	[KEY_SESSION] = "session",
	[KEY_BLOCK_TOKENS] = "block_tokens",
	[KEY_REQUESTS] = "requests",
	[KEY_SESSIONS] = "sessions",
	[KEY_ACCESSES] = "block_accesses",
	[KEY_DISTINCT] = "distinct_blocks",
};

#define BIT(k)		(1U << (k))
/* Any of these makes a line a request. */
#define REQUEST_KEYS	(BIT(KEY_TIMESTAMP) | BIT(KEY_INPUT) | BIT(KEY_OUTPUT) | \
			 BIT(KEY_IDS) | BIT(KEY_RUNS))

/* ------------------------------------------------------------ block lists */

static int add_run(struct scan *c, struct trace_line *l, uint64_t first, uint64_t count)
{
	struct trace_idrun *last = l->nr_runs ? &l->runs[l->nr_runs - 1] : NULL;
	int err;

	if (count > TRACE_MAX_CHAIN || l->nr_blocks + count > TRACE_MAX_CHAIN)
		return scan_fail(c, "more than %u blocks in one request", TRACE_MAX_CHAIN);
	l->nr_blocks += count;
	if (last && last->first + last->count == first) {
		last->count += count;
		return 0;
	}
	err = trace_grow(&l->runs, &l->cap_runs, l->nr_runs + 1, sizeof(*l->runs));
	if (err)
		return err;
	l->runs[l->nr_runs++] = (struct trace_idrun){ first, count };
	return 0;
}

/* Ids stop short of the top, so that first + count never overflows. */
#define MAX_ID		(UINT64_MAX - TRACE_MAX_CHAIN)

static int parse_ids(struct scan *c, struct trace_line *l)
{
	uint64_t id;
	int err;

	err = scan_expect(c, '[', "to begin hash_ids");
	if (err || scan_take(c, ']'))
		return err;
	do {
		err = scan_whole(c, "hash_ids", MAX_ID, &id);
		if (!err)
			err = add_run(c, l, id, 1);
		if (err)
			return err;
	} while (scan_take(c, ','));
	return scan_expect(c, ']', "to end hash_ids");
}

static int parse_run(struct scan *c, struct trace_line *l)
{
	uint64_t first, count;
	int err;

	err = scan_expect(c, '[', "to begin a run of hash_runs");
	if (!err)
		err = scan_whole(c, "hash_runs first", MAX_ID, &first);
	if (!err)
		err = scan_expect(c, ',', "between first and count");
	if (!err)
		err = scan_whole(c, "hash_runs count", TRACE_MAX_CHAIN, &count);
	if (err)
		return err;
	if (!count)
		return scan_fail(c, "hash_runs count is 0");
	err = add_run(c, l, first, count);
	return err ? err : scan_expect(c, ']', "to end a run of hash_runs");
}

static int parse_runs(struct scan *c, struct trace_line *l)
{
	int err;

	err = scan_expect(c, '[', "to begin hash_runs");
	if (err || scan_take(c, ']'))
		return err;
	do {
		err = parse_run(c, l);
		if (err)
			return err;
	} while (scan_take(c, ','));
	return scan_expect(c, ']', "to end hash_runs");
}

/* ------------------------------------------------------------ the line */

static int parse_session(struct scan *c, struct trace_line *l)
{
	const char *s;
	size_t len, i;
	int err;

	if (scan_peek(c) == 'n') {		/* null: as if the key were not there */
		return scan_word(c);
	} else if (scan_peek(c) != '"') {
		err = scan_whole(c, "session", UINT64_MAX, &l->session);
	} else {
		/* FNV-1a: a name for a session, not proof of anything. */
		err = scan_string(c, &s, &len);
		l->session = 0xcbf29ce484222325ULL;
		for (i = 0; !err && i < len; i++)
			l->session = (l->session ^ (unsigned char)s[i]) * 0x100000001b3ULL;
		l->session_is_text = true;
	}
	l->has_session = !err;
	return err;
}

static int parse_u32(struct scan *c, const char *name, uint32_t *ret_v)
{
	uint64_t v;
	int err;

	err = scan_whole(c, name, UINT32_MAX, &v);
	if (!err)
		*ret_v = (uint32_t)v;
	return err;
}

static int parse_block_tokens(struct scan *c, struct trace_line *l)
{
	uint64_t v;
	int err;

	err = scan_whole(c, "block_tokens", TRACE_MAX_BLOCK_TOKENS, &v);
	if (!err && !v)
		err = scan_fail(c, "block_tokens is 0");
	if (!err)
		l->header.block_tokens = v;
	return err;
}

/*
 * Totals are a header's; in a request line these names mean nothing to us, so
 * a value that is no number is not an error there.
 */
static int parse_total(struct scan *c, const char *name, uint64_t *ret_v)
{
	char ch = scan_peek(c);

	if (ch < '0' || ch > '9')
		return scan_skip(c);
	return scan_whole(c, name, UINT64_MAX, ret_v);
}

static int parse_member(struct scan *c, struct trace_line *l, enum key k)
{
	switch (k) {
	case KEY_TIMESTAMP:
		return scan_ms(c, key_names[k], TRACE_MAX_MS, &l->ts_ns);
	case KEY_INPUT:
		return parse_u32(c, key_names[k], &l->input_tokens);
	case KEY_OUTPUT:
		return parse_u32(c, key_names[k], &l->output_tokens);
	case KEY_IDS:
		return parse_ids(c, l);
	case KEY_RUNS:
		return parse_runs(c, l);
	case KEY_SESSION:
		return parse_session(c, l);
	case KEY_BLOCK_TOKENS:
		return parse_block_tokens(c, l);
	case KEY_REQUESTS:
		return parse_total(c, key_names[k], &l->header.requests);
	case KEY_SESSIONS:
		return parse_total(c, key_names[k], &l->header.sessions);
	case KEY_ACCESSES:
		return parse_total(c, key_names[k], &l->header.block_accesses);
	case KEY_DISTINCT:
		return parse_total(c, key_names[k], &l->header.distinct_blocks);
	case NR_KEY:
		break;
	}
	return scan_skip(c);
}

static enum key key_find(const char *s, size_t len)
{
	unsigned int k;

	for (k = 0; k < NR_KEY; k++)
		if (strlen(key_names[k]) == len && !memcmp(key_names[k], s, len))
			break;
	return (enum key)k;
}

static int parse_members(struct scan *c, struct trace_line *l, uint32_t *ret_seen)
{
	const char *s;
	enum key k;
	size_t len;
	int err;

	do {
		err = scan_string(c, &s, &len);
		if (err)
			return err;
		k = key_find(s, len);
		if (k != NR_KEY && *ret_seen & BIT(k))
			return scan_fail(c, "key \"%s\" twice", key_names[k]);
		*ret_seen |= BIT(k);
		if ((*ret_seen & BIT(KEY_IDS)) && (*ret_seen & BIT(KEY_RUNS)))
			return scan_fail(c, "hash_ids and hash_runs in one request");
		err = scan_expect(c, ':', "after a key");
		if (!err)
			err = parse_member(c, l, k);
		if (err)
			return err;
	} while (scan_take(c, ','));
	return 0;
}

static int missing(struct scan *c, const char *what)
{
	snprintf(c->msg, c->msg_bytes, "no %s in this request", what);
	return -EINVAL;
}

static int check_seen(struct scan *c, struct trace_line *l, uint32_t seen)
{
	unsigned int k;

	if (!(seen & REQUEST_KEYS) && (seen & BIT(KEY_BLOCK_TOKENS))) {
		l->is_header = true;
		return 0;
	}
	for (k = KEY_TIMESTAMP; k <= KEY_OUTPUT; k++)
		if (!(seen & BIT(k)))
			return missing(c, key_names[k]);
	if (!(seen & (BIT(KEY_IDS) | BIT(KEY_RUNS))))
		return missing(c, "hash_ids or hash_runs");
	return 0;
}

int trace_line_parse(struct trace_line *l, const char *s, size_t len,
		     char *msg, size_t msg_bytes)
{
	struct scan c = {
		.start = s, .p = s, .end = s + len, .msg = msg, .msg_bytes = msg_bytes,
	};
	uint32_t seen = 0;
	int err;

	*l = (struct trace_line){ .runs = l->runs, .cap_runs = l->cap_runs };
	err = scan_expect(&c, '{', "to begin a request");
	if (!err && scan_peek(&c) != '}')
		err = parse_members(&c, l, &seen);
	if (!err)
		err = scan_expect(&c, '}', "to end the request");
	if (err)
		return err;
	scan_space(&c);
	if (c.p != c.end)
		return scan_fail(&c, "more text after the request");
	return check_seen(&c, l, seen);
}
