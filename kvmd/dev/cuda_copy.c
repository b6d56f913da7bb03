/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda_copy.c - one group of copies: made few, submitted, waited for, summed.
 *
 * The copies of a group's batches become pieces of at most CUDA_GROUP_BYTES.
 * Neighbours in both memories are made one copy, since the driver does not; all go
 * down with one call, but those with memory that is not registered with one each.
 * While the engine works the mover sums what goes in; what came out is summed after
 * its end. Mover threads, in the context they have entered.
 */
#include "kvmd/dev/cuda_int.h"

#include <time.h>

#include "kvmd/lib/clock.h"
#include "kvmd/lib/mem.h"

#define BYTES_PER_US	50000		/* what an engine may do: the first nap */
#define SPIN_NS		10000		/* small copies are over sooner than a nap */
#define NAP_NS		10000		/* doubled up to */
#define MAX_NAP_NS	200000
#define ACROSS_BYTES	(1u << 20)

/* One end of a copy. */
struct end {
	cu_ptr addr;
	uintptr_t id;		/* the extent or the registered range; 0: any other memory */
	bool on_gpu;
};

enum dev_way cuda_way_of(const struct dev_copy *k)
{
	return !k->src->handle ? DEV_IN : k->dst->handle ? DEV_WITHIN : DEV_OUT;
}

/* --------------------------------------------------------------- making a piece */

/* Where in the items the next piece begins. */
struct cursor {
	unsigned item, copy;
	uint64_t off;		/* bytes of the copy that are done */
};

/* The end of a copy at @off; of its @bytes those that are alike are kept. */
static struct end end_at(const struct dev_extent *e, uint64_t off, uint64_t *bytes)
{
	struct end end = { 0 };

	if (e->handle) {
		const struct cuda_extent *x = cuda_extent_of(e);

		end.addr = x->addr + off;
		end.id = (uintptr_t)x;
		end.on_gpu = true;
	} else {
		end.addr = (uintptr_t)e->map + off;
		*bytes = cuda_pin_span((uintptr_t)end.addr, *bytes, &end.id);
	}
	return end;
}

static void put(struct piece *p, unsigned at, const struct end *dst, const struct end *src,
		uint64_t bytes)
{
	p->dst[at] = dst->addr;
	p->src[at] = src->addr;
	p->len[at] = bytes;
}

static bool follows(const struct piece *p, const struct end *dst, const struct end *src)
{
	unsigned last = p->nr - 1;

	return p->nr && p->dst_id == dst->id && p->src_id == src->id &&
	       p->dst[last] + p->len[last] == dst->addr &&
	       p->src[last] + p->len[last] == src->addr;
}

/* Add up to @bytes of @k from @off on; how many they were. */
static uint64_t add(struct mover *m, const struct dev_copy *k, uint64_t off, uint64_t bytes)
{
	struct piece *p = &m->piece;
	struct end src = end_at(k->src, k->src_off + off, &bytes);
	struct end dst = end_at(k->dst, k->dst_off + off, &bytes);

	if (!src.on_gpu && !dst.on_gpu) {
		mem_copy_cold((void *)(uintptr_t)dst.addr, (void *)(uintptr_t)src.addr, bytes);
		return bytes;
	}
	p->bytes += bytes;
	if (!src.id || !dst.id) {
		put(p, CUDA_GROUP_COPIES - ++p->nr_single, &dst, &src, bytes);
	} else if (follows(p, &dst, &src)) {
		p->len[p->nr - 1] += bytes;
		__atomic_fetch_add(&m->c->nr_merged, 1, __ATOMIC_RELAXED);
	} else {
		put(p, p->nr++, &dst, &src, bytes);
		p->dst_id = dst.id;
		p->src_id = src.id;
	}
	return bytes;
}

