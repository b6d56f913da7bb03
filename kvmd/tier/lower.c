/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lower.c - what leaves HBM and RAM, and in which order.
 *
 * HBM's policy chooses; its choices wait on the gpool's out queue until their
 * copy in RAM is there and go in that order. RAM itself goes least recently used
 * first, leaves before their parents. Of what RAM chooses, blocks with a second
 * use (tiers_opts.admission) or with descendants on disk are stored first,
 * together with those parents that are not on disk yet; others are dropped.
 */
#include "kvmd/tier/move.h"

#include "kvmd/lib/stats.h"

#define ROOM_TRIES	32	/* blocks looked at to make room for one */
#define ROOM_FREE	4	/* and freed at most */
#define CHAIN_MAX	128	/* parents stored for one block in a turn */
#define WALK_MAX	16384	/* parents walked in a turn */
#define OUT_TURN	64	/* blocks of ram_out looked at in a turn */
#define OUT_MAX		512	/* blocks that wait for their store to leave RAM */
#define AHEAD_TURN	32	/* blocks looked at for storing ahead */
#define FULL_NS		100000000ull	/* between two tries to store ahead on a full disk */
#define DUP_TURN	512	/* records looked at for second copies */
#define RAM_LOW		950	/* permille in use: from there on RAM is cleared ahead */

/* -------------------------------------------------------------- out of HBM */

static bool is_expired(const struct pool *p, const struct block *b)
{
	return (b->flags & BLK_F_TTL) && (int32_t)(p->now - b->until) >= 0;
}

bool tiers_may_clean(const struct tiers *t, const struct block *b)
{
	const struct pool *p = t->pool;
	const struct space *sp = p->sid[b->sid].sp;

	if (t->ram->draining || t->ram->broken)
		return false;
	if ((b->flags & BLK_F_NO_STORE) || b->sid != sp->sid || is_expired(p, b))
		return false;
	return !b->parent || !(pool_block(p, b->parent)->flags & BLK_F_NO_STORE);
}

void tiers_pump_clean(struct tiers *t, struct gpool *gp)
{
	while (gp->out_next) {
		struct block *b = pool_block(t->pool, gp->out_next);

		if (!b->ram && !pool_is_moving(t->pool, b)) {
			int err = tiers_clean(t, gp, b);

			if (err == -EAGAIN)
				return;
			if (err == -ENOSPC)
				stat_inc(CLEAN_REFUSED_FULL);
			else if (err == -EPERM)
				stat_inc(CLEAN_REFUSED_ADVICE);
		}
		gp->out_next = b->next;
	}
}

bool tiers_may_stay(const struct tiers *t, const struct block *b)
{
	bool hbm = b->slot;

	while (b->parent) {
		b = pool_block(t->pool, b->parent);
		if (hbm ? !b->slot : !(b->slot | b->ram))
			return false;
		if (b->state != BLK_EVICTING || (!hbm && b->slot))
			break;
	}
	return true;
}

void tiers_stay(struct tiers *t, struct gpool *gp, struct block *b)
{
	bool hbm = b->slot;

	do {
		index_revive(t->ix, gp, b);
		index_idle(t->ix, gp, b);
		b = pool_block(t->pool, b->parent);
	} while (b->state == BLK_EVICTING && (hbm || !b->slot));	/* record 0 is free */
}

/* The head of the out queue has no copy below and will get none. */
static bool drop_or_keep(struct tiers *t, struct gpool *gp, struct block *b)
{
	if (index_can_evict(t->ix, b)) {
		stat_inc(BLOCKS_EVICTED);
		index_evict(t->ix, b, is_expired(t->pool, b) ? KVMD_MISS_DROPPED :
			    KVMD_MISS_EVICTED);
		return true;
	}
	if (!tiers_may_clean(t, b)) {
		/* It may never be stored: what hangs from it below is lost with it. */
		stat_inc(BLOCKS_EVICTED);
		index_lose(t->ix, gp, b);
		return true;
	}
	/* What hangs from it below would be lost: it stays, and comes again later. */
	if (!tiers_may_stay(t, b)) {
		/* A parent went before it: it has to follow, when RAM has room. */
		if (gp->out_next == gp->out.head)
			gp->out_next = b->next;
		tiers_to_tail(t, &gp->out, b);
		if (!gp->out_next)
			gp->out_next = pool_id(t->pool, b);
		return false;
	}
	tiers_stay(t, gp, b);
	return false;
}

