/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reclaim.c - reserve, evict, wait; the background turn.
 */
#include "kvmd/reclaim/reclaim.h"

#include <stdio.h>

#include "kvmd/lib/clock.h"
#include "kvmd/lib/probe.h"
#include "kvmd/lib/stats.h"
#include "kvmd/pool/policy.h"

#define DIRECT_MAX	1024	/* blocks an allocation evicts before it waits */
#define TURN_MAX	64	/* blocks background reclaim evicts in a turn */
#define RETRY_NS	100000000ull
#define THROTTLE_NS	1000000ull
#define WAIT_RETRY_NS	2000000ull	/* while somebody waits */
#define FORCE_NS	10000000ull	/* a wait for which chains below HBM are given up */

void reclaim_init(struct reclaim *rc, struct pool *p, struct index *ix,
		  const struct reclaim_events *ev)
{
	*rc = (struct reclaim) {
		.pool = p, .ix = ix, .events = ev, .sweep = 1, .throttle_ns = THROTTLE_NS,
	};
}

/* ----------------------------------------------------------------- evicting */

static bool expired(const struct pool *p, const struct block *b)
{
	return (b->flags & BLK_F_TTL) && (int32_t)(p->now - b->until) >= 0;
}

/* Drop the idle leaf @b from every tier. */
static void drop(struct reclaim *rc, struct block *b)
{
	bool over = expired(rc->pool, b);

	if (over)
		stat_inc(BLOCKS_DROPPED);
	else
		stat_inc(BLOCKS_EVICTED);
	index_evict(rc->ix, b, over ? KVMD_MISS_DROPPED : KVMD_MISS_EVICTED);
}

static uint32_t evict_drop(struct reclaim *rc, struct gpool *gp, uint32_t nr)
{
	uint32_t done = 0;

	while (done < nr) {
		struct block *b = gp->policy->ops->victim(gp->policy);

		if (!b)
			break;
		KVMD_PROBE3(evict, pool_id(rc->pool, b), gp->idx, b->last_use);
		drop(rc, b);
		done++;
	}
	return done;
}

/* Have the policy choose until @want blocks are on their way out. How many slots got free. */
static uint32_t choose_out(struct reclaim *rc, struct gpool *gp, uint32_t want)
{
	uint32_t freed = 0;

	while (gp->out.nr < want) {
		struct block *b = gp->policy->ops->victim(gp->policy);

		if (!b)
			break;
		KVMD_PROBE3(evict, pool_id(rc->pool, b), gp->idx, b->last_use);
		if (expired(rc->pool, b) && index_can_evict(rc->ix, b)) {
			drop(rc, b);
			freed++;
			want -= want > 0;
			continue;
		}
		index_out(rc->ix, gp, b);
	}
	return freed;
}

static uint32_t evict_sink(struct reclaim *rc, struct gpool *gp, uint32_t nr)
{
	uint32_t done = tiers_finish_out(rc->tiers, gp, nr);

	if (done < nr) {
		done += choose_out(rc, gp, nr - done);
		tiers_pump_clean(rc->tiers, gp);
		if (done < nr)
			done += tiers_finish_out(rc->tiers, gp, nr - done);
	}
	return done;
}

uint32_t reclaim_evict(struct reclaim *rc, struct gpool *gp, uint32_t nr)
{
	uint32_t done;

	if (gp->sp->hold)
		return 0;
	done = rc->tiers ? evict_sink(rc, gp, nr) : evict_drop(rc, gp, nr);
	rc->evicted |= done > 0 || (gp->out.nr && tiers_is_busy(rc->tiers));
	return done;
}

/* Copy down ahead of need what will be next to go, when the gpool is nearly full. */
static bool clean_ahead(struct reclaim *rc, struct gpool *gp)
{
	uint32_t ahead = (uint32_t)((uint64_t)gp->nr_slots * rc->tiers->o.clean_ahead / 1000);
	uint32_t before = gp->out.nr;

	if (gp->nr_free >= gp->wmark_high + ahead || gp->nr_coming || gp->out.nr >= ahead ||
	    slab_can_grow(rc->pool, gp))
		return false;
	(void)choose_out(rc, gp, min(ahead, gp->out.nr + TURN_MAX));
	tiers_pump_clean(rc->tiers, gp);
	return gp->out.nr > before;
}

