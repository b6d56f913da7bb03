/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sock.h - make a listening Unix socket that is nobody else's.
 */
#ifndef KVMD_SVC_SOCK_H
#define KVMD_SVC_SOCK_H

#include "kvmd/lib/base.h"

/*
 * Listen on @path ("@name": abstract) with @type and permissions @mode. A stale
 * socket file is replaced, a live one is -EADDRINUSE. Errors are logged with
 * the remedy. Returns the fd, non-blocking, CLOEXEC.
 */
int sock_listen(const char *path, int type, uint32_t mode);

#endif
