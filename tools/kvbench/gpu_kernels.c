// SPDX-License-Identifier: Apache-2.0
/*
 * gpu_kernels.c - attention and codecs on the GPU, in a process of its own: a kernel that
 * fails takes its context with it, and nothing else of what is measured.
 *
 * Memory of the pool, private memory and what codecs take are made once, as large as
 * there is room for; each round goes over them in turn.
 */
#include "tools/kvbench/gpu.h"

#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tools/kvbench/on_dev.h"

#define LIMIT_MS	120000
#define SLAB		(64ull << 20)
#define LAYERS		32u		/* of the blocks that are compared with planes */
#define CODED_BYTES	(256ull << 20)

#define FIRST		ROW_GPU_ATTEND
#define NR_ROWS		(ROW_GPU_TTFT - FIRST)

/* Shared with the child. */
struct stage {
	uint64_t go;			/* rounds asked for */
	bool has_pool;
	char pool_why[200];		/* why not */
	char about[300];
	struct {
		double floor, ours;	/* ours 0: no value */
		char why[200];
	} row[NR_ROWS];
};

static struct stage *st;
static pid_t child;
static int from_child = -1;
static struct kvmd_proc pool;
static char child_why[200];

/* ------------------------------------------------------------ sizes */

/* Decode's: halved, first the layers, until the pool takes a sixth of what is free. */
static struct attend_shape decode_shape(uint64_t bytes)
{
	struct attend_shape s = {
		.seqs = 64, .tokens = 8192, .layers = 4, .q_heads = 32, .kv_heads = 8,
		.head_dim = 128,
	};
	const uint64_t most = bench.quick ? 4ull << 20 : bytes / 6;

	while (attend_slots(&s) * attend_block_bytes(&s) > most && s.layers > 1)
		s.layers /= 2;
	while (attend_slots(&s) * attend_block_bytes(&s) > most && s.seqs > 4)
		s.seqs /= 2;
	while (attend_slots(&s) * attend_block_bytes(&s) > most && s.tokens > 256)
		s.tokens /= 2;
	return s;
}

/* Blocks of many layers in as much memory. */
static struct attend_shape layout_shape(const struct attend_shape *s, uint64_t bytes)
{
	struct attend_shape l = *s;

	l.layers = LAYERS;
	while (attend_slots(&l) * attend_block_bytes(&l) > bytes && l.seqs > 1)
		l.seqs /= 2;
	while (attend_slots(&l) * attend_block_bytes(&l) > bytes && l.tokens > BENCH_TOKENS)
		l.tokens /= 2;
	while (attend_slots(&l) * attend_block_bytes(&l) > bytes && l.layers > 2)
		l.layers /= 2;
	return l;
}

/* ------------------------------------------------------------ the child */

static struct kn_dev *gpu;
static struct attend decode, layout;
static struct coding coding;
static void *mem;
static uint64_t mem_bytes;
static char why_decode[200], why_layout[200], why_coding[200];

static void none(enum row_id first, unsigned nr, const char *why)
{
	for (unsigned i = 0; i < nr; i++) {
		st->row[first - FIRST + i].ours = 0;
		snprintf(st->row[first - FIRST + i].why, sizeof(st->row[0].why), "%s", why);
	}
}

static void value(enum row_id r, double floor, double ours)
{
	st->row[r - FIRST].floor = floor;
	st->row[r - FIRST].ours = ours;
}

/* Half of the private memory to the other half. */
static int copy_launch(void *ctx)
{
	(void)ctx;
	return kn_copy(gpu, (char *)mem + mem_bytes / 2, mem, mem_bytes / 2);
}

static double copy_rate(const struct launch *l)
{
	return 2 * (double)(mem_bytes / 2) / 1e9 / l->s;
}

static void open_decode(const struct attend_shape *s)
{
	if (!st->has_pool)
		snprintf(why_decode, sizeof(why_decode), "%s", st->pool_why);
	else if (attend_open(&decode, gpu, s, mem, &pool, why_decode, sizeof(why_decode)))
		attend_close(&decode);
	else if (attend_same(&decode, ATTEND_POOL))
		snprintf(why_decode, sizeof(why_decode),
			 "attention over the pool's blocks makes other values%s%s",
			 kn_error(gpu)[0] ? ": " : "", kn_error(gpu));
}

