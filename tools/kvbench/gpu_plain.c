// SPDX-License-Identifier: Apache-2.0
/*
 * gpu_plain.c - the floors of part "gpu": bare driver calls.
 */
#include "tools/kvbench/gpu.h"

#include <unistd.h>

#define PLAIN_BYTES	(256ull << 20)	/* of one copy, at most */

static struct cu cu;
static int dev;
static cu_ctx ctx;
static cu_stream stream[2];		/* by DEV_OUT, DEV_IN */
static cu_ptr mem[2];
static uint8_t *host[2];
static uint64_t bytes;			/* of each buffer */

static struct {
	cu_mem h;
	cu_ptr ptr;
	uint64_t bytes;
} slab;

static int say(char *msg, size_t n, const char *what, int r)
{
	snprintf(msg, n, "%s: %s", what, cu_error(&cu, r));
	return -EIO;
}

int plain_open(char *msg, size_t n)
{
	int r;

	if (cu_load(&cu, msg, n))
		return -ENODEV;
	r = cu.device_get(&dev, 0);
	if (!r)
		r = cu.ctx_retain(&ctx, dev);
	if (r)
		return say(msg, n, "no context", r);
	r = cu.ctx_set(ctx);
	for (int i = 0; i < 2 && !r; i++)
		r = cu.stream_create(&stream[i], CU_STREAM_OWN_ORDER, 0);
	return r ? say(msg, n, "no stream", r) : 0;
}

int plain_buffers(void *mapped, uint64_t have, char *msg, size_t n)
{
	int r = 0;

	bytes = min(have / 2, PLAIN_BYTES);
	for (int i = 0; i < 2 && !r; i++) {
		host[i] = (uint8_t *)mapped + (uint64_t)i * bytes;
		r = cu.mem_alloc(&mem[i], bytes);
	}
	return r ? say(msg, n, "cuMemAlloc", r) : 0;
}

static int one_copy(unsigned way)
{
	const cu_ptr h = (cu_ptr)(uintptr_t)host[way];

	return way == DEV_OUT ? cu.copy(h, mem[way], bytes, stream[way]) :
				cu.copy(mem[way], h, bytes, stream[way]);
}

/* Two copies of a way are queued at any time: the engine never waits for us. */
double plain_rate(unsigned ways, uint64_t for_ns)
{
	uint64_t start = time_ns(), now = start, nr = 0;
	int r = 0;

	do {
		for (unsigned w = 0; w < 2 && !r; w++)
			for (int i = 0; i < 2 && !r && ways & 1u << w; i++) {
				r = one_copy(w);
				nr++;
			}
		for (unsigned w = 0; w < 2 && !r; w++)
			if (ways & 1u << w)
				r = cu.stream_sync(stream[w]);
		now = time_ns();
	} while (!r && now - start < for_ns && !interrupted);
	return r ? -EIO : (double)(nr * bytes) * 1e9 / (double)(now - start);
}

double plain_slab(uint64_t want, int *ret_fd)
{
	const struct cu_mem_prop prop = {
		.type = CU_MEM_PINNED, .handle_types = CU_MEM_POSIX_FD,
		.location = { CU_LOC_DEVICE, dev },
	};
	const struct cu_mem_access access = { { CU_LOC_DEVICE, dev }, CU_PROT_READWRITE };
	uint64_t t0 = time_ns();

	slab.bytes = want;
	if (cu.mem_create(&slab.h, want, &prop, 0)) {
		slab.h = 0;
		return -ENOMEM;
	}
	if (cu.mem_reserve(&slab.ptr, want, 0, 0, 0) || cu.mem_map(slab.ptr, want, 0, slab.h, 0) ||
	    cu.mem_set_access(slab.ptr, want, &access, 1) ||
	    cu.mem_export(ret_fd, slab.h, CU_MEM_POSIX_FD, 0))
		return -EIO;
	return (double)(time_ns() - t0) / 1e6;
}

double plain_export(int *ret_fd)
{
	uint64_t t0 = time_ns();

	if (cu.mem_export(ret_fd, slab.h, CU_MEM_POSIX_FD, 0))
		return -EIO;
	return (double)(time_ns() - t0) / 1e6;
}

void plain_slab_free(void)
{
	if (!slab.h)
		return;
	cu.mem_unmap(slab.ptr, slab.bytes);
	cu.mem_unreserve(slab.ptr, slab.bytes);
	cu.mem_release(slab.h);
	slab.h = 0;
}

void plain_close(void)
{
	if (!cu.so)
		return;
	for (int i = 0; i < 2; i++) {
		if (mem[i])
			cu.mem_free(mem[i]);
		if (stream[i])
			cu.stream_destroy(stream[i]);
	}
	cu.ctx_release(dev);
}
