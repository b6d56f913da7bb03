// SPDX-License-Identifier: Apache-2.0
/*
 * check_lib_conf.c - options from a file and from assignments.
 */
#include "kvmd/lib/conf.h"
#include "kvmd/lib/fault.h"

#include <check.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/suite.h"

struct pool {
	bool on;
	uint32_t count;
	uint64_t big, bytes, time;
	uint32_t share, mode;
	char *text;
};

struct tenant {
	char name[32];
	uint64_t max;
	char *note;
};

struct all {
	struct pool pool;
	struct tenant tenants[2];
	unsigned nr_tenants;
};

static const char *const modes[] = { "fast", "safe", NULL };

#define POOL(k, t, f, ...) \
	{ .section = "pool", .key = k, .type = t, .offset = offsetof(struct pool, f), __VA_ARGS__ }
#define TENANT(k, t, f, ...) \
	{ .section = "tenant", .key = k, .type = t, .offset = offsetof(struct tenant, f), __VA_ARGS__ }

static const struct conf_opt opts[] = {
	POOL("on", CONF_BOOL, on, .def = "yes"),
	POOL("count", CONF_U32, count, .def = "4", .lo = 1, .hi = 100),
	POOL("big", CONF_U64, big),
	POOL("bytes", CONF_BYTES, bytes, .def = "64M", .lo = 4096),
	POOL("time", CONF_TIME, time, .def = "2s", .hi = 3600000000000),
	POOL("share", CONF_PERMILLE, share, .def = "2%", .hi = 1000),
	POOL("mode", CONF_ENUM, mode, .words = modes, .def = "safe"),
	POOL("text", CONF_STR, text, .def = "none"),
	TENANT("max", CONF_BYTES, max),
	TENANT("note", CONF_STR, note),
};

static void *resolve(void *ctx, const char *section, const char *name, char *msg, size_t bytes);

static const struct conf_table table = {
	.opts = opts,
	.nr_opts = ARRAY_SIZE(opts),
	.resolve = resolve,
};

static struct all all;
static char msg[512];

static void *resolve(void *ctx, const char *section, const char *name, char *why, size_t bytes)
{
	struct all *a = ctx;
	unsigned i;

	if (!strcmp(section, "pool"))
		return name ? NULL : &a->pool;
	if (!name)
		return NULL;
	for (i = 0; i < a->nr_tenants; i++) {
		if (!strcmp(a->tenants[i].name, name))
			return &a->tenants[i];
	}
	if (i == ARRAY_SIZE(a->tenants)) {
		snprintf(why, bytes, "no room for tenant '%s': at most %u", name, i);
		return NULL;
	}
	snprintf(a->tenants[i].name, sizeof(a->tenants[i].name), "%s", name);
	if (conf_defaults(&table, "tenant", &a->tenants[i]))
		return NULL;
	a->nr_tenants++;
	return &a->tenants[i];
}

static void reset(void)
{
	memset(&all, 0, sizeof(all));
	msg[0] = '\0';
	ck_assert_int_eq(conf_defaults(&table, "pool", &all.pool), 0);
}

static void release(void)
{
	unsigned i;

	conf_release(&table, "pool", &all.pool);
	for (i = 0; i < all.nr_tenants; i++)
		conf_release(&table, "tenant", &all.tenants[i]);
}

/* Load @text from a file; what stands before the first ':' of msg is cut off. */
static int load(const char *text)
{
	const char *tmp = getenv("TMPDIR");
	char in[256];
	size_t len = strlen(text);
	int fd, err;

	snprintf(in, sizeof(in), "%s/check_conf.XXXXXX", tmp ? tmp : "/tmp");
	fd = mkstemp(in);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, len), (ssize_t)len);
	close(fd);
	err = conf_load(&table, &all, in, msg, sizeof(msg));
	unlink(in);
	if (!strncmp(msg, in, strlen(in)))
		memmove(msg, msg + strlen(in) + 1, strlen(msg) - strlen(in));
	return err;
}

