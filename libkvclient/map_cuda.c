/* SPDX-License-Identifier: Apache-2.0 */
/*
 * map_cuda.c - slabs on GPUs that come as file descriptors: windows of device addresses.
 *
 * A group's range is reserved once; each handle is imported once and mapped into
 * both windows, with read access only in the one for reading. A mapping keeps the
 * memory, so the handle is released at once, and what was mapped is unmapped as it
 * was: the driver takes whole mappings only.
 *
 * The NULL block is a small allocation of zeroes, mapped at slot 0 of every window
 * while slab 0 is not. A kernel may read it at any moment: when other slabs of the
 * group are in use the GPUs are waited for before the one takes the other's place.
 *
 * Planes of a shard whose GPU this process does not see are skipped; their addresses
 * are NULL.
 */
#include <stdlib.h>
#include <string.h>

#include "libkvclient/cuda.h"

/* ---------------------------------------------------------------- mapping */

/* @len bytes of @mem at @at. */
static int map_view(struct kvci_cuda *c, const struct kvci_gpu *g, char *at, size_t len,
		    cu_mem mem, int prot, const char *what)
{
	const struct cu_mem_access access = {
		.location = { .type = CU_LOC_DEVICE, .id = g->dev },
		.flags = prot,
	};
	cu_ptr ptr = (cu_ptr)(uintptr_t)at;
	int r;

	r = c->cu->mem_map(ptr, len, 0, mem, 0);
	if (r)
		return kvci_cuda_fail(c, r, "cuMemMap", "%s, %zu bytes", what, len);
	r = c->cu->mem_set_access(ptr, len, &access, 1);
	if (!r)
		return 0;
	c->cu->mem_unmap(ptr, len);
	return kvci_cuda_fail(c, r, "cuMemSetAccess", "%s, %zu bytes", what, len);
}

static int unmap_view(struct kvci_cuda *c, char *at, size_t len, const char *what)
{
	int r = c->cu->mem_unmap((cu_ptr)(uintptr_t)at, len);

	return r ? kvci_cuda_fail(c, r, "cuMemUnmap", "%s, %zu bytes", what, len) : 0;
}

/* ------------------------------------------------------------- NULL block */

/* Zeroes for @group on @g, made at @at, where they stay mapped. */
static int zero_create(struct kvc *k, uint32_t group, struct kvci_gpu *g, char *at)
{
	struct kvci_cuda *c = k->cuda;
	const struct cu_mem_prop prop = {
		.type = CU_MEM_PINNED,
		.location = { .type = CU_LOC_DEVICE, .id = g->dev },
	};
	const struct cu_mem_access ro = { .location = prop.location, .flags = CU_PROT_READ };
	size_t len = kvci_null_bytes(k, group);
	cu_ptr ptr = (cu_ptr)(uintptr_t)at;
	cu_mem mem;
	int err, r;

	err = kvci_cuda_stream(c, g);
	if (err)
		return err;
	r = c->cu->mem_create(&mem, len, &prop, 0);
	if (r)
		return kvci_cuda_fail(c, r, "cuMemCreate", "NULL block of group %u, %zu bytes",
				      group, len);
	err = map_view(c, g, at, len, mem, CU_PROT_READWRITE, "NULL block");
	if (err)
		goto err_release;
	r = c->cu->set8(ptr, 0, len, g->stream);
	if (!r)
		r = c->cu->stream_sync(g->stream);
	if (!r)
		r = c->cu->mem_set_access(ptr, len, &ro, 1);
	if (r) {
		err = kvci_cuda_fail(c, r, "cuMemsetD8Async", "NULL block of group %u", group);
		goto err_unmap;
	}
	c->zero[group][g - c->gpu] = mem;
	return 0;

err_unmap:
	c->cu->mem_unmap(ptr, len);
err_release:
	c->cu->mem_release(mem);
	return err;
}

/* Zeroes at slot 0 in both windows of @plane, if they are not there. */
static int null_map(struct kvc *k, uint32_t group, uint32_t plane)
{
	struct kvci_window *w = &k->window[group];
	struct kvci_cuda *c = k->cuda;
	struct kvci_gpu *g = kvci_cuda_gpu(c, kvci_shard_of(k, group, plane));
	cu_mem *zero;
	int err = 0;

	if (!g)
		return 0;
	zero = &c->zero[group][g - c->gpu];
	for (uint32_t v = plane; !err && v < 2 * w->nr_planes; v += w->nr_planes) {
		char *at = w->base + v * w->stride;

		if (w->has_null[v])
			continue;
		if (!*zero)
			err = zero_create(k, group, g, at);
		else
			err = map_view(c, g, at, kvci_null_bytes(k, group), *zero, CU_PROT_READ,
				       "NULL block");
		w->has_null[v] = !err;
	}
	return err;
}

