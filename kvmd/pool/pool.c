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

/* ------------------------------------------------------------ set-up */

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

int pool_create(const struct pool_opts *o, struct workers *w, struct pool **ret_p)
{
	struct pool *p = mem_big_alloc(sizeof(*p), false);
	void *map;
	int err;

	if (!p)
		return -ENOMEM;
	p->opts = *o;
	p->workers = w;
	p->nr_blocks = p->nr_free_blk = o->nr_blocks;
	p->next_fresh = 1;
	for (uint32_t i = 0; i < POOL_MAX_SLABS; i++) {
		p->slab[i].id = i;
		list_init(&p->slab[i].avail);
	}
	p->blk_fd = mem_fd_create("kvmd-blocks", array_bytes(o->nr_blocks), o->hugetlb, &map);
	if (p->blk_fd < 0) {
		err = p->blk_fd;
		goto err_free;
	}
	p->blk = map;
	madvise(map, array_bytes(o->nr_blocks), MADV_HUGEPAGE);
	if (o->populate)
		pool_populate(p);
	p->metadata_bytes = array_bytes(o->nr_blocks);
	err = nodes_init(p, o->nr_nodes);
	if (err)
		goto err_unmap_blocks;
	*ret_p = p;
	return 0;

err_unmap_blocks:
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
	munmap(p->blk, array_bytes(p->nr_blocks));
	close(p->blk_fd);
	mem_big_free(p, sizeof(*p));
}

/* --------------------------------------------------- records and slots */

static uint32_t record_pop(struct pool *p)
{
	uint32_t id = p->free_head;

	if (id)
		p->free_head = p->blk[id].next;
	else
		id = p->next_fresh++;
	p->nr_free_blk--;
	return id;
}

static void block_init_open(struct block *b, const struct gpool *gp, uint32_t slot,
			    uint32_t owner)
{
	b->sid = gp->sp->sid;
	b->group = (uint8_t)gp->idx;
	b->leases = 1;
	b->slot = slot;
	b->owner = owner;
	b->nr_kids = b->nr_kids_low = 0;
	b->flags = 0;
	b->prio = KVMD_PRIO_DEFAULT;
	b->uses = b->tag = 0;
	b->until = 0;
	b->prev = b->next = 0;
	b->ram = b->disk = 0;
	b->pos = 0;
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

/* The record is nobody's any more; its slot's owner is cleared. */
static void record_push(struct pool *p, struct block *b)
{
	b->gen++;
	block_set_state(b, BLK_FREE);
	b->leases = 0;
	b->slot = 0;
	b->next = p->free_head;
	p->free_head = pool_id(p, b);
	p->nr_free_blk++;
}

void pool_free(struct pool *p, struct block *b)
{
	struct gpool *gp = pool_gpool(p, b);
	struct slab *s = gpool_slab(gp, b->slot);
	struct sid_info *si = &p->sid[b->sid];

	gp->slot_owner[b->slot] = 0;
	gp->free_slot[s->first + s->nr_free++] = b->slot;
	gp->sp->tenant->hbm_bytes -= gp->slot_bytes;
	gp->growth_failed = false;
	if (!--si->nr_records && b->sid != gp->sp->sid)
		si->sp = NULL;		/* a former epoch ends with its last record */
	record_push(p, b);
	if (s->state == SLAB_ACTIVE) {
		gp->nr_free++;
		if (s->nr_free == 1)
			list_add_tail(&s->avail, &gp->avail);
	} else if (!slab_nr_used(s)) {
		slab_advance(p, s);
	}
}

void pool_mark_bad(struct pool *p, struct block *b)
{
	struct gpool *gp = pool_gpool(p, b);

	block_set_state(b, BLK_BAD);
	b->leases = 0;
	gp->sp->tenant->hbm_bytes -= gp->slot_bytes;
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
	uint32_t used, idle, bad;
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
	if (nr_free != gp->nr_free || nr_slots != gp->nr_slots || c->idle != gp->nr_idle) {
		snprintf(msg, n,
			 "space %s group %u: free %u counted %u, slots %u counted %u, idle %u counted %u",
			 gp->sp->name, gp->idx, nr_free, gp->nr_free, nr_slots, gp->nr_slots,
			 c->idle, gp->nr_idle);
		return -EUCLEAN;
	}
	(void)p;
	return 0;
}

static int check_block(const struct pool *p, uint32_t id, char *msg, size_t n)
{
	const struct block *b = pool_block(p, id);
	const struct gpool *gp;
	const char *what = NULL;

	if (b->state == BLK_FREE)
		return 0;
	if (b->state >= NR_BLK_STATE || b->sid >= POOL_MAX_SIDS || !p->sid[b->sid].sp)
		what = "state or space is impossible";
	if (!what) {
		gp = pool_gpool(p, b);
		if (b->slot == 0 || b->slot >= gp->max_slots || gp->slot_owner[b->slot] != id)
			what = "slot is not its own";
		else if (b->state == BLK_SEALED && !b->leases != !!(b->flags & BLK_F_IDLE))
			what = "idle flag and leases disagree";
		else if ((b->state == BLK_OPEN || b->state == BLK_SEALING) && b->leases != 1)
			what = "private, but not exactly one lease";
		else if (b->state == BLK_SEALED && b->parent &&
			 pool_block(p, b->parent)->state != BLK_SEALED)
			what = "parent is not sealed";
	}
	if (!what)
		return 0;
	snprintf(msg, n, "block %u (%s): %s", id, blk_state_name(b->state), what);
	return -EUCLEAN;
}

/* One pass over the records: counts per gpool, children per parent. */
static int scan_blocks(const struct pool *p, struct count *cnt, uint32_t *kids,
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
		c->used += b->state != BLK_BAD;
		c->bad += b->state == BLK_BAD;
		c->idle += (b->flags & BLK_F_IDLE) != 0;
		if (b->state == BLK_SEALED && b->parent)
			kids[b->parent]++;
	}
	if (nr_free != p->nr_free_blk) {
		snprintf(msg, n, "records free %u counted %u", nr_free, p->nr_free_blk);
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
	uint32_t *kids = mem_calloc((size_t)p->nr_blocks + 1, sizeof(*kids));
	int err = -ENOMEM;

	if (!cnt || !kids) {
		snprintf(msg, msg_bytes, "out of memory for the check");
		goto out;
	}
	err = scan_blocks(p, cnt, kids, msg, msg_bytes);
	if (err)
		goto out;
	for (uint32_t id = 1; id < p->next_fresh; id++) {
		const struct block *b = pool_block(p, id);

		if (b->state == BLK_SEALED && kids[id] != b->nr_kids) {
			snprintf(msg, msg_bytes, "block %u: %u children, %u counted", id, kids[id],
				 b->nr_kids);
			err = -EUCLEAN;
			goto out;
		}
	}
	err = check_spaces(p, cnt, msg, msg_bytes);
out:
	mem_free(kids);
	mem_free(cnt);
	return err;
}
