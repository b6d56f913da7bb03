// SPDX-License-Identifier: Apache-2.0
/*
 * gen.c - `kvtrace gen`: a workload like a chat or agent service.
 *
 * Sessions start as a Poisson process. Each draws a system prompt (Zipf: the
 * k-th is chosen with weight 1/k) and a geometric number of turns. A turn's
 * prompt is all that came before, the previous output included, plus new
 * tokens; only blocks that it fills whole get an id. The system prompt's whole
 * blocks are shared by all its sessions; everything behind is the session's
 * own. Requests come out in the order of time, ids in the order of use.
 *
 * Everything follows from the seed: one generator, drawn from in one order.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "kvmd/lib/mem.h"
#include "tools/kvtrace/gen.h"
#include "tools/kvtrace/kvtrace.h"
#include "tools/kvtrace/progress.h"

#define NS_PER_MS	1000000ULL

struct prompt {
	uint64_t tokens;
	uint64_t first;		/* id of its first whole block, once used */
	bool is_used;
};

struct session {
	uint64_t next_ns;	/* of the next turn */
	uint64_t start;		/* how many started before: the order among equals */
	struct prompt *prompt;
	uint32_t number;	/* in the trace, by first turn */
	uint32_t turns_left;
	bool has_begun;		/* had a turn */
	uint64_t tokens;	/* of the prompt so far, previous output included */
	uint64_t nr_blocks;	/* whole blocks with an id, system prompt included */
	struct trace_idrun *runs;
	uint64_t nr_runs, cap_runs;
};

/* A request, kept until the totals of the header are known. */
struct gen_req {
	uint64_t ts_ns;
	uint32_t session;
	uint32_t input_tokens, output_tokens;
	uint32_t nr_runs;
	uint64_t first_run;	/* into gen.runs */
};

struct gen {
	const struct gen_opts *o;
	uint64_t rng;
	struct prompt *prompts;
	double *weight;			/* cumulative, per prompt */
	struct session *heap;		/* alive, earliest next turn at 0 */
	uint64_t nr_heap, cap_heap;
	uint64_t next_start_ns;
	uint64_t nr_started;
	uint64_t next_id;		/* ids below were all given to a request */
	struct gen_req *reqs;
	uint64_t nr_reqs, cap_reqs;
	struct trace_idrun *runs;
	uint64_t nr_runs, cap_runs;
	struct trace_header total;
};

/* ------------------------------------------------------------ drawing */

