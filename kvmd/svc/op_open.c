/* SPDX-License-Identifier: Apache-2.0 */
/*
 * op_open.c - SEQ_OPEN and LOOKUP: which prefix is here.
 *
 * Keys are fetched in pieces of FETCH_KEYS, one piece a turn. With one full
 * group, the common case, a piece is looked up and leased as it comes. With
 * several groups every group leases what it finds, and at the end all but what
 * the longest common length needs is given back.
 */
#include "kvmd/svc/daemon.h"
#include "kvmd/svc/ops.h"

#include "kvmd/lib/stats.h"
#include "kvmd/pool/policy.h"

#define PENDING_LOOK	256	/* blocks looked at to tell `pending' from `never' */

enum { OPEN_START, OPEN_WALK, OPEN_LOWER, OPEN_LOADS, OPEN_UNDO };

/* -------------------------------------------------------------- what policy hears */

static uint32_t asked_tokens(const struct op *op)
{
	return op->e.first ? op->e.first :
	       op->list[0].nr * op->s->sp->gp[0].geo.block_tokens;
}

/* Where the request's keys stop being remembered, and what of the deepest. */
static void seen_prefix(struct session *s, const uint8_t *keys, uint32_t nr, uint32_t g,
			struct policy_req *r)
{
	struct index *ix = s->d->ix;
	const struct ghost *last = NULL;

	for (uint32_t i = 0; i < nr; i++) {
		const struct ghost *gh = ghosts_find(ix->ghosts, index_hash(ix, s->sp->sid,
						     (uint8_t)g, keys + i * KVMD_KEY_BYTES));

		if (!gh)
			break;
		last = gh;
		r->nr_seen++;
	}
	if (last) {
		r->seen_age = s->d->pool->now - last->when;
		r->seen_uses = last->uses;
		r->seen_aux = last->aux;
	}
}

static void tell_ghosts(struct session *s, const struct policy *pol, const uint8_t *keys,
			uint32_t nr, uint32_t g, const struct policy_req *r)
{
	struct index *ix = s->d->ix;

	for (uint32_t i = 0; i < nr; i++) {
		struct ghost *gh = ghosts_find(ix->ghosts, index_hash(ix, s->sp->sid,
					       (uint8_t)g, keys + i * KVMD_KEY_BYTES));

		if (gh)
			pol->ops->ghost((struct policy *)pol, gh, r);
	}
}

/*
 * Tell the policy of group @g about the request. @rest: keys behind the hit that
 * are at hand (the last piece fetched).
 */
static void tell_policy(struct op *op, uint32_t g, uint32_t nr_keys, const uint8_t *rest,
			uint32_t nr_rest)
{
	struct session *s = op->s;
	struct policy *pol = s->sp->gp[g].policy;
	struct seq *q = op_seq(op);
	struct pool *p = s->d->pool;
	const uint32_t *blocks = seq_blocks(&s->st, op->e.seq, g);
	struct policy_req r = {
		.nr_keys = nr_keys, .nr_hit = q->len[g], .nr_seen = q->len[g],
		.tokens = asked_tokens(op), .hints = op->e.arg, .gap_ns = op->e.aux,
	};
	uint32_t deepest = q->len[g] ? blocks[q->len[g] - 1] : 0;

	if (!pol->ops->request)
		return;
	if (deepest) {
		const struct block *b = pool_block(p, deepest);

		r.seen_age = p->now - b->last_use;
		r.seen_uses = b->uses;
		r.seen_aux = pol->ops->aux ? pol->ops->aux(pol, b) : 0;
	}
	if (pol->ops->wants_ghosts)
		seen_prefix(s, rest, nr_rest, g, &r);
	pol->ops->request(pol, &r);
	q->tag_new[g] = r.tag_new;
	q->aux[g] = r.aux;
	for (uint32_t i = 0; pol->ops->hit && i < q->len[g]; i++)
		if (blocks[i])
			pol->ops->hit(pol, pool_block(p, blocks[i]), &r);
	if (pol->ops->wants_ghosts && pol->ops->ghost)
		tell_ghosts(s, pol, rest, r.nr_seen - r.nr_hit, g, &r);
}

/* -------------------------------------------------------------------- the end */

static enum op_ret finish(struct op *op, uint32_t tokens, struct kvmd_cqe *c)
{
	struct session *s = op->s;
	struct seq *q = op_seq(op);

