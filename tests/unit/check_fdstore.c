/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_fdstore.c - what is said to the supervisor, and what is taken from it.
 *
 * The test listens where a supervisor would. Each test runs in a process of its
 * own (libcheck forks), so the environment is its own.
 */
#include "kvmd/lib/fdstore.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/suite.h"

static int sock;
static char dir[64], path[100];

/* A supervisor's socket; abstract unless @named. */
static void listen_as_supervisor(bool named)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct timeval tv = { .tv_sec = 20 };
	socklen_t len;

	strcpy(dir, "/tmp/kvmd-fdstore.XXXXXX");
	if (named) {
		ck_assert_ptr_nonnull(mkdtemp(dir));
		snprintf(path, sizeof(path), "%s/notify", dir);
	} else {
		snprintf(path, sizeof(path), "@kvmd-fdstore-%d", (int)getpid());
	}
	strcpy(sa.sun_path, path);
	len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path) + named);
	if (!named)
		sa.sun_path[0] = '\0';
	sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ck_assert_int_ge(sock, 0);
	ck_assert_int_eq(bind(sock, (struct sockaddr *)&sa, len), 0);
	ck_assert_int_eq(setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)), 0);
	ck_assert_int_eq(setenv("NOTIFY_SOCKET", path, 1), 0);
}

/* The next message is @text and brings a descriptor (returned), or none: -1. */
static int expect(const char *text)
{
	char got[4096], control[CMSG_SPACE(4 * sizeof(int))] __attribute__((aligned(8)));
	struct iovec iov = { .iov_base = got, .iov_len = sizeof(got) - 1 };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
			     .msg_controllen = sizeof(control) };
	struct cmsghdr *cm;
	int fd = -1;
	ssize_t n;

	n = recvmsg(sock, &mh, MSG_CMSG_CLOEXEC);
	ck_assert_int_ge(n, 0);
	got[n] = '\0';
	ck_assert_str_eq(got, text);
	cm = CMSG_FIRSTHDR(&mh);
	if (cm) {
		ck_assert_uint_eq(cm->cmsg_len, CMSG_LEN(sizeof(int)));
		memcpy(&fd, CMSG_DATA(cm), sizeof(fd));
	}
	return fd;
}

static bool same_file(int a, int b)
{
	struct stat sa, sb;

	return !fstat(a, &sa) && !fstat(b, &sb) && sa.st_ino == sb.st_ino && sa.st_dev == sb.st_dev;
}

START_TEST(messages)
{
	int fd = memfd_create("kept", MFD_CLOEXEC), got;

	listen_as_supervisor(_i);
	ck_assert_int_eq(fdstore_open(), 0);
	ck_assert(fdstore_present());
	ck_assert_ptr_null(getenv("NOTIFY_SOCKET"));
	ck_assert_int_eq(fdstore_ready(), 0);
	ck_assert_int_eq(expect("READY=1"), -1);
	ck_assert_int_eq(fdstore_status("serves 3\nREADY=0"), 0);
	ck_assert_int_eq(expect("STATUS=serves 3 READY=0"), -1);
	ck_assert_int_eq(fdstore_add("slab 1.0", fd), 0);
	got = expect("FDSTORE=1\nFDNAME=slab 1.0\nFDPOLL=0");
	ck_assert(same_file(fd, got));
	close(got);
	ck_assert_int_eq(fdstore_del("slab 1.0"), 0);
	ck_assert_int_eq(expect("FDSTOREREMOVE=1\nFDNAME=slab 1.0"), -1);
	ck_assert_int_eq(fdstore_stopping(), 0);
	ck_assert_int_eq(expect("STOPPING=1"), -1);
	fdstore_close();
	ck_assert(!fdstore_present());
	close(fd);
	if (_i) {
		ck_assert_int_eq(unlink(path), 0);
		ck_assert_int_eq(rmdir(dir), 0);
	}
}
END_TEST

START_TEST(nobody_listens)
{
	unsetenv("NOTIFY_SOCKET");
	ck_assert_int_eq(fdstore_open(), 0);
	ck_assert(!fdstore_present());
	ck_assert_int_eq(fdstore_ready(), 0);
	ck_assert_int_eq(fdstore_status("nobody reads it"), 0);
	ck_assert_int_eq(fdstore_add("a", 0), 0);
	ck_assert_int_eq(fdstore_del("a"), 0);
	setenv("NOTIFY_SOCKET", "", 1);
	ck_assert_int_eq(fdstore_open(), 0);
	ck_assert(!fdstore_present());
}
END_TEST

START_TEST(bad_sockets)
{
	char longest[200] = "/";

	memset(longest + 1, 'x', 150);
	setenv("NOTIFY_SOCKET", "not/absolute", 1);
	ck_assert_int_eq(fdstore_open(), -EINVAL);
	setenv("NOTIFY_SOCKET", "@", 1);
	ck_assert_int_eq(fdstore_open(), -EINVAL);
	setenv("NOTIFY_SOCKET", longest, 1);
	ck_assert_int_eq(fdstore_open(), -ENAMETOOLONG);
	setenv("NOTIFY_SOCKET", "/nonexistent/notify", 1);
	ck_assert_int_eq(fdstore_open(), -ENOENT);
	setenv("NOTIFY_SOCKET", "@kvmd-nobody-listens-here", 1);
	ck_assert_int_eq(fdstore_open(), -ECONNREFUSED);
	ck_assert(!fdstore_present());
}
END_TEST

