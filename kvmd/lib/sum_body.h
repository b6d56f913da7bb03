/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sum_body.h - copy and sum for one instruction set: the inside of sum*.c.
 *
 * Each of them includes it, once, after #define SUM_VECTOR: 512 or 256 (bits; an
 * x86 that has AVX-512F, AVX2), or 0, what every processor has. Where the build
 * is not for x86 the first two are there and never usable.
 *
 * A copy prefetches ahead and writes by streaming stores: cold memory is then
 * moved twice, not three times as by stores that read what they overwrite. A
 * copy that sums takes pieces: the checksum's loads find a piece in the first
 * cache, where the copy of the piece two before it has prefetched it, and the
 * copy's find it there again; while its stores drain the next ones come. (Both
 * lengths were measured; with less distance the checksum waits, and pieces and
 * distance together must fit in the first cache, 32 KiB and more.)
 */
#ifndef KVMD_LIB_SUM_BODY_H
#define KVMD_LIB_SUM_BODY_H

#ifndef SUM_VECTOR
#define SUM_VECTOR	0
#endif

#if defined(__x86_64__) && SUM_VECTOR
#include <immintrin.h>
/* From here on the compiler may use these instructions, and xxhash.h does. */
#if SUM_VECTOR == 512
#define XXH_VECTOR	3	/* XXH_AVX512 */
#define SUM_USABLE	__builtin_cpu_supports("avx512f")
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f"))), apply_to = function)
#else
#pragma GCC target("avx512f")
#endif
#else
#define XXH_VECTOR	2	/* XXH_AVX2 */
#define SUM_USABLE	__builtin_cpu_supports("avx2")
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif
#endif
#endif

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "kvmd/lib/sum_impl.h"

#define LINE		64u
#define PIECE		4096u	/* bytes summed, then copied */
#define AHEAD_COPY	1024u	/* bytes from a prefetch to its use */
#define AHEAD_SUM	8192u
#define STREAM_MIN	1024u	/* bytes; less is left to memcpy() */

/*
 * stream_line() copies 64 bytes to @d, a multiple of 64, past the cache;
 * stream_end() puts these stores before all that follow, as stores are else.
 */
#if !defined(SUM_USABLE)
#define SUM_USABLE	(SUM_VECTOR == 0)
#define HAS_STREAM	0
#define SUM_PREFETCH(p)	((void)(p))
static inline void stream_line(char *d, const char *s)
{
	memcpy(d, s, LINE);
}

static inline void stream_end(void)
{
}
#else
#define HAS_STREAM	1
#define SUM_PREFETCH(p)	_mm_prefetch((p), _MM_HINT_T0)
#if SUM_VECTOR == 512
static inline void stream_line(char *d, const char *s)
{
	_mm512_stream_si512((__m512i *)d, _mm512_loadu_si512(s));
}
#else
static inline void stream_line(char *d, const char *s)
{
	__m256i a = _mm256_loadu_si256((const __m256i *)s);
	__m256i b = _mm256_loadu_si256((const __m256i *)s + 1);

	_mm256_stream_si256((__m256i *)d, a);
	_mm256_stream_si256((__m256i *)d + 1, b);
}
#endif

static inline void stream_end(void)
{
	_mm_sfence();
}
#endif

#if SUM_VECTOR == 512
#define SUM_IMPL	sum_impl_avx512
#define SUM_NAME	"avx512"
#elif SUM_VECTOR == 256
#define SUM_IMPL	sum_impl_avx2
#define SUM_NAME	"avx2"
#else
#define SUM_IMPL	sum_impl_memcpy
#define SUM_NAME	"memcpy"
#endif

static bool usable(void)
{
	return SUM_USABLE;
}

static XXH3_state_t *state_of(struct sum *s)
{
	BUILD_BUG_ON(sizeof(XXH3_state_t) > sizeof(struct sum));
	BUILD_BUG_ON(_Alignof(XXH3_state_t) > _Alignof(struct sum));
	return (XXH3_state_t *)s;
}

static void start(struct sum *s)
{
	(void)XXH3_64bits_reset(state_of(s));	/* fails for NULL only */
}

static void add(struct sum *s, const void *p, size_t bytes)
{
	if (bytes)
		(void)XXH3_64bits_update(state_of(s), p, bytes);
}

static uint64_t end(const struct sum *s)
{
	return XXH3_64bits_digest((const XXH3_state_t *)s);
}

static uint64_t of(const void *p, size_t bytes)
{
	return XXH3_64bits(p, bytes);
}

/* @bytes at @ahead are prefetched meanwhile: whatever is there, that cannot fault. */
static inline void stream(char *d, const char *s, size_t bytes, const char *ahead)
{
	size_t head = -(uintptr_t)d % LINE, at;

	if (!HAS_STREAM || bytes < STREAM_MIN) {
		memcpy(d, s, bytes);
		return;
	}
	memcpy(d, s, head);
	for (at = head; bytes - at >= 4 * LINE; at += 4 * LINE) {
		for (unsigned i = 0; i < 4; i++)
			SUM_PREFETCH(ahead + at + i * LINE);
		for (unsigned i = 0; i < 4; i++)
			stream_line(d + at + i * LINE, s + at + i * LINE);
	}
	for (; bytes - at >= LINE; at += LINE)
		stream_line(d + at, s + at);
	memcpy(d + at, s + at, bytes - at);
}

static void copy(void *dst, const void *src, size_t bytes)
{
	stream(dst, src, bytes, (const char *)src + AHEAD_COPY);
	stream_end();
}

static void copy_sum(void *dst, const void *src, size_t bytes, struct sum *s, const void *next,
		     size_t next_bytes)
{
	const char *from = src, *ahead;
	char *to = dst;
	size_t n, at, to_next;

	for (at = 0; at < bytes; at += n) {
		n = min(bytes - at, (size_t)PIECE);
		add(s, from + at, n);
		ahead = from + at + AHEAD_SUM;
		if (at + AHEAD_SUM >= bytes) {
			/* The last pieces: bring in what comes after, or nothing new. */
			to_next = at + AHEAD_SUM - bytes;
			ahead = next_bytes ? (const char *)next : from + at;
			if (to_next < next_bytes)
				ahead += to_next;
		}
		stream(to + at, from + at, n, ahead);
	}
	stream_end();
}

const struct sum_impl SUM_IMPL = {
	.name = SUM_NAME,
	.usable = usable,
	.start = start,
	.add = add,
	.end = end,
	.of = of,
	.copy = copy,
	.copy_sum = copy_sum,
};

#if defined(__clang__) && HAS_STREAM
#pragma clang attribute pop
#endif

#endif
