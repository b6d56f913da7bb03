/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fault.c - kvctl fault: make the daemon's own calls fail, for tests.
 */
#include "tools/kvctl/kvctl.h"

static const struct ctl_col fault_cols[] = {
	{ "site",	"site",		CTL_STR,	true,	NULL },
	{ "armed",	"armed",	CTL_BOOL,	true,	NULL },
	{ "calls",	"calls",	CTL_NUM,	true,	NULL },
	{ "hits",	"hits",		CTL_NUM,	true,	NULL },
	{ 0 },
};

static int fault_show(struct ctl *k, int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return ctl_list(k, "fault", "show", NULL, "sites", fault_cols);
}

static int fault_arm(struct ctl *k, int argc, char **argv)
{
	const char *kv[] = { "spec", argv[0], NULL };

	(void)argc;
	return ctl_act(k, "fault", "arm", kv, "armed: ", "armed");
}

static int fault_disarm(struct ctl *k, int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return ctl_act(k, "fault", "disarm", NULL, "disarmed", "");
}

const struct ctl_verb ctl_fault_verbs[] = {
	{ "show", "", 0, 0, "onb", "the sites, and what was hit", fault_show },
	{ "arm", "SPEC", 1, 1, "", "SITE:KEY=VALUE,... separated by ';'", fault_arm },
	{ "disarm", "", 0, 0, "", "no more faults", fault_disarm },
	{ 0 },
};
