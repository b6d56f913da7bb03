// SPDX-License-Identifier: Apache-2.0
/*
 * check_conf.c - broken configuration text: an error with a line, never worse.
 *
 * Good text is damaged at random (bytes, lines, lengths) and loaded. The seed
 * is printed; KVMD_FUZZ_SEED repeats it, KVMD_FUZZ_RUNS sets how many.
 */
#include "kvmd/lib/clock.h"
#include "kvmd/lib/conf.h"
#include "kvmd/lib/mem.h"

#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/quiet.h"

#define TEXT_BYTES	2048

struct section {
	bool on;
	uint32_t count, share, mode;
	uint64_t bytes, time;
	char *text;
};

static const char *const modes[] = { "fast", "safe", NULL };

#define OPT(s, k, t, f, ...) \
	{ .section = s, .key = k, .type = t, .offset = offsetof(struct section, f), __VA_ARGS__ }

static const struct conf_opt opts[] = {
	OPT("pool", "on", CONF_BOOL, on),
	OPT("pool", "count", CONF_U32, count, .lo = 1, .hi = 100),
	OPT("pool", "bytes", CONF_BYTES, bytes),
	OPT("pool", "share", CONF_PERMILLE, share, .hi = 1000),
	OPT("tenant", "time", CONF_TIME, time),
	OPT("tenant", "mode", CONF_ENUM, mode, .words = modes),
	OPT("tenant", "text", CONF_STR, text),
};

static const char good[] =
	"# comment\n[pool]\non = yes\ncount = 7 ; seven\nbytes = 1.5GiB\nshare = 2.5%\n"
	"[tenant alice]\ntime: 250 ms\nmode = fast\ntext = a b c\n[tenant bob]\ntext=\n";

static uint64_t rng;

static uint64_t rnd(uint64_t below)
{
	rng ^= rng << 13;	/* xorshift64 (Marsaglia 2003) */
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng % below;
}

static void *resolve(void *ctx, const char *section, const char *name, char *msg, size_t bytes)
{
	struct section *s = ctx;

	if (name && strlen(name) > 20) {
		snprintf(msg, bytes, "name '%s' is too long", name);
		return NULL;
	}
	return strcmp(section, "pool") ? &s[1] : &s[0];
}

static size_t damage(char *text, size_t len)
{
	size_t at, n;
	unsigned i, nr = 1 + (unsigned)rnd(4);

	for (i = 0; i < nr && len; i++) {
		at = rnd(len);
		n = min((size_t)rnd(rnd(8) ? 4 : 400), len - at);
		switch (rnd(4)) {
		case 0:
			text[at] = (char)rnd(256);
			break;
		case 1:
			text[at] = "[]=:;#\n\r \t.%-\0\"9"[rnd(16)];
			break;
		case 2:
			memmove(text + at, text + at + n, len - at - n);
			len -= n;
			break;
		default:
			n = min(n, TEXT_BYTES - len);
			memmove(text + at + n, text + at, len - at);
			len += n;
			break;
		}
	}
	return len;
}

static uint64_t from_env(const char *name, uint64_t def)
{
	const char *s = getenv(name);
	uint64_t v;

	return s && !conf_parse_u64(s, &v) && v ? v : def;
}

START_TEST(damaged_files_are_refused_with_their_line)
{
	static const struct conf_table table = { opts, ARRAY_SIZE(opts), resolve };
	uint64_t seed = from_env("KVMD_FUZZ_SEED", clock_ns() | 1);
	uint64_t runs = from_env("KVMD_FUZZ_RUNS", 200000) / 10 + 1, i;
	char text[TEXT_BYTES], path[64], msg[512];
	struct section s[2];
	size_t len;
	int fd, err;

	rng = seed;
	printf("seed %" PRIu64 "\n", seed);
	fd = mem_fd_create("conf", 1, false, NULL);
	ck_assert_int_ge(fd, 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	for (i = 0; i < runs; i++) {
		memcpy(text, good, sizeof(good) - 1);
		len = i ? damage(text, sizeof(good) - 1) : sizeof(good) - 1;
		quiet_assert_int_eq(ftruncate(fd, (off_t)len), 0);
		quiet_assert_int_eq(pwrite(fd, text, len, 0), (ssize_t)len);
		memset(s, 0, sizeof(s));
		msg[0] = '\0';
		err = conf_load(&table, s, path, msg, sizeof(msg));
		quiet_assert(err == 0 || err == -EINVAL);
		quiet_assert_msg(err || i, "%s", msg);
		/* An error names the file and a line; success says nothing. */
		quiet_assert(!err == !msg[0]);
		quiet_assert(!err || !strncmp(msg, path, strlen(path)));
		quiet_assert(!err || strtoul(msg + strlen(path) + 1, NULL, 10) > 0);
		conf_release(&table, "tenant", &s[1]);
	}
	close(fd);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("fuzz_conf");
	TCase *tc = tcase_create("conf");
	SRunner *sr;
	int nr_failed;

	tcase_set_timeout(tc, 0);	/* as long as KVMD_FUZZ_RUNS asks for */
	tcase_add_test(tc, damaged_files_are_refused_with_their_line);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	nr_failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return nr_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
