/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rows.h - rows of the result. Part of kvbench.h.
 *
 * A row has up to three columns: the floor (or what stands beside it), ours,
 * and the ratio of the two, each a value per round.
 */
#ifndef KVBENCH_ROWS_H
#define KVBENCH_ROWS_H

#include <stdbool.h>

enum part {
	PART_RING	= 1 << 0,
	PART_OPS	= 1 << 1,
	PART_WAKE	= 1 << 2,
	PART_IDLE	= 1 << 3,
	PART_HASH	= 1 << 4,
	PART_PEERS	= 1 << 5,
	PART_BIG	= 1 << 6,
	PART_TIER	= 1 << 7,
	PART_GPU	= 1 << 8,
	PART_CODEC	= 1 << 9,
	PART_KERNELS	= 1 << 10,
	PART_INFER	= 1 << 11,
};

enum row_id {
	ROW_NOP, ROW_PHASE, ROW_BATCH, ROW_PIPE,
	ROW_OPEN100, ROW_OPEN1000, ROW_MISS100, ROW_CLOSE100, ROW_LOOKUP100,
	ROW_ALLOC1, ROW_ALLOC256, ROW_PUBLISH100, ROW_OPEN_NOP, ROW_PUBLISH_NOP, ROW_OPEN_SYNC,
	ROW_WAKE20, ROW_WAKE100, ROW_WAKE, ROW_ADAPT, ROW_ADAPT_CPU, ROW_SEND,
	ROW_SYSCALLS, ROW_WAIT_SYSCALLS, ROW_IDLE, ROW_IDLE_WAKEUPS,
	ROW_UNIX, ROW_ZMQ,
	ROW_HASH, ROW_HASH_PY, ROW_HASH_PICKLE, ROW_EXTEND_CHAIN,
	ROW_META, ROW_RSS, ROW_START, ROW_COLD,
	/* in threes: blocks of 256 KiB, 512 KiB, 2 MiB */
	ROW_DISK_WRITE, ROW_DISK_WRITE_512K, ROW_DISK_WRITE_2M,
	ROW_DISK_READ, ROW_DISK_READ_512K, ROW_DISK_READ_2M,
	ROW_DISK_WRITE_MIN, ROW_DISK_READ_MIN, ROW_DISK_WRITE_QD8, ROW_DISK_READ_QD8,
	ROW_TIER_WRITE, ROW_TIER_WRITE_512K, ROW_TIER_WRITE_2M,
	ROW_TIER_READ, ROW_TIER_READ_512K, ROW_TIER_READ_2M,
	ROW_TIER_MIX, ROW_TIER_MIX_WRITE,
	ROW_CPU_WRITE, ROW_CPU_READ, ROW_CPU_VERIFY,
	ROW_RAM_COPY, ROW_RAM_MEMCPY, ROW_RAM_SUM,
	ROW_NOP_TIER, ROW_NOP_TRAFFIC,
	ROW_RECOVER, ROW_RECOVER_WALL, ROW_RECOVER_OPEN,
	ROW_POOL_TOUCH, ROW_ATTACH,
	/* in fives: blocks of 64 KiB, 256 KiB, 1 MiB, 2 MiB, 4 MiB */
	ROW_D2H, ROW_D2H_256K, ROW_D2H_1M, ROW_D2H_2M, ROW_D2H_4M,
	ROW_H2D, ROW_H2D_256K, ROW_H2D_1M, ROW_H2D_2M, ROW_H2D_4M,
	ROW_D2H_ALONE, ROW_H2D_ALONE, ROW_BOTH_WAYS,
	ROW_D2H_SUMS, ROW_H2D_SUMS, ROW_D2H_64K_SUMS, ROW_H2D_64K_SUMS,
	ROW_LAYOUT,
	/* in threes: 64 MiB, 256 MiB, 1 GiB */
	ROW_SLAB_CREATE, ROW_SLAB_CREATE_256M, ROW_SLAB_CREATE_1G,
	ROW_SLAB_IMPORT, ROW_SLAB_IMPORT_256M, ROW_SLAB_IMPORT_1G,
	ROW_VISIBLE,
	ROW_GPU_ATTEND, ROW_GPU_ROWS, ROW_GPU_DECODE, ROW_GPU_BLOCKS,
	/* in sixes: kvmd_codec_id, from WINDOW on */
	ROW_GPU_ENCODE_WINDOW, ROW_GPU_ENCODE_E4M3, ROW_GPU_ENCODE_E5M2, ROW_GPU_ENCODE_INT8,
	ROW_GPU_ENCODE_INT4, ROW_GPU_ENCODE_KIVI2,
	ROW_GPU_DECODE_WINDOW, ROW_GPU_DECODE_E4M3, ROW_GPU_DECODE_E5M2, ROW_GPU_DECODE_INT8,
	ROW_GPU_DECODE_INT4, ROW_GPU_DECODE_KIVI2,
	ROW_GPU_TTFT,
	/* in threes: part codec's table */
	ROW_WINDOW_ENCODE, ROW_WINDOW_DECODE, ROW_WINDOW_RATIO,
	ROW_E4M3_ENCODE, ROW_E4M3_DECODE, ROW_E4M3_RATIO,
	ROW_E5M2_ENCODE, ROW_E5M2_DECODE, ROW_E5M2_RATIO,
	ROW_INT8_ENCODE, ROW_INT8_DECODE, ROW_INT8_RATIO,
	ROW_INT4_ENCODE, ROW_INT4_DECODE, ROW_INT4_RATIO,
	ROW_KIVI2_ENCODE, ROW_KIVI2_DECODE, ROW_KIVI2_RATIO,
	ROW_KIVI2_KEYS_ENCODE, ROW_KIVI2_KEYS_DECODE, ROW_KIVI2_KEYS_RATIO,
	ROW_CPU_ATTEND, ROW_CPU_BLOCKS, ROW_TTFT,
	NR_ROW
};

/* One round's pair; @floor 0: this row has none. */
void row_add(enum row_id r, double floor, double ours);
void rows_print_text(void);
int rows_print_json(double calib, unsigned dropped, unsigned noisy);
void rows_skip(enum row_id r, const char *why);	/* why it has no values */
void rows_skip_part(enum part part, const char *why);

/* ------------------------------------------------------------ rows_table.c */

enum goal {
	GOAL_NONE,
	GOAL_RATIO_MAX,		/* ratio at most must / aim */
	GOAL_RATIO_MIN,		/* ratio at least */
	GOAL_OURS_MAX,		/* our figure at most */
	GOAL_OURS_MIN,		/* our figure at least */
};

struct row_def {
	enum part part;
	const char *what;
	const char *unit;	/* "ns", "M/s", ... */
	const char *floor;	/* what the floor is; NULL: none */
	const char *floor_key, *ours_key, *ratio_key;	/* JSON; NULL: not there */
	enum goal goal;
	double must, aim;	/* aim 0: as must */
	bool inverse;		/* ratio = floor / ours */
};

extern const struct row_def row_defs[NR_ROW];

#endif
