// SPDX-License-Identifier: Apache-2.0
/*
 * safetensors.c - see safetensors.h.
 *
 * Nothing is taken at its word: lengths are compared with the file's before anything
 * of that length is read or allocated, offsets with the bytes behind the header and
 * with shape times dtype. What is read is read with pread(2), so that a file that
 * becomes shorter meanwhile is an error and no signal.
 */
#include "tools/kvinfer/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kvmd/lib/base.h"
#include "tools/kvinfer/model_int.h"

#define READ_BYTES	(256u << 10)
#define JSON_DEPTH	8		/* the format's is 4 */

static const struct {
	const char *name;
	uint32_t bytes;
} dtypes[] = {
	[KI_ST_BOOL] = { "BOOL", 1 }, [KI_ST_U8] = { "U8", 1 }, [KI_ST_I8] = { "I8", 1 },
	[KI_ST_F8_E5M2] = { "F8_E5M2", 1 }, [KI_ST_F8_E4M3] = { "F8_E4M3", 1 },
	[KI_ST_I16] = { "I16", 2 }, [KI_ST_U16] = { "U16", 2 }, [KI_ST_F16] = { "F16", 2 },
	[KI_ST_BF16] = { "BF16", 2 }, [KI_ST_I32] = { "I32", 4 }, [KI_ST_U32] = { "U32", 4 },
	[KI_ST_F32] = { "F32", 4 }, [KI_ST_F64] = { "F64", 8 }, [KI_ST_I64] = { "I64", 8 },
	[KI_ST_U64] = { "U64", 8 },
};
BUILD_BUG_ON(ARRAY_SIZE(dtypes) != NR_KI_ST_DTYPE);

struct ki_st {
	int fd;
	char *path;
	uint64_t data, bytes;		/* the bytes behind the header: where, how many */
	json_object *header;		/* owns names */
	json_object *meta;		/* in header; NULL: none */
	struct ki_tensor *tensor;	/* by place */
	uint32_t *by_name;		/* numbers of tensors, sorted */
	uint32_t nr;
};

const char *ki_st_dtype_name(unsigned dtype)
{
	return dtype < NR_KI_ST_DTYPE ? dtypes[dtype].name : NULL;
}

