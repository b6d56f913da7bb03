// SPDX-License-Identifier: Apache-2.0
/*
 * gpu_infer.c - kvinfer's first token on the GPU, warm beside cold.
 */
#include "tools/kvbench/gpu.h"

#include "tools/kvbench/infer.h"

#define MAX_PAIRS	3u		/* each loads a model twice */

static const struct infer_opts whole = {
	.name = "ginfer", .kind = "cuda", .device = "cuda",
	.model = "dim=1024,layers=8,heads=16,kv_heads=4,ffn=2816,vocab=256,max_tokens=16384",
	.vocab = 256, .prefix = 10240, .question = 32, .chunk = 128, .pool_bytes = 512ull << 20,
};
/* Where the processor is the GPU, or nothing has to be known. */
static const struct infer_opts small = {
	.name = "ginfer", .kind = "cuda", .device = "cuda",
	.model = "dim=64,layers=2,heads=4,kv_heads=2,ffn=128,vocab=256,max_tokens=1024",
	.vocab = 256, .prefix = 256, .question = 16, .chunk = 32, .pool_bytes = 32ull << 20,
};

static const struct infer_opts *opts;
static struct kvmd_proc pool;
static unsigned nr_pairs;
static char why[300];

void gpu_infer_setup(void)
{
	char text[300] = "";

	opts = bench.quick || strstr(bench.gpu, "fake driver") ? &small : &whole;
	if (infer_open(opts, &pool, text, sizeof(text), why, sizeof(why))) {
		rows_skip(ROW_GPU_TTFT, why);
		opts = NULL;
	}
	kvb_append(bench.gpu, sizeof(bench.gpu), "; %s", text);
}

void gpu_infer_round(void)
{
	double cold, warm;

	if (!opts || nr_pairs == MAX_PAIRS)
		return;
	if (infer_pair(opts, &pool, &cold, &warm, why, sizeof(why))) {
		rows_skip(ROW_GPU_TTFT, why);
		opts = NULL;
		return;
	}
	row_add(ROW_GPU_TTFT, cold, warm);
	nr_pairs++;
}

void gpu_infer_end(void)
{
	kvmd_end(&pool);
}
