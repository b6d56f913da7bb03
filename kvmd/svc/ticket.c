/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ticket.c - SEND and RECV: a sequence changes hands, no byte moves.
 *
 * Between the two its leases belong to the ticket: record ids in a queue of
 * nodes, group after group, 0 for NULL entries. A ticket is a random number
 * that serves once, in its space, until its time is over.
 */
#include "kvmd/svc/daemon.h"
#include "kvmd/svc/ops.h"

#include <sys/random.h>

#include "kvmd/lib/stats.h"

static struct ticket *ticket_find(struct daemon *d, uint64_t id)
{
	for (uint32_t i = 0; id && i < MAX_TICKETS; i++)
		if (d->ticket[i].id == id)
			return &d->ticket[i];
	return NULL;
}

static struct ticket *ticket_new(struct daemon *d)
{
	for (uint32_t i = 0; i < MAX_TICKETS; i++) {
		struct ticket *t = &d->ticket[i];

		if (t->id)
			continue;
		do {
			if (getrandom(&t->id, sizeof(t->id), GRND_NONBLOCK) != sizeof(t->id))
				return NULL;
		} while (!t->id);
		return t;
	}
	return NULL;
}

static void set_owner(struct pool *p, uint32_t id, uint32_t owner)
{
	struct block *b = pool_block(p, id);

	if (id && b->state == BLK_OPEN)
		b->owner = owner;
}

static uint32_t total_len(const struct session *s, const struct seq *q)
{
	uint32_t n = 0;

	for (uint32_t g = 0; g < s->sp->nr_groups; g++)
		n += q->len[g];
	return n;
}

/* Empty the rows of a sequence whose leases went elsewhere. */
static void seq_forget(struct session *s, uint32_t sq)
{
	struct seq *q = &s->st.seq[sq];

	for (uint32_t g = 0; g < s->sp->nr_groups; g++) {
		for (uint32_t i = 0; i < q->len[g]; i++)
			seq_set(&s->st, sq, g, i, 0);
		q->len[g] = 0;
	}
	q->state = SEQ_FREE;
	s->st.nr_live--;
}

enum op_ret op_seq_send(struct op *op, int err, struct kvmd_cqe *c)
{
	struct session *s = op->s;
	struct pool *p = s->d->pool;
	struct seq *q = op_seq(op);
	struct ticket *t;

	(void)err;
	if (total_len(s, q) / NODE_IDS + 1 > p->nr_free_nodes)
		return op_done(c, -ENOBUFS);
	t = ticket_new(s->d);
	if (!t)
		return op_done(c, -ENOBUFS);
	attrib_close(s, q);
	t->sp = s->sp;
	t->sid = q->sid;
	t->flags = q->flags;
	t->ids = (struct nodeq) { 0 };
	memcpy(t->len, q->len, sizeof(t->len));
	memcpy(t->hole, q->hole, sizeof(t->hole));
	t->deadline_ns = s->d->now_ns + s->d->conf.pool.ticket_timeout_ns;
	for (uint32_t g = 0; g < s->sp->nr_groups; g++) {
		const uint32_t *blocks = seq_blocks(&s->st, op->e.seq, g);

		for (uint32_t i = 0; i < q->len[g]; i++) {
			set_owner(p, blocks[i], UINT32_MAX);
			BUG_ON(!nodeq_add(p, &t->ids, 0, blocks[i]));
		}
	}
	c->v2 = q->len[0];
	seq_forget(s, op->e.seq);
	s->d->nr_tickets++;
	stat_inc(SEQ_SENDS);
	c->v0 = (uint32_t)t->id;
	c->v1 = (uint32_t)(t->id >> 32);
	return op_done(c, 0);
}

enum op_ret op_seq_recv(struct op *op, int err, struct kvmd_cqe *c)
{
	struct session *s = op->s;
	struct pool *p = s->d->pool;
	struct ticket *t = ticket_find(s->d, op->e.aux);
	struct seq *q = op_seq(op);
	uint32_t g = 0, pos = 0;

	(void)err;
	if (!t || t->sp != s->sp)
		return op_done(c, -ENOENT);
	for (uint32_t i = 0; i < s->sp->nr_groups; i++)
		if (t->len[i] > s->st.row_blocks[i])
			return op_done(c, -ENOSPC);
	seq_start(&s->st, op->e.seq, op->e.seq_gen);
	q->sid = t->sid;
	q->flags = t->flags;
	memcpy(q->hole, t->hole, sizeof(q->hole));
	memcpy(q->len, t->len, sizeof(q->len));
	while (t->ids.head) {
		uint32_t n = t->ids.head;
		const struct node *nd = &p->node[n];

		for (uint32_t i = 0; i < nd->nr; i++, pos++) {
			while (pos == t->len[g]) {
				g++;
				pos = 0;
			}
			set_owner(p, nd->id[i], s->id);
			seq_set(&s->st, op->e.seq, g, pos, nd->id[i]);
		}
		t->ids.head = nd->next;
		node_free(p, n);
	}
	t->ids.tail = 0;
	t->id = 0;
	s->d->nr_tickets--;
	stat_inc(SEQ_RECVS);
	c->v1 = q->len[0] * s->sp->gp[0].geo.block_tokens;
	return op_done(c, (int)q->len[0]);
}

uint64_t ticket_turn(struct daemon *d)
{
	uint64_t next = 0;

	for (uint32_t i = 0; d->nr_tickets && i < MAX_TICKETS; i++) {
		struct ticket *t = &d->ticket[i];

		if (!t->id)
			continue;
		if (d->now_ns < t->deadline_ns) {
			next = next ? min(next, t->deadline_ns) : t->deadline_ns;
			continue;
		}
		nodeq_release(d->ix, &t->ids);
		t->id = 0;
		d->nr_tickets--;
		d->rc.kick = true;
		stat_inc(TICKETS_EXPIRED);
	}
	return next;
}
