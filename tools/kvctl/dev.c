/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dev.c - kvctl dev: devices and their budgets.
 */
#include "tools/kvctl/kvctl.h"

static const struct ctl_col cols[] = {
	{ "device",	"device",		CTL_STR,	true,	NULL },
	{ "kind",	"kind",			CTL_STR,	true,	NULL },
	{ "budget",	"budget_bytes",		CTL_BYTES,	true,	NULL },
	{ "used",	"used_bytes",		CTL_BYTES,	true,	NULL },
	{ "slabs",	"slabs",		CTL_NUM,	true,	NULL },
	{ "granularity", "granularity_bytes",	CTL_BYTES,	false,	NULL },
	{ "grace",	"grace_ms",		CTL_MS,		true,	NULL },
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
