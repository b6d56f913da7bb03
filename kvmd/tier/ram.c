// SPDX-License-Identifier: Apache-2.0
/*
 * ram.c - places in chunks of the RAM tier, and who has them.
 *
 * Per class there is one list of chunks with free places, and one of empty
 * chunks for any class (class 0). A place is given out by the first set bit of
 * its chunk's map. t->used_bytes counts places that are used or held, and what
 * is left over at the end of a chunk that has a class, so that bytes - used_bytes
 * is what can be given out. Core thread only; nothing here allocates.
 */
#include "kvmd/tier/ram_int.h"

#include <stdarg.h>
#include <stdio.h>

#include "kvmd/lib/fault.h"

void ram_say(struct ram *rt, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(rt->text, sizeof(rt->text), fmt, ap);
	va_end(ap);
	rt->t.nr_said++;
}

/* ------------------------------------------------------------ lists of chunks */

static uint32_t *list_of(struct ram *rt, const struct ram_chunk *c)
{
	return &rt->list[c->cls / RAM_PAGE];
}

struct ram_chunk *ram_list_first(struct ram *rt, uint64_t cls)
{
	uint32_t first = rt->list[cls / RAM_PAGE];

	return first ? &rt->chunk[first - 1] : NULL;
}

static void chunk_enlist(struct ram *rt, struct ram_chunk *c)
{
	uint32_t no = ram_chunk_no(rt, c), *first = list_of(rt, c);

	if (!*first) {
		c->prev = c->next = no;
		*first = no + 1;
	} else {
		struct ram_chunk *head = &rt->chunk[*first - 1];

		c->next = *first - 1;
		c->prev = head->prev;
		rt->chunk[head->prev].next = no;
		head->prev = no;
	}
	c->listed = true;
}

static void chunk_delist(struct ram *rt, struct ram_chunk *c)
{
	uint32_t no = ram_chunk_no(rt, c), *first = list_of(rt, c);

	rt->chunk[c->prev].next = c->next;
	rt->chunk[c->next].prev = c->prev;
	if (*first == no + 1)
		*first = c->next == no ? 0 : c->next + 1;
	c->listed = false;
}

void ram_relist(struct ram *rt, struct ram_chunk *c)
{
	bool want = c->state == CHUNK_READY && !ram_leaves(rt, c) &&
		    ram_chunk_no(rt, c) != rt->steal && (!c->cls || c->nr_free);

	if (want && !c->listed)
		chunk_enlist(rt, c);
	else if (!want && c->listed)
		chunk_delist(rt, c);
}

/* Give an empty chunk a class, or (0) make it empty again. */
static void set_class(struct ram *rt, struct ram_chunk *c, uint64_t cls)
{
	uint64_t was = c->cls;
	uint32_t nr = cls ? (uint32_t)(rt->chunk_bytes / cls) : 0, words = nr / 64;

	if (c->listed)
		chunk_delist(rt, c);
	/* What no place of the class fits into. */
	if (was)
		rt->t.used_bytes -= rt->chunk_bytes % was;
	if (cls)
		rt->t.used_bytes += rt->chunk_bytes % cls;
	c->cls = cls;
	c->nr_places = c->nr_free = nr;
	c->hint = 0;
	if (words)
		memset(c->bits, 0xff, words * sizeof(*c->bits));
	if (nr % 64)
		c->bits[words] = (1ull << nr % 64) - 1;
	st_rel(&rt->table->chunk[ram_chunk_no(rt, c)].cls, cls);
	if (!cls && ram_chunk_no(rt, c) == rt->steal)
		rt->steal = RAM_NONE;
	ram_relist(rt, c);
}

/* ---------------------------------------------------------------------- places */

static uint32_t place_no(const struct ram *rt, const struct ram_chunk *c, uint32_t idx)
{
	return (ram_chunk_no(rt, c) << RAM_IDX_BITS | idx) + 1;
}

struct ram_place *ram_lookup(struct ram *rt, uint32_t place, struct ram_chunk **ret_c)
{
	uint32_t no = ram_place_chunk(place), idx = ram_place_idx(place);
	struct ram_chunk *c;

	if (!place || no >= rt->end)
		return NULL;
	c = &rt->chunk[no];
	if (c->state != CHUNK_READY || idx >= c->nr_places || c->place[idx].state == PLACE_FREE)
		return NULL;
	*ret_c = c;
	return &c->place[idx];
}

