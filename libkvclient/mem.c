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

/* First byte behind the slab that has @at, an offset in a plane of @group; @at: none has. */
static size_t slab_end(const struct kvc *k, uint32_t group, size_t at)
{
	const size_t plane_bytes = k->view.group[group].plane_bytes;
	const size_t slot = at / plane_bytes;

	for (uint32_t i = 0; i < k->slabs.nr; i++) {
		const struct kvci_slab *s = &k->slabs.slab[i];

		if (s->group == group && s->mapped && s->nr_mapped == s->nr_total &&
		    slot >= s->first_slot && slot - s->first_slot < s->nr_slots)
			return ((size_t)s->first_slot + s->nr_slots) * plane_bytes;
	}
	return at;
}

/* There is memory behind all of it; the NULL block can be read whatever there is. */
static int check_memory(const struct kvc *k, uint32_t group, size_t at, size_t bytes, bool write)
{
	const size_t plane_bytes = k->view.group[group].plane_bytes;
	const size_t end = at + bytes;

	if (!write && at < plane_bytes)
		at = plane_bytes;
	while (at < end) {
		size_t next = slab_end(k, group, at);

		if (next == at) {
			kvci_refuse("slot %zu of group %u has no memory now", at / plane_bytes,
				    group);
			return -EINVAL;
		}
		at = next;
	}
	return 0;
}

/* The shard that [p, p + bytes) lies on; -EINVAL: not in memory of one plane's window. */
static int find_shard(const struct kvc *k, const void *p, size_t bytes, bool write)
{
	for (uint32_t g = 0; g < k->view.nr_groups; g++) {
		const struct kvci_window *w = &k->window[g];
		const size_t span = plane_span(k, g);

		for (uint32_t i = 0; w->plane && i < w->nr_planes; i++) {
			const char *base = w->plane[i].rw;
			int err;

			if (!inside((uintptr_t)p, bytes, base, span)) {
				base = w->plane[i].ro;
				if (write || !inside((uintptr_t)p, bytes, base, span))
					continue;
			}
			err = check_memory(k, g, (uintptr_t)p - (uintptr_t)base, bytes, write);
			return err ? err : (int)(i / k->view.group[g].planes);
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
