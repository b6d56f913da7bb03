/* SPDX-License-Identifier: Apache-2.0 */
/*
 * load.c - what comes up: loads that somebody waits for, then prefetches.
 *
 * A block that only disk has is fetched to RAM first. Its bytes are verified on
 * their way to HBM, or, when nobody waits for them, when they are in RAM. Core
 * thread only.
 */
#include "kvmd/tier/move.h"

#include "kvmd/lib/stats.h"

/* --------------------------------------------------------------------- load */

static void fetch_start(struct tiers *t, struct gpool *gp, struct block *b, uint32_t place,
			bool loading, bool again);

/* RAM has room to keep a second copy of what went up. */
static bool keep_in_ram(const struct tiers *t)
{
	return t->ram->used_bytes < t->ram->bytes / 10 * 9;
}

/* Without this copy the next one would be plain, and larger: it is worth its place. */
static bool is_only_coded(const struct block *b)
{
	return b->ram_coded && b->uncoded && !b->disk;
}

static void load_ended(struct tiers *t, bool fine)
{
	if (fine)
		stat_inc(BLOCKS_LOADED);
	else
		stat_inc(LOADS_FAILED);
	t->nr_done++;
	t->freed = true;
}

static void load_over(struct tiers *t, struct gpool *gp, struct block *b, bool fine)
{
	if (fine) {
		index_loaded(t->ix, gp, b);
		if (b->ram && !keep_in_ram(t) && !is_only_coded(b))
			tiers_drop_ram(t, b);
	} else {
		/* What hangs from it is in HBM or on its way: it cannot stay below that. */
		if (b->nr_kids)
			t->pool->lower->drop(t->pool, b, false);
		index_load_failed(t->ix, gp, b);
	}
	load_ended(t, fine);
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
	tiers_warn(t, m, b, "checksum does not match", b->ram);
	if (!fetched || again)
		ram_blame(t->ram, b->ram);
	tiers_ram_put(t, gp, b->ram, b->ram_coded);
	b->ram = 0;
	place = b->disk && !again ? tiers_ram_get(t, gp, b, b->disk_coded) : 0;
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

	tiers_move_put(m);
	if (!err) {
		stat_add(BYTES_LOADED, r->bytes);
		if (r->coded && tier_is_lossy(m->gp))
			b->uncoded = 1;
		load_over(t, m->gp, b, true);
		return;
	}
	stat_inc(MOVES_FAILED);
	if (err == -EBADMSG || err == -ENODATA) {
		load_bad(t, m, b);
	} else if (err == -EHWPOISON) {
		tiers_poisoned(t, m, b);
		load_ended(t, false);
	} else {
		load_over(t, m->gp, b, false);	/* the copy failed: RAM keeps its bytes */
	}
}

/* @fetch: whose bytes they are, NULL: RAM had them. */
static void load_start(struct tiers *t, struct gpool *gp, struct block *b, const struct move *fetch)
{
	bool fetched = fetch, again = fetch && fetch->again;
	struct move *m = tiers_move_get(t, MOVE_LOAD, gp, b);	/* may be the same */

	m->fetched = fetched;
	m->again = again;
	m->req.place = b->ram;
	m->req.urgent = true;
	m->req.done = load_done;
	tier_read(t->ram, &m->req);
}

/* -------------------------------------------------------------------- fetch */

/* RAM has it too now: a block of level disk rises. */
static void fetched_to_ram(struct tiers *t, const struct move *m, struct block *b)
{
	struct gpool *gp = m->gp;
	enum blk_level from = block_level(b);
	bool idle = b->flags & BLK_F_IDLE;

	if (idle)
		index_busy(t->ix, gp, b);
	b->ram_coded = m->req.coded;
	b->ram = m->ram;
	index_relevel(t->ix, b, from);
	if (idle)
		index_idle(t->ix, gp, b);
}

static void fetch_bad(struct tiers *t, struct move *m, struct block *b)
{
	bool wrong = m->req.err == -EBADMSG || m->req.err == -ENODATA;

	tiers_ram_put(t, m->gp, m->ram, m->req.coded);
	if (wrong)
		stat_inc(CHECKSUM_ERRORS);
	tiers_warn(t, m, b, wrong ? "checksum does not match" : "not read", b->disk);
	if (b->disk)
		tiers_disk_put(t, m->gp, b->disk, b->disk_coded, true);
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

	tiers_move_put(m);
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
		b->ram_coded = r->coded;
		b->ram = m->ram;
		load_start(t, m->gp, b, m);
	} else if (b->slot || parent_allows(t, b, LEVEL_RAM)) {
		fetched_to_ram(t, m, b);
		t->nr_done++;
	} else {
		tiers_ram_put(t, m->gp, m->ram, r->coded);	/* its parent does not come */
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
	struct move *m = tiers_move_get(t, MOVE_FETCH, gp, b);

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

/* Of the copy that it would be loaded from. */
static uint64_t load_bytes(const struct gpool *gp, const struct block *b)
{
	return b->ram ? tier_ram_bytes(gp, b) : tier_disk_bytes(gp, b);
}

void tiers_load(struct tiers *t, struct gpool *gp, struct block *b)
{
	uint64_t bytes = load_bytes(gp, b);

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
	uint64_t bytes = load_bytes(gp, b);
	uint32_t place;

	if (pool_is_moving(t->pool, b))
		return false;		/* a prefetch or a store of it ends first */
	if (b->ram) {
		if (!tiers_may_start(t, MOVE_LOAD, gp, b))
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
	if (!tiers_may_start(t, MOVE_FETCH, gp, b))
		return false;
	place = tiers_ram_get(t, gp, b, b->disk_coded);
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
	if (!tiers_may_start(t, b->ram ? MOVE_LOAD : MOVE_FETCH, gp, b))
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
	place = tiers_ram_get(t, gp, b, b->disk_coded);
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
