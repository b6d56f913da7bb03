/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_keeper.c - kvkeeper with a small service that dies in many ways.
 *
 * The service is prog_keeper_child; it inherits both pipes, so that the test goes
 * on talking to the next one.
 */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/harness.h"

static pid_t keeper, child;
static FILE *to, *from;

static void build_path(char path[600], const char *name)
{
	const char *dir = getenv("KVMD_BUILD_DIR");

	snprintf(path, 600, "%s/%s", dir ? dir : "build", name);
}

/* kvkeeper -s @seconds with the service, which gets @arg unless that is NULL. */
static void start_keeper(const char *seconds, const char *arg)
{
	char path[600], service[600];
	int in[2], out[2];
	pid_t parent = getpid();

	build_path(path, "kvkeeper");
	build_path(service, "tests/integration/prog_keeper_child");
	T(!pipe(in) && !pipe(out));
	keeper = fork();
	T(keeper >= 0);
	if (!keeper) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(98);
		dup2(in[0], 0);
		dup2(out[1], 1);
		for (int fd = 3; fd < 256; fd++)
			close(fd);
		execl(path, "kvkeeper", "-s", seconds, "--", service, arg, (char *)NULL);
		_exit(99);
	}
	close(in[0]);
	close(out[1]);
	to = fdopen(in[1], "w");
	from = fdopen(out[0], "r");
	T(to && from);
	setvbuf(to, NULL, _IOLBF, 0);
}

/* The next line; "" at the end. */
static const char *heard(void)
{
	static char line[512];

	if (!fgets(line, sizeof(line), from))
		return "";
	line[strcspn(line, "\n")] = '\0';
	return line;
}

/* Ask the service. */
static const char *ask(const char *cmd)
{
	fprintf(to, "%s\n", cmd);
	return heard();
}

#define ASK(cmd, answer)	ck_assert_str_eq(ask(cmd), (answer))
#define HEARD(text)		ck_assert_str_eq(heard(), (text))

/* A service began, with this many descriptors. */
static void begins(unsigned nr)
{
	unsigned got = 0;
	int pid = 0;

	T(sscanf(heard(), "begin %d %u", &pid, &got) == 2);
	ck_assert_uint_eq(got, nr);
	child = pid;
}

/* The keeper ends: its exit status. */
static int ended(void)
{
	int status;

	T(waitpid(keeper, &status, 0) == keeper);
	fclose(to);
	fclose(from);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void start_serving(void)
{
	start_keeper("1", NULL);
	begins(0);
	ASK("ready", "0");
}

static void stop(void)
{
	kill(keeper, SIGTERM);
	HEARD("term");
	ck_assert_int_eq(ended(), 0);
}

START_TEST(kept_over_sigkill)
{
	start_serving();
	ASK("add a first text", "0");
	ASK("add b second", "0");
	ASK("add a newer text", "0");
	ASK("add gone x", "0");
	ASK("del gone", "0");
	for (int i = 0; i < 3; i++) {
		kill(child, SIGKILL);
		begins(2);
		ASK("get a", "newer text");
		ASK("get b", "second");
		ASK("get gone", "none");
	}
	/* Nothing else is inherited: 0, 1, 2, the two, and its own socket. */
	ASK("open", "6");
	ASK("del a", "0");
	ASK("add c third", "0");
	kill(child, SIGSEGV);
	begins(2);
	ASK("get a", "none");
	ASK("get c", "third");
	stop();
}
END_TEST

START_TEST(many_descriptors)
{
	struct rlimit lim;

	T(!getrlimit(RLIMIT_NOFILE, &lim));
	if (lim.rlim_max < 3200) {
		printf("SKIP: RLIMIT_NOFILE allows only %llu descriptors\n",
		       (unsigned long long)lim.rlim_max);
		return;
	}
	lim.rlim_cur = 256;	/* the keeper raises it */
	T(!setrlimit(RLIMIT_NOFILE, &lim));
	start_serving();
	ASK("many 1500", "0");
	for (int i = 0; i < 2; i++) {
		kill(child, SIGKILL);
		begins(1500);
		ASK("get m.0", "m.0");
		ASK("get m.777", "m.777");
		ASK("get m.1499", "m.1499");
	}
	stop();
}
END_TEST

START_TEST(odd_names_are_refused)
{
	start_serving();
	ASK("add good one", "0");
	ASK("odd", "0");
	ASK("add last one", "0");
	kill(child, SIGKILL);
	begins(2);
	ASK("get good", "one");
	ASK("get last", "one");
	stop();
}
END_TEST

/* Whoever else finds the socket: nothing of his is kept, nor are names removed. */
START_TEST(others_are_not_listened_to)
{
	static const char *const text[] = { "FDSTORE=1\nFDNAME=mine", "FDSTOREREMOVE=1\nFDNAME=a" };
	char room[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = { 0 };
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0), zero = 0;
	socklen_t len;

	start_serving();
	ASK("add a text", "0");
	strcpy(sa.sun_path, ask("socket"));
	len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(sa.sun_path));
	sa.sun_path[0] = '\0';
	for (int i = 0; i < 2; i++) {
		struct iovec iov = { .iov_base = (void *)(uintptr_t)text[i],
				     .iov_len = strlen(text[i]) };
		struct msghdr mh = { .msg_name = &sa, .msg_namelen = len, .msg_iov = &iov,
				     .msg_iovlen = 1, .msg_control = room,
				     .msg_controllen = sizeof(room) };
		struct cmsghdr *cm = CMSG_FIRSTHDR(&mh);

		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cm), &zero, sizeof(zero));
		T(sendmsg(fd, &mh, 0) >= 0);
	}
	close(fd);
	kill(child, SIGKILL);
	begins(1);
	ASK("get a", "text");
	stop();
}
END_TEST

