// SPDX-License-Identifier: Apache-2.0
/*
 * replay_client.c - a client's life: connect, run its requests in their turn, leave.
 *
 * While it waits, for its turn or for the time of a request, the client keeps
 * an eye on the library's descriptor, so that the daemon never waits for it to
 * map a slab.
 */
#include <poll.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "kvmd/lib/clock.h"
#include "tools/kvtrace/kvtrace.h"
#include "tools/kvtrace/replay_engine.h"

#define SQ_ENTRIES	256
#define SPARE_SEQS	8
#define ARGS_SLACK	65536
#define CONNECT_NS	10000000000ULL
#define MAX_SLEEP_NS	1000000000ULL

static void space_fill(struct kvc_space *sp, const struct replay_run *r, uint32_t c, char *name,
		       size_t bytes)
{
	const struct replay_opts *o = r->plan->o;

	if (r->is_private)
		snprintf(name, bytes, "%.40s-%u", r->space, c);
	else
		snprintf(name, bytes, "%.40s", r->space);
	kvc_space_init(sp, name);
	sp->salt = &o->seed;
	sp->salt_bytes = sizeof(o->seed);
	sp->nr_groups = 1;
	sp->nr_shards = o->shards;
	plan_group(o, r->plan->t.block_tokens, &sp->group[0]);
	sp->group[0].max_slots = (uint32_t)r->slots + 1;	/* slot 0 is nobody's */
}

static int connect_daemon(struct engine *e)
{
	const struct replay_plan *p = e->plan;
	char name[KVMD_NAME_BYTES], label[32];
	struct kvc_space sp;
	struct kvc_opts o;
	uint32_t i;
	int err;

	snprintf(label, sizeof(label), "kvtrace-%u", e->c);
	kvc_opts_init(&o);
	o.socket = e->run->socket;
	o.label = label;
	o.sq_entries = SQ_ENTRIES;
	o.max_seqs = e->max_seqs;
	o.max_tokens = max(p->max_row, 1U) * p->t.block_tokens;
	o.args_bytes = align_up(2ull * p->max_prompt * KVMD_KEY_BYTES +
				(e->o->late + 2ull) * e->o->chunk * KVMD_KEY_BYTES + ARGS_SLACK,
				4096);
	o.wait_ns = CONNECT_NS;
	o.recompute_tps = e->o->recompute_tps;
	space_fill(&sp, e->run, e->c, name, sizeof(name));
	err = kvc_create(&o, &sp, &e->k);
	/* A client that was killed may come back while the daemon goes. */
	for (i = 0; err == -ECONNRESET && i < e->o->restarts; i++)
		err = kvc_create(&o, &sp, &e->k);
	return err;
}

void engine_look(struct engine *e)
{
	e->view = kvc_view(e->k);
	/* A daemon that knows of loads has a line of status for each sequence. */
	e->open_flags = kvc_seq_status(e->k, 0) ? KVMD_OPEN_LOAD | KVMD_OPEN_WAIT : 0;
}

static int engine_init(struct engine *e, const struct replay_run *r, uint32_t c)
{
	uint32_t i;
	int err;

	memset(e, 0, sizeof(*e));
	e->run = r;
	e->plan = r->plan;
	e->o = r->plan->o;
	e->c = c;
	e->page = &r->page->c[c];
	e->max_seqs = e->o->late + SPARE_SEQS;
	e->free_seq = calloc(e->max_seqs, sizeof(*e->free_seq));
	e->keys = malloc((size_t)max(e->plan->max_row, 1U) * KVMD_KEY_BYTES);
	e->seq_gen = calloc(e->max_seqs, sizeof(*e->seq_gen));
	if (!e->free_seq || !e->seq_gen || !e->keys)
		return -ENOMEM;
	for (i = e->max_seqs; i-- > 0;)
		e->free_seq[e->nr_free_seqs++] = i;
	err = connect_daemon(e);
	if (err)
		return err;
	engine_look(e);
	if (!e->view->group[0].plane->rw && e->o->verify != VERIFY_NONE)
		return -EOPNOTSUPP;	/* a null device has no bytes to check */
	return device_start(&e->dev, e->k, e->o, e->page);
}

