// SPDX-License-Identifier: Apache-2.0
/*
 * stream.c - streams, each with a thread and a queue, and events.
 *
 * Streams run in any order among each other, also the default one: less order than
 * a driver keeps, never more. Threads are detached and end with their stream.
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

#include "tests/fakecuda/fake.h"

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static uint64_t draw(struct fc_stream *s)
{
	s->rnd += 0x9e3779b97f4a7c15ull;
	uint64_t z = s->rnd;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

struct fc_op *fc_op_new(enum fc_op_kind kind, size_t nr)
{
	struct fc_op *op = calloc(1, sizeof(*op));

	if (!op)
		return NULL;
	op->kind = kind;
	op->nr = nr;
	if (nr) {
		op->copy = calloc(nr, sizeof(*op->copy));
		if (!op->copy) {
			free(op);
			return NULL;
		}
	}
	return op;
}

void fc_op_free(struct fc_op *op)
{
	if (!op)
		return;
	fc_use_drop(op);
	if (op->event) {
		fc_event_done(op->event, op->seq);
		fc_event_put(op->event);
	}
	if (op->finished)
		*op->finished = true;
	else
		free(op->args);
	free(op->copy);
	free(op->use);
	free(op);
	pthread_cond_broadcast(&fc.done);
}

void fc_submit(struct fc_stream *s, struct fc_op *op)
{
	*s->last = op;
	s->last = &op->next;
	pthread_cond_signal(&s->wake);
}

/* Copies are late, by a time that nobody can count on. */
static void delay(struct fc_stream *s)
{
	uint64_t until = now_ns();
	struct timespec t;

	/* Half of them run at once. */
	if (!fc.conf.delay_us || draw(s) >> 63)
		return;
	until += draw(s) % (fc.conf.delay_us * 1000ull + 1);
	t.tv_sec = until / 1000000000;
	t.tv_nsec = until % 1000000000;
	while (!s->ctx->dead && !s->ctx->sticky && now_ns() < until)
		pthread_cond_timedwait(&s->wake, &fc.lock, &t);
}

/* Inside a batch nothing is ordered [H 11107]. */
static void shuffle(struct fc_stream *s, struct fc_op *op)
{
	struct fc_copy c;
	size_t k;

	for (size_t i = op->nr; i > 1; i--) {
		k = draw(s) % i;
		c = op->copy[i - 1];
		op->copy[i - 1] = op->copy[k];
		op->copy[k] = c;
	}
}

static void run_one(struct fc_stream *s, struct fc_op *op)
{
	int r;

	s->busy = true;
	s->ctx->nr_running++;
	if (op->kind != OP_EVENT && op->kind != OP_WAIT64)
		delay(s);
	if (op->kind != OP_EVENT && !s->ctx->sticky && !s->ctx->dead) {
		shuffle(s, op);
		pthread_mutex_unlock(&fc.lock);
		r = fc_run(s, op);
		pthread_mutex_lock(&fc.lock);
		if (r)
			fc_poison(s->ctx, r);
	}
	s->busy = false;
	s->ctx->nr_running--;
	fc_op_free(op);
}

static void *stream_thread(void *arg)
{
	struct fc_stream *s = arg, **at = &fc.streams;
	struct fc_op *op;

	prctl(PR_SET_TIMERSLACK, 1);	/* 50 us are as much as a delay */
	pthread_mutex_lock(&fc.lock);
	for (;;) {
		while (!s->first && !s->destroyed && !s->ctx->dead)
			pthread_cond_wait(&s->wake, &fc.lock);
		op = s->first;
		if (!op)
			break;
		s->first = op->next;
		if (!s->first)
			s->last = &s->first;
		if (s->ctx->dead)
			fc_op_free(op);
		else
			run_one(s, op);
	}
	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	pthread_cond_broadcast(&fc.done);
	pthread_mutex_unlock(&fc.lock);
	pthread_cond_destroy(&s->wake);
	free(s);
	return NULL;
}

struct fc_stream *fc_stream_new(struct fc_ctx *c)
{
	struct fc_stream *s = calloc(1, sizeof(*s));
	pthread_condattr_t ca;
	pthread_attr_t a;
	sigset_t all, old;
	pthread_t t;
	int err;

