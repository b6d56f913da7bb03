// SPDX-License-Identifier: Apache-2.0
/*
 * alloc.c - cuMemAlloc() and the handles of it that other processes open.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fakecuda/fake.h"

#define IPC_MAGIC	0x63706964u

/* The 64 bytes: anyone who learns them can try (1.1). */
struct ipc_name {
	uint32_t magic;
	int32_t pid, fd, gpu;
	uint64_t start, ino, bytes;
	uint64_t reserved[3];
};
_Static_assert(sizeof(struct ipc_name) == sizeof(struct cu_ipc_handle), "64 bytes");

static size_t rounded(size_t bytes)
{
	return (bytes + fc.conf.granularity - 1) & ~(fc.conf.granularity - 1);
}

/* Addresses for @p and readable and writable by its device; takes over the reference. */
static int place(struct fc_phys *p, int gpu, cu_ptr *ret)
{
	struct fc_map *m;
	cu_ptr ptr;
	int r = fc_reserve(rounded(p->bytes), 0, 0, &ptr);

	if (!r) {
		r = fc_map_new(ptr, p, &m);
		if (r)
			fc_unreserve(ptr);
	}
	if (!r) {
		fc_map_access(m, gpu, CU_PROT_READWRITE);
		*ret = ptr;
	}
	fc_phys_put(p);
	return r;
}

int fc_mem_alloc(cu_ptr *ret, size_t bytes)
{
	struct fc_phys *p;
	struct fc_ctx *c;
	int r;

	ENTER_CTX(mem_alloc, &c);
	if (!bytes)
		return fc_leave(CU_INVALID_VALUE);
	if (rounded(bytes) < bytes)
		return fc_leave(CU_OUT_OF_MEMORY);
	p = fc_phys_new(c->gpu, (bytes + 4095) & ~(size_t)4095, true, &r);
	if (!p)
		return fc_leave(r);
	fc_phys_push(p);
	return fc_leave(place(p, c->gpu, ret));
}

static void remove_map(struct fc_map *m)
{
	cu_ptr ptr = m->ptr;

	fc_map_del(m);
	fc_unreserve(ptr);
}

/* Waits for the copies, as the device is synchronised. */
int fc_mem_free(cu_ptr ptr)
{
	struct fc_map *m;
	struct fc_ctx *c;

	ENTER_CTX(mem_free, &c);
	fc_drain(c);
	m = fc_map_at(ptr);
	if (!m || m->ptr != ptr || !m->phys->legacy || m->phys->fd < 0)
		return fc_leave(CU_INVALID_VALUE);
	remove_map(m);
	return fc_leave(CU_OK);
}

void fc_alloc_reset(struct fc_ctx *c)
{
	struct fc_map *m, *next;

	for (m = fc.maps; m; m = next) {
		next = m->next;
		if (m->phys->legacy && m->phys->gpu == c->gpu)
			remove_map(m);
	}
}

/* Whole allocations only, never VMM memory [H 9314, 910]. */
int fc_ipc_get(struct cu_ipc_handle *ret, cu_ptr ptr)
{
	struct ipc_name n = { .magic = IPC_MAGIC };
	struct fc_map *m;
	struct fc_ctx *c;

	ENTER_CTX(ipc_get, &c);
	m = fc_map_at(ptr);
	if (!m || m->ptr != ptr || !m->phys->legacy || m->phys->fd < 0)
		return fc_leave(CU_INVALID_VALUE);
	n.pid = fc.pid;
	n.start = fc.start;
	n.fd = m->phys->fd;
	n.gpu = m->phys->gpu;
	n.ino = m->phys->ino;
	n.bytes = m->phys->bytes;
	memcpy(ret, &n, sizeof(n));
	return fc_leave(CU_OK);
}

/* The exporter's fd of it is what holds it: the memory dies with the exporter (1.1). */
static int exporter_path(const struct cu_ipc_handle *h, char path[64])
{
	struct ipc_name n;
	struct stat st;

	memcpy(&n, h, sizeof(n));
	snprintf(path, 64, "/proc/%d/fd/%d", n.pid, n.fd);
	return n.magic == IPC_MAGIC && !stat(path, &st) && st.st_ino == n.ino &&
	       fc_proc_start(n.pid) == n.start ? 0 : -1;
}

bool fc_ipc_dead(const struct fc_phys *p)
{
	char path[64];

	return p->legacy && p->fd < 0 && exporter_path(&p->ipc, path);
}

/* Not by the exporter itself; counted when opened again [H 9366]. */
int fc_ipc_open(cu_ptr *ret, struct cu_ipc_handle h, unsigned flags)
{
	struct ipc_name n;
	struct fc_phys *p;
	struct fc_ctx *c;
	char path[64];
	int r;

	ENTER_CTX(ipc_open, &c);
	memcpy(&n, &h, sizeof(n));
	if (flags != CU_IPC_LAZY_PEER)
		return fc_leave(CU_INVALID_VALUE);
	if (n.magic == IPC_MAGIC && n.pid == fc.pid && n.start == fc.start)
		return fc_leave(CU_INVALID_CONTEXT);
	if (exporter_path(&h, path))
		return fc_leave(CU_INVALID_HANDLE);
	if (n.gpu != c->gpu)
		return fc_leave(CU_INVALID_DEVICE);
	for (struct fc_map *m = fc.maps; m; m = m->next) {
		if (!m->phys->nr_opens || memcmp(&m->phys->ipc, &h, sizeof(h)))
			continue;
		m->phys->nr_opens++;
		*ret = m->ptr;
		return fc_leave(CU_OK);
	}
	p = calloc(1, sizeof(*p));
	if (!p)
		return fc_leave(CU_OUT_OF_MEMORY);
	p->gpu = n.gpu;
	p->ino = n.ino;
	p->bytes = n.bytes;
	p->legacy = true;
	p->ipc = h;
	p->nr_opens = p->refs = 1;
	p->fd = open(path, O_RDWR | O_CLOEXEC);
	r = p->fd < 0 ? CU_INVALID_HANDLE : fc_phys_alias(p);
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
	if (r) {
		free(p);
		return fc_leave(r);
	}
	fc_phys_push(p);
	return fc_leave(place(p, c->gpu, ret));
}

int fc_ipc_close(cu_ptr ptr)
{
	struct fc_map *m;
	struct fc_ctx *c;

	ENTER_CTX(ipc_close, &c);
	m = fc_map_at(ptr);
	if (!m || m->ptr != ptr || !m->phys->nr_opens)
		return fc_leave(CU_INVALID_VALUE);
	if (!--m->phys->nr_opens)
		remove_map(m);
	return fc_leave(CU_OK);
}
