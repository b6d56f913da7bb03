/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check.c - kvctl check: does all metadata agree?
 */
#include "tools/kvctl/kvctl.h"

static int check_run(struct ctl *k, int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return ctl_act(k, "check", "run", NULL, "everything agrees; records: ", "records");
}

const struct ctl_verb ctl_check_verbs[] = {
	{ "run", "", 0, 0, "", "compare records, slots, tenants and index; clients wait meanwhile",
	  check_run },
	{ 0 },
};