START_TEST(defaults)
{
	reset();
	ck_assert(all.pool.on);
	ck_assert_uint_eq(all.pool.count, 4);
	ck_assert_uint_eq(all.pool.big, 0);
	ck_assert_uint_eq(all.pool.bytes, 64 << 20);
	ck_assert_uint_eq(all.pool.time, 2000000000);
	ck_assert_uint_eq(all.pool.share, 20);
	ck_assert_uint_eq(all.pool.mode, 1);
	ck_assert_str_eq(all.pool.text, "none");
	release();
	ck_assert_ptr_null(all.pool.text);
}
END_TEST

START_TEST(a_whole_file)
{
	reset();
	ck_assert_int_eq(load("; a comment\n"
			      "# another, longer than a line may be: "
			      "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
			      "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
			      "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n"
			      "[pool]\n"
			      "on = off ; behind a value\n"
			      "\tcount=7\n"
			      "    big = 18446744073709551615\n"
			      "bytes: 1.5 GiB\n"
			      "time = 250ms\n"
			      "share = 12.5%\n"
			      "mode = fast\n"
			      "text = two words\n"
			      "\n"
			      "[tenant alice]\n"
			      "max = 8K\n"
			      "note = n\n"
			      "[tenant bob]\n"), 0);
	ck_assert_str_eq(msg, "");
	ck_assert(!all.pool.on);
	ck_assert_uint_eq(all.pool.count, 7);
	ck_assert_uint_eq(all.pool.big, UINT64_MAX);
	ck_assert_uint_eq(all.pool.bytes, 3ULL << 29);
	ck_assert_uint_eq(all.pool.time, 250000000);
	ck_assert_uint_eq(all.pool.share, 125);
	ck_assert_uint_eq(all.pool.mode, 0);
	ck_assert_str_eq(all.pool.text, "two words");
	/* A section without a key exists, too. */
	ck_assert_uint_eq(all.nr_tenants, 2);
	ck_assert_str_eq(all.tenants[0].name, "alice");
	ck_assert_uint_eq(all.tenants[0].max, 8192);
	ck_assert_str_eq(all.tenants[1].name, "bob");
	release();
}
END_TEST

static const struct { const char *text, *said; } bad_files[] = {
	{ "[pool]\ncount 4\n", "2: expected '[section]' or 'key = value'" },
	{ "[pool]\n\n[pool\n", "3: expected '[section]' or 'key = value'" },
	{ "count = 4\n", "1: 'count' stands before the first [section]" },
	{ "[pol]\ncount = 4\n", "1: unknown section 'pol' (known: pool, tenant)" },
	{ "[pool x]\n", "1: section [pool x] takes no name" },
	{ "[tenant]\n", "1: section [tenant] needs a name" },
	{ "[tenant a]\n[tenant b]\n[tenant c]\n", "3: no room for tenant 'c': at most 2" },
	{ "[pool]\ncuont = 4\n", "2: unknown key 'cuont' in [pool] "
	  "(known: on, count, big, bytes, time, share, mode, text)" },
	{ "[tenant a]\ncount = 4\n", "2: unknown key 'count' in [tenant] (known: max, note)" },
	{ "[pool]\ncount = 4\non = yes\ncount = 5\n",
	  "4: count is given twice (first on line 2)" },
	{ "[pool]\non = maybe\n", "2: on: 'maybe' is not yes or no" },
	{ "[pool]\ncount = four\n", "2: count: 'four' is not a whole number" },
	{ "[pool]\ncount = 1.5\n", "2: count: '1.5' is not a whole number" },
	{ "[pool]\ncount =\n", "2: count: '' is not a whole number" },
	{ "[pool]\ncount = -1\n", "2: count: '-1' is not a whole number" },
	{ "[pool]\ncount = 0\n", "2: count: 0 is out of range: from 1 to 100" },
	{ "[pool]\ncount = 101\n", "2: count: 101 is out of range: from 1 to 100" },
	{ "[pool]\nbytes = 64Q\n", "2: bytes: '64Q' is not bytes, as 65536, 64K or 64KiB" },
	{ "[pool]\nbytes = 0.5\n", "2: bytes: '0.5' is not bytes, as 65536, 64K or 64KiB" },
	{ "[pool]\nbytes = 1\n", "2: bytes: 1 is out of range: at least 4K" },
	{ "[pool]\ntime = soon\n", "2: time: 'soon' is not a time, as 10, 500ms or 2min" },
	{ "[pool]\ntime = 2h\n", "2: time: 2h is out of range: from 0ns to 1h" },
	{ "[pool]\nshare = 2.55%\n", "2: share: '2.55%' is not a share, as 2.5% or 25 (permille)" },
	{ "[pool]\nshare = 101%\n", "2: share: 101% is out of range: from 0% to 100%" },
	{ "[pool]\nmode = slow\n", "2: mode: 'slow' is none of fast, safe" },
	{ "[pool]\nbig = 18446744073709551616\n",
	  "2: big: 18446744073709551616 is out of range: at least 0 "
	  "and below 2^64 (2^32 for small numbers)" },
	/* The first error is the one that is told. */
	{ "[pool]\ncount\non = maybe\n", "2: expected '[section]' or 'key = value'" },
	{ "[pool]\non = maybe\ncount\n", "2: on: 'maybe' is not yes or no" },
};

