// SPDX-License-Identifier: Apache-2.0
/*
 * check_disk_set.c - the files of the disk tier: found, made, refused, striped,
 * added, drained.
 */
#include "disk_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kvmd/lib/fault.h"
#include "kvmd/tier/disk_int.h"

static struct drig r;

static void setup(void)
{
	drig_init(&r);
}

static void teardown(void)
{
	fault_disarm();
	drig_exit(&r);
}

static void open_one(void)
{
	drig_open(&r);
	drig_space(&r, 0, 1);
}

static unsigned nr_there(uint32_t first, uint32_t nr)
{
	unsigned there = 0;

	for (uint32_t n = first; n < first + nr; n++) {
		if (!r.rec[n].place)
			continue;
		ck_assert_int_eq(drig_read(&r, n), 0);
		there++;
	}
	return there;
}

static void fill_roots(uint32_t first, uint32_t nr)
{
	for (uint32_t n = first; n < first + nr; n++) {
		drig_block(&r, n, 0, 0);
		drig_until(&r, drig_write(&r, n) == 0);
	}
}

static void make_file(const char *path, const void *p, size_t bytes, off_t size)
{
	int fd = open(path, O_RDWR | O_CREAT, 0600);

	ck_assert_int_ge(fd, 0);
	if (bytes)
		ck_assert_int_eq(write(fd, p, bytes), (ssize_t)bytes);
	if (size)
		ck_assert_int_eq(ftruncate(fd, size), 0);
	close(fd);
}

static uint64_t size_of(const char *path)
{
	struct stat st;

	ck_assert_int_eq(stat(path, &st), 0);
	return (uint64_t)st.st_size;
}

static void refused(int err, const char *word)
{
	ck_assert_int_eq(drig_try_open(&r), err);
	ck_assert_msg(strstr(r.msg, word), "'%s' is not in: %s", word, r.msg);
	ck_assert_msg(strstr(r.msg, r.dir), "no path in: %s", r.msg);
}

/* ------------------------------------------------------------------ what is refused */

START_TEST(a_file_is_made_as_large_as_it_is_said)
{
	struct stat st;

	open_one();
	ck_assert_int_eq(stat(r.path[0], &st), 0);
	ck_assert_uint_eq((uint64_t)st.st_size, r.o.bytes);
	ck_assert_uint_ge((uint64_t)st.st_blocks * 512, r.o.bytes);	/* all of it is allocated */
	ck_assert_uint_eq(st.st_mode & 077, 0);
	ck_assert_uint_ge(r.t->bytes, 16ull << 20);
}
END_TEST

START_TEST(a_locked_file_is_busy)
{
	struct tier *first;

	open_one();
	first = r.t;
	r.t = NULL;
	r.o.file_base = 10;
	refused(-EBUSY, "another daemon");
	r.o.file_base = 2;
	r.t = first;
	drig_fill(&r, 1, 3);
	ck_assert_uint_eq(nr_there(1, 3), 3);
}
END_TEST

START_TEST(what_is_not_ours_is_left_alone)
{
	char text[8192], now[8192];

	memset(text, 'x', sizeof(text));
	make_file(r.path[0], text, sizeof(text), 0);
	refused(-EINVAL, "not ours");
	drig_peek(&r, 0, 0, now, sizeof(now));
	ck_assert_mem_eq(now, text, sizeof(now));
	ck_assert_uint_eq(size_of(r.path[0]), sizeof(text));
	unlink(r.path[0]);
	make_file(r.path[0], text, 100, 0);
	refused(-EINVAL, "not ours");
	ck_assert_uint_eq(size_of(r.path[0]), 100);
	/* Zeros at the beginning are not enough. */
	unlink(r.path[0]);
	make_file(r.path[0], NULL, 0, 20 << 20);
	drig_poke(&r, 0, 64 << 10, text, 512);
	refused(-EINVAL, "not ours");
}
END_TEST

START_TEST(an_empty_file_and_one_of_zeros_are_used)
{
	make_file(r.path[0], NULL, 0, 0);
	open_one();
	ck_assert_uint_eq(size_of(r.path[0]), r.o.bytes);
	drig_close(&r, true);
	unlink(r.path[0]);
	make_file(r.path[0], NULL, 0, 30 << 20);
	open_one();
	ck_assert_uint_eq(size_of(r.path[0]), 30u << 20);
	drig_fill(&r, 1, 3);
	ck_assert_uint_eq(nr_there(1, 3), 3);
}
END_TEST

