/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crc32c.h - CRC-32C (Castagnoli), as of RFC 3720 section 12.1 and SSE4.2.
 *
 * Reflected polynomial 0x82f63b78, all ones in and out: "123456789" gives
 * 0xe3069283. By the processor's instruction where it has one, chosen at run
 * time; the table gives the same value. Pure functions; any thread.
 */
#ifndef KVMD_LIB_CRC32C_H
#define KVMD_LIB_CRC32C_H

#include "kvmd/lib/base.h"

uint32_t crc32c(const void *p, size_t bytes);
uint32_t crc32c_table(const void *p, size_t bytes);	/* without the instruction */

/* crc32c.c's own: are there instructions, and one step of them. */
#if defined(__x86_64__)
static inline bool crc32c_has_insn(void)
{
	return __builtin_cpu_supports("sse4.2");
}

__attribute__((target("sse4.2"))) static inline uint32_t crc32c_insn8(uint32_t crc, uint64_t v)
{
	return (uint32_t)__builtin_ia32_crc32di(crc, v);
}

__attribute__((target("sse4.2"))) static inline uint32_t crc32c_insn1(uint32_t crc, uint8_t v)
{
	return __builtin_ia32_crc32qi(crc, v);
}
#define CRC32C_TARGET	__attribute__((target("sse4.2")))
#else
static inline bool crc32c_has_insn(void)
{
	return false;
}

static inline uint32_t crc32c_insn8(uint32_t crc, uint64_t v)
{
	return crc ^ (uint32_t)v;	/* never called */
}

static inline uint32_t crc32c_insn1(uint32_t crc, uint8_t v)
{
	return crc ^ v;			/* never called */
}
#define CRC32C_TARGET
#endif

#endif
