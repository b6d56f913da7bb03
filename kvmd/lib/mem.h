/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem.h - memory for start-up and for the admin path; never the request path.
 *
 * Everything here can be made to fail (FAULT_ALLOC). mem_big_alloc() is for
 * the daemon's private tables (anonymous, transparent huge pages asked for);
 * mem_fd_create() for what is shared or outlives the process (memfd).
 */
#ifndef KVMD_LIB_MEM_H
#define KVMD_LIB_MEM_H

#include "kvmd/lib/base.h"

void *mem_zalloc(size_t bytes) __must_check;		/* NULL: out of memory */
void *mem_calloc(size_t n, size_t bytes) __must_check;	/* overflow checked */
void *mem_realloc(void *p, size_t bytes) __must_check;
char *mem_strdup(const char *s) __must_check;
void mem_free(void *p);					/* NULL is fine */

bool mem_is_zero(const void *p, size_t bytes);		/* of any 0 bytes: true */

/* Zeroed, page aligned. @populate touches all of it now. NULL: out of memory. */
void *mem_big_alloc(size_t bytes, bool populate) __must_check;
void mem_big_free(void *p, size_t bytes);		/* NULL is fine */

/*
 * A memfd of @bytes (CLOEXEC, sealable) named @name; mapped shared,
 * read-write, into *@ret_map when that is not NULL. @hugetlb tries 2 MiB
 * pages first and falls back. Returns the fd or -errno.
 */
int mem_fd_create(const char *name, uint64_t bytes, bool hugetlb, void **ret_map) __must_check;
/* What pages a mapped range is made of, bytes; the sum is the range. */
struct mem_pages {
	uint64_t hugetlb_bytes;		/* 2 MiB, of the hugetlb pool */
	uint64_t thp_bytes;		/* 2 MiB, transparent, of shmem or anonymous memory */
	uint64_t small_bytes;		/* less, or not touched yet */
};

/*
 * For gigabytes that are used for long: as mem_fd_create(), but mapped at a
 * 2 MiB boundary, all of it touched by up to @nr_threads threads, and with
 * *@ret_pages (may be NULL) what it got: @hugetlb tries the 2 MiB pages of the
 * pool, else the kernel is asked for huge shmem pages, which it may be
 * configured not to give. Takes up to 0.6 s a GiB: not for the core thread.
 * The fd, or -errno (-ENOMEM: also when there are too few pages to touch all).
 */
int mem_fd_create_paged(const char *name, uint64_t bytes, bool hugetlb, unsigned nr_threads,
			void **ret_map, struct mem_pages *ret_pages) __must_check;
/* Map a memfd that there is already as mem_fd_create_paged() maps; touches nothing. 0 or -errno. */
int mem_fd_map(int fd, uint64_t bytes, void **ret_map) __must_check;
/*
 * Look at a range of one mapping of memfd @fd (-1: of anonymous memory). Reads
 * files of the kernel and may walk page tables: not for the core thread.
 */
void mem_get_pages(int fd, const void *p, size_t bytes, struct mem_pages *ret_pages);
/* SHRINK, GROW and SEAL; with @readonly also FUTURE_WRITE. 0 or -errno. */
int mem_fd_seal(int fd, bool readonly) __must_check;
/* Touch a mapped range from up to @nr_threads threads at once. 0, -ENOMEM: not all of it. */
int mem_populate(void *p, size_t bytes, unsigned nr_threads);

#endif
