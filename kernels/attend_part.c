// SPDX-License-Identifier: Apache-2.0
/*
 * attend_part.c - how much room the pieces of attention take: attend_piece.h's
 * part_floats() for each row, head and piece.
 */
#include "kernels/kernels.h"

size_t kn_attend_part_bytes(uint32_t rows, uint32_t q_heads, uint32_t head_dim, uint32_t pieces)
{
	size_t bytes;

	if (__builtin_mul_overflow((size_t)rows * q_heads, pieces, &bytes) ||
	    __builtin_mul_overflow(bytes, 4 * ((size_t)head_dim + 4), &bytes))
		return SIZE_MAX;
	return bytes;
}
