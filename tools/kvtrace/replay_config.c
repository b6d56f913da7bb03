// SPDX-License-Identifier: Apache-2.0
/*
 * replay_config.c - the configuration of a daemon that is started for a replay.
 *
 * Sizes are in blocks of the trace: so many records as all tiers together can
 * hold, and a disk file whose segments leave room for what is being emptied.
 */
#include <stdio.h>

#include "tools/kvtrace/replay_daemon.h"

#define MIN_SLAB	(64ULL << 10)
#define MAX_SLAB	(64ULL << 20)
#define CUDA_PIECE	(2ULL << 20)
#define SEGMENT_UNIT	(1ULL << 20)
#define MAX_SEGMENT	(64ULL << 20)
#define SPARE_SEGMENTS	3		/* two that are written, one that is emptied */
#define SPARE_RECORDS	1024

static bool is_cuda(const struct replay_opts *o)
{
	return o->device && !strcmp(o->device, "cuda");
}

static uint64_t slab_bytes(const struct replay_opts *o, uint64_t pool_bytes)
{
	uint64_t n = align_up(pool_bytes / 8, 4096);

	n = n < MIN_SLAB ? MIN_SLAB : n > MAX_SLAB ? MAX_SLAB : n;
	/* Every plane of a slab is whole pieces of the GPU's memory. */
	return is_cuda(o) ? max(n, (uint64_t)o->planes * o->shards * CUDA_PIECE) : n;
}

/* "min,low,high" as three options. */
static void write_watermarks(FILE *f, const char *arg)
{
	static const char *const names[] = { "wmark_min", "wmark_low", "wmark_high" };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(names) && *arg; i++) {
		size_t n = strcspn(arg, ",");

		fprintf(f, "%s = %.*s\n", names[i], (int)n, arg);
		arg += n + (arg[n] == ',');
	}
}

/*
 * A file for @bytes of blocks: its size and its segments'. What it has beside the
 * payloads is in kvmd-disk(5).
 */
static uint64_t disk_bytes(const struct replay_opts *o, uint64_t bytes, uint64_t *ret_segment)
{
	uint64_t place = plan_place_bytes(o), seg, nr, places, summary;

	seg = min(align_up(max(bytes / 16, 4 * place), SEGMENT_UNIT), MAX_SEGMENT);
	seg = max(seg, align_up(place, SEGMENT_UNIT));
	places = seg / place;
	nr = div_round_up(bytes, places * place) + SPARE_SEGMENTS;
	summary = 4096 + align_up(min(align_up(places, 32), seg / 4096) * 128, 4096);
	*ret_segment = seg;
	/* Behind superblock and space table; the payloads begin at a whole unit. */
	return align_up(8192 + 256 * 8192 + nr * summary, SEGMENT_UNIT) + nr * seg;
}

static void write_tiers(FILE *f, const struct replay_daemon *d, const struct replay_plan *p)
{
	const struct replay_opts *o = p->o;
	uint64_t ram = plan_tier_bytes(p, &o->ram), disk = plan_tier_bytes(p, &o->disk);
	uint64_t bytes, segment;

	if (ram)
		/* Huge pages and locked memory are for a daemon that stays. */
		fprintf(f, "[ram]\nbytes = %llu\nhugetlb = no\nlock = no\n",
			(unsigned long long)ram);
	if (!disk)
		return;
	bytes = disk_bytes(o, disk, &segment);
	fprintf(f, "[disk]\npath = %s\nbytes = %llu\nsegment = %llu\nblock_bytes_hint = %llu\n",
		o->disk_path ? o->disk_path : d->disk, (unsigned long long)bytes,
		(unsigned long long)segment, (unsigned long long)plan_place_bytes(o));
}

/* Blocks that lower tiers hold. */
static uint64_t lower_blocks(const struct replay_plan *p)
{
	const struct replay_opts *o = p->o;

	return (plan_tier_bytes(p, &o->ram) + plan_tier_bytes(p, &o->disk)) / plan_place_bytes(o);
}

int daemon_config(const struct replay_daemon *d, const struct replay_plan *p, bool tiers)
{
	const struct replay_opts *o = p->o;
	uint64_t bytes = (p->capacity + o->clients) * o->block_bytes;
	uint64_t slab = slab_bytes(o, bytes);
	FILE *f = fopen(d->conf, "we");

	if (!f)
		return -errno;
	fprintf(f, "[daemon]\nsocket = %s\nadmin_socket = %s\nlog_level = warn\nclock = %s\n",
		d->socket, d->admin, o->time == TIME_FAST ? "driven" : "real");
	/* A slab of every client's space may be begun and not full. */
	fprintf(f, "[pool]\nblocks = %llu\nslab_bytes = %llu\n",
		(unsigned long long)(p->capacity + o->clients + SPARE_RECORDS +
				     (tiers ? lower_blocks(p) : 0)), (unsigned long long)slab);
	if (o->policy)
		fprintf(f, "policy = %s\n", o->policy);
	if (o->watermarks)
		write_watermarks(f, o->watermarks);
	fprintf(f, "[device host-0]\nkind = %s\nbytes = %llu\n", o->device ? o->device : "host",
		(unsigned long long)(2 * bytes + (o->clients + 2) * 2 * slab));
	fprintf(f, "[tenant default]\nring_bytes = 64G\nmax_sessions = 256\nmax_seqs = 1048576\n");
	if (tiers)
		write_tiers(f, d, p);
	if (!fclose(f))
		return 0;
	return -errno;
}
