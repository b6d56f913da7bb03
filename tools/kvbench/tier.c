// SPDX-License-Identifier: Apache-2.0
/*
 * tier.c - part "tier": disk and RAM beside fio, bare loops and copies.
 *
 * Each round measures fio, the disk tier alone and the daemon one after the
 * other, so that a disk that is slow now is slow for all. What a daemon's rows
 * show is what its own counters say it moved.
 */
#include <limits.h>
#include <sys/statvfs.h>
#include <time.h>

#include "tools/kvbench/tier.h"

const uint64_t tier_size[NR_SIZES] = { 256 << 10, 512 << 10, 2 << 20 };

struct tier_amounts tier_amounts = {
	.file_bytes = 1ull << 30, .mem_bytes = 1ull << 30, .slice_ns = 250000000,
	.recover_blocks = 1000000,
};

static unsigned depth[2][NR_SIZES];	/* fio's best, [write] */

const char *tier_path(const char *name)
{
	static char path[4][sizeof(bench.tier_dir) + 32];
	static unsigned turn;
	char *p = path[turn++ % ARRAY_SIZE(path)];

	snprintf(p, sizeof(path[0]), "%s/%s", bench.tier_dir, name);
	return p;
}

uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void make_dir(void)
{
	const uint64_t want = tier_amounts.file_bytes * 12;
	char at[PATH_MAX];
	struct statvfs fs;

	/* A daemon has another working directory than we, perhaps. */
	if (!realpath(bench.tier_at, at))
		kvb_die("%s: %s", bench.tier_at, strerror(errno));
	if ((size_t)snprintf(bench.tier_dir, sizeof(bench.tier_dir), "%s/kvbench.XXXXXX", at) >=
	    sizeof(bench.tier_dir) || !mkdtemp(bench.tier_dir)) {
		bench.tier_dir[0] = 0;
		kvb_die("no directory in %s: %s", at, strerror(errno));
	}
	if (statvfs(bench.tier_dir, &fs))
		kvb_die("%s: %s", bench.tier_dir, strerror(errno));
	if ((uint64_t)fs.f_bavail * fs.f_frsize < want)
		kvb_die("%s has less than the %llu MiB that part tier takes: name another "
			"directory with --dir", at, (unsigned long long)want >> 20);
}

void kvb_tier_setup(void)
{
	if (bench.quick)
		tier_amounts = (struct tier_amounts) {
			.file_bytes = 640ull << 20, .mem_bytes = 256ull << 20,
			.slice_ns = 60000000, .recover_blocks = 50000,
		};
	make_dir();
	fio_check();
	fio_layout();
	for (unsigned w = 0; w < 2; w++)
		for (unsigned i = 0; i < NR_SIZES; i++) {
			depth[w][i] = fio_best_depth(w, tier_size[i]);
			if (bench.verbose)
				kvb_note("fio %s of %llu KiB: depth %u", w ? "write" : "read",
					 (unsigned long long)tier_size[i] >> 10, depth[w][i]);
		}
	tier_disk_setup();
	tier_daemon_setup();
	tier_ram_setup();
}

static const struct {
	enum row_id tier, daemon, worst, qd8;
} disk_rows[2] = {
	{ ROW_TIER_READ, ROW_DISK_READ, ROW_DISK_READ_MIN, ROW_DISK_READ_QD8 },
	{ ROW_TIER_WRITE, ROW_DISK_WRITE, ROW_DISK_WRITE_MIN, ROW_DISK_WRITE_QD8 },
};

/* One direction, size by size: fio, the tier alone, the daemon. */
static void disk_round(bool write)
{
	const struct fio_job plain = {
		.write = write, .block = tier_size[NR_SIZES - 1], .depth = 8, .plain = true,
	};
	double fio[NR_SIZES], v[NR_SIZES];
	unsigned worst = 0;

	for (unsigned i = 0; i < NR_SIZES; i++) {
		const struct fio_job j = {
			.write = write, .block = tier_size[i], .depth = depth[write][i],
		};
		double alone;

		fio[i] = fio_run(&j, tier_amounts.slice_ns);
		alone = tier_disk_rate(i, write);
		v[i] = tier_daemon_rate(i, write);
		row_add((enum row_id)(disk_rows[write].tier + i), fio[i] / 1e9, alone / 1e9);
		row_add((enum row_id)(disk_rows[write].daemon + i), fio[i] / 1e9, v[i] / 1e9);
		if (v[i] / fio[i] < v[worst] / fio[worst])
			worst = i;
	}
	row_add(disk_rows[write].worst, fio[worst] / 1e9, v[worst] / 1e9);
	row_add(disk_rows[write].qd8, fio_run(&plain, tier_amounts.slice_ns) / 1e9,
		v[NR_SIZES - 1] / 1e9);
}

void kvb_tier_round(void)
{
	cpu_any();
	disk_round(true);
	disk_round(false);
	tier_disk_round();
	cpu_client();
	tier_ram_round();
	tier_nop_round();
	tier_recover_round();
	tier_start_round();
}

void kvb_tier_end(void)
{
	tier_ram_end();
	tier_disk_end();
}
