/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shim.h - one source of a kernel for nvcc and for a C++ compiler.
 *
 * A kernel is a row of phases. Each phase is a KN_THREADS() loop over the threads of
 * a block, and between two phases all threads meet: on a GPU the loop runs once, with
 * the thread's number, and ends with __syncthreads(); on the CPU it is a loop.
 *
 *	KN_KERNEL(kn_sum, struct kn_sum_args)
 *	{
 *		KN_SHARED(float, part, KN_MAX_THREADS);
 *		KN_PRIV(float, mine);
 *
 *		KN_THREADS(t)
 *			KN_MY(mine, t) = ...;
 *		KN_THREADS(t)
 *			part[t] = KN_MY(mine, t);
 *	}
 *
 * What is declared outside of phases and not KN_PRIV has one value per block: it is
 * computed from @a (the arguments), kn_block, kn_grid and kn_threads alone, or from
 * shared memory written in an earlier phase. Inside a phase `continue' is fine; break
 * and return out of it are not. Blocks know nothing of one another.
 *
 * KN_EACH(i, t, n), in a phase: thread t's share of the numbers below n (32 bits), on a
 * GPU every kn_threads-th, so that neighbours are of neighbouring threads, on the CPU a
 * run. KN_CONST: of a table outside of kernels. A KN_FN that has phases of its own takes
 * KN_CTX first, and is handed KN_CTX_ARGS.
 *
 * The arguments are one struct, passed by value. On the CPU a kernel is a function
 * kn_host_fn that runs all blocks one after the other, in the calling thread; with
 * `NAME_args', the sizes of its arguments, a fake driver can run it too.
 *
 * No C++ library, no exceptions, no statics with constructors: C programs link this.
 */
#ifndef KVMD_KERNELS_SHIM_H
#define KVMD_KERNELS_SHIM_H

#include <stdint.h>

#include "kernels/kernels.h"

/*
 * kn_vec: KN_VEC neighbouring floats that are added and multiplied at once, at any
 * address of floats; a GPU's threads take one each. KN_ON_GPU: which of the two it is,
 * for sizes that differ.
 */
#ifdef __CUDACC__

#define KN_ON_GPU	1
#define KN_VEC		1u
typedef float kn_vec;

#define KN_FN		static __device__ __forceinline__
#define KN_SHARED(type, name, n)	__shared__ type name[n]
#define KN_PRIV(type, name)		type name[1]
#define KN_MY(name, t)			name[0]
#define KN_THREADS(t) \
	for (unsigned t = threadIdx.x, kn_once_ = 1; kn_once_; kn_once_ = 0, __syncthreads())
#define KN_EACH(i, t, n)	for (uint32_t i = (t); i < (n); i += kn_threads)
#define KN_CONST	static __constant__ const
#define KN_CTX		int
#define KN_CTX_ARGS	0
#define kn_block	blockIdx
#define kn_grid		gridDim
#define kn_threads	blockDim.x
#define KN_KERNEL(name, type) \
	extern "C" __global__ void __launch_bounds__(KN_MAX_THREADS, 2) name(const type a)
#define kn_atomic_add(p, v)	atomicAdd((p), (v))

#else

#include <math.h>
#include <string.h>

#define KN_ON_GPU	0
#define KN_VEC		8u
typedef float kn_vec __attribute__((vector_size(4 * KN_VEC), aligned(4), may_alias));

struct kn_dim3 {
	unsigned x, y, z;
};

#define KN_FN		static inline
/* One block runs at a time in a thread. */
#define KN_SHARED(type, name, n)	static __thread type name[n]
#define KN_PRIV(type, name)		static __thread type name[KN_MAX_THREADS]
#define KN_MY(name, t)			name[t]
#define KN_THREADS(t)	for (unsigned t = 0; t < kn_threads; t++)
#define KN_EACH(i, t, n) \
	for (uint32_t i##_per = ((n) + kn_threads - 1) / kn_threads, i = i##_per * (t), \
	     i##_end = i + i##_per < (n) ? i + i##_per : (n); i < i##_end; i++)
#define KN_CONST	static const
#define KN_CTX \
	[[maybe_unused]] const kn_dim3 kn_block, [[maybe_unused]] const kn_dim3 kn_grid, \
	[[maybe_unused]] const unsigned kn_threads
#define KN_CTX_ARGS	kn_block, kn_grid, kn_threads
#define KN_KERNEL(name, type) \
	static void name##_of_block(const type &a, const kn_dim3 kn_block, const kn_dim3 kn_grid, \
				    const unsigned kn_threads); \
	extern "C" { \
	extern const unsigned name##_args[]; \
	const unsigned name##_args[] = { sizeof(type), 0 }; \
	void name(void **args, const unsigned grid[3], const unsigned block[3], unsigned shared); \
	void name(void **args, const unsigned grid[3], const unsigned block[3], unsigned shared) \
	{ \
		const kn_dim3 g = { grid[0], grid[1], grid[2] }; \
		(void)shared; \
		for (unsigned z = 0; z < g.z; z++) \
			for (unsigned y = 0; y < g.y; y++) \
				for (unsigned x = 0; x < g.x; x++) \
					name##_of_block(*(const type *)args[0], { x, y, z }, g, \
							block[0]); \
	} \
	} \
	static void name##_of_block(const type &a, [[maybe_unused]] const kn_dim3 kn_block, \
				    [[maybe_unused]] const kn_dim3 kn_grid, \
				    [[maybe_unused]] const unsigned kn_threads)
/* Blocks run one after the other, and so do threads. */
template <typename T> KN_FN T kn_atomic_add(T *p, T v)
{
	T was = *p;

	*p = was + v;
	return was;
}

#endif
#endif
