// SPDX-License-Identifier: Apache-2.0
/*
 * owed_gpu.c - see owed.h: memory, bytes and kernels, in an actor's context.
 */
#include "tests/gpu/owed.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

/* ------------------------------------------------------------ opening */

static void *image;			/* of the kernels; NULL: there are none */

/* $KVMD_GPU_KERNELS, else kernels.fatbin beside this program. */
void owed_read_kernels(void)
{
	const char *env = getenv("KVMD_GPU_KERNELS");
	char path[PATH_MAX + 32], exe[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	struct stat st;
	char *slash;
	void *p = NULL;
	int fd;

	if (n <= 0)
		return;
	exe[n] = 0;
	slash = strrchr(exe, '/');
	if (slash)
		*slash = 0;
	snprintf(path, sizeof(path), "%s/kernels.fatbin", exe);
	fd = open(env ? env : path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (!fstat(fd, &st) && st.st_size > 0)
		p = calloc(1, (size_t)st.st_size + 8);
	if (p && read(fd, p, (size_t)st.st_size) != st.st_size) {
		free(p);
		p = NULL;
	}
	close(fd);
	image = p;
}

void owed_kernels(struct owed_gpu *g)
{
	int r;

	g->module = NULL;
	if (!image) {
		snprintf(g->no_kernel, sizeof(g->no_kernel), "no kernel: built without nvcc");
		return;
	}
	r = g->cu.module_load(&g->module, image);
	if (!r)
		r = g->cu.module_function(&g->k_fill, g->module, "owed_fill");
	if (!r)
		r = g->cu.module_function(&g->k_count, g->module, "owed_count");
	if (r) {
		g->module = NULL;
		snprintf(g->no_kernel, sizeof(g->no_kernel), "no kernel: %s",
			 cu_error(&g->cu, r));
	}
}

void owed_open(struct owed_actor *me, bool ctx)
{
	struct owed_gpu *g = &me->g;
	struct cu_mem_prop prop;
	char msg[OWED_TEXT];

	if (cu_load(&g->cu, msg, sizeof(msg)))
		owed_fail(me, "%s", msg);
	owed_must(me, "cuDeviceGet", g->cu.device_get(&g->dev, 0));
	prop = owed_prop(g);
	if (!ctx)
		return;
	owed_must(me, "cuDevicePrimaryCtxRetain", g->cu.ctx_retain(&g->ctx, g->dev));
	owed_must(me, "cuCtxSetCurrent", g->cu.ctx_set(g->ctx));
	owed_must(me, "cuMemGetAllocationGranularity",
		  g->cu.mem_gran(&g->gran, &prop, CU_MEM_GRAN_MINIMUM));
	owed_must(me, "cuStreamCreate", g->cu.stream_create(&g->s, CU_STREAM_OWN_ORDER, 0));
	owed_kernels(g);
}

const char *owed_means(const struct owed_gpu *g)
{
	return g->module ? "by copies and a kernel" : "by copies alone";
}

/* ------------------------------------------------------------ memory */

struct cu_mem_prop owed_prop(const struct owed_gpu *g)
{
	return (struct cu_mem_prop) {
		.type = CU_MEM_PINNED, .handle_types = CU_MEM_POSIX_FD,
		.location = { .type = CU_LOC_DEVICE, .id = g->dev },
	};
}

void owed_map(struct owed_actor *me, struct owed_mem *m, int prot)
{
	const struct cu_mem_access access = {
		.location = { .type = CU_LOC_DEVICE, .id = me->g.dev }, .flags = prot,
	};
	const struct cu *cu = &me->g.cu;

	owed_must(me, "cuMemAddressReserve", cu->mem_reserve(&m->ptr, m->bytes, 0, 0, 0));
	owed_must(me, "cuMemMap", cu->mem_map(m->ptr, m->bytes, 0, m->h, 0));
	owed_must(me, "cuMemSetAccess", cu->mem_set_access(m->ptr, m->bytes, &access, 1));
}

void owed_make(struct owed_actor *me, size_t bytes, uint64_t seed, struct owed_mem *ret_m)
{
	const struct cu_mem_prop prop = owed_prop(&me->g);
	const struct cu *cu = &me->g.cu;
	struct owed_mem m = { .bytes = align_up(bytes, me->g.gran), .fd = -1 };

	owed_must(me, "cuMemCreate", cu->mem_create(&m.h, m.bytes, &prop, 0));
	owed_map(me, &m, CU_PROT_READWRITE);
	owed_must(me, "cuMemExportToShareableHandle",
		  cu->mem_export(&m.fd, m.h, CU_MEM_POSIX_FD, 0));
	if (seed)
		owed_must(me, "a copy to the GPU", owed_put(&me->g, m.ptr, m.bytes, seed));
	*ret_m = m;
}

void owed_import(struct owed_actor *me, int fd, size_t bytes, int prot, struct owed_mem *ret_m)
{
	struct owed_mem m = { .bytes = align_up(bytes, me->g.gran), .fd = -1 };

	owed_must(me, "cuMemImportFromShareableHandle",
		  me->g.cu.mem_import(&m.h, (void *)(uintptr_t)fd, CU_MEM_POSIX_FD));
	owed_map(me, &m, prot);
	*ret_m = m;
}

void owed_unmap(struct owed_actor *me, struct owed_mem *m)
{
	const struct cu *cu = &me->g.cu;

	owed_must(me, "cuMemUnmap", cu->mem_unmap(m->ptr, m->bytes));
	owed_must(me, "cuMemAddressFree", cu->mem_unreserve(m->ptr, m->bytes));
	owed_must(me, "cuMemRelease", cu->mem_release(m->h));
	m->h = 0;
}

/* ------------------------------------------------------------ bytes */

static uint64_t word(uint64_t seed, uint64_t i)
{
	return seed * 0x9e3779b97f4a7c15ull + i * 0xbf58476d1ce4e5b9ull;
}

void owed_pattern(void *p, size_t bytes, uint64_t seed)
{
	uint64_t *w = (uint64_t *)p;

	for (size_t i = 0; i < bytes / 8; i++)
		w[i] = word(seed, i);
}

uint64_t owed_wrong(const void *p, size_t bytes, uint64_t seed)
{
	const uint64_t *w = (const uint64_t *)p;
	uint64_t wrong = 0;

	for (size_t i = 0; i < bytes / 8; i++)
		wrong += w[i] != word(seed, i);
	return wrong;
}

/* Host memory as it comes: the driver stages it. */
int owed_put(struct owed_gpu *g, cu_ptr ptr, size_t bytes, uint64_t seed)
{
	void *p = malloc(bytes);
	int r;

	if (!p)
		return CU_OUT_OF_MEMORY;
	owed_pattern(p, bytes, seed);
	r = g->cu.copy(ptr, (cu_ptr)(uintptr_t)p, bytes, g->s);
	if (!r)
		r = g->cu.stream_sync(g->s);
	free(p);
	return r;
}

int owed_get(struct owed_gpu *g, cu_ptr ptr, size_t bytes, uint64_t seed, uint64_t *ret_wrong)
{
	void *p = malloc(bytes);
	int r;

	if (!p)
		return CU_OUT_OF_MEMORY;
	memset(p, 0xee, bytes);
	r = g->cu.copy((cu_ptr)(uintptr_t)p, ptr, bytes, g->s);
	if (!r)
		r = g->cu.stream_sync(g->s);
	if (!r)
		*ret_wrong = owed_wrong(p, bytes, seed);
	free(p);
	return r;
}

int owed_kernel_put(struct owed_gpu *g, cu_ptr ptr, size_t bytes, uint64_t seed)
{
	uint64_t n = bytes / 8;
	void *args[] = { &ptr, &n, &seed };
	int r;

	if (!g->module)
		return CU_NOT_SUPPORTED;
	r = g->cu.launch(g->k_fill, 64, 1, 1, 256, 1, 1, 0, g->s, args, NULL);
	return r ? r : g->cu.stream_sync(g->s);
}

int owed_kernel_get(struct owed_gpu *g, cu_ptr ptr, size_t bytes, uint64_t seed,
		    uint64_t *ret_wrong)
{
	unsigned long long wrong = 0;
	uint64_t n = bytes / 8;
	cu_ptr out = 0;
	void *args[] = { &ptr, &n, &seed, &out };
	int r;

	if (!g->module)
		return CU_NOT_SUPPORTED;
	r = g->cu.mem_alloc(&out, 4096);
	if (r)
		return r;
	r = g->cu.set8(out, 0, 4096, g->s);
	if (!r)
		r = g->cu.launch(g->k_count, 64, 1, 1, 256, 1, 1, 0, g->s, args, NULL);
	if (!r)
		r = g->cu.copy((cu_ptr)(uintptr_t)&wrong, out, sizeof(wrong), g->s);
	if (!r)
		r = g->cu.stream_sync(g->s);
	if (!r)
		*ret_wrong = wrong;
	g->cu.mem_free(out);
	return r;
}

void owed_expect(struct owed_actor *me, const char *what, cu_ptr ptr, size_t bytes, uint64_t seed)
{
	uint64_t wrong = 0;
	int r = owed_get(&me->g, ptr, bytes, seed, &wrong);

	if (r)
		owed_fail(me, "%s: a copy: %s", what, cu_error(&me->g.cu, r));
	if (wrong)
		owed_fail(me, "%s: %llu words of %llu are wrong in a copy", what,
			  (unsigned long long)wrong, (unsigned long long)bytes / 8);
	r = owed_kernel_get(&me->g, ptr, bytes, seed, &wrong);
	if (r && r != CU_NOT_SUPPORTED)
		owed_fail(me, "%s: a kernel: %s", what, cu_error(&me->g.cu, r));
	if (wrong)
		owed_fail(me, "%s: %llu words of %llu are wrong to a kernel", what,
			  (unsigned long long)wrong, (unsigned long long)bytes / 8);
}
