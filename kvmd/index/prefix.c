/* SPDX-License-Identifier: Apache-2.0 */
/*
 * prefix.c - the prefix walk: which blocks of a key list are here, and how long
 * a prefix every group can serve.
 *
 * Lookups go in small batches of three passes (hash and prefetch the table,
 * find a candidate and prefetch its record, compare and lease), so that cold
 * lines are fetched side by side.
 */
#include "kvmd/index/seq.h"

#include "kvmd/lib/stats.h"

#define BATCH	32

/* What a batch of keys may be: to be proven by comparing whole keys. */
struct batch {
	uint64_t hash[BATCH];
	uint32_t id[BATCH];		/* candidate records, 0: none */
};

static void batch_look(const struct index *ix, uint16_t sid, uint8_t g, const uint8_t *keys,
		       uint32_t nr, struct batch *bt)
{
	for (uint32_t i = 0; i < nr; i++) {
		bt->hash[i] = index_hash(ix, sid, g, keys + i * KVMD_KEY_BYTES);
		index_prefetch(ix, bt->hash[i]);
	}
	for (uint32_t i = 0; i < nr; i++) {
		bt->id[i] = index_candidate(ix, bt->hash[i]);
		/* A record may lie on two lines; both are looked at. */
		__builtin_prefetch(pool_block(ix->pool, bt->id[i])->key);
		__builtin_prefetch(&pool_block(ix->pool, bt->id[i])->sid);
	}
}

/* The block of key @i of the batch, leasable now; NULL: none. */
static struct block *batch_find(const struct index *ix, uint16_t sid, uint8_t g,
				const uint8_t *key, const struct batch *bt, uint32_t i)
{
	struct block *b = pool_block(ix->pool, bt->id[i]);

	if (!bt->id[i])
		return NULL;
	if (unlikely(b->sid != sid || b->group != g || !key_equal(b->key, key)))
		b = index_find(ix, sid, g, key, bt->hash[i]);
	return index_hittable(ix, b) ? b : NULL;
}

static void count_use(struct block *b)
{
	b->uses += b->uses != UINT8_MAX;
}

/* One lease more of a block in any tier; its row entry only when it is in HBM. */
static void lease_any_level(struct seqtab *st, uint32_t s, uint32_t g, uint32_t pos,
			    struct block *b)
{
	index_get(st->ix, &st->sp->gp[g], b);
	count_use(b);
	seq_blocks(st, s, g)[pos] = pool_id(st->ix->pool, b);
	st_rlx(&seq_row(st, s, g)[pos],
	       block_is_resident(b) ? (int32_t)b->slot : KVMD_SLOT_NULL);
}

uint32_t seq_lease_prefix(struct seqtab *st, uint32_t s, uint32_t g, uint32_t from,
			  const void *keys, uint32_t nr)
{
	struct index *ix = st->ix;
	uint16_t sid = st->seq[s].sid;
	uint32_t *blocks = seq_blocks(st, s, g) + from;
	int32_t *row = seq_row(st, s, g) + from;
	const uint8_t *k = keys;
	struct batch bt;

	for (uint32_t at = 0; at < nr; at += BATCH) {
		uint32_t n = min(nr - at, (uint32_t)BATCH);

		batch_look(ix, sid, (uint8_t)g, k + at * KVMD_KEY_BYTES, n, &bt);
		for (uint32_t i = 0; i < n; i++) {
			struct block *b = batch_find(ix, sid, (uint8_t)g,
						     k + (at + i) * KVMD_KEY_BYTES, &bt, i);

			if (!b)
				return at + i;
			if (unlikely(!block_is_resident(b))) {
				if (b->state != BLK_EVICTING || !b->slot)
					return at + i;
				index_revive(ix, &st->sp->gp[g], b);
			}
			b->leases++;
			count_use(b);
			blocks[at + i] = pool_id(ix->pool, b);
			st_rlx(&row[at + i], (int32_t)b->slot);
		}
	}
	return nr;
}

