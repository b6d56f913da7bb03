// SPDX-License-Identifier: Apache-2.0
/*
 * report.c - what is said of each answer, and of all: a line of text, or of JSON.
 *
 * Standard output, unless tickets go there. JSON keys are stable; kvinfer(1) has them.
 */
#include "tools/kvinfer/kvinfer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kvmd/lib/base.h"
#include "kvmd/lib/json.h"

#define BYTE_VOCAB	256u	/* tokens of a model of this size, or less, are bytes */

static FILE *out(const struct ki_engine *e)
{
	bool tickets = e->o.role == KI_ROLE_PREFILL && e->o.handoff && !strcmp(e->o.handoff, "-");

	return tickets ? stderr : stdout;
}

/* Printable ASCII as it is, all else, quotes and '\' as \xNN; NULL: no memory. */
static char *text_of(const int32_t *token, uint32_t nr)
{
	char *buf = malloc(nr * 4ull + 1), *p = buf;

	for (uint32_t i = 0; buf && i < nr; i++) {
		if (token[i] >= ' ' && token[i] <= '~' && token[i] != '\\' && token[i] != '"')
			*p++ = (char)token[i];
		else
			p += sprintf(p, "\\x%02x", (unsigned)token[i] & 0xff);
	}
	if (buf)
		*p = 0;
	return buf;
}

/* ------------------------------------------------------------------ figures */

/* Tokens of its prompt that a sequence computed itself, at least once. */
static uint32_t computed(const struct ki_seq *s)
{
	uint32_t had = s->req->handed && !s->lost ? s->req->done : s->cached;

	if (s->sample)
		return 0;
	return had < s->req->nr ? s->req->nr - had : 0;
}

static double seconds(uint64_t from, uint64_t to)
{
	return to > from ? (double)(to - from) / 1e9 : 0;
}

/* Tokens per second behind the first one, which waited for the prompt, or came with a ticket. */
static double rate(const struct ki_seq *s)
{
	uint32_t before = s->req->handed ? s->unseen : 1;
	double t = seconds(s->req->handed ? s->start_ns : s->first_ns, s->end_ns);

	return s->made > before && t > 0 ? (s->made - before) / t : 0;
}

static const char *check_word(const struct ki_seq *s)
{
	return s->check_diff < 0 ? NULL : s->check_equal ? "equal" : "differ";
}

/* ------------------------------------------------------------------ text */

static void say_made(FILE *f, const struct ki_engine *e, const struct ki_seq *s)
{
	const int32_t *token = s->token + (s->nr - s->made);
	char *text;

	if (e->m->shape.vocab > BYTE_VOCAB) {
		fputs("; ids", f);
		for (uint32_t i = 0; i < s->made; i++)
			fprintf(f, " %d", token[i]);
		return;
	}
	text = text_of(token, s->made);
	fprintf(f, "; \"%s\"", text ? text : "(no memory)");
	free(text);
}

static void say_seq(FILE *f, const struct ki_engine *e, const struct ki_seq *s)
{
	fprintf(f, "%u.%u: %u prompt tokens, %u from the pool, %u computed", s->req->id, s->sample,
		s->req->nr, s->cached, computed(s));
	if (s->made && !s->req->handed)
		fprintf(f, "; first token %.2f ms", seconds(s->start_ns, s->first_ns) * 1e3);
	fprintf(f, "; %u made in %u steps, %.1f tokens/s", s->made, s->steps, rate(s));
	if (s->drafted)
		fprintf(f, "; %u drafted, %u accepted", s->drafted, s->accepted);
	if (s->evicted)
		fprintf(f, "; %u evicted", s->evicted);
	if (s->lost)
		fputs("; its ticket was gone", f);
	if (s->stopped)
		fputs("; stopped: the daemon is gone", f);
	if (check_word(s) && s->check_equal)
		fputs("; logits equal", f);
	else if (check_word(s))
		fprintf(f, "; logits differ by at most %.3g", s->check_diff);
	if (s->made)
		say_made(f, e, s);
	fputc('\n', f);
}

static void say_end(FILE *f, const struct ki_engine *e)
{
	const struct ki_totals *t = &e->total;
	double spent = seconds(t->start_ns, t->end_ns);

	fprintf(f, "total: %" PRIu64 " answers, %" PRIu64 " prompt tokens, %" PRIu64
		" from the pool, %" PRIu64 " made in %.2f s, %.1f tokens/s", t->requests,
		t->prompt_tokens, t->cached_tokens, t->made_tokens, spent,
		spent > 0 ? (double)t->made_tokens / spent : 0);
	fprintf(f, "; %" PRIu64 " tokens computed in %" PRIu64 " prefill and %" PRIu64
		" decode steps", t->computed_tokens, t->prefill_steps, t->decode_steps);
	if (t->swaps || t->restarts)
		fprintf(f, "; %" PRIu64 " swapped out, %" PRIu64 " started again", t->swaps,
			t->restarts);
	if (t->drafted)
		fprintf(f, "; %" PRIu64 " drafted, %" PRIu64 " accepted", t->drafted, t->accepted);
	if (t->evicted)
		fprintf(f, "; %" PRIu64 " evicted", t->evicted);
	if (e->o.check && t->unequal)
		fprintf(f, "; logits of %" PRIu64 " differ by at most %.3g", t->unequal,
			t->check_diff);
	else if (e->o.check && t->requests)
		fputs("; logits equal", f);
	fputc('\n', f);
}

