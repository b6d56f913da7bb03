/* SPDX-License-Identifier: Apache-2.0 */
/*
 * map.c - the pool in the client's address space.
 *
 * Each group has one reserved range (PROT_NONE), cut into one window per plane,
 * shard and view: first all windows for filling, then the same for reading. A
 * slab is mapped over its part of every window, so that the address of a slot
 * is base + slot * plane_bytes and never moves. A slab that leaves is replaced
 * by reserved range again. Slot 0, the NULL block, can be read at any time: zero
 * pages stand for it while the slab that it lies in is not there. The range
 * itself goes in kvc_destroy(), or in kvc_reconnect() when the geometry changed.
 *
 * Nothing here is inherited by fork(): a child must not keep slabs alive.
 */
#include <stdlib.h>
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

/* Bytes of slot 0 in one window, in whole pages. */
static size_t null_block_bytes(const struct kvc *k, uint32_t group)
{
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return (k->view.group[group].plane_bytes + page - 1) / page * page;
}

/* Zero pages for slot 0 of @group in every window. */
static int map_null_block(struct kvc *k, uint32_t group)
{
	const struct kvci_window *w = &k->window[group];
	size_t len = null_block_bytes(k, group);

	for (uint32_t p = 0; p < 2 * w->nr_planes; p++) {
		void *at = mmap(w->base + p * w->stride, len, PROT_READ, MAP_PRIVATE |
				MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);

		if (at == MAP_FAILED)
			return -errno;
		madvise(at, len, MADV_DONTFORK);
	}
	return 0;
}

static void window_free(struct kvci_window *w)
{
	if (w->base)
		munmap(w->base, w->bytes);
	free(w->plane);
	memset(w, 0, sizeof(*w));
}

