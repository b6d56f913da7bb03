/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda_abi.h - the part of NVIDIA's driver API that kvmd uses, and its loader.
 *
 * Everything is built on machines without CUDA's headers and runs on machines
 * without a driver, so the few functions, structs and constants needed are
 * declared here, under names of our own. Values and layouts are those of cuda.h
 * 13.0; tests/gpu/check_cuda_abi.c compares them with that file where there is one.
 *
 * Private to the daemon, the library, the tools and the tests: not installed.
 * struct cu holds pointers fetched with cuGetProcAddress(), so that a process
 * gets the version of each function that is declared here whatever driver it
 * meets. All return a CUresult: 0 or one of enum cu_result.
 */
#ifndef KVMD_CUDA_ABI_H
#define KVMD_CUDA_ABI_H

#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define CU_LIBRARY		"libcuda.so.1"
#define CU_MIN_DRIVER		12000	/* 12.0: cuGetProcAddress_v2 (R525) */

struct cu_uuid {
	unsigned char bytes[16];
};

struct cu_location {
	int type;			/* enum cu_location_type */
	int id;				/* device ordinal */
};

enum cu_location_type {
	CU_LOC_DEVICE	= 1,
	CU_LOC_HOST	= 2,
};

/* CUmemAllocationProp */
struct cu_mem_prop {
	int type;			/* CU_MEM_PINNED */
	int handle_types;		/* CU_MEM_POSIX_FD or 0 */
	struct cu_location location;
	void *win32;			/* NULL */
	unsigned char compression;
	unsigned char rdma_capable;
	unsigned short usage;
	unsigned char reserved[4];
};

#define CU_MEM_PINNED		1
#define CU_MEM_POSIX_FD		1
#define CU_MEM_GRAN_MINIMUM	0
#define CU_MEM_GRAN_RECOMMENDED	1

/* CUmemAccessDesc */
struct cu_mem_access {
	struct cu_location location;
	int flags;			/* CU_PROT_* */
};

#define CU_PROT_NONE		0
#define CU_PROT_READ		1
#define CU_PROT_READWRITE	3

/* CUmemcpyAttributes */
struct cu_copy_attr {
	int src_order;			/* CU_COPY_ORDER_* */
	struct cu_location src_hint, dst_hint;
	unsigned int flags;
};

#define CU_COPY_ORDER_STREAM	1
#define CU_COPY_ORDER_ANY	3
#define CU_COPY_OVERLAP		1u	/* flags: by a copy engine, beside kernels */

/* CUipcMemHandle */
struct cu_ipc_handle {
	char bytes[64];
};

#define CU_IPC_LAZY_PEER	1u

enum cu_attribute {
	CU_ATTR_SMS			= 16,
	CU_ATTR_ASYNC_ENGINES		= 40,
	CU_ATTR_UNIFIED_ADDRESSING	= 41,
	CU_ATTR_CC_MAJOR		= 75,
	CU_ATTR_CC_MINOR		= 76,
	CU_ATTR_HOST_REGISTER		= 99,
	CU_ATTR_VMM			= 102,
	CU_ATTR_POSIX_FD		= 103,
	CU_ATTR_READ_ONLY_REGISTER	= 113,
	CU_ATTR_MEM_OPS_64		= 122,
	CU_ATTR_MPS			= 133,
};

enum cu_result {
	CU_OK				= 0,
	CU_INVALID_VALUE		= 1,
	CU_OUT_OF_MEMORY		= 2,
	CU_NOT_INITIALIZED		= 3,
	CU_STUB_LIBRARY			= 34,
	CU_DEVICE_UNAVAILABLE		= 46,
	CU_NO_DEVICE			= 100,
	CU_INVALID_DEVICE		= 101,
	CU_INVALID_IMAGE		= 200,
	CU_INVALID_CONTEXT		= 201,
	CU_MAP_FAILED			= 205,
	CU_NO_BINARY			= 209,	/* in an image, for this GPU */
	CU_ECC_UNCORRECTABLE		= 214,
	CU_NVLINK_UNCORRECTABLE		= 220,
	CU_CONTAINED			= 226,
	CU_OPERATING_SYSTEM		= 304,
	CU_INVALID_HANDLE		= 400,
	CU_NOT_FOUND			= 500,
	CU_NOT_READY			= 600,
	CU_ILLEGAL_ADDRESS		= 700,
	CU_PEER_ALREADY_ENABLED		= 704,
	CU_CONTEXT_IS_DESTROYED		= 709,
	CU_ALREADY_REGISTERED		= 712,
	CU_NOT_REGISTERED		= 713,
	CU_HARDWARE_STACK		= 714,
	CU_LAUNCH_FAILED		= 719,
	CU_NOT_PERMITTED		= 800,
	CU_NOT_SUPPORTED		= 801,
	CU_SYSTEM_DRIVER_MISMATCH	= 803,
	CU_UNKNOWN			= 999,
};

