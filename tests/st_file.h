/* SPDX-License-Identifier: Apache-2.0 */
/*
 * st_file.h - safetensors files of a small Llama, to be loaded or to be broken.
 */
#ifndef KVMD_TESTS_ST_FILE_H
#define KVMD_TESTS_ST_FILE_H

#include "tools/kvinfer/model.h"
#include "tools/kvinfer/safetensors.h"

/* The parts of a file; the text may be anything by the time it is written. */
struct st_file {
	char *header;			/* NUL-terminated, malloc'd */
	char *data;
	size_t bytes;			/* of data */
};

/* The weights of @m (one rank, on the CPU) as F32, F16 or BF16; @tied: no lm_head. */
void st_file_of(struct st_file *f, const struct ki_model *m, enum ki_st_dtype dtype, bool tied);
void st_file_free(struct st_file *f);
/* @from, which must be there, becomes @to once. */
void st_file_edit(struct st_file *f, const char *from, const char *to);
/* @text before the header's first tensor. */
void st_file_insert(struct st_file *f, const char *text);
void st_file_write(const struct st_file *f, const char *path);
void st_write(const char *path, const void *bytes, size_t n);

/* config.json's text for @s; free() it. */
char *st_config(const struct ki_shape *s);

#endif
