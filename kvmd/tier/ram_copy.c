// SPDX-License-Identifier: Apache-2.0
/*
 * ram_copy.c - blocks between an HBM slot and a place in RAM.
 *
 * In RAM a block is one run of bytes: shard by shard, plane by plane, shards
 * that are replicas once. A request is a row of rounds; a round is one device
 * batch on one shard, of at most RAM_COPIES copies and ROUND_BYTES bytes, so that
 * one big block does not keep a copy engine from an urgent one. Rounds of a
 * request follow each other, so that its checksum sees the bytes in order:
 *
 *	write	copy + sum in passing			| copy, then sum the place
 *	read	copy + sum in passing, compare at end	| sum the place, compare, copy
 *
 * The right column is for devices that cannot sum, or have no memory; a worker
 * of the device's does it. It is also how a block of several planes is read,
 * because its planes are used one by one as they arrive (r->planes): they are
 * verified before the first of them counts.
 *
 * A coded block goes by a stage, a piece of memory that has it plain: it is copied
 * there and then coded to its place, or the place is summed, compared and decoded
 * there before any of it is copied; the worker does all of that (ram_code.c).
 *
 * Requests and ram_hold() are counted in the place, which is not reused while
 * one is left. Contexts are allocated once; a request without one waits, urgent
 * ones first, and for those some contexts are kept. Core thread, except sum_fn().
 */
#include "kvmd/tier/ram_int.h"

#define ROUND_BYTES	(4u << 20)
#define READY_BYTES	(256u << 10)	/* a read of several planes shows progress after so many */

int ram_ctx_init(struct ram *rt)
{
	rt->ctx = mem_big_alloc(RAM_NR_CTX * sizeof(*rt->ctx), true);
	if (!rt->ctx)
		return -ENOMEM;
	for (uint32_t i = 0; i < RAM_NR_CTX; i++) {
		rt->ctx[i].next = rt->free_ctx;
		rt->free_ctx = &rt->ctx[i];
	}
	rt->nr_free_ctx = RAM_NR_CTX;
	return 0;
}

void ram_ctx_exit(struct ram *rt)
{
	mem_big_free(rt->ctx, RAM_NR_CTX * sizeof(*rt->ctx));
}

/* ---------------------------------------------------------------- one request */

static bool is_replica(const struct gpool *gp)
{
	return gp->geo.flags & KVMD_GROUP_REPLICA;
}

/* Bytes of one shard of a block. */
static uint64_t shard_bytes(const struct gpool *gp)
{
	return gp->geo.planes * gp->geo.plane_bytes;
}

static bool devices_sum(const struct gpool *gp)
{
	for (uint32_t i = 0; i < gp->sp->nr_shards; i++)
		if (!gp->sp->dev[i]->ops->sums || !gp->sp->dev[i]->ops->has_memory)
			return false;
	return true;
}

/* The bytes of this round at most. */
static uint64_t round_bytes(const struct ram_ctx *x)
{
	const struct kvmd_group *geo = &x->r->gp->geo;
	uint64_t nr;

	if (x->write || x->shard || geo->planes == 1)
		return ROUND_BYTES;
	/* Whole planes, and never all at once: r->planes shall grow. */
	nr = min(max(READY_BYTES / geo->plane_bytes, (uint64_t)1), (uint64_t)geo->planes / 2);
	return min(nr * geo->plane_bytes, (uint64_t)ROUND_BYTES);
}

