/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda.c - the driver, the space's GPUs, and their errors in words.
 *
 * Nobody but a session on GPUs comes here: without one the driver is not loaded.
 * GPUs are found by UUID, because ordinals differ from process to process. The
 * driver cannot be used in a child that was forked after it was started.
 */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libkvclient/cuda.h"

static struct {
	pthread_mutex_t lock;
	struct cu cu;
	int pid;		/* of the process that started it; 0: not loaded */
} driver = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* ----------------------------------------------------------------- errors */

static int cuda_errno(int r)
{
	switch (r) {
	case CU_OUT_OF_MEMORY:
		return -ENOMEM;
	case CU_INVALID_VALUE:
		return -EINVAL;
	case CU_NO_DEVICE:
	case CU_INVALID_DEVICE:
	case CU_DEVICE_UNAVAILABLE:
		return -ENODEV;
	case CU_NOT_SUPPORTED:
		return -EOPNOTSUPP;
	case CU_NOT_PERMITTED:
		return -EPERM;
	default:
		return -EIO;
	}
}

static const char *hint(int r)
{
	if (r == CU_OUT_OF_MEMORY)
		return ": the GPU or the process has no memory left for it";
	if (r == CU_OPERATING_SYSTEM)
		return ": may this process open /dev/nvidia*?";
	if (cu_is_sticky(r))
		return ": this process's context is broken, only a new process can use the GPU";
	return "";
}

int kvci_cuda_fail(const struct kvci_cuda *c, int r, const char *func, const char *fmt, ...)
{
	char what[128];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	kvci_refuse("%s: %s: %s (%d)%s", what, func, cu_error(c->cu, r), r, hint(r));
	return cuda_errno(r);
}

/* ------------------------------------------------------------ the driver */

/* Loads it at the first call that finds one. */
static int driver_get(const struct cu **ret_cu)
{
	int pid = ld_acq(&driver.pid);	/* acquire: pairs with the store below */
	char msg[256];
	int err = 0;

	if (!pid) {
		pthread_mutex_lock(&driver.lock);
		pid = driver.pid;
		if (!pid && !cu_load(&driver.cu, msg, sizeof(msg))) {
			pid = getpid();
			st_rel(&driver.pid, pid);
		}
		pthread_mutex_unlock(&driver.lock);
	}
	if (!pid) {
		kvci_refuse("the space lies on GPUs: %s", msg);
		err = -ENODEV;
	} else if (pid != getpid()) {
		kvci_refuse("the space lies on GPUs, and this process was forked by one that had "
			    "started the NVIDIA driver: fork before the first session, or exec");
		err = -ENODEV;
	}
	if (!err)
		*ret_cu = &driver.cu;
	return err;
}

/* -------------------------------------------------------------- contexts */

int kvci_cuda_enter(struct kvci_cuda *c, const struct kvci_gpu *g, cu_ctx *ret_old)
{
	cu_ctx old = NULL;
	int r = c->cu->ctx_get(&old);

	if (!r && old != g->ctx)
		r = c->cu->ctx_set(g->ctx);
	if (r)
		return kvci_cuda_fail(c, r, "cuCtxSetCurrent", "GPU %d", g->ordinal);
	*ret_old = old;
	return 0;
}

void kvci_cuda_leave(struct kvci_cuda *c, cu_ctx old)
{
	c->cu->ctx_set(old);
}

int kvci_cuda_stream(struct kvci_cuda *c, struct kvci_gpu *g)
{
	int r = g->stream ? 0 : c->cu->stream_create(&g->stream, CU_STREAM_OWN_ORDER, 0);

	if (!r)
		return 0;
	g->stream = NULL;
	return kvci_cuda_fail(c, r, "cuStreamCreateWithPriority", "GPU %d", g->ordinal);
}

int kvci_cuda_wait(struct kvci_cuda *c)
{
	int first = 0;

	for (uint32_t i = 0; i < c->nr_gpus; i++) {
		cu_ctx old;
		int err, r;

		err = kvci_cuda_enter(c, &c->gpu[i], &old);
		if (!err) {
			r = c->cu->ctx_sync();
			kvci_cuda_leave(c, old);
			if (r)
				err = kvci_cuda_fail(c, r, "cuCtxSynchronize", "GPU %d",
						     c->gpu[i].ordinal);
		}
		first = first ? first : err;
	}
	return first;
}

/* --------------------------------------------------------------- devices */

/* A GPU that lacks what the space's handles need. */
static int gpu_check(const struct kvci_cuda *c, const struct kvci_gpu *g, uint32_t kind)
{
	int vmm = 1, fd = 1;

	if (kind != KVMD_HANDLE_CUDA_VMM)
		return 0;
	if (c->cu->device_attr(&vmm, CU_ATTR_VMM, g->dev) ||
	    c->cu->device_attr(&fd, CU_ATTR_POSIX_FD, g->dev) || !vmm || !fd) {
		kvci_refuse("GPU %d cannot map memory that comes as file descriptors: the daemon "
			    "needs ipc = legacy", g->ordinal);
		return -EOPNOTSUPP;
	}
	return 0;
}

