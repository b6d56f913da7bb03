/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bytes.h - moving bytes of any alignment, for kernels: wide where it can be.
 */
#ifndef KVMD_KERNELS_BYTES_H
#define KVMD_KERNELS_BYTES_H

#include <string.h>

#include "kernels/shim.h"

struct alignas(16) kn_wide {
	uint32_t w[4];
};

/* @n bytes (a power of two) that start anywhere at a multiple of @least. */
template <unsigned n, unsigned least> KN_FN void kn_read(void *to, const void *p)
{
	if ((uintptr_t)p % n == 0)
		memcpy(to, __builtin_assume_aligned(p, n), n);
	else
		memcpy(to, __builtin_assume_aligned(p, least), n);
}

template <unsigned n, unsigned least> KN_FN void kn_write(void *p, const void *from)
{
	if ((uintptr_t)p % n == 0)
		memcpy(__builtin_assume_aligned(p, n), from, n);
	else
		memcpy(__builtin_assume_aligned(p, least), from, n);
}

/* Thread @lane of @lanes that copy @bytes together; on the CPU there is one. */
KN_FN void kn_copy_bytes(void *to, const void *from, uint64_t bytes, unsigned lane, unsigned lanes)
{
	const uint8_t *s = (const uint8_t *)from;
	uintptr_t any = (uintptr_t)to | (uintptr_t)from | bytes;
	uint8_t *d = (uint8_t *)to;
	struct kn_wide v;
	uint32_t w;

	if (lanes == 1) {
		memcpy(d, s, bytes);
	} else if (any % 16 == 0) {
		for (uint64_t i = 16ull * lane; i < bytes; i += 16ull * lanes) {
			kn_read<16, 16>(&v, s + i);
			kn_write<16, 16>(d + i, &v);
		}
	} else if (any % 4 == 0) {
		for (uint64_t i = 4ull * lane; i < bytes; i += 4ull * lanes) {
			kn_read<4, 4>(&w, s + i);
			kn_write<4, 4>(d + i, &w);
		}
	} else {
		for (uint64_t i = lane; i < bytes; i += lanes)
			d[i] = s[i];
	}
}

/* How many of @threads are to copy one row: a power of two, or all of them. */
KN_FN unsigned kn_lanes(uint64_t row_bytes, unsigned threads)
{
	unsigned lanes = 1;

	if (!KN_ON_GPU)
		return 1;
	while (lanes < threads && 16ull * lanes < row_bytes)
		lanes *= 2;
	return lanes < threads ? lanes : threads;
}

#endif
