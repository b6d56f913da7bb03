/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvkeeper - keeps a daemon's file descriptors while it restarts (kvkeeper(8)).
 *
 * Where there is no systemd this is its file descriptor store and its Restart=:
 * the command runs as a child with $NOTIFY_SOCKET, what it stores there by name
 * is kept (the last of a name counts), and when it dies it is waited for and
 * started again with all of it, from descriptor 3 on. Only the child is listened
 * to: the kernel says who sent a message. One thread, one poll(); signals are
 * blocked and read from a descriptor in it, nothing runs asynchronously.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kvmd/lib/clock.h"
#include "kvmd/lib/fdstore.h"

#define FIRST_PAUSE_MS	100u
#define MOST		16384u		/* descriptors; their names also have to fit 128 KiB */
#define say(fmt, ...)	fprintf(stderr, "kvkeeper: " fmt "\n", ##__VA_ARGS__)

static struct kept {
	char name[FDSTORE_NAME_BYTES];
	int fd;				/* close-on-exec */
} kept[MOST];
static unsigned nr_kept;
static int notify_fd, signal_fd;
static char notify_path[32];		/* '@' and the socket's abstract name */
static sigset_t old_mask;		/* the child's */
static pid_t child;			/* 0: none runs */
static bool was_ready;			/* some child served, ever */
static bool stopping;			/* we were told to stop */

/* What we were told is passed on; SIGCHLD only had to end the wait. */
static void take_signals(void)
{
	struct signalfd_siginfo si;

	while (read(signal_fd, &si, sizeof(si)) == sizeof(si)) {
		stopping |= si.ssi_signo == SIGTERM || si.ssi_signo == SIGINT;
		if (child && si.ssi_signo != SIGCHLD)
			kill(child, (int)si.ssi_signo);
	}
}

static void drop(const char *name)
{
	for (unsigned i = 0; i < nr_kept; i++) {
		if (!strcmp(kept[i].name, name)) {
			close(kept[i].fd);
			kept[i--] = kept[--nr_kept];
		}
	}
}

/* One message of the child: lines of NAME=VALUE, and a descriptor or -1, which is taken. */
static void message(char *text, int fd)
{
	bool add = false, del = false;
	const char *name = "stored";

	for (char *line; (line = strsep(&text, "\n"));) {
		if (!strcmp(line, "READY=1")) {
			was_ready = true;
			fdstore_ready();
		} else if (!strncmp(line, "STATUS=", 7)) {
			fdstore_status(line + 7);
		} else if (!strncmp(line, "FDNAME=", 7)) {
			name = line + 7;
		}
		add |= !strcmp(line, "FDSTORE=1");
		del |= !strcmp(line, "FDSTOREREMOVE=1");
	}
	if ((add || del) && !fdstore_name_ok(name)) {
		say("a descriptor's name is empty, too long, or has ':' or worse: refused");
	} else if (add || del) {
		drop(name);
		if (add && !del && fd >= 0 && nr_kept < MOST) {
			strcpy(kept[nr_kept].name, name);
			kept[nr_kept++].fd = fd;
			return;
		}
		if (!del)
			say("'%s' cannot be kept: RLIMIT_NOFILE, or more than %u", name, MOST);
	}
	if (fd >= 0)
		close(fd);
}

/* All messages that are there; those of anybody but the child are dropped. */
static void drain(void)
{
	union {
		struct cmsghdr align;	/* room for one descriptor; the kernel closes others */
		char room[CMSG_SPACE(sizeof(struct ucred)) + CMSG_LEN(sizeof(int))];
	} control;
	char text[4096];
	ssize_t n;

	for (;;) {
		struct iovec iov = { .iov_base = text, .iov_len = sizeof(text) - 1 };
		struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.room,
				     .msg_controllen = sizeof(control.room) };
		struct ucred from = { .pid = -1 };
		int fd = -1;

		n = recvmsg(notify_fd, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (n < 0)
			return;
		for (struct cmsghdr *cm = CMSG_FIRSTHDR(&mh); cm; cm = CMSG_NXTHDR(&mh, cm)) {
			if (cm->cmsg_type == SCM_CREDENTIALS)
				memcpy(&from, CMSG_DATA(cm), sizeof(from));
			else if (cm->cmsg_type == SCM_RIGHTS)
				memcpy(&fd, CMSG_DATA(cm), sizeof(fd));
		}
		text[child && from.pid == child ? n : 0] = '\0';
		message(text, fd);
	}
}

/* In the child: what is kept becomes 3, 4, ... and the environment says so. */
static int hand_over(void)
{
	const int end = FDSTORE_FIRST_FD + (int)nr_kept;
	char word[16], *names = calloc(nr_kept, FDSTORE_NAME_BYTES), *at = names;

	if (!names)
		return -ENOMEM;
	/* First out of the way, then in place; dup2() clears close-on-exec. */
	for (unsigned i = 0; i < nr_kept; i++) {
		if (kept[i].fd < end)
			kept[i].fd = fcntl(kept[i].fd, F_DUPFD_CLOEXEC, end);
		if (kept[i].fd < 0)
			return -errno;
		at += sprintf(at, "%s%s", i ? ":" : "", kept[i].name);
	}
	for (unsigned i = 0; i < nr_kept; i++) {
		if (dup2(kept[i].fd, FDSTORE_FIRST_FD + (int)i) < 0)
			return -errno;
	}
	snprintf(word, sizeof(word), "%d", (int)getpid());
	if (setenv("LISTEN_PID", word, 1) || setenv("LISTEN_FDNAMES", names, 1))
		return -errno;
	snprintf(word, sizeof(word), "%u", nr_kept);
	return setenv("LISTEN_FDS", word, 1) ? -errno : 0;
}

