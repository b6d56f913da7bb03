// SPDX-License-Identifier: Apache-2.0
/*
 * log.c - messages on stderr, one write(2) each.
 *
 * When stderr is the journal (JOURNAL_STREAM names its device and inode) a
 * line starts with <N>, the syslog level of sd-daemon(3); elsewhere with the
 * program's name. The level is atomic because worker threads may log; lines
 * of several threads do not mix.
 */
#include "kvmd/lib/log.h"
#include "kvmd/lib/clock.h"

#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const level_names[NR_LOG_LVL] = {
	[LOG_LVL_ERR]	= "err",
	[LOG_LVL_WARN]	= "warn",
	[LOG_LVL_INFO]	= "info",
	[LOG_LVL_DEBUG]	= "debug",
};

/* syslog(3) priorities: err, warning, info, debug. */
static const int syslog_prio[NR_LOG_LVL] = { 3, 4, 6, 7 };

static int max_level = LOG_LVL_INFO;
static int journal = -1;		/* 1: stderr is the journal; -1: not asked yet */

void log_set_level(enum log_level lvl)
{
	st_rlx(&max_level, (int)lvl);
}

enum log_level log_get_level(void)
{
	return (enum log_level)ld_rlx(&max_level);
}

const char *log_level_name(enum log_level lvl)
{
	return (unsigned)lvl < NR_LOG_LVL ? level_names[lvl] : "?";
}

int log_level_parse(const char *s, enum log_level *ret_lvl)
{
	unsigned i;

	for (i = 0; i < NR_LOG_LVL; i++) {
		if (!strcmp(s, level_names[i])) {
			*ret_lvl = (enum log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

static bool stderr_is_journal(void)
{
	const char *env;
	uint64_t dev, ino;
	struct stat st;
	int is = ld_rlx(&journal);

	if (is >= 0)
		return is;

	env = getenv("JOURNAL_STREAM");
	is = env && sscanf(env, "%" SCNu64 ":%" SCNu64, &dev, &ino) == 2 &&
	     !fstat(STDERR_FILENO, &st) && st.st_dev == dev && st.st_ino == ino;
	st_rlx(&journal, is);
	return is;
}

static int put_prefix(char *buf, size_t bytes, enum log_level lvl)
{
	if (stderr_is_journal())
		return snprintf(buf, bytes, "<%d>", syslog_prio[lvl]);
	if (lvl == LOG_LVL_INFO)
		return snprintf(buf, bytes, "%s: ", program_invocation_short_name);
	return snprintf(buf, bytes, "%s: %s: ", program_invocation_short_name, level_names[lvl]);
}

/*
 * A reader that does not read must not stop the daemon: a line that stderr
 * cannot take at once is lost. (A pipe that polls writable takes 4 KiB whole.)
 */
static void put_line(const char *buf, size_t len)
{
	struct pollfd p = { .fd = STDERR_FILENO, .events = POLLOUT };

	if (poll(&p, 1, 0) != 1 || !(p.revents & POLLOUT))
		return;
	while (write(STDERR_FILENO, buf, len) < 0 && errno == EINTR)
		;
}

void log_msg(enum log_level lvl, const char *fmt, ...)
{
	char buf[1024];
	size_t len;
	va_list ap;
	char *nl;
	int n;

	if ((unsigned)lvl >= NR_LOG_LVL || lvl > log_get_level())
		return;

	n = put_prefix(buf, sizeof(buf) - 1, lvl);
	len = min((size_t)max(n, 0), sizeof(buf) - 2);

	va_start(ap, fmt);
	n = vsnprintf(buf + len, sizeof(buf) - 1 - len, fmt, ap);
	va_end(ap);
	len = min(len + (size_t)max(n, 0), sizeof(buf) - 2);

	/* One line per message, whatever was in an argument. */
	buf[len] = '\0';
	for (nl = strchr(buf, '\n'); nl; nl = strchr(nl, '\n'))
		*nl = ' ';
	buf[len++] = '\n';
	put_line(buf, len);
}

bool log_ratelimited(struct log_ratelimit *rl, uint32_t burst, uint64_t interval_ns)
{
	uint64_t now = clock_ns();

	if (!rl->window_ns || now - rl->window_ns >= interval_ns) {
		rl->window_ns = now;
		rl->nr = 0;
	}
	if (rl->nr >= burst) {
		rl->nr_dropped++;
		return false;
	}
	rl->nr++;
	return true;
}
