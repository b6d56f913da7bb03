// SPDX-License-Identifier: Apache-2.0
/*
 * replay_report.c - what came of it, as text and as JSON.
 *
 * Hit rates are over all blocks and tokens of the trace, those that did not fit
 * into the pool too; the one of an unlimited cache is in the trace's order.
 * Attribution is the daemon's own account, checked for two things: that its parts
 * are its whole, and that its whole is what the clients know they asked for.
 */
#include <inttypes.h>
#include <stdio.h>

#include "kvmd/lib/json.h"
#include "kvmd/lib/stats.h"
#include "tools/kvtrace/kvtrace.h"
#include "tools/kvtrace/replay.h"

static const struct { enum kvmd_stat id; const char *text; } reasons[] = {
	{ KVMD_STAT_RECOMPUTED_NEVER, "never seen" },
	{ KVMD_STAT_RECOMPUTED_EVICTED, "evicted" },
	{ KVMD_STAT_RECOMPUTED_DROPPED, "dropped" },
	{ KVMD_STAT_RECOMPUTED_EPOCH, "former epoch" },
	{ KVMD_STAT_RECOMPUTED_PENDING, "pending" },
	{ KVMD_STAT_RECOMPUTED_REFUSED, "refused" },
	{ KVMD_STAT_RECOMPUTED_UNASKED, "unasked" },
	{ KVMD_STAT_RECOMPUTED_GROUP, "group" },
	{ KVMD_STAT_RECOMPUTED_TAIL, "unfilled tail" },
};

static const struct { enum kvmd_stat id; const char *text; } parts[] = {
	{ KVMD_STAT_TOKENS_HBM, "from hbm" },
	{ KVMD_STAT_TOKENS_RAM, "from ram" },
	{ KVMD_STAT_TOKENS_DISK, "from disk" },
	{ KVMD_STAT_TOKENS_MERGED, "merged" },
	{ KVMD_STAT_TOKENS_RECOMPUTED, "recomputed" },
};

static const char *const verify_names[NR_REPLAY_VERIFY] = {
	[VERIFY_FULL] = "full", [VERIFY_SAMPLE] = "sample", [VERIFY_NONE] = "none",
};

double ratio(uint64_t a, uint64_t b)
{
	return b ? (double)a / (double)b : 0;
}

/* ------------------------------------------------------------ summing up */

static void sum_client(struct replay_slot *to, const struct replay_slot *c)
{
	enum replay_op op;

	to->done += c->done;
	to->hit_blocks += c->hit_blocks;
	to->hit_tokens += c->hit_tokens;
	to->asked_tokens += c->asked_tokens;
	to->merged_blocks += c->merged_blocks;
	to->private_blocks += c->private_blocks;
	to->written_blocks += c->written_blocks;
	to->verified_blocks += c->verified_blocks;
	to->wrong_blocks += c->wrong_blocks;
	to->wrong_bytes += c->wrong_bytes;
	to->deadlocks += c->deadlocks;
	to->no_memory += c->no_memory;
	to->cut += c->cut;
	to->open_ns += c->open_ns;
	to->resumed += c->resumed;
	to->anew += c->anew;
	to->clock_refused |= c->clock_refused;
	if (!to->has_wrong && c->has_wrong) {
		to->has_wrong = 1;
		to->wrong = c->wrong;
	}
	for (op = 0; op < NR_REPLAY_OP; op++)
		hist_merge(&to->hist[op], &c->hist[op]);
}

void stats_of_life(const struct replay_lives *l, const struct replay_stats *now,
		   struct replay_stats *ret_life)
{
	for (unsigned int i = 0; i < KVMD_NR_STAT; i++)
		ret_life->val[i] = now->val[i] - l->base.val[i];
}

bool attribution_sums(const struct replay_stats *s)
{
	const uint64_t *v = s->val;
	uint64_t sum = v[KVMD_STAT_TOKENS_PENDING], why = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(parts); i++)
		sum += v[parts[i].id];
	for (i = 0; i < ARRAY_SIZE(reasons); i++)
		why += v[reasons[i].id];
	return sum == v[KVMD_STAT_TOKENS_ASKED] && why == v[KVMD_STAT_TOKENS_RECOMPUTED];
}

