// SPDX-License-Identifier: Apache-2.0
/*
 * owed_host.c - owed.h: host memory that a GPU reads and writes: tables, RAM chunks, step
 * words.
 */
#include "tests/gpu/owed.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "kvmd/lib/mem.h"
#include "kvmd/lib/uring.h"

#define TABLE_BYTES	(4ull << 20)

/* ------------------------------------------------------------ read-only tables */

/* The daemon's table as a client sees it: a sealed memfd that it may only read. */
static void table_reader(struct owed_actor *me, void *arg)
{
	struct owed_gpu *g = &me->g;
	struct owed_mem m;
	uint64_t wrong = 0;
	int fd, has = 0, r, plain;
	cu_ptr p = 0;
	void *map;

	(void)arg;
	owed_open(me, true);
	owed_next(me, &fd);
	map = mmap(NULL, TABLE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		owed_fail(me, "mmap");
	g->cu.device_attr(&has, CU_ATTR_READ_ONLY_REGISTER, g->dev);
	plain = g->cu.host_register(map, TABLE_BYTES, CU_HOST_PORTABLE | CU_HOST_DEVICEMAP);
	if (!plain)
		g->cu.host_unregister(map);
	r = g->cu.host_register(map, TABLE_BYTES,
				CU_HOST_PORTABLE | CU_HOST_DEVICEMAP | CU_HOST_READ_ONLY);
	if (r) {
		owed_say(me, has == 1, -1,
			 "the attribute says %d, cuMemHostRegister(READ_ONLY): %s; "
			 "without READ_ONLY: %s",
			 has, cu_error(&g->cu, r), plain ? cu_error(&g->cu, plain) : "works");
		return;
	}
	owed_must(me, "cuMemHostGetDevicePointer", g->cu.host_ptr(&p, map, 0));
	owed_make(me, TABLE_BYTES, 0, &m);
	/* Each word: the table has changed to the pattern of that number. */
	for (uint64_t seed = 1;; seed = owed_next(me, NULL)) {
		owed_must(me, "a copy from the table", g->cu.copy(m.ptr, p, TABLE_BYTES, g->s));
		owed_must(me, "a copy from the table", g->cu.stream_sync(g->s));
		owed_expect(me, "the table in the GPU", m.ptr, TABLE_BYTES, seed);
		r = owed_kernel_get(g, p, TABLE_BYTES, seed, &wrong);
		if (r && r != CU_NOT_SUPPORTED)
			owed_fail(me, "a kernel that reads the table: %s", cu_error(&g->cu, r));
		if (wrong)
			owed_fail(me, "a kernel reads %llu wrong words of the table",
				  (unsigned long long)wrong);
		owed_say(me, 0, -1,
			 "the attribute says %d; registered, and read %s as another process "
			 "changes it; without READ_ONLY: %s",
			 has, owed_means(g), plain ? cu_error(&g->cu, plain) : "works too");
	}
}

void owed_ro_register(const struct owed *o)
{
	char text[OWED_TEXT];
	struct owed_actor a;
	uint64_t bad = 0;
	void *map;
	int fd = mem_fd_create("owed-table", TABLE_BYTES, false, &map), err;

	if (fd < 0) {
		owed_not_ok(o, "no memory");
		return;
	}
	owed_pattern(map, TABLE_BYTES, 1);
	err = mem_fd_seal(fd, true);
	if (err) {
		owed_not_ok(o, "the kernel does not seal: %s", strerror(-err));
		return;
	}
	owed_start(&a, 0, table_reader, NULL);
	owed_say(&a, 0, fd, "map");
	err = owed_hear(&a, &bad, NULL, text);
	for (uint64_t seed = 2; seed < 5 && !err && strstr(text, "registered,"); seed++) {
		owed_pattern(map, TABLE_BYTES, seed);
		owed_say(&a, seed, -1, "changed");
		err = owed_hear(&a, &bad, NULL, text);
	}
	if (!err)
		owed_answer(o, "%s", text);
	owed_verdict(o, err || bad ? text : NULL);
	owed_kill(&a);
}

/* ------------------------------------------------------------ RAM chunks and io_uring */

#define CHUNK	(64ull << 20)
#define PIECE	(8ull << 20)

struct io {
	struct uring_req req;
	int res;
	bool done;
};

static void io_done(struct uring_req *r, int res)
{
	struct io *io = container_of(r, struct io, req);

	io->res = res;
	io->done = true;
}

static void io_wait(struct owed_actor *me, const char *what, struct uring *u, struct io *io,
		    int err)
{
	if (err)
		owed_fail(me, "%s: %s", what, strerror(-err));
	while (!io->done)
		uring_wait(u, 1000000000ull);
	if (io->res != (int)PIECE)
		owed_fail(me, "%s: %s", what, io->res < 0 ? strerror(-io->res) : "short");
}

/* GPU -> chunk -> file -> chunk -> GPU, the chunk pinned by both, in either order. */
static void round_trip(struct owed_actor *me, struct uring *u, unsigned idx, bool gpu_first)
{
	const unsigned flags = CU_HOST_PORTABLE | CU_HOST_DEVICEMAP;
	struct io w = { .req.done = io_done }, r = { .req.done = io_done };
	struct owed_gpu *g = &me->g;
	struct owed_mem from, to;
	struct mem_pages pages;
	uint8_t *chunk;
	void *map;
	int err, fd;

	fd = mem_fd_create_paged("owed-chunk", CHUNK, true, 4, &map, &pages);
	if (fd < 0)
		owed_fail(me, "no chunk: %s", strerror(-fd));
	chunk = (uint8_t *)map;
	if (gpu_first)
		owed_must(me, "cuMemHostRegister", g->cu.host_register(chunk, CHUNK, flags));
	err = uring_buffer_set(u, idx, chunk, CHUNK);
	if (err)
		owed_fail(me, "io_uring does not take the chunk%s: %s",
			  gpu_first ? " that is registered with the GPU" : "", strerror(-err));
	if (!gpu_first)
		owed_must(me, "cuMemHostRegister of an io_uring buffer",
			  g->cu.host_register(chunk, CHUNK, flags));
	owed_make(me, PIECE, 40 + idx, &from);
	owed_make(me, PIECE, 0, &to);
	owed_must(me, "D2H", g->cu.copy((cu_ptr)(uintptr_t)chunk, from.ptr, PIECE, g->s));
	owed_must(me, "D2H", g->cu.stream_sync(g->s));
	io_wait(me, "a write from the chunk", u, &w,
		uring_pwrite(u, &w.req, 0, (int)idx, chunk, PIECE, 0));
	io_wait(me, "a read into the chunk", u, &r,
		uring_pread(u, &r.req, 0, (int)idx, chunk + 2 * PIECE, PIECE, 0));
	owed_must(me, "H2D",
		  g->cu.copy(to.ptr, (cu_ptr)(uintptr_t)(chunk + 2 * PIECE), PIECE, g->s));
	owed_must(me, "H2D", g->cu.stream_sync(g->s));
	owed_expect(me, "GPU, file and back", to.ptr, PIECE, 40 + idx);
	owed_must(me, "cuMemHostUnregister", g->cu.host_unregister(chunk));
	uring_buffer_set(u, idx, NULL, 0);
	munmap(map, CHUNK);
	close(fd);
}

static void chunks(struct owed_actor *me, void *arg)
{
	const char *tmp = getenv("TMPDIR");
	bool direct = true;
	struct uring *u;
	char path[300];
	int fd, err;

	(void)arg;
	owed_open(me, true);
	err = uring_create(64, &u);
	if (!err)
		err = uring_buffers_init(u, 2);
	if (!err)
		err = uring_files_init(u, 1);
	if (err) {
		owed_say(me, 2, -1, "this kernel has no io_uring for us: %s", strerror(-err));
		return;
	}
	snprintf(path, sizeof(path), "%s/owed.XXXXXX", tmp ? tmp : "/tmp");
	fd = mkstemp(path);
	if (fd < 0)
		owed_fail(me, "no file in %s", path);
	unlink(path);
	if (fcntl(fd, F_SETFL, O_DIRECT))
		direct = false;
	err = uring_file_set(u, 0, fd);
	if (err)
		owed_fail(me, "no fixed file: %s", strerror(-err));
	round_trip(me, u, 0, true);
	round_trip(me, u, 1, false);
	owed_say(me, 0, -1,
		 "one memfd chunk as io_uring's fixed buffer and registered with the GPU, "
		 "in either order: GPU, file%s, GPU %s",
		 direct ? " (O_DIRECT)" : " (no O_DIRECT there)", owed_means(&me->g));
}

void owed_uring(const struct owed *o)
{
	char text[OWED_TEXT];
	struct owed_actor a;
	uint64_t bad = 0;
	int err;

	owed_start(&a, 0, chunks, NULL);
	err = owed_hear(&a, &bad, NULL, text);
	if (!err && bad == 2) {
		owed_skip(o, "%s", text);
	} else {
		if (!err)
			owed_answer(o, "%s", text);
		owed_verdict(o, err ? text : NULL);
	}
	owed_end(&a);
}

/* ------------------------------------------------------------ step words */

#define ROUNDS	500u
#define DATA	(256ull << 10)

struct step_page {
	uint64_t word;			/* the GPU's */
	uint64_t sent_ns;		/* when the step was handed to the stream */
	uint64_t seen;			/* the other process's */
	char pad[4096 - 24];
	uint8_t data[DATA];
};

static void stepper(struct owed_actor *me, void *arg)
{
	struct owed_gpu *g = &me->g;
	struct step_page *page;
	struct owed_mem m;
	cu_ptr word = 0;
	int fd, has = 0, r;

	(void)arg;
	owed_open(me, true);
	owed_next(me, &fd);
	page = (struct step_page *)mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED, fd,
					0);
	if (page == MAP_FAILED)
		owed_fail(me, "mmap");
	owed_must(me, "cuMemHostRegister", g->cu.host_register(page, sizeof(*page),
		  CU_HOST_PORTABLE | CU_HOST_DEVICEMAP));
	owed_must(me, "cuMemHostGetDevicePointer", g->cu.host_ptr(&word, &page->word, 0));
	owed_make(me, OWED_BLOCK, 0, &m);
	g->cu.device_attr(&has, CU_ATTR_MEM_OPS_64, g->dev);
	r = g->cu.stream_write64(g->s, word, 0, 0);
	if (r) {
		owed_say(me, has == 1 ? 1 : 2, -1, "cuStreamWriteValue64: %s (attribute %d)",
			 cu_error(&g->cu, r), has);
		return;
	}
	owed_must(me, "cuStreamSynchronize", g->cu.stream_sync(g->s));
	owed_say(me, 0, -1, "go");
	for (uint64_t i = 1; i <= ROUNDS; i++) {
		uint64_t t0 = owed_ns();

		st_rlx(&page->sent_ns, t0);
		owed_must(me, "cuMemsetD8Async", g->cu.set8(m.ptr, (unsigned char)i, DATA, g->s));
		owed_must(me, "D2H", g->cu.copy((cu_ptr)(uintptr_t)page->data, m.ptr, DATA, g->s));
		owed_must(me, "cuStreamWriteValue64", g->cu.stream_write64(g->s, word, i, 0));
		/* The other side has looked: acquire of its release. */
		while (ld_acq(&page->seen) < i && owed_ms_since(t0) < 5000)
			;
		if (ld_acq(&page->seen) < i)
			owed_fail(me, "step %llu is not seen by another process in 5 s",
				  (unsigned long long)i);
	}
	owed_say(me, 0, -1, "done");
}

