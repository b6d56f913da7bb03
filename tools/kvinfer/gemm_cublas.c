// SPDX-License-Identifier: Apache-2.0
/*
 * gemm_cublas.c - cuBLAS, found at run time, on the stream of a GPU's kernels.
 *
 * cuBLAS works in the context that is current in the thread: kn_*() calls on a GPU make
 * its context that, and no step computes a product before its first kernel.
 */
#include "tools/kvinfer/model_int.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>

#include "kvmd/lib/base.h"
#include "tools/kvinfer/cublas_abi.h"

struct cublas {
	struct cb cb;
	void *handle;
};

static const char *status_name(int r)
{
	switch (r) {
	case CB_NOT_INITIALIZED:
		return "not initialized";
	case CB_ALLOC_FAILED:
		return "no memory on the GPU";
	case CB_INVALID_VALUE:
		return "invalid value";
	case CB_ARCH_MISMATCH:
		return "GPU too old";
	case CB_MAPPING_ERROR:
		return "memory not accessible";
	case CB_EXECUTION_FAILED:
		return "a kernel failed";
	case CB_INTERNAL_ERROR:
		return "internal error";
	case CB_NOT_SUPPORTED:
		return "not supported";
	default:
		return "unknown status";
	}
}

static void *find(char *msg)
{
	static const char *const names[] = { "libcublas.so.13", "libcublas.so.12" };
	void *dl = NULL;
	size_t i;

	/* It stays loaded: what it keeps in the context outlives a handle. */
	for (i = 0; i < ARRAY_SIZE(names) && !dl; i++)
		dl = dlopen(names[i], RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	if (!dl)
		ki_refuse(msg, -ENOENT, "no cuBLAS: %.120s; it comes with the CUDA toolkit "
			  "(LD_LIBRARY_PATH says where it is)", dlerror());
	return dl;
}

static int load(struct cb *cb, char *msg)
{
	const char *missing = NULL;
	void *dl = find(msg);

	if (!dl)
		return -ENOENT;
#define LOAD(member, symbol, args) \
	*(void **)&cb->member = dlsym(dl, #symbol); \
	if (!cb->member) \
		missing = #symbol;
	CB_FUNCTIONS(LOAD)
#undef LOAD
	dlclose(dl);
	return missing ? ki_refuse(msg, -ENOENT, "the cuBLAS found has no %s: 12 or 13 is needed",
				   missing) : 0;
}

static void cublas_close(void *lib)
{
	struct cublas *b = lib;

	b->cb.destroy(b->handle);
	free(b);
}

static int cublas_open(struct kn_dev *dev, int threads, void **ret_lib, char *msg)
{
	struct cublas *b = calloc(1, sizeof(*b));
	int err, r;

	(void)threads;
	if (!b)
		return ki_refuse(msg, -ENOMEM, "no memory");
	err = load(&b->cb, msg);
	if (err)
		goto err_free;
	err = kn_sync(dev);		/* its context is the current one from here on */
	if (err) {
		ki_refuse(msg, err, "%s: %s", kn_dev_name(dev), kn_error(dev));
		goto err_free;
	}
	r = b->cb.create(&b->handle);
	if (r) {
		err = ki_refuse(msg, -ENOTSUP, "cublasCreate: status %d, %s", r, status_name(r));
		goto err_free;
	}
	r = b->cb.set_stream(b->handle, kn_stream(dev));
	if (!r)
		r = b->cb.set_math_mode(b->handle, CB_PEDANTIC_MATH);
	if (r) {
		err = ki_refuse(msg, -ENOTSUP, "cuBLAS on %s: status %d, %s", kn_dev_name(dev), r,
				status_name(r));
		goto err_close;
	}
	*ret_lib = b;
	return 0;

err_close:
	cublas_close(b);
	return err;
err_free:
	free(b);
	return err;
}

/* Its matrices are column-major: c' = b a' there is c = a b' here. */
static int cublas_gemm(void *lib, uint32_t m, uint32_t n, uint32_t k, const float *a,
		       const float *b, float *c, char *msg)
{
	const float one = 1, zero = 0;
	struct cublas *l = lib;
	int r;

	r = l->cb.sgemm(l->handle, CB_OP_T, CB_OP_N, (int)n, (int)m, (int)k, &one, b, (int)k, a,
			(int)k, &zero, c, (int)n);
	return r ? ki_refuse(msg, -EIO, "cublasSgemm of %u * %u * %u: status %d, %s", m, n, k, r,
			     status_name(r)) : 0;
}

const struct ki_gemm_lib ki_gemm_cublas = {
	.name = "cublas", .open = cublas_open, .gemm = cublas_gemm, .close = cublas_close,
};