void result_make(struct replay_result *res, const struct replay_run *r,
		 const struct replay_stats *after)
{
	const struct replay_opts *o = r->plan->o;
	const struct replay_lives *l = &r->lives;
	struct replay_stats life;
	uint32_t i;

	memset(res, 0, sizeof(*res));
	res->is_there = true;
	res->spent_ns = r->spent_ns;
	res->slots = r->slots;
	res->restarts = l->nr_past;
	for (i = 0; i < r->page->nr; i++)
		sum_client(&res->sum, &r->page->c[i]);
	stats_of_life(l, after, &life);
	for (i = 0; i < KVMD_NR_STAT; i++)
		res->stats.val[i] = l->past.val[i] + life.val[i];
	res->sums = l->sums && attribution_sums(&life);
	/* A client, or a daemon, that was killed may have asked without having counted it. */
	if (!o->kills && !l->nr_past)
		res->sums = res->sums &&
			res->sum.asked_tokens == life.val[KVMD_STAT_TOKENS_ASKED];
}

bool result_ok(const struct replay_result *res)
{
	return !res->is_there || (!res->sum.wrong_bytes && res->sums);
}

/* ------------------------------------------------------------ text */

static void text_rate(const char *name, const struct replay_result *res, bool blocks,
		      uint64_t bound, uint64_t of)
{
	static const char *const names[NR_REPLAY_PASS] = {
		[PASS_PRIVATE] = "private pools", [PASS_BESIDE] = "without tiers",
	};
	enum replay_pass i;

	for (i = 0; i < NR_REPLAY_PASS; i++) {
		const struct replay_slot *s = &res[i].sum;

		if (i == PASS_SHARED)
			printf("%-20s", name);
		else if (res[i].is_there)
			printf("  %s", names[i]);
		if (res[i].is_there)
			printf(" %.4f", ratio(blocks ? s->hit_blocks : s->hit_tokens, of));
	}
	printf("  unlimited %.4f\n", ratio(bound, of));
}

static void text_attribution(const struct replay_result *res)
{
	const uint64_t *v = res->stats.val;
	const char *sep = "";
	size_t i;

	printf("%-20s %" PRIu64 "\n", "tokens asked", v[KVMD_STAT_TOKENS_ASKED]);
	for (i = 0; i < ARRAY_SIZE(parts); i++)
		printf("  %-18s %" PRIu64 "\n", parts[i].text, v[parts[i].id]);
	printf("    because ");
	for (i = 0; i < ARRAY_SIZE(reasons); i++) {
		if (!v[reasons[i].id])
			continue;
		printf("%s%s %" PRIu64, sep, reasons[i].text, v[reasons[i].id]);
		sep = ", ";
	}
	printf("%s\n", *sep ? "" : "of nothing");
	if (res->sums)
		printf("%-20s sums\n", "attribution");
	else
		printf("%-20s DOES NOT SUM (clients asked for %" PRIu64 " tokens, %" PRIu64
		       " are pending)\n", "attribution", res->sum.asked_tokens,
		       v[KVMD_STAT_TOKENS_PENDING]);
}

static void text_latencies(const struct replay_slot *s)
{
	enum replay_op op;

	printf("%-12s %10s %10s %10s %10s %10s\n", "latency us", "p50", "p99", "p99.9", "max",
	       "count");
	for (op = 0; op < NR_REPLAY_OP; op++) {
		const struct hist *h = &s->hist[op];

		if (h->nr)
			printf("  %-10s %10.1f %10.1f %10.1f %10.1f %10" PRIu64 "\n",
			       replay_op_name(op), (double)hist_quantile(h, 5000) / 1e3,
			       (double)hist_quantile(h, 9900) / 1e3,
			       (double)hist_quantile(h, 9990) / 1e3, (double)h->max_ns / 1e3,
			       h->nr);
	}
}

static void text_wrong(const char *name, const struct replay_slot *s)
{
	if (!s->has_wrong)
		return;
	printf("%swrong blocks: %" PRIu64 ", the first in request %" PRIu64 ": block %u in slot "
	       "%u, shard %u, plane %u, from byte %" PRIu64 "\n", name, s->wrong_blocks,
	       s->wrong.req, s->wrong.pos, s->wrong.slot, s->wrong.shard, s->wrong.plane,
	       s->wrong.offset);
}

/* Another pass: only what is wrong with it. */
static void text_other(const char *name, const struct replay_result *b)
{
	char prefix[32];

	if (!b->is_there || result_ok(b))
		return;
	snprintf(prefix, sizeof(prefix), "%s: ", name);
	text_wrong(prefix, &b->sum);
	printf("%swrong bytes %" PRIu64 ", attribution %s\n", prefix, b->sum.wrong_bytes,
	       b->sums ? "sums" : "DOES NOT SUM");
}

static uint64_t wrong_bytes(const struct replay_result *res)
{
	uint64_t sum = 0;
	enum replay_pass i;

	for (i = 0; i < NR_REPLAY_PASS; i++)
		sum += res[i].sum.wrong_bytes;
	return sum;
}

