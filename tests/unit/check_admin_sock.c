/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_admin_sock.c - the admin socket in a daemon without a loop: the test
 * turns it by hand, so that every interleaving is the test's own.
 */
#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kvmd/lib/clock.h"
#include "kvmd/lib/fault.h"
#include "kvmd/lib/log.h"
#include "kvmd/lib/mem.h"
#include "kvmd/lib/stats.h"
#include "kvmd/reclaim/policy.h"
#include "kvmd/svc/admin.h"

#define BLOCK_BYTES	4096

static char dir[256], path[300];
static struct daemon *d;

/* ------------------------------------------------------------------ the rig */

static struct space *add_space(const char *name)
{
	struct kvmd_space m = { .nr_groups = 1, .nr_shards = 1 };
	struct space *sp;
	char msg[256];

	snprintf(m.name, sizeof(m.name), "%s", name);
	m.group[0] = (struct kvmd_group) {
		.plane_bytes = BLOCK_BYTES, .planes = 1, .block_tokens = 16,
	};
	ck_assert_int_eq(space_create(d->pool, &m, tenant_find(d->pool, "default"),
				      policy_find("lru"), &sp, msg, sizeof(msg)), 0);
	return sp;
}

static void setup(void)
{
	struct pool_opts o = { .nr_blocks = 20000, .nr_nodes = 64, .slab_bytes = 16 << 20 };
	char msg[256];

	snprintf(dir, sizeof(dir), "%s/adm.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/sock.admin", dir);
	log_set_level(LOG_LVL_ERR);
	d = calloc(1, sizeof(*d));
	ck_assert_int_eq(config_init(&d->conf), 0);
	snprintf(path, sizeof(path), "daemon.socket=%s/sock", dir);
	ck_assert_int_eq(config_set(&d->conf, path, msg, sizeof(msg)), 0);
	ck_assert_int_eq(config_finish(&d->conf, msg, sizeof(msg)), 0);
	snprintf(path, sizeof(path), "%s/sock.admin", dir);
	d->start_ns = clock_ns();
	ck_assert_int_eq(stats_init(), 0);
	ck_assert_int_eq(workers_create(1, &d->workers), 0);
	ck_assert_int_eq(uring_create(64, &d->u), 0);
	ck_assert_int_eq(pool_create(&o, d->workers, &d->pool), 0);
	ck_assert_int_eq(index_create(d->pool, 1024, &d->ix), 0);
	dev_init(&d->pool->dev[0], dev_ops_find("null"), "null-0", 1ull << 30, d->workers);
	d->pool->nr_devs = 1;
	ck_assert_int_eq(tenant_add(d->pool, "default", &(struct tenant *) { NULL }), 0);
	ck_assert_int_eq(admin_start(d), 0);
}

static void teardown(void)
{
	admin_stop(d);
	while (workers_nr_pending(d->workers))
		workers_reap(d->workers);
	uring_destroy(d->u);
	index_destroy(d->ix);
	pool_destroy(d->pool);
	workers_destroy(d->workers);
	config_exit(&d->conf);
	stats_exit();
	free(d);
	ck_assert_int_eq(rmdir(dir), 0);	/* the socket is gone */
}

static int dial_to(const char *where)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	ck_assert_uint_lt(strlen(where), sizeof(un.sun_path));
	memcpy(un.sun_path, where, strlen(where));
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	return fd;
}

static int dial(void)
{
	return dial_to(path);
}

