// SPDX-License-Identifier: Apache-2.0
/*
 * replay_daemon.c - an own daemon in a temporary directory, or the one that
 * runs: start, stop, restart.
 *
 * The daemon's binary is looked for beside our own, then in PATH; so is the
 * keeper's, under which it runs when it is to be killed. It dies with us, however
 * we end; its directory is removed when we end in order.
 */
#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kvmd/lib/clock.h"
#include "tools/kvtrace/kvtrace.h"
#include "tools/kvtrace/replay_daemon.h"

#define START_NS	20000000000ULL
#define APPEAR_NS	5000000000ULL	/* of a daemon that somebody else starts */
#define STOP_NS		20000000000ULL
#define LOOK_MS		5
#define RESPAWN_MS	100
#define RESTART_NS	60000000000ULL
#define PATH_BYTES	4096
#define MAX_ARGS	(2 * REPLAY_MAX_CONF + 8)
#ifndef KVMD_KEEPER_NAME
#define KVMD_KEEPER_NAME "kvkeeper"
#endif

/* ------------------------------------------------------------ sockets */

int daemon_dial(const char *path, int type)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd, err;

	if (strlen(path) >= sizeof(un.sun_path))
		return -ENAMETOOLONG;
	strcpy(un.sun_path, path);
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (!connect(fd, (struct sockaddr *)&un, sizeof(un)))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

/* ------------------------------------------------------------ starting */

/* @built beside us, or @name as installed, in the sibling sbin; else wherever PATH says. */
static void find_binary(const char *built, const char *name, char *path, size_t bytes)
{
	const struct { const char *dir, *name; } places[] = {
		{ "", built }, { "", name }, { "../sbin/", name },
	};
	char own[PATH_BYTES];
	ssize_t n = readlink("/proc/self/exe", own, sizeof(own) - 1);
	size_t i;

	if (n > 0) {
		own[n] = '\0';
		dirname(own);
		for (i = 0; i < ARRAY_SIZE(places); i++) {
			snprintf(path, bytes, "%s/%s%s", own, places[i].dir, places[i].name);
			if (!access(path, X_OK))
				return;
		}
	}
	snprintf(path, bytes, "%s", name);
}

/* Options of the command line that @d takes: tiers' only if it has them. */
static bool takes_conf(const struct replay_daemon *d, const char *conf)
{
	return d->tiers || (strncmp(conf, "ram.", 4) && strncmp(conf, "disk.", 5));
}

