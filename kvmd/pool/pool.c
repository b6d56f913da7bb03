/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool.c - records and slots: allocation, release, and the check of both.
 *
 * Allocation touches, per block: the record, one word of the slab's free stack,
 * one word of slot_owner. Records given back are reused last in, first out;
 * records never used are taken in order, so that start-up touches none of them.
 */
#include "kvmd/pool/pool.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kvmd/lib/mem.h"
#include "kvmd/lib/stats.h"
#include "kvmd/pool/policy.h"
#include "kvmd/pool/restore.h"

/* ------------------------------------------------------------ set-up */

/* A bit for each record. */
static size_t bits_bytes(uint32_t nr)
{
	return ((size_t)nr / 64 + 1) * sizeof(uint64_t);
}

static size_t array_bytes(uint32_t nr)
{
	return align_up(((uint64_t)nr + 1) * sizeof(struct block), 4096);
}

static int nodes_init(struct pool *p, uint32_t nr)
{
	size_t bytes = align_up(((uint64_t)nr + 1) * sizeof(struct node), 4096);

	p->node = mem_big_alloc(bytes, true);
	if (!p->node)
		return -ENOMEM;
	p->nr_nodes = nr;
	for (uint32_t n = nr; n; n--)
		node_free(p, n);
	return 0;
}

/* A new array, or the kept one, which the caller has checked. */
static int array_open(const struct pool_opts *o, void **ret_map)
{
	size_t bytes = array_bytes(o->nr_blocks);
	int fd;

	if (o->kept_fd > 0) {
		*ret_map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, o->kept_fd, 0);
		return *ret_map == MAP_FAILED ? -errno : o->kept_fd;
	}
	fd = mem_fd_create("kvmd-blocks", bytes, o->hugetlb, ret_map);
	if (fd >= 0)
		pool_array_init(*ret_map, o->nr_blocks);
	return fd;
}

int pool_create(const struct pool_opts *o, struct workers *w, struct pool **ret_p)
{
	struct pool *p = mem_big_alloc(sizeof(*p), false);
	void *map;
	int err;

	if (!p)
		return -ENOMEM;
	p->opts = *o;
	p->workers = w;
	p->dev = o->dev ? o->dev : p->own_dev;
	p->nr_devs = o->nr_devs;
	p->nr_blocks = p->nr_free_blk = o->nr_blocks;
	p->next_fresh = 1;
	for (uint32_t i = 0; i < POOL_MAX_SLABS; i++) {
		p->slab[i].id = i;
		list_init(&p->slab[i].avail);
	}
	p->blk_fd = array_open(o, &map);
	if (p->blk_fd < 0) {
		err = p->blk_fd;
		goto err_free;
	}
	p->blk = map;
	p->noted_fresh = pool_array_fresh(p->blk);
	madvise(map, array_bytes(o->nr_blocks), MADV_HUGEPAGE);
	if (o->populate)
		pool_populate(p);
	p->metadata_bytes = array_bytes(o->nr_blocks) + 2 * bits_bytes(o->nr_blocks);
	err = -ENOMEM;
	p->moving = mem_big_alloc(bits_bytes(o->nr_blocks), false);
	p->poisoned = mem_big_alloc(bits_bytes(o->nr_blocks), false);
	if (!p->moving || !p->poisoned)
		goto err_free_bits;
	err = nodes_init(p, o->nr_nodes);
	if (err)
		goto err_free_bits;
	*ret_p = p;
	return 0;

err_free_bits:
	mem_big_free(p->moving, bits_bytes(o->nr_blocks));
	mem_big_free(p->poisoned, bits_bytes(o->nr_blocks));
	munmap(map, array_bytes(o->nr_blocks));
	close(p->blk_fd);
err_free:
	mem_big_free(p, sizeof(*p));
	return err;
}

void pool_populate(struct pool *p)
{
	mem_populate(p->blk, array_bytes(p->nr_blocks), 1);
}