void seq_lease_settle(struct seqtab *st, uint32_t s, uint32_t g, uint32_t from, uint32_t nr)
{
	const uint32_t *blocks = seq_blocks(st, s, g) + from;
	struct gpool *gp = &st->sp->gp[g];

	for (uint32_t i = 0; i < nr; i++) {
		struct block *b = pool_block(st->ix->pool, blocks[i]);

		if (b->flags & BLK_F_IDLE)
			gpool_busy(gp, b);
	}
}

uint32_t seq_lease_lower(struct seqtab *st, uint32_t s, uint32_t g, uint32_t from,
			 const void *keys, uint32_t nr)
{
	struct index *ix = st->ix;
	uint16_t sid = st->seq[s].sid;
	const uint8_t *k = keys;
	struct batch bt;

	for (uint32_t at = 0; at < nr; at += BATCH) {
		uint32_t n = min(nr - at, (uint32_t)BATCH);

		batch_look(ix, sid, (uint8_t)g, k + at * KVMD_KEY_BYTES, n, &bt);
		for (uint32_t i = 0; i < n; i++) {
			struct block *b = batch_find(ix, sid, (uint8_t)g,
						     k + (at + i) * KVMD_KEY_BYTES, &bt, i);

			if (!b)
				return at + i;
			lease_any_level(st, s, g, from + at + i, b);
		}
	}
	return nr;
}

static enum blk_level hit_level(const struct block *b)
{
	if (b->state == BLK_LOADING)
		return LEVEL_RAM;
	return b->slot ? LEVEL_HBM : b->ram ? LEVEL_RAM : LEVEL_DISK;
}

uint32_t prefix_count(const struct index *ix, uint16_t sid, uint8_t g, const uint8_t *keys,
		      uint32_t nr, uint32_t n[NR_LEVEL])
{
	enum blk_level least = LEVEL_HBM;
	struct batch bt;

	n[LEVEL_HBM] = n[LEVEL_RAM] = n[LEVEL_DISK] = 0;
	for (uint32_t at = 0; at < nr; at += BATCH) {
		uint32_t m = min(nr - at, (uint32_t)BATCH);

		batch_look(ix, sid, g, keys + (size_t)at * KVMD_KEY_BYTES, m, &bt);
		for (uint32_t i = 0; i < m; i++) {
			const struct block *b = batch_find(ix, sid, g,
						keys + (size_t)(at + i) * KVMD_KEY_BYTES, &bt, i);

			if (!b)
				return at + i;
			least = min(least, hit_level(b));
			for (int l = LEVEL_DISK; l <= (int)least; l++)
				n[l] = at + i + 1;
		}
	}
	return nr;
}

uint32_t seq_lease_any(struct seqtab *st, uint32_t s, uint32_t g, uint32_t from,
		       const void *keys, uint32_t nr, bool lower)
{
	struct index *ix = st->ix;
	uint16_t sid = st->seq[s].sid;
	const uint8_t *k = keys;
	struct batch bt;
	uint32_t found = 0;

	for (uint32_t at = 0; at < nr; at += BATCH) {
		uint32_t n = min(nr - at, (uint32_t)BATCH);

		batch_look(ix, sid, (uint8_t)g, k + at * KVMD_KEY_BYTES, n, &bt);
		for (uint32_t i = 0; i < n; i++) {
			struct block *b = batch_find(ix, sid, (uint8_t)g,
						     k + (at + i) * KVMD_KEY_BYTES, &bt, i);

			if (!b || (!lower && hit_level(b) != LEVEL_HBM))
				continue;
			lease_any_level(st, s, g, from + at + i, b);
			found++;
		}
	}
	return found;
}

/* ------------------------------------------------- the length all can serve */

