/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tier.c - kvctl tier: how full, how fast, what is wrong; drained, added to.
 */
#include <time.h>
#include <unistd.h>

#include "kvmd/lib/conf.h"
#include "tools/kvctl/kvctl.h"

#define WAIT_NS		200000000	/* between two looks at a drain */

/* "growing 3/8 chunks", "draining 12% of 4G". */
static void fmt_state(const struct ctl *k, json_object *row, char *buf, size_t n)
{
	uint64_t done = ctl_u64(row, "progress_done"), total = ctl_u64(row, "progress_total");
	const char *unit = ctl_str(row, "progress_unit"), *state = ctl_str(row, "state");
	char left[32];

	if (!total || !strcmp(state, "drained")) {
		snprintf(buf, n, "%s", state);
	} else if (!strcmp(unit, "bytes")) {
		ctl_fmt_bytes(k, total - done, left, sizeof(left));
		snprintf(buf, n, "%s, %s left", state, left);
	} else {
		snprintf(buf, n, "%s %llu/%llu %s", state, (unsigned long long)done,
			 (unsigned long long)total, unit);
	}
}

static void fmt_rate(const struct ctl *k, json_object *row, const char *key, char *buf, size_t n)
{
	uint64_t v = ctl_u64(row, key);

	if (v)
		ctl_fmt_bytes(k, v, buf, n);
	else
		snprintf(buf, n, "-");
}

static void fmt_in(const struct ctl *k, json_object *row, char *buf, size_t n)
{
	fmt_rate(k, row, "in_bytes_per_s", buf, n);
}

static void fmt_out(const struct ctl *k, json_object *row, char *buf, size_t n)
{
	fmt_rate(k, row, "out_bytes_per_s", buf, n);
}

static void fmt_flight(const struct ctl *k, json_object *row, char *buf, size_t n)
{
	ctl_fmt_bytes(k, ctl_u64(row, "in_flight_bytes") + ctl_u64(row, "out_flight_bytes"), buf,
		      n);
}

#define TIER_COLS(more) \
	{ "tier",	"tier",			CTL_STR,	true,	NULL }, \
	{ "state",	NULL,			CTL_STR,	true,	fmt_state }, \
	{ "size",	"bytes",		CTL_BYTES,	true,	NULL }, \
	{ "used",	"used_bytes",		CTL_BYTES,	true,	NULL }, \
	{ "free",	"free_bytes",		CTL_BYTES,	true,	NULL }, \
	{ "blocks",	"blocks",		CTL_NUM,	true,	NULL }, \
	{ "flight",	NULL,			CTL_BYTES,	true,	fmt_flight }, \
	{ "in/s",	NULL,			CTL_BYTES,	true,	fmt_in }, \
	{ "out/s",	NULL,			CTL_BYTES,	true,	fmt_out }, \
	{ "queue_in",	"in_queue_blocks",	CTL_NUM,	more,	NULL }, \
	{ "queue_out",	"out_queue_blocks",	CTL_NUM,	more,	NULL }, \
	{ "refused",	"refused_blocks",	CTL_NUM,	more,	NULL }, \
	{ "errors",	"error_blocks",		CTL_NUM,	more,	NULL }

#define RAM_COLS(shown) \
	{ "wanted",	"wanted_bytes",		CTL_BYTES,	false,	NULL }, \
	{ "chunk",	"chunk_bytes",		CTL_BYTES,	false,	NULL }, \
	{ "chunks",	"chunks",		CTL_NUM,	false,	NULL }, \
	{ "ready",	"ready_chunks",		CTL_NUM,	false,	NULL }, \
	{ "hugetlb",	"hugetlb_bytes",	CTL_BYTES,	false,	NULL }, \
	{ "huge_shmem",	"huge_shmem_bytes",	CTL_BYTES,	false,	NULL }, \
	{ "small_pages", "small_page_bytes",	CTL_BYTES,	false,	NULL }, \
	{ "locked",	"locked_bytes",		CTL_BYTES,	shown,	NULL }, \
	{ "pinned",	"pinned_bytes",		CTL_BYTES,	false,	NULL }, \
	{ "registered",	"registered_bytes",	CTL_BYTES,	shown,	NULL }