START_TEST(another_version_is_refused)
{
	struct disk_super s;

	open_one();
	drig_close(&r, true);
	drig_peek(&r, 0, 0, &s, sizeof(s));
	disk_super_finish(&s);
	s.version = 9;
	s.crc = disk_crc(&s, offsetof(struct disk_super, crc));
	drig_poke(&r, 0, 0, &s, sizeof(s));
	drig_poke(&r, 0, 4096, &s, sizeof(s));
	refused(-EINVAL, "version 9");
	drig_peek(&r, 0, 0, &s, sizeof(s));
	ck_assert_uint_eq(s.version, 9);
}
END_TEST

START_TEST(no_room_for_it)
{
	r.o.bytes = 1ull << 43;		/* 8 TiB */
	ck_assert_int_lt(drig_try_open(&r), 0);
	ck_assert_msg(strstr(r.msg, "8796093022208") && strstr(r.msg, r.path[0]), "%s", r.msg);
	ck_assert_int_ne(access(r.path[0], F_OK), 0);	/* what was begun is gone */
	r.o.bytes = 1 << 20;
	refused(-EINVAL, "too few");
}
END_TEST

START_TEST(a_small_file_has_small_segments)
{
	r.o.segment_bytes = 64 << 20;
	r.o.bytes = 48 << 20;
	open_one();
	ck_assert_uint_ge(drig_info(&r).nr_segments, 16);
	drig_fill(&r, 1, 30);
	ck_assert_uint_eq(nr_there(1, 30), 30);
}
END_TEST

START_TEST(a_crash_while_a_file_is_added)
{
	struct disk_super s;
	char msg[256];

	open_one();
	drig_fill(&r, 1, 20);
	drig_files(&r, 2);
	ck_assert_int_eq(disk_add_path(r.t, r.path[1], 20 << 20, msg, sizeof(msg)), 0);
	drig_close(&r, false);		/* before the superblock of the first says so */
	drig_peek(&r, 0, 0, &s, sizeof(s));
	ck_assert_uint_eq(s.nr_files, 1);
	drig_reopen(&r);
	drig_space(&r, 0, 1);
	ck_assert_uint_eq(nr_there(1, 20), 20);
	ck_assert_uint_eq(drig_info(&r).nr_files, 2);
	drig_check(&r);
}
END_TEST

START_TEST(what_cannot_be_opened)
{
	r.o.path[0] = "/tmp/kvmd-no-such-directory/kv.img";
	ck_assert_int_eq(drig_try_open(&r), -ENOENT);
	ck_assert(strstr(r.msg, r.o.path[0]));
	r.o.path[0] = r.dir;
	refused(-EINVAL, "neither a file nor");
}
END_TEST

/* ------------------------------------------------------------- served all the same */

START_TEST(a_read_only_file_is_served)
{
	open_one();
	drig_fill(&r, 1, 20);
	drig_close(&r, true);
	ck_assert_int_eq(chmod(r.path[0], 0400), 0);
	drig_reopen(&r);
	ck_assert(r.t->broken);
	ck_assert(strstr(drig_info(&r).text, "read-only"));
	drig_space(&r, 0, 1);
	ck_assert_uint_eq(nr_there(1, 20), 20);
	drig_block(&r, 30, 0, 0);
	ck_assert_int_eq(drig_write(&r, 30), -ENOSPC);
	drig_raise(&r, 0, 2);
	ck_assert_int_eq(r.raised, -EROFS);
	drig_free(&r, 3);
	disk_forget(r.t, r.rec[4].place);
	r.rec[4].place = 0;
	drig_check(&r);
	drig_close(&r, true);
}
END_TEST

START_TEST(a_truncated_file_serves_what_it_has)
{
	open_one();
	fill_roots(1, 60);
	drig_close(&r, true);
	/* Data of segments 2 and up is gone, by half a segment and more. */
	ck_assert_int_eq(truncate(r.path[0], (5 << 20) + (1 << 19)), 0);
	drig_reopen(&r);
	ck_assert_msg(strstr(drig_info(&r).text, "are lost") &&
		      strstr(drig_info(&r).text, "5767168"), "%s", drig_info(&r).text);
	drig_space(&r, 0, 1);
	ck_assert_uint_gt(nr_there(1, 60), 15);
	ck_assert_uint_lt(nr_there(1, 60), 60);
	drig_check(&r);
	ck_assert_uint_eq(size_of(r.path[0]), (5u << 20) + (1 << 19));
}
END_TEST

