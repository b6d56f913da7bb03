/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec_window_impl.h - the ways to do window's exponent coding: one per instruction set.
 *
 * Each is a file of its own that compiles codec_window_body.h for its instructions;
 * codec_window.c takes the best one that the processor has. All write the same bits.
 * They are handed the three parts of a coded block (codec.h). Any thread.
 */
#ifndef KVMD_TIER_CODEC_WINDOW_IMPL_H
#define KVMD_TIER_CODEC_WINDOW_IMPL_H

#include "kvmd/lib/base.h"
#include "kvmd/tier/codec_form.h"

/* Where the parts of a coded block lie. */
struct window_parts {
	uint8_t *rest;		/* [values] sign and mantissa */
	uint8_t *codes;		/* [(values + 1) / 2] */
	uint8_t *escapes;	/* [nr_escapes] */
	size_t nr_escapes;	/* encode: that there is room for */
};

struct window_impl {
	const char *name;
	bool (*usable)(void);		/* this build and this processor have the instructions */
	/* Returns how many escapes there are; above p->nr_escapes: they do not fit. */
	size_t (*encode)(const uint16_t *src, size_t nr, uint8_t base,
			 const struct window_parts *p);
	/* False: not what encode() writes. The parts are only read. */
	bool (*decode)(const struct window_parts *p, size_t nr, uint8_t base, uint16_t *dst);
};

extern const struct window_impl window_impl_plain, window_impl_avx2, window_impl_avx512;

/* The usable ones, best first; NULL beyond the last, which is "plain". */
const struct window_impl *window_impl_get(unsigned i);

#endif
