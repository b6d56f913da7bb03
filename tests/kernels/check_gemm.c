// SPDX-License-Identifier: Apache-2.0
/*
 * check_gemm.c - the matrix product: each sum in the order of k, whatever is beside it.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/ref.h"
#include "tests/quiet.h"
#include "tests/suite.h"

#define MAX_M	70u
#define MAX_N	200u
#define MAX_K	300u

static float a[MAX_M * MAX_K], b[MAX_N * MAX_K], c[MAX_M * MAX_N + 1];
static float want[MAX_M * MAX_N];
static double exact[MAX_M * MAX_N], bound[MAX_M * MAX_N];

static void product(uint32_t m, uint32_t n, uint32_t k, unsigned threads, const float *from)
{
	struct kn_gemm_args g = { from, b, c, m, n, k, 0 };

	memset(c, 0xff, sizeof(c));
	ref_launch(KN_GEMM, (n + 63) / 64, (m + 15) / 16, 1, threads, &g);
	/* Nothing behind the last one. */
	quiet_assert_uint_eq(kn_bits(c[(size_t)m * n]), 0xffffffffu);
}

/* One product after the other, rounded each time; and what it would be without. */
static void reference(uint32_t m, uint32_t n, uint32_t k)
{
	for (uint32_t i = 0; i < m; i++)
		for (uint32_t j = 0; j < n; j++) {
			double sum = 0, size = 0;
			float s = 0;

			for (uint32_t l = 0; l < k; l++) {
				volatile float p = a[i * k + l] * b[j * k + l];

				s += p;
				sum += (double)a[i * k + l] * b[j * k + l];
				size += fabs((double)a[i * k + l] * b[j * k + l]);
			}
			want[i * n + j] = s;
			exact[i * n + j] = sum;
			bound[i * n + j] = (k + 2) * REF_EPS * size;
		}
}

START_TEST(sums_are_in_the_order_of_k)
{
	static const uint32_t shape[][3] = {
		{ 1, 1, 1 }, { 1, 64, 64 }, { 16, 64, 64 }, { 17, 65, 65 }, { 3, 7, 300 },
		{ 70, 200, 129 }, { 15, 63, 63 }, { 33, 128, 1 }, { 2, 200, 200 },
	};
	static const unsigned threads[] = { 0, 1, 5, 32, 256 };
	uint64_t seed = 1;

	for (size_t i = 0; i < sizeof(shape) / sizeof(shape[0]); i++) {
		const uint32_t m = shape[i][0], n = shape[i][1], k = shape[i][2];

		ref_fill_normal(&seed, a, m * k);
		ref_fill_normal(&seed, b, n * k);
		reference(m, n, k);
		for (size_t t = 0; t < sizeof(threads) / sizeof(threads[0]); t++) {
			product(m, n, k, threads[t], a);
			quiet_assert(ref_same("gemm", c, want, m * n));
			quiet_assert(ref_within("gemm", c, exact, bound, m * n));
		}
	}
}
END_TEST

START_TEST(a_row_alone_is_the_same)
{
	const uint32_t m = 37, n = 100, k = 90;
	uint64_t seed = 2;

	ref_fill_normal(&seed, a, m * k);
	ref_fill_normal(&seed, b, n * k);
	product(m, n, k, 0, a);
	memcpy(want, c, sizeof(want));
	for (uint32_t r = 0; r < m; r++) {
		product(1, n, k, 0, a + r * k);
		quiet_assert(ref_same("alone", c, want + r * n, n));
	}
}
END_TEST

START_TEST(what_is_not_a_number_stays_in_its_row)
{
	const uint32_t m = 18, n = 70, k = 66;
	uint64_t seed = 3;

	ref_fill_normal(&seed, a, m * k);
	ref_fill_normal(&seed, b, n * k);
	product(m, n, k, 0, a);
	memcpy(want, c, sizeof(want));
	for (uint32_t i = 0; i < k; i++)
		a[3 * k + i] = i % 2 ? INFINITY : NAN;
	product(m, n, k, 0, a);
	for (uint32_t j = 0; j < n; j++)
		quiet_assert(isnan(c[3 * n + j]));
	memcpy(c + 3 * n, want + 3 * n, n * sizeof(*c));
	ck_assert(ref_same("others", c, want, m * n));
}
END_TEST

START_TEST(nothing_to_add_up_is_zero)
{
	memset(want, 0, sizeof(want));
	product(5, 9, 0, 0, a);
	ck_assert(ref_same("no k", c, want, 45));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("kernels: gemm");

	suite_test(s, "order", sums_are_in_the_order_of_k, NULL, NULL);
	suite_test(s, "alone", a_row_alone_is_the_same, NULL, NULL);
	suite_test(s, "not a number", what_is_not_a_number_stays_in_its_row, NULL, NULL);
	suite_test(s, "no k", nothing_to_add_up_is_zero, NULL, NULL);
	return suite_run(s);
}
