// SPDX-License-Identifier: Apache-2.0
/*
 * replay_tiers.c - the part of the report that lower tiers and restarts add: what
 * moved, what was refused and why, who waited.
 *
 * All but the clients' waiting are the daemon's counters.
 */
#include <inttypes.h>
#include <stdio.h>

#include "kvmd/lib/json.h"
#include "kvmd/lib/stats.h"
#include "tools/kvtrace/replay.h"

struct row {
	enum kvmd_stat id;
	const char *text;
};

#define ROW(ID, text)	{ KVMD_STAT_##ID, text }

static const struct {
	struct row blocks;
	enum kvmd_stat bytes;
} moves[] = {
	{ ROW(BLOCKS_CLEANED, "hbm to ram"), KVMD_STAT_BYTES_CLEANED },
	{ ROW(BLOCKS_STORED, "ram to disk"), KVMD_STAT_BYTES_STORED },
	{ ROW(BLOCKS_FETCHED, "disk to ram"), KVMD_STAT_BYTES_FETCHED },
	{ ROW(BLOCKS_LOADED, "ram to hbm"), KVMD_STAT_BYTES_LOADED },
};

static const struct row fates[] = {
	ROW(BLOCKS_ENCODED, "coded"),
	ROW(BLOCKS_DECODED, "decoded"),
	ROW(CODEC_OVERFLOWS, "not coded"),
	ROW(BLOCKS_SUNK_RAM, "sank to ram"),
	ROW(BLOCKS_SUNK_DISK, "sank to disk"),
	ROW(BLOCKS_REVIVED, "hit while they sank"),
	ROW(BLOCKS_DROPPED_RAM, "dropped from ram"),
	ROW(BLOCKS_DROPPED_DISK, "dropped from disk"),
	ROW(BLOCKS_ADOPTED, "found by recovery"),
	ROW(BLOCKS_ORPHANED, "orphaned"),
};

static const struct row refusals[] = {
	ROW(CLEAN_REFUSED_ADVICE, "to ram, by advice"),
	ROW(CLEAN_REFUSED_FULL, "to ram, full"),
	ROW(CLEAN_REFUSED_TENANT, "to ram, tenant's limit"),
	ROW(STORE_REFUSED_ADMISSION, "to disk, used too seldom"),
	ROW(STORE_REFUSED_FULL, "to disk, full or capped"),
	ROW(STORE_REFUSED_TENANT, "to disk, tenant's limit"),
	ROW(LOAD_REFUSED_SLOW, "loads, recomputing is faster"),
	ROW(LOAD_REFUSED_NOMEM, "loads, no slot"),
};

static const struct row failures[] = {
	ROW(LOADS_FAILED, "loads"),
	ROW(MOVES_FAILED, "copies, reads and writes"),
	ROW(CHECKSUM_ERRORS, "checksums"),
	ROW(CODEC_FAILED, "coded blocks"),
};

/* ------------------------------------------------------------ text */

static bool has_moves(const uint64_t *v)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(moves); i++)
		if (v[moves[i].blocks.id])
			return true;
	return false;
}

/* One line, of what there is; nothing, if there is nothing. */
static void text_rows(const char *name, const struct row *rows, size_t nr, const uint64_t *v)
{
	const char *sep = "";
	size_t i;

	for (i = 0; i < nr; i++) {
		if (!v[rows[i].id])
			continue;
		if (!*sep)
			printf("%-20s ", name);
		printf("%s%" PRIu64 " %s", sep, v[rows[i].id], rows[i].text);
		sep = ", ";
	}
	if (*sep)
		putchar('\n');
}

static void text_moves(const uint64_t *v)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(moves); i++)
		printf("%-20s %" PRIu64 " blocks, %.1f MiB\n", moves[i].blocks.text,
		       v[moves[i].blocks.id], (double)v[moves[i].bytes] / (1 << 20));
}

void text_tiers(const struct replay_result *a)
{
	const uint64_t *v = a->stats.val;
	const struct replay_slot *s = &a->sum;

	if (has_moves(v) || v[KVMD_STAT_BLOCKS_ADOPTED])
		text_moves(v);
	text_rows("blocks that", fates, ARRAY_SIZE(fates), v);
	text_rows("moves refused", refusals, ARRAY_SIZE(refusals), v);
	text_rows("moves failed", failures, ARRAY_SIZE(failures), v);
	if (v[KVMD_STAT_LOAD_STALL_NS])
		printf("%-20s %.3f s for loads, of %.3f s that clients were in opens\n", "waited",
		       (double)v[KVMD_STAT_LOAD_STALL_NS] / 1e9, (double)s->open_ns / 1e9);
	if (a->restarts)
		printf("%-20s %u times killed; %" PRIu64 " sessions went on, %" PRIu64
		       " began anew\n", "daemon", a->restarts, s->resumed, s->anew);
}

/* ------------------------------------------------------------ JSON */

static void json_rows(struct json *j, const struct row *rows, size_t nr, const uint64_t *v)
{
	size_t i;

	for (i = 0; i < nr; i++)
		json_u64(j, stats_name(rows[i].id), v[rows[i].id]);
}

void json_tiers(struct json *j, const struct replay_plan *p, const struct replay_result *a)
{
	const uint64_t *v = a->stats.val;
	size_t i;

	json_u64(j, "ram_bytes", plan_tier_bytes(p, &p->o->ram));
	json_u64(j, "disk_bytes", plan_tier_bytes(p, &p->o->disk));
	for (i = 0; i < ARRAY_SIZE(moves); i++) {
		json_rows(j, &moves[i].blocks, 1, v);
		json_u64(j, stats_name(moves[i].bytes), v[moves[i].bytes]);
	}
	json_rows(j, fates, ARRAY_SIZE(fates), v);
	json_rows(j, refusals, ARRAY_SIZE(refusals), v);
	json_rows(j, failures, ARRAY_SIZE(failures), v);
	json_u64(j, "load_stall_ns", v[KVMD_STAT_LOAD_STALL_NS]);
	json_u64(j, "open_ns", a->sum.open_ns);
	json_u64(j, "restarts", a->restarts);
	json_u64(j, "sessions_resumed", a->sum.resumed);
	json_u64(j, "sessions_anew", a->sum.anew);
}
