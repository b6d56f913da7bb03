// SPDX-License-Identifier: Apache-2.0
/*
 * prompts.c - requests out of texts, a file of prompts, and a trace.
 *
 * A trace (tools/kvtrace/trace.h reads it) has no texts, only the ids of its blocks: an
 * id becomes a run of tokens that follow from it alone, so that what shares blocks in
 * the trace shares a prefix here, in this process and in any other.
 */
#include "tools/kvinfer/kvinfer.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/kvtrace/lines.h"
#include "tools/kvtrace/trace.h"

#define MAX_REQUESTS	(1u << 24)
#define MAX_LINE	(64u << 20)	/* bytes */
#define SALT_ID		0x6b76696e66657231ull	/* tokens of a block of a trace */
#define SALT_TAIL	0x6b76696e66657232ull	/* tokens that no block of it covers */

struct loader {
	const struct ki_opts *o;
	const struct ki_shape *s;
	struct ki_requests q;
	char *msg;			/* [KI_TEXT] */
	/* Where we are, for messages: "NAME:NR", or "NAME WORD NR". */
	const char *name, *sep;
	uint64_t nr;
};

static int bad(const struct loader *l, int err, const char *fmt, ...) __printf(3, 4);
static int bad(const struct loader *l, int err, const char *fmt, ...)
{
	int n = snprintf(l->msg, KI_TEXT, "%s%s%" PRIu64 ": ", l->name, l->sep, l->nr);
	va_list ap;

	if (n < 0 || n >= (int)KI_TEXT)
		return err;
	va_start(ap, fmt);
	vsnprintf(l->msg + n, KI_TEXT - (size_t)n, fmt, ap);
	va_end(ap);
	return err;
}

void ki_request_free(struct ki_request *r)
{
	if (!r)
		return;
	free(r->token);
	free(r);
}

static void drop(struct ki_requests *q)
{
	struct ki_request *r;

	while ((r = q->head)) {
		q->head = r->next;
		ki_request_free(r);
	}
}

/* A request of @nr tokens, not set yet; ->token is set by the caller. */
static int add(struct loader *l, uint64_t nr, uint32_t tokens, struct ki_request **ret_r)
{
	struct ki_request *r;

	if (!nr)
		return bad(l, -EINVAL, "an empty prompt: take it out, or give it a token at least");
	if (nr + tokens > l->s->max_tokens)
		return bad(l, -E2BIG, "a prompt of %" PRIu64 " tokens and %u to make are more than "
			   "the model's %u: shorten it, or make fewer with --tokens%s", nr, tokens,
			   l->s->max_tokens, l->o->trace && l->name == l->o->trace ?
			   ", or raise --trace-scale" : "");
	if (l->q.nr == MAX_REQUESTS)
		return bad(l, -E2BIG, "more than %u requests: give fewer", MAX_REQUESTS);
	r = calloc(1, sizeof(*r));
	if (r)
		r->token = malloc(nr * sizeof(*r->token));
	if (!r || !r->token) {
		ki_request_free(r);
		return bad(l, -ENOMEM, "no memory for a prompt of %" PRIu64 " tokens", nr);
	}
	r->id = l->q.nr++;
	r->nr = (uint32_t)nr;
	r->tokens = tokens;
	r->samples = l->o->samples;
	*l->q.tail = r;
	l->q.tail = &r->next;
	*ret_r = r;
	return 0;
}

/* ------------------------------------------------------------------ texts */

static int put_bytes(struct loader *l, int32_t *dst, const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		dst[i] = (unsigned char)s[i];
		if ((uint32_t)dst[i] >= l->s->vocab)
			return bad(l, -EINVAL, "byte 0x%02x is no token of a model with %u: give "
				   "other texts, or {\"ids\": [...]}", dst[i], l->s->vocab);
	}
	return 0;
}

static int add_text(struct loader *l, const char *text, size_t len)
{
	const char *system = l->o->system ? l->o->system : "";
	size_t before = strlen(system);
	struct ki_request *r = NULL;
	int err = add(l, len ? before + len : 0, l->o->tokens, &r);

	if (!err)
		err = put_bytes(l, r->token, system, before);
	if (!err)
		err = put_bytes(l, r->token + before, text, len);
	return err;
}

