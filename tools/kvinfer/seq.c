// SPDX-License-Identifier: Apache-2.0
/*
 * seq.c - one sequence in the pool, from its open to its close.
 *
 * open	leases the blocks that the pool has of the prompt, cut to whole chunks: the
 *	rest is computed in the same steps as without a cache
 * grow	private blocks for the tokens to come
 * advance	what is computed and full is published, for everybody; blocks that the
 *	window has left behind go
 *
 * With a private cache there is nothing to ask anybody.
 */
#include "tools/kvinfer/kvinfer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint32_t blocks_of(const struct ki_engine *e, uint32_t tokens)
{
	return (tokens + e->o.block_tokens - 1) / e->o.block_tokens;
}

/* What an operation said: as it is, or, when the daemon is gone, a text. */
static int said(struct ki_engine *e, int err, const char *what)
{
	if (err == -ECONNRESET)
		return ki_fail(e, err, "the daemon is gone");
	return err < 0 ? ki_fail(e, err, "%s: %s", what, kvc_strerror(err)) : 0;
}

/*
 * Run @op; if a daemon has come that kept the pool, @again. The one that ended may have
 * done it, and only did not say so.
 */
#define OP_AGAIN(e, op, again) \
	({ \
		int err_ = (e)->pool->gone ? -ECONNRESET : (op); \
		if (err_ < 0 && ki_pool_retry((e)->pool, err_) == 1) \
			err_ = (again); \
		err_; \
	})
/* For what may be done twice. */
#define OP(e, op)	OP_AGAIN(e, op, op)

int ki_seq_new(struct ki_engine *e, struct ki_request *r, struct ki_seq **ret_s)
{
	struct ki_seq *s = aligned_alloc(_Alignof(struct ki_seq), sizeof(*s));	/* chain's */
	uint8_t root[32];
	uint32_t i = 0;

	while (i < e->o.batch && e->used[i])
		i++;
	if (!s || i == e->o.batch) {
		free(s);
		return ki_fail(e, s ? -EBUSY : -ENOMEM, "no place for another sequence");
	}
	*s = (struct ki_seq) {
		.req = r, .idx = i, .gen = ++e->gen, .state = KI_PREFILL, .check_diff = -1,
		.cap = r->nr + r->tokens + e->o.draft_tokens + 1, .start_ns = ki_now(),
	};
	s->token = calloc(s->cap, sizeof(*s->token));
	s->key = calloc(s->cap / e->o.block_tokens + 1, sizeof(*s->key));
	if (e->o.check)
		s->logits = calloc((size_t)(r->tokens + 1) * e->m->shape.vocab, sizeof(float));
	if (e->o.h2o)
		s->mass = calloc(s->cap, sizeof(float));
	if (!s->token || !s->key || (e->o.check && !s->logits) || (e->o.h2o && !s->mass)) {
		ki_seq_close(e, s);
		return ki_fail(e, -ENOMEM, "no memory for a sequence");
	}
	memcpy(s->token, r->token, r->nr * sizeof(*s->token));
	s->nr = r->nr;
	ki_pool_root(e, root);
	kvc_chain_init(&s->chain, NULL, 0, root, sizeof(root), e->o.block_tokens);
	e->used[i] = true;
	*ret_s = s;
	return 0;
}

/* Keys of all blocks that the tokens known fill. */
static void hash(const struct ki_engine *e, struct ki_seq *s)
{
	uint32_t bt = e->o.block_tokens, nr = s->nr / bt - s->nr_keys;

	if (nr)
		kvc_chain_blocks(&s->chain, s->token + s->nr_keys * bt, nr, s->key[s->nr_keys]);
	s->nr_keys += nr;
}

static int open_seq(struct ki_engine *e, struct ki_seq *s, uint32_t nr, struct kvmd_cqe *cqe)
{
	return kvc_seq_open(e->pool->k, s->idx, s->gen, s->key, nr, s->nr, KVMD_HINT_WILL_CONTINUE,
			    e->o.no_cache ? KVMD_OPEN_NO_HIT : 0, cqe);
}