/* @b came to RAM: remember it for store_ahead(); the oldest is forgotten when too many are. */
static void note_arrival(struct tiers *t, const struct block *b)
{
	if (!t->disk || b->disk)
		return;
	if (t->arrived_tail - t->arrived_head == NR_ARRIVED)
		t->arrived_head++;
	t->arrived[t->arrived_tail++ % NR_ARRIVED] = (uint64_t)b->gen << 32 | pool_id(t->pool, b);
}

uint32_t tiers_finish_out(struct tiers *t, struct gpool *gp, uint32_t nr)
{
	uint32_t freed = 0, kept = 0;

	while (freed < nr && gp->out.nr && kept < nr) {
		struct block *b = pool_block(t->pool, gp->out.head);
		/* A child that was to go first may have stayed. */
		bool below = (b->ram || b->disk) &&
			     block_may_sink(b, b->ram ? LEVEL_RAM : LEVEL_DISK);

		if (pool_is_moving(t->pool, b))
			break;
		if (below) {
			stat_inc(BLOCKS_EVICTED);
			stat_inc(BLOCKS_SUNK_RAM);
			index_sink(t->ix, gp, b);
			note_arrival(t, b);
			freed++;
			continue;
		}
		if (gp->out_next == gp->out.head) {
			tiers_pump_clean(t, gp);
			if (pool_is_moving(t->pool, b) || gp->out_next == gp->out.head)
				break;	/* on its way, or it has to wait for others */
		}
		if (drop_or_keep(t, gp, b))
			freed++;
		else
			kept++;
	}
	return freed;
}

uint32_t tiers_force_out(struct tiers *t, struct gpool *gp, uint32_t nr)
{
	uint32_t freed = 0;

	while (freed < nr && gp->out.nr) {
		struct block *b = pool_block(t->pool, gp->out.head);

		if (pool_is_moving(t->pool, b))
			break;
		stat_inc(BLOCKS_EVICTED);
		index_lose(t->ix, gp, b);
		freed++;
	}
	return freed;
}

/* -------------------------------------------------------------- out of RAM */

static bool disk_takes(const struct tiers *t)
{
	return t->disk && !t->disk->draining && !t->disk->broken;
}

static bool admitted(const struct tiers *t, const struct block *b)
{
	if (!disk_takes(t))
		return false;
	return b->uses + 1u >= t->o.admission || b->nr_kids_disk;
}

/*
 * The topmost parents of @b that are not on disk, @b itself the last: at most
 * CHAIN_MAX of them, topmost first. *ret_all: these are all there are.
 */
static uint32_t missing_chain(struct tiers *t, struct block *b, struct block **chain, bool *ret_all)
{
	struct block *ring[CHAIN_MAX];
	uint32_t nr = 0, top;

	for (struct block *up = b; !up->disk && nr < WALK_MAX;
	     up = pool_block(t->pool, up->parent)) {
		ring[nr++ % CHAIN_MAX] = up;
		if (!up->parent)
			break;
	}
	t->steps += nr;
	top = min(nr, (uint32_t)CHAIN_MAX);
	for (uint32_t i = 0; i < top; i++)
		chain[i] = ring[(nr - 1 - i) % CHAIN_MAX];
	*ret_all = nr <= CHAIN_MAX;
	return top;
}

/*
 * RAM may be full of blocks that wait for this one, which waits for RAM: when
 * nothing is under way that would free some, one of them has to be let go.
 */
static int clean_for_store(struct tiers *t, struct gpool *gp, struct block *up)
{
	int err = tiers_clean(t, gp, up);

	return err == -EPERM || (err == -ENOSPC && t->nr_free_move == NR_MOVES) ? err : -EAGAIN;
}

/*
 * Store @b, its parents first, from the root down. 0: its own store has begun;
 * -EAGAIN: later; else it cannot be.
 */
