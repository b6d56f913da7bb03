/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tenant.c - kvctl tenant: limits and use.
 */
#include "tools/kvctl/kvctl.h"

static const struct ctl_col cols[] = {
	{ "tenant",	"tenant",		CTL_STR,	true,	NULL },
	{ "sessions",	"sessions",		CTL_NUM,	true,	NULL },
	{ "max_sessions", "max_sessions",	CTL_NUM,	false,	NULL },
	{ "seqs",	"sequences",		CTL_NUM,	true,	NULL },
	{ "max_seqs",	"max_sequences",	CTL_NUM,	false,	NULL },
	{ "hbm",	"hbm_bytes",		CTL_BYTES,	true,	NULL },
	{ "min",	"hbm_min_bytes",	CTL_LIMIT,	true,	NULL },
	{ "low",	"hbm_low_bytes",	CTL_LIMIT,	true,	NULL },
	{ "high",	"hbm_high_bytes",	CTL_LIMIT,	true,	NULL },
	{ "max",	"hbm_max_bytes",	CTL_LIMIT,	true,	NULL },
	{ "ram",	"ram_bytes",		CTL_BYTES,	true,	NULL },
	{ "ram_max",	"ram_max_bytes",	CTL_LIMIT,	false,	NULL },
	{ "disk",	"disk_bytes",		CTL_BYTES,	true,	NULL },
	{ "disk_max",	"disk_max_bytes",	CTL_LIMIT,	false,	NULL },
	{ "pinned",	"pinned_bytes",		CTL_BYTES,	true,	NULL },
	{ "max_pinned",	"max_pinned_bytes",	CTL_BYTES,	false,	NULL },
	{ "ring",	"ring_bytes",		CTL_BYTES,	true,	NULL },
	{ "max_ring",	"max_ring_bytes",	CTL_BYTES,	false,	NULL },
	{ "low_events",	"low_events",		CTL_NUM,	false,	NULL },
	{ "high_events", "high_events",		CTL_NUM,	false,	NULL },
	{ "max_events",	"max_events",		CTL_NUM,	false,	NULL },
	{ 0 },
};

static int tenant_list(struct ctl *k, int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return ctl_list(k, "tenant", "list", NULL, "tenants", cols);
}

const struct ctl_verb ctl_tenant_verbs[] = {
	{ "list", "", 0, 0, "onb", "all tenants", tenant_list },
	{ 0 },
};
