// SPDX-License-Identifier: Apache-2.0
/*
 * trace.c - reading a trace into memory.
 *
 * Three steps: the line reader of lines.c, the strict parser of trace_parse.c,
 * and the commit of a good line: ids become dense, parents are noted, chains
 * are stored as runs. A line is committed whole or not at all. Afterwards
 * sessions are inferred where they are missing.
 */
#include <stdarg.h>
#include <stdio.h>

#include "kvmd/lib/mem.h"
#include "tools/kvtrace/lines.h"
#include "tools/kvtrace/trace.h"

#define HUB_CHILDREN	8		/* a block with so many is a template */
#define PROGRESS_LINES	64		/* lines between two progress calls */

int trace_grow(void *pp, uint64_t *cap, uint64_t need, size_t elem)
{
	uint64_t n = *cap ? *cap : 64;
	size_t bytes;
	void *p;

	if (need <= *cap)
		return 0;
	while (n < need)
		if (__builtin_mul_overflow(n, 2, &n))
			return -ENOMEM;
	if (__builtin_mul_overflow(n, elem, &bytes))
		return -ENOMEM;
	memcpy(&p, pp, sizeof(p));
	p = mem_realloc(p, bytes);
	if (!p)
		return -ENOMEM;
	memcpy(pp, &p, sizeof(p));
	*cap = n;
	return 0;
}

const char *trace_warn_name(enum trace_warn w)
{
	static const char *const names[NR_TRACE_WARN] = {
		[TRACE_WARN_PARENT] = "accesses_with_other_parent",
		[TRACE_WARN_BACKWARDS] = "requests_back_in_time",
		[TRACE_WARN_OVERLONG] = "requests_longer_than_tokens",
		[TRACE_WARN_SESSION] = "requests_without_session",
		[TRACE_WARN_HEADER] = "totals_unlike_header",
	};

	return (unsigned int)w < NR_TRACE_WARN ? names[w] : "?";
}

const char *trace_warn_text(enum trace_warn w)
{
	static const char *const texts[NR_TRACE_WARN] = {
		[TRACE_WARN_PARENT] =
			"block accesses follow another block than before: ids are not prefix ids",
		[TRACE_WARN_BACKWARDS] = "requests have a timestamp before the previous one's",
		[TRACE_WARN_OVERLONG] =
			"requests name more blocks than their tokens fill: is -b right?",
		[TRACE_WARN_SESSION] =
			"requests name no session while others do: all sessions are inferred",
		[TRACE_WARN_HEADER] = "totals differ from the header's: is the file complete?",
	};

	return (unsigned int)w < NR_TRACE_WARN ? texts[w] : "?";
}

/* ------------------------------------------------------------ id map */

/*
 * u64 -> dense u32, open addressing with linear probes over @slot (dense id +
 * 1; 0 is free). The keys themselves are in the caller's array, by dense id.
 */
struct idmap {
	uint32_t *slot;
	uint64_t nr_slots;	/* a power of two, or 0 */
};

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ULL;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

/* The slot that holds @key or would. */
static uint32_t *idmap_slot(const struct idmap *m, const uint64_t *keys, uint64_t key)
{
	uint64_t i = mix(key) & (m->nr_slots - 1);

	while (m->slot[i] && keys[m->slot[i] - 1] != key)
		i = (i + 1) & (m->nr_slots - 1);
	return &m->slot[i];
}

/* Room for @nr keys at 60 % load. 0 or -ENOMEM. */
static int idmap_reserve(struct idmap *m, const uint64_t *keys, uint64_t nr_keys, uint64_t nr)
{
	uint64_t want = roundup_pow2(max(nr * 5 / 3 + 1, (uint64_t)64));
	struct idmap bigger;
	uint64_t i;

	if (want <= m->nr_slots)
		return 0;
	bigger.nr_slots = want;
	bigger.slot = mem_calloc(want, sizeof(*bigger.slot));
	if (!bigger.slot)
		return -ENOMEM;
	for (i = 0; i < nr_keys; i++)
		*idmap_slot(&bigger, keys, keys[i]) = (uint32_t)i + 1;
	mem_free(m->slot);
	*m = bigger;
	return 0;
}

/* ------------------------------------------------------------ loader */

struct loader {
	struct trace *t;
	const struct trace_opts *o;
	char *msg;		/* "FILE:LINE: reason" goes here */
	size_t msg_bytes;
	struct lines in;
	struct trace_line line;
	struct idmap blocks;	/* over t->orig */
	struct idmap sess;	/* over sess_keys */
	uint64_t *sess_keys;
	uint64_t cap_sess;
	uint64_t nr_no_session;
};