static bool window_serves(const struct gpool *gp, const uint32_t *blocks, uint32_t nr)
{
	uint32_t bt = gp->geo.block_tokens;
	uint32_t win = (uint32_t)div_round_up(gp->geo.window, bt);
	uint32_t sinks = (uint32_t)div_round_up(gp->geo.sinks, bt);

	for (uint32_t i = 0; i < min(sinks, nr); i++)
		if (!blocks[i])
			return false;
	for (uint32_t i = nr > win ? nr - win : 0; i < nr; i++)
		if (!blocks[i])
			return false;
	return true;
}

/*
 * Window groups: the largest length <= @nr blocks that can be served. One pass
 * down: `run` blocks from position i on are known to be there.
 */
static uint32_t window_longest(const struct gpool *gp, const uint32_t *blocks, uint32_t nr)
{
	uint32_t bt = gp->geo.block_tokens;
	uint32_t win = (uint32_t)div_round_up(gp->geo.window, bt);
	uint32_t sinks = (uint32_t)div_round_up(gp->geo.sinks, bt);
	uint32_t have = 0, end = nr;

	while (have < min(sinks, nr) && blocks[have])
		have++;
	if (have < min(sinks, nr))
		end = have;		/* a sink is missing: only what lies before it */
	for (uint32_t i = end; i > 0; i--) {
		if (!blocks[i - 1])
			end = i - 1;
		else if (end - (i - 1) >= win)
			break;
	}
	return end;
}

/* Largest length in tokens, at most @tokens, that group @g can serve. */
static uint32_t group_longest(const struct seqtab *st, uint32_t s, uint32_t g, uint32_t tokens)
{
	const struct gpool *gp = &st->sp->gp[g];
	const uint32_t *blocks = seq_blocks(st, s, g);
	uint32_t bt = gp->geo.block_tokens;
	uint32_t nr = min(tokens / bt, st->seq[s].len[g]);

	switch (gp->geo.rule) {
	case KVMD_RULE_WINDOW:
		nr = window_longest(gp, blocks, nr);
		break;
	case KVMD_RULE_STATE:
		while (nr && !blocks[nr - 1])
			nr--;
		break;
	default:
		break;			/* len[] is the prefix that hit */
	}
	return nr * bt;
}

/* Is position @i of group @g needed to serve @nr blocks? */
static bool needed(const struct gpool *gp, uint32_t i, uint32_t nr)
{
	uint32_t bt = gp->geo.block_tokens;

	if (i >= nr)
		return false;
	if (gp->geo.rule == KVMD_RULE_STATE)
		return i == nr - 1;
	if (gp->geo.rule == KVMD_RULE_WINDOW)
		return i < div_round_up(gp->geo.sinks, bt) ||
		       i + div_round_up(gp->geo.window, bt) >= nr;
	return true;
}

static void give_back_rest(struct seqtab *st, uint32_t s, uint32_t g, uint32_t nr)
{
	struct seq *q = &st->seq[s];
	const struct gpool *gp = &st->sp->gp[g];
	uint32_t *blocks = seq_blocks(st, s, g);

	for (uint32_t i = q->len[g]; i-- > 0;) {
		uint32_t id = blocks[i];

		if (!id || needed(gp, i, nr))
			continue;
		seq_set(st, s, g, i, 0);
		index_put(st->ix, pool_block(st->ix->pool, id));
	}
	q->len[g] = nr;
	if (gp->geo.rule == KVMD_RULE_WINDOW)
		BUG_ON(!window_serves(gp, blocks, nr));
}

uint32_t seq_settle(struct seqtab *st, uint32_t s)
{
	uint32_t tokens = UINT32_MAX, before;

	/* Each group can only shorten it; repeat until all agree. */
	do {
		before = tokens;
		for (uint32_t g = 0; g < st->sp->nr_groups; g++)
			tokens = group_longest(st, s, g, tokens);
	} while (tokens != before);
	for (uint32_t g = 0; g < st->sp->nr_groups; g++)
		give_back_rest(st, s, g, tokens / st->sp->gp[g].geo.block_tokens);
	return tokens;
}