	attrib_open(s, q, asked_tokens(op), tokens, op->n2);
	stat_inc(SEQ_OPENS);
	stat_add(BLOCKS_HIT, q->len[0]);
	s->nr_hit_blocks += q->len[0];
	s->nr_asked_blocks += op->list[0].nr;
	seq_tell_status(&s->st, op->e.seq);
	c->v1 = tokens;
	c->v2 = op->n2;
	return op_done(c, (int)q->len[0]);
}

/* Tokens that are in HBM, of those the sequence's blocks have in all. */
static uint32_t tokens_in_hbm(const struct op *op, uint32_t tokens)
{
	const struct seq *q = op_seq(op);
	uint32_t bt = op->s->sp->gp[0].geo.block_tokens;

	return q->loading ? min(q->rdy[0] * bt, tokens) : tokens;
}

/*
 * All that was found is leased. What is below HBM begins to come; the completion
 * says so at once, or, with OPEN_WAIT, follows when all is there.
 */
static enum op_ret finish_loading(struct op *op, uint32_t tokens, struct kvmd_cqe *c)
{
	struct seq *q = op_seq(op);
	uint32_t bt = op->s->sp->gp[0].geo.block_tokens;
	bool comes = loads_begin(op);
	enum op_ret ret;

	ret = finish(op, tokens_in_hbm(op, min(tokens, q->len[0] * bt)), c);
	if (!comes) {
		c->v1 = min(tokens, q->len[0] * bt);
		return ret;
	}
	if (op->e.flags & KVMD_OPEN_WAIT) {
		op->phase = OPEN_LOADS;
		return op_park_load(op, true);
	}
	c->v0 = q->len[0] - q->rdy[0];
	return op_done(c, (int)q->rdy[0]);
}

/* OPEN_WAIT: all that could be loaded is there. */
static enum op_ret loads_over(struct op *op, struct kvmd_cqe *c)
{
	struct session *s = op->s;
	struct seq *q = op_seq(op);
	uint32_t tokens = UINT32_MAX;

	for (uint32_t g = 0; g < s->sp->nr_groups; g++)
		tokens = min(tokens, q->len[g] * s->sp->gp[g].geo.block_tokens);
	if (q->load_err)
		op->n2 = KVMD_MISS_EVICTED;
	if (q->load_err)
		q->miss = KVMD_MISS_EVICTED;
	c->v1 = tokens;
	c->v2 = op->n2;
	return op_done(c, (int)q->len[0]);
}

/* Is @key in a publish of @s that waits for its step? Looks at most at *@budget blocks. */
static bool pending(const struct session *s, uint32_t g, const uint8_t *key, uint32_t *budget)
{
	struct list *pos;

	list_for_each(pos, &s->step_ops) {
		const struct op *op = list_entry(pos, struct op, link);
		const uint32_t *blocks;

		if (op->e.opcode != KVMD_OP_SEQ_PUBLISH || op->e.group != g)
			continue;
		blocks = seq_blocks(&s->st, op->e.seq, g);
		for (uint32_t i = 0; i < op->e.nr && *budget; i++, --*budget) {
			uint32_t id = blocks[op->e.first + i];
			const struct block *b = pool_block(s->d->pool, id);

			if (id && b->state == BLK_SEALING && key_equal(b->key, key))
				return true;
		}
	}
	return false;
}

uint32_t miss_reason(const struct daemon *d, const struct space *sp, uint32_t g,
		     const uint8_t *key)
{
	uint32_t why = index_miss_reason(d->ix, sp, (uint8_t)g, key);
	uint32_t budget = PENDING_LOOK;

	if (why != KVMD_MISS_NEVER)
		return why;
	for (uint32_t i = 0; i < d->nr_live && budget; i++)
		if (d->live[i]->sp == sp && pending(d->live[i], g, key, &budget))
			return KVMD_MISS_PENDING;
	return why;
}

/* ----------------------------------------------------------------- the walks */

static uint32_t fetch_piece(struct op *op, const struct kvmd_key_list *l)
{
	uint32_t n = min(l->nr - op->cursor, (uint32_t)FETCH_KEYS);

	ring_fetch(op->s->d->keys, op->s->args + l->off + (uint64_t)op->cursor * KVMD_KEY_BYTES,
		   (size_t)n * KVMD_KEY_BYTES);
	return n;
}

static bool takes_lower(const struct op *op)
{
	return (op->e.flags & KVMD_OPEN_LOAD) && op->s->d->tiers;
}