static struct ram_place *lookup_or_bug(struct tier *t, uint32_t place, struct ram_chunk **ret_c)
{
	struct ram_place *p = ram_lookup(ram_of(t), place, ret_c);

	BUG_ON(!p);
	return p;
}

static void take(struct ram *rt, struct ram_chunk *c, uint32_t idx, uint32_t block)
{
	struct ram_place *p = &c->place[idx];

	BUG_ON(p->state != PLACE_FREE || p->busy);
	c->bits[idx / 64] &= ~(1ull << idx % 64);
	p->owner = block;
	p->state = PLACE_USED;
	c->nr_free--;
	c->nr_used++;
	rt->t.used_bytes += c->cls;
	if (!c->nr_free)
		ram_relist(rt, c);
}

/* Nobody has the memory of @p any more. */
static void release(struct ram *rt, struct ram_chunk *c, struct ram_place *p)
{
	uint32_t idx = (uint32_t)(p - c->place);

	p->state = PLACE_FREE;
	c->bits[idx / 64] |= 1ull << idx % 64;
	c->hint = min(c->hint, idx / 64);
	c->nr_free++;
	rt->t.used_bytes -= c->cls;
	if (c->nr_free < c->nr_places) {
		if (!c->listed)
			ram_relist(rt, c);
		return;
	}
	set_class(rt, c, 0);
	if (ram_leaves(rt, c))
		ram_kick(rt);
}

void ram_busy_get(struct ram_place *p)
{
	BUG_ON(p->busy == UINT16_MAX);
	p->busy++;
}

void ram_busy_put(struct ram *rt, struct ram_chunk *c, struct ram_place *p)
{
	BUG_ON(!p->busy);
	if (--p->busy || p->state != PLACE_HELD)
		return;
	c->nr_held--;
	release(rt, c, p);
}

/* A chunk that was to be emptied for others, but now its own class needs it. */
struct ram_chunk *ram_unsteal(struct ram *rt, uint64_t cls)
{
	struct ram_chunk *c;

	if (rt->steal == RAM_NONE)
		return NULL;
	c = &rt->chunk[rt->steal];
	if (c->cls != cls || !c->nr_free)
		return NULL;
	rt->steal = RAM_NONE;
	ram_relist(rt, c);
	return c->listed ? c : NULL;
}

static struct ram_chunk *chunk_for(struct ram *rt, uint64_t cls)
{
	struct ram_chunk *c = ram_list_first(rt, cls);

	if (c)
		return c;
	c = ram_list_first(rt, 0);
	if (!c)
		return ram_unsteal(rt, cls);
	set_class(rt, c, cls);
	return c;
}

/*
 * From here on bytes may change: a later claim could get somebody else's. A
 * chunk of which nothing was claimed is empty, in the table too.
 */
static void claims_end(struct ram *rt)
{
	rt->claiming = false;
	for (uint32_t i = 0; i < rt->end; i++)
		if (rt->chunk[i].state == CHUNK_READY && !rt->chunk[i].cls)
			st_rel(&rt->table->chunk[i].cls, (uint64_t)0);
	ram_kick(rt);
}

static uint32_t ram_alloc(struct tier *t, struct gpool *gp, uint32_t block, uint64_t bytes)
{
	struct ram *rt = ram_of(t);
	struct ram_chunk *c;
	uint32_t idx;

	(void)gp;
	BUG_ON(!block);
	if (t->draining || t->broken || !bytes || fault_hit(FAULT_TIER_ALLOC))
		return 0;
	if (bytes > rt->chunk_bytes) {
		if (!rt->said_big)
			ram_say(rt, "blocks of %llu bytes do not fit in chunks of %llu: "
				"set ram.chunk_bytes", (unsigned long long)bytes,
				(unsigned long long)rt->chunk_bytes);
		rt->said_big = true;
		return 0;
	}
	if (rt->claiming)
		claims_end(rt);
	c = chunk_for(rt, ram_class(bytes));
	if (!c)
		return 0;
	while (!c->bits[c->hint])
		c->hint++;
	idx = c->hint * 64 + (uint32_t)__builtin_ctzll(c->bits[c->hint]);
	take(rt, c, idx, block);
	return place_no(rt, c, idx);
}

