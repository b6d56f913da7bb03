// SPDX-License-Identifier: Apache-2.0
/*
 * gemm.cu - a matrix product for where no BLAS is.
 *
 * A block makes a tile of c of TILE_M x TILE_N. Of a and b it takes TILE_K of k at a
 * time to shared memory, b transposed, so that neighbouring columns of c lie side by
 * side; a thread adds to items of ITEM_M rows and ITEM_N columns, whose sums wait in
 * shared memory meanwhile. What is outside of a, b and c counts as 0 and goes nowhere.
 * Each sum starts at 0 and takes one product after the other, whatever m, n and the
 * number of threads: c does not depend on what else is computed.
 */
#include "kernels/kernels.h"
#include "kernels/shim.h"

#define TILE_M	16u
#define TILE_N	64u
#define TILE_K	64u
#define ITEM_M	4u
#define ITEM_N	KN_VEC
#define ROW_N	(TILE_N + KN_ON_GPU)	/* odd on a GPU: columns lie in different banks */
#define NR_ITEM	(TILE_M / ITEM_M * (TILE_N / ITEM_N))

/* The next @nr of k for item @i. */
KN_FN void add_item(float *sum, const float *ta, const float *tb, unsigned i, unsigned nr)
{
	unsigned row = i / (TILE_N / ITEM_N) * ITEM_M, col = i % (TILE_N / ITEM_N) * ITEM_N;
	kn_vec *s0 = (kn_vec *)(sum + row * TILE_N + col);
	kn_vec *s1 = (kn_vec *)(sum + (row + 1) * TILE_N + col);
	kn_vec *s2 = (kn_vec *)(sum + (row + 2) * TILE_N + col);
	kn_vec *s3 = (kn_vec *)(sum + (row + 3) * TILE_N + col);
	kn_vec v0 = *s0, v1 = *s1, v2 = *s2, v3 = *s3;

	ta += row * TILE_K;
	for (unsigned k = 0; k < nr; k++) {
		const kn_vec b = *(const kn_vec *)(tb + k * ROW_N + col);

		v0 += ta[k] * b;
		v1 += ta[TILE_K + k] * b;
		v2 += ta[2 * TILE_K + k] * b;
		v3 += ta[3 * TILE_K + k] * b;
	}
	*s0 = v0;
	*s1 = v1;
	*s2 = v2;
	*s3 = v3;
}

KN_KERNEL(kn_gemm, struct kn_gemm_args)
{
	KN_SHARED(float, ta, TILE_M * TILE_K);
	KN_SHARED(float, tb, TILE_K * ROW_N);
	KN_SHARED(float, sum, TILE_M * TILE_N);
	const unsigned n0 = kn_block.x * TILE_N, m0 = kn_block.y * TILE_M;

	KN_THREADS(t)
		for (unsigned i = t; i < TILE_M * TILE_N; i += kn_threads)
			sum[i] = 0;
	for (unsigned k0 = 0; k0 < a.k; k0 += TILE_K) {
		const unsigned nr = a.k - k0 < TILE_K ? a.k - k0 : TILE_K;

		KN_THREADS(t) {
			for (unsigned i = t; i < TILE_M * TILE_K; i += kn_threads) {
				unsigned m = m0 + i / TILE_K, k = i % TILE_K;

				ta[i] = m < a.m && k < nr ? a.a[(uint64_t)m * a.k + k0 + k] : 0;
			}
			for (unsigned i = t; i < TILE_N * TILE_K; i += kn_threads) {
				unsigned n = n0 + i / TILE_K, k = i % TILE_K;

				tb[k * ROW_N + i / TILE_K] =
					n < a.n && k < nr ? a.b[(uint64_t)n * a.k + k0 + k] : 0;
			}
		}
		KN_THREADS(t)
			for (unsigned i = t; i < NR_ITEM; i += kn_threads)
				add_item(sum, ta, tb, i, nr);
	}
	KN_THREADS(t)
		for (unsigned i = t; i < TILE_M * TILE_N; i += kn_threads) {
			unsigned m = m0 + i / TILE_N, n = n0 + i % TILE_N;

			if (m < a.m && n < a.n)
				a.c[(uint64_t)m * a.n + n] = sum[i];
		}
}
