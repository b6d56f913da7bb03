/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stat.c - kvctl stat: counters as rates (as zpool-iostat(8)), whole, or for
 * Prometheus.
 */
#include <ctype.h>
#include <time.h>

#include "kvmd/lib/conf.h"
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

static int pick_columns(struct ctl *k, json_object *doc, struct column *cols, int *ret_nr)
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

static void fmt_count(const struct ctl *k, double v, char *buf, size_t n)
{
	static const char units[] = " KMGTPE";
	unsigned u = 0;

	while (!k->bytes && v >= 9999.5 && u < sizeof(units) - 2) {
		v /= 1000;
		u++;
	}
	if (u)
		snprintf(buf, n, "%.1f%c", v, units[u]);
	else
		snprintf(buf, n, v >= 100 || v == (double)(uint64_t)v ? "%.0f" : "%.1f", v);
}

static void fmt_column(const struct ctl *k, const struct column *c, json_object *doc,
		       json_object *was, double seconds, char *buf, size_t n)
{
	uint64_t v = counter(doc, c->counter) - counter(was, c->counter), asked;

	switch (c->kind) {
	case COL_RATE:
		fmt_count(k, seconds > 0 ? (double)v / seconds : 0, buf, n);
		break;
	case COL_GAUGE:
		fmt_count(k, (double)counter(doc, c->counter), buf, n);
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
	for (int i = 0; i < nr; i++) {
		printf("%s%*s", i ? " " : "", width(&cols[i]) - (int)strlen(cols[i].name), "");
		for (const char *s = cols[i].name; *s; s++)
			putchar(toupper((unsigned char)*s));
	}
	putchar('\n');
}

/* Rates since @was; NULL: since boot. */
static void print_line(const struct ctl *k, const struct column *cols, int nr, json_object *doc,
		       json_object *was)
{
	uint64_t from = was ? ctl_u64(was, "now_ns") : ctl_u64(doc, "boot_ns");
	double seconds = (double)(ctl_u64(doc, "now_ns") - from) / 1e9;
	char cell[64];

	for (int i = 0; i < nr; i++) {
		fmt_column(k, &cols[i], doc, was, seconds, cell, sizeof(cell));
		printf("%s%*s", i ? " " : "", width(&cols[i]), cell);
	}
	putchar('\n');
	fflush(stdout);
}

/* -------------------------------------------------------------------- verbs */

static int print_prom(json_object *doc)
{
	json_object *a = ctl_get(doc, "counters");

	for (size_t i = 0; i < json_object_array_length(a); i++) {
		json_object *c = json_object_array_get_idx(a, i);
		const char *name = ctl_str(c, "name");

		printf("# HELP kvmd_%s %s (%s)\n", name, ctl_str(c, "help"), ctl_str(c, "unit"));
		printf("# TYPE kvmd_%s %s\n", name, ctl_str(c, "kind"));
		printf("kvmd_%s %s\n", name, ctl_str(c, "value"));
	}
	return CTL_OK;
}

static int ask_once(struct ctl *k, json_object **ret_doc)
{
	return ctl_ask(k, "stat", "show", NULL, ret_doc);
}

void ctl_sleep_until(struct timespec *at, uint64_t interval_ns)
{
	at->tv_sec += (time_t)(interval_ns / 1000000000);
	at->tv_nsec += (long)(interval_ns % 1000000000);
	if (at->tv_nsec >= 1000000000) {
		at->tv_sec++;
		at->tv_nsec -= 1000000000;
	}
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, at, NULL) == EINTR)
		;
}

/* Print @count samples, @interval_ns apart; the first one counts from boot on. */
static int sample(struct ctl *k, uint64_t interval_ns, uint64_t count)
{
	struct column cols[MAX_COLS];
	json_object *doc, *was = NULL;
	struct timespec at;
	int nr = 0, ret;

	clock_gettime(CLOCK_MONOTONIC, &at);
	for (uint64_t i = 0; ; i++) {
		ret = ask_once(k, &doc);
		if (ret)
			break;
		if (was && ctl_u64(was, "boot_ns") != ctl_u64(doc, "boot_ns")) {
			json_object_put(was);	/* another daemon: from its start on */
			was = NULL;
		}
		if (!i && !k->json)
			ret = pick_columns(k, doc, cols, &nr);
		if (!i && !ret && !k->json && !k->no_header)
			print_header(cols, nr);
		if (!ret && (i || !k->skip_first)) {
			if (k->json)
				ctl_print_json(doc);
			else
				print_line(k, cols, nr, doc, was);
		}
		json_object_put(was);
		was = doc;
		if (ret || i + 1 >= count)
			break;
		fflush(stdout);
		ctl_sleep_until(&at, interval_ns);
	}
	json_object_put(was);
	return ret;
}

int ctl_interval(struct ctl *k, const char *noun, int argc, char **argv, uint64_t *ret_ns,
		 uint64_t *ret_count)
{
	uint64_t count = argc > 0 ? UINT64_MAX : 1;

	if (argc > 0 && (conf_parse_time(argv[0], ret_ns) || !*ret_ns))
		return ctl_usage("'%s' is no interval and no verb of %s", argv[0], noun);
	if (argc > 1 && (conf_parse_u64(argv[1], &count) || !count))
		return ctl_usage("'%s' is no count", argv[1]);
	*ret_count = count + (k->skip_first && count != UINT64_MAX);
	return CTL_OK;
}

static int stat_show(struct ctl *k, int argc, char **argv)
{
	uint64_t interval_ns = 0, count = 1;
	int err = ctl_interval(k, "stat", argc, argv, &interval_ns, &count);

	if (err)
		return err;
	if (k->prom) {
		json_object *doc;
		int ret = ask_once(k, &doc);

		if (!ret)
			ret = print_prom(doc);
		if (!ret)
			json_object_put(doc);
		return ret;
	}
	return sample(k, interval_ns, count);
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
