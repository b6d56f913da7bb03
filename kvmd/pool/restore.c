/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restore.c - one pass over a kept block array; see restore.h.
 *
 * States are stored directly here, not through block_set_state(): what a record
 * was is not to be trusted, and the moves are those of a whole process's death.
 *
 *   SEALED              stays, with the places that are still there
 *   EVICTING            SEALED: what it was leaving is still intact
 *   LOADING             its slot is held, the copy below is valid: SEALED
 *   OPEN, SEALING       OPEN if exactly one position of a kept sequence names it
 *   QUARANTINE          stays with its session, else held
 *   BAD                 stays
 */
#include "kvmd/pool/restore.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kvmd/pool/policy.h"

/* ------------------------------------------------- head of the block array */

static struct pool_array *array_head(struct block *blk)
{
	return (struct pool_array *)(void *)blk;
}

int pool_array_check(int fd, uint32_t *ret_nr_blocks, char *msg, size_t n)
{
	struct pool_array h;
	struct stat st;

	if (pread(fd, &h, sizeof(h), 0) != sizeof(h) || fstat(fd, &st)) {
		snprintf(msg, n, "the block array cannot be read");
		return -EINVAL;
	}
	if (h.magic != POOL_ARRAY_MAGIC || h.version != POOL_ARRAY_VERSION ||
	    h.block_bytes != sizeof(struct block)) {
		snprintf(msg, n, "the block array has version %u with records of %u bytes, not "
			 "%u with %zu", h.magic == POOL_ARRAY_MAGIC ? h.version : 0,
			 h.block_bytes, POOL_ARRAY_VERSION, sizeof(struct block));
		return -EINVAL;
	}
	if (!h.nr_blocks || h.nr_blocks >= UINT32_MAX - 1 || !h.fresh ||
	    h.fresh > h.nr_blocks + 1 ||
	    ((uint64_t)h.nr_blocks + 1) * sizeof(struct block) > (uint64_t)st.st_size) {
		snprintf(msg, n, "the block array's head makes no sense: %u records, %u used, "
			 "%lld bytes", h.nr_blocks, h.fresh, (long long)st.st_size);
		return -EINVAL;
	}
	*ret_nr_blocks = h.nr_blocks;
	return 0;
}

void pool_array_init(struct block *blk, uint32_t nr_blocks)
{
	*array_head(blk) = (struct pool_array) {
		.magic = POOL_ARRAY_MAGIC, .version = POOL_ARRAY_VERSION,
		.block_bytes = sizeof(struct block), .nr_blocks = nr_blocks, .fresh = 1,
	};
}

uint32_t pool_array_fresh(const struct block *blk)
{
	return ((const struct pool_array *)(const void *)blk)->fresh;
}

void pool_array_set_fresh(struct block *blk, uint32_t fresh)
{
	/* Before any store to the records that it takes in. */
	st_rel(&array_head(blk)->fresh, fresh);
	smp_mb();
}

/* -------------------------------------------------------- single records */

static void set_state(struct block *b, enum blk_state s)
{
	st_rel(&b->state, (uint8_t)s);
}

static void free_record(struct pool_restore *r, struct block *b)
{
	struct pool *p = r->p;

	b->gen++;
	set_state(b, BLK_FREE);
	b->leases = 0;
	b->slot = b->ram = b->disk = 0;
	b->prev = 0;
	b->next = p->free_head;
	p->free_head = pool_id(p, b);
	p->nr_free_blk++;
}

static void hold(struct pool_restore *r, struct gpool *gp, struct block *b)
{
	set_state(b, BLK_QUARANTINE);
	b->flags = 0;
	b->leases = 0;
	b->ram = b->disk = 0;
	b->owner = POOL_HELD;
	blklist_add_tail(r->p->blk, &r->held[gp->sp->id], b);
	r->nr_held++;
}

/* RAM's place and, through it, the charge. */
static void drop_ram(struct pool_restore *r, struct block *b)
{
	if (b->ram && r->p->lower)
		r->p->lower->drop(r->p, b, false);
	b->ram = 0;
}

void pool_restore_drop(struct pool_restore *r, struct block *b)
{
	struct gpool *gp = pool_gpool(r->p, b);

	drop_ram(r, b);
	if (b->slot) {
		hold(r, gp, b);
		return;
	}
	r->p->sid[b->sid].nr_records--;
	free_record(r, b);
}

/* A free record takes @b's slot and holds it. */
bool pool_restore_unslot(struct pool_restore *r, struct block *b)
{
	struct gpool *gp = pool_gpool(r->p, b);
	uint32_t id = pool_record_get(r->p, gp), slot = b->slot;
	struct block *h = pool_block(r->p, id);

	if (!id)
		return false;
	h->slot = slot;
	hold(r, gp, h);
	/* From here on both name the slot; QUARANTINE is the one that keeps it. */
	gp->slot_owner[slot] = id;
	b->slot = 0;
	return true;
}

static bool slot_is_there(const struct gpool *gp, uint32_t slot)
{
	const struct slab *s = slot < gp->max_slots ? gpool_slab(gp, slot) : NULL;

	return s && s->state == SLAB_ACTIVE && slot >= s->first && slot - s->first < s->nr;
}