static int __printf(3, 4) refuse(struct loader *ld, int err, const char *fmt, ...)
{
	va_list ap;
	int n;

	n = snprintf(ld->msg, ld->msg_bytes, "%s:%llu: ", ld->in.name,
		     (unsigned long long)ld->in.line_no);
	va_start(ap, fmt);
	if (n > 0 && (size_t)n < ld->msg_bytes)
		vsnprintf(ld->msg + n, ld->msg_bytes - (size_t)n, fmt, ap);
	va_end(ap);
	return err;
}

static int no_memory(struct loader *ld)
{
	return refuse(ld, -ENOMEM, "out of memory after %llu requests and %u distinct blocks",
		      (unsigned long long)ld->t->nr_reqs, ld->t->nr_blocks);
}

/* ------------------------------------------------------------ commit */

static int append_run(struct trace *t, struct trace_req *r, uint32_t id)
{
	struct trace_run *last = r->nr_runs ? &t->runs[r->first_run + r->nr_runs - 1] : NULL;
	int err;

	if (last && last->first + last->count == id) {
		last->count++;
		return 0;
	}
	err = trace_grow(&t->runs, &t->cap_runs, r->first_run + r->nr_runs + 1,
			 sizeof(*t->runs));
	if (err)
		return err;
	t->runs[r->first_run + r->nr_runs++] = (struct trace_run){ id, 1 };
	return 0;
}

/* The dense id of @id, new or known; room was reserved. */
static uint32_t dense_id(struct loader *ld, uint64_t id, uint32_t parent)
{
	struct trace *t = ld->t;
	uint32_t *slot, dense;

	/* In most chains the next id is the neighbour of the one before. */
	dense = parent == TRACE_NONE ? 0 : parent + 1;
	if (dense >= t->nr_blocks || t->orig[dense] != id) {
		slot = idmap_slot(&ld->blocks, t->orig, id);
		if (!*slot) {
			dense = t->nr_blocks++;
			t->orig[dense] = id;
			t->parent[dense] = parent;
			*slot = t->nr_blocks;
			return dense;
		}
		dense = *slot - 1;
	}
	if (t->parent[dense] != parent)
		t->warn[TRACE_WARN_PARENT]++;
	return dense;
}

/* Room for the blocks of the line, were they all new. */
static int reserve_blocks(struct loader *ld)
{
	struct trace *t = ld->t;
	uint64_t need = t->nr_blocks + ld->line.nr_blocks;
	int err;

	err = trace_grow(&t->orig, &t->cap_orig, need, sizeof(*t->orig));
	if (!err)
		err = trace_grow(&t->parent, &t->cap_parent, need, sizeof(*t->parent));
	if (!err)
		err = idmap_reserve(&ld->blocks, t->orig, t->nr_blocks, need);
	return err;
}

/* A number and a text that hash to it are different sessions, almost surely. */
static int dense_session(struct loader *ld, uint32_t *ret_session)
{
	const struct trace_line *l = &ld->line;
	uint64_t key = l->session_is_text ? mix(l->session) : l->session;
	struct trace *t = ld->t;
	uint32_t *slot;
	int err;

	err = trace_grow(&ld->sess_keys, &ld->cap_sess, t->nr_sessions + 1ULL,
			 sizeof(*ld->sess_keys));
	if (!err)
		err = idmap_reserve(&ld->sess, ld->sess_keys, t->nr_sessions,
				    t->nr_sessions + 1ULL);
	if (err)
		return err;
	slot = idmap_slot(&ld->sess, ld->sess_keys, key);
	if (!*slot) {
		ld->sess_keys[t->nr_sessions++] = key;
		*slot = t->nr_sessions;
	}
	*ret_session = *slot - 1;
	return 0;
}

static void note_oddities(struct loader *ld, const struct trace_req *r)
{
	struct trace *t = ld->t;

	if (t->nr_reqs && r->ts_ns < t->reqs[t->nr_reqs - 1].ts_ns)
		t->warn[TRACE_WARN_BACKWARDS]++;
	if (r->nr_blocks > div_round_up(r->input_tokens, t->block_tokens))
		t->warn[TRACE_WARN_OVERLONG]++;
	if (!ld->line.has_session)
		ld->nr_no_session++;
}

