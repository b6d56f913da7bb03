/* SPDX-License-Identifier: Apache-2.0 */
/*
 * status.c - kvctl status, and kvctl alone: one screen.
 */
#include "tools/kvctl/kvctl.h"

static double percent(uint64_t part, uint64_t whole)
{
	return whole ? 100.0 * (double)part / (double)whole : 0;
}

static void print_head(json_object *doc)
{
	char up[32];

	ctl_fmt_ms(ctl_u64(doc, "uptime_ms"), up, sizeof(up));
	printf("kvmd %s  pid %s  up %s  policy %s  clock %s\n", ctl_str(doc, "version"),
	       ctl_str(doc, "pid"), up, ctl_str(doc, "policy"), ctl_str(doc, "clock"));
	printf("socket     %s\n", ctl_str(doc, "socket"));
	printf("clients    %s sessions (%s dying), %s sequences, %s spaces, %s tenants\n",
	       ctl_str(doc, "sessions"), ctl_str(doc, "dying_sessions"),
	       ctl_str(doc, "sequences"), ctl_str(doc, "spaces"), ctl_str(doc, "tenants"));
}

static void print_memory(struct ctl *k, json_object *doc)
{
	json_object *hbm = ctl_get(doc, "hbm"), *meta = ctl_get(doc, "metadata");
	char budget[32], slabs[32], leased[32], idle[32], avail[32], pool[32];

	ctl_fmt_bytes(k, ctl_u64(hbm, "budget_bytes"), budget, sizeof(budget));
	ctl_fmt_bytes(k, ctl_u64(hbm, "slab_bytes"), slabs, sizeof(slabs));
	ctl_fmt_bytes(k, ctl_u64(hbm, "leased_bytes"), leased, sizeof(leased));
	ctl_fmt_bytes(k, ctl_u64(hbm, "idle_bytes"), idle, sizeof(idle));
	ctl_fmt_bytes(k, ctl_u64(hbm, "free_bytes"), avail, sizeof(avail));
	ctl_fmt_bytes(k, ctl_u64(meta, "pool_bytes") + ctl_u64(meta, "index_bytes") +
		      ctl_u64(meta, "ghost_bytes"), pool, sizeof(pool));
	printf("hbm        %s of %s in slabs: %s leased, %s cached, %s free\n", slabs, budget,
	       leased, idle, avail);
	printf("records    %s of %s free, %s of metadata\n", ctl_str(meta, "free_records"),
	       ctl_str(meta, "records"), pool);
}

/* RAM and disk, if there are any. */
static void print_tiers(struct ctl *k, json_object *doc)
{
	json_object *rows = ctl_get(doc, "tiers");
	char size[32], used[32];

	for (size_t i = 0; i < json_object_array_length(rows); i++) {
		json_object *row = json_object_array_get_idx(rows, i);
		const char *tier = ctl_str(row, "tier"), *state = ctl_str(row, "state");

		if (!strcmp(tier, "hbm"))
			continue;
		ctl_fmt_bytes(k, ctl_u64(row, "bytes"), size, sizeof(size));
		ctl_fmt_bytes(k, ctl_u64(row, "used_bytes"), used, sizeof(used));
		printf("%-10s %s of %s used, %s blocks%s%s\n", tier, used, size,
		       ctl_str(row, "blocks"), strcmp(state, "ok") ? "; " : "",
		       strcmp(state, "ok") ? state : "");
	}
}

/* What a daemon under a supervisor began with. */
static void print_restart(json_object *doc)
{
	json_object *r = ctl_get(doc, "restart");
	const char *start = ctl_str(r, "start");

	if (!strcmp(start, "warm"))
		printf("restart    warm: %s blocks in HBM, %s in RAM, %s private; %s of %s clients "
		       "are back, %s lost\n", ctl_str(r, "hbm_blocks"), ctl_str(r, "ram_blocks"),
		       ctl_str(r, "private_blocks"), ctl_str(r, "clients_resumed"),
		       ctl_str(r, "clients"), ctl_str(r, "clients_lost"));
	else if (!strcmp(start, "cold") && ctl_str(r, "why_cold")[0])
		printf("restart    cold: %s\n", ctl_str(r, "why_cold"));
}

static void print_hits(json_object *doc)
{
	static const struct {
		const char *name, *key;
	} part[] = {
		{ "hbm", "tokens_hbm" }, { "ram", "tokens_ram" }, { "disk", "tokens_disk" },
		{ "merged", "tokens_merged" }, { "recomputed", "tokens_recomputed" },
		{ "pending", "tokens_pending" },
	};
	json_object *c = ctl_get(doc, "counters");
	uint64_t asked = ctl_u64(c, "tokens_asked");

	printf("tokens     %llu asked", (unsigned long long)asked);
	for (size_t i = 0; i < ARRAY_SIZE(part); i++) {
		uint64_t v = ctl_u64(c, part[i].key);

		if (v)
			printf("%s %s %.1f%%", i ? "," : ":", part[i].name, percent(v, asked));
	}
	printf("\nblocks     %s hit, %s allocated, %s published, %s merged, %s evicted\n",
	       ctl_str(c, "blocks_hit"), ctl_str(c, "blocks_allocated"),
	       ctl_str(c, "blocks_published"), ctl_str(c, "blocks_merged"),
	       ctl_str(c, "blocks_evicted"));
}

static void print_pressure(json_object *doc)
{
	json_object *p = ctl_get(doc, "pressure");
	json_object *some = ctl_get(p, "some"), *full = ctl_get(p, "full");

	printf("pressure   %s; some %.2f %.2f %.2f, full %.2f %.2f %.2f (%% of 10, 60, 300 s); "
	       "%s allocations wait\n", ctl_str(p, "level"),
	       json_object_get_double(ctl_get(some, "avg10")),
	       json_object_get_double(ctl_get(some, "avg60")),
	       json_object_get_double(ctl_get(some, "avg300")),
	       json_object_get_double(ctl_get(full, "avg10")),
	       json_object_get_double(ctl_get(full, "avg60")),
	       json_object_get_double(ctl_get(full, "avg300")),
	       ctl_str(ctl_get(doc, "hbm"), "waiting_allocations"));
}

static int status_text(struct ctl *k, json_object *doc)
{
	print_head(doc);
	print_memory(k, doc);
	print_tiers(k, doc);
	print_restart(doc);
	print_hits(doc);
	print_pressure(doc);
	return CTL_OK;
}

static int status_show(struct ctl *k, int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return ctl_view(k, "status", "show", NULL, status_text);
}

const struct ctl_verb ctl_status_verbs[] = {
	{ "show", "", 0, 0, "b", "what the daemon holds and does", status_show },
	{ 0 },
};
