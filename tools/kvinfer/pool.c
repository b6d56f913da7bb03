// SPDX-License-Identifier: Apache-2.0
/*
 * pool.c - a session with kvmd: the space that fits the model, and where its blocks
 * are for the kernels.
 *
 * A block holds, layer after layer, K and then V of block_tokens tokens: [token][head]
 * [value]. Either all of it is one plane, or each layer is. The space's name and the
 * root of all keys are a digest of everything that changes the bytes, so that engines
 * share what is equal and nothing else.
 */
#include "tools/kvinfer/kvinfer.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RETRY_NS	5000000000ull	/* for a daemon that is started again */

#define RESUME_NS	50000000u	/* a rank looks for the daemon while rank 0 may need it */

void ki_pool_root(const struct ki_engine *e, uint8_t root[32])
{
	char text[256];
	unsigned n = 32;
	EVP_MD_CTX *h = EVP_MD_CTX_new();

	snprintf(text, sizeof(text), "kvinfer 1 %s %s %d threads dtype %u block %u chunk %u "
		 "batch %u planes %u window %u+%u ranks %u codec %u/%u exact %u:%u",
		 kn_dev_name(e->dev), ki_gemm_name(e->gemm), e->o.threads, e->o.dtype,
		 e->o.block_tokens, e->o.chunk, e->o.batch, e->o.layer_planes, e->o.window, e->o.sinks, e->o.ranks, e->o.codec.id,
		 e->o.codec.scale_values, e->o.codec.exact_first, e->o.codec.exact_last);
	EVP_DigestInit_ex(h, EVP_sha256(), NULL);
	EVP_DigestUpdate(h, e->m->digest, sizeof(e->m->digest));
	EVP_DigestUpdate(h, text, strlen(text));
	EVP_DigestFinal_ex(h, root, &n);
	EVP_MD_CTX_free(h);
}

void ki_pool_name(const struct ki_engine *e, char name[KVMD_NAME_BYTES])
{
	uint8_t root[32];

	ki_pool_root(e, root);
	if (e->o.space)
		snprintf(name, KVMD_NAME_BYTES, "%s", e->o.space);
	else
		snprintf(name, KVMD_NAME_BYTES, "kvinfer-%02x%02x%02x%02x", root[0], root[1],
			 root[2], root[3]);
}

static uint32_t round_up(uint32_t v, uint32_t to)
{
	return (v + to - 1) / to * to;
}

static void describe(const struct ki_engine *e, struct kvmd_group *g)
{
	uint32_t layers = e->m->shape.layers;

	*g = (struct kvmd_group) {
		.planes = e->o.layer_planes ? layers : 1,
		.plane_bytes = ki_layer_bytes(e) * (e->o.layer_planes ? 1 : layers),
		.block_tokens = e->o.block_tokens,
	};
	if (e->o.window) {
		/* A hit is cut to whole chunks: what the window then reaches must be there. */
		g->rule = KVMD_RULE_WINDOW;
		g->window = round_up(e->o.window, e->o.block_tokens) + e->o.chunk;
		g->sinks = round_up(e->o.sinks, e->o.block_tokens);
	}
	g->codec = e->o.codec;
	if (g->codec.id) {
		g->codec.dtype = KVMD_DTYPE_BF16;
		g->codec.parts = (uint16_t)(e->o.layer_planes ? 2 : 2 * layers);
		g->codec.channels = (uint16_t)(e->m->kv_heads * e->m->shape.head_dim);
		g->codec.kv_run = 1;
		g->codec.exact_first = (uint16_t)(2 * e->o.codec.exact_first);
		g->codec.exact_last = (uint16_t)(2 * e->o.codec.exact_last);
	}
}

/* Where kernels find the blocks of this rank, and the rows. */
static int find_blocks(struct ki_engine *e, struct ki_pool *p, struct ki_cache *c)
{
	const struct kvc_group_view *g = &p->v->group[0];
	const struct kvc_plane *plane = &g->plane[e->m->rank * g->planes];
	uint64_t rows = (uint64_t)(uintptr_t)kvc_row(p->v, 0, 0);
	int err;

	*c = (struct ki_cache) {
		.block_tokens = g->block_tokens, .dtype = e->o.dtype,
		.window = e->o.window, .sinks = e->o.sinks,
	};
	for (uint32_t l = 0; l < e->m->shape.layers; l++) {
		uint64_t off = e->o.layer_planes ? 0 : l * ki_layer_bytes(e);
		const struct kvc_plane *at = &plane[e->o.layer_planes ? l : 0];

		if (!at->rw)
			return ki_fail(e, -ENODEV, "the pool has no memory that this process can "
				       "use (device %s)", e->o.device);
		ki_cache_layer(e, &c->read[l], (char *)(uintptr_t)at->ro + off, g->plane_bytes);
		ki_cache_layer(e, &c->write[l], at->rw + off, g->plane_bytes);
	}
	if (kn_is_cuda(e->dev)) {
		err = kvc_cuda_rows(p->k, 0, &rows);
		if (err == -EOPNOTSUPP) {
			p->rows_bytes = p->v->max_seqs * g->seq_stride;
			p->rows = kn_alloc(e->dev, p->rows_bytes);
			rows = (uint64_t)(uintptr_t)p->rows;
			err = p->rows ? 0 : -ENOMEM;
		}
		if (err)
			return ki_fail(e, err, "block tables for the GPU: %s", kvc_strerror(err));
	}
	c->table.slot = (const int32_t *)(uintptr_t)rows;
	c->table.stride = g->seq_stride / sizeof(int32_t);
	return 0;
}

