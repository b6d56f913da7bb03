// SPDX-License-Identifier: Apache-2.0
/*
 * opts.c - the command line: one table says what there is, reads it, and is the help.
 */
#include "tools/kvinfer/opts.h"

#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kvmd/lib/base.h"
#include "kvmd/lib/conf.h"

#define MAX_COUNT	(1u << 20)	/* of things that cost memory each */

enum kind { HEADING, TEXT, U32, U64, F32, FLAG, WORD, CALL };

struct row {
	const char *name;	/* the long option; of a HEADING its text */
	char letter;		/* the short one; 0: none */
	enum kind kind;
	size_t at;		/* in struct ki_opts */
	const char *arg;	/* what the help calls the argument */
	const char *def;	/* default, read as if it was given; NULL: zero */
	uint64_t lo, hi;	/* U32, U64 */
	const char *const *words; /* WORD: the value is the index */
	void (*take)(struct ki_opts *o, const char *arg); /* CALL */
	const char *help;	/* lines */
};

static void take_prompt(struct ki_opts *o, const char *arg);
static void take_shape(struct ki_opts *o, const char *arg);
static void take_codec(struct ki_opts *o, const char *arg);
static void take_device(struct ki_opts *o, const char *arg);
static void show_help(struct ki_opts *o, const char *arg) __attribute__((noreturn));
static void show_version(struct ki_opts *o, const char *arg) __attribute__((noreturn));

static const char *const gemms[] = { "auto", "blas", "plain", NULL };
const char *const ki_dtype_words[] = { "bf16", "f16", "e4m3", "e5m2", NULL };
const char *const ki_role_words[] = { "run", "prefill", "decode", NULL };
static const char *const codecs[] = {
	"none", "window", "fp8_e4m3", "fp8_e5m2", "int8", "int4", "kivi2", NULL,
};
BUILD_BUG_ON(KI_GEMM_PLAIN != 2 || KN_E5M2 != 3 || KI_ROLE_DECODE != 2);
BUILD_BUG_ON(ARRAY_SIZE(codecs) != KVMD_NR_CODEC + 1);

#define AT(field)	offsetof(struct ki_opts, field)

