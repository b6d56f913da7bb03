// SPDX-License-Identifier: Apache-2.0
/*
 * check_kvinfer_prompts.c - what kvinfer makes of texts, prompt files and traces.
 *
 * Files are memfds, read by their /proc path: nothing is left behind.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/suite.h"
#include "tools/kvinfer/kvinfer.h"

static int memfd = -1;
static char path[64];
static char msg[KI_TEXT];
static struct ki_opts opts;
static struct ki_shape shape;
static struct ki_requests q;

static void setup(void)
{
	opts = (struct ki_opts) { .tokens = 8, .samples = 1, .repeat = 1, .trace_scale = 1 };
	shape = (struct ki_shape) { .vocab = 256, .max_tokens = 100 };
	q = (struct ki_requests) { 0 };
	*msg = 0;
}

static void clear(void)
{
	struct ki_request *r;

	while ((r = q.head)) {
		q.head = r->next;
		ki_request_free(r);
	}
	q = (struct ki_requests) { 0 };
}

static void teardown(void)
{
	clear();
	if (memfd >= 0)
		close(memfd);
	memfd = -1;
}

static const char *file(const char *s)
{
	if (memfd >= 0)
		close(memfd);
	memfd = memfd_create("prompts", MFD_CLOEXEC);
	ck_assert_int_ge(memfd, 0);
	ck_assert_int_eq(write(memfd, s, strlen(s)), (ssize_t)strlen(s));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", memfd);
	return path;
}

static void load(void)
{
	int err;

	clear();
	err = ki_prompts_load(&opts, &shape, &q, msg);
	ck_assert_msg(!err, "%d: %s", err, msg);
}

static void assert_refused(int err, const char *where, const char *why)
{
	struct ki_requests untouched = { .nr = 77 };

	ck_assert_int_eq(ki_prompts_load(&opts, &shape, &untouched, msg), err);
	ck_assert_msg(strstr(msg, where) && strstr(msg, why), "'%s' lacks '%s' or '%s'", msg,
		      where, why);
	ck_assert_uint_eq(untouched.nr, 77);
	ck_assert_ptr_null(untouched.head);
}

static const struct ki_request *request(uint32_t i)
{
	const struct ki_request *r = q.head;

	ck_assert_uint_lt(i, q.nr);
	for (uint32_t n = 0; n < i; n++)
		r = r->next;
	ck_assert_uint_eq(r->id, i);
	return r;
}

static void assert_text(uint32_t i, const char *want)
{
	const struct ki_request *r = request(i);

	ck_assert_uint_eq(r->nr, strlen(want));
	for (uint32_t t = 0; t < r->nr; t++)
		ck_assert_int_eq(r->token[t], (unsigned char)want[t]);
}

/* ------------------------------------------------------------------ texts */

START_TEST(texts_follow_system)
{
	char *texts[] = { (char *)"one", (char *)"\xc3\xa9" };

	opts.prompt = texts;
	opts.nr_prompts = 2;
	opts.samples = 3;
	load();
	ck_assert_uint_eq(q.nr, 2);
	assert_text(0, "one");
	assert_text(1, "\xc3\xa9");
	ck_assert_uint_eq(request(1)->tokens, 8);
	ck_assert_uint_eq(request(1)->samples, 3);
	opts.system = "be brief: ";
	load();
	assert_text(0, "be brief: one");
	ck_assert_ptr_eq(q.tail, &q.head->next->next);
	ck_assert_ptr_null(*q.tail);
}
END_TEST

START_TEST(texts_refused)
{
	char *texts[] = { (char *)"fine", (char *)"" };

	opts.prompt = texts;
	opts.nr_prompts = 2;
	opts.system = "s";
	assert_refused(-EINVAL, "--prompt 2: ", "an empty prompt");
	texts[1] = (char *)"caf\xc3\xa9";
	shape.vocab = 128;
	assert_refused(-EINVAL, "--prompt 2: ", "byte 0xc3 is no token of a model with 128");
	texts[1] = (char *)"12345";
	shape.max_tokens = 13;
	assert_refused(-E2BIG, "--prompt 2: a prompt of 6 tokens and 8 to make",
		       "more than the model's 13");
	shape.max_tokens = 14;
	load();
	ck_assert_uint_eq(q.nr, 2);
}
END_TEST

START_TEST(nothing_is_an_empty_list)
{
	load();
	ck_assert_uint_eq(q.nr, 0);
	ck_assert_ptr_null(q.head);
	ck_assert_ptr_eq(q.tail, &q.head);
}
END_TEST

START_TEST(all_of_it_again)
{
	char *texts[] = { (char *)"a", (char *)"bc" };

	opts.prompt = texts;
	opts.nr_prompts = 2;
	opts.repeat = 3;
	load();
	ck_assert_uint_eq(q.nr, 6);
	assert_text(0, "a");
	assert_text(3, "bc");
	assert_text(4, "a");
	assert_text(5, "bc");
}
END_TEST