void pool_destroy(struct pool *p)
{
	if (!p)
		return;
	for (uint32_t i = 0; i < POOL_MAX_SPACES; i++)
		if (p->space[i].in_use)
			space_destroy(p, &p->space[i]);
	mem_big_free(p->node, align_up(((uint64_t)p->nr_nodes + 1) * sizeof(struct node), 4096));
	mem_big_free(p->moving, bits_bytes(p->nr_blocks));
	mem_big_free(p->poisoned, bits_bytes(p->nr_blocks));
	munmap(p->blk, array_bytes(p->nr_blocks));
	close(p->blk_fd);
	mem_big_free(p, sizeof(*p));
}

/* --------------------------------------------------- records and slots */

/* Who scans the array after this process looks no further than that. */
static void note_fresh(struct pool *p)
{
	p->noted_fresh = (uint32_t)min((uint64_t)p->next_fresh + POOL_FRESH_STEP,
				       (uint64_t)p->nr_blocks + 1);
	pool_array_set_fresh(p->blk, p->noted_fresh);
}

static uint32_t record_pop(struct pool *p)
{
	uint32_t id = p->free_head;

	if (id) {
		p->free_head = p->blk[id].next;
	} else {
		id = p->next_fresh++;
		if (unlikely(id >= p->noted_fresh))
			note_fresh(p);
	}
	p->nr_free_blk--;
	return id;
}

static void block_init(struct block *b, const struct gpool *gp, uint32_t slot)
{
	b->sid = gp->sp->sid;
	b->group = gp->idx & (KVMD_MAX_GROUPS - 1);
	b->ram_coded = b->disk_coded = b->uncoded = 0;
	b->leases = 0;
	b->slot = slot;
	b->parent = 0;
	b->nr_kids = b->nr_kids_ram = b->nr_kids_disk = 0;
	b->flags = 0;
	b->prio = KVMD_PRIO_DEFAULT;
	b->uses = b->tag = 0;
	b->until = 0;
	b->prev = b->next = 0;
	b->ram = b->disk = 0;
	b->pos = 0;
}

static void block_init_open(struct block *b, const struct gpool *gp, uint32_t slot,
			    uint32_t owner)
{
	block_init(b, gp, slot);
	b->leases = 1;
	b->owner = owner;
	block_set_state(b, BLK_OPEN);
}

int pool_alloc(struct pool *p, struct gpool *gp, uint32_t nr, uint32_t owner, uint32_t reserve,
	       uint32_t *ret_ids)
{
	uint32_t left = nr;

	if ((uint64_t)nr + reserve > gp->nr_free)
		return -EAGAIN;
	if (nr > p->nr_free_blk)
		return -ENOSPC;
	while (left) {
		struct slab *s = list_first(&gp->avail, struct slab, avail);
		uint32_t take = min(left, s->nr_free);
		const uint32_t *stack = gp->free_slot + s->first;

		for (uint32_t i = 0; i < take; i++) {
			uint32_t id = record_pop(p), slot = stack[--s->nr_free];

			block_init_open(pool_block(p, id), gp, slot, owner);
			gp->slot_owner[slot] = id;
			*ret_ids++ = id;
		}
		if (!s->nr_free)
			list_del(&s->avail);
		left -= take;
	}
	gp->nr_free -= nr;
	p->sid[gp->sp->sid].nr_records += nr;
	gp->sp->tenant->hbm_bytes += nr * gp->slot_bytes;
	return 0;
}

/* The record is nobody's any more. */
static void record_push(struct pool *p, struct block *b)
{
	b->gen++;
	if (b->state != BLK_FREE)
		block_set_state(b, BLK_FREE);
	b->leases = 0;
	b->next = p->free_head;
	p->free_head = pool_id(p, b);
	p->nr_free_blk++;
}

static void sid_put(struct pool *p, const struct block *b)
{
	struct sid_info *si = &p->sid[b->sid];

	if (!--si->nr_records && b->sid != si->sp->sid)
		si->sp = NULL;		/* a former epoch ends with its last record */
}