/* Waits for each step, looks at what it promises. NULL, or what is wrong. */
static const char *watch(struct step_page *page, double *ret_us)
{
	double us[ROUNDS];

	for (uint64_t i = 1; i <= ROUNDS; i++) {
		uint64_t t0 = owed_ns();

		/* Acquire: partner is the system fence before the GPU's write. */
		while (ld_acq(&page->word) < i)
			if (owed_ms_since(t0) > 10000)
				return NULL;	/* the other side says it */
		us[i - 1] = (double)(owed_ns() - ld_rlx(&page->sent_ns)) / 1000;
		for (size_t k = 0; k < DATA; k++)
			if (ld_rlx(&page->data[k]) != (uint8_t)i)
				return "a step's word is there before the bytes that were written "
				       "before it";
		st_rel(&page->seen, i);
	}
	for (unsigned i = 1; i < ROUNDS; i++)
		for (unsigned k = i; k > 0 && us[k] < us[k - 1]; k--) {
			double x = us[k];

			us[k] = us[k - 1];
			us[k - 1] = x;
		}
	*ret_us = us[ROUNDS / 2];
	return NULL;
}

void owed_write64(const struct owed *o)
{
	const char *wrong = NULL;
	char text[OWED_TEXT];
	struct owed_actor a;
	double us = 0;
	uint64_t bad = 0;
	void *map;
	int fd = mem_fd_create("owed-steps", sizeof(struct step_page), false, &map), err;

	if (fd < 0 || mem_fd_seal(fd, false)) {
		owed_not_ok(o, "no memory");
		return;
	}
	owed_start(&a, 0, stepper, NULL);
	owed_say(&a, 0, fd, "map");
	err = owed_hear(&a, &bad, NULL, text);
	if (!err && !bad) {
		wrong = watch((struct step_page *)map, &us);
		err = wrong ? 0 : owed_hear(&a, NULL, NULL, text);
	}
	if (!err && !bad && !wrong)
		owed_answer(o, "%u steps: the GPU's write into a registered memfd is seen by a "
			    "process without the driver %.1f us after the stream got memset, copy "
			    "of %llu KiB and write (median); the bytes before it were always there",
			    ROUNDS, us, DATA >> 10);
	else if (!err && bad)
		owed_answer(o, "%s", text);
	owed_verdict(o, err || bad == 1 ? text : wrong);
	owed_kill(&a);
}

