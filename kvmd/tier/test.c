// SPDX-License-Identifier: Apache-2.0
/*
 * test.c - one element of a stack of test tiers.
 *
 * While a request waits here its `next' and `due_ns' are ours. The lowest bits
 * of due_ns say what happens when it is due: F_END it ends here with r->err,
 * F_FLIP one bit is turned, F_FREE its place was freed meanwhile and is freed
 * below once the tier below knows of the request.
 */
#include "kvmd/tier/test.h"
#include "kvmd/lib/clock.h"
#include "kvmd/lib/mem.h"
#include "kvmd/lib/sum.h"
#include "kvmd/tier/ram.h"

#define F_END	1ull
#define F_FLIP	2ull
#define F_FREE	4ull
#define F_ALL	7ull

/* A request of ours to the tier below, for one of the caller's. */
struct pass {
	struct tier_req r;
	struct tier_req *orig;		/* NULL: unused */
	struct test_tier *owner;
	struct pass *next;		/* free list */
	uint64_t flip;			/* 1 + bit to turn after the read; 0: none */
};

struct test_tier {
	struct tier t;
	struct test_opts o;
	struct tier_queue q[NR_TEST_QUEUE];	/* each in the order of due_ns */
	struct pass *free_pass;
	uint64_t nr_calls, nr_hits;	/* of what the rule is about */
	bool draining_seen;		/* t.draining when it was last compared */
	struct pass pass[TEST_PASSES];
};

const char *test_kind_name(unsigned kind)
{
	static const char *const name[NR_TEST] = { "null", "delay", "error" };

	return kind < NR_TEST ? name[kind] : "?";
}

const char *test_error_name(unsigned what)
{
	static const char *const name[NR_TEST_ERR] = { "read", "write", "alloc", "flip" };

	return what < NR_TEST_ERR ? name[what] : "?";
}

/* ------------------------------------------------------------- the tier below */

static struct test_tier *self(struct tier *t)
{
	return container_of(t, struct test_tier, t);
}

/* Whoever set `draining' last, on this tier or below, is followed. */
static void mirror(struct test_tier *x)
{
	struct tier *b = x->t.below;

	x->t.bytes = b->bytes;
	x->t.used_bytes = b->used_bytes;
	x->t.broken = b->broken;
	if (x->t.draining != x->draining_seen)
		b->draining = x->t.draining;
	x->t.draining = x->draining_seen = b->draining;
}

/* Is it the turn of @what to fail? Counts. */
static bool fails(struct test_tier *x, enum test_error what)
{
	if (x->o.kind != TEST_ERROR || x->o.what != what || x->nr_hits >= x->o.rule.times ||
	    !fault_rule_fails(&x->o.rule, ++x->nr_calls))
		return false;
	x->nr_hits++;
	return true;
}

static void turn_bit(void *p, uint64_t bit)
{
	((uint8_t *)p)[bit / 8] ^= (uint8_t)(1u << bit % 8);
}

/* A bit of a payload of @bytes, another one each time. */
static uint64_t some_bit(const struct test_tier *x, uint64_t bytes)
{
	return bytes ? (x->o.rule.seed + x->nr_hits) * 0x9e3779b97f4a7c15ull % (bytes * 8) : 0;
}

/* ------------------------------------------------------------------- requests */

static void end(struct test_tier *x, struct tier_req *r, int err)
{
	r->err = err;
	x->t.nr_inflight--;
	mirror(x);
	r->done(r);
}

/* The tier below has finished one of ours. */
static void passed(struct tier_req *mine)
{
	struct pass *p = container_of(mine, struct pass, r);
	struct test_tier *x = p->owner;
	struct tier_req *r = p->orig;
	int err = mine->err;

	r->sum = mine->sum;
	r->planes = mine->planes;
	r->bytes = mine->bytes;
	if (p->flip && !err) {
		turn_bit(mine->mem, p->flip - 1);
		if (mine->verify && sum_of(mine->mem, mine->bytes) != mine->sum)
			err = -EBADMSG;
	}
	p->orig = NULL;
	p->next = x->free_pass;
	x->free_pass = p;
	end(x, r, err);
}

static void pass_on(struct test_tier *x, struct tier_req *r, int dir)
{
	struct tier *below = x->t.below;
	struct pass *p = x->free_pass;

	x->free_pass = p->next;
	p->r = *r;
	p->r.done = passed;
	p->r.next = NULL;
	p->orig = r;
	p->flip = 0;
	if (r->due_ns & F_FLIP) {
		/* RAM's bytes go to HBM at once: theirs is turned before. */
		if (x->t.kind == TIER_RAM)
			turn_bit(ram_mem(below, r->place), some_bit(x, r->bytes));
		else
			p->flip = 1 + some_bit(x, r->bytes);
	}
	if (dir == TEST_READS)
		tier_read(below, &p->r);
	else
		tier_write(below, &p->r);
}

static void enqueue(struct test_tier *x, struct tier_req *r, int dir, uint64_t flags)
{
	r->due_ns = flags;
	if (x->o.delay_ns[dir])
		r->due_ns |= (clock_ns() + x->o.delay_ns[dir] + F_ALL) & ~F_ALL;
	tier_queue_push(&x->q[dir], r);
	x->t.nr_inflight++;
}

static struct tier_req *waiting(const struct test_tier *x, uint32_t place)
{
	for (int d = 0; d < NR_TEST_QUEUE; d++)
		for (struct tier_req *r = x->q[d].head; r; r = r->next)
			if (r->place == place)
				return r;
	return NULL;
}