void pool_slot_get(struct pool *p, struct gpool *gp, struct block *b)
{
	struct slab *s = list_first(&gp->avail, struct slab, avail);

	b->slot = gp->free_slot[s->first + --s->nr_free];
	gp->slot_owner[b->slot] = pool_id(p, b);
	if (!s->nr_free)
		list_del(&s->avail);
	gp->nr_free--;
	gp->sp->tenant->hbm_bytes += gp->slot_bytes;
}

void pool_slot_put(struct pool *p, struct block *b)
{
	struct gpool *gp = pool_gpool(p, b);
	struct slab *s = gpool_slab(gp, b->slot);

	gp->slot_owner[b->slot] = 0;
	gp->free_slot[s->first + s->nr_free++] = b->slot;
	gp->sp->tenant->hbm_bytes -= gp->slot_bytes;
	gp->growth_failed = false;
	b->slot = 0;
	if (s->state == SLAB_ACTIVE) {
		gp->nr_free++;
		if (s->nr_free == 1)
			list_add_tail(&s->avail, &gp->avail);
	} else if (!slab_nr_used(s)) {
		slab_advance(p, s);
	}
}

static bool is_poisoned(const struct pool *p, const struct block *b)
{
	uint32_t id = pool_id(p, b);

	return p->poisoned[id / 64] >> (id % 64) & 1;
}

void pool_poison(struct pool *p, const struct block *b)
{
	uint32_t id = pool_id(p, b);

	if (b->slot)
		p->poisoned[id / 64] |= 1ull << (id % 64);
}

void pool_free(struct pool *p, struct block *b)
{
	BUG_ON(pool_is_moving(p, b));
	if (unlikely(b->ram | b->disk))
		p->lower->drop(p, b, false);
	if (unlikely(is_poisoned(p, b))) {
		pool_mark_bad(p, b);
		return;
	}
	if (likely(b->slot))
		pool_slot_put(p, b);
	sid_put(p, b);
	record_push(p, b);
}

uint32_t pool_record_get(struct pool *p, struct gpool *gp)
{
	uint32_t id;

	if (!p->nr_free_blk)
		return 0;
	id = record_pop(p);
	block_init(pool_block(p, id), gp, 0);
	p->sid[gp->sp->sid].nr_records++;
	return id;
}

void pool_record_put(struct pool *p, struct block *b)
{
	sid_put(p, b);
	record_push(p, b);
}

void pool_mark_bad(struct pool *p, struct block *b)
{
	struct gpool *gp = pool_gpool(p, b);
	uint32_t id = pool_id(p, b);

	p->poisoned[id / 64] &= ~(1ull << (id % 64));
	block_set_state(b, BLK_BAD);
	b->leases = 0;
	b->flags = 0;
	gp->sp->tenant->hbm_bytes -= gp->slot_bytes;
	stat_inc(BLOCKS_BAD);
}

/* ------------------------------------------------------ policy's account */

void gpool_idle(struct pool *p, struct gpool *gp, struct block *b)
{
	b->flags |= BLK_F_IDLE;
	b->last_use = p->now;
	gp->nr_idle++;
	gp->policy->ops->idle(gp->policy, b);
}

void gpool_busy(struct gpool *gp, struct block *b)
{
	b->flags &= (uint8_t)~BLK_F_IDLE;
	gp->nr_idle--;
	gp->policy->ops->busy(gp->policy, b);
}

/* ------------------------------------------------------------- the check */

struct count {
	uint32_t used, idle, bad, out;
};

static int check_slab(const struct gpool *gp, const struct slab *s, char *msg, size_t n)
{
	uint32_t owned = 0;

	if (s->state == SLAB_CREATING)
		return 0;
	for (uint32_t i = 0; i < s->nr; i++)
		owned += gp->slot_owner[s->first + i] != 0;
	if (owned != slab_nr_used(s)) {
		snprintf(msg, n, "space %s group %u slab %u: %u slots owned, %u counted as used",
			 gp->sp->name, gp->idx, s->id, owned, slab_nr_used(s));
		return -EUCLEAN;
	}
	return 0;
}

