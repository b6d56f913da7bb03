/* SPDX-License-Identifier: Apache-2.0 */
/*
 * op_publish.c - PUBLISH: seal blocks under their keys, merge duplicates.
 *
 * Two phases. Accepted: the keys are copied into the records, which become
 * SEALING. When completed_step has reached the publish's step their bytes are
 * there: each is put into the index, or, if its identity exists already, the
 * sequence's entry is pointed at the existing block and the duplicate's lease
 * ends when nobody can be reading it any more.
 */
#include "kvmd/svc/daemon.h"
#include "kvmd/svc/ops.h"

#include "kvmd/lib/stats.h"

enum { PUB_ACCEPT, PUB_STEP, PUB_SEAL };

#define PIECE	1024u	/* blocks of a publish in one turn */

/* Sealed in this turn, not yet told of: see tell_fresh(). Empty between turns. */
static struct fresh {
	uint64_t hash;
	uint32_t id;
} fresh[PIECE];
static uint32_t nr_fresh;
#define BATCH	32u	/* hashed ahead of sealing */

/*
 * Copy keys into the records of a piece. Stops at the first block that cannot
 * be published (not private, no block); *ret_nr says how many were accepted.
 */
static int accept_piece(struct op *op, uint32_t *ret_nr)
{
	struct session *s = op->s;
	struct seq *q = op_seq(op);
	uint32_t n = min(op->e.nr - op->cursor, PIECE), i;
	const uint32_t *blocks = seq_blocks(&s->st, op->e.seq, op->e.group) + op->e.first +
				 op->cursor;
	const uint8_t *keys = s->d->keys;

	*ret_nr = 0;
	if ((uint64_t)op->e.first + op->e.nr > q->len[op->e.group])
		return -EINVAL;
	ring_fetch(s->d->keys, s->args + op->e.off + (uint64_t)op->cursor * KVMD_KEY_BYTES,
		   (size_t)n * KVMD_KEY_BYTES);
	for (i = 0; i < n; i++) {
		struct block *b = pool_block(s->d->pool, blocks[i]);

		if (!blocks[i])
			break;
		if (b->state == BLK_SEALED && key_equal(b->key, keys + i * KVMD_KEY_BYTES))
			continue;	/* a hit, published again: fine */
		if (b->state != BLK_OPEN)
			break;
		memcpy(b->key, keys + i * KVMD_KEY_BYTES, KVMD_KEY_BYTES);
		block_set_state(b, BLK_SEALING);
	}
	*ret_nr = i;
	return i == n ? 0 : -EINVAL;
}

/* May position @pos be sealed, and under which parent? */
static bool may_seal(const struct op *op, uint32_t pos, uint32_t *ret_parent)
{
	const struct session *s = op->s;
	const struct seq *q = op_seq(op);
	const struct gpool *gp = &s->sp->gp[op->e.group];
	uint32_t prev = pos ? seq_blocks(&s->st, op->e.seq, op->e.group)[pos - 1] : 0;
	const struct block *pb = pool_block(s->d->pool, prev);

	*ret_parent = 0;
	if ((q->flags & SEQ_F_NO_STORE) || q->sid != s->sp->sid)
		return false;
	if (gp->geo.rule != KVMD_RULE_FULL)
		return true;
	if (pos >= q->hole[op->e.group])
		return false;
	if (!pos)
		return true;
	*ret_parent = prev;
	return prev && pb->state == BLK_SEALED && pb->sid == q->sid;
}

/* The identity exists: point the sequence there. False: no node, keep it private. */
static bool merge(struct op *op, uint32_t pos, struct block *there, uint32_t dup)
{
	struct session *s = op->s;

	if (!op_release_later(op, dup))
		return false;
	index_get(&s->sp->gp[op->e.group], there);
	seq_set(&s->st, op->e.seq, op->e.group, pos, pool_id(s->d->pool, there));
	if (!op->e.group)
		attrib_merged(s, op_seq(op), pos);
	return true;
}

static void seal_one(struct op *op, uint32_t pos, uint64_t hash)
{
	struct session *s = op->s;
	uint32_t g = op->e.group, id = seq_blocks(&s->st, op->e.seq, g)[pos], parent;
	struct block *b = pool_block(s->d->pool, id), *there;

	if (b->state != BLK_SEALING) {
		op->n3++;		/* sealed before */
		return;
	}
	if (!may_seal(op, pos, &parent)) {
		block_set_state(b, BLK_OPEN);
		op->n2++;
		return;
	}
	there = index_enter(s->d->ix, &s->sp->gp[g], b, hash, parent, pos);
	if (!there) {
		op->n0++;
		fresh[nr_fresh++] = (struct fresh) { .hash = hash, .id = id };
	} else if (merge(op, pos, there, id)) {
		op->n1++;
		stat_inc(BLOCKS_MERGED);
	} else {
		block_set_state(b, BLK_OPEN);
		op->n2++;
	}
}

