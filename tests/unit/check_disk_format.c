// SPDX-License-Identifier: Apache-2.0
/*
 * check_disk_format.c - what is right in a file of the disk tier, and its layout.
 *
 * Each bad value stands alone in a struct that is right otherwise, its CRC too.
 */
#include "kvmd/tier/disk_format.h"

#include <check.h>
#include <stdio.h>

#include "tests/quiet.h"
#include "tests/suite.h"

#define MIB	(1ull << 20)
#define GIB	(1ull << 30)

/* ------------------------------------------------------------------ right ones */

static struct disk_super super(void)
{
	struct disk_super s;
	char msg[256] = "";

	ck_assert_msg(!disk_super_make(&s, 64 * MIB, 4 * MIB, 65536, msg, sizeof(msg)), "%s", msg);
	s.gen0 = 5;
	s.set_uuid[15] = 9;
	disk_super_finish(&s);
	return s;
}

static struct disk_space space(void)
{
	struct disk_space sp = {
		.idx = 3, .seq = 9, .name = "llama", .tenant = "default", .epoch = 2,
		.nr_groups = 2, .nr_shards = 1, .inc = 77, .used_s = 1,
		.group[0] = { .plane_bytes = 65536, .planes = 1, .block_tokens = 16 },
		.group[1] = { .plane_bytes = 4096, .planes = 2, .block_tokens = 16,
			      .rule = KVMD_RULE_WINDOW, .window = 64, .sinks = 4 },
	};

	disk_space_finish(&sp);
	return sp;
}

static struct disk_head head(void)
{
	struct disk_head h = {
		.seg = 2, .state = DISK_SEG_SEALED, .generation = 7, .nr = 5, .set_uuid[15] = 9,
		.nr_bad = 2, .bad[0] = { 0, 1, 1 }, .bad[1] = { 1023, 1, 2 },
	};

	disk_head_finish(&h);
	return h;
}

static struct disk_header header(void)
{
	struct disk_header h = {
		.generation = 7, .space = 3, .group = 1, .pos = 4, .key = { 1, 2, 3 },
		.parent = { 4 }, .epoch = 2, .bytes = 65536, .off = 16, .block_gen = 1, .sum = 5,
		.seg = 2, .space_inc = 77,
	};

	disk_header_finish(&h);
	return h;
}

START_TEST(what_is_right_is_fine)
{
	struct disk_super s = super();
	struct disk_space sp = space();
	struct disk_head h = head();
	struct disk_header b = header();

	ck_assert_int_eq(disk_super_check(&s), DISK_FINE);
	ck_assert_int_eq(disk_space_check(&sp, 3), DISK_FINE);
	ck_assert_int_eq(disk_head_check(&s, &h, 2), DISK_FINE);
	ck_assert_int_eq(disk_header_check(&s, &b, 2, 7), DISK_FINE);
	b.flags = DISK_HDR_DEAD;
	disk_header_finish(&b);
	ck_assert_int_eq(disk_header_check(&s, &b, 2, 7), DISK_FINE);
}
END_TEST

START_TEST(fields_are_where_the_manual_says)
{
	ck_assert_uint_eq(offsetof(struct disk_super, crc), 4092);
	ck_assert_uint_eq(offsetof(struct disk_super, set_uuid), 56);
	ck_assert_uint_eq(offsetof(struct disk_super, seq), 72);
	ck_assert_uint_eq(offsetof(struct disk_super, hour_bytes), 96);
	ck_assert_uint_eq(offsetof(struct disk_space, epoch), 160);
	ck_assert_uint_eq(offsetof(struct disk_space, group), 176);
	ck_assert_uint_eq(offsetof(struct disk_space, inc), 696);
	ck_assert_uint_eq(offsetof(struct disk_space, crc), 4092);
	ck_assert_uint_eq(offsetof(struct disk_head, bad), 56);
	ck_assert_uint_eq(offsetof(struct disk_head, crc), 4092);
	ck_assert_uint_eq(offsetof(struct disk_header, key), 24);
	ck_assert_uint_eq(offsetof(struct disk_header, sum), 112);
	ck_assert_uint_eq(offsetof(struct disk_header, crc), 124);
	ck_assert_mem_eq(&(uint64_t){ DISK_SUPER_MAGIC }, "KMVDDISK", 8);
}
END_TEST

/* ---------------------------------------------------------------- bad values */

/* A right struct with @set done to it and the CRC made right again. */
#define BAD(type, make, finish, check, set) do { \
	struct type x = make(); \
	set; \
	finish(&x); \
	ck_assert_msg((check) == DISK_BAD_FIELD, "%s: %s", #set, disk_why_name(check)); \
} while (0)

