// SPDX-License-Identifier: Apache-2.0
/*
 * dev_cpu.c - kernels on the CPU, in the thread that launches them: what kn_launch()
 * started is done when it returns, and addresses are the process' own.
 */
#include "kernels/dev.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN	64u

/* What KN_KERNEL() makes of a kernel: shim.h. */
typedef void host_fn(void **args, const unsigned grid[3], const unsigned block[3],
		     unsigned shared);

#define ROW(id, name, args)	extern host_fn name;
KN_KERNELS(ROW)
#undef ROW

static host_fn *const kernels[NR_KN_KERNEL] = {
#define ROW(id, name, args)	[id] = name,
	KN_KERNELS(ROW)
#undef ROW
};

static void cpu_close(struct kn_dev *d)
{
	free(d);
}

static void *cpu_alloc(struct kn_dev *d, size_t bytes)
{
	size_t whole;

	(void)d;
	if (__builtin_add_overflow(bytes, ALIGN - 1, &whole))
		return NULL;
	return aligned_alloc(ALIGN, whole / ALIGN * ALIGN);
}

static int cpu_free(struct kn_dev *d, void *p)
{
	(void)d;
	free(p);
	return 0;
}

static int cpu_put(struct kn_dev *d, void *dst, const void *host, size_t bytes)
{
	(void)d;
	memcpy(dst, host, bytes);
	return 0;
}

static int cpu_zero(struct kn_dev *d, void *dst, size_t bytes)
{
	(void)d;
	memset(dst, 0, bytes);
	return 0;
}

static int cpu_launch(struct kn_dev *d, enum kn_kernel k, const unsigned grid[3],
		      unsigned threads, const void *args)
{
	const unsigned block[3] = { threads, 1, 1 };

	(void)d;
	kernels[k]((void *[]){ (void *)(uintptr_t)args }, grid, block, 0);
	return 0;
}

static int cpu_sync(struct kn_dev *d)
{
	(void)d;
	return 0;
}

static const struct kn_dev_ops cpu_ops = {
	.close = cpu_close, .alloc = cpu_alloc, .free = cpu_free, .put = cpu_put,
	.get = cpu_put, .zero = cpu_zero, .copy = cpu_put, .launch = cpu_launch,
	.sync = cpu_sync,
};

int kn_cpu_open(struct kn_dev **ret_d)
{
	struct kn_dev *d = calloc(1, sizeof(*d));

	if (!d)
		return -ENOMEM;
	d->ops = &cpu_ops;
	snprintf(d->name, sizeof(d->name), "cpu");
	*ret_d = d;
	return 0;
}
