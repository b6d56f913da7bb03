/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restore.c - table, chains and idle lists of a kept block array; see restore.h.
 *
 * Chains are followed upwards with the way back noted in block.prev, which
 * belongs to nobody yet; a record is judged once, so the whole is linear.
 */
#include "kvmd/index/restore.h"

#include "kvmd/lib/mem.h"
#include "kvmd/pool/policy.h"

#define AHEAD	16u		/* records whose lines are fetched ahead */

/* ----------------------------------------------------------------- the table */

enum verdict { UNKNOWN, WALKING, GOOD, WRONG };

static bool is_sealed(const struct block *b)
{
	return b->state == BLK_SEALED;
}

/* False: its identity is there already. */
static bool table_add(struct index *ix, const struct block *b, uint32_t id, uint64_t hash)
{
	uint32_t i = (uint32_t)hash & ix->mask;

	for (; ix->tab[i].id; i = (i + 1) & ix->mask) {
		const struct block *o;

		if (ix->tab[i].hash != (uint32_t)hash)
			continue;
		o = pool_block(ix->pool, ix->tab[i].id);
		if (o->sid == b->sid && o->group == b->group && key_equal(o->key, b->key))
			return false;
	}
	ix->tab[i] = (struct index_entry) { .hash = (uint32_t)hash, .id = id };
	ix->nr++;
	return true;
}

/* Hashes of records that come next, so that the lines of the table come side by side. */
static void build_table(struct index *ix, struct pool_restore *r, uint8_t *verdict)
{
	struct pool *p = ix->pool;
	uint64_t hash[AHEAD];

	for (uint32_t id = 1; id < r->fresh + AHEAD; id++) {
		struct block *b;

		if (id > AHEAD && is_sealed(b = pool_block(p, id - AHEAD))) {
			if (!table_add(ix, b, id - AHEAD, hash[id % AHEAD])) {
				verdict[id - AHEAD] = WRONG;
				r->nr_damaged++;
			}
		}
		if (id >= r->fresh || !is_sealed(b = pool_block(p, id)))
			continue;
		hash[id % AHEAD] = index_hash(ix, b->sid, b->group, b->key);
		index_prefetch(ix, hash[id % AHEAD]);
	}
}

/* ---------------------------------------------------------------- the chains */

/* @b may not be above @up: down to RAM with it if it is there too. */
static bool fits_under(struct pool_restore *r, const struct block *up, struct block *b)
{
	if (block_level(b) <= block_level(up))
		return true;
	if (!b->ram || !pool_restore_unslot(r, b))
		return false;
	r->nr_hbm--;
	r->nr_ram++;
	return true;
}

static bool may_be_parent(const struct pool_restore *r, const struct block *b, uint32_t up)
{
	const struct block *u = pool_block(r->p, up);

	return up < r->fresh && is_sealed(u) && u->sid == b->sid && u->group == b->group;
}

/* From @id up to what was judged before, or the root; then down again with the verdict. */
static void judge(struct pool_restore *r, uint8_t *verdict, uint32_t id)
{
	struct pool *p = r->p;
	uint32_t down = 0;
	bool good = true;

	for (;;) {
		struct block *b = pool_block(p, id);
		uint32_t up = b->parent;

		verdict[id] = WALKING;
		b->prev = down;
		down = id;
		if (!up)
			break;
		good = may_be_parent(r, b, up) && verdict[up] != WRONG && verdict[up] != WALKING;
		if (!good || verdict[up] == GOOD)
			break;
		id = up;
	}
	while (down) {
		struct block *b = pool_block(p, down);
		uint32_t next = b->prev;

		good = good && (!b->parent || fits_under(r, pool_block(p, b->parent), b));
		verdict[down] = good ? GOOD : WRONG;
		b->prev = 0;
		down = next;
	}
}

static void count_child(struct pool *p, const struct block *b)
{
	struct block *up = pool_block(p, b->parent);

	if (!b->parent)
		return;
	if (b->slot)
		up->nr_kids++;
	else
		up->nr_kids_ram++;
}

static void drop(struct index *ix, struct pool_restore *r, struct block *b, bool in_table)
{
	uint32_t id = pool_id(r->p, b);

	if (in_table)
		index_table_del(ix, index_hash(ix, b->sid, b->group, b->key), id);
	r->nr_hbm -= b->slot != 0;
	r->nr_ram -= !b->slot;
	r->nr_damaged++;
	b->parent = 0;
	pool_restore_drop(r, b);
}

