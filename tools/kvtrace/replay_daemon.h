/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replay_daemon.h - the daemon of a pass: ours, in a temporary directory, or one
 * that runs. The parent's alone.
 */
#ifndef KVTRACE_REPLAY_DAEMON_H
#define KVTRACE_REPLAY_DAEMON_H

#include "tools/kvtrace/replay.h"

struct replay_daemon {
	const struct replay_plan *plan;
	char dir[108];			/* its temporary directory; "": not ours */
	char socket[108];
	char admin[128];		/* path of its admin socket */
	char conf[128], disk[128];	/* files in the directory */
	pid_t pid;			/* of what we started, daemon or keeper; 0: not ours */
	int pidfd;
	bool tiers;			/* ours has them, if the options say so */
	bool keeper;			/* what we started is the keeper */
};

/* Start an own daemon for @p, or take the one that runs: an exit code. @tiers: with them. */
int daemon_start(struct replay_daemon *d, const struct replay_plan *p, bool tiers);
/* Stop it if it is ours; an exit code, after a message if it ended badly. */
int daemon_stop(struct replay_daemon *d);
/*
 * kill -9, and wait until another one serves: its keeper starts it, or we do.
 * @lives: its counters are added up. An exit code.
 */
int daemon_restart(struct replay_daemon *d, struct replay_lives *lives);
/* The configuration of an own one, to d->conf. 0 or -errno. */
int daemon_config(const struct replay_daemon *d, const struct replay_plan *p, bool tiers);
/* A connected socket, or -errno. */
int daemon_dial(const char *path, int type);

/*
 * Ask the daemon: 0, or an exit code after a message. Waits until no more than
 * @pending tokens are pending (UINT64_MAX: does not): sequences of clients that
 * died take a moment.
 */
int daemon_stats(const struct replay_daemon *d, uint64_t pending, struct replay_stats *ret_s);
/* Who it is, silently. 0 or -errno. */
int daemon_pid(const struct replay_daemon *d, pid_t *ret_pid);

#endif
