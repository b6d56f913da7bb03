// SPDX-License-Identifier: Apache-2.0
/*
 * fork.c - several answers to one prompt: its prefill is computed once.
 *
 * SEQ_FORK shares the blocks that are published and copies the last one, which is not
 * full. Each sample then picks its first token from the same logits, with noise of its
 * own, and goes its own way.
 */
#include "tools/kvinfer/kvinfer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Without a pool: blocks of its own, filled with copies. */
static int copy_tokens(struct ki_engine *e, const struct ki_seq *s, const struct ki_seq *f)
{
	struct kn_token_move *move = calloc(s->len ? s->len : 1, sizeof(*move));
	uint32_t bt = e->o.block_tokens;
	int err;

	if (!move)
		return ki_fail(e, -ENOMEM, "no memory to copy a sequence");
	for (uint32_t i = 0; i < s->len; i++)
		move[i] = (struct kn_token_move) {
			.from_slot = ki_slot(e, s, i / bt), .from = i % bt,
			.to_slot = ki_slot(e, f, i / bt), .to = i % bt,
		};
	err = ki_move(e, move, s->len);
	free(move);
	return err;
}

static int fork_blocks(struct ki_engine *e, const struct ki_seq *s, const struct ki_seq *f)
{
	struct ki_pool *p = e->pool;
	int err;

	err = p->gone ? -ECONNRESET :
		kvc_seq_fork(p->k, s->idx, s->gen, f->idx, f->gen, p->step);
	/* A daemon that ended may have done it. */
	if (err < 0 && ki_pool_retry(p, err) == 1)
		err = ki_slot(e, f, s->blocks - 1) ? 0 :
			kvc_seq_fork(p->k, s->idx, s->gen, f->idx, f->gen, p->step);
	return err < 0 ? err : 0;
}

/* @f gets the cache of @s, whose prompt is computed and no more. */
static int share(struct ki_engine *e, const struct ki_seq *s, struct ki_seq *f)
{
	int err = e->pool ? fork_blocks(e, s, f) : copy_tokens(e, s, f);

	if (err)
		return err;
	f->done = s->done;
	f->len = s->len;
	f->blocks = s->blocks;
	f->published = s->published;
	f->trimmed = s->trimmed;
	f->private = s->private;
	return 0;
}

static int fork_one(struct ki_engine *e, const struct ki_seq *s, uint32_t sample,
		    const float *logits)
{
	struct ki_seq *f;
	int32_t token;
	int err, shared;

	err = ki_seq_new(e, s->req, &f);
	if (err)
		return err;
	f->sample = sample;
	f->start_ns = s->start_ns;
	f->cached = s->cached;
	shared = share(e, s, f);
	/* No room now: it waits as others do that gave their blocks up. */
	f->closed = shared < 0;
	if (shared && shared != -ENOMEM && shared != -EDEADLK && shared != -EAGAIN &&
	    shared != -ECONNRESET) {
		ki_seq_close(e, f);
		return e->pool ? ki_fail(e, shared, "forking a sequence: %s",
					 kvc_strerror(shared)) : shared;
	}
	err = ki_engine_pick(e, f, logits, &token);
	if (!err)
		err = ki_engine_made(e, f, token, logits);
	if (err) {
		ki_seq_close(e, f);
		return err;
	}
	if (f->state != KI_DONE && shared)
		f->state = KI_SWAPPED;
	ki_engine_add(e, f);
	return 0;
}

int ki_fork(struct ki_engine *e, struct ki_seq *s, const float *logits)
{
	int err = 0;

	for (; s->nr_forks && !err; s->nr_forks--)
		err = fork_one(e, s, s->req->samples - s->nr_forks, logits);
	return err;
}
