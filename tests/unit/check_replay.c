// SPDX-License-Identifier: Apache-2.0
/*
 * check_replay.c - what kvtrace replay settles alone: the bytes of blocks and
 * their check, latency classes, keys, routing, capacity, sizes of lower tiers,
 * turns, attribution.
 */
#include <check.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "kvmd/tier/disk_format.h"
#include "tools/kvtrace/replay_daemon.h"
#include "tools/kvtrace/replay_bytes.h"
#include "tools/kvtrace/replay_hist.h"
#include "tests/quiet.h"
#include "tests/suite.h"

/* ------------------------------------------------------------ bytes */

#define PLANE	512

static uint64_t plane[PLANE / 8], other[PLANE / 8];
static uint64_t first;

START_TEST(filled_plane_verifies)
{
	bytes_fill(plane, PLANE, 77, 1, 2, false);
	ck_assert_uint_eq(bytes_verify(plane, PLANE, 77, 1, 2, false, &first), 0);
	ck_assert_uint_eq(bytes_sample(plane, PLANE, 77, 1, 2, false, 5, &first), 0);
}
END_TEST

/* Any other identity is almost all wrong: one byte in 256 agrees by chance. */
static void assert_all_wrong(uint64_t seed, uint32_t shard, uint32_t pl)
{
	first = UINT64_MAX;
	ck_assert_uint_gt(bytes_verify(plane, PLANE, seed, shard, pl, false, &first), PLANE * 9 / 10);
	ck_assert_uint_lt(first, 8);
	ck_assert_uint_gt(bytes_sample(plane, PLANE, seed, shard, pl, false, 5, &first), 0);
}

START_TEST(key_shard_and_plane_all_count)
{
	bytes_fill(plane, PLANE, 77, 1, 2, false);
	assert_all_wrong(78, 1, 2);
	assert_all_wrong(77, 0, 2);
	assert_all_wrong(77, 2, 1);
	assert_all_wrong(77, 1, 3);
}
END_TEST

START_TEST(bytes_at_another_place_are_wrong)
{
	bytes_fill(other, PLANE, 77, 0, 0, false);
	memcpy(plane, other + 1, PLANE - 8);
	plane[PLANE / 8 - 1] = other[0];
	assert_all_wrong(77, 0, 0);
	/* Halves in the wrong order. */
	memcpy(plane, other + PLANE / 16, PLANE / 2);
	memcpy(plane + PLANE / 16, other, PLANE / 2);
	assert_all_wrong(77, 0, 0);
}
END_TEST

START_TEST(every_single_byte_is_checked)
{
	uint32_t i;

	bytes_fill(plane, PLANE, 3, 0, 0, false);
	for (i = 0; i < PLANE; i++) {
		((uint8_t *)plane)[i] ^= 0x10;
		ck_assert_uint_eq(bytes_verify(plane, PLANE, 3, 0, 0, false, &first), 1);
		ck_assert_uint_eq(first, i);
		((uint8_t *)plane)[i] ^= 0x10;
	}
	ck_assert_uint_eq(bytes_verify(plane, PLANE, 3, 0, 0, false, &first), 0);
}
END_TEST

START_TEST(wrong_bytes_are_counted)
{
	bytes_fill(plane, PLANE, 3, 0, 0, false);
	((uint8_t *)plane)[9] ^= 1;
	((uint8_t *)plane)[10] ^= 1;
	((uint8_t *)plane)[500] ^= 1;
	ck_assert_uint_eq(bytes_verify(plane, PLANE, 3, 0, 0, false, &first), 3);
	ck_assert_uint_eq(first, 9);
}
END_TEST

START_TEST(sample_sees_both_ends)
{
	bytes_fill(plane, PLANE, 3, 0, 0, false);
	((uint8_t *)plane)[0] ^= 1;
	ck_assert_uint_gt(bytes_sample(plane, PLANE, 3, 0, 0, false, 1, &first), 0);
	bytes_fill(plane, PLANE, 3, 0, 0, false);
	((uint8_t *)plane)[PLANE - 1] ^= 1;
	ck_assert_uint_gt(bytes_sample(plane, PLANE, 3, 0, 0, false, 1, &first), 0);
}
END_TEST

