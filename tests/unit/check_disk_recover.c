// SPDX-License-Identifier: Apache-2.0
/*
 * check_disk_recover.c - the disk tier after a restart: what comes back, what must
 * not, what a broken file costs.
 */
#include "disk_rig.h"

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kvmd/lib/fault.h"
#include "kvmd/tier/disk_int.h"
#include "tests/quiet.h"
#include "tests/suite.h"

/* A restart in which the space is opened at once when recovery is over. */
static void restart(void)
{
	drig_reopen(&drig);
	drig_space(&drig, 0, disk_space_epoch(drig.t, "default", "space-0"));
	drig_check(&drig);
}

/* ---------------------------------------------------------------- what comes back */

START_TEST(all_comes_back_after_an_ordered_stop)
{
	drig_open_one(&drig);
	drig_fill(&drig, 1, 50);
	drig_close(&drig, true);
	restart();
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 50), 50);
	ck_assert_uint_eq(drig_info(&drig).nr_parked, 0);
	ck_assert_str_eq(drig_info(&drig).text, "");
	/* It goes on from there. */
	drig_fill(&drig, 51, 60);
	drig_close(&drig, true);
	restart();
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 110), 110);
}
END_TEST

START_TEST(what_was_told_comes_back_after_a_kill)
{
	drig_open_one(&drig);
	drig_fill(&drig, 1, 50);
	drig_close(&drig, false);
	restart();
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 50), 50);
}
END_TEST

START_TEST(blocks_are_parked_until_their_space_is_opened)
{
	drig_open_one(&drig);
	drig_space(&drig, 1, 1);
	for (uint32_t n = 1; n <= 20; n++) {
		drig_block(&drig, n, n % 2, 0);
		ck_assert_int_eq(drig_write(&drig, n), 0);
	}
	drig_reopen(&drig);
	ck_assert_uint_eq(drig.nr_parked, 20);
	ck_assert_uint_eq(drig_info(&drig).nr_parked, 20);
	drig_check(&drig);
	drig_space(&drig, 1, 1);
	ck_assert_uint_eq(drig.nr_taken, 10);
	ck_assert_uint_eq(drig_info(&drig).nr_parked, 10);
	drig_check(&drig);
	/* The tier is used meanwhile. */
	drig_space(&drig, 0, 1);
	drig_fill(&drig, 30, 10);
	ck_assert_uint_eq(drig.nr_taken, 20);
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 39), 30);
	ck_assert_uint_eq(drig_info(&drig).nr_parked, 0);
	drig_check(&drig);
}
END_TEST

START_TEST(a_space_is_opened_in_the_middle)
{
	for (unsigned k = 1; k <= 40; k += 13) {
		drig_open_one(&drig);
		drig_fill(&drig, 1, 40);
		drig_close(&drig, true);
		/* The parents were parked; the children come when their space is open. */
		drig.open_after = k;
		drig_reopen(&drig);
		drig_quiet(&drig);
		ck_assert_uint_eq(drig_nr_there(&drig, 1, 40), 40);
		ck_assert_uint_eq(drig_info(&drig).nr_parked, 0);
		drig_check(&drig);
		drig.open_after = 0;
		drig_close(&drig, true);
		unlink(drig.path[0]);
		memset(drig.rec, 0, sizeof(drig.rec));
		drig_space_close(&drig, 0);
	}
}
END_TEST

START_TEST(parked_blocks_go_when_their_room_is_needed)
{
	drig_open_one(&drig);
	drig_space(&drig, 1, 1);
	for (uint32_t n = 1; n <= 100; n++) {
		drig_block(&drig, n, 1, 0);
		ck_assert_int_eq(drig_write(&drig, n), 0);
	}
	drig_reopen(&drig);
	ck_assert_uint_eq(drig_info(&drig).nr_parked, 100);
	drig_space(&drig, 0, 1);
	drig_fill_roots(&drig, 200, 500);
	drig_quiet(&drig);
	ck_assert_uint_lt(drig_info(&drig).nr_parked, 100);
	drig_check(&drig);
	drig_space(&drig, 1, 1);
	ck_assert_uint_lt(drig_nr_there(&drig, 1, 100), 100);
	drig_check(&drig);
}
END_TEST

