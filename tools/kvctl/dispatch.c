/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dispatch.c - the tables of nouns and options, and the command line.
 */
#include <getopt.h>
#include <stdarg.h>

#include "kvmd/lib/conf.h"
#include "tools/kvctl/kvctl.h"

#ifndef KVMD_RUNSTATEDIR
#define KVMD_RUNSTATEDIR "/run"
#endif
#ifndef KVMD_DAEMON_NAME
#define KVMD_DAEMON_NAME "kvmd"
#endif
#ifndef KVMD_DEFAULT_SOCKET
#define KVMD_DEFAULT_SOCKET KVMD_RUNSTATEDIR "/" KVMD_DAEMON_NAME "/kvmd.sock"
#endif

#define TIMEOUT_MS	5000
#define MAX_OPTIONS	40

const struct ctl_noun ctl_nouns[] = {
	{ "status",	"one screen: memory, hits, pressure",		ctl_status_verbs },
	{ "stat",	"counters, as rates or whole",			ctl_stat_verbs },
	{ "space",	"spaces: geometry, use, epoch",			ctl_space_verbs },
	{ "client",	"engine processes and their sessions",		ctl_client_verbs },
	{ "seq",	"sequences of the clients",			ctl_seq_verbs },
	{ "block",	"block records",				ctl_block_verbs },
	{ "tenant",	"tenants: limits and use",			ctl_tenant_verbs },
	{ "dev",	"devices and their budgets",			ctl_dev_verbs },
	{ "tier",	"tiers: HBM, RAM, disk",			ctl_tier_verbs },
	{ "iostat",	"what moves between the tiers",			ctl_iostat_verbs },
	{ "prefetch",	"bring blocks up ahead of need",		ctl_prefetch_verbs },
	{ "slab",	"slabs, and why one cannot move",		ctl_slab_verbs },
	{ "drain",	"empty chosen slabs",				ctl_drain_verbs },
	{ "conf",	"options in force",				ctl_conf_verbs },
	{ "explain",	"why a key list hits or misses",		ctl_explain_verbs },
	{ "pressure",	"pressure in PSI form",				ctl_pressure_verbs },
	{ "trace",	"record real traffic",				ctl_trace_verbs },
	{ "fault",	"fault injection",				ctl_fault_verbs },
	{ "check",	"walk all metadata and compare",		ctl_check_verbs },
	{ "fsck",	"check a live daemon, or files of the disk tier",	ctl_fsck_verbs },
	{ "log",	"the daemon's log level",			ctl_log_verbs },
	{ "completion",	"completion script for a shell",		ctl_completion_verbs },
	{ "help",	"what there is",				ctl_help_verbs },
	{ "version",	"version of this program",			ctl_version_verbs },
	{ NULL, NULL, NULL },
};

const struct ctl_option ctl_options[] = {
	{ 's', "socket", "PATH", "admin socket of the daemon", true, true },
	{ 'j', "json", NULL, "print the daemon's JSON", true, true },
	{ 't', "timeout", "TIME", "wait so long for an answer [5s]", true, true },
	{ 'h', "help", NULL, "help on the noun", true, true },
	{ OPT_COLS, "columns", "COLS", "columns to print, with commas", true, false },
	{ OPT_NO_HEADER, "no-header", NULL, "no line of column names", true, false },
	{ OPT_BYTES, "bytes", NULL, "sizes as plain bytes", true, false },
	{ OPT_SKIP, "skip-first", NULL, "leave out the line since boot", true, false },
	{ OPT_WAIT, "wait", NULL, "until it is done", true, false },
	{ OPT_SPACE, "space", "NAME", "of this space", false, false },
	{ OPT_GROUP, "group", "N", "of this block group", false, false },
	{ OPT_STATE, "state", "NAME", "in this state", false, false },
	{ OPT_TIER, "tier", "NAME", "with bytes in this tier", false, false },
	{ OPT_SESSION, "session", "ID", "of this session", false, false },
	{ OPT_LIMIT, "limit", "N", "at most so many rows [1000]", false, false },
	{ OPT_OFFSET, "offset", "N", "go on from there, as the listing before said", false, false },
	{ OPT_KEY, "key", "HEX", "the block of this key; needs --space", false, false },
	{ OPT_EPOCH, "epoch", "N", "the new epoch [the next]", false, false },
	{ OPT_ALL, "all", NULL, "of all spaces", false, false },
	{ OPT_PROM, "prom", NULL, "Prometheus text", false, false },
	{ OPT_OUTPUT, "output", "FILE", "write there [standard output]", false, false },
	{ OPT_COUNT, "count", "N", "stop after so many", false, false },
	{ OPT_BUFFER, "buffer", "BYTES", "the daemon's buffer for it [4M]", false, false },
	{ OPT_DATA, "data", NULL, "read every payload and compare its checksum", false, false },
	{ OPT_LIST, "list", NULL, "every noun, verb and option, one a line", false, false },
	{ 0, NULL, NULL, NULL, false, false },
};