void pool_restore_hold_slot(struct pool_restore *r, struct gpool *gp, uint32_t slot)
{
	uint32_t id;
	struct block *h;

	if (!slot || !slot_is_there(gp, slot) || gp->slot_owner[slot])
		return;
	id = pool_record_get(r->p, gp);
	if (!id)
		return;
	h = pool_block(r->p, id);
	h->slot = slot;
	hold(r, gp, h);
	gp->slot_owner[slot] = id;
}

/* ------------------------------------------------------------------ the scan */

/* Who keeps a slot that two records name. */
static unsigned rank(const struct block *b)
{
	static const uint8_t of[NR_BLK_STATE] = {
		[BLK_LOADING] = 1, [BLK_QUARANTINE] = 2, [BLK_OPEN] = 3, [BLK_SEALING] = 3,
		[BLK_SEALED] = 4, [BLK_EVICTING] = 4, [BLK_BAD] = 5,
	};

	return of[b->state];
}

/* Is it to be looked at again by settle_loading()? */
static bool is_loading(const struct block *o)
{
	return o->slot && (o->state == BLK_LOADING || (o->state == BLK_OPEN && o->ram));
}

/* @o was settled, and another record has the better claim to its slot. */
static void loses_slot(struct pool_restore *r, struct gpool *gp, struct block *o)
{
	bool later = is_loading(o);

	o->slot = 0;
	if (later)
		return;
	if (o->state == BLK_SEALED && o->ram) {
		r->nr_hbm--;
		r->nr_ram++;
		return;
	}
	if (o->state == BLK_QUARANTINE && o->owner == POOL_HELD) {
		blklist_del(r->p->blk, &r->held[gp->sp->id], o);
		r->nr_held--;
	}
	r->nr_hbm -= o->state == BLK_SEALED;
	r->nr_open -= o->state == BLK_OPEN;
	r->nr_damaged++;
	drop_ram(r, o);
	r->p->sid[o->sid].nr_records--;
	free_record(r, o);
}

/* Two of one rank: neither is believed, and nobody gets the slot. */
static void both_lose(struct pool_restore *r, struct gpool *gp, struct block *o)
{
	bool held = o->state == BLK_QUARANTINE && o->owner == POOL_HELD;

	r->nr_damaged++;
	if (held || o->state == BLK_BAD)
		return;
	if (is_loading(o))
		blklist_del(r->p->blk, &r->loading, o);
	r->nr_hbm -= o->state == BLK_SEALED;
	r->nr_open -= o->state == BLK_OPEN;
	drop_ram(r, o);
	hold(r, gp, o);
}

static void settle_slot(struct pool_restore *r, struct gpool *gp, struct block *b)
{
	uint32_t other;

	if (!b->slot)
		return;
	if (!slot_is_there(gp, b->slot)) {
		b->slot = 0;
		return;
	}
	other = gp->slot_owner[b->slot];
	if (other) {
		struct block *o = pool_block(r->p, other);

		if (rank(o) >= rank(b)) {
			if (rank(o) == rank(b))
				both_lose(r, gp, o);
			b->slot = 0;
			return;
		}
		loses_slot(r, gp, o);
	}
	gp->slot_owner[b->slot] = pool_id(r->p, b);
}

/* A place in RAM is of use to blocks that can be loaded from it. */
static void settle_ram(struct pool_restore *r, struct gpool *gp, struct block *b)
{
	bool may = b->state == BLK_SEALED || b->state == BLK_EVICTING ||
		   b->state == BLK_LOADING || b->state == BLK_OPEN;

	if (b->ram && (!may || !r->claim || !r->claim(r->ctx, gp, pool_id(r->p, b), b->ram)))
		b->ram = 0;
}

static void settle_private(struct pool_restore *r, struct block *b)
{
	uint32_t ref = r->refs[pool_id(r->p, b)];

	/* Bytes are valid where they were complete: below while swapped, else in HBM. */
	if (POOL_REF_NR(ref) == 1 && b->slot && b->ram && !(ref & POOL_REF_SWAPPED))
		drop_ram(r, b);
	if (POOL_REF_NR(ref) == 1 && b->slot && b->ram) {
		set_state(b, BLK_OPEN);
		blklist_add_tail(r->p->blk, &r->loading, b);
		r->nr_open++;
		return;
	}
	if (POOL_REF_NR(ref) != 1 || !(b->slot | b->ram)) {
		r->nr_lost += POOL_REF_NR(ref) == 1;
		pool_restore_drop(r, b);
		return;
	}
	set_state(b, BLK_OPEN);
	b->leases = 1;
	b->flags &= BLK_F_NO_STORE;
	r->nr_open++;
}

/* tag: it has a place on disk. */
static void settle_sealed(struct pool_restore *r, struct block *b)
{
	if (!(b->slot | b->ram)) {
		r->nr_disk += b->tag;
		r->nr_lost += !b->tag;
		pool_restore_drop(r, b);
		return;
	}
	set_state(b, BLK_SEALED);
	r->nr_hbm += b->slot != 0;
	r->nr_ram += !b->slot;
}