/* Values near one, so that a codec makes something of them; as well checked as the others. */
START_TEST(bf16_values_vary_as_far_as_they_may)
{
	uint64_t any = 0, all = ~0ull;

	bytes_fill(plane, PLANE, 3, 0, 0, true);
	ck_assert_uint_eq(bytes_verify(plane, PLANE, 3, 0, 0, true, &first), 0);
	ck_assert_uint_eq(bytes_sample(plane, PLANE, 3, 0, 0, true, 5, &first), 0);
	for (uint32_t i = 0; i < PLANE / 8; i++) {
		any |= plane[i] ^ 0x3f803f803f803f80ull;
		all &= plane[i] ^ 0x3f803f803f803f80ull;
	}
	ck_assert_uint_eq(any, 0x83ff83ff83ff83ffull);
	ck_assert_uint_eq(all, 0);
	((uint8_t *)plane)[77] ^= 2;
	ck_assert_uint_eq(bytes_verify(plane, PLANE, 3, 0, 0, true, &first), 1);
	ck_assert_uint_eq(first, 77);
	ck_assert_uint_gt(bytes_verify(plane, PLANE, 4, 0, 0, true, &first), PLANE / 2);
	ck_assert_uint_gt(bytes_verify(plane, PLANE, 3, 0, 0, false, &first), PLANE / 2);
}
END_TEST

START_TEST(seed_depends_on_the_whole_key)
{
	uint8_t key[KVMD_KEY_BYTES] = { 0 };
	uint64_t seed = bytes_seed(key);
	uint32_t i;

	for (i = 0; i < sizeof(key); i++) {
		key[i] = 1;
		ck_assert_uint_ne(bytes_seed(key), seed);
		key[i] = 0;
	}
	/* The order of its words, too. */
	key[0] = 1;
	seed = bytes_seed(key);
	key[0] = 0;
	key[8] = 1;
	ck_assert_uint_ne(bytes_seed(key), seed);
}
END_TEST

/* ------------------------------------------------------------ latencies */

START_TEST(classes_hold_their_values)
{
	uint64_t v;
	uint32_t c, shift;

	for (shift = 0; shift < 64; shift++) {
		for (v = 0; v < 5; v++) {
			uint64_t ns = (1ULL << shift) + v * (1ULL << shift) / 5;

			c = hist_class(ns);
			quiet_assert_uint_lt(c, HIST_CLASSES);
			quiet_assert_uint_ge(hist_class_max(c), ns);
			/* Off by 1/32 at most. */
			quiet_assert_uint_le(hist_class_max(c) - ns, ns / HIST_SUB);
		}
	}
	ck_assert_uint_eq(hist_class(0), 0);
	ck_assert_uint_eq(hist_class_max(hist_class(UINT64_MAX)), UINT64_MAX);
}
END_TEST

START_TEST(classes_are_contiguous)
{
	uint32_t c;

	for (c = 0; c + 1 < HIST_CLASSES; c++) {
		quiet_assert_uint_eq(hist_class(hist_class_max(c)), c);
		quiet_assert_uint_eq(hist_class(hist_class_max(c) + 1), c + 1);
	}
}
END_TEST

START_TEST(quantiles_of_a_ramp)
{
	static struct hist h, sum;
	uint64_t v;

	memset(&h, 0, sizeof(h));
	memset(&sum, 0, sizeof(sum));
	ck_assert_uint_eq(hist_quantile(&h, 5000), 0);
	for (v = 1; v <= 10000; v++)
		hist_add(v % 2 ? &h : &sum, v);
	hist_merge(&sum, &h);
	ck_assert_uint_eq(sum.nr, 10000);
	ck_assert_uint_eq(sum.max_ns, 10000);
	ck_assert_uint_ge(hist_quantile(&sum, 5000), 5000);
	ck_assert_uint_le(hist_quantile(&sum, 5000), 5000 + 5000 / HIST_SUB);
	ck_assert_uint_ge(hist_quantile(&sum, 9990), 9990);
	ck_assert_uint_eq(hist_quantile(&sum, 10000), 10000);
	ck_assert_uint_eq(hist_quantile(&sum, 0), 1);
}
END_TEST

/* ------------------------------------------------------------ plan */

