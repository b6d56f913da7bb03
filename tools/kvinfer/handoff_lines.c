// SPDX-License-Identifier: Apache-2.0
/*
 * handoff_lines.c - requests out of the lines that another process wrote (handoff.c).
 *
 * Nothing in them is believed: what does not fit together is refused with the line's
 * number, what does not fit the model in ki_handoff_open().
 */
#include "tools/kvinfer/kvinfer.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TOKENS	(16u << 20)	/* of one line */

static int get_u32(struct json_object *o, const char *key, uint32_t most, uint32_t *ret_v)
{
	struct json_object *v;
	int64_t n;

	if (!json_object_object_get_ex(o, key, &v) || !json_object_is_type(v, json_type_int))
		return -EINVAL;
	n = json_object_get_int64(v);
	if (n < 0 || n > most)
		return -EINVAL;
	*ret_v = (uint32_t)n;
	return 0;
}

static const char *get_text(struct json_object *o, const char *key)
{
	struct json_object *v;

	if (!json_object_object_get_ex(o, key, &v) || !json_object_is_type(v, json_type_string))
		return "";
	return json_object_get_string(v);
}

/* @hex is 2 * @bytes digits and no more. */
static int from_hex(const char *hex, uint8_t *ret, size_t bytes)
{
	if (strlen(hex) != 2 * bytes || strspn(hex, "0123456789abcdef") != 2 * bytes)
		return -EINVAL;
	for (size_t i = 0; i < bytes; i++) {
		char two[3] = { hex[2 * i], hex[2 * i + 1] };

		ret[i] = (uint8_t)strtoul(two, NULL, 16);
	}
	return 0;
}

/* 16 hex digits. */
static int get_word(struct json_object *o, const char *key, uint64_t *ret_v)
{
	const char *hex = get_text(o, key);
	uint8_t bytes[8];

	if (from_hex(hex, bytes, sizeof(bytes)))
		return -EINVAL;
	*ret_v = strtoull(hex, NULL, 16);
	return 0;
}

static int get_tokens(struct json_object *o, struct ki_request *r, uint32_t *ret_nr)
{
	struct json_object *list;
	size_t nr;

	if (!json_object_object_get_ex(o, "tokens", &list) ||
	    !json_object_is_type(list, json_type_array))
		return -EINVAL;
	nr = json_object_array_length(list);
	if (nr > MAX_TOKENS)
		return -E2BIG;
	r->token = calloc(nr ? nr : 1, sizeof(*r->token));
	if (!r->token)
		return -ENOMEM;
	for (size_t i = 0; i < nr; i++) {
		struct json_object *v = json_object_array_get_idx(list, i);
		int64_t n = json_object_get_int64(v);

		if (!json_object_is_type(v, json_type_int) || n < 0 || n > INT32_MAX)
			return -EINVAL;
		r->token[i] = (int32_t)n;
	}
	*ret_nr = (uint32_t)nr;
	return 0;
}

/* What one line says; NULL or the word that is wrong. */
static const char *read_line(struct json_object *o, struct ki_request *r)
{
	uint32_t schema, nr;
	const char *space = get_text(o, "space");

	if (get_u32(o, "schema", UINT32_MAX, &schema) || schema != KI_HANDOFF_SCHEMA)
		return "schema";
	if (get_word(o, "ticket", &r->ticket))
		return "ticket";
	if (get_word(o, "logits_sum", &r->logits_sum))
		return "logits_sum";
	if (!*space || strlen(space) >= sizeof(r->space))
		return "space";
	strcpy(r->space, space);
	if (from_hex(get_text(o, "model"), r->root, sizeof(r->root)))
		return "model";
	if (get_u32(o, "id", UINT32_MAX, &r->id))
		return "id";
	if (get_tokens(o, r, &nr))
		return "tokens";
	if (get_u32(o, "prompt", nr, &r->nr) || !r->nr || r->nr >= nr)
		return "prompt";
	if (get_u32(o, "want", MAX_TOKENS, &r->tokens) || r->tokens <= nr - r->nr)
		return "want";
	/* The last token made is the next to be computed. */
	if (get_u32(o, "done", nr, &r->done) || r->done != nr - 1)
		return "done";
	if (get_u32(o, "published", nr, &r->published))
		return "published";
	return NULL;
}

static int add_line(struct ki_requests *q, const char *name, uint64_t line_nr, const char *text,
		    char *msg)
{
	struct json_object *o = json_tokener_parse(text);
	struct ki_request *r = calloc(1, sizeof(*r));
	const char *wrong;

	if (!r) {
		json_object_put(o);
		snprintf(msg, KI_TEXT, "no memory");
		return -ENOMEM;
	}
	wrong = json_object_is_type(o, json_type_object) ? read_line(o, r) : "JSON";
	json_object_put(o);
	if (wrong) {
		ki_request_free(r);
		snprintf(msg, KI_TEXT, "%.100s:%" PRIu64 ": no '%s', or a wrong one: lines that "
			 "kvinfer --role prefill wrote are wanted", name, line_nr, wrong);
		return -EINVAL;
	}
	r->handed = true;
	r->samples = 1;
	*q->tail = r;
	q->tail = &r->next;
	q->nr++;
	return 0;
}

int ki_handoff_load(const struct ki_opts *o, struct ki_requests *ret_q, char *msg)
{
	bool std = !strcmp(o->handoff, "-");
	const char *name = std ? "standard input" : o->handoff;
	FILE *f = std ? stdin : fopen(o->handoff, "re");
	struct ki_requests q = { 0 };
	size_t cap = 0;
	char *line = NULL;
	int err = 0;

	if (!f) {
		err = -errno;
		snprintf(msg, KI_TEXT, "%.200s: %s", name, strerror(errno));
		return err;
	}
	q.tail = &q.head;
	for (uint64_t nr = 1; !err && getline(&line, &cap, f) >= 0; nr++)
		if (line[strspn(line, " \t\r\n")])
			err = add_line(&q, name, nr, line, msg);
	if (!err && ferror(f)) {
		err = -EIO;
		snprintf(msg, KI_TEXT, "%.200s: cannot be read", name);
	}
	free(line);
	if (f != stdin)
		fclose(f);
	if (err) {
		while (q.head) {
			struct ki_request *r = q.head;

			q.head = r->next;
			ki_request_free(r);
		}
		return err;
	}
	*ret_q = q;
	if (!q.head)
		ret_q->tail = &ret_q->head;
	return 0;
}
