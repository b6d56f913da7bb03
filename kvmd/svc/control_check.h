/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_check.h - the pure check of control messages.
 */
#ifndef KVMD_SVC_CONTROL_CHECK_H
#define KVMD_SVC_CONTROL_CHECK_H

#include "kvmd/lib/base.h"
#include "kvmd/wire.h"

/*
 * Is the message of @bytes at @m (8-byte aligned private copy) one that a
 * client may send? 0; -EINVAL or -EPROTO with what is wrong in @msg.
 */
int control_check(const void *m, size_t bytes, char *msg, size_t msg_bytes);

const char *control_name(unsigned type);	/* "hello", ..., "?" */

#endif
