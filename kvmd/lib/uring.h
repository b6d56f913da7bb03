/* SPDX-License-Identifier: Apache-2.0 */
/*
 * uring.h - the daemon's one wait point, over liburing.
 *
 * One io_uring per daemon, core thread only (SINGLE_ISSUER + COOP_TASKRUN with
 * TASKRUN_FLAG where the kernel has them, else less). Every request is a
 * struct uring_req owned by the caller until its done() runs; done() gets the
 * CQE's res. uring_poll() costs no system call when nothing happened.
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
void uring_destroy(struct uring *u);

/* One-shot poll: done(res = revents or -errno). 0 or -errno (queue full). */
int uring_poll_fd(struct uring *u, struct uring_req *r, int fd, unsigned events);
/* read(2) of @bytes into @buf (eventfds): done(res = bytes or -errno). */
int uring_read(struct uring *u, struct uring_req *r, int fd, void *buf, unsigned bytes);
/* Ask for the end of @r; its done() still runs, with -ECANCELED or its result. */
void uring_cancel(struct uring *u, struct uring_req *r);

/* Submit what is queued, run done() of what is finished; never blocks; count. */
unsigned uring_poll(struct uring *u);
/* As uring_poll(), but waits for one completion or @timeout_ns (UINT64_MAX: no limit). */
unsigned uring_wait(struct uring *u, uint64_t timeout_ns);

#endif
