/* SPDX-License-Identifier: Apache-2.0 */
/*
 * index.c - the table, and sealing and evicting through it.
 */
#include "kvmd/index/index.h"

#include <stdio.h>

#include "kvmd/lib/mem.h"
#include "kvmd/lib/stats.h"

/* ------------------------------------------------------------------ set-up */

int index_create(struct pool *p, uint32_t nr_ghosts, struct index **ret_ix)
{
	uint64_t slots = roundup_pow2(div_round_up((uint64_t)p->nr_blocks * 5, 4));
	struct index *ix;
	int err = -ENOMEM;

	if (slots > 1ull << 32)
		return -EINVAL;
	ix = mem_zalloc(sizeof(*ix));
	if (!ix)
		return -ENOMEM;
	ix->pool = p;
	ix->mask = (uint32_t)(slots - 1);
	ix->tab = mem_big_alloc(slots * sizeof(*ix->tab), p->opts.populate);
	if (!ix->tab)
		goto err_free;
	err = hash_seed_init(&ix->seed);
	if (err)
		goto err_free_tab;
	err = ghosts_create(nr_ghosts, &ix->ghosts);
	if (err)
		goto err_free_tab;
	*ret_ix = ix;
	return 0;

err_free_tab:
	mem_big_free(ix->tab, slots * sizeof(*ix->tab));
err_free:
	mem_free(ix);
	return err;
}

void index_destroy(struct index *ix)
{
	if (!ix)
		return;
	ghosts_destroy(ix->ghosts);
	mem_big_free(ix->tab, index_bytes(ix));
	mem_free(ix);
}

uint64_t index_bytes(const struct index *ix)
{
	return ((uint64_t)ix->mask + 1) * sizeof(*ix->tab);
}

/* --------------------------------------------------------------- the table */

/* Close the gap at @i: later entries of the run move up as far as their home allows. */
static void table_close_gap(struct index *ix, uint32_t i)
{
	uint32_t j = i;

	for (;;) {
		uint32_t home;

		j = (j + 1) & ix->mask;
		if (!ix->tab[j].id)
			break;
		home = ix->tab[j].hash & ix->mask;
		if (((j - home) & ix->mask) >= ((j - i) & ix->mask)) {
			ix->tab[i] = ix->tab[j];
			i = j;
		}
	}
	ix->tab[i].id = 0;
}

void index_table_del(struct index *ix, uint64_t hash, uint32_t id)
{
	uint32_t i = (uint32_t)hash & ix->mask;

	while (ix->tab[i].id != id) {
		BUG_ON(!ix->tab[i].id);
		i = (i + 1) & ix->mask;
	}
	table_close_gap(ix, i);
	ix->nr--;
}

static uint64_t hash_of(const struct index *ix, const struct block *b)
{
	return index_hash(ix, b->sid, b->group, b->key);
}

/* ------------------------------------------------------- sealing, evicting */

uint32_t index_enter_run(struct index *ix, const uint32_t *ids, uint32_t nr,
			 const uint64_t *hash, uint32_t parent, uint32_t pos, bool chained)
{
	struct block *blk = ix->pool->blk, *above = parent ? &blk[parent] : NULL;
	struct index_entry *tab = ix->tab;
	uint32_t mask = ix->mask, i;

	for (i = 0; i < nr; i++) {
		struct block *b = &blk[ids[i]];
		uint32_t low = (uint32_t)hash[i], at = low & mask;

		if (b->state != BLK_SEALING)
			break;
		while (tab[at].id && tab[at].hash != low)
			at = (at + 1) & mask;
		if (tab[at].id)
			break;
		tab[at] = (struct index_entry) { .hash = low, .id = ids[i] };
		b->parent = 0;
		b->pos = pos + i;
		if (above) {
			b->parent = (uint32_t)(above - blk);
			above->nr_kids++;
		}
		block_set_state(b, BLK_SEALED);
		above = chained ? b : NULL;
	}
	ix->nr += i;
	if (i)
		ix->pool->sid[blk[ids[0]].sid].nr_sealed += i;
	return i;
}

void index_tell(struct index *ix, struct gpool *gp, struct block *b, uint64_t hash,
		uint8_t tag_new, uint8_t aux)
{
	const struct policy_ops *ops = gp->policy->ops;
	struct ghost *g = ghosts_find(ix->ghosts, hash);

	if (ops->insert)
		ops->insert(gp->policy, b, g, tag_new, aux);
	if (g)
		ghosts_del(ix->ghosts, hash);
}

