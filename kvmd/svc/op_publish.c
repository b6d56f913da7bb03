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

/*
 * One piece being sealed, core thread only: the hashes of its keys, and which
 * of its blocks were sealed and are not yet told of (see tell_fresh()).
 */
static uint64_t hashes[PIECE];
static uint16_t fresh[PIECE];
static uint32_t nr_fresh;
BUILD_BUG_ON(PIECE > UINT16_MAX);

static inline void hash_ahead(const struct index *ix, uint16_t sid, uint8_t group,
			      const uint8_t *key, uint32_t i)
{
	hashes[i] = index_hash(ix, sid, group, key);
	index_prefetch(ix, hashes[i]);
}

/*
 * Copy keys into the records of a piece, and hash them, so that the lines of
 * the table come side by side. Stops at the first block that cannot be
 * published (not private, no block); *ret_nr says how many were accepted.
 */
static int accept_piece(struct op *op, uint32_t *ret_nr)
{
	struct session *s = op->s;
	struct seq *q = op_seq(op);
	uint32_t n = min(op->e.nr - op->cursor, PIECE), i;
	const uint32_t *blocks = seq_blocks(&s->st, op->e.seq, op->e.group) + op->e.first +
				 op->cursor;
	const char *keys = s->args + op->e.off + (uint64_t)op->cursor * KVMD_KEY_BYTES;
	struct pool *p = s->d->pool;

	*ret_nr = 0;
	if ((uint64_t)op->e.first + op->e.nr > q->len[op->e.group])
		return -EINVAL;
	for (i = 0; i < n; i++) {
		struct block *b = pool_block(p, blocks[i]);
		uint8_t key[KVMD_KEY_BYTES];

		ring_fetch_key(key, keys + (size_t)i * KVMD_KEY_BYTES);
		if (!blocks[i])
			break;
		if (b->state == BLK_SEALED && key_equal(b->key, key))
			continue;	/* a hit, published again: fine */
		if (b->state != BLK_OPEN)
			break;
		memcpy(b->key, key, sizeof(key));
		block_set_state(b, BLK_SEALING);
		hash_ahead(s->d->ix, b->sid, b->group, key, i);
	}
	*ret_nr = i;
	return i == n ? 0 : -EINVAL;
}

/* What is the same for all blocks of a piece. */
struct sealing {
	struct gpool *gp;
	const uint32_t *blocks;		/* of the sequence, from position 0 */
	uint32_t hole;			/* first position that may not be sealed */
	uint16_t sid;
	bool chained;			/* each under the one before it */
};

static struct sealing sealing_of(const struct op *op)
{
	const struct session *s = op->s;
	const struct seq *q = op_seq(op);
	struct gpool *gp = &op->s->sp->gp[op->e.group];
	bool full = gp->geo.rule == KVMD_RULE_FULL, may;

	may = !(q->flags & SEQ_F_NO_STORE) && q->sid == s->sp->sid;
	return (struct sealing) {
		.gp = gp,
		.blocks = seq_blocks(&op->s->st, op->e.seq, op->e.group),
		.hole = !may ? 0 : full ? q->hole[op->e.group] : UINT32_MAX,
		.sid = q->sid,
		.chained = full,
	};
}

/* May position @pos be sealed, and under which parent? */
static bool may_seal(const struct sealing *w, const struct pool *p, uint32_t pos,
		     uint32_t *ret_parent)
{
	const struct block *pb;
	uint32_t prev;

	*ret_parent = 0;
	if (pos >= w->hole)
		return false;
	if (!w->chained || !pos)
		return true;
	prev = w->blocks[pos - 1];
	pb = pool_block(p, prev);
	*ret_parent = prev;
	return prev && pb->state == BLK_SEALED && pb->slot && pb->sid == w->sid;
}

/* The identity exists: point the sequence there. False: no node, keep it private. */
static bool merge(struct op *op, uint32_t pos, struct block *there, uint32_t dup)
{
	struct session *s = op->s;

	if (!op_release_later(op, dup))
		return false;
	index_get(s->d->ix, &s->sp->gp[op->e.group], there);
	seq_set(&s->st, op->e.seq, op->e.group, pos, pool_id(s->d->pool, there));
	if (!op->e.group)
		attrib_merged(s, op_seq(op), pos);
	return true;
}

/*
 * The identity exists below HBM: it takes the slot that was filled, so that the
 * row need not change. False: it is being loaded at this moment, keep it private.
 */
static bool refill(struct op *op, const struct sealing *w, uint32_t pos, struct block *there,
		   struct block *b, uint32_t parent)
{
	struct session *s = op->s;

	if (there->state == BLK_LOADING)
		return false;
	index_refill(s->d->ix, w->gp, there, b, parent);
	seq_blocks(&s->st, op->e.seq, op->e.group)[pos] = pool_id(s->d->pool, there);
	return true;
}

