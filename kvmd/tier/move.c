/* SPDX-License-Identifier: Apache-2.0 */
/*
 * move.c - the four moves, begun and ended.
 *
 * Each begins by taking a struct move, marking the record moving and charging
 * the place it will have; it ends in one of the *_done() below, which runs from
 * the tier's completion. See tiers.h for the order of things.
 */
#include "kvmd/tier/tiers.h"

#include <stdio.h>

#include "kvmd/lib/clock.h"
#include "kvmd/lib/fault.h"
#include "kvmd/lib/probe.h"
#include "kvmd/lib/stats.h"

/* ------------------------------------------------------------------- rates */

#define RATE_LOOK_NS	5000000ull	/* busy time between two looks */

static void rate_begin(struct rate *r, uint64_t bytes, uint64_t now)
{
	if (!r->inflight)
		r->since_ns = now;
	r->inflight += bytes;
}

static void rate_end(struct rate *r, uint64_t bytes, uint64_t now)
{
	r->bytes += bytes;
	r->busy_ns += now - r->since_ns;
	r->since_ns = now;
	r->inflight -= bytes;
	if (r->busy_ns < RATE_LOOK_NS)
		return;
	bytes = (uint64_t)((double)r->bytes * 1e9 / (double)r->busy_ns);
	r->bps = r->bps ? (r->bps * 3 + bytes) / 4 : bytes;
	r->bytes = r->busy_ns = 0;
}

static struct rate *rate_of(struct tiers *t, unsigned kind)
{
	switch (kind) {
	case MOVE_CLEAN:
	case MOVE_SWAP_OUT:
		return &t->out;
	case MOVE_STORE:
		return &t->store;
	case MOVE_FETCH:
		return &t->fetch;
	default:
		return &t->in;
	}
}

/* ------------------------------------------------------- places and charges */

static uint32_t ram_place_get(struct tiers *t, struct gpool *gp, struct block *b)
{
	struct tenant *tn = gp->sp->tenant;
	uint64_t bytes = tier_block_bytes(gp);
	uint32_t place;

	if (tn->ram_max && tn->ram_bytes + bytes > tn->ram_max) {
		stat_inc(CLEAN_REFUSED_TENANT);
		return 0;
	}
	place = t->ram->ops->alloc(t->ram, gp, pool_id(t->pool, b), bytes);
	if (!place && tiers_ram_room(t, gp))
		place = t->ram->ops->alloc(t->ram, gp, pool_id(t->pool, b), bytes);
	if (place && !t->free_move) {
		/* Making room began the last move there was. */
		t->ram->ops->free(t->ram, place);
		return 0;
	}
	if (place)
		tn->ram_bytes += bytes;
	else
		t->ram_short = true;
	return place;
}

static void ram_place_put(struct tiers *t, struct gpool *gp, uint32_t place)
{
	t->ram->ops->free(t->ram, place);
	gp->sp->tenant->ram_bytes -= tier_block_bytes(gp);
}

void tiers_drop_ram(struct tiers *t, struct block *b)
{
	enum blk_level from = block_level(b);
	struct gpool *gp = pool_gpool(t->pool, b);

	ram_place_put(t, gp, b->ram);
	b->ram = 0;
	index_place_gone(t->ix, b, from);
}

static void disk_place_put(struct tiers *t, struct gpool *gp, uint32_t place, bool for_good)
{
	if (for_good)
		disk_forget(t->disk, place);
	else
		t->disk->ops->free(t->disk, place);
	gp->sp->tenant->disk_bytes -= tier_block_bytes(gp);
}

/* pool_lower.drop: the record goes, or its bytes must. */
static void lower_drop(struct pool *p, struct block *b, bool for_good)
{
	struct tiers *t = p->lower_ctx;
	struct gpool *gp = pool_gpool(p, b);

	if (b->ram)
		ram_place_put(t, gp, b->ram);
	if (b->disk)
		disk_place_put(t, gp, b->disk, for_good);
	b->ram = b->disk = 0;
}

const struct pool_lower tiers_lower = { .drop = lower_drop };

/* ----------------------------------------------------------------- the moves */

static struct move *move_get(struct tiers *t, unsigned kind, struct gpool *gp, struct block *b)
{
	struct move *m = t->free_move;
	uint64_t bytes = tier_block_bytes(gp);

