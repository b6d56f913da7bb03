/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool_rig.h - a pool with workers, devices, an index and reclaim, and no daemon.
 *
 * Slabs are used as soon as they are made (no sessions map them), unless the
 * test sets p->events.
 */
#ifndef TEST_POOL_RIG_H
#define TEST_POOL_RIG_H

#include <check.h>

#include "kvmd/index/seq.h"
#include "kvmd/reclaim/reclaim.h"

struct prig {
	struct pool *p;
	struct workers *w;
	struct index *ix;
	struct reclaim rc;
	struct tenant *t[3];
};

/* Two devices of kind @kind with @dev_bytes each; slabs of @slab_bytes. */
void prig_init(struct prig *r, const char *kind, uint32_t nr_blocks, uint64_t slab_bytes,
	       uint64_t dev_bytes, const struct reclaim_events *ev);
void prig_exit(struct prig *r);
/* A full group of one plane per shard; change it before prig_space(). */
void prig_geometry(struct kvmd_space *m, uint64_t plane_bytes, uint32_t max_slots);
struct space *prig_space(struct prig *r, const char *name, struct tenant *t,
			 const struct kvmd_space *m, const char *policy);
/* A space of one such group, of policy lru and tenant @t, that has @nr_slabs slabs. */
struct gpool *prig_gpool(struct prig *r, const char *name, unsigned t, uint64_t plane_bytes,
			 uint32_t max_slots, unsigned nr_slabs);
void prig_work(struct prig *r);			/* until the workers have nothing */
void prig_grow(struct prig *r, struct gpool *gp, unsigned nr_slabs);
uint32_t prig_alloc(struct prig *r, struct gpool *gp);	/* one private block */
void prig_key(uint32_t n, uint8_t *ret_key);
/* Seal @id under key @n behind @parent; the block that has the key already, or NULL. */
struct block *prig_seal(struct prig *r, uint32_t id, uint32_t n, uint32_t parent);
/* A chain of @nr sealed blocks under keys @first ..; the ids. Leases are dropped. */
void prig_chain(struct prig *r, struct gpool *gp, uint32_t first, uint32_t nr, uint32_t *ret_ids);
void prig_put(struct prig *r, uint32_t id);
void prig_get(struct prig *r, uint32_t id);
struct block *prig_find(struct prig *r, const struct space *sp, uint8_t group, uint32_t n);
/* A turn of reclaim, kicked, and what the workers do for it; true: it would go on. */
bool prig_turn(struct prig *r, uint64_t now_ns);
void prig_check(struct prig *r);		/* pool_check() and index_check() */

#endif