START_TEST(equal_ids_have_equal_keys)
{
	uint8_t a[KVMD_KEY_BYTES], b[KVMD_KEY_BYTES];

	plan_key(1, 42, a);
	plan_key(1, 42, b);
	ck_assert_mem_eq(a, b, sizeof(a));
	plan_key(1, 43, b);
	ck_assert_mem_ne(a, b, sizeof(a));
	plan_key(2, 42, b);
	ck_assert_mem_ne(a, b, sizeof(a));
	plan_key(1, 42ULL << 32, b);
	ck_assert_mem_ne(a, b, sizeof(a));
}
END_TEST

START_TEST(output_keys_are_the_requests_own)
{
	uint8_t a[KVMD_KEY_BYTES], b[KVMD_KEY_BYTES];

	plan_output_key(1, 42, 0, a);
	plan_key(1, 42, b);
	ck_assert_mem_ne(a, b, sizeof(a));
	plan_output_key(1, 42, 1, b);
	ck_assert_mem_ne(a, b, sizeof(a));
	plan_output_key(1, 43, 0, b);
	ck_assert_mem_ne(a, b, sizeof(a));
	plan_output_key(1, 42, 0, b);
	ck_assert_mem_eq(a, b, sizeof(a));
}
END_TEST

START_TEST(capacity_in_each_unit)
{
	struct replay_opts o = { .block_bytes = 4096 };

	o.cap_kind = CAP_PERCENT;
	o.cap_percent = 1;
	ck_assert_uint_eq(plan_capacity(&o, 14722), 147);	/* rounded, as kvsim does */
	o.cap_percent = 5;
	ck_assert_uint_eq(plan_capacity(&o, 14722), 736);
	o.cap_percent = 0.001;
	ck_assert_uint_eq(plan_capacity(&o, 100), 1);
	o.cap_kind = CAP_BLOCKS;
	o.cap_value = 9;
	ck_assert_uint_eq(plan_capacity(&o, 100), 9);
	o.cap_kind = CAP_BYTES;
	o.cap_value = 3 * 4096 + 4095;
	ck_assert_uint_eq(plan_capacity(&o, 100), 3);
}
END_TEST

static void fit(uint64_t slots, uint32_t prompt, uint32_t output, uint32_t p, uint32_t q)
{
	plan_fit(slots, &prompt, &output);
	ck_assert_uint_eq(prompt, p);
	ck_assert_uint_eq(output, q);
}

START_TEST(long_requests_keep_their_leading_blocks)
{
	fit(100, 60, 40, 60, 40);
	fit(100, 61, 40, 60, 40);
	fit(100, 500, 0, 100, 0);
	fit(100, 500, 500, 1, 99);
	fit(1, 7, 7, 1, 0);
	fit(100, 0, 10, 0, 10);
}
END_TEST

/* Two sessions, requests 0 1 2 3 4 of sessions 0 1 0 0 1. */
static struct trace_req reqs[5] = {
	{ .input_tokens = 40, .output_tokens = 17, .nr_blocks = 3, .session = 0 },
	{ .input_tokens = 32, .output_tokens = 16, .nr_blocks = 2, .session = 1 },
	{ .input_tokens = 64, .output_tokens = 0, .nr_blocks = 4, .session = 0 },
	{ .input_tokens = 65, .output_tokens = 1, .nr_blocks = 5, .session = 0 },
	{ .input_tokens = 33, .output_tokens = 1, .nr_blocks = 3, .session = 1 },
};
static uint32_t last_req[2] = { 3, 4 };
static struct replay_opts opts;

static struct replay_plan small_plan(void)
{
	opts = (struct replay_opts){ .clients = 3, .hints = -1, .decode = true };
	return (struct replay_plan){
		.o = &opts, .last_req = last_req,
		.t = { .reqs = reqs, .nr_reqs = ARRAY_SIZE(reqs), .block_tokens = 16 },
	};
}

START_TEST(requests_go_to_clients_in_turn)
{
	struct replay_plan p = small_plan();

	opts.route = ROUTE_RR;
	ck_assert_uint_eq(plan_next(&p, 0, 0), 0);
	ck_assert_uint_eq(plan_next(&p, 0, 1), 3);
	ck_assert_uint_eq(plan_next(&p, 0, 4), REPLAY_DONE);
	ck_assert_uint_eq(plan_next(&p, 2, 0), 2);
	ck_assert_uint_eq(plan_next(&p, 2, 3), REPLAY_DONE);
}
END_TEST