static int load_texts(struct loader *l)
{
	int err = 0;

	l->name = "--prompt";
	l->sep = " ";
	for (uint32_t i = 0; i < l->o->nr_prompts && !err; i++) {
		l->nr = i + 1;
		err = add_text(l, l->o->prompt[i], strlen(l->o->prompt[i]));
	}
	return err;
}

/* ------------------------------------------------------------------ a file */

static int add_ids(struct loader *l, const struct json_object *ids)
{
	size_t n = json_object_is_type(ids, json_type_array) ? json_object_array_length(ids) : 0;
	struct ki_request *r = NULL;
	int err;

	if (!json_object_is_type(ids, json_type_array))
		return bad(l, -EINVAL, "\"ids\" is not an array of numbers");
	err = add(l, n, l->o->tokens, &r);
	for (size_t i = 0; i < n && !err; i++) {
		struct json_object *v = json_object_array_get_idx(ids, i);
		int64_t id = json_object_get_int64(v);

		if (!json_object_is_type(v, json_type_int))
			err = bad(l, -EINVAL, "\"ids\"[%zu] is not a whole number", i);
		else if (id < 0 || id >= (int64_t)l->s->vocab)
			err = bad(l, -EINVAL, "\"ids\"[%zu] is %" PRId64 ": the model's tokens are "
				  "0 to %u", i, id, l->s->vocab - 1);
		else
			r->token[i] = (int32_t)id;
	}
	return err;
}

static int add_object(struct loader *l, struct json_object *obj)
{
	struct json_object *text = NULL, *ids = NULL;
	bool has_text, has_ids;

	json_object_object_foreach(obj, key, val) {
		(void)val;
		if (strcmp(key, "text") && strcmp(key, "ids"))
			return bad(l, -EINVAL, "'%.40s' is neither \"text\" nor \"ids\"", key);
	}
	has_text = json_object_object_get_ex(obj, "text", &text);
	has_ids = json_object_object_get_ex(obj, "ids", &ids);
	if (has_text == has_ids)
		return bad(l, -EINVAL, "a line has either \"text\" or \"ids\"");
	if (has_ids)
		return add_ids(l, ids);
	if (!json_object_is_type(text, json_type_string))
		return bad(l, -EINVAL, "\"text\" is not a string");
	return add_text(l, json_object_get_string(text),
			(size_t)json_object_get_string_len(text));
}

static int add_json(struct loader *l, struct json_tokener *tok, const char *s, size_t len)
{
	struct json_object *obj;
	enum json_tokener_error why;
	int err;

	json_tokener_reset(tok);
	obj = json_tokener_parse_ex(tok, s, (int)len);
	why = json_tokener_get_error(tok);
	if (why != json_tokener_success) {
		json_object_put(obj);
		return bad(l, -EINVAL, "%s at byte %zu: a line that begins with '{' is a JSON "
			   "object", why == json_tokener_continue ? "the object has no end" :
			   json_tokener_error_desc(why), json_tokener_get_parse_end(tok) + 1);
	}
	err = add_object(l, obj);
	json_object_put(obj);
	return err;
}

static int load_lines(struct loader *l, struct lines *in, struct json_tokener *tok)
{
	uint32_t before = l->q.nr;
	const char *s = NULL;
	size_t len = 0;
	int err;

	while ((err = lines_next(in, &s, &len)) == 1) {
		l->nr = in->line_no;
		err = len && *s == '{' ? add_json(l, tok, s, len) : add_text(l, s, len);
		if (err)
			return err;
	}
	l->nr = in->line_no;
	if (err)
		return bad(l, err, "%s", in->msg);
	if (l->q.nr == before) {
		snprintf(l->msg, KI_TEXT, "%s: no prompts", in->name);
		return -EINVAL;
	}
	return 0;
}

static int load_file(struct loader *l)
{
	struct json_tokener *tok;
	struct lines in;
	int err;

	if (!l->o->prompt_file)
		return 0;
	err = lines_open(&in, l->o->prompt_file, MAX_LINE);
	l->name = in.name;
	l->sep = ":";
	if (err) {
		snprintf(l->msg, KI_TEXT, "%s: %s", in.name, strerror(-err));
		return err;
	}
	tok = json_tokener_new();
	if (tok) {
		json_tokener_set_flags(tok, JSON_TOKENER_STRICT);
		err = load_lines(l, &in, tok);
		json_tokener_free(tok);
	} else {
		err = bad(l, -ENOMEM, "no memory");
	}
	lines_close(&in);
	return err;
}