static uint64_t draw_u64(struct gen *g)		/* splitmix64 */
{
	uint64_t x = g->rng += 0x9e3779b97f4a7c15ULL;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

static double draw_unit(struct gen *g)		/* (0, 1] */
{
	return (double)((draw_u64(g) >> 11) + 1) * 0x1p-53;
}

static double draw_exp(struct gen *g, double mean)
{
	return -log(draw_unit(g)) * mean;
}

/* A time, rounded to ms: the form's unit. */
static uint64_t draw_gap_ns(struct gen *g, uint64_t mean_ns)
{
	return (uint64_t)(draw_exp(g, (double)mean_ns) / 1e6 + 0.5) * NS_PER_MS;
}

/* A length: a sum of two exponentials, so few are tiny. At least 1. */
static uint64_t draw_tokens(struct gen *g, uint64_t mean)
{
	double half = (double)mean / 2, v = draw_exp(g, half);

	v += draw_exp(g, half);
	return max((uint64_t)(v + 0.5), (uint64_t)1);
}

/* Turns of a session: geometric, at least 1. */
static uint32_t draw_turns(struct gen *g, uint64_t mean)
{
	double v;

	if (mean <= 1)
		return 1;
	v = 1 + floor(log(draw_unit(g)) / log1p(-1.0 / (double)mean));
	return v > 1e6 ? 1000000 : (uint32_t)v;
}

static struct prompt *draw_prompt(struct gen *g)
{
	uint64_t lo = 0, hi = g->o->system_prompts - 1, mid;
	double at = draw_unit(g) * g->weight[hi];

	while (lo < hi) {
		mid = (lo + hi) / 2;
		if (g->weight[mid] < at)
			lo = mid + 1;
		else
			hi = mid;
	}
	return &g->prompts[lo];
}

static int draw_prompts(struct gen *g)
{
	uint64_t n = g->o->system_prompts, i;
	double sum = 0;

	g->prompts = mem_calloc(n, sizeof(*g->prompts));
	g->weight = mem_calloc(n, sizeof(*g->weight));
	if (!g->prompts || !g->weight)
		return -ENOMEM;
	for (i = 0; i < n; i++) {
		/* Half to one and a half times the mean. */
		g->prompts[i].tokens = (uint64_t)((double)g->o->system_tokens *
						  (draw_unit(g) + 0.5));
		g->weight[i] = sum += 1.0 / (double)(i + 1);
	}
	return 0;
}

/* ------------------------------------------------------------ sessions */

static bool is_earlier(const struct session *a, const struct session *b)
{
	return a->next_ns != b->next_ns ? a->next_ns < b->next_ns : a->start < b->start;
}

static void swap(struct session *a, struct session *b)
{
	struct session tmp = *a;

	*a = *b;
	*b = tmp;
}

static void sift_up(struct gen *g, uint64_t i)
{
	for (; i && is_earlier(&g->heap[i], &g->heap[(i - 1) / 2]); i = (i - 1) / 2)
		swap(&g->heap[i], &g->heap[(i - 1) / 2]);
}

static void sift_down(struct gen *g, uint64_t i)
{
	uint64_t c;

	for (; (c = 2 * i + 1) < g->nr_heap; i = c) {
		if (c + 1 < g->nr_heap && is_earlier(&g->heap[c + 1], &g->heap[c]))
			c++;
		if (!is_earlier(&g->heap[c], &g->heap[i]))
			break;
		swap(&g->heap[i], &g->heap[c]);
	}
}

static int add_ids(struct session *s, uint64_t first, uint64_t count)
{
	struct trace_idrun *last = s->nr_runs ? &s->runs[s->nr_runs - 1] : NULL;
	int err;

	if (!count)
		return 0;
	s->nr_blocks += count;
	if (last && last->first + last->count == first) {
		last->count += count;
		return 0;
	}
	err = trace_grow(&s->runs, &s->cap_runs, s->nr_runs + 1, sizeof(*s->runs));
	if (err)
		return err;
	s->runs[s->nr_runs++] = (struct trace_idrun){ first, count };
	return 0;
}

static int start_session(struct gen *g)
{
	struct session s = { .next_ns = g->next_start_ns, .start = g->nr_started++ };
	int err;

	err = trace_grow(&g->heap, &g->cap_heap, g->nr_heap + 1, sizeof(*g->heap));
	if (err)
		return err;
	s.prompt = draw_prompt(g);
	s.turns_left = draw_turns(g, g->o->turns);
	s.tokens = s.prompt->tokens;
	g->heap[g->nr_heap++] = s;
	sift_up(g, g->nr_heap - 1);
	g->next_start_ns += draw_gap_ns(g, g->o->start_gap_ns);
	return 0;
}

/* Its first turn: a place in the trace, and the system prompt's blocks. */
static int begin_session(struct gen *g, struct session *s)
{
	struct prompt *p = s->prompt;
	uint64_t blocks = p->tokens / g->o->block_tokens;

	s->has_begun = true;
	s->number = (uint32_t)g->total.sessions++;
	if (!p->is_used) {
		p->is_used = true;
		p->first = g->next_id;
		g->next_id += blocks;
	}
	return add_ids(s, p->first, blocks);
}

static void end_session(struct gen *g)
{
	mem_free(g->heap[0].runs);
	g->heap[0] = g->heap[--g->nr_heap];
	sift_down(g, 0);
}

/* Note the turn's request. */
static int add_request(struct gen *g, const struct session *s, uint64_t output)
{
	struct gen_req r = {
		.ts_ns = s->next_ns,
		.session = s->number,
		.input_tokens = (uint32_t)s->tokens,
		.output_tokens = (uint32_t)output,
		.nr_runs = (uint32_t)s->nr_runs,
		.first_run = g->nr_runs,
	};
	int err;

	err = trace_grow(&g->reqs, &g->cap_reqs, g->nr_reqs + 1, sizeof(*g->reqs));
	if (!err)
		err = trace_grow(&g->runs, &g->cap_runs, g->nr_runs + s->nr_runs,
				 sizeof(*g->runs));
	if (err)
		return err;
	if (s->nr_runs)
		memcpy(g->runs + g->nr_runs, s->runs, s->nr_runs * sizeof(*s->runs));
	g->nr_runs += s->nr_runs;
	g->total.block_accesses += s->nr_blocks;
	g->reqs[g->nr_reqs++] = r;
	return 0;
}

/* The next turn of the session at the top of the heap. */
static int take_turn(struct gen *g)
{
	const uint64_t context = g->o->context_tokens;
	struct session *s = &g->heap[0];
	uint64_t fresh, output, blocks;
	int err = 0;

	if (s->next_ns > TRACE_MAX_MS * NS_PER_MS)
		return -EOVERFLOW;
	fresh = draw_tokens(g, g->o->turn_tokens);
	output = draw_tokens(g, g->o->output_tokens);
	if (s->has_begun && s->tokens + fresh + output > context) {
		end_session(g);
		return 0;
	}
	if (!s->has_begun)
		err = begin_session(g, s);
	s->tokens = min(s->tokens + fresh, context);
	output = min(output, max(context - s->tokens, (uint64_t)1));
	blocks = s->tokens / g->o->block_tokens - s->nr_blocks;
	if (!err)
		err = add_ids(s, g->next_id, blocks);
	if (!err)
		err = add_request(g, s, output);
	if (err)
		return err;
	g->next_id += blocks;
	if (!--s->turns_left) {
		end_session(g);
		return 0;
	}
	s->tokens += output;
	s->next_ns += NS_PER_MS + draw_gap_ns(g, g->o->gap_ns);
	sift_down(g, 0);
	return 0;
}

static int generate(struct gen *g)
{
	const struct gen_opts *o = g->o;
	struct progress p;
	bool more;
	int err;

	g->rng = o->seed;
	err = draw_prompts(g);
	progress_start(&p, "making", o->quiet);
	while (!err && (!o->requests || g->nr_reqs < o->requests)) {
		more = !o->sessions || g->nr_started < o->sessions;
		if (!g->nr_heap && !more)
			break;
		if (more && (!g->nr_heap || g->next_start_ns <= g->heap[0].next_ns))
			err = start_session(g);
		else
			err = take_turn(g);
		progress_update(&p, o->requests ? g->nr_reqs : g->nr_started,
				o->requests ? o->requests : o->sessions);
	}
	progress_end(&p);
	g->total.block_tokens = o->block_tokens;
	g->total.requests = g->nr_reqs;
	g->total.distinct_blocks = g->next_id;
	return err;
}

/* ------------------------------------------------------------ writing */

static int write_all(struct gen *g)
{
	struct trace_out out;
	struct progress p;
	uint64_t i;
	int err;

	err = trace_out_open(&out, g->o->path, g->o->form);
	if (err)
		return err;
	progress_start(&p, "writing", g->o->quiet);
	trace_out_header(&out, "generated", "sessions start as a Poisson process", &g->total);
	for (i = 0; i < g->nr_reqs && !out.err; i++) {
		const struct gen_req *r = &g->reqs[i];
		struct trace_rec rec = {
			.ts_ns = r->ts_ns,
			.session = r->session,
			.input_tokens = r->input_tokens,
			.output_tokens = r->output_tokens,
			.runs = g->runs + r->first_run,
			.nr_runs = r->nr_runs,
		};

		trace_out_req(&out, &rec);
		progress_update(&p, i, g->nr_reqs);
	}
	progress_end(&p);
	return trace_out_close(&out);
}

int gen_run(const struct gen_opts *o)
{
	struct gen g = { .o = o };
	uint64_t i;
	int err;

	err = generate(&g);
	if (err) {
		kvt_warn("gen: %s after %" PRIu64 " requests", err == -EOVERFLOW ?
			 "times beyond what a trace can hold" : strerror(-err), g.nr_reqs);
	} else {
		err = write_all(&g);
		if (err)
			kvt_warn("%s: %s", o->path ? o->path : "standard output", strerror(-err));
	}
	for (i = 0; i < g.nr_heap; i++)
		mem_free(g.heap[i].runs);
	mem_free(g.heap);
	mem_free(g.prompts);
	mem_free(g.weight);
	mem_free(g.reqs);
	mem_free(g.runs);
	return err ? KVT_REFUSED : KVT_OK;
}