START_TEST(a_session_stays_with_its_client)
{
	struct replay_plan p = small_plan();
	uint32_t c, n = 0;
	uint64_t i;

	opts.route = ROUTE_SESSION;
	ck_assert_uint_eq(plan_client(&p, 0), plan_client(&p, 2));
	ck_assert_uint_eq(plan_client(&p, 0), plan_client(&p, 3));
	ck_assert_uint_eq(plan_client(&p, 1), plan_client(&p, 4));
	/* Every request is run once. */
	for (c = 0; c < 3; c++)
		for (i = plan_next(&p, c, 0); i != REPLAY_DONE; i = plan_next(&p, c, i + 1))
			n++;
	ck_assert_uint_eq(n, ARRAY_SIZE(reqs));
}
END_TEST

START_TEST(blocks_of_prompt_and_output)
{
	struct replay_plan p = small_plan();

	ck_assert_uint_eq(plan_prompt_blocks(&p, 0), 3);
	ck_assert_uint_eq(plan_output_blocks(&p, 0), 2);
	ck_assert_uint_eq(plan_output_blocks(&p, 1), 1);
	ck_assert_uint_eq(plan_output_blocks(&p, 2), 0);
	opts.full_blocks = true;
	opts.decode = false;
	ck_assert_uint_eq(plan_prompt_blocks(&p, 0), 2);
	ck_assert_uint_eq(plan_prompt_blocks(&p, 1), 2);
	ck_assert_uint_eq(plan_output_blocks(&p, 0), 0);
}
END_TEST

START_TEST(hints_are_right_as_often_as_asked)
{
	struct replay_plan p = small_plan();
	uint64_t i;

	ck_assert_uint_eq(plan_hint(&p, 0), 0);
	opts.hints = 100;
	for (i = 0; i < ARRAY_SIZE(reqs); i++)
		ck_assert_uint_eq(plan_hint(&p, i),
				  i < 3 ? KVMD_HINT_WILL_CONTINUE : KVMD_HINT_LAST);
	opts.hints = 0;
	for (i = 0; i < ARRAY_SIZE(reqs); i++)
		ck_assert_uint_eq(plan_hint(&p, i),
				  i < 3 ? KVMD_HINT_LAST : KVMD_HINT_WILL_CONTINUE);
}
END_TEST

/* ------------------------------------------------------------ tiers */

START_TEST(tiers_in_multiples_of_the_pools_blocks)
{
	struct replay_plan p = small_plan();
	struct replay_size s = { .times = 4 };

	p.capacity = 100;
	opts.block_bytes = 4096;
	ck_assert_uint_eq(plan_tier_bytes(&p, &s), 400 * 4096);
	/* A place below HBM is whole pages. */
	opts.block_bytes = 4160;
	ck_assert_uint_eq(plan_place_bytes(&opts), 8192);
	ck_assert_uint_eq(plan_tier_bytes(&p, &s), 400 * 8192);
	s.times = 0.5;
	ck_assert_uint_eq(plan_tier_bytes(&p, &s), 50 * 8192);
	s = (struct replay_size){ .bytes = 12345 };
	ck_assert_uint_eq(plan_tier_bytes(&p, &s), 12345);
	s.bytes = 0;
	ck_assert_uint_eq(plan_tier_bytes(&p, &s), 0);
}
END_TEST

/* The number behind KEY = in the configuration's section; 0: there is none. */
static uint64_t conf_value(const char *path, const char *section, const char *key)
{
	char line[512], name[64], where[64] = "";
	FILE *f = fopen(path, "re");
	uint64_t v = 0, n;

	ck_assert_ptr_nonnull(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "[%63[^]]", name) == 1)
			strcpy(where, name);
		else if (!strcmp(where, section) &&
			 sscanf(line, "%63s = %" SCNu64, name, &n) == 2 && !strcmp(name, key))
			v = n;
	}
	fclose(f);
	return v;
}

