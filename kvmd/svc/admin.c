/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin.c - the operator's socket: connections, requests, answers.
 *
 * Each connection is a small machine: READ the line, RUN the verb (in turns),
 * WRITE the document, closed. The peer's own slowness only ever holds its own
 * connection: reads and writes never wait, and when all places are taken the
 * one that was quiet longest goes. A turn of RUN is started by polling the
 * socket for room to write, which is there until the document is sent. A verb
 * that waits for something else is run again by admin_resume() or admin_turn(),
 * and the socket is watched for the peer's end meanwhile.
 *
 * Only root and the user the daemon runs as may ask. Core thread only.
 */
#include "kvmd/svc/admin.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kvmd/lib/clock.h"
#include "kvmd/lib/log.h"
#include "kvmd/lib/mem.h"
#include "kvmd/svc/sock.h"

#define READ_BYTES	65536		/* taken in one turn */
#define QUIET_NS	5000000000ull	/* may be dropped for a newcomer then */

static const struct admin_verb *const tables[] = {
	admin_show_verbs, admin_conf_verbs, admin_list_verbs, admin_block_verbs,
	admin_slab_verbs, admin_act_verbs, admin_explain_verbs, admin_trace_verbs,
	admin_tier_verbs, admin_prefetch_verbs, admin_pressure_verbs,
};

/* ------------------------------------------------------------- connections */

/* The last of what was armed came back: its place is free. */
static void conn_free(struct admin_conn *c)
{
	if (c->req.armed || c->out_req.armed)
		return;
	mem_free(c->in);
	mem_free(c->keys);
	json_exit(&c->j);
	c->in = NULL;
	c->keys = NULL;
	c->state = ADMIN_FREE;
}

void admin_conn_close(struct admin_conn *c)
{
	if (c->state == ADMIN_FREE || c->state == ADMIN_CLOSING)
		return;
	if (c->rec)
		admin_trace_end(c);
	uring_cancel(c->d->u, &c->req);
	uring_cancel(c->d->u, &c->out_req);
	close(c->fd);
	c->fd = -1;
	c->state = ADMIN_CLOSING;
	conn_free(c);
}

void admin_conn_poll(struct admin_conn *c, unsigned events)
{
	if (!c->req.armed && uring_poll_fd(c->d->u, &c->req, c->fd, events))
		admin_conn_close(c);
}

void admin_conn_poll_out(struct admin_conn *c)
{
	if (!c->out_req.armed && uring_poll_fd(c->d->u, &c->out_req, c->fd, POLLOUT))
		admin_conn_close(c);
}

/* Its own poll may still be armed for the peer's end. */
static void poll_room(struct admin_conn *c)
{
	if (c->req.armed)
		admin_conn_poll_out(c);
	else
		admin_conn_poll(c, POLLOUT);
}

/* ---------------------------------------------------------------- answering */

int admin_refuse(struct admin_conn *c, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->msg, sizeof(c->msg), fmt, ap);
	va_end(ap);
	return err;
}

static void send_document(struct admin_conn *c)
{
	while (c->sent < c->j.len) {
		union {
			struct cmsghdr align;
			char buf[CMSG_SPACE(sizeof(int))];
		} ctl = { 0 };
		struct iovec iov = { c->j.buf + c->sent, c->j.len - c->sent };
		struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
		ssize_t n;

		if (c->send_fd >= 0) {
			struct cmsghdr *h;

			m.msg_control = ctl.buf;
			m.msg_controllen = sizeof(ctl.buf);
			h = CMSG_FIRSTHDR(&m);
			h->cmsg_level = SOL_SOCKET;
			h->cmsg_type = SCM_RIGHTS;
			h->cmsg_len = CMSG_LEN(sizeof(int));
			memcpy(CMSG_DATA(h), &c->send_fd, sizeof(int));
		}
		n = sendmsg(c->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
			poll_room(c);
			return;
		}
		if (n < 0)
			break;
		c->send_fd = -1;
		c->sent += (size_t)n;
		c->since_ns = clock_ns();
	}
	admin_conn_close(c);
}

