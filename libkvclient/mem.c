/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem.c - bytes of the pool to and from memory of the caller, on any device.
 */
#include "libkvclient/internal.h"

/* Bytes of one plane's window. */
static size_t plane_span(const struct kvc *k, uint32_t group)
{
	const struct kvc_group_view *v = &k->view.group[group];

	return v->plane_bytes * v->max_slots;
}

static bool inside(uintptr_t at, size_t bytes, const char *base, size_t span)
{
	uintptr_t from = (uintptr_t)base;

	return base && at >= from && at - from <= span && bytes <= span - (at - from);
}

/* The shard that [p, p + bytes) lies on; -EINVAL: not inside one plane's window. */
static int find_shard(const struct kvc *k, const void *p, size_t bytes, bool write)
{
	for (uint32_t g = 0; g < k->view.nr_groups; g++) {
		const struct kvci_window *w = &k->window[g];
		const size_t span = plane_span(k, g);

		for (uint32_t i = 0; w->plane && i < w->nr_planes; i++) {
			if (inside((uintptr_t)p, bytes, w->plane[i].rw, span) ||
			    (!write && inside((uintptr_t)p, bytes, w->plane[i].ro, span)))
				return (int)(i / k->view.group[g].planes);
		}
	}
	kvci_refuse("%zu bytes at %p do not lie in a plane's window for %s", bytes, p,
		    write ? "filling" : "reading");
	return -EINVAL;
}

static int copy(struct kvc *k, void *dst, const void *src, size_t bytes, bool write)
{
	int shard;

	if (!k->mem)
		return -EOPNOTSUPP;
	shard = find_shard(k, write ? dst : src, bytes, write);
	if (shard < 0)
		return shard;
	return bytes ? k->mem->copy(k, (uint32_t)shard, dst, src, bytes) : 0;
}

int kvc_mem_put(struct kvc *k, void *dst, const void *src, size_t bytes)
{
	return copy(k, dst, src, bytes, true);
}

int kvc_mem_get(struct kvc *k, void *dst, const void *src, size_t bytes)
{
	return copy(k, dst, src, bytes, false);
}
