// SPDX-License-Identifier: Apache-2.0
/*
 * main.c - kvtrace: make, look at and replay request traces.
 *
 * One table of verbs feeds dispatch and help.
 */
#include <getopt.h>
#include <stdio.h>

#include "tools/kvtrace/kvtrace.h"

static int cmd_help(int argc, char **argv);

static const struct kvt_cmd cmds[] = {
	{ "gen", cmd_gen, "[OPTION]...", "make a trace like a chat or agent service's" },
	{ "info", cmd_info, "[OPTION]... FILE", "describe a trace: sizes, reuse, sessions" },
	{ "replay", cmd_replay, "[OPTION]... FILE", "play a trace through real client processes" },
	{ "help", cmd_help, "[COMMAND]", "show this text, or that of a command" },
};

static void list_commands(FILE *f)
{
	size_t i;

	fputs("usage: kvtrace COMMAND [OPTION]... [ARGUMENT]...\n"
	      "Make, describe and replay request traces in Mooncake's public form.\n\n"
	      "Commands:\n", f);
	for (i = 0; i < ARRAY_SIZE(cmds); i++)
		fprintf(f, "  %-7s %-17s %s\n", cmds[i].name, cmds[i].args, cmds[i].help);
	fputs("\n'kvtrace COMMAND --help' lists a command's options, 'kvtrace --version'\n"
	      "says which kvtrace this is.\n"
	      "Exit status: 0 done, 1 refused or bad data, 2 usage.\n", f);
}

static const struct kvt_cmd *find_cmd(const char *name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cmds); i++)
		if (!strcmp(cmds[i].name, name))
			return &cmds[i];
	return NULL;
}

static int no_such_cmd(const char *name)
{
	fprintf(stderr, "kvtrace: no command '%s'\nTry 'kvtrace help'.\n", name);
	return KVT_USAGE;
}

static int cmd_help(int argc, char **argv)
{
	static char opt_help[] = "--help";
	const struct kvt_cmd *cmd;
	char *args[3] = { NULL, opt_help, NULL };

	if (argc > 2)
		return kvt_usage("help", "one command at most");
	if (argc < 2 || argv[1][0] == '-' || !strcmp(argv[1], "help")) {
		list_commands(stdout);
		return kvt_flush();
	}
	cmd = find_cmd(argv[1]);
	if (!cmd)
		return no_such_cmd(argv[1]);
	args[0] = argv[1];
	return cmd->func(2, args);
}

int main(int argc, char **argv)
{
	const struct kvt_cmd *cmd;
	char name[32];

	if (argc < 2) {
		list_commands(stderr);
		return KVT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
		list_commands(stdout);
		return kvt_flush();
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
		puts("kvtrace " KVMD_VERSION);
		return kvt_flush();
	}
	cmd = find_cmd(argv[1]);
	if (!cmd)
		return no_such_cmd(argv[1]);
	/* getopt's messages begin with argv[0]. */
	snprintf(name, sizeof(name), "kvtrace %s", cmd->name);
	argv[1] = name;
	return cmd->func(argc - 1, argv + 1);
}
