// SPDX-License-Identifier: Apache-2.0
/*
 * owed_slab.c - owed.h: slabs: what they are made of, how long they take, when they go.
 */
#include "tests/gpu/owed.h"

#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* One actor that says one text: the question's answer. */
static void one_actor(const struct owed *o, owed_fn *fn)
{
	char text[OWED_TEXT];
	struct owed_actor a;
	uint64_t bad = 0;
	int err;

	owed_start(&a, 0, fn, NULL);
	err = owed_hear(&a, &bad, NULL, text);
	if (!err)
		owed_answer(o, "%s", text);
	owed_verdict(o, err || bad ? text : NULL);
	owed_end(&a);
}

/* ------------------------------------------------------------ driver */

static int attr(struct owed_gpu *g, int which)
{
	int v = 0;

	return g->cu.device_attr(&v, which, g->dev) ? -1 : v;
}

static void say_driver(struct owed_actor *me, void *arg)
{
	struct owed_gpu *g = &me->g;

	(void)arg;
	owed_open(me, true);
	owed_say(me, attr(g, CU_ATTR_VMM) != 1 || attr(g, CU_ATTR_POSIX_FD) != 1, -1,
		 "VMM %d, POSIX fds %d, cuMemcpyBatchAsync %s, 64-bit stream writes %d, host "
		 "memory registered %d, read-only %d, copy engines %d, MPS %d; %s",
		 attr(g, CU_ATTR_VMM), attr(g, CU_ATTR_POSIX_FD),
		 g->cu.copy_batch ? "version 2" : g->cu.copy_batch_v1 ? "version 1" : "missing",
		 attr(g, CU_ATTR_MEM_OPS_64), attr(g, CU_ATTR_HOST_REGISTER),
		 attr(g, CU_ATTR_READ_ONLY_REGISTER), attr(g, CU_ATTR_ASYNC_ENGINES),
		 attr(g, CU_ATTR_MPS), g->module ? "kernels run" : g->no_kernel);
}

void owed_driver(const struct owed *o)
{
	one_actor(o, say_driver);
}

/* ------------------------------------------------------------ granularity */

static void say_granularity(struct owed_actor *me, void *arg)
{
	struct cu_mem_prop plain;
	size_t least = 0, good = 0, alone = 0;
	struct cu_mem_prop prop;

	(void)arg;
	owed_open(me, true);
	prop = plain = owed_prop(&me->g);
	plain.handle_types = 0;
	owed_must(me, "minimum", me->g.cu.mem_gran(&least, &prop, CU_MEM_GRAN_MINIMUM));
	owed_must(me, "recommended", me->g.cu.mem_gran(&good, &prop, CU_MEM_GRAN_RECOMMENDED));
	owed_must(me, "not exported", me->g.cu.mem_gran(&alone, &plain, CU_MEM_GRAN_MINIMUM));
	/* Slabs are multiples of it from 64 MiB on. */
	owed_say(me, !is_pow2(least) || least > 64 << 20, -1,
		 "exported memory: at least %zu KiB, recommended %zu KiB; not exported: %zu KiB",
		 least >> 10, good >> 10, alone >> 10);
}

void owed_granularity(const struct owed *o)
{
	one_actor(o, say_granularity);
}

/* ------------------------------------------------------------ no context */

static void make_without_context(struct owed_actor *me, void *arg)
{
	struct owed_gpu *g = &me->g;
	struct cu_mem_prop prop;
	cu_ctx ctx = NULL;
	cu_mem h;
	int fd;

	(void)arg;
	owed_open(me, false);
	prop = owed_prop(g);
	g->cu.ctx_get(&ctx);
	owed_must(me, "cuMemCreate without a context", g->cu.mem_create(&h, OWED_BLOCK, &prop, 0));
	owed_must(me, "cuMemExportToShareableHandle without a context",
		  g->cu.mem_export(&fd, h, CU_MEM_POSIX_FD, 0));
	owed_say(me, ctx != NULL, fd, "made");
	owed_next(me, NULL);
}

static void import_and_use(struct owed_actor *me, void *arg)
{
	struct owed_mem m;
	int fd;

	(void)arg;
	owed_open(me, true);
	owed_next(me, &fd);
	owed_import(me, fd, OWED_BLOCK, CU_PROT_READWRITE, &m);
	owed_must(me, "a copy into it", owed_put(&me->g, m.ptr, m.bytes, 3));
	owed_expect(me, "memory made without a context", m.ptr, m.bytes, 3);
	owed_say(me, 0, -1, "%s", owed_means(&me->g));
}

