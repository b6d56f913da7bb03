/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_admin_ask.c - what is asked on the admin socket, and its answers; listings,
 * the statistics page, a recorder's lines.
 */
#include "admin_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kvmd/lib/stats.h"
#include "kvmd/svc/admin.h"
#include "tests/suite.h"

START_TEST(every_question_has_an_answer)
{
	static const char *const lines[] = {
		"status show\n", "stat show\n", "pressure show\n", "space list\n",
		"space show space=one\n", "client list\n", "seq list\n", "block list\n",
		"block show block=1\n", "tenant list\n", "dev list\n", "slab list\n",
		"slab show slab=0\n", "conf show\n", "log show\n", "fault show\n", "check run\n",
		"tier list\n", "tier show tier=hbm\n",
		"drain start slab=0\n", "drain stop slab=0\n", "log level level=err\n",
		"fault arm spec=copy:nth=1000000\n", "fault disarm\n",
	};

	arig_add_blocks(arig_add_space("one"), 5);
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		char *answer = arig_ask(lines[i]);

		ck_assert_msg(!strncmp(answer, "{\"schema\":1,", 12), "%.300s", answer);
		ck_assert_msg(!strstr(answer, "\"error\""), "%s%.300s", lines[i], answer);
		free(answer);
	}
}
END_TEST

START_TEST(bad_requests_are_named)
{
	arig_add_space("one");
	arig_expect("status\n", "\"errno\":22");
	arig_expect("nothing show\n", "no noun 'nothing'");
	arig_expect("status start\n", "no verb 'start'");
	arig_expect("status show space=one\n", "status show takes no 'space'");
	arig_expect("space show\n", "space= is missing");
	arig_expect("space show space=two\n", "\"errno\":2");
	arig_expect("client show session=99\n", "no session 99");
	arig_expect("client show session=x\n", "not a whole number");
	arig_expect("block list limit=0\n", "outside 1 to");
	arig_expect("block list state=odd\n", "no block state 'odd'");
	arig_expect("block show block=3\n", "no such block");
	arig_expect("slab show slab=0\n", "no slab 0");
	arig_expect("slab show slab=99999\n", "outside 0 to");
	arig_expect("explain run space=one\n", "keys= is missing");
	arig_expect("explain run space=one keys=12\n", "key 0: 64 hex digits");
	arig_expect("explain run space=one group=3 keys=12\n", "no group 3");
	arig_expect("space raise space=one epoch=0\n", "outside 1 to");
	arig_expect("fault arm spec=odd\n", "odd");
	arig_expect("log level level=odd\n", "no log level 'odd'");
	arig_expect("block list tier=odd\n", "no tier 'odd'");
	arig_expect("tier show\n", "tier= is missing");
	arig_expect("tier show tier=odd\n", "no tier 'odd'");
	arig_expect("tier show tier=ram\n", "set ram.bytes");
	arig_expect("tier show tier=disk\n", "set disk.path");
	arig_expect("tier drain tier=hbm\n", "kvctl drain");
	arig_expect("tier drain path=/nothing\n", "there is no disk tier");
	arig_expect("tier undrain tier=disk\n", "set disk.path");
	arig_expect("tier add tier=hbm bytes=1\n", "kvmd.conf(5)");
	arig_expect("tier add tier=ram bytes=1\n", "set ram.bytes");
	arig_expect("prefetch run space=one keys=12\n", "nothing below HBM");
	arig_expect("pressure wait\n", "is missing");
	arig_expect("pressure wait permille=10\n", "is missing");
	arig_expect("pressure wait permille=2000 window_ms=1000\n", "outside 1 to");
	arig_expect("pressure wait permille=10 window_ms=1\n", "outside 100 to");
	arig_expect("pressure wait resource=odd permille=1 window_ms=100\n", "no resource 'odd'");
	arig_expect("pressure wait kind=odd permille=1 window_ms=100\n", "no kind 'odd'");
}
END_TEST

