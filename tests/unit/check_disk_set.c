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
#include "tests/suite.h"

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
	ck_assert_int_eq(drig_try_open(&drig), err);
	ck_assert_msg(strstr(drig.msg, word), "'%s' is not in: %s", word, drig.msg);
	ck_assert_msg(strstr(drig.msg, drig.dir), "no path in: %s", drig.msg);
}

/* ------------------------------------------------------------------ what is refused */

START_TEST(a_file_is_made_as_large_as_it_is_said)
{
	struct stat st;

	drig_open_one(&drig);
	ck_assert_int_eq(stat(drig.path[0], &st), 0);
	ck_assert_uint_eq((uint64_t)st.st_size, drig.o.bytes);
	ck_assert_uint_ge((uint64_t)st.st_blocks * 512, drig.o.bytes);	/* all of it is allocated */
	ck_assert_uint_eq(st.st_mode & 077, 0);
	ck_assert_uint_ge(drig.t->bytes, 16ull << 20);
}
END_TEST

START_TEST(a_locked_file_is_busy)
{
	struct tier *first;

	drig_open_one(&drig);
	first = drig.t;
	drig.t = NULL;
	drig.o.file_base = 10;
	drig.o.lock_wait_ns = 50000000;	/* it never comes free */
	refused(-EBUSY, "another daemon");
	drig.o.file_base = 2;
	drig.t = first;
	drig_fill(&drig, 1, 3);
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 3), 3);
}
END_TEST

START_TEST(what_is_not_ours_is_left_alone)
{
	char text[8192], now[8192];

	memset(text, 'x', sizeof(text));
	make_file(drig.path[0], text, sizeof(text), 0);
	refused(-EINVAL, "not ours");
	drig_peek(&drig, 0, 0, now, sizeof(now));
	ck_assert_mem_eq(now, text, sizeof(now));
	ck_assert_uint_eq(size_of(drig.path[0]), sizeof(text));
	unlink(drig.path[0]);
	make_file(drig.path[0], text, 100, 0);
	refused(-EINVAL, "not ours");
	ck_assert_uint_eq(size_of(drig.path[0]), 100);
	/* Zeros at the beginning are not enough. */
	unlink(drig.path[0]);
	make_file(drig.path[0], NULL, 0, 20 << 20);
	drig_poke(&drig, 0, 64 << 10, text, 512);
	refused(-EINVAL, "not ours");
}
END_TEST

START_TEST(an_empty_file_and_one_of_zeros_are_used)
{
	make_file(drig.path[0], NULL, 0, 0);
	drig_open_one(&drig);
	ck_assert_uint_eq(size_of(drig.path[0]), drig.o.bytes);
	drig_close(&drig, true);
	unlink(drig.path[0]);
	make_file(drig.path[0], NULL, 0, 30 << 20);
	drig_open_one(&drig);
	ck_assert_uint_eq(size_of(drig.path[0]), 30u << 20);
	drig_fill(&drig, 1, 3);
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 3), 3);
}
END_TEST

START_TEST(another_version_is_refused)
{
	struct disk_super s;

	drig_open_one(&drig);
	drig_close(&drig, true);
	drig_peek(&drig, 0, 0, &s, sizeof(s));
	disk_super_finish(&s);
	s.version = 9;
	s.crc = disk_crc(&s, offsetof(struct disk_super, crc));
	drig_poke(&drig, 0, 0, &s, sizeof(s));
	drig_poke(&drig, 0, 4096, &s, sizeof(s));
	refused(-EINVAL, "version 9");
	drig_peek(&drig, 0, 0, &s, sizeof(s));
	ck_assert_uint_eq(s.version, 9);
}
END_TEST

START_TEST(no_room_for_it)
{
	drig.o.bytes = 1ull << 43;		/* 8 TiB */
	ck_assert_int_lt(drig_try_open(&drig), 0);
	ck_assert_msg(strstr(drig.msg, "8796093022208") && strstr(drig.msg, drig.path[0]), "%s",
		      drig.msg);
	ck_assert_int_ne(access(drig.path[0], F_OK), 0);	/* what was begun is gone */
	drig.o.bytes = 1 << 20;
	refused(-EINVAL, "too few");
}
END_TEST

