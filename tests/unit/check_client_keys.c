/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_client_keys.c - chains of block keys.
 *
 * The vectors were computed with Python's hashlib from the formula in
 * libkvclient/keys.c, not with the library.
 */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "libkvclient/internal.h"
#include "tests/suite.h"

static const char salt[] = "a salt";
static const char root[] = "model-x fp16";

static void tokens_fill(int32_t *t, int n, int first)
{
	for (int i = 0; i < n; i++)
		t[i] = first + i;
}

static const char *hex(const unsigned char *p, size_t n)
{
	static char s[2 * KVMD_KEY_BYTES + 1];

	for (size_t i = 0; i < n; i++)
		snprintf(s + 2 * i, 3, "%02x", p[i]);
	return s;
}

static void chain_make(struct kvc_chain *c, uint32_t block_tokens)
{
	ck_assert_int_eq(kvc_chain_init(c, salt, strlen(salt), root, strlen(root), block_tokens),
			 0);
}

START_TEST(known_answers)
{
	static const char *const want[] = {
		"3cdd5aee5af2387d601b09bdb992f198e0fc44e7192f46feb24e9276782b7d4d",
		"b4a2ebe0fe02642ba37e561f373dc21e39166f1f7c581faff938658fd4a0d494",
		"0c5fe163b86f1e2d015dedad9a1e029a8dc07ee34de5c1cdf62c84cb2212d09c",
	};
	unsigned char key[3][KVMD_KEY_BYTES];
	struct kvc_chain c;
	int32_t t[256];

	chain_make(&c, 16);
	ck_assert_str_eq(hex(c.root, 32),
			 "40c5a9c0990a8f6ef289789e38a2b2a3c25064f35da004ce70d86986635f3347");
	tokens_fill(t, 48, 0);
	kvc_chain_blocks(&c, t, 3, key);
	for (int i = 0; i < 3; i++)
		ck_assert_str_eq(hex(key[i], 32), want[i]);
	ck_assert_uint_eq(c.nr_blocks, 3);

	chain_make(&c, 16);
	for (int i = 0; i < 16; i++)
		t[i] = -1 - i;
	kvc_chain_blocks(&c, t, 1, key);
	ck_assert_str_eq(hex(key[0], 32),
			 "89d34af50a808af7cc935d47a11f85f6ddae7a7b1dfebb0904a87e70d6fd3df1");

	chain_make(&c, 256);
	tokens_fill(t, 256, 0);
	kvc_chain_blocks(&c, t, 1, key);
	ck_assert_str_eq(hex(key[0], 32),
			 "bb88bc4fb02eef79f62c5c121698d747b27f827b40e9644623c5322147a6e739");
}
END_TEST

START_TEST(empty_salt_and_root)
{
	unsigned char key[KVMD_KEY_BYTES];
	struct kvc_chain c;
	int32_t t[4];

	ck_assert_int_eq(kvc_chain_init(&c, NULL, 0, NULL, 0, 4), 0);
	ck_assert_str_eq(hex(c.root, 32),
			 "7bc2d53cb40a8efe259ec98912b3ef8adfe9d824858976de018f07bebdc7feb8");
	tokens_fill(t, 4, 1);
	kvc_chain_blocks(&c, t, 1, key);
	ck_assert_str_eq(hex(key, 32),
			 "216aafeaaaae3fe8e428e2038839487daf4d90cae927e5efada9d53306933857");
}
END_TEST

START_TEST(growing_equals_from_scratch)
{
	unsigned char all[20][KVMD_KEY_BYTES], part[20][KVMD_KEY_BYTES];
	struct kvc_chain a, b;
	int32_t t[20 * 8];

	tokens_fill(t, 160, 7);
	chain_make(&a, 8);
	chain_make(&b, 8);
	kvc_chain_blocks(&a, t, 20, all);
	kvc_chain_blocks(&b, t, 0, part);
	kvc_chain_blocks(&b, t, 3, part);
	kvc_chain_blocks(&b, t + 24, 1, part + 3);
	kvc_chain_blocks(&b, t + 32, 16, part + 4);
	ck_assert_mem_eq(all, part, sizeof(all));
	ck_assert_mem_eq(a.last, b.last, sizeof(a.last));
	ck_assert_uint_eq(b.nr_blocks, 20);
}
END_TEST

