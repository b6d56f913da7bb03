/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fdstore.c - the supervisor's datagram protocol; see fdstore.h.
 */
#include "kvmd/lib/fdstore.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static int notify_fd = -1;

static int connect_to(const char *path)
{
	struct timeval tv = { .tv_sec = FDSTORE_WAIT_MS / 1000,
			      .tv_usec = FDSTORE_WAIT_MS % 1000 * 1000 };
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	size_t len = strlen(path);
	socklen_t sa_len;
	int fd, err;

	if ((path[0] != '/' && path[0] != '@') || len < 2)
		return -EINVAL;
	if (len >= sizeof(sa.sun_path))
		return -ENAMETOOLONG;
	memcpy(sa.sun_path, path, len);
	sa_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (path[0] == '/'));
	if (path[0] == '@')
		sa.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) ||
	    connect(fd, (const struct sockaddr *)&sa, sa_len)) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

int fdstore_open(void)
{
	const char *path = getenv("NOTIFY_SOCKET");
	int fd;

	fdstore_close();
	if (!path || !path[0])
		return 0;
	fd = connect_to(path);
	/* Children are not this service. */
	unsetenv("NOTIFY_SOCKET");
	if (fd < 0)
		return fd;
	notify_fd = fd;
	return 0;
}

void fdstore_close(void)
{
	if (notify_fd >= 0)
		close(notify_fd);
	notify_fd = -1;
}

bool fdstore_present(void)
{
	return notify_fd >= 0;
}

/* One datagram, with @fd unless it is negative. */
static int notify(const char *text, size_t bytes, int fd)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec iov = { .iov_base = (void *)(uintptr_t)text, .iov_len = bytes };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	if (notify_fd < 0)
		return 0;
	if (fd >= 0) {
		struct cmsghdr *cm;

		mh.msg_control = control.room;
		mh.msg_controllen = sizeof(control.room);
		cm = CMSG_FIRSTHDR(&mh);
		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cm), &fd, sizeof(fd));
	}
	do {
		n = sendmsg(notify_fd, &mh, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

int fdstore_ready(void)
{
	return notify("READY=1", 7, -1);
}

int fdstore_stopping(void)
{
	return notify("STOPPING=1", 10, -1);
}

int fdstore_status(const char *text)
{
	char msg[512];
	int n = snprintf(msg, sizeof(msg), "STATUS=%s", text);
	size_t len = min((size_t)n, sizeof(msg) - 1);

	/* A line feed would begin another assignment. */
	for (size_t i = 0; i < len; i++) {
		if (msg[i] == '\n')
			msg[i] = ' ';
	}
	return notify(msg, len, -1);
}

bool fdstore_name_ok(const char *name)
{
	size_t len = 0;

	for (; name[len]; len++) {
		if (name[len] < ' ' || name[len] >= 127 || name[len] == ':' ||
		    len + 1 == FDSTORE_NAME_BYTES)
			return false;
	}
	return len > 0;
}

int fdstore_add(const char *name, int fd)
{
	char msg[FDSTORE_NAME_BYTES + 64];
	int n;

	if (!fdstore_name_ok(name))
		return -EINVAL;
	if (fd < 0)
		return -EBADF;
	/* FDPOLL=0: systemd would drop what polls as hung up. */
	n = snprintf(msg, sizeof(msg), "FDSTORE=1\nFDNAME=%s\nFDPOLL=0", name);
	return notify(msg, (size_t)n, fd);
}

int fdstore_del(const char *name)
{
	char msg[FDSTORE_NAME_BYTES + 64];
	int n;

	if (!fdstore_name_ok(name))
		return -EINVAL;
	n = snprintf(msg, sizeof(msg), "FDSTOREREMOVE=1\nFDNAME=%s", name);
	return notify(msg, (size_t)n, -1);
}

/* A number from the environment; false: there is none, or it is out of range. */
static bool env_number(const char *name, long most, long *ret)
{
	const char *s = getenv(name);
	char *end;

	if (!s || *s < '0' || *s > '9')
		return false;
	errno = 0;
	*ret = strtol(s, &end, 10);
	return !*end && !errno && *ret <= most;
}

/* All descriptors of @nr to @take; @names is "a:b:c" and is taken apart. */
static int take_all(int nr, char *names, void (*take)(void *arg, const char *name, int fd),
		    void *arg)
{
	for (int i = 0; i < nr; i++) {
		const char *name = names && *names ? strsep(&names, ":") : "stored";
		int fd = FDSTORE_FIRST_FD + i;

		if (fcntl(fd, F_SETFD, FD_CLOEXEC))
			return -errno;
		take(arg, fdstore_name_ok(name) ? name : "stored", fd);
	}
	return nr;
}

int fdstore_take(void (*take)(void *arg, const char *name, int fd), void *arg)
{
	const char *env = getenv("LISTEN_FDNAMES");
	char *names = NULL;
	long nr = 0, pid;
	int err = 0;

	if (!getenv("LISTEN_FDS") || !getenv("LISTEN_PID"))
		goto out;
	err = -EINVAL;
	if (!env_number("LISTEN_PID", INT32_MAX, &pid) ||
	    !env_number("LISTEN_FDS", INT32_MAX - FDSTORE_FIRST_FD, &nr))
		goto out;
	/* Meant for a process before this one, which did not clear it. */
	err = 0;
	if (pid != getpid())
		goto out;
	err = -ENOMEM;
	names = strdup(env ? env : "");
	if (names)
		err = take_all((int)nr, names, take, arg);
out:
	free(names);
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	return err;
}
