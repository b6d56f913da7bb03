/* SPDX-License-Identifier: Apache-2.0 */
/*
 * prog_list_conf.c - every option of the configuration, one a line, for scripts.
 *
 * SECTION KEY DEFAULT RELOADABLE, blanks between, "none" where there is no
 * default, "yes" or "no". Single thread, no daemon.
 */
#include <stdio.h>

#include "kvmd/svc/config.h"

int main(void)
{
	for (size_t i = 0; i < config_table.nr_opts; i++) {
		const struct conf_opt *o = &config_table.opts[i];

		printf("%s %s %s %s\n", o->section, o->key, o->def ? o->def : "none",
		       o->reloadable ? "yes" : "no");
	}
	return fflush(stdout) ? 1 : 0;
}
