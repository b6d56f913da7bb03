// SPDX-License-Identifier: Apache-2.0
/*
 * move.c - K and V of single tokens, copied from block to block in all layers.
 */
#include "tools/kvinfer/kvinfer.h"

#include <errno.h>

uint32_t ki_slot(const struct ki_engine *e, const struct ki_seq *s, uint32_t block)
{
	if (e->pool)
		return (uint32_t)kvc_row(e->pool->v, 0, s->idx)[block];
	return (uint32_t)(1 + s->idx * e->cache.table.stride + block);	/* private.c */
}

int ki_move_layers(struct ki_engine *e, const struct kn_token_move *move, uint32_t nr)
{
	struct kn_tokens_args a = {
		.nr = nr, .kv_heads = e->m->kv_heads, .head_dim = e->m->shape.head_dim,
	};
	struct kn_token_move *there;
	int err;

	if (!nr)
		return 0;
	there = kn_alloc(e->dev, nr * sizeof(*there));
	if (!there)
		return ki_fail(e, -ENOMEM, "no memory on the device to copy %u tokens", nr);
	a.move = there;
	err = kn_put(e->dev, there, move, nr * sizeof(*there));
	for (uint32_t l = 0; !err && l < e->m->shape.layers; l++) {
		a.kv = e->cache.write[l];
		err = kn_launch(e->dev, KN_TOKENS, nr, 1, 1, 0, &a);
	}
	if (!err)
		err = kn_sync(e->dev);
	kn_free(e->dev, there);
	return err ? ki_fail(e, err, "copying tokens: %s", kn_error(e->dev)) : 0;
}

int ki_move(struct ki_engine *e, const struct kn_token_move *move, uint32_t nr)
{
	int err = 0;

	if (e->pool)
		err = ki_pool_begin(e, e->pool);
	if (!err && e->tp)
		err = ki_tp_move(e, move, nr);
	if (!err)
		err = ki_move_layers(e, move, nr);
	if (e->pool)
		ki_pool_end(e->pool);
	return err;
}