/* The document is complete, or @err says why there is none. */
static void answer(struct admin_conn *c, int err)
{
	struct json *j = &c->j;

	if (!err && j->err)
		err = admin_refuse(c, j->err, "out of memory for the answer");
	if (err) {
		json_exit(j);
		json_obj(j, NULL);
		json_u64(j, "schema", ADMIN_SCHEMA);
		json_obj(j, "error");
		json_i64(j, "errno", -err);
		json_str(j, "message", c->msg[0] ? c->msg : strerror(-err));
		json_obj_end(j);
		c->send_fd = -1;
	}
	json_obj_end(j);
	if (j->err) {
		admin_conn_close(c);
		return;
	}
	j->buf[j->len++] = '\n';	/* in place of the NUL */
	c->state = ADMIN_WRITE;
	send_document(c);
}

/* --------------------------------------------------------------- requesting */

static bool arg_allowed(const struct admin_verb *v, const char *key)
{
	const char *p = v->args;
	size_t n = strlen(key);

	while ((p = strstr(p, key))) {
		if ((p == v->args || p[-1] == ' ') && p[n] == ' ')
			return true;
		p += n;
	}
	return false;
}

static const struct admin_verb *verb_find(struct admin_conn *c)
{
	bool noun = false;

	for (size_t t = 0; t < ARRAY_SIZE(tables); t++) {
		for (const struct admin_verb *v = tables[t]; v->noun; v++) {
			if (strcmp(v->noun, c->rq.noun))
				continue;
			noun = true;
			if (!strcmp(v->verb, c->rq.verb))
				return v;
		}
	}
	admin_refuse(c, -EINVAL, noun ? "no verb '%.40s'" : "no noun '%.40s'",
		     noun ? c->rq.verb : c->rq.noun);
	return NULL;
}

/* Take the line apart and find its row. */
static int request_check(struct admin_conn *c, size_t len)
{
	const struct admin_verb *v;

	if (admin_parse(c->in, len, &c->rq, c->msg, sizeof(c->msg)))
		return -EINVAL;
	v = verb_find(c);
	if (!v)
		return -EINVAL;
	if (len > ADMIN_LINE_BYTES && !v->long_line)
		return admin_refuse(c, -EMSGSIZE, "%s %s: a request is at most %u bytes",
				    v->noun, v->verb, ADMIN_LINE_BYTES);
	for (unsigned i = 0; i < c->rq.nr_args; i++)
		if (!arg_allowed(v, c->rq.arg[i].key))
			return admin_refuse(c, -EINVAL, "%s %s takes no '%s'", v->noun, v->verb,
					    c->rq.arg[i].key);
	c->verb = v;
	return 0;
}

/* Do @c and others wait already? */
static bool may_wait(const struct admin_conn *c)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < ADMIN_MAX_CONNS; i++)
		nr += c->a->conn[i].state == ADMIN_WAIT;
	return c->state == ADMIN_WAIT || nr < ADMIN_MAX_WAITS;
}

static void request_turn(struct admin_conn *c)
{
	int err = c->verb->run(c);

	if (err == ADMIN_MORE && !c->j.err) {
		c->state = ADMIN_RUN;
		poll_room(c);
		return;
	}
	if (err == ADMIN_LATER && !c->j.err) {
		if (may_wait(c)) {
			c->state = ADMIN_WAIT;
			admin_conn_poll(c, POLLIN | POLLRDHUP);
			return;
		}
		err = admin_refuse(c, -EBUSY, "%u requests wait already: try later",
				   ADMIN_MAX_WAITS);
	}
	if (c->rec) {
		c->state = ADMIN_TRACE;
		admin_conn_poll(c, POLLIN | POLLRDHUP);
		if (c->state == ADMIN_TRACE)
			admin_conn_poll_out(c);
		return;
	}
	answer(c, err > 0 ? 0 : err);
}

void admin_resume(struct admin_conn *c, int err)
{
	c->wait_err = err;
	c->wake_ns = 0;
	request_turn(c);
}

