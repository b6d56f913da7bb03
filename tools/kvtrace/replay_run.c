// SPDX-License-Identifier: Apache-2.0
/*
 * replay_run.c - the parent of the clients: fork them, watch them, end them.
 *
 * A client that ends with an error, or a signal to us, ends the pass: the
 * others are killed, which must not matter to the daemon. With --kill some are
 * killed on purpose and started again where they were.
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kvmd/lib/clock.h"
#include "tools/kvtrace/kvtrace.h"
#include "tools/kvtrace/progress.h"
#include "tools/kvtrace/replay_daemon.h"

#define LOOK_MS		100

struct child {
	pid_t pid;		/* 0: ended */
	int pidfd;
	bool killed;		/* by us, on purpose: start it again */
};

struct watch {
	struct replay_run *r;
	struct child child[REPLAY_MAX_CLIENTS];
	struct pollfd fds[REPLAY_MAX_CLIENTS + 1];
	uint32_t nr_alive, nr_killed;
	int sigfd;
	sigset_t old_mask;
	struct progress progress;
};

static int start_child(struct watch *w, uint32_t c)
{
	struct child *ch = &w->child[c];
	pid_t parent = getpid();

	fflush(NULL);
	ch->pid = fork();
	if (ch->pid < 0)
		return -errno;
	if (!ch->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(KVT_REFUSED);
		sigprocmask(SIG_SETMASK, &w->old_mask, NULL);
		_exit(client_main(w->r, c));
	}
	ch->killed = false;
	ch->pidfd = (int)syscall(SYS_pidfd_open, ch->pid, 0);
	if (ch->pidfd < 0) {
		int err = -errno;

		kill(ch->pid, SIGKILL);
		waitpid(ch->pid, NULL, 0);
		ch->pid = 0;
		return err;
	}
	w->nr_alive++;
	return 0;
}

static void bury(struct watch *w, uint32_t c, int *ret_status)
{
	waitpid(w->child[c].pid, ret_status, 0);
	close(w->child[c].pidfd);
	w->child[c].pid = 0;
	w->nr_alive--;
}

static int child_ended(struct watch *w, uint32_t c)
{
	bool again = w->child[c].killed;
	int status, err;

	bury(w, c, &status);
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return KVT_OK;
	if (again && WIFSIGNALED(status)) {
		st_rlx(&w->r->page->c[c].want, REPLAY_DONE);
		err = start_child(w, c);
		if (!err)
			return KVT_OK;
		kvt_warn("client %u: %s", c, strerror(-err));
	} else if (WIFSIGNALED(status)) {
		kvt_warn("client %u ended by signal %d", c, WTERMSIG(status));
	}
	return KVT_REFUSED;
}

/* With --kill: one goes whenever another share of the requests is done. */
static void kill_one(struct watch *w, uint64_t done, uint64_t total)
{
	const struct replay_opts *o = w->r->plan->o;
	uint32_t i, c;

	if (w->nr_killed >= o->kills || done * (o->kills + 1) < total * (w->nr_killed + 1ull))
		return;
	for (i = 0; i < o->clients; i++) {
		c = (w->nr_killed + i) % o->clients;
		if (!w->child[c].pid || ld_rlx(&w->r->page->c[c].next) == REPLAY_DONE)
			continue;
		w->child[c].killed = true;
		kill(w->child[c].pid, SIGKILL);
		break;
	}
	w->nr_killed++;
}

/* With --restart: the daemon goes whenever another share of the requests is done. */
static int restart_one(struct watch *w, uint64_t done, uint64_t total)
{
	struct replay_run *r = w->r;
	uint64_t n = r->plan->o->restarts, nr = r->lives.nr_past;

	if (r->pass != PASS_SHARED || nr >= n || done * (n + 1) < total * (nr + 1))
		return KVT_OK;
	return daemon_restart(r->d, &r->lives);
}

/* Is there something to be done at a certain place in the trace? */
static bool looks_closely(const struct watch *w)
{
	const struct replay_opts *o = w->r->plan->o;

	return w->nr_killed < o->kills ||
	       (w->r->pass == PASS_SHARED && w->r->lives.nr_past < o->restarts);
}

static void kill_all(struct watch *w)
{
	uint32_t c;
	int status;

	for (c = 0; c < w->r->page->nr; c++)
		if (w->child[c].pid)
			kill(w->child[c].pid, SIGKILL);
	for (c = 0; c < w->r->page->nr; c++)
		if (w->child[c].pid)
			bury(w, c, &status);
}

/* Until all have ended; an exit code. */
static int watch_children(struct watch *w)
{
	uint64_t total = w->r->plan->t.nr_reqs, done;
	uint32_t c, n = w->r->page->nr;
	int err = KVT_OK;

	while (!err && w->nr_alive) {
		for (c = 0; c < n; c++)
			w->fds[c] = (struct pollfd){
				.fd = w->child[c].pid ? w->child[c].pidfd : -1, .events = POLLIN };
		w->fds[n] = (struct pollfd){ .fd = w->sigfd, .events = POLLIN };
		if (poll(w->fds, n + 1, looks_closely(w) ? 1 : LOOK_MS) < 0 &&
		    errno != EINTR)
			return KVT_REFUSED;
		done = run_done(w->r);
		progress_update(&w->progress, done, total);
		kill_one(w, done, total);
		err = restart_one(w, done, total);
		for (c = 0; c < n && !err; c++)
			if (w->fds[c].fd >= 0 && w->fds[c].revents)
				err = child_ended(w, c);
		if (w->fds[n].revents) {
			kvt_warn("interrupted");
			err = KVT_REFUSED;
		}
	}
	return err;
}

static int watch_init(struct watch *w, struct replay_run *r)
{
	const struct replay_opts *o = r->plan->o;
	static const char *const names[NR_REPLAY_PASS] = {
		[PASS_SHARED] = "replay", [PASS_PRIVATE] = "private", [PASS_BESIDE] = "no tiers",
	};
	sigset_t mask;

	memset(w, 0, sizeof(*w));
	w->r = r;
	sigemptyset(&mask);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGHUP);
	sigprocmask(SIG_BLOCK, &mask, &w->old_mask);
	w->sigfd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (w->sigfd < 0) {
		sigprocmask(SIG_SETMASK, &w->old_mask, NULL);
		return -errno;
	}
	progress_start(&w->progress, names[r->pass], o->quiet || o->json);
	return 0;
}

static void watch_exit(struct watch *w)
{
	struct signalfd_siginfo info;

	kill_all(w);
	progress_end(&w->progress);
	/* What was pending has been answered by ending; it must not end us again. */
	while (read(w->sigfd, &info, sizeof(info)) > 0)
		;
	close(w->sigfd);
	sigprocmask(SIG_SETMASK, &w->old_mask, NULL);
}

int run_pass(struct replay_run *r)
{
	struct watch *w = malloc(sizeof(*w));
	uint32_t c;
	int err = w ? watch_init(w, r) : -ENOMEM;

	if (err) {
		kvt_warn("%s", strerror(-err));
		free(w);
		return KVT_REFUSED;
	}
	for (c = 0; c < r->page->nr; c++)
		r->page->c[c].next = plan_next(r->plan, c, 0);
	r->page->start_ns = clock_ns();
	for (c = 0; !err && c < r->page->nr; c++)
		err = start_child(w, c);
	if (err)
		kvt_warn("client %u: %s", c - 1, strerror(-err));
	else
		err = watch_children(w);
	r->spent_ns = clock_ns() - r->page->start_ns;
	watch_exit(w);
	free(w);
	return err ? KVT_REFUSED : KVT_OK;
}
