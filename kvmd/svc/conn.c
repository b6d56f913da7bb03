/* SPDX-License-Identifier: Apache-2.0 */
/*
 * conn.c - the clients' socket: accepting, receiving, sending, losing.
 *
 * A client is its process: SO_PEERCRED says who it is, its pidfd says when it
 * is gone. A closed socket ends the session at once, but what it held is only
 * released when the process is gone or had said good-bye (death.c).
 */
#include "kvmd/svc/daemon.h"

#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "kvmd/lib/clock.h"
#include "kvmd/lib/fault.h"
#include "kvmd/lib/log.h"
#include "kvmd/lib/stats.h"
#include "kvmd/svc/keep.h"
#include "kvmd/svc/sock.h"

#define HELLO_NS	5000000000ull	/* a connection that says no hello may be closed */

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

/* ------------------------------------------------------------------ sending */

/* Tell rank 0 that its socket has something; it may be asleep. */
static void control_news(struct conn *c)
{
	struct session *s = c->s;

	c->control_seq++;
	if (!s || c->rank || s->state < SESSION_HELLO || s->state > SESSION_LIVE)
		return;
	st_rlx(&s->ring.sh->control_seq, c->control_seq);
	st_rel(&s->ring.sh->news_seq, s->ring.sh->news_seq + 1);
	smp_mb();	/* news before flag load; pairs with the sleeper's fence */
	if (ld_rlx(&s->ring.sh->client_flags) & KVMD_RING_NEED_WAKEUP)
		ring_wake(&s->ring);
}