static void settle(struct pool_restore *r, struct block *b)
{
	switch (b->state) {
	case BLK_SEALED:
	case BLK_EVICTING:
		settle_sealed(r, b);
		break;
	case BLK_LOADING:
		if (b->slot)
			blklist_add_tail(r->p->blk, &r->loading, b);
		else
			settle_sealed(r, b);
		break;
	case BLK_OPEN:
	case BLK_SEALING:
		settle_private(r, b);
		break;
	case BLK_QUARANTINE:
		if (!b->slot || r->refs[pool_id(r->p, b)] != 1)
			pool_restore_drop(r, b);
		else
			b->leases = 1;
		break;
	default:				/* BAD */
		if (!b->slot)
			pool_restore_drop(r, b);
		else
			r->nr_bad++;
		break;
	}
}

static bool makes_sense(const struct pool *p, const struct block *b)
{
	const struct space *sp = b->sid && b->sid < POOL_MAX_SIDS ? p->sid[b->sid].sp : NULL;

	return b->state < NR_BLK_STATE && sp && b->group < sp->nr_groups;
}

static void scan_record(struct pool_restore *r, struct block *b)
{
	struct pool *p = r->p;
	struct gpool *gp;

	if (b->state == BLK_FREE || !makes_sense(p, b)) {
		r->nr_damaged += b->state != BLK_FREE;
		free_record(r, b);
		return;
	}
	gp = pool_gpool(p, b);
	p->sid[b->sid].nr_records++;
	b->tag = b->disk != 0;
	b->disk = 0;			/* that tier's own recovery says where it is */
	b->leases = 0;
	b->nr_kids = b->nr_kids_ram = b->nr_kids_disk = 0;
	b->flags &= BLK_F_NO_STORE | BLK_F_TTL | BLK_F_PRIO | BLK_F_COLD;
	b->prio = min(b->prio, (uint8_t)KVMD_PRIO_MAX);
	b->prev = b->next = 0;
	if ((int32_t)(p->now - b->last_use) < 0)
		b->last_use = p->now;
	if (b->state == BLK_QUARANTINE || b->state == BLK_OPEN || b->state == BLK_SEALING)
		b->owner = POOL_UNOWNED;
	settle_slot(r, gp, b);
	settle_ram(r, gp, b);
	settle(r, b);
}

/* Slots that bytes were on their way to: the copy below goes on alone. */
static void settle_loading(struct pool_restore *r)
{
	while (r->loading.head) {
		struct block *b = pool_block(r->p, r->loading.head);
		bool was_open = b->state == BLK_OPEN;

		blklist_del(r->p->blk, &r->loading, b);
		if (b->slot && (!b->ram || !pool_restore_unslot(r, b))) {
			r->nr_disk += b->tag;
			r->nr_lost += !b->tag;
			r->nr_open -= was_open;
			pool_restore_drop(r, b);
		} else if (was_open) {
			b->leases = 1;
			b->flags &= BLK_F_NO_STORE;
		} else {
			settle_sealed(r, b);
		}
	}
}

void pool_restore_scan(struct pool_restore *r)
{
	struct pool *p = r->p;

	p->free_head = 0;
	p->nr_free_blk = p->nr_blocks - (r->fresh - 1);
	p->next_fresh = r->fresh;
	/* Downwards, so that free records are given out upwards. */
	for (uint32_t id = r->fresh - 1; id; id--) {
		if (id > 8)
			__builtin_prefetch(pool_block(p, id - 8), 1);
		scan_record(r, pool_block(p, id));
	}
	settle_loading(r);
}

/* ---------------------------------------------------------------- the finish */

static void finish_slab(struct pool *p, struct gpool *gp, struct slab *s)
{
	uint32_t used = 0;

	s->nr_free = 0;
	for (uint32_t i = s->nr; i > (s->first == 0); i--) {
		uint32_t slot = s->first + i - 1, id = gp->slot_owner[slot];

		if (!id)
			gp->free_slot[s->first + s->nr_free++] = slot;
		else
			used += pool_block(p, id)->state != BLK_BAD;
	}
	gp->sp->tenant->hbm_bytes += used * gp->slot_bytes;
	gp->nr_free += s->nr_free;
	if (s->nr_free)
		list_add_tail(&s->avail, &gp->avail);
}

void pool_restore_finish(struct pool_restore *r)
{
	struct pool *p = r->p;

	for (uint32_t i = 0; i < p->slab_end; i++) {
		struct slab *s = &p->slab[i];

		if (s->state == SLAB_ACTIVE)
			finish_slab(p, s->gp, s);
	}
	for (uint32_t i = 1; i < POOL_MAX_SIDS; i++) {
		struct sid_info *si = &p->sid[i];

		if (si->sp && !si->nr_records && si->sp->sid != i)
			si->sp = NULL;
	}
}

uint32_t pool_restore_release(struct pool *p, struct blklist *held)
{
	uint32_t nr = 0;

	while (held->head) {
		struct block *b = pool_block(p, held->head);

		blklist_del(p->blk, held, b);
		pool_free(p, b);
		nr++;
	}
	return nr;
}
