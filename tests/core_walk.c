/* SPDX-License-Identifier: Apache-2.0 */
/*
 * core_walk.c - everything compared with everything, after each step of a test.
 */
#include "core_rig.h"

#include <check.h>

#include "kvmd/lib/mem.h"
#include "kvmd/lib/stats.h"

struct walk {
	const struct pool *p;
	uint32_t *held;			/* [record] leases found */
	uint32_t nr_nodes;		/* nodes found */
};

static void hold(struct walk *w, uint32_t id)
{
	core_ok(id < w->p->next_fresh);
	w->held[id] += id != 0;
}

static void walk_nodes(struct walk *w, const struct nodeq *q)
{
	uint32_t last = 0;

	for (uint32_t n = q->head; n; n = w->p->node[n].next) {
		core_ok(++w->nr_nodes <= w->p->nr_nodes);
		for (uint32_t i = 0; i < w->p->node[n].nr; i++)
			hold(w, w->p->node[n].id[i]);
		last = n;
	}
	core_ok(last == q->tail);
}

/* Rows follow the mirror, and behind the end there is nothing. */
static void walk_seq(struct walk *w, const struct session *s, uint32_t sq)
{
	const struct seq *q = &s->st.seq[sq];

	for (uint32_t g = 0; g < s->sp->nr_groups; g++) {
		const uint32_t *blocks = seq_blocks(&s->st, sq, g);
		const int32_t *row = seq_row(&s->st, sq, g);
		uint32_t len = q->state == SEQ_FREE ? 0 : q->len[g];

		for (uint32_t i = 0; i < s->st.row_blocks[g]; i++) {
			uint32_t id = blocks[i];

			core_ok_msg(i < len || !id, "client %u seq %u: block %u behind the end",
				      s->serial, sq, id);
			/* A block that is coming shows its slot when it is there. */
			if (id && (q->loading || (q->flags & (SEQ_F_BY_PLANE | SEQ_F_SWAPPED))))
				core_ok(!row[i] || row[i] == (int32_t)pool_block(w->p, id)->slot);
			else
				core_ok_msg(row[i] == (id ? (int32_t)pool_block(w->p, id)->slot : 0),
					    "seq %u position %u: row %d, block %u (%s) slot %u", sq, i,
					    row[i], id, blk_state_name(pool_block(w->p, id)->state),
					    pool_block(w->p, id)->slot);
			if (id) {
				core_ok(pool_block(w->p, id)->group == g);
				hold(w, id);
			}
		}
	}
}

static void walk_session(struct walk *w, const struct session *s)
{
	uint32_t live = 0;

	for (uint32_t i = 0; s->st.seq && i < s->st.max_seqs; i++) {
		walk_seq(w, s, i);
		live += s->st.seq[i].state != SEQ_FREE;
	}
	if (s->st.seq)
		core_ok(live == s->st.nr_live);
	walk_nodes(w, &s->pins);
	walk_nodes(w, &s->cq_defer);
	walk_nodes(w, &s->step_defer);
	for (uint32_t i = 0; i < s->nr_ops; i++) {
		const struct op *op = &s->ops[i];

		if (op->state == OP_FREE)
			continue;
		walk_nodes(w, &op->held);
		/* The target of an UNSHARE that copies, or waits for a copy engine. */
		if (op->e.opcode == KVMD_OP_SEQ_UNSHARE &&
		    (op->state == OP_WAIT_COPY || op->state == OP_MORE))
			hold(w, op->n0);
	}
}

static void walk_blocks(const struct walk *w)
{
	for (uint32_t id = 1; id < w->p->next_fresh; id++) {
		const struct block *b = pool_block(w->p, id);
		uint32_t leases = b->state == BLK_FREE || b->state == BLK_BAD ? 0 : b->leases;

		core_ok_msg(leases == w->held[id], "block %u (%s, slot %u): %u leases, %u found",
			      id, blk_state_name(b->state), b->slot, leases, w->held[id]);
	}
}