/* The next piece of the items before @end; false: that was all. */
static bool build(struct mover *m, struct cursor *at, unsigned end)
{
	struct piece *p = &m->piece;

	p->nr = p->nr_single = 0;
	p->bytes = 0;
	cuda_pins_get();
	while (at->item < end && p->bytes < CUDA_GROUP_BYTES && p->nr + p->nr_single < CUDA_GROUP_COPIES) {
		const struct dev_batch *b = m->item[at->item].b;
		const struct dev_copy *k;

		if (at->copy == b->nr) {
			*at = (struct cursor) { .item = at->item + 1 };
			continue;
		}
		k = &b->copy[at->copy];
		if (at->off < k->bytes)
			at->off += add(m, k, at->off,
				       min(k->bytes - at->off, CUDA_GROUP_BYTES - p->bytes));
		if (at->off == k->bytes) {
			at->copy++;
			at->off = 0;
		}
	}
	cuda_pins_put();
	return p->nr + p->nr_single;
}

/* ------------------------------------------------------------------- running it */

/* Stream and event in the context that is entered; those of a former one went with it. */
static int prepare(struct mover *m)
{
	int r;

	if (m->gen == m->c->gen)
		return 0;
	r = cuda_drv.stream_create(&m->stream, CU_STREAM_OWN_ORDER,
				   m->lane == &m->c->lane[LANE_URGENT] ? -1 : 0);
	if (r)
		return r;
	r = cuda_drv.event_create(&m->event, CU_EVENT_NO_TIMING);
	if (r) {
		(void)cuda_drv.stream_destroy(m->stream);
		return r;
	}
	m->gen = m->c->gen;
	return 0;
}

static int submit_batch(struct mover *m)
{
	struct piece *p = &m->piece;
	struct cu_copy_attr attr = { .src_order = CU_COPY_ORDER_STREAM, .flags = CU_COPY_OVERLAP };
	size_t idx = 0, fail;
	int r = 0;

	if (p->nr > 1 && cuda_drv.copy_batch)
		return cuda_drv.copy_batch(p->dst, p->src, p->len, p->nr, &attr, &idx, 1,
					   m->stream);
	if (p->nr > 1 && cuda_drv.copy_batch_v1)
		return cuda_drv.copy_batch_v1(p->dst, p->src, p->len, p->nr, &attr, &idx, 1,
					      &fail, m->stream);
	for (unsigned i = 0; !r && i < p->nr; i++)
		r = cuda_drv.copy(p->dst[i], p->src[i], p->len[i], m->stream);
	return r;
}

static int submit(struct mover *m)
{
	struct piece *p = &m->piece;
	int r = submit_batch(m);

	for (unsigned i = CUDA_GROUP_COPIES - p->nr_single; !r && i < CUDA_GROUP_COPIES; i++)
		r = cuda_drv.copy(p->dst[i], p->src[i], p->len[i], m->stream);
	return r;
}

static void nap(uint64_t ns)
{
	struct timespec t = { .tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000) };

	nanosleep(&t, NULL);
}

static void say_late(struct mover *m, uint64_t ns)
{
	static const char *const what[NR_LANE] = { "out of", "into", "urgently in or out of" };

	__atomic_fetch_add(&m->c->nr_timeouts, 1, __ATOMIC_RELAXED);
	cuda_say(m->c, "copies of %llu KiB %s the GPU have taken %llu ms and go on: their memory "
		 "waits with them; if they never end, restart the daemon",
		 (unsigned long long)(m->piece.bytes >> 10), what[m->lane - m->c->lane],
		 (unsigned long long)(ns / 1000000));
}

/* Until all of the stream is over: a CUresult. However long it takes. */
static int wait_end(struct mover *m, int (*query)(struct mover *m))
{
	uint64_t start = clock_ns(), pause = NAP_NS, took;
	bool said = false;
	int r = query(m);

	if (r == CU_NOT_READY && m->piece.bytes / BYTES_PER_US > SPIN_NS / 1000)
		nap(m->piece.bytes * 1000 / BYTES_PER_US);
	while ((r = query(m)) == CU_NOT_READY) {
		took = clock_ns() - start;
		if (took < SPIN_NS) {
			cpu_relax();
			continue;
		}
		if (!said && m->c->timeout_ns && took > m->c->timeout_ns) {
			say_late(m, took);
			said = true;
		}
		nap(pause);
		pause = min(2 * pause, (uint64_t)MAX_NAP_NS);
	}
	return r;
}

static int query_event(struct mover *m)
{
	return cuda_drv.event_query(m->event);
}

static int query_stream(struct mover *m)
{
	return cuda_drv.stream_query(m->stream);
}