/* The file holds @times of the pool's blocks, whatever their size. */
static void assert_file_holds(uint64_t capacity, uint64_t block_bytes, double times)
{
	struct replay_plan p = small_plan();
	struct replay_daemon d = { .socket = "/s", .admin = "/s.admin", .disk = "/disk" };
	struct disk_super sb;
	uint64_t place, segment;
	char why[160];
	int fd;

	strcpy(d.conf, "/tmp/check_replay.XXXXXX");
	fd = mkstemp(d.conf);
	ck_assert_int_ge(fd, 0);
	close(fd);
	p.capacity = capacity;
	opts.block_bytes = block_bytes;
	opts.ram.times = 4;
	opts.disk.times = times;
	ck_assert_int_eq(daemon_config(&d, &p, true), 0);
	segment = conf_value(d.conf, "disk", "segment");
	place = conf_value(d.conf, "disk", "block_bytes_hint");
	ck_assert_uint_eq(disk_super_make(&sb, conf_value(d.conf, "disk", "bytes"), segment, place,
					  why, sizeof(why)), 0);
	ck_assert_uint_ge(sb.nr_segments, DISK_MIN_SEGMENTS);
	ck_assert_uint_ge(sb.nr_headers, segment / place);
	ck_assert_uint_ge((sb.nr_segments - 3) * (segment / place),
			  (uint64_t)((double)capacity * times));
	ck_assert_uint_eq(conf_value(d.conf, "ram", "bytes"), 4 * capacity * place);
	/* A record for each block of each tier. */
	ck_assert_uint_ge(conf_value(d.conf, "pool", "blocks"),
			  (uint64_t)((double)capacity * (5 + times)));
	ck_assert_int_eq(daemon_config(&d, &p, false), 0);
	ck_assert_uint_eq(conf_value(d.conf, "ram", "bytes"), 0);
	ck_assert_uint_eq(conf_value(d.conf, "disk", "bytes"), 0);
	unlink(d.conf);
}

START_TEST(the_disk_file_holds_what_was_asked_for)
{
	assert_file_holds(1100, 512, 16);
	assert_file_holds(1, 4096, 1);
	assert_file_holds(10000, 4096, 0.5);
	assert_file_holds(1000000, 65536, 16);
	assert_file_holds(300, 3 << 20, 16);
	assert_file_holds(20, 512 << 20, 2);
}
END_TEST

/* Both parsers must agree; "": refused. */
static struct replay_size size_of(const char *opt, const char *arg, int want)
{
	char prog[] = "replay", name[16], value[32], file[] = "f", ram[] = "--ram", big[] = "1G";
	char *argv[] = { prog, ram, big, name, value, file, NULL };
	struct replay_opts o;
	bool go;

	snprintf(name, sizeof(name), "--%s", opt);
	snprintf(value, sizeof(value), "%s", arg);
	optind = 0;
	ck_assert_int_eq(replay_options(ARRAY_SIZE(argv) - 1, argv, &o, &go), want);
	ck_assert(go == !want);
	if (want)
		return (struct replay_size){ 0 };
	ck_assert_int_eq(o.beside, BESIDE_YES);
	return strcmp(opt, "ram") ? o.disk : o.ram;
}

START_TEST(sizes_are_bytes_or_multiples)
{
	struct replay_size s = size_of("disk", "16x", 0);

	ck_assert_double_eq(s.times, 16);
	ck_assert_uint_eq(s.bytes, 0);
	s = size_of("disk", "2G", 0);
	ck_assert_double_eq(s.times, 0);
	ck_assert_uint_eq(s.bytes, 2ULL << 30);
	s = size_of("ram", "0.25x", 0);
	ck_assert_double_eq(s.times, 0.25);
	size_of("ram", "x", 2);
	size_of("ram", "4xx", 2);
	size_of("ram", "-4x", 2);
	size_of("ram", "nanx", 2);
	size_of("disk", "much", 2);
}
END_TEST