static void say(int fd, const char *text)
{
	ck_assert_int_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* Turn the daemon until @fd ends; what it said. */
static char *listen_to(int fd)
{
	size_t len = 0, cap = 1 << 16;
	char *buf = malloc(cap);

	for (;;) {
		ssize_t n;

		uring_poll(d->u);
		if (cap - len < 65536)
			buf = realloc(buf, cap *= 2);
		n = recv(fd, buf + len, cap - len - 1, 0);
		if (n == 0 || (n < 0 && errno == ECONNRESET))
			break;
		ck_assert(n > 0 || errno == EAGAIN);
		len += n > 0 ? (size_t)n : 0;
	}
	close(fd);
	buf[len] = '\0';
	return buf;
}

static char *ask(const char *line)
{
	int fd = dial();

	say(fd, line);
	return listen_to(fd);
}

static void expect(const char *line, const char *part)
{
	char *answer = ask(line);

	ck_assert_msg(strstr(answer, part) != NULL, "%s%.300s", line, answer);
	ck_assert_msg(!strncmp(answer, "{\"schema\":1,", 12), "%.300s", answer);
	ck_assert_str_eq(answer + strlen(answer) - 2, "}\n");
	free(answer);
}

/* Blocks of one chain in @sp, all idle. */
static void add_blocks(struct space *sp, uint32_t nr)
{
	struct gpool *gp = &sp->gp[0];
	uint32_t parent = 0;

	while (gp->nr_free < nr) {
		ck_assert_int_eq(slab_grow(d->pool, gp), 0);
		while (workers_nr_pending(d->workers))
			workers_reap(d->workers);
	}
	for (uint32_t i = 0; i < nr; i++) {
		struct block *b;
		uint32_t id;

		ck_assert_int_eq(pool_alloc(d->pool, gp, 1, 0, 0, &id), 0);
		b = pool_block(d->pool, id);
		memset(b->key, 0, sizeof(b->key));
		memcpy(b->key, &i, sizeof(i));
		block_set_state(b, BLK_SEALING);
		ck_assert_ptr_null(index_seal(d->ix, pool_gpool(d->pool, b), b,
						 index_hash(d->ix, b->sid, b->group, b->key),
						 parent, i, 0, 0));
		parent = id;
	}
	while (parent) {
		struct block *b = pool_block(d->pool, parent);

		parent = b->parent;
		index_put(d->ix, b);
	}
}

/* -------------------------------------------------------------------- tests */

START_TEST(every_question_has_an_answer)
{
	static const char *const lines[] = {
		"status show\n", "stat show\n", "pressure show\n", "space list\n",
		"space show space=one\n", "client list\n", "seq list\n", "block list\n",
		"block show block=1\n", "tenant list\n", "dev list\n", "slab list\n",
		"slab show slab=0\n", "conf show\n", "log show\n", "fault show\n", "check run\n",
		"tier list\n", "tier show tier=hbm\n",
		"drain start slab=0\n", "drain stop slab=0\n", "log level level=err\n",
		"fault arm spec=copy:nth=1000000\n", "fault disarm\n",
	};

	add_blocks(add_space("one"), 5);
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		char *answer = ask(lines[i]);

		ck_assert_msg(!strncmp(answer, "{\"schema\":1,", 12), "%.300s", answer);
		ck_assert_msg(!strstr(answer, "\"error\""), "%s%.300s", lines[i], answer);
		free(answer);
	}
}
END_TEST

START_TEST(bad_requests_are_named)
{
	add_space("one");
	expect("status\n", "\"errno\":22");
	expect("nothing show\n", "no noun 'nothing'");
	expect("status start\n", "no verb 'start'");
	expect("status show space=one\n", "status show takes no 'space'");
	expect("space show\n", "space= is missing");
	expect("space show space=two\n", "\"errno\":2");
	expect("client show session=99\n", "no session 99");
	expect("client show session=x\n", "not a whole number");
	expect("block list limit=0\n", "outside 1 to");
	expect("block list state=odd\n", "no block state 'odd'");
	expect("block show block=3\n", "no such block");
	expect("slab show slab=0\n", "no slab 0");
	expect("slab show slab=99999\n", "outside 0 to");
	expect("explain run space=one\n", "keys= is missing");
	expect("explain run space=one keys=12\n", "key 0: 64 hex digits");
	expect("explain run space=one group=3 keys=12\n", "no group 3");
	expect("space raise space=one epoch=0\n", "outside 1 to");
	expect("fault arm spec=odd\n", "odd");
	expect("log level level=odd\n", "no log level 'odd'");
	expect("block list tier=odd\n", "no tier 'odd'");
	expect("tier show\n", "tier= is missing");
	expect("tier show tier=odd\n", "no tier 'odd'");
	expect("tier show tier=ram\n", "set ram.bytes");
	expect("tier show tier=disk\n", "set disk.path");
	expect("tier drain tier=hbm\n", "kvctl drain");
	expect("tier drain path=/nothing\n", "there is no disk tier");
	expect("tier undrain tier=disk\n", "set disk.path");
	expect("tier add tier=hbm bytes=1\n", "kvmd.conf(5)");
	expect("tier add tier=ram bytes=1\n", "set ram.bytes");
	expect("prefetch run space=one keys=12\n", "nothing below HBM");
	expect("pressure wait\n", "is missing");
	expect("pressure wait permille=10\n", "is missing");
	expect("pressure wait permille=2000 window_ms=1000\n", "outside 1 to");
	expect("pressure wait permille=10 window_ms=1\n", "outside 100 to");
	expect("pressure wait resource=odd permille=1 window_ms=100\n", "no resource 'odd'");
	expect("pressure wait kind=odd permille=1 window_ms=100\n", "no kind 'odd'");
}
END_TEST

