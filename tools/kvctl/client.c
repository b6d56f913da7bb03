/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client.c - kvctl client: engine processes and their sessions.
 */
#include "tools/kvctl/kvctl.h"

static void fmt_hit(const struct ctl *k, json_object *row, char *buf, size_t n)
{
	uint64_t asked = ctl_u64(row, "asked_blocks"), hit = ctl_u64(row, "hit_blocks");

	(void)k;
	if (asked)
		snprintf(buf, n, "%.1f", 100.0 * (double)hit / (double)asked);
	else
		snprintf(buf, n, "-");
}

static const struct ctl_col cols[] = {
	{ "session",	"session",		CTL_NUM,	true,	NULL },
	{ "pid",	"pid",			CTL_NUM,	true,	NULL },
	{ "label",	"label",		CTL_STR,	true,	NULL },
	{ "tenant",	"tenant",		CTL_STR,	true,	NULL },
	{ "space",	"space",		CTL_STR,	true,	NULL },
	{ "state",	"state",		CTL_STR,	true,	NULL },
	{ "ranks",	"ranks_connected",	CTL_NUM,	false,	NULL },
	{ "wanted",	"ranks_wanted",		CTL_NUM,	false,	NULL },
	{ "seqs",	"sequences",		CTL_NUM,	true,	NULL },
	{ "max_seqs",	"max_sequences",	CTL_NUM,	false,	NULL },
	{ "ops",	"operations",		CTL_NUM,	false,	NULL },
	{ "waiting",	"waiting_operations",	CTL_NUM,	true,	NULL },
	{ "copying",	"copying_operations",	CTL_NUM,	false,	NULL },
	{ "step",	"completed_step",	CTL_NUM,	true,	NULL },
	{ "stalled",	"stalled",		CTL_BOOL,	false,	NULL },
	{ "unmapped",	"unmapped_slabs",	CTL_NUM,	false,	NULL },
	{ "entries",	"entries",		CTL_NUM,	true,	NULL },
	{ "hit%",	NULL,			CTL_NUM,	true,	fmt_hit },
	{ "asked",	"asked_blocks",		CTL_NUM,	false,	NULL },
	{ "hit",	"hit_blocks",		CTL_NUM,	false,	NULL },
	{ "pinned",	"pinned_bytes",		CTL_BYTES,	false,	NULL },
	{ "ring",	"ring_bytes",		CTL_BYTES,	false,	NULL },
	{ "quiet",	"quiet_ms",		CTL_MS,		true,	NULL },
	{ "errno",	"end_errno",		CTL_NUM,	false,	NULL },
	{ 0 },
};

static const struct ctl_col rank_cols[] = {
	{ "rank",	"rank",		CTL_NUM,	true,	NULL },
	{ "pid",	"pid",		CTL_NUM,	true,	NULL },
	{ "uid",	"uid",		CTL_NUM,	true,	NULL },
	{ "connected",	"connected",	CTL_BOOL,	true,	NULL },
	{ 0 },
};

static int client_list(struct ctl *k, int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return ctl_list(k, "client", "list", NULL, "clients", cols);
}

static int client_show(struct ctl *k, int argc, char **argv)
{
	const char *kv[] = { "session", argv[0], NULL };

	(void)argc;
	return ctl_show(k, "client", kv, cols, "ranks", rank_cols);
}

const struct ctl_verb ctl_client_verbs[] = {
	{ "list", "", 0, 0, "onb", "all sessions", client_list },
	{ "show", "SESSION", 1, 1, "onb", "one session and its processes", client_show },
	{ 0 },
};
