/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rows.c - what is measured, in one table, and how it is shown.
 *
 * A row has up to three columns: the floor (or what stands beside it), ours,
 * and the ratio of the two, each a value per round. The table names the JSON
 * key of each column that has one, the goal, and what the goal is about.
 */
#include <stdlib.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "kvmd/lib/json.h"
#include "tools/kvbench/kvbench.h"

#define MAX_ROUNDS	1000
#define KEY_BYTES	64

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

static const struct row_def defs[NR_ROW] = {
	[ROW_NOP] = { PART_RING, "NOP round trip", "ns", "bare ring echo",
		"echo_rtt_ns", "nop_rtt_ns", "nop_rtt_over_echo", GOAL_RATIO_MAX, 1.5, 1.15, false },
	[ROW_PHASE] = { PART_RING, "NOP round trip", "ns", "echo, sequence in the entry",
		"phase_rtt_ns", NULL, "nop_rtt_over_phase", GOAL_NONE, 0, 0, false },
	[ROW_BATCH] = { PART_RING, "NOPs, batch 32, depth 256", "M/s", "bare ring echo, the same",
		"echo32_mops_per_s", "batch32_mops_per_s", "batch32_over_echo",
		GOAL_RATIO_MIN, 0.35, 0.60, false },
	[ROW_PIPE] = { PART_RING, "NOPs one by one, depth 32", "M/s", "better of the two echoes",
		"echo_pipe_mops_per_s", "pipe_mops_per_s", "pipe_over_echo",
		GOAL_RATIO_MIN, 0.60, 1.0, false },
	[ROW_OPEN100] = { PART_OPS, "open, 100 blocks hit", "ns", "echo + bare arrays",
		"open100_floor_ns", "open100_ns", "open100_over_floor",
		GOAL_RATIO_MAX, 2.0, 1.4, false },
	[ROW_OPEN1000] = { PART_OPS, "open, 1000 blocks hit", "ns", "echo + bare arrays",
		"open1000_floor_ns", "open1000_ns", "open1000_over_floor",
		GOAL_RATIO_MAX, 2.0, 1.4, false },
	[ROW_MISS100] = { PART_OPS, "open, 99 hit, the last misses", "ns", "echo + bare arrays",
		"open_miss_floor_ns", "open_miss_ns", "open_miss_over_floor",
		GOAL_NONE, 0, 0, false },
	[ROW_CLOSE100] = { PART_OPS, "close, 100 blocks", "ns", "echo + bare arrays",
		"close100_floor_ns", "close100_ns", "close100_over_floor",
		GOAL_NONE, 0, 0, false },
	[ROW_LOOKUP100] = { PART_OPS, "lookup, 100 blocks, no lease", "ns", "echo + bare arrays",
		"lookup100_floor_ns", "lookup100_ns", "lookup100_over_floor",
		GOAL_NONE, 0, 0, false },
	[ROW_ALLOC1] = { PART_OPS, "extend by 1 block", "ns", "echo + bare arrays",
		"alloc1_floor_ns", "alloc1_ns", "alloc1_over_floor", GOAL_NONE, 0, 0, false },
	[ROW_ALLOC256] = { PART_OPS, "extend by 256 blocks", "ns", "echo + bare arrays",
		"alloc256_floor_ns", "alloc256_ns", "alloc256_over_floor",
		GOAL_RATIO_MAX, 2.0, 1.4, false },
	[ROW_PUBLISH100] = { PART_OPS, "publish 100 blocks", "ns", "echo + bare arrays",
		"publish100_floor_ns", "publish100_ns", "publish100_over_floor",
		GOAL_RATIO_MAX, 2.0, 1.4, false },
	[ROW_OPEN_NOP] = { PART_OPS, "open 100, and a NOP behind it", "ns", "2 echoes + bare arrays",
		"open100_nop_floor_ns", "open100_nop_ns", "open100_nop_over_floor",
		GOAL_NONE, 0, 0, false },
	[ROW_PUBLISH_NOP] = { PART_OPS, "publish 100, and a NOP behind it", "ns",
		"2 echoes + bare arrays", "publish100_nop_floor_ns", "publish100_nop_ns",
		"publish100_nop_over_floor", GOAL_NONE, 0, 0, false },
	[ROW_OPEN_SYNC] = { PART_OPS, "kvc_seq_open(), 100 blocks", "ns", "the row above, keys ready",
		NULL, "open100_sync_ns", NULL, GOAL_NONE, 0, 0, false },
	[ROW_WAKE20] = { PART_WAKE, "wake, 20 us apart, p50", "ns", "futex doorbell",
		"futex_wake20_ns", "wake20_ns", "wake20_over_futex", GOAL_NONE, 0, 0, false },
	[ROW_WAKE100] = { PART_WAKE, "wake, 100 us apart, p50", "ns", "futex doorbell",
		"futex_wake100_ns", "wake100_ns", "wake100_over_futex", GOAL_NONE, 0, 0, false },
	[ROW_WAKE] = { PART_WAKE, "wake, mean of the two", "ns", "futex doorbell",
		NULL, NULL, "wake_over_futex", GOAL_RATIO_MAX, 1.25, 0, false },
	[ROW_ADAPT] = { PART_WAKE, "NOP, 10 us apart, adaptive, p50", "ns", "doorbell never asleep",
		"awake_rtt_ns", "adaptive_rtt_ns", "adaptive_rtt_over_awake",
		GOAL_RATIO_MAX, 1.3, 0, false },
	[ROW_ADAPT_CPU] = { PART_WAKE, "server CPU, 1 ms apart, adaptive", "ns per request",
		"futex doorbell, no spin", "futex_cpu_ns", "adaptive_cpu_ns",
		"adaptive_cpu_over_futex", GOAL_RATIO_MAX, 2.0, 0, false },
	[ROW_SEND] = { PART_WAKE, "send to an awake daemon, p50", "ns", "doorbell send",
		"doorbell_send_ns", "send_ns", "send_over_doorbell", GOAL_RATIO_MAX, 1.5, 0, false },
	[ROW_SYSCALLS] = { PART_WAKE, "system calls of 1000 sends", "calls", NULL,
		NULL, "send_syscalls", NULL, GOAL_OURS_MAX, 0, 0, false },
	[ROW_WAIT_SYSCALLS] = { PART_WAKE, "... and of their waits", "calls", NULL,
		NULL, "wait_syscalls", NULL, GOAL_NONE, 0, 0, false },
	[ROW_IDLE] = { PART_IDLE, "8 idle clients: CPU of 10 s", "ticks", NULL,
		NULL, "idle_cpu_ticks_10s", NULL, GOAL_OURS_MAX, 1, 0, false },
	[ROW_IDLE_WAKEUPS] = { PART_IDLE, "8 idle clients: wake-ups", "per s", NULL,
		NULL, "idle_wakeups_per_s", NULL, GOAL_OURS_MAX, 10, 0, false },
	[ROW_UNIX] = { PART_PEERS, "NOP beside a Unix socket", "ns", "SEQPACKET round trip",
		"unix_rtt_ns", NULL, "unix_over_nop", GOAL_NONE, 0, 0, true },
	[ROW_ZMQ] = { PART_PEERS, "NOP beside ZeroMQ", "ns", "REQ/REP over ipc://",
		"zmq_rtt_ns", NULL, "zmq_over_nop", GOAL_RATIO_MIN, 40, 0, true },
	[ROW_HASH] = { PART_HASH, "key of a block of 16 tokens", "ns", "SHA-256 of 96 bytes",
		"sha256_ns", "hash_ns", "hash_over_sha256", GOAL_RATIO_MAX, 1.2, 0, false },
	[ROW_HASH_PY] = { PART_HASH, "key of a block of 16 tokens", "ns", "vLLM's steps, Python",
		"python_hash_ns", NULL, "python_over_hash", GOAL_RATIO_MIN, 15, 0, true },
	[ROW_HASH_PICKLE] = { PART_HASH, "key of a block of 16 tokens", "ns",
		"Python sha256(pickle) alone", "python_pickle_ns", NULL, "pickle_over_hash",
		GOAL_NONE, 0, 0, true },
	[ROW_EXTEND_CHAIN] = { PART_HASH, "100 known blocks, 1 new: keys", "ns", "keys of 101 blocks",
		"chain101_ns", "chain_extend_ns", "chain_extend_speedup", GOAL_NONE, 0, 0, true },
	[ROW_META] = { PART_BIG, "metadata of a block", "bytes", NULL,
		NULL, "metadata_bytes_per_block", NULL, GOAL_OURS_MAX, 128, 0, false },
	[ROW_RSS] = { PART_BIG, "memory of a block, ghosts and all", "bytes", NULL,
		NULL, "rss_bytes_per_block", NULL, GOAL_NONE, 0, 0, false },
	[ROW_START] = { PART_BIG, "start of that pool", "ms", NULL,
		NULL, "start_ms", NULL, GOAL_OURS_MAX, 2000, 0, false },
	[ROW_COLD] = { PART_BIG, "lookup 100 cold blocks", "ns", "echo + cold arrays",
		"cold_lookup_floor_ns", "cold_lookup_ns", "cold_lookup_over_floor",
		GOAL_RATIO_MAX, 2.0, 0, false },
	[ROW_DISK_WRITE] = { PART_TIER, "daemon: disk write, blocks of 256 KiB", "GB/s",
		"fio, fixed buffers and files, best depth", "fio_write_256k_gb_per_s",
		"disk_write_256k_gb_per_s", "disk_write_256k_over_fio", GOAL_RATIO_MIN, 0.95, 0, false },
	[ROW_DISK_WRITE_512K] = { PART_TIER, "daemon: disk write, blocks of 512 KiB", "GB/s",
		"fio, fixed buffers and files, best depth", "fio_write_512k_gb_per_s",
		"disk_write_512k_gb_per_s", "disk_write_512k_over_fio", GOAL_RATIO_MIN, 0.95, 0, false },
	[ROW_DISK_WRITE_2M] = { PART_TIER, "daemon: disk write, blocks of 2 MiB", "GB/s",
		"fio, fixed buffers and files, best depth", "fio_write_2m_gb_per_s",
		"disk_write_2m_gb_per_s", "disk_write_2m_over_fio", GOAL_RATIO_MIN, 0.95, 0, false },
	[ROW_DISK_READ] = { PART_TIER, "daemon: disk read, blocks of 256 KiB", "GB/s",
		"fio, fixed buffers and files, best depth", "fio_read_256k_gb_per_s",
		"disk_read_256k_gb_per_s", "disk_read_256k_over_fio", GOAL_RATIO_MIN, 0.95, 0, false },
	[ROW_DISK_READ_512K] = { PART_TIER, "daemon: disk read, blocks of 512 KiB", "GB/s",
		"fio, fixed buffers and files, best depth", "fio_read_512k_gb_per_s",
		"disk_read_512k_gb_per_s", "disk_read_512k_over_fio", GOAL_RATIO_MIN, 0.95, 0, false },
	[ROW_DISK_READ_2M] = { PART_TIER, "daemon: disk read, blocks of 2 MiB", "GB/s",
		"fio, fixed buffers and files, best depth", "fio_read_2m_gb_per_s",
		"disk_read_2m_gb_per_s", "disk_read_2m_over_fio", GOAL_RATIO_MIN, 0.95, 0, false },
	[ROW_DISK_WRITE_MIN] = { PART_TIER, "... the worst of the three", "GB/s",
		"fio, the same block", NULL, NULL, "disk_write_over_fio",
		GOAL_RATIO_MIN, 0.95, 0, false },
	[ROW_DISK_READ_MIN] = { PART_TIER, "... the worst of the three", "GB/s",
		"fio, the same block", NULL, NULL, "disk_read_over_fio",
		GOAL_RATIO_MIN, 0.95, 0, false },
	[ROW_DISK_WRITE_QD8] = { PART_TIER, "... write of 2 MiB, split", "GB/s",
		"fio, plain 2 MiB at depth 8", "fio_write_2m_qd8_gb_per_s", NULL,
		"disk_write_2m_over_fio_qd8", GOAL_RATIO_MIN, 1.1, 0, false },
	[ROW_DISK_READ_QD8] = { PART_TIER, "... read of 2 MiB, split", "GB/s",
		"fio, plain 2 MiB at depth 8", "fio_read_2m_qd8_gb_per_s", NULL,
		"disk_read_2m_over_fio_qd8", GOAL_RATIO_MIN, 1.1, 0, false },
	[ROW_TIER_WRITE] = { PART_TIER, "disk tier alone: write, 256 KiB", "GB/s",
		"fio, fixed buffers and files, best depth", NULL, "tier_write_256k_gb_per_s",
		"tier_write_256k_over_fio", GOAL_RATIO_MIN, 0.95, 0, false },
	[ROW_TIER_WRITE_512K] = { PART_TIER, "disk tier alone: write, 512 KiB", "GB/s",
		"fio, fixed buffers and files, best depth", NULL, "tier_write_512k_gb_per_s",
		"tier_write_512k_over_fio", GOAL_RATIO_MIN, 0.95, 0, false },
	[ROW_TIER_WRITE_2M] = { PART_TIER, "disk tier alone: write, 2 MiB", "GB/s",
		"fio, fixed buffers and files, best depth", NULL, "tier_write_2m_gb_per_s",
		"tier_write_2m_over_fio", GOAL_RATIO_MIN, 0.95, 0, false },
	[ROW_TIER_READ] = { PART_TIER, "disk tier alone: read, 256 KiB", "GB/s",
		"fio, fixed buffers and files, best depth", NULL, "tier_read_256k_gb_per_s",
		"tier_read_256k_over_fio", GOAL_RATIO_MIN, 0.95, 0, false },
	[ROW_TIER_READ_512K] = { PART_TIER, "disk tier alone: read, 512 KiB", "GB/s",
		"fio, fixed buffers and files, best depth", NULL, "tier_read_512k_gb_per_s",
		"tier_read_512k_over_fio", GOAL_RATIO_MIN, 0.95, 0, false },
	[ROW_TIER_READ_2M] = { PART_TIER, "disk tier alone: read, 2 MiB", "GB/s",
		"fio, fixed buffers and files, best depth", NULL, "tier_read_2m_gb_per_s",
		"tier_read_2m_over_fio", GOAL_RATIO_MIN, 0.95, 0, false },
	[ROW_TIER_MIX] = { PART_TIER, "512 KiB read among steady writes, p50", "ns",
		"the same read, idle", "read_idle_ns", "read_under_write_ns",
		"read_under_write_over_idle", GOAL_RATIO_MAX, 2.0, 0, false },
	[ROW_TIER_MIX_WRITE] = { PART_TIER, "... and the writes meanwhile", "GB/s",
		"writes without reads", NULL, "write_under_read_gb_per_s",
		"write_under_read_over_alone", GOAL_NONE, 0, 0, false },
	[ROW_CPU_WRITE] = { PART_TIER, "CPU of a 512 KiB write", "ns", "bare fixed-buffer loop",
		"bare_write_cpu_ns", "disk_write_cpu_ns", "disk_write_cpu_over_bare",
		GOAL_RATIO_MAX, 1.5, 0, false },
	[ROW_CPU_READ] = { PART_TIER, "CPU of a 512 KiB read", "ns", "bare fixed-buffer loop",
		"bare_read_cpu_ns", "disk_read_cpu_ns", "disk_read_cpu_over_bare",
		GOAL_RATIO_MAX, 1.5, 0, false },
	[ROW_CPU_VERIFY] = { PART_TIER, "... verified on the way", "ns",
		"bare loop that sums the bytes", "bare_verify_cpu_ns", "disk_verify_cpu_ns",
		"disk_verify_cpu_over_bare", GOAL_NONE, 0, 0, false },
	[ROW_RAM_COPY] = { PART_TIER, "RAM demote + promote, cold, no sums", "GB/s",
		"bare streaming stores, same threads", "ntcopy_gb_per_s", "ram_gb_per_s",
		"ram_over_ntcopy", GOAL_RATIO_MIN, 0.9, 0, false },
	[ROW_RAM_MEMCPY] = { PART_TIER, "... as it is, with sums", "GB/s", "memcpy, same threads",
		"memcpy_gb_per_s", "ram_sums_gb_per_s", "ram_sums_over_memcpy",
		GOAL_NONE, 0, 0, false },
	[ROW_RAM_SUM] = { PART_TIER, "... what the sums cost", "ns", "the same block without sums",
		"ram_block_ns", "ram_sums_block_ns", "ram_sums_over_none",
		GOAL_RATIO_MAX, 1.25, 0, false },
	[ROW_NOP_TIER] = { PART_TIER, "NOP round trip among tier traffic, p99", "ns",
		"quiet daemon, the same gaps", "nop_p99_quiet_ns", "nop_p99_under_tier_ns",
		"nop_p99_under_tier_over_quiet", GOAL_RATIO_MAX, 3.0, 0, false },
	[ROW_NOP_TRAFFIC] = { PART_TIER, "... and the traffic meanwhile", "GB/s", NULL,
		NULL, "nop_traffic_gb_per_s", NULL, GOAL_NONE, 0, 0, false },
	[ROW_RECOVER] = { PART_TIER, "recovery of 1M disk blocks, CPU", "s", NULL,
		NULL, "recovery_cpu_s_per_1m", NULL, GOAL_OURS_MAX, 2.0, 0, false },
	[ROW_RECOVER_WALL] = { PART_TIER, "... until all are back", "s",
		"one read of the summaries", "summary_read_s", "recovery_s", "recovery_over_read",
		GOAL_NONE, 0, 0, false },
	[ROW_RECOVER_OPEN] = { PART_TIER, "... first block served meanwhile", "ms",
		"the same without a disk", "no_disk_open_ms", "recovering_open_ms",
		"recovering_open_over_no_disk", GOAL_NONE, 0, 0, false },
	[ROW_POOL_TOUCH] = { PART_TIER, "RAM tier made ready", "ms per GiB", "bare touch of such pages",
		"touch_ms_per_gib", "pool_start_ms_per_gib", "pool_start_over_touch",
		GOAL_RATIO_MAX, 1.2, 0, false },
	[ROW_ATTACH] = { PART_TIER, "attach of a client, 2 MiB pages", "ms per GiB", NULL,
		NULL, "attach_ms_per_gib", NULL, GOAL_OURS_MAX, 10, 0, false },
	[ROW_D2H] = { PART_GPU, "GPU to host, blocks of 64 KiB, batched", "GB/s", "cuMemcpyAsync, one large pinned buffer",
		"plain_d2h_gb_per_s", "d2h_64k_gb_per_s", "d2h_64k_over_plain", GOAL_RATIO_MIN, 0.75, 0, false },
	[ROW_D2H_256K] = { PART_GPU, "GPU to host, blocks of 256 KiB", "GB/s", "cuMemcpyAsync, one large pinned buffer",
		NULL, "d2h_256k_gb_per_s", "d2h_256k_over_plain", GOAL_NONE, 0, 0, false },
	[ROW_D2H_1M] = { PART_GPU, "GPU to host, blocks of 1 MiB", "GB/s", "cuMemcpyAsync, one large pinned buffer",
		NULL, "d2h_1m_gb_per_s", "d2h_1m_over_plain", GOAL_NONE, 0, 0, false },
	[ROW_D2H_2M] = { PART_GPU, "GPU to host, blocks of 2 MiB", "GB/s", "cuMemcpyAsync, one large pinned buffer",
		NULL, "d2h_2m_gb_per_s", "d2h_2m_over_plain", GOAL_RATIO_MIN, 0.92, 0, false },
	[ROW_D2H_4M] = { PART_GPU, "GPU to host, blocks of 4 MiB", "GB/s", "cuMemcpyAsync, one large pinned buffer",
		NULL, "d2h_4m_gb_per_s", "d2h_4m_over_plain", GOAL_NONE, 0, 0, false },
	[ROW_H2D] = { PART_GPU, "host to GPU, blocks of 64 KiB, batched", "GB/s", "cuMemcpyAsync, one large pinned buffer",
		"plain_h2d_gb_per_s", "h2d_64k_gb_per_s", "h2d_64k_over_plain", GOAL_RATIO_MIN, 0.75, 0, false },
	[ROW_H2D_256K] = { PART_GPU, "host to GPU, blocks of 256 KiB", "GB/s", "cuMemcpyAsync, one large pinned buffer",
		NULL, "h2d_256k_gb_per_s", "h2d_256k_over_plain", GOAL_NONE, 0, 0, false },
	[ROW_H2D_1M] = { PART_GPU, "host to GPU, blocks of 1 MiB", "GB/s", "cuMemcpyAsync, one large pinned buffer",
		NULL, "h2d_1m_gb_per_s", "h2d_1m_over_plain", GOAL_NONE, 0, 0, false },
	[ROW_H2D_2M] = { PART_GPU, "host to GPU, blocks of 2 MiB", "GB/s", "cuMemcpyAsync, one large pinned buffer",
		NULL, "h2d_2m_gb_per_s", "h2d_2m_over_plain", GOAL_RATIO_MIN, 0.92, 0, false },
	[ROW_H2D_4M] = { PART_GPU, "host to GPU, blocks of 4 MiB", "GB/s", "cuMemcpyAsync, one large pinned buffer",
		NULL, "h2d_4m_gb_per_s", "h2d_4m_over_plain", GOAL_NONE, 0, 0, false },
	[ROW_D2H_ALONE] = { PART_GPU, "GPU to host, 64 KiB, each its own request", "GB/s", "cuMemcpyAsync, one large pinned buffer",
		NULL, "d2h_64k_alone_gb_per_s", "d2h_64k_alone_over_plain", GOAL_NONE, 0, 0, false },
	[ROW_H2D_ALONE] = { PART_GPU, "host to GPU, 64 KiB, each its own request", "GB/s", "cuMemcpyAsync, one large pinned buffer",
		NULL, "h2d_64k_alone_gb_per_s", "h2d_64k_alone_over_plain", GOAL_NONE, 0, 0, false },
	[ROW_BOTH_WAYS] = { PART_GPU, "both ways at once, 2 MiB", "GB/s", "the same with one large buffer each",
		"plain_both_ways_gbps", "both_ways_gbps", "both_ways_over_plain", GOAL_NONE, 0, 0, false },
	[ROW_D2H_SUMS] = { PART_GPU, "GPU to host, 2 MiB, with checksums", "GB/s", "the same without",
		NULL, "d2h_2m_sums_gb_per_s", "d2h_2m_sums_over_none", GOAL_NONE, 0, 0, false },
	[ROW_D2H_64K_SUMS] = { PART_GPU, "GPU to host, 64 KiB, with checksums", "GB/s", "the same without",
		NULL, "d2h_64k_sums_gb_per_s", "d2h_64k_sums_over_none", GOAL_NONE, 0, 0, false },
	[ROW_H2D_SUMS] = { PART_GPU, "host to GPU, 2 MiB, with checksums", "GB/s", "the same without",
		NULL, "h2d_2m_sums_gb_per_s", "h2d_2m_sums_over_none", GOAL_NONE, 0, 0, false },
	[ROW_H2D_64K_SUMS] = { PART_GPU, "host to GPU, 64 KiB, with checksums", "GB/s", "the same without",
		NULL, "h2d_64k_sums_gb_per_s", "h2d_64k_sums_over_none", GOAL_NONE, 0, 0, false },
	[ROW_LAYOUT] = { PART_GPU, "4 MiB blocks in one piece", "GB/s", "64 planes of 64 KiB",
		"layer_major_gb_per_s", "block_major_gb_per_s", "block_major_over_layer_major", GOAL_NONE, 0, 0, false },
	[ROW_SLAB_CREATE] = { PART_GPU, "slab of 64 MiB: made, mapped, exported", "ms", "bare driver calls",
		"bare_slab_64m_create_ms", "slab_64m_create_ms", "slab_64m_create_over_bare", GOAL_NONE, 0, 0, false },
	[ROW_SLAB_CREATE_256M] = { PART_GPU, "slab of 256 MiB: made, mapped, exported", "ms", "bare driver calls",
		"bare_slab_256m_create_ms", "slab_256m_create_ms", "slab_256m_create_over_bare", GOAL_NONE, 0, 0, false },
	[ROW_SLAB_CREATE_1G] = { PART_GPU, "slab of 1 GiB: made, mapped, exported", "ms", "bare driver calls",
		"bare_slab_1g_create_ms", "slab_1g_create_ms", "slab_1g_create_over_bare", GOAL_NONE, 0, 0, false },
	[ROW_SLAB_IMPORT] = { PART_GPU, "64 MiB slab to another process, mapped twice", "ms", NULL,
		NULL, "slab_64m_export_import_map_ms", NULL, GOAL_NONE, 0, 0, false },
	[ROW_SLAB_IMPORT_256M] = { PART_GPU, "256 MiB slab to another process, mapped twice", "ms", NULL,
		NULL, "slab_256m_export_import_map_ms", NULL, GOAL_NONE, 0, 0, false },
	[ROW_SLAB_IMPORT_1G] = { PART_GPU, "1 GiB slab to another process, mapped twice", "ms", NULL,
		NULL, "slab_1g_export_import_map_ms", NULL, GOAL_NONE, 0, 0, false },
	[ROW_VISIBLE] = { PART_GPU, "from publish to another client's hit", "us", "the same on the host device",
		"publish_to_visible_host_us", "publish_to_visible_us", "publish_to_visible_over_host", GOAL_NONE, 0, 0, false },
	[ROW_WINDOW_ENCODE] = { PART_CODEC, "window: encode, blocks of 512 KiB", "GB/s", "memcpy()",
		"codec_memcpy_gb_per_s", "window_encode_gb_per_s", "window_encode_over_memcpy",
		GOAL_OURS_MIN, 4, 0, false },
	[ROW_WINDOW_DECODE] = { PART_CODEC, "window: decode, blocks of 512 KiB", "GB/s", "memcpy()",
		NULL, "window_decode_gb_per_s", "window_decode_over_memcpy",
		GOAL_OURS_MIN, 4, 0, false },
	[ROW_WINDOW_RATIO] = { PART_CODEC, "window: bytes of values over bytes stored", "x", NULL,
		NULL, "window_ratio", NULL, GOAL_OURS_MIN, 1.3, 0, false },
};

