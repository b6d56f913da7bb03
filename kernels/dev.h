/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dev.h - what a device of kernels.h is made of. Private to launch.c and dev_*.c.
 */
#ifndef KVMD_KERNELS_DEV_H
#define KVMD_KERNELS_DEV_H

#include "kernels/kernels.h"

/* All but close() and alloc() return 0 or -EIO, and then have called kn_fail(). */
struct kn_dev_ops {
	void (*close)(struct kn_dev *d);
	void *(*alloc)(struct kn_dev *d, size_t bytes);		/* bytes > 0 */
	int (*free)(struct kn_dev *d, void *p);
	int (*put)(struct kn_dev *d, void *dst, const void *host, size_t bytes);
	int (*get)(struct kn_dev *d, void *host, const void *src, size_t bytes);
	int (*zero)(struct kn_dev *d, void *dst, size_t bytes);
	int (*copy)(struct kn_dev *d, void *dst, const void *src, size_t bytes);
	int (*launch)(struct kn_dev *d, enum kn_kernel k, const unsigned grid[3],
		      unsigned threads, const void *args);
	int (*sync)(struct kn_dev *d);
};

/* Embedded images for cuModuleLoadData(), made by the build; the last is NULL. */
extern const void *const kn_images[];

/* The first member of a device. */
struct kn_dev {
	const struct kn_dev_ops *ops;
	bool is_cuda;
	bool has_failed;			/* for good: ops are not called any more */
	void *stream;				/* CUstream, or NULL */
	char name[128];
	char error[160];			/* what the first failure was, or "" */
};

/* -EIO: @what failed with @error, and nothing works on the device any more. */
int kn_fail(struct kn_dev *d, const char *what, const char *error);

#endif
