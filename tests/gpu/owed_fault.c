// SPDX-License-Identifier: Apache-2.0
/*
 * owed_fault.c - owed.h: a write through a read-only mapping: who feels it, and whether
 * the culprit's process can go on with a context anew.
 *
 * The owner of the block copies all the time while another process writes through its
 * read-only mapping, by each means there is.
 */
#include "tests/gpu/owed.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kvmd/lib/mem.h"

#define SEED	31u
#define COPIES	400

enum means { BY_KERNEL, BY_MEMSET, BY_COPY, NR_MEANS };

static const char *const means_name[NR_MEANS] = { "a kernel", "a memset", "a copy" };

/* Told 0: put COPIES copies on the stream; told 1: have they ended well, are the bytes right? */
static void owner(struct owed_actor *me, void *arg)
{
	struct owed_mem m, own;

	(void)arg;
	owed_open(me, true);
	owed_make(me, OWED_BLOCK, SEED, &m);
	owed_make(me, OWED_BLOCK, 9, &own);
	owed_say(me, 0, m.fd, "made");
	for (;;) {
		if (!owed_next(me, NULL)) {
			for (int i = 0; i < COPIES; i++)
				owed_must(me, "the neighbour's copy", me->g.cu.copy(own.ptr, m.ptr,
					  m.bytes, me->g.s));
			owed_say(me, 0, -1, "running");
			continue;
		}
		owed_must(me, "the neighbour's copies", me->g.cu.stream_sync(me->g.s));
		owed_expect(me, "the neighbour's copy", own.ptr, own.bytes, SEED);
		owed_expect(me, "the block", m.ptr, m.bytes, SEED);
		owed_say(me, 0, -1, "%s", owed_means(&me->g));
	}
}

/* The error that came, at the call or when the stream was waited for. */
static int violate(struct owed_gpu *g, enum means by, cu_ptr ro, cu_ptr own, size_t bytes)
{
	int r;

	if (by == BY_KERNEL)
		return owed_kernel_put(g, ro, bytes, 666);
	if (by == BY_MEMSET)
		r = g->cu.set8(ro, 0x66, bytes, g->s);
	else
		r = g->cu.copy(ro, own, bytes, g->s);
	return r ? r : g->cu.stream_sync(g->s);
}

/* A new context after a sticky error; *ret_what: the step that fails, or was last. */
static int new_context(struct owed_gpu *g, bool reset, const char **ret_what)
{
	int r;

	g->module = NULL;
	*ret_what = reset ? "cuDevicePrimaryCtxReset" : "cuDevicePrimaryCtxRelease";
	r = reset ? g->cu.ctx_reset(g->dev) : g->cu.ctx_release(g->dev);
	if (r)
		return r;
	*ret_what = "cuDevicePrimaryCtxRetain";
	r = g->cu.ctx_retain(&g->ctx, g->dev);
	if (r)
		return r;
	*ret_what = "cuCtxSetCurrent";
	r = g->cu.ctx_set(g->ctx);
	if (r)
		return r;
	*ret_what = "cuStreamCreate";
	return g->cu.stream_create(&g->s, CU_STREAM_OWN_ORDER, 0);
}

/* The slab again from its descriptor, host memory registered again, and a copy. */
static int use_again(struct owed_gpu *g, int fd, void *host, const char **ret_what)
{
	const struct cu_mem_access access = {
		.location = { .type = CU_LOC_DEVICE, .id = g->dev }, .flags = CU_PROT_READWRITE,
	};
	struct owed_mem m = { .bytes = OWED_BLOCK };
	int r;

	*ret_what = "cuMemImportFromShareableHandle";
	r = g->cu.mem_import(&m.h, (void *)(uintptr_t)fd, CU_MEM_POSIX_FD);
	if (r)
		return r;
	*ret_what = "cuMemAddressReserve, cuMemMap, cuMemSetAccess";
	r = g->cu.mem_reserve(&m.ptr, m.bytes, 0, 0, 0);
	r = r ? r : g->cu.mem_map(m.ptr, m.bytes, 0, m.h, 0);
	r = r ? r : g->cu.mem_set_access(m.ptr, m.bytes, &access, 1);
	if (r)
		return r;
	*ret_what = "cuMemHostRegister";
	g->cu.host_unregister(host);	/* the new context does not know it; or it does */
	r = g->cu.host_register(host, OWED_BLOCK, CU_HOST_PORTABLE | CU_HOST_DEVICEMAP);
	if (r)
		return r;
	*ret_what = "a copy";
	memset(host, 0xee, m.bytes);
	r = g->cu.copy((cu_ptr)(uintptr_t)host, m.ptr, m.bytes, g->s);
	r = r ? r : g->cu.stream_sync(g->s);
	if (!r && owed_wrong(host, m.bytes, SEED))
		*ret_what = "the bytes are others";
	else if (!r)
		*ret_what = NULL;
	return r;
}

