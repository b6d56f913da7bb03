// SPDX-License-Identifier: Apache-2.0
/*
 * replay_recover.c - a client outlives its daemon.
 *
 * The one that comes next may know us: then our sequences are what they were,
 * entries under way end with -ECONNRESET, and all that is left is to close what
 * is open. Or it does not, then nothing is open. Either way the request that ran
 * is run again from its beginning; its hits have been counted.
 */
#include <poll.h>

#include "kvmd/lib/clock.h"
#include "tools/kvtrace/replay_engine.h"

#define RECOVER_NS	60000000000ULL
#define LOOK_MS		5

/* The same options, another daemon: 1 it knew us, 0 it did not, or -errno. */
static int reconnect(struct engine *e)
{
	uint64_t until = clock_ns() + RECOVER_NS;
	int err;

	for (;;) {
		err = kvc_reconnect(e->k);
		if (err >= 0)
			return err;
		if (clock_ns() >= until)
			return err == -ECONNRESET ? -ETIMEDOUT : err;
		if (err != -EAGAIN && err != -ECONNREFUSED && err != -ENOENT && err != -ECONNRESET)
			return err;
		poll(NULL, 0, LOOK_MS);
	}
}

/* Nothing is under way, no sequence is open, as on the first day. */
static void forget(struct engine *e)
{
	uint32_t i;

	memset(e->op, 0, sizeof(e->op));
	e->nr_ops = 0;
	e->nr_free_seqs = 0;
	for (i = e->max_seqs; i-- > 0;)
		engine_seq_put(e, i);
}

static int close_one(struct engine *e, uint32_t seq)
{
	struct engine_op *op;
	struct kvmd_sqe *sqe;
	int err;

	err = engine_op(e, REPLAY_CLOSE, seq, &op, &sqe);
	if (err)
		return err;
	kvc_prep_close(sqe, seq, e->seq_gen[seq], e->step, 0);
	err = engine_go(e, op, sqe, true);
	if (!err)
		err = engine_wait(e, op, NULL);
	/* Its open may never have happened, its close may have. */
	return err == -ECONNRESET ? err : 0;
}

/* Take the ends of what was under way; close what is open. */
static int settle(struct engine *e)
{
	uint32_t i;
	int err;

	for (i = 0; i < ENGINE_OPS; i++) {
		struct engine_op *op = &e->op[i];

		if (op->busy && op->done)
			engine_wait(e, op, NULL);
		op->awaited = false;
	}
	e->settling = true;
	err = engine_drain(e);
	e->settling = false;
	for (i = 0; i < e->max_seqs && !err; i++)
		err = e->seq_gen[i] ? close_one(e, i) : 0;
	return err;
}

int engine_recover(struct engine *e)
{
	int err;

	/* Steps are completed by a thread that must not meet the reconnect. */
	device_quiesce(&e->dev);
	do {
		e->err = 0;
		err = reconnect(e);
		if (err < 0)
			break;
		engine_look(e);
		if (err == 1) {
			e->page->resumed++;
			err = settle(e);
		} else {
			e->page->anew++;
			forget(e);
			err = 0;
		}
	} while (err == -ECONNRESET);
	if (err)
		engine_say(e, REPLAY_DONE, "going on with the next daemon", err);
	return err;
}