/* What there is; without anything all rows have @why. */
static void open_all(void)
{
	const struct attend_shape s = decode_shape(gpu_amounts.free_bytes);
	struct attend_shape l;
	char why[200];

	if (kn_cuda_open(0, &gpu, why, sizeof(why))) {
		none(FIRST, NR_ROWS, why);
		gpu = NULL;
		return;
	}
	mem_bytes = attend_slots(&s) * attend_block_bytes(&s);
	mem = kn_alloc(gpu, mem_bytes);
	if (!mem) {
		none(FIRST, NR_ROWS, "not enough free memory on the GPU");
		kn_close(gpu);
		gpu = NULL;
		return;
	}
	l = layout_shape(&s, mem_bytes);
	open_decode(&s);
	if (attend_open(&layout, gpu, &l, mem, NULL, why_layout, sizeof(why_layout)))
		attend_close(&layout);
	if (coding_open(&coding, gpu, bench.quick ? 1 << 20 : min(CODED_BYTES, mem_bytes / 8),
			why_coding, sizeof(why_coding)))
		coding_close(&coding);
	snprintf(st->about, sizeof(st->about), "attention: %u sequences of %u tokens, %u heads "
		 "over %u of %u values, bf16, %u layers%s; blocks beside planes: %u sequences of "
		 "%u tokens, %u layers; codecs: %u MiB", s.seqs, s.tokens, s.q_heads, s.kv_heads, s.head_dim,
		 s.layers, s.seqs == 64 && s.tokens == 8192 ? "" : bench.quick ? " (quick)" :
		 " (no memory for 64 of 8192)", l.seqs, l.tokens, l.layers, coding.parts / 32);
}

static void measure_decode(uint64_t slice_ns)
{
	const double bytes = (double)attend_bytes(&decode.s) / 1e9;
	struct attend_run run[3] = { { &decode, ATTEND_PRIVATE }, { &decode, ATTEND_POOL },
				     { &decode, ATTEND_POOL_ROWS } };
	struct launch pair[2] = { { attend_launch, &run[0], 0 }, { attend_launch, &run[1], 0 } };
	struct launch l[3] = { { copy_launch, NULL, 0 }, pair[1], { attend_launch, &run[2], 0 } };

	/* The two alone: neither finds more of its memory in a cache than the other. */
	if (why_decode[0] || launch_turns(gpu, pair, 2, slice_ns) ||
	    launch_turns(gpu, l, decode.rows ? 3 : 2, slice_ns)) {
		none(ROW_GPU_ATTEND, 3, why_decode[0] ? why_decode : kn_error(gpu));
		return;
	}
	value(ROW_GPU_ATTEND, bytes / pair[0].s, bytes / pair[1].s);
	value(ROW_GPU_DECODE, copy_rate(&l[0]), bytes / l[1].s);
	if (decode.rows)
		value(ROW_GPU_ROWS, bytes / l[1].s, bytes / l[2].s);
	else
		none(ROW_GPU_ROWS, 1, "the GPU cannot read memory that this process may not write");
}

static void measure_layout(uint64_t slice_ns)
{
	const double bytes = (double)attend_bytes(&layout.s) / 1e9;
	struct attend_run run[2] = { { &layout, ATTEND_LAYERS }, { &layout, ATTEND_PRIVATE } };
	struct launch l[2] = { { attend_launch, &run[0], 0 }, { attend_launch, &run[1], 0 } };

	if (why_layout[0] || launch_turns(gpu, l, 2, slice_ns))
		none(ROW_GPU_BLOCKS, 1, why_layout[0] ? why_layout : kn_error(gpu));
	else
		value(ROW_GPU_BLOCKS, bytes / l[0].s, bytes / l[1].s);
}