static int null_unmap(struct kvc *k, uint32_t group, uint32_t plane)
{
	struct kvci_window *w = &k->window[group];

	for (uint32_t v = plane; v < 2 * w->nr_planes; v += w->nr_planes) {
		int err;

		if (!w->has_null[v])
			continue;
		err = unmap_view(k->cuda, w->base + v * w->stride, kvci_null_bytes(k, group),
				 "NULL block");
		if (err)
			return err;
		w->has_null[v] = 0;
	}
	return 0;
}

/* Before slot 0 changes: kernels that read other slabs may be reading it too. */
static int null_wait(struct kvc *k, const struct kvci_slab *s)
{
	for (uint32_t i = 0; i < k->slabs.nr; i++) {
		const struct kvci_slab *o = &k->slabs.slab[i];

		if (o != s && o->group == s->group && o->nr_mapped)
			return kvci_cuda_wait(k->cuda);
	}
	return 0;
}

/* ---------------------------------------------------------------- windows */

static int vmm_open(struct kvc *k, const struct kvmd_space_reply *r)
{
	struct kvci_cuda *c;
	int err = kvci_cuda_open(k, r);

	if (err)
		return err;
	c = k->cuda;
	k->unit = 1;
	for (uint32_t i = 0; i < c->nr_gpus; i++) {
		const struct cu_mem_prop prop = {
			.type = CU_MEM_PINNED,
			.handle_types = CU_MEM_POSIX_FD,
			.location = { .type = CU_LOC_DEVICE, .id = c->gpu[i].dev },
		};
		size_t unit;
		int res = c->cu->mem_gran(&unit, &prop, CU_MEM_GRAN_MINIMUM);

		if (res) {
			err = kvci_cuda_fail(c, res, "cuMemGetAllocationGranularity", "GPU %d",
					     c->gpu[i].ordinal);
			kvci_cuda_close(k);
			return err;
		}
		k->unit = unit > k->unit ? unit : k->unit;
	}
	k->align = k->unit > KVCI_HUGE_PAGE ? k->unit : KVCI_HUGE_PAGE;
	return 0;
}

static void vmm_unreserve(struct kvc *k, uint32_t group)
{
	struct kvci_window *w = &k->window[group];
	struct kvci_cuda *c = k->cuda;

	for (uint32_t p = 0; w->has_null && p < w->nr_planes; p++)
		(void)null_unmap(k, group, p);
	for (uint32_t i = 0; i < c->nr_gpus; i++) {
		if (c->zero[group][i])
			c->cu->mem_release(c->zero[group][i]);
		c->zero[group][i] = 0;
	}
	c->cu->mem_unreserve((cu_ptr)(uintptr_t)w->base, w->bytes);
	w->base = NULL;
	free(w->has_null);
	w->has_null = NULL;
}

/* The NULL block into every window; each GPU's context is made current for its planes. */
static int null_map_all(struct kvc *k, uint32_t group)
{
	struct kvci_window *w = &k->window[group];
	int first = 0;

	for (uint32_t p = 0; p < w->nr_planes; p++) {
		struct kvci_gpu *g = kvci_cuda_gpu(k->cuda, kvci_shard_of(k, group, p));
		cu_ctx old;
		int err;

		if (!g)
			continue;
		err = kvci_cuda_enter(k->cuda, g, &old);
		if (!err) {
			err = null_map(k, group, p);
			kvci_cuda_leave(k->cuda, old);
		}
		first = first ? first : err;
	}
	return first;
}

static int vmm_reserve(struct kvc *k, uint32_t group)
{
	struct kvci_window *w = &k->window[group];
	struct kvci_cuda *c = k->cuda;
	cu_ptr base = 0;
	int err, r;

	w->has_null = (uint8_t *)calloc(2, w->nr_planes);
	if (!w->has_null)
		return -ENOMEM;
	r = c->cu->mem_reserve(&base, w->bytes, k->align, 0, 0);
	if (r) {
		free(w->has_null);
		w->has_null = NULL;
		return kvci_cuda_fail(c, r, "cuMemAddressReserve",
				      "group %u: no address space for %zu bytes of windows",
				      group, w->bytes);
	}
	w->base = (char *)(uintptr_t)base;
	for (uint32_t p = 0; p < w->nr_planes; p++) {
		bool seen = c->of_shard[kvci_shard_of(k, group, p)] >= 0;

		w->plane[p].rw = seen ? w->base + p * w->stride : NULL;
		w->plane[p].ro = seen ? w->base + (w->nr_planes + p) * w->stride : NULL;
	}
	err = null_map_all(k, group);
	if (err)
		vmm_unreserve(k, group);
	return err;
}

/* ------------------------------------------------------------------ slabs */

