/* SPDX-License-Identifier: Apache-2.0 */
/*
 * opts.h - between opts.c, which reads the command line, and opts_check.c, which says
 * what of it makes no sense.
 */
#ifndef KVINFER_OPTS_H
#define KVINFER_OPTS_H

#include "tools/kvinfer/kvinfer.h"

extern const char *const ki_dtype_words[], *const ki_role_words[];	/* by their enum */

/* Usage: says what is wrong and ends the process with 2. */
void ki_usage(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));
/* Was --@name on the command line? */
bool ki_opts_given(const char *name);
/* Refuses what does not go together. */
void ki_opts_check(const struct ki_opts *o);

#endif
