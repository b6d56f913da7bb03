// SPDX-License-Identifier: Apache-2.0
/*
 * check_cuda_conformance.c - what kvmd takes for granted of the driver: memory.
 *
 * The same assertions on the fake driver and on a real one, so that the fake cannot
 * drift: entry, physical memory, mappings. Sharing: check_cuda_conformance_share.c.
 * Copies, streams and contexts: check_cuda_conformance_work.c.
 * Only refusals that kvmd counts on are here; where the fake is stricter than a driver
 * need be, check_fakecuda.c has it.
 */
#include <unistd.h>

#include "tests/gpu/driver_rig.h"

#define PART	65536u

/* ------------------------------------------------------------ entry */

START_TEST(unknown_functions_are_not_found)
{
	cu_get_proc_fn *get;
	void *fn, *sym;
	struct cr r;
	int why;

	cr_open(&r);
	sym = dlsym(r.cu.so, "cuGetProcAddress_v2");
	memcpy(&get, &sym, sizeof(get));
	fn = NULL;
	CR(get("cuNoSuchFunction", &fn, 12000, 0, &why) || !fn);
	/* From a version that this driver is older than. */
	fn = NULL;
	CR(get("cuMemCreate", &fn, 99000, 0, &why) || !fn);
	fn = NULL;
	CR_OK(get("cuMemCreate", &fn, 12000, 0, &why));
	CR(fn);
}
END_TEST

static void in_a_child_of_cuda(struct cr_child *me, void *arg)
{
	struct cr *r = arg;
	cu_mem mem;
	struct cu_mem_prop p = {
		.type = CU_MEM_PINNED, .location = { CU_LOC_DEVICE, 0 },
	};

	(void)me;
	CR_NOT(r->cu.init(0));
	CR_NOT(r->cu.mem_create(&mem, r->gran, &p, 0));
}

START_TEST(cuda_does_not_survive_fork)
{
	struct cr_child c;
	struct cr r;

	cr_open(&r);
	cr_fork(&c, in_a_child_of_cuda, &r);
	cr_end(&c);
}
END_TEST

static void say_uuid(struct cr_child *me, void *arg)
{
	struct cu_uuid u;
	struct cr r;

	(void)arg;
	cr_open(&r);
	CR_OK(r.cu.device_uuid(&u, 0));
	cr_say_bytes(me, &u, sizeof(u));
}

START_TEST(a_device_has_the_same_uuid_everywhere)
{
	struct cu_uuid mine, theirs;
	struct cr_child c;
	struct cr r;

	cr_fork(&c, say_uuid, NULL);
	cr_open(&r);
	CR_OK(r.cu.device_uuid(&mine, 0));
	cr_hear_bytes(&c, &theirs, sizeof(theirs));
	CR(!memcmp(&mine, &theirs, sizeof(mine)));
	cr_end(&c);
}
END_TEST

START_TEST(the_device_can_do_what_is_needed)
{
	size_t total, free_now, all;
	char text[64];
	struct cr r;
	int v;

	cr_open(&r);
	CR_OK(r.cu.device_attr(&v, CU_ATTR_MEM_OPS_64, 0));
	CR(v);
	CR_OK(r.cu.device_attr(&v, CU_ATTR_HOST_REGISTER, 0));
	CR(v);
	CR_OK(r.cu.device_attr(&v, CU_ATTR_MPS, 0));
	CR(!v);
	CR_OK(r.cu.device_name(text, sizeof(text), 0));
	CR(text[0]);
	CR_OK(r.cu.device_pci(text, sizeof(text), 0));
	CR(strchr(text, ':'));
	CR_OK(r.cu.device_mem(&total, 0));
	CR_OK(r.cu.mem_info(&free_now, &all));
	CR(free_now <= all && all <= total);
	CR(strstr(cu_error(&r.cu, CU_OUT_OF_MEMORY), "OUT_OF_MEMORY"));
}
END_TEST

/* ------------------------------------------------------------ physical memory */

static struct cu_mem_prop good_prop(void)
{
	return (struct cu_mem_prop){
		.type = CU_MEM_PINNED, .handle_types = CU_MEM_POSIX_FD,
		.location = { CU_LOC_DEVICE, 0 },
	};
}