/* After these nothing works in the context any more. */
static inline int cu_is_sticky(int r)
{
	return r == CU_ECC_UNCORRECTABLE || r == CU_NVLINK_UNCORRECTABLE || r == CU_CONTAINED ||
	       r == CU_CONTEXT_IS_DESTROYED || r == CU_ILLEGAL_ADDRESS || r == CU_UNKNOWN ||
	       (r >= CU_HARDWARE_STACK && r <= CU_LAUNCH_FAILED);
}

#define CU_HOST_PORTABLE	1u
#define CU_HOST_DEVICEMAP	2u
#define CU_HOST_READ_ONLY	8u

#define CU_STREAM_OWN_ORDER	1u	/* NON_BLOCKING: not ordered with the NULL stream */
#define CU_EVENT_BLOCKING	1u
#define CU_EVENT_NO_TIMING	2u

typedef uint64_t cu_ptr;		/* CUdeviceptr */
typedef uint64_t cu_mem;		/* CUmemGenericAllocationHandle */
typedef void *cu_ctx;
typedef void *cu_stream;
typedef void *cu_event;
typedef void *cu_module;
typedef void *cu_function;

/* X(member, name, version asked for, arguments): all must be there. */
#define CU_FUNCS(X) \
	X(init, "cuInit", 12000, (unsigned flags)) \
	X(driver_version, "cuDriverGetVersion", 12000, (int *ret)) \
	X(error_name, "cuGetErrorName", 12000, (int err, const char **ret)) \
	X(error_string, "cuGetErrorString", 12000, (int err, const char **ret)) \
	X(device_count, "cuDeviceGetCount", 12000, (int *ret)) \
	X(device_get, "cuDeviceGet", 12000, (int *ret, int ordinal)) \
	X(device_name, "cuDeviceGetName", 12000, (char *ret, int bytes, int dev)) \
	X(device_uuid, "cuDeviceGetUuid", 12000, (struct cu_uuid *ret, int dev)) \
	X(device_attr, "cuDeviceGetAttribute", 12000, (int *ret, int attr, int dev)) \
	X(device_mem, "cuDeviceTotalMem", 12000, (size_t *ret, int dev)) \
	X(device_pci, "cuDeviceGetPCIBusId", 12000, (char *ret, int bytes, int dev)) \
	X(ctx_retain, "cuDevicePrimaryCtxRetain", 12000, (cu_ctx *ret, int dev)) \
	X(ctx_release, "cuDevicePrimaryCtxRelease", 12000, (int dev)) \
	X(ctx_reset, "cuDevicePrimaryCtxReset", 12000, (int dev)) \
	X(ctx_set, "cuCtxSetCurrent", 12000, (cu_ctx ctx)) \
	X(ctx_get, "cuCtxGetCurrent", 12000, (cu_ctx *ret)) \
	X(ctx_sync, "cuCtxSynchronize", 12000, (void)) \
	X(mem_info, "cuMemGetInfo", 12000, (size_t *ret_free, size_t *ret_total)) \
	X(mem_gran, "cuMemGetAllocationGranularity", 12000, \
	  (size_t *ret, const struct cu_mem_prop *prop, int option)) \
	X(mem_create, "cuMemCreate", 12000, \
	  (cu_mem *ret, size_t bytes, const struct cu_mem_prop *prop, unsigned long long flags)) \
	X(mem_release, "cuMemRelease", 12000, (cu_mem mem)) \
	X(mem_reserve, "cuMemAddressReserve", 12000, \
	  (cu_ptr *ret, size_t bytes, size_t align, cu_ptr addr, unsigned long long flags)) \
	X(mem_unreserve, "cuMemAddressFree", 12000, (cu_ptr ptr, size_t bytes)) \
	X(mem_map, "cuMemMap", 12000, \
	  (cu_ptr ptr, size_t bytes, size_t offset, cu_mem mem, unsigned long long flags)) \
	X(mem_unmap, "cuMemUnmap", 12000, (cu_ptr ptr, size_t bytes)) \
	X(mem_set_access, "cuMemSetAccess", 12000, \
	  (cu_ptr ptr, size_t bytes, const struct cu_mem_access *desc, size_t nr)) \
	X(mem_get_access, "cuMemGetAccess", 12000, \
	  (unsigned long long *ret_flags, const struct cu_location *loc, cu_ptr ptr)) \
	X(mem_export, "cuMemExportToShareableHandle", 12000, \
	  (void *ret_handle, cu_mem mem, int type, unsigned long long flags)) \
	X(mem_import, "cuMemImportFromShareableHandle", 12000, \
	  (cu_mem *ret, void *os_handle, int type)) \
	X(mem_alloc, "cuMemAlloc", 12000, (cu_ptr *ret, size_t bytes)) \
	X(mem_free, "cuMemFree", 12000, (cu_ptr ptr)) \
	X(ipc_get, "cuIpcGetMemHandle", 12000, (struct cu_ipc_handle *ret, cu_ptr ptr)) \
	X(ipc_close, "cuIpcCloseMemHandle", 12000, (cu_ptr ptr)) \
	X(host_register, "cuMemHostRegister", 12000, (void *p, size_t bytes, unsigned flags)) \
	X(host_unregister, "cuMemHostUnregister", 12000, (void *p)) \
	X(host_ptr, "cuMemHostGetDevicePointer", 12000, (cu_ptr *ret, void *p, unsigned flags)) \
	X(stream_create, "cuStreamCreateWithPriority", 12000, \
	  (cu_stream *ret, unsigned flags, int priority)) \
	X(stream_destroy, "cuStreamDestroy", 12000, (cu_stream s)) \
	X(stream_query, "cuStreamQuery", 12000, (cu_stream s)) \
	X(stream_sync, "cuStreamSynchronize", 12000, (cu_stream s)) \
	X(stream_write64, "cuStreamWriteValue64", 12000, \
	  (cu_stream s, cu_ptr addr, uint64_t value, unsigned flags)) \
	X(stream_wait64, "cuStreamWaitValue64", 12000, \
	  (cu_stream s, cu_ptr addr, uint64_t value, unsigned flags)) \
	X(event_create, "cuEventCreate", 12000, (cu_event *ret, unsigned flags)) \
	X(event_record, "cuEventRecord", 12000, (cu_event e, cu_stream s)) \
	X(event_query, "cuEventQuery", 12000, (cu_event e)) \
	X(event_sync, "cuEventSynchronize", 12000, (cu_event e)) \
	X(event_ms, "cuEventElapsedTime", 12000, (float *ret, cu_event from, cu_event to)) \
	X(event_destroy, "cuEventDestroy", 12000, (cu_event e)) \
	X(copy, "cuMemcpyAsync", 12000, (cu_ptr dst, cu_ptr src, size_t bytes, cu_stream s)) \
	X(set8, "cuMemsetD8Async", 12000, (cu_ptr dst, unsigned char c, size_t n, cu_stream s)) \
	X(module_load, "cuModuleLoadData", 12000, (cu_module *ret, const void *image)) \
	X(module_unload, "cuModuleUnload", 12000, (cu_module m)) \
	X(module_function, "cuModuleGetFunction", 12000, \
	  (cu_function *ret, cu_module m, const char *name)) \
	X(launch, "cuLaunchKernel", 12000, \
	  (cu_function f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, \
	   unsigned bz, unsigned shared_bytes, cu_stream s, void **args, void **extra))

