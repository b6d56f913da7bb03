/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host.c - the host device: memfds as HBM, worker threads as copy engines.
 *
 * The embedded default and the device of every machine without a GPU. Extents
 * are sealed against resizing, so that no client can make the daemon fault.
 */
#include "kvmd/dev/dev.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kvmd/lib/fault.h"
#include "kvmd/lib/mem.h"
#include "kvmd/wire.h"

#define HOST_PAGE	4096

static int host_extent_create(struct dev *d, uint64_t bytes, struct dev_extent *ret_e)
{
	void *map;
	int fd, err;

	if (fault_hit(FAULT_SLAB))
		return -ENOMEM;
	fd = mem_fd_create("kvmd-slab", bytes, ld_rlx(&d->hugetlb), &map);
	if (fd < 0)
		return fd;
	err = mem_fd_seal(fd, false);
	if (err) {
		munmap(map, bytes);
		close(fd);
		return err;
	}
	madvise(map, bytes, MADV_DONTFORK);
	*ret_e = (struct dev_extent) { .fd = fd, .map = map, .bytes = bytes };
	return 0;
}

static int host_extent_scrub(struct dev *d, struct dev_extent *e)
{
	(void)d;
	if (fault_hit(FAULT_SCRUB))
		return -EIO;
	/* Holes read as zeroes: the kernel gives fresh pages to whoever comes next. */
	if (fallocate(e->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)e->bytes))
		return -errno;
	return 0;
}

static void host_extent_destroy(struct dev *d, struct dev_extent *e)
{
	(void)d;
	if (e->map)
		munmap(e->map, e->bytes);
	if (e->fd >= 0)
		close(e->fd);
	e->map = NULL;
	e->fd = -1;
}

static void host_copy_fn(struct work *w)
{
	struct dev_batch *b = container_of(w, struct dev_batch, work);

	if (fault_hit(FAULT_COPY)) {
		b->err = -EIO;
		return;
	}
	for (unsigned i = 0; i < b->nr; i++) {
		const struct dev_copy *c = &b->copy[i];

		memcpy((char *)c->dst->map + c->dst_off, (char *)c->src->map + c->src_off,
		       c->bytes);
	}
}

static void host_copy_done(struct work *w)
{
	struct dev_batch *b = container_of(w, struct dev_batch, work);

	b->done(b);
}

static void host_copy(struct dev *d, struct dev_batch *b)
{
	b->dev = d;
	b->err = 0;
	b->work.fn = host_copy_fn;
	b->work.done = host_copy_done;
	workers_submit(d->workers, &b->work);
}

const struct dev_ops dev_host_ops = {
	.name = "host",
	.handle_kind = KVMD_HANDLE_MEMFD,
	.has_memory = true,
	.granularity = HOST_PAGE,
	.grace_ns = 0,
	.extent_create = host_extent_create,
	.extent_scrub = host_extent_scrub,
	.extent_destroy = host_extent_destroy,
	.copy = host_copy,
};
