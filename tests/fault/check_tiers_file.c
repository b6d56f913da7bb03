/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_tiers_file.c - a disk tier's file that is damaged, cut, of another version
 * or geometry, or read-only when the daemon starts.
 *
 * What the damage hit is lost, or the start is refused and the file left alone;
 * what is served is right, and the daemon says which file and where.
 */
#include "tests/fault/tiers_rig.h"
#include "tests/quiet.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kvmd/lib/stats.h"

#define CHAINS	8u

static struct trig r;

static void get(void *p, size_t bytes, uint64_t off)
{
	int fd = open(r.path, O_RDONLY);

	quiet_assert_int_ge(fd, 0);
	quiet_assert_int_eq(pread(fd, p, bytes, (off_t)off), (ssize_t)bytes);
	close(fd);
}

static void put(const void *p, size_t bytes, uint64_t off)
{
	int fd = open(r.path, O_WRONLY);

	quiet_assert_int_ge(fd, 0);
	quiet_assert_int_eq(pwrite(fd, p, bytes, (off_t)off), (ssize_t)bytes);
	close(fd);
}

static void flip(uint64_t off, unsigned bit)
{
	uint8_t byte;

	get(&byte, 1, off);
	byte ^= (uint8_t)(1u << bit % 8);
	put(&byte, 1, off);
}

/* A file with most of CHAINS chains in it, nobody has it open. */
static void make_file(void)
{
	trig_start(&r);
	trig_serve(&r, 1, CHAINS);
	trig_stop(&r);
}

static void setup(void)
{
	trig_init(&r);
	trig_keep_log(&r);
	make_file();
}

static void teardown(void)
{
	trig_exit(&r);
}

/* It serves what it finds and all else; how much it found. */
static uint32_t serves(void)
{
	uint32_t found;

	trig_start(&r);
	found = trig_count(&r, 1, CHAINS);
	trig_serve(&r, 1, CHAINS);
	if (!r.c.d->tiers->disk->broken)
		ck_assert_uint_eq(trig_count(&r, 1, CHAINS), CHAINS * CHAIN);
	return found;
}

/* ... and in the end all can be let go of. */
static void end(void)
{
	trig_empty(&r);
	trig_stop(&r);
}

static void refused(int err, const char *why)
{
	unsigned fds = core_nr_fds(), maps = core_nr_maps();
	struct stat before, after;

	ck_assert_int_eq(stat(r.path, &before), 0);
	ck_assert_int_eq(trig_try(&r), err);
	ck_assert_msg(trig_said(&r, r.path, why), "not said: %s", why);
	ck_assert_int_eq(stat(r.path, &after), 0);
	ck_assert(before.st_mtim.tv_nsec == after.st_mtim.tv_nsec &&
		  before.st_size == after.st_size);
	ck_assert_uint_eq(core_nr_fds(), fds);
	ck_assert_uint_eq(core_nr_maps(), maps);
	ck_assert_int_eq(unlink(r.path), 0);
	ck_assert_uint_eq(serves(), 0);
	end();
}

/* The first segment in use: its head is at *ret_at; header @i, -1: none. */
static struct disk_header find_header(uint64_t *ret_head, uint64_t *ret_header, uint64_t *ret_data)
{
	struct disk_super s;
	struct disk_head h;
	struct disk_header hdr;

	get(&s, sizeof(s), 0);
	for (uint32_t seg = 0; seg < s.nr_segments; seg++) {
		get(&h, sizeof(h), disk_summary_at(&s, seg));
		if (disk_head_check(&s, &h, seg) || h.state != DISK_SEG_SEALED || h.nr < 3)
			continue;
		*ret_head = disk_summary_at(&s, seg);
		*ret_header = *ret_head + DISK_ALIGN + sizeof(hdr);
		get(&hdr, sizeof(hdr), *ret_header);
		ck_assert_uint_eq(disk_header_check(&s, &hdr, seg, h.generation), DISK_FINE);
		*ret_data = disk_data_at(&s, seg) + (uint64_t)hdr.off * DISK_ALIGN;
		return hdr;
	}
	ck_abort_msg("no segment is sealed");
}

/* ------------------------------------------------------------------ flipped bits */

enum region { SUPER_A, SUPER_B, SPACE_A, SPACE_B, HEAD, HEADER, PAYLOAD, NR_REGION };

static uint64_t region_at(enum region g, uint64_t *ret_bytes)
{
	uint64_t head, header, data;
	struct disk_header h = find_header(&head, &header, &data);
	const uint64_t at[NR_REGION] = {
		0, DISK_ALIGN, disk_space_at(h.space, 0), disk_space_at(h.space, 1),
		head, header, data,
	};

	*ret_bytes = g == HEADER ? sizeof(h) : g == PAYLOAD ? h.bytes : DISK_ALIGN;
	return at[g];
}

/* Does somebody have to say so, or may the bytes not be in use? */
static bool is_noticed(enum region g, uint64_t at)
{
	uint64_t first;

	if (g != SPACE_A && g != SPACE_B)
		return true;
	get(&first, sizeof(first), at);		/* an entry's second copy comes with a change */
	return first != 0;
}

START_TEST(a_flipped_bit)
{
	/* In the first fields, the middle, the CRC. */
	static const uint32_t part[] = { 9, 500, 999 };
	uint64_t bytes, at = region_at(_i / 3, &bytes);
	bool noticed = is_noticed(_i / 3, at);
	uint32_t found;

	flip(at + bytes * part[_i % 3] / 1000, (unsigned)_i);
	found = serves();
	if (_i / 3 == SUPER_A || _i / 3 == SUPER_B)
		ck_assert_uint_ge(found, CHAIN * 4);
	if (noticed)
		ck_assert(trig_said(&r, r.path, "offset "));
	end();
}
END_TEST