static void text_head(const struct replay_plan *p, const struct replay_result *a)
{
	const struct replay_opts *o = p->o;

	printf("%-20s %s: %" PRIu64 " requests, %u sessions, %u distinct blocks of %u tokens\n",
	       "trace", o->path, p->t.nr_reqs, p->t.nr_sessions, p->t.nr_blocks,
	       p->t.block_tokens);
	printf("%-20s %" PRIu64 " blocks of %" PRIu64 " bytes (%u planes, %u shards), codec %s, "
	       "policy %s\n", "pool", a->slots, o->block_bytes, o->planes, o->shards,
	       kvmd_codec_name(o->codec), o->policy ? o->policy : "the daemon's");
	printf("%-20s %u processes, requests %s, steps %u late, verify %s\n", "clients",
	       o->clients, o->route == ROUTE_RR ? "in turn" : "by session", o->late,
	       verify_names[o->verify]);
	printf("%-20s %.2f s, %.0f requests/s\n", "time", (double)a->spent_ns / 1e9,
	       a->spent_ns ? (double)a->sum.done * 1e9 / (double)a->spent_ns : 0);
}

static void print_text(const struct replay_plan *p, const struct replay_result *res)
{
	const struct replay_result *a = &res[PASS_SHARED];
	const struct replay_slot *s = &a->sum;

	text_head(p, a);
	text_rate("block hit rate", res, true, p->bound_blocks, p->blocks);
	text_rate("token hit rate", res, false, p->bound_tokens, p->tokens);
	text_attribution(a);
	printf("%-20s %" PRIu64 " hit, %" PRIu64 " written, %" PRIu64 " merged, %" PRIu64
	       " left private, %" PRIu64 " evicted, %" PRIu64 " verified\n", "blocks",
	       s->hit_blocks, s->written_blocks, s->merged_blocks, s->private_blocks,
	       a->stats.val[KVMD_STAT_BLOCKS_EVICTED], s->verified_blocks);
	text_tiers(a);
	printf("%-20s %" PRIu64 " deadlocks, %" PRIu64 " without memory, %" PRIu64
	       " longer than the pool\n", "tried again", s->deadlocks, s->no_memory, s->cut);
	if (s->clock_refused)
		printf("%-20s the daemon's own: it does not let the trace drive it\n", "clock");
	text_latencies(s);
	text_wrong("", s);
	text_other("private pools", &res[PASS_PRIVATE]);
	text_other("without tiers", &res[PASS_BESIDE]);
	printf("wrong bytes: %" PRIu64 "\n", wrong_bytes(res));
}

/* ------------------------------------------------------------ JSON */

static void json_latencies(struct json *j, const struct replay_slot *s)
{
	enum replay_op op;

	json_obj(j, "latency_ns");
	for (op = 0; op < NR_REPLAY_OP; op++) {
		const struct hist *h = &s->hist[op];

		json_obj(j, replay_op_name(op));
		json_u64(j, "count", h->nr);
		json_u64(j, "p50", hist_quantile(h, 5000));
		json_u64(j, "p99", hist_quantile(h, 9900));
		json_u64(j, "p99_9", hist_quantile(h, 9990));
		json_u64(j, "max", h->max_ns);
		json_obj_end(j);
	}
	json_obj_end(j);
}

static void json_attribution(struct json *j, const struct replay_result *res)
{
	size_t i;

	json_u64(j, "tokens_asked", res->stats.val[KVMD_STAT_TOKENS_ASKED]);
	for (i = 0; i < ARRAY_SIZE(parts); i++)
		json_u64(j, stats_name(parts[i].id), res->stats.val[parts[i].id]);
	for (i = 0; i < ARRAY_SIZE(reasons); i++)
		json_u64(j, stats_name(reasons[i].id), res->stats.val[reasons[i].id]);
	json_bool(j, "attribution_sums", res->sums);
	json_u64(j, "client_tokens_asked", res->sum.asked_tokens);
}

static void json_wrong(struct json *j, const struct replay_slot *s)
{
	if (!s->has_wrong)
		return;
	json_obj(j, "first_wrong");
	json_u64(j, "request", s->wrong.req);
	json_u64(j, "block", s->wrong.pos);
	json_u64(j, "slot", s->wrong.slot);
	json_u64(j, "shard", s->wrong.shard);
	json_u64(j, "plane", s->wrong.plane);
	json_u64(j, "offset_bytes", s->wrong.offset);
	json_obj_end(j);
}

