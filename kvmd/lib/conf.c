// SPDX-License-Identifier: Apache-2.0
/*
 * conf.c - options from a file or from an assignment, through one table.
 *
 * libinih reads the syntax. Lines reach it through read_line(), which counts
 * them, takes the leading blanks away (inih would join an indented line to
 * the value above it) and meets the sections first, so that an unknown one is
 * reported at its own line and an empty one still exists. Only the first
 * error of a file is reported. Start-up and reload, core thread only.
 */
#include "kvmd/lib/conf_value.h"
#include "kvmd/lib/err.h"
#include "kvmd/lib/mem.h"

#include <ini.h>
#include <stdarg.h>
#include <stdio.h>

#define NAME_BYTES	50	/* inih's limit for sections and keys, with the NUL */

/* One option that the file has set: to find what is given twice. */
struct seen {
	const struct conf_opt *opt;
	const void *base;
	unsigned line;
};

struct loader {
	const struct conf_table *t;
	void *ctx;
	const char *path;
	FILE *f;
	unsigned line;			/* the one being read */
	unsigned err_line;		/* of the first error; 0: none */
	int err;
	char section[NAME_BYTES];	/* kind of the current section */
	char name[NAME_BYTES];		/* its name; "" when plain */
	void *base;			/* its struct; NULL before the first section */
	struct seen *seen;
	size_t nr_seen, cap_seen;
	char *msg;
	size_t msg_bytes;
};

/* Words */

static bool has_section(const struct conf_table *t, const char *section)
{
	size_t i;

	for (i = 0; i < t->nr_opts; i++) {
		if (!strcmp(t->opts[i].section, section))
			return true;
	}
	return false;
}

static const struct conf_opt *find_opt(const struct conf_table *t, const char *section,
				       const char *key)
{
	size_t i;

	for (i = 0; i < t->nr_opts; i++) {
		if (!strcmp(t->opts[i].section, section) && !strcmp(t->opts[i].key, key))
			return &t->opts[i];
	}
	return NULL;
}

/* "a, b, c": the keys of @section, or the sections when it is NULL. */
static void list_words(const struct conf_table *t, const char *section, char *buf, size_t bytes)
{
	size_t i, k;

	buf[0] = '\0';
	for (i = 0; i < t->nr_opts; i++) {
		const struct conf_opt *o = &t->opts[i];

		if (section && strcmp(o->section, section))
			continue;
		for (k = 0; !section && k < i; k++) {
			if (!strcmp(t->opts[k].section, o->section))
				break;
		}
		if (!section && k < i)
			continue;
		conf_append(buf, bytes, "%s%s", buf[0] ? ", " : "", section ? o->key : o->section);
	}
}

/* The struct of [section name], or NULL with a message. */
static void *resolve_section(const struct conf_table *t, void *ctx, const char *section,
			     const char *name, char *buf, size_t bytes)
{
	char known[256];
	void *base = NULL;

	buf[0] = '\0';
	if (has_section(t, section))
		base = t->resolve(ctx, section, name, buf, bytes);
	if (base || buf[0])
		return base;
	if (has_section(t, section)) {
		snprintf(buf, bytes, name ? "section [%s %s] takes no name" :
			 "section [%s%s] needs a name", section, name ? name : "");
		return NULL;
	}
	list_words(t, NULL, known, sizeof(known));
	snprintf(buf, bytes, "unknown section '%s' (known: %s)", section, known);
	return NULL;
}

static int assign(const struct conf_table *t, const char *section, void *base, const char *key,
		  const char *val, char *buf, size_t bytes)
{
	const struct conf_opt *o = find_opt(t, section, key);
	char known[384];
	int err;

	if (!o) {
		list_words(t, section, known, sizeof(known));
		return err_text(-EINVAL, buf, bytes, "unknown key '%s' in [%s] (known: %s)", key,
				section, known);
	}
	err = conf_set_value(o, base, val);
	if (err)
		conf_explain_value(o, val, err, buf, bytes);
	return err == -ERANGE ? -EINVAL : err;
}

/* The file */

/* Keep the first error of the file; always returns 0, inih's word for error. */
__printf(3, 4) static int load_error(struct loader *l, int err, const char *fmt, ...)
{
	va_list ap;

	if (l->err_line)
		return 0;
	l->err_line = l->line;
	l->err = err;
	if (l->msg_bytes) {
		snprintf(l->msg, l->msg_bytes, "%s:%u: ", l->path, l->line);
		va_start(ap, fmt);
		vsnprintf(l->msg + strlen(l->msg), l->msg_bytes - strlen(l->msg), fmt, ap);
		va_end(ap);
	}
	return 0;
}

