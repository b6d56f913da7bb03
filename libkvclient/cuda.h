/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda.h - what the library's CUDA files share.
 *
 * The driver is loaded once per process and stays. A session retains the primary
 * context of each of its GPUs once, and makes it current only around its own calls:
 * the caller's context is put back. Errors are -errno with a refusal that names the
 * driver's function and error.
 */
#ifndef KVC_CUDA_H
#define KVC_CUDA_H

#include <kvmd/cuda_abi.h>

#include "libkvclient/internal.h"

/* One GPU that this process sees and the space lies on. */
struct kvci_gpu {
	int ordinal;			/* in this process */
	int dev;			/* CUdevice */
	cu_ctx ctx;			/* primary, retained */
	cu_stream stream;		/* for copies that are waited for; NULL: not made yet */
	bool has_write64;		/* cuStreamWriteValue64 */
	bool has_ro_register;		/* may pin memory that this process cannot write */
	cu_event spare[KVC_CUDA_EVENTS];
	uint32_t nr_spare;
};

/* A recorded event: @step of @lane is complete when it has passed. */
struct kvci_mark {
	cu_event event;
	uint64_t step;
	uint32_t lane;
	uint32_t gpu;
};

struct kvci_cuda {
	const struct cu *cu;
	struct kvci_gpu gpu[KVMD_MAX_SHARDS];
	uint32_t nr_gpus;
	int of_shard[KVMD_MAX_SHARDS];	/* index in gpu[]; -1: not visible */
	uint32_t nr_shards;
	cu_mem zero[KVMD_MAX_GROUPS][KVMD_MAX_SHARDS]; /* NULL blocks', per GPU; 0: none */
	bool tables_pinned;
	bool steps_pinned;
	/* in order of recording */
	struct kvci_mark mark[KVC_CUDA_EVENTS];
	uint32_t nr_marks;
};

/* cuda.c */
int kvci_cuda_open(struct kvc *k, const struct kvmd_space_reply *r);
void kvci_cuda_close(struct kvc *k);
/* Makes @g's context current; -errno. kvci_cuda_leave() puts *ret_old back. */
int kvci_cuda_enter(struct kvci_cuda *c, const struct kvci_gpu *g, cu_ctx *ret_old);
void kvci_cuda_leave(struct kvci_cuda *c, cu_ctx old);
int kvci_cuda_stream(struct kvci_cuda *c, struct kvci_gpu *g);	/* with @g current */
/* All that the GPUs have been given so far is done. */
int kvci_cuda_wait(struct kvci_cuda *c);
int kvci_cuda_copy(struct kvc *k, uint32_t shard, void *dst, const void *src, size_t bytes);
/* -errno of @r, with a refusal: @fmt, the function, the error. */
int kvci_cuda_fail(const struct kvci_cuda *c, int r, const char *func, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

static inline uint32_t kvci_shard_of(const struct kvc *k, uint32_t group, uint32_t plane)
{
	return plane / k->view.group[group].planes;
}

/* NULL: not visible. */
static inline struct kvci_gpu *kvci_cuda_gpu(struct kvci_cuda *c, uint32_t shard)
{
	return c->of_shard[shard] < 0 ? NULL : &c->gpu[c->of_shard[shard]];
}

#endif
