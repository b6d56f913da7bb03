/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pressure.c - kvctl pressure: as /proc/pressure reads, and per space; a wait
 * until so much of it is there.
 */
#include "kvmd/lib/conf.h"
#include "tools/kvctl/kvctl.h"

static const struct ctl_col cols[] = {
	{ "space",	"space",		CTL_STR,	true,	NULL },
	{ "level",	"level",		CTL_STR,	true,	NULL },
	{ "waiting",	"waiting_allocations",	CTL_NUM,	true,	NULL },
	{ 0 },
};

static void print_kind(json_object *doc, const char *res, const char *kind)
{
	json_object *p = ctl_get(ctl_get(doc, res), kind);

	printf("%-5s %s avg10=%.2f avg60=%.2f avg300=%.2f total=%llu\n", res, kind,
	       json_object_get_double(ctl_get(p, "avg10")),
	       json_object_get_double(ctl_get(p, "avg60")),
	       json_object_get_double(ctl_get(p, "avg300")),
	       (unsigned long long)ctl_u64(p, "total_us"));
}

static int pressure_text(struct ctl *k, json_object *doc)
{
	static const char *const resources[] = { "hbm", "load", "clean" };

	for (size_t i = 0; !k->cols && i < ARRAY_SIZE(resources); i++) {
		print_kind(doc, resources[i], "some");
		print_kind(doc, resources[i], "full");
	}
	if (!k->cols && !json_object_array_length(ctl_get(doc, "spaces")))
		return CTL_OK;
	return ctl_table(k, doc, "spaces", cols);
}

static int pressure_show(struct ctl *k, int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return ctl_view(k, "pressure", "show", NULL, pressure_text);
}

/* -------------------------------------------------------------------- waiting */

struct trigger {
	char resource[16], kind[16], permille[16], window_ms[24];
};

/* "10%", "2.5%" to thousandths. */
static int parse_share(const char *s, size_t len, struct trigger *t)
{
	unsigned whole = 0, tenth = 0;
	char text[16], end = 0;
	int nr;

	if (len >= sizeof(text))
		return -EINVAL;
	memcpy(text, s, len);
	text[len] = '\0';
	nr = sscanf(text, "%3u%%%c", &whole, &end);
	if (nr != 1 || text[len - 1] != '%') {
		nr = sscanf(text, "%3u.%1u%%%c", &whole, &tenth, &end);
		if (nr != 2 || text[len - 1] != '%')
			return -EINVAL;
	}
	whole = whole * 10 + tenth;
	if (!whole || whole > 1000)
		return -EINVAL;
	snprintf(t->permille, sizeof(t->permille), "%u", whole);
	return 0;
}

/* [RESOURCE.]KIND=SHARE,WINDOW */
static int parse_trigger(const char *s, struct trigger *t)
{
	size_t dot = strcspn(s, ".="), len;
	uint64_t ns;

	snprintf(t->resource, sizeof(t->resource), "hbm");
	if (s[dot] == '.') {
		if (dot >= sizeof(t->resource))
			return -EINVAL;
		memcpy(t->resource, s, dot);
		t->resource[dot] = '\0';
		s += dot + 1;
	}
	len = strcspn(s, "=");
	if (!s[len] || !len || len >= sizeof(t->kind))
		return -EINVAL;
	memcpy(t->kind, s, len);
	t->kind[len] = '\0';
	s += len + 1;
	len = strcspn(s, ",");
	if (!s[len] || !len || parse_share(s, len, t) || conf_parse_time(s + len + 1, &ns))
		return -EINVAL;
	snprintf(t->window_ms, sizeof(t->window_ms), "%llu", (unsigned long long)ns / 1000000);
	return 0;
}

static int pressure_wait(struct ctl *k, int argc, char **argv)
{
	struct trigger t = { 0 };
	const char *kv[] = { "resource", t.resource, "kind", t.kind, "permille", t.permille,
			     "window_ms", t.window_ms, NULL };
	json_object *doc;
	int ret;

	(void)argc;
	if (parse_trigger(argv[0], &t))
		return ctl_usage("'%s' is not [RESOURCE.]KIND=SHARE,WINDOW, as load.some=10%%,2s",
				 argv[0]);
	if (!k->timeout_given)
		k->timeout_ms = 0;	/* as long as it takes */
	ret = ctl_ask(k, "pressure", "wait", kv, &doc);
	if (ret)
		return ret;
	if (k->json)
		ctl_print_json(doc);
	else
		printf("%s %s: %llu ms of the last %s ms\n", ctl_str(doc, "resource"),
		       ctl_str(doc, "kind"), (unsigned long long)ctl_u64(doc, "stall_us") / 1000,
		       ctl_str(doc, "window_ms"));
	json_object_put(doc);
	return CTL_OK;
}

const struct ctl_verb ctl_pressure_verbs[] = {
	{ "show", "", 0, 0, "on", "shares of the last 10, 60, 300 s; levels of the spaces",
	  pressure_show },
	{ "wait", "[RESOURCE.]KIND=SHARE,WINDOW", 1, 1, "",
	  "until so much of a window of time was lost, like load.some=10%,2s", pressure_wait },
	{ 0 },
};
