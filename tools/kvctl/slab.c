/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slab.c - kvctl slab: where the memory is, and why a slab cannot move.
 */
#include "tools/kvctl/kvctl.h"

const struct ctl_col ctl_slab_cols[] = {
	{ "slab",	"slab",			CTL_NUM,	true,	NULL },
	{ "gen",	"generation",		CTL_NUM,	false,	NULL },
	{ "state",	"state",		CTL_STR,	true,	NULL },
	{ "space",	"space",		CTL_STR,	true,	NULL },
	{ "group",	"group",		CTL_NUM,	true,	NULL },
	{ "device",	"device",		CTL_STR,	false,	NULL },
	{ "first",	"first_slot",		CTL_NUM,	false,	NULL },
	{ "slots",	"slots",		CTL_NUM,	true,	NULL },
	{ "used",	"used_slots",		CTL_NUM,	true,	NULL },
	{ "size",	"bytes",		CTL_BYTES,	true,	NULL },
	{ "mapped",	"mapped_clients",	CTL_NUM,	true,	NULL },
	{ "owing",	"owing_clients",	CTL_NUM,	false,	NULL },
	{ "taker",	"taker_space",		CTL_STR,	false,	NULL },
	{ "deadline",	"deadline_ms",		CTL_NUM,	false,	NULL },
	{ "why",	"why",			CTL_STR,	true,	NULL },
	{ 0 },
};

static const struct ctl_col held_cols[] = {
	{ "leased",	"leased_blocks",	CTL_NUM,	true,	NULL },
	{ "private",	"private_blocks",	CTL_NUM,	true,	NULL },
	{ "parents",	"parent_blocks",	CTL_NUM,	true,	NULL },
	{ "idle",	"idle_blocks",		CTL_NUM,	true,	NULL },
	{ 0 },
};

static const struct ctl_col holder_cols[] = {
	{ "pid",	"pid",		CTL_NUM,	true,	NULL },
	{ "session",	"session",	CTL_NUM,	true,	NULL },
	{ "mapped",	"mapped",	CTL_BOOL,	true,	NULL },
	{ "owes",	"owes_answer",	CTL_BOOL,	true,	NULL },
	{ 0 },
};

static int slab_list(struct ctl *k, int argc, char **argv)
{
	const char *kv[] = { "space", k->space, NULL };

	(void)argc;
	(void)argv;
	return ctl_list(k, "slab", "list", kv, "slabs", ctl_slab_cols);
}

static int slab_text(struct ctl *k, json_object *doc)
{
	int ret = ctl_record(k, doc, ctl_slab_cols);

	if (ret || k->cols)
		return ret;
	putchar('\n');
	ret = ctl_record(k, doc, held_cols);
	putchar('\n');
	return ret ? ret : ctl_table(k, doc, "holders", holder_cols);
}

static int slab_show(struct ctl *k, int argc, char **argv)
{
	const char *kv[] = { "slab", argv[0], NULL };

	(void)argc;
	return ctl_view(k, "slab", "show", kv, slab_text);
}

const struct ctl_verb ctl_slab_verbs[] = {
	{ "list", "", 0, 0, "onbS", "all slabs", slab_list },
	{ "show", "SLAB", 1, 1, "onb", "one slab: who maps it, what keeps it", slab_show },
	{ 0 },
};