START_TEST(a_small_file_has_small_segments)
{
	drig.o.segment_bytes = 64 << 20;
	drig.o.bytes = 48 << 20;
	drig_open_one(&drig);
	ck_assert_uint_ge(drig_info(&drig).nr_segments, 16);
	drig_fill(&drig, 1, 30);
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 30), 30);
}
END_TEST

START_TEST(a_crash_while_a_file_is_added)
{
	struct disk_super s;
	char msg[256];

	drig_open_one(&drig);
	drig_fill(&drig, 1, 20);
	drig_files(&drig, 2);
	ck_assert_int_eq(disk_add_path(drig.t, drig.path[1], 20 << 20, msg, sizeof(msg)), 0);
	drig_close(&drig, false);		/* before the superblock of the first says so */
	drig_peek(&drig, 0, 0, &s, sizeof(s));
	ck_assert_uint_eq(s.nr_files, 1);
	drig_reopen(&drig);
	drig_space(&drig, 0, 1);
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 20), 20);
	ck_assert_uint_eq(drig_info(&drig).nr_files, 2);
	drig_check(&drig);
}
END_TEST

START_TEST(what_cannot_be_opened)
{
	drig.o.path[0] = "/tmp/kvmd-no-such-directory/kv.img";
	ck_assert_int_eq(drig_try_open(&drig), -ENOENT);
	ck_assert(strstr(drig.msg, drig.o.path[0]));
	drig.o.path[0] = drig.dir;
	refused(-EINVAL, "neither a file nor");
}
END_TEST

/* ------------------------------------------------------------- served all the same */

START_TEST(a_read_only_file_is_served)
{
	drig_open_one(&drig);
	drig_fill(&drig, 1, 20);
	drig_close(&drig, true);
	ck_assert_int_eq(chmod(drig.path[0], 0400), 0);
	drig_reopen(&drig);
	ck_assert(drig.t->broken);
	ck_assert(strstr(drig_info(&drig).text, "read-only"));
	drig_space(&drig, 0, 1);
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 20), 20);
	drig_block(&drig, 30, 0, 0);
	ck_assert_int_eq(drig_write(&drig, 30), -ENOSPC);
	drig_raise(&drig, 0, 2);
	ck_assert_int_eq(drig.raised, -EROFS);
	drig_free(&drig, 3);
	disk_forget(drig.t, drig.rec[4].place);
	drig.rec[4].place = 0;
	drig_check(&drig);
	drig_close(&drig, true);
}
END_TEST

START_TEST(a_truncated_file_serves_what_it_has)
{
	drig_open_one(&drig);
	drig_fill_roots(&drig, 1, 60);
	drig_close(&drig, true);
	/* Data of segments 2 and up is gone, by half a segment and more. */
	ck_assert_int_eq(truncate(drig.path[0], (5 << 20) + (1 << 19)), 0);
	drig_reopen(&drig);
	ck_assert_msg(strstr(drig_info(&drig).text, "are lost") &&
		      strstr(drig_info(&drig).text, "5767168"), "%s", drig_info(&drig).text);
	drig_space(&drig, 0, 1);
	ck_assert_uint_gt(drig_nr_there(&drig, 1, 60), 15);
	ck_assert_uint_lt(drig_nr_there(&drig, 1, 60), 60);
	drig_check(&drig);
	ck_assert_uint_eq(size_of(drig.path[0]), (5u << 20) + (1 << 19));
}
END_TEST

/* -------------------------------------------------------------------------- sets */

static bool is_in(uint32_t n, unsigned file)
{
	return drig.rec[n].place >> DISK_PLACE_BITS == file;
}

START_TEST(blocks_are_striped)
{
	unsigned nr[3] = { 0 };

	drig_files(&drig, 3);
	drig_open_one(&drig);
	drig_fill(&drig, 1, 60);
	for (uint32_t n = 1; n <= 60; n++)
		nr[drig.rec[n].place >> DISK_PLACE_BITS]++;
	for (unsigned i = 0; i < 3; i++)
		ck_assert_uint_eq(nr[i], 20);
	drig_close(&drig, true);
	drig_reopen(&drig);
	drig_space(&drig, 0, 1);
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 60), 60);
	drig_check(&drig);
}
END_TEST

