/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernels.h - the kernels, their arguments, and where they run.
 *
 * Activations are fp32, row-major. K and V lie in the pool's blocks: struct kn_kv
 * says where one layer's are, a block table says which slots a sequence has. All
 * pointers in arguments are addresses of the device that runs the kernel (struct
 * kn_dev); kernels check nothing of them. Results do not depend on which other rows
 * are in a launch, nor on the number of rows: what a row gets is a function of the
 * row alone, bit for bit. Between a CPU and a GPU they differ in the last bits.
 *
 * Sources: attention, "Attention Is All You Need" (arXiv:1706.03762), computed with
 * a running maximum (arXiv:1805.02867) in pieces of fixed length that are merged in
 * order (arXiv:2311.01282); paged block tables, arXiv:2309.06180; MLA, DeepSeek-V2
 * (arXiv:2405.04434); sinks, arXiv:2309.17453; mass of a token, H2O
 * (arXiv:2306.14048); RoPE, arXiv:2104.09864 in the halves form of Llama; RMSNorm,
 * arXiv:1910.07467; SwiGLU, arXiv:2002.05202; sampling by Gumbel's maximum.
 */
#ifndef KVMD_KERNELS_H
#define KVMD_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/num.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------ shapes */

/*
 * K and V of one layer. Head h of token i of slot s: element i * token_stride +
 * h * head_stride behind k + s * slot_bytes (v likewise), head_dim values in a row.
 * Slot 0 is the pool's zero block, always there; a table entry of 0 names nothing, its tokens
 * are not there. What is read is the stored value times k_scale or v_scale; what is
 * written is divided by it (1 but for fp8).
 */
struct kn_kv {
	void *k, *v;
	uint64_t slot_bytes;
	uint32_t token_stride, head_stride;	/* values */
	uint32_t block_tokens;
	uint32_t dtype;				/* enum kn_dtype, never KN_F32 */
	float k_scale, v_scale;
};

/*
 * One row of a step: a token of a sequence. Its own K and V are number len - 1 of
 * the sequence, and it sees those before and its own. @pos is where it is in the
 * text, for RoPE: len - 1 unless tokens were thrown out before it.
 */
struct kn_row {
	uint32_t seq;				/* row of the block table */
	uint32_t pos;
	uint32_t len;				/* 0: a row that only fills up a shape */
	uint32_t resv;
};

/* Slot of block i of sequence s: table[s * stride + i]. */
struct kn_table {
	const int32_t *slot;
	uint64_t stride;			/* entries */
};

/* --------------------------------------------------------------- arguments */

/* out[r] = table[token[r]]; grid: rows. A token outside the vocabulary is 0. */
struct kn_embed_args {
	const int32_t *token;
	const float *table;			/* [vocab][dim] */
	float *out;				/* [rows][dim] */
	uint32_t rows, dim, vocab, resv;
};

/* out = in / sqrt(mean(in^2) + eps) * weight; in == out is fine. grid: rows */
struct kn_norm_args {
	const float *in, *weight;
	float *out;
	uint32_t rows, dim;
	float eps;
	uint32_t resv;
};

/*
 * Rotates q and k in place, and stores k and v as token len - 1 of the row's
 * sequence. qkv: [rows][q_heads + 2 * kv_heads][head_dim]. Rows of len 0, or whose
 * table entry is 0, store nothing. head_dim is even. theta: RoPE's base. grid: rows
 */
struct kn_rope_args {
	float *qkv;
	struct kn_kv kv;
	struct kn_table table;
	const struct kn_row *row;
	uint32_t rows, q_heads, kv_heads, head_dim;
	float theta;
	uint32_t resv;
};

/* out = silu(in[0 .. n-1]) * in[n .. 2n-1] in each row of 2n. grid: rows, any */
struct kn_swiglu_args {
	const float *in;			/* [rows][2 * n] */
	float *out;				/* [rows][n] */
	uint32_t rows, n;
};

/* x += y. grid: any */
struct kn_add_args {
	float *x;
	const float *y;
	uint64_t n;
};

/*
 * c[m][n] = sum over k of a[m][k] * b[n][k]: b is a weight of [out][in]. For where no
 * BLAS is: plain, each sum in the order of k. grid: ceil(n / 64), ceil(m / 16)
 */
