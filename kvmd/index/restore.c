/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restore.c - table, chains, sequences and idle lists; see restore.h.
 *
 * Chains are followed upwards with the way back noted in block.prev, which
 * belongs to nobody yet; a record is judged once, so the whole is linear.
 */
#include "kvmd/index/restore.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

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
	return other && is_sealed(o) && key_equal(o->key, b->key) ? o : b;
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
	if (mine && is_sealed(b)) {
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
	return at->state == BLK_FREE ? TAKEN_LOST : TAKEN_WRONG;
}

/* Positions from @nr on are given back, last first. */
static void cut(struct seqtab *st, struct pool_restore *r, uint32_t s, uint32_t g, uint32_t nr)
{
	struct seq *q = &st->seq[s];
	uint32_t *blocks = seq_blocks(st, s, g);

	while (q->len[g] > nr) {
		uint32_t pos = q->len[g] - 1;
		struct block *b = pool_block(r->p, blocks[pos]);

		if (blocks[pos] && is_sealed(b)) {
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

/* Its loads ended with the daemon: what every group has of it stays. */
static void cut_loads(struct seqtab *st, struct pool_restore *r, uint32_t s)
{
	struct seq *q = &st->seq[s];
	uint64_t tokens = UINT64_MAX;

	for (uint32_t g = 0; g < st->sp->nr_groups; g++) {
		const struct kvmd_group *geo = &st->sp->gp[g].geo;
		uint32_t n = leading(st, r, s, g);

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
	uint32_t nr[TAKEN_WRONG + 1] = { 0 };

	for (uint32_t g = 0; g < st->sp->nr_groups; g++)
		for (uint32_t i = 0; i < q->len[g]; i++)
			nr[take(st, r, s, g, i, owner)]++;
	q->loading = false;
	good = !nr[TAKEN_WRONG] && (!nr[TAKEN_LOST] || swapped || loading);
	if (!good)
		return false;		/* its rows stay as they are until its processes are gone */
	if (loading)
		cut_loads(st, r, s);
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