/* ------------------------------------------------------------------- waiting */

static unsigned nr_waiting(void)
{
	unsigned nr = 0;

	for (int i = 0; i < ADMIN_MAX_CONNS; i++)
		nr += d->admin->conn[i].state == ADMIN_WAIT;
	return nr;
}

static void turn(void)
{
	uring_poll(d->u);
	d->now_ns = clock_ns();
	admin_turn(d);
}

/* As listen_to(), with what waits looked at. */
static char *wait_for(int fd)
{
	size_t len = 0, cap = 1 << 16;
	char *buf = malloc(cap);

	for (;;) {
		ssize_t n;

		turn();
		n = recv(fd, buf + len, cap - len - 1, 0);
		if (n == 0)
			break;
		ck_assert(n > 0 || errno == EAGAIN);
		len += n > 0 ? (size_t)n : 0;
	}
	close(fd);
	buf[len] = '\0';
	return buf;
}

START_TEST(waiters_are_told_when_it_is_reached)
{
	int some = dial(), full = dial(), load = dial();
	char *answer;

	say(some, "pressure wait kind=some permille=100 window_ms=100\n");
	say(full, "pressure wait resource=hbm kind=full permille=10 window_ms=100\n");
	say(load, "pressure wait resource=load permille=10 window_ms=100\n");
	while (nr_waiting() < 3)
		turn();
	/* Nothing happens: nothing to look at. */
	ck_assert_uint_eq(admin_turn(d), 0);
	psi_update(&d->psi[PSI_HBM], KVMD_PRESSURE_SOME, clock_ns());
	turn();
	ck_assert_uint_ne(admin_turn(d), 0);
	answer = wait_for(some);
	ck_assert_msg(strstr(answer, "\"resource\":\"hbm\",\"kind\":\"some\",\"window_ms\":100,"
			     "\"wanted_us\":10000,\"stall_us\":"), "%s", answer);
	free(answer);
	ck_assert_uint_eq(nr_waiting(), 2);
	psi_update(&d->psi[PSI_HBM], KVMD_PRESSURE_FULL, clock_ns());
	answer = wait_for(full);
	ck_assert_msg(strstr(answer, "\"kind\":\"full\""), "%s", answer);
	free(answer);
	close(load);
	while (nr_waiting())
		turn();
}
END_TEST

START_TEST(waiters_leave_room_for_others)
{
	int fd[ADMIN_MAX_WAITS];
	char *answer;

	for (int i = 0; i < ADMIN_MAX_WAITS; i++) {
		fd[i] = dial();
		say(fd[i], "pressure wait permille=10 window_ms=100\n");
	}
	while (nr_waiting() < ADMIN_MAX_WAITS)
		turn();
	answer = ask("pressure wait permille=10 window_ms=100\n");
	ck_assert_msg(strstr(answer, "\"errno\":16"), "%s", answer);
	free(answer);
	expect("log show\n", "err");
	for (int i = 0; i < ADMIN_MAX_WAITS; i++)
		close(fd[i]);
	while (nr_waiting())
		turn();
	for (int i = 0; i < ADMIN_MAX_CONNS; i++)
		ck_assert_int_eq(d->admin->conn[i].state, ADMIN_FREE);
}
END_TEST