START_TEST(a_flipped_bit_in_every_page_of_it)
{
	struct disk_super s;

	get(&s, sizeof(s), 0);
	for (uint64_t at = DISK_ALIGN; at < disk_data_at(&s, 4); at += DISK_ALIGN)
		flip(at + at / DISK_ALIGN % 4093, (unsigned)(at / DISK_ALIGN));
	serves();
	end();
}
END_TEST

START_TEST(both_superblocks_are_broken)
{
	flip(100, 3);
	flip(4096 + 100, 3);
	refused(-EINVAL, "offset 4096");
}
END_TEST

/* -------------------------------------------------------------------------- torn */

/* The second half of a head, of a page of headers, was not written. */
START_TEST(a_torn_head_or_header)
{
	uint64_t head, header, data;
	uint8_t zero[2048] = { 0 };

	find_header(&head, &header, &data);
	put(zero, _i ? sizeof(zero) : 100, _i ? head + 2048 : header - 22);
	if (!_i)
		ck_assert_uint_lt(serves(), CHAINS * CHAIN);
	else
		serves();
	ck_assert(trig_said(&r, r.path, "offset ") || _i);
	end();
}
END_TEST

START_TEST(a_torn_superblock)
{
	struct disk_super s;

	/* A new one was being written: the first sector of it is there. */
	get(&s, sizeof(s), 0);
	s.seq += 5;
	s.hour_bytes[0]++;
	put(&s, 512, _i ? DISK_ALIGN : 0);
	ck_assert_uint_ge(serves(), CHAIN * 4);
	ck_assert(trig_said(&r, r.path, _i ? "superblock at offset 4096: " :
			    "superblock at offset 0: "));
	end();
}
END_TEST

/* ------------------------------------------------------------------------- others */

START_TEST(another_version)
{
	struct disk_super s;

	get(&s, sizeof(s), 0);
	s.version = 9;
	s.crc = disk_crc(&s, offsetof(struct disk_super, crc));
	put(&s, sizeof(s), 0);
	put(&s, sizeof(s), DISK_ALIGN);
	refused(-EINVAL, "version 9");
}
END_TEST

START_TEST(what_is_not_ours)
{
	static const char text[] = "somebody's letters";

	for (uint64_t at = 0; at < DISK_SUMMARY_OFF; at += 512)
		put(text, sizeof(text), at);
	refused(-EINVAL, "not ours");
}
END_TEST

/* The space has blocks of another size now: none of the former ones fits. */
START_TEST(another_geometry)
{
	r.block = 16384;
	ck_assert_uint_eq(serves(), 0);
	trig_stop(&r);
	r.block = 32768;
	ck_assert_uint_eq(serves(), 0);
	end();
}
END_TEST

/* Another space's blocks stay what they are, and are there for it. */
START_TEST(another_space)
{
	r.space = "other";
	ck_assert_uint_eq(serves(), 0);
	trig_stop(&r);
	r.space = "s";
	ck_assert_uint_ge(serves(), CHAIN * 4);
	trig_stop(&r);
}
END_TEST

static const uint64_t cuts[] = {
	0, 100, 5000, DISK_SPACE_OFF + 3 * DISK_ALIGN, DISK_SUMMARY_OFF + DISK_ALIGN,
	(3 << 20) + 12345, (4 << 20) + (1 << 19), 10 << 20,
};

START_TEST(a_truncated_file)
{
	int err;

	ck_assert_int_eq(truncate(r.path, (off_t)cuts[_i]), 0);
	err = trig_try(&r);
	if (!err) {
		core_exit(&r.c);
		serves();
		ck_assert(!cuts[_i] || trig_said(&r, r.path, "segments are lost"));
		end();
		return;
	}
	ck_assert_uint_lt(cuts[_i], DISK_SUMMARY_OFF);
	refused(err, ": ");
}
END_TEST

START_TEST(a_read_only_file)
{
	struct stat before, after;

	ck_assert_int_eq(chmod(r.path, 0400), 0);
	ck_assert_int_eq(stat(r.path, &before), 0);
	ck_assert_uint_ge(serves(), CHAIN * 4);
	ck_assert(trig_said(&r, r.path, "read-only"));
	ck_assert(r.c.d->tiers->disk->broken);
	trig_serve(&r, 1, CHAINS * 2);
	trig_stop(&r);
	ck_assert_int_eq(stat(r.path, &after), 0);
	ck_assert(before.st_mtim.tv_sec == after.st_mtim.tv_sec &&
		  before.st_mtim.tv_nsec == after.st_mtim.tv_nsec);
	/* Writable again, all of it is there. */
	ck_assert_int_eq(chmod(r.path, 0600), 0);
	ck_assert_uint_ge(serves(), CHAIN * 4);
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("tiers_file");
	TCase *tc = tcase_create("tiers_file");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, a_flipped_bit, 0, NR_REGION * 3);
	tcase_add_test(tc, a_flipped_bit_in_every_page_of_it);
	tcase_add_test(tc, both_superblocks_are_broken);
	tcase_add_loop_test(tc, a_torn_head_or_header, 0, 2);
	tcase_add_loop_test(tc, a_torn_superblock, 0, 2);
	tcase_add_test(tc, another_version);
	tcase_add_test(tc, what_is_not_ours);
	tcase_add_test(tc, another_geometry);
	tcase_add_test(tc, another_space);
	tcase_add_loop_test(tc, a_truncated_file, 0, ARRAY_SIZE(cuts));
	tcase_add_test(tc, a_read_only_file);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