/* Add the parsed line as a request. 0 or -ENOMEM. */
static int commit(struct loader *ld)
{
	const struct trace_line *l = &ld->line;
	struct trace *t = ld->t;
	struct trace_req r = {
		.ts_ns = l->ts_ns,
		.first_run = t->nr_runs,
		.nr_blocks = (uint32_t)l->nr_blocks,
		.input_tokens = l->input_tokens,
		.output_tokens = l->output_tokens,
	};
	uint32_t parent = TRACE_NONE;
	uint64_t i, j;
	int err;

	err = trace_grow(&t->reqs, &t->cap_reqs, t->nr_reqs + 1, sizeof(*t->reqs));
	if (!err)
		err = reserve_blocks(ld);
	if (!err && l->has_session)
		err = dense_session(ld, &r.session);
	if (err)
		return err;
	for (i = 0; i < l->nr_runs; i++) {
		for (j = 0; j < l->runs[i].count; j++) {
			parent = dense_id(ld, l->runs[i].first + j, parent);
			err = append_run(t, &r, parent);
			if (err)
				return err;
		}
	}
	note_oddities(ld, &r);
	t->nr_runs += r.nr_runs;
	t->nr_accesses += r.nr_blocks;
	t->reqs[t->nr_reqs++] = r;
	return 0;
}

static int take_header(struct loader *ld)
{
	struct trace *t = ld->t;

	if (t->nr_reqs || t->has_header)
		return refuse(ld, -EINVAL, "%s", t->has_header ? "a second header line" :
			      "header line after the first request");
	t->has_header = true;
	t->header = ld->line.header;
	if (!ld->o->block_tokens)
		t->block_tokens = (uint32_t)t->header.block_tokens;
	return 0;
}

/* Parse and keep one line. -EINVAL: it is malformed, and nothing was kept. */
static int take_line(struct loader *ld, const char *s, size_t len)
{
	char why[TRACE_MSG_BYTES - 64];
	int err;

	err = trace_line_parse(&ld->line, s, len, why, sizeof(why));
	if (err == -ENOMEM)
		return no_memory(ld);
	if (err)
		return refuse(ld, err, "%s", why);
	if (ld->line.is_header)
		return take_header(ld);
	if (ld->t->nr_blocks + ld->line.nr_blocks > TRACE_MAX_BLOCKS)
		return refuse(ld, -E2BIG, "more than %u distinct blocks", TRACE_MAX_BLOCKS);
	return commit(ld) ? no_memory(ld) : 0;
}

static bool is_blank(const char *s, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		if (s[i] != ' ' && s[i] != '\t' && s[i] != '\r')
			return false;
	return true;
}

static void skip_bad(struct loader *ld)
{
	if (!ld->t->nr_bad++)
		snprintf(ld->t->first_bad, sizeof(ld->t->first_bad), "%s", ld->msg);
	if (ld->msg_bytes)
		ld->msg[0] = 0;
}

static void show_progress(struct loader *ld)
{
	if (ld->o->progress && ld->in.file_bytes && ld->in.line_no % PROGRESS_LINES == 0)
		ld->o->progress(ld->o->progress_ctx, lines_offset(&ld->in),
				ld->in.file_bytes);
}

static int read_lines(struct loader *ld)
{
	struct trace *t = ld->t;
	const char *s;
	size_t len;
	int n;

	while (!ld->o->max_reqs || t->nr_reqs < ld->o->max_reqs) {
		n = lines_next(&ld->in, &s, &len);
		if (!n)
			break;
		if (n < 0)
			refuse(ld, n, "%s", ld->in.msg);
		else
			n = is_blank(s, len) ? 0 : take_line(ld, s, len);
		if ((n == -EINVAL || n == -E2BIG) && ld->o->skip_bad) {
			skip_bad(ld);
			n = 0;
		}
		if (n < 0)
			return n == -E2BIG ? -EINVAL : n;
		t->nr_lines = ld->in.line_no;
		show_progress(ld);
	}
	return 0;
}

/* ------------------------------------------------------------ sessions */

/* The session that @r goes on with, by @end of its last block that has one. */
static uint32_t find_session(const struct trace *t, const struct trace_req *r,
			     const uint32_t *kids, const uint32_t *end)
{
	const struct trace_run *runs = trace_req_runs(t, r);
	uint32_t i, j, id;

	for (i = r->nr_runs; i-- > 0;) {
		for (j = runs[i].count; j-- > 0;) {
			id = runs[i].first + j;
			if (kids[id] < HUB_CHILDREN && end[id] != TRACE_NONE)
				return end[id];
		}
	}
	return TRACE_NONE;
}