/* Both views of one plane, of memory that is imported here. */
static int import_plane(struct kvc *k, const struct kvci_slab *s, uint32_t plane, int fd,
			const struct kvci_gpu *g)
{
	struct kvci_window *w = &k->window[s->group];
	struct kvci_cuda *c = k->cuda;
	size_t off, len;
	char what[48], *rw, *ro;
	cu_mem mem;
	int err, r;

	snprintf(what, sizeof(what), "slab %u, handle %u", s->id, plane);
	if (!kvci_slab_extent(k, s, &off, &len)) {
		kvci_refuse("slab %u: %u slots of %llu bytes in handles of %llu do not lie on "
			    "this GPU's granules of %zu", s->id, s->nr_slots,
			    (unsigned long long)k->view.group[s->group].plane_bytes,
			    (unsigned long long)s->extent_bytes, k->unit);
		return -EPROTO;
	}
	r = c->cu->mem_import(&mem, (void *)(intptr_t)fd, CU_MEM_POSIX_FD);
	if (r)
		return kvci_cuda_fail(c, r, "cuMemImportFromShareableHandle", "%s", what);
	rw = w->plane[plane].rw + off;
	ro = w->base + (w->nr_planes + plane) * w->stride + off;
	err = s->first_slot ? 0 : null_unmap(k, s->group, plane);
	if (!err)
		err = map_view(c, g, rw, len, mem, CU_PROT_READWRITE, what);
	if (!err) {
		err = map_view(c, g, ro, len, mem, CU_PROT_READ, what);
		if (err)
			c->cu->mem_unmap((cu_ptr)(uintptr_t)rw, len);
	}
	/* The mappings keep it. */
	c->cu->mem_release(mem);
	return err;
}

static int vmm_map(struct kvc *k, const struct kvci_slab *s, uint32_t plane, int fd)
{
	struct kvci_cuda *c = k->cuda;
	struct kvci_gpu *g = kvci_cuda_gpu(c, kvci_shard_of(k, s->group, plane));
	cu_ctx old;
	int err;

	if (!g)
		return 0;
	if (!s->first_slot && !s->nr_mapped) {
		err = null_wait(k, s);
		if (err)
			return err;
	}
	err = kvci_cuda_enter(c, g, &old);
	if (err)
		return err;
	err = import_plane(k, s, plane, fd, g);
	kvci_cuda_leave(c, old);
	return err;
}

/* All planes of @s; goes on after an error, and says the first. */
static int unmap_slab(struct kvc *k, const struct kvci_slab *s)
{
	struct kvci_window *w = &k->window[s->group];
	struct kvci_cuda *c = k->cuda;
	size_t off, len;
	char what[32];
	int first = 0;

	if (!w->base || !kvci_slab_extent(k, s, &off, &len))
		return 0;
	snprintf(what, sizeof(what), "slab %u", s->id);
	for (uint32_t p = 0; p < s->nr_mapped; p++) {
		const struct kvci_gpu *g = kvci_cuda_gpu(c, kvci_shard_of(k, s->group, p));
		cu_ctx old;
		int err, err_ro;

		if (!g)
			continue;
		err = kvci_cuda_enter(c, g, &old);
		if (!err) {
			err = unmap_view(c, w->plane[p].rw + off, len, what);
			err_ro = unmap_view(c, w->base + (w->nr_planes + p) * w->stride + off,
					    len, what);
			kvci_cuda_leave(c, old);
			err = err ? err : err_ro;
		}
		first = first ? first : err;
	}
	return first;
}

static int vmm_unmap(struct kvc *k, const struct kvci_slab *s)
{
	int err = s->first_slot ? 0 : null_wait(k, s);

	if (!err)
		err = unmap_slab(k, s);
	if (!err && !s->first_slot)
		err = null_map_all(k, s->group);
	return err;
}

/*
 * Steps that are under way are waited for: an address that a kernel uses must not
 * go, and the daemon hears afterwards that none does. Ranges in which something may
 * still be mapped are given up.
 */
static int vmm_reset(struct kvc *k)
{
	int first = 0;

	if (k->slabs.nr)
		first = kvci_cuda_wait(k->cuda);
	for (uint32_t i = 0; i < k->slabs.nr; i++) {
		int err = unmap_slab(k, &k->slabs.slab[i]);

		first = first ? first : err;
	}
	for (uint32_t g = 0; !first && g < k->view.nr_groups; g++)
		first = k->window[g].base ? null_map_all(k, g) : 0;
	for (uint32_t g = 0; first && g < k->view.nr_groups; g++) {
		if (k->window[g].base)
			vmm_unreserve(k, g);
	}
	return first;
}

const struct kvci_mem_ops kvci_mem_vmm = {
	.open = vmm_open,
	.close = kvci_cuda_close,
	.reserve = vmm_reserve,
	.unreserve = vmm_unreserve,
	.map = vmm_map,
	.unmap = vmm_unmap,
	.reset = vmm_reset,
	.copy = kvci_cuda_copy,
	.exact = true,
};