/* A free slot is on the stack of its slab once, and nobody's. */
static void walk_slab(const struct gpool *gp, const struct slab *s)
{
	uint8_t *seen = mem_calloc(s->nr, 1);

	for (uint32_t i = 0; i < s->nr_free; i++) {
		uint32_t slot = gp->free_slot[s->first + i];

		core_ok(slot && slot >= s->first && slot - s->first < s->nr);
		core_ok_msg(!seen[slot - s->first]++, "slot %u is free twice", slot);
		core_ok(gp->slot_owner[slot] == 0);
	}
	mem_free(seen);
}

static void walk_slabs(const struct pool *p)
{
	uint64_t used[POOL_MAX_DEVS] = { 0 };

	for (uint32_t i = 0; i < POOL_MAX_SLABS; i++) {
		const struct slab *s = &p->slab[i];

		if (s->state == SLAB_NONE)
			continue;
		if (s->state >= SLAB_ANNOUNCED && s->state <= SLAB_WAIT_TENANT)
			walk_slab(s->gp, s);
		for (uint32_t sh = 0; sh < s->gp->sp->nr_shards; sh++)
			used[s->gp->sp->dev[sh] - p->dev] += s->gp->geo.planes * s->extent_bytes;
	}
	for (uint32_t i = 0; i < p->nr_devs; i++)
		core_ok(used[i] == p->dev[i].used_bytes);
}

static void walk_nodes_free(const struct walk *w)
{
	uint32_t nr = 0;

	for (uint32_t n = w->p->node_head; n; n = w->p->node[n].next)
		core_ok(++nr <= w->p->nr_nodes);
	core_ok(nr == w->p->nr_free_nodes);
	core_ok(nr + w->nr_nodes == w->p->nr_nodes);
}

static void walk_tokens(void)
{
	uint64_t sum = stat_get(TOKENS_HBM) + stat_get(TOKENS_RAM) + stat_get(TOKENS_DISK) +
		       stat_get(TOKENS_MERGED) + stat_get(TOKENS_RECOMPUTED) +
		       stat_get(TOKENS_PENDING);

	core_ok(stat_get(TOKENS_ASKED) == sum);
	core_ok(stat_get(TOKENS_RECOMPUTED) ==
			  stat_get(RECOMPUTED_NEVER) + stat_get(RECOMPUTED_EVICTED) +
			  stat_get(RECOMPUTED_DROPPED) + stat_get(RECOMPUTED_EPOCH) +
			  stat_get(RECOMPUTED_PENDING) + stat_get(RECOMPUTED_REFUSED) +
			  stat_get(RECOMPUTED_UNASKED) + stat_get(RECOMPUTED_GROUP) +
			  stat_get(RECOMPUTED_TAIL));
}

void core_walk(const struct core *c)
{
	const struct daemon *d = c->d;
	struct walk w = { .p = d->pool };
	uint64_t pinned[POOL_MAX_TENANTS] = { 0 };
	char msg[256] = "";

	core_ok_msg(!pool_check(d->pool, msg, sizeof(msg)), "%s", msg);
	core_ok_msg(!index_check(d->ix, msg, sizeof(msg)), "%s", msg);
	if (d->tiers)
		core_ok_msg(!tiers_check(d->tiers, msg, sizeof(msg)), "%s", msg);
	w.held = mem_calloc((size_t)d->pool->nr_blocks + 1, sizeof(*w.held));
	core_ok(w.held);
	for (uint32_t i = 0; i < POOL_MAX_CONNS; i++) {
		if (d->session[i].state == SESSION_FREE)
			continue;
		walk_session(&w, &d->session[i]);
		pinned[d->session[i].tenant->id] += d->session[i].pinned_bytes;
	}
	for (uint32_t i = 0; i < MAX_TICKETS; i++)
		if (d->ticket[i].id)
			walk_nodes(&w, &d->ticket[i].ids);
	for (uint32_t i = 0; i < NR_COPY_JOBS; i++)
		if (d->job[i].busy && d->job[i].orphan)
			hold(&w, d->job[i].dst);
	walk_blocks(&w);
	walk_slabs(d->pool);
	walk_nodes_free(&w);
	for (uint32_t i = 0; i < d->pool->nr_tenants; i++)
		core_ok(pinned[i] == d->pool->tenant[i].pinned_bytes);
	walk_tokens();
	mem_free(w.held);
}
