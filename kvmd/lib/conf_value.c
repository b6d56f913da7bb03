// SPDX-License-Identifier: Apache-2.0
/*
 * conf_value.c - values of options: text to struct, struct to text.
 *
 * Knows types and ranges, no files and no sections; what is wrong with a
 * value is explained here, too.
 */
#include "kvmd/lib/conf_value.h"
#include "kvmd/lib/mem.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

/* Numbers */

struct unit {
	const char *name;
	uint64_t scale;
};

static const struct unit byte_units[] = {
	{ "", 1 }, { "B", 1 },
	{ "K", 1ULL << 10 }, { "KiB", 1ULL << 10 },
	{ "M", 1ULL << 20 }, { "MiB", 1ULL << 20 },
	{ "G", 1ULL << 30 }, { "GiB", 1ULL << 30 },
	{ "T", 1ULL << 40 }, { "TiB", 1ULL << 40 },
	{ NULL, 0 }
};

static const struct unit time_units[] = {
	{ "", 1000000000 }, { "ns", 1 }, { "us", 1000 }, { "ms", 1000000 },
	{ "s", 1000000000 }, { "min", 60000000000ULL }, { "h", 3600000000000ULL },
	{ NULL, 0 }
};

static const struct unit permille_units[] = {
	{ "", 1 }, { "%", 10 }, { NULL, 0 }
};

/* "12", "1.5 GiB": digits, perhaps a fraction, perhaps blanks, a unit. */
static int parse_scaled(const char *s, const struct unit *units, uint64_t *ret_v)
{
	uint64_t whole = 0, frac = 0, div = 1;
	const struct unit *u;
	unsigned __int128 v;

	if (!isdigit((unsigned char)*s))
		return -EINVAL;
	for (; isdigit((unsigned char)*s); s++) {
		if (__builtin_mul_overflow(whole, 10, &whole) ||
		    __builtin_add_overflow(whole, (uint64_t)(*s - '0'), &whole))
			return -ERANGE;
	}
	if (*s == '.' && isdigit((unsigned char)s[1])) {
		for (s++; isdigit((unsigned char)*s); s++) {
			if (div >= 1000000000)
				return -EINVAL;
			frac = frac * 10 + (uint64_t)(*s - '0');
			div *= 10;
		}
	}
	while (*s == ' ')
		s++;
	for (u = units; u->name && strcmp(s, u->name); u++)
		;
	if (!u->name)
		return -EINVAL;
	/* A fraction must come out whole: half a byte is a mistake. */
	if (frac && ((unsigned __int128)frac * u->scale) % div)
		return -EINVAL;
	v = (unsigned __int128)whole * u->scale + (unsigned __int128)frac * u->scale / div;
	if (v > UINT64_MAX)
		return -ERANGE;
	*ret_v = (uint64_t)v;
	return 0;
}

int conf_parse_bytes(const char *s, uint64_t *ret_bytes)
{
	return parse_scaled(s, byte_units, ret_bytes);
}

int conf_parse_time(const char *s, uint64_t *ret_ns)
{
	return parse_scaled(s, time_units, ret_ns);
}

int conf_parse_u64(const char *s, uint64_t *ret_v)
{
	static const struct unit none[] = { { "", 1 }, { NULL, 0 } };

	return strchr(s, '.') ? -EINVAL : parse_scaled(s, none, ret_v);
}

static int parse_bool(const char *s, uint64_t *ret_v)
{
	static const char *const words[] = {
		"no", "yes", "false", "true", "off", "on", "0", "1",
	};
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(words); i++) {
		if (!strcmp(s, words[i])) {
			*ret_v = i & 1;
			return 0;
		}
	}
	return -EINVAL;
}

static int parse_enum(const char *const *words, const char *s, uint64_t *ret_v)
{
	uint64_t i;

	for (i = 0; words[i]; i++) {
		if (!strcmp(s, words[i])) {
			*ret_v = i;
			return 0;
		}
	}
	return -EINVAL;
}

static int parse_number(const struct conf_opt *o, const char *s, uint64_t *ret_v)
{
	int err;

	switch (o->type) {
	case CONF_BOOL:
		return parse_bool(s, ret_v);
	case CONF_ENUM:
		return parse_enum(o->words, s, ret_v);
	case CONF_BYTES:
		err = conf_parse_bytes(s, ret_v);
		break;
	case CONF_TIME:
		err = conf_parse_time(s, ret_v);
		break;
	case CONF_PERMILLE:
		err = parse_scaled(s, permille_units, ret_v);
		break;
	default:
		err = conf_parse_u64(s, ret_v);
		break;
	}
	if (err)
		return err;
	if (*ret_v < o->lo || (o->hi && *ret_v > o->hi))
		return -ERANGE;
	if ((o->type == CONF_U32 || o->type == CONF_PERMILLE) && *ret_v > UINT32_MAX)
		return -ERANGE;
	return 0;
}

/* Values in a struct */

static uint64_t load_value(const struct conf_opt *o, const void *base)
{
	const void *at = (const char *)base + o->offset;

	switch (o->type) {
	case CONF_BOOL:
		return *(const bool *)at;
	case CONF_U32:
	case CONF_PERMILLE:
	case CONF_ENUM:
		return *(const uint32_t *)at;
	default:
		return *(const uint64_t *)at;
	}
}