/* In the child: never returns. */
static void exec_daemon(const struct replay_daemon *d, char **argv, pid_t parent)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* A keeper takes its daemon with it; it cannot if it is killed itself. */
	prctl(PR_SET_PDEATHSIG, d->keeper ? SIGTERM : SIGKILL);
	if (getppid() != parent)
		_exit(127);
	/* What it prints is no part of our result. */
	dup2(STDERR_FILENO, STDOUT_FILENO);
	execvp(argv[0], argv);
	fprintf(stderr, "kvtrace replay: %s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

/* Fork it. 0 or -errno. */
static int spawn(struct replay_daemon *d)
{
	static char opt_c[] = "-c", opt_o[] = "-o";
	const struct replay_opts *o = d->plan->o;
	char binary[PATH_BYTES + 64], keeper[PATH_BYTES + 64], *argv[MAX_ARGS];
	pid_t self = getpid();
	uint32_t i, n = 0;

	find_binary("kvmd", KVMD_DAEMON_NAME, binary, sizeof(binary));
	find_binary("kvkeeper", KVMD_KEEPER_NAME, keeper, sizeof(keeper));
	if (d->keeper)
		argv[n++] = keeper;
	argv[n++] = binary;
	argv[n++] = opt_c;
	argv[n++] = d->conf;
	for (i = 0; i < o->nr_conf; i++) {
		if (!takes_conf(d, o->conf[i]))
			continue;
		argv[n++] = opt_o;
		argv[n++] = (char *)(uintptr_t)o->conf[i];
	}
	argv[n] = NULL;
	fflush(NULL);
	d->pid = fork();
	if (d->pid < 0) {
		d->pid = 0;
		return -errno;
	}
	if (!d->pid)
		exec_daemon(d, argv, self);
	d->pidfd = (int)syscall(SYS_pidfd_open, d->pid, 0);
	return d->pidfd < 0 ? -errno : 0;
}

static bool answers(const char *path, int type)
{
	int fd = daemon_dial(path, type);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

/* Until both sockets accept; 0, or -errno: it ended, or takes too long. */
static int wait_ready(const struct replay_daemon *d, uint64_t ns)
{
	uint64_t until = clock_ns() + ns;
	struct pollfd ended = { .fd = d->pidfd, .events = POLLIN };

	while (!answers(d->socket, SOCK_SEQPACKET) || !answers(d->admin, SOCK_STREAM)) {
		if (poll(&ended, 1, LOOK_MS) > 0)
			return -ECHILD;
		if (clock_ns() >= until)
			return -ETIMEDOUT;
	}
	return 0;
}

static void remove_dir(struct replay_daemon *d)
{
	if (!d->dir[0])
		return;
	unlink(d->conf);
	unlink(d->disk);
	unlink(d->socket);
	unlink(d->admin);
	rmdir(d->dir);
	d->dir[0] = '\0';
}

static int make_dir(struct replay_daemon *d)
{
	const char *tmp = getenv("TMPDIR");
	int n, err = 0;

	n = snprintf(d->dir, sizeof(d->dir), "%s/kvtrace.XXXXXX", tmp && *tmp ? tmp : "/tmp");
	/* A socket's path has 108 bytes. */
	if (n > (int)sizeof(d->dir) - 16)
		err = ENAMETOOLONG;
	else if (!mkdtemp(d->dir))
		err = errno;
	if (err) {
		kvt_warn("%s: %s", d->dir, strerror(err));
		d->dir[0] = '\0';
		return KVT_REFUSED;
	}
	snprintf(d->socket, sizeof(d->socket), "%.90s/s", d->dir);
	snprintf(d->admin, sizeof(d->admin), "%.90s/s.admin", d->dir);
	snprintf(d->conf, sizeof(d->conf), "%.90s/conf", d->dir);
	snprintf(d->disk, sizeof(d->disk), "%.90s/disk", d->dir);
	return KVT_OK;
}

static int use_running(struct replay_daemon *d, const struct replay_opts *o)
{
	int err;

	snprintf(d->socket, sizeof(d->socket), "%s", o->socket);
	if (o->admin)
		snprintf(d->admin, sizeof(d->admin), "%s", o->admin);
	else
		snprintf(d->admin, sizeof(d->admin), "%s.admin", d->socket);
	err = wait_ready(d, APPEAR_NS);
	if (!err)
		return KVT_OK;
	kvt_warn("no daemon answers on %s and %s", d->socket, d->admin);
	return KVT_REFUSED;
}

int daemon_start(struct replay_daemon *d, const struct replay_plan *p, bool tiers)
{
	int err;

	memset(d, 0, sizeof(*d));
	d->plan = p;
	d->pidfd = -1;
	d->tiers = tiers;
	/* Without tiers it must be ours. */
	if (p->o->socket && tiers)
		return use_running(d, p->o);
	d->keeper = tiers && p->o->restarts && p->o->keeper;
	if (make_dir(d))
		return KVT_REFUSED;
	err = daemon_config(d, p, tiers);
	if (err) {
		kvt_warn("%s: %s", d->conf, strerror(-err));
		remove_dir(d);
		return KVT_REFUSED;
	}
	err = spawn(d);
	if (!err)
		err = wait_ready(d, START_NS);
	if (!err)
		return KVT_OK;
	kvt_warn("the daemon does not start: %s", err == -ECHILD ? "it ended" : strerror(-err));
	(void)daemon_stop(d);
	return KVT_REFUSED;
}

int daemon_stop(struct replay_daemon *d)
{
	struct pollfd ended = { .fd = d->pidfd, .events = POLLIN };
	int status = 0, err = KVT_OK;

	if (d->pid > 0) {
		kill(d->pid, SIGTERM);
		if (d->pidfd < 0 || poll(&ended, 1, (int)(STOP_NS / 1000000)) != 1) {
			kvt_warn("the daemon does not stop: killed");
			kill(d->pid, SIGKILL);
		}
		waitpid(d->pid, &status, 0);
		if (!WIFEXITED(status) || WEXITSTATUS(status)) {
			kvt_warn("the daemon ended with %s %d",
				 WIFSIGNALED(status) ? "signal" : "status",
				 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
			err = KVT_REFUSED;
		}
	}
	if (d->pidfd >= 0)
		close(d->pidfd);
	d->pid = 0;
	d->pidfd = -1;
	remove_dir(d);
	return err;
}

/* ------------------------------------------------------------ restarting */

static void add_life(struct replay_lives *l, const struct replay_stats *now)
{
	struct replay_stats life;
	unsigned int i;

	stats_of_life(l, now, &life);
	for (i = 0; i < KVMD_NR_STAT; i++)
		l->past.val[i] += life.val[i];
	l->sums = l->sums && attribution_sums(&life);
	l->nr_past++;
	memset(&l->base, 0, sizeof(l->base));
}

/* Until somebody else than @old answers. 0 or -errno. */
static int wait_other(const struct replay_daemon *d, pid_t old, uint64_t until)
{
	struct pollfd ended = { .fd = d->pidfd, .events = POLLIN };
	pid_t pid;

	while (daemon_pid(d, &pid) || pid == old || !answers(d->socket, SOCK_SEQPACKET)) {
		if (poll(&ended, 1, LOOK_MS) > 0)
			return -ECHILD;
		if (clock_ns() >= until)
			return -ETIMEDOUT;
	}
	return 0;
}

/* As a service manager: reap the one that ended, start another. 0 or -errno. */
static int respawn(struct replay_daemon *d)
{
	int status;

	waitpid(d->pid, &status, 0);
	close(d->pidfd);
	d->pidfd = -1;
	return spawn(d);
}

/* The next one serves. A first that finds I/O of the dead one still going on may give up. */
static int come_back(struct replay_daemon *d, pid_t old)
{
	uint64_t until = clock_ns() + RESTART_NS;
	int err;

	if (!d->pid || d->keeper)
		return wait_other(d, old, until);
	do {
		err = respawn(d);
		if (!err)
			err = wait_other(d, old, until);
	} while (err == -ECHILD && clock_ns() < until && poll(NULL, 0, RESPAWN_MS) == 0);
	return err;
}

int daemon_restart(struct replay_daemon *d, struct replay_lives *lives)
{
	struct replay_stats now;
	pid_t old;
	int err = daemon_pid(d, &old);

	if (!err && daemon_stats(d, UINT64_MAX, &now))
		return KVT_REFUSED;
	if (!err && kill(old, SIGKILL))
		err = -errno;
	if (!err)
		add_life(lives, &now);
	if (!err)
		err = come_back(d, old);
	if (!err)
		return KVT_OK;
	kvt_warn("the daemon does not come back: %s", err == -ECHILD ? "it ended" : strerror(-err));
	return KVT_REFUSED;
}
