/* SPDX-License-Identifier: Apache-2.0 */
/*
 * harness.c - the daemons of a test: started, listened to, asked, ended.
 */
#include "tests/harness.h"
#include "tests/harness_int.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

bool test_in_child;

void test_true(bool ok, const char *what, const char *file, int line, const char *more,
	       int64_t a, int64_t b)
{
	char text[512];

	if (ok)
		return;
	snprintf(text, sizeof(text), "%s:%d: %s", file, line, what);
	if (more)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), " (%s %lld, %lld)", more,
			 (long long)a, (long long)b);
	if (test_in_child) {
		fprintf(stderr, "client process: %s\n", text);
		_exit(99);
	}
	ck_abort_msg("%s", text);
}

uint64_t test_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

uint64_t test_seed(void)
{
	const char *env = getenv("KVMD_TEST_SEED");
	uint64_t seed = env ? strtoull(env, NULL, 0) : test_now_ns();

	printf("seed %llu (KVMD_TEST_SEED repeats it)\n", (unsigned long long)seed);
	fflush(stdout);
	return seed;
}

/* splitmix64 (Steele, Lea, Flood 2014) */
uint64_t test_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

uint64_t test_fuzz_runs(uint64_t most)
{
	const char *env = getenv("KVMD_FUZZ_RUNS");
	uint64_t runs = env ? strtoull(env, NULL, 0) : most;

	/* `make check` says 200000; the long run millions. */
	return runs <= 200000 && runs > most ? most : runs;
}

/* ---------------------------------------------------------------- daemons */

const char *kvmd_path(void)
{
	static char path[512];
	const char *dir = getenv("KVMD_BUILD_DIR");

	snprintf(path, sizeof(path), "%s/kvmd", dir ? dir : "build");
	return path;
}

const char *built_path(const char *name)
{
	static char path[512];
	const char *dir = getenv("KVMD_BUILD_DIR");

	snprintf(path, sizeof(path), "%s/%s", dir ? dir : "build", name);
	return path;
}

static void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	T(f);
	T(fputs(text, f) >= 0 && !fclose(f));
}

void hd_conf(struct hd *d, const char *conf)
{
	char text[4096], whole[4096];

	device_conf(conf, text, sizeof(text));
	T((size_t)snprintf(whole, sizeof(whole), "[daemon]\nsocket = %s\n%s", d->sock, text) <
	  sizeof(whole));
	write_file(d->conf, whole);
}

bool hd_try_run(struct hd *d)
{
	int p[2];

	T(!pipe2(p, O_CLOEXEC));
	d->pid = test_fork();
	if (!d->pid) {
		dup2(p[1], STDERR_FILENO);
		unsetenv("JOURNAL_STREAM");
		unsetenv("NOTIFY_SOCKET");
		if (d->keeper)
			execl(built_path("kvkeeper"), "kvkeeper", "-s", "1", kvmd_path(), "-c",
			      d->conf, (char *)NULL);
		else
			execl(kvmd_path(), "kvmd", "-c", d->conf, (char *)NULL);
		_exit(97);
	}
	close(p[1]);
	(void)fcntl(p[0], F_SETPIPE_SZ, 1 << 20);
	d->log = p[0];
	free(d->text);
	d->text = NULL;
	d->len = d->mark = 0;
	return hd_says(d, " serves ");
}

void hd_run(struct hd *d)
{
	if (!hd_try_run(d))
		hd_said(d, " serves ");		/* fails and prints the log */
}

void hd_prepare(struct hd *d)
{
	const char *tmp = getenv("TMPDIR");

	device_prepare();
	memset(d, 0, sizeof(*d));
	snprintf(d->dir, sizeof(d->dir), "%s/hd.XXXXXX", tmp ? tmp : "/tmp");
	T(mkdtemp(d->dir));
	snprintf(d->sock, sizeof(d->sock), "%s/k", d->dir);
	snprintf(d->conf, sizeof(d->conf), "%s/conf", d->dir);
}

void hd_start(struct hd *d, const char *conf)
{
	hd_prepare(d);
	hd_conf(d, conf);
	hd_run(d);
}

/* More of the log; false: it ended. */
static bool log_read(struct hd *d)
{
	struct pollfd pfd = { .fd = d->log, .events = POLLIN };
	ssize_t n;

	T(poll(&pfd, 1, WAIT_MS) == 1);
	d->text = realloc(d->text, d->len + 65537);
	T(d->text);
	n = read(d->log, d->text + d->len, 65536);
	if (n <= 0)
		return false;
	d->len += (size_t)n;
	d->text[d->len] = 0;
	return true;
}

