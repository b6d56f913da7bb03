/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu.h - what the files of part "gpu" share.
 *
 * Ours is the daemon's cuda device through struct dev_ops, driven by this process
 * as the core thread would, and a daemon with two clients. The floor is the driver
 * itself: cuMemcpyAsync of one large buffer, pinned in the same way, in the same
 * context (gpu_plain.c). Kernels run in a process of their own, engines are programs.
 *
 * A context cannot be inherited: what asks the driver in another process is forked
 * before this one loads it (gpu_peer.c, gpu_visible.c), so gpu.c sets up in that order.
 */
#ifndef KVBENCH_GPU_H
#define KVBENCH_GPU_H

#include "kvmd/cuda_abi.h"
#include "kvmd/dev/dev.h"
#include "tools/kvbench/kvbench.h"

#define GPU_SLICES	5u
#define NR_GPU_SIZES	5u
extern const uint64_t gpu_size[NR_GPU_SIZES];	/* 64 KiB, 256 KiB, 1 MiB, 2 MiB, 4 MiB */

struct gpu_amounts {
	uint64_t span;			/* of device and host memory copied between, a power of 2 */
	uint64_t slice_ns;
	unsigned publishes;		/* in one slice */
	uint64_t free_bytes;		/* of device memory, at first */
};
extern struct gpu_amounts gpu_amounts;

/* ------------------------------------------------------------ gpu_plain.c */

/* The driver of this process, the primary context current. 0, or -errno with @msg. */
int plain_open(char *msg, size_t n);
/* @host: registered already, by whoever. */
int plain_buffers(void *host, uint64_t bytes, char *msg, size_t n);
/* Large copies, one after the other; @ways: 1 << DEV_OUT | 1 << DEV_IN. As gpu_rate(). */
double plain_rate(unsigned ways, uint64_t for_ns);
/* A slab as it is made and exported, by bare calls: ms, < 0: failed. *ret_fd is the caller's. */
double plain_slab(uint64_t bytes, int *ret_fd);
/* Its export alone, into *ret_fd. */
double plain_export(int *ret_fd);
void plain_slab_free(void);
void plain_close(void);

/* ------------------------------------------------------------ gpu_dev.c */

/* Open the cuda device and pin the host's memory. 0, or -errno with @msg. */
int gpu_dev_open(char *msg, size_t n);
void gpu_dev_close(void);
void *gpu_dev_host(void);		/* the pinned memory, gpu_amounts.span */
const char *gpu_dev_model(void);

/* Blocks that go one way. */
struct gpu_job {
	enum dev_way way;
	uint64_t block;			/* contiguous on both sides */
	unsigned per_batch;		/* blocks in a batch */
	unsigned planes; /* of device memory; 0: one. Block i of a batch lies in plane i */
	bool sums;
	uint64_t base, span;		/* which part of the memory; span 0: all */
};

/* All @nr jobs at once, as fast as they go. Bytes a second, < 0: -errno. */
double gpu_rate(const struct gpu_job *job, unsigned nr, uint64_t for_ns);
/* One slab of the device, made and given back: ms, < 0: -errno. */
double gpu_dev_slab(uint64_t bytes);

/* ------------------------------------------------------------ gpu_peer.c */

/* What is here: in a process of its own, so that this one has no driver yet. */
int gpu_look(char *what, size_t n, uint64_t *ret_free);	/* -errno: @what says why not */
void gpu_peer_start(void);		/* before plain_open() */
/* Hand it an exported slab: ms until it has mapped it twice; < 0: failed. */
double gpu_peer_import(int fd, uint64_t bytes);
void gpu_peer_end(void);

/* ------------------------------------------------------------ gpu_visible.c */

/* Daemons and clients on the host device [0] and on the GPU [1]; before plain_open(). */
void visible_setup(void);
/* Median time from publish to the other client's hit, us; < 0: *ret_why. */
double visible_slice(unsigned which, const char **ret_why);
void visible_end(void);

/* ------------------------------------------------------------ gpu_kernels.c */

/* A process for kernels, before this one has a driver; then a pool for it. */
void gpu_kernels_fork(void);
void gpu_kernels_setup(void);
void gpu_kernels_round(void);
void gpu_kernels_end(void);

/* ------------------------------------------------------------ gpu_infer.c */

void gpu_infer_setup(void);
void gpu_infer_round(void);
void gpu_infer_end(void);

#endif