#define DISK_COLS \
	{ "files",	"files",		CTL_NUM,	false,	NULL }, \
	{ "segments",	"segments",		CTL_NUM,	false,	NULL }, \
	{ "free_segments", "free_segments",	CTL_NUM,	false,	NULL }, \
	{ "segment_used", "segment_used_bytes",	CTL_BYTES,	false,	NULL }, \
	{ "parked",	"parked_blocks",	CTL_NUM,	false,	NULL }, \
	{ "bad",	"bad_ranges",		CTL_NUM,	false,	NULL }, \
	{ "scrubbed",	"scrubbed_bytes",	CTL_BYTES,	false,	NULL }, \
	{ "scrubs",	"scrub_passes",		CTL_NUM,	false,	NULL }, \
	{ "written_day", "written_day_bytes",	CTL_BYTES,	false,	NULL }

static void fmt_pages(const struct ctl *k, json_object *row, char *buf, size_t n)
{
	uint64_t big = ctl_u64(row, "hugetlb_bytes"), thp = ctl_u64(row, "huge_shmem_bytes");
	uint64_t small = ctl_u64(row, "small_page_bytes");

	(void)k;
	if (!(big | thp | small))
		snprintf(buf, n, "-");
	else
		snprintf(buf, n, "%s%s%s", big | thp ? "2M" : "", (big | thp) && small ? "+" : "",
			 small ? "4K" : "");
}

static const struct ctl_col cols[] = {
	TIER_COLS(false),
	{ "pages",	NULL,			CTL_STR,	true,	fmt_pages },
	RAM_COLS(false),
	DISK_COLS,
	{ "message",	"message",		CTL_STR,	true,	NULL },
	{ 0 },
};

static const struct ctl_col hbm_cols[] = {
	TIER_COLS(true),
	{ 0 },
};

static const struct ctl_col ram_cols[] = {
	TIER_COLS(true),
	{ "pages",	NULL,			CTL_STR,	true,	fmt_pages },
	RAM_COLS(true),
	{ "message",	"message",		CTL_STR,	true,	NULL },
	{ 0 },
};

static const struct ctl_col disk_cols[] = {
	TIER_COLS(true),
	DISK_COLS,
	{ "message",	"message",		CTL_STR,	true,	NULL },
	{ 0 },
};

static const struct ctl_col file_cols[] = {
	{ "file",	"file",			CTL_STR,	true,	NULL },
	{ "kind",	"kind",			CTL_STR,	true,	NULL },
	{ "state",	"state",		CTL_STR,	true,	NULL },
	{ "size",	"bytes",		CTL_BYTES,	true,	NULL },
	{ "used",	"used_bytes",		CTL_BYTES,	true,	NULL },
	{ "live",	"live_bytes",		CTL_BYTES,	true,	NULL },
	{ 0 },
};

/* -------------------------------------------------------------------- showing */

static int tier_list(struct ctl *k, int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return ctl_list(k, "tier", "list", NULL, "tiers", cols);
}

static int tier_text(struct ctl *k, json_object *doc)
{
	return ctl_record(k, doc, strcmp(ctl_str(doc, "tier"), "ram") ? hbm_cols : ram_cols);
}

static int tier_show(struct ctl *k, int argc, char **argv)
{
	const char *kv[] = { "tier", argv[0], NULL };

	(void)argc;
	if (!strcmp(argv[0], "disk"))
		return ctl_show(k, "tier", kv, disk_cols, "file_rows", file_cols);
	return ctl_view(k, "tier", "show", kv, tier_text);
}

/* ------------------------------------------------------------------- draining */

static bool is_tier(const char *word)
{
	return !strcmp(word, "ram") || !strcmp(word, "disk") || !strcmp(word, "hbm");
}

/* KEY, VALUE of what a drain is about: a tier, or a file of the disk tier. */
static void target(const char *word, const char *kv[3])
{
	kv[0] = is_tier(word) ? "tier" : "path";
	kv[1] = word;
	kv[2] = NULL;
}

static json_object *row_named(json_object *rows, const char *key, const char *name)
{
	for (size_t i = 0; i < json_object_array_length(rows); i++) {
		json_object *row = json_object_array_get_idx(rows, i);

		if (!strcmp(ctl_str(row, key), name))
			return row;
	}
	return NULL;
}

/*
 * Bytes still in @word. *ret_over: it is drained, or not being drained any more
 * (then *ret_kept).
 */
