// SPDX-License-Identifier: Apache-2.0
/*
 * check_fsck.c - the offline walk: what it counts, and that each fault is named
 * with its offset.
 */
#include "tools/kvctl/fsck.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/disk_image.h"
#include "tests/suite.h"

static struct image im;
static struct fsck_file found;
static uint64_t fault_off;		/* of the first */
static char fault_text[256];

static void on_fault(void *ctx, uint64_t off, const char *text)
{
	unsigned *nr = ctx;

	if (!(*nr)++) {
		fault_off = off;
		snprintf(fault_text, sizeof(fault_text), "%s", text);
	}
}

static unsigned walk(bool data)
{
	unsigned nr = 0;
	struct fsck_ops ops = { .data = data, .fault = on_fault, .ctx = &nr };

	fault_text[0] = '\0';
	fault_off = UINT64_MAX;
	ck_assert_int_eq(fsck_walk(im.path, &ops, &found), 0);
	ck_assert_uint_eq(nr, found.nr_faults);
	return nr;
}

/* A sealed segment, an open one, the others never used. */
static void setup(void)
{
	image_make(&im, 6);
	image_segment(&im, 1, DISK_SEG_SEALED, IMAGE_PER_SEG);
	image_segment(&im, 4, DISK_SEG_OPEN, 5);
}

static void teardown(void)
{
	image_remove(&im);
}

/* One fault of one kind, at one place. */
static void one_fault(bool data, uint64_t off, const char *word)
{
	ck_assert_uint_eq(walk(data), 1);
	ck_assert_msg(strstr(fault_text, word) != NULL, "'%s' has no '%s'", fault_text, word);
	ck_assert_uint_eq(fault_off, off);
}

static void flip(uint64_t off, unsigned bit)
{
	unsigned char c;

	image_get(&im, &c, 1, off);
	c ^= (unsigned char)(1u << bit);
	image_put(&im, &c, 1, off);
}

START_TEST(a_clean_file)
{
	ck_assert_uint_eq(walk(false), 0);
	ck_assert(found.has_super && !found.locked);
	ck_assert_uint_eq(found.nr_segs[DISK_SEG_FREE], 4);
	ck_assert_uint_eq(found.nr_segs[DISK_SEG_OPEN], 1);
	ck_assert_uint_eq(found.nr_segs[DISK_SEG_SEALED], 1);
	ck_assert_uint_eq(found.nr_live, IMAGE_PER_SEG + 5);
	ck_assert_uint_eq(found.live_bytes, (IMAGE_PER_SEG + 5) * (uint64_t)IMAGE_BLOCK);
	ck_assert_uint_eq(found.space[IMAGE_SPACE].nr_live, IMAGE_PER_SEG + 5);
	ck_assert_uint_eq(found.nr_verified, 0);
	ck_assert_uint_eq(walk(true), 0);
	ck_assert_uint_eq(found.nr_verified, IMAGE_PER_SEG + 5);
}
END_TEST

START_TEST(a_fresh_file)
{
	image_remove(&im);
	image_make(&im, 4);
	ck_assert_uint_eq(walk(true), 0);
	ck_assert_uint_eq(found.nr_segs[DISK_SEG_FREE], 4);
	ck_assert_uint_eq(found.nr_live, 0);
	/* Killed between the two superblocks. */
	im.space = (struct disk_space) { 0 };
	image_put(&im, &im.space, DISK_ALIGN, DISK_ALIGN);
	ck_assert_uint_eq(walk(true), 0);
	ck_assert(found.has_super);
}
END_TEST

START_TEST(superblocks)
{
	flip(40, 3);
	one_fault(false, 0, "superblock A: wrong CRC");
	ck_assert_uint_eq(found.nr_live, IMAGE_PER_SEG + 5);
	flip(4096, 0);
	ck_assert_uint_eq(walk(false), 2);
	ck_assert(!found.has_super);
	flip(40, 3);
	one_fault(false, 4096, "superblock B: no magic");
	flip(4096, 0);
	im.super.version++;
	im.super.crc = disk_crc(&im.super, offsetof(struct disk_super, crc));
	image_put(&im, &im.super, sizeof(im.super), 4096);
	one_fault(false, 4096, "version 2, this program knows 1");
	im.super.nr_segments--;
	disk_super_finish(&im.super);
	image_put(&im, &im.super, sizeof(im.super), 4096);
	ck_assert_uint_eq(walk(false), 1);
	ck_assert(strstr(fault_text, "another layout"));
}
END_TEST

