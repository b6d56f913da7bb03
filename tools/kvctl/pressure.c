/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pressure.c - kvctl pressure: as /proc/pressure reads, and per space.
 */
#include "tools/kvctl/kvctl.h"

static const struct ctl_col cols[] = {
	{ "space",	"space",		CTL_STR,	true,	NULL },
	{ "level",	"level",		CTL_STR,	true,	NULL },
	{ "waiting",	"waiting_allocations",	CTL_NUM,	true,	NULL },
	{ 0 },
};

static void print_kind(json_object *doc, const char *kind)
{
	json_object *p = ctl_get(doc, kind);

	printf("%s avg10=%.2f avg60=%.2f avg300=%.2f total=%llu\n", kind,
	       json_object_get_double(ctl_get(p, "avg10")),
	       json_object_get_double(ctl_get(p, "avg60")),
	       json_object_get_double(ctl_get(p, "avg300")),
	       (unsigned long long)ctl_u64(p, "total_us"));
}

static int pressure_show(struct ctl *k, int argc, char **argv)
{
	json_object *doc;
	int ret = ctl_ask(k, "pressure", "show", NULL, &doc);

	(void)argc;
	(void)argv;
	if (ret)
		return ret;
	if (k->json) {
		ctl_print_json(doc);
	} else {
		if (!k->cols) {
			print_kind(doc, "some");
			print_kind(doc, "full");
		}
		if (k->cols || json_object_array_length(ctl_get(doc, "spaces")))
			ret = ctl_table(k, doc, "spaces", cols);
	}
	json_object_put(doc);
	return ret;
}

const struct ctl_verb ctl_pressure_verbs[] = {
	{ "show", "", 0, 0, "on", "shares of the last 10, 60, 300 s; levels of the spaces",
	  pressure_show },
	{ 0 },
};
