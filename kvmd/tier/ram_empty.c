// SPDX-License-Identifier: Apache-2.0
/*
 * ram_empty.c - which places to empty first.
 *
 * Only names records; their owner evicts them, or does not. A pass over a chunk
 * names each owner once, so that one that does not let go stops nobody. Core
 * thread; bounded by the places of one chunk and the number of chunks.
 */
#include "kvmd/tier/ram_int.h"

/* The next place from *@idx on that has an owner and is not busy; its owner, 0: none. */
static uint32_t next_owner(const struct ram_chunk *c, uint32_t *idx)
{
	uint32_t i = *idx;

	while (i < c->nr_places) {
		uint64_t taken = ~c->bits[i / 64] >> i % 64;

		if (!taken) {
			i = (i / 64 + 1) * 64;
			continue;
		}
		i += (uint32_t)__builtin_ctzll(taken);
		if (i < c->nr_places && c->place[i].state == PLACE_USED && !c->place[i].busy) {
			*idx = i + 1;
			return c->place[i].owner;
		}
		i++;
	}
	*idx = c->nr_places;
	return 0;
}

/* The chunk of another class with the fewest bytes in use. */
static uint32_t steal_pick(const struct ram *rt, uint64_t cls)
{
	uint64_t best = UINT64_MAX;
	uint32_t ret = RAM_NONE;

	for (uint32_t i = 0; i < rt->end && i < rt->nr_chunks; i++) {
		const struct ram_chunk *c = &rt->chunk[i];
		uint64_t bytes = c->nr_used * c->cls;

		if (c->state != CHUNK_READY || !c->cls || c->cls == cls || !c->nr_used)
			continue;
		/* The one that could not be emptied comes last. */
		if (i == rt->steal_not)
			bytes = UINT64_MAX - 1;
		if (bytes < best) {
			best = bytes;
			ret = i;
		}
	}
	return ret;
}

uint32_t ram_steal(struct tier *t, uint64_t bytes)
{
	struct ram *rt = ram_of(t);
	uint64_t cls = ram_class(bytes);
	struct ram_chunk *c;
	uint32_t owner;

	if (bytes > rt->chunk_bytes || ram_list_first(rt, cls) || ram_list_first(rt, 0))
		return 0;
	if (rt->steal != RAM_NONE && rt->chunk[rt->steal].cls == cls) {
		c = &rt->chunk[rt->steal];
		rt->steal = RAM_NONE;
		ram_relist(rt, c);
		if (c->listed)
			return 0;
	}
	if (rt->steal == RAM_NONE) {
		rt->steal = steal_pick(rt, cls);
		if (rt->steal == RAM_NONE)
			return 0;
		rt->steal_idx = 0;
		rt->steal_was = rt->chunk[rt->steal].nr_free;
		ram_relist(rt, &rt->chunk[rt->steal]);
	}
	c = &rt->chunk[rt->steal];
	owner = next_owner(c, &rt->steal_idx);
	if (!owner && c->nr_free > rt->steal_was) {
		/* Once through, and it has become emptier: some may still be on their way. */
		rt->steal_idx = 0;
		rt->steal_was = c->nr_free;
	} else if (!owner) {
		/* What is left is held, or its owner would not let go. */
		rt->steal_not = rt->steal;
		rt->steal = RAM_NONE;
		ram_relist(rt, c);
	}
	return owner;
}

uint32_t ram_drain_next(struct tier *t)
{
	struct ram *rt = ram_of(t);
	uint32_t low = t->draining || rt->t.draining ? 0 : rt->nr_chunks, owner;

	if (!rt->t.used_bytes)
		return 0;
	if (rt->drain == RAM_NONE || rt->drain >= rt->end) {
		if (rt->end <= low)
			return 0;
		rt->drain = rt->end - 1;
		rt->drain_idx = 0;
	}
	while (rt->drain >= low) {
		const struct ram_chunk *c = &rt->chunk[rt->drain];

		if (c->state == CHUNK_READY && c->nr_used) {
			owner = next_owner(c, &rt->drain_idx);
			if (owner)
				return owner;
		}
		rt->drain_idx = 0;
		if (!rt->drain--)
			break;
	}
	rt->drain = RAM_NONE;
	return 0;
}
