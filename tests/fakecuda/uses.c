// SPDX-License-Identifier: Apache-2.0
/*
 * uses.c - who reads, writes and holds which bytes, over all processes; broken memory.
 *
 * The check that no copy touches what somebody else uses: an entry of the state file
 * per contiguous piece, from submission to the end of the copy. Device memory goes by
 * its memfd and offset, so that several mappings of it are one; host memory by process
 * and address. Entries of processes that died are dropped when they are met.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

#include "tests/fakecuda/fake.h"

static int *bucket_of(uint64_t ino)
{
	return &fc.state->bucket[(ino * 0x9e3779b97f4a7c15ull >> 32) % FC_BUCKETS];
}

static void say(const char *text)
{
	fc.state->violations++;
	snprintf(fc.state->text, sizeof(fc.state->text), "%s", text);
	fprintf(stderr, "fakecuda: violation: %s\n", text);
}

void fc_violation(const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fc_lock(fc.state);
	say(text);
	fc_unlock(fc.state);
}

static void del(int i)
{
	struct fc_use *u = &fc.state->use[i];
	int *at = bucket_of(u->ino);

	while (*at >= 0 && *at != i)
		at = &fc.state->use[*at].next;
	if (*at == i)
		*at = u->next;
	u->bytes = 0;
	u->next = fc.state->free_use;
	fc.state->free_use = i;
}

static bool is_alive(const struct fc_use *u)
{
	return u->pid == fc.pid || fc_proc_start(u->pid) == u->start;
}

static const char *does(const struct fc_use *u)
{
	if (u->kind == FC_USE_HOLD)
		return u->write ? "holds for writing" : "holds for reading";
	return u->write ? "writes" : "reads";
}

/* Two uses that must not be there at once, though their bytes meet. */
static bool collide(const struct fc_use *a, const struct fc_use *b)
{
	if (!a->write && !b->write)
		return false;
	if (a->kind == FC_USE_HOLD || b->kind == FC_USE_HOLD)
		return a->pid != b->pid;
	return a->order != b->order || a->batch == b->batch;
}

static void check(const struct fc_use *n)
{
	const struct fc_use *u;
	char text[256];
	int next;

	for (int i = *bucket_of(n->ino); i >= 0; i = next) {
		u = &fc.state->use[i];
		next = u->next;
		if (u->ino != n->ino || u->off >= n->off + n->bytes ||
		    n->off >= u->off + u->bytes || !collide(u, n))
			continue;
		if (!is_alive(u)) {
			del(i);
			continue;
		}
		snprintf(text, sizeof(text), "process %d %s %s memory %llu at %#llx, %llu bytes, "
			 "while process %d %s %#llx, %llu bytes", n->pid, does(n),
			 n->ino >> 63 ? "host" : "device", (unsigned long long)(n->ino << 1 >> 1),
			 (unsigned long long)n->off, (unsigned long long)n->bytes, u->pid, does(u),
			 (unsigned long long)u->off, (unsigned long long)u->bytes);
		say(text);
	}
}

/* What the dead were at when they died. */
static void sweep(void)
{
	uint64_t start = 0;
	int pid = 0;

	for (int i = 0; i < FC_MAX_USES; i++) {
		const struct fc_use *u = &fc.state->use[i];

		if (!u->bytes)
			continue;
		if (u->pid != pid) {
			pid = u->pid;
			start = fc_proc_start(pid);
		}
		if (u->start != start)
			del(i);
	}
}

/* Under the state's lock; -1: full, and said so: what it would have found is not found. */
static int add(const struct fc_use *n)
{
	struct fc_state *s = fc.state;
	int i, *b;

	check(n);
	if (s->free_use < 0 && s->fresh_use == FC_MAX_USES)
		sweep();
	i = s->free_use;
	if (i >= 0) {
		s->free_use = s->use[i].next;
	} else if (s->fresh_use < FC_MAX_USES) {
		i = s->fresh_use++;
	} else {
		say("too many copies under way to tell");
		return -1;
	}
	b = bucket_of(n->ino);
	s->use[i] = *n;
	s->use[i].next = *b;
	*b = i;
	return i;
}

static bool remember(struct fc_op *op, int i)
{
	int *more;

	if (op->nr_use == op->cap_use) {
		more = realloc(op->use, (op->cap_use * 2 + 4) * sizeof(*more));
		if (!more)
			return false;
		op->use = more;
		op->cap_use = op->cap_use * 2 + 4;
	}
	op->use[op->nr_use++] = i;
	return true;
}