START_TEST(children_wait_for_their_parents)
{
	drig_open_one(&drig);
	/* Written last first: 40 is the root, 1 the leaf. */
	for (uint32_t n = 40; n; n--)
		drig_block(&drig, n, 0, n < 40 ? n + 1 : 0);
	for (uint32_t n = 1; n <= 40; n++)
		ck_assert_int_eq(drig_write(&drig, n), 0);
	restart();
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 40), 40);
	for (uint32_t n = 1; n < 40; n++)
		ck_assert_uint_eq(drig.rec[n].parent, n + 1);
	/* One reading of the summaries was enough: each was asked for once, then taken. */
	ck_assert_uint_le(drig.nr_later, 39);
}
END_TEST

START_TEST(more_orphans_than_can_be_remembered)
{
	drig_open_one(&drig);
	for (uint32_t n = 60; n; n--)
		drig_block(&drig, n, 0, n < 60 ? n + 1 : 0);
	for (uint32_t n = 1; n <= 60; n++)
		ck_assert_int_eq(drig_write(&drig, n), 0);
	disk_forget(drig.t, drig.rec[20].place);
	drig.rec[20].place = 0;
	drig_quiet(&drig);
	drig.orphan_most = 3;
	restart();
	ck_assert_uint_eq(drig_nr_there(&drig, 21, 40), 40);
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 20), 0);
	ck_assert_uint_eq(drig_info(&drig).nr_parked, 0);
	drig_check(&drig);
}
END_TEST

START_TEST(orphans_are_dropped)
{
	drig_open_one(&drig);
	drig_fill(&drig, 1, 12);
	disk_forget(drig.t, drig.rec[4].place);
	drig.rec[4].place = 0;
	drig_quiet(&drig);
	restart();
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 3), 3);
	ck_assert_uint_eq(drig_nr_there(&drig, 4, 9), 0);
	ck_assert_uint_eq(drig_info(&drig).nr_parked, 0);
	ck_assert_uint_eq(drig_info(&drig).nr_places, 3);
	drig_check(&drig);
}
END_TEST

START_TEST(what_is_forgotten_stays_so)
{
	drig_open_one(&drig);
	for (uint32_t n = 1; n <= 40; n++) {
		drig_block(&drig, n, 0, 0);
		ck_assert_int_eq(drig_write(&drig, n), 0);
	}
	drig_quiet(&drig);
	for (uint32_t n = 3; n <= 40; n += 4) {		/* of sealed and of open segments */
		disk_forget(drig.t, drig.rec[n].place);
		drig.rec[n].place = 0;
	}
	drig_quiet(&drig);
	drig_check(&drig);
	restart();
	for (uint32_t n = 1; n <= 40; n++)
		ck_assert_int_eq(!drig.rec[n].place, n % 4 == 3);
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 40), 30);
}
END_TEST

START_TEST(forgotten_while_it_is_written)
{
	static struct drig_req q[8];

	drig_open_one(&drig);
	for (uint32_t n = 1; n <= 8; n++) {
		drig_block(&drig, n, 0, 0);
		ck_assert(drig_write_start(&drig, &q[n - 1], n, n * drig.block_bytes));
	}
	for (uint32_t n = 1; n <= 8; n++) {
		drig_step(&drig);
		disk_forget(drig.t, drig.rec[n].place);
		drig.rec[n].place = 0;
	}
	for (uint32_t n = 1; n <= 8; n++)
		drig_until(&drig, q[n - 1].over);
	drig_quiet(&drig);
	drig_check(&drig);
	restart();
	ck_assert_uint_eq(drig.nr_taken, 0);
}
END_TEST

START_TEST(former_uses_of_a_segment_are_not_there)
{
	drig_open_one(&drig);
	for (uint32_t n = 1; n <= 1500; n++) {
		drig_block(&drig, n, 0, 0);
		drig.rec[n].keep = n % 32 == 0 && n > 700;
		drig_until(&drig, drig_write(&drig, n) == 0);
	}
	ck_assert_uint_gt(drig.nr_moved, 0);
	drig_close(&drig, false);
	restart();
	/* Twice the file was written over; whatever is found is right. */
	ck_assert_uint_gt(drig_nr_there(&drig, 1, 1500), 100);
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 600), 0);
	for (uint32_t n = 704; n <= 1500; n += 32)
		ck_assert_msg(drig.rec[n].place, "block %u, lost %u", n, drig.nr_lost);
	drig_check(&drig);
}
END_TEST