START_TEST(listings_go_on_where_they_ended)
{
	char line[64], *answer, *next;
	uint64_t offset = 0;
	int rows = 0;

	arig_add_blocks(arig_add_space("one"), 2500);
	arig_add_blocks(arig_add_space("two"), 100);
	do {
		snprintf(line, sizeof(line), "block list space=one limit=700 offset=%llu\n",
			 (unsigned long long)offset);
		answer = arig_ask(line);
		for (char *s = answer; (s = strstr(s, "{\"block\":")); s++)
			rows++;
		next = strstr(answer, "\"next\":");
		offset = next ? strtoull(next + 7, NULL, 10) : 0;
		free(answer);
	} while (offset);
	ck_assert_int_eq(rows, 2500);
}
END_TEST

START_TEST(explain_walks_the_prefix)
{
	char line[2048] = "explain run space=one keys=", *answer;
	struct space *sp = arig_add_space("one");

	arig_add_blocks(sp, 3);
	/* The last of the three goes, then: 0, 1 hit, 2 was evicted, 9 never was. */
	index_evict(arig.d->ix, pool_block(arig.d->pool, 3), KVMD_MISS_EVICTED);
	for (uint32_t i = 0; i < 4; i++)
		sprintf(line + strlen(line), "%s%02x%062d", i ? "," : "", i == 3 ? 9 : i, 0);
	strcat(line, "\n");
	answer = arig_ask(line);
	ck_assert_ptr_nonnull(strstr(answer, "\"leading_hits\":2"));
	ck_assert_ptr_nonnull(strstr(answer, "\"hit\":false,\"reason\":\"evicted\""));
	ck_assert_ptr_nonnull(strstr(answer, "\"hit\":false,\"reason\":\"never\""));
	free(answer);
	/* Without its parent a block that is there is no hit. */
	sprintf(line, "explain run space=one keys=%02x%062d,%02x%062d\n", 9, 0, 1, 0);
	answer = arig_ask(line);
	ck_assert_ptr_nonnull(strstr(answer, "\"leading_hits\":0"));
	ck_assert_ptr_nonnull(strstr(answer, "\"reason\":\"behind\""));
	free(answer);
}
END_TEST

START_TEST(drop_takes_idle_chains_only)
{
	struct space *one = arig_add_space("one"), *two = arig_add_space("two");
	struct block *b;

	arig_add_blocks(one, 1500);
	arig_add_blocks(two, 10);
	b = pool_block(arig.d->pool, 1000);
	/* It keeps itself and what it hangs from. */
	index_get(arig.d->ix, pool_gpool(arig.d->pool, b), b);
	arig_expect("space drop space=one\n", "\"dropped_blocks\":500");
	index_put(arig.d->ix, b);
	arig_expect("space drop all=1\n", "\"dropped_blocks\":1010");
	arig_expect("check run\n", "\"ok\":true");
	ck_assert_uint_eq(arig.d->ix->nr, 0);
}
END_TEST

START_TEST(the_stats_page_is_handed_over)
{
	char ctl[CMSG_SPACE(sizeof(int))], buf[256];
	struct iovec iov = { buf, sizeof(buf) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = ctl,
			    .msg_controllen = sizeof(ctl) };
	const struct kvmd_stats_page *page;
	int fd = arig_dial(), got;

	arig_say(fd, "stat fd\n");
	while (recvmsg(fd, &m, MSG_CMSG_CLOEXEC) < 0)
		uring_poll(arig.d->u);
	ck_assert_ptr_nonnull(CMSG_FIRSTHDR(&m));
	memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(got));
	page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, got, 0);
	ck_assert_ptr_ne(page, MAP_FAILED);
	ck_assert_uint_eq(page->nr, KVMD_NR_STAT);
	stat_inc(CANCELS);
	ck_assert_uint_eq(page->val[KVMD_STAT_CANCELS], 1);
	ck_assert_ptr_eq(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, got, 0), MAP_FAILED);
	munmap((void *)(uintptr_t)page, 4096);
	close(got);
	close(fd);
}
END_TEST

/* An open of @nr keys, as the session room tells it. */
static void open_request(struct session *s, uint32_t nr)
{
	static uint8_t keys[4096 * KVMD_KEY_BYTES] __attribute__((aligned(8)));
	struct op op = { .s = s, .e.first = nr * 16 - 3 };

	for (uint32_t i = 0; i < nr; i++)
		keys[i * KVMD_KEY_BYTES + 7] = (uint8_t)(i + 1);
	s->args = (char *)keys;
	op.list[0].nr = nr;
	admin_trace_open(s, &op);
}