#define SUPER(set)	BAD(disk_super, super, disk_super_finish, disk_super_check(&x), x.set)
#define SPACE(set)	BAD(disk_space, space, disk_space_finish, disk_space_check(&x, 3), x.set)
#define HEAD(set)	BAD(disk_head, head, disk_head_finish, disk_head_check(&s, &x, 2), x.set)
#define HEADER(set)	BAD(disk_header, header, disk_header_finish, \
			    disk_header_check(&s, &x, 2, 7), x.set)

START_TEST(bad_values_of_a_superblock)
{
	SUPER(nr_files = 0);
	SUPER(nr_files = DISK_MAX_SET + 1);
	SUPER(index = 1);
	SUPER(segment_bytes = 0);
	SUPER(segment_bytes = 4 * MIB + 4096);
	SUPER(segment_bytes = 2 * DISK_MAX_SEGMENT);
	SUPER(nr_headers = 0);
	SUPER(nr_headers = 1025);
	SUPER(summary_bytes += 4096);
	SUPER(summary_bytes = 0);
	SUPER(nr_segments = 0);
	SUPER(nr_segments = UINT32_MAX);
	SUPER(nr_segments = 1 << 20);		/* the data would begin in the summaries */
	SUPER(summary_off += 4096);
	SUPER(summary_off = 0);
	SUPER(data_off += 512);
	SUPER(data_off -= MIB);
	SUPER(data_off = INT64_MAX & ~4095ull);
	SUPER(data_off = UINT64_MAX & ~4095ull);
	SUPER(resv[0] = 1);
	SUPER(resv[sizeof(x.resv) - 1] = 1);
}
END_TEST

START_TEST(bad_values_of_a_space)
{
	struct disk_space sp = space();

	ck_assert_int_eq(disk_space_check(&sp, 4), DISK_BAD_FIELD);
	SPACE(idx = 256);
	SPACE(name[0] = 0);
	SPACE(name[KVMD_NAME_BYTES - 1] = 'x');
	SPACE(tenant[0] = 0);
	SPACE(tenant[KVMD_NAME_BYTES - 1] = 'x');
	SPACE(nr_groups = 0);
	SPACE(nr_groups = 1);			/* and a second one there */
	SPACE(nr_groups = 3);			/* and no third one there */
	SPACE(nr_groups = KVMD_MAX_GROUPS + 1);
	SPACE(nr_shards = 0);
	SPACE(nr_shards = KVMD_MAX_SHARDS + 1);
	SPACE(group[0].planes = 0);
	SPACE(group[0].planes = KVMD_MAX_PLANES + 1);
	SPACE(group[0].plane_bytes = 0);
	SPACE(group[0].plane_bytes = 65);
	SPACE(group[0].plane_bytes = 2 * GIB);
	SPACE(group[0].block_tokens = 0);
	SPACE(group[0].block_tokens = 65537);
	SPACE(group[0].rule = KVMD_NR_RULE);
	SPACE(group[0].window = 1);
	SPACE(group[0].sinks = 1);
	SPACE(group[1].window = 0);
	SPACE(group[0].flags = 2);
	SPACE(group[0].max_slots = 2);
	SPACE(group[1].codec.resv2[2] = 1);
	SPACE(inc = 0);
	SPACE(resv0 = 1);
	SPACE(resv[0] = 1);
	SPACE(resv[sizeof(x.resv) - 1] = 1);
}
END_TEST

START_TEST(bad_values_of_a_head)
{
	struct disk_super s = super();
	struct disk_head h = head();

	ck_assert_int_eq(disk_head_check(&s, &h, 3), DISK_BAD_FIELD);
	h.seg = s.nr_segments;
	disk_head_finish(&h);
	ck_assert_int_eq(disk_head_check(&s, &h, s.nr_segments), DISK_BAD_FIELD);
	h = head();
	h.set_uuid[0] = 1;			/* somebody else's */
	disk_head_finish(&h);
	ck_assert_int_eq(disk_head_check(&s, &h, 2), DISK_OLD);
	HEAD(seg = 1);
	HEAD(state = NR_DISK_SEG_STATE);
	HEAD(generation = 0);
	HEAD(generation = 5);
	HEAD(nr_bad = DISK_MAX_BAD + 1);
	HEAD(nr_bad = 1);			/* and the second is there */
	HEAD(nr_bad = 3);			/* and the third is none */
	HEAD(bad[0].times = 0);
	HEAD(bad[0].times = 3);
	HEAD(bad[0].len = 0);
	HEAD(bad[0].len = 1025);
	HEAD(bad[0].len = UINT32_MAX);
	HEAD(bad[1].len = 2);
	HEAD(bad[1].off = 1024);
	HEAD(bad[1].off = UINT32_MAX);
	HEAD(nr = s.nr_headers + 1);
	HEAD(resv[0] = 1);
	HEAD(resv[sizeof(x.resv) - 1] = 1);
}
END_TEST

