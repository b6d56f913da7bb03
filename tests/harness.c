/* SPDX-License-Identifier: Apache-2.0 */
/*
 * harness.c - processes of a test, and what they say to each other.
 */
#include "tests/harness.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static bool in_child;

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
	if (in_child) {
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
	char text[4096];

	T((size_t)snprintf(text, sizeof(text), "[daemon]\nsocket = %s\n%s", d->sock, conf) <
	  sizeof(text));
	write_file(d->conf, text);
}

/* A child of this test, whatever the test itself may do, ends with it. */
static pid_t fork_child(void)
{
	pid_t pid, parent = getpid();

	fflush(NULL);
	pid = fork();
	T(pid >= 0);
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(98);
	in_child = true;
	return 0;
}

bool hd_try_run(struct hd *d)
{
	int p[2];

	T(!pipe2(p, O_CLOEXEC));
	d->pid = fork_child();
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

static int wait_for(pid_t pid)
{
	int status;

	T(waitpid(pid, &status, 0) == pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int hd_end(struct hd *d)
{
	int status;

	T(!kill(d->pid, SIGTERM));
	while (log_read(d))
		;
	status = wait_for(d->pid);
	d->pid = 0;
	close(d->log);
	return status;
}

void hd_kill(struct hd *d)
{
	T(!kill(d->pid, SIGKILL));
	while (log_read(d))
		;
	T_EQ(wait_for(d->pid), 128 + SIGKILL);
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
	pid = fork_child();
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
	return wait_for(pid);
}

/* ------------------------------------------------------- client processes */

void peer_start(struct peer *p, struct hd *d, peer_fn *fn, void *arg)
{
	int a[2], b[2];

	T(!pipe2(a, O_CLOEXEC) && !pipe2(b, O_CLOEXEC));
	p->pid = fork_child();
	if (!p->pid) {
		struct peer me = { .pid = getpid(), .to = b[1], .from = a[0] };

		close(a[1]);
		close(b[0]);
		fn(&me, d, arg);
		_exit(0);
	}
	close(a[0]);
	close(b[1]);
	p->to = a[1];
	p->from = b[0];
}

void say(struct peer *p, uint64_t v)
{
	T(write(p->to, &v, sizeof(v)) == sizeof(v));
}

uint64_t hear(struct peer *p)
{
	struct pollfd pfd = { .fd = p->from, .events = POLLIN };
	uint64_t v;

	T(poll(&pfd, 1, WAIT_MS) == 1);
	T(read(p->from, &v, sizeof(v)) == sizeof(v));
	return v;
}

static void peer_close(struct peer *p)
{
	close(p->to);
	close(p->from);
	p->pid = 0;
}

int peer_status(struct peer *p)
{
	int status = wait_for(p->pid);

	peer_close(p);
	return status;
}

void peer_end(struct peer *p)
{
	T_EQ(peer_status(p), 0);
}

void peer_kill(struct peer *p)
{
	T(!kill(p->pid, SIGKILL));
	T_EQ(wait_for(p->pid), 128 + SIGKILL);
	peer_close(p);
}

void peer_halt(struct peer *me)
{
	(void)me;
	for (;;)
		pause();
}

/* --------------------------------------------------------------- sessions */

void plain_space(struct kvc_space *s, const char *name, uint32_t slots)
{
	kvc_space_init(s, name);
	s->nr_groups = 1;
	s->nr_shards = 1;
	s->group[0] = (struct kvmd_group) {
		.plane_bytes = 4096, .planes = 1, .block_tokens = BT, .max_slots = slots + 1,
	};
}

void opts_for(struct hd *d, struct kvc_opts *o)
{
	kvc_opts_init(o);
	o->socket = d->sock;
	o->max_seqs = 64;
	o->max_tokens = 65536;
	o->args_bytes = 1 << 20;
}

struct kvc *client_opts(struct hd *d, const struct kvc_space *s, const struct kvc_opts *o)
{
	struct kvc *k = NULL;
	int err = kvc_create(o, s, &k);

	(void)d;
	if (err)
		fprintf(stderr, "kvc_create: %s: %s\n", kvc_strerror(err), kvc_refusal());
	T_EQ(err, 0);
	return k;
}

struct kvc *client(struct hd *d, const struct kvc_space *s)
{
	struct kvc_opts o;

	opts_for(d, &o);
	return client_opts(d, s, &o);
}

struct kvc *plain_client(struct hd *d, const char *name, uint32_t slots)
{
	struct kvc_space s;

	plain_space(&s, name, slots);
	return client(d, &s);
}

void make_keys(unsigned char (*keys)[KEY], uint32_t stream, uint32_t first, uint32_t nr)
{
	memset(keys, 0, (size_t)nr * KEY);
	for (uint32_t i = 0; i < nr; i++) {
		uint32_t n = first + i;

		memcpy(keys[i], &stream, sizeof(stream));
		memcpy(keys[i] + 8, &n, sizeof(n));
		keys[i][KEY - 1] = 0x5a;
	}
}

void fill(struct kvc *k, uint32_t g, uint32_t slot, uint64_t word)
{
	const struct kvc_view *v = kvc_view(k);
	const struct kvc_group_view *gv = &v->group[g];

	for (uint32_t sh = 0; sh < gv->nr_shards; sh++)
		for (uint32_t p = 0; p < gv->planes; p++) {
			uint64_t *at = kvc_addr(v, g, sh, p, slot);

			for (uint64_t i = 0; i < gv->plane_bytes / 8; i++)
				at[i] = word ^ (uint64_t)sh << 40 ^ (uint64_t)p << 48 ^ i << 20;
		}
}

bool holds(struct kvc *k, uint32_t g, uint32_t slot, uint64_t word)
{
	const struct kvc_view *v = kvc_view(k);
	const struct kvc_group_view *gv = &v->group[g];

	for (uint32_t sh = 0; sh < gv->nr_shards; sh++)
		for (uint32_t p = 0; p < gv->planes; p++) {
			const uint64_t *at = kvc_addr_ro(v, g, sh, p, slot);

			for (uint64_t i = 0; i < gv->plane_bytes / 8; i++)
				if (at[i] != (word ^ (uint64_t)sh << 40 ^ (uint64_t)p << 48 ^
					      i << 20))
					return false;
		}
	return true;
}

struct kvmd_cqe take(struct kvc *k)
{
	const struct kvmd_cqe *c;
	struct kvmd_cqe copy;

	T_EQ(kvc_wait_cqe(k, WAIT_NS, &c), 0);
	copy = *c;
	kvc_cqe_seen(k);
	return copy;
}

struct kvmd_cqe take_for(struct kvc *k, uint64_t user_data)
{
	struct kvmd_cqe c = take(k);

	T_EQ(c.user_data, user_data);
	return c;
}

void open_extend(struct kvc *k, uint32_t seq, uint32_t nr, uint64_t word)
{
	T_EQ(kvc_seq_open(k, seq, 1, NULL, 0, nr * BT, 0, 0, NULL), 0);
	T_EQ(kvc_seq_extend(k, seq, 1, 0, nr, 0, WAIT_NS, NULL), nr);
	for (uint32_t i = 0; i < nr; i++)
		fill(k, 0, (uint32_t)slot_at(k, 0, seq, i), word + i);
}

void open_publish(struct kvc *k, uint32_t seq, uint32_t nr, uint32_t stream)
{
	unsigned char (*keys)[KEY] = malloc((size_t)nr * KEY);

	T(keys);
	make_keys(keys, stream, 0, nr);
	open_extend(k, seq, nr, (uint64_t)stream << 8);
	T_EQ(kvc_seq_publish(k, seq, 1, 0, 0, keys, nr, 0, NULL), nr);
	free(keys);
}

void whole_pool(struct kvc *k, uint32_t nr)
{
	const uint32_t seq = kvc_view(k)->max_seqs - 1;
	int res;

	T_EQ(kvc_seq_open(k, seq, 77, NULL, 0, 0, 0, 0, NULL), 0);
	res = kvc_seq_extend(k, seq, 77, 0, nr, 0, WAIT_NS, NULL);
	T_EQ(res, nr);
	T_EQ(kvc_seq_close(k, seq, 77, 0, 0), 0);
}
