/* SPDX-License-Identifier: Apache-2.0 */
/*
 * daemon.c - kvmd as a child: starting it, pausing it, looking at it.
 *
 * A daemon that always spins is stopped (SIGSTOP) while others are measured and
 * goes on before its own slices, so that it never takes the processor of
 * another server.
 */
#include <dirent.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/kvbench/kvbench.h"

#define PLANE_BYTES	4096ull
#define START_NS	30000000000ull
#define MAX_DAEMONS	16

static struct kvmd_proc *running[MAX_DAEMONS];

/* ------------------------------------------------------------ start and end */

static void write_conf(struct kvmd_proc *p, const struct kvmd_opts *o)
{
	FILE *f;

	snprintf(p->socket, sizeof(p->socket), "%s/%s.sock", bench.dir, p->name);
	snprintf(p->conf, sizeof(p->conf), "%s/%s.conf", bench.dir, p->name);
	f = fopen(p->conf, "w");
	if (!f)
		kvb_die("%s: %s", p->conf, strerror(errno));
	fprintf(f, "[daemon]\nsocket = %s\n", p->socket);
	if (o->spin || one_cpu)	/* on one processor a daemon that spins is in its own way */
		fprintf(f, "spin = %s\n", one_cpu ? "0" : o->spin);
	if (o->conf)
		fputs(o->conf, f);
	else
		fprintf(f, "[pool]\nblocks = %llu\n[device null]\nkind = null\nbytes = %llu\n",
			(unsigned long long)o->blocks,
			(unsigned long long)(o->blocks + 1) * PLANE_BYTES);
	if (fclose(f))
		kvb_die("%s: %s", p->conf, strerror(errno));
}

static void remember(struct kvmd_proc *p)
{
	for (int i = 0; i < MAX_DAEMONS; i++)
		if (!running[i]) {
			running[i] = p;
			return;
		}
	kvb_die("too many daemons");
}

