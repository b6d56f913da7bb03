// SPDX-License-Identifier: Apache-2.0
/*
 * mem.c - heap, big private tables, memfds; each may be made to fail.
 *
 * Any thread. Nothing here is called on the request path.
 */
#include "kvmd/lib/mem.h"
#include "kvmd/lib/fault.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/vfs.h>
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

bool mem_is_zero(const void *p, size_t bytes)
{
	const uint8_t *at = p;

	return !bytes || (!at[0] && !memcmp(at, at + 1, bytes - 1));
}

static size_t page_bytes(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

/* 0, or -ENOMEM, -EFAULT, -EHWPOISON: a page that cannot be had. */
static int touch(char *p, size_t bytes)
{
	size_t step = page_bytes(), i;
	int err;

	do {
		err = madvise(p, bytes, MADV_POPULATE_WRITE) ? -errno : 0;
	} while (err == -EINTR || err == -EAGAIN);
	if (err != -EINVAL)
		return err;
	/* An older kernel: write what is there back, page by page. */
	for (i = 0; i < bytes; i += step)
		__atomic_fetch_or(&p[i], 0, __ATOMIC_RELAXED);
	return 0;
}

/*
 * Map at a multiple of 2 MiB, so that huge pages fit from the start: take more
 * than asked, cut, then put the memfd over it (-1: anonymous memory).
 */
static void *map_aligned(size_t bytes, int fd)
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
	p += head;
	munmap(p + bytes, HUGE_BYTES - head);
	if (fd >= 0 && mmap(p, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
			    0) == MAP_FAILED) {
		munmap(p, bytes);
		return MAP_FAILED;
	}
	return p;
}

void *mem_big_alloc(size_t bytes, bool populate)
{
	size_t len;
	void *p;

	if (fault_hit(FAULT_ALLOC) || !bytes || bytes > SIZE_MAX - HUGE_BYTES)
		return NULL;
	len = align_up(bytes, page_bytes());
	if (len >= HUGE_BYTES)
		p = map_aligned(len, -1);
	else
		p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	/* A hint: without huge pages the table is only slower. */
	if (len >= HUGE_BYTES)
		(void)madvise(p, len, MADV_HUGEPAGE);
	if (populate)
		(void)touch(p, len);
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

int mem_fd_map(int fd, uint64_t bytes, void **ret_map)
{
	void *map;

	if (fault_hit(FAULT_ALLOC))
		return -ENOMEM;
	if (!bytes || bytes > INT64_MAX)
		return -EINVAL;
	map = map_aligned(align_up(bytes, page_bytes()), fd);
	if (map == MAP_FAILED)
		return -errno;
	(void)madvise(map, bytes, MADV_HUGEPAGE);	/* a hint, as above */
	*ret_map = map;
	return 0;
}

/* A memfd with @flags, mapped and touched. */
static int fd_create_touched(const char *name, uint64_t bytes, unsigned flags,
			     unsigned nr_threads, void **ret_map)
{
	void *map;
	int fd, err;

	fd = fd_create(name, bytes, flags, NULL);
	if (fd < 0)
		return fd;
	err = mem_fd_map(fd, bytes, &map);
	if (err)
		goto err_close;
	err = mem_populate(map, bytes, nr_threads);
	if (err)
		goto err_unmap;
	*ret_map = map;
	return fd;

err_unmap:
	munmap(map, align_up(bytes, page_bytes()));
err_close:
	close(fd);
	return err;
}

int mem_fd_create_paged(const char *name, uint64_t bytes, bool hugetlb, unsigned nr_threads,
			void **ret_map, struct mem_pages *ret_pages)
{
	int fd = -ENOMEM;

	if (fault_hit(FAULT_ALLOC))
		return -ENOMEM;
	if (!bytes || bytes > INT64_MAX)
		return -EINVAL;
	if (hugetlb && bytes % HUGE_BYTES == 0)
		fd = fd_create_touched(name, bytes, MFD_HUGETLB | MFD_HUGE_2MB, nr_threads,
				       ret_map);
	if (fd < 0)
		fd = fd_create_touched(name, bytes, 0, nr_threads, ret_map);
	if (fd >= 0 && ret_pages)
		mem_get_pages(fd, *ret_map, bytes, ret_pages);
	return fd;
}

/* Does the kernel give shmem huge pages at all? Then looking is worth while. */
static bool shmem_may_be_huge(void)
{
	static const char *const file[] = {
		"/sys/kernel/mm/transparent_hugepage/shmem_enabled",
		"/sys/kernel/mm/transparent_hugepage/hugepages-2048kB/shmem_enabled",
	};
	char line[128];
	bool may = false;
	FILE *f;

	for (size_t i = 0; i < ARRAY_SIZE(file); i++) {
		f = fopen(file[i], "re");
		if (!f)
			continue;
		/* The choice in force is in brackets: "always [never] ..." */
		if (fgets(line, sizeof(line), f))
			may |= !strstr(line, "[never]") && !strstr(line, "[deny]") &&
			       !strstr(line, "[inherit]");
		fclose(f);
	}
	return may;
}

/* Bytes of [from, to) in huge pages, as /proc/self/smaps tells for whole mappings. */
static uint64_t huge_in_smaps(uintptr_t from, uintptr_t to)
{
	uint64_t start, end, kib, sum = 0;
	bool ours = false;
	char line[512];
	FILE *f = fopen("/proc/self/smaps", "re");

	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &start, &end) == 2) {
			if (start >= to)
				break;
			ours = end > from;
		} else if (ours && (sscanf(line, "ShmemPmdMapped: %" SCNu64, &kib) == 1 ||
				    sscanf(line, "AnonHugePages: %" SCNu64, &kib) == 1)) {
			sum += kib << 10;
		}
	}
	fclose(f);
	return sum;
}

void mem_get_pages(int fd, const void *p, size_t bytes, struct mem_pages *ret_pages)
{
	struct mem_pages pages = { 0 };
	struct statfs fs;

	if (fd >= 0 && !fstatfs(fd, &fs) && fs.f_type == HUGETLBFS_MAGIC)
		pages.hugetlb_bytes = bytes;
	else if (fd < 0 || shmem_may_be_huge())
		pages.thp_bytes = min((uint64_t)bytes,
				      huge_in_smaps((uintptr_t)p, (uintptr_t)p + bytes));
	pages.small_bytes = bytes - pages.hugetlb_bytes - pages.thp_bytes;
	*ret_pages = pages;
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
	int err;
	bool started;
};

static void *populate_thread(void *arg)
{
	struct populate_part *part = arg;

	part->err = touch(part->p, part->bytes);
	return NULL;
}

int mem_populate(void *p, size_t bytes, unsigned nr_threads)
{
	struct populate_part parts[NR_POPULATE] = { 0 };
	size_t step, at = 0;
	unsigned i, nr;
	int err = 0;

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
		if (parts[i].err)
			err = parts[i].err;
	}
	return err;
}
