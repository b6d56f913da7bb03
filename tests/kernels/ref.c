// SPDX-License-Identifier: Apache-2.0
/*
 * ref.c - see ref.h. Random numbers are SplitMix64 (Steele, Lea, Flood, OOPSLA 2014),
 * normal ones by Box and Muller.
 */
#include "tests/kernels/ref.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t ref_rand(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

uint32_t ref_below(uint64_t *state, uint32_t n)
{
	return (uint32_t)((ref_rand(state) >> 32) * n >> 32);
}

static double unit(uint64_t *state)
{
	return (double)(ref_rand(state) >> 11) * 0x1p-53;
}

float ref_uniform(uint64_t *state, float lo, float hi)
{
	return (float)(lo + unit(state) * ((double)hi - lo));
}

float ref_normal(uint64_t *state)
{
	double r = sqrt(-2 * log(1 - unit(state)));

	return (float)(r * cos(2 * M_PI * unit(state)));
}

void ref_fill_uniform(uint64_t *state, float *p, size_t n, float lo, float hi)
{
	for (size_t i = 0; i < n; i++)
		p[i] = ref_uniform(state, lo, hi);
}

void ref_fill_normal(uint64_t *state, float *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = ref_normal(state);
}

float ref_finite(uint64_t *state)
{
	uint32_t u;

	do {
		u = (uint32_t)(ref_rand(state) >> 32);
	} while ((u & 0x7f800000u) == 0x7f800000u);
	return kn_float(u);
}

float ref_round(uint32_t dtype, float v)
{
	float room;

	kn_store(&room, 0, dtype, v);
	return kn_load(&room, 0, dtype);
}

bool ref_within(const char *what, const float *got, const double *want, const double *bound,
		size_t n)
{
	for (size_t i = 0; i < n; i++) {
		/* Not "> bound": NaN is not within anything. */
		if (fabs((double)got[i] - want[i]) <= bound[i])
			continue;
		fprintf(stderr, "%s: value %zu is %.9g, should be %.17g +- %.3g, is off by %.3g\n",
			what, i, (double)got[i], want[i], bound[i], fabs(got[i] - want[i]));
		return false;
	}
	return true;
}

bool ref_same(const char *what, const float *got, const float *want, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (kn_bits(got[i]) == kn_bits(want[i]))
			continue;
		fprintf(stderr, "%s: value %zu is %.9g (%08x), should be %.9g (%08x)\n", what, i,
			(double)got[i], kn_bits(got[i]), (double)want[i], kn_bits(want[i]));
		return false;
	}
	return true;
}

void *ref_alloc(size_t bytes)
{
	size_t whole = (bytes + 63) & ~(size_t)63;
	void *p = aligned_alloc(64, whole ? whole : 64);

	ck_assert_ptr_nonnull(p);
	return memset(p, 0, whole ? whole : 64);
}

struct kn_dev *ref_cpu(void)
{
	static struct kn_dev *cpu;

	if (!cpu)
		ck_assert_int_eq(kn_cpu_open(&cpu), 0);
	return cpu;
}

void ref_launch(enum kn_kernel k, unsigned x, unsigned y, unsigned z, unsigned threads,
		const void *args)
{
	int r = kn_launch(ref_cpu(), k, x, y, z, threads, args);

	if (r)
		ck_abort_msg("%s over %u * %u * %u blocks of %u: %d", kn_kernel_name(k), x, y, z,
			     threads, r);
}