/* What was sealed since the last call is made known to the policy and the ghosts. */
static void tell_fresh(struct op *op)
{
	struct session *s = op->s;
	const struct seq *q = op_seq(op);
	uint32_t g = op->e.group;

	for (uint32_t i = 0; i < nr_fresh; i++)
		ghosts_prefetch(s->d->ix->ghosts, fresh[i].hash);
	for (uint32_t i = 0; i < nr_fresh; i++)
		index_tell(s->d->ix, &s->sp->gp[g], pool_block(s->d->pool, fresh[i].id),
			   fresh[i].hash, q->tag_new[g], q->aux[g]);
	nr_fresh = 0;
}

/* Hashes first, so that the lines of the table come side by side. */
static void seal_batch(struct op *op, uint32_t n)
{
	struct session *s = op->s;
	const struct index *ix = s->d->ix;
	const uint32_t *blocks = seq_blocks(&s->st, op->e.seq, op->e.group) + op->e.first +
				 op->cursor;
	uint64_t hash[BATCH];
	uint32_t sealed = op->n0;

	for (uint32_t i = 0; i < n; i++) {
		const struct block *b = pool_block(s->d->pool, blocks[i]);

		hash[i] = index_hash(ix, b->sid, op->e.group, b->key);
		index_prefetch(ix, hash[i]);
	}
	for (uint32_t i = 0; i < n; i++, op->cursor++)
		seal_one(op, op->e.first + op->cursor, hash[i]);
	stat_add(BLOCKS_PUBLISHED, op->n0 - sealed);
}

/* Is an earlier publish of the sequence still being sealed, piece by piece? */
static bool earlier_sealing(const struct op *op)
{
	struct list *pos;

	if (op->phase != PUB_STEP || op_seq(op)->nr_publishing < 2)
		return false;
	list_for_each(pos, &op->s->more) {
		const struct op *o = list_entry(pos, struct op, link);

		if (o->e.opcode == KVMD_OP_SEQ_PUBLISH && o->e.seq == op->e.seq &&
		    o->phase != PUB_ACCEPT)
			return true;
	}
	return false;
}

static enum op_ret seal(struct op *op, struct kvmd_cqe *c)
{
	struct seq *q = op_seq(op);
	uint32_t end = min(op->e.nr, op->cursor + PIECE);
	enum op_ret ret;

	if (unlikely(earlier_sealing(op)))
		return op_park_more(op, false);
	op->phase = PUB_SEAL;
	while (op->cursor < end)
		seal_batch(op, min(end - op->cursor, (uint32_t)BATCH));
	if (op->cursor < op->e.nr) {
		tell_fresh(op);
		return op_park_more(op, false);
	}
	q->nr_publishing--;
	stat_add(BLOCKS_PRIVATE, op->n2);
	c->v0 = op->n1;
	c->v1 = op->n2;
	ret = op_done(c, (int)(op->n0 + op->n1 + op->n3));
	op_answer(op, c);
	tell_fresh(op);
	return ret;
}

enum op_ret op_seq_publish(struct op *op, int err, struct kvmd_cqe *c)
{
	struct session *s = op->s;
	uint32_t nr;

	if (op->phase == PUB_STEP)
		op->cursor = 0;
	if (op->phase != PUB_ACCEPT)
		return seal(op, c);
	err = accept_piece(op, &nr);
	op->cursor += nr;
	if (err && !op->cursor)
		return op_done(c, err);
	if (err)
		op->e.nr = op->cursor;	/* what was accepted; res says how many */
	else if (op->cursor < op->e.nr)
		return op_park_more(op, true);
	op_unblock(op, op->e.seq);
	op_seq(op)->nr_publishing++;
	op->cursor = 0;
	op->phase = PUB_STEP;
	if (op->e.step > s->completed)
		session_read_steps(s);
	/* Behind others that wait: publishes of a sequence are sealed in order. */
	if (op->e.step > s->completed || !list_empty(&s->step_ops) || op_seq(op)->nr_publishing > 1) {
		enum op_ret r = op_park_step(op, false);

		seq_kick(s, op->e.seq);
		return r;
	}
	return seal(op, c);
}