static void engine_exit(struct engine *e)
{
	if (e->k)
		device_stop(&e->dev);
	kvc_destroy(e->k);
	free(e->free_seq);
	free(e->seq_gen);
	free(e->keys);
}

/* Sleep until the event, the library's news, or @ns; UINT64_MAX: no limit. */
static int doze(struct engine *e, uint64_t ns)
{
	struct pollfd p[2] = {
		{ .fd = e->run->event[e->c], .events = POLLIN },
		{ .fd = kvc_fd(e->k), .events = POLLIN },
	};
	struct timespec ts = {
		.tv_sec = (time_t)(ns / 1000000000),
		.tv_nsec = (long)(ns % 1000000000),
	};
	uint64_t count;

	if (ppoll(p, 2, ns == UINT64_MAX ? NULL : &ts, NULL) < 0 && errno != EINTR)
		return -errno;
	/* Non-blocking: nothing to read is no error. */
	if ((p[0].revents & POLLIN) && read(p[0].fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return -errno;
	return kvc_poll(e->k);
}

static int wait_turn(struct engine *e, uint64_t i)
{
	int err = 0;

	if (run_may_start(e->run, i))
		return 0;
	/* The engine stands still: what is under way comes to its end. */
	err = engine_drain(e);
	st_rlx(&e->page->want, i);
	/* Pairs with run_advance()'s. */
	smp_mb();
	while (!err && !run_may_start(e->run, i))
		err = doze(e, UINT64_MAX);
	st_rlx(&e->page->want, REPLAY_DONE);
	return err;
}

static int wait_time(struct engine *e, uint64_t i)
{
	const struct trace_req *reqs = e->plan->t.reqs;
	uint64_t at = reqs[i].ts_ns - reqs[0].ts_ns, now;
	int err = 0;

	if (e->o->time == TIME_FAST || reqs[i].ts_ns <= reqs[0].ts_ns)
		return 0;
	at = e->run->page->start_ns + (uint64_t)((double)at / e->o->scale);
	now = clock_ns();
	if (now >= at)
		return 0;
	err = engine_drain(e);
	while (!err && (now = clock_ns()) < at)
		err = doze(e, min(at - now, (uint64_t)MAX_SLEEP_NS));
	return err;
}

static int run_one(struct engine *e, struct replay_run *r, uint64_t i)
{
	int err;

	err = wait_turn(e, i);
	if (!err)
		err = wait_time(e, i);
	if (err)
		return engine_say(e, i, "waiting for the turn", err);
	err = engine_request(e, i);
	if (err)
		return err;
	st_rlx(&e->page->done, e->page->done + 1);
	run_advance(r, e->c, plan_next(e->plan, e->c, i + 1));
	return 0;
}

/* What is late comes to its end. */
static int finish(struct engine *e)
{
	device_idle(&e->dev);
	return engine_drain(e);
}

static int run_requests(struct engine *e, struct replay_run *r)
{
	uint64_t i;
	int err;

	do {
		i = ld_rlx(&e->page->next);
		err = i == REPLAY_DONE ? finish(e) : run_one(e, r, i);
		if (err == -ECONNRESET && e->o->restarts) {
			st_rlx(&e->page->want, REPLAY_DONE);
			err = engine_recover(e);
		}
	} while (!err && i != REPLAY_DONE);
	return err;
}

int client_main(struct replay_run *r, uint32_t c)
{
	struct engine *e = malloc(sizeof(*e));
	int err;

	if (!e)
		return KVT_REFUSED;
	err = engine_init(e, r, c);
	if (err)
		engine_say(e, REPLAY_DONE, err == -EOPNOTSUPP ? "no memory to check" : "start", err);
	else
		err = run_requests(e, r);
	engine_exit(e);
	free(e);
	return err ? KVT_REFUSED : KVT_OK;
}
