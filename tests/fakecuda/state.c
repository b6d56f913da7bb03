// SPDX-License-Identifier: Apache-2.0
/*
 * state.c - the state file of the fake driver: made, locked, read, cleaned.
 *
 * Part of the fake library, and linked into the tests, which read it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fakecuda/fakecuda.h"
#include "tests/fakecuda/state.h"

static int state_init(struct fc_state *s)
{
	pthread_mutexattr_t a;
	int err;

	pthread_mutexattr_init(&a);
	pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
	err = pthread_mutex_init(&s->lock, &a);
	pthread_mutexattr_destroy(&a);
	if (err)
		return err;
	s->free_use = -1;
	for (int i = 0; i < FC_BUCKETS; i++)
		s->bucket[i] = -1;
	__atomic_store_n(&s->magic, FC_STATE_MAGIC, __ATOMIC_RELEASE);
	return 0;
}

struct fc_state *fc_state_open(const char *path, bool make)
{
	struct fc_state *s = MAP_FAILED;
	struct stat st;
	int fd, err = 0;

	if (!path) {
		s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
			 0);
		if (s == MAP_FAILED)
			return NULL;
		state_init(s);
		return s;
	}
	fd = open(path, O_RDWR | O_CLOEXEC | (make ? O_CREAT : 0), 0666);
	if (fd < 0)
		return NULL;
	/* One of those that come at once makes it. */
	if (flock(fd, LOCK_EX) || fstat(fd, &st))
		err = errno;
	else if (!st.st_size && (!make || ftruncate(fd, sizeof(*s))))
		err = make ? errno : ENODATA;
	else if (st.st_size && st.st_size != (off_t)sizeof(*s))
		err = EUCLEAN;
	if (!err) {
		s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (s == MAP_FAILED)
			err = errno;
		else if (!s->magic)
			err = state_init(s);
		else if (s->magic != FC_STATE_MAGIC)
			err = EUCLEAN;
	}
	flock(fd, LOCK_UN);		/* the mapping keeps the file open, and so the lock */
	close(fd);
	if (!err)
		return s;
	if (s != MAP_FAILED)
		munmap(s, sizeof(*s));
	errno = err;
	return NULL;
}

void fc_state_close(struct fc_state *s)
{
	if (s)
		munmap(s, sizeof(*s));
}

void fc_lock(struct fc_state *s)
{
	/* Whoever died in here left whole entries. */
	if (pthread_mutex_lock(&s->lock) == EOWNERDEAD)
		pthread_mutex_consistent(&s->lock);
}

void fc_unlock(struct fc_state *s)
{
	pthread_mutex_unlock(&s->lock);
}

uint64_t fc_proc_start(int pid)
{
	char path[64], buf[1024], *p;
	unsigned long long start = 0;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (n <= 0)
		return 0;
	buf[n] = 0;
	/* "PID (COMM) STATE ...": the command may hold anything; the start is field 22. */
	p = strrchr(buf, ')');
	if (!p || p[1] != ' ' || strchr("ZXx", p[2]))
		return 0;
	p += 2;
	for (int field = 3; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	if (p)
		start = strtoull(p, NULL, 10);
	return start ? start : 1;
}

/* ------------------------------------------------------------ memory */

static bool same(const struct fc_mem *m, const struct stat *st)
{
	return m->ino == st->st_ino && m->dev == st->st_dev;
}

static bool has_it(const struct fc_mem *m)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", m->pid, m->fd);
	return m->pid && !stat(path, &st) && same(m, &st);
}

/* Process @pid has whatever of the unsure entries its fds are of. */
static void look_into(struct fc_state *s, int pid, bool *unsure)
{
	char path[64];
	struct dirent *e;
	struct stat st;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	d = opendir(path);
	if (!d)
		return;
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.' || fstatat(dirfd(d), e->d_name, &st, 0) ||
		    !S_ISREG(st.st_mode))
			continue;
		for (int i = 0; i < FC_MAX_MEMS; i++) {
			if (!unsure[i] || !same(&s->mem[i], &st))
				continue;
			unsure[i] = false;
			s->mem[i].pid = pid;
			s->mem[i].fd = atoi(e->d_name);
		}
	}
	closedir(d);
}

void fc_reap_mem(struct fc_state *s)
{
	bool unsure[FC_MAX_MEMS];
	struct dirent *e;
	unsigned nr = 0;
	DIR *d;

	for (int i = 0; i < FC_MAX_MEMS; i++) {
		unsure[i] = s->mem[i].ino && !has_it(&s->mem[i]);
		nr += unsure[i];
	}
	if (!nr)
		return;
	d = opendir("/proc");
	if (!d)
		return;
	while ((e = readdir(d)))
		if (e->d_name[0] >= '1' && e->d_name[0] <= '9')
			look_into(s, atoi(e->d_name), unsure);
	closedir(d);
	for (int i = 0; i < FC_MAX_MEMS; i++) {
		if (!unsure[i])
			continue;
		for (int k = 0; k < FC_MAX_BAD; k++)
			if (s->bad[k].bytes && s->bad[k].ino == s->mem[i].ino)
				s->bad[k].bytes = 0;
		s->mem[i].ino = 0;
	}
}

uint64_t fc_used(const struct fc_state *s, int gpu)
{
	uint64_t sum = 0;

	for (int i = 0; i < FC_MAX_MEMS; i++)
		if (s->mem[i].ino && (gpu < 0 || s->mem[i].gpu == gpu))
			sum += s->mem[i].bytes;
	return sum;
}

/* ------------------------------------------------------------ for tests */

int fakecuda_state(const char *path, struct fakecuda_sum *ret_s)
{
	struct fc_state *s = fc_state_open(path, false);

	if (!s)
		return -errno;
	fc_lock(s);
	fc_reap_mem(s);
	ret_s->violations = s->violations;
	ret_s->mem_bytes = fc_used(s, -1);
	ret_s->nr_mem = 0;
	for (int i = 0; i < FC_MAX_MEMS; i++)
		ret_s->nr_mem += s->mem[i].ino != 0;
	fc_unlock(s);
	fc_state_close(s);
	return 0;
}

uint64_t fakecuda_state_calls(const char *path, int pid)
{
	struct fc_state *s = fc_state_open(path, false);
	uint64_t n = 0;

	if (!s)
		return 0;
	for (int i = 0; i < FC_MAX_PROCS; i++)
		if (s->proc[i].pid == pid)
			n = __atomic_load_n(&s->proc[i].calls, __ATOMIC_RELAXED);
	fc_state_close(s);
	return n;
}