START_TEST(a_token_that_nobody_served_does_not_sum)
{
	struct replay_stats s = { { 0 } };

	ck_assert(attribution_sums(&s));
	s.val[KVMD_STAT_TOKENS_ASKED] = 100;
	ck_assert(!attribution_sums(&s));
	s.val[KVMD_STAT_TOKENS_HBM] = 30;
	s.val[KVMD_STAT_TOKENS_RAM] = 20;
	s.val[KVMD_STAT_TOKENS_DISK] = 10;
	s.val[KVMD_STAT_TOKENS_MERGED] = 5;
	s.val[KVMD_STAT_TOKENS_RECOMPUTED] = 31;
	s.val[KVMD_STAT_TOKENS_PENDING] = 4;
	ck_assert(!attribution_sums(&s));	/* 31 have no reason */
	s.val[KVMD_STAT_RECOMPUTED_EVICTED] = 21;
	s.val[KVMD_STAT_RECOMPUTED_REFUSED] = 10;
	ck_assert(attribution_sums(&s));
	s.val[KVMD_STAT_TOKENS_DISK]++;
	ck_assert(!attribution_sums(&s));
	/* A daemon ends what its predecessor began: its gauge is below zero. */
	memset(&s, 0, sizeof(s));
	s.val[KVMD_STAT_TOKENS_RECOMPUTED] = s.val[KVMD_STAT_RECOMPUTED_NEVER] = 7;
	s.val[KVMD_STAT_TOKENS_PENDING] = (uint64_t)-7;
	ck_assert(attribution_sums(&s));
}
END_TEST

/* ------------------------------------------------------------ turns */

static bool is_woken(const struct replay_run *r, uint32_t c)
{
	struct pollfd p = { .fd = r->event[c], .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

START_TEST(a_window_of_one_is_the_traces_order)
{
	struct replay_run r = { .window = 1 };

	ck_assert_int_eq(run_page_make(&r, 2), 0);
	r.page->c[0].next = 0;
	r.page->c[1].next = 1;
	ck_assert(run_may_start(&r, 0));
	ck_assert(!run_may_start(&r, 1));
	r.page->c[1].want = 1;
	run_advance(&r, 0, 2);
	ck_assert(is_woken(&r, 1));
	ck_assert(run_may_start(&r, 1));
	ck_assert(!run_may_start(&r, 2));
	r.page->c[1].want = REPLAY_DONE;
	run_advance(&r, 1, REPLAY_DONE);
	ck_assert(run_may_start(&r, 2));
	run_page_free(&r);
}
END_TEST

START_TEST(a_window_bounds_the_drift)
{
	struct replay_run r = { .window = 4 };

	ck_assert_int_eq(run_page_make(&r, 3), 0);
	r.page->c[0].next = 10;
	r.page->c[1].next = 13;
	r.page->c[2].next = 14;
	ck_assert(run_may_start(&r, 13));
	ck_assert(!run_may_start(&r, 14));
	r.page->c[2].want = 14;
	run_advance(&r, 1, 13);
	ck_assert(!is_woken(&r, 2));
	run_advance(&r, 0, 11);
	ck_assert(is_woken(&r, 2));
	ck_assert(!is_woken(&r, 1));
	run_page_free(&r);
}
END_TEST

static void add(Suite *s, const char *behaviour, const TTest *const tests[])
{
	TCase *tc = tcase_create(behaviour);

	for (; *tests; tests++)
		tcase_add_test(tc, *tests);
	suite_add_tcase(s, tc);
}

int main(void)
{
	Suite *s = suite_create("replay");

	add(s, "bytes", (const TTest *const[]){ filled_plane_verifies,
	    key_shard_and_plane_all_count, bytes_at_another_place_are_wrong,
	    every_single_byte_is_checked, wrong_bytes_are_counted, sample_sees_both_ends,
	    bf16_values_vary_as_far_as_they_may, seed_depends_on_the_whole_key, NULL });
	add(s, "latencies", (const TTest *const[]){ classes_hold_their_values,
	    classes_are_contiguous, quantiles_of_a_ramp, NULL });
	add(s, "plan", (const TTest *const[]){ equal_ids_have_equal_keys,
	    output_keys_are_the_requests_own, capacity_in_each_unit,
	    long_requests_keep_their_leading_blocks, requests_go_to_clients_in_turn,
	    a_session_stays_with_its_client, blocks_of_prompt_and_output,
	    hints_are_right_as_often_as_asked, NULL });
	add(s, "tiers", (const TTest *const[]){ tiers_in_multiples_of_the_pools_blocks,
	    the_disk_file_holds_what_was_asked_for, sizes_are_bytes_or_multiples,
	    a_token_that_nobody_served_does_not_sum, NULL });
	add(s, "turns", (const TTest *const[]){ a_window_of_one_is_the_traces_order,
	    a_window_bounds_the_drift, NULL });
	return suite_run(s);
}
