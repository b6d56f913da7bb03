/* SPDX-License-Identifier: Apache-2.0 */
/*
 * prefetch.c - kvctl prefetch: bring the blocks of a key list up.
 *
 * A file may have more keys than one request: it is sent in pieces, in order.
 */
#include "tools/kvctl/kvctl.h"

/* Sums over the pieces; what is no count stays as the last one said. */
static void add_up(json_object *sum, json_object *doc)
{
	static const char *const keys[] = {
		"keys", "hbm_keys", "prefetched_keys", "missing_keys", "refused_keys",
	};

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		json_object_object_add(doc, keys[i], json_object_new_uint64(
				       ctl_u64(sum, keys[i]) + ctl_u64(doc, keys[i])));
}

static int send_piece(struct ctl *k, const char *space, const char *keys, json_object **sum)
{
	const char *kv[] = { "space", space, "group", k->group, "keys", keys, NULL };
	json_object *doc;
	int ret = ctl_ask(k, "prefetch", "run", kv, &doc);

	if (ret)
		return ret;
	if (*sum)
		add_up(*sum, doc);
	json_object_put(*sum);
	*sum = doc;
	return CTL_OK;
}

static int prefetch_file(struct ctl *k, const char *space, FILE *f, json_object **sum)
{
	struct ctl_keys keys = { 0 };
	char *line = NULL;
	size_t cap = 0;
	int ret = ctl_keys_init(&keys);

	while (!ret && getline(&line, &cap, f) > 0) {
		line[strcspn(line, " \t\r\n")] = '\0';
		if (!*line)
			continue;
		if (ctl_keys_full(&keys)) {
			ret = send_piece(k, space, keys.buf, sum);
			keys.len = 0;
		}
		if (!ret)
			ret = ctl_keys_add(&keys, line);
	}
	if (!ret && ferror(f))
		ret = ctl_fail(CTL_REFUSED, "read error: %s", strerror(errno));
	if (!ret && keys.len)
		ret = send_piece(k, space, keys.buf, sum);
	if (!ret && !*sum)
		ret = ctl_usage("prefetch: no key");
	free(line);
	free(keys.buf);
	return ret;
}

static int prefetch_run(struct ctl *k, int argc, char **argv)
{
	json_object *sum = NULL;
	FILE *f = stdin;
	int ret;

	if (argc > 1 && strcmp(argv[1], "-"))
		f = fopen(argv[1], "re");
	if (!f)
		return ctl_fail(CTL_REFUSED, "%s: %s", argv[1], strerror(errno));
	ret = prefetch_file(k, argv[0], f, &sum);
	if (f != stdin)
		fclose(f);
	if (!ret && k->json)
		ctl_print_json(sum);
	else if (!ret)
		printf("%s keys: %s asked for, %s in HBM, %s not cached, %s too many at a time\n",
		       ctl_str(sum, "keys"), ctl_str(sum, "prefetched_keys"),
		       ctl_str(sum, "hbm_keys"), ctl_str(sum, "missing_keys"),
		       ctl_str(sum, "refused_keys"));
	json_object_put(sum);
	return ret;
}

const struct ctl_verb ctl_prefetch_verbs[] = {
	{ "run", "SPACE [FILE]", 1, 2, "G", "bring the keys in FILE (or on standard input) to HBM",
	  prefetch_run },
	{ 0 },
};
