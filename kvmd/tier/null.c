/* SPDX-License-Identifier: Apache-2.0 */
/*
 * null.c - the tier that keeps nothing: writes succeed, reads find no data.
 *
 * A test tier, and the floor of a move's own cost. Requests finish at the next
 * poll, never inside read or write, as with a real tier.
 */
#include "kvmd/tier/tier.h"

static uint32_t null_alloc(struct tier *t, uint64_t bytes)
{
	(void)bytes;
	if (!t->nr_free)
		return 0;
	return (uint32_t)(t->nr_places - --t->nr_free);
}

static void null_free(struct tier *t, uint32_t place)
{
	(void)place;
	t->nr_free++;
}

static void queue(struct tier *t, struct tier_req *r, int err)
{
	r->tier = t;
	r->err = err;
	r->next = NULL;
	if (t->tail)
		t->tail->next = r;
	else
		t->head = r;
	t->tail = r;
}

static void null_read(struct tier *t, struct tier_req *r)
{
	queue(t, r, -ENODATA);
}

static void null_write(struct tier *t, struct tier_req *r)
{
	queue(t, r, 0);
}

static unsigned null_poll(struct tier *t)
{
	struct tier_req *r = t->head, *next;
	unsigned nr = 0;

	t->head = t->tail = NULL;
	for (; r; r = next, nr++) {
		next = r->next;
		r->done(r);
	}
	return nr;
}

const struct tier_ops tier_null_ops = {
	.name = "null",
	.alloc = null_alloc,
	.free = null_free,
	.read = null_read,
	.write = null_write,
	.poll = null_poll,
};

void tier_null_init(struct tier *t, uint64_t nr_places)
{
	*t = (struct tier) { .ops = &tier_null_ops, .nr_places = nr_places, .nr_free = nr_places };
}
