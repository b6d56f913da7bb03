/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda_extent.c - device memory: made, exported, attached, scrubbed, let go.
 *
 * An extent is one physical allocation with one exported POSIX fd and one mapping
 * here, for copies. The fd holds the memory as the mapping does, so it outlives
 * this process and this context, and needs no driver handle beside it. With
 * ipc = legacy it is a cuMemAlloc() of this context, and the fd is a sealed memfd of
 * the 64 bytes that cuIpcOpenMemHandle() takes; it dies with the context. Workers.
 */
#include "kvmd/dev/cuda_int.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kvmd/lib/fault.h"
#include "kvmd/lib/mem.h"

#define NR_SAMPLES	32		/* of a scrub, first and last bytes among them */
#define SAMPLE		4096u		/* bytes */

static struct cu_mem_prop prop_of(const struct cuda *c)
{
	return (struct cu_mem_prop) {
		.type = CU_MEM_PINNED,
		.handle_types = CU_MEM_POSIX_FD,
		.location = { .type = CU_LOC_DEVICE, .id = c->ord },
	};
}

/* ------------------------------------------------------------------- mapping */

/* Puts @mem at an address of its own, for this GPU to read and write. */
static int map_mem(struct cuda *c, cu_mem mem, uint64_t bytes, cu_ptr *ret_addr)
{
	struct cu_mem_access rw = {
		.location = { .type = CU_LOC_DEVICE, .id = c->ord }, .flags = CU_PROT_READWRITE,
	};
	cu_ptr addr;
	int r = cuda_drv.mem_reserve(&addr, bytes, 0, 0, 0);

	if (r)
		return r;
	r = cuda_drv.mem_map(addr, bytes, 0, mem, 0);
	if (r)
		goto err_unreserve;
	r = cuda_drv.mem_set_access(addr, bytes, &rw, 1);
	if (r)
		goto err_unmap;
	*ret_addr = addr;
	return 0;

err_unmap:
	(void)cuda_drv.mem_unmap(addr, bytes);
err_unreserve:
	(void)cuda_drv.mem_unreserve(addr, bytes);
	return r;
}

static int unmap(struct cuda_extent *x)
{
	int r = 0;

	if (x->addr && x->c->legacy) {
		r = cuda_drv.mem_free(x->addr);
	} else if (x->addr) {
		r = cuda_drv.mem_unmap(x->addr, x->bytes);
		if (!r)
			(void)cuda_drv.mem_unreserve(x->addr, x->bytes);
	}
	if (!r)
		x->addr = 0;
	return r;
}

/* Import @fd and map it; the fd holds the memory, the driver's handle need not. */
static int import_fd(struct cuda *c, int fd, uint64_t bytes, cu_ptr *ret_addr)
{
	cu_mem mem;
	int r = cuda_drv.mem_import(&mem, (void *)(uintptr_t)fd, CU_MEM_POSIX_FD);

	if (r)
		return r;
	r = map_mem(c, mem, bytes, ret_addr);
	(void)cuda_drv.mem_release(mem);
	return r;
}

void cuda_extents_unmap(struct cuda *c)
{
	struct list *l;

	pthread_mutex_lock(&c->ext_lock);
	list_for_each(l, &c->extents) {
		struct cuda_extent *x = list_entry(l, struct cuda_extent, node);

		(void)unmap(x);
		x->addr = 0;	/* if that failed, only the addresses stay taken */
	}
	pthread_mutex_unlock(&c->ext_lock);
}

int cuda_extents_remap(struct cuda *c)
{
	struct list *l;
	int r = 0;

	pthread_mutex_lock(&c->ext_lock);
	list_for_each(l, &c->extents) {
		struct cuda_extent *x = list_entry(l, struct cuda_extent, node);

		r = c->legacy ? CU_INVALID_HANDLE : import_fd(c, x->fd, x->bytes, &x->addr);
		if (r)
			break;
	}
	pthread_mutex_unlock(&c->ext_lock);
	return r;
}

static void enlist(struct cuda_extent *x)
{
	pthread_mutex_lock(&x->c->ext_lock);
	list_add_tail(&x->node, &x->c->extents);
	pthread_mutex_unlock(&x->c->ext_lock);
}

/* ------------------------------------------------------------------- scrubbing */