static int read_at(const struct ki_st *f, void *to, uint64_t bytes, uint64_t at, char *msg)
{
	while (bytes) {
		ssize_t n = pread(f->fd, to, bytes, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return ki_refuse(msg, -errno, "%.120s: %s", f->path, strerror(errno));
		if (!n)
			return ki_refuse(msg, -EMSGSIZE, "%.120s: became shorter while it was "
					 "read", f->path);
		to = (char *)to + n;
		at += (uint64_t)n;
		bytes -= (uint64_t)n;
	}
	return 0;
}

/* ------------------------------------------------------------------ header */

/* "FILE: tensor NAME: TEXT"; -EINVAL. */
static int bad(const struct ki_st *f, const char *name, const char *text, char *msg)
{
	return ki_refuse(msg, -EINVAL, "%.80s: tensor %.80s: %.80s", f->path, name, text);
}

/* A JSON integer of 0 and more. */
static bool whole(json_object *o, uint64_t *ret_v)
{
	int64_t v;

	if (!json_object_is_type(o, json_type_int))
		return false;
	v = json_object_get_int64(o);	/* above its range: its largest, more than any file */
	if (v < 0)
		return false;
	*ret_v = (uint64_t)v;
	return true;
}

static int parse_shape(const struct ki_st *f, json_object *o, struct ki_tensor *t, char *msg)
{
	size_t i, nr;

	if (!json_object_is_type(o, json_type_array))
		return bad(f, t->name, "shape is no list of numbers", msg);
	nr = json_object_array_length(o);
	if (nr > KI_ST_DIMS)
		return bad(f, t->name, "shape has more than 8 dimensions", msg);
	t->nr_dims = (uint32_t)nr;
	t->values = 1;
	for (i = 0; i < nr; i++) {
		if (!whole(json_object_array_get_idx(o, i), &t->dim[i]))
			return bad(f, t->name, "shape is no list of numbers", msg);
		if (__builtin_mul_overflow(t->values, t->dim[i], &t->values))
			return bad(f, t->name, "shape is larger than any file", msg);
	}
	return 0;
}

static int parse_dtype(const struct ki_st *f, json_object *o, struct ki_tensor *t, char *msg)
{
	const char *s = json_object_is_type(o, json_type_string) ? json_object_get_string(o) : NULL;
	unsigned i;

	for (i = 0; s && i < NR_KI_ST_DTYPE; i++)
		if (!strcmp(s, dtypes[i].name)) {
			t->dtype = i;
			return 0;
		}
	return bad(f, t->name, "dtype is none that is known", msg);
}

static int parse_offsets(const struct ki_st *f, json_object *o, struct ki_tensor *t, char *msg)
{
	uint64_t from, to, bytes;

	if (!json_object_is_type(o, json_type_array) || json_object_array_length(o) != 2 ||
	    !whole(json_object_array_get_idx(o, 0), &from) ||
	    !whole(json_object_array_get_idx(o, 1), &to))
		return bad(f, t->name, "data_offsets are not two numbers", msg);
	if (from > to)
		return bad(f, t->name, "data_offsets end before they begin", msg);
	if (to > f->bytes)
		return ki_refuse(msg, -EMSGSIZE, "%.80s: tensor %.80s: ends at byte %llu of %llu "
				 "behind the header: the file is cut short", f->path, t->name,
				 (unsigned long long)to, (unsigned long long)f->bytes);
	if (__builtin_mul_overflow(t->values, (uint64_t)dtypes[t->dtype].bytes, &bytes) ||
	    bytes != to - from)
		return bad(f, t->name, "data_offsets are not shape times dtype apart", msg);
	t->at = f->data + from;
	t->bytes = bytes;
	return 0;
}

static int parse_tensor(const struct ki_st *f, const char *name, json_object *o,
			struct ki_tensor *t, char *msg)
{
	int err;

	t->name = name;
	if (!json_object_is_type(o, json_type_object))
		return bad(f, name, "not an object of dtype, shape and data_offsets", msg);
	err = parse_dtype(f, json_object_object_get(o, "dtype"), t, msg);
	if (!err)
		err = parse_shape(f, json_object_object_get(o, "shape"), t, msg);
	return err ? err : parse_offsets(f, json_object_object_get(o, "data_offsets"), t, msg);
}

static int parse_meta(struct ki_st *f, json_object *o, char *msg)
{
	if (!json_object_is_type(o, json_type_object))
		return ki_refuse(msg, -EINVAL, "%.120s: __metadata__ is no object of strings",
				 f->path);
	json_object_object_foreach(o, key, value)
		if (!json_object_is_type(value, json_type_string))
			return ki_refuse(msg, -EINVAL, "%.120s: __metadata__: %.80s is no string",
					 f->path, key);
	f->meta = o;
	return 0;
}

static int by_place(const void *a, const void *b)
{
	const struct ki_tensor *x = a, *y = b;

	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	/* Those of no bytes before the one that begins where they are. */
	if (x->bytes != y->bytes)
		return x->bytes < y->bytes ? -1 : 1;
	return strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b, void *ctx)
{
	const struct ki_tensor *t = ctx;

	return strcmp(t[*(const uint32_t *)a].name, t[*(const uint32_t *)b].name);
}

/* The bytes are covered once each. */
static int check_cover(const struct ki_st *f, char *msg)
{
	uint64_t at = f->data;
	uint32_t i;

	for (i = 0; i < f->nr; i++) {
		if (f->tensor[i].at < at)
			return bad(f, f->tensor[i].name, "data_offsets overlap those of another",
				   msg);
		if (f->tensor[i].at > at)
			return bad(f, f->tensor[i].name, "data_offsets leave bytes before them "
				   "unused", msg);
		at += f->tensor[i].bytes;
	}
	if (at != f->data + f->bytes)
		return ki_refuse(msg, -EINVAL, "%.120s: %llu bytes behind the last tensor",
				 f->path, (unsigned long long)(f->data + f->bytes - at));
	return 0;
}

static int parse_header(struct ki_st *f, char *msg)
{
	size_t most = (size_t)json_object_object_length(f->header);
	uint32_t i;
	int err;

	f->tensor = calloc(most + 1, sizeof(*f->tensor));
	f->by_name = calloc(most + 1, sizeof(*f->by_name));
	if (!f->tensor || !f->by_name)
		return ki_refuse(msg, -ENOMEM, "no memory");
	json_object_object_foreach(f->header, name, value) {
		if (!strcmp(name, "__metadata__"))
			err = parse_meta(f, value, msg);
		else
			err = parse_tensor(f, name, value, &f->tensor[f->nr++], msg);
		if (err)
			return err;
	}
	qsort(f->tensor, f->nr, sizeof(*f->tensor), by_place);
	for (i = 0; i < f->nr; i++)
		f->by_name[i] = i;
	qsort_r(f->by_name, f->nr, sizeof(*f->by_name), by_name, f->tensor);
	return check_cover(f, msg);
}

/* @text: the header's bytes. */
static int parse_json(struct ki_st *f, const char *text, size_t bytes, char *msg)
{
	struct json_tokener *tok = json_tokener_new_ex(JSON_DEPTH);
	enum json_tokener_error why;
	size_t end;

	if (!tok)
		return ki_refuse(msg, -ENOMEM, "no memory");
	json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_ALLOW_TRAILING_CHARS);
	f->header = json_tokener_parse_ex(tok, text, (int)bytes);
	why = json_tokener_get_error(tok);
	end = json_tokener_get_parse_end(tok);
	json_tokener_free(tok);
	if (why == json_tokener_continue)
		return ki_refuse(msg, -EINVAL, "%.120s: the header ends within its JSON", f->path);
	if (why != json_tokener_success)
		return ki_refuse(msg, -EINVAL, "%.120s: the header is no JSON: byte %zu: %.60s",
				 f->path, end, json_tokener_error_desc(why));
	while (end < bytes && text[end] == ' ')
		end++;
	if (end < bytes)
		return ki_refuse(msg, -EINVAL, "%.120s: the header has more than JSON: byte %zu",
				 f->path, end);
	if (!json_object_is_type(f->header, json_type_object))
		return ki_refuse(msg, -EINVAL, "%.120s: the header is no JSON object", f->path);
	return 0;
}

