// SPDX-License-Identifier: Apache-2.0
/*
 * owed_share.c - owed.h: memory shared between processes of other users, and of the dead.
 */
#include "tests/gpu/owed.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kvmd/lib/fdstore.h"

#define SEED	77u

/* ------------------------------------------------------------ actors */

/* Makes a block, hands its descriptor out, stays until it is told to end. */
static void exporter(struct owed_actor *me, void *arg)
{
	struct owed_mem m;

	(void)arg;
	owed_open(me, true);
	owed_make(me, OWED_BLOCK, SEED, &m);
	owed_say(me, 0, m.fd, "made");
	owed_next(me, NULL);
}

/* Each word it is told: look at the block; the first one brings the descriptor. */
static void importer(struct owed_actor *me, void *arg)
{
	struct owed_mem m;
	int fd = -1;

	(void)arg;
	owed_open(me, true);
	owed_next(me, &fd);
	owed_import(me, fd, OWED_BLOCK, CU_PROT_READWRITE, &m);
	close(fd);
	for (;;) {
		owed_expect(me, "an imported block", m.ptr, m.bytes, SEED);
		owed_say(me, 0, -1, "%s", owed_means(&me->g));
		owed_next(me, NULL);
	}
}

/* ------------------------------------------------------------ other users */

static bool is_root(const struct owed *o)
{
	if (!geteuid())
		return true;
	owed_skip(o, "only root can become another user");
	return false;
}

/* What @from's process exports with @ex, @to's imports with @im: NULL, or what failed. */
static const char *share_across(uid_t from, owed_fn *ex, uid_t to, owed_fn *im,
				char text[OWED_TEXT])
{
	struct owed_actor a, b = { 0 };
	const char *bad = NULL;
	int fd = -1;

	owed_start(&a, from, ex, NULL);
	if (owed_hear(&a, NULL, &fd, text)) {
		bad = text;
	} else {
		owed_start(&b, to, im, NULL);
		owed_say(&b, 0, fd, "import");
		close(fd);
		if (owed_hear(&b, NULL, NULL, text))
			bad = text;
	}
	owed_kill(&b);
	owed_kill(&a);
	return bad;
}

void owed_cross_uid(const struct owed *o)
{
	static const uid_t way[][2] = { { 0, OWED_NOBODY },
					{ OWED_NOBODY, 1 },
					{ OWED_NOBODY, 0 } };
	const char *bad = NULL;
	char text[OWED_TEXT];

	if (!is_root(o))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(way); i++) {
		const char *now = share_across(way[i][0], exporter, way[i][1], importer, text);

		owed_answer(o, "uid %u exports, uid %u imports: %s%s", way[i][0], way[i][1],
			    now ? "no: " : "works, ", text);
		bad = bad ? bad : now ? "an fd cannot be imported by another uid" : NULL;
	}
	owed_verdict(o, bad);
}

static void legacy_exporter(struct owed_actor *me, void *arg)
{
	struct cu_ipc_handle h;
	cu_ptr p;
	int fds[2];

	(void)arg;
	owed_open(me, true);
	owed_must(me, "cuMemAlloc", me->g.cu.mem_alloc(&p, OWED_BLOCK));
	owed_must(me, "a copy", owed_put(&me->g, p, OWED_BLOCK, SEED));
	owed_must(me, "cuIpcGetMemHandle", me->g.cu.ipc_get(&h, p));
	if (pipe(fds) || write(fds[1], &h, sizeof(h)) != sizeof(h))
		owed_fail(me, "no pipe");
	owed_say(me, 0, fds[0], "made");
	owed_next(me, NULL);
}

static void legacy_importer(struct owed_actor *me, void *arg)
{
	struct cu_ipc_handle h;
	cu_ptr p;
	int fd = -1;

	(void)arg;
	owed_open(me, true);
	owed_next(me, &fd);
	if (read(fd, &h, sizeof(h)) != sizeof(h))
		owed_fail(me, "no handle came");
	owed_must(me, "cuIpcOpenMemHandle", me->g.cu.ipc_open(&p, h, CU_IPC_LAZY_PEER));
	owed_expect(me, "legacy memory", p, OWED_BLOCK, SEED);
	owed_say(me, 0, -1, "%s", owed_means(&me->g));
	owed_next(me, NULL);
}

static const char *legacy_across(uid_t to, char text[OWED_TEXT])
{
	return share_across(0, legacy_exporter, to, legacy_importer, text);
}