/* Zero, and read samples back if there is a place for them. A CUresult. */
static int zero(cu_ptr addr, uint64_t bytes, uint8_t *sample)
{
	uint64_t step = bytes > SAMPLE ? (bytes - SAMPLE) / (NR_SAMPLES - 1) : 0;
	cu_stream s;
	int r = cuda_drv.stream_create(&s, CU_STREAM_OWN_ORDER, 0), ended;

	if (r)
		return r;
	r = cuda_drv.set8(addr, 0, bytes, s);
	for (unsigned i = 0; !r && sample && i < NR_SAMPLES; i++)
		r = cuda_drv.copy((uintptr_t)sample + i * SAMPLE,
				  i + 1 < NR_SAMPLES ? addr + i * step :
				  addr + bytes - min(bytes, (uint64_t)SAMPLE),
				  min(bytes, (uint64_t)SAMPLE), s);
	ended = cuda_stream_end(s);
	return r && !cu_is_sticky(ended) ? r : ended;
}

struct scrub {
	struct cuda_extent *x;
	uint8_t *sample;		/* NR_SAMPLES * SAMPLE bytes */
};

static int scrub_fn(struct cuda *c, void *arg)
{
	struct scrub *s = arg;

	(void)c;
	memset(s->sample, 0xff, NR_SAMPLES * SAMPLE);
	return zero(s->x->addr, s->x->bytes, s->sample);
}

int cuda_extent_scrub(struct dev *d, struct dev_extent *e)
{
	struct scrub s = { .x = cuda_extent_of(e) };
	struct cuda *c = d->priv;
	int err = 0, r;

	if (!c)
		return -ENODEV;
	if (fault_hit(FAULT_SCRUB))
		return -EIO;
	s.sample = mem_zalloc(NR_SAMPLES * SAMPLE);
	if (!s.sample)
		return -ENOMEM;
	r = cuda_run(c, scrub_fn, &s);
	if (r) {
		err = cuda_errno(r);
		cuda_say(c, "a scrub failed: %s", cu_error(&cuda_drv, r));
	} else if (!mem_is_zero(s.sample, s.x->bytes < SAMPLE ? s.x->bytes : NR_SAMPLES * SAMPLE)) {
		err = -EIO;
		cuda_say(c, "memory was not zero after a scrub: it is not used again");
	}
	mem_free(s.sample);
	return err;
}

/* ------------------------------------------------------------------- creating */

struct create {
	struct cuda_extent *x;
	int fd;				/* legacy: the memfd; attach: what was kept */
};

static int export_fd(cu_mem mem, int *ret_fd)
{
	int fd = -1, r = cuda_drv.mem_export(&fd, mem, CU_MEM_POSIX_FD, 0);

	if (r)
		return r;
	if (fcntl(fd, F_SETFD, FD_CLOEXEC)) {
		close(fd);
		return CU_OPERATING_SYSTEM;
	}
	*ret_fd = fd;
	return 0;
}

static int create_vmm_fn(struct cuda *c, void *arg)
{
	struct create *a = arg;
	struct cuda_extent *x = a->x;
	struct cu_mem_prop prop = prop_of(c);
	cu_mem mem;
	int r = cuda_drv.mem_create(&mem, x->bytes, &prop, 0);

	if (r)
		return r;
	r = export_fd(mem, &x->fd);
	if (r)
		goto err_release;
	r = map_mem(c, mem, x->bytes, &x->addr);
	if (r)
		goto err_close;
	r = zero(x->addr, x->bytes, NULL);
	if (r)
		goto err_unmap;
	(void)cuda_drv.mem_release(mem);
	a->fd = x->fd;
	enlist(x);
	return 0;

err_unmap:
	(void)unmap(x);
	x->addr = 0;
err_close:
	close(x->fd);
	x->fd = -1;
err_release:
	(void)cuda_drv.mem_release(mem);
	return r;
}

/* The handle where clients can be given it: in a file that nobody changes. */
static int handle_fd(const struct cu_ipc_handle *h)
{
	void *map;
	int fd = mem_fd_create("kvmd-handle", sizeof(*h), false, &map);
	int err;

	if (fd < 0)
		return fd;
	memcpy(map, h, sizeof(*h));
	munmap(map, sizeof(*h));
	err = fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) ?
	      -errno : 0;
	if (err) {
		close(fd);
		return err;
	}
	return fd;
}

