// SPDX-License-Identifier: Apache-2.0
/*
 * engine.c - continuous batching: which rows the next step has.
 *
 * Each turn takes in what fits, computes one chunk of the oldest prompt that is not
 * computed yet, then one token of every sequence that generates. When the pool has no
 * block left for a sequence, the youngest other one gives its blocks up (to RAM, where
 * there is some) until one has ended.
 */
#include "tools/kvinfer/kvinfer.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kvmd/lib/sum.h"

#define SOON_NS		1000000u	/* waits while others run */
#define ALONE_TRIES	60u	/* waits for other engines' blocks, each of the daemon's choice */

uint64_t ki_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

int ki_fail(struct ki_engine *e, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
	va_end(ap);
	return err;
}

/* ---------------------------------------------------------------------- steps */

int ki_engine_step(struct ki_engine *e, const struct ki_step *st)
{
	int err = 0;

	if (e->pool)
		err = ki_pool_begin(e, e->pool);
	if (!err && e->tp)
		err = ki_tp_step(e, st, false);
	if (!err) {
		err = ki_step(e->run, &e->cache, st);
		if (err && !ki_tp_gone(e->tp))
			ki_fail(e, err, "a step failed: %s", ki_run_error(e->run));
	}
	if (!err && e->tp)
		err = ki_tp_wait(e);
	if (e->pool)
		ki_pool_end(e->pool);
	return err;
}

