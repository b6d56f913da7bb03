// SPDX-License-Identifier: Apache-2.0
/*
 * hazard.c - cohorts by time of last use, chances of reuse, the index.
 *
 * Level L of the cohorts has cells of 2^L ticks. base[L] is the first tick that
 * is still in level L or below; everything before it is in a higher level:
 *
 *	base[2]        base[1]      base[0]           now
 *	   |  cells of 4  |  cells of 2  |  cells of 1  |
 *
 * edge_at[k] is the first tick whose cell has not yet been counted as having
 * reached age edge[k]. It stands at the start of a cell, or inside one whose
 * part before it is empty.
 */
#include "kvmd/reclaim/hazard.h"
#include "kvmd/lib/mem.h"

#include <math.h>

#define NC		HAZARD_CLASSES
#define NB		HAZARD_BINS
#define NR_LEVELS	14	/* 16 cells << 13 ticks reach beyond the last edge */
#define CELLS_KEPT	16	/* of each level before it gives cells to the next */
#define RING		32	/* cells a level has room for */
#define TICKS_PER_S	16
#define FIRST_EDGE_S	0.5
#define EDGE_RATIO	1.45
#define BIN_TABLE	1024	/* ages below are looked up */
#define PRIOR		1000.0	/* blocks' worth of all classes together */
#define FADE_BIRTHS	(1U << 26)	/* counts are halved after so many */

struct cell {
	bool used;
	uint32_t nr[NC];		/* blocks last used in it and not since */
};

struct hazard {
	uint32_t now;
	uint32_t newest;		/* tick of the latest birth */
	uint32_t base[NR_LEVELS];
	uint32_t edge[NB];		/* age in ticks where a bin starts */
	uint32_t edge_at[NB];
	uint8_t bin[BIN_TABLE];
	uint64_t nr_births;		/* since the counts were last halved */
	uint32_t cursor;		/* class to refresh next */
	/* Where the last look-up of a time ended: a chain's blocks have the same. */
	bool memo_ok;			/* until the time goes on */
	uint32_t memo_when;
	uint32_t memo_bin;
	struct cell *memo_cell;		/* NULL: older than any cell */
	double width[NB];		/* seconds a bin lasts */
	double all[NB];			/* chance of reuse, all classes together */
	double reuse[NB][NC];
	double reached[NB][NC];
	float index[NC][NB];
	struct cell cell[NR_LEVELS][RING];
};

/* a is before b; ticks wrap after eight years. */
static bool before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

static struct cell *cell_at(struct hazard *h, unsigned level, uint32_t when)
{
	return &h->cell[level][(when >> level) % RING];
}

/* The level that @when is in; NR_LEVELS: older than any. */
static unsigned level_of(const struct hazard *h, uint32_t when)
{
	unsigned l = 0;

	while (l < NR_LEVELS && before(when, h->base[l]))
		l++;
	return l;
}

static unsigned bin_of(const struct hazard *h, uint32_t age)
{
	unsigned k;

	if (age < BIN_TABLE)
		return h->bin[age];
	k = h->bin[BIN_TABLE - 1];
	while (k + 1 < NB && age >= h->edge[k + 1])
		k++;
	return k;
}

static void set_edges(struct hazard *h)
{
	double s = FIRST_EDGE_S, last = 0;
	unsigned k, age;

	for (k = 1; k < NB; k++, s *= EDGE_RATIO) {
		h->edge[k] = (uint32_t)lround(s * TICKS_PER_S);
		h->width[k - 1] = s - last;
		last = s;
	}
	/* The last bin is open; it counts as long as the time before it. */
	h->width[NB - 1] = last;
	for (age = 0, k = 0; age < BIN_TABLE; age++) {
		while (k + 1 < NB && age >= h->edge[k + 1])
			k++;
		h->bin[age] = (uint8_t)k;
	}
}

/* ---------------------------------------------------------------- cohorts */

static void count_reached(struct hazard *h, unsigned k, const struct cell *c)
{
	unsigned i;

	if (!c->used)
		return;
	for (i = 0; i < NC; i++)
		h->reached[k][i] += c->nr[i];
}

/* Count the cells that are by now older than edge @k. */
static void advance_edge(struct hazard *h, unsigned k)
{
	uint32_t last = h->now - h->edge[k];	/* tick of the youngest who got there */
	uint32_t end;
	unsigned l;

	while (!before(last, h->edge_at[k])) {
		if (before(h->newest, h->edge_at[k])) {
			h->edge_at[k] = last + 1;
			return;
		}
		l = level_of(h, h->edge_at[k]);
		if (l == NR_LEVELS) {
			h->edge_at[k] = h->base[NR_LEVELS - 1];
			continue;
		}
		end = ((h->edge_at[k] >> l) + 1) << l;
		if (before(last, end - 1))
			return;
		count_reached(h, k, cell_at(h, l, h->edge_at[k]));
		h->edge_at[k] = end;
	}
}

/* Pour the two oldest cells of level @l into one of the next. */
static void merge_pair(struct hazard *h, unsigned l)
{
	uint32_t first = h->base[l], second = first + (1U << l), end = second + (1U << l);
	struct cell *to = l + 1 < NR_LEVELS ? cell_at(h, l + 1, first) : NULL;
	struct cell *from[2] = { cell_at(h, l, first), cell_at(h, l, second) };
	unsigned i, k, c;

	/* Who has counted the first cell counts the second a little early. */
	for (k = 1; k < NB && from[0]->used; k++) {
		if (before(h->edge_at[k], second) || !before(h->edge_at[k], end))
			continue;
		count_reached(h, k, from[1]);
		h->edge_at[k] = end;
	}
	for (i = 0; i < 2; i++) {
		if (!from[i]->used)
			continue;
		if (to) {
			for (c = 0; c < NC; c++)
				to->nr[c] += from[i]->nr[c];
			to->used = true;
		}
		memset(from[i], 0, sizeof(*from[i]));
	}
	h->base[l] = end;
}

