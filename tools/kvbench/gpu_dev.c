// SPDX-License-Identifier: Apache-2.0
/*
 * gpu_dev.c - the cuda device driven as the daemon's core thread drives it.
 *
 * Blocks lie scattered on both sides, so that no two of a batch are neighbours. A
 * bounded number of bytes is under way; whatever ends is followed by the next.
 */
#include "tools/kvbench/gpu.h"

#include <sys/mman.h>
#include <unistd.h>

#include "kvmd/lib/mem.h"
#include "kvmd/lib/stats.h"

#define FLIGHT_BYTES	(64ull << 20)
#define MAX_FLIGHT	1024u
#define MAX_COPIES	64u
#define STUCK_NS	20000000000ull
#define NR_PLANES	64u

static struct dev dev;
static struct workers *workers;
static struct dev_extent whole, plane[NR_PLANES], chunk;
static bool has_planes;

struct flight {
	struct dev_batch b;
	struct dev_copy copy[MAX_COPIES];
	struct sum sum;
	struct run *run;
	bool busy;
};

struct run {
	const struct gpu_job *job;
	struct flight *flight;
	unsigned nr_flight, nr_busy, next;
	uint64_t span, k;		/* blocks handed out so far */
	uint64_t bytes;			/* that arrived */
	int err;
};

/* ------------------------------------------------------------ set-up */

static int make_memory(char *msg, size_t n)
{
	struct mem_pages pages;
	int fd, err;

	fd = mem_fd_create_paged("kvbench", gpu_amounts.span, true, 4, &chunk.map, &pages);
	if (fd < 0) {
		snprintf(msg, n, "no host memory: %s", strerror(-fd));
		return fd;
	}
	close(fd);
	chunk.fd = -1;
	chunk.bytes = gpu_amounts.span;
	memset(chunk.map, 0x3c, chunk.bytes);
	err = dev_host_pin(chunk.map, chunk.bytes, msg, n);
	if (err < 0)
		return err;
	err = dev.ops->extent_create(&dev, gpu_amounts.span, &whole);
	if (err)
		snprintf(msg, n, "no device memory: %s", strerror(-err));
	if (bench.verbose)
		kvb_note("%llu MiB of host memory, %llu in 2 MiB pages",
			 (unsigned long long)gpu_amounts.span >> 20,
			 (unsigned long long)(pages.hugetlb_bytes + pages.thp_bytes) >> 20);
	return err;
}

int gpu_dev_open(char *msg, size_t n)
{
	const struct dev_opts o = {
		.uuid = NULL, .bytes = gpu_amounts.free_bytes / 4 * 3, .copy_threads = 2,
		.copy_timeout_ns = STUCK_NS,
	};
	const struct dev_ops *ops = dev_ops_find("cuda");
	int err;

	if (!ops) {
		snprintf(msg, n, "this build has no cuda device");
		return -ENODEV;
	}
	/* The first one has counted what is counted already: part tier, perhaps. */
	(void)stats_init();
	if (workers_create(1, &workers)) {
		snprintf(msg, n, "no threads");
		return -ENOMEM;
	}
	dev_init(&dev, ops, "gpu", o.bytes, workers);
	err = dev_open(&dev, &o, msg, n);
	return err ? err : make_memory(msg, n);
}

/* Many planes beside the one large extent: for layer-major blocks. */
static int make_planes(void)
{
	const uint64_t bytes = gpu_amounts.span / NR_PLANES;
	int err = 0;

	for (unsigned i = 0; i < NR_PLANES && !err && !plane[i].bytes; i++)
		err = dev.ops->extent_create(&dev, align_up(bytes, dev.granularity), &plane[i]);
	has_planes = !err;
	return err;
}

void gpu_dev_close(void)
{
	if (!workers)
		return;
	for (unsigned i = 0; i < NR_PLANES; i++)
		if (plane[i].bytes)
			dev.ops->extent_destroy(&dev, &plane[i]);
	if (whole.bytes)
		dev.ops->extent_destroy(&dev, &whole);
	if (chunk.map) {
		dev_host_unpin(chunk.map);
		munmap(chunk.map, chunk.bytes);
	}
	dev_close(&dev);
	workers_destroy(workers);
	workers = NULL;
}

void *gpu_dev_host(void)
{
	return chunk.map;
}

const char *gpu_dev_model(void)
{
	return dev.model;
}