/* ------------------------------------------------------------------------ spaces */

START_TEST(a_raised_epoch_is_durable)
{
	drig_open_one(&drig);
	drig_fill(&drig, 1, 10);
	drig_raise(&drig, 0, 7);
	ck_assert_int_eq(drig.raised, 0);
	drig_block(&drig, 20, 0, 0);
	ck_assert_int_eq(drig_write(&drig, 20), 0);
	drig_reopen(&drig);
	ck_assert_uint_eq(disk_space_epoch(drig.t, "default", "space-0"), 7);
	ck_assert_uint_eq(disk_space_epoch(drig.t, "default", "nobody"), 0);
	drig_space(&drig, 0, 7);
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 10), 0);
	ck_assert_uint_eq(drig_nr_there(&drig, 20, 1), 1);
	drig_check(&drig);
}
END_TEST

START_TEST(one_broken_page_brings_no_epoch_back)
{
	drig_open_one(&drig);
	drig_fill(&drig, 1, 10);
	drig_raise(&drig, 0, 7);
	for (unsigned copy = 0; copy < 2; copy++) {
		drig_close(&drig, false);
		drig_flip(&drig, 0, disk_space_at(0, copy) + 200);
		drig_reopen(&drig);
		ck_assert_uint_eq(disk_space_epoch(drig.t, "default", "space-0"), 7);
		drig_space(&drig, 0, 7);
		drig_raise(&drig, 0, 7);	/* writes both again */
		ck_assert_uint_eq(drig_nr_there(&drig, 1, 10), 0);
	}
}
END_TEST

START_TEST(another_geometry_does_not_hit)
{
	drig_open_one(&drig);
	drig_fill(&drig, 1, 10);
	drig_reopen(&drig);
	drig.block_bytes = 128 << 10;
	drig_space(&drig, 0, 1);
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 10), 0);
	ck_assert_uint_eq(drig_info(&drig).nr_parked, 0);
	/* Nor when it is the first one again. */
	drig.block_bytes = 64 << 10;
	drig_reopen(&drig);
	drig_space(&drig, 0, 1);
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 10), 0);
	drig_check(&drig);
}
END_TEST

START_TEST(a_failed_raise_says_so)
{
	drig_open_one(&drig);
	ck_assert_int_eq(fault_arm("write:nth=1", NULL, 0), 0);
	drig_raise(&drig, 0, 3);
	ck_assert_int_eq(drig.raised, -EIO);
	fault_disarm();
	drig_raise(&drig, 0, 3);
	ck_assert_int_eq(drig.raised, 0);
}
END_TEST

/* ------------------------------------------------------------------ broken bytes */

/* 12 blocks, closed; a bit at @at is flipped; restarted. */
static void flip_and_restart(uint64_t at)
{
	drig_close(&drig, true);
	drig_flip(&drig, 0, at);
	restart();
}

START_TEST(a_flipped_bit_in_a_superblock)
{
	drig_open_one(&drig);
	drig_fill(&drig, 1, 12);
	flip_and_restart(100);
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 12), 12);
	ck_assert(strstr(drig_info(&drig).text, "superblock"));
	drig_close(&drig, true);
	drig_flip(&drig, 0, 5000);
	/* The first copy is still broken: nothing is guessed, nothing is overwritten. */
	ck_assert_int_eq(drig_try_open(&drig), -EINVAL);
	ck_assert(strstr(drig.msg, drig.path[0]) && strstr(drig.msg, "offset"));
	drig_flip(&drig, 0, 5000);
	restart();
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 12), 12);
}
END_TEST

START_TEST(a_flipped_bit_in_the_second_superblock)
{
	drig_open_one(&drig);
	drig_fill(&drig, 1, 12);
	flip_and_restart(4096 + 40);
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 12), 12);
}
END_TEST

START_TEST(a_flipped_bit_in_a_head)
{
	uint64_t at;

	drig_open_one(&drig);
	drig_fill(&drig, 1, 40);
	at = drig_header_at(&drig, 1) - DISK_ALIGN;
	flip_and_restart(at + 20);
	ck_assert(strstr(drig_info(&drig).text, "head is broken"));
	/* Chains through the lost segment are gone; no block of it is wrong. */
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 16), 0);
	drig_check(&drig);
	/* Its segment is used again, above all generations it has seen. */
	drig_fill_roots(&drig, 100, 500);
	restart();
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 40), 0);
	ck_assert_uint_gt(drig_nr_there(&drig, 100, 500), 100);
}
END_TEST