START_TEST(a_set_is_whole_or_refused)
{
	drig_files(&drig, 2);
	drig_open_one(&drig);
	drig_fill(&drig, 1, 10);
	drig_close(&drig, true);
	drig_files(&drig, 1);
	refused(-EINVAL, "has 2 files, 1 are given");
	/* Two sets. */
	unlink(drig.path[1]);
	drig.o.path[0] = drig.path[1];
	drig.o.path[1] = NULL;
	drig_open(&drig);
	drig_close(&drig, true);
	drig_files(&drig, 2);
	refused(-EINVAL, "different sets");
	/* In another order, whole. */
	unlink(drig.path[0]);
	unlink(drig.path[1]);
	drig_open_one(&drig);
	drig_fill(&drig, 1, 10);
	drig_close(&drig, true);
	drig.o.path[0] = drig.path[1];
	drig.o.path[1] = drig.path[0];
	drig_reopen(&drig);
	drig_space(&drig, 0, 1);
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 10), 10);
}
END_TEST

START_TEST(a_file_is_added)
{
	char msg[256] = "";

	drig_open_one(&drig);
	drig_fill(&drig, 1, 20);
	drig_files(&drig, 2);
	ck_assert_msg(!disk_add_path(drig.t, drig.path[1], 20 << 20, msg, sizeof(msg)), "%s", msg);
	ck_assert_uint_eq(drig_info(&drig).nr_files, 2);
	drig_fill(&drig, 21, 20);
	drig_quiet(&drig);
	ck_assert(is_in(39, 1) || is_in(40, 1));
	drig_check(&drig);
	drig_close(&drig, false);
	drig_reopen(&drig);
	ck_assert_uint_eq(drig_info(&drig).nr_files, 2);
	drig_space(&drig, 0, 1);
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 40), 40);
	/* One that is there already is busy; one of another set is refused. */
	ck_assert_int_eq(disk_add_path(drig.t, drig.path[1], 20 << 20, msg, sizeof(msg)), -EBUSY);
	ck_assert(strstr(msg, drig.path[1]));
}
END_TEST

START_TEST(a_file_is_named_in_the_config_later)
{
	drig_open_one(&drig);
	drig_fill(&drig, 1, 20);
	drig_close(&drig, true);
	drig_files(&drig, 2);
	drig_reopen(&drig);
	drig_space(&drig, 0, 1);
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 20), 20);
	drig_fill_roots(&drig, 21, 20);
	drig_quiet(&drig);
	drig_close(&drig, false);
	drig_reopen(&drig);
	drig_space(&drig, 0, 1);
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 40), 40);
}
END_TEST

START_TEST(a_file_is_drained)
{
	char msg[256] = "";

	drig_files(&drig, 2);
	drig_open_one(&drig);
	drig_fill_roots(&drig, 1, 100);
	for (uint32_t n = 1; n <= 100; n++)
		drig.rec[n].keep = n % 3 == 0;
	ck_assert_int_eq(disk_drain_path(drig.t, "/nowhere", msg, sizeof(msg)), -ENOENT);
	ck_assert_int_eq(disk_drain_path(drig.t, drig.path[0], msg, sizeof(msg)), 0);
	drig_until(&drig, drig_info(&drig).nr_files == 1);
	drig_quiet(&drig);
	for (uint32_t n = 1; n <= 100; n++) {
		ck_assert(!drig.rec[n].place || is_in(n, 1));
		if (n % 3 == 0)
			ck_assert_uint_ne(drig.rec[n].place, 0);
	}
	ck_assert_uint_gt(drig.nr_moved, 10);
	ck_assert_uint_eq(drig.nr_lost, 0);
	ck_assert_uint_ge(drig_nr_there(&drig, 1, 100), 33);
	drig_check(&drig);
	/* The last one stays. */
	ck_assert_int_eq(disk_drain_path(drig.t, drig.path[1], msg, sizeof(msg)), -EBUSY);
	ck_assert(strstr(msg, "no other file"));
	/* The set has one file now, and the other is of no set: it may be added again. */
	drig_close(&drig, true);
	drig.o.path[0] = drig.path[1];
	drig.o.nr_paths = 1;
	drig_reopen(&drig);
	drig_space(&drig, 0, 1);
	ck_assert_uint_ge(drig_nr_there(&drig, 1, 100), 33);
	ck_assert_msg(!disk_add_path(drig.t, drig.path[0], 20 << 20, msg, sizeof(msg)), "%s", msg);
	drig_fill_roots(&drig, 200, 40);
	drig_quiet(&drig);
	drig_check(&drig);
	ck_assert_uint_eq(drig_nr_there(&drig, 200, 40), 40);
}
END_TEST