struct kn_gemm_args {
	const float *a, *b;
	float *c;
	uint32_t m, n, k, resv;
};

/*
 * One token per row: temperature 0, the largest (the first of equals); else
 * Gumbel's maximum over the top_k largest (0: all), noise from seed[r] and the
 * token's number alone (Philox 4x32-10). logprob (may be NULL): natural logarithm
 * of the token's probability at temperature 1. grid: rows
 */
struct kn_sample_args {
	const float *logits;			/* [rows][vocab] */
	const uint64_t *seed;			/* [rows] */
	int32_t *token;				/* [rows] */
	float *logprob;				/* [rows] */
	uint32_t rows, vocab, top_k;
	float temperature;
};

/*
 * Attention of q over the sequence's tokens; MHA, GQA and MQA by kv_heads (a divisor
 * of q_heads). Row r sees tokens 0 .. len - 1; with window > 0 of these the first
 * `sinks' and the last `window'. Rows of len 0 get zeros, as do rows that see nothing.
 *
 * KN_ATTEND writes the piece of KN_SPLIT tokens from piece * KN_SPLIT on (grid:
 * rows, kv_heads, pieces = ceil(longest len / KN_SPLIT)) to part; KN_ATTEND_MERGE
 * (grid: rows, q_heads) makes out of it. Whether a token is in a piece depends on its
 * number alone, and pieces that nothing of is seen are skipped: results are those of
 * any other launch.
 *
 * mass (may be NULL; MERGE does it after out): [rows][mass_stride], for each token the
 * sum over heads of its softmax weight; 0 where the row does not see it.
 *
 * Error, against exact arithmetic on q and what is stored; u = 2^-24. A value of out is
 * off by at most eps * the sum of |weight * v| + e^-87 * len * the largest |v|, where eps
 * = e^(2d + (800 + 200 * pieces) u) - 1, and d = (head_dim + 4) u * the largest sum of
 * |q * k| * scale * k_scale of a token that is seen: twice what a score is off by, what
 * exp, sums and merges add, and weights below e^-87, which are 0. mass: eps + q_heads * u
 * of itself, and e^-87 * q_heads. Scores of any finite size are fine; a sum q . k that is
 * infinite or NaN makes its row and head NaN, and no other (-infinity: weighs nothing).
 *
 * Fast (16 bytes at a time) where the addresses of k, v and of each token's values are
 * multiples of 16.
 */
#define KN_SPLIT	256u
struct kn_attend_args {
	struct kn_kv kv;
	struct kn_table table;
	const struct kn_row *row;
	const float *q;				/* row r: q + r * q_stride; [q_heads][head_dim] */
	float *out;				/* [rows][q_heads][head_dim] */
	float *part;				/* kn_attend_part_bytes() */
	float *mass;
	uint64_t q_stride, mass_stride;		/* values */
	uint32_t rows, q_heads, kv_heads, head_dim;	/* head_dim <= 256, multiple of 8 */
	uint32_t window, sinks;
	uint32_t pieces;
	float scale;				/* of q.k: 1 / sqrt(head_dim) */
};
size_t kn_attend_part_bytes(uint32_t rows, uint32_t q_heads, uint32_t head_dim, uint32_t pieces);

/*
 * The same result, bit for bit, for many rows of one sequence at once (prefill): rows
 * first .. of a chunk share each tile of K and V. grid: ceil(rows / KN_PREFILL_ROWS),
 * kv_heads. Rows of a launch have one seq; those of a block better be neighbours, so
 * that they see the same blocks. part and mass are not used.
 */
#define KN_PREFILL_ROWS	16u

/*
 * MLA in its latent form: one latent of kv_dim values and rope_dim rotated key values
 * per token, in one array [token][kv_dim + rope_dim] at kv.k (kv.v, heads not used);
 * q is absorbed: [rows][q_heads][kv_dim + rope_dim]; out: [rows][q_heads][kv_dim], to be
 * multiplied by the value projection. score = scale * (q . whole), value = latent.
 * KN_MLA (grid: rows, ceil(q_heads / KN_MLA_HEADS), pieces) and KN_MLA_MERGE (grid: rows,
 * q_heads) as above, part: kn_attend_part_bytes(rows, q_heads, kv_dim, pieces). kv_dim <= 512
 * and rope_dim <= 128, multiples of 8; v_scale is not used.
 */