	if (!s)
		return NULL;
	s->ctx = c;
	s->last = &s->first;
	fc_lock(fc.state);
	s->order = ++fc.state->next_order;
	fc_unlock(fc.state);
	s->rnd = fc.conf.seed * 1000003 + ++fc.nr_streams;
	pthread_condattr_init(&ca);
	pthread_condattr_setclock(&ca, CLOCK_MONOTONIC);
	pthread_cond_init(&s->wake, &ca);
	pthread_condattr_destroy(&ca);
	/* The application's signals are not for this thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_attr_init(&a);
	pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
	err = pthread_create(&t, &a, stream_thread, s);
	pthread_attr_destroy(&a);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (err) {
		pthread_cond_destroy(&s->wake);
		free(s);
		return NULL;
	}
	s->next = fc.streams;
	fc.streams = s;
	return s;
}

/* NULL and CU_STREAM_LEGACY, CU_STREAM_PER_THREAD (1, 2) are the default one. */
struct fc_stream *fc_stream_find(struct fc_ctx *c, cu_stream want)
{
	struct fc_stream *s;

	if ((uintptr_t)want <= 2)
		return c->null;
	for (s = fc.streams; s; s = s->next)
		if (s == want && s->ctx == c && !s->destroyed && s != c->null)
			return s;
	return NULL;
}

static bool is_idle(const struct fc_stream *s)
{
	return !s->first && !s->busy;
}

void fc_drain(struct fc_ctx *c)
{
	struct fc_stream *s;

	for (;;) {
		for (s = fc.streams; s; s = s->next)
			if (s->ctx == c && !is_idle(s))
				break;
		if (!s || c->dead || c->sticky)
			return;
		pthread_cond_wait(&fc.done, &fc.lock);
	}
}

/* What is queued is dropped, what runs comes to its end. */
void fc_stream_reset(struct fc_ctx *c)
{
	struct fc_stream *s;
	struct fc_event **at = &fc.events, *e;

	for (;;) {
		bool any = false;

		for (s = fc.streams; s; s = s->next) {
			if (s->ctx != c)
				continue;
			any = true;
			pthread_cond_signal(&s->wake);
		}
		if (!any)
			break;
		pthread_cond_wait(&fc.done, &fc.lock);
	}
	c->null = NULL;
	while ((e = *at)) {
		if (e->ctx != c) {
			at = &e->next;
			continue;
		}
		*at = e->next;
		free(e);
	}
}

int fc_stream_create(cu_stream *ret, unsigned flags, int priority)
{
	struct fc_stream *s;
	struct fc_ctx *c;

	(void)priority;
	ENTER_CTX(stream_create, &c);
	if (flags & ~CU_STREAM_OWN_ORDER)
		return fc_leave(CU_INVALID_VALUE);
	s = fc_stream_new(c);
	if (!s)
		return fc_leave(CU_OUT_OF_MEMORY);
	*ret = s;
	return fc_leave(CU_OK);
}

/* Returns at once; what is queued is still done. */
int fc_stream_destroy(cu_stream stream)
{
	struct fc_stream *s;
	struct fc_ctx *c;

	ENTER_CTX(stream_destroy, &c);
	s = fc_stream_find(c, stream);
	if (!s || s == c->null)
		return fc_leave(CU_INVALID_HANDLE);
	s->destroyed = true;
	pthread_cond_signal(&s->wake);
	return fc_leave(CU_OK);
}

int fc_stream_query(cu_stream stream)
{
	struct fc_stream *s;
	struct fc_ctx *c;

	ENTER_CTX(stream_query, &c);
	s = fc_stream_find(c, stream);
	if (!s)
		return fc_leave(CU_INVALID_HANDLE);
	return fc_leave(is_idle(s) ? CU_OK : CU_NOT_READY);
}

/* Waits for what was queued when it was called, by an event of its own. */
int fc_stream_sync(cu_stream stream)
{
	struct fc_stream *s;
	struct fc_op *op;
	struct fc_ctx *c;
	bool finished = false;

	ENTER_CTX(stream_sync, &c);
	s = fc_stream_find(c, stream);
	if (!s)
		return fc_leave(CU_INVALID_HANDLE);
	op = fc_op_new(OP_EVENT, 0);
	if (!op)
		return fc_leave(CU_OUT_OF_MEMORY);
	op->finished = &finished;
	fc_submit(s, op);
	while (!finished)
		pthread_cond_wait(&fc.done, &fc.lock);
	return fc_leave(c->dead ? CU_CONTEXT_IS_DESTROYED : c->sticky);
}

/* ------------------------------------------------------------ events */

static struct fc_event *event_find(struct fc_ctx *c, cu_event want)
{
	struct fc_event *e;