/* The head of a queue is due. */
static void leave(struct test_tier *x, int dir)
{
	struct tier_req *r = tier_queue_pop(&x->q[dir]), *other;
	uint32_t place = r->place;
	uint64_t flags = r->due_ns & F_ALL;
	int err = r->err;

	if (!(flags & F_END))
		pass_on(x, r, dir);
	if (flags & F_FREE) {
		other = waiting(x, place);
		if (other)
			other->due_ns |= F_FREE;
		else
			x->t.below->ops->free(x->t.below, place);
	}
	if (flags & F_END)
		end(x, r, err);
}

/* ------------------------------------------------------------------------ ops */

static uint32_t test_alloc(struct tier *t, struct gpool *gp, uint32_t block, uint64_t bytes)
{
	struct test_tier *x = self(t);
	uint32_t place;

	if (fails(x, TEST_ERR_ALLOC))
		return 0;
	mirror(x);
	place = t->below->ops->alloc(t->below, gp, block, bytes);
	mirror(x);
	return place;
}

static void test_free(struct tier *t, uint32_t place)
{
	struct test_tier *x = self(t);
	struct tier_req *r = waiting(x, place);

	if (r)
		r->due_ns |= F_FREE;
	else
		t->below->ops->free(t->below, place);
	mirror(x);
}

static void test_read(struct tier *t, struct tier_req *r)
{
	struct test_tier *x = self(t);
	uint64_t flags = 0;

	if (x->o.kind == TEST_NULL || fails(x, TEST_ERR_READ)) {
		r->err = x->o.kind == TEST_NULL ? -ENODATA : -EIO;
		flags = F_END;
	} else if (fails(x, TEST_ERR_FLIP)) {
		flags = F_FLIP;
	}
	enqueue(x, r, TEST_READS, flags);
}

/* What is in RAM is another block's: it must not be taken for @r's and stored below. */
static void disown(struct tier *below, const struct tier_req *r)
{
	ram_set_sum(below, r->place, sum_of(ram_mem(below, r->place), r->bytes) ^ 1);
}

static void test_write(struct tier *t, struct tier_req *r)
{
	struct test_tier *x = self(t);
	uint64_t flags = 0;

	if (x->o.kind == TEST_NULL || fails(x, TEST_ERR_WRITE)) {
		r->err = x->o.kind == TEST_NULL ? 0 : -EIO;
		flags = F_END;
		if (x->o.kind == TEST_NULL && x->t.kind == TIER_RAM)
			disown(t->below, r);
	}
	enqueue(x, r, TEST_WRITES, flags);
}

/* What the caller may look at, or change, while the request is under way. */
static void exchange(struct test_tier *x)
{
	if (!x->t.nr_inflight)
		return;
	for (unsigned i = 0; i < TEST_PASSES; i++) {
		struct pass *p = &x->pass[i];

		if (p->orig) {
			p->orig->planes = p->r.planes;
			p->r.urgent = p->orig->urgent;
		}
	}
}

static bool can_leave(const struct test_tier *x, const struct tier_req *r)
{
	return r->due_ns & F_END || x->free_pass;
}

static unsigned test_poll(struct tier *t)
{
	struct test_tier *x = self(t);
	uint64_t now = clock_ns();
	unsigned nr = t->below->ops->poll ? t->below->ops->poll(t->below) : 0;

	exchange(x);
	for (int d = 0; d < NR_TEST_QUEUE; d++) {
		struct tier_req *last = x->q[d].tail, *r;

		/* What done() hands in again waits for the next poll. */
		while (last && (r = x->q[d].head) && (r->due_ns & ~F_ALL) <= now &&
		       can_leave(x, r)) {
			bool was_last = r == last;

			nr += (r->due_ns & F_END) != 0;
			leave(x, d);
			if (was_last)
				break;
		}
	}
	mirror(x);
	return nr;
}

static uint64_t test_next_ns(struct tier *t)
{
	struct test_tier *x = self(t);
	uint64_t next = t->below->ops->next_ns ? t->below->ops->next_ns(t->below) : 0;

	for (int d = 0; d < NR_TEST_QUEUE; d++) {
		const struct tier_req *r = x->q[d].head;

		if (r && can_leave(x, r))	/* else a done() comes first */
			next = clock_earlier(next, max(r->due_ns & ~F_ALL, 1ull));
	}
	return next;
}

static void test_destroy(struct tier *t)
{
	if (t)
		mem_free(self(t));
}

/* By kind, for the name. */
static const struct tier_ops test_ops[NR_TEST] = {
#define OPS(n) { \
	.name = n, \
	.alloc = test_alloc, \
	.free = test_free, \
	.read = test_read, \
	.write = test_write, \
	.poll = test_poll, \
	.next_ns = test_next_ns, \
	.destroy = test_destroy, \
}
	[TEST_NULL] = OPS("null"),
	[TEST_DELAY] = OPS("delay"),
	[TEST_ERROR] = OPS("error"),
#undef OPS
};

int test_tier_create(const struct test_opts *o, struct tier *below, struct tier **ret_t)
{
	struct test_tier *x = (struct test_tier *)mem_zalloc(sizeof(*x));

	if (!x)
		return -ENOMEM;
	x->o = *o;
	x->t.ops = &test_ops[o->kind];
	x->t.kind = below->kind;
	x->t.below = below;
	x->t.draining = x->draining_seen = below->draining;
	for (unsigned i = 0; i < TEST_PASSES; i++) {
		x->pass[i].owner = x;
		x->pass[i].next = x->free_pass;
		x->free_pass = &x->pass[i];
	}
	mirror(x);
	*ret_t = &x->t;
	return 0;
}
