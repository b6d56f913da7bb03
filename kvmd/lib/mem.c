// SPDX-License-Identifier: Apache-2.0
/*
 * mem.c - heap, big private tables, memfds; each may be made to fail.
 *
 * Any thread. Nothing here is called on the request path.
 */
#include "kvmd/lib/mem.h"
#include "kvmd/lib/fault.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE	23	/* Linux 5.14 */
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE	0x0010	/* Linux 5.1 */
#endif

#define HUGE_BYTES	(2ULL << 20)
#define NR_POPULATE	64		/* most threads of one mem_populate() */

void *mem_zalloc(size_t bytes)
{
	return mem_calloc(1, bytes);
}

void *mem_calloc(size_t n, size_t bytes)
{
	if (fault_hit(FAULT_ALLOC))
		return NULL;
	return calloc(n, bytes);
}

void *mem_realloc(void *p, size_t bytes)
{
	if (fault_hit(FAULT_ALLOC))
		return NULL;
	return realloc(p, bytes);
}

char *mem_strdup(const char *s)
{
	if (fault_hit(FAULT_ALLOC))
		return NULL;
	return strdup(s);
}

void mem_free(void *p)
{
	free(p);
}

static size_t page_bytes(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

static void touch(char *p, size_t bytes)
{
	size_t step = page_bytes(), i;

	if (!madvise(p, bytes, MADV_POPULATE_WRITE))
		return;
	/* An older kernel: write what is there back, page by page. */
	for (i = 0; i < bytes; i += step)
		__atomic_fetch_or(&p[i], 0, __ATOMIC_RELAXED);
}

/* Map @bytes more than asked and cut, so that huge pages fit from the start. */
static void *map_aligned(size_t bytes)
{
	size_t all, head;
	char *p;

	if (__builtin_add_overflow(bytes, HUGE_BYTES, &all))
		return MAP_FAILED;
	p = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		 -1, 0);
	if (p == MAP_FAILED)
		return p;
	head = align_up((uintptr_t)p, HUGE_BYTES) - (uintptr_t)p;
	if (head)
		munmap(p, head);
	munmap(p + head + bytes, HUGE_BYTES - head);
	return p + head;
}

void *mem_big_alloc(size_t bytes, bool populate)
{
	size_t len;
	void *p;

	if (fault_hit(FAULT_ALLOC) || !bytes || bytes > SIZE_MAX - HUGE_BYTES)
		return NULL;
	len = align_up(bytes, page_bytes());
	if (len >= HUGE_BYTES)
		p = map_aligned(len);
	else
		p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	/* A hint: without huge pages the table is only slower. */
	if (len >= HUGE_BYTES)
		(void)madvise(p, len, MADV_HUGEPAGE);
	if (populate)
		touch(p, len);
	return p;
}

void mem_big_free(void *p, size_t bytes)
{
	if (p)
		munmap(p, align_up(bytes, page_bytes()));
}

static int fd_create(const char *name, uint64_t bytes, unsigned flags, void **ret_map)
{
	void *map;
	int fd, err;

	fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)bytes)) {
		err = -errno;
		goto err_close;
	}
	/* Huge pages are reserved by the first mapping: it must be tried here. */
	if (ret_map || flags & MFD_HUGETLB) {
		map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (map == MAP_FAILED) {
			err = -errno;
			goto err_close;
		}
		if (!ret_map)
			munmap(map, bytes);
		else
			*ret_map = map;
	}
	return fd;

err_close:
	close(fd);
	return err;
}

int mem_fd_create(const char *name, uint64_t bytes, bool hugetlb, void **ret_map)
{
	int fd;

	if (fault_hit(FAULT_ALLOC))
		return -ENOMEM;
	if (!bytes || bytes > INT64_MAX)
		return -EINVAL;
	if (hugetlb && bytes % HUGE_BYTES == 0) {
		fd = fd_create(name, bytes, MFD_HUGETLB | MFD_HUGE_2MB, ret_map);
		if (fd >= 0)
			return fd;
	}
	fd = fd_create(name, bytes, 0, ret_map);
	if (fd >= 0 && ret_map && bytes >= HUGE_BYTES)
		(void)madvise(*ret_map, bytes, MADV_HUGEPAGE);	/* a hint, as above */
	return fd;
}

int mem_fd_seal(int fd, bool readonly)
{
	int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

	if (readonly)
		seals |= F_SEAL_FUTURE_WRITE;
	return fcntl(fd, F_ADD_SEALS, seals) ? -errno : 0;
}

struct populate_part {
	pthread_t thread;
	char *p;
	size_t bytes;
	bool started;
};

static void *populate_thread(void *arg)
{
	struct populate_part *part = arg;

	touch(part->p, part->bytes);
	return NULL;
}

void mem_populate(void *p, size_t bytes, unsigned nr_threads)
{
	struct populate_part parts[NR_POPULATE] = { 0 };
	size_t step, at = 0;
	unsigned i, nr;

	nr = min(max(nr_threads, 1u), (unsigned)NR_POPULATE);
	step = align_up(div_round_up(bytes, nr), HUGE_BYTES);
	for (i = 0; i < nr && at < bytes; i++, at += step) {
		parts[i].p = (char *)p + at;
		parts[i].bytes = min(step, bytes - at);
		/* The last part is this thread's own work; so is what got no thread. */
		if (at + step < bytes)
			parts[i].started = !pthread_create(&parts[i].thread, NULL,
							   populate_thread, &parts[i]);
		if (!parts[i].started)
			populate_thread(&parts[i]);
	}
	while (i--) {
		if (parts[i].started)
			pthread_join(parts[i].thread, NULL);
	}
}
