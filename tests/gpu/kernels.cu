// SPDX-License-Identifier: Apache-2.0
//
// kernels.cu - what the questions of owed.h run on a GPU: one kernel that writes,
// one that reads. The pattern is that of owed_pattern().

#include <stdint.h>

__device__ static uint64_t word(uint64_t seed, uint64_t i)
{
	return seed * 0x9e3779b97f4a7c15ull + i * 0xbf58476d1ce4e5b9ull;
}

extern "C" __global__ void owed_fill(uint64_t *p, uint64_t n, uint64_t seed)
{
	uint64_t step = (uint64_t)gridDim.x * blockDim.x;

	for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)
		p[i] = word(seed, i);
}

extern "C" __global__ void owed_count(const uint64_t *p, uint64_t n, uint64_t seed,
				      unsigned long long *ret_wrong)
{
	uint64_t step = (uint64_t)gridDim.x * blockDim.x;
	unsigned long long wrong = 0;

	for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)
		wrong += p[i] != word(seed, i);
	if (wrong)
		atomicAdd(ret_wrong, wrong);
}