/* ------------------------------------------------------------ pinning beside copies */

struct pinning {
	struct owed_actor *me;
	void *mem;
	uint64_t bytes;
	double ms;
	int r;
	bool done;
};

static void *pin_thread(void *arg)
{
	struct pinning *p = (struct pinning *)arg;
	struct owed_gpu *g = &p->me->g;
	uint64_t t0;

	p->r = g->cu.ctx_set(g->ctx);
	t0 = owed_ns();
	if (!p->r)
		p->r = g->cu.host_register(p->mem, p->bytes, CU_HOST_PORTABLE | CU_HOST_DEVICEMAP);
	p->ms = owed_ms_since(t0);
	st_rel(&p->done, true);
	return NULL;
}

static uint64_t chunk_bytes(void)
{
	struct sysinfo si;
	uint64_t room = 0;

	if (!sysinfo(&si))
		room = (uint64_t)si.freeram * si.mem_unit;
	return room > 16ull << 30 ? 1ull << 30 : 64ull << 20;
}

/* The longest submission and the longest whole copy while @p goes on, ms. */
static void copy_beside(struct owed_actor *me, struct pinning *p, cu_ptr dst, cu_ptr src,
			double ret_ms[2], unsigned *ret_nr)
{
	struct owed_gpu *g = &me->g;

	while (!ld_acq(&p->done)) {	/* partner: pin_thread() */
		uint64_t t0 = owed_ns();

		owed_must(me, "a copy while another thread pins",
			  g->cu.copy(dst, src, 65536, g->s));
		ret_ms[0] = max(ret_ms[0], owed_ms_since(t0));
		owed_must(me, "a copy while another thread pins", g->cu.stream_sync(g->s));
		ret_ms[1] = max(ret_ms[1], owed_ms_since(t0));
		++*ret_nr;
	}
}

