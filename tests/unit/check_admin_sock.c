/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_admin_sock.c - the admin socket's connections: those that wait, that are
 * slow, silent, gone, too many or another user's; memory that is not there.
 */
#include "admin_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kvmd/lib/clock.h"
#include "kvmd/lib/fault.h"
#include "kvmd/lib/log.h"
#include "kvmd/svc/admin.h"
#include "tests/quiet.h"
#include "tests/suite.h"

static unsigned nr_waiting(void)
{
	unsigned nr = 0;

	for (int i = 0; i < ADMIN_MAX_CONNS; i++)
		nr += arig.d->admin->conn[i].state == ADMIN_WAIT;
	return nr;
}

static void turn(void)
{
	uring_poll(arig.d->u);
	arig.d->now_ns = clock_ns();
	admin_turn(arig.d);
}

/* As arig_listen_to(), with what waits looked at. */
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
		quiet_assert(n > 0 || errno == EAGAIN);
		len += n > 0 ? (size_t)n : 0;
	}
	close(fd);
	buf[len] = '\0';
	return buf;
}

START_TEST(waiters_are_told_when_it_is_reached)
{
	int some = arig_dial(), full = arig_dial(), load = arig_dial();
	char *answer;

	arig_say(some, "pressure wait kind=some permille=100 window_ms=100\n");
	arig_say(full, "pressure wait resource=hbm kind=full permille=10 window_ms=100\n");
	arig_say(load, "pressure wait resource=load permille=10 window_ms=100\n");
	while (nr_waiting() < 3)
		turn();
	/* Nothing happens: nothing to look at. */
	ck_assert_uint_eq(admin_turn(arig.d), 0);
	psi_update(&arig.d->psi[PSI_HBM], KVMD_PRESSURE_SOME, clock_ns());
	turn();
	ck_assert_uint_ne(admin_turn(arig.d), 0);
	answer = wait_for(some);
	ck_assert_msg(strstr(answer, "\"resource\":\"hbm\",\"kind\":\"some\",\"window_ms\":100,"
			     "\"wanted_us\":10000,\"stall_us\":"), "%s", answer);
	free(answer);
	ck_assert_uint_eq(nr_waiting(), 2);
	psi_update(&arig.d->psi[PSI_HBM], KVMD_PRESSURE_FULL, clock_ns());
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
		fd[i] = arig_dial();
		arig_say(fd[i], "pressure wait permille=10 window_ms=100\n");
	}
	while (nr_waiting() < ADMIN_MAX_WAITS)
		turn();
	answer = arig_ask("pressure wait permille=10 window_ms=100\n");
	ck_assert_msg(strstr(answer, "\"errno\":16"), "%s", answer);
	free(answer);
	arig_expect("log show\n", "err");
	for (int i = 0; i < ADMIN_MAX_WAITS; i++)
		close(fd[i]);
	while (nr_waiting())
		turn();
	for (int i = 0; i < ADMIN_MAX_CONNS; i++)
		ck_assert_int_eq(arig.d->admin->conn[i].state, ADMIN_FREE);
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
	arig_expect(line, "\"errno\":90");
	memset(line, 'a', n);
	line[n] = '\0';
	fd = arig_dial();
	for (size_t at = 0; at < n;) {
		ssize_t sent = send(fd, line + at, n - at, MSG_NOSIGNAL);

		if (sent < 0 && errno != EAGAIN)
			break;		/* refused and closed before the end */
		at += sent > 0 ? (size_t)sent : 0;
		uring_poll(arig.d->u);
	}
	answer = arig_listen_to(fd);
	ck_assert_msg(strstr(answer, "at most 1048576 bytes") != NULL, "%.100s", answer);
	free(answer);
	free(line);
}
END_TEST

START_TEST(a_line_may_come_in_pieces)
{
	int fd = arig_dial();
	char *answer;

	for (const char *s = "log show"; *s; s++) {
		ck_assert_int_eq(send(fd, s, 1, 0), 1);
		uring_poll(arig.d->u);
	}
	ck_assert_int_eq(recv(fd, &(char) { 0 }, 1, 0), -1);
	arig_say(fd, "\n");
	answer = arig_listen_to(fd);
	ck_assert_str_eq(answer, "{\"schema\":1,\"level\":\"err\"}\n");
	free(answer);
}
END_TEST

START_TEST(a_peer_that_leaves_is_forgotten)
{
	int fd;

	arig_add_blocks(arig_add_space("one"), 3000);
	for (int i = 0; i < 100; i++) {
		fd = arig_dial();
		if (i & 1)
			arig_say(fd, i & 2 ? "block list limit=3000\n" : "status sh");
		for (int t = 0; t < i % 5; t++)
			uring_poll(arig.d->u);
		close(fd);
	}
	/* All places are free again. */
	for (int t = 0; t < 1000; t++)
		uring_poll(arig.d->u);
	for (int i = 0; i < ADMIN_MAX_CONNS; i++)
		ck_assert_int_eq(arig.d->admin->conn[i].state, ADMIN_FREE);
	arig_expect("log show\n", "err");
}
END_TEST