uint64_t reclaim_tenant(struct reclaim *rc, struct tenant *t, uint64_t bytes)
{
	uint64_t freed = 0;

	for (uint32_t i = 0; i < rc->pool->space_end && freed < bytes; i++) {
		struct space *sp = &rc->pool->space[i];

		for (uint32_t g = 0; sp->in_use && sp->tenant == t && g < sp->nr_groups; g++) {
			struct gpool *gp = &sp->gp[g];
			uint64_t want = freed < bytes ? div_round_up(bytes - freed,
								     gp->slot_bytes) : 0;
			uint32_t n = reclaim_evict(rc, gp, (uint32_t)min(want,
						   (uint64_t)DIRECT_MAX));

			stat_add(RECLAIM_DIRECT, n);
			freed += n * gp->slot_bytes;
		}
	}
	return freed;
}

/* ---------------------------------------------------------------- reserving */

static bool guaranteed(const struct gpool *gp, uint32_t nr)
{
	const struct tenant *t = gp->sp->tenant;

	return t->hbm_bytes + nr * gp->slot_bytes <= t->hbm_min;
}

uint32_t reclaim_reserve_slots(const struct gpool *gp, uint32_t nr)
{
	return guaranteed(gp, nr) ? 0 : gp->wmark_min;
}

/* Has @t a block left that reclaim_tenant() could evict? */
static bool has_victim(const struct reclaim *rc, const struct tenant *t)
{
	for (uint32_t i = 0; i < rc->pool->space_end; i++) {
		const struct space *sp = &rc->pool->space[i];

		for (uint32_t g = 0; sp->in_use && sp->tenant == t && g < sp->nr_groups; g++)
			if (sp->gp[g].out.nr || sp->gp[g].policy->ops->victim(sp->gp[g].policy))
				return true;
	}
	return false;
}

/* Blocks of @t that nobody leases: no more than that can be evicted. */
static uint64_t idle_bytes(const struct reclaim *rc, const struct tenant *t)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < rc->pool->space_end; i++) {
		const struct space *sp = &rc->pool->space[i];

		for (uint32_t g = 0; sp->in_use && sp->tenant == t && g < sp->nr_groups; g++)
			bytes += (sp->gp[g].nr_idle + sp->gp[g].out.nr) * sp->gp[g].slot_bytes;
	}
	return bytes;
}

/* The tenant's max and high. 0, -EDQUOT, or -EAGAIN (throttled, or more to evict). */
static int check_limits(struct reclaim *rc, struct gpool *gp, uint32_t nr, const struct waiter *w)
{
	struct tenant *t = gp->sp->tenant;
	uint64_t need = nr * gp->slot_bytes, over;
	bool may;

	if (t->hbm_max && t->hbm_bytes + need > t->hbm_max) {
		over = t->hbm_bytes + need - t->hbm_max;
		/* What cannot be served is refused before it costs the tenant its cache. */
		may = over <= idle_bytes(rc, t);
		if (!may || reclaim_tenant(rc, t, over) < over) {
			if (may && has_victim(rc, t))
				return -EAGAIN;	/* a large one evicts a piece a turn */
			t->events_max++;
			stat_inc(TENANT_MAX_EVENTS);
			return -EDQUOT;
		}
	}
	if (t->hbm_high && t->hbm_bytes + need > t->hbm_high) {
		over = t->hbm_bytes + need - t->hbm_high;
		if (!w) {
			t->events_high++;
			stat_inc(TENANT_HIGH_EVENTS);
		}
		if (reclaim_tenant(rc, t, over) < over &&
		    (!w || clock_ns() - w->since_ns < rc->throttle_ns))
			return -EAGAIN;
	}
	return 0;
}

/* Start slabs until @want slots are free or coming. */
static void grow_for(struct reclaim *rc, struct gpool *gp, uint64_t want)
{
	while ((uint64_t)gp->nr_free + gp->nr_coming < want && slab_can_grow(rc->pool, gp))
		if (slab_grow(rc->pool, gp))
			break;
}