START_TEST(long_lines)
{
	size_t n = ADMIN_MAX_LINE_BYTES + 100;
	char *line = malloc(n + 2), *answer;
	int fd;

	/* Longer than a plain request may be, and than any. */
	memset(line, 'a', n);
	memcpy(line, "space show space=", 17);
	strcpy(line + ADMIN_LINE_BYTES + 1, "\n");
	expect(line, "\"errno\":90");
	memset(line, 'a', n);
	line[n] = '\0';
	fd = dial();
	for (size_t at = 0; at < n;) {
		ssize_t sent = send(fd, line + at, n - at, MSG_NOSIGNAL);

		if (sent < 0 && errno != EAGAIN)
			break;		/* refused and closed before the end */
		at += sent > 0 ? (size_t)sent : 0;
		uring_poll(d->u);
	}
	answer = listen_to(fd);
	ck_assert_msg(strstr(answer, "at most 1048576 bytes") != NULL, "%.100s", answer);
	free(answer);
	free(line);
}
END_TEST

START_TEST(a_line_may_come_in_pieces)
{
	int fd = dial();
	char *answer;

	for (const char *s = "log show"; *s; s++) {
		ck_assert_int_eq(send(fd, s, 1, 0), 1);
		uring_poll(d->u);
	}
	ck_assert_int_eq(recv(fd, &(char) { 0 }, 1, 0), -1);
	say(fd, "\n");
	answer = listen_to(fd);
	ck_assert_str_eq(answer, "{\"schema\":1,\"level\":\"err\"}\n");
	free(answer);
}
END_TEST

START_TEST(a_peer_that_leaves_is_forgotten)
{
	int fd;

	add_blocks(add_space("one"), 3000);
	for (int i = 0; i < 100; i++) {
		fd = dial();
		if (i & 1)
			say(fd, i & 2 ? "block list limit=3000\n" : "status sh");
		for (int t = 0; t < i % 5; t++)
			uring_poll(d->u);
		close(fd);
	}
	/* All places are free again. */
	for (int t = 0; t < 1000; t++)
		uring_poll(d->u);
	for (int i = 0; i < ADMIN_MAX_CONNS; i++)
		ck_assert_int_eq(d->admin->conn[i].state, ADMIN_FREE);
	expect("log show\n", "err");
}
END_TEST

START_TEST(a_slow_reader_holds_up_nobody)
{
	int slow = dial();
	char *answer;

	add_blocks(add_space("one"), 9000);
	say(slow, "block list limit=9000\n");
	for (int t = 0; t < 2000; t++)
		uring_poll(d->u);
	/* Megabytes wait for it; others are served meanwhile. */
	expect("log show\n", "err");
	expect("space list\n", "\"one\"");
	answer = listen_to(slow);
	ck_assert_uint_gt(strlen(answer), 2 << 20);
	ck_assert_str_eq(answer + strlen(answer) - 3, "]}\n");
	free(answer);
}
END_TEST

START_TEST(the_seventeenth_is_told)
{
	int fd[ADMIN_MAX_CONNS];
	char *answer;

	for (int i = 0; i < ADMIN_MAX_CONNS; i++) {
		fd[i] = dial();
		uring_poll(d->u);
	}
	answer = ask("log show\n");
	ck_assert_ptr_nonnull(strstr(answer, "try again"));
	free(answer);
	say(fd[3], "log show\n");
	answer = listen_to(fd[3]);
	ck_assert_ptr_nonnull(strstr(answer, "err"));
	free(answer);
	expect("log show\n", "err");
	for (int i = 0; i < ADMIN_MAX_CONNS; i++)
		if (i != 3)
			close(fd[i]);
}
END_TEST

