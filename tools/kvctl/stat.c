/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stat.c - kvctl stat: counters as rates (as zpool-iostat(8)), whole, or for
 * Prometheus.
 */
#include "tools/kvctl/kvctl.h"

#define MAX_COLS	40
#define MIN_WIDTH	7

/* Columns that are not a counter's name. */
static const struct {
	const char *name, *counter;
} brief[] = {
	{ "opens", "seq_opens" }, { "asked", "tokens_asked" }, { "hit%", NULL },
	{ "alloc", "blocks_allocated" }, { "publ", "blocks_published" },
	{ "merged", "blocks_merged" }, { "evict", "blocks_evicted" },
	{ "waits", "alloc_waits" }, { "entries", "entries" }, { "sess", "sessions" },
	{ "press", NULL },
};

/* More of them, printed when they are named. */
static const struct {
	const char *name, *counter;
} more[] = {
	{ "clean", "blocks_cleaned" }, { "store", "blocks_stored" },
	{ "fetch", "blocks_fetched" }, { "load", "blocks_loaded" },
	{ "stall", "load_stall_ns" }, { "badsum", "checksum_errors" },
};

/* One column: a counter's place in the document, or one of the others. */
struct column {
	char name[40];
	int counter;			/* index in "counters"; -1: none */
	enum { COL_RATE, COL_GAUGE, COL_HIT, COL_PRESSURE } kind;
};

static int counter_index(json_object *doc, const char *name)
{
	json_object *a = ctl_get(doc, "counters");

	for (size_t i = 0; i < json_object_array_length(a); i++)
		if (!strcmp(ctl_str(json_object_array_get_idx(a, i), "name"), name))
			return (int)i;
	return -1;
}

static uint64_t counter(json_object *doc, int i)
{
	if (!doc || i < 0)
		return 0;
	return ctl_u64(json_object_array_get_idx(ctl_get(doc, "counters"), (size_t)i), "value");
}

static uint64_t named(json_object *doc, const char *name)
{
	return doc ? counter(doc, counter_index(doc, name)) : 0;
}

/* ------------------------------------------------------------------ columns */

static bool make_column(json_object *doc, const char *name, size_t len, struct column *ret_c)
{
	struct column c = { .counter = -1 };
	const char *from = c.name;
	json_object *row;

	if (len >= sizeof(c.name))
		return false;
	memcpy(c.name, name, len);
	c.name[len] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(brief); i++)
		if (!strcmp(brief[i].name, c.name) && brief[i].counter)
			from = brief[i].counter;
	for (size_t i = 0; i < ARRAY_SIZE(more); i++)
		if (!strcmp(more[i].name, c.name))
			from = more[i].counter;
	if (!strcmp(c.name, "hit%")) {
		c.kind = COL_HIT;
	} else if (!strcmp(c.name, "press")) {
		c.kind = COL_PRESSURE;
	} else {
		c.counter = counter_index(doc, from);
		if (c.counter < 0)
			return false;
		row = json_object_array_get_idx(ctl_get(doc, "counters"), (size_t)c.counter);
		c.kind = !strcmp(ctl_str(row, "kind"), "gauge") ? COL_GAUGE : COL_RATE;
	}
	*ret_c = c;
	return true;
}

static int pick_columns(const struct ctl *k, json_object *doc, struct column *cols, int *ret_nr)
{
	const char *s = k->cols;
	int nr = 0;

	for (size_t i = 0; !s && i < ARRAY_SIZE(brief); i++)
		nr += make_column(doc, brief[i].name, strlen(brief[i].name), &cols[nr]);
	while (s && *s) {
		size_t len = strcspn(s, ",");

		if (nr == MAX_COLS || !make_column(doc, s, len, &cols[nr]))
			return ctl_usage("no column '%.*s': hit%%, press, or a counter of "
					 "`%s stat list`", (int)len, s, KVMD_KVCTL_NAME);
		nr++;
		s += len + (s[len] == ',');
	}
	*ret_nr = nr;
	return CTL_OK;
}

static int width(const struct column *c)
{
	return max((int)strlen(c->name), MIN_WIDTH);
}