void owed_no_context(const struct owed *o)
{
	struct owed_actor maker, user = { 0 };
	char text[OWED_TEXT];
	int fd = -1;

	owed_start(&maker, 0, make_without_context, NULL);
	if (owed_hear(&maker, NULL, &fd, text)) {
		/* We always have a context: nothing depends on it. */
		owed_answer(o, "no: %s", text);
	} else {
		owed_start(&user, 0, import_and_use, NULL);
		owed_say(&user, 0, fd, "use");
		if (owed_hear(&user, NULL, NULL, text))
			owed_answer(o, "made and exported, but an importer cannot use it: %s",
				    text);
		else
			owed_answer(o, "yes: made and exported without a context, used by an "
				    "importer %s", text);
		close(fd);
	}
	owed_ok(o);
	owed_kill(&maker);
	owed_end(&user);
}

/* ------------------------------------------------------------ times */

static const size_t slab_mib[] = { 2, 64, 256, 1024 };

struct slab_times {
	double create, map, access, export;
};

static void make_timed(struct owed_actor *me, void *arg)
{
	const size_t bytes = *(const size_t *)arg;
	const struct cu *cu = &me->g.cu;
	struct cu_mem_access access;
	struct cu_mem_prop prop;
	struct owed_mem m = { .bytes = bytes };
	struct slab_times t;
	uint64_t t0;

	owed_open(me, true);
	prop = owed_prop(&me->g);
	access = (struct cu_mem_access) { prop.location, CU_PROT_READWRITE };
	t0 = owed_ns();
	owed_must(me, "cuMemCreate", cu->mem_create(&m.h, bytes, &prop, 0));
	t.create = owed_ms_since(t0);
	t0 = owed_ns();
	owed_must(me, "cuMemAddressReserve", cu->mem_reserve(&m.ptr, bytes, 0, 0, 0));
	owed_must(me, "cuMemMap", cu->mem_map(m.ptr, bytes, 0, m.h, 0));
	t.map = owed_ms_since(t0);
	t0 = owed_ns();
	owed_must(me, "cuMemSetAccess", cu->mem_set_access(m.ptr, bytes, &access, 1));
	t.access = owed_ms_since(t0);
	t0 = owed_ns();
	owed_must(me, "cuMemExportToShareableHandle",
		  cu->mem_export(&m.fd, m.h, CU_MEM_POSIX_FD, 0));
	t.export = owed_ms_since(t0);
	owed_say(me, 0, m.fd, "create %.2f, map %.2f, access %.2f, export %.2f", t.create, t.map,
		 t.access, t.export);
	owed_next(me, NULL);
	t0 = owed_ns();
	owed_unmap(me, &m);
	close(m.fd);
	owed_say(me, 0, -1, "unmap and free %.2f", owed_ms_since(t0));
}

static void import_timed(struct owed_actor *me, void *arg)
{
	const size_t bytes = *(const size_t *)arg;
	struct owed_mem m;
	double import;
	uint64_t t0;
	int fd;

	owed_open(me, true);
	owed_next(me, &fd);
	t0 = owed_ns();
	owed_must(me, "cuMemImportFromShareableHandle",
		  me->g.cu.mem_import(&m.h, (void *)(uintptr_t)fd, CU_MEM_POSIX_FD));
	import = owed_ms_since(t0);
	m.bytes = bytes;
	t0 = owed_ns();
	owed_map(me, &m, CU_PROT_READ);
	owed_say(me, 0, -1, "import %.2f, map read-only %.2f", import, owed_ms_since(t0));
}

/* 0, or -1 when it was said that it cannot be done. */
static int one_size(const struct owed *o, size_t bytes)
{
	char made[OWED_TEXT], used[OWED_TEXT] = "", freed[OWED_TEXT] = "";
	struct owed_actor maker, user = { 0 };
	int fd = -1, err;

	owed_start(&maker, 0, make_timed, &bytes);
	err = owed_hear(&maker, NULL, &fd, made);
	if (err) {
		owed_not_ok(o, "%zu MiB: %s", bytes >> 20, made);
		goto end;
	}
	owed_start(&user, 0, import_timed, &bytes);
	owed_say(&user, 0, fd, "import");
	close(fd);
	err = owed_hear(&user, NULL, NULL, used);
	if (err) {
		owed_not_ok(o, "%zu MiB: %s", bytes >> 20, used);
		goto end;
	}
	owed_end(&user);
	owed_say(&maker, 0, -1, "free");
	err = owed_hear(&maker, NULL, NULL, freed);
	if (err)
		owed_not_ok(o, "%zu MiB: %s", bytes >> 20, freed);
	else
		owed_answer(o, "%zu MiB, ms: %s; %s; %s", bytes >> 20, made, used, freed);
end:
	owed_kill(&maker);
	owed_kill(&user);
	return err;
}