START_TEST(bad_configuration_ends_it)
{
	start_keeper("1", "3");
	HEARD("");
	ck_assert_int_eq(ended(), 3);
	start_keeper("1", "0");		/* as kvmd -n does */
	HEARD("");
	ck_assert_int_eq(ended(), 0);
	/* Also after a look around, before it serves. */
	start_keeper("1", NULL);
	begins(0);
	fputs("exit 7\n", to);
	HEARD("");
	ck_assert_int_eq(ended(), 7);
}
END_TEST

START_TEST(exits_after_it_served_are_deaths)
{
	start_serving();
	ASK("add a text", "0");
	fputs("exit 3\n", to);
	begins(1);
	fputs("exit 1\n", to);		/* not even ready, but the first one was */
	begins(1);
	kill(child, SIGTERM);		/* somebody puts a new program in place */
	HEARD("term");
	begins(1);
	ASK("get a", "text");
	stop();
}
END_TEST

START_TEST(a_death_before_it_served_is_one)
{
	start_keeper("1", NULL);
	begins(0);
	kill(child, SIGKILL);
	begins(0);
	stop();
}
END_TEST

START_TEST(signals_are_passed_on)
{
	start_serving();
	kill(keeper, SIGHUP);
	HEARD("hup");
	ASK("get a", "none");
	kill(keeper, SIGINT);
	HEARD("int");
	HEARD("");
	ck_assert_int_eq(ended(), 0);
	start_serving();
	ASK("term 5", "5");
	kill(keeper, SIGTERM);
	HEARD("term");
	ck_assert_int_eq(ended(), 5);
}
END_TEST

/* Nothing would be kept for it: the service ends, too. */
START_TEST(keeper_that_is_killed)
{
	start_serving();
	ASK("add a text", "0");
	kill(keeper, SIGKILL);
	HEARD("term");
	HEARD("");
	ck_assert_int_eq(ended(), 1000 + SIGKILL);
}
END_TEST

/* In the pause or just after it. */
START_TEST(stop_between_two_services)
{
	const char *line;
	int code;

	start_serving();
	kill(child, SIGKILL);
	kill(keeper, SIGTERM);
	/* a next one may have begun, or been told to stop before it could say so */
	line = heard();
	if (!strncmp(line, "begin", 5))
		line = heard();
	T(!line[0] || !strcmp(line, "term"));
	code = ended();
	T(code == 0 || code == 128 + SIGTERM || code == 128 + SIGKILL);
}
END_TEST

START_TEST(ready_is_passed_on)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(sa);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct timeval tv = { .tv_sec = WAIT_MS / 1000 };
	char name[128], text[64];
	ssize_t n;

	T(!bind(fd, (struct sockaddr *)&sa, sizeof(sa.sun_family)));
	T(!getsockname(fd, (struct sockaddr *)&sa, &len));
	T(!setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
	snprintf(name, sizeof(name), "@%.*s",
		 (int)(len - offsetof(struct sockaddr_un, sun_path) - 1), sa.sun_path + 1);
	setenv("NOTIFY_SOCKET", name, 1);
	start_serving();
	n = recv(fd, text, sizeof(text) - 1, 0);
	T(n > 0);
	text[n] = '\0';
	ck_assert_str_eq(text, "READY=1");
	close(fd);
	stop();
}
END_TEST

START_TEST(usage)
{
	char path[600];
	static const char *const bad[][3] = {
		{ NULL }, { "-s", "1", NULL }, { "-s", "x", "true" }, { "-s", "0", "true" },
		{ "-x", "true", NULL }, { "-s", "9999999", "true" },
	};

	build_path(path, "kvkeeper");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		pid_t pid = fork();
		int status;

		if (!pid) {
			T(freopen("/dev/null", "w", stderr));
			execl(path, "kvkeeper", bad[i][0], bad[i][1], bad[i][2], (char *)NULL);
			_exit(99);
		}
		T(waitpid(pid, &status, 0) == pid);
		T(WIFEXITED(status));
		T_EQ(WEXITSTATUS(status), 2);
	}
}
END_TEST

START_TEST(no_such_program)
{
	char path[600];
	pid_t pid;
	int status;

	build_path(path, "kvkeeper");
	pid = fork();
	if (!pid) {
		T(freopen("/dev/null", "w", stderr));
		execl(path, "kvkeeper", "/nonexistent/kvmd", (char *)NULL);
		_exit(99);
	}
	T(waitpid(pid, &status, 0) == pid);
	T(WIFEXITED(status));
	T_EQ(WEXITSTATUS(status), 127);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("keeper");
	TCase *tc = tcase_create("keeper");
	SRunner *sr;
	int failed;

	signal(SIGPIPE, SIG_IGN);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, kept_over_sigkill);
	tcase_add_test(tc, many_descriptors);
	tcase_add_test(tc, odd_names_are_refused);
	tcase_add_test(tc, others_are_not_listened_to);
	tcase_add_test(tc, bad_configuration_ends_it);
	tcase_add_test(tc, exits_after_it_served_are_deaths);
	tcase_add_test(tc, a_death_before_it_served_is_one);
	tcase_add_test(tc, signals_are_passed_on);
	tcase_add_test(tc, keeper_that_is_killed);
	tcase_add_test(tc, stop_between_two_services);
	tcase_add_test(tc, ready_is_passed_on);
	tcase_add_test(tc, usage);
	tcase_add_test(tc, no_such_program);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
