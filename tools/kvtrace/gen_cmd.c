// SPDX-License-Identifier: Apache-2.0
/*
 * gen_cmd.c - the options of `kvtrace gen`.
 */
#include <getopt.h>
#include <stdio.h>

#include "tools/kvtrace/gen.h"
#include "tools/kvtrace/kvtrace.h"

#define NS_PER_S	1000000000ULL
#define NS_PER_MS	1000000ULL
#define DAY_NS		(86400 * NS_PER_S)
#define MAX_REQUESTS	10000000ULL
#define MAX_TOKENS	(1ULL << 22)
#define DEFAULT_REQUESTS 2000
#define SESSIONS_ALIVE	16	/* the default of --start-gap gives about so many */

static const struct preset {
	const char *name;
	struct gen_opts o;
} presets[] = {
	{ "chat", {
		.system_prompts = 8, .system_tokens = 400, .turns = 4, .turn_tokens = 80,
		.output_tokens = 200, .gap_ns = 30 * NS_PER_S,
	} },
	{ "agent", {
		.system_prompts = 4, .system_tokens = 6000, .turns = 15, .turn_tokens = 700,
		.output_tokens = 150, .gap_ns = 8 * NS_PER_S,
	} },
};

static const char help[] =
"usage: kvtrace gen [OPTION]...\n"
"Make a trace like a chat or agent service's: sessions share system prompts\n"
"and have several turns, each prompt being all that came before, the previous\n"
"output included, and new tokens. The same options and seed give the same trace.\n\n"
"Size:\n"
"  -n, --requests N        stop after N requests (2000; with --sessions: no limit)\n"
"  -S, --sessions N        start N sessions (no limit)\n"
"  -b, --block-tokens N    tokens per block (16)\n"
"  -s, --seed N            of the generator (1)\n"
"Shape:                                                          chat  agent\n"
"  -T, --tools PRESET      chat: people who talk (default);\n"
"                          agent: tools called in long contexts\n"
"      --system-prompts N  different system prompts; the k-th is\n"
"                          drawn with weight 1/k                    8      4\n"
"      --system-tokens N   their mean length                      400   6000\n"
"  -t, --turns N           mean turns per session                   4     15\n"
"      --turn-tokens N     mean new tokens in a turn               80    700\n"
"      --output-tokens N   mean output of a turn                  200    150\n"
"  -g, --gap TIME          mean time from a turn to the next      30s     8s\n"
"      --start-gap TIME    mean time between session starts (turns * gap / 16,\n"
"                          so that about 16 sessions are alive)\n"
"  -c, --context N         a session ends before it has more tokens (131072)\n"
"Output:\n"
"  -o, --output FILE       write here, gzip if it ends in .gz (standard output)\n"
"      --hash-ids          write each id instead of runs of ids\n"
"  -q, --quiet             no progress bar\n"
"  -h, --help              show this text\n"
"Times take ns, us, ms, s, min or h; plain numbers are seconds.\n";

enum {
	OPT_SYSTEM_PROMPTS = 256, OPT_SYSTEM_TOKENS, OPT_TURN_TOKENS, OPT_OUTPUT_TOKENS,
	OPT_START_GAP, OPT_HASH_IDS,
};