/* ------------------------------------------------------------------ JSON */

static void end_line(FILE *f, struct json *j)
{
	json_obj_end(j);
	if (j->err)
		fputs("kvinfer: no memory for a line of the report\n", stderr);
	else
		fprintf(f, "%s\n", j->buf);
	json_exit(j);
}

static void begin_line(struct json *j, const char *type)
{
	json_init(j);
	json_obj(j, NULL);
	json_u64(j, "schema", 1);
	json_str(j, "type", type);
}

static void json_made(struct json *j, const struct ki_engine *e, const struct ki_seq *s)
{
	const int32_t *token = s->token + (s->nr - s->made);
	char *text = NULL, sum[24];

	json_arr(j, "ids");
	for (uint32_t i = 0; i < s->made; i++)
		json_i64(j, NULL, token[i]);
	json_arr_end(j);
	if (e->m->shape.vocab <= BYTE_VOCAB)
		text = text_of(token, s->made);
	json_str(j, "text", text);
	free(text);
	snprintf(sum, sizeof(sum), "%016" PRIx64, s->logits_sum);
	json_str(j, "logits_sum", sum);
}

static void json_seq(FILE *f, const struct ki_engine *e, const struct ki_seq *s)
{
	struct json j;

	begin_line(&j, "answer");
	json_u64(&j, "id", s->req->id);
	json_u64(&j, "sample", s->sample);
	json_u64(&j, "prompt_tokens", s->req->nr);
	json_u64(&j, "cached_tokens", s->cached);
	json_u64(&j, "computed_tokens", computed(s));
	json_u64(&j, "made_tokens", s->made);
	if (s->made && !s->req->handed)
		json_u64(&j, "first_token_ns", s->first_ns - s->start_ns);
	else
		json_null(&j, "first_token_ns");
	json_u64(&j, "spent_ns", s->end_ns > s->start_ns ? s->end_ns - s->start_ns : 0);
	json_f64(&j, "tokens_per_s", rate(s));
	json_u64(&j, "steps", s->steps);
	json_u64(&j, "drafted_tokens", s->drafted);
	json_u64(&j, "accepted_tokens", s->accepted);
	json_u64(&j, "evicted_tokens", s->evicted);
	json_bool(&j, "ticket_gone", s->lost);
	json_bool(&j, "stopped", s->stopped);
	json_str(&j, "check", check_word(s));
	if (check_word(s))
		json_f64(&j, "check_diff", s->check_diff);
	else
		json_null(&j, "check_diff");
	json_made(&j, e, s);
	end_line(f, &j);
}

static void json_end(FILE *f, const struct ki_engine *e)
{
	const struct ki_totals *t = &e->total;
	uint64_t spent = t->end_ns > t->start_ns ? t->end_ns - t->start_ns : 0;
	struct json j;

	begin_line(&j, "totals");
	json_str(&j, "device", kn_dev_name(e->dev));
	json_str(&j, "gemm", ki_gemm_name(e->gemm));
	json_u64(&j, "model_bytes", e->m->bytes);
	json_bool(&j, "private", e->o.private);
	json_u64(&j, "answers", t->requests);
	json_u64(&j, "prompt_tokens", t->prompt_tokens);
	json_u64(&j, "cached_tokens", t->cached_tokens);
	json_u64(&j, "computed_tokens", t->computed_tokens);
	json_u64(&j, "made_tokens", t->made_tokens);
	json_u64(&j, "spent_ns", spent);
	json_f64(&j, "tokens_per_s", spent ? t->made_tokens / ((double)spent / 1e9) : 0);
	json_u64(&j, "prefill_steps", t->prefill_steps);
	json_u64(&j, "decode_steps", t->decode_steps);
	json_u64(&j, "swaps", t->swaps);
	json_u64(&j, "restarts", t->restarts);
	json_u64(&j, "drafted_tokens", t->drafted);
	json_u64(&j, "accepted_tokens", t->accepted);
	json_u64(&j, "evicted_tokens", t->evicted);
	if (e->o.check) {
		json_u64(&j, "unequal_answers", t->unequal);
		json_f64(&j, "check_diff", t->check_diff);
	} else {
		json_null(&j, "unequal_answers");
		json_null(&j, "check_diff");
	}
	json_bool(&j, "daemon_gone", e->pool && e->pool->gone);
	end_line(f, &j);
}

void ki_report_seq(const struct ki_engine *e, const struct ki_seq *s)
{
	FILE *f = out(e);

	if (e->o.quiet)
		return;
	if (e->o.json)
		json_seq(f, e, s);
	else
		say_seq(f, e, s);
	/* Who reads along sees each answer when it is there. */
	fflush(f);
}

void ki_report_end(const struct ki_engine *e)
{
	if (e->o.json)
		json_end(out(e), e);
	else
		say_end(out(e), e);
}
