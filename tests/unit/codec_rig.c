// SPDX-License-Identifier: Apache-2.0
/*
 * codec_rig.c - memory and values for the tests of codecs.
 */
#include "tests/unit/codec_rig.h"

#include <check.h>
#include <math.h>
#include <sys/mman.h>

#include "kvmd/tier/codec_int.h"

uint8_t *ct_area[4];
static uint64_t rnd_state = 0x9e3779b97f4a7c15;

uint64_t ct_rnd(uint64_t below)
{
	rnd_state ^= rnd_state << 13;
	rnd_state ^= rnd_state >> 7;
	rnd_state ^= rnd_state << 17;
	return rnd_state % below;
}

void ct_setup(void)
{
	for (unsigned i = 0; i < ARRAY_SIZE(ct_area); i++) {
		ct_area[i] = mmap(NULL, SPAN + 4096, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		ck_assert_ptr_ne(ct_area[i], MAP_FAILED);
		ck_assert_int_eq(mprotect(ct_area[i] + SPAN, 4096, PROT_NONE), 0);
	}
}

void ct_teardown(void)
{
	for (unsigned i = 0; i < ARRAY_SIZE(ct_area); i++)
		munmap(ct_area[i], SPAN + 4096);
}

void *ct_tail(unsigned i, size_t bytes)
{
	return ct_area[i] + SPAN - bytes;
}

struct codec_shape ct_row_of(uint32_t n)
{
	return (struct codec_shape){ .tokens = 1, .channels = n };
}

uint16_t ct_rnd_value(unsigned spread)
{
	float f = 0;

	for (unsigned i = 0; i < 4; i++)
		f += (float)ct_rnd(1 << 16) / 65536 - 0.5f;
	return bf16_of_float(ldexpf(f, (int)ct_rnd(spread + 1)));
}
