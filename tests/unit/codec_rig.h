/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec_rig.h - memory that ends where its values end, and values to put there.
 *
 * What reads or writes beyond an area is killed.
 */
#ifndef KVMD_TESTS_CODEC_RIG_H
#define KVMD_TESTS_CODEC_RIG_H

#include "kvmd/tier/codec.h"

#define SPAN	(1u << 18)		/* bytes of an area */
#define VALUES	65536u			/* every bf16 */

extern uint8_t *ct_area[4];	/* each with a hole behind it */

void ct_setup(void);
void ct_teardown(void);
/* The last @bytes of area @i. */
void *ct_tail(unsigned i, size_t bytes);

uint64_t ct_rnd(uint64_t below);
/* About normal, with @spread exponents more. */
uint16_t ct_rnd_value(unsigned spread);
/* @n values in one row, without groups. */
struct codec_shape ct_row_of(uint32_t n);

#endif
