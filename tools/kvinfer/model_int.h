/* SPDX-License-Identifier: Apache-2.0 */
/*
 * model_int.h - what the files of the model share: refusals, weights, products.
 */
#ifndef KVINFER_MODEL_INT_H
#define KVINFER_MODEL_INT_H

#include "tools/kvinfer/model.h"

/* Text into @msg[KI_TEXT]; returns @err. */
int ki_refuse(char *msg, int err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* ----------------------------------------------------------------- weights */

/* Tensors, in the order of the digest: embedding, each layer's, the last two. */
enum ki_weight {
	KI_EMBED,
	KI_NORM1, KI_WQ, KI_WK, KI_WV, KI_WO, KI_NORM2, KI_GATE, KI_UP, KI_DOWN,
	KI_NORM, KI_OUT,
	NR_KI_WEIGHT
};

const char *ki_weight_name(unsigned w);			/* "embed", ...; NULL: no such */
bool ki_weight_in_layer(enum ki_weight w);
/* Rows and columns of the whole tensor; a norm is one row. */
void ki_weight_dims(const struct ki_shape *s, enum ki_weight w, uint64_t *ret_rows,
		    uint64_t *ret_cols);

/* Where weights come from: the same rows whoever asks, in whatever pieces. */
struct ki_source {
	/* Rows first .. first + nr - 1 of the whole tensor to @out; @layer: 0 if in none. */
	int (*rows)(struct ki_source *src, enum ki_weight w, uint32_t layer, uint64_t first,
		    uint64_t nr, float *out, char *msg);
	bool tied;			/* KI_OUT is KI_EMBED: one copy on the device */
};

/* A model of checked shape @s with this rank's part of what @src has. */
int ki_model_fill(struct kn_dev *dev, const struct ki_shape *s, uint32_t rank, uint32_t nr_ranks,
		  struct ki_source *src, struct ki_model **ret_m, char *msg);

/* ---------------------------------------------------------------- products */

/* A library. Its functions return 0 or -EIO with text in @msg. */
struct ki_gemm_lib {
	const char *name;
	/* -ENOENT: not there; -ENOTSUP: there, and of no use; @msg says why. */
	int (*open)(struct kn_dev *dev, int threads, void **ret_lib, char *msg);
	int (*gemm)(void *lib, uint32_t m, uint32_t n, uint32_t k, const float *a, const float *b,
		    float *c, char *msg);
	void (*close)(void *lib);
};
extern const struct ki_gemm_lib ki_gemm_openblas, ki_gemm_cublas;

const char *ki_gemm_error(const struct ki_gemm *g);	/* why ki_gemm() failed */

#endif
