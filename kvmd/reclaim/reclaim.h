/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reclaim.h - where free slots come from: growth, eviction, waiting, taking.
 *
 * An allocation asks reclaim_reserve() first. In this order it is served from
 * free slots, from a slab that can still be created, from idle blocks of its
 * own gpool (leaves first, as the policy says; with a RAM tier, once they are
 * copied there, which is done ahead of need). Failing that it waits, in order
 * within its space, spaces of tenants below their min first; and a slab is
 * taken from another space: of a tenant over its high first, then over its
 * low, never one that would fall below its min.
 *
 * Below wmark_low background reclaim evicts until wmark_high, a bounded number
 * of blocks a turn. wmark_min slots are kept for tenants below their min.
 *
 * Core thread only; nothing here blocks or allocates.
 */
#ifndef KVMD_RECLAIM_RECLAIM_H
#define KVMD_RECLAIM_RECLAIM_H

#include "kvmd/tier/tiers.h"

struct reclaim;

/* A waiting allocation; embedded by the caller, which does the allocation. */
struct waiter {
	struct list link;		/* on gp->waiters */
	struct gpool *gp;
	uint32_t nr;			/* blocks */
	uint32_t records;		/* of all groups of the allocation, at least nr */
	uint32_t session;
	uint64_t order;			/* of arrival, over all spaces */
	uint64_t since_ns, deadline_ns;	/* CLOCK_MONOTONIC */
	bool waiting;			/* on the list */
};

struct reclaim_events {
	/* 0: the slots are there, allocate now. -ENOMEM, -EDQUOT, -EDEADLK: refused. */
	void (*serve)(struct waiter *w, int err);
	/*
	 * Do all sessions that hold blocks of @sp wait, quietly, with nothing under
	 * way that will free one? Then the youngest waiter has to give way.
	 */
	bool (*deadlocked)(struct reclaim *rc, struct space *sp, uint64_t now_ns);
};

struct reclaim {
	struct pool *pool;
	struct index *ix;
	struct tiers *tiers;		/* NULL: what leaves HBM is dropped */
	const struct reclaim_events *events;
	uint64_t next_order;
	uint32_t nr_waiters;
	bool kick;			/* there may be work: reclaim_turn() looks */
	uint64_t retry_ns;		/* CLOCK_MONOTONIC: look again then; 0: no need */
	uint32_t sweep;			/* record cursor of the stale and ttl sweep */
	uint32_t sweep_found;		/* dropped in this pass */
	uint32_t sweep_ttl;		/* blocks with a ttl met in this pass */
	uint32_t nr_ttl;		/* blocks that were given a ttl, as an upper bound */
	uint32_t ttl_before;		/* nr_ttl when this pass began */
	bool evicted;			/* blocks were evicted since the turn began */
	uint64_t throttle_ns;		/* least wait of a tenant over its high */
};

void reclaim_init(struct reclaim *rc, struct pool *p, struct index *ix,
		  const struct reclaim_events *ev);

/*
 * Make @nr slots of @gp free for pool_alloc(), and @records records (of all
 * groups that allocate together; at least @nr). 0: allocate now, in this turn,
 * with reclaim_reserve_slots() held back. -EAGAIN: waiting may help. -EDQUOT:
 * tenant's max. -ENOMEM: more than there can ever be.
 */
int reclaim_reserve(struct reclaim *rc, struct gpool *gp, uint32_t nr, uint32_t records);
uint32_t reclaim_reserve_slots(const struct gpool *gp, uint32_t nr);

/* Leases ended: those that wait for memory, and slabs that drain, look again. */
static inline void reclaim_freed(struct reclaim *rc)
{
	rc->kick |= rc->nr_waiters || rc->pool->nr_draining;
}

/* Queue @w (gp, nr, records, session, deadline set). */
void reclaim_wait(struct reclaim *rc, struct waiter *w);
/* Take it off again (cancelled, session ended); not waiting is fine. */
void reclaim_unwait(struct reclaim *rc, struct waiter *w);

/*
 * Free up to @nr slots of idle leaves of @gp. How many are free now; with tiers
 * others are on their way out, and rc->tiers->freed says when to come again.
 */
uint32_t reclaim_evict(struct reclaim *rc, struct gpool *gp, uint32_t nr);
/* Evict idle blocks of all of @t's gpools until @bytes are freed; bytes freed. */
uint64_t reclaim_tenant(struct reclaim *rc, struct tenant *t, uint64_t bytes);

/*
 * One bounded turn of background work. True: there is more to do at once.
 * rc->retry_ns says when to come back otherwise.
 */
bool reclaim_turn(struct reclaim *rc, uint64_t now_ns);

/* enum kvmd_pressure of a space now. */
uint32_t reclaim_pressure(const struct space *sp);

/* Who holds what of @sp's group, in one line, for a refusal. */
void reclaim_report(const struct reclaim *rc, const struct gpool *gp, char *buf, size_t bytes);

/* drain.c: go on with draining slabs; true: found something to do. */
bool reclaim_drain_turn(struct reclaim *rc);
/* drain.c: @gp cannot grow and waits: have a slab of another space drained for it. */
void reclaim_take_slab(struct reclaim *rc, struct gpool *gp);
/* sweep.c: drop blocks of former epochs and expired ones; true: more at once. */
bool reclaim_sweep_turn(struct reclaim *rc);

#endif
