/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ask.c - one question over the admin socket, one document back.
 *
 * A value is sent with %XX for what is no plain character. Nothing waits longer
 * than the timeout for the daemon's next byte.
 */
#include <ctype.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tools/kvctl/kvctl.h"

/* ------------------------------------------------------------------ asking */

struct text {
	char *buf;
	size_t len, cap;
	bool failed;
};

static void put(struct text *t, const char *s, size_t n)
{
	if (t->len + n + 1 > t->cap) {
		size_t cap = roundup_pow2(t->len + n + 1);
		char *p = realloc(t->buf, cap);

		if (!p) {
			t->failed = true;
			return;
		}
		t->buf = p;
		t->cap = cap;
	}
	memcpy(t->buf + t->len, s, n);
	t->len += n;
	t->buf[t->len] = '\0';
}

static void put_value(struct text *t, const char *s)
{
	char hex[4];

	for (; *s; s++) {
		if (isalnum((unsigned char)*s) || strchr("._-:/,;=+@", *s)) {
			put(t, s, 1);
			continue;
		}
		snprintf(hex, sizeof(hex), "%%%02x", (unsigned char)*s);
		put(t, hex, 3);
	}
}

static int request_text(const char *noun, const char *verb, const char *const *kv, struct text *t)
{
	put(t, noun, strlen(noun));
	put(t, " ", 1);
	put(t, verb, strlen(verb));
	for (; kv && kv[0]; kv += 2) {
		if (!kv[1])
			continue;
		put(t, " ", 1);
		put(t, kv[0], strlen(kv[0]));
		put(t, "=", 1);
		put_value(t, kv[1]);
	}
	put(t, "\n", 1);
	return t->failed ? ctl_fail(CTL_REFUSED, "out of memory") : CTL_OK;
}

static int errno_exit(int err)
{
	if (err == EACCES || err == EPERM)
		return CTL_PERMISSION;
	return err == EAGAIN || err == EWOULDBLOCK ? CTL_TIMEOUT : CTL_NO_DAEMON;
}

static int connect_daemon(struct ctl *k, int *ret_fd)
{
	struct timeval tv = { (time_t)(k->timeout_ms / 1000),
			      (suseconds_t)(k->timeout_ms % 1000 * 1000) };
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	size_t len = strlen(k->socket);
	int fd, err;

	if (!len || len >= sizeof(un.sun_path))
		return ctl_usage("--socket: a path has 1 to %zu bytes", sizeof(un.sun_path) - 1);
	memcpy(un.sun_path, k->socket, len);
	if (un.sun_path[0] == '@')
		un.sun_path[0] = '\0';
	else
		len++;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return ctl_fail(CTL_REFUSED, "socket: %s", strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	if (connect(fd, (struct sockaddr *)&un,
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len))) {
		err = errno;
		close(fd);
		if (errno_exit(err) == CTL_NO_DAEMON)
			return ctl_fail(CTL_NO_DAEMON, "no daemon at %s (%s): is it running? "
					"-s names another socket", k->socket, strerror(err));
		return ctl_fail(errno_exit(err), "%s: %s", k->socket, strerror(err));
	}
	*ret_fd = fd;
	return CTL_OK;
}

static int send_text(struct ctl *k, int fd, const struct text *t)
{
	for (size_t at = 0; at < t->len;) {
		ssize_t n = send(fd, t->buf + at, t->len - at, MSG_NOSIGNAL);

		if (n >= 0)
			at += (size_t)n;
		else if (errno == EPIPE || errno == ECONNRESET)
			break;		/* it may have answered already: read that */
		else if (errno != EINTR)
			return ctl_fail(errno_exit(errno), "%s: %s", k->socket,
					errno == EAGAIN ? "timed out" : strerror(errno));
	}
	return CTL_OK;
}

int ctl_send(struct ctl *k, const char *noun, const char *verb, const char *const *kv, int *ret_fd)
{
	struct text t = { 0 };
	int fd = -1, ret = request_text(noun, verb, kv, &t);

	if (!ret)
		ret = connect_daemon(k, &fd);
	if (!ret)
		ret = send_text(k, fd, &t);
	free(t.buf);
	if (ret && fd >= 0)
		close(fd);
	else if (!ret)
		*ret_fd = fd;
	return ret;
}

/* ---------------------------------------------------------------- answering */

static int read_all(struct ctl *k, int fd, struct text *t)
{
	char buf[65536];

	for (;;) {
		ssize_t n = recv(fd, buf, sizeof(buf), 0);

		if (n > 0)
			put(t, buf, (size_t)n);
		else if (!n || (n < 0 && errno == ECONNRESET && t->len))
			break;
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
			return ctl_fail(CTL_TIMEOUT, "%s: no answer in %llu ms", k->socket,
					(unsigned long long)k->timeout_ms);
		else if (errno != EINTR)
			return ctl_fail(CTL_NO_DAEMON, "%s: %s", k->socket, strerror(errno));
	}
	if (t->failed)
		return ctl_fail(CTL_REFUSED, "out of memory");
	if (!t->len)
		return ctl_fail(CTL_NO_DAEMON, "%s: the daemon went away without an answer",
				k->socket);
	return CTL_OK;
}

int ctl_doc_error(struct ctl *k, json_object *doc)
{
	json_object *e = ctl_get(doc, "error");
	int err;

	if (!e)
		return CTL_OK;
	err = (int)ctl_u64(e, "errno");
	if (k->json)
		ctl_print_json(doc);
	return ctl_fail(err == EPERM || err == EACCES ? CTL_PERMISSION : CTL_REFUSED, "%s",
			ctl_str(e, "message"));
}

int ctl_ask(struct ctl *k, const char *noun, const char *verb, const char *const *kv,
	    json_object **ret_doc)
{
	struct text t = { 0 };
	json_object *doc = NULL;
	int fd, ret = ctl_send(k, noun, verb, kv, &fd);

	if (ret)
		return ret;
	ret = read_all(k, fd, &t);
	close(fd);
	if (!ret) {
		doc = json_tokener_parse(t.buf);
		if (!json_object_is_type(doc, json_type_object))
			ret = ctl_fail(CTL_REFUSED, "%s: the answer is no JSON object: is it "
				       "the daemon's admin socket?", k->socket);
		else
			ret = ctl_doc_error(k, doc);
	}
	free(t.buf);
	if (ret)
		json_object_put(doc);
	else
		*ret_doc = doc;
	return ret;
}
