/* SPDX-License-Identifier: Apache-2.0 */
/*
 * map.c - the pool in the client's address space.
 *
 * Each group has one reserved range, cut into one window per plane, shard and
 * view: first all windows for filling, then the same for reading. A slab is mapped
 * over its part of every window, so that the address of a slot is base + slot *
 * plane_bytes and never moves. A slab that leaves is replaced by reserved range
 * again. Slot 0, the NULL block, can be read at any time: zeroes of this process
 * stand for it while the slab that it lies in is not there. The range itself goes
 * in kvc_destroy(), or in kvc_reconnect() when the geometry or the devices changed.
 *
 * How memory is reserved and mapped is struct kvci_mem_ops: map_host.c for memfds,
 * map_cuda.c and map_legacy.c for GPUs.
 */
#include <stdlib.h>
#include <string.h>

#include "libkvclient/internal.h"

size_t kvci_null_bytes(const struct kvc *k, uint32_t group)
{
	return (k->view.group[group].plane_bytes + k->unit - 1) / k->unit * k->unit;
}

static void window_free(struct kvc *k, uint32_t group)
{
	struct kvci_window *w = &k->window[group];

	if (w->base)
		k->mem->unreserve(k, group);
	free(w->plane);
	free(w->has_null);
	memset(w, 0, sizeof(*w));
	k->view.group[group].plane = NULL;
}

/* No ranges, no slabs, no device any more. */
static void memory_exit(struct kvc *k)
{
	for (uint32_t g = 0; g < KVMD_MAX_GROUPS; g++)
		window_free(k, g);
	if (k->mem)
		k->mem->close(k);
	k->mem = NULL;
	k->handle_kind = KVMD_HANDLE_NONE;
}

void kvci_mem_free(struct kvc *k)
{
	memory_exit(k);
	free(k->slabs.slab);
	memset(&k->slabs, 0, sizeof(k->slabs));
}

void kvci_mem_forget(struct kvc *k)
{
	for (uint32_t g = 0; g < KVMD_MAX_GROUPS; g++)
		k->window[g].base = NULL;
	free(k->cuda);
	k->cuda = NULL;
	k->mem = NULL;
}

/* The means for the space's handles; kept over a reconnect if they are the same. */
static int memory_init(struct kvc *k, const struct kvmd_space_reply *r)
{
	static const struct kvci_mem_ops *const ops[KVMD_NR_HANDLE] = {
		[KVMD_HANDLE_MEMFD] = &kvci_mem_host,
		[KVMD_HANDLE_CUDA_VMM] = &kvci_mem_vmm,
		[KVMD_HANDLE_CUDA_LEGACY] = &kvci_mem_legacy,
	};
	int err;

	if (k->mem && k->handle_kind == r->handle_kind && k->view.nr_shards == r->nr_shards &&
	    !memcmp(k->device, r->device, sizeof(k->device)))
		return 0;
	memory_exit(k);
	if (r->handle_kind == KVMD_HANDLE_NONE)
		return 0;
	if (r->handle_kind >= KVMD_NR_HANDLE) {
		kvci_refuse("this library cannot map handles of kind %u: it is older than the "
			    "daemon", r->handle_kind);
		return -EOPNOTSUPP;
	}
	err = ops[r->handle_kind]->open(k, r);
	if (err)
		return err;
	k->mem = ops[r->handle_kind];
	k->handle_kind = r->handle_kind;
	memcpy(k->device, r->device, sizeof(k->device));
	return 0;
}

static int window_reserve(struct kvc *k, uint32_t group)
{
	const struct kvc_group_view *v = &k->view.group[group];
	struct kvci_window *w = &k->window[group];

	if (w->base || !k->mem || !k->mem->reserve)
		return 0;
	if (__builtin_mul_overflow(v->plane_bytes, (uint64_t)v->max_slots, &w->stride) ||
	    __builtin_add_overflow(w->stride, k->align - 1, &w->stride))
		goto err_range;
	w->stride -= w->stride % k->align;
	if (__builtin_mul_overflow(w->stride, 2 * (size_t)w->nr_planes, &w->bytes) ||
	    w->bytes > SIZE_MAX / 2)
		goto err_range;
	return k->mem->reserve(k, group);
err_range:
	kvci_refuse("group %u: no address space for %u slots of %llu bytes in %u planes", group,
		    v->max_slots, (unsigned long long)v->plane_bytes, w->nr_planes);
	return -ENOMEM;
}

