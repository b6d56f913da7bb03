/* SPDX-License-Identifier: Apache-2.0 */
/*
 * help.c - kvctl help: all from the table.
 */
#include "tools/kvctl/kvctl.h"

static const struct ctl_option *option_of(char letter)
{
	for (const struct ctl_option *o = ctl_options; o->name; o++)
		if (o->letter == letter)
			return o;
	return NULL;
}

/* --------------------------------------------------------------------- help */

static void print_option(const struct ctl_option *o)
{
	char text[64], letter[4] = "   ";

	if (o->is_short)
		snprintf(letter, sizeof(letter), "-%c,", o->letter);
	snprintf(text, sizeof(text), "--%s%s%s", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
	printf("  %s %-18s %s\n", letter, text, o->help);
}

static void print_all(void)
{
	printf("usage: %s [OPTION...] NOUN [VERB] [ARG...]\n\n", KVMD_KVCTL_NAME);
	for (const struct ctl_noun *n = ctl_nouns; n->noun; n++)
		printf("  %-12s %s\n", n->noun, n->help);
	printf("\nWithout a noun: status. The first verb of a noun needs not be named.\n\n");
	for (const struct ctl_option *o = ctl_options; o->name; o++)
		if (o->global)
			print_option(o);
	printf("\n%s help NOUN names its verbs and their options.\n", KVMD_KVCTL_NAME);
	printf("Exit status: 0 done, 1 refused, 2 usage, 3 no daemon, 4 permission, 5 timeout.\n");
}

static void print_noun(const struct ctl_noun *n)
{
	printf("%s: %s\n\n", n->noun, n->help);
	for (const struct ctl_verb *v = n->verbs; v->verb; v++) {
		printf("%s %s %s%s%s\n", KVMD_KVCTL_NAME, n->noun, v->verb, *v->args ? " " : "",
		       v->args);
		printf("      %s\n", v->help);
		for (const char *o = v->opts; *o; o++)
			print_option(option_of(*o));
	}
}

/* Every noun, verb and option on a line of its own, for the manual's check. */
static void print_list(void)
{
	for (const struct ctl_option *o = ctl_options; o->name; o++)
		if (o->global)
			printf("--%s\n", o->name);
	for (const struct ctl_noun *n = ctl_nouns; n->noun; n++) {
		printf("%s\n", n->noun);
		for (const struct ctl_verb *v = n->verbs; v->verb; v++) {
			printf("%s %s\n", n->noun, v->verb);
			for (const char *o = v->opts; *o; o++)
				printf("%s %s --%s\n", n->noun, v->verb, option_of(*o)->name);
		}
	}
}

static void add_str(json_object *o, const char *key, const char *s)
{
	json_object_object_add(o, key, json_object_new_string(s));
}

static void print_help_json(void)
{
	json_object *doc = json_object_new_object(), *rows = json_object_new_array();

	json_object_object_add(doc, "schema", json_object_new_int(1));
	for (const struct ctl_noun *n = ctl_nouns; n->noun; n++) {
		for (const struct ctl_verb *v = n->verbs; v->verb; v++) {
			json_object *row = json_object_new_object();
			json_object *opts = json_object_new_array();

			add_str(row, "noun", n->noun);
			add_str(row, "verb", v->verb);
			add_str(row, "arguments", v->args);
			add_str(row, "help", v->help);
			for (const char *o = v->opts; *o; o++)
				json_object_array_add(opts,
						      json_object_new_string(option_of(*o)->name));
			json_object_object_add(row, "options", opts);
			json_object_array_add(rows, row);
		}
	}
	json_object_object_add(doc, "commands", rows);
	ctl_print_json(doc);
	json_object_put(doc);
}

static int help_show(struct ctl *k, int argc, char **argv)
{
	const struct ctl_noun *n = argc ? ctl_noun_find(argv[0]) : NULL;

	if (argc && !n)
		return ctl_usage("no noun '%s'", argv[0]);
	if (k->list)
		print_list();
	else if (k->json)
		print_help_json();
	else if (n)
		print_noun(n);
	else
		print_all();
	return CTL_OK;
}

const struct ctl_verb ctl_help_verbs[] = {
	{ "show", "[NOUN]", 0, 1, "I", "all nouns, or the verbs of one", help_show },
	{ 0 },
};