int index_restore(struct index *ix, struct pool_restore *r)
{
	struct pool *p = ix->pool;
	size_t bytes = (size_t)r->fresh + AHEAD;
	uint8_t *verdict = mem_big_alloc(bytes, false), *dup;

	if (!verdict)
		return -ENOMEM;
	build_table(ix, r, verdict);
	dup = verdict;			/* WRONG so far: not in the table */
	for (uint32_t id = 1; id < r->fresh; id++) {
		struct block *b = pool_block(p, id);

		if (is_sealed(b) && p->sid[b->sid].sp->gp[b->group].geo.rule != KVMD_RULE_FULL)
			b->parent = 0;
		if (is_sealed(b) && dup[id] == WRONG)
			drop(ix, r, b, false);
	}
	for (uint32_t id = 1; id < r->fresh; id++) {
		const struct block *b = pool_block(p, id), *ahead = pool_block(p, id + AHEAD);

		if (id + AHEAD < r->fresh && is_sealed(ahead))
			__builtin_prefetch(pool_block(p, min(ahead->parent, r->fresh)));
		if (is_sealed(b) && verdict[id] == UNKNOWN)
			judge(r, verdict, id);
	}
	for (uint32_t id = 1; id < r->fresh; id++) {
		struct block *b = pool_block(p, id);

		if (!is_sealed(b))
			continue;
		if (verdict[id] == WRONG) {
			drop(ix, r, b, true);
			continue;
		}
		count_child(p, b);
		p->sid[b->sid].nr_sealed++;
		p->sid[b->sid].sp->nr_stale += b->sid != p->sid[b->sid].sp->sid;
	}
	mem_big_free(verdict, bytes);
	return 0;
}

/* ------------------------------------------------------------------ idle lists */

struct idle {
	uint32_t age;			/* since its last use */
	uint32_t pos;
	uint32_t id;
};

/* One pass of a radix sort by 16 bits of @age (@shift), or of the position. */
static void sort_pass(struct idle *to, const struct idle *from, size_t nr, uint32_t *count,
		      unsigned shift, bool by_pos)
{
	uint32_t at = 0;

	memset(count, 0, 65536 * sizeof(*count));
	for (size_t i = 0; i < nr; i++)
		count[by_pos ? from[i].pos : from[i].age >> shift & 0xffff]++;
	/* The largest first. */
	for (uint32_t k = 65536; k-- > 0;) {
		uint32_t n = count[k];

		count[k] = at;
		at += n;
	}
	for (size_t i = 0; i < nr; i++)
		to[count[by_pos ? from[i].pos : from[i].age >> shift & 0xffff]++] = from[i];
}

/* As index_idle(), with the last use that it had. */
static void make_idle(struct index *ix, struct block *b)
{
	struct pool *p = ix->pool;
	struct gpool *gp = pool_gpool(p, b);

	b->flags |= BLK_F_IDLE;
	if (!b->slot) {
		blklist_add_tail(p->blk, &ix->low[LEVEL_RAM], b);
		return;
	}
	gp->nr_idle++;
	gp->policy->ops->idle(gp->policy, b);
}

/* A private block whose sequence did not take it after all. */
static void drop_unowned(struct pool_restore *r, struct block *b)
{
	if ((b->state != BLK_OPEN && b->state != BLK_QUARANTINE) || b->owner != POOL_UNOWNED)
		return;
	r->nr_open -= b->state == BLK_OPEN;
	r->nr_damaged++;
	pool_restore_drop(r, b);
}

int index_restore_idle(struct index *ix, struct pool_restore *r)
{
	size_t max_nr = (size_t)r->nr_hbm + r->nr_ram + 1, nr = 0;
	size_t bytes = 2 * max_nr * sizeof(struct idle) + 65536 * sizeof(uint32_t);
	struct idle *a = mem_big_alloc(bytes, false), *b = a + max_nr;
	struct pool *p = ix->pool;
	uint32_t *count;

	if (!a)
		return -ENOMEM;
	count = (uint32_t *)(void *)(b + max_nr);
	for (uint32_t id = 1; id < r->fresh; id++) {
		struct block *blk = pool_block(p, id);
		struct gpool *gp;

		if (!is_sealed(blk)) {
			drop_unowned(r, blk);
			continue;
		}
		gp = pool_gpool(p, blk);
		blk->tag = 0;
		if (gp->policy->ops->insert)
			gp->policy->ops->insert(gp->policy, blk, NULL, 0, 0);
		if (blk->leases || nr == max_nr)
			continue;
		a[nr++] = (struct idle) {
			.age = p->now - blk->last_use, .pos = min(blk->pos, 65535u), .id = id,
		};
	}
	/* Of one age the end of a chain before its start. */
	sort_pass(b, a, nr, count, 0, true);
	sort_pass(a, b, nr, count, 0, false);
	sort_pass(b, a, nr, count, 16, false);
	for (size_t i = 0; i < nr; i++) {
		if (i + AHEAD < nr)
			__builtin_prefetch(pool_block(p, b[i + AHEAD].id), 1);
		make_idle(ix, pool_block(p, b[i].id));
	}
	mem_big_free(a, bytes);
	return 0;
}
