/* SPDX-License-Identifier: Apache-2.0 */
/*
 * proto.c - messages and file descriptors over the control socket.
 *
 * One recvmsg() is one message (SOCK_SEQPACKET). Descriptors arrive
 * close-on-exec and belong to the struct kvci_rx until somebody takes them
 * (sets them to -1). Nothing here raises SIGPIPE.
 */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "libkvclient/internal.h"

#define CONNECT_PAUSE_NS	10000000l	/* between two attempts */

static int sock_address(const char *path, struct sockaddr_un *sa, socklen_t *ret_len)
{
	size_t len = strlen(path);

	memset(sa, 0, sizeof(*sa));
	sa->sun_family = AF_UNIX;
	if (!len || len >= sizeof(sa->sun_path)) {
		kvci_refuse("socket path '%s' is empty or longer than %zu bytes", path,
			    sizeof(sa->sun_path) - 1);
		return -ENAMETOOLONG;
	}
	memcpy(sa->sun_path, path, len);
	if (path[0] == '@')	/* Linux's abstract names, as ss(8) prints them */
		sa->sun_path[0] = '\0';
	*ret_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (path[0] != '@'));
	return 0;
}

static int connect_once(const struct sockaddr_un *sa, socklen_t len, int *ret_fd)
{
	/* connect() waits for room in the backlog at most this long */
	struct timeval tv = { .tv_sec = (long)(KVCI_HANDSHAKE_NS / 1000000000ull) };
	int fd, err;

	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) ||
	    connect(fd, (const struct sockaddr *)sa, len)) {
		err = -errno;
		close(fd);
		return err;
	}
	*ret_fd = fd;
	return 0;
}

int kvci_connect(const char *path, uint64_t wait_ns, int *ret_fd)
{
	const struct timespec pause = { .tv_nsec = CONNECT_PAUSE_NS };
	uint64_t deadline = wait_ns ? kvci_deadline(wait_ns) : 0;
	struct sockaddr_un sa;
	socklen_t len;
	int err;

	err = sock_address(path, &sa, &len);
	if (err)
		return err;
	for (;;) {
		err = connect_once(&sa, len, ret_fd);
		if (!err)
			return 0;
		if (err != -ENOENT && err != -ECONNREFUSED && err != -EAGAIN && err != -EINTR)
			break;
		if (kvci_now() >= deadline)
			break;
		nanosleep(&pause, NULL);
	}
	kvci_refuse("cannot connect to '%s': %s", path, strerror(-err));
	return err;
}

void kvci_msg_init(void *msg, uint32_t type, uint32_t bytes, uint64_t cookie)
{
	struct kvmd_msg *h = (struct kvmd_msg *)msg;

	memset(msg, 0, bytes);
	h->type = type;
	h->bytes = bytes;
	h->cookie = cookie;
}

int kvci_send(int fd, const void *msg, size_t bytes)
{
	ssize_t n;

	do {
		n = send(fd, msg, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n >= 0)
		return 0;
	return errno == EPIPE ? -ECONNRESET : -errno;
}

void kvci_rx_close(struct kvci_rx *rx)
{
	for (uint32_t i = 0; i < rx->nr_fds; i++) {
		if (rx->fd[i] >= 0)
			close(rx->fd[i]);
		rx->fd[i] = -1;
	}
	rx->nr_fds = 0;
}

static void take_fds(struct msghdr *mh, struct kvci_rx *rx)
{
	struct cmsghdr *cm;

	rx->nr_fds = 0;
	for (cm = CMSG_FIRSTHDR(mh); cm; cm = CMSG_NXTHDR(mh, cm)) {
		size_t nr;

		if (cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_RIGHTS)
			continue;
		nr = (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		if (nr > KVMD_MAX_FDS - rx->nr_fds)
			nr = KVMD_MAX_FDS - rx->nr_fds;	/* the buffer holds no more */
		memcpy(rx->fd + rx->nr_fds, CMSG_DATA(cm), nr * sizeof(int));
		rx->nr_fds += (uint32_t)nr;
	}
}

/* Milliseconds for poll(), rounded up. */
static int poll_ms(uint64_t deadline_ns)
{
	uint64_t now = kvci_now(), ms;

	if (deadline_ns <= now)
		return 0;
	ms = (deadline_ns - now + 999999) / 1000000;
	return ms > 60000 ? 60000 : (int)ms;
}

/* One recvmsg() without waiting: bytes, 0 at the end of the stream, or -errno. */
static ssize_t recv_once(int fd, struct kvci_rx *rx, int *ret_flags)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(int) * KVMD_MAX_FDS)];
	} control;
	struct iovec iov = { .iov_base = rx->u.bytes, .iov_len = sizeof(rx->u.bytes) };
	struct msghdr mh = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.room,
		.msg_controllen = sizeof(control.room),
	};
	ssize_t n;

	do {
		n = recvmsg(fd, &mh, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	take_fds(&mh, rx);
	*ret_flags = mh.msg_flags;
	return n;
}

int kvci_recv(int fd, uint64_t deadline_ns, struct kvci_rx *rx)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	int flags, err;
	ssize_t n;

	while ((n = recv_once(fd, rx, &flags)) == -EAGAIN) {
		if (!deadline_ns)
			return -EAGAIN;
		if (kvci_now() >= deadline_ns)
			return -ETIMEDOUT;
		if (poll(&pfd, 1, poll_ms(deadline_ns)) < 0 && errno != EINTR)
			return -errno;
	}
	if (n < 0)
		return (int)n;
	if (!n)
		return -ECONNRESET;
	err = -EPROTO;
	if ((flags & MSG_TRUNC) || (size_t)n < sizeof(rx->u.h) || rx->u.h.bytes != (size_t)n)
		goto err_close;
	err = -EMFILE;
	if ((flags & MSG_CTRUNC) || rx->u.h.nr_fds > rx->nr_fds)
		goto err_close;
	err = -EPROTO;
	if (rx->u.h.nr_fds != rx->nr_fds)
		goto err_close;
	rx->bytes = (size_t)n;
	return 0;

err_close:
	kvci_rx_close(rx);
	return err;
}

bool kvci_hung_up(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLRDHUP };

	return poll(&pfd, 1, 0) > 0 && (pfd.revents & (POLLHUP | POLLRDHUP | POLLERR | POLLNVAL));
}