	t->free_move = m->next;
	t->nr_free_move--;
	*m = (struct move) {
		.t = t, .kind = (uint8_t)kind, .gp = gp, .block = pool_id(t->pool, b),
		.start_ns = t->now_ns,
	};
	m->req = (struct tier_req) {
		.block = m->block, .gp = gp, .slot = b->slot, .bytes = bytes, .buf = -1,
	};
	pool_set_moving(t->pool, b, true);
	rate_begin(rate_of(t, kind), bytes, clock_ns());
	return m;
}

static void move_put(struct move *m)
{
	struct tiers *t = m->t;

	rate_end(rate_of(t, m->kind), m->req.bytes, clock_ns());
	pool_set_moving(t->pool, pool_block(t->pool, m->block), false);
	m->block = 0;
	m->next = t->free_move;
	t->free_move = m;
	t->nr_free_move++;
}

/* Is there budget for @bytes more in @r's direction? One block always may. */
static bool may_start(const struct tiers *t, const struct rate *r, uint64_t bytes)
{
	return t->free_move && (!r->inflight || r->inflight + bytes <= t->o.copy_bytes);
}

static void warn(struct tiers *t, const struct move *m, const struct block *b, const char *what,
		 uint32_t place)
{
	char text[256];

	snprintf(text, sizeof(text), "space %s group %u block %u (position %u): %s at %s place %u: %s",
		 m->gp->sp->name, m->gp->idx, pool_id(t->pool, b), b->pos, what,
		 m->kind == MOVE_STORE || m->kind == MOVE_FETCH ? "disk" : "RAM", place,
		 m->req.err ? strerror(-m->req.err) : "");
	t->ev->warn(t->ev->ctx, text);
}

/* -------------------------------------------------------------------- clean */

static void clean_done(struct tier_req *r)
{
	struct move *m = container_of(r, struct move, req);
	struct tiers *t = m->t;
	struct block *b = pool_block(t->pool, m->block);
	int err = r->err;

	if (!err)
		fault_crash(CRASH_RAM);
	move_put(m);
	if (err) {
		stat_inc(MOVES_FAILED);
		ram_place_put(t, m->gp, r->place);
	} else {
		stat_inc(BLOCKS_CLEANED);
		stat_add(BYTES_CLEANED, r->bytes);
		b->ram = r->place;
	}
	t->freed = true;
}

int tiers_clean(struct tiers *t, struct gpool *gp, struct block *b)
{
	struct move *m;
	uint32_t place;

	if (!may_start(t, &t->out, tier_block_bytes(gp)) || pool_is_moving(t->pool, b))
		return -EAGAIN;
	if (!tiers_may_clean(t, b))
		return -EPERM;
	place = ram_place_get(t, gp, b);
	/* Making room may store others, and a parent of theirs, this block, is copied for it. */
	if (pool_is_moving(t->pool, b)) {
		if (place)
			ram_place_put(t, gp, place);
		return -EAGAIN;
	}
	if (!place)
		return t->free_move ? -ENOSPC : -EAGAIN;
	m = move_get(t, MOVE_CLEAN, gp, b);
	m->req.place = place;
	m->req.done = clean_done;
	tier_write(t->ram, &m->req);
	return 0;
}

/* -------------------------------------------------------------------- store */

static void store_done(struct tier_req *r)
{
	struct move *m = container_of(r, struct move, req);
	struct tiers *t = m->t;
	struct block *b = pool_block(t->pool, m->block);
	int err = r->err;

	move_put(m);
	ram_put(t->ram, b->ram);
	if (err) {
		stat_inc(MOVES_FAILED);
		disk_place_put(t, m->gp, r->place, false);
		if (err != -ECANCELED && err != -EAGAIN)
			warn(t, m, b, "not written", r->place);
	} else {
		stat_inc(BLOCKS_STORED);
		stat_add(BYTES_STORED, r->bytes);
		b->disk = r->place;
	}
	t->freed = true;
}

int tiers_store(struct tiers *t, struct gpool *gp, struct block *b)
{
	struct tenant *tn = gp->sp->tenant;
	uint64_t bytes = tier_block_bytes(gp);
	struct move *m;
	uint32_t place;

	if (!t->disk || t->disk->draining || t->disk->broken)
		return -EPERM;
	if (!may_start(t, &t->store, bytes) || pool_is_moving(t->pool, b))
		return -EAGAIN;
	if (tn->disk_max && tn->disk_bytes + bytes > tn->disk_max) {
		stat_inc(STORE_REFUSED_TENANT);
		return -EPERM;
	}
	place = t->disk->ops->alloc(t->disk, gp, pool_id(t->pool, b), bytes);
	if (!place && disk_room_soon(t->disk, gp, bytes))
		return -EAGAIN;
	if (!place) {
		stat_inc(STORE_REFUSED_FULL);
		return -ENOSPC;
	}
	tn->disk_bytes += bytes;
	m = move_get(t, MOVE_STORE, gp, b);
	m->req.place = place;
	m->req.mem = ram_mem(t->ram, b->ram);
	m->req.buf = ram_buf(t->ram, b->ram);
	m->req.sum = ram_sum(t->ram, b->ram);
	m->req.done = store_done;
	ram_hold(t->ram, b->ram);
	tier_write(t->disk, &m->req);
	return 0;
}