/*
 * There may be fewer records than slots. Evict for @nr of them: idle blocks of
 * @gp, then of all whose tenant is above its low.
 */
static void free_records(struct reclaim *rc, struct gpool *gp, uint32_t nr)
{
	struct pool *p = rc->pool;
	uint32_t n;

	n = reclaim_evict(rc, gp, min(nr - p->nr_free_blk, (uint32_t)DIRECT_MAX));
	for (uint32_t i = 0; i < rc->pool->space_end && p->nr_free_blk < nr; i++) {
		struct space *sp = &p->space[i];

		for (uint32_t g = 0; sp->in_use && g < sp->nr_groups; g++)
			if (p->nr_free_blk < nr && sp->tenant->hbm_bytes > sp->tenant->hbm_low)
				n += reclaim_evict(rc, &sp->gp[g], min(nr - p->nr_free_blk,
						   (uint32_t)DIRECT_MAX));
	}
	if (rc->tiers && p->nr_free_blk < nr)
		n += tiers_shed(rc->tiers, min(nr - p->nr_free_blk, (uint32_t)DIRECT_MAX));
	stat_add(RECLAIM_DIRECT, n);
}

/* @records: of all groups that are to be allocated in one; at least @nr. */
static int reserve(struct reclaim *rc, struct gpool *gp, uint32_t nr, uint32_t records,
		   const struct waiter *w)
{
	uint64_t want = (uint64_t)nr + reclaim_reserve_slots(gp, nr), sure;
	int err;

	if (want > gp->max_slots - 1 || records > rc->pool->nr_blocks)
		return -ENOMEM;
	err = check_limits(rc, gp, nr, w);
	if (err)
		return err;
	if (gp->nr_free < want) {
		grow_for(rc, gp, want);
		sure = (uint64_t)gp->nr_free + gp->nr_coming;
		if (sure < want)
			stat_add(RECLAIM_DIRECT, reclaim_evict(rc, gp,
				 (uint32_t)min(want - sure, (uint64_t)DIRECT_MAX)));
	}
	if (unlikely(records > rc->pool->nr_free_blk))
		free_records(rc, gp, records);
	if (gp->nr_free < want || records > rc->pool->nr_free_blk) {
		rc->kick |= !w;		/* who waits already is looked at by the clock */
		return -EAGAIN;
	}
	if (gp->nr_free - nr < gp->wmark_low)
		rc->kick = true;
	return 0;
}

int reclaim_reserve(struct reclaim *rc, struct gpool *gp, uint32_t nr, uint32_t records)
{
	if (gp->nr_waiters && nr <= gp->max_slots - 1)
		return -EAGAIN;		/* no overtaking */
	return reserve(rc, gp, nr, records, NULL);
}

/* ------------------------------------------------------------------ waiting */

void reclaim_wait(struct reclaim *rc, struct waiter *w)
{
	w->order = rc->next_order++;
	w->since_ns = clock_ns();
	w->waiting = true;
	list_add_tail(&w->link, &w->gp->waiters);
	w->gp->nr_waiters++;
	rc->nr_waiters++;
	rc->kick = true;
	stat_inc(ALLOC_WAITS);
}

void reclaim_unwait(struct reclaim *rc, struct waiter *w)
{
	if (!w->waiting)
		return;
	w->waiting = false;
	list_del(&w->link);
	w->gp->nr_waiters--;
	rc->nr_waiters--;
	rc->kick = true;
}

static void refuse(struct reclaim *rc, struct waiter *w, int err)
{
	reclaim_unwait(rc, w);
	rc->events->serve(w, err);
}

/* Serve @gp's waiters in order, as far as it goes. True: somebody was served. */
static bool serve_gpool(struct reclaim *rc, struct gpool *gp, uint64_t now_ns)
{
	bool served = false;

	while (gp->nr_waiters) {
		struct waiter *w = list_first(&gp->waiters, struct waiter, link);
		int err = reserve(rc, gp, w->nr, w->records, w);

		if (err == -EAGAIN && w->deadline_ns && now_ns >= w->deadline_ns)
			err = -ENOMEM;
		if (err == -EAGAIN)
			break;
		refuse(rc, w, err);
		served = true;
	}
	return served;
}

