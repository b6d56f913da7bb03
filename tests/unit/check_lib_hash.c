// SPDX-License-Identifier: Apache-2.0
/*
 * check_lib_hash.c - the seeded bucket hash.
 */
#include "kvmd/lib/hash.h"

#include <check.h>

#include "tests/suite.h"

START_TEST(seeds_differ)
{
	struct hash_seed a, b;
	unsigned char key[32] = { 1, 2, 3 };

	ck_assert_int_eq(hash_seed_init(&a), 0);
	ck_assert_int_eq(hash_seed_init(&b), 0);
	ck_assert_mem_ne(&a, &b, sizeof(a));
	ck_assert_uint_ne(hash_key32(&a, key, 0), hash_key32(&b, key, 0));
}
END_TEST

START_TEST(same_seed_same_hash)
{
	struct hash_seed a;
	unsigned char key[33] = { 9, 1, 2, 3 };
	unsigned char copy[32];

	ck_assert_int_eq(hash_seed_init(&a), 0);
	/* From an odd address, too. */
	memcpy(copy, key + 1, sizeof(copy));
	ck_assert_uint_eq(hash_key32(&a, key + 1, 7), hash_key32(&a, copy, 7));
}
END_TEST

START_TEST(every_byte_and_the_tag_count)
{
	struct hash_seed a;
	unsigned char key[32] = { 0 };
	uint64_t plain;
	size_t i;

	ck_assert_int_eq(hash_seed_init(&a), 0);
	plain = hash_key32(&a, key, 0);
	ck_assert_uint_ne(plain, hash_key32(&a, key, 1));
	for (i = 0; i < sizeof(key); i++) {
		key[i] = 1;
		ck_assert_uint_ne(plain, hash_key32(&a, key, 0));
		key[i] = 0;
	}
}
END_TEST

/* Counting keys, the worst a client would send by chance, fill buckets evenly. */
START_TEST(low_bits_spread)
{
	struct hash_seed a = { .s = { 0x243f6a8885a308d3, 0x13198a2e03707344, 0xa4093822299f31d0,
				      0x082efa98ec4e6c89, 0x452821e638d01377 } };
	unsigned nr[256] = { 0 }, i;
	uint64_t key[4] = { 0 };

	for (i = 0; i < 256 * 100; i++) {
		key[0] = i;
		nr[hash_key32(&a, key, 0) & 255]++;
	}
	/* Mean 100, deviation 10: six deviations either way. */
	for (i = 0; i < 256; i++) {
		ck_assert_uint_gt(nr[i], 40);
		ck_assert_uint_lt(nr[i], 160);
	}
}
END_TEST

static void add(Suite *s, const char *behaviour, const TTest *test)
{
	suite_test(s, behaviour, test, NULL, NULL);
}

int main(void)
{
	Suite *s = suite_create("lib_hash");

	add(s, "seeds differ", seeds_differ);
	add(s, "same seed same hash", same_seed_same_hash);
	add(s, "every byte and the tag count", every_byte_and_the_tag_count);
	add(s, "low bits spread", low_bits_spread);

	return suite_run(s);
}
