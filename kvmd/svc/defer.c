/* SPDX-License-Identifier: Apache-2.0 */
/*
 * defer.c - leases that end later: queues of nodes, each with its condition.
 *
 * A block whose row entry was rewritten under a client (merge, unshare) may be
 * read by steps that were submitted before the client knew. So it waits twice:
 * until the client took the completion, then until every step it had submitted
 * by then is completed.
 *
 *   client                           daemon
 *   submits step 7 (old row entry)
 *                                    rewrites the entry, posts completion C
 *   takes C (cq_head passes it)
 *                                    sees cq_head; reads submitted_step = 7
 *   completes step 7                 sees completed >= 7: drops the lease
 */
#include "kvmd/svc/daemon.h"

bool nodeq_add(struct pool *p, struct nodeq *q, uint64_t when, uint32_t id)
{
	struct node *t = q->tail ? &p->node[q->tail] : NULL;
	uint32_t n;

	if (!t || t->nr == NODE_IDS || t->when != when) {
		n = node_alloc(p);
		if (!n)
			return false;
		p->node[n].when = when;
		if (t)
			t->next = n;
		else
			q->head = n;
		q->tail = n;
		t = &p->node[n];
	}
	t->id[t->nr++] = id;
	return true;
}

/* Move all of @from behind @to, under @when. */
void nodeq_splice(struct pool *p, struct nodeq *to, struct nodeq *from, uint64_t when)
{
	if (!from->head)
		return;
	for (uint32_t n = from->head; n; n = p->node[n].next)
		p->node[n].when = when;
	if (to->tail)
		p->node[to->tail].next = from->head;
	else
		to->head = from->head;
	to->tail = from->tail;
	from->head = from->tail = 0;
}

static void release_first(struct index *ix, struct nodeq *q)
{
	struct pool *p = ix->pool;
	uint32_t n = q->head;
	struct node *nd = &p->node[n];

	for (uint32_t i = nd->nr; i-- > 0;)
		if (nd->id[i])
			index_put(ix, pool_block(p, nd->id[i]));
	q->head = nd->next;
	if (!q->head)
		q->tail = 0;
	node_free(p, n);
}

void nodeq_release(struct index *ix, struct nodeq *q)
{
	while (q->head)
		release_first(ix, q);
}

/* Node @n behind @prev (0: the head) is empty: out with it. */
static void nodeq_unlink(struct pool *p, struct nodeq *q, uint32_t n, uint32_t prev)
{
	if (prev)
		p->node[prev].next = p->node[n].next;
	else
		q->head = p->node[n].next;
	if (q->tail == n)
		q->tail = prev;
	node_free(p, n);
}

bool nodeq_remove(struct pool *p, struct nodeq *q, uint32_t id)
{
	uint32_t prev = 0;

	for (uint32_t n = q->head; n; prev = n, n = p->node[n].next) {
		struct node *nd = &p->node[n];

		for (uint32_t i = 0; i < nd->nr; i++) {
			if (nd->id[i] != id)
				continue;
			nd->id[i] = nd->id[--nd->nr];
			if (!nd->nr)
				nodeq_unlink(p, q, n, prev);
			return true;
		}
	}
	return false;
}

bool op_release_later(struct op *op, uint32_t id)
{
	return nodeq_add(op->s->d->pool, &op->held, 0, id);
}

/* Completions up to the client's head are taken: wait for its steps instead. */
static bool cq_taken(struct session *s)
{
	struct pool *p = s->d->pool;
	bool moved = false;
	uint64_t step;

	ring_read_cq_head(&s->ring);
	step = ld_acq(&s->ring.sh->submitted_step);
	while (s->cq_defer.head) {
		uint32_t n = s->cq_defer.head;
		struct nodeq one = { .head = n, .tail = n };

		/* when: cq_tail right behind the completion */
		if ((int32_t)(s->ring.cq_head - (uint32_t)p->node[n].when) < 0)
			break;
		s->cq_defer.head = p->node[n].next;
		if (!s->cq_defer.head)
			s->cq_defer.tail = 0;
		p->node[n].next = 0;
		if (!s->step_defer.head)
			s->completed_ns = s->d->now_ns;
		nodeq_splice(p, &s->step_defer, &one, step);
		moved = true;
	}
	return moved;
}

bool defer_turn(struct session *s)
{
	bool moved = false;

	if (s->cq_defer.head)
		moved = cq_taken(s);
	if (s->step_defer.head)
		session_read_steps(s);
	while (s->step_defer.head &&
	       s->d->pool->node[s->step_defer.head].when <= s->completed) {
		release_first(s->d->ix, &s->step_defer);
		reclaim_freed(&s->d->rc);
		moved = true;
	}
	return moved;
}