static const struct {
	enum part part;
	const char *name;
} sections[] = {
	{ PART_RING, "rings" }, { PART_OPS, "operations" }, { PART_WAKE, "waking and sending" },
	{ PART_IDLE, "idle" }, { PART_PEERS, "beside others" }, { PART_HASH, "keys" },
	{ PART_BIG, "a large pool" }, { PART_TIER, "tiers" }, { PART_GPU, "a GPU" },
	{ PART_CODEC, "codecs" },
};

enum { COL_FLOOR, COL_OURS, COL_RATIO, NR_COL };

static struct row {
	double *v[NR_COL];	/* per round */
	unsigned nr;
	const char *skipped;
} rows[NR_ROW];

static int cmp_double(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double kvb_median(double *v, unsigned n)
{
	qsort(v, n, sizeof(*v), cmp_double);
	return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

void take_turns(struct turn *t, unsigned nr)
{
	double v[8][NR_SLICES];

	for (unsigned s = 0; s < NR_SLICES; s++)
		for (unsigned i = 0; i < nr; i++)
			v[i][s] = t[i].fn(t[i].ctx);
	for (unsigned i = 0; i < nr; i++)
		t[i].ret = kvb_median(v[i], NR_SLICES);
}

void row_add(enum row_id r, double floor, double ours)
{
	struct row *w = &rows[r];

	for (int c = 0; c < NR_COL && !w->v[c]; c++) {
		w->v[c] = (double *)calloc(MAX_ROUNDS, sizeof(double));
		if (!w->v[c])
			kvb_die("no memory");
	}
	if (w->nr == MAX_ROUNDS)
		return;
	w->v[COL_FLOOR][w->nr] = floor;
	w->v[COL_OURS][w->nr] = ours;
	w->v[COL_RATIO][w->nr++] = defs[r].inverse ? floor / ours : ours / floor;
}

void rows_skip(enum row_id r, const char *why)
{
	rows[r].skipped = why;
}

void rows_skip_part(enum part part, const char *why)
{
	for (int r = 0; r < NR_ROW; r++)
		if (defs[r].part == part)
			rows[r].skipped = why;
}

/* Median, least and most of one column. */
static void spread(enum row_id r, int col, double ret[3])
{
	unsigned n = rows[r].nr;
	double v[MAX_ROUNDS];

	memcpy(v, rows[r].v[col], n * sizeof(*v));
	ret[0] = kvb_median(v, n);
	ret[1] = v[0];
	ret[2] = v[n - 1];
}

static bool is_least(enum goal g)
{
	return g == GOAL_RATIO_MIN || g == GOAL_OURS_MIN;
}

static bool is_of_ours(enum goal g)
{
	return g == GOAL_OURS_MAX || g == GOAL_OURS_MIN;
}

static double judged(enum row_id r)
{
	double s[3];

	spread(r, is_of_ours(defs[r].goal) ? COL_OURS : COL_RATIO, s);
	return s[0];
}

/* The must and the aim, in words. */
static const char *verdict(enum row_id r)
{
	const struct row_def *d = &defs[r];
	double v = judged(r), aim = d->aim > 0 ? d->aim : d->must;
	bool least = is_least(d->goal);

	if (one_cpu)
		return "not judged on one processor";
	if (least ? v < d->must : v > d->must)
		return "missed";
	return (least ? v >= aim : v <= aim) ? "holds" : "must holds, aim missed";
}

/* ---------------------------------------------------------------- text */

static void format_value(char *buf, size_t n, const double s[3], const char *unit)
{
	bool ns = !strncmp(unit, "ns", 2);

	if (ns && s[0] >= 100)
		snprintf(buf, n, "%.0f (%.0f - %.0f)", s[0], s[1], s[2]);
	else if (ns)
		snprintf(buf, n, "%.1f (%.1f - %.1f)", s[0], s[1], s[2]);
	else if (!strcmp(unit, "M/s") || !strcmp(unit, "GB/s") || !strcmp(unit, "x"))
		snprintf(buf, n, "%.2f (%.2f - %.2f)", s[0], s[1], s[2]);
	else
		snprintf(buf, n, "%.4g (%.4g - %.4g)", s[0], s[1], s[2]);
}

static void format_goal(char *buf, size_t n, const struct row_def *d)
{
	const char *op = is_least(d->goal) ? ">=" : "<=";

	if (d->goal == GOAL_NONE)
		buf[0] = 0;
	else if (d->aim > 0)
		snprintf(buf, n, "%s %g (aim %g)", op, d->must, d->aim);
	else
		snprintf(buf, n, "%s %g", op, d->must);
}

static void print_row(enum row_id r)
{
	const struct row_def *d = &defs[r];
	char f[64] = "", o[64], q[64] = "", g[48], what[64];
	double s[3];

	snprintf(what, sizeof(what), "%s, %s", d->what, d->unit);
	if (!rows[r].nr) {
		if (rows[r].skipped && d->part == PART_GPU)
			printf("SKIP: %s: %s\n", what, rows[r].skipped);
		else if (rows[r].skipped)
			printf("  %-44s not measured: %s\n", what, rows[r].skipped);
		return;
	}
	spread(r, COL_OURS, s);
	format_value(o, sizeof(o), s, d->unit);
	if (d->floor) {
		spread(r, COL_FLOOR, s);
		format_value(f, sizeof(f), s, d->unit);
		spread(r, COL_RATIO, s);
		format_value(q, sizeof(q), s, "x");
	}
	format_goal(g, sizeof(g), d);
	printf("  %-44s %-24s %-24s %-24s %s%s%s\n", what, f, o, q, g, g[0] ? ": " : "",
	       g[0] ? verdict(r) : "");
	if (d->floor)
		printf("    beside: %s\n", d->floor);
}

void rows_print_text(void)
{
	printf("  %-44s %-24s %-24s %-24s %s\n", "median (least - most of the rounds)", "floor",
	       "ours", "ratio", "goal");
	for (size_t i = 0; i < ARRAY_SIZE(sections); i++) {
		if (!(bench.parts & sections[i].part))
			continue;
		printf("%s\n", sections[i].name);
		for (int r = 0; r < NR_ROW; r++)
			if (defs[r].part == sections[i].part)
				print_row((enum row_id)r);
	}
}

/* ---------------------------------------------------------------- JSON */

static void json_spread(struct json *j, const char *key, const double s[3])
{
	static const char *const suffix[3] = { "", "_min", "_max" };
	char k[KEY_BYTES];

	for (int i = 0; i < 3; i++) {
		snprintf(k, sizeof(k), "%s%s", key, suffix[i]);
		json_f64(j, k, s[i]);
	}
}

static void json_col(struct json *j, const char *name, enum row_id r, int col)
{
	double s[3];

	spread(r, col, s);
	json_obj(j, name);
	json_f64(j, "median", s[0]);
	json_f64(j, "min", s[1]);
	json_f64(j, "max", s[2]);
	json_arr(j, "rounds");
	for (unsigned i = 0; i < rows[r].nr; i++)
		json_f64(j, NULL, rows[r].v[col][i]);
	json_arr_end(j);
	json_obj_end(j);
}

static void json_row(struct json *j, enum row_id r)
{
	const struct row_def *d = &defs[r];

	json_obj(j, NULL);
	json_str(j, "what", d->what);
	json_str(j, "unit", d->unit);
	json_str(j, "beside", d->floor);
	if (!rows[r].nr) {
		json_str(j, "not_measured", rows[r].skipped);
		json_obj_end(j);
		return;
	}
	json_col(j, "ours", r, COL_OURS);
	if (d->floor) {
		json_col(j, "floor", r, COL_FLOOR);
		json_col(j, "ratio", r, COL_RATIO);
	}
	if (d->goal != GOAL_NONE) {
		json_str(j, "goal", is_least(d->goal) ? "at_least" : "at_most");
		json_str(j, "goal_of", is_of_ours(d->goal) ? "ours" : "ratio");
		json_f64(j, "must", d->must);
		json_f64(j, "aim", d->aim > 0 ? d->aim : d->must);
		json_str(j, "verdict", verdict(r));
	}
	json_obj_end(j);
}

/* A row's keys at the top of the document. */
static void json_keys(struct json *j, enum row_id r)
{
	const char *const key[NR_COL] = { defs[r].floor_key, defs[r].ours_key, defs[r].ratio_key };
	double s[3];

	for (int c = 0; c < NR_COL; c++) {
		if (!key[c] || (!rows[r].nr && !rows[r].skipped))
			continue;
		if (!rows[r].nr) {
			json_null(j, key[c]);
			continue;
		}
		spread(r, c, s);
		json_spread(j, key[c], s);
		if (!strcmp(key[c], "batch32_mops_per_s")) {
			for (int i = 0; i < 3; i++)
				s[i] *= 1e6;
			json_spread(j, "batch32_ops_per_s", s);
		}
	}
}

int rows_print_json(double calib, unsigned dropped, unsigned noisy)
{
	struct utsname u;
	struct json j;
	int err;

	json_init(&j);
	json_obj(&j, NULL);
	json_u64(&j, "schema", 1);
	json_str(&j, "version", KVMD_VERSION);
	uname(&u);
	json_str(&j, "kernel", u.release);
	json_i64(&j, "processors", sysconf(_SC_NPROCESSORS_ONLN));
	json_str(&j, "pinned", cpus_text());
	json_bool(&j, "quick", bench.quick);
	json_u64(&j, "rounds", bench.rounds);
	json_u64(&j, "rounds_put_off", dropped);
	json_u64(&j, "rounds_noisy", noisy);
	json_f64(&j, "calib_worst_over_median", calib);
	json_f64(&j, "idle_s", (double)bench.idle_ns / 1e9);
	json_u64(&j, "big_blocks", bench.big_blocks);
	if (bench.parts & PART_GPU)
		json_str(&j, "gpu", bench.gpu);
	for (int r = 0; r < NR_ROW; r++)
		if (bench.parts & defs[r].part)
			json_keys(&j, (enum row_id)r);
	json_arr(&j, "rows");
	for (int r = 0; r < NR_ROW; r++)
		if (bench.parts & defs[r].part)
			json_row(&j, (enum row_id)r);
	json_arr_end(&j);
	json_obj_end(&j);
	err = j.err;
	if (!err)
		puts(j.buf);
	json_exit(&j);
	return err;
}
