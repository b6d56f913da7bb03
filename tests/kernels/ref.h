/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ref.h - random input for the kernels' tests, and comparisons with a stated bound.
 */
#ifndef KVMD_TESTS_KERNELS_REF_H
#define KVMD_TESTS_KERNELS_REF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"

/* Half a unit in the last place of a float in [1, 2): the relative error of one operation. */
#define REF_EPS		5.9604644775390625e-8		/* 2^-24 */

/* All of these are functions of *state, which any number starts (SplitMix64). */
uint64_t ref_rand(uint64_t *state);
uint32_t ref_below(uint64_t *state, uint32_t n);	/* 0 .. n - 1; n > 0 */
float ref_uniform(uint64_t *state, float lo, float hi);
float ref_normal(uint64_t *state);
void ref_fill_uniform(uint64_t *state, float *p, size_t n, float lo, float hi);
void ref_fill_normal(uint64_t *state, float *p, size_t n);
/* Any bit pattern of a float that is finite: huge, tiny, denormal, both zeroes. */
float ref_finite(uint64_t *state);

/* @dtype's nearest value to @v: what comes back from it. */
float ref_round(uint32_t dtype, float v);

/*
 * Whether got[i] is within bound[i] of want[i] for all i (bound: absolute; NaN is not).
 * false: says where on stderr, with @what.
 */
bool ref_within(const char *what, const float *got, const double *want, const double *bound,
		size_t n);
/* Whether the bytes are equal; false: says which float is the first that is not. */
bool ref_same(const char *what, const float *got, const float *want, size_t n);

/* Memory that is not there is a failed test; 64-byte aligned, zeroed. */
void *ref_alloc(size_t bytes);

/* The CPU, opened once per process. */
struct kn_dev *ref_cpu(void);
/* Launches on the CPU; anything but 0 is a failed test. */
void ref_launch(enum kn_kernel k, unsigned x, unsigned y, unsigned z, unsigned threads,
		const void *args);

#endif