static int read_header(struct ki_st *f, uint64_t file_bytes, char *msg)
{
	unsigned char le[8];
	uint64_t bytes = 0;
	char *text;
	int err, i;

	if (file_bytes < sizeof(le))
		return ki_refuse(msg, -EMSGSIZE, "%.120s: cut short: %llu bytes, and 8 are the "
				 "header's length", f->path, (unsigned long long)file_bytes);
	err = read_at(f, le, sizeof(le), 0, msg);
	if (err)
		return err;
	for (i = 7; i >= 0; i--)
		bytes = bytes << 8 | le[i];
	if (bytes < 2 || bytes > KI_ST_HEADER_BYTES)
		return ki_refuse(msg, -EINVAL, "%.120s: a header of %llu bytes: 2 to %u are "
				 "possible; is this a safetensors file?", f->path,
				 (unsigned long long)bytes, KI_ST_HEADER_BYTES);
	if (bytes > file_bytes - sizeof(le))
		return ki_refuse(msg, -EMSGSIZE, "%.120s: cut short: a header of %llu bytes in "
				 "a file of %llu", f->path, (unsigned long long)bytes,
				 (unsigned long long)file_bytes);
	f->data = sizeof(le) + bytes;
	f->bytes = file_bytes - f->data;
	text = malloc(bytes);
	if (!text)
		return ki_refuse(msg, -ENOMEM, "no memory");
	err = read_at(f, text, bytes, sizeof(le), msg);
	if (!err && text[0] != '{')
		err = ki_refuse(msg, -EINVAL, "%.120s: the header does not begin with {", f->path);
	if (!err)
		err = parse_json(f, text, bytes, msg);
	free(text);
	return err ? err : parse_header(f, msg);
}

