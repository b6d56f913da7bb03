// SPDX-License-Identifier: Apache-2.0
/*
 * check_disk_fuzz.c - damaged superblocks, spaces, heads and headers.
 *
 * Through the check functions: what has a wrong CRC is never fine, and what is
 * fine is in bounds, however its CRC came to be right. Through the offline walk
 * of a file: it ends, and one flipped bit in anything that is used is a fault.
 * KVMD_TEST_SEED repeats a run, KVMD_FUZZ_RUNS sets how many.
 */
#include "tools/kvctl/fsck.h"

#include <check.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/disk_image.h"
#include "tests/harness.h"
#include "tests/quiet.h"

#define MAX_WALKS	50000ull	/* of files, in the long run */

static uint64_t rnd;

static uint64_t below(uint64_t n)
{
	return test_random(&rnd) % n;
}

/* A few bits, bytes or words of it become others. */
static void damage(void *p, size_t bytes)
{
	static const uint64_t odd[] = { 0, 1, 2, UINT64_MAX, INT64_MAX, 1ull << 32, UINT32_MAX,
					4096, 1 << 20, (1ull << 29) - 1 };
	unsigned char *at = p;

	for (uint64_t i = 1 + below(3); i; i--) {
		/* Most fields are in front. */
		size_t n = below(2) ? below(min(bytes, (size_t)128)) : below(bytes);
		size_t len = min(bytes - n, (size_t)1 << below(4));
		uint64_t v = below(2) ? odd[below(ARRAY_SIZE(odd))] : test_random(&rnd);

		if (below(2))
			at[n] ^= (unsigned char)(1u << below(8));
		else
			memcpy(at + n, &v, len);
	}
}

/* ------------------------------------------------------------------- checks */

static void super_in_bounds(const struct disk_super *s)
{
	uint64_t end;

	quiet_assert(s->nr_segments && s->nr_headers && s->segment_bytes);
	quiet_assert_uint_le(disk_summary_at(s, s->nr_segments), s->data_off);
	quiet_assert(!__builtin_mul_overflow(s->segment_bytes, s->nr_segments, &end));
	quiet_assert(!__builtin_add_overflow(end, s->data_off, &end));
	quiet_assert_uint_le(end, INT64_MAX);
	quiet_assert_uint_le(4096 + (uint64_t)s->nr_headers * 128, s->summary_bytes);
	quiet_assert_uint_le((uint64_t)s->nr_segments * s->nr_headers, DISK_MAX_HEADERS);
}

/* @x was right; damaged, with and without a new CRC. Then @bounds must hold if it is fine. */
#define DAMAGED(type, orig, finish, check, bounds) do { \
	struct type x = orig; \
	damage(&x, sizeof(x)); \
	if (below(2)) { \
		finish(&x); \
	} else if (memcmp(&x, &orig, sizeof(x))) { \
		quiet_assert_int_ne(check, DISK_FINE); \
		break; \
	} \
	if ((check) == DISK_FINE) \
		bounds; \
} while (0)

START_TEST(checks_hold)
{
	uint64_t seed = test_seed(), runs = test_fuzz_runs(200000);
	struct disk_super s;
	struct disk_space sp;
	struct disk_head h;
	struct disk_header b;
	struct image im;

	rnd = seed;
	image_make(&im, 6);
	image_segment(&im, 1, DISK_SEG_SEALED, 5);
	s = im.super;
	sp = im.space;
	image_get(&im, &h, sizeof(h), disk_summary_at(&s, 1));
	b = image_header(&im, 1, 3);
	for (uint64_t i = 0; i < runs; i++) {
		DAMAGED(disk_super, s, disk_super_finish, disk_super_check(&x),
			super_in_bounds(&x));
		DAMAGED(disk_space, sp, disk_space_finish, disk_space_check(&x, IMAGE_SPACE), {
			quiet_assert_uint_lt(strnlen(x.name, sizeof(x.name)), sizeof(x.name));
			quiet_assert_uint_lt(strnlen(x.tenant, sizeof(x.tenant)), sizeof(x.tenant));
			quiet_assert(x.nr_groups && x.nr_groups <= KVMD_MAX_GROUPS);
			quiet_assert(x.nr_shards && x.nr_shards <= KVMD_MAX_SHARDS);
		});
		DAMAGED(disk_head, h, disk_head_finish, disk_head_check(&s, &x, 1), {
			quiet_assert_uint_eq(x.seg, 1);
			quiet_assert_uint_lt(x.state, NR_DISK_SEG_STATE);
			quiet_assert_uint_le(x.nr, s.nr_headers);
			quiet_assert_uint_le(x.nr_bad, DISK_MAX_BAD);
		});
		DAMAGED(disk_header, b, disk_header_finish,
			disk_header_check(&s, &x, 1, b.generation), {
			quiet_assert_uint_le((uint64_t)x.off * 4096 + x.bytes, s.segment_bytes);
			quiet_assert(x.bytes && x.space < DISK_MAX_SPACES);
			quiet_assert_uint_lt(x.group, KVMD_MAX_GROUPS);
		});
	}
	image_remove(&im);
}
END_TEST