static const struct option options[] = {
	{ "requests", required_argument, NULL, 'n' },
	{ "sessions", required_argument, NULL, 'S' },
	{ "block-tokens", required_argument, NULL, 'b' },
	{ "seed", required_argument, NULL, 's' },
	{ "tools", required_argument, NULL, 'T' },
	{ "system-prompts", required_argument, NULL, OPT_SYSTEM_PROMPTS },
	{ "system-tokens", required_argument, NULL, OPT_SYSTEM_TOKENS },
	{ "turns", required_argument, NULL, 't' },
	{ "turn-tokens", required_argument, NULL, OPT_TURN_TOKENS },
	{ "output-tokens", required_argument, NULL, OPT_OUTPUT_TOKENS },
	{ "gap", required_argument, NULL, 'g' },
	{ "start-gap", required_argument, NULL, OPT_START_GAP },
	{ "context", required_argument, NULL, 'c' },
	{ "output", required_argument, NULL, 'o' },
	{ "hash-ids", no_argument, NULL, OPT_HASH_IDS },
	{ "quiet", no_argument, NULL, 'q' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

static const char short_options[] = "n:S:b:s:T:t:g:c:o:qh";

/* Options that are a whole number: where it goes and its range. */
static const struct number_opt {
	int opt;
	const char *name;
	size_t offset;
	uint64_t lo, hi;
} numbers[] = {
	{ 'n', "requests", offsetof(struct gen_opts, requests), 1, MAX_REQUESTS },
	{ 'S', "sessions", offsetof(struct gen_opts, sessions), 1, MAX_REQUESTS },
	{ 'b', "block-tokens", offsetof(struct gen_opts, block_tokens), 1,
	  TRACE_MAX_BLOCK_TOKENS },
	{ 's', "seed", offsetof(struct gen_opts, seed), 0, UINT64_MAX },
	{ 't', "turns", offsetof(struct gen_opts, turns), 1, 100000 },
	{ 'c', "context", offsetof(struct gen_opts, context_tokens), 1, MAX_TOKENS },
	{ OPT_SYSTEM_PROMPTS, "system-prompts", offsetof(struct gen_opts, system_prompts), 1,
	  1000000 },
	{ OPT_SYSTEM_TOKENS, "system-tokens", offsetof(struct gen_opts, system_tokens), 0,
	  MAX_TOKENS },
	{ OPT_TURN_TOKENS, "turn-tokens", offsetof(struct gen_opts, turn_tokens), 1, MAX_TOKENS },
	{ OPT_OUTPUT_TOKENS, "output-tokens", offsetof(struct gen_opts, output_tokens), 1,
	  MAX_TOKENS },
};

static int take_number(struct gen_opts *o, int opt, const char *arg)
{
	const struct number_opt *n;
	uint64_t v;
	int err;

	for (n = numbers; n < numbers + ARRAY_SIZE(numbers); n++) {
		if (n->opt != opt)
			continue;
		err = kvt_opt_u64("gen", n->name, arg, n->lo, n->hi, &v);
		if (!err)
			memcpy((char *)o + n->offset, &v, sizeof(v));
		return err;
	}
	return kvt_try_help("gen");
}

/* The shape of preset @name into @o; what it says of the rest stays. */
static int take_preset(struct gen_opts *o, const char *name)
{
	const struct preset *p;

	for (p = presets; p < presets + ARRAY_SIZE(presets); p++) {
		if (strcmp(p->name, name))
			continue;
		o->system_prompts = p->o.system_prompts;
		o->system_tokens = p->o.system_tokens;
		o->turns = p->o.turns;
		o->turn_tokens = p->o.turn_tokens;
		o->output_tokens = p->o.output_tokens;
		o->gap_ns = p->o.gap_ns;
		return 0;
	}
	return kvt_usage("gen", "--tools: no preset '%s'; there are chat and agent", name);
}

static int take_option(struct gen_opts *o, int opt, const char *arg)
{
	switch (opt) {
	case 'T':
		return 0;	/* taken before the others, whatever the order */
	case 'g':
		return kvt_opt_time("gen", "gap", arg, 0, DAY_NS, &o->gap_ns);
	case OPT_START_GAP:
		return kvt_opt_time("gen", "start-gap", arg, NS_PER_MS, DAY_NS, &o->start_gap_ns);
	case 'o':
		o->path = strcmp(arg, "-") ? arg : NULL;
		return 0;
	case OPT_HASH_IDS:
		o->form = TRACE_FORM_IDS;
		return 0;
	case 'q':
		o->quiet = true;
		return 0;
	default:
		return take_number(o, opt, arg);
	}
}

static int finish_opts(struct gen_opts *o)
{
	if (!o->requests && !o->sessions)
		o->requests = DEFAULT_REQUESTS;
	if (!o->start_gap_ns)
		o->start_gap_ns = max(o->turns * o->gap_ns / SESSIONS_ALIVE, (uint64_t)NS_PER_MS);
	/* System prompts are at most one and a half times their mean. */
	if (o->system_tokens + o->system_tokens / 2 >= o->context_tokens)
		return kvt_usage("gen", "a system prompt of up to %llu tokens does not fit in a "
				 "--context of %llu",
				 (unsigned long long)(o->system_tokens + o->system_tokens / 2),
				 (unsigned long long)o->context_tokens);
	return 0;
}

int cmd_gen(int argc, char **argv)
{
	struct gen_opts o = { .block_tokens = 16, .context_tokens = 131072, .seed = 1 };
	const char *preset = presets[0].name;
	int opt, err;

	opterr = 0;
	while ((opt = getopt_long(argc, argv, short_options, options, NULL)) != -1) {
		if (opt == 'T')
			preset = optarg;
		if (opt == 'h') {
			fputs(help, stdout);
			return kvt_flush();
		}
	}
	err = take_preset(&o, preset);
	if (err)
		return err;
	opterr = 1;
	optind = 0;		/* from the start again, all state reset */
	while ((opt = getopt_long(argc, argv, short_options, options, NULL)) != -1) {
		err = take_option(&o, opt, optarg);
		if (err)
			return err;
	}
	if (optind < argc)
		return kvt_usage("gen", "'%s' is one argument too many", argv[optind]);
	err = finish_opts(&o);
	return err ? err : gen_run(&o);
}
