/* SPDX-License-Identifier: Apache-2.0 */
/*
 * infer_rig.h - a cache for kvinfer's model, and the model in double precision.
 */
#ifndef KVMD_TESTS_KERNELS_INFER_RIG_H
#define KVMD_TESTS_KERNELS_INFER_RIG_H

#include "tools/kvinfer/model.h"

/* Blocks of their own for @seqs sequences of @tokens tokens, in an order of no order. */
struct rig_cache {
	struct ki_cache c;
	char *mem;
	int32_t *table;
};

/* @kv_heads: of the rank that uses it. */
void rig_cache_init(struct rig_cache *r, const struct ki_shape *s, uint32_t kv_heads,
		    uint32_t seqs, uint32_t tokens, uint32_t block_tokens, uint32_t dtype);
void rig_cache_exit(struct rig_cache *r);

/* A model, its products and its steps, on the CPU. */
struct rig {
	struct ki_model *m;
	struct ki_gemm *g;
	struct ki_run *run;
};

/* What fails fails the test. @reduce: of rank @rank of two; NULL: one rank. */
void rig_init(struct rig *r, const struct ki_shape *s, uint64_t seed, enum ki_gemm_kind kind,
	      uint32_t rows, uint32_t tokens, uint32_t rank, struct ki_reduce *reduce);
void rig_exit(struct rig *r);

/* Tokens from .. from + nr - 1 of @token as a run of sequence @seq; logits of the last. */
void rig_prefill(struct rig *r, const struct ki_cache *c, uint32_t shape, uint32_t seq,
		 const int32_t *token, uint32_t from, uint32_t nr, float *logits);
/* One token each of @nr sequences; logits of all. */
void rig_decode(struct rig *r, const struct ki_cache *c, uint32_t shape, uint32_t nr,
		const struct kn_row *row, const int32_t *token, float *logits);
/* All of @token in chunks, then logits of the last alone, in a step of its own. */
void rig_run(struct rig *r, const struct ki_cache *c, uint32_t chunk, uint32_t seq,
	     const int32_t *token, uint32_t nr, float *logits);

/* One sequence through @m, token for token. K and V are rounded as the cache does. */
struct rig_ref {
	const struct ki_model *m;
	uint32_t dtype, window, sinks, layers, len, tokens;
	double *k, *v;			/* [layer][tokens][kv_heads * head_dim] */
	double *logits;			/* [vocab]: of the last token */
	double *mass;			/* [tokens]: of the last token */
};

void rig_ref_init(struct rig_ref *r, const struct ki_model *m, uint32_t dtype, uint32_t tokens);
void rig_ref_token(struct rig_ref *r, int32_t token);
void rig_ref_exit(struct rig_ref *r);

/* The largest |difference|; and of the values of @want. */
double rig_off(const float *got, const double *want, size_t n, double *ret_most);

#endif
