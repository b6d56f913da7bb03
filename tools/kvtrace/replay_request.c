// SPDX-License-Identifier: Apache-2.0
/*
 * replay_request.c - one request, as an engine runs it.
 *
 *	open		leading blocks that are cached, in any tier, and have been
 *			loaded; a step reads (verifies) them
 *	extend, publish	the rest of the prompt in chunks; a step each writes one
 *	extend		the output, one block and step at a time
 *	close		behind a last step that reads the whole sequence
 *
 * A step's work names slots as the row had them when the step was submitted. If
 * the device is late, all of this is under way at once, and a block that is
 * reused or shown to others before its step is over holds wrong bytes.
 */
#include <poll.h>
#include <stdio.h>

#include "tools/kvtrace/replay_bytes.h"
#include "tools/kvtrace/replay_engine.h"

#define MAX_ATTEMPTS	1000
#define MAX_BACKOFF_MS	64

struct request {
	uint64_t i;			/* in the trace */
	uint32_t seq, gen;
	uint32_t prompt, output;	/* blocks */
	uint32_t hits;
	uint32_t len;			/* blocks in the row */
	uint8_t (*keys)[KVMD_KEY_BYTES];
};

/* A refusal that another attempt may not meet. */
static bool is_passing(int err)
{
	return err == -EDEADLK || err == -ENOMEM || err == -EBUSY || err == -EAGAIN;
}

/* ------------------------------------------------------------ steps */

/* Add block @pos to the step. */
static int add_work(struct engine *e, const struct request *q, struct work_step *s, uint32_t pos,
		    enum work_kind kind)
{
	int32_t slot = kvc_row(e->view, 0, q->seq)[pos];
	struct work_item it = { .pos = pos, .kind = kind };

	if (slot <= KVMD_SLOT_NULL || (uint32_t)slot >= e->view->group[0].max_slots) {
		fprintf(stderr, "kvtrace replay: client %u: request %llu: block %u of %u, "
			"%u hit, is slot %d\n", e->c, (unsigned long long)q->i, pos, q->len,
			q->hits, slot);
		return -EPROTO;
	}
	it.slot = (uint32_t)slot;
	it.seed = bytes_seed(q->keys[pos]);
	return device_add(s, &it);
}

/* Submit a step that does @kind to blocks [@from, @to). */
static int step(struct engine *e, const struct request *q, uint32_t from, uint32_t to,
		enum work_kind kind)
{
	struct work_step *s = device_begin(&e->dev, ++e->step, q->i);
	int err = 0;

	if (e->o->verify == VERIFY_NONE && kind != WORK_WRITE)
		to = from;
	if (e->o->verify == VERIFY_SAMPLE && kind == WORK_VERIFY)
		kind = WORK_SAMPLE;
	while (!err && from < to)
		err = add_work(e, q, s, from++, kind);
	/* What was listed is worked on in any case: somebody may wait for the step. */
	kvc_step_submit(e->k, e->step);
	device_submit(&e->dev);
	return err;
}

/* The last one: once more all that this request wrote, and a look at what it hit. */
static int last_step(struct engine *e, const struct request *q)
{
	int err = step(e, q, 0, q->hits, WORK_SAMPLE);

	return err ? err : step(e, q, q->hits, q->len, WORK_VERIFY);
}

/* ------------------------------------------------------------ operations */

static int tell_clock(struct engine *e, uint64_t i)
{
	uint64_t ns = e->run->clock_base + e->plan->t.reqs[i].ts_ns - e->plan->t.reqs[0].ts_ns;
	struct engine_op *op;
	struct kvmd_sqe *sqe;
	int err;

	/* The policy clock has ticks of 1/16 s; nothing finer is worth an entry. */
	if (e->o->time != TIME_FAST || e->page->clock_refused || ns >> 26 <= e->clock_tick)
		return 0;
	e->clock_tick = ns >> 26;
	err = engine_op(e, REPLAY_CLOCK, 0, &op, &sqe);
	if (err)
		return err;
	kvc_prep_clock(sqe, ns);
	return engine_go(e, op, sqe, false);
}

/* Hits count when a request comes, not when it comes again. */
static void count_hits(struct engine *e, const struct request *q)
{
	const struct trace_req *r = &e->plan->t.reqs[q->i];

	e->page->asked_tokens += r->input_tokens;
	if (e->page->counted == q->i + 1)
		return;
	e->page->counted = q->i + 1;
	e->page->hit_blocks += q->hits;
	e->page->hit_tokens += trace_req_tokens(&e->plan->t, r, q->hits);
	e->page->cut += q->prompt < plan_prompt_blocks(e->plan, q->i);
}

static int open_seq(struct engine *e, struct request *q)
{
	uint32_t tokens = e->plan->t.reqs[q->i].input_tokens;
	struct engine_op *op;
	struct kvmd_sqe *sqe;
	uint64_t off;
	int err;

	err = engine_keys(e, q->keys, q->prompt, &off);
	if (!err)
		err = engine_op(e, REPLAY_OPEN, q->seq, &op, &sqe);
	if (err)
		return err;
	op->has_args = q->prompt > 0;
	op->args = off;
	kvc_prep_open(sqe, q->seq, q->gen, off, q->prompt, tokens, plan_hint(e->plan, q->i));
	sqe->flags = e->open_flags;
	err = engine_go(e, op, sqe, true);
	if (!err)
		err = engine_wait(e, op, NULL);
	if (err < 0)
		return err;
	if ((uint32_t)err > q->prompt) {
		fprintf(stderr, "kvtrace replay: client %u: request %llu: %d hits of %u keys\n",
			e->c, (unsigned long long)q->i, err, q->prompt);
		return -EPROTO;
	}
	q->hits = q->len = (uint32_t)err;
	count_hits(e, q);
	return 0;
}