static int drain_look(struct ctl *k, const char *word, uint64_t *ret_left, bool *ret_over,
		      bool *ret_kept)
{
	const char *kv[] = { "tier", is_tier(word) ? word : "disk", NULL };
	json_object *doc, *row;
	const char *state;
	int ret = ctl_ask(k, "tier", "show", kv, &doc);

	if (ret)
		return ret;
	row = is_tier(word) ? doc : row_named(ctl_get(doc, "file_rows"), "file", word);
	state = row ? ctl_str(row, "state") : "drained";	/* closed, and of the set no more */
	*ret_over = strcmp(state, "draining") != 0;
	*ret_kept = *ret_over && strcmp(state, "drained") != 0;
	*ret_left = !row ? 0 : is_tier(word) ? ctl_u64(row, "progress_total") -
		    ctl_u64(row, "progress_done") : ctl_u64(row, "used_bytes");
	json_object_put(doc);
	return CTL_OK;
}

static int drain_wait(struct ctl *k, const char *word)
{
	const struct timespec ts = { .tv_nsec = WAIT_NS };
	bool tty = isatty(STDERR_FILENO), over = false, kept = false;
	uint64_t left;
	char text[32];
	int ret;

	while (!(ret = drain_look(k, word, &left, &over, &kept)) && !over) {
		ctl_fmt_bytes(k, left, text, sizeof(text));
		if (tty)
			fprintf(stderr, "\r%s: %s left \033[K", word, text);
		nanosleep(&ts, NULL);
	}
	if (tty)
		fprintf(stderr, "\r\033[K");
	if (!ret && kept)
		ret = ctl_fail(CTL_REFUSED, "%s is not being drained any more", word);
	return ret;
}

static int tier_drain(struct ctl *k, int argc, char **argv)
{
	const char *kv[3];
	json_object *doc;
	int ret;

	(void)argc;
	target(argv[0], kv);
	ret = ctl_ask(k, "tier", "drain", kv, &doc);
	if (!ret && k->wait)
		ret = drain_wait(k, argv[0]);
	else if (ret)
		return ret;
	if (!ret && k->json)
		ctl_print_json(doc);
	else if (!ret)
		printf("%s: %s\n", argv[0], k->wait ? "drained" : "draining");
	json_object_put(doc);
	return ret;
}

static int tier_undrain(struct ctl *k, int argc, char **argv)
{
	const char *kv[3];
	json_object *doc;
	int ret;

	(void)argc;
	target(argv[0], kv);
	ret = ctl_ask(k, "tier", "undrain", kv, &doc);
	if (ret)
		return ret;
	if (k->json)
		ctl_print_json(doc);
	else
		printf("%s: in use\n", argv[0]);
	json_object_put(doc);
	return CTL_OK;
}

/* --------------------------------------------------------------------- adding */

/* ram BYTES, or disk PATH [BYTES]. */
static int tier_add(struct ctl *k, int argc, char **argv)
{
	bool ram = !strcmp(argv[0], "ram");
	const char *size = ram ? argv[1] : argc > 2 ? argv[2] : NULL;
	char bytes[32], cell[32];
	const char *disk[] = { "tier", "disk", "path", argv[1], "bytes", size ? bytes : NULL,
			       NULL };
	const char *mem[] = { "tier", "ram", "bytes", bytes, NULL };
	json_object *doc;
	uint64_t v = 0;
	int ret;

	if ((!ram && strcmp(argv[0], "disk")) || (ram && argc != 2))
		return ctl_usage("tier add: ram BYTES, or disk PATH [BYTES]");
	if (size && conf_parse_bytes(size, &v))
		return ctl_usage("'%s' is no size", size);
	snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)v);
	if (!ram && argv[1][0] != '/')
		return ctl_usage("'%s' is not the whole path, from / on: the daemon has a "
				 "directory of its own", argv[1]);
	ret = ctl_ask(k, "tier", "add", ram ? mem : disk, &doc);
	if (ret)
		return ret;
	ctl_fmt_bytes(k, ctl_u64(doc, "bytes"), cell, sizeof(cell));
	if (k->json)
		ctl_print_json(doc);
	else if (ram)
		printf("ram: to have %s\n", cell);
	else
		printf("disk: %s added, %s now\n", argv[1], cell);
	json_object_put(doc);
	return CTL_OK;
}

const struct ctl_verb ctl_tier_verbs[] = {
	{ "list", "", 0, 0, "onb", "all tiers", tier_list },
	{ "show", "TIER", 1, 1, "onb", "one tier: hbm, ram or disk", tier_show },
	{ "drain", "TIER|FILE", 1, 1, "wb", "empty ram, disk, or one file of the disk tier",
	  tier_drain },
	{ "undrain", "TIER|FILE", 1, 1, "", "use it after all", tier_undrain },
	{ "add", "TIER SIZE|FILE [SIZE]", 2, 3, "b",
	  "ram SIZE: its new size; disk FILE [SIZE]: one more file", tier_add },
	{ 0 },
};
