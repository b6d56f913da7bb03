// SPDX-License-Identifier: Apache-2.0
/*
 * check_launch.c - names, devices, memory of the CPU, and what launches refuse.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/ref.h"
#include "tests/suite.h"

START_TEST(names)
{
	ck_assert_str_eq(kn_kernel_name(KN_EMBED), "kn_embed");
	ck_assert_str_eq(kn_kernel_name(KN_SAMPLE), "kn_sample");
	ck_assert_str_eq(kn_kernel_name(KN_ATTEND_MERGE), "kn_attend_merge");
	ck_assert_str_eq(kn_kernel_name(KN_TOKENS), "kn_tokens");
	for (unsigned i = 0; i < NR_KN_KERNEL; i++) {
		ck_assert_ptr_nonnull(kn_kernel_name(i));
		for (unsigned j = 0; j < i; j++)
			ck_assert_str_ne(kn_kernel_name(i), kn_kernel_name(j));
	}
	ck_assert_ptr_null(kn_kernel_name(NR_KN_KERNEL));
	ck_assert_ptr_null(kn_kernel_name(UINT32_MAX));
}
END_TEST

START_TEST(the_cpu)
{
	struct kn_dev *d = NULL, *e = NULL;

	ck_assert_int_eq(kn_cpu_open(&d), 0);
	ck_assert_int_eq(kn_cpu_open(&e), 0);
	ck_assert_ptr_ne(d, e);
	ck_assert_str_eq(kn_dev_name(d), "cpu");
	ck_assert(!kn_is_cuda(d));
	ck_assert_ptr_null(kn_stream(d));
	ck_assert_str_eq(kn_error(d), "");
	ck_assert_int_eq(kn_sync(d), 0);
	kn_close(d);
	kn_close(e);
	kn_close(NULL);
}
END_TEST

START_TEST(memory)
{
	static const size_t sizes[] = { 0, 1, 63, 64, 65, 4097 };
	struct kn_dev *d = ref_cpu();
	uint8_t host[256], back[256];
	uint8_t *p, *q;

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		p = kn_alloc(d, sizes[i]);
		ck_assert_ptr_nonnull(p);
		ck_assert_uint_eq((uintptr_t)p % 64, 0);
		memset(p, 1, sizes[i]);
		kn_free(d, p);
	}
	ck_assert_ptr_null(kn_alloc(d, SIZE_MAX));
	ck_assert_ptr_null(kn_alloc(d, SIZE_MAX - 200));
	kn_free(d, NULL);

	p = kn_alloc(d, 256);
	q = kn_alloc(d, 256);
	for (int i = 0; i < 256; i++)
		host[i] = (uint8_t)(i * 7);
	ck_assert_int_eq(kn_put(d, p, host, 256), 0);
	ck_assert_int_eq(kn_copy(d, q, p, 256), 0);
	ck_assert_int_eq(kn_zero(d, q + 100, 50), 0);
	memset(host + 100, 0, 50);
	ck_assert_int_eq(kn_get(d, back, q, 256), 0);
	ck_assert_mem_eq(back, host, 256);
	/* Nothing is nothing, wherever. */
	ck_assert_int_eq(kn_put(d, NULL, NULL, 0), 0);
	ck_assert_int_eq(kn_get(d, NULL, NULL, 0), 0);
	ck_assert_int_eq(kn_zero(d, NULL, 0), 0);
	ck_assert_int_eq(kn_copy(d, NULL, NULL, 0), 0);
	kn_free(d, p);
	kn_free(d, q);
}
END_TEST

START_TEST(what_is_refused)
{
	struct kn_dev *d = ref_cpu();
	float x[4] = { 1, 2, 3, 4 }, y[4] = { 1, 1, 1, 1 };
	struct kn_add_args a = { x, y, 4 };

	ck_assert_int_eq(kn_launch(d, NR_KN_KERNEL, 1, 1, 1, 1, &a), -EINVAL);
	ck_assert_int_eq(kn_launch(d, (enum kn_kernel)1000, 1, 1, 1, 1, &a), -EINVAL);
	ck_assert_int_eq(kn_launch(d, KN_ADD, 0, 1, 1, 1, &a), -EINVAL);
	ck_assert_int_eq(kn_launch(d, KN_ADD, 1, 0, 1, 1, &a), -EINVAL);
	ck_assert_int_eq(kn_launch(d, KN_ADD, 1, 1, 0, 1, &a), -EINVAL);
	ck_assert_int_eq(kn_launch(d, KN_ADD, 0x80000000u, 1, 1, 1, &a), -EINVAL);
	ck_assert_int_eq(kn_launch(d, KN_ADD, 1, 65536, 1, 1, &a), -EINVAL);
	ck_assert_int_eq(kn_launch(d, KN_ADD, 1, 1, 65536, 1, &a), -EINVAL);
	ck_assert_int_eq(kn_launch(d, KN_ADD, 1, 1, 1, KN_MAX_THREADS + 1, &a), -EINVAL);
	ck_assert_int_eq(kn_launch(d, KN_ADD, 1, 1, 1, 1, NULL), -EINVAL);
	/* Nothing of it ran, and the device has not failed. */
	ck_assert(x[0] == 1 && x[3] == 4);
	ck_assert_str_eq(kn_error(d), "");
	ck_assert_int_eq(kn_launch(d, KN_ADD, 1, 65535, 1, KN_MAX_THREADS, &a), 0);
	ck_assert(x[0] == 2 && x[3] == 5);
}
END_TEST

START_TEST(part_bytes)
{
	ck_assert_uint_ge(kn_attend_part_bytes(3, 4, 64, 5), 3ul * 4 * 5 * 64 * 4);
	/* No product of 32 bits. */
	ck_assert_uint_gt(kn_attend_part_bytes(1 << 16, 64, 256, 64), 1ull << 32);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("kernels: launch");

	suite_test(s, "names", names, NULL, NULL);
	suite_test(s, "cpu", the_cpu, NULL, NULL);
	suite_test(s, "memory", memory, NULL, NULL);
	suite_test(s, "refused", what_is_refused, NULL, NULL);
	suite_test(s, "part", part_bytes, NULL, NULL);
	return suite_run(s);
}