static void round_start(struct ram_ctx *x)
{
	const struct tier_req *r = x->r;
	const struct gpool *gp = r->gp;
	const struct slab *s = gpool_slab(gp, r->slot);
	struct dev *d = gp->sp->dev[x->shard];
	uint64_t left = round_bytes(x), pb = gp->geo.plane_bytes;
	const struct dev_extent *mem = x->stage ? &x->stage->ext : &x->c->ext;
	uint64_t at = (x->stage ? 0 : x->base) +
		      (is_replica(gp) ? 0 : x->shard * shard_bytes(gp));

	x->batch.nr = 0;
	while (x->off < shard_bytes(gp) && left && x->batch.nr < RAM_COPIES) {
		uint64_t n = min(pb - x->off % pb, left);
		const struct dev_extent *e = &s->ext[x->shard * gp->geo.planes + x->off / pb];
		uint64_t e_off = (r->slot - s->first) * pb + x->off % pb;
		struct dev_copy *k = &x->copy[x->batch.nr++];

		if (x->write)
			*k = (struct dev_copy) { .src = e, .src_off = e_off, .dst = mem,
						 .dst_off = at + x->off, .bytes = n };
		else
			*k = (struct dev_copy) { .src = mem, .src_off = at + x->off,
						 .dst = e, .dst_off = e_off, .bytes = n };
		x->off += n;
		left -= n;
	}
	x->batch.urgent = r->urgent;
	x->batch.sum = x->passing && !(is_replica(gp) && x->shard) ? &x->sum : NULL;
	d->ops->copy(d, &x->batch);
}

static void start_waiting(struct ram *rt);

/* The request is over; @x and the place are free for others before its done(). */
static void finish(struct ram_ctx *x, int err)
{
	struct tier_req *r = x->r;
	struct ram *rt = x->rt;
	struct ram_chunk *c;
	struct ram_place *p = ram_lookup(rt, r->place, &c);

	BUG_ON(!p);
	if (!err && x->write)
		ram_set_sum(&rt->t, r->place, r->sum);
	if (x->stage)
		ram_stage_put(rt, x->stage);
	r->err = err;
	x->r = NULL;
	x->stage = NULL;
	x->next = rt->free_ctx;
	rt->free_ctx = x;
	rt->nr_free_ctx++;
	ram_busy_put(rt, c, p);
	rt->t.nr_inflight--;
	start_waiting(rt);
	r->done(r);
}

static void sum_fn(struct work *w)
{
	struct ram_ctx *x = container_of(w, struct ram_ctx, work);

	if (x->stage)
		ram_code_run(x);
	else
		x->r->sum = sum_of((char *)x->c->ext.map + x->base, x->r->bytes);
}

/* Does what was read have the sum of what was written? */
static int compare(const struct ram_ctx *x)
{
	return x->r->sum == ram_sum(&x->rt->t, x->r->place) ? 0 : -EBADMSG;
}

static void sum_done(struct work *w)
{
	struct ram_ctx *x = container_of(w, struct ram_ctx, work);
	int err = 0;

	if (x->stage)
		err = ram_code_over(x);
	else if (!x->write)
		err = compare(x);
	if (err || x->write)
		finish(x, err);
	else
		round_start(x);
}

static void sum_submit(struct ram_ctx *x)
{
	struct workers *w = x->r->gp->sp->dev[0]->workers;

	x->work.fn = sum_fn;
	x->work.done = sum_done;
	if (x->r->urgent)
		workers_submit_urgent(w, &x->work);
	else
		workers_submit(w, &x->work);
}

/* All bytes that the sum is about are copied: the end, or the other replicas. */
static void summed(struct ram_ctx *x)
{
	if (!x->passing && x->write) {
		sum_submit(x);
		return;
	}
	if (x->passing)
		x->r->sum = sum_end(&x->sum);
	if (!x->write && x->passing && compare(x)) {
		finish(x, -EBADMSG);
		return;
	}
	if (x->write || !is_replica(x->r->gp) || x->r->gp->sp->nr_shards == 1) {
		finish(x, 0);
		return;
	}
	x->shard = 1;
	x->off = 0;
	round_start(x);
}

