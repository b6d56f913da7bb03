// SPDX-License-Identifier: Apache-2.0
/*
 * check.c - the same answer without any cache: all of it is computed again, in steps
 * of the same shapes over memory of our own, and logits are compared bit for bit.
 */
#include "tools/kvinfer/kvinfer.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void compare(struct ki_engine *e, struct ki_seq *s, uint32_t i, const float *want)
{
	uint32_t vocab = e->m->shape.vocab;
	const float *got = s->logits + (size_t)i * vocab;

	if (i < s->unseen || i >= s->made)
		return;
	if (memcmp(got, want, vocab * sizeof(*want)))
		s->check_equal = false;
	for (uint32_t t = 0; t < vocab; t++) {
		double d = fabs((double)got[t] - want[t]);

		/* A NaN differs by more than anything. */
		if (!(d <= s->check_diff))
			s->check_diff = d == d ? d : INFINITY;
	}
}

static int recompute(struct ki_engine *e, struct ki_seq *s, const struct ki_cache *c, float *logits)
{
	/* The last token made was never used. */
	uint32_t at = 0, nr = s->req->nr, end = s->nr - 1;
	uint32_t chunk = e->o.chunk;

	while (at < end || at < nr) {
		struct kn_row row[KI_MAX_CHUNK];
		uint32_t n = at >= nr ? 1 : nr - at < chunk ? nr - at : chunk, last = n - 1;
		struct ki_step st = {
			.shape = at >= nr ? e->o.batch : chunk, .nr = n, .token = s->token + at,
			.row = row, .one_seq = at < nr, .nr_out = at + n >= nr,
			.out_shape = e->o.batch, .out = &last,
			.ret_logits = at + n >= nr ? logits : NULL,
		};
		int err;

		for (uint32_t i = 0; i < n; i++)
			row[i] = (struct kn_row) { .pos = at + i, .len = at + i + 1 };
		err = e->tp ? ki_tp_step(e, &st, true) : 0;
		if (!err) {
			err = ki_step(e->run, c, &st);
			if (err && !ki_tp_gone(e->tp))
				ki_fail(e, err, "checking: %s", ki_run_error(e->run));
		}
		if (err)
			return err;
		at += n;
		if (st.nr_out)
			compare(e, s, at - nr, logits);
	}
	return 0;
}

int ki_check(struct ki_engine *e, struct ki_seq *s)
{
	float *logits = calloc(e->m->shape.vocab, sizeof(*logits));
	struct ki_private *p = NULL;
	struct ki_cache c;
	int err;

	if (!logits)
		return ki_fail(e, -ENOMEM, "no memory");
	err = ki_private_create(e, 1, s->nr, &p, &c);
	if (!err && e->tp)
		err = ki_tp_check(e, s->nr);
	if (!err) {
		s->check_diff = 0;
		s->check_equal = true;
		err = recompute(e, s, &c, logits);
	}
	if (!err) {
		e->total.unequal += !s->check_equal;
		if (s->check_diff > e->total.check_diff)
			e->total.check_diff = s->check_diff;
	}
	if (!err && e->tp)
		err = ki_tp_check(e, 0);
	ki_private_free(e, p);
	free(logits);
	return err;
}
