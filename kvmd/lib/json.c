// SPDX-License-Identifier: Apache-2.0
/*
 * json.c - JSON text, written front to back.
 *
 * Invariant: buf is NULL or holds len characters and a NUL. Any thread, one
 * writer per struct json.
 */
#include "kvmd/lib/json.h"
#include "kvmd/lib/mem.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#define FIRST_BYTES	1024

void json_init(struct json *j)
{
	memset(j, 0, sizeof(*j));
}

void json_exit(struct json *j)
{
	mem_free(j->buf);
	json_init(j);
}

static bool reserve(struct json *j, size_t bytes)
{
	size_t need, cap;
	char *p;

	if (j->err)
		return false;
	if (__builtin_add_overflow(j->len + 1, bytes, &need))
		goto err_sticky;
	if (need <= j->cap)
		return true;
	cap = roundup_pow2(max(need, (size_t)FIRST_BYTES));
	p = mem_realloc(j->buf, cap);
	if (!p)
		goto err_sticky;
	j->buf = p;
	j->cap = cap;
	return true;

err_sticky:
	j->err = -ENOMEM;
	return false;
}

static void put(struct json *j, const char *s, size_t bytes)
{
	if (!reserve(j, bytes))
		return;
	memcpy(j->buf + j->len, s, bytes);
	j->len += bytes;
	j->buf[j->len] = '\0';
}

static void put_s(struct json *j, const char *s)
{
	put(j, s, strlen(s));
}

/* Length of the valid UTF-8 sequence at @s, 0 when there is none (RFC 3629). */
static size_t utf8_len(const unsigned char *s)
{
	size_t n, i;

	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xc2 && s[0] <= 0xdf)
		n = 2;
	else if ((s[0] & 0xf0) == 0xe0)
		n = 3;
	else if (s[0] >= 0xf0 && s[0] <= 0xf4)
		n = 4;
	else
		return 0;
	for (i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	}
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
	    (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return n;
}

/* One character; bytes that are not UTF-8 become U+FFFD. Returns bytes used. */
static size_t put_char(struct json *j, const char *s)
{
	unsigned char c = (unsigned char)*s;
	char esc[8];
	size_t n;

	switch (c) {
	case '"':
		put_s(j, "\\\"");
		return 1;
	case '\\':
		put_s(j, "\\\\");
		return 1;
	case '\n':
		put_s(j, "\\n");
		return 1;
	case '\t':
		put_s(j, "\\t");
		return 1;
	default:
		break;
	}
	if (c < 0x20 || c == 0x7f) {
		snprintf(esc, sizeof(esc), "\\u%04x", c);
		put_s(j, esc);
		return 1;
	}
	n = utf8_len((const unsigned char *)s);
	if (!n) {
		put_s(j, "\\ufffd");
		return 1;
	}
	put(j, s, n);
	return n;
}

static void put_quoted(struct json *j, const char *s)
{
	put(j, "\"", 1);
	while (*s)
		s += put_char(j, s);
	put(j, "\"", 1);
}

/* What stands before a value: the comma and the key. */
static void lead(struct json *j, const char *key)
{
	if (j->comma)
		put(j, ",", 1);
	j->comma = true;
	if (key) {
		put_quoted(j, key);
		put(j, ":", 1);
	}
}

static void open_level(struct json *j, const char *key, const char *bracket)
{
	lead(j, key);
	put(j, bracket, 1);
	j->comma = false;
}

static void close_level(struct json *j, const char *bracket)
{
	put(j, bracket, 1);
	j->comma = true;
}

void json_obj(struct json *j, const char *key)
{
	open_level(j, key, "{");
}

void json_obj_end(struct json *j)
{
	close_level(j, "}");
}

void json_arr(struct json *j, const char *key)
{
	open_level(j, key, "[");
}

void json_arr_end(struct json *j)
{
	close_level(j, "]");
}

void json_u64(struct json *j, const char *key, uint64_t v)
{
	char buf[24];

	snprintf(buf, sizeof(buf), "%" PRIu64, v);
	lead(j, key);
	put_s(j, buf);
}

void json_i64(struct json *j, const char *key, int64_t v)
{
	char buf[24];

	snprintf(buf, sizeof(buf), "%" PRId64, v);
	lead(j, key);
	put_s(j, buf);
}

void json_f64(struct json *j, const char *key, double v)
{
	char buf[32];
	char *dot;

	if (!isfinite(v)) {
		json_null(j, key);
		return;
	}
	snprintf(buf, sizeof(buf), "%.10g", v);
	dot = strchr(buf, ',');		/* a locale's decimal comma */
	if (dot)
		*dot = '.';
	lead(j, key);
	put_s(j, buf);
}

void json_bool(struct json *j, const char *key, bool v)
{
	lead(j, key);
	put_s(j, v ? "true" : "false");
}

void json_null(struct json *j, const char *key)
{
	lead(j, key);
	put_s(j, "null");
}

void json_str(struct json *j, const char *key, const char *v)
{
	if (!v) {
		json_null(j, key);
		return;
	}
	lead(j, key);
	put_quoted(j, v);
}

void json_hex(struct json *j, const char *key, const void *p, size_t bytes)
{
	static const char digits[] = "0123456789abcdef";
	const unsigned char *b = p;
	char pair[2];
	size_t i;

	lead(j, key);
	put(j, "\"", 1);
	for (i = 0; i < bytes; i++) {
		pair[0] = digits[b[i] >> 4];
		pair[1] = digits[b[i] & 15];
		put(j, pair, 2);
	}
	put(j, "\"", 1);
}