/* -------------------------------------------------------------------------- sets */

static bool is_in(uint32_t n, unsigned file)
{
	return r.rec[n].place >> DISK_PLACE_BITS == file;
}

START_TEST(blocks_are_striped)
{
	unsigned nr[3] = { 0 };

	drig_files(&r, 3);
	open_one();
	drig_fill(&r, 1, 60);
	for (uint32_t n = 1; n <= 60; n++)
		nr[r.rec[n].place >> DISK_PLACE_BITS]++;
	for (unsigned i = 0; i < 3; i++)
		ck_assert_uint_eq(nr[i], 20);
	drig_close(&r, true);
	drig_reopen(&r);
	drig_space(&r, 0, 1);
	ck_assert_uint_eq(nr_there(1, 60), 60);
	drig_check(&r);
}
END_TEST

START_TEST(a_set_is_whole_or_refused)
{
	drig_files(&r, 2);
	open_one();
	drig_fill(&r, 1, 10);
	drig_close(&r, true);
	drig_files(&r, 1);
	refused(-EINVAL, "has 2 files, 1 are given");
	/* Two sets. */
	unlink(r.path[1]);
	r.o.path[0] = r.path[1];
	r.o.path[1] = NULL;
	drig_open(&r);
	drig_close(&r, true);
	drig_files(&r, 2);
	refused(-EINVAL, "different sets");
	/* In another order, whole. */
	unlink(r.path[0]);
	unlink(r.path[1]);
	open_one();
	drig_fill(&r, 1, 10);
	drig_close(&r, true);
	r.o.path[0] = r.path[1];
	r.o.path[1] = r.path[0];
	drig_reopen(&r);
	drig_space(&r, 0, 1);
	ck_assert_uint_eq(nr_there(1, 10), 10);
}
END_TEST

START_TEST(a_file_is_added)
{
	char msg[256] = "";

	open_one();
	drig_fill(&r, 1, 20);
	drig_files(&r, 2);
	ck_assert_msg(!disk_add_path(r.t, r.path[1], 20 << 20, msg, sizeof(msg)), "%s", msg);
	ck_assert_uint_eq(drig_info(&r).nr_files, 2);
	drig_fill(&r, 21, 20);
	drig_quiet(&r);
	ck_assert(is_in(39, 1) || is_in(40, 1));
	drig_check(&r);
	drig_close(&r, false);
	drig_reopen(&r);
	ck_assert_uint_eq(drig_info(&r).nr_files, 2);
	drig_space(&r, 0, 1);
	ck_assert_uint_eq(nr_there(1, 40), 40);
	/* One that is there already is busy; one of another set is refused. */
	ck_assert_int_eq(disk_add_path(r.t, r.path[1], 20 << 20, msg, sizeof(msg)), -EBUSY);
	ck_assert(strstr(msg, r.path[1]));
}
END_TEST

START_TEST(a_file_is_named_in_the_config_later)
{
	open_one();
	drig_fill(&r, 1, 20);
	drig_close(&r, true);
	drig_files(&r, 2);
	drig_reopen(&r);
	drig_space(&r, 0, 1);
	ck_assert_uint_eq(nr_there(1, 20), 20);
	fill_roots(21, 20);
	drig_quiet(&r);
	drig_close(&r, false);
	drig_reopen(&r);
	drig_space(&r, 0, 1);
	ck_assert_uint_eq(nr_there(1, 40), 40);
}
END_TEST

