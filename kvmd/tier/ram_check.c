// SPDX-License-Identifier: Apache-2.0
/*
 * ram_check.c - does all that is counted in the RAM tier add up? Walks every
 * place: not while requests are served. Core thread only.
 */
#include "kvmd/lib/err.h"
#include "kvmd/tier/ram_int.h"

static int check_chunk(struct ram *rt, uint32_t no, char *msg, size_t n)
{
	const struct ram_chunk *c = &rt->chunk[no];
	uint32_t nr[3] = { 0 }, i;

	for (i = 0; i < rt->chunk_pages; i++) {
		const struct ram_place *p = &c->place[i];
		bool bit = i < c->nr_places && c->bits[i / 64] >> i % 64 & 1;

		if (i >= c->nr_places ? p->state != PLACE_FREE || p->owner || p->busy :
		    p->state > PLACE_HELD || bit != (p->state == PLACE_FREE) ||
		    !p->owner != (p->state != PLACE_USED) ||
		    (p->state == PLACE_FREE && p->busy) || (p->state == PLACE_HELD && !p->busy))
			return err_text(-EUCLEAN, msg, n, "ram chunk %u place %u: state %u owner "
					"%u busy %u bit %d", no, i, p->state, p->owner, p->busy,
					bit);
		if (i < c->nr_places)
			nr[p->state]++;
	}
	if (nr[PLACE_FREE] != c->nr_free || nr[PLACE_USED] != c->nr_used ||
	    nr[PLACE_HELD] != c->nr_held ||
	    c->nr_free + c->nr_used + c->nr_held != c->nr_places)
		return err_text(-EUCLEAN, msg, n, "ram chunk %u: %u free + %u used + %u held of %u "
				"places, counted %u, %u, %u", no, c->nr_free, c->nr_used,
				c->nr_held, c->nr_places, nr[PLACE_FREE], nr[PLACE_USED],
				nr[PLACE_HELD]);
	if (c->cls % RAM_PAGE || c->nr_places != (c->cls ? rt->chunk_bytes / c->cls : 0) ||
	    (c->cls && c->nr_free == c->nr_places))
		return err_text(-EUCLEAN, msg, n, "ram chunk %u: class %llu with %u places, %u "
				"free", no, (unsigned long long)c->cls, c->nr_places, c->nr_free);
	if (!rt->claiming && rt->table->chunk[no].cls != c->cls)
		return err_text(-EUCLEAN, msg, n, "ram chunk %u: class %llu, the table says %llu",
				no, (unsigned long long)c->cls,
				(unsigned long long)rt->table->chunk[no].cls);
	return 0;
}

int ram_check(struct tier *t, char *msg, size_t msg_bytes)
{
	struct ram *rt = ram_of(t);
	uint64_t bytes = 0, used = 0;
	uint32_t ready = 0;

	for (uint32_t i = 0; i < rt->end; i++) {
		const struct ram_chunk *c = &rt->chunk[i];
		bool listed;
		int err;

		if (c->state != CHUNK_READY)
			continue;
		err = check_chunk(rt, i, msg, msg_bytes);
		if (err)
			return err;
		listed = !ram_leaves(rt, c) && i != rt->steal && (!c->cls || c->nr_free);
		if (c->listed != listed)
			return err_text(-EUCLEAN, msg, msg_bytes, "ram chunk %u: on a list %d, "
					"should be %d", i, c->listed, listed);
		ready++;
		bytes += rt->chunk_bytes;
		if (c->cls)
			used += (c->nr_used + c->nr_held) * c->cls + rt->chunk_bytes % c->cls;
	}
	if (ready != rt->nr_ready || bytes != rt->t.bytes || used != rt->t.used_bytes)
		return err_text(-EUCLEAN, msg, msg_bytes, "ram: %u chunks ready, %llu bytes, %llu "
				"used; counted %u, %llu, %llu", rt->nr_ready,
				(unsigned long long)rt->t.bytes,
				(unsigned long long)rt->t.used_bytes, ready,
				(unsigned long long)bytes, (unsigned long long)used);
	return 0;
}
