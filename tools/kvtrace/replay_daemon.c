// SPDX-License-Identifier: Apache-2.0
/*
 * replay_daemon.c - an own daemon in a temporary directory, or the one that
 * runs; and its counters.
 *
 * The daemon's binary is looked for beside our own, then in PATH. It dies with
 * us, however we end; its directory is removed when we end in order.
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
#include "tools/kvtrace/replay.h"

#define START_NS	20000000000ULL
#define APPEAR_NS	5000000000ULL	/* of a daemon that somebody else starts */
#define STOP_NS		20000000000ULL
#define LOOK_MS		5
#define MIN_SLAB	(64ULL << 10)
#define MAX_SLAB	(64ULL << 20)
#define PATH_BYTES	4096
#define REPLY_BYTES	(256U << 10)

/* ------------------------------------------------------------ sockets */

/* A connected socket, or -errno. */
static int dial(const char *path, int type)
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

/* ------------------------------------------------------------ counters */

static const char *const stat_names[KVMD_NR_STAT] = {
#define STAT_NAME(id, name, unit, kind, help) [KVMD_STAT_##id] = name,
	KVMD_STATS(STAT_NAME)
#undef STAT_NAME
};

/* Send the request line, take the whole document into @buf. 0 or -errno. */
static int ask(const char *path, const char *line, char *buf, size_t bytes)
{
	size_t len = 0;
	ssize_t n = 1;
	int fd = dial(path, SOCK_STREAM);

	if (fd < 0)
		return fd;
	if (send(fd, line, strlen(line), MSG_NOSIGNAL) != (ssize_t)strlen(line))
		n = -1;
	while (n > 0 && len < bytes - 1) {
		n = recv(fd, buf + len, bytes - 1 - len, 0);
		if (n > 0)
			len += (size_t)n;
	}
	close(fd);
	if (n < 0)
		return -EIO;
	buf[len] = '\0';
	return 0;
}

/* The number behind "name": in a JSON document. False: there is none. */
static bool find_u64(const char *doc, const char *name, uint64_t *ret_v)
{
	char key[80];
	const char *p;
	char *end;

	snprintf(key, sizeof(key), "\"%.60s\":", name);
	p = strstr(doc, key);
	if (!p)
		return false;
	*ret_v = strtoull(p + strlen(key), &end, 10);
	return end != p + strlen(key);
}

static int stats_once(const struct replay_daemon *d, char *doc, struct replay_stats *s)
{
	const char *counters;
	unsigned int i;
	int err = ask(d->admin, "status show\n", doc, REPLY_BYTES);

	if (err) {
		kvt_warn("%s: %s", d->admin, strerror(-err));
		return KVT_REFUSED;
	}
	counters = strstr(doc, "\"counters\":");
	for (i = 0; counters && i < KVMD_NR_STAT; i++)
		if (!find_u64(counters, stat_names[i], &s->val[i]))
			counters = NULL;
	if (counters)
		return KVT_OK;
	kvt_warn("%s: no counters in the daemon's answer: %.200s", d->admin, doc);
	return KVT_REFUSED;
}

int daemon_stats(const struct replay_daemon *d, uint64_t pending, struct replay_stats *ret_s)
{
	uint64_t until = clock_ns() + STOP_NS;
	char *doc = malloc(REPLY_BYTES);
	int err;

	if (!doc) {
		kvt_warn("no memory for the daemon's answer");
		return KVT_REFUSED;
	}
	for (;;) {
		err = stats_once(d, doc, ret_s);
		if (err || ret_s->val[KVMD_STAT_TOKENS_PENDING] <= pending || clock_ns() >= until)
			break;
		poll(NULL, 0, LOOK_MS);
	}
	free(doc);
	return err;
}

/* ------------------------------------------------------------ starting */

static uint64_t slab_bytes(uint64_t pool_bytes)
{
	uint64_t n = align_up(pool_bytes / 8, 4096);

	return n < MIN_SLAB ? MIN_SLAB : n > MAX_SLAB ? MAX_SLAB : n;
}

/* "min,low,high" as three options. */
static void write_watermarks(FILE *f, const char *arg)
{
	static const char *const names[] = { "wmark_min", "wmark_low", "wmark_high" };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(names) && *arg; i++) {
		size_t n = strcspn(arg, ",");

		fprintf(f, "%s = %.*s\n", names[i], (int)n, arg);
		arg += n + (arg[n] == ',');
	}
}