/* Lease what the pool has of the tokens known. */
static int lease(struct ki_engine *e, struct ki_seq *s)
{
	uint32_t bt = e->o.block_tokens, chunk = e->o.chunk, nr, tokens;
	struct kvmd_cqe cqe;
	int err;

	s->done = s->len = s->blocks = s->published = s->trimmed = 0;
	s->private = false;
	if (s->mass)
		memset(s->mass, 0, s->cap * sizeof(*s->mass));
	if (!e->pool)
		return 0;
	hash(e, s);
	/* The last token is computed in any case: its logits are wanted. */
	nr = (s->nr - 1) / chunk * chunk / bt;
	err = OP_AGAIN(e, open_seq(e, s, nr, &cqe),
		       (kvc_seq_close(e->pool->k, s->idx, s->gen, 0, 0),
			open_seq(e, s, nr, &cqe)));
	if (err < 0)
		return said(e, err, "opening a sequence");
	tokens = cqe.v1 / chunk * chunk;
	if (tokens / bt < (uint32_t)err) {
		err = OP(e, kvc_seq_trim(e->pool->k, s->idx, s->gen, 0, KVMD_TRIM_TAIL, tokens / bt,
					 0, e->pool->step));
		if (err < 0)
			return said(e, err, "cutting a hit to whole chunks");
	}
	s->done = s->len = s->cached = tokens;
	s->blocks = s->published = tokens / bt;
	return 0;
}

int ki_seq_open(struct ki_engine *e, struct ki_request *r, struct ki_seq **ret_s)
{
	struct ki_seq *s;
	int err;

	err = ki_seq_new(e, r, &s);
	if (err)
		return err;
	err = lease(e, s);
	if (err) {
		ki_seq_close(e, s);
		return err;
	}
	*ret_s = s;
	return 0;
}

static int extend(struct ki_engine *e, struct ki_seq *s, uint32_t need)
{
	return kvc_seq_extend(e->pool->k, s->idx, s->gen, 0, need - s->blocks, 0, 0, NULL);
}

int ki_seq_grow(struct ki_engine *e, struct ki_seq *s, uint32_t len)
{
	uint32_t need = blocks_of(e, len);
	int err;

	if (need <= s->blocks)
		return 0;
	if (e->pool) {
		err = OP_AGAIN(e, extend(e, s, need), ki_slot(e, s, need - 1) ? 0 :
			       extend(e, s, need));
		if (err < 0)
			return said(e, err, "asking for blocks");
	}
	s->blocks = need;
	return 0;
}

static int publish(struct ki_engine *e, struct ki_seq *s)
{
	uint32_t full = (e->o.prompt_only && s->done > s->req->nr ? s->req->nr : s->done) /
			e->o.block_tokens;
	int err;

	if (s->private || full <= s->published)
		return 0;
	hash(e, s);
	err = OP(e, kvc_seq_publish(e->pool->k, s->idx, s->gen, 0, s->published,
				    s->key[s->published], full - s->published, e->pool->step,
				    NULL));
	if (err < 0)
		return said(e, err, "publishing");
	s->published = full;
	return 0;
}

/* Blocks that no later token sees: behind the sinks, before the window of the next one. */
static int leave_behind(struct ki_engine *e, struct ki_seq *s)
{
	uint32_t bt = e->o.block_tokens, keep = blocks_of(e, e->o.sinks), first = keep + s->trimmed;
	uint32_t seen = s->len + 1 > e->o.window ? (s->len + 1 - e->o.window) / bt : 0;
	int err;

	if (!e->o.window || seen <= first)
		return 0;
	err = OP(e, kvc_seq_trim(e->pool->k, s->idx, s->gen, 0, 0, first, seen - first,
				 e->pool->step));
	if (err < 0)
		return said(e, err, "leaving blocks behind the window");
	s->trimmed = seen - keep;
	return 0;
}

