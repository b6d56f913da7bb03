// SPDX-License-Identifier: Apache-2.0
/*
 * h2o.c - a cache of bounded length: tokens that attention does not look at are thrown
 * out (H2O, arXiv:2306.14048).
 *
 * Each row of a step says how much softmax weight it gave to each cached token, summed
 * over heads and layers; a token's mass is the sum over all rows so far. When the cache
 * is a block longer than the budget, the newest half of the budget stays, and of the
 * older tokens those with most mass. They are copied, in their order, into fresh blocks
 * which then take the place of all the others (SEQ_REPLACE). K are stored as they were
 * rotated at their place in the text, so places do not change; what comes after such a
 * sequence's first eviction is its own and not published.
 */
#include "tools/kvinfer/kvinfer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct heavy {
	float mass;
	uint32_t at;
};

int ki_h2o_mass(struct ki_engine *e, struct ki_seq *s, const float *mass, uint32_t nr)
{
	if (nr > s->cap)
		return ki_fail(e, -ENOSPC, "mass of %u tokens, and there can be %u", nr, s->cap);
	for (uint32_t i = 0; i < nr; i++)
		s->mass[i] += mass[i];
	return 0;
}

/* Most mass first; of equals the newer one. */
static int by_mass(const void *a, const void *b)
{
	const struct heavy *x = a, *y = b;

	if (x->mass != y->mass)
		return x->mass > y->mass ? -1 : 1;
	return x->at > y->at ? -1 : 1;
}

/* keep[0 .. budget-1]: the tokens that stay, in their order. */
static int choose(const struct ki_seq *s, uint32_t budget, uint32_t *keep)
{
	uint32_t newest = budget / 2, old = s->len - newest, nr = 0;
	struct heavy *h = calloc(old, sizeof(*h));
	bool *stays = calloc(old, sizeof(*stays));

	if (!h || !stays) {
		free(h);
		free(stays);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < old; i++)
		h[i] = (struct heavy) { s->mass[i], i };
	qsort(h, old, sizeof(*h), by_mass);
	for (uint32_t i = 0; i < budget - newest; i++)
		stays[h[i].at] = true;
	for (uint32_t i = 0; i < s->len; i++)
		if (i >= old || stays[i])
			keep[nr++] = i;
	free(h);
	free(stays);
	return 0;
}

/* Token keep[i] of the sequence becomes token @to + i. */
static int gather(struct ki_engine *e, const struct ki_seq *s, const uint32_t *keep, uint32_t nr,
		  uint32_t to, struct kn_token_move *move)
{
	uint32_t bt = e->o.block_tokens;

	for (uint32_t i = 0; i < nr; i++)
		move[i] = (struct kn_token_move) {
			.from_slot = ki_slot(e, s, keep[i] / bt), .from = keep[i] % bt,
			.to_slot = ki_slot(e, s, (to + i) / bt), .to = (to + i) % bt,
		};
	return ki_move(e, move, nr);
}

/* The first @old blocks go, the @fresh ones behind them take their place. */
static int replace(struct ki_engine *e, const struct ki_seq *s, uint32_t old, uint32_t fresh,
		   struct kn_token_move *move)
{
	struct ki_pool *p = e->pool;
	uint32_t bt = e->o.block_tokens;
	int err;

	if (p) {
		err = kvc_seq_replace(p->k, s->idx, s->gen, 0, 0, 0, old, fresh, p->step);
		/* A daemon that ended may have done it: then the row ends early. */
		if (err < 0 && ki_pool_retry(p, err) == 1)
			err = ki_slot(e, s, old) ? kvc_seq_replace(p->k, s->idx, s->gen, 0, 0, 0,
								   old, fresh, p->step) : 0;
		return err < 0 ? ki_fail(e, err, "throwing out tokens: %s", kvc_strerror(err)) : 0;
	}
	/* Blocks of our own have their places for good: back to the front. */
	for (uint32_t i = 0; i < fresh * bt; i++)
		move[i] = (struct kn_token_move) {
			.from_slot = ki_slot(e, s, old + i / bt), .from = i % bt,
			.to_slot = ki_slot(e, s, i / bt), .to = i % bt,
		};
	return ki_move(e, move, fresh * bt);
}

static int evict(struct ki_engine *e, struct ki_seq *s, uint32_t *keep, struct kn_token_move *move)
{
	uint32_t bt = e->o.block_tokens, budget = e->o.h2o, old = s->blocks;
	int err;

	if (!e->pool && old * bt + budget > e->cache.table.stride * bt)
		return ki_fail(e, -ENOSPC, "a private cache of %u tokens has no room to copy "
			       "%u: raise --private-tokens",
			       (uint32_t)e->cache.table.stride * bt, budget);
	err = choose(s, budget, keep);
	if (err)
		return ki_fail(e, err, "no memory to choose tokens");
	err = ki_seq_grow(e, s, old * bt + budget);
	/* No room to copy to: at the next block again. */
	if (err)
		return err == -ENOMEM || err == -EDEADLK || err == -EAGAIN || err == -ECONNRESET ?
			0 : err;
	err = gather(e, s, keep, budget, old * bt, move);
	if (!err)
		err = replace(e, s, old, budget / bt, move);
	/* Without a daemon all stay where they are, and there are blocks to go on with. */
	if (err == -ECONNRESET)
		return 0;
	if (err)
		return err;
	for (uint32_t i = 0; i < budget; i++)
		s->mass[i] = s->mass[keep[i]];
	memset(s->mass + budget, 0, (s->len - budget) * sizeof(*s->mass));
	s->evicted += s->len - budget;
	e->total.evicted += s->len - budget;
	s->len = budget;
	s->blocks = budget / bt;
	s->private = true;
	return 0;
}

int ki_h2o_evict(struct ki_engine *e, struct ki_seq *s)
{
	uint32_t budget = e->o.h2o;
	struct kn_token_move *move;
	uint32_t *keep;
	int err;

	if (s->len % e->o.block_tokens || s->len < budget + e->o.block_tokens)
		return 0;
	move = calloc(budget, sizeof(*move));
	keep = calloc(budget, sizeof(*keep));
	err = move && keep ? evict(e, s, keep, move) : ki_fail(e, -ENOMEM, "no memory");
	free(move);
	free(keep);
	return err;
}
