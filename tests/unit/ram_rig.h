/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ram_rig.h - a RAM tier over host or null devices, with workers, without a pool.
 *
 * Spaces are made by hand, one group and one slab each: the tier needs no more.
 */
#ifndef TEST_RAM_RIG_H
#define TEST_RAM_RIG_H

#include <check.h>

#include "kvmd/tier/ram.h"

#define RRIG_SLOTS	16u		/* in HBM, per space; slot 0 included */
#define RRIG_KEPT	64u		/* chunks that the rig can keep fds of */

struct rspace {
	struct space sp;
	struct slab slab, *slabs[1];
};

struct rrig {
	struct workers *w, *slow;
	struct uring *u;
	struct dev dev[3];
	struct rspace space[8];
	unsigned nr_spaces;
	struct tier *t;
	bool no_buffers;		/* make the tier without the ring */
	int table_fd, chunk_fd[RRIG_KEPT];	/* what a keeper holds; -1: not told, or given up */
	unsigned nr_adds, nr_dels;
};

void rrig_init(struct rrig *r, const char *kind);
void rrig_exit(struct rrig *r);
struct gpool *rrig_space(struct rrig *r, uint32_t planes, uint32_t shards, uint64_t plane_bytes,
			 bool replica);
/* Make the tier, without waiting; rrig_settle() has all chunks made. */
int rrig_create(struct rrig *r, uint64_t bytes, uint64_t chunk_bytes);
void rrig_tier(struct rrig *r, uint64_t bytes, uint64_t chunk_bytes);
/* The daemon ends and the next one takes over what the keeper holds. */
int rrig_restart(struct rrig *r, uint64_t bytes);
/* False, and SKIP said: this user may not register as much as the tests want to. */
bool rrig_may_register(void);
void rrig_settle(struct rrig *r);	/* until no worker has anything to do */
void rrig_poll(struct rrig *r);		/* poll() until it asks for no more calls */
/* One turn: reap what is there, else wait for the workers; false: nothing to wait for. */
bool rrig_turn(struct rrig *r);
void rrig_clean(struct rrig *r);	/* ram_check() */
struct ram_info rrig_info(struct rrig *r);
uint32_t rrig_alloc(struct rrig *r, struct gpool *gp, uint32_t block);
void rrig_free(struct rrig *r, uint32_t place);
/* As many blocks of @gp as fit, of records from @first on; how many, their places by record. */
uint32_t rrig_fill(struct rrig *r, struct gpool *gp, uint32_t first, uint32_t *ret_place,
		   uint32_t most);
void rrig_arm(const char *spec);
void *rrig_plane(struct gpool *gp, uint32_t slot, uint32_t shard, uint32_t plane);

#endif