START_TEST(a_file_is_drained)
{
	char msg[256] = "";

	drig_files(&r, 2);
	open_one();
	fill_roots(1, 100);
	for (uint32_t n = 1; n <= 100; n++)
		r.rec[n].keep = n % 3 == 0;
	ck_assert_int_eq(disk_drain_path(r.t, "/nowhere", msg, sizeof(msg)), -ENOENT);
	ck_assert_int_eq(disk_drain_path(r.t, r.path[0], msg, sizeof(msg)), 0);
	drig_until(&r, drig_info(&r).nr_files == 1);
	drig_quiet(&r);
	for (uint32_t n = 1; n <= 100; n++) {
		ck_assert(!r.rec[n].place || is_in(n, 1));
		if (n % 3 == 0)
			ck_assert_uint_ne(r.rec[n].place, 0);
	}
	ck_assert_uint_gt(r.nr_moved, 10);
	ck_assert_uint_eq(r.nr_lost, 0);
	ck_assert_uint_ge(nr_there(1, 100), 33);
	drig_check(&r);
	/* The last one stays. */
	ck_assert_int_eq(disk_drain_path(r.t, r.path[1], msg, sizeof(msg)), -EBUSY);
	ck_assert(strstr(msg, "no other file"));
	/* The set has one file now, and the other is of no set: it may be added again. */
	drig_close(&r, true);
	r.o.path[0] = r.path[1];
	r.o.nr_paths = 1;
	drig_reopen(&r);
	drig_space(&r, 0, 1);
	ck_assert_uint_ge(nr_there(1, 100), 33);
	ck_assert_msg(!disk_add_path(r.t, r.path[0], 20 << 20, msg, sizeof(msg)), "%s", msg);
	fill_roots(200, 40);
	drig_quiet(&r);
	drig_check(&r);
	ck_assert_uint_eq(nr_there(200, 40), 40);
}
END_TEST

START_TEST(spaces_come_and_go)
{
	/* More spaces than entries: those that were not opened for longest give way. */
	open_one();
	drig_fill(&r, 1, 5);
	for (unsigned i = 0; i < 300; i++) {
		struct space *sp = drig_space(&r, 1, 1);

		snprintf(sp->name, sizeof(sp->name), "name-%u", i);
		disk_space_opened(r.t, sp);
		drig_quiet(&r);
		drig_block(&r, 100 + i, 1, 0);
		ck_assert_int_eq(drig_write(&r, 100 + i), 0);
		drig_free(&r, 100 + i);
		drig_space_close(&r, 1);
	}
	ck_assert_uint_eq(nr_there(1, 5), 5);
	drig_reopen(&r);
	drig_space(&r, 0, 1);
	ck_assert_uint_eq(nr_there(1, 5), 5);
	ck_assert_uint_eq(disk_space_epoch(r.t, "default", "name-299"), 1);
}
END_TEST

START_TEST(every_allocation_may_fail)
{
	char spec[32];

	for (unsigned k = 1; k < 200; k++) {
		int err;

		snprintf(spec, sizeof(spec), "alloc:nth=%u", k);
		ck_assert_int_eq(fault_arm(spec, NULL, 0), 0);
		err = drig_try_open(&r);
		if (!err && !fault_nr_hits(FAULT_ALLOC)) {
			ck_assert_uint_gt(k, 10);
			return;
		}
		if (err)
			ck_assert_msg(err == -ENOMEM, "%u: %d %s", k, err, r.msg);
		fault_disarm();
		drig_close(&r, true);
	}
	ck_abort_msg("it never came through");
}
END_TEST

static void add(Suite *s, const char *behaviour, const TTest *test)
{
	TCase *tc = tcase_create(behaviour);

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, test);
	tcase_set_timeout(tc, 120);
	suite_add_tcase(s, tc);
}

int main(void)
{
	Suite *s = suite_create("disk_set");
	SRunner *sr;
	int nr_failed;

	add(s, "a file is made as large as it is said", a_file_is_made_as_large_as_it_is_said);
	add(s, "a locked file is busy", a_locked_file_is_busy);
	add(s, "what is not ours is left alone", what_is_not_ours_is_left_alone);
	add(s, "an empty file and one of zeros are used", an_empty_file_and_one_of_zeros_are_used);
	add(s, "another version is refused", another_version_is_refused);
	add(s, "no room for it", no_room_for_it);
	add(s, "a small file has small segments", a_small_file_has_small_segments);
	add(s, "a crash while a file is added", a_crash_while_a_file_is_added);
	add(s, "what cannot be opened", what_cannot_be_opened);
	add(s, "a read-only file is served", a_read_only_file_is_served);
	add(s, "a truncated file serves what it has", a_truncated_file_serves_what_it_has);
	add(s, "blocks are striped", blocks_are_striped);
	add(s, "a set is whole or refused", a_set_is_whole_or_refused);
	add(s, "a file is added", a_file_is_added);
	add(s, "a file is named in the config later", a_file_is_named_in_the_config_later);
	add(s, "a file is drained", a_file_is_drained);
	add(s, "spaces come and go", spaces_come_and_go);
	add(s, "every allocation may fail", every_allocation_may_fail);

	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	nr_failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return nr_failed ? 1 : 0;
}
