/* SPDX-License-Identifier: Apache-2.0 */
/*
 * conf.c - kvctl conf: the options in force, and reading them again.
 */
#include "tools/kvctl/kvctl.h"

/* As kvmd's -o takes it: section.key or section.name.key. */
static void fmt_option(const struct ctl *k, json_object *row, char *buf, size_t n)
{
	const char *name = ctl_str(row, "name");

	(void)k;
	snprintf(buf, n, "%s.%s%s%s", ctl_str(row, "section"), name, *name ? "." : "",
		 ctl_str(row, "key"));
}

static const struct ctl_col cols[] = {
	{ "option",	NULL,		CTL_STR,	true,	fmt_option },
	{ "value",	"value",	CTL_STR,	true,	NULL },
	{ "default",	"default",	CTL_STR,	true,	NULL },
	{ "reload",	"reloadable",	CTL_BOOL,	false,	NULL },
	{ "help",	"help",		CTL_STR,	false,	NULL },
	{ 0 },
};

static int conf_show(struct ctl *k, int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return ctl_list(k, "conf", "show", NULL, "options", cols);
}

static int reload_text(struct ctl *k, json_object *doc)
{
	const char *message = ctl_str(doc, "message");

	(void)k;
	printf("reloaded%s%s\n", *message ? ": " : "", message);
	return CTL_OK;
}

static int conf_reload(struct ctl *k, int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return ctl_view(k, "conf", "reload", NULL, reload_text);
}

const struct ctl_verb ctl_conf_verbs[] = {
	{ "show", "", 0, 0, "onb", "every option and its value", conf_show },
	{ "reload", "", 0, 0, "", "read the file again, as SIGHUP does", conf_reload },
	{ 0 },
};
