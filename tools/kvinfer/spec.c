// SPDX-License-Identifier: Apache-2.0
/*
 * spec.c - speculative decoding (arXiv:2211.17192): a cheap model drafts some tokens, the
 * real one computes all of them in one step and keeps those that it would have made.
 *
 * The draft is the model's own first layers, so it needs neither weights nor a cache of
 * its own: what it writes are the K and V that the verifying step writes there again.
 * Which token follows is a function of logits, seed and position (a draft uses the same
 * noise), and logits do not depend on what else is in a step. So the answer has the same
 * bits as without drafts, at any temperature; only the number of steps differs.
 *
 * Blocks for what may be rejected are asked for before, and given back by TRIM.
 */
#include "tools/kvinfer/kvinfer.h"

#include <errno.h>
#include <stdlib.h>

uint32_t ki_drafts(const struct ki_engine *e, const struct ki_seq *s)
{
	uint32_t left = s->req->tokens - s->made;	/* the step itself makes one */

	return left <= e->o.draft_tokens ? left - 1 : e->o.draft_tokens;
}

static struct kn_row row_at(const struct ki_seq *s, uint32_t i)
{
	return (struct kn_row) { .seq = s->idx, .pos = s->done + i, .len = s->len + i + 1 };
}

/* token[1 .. nr] by the first layers alone, one after the other; token[0] is there. */
static int draft(struct ki_engine *e, const struct ki_seq *s, uint32_t nr, int32_t *token,
		 float *logits)
{
	struct ki_seq at = *s;		/* where the token to pick is, for its noise */
	const uint32_t out = 0;
	int err = 0;

	for (uint32_t i = 0; i < nr && !err; i++, at.nr++) {
		struct kn_row row = row_at(s, i);
		struct ki_step st = {
			.shape = e->o.batch, .nr = 1, .token = &token[i], .row = &row,
			.layers = e->o.draft_layers, .nr_out = 1, .out_shape = e->o.batch,
			.out = &out, .ret_logits = logits,
		};

		err = ki_engine_step(e, &st);
		if (!err)
			err = ki_engine_pick(e, &at, logits, &token[i + 1]);
	}
	return err;
}

/* Row i of @logits says what follows token[i]: kept as long as that was drafted. */
static int accept(struct ki_engine *e, struct ki_seq *s, uint32_t nr, const int32_t *token,
		  const float *logits)
{
	int32_t made;
	int err;

	for (uint32_t i = 0; i <= nr && s->state == KI_DECODE; i++) {
		const float *l = logits + (size_t)i * e->m->shape.vocab;

		err = ki_engine_pick(e, s, l, &made);
		if (!err)
			err = ki_engine_made(e, s, made, l);
		if (err)
			return err;
		s->done++;
		s->len++;
		if (i == nr || made != token[i + 1])
			break;
		s->accepted++;
		e->total.accepted++;
	}
	return 0;
}

int ki_speculate(struct ki_engine *e, struct ki_seq *s)
{
	uint32_t nr = ki_drafts(e, s), out[KI_MAX_SEQS];
	float *logits = calloc((size_t)(nr + 1) * e->m->shape.vocab, sizeof(*logits));
	struct kn_row row[KI_MAX_SEQS];
	int32_t token[KI_MAX_SEQS];
	struct ki_step st = {
		.shape = e->o.batch, .nr = nr + 1, .token = token, .row = row, .nr_out = nr + 1,
		.out_shape = e->o.batch, .out = out, .ret_logits = logits,
	};
	int err;

	if (!logits)
		return ki_fail(e, -ENOMEM, "no memory for logits");
	token[0] = s->token[s->done];
	err = draft(e, s, nr, token, logits);
	for (uint32_t i = 0; i <= nr; i++) {
		row[i] = row_at(s, i);
		out[i] = i;
	}
	if (!err)
		err = ki_engine_step(e, &st);
	if (err)
		goto out;
	s->steps++;
	s->drafted += nr;
	e->total.drafted += nr;
	e->total.decode_steps++;
	e->total.computed_tokens += nr + 1;
	err = accept(e, s, nr, token, logits);
	if (!err)
		err = ki_seq_cut(e, s, s->len);
	if (!err)
		err = ki_seq_advance(e, s);
out:
	free(logits);
	return err;
}