/* Where the noise of a token comes from: request, sample and position, nothing else. */
static uint64_t seed_of(const struct ki_engine *e, const struct ki_seq *s)
{
	uint64_t x = e->o.seed * 0x9e3779b97f4a7c15ull + ((uint64_t)s->req->id << 32 | s->sample);

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull + s->nr;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

int ki_engine_pick(struct ki_engine *e, const struct ki_seq *s, const float *logits,
		   int32_t *ret_token)
{
	uint32_t vocab = e->m->shape.vocab;
	uint64_t seed = seed_of(e, s);
	struct kn_sample_args a;
	int err = 0;

	if (!e->pick.logits) {
		e->pick.logits = kn_alloc(e->dev, vocab * sizeof(float));
		e->pick.seed = kn_alloc(e->dev, sizeof(seed));
		e->pick.token = kn_alloc(e->dev, sizeof(*ret_token));
	}
	if (!e->pick.logits || !e->pick.seed || !e->pick.token)
		return ki_fail(e, -ENOMEM, "no memory on the device");
	a = (struct kn_sample_args) {
		.logits = e->pick.logits, .seed = e->pick.seed, .token = e->pick.token, .rows = 1,
		.vocab = vocab, .top_k = e->o.top_k, .temperature = e->o.temperature,
	};
	err = err ? err : kn_put(e->dev, e->pick.logits, logits, vocab * sizeof(float));
	err = err ? err : kn_put(e->dev, e->pick.seed, &seed, sizeof(seed));
	err = err ? err : kn_launch(e->dev, KN_SAMPLE, 1, 1, 1, 0, &a);
	err = err ? err : kn_get(e->dev, ret_token, e->pick.token, sizeof(*ret_token));
	return err ? ki_fail(e, err, "sampling: %s", kn_error(e->dev)) : 0;
}

int ki_engine_made(struct ki_engine *e, struct ki_seq *s, int32_t token, const float *logits)
{
	size_t bytes = e->m->shape.vocab * sizeof(*logits);
	uint64_t sum[2] = { s->logits_sum, sum_of(logits, bytes) };

	s->logits_sum = sum_of(sum, sizeof(sum));
	if (s->logits)
		memcpy((char *)s->logits + s->made * bytes, logits, bytes);
	if (!s->made)
		s->first_ns = ki_now();
	s->made++;
	s->alone_tries = 0;
	s->state = KI_DECODE;
	if (s->made >= s->req->tokens) {
		s->end_ns = ki_now();
		s->state = KI_DONE;
	}
	e->total.made_tokens++;
	e->in_vain = 0;
	return ki_seq_append(s, token);
}

/* --------------------------------------------------------------- who runs */

void ki_engine_add(struct ki_engine *e, struct ki_seq *s)
{
	if (!e->seqs)
		e->seqs_tail = &e->seqs;
	*e->seqs_tail = s;
	e->seqs_tail = &s->next;
	e->nr_seqs++;
}

static void remove_seq(struct ki_engine *e, struct ki_seq *s)
{
	struct ki_seq **at = &e->seqs;

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	if (e->seqs_tail == &s->next)
		e->seqs_tail = at;
	e->nr_seqs--;
	e->freed = true;
}

/* The last one of a request takes that with it. */
static void end_seq(struct ki_engine *e, struct ki_seq *s)
{
	struct ki_request *r = s->req;
	const struct ki_seq *other;

	remove_seq(e, s);
	ki_seq_close(e, s);
	for (other = e->seqs; other && other->req != r; other = other->next)
		;
	if (!other)
		ki_request_free(r);
}

static struct ki_seq *first_in(const struct ki_engine *e, enum ki_state state)
{
	struct ki_seq *s = e->seqs;

	while (s && s->state != state)
		s = s->next;
	return s;
}

/* Places that running sequences have, or will have. */
static uint32_t places(const struct ki_engine *e)
{
	uint32_t nr = 0;

	for (const struct ki_seq *s = e->seqs; s; s = s->next)
		nr += 1 + s->nr_forks;
	return nr;
}

static int admit(struct ki_engine *e)
{
	/*
	 * Those that gave way come first; and what one prompt has in common with the next
	 * is there to be found only when it is computed.
	 */
	while (e->wait.head && !first_in(e, KI_SWAPPED) && !first_in(e, KI_PREFILL)) {
		struct ki_request *r = e->wait.head;
		struct ki_seq *s;
		int err;

		if (places(e) + r->samples > e->o.batch || (e->pool && e->pool->gone))
			return 0;
		err = r->handed ? ki_handoff_open(e, r, &s) : ki_seq_open(e, r, &s);
		if (err == -ECONNRESET)
			return 0;
		if (err)
			return err;
		e->wait.head = r->next;
		if (!r->handed)
			s->nr_forks = r->samples - 1;
		ki_engine_add(e, s);
	}
	return 0;
}

static int too_small(struct ki_engine *e, const struct ki_seq *s)
{
	return ki_fail(e, -ENOMEM, "the pool has no room for one sequence of %u tokens: give the "
		       "daemon more memory, or ask for less", s->nr);
}

/* The youngest of the others that has blocks gives them up; else @s itself. */
static bool is_alone(const struct ki_engine *e, const struct ki_seq *s)
{
	for (const struct ki_seq *o = e->seqs; o; o = o->next)
		if (o != s && (o->state == KI_DECODE || o->state == KI_PREFILL))
			return false;
	return true;
}

/* Nobody here can give way to @s any more: others may, for a while. */
static int wait_alone(struct ki_engine *e, struct ki_seq *s)
{
	if (++s->alone_tries < ALONE_TRIES)
		return 0;
	return ki_fail(e, -ENOMEM, "the pool has no room for one sequence of %u tokens: give the "
		       "daemon more memory, or ask for less", s->nr);
}

static int make_room(struct ki_engine *e, struct ki_seq *s)
{
	struct ki_seq *victim = s;
	int err = is_alone(e, s) ? wait_alone(e, s) : 0;

	if (err)
		return err;
	for (struct ki_seq *o = e->seqs; o; o = o->next)
		if (o != s && o->blocks && (o->state == KI_DECODE || o->state == KI_PREFILL))
			victim = o;
	if (victim == s && ++e->in_vain == ALONE_TRIES)
		return too_small(e, s);
	return ki_seq_swap_out(e, victim);
}

/* The daemon is gone, and with it what it would have got. */
static void stop(struct ki_seq *s)
{
	s->stopped = true;
	s->end_ns = ki_now();
	s->state = KI_DONE;
}

/*
 * Blocks for @len tokens of @s. 1: it has them; 0: not now, it gave its own up or, the
 * daemon being gone, has ended.
 */
static int get_room(struct ki_engine *e, struct ki_seq *s, uint32_t len)
{
	int err;

	for (;;) {
		err = ki_seq_grow(e, s, len);
		if (!err)
			return 1;
		if (err == -ECONNRESET) {
			stop(s);
			return 0;
		}
		if (err != -ENOMEM && err != -EDEADLK && err != -EAGAIN)
			return err;
		err = make_room(e, s);
		if (err)
			return err;
		if (s->state == KI_SWAPPED)
			return 0;
	}
}

/* Sequences that gave way come back, oldest first, when something got free. */
static int resume(struct ki_engine *e)
{
	struct ki_seq *s;
	int err;

	while ((s = first_in(e, KI_SWAPPED))) {
		bool alone = is_alone(e, s);

		if (!e->freed && !alone)
			return 0;
		err = ki_seq_swap_in(e, s, alone ? 0 : SOON_NS);
		if (err == -ECONNRESET) {
			stop(s);
			continue;
		}
		if (err && err != -ENOMEM && err != -EDEADLK && err != -EAGAIN)
			return err;
		if (!err)
			continue;
		e->freed = false;
		err = alone ? wait_alone(e, s) : 0;
		if (err)
			return err;
	}
	return 0;
}

/* ------------------------------------------------------------------ one turn */

static int after_step(struct ki_engine *e, struct ki_seq *s, uint32_t rows)
{
	int err;

	s->done += rows;
	s->len += rows;
	s->steps++;
	err = ki_seq_advance(e, s);
	if (!err && e->o.h2o)
		err = ki_h2o_evict(e, s);
	return err;
}

/* The last row of the prompt is computed: its samples begin. */
static int prefilled(struct ki_engine *e, struct ki_seq *s, const float *logits)
{
	int32_t token;
	int err;

	if (s->nr_forks) {
		err = ki_fork(e, s, logits);
		if (err)
			return err;
	}
	s->nr_forks = 0;
	err = ki_engine_pick(e, s, logits, &token);
	if (!err)
		err = ki_engine_made(e, s, token, logits);
	if (!err && e->o.role == KI_ROLE_PREFILL && s->state != KI_DONE)
		err = ki_handoff_send(e, s);
	return err;
}

static int prefill(struct ki_engine *e, struct ki_seq *s, float *logits, float *mass)
{
	uint32_t n = e->o.chunk - s->done % e->o.chunk, last;
	struct kn_row row[KI_MAX_CHUNK];
	struct ki_step st;
	int err;

	if (n > s->nr - s->done)
		n = s->nr - s->done;
	err = get_room(e, s, s->len + n);
	if (err != 1)
		return err;
	for (uint32_t i = 0; i < n; i++)
		row[i] = (struct kn_row) {
			.seq = s->idx, .pos = s->done + i, .len = s->len + i + 1,
		};
	last = n - 1;
	st = (struct ki_step) {
		.shape = e->o.chunk, .nr = n, .token = s->token + s->done, .row = row,
		.one_seq = true,
		.nr_out = s->done + n == s->nr, .out_shape = e->o.batch, .out = &last,
		.ret_logits = s->done + n == s->nr ? logits : NULL, .ret_mass = mass,
		.mass_tokens = s->len + n,
	};
	err = ki_engine_step(e, &st);
	if (err)
		return err;
	for (uint32_t i = 0; i < n && mass && !err; i++)
		err = ki_h2o_mass(e, s, mass + (size_t)i * st.mass_tokens, st.mass_tokens);
	e->total.prefill_steps++;
	e->total.computed_tokens += n;
	if (!err)
		err = after_step(e, s, n);
	if (!err && st.nr_out)
		err = prefilled(e, s, logits);
	return err;
}

/* One token of each that generates. */
static int decode(struct ki_engine *e, float *logits, float *mass)
{
	struct ki_seq *of[KI_MAX_SEQS], *s;
	struct kn_row row[KI_MAX_SEQS];
	int32_t token[KI_MAX_SEQS];
	uint32_t out[KI_MAX_SEQS];
	struct ki_step st = { .shape = e->o.batch, .token = token, .row = row, .out = out,
			      .out_shape = e->o.batch, .ret_logits = logits, .ret_mass = mass };
	int err;

	for (s = e->seqs; s; s = s->next) {
		err = s->state == KI_DECODE ? get_room(e, s, s->len + 1) : 0;
		if (err < 0)
			return err;
	}
	for (s = e->seqs; s; s = s->next) {
		if (s->state != KI_DECODE)
			continue;
		of[st.nr] = s;
		token[st.nr] = s->token[s->done];
		row[st.nr] = (struct kn_row) { .seq = s->idx, .pos = s->done, .len = s->len + 1 };
		out[st.nr] = st.nr;
		if (st.mass_tokens < s->len + 1)
			st.mass_tokens = s->len + 1;
		st.nr++;
	}
	st.nr_out = st.nr;
	if (!st.nr)
		return 0;
	err = ki_engine_step(e, &st);
	e->total.decode_steps++;
	e->total.computed_tokens += st.nr;
	for (uint32_t i = 0; i < st.nr && !err; i++) {
		const float *l = logits + (size_t)i * e->m->shape.vocab;

		s = of[i];
		if (mass)
			err = ki_h2o_mass(e, s, mass + (size_t)i * st.mass_tokens, s->len + 1);
		if (!err)
			err = after_step(e, s, 1);
		if (!err)
			err = ki_engine_pick(e, s, l, &token[i]);
		if (!err)
			err = ki_engine_made(e, s, token[i], l);
	}
	return err;
}

static int speculate(struct ki_engine *e)
{
	for (struct ki_seq *s = e->seqs; s; s = s->next) {
		int err = s->state == KI_DECODE ?
			get_room(e, s, s->len + ki_drafts(e, s) + 1) : 0;

		if (err == 1)
			err = ki_speculate(e, s);
		if (err)
			return err;
	}
	return 0;
}

/* Answers that are complete: checked, said, closed. */
static int finish(struct ki_engine *e)
{
	struct ki_seq *s;
	int err = 0;

	while (!err && (s = first_in(e, KI_DONE))) {
		if (e->o.check && !s->stopped)
			err = ki_check(e, s);
		e->total.requests++;
		e->total.prompt_tokens += s->req->nr;
		e->total.cached_tokens += s->cached;
		ki_report_seq(e, s);
		end_seq(e, s);
	}
	return err;
}

int ki_engine_run(struct ki_engine *e)
{
	uint32_t rows = e->o.batch > e->o.chunk ? e->o.batch : e->o.chunk;
	float *logits = calloc((size_t)e->o.batch * e->m->shape.vocab, sizeof(*logits));
	size_t masses = e->o.h2o ? (size_t)rows * e->m->shape.max_tokens : 0;
	float *mass = masses ? calloc(masses, sizeof(*mass)) : NULL;
	int err = 0;

	if (!logits || (masses && !mass))
		err = ki_fail(e, -ENOMEM, "no memory");
	e->total.start_ns = ki_now();
	while (!err && (e->wait.head || e->seqs)) {
		struct ki_seq *s;

		err = admit(e);
		if (!err && !e->seqs)
			err = ki_fail(e, e->pool && e->pool->gone ? -ECONNRESET : -EBUSY, "%s",
				      e->pool && e->pool->gone ? "the daemon is gone" :
				      "more samples than --batch has places");
		if (!err)
			err = resume(e);
		e->freed = false;
		s = err ? NULL : first_in(e, KI_PREFILL);
		if (s)
			err = prefill(e, s, logits, mass);
		if (!err)
			err = e->o.draft_tokens ? speculate(e) : decode(e, logits, mass);
		if (!err)
			err = finish(e);
	}
	if (!err && e->pool && e->pool->gone)
		err = ki_fail(e, -ECONNRESET, "the daemon is gone");
	e->total.end_ns = ki_now();
	while (e->seqs) {
		struct ki_seq *s = e->seqs;

		end_seq(e, s);
	}
	free(logits);
	free(mass);
	return err;
}
