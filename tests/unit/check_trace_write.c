// SPDX-License-Identifier: Apache-2.0
/*
 * check_trace_write.c - the trace writer of kvtrace, and what info computes.
 *
 * What is written goes to a directory of its own under TMPDIR.
 */
#include <check.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tools/kvtrace/info.h"
#include "tools/kvtrace/trace.h"
#include "tests/suite.h"

static char msg[TRACE_MSG_BYTES];

static char dir[256];
static char file[300];

static void make_dir(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, sizeof(dir), "%s/check_trace.XXXXXX", tmp ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void write_sample(const char *name, enum trace_form form)
{
	static const struct trace_idrun runs[] = { { 4, 3 }, { 90, 1 } };
	const struct trace_header h = { .block_tokens = 16, .requests = 2 };
	struct trace_rec r = {
		.ts_ns = 1500000, .session = 3, .input_tokens = 70, .output_tokens = 9,
		.runs = runs, .nr_runs = 2,
	};
	struct trace_out o;

	snprintf(file, sizeof(file), "%s/%s", dir, name);
	ck_assert_int_eq(trace_out_open(&o, file, form), 0);
	trace_out_header(&o, "t", NULL, &h);
	trace_out_req(&o, &r);
	r.ts_ns = 2000000;
	r.nr_runs = 0;
	trace_out_req(&o, &r);
	ck_assert_int_eq(trace_out_close(&o), 0);
}

static void assert_text(const char *want)
{
	char got[1024];
	size_t n;
	FILE *f = fopen(file, "r");

	ck_assert_ptr_nonnull(f);
	n = fread(got, 1, sizeof(got) - 1, f);
	got[n] = 0;
	fclose(f);
	ck_assert_str_eq(got, want);
}

#define OUT_HEADER	"{\"trace\":\"t\",\"block_tokens\":16,\"requests\":2}\n"
#define OUT_REQ		",\"session\":3,\"input_length\":70,\"output_length\":9,"

START_TEST(written_text_is_the_form)
{
	make_dir();
	write_sample("runs", TRACE_FORM_RUNS);
	assert_text(OUT_HEADER "{\"timestamp\":1.500000" OUT_REQ "\"hash_runs\":[[4,3],[90,1]]}\n"
		    "{\"timestamp\":2" OUT_REQ "\"hash_runs\":[]}\n");
	unlink(file);
	write_sample("ids", TRACE_FORM_IDS);
	assert_text(OUT_HEADER "{\"timestamp\":1.500000" OUT_REQ "\"hash_ids\":[4,5,6,90]}\n"
		    "{\"timestamp\":2" OUT_REQ "\"hash_ids\":[]}\n");
	unlink(file);
	rmdir(dir);
}
END_TEST

START_TEST(written_gzip_reads_back)
{
	struct trace t;
	FILE *f;

	make_dir();
	write_sample("t.gz", TRACE_FORM_RUNS);
	f = fopen(file, "r");
	ck_assert_ptr_nonnull(f);
	ck_assert_int_eq(fgetc(f), 0x1f);
	fclose(f);
	ck_assert_msg(!trace_load(&t, file, NULL, msg, sizeof(msg)), "%s", msg);
	unlink(file);
	rmdir(dir);
	ck_assert_uint_eq(t.nr_reqs, 2);
	ck_assert_uint_eq(t.reqs[0].ts_ns, 1500000);
	ck_assert_uint_eq(t.reqs[0].nr_blocks, 4);
	ck_assert_uint_eq(t.orig[3], 90);
	ck_assert_uint_eq(t.warn[TRACE_WARN_HEADER], 0);
	trace_free(&t);
}
END_TEST

START_TEST(failed_write_is_reported)
{
	static const struct trace_idrun run = { 0, 100000 };
	struct trace_rec r = { .session = UINT64_MAX, .runs = &run, .nr_runs = 1 };
	struct trace_out o;

	ck_assert_int_eq(trace_out_open(&o, "/nonexistent/x", TRACE_FORM_IDS), -ENOENT);
	ck_assert_int_eq(trace_out_open(&o, "/dev/full", TRACE_FORM_IDS), 0);
	trace_out_req(&o, &r);
	ck_assert_int_eq(trace_out_close(&o), -ENOSPC);
	ck_assert_int_eq(access("/dev/full", F_OK), 0);
}
END_TEST

/* ------------------------------------------------------------ info */

static void load_text(struct trace *t, const char *text)
{
	char path[64];
	int fd = memfd_create("trace", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ck_assert_msg(!trace_load(t, path, NULL, msg, sizeof(msg)), "%s", msg);
	close(fd);
}

START_TEST(info_follows_the_prefix_rule)
{
	struct trace t;
	struct info in;

	load_text(&t, "{\"block_tokens\":16}\n"
		 "{\"timestamp\":0,\"input_length\":48,\"output_length\":3,\"hash_ids\":[1,2,3]}\n"
		 /* 2 hits, 20 tokens of them asked for */
		 "{\"timestamp\":2000,\"input_length\":20,\"output_length\":3,"
		 "\"hash_ids\":[1,2]}\n"
		 /* 1 hit: what follows a miss does not count */
		 "{\"timestamp\":90000,\"input_length\":48,\"output_length\":3,"
		 "\"hash_ids\":[1,9,3]}\n");
	ck_assert_int_eq(info_compute(&t, &in), 0);
	ck_assert_uint_eq(in.span_ns, 90000000000ULL);
	ck_assert_uint_eq(in.input_tokens, 116);
	ck_assert_uint_eq(in.output_tokens, 9);
	ck_assert_uint_eq(in.hit_blocks, 3);
	ck_assert_uint_eq(in.hit_tokens, 20 + 16);
	ck_assert_uint_eq(in.partial_tails, 1);
	ck_assert_uint_eq(in.nr_reuses, 4);
	ck_assert_uint_eq(in.max_uses, 3);
	ck_assert_uint_eq(in.uses[INFO_USES_1], 1);
	ck_assert_uint_eq(in.uses[INFO_USES_2], 2);
	ck_assert_uint_eq(in.chain_blocks[INFO_P10], 2);
	ck_assert_uint_eq(in.chain_blocks[INFO_MAX], 3);
	ck_assert_uint_eq(in.reuse_ns[INFO_P10], 2000000000ULL);
	ck_assert_uint_eq(in.reuse_ns[INFO_MAX], 90000000000ULL);
	ck_assert_uint_eq(in.reuse_requests[INFO_MAX], 2);
	ck_assert_uint_eq(in.reuse_class[1], 2);	/* below 10 s */
	ck_assert_uint_eq(in.reuse_class[3], 2);	/* below 300 s */
	trace_free(&t);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("trace_write");
	TCase *tc = tcase_create("writing");

	tcase_add_test(tc, written_text_is_the_form);
	tcase_add_test(tc, written_gzip_reads_back);
	tcase_add_test(tc, failed_write_is_reported);
	suite_add_tcase(s, tc);
	tc = tcase_create("info");
	tcase_add_test(tc, info_follows_the_prefix_rule);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