START_TEST(the_newer_copy_counts)
{
	struct disk_space sp = im.space;

	sp.seq = 7;
	sp.epoch = IMAGE_EPOCH + 1;
	disk_space_finish(&sp);
	image_put(&im, &sp, sizeof(sp), disk_space_at(IMAGE_SPACE, 1));
	ck_assert_uint_eq(walk(true), 0);
	ck_assert_uint_eq(found.space[IMAGE_SPACE].e.epoch, IMAGE_EPOCH + 1);
	ck_assert_uint_eq(found.nr_live, 0);
	ck_assert_uint_eq(found.nr_old, IMAGE_PER_SEG + 5);
	/* A torn write of it: the older one counts again. */
	flip(disk_space_at(IMAGE_SPACE, 1) + 100, 1);
	one_fault(false, disk_space_at(IMAGE_SPACE, 1), "space 5, copy B: wrong CRC");
	ck_assert_uint_eq(found.nr_live, IMAGE_PER_SEG + 5);
}
END_TEST

START_TEST(an_entry_given_to_another_space)
{
	im.space.inc++;
	disk_space_finish(&im.space);
	image_put(&im, &im.space, sizeof(im.space), disk_space_at(IMAGE_SPACE, 0));
	ck_assert_uint_eq(walk(false), 0);
	ck_assert_uint_eq(found.nr_old, IMAGE_PER_SEG + 5);
	/* Twice the same space. */
	im.space.idx = 9;
	disk_space_finish(&im.space);
	image_put(&im, &im.space, sizeof(im.space), disk_space_at(9, 0));
	one_fault(false, disk_space_at(9, 0), "as space 5 is");
}
END_TEST

START_TEST(heads)
{
	flip(disk_summary_at(&im.super, 1) + 16, 0);
	one_fault(false, disk_summary_at(&im.super, 1), "head of segment 1: wrong CRC");
	ck_assert_uint_eq(found.nr_bad_segs, 1);
	ck_assert_uint_eq(found.nr_live, 5);
	flip(disk_summary_at(&im.super, 1) + 16, 0);
	flip(disk_summary_at(&im.super, 4), 0);
	one_fault(false, disk_summary_at(&im.super, 4), "head of segment 4: no magic");
}
END_TEST

START_TEST(a_head_of_another_set_is_free)
{
	struct disk_head h = { .seg = 2, .state = DISK_SEG_SEALED, .generation = 1, .nr = 9 };

	disk_head_finish(&h);
	image_put(&im, &h, sizeof(h), disk_summary_at(&im.super, 2));
	ck_assert_uint_eq(walk(false), 0);
	ck_assert_uint_eq(found.nr_segs[DISK_SEG_FREE], 4);
}
END_TEST

/* Each bit of a header of a sealed and of an open segment is seen. */
START_TEST(flipped_headers)
{
	for (unsigned bit = 0; bit < sizeof(struct disk_header) * 8; bit += 7) {
		uint64_t at = image_header_at(&im, bit % 2 ? 1 : 4, 3);

		flip(at + bit / 8, bit % 8);
		one_fault(false, at, "header 3 of segment");
		ck_assert_uint_eq(found.nr_live, IMAGE_PER_SEG + 4);
		flip(at + bit / 8, bit % 8);
	}
}
END_TEST

/* What a crash leaves is no fault. */
START_TEST(holes_and_old_headers)
{
	struct disk_header zero = { 0 }, old = image_header(&im, 1, 2);

	image_put(&im, &zero, sizeof(zero), image_header_at(&im, 4, 1));
	image_put(&im, &zero, sizeof(zero), image_header_at(&im, 1, 1));
	old.generation--;
	disk_header_finish(&old);
	image_put(&im, &old, sizeof(old), image_header_at(&im, 1, 2));
	ck_assert_uint_eq(walk(true), 0);
	ck_assert_uint_eq(found.nr_holes, 2);
	ck_assert_uint_eq(found.nr_live, IMAGE_PER_SEG + 5 - 3);
}
END_TEST

static void bad_header(struct disk_header h, uint32_t i, const char *word)
{
	struct disk_header was;

	image_get(&im, &was, sizeof(was), image_header_at(&im, 1, i));
	disk_header_finish(&h);
	image_put(&im, &h, sizeof(h), image_header_at(&im, 1, i));
	one_fault(false, image_header_at(&im, 1, i), word);
	image_put(&im, &was, sizeof(was), image_header_at(&im, 1, i));
}

/* Right in themselves, wrong where they are. */
START_TEST(headers_that_cannot_be)
{
	struct disk_header h = image_header(&im, 1, 4);

#define BAD(set, word) do { struct disk_header x = h; x.set; bad_header(x, 4, word); } while (0)
	BAD(space = 6, "of space 6, which is not there");
	BAD(epoch = IMAGE_EPOCH + 1, "epoch 4, the space's is 3");
	BAD(group = 1, "group 1 of 1");
	BAD(off = UINT32_MAX, "impossible value");
	h = image_header(&im, 1, 0);
	h.bytes--;
	bad_header(h, 0, "65535 bytes, a block of the space has 65536");
}
END_TEST

