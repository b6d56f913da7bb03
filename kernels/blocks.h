/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blocks.h - kernels that move, clear and code what is in blocks. Part of kernels.h.
 *
 * All of them are bound by memory: fast where addresses, strides and lengths are multiples
 * of 16 bytes, and right anywhere. Any number of threads does. Those that move take bytes
 * as they are, of any dtype.
 */
#ifndef KVMD_KERNELS_BLOCKS_H
#define KVMD_KERNELS_BLOCKS_H

/* Token @from of slot @from_slot to token @to of slot @to_slot. */
struct kn_token_move {
	uint32_t from_slot, from;
	uint32_t to_slot, to;
};

/*
 * Copies K and V of single tokens of one layer, all heads, within blocks: what is left
 * of a sequence after others were thrown out. No slot is both read and written. To slot
 * 0 goes nothing. kv.v may be NULL (MLA: kv_heads is 1, head_dim the whole latent).
 * grid: nr
 */
struct kn_tokens_args {
	struct kn_kv kv;
	const struct kn_token_move *move;
	uint32_t nr, kv_heads, head_dim, resv;
};

/* ------------------------------------------------------------------ layouts */

/*
 * Where the rows of a block lie. A row is what one head has of one token: row_bytes
 * next to each other. That of layer l, part p (0: K, 1: V), token t, head h is at
 *   plane[l * layer_planes + p * part_planes] + slot * slot_bytes +
 *	l * layer_bytes + p * part_bytes + t * token_bytes + h * head_bytes
 * block-major, one plane: layer_planes = part_planes = 0. Layer planes: layer_planes =
 * 1, layer_bytes = 0. K and V apart as well: layer_planes = 2, part_planes = 1,
 * part_bytes = 0. token-major or head-major: which of the last two is the larger.
 */
struct kn_layout {
	void *const *plane;			/* on the device, as what they point to */
	uint64_t slot_bytes, layer_bytes, part_bytes, token_bytes, head_bytes;
	uint32_t layer_planes, part_planes;
};

/*
 * Copies blocks from one layout to another; i of nr goes from slot from_slot[i] to slot
 * to_slot[i]; a list that is NULL stands for 0 .. nr - 1. To a listed slot 0 goes
 * nothing. Nothing written is also read, nor written twice. grid: nr, layers * parts
 *
 * KN_GATHER goes through a block as it lies where it is going to, KN_SCATTER as it lies
 * where it comes from: from or to memory that wants long runs, be it the host's.
 */
struct kn_gather_args {
	struct kn_layout from, to;
	const int32_t *from_slot, *to_slot;
	uint32_t nr, layers, parts, tokens, heads;
	uint32_t row_bytes;
};

/* -------------------------------------------------------------------- scrub */

/*
 * Fills the first @bytes of the nr slots listed (NULL: slots 0 .. nr - 1) of a plane
 * with @pattern over and over, its low byte first. grid: nr, any
 */
struct kn_scrub_args {
	void *plane;
	uint64_t slot_bytes, bytes;		/* bytes <= slot_bytes */
	const int32_t *slot;
	uint32_t nr;
	uint32_t pattern;
};

/* Adds to differ[i] how many bytes of slot i of the list are not so. grid: nr, any */
struct kn_scrub_check_args {
	const void *plane;
	uint64_t slot_bytes, bytes;		/* bytes < 4 GiB */
	const int32_t *slot;
	uint32_t *differ;			/* [nr] */
	uint32_t nr;
	uint32_t pattern;
};

/* ------------------------------------------------------------------- codecs */

/* One part of a block: a grid of bf16 values, and what it is coded as. */
struct kn_part {
	const void *src;
	void *dst;
	uint32_t bytes;		/* encode: room at dst; decode: that are at src */
	uint32_t resv;
};

/*
 * Each part of a launch is coded by a codec of kvmd/tier/codec.h, whose every word
 * holds here: the stored form, the shape, the bounds, what is refused and with which
 * error, how far is written; the bytes are the same, bit for bit, as kvmd's own. The
 * 2-byte values are aligned to 2, coded bytes anyhow. grid: number of parts
 */
struct kn_codec_args {
	const struct kn_part *part;
	int32_t *status;			/* of each: 0 or -errno */
	uint32_t *coded_bytes;			/* of each: 0 where status is not; NULL: not told */
	uint32_t tokens, channels, group, axis;	/* struct codec_shape */
};

/* In the order of enum codec_id (kvmd_codec_id on the wire), of which these make kernels. */
#define KN_ENCODE(id)	((enum kn_kernel)(KN_ENCODE_WINDOW + (id) - 1))
#define KN_DECODE(id)	((enum kn_kernel)(KN_DECODE_WINDOW + (id) - 1))
#define KN_CODEC_KERNELS(X) \
	X(KN_ENCODE_WINDOW, kn_encode_window, struct kn_codec_args) \
	X(KN_ENCODE_FP8_E4M3, kn_encode_fp8_e4m3, struct kn_codec_args) \
	X(KN_ENCODE_FP8_E5M2, kn_encode_fp8_e5m2, struct kn_codec_args) \
	X(KN_ENCODE_INT8, kn_encode_int8, struct kn_codec_args) \
	X(KN_ENCODE_INT4, kn_encode_int4, struct kn_codec_args) \
	X(KN_ENCODE_KIVI2, kn_encode_kivi2, struct kn_codec_args) \
	X(KN_DECODE_WINDOW, kn_decode_window, struct kn_codec_args) \
	X(KN_DECODE_FP8_E4M3, kn_decode_fp8_e4m3, struct kn_codec_args) \
	X(KN_DECODE_FP8_E5M2, kn_decode_fp8_e5m2, struct kn_codec_args) \
	X(KN_DECODE_INT8, kn_decode_int8, struct kn_codec_args) \
	X(KN_DECODE_INT4, kn_decode_int4, struct kn_codec_args) \
	X(KN_DECODE_KIVI2, kn_decode_kivi2, struct kn_codec_args)

#define KN_BLOCK_KERNELS(X) \
	KN_CODEC_KERNELS(X) \
	X(KN_TOKENS, kn_tokens, struct kn_tokens_args) \
	X(KN_GATHER, kn_gather, struct kn_gather_args) \
	X(KN_SCATTER, kn_scatter, struct kn_gather_args) \
	X(KN_SCRUB, kn_scrub, struct kn_scrub_args) \
	X(KN_SCRUB_CHECK, kn_scrub_check, struct kn_scrub_check_args)

#endif