/* Key @at of the piece of @n is not in HBM: go on in all tiers. */
static enum op_ret walk_lower(struct op *op, const uint8_t *keys, uint32_t n, uint32_t at,
			      struct kvmd_cqe *c)
{
	struct session *s = op->s;
	struct seq *q = op_seq(op);
	const struct kvmd_key_list *l = &op->list[0];
	uint32_t got, hbm = op->phase == OPEN_LOWER ? op->n1 : q->len[0];
	enum op_ret ret;

	op->phase = OPEN_LOWER;
	op->n1 = hbm;
	got = seq_lease_lower(&s->st, op->e.seq, 0, op->cursor,
			      keys + (size_t)at * KVMD_KEY_BYTES, n - at);
	op->cursor += got;
	q->len[0] = op->cursor;
	if (at + got == n && op->cursor < l->nr)
		return op_park_more(op, true);
	if (at + got < n)
		op->n2 = miss_reason(s->d, s->sp, 0, keys + (size_t)(at + got) * KVMD_KEY_BYTES);
	/* Before the loads begin: what the policy is told of must not move meanwhile. */
	tell_policy(op, 0, l->nr, keys + (size_t)(at + got) * KVMD_KEY_BYTES, n - at - got);
	ret = finish_loading(op, q->len[0] * s->sp->gp[0].geo.block_tokens, c);
	return ret;
}

/* One full group: lease as it comes. */
static enum op_ret walk_one(struct op *op, struct kvmd_cqe *c)
{
	struct session *s = op->s;
	struct seq *q = op_seq(op);
	const struct kvmd_key_list *l = &op->list[0];
	uint8_t *keys = s->d->keys;
	uint32_t n = fetch_piece(op, l), from, got;
	enum op_ret ret;

	if (op->phase == OPEN_LOWER)
		return walk_lower(op, keys, n, 0, c);
	from = op->cursor;
	got = seq_lease_prefix(&s->st, op->e.seq, 0, from, keys, n);
	op->cursor += got;
	q->len[0] = op->cursor;
	if (got == n && op->cursor < l->nr) {
		seq_lease_settle(&s->st, op->e.seq, 0, from, got);
		return op_park_more(op, true);
	}
	if (got < n && takes_lower(op)) {
		seq_lease_settle(&s->st, op->e.seq, 0, from, got);
		return walk_lower(op, keys, n, got, c);
	}
	if (got < n)
		op->n2 = miss_reason(s->d, s->sp, 0, keys + (size_t)got * KVMD_KEY_BYTES);
	ret = finish(op, q->len[0] * s->sp->gp[0].geo.block_tokens, c);
	op_answer(op, c);
	/* What the policy learns is not worth waiting for. */
	seq_lease_settle(&s->st, op->e.seq, 0, from, got);
	tell_policy(op, 0, l->nr, keys + (size_t)got * KVMD_KEY_BYTES, n - got);
	return ret;
}

/* One piece of one of several groups; true: that group is done. */
static bool walk_piece(struct op *op)
{
	struct session *s = op->s;
	uint32_t g = op->grp, n, got;
	const struct kvmd_key_list *l = &op->list[g];
	uint8_t *keys = s->d->keys;

	n = fetch_piece(op, l);
	if (s->sp->gp[g].geo.rule != KVMD_RULE_FULL) {
		seq_lease_any(&s->st, op->e.seq, g, op->cursor, keys, n, takes_lower(op));
		op->cursor += n;
		op_seq(op)->len[g] = op->cursor;
		return op->cursor == l->nr;
	}
	if (takes_lower(op)) {
		got = seq_lease_lower(&s->st, op->e.seq, g, op->cursor, keys, n);
	} else {
		got = seq_lease_prefix(&s->st, op->e.seq, g, op->cursor, keys, n);
		seq_lease_settle(&s->st, op->e.seq, g, op->cursor, got);
	}
	op->cursor += got;
	op_seq(op)->len[g] = op->cursor;
	if (got < n && g == 0)
		op->n2 = miss_reason(s->d, s->sp, 0, keys + (size_t)got * KVMD_KEY_BYTES);
	return got < n || op->cursor == l->nr;
}

static enum op_ret walk_groups(struct op *op, struct kvmd_cqe *c)
{
	struct session *s = op->s;
	uint32_t before, tokens;

