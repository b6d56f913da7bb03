// SPDX-License-Identifier: Apache-2.0
/*
 * info_cmd.c - `kvtrace info`: options, text and JSON.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>

#include "kvmd/lib/json.h"
#include "tools/kvtrace/info.h"
#include "tools/kvtrace/kvtrace.h"

static const char help[] =
"usage: kvtrace info [OPTION]... FILE\n"
"Describe a request trace (JSON lines, plain or gzip; '-': standard input).\n\n"
"  -j, --json              as one JSON object\n"
"  -b, --block-tokens N    tokens per block (the header's, or 512)\n"
"  -n, --requests N        look at the first N requests only\n"
"  -k, --skip-bad          skip malformed lines and count them (else: refuse)\n"
"  -q, --quiet             neither progress bar nor warnings\n"
"  -h, --help              show this text\n\n"
"Hit rates are those of a cache that never evicts, under the prefix rule: a\n"
"request's hits are its leading blocks that are all there. Reuse is the time,\n"
"or the number of requests, since a block was used last.\n"
"Exit status: 0 done, 1 bad data (FILE:LINE: reason), 2 usage.\n";

static const struct option options[] = {
	{ "json", no_argument, NULL, 'j' },
	{ "block-tokens", required_argument, NULL, 'b' },
	{ "requests", required_argument, NULL, 'n' },
	{ "skip-bad", no_argument, NULL, 'k' },
	{ "quiet", no_argument, NULL, 'q' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

static const char *const pct_names[NR_INFO_PCT] = {
	[INFO_P10] = "p10", [INFO_P25] = "p25", [INFO_P50] = "p50", [INFO_P75] = "p75",
	[INFO_P90] = "p90", [INFO_P99] = "p99", [INFO_MAX] = "max",
};

static const char *const uses_names[NR_INFO_USES] = {
	[INFO_USES_1] = "1", [INFO_USES_2] = "2", [INFO_USES_3_10] = "3-10",
	[INFO_USES_MORE] = ">10",
};

static double ratio(uint64_t a, uint64_t b)
{
	return b ? (double)a / (double)b : 0;
}

/* ------------------------------------------------------------ text */

static void text_pct(const char *name, const uint64_t pct[NR_INFO_PCT], double unit, int digits)
{
	unsigned int p;

	printf("%-21s", name);
	for (p = 0; p < NR_INFO_PCT; p++)
		printf(" %s %.*f", pct_names[p], digits, (double)pct[p] / unit);
	putchar('\n');
}

static void text_u64(const char *name, uint64_t v)
{
	printf("%-21s %" PRIu64 "\n", name, v);
}

static void text_rate(const char *name, uint64_t a, uint64_t b)
{
	printf("%-21s %.4f\n", name, ratio(a, b));
}

static void text_shares(const struct trace *t, const struct info *in)
{
	unsigned int c;

	printf("%-21s", "reuse_share");
	for (c = 0; c < INFO_NR_REUSE_CLASSES - 1; c++)
		printf(" <%" PRIu64 "s %.3f", info_reuse_edges_s[c],
		       ratio(in->reuse_class[c], in->nr_reuses));
	printf(" more %.3f\n%-21s", ratio(in->reuse_class[c], in->nr_reuses),
	       "use_count_share");
	for (c = 0; c < NR_INFO_USES; c++)
		printf(" %s: %.3f", uses_names[c], ratio(in->uses[c], t->nr_blocks));
	putchar('\n');
}

static void print_text(const struct trace *t, const struct info *in)
{
	text_u64("block_tokens", t->block_tokens);
	text_u64("requests", t->nr_reqs);
	printf("%-21s %u%s\n", "sessions", t->nr_sessions,
	       t->sessions_inferred ? " (inferred)" : "");
	printf("%-21s %.0f\n", "span_s", (double)in->span_ns / 1e9);
	text_u64("input_tokens", in->input_tokens);
	text_u64("output_tokens", in->output_tokens);
	text_u64("block_accesses", t->nr_accesses);
	text_u64("distinct_blocks", t->nr_blocks);
	text_u64("partial_tail_blocks", in->partial_tails);
	text_rate("unlimited_block_hit", in->hit_blocks, t->nr_accesses);
	text_rate("unlimited_token_hit", in->hit_tokens, in->input_tokens);
	text_rate("single_use_blocks", in->uses[INFO_USES_1], t->nr_blocks);
	text_u64("blocks_used_100+", in->hot_blocks);
	text_u64("max_use", in->max_uses);
	text_pct("chain_blocks", in->chain_blocks, 1, 0);
	text_pct("reuse_s", in->reuse_ns, 1e9, 1);
	text_pct("reuse_requests", in->reuse_requests, 1, 0);
	text_shares(t, in);
	if (t->nr_bad)
		text_u64("bad_lines", t->nr_bad);
}

/* ------------------------------------------------------------ JSON */

static void json_pct(struct json *j, const char *key, const uint64_t pct[NR_INFO_PCT])
{
	unsigned int p;

	json_obj(j, key);
	for (p = 0; p < NR_INFO_PCT; p++)
		json_u64(j, pct_names[p], pct[p]);
	json_obj_end(j);
}