/* What it said, when it could not be used. */
void kvmd_show_log(const struct kvmd_proc *p)
{
	char path[128], line[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s.log", bench.dir, p->name);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		fprintf(stderr, "  %s: %s", p->name, line);
	if (f)
		fclose(f);
}

static void __attribute__((noreturn)) run_daemon(const struct kvmd_proc *p, bool anywhere)
{
	char path[128], dash_c[] = "-c", name[] = "kvmd", conf[sizeof(p->conf)];
	char *argv[] = { name, dash_c, conf, NULL };
	int fd;

	if (anywhere)
		cpu_any();
	else
		cpu_server();
	memcpy(conf, p->conf, sizeof(conf));
	snprintf(path, sizeof(path), "%s/%s.log", bench.dir, p->name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (fd >= 0) {
		dup2(fd, STDOUT_FILENO);
		dup2(fd, STDERR_FILENO);
	}
	signal(SIGPIPE, SIG_DFL);
	execvp(bench.kvmd, argv);
	fprintf(stderr, "%s: %s\n", bench.kvmd, strerror(errno));
	_exit(127);
}

void kvmd_prepare(struct kvmd_proc *p, const struct kvmd_opts *o)
{
	memset(p, 0, sizeof(*p));
	snprintf(p->name, sizeof(p->name), "%s", o->name);
	p->plane_bytes = o->plane_bytes ? o->plane_bytes : PLANE_BYTES;
	write_conf(p, o);
}

int kvmd_try_start(struct kvmd_proc *p, const struct kvmd_opts *o, char *msg, size_t n)
{
	uint64_t start = time_ns();
	struct kvc *k;

	p->pid = kvb_spawn();
	if (!p->pid)
		run_daemon(p, o->anywhere);
	remember(p);
	k = client_try(p, o->blocks, 1, msg, n);
	p->start_ns = (double)(time_ns() - start);
	kvc_destroy(k);
	return k ? 0 : -EIO;
}

void kvmd_start(struct kvmd_proc *p, const struct kvmd_opts *o)
{
	char msg[300];

	kvmd_prepare(p, o);
	if (kvmd_try_start(p, o, msg, sizeof(msg)))
		kvb_die("%s", msg);
}

void kvmd_end(struct kvmd_proc *p)
{
	if (!p->pid)
		return;
	kvmd_go(p);
	kill(p->pid, SIGTERM);
	for (int i = 0; i < 1000; i++) {
		if (waitpid(p->pid, NULL, WNOHANG)) {
			kvb_reap(p->pid, 0);
			p->pid = 0;
			break;
		}
		usleep(5000);
	}
	if (p->pid)
		kvb_reap(p->pid, SIGKILL);
	p->pid = 0;
	p->stopped = false;
	for (int i = 0; i < MAX_DAEMONS; i++)
		if (running[i] == p)
			running[i] = NULL;
}

void kvmd_end_all(void)
{
	for (int i = 0; i < MAX_DAEMONS; i++)
		if (running[i])
			kvmd_end(running[i]);
}

void kvmd_pause(struct kvmd_proc *p)
{
	int status;

	if (!p->pid || p->stopped)
		return;
	kill(p->pid, SIGSTOP);
	if (waitpid(p->pid, &status, WUNTRACED) != p->pid || !WIFSTOPPED(status)) {
		p->pid = 0;
		kvmd_show_log(p);
		kvb_die("the daemon ended");
	}
	p->stopped = true;
}

void kvmd_go(struct kvmd_proc *p)
{
	if (!p->stopped)
		return;
	kill(p->pid, SIGCONT);
	p->stopped = false;
}

/* ------------------------------------------------------------------- looks */

static FILE *open_proc(pid_t pid, const char *name)
{
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	f = fopen(path, "r");
	if (!f)
		kvb_die("%s: %s", path, strerror(errno));
	return f;
}

uint64_t kvmd_cpu_ticks(const struct kvmd_proc *p)
{
	unsigned long long utime = 0, stime = 0;
	FILE *f = open_proc(p->pid, "stat");

	/* The name in field 2 is ours: no blanks. */
	if (fscanf(f, "%*d %*s %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu",
		   &utime, &stime) != 2)
		kvb_die("/proc/PID/stat has another form");
	fclose(f);
	return utime + stime;
}

/* The number behind @key in a file of "Key: number" lines. */
static uint64_t proc_field(pid_t pid, const char *name, const char *key)
{
	unsigned long long v = 0;
	char line[256];
	FILE *f = open_proc(pid, name);

	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, key, strlen(key)) && sscanf(line + strlen(key), ": %llu", &v))
			break;
	fclose(f);
	return v;
}

uint64_t kvmd_wakeups(const struct kvmd_proc *p)
{
	char path[64], status[64];
	uint64_t sum = 0;
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)p->pid);
	d = opendir(path);
	while (d && (e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(status, sizeof(status), "task/%.20s/status", e->d_name);
		sum += proc_field(p->pid, status, "voluntary_ctxt_switches");
	}
	if (d)
		closedir(d);
	return sum;
}

uint64_t kvmd_rss(const struct kvmd_proc *p)
{
	return proc_field(p->pid, "smaps_rollup", "Rss") * 1024;
}

/* Depth first; the document is small and comes from our own daemon. */
static int find_number(struct json_object *o, const char *key, int depth, double *ret_v)
{
	struct json_object *v;

	if (depth > 8 || !json_object_is_type(o, json_type_object))
		return -ENOENT;
	if (json_object_object_get_ex(o, key, &v) && (json_object_is_type(v, json_type_int) ||
						      json_object_is_type(v, json_type_double))) {
		*ret_v = json_object_get_double(v);
		return 0;
	}
	json_object_object_foreach(o, name, child) {
		(void)name;
		if (!find_number(child, key, depth + 1, ret_v))
			return 0;
	}
	return -ENOENT;
}

