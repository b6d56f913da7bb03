/* SPDX-License-Identifier: Apache-2.0 */
/*
 * table.c - rows of JSON as a table or a record, and how values read.
 */
#include <ctype.h>
#include <libsmartcols.h>

#include "tools/kvctl/kvctl.h"

#define MAX_COLS	40
#define CELL_BYTES	256

/* ------------------------------------------------------------------- values */

json_object *ctl_get(json_object *row, const char *key)
{
	json_object *v = NULL;

	return json_object_object_get_ex(row, key, &v) ? v : NULL;
}

bool ctl_has(json_object *row, const char *key)
{
	return ctl_get(row, key) != NULL;
}

uint64_t ctl_u64(json_object *row, const char *key)
{
	json_object *v = ctl_get(row, key);

	return v ? json_object_get_uint64(v) : 0;
}

const char *ctl_str(json_object *row, const char *key)
{
	json_object *v = ctl_get(row, key);

	return v ? json_object_get_string(v) : "";
}

void ctl_fmt_bytes(const struct ctl *k, uint64_t v, char *buf, size_t n)
{
	static const char units[] = "BKMGTPE";
	double d = (double)v;
	unsigned u = 0;

	while (d >= 1023.95 && u < sizeof(units) - 2) {
		d /= 1024;
		u++;
	}
	if (k->bytes)
		snprintf(buf, n, "%llu", (unsigned long long)v);
	else if (!u || d == (double)(uint64_t)d)
		snprintf(buf, n, "%llu%c", (unsigned long long)d, units[u]);
	else
		snprintf(buf, n, "%.1f%c", d, units[u]);
}

void ctl_fmt_ms(uint64_t ms, char *buf, size_t n)
{
	unsigned long long s = ms / 1000;

	if (ms < 1000)
		snprintf(buf, n, "%llums", (unsigned long long)ms);
	else if (s < 60)
		snprintf(buf, n, "%.1fs", (double)ms / 1000);
	else if (s < 3600)
		snprintf(buf, n, "%llum%02llus", s / 60, s % 60);
	else if (s < 86400)
		snprintf(buf, n, "%lluh%02llum", s / 3600, s / 60 % 60);
	else
		snprintf(buf, n, "%llud%02lluh", s / 86400, s / 3600 % 24);
}

void ctl_fmt_count(const struct ctl *k, double v, char *buf, size_t n)
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

void ctl_fmt_head(const char *name, char *buf, size_t n)
{
	size_t i;

	for (i = 0; name[i] && i < n - 1; i++)
		buf[i] = (char)toupper((unsigned char)name[i]);
	buf[i] = '\0';
}

static void fmt_list(json_object *v, char *buf, size_t n)
{
	size_t len = 0;

	buf[0] = '\0';
	for (size_t i = 0; i < json_object_array_length(v) && len < n; i++)
		len += (size_t)snprintf(buf + len, n - len, "%s%s", i ? "," : "",
					json_object_get_string(json_object_array_get_idx(v, i)));
	if (!buf[0])
		snprintf(buf, n, "-");
}

static void fmt_cell(const struct ctl *k, json_object *row, const struct ctl_col *c, char *buf,
		     size_t n)
{
	json_object *v;

	if (c->fn) {
		c->fn(k, row, buf, n);
		return;
	}
	v = ctl_get(row, c->key);
	if (!v || (c->type == CTL_LIMIT && !json_object_get_uint64(v)))
		snprintf(buf, n, "-");
	else if (c->type == CTL_BYTES || c->type == CTL_LIMIT)
		ctl_fmt_bytes(k, json_object_get_uint64(v), buf, n);
	else if (c->type == CTL_MS)
		ctl_fmt_ms(json_object_get_uint64(v), buf, n);
	else if (c->type == CTL_BOOL)
		snprintf(buf, n, "%s", json_object_get_boolean(v) ? "yes" : "no");
	else if (c->type == CTL_LIST)
		fmt_list(v, buf, n);
	else
		snprintf(buf, n, "%s", json_object_get_string(v));
	if (!buf[0])
		snprintf(buf, n, "-");
}

void ctl_print_json(json_object *doc)
{
	puts(json_object_to_json_string_ext(doc, JSON_C_TO_STRING_PRETTY |
					    JSON_C_TO_STRING_SPACED |
					    JSON_C_TO_STRING_NOSLASHESCAPE));
}

/* ------------------------------------------------------------------ columns */

static int unknown_column(const struct ctl_col *cols, const char *name, size_t len)
{
	fprintf(stderr, "%s: no column '%.*s'; there are", KVMD_KVCTL_NAME, (int)len, name);
	for (; cols->name; cols++)
		fprintf(stderr, " %s", cols->name);
	fputc('\n', stderr);
	return CTL_USAGE;
}

/* Columns to print, in order. */
static int pick(struct ctl *k, const struct ctl_col *cols, bool all, const struct ctl_col **out,
		size_t *ret_nr)
{
	const char *s = k->cols;
	size_t nr = 0;

	if (!s) {
		for (; cols->name && nr < MAX_COLS; cols++)
			if (all || cols->shown)
				out[nr++] = cols;
		*ret_nr = nr;
		return CTL_OK;
	}
	while (*s) {
		size_t len = strcspn(s, ",");
		const struct ctl_col *c = cols;

		while (c->name && (strncasecmp(c->name, s, len) || c->name[len]))
			c++;
		if (!c->name)
			return unknown_column(cols, s, len);
		if (nr < MAX_COLS)
			out[nr++] = c;
		s += len + (s[len] == ',');
	}
	if (!nr)
		return ctl_usage("-o names no column");
	*ret_nr = nr;
	return CTL_OK;
}