void owed_cross_uid_legacy(const struct owed *o)
{
	char text[OWED_TEXT];
	const char *same = legacy_across(0, text), *other;

	owed_answer(o, "the same uid: %s%s", same ? "no: " : "works, ", text);
	if (!geteuid()) {
		char more[OWED_TEXT];

		other = legacy_across(OWED_NOBODY, more);
		owed_answer(o, "another uid: %s%s", other ? "no: " : "works, ", more);
	}
	/* ipc = legacy is for clients of the daemon's own uid. */
	owed_verdict(o, same ? text : NULL);
}

/* ------------------------------------------------------------ the dead */

void owed_exporter_killed(const struct owed *o)
{
	struct owed_actor a, b = { 0 };
	char text[OWED_TEXT];
	int fd = -1, err;

	owed_start(&a, 0, exporter, NULL);
	err = owed_hear(&a, NULL, &fd, text);
	if (!err) {
		owed_start(&b, 0, importer, NULL);
		owed_say(&b, 0, fd, "import");
		close(fd);		/* nobody has it open but the dead and the driver */
		err = owed_hear(&b, NULL, NULL, text);
	}
	owed_kill(&a);
	for (int i = 0; i < 3 && !err; i++) {
		owed_say(&b, 0, -1, "look again");
		err = owed_hear(&b, NULL, NULL, text);
		usleep(100000);
	}
	if (!err)
		owed_answer(o,
			    "killed with SIGKILL: an importer goes on reading the same bytes, %s",
			    text);
	owed_verdict(o, err ? text : NULL);
	owed_kill(&b);
}

/* This process holds the descriptor and never loaded the driver. */
void owed_kept_fd(const struct owed *o)
{
	struct owed_actor a, b = { 0 };
	char text[OWED_TEXT];
	int fd = -1, err;

	owed_start(&a, 0, exporter, NULL);
	err = owed_hear(&a, NULL, &fd, text);
	owed_kill(&a);
	/* Nothing is mapped anywhere now. */
	for (int i = 0; i < 2 && !err; i++) {
		usleep(500000);
		owed_start(&b, 0, importer, NULL);
		owed_say(&b, 0, fd, "import");
		err = owed_hear(&b, NULL, NULL, text);
		owed_kill(&b);
	}
	close(fd);
	if (!err)
		owed_answer(o,
			    "a descriptor that a process without the driver keeps: imported twice "
			    "after the exporter's SIGKILL, bytes as they were, %s",
			    text);
	owed_verdict(o, err ? text : NULL);
}

/* ------------------------------------------------------------ kvkeeper */

static int kept = -1;

static void take_kept(void *arg, const char *name, int fd)
{
	(void)arg;
	if (!strcmp(name, "owed-slab"))
		kept = fd;
	else
		close(fd);
}

/* Under kvkeeper: the first time it stores a slab and is killed, the second time it looks. */
int owed_keeper_child(void)
{
	struct owed_actor a;
	char text[OWED_TEXT];
	int err, fd = -1;

	if (fdstore_take(take_kept, NULL) < 0 || fdstore_open())
		return 3;
	owed_start(&a, 0, kept < 0 ? exporter : importer, NULL);
	if (kept >= 0)
		owed_say(&a, 0, kept, "import");
	err = owed_hear(&a, NULL, &fd, text);
	owed_kill(&a);
	if (kept < 0 && !err) {
		err = fdstore_add("owed-slab", fd);
		if (!err)
			raise(SIGKILL);
		snprintf(text, sizeof(text), "the keeper does not take it: %s", strerror(-err));
	}
	printf("%s%s\n", err ? "bad " : "good ", text);
	fflush(stdout);
	return 0;
}

void owed_keeper(const struct owed *o)
{
	char keeper[4200], self[4200], said[OWED_TEXT] = "";
	size_t len = 0;
	int out[2];
	ssize_t n;
	pid_t pid;

	snprintf(keeper, sizeof(keeper), "%s", owed_built("kvkeeper"));
	snprintf(self, sizeof(self), "%s", owed_built("tests/gpu/prog_owed"));
	if (access(keeper, X_OK) || access(self, X_OK)) {
		owed_skip(o, "%s is not built", access(keeper, X_OK) ? keeper : self);
		return;
	}
	if (pipe(out))
		abort();
	pid = fork();
	if (!pid) {
		dup2(out[1], STDOUT_FILENO);
		close(out[0]);
		close(out[1]);
		execl(keeper, "kvkeeper", "-s", "1", self, "--keeper-child", (char *)NULL);
		_exit(127);
	}
	close(out[1]);
	while (len < sizeof(said) - 1 &&
	       (n = read(out[0], said + len, sizeof(said) - 1 - len)) > 0) {
		len += (size_t)n;
		if (memchr(said, '\n', len))
			break;
	}
	said[len] = 0;
	said[strcspn(said, "\n")] = 0;
	close(out[0]);
	kill(pid, SIGTERM);
	waitpid(pid, NULL, 0);
	if (strncmp(said, "good ", 5)) {
		owed_not_ok(o, "through kvkeeper: %s", said[0] ? said : "nothing was said");
		return;
	}
	owed_answer(o, "kvkeeper kept a slab's descriptor over its child's SIGKILL; the next child "
		    "imported it, bytes as they were, %s", said + 5);
	owed_ok(o);
}

