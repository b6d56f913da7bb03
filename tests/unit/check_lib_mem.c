// SPDX-License-Identifier: Apache-2.0
/*
 * check_lib_mem.c - memory, memfds, seals.
 */
#include "kvmd/lib/fault.h"
#include "kvmd/lib/mem.h"

#include <check.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB	(1UL << 20)

START_TEST(heap_is_zeroed_and_checked)
{
	char *p = mem_zalloc(100), *s;
	size_t huge = SIZE_MAX / 2;

	ck_assert_ptr_nonnull(p);
	ck_assert_int_eq(p[0] | p[99], 0);
	p = mem_realloc(p, 200);
	ck_assert_ptr_nonnull(p);
	mem_free(p);
	ck_assert_ptr_null(mem_calloc(huge, 4));
	s = mem_strdup("word");
	ck_assert_str_eq(s, "word");
	mem_free(s);
	mem_free(NULL);
}
END_TEST

START_TEST(big_memory)
{
	static const size_t sizes[] = { 1, 4096, MIB, 2 * MIB, 5 * MIB + 12345 };
	size_t i, k;
	char *p;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		for (k = 0; k < 2; k++) {
			p = mem_big_alloc(sizes[i], k);
			ck_assert_ptr_nonnull(p);
			ck_assert_uint_eq((uintptr_t)p % 4096, 0);
			ck_assert_int_eq(p[0] | p[sizes[i] - 1], 0);
			p[0] = p[sizes[i] - 1] = 1;
			mem_big_free(p, sizes[i]);
		}
	}
	ck_assert_ptr_null(mem_big_alloc(0, false));
	ck_assert_ptr_null(mem_big_alloc(SIZE_MAX, false));
	ck_assert_ptr_null(mem_big_alloc(SIZE_MAX - 2 * MIB, false));
	mem_big_free(NULL, 0);
}
END_TEST

START_TEST(populate_by_threads_keeps_the_bytes)
{
	size_t bytes = 9 * MIB;
	char *p = mem_big_alloc(bytes, false);

	ck_assert_ptr_nonnull(p);
	p[0] = p[5 * MIB] = p[bytes - 1] = 7;
	mem_populate(p, bytes, 0);
	mem_populate(p, bytes, 3);
	mem_populate(p, bytes, 1000);
	ck_assert_int_eq(p[0] & p[5 * MIB] & p[bytes - 1], 7);
	mem_big_free(p, bytes);
}
END_TEST

START_TEST(memfd_is_mapped_shared)
{
	struct stat st;
	char *a, *b;
	void *map;
	int fd;

	fd = mem_fd_create("check", 3 * 4096, false, &map);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_int_eq(st.st_size, 3 * 4096);
	a = map;
	b = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 4096);
	ck_assert_ptr_ne(b, MAP_FAILED);
	a[4096] = 42;
	ck_assert_int_eq(b[0], 42);
	munmap(a, 3 * 4096);
	munmap(b, 4096);
	close(fd);
}
END_TEST

START_TEST(hugetlb_falls_back)
{
	void *map;
	int fd;

	/* With and without a huge page to give, and where one cannot fit. */
	fd = mem_fd_create("check", 2 * MIB, true, &map);
	ck_assert_int_ge(fd, 0);
	memset(map, 1, 2 * MIB);
	munmap(map, 2 * MIB);
	close(fd);
	fd = mem_fd_create("check", 2 * MIB, true, NULL);
	ck_assert_int_ge(fd, 0);
	close(fd);
	fd = mem_fd_create("check", 4096, true, NULL);
	ck_assert_int_ge(fd, 0);
	close(fd);
}
END_TEST

START_TEST(seals_hold)
{
	void *map, *later;
	int fd;

	fd = mem_fd_create("check", 8192, false, &map);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(mem_fd_seal(fd, true), 0);
	ck_assert_int_ne(ftruncate(fd, 4096), 0);
	ck_assert_int_ne(ftruncate(fd, 16384), 0);
	/* The mapping from before writes on; a new one may not. */
	memset(map, 1, 8192);
	later = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ck_assert_ptr_eq(later, MAP_FAILED);
	later = mmap(NULL, 8192, PROT_READ, MAP_SHARED, fd, 0);
	ck_assert_ptr_ne(later, MAP_FAILED);
	ck_assert_int_ne(mprotect(later, 8192, PROT_READ | PROT_WRITE), 0);
	/* Sealed against more seals. */
	ck_assert_int_eq(mem_fd_seal(fd, false), -EPERM);
	munmap(later, 8192);
	munmap(map, 8192);
	close(fd);
	ck_assert_int_eq(mem_fd_seal(-1, false), -EBADF);
}
END_TEST

START_TEST(bad_sizes_are_refused)
{
	void *map = &map;

	ck_assert_int_eq(mem_fd_create("check", 0, false, &map), -EINVAL);
	ck_assert_int_eq(mem_fd_create("check", UINT64_MAX, false, &map), -EINVAL);
	ck_assert_int_lt(mem_fd_create("check", INT64_MAX, false, &map), 0);
	ck_assert_ptr_eq(map, &map);
}
END_TEST

START_TEST(everything_can_be_made_to_fail)
{
	void *map;

	ck_assert_int_eq(fault_arm("alloc:every=1", NULL, 0), 0);
	ck_assert_ptr_null(mem_zalloc(1));
	ck_assert_ptr_null(mem_calloc(1, 1));
	ck_assert_ptr_null(mem_realloc(NULL, 1));
	ck_assert_ptr_null(mem_strdup(""));
	ck_assert_ptr_null(mem_big_alloc(4096, false));
	ck_assert_int_eq(mem_fd_create("check", 4096, false, &map), -ENOMEM);
	ck_assert_uint_eq(fault_nr_hits(FAULT_ALLOC), 6);
	fault_disarm();
}
END_TEST

static void add(Suite *s, const char *behaviour, const TTest *test)
{
	TCase *tc = tcase_create(behaviour);

	tcase_add_test(tc, test);
	suite_add_tcase(s, tc);
}

int main(void)
{
	Suite *s = suite_create("lib_mem");
	SRunner *sr;
	int nr_failed;

	add(s, "heap is zeroed and checked", heap_is_zeroed_and_checked);
	add(s, "big memory", big_memory);
	add(s, "populate by threads keeps the bytes", populate_by_threads_keeps_the_bytes);
	add(s, "memfd is mapped shared", memfd_is_mapped_shared);
	add(s, "hugetlb falls back", hugetlb_falls_back);
	add(s, "seals hold", seals_hold);
	add(s, "bad sizes are refused", bad_sizes_are_refused);
	add(s, "everything can be made to fail", everything_can_be_made_to_fail);

	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	nr_failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return nr_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