uint64_t admin_turn(struct daemon *d)
{
	struct admin *a = d->admin;
	uint64_t next = 0;

	for (unsigned i = 0; a && i < ADMIN_MAX_CONNS; i++) {
		struct admin_conn *c = &a->conn[i];

		if (c->state == ADMIN_WAIT &&
		    (c->each_look || (c->wake_ns && d->now_ns >= c->wake_ns)))
			admin_resume(c, 0);
		if (c->state == ADMIN_WAIT && c->wake_ns && (!next || c->wake_ns < next))
			next = c->wake_ns;
	}
	return next;
}

static void request_start(struct admin_conn *c, size_t len)
{
	int err;

	if (!c->may) {
		answer(c, admin_refuse(c, -EPERM, "user %u may not: only root and user %u",
				       c->uid, geteuid()));
		return;
	}
	err = request_check(c, len);
	if (err) {
		answer(c, err);
		return;
	}
	json_obj(&c->j, NULL);
	json_u64(&c->j, "schema", ADMIN_SCHEMA);
	request_turn(c);
}

static bool read_room(struct admin_conn *c)
{
	size_t cap = c->in_cap ? c->in_cap * 2 : ADMIN_LINE_BYTES;
	char *p;

	if (c->in_len + 1 < c->in_cap)	/* the parser puts a NUL behind the line */
		return true;
	p = mem_realloc(c->in, cap);
	if (!p)
		return false;
	c->in = p;
	c->in_cap = cap;
	return true;
}

