/* SPDX-License-Identifier: Apache-2.0 */
/*
 * null.c - a device without memory: the pool's metadata at any size, no data.
 *
 * For measuring and for testing pools larger than the machine. Copies finish
 * through the worker pool like real ones, and move nothing.
 */
#include "kvmd/dev/dev.h"

#include "kvmd/lib/fault.h"
#include "kvmd/wire.h"

static int null_extent_create(struct dev *d, uint64_t bytes, struct dev_extent *ret_e)
{
	(void)d;
	if (fault_hit(FAULT_SLAB))
		return -ENOMEM;
	*ret_e = (struct dev_extent) { .fd = -1, .bytes = bytes };
	return 0;
}

static int null_extent_attach(struct dev *d, int fd, uint64_t bytes, struct dev_extent *ret_e)
{
	(void)d;
	if (fd >= 0)
		return -EINVAL;
	*ret_e = (struct dev_extent) { .fd = -1, .bytes = bytes };
	return 0;
}

static int null_extent_scrub(struct dev *d, struct dev_extent *e)
{
	(void)d;
	(void)e;
	return fault_hit(FAULT_SCRUB) ? -EIO : 0;
}

static void null_extent_destroy(struct dev *d, struct dev_extent *e)
{
	(void)d;
	(void)e;
}

static void null_copy_fn(struct work *w)
{
	if (fault_hit(FAULT_COPY))
		container_of(w, struct dev_batch, work)->err = -EIO;
}

static void null_copy_done(struct work *w)
{
	struct dev_batch *b = container_of(w, struct dev_batch, work);

	b->done(b);
}

static void null_copy(struct dev *d, struct dev_batch *b)
{
	b->dev = d;
	b->err = 0;
	b->work.fn = null_copy_fn;
	b->work.done = null_copy_done;
	dev_batch_submit(d, b);
}

const struct dev_ops dev_null_ops = {
	.name = "null",
	.handle_kind = KVMD_HANDLE_NONE,
	.has_memory = false,
	.sums = false,
	.granularity = 1,
	.extent_create = null_extent_create,
	.extent_attach = null_extent_attach,
	.extent_scrub = null_extent_scrub,
	.extent_destroy = null_extent_destroy,
	.copy = null_copy,
};