START_TEST(two_blocks_in_one_place)
{
	struct disk_header h = image_header(&im, 1, 3);

	image_put(&im, &h, sizeof(h), image_header_at(&im, 1, 4));
	one_fault(true, image_header_at(&im, 1, 4), "is another block's too");
}
END_TEST

START_TEST(dropped_blocks)
{
	struct disk_header h = image_header(&im, 1, 3);

	h.flags = DISK_HDR_DEAD;
	disk_header_finish(&h);
	image_put(&im, &h, sizeof(h), image_header_at(&im, 1, 3));
	flip(disk_data_at(&im.super, 1) + 3 * IMAGE_BLOCK, 0);
	ck_assert_uint_eq(walk(true), 0);
	ck_assert_uint_eq(found.nr_dead, 1);
	ck_assert_uint_eq(found.nr_live, IMAGE_PER_SEG + 4);
}
END_TEST

START_TEST(payloads)
{
	uint64_t at = disk_data_at(&im.super, 4) + 2 * IMAGE_BLOCK;

	flip(at + 12345, 5);
	ck_assert_uint_eq(walk(false), 0);
	one_fault(true, at, "payload of 65536 bytes in segment 4: wrong checksum");
	ck_assert_uint_eq(found.nr_verified, IMAGE_PER_SEG + 5);
}
END_TEST

START_TEST(bad_ranges_are_counted)
{
	struct disk_head h;

	image_get(&im, &h, sizeof(h), disk_summary_at(&im.super, 1));
	h.nr_bad = 2;
	h.bad[0] = (struct disk_bad) { 0, 16, 1 };
	h.bad[1] = (struct disk_bad) { 32, 16, 2 };
	disk_head_finish(&h);
	image_put(&im, &h, sizeof(h), disk_summary_at(&im.super, 1));
	ck_assert_uint_eq(walk(false), 0);
	ck_assert_uint_eq(found.bad_bytes, IMAGE_BLOCK);
}
END_TEST

START_TEST(truncated_files)
{
	uint64_t end = disk_data_at(&im.super, 4) + 5 * IMAGE_BLOCK;

	/* Behind the last block: said, nothing else. */
	ck_assert_int_eq(ftruncate(im.fd, (off_t)end), 0);
	one_fault(true, end, "truncated");
	/* In the middle of blocks, of the summaries, of the space table, to nothing. */
	ck_assert_int_eq(ftruncate(im.fd, (off_t)end - 1), 0);
	ck_assert_uint_eq(walk(true), 2);
	ck_assert_int_eq(ftruncate(im.fd, (off_t)disk_summary_at(&im.super, 4)), 0);
	ck_assert_uint_eq(walk(false), 1);
	ck_assert_uint_eq(found.nr_live, IMAGE_PER_SEG);
	ck_assert_int_eq(ftruncate(im.fd, 9000), 0);
	ck_assert_uint_eq(walk(true), 2);
	ck_assert_int_eq(ftruncate(im.fd, 4097), 0);
	ck_assert_uint_ge(walk(true), 2);
	ck_assert_int_eq(ftruncate(im.fd, 0), 0);
	ck_assert_uint_eq(walk(true), 2);
	ck_assert(!found.has_super);
}
END_TEST

START_TEST(a_daemons_lock_is_seen)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	ck_assert_int_eq(fcntl(im.fd, F_OFD_SETLK, &l), 0);
	ck_assert_uint_eq(walk(false), 0);
	ck_assert(found.locked);
}
END_TEST

START_TEST(what_is_no_file)
{
	struct fsck_ops ops = { .fault = on_fault };

	ck_assert_int_eq(fsck_walk("/nonexistent/x", &ops, &found), -ENOENT);
	ck_assert_int_eq(fsck_walk("/dev/null", &ops, &found), -EINVAL);
	ck_assert_int_eq(fsck_walk("/", &ops, &found), -EINVAL);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("fsck");
	TCase *tc = tcase_create("fsck");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_clean_file);
	tcase_add_test(tc, a_fresh_file);
	tcase_add_test(tc, superblocks);
	tcase_add_test(tc, the_newer_copy_counts);
	tcase_add_test(tc, an_entry_given_to_another_space);
	tcase_add_test(tc, heads);
	tcase_add_test(tc, a_head_of_another_set_is_free);
	tcase_add_test(tc, flipped_headers);
	tcase_add_test(tc, holes_and_old_headers);
	tcase_add_test(tc, headers_that_cannot_be);
	tcase_add_test(tc, two_blocks_in_one_place);
	tcase_add_test(tc, dropped_blocks);
	tcase_add_test(tc, payloads);
	tcase_add_test(tc, bad_ranges_are_counted);
	tcase_add_test(tc, truncated_files);
	tcase_add_test(tc, a_daemons_lock_is_seen);
	tcase_add_test(tc, what_is_no_file);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