static int create_legacy_fn(struct cuda *c, void *arg)
{
	struct create *a = arg;
	struct cuda_extent *x = a->x;
	struct cu_ipc_handle h;
	int r = cuda_drv.mem_alloc(&x->addr, x->bytes);

	(void)c;
	if (r)
		return r;
	r = cuda_drv.ipc_get(&h, x->addr);
	if (!r)
		r = zero(x->addr, x->bytes, NULL);
	if (r)
		goto err_free;
	a->fd = handle_fd(&h);
	r = a->fd < 0 ? CU_OPERATING_SYSTEM : 0;
	if (r)
		goto err_free;
	enlist(x);
	return 0;

err_free:
	(void)unmap(x);
	x->addr = 0;
	return r;
}

static int attach_fn(struct cuda *c, void *arg)
{
	struct create *a = arg;
	int r = import_fd(c, a->fd, a->x->bytes, &a->x->addr);

	if (r)
		return r;
	a->x->fd = a->fd;
	enlist(a->x);
	return 0;
}

static void say_failed(struct cuda *c, uint64_t bytes, int r)
{
	bool oom = r == CU_OUT_OF_MEMORY;

	if (r == CU_DEVICE_UNAVAILABLE)
		return;		/* lost, and said so */
	if (oom && __atomic_exchange_n(&c->oom_said, true, __ATOMIC_RELAXED))
		return;
	cuda_say(c, "cannot make %llu MiB of memory: %s%s", (unsigned long long)(bytes >> 20),
		 cu_error(&cuda_drv, r), oom ? ": other processes took what was free at the start: "
		 "end them, or lower the budget" : r == CU_OPERATING_SYSTEM ?
		 ": if open files are at their limit, raise it (ulimit -n, LimitNOFILE=)" : "");
}

static int make(struct cuda *c, int (*fn)(struct cuda *c, void *arg), int fd, uint64_t bytes,
		struct dev_extent *ret_e)
{
	struct create a = { .fd = fd };
	int r;

	if (fault_hit(FAULT_SLAB))
		return -ENOMEM;
	a.x = mem_zalloc(sizeof(*a.x));
	if (!a.x)
		return -ENOMEM;
	*a.x = (struct cuda_extent) { .c = c, .bytes = bytes, .fd = -1 };
	list_init(&a.x->node);
	r = cuda_run(c, fn, &a);
	if (r) {
		if (fn != attach_fn)
			say_failed(c, bytes, r);
		mem_free(a.x);
		return cuda_errno(r);
	}
	st_rlx(&c->oom_said, false);
	*ret_e = (struct dev_extent) {
		.fd = a.fd, .bytes = bytes, .handle = (uint64_t)(uintptr_t)a.x,
	};
	return 0;
}

int cuda_extent_create(struct dev *d, uint64_t bytes, struct dev_extent *ret_e)
{
	struct cuda *c = d->priv;

	if (!c)
		return -ENODEV;
	return make(c, c->legacy ? create_legacy_fn : create_vmm_fn, -1, bytes, ret_e);
}

int cuda_extent_attach(struct dev *d, int fd, uint64_t bytes, struct dev_extent *ret_e)
{
	struct cuda *c = d->priv;
	int err;

	if (!c)
		return -ENODEV;
	if (c->legacy)
		return -EINVAL;		/* such memory died with the daemon that made it */
	err = make(c, attach_fn, fd, bytes, ret_e);
	return err == -ENOMEM || err == -ENODEV || err == -EHWPOISON || !err ? err : -EINVAL;
}

void cuda_extent_destroy(struct dev *d, struct dev_extent *e)
{
	struct cuda_extent *x = cuda_extent_of(e);

	(void)d;
	if (x) {
		struct cuda *c = x->c;

		pthread_rwlock_rdlock(&c->lock);
		if (c->open && !c->lost)
			(void)cuda_drv.ctx_set(c->ctx);
		(void)unmap(x);
		pthread_mutex_lock(&c->ext_lock);
		list_del(&x->node);
		pthread_mutex_unlock(&c->ext_lock);
		pthread_rwlock_unlock(&c->lock);
		mem_free(x);
	}
	if (e->fd >= 0)
		close(e->fd);
	e->handle = 0;
	e->fd = -1;
}
