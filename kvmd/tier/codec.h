/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec.h - codecs for KV: a grid of bf16 values to fewer bytes and back.
 *
 * Pure functions: no allocation, no state, nothing logged; any thread. By the best
 * instructions that the processor has, which write the same bits as all others. What
 * the tiers store of a whole block is made of them by image.h.
 *
 * Shape. The values are a grid of @tokens rows and @channels columns of bf16, row
 * after row without gaps, numbered from 0. A group is, by @axis,
 *   CODEC_PER_TOKEN    @group neighbours in one row, the last of a row may be
 *                      shorter; numbered row after row
 *   CODEC_PER_CHANNEL  @group neighbours in one column, the last rows may be fewer;
 *                      numbered from left to right, then down
 * window and fp8 have no groups: @group and @axis are 0.
 *
 * What is encoded is a header of 64 bytes (codec_form.h) that names codec and shape
 * and has a CRC of its own, then one of these; numbers are little endian, n is the
 * number of values, and bits beyond the last value are zero.
 *
 *   window  lossless. n bytes of sign and mantissa; then 4 bits a value, the
 *           exponent less the block's base, or 15: outside the 15 from the base on,
 *           an escape; then one exponent byte per escape. Values go by 64: code i
 *           of 64 is in the low half of byte i, or for i >= 32 in the high half of
 *           byte i - 32; of m < 64 last ones, halves of h = (m + 1) / 2. The base
 *           covers most of at most 4096 values looked at. A block that would not
 *           shrink is stored raw. After the exponent coding of SplitZip
 *           (arXiv:2605.01708), with escapes found by their code.
 *   fp8     e4m3 and e5m2: one byte a value, OCP 8-bit Floating Point Specification
 *           1.0, round to nearest even, saturating: beyond the largest, infinities
 *           too, becomes the largest (448, 57344). NaN becomes NaN of that sign.
 *   int8    per group a scale in fp16, all of them first; then q = -127..127 a value,
 *           a byte. scale = absmax / 127 rounded up, q = value / scale to nearest
 *           even. A group of zeros has scale 0, and zeros lose their sign.
 *   int4    the same with absmax / 7 and q = -7..7, two in a byte, the first one low.
 *   kivi2   per group a scale in fp16 and the least value in bf16, all of them first;
 *           then q = 0..3 in 2 bits, four in a byte, the first one lowest.
 *           scale = (most - least) / 3 rounded up, q = (value - least) / scale. Keys
 *           are to be grouped per channel, values per token (KIVI, arXiv:2402.02750);
 *           KIVI's residual of recent tokens in full is the caller's.
 *
 * int8, int4 and kivi2 refuse NaN and infinities (-EDOM) and groups whose scale is
 * above fp16's largest, 65504 (-ERANGE): such a block is to be stored by a lossless
 * codec.
 *
 * Bound. What is decoded is rounded to bf16 once more, after the arithmetic. With
 * e = what the codec itself loses, |decoded - v| <= e + (|v| + e) / 256 + 2^-134:
 *   int8    e = absmax / 254 (1 + 2^-10) + 2^-25	(2^-10, 2^-25: the scale's rounding)
 *   int4    e = absmax / 14 (1 + 2^-10) + 2^-25
 *   kivi2   e = (most - least) / 6 (1 + 2^-10) + 2^-25
 * fp8 values are bf16 values, so there |decoded - v| <= e:
 *   e4m3    max(|v| / 16, 2^-10) up to 448, above it |v| - 448
 *   e5m2    max(|v| / 8, 2^-17) up to 57344, above it |v| - 57344
 *
 * Damage. decode() looks at the header, the size and whether every code is one that
 * encode() writes, before it is believed, and reads and writes nothing outside what
 * it was handed; else -EBADMSG. A changed bit that makes another valid code is for
 * the checksum over the stored bytes to find (kvmd/lib/sum.h), not for this room.
 */
#ifndef KVMD_TIER_CODEC_H
#define KVMD_TIER_CODEC_H

#include "kvmd/lib/base.h"
#include "kvmd/tier/codec_form.h"

struct codec_ops {
	enum codec_id id;
	const char *name;
	bool lossless;			/* every bit pattern comes back */
	bool grouped;			/* the shape has groups */
	unsigned nr_axis;		/* axes below it are taken */
	/* Most |decoded - v| for a finite @v in a group of values from @least to @most. */
	double (*bound)(double v, double least, double most);
	/* Most bytes that encode() writes; 0: the shape is not one for this codec. */
	size_t (*encoded_max)(const struct codec_shape *s);
	/*
	 * The values at @src to @dst; *ret_bytes: how many were written. -EINVAL: shape,
	 * -ENOSPC: @dst_bytes is below encoded_max(), -EDOM, -ERANGE: see above; @dst may
	 * have been written to all the same. @src and @dst do not overlap.
	 */
	int (*encode)(const struct codec_shape *s, const uint16_t *src, void *dst,
		      size_t dst_bytes, size_t *ret_bytes);
	/*
	 * Back: @bytes at @src are exactly one encoded block of that shape, else -EBADMSG,
	 * and @dst, of tokens * channels values, holds nothing that may be used. -EINVAL: shape.
	 */
	int (*decode)(const struct codec_shape *s, const void *src, size_t bytes, uint16_t *dst);
};

/* NULL: no such codec, or CODEC_NONE. */
const struct codec_ops *codec_get(uint32_t id);
/* "none", "window", ...; NULL: no such codec. */
const char *codec_name(uint32_t id);
/* The largest difference of @nr values @a, those that are finite, from values @b. */
float codec_worst(const uint16_t *a, const uint16_t *b, size_t nr);
/* How window is done on this processor: "avx512", "avx2", "plain". */
const char *codec_window_by(void);

#endif