/* These may be missing: the member is NULL. */
#define CU_FUNCS_OPT(X) \
	/* Version 2, without failIdx (driver 580). */ \
	X(copy_batch, "cuMemcpyBatchAsync", 13000, \
	  (cu_ptr *dst, cu_ptr *src, size_t *bytes, size_t nr, struct cu_copy_attr *attr, \
	   size_t *attr_idx, size_t nr_attrs, cu_stream s)) \
	/* Version 1 (driver 570): not to be mixed up, it takes one argument more. */ \
	X(copy_batch_v1, "cuMemcpyBatchAsync", 12080, \
	  (cu_ptr *dst, cu_ptr *src, size_t *bytes, size_t nr, struct cu_copy_attr *attr, \
	   size_t *attr_idx, size_t nr_attrs, size_t *ret_fail, cu_stream s))

struct cu {
	void *so;			/* NULL: not loaded */
	int version;			/* of the driver: 13000 is CUDA 13.0 */
#define X(member, name, version, args) int (*member) args;
	CU_FUNCS(X)
	CU_FUNCS_OPT(X)
#undef X
	/* Takes its 64 bytes by value. */
	int (*ipc_open)(cu_ptr *ret, struct cu_ipc_handle h, unsigned flags);
};

typedef int cu_get_proc_fn(const char *name, void **ret, int version, uint64_t flags, int *why);