static void say_free(struct owed_actor *me, void *arg)
{
	size_t bytes = 0, total = 0;

	(void)arg;
	owed_open(me, true);
	owed_must(me, "cuMemGetInfo", me->g.cu.mem_info(&bytes, &total));
	owed_say(me, bytes, -1, "%zu", total);
}

void owed_slab_times(const struct owed *o)
{
	char text[OWED_TEXT];
	struct owed_actor a;
	uint64_t room = 0;
	int err;

	owed_start(&a, 0, say_free, NULL);
	err = owed_hear(&a, &room, NULL, text);
	owed_end(&a);
	if (err) {
		owed_not_ok(o, "%s", text);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(slab_mib) && !err; i++) {
		if (slab_mib[i] << 20 > room / 2)
			owed_answer(o, "%zu MiB: not tried, %llu MiB are free", slab_mib[i],
				    (unsigned long long)room >> 20);
		else
			err = one_size(o, slab_mib[i] << 20);
	}
	if (!err)
		owed_ok(o);
}

/* ------------------------------------------------------------ the descriptor */

static void say_fd(struct owed_actor *me, void *arg)
{
	char link[64], to[200] = "";
	struct owed_mem m, n;
	struct pollfd p;
	struct stat st[2];
	int again;

	(void)arg;
	owed_open(me, true);
	owed_make(me, OWED_BLOCK, 5, &m);
	p = (struct pollfd) { .fd = m.fd, .events = POLLIN };
	if (poll(&p, 1, 0) < 0)
		p.revents = -1;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", m.fd);
	if (readlink(link, to, sizeof(to) - 1) < 0)
		snprintf(to, sizeof(to), "?");
	/* Twice from one allocation: two descriptors, both good. */
	owed_must(me, "a second export", me->g.cu.mem_export(&again, m.h, CU_MEM_POSIX_FD, 0));
	if (fstat(m.fd, &st[0]) || fstat(again, &st[1]))
		owed_fail(me, "fstat fails");
	owed_import(me, again, OWED_BLOCK, CU_PROT_READ, &n);
	owed_expect(me, "the second export", n.ptr, n.bytes, 5);
	/* An import does not use the descriptor up. */
	owed_unmap(me, &n);
	owed_import(me, again, OWED_BLOCK, CU_PROT_READ, &n);
	owed_expect(me, "a second import", n.ptr, n.bytes, 5);
	owed_say(me, 0, -1,
		 "%s; poll() says %#x at once; inode %s for each export; may be imported "
		 "again and again",
		 to, (unsigned)p.revents, st[0].st_ino == st[1].st_ino ? "the same" : "another");
}

void owed_fd(const struct owed *o)
{
	one_actor(o, say_fd);
}

/* ------------------------------------------------------------ close frees */

/* Until at least @want bytes are free, at most @ms; the time it took, -1: they are not. */
static double wait_free(struct owed_actor *me, size_t want, unsigned ms)
{
	uint64_t t0 = owed_ns();
	size_t bytes, total;

	for (;;) {
		owed_must(me, "cuMemGetInfo", me->g.cu.mem_info(&bytes, &total));
		if (bytes >= want)
			return owed_ms_since(t0);
		if (owed_ms_since(t0) > ms)
			return -1;
		usleep(200);
	}
}

static void close_and_look(struct owed_actor *me, void *arg)
{
	size_t before, with, released, total, bytes;
	const struct cu *cu = &me->g.cu;
	struct owed_mem m;
	double ms;

	(void)arg;
	owed_open(me, true);
	owed_must(me, "cuMemGetInfo", cu->mem_info(&before, &total));
	bytes = before / 4 > 256 << 20 ? 256 << 20 : 16 << 20;
	owed_make(me, bytes, 0, &m);
	owed_must(me, "cuMemGetInfo", cu->mem_info(&with, &total));
	owed_unmap(me, &m);
	owed_must(me, "cuMemGetInfo", cu->mem_info(&released, &total));
	close(m.fd);
	ms = wait_free(me, released + bytes / 2 < before ? released + bytes / 2 : with + bytes / 2,
		       3000);
	if (with + bytes / 2 > before)
		owed_say(me, 1, -1, "cuMemGetInfo does not show %zu MiB", bytes >> 20);
	else if (ms < 0)
		owed_say(me, 1, -1, "%zu MiB are not free 3 s after the last descriptor was closed",
			 bytes >> 20);
	else if (released > with + bytes / 2)
		owed_say(me, 1, -1,
			 "the memory went with its last mapping, the open descriptor did "
			 "not keep it");
	else
		owed_say(me, 0, -1, "%zu MiB: unmapped and released, the open descriptor keeps it; "
			 "free %.2f ms after close()", bytes >> 20, ms);
}

void owed_close_frees(const struct owed *o)
{
	one_actor(o, close_and_look);
}