/* The answer of the admin socket to @request, to be freed. */
static char *ask(const struct kvmd_proc *p, const char *request)
{
	const size_t size = 1 << 18;
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	char *text = (char *)calloc(1, size);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	size_t n = 0;
	ssize_t got;

	if (!text || fd < 0)
		kvb_die("asking the daemon: %s", strerror(errno));
	snprintf(to.sun_path, sizeof(to.sun_path), "%s.admin", p->socket);
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) ||
	    send(fd, request, strlen(request), MSG_NOSIGNAL) != (ssize_t)strlen(request))
		kvb_die("%s: %s", to.sun_path, strerror(errno));
	while (n < size - 1 && (got = read(fd, text + n, size - 1 - n)) > 0)
		n += (size_t)got;
	close(fd);
	return text;
}

int kvmd_statuses(const struct kvmd_proc *p, const char *const *keys, double *ret_v, unsigned nr)
{
	char *text = ask(p, "status show\n");
	struct json_object *o = json_tokener_parse(text);
	int err = o ? 0 : -ENOENT;

	for (unsigned i = 0; i < nr && !err; i++)
		err = find_number(o, keys[i], 0, &ret_v[i]);
	if (o)
		json_object_put(o);
	free(text);
	return err;
}

int kvmd_status(const struct kvmd_proc *p, const char *key, double *ret_v)
{
	return kvmd_statuses(p, &key, ret_v, 1);
}

/* ----------------------------------------------------------------- clients */

static bool ended(struct kvmd_proc *p)
{
	if (waitpid(p->pid, NULL, WNOHANG) != p->pid)
		return false;
	p->pid = 0;
	return true;
}

struct kvc *client_open(struct kvmd_proc *p, uint64_t max_blocks, uint32_t max_seqs)
{
	char msg[300];
	struct kvc *k = client_try(p, max_blocks, max_seqs, msg, sizeof(msg));

	if (!k)
		kvb_die("%s", msg);
	return k;
}

struct kvc *client_try(struct kvmd_proc *p, uint64_t max_blocks, uint32_t max_seqs, char *msg,
		       size_t n)
{
	const uint64_t until = time_ns() + START_NS;
	struct kvc_space s;
	struct kvc_opts o;
	struct kvc *k;
	int err;

	kvmd_go(p);
	kvc_opts_init(&o);
	o.socket = p->socket;
	o.label = "kvbench";
	o.sq_entries = 1024;
	o.max_seqs = max_seqs;
	o.max_tokens = 1024 * BENCH_TOKENS;
	o.args_bytes = 1 << 20;
	o.spin_ns = one_cpu ? 1 : p->client_sleeps ? 0 : 1000000000;
	o.wait_ns = 100000000;
	kvc_space_init(&s, "bench");
	s.nr_groups = max_blocks != 0;	/* else what is there already */
	s.nr_shards = s.nr_groups;
	s.group[0] = (struct kvmd_group) {
		.plane_bytes = p->plane_bytes,
		.planes = 1,
		.block_tokens = BENCH_TOKENS,
		.rule = KVMD_RULE_FULL,
		.max_slots = (uint32_t)max_blocks + 1,
	};
	do
		err = kvc_create(&o, &s, &k);
	while ((err == -ENOENT || err == -ECONNREFUSED) && time_ns() < until && !ended(p));
	if (err) {
		kvmd_show_log(p);
		snprintf(msg, n, "%s: no session: %s (%s)", p->name, kvc_strerror(err),
			 kvc_refusal());
		return NULL;
	}
	return k;
}

int client_wait(struct kvc *k, struct kvmd_cqe *ret_cqe)
{
	const struct kvmd_cqe *c;
	int err = kvc_submit(k), res;

	if (err >= 0)
		err = kvc_wait_cqe(k, 30000000000ull, &c);
	if (err)
		kvb_die("a request had no answer: %s", kvc_strerror(err));
	res = c->res;
	if (ret_cqe)
		*ret_cqe = *c;
	kvc_cqe_seen(k);
	return res;
}

void client_warm(struct kvc *k)
{
	for (int i = 0; i < 64; i++) {
		kvc_prep_nop(kvc_get_sqe(k));
		client_wait(k, NULL);
	}
}
