/* SPDX-License-Identifier: Apache-2.0 */
/*
 * explain.c - kvctl explain: why a key list hits or misses.
 */
#include "tools/kvctl/kvctl.h"

static const struct ctl_col cols[] = {
	{ "position",	"position",	CTL_NUM,	true,	NULL },
	{ "key",	"key",		CTL_STR,	true,	NULL },
	{ "hit",	"hit",		CTL_BOOL,	true,	NULL },
	{ "reason",	"reason",	CTL_STR,	true,	NULL },
	{ "block",	"block",	CTL_NUM,	true,	NULL },
	{ "tier",	"tier",		CTL_STR,	true,	NULL },
	{ "slot",	"slot",		CTL_NUM,	false,	NULL },
	{ "leases",	"leases",	CTL_NUM,	true,	NULL },
	{ "uses",	"uses",		CTL_NUM,	true,	NULL },
	{ "last_used",	"last_used_ms",	CTL_MS,		true,	NULL },
	{ 0 },
};

/* One key a line; blank lines do not count. */
static int read_keys(struct ctl_keys *keys)
{
	char *line = NULL;
	size_t cap = 0;
	int ret = CTL_OK;

	while (!ret && getline(&line, &cap, stdin) > 0) {
		line[strcspn(line, " \t\r\n")] = '\0';
		if (*line)
			ret = ctl_keys_add(keys, line);
	}
	free(line);
	return ret;
}

static json_object *first_miss(json_object *doc)
{
	json_object *a = ctl_get(doc, "keys");

	for (size_t i = 0; i < json_object_array_length(a); i++) {
		json_object *row = json_object_array_get_idx(a, i);

		if (!json_object_get_boolean(ctl_get(row, "hit")))
			return row;
	}
	return NULL;
}

/* In words what the reason of the first miss means. */
static const char *reason_text(const char *reason)
{
	static const char *const text[][2] = {
		{ "never", "was never published, as far as known" },
		{ "evicted", "was here and was reclaimed" },
		{ "dropped", "was dropped by advice, its ttl or an operator" },
		{ "epoch", "is of a former epoch" },
		{ "pending", "is being published right now" },
		{ "refused", "is in a lower tier, but recomputing is faster" },
		{ "expired", "is here, but its ttl is over" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(text); i++)
		if (!strcmp(text[i][0], reason))
			return text[i][1];
	return reason;
}

/* ": 3 in HBM, 1 loading", when not all are in HBM. */
static void print_tiers(json_object *doc, uint64_t hits)
{
	static const char *const part[][2] = {
		{ "hbm_hits", "in HBM" }, { "ram_hits", "in RAM" }, { "disk_hits", "on disk" },
		{ "loading_hits", "loading" },
	};
	bool first = true;

	if (ctl_u64(doc, "hbm_hits") == hits)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(part); i++) {
		uint64_t v = ctl_u64(doc, part[i][0]);

		if (!v)
			continue;
		printf("%s %llu %s", first ? ":" : ",", (unsigned long long)v, part[i][1]);
		first = false;
	}
}

static void print_summary(json_object *doc)
{
	json_object *miss = first_miss(doc);
	uint64_t hits = ctl_u64(doc, "leading_hits");
	char ago[32];

	printf("\n%llu of %s keys hit: %llu tokens", (unsigned long long)hits,
	       ctl_str(doc, "asked_keys"),
	       (unsigned long long)(hits * ctl_u64(doc, "block_tokens")));
	print_tiers(doc, hits);
	putchar('.');
	if (miss) {
		printf(" Key %s %s", ctl_str(miss, "position"),
		       reason_text(ctl_str(miss, "reason")));
		if (ctl_has(miss, "last_used_ms")) {
			ctl_fmt_ms(ctl_u64(miss, "last_used_ms"), ago, sizeof(ago));
			printf(", last used %s ago", ago);
		}
		putchar('.');
	}
	putchar('\n');
}

static int explain_text(struct ctl *k, json_object *doc)
{
	int ret = ctl_table(k, doc, "keys", cols);

	if (!ret && !k->no_header)
		print_summary(doc);
	return ret;
}

static int explain_keys(struct ctl *k, const char *space, const char *keys)
{
	const char *kv[] = { "space", space, "group", k->group, "keys", keys, NULL };

	return ctl_view(k, "explain", "run", kv, explain_text);
}

static int explain_run(struct ctl *k, int argc, char **argv)
{
	struct ctl_keys keys;
	int ret = ctl_keys_init(&keys);

	if (ret)
		return ret;
	if (argc == 1 || (argc == 2 && !strcmp(argv[1], "-")))
		ret = read_keys(&keys);
	else
		for (int i = 1; !ret && i < argc; i++)
			ret = ctl_keys_add(&keys, argv[i]);
	if (!ret && !keys.len)
		ret = ctl_usage("explain: no key");
	if (!ret)
		ret = explain_keys(k, argv[0], keys.buf);
	free(keys.buf);
	return ret;
}

const struct ctl_verb ctl_explain_verbs[] = {
	{ "run", "SPACE [KEY...]", 1, 4096, "onbG", "walk the keys (or those on standard input)",
	  explain_run },
	{ 0 },
};