static void request_read(struct admin_conn *c)
{
	size_t taken = 0;

	while (taken < READ_BYTES) {
		ssize_t n;
		char *nl;

		if (!read_room(c)) {
			answer(c, admin_refuse(c, -ENOMEM, "out of memory for the request"));
			return;
		}
		n = recv(c->fd, c->in + c->in_len, c->in_cap - c->in_len - 1, MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			break;
		if (n <= 0) {
			admin_conn_close(c);
			return;
		}
		nl = memchr(c->in + c->in_len, '\n', (size_t)n);
		c->in_len += (size_t)n;
		taken += (size_t)n;
		c->since_ns = clock_ns();
		if (nl) {
			request_start(c, (size_t)(nl - c->in));
			return;
		}
		if (c->in_len > ADMIN_MAX_LINE_BYTES) {
			answer(c, admin_refuse(c, -EMSGSIZE, "a request is at most %u bytes",
					       ADMIN_MAX_LINE_BYTES));
			return;
		}
	}
	admin_conn_poll(c, POLLIN);
}

static void conn_event(struct uring_req *r, int res)
{
	struct admin_conn *c = container_of(r, struct admin_conn, req);

	switch (c->state) {
	case ADMIN_CLOSING:
		conn_free(c);
		break;
	case ADMIN_READ:
		if (res < 0)
			admin_conn_close(c);
		else
			request_read(c);
		break;
	case ADMIN_RUN:
		if (res < 0 || res & (POLLHUP | POLLERR))
			admin_conn_close(c);
		else
			request_turn(c);
		break;
	case ADMIN_WRITE:
		if (res < 0)
			admin_conn_close(c);
		else
			send_document(c);
		break;
	case ADMIN_WAIT:		/* neither has more to say: the peer went */
	case ADMIN_TRACE:
		admin_conn_close(c);
		break;
	default:
		break;
	}
}

static void conn_out_event(struct uring_req *r, int res)
{
	struct admin_conn *c = container_of(r, struct admin_conn, out_req);

	if (c->state == ADMIN_CLOSING)
		conn_free(c);
	else if (res < 0)
		admin_conn_close(c);
	else if (c->state == ADMIN_TRACE)
		admin_trace_flush(c);
	else if (c->state == ADMIN_WRITE)
		send_document(c);
	else if (c->state == ADMIN_RUN)
		request_turn(c);
}

/* ---------------------------------------------------------------- accepting */

/* A free place; the one that was quiet longest gives way. NULL: all are busy. */
static struct admin_conn *conn_place(struct admin *a, uint64_t now_ns)
{
	struct admin_conn *oldest = NULL;

	for (unsigned i = 0; i < ADMIN_MAX_CONNS; i++) {
		struct admin_conn *c = &a->conn[i];

		if (c->state == ADMIN_FREE)
			return c;
		if ((c->state == ADMIN_READ || c->state == ADMIN_WRITE) &&
		    (!oldest || c->since_ns < oldest->since_ns))
			oldest = c;
	}
	if (oldest && now_ns - oldest->since_ns > QUIET_NS)
		admin_conn_close(oldest);	/* its place is free a turn later */
	return NULL;
}

static void accept_one(struct admin *a, int fd)
{
	static const char busy[] = "{\"schema\":1,\"error\":{\"errno\":16,\"message\":"
		"\"16 admin connections are open: try again\"}}\n";
	struct admin_conn *c = conn_place(a, clock_ns());
	struct ucred cred = { .uid = (uid_t)-1 };
	socklen_t len = sizeof(cred);

	if (!c) {
		(void)send(fd, busy, sizeof(busy) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
		close(fd);
		return;
	}
	memset(c, 0, sizeof(*c));
	c->a = a;
	c->d = a->d;
	c->fd = fd;
	c->send_fd = -1;
	c->req.done = conn_event;
	c->out_req.done = conn_out_event;
	c->since_ns = clock_ns();
	c->serial = ++a->next_serial;
	if (!getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		c->may = cred.uid == 0 || cred.uid == geteuid();
	c->uid = cred.uid;
	c->pid = cred.pid;
	json_init(&c->j);
	c->state = ADMIN_READ;
	request_read(c);		/* usually the line is there already */
}

static void listen_event(struct uring_req *r, int res)
{
	struct admin *a = container_of(r, struct admin, listen_req);

	if (a->listen_fd < 0 || res < 0)
		return;
	for (unsigned i = 0; i < ADMIN_MAX_CONNS; i++) {
		int fd = accept4(a->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0)
			break;
		accept_one(a, fd);
	}
	if (uring_poll_fd(a->d->u, &a->listen_req, a->listen_fd, POLLIN))
		log_err("admin socket: the ring is full, kvctl is not served any more");
}

/* ------------------------------------------------------------ start and stop */

int admin_start(struct daemon *d)
{
	const char *path = d->conf.daemon.admin_socket;
	struct admin *a;
	int err;

	a = mem_zalloc(sizeof(*a));
	if (!a)
		return -ENOMEM;
	a->d = d;
	a->listen_fd = -1;
	a->listen_req.done = listen_event;
	d->admin = a;
	snprintf(a->path, sizeof(a->path), "%s%s", path ? path : d->conf.daemon.socket,
		 path ? "" : ".admin");
	err = sock_listen(a->path, SOCK_STREAM, d->conf.daemon.socket_mode);
	if (err < 0) {
		a->path[0] = '\0';	/* not ours to remove */
		goto err_stop;
	}
	a->listen_fd = err;
	err = uring_poll_fd(d->u, &a->listen_req, a->listen_fd, POLLIN);
	if (err)
		goto err_stop;
	return 0;

err_stop:
	admin_stop(d);
	return err;
}

/* Anything armed? Its struct must stay until done() ran. */
static bool anything_armed(const struct admin *a)
{
	bool armed = a->listen_req.armed;

	for (unsigned i = 0; i < ADMIN_MAX_CONNS; i++)
		armed |= a->conn[i].req.armed || a->conn[i].out_req.armed;
	return armed;
}

void admin_stop(struct daemon *d)
{
	struct admin *a = d->admin;

	if (!a)
		return;
	for (unsigned i = 0; i < ADMIN_MAX_CONNS; i++)
		admin_conn_close(&a->conn[i]);
	if (a->listen_fd >= 0) {
		close(a->listen_fd);
		a->listen_fd = -1;
	}
	if (a->path[0] && a->path[0] != '@')
		unlink(a->path);
	uring_cancel(d->u, &a->listen_req);
	while (anything_armed(a))	/* cancelled polls end at once */
		uring_wait(d->u, 1000000000ull);
	d->admin = NULL;
	mem_free(a);
}