/* --------------------------------------------------------------------- files */

static void on_fault(void *ctx, uint64_t off, const char *text)
{
	(void)off;
	quiet_assert(text[0]);
	++*(uint64_t *)ctx;
}

static uint64_t faults_of(struct image *im, bool data)
{
	static struct fsck_file f;
	uint64_t nr = 0;
	struct fsck_ops ops = { .data = data, .fault = on_fault, .ctx = &nr };

	quiet_assert_int_eq(fsck_walk(im->path, &ops, &f), 0);
	quiet_assert_uint_eq(nr, f.nr_faults);
	return nr;
}

static void image(struct image *im)
{
	image_make(im, 4);
	image_segment(im, 0, DISK_SEG_SEALED, IMAGE_PER_SEG);
	image_segment(im, 2, DISK_SEG_OPEN, 3);
	image_segment(im, 3, DISK_SEG_SEALED, 2);
}

/* Something that is used, and how long it is. */
static uint64_t a_place(struct image *im, size_t *ret_bytes)
{
	static const uint32_t segs[] = { 0, 2, 3 }, nrs[] = { IMAGE_PER_SEG, 3, 2 };
	uint64_t i = below(3);

	*ret_bytes = DISK_ALIGN;
	switch (below(5)) {
	case 0: return below(2) * DISK_ALIGN;
	case 1: return disk_space_at(IMAGE_SPACE, 0);
	case 2: return disk_summary_at(&im->super, segs[i]);
	default: *ret_bytes = sizeof(struct disk_header);
		 return image_header_at(im, segs[i], (uint32_t)below(nrs[i]));
	}
}

START_TEST(one_flipped_bit_is_a_fault)
{
	uint64_t seed = test_seed(), runs = min(test_fuzz_runs(500), MAX_WALKS), at;
	unsigned char c;
	struct image im;
	size_t bytes;

	rnd = seed;
	image(&im);
	ck_assert_uint_eq(faults_of(&im, true), 0);
	for (uint64_t i = 0; i < runs; i++) {
		bool payload = !below(8);
		unsigned char was;

		at = payload ? disk_data_at(&im.super, 0) + below(IMAGE_SEGMENT) :
		     a_place(&im, &bytes);
		if (!payload)
			at += below(bytes);
		image_get(&im, &was, 1, at);
		c = was ^ (unsigned char)(1u << below(8));
		image_put(&im, &c, 1, at);
		quiet_assert_msg(faults_of(&im, payload), "offset %llu", (unsigned long long)at);
		image_put(&im, &was, 1, at);
	}
	image_remove(&im);
}
END_TEST

/* The CRC of what lies at @at made right. */
static void refinish(struct image *im, uint64_t at, size_t bytes)
{
	static unsigned char buf[DISK_ALIGN];
	uint32_t crc;

	image_get(im, buf, bytes, at);
	crc = disk_crc(buf, bytes - 4);
	memcpy(buf + bytes - 4, &crc, sizeof(crc));
	image_put(im, buf, bytes, at);
}

START_TEST(any_damage_is_walked)
{
	uint64_t seed = test_seed(), runs = min(test_fuzz_runs(200), MAX_WALKS);
	static unsigned char buf[DISK_ALIGN];
	struct image im;
	size_t bytes;

	rnd = seed;
	for (uint64_t i = 0; i < runs; i++) {
		image(&im);
		for (uint64_t k = 1 + below(6); k; k--) {
			uint64_t at = a_place(&im, &bytes);

			image_get(&im, buf, bytes, at);
			damage(buf, bytes);
			image_put(&im, buf, bytes, at);
			if (below(4))
				refinish(&im, at, bytes);
		}
		if (!below(4))
			T(!ftruncate(im.fd, (off_t)below(disk_data_at(&im.super, 4))));
		faults_of(&im, true);
		image_remove(&im);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("disk_fuzz");
	TCase *tc = tcase_create("disk");
	SRunner *sr;
	int nr_failed;

	tcase_set_timeout(tc, 0);	/* as long as KVMD_FUZZ_RUNS asks for */
	tcase_add_test(tc, checks_hold);
	tcase_add_test(tc, one_flipped_bit_is_a_fault);
	tcase_add_test(tc, any_damage_is_walked);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	nr_failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return nr_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
