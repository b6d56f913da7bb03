// SPDX-License-Identifier: Apache-2.0
/*
 * vmm.c - physical memory, reserved addresses, mappings and their protection.
 *
 * A device address is reserved address space of the process without access for the
 * CPU (cpu=1: with the access the device has); the bytes are reached by the mapping
 * that each piece of memory has of its own (alias).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fakecuda/fake.h"

#define POISON		0xa5		/* memory of the last owner, as far as anyone may know */
#define NAME		"fakecuda-"	/* of the memfds, with the device's number behind it */
#define LINK		"/memfd:" NAME

static bool aligned(uint64_t n)
{
	return !(n & (fc.conf.granularity - 1));
}

/* ------------------------------------------------------------ physical memory */

int fc_phys_alias(struct fc_phys *p)
{
	void *m = mmap(NULL, p->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, p->fd, 0);

	if (m == MAP_FAILED)
		return CU_OUT_OF_MEMORY;
	p->alias = m;
	return 0;
}

/* In the state file's account; out of memory counts all processes. */
static int account(struct fc_phys *p, const struct stat *st)
{
	struct fc_mem *m = NULL;
	int r = 0;

	fc_lock(fc.state);
	if (fc_used(fc.state, p->gpu) + p->bytes > fc.conf.mem)
		fc_reap_mem(fc.state);
	if (fc_used(fc.state, p->gpu) + p->bytes > fc.conf.mem)
		r = CU_OUT_OF_MEMORY;
	for (int again = 0; !r && !m && again < 2; again++) {
		for (int i = 0; !m && i < FC_MAX_MEMS; i++)
			if (!fc.state->mem[i].ino)
				m = &fc.state->mem[i];
		if (!m)
			fc_reap_mem(fc.state);
	}
	if (!r && !m)
		r = CU_OUT_OF_MEMORY;
	if (!r) {
		m->dev = st->st_dev;
		m->bytes = p->bytes;
		m->gpu = p->gpu;
		m->pid = fc.pid;
		m->fd = p->fd;
		m->ino = st->st_ino;
	}
	fc_unlock(fc.state);
	return r;
}

struct fc_phys *fc_phys_new(int gpu, size_t bytes, bool legacy, int *ret_err)
{
	struct fc_phys *p = calloc(1, sizeof(*p));
	struct stat st;
	char name[32];

	*ret_err = CU_OUT_OF_MEMORY;
	if (!p)
		return NULL;
	snprintf(name, sizeof(name), NAME "%d", gpu);
	p->gpu = gpu;
	p->bytes = bytes;
	p->legacy = legacy;
	p->fd = memfd_create(name, MFD_CLOEXEC);
	if (p->fd < 0 || ftruncate(p->fd, bytes) || fstat(p->fd, &st)) {
		*ret_err = CU_OPERATING_SYSTEM;
		goto err_close;
	}
	p->ino = st.st_ino;
	*ret_err = account(p, &st);
	if (!*ret_err)
		*ret_err = fc_phys_alias(p);
	if (*ret_err)
		goto err_close;
	memset(p->alias, POISON, bytes);
	p->refs = 1;
	return p;

err_close:
	if (p->fd >= 0)
		close(p->fd);
	free(p);
	return NULL;
}

void fc_phys_push(struct fc_phys *p)
{
	p->next = fc.physs;
	fc.physs = p;
}

/* Freed with the last handle and mapping here; exported fds keep the memfd [H 12841]. */
void fc_phys_put(struct fc_phys *p)
{
	struct fc_phys **at = &fc.physs;

	if (--p->refs)
		return;
	while (*at && *at != p)
		at = &(*at)->next;
	if (*at)
		*at = p->next;
	munmap(p->alias, p->bytes);
	if (p->fd >= 0)
		close(p->fd);
	free(p);
}

static struct fc_phys *find_handle(cu_mem mem)
{
	struct fc_phys *p;

	for (p = fc.physs; p; p = p->next)
		if (mem && p->handle == mem)
			return p;
	return NULL;
}