static void fmt_column(const struct ctl *k, const struct column *c, json_object *doc,
		       json_object *was, double seconds, char *buf, size_t n)
{
	uint64_t v = counter(doc, c->counter) - counter(was, c->counter), asked;

	switch (c->kind) {
	case COL_RATE:
		ctl_fmt_count(k, seconds > 0 ? (double)v / seconds : 0, buf, n);
		break;
	case COL_GAUGE:
		ctl_fmt_count(k, (double)counter(doc, c->counter), buf, n);
		break;
	case COL_HIT:
		asked = named(doc, "tokens_asked") - named(was, "tokens_asked");
		v = named(doc, "tokens_hbm") - named(was, "tokens_hbm") +
		    named(doc, "tokens_ram") - named(was, "tokens_ram") +
		    named(doc, "tokens_disk") - named(was, "tokens_disk");
		if (asked)
			snprintf(buf, n, "%.1f", 100.0 * (double)v / (double)asked);
		else
			snprintf(buf, n, "-");
		break;
	default:
		snprintf(buf, n, "%s", ctl_str(doc, "pressure_level"));
		break;
	}
}

static void print_header(const struct column *cols, int nr)
{
	char head[sizeof(cols->name)];

	for (int i = 0; i < nr; i++) {
		ctl_fmt_head(cols[i].name, head, sizeof(head));
		printf("%s%*s", i ? " " : "", width(&cols[i]), head);
	}
	putchar('\n');
}

/* ------------------------------------------------------------------ samples */

struct columns {
	struct column col[MAX_COLS];
	int nr;
};

static int begin(const struct ctl *k, void *ctx, json_object *doc)
{
	struct columns *c = ctx;
	int ret = pick_columns(k, doc, c->col, &c->nr);

	if (!ret && !k->no_header)
		print_header(c->col, c->nr);
	return ret;
}

/* Rates since @was; NULL: since boot. */
static void print_line(const struct ctl *k, void *ctx, json_object *doc, json_object *was)
{
	const struct columns *c = ctx;
	double seconds = ctl_seconds(doc, was);
	char cell[64];

	for (int i = 0; i < c->nr; i++) {
		fmt_column(k, &c->col[i], doc, was, seconds, cell, sizeof(cell));
		printf("%s%*s", i ? " " : "", width(&c->col[i]), cell);
	}
	putchar('\n');
}

/* -------------------------------------------------------------------- verbs */

static void print_prom(json_object *doc)
{
	json_object *a = ctl_get(doc, "counters");

	for (size_t i = 0; i < json_object_array_length(a); i++) {
		json_object *c = json_object_array_get_idx(a, i);
		const char *name = ctl_str(c, "name");

		printf("# HELP kvmd_%s %s (%s)\n", name, ctl_str(c, "help"), ctl_str(c, "unit"));
		printf("# TYPE kvmd_%s %s\n", name, ctl_str(c, "kind"));
		printf("kvmd_%s %s\n", name, ctl_str(c, "value"));
	}
}

static int stat_show(struct ctl *k, int argc, char **argv)
{
	struct columns cols = { .nr = 0 };
	const struct ctl_sampler s = {
		.noun = "stat", .verb = "show", .ctx = &cols, .begin = begin, .show = print_line,
	};
	uint64_t interval_ns = 0, count = 1;
	json_object *doc;
	int ret = ctl_interval(k, "stat", argc, argv, &interval_ns, &count);

	if (ret)
		return ret;
	if (!k->prom)
		return ctl_sample(k, &s, interval_ns, count);
	ret = ctl_ask(k, "stat", "show", NULL, &doc);
	if (ret)
		return ret;
	print_prom(doc);
	json_object_put(doc);
	return CTL_OK;
}

static const struct ctl_col list_cols[] = {
	{ "name",	"name",		CTL_STR, true,	NULL },
	{ "value",	"value",	CTL_NUM, true,	NULL },
	{ "unit",	"unit",		CTL_STR, true,	NULL },
	{ "kind",	"kind",		CTL_STR, false,	NULL },
	{ "help",	"help",		CTL_STR, true,	NULL },
	{ 0 },
};

static int stat_list(struct ctl *k, int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return ctl_list(k, "stat", "show", NULL, "counters", list_cols);
}

const struct ctl_verb ctl_stat_verbs[] = {
	{ "show", "[INTERVAL [COUNT]]", 0, 2, "onbyM", "rates per second, a line each interval",
	  stat_show },
	{ "list", "", 0, 0, "onb", "every counter, whole", stat_list },
	{ 0 },
};