START_TEST(a_flipped_bit_in_a_header)
{
	uint64_t at;

	drig_open_one(&drig);
	for (uint32_t n = 1; n <= 20; n++) {
		drig_block(&drig, n, 0, 0);
		ck_assert_int_eq(drig_write(&drig, n), 0);
	}
	drig_quiet(&drig);
	at = drig_header_at(&drig, 5);
	for (unsigned byte = 0; byte < 128; byte += 9) {
		drig_close(&drig, true);
		drig_flip(&drig, 0, at + byte);
		restart();
		ck_assert_uint_eq(drig_nr_there(&drig, 1, 20), 19);
		ck_assert_uint_eq(drig.rec[5].place, 0);
		if (byte >= 9)
			ck_assert(strstr(drig_info(&drig).text, "headers are broken"));
		drig_close(&drig, true);
		drig_flip(&drig, 0, at + byte);
	}
}
END_TEST

START_TEST(a_torn_page_of_headers)
{
	uint8_t zero[300] = { 0 };
	uint64_t at;

	drig_open_one(&drig);
	for (uint32_t n = 1; n <= 10; n++) {
		drig_block(&drig, n, 0, 0);
		ck_assert_int_eq(drig_write(&drig, n), 0);
	}
	at = drig_header_at(&drig, 6);
	drig_close(&drig, false);
	drig_poke(&drig, 0, at - 22, zero, sizeof(zero));	/* ends in 5, all of 6, begins 8 */
	restart();
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 10), 6);
	ck_assert_uint_ne(drig.rec[9].place, 0);
	drig_check(&drig);
}
END_TEST

START_TEST(a_flipped_bit_in_a_payload)
{
	uint64_t at;

	drig_open_one(&drig);
	drig_fill(&drig, 1, 12);
	at = drig_data_at(&drig, 7);
	flip_and_restart(at + 65535);
	ck_assert_uint_ne(drig.rec[7].place, 0);
	ck_assert_int_eq(drig_read(&drig, 7), -EBADMSG);
	ck_assert(drig.rec[7].lost);
	ck_assert(strstr(drig_info(&drig).text, "offset"));
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 12), 11);
	drig_check(&drig);
}
END_TEST

START_TEST(summaries_that_cannot_be_read)
{
	drig_open_one(&drig);
	drig_fill(&drig, 1, 40);
	drig_close(&drig, true);
	/* All of them at once fail; then one by one, and one of these. */
	ck_assert_int_eq(fault_arm("read:nth=1", NULL, 0), 0);
	restart();
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 40), 40);
	fault_disarm();
	drig_close(&drig, true);
	ck_assert_int_eq(fault_arm("read:every=1,times=2", NULL, 0), 0);
	restart();
	fault_disarm();
	ck_assert_msg(strstr(drig_info(&drig).text, "summary of segment "), "%s",
		      drig_info(&drig).text);
	ck_assert_uint_le(drig_nr_there(&drig, 1, 40), 40);
	drig_check(&drig);
}
END_TEST

/* ------------------------------------------------------------------- crash points */

struct crash {
	const char *spec;
	uint32_t seed;
};

/* Writes, frees, moves, until it is killed. */
static void work(struct drig *d, void *arg)
{
	const struct crash *c = arg;
	uint32_t x = c->seed * 2654435761u + 1;

	drig_reopen(d);
	drig_space(d, 0, 1);
	if (fault_arm(c->spec, NULL, 0))
		_exit(3);
	for (uint32_t n = 1; n < 1200; n++) {
		x ^= x << 13;
		x ^= x >> 17;
		x ^= x << 5;
		if (d->rec[n].place)
			continue;
		drig_block(d, n, 0, 0);
		d->rec[n].keep = x % 8 == 0;
		drig_until(d, drig_write(d, n) == 0);
		if (x % 5 == 0)
			drig_free(d, n);
	}
}