static void ram_free(struct tier *t, uint32_t place)
{
	struct ram *rt = ram_of(t);
	struct ram_chunk *c;
	struct ram_place *p = lookup_or_bug(t, place, &c);

	BUG_ON(p->state != PLACE_USED);
	p->owner = 0;
	c->nr_used--;
	if (p->busy) {
		p->state = PLACE_HELD;
		c->nr_held++;
		return;
	}
	release(rt, c, p);
}

bool ram_claim(struct tier *t, uint32_t place, uint64_t bytes, uint32_t block)
{
	struct ram *rt = ram_of(t);
	uint32_t no = ram_place_chunk(place), idx = ram_place_idx(place);
	uint64_t cls = ram_class(bytes);
	struct ram_chunk *c;

	if (!rt->claiming || !block || !place || no >= rt->end || !bytes ||
	    bytes > rt->chunk_bytes)
		return false;
	c = &rt->chunk[no];
	if (c->state != CHUNK_READY || (c->cls ? c->cls : rt->table->chunk[no].cls) != cls ||
	    idx >= rt->chunk_bytes / cls)
		return false;
	if (!c->cls)
		set_class(rt, c, cls);
	if (c->place[idx].state != PLACE_FREE)
		return false;
	take(rt, c, idx, block);
	return true;
}

/* ----------------------------------------------------------- what others ask */

void *ram_mem(struct tier *t, uint32_t place)
{
	struct ram_chunk *c;

	lookup_or_bug(t, place, &c);
	return (char *)c->ext.map + ram_place_idx(place) * c->cls;
}

int ram_buf(struct tier *t, uint32_t place)
{
	struct ram_chunk *c;

	lookup_or_bug(t, place, &c);
	return c->registered ? (int)ram_place_chunk(place) : -1;
}

uint32_t ram_owner(struct tier *t, uint32_t place)
{
	struct ram_chunk *c;
	struct ram_place *p = ram_lookup(ram_of(t), place, &c);

	return p ? p->owner : 0;
}

static uint64_t *sum_at(struct ram *rt, uint32_t place)
{
	return &rt->sum[(uint64_t)ram_place_chunk(place) * rt->chunk_pages +
			ram_place_idx(place)];
}

uint64_t ram_sum(struct tier *t, uint32_t place)
{
	struct ram_chunk *c;

	lookup_or_bug(t, place, &c);
	return *sum_at(ram_of(t), place);
}

void ram_set_sum(struct tier *t, uint32_t place, uint64_t sum)
{
	struct ram_chunk *c;

	lookup_or_bug(t, place, &c);
	*sum_at(ram_of(t), place) = sum;
}

void ram_hold(struct tier *t, uint32_t place)
{
	struct ram_chunk *c;

	ram_busy_get(lookup_or_bug(t, place, &c));
}

void ram_put(struct tier *t, uint32_t place)
{
	struct ram_chunk *c;
	struct ram_place *p = lookup_or_bug(t, place, &c);

	ram_busy_put(ram_of(t), c, p);
}

void ram_blame(struct tier *t, uint32_t place)
{
	struct ram_chunk *c;
	struct ram_place *p = lookup_or_bug(t, place, &c);

	if (++p->faults != RAM_BAD_FAULTS)
		return;
	/* Held for good: when its owner lets go of it nobody else gets it. */
	ram_busy_get(p);
	ram_of(t)->nr_bad++;
	ram_say(ram_of(t), "place %u of chunk %u (byte %llu) is bad: not used any more",
		ram_place_idx(place), ram_place_chunk(place),
		(unsigned long long)(ram_place_idx(place) * c->cls));
}

/* ------------------------------------------------------------------- the tier */

static unsigned ram_poll(struct tier *t)
{
	struct ram *rt = ram_of(t);

	if (unlikely(rt->nr_unreg))
		ram_register_next(rt);
	return ram_refused(rt);
}

static uint64_t ram_next_ns(struct tier *t)
{
	struct ram *rt = ram_of(t);

	if (rt->failed.head)
		return 1;
	return rt->nr_unreg ? max(rt->reg_due_ns, (uint64_t)1) : 0;
}

const struct tier_ops ram_ops = {
	.name = "ram",
	.alloc = ram_alloc,
	.free = ram_free,
	.read = ram_read,
	.write = ram_write,
	.poll = ram_poll,
	.next_ns = ram_next_ns,
	.destroy = ram_destroy,
};