START_TEST(bad_lines_are_named)
{
	size_t i;
	int err;

	for (i = 0; i < ARRAY_SIZE(bad_files); i++) {
		reset();
		err = load(bad_files[i].text);
		ck_assert_msg(err == -EINVAL, "%s: %d", bad_files[i].text, err);
		ck_assert_str_eq(msg, bad_files[i].said);
		release();
	}
}
END_TEST

START_TEST(long_lines_and_names_are_refused)
{
	char text[400], xs[301];

	memset(xs, 'x', 300);
	xs[300] = '\0';
	reset();
	snprintf(text, sizeof(text), "[pool]\ntext = %s\non = no\n", xs);
	ck_assert_int_eq(load(text), -EINVAL);
	ck_assert_msg(strstr(msg, "2: a line has at most ") == msg, "%s", msg);
	release();
	reset();
	snprintf(text, sizeof(text), "[tenant %.60s]\n", xs);
	ck_assert_int_eq(load(text), -EINVAL);
	ck_assert_str_eq(msg, "1: a section's name has at most 49 characters");
	release();
}
END_TEST

START_TEST(files_that_cannot_be_read)
{
	reset();
	ck_assert_int_eq(conf_load(&table, &all, "/nonexistent/kvmd.conf", msg, sizeof(msg)),
			 -ENOENT);
	ck_assert_str_eq(msg, "/nonexistent/kvmd.conf: No such file or directory");
	ck_assert_int_lt(conf_load(&table, &all, "/", msg, sizeof(msg)), 0);
	ck_assert_int_eq(strncmp(msg, "/: ", 3), 0);
	release();
}
END_TEST

START_TEST(assignments)
{
	static const struct { const char *text, *said; } bad[] = {
		{ "pool.count", "'pool.count' is not SECTION.KEY=VALUE" },
		{ "count=4", "'count=4' is not SECTION.KEY=VALUE" },
		{ "pol.count=4", "unknown section 'pol' (known: pool, tenant)" },
		{ "pool.x=4", "unknown key 'x' in [pool] "
		  "(known: on, count, big, bytes, time, share, mode, text)" },
		{ "pool.count=x", "count: 'x' is not a whole number" },
		{ "tenant.max=4", "section [tenant] needs a name" },
		{ "pool.a.count=4", "section [pool a] takes no name" },
	};
	size_t i;

	reset();
	ck_assert_int_eq(conf_set(&table, &all, "pool.count=9", msg, sizeof(msg)), 0);
	ck_assert_uint_eq(all.pool.count, 9);
	ck_assert_int_eq(conf_set(&table, &all, "pool.text=a=b.c", msg, sizeof(msg)), 0);
	ck_assert_str_eq(all.pool.text, "a=b.c");
	ck_assert_int_eq(conf_set(&table, &all, "tenant.a.b.max=1M", msg, sizeof(msg)), 0);
	ck_assert_str_eq(all.tenants[0].name, "a.b");
	ck_assert_uint_eq(all.tenants[0].max, 1 << 20);
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		ck_assert_int_eq(conf_set(&table, &all, bad[i].text, msg, sizeof(msg)), -EINVAL);
		ck_assert_str_eq(msg, bad[i].said);
	}
	release();
}
END_TEST