static bool log_waits(struct hd *d)
{
	struct pollfd pfd = { .fd = d->log, .events = POLLIN };

	return poll(&pfd, 1, 0) == 1;
}

bool hd_says(struct hd *d, const char *word)
{
	for (;;) {
		char *at = d->text ? strstr(d->text + d->mark, word) : NULL;

		if (at) {
			d->mark = (size_t)(at - d->text) + strlen(word);
			return true;
		}
		if (!log_read(d))
			return false;
	}
}

void hd_said(struct hd *d, const char *word)
{
	if (!hd_says(d, word)) {
		fprintf(stderr, "the daemon ended without '%s':\n%s\n", word,
			d->text ? d->text : "");
		test_true(false, word, "the daemon's log", 0, NULL, 0, 0);
	}
}

int hd_reap(struct hd *d)
{
	int status;

	while (log_read(d))
		;
	status = test_wait(d->pid);
	d->pid = 0;
	close(d->log);
	return status;
}

int hd_end(struct hd *d)
{
	T(!kill(d->pid, SIGTERM));
	return hd_reap(d);
}

void hd_kill(struct hd *d)
{
	T(!kill(d->pid, SIGKILL));
	while (log_read(d))
		;
	T_EQ(test_wait(d->pid), 128 + SIGKILL);
	d->pid = 0;
	close(d->log);
}

void hd_remove(struct hd *d)
{
	char admin[128];

	unlink(d->conf);
	unlink(d->sock);
	snprintf(admin, sizeof(admin), "%s.admin", d->sock);
	unlink(admin);
	T(!rmdir(d->dir));
	free(d->text);
	d->text = NULL;
	device_check(false);
}

void hd_stop(struct hd *d)
{
	int status;

	hd_check(d);
	status = hd_end(d);
	if (status)
		fprintf(stderr, "%s\n", d->text);
	T_EQ(status, 0);
	hd_remove(d);
	device_check(true);
}

const char *hd_ask(struct hd *d, const char *line)
{
	static char answer[1 << 20];
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	size_t len = 0;
	ssize_t n;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	/* A full pipe would hold the daemon up in the middle of a line. */
	while (d->pid && log_waits(d) && log_read(d))
		;
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s.admin", d->sock);
	T(fd >= 0 && !connect(fd, (struct sockaddr *)&sa, sizeof(sa)));
	T(dprintf(fd, "%s\n", line) > 0);
	while ((n = read(fd, answer + len, sizeof(answer) - 1 - len)) > 0)
		len += (size_t)n;
	answer[len] = 0;
	close(fd);
	T(len > 0);
	return answer;
}

uint64_t hd_stat(struct hd *d, const char *counter)
{
	char name[80];
	const char *at = hd_ask(d, "stat show");

	snprintf(name, sizeof(name), "\"name\":\"%s\"", counter);
	at = strstr(at, name);
	T(at);
	at = strstr(at, "\"value\":");
	T(at);
	return strtoull(at + 8, NULL, 10);
}

pid_t hd_daemon_pid(struct hd *d)
{
	const char *at = strstr(hd_ask(d, "status show"), "\"pid\":");

	T(at);
	return (pid_t)strtol(at + 6, NULL, 10);
}

void hd_check(struct hd *d)
{
	const char *said = hd_ask(d, "check run");

	if (strstr(said, "\"error\"") || strstr(said, "\"ok\":false"))
		fprintf(stderr, "check: %s\n", said);
	T(!strstr(said, "\"error\""));
	T(!strstr(said, "\"ok\":false"));
}

int kvmd_run(char *const argv[], char *buf, size_t bytes)
{
	size_t len = 0;
	ssize_t n;
	int p[2];
	pid_t pid;

	T(!pipe2(p, O_CLOEXEC));
	pid = test_fork();
	if (!pid) {
		dup2(p[1], STDERR_FILENO);
		dup2(p[1], STDOUT_FILENO);
		unsetenv("JOURNAL_STREAM");
		execv(kvmd_path(), argv);
		_exit(97);
	}
	close(p[1]);
	while (len < bytes - 1 && (n = read(p[0], buf + len, bytes - 1 - len)) > 0)
		len += (size_t)n;
	buf[len] = 0;
	close(p[0]);
	return test_wait(pid);
}
