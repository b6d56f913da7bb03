/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log.h - one line per message on stderr, with <N> levels when a journal reads.
 *
 * Only svc/ and main.c log: rooms below return errors. Messages are lower
 * case, one greppable line, and name the thing and the remedy.
 */
#ifndef KVMD_LIB_LOG_H
#define KVMD_LIB_LOG_H

#include "kvmd/lib/base.h"

enum log_level { LOG_LVL_ERR, LOG_LVL_WARN, LOG_LVL_INFO, LOG_LVL_DEBUG, NR_LOG_LVL };

/* Highest level that is printed (default LOG_LVL_INFO). */
void log_set_level(enum log_level lvl);
enum log_level log_get_level(void);
const char *log_level_name(enum log_level lvl);
/* "err", "warn", "info", "debug"; -EINVAL for another word. */
int log_level_parse(const char *s, enum log_level *ret_lvl);

void log_msg(enum log_level lvl, const char *fmt, ...) __printf(2, 3);

#define log_err(...)	log_msg(LOG_LVL_ERR, __VA_ARGS__)
#define log_warn(...)	log_msg(LOG_LVL_WARN, __VA_ARGS__)
#define log_info(...)	log_msg(LOG_LVL_INFO, __VA_ARGS__)
#define log_debug(...)	log_msg(LOG_LVL_DEBUG, __VA_ARGS__)

/*
 * True at most @burst times per @interval_ns for one state: for messages a
 * client can provoke. @rl starts zeroed and belongs to the call site.
 */
struct log_ratelimit {
	uint64_t window_ns;	/* start of the current interval */
	uint32_t nr;		/* messages let through in it */
	uint32_t nr_dropped;	/* suppressed since the last one let through */
};
bool log_ratelimited(struct log_ratelimit *rl, uint32_t burst, uint64_t interval_ns);

#endif
