// SPDX-License-Identifier: Apache-2.0
/*
 * info.c - one pass over a trace, and percentiles of what it saw.
 *
 * Neighbouring accesses of a request were mostly last used together, so reuse
 * times are kept as (value, weight) pairs: a few per request, not one per
 * access.
 */
#include "kvmd/lib/mem.h"
#include "tools/kvtrace/info.h"

const uint64_t info_reuse_edges_s[] = { 1, 10, 60, 300, 600, 1800, 3600 };

static const double shares[NR_INFO_PCT] = {
	[INFO_P10] = 0.10, [INFO_P25] = 0.25, [INFO_P50] = 0.50, [INFO_P75] = 0.75,
	[INFO_P90] = 0.90, [INFO_P99] = 0.99, [INFO_MAX] = 1.00,
};

struct sample {
	uint64_t value;
	uint64_t weight;
};

struct samples {
	struct sample *v;
	uint64_t nr, cap;
	uint64_t weight;	/* sum */
};

static int add_sample(struct samples *s, uint64_t value)
{
	int err;

	s->weight++;
	if (s->nr && s->v[s->nr - 1].value == value) {
		s->v[s->nr - 1].weight++;
		return 0;
	}
	err = trace_grow(&s->v, &s->cap, s->nr + 1, sizeof(*s->v));
	if (err)
		return err;
	s->v[s->nr++] = (struct sample){ value, 1 };
	return 0;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = ((const struct sample *)a)->value, y = ((const struct sample *)b)->value;

	return (x > y) - (x < y);
}

/* The value at rank share * (n - 1), counted from 0, rounded down. */
static void percentiles(struct samples *s, uint64_t ret_pct[NR_INFO_PCT])
{
	uint64_t at = 0, i = 0, rank;
	unsigned int p;

	if (!s->nr)
		return;
	qsort(s->v, s->nr, sizeof(*s->v), by_value);
	for (p = 0; p < NR_INFO_PCT; p++) {
		rank = p == INFO_MAX ? s->weight - 1 :
		       (uint64_t)(shares[p] * (double)(s->weight - 1));
		while (at + s->v[i].weight <= rank)
			at += s->v[i++].weight;
		ret_pct[p] = s->v[i].value;
	}
}

/* What is known of a block while walking the trace. */
struct use {
	uint32_t count;
	uint32_t last_req;
};

struct walk {
	const struct trace *t;
	struct info *info;
	struct use *use;	/* by dense id */
	struct samples chain, reuse_ns, reuse_requests;
};

static void count_class(struct info *in, uint64_t reuse_ns)
{
	unsigned int c = 0;

	while (c < INFO_NR_REUSE_CLASSES - 1 && reuse_ns >= info_reuse_edges_s[c] * 1000000000)
		c++;
	in->reuse_class[c]++;
}

static int walk_request(struct walk *w, uint32_t n)
{
	const struct trace *t = w->t;
	const struct trace_req *r = &t->reqs[n];
	struct trace_iter it = trace_iter(t, r);
	uint64_t hits = 0, age;
	bool is_prefix = true;
	struct use *u;
	uint32_t id;
	int err;

	while (trace_iter_next(&it, &id)) {
		u = &w->use[id];
		if (u->count) {
			hits += is_prefix;
			/* A trace may go back in time; then no time has passed. */
			age = r->ts_ns - min(r->ts_ns, t->reqs[u->last_req].ts_ns);
			count_class(w->info, age);
			err = add_sample(&w->reuse_ns, age);
			if (!err)
				err = add_sample(&w->reuse_requests, n - u->last_req);
			if (err)
				return err;
		} else {
			is_prefix = false;
		}
		u->count++;
		u->last_req = n;
	}
	w->info->hit_blocks += hits;
	w->info->hit_tokens += trace_req_tokens(t, r, hits);
	w->info->input_tokens += r->input_tokens;
	w->info->output_tokens += r->output_tokens;
	w->info->partial_tails += r->nr_blocks > r->input_tokens / t->block_tokens;
	return add_sample(&w->chain, r->nr_blocks);
}

static void count_uses(struct walk *w)
{
	struct info *in = w->info;
	uint32_t i, n;

	for (i = 0; i < w->t->nr_blocks; i++) {
		n = w->use[i].count;
		in->max_uses = max(in->max_uses, n);
		in->hot_blocks += n >= INFO_HOT_USES;
		in->uses[n == 1 ? INFO_USES_1 : n == 2 ? INFO_USES_2 :
			 n <= 10 ? INFO_USES_3_10 : INFO_USES_MORE]++;
	}
}

int info_compute(const struct trace *t, struct info *ret_info)
{
	struct info in = { 0 };
	struct walk w = { .t = t, .info = &in };
	uint64_t first = UINT64_MAX, last = 0, n;
	int err;

	w.use = mem_calloc(max(t->nr_blocks, 1U), sizeof(*w.use));
	err = w.use ? 0 : -ENOMEM;
	for (n = 0; !err && n < t->nr_reqs; n++) {
		err = walk_request(&w, (uint32_t)n);
		first = min(first, t->reqs[n].ts_ns);
		last = max(last, t->reqs[n].ts_ns);
	}
	if (!err) {
		in.span_ns = t->nr_reqs ? last - first : 0;
		in.nr_reuses = w.reuse_ns.weight;
		count_uses(&w);
		percentiles(&w.chain, in.chain_blocks);
		percentiles(&w.reuse_ns, in.reuse_ns);
		percentiles(&w.reuse_requests, in.reuse_requests);
		*ret_info = in;
	}
	mem_free(w.use);
	mem_free(w.chain.v);
	mem_free(w.reuse_ns.v);
	mem_free(w.reuse_requests.v);
	return err;
}