void hazard_advance(struct hazard *h, uint32_t now)
{
	uint32_t keep, k;
	unsigned l;

	if (now == h->now)
		return;
	h->now = now;
	h->memo_ok = false;
	for (k = 1; k < NB; k++)
		advance_edge(h, k);
	for (l = 0; l < NR_LEVELS; l++) {
		keep = now - (CELLS_KEPT << l);
		while (!before(keep, h->base[l] + (2U << l))) {
			if (before(h->newest, h->base[l])) {
				h->base[l] = keep >> (l + 1) << (l + 1);
				break;
			}
			merge_pair(h, l);
		}
	}
}

void hazard_born(struct hazard *h, uint8_t c)
{
	struct cell *cell = cell_at(h, 0, h->now);

	if (h->reached[0][c] == 0)
		memcpy(h->index[c], h->index[0], sizeof(h->index[c]));
	cell->used = true;
	cell->nr[c]++;
	h->reached[0][c]++;
	h->newest = h->now;
	h->nr_births++;
}

/* Bin and cell of @when, in the memo. */
static void look_up(struct hazard *h, uint32_t when)
{
	unsigned l;

	if (likely(h->memo_ok && h->memo_when == when))
		return;
	l = level_of(h, when);
	h->memo_cell = l < NR_LEVELS ? cell_at(h, l, when) : NULL;
	h->memo_bin = bin_of(h, h->now - when);
	h->memo_when = when;
	h->memo_ok = true;
}

static void leave_cohort(struct hazard *h, uint8_t c)
{
	if (h->memo_cell && h->memo_cell->nr[c])
		h->memo_cell->nr[c]--;
}

void hazard_unborn(struct hazard *h, uint8_t c, uint32_t when)
{
	if (before(h->now, when))
		return;
	look_up(h, when);
	leave_cohort(h, c);
	if (h->reached[0][c] >= 1)
		h->reached[0][c]--;
}

void hazard_reused(struct hazard *h, uint8_t c, uint32_t when)
{
	if (before(h->now, when))
		return;
	look_up(h, when);
	h->reuse[h->memo_bin][c]++;
	leave_cohort(h, c);
}

/* ------------------------------------------------------------------ index */

float hazard_index(const struct hazard *h, uint8_t c, uint32_t when)
{
	uint32_t age = before(h->now, when) ? 0 : h->now - when;
	unsigned k = bin_of(h, age);
	const float *at = &h->index[c][k];

	if (k == NB - 1)
		return at[0];
	return at[0] + (at[1] - at[0]) * (float)(age - h->edge[k]) /
	       (float)(h->edge[k + 1] - h->edge[k]);
}

static void refresh_all(struct hazard *h)
{
	double reuse, reached, scale = 1;
	unsigned c, k;

	if (h->nr_births >= FADE_BIRTHS) {
		scale = 0.5;
		h->nr_births = 0;
	}
	for (k = 0; k < NB; k++) {
		reuse = reached = 0;
		for (c = 0; c < NC; c++) {
			h->reuse[k][c] *= scale;
			h->reached[k][c] *= scale;
			reuse += h->reuse[k][c];
			reached += h->reached[k][c];
		}
		h->all[k] = (reuse + 0.01) / (reached + 1);
	}
}

static void refresh_class(struct hazard *h, unsigned c)
{
	double chance[NB], left, gain, wait, best;
	unsigned a, k;

	for (k = 0; k < NB; k++) {
		chance[k] = (h->reuse[k][c] + PRIOR * h->all[k]) / (h->reached[k][c] + PRIOR);
		if (chance[k] > 1)
			chance[k] = 1;
	}
	for (a = 0; a < NB; a++) {
		left = 1;
		gain = wait = best = 0;
		for (k = a; k < NB; k++) {
			gain += left * chance[k];
			wait += left * h->width[k] * (1 - chance[k] / 2);
			left *= 1 - chance[k];
			if (gain > best * wait)
				best = gain / wait;
		}
		h->index[c][a] = (float)best;
	}
}

void hazard_refresh(struct hazard *h, unsigned nr)
{
	unsigned looked;

	for (looked = 0; looked < NC && nr; looked++) {
		if (h->cursor == 0) {
			refresh_all(h);
			refresh_class(h, 0);	/* what a class starts from */
		} else if (h->reached[0][h->cursor] > 0) {
			refresh_class(h, h->cursor);
			nr--;
		}
		h->cursor = (h->cursor + 1) % NC;
	}
}

struct hazard *hazard_create(uint32_t now)
{
	struct hazard *h = mem_big_alloc(sizeof(*h), false);
	unsigned k, l;

	if (!h)
		return NULL;
	set_edges(h);
	h->now = now;
	h->newest = now - 1;
	for (k = 0; k < NB; k++)
		h->edge_at[k] = now;
	for (l = 0; l < NR_LEVELS; l++)
		h->base[l] = now >> (l + 1) << (l + 1);
	hazard_refresh(h, 1);
	return h;
}

void hazard_destroy(struct hazard *h)
{
	mem_big_free(h, sizeof(*h));
}

uint64_t hazard_bytes(void)
{
	return sizeof(struct hazard);
}

uint32_t hazard_counts(const struct hazard *h, uint8_t c, unsigned k, double *ret_reused,
		       double *ret_reached)
{
	*ret_reused = h->reuse[k][c];
	*ret_reached = h->reached[k][c];
	return h->edge[k];
}
