/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iostat.c - kvctl iostat: what moves in and out of each tier.
 *
 * The daemon's totals, taken twice, are rates; the first lines count from its
 * start. Refusals by reason and errors are counts of the interval.
 */
#include "tools/kvctl/kvctl.h"

#define MAX_COLS	24
#define WIDTH		7

enum cell { CELL_NAME, CELL_RATE, CELL_BYTE_RATE, CELL_NOW, CELL_BYTES, CELL_COUNT, CELL_REASON };

/* @key: of the tier's row; CELL_REASON: end of the counters' names, "TIER_REFUSED_" before. */
static const struct column {
	const char *name, *key;
	enum cell cell;
	bool shown;
} columns[] = {
	{ "tier",	"tier",			CELL_NAME,	true },
	{ "used",	"used_bytes",		CELL_BYTES,	true },
	{ "free",	"free_bytes",		CELL_BYTES,	true },
	{ "in",		"in_blocks",		CELL_RATE,	true },
	{ "out",	"out_blocks",		CELL_RATE,	true },
	{ "in/s",	"in_bytes",		CELL_BYTE_RATE,	true },
	{ "out/s",	"out_bytes",		CELL_BYTE_RATE,	true },
	{ "fl_in",	"in_flight_bytes",	CELL_BYTES,	true },
	{ "fl_out",	"out_flight_bytes",	CELL_BYTES,	true },
	{ "q_in",	"in_queue_blocks",	CELL_NOW,	true },
	{ "q_out",	"out_queue_blocks",	CELL_NOW,	true },
	{ "refused",	"refused_blocks",	CELL_COUNT,	true },
	{ "advice",	"advice",		CELL_REASON,	false },
	{ "admission",	"admission",		CELL_REASON,	false },
	{ "full",	"full",			CELL_REASON,	false },
	{ "tenant",	"tenant",		CELL_REASON,	false },
	{ "slow",	"slow",			CELL_REASON,	false },
	{ "nomem",	"nomem",		CELL_REASON,	false },
	{ "errors",	"error_blocks",		CELL_COUNT,	true },
};

struct sample {
	const struct ctl *k;
	const struct column *cols[MAX_COLS];
	size_t nr;
	json_object *doc, *was;		/* this one, the one before; NULL: since the start */
	double seconds;			/* between the two */
	uint64_t nr_shown;
};

static int pick(struct sample *s)
{
	const char *p = s->k->cols;

	for (size_t i = 0; !p && i < ARRAY_SIZE(columns); i++)
		if (columns[i].shown)
			s->cols[s->nr++] = &columns[i];
	while (p && *p) {
		size_t len = strcspn(p, ","), i = 0;

		while (i < ARRAY_SIZE(columns) &&
		       (strncasecmp(columns[i].name, p, len) || columns[i].name[len]))
			i++;
		if (i == ARRAY_SIZE(columns)) {
			fprintf(stderr, "%s: no column '%.*s'; there are", KVMD_KVCTL_NAME,
				(int)len, p);
			for (i = 0; i < ARRAY_SIZE(columns); i++)
				fprintf(stderr, " %s", columns[i].name);
			fputc('\n', stderr);
			return CTL_USAGE;
		}
		if (s->nr < MAX_COLS)
			s->cols[s->nr++] = &columns[i];
		p += len + (p[len] == ',');
	}
	return CTL_OK;
}

/* ------------------------------------------------------------------- a line */

static json_object *tier_row(json_object *doc, const char *tier)
{
	json_object *rows = ctl_get(doc, "tiers");

	for (size_t i = 0; doc && i < json_object_array_length(rows); i++) {
		json_object *row = json_object_array_get_idx(rows, i);

		if (!strcmp(ctl_str(row, "tier"), tier))
			return row;
	}
	return NULL;
}

/* Refusals for one reason: those of loads are HBM's, of cleaning RAM's, of stores the disk's. */
static bool reason(json_object *doc, const char *tier, const char *why, uint64_t *ret_v)
{
	const char *move = !strcmp(tier, "hbm") ? "load" : !strcmp(tier, "ram") ? "clean" : "store";
	json_object *counters = doc ? ctl_get(doc, "counters") : NULL;
	char name[64];

	snprintf(name, sizeof(name), "%s_refused_%s", move, why);
	*ret_v = counters ? ctl_u64(counters, name) : 0;
	return counters && ctl_has(counters, name);
}