static void pin_and_copy(struct owed_actor *me, void *arg)
{
	struct pinning p = { .me = me, .bytes = chunk_bytes() };
	struct owed_mem from, to;
	struct mem_pages pages = { 0 };
	double worst[2] = { 0, 0 };
	unsigned nr = 0;
	pthread_t t;
	uint64_t t0;
	int fd;

	(void)arg;
	owed_open(me, true);
	owed_make(me, OWED_BLOCK, 1, &from);
	owed_make(me, OWED_BLOCK, 0, &to);
	fd = mem_fd_create_paged("owed-ram", p.bytes, true, 4, &p.mem, &pages);
	if (fd < 0)
		owed_fail(me, "no memory: %s", strerror(-fd));
	if (pthread_create(&t, NULL, pin_thread, &p))
		owed_fail(me, "no thread");
	copy_beside(me, &p, to.ptr, from.ptr, worst, &nr);
	pthread_join(t, NULL);
	owed_must(me, "cuMemHostRegister", p.r);
	t0 = owed_ns();
	owed_must(me, "cuMemHostUnregister", me->g.cu.host_unregister(p.mem));
	owed_say(me, 0, -1, "%llu MiB (%llu in 2 MiB pages) registered in %.1f ms, unregistered in "
		 "%.1f ms; %u copies of 64 KiB by another thread meanwhile: the longest "
		 "submission took %.2f ms, the longest copy %.2f ms",
		 (unsigned long long)p.bytes >> 20,
		 (unsigned long long)(pages.hugetlb_bytes + pages.thp_bytes) >> 20, p.ms,
		 owed_ms_since(t0), nr, worst[0], worst[1]);
}

void owed_register_stall(const struct owed *o)
{
	char text[OWED_TEXT];
	struct owed_actor a;
	int err;

	owed_start(&a, 0, pin_and_copy, NULL);
	err = owed_hear(&a, NULL, NULL, text);
	if (!err)
		owed_answer(o, "%s", text);
	owed_verdict(o, err ? text : NULL);
	owed_end(&a);
}