/* 0, or -1 with @msg: what is missing and what to do. Loads and looks up, calls cuInit(). */
static inline int cu_load(struct cu *cu, char *msg, size_t n)
{
	cu_get_proc_fn *get;
	const char *text = NULL;
	void *sym;
	int r, why;

	memset(cu, 0, sizeof(*cu));
	cu->so = dlopen(CU_LIBRARY, RTLD_NOW | RTLD_LOCAL);
	if (!cu->so) {
		snprintf(msg, n, "no NVIDIA driver: %s", dlerror());
		return -1;
	}
	sym = dlsym(cu->so, "cuGetProcAddress_v2");
	memcpy(&get, &sym, sizeof(get));
	if (!sym) {
		snprintf(msg, n, "the NVIDIA driver is too old: CUDA 12.0 (R525) or newer is needed");
		goto err_close;
	}
#define X(member, name, version, args) \
	sym = NULL; \
	if (get(name, &sym, version, 0, &why) || !sym) { \
		snprintf(msg, n, "the NVIDIA driver has no %s of CUDA %d.%d: install a newer one", \
			 name, version / 1000, version % 1000 / 10); \
		goto err_close; \
	} \
	memcpy(&cu->member, &sym, sizeof(sym));
	CU_FUNCS(X)
	X(ipc_open, "cuIpcOpenMemHandle", 12000, ())
#undef X
#define X(member, name, version, args) \
	sym = NULL; \
	if (!get(name, &sym, version, 0, &why) && sym) \
		memcpy(&cu->member, &sym, sizeof(sym));
	CU_FUNCS_OPT(X)
#undef X
	r = cu->init(0);
	if (!r)
		r = cu->driver_version(&cu->version);
	if (!r)
		return 0;
	if (cu->error_string(r, &text) || !text)
		text = "unknown error";
	snprintf(msg, n, "the NVIDIA driver does not start: %s (CUDA error %d)%s", text, r,
		 r == CU_NO_DEVICE ? ": no GPU is visible to this process" :
		 r == CU_OPERATING_SYSTEM ? ": may it open /dev/nvidia*?" : "");
err_close:
	dlclose(cu->so);
	cu->so = NULL;
	return -1;
}

/* The error's name, "CUDA error" when the driver has none. */
static inline const char *cu_error(const struct cu *cu, int r)
{
	const char *s = NULL;

	return cu->so && !cu->error_name(r, &s) && s ? s : "CUDA error";
}

#define CU_UUID_TEXT	37		/* with the NUL; nvidia-smi puts "GPU-" before it */

static inline void cu_uuid_text(const struct cu_uuid *u, char ret[CU_UUID_TEXT])
{
	static const char hex[] = "0123456789abcdef";
	size_t at = 0;

	for (int i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			ret[at++] = '-';
		ret[at++] = hex[u->bytes[i] >> 4];
		ret[at++] = hex[u->bytes[i] & 15];
	}
	ret[at] = 0;
}

#endif