void kvci_windows_free(struct kvc *k)
{
	for (uint32_t g = 0; g < KVMD_MAX_GROUPS; g++)
		window_free(&k->window[g]);
	free(k->slabs.slab);
	memset(&k->slabs, 0, sizeof(k->slabs));
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

static int window_reserve(struct kvc *k, uint32_t group)
{
	const struct kvc_group_view *v = &k->view.group[group];
	struct kvci_window *w = &k->window[group];
	size_t stride, bytes;

	if (w->base)
		return 0;
	if (__builtin_mul_overflow(v->plane_bytes, (uint64_t)v->max_slots, &stride) ||
	    __builtin_add_overflow(stride, KVCI_HUGE_PAGE - 1, &stride))
		goto err_range;
	stride -= stride % KVCI_HUGE_PAGE;
	if (__builtin_mul_overflow(stride, 2 * (size_t)w->nr_planes, &bytes) ||
	    bytes > SIZE_MAX / 2)
		goto err_range;
	w->base = reserve_aligned(bytes);
	if (!w->base)
		goto err_range;
	w->bytes = bytes;
	w->stride = stride;
	for (uint32_t p = 0; p < w->nr_planes; p++) {
		w->plane[p].rw = w->base + p * stride;
		w->plane[p].ro = w->base + (w->nr_planes + p) * stride;
	}
	if (!map_null_block(k, group))
		return 0;
	munmap(w->base, w->bytes);
	w->base = NULL;
err_range:
	kvci_refuse("group %u: no address space for %u slots of %llu bytes in %u planes", group,
		    v->max_slots, (unsigned long long)v->plane_bytes, w->nr_planes);
	return -ENOMEM;
}

static int group_set(struct kvc *k, uint32_t g, const struct kvmd_space_reply *r, bool reserve)
{
	struct kvc_group_view *v = &k->view.group[g];
	const struct kvmd_group *n = &r->group[g];
	struct kvci_window *w = &k->window[g];

	if (!n->planes || n->planes > KVMD_MAX_PLANES || !n->plane_bytes || !n->block_tokens)
		return -EPROTO;
	if (w->base && (v->plane_bytes != n->plane_bytes || v->planes != n->planes ||
			v->nr_shards != r->nr_shards || v->max_slots != n->max_slots))
		window_free(w);	/* addresses cannot be kept */
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
	return reserve ? window_reserve(k, g) : 0;
}

int kvci_groups_set(struct kvc *k, const struct kvmd_space_reply *r, bool reserve)
{
	int err;

	if (!r->nr_groups || r->nr_groups > KVMD_MAX_GROUPS || !r->nr_shards ||
	    r->nr_shards > KVMD_MAX_SHARDS)
		return -EPROTO;
	k->view.nr_groups = r->nr_groups;
	k->view.nr_shards = r->nr_shards;
	for (uint32_t g = 0; g < r->nr_groups; g++) {
		err = group_set(k, g, r, reserve);
		if (err)
			return err;
	}
	for (uint32_t g = r->nr_groups; g < KVMD_MAX_GROUPS; g++) {
		window_free(&k->window[g]);
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
	return s;
}

/* The bytes of a slab in one window; false: they do not lie on pages. */
static bool slab_extent(const struct kvc *k, const struct kvci_slab *s, size_t *ret_off,
			size_t *ret_len)
{
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);
	const uint64_t plane_bytes = k->view.group[s->group].plane_bytes;
	const size_t stride = k->window[s->group].stride;
	size_t off = s->first_slot * plane_bytes, len = s->nr_slots * plane_bytes;

	len = (len + page - 1) / page * page;
	if (!len || off % page || off > stride || len > stride - off)
		return false;
	*ret_off = off;
	*ret_len = len;
	return true;
}

static int slab_map_plane(struct kvc *k, const struct kvci_slab *s, uint32_t plane, int fd)
{
	struct kvci_window *w = &k->window[s->group];
	size_t off, len;
	char *rw, *ro;

	if (!slab_extent(k, s, &off, &len))
		return -EPROTO;
	rw = w->plane[plane].rw + off;
	ro = w->base + (w->nr_planes + plane) * w->stride + off;
	if (!kvci_map_fd(fd, len, PROT_READ | PROT_WRITE, rw) ||
	    !kvci_map_fd(fd, len, PROT_READ, ro))
		return -errno;
	/* Only a wish: shmem gives huge pages to those who ask, if at all. */
	madvise(rw, len, MADV_HUGEPAGE);
	madvise(ro, len, MADV_HUGEPAGE);
	return 0;
}

/* Reserved range again where the slab was, but for slot 0. */
static int slab_unmap(struct kvc *k, const struct kvci_slab *s)
{
	struct kvci_window *w = &k->window[s->group];
	size_t off, len;

	if (!s->mapped || !w->base || !slab_extent(k, s, &off, &len))
		return 0;
	if (!s->first_slot) {
		int err = map_null_block(k, s->group);

		if (err)
			return err;
		off = null_block_bytes(k, s->group);
		len -= off;
	}
	for (uint32_t p = 0; len && p < 2 * w->nr_planes; p++) {
		if (!map_nothing(len, w->base + p * w->stride + off))
			return -errno;
	}
	return 0;
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
	if (m->handle_kind != KVMD_HANDLE_MEMFD) {
		kvci_refuse("slab %u: this library cannot map handles of kind %u", m->slab,
			    m->handle_kind);
		return -EOPNOTSUPP;
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
	if (rx->nr_fds) {
		err = window_reserve(k, m->group);
		if (err)
			return err;
		s->mapped = true;
	}
	for (uint32_t i = 0; i < rx->nr_fds && !s->kept; i++) {
		err = slab_map_plane(k, s, m->fd_first + i, rx->fd[i]);
		if (err)
			return err;
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
	err = slab_unmap(k, s);
	if (err)
		return err;
	*s = k->slabs.slab[--k->slabs.nr];
	return 0;
}

void kvci_slabs_keep(struct kvc *k)
{
	for (uint32_t i = 0; i < k->slabs.nr; i++) {
		struct kvci_slab *s = &k->slabs.slab[i];

		s->kept = s->nr_got == s->nr_total;
		s->stale = true;
		s->nr_got = 0;
	}
	k->slabs.nr_whole = 0;
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

void kvci_slabs_reset(struct kvc *k)
{
	/* One call per group, and it cannot leave anything of the old pool behind. */
	for (uint32_t g = 0; g < KVMD_MAX_GROUPS; g++) {
		struct kvci_window *w = &k->window[g];

		if (w->base && (!map_nothing(w->bytes, w->base) || map_null_block(k, g)))
			window_free(w);
	}
	k->slabs.nr = 0;
	k->slabs.nr_whole = 0;
}