struct block *index_seal(struct index *ix, struct gpool *gp, struct block *b, uint64_t hash,
			 uint32_t parent, uint32_t pos, uint8_t tag_new, uint8_t aux)
{
	struct block *there = index_enter(ix, gp, b, hash, parent, pos);

	if (!there)
		index_tell(ix, gp, b, hash, tag_new, aux);
	return there;
}

void index_evict(struct index *ix, struct block *b, uint32_t why)
{
	struct gpool *gp = pool_gpool(ix->pool, b);

	BUG_ON(!index_can_evict(ix, b));
	if (b->state == BLK_EVICTING)
		index_revive(ix, gp, b);
	else
		index_busy(ix, gp, b);
	index_evict_busy(ix, b, why);
}

void index_evict_busy(struct index *ix, struct block *b, uint32_t why)
{
	struct pool *p = ix->pool;
	struct gpool *gp = pool_gpool(p, b);
	uint64_t hash = hash_of(ix, b);
	bool stale = b->sid != gp->sp->sid;
	struct ghost *g;

	g = !stale ? ghosts_add(ix->ghosts, hash) : NULL;
	if (g) {
		g->when = b->last_use;
		g->why = (uint8_t)why;
		g->uses = b->uses;
		g->tag = b->tag;
		g->aux = gp->policy->ops->aux ? gp->policy->ops->aux(gp->policy, b) : 0;
	}
	index_table_del(ix, hash, pool_id(p, b));
	index_unparent(ix, b);
	p->sid[b->sid].nr_sealed--;
	gp->sp->nr_stale -= stale;
	block_set_state(b, BLK_EVICTING);
	if (why == KVMD_MISS_DROPPED && (b->ram | b->disk))
		p->lower->drop(p, b, true);
	pool_free(p, b);
}

void index_put(struct index *ix, struct block *b)
{
	struct pool *p = ix->pool;

	if (likely(b->state == BLK_SEALED)) {
		BUG_ON(!b->leases);
		if (!--b->leases)
			index_idle(ix, pool_gpool(p, b), b);
	} else if (b->state == BLK_LOADING) {
		b->leases--;
	} else if (block_is_lost(b)) {
		b->leases--;
		index_lost_put(ix, b);
	} else {
		pool_free(p, b);
	}
}

/* ----------------------------------------------------------------- reasons */

uint32_t index_miss_reason(struct index *ix, const struct space *sp, uint8_t group,
			   const void *key)
{
	const struct pool *p = ix->pool;
	uint64_t hash = index_hash(ix, sp->sid, group, key);
	struct block *b;
	struct ghost *g;

	b = index_find(ix, sp->sid, group, key, hash);
	if (b && !index_hittable(ix, b))
		return KVMD_MISS_DROPPED;	/* here, but its time is over */
	if (b)				/* below HBM, and the client did not ask there */
		return b->state == BLK_LOADING ? KVMD_MISS_PENDING : KVMD_MISS_EVICTED;
	g = ghosts_find(ix->ghosts, hash);
	if (g)
		return g->why;
	if (!sp->nr_stale)
		return KVMD_MISS_NEVER;
	for (uint32_t sid = 1; sid < POOL_MAX_SIDS; sid++)
		if (p->sid[sid].sp == sp && sid != sp->sid &&
		    index_find(ix, (uint16_t)sid, group, key,
			       index_hash(ix, (uint16_t)sid, group, key)))
			return KVMD_MISS_EPOCH;
	return KVMD_MISS_NEVER;
}

int index_check(const struct index *ix, char *msg, size_t msg_bytes)
{
	const struct pool *p = ix->pool;
	uint32_t nr = 0;

	for (uint32_t id = 1; id < p->next_fresh; id++) {
		const struct block *b = pool_block(p, id);

		if (b->state != BLK_SEALED && b->state != BLK_LOADING && b->state != BLK_EVICTING)
			continue;
		nr++;
		if (index_find(ix, b->sid, b->group, b->key, hash_of(ix, b)) != b) {
			snprintf(msg, msg_bytes, "block %u is sealed but not found by its key", id);
			return -EUCLEAN;
		}
	}
	if (nr != ix->nr) {
		snprintf(msg, msg_bytes, "index has %u entries, %u blocks are sealed", ix->nr, nr);
		return -EUCLEAN;
	}
	return 0;
}