static int check_prop(const struct cu_mem_prop *prop)
{
	if (!fc.conf.vmm)
		return CU_NOT_SUPPORTED;
	if (!prop || prop->type != CU_MEM_PINNED || prop->win32 ||
	    (prop->handle_types & ~CU_MEM_POSIX_FD))
		return CU_INVALID_VALUE;
	/* Host locations exist, but none that we ask for is exportable [H 12788]. */
	if (prop->location.type != CU_LOC_DEVICE)
		return CU_NOT_SUPPORTED;
	return fc_physical(prop->location.id) < 0 ? CU_INVALID_DEVICE : 0;
}

int fc_mem_gran(size_t *ret, const struct cu_mem_prop *prop, int option)
{
	int r;

	ENTER(mem_gran);
	r = check_prop(prop);
	if (r || (option != CU_MEM_GRAN_MINIMUM && option != CU_MEM_GRAN_RECOMMENDED))
		return r ? r : CU_INVALID_VALUE;
	*ret = fc.conf.granularity;
	return CU_OK;
}

/* The size is a multiple of the granularity [H 12782]. No context is needed. */
int fc_mem_create(cu_mem *ret, size_t bytes, const struct cu_mem_prop *prop,
		  unsigned long long flags)
{
	struct fc_phys *p;
	int r;

	ENTER_LOCK(mem_create);
	r = check_prop(prop);
	if (!r && (!bytes || !aligned(bytes) || flags))
		r = CU_INVALID_VALUE;
	if (r)
		return fc_leave(r);
	p = fc_phys_new(fc_physical(prop->location.id), bytes, false, &r);
	if (!p)
		return fc_leave(r);
	p->exportable = prop->handle_types & CU_MEM_POSIX_FD;
	p->handle = *ret = ++fc.next_handle << 8;
	fc_phys_push(p);
	return fc_leave(CU_OK);
}

/* Mappings keep the memory [H 12841]; the handle is gone. */
int fc_mem_release(cu_mem mem)
{
	struct fc_phys *p;

	ENTER_LOCK(mem_release);
	p = find_handle(mem);
	if (!p)
		return fc_leave(CU_INVALID_VALUE);
	p->handle = 0;
	fc_phys_put(p);
	return fc_leave(CU_OK);
}

