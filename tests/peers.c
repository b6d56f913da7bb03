/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peers.c - client processes of a test, and what they say to each other.
 *
 * A process that has used CUDA cannot be forked: the child has no driver. With
 * cuda devices all client processes therefore come from a small process of their
 * own, forked when the first daemon is prepared, and become children of the test, which
 * is their reaper when the process between has ended. They begin with the memory of
 * that moment, and with a copy of their argument. Without CUDA they are forks of the
 * test itself.
 */
#include "tests/harness.h"
#include "tests/harness_int.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARG_BYTES	256

/* What the server is told of a client process; two descriptors come with it. */
struct order {
	peer_fn *fn;
	struct hd hd;
	size_t bytes;
	char arg[ARG_BYTES];
	char fake[256], state[128];	/* environment of the fake driver */
};

static int server = -1;			/* socket to it; -1: there is none */

/* It is a child of this test, and ends with it. */
static void begin_child(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(98);
	test_in_child = true;
}

pid_t test_fork(void)
{
	pid_t pid, parent = getpid();

	fflush(NULL);
	pid = fork();
	T(pid >= 0);
	if (!pid)
		begin_child(parent);
	return pid;
}

int test_wait(pid_t pid)
{
	int status;

	T(waitpid(pid, &status, 0) == pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ----------------------------------------------------------------- the server */

static void copy_env(char *to, size_t bytes, const char *name)
{
	const char *env = getenv(name);

	T((size_t)snprintf(to, bytes, "%s", env ? env : "") < bytes);
}

static void run_order(struct order *o, int to, int from)
{
	struct peer me = { .pid = getpid(), .to = to, .from = from };

	setenv("KVMD_FAKECUDA", o->fake, 1);
	setenv("KVMD_FAKECUDA_STATE", o->state, 1);
	o->fn(&me, &o->hd, o->bytes ? o->arg : NULL);
	_exit(0);
}

/* The next order with its descriptors; false: the test is over. */
static bool take_order(int sock, struct order *o, int fd[2])
{
	char control[CMSG_SPACE(2 * sizeof(int))] __attribute__((aligned(8)));
	struct iovec iov = { .iov_base = o, .iov_len = sizeof(*o) };
	struct msghdr mh = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *cm;

	if (recvmsg(sock, &mh, MSG_CMSG_CLOEXEC) != sizeof(*o))
		return false;
	cm = CMSG_FIRSTHDR(&mh);
	if (!cm || cm->cmsg_len != CMSG_LEN(2 * sizeof(int)))
		return false;
	memcpy(fd, CMSG_DATA(cm), 2 * sizeof(int));
	return true;
}

/* In a process of its own, which ends: the peer is then the test's child. */
static void fork_orphan(struct order *o, int sock, pid_t test, const int fd[2], int go[2], int told)
{
	pid_t pid = fork();
	char c;

	if (!pid) {
		close(sock);
		close(told);
		close(go[1]);
		if (read(go[0], &c, 1) != 0)	/* the end, when it is nobody else's child */
			_exit(98);
		close(go[0]);
		begin_child(test);
		run_order(o, fd[0], fd[1]);
	}
	_exit(write(told, &pid, sizeof(pid)) != sizeof(pid));
}

static pid_t serve_one(struct order *o, int sock, pid_t test, const int fd[2])
{
	int go[2], told[2];
	pid_t mid, pid = -1;

	T(!pipe2(go, O_CLOEXEC) && !pipe2(told, O_CLOEXEC));
	mid = fork();
	if (!mid)
		fork_orphan(o, sock, test, fd, go, told[1]);
	T(mid > 0);
	close(go[0]);
	close(told[1]);
	T(read(told[0], &pid, sizeof(pid)) == sizeof(pid));
	T_EQ(test_wait(mid), 0);
	close(go[1]);
	close(told[0]);
	return pid;
}

static void serve(int sock, pid_t test)
{
	static struct order o;
	int fd[2];
	pid_t pid;

	test_in_child = true;
	while (take_order(sock, &o, fd)) {
		pid = serve_one(&o, sock, test, fd);
		close(fd[0]);
		close(fd[1]);
		if (write(sock, &pid, sizeof(pid)) != sizeof(pid))
			break;
	}
	device_cleanup();
	_exit(0);
}

void peers_prepare(void)
{
	pid_t test = getpid(), pid;
	int s[2];

	if (server >= 0)
		return;
	T(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s));
	fflush(NULL);
	pid = fork();
	T(pid >= 0);
	if (!pid) {
		close(s[0]);
		serve(s[1], test);
	}
	/* The group of the test is killed when it has ended: there is some tidying to do. */
	T(!setpgid(pid, pid));
	close(s[1]);
	server = s[0];
}

/* Both ends of the pipes are the child's afterwards. */
static pid_t order_peer(struct hd *d, peer_fn *fn, const void *arg, size_t bytes, int fd[2])
{
	char control[CMSG_SPACE(2 * sizeof(int))] __attribute__((aligned(8))) = { 0 };
	static struct order o;
	struct iovec iov = { .iov_base = &o, .iov_len = sizeof(o) };
	struct msghdr mh = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *cm = CMSG_FIRSTHDR(&mh);
	pid_t pid;

	o.fn = fn;
	o.hd = *d;
	o.hd.log = -1;
	o.hd.text = NULL;
	o.bytes = bytes;
	if (bytes)
		memcpy(o.arg, arg, bytes);
	copy_env(o.fake, sizeof(o.fake), "KVMD_FAKECUDA");
	copy_env(o.state, sizeof(o.state), "KVMD_FAKECUDA_STATE");
	cm->cmsg_level = SOL_SOCKET;
	cm->cmsg_type = SCM_RIGHTS;
	cm->cmsg_len = CMSG_LEN(2 * sizeof(int));
	memcpy(CMSG_DATA(cm), fd, 2 * sizeof(int));
	fflush(NULL);
	T(!prctl(PR_SET_CHILD_SUBREAPER, 1));	/* it becomes our child */
	T(sendmsg(server, &mh, MSG_NOSIGNAL) == sizeof(o));
	T(read(server, &pid, sizeof(pid)) == sizeof(pid));
	T(!prctl(PR_SET_CHILD_SUBREAPER, 0));
	T(pid > 0);
	return pid;
}

/* ------------------------------------------------------------------- processes */

static void peer_pipes(struct peer *p, int child[2])
{
	int a[2], b[2];

	T(!pipe2(a, O_CLOEXEC) && !pipe2(b, O_CLOEXEC));
	p->to = a[1];
	p->from = b[0];
	child[0] = b[1];
	child[1] = a[0];
}

void peer_fork(struct peer *p, struct hd *d, peer_fn *fn, void *arg)
{
	int child[2];

	peer_pipes(p, child);
	p->pid = test_fork();
	if (!p->pid) {
		struct peer me = { .pid = getpid(), .to = child[0], .from = child[1] };

		close(p->to);
		close(p->from);
		fn(&me, d, arg);
		_exit(0);
	}
	close(child[0]);
	close(child[1]);
}

void peer_start(struct peer *p, struct hd *d, peer_fn *fn, const void *arg, size_t bytes)
{
	char copy[ARG_BYTES] __attribute__((aligned(8)));
	int child[2];

	T(bytes <= ARG_BYTES);
	if (server < 0) {
		if (bytes)
			memcpy(copy, arg, bytes);
		peer_fork(p, d, fn, bytes ? copy : NULL);
		return;
	}
	peer_pipes(p, child);
	p->pid = order_peer(d, fn, arg, bytes, child);
	close(child[0]);
	close(child[1]);
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
	int status = test_wait(p->pid);

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
	T_EQ(test_wait(p->pid), 128 + SIGKILL);
	peer_close(p);
}

void peer_halt(struct peer *me)
{
	(void)me;
	for (;;)
		pause();
}