/* --------------------------------------------------------------------- load */

static void fetch_start(struct tiers *t, struct gpool *gp, struct block *b, uint32_t place,
			bool loading, bool again);

/* RAM has room to keep a second copy of what went up. */
static bool keep_in_ram(const struct tiers *t)
{
	return t->ram->used_bytes < t->ram->bytes / 10 * 9;
}

static void load_over(struct tiers *t, struct gpool *gp, struct block *b, bool fine)
{
	if (fine) {
		stat_inc(BLOCKS_LOADED);
		index_loaded(t->ix, gp, b);
		if (b->ram && !keep_in_ram(t))
			tiers_drop_ram(t, b);
	} else {
		stat_inc(LOADS_FAILED);
		/* What hangs from it is in HBM or on its way: it cannot stay below that. */
		if (b->nr_kids)
			lower_drop(t->pool, b, false);
		index_load_failed(t->ix, gp, b);
	}
	t->nr_done++;
	t->freed = true;
}

/*
 * RAM's bytes do not verify. What came from disk just now is fetched once more
 * and verified at once, so that the disk tier learns of it too; if that was done
 * and they are wrong all the same, it is RAM's fault and the load is over.
 */
static void load_bad(struct tiers *t, struct move *m, struct block *b)
{
	struct gpool *gp = m->gp;
	bool fetched = m->fetched, again = m->again;
	uint32_t place;

	stat_inc(CHECKSUM_ERRORS);
	warn(t, m, b, "checksum does not match", b->ram);
	if (!fetched || again)
		ram_blame(t->ram, b->ram);
	ram_place_put(t, gp, b->ram);
	b->ram = 0;
	place = b->disk && !again ? ram_place_get(t, gp, b) : 0;
	if (place)
		fetch_start(t, gp, b, place, true, fetched);
	else
		load_over(t, gp, b, false);
}

static void load_done(struct tier_req *r)
{
	struct move *m = container_of(r, struct move, req);
	struct tiers *t = m->t;
	struct block *b = pool_block(t->pool, m->block);
	int err = r->err;

	move_put(m);
	if (!err) {
		stat_add(BYTES_LOADED, r->bytes);
		load_over(t, m->gp, b, true);
		return;
	}
	stat_inc(MOVES_FAILED);
	if (err == -EBADMSG || err == -ENODATA)
		load_bad(t, m, b);
	else
		load_over(t, m->gp, b, false);	/* the copy failed: RAM keeps its bytes */
}

/* @fetch: whose bytes they are, NULL: RAM had them. */
static void load_start(struct tiers *t, struct gpool *gp, struct block *b, const struct move *fetch)
{
	bool fetched = fetch, again = fetch && fetch->again;
	struct move *m = move_get(t, MOVE_LOAD, gp, b);	/* may be the same */

	m->fetched = fetched;
	m->again = again;
	m->req.place = b->ram;
	m->req.urgent = true;
	m->req.done = load_done;
	tier_read(t->ram, &m->req);
}

/* -------------------------------------------------------------------- fetch */

/* RAM has it too now: a block of level disk rises. */
static void fetched_to_ram(struct tiers *t, struct gpool *gp, struct block *b, uint32_t place)
{
	enum blk_level from = block_level(b);
	bool idle = b->flags & BLK_F_IDLE;

	if (idle)
		index_busy(t->ix, gp, b);
	b->ram = place;
	index_relevel(t->ix, b, from);
	if (idle)
		index_idle(t->ix, gp, b);
}

static void fetch_bad(struct tiers *t, struct move *m, struct block *b)
{
	bool wrong = m->req.err == -EBADMSG || m->req.err == -ENODATA;

	ram_place_put(t, m->gp, m->ram);
	if (wrong)
		stat_inc(CHECKSUM_ERRORS);
	warn(t, m, b, wrong ? "checksum does not match" : "not read", b->disk);
	if (b->disk)
		disk_place_put(t, m->gp, b->disk, true);
	b->disk = 0;
	if (m->loading)
		load_over(t, m->gp, b, false);
	else
		index_place_gone(t->ix, b, LEVEL_DISK);	/* a load that is queued finds out */
}

