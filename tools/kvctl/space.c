/* SPDX-License-Identifier: Apache-2.0 */
/*
 * space.c - kvctl space: spaces, raising an epoch, dropping what is cached.
 */
#include "tools/kvctl/kvctl.h"

static const struct ctl_col cols[] = {
	{ "space",	"space",		CTL_STR,	true,	NULL },
	{ "tenant",	"tenant",		CTL_STR,	true,	NULL },
	{ "epoch",	"epoch",		CTL_NUM,	true,	NULL },
	{ "sessions",	"sessions",		CTL_NUM,	true,	NULL },
	{ "groups",	"groups",		CTL_NUM,	false,	NULL },
	{ "shards",	"shards",		CTL_NUM,	false,	NULL },
	{ "device",	"device",		CTL_STR,	false,	NULL },
	{ "block_tokens", "block_tokens",	CTL_NUM,	false,	NULL },
	{ "codec",	"codec",		CTL_STR,	false,	NULL },
	{ "slots",	"slots",		CTL_NUM,	true,	NULL },
	{ "leased",	"leased_slots",		CTL_NUM,	true,	NULL },
	{ "idle",	"idle_slots",		CTL_NUM,	true,	NULL },
	{ "free",	"free_slots",		CTL_NUM,	true,	NULL },
	{ "size",	"slot_bytes_total",	CTL_BYTES,	true,	NULL },
	{ "coming",	"coming_bytes",		CTL_BYTES,	false,	NULL },
	{ "sealed",	"sealed_blocks",	CTL_NUM,	false,	NULL },
	{ "stale",	"stale_blocks",		CTL_NUM,	false,	NULL },
	{ "waiting",	"waiting_allocations",	CTL_NUM,	true,	NULL },
	{ "pressure",	"pressure_level",	CTL_STR,	true,	NULL },
	{ 0 },
};

static const struct ctl_col group_cols[] = {
	{ "group",	"group",		CTL_NUM,	true,	NULL },
	{ "rule",	"rule",			CTL_STR,	true,	NULL },
	{ "planes",	"planes",		CTL_NUM,	true,	NULL },
	{ "plane",	"plane_bytes",		CTL_BYTES,	true,	NULL },
	{ "tokens",	"block_tokens",		CTL_NUM,	true,	NULL },
	{ "block",	"slot_bytes",		CTL_BYTES,	true,	NULL },
	{ "slots",	"slots",		CTL_NUM,	true,	NULL },
	{ "max",	"max_slots",		CTL_NUM,	true,	NULL },
	{ "leased",	"leased_slots",		CTL_NUM,	true,	NULL },
	{ "idle",	"idle_slots",		CTL_NUM,	true,	NULL },
	{ "free",	"free_slots",		CTL_NUM,	true,	NULL },
	{ "low",	"wmark_low_slots",	CTL_NUM,	true,	NULL },
	{ "high",	"wmark_high_slots",	CTL_NUM,	true,	NULL },
	{ "waiting",	"waiting_allocations",	CTL_NUM,	true,	NULL },
	{ "policy",	"policy",		CTL_STR,	true,	NULL },
	{ "codec",	"codec",		CTL_STR,	true,	NULL },
	{ "below",	"below_bytes",		CTL_BYTES,	true,	NULL },
	{ "ratio",	"codec_ratio",		CTL_STR,	true,	NULL },
	{ "error",	"codec_max_error",	CTL_STR,	false,	NULL },
	{ 0 },
};

static int space_list(struct ctl *k, int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return ctl_list(k, "space", "list", NULL, "spaces", cols);
}

static int space_show(struct ctl *k, int argc, char **argv)
{
	const char *kv[] = { "space", argv[0], NULL };

	(void)argc;
	return ctl_show(k, "space", kv, cols, "group_rows", group_cols);
}

static int raise_text(struct ctl *k, json_object *doc)
{
	(void)k;
	printf("%s: epoch %s, %s blocks of former epochs to drop\n", ctl_str(doc, "space"),
	       ctl_str(doc, "epoch"), ctl_str(doc, "stale_blocks"));
	return CTL_OK;
}

static int space_raise(struct ctl *k, int argc, char **argv)
{
	const char *kv[] = { "space", argv[0], "epoch", k->epoch, NULL };

	(void)argc;
	return ctl_view(k, "space", "raise", kv, raise_text);
}

static int drop_text(struct ctl *k, json_object *doc)
{
	(void)k;
	printf("%s blocks dropped\n", ctl_str(doc, "dropped_blocks"));
	return CTL_OK;
}

static int space_drop(struct ctl *k, int argc, char **argv)
{
	const char *kv[] = { "space", argc ? argv[0] : NULL, NULL };
	const char *all[] = { "all", "1", NULL };

	if (!argc == !k->all)
		return ctl_usage("space drop: SPACE or --all");
	return ctl_view(k, "space", "drop", k->all ? all : kv, drop_text);
}

const struct ctl_verb ctl_space_verbs[] = {
	{ "list", "", 0, 0, "onb", "all spaces", space_list },
	{ "show", "SPACE", 1, 1, "onb", "one space and its groups", space_show },
	{ "raise", "SPACE", 1, 1, "P", "raise the epoch: all its blocks become unreachable",
	  space_raise },
	{ "drop", "[SPACE]", 0, 1, "A", "drop the cached blocks that nobody uses", space_drop },
	{ 0 },
};
