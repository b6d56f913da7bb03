/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sum_impl.h - the ways to copy and to sum: one per instruction set.
 *
 * Each is a file of its own that compiles sum_body.h for its instructions;
 * sum.c takes the best one that the processor has. All give the same checksum,
 * and a sum begun by one can be gone on with by another. Any thread.
 */
#ifndef KVMD_LIB_SUM_IMPL_H
#define KVMD_LIB_SUM_IMPL_H

#include "kvmd/lib/sum.h"

struct sum_impl {
	const char *name;
	bool (*usable)(void);		/* this build and this processor have the instructions */
	void (*start)(struct sum *s);
	void (*add)(struct sum *s, const void *p, size_t bytes);
	uint64_t (*end)(const struct sum *s);
	uint64_t (*of)(const void *p, size_t bytes);
	void (*copy)(void *dst, const void *src, size_t bytes);
	void (*copy_sum)(void *dst, const void *src, size_t bytes, struct sum *s,
			 const void *next, size_t next_bytes);
};

extern const struct sum_impl sum_impl_memcpy, sum_impl_avx2, sum_impl_avx512;

/* The usable ones, best first; NULL beyond the last, which is "memcpy". */
const struct sum_impl *sum_impl_get(unsigned i);

#endif