static bool is_number(const struct ctl_col *c)
{
	return c->type == CTL_NUM || c->type == CTL_BYTES || c->type == CTL_LIMIT ||
	       c->type == CTL_MS;
}

static int new_column(struct libscols_table *tb, const struct ctl_col *c)
{
	char head[64];

	ctl_fmt_head(c->name, head, sizeof(head));
	return scols_table_new_column(tb, head, 0, is_number(c) ? SCOLS_FL_RIGHT : 0) ? 0 : -ENOMEM;
}

static int add_row(struct ctl *k, struct libscols_table *tb, json_object *row,
		   const struct ctl_col **cols, size_t nr)
{
	struct libscols_line *line = scols_table_new_line(tb, NULL);
	char cell[CELL_BYTES];

	for (size_t i = 0; line && i < nr; i++) {
		fmt_cell(k, row, cols[i], cell, sizeof(cell));
		if (scols_line_set_data(line, i, cell))
			return -ENOMEM;
	}
	return line ? 0 : -ENOMEM;
}

int ctl_table(struct ctl *k, json_object *doc, const char *key, const struct ctl_col *cols)
{
	const struct ctl_col *pickd[MAX_COLS];
	json_object *rows = ctl_get(doc, key);
	struct libscols_table *tb;
	size_t nr = 0, nr_rows;
	int err = 0, ret = pick(k, cols, false, pickd, &nr);

	if (ret)
		return ret;
	if (!json_object_is_type(rows, json_type_array))
		return ctl_fail(CTL_REFUSED, "the answer has no '%s'", key);
	nr_rows = json_object_array_length(rows);
	tb = scols_new_table();
	if (!tb)
		return ctl_fail(CTL_REFUSED, "out of memory");
	scols_table_enable_noheadings(tb, k->no_header);
	for (size_t i = 0; !err && i < nr; i++)
		err = new_column(tb, pickd[i]);
	for (size_t i = 0; !err && i < nr_rows; i++)
		err = add_row(k, tb, json_object_array_get_idx(rows, i), pickd, nr);
	if (!err && nr_rows)
		err = scols_print_table(tb);
	else if (!err && !k->no_header)	/* libsmartcols prints nothing without rows */
		for (size_t i = 0; i < nr; i++)
			printf("%s%s", scols_cell_get_data(scols_column_get_header(
			       scols_table_get_column(tb, i))), i + 1 < nr ? " " : "\n");
	scols_unref_table(tb);
	return err ? ctl_fail(CTL_REFUSED, "the table cannot be printed") : CTL_OK;
}

int ctl_record(struct ctl *k, json_object *row, const struct ctl_col *cols)
{
	const struct ctl_col *pickd[MAX_COLS];
	char cell[CELL_BYTES];
	int width = 0, ret;
	size_t nr = 0;

	ret = pick(k, cols, true, pickd, &nr);
	for (size_t i = 0; i < nr; i++)
		width = max(width, (int)strlen(pickd[i]->name));
	for (size_t i = 0; !ret && i < nr; i++) {
		fmt_cell(k, row, pickd[i], cell, sizeof(cell));
		if (k->no_header)
			printf("%s\n", cell);
		else
			printf("%-*s  %s\n", width, pickd[i]->name, cell);
	}
	return ret;
}

void ctl_note_next(json_object *doc)
{
	if (ctl_has(doc, "next"))
		fprintf(stderr, "%s: there is more: --offset %s\n", KVMD_KVCTL_NAME,
			ctl_str(doc, "next"));
}

int ctl_list(struct ctl *k, const char *noun, const char *verb, const char *const *kv,
	     const char *key, const struct ctl_col *cols)
{
	json_object *doc;
	int ret = ctl_ask(k, noun, verb, kv, &doc);

	if (ret)
		return ret;
	if (k->json) {
		ctl_print_json(doc);
	} else {
		ret = ctl_table(k, doc, key, cols);
		ctl_note_next(doc);
	}
	json_object_put(doc);
	return ret;
}

int ctl_show(struct ctl *k, const char *noun, const char *const *kv, const struct ctl_col *cols,
	     const char *key, const struct ctl_col *row_cols)
{
	json_object *doc;
	int ret = ctl_ask(k, noun, "show", kv, &doc);

	if (ret)
		return ret;
	if (k->json) {
		ctl_print_json(doc);
	} else {
		ret = ctl_record(k, doc, cols);
		if (!ret && !k->cols) {
			putchar('\n');
			ret = ctl_table(k, doc, key, row_cols);
		}
	}
	json_object_put(doc);
	return ret;
}

int ctl_view(struct ctl *k, const char *noun, const char *verb, const char *const *kv,
	     int (*text)(struct ctl *k, json_object *doc))
{
	json_object *doc;
	int ret = ctl_ask(k, noun, verb, kv, &doc);

	if (ret)
		return ret;
	if (k->json)
		ctl_print_json(doc);
	else
		ret = text(k, doc);
	json_object_put(doc);
	return ret;
}

int ctl_act(struct ctl *k, const char *noun, const char *verb, const char *const *kv,
	    const char *text, const char *member)
{
	json_object *doc;
	int ret = ctl_ask(k, noun, verb, kv, &doc);

	if (ret)
		return ret;
	if (k->json)
		ctl_print_json(doc);
	else
		printf("%s%s\n", text, *member ? ctl_str(doc, member) : "");
	json_object_put(doc);
	return CTL_OK;
}