/* "[tenant alice]", at the bracket: meet the section before inih does. */
static void enter_section(struct loader *l, const char *line)
{
	const char *end = strchr(line, ']'), *blank;
	char text[NAME_BYTES], why[512];
	size_t len;

	if (!end)
		return;		/* inih reports it */
	len = (size_t)(end - line - 1);
	if (len >= sizeof(text)) {
		load_error(l, -EINVAL, "a section's name has at most %d characters",
			   NAME_BYTES - 1);
		return;
	}
	memcpy(text, line + 1, len);
	text[len] = '\0';
	blank = strpbrk(text, " \t");
	len = blank ? (size_t)(blank - text) : len;
	snprintf(l->section, sizeof(l->section), "%.*s", (int)len, text);
	snprintf(l->name, sizeof(l->name), "%s",
		 blank ? blank + strspn(blank, " \t") : "");
	l->base = resolve_section(l->t, l->ctx, l->section, l->name[0] ? l->name : NULL, why,
				  sizeof(why));
	if (!l->base)
		load_error(l, -EINVAL, "%s", why);
}

static char *read_line(char *str, int num, void *stream)
{
	struct loader *l = stream;
	size_t blanks, len;
	int c;

	if (!fgets(str, num, l->f))
		return NULL;
	l->line++;
	len = strlen(str);
	if (len && str[len - 1] != '\n' && !feof(l->f)) {
		while ((c = getc(l->f)) != EOF && c != '\n')
			;
		if (!strchr(";#", str[strspn(str, " \t")]))
			load_error(l, -EINVAL, "a line has at most %d characters", num - 2);
	}
	blanks = strspn(str, " \t");
	memmove(str, str + blanks, len - blanks + 1);
	if (l->line == 1 && !strncmp(str, "\xef\xbb\xbf", 3))
		memmove(str, str + 3, strlen(str) - 2);
	if (str[0] == '[')
		enter_section(l, str);
	return str;
}

static int note_seen(struct loader *l, const struct conf_opt *o)
{
	struct seen *p;
	size_t i;

	for (i = 0; i < l->nr_seen; i++) {
		if (l->seen[i].opt == o && l->seen[i].base == l->base) {
			load_error(l, -EINVAL, "%s is given twice (first on line %u)", o->key,
				   l->seen[i].line);
			return -EINVAL;
		}
	}
	if (l->nr_seen == l->cap_seen) {
		p = mem_realloc(l->seen, (l->cap_seen + 64) * sizeof(*p));
		if (!p) {
			load_error(l, -ENOMEM, "out of memory");
			return -ENOMEM;
		}
		l->seen = p;
		l->cap_seen += 64;
	}
	l->seen[l->nr_seen++] = (struct seen){ .opt = o, .base = l->base, .line = l->line };
	return 0;
}

/* inih's handler: 1 is fine, 0 an error of this line. */
static int on_pair(void *user, const char *section, const char *key, const char *val)
{
	struct loader *l = user;
	const struct conf_opt *o;
	char why[512];
	int err;

	(void)section;		/* read_line() has taken it apart */
	if (l->err_line)
		return 0;
	if (!l->base)
		return load_error(l, -EINVAL, "'%s' stands before the first [section]", key);
	o = find_opt(l->t, l->section, key);
	if (o && note_seen(l, o))
		return 0;
	err = assign(l->t, l->section, l->base, key, val, why, sizeof(why));
	if (err)
		return load_error(l, err, "%s", why);
	return 1;
}

int conf_load(const struct conf_table *t, void *ctx, const char *path, char *ret_msg,
	      size_t msg_bytes)
{
	struct loader l = { .t = t, .ctx = ctx, .path = path, .msg = ret_msg,
			    .msg_bytes = msg_bytes };
	int bad_line, err;

	l.f = fopen(path, "re");
	if (!l.f) {
		err = -errno;
		goto err_msg;
	}
	bad_line = ini_parse_stream(read_line, &l, on_pair, &l);
	err = ferror(l.f) ? -EIO : 0;
	fclose(l.f);
	mem_free(l.seen);
	if (err)
		goto err_msg;
	/* An earlier line than the one we know of: inih could not read it. */
	if (bad_line > 0 && (!l.err_line || (unsigned)bad_line < l.err_line)) {
		l.line = (unsigned)bad_line;
		l.err_line = 0;
		load_error(&l, -EINVAL, "expected '[section]' or 'key = value'");
	}
	return l.err_line ? l.err : bad_line < 0 ? -ENOMEM : 0;

err_msg:
	return err_text(err, ret_msg, msg_bytes, "%s: %s", path, strerror(-err));
}

int conf_set(const struct conf_table *t, void *ctx, const char *assignment, char *ret_msg,
	     size_t msg_bytes)
{
	char buf[256], *eq, *section = buf, *name = NULL, *key;
	void *base;

	eq = strchr(assignment, '=');
	buf[0] = '\0';
	if (eq && (size_t)(eq - assignment) < sizeof(buf))
		snprintf(buf, sizeof(buf), "%.*s", (int)(eq - assignment), assignment);
	key = strrchr(buf, '.');
	if (!key)
		return err_text(-EINVAL, ret_msg, msg_bytes, "'%s' is not SECTION.KEY=VALUE",
				assignment);
	*key++ = '\0';
	name = strchr(section, '.');
	if (name)
		*name++ = '\0';
	base = resolve_section(t, ctx, section, name, ret_msg, msg_bytes);
	if (!base)
		return -EINVAL;
	return assign(t, section, base, key, eq + 1, ret_msg, msg_bytes);
}