void cuda_item_sum(struct item *it)
{
	const struct dev_batch *b = it->b;

	it->summed = true;
	for (unsigned i = 0; b->sum && i < b->nr; i++) {
		const struct dev_copy *k = &b->copy[i];

		if (!k->src->handle)
			sum_add(b->sum, (char *)k->src->map + k->src_off, k->bytes);
		else if (!k->dst->handle)
			sum_add(b->sum, (char *)k->dst->map + k->dst_off, k->bytes);
	}
}

/* What only goes in is there before it arrives. */
static void sum_early(struct mover *m, unsigned first, unsigned end)
{
	for (unsigned i = first; i < end; i++) {
		struct item *it = &m->item[i];
		bool in = it->b->sum && !it->summed;

		for (unsigned k = 0; in && k < it->b->nr; k++)
			in = cuda_way_of(&it->b->copy[k]) == DEV_IN && it->b->copy[k].dst->handle;
		if (in)
			cuda_item_sum(it);
	}
}

/* ----------------------------------------------------------------- between GPUs */

/* One step of a copy in @c's context, to its end; host to host without it. */
static int step(const struct cuda *c, cu_ptr dst, cu_ptr src, uint64_t bytes)
{
	cu_stream s;
	int r, ended;

	if (!c) {
		memcpy((void *)(uintptr_t)dst, (void *)(uintptr_t)src, bytes);
		return 0;
	}
	if (c->lost || !c->open)
		return CU_INVALID_VALUE;	/* there is nothing behind its addresses */
	(void)cuda_drv.ctx_set(c->ctx);
	r = cuda_drv.stream_create(&s, CU_STREAM_OWN_ORDER, 0);
	if (r)
		return r;
	r = cuda_drv.copy(dst, src, bytes, s);
	ended = cuda_stream_end(s);
	return r && !cu_is_sticky(ended) ? r : ended;
}

static cu_ptr address(const struct dev_extent *e, uint64_t off)
{
	return (e->handle ? cuda_extent_of(e)->addr : (uintptr_t)e->map) + off;
}

static int copy_across(const struct dev_copy *k, void *buf)
{
	const struct cuda *from = cuda_gpu_of(k->src), *to = cuda_gpu_of(k->dst);
	uint64_t n;
	int r = 0;

	for (uint64_t at = 0; !r && at < k->bytes; at += n) {
		n = min(k->bytes - at, (uint64_t)ACROSS_BYTES);
		r = step(from, (uintptr_t)buf, address(k->src, k->src_off + at), n);
		if (!r)
			r = step(to, address(k->dst, k->dst_off + at), (uintptr_t)buf, n);
	}
	return r;
}

/* A GPU has no access to another's memory: by way of ours, slowly. The daemon never asks. */
static int run_across(struct mover *m, unsigned first, unsigned end)
{
	void *buf = mem_zalloc(ACROSS_BYTES);
	int r = buf ? 0 : CU_OUT_OF_MEMORY;

	for (unsigned i = first; !r && i < end; i++)
		for (unsigned k = 0; !r && k < m->item[i].b->nr; k++)
			r = copy_across(&m->item[i].b->copy[k], buf);
	mem_free(buf);
	(void)cuda_drv.ctx_set(m->c->ctx);
	return r;
}

/* ------------------------------------------------------------------------- all */

int cuda_items_run(struct mover *m, unsigned first, unsigned end)
{
	struct cursor at = { .item = first };
	int r = prepare(m), ended;

	if (!r && m->also)
		return run_across(m, first, end);
	while (!r && build(m, &at, end)) {
		__atomic_fetch_add(&m->c->nr_groups, 1, __ATOMIC_RELAXED);
		r = submit(m);
		if (!r)
			r = cuda_drv.event_record(m->event, m->stream);
		if (!r) {
			sum_early(m, first, end);
			r = wait_end(m, query_event);
		}
		if (!r || cu_is_sticky(r))
			continue;
		/* Some of it may be under way. What cannot be known ends with its context. */
		ended = wait_end(m, query_stream);
		if (ended)
			r = cu_is_sticky(ended) ? ended : CU_UNKNOWN;
	}
	return r;
}