/* May @b be in tier @to, as far as the block before it goes? */
static bool parent_allows(const struct tiers *t, const struct block *b, enum blk_level to)
{
	return !b->parent || block_level(pool_block(t->pool, b->parent)) >= to;
}

static void fetch_over(struct move *m)
{
	struct tiers *t = m->t;
	struct block *b = pool_block(t->pool, m->block);
	struct tier_req *r = &m->req;

	move_put(m);
	ram_put(t->ram, m->ram);
	if (r->err) {
		stat_inc(MOVES_FAILED);
		fetch_bad(t, m, b);
		return;
	}
	stat_inc(BLOCKS_FETCHED);
	stat_add(BYTES_FETCHED, r->bytes);
	ram_set_sum(t->ram, m->ram, r->sum);
	if (m->loading) {
		b->ram = m->ram;
		load_start(t, m->gp, b, m);
	} else if (b->slot || parent_allows(t, b, LEVEL_RAM)) {
		fetched_to_ram(t, m->gp, b, m->ram);
		t->nr_done++;
	} else {
		ram_place_put(t, m->gp, m->ram);	/* its parent does not come */
	}
}

/* A prefetch that is faster than its parent's waits for that. */
static bool is_early(const struct move *m)
{
	const struct tiers *t = m->t;
	const struct block *b = pool_block(t->pool, m->block);

	return !m->loading && !m->req.err && !b->slot && !parent_allows(t, b, LEVEL_RAM) &&
	       pool_is_moving(t->pool, pool_block(t->pool, b->parent));
}

static void fetch_done(struct tier_req *r)
{
	struct move *m = container_of(r, struct move, req), **at = &m->t->early;

	if (is_early(m)) {
		m->next = m->t->early;
		m->t->early = m;
		return;
	}
	fetch_over(m);
	while ((m = *at)) {
		if (is_early(m)) {
			at = &m->next;
			continue;
		}
		*at = m->next;
		fetch_over(m);
		at = &m->t->early;	/* its child may have waited for it */
	}
}

static void fetch_start(struct tiers *t, struct gpool *gp, struct block *b, uint32_t place,
			bool loading, bool again)
{
	struct move *m = move_get(t, MOVE_FETCH, gp, b);

	m->loading = loading;
	m->again = again;
	m->ram = place;
	m->req.place = b->disk;
	m->req.mem = ram_mem(t->ram, place);
	m->req.buf = ram_buf(t->ram, place);
	m->req.urgent = loading;
	m->req.verify = again || !loading;
	m->req.done = fetch_done;
	ram_hold(t->ram, place);
	tier_read(t->disk, &m->req);
}

/* -------------------------------------------------------------- what is queued */

void tiers_load(struct tiers *t, struct gpool *gp, struct block *b)
{
	uint64_t bytes = tier_block_bytes(gp);

	index_load(t->ix, gp, b);
	blklist_add_tail(t->pool->blk, &t->load_q, b);
	if (b->ram)
		t->load_q_ram += bytes;
	else
		t->load_q_disk += bytes;
}

static void unqueue(struct tiers *t, struct block *b, uint64_t bytes)
{
	blklist_del(t->pool->blk, &t->load_q, b);
	if (b->ram || !t->load_q_disk)
		t->load_q_ram -= min(t->load_q_ram, bytes);
	else
		t->load_q_disk -= min(t->load_q_disk, bytes);
	if (!t->load_q.nr)
		t->load_q_ram = t->load_q_disk = 0;
}

/* Begin the first of the queue: false: not now. */
static bool start_load(struct tiers *t, struct block *b)
{
	struct gpool *gp = pool_gpool(t->pool, b);
	uint64_t bytes = tier_block_bytes(gp);
	uint32_t place;

	if (pool_is_moving(t->pool, b))
		return false;		/* a prefetch or a store of it ends first */
	if (b->ram) {
		if (!may_start(t, &t->in, bytes))
			return false;
		unqueue(t, b, bytes);
		load_start(t, gp, b, NULL);
		return true;
	}
	if (!b->disk) {			/* lost while it waited */
		unqueue(t, b, bytes);
		load_over(t, gp, b, false);
		return true;
	}
	if (!may_start(t, &t->fetch, bytes))
		return false;
	place = ram_place_get(t, gp, b);
	if (!place) {
		/* Nothing in RAM can go, nothing is under way that frees any, and no more comes. */
		if (t->nr_free_move != NR_MOVES || ram_is_growing(t->ram))
			return false;
		unqueue(t, b, bytes);
		load_over(t, gp, b, false);
		return true;
	}
	unqueue(t, b, bytes);
	fetch_start(t, gp, b, place, true, false);
	return true;
}

