/* SPDX-License-Identifier: Apache-2.0 */
/*
 * prog_keeper_child.c - a small service for check_keeper: keeps what it is told to.
 *
 * One command per line on standard input, one answer per line on standard output,
 * which keeper and next child inherit. It begins with "begin PID DESCRIPTORS".
 * Signals are blocked and read from a descriptor, beside the commands.
 */
#include "kvmd/lib/fdstore.h"

#include <fcntl.h>
#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MOST	4096

static struct {
	char name[FDSTORE_NAME_BYTES];
	int fd;
} kept[MOST];
static unsigned nr_kept;
static int term_code, signal_fd;
static char notify_path[64];

static void take(void *arg, const char *name, int fd)
{
	(void)arg;
	strcpy(kept[nr_kept].name, name);
	kept[nr_kept++].fd = fd;
}

/* One signal that came: says so; all but SIGHUP end it. */
static void take_signal(void)
{
	struct signalfd_siginfo si;

	if (read(signal_fd, &si, sizeof(si)) != sizeof(si))
		_exit(93);
	puts(si.ssi_signo == SIGTERM ? "term" : si.ssi_signo == SIGINT ? "int" : "hup");
	if (si.ssi_signo != SIGHUP)
		_exit(term_code);
}

static int add(const char *name, const char *text)
{
	int fd = memfd_create(name, MFD_CLOEXEC), err;

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		return -errno;
	err = fdstore_add(name, fd);
	close(fd);
	return err;
}

static int many(int nr)
{
	char name[32];
	int err = 0;

	for (int i = 0; i < nr && !err; i++) {
		snprintf(name, sizeof(name), "m.%d", i);
		err = add(name, name);
	}
	return err;
}

/* Text of what was kept as @name at the start. */
static void get(const char *name)
{
	char text[256] = "none";

	for (unsigned i = 0; i < nr_kept; i++) {
		if (strcmp(kept[i].name, name))
			continue;
		ssize_t n = pread(kept[i].fd, text, sizeof(text) - 1, 0);

		text[n < 0 ? 0 : n] = '\0';
	}
	printf("%s\n", text);
}

/* Names that fdstore_add() would not send; one descriptor each. */
static int odd_names(void)
{
	static const char *const text[] = {
		"FDSTORE=1\nFDNAME=a:b", "FDSTORE=1\nFDNAME=", "FDSTORE=1\nFDNAME=t\tab",
		"FDSTORE=1\nFDNAME=\xc3\xa4", "FDSTOREREMOVE=1\nFDNAME=:",
		"FDNAME=no-store", "nonsense\n\n=\nFDSTORE=0",
	};
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(notify_path));
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), err = 0;
	char room[CMSG_SPACE(2 * sizeof(int))] __attribute__((aligned(8))) = { 0 };
	int two[2] = { 0, 1 };

	strcpy(sa.sun_path, notify_path);
	sa.sun_path[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(text) && !err; i++) {
		struct iovec iov = { .iov_base = (void *)(uintptr_t)text[i],
				     .iov_len = strlen(text[i]) };
		struct msghdr mh = { .msg_name = &sa, .msg_namelen = len, .msg_iov = &iov,
				     .msg_iovlen = 1, .msg_control = room,
				     .msg_controllen = sizeof(room) };
		struct cmsghdr *cm = CMSG_FIRSTHDR(&mh);

		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN(sizeof(two));
		memcpy(CMSG_DATA(cm), two, sizeof(two));
		err = sendmsg(fd, &mh, 0) < 0 ? -errno : 0;
	}
	close(fd);
	return err;
}

static unsigned nr_open(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n - 4;	/* ".", "..", the directory, and signal_fd */
}

static void command(char *line)
{
	char *verb = strsep(&line, " \n"), *name = strsep(&line, " \n"), *text;

	text = line ? strsep(&line, "\n") : NULL;
	if (!strcmp(verb, "add"))
		printf("%d\n", add(name, text));
	else if (!strcmp(verb, "many"))
		printf("%d\n", many(atoi(name)));
	else if (!strcmp(verb, "del"))
		printf("%d\n", fdstore_del(name));
	else if (!strcmp(verb, "get"))
		get(name);
	else if (!strcmp(verb, "odd"))
		printf("%d\n", odd_names());
	else if (!strcmp(verb, "ready"))
		printf("%d\n", fdstore_ready());
	else if (!strcmp(verb, "open"))
		printf("%u\n", nr_open());
	else if (!strcmp(verb, "socket"))
		printf("%s\n", notify_path);
	else if (!strcmp(verb, "term"))
		printf("%d\n", term_code = atoi(name));
	else if (!strcmp(verb, "exit"))
		_exit(atoi(name));
}

/* Commands and signals as they come, until the commands end. */
static int serve(void)
{
	struct pollfd pfd[] = { { .fd = 0, .events = POLLIN }, { .fd = signal_fd, .events = POLLIN } };
	char line[512];

	for (;;) {
		if (poll(pfd, ARRAY_SIZE(pfd), -1) < 0)
			return 94;
		if (pfd[1].revents)
			take_signal();
		/* whole lines are written at once */
		if (pfd[0].revents && !fgets(line, sizeof(line), stdin))
			return 92;
		if (pfd[0].revents)
			command(line);
	}
}

int main(int argc, char **argv)
{
	const char *env = getenv("NOTIFY_SOCKET");
	sigset_t set;

	if (argc > 1)
		return atoi(argv[1]);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
	setvbuf(stdout, NULL, _IOLBF, 0);
	setvbuf(stdin, NULL, _IONBF, 0);	/* what is read is this process's alone */
	if (signal_fd < 0 || !env || strlen(env) >= sizeof(notify_path))
		return 90;
	strcpy(notify_path, env);
	if (fdstore_open() || fdstore_take(take, NULL) < 0)
		return 91;
	printf("begin %d %u\n", (int)getpid(), nr_kept);
	return serve();
}