/* ------------------------------------------------------------------ a trace */

/* SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) of @seed, number @i, as a token. */
static int32_t token_of(uint64_t seed, uint64_t i, uint32_t vocab)
{
	uint64_t z = seed + (i + 1) * 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	z ^= z >> 31;
	return (int32_t)((z >> 32) * vocab >> 32);
}

static uint64_t seed_of(uint64_t salt, uint64_t id)
{
	uint64_t z = (id + 1) * 0xd1342543de82ef95ull ^ salt;

	return (z ^ z >> 32) * 0xaef17502108ef2d9ull;
}

static int add_traced(struct loader *l, const struct trace *t, const struct trace_req *req)
{
	/* A block has @run tokens; the one that is not full has its part, and one at least. */
	uint32_t scale = l->o->trace_scale, run = t->block_tokens / scale, id = 0;
	uint64_t rest = div_round_up(req->input_tokens % t->block_tokens, scale);
	uint64_t full = req->input_tokens / t->block_tokens;
	uint64_t nr = full * run + min(rest, (uint64_t)run);
	uint64_t out = max(div_round_up(req->output_tokens, scale), (uint64_t)1), at = 0;
	struct trace_iter it = trace_iter(t, req);
	struct ki_request *r = NULL;
	int err = add(l, nr, (uint32_t)min(out, (uint64_t)l->o->tokens), &r);

	if (err)
		return err;
	while (at < nr && trace_iter_next(&it, &id))
		for (uint32_t i = 0; i < run && at < nr; i++)
			r->token[at++] = token_of(seed_of(SALT_ID, t->orig[id]), i, l->s->vocab);
	for (; at < nr; at++)
		r->token[at] = token_of(seed_of(SALT_TAIL, r->id), at, l->s->vocab);
	return 0;
}

static int load_trace(struct loader *l)
{
	struct trace_opts to = { .max_reqs = l->o->trace_requests };
	char msg[TRACE_MSG_BYTES];
	struct trace t;
	int err;

	if (!l->o->trace)
		return 0;
	err = trace_load(&t, l->o->trace, &to, msg, sizeof(msg));
	if (err) {
		snprintf(l->msg, KI_TEXT, "%.*s", (int)KI_TEXT - 1, msg);
		return err;
	}
	l->name = l->o->trace;
	l->sep = ": request ";
	if (!t.nr_reqs) {
		snprintf(l->msg, KI_TEXT, "%s: no requests", l->o->trace);
		err = -EINVAL;
	} else if (l->o->trace_scale > t.block_tokens) {
		snprintf(l->msg, KI_TEXT, "%s: its blocks have %u tokens: give a --trace-scale of "
			 "that at most", l->o->trace, t.block_tokens);
		err = -EINVAL;
	}
	for (uint64_t i = 0; i < t.nr_reqs && !err; i++) {
		l->nr = i + 1;
		err = add_traced(l, &t, &t.reqs[i]);
	}
	trace_free(&t);
	return err;
}

/* ------------------------------------------------------------------ all of it */

static int repeat(struct loader *l)
{
	uint32_t once = l->q.nr;
	struct ki_request *from = l->q.head, *r = NULL;
	int err;

	l->name = "--repeat";
	l->sep = " ";
	l->nr = l->o->repeat;
	for (uint64_t i = 0; i < (uint64_t)once * (l->o->repeat - 1); i++, from = from->next) {
		err = add(l, from->nr, from->tokens, &r);
		if (err)
			return err;
		memcpy(r->token, from->token, from->nr * sizeof(*r->token));
	}
	return 0;
}

int ki_prompts_load(const struct ki_opts *o, const struct ki_shape *s, struct ki_requests *ret_q,
		    char *msg)
{
	struct loader l = { .o = o, .s = s, .msg = msg };
	int err;

	l.q.tail = &l.q.head;
	err = load_texts(&l);
	if (!err)
		err = load_file(&l);
	if (!err)
		err = load_trace(&l);
	if (!err)
		err = repeat(&l);
	if (err) {
		drop(&l.q);
		return err;
	}
	*ret_q = l.q;
	if (!l.q.head)
		ret_q->tail = &ret_q->head;
	return 0;
}