START_TEST(a_silent_peer_gives_way)
{
	int fd[ADMIN_MAX_CONNS];

	for (int i = 0; i < ADMIN_MAX_CONNS; i++) {
		fd[i] = dial();
		uring_poll(d->u);
	}
	d->admin->conn[5].since_ns -= 6000000000ull;
	free(ask("log show\n"));	/* this one finds no place yet */
	expect("log show\n", "err");
	ck_assert_int_eq(recv(fd[5], &(char) { 0 }, 1, 0), 0);
	ck_assert_int_eq(recv(fd[6], &(char) { 0 }, 1, 0), -1);
	for (int i = 0; i < ADMIN_MAX_CONNS; i++)
		close(fd[i]);
}
END_TEST

START_TEST(listings_go_on_where_they_ended)
{
	char line[64], *answer, *next;
	uint64_t offset = 0;
	int rows = 0;

	add_blocks(add_space("one"), 2500);
	add_blocks(add_space("two"), 100);
	do {
		snprintf(line, sizeof(line), "block list space=one limit=700 offset=%llu\n",
			 (unsigned long long)offset);
		answer = ask(line);
		for (char *s = answer; (s = strstr(s, "{\"block\":")); s++)
			rows++;
		next = strstr(answer, "\"next\":");
		offset = next ? strtoull(next + 7, NULL, 10) : 0;
		free(answer);
	} while (offset);
	ck_assert_int_eq(rows, 2500);
}
END_TEST

START_TEST(explain_walks_the_prefix)
{
	char line[2048] = "explain run space=one keys=", *answer;
	struct space *sp = add_space("one");

	add_blocks(sp, 3);
	/* The last of the three goes, then: 0, 1 hit, 2 was evicted, 9 never was. */
	index_evict(d->ix, pool_block(d->pool, 3), KVMD_MISS_EVICTED);
	for (uint32_t i = 0; i < 4; i++)
		sprintf(line + strlen(line), "%s%02x%062d", i ? "," : "", i == 3 ? 9 : i, 0);
	strcat(line, "\n");
	answer = ask(line);
	ck_assert_ptr_nonnull(strstr(answer, "\"leading_hits\":2"));
	ck_assert_ptr_nonnull(strstr(answer, "\"hit\":false,\"reason\":\"evicted\""));
	ck_assert_ptr_nonnull(strstr(answer, "\"hit\":false,\"reason\":\"never\""));
	free(answer);
	/* Without its parent a block that is there is no hit. */
	sprintf(line, "explain run space=one keys=%02x%062d,%02x%062d\n", 9, 0, 1, 0);
	answer = ask(line);
	ck_assert_ptr_nonnull(strstr(answer, "\"leading_hits\":0"));
	ck_assert_ptr_nonnull(strstr(answer, "\"reason\":\"behind\""));
	free(answer);
}
END_TEST

START_TEST(drop_takes_idle_chains_only)
{
	struct space *one = add_space("one"), *two = add_space("two");
	struct block *b;

	add_blocks(one, 1500);
	add_blocks(two, 10);
	b = pool_block(d->pool, 1000);
	index_get(d->ix, pool_gpool(d->pool, b), b);		/* keeps itself and what it hangs from */
	expect("space drop space=one\n", "\"dropped_blocks\":500");
	index_put(d->ix, b);
	expect("space drop all=1\n", "\"dropped_blocks\":1010");
	expect("check run\n", "\"ok\":true");
	ck_assert_uint_eq(d->ix->nr, 0);
}
END_TEST

START_TEST(the_stats_page_is_handed_over)
{
	char ctl[CMSG_SPACE(sizeof(int))], buf[256];
	struct iovec iov = { buf, sizeof(buf) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = ctl,
			    .msg_controllen = sizeof(ctl) };
	const struct kvmd_stats_page *page;
	int fd = dial(), got;

	say(fd, "stat fd\n");
	while (recvmsg(fd, &m, MSG_CMSG_CLOEXEC) < 0)
		uring_poll(d->u);
	ck_assert_ptr_nonnull(CMSG_FIRSTHDR(&m));
	memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(got));
	page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, got, 0);
	ck_assert_ptr_ne(page, MAP_FAILED);
	ck_assert_uint_eq(page->nr, KVMD_NR_STAT);
	stat_inc(CANCELS);
	ck_assert_uint_eq(page->val[KVMD_STAT_CANCELS], 1);
	ck_assert_ptr_eq(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, got, 0), MAP_FAILED);
	munmap((void *)(uintptr_t)page, 4096);
	close(got);
	close(fd);
}
END_TEST

