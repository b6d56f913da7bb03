/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restore_seq.c - the sequences of a former daemon's sessions; see restore.h.
 *
 * The mirror is the truth and the row follows, as ever. A row that names a slot
 * which nobody has keeps that slot from being used: somebody may be reading it.
 */
#include "kvmd/index/restore.h"

#include <sys/mman.h>
#include <sys/stat.h>

/* ------------------------------------------------------------ sequence tables */

static int attach_map(int fd, uint64_t bytes, void **ret_map)
{
	struct stat st;
	void *p;

	if (fstat(fd, &st) || (uint64_t)st.st_size != bytes)
		return -EINVAL;
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	*ret_map = p;
	return 0;
}

int seqtab_attach(struct index *ix, struct space *sp, uint32_t max_seqs, uint32_t max_tokens,
		  const int fd[3], struct seqtab *ret_st)
{
	struct seqtab st = { .ix = ix, .sp = sp, .max_seqs = max_seqs };
	void *map;
	int err;

	seqtab_shape(&st, sp, max_tokens);
	err = attach_map(fd[0], seqtab_seqs_bytes(&st), &map);
	if (err)
		return err;
	st.seq = map;
	err = attach_map(fd[1], seqtab_rows_bytes(&st), &map);
	if (err)
		goto err_unmap_seqs;
	st.mirror = map;
	err = attach_map(fd[2], seqtab_rows_bytes(&st), &map);
	if (err)
		goto err_unmap_mirror;
	st.rows = map;
	st.rows_fd = fd[2];
	err = seqtab_rows_open(&st);
	if (err)
		goto err_unmap_rows;
	st.seq_fd = fd[0];
	st.mirror_fd = fd[1];
	*ret_st = st;
	return 0;

err_unmap_rows:
	munmap(st.rows, seqtab_rows_bytes(&st));
err_unmap_mirror:
	munmap(st.mirror, seqtab_rows_bytes(&st));
err_unmap_seqs:
	munmap(st.seq, seqtab_seqs_bytes(&st));
	return err;
}

void seqtab_count(const struct seqtab *st, uint32_t *refs, uint32_t nr)
{
	for (uint32_t s = 0; s < st->max_seqs; s++) {
		const struct seq *q = &st->seq[s];

		for (uint32_t g = 0; q->state != SEQ_FREE && g < st->sp->nr_groups; g++) {
			const uint32_t *blocks = seq_blocks(st, s, g);
			uint32_t len = min(q->len[g], st->row_blocks[g]);

			for (uint32_t i = 0; i < len; i++) {
				uint32_t id = blocks[i];

				if (!id || id >= nr)
					continue;
				refs[id] += POOL_REF_NR(refs[id]) < POOL_REF_SWAPPED - 1;
				if (q->flags & SEQ_F_SWAPPED)
					refs[id] |= POOL_REF_SWAPPED;
			}
		}
	}
}

/* ------------------------------------------------------------------ sequences */

/* What became of a position. */
enum taken {
	TAKEN,			/* it is there, or names nothing */
	TAKEN_BELOW,		/* leased, but not in HBM */
	TAKEN_LOST,		/* private, and its bytes are nowhere: names nothing now */
	TAKEN_WRONG,		/* names what cannot be */
};

/*
 * The record that a position names. A publish that was cut off between handing a
 * slot to the block of the same key and rewriting the position names a free
 * record with the key still in it, and the row names the slot.
 */
static struct block *named(const struct seqtab *st, const struct pool_restore *r, uint32_t g,
			   uint32_t id, int32_t row)
{
	const struct gpool *gp = &st->sp->gp[g];
	struct block *b = id < r->fresh ? pool_block(r->p, id) : NULL, *o;
	uint32_t slot = (uint32_t)row, other;

	if (!b || b->state != BLK_FREE)
		return b;
	other = slot && slot < gp->max_slots ? gp->slot_owner[slot] : 0;
	o = pool_block(r->p, other);
	return other && o->state == BLK_SEALED && key_equal(o->key, b->key) ? o : b;
}

static enum taken take(struct seqtab *st, struct pool_restore *r, uint32_t s, uint32_t g,
		       uint32_t pos, uint32_t owner)
{
	uint32_t *id = &seq_blocks(st, s, g)[pos];
	int32_t *row = &seq_row(st, s, g)[pos];
	const struct block *at = pool_block(r->p, *id < r->fresh ? *id : 0);
	struct block *b = named(st, r, g, *id, ld_rlx(row));
	bool mine;

	if (!*id) {
		st_rlx(row, KVMD_SLOT_NULL);
		return TAKEN;
	}
	mine = b && b->state != BLK_FREE && b->group == g && r->p->sid[b->sid].sp == st->sp;
	if (mine && b->state == BLK_SEALED) {
		b->leases++;
		*id = pool_id(r->p, b);
		return b->slot ? TAKEN : TAKEN_BELOW;
	}
	if (mine && b->leases == 1 && (b->state == BLK_OPEN || b->state == BLK_QUARANTINE)) {
		b->owner = owner;
		if (b->state == BLK_QUARANTINE)
			return TAKEN_WRONG;
		return b->slot ? TAKEN : TAKEN_BELOW;
	}
	/* Its slot, if the row names one that is nobody's now, may still be read. */
	pool_restore_hold_slot(r, &st->sp->gp[g], (uint32_t)ld_rlx(row));
	*id = 0;
	/* Free, or nobody's and only there to hold the slot that a load was under way to. */
	return at->state == BLK_FREE || (at->state == BLK_QUARANTINE && !at->leases) ?
	       TAKEN_LOST : TAKEN_WRONG;
}

