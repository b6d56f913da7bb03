// SPDX-License-Identifier: Apache-2.0
/*
 * owed_lib.c - see owed.h: processes that ask, what they say, and their time limits.
 *
 * A message is one datagram of a socket pair. Children are in the process group of
 * the question, which is killed as a whole when its time is over.
 */
#include "tests/gpu/owed.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct message {
	uint64_t v;
	int32_t failed;
	char text[OWED_TEXT];
};

/* ------------------------------------------------------------ lines */

/* One write(): lines of several processes never mix. */
static void line(const char *word, const char *name, const char *sep, const char *fmt, va_list ap)
	__attribute__((format(printf, 4, 0)));
static void line(const char *word, const char *name, const char *sep, const char *fmt, va_list ap)
{
	char buf[1200];
	int n = snprintf(buf, sizeof(buf), "%s%s%s", word, name, sep);

	if (fmt)
		n += vsnprintf(buf + n, sizeof(buf) - (size_t)n - 1, fmt, ap);
	if ((size_t)n > sizeof(buf) - 2)
		n = sizeof(buf) - 2;
	buf[n++] = '\n';
	if (write(STDOUT_FILENO, buf, (size_t)n) != n)
		_exit(3);
}

void owed_answer(const struct owed *o, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	line("answer ", o->name, ": ", fmt, ap);
	va_end(ap);
}

static void line_plain(const char *word, const char *name, const char *sep, const char *fmt, ...)
	__printf(4, 5);
static void line_plain(const char *word, const char *name, const char *sep, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	line(word, name, sep, fmt, ap);
	va_end(ap);
}

void owed_ok(const struct owed *o)
{
	line_plain("ok ", o->name, "", "%s", "");
}

bool owed_failed;

void owed_not_ok(const struct owed *o, const char *fmt, ...)
{
	va_list ap;

	owed_failed = true;
	va_start(ap, fmt);
	line("not ok ", o->name, ": ", fmt, ap);
	va_end(ap);
}

void owed_skip(const struct owed *o, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	line("SKIP: ", o->name, ": ", fmt, ap);
	va_end(ap);
}

void owed_verdict(const struct owed *o, const char *why)
{
	if (why)
		owed_not_ok(o, "%s", why);
	else
		owed_ok(o);
}

uint64_t owed_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

double owed_ms_since(uint64_t ns)
{
	return (double)(owed_ns() - ns) / 1e6;
}

const char *owed_built(const char *name)
{
	static char path[PATH_MAX + 64];
	const char *dir = getenv("KVMD_BUILD_DIR");
	char exe[PATH_MAX];
	ssize_t n;

	if (dir) {
		snprintf(path, sizeof(path), "%s/%s", dir, name);
		return path;
	}
	/* We are DIR/tests/gpu/prog_owed. */
	n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	exe[n > 0 ? n : 0] = 0;
	for (int i = 0; i < 3; i++) {
		char *slash = strrchr(exe, '/');

		if (slash)
			*slash = 0;
	}
	snprintf(path, sizeof(path), "%s/%s", exe, name);
	return path;
}

/* ------------------------------------------------------------ actors */

/* Another user for good, as a client of another uid is. */
static void become(struct owed_actor *me, uid_t uid)
{
	if (setgroups(0, NULL) || setgid(uid) || setuid(uid))
		owed_fail(me, "cannot become uid %u: %s", uid, strerror(errno));
	/* As after an exec: else /proc/self is root's, and the driver writes there. */
	prctl(PR_SET_DUMPABLE, 1);
}

void owed_start(struct owed_actor *a, uid_t uid, owed_fn *fn, void *arg)
{
	int pair[2];

	memset(a, 0, sizeof(*a));
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		abort();
	a->pid = fork();
	if (a->pid < 0)
		abort();
	if (a->pid) {
		close(pair[1]);
		a->sock = pair[0];
		return;
	}
	close(pair[0]);
	a->pid = getpid();
	a->sock = pair[1];
	if (uid)
		become(a, uid);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	fn(a, arg);
	_exit(0);
}