/* An open of @nr keys, as the session room tells it. */
static void open_request(struct session *s, uint32_t nr)
{
	static uint8_t keys[4096 * KVMD_KEY_BYTES] __attribute__((aligned(8)));
	struct op op = { .s = s, .e.first = nr * 16 - 3 };

	for (uint32_t i = 0; i < nr; i++)
		keys[i * KVMD_KEY_BYTES + 7] = (uint8_t)(i + 1);
	s->args = (char *)keys;
	op.list[0].nr = nr;
	admin_trace_open(s, &op);
}

/* Lines that come until there are no more. */
static char *drain_lines(int fd)
{
	size_t len = 0, cap = 8 << 20;
	char *buf = malloc(cap);
	int quiet = 0;

	while (quiet < 100) {
		ssize_t n = recv(fd, buf + len, cap - len - 1, 0);

		uring_poll(d->u);
		quiet = n > 0 ? 0 : quiet + 1;
		len += n > 0 ? (size_t)n : 0;
	}
	buf[len] = '\0';
	return buf;
}

static unsigned count(const char *s, const char *what)
{
	unsigned nr = 0;

	for (; (s = strstr(s, what)); s++)
		nr++;
	return nr;
}

START_TEST(a_recorder_gets_a_line_per_open)
{
	struct session s = { .d = d, .serial = 7, .sp = add_space("one") };
	struct session other = { .d = d, .serial = 8, .sp = add_space("two") };
	int fd = dial();
	char *text;

	open_request(&s, 3);		/* nobody records yet */
	say(fd, "trace start space=one\n");
	text = drain_lines(fd);
	ck_assert_ptr_nonnull(strstr(text, "\"recording\":true"));
	free(text);
	open_request(&s, 3);
	open_request(&s, 3);
	open_request(&other, 3);
	text = drain_lines(fd);
	ck_assert_uint_eq(count(text, "\n"), 2);
	ck_assert_uint_eq(count(text, "\"session\":7,\"hash_ids\":[\"0000000000000001\","
				"\"0000000000000002\",\"0000000000000003\"]}\n"), 2);
	ck_assert_uint_eq(count(text, "\"input_length\":45,\"output_length\":0,"
				"\"block_tokens\":16"), 2);
	free(text);
	close(fd);
	for (int t = 0; t < 50; t++)
		uring_poll(d->u);
	ck_assert_uint_eq(d->admin->nr_recorders, 0);
	open_request(&s, 3);
}
END_TEST

START_TEST(a_slow_recorder_loses_lines_and_is_told)
{
	struct session s = { .d = d, .serial = 7, .sp = add_space("one") };
	unsigned lines, lost = 0;
	int fd = dial();
	char *text, *p;

	say(fd, "trace start buffer_bytes=100000\n");
	free(drain_lines(fd));
	for (int i = 0; i < 1000; i++) {
		open_request(&s, 200);
		uring_poll(d->u);
	}
	text = drain_lines(fd);
	lines = count(text, "\"hash_ids\"");
	ck_assert_uint_lt(lines, 1000);
	free(text);
	/* There is room again: the loss is told, then the line. */
	open_request(&s, 1);
	text = drain_lines(fd);
	for (p = text; (p = strstr(p, "{\"lost\":")); p++)
		lost += (unsigned)strtoul(p + 8, NULL, 10);
	ck_assert_uint_eq(count(text, "\"hash_ids\""), 1);
	ck_assert_uint_eq(lines + lost, 1000);
	free(text);
	/* More keys than the buffer could ever hold. */
	open_request(&s, 4096);
	open_request(&s, 4096);
	open_request(&s, 1);
	text = drain_lines(fd);
	ck_assert_uint_le(count(text, "\"hash_ids\""), 3);
	free(text);
	close(fd);
}
END_TEST