/* An fd that owns the memory: it outlives handle, mappings and process (1.2). */
int fc_mem_export(void *ret_handle, cu_mem mem, int type, unsigned long long flags)
{
	struct fc_phys *p;
	int fd;

	ENTER_LOCK(mem_export);
	p = find_handle(mem);
	if (!p || type != CU_MEM_POSIX_FD || flags || !p->exportable)
		return fc_leave(CU_INVALID_VALUE);
	fd = fcntl(p->fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return fc_leave(CU_OPERATING_SYSTEM);
	memcpy(ret_handle, &fd, sizeof(fd));
	return fc_leave(CU_OK);
}

/* Any number of times, also of one's own [H 13147]; the fd stays the caller's. */
int fc_mem_import(cu_mem *ret, void *os_handle, int type)
{
	char path[48], link[64] = "";
	struct fc_phys *p;
	struct stat st;
	int fd = (int)(intptr_t)os_handle;

	ENTER_LOCK(mem_import);
	if (!fc.conf.vmm)
		return fc_leave(CU_NOT_SUPPORTED);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (type != CU_MEM_POSIX_FD || fd < 0 || readlink(path, link, sizeof(link) - 1) < 0 ||
	    strncmp(link, LINK, strlen(LINK)) || fstat(fd, &st))
		return fc_leave(CU_INVALID_VALUE);
	p = calloc(1, sizeof(*p));
	if (!p)
		return fc_leave(CU_OUT_OF_MEMORY);
	p->gpu = atoi(link + strlen(LINK));
	p->bytes = st.st_size;
	p->ino = st.st_ino;
	p->refs = 1;
	p->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (p->fd < 0 || fc_phys_alias(p)) {
		if (p->fd >= 0)
			close(p->fd);
		free(p);
		return fc_leave(CU_OPERATING_SYSTEM);
	}
	p->handle = *ret = ++fc.next_handle << 8;
	fc_phys_push(p);
	return fc_leave(CU_OK);
}

/* ------------------------------------------------------------ addresses */

int fc_reserve(size_t bytes, size_t align, cu_ptr addr, cu_ptr *ret)
{
	const int how = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	struct fc_range *g = calloc(1, sizeof(*g));
	uintptr_t at, first;
	char *p = MAP_FAILED;

	if (!g)
		return CU_OUT_OF_MEMORY;
	if (align < fc.conf.granularity)
		align = fc.conf.granularity;
	/* The address is a hint [H 12841]. */
	if (addr && !(addr & (align - 1))) {
		p = mmap((void *)(uintptr_t)addr, bytes, PROT_NONE, how | MAP_FIXED_NOREPLACE, -1,
			 0);
		if (p != MAP_FAILED && (uintptr_t)p != addr) {
			munmap(p, bytes);
			p = MAP_FAILED;
		}
	}
	if (p == MAP_FAILED) {
		p = mmap(NULL, bytes + align, PROT_NONE, how, -1, 0);
		if (p == MAP_FAILED) {
			free(g);
			return CU_OUT_OF_MEMORY;
		}
		first = (uintptr_t)p;
		at = (first + align - 1) & ~(uintptr_t)(align - 1);
		if (at > first)
			munmap(p, at - first);
		if (first + align > at)
			munmap((char *)at + bytes, first + align - at);
		p = (char *)at;
	}
	g->ptr = (uintptr_t)p;
	g->bytes = bytes;
	g->next = fc.ranges;
	fc.ranges = g;
	*ret = g->ptr;
	return CU_OK;
}

void fc_unreserve(cu_ptr ptr)
{
	struct fc_range **at = &fc.ranges, *g;

	while (*at && (*at)->ptr != ptr)
		at = &(*at)->next;
	g = *at;
	if (!g)
		return;
	*at = g->next;
	munmap((void *)(uintptr_t)g->ptr, g->bytes);
	free(g);
}

static struct fc_range *range_at(cu_ptr p)
{
	struct fc_range *g;

	for (g = fc.ranges; g; g = g->next)
		if (p >= g->ptr && p - g->ptr < g->bytes)
			return g;
	return NULL;
}

bool fc_reserved(cu_ptr p)
{
	return range_at(p);
}

struct fc_map *fc_map_at(cu_ptr p)
{
	struct fc_map *m;

	for (m = fc.maps; m; m = m->next)
		if (p >= m->ptr && p - m->ptr < m->phys->bytes)
			return m;
	return NULL;
}

static bool any_map_in(cu_ptr ptr, size_t bytes)
{
	for (struct fc_map *m = fc.maps; m; m = m->next)
		if (m->ptr < ptr + bytes && ptr < m->ptr + m->phys->bytes)
			return true;
	return false;
}

int fc_map_new(cu_ptr ptr, struct fc_phys *p, struct fc_map **ret)
{
	struct fc_map *m = calloc(1, sizeof(*m));
	void *at = (void *)(uintptr_t)ptr;

	if (!m)
		return CU_OUT_OF_MEMORY;
	if (fc.conf.cpu &&
	    (mremap(p->alias, 0, p->bytes, MREMAP_MAYMOVE | MREMAP_FIXED, at) != at ||
	     mprotect(at, p->bytes, PROT_NONE))) {
		free(m);
		return CU_MAP_FAILED;
	}
	m->ptr = ptr;
	m->phys = p;
	p->refs++;
	m->next = fc.maps;
	fc.maps = m;
	*ret = m;
	return CU_OK;
}

void fc_map_del(struct fc_map *m)
{
	struct fc_map **at = &fc.maps;

	while (*at != m)
		at = &(*at)->next;
	*at = m->next;
	if (fc.conf.cpu)
		mmap((void *)(uintptr_t)m->ptr, m->phys->bytes, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	fc_phys_put(m->phys);
	free(m);
}

int fc_map_access(struct fc_map *m, int gpu, int prot)
{
	m->access[gpu] = prot;
	if (fc.conf.cpu && mprotect((void *)(uintptr_t)m->ptr, m->phys->bytes,
				    prot == CU_PROT_READWRITE ? PROT_READ | PROT_WRITE :
				    prot == CU_PROT_READ ? PROT_READ : PROT_NONE))
		return CU_MAP_FAILED;
	return CU_OK;
}

/* What a reset context could reach it reaches no more; the memory is the device's. */
void fc_vmm_reset(int gpu)
{
	for (struct fc_map *m = fc.maps; m; m = m->next)
		if (!m->phys->legacy)
			fc_map_access(m, gpu, CU_PROT_NONE);
}

int fc_mem_reserve(cu_ptr *ret, size_t bytes, size_t align, cu_ptr addr, unsigned long long flags)
{
	ENTER_LOCK(mem_reserve);
	if (!bytes || !aligned(bytes) || (align & (align - 1)) || flags)
		return fc_leave(CU_INVALID_VALUE);
	return fc_leave(fc_reserve(bytes, align, addr, ret));
}

/* The whole reservation, with nothing mapped in it. */
int fc_mem_unreserve(cu_ptr ptr, size_t bytes)
{
	struct fc_range *g;

	ENTER_LOCK(mem_unreserve);
	g = range_at(ptr);
	if (!g || g->ptr != ptr || g->bytes != bytes || any_map_in(ptr, bytes))
		return fc_leave(CU_INVALID_VALUE);
	fc_unreserve(ptr);
	return fc_leave(CU_OK);
}

/* "Note: currently must be zero": the offset [H 12901]; the handle is mapped whole. */
int fc_mem_map(cu_ptr ptr, size_t bytes, size_t offset, cu_mem mem, unsigned long long flags)
{
	struct fc_phys *p;
	struct fc_range *g;
	struct fc_map *m;

	ENTER_LOCK(mem_map);
	p = find_handle(mem);
	g = range_at(ptr);
	if (!p || !g || offset || flags || bytes != p->bytes || !aligned(ptr) ||
	    ptr - g->ptr + bytes > g->bytes || any_map_in(ptr, bytes))
		return fc_leave(CU_INVALID_VALUE);
	return fc_leave(fc_map_new(ptr, p, &m));
}

/* "Cannot unmap a sub-range" [H 13058]. Copies under way lose what they copy. */
int fc_mem_unmap(cu_ptr ptr, size_t bytes)
{
	struct fc_map *m;

	ENTER_LOCK(mem_unmap);
	m = fc_map_at(ptr);
	if (!m || m->ptr != ptr || m->phys->bytes != bytes || m->phys->legacy)
		return fc_leave(CU_INVALID_VALUE);
	fc_map_del(m);
	return fc_leave(CU_OK);
}

/* Per mapping and device; "must be a fully mapped address range" [H 13078]. */
int fc_mem_set_access(cu_ptr ptr, size_t bytes, const struct cu_mem_access *desc, size_t nr)
{
	struct fc_map *m;
	cu_ptr at;
	int r = CU_OK;

	ENTER_LOCK(mem_set_access);
	if (!nr || !desc || !bytes)
		return fc_leave(CU_INVALID_VALUE);
	for (size_t i = 0; i < nr; i++) {
		if (desc[i].location.type != CU_LOC_DEVICE)
			return fc_leave(CU_NOT_SUPPORTED);
		if (fc_physical(desc[i].location.id) < 0)
			return fc_leave(CU_INVALID_DEVICE);
		if (desc[i].flags != CU_PROT_NONE && desc[i].flags != CU_PROT_READ &&
		    desc[i].flags != CU_PROT_READWRITE)
			return fc_leave(CU_INVALID_VALUE);
	}
	for (at = ptr; at < ptr + bytes; at += m->phys->bytes) {
		m = fc_map_at(at);
		if (!m || m->ptr != at || m->phys->legacy || at - ptr + m->phys->bytes > bytes)
			return fc_leave(CU_INVALID_VALUE);
	}
	for (at = ptr; !r && at < ptr + bytes; at += m->phys->bytes) {
		m = fc_map_at(at);
		for (size_t i = 0; !r && i < nr; i++)
			r = fc_map_access(m, fc_physical(desc[i].location.id), desc[i].flags);
	}
	return fc_leave(r);
}

int fc_mem_get_access(unsigned long long *ret_flags, const struct cu_location *loc, cu_ptr ptr)
{
	struct fc_map *m;

	ENTER_LOCK(mem_get_access);
	m = fc_map_at(ptr);
	if (!m || loc->type != CU_LOC_DEVICE || fc_physical(loc->id) < 0)
		return fc_leave(CU_INVALID_VALUE);
	*ret_flags = m->access[fc_physical(loc->id)];
	return fc_leave(CU_OK);
}
