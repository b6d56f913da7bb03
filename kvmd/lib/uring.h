/* SPDX-License-Identifier: Apache-2.0 */
/*
 * uring.h - the daemon's one wait point, over liburing.
 *
 * One io_uring per daemon, for the thread that made it (SINGLE_ISSUER and
 * DEFER_TASKRUN with TASKRUN_FLAG where the kernel has them, else less). Every
 * request is a struct uring_req owned by the caller until its done() runs;
 * done() gets the CQE's res. uring_poll() costs no system call when nothing
 * happened.
 */
#ifndef KVMD_LIB_URING_H
#define KVMD_LIB_URING_H

#include "kvmd/lib/base.h"

struct uring_req {
	void (*done)(struct uring_req *r, int res);
	bool armed;			/* submitted, done() still to come */
};

struct uring;

int uring_create(unsigned entries, struct uring **ret_u) __must_check;
/*
 * What is armed gets no done(). Reads and writes of files must be over before:
 * the kernel ends them in its own time, their memory is not free until then.
 */
void uring_destroy(struct uring *u);

/* One-shot poll: done(res = revents or -errno). 0 or -errno (queue full). */
int uring_poll_fd(struct uring *u, struct uring_req *r, int fd, unsigned events);
/* read(2) of @bytes into @buf (eventfds): done(res = bytes or -errno). */
int uring_read(struct uring *u, struct uring_req *r, int fd, void *buf, unsigned bytes);
/*
 * Fixed buffers and files, for O_DIRECT. A table of @nr buffers, empty at first;
 * set gives place @idx a range (NULL: empties it), which the kernel pins: about
 * 25 ms a GiB of 4 KiB pages, 3 ms of 2 MiB pages; at most 1 GiB. 0 or -errno
 * (-ENOMEM: RLIMIT_MEMLOCK). A kernel without sparse tables (before 5.19) gives
 * -EINVAL at init: then there are no fixed buffers, and reads and writes take -1.
 */
int uring_buffers_init(struct uring *u, unsigned nr);
int uring_buffer_set(struct uring *u, unsigned idx, void *p, size_t bytes);
int uring_files_init(struct uring *u, unsigned nr);
int uring_file_set(struct uring *u, unsigned idx, int fd);	/* -1: empties it */

/*
 * @bytes at @off of fixed file @file, from or to @p inside fixed buffer @buf
 * (-1: plain memory). done(res = bytes or -errno); short counts are the
 * caller's. 0 or -errno (queue full).
 */
int uring_pread(struct uring *u, struct uring_req *r, unsigned file, int buf, void *p,
		unsigned bytes, uint64_t off);
int uring_pwrite(struct uring *u, struct uring_req *r, unsigned file, int buf, const void *p,
		 unsigned bytes, uint64_t off);
int uring_fdatasync(struct uring *u, struct uring_req *r, unsigned file);
/* Hand what is queued to the kernel now. */
void uring_flush(struct uring *u);

/* Ask for the end of @r; its done() still runs, with -ECANCELED or its result. */
void uring_cancel(struct uring *u, struct uring_req *r);

/* Submit what is queued, run done() of what is finished; never blocks; count. */
unsigned uring_poll(struct uring *u);
/* As uring_poll(), but waits for one completion or @timeout_ns (UINT64_MAX: no limit). */
unsigned uring_wait(struct uring *u, uint64_t timeout_ns);

#endif
