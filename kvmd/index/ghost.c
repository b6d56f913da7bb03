// SPDX-License-Identifier: Apache-2.0
/*
 * ghost.c - the set-associative table of remembered blocks.
 *
 * The low half of a hash chooses the line, the high half is kept in the entry.
 * A line is one cache line, so a look-up costs one miss and an insertion never
 * moves anything. Core thread only.
 */
#include "kvmd/index/ghost.h"
#include "kvmd/lib/mem.h"

#define LINE_WAYS	5

struct ghost_line {
	struct ghost way[LINE_WAYS];
	uint32_t pad;
};
BUILD_BUG_ON(sizeof(struct ghost) != 12);
BUILD_BUG_ON(sizeof(struct ghost_line) != 64);

struct ghosts {
	struct ghost_line *line;	/* NULL: remembers nothing */
	uint64_t nr_lines;
};

int ghosts_create(uint32_t nr, struct ghosts **ret_g)
{
	struct ghosts *g = mem_zalloc(sizeof(*g));

	if (!g)
		return -ENOMEM;
	if (nr) {
		g->nr_lines = div_round_up(nr, LINE_WAYS);
		g->line = mem_big_alloc(g->nr_lines * sizeof(*g->line), false);
		if (!g->line)
			goto err_free;
	}
	*ret_g = g;
	return 0;

err_free:
	mem_free(g);
	return -ENOMEM;
}

void ghosts_destroy(struct ghosts *g)
{
	if (!g)
		return;
	mem_big_free(g->line, g->nr_lines * sizeof(*g->line));
	mem_free(g);
}

static struct ghost_line *line_of(const struct ghosts *g, uint64_t hash)
{
	return &g->line[((hash & UINT32_MAX) * g->nr_lines) >> 32];
}

/* What is kept of @hash; never 0, which marks an empty entry. */
static uint32_t kept(uint64_t hash)
{
	uint32_t high = (uint32_t)(hash >> 32);

	return high ? high : 1;
}

struct ghost *ghosts_find(struct ghosts *g, uint64_t hash)
{
	struct ghost_line *l;
	uint32_t want = kept(hash);
	unsigned i;

	if (!g->line)
		return NULL;
	l = line_of(g, hash);
	for (i = 0; i < LINE_WAYS; i++) {
		if (l->way[i].hash == want)
			return &l->way[i];
	}
	return NULL;
}

void ghosts_prefetch(const struct ghosts *g, uint64_t hash)
{
	if (g->line)
		__builtin_prefetch(line_of(g, hash));
}

struct ghost *ghosts_add(struct ghosts *g, uint64_t hash)
{
	struct ghost *e = ghosts_find(g, hash);
	struct ghost_line *l;
	unsigned i;

	if (e || !g->line)
		return e;
	l = line_of(g, hash);
	e = &l->way[0];
	for (i = 0; i < LINE_WAYS && e->hash; i++) {
		/* Signed difference: the clock's ticks wrap after 8 years. */
		if (!l->way[i].hash || (int32_t)(l->way[i].when - e->when) < 0)
			e = &l->way[i];
	}
	*e = (struct ghost){ .hash = kept(hash) };
	return e;
}

void ghosts_del(struct ghosts *g, uint64_t hash)
{
	struct ghost *e = ghosts_find(g, hash);

	if (e)
		*e = (struct ghost){ 0 };
}

uint64_t ghosts_bytes(const struct ghosts *g)
{
	return sizeof(*g) + g->nr_lines * sizeof(*g->line);
}