/* Deadlines of those behind the first. */
static void expire_waiters(struct reclaim *rc, struct gpool *gp, uint64_t now_ns)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &gp->waiters) {
		struct waiter *w = list_entry(pos, struct waiter, link);

		if (w->deadline_ns && now_ns >= w->deadline_ns)
			refuse(rc, w, -ENOMEM);
	}
}

static void break_deadlock(struct reclaim *rc, struct space *sp, uint64_t now_ns)
{
	struct waiter *youngest = NULL;

	if (!rc->events->deadlocked(rc, sp, now_ns))
		return;
	for (uint32_t g = 0; g < sp->nr_groups; g++) {
		struct list *pos;

		list_for_each(pos, &sp->gp[g].waiters) {
			struct waiter *w = list_entry(pos, struct waiter, link);

			if (!youngest || w->order > youngest->order)
				youngest = w;
		}
	}
	if (youngest) {
		stat_inc(ALLOC_DEADLOCKS);
		refuse(rc, youngest, -EDEADLK);
	}
}

/* --------------------------------------------------------------- background */

static bool background(struct reclaim *rc, struct gpool *gp)
{
	uint32_t n;

	/* Announced ahead of need, but not out of what is freed for somebody who waits. */
	if (gp->nr_free < gp->wmark_low && !gp->nr_coming && (!rc->nr_waiters || gp->nr_waiters) &&
	    slab_can_grow(rc->pool, gp))
		(void)slab_grow(rc->pool, gp);
	if (gp->nr_free < gp->wmark_low && !gp->nr_coming)
		gp->reclaiming = true;
	if (!gp->reclaiming || gp->nr_free >= gp->wmark_high) {
		gp->reclaiming = false;
		return false;
	}
	n = reclaim_evict(rc, gp, min((uint32_t)TURN_MAX, gp->wmark_high - gp->nr_free));
	stat_add(RECLAIM_BACKGROUND, n);
	if (!n && !gp->out.nr)
		gp->reclaiming = false;
	return n > 0;
}

static bool below_min(const struct space *sp)
{
	return sp->tenant->hbm_bytes < sp->tenant->hbm_min;
}

static bool serve_spaces(struct reclaim *rc, uint64_t now_ns, bool only_below_min)
{
	bool served = false;

	for (uint32_t i = 0; i < rc->pool->space_end && rc->nr_waiters; i++) {
		struct space *sp = &rc->pool->space[i];

		if (!sp->in_use || below_min(sp) != only_below_min)
			continue;
		for (uint32_t g = 0; g < sp->nr_groups; g++)
			served |= serve_gpool(rc, &sp->gp[g], now_ns);
	}
	return served;
}

/* Is memory what the first waiter of @gp waits for? It may be throttled. */
static bool lacks_slots(const struct gpool *gp)
{
	const struct waiter *w = list_first(&gp->waiters, struct waiter, link);

	return (uint64_t)w->nr + reclaim_reserve_slots(gp, w->nr) > gp->nr_free;
}

/*
 * Idle blocks that stay only because their descendants below would be lost: when
 * RAM takes no copy of them, whoever waits comes first.
 */
static bool force_out(struct reclaim *rc, struct gpool *gp, uint64_t now_ns)
{
	const struct waiter *w = list_first(&gp->waiters, struct waiter, link);
	uint64_t want = (uint64_t)w->nr + reclaim_reserve_slots(gp, w->nr);
	uint32_t nr;

	if (!rc->tiers || gp->sp->hold || gp->nr_coming || !lacks_slots(gp) ||
	    tiers_is_busy(rc->tiers) || now_ns < w->since_ns + FORCE_NS)
		return false;
	nr = (uint32_t)min(want - gp->nr_free, (uint64_t)DIRECT_MAX);
	(void)choose_out(rc, gp, nr);
	nr = tiers_force_out(rc->tiers, gp, nr);
	stat_add(RECLAIM_DIRECT, nr);
	rc->kick |= nr > 0;
	return nr > 0;
}