void fc_use_add(struct fc_stream *s, struct fc_op *op, uint64_t batch, cu_ptr p, size_t bytes,
		bool write)
{
	struct fc_use u = {
		.pid = fc.pid, .start = fc.start, .order = s->order, .batch = batch,
		.kind = FC_USE_COPY, .write = write,
	};
	struct fc_map *m;
	size_t n;
	int i;

	for (size_t at = 0; at < bytes; at += n) {
		m = fc_map_at(p + at);
		n = bytes - at;
		u.ino = m ? m->phys->ino : fc_host_ino(fc.pid);
		u.off = m ? p + at - m->ptr : p + at;
		if (m && n > m->phys->bytes - u.off)
			n = m->phys->bytes - u.off;
		u.bytes = n;
		fc_lock(fc.state);
		i = add(&u);
		if (i >= 0 && !remember(op, i))
			del(i);
		fc_unlock(fc.state);
	}
}

void fc_use_drop(struct fc_op *op)
{
	if (!op->nr_use)
		return;
	fc_lock(fc.state);
	while (op->nr_use)
		del(op->use[--op->nr_use]);
	fc_unlock(fc.state);
}

bool fc_use_busy(uint64_t ino, uint64_t off, uint64_t bytes)
{
	const struct fc_use *u;
	bool busy = false;

	fc_lock(fc.state);
	for (int i = *bucket_of(ino); i >= 0 && !busy; i = u->next) {
		u = &fc.state->use[i];
		busy = u->ino == ino && u->kind == FC_USE_COPY && u->pid == fc.pid &&
		       u->off < off + bytes && off < u->off + u->bytes;
	}
	fc_unlock(fc.state);
	return busy;
}

/* ------------------------------------------------------------ broken memory */

void fc_mark_bad(uint64_t ino, uint64_t off)
{
	if (!ino)
		return;
	fc_lock(fc.state);
	for (int i = 0; i < FC_MAX_BAD; i++) {
		if (fc.state->bad[i].bytes)
			continue;
		fc.state->bad[i].ino = ino;
		fc.state->bad[i].off = off & ~(fc.conf.granularity - 1);
		fc.state->bad[i].bytes = fc.conf.granularity;
		break;
	}
	fc_unlock(fc.state);
}

bool fc_is_bad(uint64_t ino, uint64_t off, uint64_t bytes)
{
	const struct fc_bad *b;
	bool bad = false;

	fc_lock(fc.state);
	for (int i = 0; i < FC_MAX_BAD && !bad; i++) {
		b = &fc.state->bad[i];
		bad = b->bytes && b->ino == ino && b->off < off + bytes && off < b->off + b->bytes;
	}
	fc_unlock(fc.state);
	return bad;
}

/* ------------------------------------------------------------ for tests */

int fakecuda_hold(uint64_t ptr, size_t bytes, bool write)
{
	struct fc_use u = {
		.pid = fc.pid, .start = fc.start, .kind = FC_USE_HOLD, .write = write,
		.bytes = bytes,
	};
	struct fc_map *m;
	int r = -EFAULT;

	pthread_mutex_lock(&fc.lock);
	m = fc_map_at(ptr);
	if (m && bytes && bytes <= m->phys->bytes - (ptr - m->ptr)) {
		u.ino = m->phys->ino;
		u.off = ptr - m->ptr;
		fc_lock(fc.state);
		r = add(&u) < 0 ? -ENOSPC : 0;
		fc_unlock(fc.state);
	}
	pthread_mutex_unlock(&fc.lock);
	return r;
}

int fakecuda_unhold(uint64_t ptr)
{
	const struct fc_use *u;
	struct fc_map *m;
	int r = -ENOENT;

	pthread_mutex_lock(&fc.lock);
	m = fc_map_at(ptr);
	fc_lock(fc.state);
	for (int i = m ? *bucket_of(m->phys->ino) : -1; i >= 0; i = u->next) {
		u = &fc.state->use[i];
		if (u->kind != FC_USE_HOLD || u->pid != fc.pid || u->ino != m->phys->ino ||
		    u->off != ptr - m->ptr)
			continue;
		del(i);
		r = 0;
		break;
	}
	fc_unlock(fc.state);
	pthread_mutex_unlock(&fc.lock);
	return r;
}
