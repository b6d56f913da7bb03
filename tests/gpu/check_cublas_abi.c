// SPDX-License-Identifier: Apache-2.0
/*
 * check_cublas_abi.c - our declarations of cuBLAS are those of <cublas_v2.h>, and the
 * library that there is has the functions.
 *
 * Compiled with the toolkit's headers where there are any. No GPU is needed: nothing of
 * the library is called.
 */
#include <check.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/kvinfer/cublas_abi.h"

#if __has_include(<cublas_v2.h>)
#include <cublas_v2.h>
#else
#define CUBLAS_VER_MAJOR	0
#endif

#if CUBLAS_VER_MAJOR < 12

int main(void)
{
	printf("SKIP: no cublas_v2.h of CUDA 12 or newer to compare with%s\n",
	       CUBLAS_VER_MAJOR ? "; the one found is older" : "");
	return 77;
}

#else

#define SIZE(ours, theirs) \
	ck_assert_msg(sizeof(ours) == sizeof(theirs), "%s: %zu bytes, %s: %zu", #ours, \
		      sizeof(ours), #theirs, sizeof(theirs))
#define VALUE(ours, theirs) \
	ck_assert_msg((long long)(ours) == (long long)(theirs), "%s is %lld, %s is %lld", #ours, \
		      (long long)(ours), #theirs, (long long)(theirs))

START_TEST(types)
{
	SIZE(void *, cublasHandle_t);
	SIZE(void *, cudaStream_t);
	SIZE(int, cublasStatus_t);
	SIZE(int, cublasOperation_t);
	SIZE(int, cublasMath_t);
}
END_TEST

START_TEST(constants)
{
	VALUE(CB_OK, CUBLAS_STATUS_SUCCESS);
	VALUE(CB_NOT_INITIALIZED, CUBLAS_STATUS_NOT_INITIALIZED);
	VALUE(CB_ALLOC_FAILED, CUBLAS_STATUS_ALLOC_FAILED);
	VALUE(CB_INVALID_VALUE, CUBLAS_STATUS_INVALID_VALUE);
	VALUE(CB_ARCH_MISMATCH, CUBLAS_STATUS_ARCH_MISMATCH);
	VALUE(CB_MAPPING_ERROR, CUBLAS_STATUS_MAPPING_ERROR);
	VALUE(CB_EXECUTION_FAILED, CUBLAS_STATUS_EXECUTION_FAILED);
	VALUE(CB_INTERNAL_ERROR, CUBLAS_STATUS_INTERNAL_ERROR);
	VALUE(CB_NOT_SUPPORTED, CUBLAS_STATUS_NOT_SUPPORTED);
	VALUE(CB_OP_N, CUBLAS_OP_N);
	VALUE(CB_OP_T, CUBLAS_OP_T);
	VALUE(CB_PEDANTIC_MATH, CUBLAS_PEDANTIC_MATH);
}
END_TEST

#define TYPE(call, ...) \
	ck_assert_msg(__builtin_types_compatible_p(__typeof__(call), \
						   cublasStatus_t (__VA_ARGS__)), \
		      "%s has other arguments", #call)

/* In order, what CB_FUNCTIONS has as pointers and ints. */
START_TEST(functions)
{
	TYPE(cublasCreate_v2, cublasHandle_t *);
	TYPE(cublasDestroy_v2, cublasHandle_t);
	TYPE(cublasSetStream_v2, cublasHandle_t, cudaStream_t);
	TYPE(cublasSetMathMode, cublasHandle_t, cublasMath_t);
	TYPE(cublasSgemm_v2, cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int,
	     const float *, const float *, int, const float *, int, const float *, float *, int);
}
END_TEST

/* What the library exports; without one, or where it needs what is not there: nothing. */
START_TEST(symbols)
{
	static const char *const names[] = { "libcublas.so.13", "libcublas.so.12" };
	void *dl = NULL;
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]) && !dl; i++)
		dl = dlopen(names[i], RTLD_LAZY | RTLD_LOCAL);
	if (!dl) {
		printf("SKIP: no libcublas to look into: %s\n", dlerror());
		return;
	}
#define THERE(member, symbol, args)	ck_assert_msg(dlsym(dl, #symbol), "no %s", #symbol);
	CB_FUNCTIONS(THERE)
#undef THERE
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cublas_abi");
	TCase *t = tcase_create("cublas_v2.h");
	SRunner *r;
	int failed;

	tcase_add_test(t, types);
	tcase_add_test(t, constants);
	tcase_add_test(t, functions);
	tcase_add_test(t, symbols);
	tcase_set_timeout(t, 60);	/* the library is large */
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
