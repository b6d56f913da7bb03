/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rows.c - values of what is measured, and how they are shown; rows.h has the terms.
 */
#include <stdlib.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "kvmd/lib/json.h"
#include "tools/kvbench/kvbench.h"

#define MAX_ROUNDS	1000
#define KEY_BYTES	64

static const struct {
	enum part part;
	const char *name;
} sections[] = {
	{ PART_RING, "rings" }, { PART_OPS, "operations" }, { PART_WAKE, "waking and sending" },
	{ PART_IDLE, "idle" }, { PART_PEERS, "beside others" }, { PART_HASH, "keys" },
	{ PART_BIG, "a large pool" }, { PART_TIER, "tiers" }, { PART_GPU, "a GPU" },
	{ PART_CODEC, "codecs" }, { PART_KERNELS, "attention on this processor" },
	{ PART_INFER, "an engine on this processor" },
};

enum { COL_FLOOR, COL_OURS, COL_RATIO, NR_COL };

static struct row {
	double *v[NR_COL];	/* per round */
	unsigned nr;
	const char *skipped;
} rows[NR_ROW];

static int cmp_double(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double kvb_median(double *v, unsigned n)
{
	qsort(v, n, sizeof(*v), cmp_double);
	return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

void take_turns(struct turn *t, unsigned nr)
{
	double v[8][NR_SLICES];

	for (unsigned s = 0; s < NR_SLICES; s++)
		for (unsigned i = 0; i < nr; i++)
			v[i][s] = t[i].fn(t[i].ctx);
	for (unsigned i = 0; i < nr; i++)
		t[i].ret = kvb_median(v[i], NR_SLICES);
}

void row_add(enum row_id r, double floor, double ours)
{
	struct row *w = &rows[r];

	for (int c = 0; c < NR_COL && !w->v[c]; c++) {
		w->v[c] = (double *)calloc(MAX_ROUNDS, sizeof(double));
		if (!w->v[c])
			kvb_die("no memory");
	}
	if (w->nr == MAX_ROUNDS)
		return;
	w->v[COL_FLOOR][w->nr] = floor;
	w->v[COL_OURS][w->nr] = ours;
	w->v[COL_RATIO][w->nr++] = row_defs[r].inverse ? floor / ours : ours / floor;
}

void rows_skip(enum row_id r, const char *why)
{
	rows[r].skipped = why;
}

void rows_skip_part(enum part part, const char *why)
{
	for (int r = 0; r < NR_ROW; r++)
		if (row_defs[r].part == part)
			rows[r].skipped = why;
}

/* Median, least and most of one column. */
static void spread(enum row_id r, int col, double ret[3])
{
	unsigned n = rows[r].nr;
	double v[MAX_ROUNDS];

	memcpy(v, rows[r].v[col], n * sizeof(*v));
	ret[0] = kvb_median(v, n);
	ret[1] = v[0];
	ret[2] = v[n - 1];
}

static bool is_least(enum goal g)
{
	return g == GOAL_RATIO_MIN || g == GOAL_OURS_MIN;
}

static bool is_of_ours(enum goal g)
{
	return g == GOAL_OURS_MAX || g == GOAL_OURS_MIN;
}

static double judged(enum row_id r)
{
	double s[3];

	spread(r, is_of_ours(row_defs[r].goal) ? COL_OURS : COL_RATIO, s);
	return s[0];
}

/* The must and the aim, in words. */
static const char *verdict(enum row_id r)
{
	const struct row_def *d = &row_defs[r];
	double v = judged(r), aim = d->aim > 0 ? d->aim : d->must;
	bool least = is_least(d->goal);

	if (one_cpu)
		return "not judged on one processor";
	if (least ? v < d->must : v > d->must)
		return "missed";
	return (least ? v >= aim : v <= aim) ? "holds" : "must holds, aim missed";
}

/* ---------------------------------------------------------------- text */

static void format_value(char *buf, size_t n, const double s[3], const char *unit)
{
	bool ns = !strncmp(unit, "ns", 2);

	if (ns && s[0] >= 100)
		snprintf(buf, n, "%.0f (%.0f - %.0f)", s[0], s[1], s[2]);
	else if (ns)
		snprintf(buf, n, "%.1f (%.1f - %.1f)", s[0], s[1], s[2]);
	else if (!strcmp(unit, "M/s") || !strcmp(unit, "GB/s") || !strcmp(unit, "x"))
		snprintf(buf, n, "%.2f (%.2f - %.2f)", s[0], s[1], s[2]);
	else
		snprintf(buf, n, "%.4g (%.4g - %.4g)", s[0], s[1], s[2]);
}

static void format_goal(char *buf, size_t n, const struct row_def *d)
{
	const char *op = is_least(d->goal) ? ">=" : "<=";

	if (d->goal == GOAL_NONE)
		buf[0] = 0;
	else if (d->aim > 0)
		snprintf(buf, n, "%s %g (aim %g)", op, d->must, d->aim);
	else
		snprintf(buf, n, "%s %g", op, d->must);
}

static void print_row(enum row_id r)
{
	const struct row_def *d = &row_defs[r];
	char f[64] = "", o[64], q[64] = "", g[48], what[64];
	double s[3];

	snprintf(what, sizeof(what), "%s, %s", d->what, d->unit);
	if (!rows[r].nr) {
		if (rows[r].skipped && d->part == PART_GPU)
			printf("SKIP: %s: %s\n", what, rows[r].skipped);
		else if (rows[r].skipped)
			printf("  %-44s not measured: %s\n", what, rows[r].skipped);
		return;
	}
	spread(r, COL_OURS, s);
	format_value(o, sizeof(o), s, d->unit);
	if (d->floor) {
		spread(r, COL_FLOOR, s);
		format_value(f, sizeof(f), s, d->unit);
		spread(r, COL_RATIO, s);
		format_value(q, sizeof(q), s, "x");
	}
	format_goal(g, sizeof(g), d);
	printf("  %-44s %-24s %-24s %-24s %s%s%s\n", what, f, o, q, g, g[0] ? ": " : "",
	       g[0] ? verdict(r) : "");
	if (d->floor)
		printf("    beside: %s\n", d->floor);
}

/* What was measured, in words: a line for each thing. */
static void print_about(enum part part)
{
	const char *s = part == PART_GPU ? bench.gpu : part == PART_KERNELS ? bench.kernels :
			part == PART_INFER ? bench.infer : "";

	while (*s) {
		size_t n = strcspn(s, ";");

		printf("  %.*s\n", (int)n, s);
		s += n;
		s += strspn(s, "; ");
	}
}

void rows_print_text(void)
{
	printf("  %-44s %-24s %-24s %-24s %s\n", "median (least - most of the rounds)", "floor",
	       "ours", "ratio", "goal");
	for (size_t i = 0; i < ARRAY_SIZE(sections); i++) {
		if (!(bench.parts & sections[i].part))
			continue;
		printf("%s\n", sections[i].name);
		print_about(sections[i].part);
		for (int r = 0; r < NR_ROW; r++)
			if (row_defs[r].part == sections[i].part)
				print_row((enum row_id)r);
	}
}

/* ---------------------------------------------------------------- JSON */

static void json_spread(struct json *j, const char *key, const double s[3])
{
	static const char *const suffix[3] = { "", "_min", "_max" };
	char k[KEY_BYTES];

	for (int i = 0; i < 3; i++) {
		snprintf(k, sizeof(k), "%s%s", key, suffix[i]);
		json_f64(j, k, s[i]);
	}
}

static void json_col(struct json *j, const char *name, enum row_id r, int col)
{
	double s[3];

	spread(r, col, s);
	json_obj(j, name);
	json_f64(j, "median", s[0]);
	json_f64(j, "min", s[1]);
	json_f64(j, "max", s[2]);
	json_arr(j, "rounds");
	for (unsigned i = 0; i < rows[r].nr; i++)
		json_f64(j, NULL, rows[r].v[col][i]);
	json_arr_end(j);
	json_obj_end(j);
}

static void json_row(struct json *j, enum row_id r)
{
	const struct row_def *d = &row_defs[r];

	json_obj(j, NULL);
	json_str(j, "what", d->what);
	json_str(j, "unit", d->unit);
	json_str(j, "beside", d->floor);
	if (!rows[r].nr) {
		json_str(j, "not_measured", rows[r].skipped);
		json_obj_end(j);
		return;
	}
	json_col(j, "ours", r, COL_OURS);
	if (d->floor) {
		json_col(j, "floor", r, COL_FLOOR);
		json_col(j, "ratio", r, COL_RATIO);
	}
	if (d->goal != GOAL_NONE) {
		json_str(j, "goal", is_least(d->goal) ? "at_least" : "at_most");
		json_str(j, "goal_of", is_of_ours(d->goal) ? "ours" : "ratio");
		json_f64(j, "must", d->must);
		json_f64(j, "aim", d->aim > 0 ? d->aim : d->must);
		json_str(j, "verdict", verdict(r));
	}
	json_obj_end(j);
}

/* A row's keys at the top of the document. */
static void json_keys(struct json *j, enum row_id r)
{
	const struct row_def *d = &row_defs[r];
	const char *const key[NR_COL] = { d->floor_key, d->ours_key, d->ratio_key };
	double s[3];

	for (int c = 0; c < NR_COL; c++) {
		if (!key[c] || (!rows[r].nr && !rows[r].skipped))
			continue;
		if (!rows[r].nr) {
			json_null(j, key[c]);
			continue;
		}
		spread(r, c, s);
		json_spread(j, key[c], s);
		if (!strcmp(key[c], "batch32_mops_per_s")) {
			for (int i = 0; i < 3; i++)
				s[i] *= 1e6;
			json_spread(j, "batch32_ops_per_s", s);
		}
	}
}

int rows_print_json(double calib, unsigned dropped, unsigned noisy)
{
	struct utsname u;
	struct json j;
	int err;

	json_init(&j);
	json_obj(&j, NULL);
	json_u64(&j, "schema", 1);
	json_str(&j, "version", KVMD_VERSION);
	uname(&u);
	json_str(&j, "kernel", u.release);
	json_i64(&j, "processors", sysconf(_SC_NPROCESSORS_ONLN));
	json_str(&j, "pinned", cpus_text());
	json_bool(&j, "quick", bench.quick);
	json_u64(&j, "rounds", bench.rounds);
	json_u64(&j, "rounds_put_off", dropped);
	json_u64(&j, "rounds_noisy", noisy);
	json_f64(&j, "calib_worst_over_median", calib);
	json_f64(&j, "idle_s", (double)bench.idle_ns / 1e9);
	json_u64(&j, "big_blocks", bench.big_blocks);
	if (bench.parts & PART_GPU)
		json_str(&j, "gpu", bench.gpu);
	if (bench.parts & PART_KERNELS)
		json_str(&j, "kernels", bench.kernels);
	if (bench.parts & PART_INFER)
		json_str(&j, "infer", bench.infer);
	for (int r = 0; r < NR_ROW; r++)
		if (bench.parts & row_defs[r].part)
			json_keys(&j, (enum row_id)r);
	json_arr(&j, "rows");
	for (int r = 0; r < NR_ROW; r++)
		if (bench.parts & row_defs[r].part)
			json_row(&j, (enum row_id)r);
	json_arr_end(&j);
	json_obj_end(&j);
	err = j.err;
	if (!err)
		puts(j.buf);
	json_exit(&j);
	return err;
}