static void measure_coding(uint64_t slice_ns)
{
	struct launch l[1 + 2 * NR_CODED] = { { copy_launch, NULL, 0 } };

	for (unsigned i = 0; i < NR_CODED; i++) {
		l[1 + i] = (struct launch) { encode_launch, &coding.of[i], 0 };
		l[1 + NR_CODED + i] = (struct launch) { decode_launch, &coding.of[i], 0 };
	}
	if (why_coding[0] || launch_turns(gpu, l, ARRAY_SIZE(l), slice_ns)) {
		none(ROW_GPU_ENCODE_WINDOW, 2 * NR_CODED,
		     why_coding[0] ? why_coding : kn_error(gpu));
		return;
	}
	for (unsigned i = 0; i < 2 * NR_CODED; i++)
		value((enum row_id)(ROW_GPU_ENCODE_WINDOW + i), copy_rate(&l[0]),
		      (double)coding.of[i % NR_CODED].moved / 1e9 / l[1 + i].s);
}

static void __attribute__((noreturn)) serve(int to)
{
	cpu_any();
	/* It ends with its parent. */
	for (uint64_t round = 1;; round++) {
		while (ld_acq(&st->go) < round)
			usleep(1000);
		if (round == 1)
			open_all();
		if (gpu) {
			measure_decode(gpu_amounts.slice_ns);
			measure_layout(gpu_amounts.slice_ns);
			measure_coding(gpu_amounts.slice_ns);
		}
		if (write(to, "x", 1) != 1)
			_exit(0);
	}
}

/* ------------------------------------------------------------ the parent */

static char conf[200];

static struct kvmd_opts pool_opts(void)
{
	const struct attend_shape s = decode_shape(gpu_amounts.free_bytes);
	const uint64_t slab = bench.quick ? 2ull << 20 : SLAB;

	snprintf(conf, sizeof(conf), "[pool]\nblocks = %u\nslab_bytes = %llu\n"
		 "[device d]\nkind = cuda\nbytes = %llu\n", attend_slots(&s) + 64,
		 (unsigned long long)slab,
		 (unsigned long long)(attend_slots(&s) * attend_block_bytes(&s) + 2 * slab));
	return (struct kvmd_opts) {
		.name = "attend", .blocks = attend_slots(&s) - 1,
		.plane_bytes = attend_block_bytes(&s), .conf = conf, .anywhere = true,
	};
}

void gpu_kernels_fork(void)
{
	const struct kvmd_opts o = pool_opts();
	int p[2];

	kvmd_prepare(&pool, &o);
	st = (struct stage *)mmap(NULL, sizeof(*st), PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (st == MAP_FAILED || pipe(p))
		kvb_die("no memory");
	child = kvb_spawn();
	if (!child) {
		close(p[0]);
		serve(p[1]);
	}
	close(p[1]);
	from_child = p[0];
}

void gpu_kernels_setup(void)
{
	const struct kvmd_opts o = pool_opts();

	st->has_pool = !kvmd_try_start(&pool, &o, st->pool_why, sizeof(st->pool_why));
}

/* What the child's rows became. */
static void take_rows(void)
{
	for (unsigned i = 0; i < NR_ROWS; i++) {
		if (st->row[i].ours > 0)
			row_add((enum row_id)(FIRST + i), st->row[i].floor, st->row[i].ours);
		else
			rows_skip((enum row_id)(FIRST + i), st->row[i].why);
	}
}

void gpu_kernels_round(void)
{
	struct pollfd f = { .fd = from_child, .events = POLLIN };
	const bool first = !st->go;
	char c;

	if (from_child < 0)
		return;
	st_rel(&st->go, st->go + 1);
	if (poll(&f, 1, LIMIT_MS) == 1 && read(from_child, &c, 1) == 1) {
		take_rows();
		if (first && st->about[0])
			kvb_append(bench.gpu, sizeof(bench.gpu), "; %s", st->about);
		return;
	}
	snprintf(child_why, sizeof(child_why), "the process that measures kernels %s",
		 f.revents ? "ended" : "takes too long");
	for (unsigned i = 0; i < NR_ROWS; i++)
		rows_skip((enum row_id)(FIRST + i), child_why);
	close(from_child);
	from_child = -1;
}

void gpu_kernels_end(void)
{
	if (child)
		kvb_reap(child, SIGKILL);
	child = 0;
	kvmd_end(&pool);
}
