// SPDX-License-Identifier: Apache-2.0
/*
 * private.c - a cache in memory of our own: what an engine without kvmd has.
 *
 * The blocks of sequence i are numbers 1 + i * n .. (i + 1) * n for good, so its rows
 * are written once. It is what --private uses, and what --check compares with.
 */
#include "tools/kvinfer/kvinfer.h"

#include <errno.h>
#include <stdlib.h>

struct ki_private {
	void *mem;
	int32_t *table;			/* device memory */
};

uint64_t ki_layer_bytes(const struct ki_engine *e)
{
	return 2ull * e->o.block_tokens * e->m->kv_heads * e->m->shape.head_dim *
	       kn_dtype_bytes(e->o.dtype);
}

void ki_cache_layer(const struct ki_engine *e, struct kn_kv *kv, void *base, uint64_t slot_bytes)
{
	uint32_t dim = e->m->shape.head_dim;

	*kv = (struct kn_kv) {
		.k = base, .v = (char *)base + ki_layer_bytes(e) / 2, .slot_bytes = slot_bytes,
		.token_stride = e->m->kv_heads * dim, .head_stride = dim,
		.block_tokens = e->o.block_tokens, .dtype = e->o.dtype, .k_scale = 1, .v_scale = 1,
	};
}

int ki_private_create(struct ki_engine *e, uint32_t seqs, uint32_t tokens,
		      struct ki_private **ret_p, struct ki_cache *c)
{
	uint64_t n = (tokens + e->o.block_tokens - 1) / e->o.block_tokens, blocks = seqs * n;
	uint64_t layer = ki_layer_bytes(e), block = layer * e->m->shape.layers;
	struct ki_private *p = calloc(1, sizeof(*p));
	int32_t *slot = calloc(blocks ? blocks : 1, sizeof(*slot));

	if (!p || !slot)
		goto err_mem;
	p->mem = kn_alloc(e->dev, (blocks + 1) * block);
	p->table = kn_alloc(e->dev, blocks * sizeof(*slot));
	if (!p->mem || !p->table)
		goto err_mem;
	for (uint64_t i = 0; i < blocks; i++)
		slot[i] = (int32_t)(i + 1);
	if (kn_zero(e->dev, p->mem, (blocks + 1) * block) ||
	    kn_put(e->dev, p->table, slot, blocks * sizeof(*slot))) {
		free(slot);
		ki_private_free(e, p);
		return ki_fail(e, -EIO, "%s", kn_error(e->dev));
	}
	free(slot);
	*c = (struct ki_cache) {
		.table = { p->table, n }, .block_tokens = e->o.block_tokens, .dtype = e->o.dtype,
		.window = e->o.window, .sinks = e->o.sinks,
	};
	for (uint32_t l = 0; l < e->m->shape.layers; l++) {
		ki_cache_layer(e, &c->read[l], (char *)p->mem + l * layer, block);
		c->write[l] = c->read[l];
	}
	*ret_p = p;
	return 0;
err_mem:
	free(slot);
	ki_private_free(e, p);
	return ki_fail(e, -ENOMEM, "no memory for a private cache of %llu MiB: fewer prompts at a "
		       "time (--batch) or shorter ones",
		       (unsigned long long)(blocks * block) >> 20);
}

void ki_private_free(struct ki_engine *e, struct ki_private *p)
{
	if (!p)
		return;
	kn_free(e->dev, p->mem);
	kn_free(e->dev, p->table);
	free(p);
}
