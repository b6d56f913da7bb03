/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - kvctl: see kvctl.h.
 */
#include <locale.h>

#include "tools/kvctl/kvctl.h"

int main(int argc, char **argv)
{
	setlocale(LC_CTYPE, "");	/* names are UTF-8; numbers stay as they are */
	return ctl_main(argc, argv);
}