static void json_private(struct json *j, const struct replay_plan *p,
			 const struct replay_result *b)
{
	if (!b->is_there) {
		json_null(j, "private_block_hit_rate");
		json_null(j, "private_token_hit_rate");
		return;
	}
	json_f64(j, "private_block_hit_rate", ratio(b->sum.hit_blocks, p->blocks));
	json_f64(j, "private_token_hit_rate", ratio(b->sum.hit_tokens, p->tokens));
	json_u64(j, "private_pool_blocks", b->slots);
	json_u64(j, "private_wrong_bytes", b->sum.wrong_bytes);
	json_bool(j, "private_attribution_sums", b->sums);
	json_u64(j, "private_spent_ns", b->spent_ns);
}

static void json_beside(struct json *j, const struct replay_plan *p,
			const struct replay_result *b)
{
	if (!b->is_there) {
		json_null(j, "beside_block_hit_rate");
		json_null(j, "beside_token_hit_rate");
		return;
	}
	json_f64(j, "beside_block_hit_rate", ratio(b->sum.hit_blocks, p->blocks));
	json_f64(j, "beside_token_hit_rate", ratio(b->sum.hit_tokens, p->tokens));
	json_u64(j, "beside_wrong_bytes", b->sum.wrong_bytes);
	json_bool(j, "beside_attribution_sums", b->sums);
	json_u64(j, "beside_open_ns", b->sum.open_ns);
	json_u64(j, "beside_spent_ns", b->spent_ns);
}

static void json_rates(struct json *j, const struct replay_plan *p,
		       const struct replay_result *res)
{
	const struct replay_slot *s = &res[PASS_SHARED].sum;

	json_u64(j, "wrong_bytes", wrong_bytes(res));
	json_f64(j, "block_hit_rate", ratio(s->hit_blocks, p->blocks));
	json_f64(j, "token_hit_rate", ratio(s->hit_tokens, p->tokens));
	json_private(j, p, &res[PASS_PRIVATE]);
	json_beside(j, p, &res[PASS_BESIDE]);
	json_f64(j, "unlimited_block_hit_rate", ratio(p->bound_blocks, p->blocks));
	json_f64(j, "unlimited_token_hit_rate", ratio(p->bound_tokens, p->tokens));
}

static int print_json(const struct replay_plan *p, const struct replay_result *res)
{
	const struct replay_result *a = &res[PASS_SHARED];
	const struct replay_opts *o = p->o;
	const struct replay_slot *s = &a->sum;
	struct json j;

	json_init(&j);
	json_obj(&j, NULL);
	json_str(&j, "schema", "kvtrace.replay.1");
	json_str(&j, "file", o->path);
	json_rates(&j, p, res);
	json_attribution(&j, a);
	json_u64(&j, "requests", s->done);
	json_u64(&j, "clients", o->clients);
	json_u64(&j, "pool_blocks", a->slots);
	json_u64(&j, "block_bytes", o->block_bytes);
	json_str(&j, "codec", kvmd_codec_name(o->codec));
	json_u64(&j, "late_steps", o->late);
	json_str(&j, "verify", verify_names[o->verify]);
	json_u64(&j, "trace_blocks", p->blocks);
	json_u64(&j, "trace_tokens", p->tokens);
	json_u64(&j, "hit_blocks", s->hit_blocks);
	json_u64(&j, "hit_tokens", s->hit_tokens);
	json_u64(&j, "written_blocks", s->written_blocks);
	json_u64(&j, "merged_blocks", s->merged_blocks);
	json_u64(&j, "private_blocks", s->private_blocks);
	json_u64(&j, "verified_blocks", s->verified_blocks);
	json_u64(&j, "wrong_blocks", s->wrong_blocks);
	json_u64(&j, "evicted_blocks", a->stats.val[KVMD_STAT_BLOCKS_EVICTED]);
	json_u64(&j, "requests_longer_than_pool", s->cut);
	json_u64(&j, "retries_deadlock", s->deadlocks);
	json_u64(&j, "retries_no_memory", s->no_memory);
	json_bool(&j, "clock_driven", o->time == TIME_FAST && !s->clock_refused);
	json_u64(&j, "spent_ns", a->spent_ns);
	json_f64(&j, "requests_per_s", a->spent_ns ? (double)s->done * 1e9 / (double)a->spent_ns : 0);
	json_tiers(&j, p, a);
	json_wrong(&j, s);
	json_latencies(&j, s);
	json_obj_end(&j);
	return kvt_json_print(&j);
}

int report_print(const struct replay_plan *p, const struct replay_result *res)
{
	if (p->o->json)
		return print_json(p, res);
	print_text(p, res);
	return 0;
}
