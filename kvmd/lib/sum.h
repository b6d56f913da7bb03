/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sum.h - copies of cold memory, and the checksum of a payload.
 *
 * The checksum of everything that leaves HBM is XXH3-64 (xxHash's published
 * format, seed 0) over the page-first bytes of a block, the same however the
 * bytes were cut on their way. mem_copy_cold() stores past the cache (AVX-512,
 * AVX2, else memcpy; chosen at run time); mem_copy_sum() does both in one pass
 * over pieces that stay in the first cache. Any thread.
 */
#ifndef KVMD_LIB_SUM_H
#define KVMD_LIB_SUM_H

#include "kvmd/lib/base.h"

/* A checksum under way; opaque, 64-byte aligned, embedded by the caller. */
struct sum {
	uint64_t state[80];
} __attribute__((aligned(64)));

void sum_start(struct sum *s);
void sum_add(struct sum *s, const void *p, size_t bytes);
uint64_t sum_end(const struct sum *s);
uint64_t sum_of(const void *p, size_t bytes);		/* all at once */

void mem_copy_cold(void *dst, const void *src, size_t bytes);
/* mem_copy_cold() and sum_add() of the same bytes. */
void mem_copy_sum(void *dst, const void *src, size_t bytes, struct sum *s);
/* The same, when the next source is known: it is read ahead of its turn. */
void mem_copy_sum_next(void *dst, const void *src, size_t bytes, struct sum *s,
		       const void *next, size_t next_bytes);
const char *mem_copy_name(void);			/* "avx512", "avx2", "memcpy" */

#endif
