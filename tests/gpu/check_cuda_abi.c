// SPDX-License-Identifier: Apache-2.0
/*
 * check_cuda_abi.c - our declarations of the driver API are those of <cuda.h>.
 *
 * Compiled with the toolkit's headers where there are any; they are compared when
 * their version has what is compared.
 */
#include <check.h>
#include <stdlib.h>

#include "kvmd/cuda_abi.h"

#if __has_include(<cuda.h>)
#include <cuda.h>
#else
#define CUDA_VERSION	0
#endif

#if CUDA_VERSION < 12080

int main(void)
{
	printf("SKIP: no cuda.h of CUDA 12.8 or newer to compare with%s\n",
	       CUDA_VERSION ? "; the one found is older" : "");
	return 77;
}

#else

#define SIZE(ours, theirs) \
	ck_assert_msg(sizeof(ours) == sizeof(theirs), "%s: %zu bytes, %s: %zu", #ours, \
		      sizeof(ours), #theirs, sizeof(theirs))
#define FIELD(ours, a, theirs, b) do { \
	ck_assert_msg(offsetof(ours, a) == offsetof(theirs, b), "%s.%s is at %zu, %s.%s at %zu", \
		      #ours, #a, offsetof(ours, a), #theirs, #b, offsetof(theirs, b)); \
	ck_assert_msg(sizeof(((ours *)0)->a) == sizeof(((theirs *)0)->b), \
		      "%s.%s: %zu bytes, %s.%s: %zu", #ours, #a, sizeof(((ours *)0)->a), \
		      #theirs, #b, sizeof(((theirs *)0)->b)); \
} while (0)
#define VALUE(ours, theirs) \
	ck_assert_msg((long long)(ours) == (long long)(theirs), "%s is %lld, %s is %lld", #ours, \
		      (long long)(ours), #theirs, (long long)(theirs))

START_TEST(structs)
{
	SIZE(struct cu_uuid, CUuuid);
	SIZE(struct cu_location, CUmemLocation);
	FIELD(struct cu_location, type, CUmemLocation, type);
	FIELD(struct cu_location, id, CUmemLocation, id);
	SIZE(struct cu_mem_prop, CUmemAllocationProp);
	FIELD(struct cu_mem_prop, type, CUmemAllocationProp, type);
	FIELD(struct cu_mem_prop, handle_types, CUmemAllocationProp, requestedHandleTypes);
	FIELD(struct cu_mem_prop, location, CUmemAllocationProp, location);
	FIELD(struct cu_mem_prop, win32, CUmemAllocationProp, win32HandleMetaData);
	FIELD(struct cu_mem_prop, compression, CUmemAllocationProp, allocFlags.compressionType);
	FIELD(struct cu_mem_prop, rdma_capable, CUmemAllocationProp,
	      allocFlags.gpuDirectRDMACapable);
	FIELD(struct cu_mem_prop, usage, CUmemAllocationProp, allocFlags.usage);
	FIELD(struct cu_mem_prop, reserved, CUmemAllocationProp, allocFlags.reserved);
	SIZE(struct cu_mem_access, CUmemAccessDesc);
	FIELD(struct cu_mem_access, location, CUmemAccessDesc, location);
	FIELD(struct cu_mem_access, flags, CUmemAccessDesc, flags);
	SIZE(struct cu_copy_attr, CUmemcpyAttributes);
	FIELD(struct cu_copy_attr, src_order, CUmemcpyAttributes, srcAccessOrder);
	FIELD(struct cu_copy_attr, src_hint, CUmemcpyAttributes, srcLocHint);
	FIELD(struct cu_copy_attr, dst_hint, CUmemcpyAttributes, dstLocHint);
	FIELD(struct cu_copy_attr, flags, CUmemcpyAttributes, flags);
	SIZE(struct cu_ipc_handle, CUipcMemHandle);
}
END_TEST

START_TEST(types)
{
	SIZE(cu_ptr, CUdeviceptr);
	SIZE(cu_mem, CUmemGenericAllocationHandle);
	SIZE(cu_ctx, CUcontext);
	SIZE(cu_stream, CUstream);
	SIZE(cu_event, CUevent);
	SIZE(cu_module, CUmodule);
	SIZE(cu_function, CUfunction);
	SIZE(int, CUdevice);
	SIZE(int, CUresult);
	SIZE(int, CUdevice_attribute);
	SIZE(int, CUdriverProcAddressQueryResult);
	SIZE(uint64_t, cuuint64_t);
}
END_TEST

START_TEST(constants)
{
	VALUE(CU_LOC_DEVICE, CU_MEM_LOCATION_TYPE_DEVICE);
	VALUE(CU_LOC_HOST, CU_MEM_LOCATION_TYPE_HOST);
	VALUE(CU_MEM_PINNED, CU_MEM_ALLOCATION_TYPE_PINNED);
	VALUE(CU_MEM_POSIX_FD, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
	VALUE(CU_MEM_GRAN_MINIMUM, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
	VALUE(CU_MEM_GRAN_RECOMMENDED, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED);
	VALUE(CU_PROT_NONE, CU_MEM_ACCESS_FLAGS_PROT_NONE);
	VALUE(CU_PROT_READ, CU_MEM_ACCESS_FLAGS_PROT_READ);
	VALUE(CU_PROT_READWRITE, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
	VALUE(CU_COPY_ORDER_STREAM, CU_MEMCPY_SRC_ACCESS_ORDER_STREAM);
	VALUE(CU_COPY_ORDER_ANY, CU_MEMCPY_SRC_ACCESS_ORDER_ANY);
	VALUE(CU_IPC_LAZY_PEER, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
	VALUE(CU_HOST_PORTABLE, CU_MEMHOSTREGISTER_PORTABLE);
	VALUE(CU_HOST_DEVICEMAP, CU_MEMHOSTREGISTER_DEVICEMAP);
	VALUE(CU_HOST_READ_ONLY, CU_MEMHOSTREGISTER_READ_ONLY);
	VALUE(CU_STREAM_OWN_ORDER, CU_STREAM_NON_BLOCKING);
	VALUE(CU_EVENT_BLOCKING, CU_EVENT_BLOCKING_SYNC);
	VALUE(CU_EVENT_NO_TIMING, CU_EVENT_DISABLE_TIMING);
	/* The 0 that stands for them in calls. */
	VALUE(0, CU_STREAM_WAIT_VALUE_GEQ);
	VALUE(0, CU_STREAM_WRITE_VALUE_DEFAULT);
}
END_TEST

START_TEST(attributes)
{
	VALUE(CU_ATTR_SMS, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
	VALUE(CU_ATTR_ASYNC_ENGINES, CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT);
	VALUE(CU_ATTR_UNIFIED_ADDRESSING, CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING);
	VALUE(CU_ATTR_CC_MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
	VALUE(CU_ATTR_CC_MINOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
	VALUE(CU_ATTR_HOST_REGISTER, CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED);
	VALUE(CU_ATTR_VMM, CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED);
	VALUE(CU_ATTR_POSIX_FD, CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED);
	VALUE(CU_ATTR_READ_ONLY_REGISTER,
	      CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED);
	VALUE(CU_ATTR_MEM_OPS_64, CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS);
	VALUE(CU_ATTR_MPS, CU_DEVICE_ATTRIBUTE_MPS_ENABLED);
}
END_TEST

START_TEST(results)
{
	VALUE(CU_OK, CUDA_SUCCESS);
	VALUE(CU_INVALID_VALUE, CUDA_ERROR_INVALID_VALUE);
	VALUE(CU_OUT_OF_MEMORY, CUDA_ERROR_OUT_OF_MEMORY);
	VALUE(CU_NOT_INITIALIZED, CUDA_ERROR_NOT_INITIALIZED);
	VALUE(CU_STUB_LIBRARY, CUDA_ERROR_STUB_LIBRARY);
	VALUE(CU_DEVICE_UNAVAILABLE, CUDA_ERROR_DEVICE_UNAVAILABLE);
	VALUE(CU_NO_DEVICE, CUDA_ERROR_NO_DEVICE);
	VALUE(CU_INVALID_DEVICE, CUDA_ERROR_INVALID_DEVICE);
	VALUE(CU_INVALID_IMAGE, CUDA_ERROR_INVALID_IMAGE);
	VALUE(CU_INVALID_CONTEXT, CUDA_ERROR_INVALID_CONTEXT);
	VALUE(CU_MAP_FAILED, CUDA_ERROR_MAP_FAILED);
	VALUE(CU_NO_BINARY, CUDA_ERROR_NO_BINARY_FOR_GPU);
	VALUE(CU_ECC_UNCORRECTABLE, CUDA_ERROR_ECC_UNCORRECTABLE);
	VALUE(CU_NVLINK_UNCORRECTABLE, CUDA_ERROR_NVLINK_UNCORRECTABLE);
	VALUE(CU_CONTAINED, CUDA_ERROR_CONTAINED);
	VALUE(CU_OPERATING_SYSTEM, CUDA_ERROR_OPERATING_SYSTEM);
	VALUE(CU_INVALID_HANDLE, CUDA_ERROR_INVALID_HANDLE);
	VALUE(CU_NOT_FOUND, CUDA_ERROR_NOT_FOUND);
	VALUE(CU_NOT_READY, CUDA_ERROR_NOT_READY);
	VALUE(CU_ILLEGAL_ADDRESS, CUDA_ERROR_ILLEGAL_ADDRESS);
	VALUE(CU_PEER_ALREADY_ENABLED, CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED);
	VALUE(CU_CONTEXT_IS_DESTROYED, CUDA_ERROR_CONTEXT_IS_DESTROYED);
	VALUE(CU_ALREADY_REGISTERED, CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
	VALUE(CU_NOT_REGISTERED, CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
	VALUE(CU_HARDWARE_STACK, CUDA_ERROR_HARDWARE_STACK_ERROR);
	VALUE(CU_LAUNCH_FAILED, CUDA_ERROR_LAUNCH_FAILED);
	VALUE(CU_NOT_PERMITTED, CUDA_ERROR_NOT_PERMITTED);
	VALUE(CU_NOT_SUPPORTED, CUDA_ERROR_NOT_SUPPORTED);
	VALUE(CU_SYSTEM_DRIVER_MISMATCH, CUDA_ERROR_SYSTEM_DRIVER_MISMATCH);
	VALUE(CU_UNKNOWN, CUDA_ERROR_UNKNOWN);
}
END_TEST

#define TYPE(call, ...) \
	ck_assert_msg(__builtin_types_compatible_p(__typeof__(call), CUresult (__VA_ARGS__)), \
		      "%s has other arguments", #call)

/* Where argument lists have changed between versions. */
START_TEST(functions)
{
	TYPE(cuMemMap, CUdeviceptr, size_t, size_t, CUmemGenericAllocationHandle,
	     unsigned long long);
	TYPE(cuMemAlloc, CUdeviceptr *, size_t);
	TYPE(cuIpcOpenMemHandle, CUdeviceptr *, CUipcMemHandle, unsigned int);
	TYPE(cuModuleLoadData, CUmodule *, const void *);
	TYPE(cuModuleGetFunction, CUfunction *, CUmodule, const char *);
	TYPE(cuLaunchKernel, CUfunction, unsigned int, unsigned int, unsigned int, unsigned int,
	     unsigned int, unsigned int, unsigned int, CUstream, void **, void **);
	TYPE(cuMemcpyAsync, CUdeviceptr, CUdeviceptr, size_t, CUstream);
	TYPE(cuMemsetD8Async, CUdeviceptr, unsigned char, size_t, CUstream);
	TYPE(cuMemHostRegister, void *, size_t, unsigned int);
	TYPE(cuStreamWriteValue64, CUstream, CUdeviceptr, cuuint64_t, unsigned int);
	TYPE(cuEventElapsedTime, float *, CUevent, CUevent);
	TYPE(cuGetProcAddress, const char *, void **, int, cuuint64_t,
	     CUdriverProcAddressQueryResult *);
#if CUDA_VERSION >= 13000
	TYPE(cuMemcpyBatchAsync, CUdeviceptr *, CUdeviceptr *, size_t *, size_t,
	     CUmemcpyAttributes *, size_t *, size_t, CUstream);
#else
	TYPE(cuMemcpyBatchAsync, CUdeviceptr *, CUdeviceptr *, size_t *, size_t,
	     CUmemcpyAttributes *, size_t *, size_t, size_t *, CUstream);
#endif
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cuda_abi");
	TCase *t = tcase_create("cuda.h");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_test(t, structs);
	tcase_add_test(t, types);
	tcase_add_test(t, constants);
	tcase_add_test(t, attributes);
	tcase_add_test(t, results);
	tcase_add_test(t, functions);
	suite_add_tcase(s, t);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