/* ------------------------------------------------------------------ public */

int ki_st_open(const char *path, struct ki_st **ret_f, char *msg)
{
	struct ki_st *f = calloc(1, sizeof(*f));
	struct stat st;
	int err;

	if (!f)
		return ki_refuse(msg, -ENOMEM, "no memory");
	f->path = strdup(path);
	/* Not to wait for a pipe's other end. */
	f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (!f->path || f->fd < 0 || fstat(f->fd, &st)) {
		err = f->path ? -errno : -ENOMEM;
		ki_refuse(msg, err, "%.120s: %s", path, strerror(-err));
		goto err_close;
	}
	if (!S_ISREG(st.st_mode)) {
		err = ki_refuse(msg, -EINVAL, "%.120s: not a file", path);
		goto err_close;
	}
	err = read_header(f, (uint64_t)st.st_size, msg);
	if (err)
		goto err_close;
	*ret_f = f;
	return 0;

err_close:
	ki_st_close(f);
	return err;
}

void ki_st_close(struct ki_st *f)
{
	if (!f)
		return;
	if (f->fd >= 0)
		close(f->fd);
	json_object_put(f->header);
	free(f->tensor);
	free(f->by_name);
	free(f->path);
	free(f);
}

uint32_t ki_st_nr(const struct ki_st *f)
{
	return f->nr;
}

struct ki_tensor *ki_st_tensor(struct ki_st *f, uint32_t i)
{
	return &f->tensor[i];
}

struct ki_tensor *ki_st_find(struct ki_st *f, const char *name)
{
	uint32_t lo = 0, hi = f->nr, mid;
	int c;

	while (lo < hi) {
		mid = lo + (hi - lo) / 2;
		c = strcmp(name, f->tensor[f->by_name[mid]].name);
		if (!c)
			return &f->tensor[f->by_name[mid]];
		if (c < 0)
			hi = mid;
		else
			lo = mid + 1;
	}
	return NULL;
}

const char *ki_st_meta(const struct ki_st *f, const char *key)
{
	json_object *o;

	return f->meta && json_object_object_get_ex(f->meta, key, &o) ?
	       json_object_get_string(o) : NULL;
}

static float value_of(const unsigned char *p, enum ki_st_dtype dtype)
{
	if (dtype == KI_ST_F32)
		return kn_float((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
				(uint32_t)p[3] << 24);
	if (dtype == KI_ST_F16)
		return kn_from_f16((uint16_t)(p[0] | p[1] << 8));
	return kn_from_bf16((uint16_t)(p[0] | p[1] << 8));
}

int ki_st_read(struct ki_st *f, const struct ki_tensor *t, uint64_t first, uint64_t nr,
	       float *out, char *msg)
{
	uint32_t size = dtypes[t->dtype].bytes;
	uint64_t at = t->at + first * size, i, n;
	unsigned char *piece;
	int err = 0;

	if (t->dtype != KI_ST_F32 && t->dtype != KI_ST_F16 && t->dtype != KI_ST_BF16)
		return bad(f, t->name, "dtype is not F32, F16 or BF16", msg);
	if (first > t->values || nr > t->values - first)
		return bad(f, t->name, "has not so many values", msg);
	piece = malloc(READ_BYTES);
	if (!piece)
		return ki_refuse(msg, -ENOMEM, "no memory");
	for (; nr && !err; nr -= n, out += n, at += n * size) {
		n = min(nr, (uint64_t)(READ_BYTES / size));
		err = read_at(f, piece, n * size, at, msg);
		for (i = 0; i < n && !err; i++)
			out[i] = value_of(piece + i * size, t->dtype);
	}
	free(piece);
	return err;
}
