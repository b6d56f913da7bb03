/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec_lossy.h - the ways to code values by fp8, int8, int4 and kivi2: one per
 * instruction set, all of which write the same bits.
 *
 * "plain" is codec_form.h's arithmetic value by value, and does every shape; the others
 * are codec_lossy_body.h, compiled for their instructions by a file each. They are
 * handed the parts of an encoded block behind its header (codec.h). Any thread.
 */
#ifndef KVMD_TIER_CODEC_LOSSY_H
#define KVMD_TIER_CODEC_LOSSY_H

#include "kvmd/lib/base.h"
#include "kvmd/tier/codec_form.h"

#define LOSSY_AT_ONCE	32u	/* values; a shape with groups of whole ones is "even" */

struct lossy_impl {
	const char *name;
	bool (*usable)(void);	/* this build and this processor have the instructions */
	void (*fp8_encode)(const struct codec_fp8 *f, const uint16_t *src, size_t nr, uint8_t *to);
	/* False: there is a code that is never written, here as below. */
	bool (*fp8_decode)(const struct codec_fp8 *f, const uint8_t *from, size_t nr,
			   uint16_t *dst);
	/* int8, int4: @bits of a code. 0, -EDOM, -ERANGE: codec.h. Vectors: an even shape. */
	int (*whole_encode)(const struct codec_shape *s, unsigned bits, const uint16_t *src,
			    uint8_t *scales, uint8_t *codes);
	bool (*whole_decode)(const struct codec_shape *s, unsigned bits, const uint8_t *scales,
			     const uint8_t *codes, uint16_t *dst);
	/* kivi2; the same. */
	int (*kivi_encode)(const struct codec_shape *s, const uint16_t *src, uint8_t *ranges,
			   uint8_t *codes);
	bool (*kivi_decode)(const struct codec_shape *s, const uint8_t *ranges,
			    const uint8_t *codes, uint16_t *dst);
	float (*worst)(const uint16_t *a, const uint16_t *b, size_t nr);	/* codec_worst() */
};

extern const struct lossy_impl lossy_impl_plain, lossy_impl_avx2, lossy_impl_avx512;

/* The usable ones, best first; NULL beyond the last, which is "plain". */
const struct lossy_impl *lossy_impl_get(unsigned i);
/* The one to be used for a shape: the best one, unless that shape is not for it. */
const struct lossy_impl *lossy_impl(const struct codec_shape *s);
/* For tests: @im instead of the best one from now on; NULL: the best one again. */
void lossy_impl_use(const struct lossy_impl *im);

#endif
