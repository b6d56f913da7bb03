/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json.h - a writer of JSON text into a growing buffer.
 *
 * Keys are NULL inside arrays. An allocation failure is sticky: j->err is set,
 * later calls do nothing, and the caller checks once at the end.
 */
#ifndef KVMD_LIB_JSON_H
#define KVMD_LIB_JSON_H

#include "kvmd/lib/base.h"

struct json {
	char *buf;		/* NUL-terminated text, owned */
	size_t len, cap;	/* bytes */
	int err;		/* 0 or -ENOMEM, sticky */
	bool comma;		/* a value precedes on this level */
};

void json_init(struct json *j);
void json_exit(struct json *j);				/* frees buf */
void json_obj(struct json *j, const char *key);		/* { */
void json_obj_end(struct json *j);
void json_arr(struct json *j, const char *key);		/* [ */
void json_arr_end(struct json *j);
void json_u64(struct json *j, const char *key, uint64_t v);
void json_i64(struct json *j, const char *key, int64_t v);
void json_f64(struct json *j, const char *key, double v);	/* NaN, Inf: null */
void json_bool(struct json *j, const char *key, bool v);
void json_null(struct json *j, const char *key);
void json_str(struct json *j, const char *key, const char *v);	/* escaped; NULL: null */
void json_hex(struct json *j, const char *key, const void *p, size_t bytes);

#endif
