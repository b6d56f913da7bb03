/* SPDX-License-Identifier: Apache-2.0 */
/*
 * model.h - a transformer in the form of Llama: its shape, its weights, one step.
 *
 * Pre-norm blocks (RMSNorm), attention with grouped heads and RoPE, SwiGLU, untied
 * output. Weights and activations are fp32, K and V what the cache says. A step is a
 * list of rows, each one token of some sequence; all GEMMs of a step have as many
 * rows as the step's shape says, whatever is in them, so that a token's result does
 * not depend on who else is in the step.
 */
#ifndef KVINFER_MODEL_H
#define KVINFER_MODEL_H

#include "kernels/kernels.h"

#define KI_MAX_LAYERS	256u
#define KI_TEXT		256u	/* refusals, with the NUL */

struct ki_shape {
	uint32_t vocab, dim, layers, heads, kv_heads, head_dim, ffn;
	uint32_t max_tokens;		/* positions */
	float theta, eps;
};

/* One rank's part of a layer; w*: [out][in]. */
struct ki_layer {
	float *norm1, *wqkv;		/* [dim], [(heads + 2 kv_heads) * head_dim][dim] */
	float *wo;			/* [dim][heads * head_dim] */
	float *norm2, *w13;		/* [dim], [2 * ffn][dim]: gate, then up */
	float *w2;			/* [dim][ffn] */
};

/*
 * Weights in the memory of @dev. With @nr_ranks ranks each has heads / nr_ranks and
 * kv_heads / nr_ranks heads and ffn / nr_ranks of the inner values of every layer;
 * embedding, norms and output are whole in all.
 */
struct ki_model {
	struct ki_shape shape;		/* of the whole model */
	uint32_t rank, nr_ranks;
	uint32_t heads, kv_heads, ffn;	/* of this rank */
	struct kn_dev *dev;
	float *embed, *norm, *out;	/* [vocab][dim], [dim], [vocab][dim] */
	struct ki_layer *layer;
	/* SHA-256 of shape (without max_tokens) and all weights as fp32 (of all ranks). */
	uint8_t digest[32];
	size_t bytes;			/* of device memory */
};

/* "dim=256,layers=4,heads=8,kv_heads=2,ffn=688,vocab=256,max_tokens=8192": what is not
 * named keeps its value. -EINVAL with the word and what it may be in @msg. */
void ki_shape_init(struct ki_shape *s);		/* the default: a small model */
int ki_shape_parse(struct ki_shape *s, const char *spec, char *msg);
int ki_shape_check(const struct ki_shape *s, uint32_t nr_ranks, char *msg);

/* Weights from a generator: the same for the same shape and seed on every machine. */
int ki_model_random(struct kn_dev *dev, const struct ki_shape *s, uint64_t seed, uint32_t rank,
		    uint32_t nr_ranks, struct ki_model **ret_m, char *msg);
/*
 * From a safetensors file with Hugging Face's names of a Llama (model.embed_tokens.weight,
 * model.layers.0.self_attn.q_proj.weight, ...; lm_head.weight, or tied), F32, F16 or BF16.
 * The shape comes from the tensors, and heads, RoPE base and eps from config.json beside
 * the file, or from the file's __metadata__ (num_attention_heads, num_key_value_heads,
 * rope_theta, rms_norm_eps, max_position_embeddings). Everything is checked against the
 * file's size before it is read; -EINVAL, -EMSGSIZE (cut short), with the tensor in @msg.
 */
int ki_model_load(struct kn_dev *dev, const char *path, uint32_t rank, uint32_t nr_ranks,
		  struct ki_model **ret_m, char *msg);
void ki_model_free(struct ki_model *m);		/* NULL is fine */

/* -------------------------------------------------------------------- gemm */

/*
 * c[m][n] = a[m][k] * b[n][k]: OpenBLAS on the CPU, cuBLAS on a GPU, both found with
 * dlopen; or kn_gemm, slower and always there. A row of c depends on its row of a, on b
 * and on m alone, bit for bit, whatever a library does (gemm.c).
 */
enum ki_gemm_kind { KI_GEMM_AUTO, KI_GEMM_BLAS, KI_GEMM_PLAIN };
struct ki_gemm;
/*
 * AUTO: BLAS if it is there and works, else plain, and @msg says why. @threads: of OpenBLAS,
 * 0: 1. -ENOENT: no library, @msg says which; -ENOTSUP: it does not work on this device.
 */
int ki_gemm_open(struct kn_dev *dev, enum ki_gemm_kind kind, int threads, struct ki_gemm **ret_g,
		 char *msg);
int ki_gemm(struct ki_gemm *g, uint32_t m, uint32_t n, uint32_t k, const float *a, const float *b,
	    float *c);
const char *ki_gemm_name(const struct ki_gemm *g);	/* "openblas", "cublas", "plain" */
void ki_gemm_close(struct ki_gemm *g);

/* ------------------------------------------------------------------- cache */

/*
 * Where K and V are, for each layer: read through @read, written through @write (two
 * mappings of the same bytes in a pool). table: in memory that kernels can read.
 */
struct ki_cache {
	struct kn_kv read[KI_MAX_LAYERS], write[KI_MAX_LAYERS];
	struct kn_table table;
	uint32_t block_tokens;
	uint32_t dtype;			/* enum kn_dtype */
	uint32_t window, sinks;		/* 0: all tokens are seen */
};

/* ---------------------------------------------------------------- one step */

/* Sums @x[n] (device memory) over the ranks, in the same order in each. 0 or -errno. */
struct ki_reduce {
	int (*sum)(struct ki_reduce *r, float *x, size_t n);
};

struct ki_run;		/* scratch memory for steps of a model */

/* Steps of at most @rows rows over at most @tokens tokens. @reduce: NULL with one rank. */
int ki_run_create(struct ki_model *m, struct ki_gemm *g, uint32_t rows, uint32_t tokens,
		  struct ki_reduce *reduce, struct ki_run **ret_r, char *msg);
void ki_run_free(struct ki_run *r);

struct ki_step {
	uint32_t shape;			/* rows of every GEMM, at least nr */
	uint32_t nr;			/* rows used; row[nr ..] need not be there */
	const int32_t *token;		/* [nr] */
	const struct kn_row *row;	/* [nr] */
	bool one_seq;			/* rows are a run of tokens of one sequence (prefill) */
	uint32_t layers;		/* only so many, then norm and output; 0: all */
	/*
	 * Rows whose logits are wanted: out[0 .. nr_out-1], their GEMM has out_shape rows.
	 * ret_logits: [nr_out][vocab], host memory; NULL: none wanted.
	 */
	uint32_t nr_out, out_shape;
	const uint32_t *out;
	float *ret_logits;
	/*
	 * Softmax mass of each token, summed over layers and heads: [nr][mass_tokens], host; or
	 * NULL. Heads of all ranks: they must all ask, or none. 0 for what a row does not see.
	 */
	float *ret_mass;
	uint32_t mass_tokens;
};

/* Run it: K and V of its rows are in the cache and logits with the caller when it returns. */
int ki_step(struct ki_run *r, const struct ki_cache *c, const struct ki_step *s);
const char *ki_run_error(const struct ki_run *r);	/* why ki_step() failed */

#endif