/* ------------------------------------------------------------ when memory comes back */

/* Takes @arg bytes; told 1: with a forked child that outlives it. */
static void taker(struct owed_actor *me, void *arg)
{
	struct owed_mem m;
	pid_t child = 0;

	owed_open(me, true);
	owed_make(me, *(size_t *)arg, 0, &m);
	close(m.fd);
	if (owed_next(me, NULL)) {
		child = fork();
		if (!child) {
			close(me->sock);
			for (;;)
				pause();
		}
	}
	owed_say(me, (uint64_t)child, -1, "taken");
	owed_next(me, NULL);
}

/* Says how much is free, whenever it is asked. */
static void looker(struct owed_actor *me, void *arg)
{
	size_t bytes = 0, total;

	(void)arg;
	owed_open(me, true);
	for (;;) {
		owed_must(me, "cuMemGetInfo", me->g.cu.mem_info(&bytes, &total));
		owed_say(me, bytes, -1, "free");
		owed_next(me, NULL);
	}
}

static int look(struct owed_actor *l, uint64_t *ret_free, char text[OWED_TEXT])
{
	owed_say(l, 0, -1, "look");
	return owed_hear(l, ret_free, NULL, text);
}

/* ms until at least @want are free; -1: not within @ms; -2: @text. */
static double wait_free(struct owed_actor *l, uint64_t want, unsigned ms, char text[OWED_TEXT])
{
	uint64_t t0 = owed_ns(), now;

	for (;;) {
		if (look(l, &now, text))
			return -2;
		if (now >= want)
			return owed_ms_since(t0);
		if (owed_ms_since(t0) > ms)
			return -1;
		usleep(500);
	}
}

static bool one_death(const struct owed *o, struct owed_actor *l, size_t bytes, bool forks,
		      char text[OWED_TEXT])
{
	struct owed_actor t;
	uint64_t before, with, child = 0;
	double ms, later;
	int err;

	if (look(l, &before, text))
		return false;
	owed_start(&t, 0, taker, &bytes);
	owed_say(&t, forks, -1, "take");
	err = owed_hear(&t, &child, NULL, text) || look(l, &with, text);
	if (err || with + bytes / 2 > before) {
		if (!err)
			snprintf(text, OWED_TEXT, "cuMemGetInfo does not show another's memory");
		if (child)
			kill((pid_t)child, SIGKILL);
		owed_kill(&t);
		return false;
	}
	kill(t.pid, SIGKILL);
	owed_end(&t);			/* waitpid() has returned: as late as a pidfd can say it */
	ms = wait_free(l, with + bytes / 2, forks ? 3000 : 10000, text);
	if (ms >= -1 && ms < 0)
		snprintf(text, OWED_TEXT, "the memory of a dead process does not come back");
	if (!forks) {
		if (ms >= 0)
			owed_answer(o, "%zu MiB of a killed process are free %.1f ms after its end "
				    "was seen", bytes >> 20, ms);
		return ms >= 0;
	}
	kill((pid_t)child, SIGKILL);
	if (ms >= 0) {
		owed_answer(o,
			    "a forked child that holds the driver's descriptors does not keep the "
			    "memory: free %.1f ms after the parent's end",
			    ms);
		return true;
	}
	later = ms > -2 ? wait_free(l, with + bytes / 2, 10000, text) : -2;
	if (later >= 0)
		owed_answer(o, "a forked child that holds the driver's descriptors keeps the "
			    "memory of its dead parent: still there after 3 s, free %.1f ms after the "
			    "child's end", later);
	else if (later >= -1)
		snprintf(text, OWED_TEXT,
			 "the memory of a dead process and its child does not come "
			 "back");
	return later >= 0;
}

void owed_death(const struct owed *o)
{
	char text[OWED_TEXT];
	struct owed_actor l;
	uint64_t room = 0;
	size_t bytes;
	bool good;

	owed_start(&l, 0, looker, NULL);
	if (owed_hear(&l, &room, NULL, text)) {
		owed_not_ok(o, "%s", text);
		return;
	}
	bytes = room / 4 > 1ull << 30 ? 1ull << 30 : 32 << 20;
	good = one_death(o, &l, bytes, false, text) && one_death(o, &l, bytes, true, text);
	owed_verdict(o, good ? NULL : text);
	owed_kill(&l);
}