static int store_chain(struct tiers *t, struct gpool *gp, struct block *b)
{
	struct block *chain[CHAIN_MAX];
	bool all;
	uint32_t nr;
	int err = 0;

	if (t->steps > WALK_MAX)
		return -EAGAIN;
	nr = missing_chain(t, b, chain, &all);
	for (uint32_t i = 0; i < nr && !err; i++) {
		struct block *up = chain[i];

		if (pool_is_moving(t->pool, up))
			continue;
		if (up->ram)
			err = tiers_store(t, gp, up);
		else if (up->state == BLK_SEALED || up->state == BLK_EVICTING)
			/* Only in HBM: to RAM first, its store next time. */
			err = clean_for_store(t, gp, up);
		else
			err = -EAGAIN;	/* on its way up */
	}
	return err ? err : all ? 0 : -EAGAIN;
}

/* @b leaves RAM now: disk has it, or nobody. */
static void leave_ram(struct tiers *t, struct gpool *gp, struct block *b)
{
	if (b->disk) {
		tiers_ram_put(t, gp, b->ram, b->ram_coded);
		if (b->state == BLK_SEALED)
			index_out(t->ix, gp, b);
		index_sink(t->ix, gp, b);
		stat_inc(BLOCKS_SUNK_DISK);
		return;
	}
	stat_inc(BLOCKS_DROPPED_RAM);
	index_evict(t->ix, b, is_expired(t->pool, b) ? KVMD_MISS_DROPPED : KVMD_MISS_EVICTED);
}

bool tiers_send_off(struct tiers *t, struct block *b)
{
	struct gpool *gp = pool_gpool(t->pool, b);

	if (pool_is_moving(t->pool, b))
		return false;
	if (!b->disk && block_may_sink(b, LEVEL_NONE)) {
		if (!admitted(t, b)) {
			if (t->disk)
				stat_inc(STORE_REFUSED_ADMISSION);
			leave_ram(t, gp, b);
			return true;
		}
		if (t->ix->ram_out.nr >= OUT_MAX) {
			stat_inc(STORE_REFUSED_FULL);
			leave_ram(t, gp, b);
			return true;
		}
	}
	/* Children that are still to leave are in the queue: it goes behind them. */
	if (b->disk && !(b->nr_kids_disk && t->ix->ram_out.nr)) {
		leave_ram(t, gp, b);
		return true;
	}
	index_out(t->ix, gp, b);
	return false;
}

/*
 * Blocks whose store is over leave RAM; stores that could not begin do. In the
 * order of the queue, so that none leaves before a child of it has.
 */
static bool ram_out_turn(struct tiers *t)
{
	uint32_t id = t->ix->ram_out.head, next;
	bool did = false, held = false;

	t->in_out = true;
	for (uint32_t i = 0; id && i < OUT_TURN; i++, id = next) {
		struct block *b = pool_block(t->pool, id);
		struct gpool *gp = pool_gpool(t->pool, b);
		int err = 0;

		next = b->next;
		if (pool_is_moving(t->pool, b)) {
			held = true;
			continue;
		}
		if (!b->disk && !b->nr_kids_ram)
			err = store_chain(t, gp, b);
		if (b->nr_kids_ram || (err && err != -EAGAIN && !index_can_evict(t->ix, b))) {
			/* A child came back, or what hangs from it would be lost: it stays. */
			held = true;
			if (tiers_may_stay(t, b)) {
				tiers_stay(t, gp, b);
				next = t->ix->ram_out.head;	/* its parents left the queue too */
			}
		} else if (err == -EAGAIN) {
			break;		/* the budget is used up: later ones wait too */
		} else if ((b->disk || err) && !held) {
			leave_ram(t, gp, b);
			t->freed = did = true;
		} else {
			held = true;
		}
	}
	t->in_out = false;
	return did;
}

/* A copy in RAM of a block that HBM has and somebody uses: the cheapest to lose. */
static bool drop_dup(struct tiers *t)
{
	struct pool *p = t->pool;

	for (uint32_t i = 0; i < DUP_TURN; i++) {
		struct block *b;

		if (++t->dup_scan >= p->next_fresh)
			t->dup_scan = 1;
		b = pool_block(p, t->dup_scan);
		if (b->state != BLK_SEALED || !b->slot || !b->ram || pool_is_moving(p, b))
			continue;
		tiers_drop_ram(t, b);
		return true;
	}
	return false;
}