/* Nobody could be served from what is there. */
static void waiters_stuck(struct reclaim *rc, uint64_t now_ns)
{
	for (uint32_t i = 0; i < rc->pool->space_end && rc->nr_waiters; i++) {
		struct space *sp = &rc->pool->space[i];
		bool waits = false, forced = false;

		for (uint32_t g = 0; sp->in_use && g < sp->nr_groups; g++) {
			struct gpool *gp = &sp->gp[g];

			expire_waiters(rc, gp, now_ns);
			if (!gp->nr_waiters)
				continue;
			waits = true;
			if (!gp->nr_coming && lacks_slots(gp))
				reclaim_take_slab(rc, gp);
			forced |= gp->nr_waiters && force_out(rc, gp, now_ns);
		}
		if (waits && !forced)
			break_deadlock(rc, sp, now_ns);
	}
}

bool reclaim_turn(struct reclaim *rc, uint64_t now_ns)
{
	bool more = false;

	if (!rc->kick && !(rc->retry_ns && now_ns >= rc->retry_ns))
		return false;
	rc->kick = false;
	rc->retry_ns = 0;
	for (uint32_t i = 0; i < rc->pool->space_end; i++) {
		struct space *sp = &rc->pool->space[i];

		for (uint32_t g = 0; sp->in_use && g < sp->nr_groups; g++)
			more |= background(rc, &sp->gp[g]) ||
				(rc->tiers && clean_ahead(rc, &sp->gp[g]));
	}
	more |= reclaim_drain_turn(rc);
	more |= reclaim_sweep_turn(rc);
	if (rc->nr_waiters) {
		bool served;

		rc->evicted = false;
		served = serve_spaces(rc, now_ns, true);

		served |= serve_spaces(rc, now_ns, false);
		/* A large allocation evicts a piece a turn: that is no standstill. */
		served |= rc->evicted;
		if (!served && !more)
			waiters_stuck(rc, now_ns);
		more |= served;
	}
	if (rc->nr_waiters)
		rc->retry_ns = now_ns + WAIT_RETRY_NS;
	else if (rc->retry_ns)
		rc->retry_ns = now_ns + RETRY_NS;
	if (more)
		rc->kick = true;
	return more;
}

/* ------------------------------------------------------------------ reports */

/* Blocks that nobody leases: idle, or on their way down already. */
static uint32_t nr_unused(const struct gpool *gp)
{
	return gp->nr_idle + gp->out.nr;
}

/* Idle blocks may lie in slabs that drain, whose slots are not counted any more. */
static uint32_t nr_leased(const struct gpool *gp)
{
	uint32_t used = gp->nr_slots - gp->nr_free;

	return used > nr_unused(gp) ? used - nr_unused(gp) : 0;
}

uint32_t reclaim_pressure(const struct space *sp)
{
	uint32_t level = KVMD_PRESSURE_NONE;

	for (uint32_t g = 0; g < sp->nr_groups; g++) {
		const struct gpool *gp = &sp->gp[g];
		uint64_t leased = nr_leased(gp);

		if (gp->nr_waiters)
			return KVMD_PRESSURE_FULL;
		if (gp->nr_slots && leased * 10 >= (uint64_t)(gp->max_slots - 1) * 9)
			level = KVMD_PRESSURE_SOME;
	}
	return level;
}

void reclaim_report(const struct reclaim *rc, const struct gpool *gp, char *buf, size_t bytes)
{
	const struct tenant *t = gp->sp->tenant;

	snprintf(buf, bytes,
		 "space %s group %u: %u slots, %u free, %u idle, %u leased, %u coming, %u waiting; "
		 "tenant %s uses %llu bytes (max %llu); %u records free",
		 gp->sp->name, gp->idx, gp->nr_slots, gp->nr_free, nr_unused(gp),
		 nr_leased(gp), gp->nr_coming, gp->nr_waiters, t->name,
		 (unsigned long long)t->hbm_bytes, (unsigned long long)t->hbm_max,
		 rc->pool->nr_free_blk);
}