static void round_done(struct dev_batch *b)
{
	struct ram_ctx *x = container_of(b, struct ram_ctx, batch);
	const struct gpool *gp = x->r->gp;
	bool last = x->shard + 1 == gp->sp->nr_shards;

	if (b->err) {
		finish(x, b->err);
		return;
	}
	if (!x->write && !x->shard)
		x->r->planes = (uint32_t)(x->off / gp->geo.plane_bytes);
	if (x->off < shard_bytes(gp)) {
		round_start(x);
	} else if (is_replica(gp) ? !x->shard : last) {
		summed(x);
	} else if (last) {
		finish(x, 0);
	} else {
		x->shard++;
		x->off = 0;
		round_start(x);
	}
}

static void start(struct ram *rt, struct tier_req *r, bool write)
{
	struct ram_ctx *x = rt->free_ctx;
	struct ram_chunk *c;

	BUG_ON(!ram_lookup(rt, r->place, &c));
	rt->free_ctx = x->next;
	rt->nr_free_ctx--;
	x->rt = rt;
	x->r = r;
	x->c = c;
	x->next = NULL;
	x->base = ram_place_idx(r->place) * c->cls;
	x->off = 0;
	x->shard = 0;
	x->write = write;
	x->stage = r->coded ? ram_stage_get(rt) : NULL;
	x->want = ram_sum(&rt->t, r->place);
	x->passing = !x->stage && devices_sum(r->gp) && (write || r->gp->geo.planes == 1);
	x->batch.copy = x->copy;
	x->batch.done = round_done;
	if (x->passing)
		sum_start(&x->sum);
	if (x->passing || write)
		round_start(x);
	else
		sum_submit(x);
}

/* What needs a stage waits for that too, and keeps nobody else from going on. */
static struct tier_req *pop_waiting(struct ram *rt, bool urgent, bool write)
{
	struct tier_req *r = NULL;

	if (ram_stage_ready(rt, urgent))
		r = tier_queue_pop(&rt->coded[urgent][write]);
	return r ? r : tier_queue_pop(&rt->waiting[urgent][write]);
}

/* The next request that may have a context. */
static struct tier_req *next_waiting(struct ram *rt, bool *ret_write)
{
	struct tier_req *r = NULL;

	for (int i = 0; i < 2 && !r && rt->nr_free_ctx; i++) {
		*ret_write = i;
		r = pop_waiting(rt, true, i);
	}
	for (int i = 0; i < 2 && !r && rt->nr_free_ctx > RAM_NR_URGENT; i++) {
		*ret_write = rt->write_next;
		rt->write_next = !rt->write_next;
		r = pop_waiting(rt, false, *ret_write);
	}
	return r;
}

static void start_waiting(struct ram *rt)
{
	struct tier_req *r;
	bool write;

	while ((r = next_waiting(rt, &write)))
		start(rt, r, write);
}

static void accept_req(struct tier *t, struct tier_req *r, bool write)
{
	struct ram *rt = ram_of(t);
	struct ram_chunk *c;
	struct ram_place *p = ram_lookup(rt, r->place, &c);

	rt->t.nr_inflight++;
	r->planes = 0;
	r->bytes = tier_copy_bytes(r->gp, r->coded);
	if (!p || ram_class(r->bytes) != c->cls || (r->coded && !ram_code_fits(rt, r->gp))) {
		r->err = p && r->coded && r->bytes == c->cls ? -ENOMEM : -ENODATA;
		tier_queue_push(&rt->failed, r);
		return;
	}
	ram_busy_get(p);
	tier_queue_push(r->coded ? &rt->coded[r->urgent][write] :
			&rt->waiting[r->urgent][write], r);
	start_waiting(rt);
}

void ram_read(struct tier *t, struct tier_req *r)
{
	accept_req(t, r, false);
}

void ram_write(struct tier *t, struct tier_req *r)
{
	accept_req(t, r, true);
}

unsigned ram_refused(struct ram *rt)
{
	struct tier_queue q = rt->failed;
	struct tier_req *r;
	unsigned nr = 0;

	/* What is refused meanwhile waits for the next turn. */
	rt->failed = (struct tier_queue) { 0 };
	while ((r = tier_queue_pop(&q))) {
		rt->t.nr_inflight--;
		nr++;
		r->done(r);
	}
	return nr;
}