static void start(char **argv)
{
	pid_t keeper = getpid();
	int err = 0;

	child = fork();
	if (child < 0)
		say("fork: %s", strerror(errno));
	child = child < 0 ? 0 : child;
	if (keeper == getpid())
		return;
	/* Nothing is kept by a keeper that was killed: the child shall stop as well. */
	if (prctl(PR_SET_PDEATHSIG, SIGTERM) || getppid() != keeper)
		_exit(1);
	if (nr_kept)
		err = hand_over();
	if (!err && !setenv("NOTIFY_SOCKET", notify_path, 1)) {
		/* What was passed on already ends it here. */
		sigprocmask(SIG_SETMASK, &old_mask, NULL);
		execvp(argv[0], argv);
		err = -errno;
	}
	say("cannot run %s: %s", argv[0], strerror(-err));
	_exit(err == -ENOENT ? 127 : 126);
}

/* Theirs are the default actions, whatever we inherited: the child begins with them. */
static int signals_init(void)
{
	static const int signals[] = { SIGCHLD, SIGTERM, SIGINT, SIGHUP };
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		signal(signals[i], SIG_DFL);
		sigaddset(&set, signals[i]);
	}
	if (sigprocmask(SIG_BLOCK, &set, &old_mask))
		return -errno;
	signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return signal_fd < 0 ? -errno : 0;
}

static int set_up(void)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(un);
	struct rlimit lim;
	const int on = 1;
	int err = signals_init();

	if (err)
		return err;
	if (!getrlimit(RLIMIT_NOFILE, &lim)) {
		lim.rlim_cur = lim.rlim_max;
		setrlimit(RLIMIT_NOFILE, &lim);
	}
	/* The kernel chooses an abstract name: nothing is left behind. */
	notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (notify_fd < 0 || bind(notify_fd, (struct sockaddr *)&un, sizeof(un.sun_family)) ||
	    setsockopt(notify_fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) ||
	    getsockname(notify_fd, (struct sockaddr *)&un, &len))
		return -errno;
	snprintf(notify_path, sizeof(notify_path), "@%.*s",
		 (int)(len - offsetof(struct sockaddr_un, sun_path) - 1), un.sun_path + 1);
	return fdstore_open();
}

/* Wait for news; without a child until @at_ns at the longest. */
static void wait_for_news(uint64_t at_ns)
{
	struct pollfd pfd[] = {
		{ .fd = notify_fd, .events = POLLIN }, { .fd = signal_fd, .events = POLLIN },
	};
	uint64_t now = clock_ns(), left_ns = at_ns > now ? at_ns - now : 0;

	(void)poll(pfd, ARRAY_SIZE(pfd), child ? -1 : (int)((left_ns + 999999) / 1000000));
	take_signals();
	drain();
}

/* Until the child ended for good; what we exit with. */
static int keep_running(char **argv, uint64_t longest_ms)
{
	uint64_t started = clock_ns(), pause_ms = FIRST_PAUSE_MS;
	uint64_t next_ns = started + pause_ms * 1000000;	/* when it is started again */
	int status;

	start(argv);
	for (;;) {
		wait_for_news(next_ns);
		if (stopping && !child)
			return 0;
		if (!child && clock_ns() >= next_ns) {
			started = clock_ns();
			start(argv);
			pause_ms = min(2 * pause_ms, longest_ms);
			next_ns = started + pause_ms * 1000000;
		}
		if (!child || waitpid(child, &status, WNOHANG) <= 0)
			continue;
		drain();	/* its last words */
		child = 0;
		if (stopping || (WIFEXITED(status) && !was_ready))
			return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		if (clock_ns() - started > longest_ms * 1000000)
			pause_ms = FIRST_PAUSE_MS;
		next_ns = clock_ns() + pause_ms * 1000000;
		say("%s %s %d; starting it again in %u ms with %u descriptors", argv[0],
		    WIFEXITED(status) ? "exited with" : "was killed by signal",
		    WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status),
		    (unsigned)pause_ms, nr_kept);
	}
}

int main(int argc, char **argv)
{
	uint64_t longest_ms = 10000;
	char *end = "";
	int opt, err;

	while ((opt = getopt(argc, argv, "+s:")) == 's' && !*end)
		longest_ms = strtoul(optarg, &end, 10) * 1000;
	if (opt != -1 || optind == argc || *end || !longest_ms || longest_ms > 3600000) {
		fputs("usage: kvkeeper [-s SECONDS] [--] COMMAND [ARGUMENT]...\n"
		      "  -s SECONDS  longest pause before it is started again (default 10)\n", stderr);
		return 2;
	}
	err = set_up();
	if (err) {
		say("cannot start: %s", strerror(-err));
		return 1;
	}
	return keep_running(argv + optind, longest_ms);
}
