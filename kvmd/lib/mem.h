/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem.h - memory for start-up and for the admin path; never the request path.
 *
 * Everything here can be made to fail (FAULT_ALLOC). mem_big_alloc() is for
 * the daemon's private tables (anonymous, transparent huge pages asked for);
 * mem_fd_alloc() for what is shared or outlives the process (memfd).
 */
#ifndef KVMD_LIB_MEM_H
#define KVMD_LIB_MEM_H

#include "kvmd/lib/base.h"

void *mem_zalloc(size_t bytes) __must_check;		/* NULL: out of memory */
void *mem_calloc(size_t n, size_t bytes) __must_check;	/* overflow checked */
void *mem_realloc(void *p, size_t bytes) __must_check;
char *mem_strdup(const char *s) __must_check;
void mem_free(void *p);					/* NULL is fine */

/* Zeroed, page aligned. @populate touches all of it now. NULL: out of memory. */
void *mem_big_alloc(size_t bytes, bool populate) __must_check;
void mem_big_free(void *p, size_t bytes);

/*
 * A memfd of @bytes (CLOEXEC, sealable) named @name; mapped shared,
 * read-write, into *@ret_map when that is not NULL. @hugetlb tries 2 MiB
 * pages first and falls back. Returns the fd or -errno.
 */
int mem_fd_create(const char *name, uint64_t bytes, bool hugetlb, void **ret_map) __must_check;
/* SHRINK, GROW and SEAL; with @readonly also FUTURE_WRITE. 0 or -errno. */
int mem_fd_seal(int fd, bool readonly) __must_check;
/* Touch a mapped range from up to @nr_threads threads at once. */
void mem_populate(void *p, size_t bytes, unsigned nr_threads);

#endif