bool tiers_prefetch(struct tiers *t, const struct block *b)
{
	if (t->prefetch_tail - t->prefetch_head == NR_PREFETCH)
		return false;
	t->prefetch[t->prefetch_tail++ % NR_PREFETCH] = (uint64_t)b->gen << 32 |
							 pool_id(t->pool, b);
	return true;
}

/* The oldest hint; false: it has to wait. */
static bool start_prefetch(struct tiers *t)
{
	uint64_t hint = t->prefetch[t->prefetch_head % NR_PREFETCH];
	struct block *b = pool_block(t->pool, (uint32_t)hint);
	struct gpool *gp;
	uint32_t place;

	if (b->gen != (uint32_t)(hint >> 32) || b->state != BLK_SEALED || b->slot ||
	    pool_is_moving(t->pool, b)) {
		t->prefetch_head++;
		return true;
	}
	gp = pool_gpool(t->pool, b);
	if (!may_start(t, b->ram ? &t->in : &t->fetch, tier_block_bytes(gp)))
		return false;
	t->prefetch_head++;
	/* Never above the block before it: a chain comes up from its root. */
	if (gp->nr_free > gp->wmark_high && parent_allows(t, b, LEVEL_HBM)) {
		tiers_load(t, gp, b);
		return start_load(t, b);
	}
	if (b->ram || !(parent_allows(t, b, LEVEL_RAM) ||
			pool_is_moving(t->pool, pool_block(t->pool, b->parent))))
		return true;
	place = ram_place_get(t, gp, b);
	if (place)
		fetch_start(t, gp, b, place, false, false);
	return true;
}

bool tiers_pump_loads(struct tiers *t)
{
	bool did = false;

	while (t->load_q.nr && start_load(t, pool_block(t->pool, t->load_q.head)))
		did = true;
	while (!t->load_q.nr && t->prefetch_head != t->prefetch_tail && start_prefetch(t))
		did = true;
	return did;
}

uint32_t tiers_planes(const struct tiers *t, uint32_t block)
{
	for (unsigned i = 0; i < NR_MOVES; i++)
		if (t->move[i].block == block && t->move[i].kind == MOVE_LOAD &&
		    pool_is_moving(t->pool, pool_block(t->pool, block)))
			return t->move[i].req.planes;
	return 0;
}

/* --------------------------------------------------------------------- swaps */

static void swap_done(struct tier_req *r)
{
	struct move *m = container_of(r, struct move, req);
	struct tiers *t = m->t;
	struct block *b = pool_block(t->pool, m->block);
	bool out = m->kind == MOVE_SWAP_OUT;

	move_put(m);
	if (r->err)
		stat_inc(MOVES_FAILED);
	if (out && !r->err)
		b->ram = r->place;
	else if (out || !r->err)
		ram_place_put(t, m->gp, r->place);
	if (!out && !r->err)
		b->ram = 0;
	t->nr_done++;
	t->freed = true;
	m->wait->done(m->wait, b, r->err);
}

int tiers_swap_out(struct tiers *t, struct gpool *gp, struct block *b, struct swap_wait *w)
{
	struct move *m;
	uint32_t place;

	if (!may_start(t, &t->out, tier_block_bytes(gp)) || pool_is_moving(t->pool, b))
		return -EAGAIN;
	place = ram_place_get(t, gp, b);
	/* As in tiers_clean(): making room may have begun to copy this very block. */
	if (pool_is_moving(t->pool, b)) {
		if (place)
			ram_place_put(t, gp, place);
		return -EAGAIN;
	}
	if (!place)
		return t->free_move ? -ENOSPC : -EAGAIN;
	m = move_get(t, MOVE_SWAP_OUT, gp, b);
	m->wait = w;
	m->req.place = place;
	m->req.urgent = true;
	m->req.done = swap_done;
	tier_write(t->ram, &m->req);
	return 0;
}

int tiers_swap_in(struct tiers *t, struct gpool *gp, struct block *b, struct swap_wait *w)
{
	struct move *m;

	if (!may_start(t, &t->in, tier_block_bytes(gp)) || pool_is_moving(t->pool, b))
		return -EAGAIN;
	m = move_get(t, MOVE_SWAP_IN, gp, b);
	m->wait = w;
	m->req.place = b->ram;
	m->req.urgent = true;
	m->req.done = swap_done;
	tier_read(t->ram, &m->req);
	return 0;
}
