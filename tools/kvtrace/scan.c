// SPDX-License-Identifier: Apache-2.0
/*
 * scan.c - strict JSON, one line at a time.
 *
 * Ours and not a library's because a trace has lines of megabytes that should
 * become runs of ids as they are read, never a tree.
 */
#include <stdarg.h>
#include <stdio.h>

#include "tools/kvtrace/scan.h"

#define MAX_DEPTH	64		/* nesting of values that are ignored */
#define MAX_NUMBER	63		/* characters of a number with an exponent */

/* ------------------------------------------------------------ characters */

int scan_fail(struct scan *c, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(c->msg, c->msg_bytes, fmt, ap);
	va_end(ap);
	if (n > 0 && (size_t)n < c->msg_bytes)
		snprintf(c->msg + n, c->msg_bytes - (size_t)n, " (column %zu)",
			 (size_t)(c->p - c->start) + 1);
	return -EINVAL;
}

void scan_space(struct scan *c)
{
	while (c->p < c->end && (*c->p == ' ' || *c->p == '\t' || *c->p == '\r'))
		c->p++;
}

char scan_peek(struct scan *c)
{
	scan_space(c);
	return c->p < c->end ? *c->p : 0;
}

bool scan_take(struct scan *c, char ch)
{
	if (scan_peek(c) != ch || c->p == c->end)
		return false;
	c->p++;
	return true;
}

int scan_expect(struct scan *c, char ch, const char *where)
{
	if (scan_take(c, ch))
		return 0;
	if (c->p == c->end)
		return scan_fail(c, "line ends where '%c' should be, %s", ch, where);
	if ((unsigned char)*c->p < 0x20 || (unsigned char)*c->p > 0x7e)
		return scan_fail(c, "byte 0x%02x where '%c' should be, %s",
			    (unsigned char)*c->p, ch, where);
	return scan_fail(c, "'%c' where '%c' should be, %s", *c->p, ch, where);
}

static bool is_digit(const struct scan *c)
{
	return c->p < c->end && *c->p >= '0' && *c->p <= '9';
}

/* ------------------------------------------------------------ values */

int scan_string(struct scan *c, const char **ret_s, size_t *ret_len)
{
	const char *s;
	int err, i;

	err = scan_expect(c, '"', "to begin a string");
	if (err)
		return err;
	for (s = c->p; c->p < c->end && *c->p != '"'; c->p++) {
		if ((unsigned char)*c->p < 0x20)
			return scan_fail(c, "control character in a string");
		if (*c->p != '\\')
			continue;
		if (++c->p == c->end)
			break;
		if (*c->p == 'u') {
			for (i = 0; i < 4; i++) {
				if (++c->p == c->end || !strchr("0123456789abcdefABCDEF", *c->p) ||
				    !*c->p)
					return scan_fail(c, "bad \\u escape in a string");
			}
		} else if (!*c->p || !strchr("\"\\/bfnrt", *c->p)) {
			return scan_fail(c, "bad escape in a string");
		}
	}
	if (c->p >= c->end)
		return scan_fail(c, "string without an end");
	*ret_s = s;
	*ret_len = (size_t)(c->p - s);
	c->p++;
	return 0;
}

struct number {
	bool negative;
	bool huge;		/* whole does not fit */
	bool has_exp;
	bool has_fraction;	/* one that is not zero */
	uint64_t whole;		/* the part before the point */
	uint32_t millionths;	/* six digits after it */
	const char *text;
	size_t len;
};

static int parse_number(struct scan *c, const char *name, struct number *n)
{
	uint32_t scale = 100000;

	*n = (struct number){ 0 };
	scan_peek(c);
	n->text = c->p;
	if (c->p < c->end && *c->p == '-') {
		n->negative = true;
		c->p++;
	}
	if (!is_digit(c)) {
		c->p = n->text;
		return scan_fail(c, "%s: a number should be here", name);
	}
	if (*c->p == '0' && c->p + 1 < c->end && c->p[1] >= '0' && c->p[1] <= '9')
		return scan_fail(c, "%s: number with a leading zero", name);
	for (; is_digit(c); c->p++)
		n->huge |= __builtin_mul_overflow(n->whole, 10, &n->whole) ||
			   __builtin_add_overflow(n->whole, (uint64_t)(*c->p - '0'), &n->whole);
	if (c->p < c->end && *c->p == '.') {
		c->p++;
		if (!is_digit(c))
			return scan_fail(c, "%s: a digit should follow the point", name);
		for (; is_digit(c); c->p++, scale /= 10) {
			n->has_fraction |= *c->p != '0';
			n->millionths += (uint32_t)(*c->p - '0') * scale;
		}
	}
	if (c->p < c->end && (*c->p == 'e' || *c->p == 'E')) {
		n->has_exp = true;
		c->p++;
		if (c->p < c->end && (*c->p == '+' || *c->p == '-'))
			c->p++;
		if (!is_digit(c))
			return scan_fail(c, "%s: number without an exponent after 'e'", name);
		while (is_digit(c))
			c->p++;
	}
	n->len = (size_t)(c->p - n->text);
	return 0;
}

