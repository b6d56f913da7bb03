// SPDX-License-Identifier: Apache-2.0
/*
 * owed_mps.c - owed.h: a client of the Multi-Process Service and a pool that is not.
 *
 * A control daemon with directories of its own is started and ended again; nobody
 * else on the machine sees it.
 */
#include "tests/gpu/owed.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CONTROL	"nvidia-cuda-mps-control"
#define SEED	55u

static char dir[128];

/* ------------------------------------------------------------ the control daemon */

static bool in_path(const char *name)
{
	char *path = getenv("PATH") ? strdup(getenv("PATH")) : NULL, *rest = path, *d, at[1024];
	bool found = false;

	while (path && !found && (d = strsep(&rest, ":"))) {
		snprintf(at, sizeof(at), "%s/%s", d, name);
		found = !access(at, X_OK);
	}
	free(path);
	return found;
}

/* Runs the program with @arg, @input on its standard input; its exit status. */
static int control(const char *arg, const char *input)
{
	int in[2], status = -1, null;
	pid_t pid;

	if (pipe2(in, O_CLOEXEC))
		return -1;
	pid = fork();
	if (!pid) {
		null = open("/dev/null", O_RDWR);
		dup2(in[0], STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
		execlp(CONTROL, CONTROL, arg, (char *)NULL);
		_exit(127);
	}
	close(in[0]);
	if (input && write(in[1], input, strlen(input)) < 0)
		status = -1;
	close(in[1]);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void empty_dir(void)
{
	struct dirent *e;
	DIR *d = opendir(dir);

	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.')
			unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
	rmdir(dir);
}

/* The control daemon's own process, in case that it does not take an order. */
static void end_control(void)
{
	char path[200];
	long pid = 0;
	FILE *f;

	control(NULL, "quit -t 5\n");
	snprintf(path, sizeof(path), "%s/%s.pid", dir, CONTROL);
	f = fopen(path, "r");
	if (f) {
		if (fscanf(f, "%ld", &pid) != 1)
			pid = 0;
		fclose(f);
	}
	for (int i = 0; i < 50 && pid > 1 && !kill((pid_t)pid, 0); i++) {
		if (i == 30)
			kill((pid_t)pid, SIGKILL);
		usleep(100000);
	}
}

/* ------------------------------------------------------------ the two sides */

static void plain_side(struct owed_actor *me, void *arg)
{
	struct owed_mem m;

	(void)arg;
	unsetenv("CUDA_MPS_PIPE_DIRECTORY");
	unsetenv("CUDA_MPS_LOG_DIRECTORY");
	owed_open(me, true);
	owed_make(me, OWED_BLOCK, SEED, &m);
	owed_say(me, 0, m.fd, "made");
	owed_next(me, NULL);
	owed_expect(me, "the pool's side, after", m.ptr, m.bytes, SEED + 1);
	owed_say(me, 0, -1, "%s", owed_means(&me->g));
}

static void mps_side(struct owed_actor *me, void *arg)
{
	struct owed_mem m;
	int fd, mps = -1;

	(void)arg;
	owed_open(me, true);
	me->g.cu.device_attr(&mps, CU_ATTR_MPS, me->g.dev);
	owed_next(me, &fd);
	if (mps != 1) {
		owed_say(me, 1, -1, "this process is no client of MPS (attribute %d)", mps);
		return;
	}
	owed_import(me, fd, OWED_BLOCK, CU_PROT_READWRITE, &m);
	owed_expect(me, "an MPS client's import", m.ptr, m.bytes, SEED);
	owed_must(me, "a copy by an MPS client", owed_put(&me->g, m.ptr, m.bytes, SEED + 1));
	owed_say(me, 0, -1, "%s", owed_means(&me->g));
	owed_next(me, NULL);
}

static void ask(const struct owed *o)
{
	char text[OWED_TEXT], after[OWED_TEXT];
	struct owed_actor pool, client;
	uint64_t none = 0;
	int fd = -1, err;

	owed_start(&pool, 0, plain_side, NULL);
	owed_start(&client, 0, mps_side, NULL);
	if (owed_hear(&pool, NULL, &fd, text)) {
		owed_answer(o, "beside MPS a process that is not its client cannot use the GPU: %s",
			    text);
	} else {
		owed_say(&client, 0, fd, "import");
		err = owed_hear(&client, &none, NULL, text);
		if (err || none) {
			owed_answer(o, "%s%s",
				    none ? "" :
					   "a client of MPS cannot use the pool of a process "
					   "that is none: ",
				    text);
		} else {
			owed_say(&pool, 0, -1, "look");
			err = owed_hear(&pool, NULL, NULL, after);
			owed_answer(o, "a client of MPS imports the slab of a process that is "
				    "none, reads %s and writes; seen on the other side: %s%s", text,
				    err ? "no: " : "yes, ", after);
		}
	}
	owed_kill(&client);
	owed_kill(&pool);
}

void owed_mps(const struct owed *o)
{
	const char *tmp = getenv("TMPDIR");

	if (!in_path(CONTROL)) {
		owed_skip(o, "%s is not installed", CONTROL);
		return;
	}
	if (geteuid()) {
		owed_skip(o, "only root can start %s without touching others", CONTROL);
		return;
	}
	snprintf(dir, sizeof(dir), "%s/owed-mps.XXXXXX", tmp && strlen(tmp) < 60 ? tmp : "/tmp");
	if (!mkdtemp(dir)) {
		owed_not_ok(o, "no directory");
		return;
	}
	setenv("CUDA_MPS_PIPE_DIRECTORY", dir, 1);
	setenv("CUDA_MPS_LOG_DIRECTORY", dir, 1);
	if (control("-d", NULL)) {
		owed_skip(o, "%s does not start", CONTROL);
	} else {
		ask(o);
		owed_ok(o);	/* kvmd is never such a client, and asks nothing of them */
		end_control();
	}
	empty_dir();
}
