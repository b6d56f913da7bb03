/* SPDX-License-Identifier: Apache-2.0 */
/*
 * map_host.c - slabs that are memfds: windows of this process's own memory.
 *
 * A range is reserved with PROT_NONE and mapped over; nothing is ever unmapped in
 * between, so that no other mapping can come to lie in it. Nothing here is
 * inherited by fork(): a child must not keep slabs alive.
 */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "libkvclient/internal.h"

void *kvci_map_fd(int fd, size_t bytes, int prot, void *fixed)
{
	void *p = mmap(fixed, bytes, prot, MAP_SHARED | (fixed ? MAP_FIXED : 0), fd, 0);

	if (p == MAP_FAILED)
		return NULL;
	madvise(p, bytes, MADV_DONTFORK);
	return p;
}

/* Address space without memory; over @fixed if given. */
static char *map_nothing(size_t bytes, void *fixed)
{
	void *p = mmap(fixed, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE |
		       (fixed ? MAP_FIXED : 0), -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	madvise(p, bytes, MADV_DONTFORK);
	return (char *)p;
}

/* Zero pages for slot 0 of @group in every window. */
static int map_null_block(struct kvc *k, uint32_t group)
{
	const struct kvci_window *w = &k->window[group];
	size_t len = kvci_null_bytes(k, group);

	for (uint32_t p = 0; p < 2 * w->nr_planes; p++) {
		void *at = mmap(w->base + p * w->stride, len, PROT_READ, MAP_PRIVATE |
				MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);

		if (at == MAP_FAILED)
			return -errno;
		madvise(at, len, MADV_DONTFORK);
	}
	return 0;
}

static int host_open(struct kvc *k, const struct kvmd_space_reply *r)
{
	(void)r;
	k->unit = (size_t)sysconf(_SC_PAGESIZE);
	k->align = KVCI_HUGE_PAGE;
	return 0;
}

static void host_close(struct kvc *k)
{
	(void)k;
}

/* A range of @bytes that starts on a huge page's border. */
static char *reserve_aligned(size_t bytes)
{
	size_t more = bytes + KVCI_HUGE_PAGE, head;
	char *p = map_nothing(more, NULL);

	if (!p)
		return NULL;
	head = (KVCI_HUGE_PAGE - (uintptr_t)p % KVCI_HUGE_PAGE) % KVCI_HUGE_PAGE;
	if (head)
		munmap(p, head);
	munmap(p + head + bytes, KVCI_HUGE_PAGE - head);
	return p + head;
}

static void host_unreserve(struct kvc *k, uint32_t group)
{
	struct kvci_window *w = &k->window[group];

	munmap(w->base, w->bytes);
	w->base = NULL;
}

static int host_reserve(struct kvc *k, uint32_t group)
{
	struct kvci_window *w = &k->window[group];

	w->base = reserve_aligned(w->bytes);
	if (!w->base)
		goto err_refuse;
	for (uint32_t p = 0; p < w->nr_planes; p++) {
		w->plane[p].rw = w->base + p * w->stride;
		w->plane[p].ro = w->base + (w->nr_planes + p) * w->stride;
	}
	if (!map_null_block(k, group))
		return 0;
	host_unreserve(k, group);
err_refuse:
	kvci_refuse("group %u: no address space for %zu bytes of windows", group, w->bytes);
	return -ENOMEM;
}

static int host_map(struct kvc *k, const struct kvci_slab *s, uint32_t plane, int fd)
{
	struct kvci_window *w = &k->window[s->group];
	size_t off, len;
	char *rw, *ro;
	int err;

	if (!kvci_slab_extent(k, s, &off, &len))
		return -EPROTO;
	rw = w->plane[plane].rw + off;
	ro = w->base + (w->nr_planes + plane) * w->stride + off;
	if (!kvci_map_fd(fd, len, PROT_READ | PROT_WRITE, rw) ||
	    !kvci_map_fd(fd, len, PROT_READ, ro)) {
		err = -errno;
		kvci_refuse("slab %u: cannot map %zu bytes: %s", s->id, len, strerror(-err));
		return err;
	}
	/* Only a wish: shmem gives huge pages to those who ask, if at all. */
	madvise(rw, len, MADV_HUGEPAGE);
	madvise(ro, len, MADV_HUGEPAGE);
	return 0;
}

/* Reserved range again where the slab was, but for slot 0. */
static int host_unmap(struct kvc *k, const struct kvci_slab *s)
{
	struct kvci_window *w = &k->window[s->group];
	size_t off, len;

	if (!w->base || !kvci_slab_extent(k, s, &off, &len))
		return 0;
	if (!s->first_slot) {
		int err = map_null_block(k, s->group);

		if (err)
			return err;
		off = kvci_null_bytes(k, s->group);
		len -= off;
	}
	for (uint32_t p = 0; len && p < 2 * w->nr_planes; p++) {
		if (!map_nothing(len, w->base + p * w->stride + off))
			return -errno;
	}
	return 0;
}

/* One call per group, and it cannot leave anything of the old pool behind. */
static int host_reset(struct kvc *k)
{
	for (uint32_t g = 0; g < KVMD_MAX_GROUPS; g++) {
		struct kvci_window *w = &k->window[g];

		if (w->base && (!map_nothing(w->bytes, w->base) || map_null_block(k, g)))
			host_unreserve(k, g);
	}
	return 0;
}

static int host_copy(struct kvc *k, uint32_t shard, void *dst, const void *src, size_t bytes)
{
	(void)k;
	(void)shard;
	memcpy(dst, src, bytes);
	return 0;
}

const struct kvci_mem_ops kvci_mem_host = {
	.open = host_open,
	.close = host_close,
	.reserve = host_reserve,
	.unreserve = host_unreserve,
	.map = host_map,
	.unmap = host_unmap,
	.reset = host_reset,
	.copy = host_copy,
};
