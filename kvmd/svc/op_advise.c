/* SPDX-License-Identifier: Apache-2.0 */
/*
 * op_advise.c - ADVISE: hints about blocks, named by key or by position.
 *
 * Work goes from the last block to the first, so that DROP meets children
 * before their parents; WILLNEED from the first to the last, so that a chain
 * comes up from its root. A pin is a lease the session holds besides its
 * sequences', within its tenant's budget; what it holds is brought to HBM.
 * Advice holds for blocks of every tier.
 */
#include "kvmd/svc/daemon.h"
#include "kvmd/svc/ops.h"

#include "kvmd/lib/stats.h"
#include "kvmd/pool/policy.h"

int block_willneed(struct daemon *d, struct block *b)
{
	struct gpool *gp = pool_gpool(d->pool, b);

	if (b->state == BLK_EVICTING && tiers_may_stay(d->tiers, b))
		tiers_stay(d->tiers, gp, b);	/* it was about to sink */
	if (b->slot)
		return 0;			/* there, or on its way */
	if (b->flags & BLK_F_IDLE) {		/* the last to leave its tier now */
		index_busy(d->ix, gp, b);
		index_idle(d->ix, gp, b);
	}
	if (!tiers_prefetch(d->tiers, b))
		return -ENOBUFS;
	stat_inc(BLOCKS_PREFETCHED);
	return 1;
}

static int pin(struct session *s, struct gpool *gp, struct block *b)
{
	struct tenant *t = s->tenant;

	if (t->pinned_bytes + gp->slot_bytes > t->pin_bytes) {
		stat_inc(PINS_REFUSED);
		return -EDQUOT;
	}
	if (!nodeq_add(s->d->pool, &s->pins, 0, pool_id(s->d->pool, b)))
		return -ENOBUFS;
	index_get(s->d->ix, gp, b);
	if (!b->slot)
		(void)block_willneed(s->d, b);
	t->pinned_bytes += gp->slot_bytes;
	s->pinned_bytes += gp->slot_bytes;
	return 0;
}

static int unpin(struct session *s, struct gpool *gp, struct block *b)
{
	if (!nodeq_remove(s->d->pool, &s->pins, pool_id(s->d->pool, b)))
		return 1;
	s->tenant->pinned_bytes -= gp->slot_bytes;
	s->pinned_bytes -= gp->slot_bytes;
	index_put(s->d->ix, b);
	return 0;
}

static uint32_t until(const struct daemon *d, uint64_t ms)
{
	return d->pool->now + (uint32_t)min(ms * 16 / 1000 + 1, (uint64_t)INT32_MAX);
}

static void set_priority(struct daemon *d, struct block *b, uint64_t aux)
{
	b->prio = (uint8_t)(aux & 0xff);
	b->flags &= (uint8_t)~(BLK_F_PRIO | BLK_F_TTL);
	if (aux >> 8) {
		b->flags |= BLK_F_PRIO;
		b->until = until(d, aux >> 8);
	}
}

static void set_ttl(struct daemon *d, struct block *b, uint64_t ms)
{
	b->flags &= (uint8_t)~(BLK_F_PRIO | BLK_F_TTL);
	if (!ms)
		return;
	b->flags |= BLK_F_TTL;
	b->until = until(d, ms);
	d->rc.nr_ttl++;
	d->rc.kick = true;
}

/* The lists of @b's tier go by its new advice. */
static void reorder(struct daemon *d, struct gpool *gp, struct block *b)
{
	uint32_t used = b->last_use;

	if (!(b->flags & BLK_F_IDLE))
		return;
	if (b->slot) {
		if (gp->policy->ops->advised)
			gp->policy->ops->advised(gp->policy, b);
		return;
	}
	index_busy(d->ix, gp, b);
	index_idle(d->ix, gp, b);
	b->last_use = used;
}

/* 0: applied; 1: not applicable; -errno: refused. */
static int advise_block(struct op *op, struct block *b)
{
	struct session *s = op->s;
	struct gpool *gp = &s->sp->gp[op->e.group];

	switch (op->e.arg) {
	case KVMD_ADV_PIN:
		return pin(s, gp, b);
	case KVMD_ADV_UNPIN:
		return unpin(s, gp, b);
	case KVMD_ADV_DROP:
		if (!index_can_evict(s->d->ix, b))
			return 1;
		stat_inc(BLOCKS_DROPPED);
		index_evict(s->d->ix, b, KVMD_MISS_DROPPED);
		return 0;
	case KVMD_ADV_COLD:
		b->flags |= BLK_F_COLD;
		break;
	case KVMD_ADV_PRIORITY:
		set_priority(s->d, b, op->e.aux);
		break;
	case KVMD_ADV_TTL:
		set_ttl(s->d, b, op->e.aux);
		break;
	case KVMD_ADV_NO_STORE:
		b->flags |= BLK_F_NO_STORE;
		break;
	default:
		return block_willneed(s->d, b) < 0 ? 1 : 0;
	}
	reorder(s->d, gp, b);
	return 0;
}

/* The block of that key, and the one at position @i of the entry's; NULL: none. */
static struct block *advised_by_key(struct op *op, const uint8_t *key)
{
	struct session *s = op->s;

	return index_find(s->d->ix, s->sp->sid, op->e.group, key,
			  index_hash(s->d->ix, s->sp->sid, op->e.group, key));
}

static struct block *advised_by_pos(struct op *op, uint32_t i)
{
	struct session *s = op->s;
	uint32_t id = seq_blocks(&s->st, op->e.seq, op->e.group)[op->e.first + i];
	struct block *b = pool_block(s->d->pool, id);

	return id && (b->state == BLK_SEALED || b->state == BLK_LOADING) ? b : NULL;
}

static int advise_check(const struct op *op)
{
	const struct seq *q;

	if (!(op->e.flags & KVMD_ADVISE_SEQ))
		return 0;
	q = op_seq(op);
	if (q->state != SEQ_LIVE)
		return -ENOENT;
	if (q->gen != op->e.seq_gen)
		return -ESTALE;
	if ((uint64_t)op->e.first + op->e.nr > q->len[op->e.group])
		return -EINVAL;
	return 0;
}

enum op_ret op_advise(struct op *op, int err, struct kvmd_cqe *c)
{
	struct session *s = op->s;
	bool by_seq = op->e.flags & KVMD_ADVISE_SEQ, forward = op->e.arg == KVMD_ADV_WILLNEED;
	uint32_t n, from;

	err = advise_check(op);
	if (err)
		return op_done(c, err);
	if (op->phase == 0) {
		op->phase = 1;
		op->cursor = op->e.nr;		/* left */
	}
	n = min(op->cursor, (uint32_t)FETCH_KEYS);
	from = forward ? op->e.nr - op->cursor : op->cursor - n;
	if (!by_seq)
		ring_fetch(s->d->keys, s->args + op->e.off + (uint64_t)from * KVMD_KEY_BYTES,
			   (size_t)n * KVMD_KEY_BYTES);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t at = forward ? i : n - 1 - i;
		struct block *b = by_seq ? advised_by_pos(op, from + at) :
				  advised_by_key(op, s->d->keys + (size_t)at * KVMD_KEY_BYTES);

		err = b ? advise_block(op, b) : 1;
		if (err < 0)
			return op_done(c, op->n0 ? (int)op->n0 : err);
		op->n0 += !err;
	}
	op->cursor -= n;
	if (op->cursor)
		return op_park_more(op, false);
	return op_done(c, (int)op->n0);
}