/* ------------------------------------------------------------------ files */

START_TEST(lines_of_each_kind)
{
	char *texts[] = { (char *)"first" };

	opts.prompt = texts;
	opts.nr_prompts = 1;
	opts.prompt_file = file("plain {text}\n"
				"{\"text\": \"two\\nlines \\u0000\"}\n"
				" {not json\n"
				"{\"ids\": [0, 255, 7]}\n"
				"no newline");
	opts.system = "S";
	load();
	ck_assert_uint_eq(q.nr, 6);
	assert_text(0, "Sfirst");
	assert_text(1, "Splain {text}");
	ck_assert_uint_eq(request(2)->nr, 12);
	ck_assert_int_eq(request(2)->token[4], '\n');
	ck_assert_int_eq(request(2)->token[11], 0);
	assert_text(3, "S {not json");
	/* Ids are taken as they are. */
	ck_assert_uint_eq(request(4)->nr, 3);
	ck_assert_int_eq(request(4)->token[1], 255);
	assert_text(5, "Sno newline");
}
END_TEST

static const struct {
	const char *text, *where, *why;
	int err;
} bad_files[] = {
	{ "", "/proc/self/fd/", "no prompts", -EINVAL },
	{ "fine\n\nfine\n", ":2: ", "an empty prompt", -EINVAL },
	{ "\n", ":1: ", "an empty prompt", -EINVAL },
	{ "fine\n{\"text\": \"\"}\n", ":2: ", "an empty prompt", -EINVAL },
	{ "{\"ids\": []}\n", ":1: ", "an empty prompt", -EINVAL },
	{ "{\"ids\": [1, 256]}\n", ":1: ", "\"ids\"[1] is 256: the model's tokens are 0 to 255",
	  -EINVAL },
	{ "{\"ids\": [-1]}\n", ":1: ", "\"ids\"[0] is -1", -EINVAL },
	{ "{\"ids\": [18446744073709551615]}\n", ":1: ", "\"ids\"[0] is ", -EINVAL },
	{ "{\"ids\": [1.5]}\n", ":1: ", "\"ids\"[0] is not a whole number", -EINVAL },
	{ "{\"ids\": [\"1\"]}\n", ":1: ", "is not a whole number", -EINVAL },
	{ "{\"ids\": [null]}\n", ":1: ", "is not a whole number", -EINVAL },
	{ "{\"ids\": 1}\n", ":1: ", "is not an array", -EINVAL },
	{ "{\"text\": 1}\n", ":1: ", "\"text\" is not a string", -EINVAL },
	{ "{\"text\": null}\n", ":1: ", "\"text\" is not a string", -EINVAL },
	{ "{\"text\": \"a\", \"ids\": [1]}\n", ":1: ", "either \"text\" or \"ids\"", -EINVAL },
	{ "{}\n", ":1: ", "either \"text\" or \"ids\"", -EINVAL },
	{ "{\"texts\": \"a\"}\n", ":1: ", "'texts' is neither", -EINVAL },
	{ "fine\n{\"text\": \"a\"\n", ":2: ", "the object has no end", -EINVAL },
	{ "{\"text\": \"a\"} and more\n", ":1: ", "is a JSON object", -EINVAL },
	{ "{text}\n", ":1: ", "is a JSON object", -EINVAL },
	{ "{\"text\": \"a\",}\n", ":1: ", "is a JSON object", -EINVAL },
	{ "fine\n0123456789012345678901234567890123456789\n", ":2: ",
	  "a prompt of 40 tokens and 8 to make are more than the model's 47", -E2BIG },
};

START_TEST(lines_refused)
{
	shape.max_tokens = 47;
	opts.prompt_file = file(bad_files[_i].text);
	assert_refused(bad_files[_i].err, bad_files[_i].where, bad_files[_i].why);
}
END_TEST

START_TEST(no_such_file)
{
	opts.prompt_file = "/nonexistent/prompts";
	assert_refused(-ENOENT, "/nonexistent/prompts: ", "No such file");
	opts.prompt_file = NULL;
	opts.trace = "/nonexistent/trace";
	assert_refused(-ENOENT, "/nonexistent/trace: ", "No such file");
}
END_TEST

/* ------------------------------------------------------------------ traces */

#define REQ(in, out, ...)	"{\"timestamp\": 0, \"input_length\": " #in \
				", \"output_length\": " #out ", \"hash_ids\": " #__VA_ARGS__ "}\n"
#define TRACE	"{\"block_tokens\": 16}\n" \
		REQ(40, 100, [5, 6, 7]) REQ(33, 9, [5, 6, 8]) REQ(16, 1, [9]) REQ(50, 0, [5, 6, 7])

static uint32_t same_tokens(const struct ki_request *a, const struct ki_request *b)
{
	uint32_t n = 0;

	while (n < a->nr && n < b->nr && a->token[n] == b->token[n])
		n++;
	return n;
}