/* "3.0" counts: some tools write floats. */
int scan_whole(struct scan *c, const char *name, uint64_t hi, uint64_t *ret_v)
{
	const char *at;
	struct number n;
	int err;

	err = parse_number(c, name, &n);
	if (err)
		return err;
	at = c->p;
	c->p = n.text;
	if (n.negative)
		return scan_fail(c, "%s is negative", name);
	if (n.has_exp || n.has_fraction)
		return scan_fail(c, "%s is not a whole number", name);
	if (n.huge || n.whole > hi)
		return scan_fail(c, "%s is above %llu", name, (unsigned long long)hi);
	c->p = at;
	*ret_v = n.whole;
	return 0;
}

int scan_ms(struct scan *c, const char *name, uint64_t hi_ms, uint64_t *ret_ns)
{
	char text[MAX_NUMBER + 1];
	const char *at;
	struct number n;
	double ms;
	int err;

	err = parse_number(c, name, &n);
	if (err)
		return err;
	at = c->p;
	c->p = n.text;
	if (n.negative && (n.whole || n.has_fraction))
		return scan_fail(c, "%s is negative", name);
	if (n.has_exp) {
		if (n.len > MAX_NUMBER)
			return scan_fail(c, "%s: number of %zu characters", name, n.len);
		memcpy(text, n.text, n.len);
		text[n.len] = 0;
		ms = strtod(text, NULL);
		n.huge = !(ms <= (double)hi_ms);
		if (!n.huge) {
			n.whole = (uint64_t)ms;
			n.millionths = (uint32_t)((ms - (double)n.whole) * 1e6);
		}
	}
	if (n.huge || n.whole > hi_ms)
		return scan_fail(c, "%s is above %llu ms", name, (unsigned long long)hi_ms);
	c->p = at;
	*ret_ns = n.whole * 1000000 + n.millionths;
	return 0;
}

int scan_word(struct scan *c)
{
	static const char *const words[] = { "true", "false", "null" };
	size_t i, len;

	for (i = 0; i < ARRAY_SIZE(words); i++) {
		len = strlen(words[i]);
		if ((size_t)(c->end - c->p) >= len && !memcmp(c->p, words[i], len)) {
			c->p += len;
			return 0;
		}
	}
	return scan_fail(c, "a value should be here");
}

static int skip_scalar(struct scan *c)
{
	const char *s;
	struct number n;
	size_t len;

	switch (scan_peek(c)) {
	case '"':
		return scan_string(c, &s, &len);
	case '-':
	case '0' ... '9':
		return parse_number(c, "value", &n);
	default:
		return scan_word(c);
	}
}

static int skip_key(struct scan *c)
{
	const char *s;
	size_t len;
	int err;

	err = scan_string(c, &s, &len);
	return err ? err : scan_expect(c, ':', "after a key");
}

/* Nested values are walked with a stack of closing brackets. */
int scan_skip(struct scan *c)
{
	char close[MAX_DEPTH];
	int depth = 0, err;
	char ch;

	for (;;) {
		ch = scan_peek(c);
		if (ch == '{' || ch == '[') {
			if (depth == MAX_DEPTH)
				return scan_fail(c, "values nested deeper than %d", MAX_DEPTH);
			c->p++;
			close[depth] = ch == '{' ? '}' : ']';
			if (!scan_take(c, close[depth])) {
				err = close[depth++] == '}' ? skip_key(c) : 0;
				if (err)
					return err;
				continue;
			}
		} else {
			err = skip_scalar(c);
			if (err)
				return err;
		}
		/* A value is complete: close what it completes. */
		while (depth && scan_take(c, close[depth - 1]))
			depth--;
		if (!depth)
			return 0;
		err = scan_expect(c, ',', "between values");
		if (!err && close[depth - 1] == '}')
			err = skip_key(c);
		if (err)
			return err;
	}
}
