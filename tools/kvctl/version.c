/* SPDX-License-Identifier: Apache-2.0 */
/*
 * version.c - kvctl version.
 */
#include "tools/kvctl/kvctl.h"

#ifndef KVMD_VERSION
#define KVMD_VERSION "unknown"
#endif

static int version_show(struct ctl *k, int argc, char **argv)
{
	(void)argc;
	(void)argv;
	if (k->json)
		printf("{ \"schema\": 1, \"version\": \"%s\" }\n", KVMD_VERSION);
	else
		printf("%s %s\n", KVMD_KVCTL_NAME, KVMD_VERSION);
	return CTL_OK;
}

const struct ctl_verb ctl_version_verbs[] = {
	{ "show", "", 0, 0, "", "version of this program", version_show },
	{ 0 },
};