static void json_shares(struct json *j, const struct trace *t, const struct info *in)
{
	static const char *const keys[NR_INFO_USES] = {
		[INFO_USES_1] = "used_1", [INFO_USES_2] = "used_2",
		[INFO_USES_3_10] = "used_3_to_10", [INFO_USES_MORE] = "used_more",
	};
	unsigned int c;

	json_arr(j, "reuse_classes");
	for (c = 0; c < INFO_NR_REUSE_CLASSES; c++) {
		json_obj(j, NULL);
		if (c < INFO_NR_REUSE_CLASSES - 1)
			json_u64(j, "below_s", info_reuse_edges_s[c]);
		else
			json_null(j, "below_s");
		json_u64(j, "accesses", in->reuse_class[c]);
		json_obj_end(j);
	}
	json_arr_end(j);
	json_obj(j, "blocks_by_uses");
	for (c = 0; c < NR_INFO_USES; c++)
		json_u64(j, keys[c], in->uses[c]);
	json_obj_end(j);
	json_u64(j, "hot_blocks", in->hot_blocks);
	json_u64(j, "max_uses", in->max_uses);
	json_f64(j, "single_use_share", ratio(in->uses[INFO_USES_1], t->nr_blocks));
}

static void json_oddities(struct json *j, const struct trace *t)
{
	unsigned int w;

	json_u64(j, "bad_lines", t->nr_bad);
	json_obj(j, "warnings");
	for (w = 0; w < NR_TRACE_WARN; w++)
		json_u64(j, trace_warn_name((enum trace_warn)w), t->warn[w]);
	json_obj_end(j);
}

static int print_json(const char *path, const struct trace *t, const struct info *in)
{
	struct json j;

	json_init(&j);
	json_obj(&j, NULL);
	json_str(&j, "schema", "kvtrace.info.1");
	json_str(&j, "file", path);
	json_u64(&j, "block_tokens", t->block_tokens);
	json_u64(&j, "requests", t->nr_reqs);
	json_u64(&j, "sessions", t->nr_sessions);
	json_bool(&j, "sessions_inferred", t->sessions_inferred);
	json_u64(&j, "span_ns", in->span_ns);
	json_u64(&j, "input_tokens", in->input_tokens);
	json_u64(&j, "output_tokens", in->output_tokens);
	json_u64(&j, "block_accesses", t->nr_accesses);
	json_u64(&j, "distinct_blocks", t->nr_blocks);
	json_u64(&j, "partial_tail_blocks", in->partial_tails);
	json_u64(&j, "unlimited_hit_blocks", in->hit_blocks);
	json_u64(&j, "unlimited_hit_tokens", in->hit_tokens);
	json_f64(&j, "unlimited_block_hit_rate", ratio(in->hit_blocks, t->nr_accesses));
	json_f64(&j, "unlimited_token_hit_rate", ratio(in->hit_tokens, in->input_tokens));
	json_shares(&j, t, in);
	json_pct(&j, "chain_blocks", in->chain_blocks);
	json_pct(&j, "reuse_ns", in->reuse_ns);
	json_pct(&j, "reuse_requests", in->reuse_requests);
	json_oddities(&j, t);
	json_obj_end(&j);
	return kvt_json_print(&j);
}

/* ------------------------------------------------------------ the verb */

struct info_args {
	struct trace_opts load;
	bool json;
	bool quiet;
};

static int take_option(struct info_args *a, int opt)
{
	uint64_t v = 0;
	int err;

	switch (opt) {
	case 'j':
		a->json = true;
		return 0;
	case 'b':
		err = kvt_opt_u64("info", "block-tokens", optarg, 1, TRACE_MAX_BLOCK_TOKENS, &v);
		a->load.block_tokens = (uint32_t)v;
		return err;
	case 'n':
		return kvt_opt_u64("info", "requests", optarg, 1, UINT32_MAX, &a->load.max_reqs);
	case 'k':
		a->load.skip_bad = true;
		return 0;
	case 'q':
		a->quiet = true;
		return 0;
	default:
		return kvt_try_help("info");
	}
}

int cmd_info(int argc, char **argv)
{
	struct info_args a = { .json = false };
	const char *path;
	struct trace t;
	struct info in;
	int opt, err;

	while ((opt = getopt_long(argc, argv, "jb:n:kqh", options, NULL)) != -1) {
		if (opt == 'h') {
			fputs(help, stdout);
			return kvt_flush();
		}
		err = take_option(&a, opt);
		if (err)
			return err;
	}
	if (optind + 1 != argc)
		return kvt_usage("info", optind < argc ? "one FILE at a time" : "which FILE?");
	path = argv[optind];
	err = kvt_load(&t, path, a.load, a.quiet);
	if (err)
		return err;
	err = info_compute(&t, &in);
	if (!err && a.json)
		err = print_json(path, &t, &in);
	else if (!err)
		print_text(&t, &in);
	trace_free(&t);
	if (!err)
		return kvt_flush();
	kvt_warn("%s: %s", path, strerror(-err));
	return KVT_REFUSED;
}