static int write_config(const struct replay_daemon *d, const struct replay_plan *p,
			const char *path)
{
	const struct replay_opts *o = p->o;
	uint64_t bytes = (p->capacity + o->clients) * o->block_bytes;
	uint64_t slab = slab_bytes(bytes);
	FILE *f = fopen(path, "we");

	if (!f)
		return -errno;
	fprintf(f, "[daemon]\nsocket = %s\nadmin_socket = %s\nlog_level = warn\nclock = %s\n",
		d->socket, d->admin, o->time == TIME_FAST ? "driven" : "real");
	/* A slab of every client's space may be begun and not full. */
	fprintf(f, "[pool]\nblocks = %llu\nslab_bytes = %llu\n",
		(unsigned long long)(p->capacity + o->clients + 1024), (unsigned long long)slab);
	if (o->policy)
		fprintf(f, "policy = %s\n", o->policy);
	if (o->watermarks)
		write_watermarks(f, o->watermarks);
	fprintf(f, "[device host-0]\nkind = host\nbytes = %llu\n",
		(unsigned long long)(2 * bytes + (o->clients + 2) * 2 * slab));
	fprintf(f, "[tenant default]\nring_bytes = 64G\nmax_sessions = 256\nmax_seqs = 1048576\n");
	if (!fclose(f))
		return 0;
	return -errno;
}

/* Beside us as built, as installed, in the sibling sbin; else wherever PATH says. */
static void find_binary(char *path, size_t bytes)
{
	static const char *const places[] = {
		"kvmd", KVMD_DAEMON_NAME, ("../sbin/" KVMD_DAEMON_NAME),
	};
	char own[PATH_BYTES];
	ssize_t n = readlink("/proc/self/exe", own, sizeof(own) - 1);
	size_t i;

	if (n > 0) {
		own[n] = '\0';
		dirname(own);
		for (i = 0; i < ARRAY_SIZE(places); i++) {
			snprintf(path, bytes, "%s/%s", own, places[i]);
			if (!access(path, X_OK))
				return;
		}
	}
	snprintf(path, bytes, "%s", KVMD_DAEMON_NAME);
}

/* In the child: never returns. */
static void exec_daemon(const char *binary, const char *config, pid_t parent)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(127);
	/* What it prints is no part of our result. */
	dup2(STDERR_FILENO, STDOUT_FILENO);
	execlp(binary, binary, "-c", config, (char *)NULL);
	fprintf(stderr, "kvtrace replay: %s: %s\n", binary, strerror(errno));
	_exit(127);
}

static bool answers(const char *path, int type)
{
	int fd = dial(path, type);

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
	char config[160];

	if (!d->dir[0])
		return;
	snprintf(config, sizeof(config), "%s/conf", d->dir);
	unlink(config);
	unlink(d->socket);
	unlink(d->admin);
	rmdir(d->dir);
	d->dir[0] = '\0';
}

static int make_dir(struct replay_daemon *d)
{
	const char *tmp = getenv("TMPDIR");
	int n;

	n = snprintf(d->dir, sizeof(d->dir), "%s/kvtrace.XXXXXX", tmp && *tmp ? tmp : "/tmp");
	/* A socket's path has 108 bytes. */
	if (n > (int)sizeof(d->dir) - 16 || !mkdtemp(d->dir)) {
		kvt_warn("%s: %s", d->dir, strerror(n > (int)sizeof(d->dir) - 16 ? ENAMETOOLONG :
						     errno));
		d->dir[0] = '\0';
		return KVT_REFUSED;
	}
	snprintf(d->socket, sizeof(d->socket), "%.90s/s", d->dir);
	snprintf(d->admin, sizeof(d->admin), "%.90s/s.admin", d->dir);
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

int daemon_start(struct replay_daemon *d, const struct replay_plan *p)
{
	char binary[PATH_BYTES + 64], config[160];
	pid_t self = getpid();
	int err;

	memset(d, 0, sizeof(*d));
	d->pidfd = -1;
	if (p->o->socket)
		return use_running(d, p->o);
	if (make_dir(d))
		return KVT_REFUSED;
	snprintf(config, sizeof(config), "%s/conf", d->dir);
	err = write_config(d, p, config);
	if (err) {
		kvt_warn("%s: %s", config, strerror(-err));
		remove_dir(d);
		return KVT_REFUSED;
	}
	find_binary(binary, sizeof(binary));
	fflush(NULL);
	d->pid = fork();
	if (!d->pid)
		exec_daemon(binary, config, self);
	if (d->pid > 0)
		d->pidfd = (int)syscall(SYS_pidfd_open, d->pid, 0);
	err = d->pidfd < 0 ? -errno : wait_ready(d, START_NS);
	if (!err)
		return KVT_OK;
	kvt_warn("the daemon %s does not start: %s", binary,
		 err == -ECHILD ? "it ended" : strerror(-err));
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
