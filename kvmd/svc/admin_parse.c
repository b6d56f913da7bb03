/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin_parse.c - the request line of the admin socket.
 *
 * Pure: no state, no allocation. Whoever connects may send anything, so every
 * byte is looked at before it is used.
 */
#include "kvmd/svc/admin_parse.h"

#include "kvmd/lib/err.h"

static bool is_word(const char *s)
{
	if (!*s)
		return false;
	return s[strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_-")] == '\0';
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int admin_parse_hex(const char *s, size_t len, void *ret_bytes, size_t bytes)
{
	uint8_t *out = ret_bytes;

	if (len != 2 * bytes)
		return -EINVAL;
	for (size_t i = 0; i < len; i++)
		if (hex_digit(s[i]) < 0)
			return -EINVAL;
	for (size_t i = 0; i < bytes; i++)
		out[i] = (uint8_t)(hex_digit(s[2 * i]) << 4 | hex_digit(s[2 * i + 1]));
	return 0;
}

/* %XX in place; false: no hex digits behind a '%', or a NUL. */
static bool decode(char *s)
{
	char *to = s;
	uint8_t byte;

	for (; *s; s++) {
		if (*s != '%') {
			*to++ = *s;
			continue;
		}
		if (!s[1] || !s[2] || admin_parse_hex(s + 1, 2, &byte, 1) || !byte)
			return false;
		*to++ = (char)byte;
		s += 2;
	}
	*to = '\0';
	return true;
}

static int parse_arg(char *word, struct admin_req *rq, char *msg, size_t n)
{
	char *val = strchr(word, '=');

	if (!val)
		return err_text(-EINVAL, msg, n, "'%.40s' is not KEY=VALUE", word);
	*val++ = '\0';
	if (!is_word(word))
		return err_text(-EINVAL, msg, n, "'%.40s' is no name of an argument", word);
	if (!decode(val))
		return err_text(-EINVAL, msg, n, "%s: '%%' without two hex digits, or a zero byte",
				word);
	if (admin_req_arg(rq, word))
		return err_text(-EINVAL, msg, n, "%s is given twice", word);
	if (rq->nr_args == ADMIN_MAX_ARGS)
		return err_text(-EINVAL, msg, n, "more than %d arguments", ADMIN_MAX_ARGS);
	rq->arg[rq->nr_args++] = (struct admin_arg) { .key = word, .val = val };
	return 0;
}

int admin_parse(char *line, size_t len, struct admin_req *ret_rq, char *msg, size_t msg_bytes)
{
	struct admin_req rq = { 0 };
	char *word;
	int err;

	if (len > ADMIN_MAX_LINE_BYTES)
		return err_text(-EINVAL, msg, msg_bytes, "a request is at most %u bytes",
				ADMIN_MAX_LINE_BYTES);
	if (memchr(line, '\0', len))
		return err_text(-EINVAL, msg, msg_bytes, "a zero byte in the request");
	line[len] = '\0';
	while ((word = strsep(&line, " "))) {
		if (!*word)
			continue;
		if (rq.noun && rq.verb) {
			err = parse_arg(word, &rq, msg, msg_bytes);
			if (err)
				return err;
			continue;
		}
		if (!is_word(word))
			return err_text(-EINVAL, msg, msg_bytes, "'%.40s' is no %s", word,
					rq.noun ? "verb" : "noun");
		if (!rq.noun)
			rq.noun = word;
		else
			rq.verb = word;
	}
	if (!rq.verb)
		return err_text(-EINVAL, msg, msg_bytes, "a request is 'NOUN VERB KEY=VALUE ...'");
	*ret_rq = rq;
	return 0;
}

const char *admin_req_arg(const struct admin_req *rq, const char *key)
{
	for (unsigned i = 0; i < rq->nr_args; i++)
		if (!strcmp(rq->arg[i].key, key))
			return rq->arg[i].val;
	return NULL;
}
