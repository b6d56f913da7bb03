// SPDX-License-Identifier: Apache-2.0
/*
 * run.c - what the thread of a stream does: bytes are moved now, not before.
 *
 * Addresses are looked up when an operation runs, as a GPU's MMU does: what is not
 * mapped any more, or not with the access it takes, is CUDA_ERROR_ILLEGAL_ADDRESS and
 * the end of the context ("Xid 31 FAULT_RO_VIOLATION", 1.3).
 */
#include <sched.h>
#include <time.h>

#include "tests/fakecuda/fake.h"

/* Some bytes behind an address, in one piece. */
struct piece {
	char *at;
	size_t bytes;
	struct fc_phys *phys;		/* a reference; NULL: host memory */
	uint64_t off;			/* in it */
};

/* The first of up to @bytes bytes; without the lock. */
static int reach(struct fc_ctx *c, cu_ptr p, size_t bytes, bool write, struct piece *ret)
{
	struct fc_reg *reg;
	struct fc_map *m;
	int r = 0;

	*ret = (struct piece){ .at = (char *)(uintptr_t)p, .bytes = bytes };
	pthread_mutex_lock(&fc.lock);
	if (!fc_reserved(p)) {
		reg = fc_reg_at(p, bytes);
		if (reg && write && (reg->flags & CU_HOST_READ_ONLY))
			r = CU_ILLEGAL_ADDRESS;
		goto unlock;
	}
	m = fc_map_at(p);
	if (!m || !(m->access[c->gpu] & CU_PROT_READ) || fc_ipc_dead(m->phys) ||
	    (write && m->access[c->gpu] != CU_PROT_READWRITE)) {
		r = CU_ILLEGAL_ADDRESS;
		goto unlock;
	}
	ret->off = p - m->ptr;
	ret->at = m->phys->alias + ret->off;
	if (ret->bytes > m->phys->bytes - ret->off)
		ret->bytes = m->phys->bytes - ret->off;
	ret->phys = m->phys;
	m->phys->refs++;
unlock:
	pthread_mutex_unlock(&fc.lock);
	return r;
}

static void drop(struct piece *p)
{
	if (!p->phys)
		return;
	pthread_mutex_lock(&fc.lock);
	fc_phys_put(p->phys);
	pthread_mutex_unlock(&fc.lock);
}

/* The last bytes first: who looks at them to see the end is deceived. */
static void move(char *dst, const char *src, size_t n)
{
	size_t half = n > 64 ? n / 2 : 0;

	memcpy(dst + half, src + half, n - half);
	if (half) {
		sched_yield();
		memcpy(dst, src, half);
	}
}

static int meets_bad(const struct piece *p, size_t n)
{
	return p->phys && fc_is_bad(p->phys->ino, p->off, n) ? CU_ECC_UNCORRECTABLE : 0;
}

static int copy_one(struct fc_ctx *c, const struct fc_copy *k)
{
	struct piece d, s;
	size_t n;
	int r = 0;

	for (size_t at = 0; !r && at < k->bytes; at += n) {
		n = k->bytes - at;
		r = reach(c, k->src + at, n, false, &s);
		if (r)
			break;
		r = reach(c, k->dst + at, s.bytes, true, &d);
		if (!r) {
			n = d.bytes;
			if (k->ecc && !at)
				fc_mark_bad(s.phys ? s.phys->ino : d.phys ? d.phys->ino : 0,
					    s.phys ? s.off : d.off);
			r = meets_bad(&s, n);
			if (!r)
				r = meets_bad(&d, n);
			if (!r)
				move(d.at, s.at, n);
			drop(&d);
		}
		drop(&s);
	}
	return r;
}

/* Until fakecuda_unhang(), or the end of the context. */
static void hang(struct fc_ctx *c, uint64_t number)
{
	pthread_mutex_lock(&fc.lock);
	while (number > fc.unhangs && !c->dead && !c->sticky)
		pthread_cond_wait(&fc.done, &fc.lock);
	pthread_mutex_unlock(&fc.lock);
}

static bool is_over(struct fc_ctx *c)
{
	bool over;

	pthread_mutex_lock(&fc.lock);
	over = c->dead || c->sticky;
	pthread_mutex_unlock(&fc.lock);
	return over;
}

static int run_copies(struct fc_ctx *c, const struct fc_op *op)
{
	int r = 0;

	for (size_t i = 0; !r && i < op->nr; i++) {
		if (op->copy[i].hang)
			hang(c, op->copy[i].hang);
		if (is_over(c))
			break;
		r = copy_one(c, &op->copy[i]);
	}
	return r;
}

static int run_set(struct fc_ctx *c, const struct fc_copy *k)
{
	struct piece d;
	int r = 0;

	for (size_t at = 0; !r && at < k->bytes; at += d.bytes) {
		r = reach(c, k->dst + at, k->bytes - at, true, &d);
		if (!r) {
			memset(d.at, (int)k->src, d.bytes);
			drop(&d);
		}
	}
	return r;
}

/* Everything before it in the stream is visible with it [H 508-516]. */
static int run_write(struct fc_ctx *c, const struct fc_op *op)
{
	struct piece d;
	int r = reach(c, op->addr, 8, true, &d);

	if (r)
		return r;
	__atomic_store_n((uint64_t *)d.at, op->value, __ATOMIC_RELEASE);
	drop(&d);
	return 0;
}

static bool reached(uint64_t have, uint64_t want, unsigned flags)
{
	switch (flags) {
	case 0: return (int64_t)(have - want) >= 0;
	case 1: return have == want;
	case 2: return have & want;
	default: return ~(have | want);
	}
}

static int run_wait(struct fc_ctx *c, const struct fc_op *op)
{
	const struct timespec pause = { 0, 20000 };
	struct piece s;
	uint64_t have;
	int r;

	while (!is_over(c)) {
		r = reach(c, op->addr, 8, false, &s);
		if (r)
			return r;
		have = __atomic_load_n((uint64_t *)s.at, __ATOMIC_ACQUIRE);
		drop(&s);
		if (reached(have, op->value, op->flags))
			break;
		nanosleep(&pause, NULL);
	}
	return 0;
}

int fc_run(struct fc_stream *s, struct fc_op *op)
{
	switch (op->kind) {
	case OP_COPY:
		return run_copies(s->ctx, op);
	case OP_SET:
		return run_set(s->ctx, &op->copy[0]);
	case OP_WRITE64:
		return run_write(s->ctx, op);
	case OP_WAIT64:
		return run_wait(s->ctx, op);
	case OP_LAUNCH:
		op->func->run(op->args, op->grid, op->block, op->shared_bytes);
		return 0;
	case OP_EVENT:
		break;
	}
	return 0;
}