static int group_set(struct kvc *k, uint32_t g, const struct kvmd_space_reply *r)
{
	struct kvc_group_view *v = &k->view.group[g];
	const struct kvmd_group *n = &r->group[g];
	struct kvci_window *w = &k->window[g];

	if (!n->planes || n->planes > KVMD_MAX_PLANES || !n->plane_bytes || !n->block_tokens)
		return -EPROTO;
	if (w->base && (v->plane_bytes != n->plane_bytes || v->planes != n->planes ||
			v->nr_shards != r->nr_shards || v->max_slots != n->max_slots))
		window_free(k, g);	/* addresses cannot be kept */
	v->plane_bytes = n->plane_bytes;
	v->planes = n->planes;
	v->nr_shards = r->nr_shards;
	v->block_tokens = n->block_tokens;
	v->max_slots = n->max_slots;
	v->rule = n->rule;
	v->row_blocks = r->row_blocks[g];
	v->rows = k->tables + r->row_off[g];
	v->seq_stride = r->seq_stride;
	if (!w->base) {
		free(w->plane);
		w->nr_planes = n->planes * r->nr_shards;
		w->plane = (struct kvc_plane *)calloc(w->nr_planes, sizeof(*w->plane));
		if (!w->plane)
			return -ENOMEM;
	}
	v->plane = w->plane;
	return window_reserve(k, g);
}

int kvci_groups_set(struct kvc *k, const struct kvmd_space_reply *r)
{
	int err;

	if (!r->nr_groups || r->nr_groups > KVMD_MAX_GROUPS || !r->nr_shards ||
	    r->nr_shards > KVMD_MAX_SHARDS)
		return -EPROTO;
	err = memory_init(k, r);
	if (err)
		return err;
	k->view.nr_groups = r->nr_groups;
	k->view.nr_shards = r->nr_shards;
	for (uint32_t g = 0; g < r->nr_groups; g++) {
		err = group_set(k, g, r);
		if (err)
			return err;
	}
	for (uint32_t g = r->nr_groups; g < KVMD_MAX_GROUPS; g++) {
		window_free(k, g);
		memset(&k->view.group[g], 0, sizeof(k->view.group[g]));
	}
	return 0;
}

const struct kvmd_seq_status *kvc_seq_status(const struct kvc *k, uint32_t seq)
{
	if (!k->tables || !k->has_loads || seq >= k->view.max_seqs)
		return NULL;
	return (const struct kvmd_seq_status *)(const void *)(k->tables + seq * k->seq_stride);
}

static struct kvci_slab *slab_find(struct kvci_slabs *t, uint32_t id, uint32_t gen)
{
	for (uint32_t i = 0; i < t->nr; i++) {
		if (t->slab[i].id == id && t->slab[i].gen == gen)
			return &t->slab[i];
	}
	return NULL;
}

static struct kvci_slab *slab_new(struct kvci_slabs *t, const struct kvmd_slab *m)
{
	struct kvci_slab *s;

	if (t->nr == t->size) {
		uint32_t size = t->size ? 2 * t->size : 16;

		s = (struct kvci_slab *)realloc(t->slab, size * sizeof(*s));
		if (!s)
			return NULL;
		t->slab = s;
		t->size = size;
	}
	s = &t->slab[t->nr++];
	memset(s, 0, sizeof(*s));
	s->id = m->slab;
	s->gen = m->gen;
	s->group = m->group;
	s->first_slot = m->first_slot;
	s->nr_slots = m->nr_slots;
	s->nr_total = m->fd_total;
	s->extent_bytes = m->extent_bytes;
	return s;
}

bool kvci_slab_extent(const struct kvc *k, const struct kvci_slab *s, size_t *ret_off,
		      size_t *ret_len)
{
	const uint64_t plane_bytes = k->view.group[s->group].plane_bytes;
	const size_t stride = k->window[s->group].stride;
	size_t off = s->first_slot * plane_bytes, len = s->nr_slots * plane_bytes;

	len = (len + k->unit - 1) / k->unit * k->unit;
	if (k->mem->exact) {
		if (s->extent_bytes < len || s->extent_bytes % k->unit)
			return false;
		len = s->extent_bytes;
	}
	if (!len || off % k->unit || off > stride || len > stride - off)
		return false;
	*ret_off = off;
	*ret_len = len;
	return true;
}

