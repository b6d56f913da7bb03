// SPDX-License-Identifier: Apache-2.0
/*
 * sample.c - kernels for the fake driver, for its own tests.
 *
 * Built as fakecuda/kernels.so; loaded by cuModuleLoadData("fakecuda:PATH"), run by the
 * thread of a stream, once per launch. The loops over blocks and threads are theirs.
 */
#include <stdint.h>

typedef void kernel(void **args, const unsigned grid[3], const unsigned block[3],
		    unsigned shared_bytes);
kernel sample_add, sample_count;
extern const unsigned sample_add_args[];

/* (uint32_t *p, uint32_t n, uint32_t more) */
const unsigned sample_add_args[] = { sizeof(uint32_t *), sizeof(uint32_t), sizeof(uint32_t), 0 };

void sample_add(void **args, const unsigned grid[3], const unsigned block[3],
		unsigned shared_bytes)
{
	uint32_t *p = *(uint32_t **)args[0], n = *(uint32_t *)args[1], more = *(uint32_t *)args[2];

	(void)shared_bytes;
	for (uint32_t i = 0; i < grid[0] * block[0] && i < n; i++)
		p[i] += more;
}

/* (uint64_t *p), its size not said: adds how often it would run. */
void sample_count(void **args, const unsigned grid[3], const unsigned block[3],
		  unsigned shared_bytes)
{
	uint64_t *p = *(uint64_t **)args[0];

	(void)shared_bytes;
	*p += (uint64_t)grid[0] * grid[1] * grid[2] * block[0] * block[1] * block[2];
}
