/* SPDX-License-Identifier: Apache-2.0 */
/*
 * completion.c - kvctl completion: a script for bash(1), made from the table.
 */
#include "tools/kvctl/kvctl.h"

static void print_options(const char *letters, bool global)
{
	for (const struct ctl_option *o = ctl_options; o->name; o++) {
		if (global ? !o->global : o->global || !strchr(letters, o->letter))
			continue;
		printf(" --%s", o->name);
	}
}

/* What may follow NOUN VERB as an argument, asked from the daemon. */
static const char *argument_source(const char *args)
{
	if (strstr(args, "TIER"))
		return "tier list -n -o tier";
	if (strstr(args, "SPACE"))
		return "space list -n -o space";
	if (strstr(args, "SESSION"))
		return "client list -n -o session";
	if (strstr(args, "SLAB"))
		return "slab list -n -o slab";
	if (strstr(args, "BLOCK"))
		return "block list -n -o block --limit 100";
	return NULL;
}

static void print_noun(const struct ctl_noun *n)
{
	printf("\t%s)\n\t\tverbs=\"", n->noun);
	for (const struct ctl_verb *v = n->verbs; v->verb; v++)
		printf("%s%s", v == n->verbs ? "" : " ", v->verb);
	printf("\"\n\t\tcase $verb in\n");
	for (const struct ctl_verb *v = n->verbs; v->verb; v++) {
		const char *source = argument_source(v->args);

		printf("\t\t%s%s)\n\t\t\topts=\"", v->verb, v == n->verbs ? "|''" : "");
		print_options(v->opts, false);
		printf("\"\n");
		if (source)
			printf("\t\t\targs=$(%s \"${sock[@]}\" -t 1s %s 2>/dev/null)\n",
			       KVMD_KVCTL_NAME, source);
		else if (strstr(v->args, "FILE"))
			printf("\t\t\targs=$(compgen -f -- \"$cur\")\n");
		else if (!strcmp(n->noun, "log") && *v->args)
			printf("\t\t\targs=\"err warn info debug\"\n");
		printf("\t\t\t;;\n");
	}
	printf("\t\tesac\n\t\t;;\n");
}

static void print_nouns(void)
{
	for (const struct ctl_noun *n = ctl_nouns; n->noun; n++)
		printf("%s%s", n == ctl_nouns ? "" : " ", n->noun);
}

/* Options that take a value: the word behind one is no noun, verb or argument. */
static void print_valued(void)
{
	bool first = true;

	for (const struct ctl_option *o = ctl_options; o->name; o++) {
		if (!o->arg)
			continue;
		printf("%s--%s", first ? "" : "|", o->name);
		if (o->is_short)
			printf("|-%c", o->letter);
		first = false;
	}
}

static void print_bash(void)
{
	printf("# bash completion of %s, made by `%s completion`.\n", KVMD_KVCTL_NAME,
	       KVMD_KVCTL_NAME);
	printf("_%s()\n{\n", KVMD_KVCTL_NAME);
	printf("\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n");
	printf("\tlocal noun='' verb='' verbs='' opts='' args='' i\n\tlocal -a sock=()\n\n");
	printf("\tfor ((i = 1; i < COMP_CWORD; i++)); do\n\t\tcase ${COMP_WORDS[i]} in\n");
	printf("\t\t-s|--socket) sock=(-s \"${COMP_WORDS[++i]}\") ;;\n\t\t");
	print_valued();
	printf(") ((i++)) ;;\n\t\t-*) ;;\n");
	printf("\t\t*) if [ -z \"$noun\" ]; then noun=${COMP_WORDS[i]}\n");
	printf("\t\t   elif [ -z \"$verb\" ]; then verb=${COMP_WORDS[i]}; fi ;;\n");
	printf("\t\tesac\n\tdone\n\n");
	printf("\tcase $prev in\n");
	printf("\t-s|--socket|--output)\n"
	       "\t\tmapfile -t COMPREPLY < <(compgen -f -- \"$cur\"); return ;;\n");
	printf("\t--space) mapfile -t COMPREPLY < <(compgen -W \"$(%s \"${sock[@]}\" -t 1s "
	       "space list -n -o space 2>/dev/null)\" -- \"$cur\"); return ;;\n", KVMD_KVCTL_NAME);
	printf("\t");
	print_valued();
	printf(") return ;;\n\tesac\n\n");
	printf("\tcase $noun in\n\t'')\n\t\tverbs=\"");
	print_nouns();
	printf("\"\n\t\t;;\n\thelp)\n\t\tverbs=\"");
	print_nouns();
	printf("\"\n\t\topts=\"--list\"\n\t\t;;\n\tcompletion)\n\t\tverbs=\"bash\"\n\t\t;;\n");
	for (const struct ctl_noun *n = ctl_nouns; n->noun; n++)
		if (strcmp(n->noun, "help") && strcmp(n->noun, "completion"))
			print_noun(n);
	printf("\tesac\n");
	printf("\t[ -n \"$verb\" ] && verbs=''\n");
	printf("\t[[ $cur == -* ]] && { verbs=''; args=\"$opts");
	print_options("", true);
	printf("\"; }\n");
	printf("\tmapfile -t COMPREPLY < <(compgen -W \"$verbs $args\" -- \"$cur\")\n}\n");
	printf("complete -F _%s %s\n", KVMD_KVCTL_NAME, KVMD_KVCTL_NAME);
}

static int completion_bash(struct ctl *k, int argc, char **argv)
{
	(void)k;
	(void)argc;
	(void)argv;
	print_bash();
	return CTL_OK;
}

const struct ctl_verb ctl_completion_verbs[] = {
	{ "bash", "", 0, 0, "", "for bash(1); source it, or put it where bash looks",
	  completion_bash },
	{ 0 },
};
