/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base.h - the words every room uses: atomics, alignment, assertions.
 *
 * Nothing here knows of KV, of rings or of files. Shared-memory accesses go
 * through ld_*()/st_*() so that a reader can grep for them; every acquire
 * names its release in a comment at the call.
 */
#ifndef KVMD_LIB_BASE_H
#define KVMD_LIB_BASE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define ARRAY_SIZE(a)		(sizeof(a) / sizeof((a)[0]))
#define likely(x)		__builtin_expect(!!(x), 1)
#define unlikely(x)		__builtin_expect(!!(x), 0)
#define __must_check		__attribute__((warn_unused_result))
#define __printf(a, b)		__attribute__((format(printf, a, b)))
#define BUILD_BUG_ON(c)		_Static_assert(!(c), #c)

#define container_of(ptr, type, member) \
	((type *)((char *)(ptr) - offsetof(type, member)))

#define min(a, b) ({ __typeof__(a) min_a = (a); __typeof__(b) min_b = (b); \
		     min_a < min_b ? min_a : min_b; })
#define max(a, b) ({ __typeof__(a) max_a = (a); __typeof__(b) max_b = (b); \
		     max_a > max_b ? max_a : max_b; })

/*
 * BUG_ON stops the daemon: only where going on would corrupt somebody else's
 * data. A client's mistake never reaches one.
 */
void bug(const char *file, int line, const char *what) __attribute__((noreturn, cold));
#define BUG_ON(c) do { if (unlikely(c)) bug(__FILE__, __LINE__, #c); } while (0)

#define ld_rlx(p)		__atomic_load_n((p), __ATOMIC_RELAXED)
#define ld_acq(p)		__atomic_load_n((p), __ATOMIC_ACQUIRE)
#define st_rlx(p, v)		__atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define st_rel(p, v)		__atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define smp_mb()		__atomic_thread_fence(__ATOMIC_SEQ_CST)
#define barrier()		__asm__ __volatile__("" ::: "memory")	/* compiler only */

#if defined(__x86_64__)
#define cpu_relax()		__builtin_ia32_pause()
#else
#define cpu_relax()		__asm__ __volatile__("" ::: "memory")
#endif

static inline uint64_t align_up(uint64_t v, uint64_t a)
{
	return (v + a - 1) / a * a;
}

static inline uint64_t div_round_up(uint64_t n, uint64_t d)
{
	return n / d + (n % d != 0);
}

static inline bool is_pow2(uint64_t v)
{
	return v && !(v & (v - 1));
}

static inline uint64_t roundup_pow2(uint64_t v)
{
	return v <= 1 ? 1 : 1ULL << (64 - __builtin_clzll(v - 1));
}

#endif