START_TEST(rewind_and_branch)
{
	unsigned char all[6][KVMD_KEY_BYTES], again[6][KVMD_KEY_BYTES];
	struct kvc_chain c;
	int32_t t[6 * 8];

	tokens_fill(t, 48, 0);
	chain_make(&c, 8);
	kvc_chain_blocks(&c, t, 6, all);
	kvc_chain_rewind(&c, 2, all[1]);
	ck_assert_uint_eq(c.nr_blocks, 2);
	kvc_chain_blocks(&c, t + 16, 4, again + 2);
	ck_assert_mem_eq(all + 2, again + 2, 4 * KVMD_KEY_BYTES);
	kvc_chain_rewind(&c, 2, all[1]);
	t[16] = 12345;
	kvc_chain_blocks(&c, t + 16, 1, again + 2);
	ck_assert_mem_ne(all[2], again[2], KVMD_KEY_BYTES);
	kvc_chain_rewind(&c, 0, NULL);
	kvc_chain_blocks(&c, t, 2, again);
	ck_assert_mem_eq(all, again, 2 * KVMD_KEY_BYTES);
}
END_TEST

START_TEST(extras_change_the_key)
{
	unsigned char key[4][KVMD_KEY_BYTES], next[2][KVMD_KEY_BYTES], first[KVMD_KEY_BYTES];
	struct kvc_chain c;
	int32_t t[32];

	tokens_fill(t, 32, 0);
	chain_make(&c, 16);
	kvc_chain_blocks(&c, t, 1, first);
	kvc_chain_block_extra(&c, t + 16, "image 1", 7, key[0]);
	ck_assert_str_eq(hex(key[0], 32),
			 "5672ef2cb3fb69811a93a23a1dd2f40d1ac655d9bde1d5d31d4dbe7dcd913e3f");
	ck_assert_uint_eq(c.nr_blocks, 2);
	kvc_chain_blocks(&c, t, 1, next[0]);
	kvc_chain_rewind(&c, 1, first);
	kvc_chain_block_extra(&c, t + 16, "image 2", 7, key[1]);
	kvc_chain_blocks(&c, t, 1, next[1]);
	ck_assert_mem_ne(key[0], key[1], KVMD_KEY_BYTES);
	ck_assert_mem_ne(next[0], next[1], KVMD_KEY_BYTES);
	/* No extras at all is the plain block. */
	kvc_chain_rewind(&c, 1, first);
	kvc_chain_block_extra(&c, t + 16, NULL, 0, key[2]);
	kvc_chain_rewind(&c, 1, first);
	kvc_chain_blocks(&c, t + 16, 1, key[3]);
	ck_assert_mem_eq(key[2], key[3], KVMD_KEY_BYTES);
}
END_TEST

START_TEST(everything_in_the_root_counts)
{
	struct kvc_chain a, b;

	chain_make(&a, 16);
	ck_assert_int_eq(kvc_chain_init(&b, "b salt", 6, root, strlen(root), 16), 0);
	ck_assert_mem_ne(a.root, b.root, KVMD_KEY_BYTES);
	ck_assert_int_eq(kvc_chain_init(&b, salt, strlen(salt), "other", 5, 16), 0);
	ck_assert_mem_ne(a.root, b.root, KVMD_KEY_BYTES);
	chain_make(&b, 32);
	ck_assert_mem_ne(a.root, b.root, KVMD_KEY_BYTES);
}
END_TEST

START_TEST(bad_arguments)
{
	struct kvc_chain c;

	ck_assert_int_eq(kvc_chain_init(&c, salt, 6, root, 4, 0), -EINVAL);
	ck_assert_int_eq(kvc_chain_init(&c, NULL, 6, root, 4, 16), -EINVAL);
	ck_assert_int_eq(kvc_chain_init(&c, salt, 6, NULL, 4, 16), -EINVAL);
}
END_TEST

START_TEST(salt_digest)
{
	uint8_t d[16];

	kvci_salt_digest(salt, strlen(salt), d);
	ck_assert_str_eq(hex(d, 16), "cb72820155bdd6f3d7279dbc3d5aef5d");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("client_keys");
	TCase *tc = tcase_create("chain");

	tcase_add_test(tc, known_answers);
	tcase_add_test(tc, empty_salt_and_root);
	tcase_add_test(tc, growing_equals_from_scratch);
	tcase_add_test(tc, rewind_and_branch);
	tcase_add_test(tc, extras_change_the_key);
	tcase_add_test(tc, everything_in_the_root_counts);
	tcase_add_test(tc, bad_arguments);
	tcase_add_test(tc, salt_digest);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
