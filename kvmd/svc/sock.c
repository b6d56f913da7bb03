/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sock.c - listening sockets; see sock.h.
 */
#include "kvmd/svc/sock.h"

#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "kvmd/lib/log.h"

static int sock_addr(const char *path, struct sockaddr_un *sa, socklen_t *ret_len)
{
	size_t len = strlen(path);

	memset(sa, 0, sizeof(*sa));
	sa->sun_family = AF_UNIX;
	if (!len || len >= sizeof(sa->sun_path))
		return -ENAMETOOLONG;
	memcpy(sa->sun_path, path, len);
	*ret_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
	if (path[0] == '@') {
		sa->sun_path[0] = 0;
		--*ret_len;
	}
	return 0;
}

/*
 * Is the process that listens at the other end of @fd over? io_uring lets go of
 * its sockets a little after the process ended, so connecting alone tells nothing.
 */
static bool listener_gone(int fd)
{
	struct pollfd pfd = { .events = POLLIN };
	struct ucred cred;
	socklen_t len = sizeof(cred);
	bool gone;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) || cred.pid <= 0)
		return false;
	pfd.fd = (int)syscall(SYS_pidfd_open, cred.pid, 0);
	if (pfd.fd < 0)
		return errno == ESRCH;
	gone = poll(&pfd, 1, 0) == 1;
	close(pfd.fd);
	return gone;
}

/* Is somebody serving it? Then it is not ours to take. */
static bool is_live(const struct sockaddr_un *sa, socklen_t len, int type)
{
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool live;

	if (fd < 0)
		return true;
	if (!connect(fd, (const struct sockaddr *)sa, len))
		live = !listener_gone(fd);
	else
		live = errno == EAGAIN || errno == EPROTOTYPE;
	close(fd);
	return live;
}

static void make_parent(const char *path)
{
	char dir[sizeof(((struct sockaddr_un *)0)->sun_path)];
	char *slash;

	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	if (!slash || slash == dir)
		return;
	*slash = 0;
	(void)mkdir(dir, 0755);
}

int sock_listen(const char *path, int type, uint32_t mode)
{
	struct sockaddr_un sa;
	struct stat st;
	socklen_t len;
	int fd, err = sock_addr(path, &sa, &len);

	if (err) {
		log_err("socket %s: the path must have 1 to %zu bytes", path,
			sizeof(sa.sun_path) - 1);
		return err;
	}
	if (path[0] != '@') {
		make_parent(path);
		if (!lstat(path, &st) && !S_ISSOCK(st.st_mode)) {
			log_err("socket %s: a file that is no socket is there: remove it", path);
			return -EEXIST;
		}
		if (is_live(&sa, len, type)) {
			log_err("socket %s: another daemon serves it: stop it, or set "
				"daemon.socket", path);
			return -EADDRINUSE;
		}
		(void)unlink(path);
	}
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&sa, len) ||
	    (path[0] != '@' && chmod(path, mode)) || listen(fd, 64)) {
		err = -errno;
		log_err("socket %s: %s", path, strerror(-err));
		close(fd);
		return err;
	}
	return fd;
}
