/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dev.c - kvctl dev: devices and their budgets.
 */
#include "tools/kvctl/kvctl.h"

static const struct ctl_col cols[] = {
	{ "device",	"device",		CTL_STR,	true,	NULL },
	{ "kind",	"kind",			CTL_STR,	true,	NULL },
	{ "state",	"state",		CTL_STR,	true,	NULL },
	{ "uuid",	"uuid",			CTL_STR,	false,	NULL },
	{ "model",	"model",		CTL_STR,	false,	NULL },
	{ "trouble",	"trouble",		CTL_STR,	false,	NULL },
	{ "budget",	"budget_bytes",		CTL_BYTES,	true,	NULL },
	{ "used",	"used_bytes",		CTL_BYTES,	true,	NULL },
	{ "slabs",	"slabs",		CTL_NUM,	true,	NULL },
	{ "granularity", "granularity_bytes",	CTL_BYTES,	false,	NULL },
	{ "grace",	"grace_ms",		CTL_MS,		true,	NULL },
	{ "ipc",	"ipc",			CTL_STR,	false,	NULL },
	{ "out",	"copied_out_bytes",	CTL_BYTES,	false,	NULL },
	{ "in",		"copied_in_bytes",	CTL_BYTES,	false,	NULL },
	{ "within",	"copied_within_bytes",	CTL_BYTES,	false,	NULL },
	{ "resets",	"resets",		CTL_NUM,	false,	NULL },
	{ "hugetlb",	"hugetlb",		CTL_BOOL,	false,	NULL },
	{ 0 },
};

static int dev_list(struct ctl *k, int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return ctl_list(k, "dev", "list", NULL, "devices", cols);
}

const struct ctl_verb ctl_dev_verbs[] = {
	{ "list", "", 0, 0, "onb", "all devices", dev_list },
	{ 0 },
};
