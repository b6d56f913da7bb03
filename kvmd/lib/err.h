/* SPDX-License-Identifier: Apache-2.0 */
/*
 * err.h - an error together with the text that says what was wrong.
 *
 * Lower rooms do not log: they hand a text up in a buffer of the caller's. Any
 * thread.
 */
#ifndef KVMD_LIB_ERR_H
#define KVMD_LIB_ERR_H

#include "kvmd/lib/base.h"

/* Puts the text into @msg (NULL: nobody wants it) and returns @err. */
int err_text(int err, char *msg, size_t msg_bytes, const char *fmt, ...) __printf(4, 5);

#endif
