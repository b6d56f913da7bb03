/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cublas_abi.h - what of cuBLAS is used, declared here: no header of the toolkit is needed.
 *
 * The library's functions are loaded by name (gemm_cublas.c). Its handle and streams are
 * pointers, its enumerations ints. tests/gpu/check_cublas_abi.c compares all of it with
 * cublas_v2.h where that is.
 */
#ifndef KVINFER_CUBLAS_ABI_H
#define KVINFER_CUBLAS_ABI_H

#define CB_OK			0	/* CUBLAS_STATUS_SUCCESS */
#define CB_NOT_INITIALIZED	1
#define CB_ALLOC_FAILED		3
#define CB_INVALID_VALUE	7
#define CB_ARCH_MISMATCH	8
#define CB_MAPPING_ERROR	11
#define CB_EXECUTION_FAILED	13
#define CB_INTERNAL_ERROR	14
#define CB_NOT_SUPPORTED	15

#define CB_OP_N			0
#define CB_OP_T			1
#define CB_PEDANTIC_MATH	2	/* fp32 throughout, no TF32 */

/* X(member, symbol, arguments); all return a status. */
#define CB_FUNCTIONS(X) \
	X(create, cublasCreate_v2, (void **ret_handle)) \
	X(destroy, cublasDestroy_v2, (void *handle)) \
	X(set_stream, cublasSetStream_v2, (void *handle, void *stream)) \
	X(set_math_mode, cublasSetMathMode, (void *handle, int mode)) \
	X(sgemm, cublasSgemm_v2, (void *handle, int op_a, int op_b, int m, int n, int k, \
	  const float *alpha, const float *a, int lda, const float *b, int ldb, \
	  const float *beta, float *c, int ldc))

struct cb {
#define CB_MEMBER_(member, symbol, args)	int (*member) args;
	CB_FUNCTIONS(CB_MEMBER_)
#undef CB_MEMBER_
};

#endif
