// SPDX-License-Identifier: Apache-2.0
/*
 * gpu.c - part "gpu": copies, slabs, sharing, kernels and an engine on an NVIDIA GPU.
 *
 * Each round measures the driver alone and the daemon's device in turn, slice by
 * slice. What cannot be measured is skipped with the reason, and the rest goes on:
 * without a GPU all of it.
 */
#include "tools/kvbench/gpu.h"

#include <sys/sysinfo.h>
#include <unistd.h>

const uint64_t gpu_size[NR_GPU_SIZES] = { 64 << 10, 256 << 10, 1 << 20, 2 << 20, 4 << 20 };
struct gpu_amounts gpu_amounts;

#define BATCHED		64u			/* 64 KiB blocks in a batch, or planes of a block */
#define NR_SLABS	3u
static const uint64_t slab_bytes[NR_SLABS] = { 64ull << 20, 256ull << 20, 1ull << 30 };

#define LIMIT_NS	60000000000ull		/* no round begins later */

static bool ready;
static unsigned nr_rounds;			/* begun */
static uint64_t start_ns;
static char text[300];				/* why nothing, or not all, is measured */

/* ------------------------------------------------------------ set-up */

/* As much as there is room for, at most 1 GiB; a power of two. */
static void set_amounts(uint64_t gpu_free)
{
	uint64_t host_free = 0, most = bench.quick ? 16ull << 20 : 1ull << 30;
	struct sysinfo si;

	if (!sysinfo(&si))
		host_free = (uint64_t)si.freeram * si.mem_unit;
	while (most > 16ull << 20 && (most > gpu_free / 4 || most > host_free / 4))
		most /= 2;
	gpu_amounts = (struct gpu_amounts) {
		.span = most, .slice_ns = bench.quick ? 4000000 : 30000000,
		.publishes = bench.quick ? 8 : 100, .free_bytes = gpu_free,
	};
}

void kvb_gpu_setup(void)
{
	uint64_t gpu_free = 0;

	start_ns = time_ns();
	cpu_any();			/* threads of the device stay where their creator was */
	if (gpu_look(bench.gpu, sizeof(bench.gpu), &gpu_free)) {
		rows_skip_part(PART_GPU, bench.gpu);
		if (bench.parts == PART_GPU)
			bench.rounds = 0;	/* of nothing */
		return;
	}
	set_amounts(gpu_free);
	gpu_peer_start();
	gpu_kernels_fork();
	visible_setup();
	gpu_kernels_setup();
	ready = !gpu_dev_open(text, sizeof(text)) && !plain_open(text, sizeof(text)) &&
		!plain_buffers(gpu_dev_host(), gpu_amounts.span, text, sizeof(text));
	if (!ready) {
		rows_skip_part(PART_GPU, text);
	} else {
		kvb_append(bench.gpu, sizeof(bench.gpu), ", %s; %llu MiB copied between",
			   gpu_dev_model(), (unsigned long long)gpu_amounts.span >> 20);
		gpu_infer_setup();
	}
	cpu_client();
}

void kvb_gpu_end(void)
{
	visible_end();
	gpu_infer_end();
	gpu_kernels_end();
	gpu_peer_end();
	plain_close();
	gpu_dev_close();
}

/* ------------------------------------------------------------ turns */

/* One thing in turn with others: the driver alone when it has no job. */
struct entry {
	struct gpu_job job[2];
	unsigned nr;			/* of jobs; 0: plain */
	unsigned ways;			/* plain's */
	double bps;			/* median slice; < 0: -errno */
};

static void turns(struct entry *e, unsigned nr)
{
	double v[16][GPU_SLICES];

	for (unsigned s = 0; s < GPU_SLICES; s++)
		for (unsigned i = 0; i < nr; i++)
			v[i][s] = interrupted ? -EINTR :
				  e[i].nr     ? gpu_rate(e[i].job, e[i].nr, gpu_amounts.slice_ns) :
						plain_rate(e[i].ways, gpu_amounts.slice_ns);
	for (unsigned i = 0; i < nr; i++) {
		e[i].bps = kvb_median(v[i], GPU_SLICES);	/* sorts: failures come first */
		if (v[i][0] < 0)
			e[i].bps = v[i][0];
	}
}

static void add(enum row_id r, const struct entry *floor, const struct entry *ours)
{
	if (floor->bps > 0 && ours->bps > 0)
		row_add(r, floor->bps / 1e9, ours->bps / 1e9);
	else
		rows_skip(r, strerror(floor->bps < 0 ? (int)-floor->bps :
				      ours->bps < 0 ? (int)-ours->bps : EIO));
}

/* ------------------------------------------------------------ copies */

static struct entry blocks(enum dev_way way, uint64_t block, unsigned per_batch, bool sums)
{
	return (struct entry) {
		.nr = 1,
		.job[0] = { .way = way, .block = block, .per_batch = per_batch, .sums = sums },
	};
}

static void one_way(enum dev_way way, enum row_id first, enum row_id alone, enum row_id sums,
		    enum row_id sums_64k)
{
	struct entry e[1 + NR_GPU_SIZES + 3];