#define KN_MLA_HEADS	16u
struct kn_mla_args {
	struct kn_kv kv;
	struct kn_table table;
	const struct kn_row *row;
	const float *q;
	float *out;
	float *part;
	uint32_t rows, q_heads, kv_dim, rope_dim;
	uint32_t window, sinks;
	uint32_t pieces;
	float scale;
};

#include "kernels/blocks.h"

/* ----------------------------------------------------------------- kernels */

/* X(enum, name, arguments). */
#define KN_KERNELS(X) \
	X(KN_EMBED, kn_embed, struct kn_embed_args) \
	X(KN_NORM, kn_norm, struct kn_norm_args) \
	X(KN_ROPE, kn_rope, struct kn_rope_args) \
	X(KN_SWIGLU, kn_swiglu, struct kn_swiglu_args) \
	X(KN_ADD, kn_add, struct kn_add_args) \
	X(KN_GEMM, kn_gemm, struct kn_gemm_args) \
	X(KN_SAMPLE, kn_sample, struct kn_sample_args) \
	X(KN_ATTEND, kn_attend, struct kn_attend_args) \
	X(KN_ATTEND_MERGE, kn_attend_merge, struct kn_attend_args) \
	X(KN_PREFILL, kn_prefill, struct kn_attend_args) \
	X(KN_MLA, kn_mla, struct kn_mla_args) \
	X(KN_MLA_MERGE, kn_mla_merge, struct kn_mla_args) \
	KN_BLOCK_KERNELS(X)

#define KN_ENUM_(id, name, args)	id,
enum kn_kernel { KN_KERNELS(KN_ENUM_) NR_KN_KERNEL };
#undef KN_ENUM_

const char *kn_kernel_name(unsigned k);	/* "kn_embed", ...; NULL: no such */

#define KN_MAX_THREADS	256u		/* of a block */

/* ------------------------------------------------------------------ devices */

/*
 * Where kernels run: the CPU, in the calling thread, or one GPU, in its primary
 * context on a stream of its own, by the driver API. One thread at a time.
 */
struct kn_dev;

int kn_cpu_open(struct kn_dev **ret_d);
/*
 * GPU @ordinal of this process. -ENODEV: no driver or no such GPU, -ENOTSUP: built
 * without nvcc and no $KVMD_KERNELS (an image to load instead of the embedded ones,
 * "fakecuda:PATH" on the fake driver); @msg says what to do.
 */
int kn_cuda_open(int ordinal, struct kn_dev **ret_d, char *msg, size_t msg_bytes);
void kn_close(struct kn_dev *d);		/* waits for what was launched; NULL is fine */
const char *kn_dev_name(const struct kn_dev *d);	/* "cpu", or the GPU's name */
bool kn_is_cuda(const struct kn_dev *d);
void *kn_stream(const struct kn_dev *d);	/* CUstream; NULL on the CPU */

/* Memory of the device, not set. NULL: none left. */
void *kn_alloc(struct kn_dev *d, size_t bytes);
void kn_free(struct kn_dev *d, void *p);	/* waits for what was launched; NULL is fine */
/* In order with launches; @host may be reused at once. get waits for the bytes. */
int kn_put(struct kn_dev *d, void *dst, const void *host, size_t bytes);
int kn_get(struct kn_dev *d, void *host, const void *src, size_t bytes);
int kn_zero(struct kn_dev *d, void *dst, size_t bytes);
int kn_copy(struct kn_dev *d, void *dst, const void *src, size_t bytes);	/* within it */

/*
 * Enqueue (CPU: run) kernel @k over grid x * y * z of blocks of @threads (at most
 * KN_MAX_THREADS; 0: what suits the kernel and the device); @args is copied. -EINVAL;
 * -EIO: the GPU failed, now or before (kn_error() says how).
 */
int kn_launch(struct kn_dev *d, enum kn_kernel k, unsigned x, unsigned y, unsigned z,
	      unsigned threads, const void *args);
int kn_sync(struct kn_dev *d);
const char *kn_error(const struct kn_dev *d);	/* of the last -EIO; "" if none */

#ifdef __cplusplus
}
#endif

#endif