START_TEST(names)
{
	char name[FDSTORE_NAME_BYTES + 1];

	memset(name, 'n', sizeof(name));
	name[FDSTORE_NAME_BYTES - 1] = '\0';
	ck_assert(fdstore_name_ok(name));
	name[FDSTORE_NAME_BYTES - 1] = 'n';
	name[FDSTORE_NAME_BYTES] = '\0';
	ck_assert(!fdstore_name_ok(name));
	ck_assert(fdstore_name_ok("slab 1.0/~"));
	ck_assert(!fdstore_name_ok(""));
	ck_assert(!fdstore_name_ok("a:b"));
	ck_assert(!fdstore_name_ok("a\nFDSTORE=1"));
	ck_assert(!fdstore_name_ok("a\x7f"));
	ck_assert(!fdstore_name_ok("\xc3\xa4"));
	/* Refused before anything is sent. */
	listen_as_supervisor(false);
	ck_assert_int_eq(fdstore_open(), 0);
	ck_assert_int_eq(fdstore_add("a:b", 0), -EINVAL);
	ck_assert_int_eq(fdstore_del("a\nb"), -EINVAL);
	ck_assert_int_eq(fdstore_add("a", -1), -EBADF);
	ck_assert_int_eq(fdstore_ready(), 0);
	ck_assert_int_eq(expect("READY=1"), -1);
}
END_TEST

START_TEST(supervisor_that_does_not_read)
{
	int err = 0;

	listen_as_supervisor(false);
	ck_assert_int_eq(fdstore_open(), 0);
	for (int i = 0; i < 100000 && !err; i++)
		err = fdstore_ready();
	ck_assert_int_eq(err, -EAGAIN);
	expect("READY=1");
	ck_assert_int_eq(fdstore_ready(), 0);
	close(sock);
	ck_assert_int_eq(fdstore_ready(), -ECONNREFUSED);
}
END_TEST

/* ---------------------------------------------------------------- taking */

static unsigned nr_taken;
static char taken[16][FDSTORE_NAME_BYTES];

static void take(void *arg, const char *name, int fd)
{
	ck_assert_ptr_eq(arg, taken);
	ck_assert_int_eq(fd, FDSTORE_FIRST_FD + (int)nr_taken);
	ck_assert_int_eq(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	strcpy(taken[nr_taken++], name);
}

/* As the supervisor leaves it: descriptors 3, 4, ... open, and the environment. */
static int take_from(int nr, const char *pid, const char *count, const char *fd_names)
{
	char self[16];

	for (int i = 0; i < nr; i++)
		ck_assert_int_ge(dup2(0, FDSTORE_FIRST_FD + i), 0);
	snprintf(self, sizeof(self), "%d", (int)getpid());
	unsetenv("LISTEN_FDNAMES");
	setenv("LISTEN_PID", pid ? pid : self, 1);
	setenv("LISTEN_FDS", count, 1);
	if (fd_names)
		setenv("LISTEN_FDNAMES", fd_names, 1);
	nr_taken = 0;
	nr = fdstore_take(take, taken);
	ck_assert_ptr_null(getenv("LISTEN_PID"));
	ck_assert_ptr_null(getenv("LISTEN_FDS"));
	ck_assert_ptr_null(getenv("LISTEN_FDNAMES"));
	ck_assert_int_eq(fdstore_take(take, taken), 0);
	return nr;
}

START_TEST(taking)
{
	/* libcheck's own descriptors are in the way */
	for (int fd = FDSTORE_FIRST_FD; fd < 20; fd++)
		fcntl(fd, F_DUPFD_CLOEXEC, 100);
	ck_assert_int_eq(take_from(3, NULL, "3", "a:b c:d"), 3);
	ck_assert_uint_eq(nr_taken, 3);
	ck_assert_str_eq(taken[0], "a");
	ck_assert_str_eq(taken[1], "b c");
	ck_assert_str_eq(taken[2], "d");
	/* fewer names, empty names, none */
	ck_assert_int_eq(take_from(4, NULL, "4", "a::c"), 4);
	ck_assert_str_eq(taken[0], "a");
	ck_assert_str_eq(taken[1], "stored");
	ck_assert_str_eq(taken[2], "c");
	ck_assert_str_eq(taken[3], "stored");
	ck_assert_int_eq(take_from(2, NULL, "2", NULL), 2);
	ck_assert_str_eq(taken[1], "stored");
	ck_assert_int_eq(take_from(0, NULL, "0", ""), 0);
	/* another process's, nonsense */
	ck_assert_int_eq(take_from(2, "1", "2", "a:b"), 0);
	ck_assert_int_eq(take_from(2, "x", "2", "a:b"), -EINVAL);
	ck_assert_int_eq(take_from(2, NULL, "-1", "a:b"), -EINVAL);
	ck_assert_int_eq(take_from(2, NULL, "2x", "a:b"), -EINVAL);
	ck_assert_int_eq(take_from(2, NULL, "99999999999", "a:b"), -EINVAL);
	ck_assert_uint_eq(nr_taken, 0);
	/* the third is not open */
	close(FDSTORE_FIRST_FD + 2);
	ck_assert_int_eq(take_from(2, NULL, "3", "a:b:c"), -EBADF);
	ck_assert_uint_eq(nr_taken, 2);
	/* without LISTEN_PID it is nobody's */
	setenv("LISTEN_FDS", "1", 1);
	ck_assert_int_eq(fdstore_take(take, taken), 0);
	ck_assert_ptr_null(getenv("LISTEN_FDS"));
	ck_assert_int_eq(fdstore_take(take, taken), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("fdstore");
	TCase *tc = tcase_create("fdstore");

	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, messages, 0, 2);
	tcase_add_test(tc, nobody_listens);
	tcase_add_test(tc, bad_sockets);
	tcase_add_test(tc, names);
	tcase_add_test(tc, supervisor_that_does_not_read);
	tcase_add_test(tc, taking);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
