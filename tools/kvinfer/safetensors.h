/* SPDX-License-Identifier: Apache-2.0 */
/*
 * safetensors.h - tensors in a file: where each is, and its values as floats.
 *
 * The format (huggingface/safetensors, README.md): a little-endian u64, the length of
 * the header; the header, a JSON object of {name: {dtype, shape, data_offsets}} and
 * perhaps "__metadata__": {string: string}, padded with spaces; then the bytes that
 * the offsets are in. They are covered without holes or overlaps, to the file's end.
 */
#ifndef KVINFER_SAFETENSORS_H
#define KVINFER_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KI_ST_HEADER_BYTES	100000000u	/* at most; as the format has it */
#define KI_ST_DIMS		8u		/* at most, of a tensor */

enum ki_st_dtype {
	KI_ST_BOOL, KI_ST_U8, KI_ST_I8, KI_ST_F8_E5M2, KI_ST_F8_E4M3, KI_ST_I16, KI_ST_U16,
	KI_ST_F16, KI_ST_BF16, KI_ST_I32, KI_ST_U32, KI_ST_F32, KI_ST_F64, KI_ST_I64, KI_ST_U64,
	NR_KI_ST_DTYPE
};

const char *ki_st_dtype_name(unsigned dtype);	/* "F32", ...; NULL: no such */

struct ki_tensor {
	const char *name;
	enum ki_st_dtype dtype;
	uint32_t nr_dims;
	uint64_t dim[KI_ST_DIMS];
	uint64_t values;		/* product of dim */
	uint64_t at, bytes;		/* in the file */
	bool known;			/* the caller's: it knows what this one is for */
};

/* An open file whose header is right and whose size is what the header says. */
struct ki_st;

/*
 * -EINVAL: not a safetensors file, or one that contradicts itself; -EMSGSIZE: it ends too
 * early; or open(2)'s. @msg[KI_TEXT] names the file, and the tensor and its field.
 */
int ki_st_open(const char *path, struct ki_st **ret_f, char *msg);
void ki_st_close(struct ki_st *f);		/* NULL is fine */

uint32_t ki_st_nr(const struct ki_st *f);
struct ki_tensor *ki_st_tensor(struct ki_st *f, uint32_t i);	/* by place in the file */
struct ki_tensor *ki_st_find(struct ki_st *f, const char *name);
const char *ki_st_meta(const struct ki_st *f, const char *key);	/* NULL: not there */

/* Values first .. first + nr - 1 of an F32, F16 or BF16 tensor; these must be in it. */
int ki_st_read(struct ki_st *f, const struct ki_tensor *t, uint64_t first, uint64_t nr,
	       float *out, char *msg);

#endif
