// SPDX-License-Identifier: Apache-2.0
/*
 * launch.c - devices as callers see them: arguments are checked here, the rest is
 * dev_cpu.c's and dev_cuda.c's. A device that has failed is not asked again.
 */
#include "kernels/dev.h"

#include <errno.h>
#include <stdio.h>

#define MAX_GRID_X	0x7fffffffu		/* as CUDA has it */
#define MAX_GRID_YZ	65535u

/* Threads of a block where the caller does not say; what is not here: one, and most. */
static const struct {
	unsigned cpu, cuda;
} threads_of[NR_KN_KERNEL] = {
	[KN_EMBED]	= { 1, 256 },
	[KN_NORM]	= { 1, 256 },
	[KN_ROPE]	= { 1, 256 },
	[KN_SWIGLU]	= { 1, 256 },
	[KN_ADD]	= { 1, 256 },
	[KN_GEMM]	= { 1, 256 },
	[KN_SAMPLE]	= { 1, 256 },
	[KN_ATTEND]	= { 1, 128 },
	[KN_ATTEND_MERGE]	= { 1, 128 },
	[KN_PREFILL]	= { 1, 128 },
	[KN_MLA]	= { 1, 128 },
	[KN_MLA_MERGE]	= { 1, 128 },
};

static const char *const names[NR_KN_KERNEL] = {
#define ROW(id, name, args)	[id] = #name,
	KN_KERNELS(ROW)
#undef ROW
};

const char *kn_kernel_name(unsigned k)
{
	return k < NR_KN_KERNEL ? names[k] : NULL;
}

int kn_fail(struct kn_dev *d, const char *what, const char *error)
{
	if (!d->has_failed)
		snprintf(d->error, sizeof(d->error), "%s: %s", what, error);
	d->has_failed = true;
	return -EIO;
}

void kn_close(struct kn_dev *d)
{
	if (d)
		d->ops->close(d);
}

const char *kn_dev_name(const struct kn_dev *d)
{
	return d->name;
}

bool kn_is_cuda(const struct kn_dev *d)
{
	return d->is_cuda;
}

void *kn_stream(const struct kn_dev *d)
{
	return d->stream;
}

const char *kn_error(const struct kn_dev *d)
{
	return d->error;
}

/* ------------------------------------------------------------------ memory */

void *kn_alloc(struct kn_dev *d, size_t bytes)
{
	return d->has_failed ? NULL : d->ops->alloc(d, bytes ? bytes : 1);
}

void kn_free(struct kn_dev *d, void *p)
{
	/* Of a GPU that failed, memory ends with the context. */
	if (p && !d->has_failed)
		d->ops->free(d, p);
}

int kn_put(struct kn_dev *d, void *dst, const void *host, size_t bytes)
{
	return d->has_failed ? -EIO : bytes ? d->ops->put(d, dst, host, bytes) : 0;
}

int kn_get(struct kn_dev *d, void *host, const void *src, size_t bytes)
{
	return d->has_failed ? -EIO : bytes ? d->ops->get(d, host, src, bytes) : 0;
}

int kn_zero(struct kn_dev *d, void *dst, size_t bytes)
{
	return d->has_failed ? -EIO : bytes ? d->ops->zero(d, dst, bytes) : 0;
}

int kn_copy(struct kn_dev *d, void *dst, const void *src, size_t bytes)
{
	return d->has_failed ? -EIO : bytes ? d->ops->copy(d, dst, src, bytes) : 0;
}

/* ------------------------------------------------------------------ launch */

static unsigned suits(const struct kn_dev *d, enum kn_kernel k)
{
	if (d->is_cuda)
		return threads_of[k].cuda ? threads_of[k].cuda : KN_MAX_THREADS;
	return threads_of[k].cpu ? threads_of[k].cpu : 1;
}

int kn_launch(struct kn_dev *d, enum kn_kernel k, unsigned x, unsigned y, unsigned z,
	      unsigned threads, const void *args)
{
	const unsigned grid[3] = { x, y, z };

	if ((unsigned)k >= NR_KN_KERNEL || !x || !y || !z || x > MAX_GRID_X || y > MAX_GRID_YZ ||
	    z > MAX_GRID_YZ || threads > KN_MAX_THREADS || !args)
		return -EINVAL;
	if (d->has_failed)
		return -EIO;
	return d->ops->launch(d, k, grid, threads ? threads : suits(d, k), args);
}

int kn_sync(struct kn_dev *d)
{
	return d->has_failed ? -EIO : d->ops->sync(d);
}
