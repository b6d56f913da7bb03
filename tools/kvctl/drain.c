/* SPDX-License-Identifier: Apache-2.0 */
/*
 * drain.c - kvctl drain: empty chosen slabs.
 */
#include "tools/kvctl/kvctl.h"

/* Only those on their way out. */
static int drain_list(struct ctl *k, int argc, char **argv)
{
	static const char *const states[] = { "creating", "announced", "active" };
	json_object *doc, *slabs, *out;
	int ret = ctl_ask(k, "slab", "list", NULL, &doc);

	(void)argc;
	(void)argv;
	if (ret)
		return ret;
	slabs = ctl_get(doc, "slabs");
	out = json_object_new_array();
	for (size_t i = 0; i < json_object_array_length(slabs); i++) {
		json_object *row = json_object_array_get_idx(slabs, i);
		bool stays = false;

		for (size_t s = 0; s < ARRAY_SIZE(states); s++)
			stays |= !strcmp(ctl_str(row, "state"), states[s]);
		if (!stays)
			json_object_array_add(out, json_object_get(row));
	}
	json_object_object_add(doc, "slabs", out);
	if (k->json)
		ctl_print_json(doc);
	else
		ret = ctl_table(k, doc, "slabs", ctl_slab_cols);
	json_object_put(doc);
	return ret;
}

static int act_text(struct ctl *k, json_object *doc)
{
	(void)k;
	printf("slab %s: %s\n", ctl_str(doc, "slab"), ctl_str(doc, "state"));
	return CTL_OK;
}

static int drain_act(struct ctl *k, const char *verb, const char *slab)
{
	const char *kv[] = { "slab", slab, NULL };

	return ctl_view(k, "drain", verb, kv, act_text);
}

static int drain_start(struct ctl *k, int argc, char **argv)
{
	(void)argc;
	return drain_act(k, "start", argv[0]);
}

static int drain_stop(struct ctl *k, int argc, char **argv)
{
	(void)argc;
	return drain_act(k, "stop", argv[0]);
}

const struct ctl_verb ctl_drain_verbs[] = {
	{ "list", "", 0, 0, "onb", "slabs that are being emptied or given back", drain_list },
	{ "start", "SLAB", 1, 1, "", "empty it and give its memory back", drain_start },
	{ "stop", "SLAB", 1, 1, "", "keep it after all", drain_stop },
	{ 0 },
};
