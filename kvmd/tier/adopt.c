/* SPDX-License-Identifier: Apache-2.0 */
/*
 * adopt.c - what the disk tier asks and tells: blocks found by recovery, segments
 * to be reused, places lost.
 */
#include "kvmd/tier/tiers.h"

#include "kvmd/lib/stats.h"

#define HOT_USES	2	/* a block used that often is copied when its segment goes */

/* ---------------------------------------------------------------- recovery */

static bool same_geometry(const struct space *sp, const struct disk_space *e)
{
	if (sp->nr_groups != e->nr_groups || sp->nr_shards != e->nr_shards ||
	    memcmp(sp->salt_digest, e->salt_digest, sizeof(e->salt_digest)))
		return false;
	for (uint32_t g = 0; g < sp->nr_groups; g++) {
		struct kvmd_group mine = sp->gp[g].geo;

		mine.max_slots = e->group[g].max_slots;
		if (memcmp(&mine, &e->group[g], sizeof(mine)))
			return false;
	}
	return true;
}

static const uint8_t no_key[KVMD_KEY_BYTES];

static enum disk_verdict found(void *ctx, const struct disk_space *e, const struct disk_header *h,
			       uint32_t place, uint32_t *ret_block)
{
	struct tiers *t = ctx;
	struct space *sp = space_find(t->pool, e->name);
	struct block *b, *up = NULL;
	bool coded = h->codec != KVMD_CODEC_NONE;
	struct gpool *gp;
	uint64_t hash;

	if (!sp)
		return DISK_PARK;
	if (strcmp(sp->tenant->name, e->tenant) || !same_geometry(sp, e) ||
	    h->epoch != sp->epoch || h->group >= sp->nr_groups)
		return DISK_GONE;
	gp = &sp->gp[h->group];
	if (coded ? h->codec != gp->geo.codec.id || h->bytes != gp->coded_bytes :
	    h->bytes != tier_block_bytes(gp))
		return DISK_GONE;
	hash = index_hash(t->ix, sp->sid, h->group, h->key);
	b = index_find(t->ix, sp->sid, h->group, h->key, hash);
	if (b && b->disk)
		return DISK_GONE;
	if (!b && memcmp(h->parent, no_key, sizeof(no_key))) {
		up = index_find(t->ix, sp->sid, h->group, h->parent,
				index_hash(t->ix, sp->sid, h->group, h->parent));
		if (!up)
			return DISK_LATER;
	}
	if (b) {
		b->disk = place;
		b->disk_coded = coded;
		*ret_block = pool_id(t->pool, b);
	} else {
		*ret_block = index_adopt(t->ix, gp, h->key, hash, up ? pool_id(t->pool, up) : 0,
					 h->pos, place);
		if (!*ret_block)
			return DISK_GONE;
		pool_block(t->pool, *ret_block)->disk_coded = coded;
	}
	sp->tenant->disk_bytes += h->bytes;
	stat_inc(BLOCKS_ADOPTED);
	return DISK_TAKEN;
}

static void recovered(void *ctx)
{
	struct tiers *t = ctx;

	t->freed = true;
	t->ev->recovered(t->ev->ctx);
}

void tiers_space_opened(struct tiers *t, struct space *sp)
{
	uint64_t epoch;

	for (uint32_t g = 0; g < sp->nr_groups; g++)
		(void)ram_code_fit(t->ram, &sp->gp[g]);	/* without it they are kept plain */
	if (!t->disk)
		return;
	epoch = disk_space_epoch(t->disk, sp->tenant->name, sp->name);
	if (epoch > sp->epoch)
		(void)space_raise_epoch(t->pool, sp, epoch);
	disk_space_opened(t->disk, sp);
}

/* -------------------------------------------------------------- compaction */

/* The disk's copy goes, its place is the tier's own matter. */
static void forget_place(struct tiers *t, struct block *b)
{
	struct gpool *gp = pool_gpool(t->pool, b);

	gp->sp->tenant->disk_bytes -= tier_disk_bytes(gp, b);
	b->disk = 0;
}

static bool keep(void *ctx, uint32_t block, uint32_t place)
{
	struct tiers *t = ctx;
	struct block *b = pool_block(t->pool, block);

	if (b->disk != place)
		return false;
	if (b->state == BLK_SEALED && !b->slot && !b->ram && !pool_is_moving(t->pool, b)) {
		/* Only disk has it. */
		if (!block_may_sink(b, LEVEL_NONE) || b->leases || b->uses >= HOT_USES ||
		    b->prio > KVMD_PRIO_DEFAULT) {
			b->uses /= 2;	/* next time it has to have been used again */
			return true;
		}
		/* Off its list and its parent's count first: the place is not ours to free. */
		index_busy(t->ix, pool_gpool(t->pool, b), b);
		index_unparent(t->ix, b);
		forget_place(t, b);
		stat_inc(BLOCKS_DROPPED_DISK);
		index_evict_busy(t->ix, b, KVMD_MISS_EVICTED);
		return false;
	}
	if (pool_is_moving(t->pool, b) || !b->slot)
		return true;		/* being read, or RAM may leave it soon */
	forget_place(t, b);
	return false;
}

static void moved(void *ctx, uint32_t block, uint32_t from, uint32_t to)
{
	struct tiers *t = ctx;
	struct block *b = pool_block(t->pool, block);

	if (b->disk == from)
		b->disk = to;
	else
		t->disk->ops->free(t->disk, to);	/* let go of meanwhile */
}

static void lost(void *ctx, uint32_t block, uint32_t place)
{
	struct tiers *t = ctx;
	struct block *b = pool_block(t->pool, block);
	enum blk_level from = block_level(b);

	if (b->disk != place)
		return;
	stat_inc(CHECKSUM_ERRORS);
	forget_place(t, b);
	/* A read that is under way finds out itself. */
	if (!pool_is_moving(t->pool, b))
		index_place_gone(t->ix, b, from);
}

const struct disk_events tiers_disk_events = {
	.found = found,
	.keep = keep,
	.moved = moved,
	.lost = lost,
	.recovered = recovered,
};