START_TEST(bad_values_of_a_header)
{
	struct disk_super s = super();
	struct disk_header h = header();

	HEADER(codec = KVMD_NR_CODEC);
	HEADER(space = DISK_MAX_SPACES);
	HEADER(group = KVMD_MAX_GROUPS);
	HEADER(flags = 2);
	HEADER(bytes = 0);
	HEADER(bytes = 4 * MIB - 65536 + 1);
	HEADER(bytes = UINT32_MAX);
	HEADER(off = 1024);
	HEADER(off = UINT32_MAX);
	HEADER(space_inc = 0);
	/* Up to the last byte of the segment is fine. */
	h.bytes = 4 * MIB - 65536;
	disk_header_finish(&h);
	ck_assert_int_eq(disk_header_check(&s, &h, 2, 7), DISK_FINE);
	ck_assert_int_eq(disk_header_check(&s, &h, 2, 6), DISK_OLD);
	ck_assert_int_eq(disk_header_check(&s, &h, 2, 8), DISK_OLD);
	ck_assert_int_eq(disk_header_check(&s, &h, 3, 7), DISK_OLD);
}
END_TEST

/* @check is an expression on x; magic, version and each bit tell. */
#define EVERY_BIT(type, make, finish, check) do { \
	struct type x = make(); \
	unsigned char *at = (unsigned char *)&x; \
	for (size_t bit = 0; bit < sizeof(x) * 8; bit++) { \
		enum disk_why why; \
		at[bit / 8] ^= (unsigned char)(1 << bit % 8); \
		why = (check); \
		quiet_assert_msg(why == DISK_NO_MAGIC || why == DISK_BAD_CRC, "bit %zu: %s", bit, \
			      disk_why_name(why)); \
		at[bit / 8] ^= (unsigned char)(1 << bit % 8); \
	} \
	x.magic ^= 1; \
	ck_assert_int_eq(check, DISK_NO_MAGIC); \
	memset(&x, 0, sizeof(x)); \
	ck_assert_int_eq(check, DISK_NO_MAGIC); \
} while (0)

START_TEST(every_flipped_bit_is_seen)
{
	struct disk_super s = super();

	EVERY_BIT(disk_super, super, disk_super_finish, disk_super_check(&x));
	EVERY_BIT(disk_space, space, disk_space_finish, disk_space_check(&x, 3));
	EVERY_BIT(disk_head, head, disk_head_finish, disk_head_check(&s, &x, 2));
	EVERY_BIT(disk_header, header, disk_header_finish, disk_header_check(&s, &x, 2, 7));
}
END_TEST

/* Of another version, its CRC right. */
START_TEST(another_version_is_told_from_a_broken_one)
{
	struct disk_super s = super(), s2 = s;
	struct disk_head h = head();
	struct disk_header b = header();

	s2.version++;
	s2.crc = disk_crc(&s2, offsetof(struct disk_super, crc));
	ck_assert_int_eq(disk_super_check(&s2), DISK_BAD_VERSION);
	h.version++;
	h.crc = disk_crc(&h, offsetof(struct disk_head, crc));
	ck_assert_int_eq(disk_head_check(&s, &h, 2), DISK_BAD_VERSION);
	b.version++;
	b.crc = disk_crc(&b, offsetof(struct disk_header, crc));
	ck_assert_int_eq(disk_header_check(&s, &b, 2, 7), DISK_BAD_VERSION);
}
END_TEST

/* -------------------------------------------------------------------- layout */

static bool fits(uint64_t file, uint64_t segment, uint64_t hint)
{
	uint64_t least = align_up(max(hint, (uint64_t)1), 4096);
	struct disk_super s;
	char msg[256] = "";
	int err = disk_super_make(&s, file, segment, hint, msg, sizeof(msg));

	quiet_assert(err == 0 || err == -EINVAL);
	quiet_assert(!err == !msg[0]);
	if (err)
		return false;
	quiet_assert_int_eq(disk_super_check(&s), DISK_FINE);
	quiet_assert_uint_eq(s.segment_bytes, segment);
	quiet_assert_uint_eq(s.data_off % MIB, 0);
	/* Nothing overlaps, all is in the file. */
	quiet_assert_uint_eq(disk_summary_at(&s, 0), disk_space_at(DISK_MAX_SPACES, 0));
	quiet_assert_uint_le(disk_summary_at(&s, s.nr_segments), s.data_off);
	quiet_assert_uint_le(disk_data_at(&s, s.nr_segments), file);
	quiet_assert_uint_ge(s.summary_bytes, 4096 + s.nr_headers * 128);
	/* Blocks of the hint's size use the segment up, or there is a header for each page. */
	quiet_assert(s.nr_headers * least + least > segment || s.nr_headers == segment / 4096);
	quiet_assert_uint_le((uint64_t)s.nr_segments * s.nr_headers, DISK_MAX_HEADERS);
	return true;
}