static int infer_sessions(struct trace *t)
{
	uint32_t *kids, *end;
	struct trace_req *r;
	uint32_t i, last;
	uint64_t n;

	kids = mem_calloc(max(t->nr_blocks, 1U), sizeof(*kids));
	end = mem_calloc(max(t->nr_blocks, 1U), sizeof(*end));
	if (!kids || !end) {
		mem_free(kids);
		mem_free(end);
		return -ENOMEM;
	}
	for (i = 0; i < t->nr_blocks; i++) {
		end[i] = TRACE_NONE;
		if (t->parent[i] != TRACE_NONE)
			kids[t->parent[i]]++;
	}
	t->nr_sessions = 0;
	t->sessions_inferred = true;
	for (n = 0; n < t->nr_reqs; n++) {
		r = &t->reqs[n];
		r->session = find_session(t, r, kids, end);
		if (r->session == TRACE_NONE)
			r->session = t->nr_sessions++;
		i = trace_req_full_blocks(t, r);
		if (i && trace_expand(t, r, i - 1, 1, &last))
			end[last] = r->session;
	}
	mem_free(kids);
	mem_free(end);
	return 0;
}

uint32_t trace_expand(const struct trace *t, const struct trace_req *r,
		      uint32_t from, uint32_t nr, uint32_t *ids)
{
	const struct trace_run *run = trace_req_runs(t, r), *end = run + r->nr_runs;
	uint32_t n = 0;

	for (; run < end && from >= run->count; run++)
		from -= run->count;
	for (; run < end && n < nr; run++, from = 0)
		for (; from < run->count && n < nr; from++)
			ids[n++] = run->first + from;
	return n;
}

/* ------------------------------------------------------------ loading */

static void check_header(struct trace *t)
{
	const struct trace_header *h = &t->header;

	t->warn[TRACE_WARN_HEADER] =
		(h->requests && h->requests != t->nr_reqs) +
		(h->block_accesses && h->block_accesses != t->nr_accesses) +
		(h->distinct_blocks && h->distinct_blocks != t->nr_blocks) +
		(h->sessions && !t->sessions_inferred && h->sessions != t->nr_sessions);
}

static int finish(struct loader *ld)
{
	struct trace *t = ld->t;

	if (!t->nr_reqs) {
		snprintf(ld->msg, ld->msg_bytes, "%s: no requests in %llu lines%s%s", ld->in.name,
			 (unsigned long long)t->nr_lines, t->nr_bad ? "; first bad line " : "",
			 t->nr_bad ? t->first_bad : "");
		return -EINVAL;
	}
	if (ld->nr_no_session) {
		if (ld->nr_no_session < t->nr_reqs)
			t->warn[TRACE_WARN_SESSION] = ld->nr_no_session;
		if (infer_sessions(t))
			return no_memory(ld);
	}
	if (!ld->o->max_reqs || t->nr_reqs < ld->o->max_reqs)
		check_header(t);
	return 0;
}

int trace_load(struct trace *t, const char *path, const struct trace_opts *o,
	       char *msg, size_t msg_bytes)
{
	static const struct trace_opts defaults;
	struct loader ld = {
		.t = t, .o = o ? o : &defaults, .msg = msg, .msg_bytes = msg_bytes,
	};
	int err;

	*t = (struct trace){ 0 };
	t->block_tokens = ld.o->block_tokens ? ld.o->block_tokens : TRACE_BLOCK_TOKENS;
	err = lines_open(&ld.in, path, TRACE_MAX_LINE);
	if (err) {
		snprintf(msg, msg_bytes, "%s: %s", ld.in.name, strerror(-err));
		return err;
	}
	err = read_lines(&ld);
	if (!err)
		err = finish(&ld);
	lines_close(&ld.in);
	mem_free(ld.blocks.slot);
	mem_free(ld.sess.slot);
	mem_free(ld.sess_keys);
	trace_line_free(&ld.line);
	if (err)
		trace_free(t);
	return err;
}

void trace_free(struct trace *t)
{
	mem_free(t->reqs);
	mem_free(t->runs);
	mem_free(t->orig);
	mem_free(t->parent);
	*t = (struct trace){ 0 };
}

void trace_line_free(struct trace_line *l)
{
	mem_free(l->runs);
	*l = (struct trace_line){ 0 };
}
