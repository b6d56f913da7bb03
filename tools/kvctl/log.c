/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log.c - kvctl log: the daemon's log level.
 */
#include "tools/kvctl/kvctl.h"

static int log_show(struct ctl *k, int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return ctl_act(k, "log", "show", NULL, "", "level");
}

static int log_level(struct ctl *k, int argc, char **argv)
{
	const char *kv[] = { "level", argv[0], NULL };

	(void)argc;
	return ctl_act(k, "log", "level", kv, "", "level");
}

const struct ctl_verb ctl_log_verbs[] = {
	{ "show", "", 0, 0, "", "highest level that is logged", log_show },
	{ "level", "LEVEL", 1, 1, "", "log up to err, warn, info or debug", log_level },
	{ 0 },
};
