// SPDX-License-Identifier: Apache-2.0
/*
 * check_lib_log.c - levels, lines, the rate limit, and the clocks.
 */
#include "kvmd/lib/clock.h"
#include "kvmd/lib/log.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/suite.h"

static int saved_stderr;
static FILE *said;

static void capture(void)
{
	said = tmpfile();
	ck_assert_ptr_nonnull(said);
	saved_stderr = dup(STDERR_FILENO);
	dup2(fileno(said), STDERR_FILENO);
}

static void captured(char *buf, size_t bytes)
{
	size_t n;

	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	rewind(said);
	n = fread(buf, 1, bytes - 1, said);
	buf[n] = '\0';
	fclose(said);
}

START_TEST(levels_have_names)
{
	enum log_level lvl;
	unsigned i;

	for (i = 0; i < NR_LOG_LVL; i++) {
		ck_assert_int_eq(log_level_parse(log_level_name((enum log_level)i), &lvl), 0);
		ck_assert_uint_eq((unsigned)lvl, i);
	}
	ck_assert_int_eq(log_level_parse("loud", &lvl), -EINVAL);
	ck_assert_str_eq(log_level_name(NR_LOG_LVL), "?");
}
END_TEST

START_TEST(level_decides_and_lines_stay_lines)
{
	char buf[4096], want[256];

	unsetenv("JOURNAL_STREAM");
	capture();
	log_info("one %d", 1);
	log_debug("not this");
	log_set_level(LOG_LVL_ERR);
	log_warn("nor this");
	log_err("two\nlines");
	captured(buf, sizeof(buf));
	ck_assert_uint_eq((unsigned)log_get_level(), LOG_LVL_ERR);
	snprintf(want, sizeof(want), "%s: one 1\n%s: err: two lines\n",
		 program_invocation_short_name, program_invocation_short_name);
	ck_assert_str_eq(buf, want);
}
END_TEST

START_TEST(the_journal_gets_numbers)
{
	char buf[256], env[64];
	struct stat st;

	capture();
	ck_assert_int_eq(fstat(STDERR_FILENO, &st), 0);
	snprintf(env, sizeof(env), "%lu:%lu", (unsigned long)st.st_dev, (unsigned long)st.st_ino);
	setenv("JOURNAL_STREAM", env, 1);
	log_err("a");
	log_warn("b");
	log_info("c");
	captured(buf, sizeof(buf));
	ck_assert_str_eq(buf, "<3>a\n<4>b\n<6>c\n");
}
END_TEST

START_TEST(a_long_message_is_cut)
{
	char text[3000], buf[4096];

	unsetenv("JOURNAL_STREAM");
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	capture();
	log_info("%s", text);
	captured(buf, sizeof(buf));
	ck_assert_uint_eq(strlen(buf), 1023);
	ck_assert_int_eq(buf[1022], '\n');
}
END_TEST

START_TEST(nobody_reads_and_nobody_waits)
{
	char fill[4096] = { 0 };
	int p[2], saved = dup(STDERR_FILENO);

	ck_assert_int_eq(pipe2(p, O_NONBLOCK), 0);
	while (write(p[1], fill, sizeof(fill)) > 0)
		;
	fcntl(p[1], F_SETFL, 0);	/* full, and a write would wait */
	dup2(p[1], STDERR_FILENO);
	log_err("lost");
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(p[0]);
	close(p[1]);
}
END_TEST

START_TEST(the_rate_limit_counts_what_it_drops)
{
	struct log_ratelimit rl = { 0 };
	unsigned i, nr = 0;

	for (i = 0; i < 10; i++)
		nr += log_ratelimited(&rl, 3, UINT64_MAX);
	ck_assert_uint_eq(nr, 3);
	ck_assert_uint_eq(rl.nr_dropped, 7);
	/* An interval of no length is over each time. */
	ck_assert(log_ratelimited(&rl, 1, 0));
	ck_assert(log_ratelimited(&rl, 1, 0));
}
END_TEST

START_TEST(clocks_go_forward_and_the_driven_one_stands)
{
	uint64_t a = clock_ns(), p = clock_policy_ns();

	ck_assert_uint_ge(clock_ns(), a);
	ck_assert(!clock_policy_is_driven());
	ck_assert_uint_ge(clock_policy_ns(), p);
	clock_policy_drive(5000);
	ck_assert(clock_policy_is_driven());
	ck_assert_uint_eq(clock_policy_ns(), 5000);
	clock_policy_drive(4000);
	ck_assert_uint_eq(clock_policy_ns(), 5000);
	clock_policy_drive(6000);
	ck_assert_uint_eq(clock_policy_ns(), 6000);
	ck_assert_uint_gt(clock_ticks_per_us(), 0);
	ck_assert_uint_eq(clock_ticks_per_us(), clock_ticks_per_us());
}
END_TEST

static void add(Suite *s, const char *behaviour, const TTest *test)
{
	suite_test(s, behaviour, test, NULL, NULL);
}

int main(void)
{
	Suite *s = suite_create("lib_log");

	add(s, "levels have names", levels_have_names);
	add(s, "level decides and lines stay lines", level_decides_and_lines_stay_lines);
	add(s, "the journal gets numbers", the_journal_gets_numbers);
	add(s, "a long message is cut", a_long_message_is_cut);
	add(s, "nobody reads and nobody waits", nobody_reads_and_nobody_waits);
	add(s, "the rate limit counts what it drops", the_rate_limit_counts_what_it_drops);
	add(s, "clocks go forward and the driven one stands", clocks_go_forward_and_the_driven_one_stands);

	return suite_run(s);
}
