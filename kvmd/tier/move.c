/* SPDX-License-Identifier: Apache-2.0 */
/*
 * move.c - what all moves share, and those that somebody else decides to begin:
 * clean, store, swap.
 *
 * Each begins by taking a struct move, marking the record moving and charging
 * the place it will have; it ends in one of the *_done() below, which runs from
 * the tier's completion. See tiers.h for the order of things, load.c for what
 * comes up.
 */
#include "kvmd/tier/move.h"

#include <stdio.h>

#include "kvmd/lib/fault.h"
#include "kvmd/lib/stats.h"

#define SAMPLE_NS	5000000ull	/* of busy time */
#define SAMPLE_PARTS	4u		/* ... of which the new one is one */

static struct meter *meter_of(struct tiers *t, unsigned kind)
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

uint32_t tiers_ram_get(struct tiers *t, struct gpool *gp, struct block *b, bool coded)
{
	struct tenant *tn = gp->sp->tenant;
	uint64_t bytes = tier_copy_bytes(gp, coded);
	uint32_t place;

	if (tn->ram_max && tn->ram_bytes + bytes > tn->ram_max) {
		stat_inc(CLEAN_REFUSED_TENANT);
		return 0;
	}
	place = t->ram->ops->alloc(t->ram, gp, pool_id(t->pool, b), bytes);
	if (!place && tiers_ram_room(t, bytes))
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

void tiers_ram_put(struct tiers *t, struct gpool *gp, uint32_t place, bool coded)
{
	t->ram->ops->free(t->ram, place);
	gp->sp->tenant->ram_bytes -= tier_copy_bytes(gp, coded);
}

void tiers_drop_ram(struct tiers *t, struct block *b)
{
	enum blk_level from = block_level(b);
	struct gpool *gp = pool_gpool(t->pool, b);

	tiers_ram_put(t, gp, b->ram, b->ram_coded);
	b->ram = 0;
	index_place_gone(t->ix, b, from);
}

void tiers_disk_put(struct tiers *t, struct gpool *gp, uint32_t place, bool coded, bool for_good)
{
	if (for_good)
		disk_forget(t->disk, place);
	else
		t->disk->ops->free(t->disk, place);
	gp->sp->tenant->disk_bytes -= tier_copy_bytes(gp, coded);
}

/* pool_lower.drop: the record goes, or its bytes must. */
static void lower_drop(struct pool *p, struct block *b, bool for_good)
{
	struct tiers *t = p->lower_ctx;
	struct gpool *gp = pool_gpool(p, b);

	if (b->ram)
		tiers_ram_put(t, gp, b->ram, b->ram_coded);
	if (b->disk)
		tiers_disk_put(t, gp, b->disk, b->disk_coded, for_good);
	b->ram = b->disk = 0;
}

const struct pool_lower tiers_lower = { .drop = lower_drop };

/* ----------------------------------------------------------------- the moves */

/* What moves is the copy that there is; the one that is made of HBM's bytes can be chosen. */
static bool moves_coded(unsigned kind, const struct gpool *gp, const struct block *b)
{
	switch (kind) {
	case MOVE_CLEAN:
		return gp->coded_bytes && !b->uncoded;
	case MOVE_SWAP_OUT:
		return false;		/* exactly these bytes come back */
	case MOVE_FETCH:
		return b->disk_coded;
	default:
		return b->ram_coded;
	}
}

struct move *tiers_move_get(struct tiers *t, unsigned kind, struct gpool *gp, struct block *b)
{
	bool coded = moves_coded(kind, gp, b);
	uint64_t bytes = tier_copy_bytes(gp, coded);
	struct move *m = t->free_move;

	t->free_move = m->next;
	t->nr_free_move--;
	*m = (struct move) {
		.t = t, .kind = (uint8_t)kind, .gp = gp, .block = pool_id(t->pool, b),
	};
	m->req = (struct tier_req) {
		.block = m->block, .gp = gp, .slot = b->slot, .bytes = bytes, .coded = coded,
		.buf = -1,
	};
	pool_set_moving(t->pool, b, true);
	meter_start(meter_of(t, kind), bytes);
	return m;
}

void tiers_move_put(struct move *m)
{
	struct tiers *t = m->t;

	meter_end(meter_of(t, m->kind), m->req.bytes, SAMPLE_NS, SAMPLE_PARTS);
	pool_set_moving(t->pool, pool_block(t->pool, m->block), false);
	m->block = 0;
	m->next = t->free_move;
	t->free_move = m;
	t->nr_free_move++;
}

bool tiers_may_start(struct tiers *t, unsigned kind, struct gpool *gp, struct block *b)
{
	const struct meter *m = meter_of(t, kind);

	return t->free_move && !pool_is_moving(t->pool, b) &&
	       (!m->inflight || m->inflight + tier_copy_bytes(gp, moves_coded(kind, gp, b)) <=
				t->o.copy_bytes);
}

void tiers_warn(struct tiers *t, const struct move *m, const struct block *b, const char *what,
		 uint32_t place)
{
	char text[256];

	snprintf(text, sizeof(text),
		 "space %s group %u block %u (position %u): %s at %s place %u: %s",
		 m->gp->sp->name, m->gp->idx, pool_id(t->pool, b), b->pos, what,
		 m->kind == MOVE_STORE || m->kind == MOVE_FETCH ? "disk" : "RAM", place,
		 m->req.err ? strerror(-m->req.err) : "");
	t->ev->warn(t->ev->ctx, text);
}

/* The device says that the memory of the block's slot is broken. */
void tiers_poisoned(struct tiers *t, struct move *m, struct block *b)
{
	tiers_warn(t, m, b, "device memory is broken, the block is lost", b->slot);
	index_poisoned(t->ix, m->gp, b);
}

/* -------------------------------------------------------------------- clean */

/* A move of @b, which may start, to a place in RAM that it gets here. */
static int move_to_ram(struct tiers *t, unsigned kind, struct gpool *gp, struct block *b,
		       struct move **ret_m)
{
	bool coded = moves_coded(kind, gp, b);
	uint32_t place = tiers_ram_get(t, gp, b, coded);

	/* Making room may store others, and a parent of theirs, this block, is copied for it. */
	if (pool_is_moving(t->pool, b)) {
		if (place)
			tiers_ram_put(t, gp, place, coded);
		return -EAGAIN;
	}
	if (!place)
		return t->free_move ? -ENOSPC : -EAGAIN;
	*ret_m = tiers_move_get(t, kind, gp, b);
	(*ret_m)->req.place = place;
	return 0;
}

static int clean_start(struct tiers *t, struct gpool *gp, struct block *b);

/*
 * The codec does not take @b: again, as it is, beside the budget. When there is no
 * move for that now it stays in HBM, if it can, rather than be dropped in its turn.
 */
static void clean_plain(struct tiers *t, struct gpool *gp, struct block *b)
{
	stat_inc(CODEC_OVERFLOWS);
	b->uncoded = 1;
	if (t->stopping)
		return;
	if (clean_start(t, gp, b) != -EAGAIN)
		return;
	if (!pool_is_moving(t->pool, b) && b->state == BLK_EVICTING && b->slot &&
	    tiers_may_stay(t, b))
		tiers_stay(t, gp, b);
}

static void clean_done(struct tier_req *r)
{
	struct move *m = container_of(r, struct move, req);
	struct tiers *t = m->t;
	struct block *b = pool_block(t->pool, m->block);
	int err = r->err;

	if (!err)
		fault_crash(CRASH_RAM);
	tiers_move_put(m);
	if (err) {
		tiers_ram_put(t, m->gp, r->place, r->coded);
		if (r->coded && (err == -E2BIG || err == -EBADMSG || err == -ENOMEM)) {
			clean_plain(t, m->gp, b);
			t->freed = true;
			return;
		}
		stat_inc(MOVES_FAILED);
		if (err == -EHWPOISON)
			tiers_poisoned(t, m, b);
	} else {
		stat_inc(BLOCKS_CLEANED);
		stat_add(BYTES_CLEANED, r->bytes);
		b->ram_coded = r->coded;
		b->ram = r->place;
	}
	t->freed = true;
}

static int clean_start(struct tiers *t, struct gpool *gp, struct block *b)
{
	struct move *m;
	int err = move_to_ram(t, MOVE_CLEAN, gp, b, &m);

	if (err)
		return err;
	m->req.done = clean_done;
	tier_write(t->ram, &m->req);
	return 0;
}

int tiers_clean(struct tiers *t, struct gpool *gp, struct block *b)
{
	if (!tiers_may_start(t, MOVE_CLEAN, gp, b))
		return -EAGAIN;
	if (!tiers_may_clean(t, b))
		return -EPERM;
	return clean_start(t, gp, b);
}

/* -------------------------------------------------------------------- store */

static void store_done(struct tier_req *r)
{
	struct move *m = container_of(r, struct move, req);
	struct tiers *t = m->t;
	struct block *b = pool_block(t->pool, m->block);
	int err = r->err;

	tiers_move_put(m);
	ram_put(t->ram, b->ram);
	if (err) {
		stat_inc(MOVES_FAILED);
		tiers_disk_put(t, m->gp, r->place, r->coded, false);
		if (err != -ECANCELED && err != -EAGAIN)
			tiers_warn(t, m, b, "not written", r->place);
	} else {
		stat_inc(BLOCKS_STORED);
		stat_add(BYTES_STORED, r->bytes);
		b->disk_coded = r->coded;
		b->disk = r->place;
	}
	t->freed = true;
}

int tiers_store(struct tiers *t, struct gpool *gp, struct block *b)
{
	struct tenant *tn = gp->sp->tenant;
	uint64_t bytes = tier_ram_bytes(gp, b);
	struct move *m;
	uint32_t place;

	if (!t->disk || t->disk->draining || t->disk->broken)
		return -EPERM;
	if (!tiers_may_start(t, MOVE_STORE, gp, b))
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
	m = tiers_move_get(t, MOVE_STORE, gp, b);
	m->req.place = place;
	m->req.mem = ram_mem(t->ram, b->ram);
	m->req.buf = ram_buf(t->ram, b->ram);
	m->req.sum = ram_sum(t->ram, b->ram);
	m->req.done = store_done;
	ram_hold(t->ram, b->ram);
	tier_write(t->disk, &m->req);
	return 0;
}

/* --------------------------------------------------------------------- swaps */

static void swap_done(struct tier_req *r)
{
	struct move *m = container_of(r, struct move, req);
	struct tiers *t = m->t;
	struct block *b = pool_block(t->pool, m->block);
	bool out = m->kind == MOVE_SWAP_OUT;

	tiers_move_put(m);
	if (r->err)
		stat_inc(MOVES_FAILED);
	if (r->err == -EHWPOISON)
		pool_poison(t->pool, b);
	if (out && !r->err) {
		b->ram_coded = r->coded;
		b->ram = r->place;
	} else if (out || !r->err) {
		tiers_ram_put(t, m->gp, r->place, r->coded);
	}
	if (!out && !r->err)
		b->ram = 0;
	t->nr_done++;
	t->freed = true;
	m->wait->done(m->wait, b, r->err);
}

int tiers_swap_out(struct tiers *t, struct gpool *gp, struct block *b, struct swap_wait *w)
{
	struct move *m;
	int err;

	if (!tiers_may_start(t, MOVE_SWAP_OUT, gp, b))
		return -EAGAIN;
	err = move_to_ram(t, MOVE_SWAP_OUT, gp, b, &m);
	if (err)
		return err;
	m->wait = w;
	m->req.urgent = true;
	m->req.done = swap_done;
	tier_write(t->ram, &m->req);
	return 0;
}

int tiers_swap_in(struct tiers *t, struct gpool *gp, struct block *b, struct swap_wait *w)
{
	struct move *m;

	if (!tiers_may_start(t, MOVE_SWAP_IN, gp, b))
		return -EAGAIN;
	m = tiers_move_get(t, MOVE_SWAP_IN, gp, b);
	m->wait = w;
	m->req.place = b->ram;
	m->req.urgent = true;
	m->req.done = swap_done;
	tier_read(t->ram, &m->req);
	return 0;
}