static const struct row rows[] = {
	{ "What to answer", .kind = HEADING },
	{ "prompt", 'p', CALL, .arg = "TEXT", .take = take_prompt,
	  .help = "answer this; as often as you like" },
	{ "prompt-file", 'f', TEXT, AT(prompt_file), .arg = "FILE",
	  .help = "a text, {\"text\": ...} or {\"ids\": [...]} per line" },
	{ "system", 's', TEXT, AT(system), .arg = "TEXT", .help = "put before each text" },
	{ "trace", 't', TEXT, AT(trace), .arg = "FILE",
	  .help = "requests of a trace in Mooncake's form, see kvtrace(1)" },
	{ "trace-requests", 0, U32, AT(trace_requests), "N", "0", 0, UINT32_MAX,
	  .help = "the first so many of them; 0: all" },
	{ "trace-scale", 0, U32, AT(trace_scale), "N", "1", 1, MAX_COUNT,
	  .help = "all lengths divided by N" },
	{ "repeat", 0, U32, AT(repeat), "N", "1", 1, MAX_COUNT,
	  .help = "answer it all so many times" },
	{ "tokens", 'n', U32, AT(tokens), "N", "32", 1, MAX_COUNT,
	  .help = "to make, for each" },
	{ "samples", 0, U32, AT(samples), "N", "1", 1, KI_MAX_SEQS,
	  .help = "answers to each, from one prefill" },
	{ "temperature", 0, F32, AT(temperature), "X", "0", .help = "0: the likeliest token" },
	{ "top-k", 0, U32, AT(top_k), "N", "0", 0, UINT32_MAX,
	  .help = "draw from the N likeliest; 0: all" },
	{ "seed", 0, U64, AT(seed), "N", "1", 0, UINT64_MAX, .help = "of drawing" },

	{ "Model", .kind = HEADING },
	{ "weights", 'w', TEXT, AT(weights), .arg = "FILE",
	  .help = "safetensors of a Llama; without: random" },
	{ "model", 'm', CALL, .arg = "SPEC", .take = take_shape,
	  .help = "shape of the random one: dim=,layers=,heads=,kv_heads=,\n"
		  "head_dim=,ffn=,vocab=,max_tokens=,theta=,eps=" },
	{ "model-seed", 0, U64, AT(model_seed), "N", "1", 0, UINT64_MAX,
	  .help = "of its weights" },

	{ "Engine", .kind = HEADING },
	{ "device", 'd', CALL, .arg = "DEV", .def = "cpu", .take = take_device,
	  .help = "cpu, cuda or cuda:N" },
	{ "gemm", 0, WORD, AT(gemm), "HOW", "auto", .words = gemms,
	  .help = "blas: OpenBLAS or cuBLAS; plain: our own kernel" },
	{ "threads", 0, U32, AT(threads), "N", "1", 1, 1024, .help = "of OpenBLAS" },
	{ "batch", 'b', U32, AT(batch), "N", "16", 1, KI_MAX_SEQS,
	  .help = "answers at a time; rows of a decode step" },
	{ "chunk", 'c', U32, AT(chunk), "N", "64", 1, KI_MAX_CHUNK,
	  .help = "tokens of a prefill step, a multiple of --block-tokens" },
	{ "window", 0, U32, AT(window), "N", "0", 0, UINT32_MAX / 2,
	  .help = "each token sees the last N; 0: all" },
	{ "sinks", 0, U32, AT(sinks), "N", "0", 0, UINT32_MAX / 2,
	  .help = "and the first N" },
	{ "h2o", 0, U32, AT(h2o), "N", "0", 0, UINT32_MAX / 2,
	  .help = "keep N tokens of each, those that attention looks at" },
	{ "draft-layers", 0, U32, AT(draft_layers), "N", "0", 0, KI_MAX_LAYERS,
	  .help = "draft tokens with the first N layers" },
	{ "draft-tokens", 0, U32, AT(draft_tokens), "N", "0", 0, KI_MAX_SEQS,
	  .help = "so many at a time, then verify them" },
	{ "ranks", 0, U32, AT(ranks), "N", "1", 1, 2,
	  .help = "processes that share the model: 1 or 2" },

	{ "Cache", .kind = HEADING },
	{ "private", 0, FLAG, AT(private), .help = "in own memory, without a daemon" },
	{ "private-tokens", 0, U64, AT(private_tokens), "N", "0", 0, 1ull << 40,
	  .help = "size of that; 0: what the prompts need" },
	{ "socket", 'S', TEXT, AT(socket), .arg = "PATH",
	  .help = "the daemon's ($KVMD_SOCKET, else " KVMD_RUNSTATEDIR "/" KVMD_DAEMON_NAME "/"
		  KVMD_DAEMON_NAME ".sock)" },
	{ "wait", 0, U32, AT(wait_s), "SECONDS", "0", 0, 86400,
	  .help = "for a daemon to appear" },
	{ "space", 0, TEXT, AT(space), .arg = "NAME",
	  .help = "(named after what changes the bytes: kvinfer-...)" },
	{ "tenant", 0, TEXT, AT(tenant), .arg = "NAME", .help = "who pays (default)" },
	{ "block-tokens", 0, U32, AT(block_tokens), "N", "16", 1, 4096, .help = "of a block" },
	{ "kv-dtype", 0, WORD, AT(dtype), "TYPE", "bf16", .words = ki_dtype_words,
	  .help = "of K and V: bf16, f16, e4m3 or e5m2" },
	{ "layer-planes", 0, FLAG, AT(layer_planes), .help = "a plane per layer, not one for all" },
	{ "codec", 0, CALL, .arg = "SPEC", .take = take_codec,
	  .help = "below HBM: none, window, fp8_e4m3, fp8_e5m2, int8, int4 or\n"
		  "kivi2[,exact=FIRST[:LAST]][,scale=N], see kvmd-codec(7)" },
	{ "no-cache", 0, FLAG, AT(no_cache), .help = "take no hit; what is computed is published" },
	{ "prompt-only", 0, FLAG, AT(prompt_only), .help = "publish blocks of prompts only" },

	{ "Prefill and decode apart", .kind = HEADING },
	{ "role", 0, WORD, AT(role), "ROLE", "run", .words = ki_role_words,
	  .help = "run: both; prefill: hand sequences over; decode: take them" },
	{ "handoff", 0, TEXT, AT(handoff), .arg = "FILE",
	  .help = "tickets, a line each; '-': standard output or input" },

	{ "What is said", .kind = HEADING },
	{ "check", 0, FLAG, AT(check), .help = "compute again without a cache, compare logits" },
	{ "json", 'j', FLAG, AT(json), .help = "an object per answer, and one of totals" },
	{ "quiet", 'q', FLAG, AT(quiet), .help = "totals only" },
	{ "help", 'h', CALL, .take = show_help, .help = "this text" },
	{ "version", 'V', CALL, .take = show_version, .help = "which kvinfer this is" },
};