static void store_value(const struct conf_opt *o, void *base, uint64_t v)
{
	void *at = (char *)base + o->offset;

	switch (o->type) {
	case CONF_BOOL:
		*(bool *)at = v;
		break;
	case CONF_U32:
	case CONF_PERMILLE:
	case CONF_ENUM:
		*(uint32_t *)at = (uint32_t)v;
		break;
	default:
		*(uint64_t *)at = v;
		break;
	}
}

int conf_set_value(const struct conf_opt *o, void *base, const char *s)
{
	uint64_t v;
	char **str, *copy;
	int err;

	if (o->type == CONF_STR) {
		str = (char **)((char *)base + o->offset);
		copy = mem_strdup(s);
		if (!copy)
			return -ENOMEM;
		mem_free(*str);
		*str = copy;
		return 0;
	}
	err = parse_number(o, s, &v);
	if (err)
		return err;
	store_value(o, base, v);
	return 0;
}

static void format_scaled(uint64_t v, const struct unit *units, char *buf, size_t bytes)
{
	const struct unit *best = &units[1], *u;

	for (u = units; u->name; u++) {
		if (*u->name && v && v % u->scale == 0 && u->scale > best->scale)
			best = u;
	}
	snprintf(buf, bytes, "%" PRIu64 "%s", v / best->scale, best->scale > 1 ? best->name :
		 units == time_units ? "ns" : "");
}

static void format_number(const struct conf_opt *o, uint64_t v, char *buf, size_t bytes)
{
	switch (o->type) {
	case CONF_BOOL:
		snprintf(buf, bytes, "%s", v ? "yes" : "no");
		break;
	case CONF_BYTES:
		format_scaled(v, byte_units, buf, bytes);
		break;
	case CONF_TIME:
		format_scaled(v, time_units, buf, bytes);
		break;
	case CONF_PERMILLE:
		if (v % 10)
			snprintf(buf, bytes, "%" PRIu64 ".%" PRIu64 "%%", v / 10, v % 10);
		else
			snprintf(buf, bytes, "%" PRIu64 "%%", v / 10);
		break;
	case CONF_ENUM:
		snprintf(buf, bytes, "%s", o->words[v]);
		break;
	default:
		snprintf(buf, bytes, "%" PRIu64, v);
		break;
	}
}

void conf_format(const struct conf_opt *o, const void *base, char *buf, size_t bytes)
{
	const char *s;

	if (o->type == CONF_STR) {
		s = *(char *const *)((const char *)base + o->offset);
		snprintf(buf, bytes, "%s", s ? s : "");
		return;
	}
	format_number(o, load_value(o, base), buf, bytes);
}

int conf_defaults(const struct conf_table *t, const char *section, void *base)
{
	const struct conf_opt *o;
	size_t i;
	int err;

	for (i = 0; i < t->nr_opts; i++) {
		o = &t->opts[i];
		if (strcmp(o->section, section))
			continue;
		if (o->type == CONF_STR)
			*(char **)((char *)base + o->offset) = NULL;
		else
			store_value(o, base, 0);
		if (!o->def)
			continue;
		err = conf_set_value(o, base, o->def);
		if (err) {
			conf_release(t, section, base);
			return err;
		}
	}
	return 0;
}

void conf_release(const struct conf_table *t, const char *section, void *base)
{
	const struct conf_opt *o;
	char **str;
	size_t i;

	for (i = 0; i < t->nr_opts; i++) {
		o = &t->opts[i];
		if (strcmp(o->section, section) || o->type != CONF_STR)
			continue;
		str = (char **)((char *)base + o->offset);
		mem_free(*str);
		*str = NULL;
	}
}

void conf_append(char *buf, size_t bytes, const char *fmt, ...)
{
	size_t len = strlen(buf);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(buf + len, bytes - len, fmt, ap);
	va_end(ap);
}

/* What is wrong */

static const char *type_wants(enum conf_type type)
{
	static const char *const wants[NR_CONF_TYPE] = {
		[CONF_BOOL]	= "yes or no",
		[CONF_U32]	= "a whole number",
		[CONF_U64]	= "a whole number",
		[CONF_BYTES]	= "bytes, as 65536, 64K or 64KiB",
		[CONF_TIME]	= "a time, as 10, 500ms or 2min",
		[CONF_PERMILLE]	= "a share, as 2.5% or 25 (permille)",
		[CONF_STR]	= "text",
		[CONF_ENUM]	= "a word",
	};

	return wants[type];
}

void conf_explain_value(const struct conf_opt *o, const char *s, int err, char *buf, size_t bytes)
{
	char lo[32], hi[32];
	size_t i;

	if (err == -ENOMEM) {
		snprintf(buf, bytes, "out of memory");
	} else if (o->type == CONF_ENUM) {
		snprintf(buf, bytes, "%s: '%s' is none of ", o->key, s);
		for (i = 0; o->words[i]; i++)
			conf_append(buf, bytes, "%s%s", i ? ", " : "", o->words[i]);
	} else if (err == -ERANGE) {
		format_number(o, o->lo, lo, sizeof(lo));
		format_number(o, o->hi, hi, sizeof(hi));
		if (o->hi)
			snprintf(buf, bytes, "%s: %s is out of range: from %s to %s", o->key, s,
				 lo, hi);
		else
			snprintf(buf, bytes, "%s: %s is out of range: at least %s%s", o->key, s,
				 lo, o->lo ? "" : " and below 2^64 (2^32 for small numbers)");
	} else {
		snprintf(buf, bytes, "%s: '%s' is not %s", o->key, s, type_wants(o->type));
	}
}
