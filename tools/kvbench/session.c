/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.c - messages, children, and leaving nothing behind.
 *
 * Daemons and servers are children that die with this process; files lie in one
 * directory of its own, removed at exit however that comes.
 */
#include <dirent.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/kvbench/kvbench.h"

struct bench bench = {
	.rounds = 7,
	.slice_ns = 1500000,
	.wake_ns = 60000000,
	.idle_ns = 10000000000ull,
	.big_blocks = 1 << 20,
	.tier_at = ".",
};
volatile bool interrupted;
static pid_t main_pid;
static pid_t children[32];		/* not reaped yet; 0: unused */

static __printf(1, 0) void say(const char *fmt, va_list ap)
{
	fputs("kvbench: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
}

void kvb_note(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(fmt, ap);
	va_end(ap);
}

static void remove_dir(char *dir)
{
	struct dirent *e;
	DIR *d;

	if (!dir[0])
		return;
	d = opendir(dir);
	while (d && (e = readdir(d)))
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
	rmdir(dir);
	dir[0] = 0;
}

static void clean_up(void)
{
	if (getpid() != main_pid)
		return;
	kvmd_end_all();
	for (size_t i = 0; i < ARRAY_SIZE(children); i++)
		if (children[i])
			kvb_reap(children[i], SIGKILL);
	remove_dir(bench.tier_dir);
	remove_dir(bench.dir);
}

void kvb_die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(fmt, ap);
	va_end(ap);
	if (getpid() != main_pid)
		_exit(1);
	exit(1);
}

static void on_signal(int sig)
{
	interrupted = true;
	signal(sig, SIG_DFL);	/* the second one ends it at once */
}

static void replace_child(pid_t old, pid_t new)
{
	for (size_t i = 0; i < ARRAY_SIZE(children); i++)
		if (children[i] == old) {
			children[i] = new;
			return;
		}
}

pid_t kvb_spawn(void)
{
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid < 0)
		kvb_die("fork: %s", strerror(errno));
	if (pid) {
		replace_child(0, pid);
		return pid;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != main_pid)
		_exit(1);
	signal(SIGINT, SIG_IGN);	/* the parent's to handle */
	signal(SIGTERM, SIG_DFL);
	return 0;
}

void kvb_reap(pid_t pid, int sig)
{
	/* Not a child any more: the number may be somebody else's by now. */
	if (!waitpid(pid, NULL, WNOHANG)) {
		if (sig)
			kill(pid, sig);
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	replace_child(pid, 0);
}

char *kvb_beside(const char *name)
{
	char exe[PATH_MAX], *slash, *path;
	ssize_t len = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

	exe[len > 0 ? len : 0] = 0;
	slash = strrchr(exe, '/');
	if (slash)
		*slash = 0;
	if (asprintf(&path, "%s/%s", slash ? exe : ".", name) < 0)
		kvb_die("no memory");
	if (slash && !access(path, X_OK))
		return path;
	free(path);
	path = strdup(name);
	if (!path)
		kvb_die("no memory");
	return path;
}

void kvb_append(char *text, size_t n, const char *fmt, ...)
{
	size_t at = strlen(text);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text + at, n - at, fmt, ap);
	va_end(ap);
}

static void make_dir(void)
{
	const char *tmp = getenv("TMPDIR");

	/* A socket's path has 108 bytes. */
	if (!tmp || strlen(tmp) > 40)
		tmp = "/tmp";
	snprintf(bench.dir, sizeof(bench.dir), "%s/kvbench.XXXXXX", tmp);
	if (!mkdtemp(bench.dir)) {
		bench.dir[0] = 0;
		kvb_die("no directory in %s: %s", tmp, strerror(errno));
	}
}

void session_init(void)
{
	struct sigaction sa = { .sa_handler = on_signal };

	main_pid = getpid();
	atexit(clean_up);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
	make_dir();
}
