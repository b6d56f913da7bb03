// SPDX-License-Identifier: Apache-2.0
/*
 * check_trace_parse.c - the trace reader of kvtrace.
 *
 * Traces are memfds, read by their /proc path: nothing is left behind.
 */
#include <check.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kvmd/lib/fault.h"
#include "tools/kvtrace/trace.h"
#include "tests/suite.h"

#define GOOD	"{\"timestamp\":5,\"input_length\":1024,\"output_length\":7,\"hash_ids\":[1,2]}"
#define HEAD	"\"timestamp\":0,\"input_length\":1,\"output_length\":1"

static int memfd = -1;
static char path[64];
static char msg[TRACE_MSG_BYTES];

static void put_bytes(const void *p, size_t len)
{
	if (memfd >= 0)
		close(memfd);
	memfd = memfd_create("trace", MFD_CLOEXEC);
	ck_assert_int_ge(memfd, 0);
	ck_assert_int_eq(write(memfd, p, len), (ssize_t)len);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", memfd);
}

static void put_text(const char *s)
{
	put_bytes(s, strlen(s));
}

/* gzip @s into @out of @room bytes; the length. */
static size_t gzip(const char *s, unsigned char *out, size_t room)
{
	z_stream z = { 0 };

	ck_assert_int_eq(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
	z.next_in = (unsigned char *)(uintptr_t)s;
	z.avail_in = (unsigned int)strlen(s);
	z.next_out = out;
	z.avail_out = (unsigned int)room;
	ck_assert_int_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return room - z.avail_out;
}

static void load(struct trace *t, const struct trace_opts *o)
{
	msg[0] = 0;
	ck_assert_msg(!trace_load(t, path, o, msg, sizeof(msg)), "%s", msg);
}

static void assert_refused(const struct trace_opts *o, int err, const char *where,
			   const char *why)
{
	struct trace t;

	msg[0] = 0;
	ck_assert_int_eq(trace_load(&t, path, o, msg, sizeof(msg)), err);
	ck_assert_msg(strstr(msg, where) && strstr(msg, why), "'%s' lacks '%s' or '%s'",
		      msg, where, why);
	ck_assert_ptr_null(t.reqs);
}

static void assert_ids(const struct trace *t, uint64_t req, const char *want)
{
	struct trace_iter it = trace_iter(t, &t->reqs[req]);
	char got[256] = "";
	size_t len = 0;
	uint32_t id;

	while (trace_iter_next(&it, &id) && len < sizeof(got) - 16)
		len += (size_t)snprintf(got + len, sizeof(got) - len, "%u ", id);
	ck_assert_str_eq(got, want);
}

/* ------------------------------------------------------------ malformed */

static const struct bad {
	const char *line, *why;
} bad_lines[] = {
	{ "hello", "'{' should be" },
	{ "[1,2]", "'{' should be" },
	{ "{", "to begin a string" },
	{ "{}", "no timestamp" },
	{ "{\"a\":1}", "no timestamp" },
	{ "{\"input_length\":1,\"output_length\":1,\"hash_ids\":[]}", "no timestamp" },
	{ "{\"timestamp\":1,\"output_length\":1,\"hash_ids\":[]}", "no input_length" },
	{ "{\"timestamp\":1,\"input_length\":1,\"hash_ids\":[]}", "no output_length" },
	{ "{" HEAD "}", "no hash_ids or hash_runs" },
	{ "{" HEAD ",\"hash_ids\":[]", "to end the request" },
	{ "{" HEAD ",\"hash_ids\":[]} x", "more text" },
	{ "{" HEAD ",\"hash_ids\":[]}{}", "more text" },
	{ "{" HEAD ",\"hash_ids\":[],}", "to begin a string" },
	{ "{" HEAD " \"hash_ids\":[]}", "to end the request" },
	{ "{" HEAD ",\"hash_ids\" []}", "after a key" },
	{ "{" HEAD ",\"hash_ids\":7}", "to begin hash_ids" },
	{ "{" HEAD ",\"hash_ids\":[1 2]}", "to end hash_ids" },
	{ "{" HEAD ",\"hash_ids\":[1,]}", "a number should be" },
	{ "{" HEAD ",\"hash_ids\":[1", "to end hash_ids" },
	{ "{" HEAD ",\"hash_ids\":[\"1\"]}", "a number should be" },
	{ "{" HEAD ",\"hash_ids\":[-1]}", "hash_ids is negative" },
	{ "{" HEAD ",\"hash_ids\":[1.5]}", "not a whole number" },
	{ "{" HEAD ",\"hash_ids\":[1e3]}", "not a whole number" },
	{ "{" HEAD ",\"hash_ids\":[007]}", "leading zero" },
	{ "{" HEAD ",\"hash_ids\":[18446744073709551615]}", "hash_ids is above" },
	{ "{" HEAD ",\"hash_ids\":[99999999999999999999999999]}", "hash_ids is above" },
	{ "{" HEAD ",\"hash_runs\":[1,2]}", "to begin a run" },
	{ "{" HEAD ",\"hash_runs\":[[1]]}", "between first and count" },
	{ "{" HEAD ",\"hash_runs\":[[1,2,3]]}", "to end a run" },
	{ "{" HEAD ",\"hash_runs\":[[1,0]]}", "count is 0" },
	{ "{" HEAD ",\"hash_runs\":[[1,-2]]}", "count is negative" },
	{ "{" HEAD ",\"hash_runs\":[[0,4294967296]]}", "count is above" },
	{ "{" HEAD ",\"hash_runs\":[[0,18446744073709551616]]}", "count is above" },
	{ "{" HEAD ",\"hash_runs\":[[18446744073709551000,4]]}", "first is above" },
	{ "{" HEAD ",\"hash_runs\":[[0,4194304],[0,1]]}", "blocks in one request" },
	{ "{" HEAD ",\"hash_ids\":[1],\"hash_runs\":[[1,1]]}", "hash_ids and hash_runs" },
	{ "{" HEAD ",\"timestamp\":1,\"hash_ids\":[]}", "\"timestamp\" twice" },
	{ "{\"timestamp\":-5,\"input_length\":1,\"output_length\":1,\"hash_ids\":[]}",
	  "timestamp is negative" },
	{ "{\"timestamp\":1e300,\"input_length\":1,\"output_length\":1,\"hash_ids\":[]}",
	  "timestamp is above" },
	{ "{\"timestamp\":99999999999999,\"input_length\":1,\"output_length\":1,\"hash_ids\":[]}",
	  "timestamp is above" },
	{ "{\"timestamp\":1.,\"input_length\":1,\"output_length\":1,\"hash_ids\":[]}",
	  "follow the point" },
	{ "{\"timestamp\":1e,\"input_length\":1,\"output_length\":1,\"hash_ids\":[]}",
	  "exponent" },
	{ "{\"timestamp\":NaN,\"input_length\":1,\"output_length\":1,\"hash_ids\":[]}",
	  "a number should be" },
	{ "{\"timestamp\":null,\"input_length\":1,\"output_length\":1,\"hash_ids\":[]}",
	  "a number should be" },
	{ "{\"timestamp\":1,\"input_length\":4294967296,\"output_length\":1,\"hash_ids\":[]}",
	  "input_length is above" },
	{ "{\"timestamp\":1,\"input_length\":1,\"output_length\":-1,\"hash_ids\":[]}",
	  "output_length is negative" },
	{ "{" HEAD ",\"hash_ids\":[],\"session\":-3}", "session is negative" },
	{ "{" HEAD ",\"hash_ids\":[],\"session\":[3]}", "a number should be" },
	{ "{" HEAD ",\"hash_ids\":[],\"x\":tru}", "a value should be" },
	{ "{" HEAD ",\"hash_ids\":[],\"x\":[1,}", "a value should be" },
	{ "{" HEAD ",\"hash_ids\":[],\"x\":{\"a\"}}", "after a key" },
	{ "{" HEAD ",\"hash_ids\":[],\"x\":[{]}}", "to begin a string" },
	{ "{" HEAD ",\"hash_ids\":[],\"x\":\"\\q\"}", "bad escape" },
	{ "{" HEAD ",\"hash_ids\":[],\"x\":\"\\u12g4\"}", "bad \\u escape" },
	{ "{" HEAD ",\"hash_ids\":[],\"x\":\"a\tb\"}", "control character" },
	{ "{" HEAD ",\"hash_ids\":[],\"x\":\"abc", "string without an end" },
	{ "{" HEAD ",\"hash_ids\":[],\"x\":\"abc\\", "string without an end" },
	{ "{\"block_tokens\":64}", "header line after" },
	{ "{\"block_tokens\":0}", "block_tokens is 0" },
	{ "{\"block_tokens\":9999999}", "block_tokens is above" },
};

START_TEST(malformed_line_is_named)
{
	const struct bad *b = &bad_lines[_i];
	struct trace_opts skip = { .skip_bad = true };
	char text[1024];
	struct trace t;

	snprintf(text, sizeof(text), "%s\n%s\n%s\n", GOOD, b->line, GOOD);
	put_text(text);
	assert_refused(NULL, -EINVAL, ":2: ", b->why);
	ck_assert_ptr_eq(strstr(msg, path), msg);

	load(&t, &skip);
	ck_assert_uint_eq(t.nr_reqs, 2);
	ck_assert_uint_eq(t.nr_bad, 1);
	ck_assert_uint_eq(t.nr_lines, 3);
	ck_assert_uint_eq(t.nr_blocks, 2);
	ck_assert_uint_eq(t.nr_accesses, 4);
	ck_assert(strstr(t.first_bad, ":2: ") && strstr(t.first_bad, b->why));
	trace_free(&t);
}
END_TEST

START_TEST(malformed_bytes_are_named)
{
	static const char nul[] = GOOD "\n{\"times\0tamp\":1}\n";

	put_bytes(nul, sizeof(nul) - 1);
	assert_refused(NULL, -EINVAL, ":2: ", "control character");
	put_bytes("\0\0\0\n", 4);
	assert_refused(NULL, -EINVAL, ":1: ", "byte 0x00");
	put_text("\xef\xbb\xbf" GOOD "\n");
	assert_refused(NULL, -EINVAL, ":1: ", "byte 0xef");
	/* The same bytes cut anywhere never parse: no prefix of a line is one. */
	for (size_t i = 1; i < strlen(GOOD); i++) {
		put_bytes(GOOD, i);
		assert_refused(NULL, -EINVAL, ":1: ", "");
	}
}
END_TEST

START_TEST(nesting_is_bounded)
{
	char text[512], *p = text;

	p += sprintf(p, "{" HEAD ",\"hash_ids\":[],\"x\":");
	memset(p, '[', 64);
	memset(p + 64, ']', 64);
	memcpy(p + 128, "}", 2);
	put_text(text);
	struct trace t;

	load(&t, NULL);
	trace_free(&t);
	memset(p, '[', 65);
	memset(p + 65, ']', 65);
	memcpy(p + 130, "}", 2);
	put_text(text);
	assert_refused(NULL, -EINVAL, ":1: ", "nested deeper");
}
END_TEST

START_TEST(long_line_is_bounded)
{
	size_t len = TRACE_MAX_LINE + (1U << 20);
	struct trace_opts skip = { .skip_bad = true };
	char *text = malloc(len + 256);
	struct trace t;

	ck_assert_ptr_nonnull(text);
	memset(text, ' ', len);
	strcpy(text + len, "\n" GOOD "\n");
	put_text(text);
	assert_refused(NULL, -EINVAL, ":1: ", "longer than");
	load(&t, &skip);
	ck_assert_uint_eq(t.nr_reqs, 1);
	ck_assert_uint_eq(t.nr_bad, 1);
	trace_free(&t);
	free(text);
}
END_TEST

START_TEST(all_bad_or_empty_is_refused)
{
	struct trace_opts skip = { .skip_bad = true };

	put_text("");
	assert_refused(NULL, -EINVAL, "fd", "no requests");
	put_text("\n \n\t\r\n");
	assert_refused(NULL, -EINVAL, "fd", "no requests");
	put_text("{\"block_tokens\":16}\n");
	assert_refused(NULL, -EINVAL, "fd", "no requests in 1 lines");
	put_text("x\ny\n");
	assert_refused(&skip, -EINVAL, "first bad line", ":1: ");
	put_text("{\"block_tokens\":16}\n{\"block_tokens\":16}\n" GOOD);
	assert_refused(NULL, -EINVAL, ":2: ", "second header");
}
END_TEST

START_TEST(missing_file_is_named)
{
	snprintf(path, sizeof(path), "/nonexistent/trace.gz");
	assert_refused(NULL, -ENOENT, path, "No such file");
	snprintf(path, sizeof(path), "/");
	assert_refused(NULL, -EISDIR, path, "directory");
}
END_TEST

/* ------------------------------------------------------------ gzip */

START_TEST(gzip_reads_like_plain)
{
	unsigned char z[512];
	struct trace t;

	put_bytes(z, gzip(GOOD "\n" GOOD "\n", z, sizeof(z)));
	load(&t, NULL);
	ck_assert_uint_eq(t.nr_reqs, 2);
	trace_free(&t);
}
END_TEST

START_TEST(truncated_gzip_is_refused)
{
	struct trace_opts skip = { .skip_bad = true };
	char text[8192], *p = text;
	unsigned char z[8192];
	size_t len, i;

	/* Lines that differ, so that the stream has something to cut. */
	for (i = 0; i < 60; i++)
		p += sprintf(p, "{\"timestamp\":%zu,\"input_length\":%zu,\"output_length\":1,"
			     "\"hash_ids\":[%zu]}\n", i * 7919, i * 31 % 1000, i * i * 977);
	len = gzip(text, z, sizeof(z));
	for (i = 11; i < len; i += 13) {
		put_bytes(z, i);
		assert_refused(NULL, -EIO, "fd", "truncated");
		assert_refused(&skip, -EIO, "fd", "truncated");
	}
	/* Cut between two lines the end is still seen: the checksum is missing. */
	put_bytes(z, len - 1);
	assert_refused(NULL, -EIO, ":61: ", "truncated");
}
END_TEST

START_TEST(damaged_gzip_is_refused)
{
	struct trace_opts skip = { .skip_bad = true };
	unsigned char z[512];
	size_t len = gzip(GOOD "\n" GOOD "\n", z, sizeof(z));

	z[len - 6] ^= 0x10;	/* the checksum */
	put_bytes(z, len);
	assert_refused(NULL, -EIO, "fd", "damaged");
	assert_refused(&skip, -EIO, "fd", "damaged");
}
END_TEST

/* ------------------------------------------------------------ reading */

START_TEST(both_forms_are_the_same)
{
	struct trace a, b;

	put_text("{\"timestamp\":1,\"input_length\":3000,\"output_length\":2,"
		 "\"hash_ids\":[10,11,12,90,5]}\n"
		 "{\"timestamp\":2,\"input_length\":3000,\"output_length\":2,"
		 "\"hash_ids\":[10,11,13]}\n");
	load(&a, NULL);
	put_text("{\"hash_runs\":[[10,3],[90,1],[5,1]],\"output_length\":2,"
		 "\"input_length\":3000,\"timestamp\":1}\r\n"
		 "\n"
		 " { \"timestamp\" : 2.0 , \"input_length\" : 3000.0 , \"output_length\" : 2 ,"
		 " \"hash_runs\" : [ [ 10 , 2 ] , [ 13 , 1 ] ] , \"session\" : null } ");
	load(&b, NULL);
	ck_assert_uint_eq(a.nr_reqs, 2);
	ck_assert_uint_eq(b.nr_reqs, 2);
	assert_ids(&a, 0, "0 1 2 3 4 ");
	assert_ids(&b, 0, "0 1 2 3 4 ");
	assert_ids(&a, 1, "0 1 5 ");
	assert_ids(&b, 1, "0 1 5 ");
	ck_assert_uint_eq(a.reqs[0].nr_runs, 1);	/* dense ids join what the file split */
	ck_assert_uint_eq(a.orig[3], 90);
	ck_assert_uint_eq(a.parent[0], TRACE_NONE);
	ck_assert_uint_eq(a.parent[4], 3);
	ck_assert_uint_eq(a.parent[5], 1);
	ck_assert_uint_eq(b.reqs[1].ts_ns, 2000000);
	ck_assert_uint_eq(b.nr_lines, 3);
	trace_free(&a);
	trace_free(&b);
}
END_TEST

START_TEST(other_keys_are_ignored)
{
	struct trace t;

	put_text("{\"type\":\"chat\",\"turn\":-1.5e-3,\"nested\":{\"a\":[1,{\"b\":[]},null]},"
		 "\"requests\":\"x\",\"e\":{},\"esc\\\"aped\":\"\\u00e9\\n\",\"ok\":true,"
		 "\"block_tokens\":16," HEAD ",\"hash_ids\":[]}\n");
	load(&t, NULL);
	ck_assert_uint_eq(t.nr_reqs, 1);
	ck_assert_uint_eq(t.nr_accesses, 0);
	ck_assert_uint_eq(t.block_tokens, 512);
	ck_assert_uint_eq(t.nr_sessions, 1);
	trace_free(&t);
}
END_TEST

START_TEST(times_keep_their_fraction)
{
	struct trace t;

	put_text("{\"timestamp\":1.234567891,\"input_length\":1,\"output_length\":1,"
		 "\"hash_ids\":[]}\n"
		 "{\"timestamp\":2.5e3,\"input_length\":1,\"output_length\":1,"
		 "\"hash_ids\":[]}\n"
		 "{\"timestamp\":-0,\"input_length\":1,\"output_length\":1,"
		 "\"hash_ids\":[]}\n");
	load(&t, NULL);
	ck_assert_uint_eq(t.reqs[0].ts_ns, 1234567);
	ck_assert_uint_eq(t.reqs[1].ts_ns, 2500000000ULL);
	ck_assert_uint_eq(t.reqs[2].ts_ns, 0);
	ck_assert_uint_eq(t.warn[TRACE_WARN_BACKWARDS], 1);
	trace_free(&t);
}
END_TEST

START_TEST(block_tokens_by_header_option_default)
{
	struct trace_opts o = { .block_tokens = 128 };
	struct trace t;

	put_text(GOOD);
	load(&t, NULL);
	ck_assert_uint_eq(t.block_tokens, 512);
	ck_assert(!t.has_header);
	trace_free(&t);
	put_text("\n{\"trace\":\"x\",\"block_tokens\":16}\n" GOOD);
	load(&t, NULL);
	ck_assert_uint_eq(t.block_tokens, 16);
	ck_assert(t.has_header);
	trace_free(&t);
	load(&t, &o);
	ck_assert_uint_eq(t.block_tokens, 128);
	trace_free(&t);
}
END_TEST

START_TEST(huge_ids_are_fine)
{
	struct trace t;

	put_text("{" HEAD ",\"hash_ids\":[18446744073705357310,0]}\n"
		 "{" HEAD ",\"hash_runs\":[[18446744073705357310,3]]}\n");
	load(&t, NULL);
	assert_ids(&t, 0, "0 1 ");
	assert_ids(&t, 1, "0 2 3 ");
	ck_assert_uint_eq(t.orig[3], 18446744073705357312ULL);
	trace_free(&t);
}
END_TEST

START_TEST(first_requests_only)
{
	struct trace_opts o = { .max_reqs = 2 };
	struct trace t;

	put_text("{\"block_tokens\":512,\"requests\":3}\n" GOOD "\n" GOOD "\nnot read\n");
	load(&t, &o);
	ck_assert_uint_eq(t.nr_reqs, 2);
	ck_assert_uint_eq(t.warn[TRACE_WARN_HEADER], 0);
	trace_free(&t);
}
END_TEST

/* ------------------------------------------------------------ oddities */

START_TEST(ids_that_are_no_prefix_ids_are_counted)
{
	struct trace t;

	put_text("{" HEAD ",\"hash_ids\":[1,2,3]}\n"
		 "{" HEAD ",\"hash_ids\":[2,3]}\n"	/* 2 was after 1 */
		 "{" HEAD ",\"hash_ids\":[1,3]}\n"	/* 3 was after 2 */
		 "{" HEAD ",\"hash_ids\":[7,7]}\n");	/* 7 was a root */
	load(&t, NULL);
	ck_assert_uint_eq(t.warn[TRACE_WARN_PARENT], 3);
	ck_assert_uint_eq(t.nr_reqs, 4);
	trace_free(&t);
}
END_TEST

START_TEST(other_oddities_are_counted)
{
	struct trace t;

	put_text("{\"block_tokens\":512,\"requests\":9,\"block_accesses\":3,"
		 "\"distinct_blocks\":8}\n"
		 "{\"timestamp\":9,\"session\":4,\"input_length\":512,\"output_length\":1,"
		 "\"hash_ids\":[1,2]}\n"
		 "{\"timestamp\":3,\"input_length\":512,\"output_length\":1,"
		 "\"hash_ids\":[3]}\n");
	load(&t, NULL);
	ck_assert_uint_eq(t.warn[TRACE_WARN_PARENT], 0);
	ck_assert_uint_eq(t.warn[TRACE_WARN_BACKWARDS], 1);
	ck_assert_uint_eq(t.warn[TRACE_WARN_OVERLONG], 1);
	ck_assert_uint_eq(t.warn[TRACE_WARN_SESSION], 1);
	ck_assert_uint_eq(t.warn[TRACE_WARN_HEADER], 2);
	ck_assert(t.sessions_inferred);
	trace_free(&t);
}
END_TEST

START_TEST(warnings_have_names)
{
	unsigned int i, j;

	for (i = 0; i < NR_TRACE_WARN; i++) {
		ck_assert_int_gt((int)strlen(trace_warn_name((enum trace_warn)i)), 3);
		ck_assert_int_gt((int)strlen(trace_warn_text((enum trace_warn)i)), 3);
		for (j = 0; j < i; j++)
			ck_assert_str_ne(trace_warn_name((enum trace_warn)i),
					 trace_warn_name((enum trace_warn)j));
	}
}
END_TEST

/* ------------------------------------------------------------ sessions */

START_TEST(sessions_are_dense)
{
	struct trace t;

	put_text("{" HEAD ",\"hash_ids\":[],\"session\":900}\n"
		 "{" HEAD ",\"hash_ids\":[],\"session\":\"a\"}\n"
		 "{" HEAD ",\"hash_ids\":[],\"session\":18446744073709551615}\n"
		 "{" HEAD ",\"hash_ids\":[],\"session\":900}\n"
		 "{" HEAD ",\"hash_ids\":[],\"session\":\"a\"}\n"
		 "{" HEAD ",\"hash_ids\":[],\"session\":\"b\"}\n");
	load(&t, NULL);
	ck_assert_uint_eq(t.nr_sessions, 4);
	ck_assert(!t.sessions_inferred);
	ck_assert_uint_eq(t.reqs[3].session, t.reqs[0].session);
	ck_assert_uint_eq(t.reqs[4].session, t.reqs[1].session);
	ck_assert_uint_eq(t.reqs[5].session, 3);
	trace_free(&t);
}
END_TEST

START_TEST(sessions_are_inferred_from_prefixes)
{
	char text[4096], *p = text;
	struct trace t;
	int i;

	/* Two conversations behind one template block, which then is a hub. */
	p += sprintf(p, "{\"block_tokens\":16}\n");
	for (i = 0; i < 8; i++)
		p += sprintf(p, "{\"timestamp\":%d,\"input_length\":32,\"output_length\":1,"
			     "\"hash_ids\":[0,%d]}\n", i, 10 + i);
	p += sprintf(p, "{\"timestamp\":9,\"input_length\":48,\"output_length\":1,"
		     "\"hash_ids\":[0,12,100]}\n");
	p += sprintf(p, "{\"timestamp\":9,\"input_length\":64,\"output_length\":1,"
		     "\"hash_ids\":[0,12,100,101]}\n");
	/* The template alone: a hub is nobody's end. */
	p += sprintf(p, "{\"timestamp\":9,\"input_length\":16,\"output_length\":1,"
		     "\"hash_ids\":[0]}\n");
	sprintf(p, "{\"timestamp\":9,\"input_length\":20,\"output_length\":1,"
		"\"hash_ids\":[0,55]}\n");
	put_text(text);
	load(&t, NULL);
	ck_assert(t.sessions_inferred);
	ck_assert_uint_eq(t.nr_sessions, 10);
	ck_assert_uint_eq(t.reqs[8].session, t.reqs[2].session);
	ck_assert_uint_eq(t.reqs[9].session, t.reqs[2].session);
	ck_assert_uint_eq(t.reqs[10].session, 8);
	ck_assert_uint_eq(t.reqs[11].session, 9);
	trace_free(&t);
}
END_TEST

START_TEST(expand_gives_any_part)
{
	uint32_t ids[16];
	struct trace t;

	put_text("{" HEAD ",\"hash_runs\":[[0,4]]}\n"
		 "{" HEAD ",\"hash_runs\":[[0,2],[50,3],[60,1]]}\n");
	load(&t, NULL);
	ck_assert_uint_eq(trace_expand(&t, &t.reqs[1], 0, 16, ids), 6);
	ck_assert_uint_eq(ids[0], 0);
	ck_assert_uint_eq(ids[2], 4);
	ck_assert_uint_eq(ids[5], 7);
	ck_assert_uint_eq(trace_expand(&t, &t.reqs[1], 1, 2, ids), 2);
	ck_assert_uint_eq(ids[0], 1);
	ck_assert_uint_eq(ids[1], 4);
	ck_assert_uint_eq(trace_expand(&t, &t.reqs[1], 5, 9, ids), 1);
	ck_assert_uint_eq(trace_expand(&t, &t.reqs[1], 6, 9, ids), 0);
	trace_free(&t);
}
END_TEST

/* ------------------------------------------------------------ memory */

static const char sample[] =
	"{\"block_tokens\":16}\n"
	"{\"timestamp\":0,\"input_length\":1600,\"output_length\":1,\"hash_runs\":[[0,100]]}\n"
	"{\"timestamp\":5,\"input_length\":1616,\"output_length\":1,\"hash_ids\":[0,1,7,9]}\n";

START_TEST(each_failed_allocation_is_reported)
{
	char spec[64];
	struct trace t;
	unsigned int n;
	int err;

	put_text(sample);
	for (n = 1; n < 1000; n++) {
		snprintf(spec, sizeof(spec), "alloc:nth=%u", n);
		ck_assert_int_eq(fault_arm(spec, NULL, 0), 0);
		msg[0] = 0;
		err = trace_load(&t, path, NULL, msg, sizeof(msg));
		fault_disarm();
		if (!err)
			break;
		ck_assert_int_eq(err, -ENOMEM);
		ck_assert_msg(strstr(msg, "out of memory") != NULL, "%s", msg);
		ck_assert_ptr_null(t.reqs);
	}
	ck_assert_uint_gt(n, 5);
	ck_assert_uint_lt(n, 1000);
	trace_free(&t);
}
END_TEST

static void add(Suite *s, const char *name, const TTest *const *tests, size_t nr)
{
	TCase *tc = tcase_create(name);
	size_t i;

	for (i = 0; i < nr; i++)
		tcase_add_test(tc, tests[i]);
	suite_add_tcase(s, tc);
}

static Suite *trace_suite(void)
{
	const TTest *const malformed[] = {
		malformed_bytes_are_named, nesting_is_bounded, long_line_is_bounded,
		all_bad_or_empty_is_refused, missing_file_is_named,
	};
	const TTest *const gz[] = {
		gzip_reads_like_plain, truncated_gzip_is_refused, damaged_gzip_is_refused,
	};
	const TTest *const reading[] = {
		both_forms_are_the_same, other_keys_are_ignored, times_keep_their_fraction,
		block_tokens_by_header_option_default, huge_ids_are_fine, first_requests_only,
		expand_gives_any_part,
	};
	const TTest *const odd[] = {
		ids_that_are_no_prefix_ids_are_counted, other_oddities_are_counted,
		warnings_have_names,
	};
	const TTest *const sessions[] = {
		sessions_are_dense, sessions_are_inferred_from_prefixes,
	};
	const TTest *const memory[] = { each_failed_allocation_is_reported };
	Suite *s = suite_create("trace_parse");
	TCase *tc = tcase_create("malformed lines");

	tcase_add_loop_test(tc, malformed_line_is_named, 0, (int)ARRAY_SIZE(bad_lines));
	suite_add_tcase(s, tc);
	add(s, "malformed", malformed, ARRAY_SIZE(malformed));
	add(s, "gzip", gz, ARRAY_SIZE(gz));
	add(s, "reading", reading, ARRAY_SIZE(reading));
	add(s, "oddities", odd, ARRAY_SIZE(odd));
	add(s, "sessions", sessions, ARRAY_SIZE(sessions));
	add(s, "memory", memory, ARRAY_SIZE(memory));
	return s;
}

int main(void)
{
	return suite_run(trace_suite());
}