/* ----------------------------------------------------------------- messages */

__attribute__((format(printf, 1, 0))) static void say(const char *fmt, va_list ap)
{
	fprintf(stderr, "%s: ", KVMD_KVCTL_NAME);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
}

int ctl_fail(int ret, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(fmt, ap);
	va_end(ap);
	return ret;
}

int ctl_usage(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(fmt, ap);
	va_end(ap);
	fprintf(stderr, "Try '%s help'.\n", KVMD_KVCTL_NAME);
	return CTL_USAGE;
}

/* ------------------------------------------------------------------ options */

/* Where the value of an option goes; NULL: it is a flag. */
static const char **value_of(struct ctl *k, int letter)
{
	switch (letter) {
	case 's': return &k->socket;
	case OPT_COLS: return &k->cols;
	case OPT_SPACE: return &k->space;
	case OPT_GROUP: return &k->group;
	case OPT_STATE: return &k->state;
	case OPT_SESSION: return &k->session;
	case OPT_TIER: return &k->tier;
	case OPT_LIMIT: return &k->limit;
	case OPT_OFFSET: return &k->offset;
	case OPT_KEY: return &k->key;
	case OPT_EPOCH: return &k->epoch;
	case OPT_OUTPUT: return &k->output;
	case OPT_COUNT: return &k->count;
	case OPT_BUFFER: return &k->buffer;
	default: return NULL;
	}
}

static bool *flag_of(struct ctl *k, int letter)
{
	switch (letter) {
	case 'j': return &k->json;
	case OPT_NO_HEADER: return &k->no_header;
	case OPT_BYTES: return &k->bytes;
	case OPT_SKIP: return &k->skip_first;
	case OPT_ALL: return &k->all;
	case OPT_PROM: return &k->prom;
	case OPT_LIST: return &k->list;
	case OPT_DATA: return &k->data;
	case OPT_WAIT: return &k->wait;
	default: return NULL;
	}
}

static const struct ctl_option *option_find(int letter)
{
	for (const struct ctl_option *o = ctl_options; o->name; o++)
		if (o->letter == letter)
			return o;
	return NULL;
}

struct parsed {
	char given[MAX_OPTIONS];	/* letters of verb options, in order */
	int nr_given;
	bool help;
};

static int take_option(struct ctl *k, int letter, struct parsed *p)
{
	const struct ctl_option *o = option_find(letter);
	const char **val = value_of(k, letter);
	bool *flag = flag_of(k, letter);
	uint64_t ns;

	if (letter == 't') {
		if (conf_parse_time(optarg, &ns) || ns < 1000000)
			return ctl_usage("--timeout: '%s' is not a time", optarg);
		k->timeout_ms = ns / 1000000;
		k->timeout_given = true;
	} else if (letter == 'h') {
		p->help = true;
	} else if (val) {
		*val = optarg;
	} else if (flag) {
		*flag = true;
	}
	if (!o->global && p->nr_given < MAX_OPTIONS)
		p->given[p->nr_given++] = (char)letter;
	return CTL_OK;
}