START_TEST(a_slow_reader_holds_up_nobody)
{
	int slow = arig_dial();
	char *answer;

	arig_add_blocks(arig_add_space("one"), 9000);
	arig_say(slow, "block list limit=9000\n");
	for (int t = 0; t < 2000; t++)
		uring_poll(arig.d->u);
	/* Megabytes wait for it; others are served meanwhile. */
	arig_expect("log show\n", "err");
	arig_expect("space list\n", "\"one\"");
	answer = arig_listen_to(slow);
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
		fd[i] = arig_dial();
		uring_poll(arig.d->u);
	}
	answer = arig_ask("log show\n");
	ck_assert_ptr_nonnull(strstr(answer, "try again"));
	free(answer);
	arig_say(fd[3], "log show\n");
	answer = arig_listen_to(fd[3]);
	ck_assert_ptr_nonnull(strstr(answer, "err"));
	free(answer);
	arig_expect("log show\n", "err");
	for (int i = 0; i < ADMIN_MAX_CONNS; i++)
		if (i != 3)
			close(fd[i]);
}
END_TEST

START_TEST(a_silent_peer_gives_way)
{
	int fd[ADMIN_MAX_CONNS];

	for (int i = 0; i < ADMIN_MAX_CONNS; i++) {
		fd[i] = arig_dial();
		uring_poll(arig.d->u);
	}
	arig.d->admin->conn[5].since_ns -= 6000000000ull;
	free(arig_ask("log show\n"));	/* this one finds no place yet */
	arig_expect("log show\n", "err");
	ck_assert_int_eq(recv(fd[5], &(char) { 0 }, 1, 0), 0);
	ck_assert_int_eq(recv(fd[6], &(char) { 0 }, 1, 0), -1);
	for (int i = 0; i < ADMIN_MAX_CONNS; i++)
		close(fd[i]);
}
END_TEST

START_TEST(stop_with_everything_open)
{
	int fd[4];

	for (int i = 0; i < 4; i++)
		fd[i] = arig_dial();
	arig_say(fd[0], "trace start\n");
	arig_say(fd[1], "status sh");
	arig_say(fd[2], "pressure wait permille=10 window_ms=100\n");
	for (int t = 0; t < 20; t++)
		uring_poll(arig.d->u);
	admin_stop(arig.d);			/* teardown's is the second: harmless */
	ck_assert_ptr_null(arig.d->admin);
	for (int i = 0; i < 4; i++)
		close(fd[i]);
	ck_assert_int_eq(access(arig.path, F_OK), -1);
}
END_TEST

START_TEST(a_second_daemon_is_refused)
{
	struct admin *first = arig.d->admin;

	log_set_level(LOG_LVL_ERR);
	arig.d->admin = NULL;
	ck_assert_int_eq(admin_start(arig.d), -EADDRINUSE);
	ck_assert_ptr_null(arig.d->admin);
	arig.d->admin = first;
	for (int t = 0; t < 20; t++)
		uring_poll(arig.d->u);
	arig_expect("log show\n", "err");	/* the first one's socket is still there */
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
	ck_assert_int_eq(chmod(arig.dir, 0711), 0);
	ck_assert_int_eq(chmod(arig.path, 0666), 0);
	pid = fork();
	if (!pid) {
		char buf[256] = "";
		int fd;

		/* The directories above may be root's alone. */
		if (chdir(arig.dir) || setuid(65534))
			_exit(2);
		fd = arig_dial_to("sock.admin");
		fcntl(fd, F_SETFL, 0);
		arig_say(fd, "status show\n");
		_exit(recv(fd, buf, sizeof(buf) - 1, 0) > 0 && strstr(buf, "\"errno\":1,") ? 0 : 3);
	}
	while (waitpid(pid, &status, WNOHANG) == 0)
		uring_poll(arig.d->u);
	ck_assert_int_eq(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 0);
}
END_TEST

/* The nth allocation fails: an error or an answer, and nothing is lost. */
START_TEST(out_of_memory)
{
	arig_add_blocks(arig_add_space("one"), 300);
	for (int n = 1; n < 40; n++) {
		char spec[32], *answer;
		int fd = arig_dial();

		snprintf(spec, sizeof(spec), "alloc:nth=%d", n);
		ck_assert_int_eq(fault_arm(spec, NULL, 0), 0);
		arig_say(fd, n & 1 ? "block list\n" : "status show\n");
		answer = arig_listen_to(fd);
		fault_disarm();
		ck_assert(!*answer || !strncmp(answer, "{\"schema\":1,", 12));
		free(answer);
	}
	arig_expect("log show\n", "err");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("admin_sock");
	TCase *tc = arig_group(s, "socket");

	tcase_add_test(tc, waiters_are_told_when_it_is_reached);
	tcase_add_test(tc, waiters_leave_room_for_others);
	tcase_add_test(tc, long_lines);
	tcase_add_test(tc, a_line_may_come_in_pieces);
	tcase_add_test(tc, a_peer_that_leaves_is_forgotten);
	tcase_add_test(tc, a_slow_reader_holds_up_nobody);
	tcase_add_test(tc, the_seventeenth_is_told);
	tcase_add_test(tc, a_silent_peer_gives_way);
	tcase_add_test(tc, stop_with_everything_open);
	tcase_add_test(tc, a_second_daemon_is_refused);
	tcase_add_test(tc, another_user_may_not_ask);
	tcase_add_test(tc, out_of_memory);
	return suite_run(s);
}
