// SPDX-License-Identifier: Apache-2.0
/*
 * context.c - devices, and their primary contexts: retained, reset, poisoned.
 */
#include <stdlib.h>

#include "tests/fakecuda/fake.h"

#define ERRORS(X) \
	X(CU_OK, "CUDA_SUCCESS", "no error") \
	X(CU_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument") \
	X(CU_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory") \
	X(CU_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error") \
	X(CU_DEVICE_UNAVAILABLE, "CUDA_ERROR_DEVICE_UNAVAILABLE", \
	  "CUDA-capable device(s) is/are busy or unavailable") \
	X(CU_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected") \
	X(CU_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal") \
	X(CU_INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid") \
	X(CU_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context") \
	X(CU_MAP_FAILED, "CUDA_ERROR_MAP_FAILED", "mapping of buffer object failed") \
	X(CU_NO_BINARY, "CUDA_ERROR_NO_BINARY_FOR_GPU", \
	  "no kernel image is available for execution on the device") \
	X(CU_ECC_UNCORRECTABLE, "CUDA_ERROR_ECC_UNCORRECTABLE", \
	  "uncorrectable ECC error encountered") \
	X(CU_NVLINK_UNCORRECTABLE, "CUDA_ERROR_NVLINK_UNCORRECTABLE", \
	  "uncorrectable NVLink error detected during the execution") \
	X(CU_CONTAINED, "CUDA_ERROR_CONTAINED", "Invalid access of peer GPU memory over nvlink " \
	  "or a hardware error") \
	X(CU_OPERATING_SYSTEM, "CUDA_ERROR_OPERATING_SYSTEM", \
	  "OS call failed or operation not supported on this OS") \
	X(CU_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle") \
	X(CU_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found") \
	X(CU_NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready") \
	X(CU_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", \
	  "an illegal memory access was encountered") \
	X(CU_CONTEXT_IS_DESTROYED, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed") \
	X(CU_ALREADY_REGISTERED, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", \
	  "part or all of the requested memory range is already mapped") \
	X(CU_NOT_REGISTERED, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED", \
	  "pointer does not correspond to a registered memory region") \
	X(CU_HARDWARE_STACK, "CUDA_ERROR_HARDWARE_STACK_ERROR", "hardware stack error") \
	X(CU_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure") \
	X(CU_NOT_PERMITTED, "CUDA_ERROR_NOT_PERMITTED", "operation not permitted") \
	X(CU_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported") \
	X(CU_SYSTEM_DRIVER_MISMATCH, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", \
	  "system has unsupported display driver / cuda driver combination") \
	X(CU_UNKNOWN, "CUDA_ERROR_UNKNOWN", "unknown error")

static int error_text(int err, bool name, const char **ret)
{
	switch (err) {
#define X(code, short_, long_) case code: *ret = name ? short_ : long_; return CU_OK;
	ERRORS(X)
#undef X
	}
	*ret = NULL;
	return CU_INVALID_VALUE;
}

int fc_error_name(int err, const char **ret)
{
	return error_text(err, true, ret);
}

int fc_error_string(int err, const char **ret)
{
	return error_text(err, false, ret);
}

int fc_driver_version(int *ret)
{
	*ret = fc.conf.driver;
	return CU_OK;
}

/* ------------------------------------------------------------ devices */

int fc_device_count(int *ret)
{
	ENTER(device_count);
	*ret = fc.nr_gpus;
	return CU_OK;
}

int fc_device_get(int *ret, int ordinal)
{
	ENTER(device_get);
	if (fc_physical(ordinal) < 0)
		return CU_INVALID_DEVICE;
	*ret = ordinal;
	return CU_OK;
}

int fc_device_name(char *ret, int bytes, int dev)
{
	ENTER(device_name);
	if (fc_physical(dev) < 0)
		return CU_INVALID_DEVICE;
	if (bytes < 1)
		return CU_INVALID_VALUE;
	snprintf(ret, bytes, "Fake GPU %d", fc_physical(dev));
	return CU_OK;
}

/* The device's, whatever its ordinal is here (1.6). */
int fc_device_uuid(struct cu_uuid *ret, int dev)
{
	ENTER(device_uuid);
	if (fc_physical(dev) < 0)
		return CU_INVALID_DEVICE;
	memcpy(ret->bytes, "fakecuda@\0\200\0\0\0\0", 16);
	ret->bytes[15] = fc_physical(dev);
	return CU_OK;
}

int fc_device_attr(int *ret, int attr, int dev)
{
	ENTER(device_attr);
	if (fc_physical(dev) < 0)
		return CU_INVALID_DEVICE;
	switch (attr) {
	case CU_ATTR_SMS: *ret = 4; break;
	case CU_ATTR_ASYNC_ENGINES: *ret = 3; break;
	case CU_ATTR_CC_MAJOR: *ret = 9; break;
	case CU_ATTR_CC_MINOR: *ret = 0; break;
	case CU_ATTR_UNIFIED_ADDRESSING:
	case CU_ATTR_HOST_REGISTER:
	case CU_ATTR_MEM_OPS_64: *ret = 1; break;
	case CU_ATTR_VMM:
	case CU_ATTR_POSIX_FD: *ret = fc.conf.vmm; break;
	case CU_ATTR_READ_ONLY_REGISTER: *ret = fc.conf.rohost; break;
	case CU_ATTR_MPS: *ret = fc.conf.mps; break;
	default: return CU_INVALID_VALUE;
	}
	return CU_OK;
}

int fc_device_mem(size_t *ret, int dev)
{
	ENTER(device_mem);
	if (fc_physical(dev) < 0)
		return CU_INVALID_DEVICE;
	*ret = fc.conf.mem;
	return CU_OK;
}

int fc_device_pci(char *ret, int bytes, int dev)
{
	ENTER(device_pci);
	if (fc_physical(dev) < 0)
		return CU_INVALID_DEVICE;
	if (bytes < 13)
		return CU_INVALID_VALUE;
	snprintf(ret, bytes, "0000:%02x:00.0", 1 + fc_physical(dev));
	return CU_OK;
}

/* ------------------------------------------------------------ contexts */

void fc_poison(struct fc_ctx *c, int code)
{
	if (!c->sticky)
		c->sticky = code;
	pthread_cond_broadcast(&fc.done);
	for (struct fc_stream *s = fc.streams; s; s = s->next)
		pthread_cond_signal(&s->wake);
}

/* Everything in it goes; VMM memory is the device's and stays, without access. */
static void destroy(struct fc_ctx *c)
{
	c->dead = true;
	fc.gpu[c->gpu].ctx = NULL;
	pthread_cond_broadcast(&fc.done);
	fc_stream_reset(c);
	fc_module_reset(c);
	fc_host_reset(c);
	fc_alloc_reset(c);
	fc_vmm_reset(c->gpu);
}

/* A pointer per life: what was current before a reset does not serve after it. */
int fc_ctx_retain(cu_ctx *ret, int dev)
{
	struct fc_gpu *g;
	struct fc_ctx *c;
	int gpu;

	ENTER_LOCK(ctx_retain);
	gpu = fc_physical(dev);
	if (gpu < 0)
		return fc_leave(CU_INVALID_DEVICE);
	g = &fc.gpu[gpu];
	if (!g->ctx) {
		c = calloc(1, sizeof(*c));
		if (!c)
			return fc_leave(CU_OUT_OF_MEMORY);
		c->gpu = gpu;
		c->next = fc.ctxs;
		fc.ctxs = c;
		g->ctx = c;
		c->null = fc_stream_new(c);
		if (!c->null) {
			c->dead = true;
			g->ctx = NULL;
			return fc_leave(CU_OUT_OF_MEMORY);
		}
	}
	g->retains++;
	*ret = g->ctx;
	return fc_leave(CU_OK);
}

int fc_ctx_release(int dev)
{
	struct fc_gpu *g;
	int gpu;

	ENTER_LOCK(ctx_release);
	gpu = fc_physical(dev);
	if (gpu < 0)
		return fc_leave(CU_INVALID_DEVICE);
	g = &fc.gpu[gpu];
	if (!g->retains)
		return fc_leave(CU_INVALID_CONTEXT);
	if (!--g->retains && g->ctx)
		destroy(g->ctx);
	return fc_leave(CU_OK);
}

/* Does not count as a release: who retained it still has to. */
int fc_ctx_reset(int dev)
{
	int gpu;

	ENTER_LOCK(ctx_reset);
	gpu = fc_physical(dev);
	if (gpu < 0)
		return fc_leave(CU_INVALID_DEVICE);
	if (fc.gpu[gpu].ctx)
		destroy(fc.gpu[gpu].ctx);
	return fc_leave(CU_OK);
}

int fc_ctx_set(cu_ctx ctx)
{
	struct fc_ctx *c;

	ENTER_LOCK(ctx_set);
	for (c = fc.ctxs; c && c != ctx; c = c->next)
		;
	if (ctx && !c)
		return fc_leave(CU_INVALID_CONTEXT);
	if (c && c->dead)
		return fc_leave(CU_CONTEXT_IS_DESTROYED);
	fc_current = c;
	return fc_leave(CU_OK);
}

int fc_ctx_get(cu_ctx *ret)
{
	ENTER(ctx_get);
	*ret = fc_current;
	return CU_OK;
}

int fc_ctx_sync(void)
{
	struct fc_ctx *c;

	ENTER_CTX(ctx_sync, &c);
	fc_drain(c);
	return fc_leave(c->dead ? CU_CONTEXT_IS_DESTROYED : c->sticky);
}

int fc_mem_info(size_t *ret_free, size_t *ret_total)
{
	struct fc_ctx *c;
	uint64_t used;

	ENTER_CTX(mem_info, &c);
	fc_lock(fc.state);
	fc_reap_mem(fc.state);
	used = fc_used(fc.state, c->gpu);
	fc_unlock(fc.state);
	*ret_total = fc.conf.mem;
	*ret_free = used < fc.conf.mem ? fc.conf.mem - used : 0;
	return fc_leave(CU_OK);
}
