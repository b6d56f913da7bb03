// SPDX-License-Identifier: Apache-2.0
/*
 * check_cuda_conformance_share.c - what kvmd takes for granted of the driver: sharing.
 *
 * Memory between processes, what each may do to the others, and what is left when one
 * of them dies. The same assertions on the fake driver and on a real one.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "tests/gpu/driver_rig.h"

#define PART	65536u

static size_t free_memory(struct cr *r)
{
	size_t free_now, total;

	CR_OK(r->cu.mem_info(&free_now, &total));
	return free_now;
}

/* ------------------------------------------------------------ sharing */

START_TEST(what_is_no_exported_memory_is_not_imported)
{
	int fd = memfd_create("other", MFD_CLOEXEC);
	struct cr r;
	cu_mem mem;

	cr_open(&r);
	CR(fd >= 0 && !ftruncate(fd, r.gran));
	CR_NOT(r.cu.mem_import(&mem, (void *)(intptr_t)fd, CU_MEM_POSIX_FD));
	close(fd);
	CR_NOT(r.cu.mem_import(&mem, (void *)(intptr_t)fd, CU_MEM_POSIX_FD));
}
END_TEST

START_TEST(ones_own_export_is_imported)
{
	struct cr_mem m;
	struct cr r;
	cu_mem mem;
	cu_ptr ptr;
	int fd;

	cr_open(&r);
	cr_new(&r, &m, r.gran);
	fd = cr_export(&r, m.mem);
	mem = cr_import(&r, fd);
	close(fd);
	ptr = cr_map(&r, mem, r.gran, CU_PROT_READWRITE);
	cr_fill(&r, m.ptr, 6, PART);
	CR(cr_is(&r, ptr, 6, PART));
	cr_free(&r, &m);
	CR(cr_is(&r, ptr, 6, PART));
	cr_unmap(&r, ptr, r.gran);
	CR_OK(r.cu.mem_release(mem));
}
END_TEST

/* Exports memory full of 7, waits, says what stands there then, waits again. */
static void exporter(struct cr_child *me, void *arg)
{
	struct cr_mem m;
	struct cr r;

	(void)arg;
	cr_open(&r);
	cr_new(&r, &m, 2 * r.gran);
	cr_fill(&r, m.ptr, 7, m.bytes);
	cr_send(me, cr_export(&r, m.mem));
	cr_hear(me);
	cr_say(me, cr_is(&r, m.ptr, 8, PART));
	cr_hear(me);
}

START_TEST(two_processes_see_the_same_bytes)
{
	struct cr_child c;
	struct cr r;
	cu_mem mem;
	cu_ptr ptr;
	int fd;

	cr_fork(&c, exporter, NULL);
	cr_open(&r);
	fd = cr_take(&c);
	mem = cr_import(&r, fd);
	close(fd);
	ptr = cr_map(&r, mem, 2 * r.gran, CU_PROT_READWRITE);
	CR(cr_is(&r, ptr, 7, 2 * r.gran));
	cr_fill(&r, ptr, 8, PART);
	cr_say(&c, 0);
	CR(cr_hear(&c));
	cr_say(&c, 0);
	cr_end(&c);
	cr_unmap(&r, ptr, 2 * r.gran);
	CR_OK(r.cu.mem_release(mem));
}
END_TEST

START_TEST(an_importer_outlives_the_exporter)
{
	struct cr_child c;
	struct cr r;
	cu_mem mem;
	cu_ptr ptr;
	int fd;

	cr_fork(&c, exporter, NULL);
	cr_open(&r);
	fd = cr_take(&c);
	mem = cr_import(&r, fd);
	close(fd);
	ptr = cr_map(&r, mem, 2 * r.gran, CU_PROT_READWRITE);
	cr_kill(&c);
	CR(cr_is(&r, ptr, 7, 2 * r.gran));
	cr_fill(&r, ptr, 9, PART);
	CR(cr_is(&r, ptr, 9, PART));
	cr_unmap(&r, ptr, 2 * r.gran);
	CR_OK(r.cu.mem_release(mem));
}
END_TEST

START_TEST(a_kept_fd_brings_the_memory_back)
{
	struct cr_child c;
	struct cr r;
	cu_mem mem;
	cu_ptr ptr;
	int fd;

	cr_fork(&c, exporter, NULL);
	fd = cr_take(&c);
	/* Now nobody has it but this process, which has not opened the driver. */
	cr_kill(&c);
	cr_open(&r);
	mem = cr_import(&r, fd);
	close(fd);
	ptr = cr_map(&r, mem, 2 * r.gran, CU_PROT_READ);
	CR(cr_is(&r, ptr, 7, 2 * r.gran));
	cr_unmap(&r, ptr, 2 * r.gran);
	CR_OK(r.cu.mem_release(mem));
}
END_TEST

START_TEST(the_memory_of_the_dead_is_free)
{
	struct cr_child c;
	size_t during, n;
	struct cr r;

	cr_fork(&c, exporter, NULL);
	cr_open(&r);
	n = 2 * r.gran;
	close(cr_take(&c));
	during = free_memory(&r);
	cr_kill(&c);
	/* A driver may be late with it; the test's own limit is the limit. */
	while (free_memory(&r) < during + n)
		usleep(1000);
}
END_TEST