/* Lines that come until there are no more. */
static char *drain_lines(int fd)
{
	size_t len = 0, cap = 8 << 20;
	char *buf = malloc(cap);
	int quiet = 0;

	while (quiet < 100) {
		ssize_t n = recv(fd, buf + len, cap - len - 1, 0);

		uring_poll(arig.d->u);
		quiet = n > 0 ? 0 : quiet + 1;
		len += n > 0 ? (size_t)n : 0;
	}
	buf[len] = '\0';
	return buf;
}

static unsigned count(const char *s, const char *what)
{
	unsigned nr = 0;

	for (; (s = strstr(s, what)); s++)
		nr++;
	return nr;
}

START_TEST(a_recorder_gets_a_line_per_open)
{
	struct session s = { .d = arig.d, .serial = 7, .sp = arig_add_space("one") };
	struct session other = { .d = arig.d, .serial = 8, .sp = arig_add_space("two") };
	int fd = arig_dial();
	char *text;

	open_request(&s, 3);		/* nobody records yet */
	arig_say(fd, "trace start space=one\n");
	text = drain_lines(fd);
	ck_assert_ptr_nonnull(strstr(text, "\"recording\":true"));
	free(text);
	open_request(&s, 3);
	open_request(&s, 3);
	open_request(&other, 3);
	text = drain_lines(fd);
	ck_assert_uint_eq(count(text, "\n"), 2);
	ck_assert_uint_eq(count(text, "\"session\":7,\"hash_ids\":[\"0000000000000001\","
				"\"0000000000000002\",\"0000000000000003\"]}\n"), 2);
	ck_assert_uint_eq(count(text, "\"input_length\":45,\"output_length\":0,"
				"\"block_tokens\":16"), 2);
	free(text);
	close(fd);
	for (int t = 0; t < 50; t++)
		uring_poll(arig.d->u);
	ck_assert_uint_eq(arig.d->admin->nr_recorders, 0);
	open_request(&s, 3);
}
END_TEST

START_TEST(a_slow_recorder_loses_lines_and_is_told)
{
	struct session s = { .d = arig.d, .serial = 7, .sp = arig_add_space("one") };
	unsigned lines, lost = 0;
	int fd = arig_dial();
	char *text, *p;

	arig_say(fd, "trace start buffer_bytes=100000\n");
	free(drain_lines(fd));
	for (int i = 0; i < 1000; i++) {
		open_request(&s, 200);
		uring_poll(arig.d->u);
	}
	text = drain_lines(fd);
	lines = count(text, "\"hash_ids\"");
	ck_assert_uint_lt(lines, 1000);
	free(text);
	/* There is room again: the loss is told, then the line. */
	open_request(&s, 1);
	text = drain_lines(fd);
	for (p = text; (p = strstr(p, "{\"lost\":")); p++)
		lost += (unsigned)strtoul(p + 8, NULL, 10);
	ck_assert_uint_eq(count(text, "\"hash_ids\""), 1);
	ck_assert_uint_eq(lines + lost, 1000);
	free(text);
	/* More keys than the buffer could ever hold. */
	open_request(&s, 4096);
	open_request(&s, 4096);
	open_request(&s, 1);
	text = drain_lines(fd);
	ck_assert_uint_le(count(text, "\"hash_ids\""), 3);
	free(text);
	close(fd);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("admin_ask");
	TCase *tc = arig_group(s, "questions");

	tcase_add_test(tc, every_question_has_an_answer);
	tcase_add_test(tc, bad_requests_are_named);
	tcase_add_test(tc, listings_go_on_where_they_ended);
	tcase_add_test(tc, explain_walks_the_prefix);
	tcase_add_test(tc, drop_takes_idle_chains_only);
	tcase_add_test(tc, the_stats_page_is_handed_over);
	tcase_add_test(tc, a_recorder_gets_a_line_per_open);
	tcase_add_test(tc, a_slow_recorder_loses_lines_and_is_told);
	return suite_run(s);
}