static int check_gpool(const struct pool *p, const struct gpool *gp, const struct count *c,
		       char *msg, size_t n)
{
	uint32_t nr_free = 0, nr_slots = 0;
	int err;

	for (uint32_t k = 0; k < gp->max_slabs; k++) {
		const struct slab *s = gp->slab[k];

		if (!s)
			continue;
		err = check_slab(gp, s, msg, n);
		if (err)
			return err;
		if (s->state == SLAB_ACTIVE) {
			nr_free += s->nr_free;
			nr_slots += s->nr - (s->first == 0);
		}
	}
	if (nr_free != gp->nr_free || nr_slots != gp->nr_slots || c->idle != gp->nr_idle ||
	    c->out != gp->out.nr) {
		snprintf(msg, n,
			 "space %s group %u: free %u counted %u, slots %u counted %u, idle %u counted %u, leaving %u counted %u",
			 gp->sp->name, gp->idx, nr_free, gp->nr_free, nr_slots, gp->nr_slots,
			 c->idle, gp->nr_idle, c->out, gp->out.nr);
		return -EUCLEAN;
	}
	(void)p;
	return 0;
}

/* What is wrong with the places of @b; NULL: nothing. */
static const char *check_places(const struct pool *p, const struct block *b)
{
	const struct gpool *gp = pool_gpool(p, b);
	bool below = b->ram || b->disk;

	if (b->slot && (b->slot >= gp->max_slots || gp->slot_owner[b->slot] != pool_id(p, b)))
		return "slot is not its own";
	switch (b->state) {
	case BLK_SEALED:
	case BLK_EVICTING:
		return !b->slot && !below ? "is in no tier" : NULL;
	case BLK_OPEN:
	case BLK_QUARANTINE:
		return NULL;		/* swapped out, or lost */
	default:
		return !b->slot ? "has no slot" : NULL;
	}
}

static const char *check_parent(const struct pool *p, const struct block *b)
{
	const struct block *up = pool_block(p, b->parent);

	if (up->state != BLK_SEALED && up->state != BLK_LOADING && up->state != BLK_EVICTING &&
	    up->state != BLK_QUARANTINE)
		return "parent is not sealed";
	if (up->state != BLK_QUARANTINE && block_level(up) < block_level(b) &&
	    !(up->state == BLK_EVICTING && up->slot))
		return "is in a higher tier than its parent";
	return NULL;
}

static bool is_cached(const struct block *b)
{
	return b->state == BLK_SEALED || b->state == BLK_LOADING || b->state == BLK_EVICTING;
}

static int check_block(const struct pool *p, uint32_t id, char *msg, size_t n)
{
	const struct block *b = pool_block(p, id);
	const char *what = NULL;

	if (b->state == BLK_FREE)
		return 0;
	if (b->state >= NR_BLK_STATE || b->sid >= POOL_MAX_SIDS || !p->sid[b->sid].sp)
		what = "state or space is impossible";
	if (!what)
		what = check_places(p, b);
	if (!what) {
		if (b->state == BLK_SEALED && !b->leases != !!(b->flags & BLK_F_IDLE))
			what = "idle flag and leases disagree";
		else if (b->state == BLK_EVICTING && (b->leases || (b->flags & BLK_F_IDLE)))
			what = "leaving, but leased or idle";
		else if ((b->state == BLK_OPEN || b->state == BLK_SEALING) && b->leases != 1)
			what = "private, but not exactly one lease";
		else if (is_cached(b) && b->parent)
			what = check_parent(p, b);
	}
	if (!what)
		return 0;
	snprintf(msg, n, "block %u (%s, level %s): %s", id, blk_state_name(b->state),
		 blk_level_name(block_level(b)), what);
	return -EUCLEAN;
}