START_TEST(format_is_what_a_file_would_say)
{
	static const char *const want[] = { "yes", "4", "0", "64M", "2s", "2%", "safe", "none" };
	char buf[64], again[128];
	size_t i;

	reset();
	for (i = 0; i < ARRAY_SIZE(want); i++) {
		conf_format(&opts[i], &all.pool, buf, sizeof(buf));
		ck_assert_str_eq(buf, want[i]);
		snprintf(again, sizeof(again), "pool.%s=%s", opts[i].key, buf);
		ck_assert_int_eq(conf_set(&table, &all, again, msg, sizeof(msg)), 0);
	}
	all.pool.bytes = 4097;
	conf_format(&opts[3], &all.pool, buf, sizeof(buf));
	ck_assert_str_eq(buf, "4097");
	all.pool.time = 1500000;
	conf_format(&opts[4], &all.pool, buf, sizeof(buf));
	ck_assert_str_eq(buf, "1500us");
	all.pool.share = 125;
	conf_format(&opts[5], &all.pool, buf, sizeof(buf));
	ck_assert_str_eq(buf, "12.5%");
	release();
}
END_TEST

START_TEST(parsers)
{
	uint64_t v = 77;

	ck_assert_int_eq(conf_parse_bytes("3TiB", &v), 0);
	ck_assert_uint_eq(v, 3ULL << 40);
	ck_assert_int_eq(conf_parse_time("0.25s", &v), 0);
	ck_assert_uint_eq(v, 250000000);
	ck_assert_int_eq(conf_parse_time("90", &v), 0);
	ck_assert_uint_eq(v, 90000000000);
	ck_assert_int_eq(conf_parse_u64("12", &v), 0);
	ck_assert_uint_eq(v, 12);
	ck_assert_int_eq(conf_parse_bytes("99999999T", &v), -ERANGE);
	ck_assert_int_eq(conf_parse_u64("", &v), -EINVAL);
	ck_assert_int_eq(conf_parse_u64("0x10", &v), -EINVAL);
	ck_assert_int_eq(conf_parse_u64("1 2", &v), -EINVAL);
	ck_assert_uint_eq(v, 12);
}
END_TEST

START_TEST(no_memory_for_a_text)
{
	reset();
	ck_assert_int_eq(fault_arm("alloc:every=1", NULL, 0), 0);
	ck_assert_int_eq(conf_set(&table, &all, "pool.text=x", msg, sizeof(msg)), -ENOMEM);
	ck_assert_str_eq(msg, "out of memory");
	ck_assert_int_eq(load("[pool]\non = yes\n"), -ENOMEM);
	ck_assert_str_eq(msg, "2: out of memory");
	fault_disarm();
	ck_assert_str_eq(all.pool.text, "none");
	release();
}
END_TEST

static void add(Suite *s, const char *behaviour, const TTest *test)
{
	suite_test(s, behaviour, test, NULL, NULL);
}

int main(void)
{
	Suite *s = suite_create("lib_conf");

	add(s, "defaults", defaults);
	add(s, "a whole file", a_whole_file);
	add(s, "bad lines are named", bad_lines_are_named);
	add(s, "long lines and names are refused", long_lines_and_names_are_refused);
	add(s, "files that cannot be read", files_that_cannot_be_read);
	add(s, "assignments", assignments);
	add(s, "format is what a file would say", format_is_what_a_file_would_say);
	add(s, "parsers", parsers);
	add(s, "no memory for a text", no_memory_for_a_text);

	return suite_run(s);
}