static void session_opts(const struct ki_engine *e, struct kvc_opts *o)
{
	kvc_opts_init(o);
	o->socket = e->o.socket;
	o->tenant = e->o.tenant;
	o->label = "kvinfer";
	o->wait_ns = e->o.wait_s * 1000000000ull;
	o->max_seqs = e->o.batch;
	/* Tokens that stay are copied behind the others before these go. */
	o->max_tokens = e->m->shape.max_tokens + e->o.h2o;
	o->nr_ranks = e->o.ranks;
	o->nr_lanes = e->o.ranks;
	o->args_bytes = 2ull * KVMD_KEY_BYTES * (e->m->shape.max_tokens / e->o.block_tokens + 64);
	o->args_bytes = (o->args_bytes + 4095) / 4096 * 4096;	/* whole pages */
}

static int adopt(struct ki_engine *e, struct ki_pool *p, struct ki_pool **ret_p, struct ki_cache *c)
{
	int err;

	p->v = kvc_view(p->k);
	err = find_blocks(e, p, c);
	if (err) {
		ki_pool_close(e, p);
		return err;
	}
	*ret_p = p;
	return 0;
}

int ki_pool_open(struct ki_engine *e, struct ki_pool **ret_p, struct ki_cache *c)
{
	struct ki_pool *p = calloc(1, sizeof(*p));
	struct kvc_space sp;
	struct kvc_opts o;
	char name[KVMD_NAME_BYTES];
	int err;

	if (!p)
		return ki_fail(e, -ENOMEM, "no memory");
	session_opts(e, &o);
	ki_pool_name(e, name);
	kvc_space_init(&sp, name);
	sp.nr_groups = 1;
	sp.nr_shards = e->o.ranks;
	describe(e, &sp.group[0]);
	err = kvc_create(&o, &sp, &p->k);
	if (err) {
		free(p);
		return ki_fail(e, err, "%s%s%s", kvc_strerror(err), *kvc_refusal() ? ": " : "",
			       kvc_refusal());
	}
	return adopt(e, p, ret_p, c);
}

int ki_pool_join(struct ki_engine *e, uint64_t group_token, struct ki_pool **ret_p,
		 struct ki_cache *c)
{
	struct ki_pool *p = calloc(1, sizeof(*p));
	struct kvc_opts o;
	int err;

	if (!p)
		return ki_fail(e, -ENOMEM, "no memory");
	session_opts(e, &o);
	o.wait_ns = 0;
	o.resume_ns = RESUME_NS;
	err = kvc_join(&o, group_token, e->m->rank, &p->k);
	if (err) {
		free(p);
		return ki_fail(e, err, "joining rank 0: %s%s%s", kvc_strerror(err),
			       *kvc_refusal() ? ": " : "", kvc_refusal());
	}
	return adopt(e, p, ret_p, c);
}

void ki_pool_close(struct ki_engine *e, struct ki_pool *p)
{
	if (!p)
		return;
	kn_free(e->dev, p->rows);
	kvc_destroy(p->k);
	free(p);
}

int ki_pool_retry(struct ki_pool *p, int err)
{
	const struct timespec pause = { .tv_nsec = 20000000 };
	uint64_t until = ki_now() + RETRY_NS;
	int got;

	if (err != -ECONNRESET || p->gone)
		return err;
	/* Whoever starts it again takes a moment. */
	while ((got = kvc_reconnect(p->k)) == -ECONNREFUSED || got == -ENOENT) {
		if (ki_now() > until)
			break;
		nanosleep(&pause, NULL);
	}
	if (got == 1) {
		p->v = kvc_view(p->k);
		return 1;
	}
	/* Nobody is there, or one that knows nothing of our sequences. */
	p->gone = true;
	return err;
}

int ki_pool_begin(struct ki_engine *e, struct ki_pool *p)
{
	kvc_step_submit(p->k, ++p->step);
	if (!p->rows)
		return 0;
	return kn_put(e->dev, p->rows, (const void *)(uintptr_t)kvc_row(p->v, 0, 0), p->rows_bytes);
}

void ki_pool_end(struct ki_pool *p)
{
	/* ki_step() returned: nothing of it runs any more. */
	kvc_step_complete(p->k, 0, p->step);
}
