/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - options, ordered start and stop; nothing else.
 */
#include <getopt.h>
#include <stdio.h>

#include "kvmd/lib/fdstore.h"
#include "kvmd/lib/log.h"
#include "kvmd/lib/mem.h"
#include "kvmd/svc/daemon.h"

#ifndef KVMD_VERSION
#define KVMD_VERSION "0"
#endif

static const char usage_text[] =
	"usage: kvmd [-n] [-c FILE] [-o SECTION.KEY=VALUE]...\n"
	"  -c FILE   read the configuration from FILE (default: none, all defaults)\n"
	"  -o S.K=V  set one option, after the file; may be given again\n"
	"  -n        check the configuration, say what is wrong, exit\n"
	"  -V        print the version\n"
	"  -h        print this\n"
	"kvmd stays in the foreground. SIGTERM stops it, SIGHUP reloads FILE.\n";

static int load(struct daemon *d, const char *path, char *const *set, int nr_set)
{
	char msg[512] = "out of memory";
	int err = config_init(&d->conf);

	if (!err && path)
		err = config_load(&d->conf, path, msg, sizeof(msg));
	for (int i = 0; i < nr_set && !err; i++)
		err = config_set(&d->conf, set[i], msg, sizeof(msg));
	if (!err)
		err = config_finish(&d->conf, msg, sizeof(msg));
	if (err)
		log_err("%s", msg);
	return err;
}

int main(int argc, char **argv)
{
	const char *path = NULL;
	char **set = NULL;
	int nr_set = 0, opt, err;
	bool check = false;
	struct daemon *d;

	while ((opt = getopt(argc, argv, "c:o:nVh")) != -1) {
		switch (opt) {
		case 'c':
			path = optarg;
			break;
		case 'o':
			set = mem_realloc(set, (size_t)(nr_set + 1) * sizeof(*set));
			if (!set)
				return 1;
			set[nr_set++] = optarg;
			break;
		case 'n':
			check = true;
			break;
		case 'V':
			puts("kvmd " KVMD_VERSION);
			return 0;
		case 'h':
			fputs(usage_text, stdout);
			return 0;
		default:
			fputs(usage_text, stderr);
			return 2;
		}
	}
	if (optind != argc) {
		fputs(usage_text, stderr);
		return 2;
	}
	d = mem_big_alloc(sizeof(*d), false);
	if (!d)
		return 1;
	err = load(d, path, set, nr_set);
	mem_free(set);
	if (err || check)
		goto out;
	d->conf_path = path ? mem_strdup(path) : NULL;
	err = fdstore_open();
	if (err)
		log_warn("NOTIFY_SOCKET: %s: nobody is told when kvmd serves", strerror(-err));
	err = daemon_init(d);
	if (!err) {
		fdstore_ready();
		log_info("kvmd %s serves %s", KVMD_VERSION, d->conf.daemon.socket);
		err = daemon_run(d);
		fdstore_stopping();
		log_info("stopping");
	}
	daemon_exit(d);
	mem_free(d->conf_path);
out:
	config_exit(&d->conf);
	mem_big_free(d, sizeof(*d));
	return err ? 1 : 0;
}
