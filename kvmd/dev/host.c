/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host.c - the host device: memfds as HBM, worker threads as copy engines.
 *
 * The embedded default and the device of every machine without a GPU. Extents
 * are sealed against resizing, so that no client can make the daemon fault. To
 * a copy all memory is alike: an extent of the device or a chunk of RAM.
 */
#include "kvmd/dev/dev.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kvmd/lib/fault.h"
#include "kvmd/lib/mem.h"
#include "kvmd/wire.h"

#define HOST_PAGE	4096
#define COLD_BYTES	4096	/* copies from this on bypass the cache */

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

static int host_extent_attach(struct dev *d, int fd, uint64_t bytes, struct dev_extent *ret_e)
{
	int seals = fcntl(fd, F_GET_SEALS), want = F_SEAL_SHRINK | F_SEAL_GROW;
	struct stat st;
	void *map;

	(void)d;
	if (fault_hit(FAULT_SLAB))
		return -ENOMEM;
	if (seals < 0 || (seals & want) != want || fstat(fd, &st) ||
	    (uint64_t)st.st_size != bytes)
		return -EINVAL;
	map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
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

static const void *src_of(const struct dev_copy *c)
{
	return (const char *)c->src->map + c->src_off;
}

/*
 * Blocks that are moved are cold: past a few KiB they would only empty the
 * cache. @next: the copy after this one, NULL: none.
 */
static void copy_one(const struct dev_copy *c, const struct dev_copy *next, struct sum *sum)
{
	void *dst = (char *)c->dst->map + c->dst_off;
	const void *src = src_of(c);

	if (sum && next)
		mem_copy_sum_next(dst, src, c->bytes, sum, src_of(next), next->bytes);
	else if (sum)
		mem_copy_sum(dst, src, c->bytes, sum);
	else if (c->bytes >= COLD_BYTES)
		mem_copy_cold(dst, src, c->bytes);
	else
		memcpy(dst, src, c->bytes);
}

static void host_copy_fn(struct work *w)
{
	struct dev_batch *b = container_of(w, struct dev_batch, work);

	if (fault_hit(FAULT_COPY)) {
		b->err = -EIO;
		return;
	}
	for (unsigned i = 0; i < b->nr; i++)
		copy_one(&b->copy[i], i + 1 < b->nr ? &b->copy[i + 1] : NULL, b->sum);
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
	dev_batch_submit(d, b);
}

const struct dev_ops dev_host_ops = {
	.name = "host",
	.handle_kind = KVMD_HANDLE_MEMFD,
	.has_memory = true,
	.sums = true,
	.granularity = HOST_PAGE,
	.grace_ns = 0,
	.extent_create = host_extent_create,
	.extent_attach = host_extent_attach,
	.extent_scrub = host_extent_scrub,
	.extent_destroy = host_extent_destroy,
	.copy = host_copy,
};
