/* SPDX-License-Identifier: Apache-2.0 */
/*
 * map_legacy.c - slabs on GPUs that come as 64 bytes (cuIpcOpenMemHandle).
 *
 * The driver chooses the address, for reading and writing, the whole allocation at
 * once. So one slab holds all slots of a plane, there are no windows, and planes have
 * no address before it is there. Those of a shard whose GPU this process does not see
 * never have one.
 */
#include <string.h>
#include <unistd.h>

#include "libkvclient/cuda.h"

static int legacy_open(struct kvc *k, const struct kvmd_space_reply *r)
{
	k->unit = 1;
	k->align = KVCI_HUGE_PAGE;
	return kvci_cuda_open(k, r);
}

/* Another slab of the group would lie somewhere else. */
static int legacy_check(const struct kvc *k, const struct kvci_slab *s)
{
	bool alone = !s->first_slot;

	for (uint32_t i = 0; i < k->slabs.nr; i++) {
		const struct kvci_slab *o = &k->slabs.slab[i];

		alone = alone && (o == s || o->group != s->group || !o->nr_mapped);
	}
	if (alone)
		return 0;
	kvci_refuse("slab %u: with legacy handles group %u has one slab for all its slots; "
		    "ipc = vmm can have more", s->id, s->group);
	return -EOPNOTSUPP;
}

static int legacy_map(struct kvc *k, const struct kvci_slab *s, uint32_t plane, int fd)
{
	struct kvc_plane *at = &k->window[s->group].plane[plane];
	struct kvci_cuda *c = k->cuda;
	struct kvci_gpu *g = kvci_cuda_gpu(c, kvci_shard_of(k, s->group, plane));
	struct cu_ipc_handle handle;
	char bytes[sizeof(handle) + 1];
	cu_ptr ptr;
	cu_ctx old;
	int err, r;

	err = legacy_check(k, s);
	if (err || !g)
		return err;
	if (pread(fd, bytes, sizeof(bytes), 0) != sizeof(handle)) {
		kvci_refuse("slab %u, handle %u is not of the %zu bytes of a legacy handle", s->id,
			    plane, sizeof(handle));
		return -EPROTO;
	}
	memcpy(&handle, bytes, sizeof(handle));
	err = kvci_cuda_enter(c, g, &old);
	if (err)
		return err;
	r = c->cu->ipc_open(&ptr, handle, CU_IPC_LAZY_PEER);
	kvci_cuda_leave(c, old);
	if (r)
		return kvci_cuda_fail(c, r, "cuIpcOpenMemHandle", "slab %u, handle %u", s->id,
				      plane);
	at->rw = (char *)(uintptr_t)ptr;
	at->ro = at->rw;
	return 0;
}

static int legacy_unmap(struct kvc *k, const struct kvci_slab *s)
{
	struct kvci_cuda *c = k->cuda;
	int first = 0;

	for (uint32_t p = 0; p < s->nr_mapped; p++) {
		struct kvc_plane *at = &k->window[s->group].plane[p];
		const struct kvci_gpu *g = kvci_cuda_gpu(c, kvci_shard_of(k, s->group, p));
		cu_ctx old;
		int err, r;

		if (!g || !at->rw)
			continue;
		err = kvci_cuda_enter(c, g, &old);
		if (!err) {
			r = c->cu->ipc_close((cu_ptr)(uintptr_t)at->rw);
			kvci_cuda_leave(c, old);
			if (r)
				err = kvci_cuda_fail(c, r, "cuIpcCloseMemHandle", "slab %u", s->id);
		}
		at->rw = NULL;
		at->ro = NULL;
		first = first ? first : err;
	}
	return first;
}

static int legacy_reset(struct kvc *k)
{
	int first = 0;

	if (k->slabs.nr)
		first = kvci_cuda_wait(k->cuda);
	for (uint32_t i = 0; i < k->slabs.nr; i++) {
		int err = legacy_unmap(k, &k->slabs.slab[i]);

		first = first ? first : err;
	}
	return first;
}

const struct kvci_mem_ops kvci_mem_legacy = {
	.open = legacy_open,
	.close = kvci_cuda_close,
	.map = legacy_map,
	.unmap = legacy_unmap,
	.reset = legacy_reset,
	.copy = kvci_cuda_copy,
};
