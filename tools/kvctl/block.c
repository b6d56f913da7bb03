/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block.c - kvctl block: block records.
 */
#include "tools/kvctl/kvctl.h"

static const struct ctl_col cols[] = {
	{ "block",	"block",	CTL_NUM,	true,	NULL },
	{ "gen",	"generation",	CTL_NUM,	false,	NULL },
	{ "state",	"state",	CTL_STR,	true,	NULL },
	{ "space",	"space",	CTL_STR,	true,	NULL },
	{ "group",	"group",	CTL_NUM,	true,	NULL },
	{ "epoch",	"epoch",	CTL_NUM,	false,	NULL },
	{ "stale",	"stale",	CTL_BOOL,	false,	NULL },
	{ "tier",	"tier",		CTL_STR,	true,	NULL },
	{ "slot",	"slot",		CTL_NUM,	true,	NULL },
	{ "ram",	"ram_place",	CTL_NUM,	false,	NULL },
	{ "disk",	"disk_place",	CTL_NUM,	false,	NULL },
	{ "ram_coded",	"ram_coded",	CTL_BOOL,	false,	NULL },
	{ "disk_coded",	"disk_coded",	CTL_BOOL,	false,	NULL },
	{ "moving",	"moving",	CTL_BOOL,	false,	NULL },
	{ "leases",	"leases",	CTL_NUM,	true,	NULL },
	{ "children",	"children",	CTL_NUM,	true,	NULL },
	{ "ram_children", "ram_children", CTL_NUM,	false,	NULL },
	{ "disk_children", "disk_children", CTL_NUM,	false,	NULL },
	{ "parent",	"parent",	CTL_NUM,	true,	NULL },
	{ "owner",	"owner_session", CTL_NUM,	false,	NULL },
	{ "position",	"position",	CTL_NUM,	true,	NULL },
	{ "uses",	"uses",		CTL_NUM,	true,	NULL },
	{ "priority",	"priority",	CTL_NUM,	false,	NULL },
	{ "flags",	"flags",	CTL_LIST,	true,	NULL },
	{ "idle",	"idle_ms",	CTL_MS,		true,	NULL },
	{ "key",	"key",		CTL_STR,	false,	NULL },
	{ 0 },
};

static int block_list(struct ctl *k, int argc, char **argv)
{
	const char *kv[] = { "space", k->space, "group", k->group, "state", k->state,
			     "tier", k->tier, "limit", k->limit, "offset", k->offset, NULL };

	(void)argc;
	(void)argv;
	return ctl_list(k, "block", "list", kv, "blocks", cols);
}

static int block_text(struct ctl *k, json_object *doc)
{
	return ctl_record(k, json_object_array_get_idx(ctl_get(doc, "blocks"), 0), cols);
}

static int block_show(struct ctl *k, int argc, char **argv)
{
	const char *kv[] = { "block", argv[0], NULL };
	const char *by_key[] = { "key", k->key, "space", k->space, "group", k->group, NULL };

	if (!argc == !k->key)
		return ctl_usage("block show: BLOCK, or --key with --space");
	return ctl_view(k, "block", "show", k->key ? by_key : kv, block_text);
}

const struct ctl_verb ctl_block_verbs[] = {
	{ "list", "", 0, 0, "onbSGTRLF", "records in use", block_list },
	{ "show", "[BLOCK]", 0, 1, "onbSGK", "one record, by number or by key", block_show },
	{ 0 },
};