START_TEST(stop_with_everything_open)
{
	int fd[4];

	for (int i = 0; i < 4; i++)
		fd[i] = dial();
	say(fd[0], "trace start\n");
	say(fd[1], "status sh");
	say(fd[2], "pressure wait permille=10 window_ms=100\n");
	for (int t = 0; t < 20; t++)
		uring_poll(d->u);
	admin_stop(d);			/* teardown's is the second: harmless */
	ck_assert_ptr_null(d->admin);
	for (int i = 0; i < 4; i++)
		close(fd[i]);
	ck_assert_int_eq(access(path, F_OK), -1);
}
END_TEST

START_TEST(a_second_daemon_is_refused)
{
	struct admin *first = d->admin;

	log_set_level(LOG_LVL_ERR);
	d->admin = NULL;
	ck_assert_int_eq(admin_start(d), -EADDRINUSE);
	ck_assert_ptr_null(d->admin);
	d->admin = first;
	for (int t = 0; t < 20; t++)
		uring_poll(d->u);
	expect("log show\n", "err");	/* the first one's socket is still there */
}
END_TEST

START_TEST(another_user_may_not_ask)
{
	pid_t pid;
	int status;

	if (geteuid()) {
		puts("SKIP: not root, cannot be another user");
		return;
	}
	ck_assert_int_eq(chmod(dir, 0711), 0);
	ck_assert_int_eq(chmod(path, 0666), 0);
	pid = fork();
	if (!pid) {
		char buf[256] = "";
		int fd;

		/* The directories above may be root's alone. */
		if (chdir(dir) || setuid(65534))
			_exit(2);
		fd = dial_to("sock.admin");
		fcntl(fd, F_SETFL, 0);
		say(fd, "status show\n");
		_exit(recv(fd, buf, sizeof(buf) - 1, 0) > 0 && strstr(buf, "\"errno\":1,") ? 0 : 3);
	}
	while (waitpid(pid, &status, WNOHANG) == 0)
		uring_poll(d->u);
	ck_assert_int_eq(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 0);
}
END_TEST

/* The nth allocation fails: an error or an answer, and nothing is lost. */
START_TEST(out_of_memory)
{
	add_blocks(add_space("one"), 300);
	for (int n = 1; n < 40; n++) {
		char spec[32], *answer;
		int fd = dial();

		snprintf(spec, sizeof(spec), "alloc:nth=%d", n);
		ck_assert_int_eq(fault_arm(spec, NULL, 0), 0);
		say(fd, n & 1 ? "block list\n" : "status show\n");
		answer = listen_to(fd);
		fault_disarm();
		ck_assert(!*answer || !strncmp(answer, "{\"schema\":1,", 12));
		free(answer);
	}
	expect("log show\n", "err");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("admin_sock");
	TCase *tc = tcase_create("socket");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, every_question_has_an_answer);
	tcase_add_test(tc, bad_requests_are_named);
	tcase_add_test(tc, waiters_are_told_when_it_is_reached);
	tcase_add_test(tc, waiters_leave_room_for_others);
	tcase_add_test(tc, long_lines);
	tcase_add_test(tc, a_line_may_come_in_pieces);
	tcase_add_test(tc, a_peer_that_leaves_is_forgotten);
	tcase_add_test(tc, a_slow_reader_holds_up_nobody);
	tcase_add_test(tc, the_seventeenth_is_told);
	tcase_add_test(tc, a_silent_peer_gives_way);
	tcase_add_test(tc, listings_go_on_where_they_ended);
	tcase_add_test(tc, explain_walks_the_prefix);
	tcase_add_test(tc, drop_takes_idle_chains_only);
	tcase_add_test(tc, the_stats_page_is_handed_over);
	tcase_add_test(tc, a_recorder_gets_a_line_per_open);
	tcase_add_test(tc, a_slow_recorder_loses_lines_and_is_told);
	tcase_add_test(tc, stop_with_everything_open);
	tcase_add_test(tc, a_second_daemon_is_refused);
	tcase_add_test(tc, another_user_may_not_ask);
	tcase_add_test(tc, out_of_memory);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
