/* SPDX-License-Identifier: Apache-2.0 */
/*
 * on_dev.h - what parts "kernels" and "gpu" share: launches in turn, and attention over
 * blocks that lie in a pool or in memory of this process alone.
 */
#ifndef KVBENCH_ON_DEV_H
#define KVBENCH_ON_DEV_H

#include "kernels/kernels.h"
#include "tools/kvbench/kvbench.h"

/* ---------------------------------------------------------------- on_dev.c */

/* One thing in turn with others: @fn enqueues it once, 0 or -errno. */
struct launch {
	int (*fn)(void *ctx);
	void *ctx;
	double s;			/* of one, the median slice */
};

/*
 * All of them slice by slice, in turn: of a slice counts the host's clock from the first
 * launch to the end of kn_sync(), over as many launches as @slice_ns takes. 0 or -errno.
 */
int launch_turns(struct kn_dev *d, struct launch *l, unsigned nr, uint64_t slice_ns);

/* @bytes of device memory: random values in bf16, normal. 0 or -errno. */
int fill_normal(struct kn_dev *d, void *mem, size_t bytes);

/* ---------------------------------------------------------------- attend.c */

struct attend_shape {
	uint32_t seqs, tokens;		/* of each, a multiple of BENCH_TOKENS */
	uint32_t layers;
	uint32_t q_heads, kv_heads, head_dim;
};

/* K and V of a block in one layer; of a block; slots that sequences of @s need, with 0. */
uint64_t attend_layer_bytes(const struct attend_shape *s);
uint64_t attend_block_bytes(const struct attend_shape *s);
uint32_t attend_slots(const struct attend_shape *s);
/* Bytes of K and V that one run reads. */
uint64_t attend_bytes(const struct attend_shape *s);

enum attend_at {
	ATTEND_PRIVATE,			/* a block is all of its layers, as in one plane */
	ATTEND_LAYERS,			/* private too, each layer a plane of its own */
	ATTEND_POOL,
	ATTEND_POOL_ROWS,		/* by the daemon's own block table */
	NR_ATTEND_AT
};

/*
 * Sequences of one length, as decode finds them: one row each. Where there is a pool the
 * block table is the daemon's, and private memory has the same bytes at the same slots.
 */
struct attend {
	struct kn_dev *d;
	struct attend_shape s;
	char *mem;			/* attend_slots() blocks, the caller's */
	struct kvc *k;			/* NULL: no pool */
	const char *pool;		/* slot 0 */
	int32_t *slots;			/* the table on the device */
	uint64_t stride;		/* entries of a row of it */
	const int32_t *rows;		/* the daemon's own; NULL: kernels cannot read it */
	struct kn_row *row;
	float *q, *part;
	float *out[NR_ATTEND_AT];
	uint32_t layer;			/* the next run's */
};

/* One of its kinds of run, for struct launch. */
struct attend_run {
	struct attend *a;
	enum attend_at at;
};
int attend_launch(void *run);		/* the next layer */

/*
 * @pool: a daemon whose plane_bytes are attend_block_bytes(); NULL: none, and the table
 * is shuffled. @mem is filled. 0, or -errno with @msg.
 */
int attend_open(struct attend *a, struct kn_dev *d, const struct attend_shape *s, void *mem,
		struct kvmd_proc *pool, char *msg, size_t n);
/* Whether @at makes of layer 0, bit for bit, what private memory makes. 0 or -errno. */
int attend_same(struct attend *a, enum attend_at at);
void attend_close(struct attend *a);

/* ------------------------------------------------------------ gpu_codec.c */

#define NR_CODED	6u		/* codecs that make kernels: KVMD_CODEC_WINDOW, ... */

/* Parts of blocks on a GPU: plain, coded, and decoded again. */
struct coding {
	struct kn_dev *d;
	uint32_t parts;
	char *plain, *back;
	struct one_codec {
		struct coding *c;
		unsigned id;		/* enum kvmd_codec_id */
		char *coded;
		void *encode, *decode;	/* struct kn_part, on the device */
		int32_t *status;
		uint32_t *bytes;
		uint64_t moved;		/* bytes read and written, one way */
	} of[NR_CODED];
};
/* @bytes plain. Codes and decodes all once, and looks at it. 0, or -errno with @msg. */
int coding_open(struct coding *c, struct kn_dev *d, uint64_t bytes, char *msg, size_t n);
void coding_close(struct coding *c);
int encode_launch(void *one_codec);
int decode_launch(void *one_codec);

#endif