static int extend(struct engine *e, struct request *q, uint32_t nr)
{
	struct engine_op *op;
	struct kvmd_sqe *sqe;
	uint32_t first;
	int err;

	err = engine_op(e, REPLAY_EXTEND, q->seq, &op, &sqe);
	if (err)
		return err;
	kvc_prep_extend(sqe, q->seq, q->gen, 0, nr, 0);
	err = engine_go(e, op, sqe, true);
	if (!err)
		err = engine_wait(e, op, &first);
	if (err < 0)
		return err;
	if ((uint32_t)err != nr || first != q->len) {
		fprintf(stderr, "kvtrace replay: client %u: request %llu: %d blocks from %u on, "
			"not %u from %u on\n", e->c, (unsigned long long)q->i, err, first, nr,
			q->len);
		return -EPROTO;
	}
	q->len += nr;
	return 0;
}

static int publish(struct engine *e, const struct request *q, uint32_t first, uint32_t nr)
{
	struct engine_op *op;
	struct kvmd_sqe *sqe;
	uint64_t off;
	int err;

	err = engine_keys(e, q->keys[first], nr, &off);
	if (!err)
		err = engine_op(e, REPLAY_PUBLISH, q->seq, &op, &sqe);
	if (err)
		return err;
	op->has_args = true;
	op->args = off;
	op->nr = nr;
	kvc_prep_publish(sqe, q->seq, q->gen, 0, first, off, nr, e->step);
	err = engine_go(e, op, sqe, !e->o->late);
	if (err || e->o->late)
		return err;
	err = engine_wait(e, op, NULL);
	return err < 0 ? err : 0;
}

/* In the trace's order everything of a request must be over before the next. */
static int close_seq(struct engine *e, const struct request *q)
{
	bool await = !e->o->late || e->o->serial;
	struct engine_op *op;
	struct kvmd_sqe *sqe;
	int err;

	err = engine_op(e, REPLAY_CLOSE, q->seq, &op, &sqe);
	if (err)
		return err;
	kvc_prep_close(sqe, q->seq, q->gen, e->step, plan_hint(e->plan, q->i));
	err = engine_go(e, op, sqe, await);
	if (err || !await)
		return err;
	err = engine_wait(e, op, NULL);
	if (!err && e->o->late)
		err = engine_drain(e);
	return err < 0 ? err : 0;
}

/* ------------------------------------------------------------ a request */

/* Blocks [q->len, @to): get, write, publish them, @chunk at a time. */
static int compute(struct engine *e, struct request *q, uint32_t to, uint32_t chunk, bool shared)
{
	int err = 0;

	while (!err && q->len < to) {
		uint32_t first = q->len, nr = min(chunk, to - first);

		err = extend(e, q, nr);
		if (!err)
			err = step(e, q, first, q->len, WORK_WRITE);
		if (!err && shared)
			err = publish(e, q, first, nr);
	}
	return err;
}

static int attempt(struct engine *e, struct request *q)
{
	int err, closed;

	err = engine_seq(e, &q->seq);
	if (err)
		return err;
	q->gen = e->gen;
	q->len = 0;
	err = open_seq(e, q);
	if (err) {
		if (err != -ECONNRESET)
			engine_seq_put(e, q->seq);
		return err;
	}
	if (q->hits)
		err = step(e, q, 0, q->hits, WORK_VERIFY);
	if (!err)
		err = compute(e, q, q->prompt, e->o->chunk, true);
	if (!err)
		err = compute(e, q, q->prompt + q->output, 1, e->o->publish_decode);
	if (!err)
		err = last_step(e, q);
	if (err && !is_passing(err))
		return err;
	closed = close_seq(e, q);
	return closed ? closed : err;
}

/* The keys of all blocks, prompt's and output's. */
static void gather_keys(struct engine *e, struct request *q)
{
	const struct trace_req *r = &e->plan->t.reqs[q->i];
	struct trace_iter it = trace_iter(&e->plan->t, r);
	uint32_t pos, id;

	q->keys = (uint8_t (*)[KVMD_KEY_BYTES])e->keys;
	for (pos = 0; pos < q->prompt && trace_iter_next(&it, &id); pos++)
		memcpy(q->keys[pos], e->plan->keys[id], KVMD_KEY_BYTES);
	for (; pos < q->prompt + q->output; pos++)
		plan_output_key(e->o->seed, q->i, pos, q->keys[pos]);
}

/* Out of memory for now: let the others finish. The library's news are not left waiting. */
static int back_off(struct engine *e, uint32_t tries)
{
	struct pollfd p = { .fd = kvc_fd(e->k), .events = POLLIN };
	int ms = 1 << min(tries, 6U), err;

	err = engine_drain(e);
	if (err)
		return err;
	poll(&p, 1, min(ms, MAX_BACKOFF_MS));
	return kvc_poll(e->k);
}

int engine_request(struct engine *e, uint64_t i)
{
	struct request q = {
		.i = i,
		.prompt = plan_prompt_blocks(e->plan, i),
		.output = plan_output_blocks(e->plan, i),
	};
	uint32_t tries;
	int err;

	plan_fit(e->run->fit, &q.prompt, &q.output);
	gather_keys(e, &q);
	err = tell_clock(e, i);
	for (tries = 0; !err && tries < MAX_ATTEMPTS; tries++) {
		err = attempt(e, &q);
		if (!err)
			return 0;
		if (!is_passing(err))
			break;
		e->page->deadlocks += err == -EDEADLK;
		e->page->no_memory += err != -EDEADLK;
		err = back_off(e, tries);
	}
	return engine_say(e, i, err ? "the end" : "no memory for long, the end",
			  err ? err : -ENOMEM);
}