/* One pass over the records: counts per gpool, children per parent and level. */
static int scan_blocks(const struct pool *p, struct count *cnt, uint32_t (*kids)[NR_LEVEL],
		       char *msg, size_t n)
{
	uint32_t nr_free = 0;
	int err;

	for (uint32_t id = 1; id <= p->nr_blocks; id++) {
		const struct block *b = pool_block(p, id);
		struct count *c;

		if (id >= p->next_fresh || b->state == BLK_FREE) {
			nr_free++;
			continue;
		}
		err = check_block(p, id, msg, n);
		if (err)
			return err;
		c = &cnt[p->sid[b->sid].sp->id * KVMD_MAX_GROUPS + b->group];
		c->used += b->state != BLK_BAD && b->slot;
		c->bad += b->state == BLK_BAD;
		c->idle += (b->flags & BLK_F_IDLE) && b->slot;
		c->out += b->state == BLK_EVICTING && b->slot;
		if (is_cached(b) && b->parent)
			kids[b->parent][block_level(b)]++;
	}
	if (nr_free != p->nr_free_blk) {
		snprintf(msg, n, "records free %u counted %u", nr_free, p->nr_free_blk);
		return -EUCLEAN;
	}
	return 0;
}

static int check_kids(const struct pool *p, uint32_t (*kids)[NR_LEVEL], char *msg, size_t n)
{
	for (uint32_t id = 1; id < p->next_fresh; id++) {
		const struct block *b = pool_block(p, id);
		const uint32_t *k = kids[id];

		if (!is_cached(b) || (k[LEVEL_HBM] == b->nr_kids && k[LEVEL_RAM] == b->nr_kids_ram &&
				      k[LEVEL_DISK] == b->nr_kids_disk))
			continue;
		snprintf(msg, n, "block %u: %u + %u + %u children, %u + %u + %u counted", id,
			 k[LEVEL_HBM], k[LEVEL_RAM], k[LEVEL_DISK], b->nr_kids, b->nr_kids_ram,
			 b->nr_kids_disk);
		return -EUCLEAN;
	}
	return 0;
}

static int check_spaces(const struct pool *p, const struct count *cnt, char *msg, size_t n)
{
	uint64_t charged[POOL_MAX_TENANTS] = { 0 };
	int err;

	for (uint32_t i = 0; i < POOL_MAX_SPACES; i++) {
		const struct space *sp = &p->space[i];

		for (uint32_t g = 0; sp->in_use && g < sp->nr_groups; g++) {
			const struct count *c = &cnt[i * KVMD_MAX_GROUPS + g];

			err = check_gpool(p, &sp->gp[g], c, msg, n);
			if (err)
				return err;
			charged[sp->tenant->id] += c->used * sp->gp[g].slot_bytes;
		}
	}
	for (uint32_t t = 0; t < p->nr_tenants; t++) {
		if (charged[t] != p->tenant[t].hbm_bytes) {
			snprintf(msg, n, "tenant %s: charged %llu, uses %llu", p->tenant[t].name,
				 (unsigned long long)p->tenant[t].hbm_bytes,
				 (unsigned long long)charged[t]);
			return -EUCLEAN;
		}
	}
	return 0;
}

int pool_check(const struct pool *p, char *msg, size_t msg_bytes)
{
	struct count *cnt = mem_calloc(POOL_MAX_SPACES * KVMD_MAX_GROUPS, sizeof(*cnt));
	uint32_t (*kids)[NR_LEVEL] = mem_calloc((size_t)p->nr_blocks + 1, sizeof(*kids));
	int err = -ENOMEM;

	if (!cnt || !kids)
		snprintf(msg, msg_bytes, "out of memory for the check");
	else
		err = scan_blocks(p, cnt, kids, msg, msg_bytes);
	err = err ? err : check_kids(p, kids, msg, msg_bytes);
	err = err ? err : check_spaces(p, cnt, msg, msg_bytes);
	mem_free(kids);
	mem_free(cnt);
	return err;
}
