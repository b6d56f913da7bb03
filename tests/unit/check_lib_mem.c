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

#include "tests/suite.h"

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
	ck_assert_int_eq(mem_populate(p, bytes, 0), 0);
	ck_assert_int_eq(mem_populate(p, bytes, 3), 0);
	ck_assert_int_eq(mem_populate(p, bytes, 1000), 0);
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

START_TEST(populate_says_what_it_cannot_touch)
{
	char *p = mmap(NULL, 2 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ck_assert_ptr_ne(p, MAP_FAILED);
	munmap(p + MIB, MIB);
	ck_assert_int_eq(mem_populate(p, MIB, 1), 0);
	ck_assert_int_lt(mem_populate(p, 2 * MIB, 1), 0);
	munmap(p, MIB);
}
END_TEST

static uint64_t pages_sum(const struct mem_pages *pages)
{
	return pages->hugetlb_bytes + pages->thp_bytes + pages->small_bytes;
}

/* What the machine gives is its own affair: the account must agree with the file. */
START_TEST(paged_memory_says_its_pages)
{
	static const uint64_t sizes[] = { 4096, 2 * MIB, 6 * MIB, 6 * MIB + 4096 };
	struct mem_pages pages, again;
	struct stat st;
	void *map, *second;
	int fd, huge;

	for (size_t i = 0; i < 2 * ARRAY_SIZE(sizes); i++) {
		uint64_t bytes = sizes[i / 2];

		huge = i & 1;
		fd = mem_fd_create_paged("check", bytes, huge, 2, &map, &pages);
		ck_assert_int_ge(fd, 0);
		ck_assert_uint_eq((uintptr_t)map % (2 * MIB), 0);
		ck_assert_uint_eq(pages_sum(&pages), bytes);
		ck_assert_int_eq(fstat(fd, &st), 0);
		ck_assert_int_eq(st.st_size, bytes);
		ck_assert(!pages.hugetlb_bytes || (huge && pages.hugetlb_bytes == bytes));
		ck_assert_uint_eq(pages.thp_bytes % (2 * MIB), 0);
		ck_assert_int_eq(((char *)map)[bytes - 1], 0);
		((char *)map)[bytes - 1] = 9;
		ck_assert_int_eq(mem_fd_map(fd, bytes, &second), 0);
		ck_assert_uint_eq((uintptr_t)second % (2 * MIB), 0);
		ck_assert_int_eq(((char *)second)[bytes - 1], 9);
		ck_assert_int_eq(mem_populate(second, bytes, 1), 0);
		mem_get_pages(fd, second, bytes, &again);
		ck_assert_uint_eq(again.hugetlb_bytes, pages.hugetlb_bytes);
		ck_assert_uint_eq(pages_sum(&again), bytes);
		munmap(second, bytes);
		munmap(map, bytes);
		close(fd);
	}
}
END_TEST

START_TEST(pages_of_anonymous_memory)
{
	struct mem_pages pages;
	char *p = mem_big_alloc(4 * MIB, true);

	ck_assert_ptr_nonnull(p);
	mem_get_pages(-1, p, 4 * MIB, &pages);
	ck_assert_uint_eq(pages_sum(&pages), 4 * MIB);
	ck_assert_uint_eq(pages.hugetlb_bytes, 0);
	mem_big_free(p, 4 * MIB);
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
	ck_assert_int_eq(mem_fd_create_paged("check", 0, true, 1, &map, NULL), -EINVAL);
	ck_assert_int_eq(mem_fd_create_paged("check", UINT64_MAX, true, 1, &map, NULL), -EINVAL);
	ck_assert_int_lt(mem_fd_create_paged("check", INT64_MAX, true, 1, &map, NULL), 0);
	ck_assert_int_eq(mem_fd_map(-1, 0, &map), -EINVAL);
	ck_assert_int_eq(mem_fd_map(9999, 4096, &map), -EBADF);
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
	ck_assert_int_eq(mem_fd_create_paged("check", 4096, false, 1, &map, NULL), -ENOMEM);
	ck_assert_int_eq(mem_fd_map(0, 4096, &map), -ENOMEM);
	ck_assert_uint_eq(fault_nr_hits(FAULT_ALLOC), 8);
	fault_disarm();
}
END_TEST

static void add(Suite *s, const char *behaviour, const TTest *test)
{
	suite_test(s, behaviour, test, NULL, NULL);
}

int main(void)
{
	Suite *s = suite_create("lib_mem");

	add(s, "heap is zeroed and checked", heap_is_zeroed_and_checked);
	add(s, "big memory", big_memory);
	add(s, "populate by threads keeps the bytes", populate_by_threads_keeps_the_bytes);
	add(s, "memfd is mapped shared", memfd_is_mapped_shared);
	add(s, "hugetlb falls back", hugetlb_falls_back);
	add(s, "populate says what it cannot touch", populate_says_what_it_cannot_touch);
	add(s, "paged memory says its pages", paged_memory_says_its_pages);
	add(s, "pages of anonymous memory", pages_of_anonymous_memory);
	add(s, "seals hold", seals_hold);
	add(s, "bad sizes are refused", bad_sizes_are_refused);
	add(s, "everything can be made to fail", everything_can_be_made_to_fail);

	return suite_run(s);
}