START_TEST(spaces_come_and_go)
{
	/* More spaces than entries: those that were not opened for longest give way. */
	drig_open_one(&drig);
	drig_fill(&drig, 1, 5);
	for (unsigned i = 0; i < 300; i++) {
		struct space *sp = drig_space(&drig, 1, 1);

		snprintf(sp->name, sizeof(sp->name), "name-%u", i);
		disk_space_opened(drig.t, sp);
		drig_quiet(&drig);
		drig_block(&drig, 100 + i, 1, 0);
		ck_assert_int_eq(drig_write(&drig, 100 + i), 0);
		drig_free(&drig, 100 + i);
		drig_space_close(&drig, 1);
	}
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 5), 5);
	drig_reopen(&drig);
	drig_space(&drig, 0, 1);
	ck_assert_uint_eq(drig_nr_there(&drig, 1, 5), 5);
	ck_assert_uint_eq(disk_space_epoch(drig.t, "default", "name-299"), 1);
}
END_TEST

START_TEST(every_allocation_may_fail)
{
	char spec[32];

	for (unsigned k = 1; k < 200; k++) {
		int err;

		snprintf(spec, sizeof(spec), "alloc:nth=%u", k);
		ck_assert_int_eq(fault_arm(spec, NULL, 0), 0);
		err = drig_try_open(&drig);
		if (!err && !fault_nr_hits(FAULT_ALLOC)) {
			ck_assert_uint_gt(k, 10);
			return;
		}
		if (err)
			ck_assert_msg(err == -ENOMEM, "%u: %d %s", k, err, drig.msg);
		fault_disarm();
		drig_close(&drig, true);
	}
	ck_abort_msg("it never came through");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("disk_set");

	drig_add(s, "a file is made as large as it is said", a_file_is_made_as_large_as_it_is_said);
	drig_add(s, "a locked file is busy", a_locked_file_is_busy);
	drig_add(s, "what is not ours is left alone", what_is_not_ours_is_left_alone);
	drig_add(s, "an empty file and one of zeros are used",
		 an_empty_file_and_one_of_zeros_are_used);
	drig_add(s, "another version is refused", another_version_is_refused);
	drig_add(s, "no room for it", no_room_for_it);
	drig_add(s, "a small file has small segments", a_small_file_has_small_segments);
	drig_add(s, "a crash while a file is added", a_crash_while_a_file_is_added);
	drig_add(s, "what cannot be opened", what_cannot_be_opened);
	drig_add(s, "a read-only file is served", a_read_only_file_is_served);
	drig_add(s, "a truncated file serves what it has", a_truncated_file_serves_what_it_has);
	drig_add(s, "blocks are striped", blocks_are_striped);
	drig_add(s, "a set is whole or refused", a_set_is_whole_or_refused);
	drig_add(s, "a file is added", a_file_is_added);
	drig_add(s, "a file is named in the config later", a_file_is_named_in_the_config_later);
	drig_add(s, "a file is drained", a_file_is_drained);
	drig_add(s, "spaces come and go", spaces_come_and_go);
	drig_add(s, "every allocation may fail", every_allocation_may_fail);
	return suite_run(s);
}