int conn_send(struct conn *c, void *msg, size_t bytes, const int *fds, unsigned nr_fds)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * KVMD_MAX_FDS)];
		struct cmsghdr align;
	} u;
	struct iovec iov = { .iov_base = msg, .iov_len = bytes };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct kvmd_msg *h = msg;

	if (c->sock < 0)
		return -ENOTCONN;
	if (fault_hit(FAULT_SEND))
		return -ENOBUFS;
	h->bytes = (uint32_t)bytes;
	h->nr_fds = nr_fds;
	if (nr_fds) {
		struct cmsghdr *cm;

		memset(&u, 0, sizeof(u));
		mh.msg_control = u.buf;
		mh.msg_controllen = CMSG_SPACE(sizeof(int) * nr_fds);
		cm = CMSG_FIRSTHDR(&mh);
		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN(sizeof(int) * nr_fds);
		memcpy(CMSG_DATA(cm), fds, sizeof(int) * nr_fds);
	}
	if (sendmsg(c->sock, &mh, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return -errno;
	control_news(c);
	return 0;
}

/* ------------------------------------------------------------------- losing */

static void conn_put(struct conn *c)
{
	/* A request that is still armed has to report before the place is reused. */
	if (c->sock >= 0 || c->s || !c->pid_gone || c->sock_req.armed || c->pid_req.armed)
		return;
	if (c->pidfd >= 0)
		close(c->pidfd);
	c->pidfd = -1;
	c->state = CONN_FREE;
	keep_conn(c->d, c);
	c->keep_n = 0;
}

/*
 * Whatever ends a connection, what its process had sent last may be unread: a BYE
 * counts. A client that closes with messages unread resets the connection; that
 * error comes once, before what it had sent.
 */
static void hear_bye(struct conn *c)
{
	struct kvmd_msg m;
	ssize_t n;

	for (int i = 0; i < 64 && !c->said_bye; i++) {
		n = recv(c->sock, &m, sizeof(m), MSG_DONTWAIT | MSG_TRUNC);
		if (n <= 0 && (n == 0 || errno != ECONNRESET))
			return;
		c->said_bye = n == (ssize_t)sizeof(m) && m.type == KVMD_MSG_BYE &&
			      m.bytes == sizeof(m);
	}
	if (c->said_bye)
		keep_conn(c->d, c);
}

void conn_close(struct conn *c)
{
	if (c->sock < 0)
		return;
	if (!c->said_bye)
		hear_bye(c);
	if (c->doomed) {
		c->doomed = false;
		c->d->nr_doomed--;
	}
	if (c->sock_req.armed)
		uring_cancel(c->d->u, &c->sock_req);
	shutdown(c->sock, SHUT_RDWR);
	close(c->sock);
	c->sock = -1;
	c->state = CONN_GONE;
	announce_conn_closed(c);
	if (c->said_bye)
		announce_conn_gone(c);
	if (c->s)
		session_end(c->s, -ECONNRESET);
	conn_put(c);
}

/*
 * The process reads the end of the stream, and lives. Only its good-bye is still
 * of interest: without it what it held waits for its end.
 */
void conn_end(struct conn *c)
{
	if (c->sock < 0)
		return;
	shutdown(c->sock, SHUT_WR);
	announce_conn_closed(c);
}

void conn_session_gone(struct conn *c)
{
	c->s = NULL;
	c->waiting = false;
	keep_conn(c->d, c);
	conn_put(c);
}

static void pid_done(struct uring_req *r, int res)
{
	struct conn *c = container_of(r, struct conn, pid_req);

	if (res < 0) {
		conn_put(c);
		return;
	}
	c->pid_gone = true;
	conn_close(c);
	if (c->waiting && c->s)
		session_end(c->s, -ECONNRESET);	/* it died while there was no daemon */
	c->waiting = false;
	announce_conn_gone(c);
	conn_put(c);
}

void conn_close_doomed(struct daemon *d)
{
	for (uint32_t i = 0; d->nr_doomed && i < POOL_MAX_CONNS; i++)
		if (d->conn[i].doomed)
			conn_close(&d->conn[i]);
}

/* A place for a new connection; one whose process said bye but lives on may go. */
static struct conn *conn_get(struct daemon *d)
{
	for (uint32_t i = 0; i < POOL_MAX_CONNS; i++)
		if (d->conn[i].state == CONN_FREE && d->session[i].state == SESSION_FREE &&
		    !d->conn[i].sock_req.armed && !d->conn[i].pid_req.armed)
			return &d->conn[i];
	/* All are taken: the silent lose theirs, for the next who comes. */
	for (uint32_t i = 0; i < POOL_MAX_CONNS; i++) {
		struct conn *c = &d->conn[i];

		if (c->state == CONN_NEW && d->now_ns - c->connected_ns > HELLO_NS) {
			conn_close(c);
			continue;
		}
		if (c->state != CONN_GONE || c->s || !c->said_bye || c->pid_gone)
			continue;
		announce_conn_recycle(c);
		c->pid_gone = true;
		if (c->pid_req.armed)
			uring_cancel(d->u, &c->pid_req);
		conn_put(c);
	}
	return NULL;
}

/* ---------------------------------------------------------------- receiving */

static void sock_arm(struct conn *c)
{
	if (c->sock >= 0 && !c->sock_req.armed &&
	    uring_poll_fd(c->d->u, &c->sock_req, c->sock, POLLIN | POLLRDHUP))
		conn_close(c);
}

static void sock_done(struct uring_req *r, int res)
{
	struct conn *c = container_of(r, struct conn, sock_req);
	uint64_t buf[KVMD_MSG_MAX_BYTES / 8];

	if (c->sock < 0) {
		conn_put(c);
		return;
	}
	if (res < 0) {
		conn_close(c);
		return;
	}
	/* No control buffer: descriptors that a client attaches are dropped. */
	for (int i = 0; i < 16 && c->sock >= 0; i++) {
		ssize_t n = recv(c->sock, buf, sizeof(buf), MSG_DONTWAIT | MSG_TRUNC);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (n <= 0 || (size_t)n > sizeof(buf)) {
			conn_close(c);
			return;
		}
		control_message(c, buf, (size_t)n);
	}
	sock_arm(c);
}

/* ---------------------------------------------------- a former daemon's clients */

void conn_restore(struct daemon *d, uint32_t id, const struct keep_conn *k, int pidfd,
		  struct session *s)
{
	struct conn *c = &d->conn[id];

	*c = (struct conn) {
		.d = d, .id = id, .state = CONN_GONE, .sock = -1, .pidfd = pidfd, .pid = k->pid,
		.uid = k->uid, .rank = k->rank, .s = s, .connected_ns = d->now_ns,
		.said_bye = k->said_bye, .waiting = s && !k->said_bye, .keep_n = k->n,
		.sock_req.done = sock_done, .pid_req.done = pid_done,
	};
	if (s)
		s->nr_conns++;
	if (uring_poll_fd(d->u, &c->pid_req, pidfd, POLLIN))
		c->pid_gone = true;
}

bool conn_is_over(const struct conn *c)
{
	struct pollfd pfd = { .fd = c->pidfd, .events = POLLIN };

	return c->pid_gone || c->pidfd < 0 || poll(&pfd, 1, 0) != 0;
}

void conn_take_over(struct conn *o, struct conn *c)
{
	o->sock = c->sock;
	o->state = CONN_LIVE;
	o->waiting = false;
	o->control_seq = 0;
	c->sock = -1;
	c->state = CONN_GONE;
	c->pid_gone = true;		/* the process is @o's to watch */
	if (c->pid_req.armed)
		uring_cancel(c->d->u, &c->pid_req);
	conn_put(c);
	sock_arm(o);
}

static int peer_pidfd(int sock, pid_t pid)
{
	socklen_t len = sizeof(int);
	int fd = -1;

	if (!getsockopt(sock, SOL_SOCKET, SO_PEERPIDFD, &fd, &len))
		return fd;
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	return fd < 0 ? -errno : fd;
}

static void conn_accept(struct daemon *d, int sock)
{
	struct conn *c = conn_get(d);
	struct ucred cred;
	socklen_t len = sizeof(cred);
	int pidfd;

	if (!c || getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		goto err_close;
	pidfd = peer_pidfd(sock, cred.pid);
	if (pidfd < 0)
		goto err_close;
	*c = (struct conn) {
		.d = d, .id = (uint32_t)(c - d->conn), .state = CONN_NEW, .sock = sock,
		.pidfd = pidfd, .pid = cred.pid, .uid = cred.uid, .connected_ns = d->now_ns,
		.sock_req.done = sock_done, .pid_req.done = pid_done,
	};
	if (uring_poll_fd(d->u, &c->pid_req, pidfd, POLLIN)) {
		c->pid_gone = true;
		conn_close(c);
		return;
	}
	sock_arm(c);
	return;

err_close:
	close(sock);
	stat_inc(SESSIONS_REFUSED);
}

static void listen_done(struct uring_req *r, int res)
{
	struct daemon *d = container_of(r, struct daemon, listen_req);

	if (res < 0 || d->listen_fd < 0)
		return;
	for (int i = 0; i < 16; i++) {
		int sock = accept4(d->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (sock < 0)
			break;
		conn_accept(d, sock);
	}
	if (uring_poll_fd(d->u, &d->listen_req, d->listen_fd, POLLIN))
		log_err("socket %s: cannot wait for clients any more: io_uring is full",
			d->conf.daemon.socket);
}

void conn_init(struct daemon *d)
{
	for (uint32_t i = 0; i < POOL_MAX_CONNS; i++)
		d->conn[i].sock = d->conn[i].pidfd = -1;
}

int conn_listen(struct daemon *d)
{
	int fd = sock_listen(d->conf.daemon.socket, SOCK_SEQPACKET, d->conf.daemon.socket_mode);

	if (fd < 0)
		return fd;
	d->listen_fd = fd;
	d->listen_req.done = listen_done;
	return uring_poll_fd(d->u, &d->listen_req, fd, POLLIN);
}

void conn_unlisten(struct daemon *d)
{
	if (d->listen_fd < 0)
		return;
	close(d->listen_fd);
	d->listen_fd = -1;
	if (d->conf.daemon.socket[0] != '@')
		unlink(d->conf.daemon.socket);
}