static void write_where_it_reads(struct cr_child *me, void *arg)
{
	char b[64] = "no";
	struct cr r;
	cu_ptr ptr;
	cu_mem mem;
	int fd, err;

	(void)arg;
	fd = cr_take(me);
	cr_open(&r);
	mem = cr_import(&r, fd);
	close(fd);
	ptr = cr_map(&r, mem, r.gran, CU_PROT_READ);
	CR(cr_is(&r, ptr, 1, PART));
	err = cr_put(&r, ptr, b, sizeof(b));
	CR(err && cu_is_sticky(err));
	/* And from now on everything says so. */
	CR(cu_is_sticky(r.cu.stream_query(r.s)));
	CR(cu_is_sticky(r.cu.ctx_sync()));
	CR_NOT(cr_get(&r, b, ptr, sizeof(b)));
	cr_say(me, 0);
	cr_hear(me);
}

START_TEST(a_write_through_a_reading_window_ends_the_writers_context)
{
	struct cr_child c;
	struct cr_mem m;
	struct cr r;

	cr_fork(&c, write_where_it_reads, NULL);
	cr_open(&r);
	cr_new(&r, &m, r.gran);
	cr_fill(&r, m.ptr, 1, PART);
	cr_send(&c, cr_export(&r, m.mem));
	cr_hear(&c);
	/* Nobody else's, and nothing was written. */
	CR(cr_is(&r, m.ptr, 1, PART));
	cr_fill(&r, m.ptr, 2, PART);
	CR(cr_is(&r, m.ptr, 2, PART));
	cr_say(&c, 0);
	cr_end(&c);
	cr_free(&r, &m);
}
END_TEST

START_TEST(a_mapping_without_access_is_not_read)
{
	char b[64];
	struct cr r;
	cu_ptr ptr;
	cu_mem mem;

	cr_open(&r);
	mem = cr_create(&r, r.gran);
	ptr = cr_map(&r, mem, r.gran, CU_PROT_NONE);
	CR_NOT(cr_get(&r, b, ptr, sizeof(b)));
}
END_TEST

/* ------------------------------------------------------------ legacy */

static void open_legacy(struct cr_child *me, void *arg)
{
	struct cu_ipc_handle h;
	cu_ptr ptr, again;
	struct cr r;

	(void)arg;
	cr_open(&r);
	cr_hear_bytes(me, &h, sizeof(h));
	CR_OK(r.cu.ipc_open(&ptr, h, CU_IPC_LAZY_PEER));
	/* Counted: one place, two closes. */
	CR_OK(r.cu.ipc_open(&again, h, CU_IPC_LAZY_PEER));
	CR(again == ptr);
	CR_OK(r.cu.ipc_close(ptr));
	CR(cr_is(&r, ptr, 1, PART));
	cr_fill(&r, ptr + PART, 2, PART);
	CR_OK(r.cu.ipc_close(ptr));
}

START_TEST(allocated_memory_is_shared_by_its_64_bytes)
{
	struct cu_ipc_handle h;
	struct cr_child c;
	struct cr r;
	cu_ptr ptr;

	cr_fork(&c, open_legacy, NULL);
	cr_open(&r);
	CR_OK(r.cu.mem_alloc(&ptr, r.gran));
	cr_fill(&r, ptr, 1, PART);
	CR_OK(r.cu.ipc_get(&h, ptr));
	CR_NOT(r.cu.ipc_open(&(cu_ptr){ 0 }, h, CU_IPC_LAZY_PEER));	/* not at home */
	cr_say_bytes(&c, &h, sizeof(h));
	cr_end(&c);
	CR(cr_is(&r, ptr, 1, PART));
	CR(cr_is(&r, ptr + PART, 2, PART));
	CR_OK(r.cu.mem_free(ptr));
}
END_TEST

START_TEST(mapped_memory_has_no_64_bytes)
{
	struct cu_ipc_handle h;
	struct cr_mem m;
	struct cr r;

	cr_open(&r);
	cr_new(&r, &m, r.gran);
	CR_NOT(r.cu.ipc_get(&h, m.ptr));
	cr_free(&r, &m);
}
END_TEST

static void export_legacy(struct cr_child *me, void *arg)
{
	struct cu_ipc_handle h;
	struct cr r;
	cu_ptr ptr;

	(void)arg;
	cr_open(&r);
	CR_OK(r.cu.mem_alloc(&ptr, r.gran));
	CR_OK(r.cu.ipc_get(&h, ptr));
	cr_say_bytes(me, &h, sizeof(h));
	cr_hear(me);
}

START_TEST(the_64_bytes_die_with_the_exporter)
{
	struct cu_ipc_handle h;
	struct cr_child c;
	struct cr r;
	cu_ptr ptr;

	cr_fork(&c, export_legacy, NULL);
	cr_open(&r);
	cr_hear_bytes(&c, &h, sizeof(h));
	cr_kill(&c);
	CR_NOT(r.cu.ipc_open(&ptr, h, CU_IPC_LAZY_PEER));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cuda_conformance_share");
	TCase *t;

	t = tcase_create("sharing");
	tcase_add_test(t, what_is_no_exported_memory_is_not_imported);
	tcase_add_test(t, ones_own_export_is_imported);
	tcase_add_test(t, two_processes_see_the_same_bytes);
	tcase_add_test(t, an_importer_outlives_the_exporter);
	tcase_add_test(t, a_kept_fd_brings_the_memory_back);
	tcase_add_test(t, the_memory_of_the_dead_is_free);
	tcase_add_test(t, a_write_through_a_reading_window_ends_the_writers_context);
	tcase_add_test(t, a_mapping_without_access_is_not_read);
	suite_add_tcase(s, t);
	t = tcase_create("legacy");
	tcase_add_test(t, allocated_memory_is_shared_by_its_64_bytes);
	tcase_add_test(t, mapped_memory_has_no_64_bytes);
	tcase_add_test(t, the_64_bytes_die_with_the_exporter);
	suite_add_tcase(s, t);
	return cr_main(s);
}