	e[0] = (struct entry) { .ways = 1u << way };
	for (unsigned i = 0; i < NR_GPU_SIZES; i++)
		e[1 + i] = blocks(way, gpu_size[i], i ? 1 : BATCHED, false);
	e[6] = blocks(way, gpu_size[0], 1, false);
	e[7] = blocks(way, gpu_size[3], 1, true);
	e[8] = blocks(way, gpu_size[0], BATCHED, true);
	turns(e, ARRAY_SIZE(e));
	for (unsigned i = 0; i < NR_GPU_SIZES; i++)
		add((enum row_id)(first + i), &e[0], &e[1 + i]);
	add(alone, &e[0], &e[6]);
	add(sums, &e[4], &e[7]);
	add(sums_64k, &e[1], &e[8]);
}

static void both_ways(void)
{
	const uint64_t half = gpu_amounts.span / 2;
	struct entry e[2] = {
		{ .ways = 1u << DEV_OUT | 1u << DEV_IN },
		{ .nr = 2, .job = {
			{ .way = DEV_OUT, .block = 2 << 20, .per_batch = 1, .span = half },
			{ .way = DEV_IN, .block = 2 << 20, .per_batch = 1, .base = half,
			  .span = half },
		} },
	};

	turns(e, ARRAY_SIZE(e));
	add(ROW_BOTH_WAYS, &e[0], &e[1]);
}

/* Blocks of 4 MiB: in one piece, and in 64 planes. */
static void layouts(void)
{
	struct entry e[4], one, many;

	for (unsigned w = 0; w < 2; w++) {
		e[w] = blocks((enum dev_way)w, BATCHED * gpu_size[0], 1, false);
		e[2 + w] = blocks((enum dev_way)w, gpu_size[0], BATCHED, false);
		e[2 + w].job[0].planes = BATCHED;
	}
	turns(e, ARRAY_SIZE(e));
	one.bps = e[0].bps < 0 ? e[0].bps : e[1].bps < 0 ? e[1].bps : (e[0].bps + e[1].bps) / 2;
	many.bps = e[2].bps < 0 ? e[2].bps : e[3].bps < 0 ? e[3].bps : (e[2].bps + e[3].bps) / 2;
	add(ROW_LAYOUT, &many, &one);
}

/* ------------------------------------------------------------ slabs */

/* Bare calls; *ret_import: until another process has it, < 0: it has not. */
static double bare_slab(uint64_t bytes, double *ret_import)
{
	int fd = -1, again = -1;
	double ms = plain_slab(bytes, &fd);
	uint64_t t0 = time_ns();

	*ret_import = -1;
	if (ms > 0 && plain_export(&again) >= 0 && gpu_peer_import(again, bytes) >= 0)
		*ret_import = (double)(time_ns() - t0) / 1e6;
	plain_slab_free();
	if (fd >= 0)
		close(fd);
	if (again >= 0)
		close(again);
	return ms;
}

static void one_slab(unsigned i)
{
	static unsigned turn;
	double bare = 0, ours, import = -1;

	if (slab_bytes[i] * 2 > gpu_amounts.free_bytes - 3 * gpu_amounts.span) {
		rows_skip((enum row_id)(ROW_SLAB_CREATE + i), "not enough free memory on the GPU");
		rows_skip((enum row_id)(ROW_SLAB_IMPORT + i), "not enough free memory on the GPU");
		return;
	}
	/* Memory that was given back a moment ago may be had sooner: each is first in turn. */
	if (turn++ % 2)
		bare = bare_slab(slab_bytes[i], &import);
	ours = gpu_dev_slab(slab_bytes[i]);
	if (turn % 2)
		bare = bare_slab(slab_bytes[i], &import);
	if (bare > 0 && ours > 0)
		row_add((enum row_id)(ROW_SLAB_CREATE + i), bare, ours);
	else
		rows_skip((enum row_id)(ROW_SLAB_CREATE + i), "no slab could be made");
	if (import > 0)
		row_add((enum row_id)(ROW_SLAB_IMPORT + i), 0, import);
	else
		rows_skip((enum row_id)(ROW_SLAB_IMPORT + i),
			  "another process could not import it");
}

/* ------------------------------------------------------------ sharing */

static void visible(void)
{
	double v[2][GPU_SLICES];
	const char *why;

	for (unsigned s = 0; s < GPU_SLICES; s++)
		for (unsigned i = 0; i < 2; i++) {
			v[i][s] = visible_slice(i, &why);
			if (v[i][s] < 0) {
				rows_skip(ROW_VISIBLE, why);
				return;
			}
		}
	row_add(ROW_VISIBLE, kvb_median(v[0], GPU_SLICES), kvb_median(v[1], GPU_SLICES));
}

void kvb_gpu_round(void)
{
	if (!ready)
		return;
	if (time_ns() - start_ns > LIMIT_NS && bench.rounds > nr_rounds) {
		kvb_note("no more than %u rounds: they take long here", nr_rounds);
		bench.rounds = nr_rounds;	/* the loop over them ends */
		return;
	}
	nr_rounds++;
	cpu_any();
	one_way(DEV_OUT, ROW_D2H, ROW_D2H_ALONE, ROW_D2H_SUMS, ROW_D2H_64K_SUMS);
	one_way(DEV_IN, ROW_H2D, ROW_H2D_ALONE, ROW_H2D_SUMS, ROW_H2D_64K_SUMS);
	both_ways();
	layouts();
	for (unsigned i = 0; i < NR_SLABS && !interrupted; i++)
		one_slab(i);
	if (!interrupted)
		visible();
	if (!interrupted)
		gpu_kernels_round();
	if (!interrupted)
		gpu_infer_round();
	cpu_client();
}