static void crash_at(const char *spec, uint32_t seed)
{
	struct crash c = { spec, seed };
	int status = drig_child(&drig, work, &c);

	ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%s: status %x", spec,
		      status);
	restart();
	for (uint32_t n = 1; n < 1200; n++) {
		if (drig.rec[n].place)
			quiet_assert_int_eq(drig_read(&drig, n), 0);
	}
	/* It still stores. */
	drig_block(&drig, 4000, 0, 0);
	drig_until(&drig, drig_write(&drig, 4000) == 0);
	drig_quiet(&drig);
	drig_check(&drig);
	drig_close(&drig, seed % 2);
}

START_TEST(killed_at_each_point)
{
	static const char *const specs[] = {
		"crash-data:nth=1", "crash-data:nth=20",
		"crash-header:nth=1", "crash-header:nth=17",
		"crash-seal:nth=1", "crash-seal:nth=3", "crash-sync:nth=1", "crash-sync:nth=2",
		"crash-compact:nth=1", "crash-compact:nth=9",
	};

	for (size_t i = 0; i < ARRAY_SIZE(specs); i++)
		crash_at(specs[i], (uint32_t)i + 1);
}
END_TEST

static void fill_and_die(struct drig *d, void *arg)
{
	(void)arg;
	drig_open(d);
	drig_space(d, 0, 1);
	for (uint32_t n = 1; n <= 100; n++) {
		drig_block(d, n, 0, n - 1);
		if (drig_write(d, n))
			_exit(4);
	}
	kill(getpid(), SIGKILL);
}

static void recover_and_die(struct drig *d, void *arg)
{
	if (fault_arm(arg, NULL, 0))
		_exit(3);
	drig_reopen(d);
	drig_space(d, 0, 1);	/* dies while blocks are being adopted */
}

START_TEST(what_was_told_is_there_after_two_kills_in_recovery)
{
	int status = drig_child(&drig, fill_and_die, NULL);

	ck_assert(WIFSIGNALED(status));
	status = drig_child(&drig, recover_and_die, "crash-recover:nth=30");
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	status = drig_child(&drig, recover_and_die, "crash-recover:nth=70");
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	restart();
	for (uint32_t n = 1; n <= 100; n++)
		ck_assert(drig.acked[n] && drig.rec[n].place);
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 100), 100);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("disk_recover");

	drig_add(s, "all comes back after an ordered stop", all_comes_back_after_an_ordered_stop);
	drig_add(s, "what was told comes back after a kill", what_was_told_comes_back_after_a_kill);
	drig_add(s, "blocks are parked until their space is opened",
		 blocks_are_parked_until_their_space_is_opened);
	drig_add(s, "a space is opened in the middle", a_space_is_opened_in_the_middle);
	drig_add(s, "parked blocks go when their room is needed",
		 parked_blocks_go_when_their_room_is_needed);
	drig_add(s, "children wait for their parents", children_wait_for_their_parents);
	drig_add(s, "more orphans than can be remembered", more_orphans_than_can_be_remembered);
	drig_add(s, "orphans are dropped", orphans_are_dropped);
	drig_add(s, "what is forgotten stays so", what_is_forgotten_stays_so);
	drig_add(s, "forgotten while it is written", forgotten_while_it_is_written);
	drig_add(s, "former uses of a segment are not there",
		 former_uses_of_a_segment_are_not_there);
	drig_add(s, "a raised epoch is durable", a_raised_epoch_is_durable);
	drig_add(s, "one broken page brings no epoch back", one_broken_page_brings_no_epoch_back);
	drig_add(s, "another geometry does not hit", another_geometry_does_not_hit);
	drig_add(s, "a failed raise says so", a_failed_raise_says_so);
	drig_add(s, "a flipped bit in a superblock", a_flipped_bit_in_a_superblock);
	drig_add(s, "a flipped bit in the second superblock",
		 a_flipped_bit_in_the_second_superblock);
	drig_add(s, "a flipped bit in a head", a_flipped_bit_in_a_head);
	drig_add(s, "a flipped bit in a header", a_flipped_bit_in_a_header);
	drig_add(s, "a torn page of headers", a_torn_page_of_headers);
	drig_add(s, "a flipped bit in a payload", a_flipped_bit_in_a_payload);
	drig_add(s, "summaries that cannot be read", summaries_that_cannot_be_read);
	drig_add(s, "killed at each point", killed_at_each_point);
	drig_add(s, "what was told is there after two kills in recovery",
		 what_was_told_is_there_after_two_kills_in_recovery);
	return suite_run(s);
}
