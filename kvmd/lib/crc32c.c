// SPDX-License-Identifier: Apache-2.0
/*
 * crc32c.c - see crc32c.h.
 */
#include "kvmd/lib/crc32c.h"

/* What four bits do to the register. */
static const uint32_t nibble[16] = {
	0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
	0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
};

uint32_t crc32c_table(const void *p, size_t bytes)
{
	const uint8_t *at = p;
	uint32_t crc = UINT32_MAX;

	for (; bytes; bytes--) {
		crc ^= *at++;
		crc = crc >> 4 ^ nibble[crc & 15];
		crc = crc >> 4 ^ nibble[crc & 15];
	}
	return ~crc;
}

CRC32C_TARGET static uint32_t crc32c_insn(const uint8_t *at, size_t bytes)
{
	uint32_t crc = UINT32_MAX;
	uint64_t word;

	for (; bytes >= sizeof(word); bytes -= sizeof(word), at += sizeof(word)) {
		memcpy(&word, at, sizeof(word));
		crc = crc32c_insn8(crc, word);
	}
	for (; bytes; bytes--)
		crc = crc32c_insn1(crc, *at++);
	return ~crc;
}

uint32_t crc32c(const void *p, size_t bytes)
{
	return crc32c_has_insn() ? crc32c_insn(p, bytes) : crc32c_table(p, bytes);
}