/* What the cuda device does after a sticky error. NULL, or what did not work. */
static const char *start_over(struct owed_gpu *g, bool reset, int fd, void *host, int *ret_r)
{
	const char *what;
	int r = new_context(g, reset, &what);

	if (!r)
		r = use_again(g, fd, host, &what);
	*ret_r = r;
	return what;
}

/* Two words: what the violation brought, and whether a reset helped (1: no). */
static void violator(struct owed_actor *me, void *arg)
{
	const enum means by = *(enum means *)arg;
	struct owed_mem m, own;
	const char *bad, *other = NULL;
	int fd, r, next, again = 0, more = 0;
	void *host;
	uint64_t wrong;

	owed_open(me, true);
	owed_next(me, &fd);
	owed_import(me, fd, OWED_BLOCK, CU_PROT_READ, &m);
	owed_make(me, OWED_BLOCK, 4, &own);
	owed_expect(me, "a read-only block", m.ptr, m.bytes, SEED);
	if (mem_fd_create("owed", OWED_BLOCK, false, &host) < 0)
		owed_fail(me, "no memory");
	owed_must(me, "cuMemHostRegister", me->g.cu.host_register(host, OWED_BLOCK,
		  CU_HOST_PORTABLE | CU_HOST_DEVICEMAP));
	if (by == BY_KERNEL && !me->g.module)
		owed_fail(me, "%s", me->g.no_kernel);
	r = violate(&me->g, by, m.ptr, own.ptr, m.bytes);
	next = owed_get(&me->g, own.ptr, own.bytes, 4, &wrong);
	owed_say(me, r == 0, -1, "%s; the next copy of that process: %s%s",
		 r ? cu_error(&me->g.cu, r) : "no error",
		 next ? cu_error(&me->g.cu, next) : "works",
		 next && cu_is_sticky(next) ? " (sticky)" : "");
	if (!next) {
		owed_say(me, 0, -1, "was not needed");
		return;
	}
	bad = start_over(&me->g, true, fd, host, &again);
	if (!bad) {
		owed_say(me, 0, -1, "works: slab, bytes and registered memory");
		return;
	}
	/* Worth knowing then. */
	other = start_over(&me->g, false, fd, host, &more);
	owed_say(me, 1, -1, "%s: %s; with a release in place of a reset: %s%s%s", bad,
		 cu_error(&me->g.cu, again), other ? other : "works", other ? ": " : "",
		 other ? cu_error(&me->g.cu, more) : "");
}

/* NULL, or what kvmd cannot stand on. */
static const char *one_means(const struct owed *o, struct owed_actor *n, int fd, enum means by)
{
	char text[OWED_TEXT], over[OWED_TEXT] = "", there[OWED_TEXT];
	uint64_t silent = 0, stuck = 0;
	struct owed_actor v;
	int err, hurt;

	owed_start(&v, 0, violator, &by);
	owed_say(n, 0, -1, "run");
	if (owed_hear(n, NULL, NULL, text)) {
		owed_kill(&v);
		return "the neighbour fails before anything happened";
	}
	owed_say(&v, 0, fd, "violate");
	err = owed_hear(&v, &silent, NULL, text);
	if (!err && owed_hear(&v, &stuck, NULL, over))
		stuck = 1;
	owed_kill(&v);
	owed_say(n, 1, -1, "look");
	hurt = owed_hear(n, NULL, NULL, there);
	if (err)
		owed_answer(o, "%s: no report: %s; the neighbour: %s%s", means_name[by], text,
			    hurt ? "" : "goes on, bytes as they were, ", there);
	else
		owed_answer(o, "%s: %s%s; in a new context: %s; the neighbour: %s%s",
			    means_name[by], text, silent ? ", and writes nothing" : "", over,
			    hurt ? "" : "goes on, bytes as they were, ", there);
	if (hurt)
		return "a write through a read-only mapping hurts its neighbour, or the bytes";
	return !err && stuck ?
		       "after a fault the process cannot go on in a new context: the daemon "
		       "would have to be started anew" :
		       NULL;
}

void owed_read_only(const struct owed *o)
{
	const char *bad = NULL, *now;
	char text[OWED_TEXT];
	struct owed_actor n;

	for (int by = 0; by < NR_MEANS; by++) {
		int fd = -1;

		owed_start(&n, 0, owner, NULL);
		now = owed_hear(&n, NULL, &fd, text) ? "no neighbour can be had" :
		      one_means(o, &n, fd, (enum means)by);
		bad = now ? now : bad;
		if (fd >= 0)
			close(fd);
		owed_kill(&n);
	}
	owed_verdict(o, bad);
}