	for (e = fc.events; e; e = e->next)
		if (e == want && e->ctx == c && !e->destroyed)
			return e;
	return NULL;
}

void fc_event_done(struct fc_event *e, uint64_t seq)
{
	if (seq > e->done) {
		e->done = seq;
		e->ns = now_ns();
	}
}

void fc_event_put(struct fc_event *e)
{
	struct fc_event **at = &fc.events;

	if (--e->refs)
		return;
	while (*at != e)
		at = &(*at)->next;
	*at = e->next;
	free(e);
}

int fc_event_create(cu_event *ret, unsigned flags)
{
	struct fc_event *e;
	struct fc_ctx *c;

	ENTER_CTX(event_create, &c);
	if (flags & ~(CU_EVENT_BLOCKING | CU_EVENT_NO_TIMING))
		return fc_leave(CU_INVALID_VALUE);
	e = calloc(1, sizeof(*e));
	if (!e)
		return fc_leave(CU_OUT_OF_MEMORY);
	e->ctx = c;
	e->flags = flags;
	e->refs = 1;
	e->next = fc.events;
	fc.events = e;
	*ret = e;
	return fc_leave(CU_OK);
}

int fc_event_record(cu_event event, cu_stream stream)
{
	struct fc_stream *s;
	struct fc_event *e;
	struct fc_op *op;
	struct fc_ctx *c;

	ENTER_CTX(event_record, &c);
	s = fc_stream_find(c, stream);
	e = event_find(c, event);
	if (!s || !e)
		return fc_leave(CU_INVALID_HANDLE);
	op = fc_op_new(OP_EVENT, 0);
	if (!op)
		return fc_leave(CU_OUT_OF_MEMORY);
	op->event = e;
	op->seq = ++e->recorded;
	e->refs++;
	fc_submit(s, op);
	return fc_leave(CU_OK);
}

/* One that was never recorded is done. */
int fc_event_query(cu_event event)
{
	struct fc_event *e;
	struct fc_ctx *c;

	ENTER_CTX(event_query, &c);
	e = event_find(c, event);
	if (!e)
		return fc_leave(CU_INVALID_HANDLE);
	return fc_leave(e->done == e->recorded ? CU_OK : CU_NOT_READY);
}

int fc_event_sync(cu_event event)
{
	struct fc_event *e;
	struct fc_ctx *c;
	uint64_t seq;

	ENTER_CTX(event_sync, &c);
	e = event_find(c, event);
	if (!e)
		return fc_leave(CU_INVALID_HANDLE);
	seq = e->recorded;
	while (!c->dead && !c->sticky && (e = event_find(c, event)) && e->done < seq)
		pthread_cond_wait(&fc.done, &fc.lock);
	return fc_leave(c->dead ? CU_CONTEXT_IS_DESTROYED : c->sticky);
}

/* Invalid for events without timing or never recorded, not ready before both are done. */
int fc_event_ms(float *ret, cu_event from, cu_event to)
{
	struct fc_event *a, *b;
	struct fc_ctx *c;

	ENTER_CTX(event_ms, &c);
	a = event_find(c, from);
	b = event_find(c, to);
	if (!a || !b || !a->recorded || !b->recorded ||
	    ((a->flags | b->flags) & CU_EVENT_NO_TIMING))
		return fc_leave(CU_INVALID_HANDLE);
	if (a->done != a->recorded || b->done != b->recorded)
		return fc_leave(CU_NOT_READY);
	*ret = (float)((double)(int64_t)(b->ns - a->ns) / 1e6);
	return fc_leave(CU_OK);
}

int fc_event_destroy(cu_event event)
{
	struct fc_event *e;
	struct fc_ctx *c;

	ENTER_CTX(event_destroy, &c);
	e = event_find(c, event);
	if (!e)
		return fc_leave(CU_INVALID_HANDLE);
	e->destroyed = true;
	fc_event_put(e);
	return fc_leave(CU_OK);
}
