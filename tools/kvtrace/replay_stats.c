// SPDX-License-Identifier: Apache-2.0
/*
 * replay_stats.c - what a daemon says of itself on its admin socket.
 */
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kvmd/lib/clock.h"
#include "kvmd/lib/stats.h"
#include "tools/kvtrace/kvtrace.h"
#include "tools/kvtrace/replay_daemon.h"

#define SETTLE_NS	20000000000ULL
#define LOOK_MS		5
#define REPLY_BYTES	(256U << 10)

/* Send the request line, take the whole document into @buf. 0 or -errno. */
static int ask(const char *path, const char *line, char *buf, size_t bytes)
{
	size_t len = 0;
	ssize_t n = 1;
	int fd = daemon_dial(path, SOCK_STREAM);

	if (fd < 0)
		return fd;
	if (send(fd, line, strlen(line), MSG_NOSIGNAL) != (ssize_t)strlen(line))
		n = -1;
	while (n > 0 && len < bytes - 1) {
		n = recv(fd, buf + len, bytes - 1 - len, 0);
		if (n > 0)
			len += (size_t)n;
	}
	close(fd);
	if (n < 0)
		return -EIO;
	buf[len] = '\0';
	return 0;
}

/* The number behind "name": in a JSON document. False: there is none. */
static bool find_u64(const char *doc, const char *name, uint64_t *ret_v)
{
	char key[80];
	const char *p;
	char *end;

	snprintf(key, sizeof(key), "\"%.60s\":", name);
	p = strstr(doc, key);
	if (!p)
		return false;
	*ret_v = strtoull(p + strlen(key), &end, 10);
	return end != p + strlen(key);
}

static int stats_once(const struct replay_daemon *d, char *doc, struct replay_stats *s)
{
	const char *counters;
	unsigned int i;
	int err = ask(d->admin, "status show\n", doc, REPLY_BYTES);

	if (err) {
		kvt_warn("%s: %s", d->admin, strerror(-err));
		return KVT_REFUSED;
	}
	counters = strstr(doc, "\"counters\":");
	for (i = 0; counters && i < KVMD_NR_STAT; i++)
		if (!find_u64(counters, stats_name(i), &s->val[i]))
			counters = NULL;
	if (counters)
		return KVT_OK;
	kvt_warn("%s: no counters in the daemon's answer: %.200s", d->admin, doc);
	return KVT_REFUSED;
}

/* The gauge may be below zero where a daemon ends what its predecessor began. */
static bool is_settled(const struct replay_stats *s, uint64_t pending)
{
	return (int64_t)(s->val[KVMD_STAT_TOKENS_PENDING] - pending) <= 0;
}

int daemon_stats(const struct replay_daemon *d, uint64_t pending, struct replay_stats *ret_s)
{
	uint64_t until = clock_ns() + SETTLE_NS;
	char *doc = malloc(REPLY_BYTES);
	int err;

	if (!doc) {
		kvt_warn("no memory for the daemon's answer");
		return KVT_REFUSED;
	}
	for (;;) {
		err = stats_once(d, doc, ret_s);
		if (err || pending == UINT64_MAX || is_settled(ret_s, pending) ||
		    clock_ns() >= until)
			break;
		poll(NULL, 0, LOOK_MS);
	}
	free(doc);
	return err;
}

int daemon_pid(const struct replay_daemon *d, pid_t *ret_pid)
{
	char *doc = malloc(REPLY_BYTES);
	uint64_t pid = 0;
	int err = doc ? ask(d->admin, "status show\n", doc, REPLY_BYTES) : -ENOMEM;

	if (!err && !find_u64(doc, "pid", &pid))
		err = -EPROTO;
	free(doc);
	if (!err)
		*ret_pid = (pid_t)pid;
	return err;
}
