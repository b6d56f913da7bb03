/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda_rig.h - a session on GPUs of the fake driver, for the tests of libkvclient.
 *
 * Three parts: a scripted daemon in a thread (client_fake.h), a process that owns the
 * memory (cuda_maker.h), and the session with what an engine of this process does
 * with the driver. One rig per process.
 */
#ifndef KVMD_TESTS_CUDA_RIG_H
#define KVMD_TESTS_CUDA_RIG_H

#include <kvmd/cuda_abi.h>

#include "libkvclient/internal.h"
#include "tests/fakecuda/fakecuda.h"
#include "tests/unit/client_fake.h"
#include "tests/unit/cuda_maker.h"

#define SLAB_SLOTS	64u
#define PLANE		32768u		/* a slab's plane is one granule of 2 MiB */
#define FAR		(2 * SLAB_SLOTS)

struct cuda_rig {
	struct fake f;
	struct maker maker;
	struct kvc *k;
	struct kvc_opts opts;
	struct kvc_space space;
	int fds[64];			/* handles of the slab announced last */
	/* The engine's own driver, from cr_use_driver() on. */
	struct cu cu;
	cu_ctx ctx;
	uint64_t (*calls)(const char *func);
};

extern struct cuda_rig cr;

bool cr_has_fake(void);			/* else it prints why the tests are skipped */
void cr_setup(void);			/* fixture */
/* @gpus GPUs, each shard on its own; @more for the client's KVMD_FAKECUDA, or NULL. */
void cr_start(unsigned gpus, uint32_t nr_shards, const char *more);
/* Ends all; no descriptor, no device memory, no violation may be left. */
void cr_finish(void);
void cr_create(void (*script)(struct fake *x));	/* kvc_create() against @script */
void cr_use_driver(void);		/* GPU 0 is current */
cu_stream cr_stream(void);
int cr_access(const void *p);		/* what GPU 0 may do there; -1: nothing is mapped */
int cr_handle(struct fake *x, uint32_t idx, size_t bytes);	/* of the maker */
void cr_kill_daemon(void);
void cr_close_slab(void);		/* the test's handles */

/* Scripts. */
void cr_plain(struct fake *x);		/* a session without slabs */
void cr_slab(struct fake *x);		/* with slab 0, slots 0 to 63 */
void cr_add(struct fake *x);		/* these two for cr_change() */
void cr_del(struct fake *x);
/* Adds or deletes slab @id while the client waits for a completion. */
void cr_change(void (*script)(struct fake *x), uint32_t id, uint32_t first);

char *cr_rw(uint32_t shard, uint32_t plane, uint32_t slot);
const char *cr_ro(uint32_t shard, uint32_t plane, uint32_t slot);
void cr_put(char *at, const char *text);
void cr_expect(const char *at, const char *text);
bool cr_is_zero(const char *at, size_t bytes);

#endif
