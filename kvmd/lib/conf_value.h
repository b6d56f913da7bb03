/* SPDX-License-Identifier: Apache-2.0 */
/*
 * conf_value.h - between conf.c and conf_value.c; nobody else includes it.
 */
#ifndef KVMD_LIB_CONF_VALUE_H
#define KVMD_LIB_CONF_VALUE_H

#include "kvmd/lib/conf.h"

/* Parse @s as @o says and store it in @base: 0, -EINVAL, -ERANGE or -ENOMEM. */
int conf_set_value(const struct conf_opt *o, void *base, const char *s);
/* Why conf_set_value() returned @err, and what would be right. */
void conf_explain_value(const struct conf_opt *o, const char *s, int err, char *buf, size_t bytes);
/* snprintf(3) behind the text that @buf holds. */
void conf_append(char *buf, size_t bytes, const char *fmt, ...) __printf(3, 4);

#endif