int owed_end(struct owed_actor *a)
{
	int status;

	if (a->pid <= 0)
		return 0;
	close(a->sock);
	if (waitpid(a->pid, &status, 0) != a->pid)
		return -1;
	a->pid = 0;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void owed_kill(struct owed_actor *a)
{
	if (a->pid > 0)
		kill(a->pid, SIGKILL);
	owed_end(a);
}

/* ------------------------------------------------------------ messages */

static int send_message(int sock, const struct message *m, int fd)
{
	union {
		struct cmsghdr h;
		char room[CMSG_SPACE(sizeof(int))];
	} c;
	struct iovec iov = { .iov_base = (void *)(uintptr_t)m, .iov_len = sizeof(*m) };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		memset(&c, 0, sizeof(c));
		h.msg_control = &c;
		h.msg_controllen = sizeof(c);
		c.h.cmsg_level = SOL_SOCKET;
		c.h.cmsg_type = SCM_RIGHTS;
		c.h.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&c.h), &fd, sizeof(int));
	}
	return sendmsg(sock, &h, MSG_NOSIGNAL) == sizeof(*m) ? 0 : -1;
}

/* 1 a message, 0 the other side is gone, -1 it says nothing. */
static int recv_message(int sock, struct message *m, int *ret_fd)
{
	union {
		struct cmsghdr h;
		char room[CMSG_SPACE(sizeof(int))];
	} c;
	struct iovec iov = { .iov_base = m, .iov_len = sizeof(*m) };
	struct msghdr h = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof(c),
	};
	struct pollfd p = { .fd = sock, .events = POLLIN };
	int fd = -1;

	if (poll(&p, 1, OWED_WAIT_MS) != 1)
		return -1;
	if (recvmsg(sock, &h, MSG_CMSG_CLOEXEC) != sizeof(*m))
		return 0;
	if (CMSG_FIRSTHDR(&h) && CMSG_FIRSTHDR(&h)->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&h)), sizeof(int));
	if (ret_fd)
		*ret_fd = fd;
	else if (fd >= 0)
		close(fd);
	return 1;
}

void owed_say(struct owed_actor *a, uint64_t v, int fd, const char *fmt, ...)
{
	struct message m = { .v = v };
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(m.text, sizeof(m.text), fmt, ap);
	va_end(ap);
	(void)send_message(a->sock, &m, fd);	/* who is gone is seen when it should answer */
}

int owed_hear(struct owed_actor *a, uint64_t *ret_v, int *ret_fd, char text[OWED_TEXT])
{
	struct message m;
	int r = recv_message(a->sock, &m, ret_fd);

	if (r == 1) {
		memcpy(text, m.text, OWED_TEXT);
		if (ret_v)
			*ret_v = m.v;
		return m.failed ? -1 : 0;
	}
	if (r < 0) {
		snprintf(text, OWED_TEXT, "a process says nothing for %d s", OWED_WAIT_MS / 1000);
	} else {
		r = owed_end(a);
		snprintf(text, OWED_TEXT, "a process ended with %s %d",
			 r > 128 ? "signal" : "status", r > 128 ? r - 128 : r);
	}
	return -1;
}

void owed_fail(struct owed_actor *me, const char *fmt, ...)
{
	struct message m = { .failed = 1 };
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(m.text, sizeof(m.text), fmt, ap);
	va_end(ap);
	(void)send_message(me->sock, &m, -1);
	_exit(1);
}

void owed_must(struct owed_actor *me, const char *what, int r)
{
	if (r)
		owed_fail(me, "%s: %s", what, cu_error(&me->g.cu, r));
}

uint64_t owed_next(struct owed_actor *me, int *ret_fd)
{
	struct message m;

	if (recv_message(me->sock, &m, ret_fd) != 1)
		_exit(2);
	return m.v;
}
