// SPDX-License-Identifier: Apache-2.0
/*
 * replay_ops.c - entries under way: submit, reap, measure.
 *
 * user_data is the operation's place in the array. The time of an operation is
 * what the engine sees: from the call that submits it to the completion in its
 * hands; the wait for a step that a publish or close names is part of it.
 */
#include <stdio.h>

#include "kvmd/lib/clock.h"
#include "tools/kvtrace/replay_engine.h"

#define REAP		64
#define PATIENCE_NS	50000ULL	/* then the device need not be late any longer */

static void op_free(struct engine *e, struct engine_op *op)
{
	if (op->has_args)
		kvc_args_free(e->k, op->args);
	op->has_args = false;
	op->busy = false;
	e->nr_ops--;
}

/* What every completion of a kind means, awaited or not. */
static void op_done(struct engine *e, struct engine_op *op, const struct kvmd_cqe *c)
{
	uint64_t ns = clock_ns() - op->start_ns;

	hist_add(&e->page->hist[op->kind], ns);
	op->res = c->res;
	op->v0 = c->v0;
	switch (op->kind) {
	case REPLAY_PUBLISH:
		if (c->res < 0)
			break;
		e->page->merged_blocks += c->v0;
		e->page->private_blocks += c->v1;
		if ((uint32_t)c->res + c->v1 != op->nr)
			op->res = -EPROTO;	/* some were not even accepted */
		break;
	case REPLAY_OPEN:
		e->page->open_ns += ns;
		break;
	case REPLAY_CLOSE:
		if (c->res != -ECONNRESET)
			engine_seq_put(e, op->seq);
		break;
	case REPLAY_CLOCK:
		if (c->res == -EPERM) {
			e->page->clock_refused = 1;
			op->res = 0;
		}
		break;
	default:
		break;
	}
	if (op->awaited) {
		op->done = true;
		return;
	}
	if (op->res < 0 && !e->err && !e->settling)
		e->err = engine_say(e, REPLAY_DONE, replay_op_name(op->kind), op->res);
	op_free(e, op);
}

/* Take what has completed; how much. */
static int reap(struct engine *e)
{
	struct kvmd_cqe cqe[REAP];
	int n = kvc_reap(e->k, cqe, REAP), i;

	for (i = 0; i < n; i++)
		op_done(e, &e->op[cqe[i].user_data % ENGINE_OPS], &cqe[i]);
	return n;
}

/* Take at least one completion. The device works on meanwhile. */
static int pump(struct engine *e)
{
	const struct kvmd_cqe *c;
	int n = reap(e);

	if (n)
		return n < 0 ? n : e->err;
	if (e->dev.has_thread) {
		n = kvc_wait_cqe(e->k, PATIENCE_NS, &c);
		if (n == -ETIMEDOUT)
			device_idle(&e->dev);
		else if (n)
			return n;
	}
	n = kvc_wait_cqe(e->k, UINT64_MAX, &c);
	if (!n)
		n = reap(e);
	return n < 0 ? n : e->err;
}

static struct engine_op *op_find_free(struct engine *e)
{
	uint32_t i;

	if (e->nr_ops == ENGINE_OPS)
		return NULL;
	for (i = e->next_op; e->op[i % ENGINE_OPS].busy; i++)
		;
	e->next_op = (i + 1) % ENGINE_OPS;
	return &e->op[i % ENGINE_OPS];
}

int engine_op(struct engine *e, enum replay_op kind, uint32_t seq, struct engine_op **ret_op,
	      struct kvmd_sqe **ret_e)
{
	struct engine_op *op;
	struct kvmd_sqe *sqe;
	int err = reap(e);

	if (err < 0 || e->err)
		return err < 0 ? err : e->err;
	for (;;) {
		op = op_find_free(e);
		sqe = op ? kvc_get_sqe(e->k) : NULL;
		if (sqe)
			break;
		err = kvc_submit(e->k);
		if (err >= 0)
			err = pump(e);
		if (err)
			return err;
	}
	memset(op, 0, sizeof(*op));
	op->kind = kind;
	op->seq = seq;
	op->busy = true;
	e->nr_ops++;
	*ret_op = op;
	*ret_e = sqe;
	return 0;
}

int engine_keys(struct engine *e, const void *keys, uint32_t nr, uint64_t *ret_off)
{
	size_t bytes = (size_t)nr * KVMD_KEY_BYTES;
	void *p;
	int err;

	*ret_off = 0;
	if (!nr)
		return 0;
	while (!(p = kvc_args_alloc(e->k, bytes, ret_off))) {
		err = e->nr_ops ? pump(e) : -ENOBUFS;
		if (err)
			return err;
	}
	memcpy(p, keys, bytes);
	return 0;
}

int engine_go(struct engine *e, struct engine_op *op, struct kvmd_sqe *sqe, bool await)
{
	int n;

	sqe->user_data = (uint64_t)(op - e->op);
	op->awaited = await;
	op->start_ns = clock_ns();
	n = kvc_submit(e->k);
	if (n >= 0)
		return 0;
	/* It was not submitted, and will not be. */
	op_free(e, op);
	return n;
}

int engine_wait(struct engine *e, struct engine_op *op, uint32_t *ret_v0)
{
	int err;

	while (!op->done) {
		err = pump(e);
		if (err)
			return err;
	}
	err = op->res;
	if (ret_v0)
		*ret_v0 = op->v0;
	op_free(e, op);
	return err;
}

int engine_drain(struct engine *e)
{
	int err = e->err;

	while (!err && e->nr_ops)
		err = pump(e);
	return err;
}

int engine_seq(struct engine *e, uint32_t *ret_seq)
{
	int err = 0;

	while (!err && !e->nr_free_seqs)
		err = pump(e);
	if (err)
		return err;
	*ret_seq = e->free_seq[--e->nr_free_seqs];
	e->gen = max(e->gen + 1, 1U);
	e->seq_gen[*ret_seq] = e->gen;
	return 0;
}

void engine_seq_put(struct engine *e, uint32_t seq)
{
	e->seq_gen[seq] = 0;
	e->free_seq[e->nr_free_seqs++] = seq;
}

int engine_say(const struct engine *e, uint64_t req, const char *what, int err)
{
	char where[48] = "";

	if (err == -ECONNRESET && e->o->restarts)
		return err;
	if (req != REPLAY_DONE)
		snprintf(where, sizeof(where), " of request %llu", (unsigned long long)req);
	fprintf(stderr, "kvtrace replay: client %u: %s%s: %s%s%s\n", e->c, what, where,
		kvc_strerror(err), *kvc_refusal() ? ": " : "", kvc_refusal());
	return err;
}
