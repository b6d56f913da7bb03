/* SPDX-License-Identifier: Apache-2.0 */
/*
 * seq.c - kvctl seq: sequences of the clients.
 */
#include "tools/kvctl/kvctl.h"

static const struct ctl_col cols[] = {
	{ "session",	"session",	CTL_NUM,	true,	NULL },
	{ "seq",	"seq",		CTL_NUM,	true,	NULL },
	{ "gen",	"generation",	CTL_NUM,	false,	NULL },
	{ "state",	"state",	CTL_STR,	true,	NULL },
	{ "tokens",	"tokens",	CTL_NUM,	true,	NULL },
	{ "positions",	"positions",	CTL_NUM,	true,	NULL },
	{ "no_store",	"no_store",	CTL_BOOL,	false,	NULL },
	{ "hole",	"has_hole",	CTL_BOOL,	false,	NULL },
	{ "stale",	"stale",	CTL_BOOL,	false,	NULL },
	{ "ready",	"ready_positions", CTL_NUM,	false,	NULL },
	{ "loading",	"loading",	CTL_BOOL,	false,	NULL },
	{ "swapped",	"swapped",	CTL_BOOL,	false,	NULL },
	{ "broken",	"broken",	CTL_BOOL,	false,	NULL },
	{ "publishing",	"publishing",	CTL_NUM,	true,	NULL },
	{ "waits_for",	"waits_for",	CTL_STR,	true,	NULL },
	{ 0 },
};

static const struct ctl_col position_cols[] = {
	{ "position",	"position",	CTL_NUM,	true,	NULL },
	{ "block",	"block",	CTL_NUM,	true,	NULL },
	{ "slot",	"slot",		CTL_NUM,	true,	NULL },
	{ "tier",	"tier",		CTL_STR,	false,	NULL },
	{ "state",	"state",	CTL_STR,	true,	NULL },
	{ "leases",	"leases",	CTL_NUM,	true,	NULL },
	{ 0 },
};

static int seq_list(struct ctl *k, int argc, char **argv)
{
	const char *kv[] = { "session", k->session, "limit", k->limit, "offset", k->offset, NULL };

	(void)argc;
	(void)argv;
	return ctl_list(k, "seq", "list", kv, "sequences", cols);
}

static int seq_text(struct ctl *k, json_object *doc)
{
	int ret = ctl_record(k, json_object_array_get_idx(ctl_get(doc, "sequences"), 0), cols);

	if (ret || k->cols)
		return ret;
	putchar('\n');
	ret = ctl_table(k, doc, "positions", position_cols);
	ctl_note_next(doc);
	return ret;
}

static int seq_show(struct ctl *k, int argc, char **argv)
{
	const char *kv[] = { "session", argv[0], "seq", argv[1], "group", k->group,
			     "limit", k->limit, "offset", k->offset, NULL };

	(void)argc;
	return ctl_view(k, "seq", "show", kv, seq_text);
}

const struct ctl_verb ctl_seq_verbs[] = {
	{ "list", "", 0, 0, "onbELF", "sequences of all sessions or of one", seq_list },
	{ "show", "SESSION SEQ", 2, 2, "onbGLF", "one sequence and its block table", seq_show },
	{ 0 },
};