START_TEST(sizes_are_multiples_of_the_granularity)
{
	struct cu_mem_prop p = good_prop();
	struct cr r;
	cu_mem mem;

	cr_open(&r);
	CR(r.gran >= 4096 && !(r.gran & (r.gran - 1)));
	CR_NOT(r.cu.mem_create(&mem, r.gran + 4096, &p, 0));
	CR_NOT(r.cu.mem_create(&mem, 0, &p, 0));
	CR_OK(r.cu.mem_create(&mem, 3 * r.gran, &p, 0));
	CR_OK(r.cu.mem_release(mem));
}
END_TEST

START_TEST(only_device_memory_is_exportable)
{
	struct cu_mem_prop p = good_prop();
	struct cr r;
	cu_mem mem;
	int fd;

	cr_open(&r);
	p.location.id = 4711;
	CR_NOT(r.cu.mem_create(&mem, r.gran, &p, 0));
	p = good_prop();
	p.location.type = CU_LOC_HOST;
	CR_NOT(r.cu.mem_create(&mem, r.gran, &p, 0));
	/* Only what was asked for when it was made. */
	p = good_prop();
	p.handle_types = 0;
	CR_OK(r.cu.mem_create(&mem, r.gran, &p, 0));
	CR_NOT(r.cu.mem_export(&fd, mem, CU_MEM_POSIX_FD, 0));
	CR_OK(r.cu.mem_release(mem));
}
END_TEST

START_TEST(too_much_memory_is_an_error_and_no_more)
{
	struct cu_mem_prop p = good_prop();
	struct cr_mem m;
	size_t total;
	struct cr r;
	cu_mem mem;

	cr_open(&r);
	CR_OK(r.cu.device_mem(&total, 0));
	total = (total + r.gran) & ~(r.gran - 1);
	CR_IS(r.cu.mem_create(&mem, total, &p, 0), CU_OUT_OF_MEMORY);
	cr_new(&r, &m, r.gran);
	cr_fill(&r, m.ptr, 1, PART);
	CR(cr_is(&r, m.ptr, 1, PART));
	cr_free(&r, &m);
}
END_TEST

static size_t free_memory(struct cr *r)
{
	size_t free_now, total;

	CR_OK(r->cu.mem_info(&free_now, &total));
	return free_now;
}

START_TEST(memory_is_in_use_while_a_handle_mapping_or_fd_is_there)
{
	size_t before, n;
	struct cr_mem m;
	struct cr r;
	int fd;

	cr_open(&r);
	n = 16 * r.gran;
	before = free_memory(&r);
	cr_new(&r, &m, n);
	CR(free_memory(&r) + n <= before);
	fd = cr_export(&r, m.mem);
	CR_OK(r.cu.mem_release(m.mem));
	CR(free_memory(&r) + n <= before);
	cr_unmap(&r, m.ptr, n);
	CR(free_memory(&r) + n <= before);
	close(fd);
	CR(free_memory(&r) + n > before);
}
END_TEST

/* ------------------------------------------------------------ mappings */

START_TEST(a_handle_is_mapped_whole)
{
	struct cr r;
	cu_ptr ptr;
	cu_mem mem;
	size_t n;

	cr_open(&r);
	n = 2 * r.gran;
	mem = cr_create(&r, n);
	CR_OK(r.cu.mem_reserve(&ptr, 2 * n, 0, 0, 0));
	CR_NOT(r.cu.mem_map(ptr, r.gran, r.gran, mem, 0));	/* from an offset */
	CR_NOT(r.cu.mem_map(ptr, 2 * n, 0, mem, 0));		/* more than it has */
	CR_NOT(r.cu.mem_map(ptr, n + 4096, 0, mem, 0));
	CR_NOT(r.cu.mem_map(ptr + 2 * n, n, 0, mem, 0));	/* not reserved */
	CR_OK(r.cu.mem_map(ptr, n, 0, mem, 0));
	CR_NOT(r.cu.mem_map(ptr, n, 0, mem, 0));		/* there is something */
	CR_OK(r.cu.mem_map(ptr + n, n, 0, mem, 0));		/* the same again, elsewhere */
	CR_OK(r.cu.mem_unmap(ptr, n));
	CR_OK(r.cu.mem_unmap(ptr + n, n));
	CR_OK(r.cu.mem_unreserve(ptr, 2 * n));
	CR_OK(r.cu.mem_release(mem));
}
END_TEST