/* Is @there in HBM, to be read by whoever is pointed at it? */
static bool is_whole(const struct block *there)
{
	return there->slot && there->state != BLK_LOADING;
}

/* Block @i of the piece that begins at position @first. */
static void seal_one(struct op *op, const struct sealing *w, uint32_t first, uint32_t i)
{
	struct daemon *d = op->s->d;
	uint32_t id = w->blocks[first + i], parent;
	struct block *b = pool_block(d->pool, id), *there;

	if (b->state != BLK_SEALING) {
		op->n3++;		/* sealed before */
		return;
	}
	if (!may_seal(w, d->pool, first + i, &parent)) {
		block_set_state(b, BLK_OPEN);
		op->n2++;
		return;
	}
	there = index_enter(d->ix, w->gp, b, hashes[i], parent, first + i);
	if (!there) {
		op->n0++;
		fresh[nr_fresh++] = (uint16_t)i;
	} else if (!is_whole(there)) {
		if (refill(op, w, first + i, there, b, parent)) {
			op->n0++;
		} else {
			block_set_state(b, BLK_OPEN);
			op->n2++;
		}
	} else if (merge(op, first + i, there, id)) {
		op->n1++;
		stat_inc(BLOCKS_MERGED);
	} else {
		block_set_state(b, BLK_OPEN);
		op->n2++;
	}
}

/* New blocks from block @i of the piece on, the common case: how many were sealed. */
static uint32_t seal_run(struct op *op, const struct sealing *w, uint32_t first, uint32_t i,
			 uint32_t n)
{
	struct daemon *d = op->s->d;
	uint32_t parent, nr;

	if (first + i >= w->hole || !may_seal(w, d->pool, first + i, &parent))
		return 0;
	nr = index_enter_run(d->ix, w->blocks + first + i, min(n - i, w->hole - first - i),
			     hashes + i, parent, first + i, w->chained);
	for (uint32_t k = 0; k < nr; k++)
		fresh[nr_fresh + k] = (uint16_t)(i + k);
	nr_fresh += nr;
	op->n0 += nr;
	return nr;
}

/* The next @n blocks; @hashed: hashes[] is already theirs. */
static void seal_piece(struct op *op, uint32_t n, bool hashed)
{
	const struct sealing w = sealing_of(op);
	uint32_t first = op->e.first + op->cursor, sealed = op->n0;

	for (uint32_t i = 0; i < n && !hashed; i++) {
		const struct block *b = pool_block(op->s->d->pool, w.blocks[first + i]);

		hash_ahead(op->s->d->ix, b->sid, b->group, b->key, i);
	}
	for (uint32_t i = 0; i < n; i++) {
		i += seal_run(op, &w, first, i, n);
		if (i < n)
			seal_one(op, &w, first, i);
	}
	op->cursor += n;
	stat_add(BLOCKS_PUBLISHED, op->n0 - sealed);
}

/*
 * The policy and the ghosts hear of what was sealed in the piece that ends at
 * the cursor.
 */
static void tell_fresh(struct op *op, uint32_t n)
{
	struct session *s = op->s;
	const struct seq *q = op_seq(op);
	uint32_t g = op->e.group;
	const uint32_t *blocks = seq_blocks(&s->st, op->e.seq, g) + op->e.first + op->cursor - n;

	for (uint32_t i = 0; i < nr_fresh; i++)
		ghosts_prefetch(s->d->ix->ghosts, hashes[fresh[i]]);
	for (uint32_t i = 0; i < nr_fresh; i++)
		index_tell(s->d->ix, &s->sp->gp[g], pool_block(s->d->pool, blocks[fresh[i]]),
			   hashes[fresh[i]], q->tag_new[g], q->aux[g]);
	nr_fresh = 0;
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

static enum op_ret seal(struct op *op, bool hashed, struct kvmd_cqe *c)
{
	struct seq *q = op_seq(op);
	enum op_ret ret;
	uint32_t n;

	if (unlikely(earlier_sealing(op)))
		return op_park_more(op, false);
	op->phase = PUB_SEAL;
	n = min(op->e.nr - op->cursor, PIECE);
	seal_piece(op, n, hashed);
	if (op->cursor < op->e.nr) {
		tell_fresh(op, n);
		return op_park_more(op, false);
	}
	q->nr_publishing--;
	stat_add(BLOCKS_PRIVATE, op->n2);
	c->v0 = op->n1;
	c->v1 = op->n2;
	ret = op_done(c, (int)(op->n0 + op->n1 + op->n3));
	op_answer(op, c);
	tell_fresh(op, n);
	return ret;
}

enum op_ret op_seq_publish(struct op *op, int err, struct kvmd_cqe *c)
{
	struct session *s = op->s;
	uint32_t nr;

	if (op->phase == PUB_STEP)
		op->cursor = 0;
	if (op->phase != PUB_ACCEPT)
		return seal(op, false, c);
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
	return seal(op, nr == op->e.nr, c);
}