int ki_seq_advance(struct ki_engine *e, struct ki_seq *s)
{
	int err;

	if (!e->pool)
		return 0;
	err = publish(e, s);
	if (!err)
		err = leave_behind(e, s);
	/* What is held can be used without a daemon; growing will find out. */
	return err == -ECONNRESET ? 0 : err;
}

int ki_seq_cut(struct ki_engine *e, struct ki_seq *s, uint32_t len)
{
	uint32_t need = blocks_of(e, len);
	int err;

	if (need >= s->blocks)
		return 0;
	if (e->pool) {
		err = OP(e, kvc_seq_trim(e->pool->k, s->idx, s->gen, 0, KVMD_TRIM_TAIL, need, 0,
					 e->pool->step));
		/* Without a daemon they stay ours. */
		if (err < 0)
			return err == -ECONNRESET ? 0 : said(e, err, "cutting a sequence");
	}
	s->blocks = need;
	return 0;
}

int ki_seq_append(struct ki_seq *s, int32_t token)
{
	if (s->nr == s->cap)
		return -ENOSPC;
	s->token[s->nr++] = token;
	return 0;
}

static int swap_out(struct ki_engine *e, struct ki_seq *s)
{
	return kvc_seq_swap_out(e->pool->k, s->idx, s->gen, e->pool->step);
}

static int swap_in(struct ki_engine *e, struct ki_seq *s, uint64_t timeout_ns)
{
	return kvc_seq_swap_in(e->pool->k, s->idx, s->gen, timeout_ns);
}

static int give_back(struct ki_engine *e, struct ki_seq *s)
{
	int err = OP(e, kvc_seq_close(e->pool->k, s->idx, s->gen, e->pool->step,
				      KVMD_HINT_WILL_CONTINUE));

	return err == -ENOENT ? 0 : err;	/* it was done */
}

int ki_seq_swap_out(struct ki_engine *e, struct ki_seq *s)
{
	int err = OP_AGAIN(e, swap_out(e, s), ki_slot(e, s, s->blocks - 1) ? swap_out(e, s) : 0);

	s->closed = false;
	if (err == -EOPNOTSUPP || err == -ENOSPC) {
		err = give_back(e, s);
		s->closed = true;
	}
	if (err < 0)
		return said(e, err, "giving blocks up");
	s->state = KI_SWAPPED;
	e->freed = true;
	return 0;
}

int ki_seq_swap_in(struct ki_engine *e, struct ki_seq *s, uint64_t timeout_ns)
{
	int err = 0;

	if (!s->closed)
		err = OP_AGAIN(e, swap_in(e, s, timeout_ns), ki_slot(e, s, s->blocks - 1) ? 0 :
			       swap_in(e, s, timeout_ns));
	if (err == -EIO) {
		/* RAM lost it. */
		err = give_back(e, s);
		s->closed = true;
	}
	if (err < 0)
		return said(e, err, "bringing a sequence back");
	if (s->closed) {
		s->gen = ++e->gen;
		err = lease(e, s);
		if (err)
			return err;
		e->total.restarts++;
		s->state = KI_PREFILL;
	} else {
		e->total.swaps++;
		s->state = s->done + 1 == s->nr && s->made ? KI_DECODE : KI_PREFILL;
	}
	s->closed = false;
	return 0;
}

void ki_seq_close(struct ki_engine *e, struct ki_seq *s)
{
	if (!s)
		return;
	if (e->used[s->idx] && e->pool && !e->pool->gone && !s->closed)
		(void)give_back(e, s);	/* without a daemon there is nothing to give back */
	e->used[s->idx] = false;
	free(s->token);
	free(s->key);
	free(s->logits);
	free(s->mass);
	free(s);
}
