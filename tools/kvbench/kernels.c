// SPDX-License-Identifier: Apache-2.0
/*
 * kernels.c - part "kernels": attention on the processor, over blocks of a daemon's pool
 * beside the same over memory of this process alone.
 *
 * One thread. What is counted are the bytes of K and V.
 */
#include <sys/mman.h>

#include "tools/kvbench/on_dev.h"

#define SLAB	(8ull << 20)

static struct kvmd_proc pool;
static struct attend attend;
static struct kn_dev *cpu;
static void *mem;
static size_t mem_bytes;
static char why[300];

void kvb_kernels_setup(void)
{
	const struct attend_shape s = {
		.seqs = bench.quick ? 2 : 4, .tokens = bench.quick ? 256 : 2048, .layers = 4,
		.q_heads = 32, .kv_heads = 8, .head_dim = 128,
	};
	char conf[200];
	struct kvmd_opts o = { .name = "attend", .conf = conf };

	mem_bytes = attend_slots(&s) * attend_block_bytes(&s);
	snprintf(conf, sizeof(conf), "[pool]\nblocks = %u\nslab_bytes = %llu\n"
		 "[device d]\nkind = host\nbytes = %llu\n", attend_slots(&s) + 64,
		 (unsigned long long)SLAB,
		 (unsigned long long)(mem_bytes + 2 * SLAB));
	o.blocks = attend_slots(&s) - 1;
	o.plane_bytes = attend_block_bytes(&s);
	kvmd_start(&pool, &o);
	mem = mmap(NULL, mem_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED || kn_cpu_open(&cpu))
		kvb_die("no memory for part kernels");
	if (attend_open(&attend, cpu, &s, mem, &pool, why, sizeof(why)))
		kvb_die("part kernels: %s", why);
	if (attend_same(&attend, ATTEND_POOL))
		kvb_die("part kernels: attention over the pool's blocks makes other values");
	snprintf(bench.kernels, sizeof(bench.kernels), "%u sequences of %u tokens, %u heads over "
		 "%u of %u values, bf16, %u layers, one thread", s.seqs, s.tokens, s.q_heads,
		 s.kv_heads, s.head_dim, s.layers);
	kvmd_pause(&pool);
}

void kvb_kernels_round(void)
{
	const double bytes = (double)attend_bytes(&attend.s) / 1e9;
	struct attend_run run[] = { { &attend, ATTEND_PRIVATE }, { &attend, ATTEND_POOL },
				    { &attend, ATTEND_LAYERS }, { &attend, ATTEND_PRIVATE } };
	struct launch l[ARRAY_SIZE(run)];

	for (unsigned i = 0; i < ARRAY_SIZE(run); i++)
		l[i] = (struct launch) { attend_launch, &run[i], 0 };
	/* In pairs: neither finds more of its memory in a cache than the other. */
	if (launch_turns(cpu, l, 2, bench.slice_ns) || launch_turns(cpu, l + 2, 2, bench.slice_ns))
		return;				/* interrupted */
	row_add(ROW_CPU_ATTEND, bytes / l[0].s, bytes / l[1].s);
	row_add(ROW_CPU_BLOCKS, bytes / l[2].s, bytes / l[3].s);
}

void kvb_kernels_end(void)
{
	kvmd_go(&pool);
	attend_close(&attend);
	kn_close(cpu);
	munmap(mem, mem_bytes);
	kvmd_end(&pool);
}