/* Positions from @nr on are given back, last first. */
static void cut(struct seqtab *st, struct pool_restore *r, uint32_t s, uint32_t g, uint32_t nr)
{
	struct seq *q = &st->seq[s];
	uint32_t *blocks = seq_blocks(st, s, g);

	while (q->len[g] > nr) {
		uint32_t pos = q->len[g] - 1;
		struct block *b = pool_block(r->p, blocks[pos]);

		if (blocks[pos] && b->state == BLK_SEALED) {
			b->leases--;
		} else if (blocks[pos]) {
			r->nr_open -= b->state == BLK_OPEN;
			pool_restore_drop(r, b);
		}
		blocks[pos] = 0;
		st_rlx(&seq_row(st, s, g)[pos], KVMD_SLOT_NULL);
		q->len[g] = pos;
	}
}

static uint32_t leading(const struct seqtab *st, const struct pool_restore *r, uint32_t s,
			uint32_t g)
{
	const uint32_t *blocks = seq_blocks(st, s, g);
	uint32_t i = 0;

	while (i < st->seq[s].len[g] && (!blocks[i] || pool_block(r->p, blocks[i])->slot))
		i++;
	return i;
}

/*
 * Its loads ended with the daemon: what every group has of it stays, in front of
 * the first position that was @lost.
 */
static void cut_loads(struct seqtab *st, struct pool_restore *r, uint32_t s, const uint32_t *lost)
{
	struct seq *q = &st->seq[s];
	uint64_t tokens = UINT64_MAX;

	for (uint32_t g = 0; g < st->sp->nr_groups; g++) {
		const struct kvmd_group *geo = &st->sp->gp[g].geo;
		uint32_t n = min(leading(st, r, s, g), lost[g]);

		if (n < q->len[g] && geo->rule != KVMD_RULE_FULL)
			tokens = 0;
		else if (n < q->len[g])
			tokens = min(tokens, (uint64_t)n * geo->block_tokens);
	}
	if (tokens == UINT64_MAX)
		return;
	for (uint32_t g = 0; g < st->sp->nr_groups; g++)
		cut(st, r, s, g, (uint32_t)min(tokens / st->sp->gp[g].geo.block_tokens,
					       (uint64_t)q->len[g]));
	q->load_err = -ECONNRESET;
}

/* The row follows the mirror. */
static void set_rows(struct seqtab *st, const struct pool_restore *r, uint32_t s)
{
	for (uint32_t g = 0; g < st->sp->nr_groups; g++) {
		const uint32_t *blocks = seq_blocks(st, s, g);
		int32_t *row = seq_row(st, s, g);

		for (uint32_t i = 0; i < st->seq[s].len[g]; i++) {
			int32_t slot = (int32_t)pool_block(r->p, blocks[i])->slot;

			if (blocks[i] && ld_rlx(&row[i]) != slot)
				st_rlx(&row[i], slot);
		}
	}
}

/* What only meant something to the former daemon. */
static bool reset(struct seqtab *st, uint32_t s)
{
	struct seq *q = &st->seq[s];
	bool good = q->state < NR_SEQ_STATE;

	q->q_head = q->q_tail = q->blocked = SEQ_NO_OP;
	q->nr_publishing = 0;
	q->kicking = false;
	q->load_next = 0;
	if (q->state == SEQ_FREE)
		return true;
	if (!q->sid || q->sid >= POOL_MAX_SIDS)
		q->sid = st->sp->sid;
	memset(q->tag_new, 0, sizeof(q->tag_new));
	memset(q->aux, 0, sizeof(q->aux));
	if (!good)
		q->state = SEQ_CLOSING;
	for (uint32_t g = 0; g < st->sp->nr_groups; g++) {
		if (q->len[g] <= st->row_blocks[g])
			continue;
		q->len[g] = st->row_blocks[g];
		good = false;
	}
	return good;
}

static bool restore_one(struct seqtab *st, struct pool_restore *r, uint32_t s, uint32_t owner)
{
	struct seq *q = &st->seq[s];
	bool good, loading = q->loading, swapped = q->flags & SEQ_F_SWAPPED;
	uint32_t nr[TAKEN_WRONG + 1] = { 0 }, lost[KVMD_MAX_GROUPS];

	for (uint32_t g = 0; g < st->sp->nr_groups; g++) {
		lost[g] = UINT32_MAX;
		for (uint32_t i = 0; i < q->len[g]; i++) {
			enum taken t = take(st, r, s, g, i, owner);

			nr[t]++;
			if (t == TAKEN_LOST)
				lost[g] = min(lost[g], i);
		}
	}
	q->loading = false;
	good = !nr[TAKEN_WRONG] && (!nr[TAKEN_LOST] || swapped || loading);
	if (!good)
		return false;		/* its rows stay as they are until its processes are gone */
	if (loading)
		cut_loads(st, r, s, lost);
	else if (nr[TAKEN_BELOW])
		q->flags |= SEQ_F_SWAPPED;
	if (nr[TAKEN_LOST] && swapped)
		q->flags |= SEQ_F_BROKEN;
	set_rows(st, r, s);
	seq_tell_status(st, s);
	return true;
}

bool seqtab_restore(struct seqtab *st, struct pool_restore *r, uint32_t owner)
{
	bool good = true;

	st->nr_live = 0;
	st->loading = 0;
	for (uint32_t s = 0; s < st->max_seqs; s++) {
		good &= reset(st, s);
		if (st->seq[s].state == SEQ_FREE)
			continue;
		st->nr_live++;
		if (st->seq[s].state == SEQ_CLOSING)
			st->seq[s].flags |= SEQ_F_ENDED;
		good &= restore_one(st, r, s, owner);
	}
	return good;
}