	if (!walk_piece(op))
		return op_park_more(op, true);
	op->cursor = 0;
	if (++op->grp < s->sp->nr_groups)
		return op_park_more(op, true);
	before = op_seq(op)->len[0];
	tokens = seq_settle(&s->st, op->e.seq);
	if (op_seq(op)->len[0] < before || (s->sp->gp[0].geo.rule != KVMD_RULE_FULL &&
					    op_seq(op)->len[0] < op->list[0].nr))
		op->n2 = op->n2 ? op->n2 : KVMD_MISS_GROUP;
	for (uint32_t g = 0; g < s->sp->nr_groups; g++)
		tell_policy(op, g, op->list[g].nr, NULL, 0);
	return takes_lower(op) ? finish_loading(op, tokens, c) : finish(op, tokens, c);
}

/* --------------------------------------------------------------------- start */

/* The key list of each group, from the entry or fetched from the args area. */
static int get_lists(struct op *op)
{
	struct session *s = op->s;
	uint32_t bt0 = s->sp->gp[0].geo.block_tokens;
	int err;

	if (op->e.flags & KVMD_OPEN_LISTS)
		ring_fetch(op->list, s->args + op->e.off, op->e.nr * sizeof(op->list[0]));
	for (uint32_t g = 0; g < s->sp->nr_groups; g++) {
		if (!(op->e.flags & KVMD_OPEN_LISTS))
			op->list[g] = (struct kvmd_key_list) {
				.off = op->e.off,
				.nr = s->sp->gp[g].geo.block_tokens == bt0 ? op->e.nr : 0,
			};
		err = ring_check_list(&op->list[g], &s->lim);
		if (err)
			return err;
		if (op->list[g].nr > s->st.row_blocks[g])
			return -ENOSPC;
	}
	return 0;
}

static enum op_ret undo(struct op *op, struct kvmd_cqe *c)
{
	uint32_t budget = WORK_BLOCKS;

	op->phase = OPEN_UNDO;
	if (op_seq(op)->loading)
		loads_stop(op->s, op->e.seq);
	if (!seq_drain(&op->s->st, op->e.seq, &budget))
		return op_park_more(op, true);
	return op_done(c, op->n0 ? -(int)op->n0 : -ECANCELED);
}

enum op_ret op_seq_open(struct op *op, int err, struct kvmd_cqe *c)
{
	struct session *s = op->s;
	struct seq *q = op_seq(op);

	if (err)
		op->n0 = (uint32_t)-err;
	if (err || op->phase == OPEN_UNDO)
		return undo(op, c);
	if (op->phase == OPEN_LOADS)
		return loads_over(op, c);
	if (op->phase == OPEN_START) {
		err = get_lists(op);
		if (err)
			return op_done(c, err);
		seq_start(&s->st, op->e.seq, op->e.seq_gen);
		if (op->e.flags & KVMD_OPEN_NO_STORE)
			q->flags |= SEQ_F_NO_STORE;
		if (op->e.flags & KVMD_OPEN_BY_PLANE)
			q->flags |= SEQ_F_BY_PLANE;
		op->grp = 0;
		op->phase = OPEN_WALK;
		admin_trace_open(s, op);
		if (op->e.flags & KVMD_OPEN_NO_HIT) {
			op->n2 = KVMD_MISS_UNASKED;
			return finish(op, 0, c);
		}
	}
	if (s->sp->nr_groups == 1 && s->sp->gp[0].geo.rule == KVMD_RULE_FULL)
		return walk_one(op, c);
	return walk_groups(op, c);
}

/* -------------------------------------------------------------------- lookup */

enum op_ret op_lookup(struct op *op, int err, struct kvmd_cqe *c)
{
	struct session *s = op->s;
	struct index *ix = s->d->ix;
	struct kvmd_key_list l = { .off = op->e.off, .nr = op->e.nr };
	uint32_t n = fetch_piece(op, &l), got, in[NR_LEVEL];

	(void)err;
	got = prefix_count(ix, s->sp->sid, op->e.group, s->d->keys, n, in);
	/* n0, n1: as long as all before were in HBM, in RAM or higher. */
	if (op->n0 == op->cursor)
		op->n0 += in[LEVEL_HBM];
	if (op->n1 == op->cursor)
		op->n1 += in[LEVEL_RAM];
	op->cursor += got;
	if (got < n)
		c->v2 = miss_reason(s->d, s->sp, op->e.group,
				    s->d->keys + (size_t)got * KVMD_KEY_BYTES);
	else if (op->cursor < l.nr)
		return op_park_more(op, false);
	c->v0 = op->n1;
	c->v1 = op->cursor;
	return op_done(c, (int)op->n0);
}