START_TEST(layouts_of_all_sizes)
{
	static const uint64_t hints[] = { 0, 1, 4096, 4097, 65536, 100000, 524288, MIB };

	for (size_t i = 0; i < ARRAY_SIZE(hints); i++) {
		for (uint64_t seg = MIB; seg <= GIB; seg *= 2)
			for (uint64_t segs = 1; segs < 300; segs += segs / 8 + 1)
				fits(3 * MIB + segs * seg + segs * 4096, seg, hints[i]);
		ck_assert(fits(1ull << 40, GIB, hints[i]));
		ck_assert(fits(UINT64_MAX, MIB, hints[i]));
		ck_assert(fits(UINT64_MAX, GIB, hints[i]));
		ck_assert(fits(INT64_MAX, 3 * MIB, hints[i]));
	}
	ck_assert(fits(16 * GIB, 64 * MIB, 65536));
	ck_assert(fits(GIB * 5, GIB, GIB));
}
END_TEST

START_TEST(the_smallest_file)
{
	struct disk_super s;
	char msg[256];
	uint64_t file;

	for (file = 0; !fits(file, MIB, 4096); file += 4096)
		ck_assert_uint_lt(file, 64 * MIB);
	ck_assert(!disk_super_make(&s, file, MIB, 4096, msg, sizeof(msg)));
	ck_assert_uint_eq(s.nr_segments, DISK_MIN_SEGMENTS);
	/* The message names what is enough. */
	ck_assert_int_eq(disk_super_make(&s, file - 1, MIB, 4096, msg, sizeof(msg)), -EINVAL);
	ck_assert(strstr(msg, "need "));
	ck_assert_uint_eq(strtoull(strstr(msg, "need ") + 5, NULL, 10), file);
}
END_TEST

START_TEST(bad_layouts_are_refused)
{
	ck_assert(!fits(GIB, 0, 4096));
	ck_assert(!fits(GIB, 1, 4096));
	ck_assert(!fits(GIB, MIB + 4096, 4096));
	ck_assert(!fits(UINT64_MAX, 2 * GIB, 4096));
	ck_assert(!fits(UINT64_MAX, UINT64_MAX, 4096));
	ck_assert(!fits(UINT64_MAX, UINT64_MAX & ~(MIB - 1), 4096));
	ck_assert(!fits(GIB, MIB, MIB + 1));
	ck_assert(!fits(GIB, MIB, UINT64_MAX));
	ck_assert(!fits(0, MIB, 4096));
}
END_TEST

START_TEST(every_reason_has_a_name)
{
	for (unsigned i = 0; i < NR_DISK_WHY; i++) {
		ck_assert_str_ne(disk_why_name(i), "?");
		for (unsigned k = 0; k < i; k++)
			ck_assert_str_ne(disk_why_name(i), disk_why_name(k));
	}
	ck_assert_str_eq(disk_why_name(NR_DISK_WHY), "?");
}
END_TEST

static void add(Suite *s, const char *behaviour, const TTest *test)
{
	suite_test(s, behaviour, test, NULL, NULL);
}

int main(void)
{
	Suite *s = suite_create("disk_format");

	add(s, "what is right is fine", what_is_right_is_fine);
	add(s, "fields are where the manual says", fields_are_where_the_manual_says);
	add(s, "bad values of a superblock", bad_values_of_a_superblock);
	add(s, "bad values of a space", bad_values_of_a_space);
	add(s, "bad values of a head", bad_values_of_a_head);
	add(s, "bad values of a header", bad_values_of_a_header);
	add(s, "every flipped bit is seen", every_flipped_bit_is_seen);
	add(s, "another version is told from a broken one",
	    another_version_is_told_from_a_broken_one);
	add(s, "layouts of all sizes", layouts_of_all_sizes);
	add(s, "the smallest file", the_smallest_file);
	add(s, "bad layouts are refused", bad_layouts_are_refused);
	add(s, "every reason has a name", every_reason_has_a_name);

	return suite_run(s);
}