double gpu_dev_slab(uint64_t bytes)
{
	struct dev_extent e;
	uint64_t t0 = time_ns();
	double ms;
	int err = dev.ops->extent_create(&dev, bytes, &e);

	ms = (double)(time_ns() - t0) / 1e6;
	if (err)
		return err;
	dev.ops->extent_destroy(&dev, &e);
	return ms;
}

/* ------------------------------------------------------------ copies */

static void put_copies(struct run *r, struct flight *f)
{
	const struct gpu_job *j = r->job;
	const uint64_t nr = r->span / j->block;

	for (unsigned i = 0; i < j->per_batch; i++, r->k++) {
		/* Odd factors: all places in turn, far apart, each side in an order of its own. */
		const uint64_t at = j->base + r->k * 1031 % nr * j->block;
		const uint64_t host = j->base + r->k * 617 % nr * j->block;
		const struct dev_extent *e = j->planes ? &plane[i % j->planes] : &whole;
		const uint64_t off = j->planes ? r->k / j->planes % (nr / j->planes) * j->block :
						 at;

		f->copy[i] = j->way == DEV_OUT ?
			(struct dev_copy) { &chunk, e, host, off, j->block } :
			(struct dev_copy) { e, &chunk, off, host, j->block };
	}
	/* A block of many planes is one run in RAM. */
	for (unsigned i = 0; i < j->per_batch && j->planes; i++) {
		uint64_t at = (r->k - j->per_batch + i) % nr * j->block;

		if (j->way == DEV_OUT)
			f->copy[i].dst_off = at;
		else
			f->copy[i].src_off = at;
	}
}

static void arrived(struct dev_batch *b)
{
	struct flight *f = container_of(b, struct flight, b);
	struct run *r = f->run;

	f->busy = false;
	r->nr_busy--;
	if (b->err)
		r->err = b->err;
	else
		r->bytes += r->job->block * r->job->per_batch;
}

static void depart(struct run *r)
{
	struct flight *f = &r->flight[r->next];

	r->next = (r->next + 1) % r->nr_flight;
	f->b = (struct dev_batch) {
		.copy = f->copy, .nr = r->job->per_batch, .done = arrived,
		.sum = r->job->sums ? &f->sum : NULL,
	};
	if (r->job->sums)
		sum_start(&f->sum);
	put_copies(r, f);
	f->run = r;
	f->busy = true;
	r->nr_busy++;
	dev.ops->copy(&dev, &f->b);
}

static int run_start(struct run *r, const struct gpu_job *j)
{
	const uint64_t batch = j->block * j->per_batch;
	uint64_t most = FLIGHT_BYTES;

	*r = (struct run) { .job = j, .span = j->span ? j->span : gpu_amounts.span };
	/* No two batches under way write the same place. */
	most = min(most, r->span / 2) / batch;
	r->nr_flight = (unsigned)(most > MAX_FLIGHT ? MAX_FLIGHT : most ? most : 1);
	/* Checksums under way want their own alignment. */
	r->flight = (struct flight *)aligned_alloc(_Alignof(struct flight),
						   r->nr_flight * sizeof(*r->flight));
	if (!r->flight)
		return -ENOMEM;
	for (unsigned i = 0; i < r->nr_flight; i++)
		r->flight[i].busy = false;
	return 0;
}

double gpu_rate(const struct gpu_job *job, unsigned nr, uint64_t for_ns)
{
	uint64_t start, now, bytes = 0;
	struct run run[2] = { 0 };
	bool more = true;
	int err = 0;

	if (job->planes && !has_planes)
		err = make_planes();
	for (unsigned i = 0; i < nr && !err; i++)
		err = run_start(&run[i], &job[i]);
	start = now = time_ns();
	while (!err && (more || run[0].nr_busy || run[1].nr_busy)) {
		for (unsigned i = 0; i < nr && more; i++)
			while (run[i].nr_busy < run[i].nr_flight &&
			       !run[i].flight[run[i].next].busy)
				depart(&run[i]);
		if (!workers_reap(workers))
			cpu_relax();
		now = time_ns();
		more = now - start < for_ns && !run[0].err && !run[1].err && !interrupted;
		if (now - start > for_ns + STUCK_NS)
			kvb_die("copies of %s do not end", dev.ops->name);
	}
	for (unsigned i = 0; i < nr; i++) {
		bytes += run[i].bytes;
		err = err ? err : run[i].err;
		free(run[i].flight);
	}
	return err ? err : (double)bytes * 1e9 / (double)(now - start);
}