static int slab_check(const struct kvc *k, const struct kvci_rx *rx)
{
	const struct kvmd_slab *m = &rx->u.slab;
	uint32_t planes;

	if (rx->bytes != sizeof(*m) || m->group >= k->view.nr_groups || !m->nr_slots ||
	    m->nr_slots > k->view.group[m->group].max_slots ||
	    m->first_slot > k->view.group[m->group].max_slots - m->nr_slots)
		return -EPROTO;
	if (m->handle_kind == KVMD_HANDLE_NONE)
		return m->fd_total || rx->nr_fds ? -EPROTO : 0;
	if (m->handle_kind != k->handle_kind) {
		kvci_refuse("slab %u has handles of kind %u, its space has kind %u", m->slab,
			    m->handle_kind, k->handle_kind);
		return -EPROTO;
	}
	planes = k->window[m->group].nr_planes;
	if (m->fd_total != planes || !rx->nr_fds || m->fd_first > planes ||
	    rx->nr_fds > planes - m->fd_first)
		return -EPROTO;
	return 0;
}

/* What @m says is there now cannot be what is stale: another of its id, or of its slots. */
static int drop_stale(struct kvc *k, const struct kvmd_slab *m)
{
	for (uint32_t i = k->slabs.nr; i--;) {
		const struct kvci_slab *s = &k->slabs.slab[i];
		int err;

		if (!s->stale || (s->id != m->slab &&
				  (s->group != m->group ||
				   s->first_slot >= m->first_slot + m->nr_slots ||
				   m->first_slot >= s->first_slot + s->nr_slots)))
			continue;
		err = kvci_slab_del(k, s->id, s->gen);
		if (err)
			return err;
	}
	return 0;
}

int kvci_slab_add(struct kvc *k, struct kvci_rx *rx)
{
	const struct kvmd_slab *m = &rx->u.slab;
	struct kvci_slab *s;
	int err;

	err = slab_check(k, rx);
	if (err)
		return err;
	s = slab_find(&k->slabs, m->slab, m->gen);
	if (!s) {
		err = drop_stale(k, m);
		if (err)
			return err;
		s = slab_new(&k->slabs, m);
	}
	if (!s)
		return -ENOMEM;
	s->stale = false;
	if (s->group != m->group || s->first_slot != m->first_slot ||
	    s->nr_slots != m->nr_slots || m->fd_first != s->nr_got)
		return -EPROTO;
	s->mapped |= rx->nr_fds != 0;
	for (uint32_t i = 0; i < rx->nr_fds && !s->kept; i++) {
		err = k->mem->map(k, s, m->fd_first + i, rx->fd[i]);
		if (err)
			return err;
		s->nr_mapped++;
	}
	s->nr_got += rx->nr_fds;
	if (s->nr_got < s->nr_total)
		return 0;
	s->kept = false;
	k->slabs.nr_whole++;
	return 1;
}

int kvci_slab_del(struct kvc *k, uint32_t id, uint32_t gen)
{
	struct kvci_slab *s = slab_find(&k->slabs, id, gen);
	int err;

	if (!s)
		return -EPROTO;
	err = s->mapped ? k->mem->unmap(k, s) : 0;
	if (err)
		return err;
	*s = k->slabs.slab[--k->slabs.nr];
	return 0;
}

int kvci_slabs_keep(struct kvc *k)
{
	k->slabs.nr_whole = 0;
	for (uint32_t i = k->slabs.nr; i--;) {
		struct kvci_slab *s = &k->slabs.slab[i];

		/* One that came in part was never used: it begins anew. */
		if (s->nr_got != s->nr_total) {
			int err = kvci_slab_del(k, s->id, s->gen);

			if (err)
				return err;
			continue;
		}
		s->kept = true;
		s->stale = true;
		s->nr_got = 0;
	}
	return 0;
}

int kvci_slabs_sweep(struct kvc *k)
{
	for (uint32_t i = k->slabs.nr; i--;) {
		const struct kvci_slab *s = &k->slabs.slab[i];
		int err = s->stale ? kvci_slab_del(k, s->id, s->gen) : 0;

		if (err)
			return err;
	}
	return 0;
}

int kvci_slabs_reset(struct kvc *k)
{
	int err = k->mem ? k->mem->reset(k) : 0;

	k->slabs.nr = 0;
	k->slabs.nr_whole = 0;
	return err;
}
