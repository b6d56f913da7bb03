/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fdstore.h - file descriptors that outlive the process, and sd_notify(3).
 *
 * A supervisor (systemd with FileDescriptorStoreMax=, or kvkeeper(8)) listens on
 * the datagram socket that $NOTIFY_SOCKET names. What is added there by name is
 * kept when this process ends and comes back to the next one, from descriptor 3
 * on (sd_listen_fds(3)). The protocol is a few lines of text; no library is used.
 *
 * One supervisor per process, so the state is the process's own. Without
 * $NOTIFY_SOCKET there is none: fdstore_present() says so and the calls that
 * tell it something succeed and do nothing.
 *
 * Names are unique here: fdstore_add() of a name that is kept puts the new
 * descriptor in its place. kvkeeper(8) does so by itself; systemd would keep
 * both, so that fdstore_del() comes first there (fdstore_add() does not know
 * who listens; it never sends a removal by itself).
 *
 * Messages are single system calls on a socket that does not change: any thread
 * may send after fdstore_open(). A message waits for room in the supervisor's
 * queue, at most FDSTORE_WAIT_MS: a supervisor that reads is never waited for
 * noticeably, but a burst of hundreds belongs to the start or to a worker.
 */
#ifndef KVMD_LIB_FDSTORE_H
#define KVMD_LIB_FDSTORE_H

#include "kvmd/lib/base.h"

#define FDSTORE_NAME_BYTES	256u	/* of a name, with its NUL */
#define FDSTORE_WAIT_MS		1000
#define FDSTORE_FIRST_FD	3	/* where descriptors that were kept begin */

/* Look for $NOTIFY_SOCKET (a path, or '@' and an abstract name), which is unset. 0 or -errno. */
int fdstore_open(void);
void fdstore_close(void);
bool fdstore_present(void);

/* Each 0 or -errno; -EAGAIN: the supervisor did not read for FDSTORE_WAIT_MS. */
int fdstore_ready(void);			/* READY=1 */
int fdstore_stopping(void);			/* STOPPING=1 */
int fdstore_status(const char *text);		/* one line for the supervisor's user */
/* Keep a duplicate of @fd as @name (-EINVAL: a name that cannot be). @fd stays the caller's. */
int fdstore_add(const char *name, int fd);
int fdstore_del(const char *name);		/* and close it there */

/* 1 to 255 printable ASCII characters, no ':'. */
bool fdstore_name_ok(const char *name);

/*
 * Hand the descriptors that were kept for this process to @take, which owns them
 * then, close-on-exec set. The environment is cleared: a second call finds none.
 * A descriptor without a name is called "stored", as sd_listen_fds_with_names(3)
 * does. Returns how many, 0 when there are none, -EINVAL: an environment that
 * makes no sense (nothing was taken), -EBADF: one of them is not open (those
 * before it were taken). Once, before anything is executed.
 */
int fdstore_take(void (*take)(void *arg, const char *name, int fd), void *arg);

#endif