/* Another class of sizes has all the memory: empty one of its chunks. */
static bool take_chunk(struct tiers *t, uint64_t bytes)
{
	bool freed = false;

	for (uint32_t i = 0; i < ROOM_TRIES; i++) {
		uint32_t id = ram_steal(t->ram, bytes);
		struct block *b = pool_block(t->pool, id);

		if (!id)
			break;
		if (pool_is_moving(t->pool, b) || b->state != BLK_SEALED)
			break;
		if (b->slot)
			tiers_drop_ram(t, b);
		else if (!b->leases && !b->nr_kids_ram)
			tiers_send_off(t, b);
		else
			break;
		freed = true;
	}
	return freed;
}

bool tiers_ram_room(struct tiers *t, uint64_t bytes)
{
	struct blklist *l = &t->ix->low[LEVEL_RAM];
	uint32_t freed = 0;

	for (uint32_t i = 0; i < ROOM_TRIES && l->nr && freed < ROOM_FREE; i++) {
		struct block *b = pool_block(t->pool, l->head);
		uint64_t has = tier_ram_bytes(pool_gpool(t->pool, b), b);

		if (b->nr_kids_ram || pool_is_moving(t->pool, b)) {
			/* Its children go first: they are behind it. */
			tiers_to_tail(t, l, b);
			continue;
		}
		/* Memory of another size is no use: one may go, for a chunk to get empty. */
		freed += tiers_send_off(t, b) && has == bytes;
	}
	/* A store may ask for room itself, for a parent that is only in HBM. */
	if (t->ix->ram_out.nr && !t->in_out)
		ram_out_turn(t);
	return freed || drop_dup(t) || take_chunk(t, bytes);
}

/* ------------------------------------------------------------- ahead of need */

/*
 * Store what came to RAM, in that order, while the disk has nothing better to do:
 * leaving RAM is free then, and a restart finds it.
 */
static bool store_ahead(struct tiers *t)
{
	bool did = false;

	if (!disk_takes(t) || t->fetch.inflight || t->load_q.nr || t->now_ns < t->ahead_ns)
		return false;
	for (uint32_t i = 0; i < AHEAD_TURN && t->arrived_head != t->arrived_tail; i++) {
		uint64_t it = t->arrived[t->arrived_head % NR_ARRIVED];
		struct block *b = pool_block(t->pool, (uint32_t)it);
		int err = 0;

		if (b->gen == (uint32_t)(it >> 32) && b->state == BLK_SEALED && b->ram &&
		    !b->disk && admitted(t, b))
			err = store_chain(t, pool_gpool(t->pool, b), b);
		if (err == -ENOSPC)
			t->ahead_ns = t->now_ns + FULL_NS;	/* recovering, or full: later */
		if (err == -EAGAIN || err == -ENOSPC)
			break;
		t->arrived_head++;
		did = true;
	}
	return did;
}

static bool ram_is_full(const struct tiers *t)
{
	return t->ram->used_bytes >= t->ram->bytes / 1000 * RAM_LOW;
}

bool tiers_lower_turn(struct tiers *t)
{
	bool did = false;

	t->steps = 0;
	if (t->ix->ram_out.nr)
		did |= ram_out_turn(t);
	if (t->ram_short || ram_is_full(t)) {
		struct block *b = pool_block(t->pool, t->ix->low[LEVEL_RAM].head);

		t->ram_short = false;
		if (t->ix->low[LEVEL_RAM].nr && t->ix->ram_out.nr < OUT_TURN)
			did |= tiers_ram_room(t, tier_ram_bytes(pool_gpool(t->pool, b), b));
	}
	did |= store_ahead(t);
	did |= tiers_drain_ram(t);
	did |= tiers_drain_disk(t);
	return did;
}

uint32_t tiers_shed(struct tiers *t, uint32_t nr)
{
	uint32_t done = 0;

	for (int l = LEVEL_DISK; l <= LEVEL_RAM; l++) {
		struct blklist *q = &t->ix->low[l];

		for (uint32_t i = 0; i < nr * 4 && q->nr && done < nr; i++) {
			struct block *b = pool_block(t->pool, q->head);

			if (index_can_evict(t->ix, b)) {
				index_evict(t->ix, b, KVMD_MISS_EVICTED);
				done++;
				continue;
			}
			tiers_to_tail(t, q, b);
		}
	}
	return done;
}