START_TEST(a_part_is_not_unmapped)
{
	struct cr_mem m;
	struct cr r;

	cr_open(&r);
	cr_new(&r, &m, 2 * r.gran);
	CR_NOT(r.cu.mem_unmap(m.ptr, r.gran));
	CR_NOT(r.cu.mem_unmap(m.ptr + r.gran, r.gran));
	cr_fill(&r, m.ptr + r.gran, 3, PART);
	cr_free(&r, &m);
}
END_TEST

START_TEST(addresses_can_be_asked_for)
{
	cu_ptr ptr, again;
	struct cr r;

	cr_open(&r);
	CR_OK(r.cu.mem_reserve(&ptr, 8 * r.gran, 4 * r.gran, 0, 0));
	CR(!(ptr & (4 * r.gran - 1)));
	CR_OK(r.cu.mem_unreserve(ptr, 8 * r.gran));
	/* A hint: it may be elsewhere, but it is somewhere. */
	CR_OK(r.cu.mem_reserve(&again, 8 * r.gran, 0, ptr, 0));
	CR_OK(r.cu.mem_unreserve(again, 8 * r.gran));
}
END_TEST

START_TEST(one_memory_has_a_reading_and_a_writing_window)
{
	struct cu_location here = { CU_LOC_DEVICE, 0 };
	unsigned long long prot = 99;
	cu_ptr ro, rw;
	struct cr r;
	cu_mem mem;

	cr_open(&r);
	mem = cr_create(&r, r.gran);
	ro = cr_map(&r, mem, r.gran, CU_PROT_READ);
	rw = cr_map(&r, mem, r.gran, CU_PROT_READWRITE);
	CR(ro != rw);
	CR_OK(r.cu.mem_get_access(&prot, &here, ro));
	CR(prot == CU_PROT_READ);
	CR_OK(r.cu.mem_get_access(&prot, &here, rw));
	CR(prot == CU_PROT_READWRITE);
	/* The handle is not needed any more. */
	CR_OK(r.cu.mem_release(mem));
	cr_fill(&r, rw + PART, 4, PART);
	CR(cr_is(&r, ro + PART, 4, PART));
	cr_unmap(&r, rw, r.gran);
	CR(cr_is(&r, ro + PART, 4, PART));
	cr_unmap(&r, ro, r.gran);
}
END_TEST

START_TEST(neighbouring_mappings_are_one_range)
{
	struct cr r;
	cu_ptr ptr;
	cu_mem mem[2];

	cr_open(&r);
	CR_OK(r.cu.mem_reserve(&ptr, 2 * r.gran, 0, 0, 0));
	for (int i = 0; i < 2; i++) {
		mem[i] = cr_create(&r, r.gran);
		CR_OK(r.cu.mem_map(ptr + i * r.gran, r.gran, 0, mem[i], 0));
	}
	cr_access(&r, ptr, 2 * r.gran, CU_PROT_READWRITE);
	cr_fill(&r, ptr + r.gran - PART, 5, 2 * PART);
	CR(cr_is(&r, ptr + r.gran - PART, 5, 2 * PART));
	for (int i = 0; i < 2; i++) {
		CR_OK(r.cu.mem_unmap(ptr + i * r.gran, r.gran));
		CR_OK(r.cu.mem_release(mem[i]));
	}
	CR_OK(r.cu.mem_unreserve(ptr, 2 * r.gran));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cuda_conformance");
	TCase *t;

	t = tcase_create("entry");
	tcase_add_test(t, unknown_functions_are_not_found);
	tcase_add_test(t, cuda_does_not_survive_fork);
	tcase_add_test(t, a_device_has_the_same_uuid_everywhere);
	tcase_add_test(t, the_device_can_do_what_is_needed);
	suite_add_tcase(s, t);
	t = tcase_create("memory");
	tcase_add_test(t, sizes_are_multiples_of_the_granularity);
	tcase_add_test(t, only_device_memory_is_exportable);
	tcase_add_test(t, too_much_memory_is_an_error_and_no_more);
	tcase_add_test(t, memory_is_in_use_while_a_handle_mapping_or_fd_is_there);
	suite_add_tcase(s, t);
	t = tcase_create("mappings");
	tcase_add_test(t, a_handle_is_mapped_whole);
	tcase_add_test(t, a_part_is_not_unmapped);
	tcase_add_test(t, addresses_can_be_asked_for);
	tcase_add_test(t, one_memory_has_a_reading_and_a_writing_window);
	tcase_add_test(t, neighbouring_mappings_are_one_range);
	suite_add_tcase(s, t);
	return cr_main(s);
}