static int parse_options(struct ctl *k, int argc, char **argv, struct parsed *p)
{
	struct option lo[MAX_OPTIONS] = { 0 };
	char so[2 * MAX_OPTIONS + 2] = ":";
	size_t n = 0, at = 1;
	int c, err;

	for (const struct ctl_option *o = ctl_options; o->name; o++) {
		lo[n++] = (struct option) { o->name, o->arg != NULL, NULL, o->letter };
		if (!o->is_short)
			continue;
		so[at++] = (char)o->letter;
		if (o->arg)
			so[at++] = ':';
	}
	opterr = 0;
	optind = 1;
	while ((c = getopt_long(argc, argv, so, lo, NULL)) != -1) {
		if (c == ':')
			return ctl_usage("option '%s' needs a value", argv[optind - 1]);
		if (c == '?' && optopt && optopt < 128 && !option_find(optopt))
			return ctl_usage("no option '-%c'", optopt);
		if (c == '?')
			return ctl_usage("no option '%s'", argv[optind - 1]);
		err = take_option(k, c, p);
		if (err)
			return err;
	}
	return CTL_OK;
}

/* ----------------------------------------------------------------- dispatch */

const struct ctl_noun *ctl_noun_find(const char *noun)
{
	for (const struct ctl_noun *n = ctl_nouns; n->noun; n++)
		if (!strcmp(n->noun, noun))
			return n;
	return NULL;
}

static const struct ctl_verb *verb_find(const struct ctl_noun *n, const char *word)
{
	for (const struct ctl_verb *v = n->verbs; v->verb; v++)
		if (!strcmp(v->verb, word))
			return v;
	return NULL;
}

static int check_options(const struct ctl_noun *n, const struct ctl_verb *v,
			 const struct parsed *p)
{
	for (int i = 0; i < p->nr_given; i++)
		if (!strchr(v->opts, p->given[i]))
			return ctl_usage("%s %s takes no --%s", n->noun, v->verb,
					 option_find(p->given[i])->name);
	return CTL_OK;
}

static int run_words(struct ctl *k, int argc, char **argv, const struct parsed *p)
{
	const struct ctl_noun *n = ctl_noun_find(argc ? argv[0] : "status");
	const struct ctl_verb *v;
	int err;

	if (!n)
		return ctl_usage("no noun '%s'", argv[0]);
	if (p->help) {
		char *name[] = { (char *)(uintptr_t)n->noun };

		return ctl_help_verbs[0].run(k, argc ? 1 : 0, name);
	}
	v = argc > 1 ? verb_find(n, argv[1]) : NULL;
	if (v) {
		argc -= 2;
		argv += 2;
	} else {
		v = &n->verbs[0];
		argc -= argc > 0;
		argv++;
		if (argc > v->max_args && !v->max_args)
			return ctl_usage("no verb '%s' of %s", argv[0], n->noun);
	}
	if (argc < v->min_args || argc > v->max_args)
		return ctl_usage("usage: %s %s %s %s", KVMD_KVCTL_NAME, n->noun, v->verb, v->args);
	err = check_options(n, v, p);
	if (err)
		return err;
	k->verb = v;
	return v->run(k, argc, argv);
}

/* The socket when -s is not given; *@ret_own is freed by the caller. */
static const char *default_socket(char **ret_own)
{
	const char *admin = getenv("KVMD_ADMIN_SOCKET"), *sock = getenv("KVMD_SOCKET");

	if (admin && *admin)
		return admin;
	if (!sock || !*sock)
		return KVMD_DEFAULT_SOCKET ".admin";
	if (asprintf(ret_own, "%s.admin", sock) < 0)
		*ret_own = NULL;
	return *ret_own;
}

int ctl_main(int argc, char **argv)
{
	struct ctl k = { .timeout_ms = TIMEOUT_MS };
	struct parsed p = { 0 };
	char *own = NULL;
	int ret;

	k.socket = default_socket(&own);
	ret = parse_options(&k, argc, argv, &p);
	if (!ret)
		ret = k.socket ? run_words(&k, argc - optind, argv + optind, &p) : CTL_REFUSED;
	if ((fflush(stdout) || ferror(stdout)) && !ret)
		ret = ctl_fail(CTL_REFUSED, "standard output: %s", strerror(errno));
	free(own);
	return ret;
}
