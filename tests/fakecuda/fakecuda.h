/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fakecuda.h - a libcuda.so.1 without a GPU: what tests ask it beyond the driver API.
 *
 * Device memory is memfds, streams are threads, a fault is an error code. It is
 * adversarial: copies run late and read their source late, streams finish in any
 * order among each other, what the driver refuses is refused. The CPU cannot touch
 * device addresses (they are mapped PROT_NONE; copies use a mapping of the fake's
 * own), so that code which does dies here as it would on a GPU. Even the default
 * stream is not ordered with the others. A reset context gets a new pointer when it
 * is retained again; VMM memory stays mapped over it, without access.
 *
 * $KVMD_FAKECUDA: key=value, comma separated, K, M or G behind a number; read once, by
 * the first call of the process. CUDA_VISIBLE_DEVICES=N,... orders and hides devices.
 *   gpus=N           devices [1]
 *   mem=BYTES        memory of each, over all processes with one state file [256M]
 *   granularity=N    of cuMemCreate [2M]
 *   delay=US         every other copy, at random, waits up to so long [50]
 *   seed=N           of the delays [1]
 *   driver=N         what cuDriverGetVersion says [13000]; below 13000 and 12080 the
 *                    functions that came with these are missing
 *   mps=0|1          CU_DEVICE_ATTRIBUTE_MPS_ENABLED [0]
 *   vmm=0|1          VMM and POSIX fds are supported [1]
 *   cpu=0|1          the CPU may touch device memory, so that kernels can run on it [0]:
 *                    cuModuleLoadData("fakecuda:PATH of a shared object"), see module.c
 *   rohost=0|1       CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED [1]
 *   fail=FUNC:NTH[:CODE[:COUNT]]  the NTH call of FUNC ("cuMemCreate") fails with CODE
 *                    [CUDA_ERROR_UNKNOWN], and the COUNT - 1 after it [1]; sticky codes
 *                    of copies, launches and queries poison the context. May come again.
 *   ecc=NTH          the NTH copy, and every later one that touches the same device
 *                    granule, ends with CUDA_ERROR_ECC_UNCORRECTABLE, when it runs: also
 *                    after a reset and in other processes, while the memory is there
 *   hang=NTH         the NTH copy of the process does not end, until fakecuda_unhang() or
 *                    the end of its context
 * Copies are counted as they are submitted, each of a batch for itself, no memsets.
 * $KVMD_FAKECUDA_STATE: a file the processes share: memory in use, calls made,
 * holds, violations. Made when it is not there or empty. Without it each process is
 * alone. Memory counts as in use while any process has an fd of it, known or not.
 *
 * A violation is a copy or memset that writes what somebody else reads, writes or
 * holds, or reads what somebody else writes or holds for writing: they count from
 * submission to their end, unless they are ordered (same stream, not same batch). A
 * process' holds do not bind itself, those of the dead bind nobody. Host memory counts
 * within its process; to unregister it under a copy is a violation too. It is written
 * to the state file and to stderr.
 */
#ifndef KVMD_TESTS_FAKECUDA_H
#define KVMD_TESTS_FAKECUDA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* In the library itself: found by dlsym() on the libcuda.so.1 that is loaded. */
uint64_t fakecuda_calls(const char *func);	/* of this process; NULL: all */
/* This process holds device bytes at @ptr: for writing, or for reading. */
int fakecuda_hold(uint64_t ptr, size_t bytes, bool write);
int fakecuda_unhold(uint64_t ptr);
void fakecuda_unhang(void);
/* The bytes behind a device address, for tests that look; NULL: none. */
void *fakecuda_peek(uint64_t ptr);

/* In tests/fakecuda/state.c, linked into the tests: reads a state file. */
struct fakecuda_sum {
	uint64_t violations;
	uint64_t mem_bytes;		/* device memory in use, all processes */
	uint64_t nr_mem;		/* allocations alive */
};
int fakecuda_state(const char *path, struct fakecuda_sum *ret_s);	/* 0 or -errno */
/* Driver calls that process @pid has made so far, all functions. */
uint64_t fakecuda_state_calls(const char *path, int pid);

#endif