START_TEST(equal_ids_are_equal_runs)
{
	opts.trace = file(TRACE);
	load();
	ck_assert_uint_eq(q.nr, 4);
	ck_assert_uint_eq(request(0)->nr, 40);
	ck_assert_uint_eq(request(1)->nr, 33);
	ck_assert_uint_eq(request(2)->nr, 16);
	ck_assert_uint_eq(request(3)->nr, 50);
	ck_assert_uint_ge(same_tokens(request(0), request(1)), 32);
	ck_assert_uint_eq(same_tokens(request(0), request(2)), 0);
	/* The last two tokens have no block: they are the request's own. */
	ck_assert_uint_eq(same_tokens(request(0), request(3)), 40);
	/* What is made: what the trace says, --tokens at most, one at least. */
	ck_assert_uint_eq(request(0)->tokens, 8);
	ck_assert_uint_eq(request(2)->tokens, 1);
	ck_assert_uint_eq(request(3)->tokens, 1);
}
END_TEST

START_TEST(lengths_are_divided)
{
	opts.trace = file(TRACE);
	opts.trace_scale = 4;
	opts.tokens = 20;
	load();
	ck_assert_uint_eq(request(0)->nr, 10);	/* 4 + 4 + 8 / 4 */
	ck_assert_uint_eq(request(1)->nr, 9);	/* 4 + 4 + 1 / 4, rounded up */
	ck_assert_uint_eq(request(2)->nr, 4);
	ck_assert_uint_eq(request(0)->tokens, 20);
	ck_assert_uint_eq(request(1)->tokens, 3);
	ck_assert_uint_ge(same_tokens(request(0), request(1)), 8);
	opts.trace_scale = 16;
	load();
	ck_assert_uint_eq(request(0)->nr, 3);
	opts.trace_scale = 17;
	assert_refused(-EINVAL, path, "its blocks have 16 tokens");
}
END_TEST

START_TEST(runs_are_the_same_everywhere)
{
	struct ki_requests all;
	const struct ki_request *nine;

	opts.trace = file(TRACE);
	load();
	all = q;
	q = (struct ki_requests) { 0 };
	/* Block 9 alone, in another trace. */
	opts.trace = file("{\"block_tokens\": 16}\n" REQ(16, 1, [9]));
	load();
	nine = all.head->next->next;
	ck_assert_uint_eq(same_tokens(request(0), nine), 16);
	clear();
	q = all;
}
END_TEST

START_TEST(tokens_are_of_the_vocabulary)
{
	uint32_t above = 0, most = 0;

	shape.vocab = 11;
	opts.trace = file("{\"block_tokens\": 16}\n" REQ(90, 1, [1, 2, 3]));
	load();
	for (uint32_t i = 0; i < 90; i++) {
		uint32_t t = (uint32_t)request(0)->token[i];

		above += t >= 11;
		most = t > most ? t : most;
	}
	ck_assert_uint_eq(above, 0);
	ck_assert_uint_eq(most, 10);
}
END_TEST

START_TEST(traces_refused)
{
	opts.trace = file("{\"block_tokens\": 16}\n" REQ(16, 1, [1]) REQ(96, 50, [1, 2]));
	assert_refused(-E2BIG, ": request 2: a prompt of 96 tokens and 8 to make",
		       "or raise --trace-scale");
	opts.trace_requests = 1;
	load();
	ck_assert_uint_eq(q.nr, 1);
	opts.trace_requests = 0;
	opts.trace = file(REQ(16, 1, [1]) "{\"timestamp\": 0}\n");
	assert_refused(-EINVAL, ":2: ", "");
	opts.trace = file(REQ(0, 1, []));
	assert_refused(-EINVAL, ": request 1: ", "an empty prompt");
	opts.trace = file("{\"block_tokens\": 16}\n");
	assert_refused(-EINVAL, path, "no requests");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("kvinfer_prompts");
	TCase *t = suite_group(s, "texts", setup, teardown);

	tcase_add_test(t, texts_follow_system);
	tcase_add_test(t, texts_refused);
	tcase_add_test(t, nothing_is_an_empty_list);
	tcase_add_test(t, all_of_it_again);
	t = suite_group(s, "files", setup, teardown);
	tcase_add_test(t, lines_of_each_kind);
	tcase_add_loop_test(t, lines_refused, 0, sizeof(bad_files) / sizeof(*bad_files));
	tcase_add_test(t, no_such_file);
	t = suite_group(s, "traces", setup, teardown);
	tcase_add_test(t, equal_ids_are_equal_runs);
	tcase_add_test(t, lengths_are_divided);
	tcase_add_test(t, runs_are_the_same_everywhere);
	tcase_add_test(t, tokens_are_of_the_vocabulary);
	tcase_add_test(t, traces_refused);
	return suite_run(s);
}