/* Index of the GPU with ordinal @n, retained at the first call for it. */
static int gpu_add(struct kvci_cuda *c, int n, int dev, uint32_t kind, int *ret_idx)
{
	struct kvci_gpu *g = &c->gpu[c->nr_gpus];
	int yes = 0, err, r;

	for (uint32_t i = 0; i < c->nr_gpus; i++) {
		if (c->gpu[i].ordinal == n) {
			*ret_idx = (int)i;
			return 0;
		}
	}
	memset(g, 0, sizeof(*g));
	g->ordinal = n;
	g->dev = dev;
	err = gpu_check(c, g, kind);
	if (err)
		return err;
	r = c->cu->ctx_retain(&g->ctx, dev);
	if (r)
		return kvci_cuda_fail(c, r, "cuDevicePrimaryCtxRetain", "GPU %d", n);
	g->has_write64 = !c->cu->device_attr(&yes, CU_ATTR_MEM_OPS_64, dev) && yes;
	yes = 0;
	g->has_ro_register = !c->cu->device_attr(&yes, CU_ATTR_READ_ONLY_REGISTER, dev) && yes;
	*ret_idx = (int)c->nr_gpus++;
	return 0;
}

/* Finds the shards' GPUs among the visible ones. */
static int gpus_find(struct kvci_cuda *c, const struct kvmd_space_reply *r, int nr_visible)
{
	for (int n = 0; n < nr_visible; n++) {
		struct cu_uuid uuid;
		int dev, res;

		res = c->cu->device_get(&dev, n);
		if (!res)
			res = c->cu->device_uuid(&uuid, dev);
		if (res)
			return kvci_cuda_fail(c, res, "cuDeviceGetUuid", "GPU %d", n);
		for (uint32_t s = 0; s < r->nr_shards; s++) {
			int err;

			if (memcmp(r->device[s], uuid.bytes, sizeof(uuid.bytes)))
				continue;
			err = gpu_add(c, n, dev, r->handle_kind, &c->of_shard[s]);
			if (err)
				return err;
		}
	}
	return 0;
}

/* None of them is visible: which ones, and where to look. */
static int no_gpu(const struct kvmd_space_reply *r, int nr_visible)
{
	const char *env = getenv("CUDA_VISIBLE_DEVICES");
	char list[KVMD_MAX_SHARDS * (CU_UUID_TEXT + 1)] = "";
	size_t at = 0;

	for (uint32_t s = 0; s < r->nr_shards; s++) {
		struct cu_uuid uuid;
		char text[CU_UUID_TEXT];

		memcpy(uuid.bytes, r->device[s], sizeof(uuid.bytes));
		cu_uuid_text(&uuid, text);
		if (!strstr(list, text))
			at += (size_t)snprintf(list + at, sizeof(list) - at, " %s", text);
	}
	kvci_refuse("no GPU of the space is among the %d visible ones (%s%.48s): it needs%s",
		    nr_visible, env ? "CUDA_VISIBLE_DEVICES=" : "CUDA_VISIBLE_DEVICES is not set",
		    env ? env : "", list);
	return -ENODEV;
}

int kvci_cuda_open(struct kvc *k, const struct kvmd_space_reply *r)
{
	struct kvci_cuda *c;
	const struct cu *cu;
	int err, res, nr = 0;

	err = driver_get(&cu);
	if (err)
		return err;
	c = (struct kvci_cuda *)calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->cu = cu;
	c->nr_shards = r->nr_shards;
	for (uint32_t s = 0; s < KVMD_MAX_SHARDS; s++)
		c->of_shard[s] = -1;
	k->cuda = c;
	res = cu->device_count(&nr);
	err = res ? kvci_cuda_fail(c, res, "cuDeviceGetCount", "looking for the space's GPUs") :
	      gpus_find(c, r, nr);
	if (!err && !c->nr_gpus)
		err = no_gpu(r, nr);
	if (err)
		kvci_cuda_close(k);
	return err;
}

void kvci_cuda_close(struct kvc *k)
{
	struct kvci_cuda *c = k->cuda;

	if (!c)
		return;
	kvci_cuda_unpin_tables(k);
	kvci_cuda_unpin_steps(k);
	kvci_cuda_steps_exit(k);
	for (uint32_t i = 0; i < c->nr_gpus; i++) {
		struct kvci_gpu *g = &c->gpu[i];
		cu_ctx old;

		if (g->stream && !kvci_cuda_enter(c, g, &old)) {
			c->cu->stream_destroy(g->stream);
			kvci_cuda_leave(c, old);
		}
		c->cu->ctx_release(g->dev);
	}
	free(c);
	k->cuda = NULL;
}

int kvci_cuda_copy(struct kvc *k, uint32_t shard, void *dst, const void *src, size_t bytes)
{
	struct kvci_cuda *c = k->cuda;
	struct kvci_gpu *g = kvci_cuda_gpu(c, shard);
	cu_ctx old;
	int err, r;

	err = kvci_cuda_enter(c, g, &old);
	if (err)
		return err;
	err = kvci_cuda_stream(c, g);
	if (!err) {
		r = c->cu->copy((cu_ptr)(uintptr_t)dst, (cu_ptr)(uintptr_t)src, bytes, g->stream);
		if (!r)
			r = c->cu->stream_sync(g->stream);
		if (r)
			err = kvci_cuda_fail(c, r, "cuMemcpyAsync", "%zu bytes on GPU %d", bytes,
					     g->ordinal);
	}
	kvci_cuda_leave(c, old);
	return err;
}

int kvc_cuda_device(const struct kvc *k, uint32_t shard)
{
	const struct kvci_cuda *c = k->cuda;

	if (!c)
		return -EOPNOTSUPP;
	if (shard >= c->nr_shards)
		return -EINVAL;
	return c->of_shard[shard] < 0 ? -ENODEV : c->gpu[c->of_shard[shard]].ordinal;
}