#define NR_ROWS	ARRAY_SIZE(rows)

static bool given[NR_ROWS];

/* ------------------------------------------------------------------ messages */

void ki_usage(const char *fmt, ...)
{
	va_list ap;

	fputs("kvinfer: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputs("\nTry 'kvinfer --help'.\n", stderr);
	exit(2);
}

static bool has_arg(const struct row *r)
{
	return r->arg != NULL;
}

static void show_row(const struct row *r)
{
	const char *s = r->help, *nl;
	char left[64], letter[8] = "    ";

	if (r->letter)
		snprintf(letter, sizeof(letter), "-%c, ", r->letter);
	snprintf(left, sizeof(left), "%s--%s%s%s", letter, r->name, has_arg(r) ? " " : "",
		 has_arg(r) ? r->arg : "");
	printf("  %-25s ", left);
	for (; (nl = strchr(s, '\n')); s = nl + 1)
		printf("%.*s\n%28s", (int)(nl - s), s, "");
	fputs(s, stdout);
	if (r->def && strcmp(r->def, "0"))
		printf(" (%s)", r->def);
	putchar('\n');
}

static void show_help(struct ki_opts *o, const char *arg)
{
	(void)o;
	(void)arg;
	fputs("usage: kvinfer [OPTION]...\n"
	      "Answer prompts with a transformer whose KV cache is a pool of kvmd(8).\n", stdout);
	for (size_t i = 0; i < NR_ROWS; i++) {
		if (rows[i].kind == HEADING)
			printf("%s:\n", rows[i].name);
		else
			show_row(&rows[i]);
	}
	fputs("Exit status: 0 all answered, 1 refused or failed, 2 usage, 3 no daemon, or it went\n"
	      "away, 5 --check found other logits where they have to be equal.\n", stdout);
	exit(fflush(stdout) ? 1 : 0);
}

static void show_version(struct ki_opts *o, const char *arg)
{
	(void)o;
	(void)arg;
	puts("kvinfer " KVMD_VERSION);
	exit(fflush(stdout) ? 1 : 0);
}

/* ------------------------------------------------------------------ values */

static uint64_t whole(const char *name, const char *arg, uint64_t lo, uint64_t hi)
{
	uint64_t v;

	if (conf_parse_u64(arg, &v))
		ki_usage("--%s: '%s' is not a whole number", name, arg);
	if (v < lo || v > hi)
		ki_usage("--%s: %s is outside %" PRIu64 " to %" PRIu64, name, arg, lo, hi);
	return v;
}

static uint32_t word(const char *name, const char *arg, const char *const *words)
{
	char all[128] = "";

	for (uint32_t i = 0; words[i]; i++) {
		if (!strcmp(words[i], arg))
			return i;
		strncat(all, i ? ", " : "", sizeof(all) - strlen(all) - 1);
		strncat(all, words[i], sizeof(all) - strlen(all) - 1);
	}
	ki_usage("--%s: '%s' is not one of %s", name, arg, all);
}

static float number(const char *name, const char *arg)
{
	char *end;
	float v = strtof(arg, &end);

	if (end == arg || *end || !isfinite(v) || v < 0)
		ki_usage("--%s: '%s' is not a number of 0 or more", name, arg);
	return v;
}

static void take_prompt(struct ki_opts *o, const char *arg)
{
	char **p = realloc(o->prompt, (o->nr_prompts + 1u) * sizeof(*p));

	if (!p)
		ki_usage("--prompt: no memory");
	o->prompt = p;
	o->prompt[o->nr_prompts++] = (char *)(uintptr_t)arg;
}

static void take_shape(struct ki_opts *o, const char *arg)
{
	char msg[KI_TEXT];

	if (ki_shape_parse(&o->shape, arg, msg))
		ki_usage("--model: %s", msg);
}

static void take_device(struct ki_opts *o, const char *arg)
{
	uint64_t n;

	if (strcmp(arg, "cpu") && strcmp(arg, "cuda") &&
	    (strncmp(arg, "cuda:", 5) || conf_parse_u64(arg + 5, &n) || n > 1023))
		ki_usage("--device: '%s' is not cpu, cuda or cuda:N with a GPU's number", arg);
	o->device = arg;
}

/* "FIRST[:LAST]", in layers. */
static void take_exact(struct kvmd_codec *c, char *arg)
{
	char *last = strchr(arg, ':');

	if (last)
		*last++ = 0;
	c->exact_first = (uint16_t)whole("codec: exact", arg, 0, KI_MAX_LAYERS);
	c->exact_last = last ? (uint16_t)whole("codec: exact", last, 0, KI_MAX_LAYERS) : 0;
}

static void take_codec(struct ki_opts *o, const char *arg)
{
	struct kvmd_codec c = { 0 };
	char buf[128], *save = NULL, *s;

	if (strlen(arg) >= sizeof(buf))
		ki_usage("--codec: '%s' is too long for a codec", arg);
	strcpy(buf, arg);
	s = strtok_r(buf, ",", &save);
	c.id = (uint8_t)word("codec", s ? s : "", codecs);
	while ((s = strtok_r(NULL, ",", &save))) {
		if (!strncmp(s, "exact=", 6))
			take_exact(&c, s + 6);
		else if (!strncmp(s, "scale=", 6))
			c.scale_values = (uint8_t)whole("codec: scale", s + 6, 32, 128);
		else
			ki_usage("--codec: '%s' is neither exact=FIRST:LAST nor scale=N", s);
	}
	if (c.scale_values && c.id != KVMD_CODEC_INT8 && c.id != KVMD_CODEC_INT4 &&
	    c.id != KVMD_CODEC_KIVI2)
		ki_usage("--codec: %s has no scales: leave out scale=, or use int8, int4 or kivi2",
			 codecs[c.id]);
	if (c.scale_values & (c.scale_values - 1))
		ki_usage("--codec: scale=%u: a scale is for 32, 64 or 128 values", c.scale_values);
	if ((c.exact_first || c.exact_last) && c.id <= KVMD_CODEC_WINDOW)
		ki_usage("--codec: %s loses nothing in any layer: leave out exact=", codecs[c.id]);
	o->codec = c;
}

static void take(struct ki_opts *o, const struct row *r, const char *arg)
{
	void *at = (char *)o + r->at;

	switch (r->kind) {
	case TEXT:
		*(const char **)at = arg;
		break;
	case U32:
		*(uint32_t *)at = (uint32_t)whole(r->name, arg, r->lo, r->hi);
		break;
	case U64:
		*(uint64_t *)at = whole(r->name, arg, r->lo, r->hi);
		break;
	case F32:
		*(float *)at = number(r->name, arg);
		break;
	case FLAG:
		*(bool *)at = true;
		break;
	case WORD:
		*(unsigned *)at = word(r->name, arg, r->words);
		break;
	case CALL:
		r->take(o, arg);
		break;
	case HEADING:
		break;
	}
}

/* ------------------------------------------------------------------ parsing */

bool ki_opts_given(const char *name)
{
	for (size_t i = 0; i < NR_ROWS; i++)
		if (rows[i].kind != HEADING && !strcmp(rows[i].name, name))
			return given[i];
	return false;
}

static size_t row_of(int c)
{
	for (size_t i = 0; i < NR_ROWS; i++)
		if (c == 256 + (int)i || (rows[i].letter && c == rows[i].letter))
			return i;
	fputs("Try 'kvinfer --help'.\n", stderr);	/* getopt has said why */
	exit(2);
}

static void read_options(struct ki_opts *o, int argc, char **argv)
{
	struct option longs[NR_ROWS + 1] = { 0 };
	char shorts[2 * NR_ROWS + 1], *s = shorts;
	size_t n = 0;
	int c;

	for (size_t i = 0; i < NR_ROWS; i++) {
		if (rows[i].kind == HEADING)
			continue;
		longs[n++] = (struct option) {
			rows[i].name, has_arg(&rows[i]) ? required_argument : no_argument, NULL,
			256 + (int)i,
		};
		if (rows[i].letter)
			*s++ = rows[i].letter;
		if (rows[i].letter && has_arg(&rows[i]))
			*s++ = ':';
	}
	*s = 0;
	while ((c = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		size_t i = row_of(c);

		given[i] = true;
		take(o, &rows[i], optarg);
	}
}

void ki_opts_parse(struct ki_opts *o, int argc, char **argv)
{
	*o = (struct ki_opts) { 0 };
	ki_shape_init(&o->shape);
	for (size_t i = 0; i < NR_ROWS; i++)
		if (rows[i].def)
			take(o, &rows[i], rows[i].def);
	read_options(o, argc, argv);
	if (optind < argc)
		ki_usage("'%s' is one argument too many: a prompt is given with --prompt",
			 argv[optind]);
	ki_opts_check(o);
}