static void fmt_cell(const struct sample *s, const struct column *c, json_object *row,
		     json_object *was, char *buf, size_t n)
{
	const char *tier = ctl_str(row, "tier");
	uint64_t now = ctl_u64(row, c->key), before = was ? ctl_u64(was, c->key) : 0;
	double per_s = s->seconds > 0 ? (double)(now - before) / s->seconds : 0;

	switch (c->cell) {
	case CELL_NAME:
		snprintf(buf, n, "%s", tier);
		break;
	case CELL_RATE:
		ctl_fmt_count(s->k, per_s, buf, n);
		break;
	case CELL_BYTE_RATE:
		ctl_fmt_bytes(s->k, (uint64_t)per_s, buf, n);
		break;
	case CELL_BYTES:
		ctl_fmt_bytes(s->k, now, buf, n);
		break;
	case CELL_NOW:
		snprintf(buf, n, "%llu", (unsigned long long)now);
		break;
	case CELL_COUNT:
		snprintf(buf, n, "%llu", (unsigned long long)(now - before));
		break;
	case CELL_REASON:
		if (!reason(s->doc, tier, c->key, &now)) {
			snprintf(buf, n, "-");
			break;
		}
		reason(s->was, tier, c->key, &before);
		snprintf(buf, n, "%llu", (unsigned long long)(now - before));
		break;
	}
}

static int width(const struct column *c)
{
	return max((int)strlen(c->name), c->cell == CELL_NAME ? 4 : WIDTH);
}

static void put_cell(const struct sample *s, size_t i, const char *text)
{
	const struct column *c = s->cols[i];

	printf("%s%*s", i ? " " : "", c->cell == CELL_NAME ? -width(c) : width(c), text);
}

static void print_header(const struct sample *s)
{
	char head[32];

	for (size_t i = 0; i < s->nr; i++) {
		ctl_fmt_head(s->cols[i]->name, head, sizeof(head));
		put_cell(s, i, head);
	}
	putchar('\n');
}

static int begin(const struct ctl *k, void *ctx, json_object *doc)
{
	(void)doc;
	if (!k->no_header)
		print_header(ctx);
	return CTL_OK;
}

/* A line for each tier, an empty one between samples. */
static void print_sample(const struct ctl *k, void *ctx, json_object *doc, json_object *was)
{
	json_object *rows = ctl_get(doc, "tiers");
	struct sample *s = ctx;
	char cell[64];

	if (s->nr_shown++ && !k->no_header)
		putchar('\n');
	s->doc = doc;
	s->was = was;
	s->seconds = ctl_seconds(doc, was);
	for (size_t r = 0; r < json_object_array_length(rows); r++) {
		json_object *row = json_object_array_get_idx(rows, r);
		json_object *before = tier_row(was, ctl_str(row, "tier"));

		for (size_t i = 0; i < s->nr; i++) {
			fmt_cell(s, s->cols[i], row, before, cell, sizeof(cell));
			put_cell(s, i, cell);
		}
		putchar('\n');
	}
}

static int iostat_show(struct ctl *k, int argc, char **argv)
{
	struct sample cols = { .k = k };
	const struct ctl_sampler s = {
		.noun = "tier", .verb = "list", .ctx = &cols, .begin = begin, .show = print_sample,
	};
	uint64_t interval_ns = 0, count = 1;
	int ret = ctl_interval(k, "iostat", argc, argv, &interval_ns, &count);

	if (!ret)
		ret = pick(&cols);
	return ret ? ret : ctl_sample(k, &s, interval_ns, count);
}

const struct ctl_verb ctl_iostat_verbs[] = {
	{ "show", "[INTERVAL [COUNT]]", 0, 2, "onby",
	  "per tier: blocks and bytes a second, refusals", iostat_show },
	{ 0 },
};
