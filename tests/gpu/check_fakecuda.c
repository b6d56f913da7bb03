// SPDX-License-Identifier: Apache-2.0
/*
 * check_fakecuda.c - the fake driver finds what it is there to find.
 *
 * What a real driver does as well is in check_cuda_conformance*.c; here is what only
 * the fake can: violations, other devices and drivers, and where it is stricter than a
 * driver need be. Errors and accounts: check_fakecuda_faults.c.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/gpu/fake_rig.h"

/* ------------------------------------------------------------ violations */

/* Holds [PART, 2 PART) of what it is sent, for writing if it hears 1. */
static void holder(struct cr_child *me, void *arg)
{
	struct cr r;
	cu_ptr ptr;
	cu_mem mem;
	int fd;

	(void)arg;
	cr_open(&r);
	fd = cr_take(me);
	mem = cr_import(&r, fd);
	close(fd);
	ptr = cr_map(&r, mem, r.gran, CU_PROT_READ);
	CR(!fake_hold(ptr + PART, PART, cr_hear(me)));
	CR(fake_hold(ptr + r.gran - 1, 2, false) == -EFAULT);
	CR(fake_hold(4096, 64, false) == -EFAULT);
	cr_say(me, 0);
	cr_hear(me);
	CR(!fake_unhold(ptr + PART));
	CR(fake_unhold(ptr + PART) == -ENOENT);
	cr_say(me, 0);
	cr_hear(me);
}

static void held_by_another(bool write, bool killed)
{
	struct cr_child c;
	struct cr_mem m;
	struct cr r;
	uint64_t n;

	cr_fork(&c, holder, NULL);
	cr_open(&r);
	cr_new(&r, &m, r.gran);
	cr_fill(&r, m.ptr, 1, 4 * PART);
	cr_send(&c, cr_export(&r, m.mem));
	cr_say(&c, write);
	cr_hear(&c);
	/* Beside it. */
	cr_fill(&r, m.ptr, 2, PART);
	cr_fill(&r, m.ptr + 2 * PART, 2, PART);
	CR(fake_sum().violations == 0);
	CR(cr_is(&r, m.ptr + PART, 1, PART));
	n = write;
	CR(fake_sum().violations == n);
	cr_fill(&r, m.ptr + 2 * PART - 64, 3, 128);
	CR(fake_sum().violations == n + 1);
	CR_OK(r.cu.set8(m.ptr, 3, r.gran, r.s));
	CR_OK(r.cu.stream_sync(r.s));
	CR(fake_sum().violations == n + 2);
	if (killed) {
		cr_kill(&c);
	} else {
		cr_say(&c, 0);
		cr_hear(&c);
	}
	cr_fill(&r, m.ptr + PART, 4, PART);
	CR(fake_sum().violations == n + 2);
	if (!killed) {
		cr_say(&c, 0);
		cr_end(&c);
	}
}

START_TEST(writing_what_another_reads)
{
	held_by_another(false, false);
}
END_TEST

START_TEST(touching_what_another_writes)
{
	held_by_another(true, false);
}
END_TEST

START_TEST(the_dead_hold_nothing)
{
	held_by_another(true, true);
}
END_TEST

START_TEST(ones_own_holds_do_not_hinder)
{
	struct cr_mem m;
	struct cr r;

	cr_open(&r);
	cr_new(&r, &m, r.gran);
	CR(!fake_hold(m.ptr, PART, true));
	cr_fill(&r, m.ptr, 2, PART);
	CR(cr_is(&r, m.ptr, 2, PART));
	CR(!fake_unhold(m.ptr));
	CR(fake_sum().violations == 0);
}
END_TEST

/* All copies wait at a gate, so that they are under way at once, and run in turn. */
START_TEST(copies_that_meet_are_ordered_by_their_stream)
{
	uint64_t *gate[2];
	struct cr_mem m;
	cu_stream s;
	char *host;
	struct cr r;

	cr_open(&r);
	cr_new(&r, &m, r.gran);
	s = fake_stream(&r);
	host = cr_host(&r, 4 * PART);
	gate[0] = cr_gate(&r);
	gate[1] = cr_gate(&r);
	cr_stop(&r, r.s, gate[0]);
	cr_stop(&r, s, gate[1]);
	CR_OK(r.cu.copy(m.ptr, cr_ptr(host), PART, r.s));
	CR_OK(r.cu.copy(cr_ptr(host) + PART, m.ptr, PART, r.s));
	CR(fake_sum().violations == 0);
	CR_OK(r.cu.copy(cr_ptr(host) + 2 * PART, m.ptr, PART, s));	/* reads what is written */
	CR(fake_sum().violations == 1);
	CR_OK(r.cu.copy(m.ptr + PART, cr_ptr(host), PART, s));	/* both read: fine */
	CR(fake_sum().violations == 1);
	CR_OK(r.cu.copy(m.ptr, cr_ptr(host) + 3 * PART, 64, s));	/* writes what is written */
	CR(fake_sum().violations == 3);			/* and what the second one reads */
	CR_OK(r.cu.copy(cr_ptr(host) + PART, m.ptr + 4 * PART, 64, s));	/* host memory too */
	CR(fake_sum().violations == 4);
	cr_go(gate[0]);
	CR_OK(r.cu.stream_sync(r.s));
	CR_OK(r.cu.set8(m.ptr + 8 * PART, 0, PART, r.s));
	cr_go(gate[1]);
	CR_OK(r.cu.stream_sync(s));
	CR_OK(r.cu.stream_sync(r.s));
	cr_fill(&r, m.ptr, 0, PART);
	CR(fake_sum().violations == 4);
}
END_TEST

START_TEST(a_batch_is_not_ordered_in_itself)
{
	struct cu_copy_attr a = { .src_order = CU_COPY_ORDER_ANY };
	cu_ptr dst[2], src[2];
	size_t n[2] = { PART, PART }, first = 0;
	uint64_t *gate;
	struct cr_mem m;
	char *host;
	struct cr r;

	cr_open(&r);
	cr_new(&r, &m, r.gran);
	host = cr_host(&r, 4 * PART);
	gate = cr_gate(&r);
	cr_stop(&r, r.s, gate);
	dst[0] = m.ptr;
	dst[1] = m.ptr + PART / 2;
	src[0] = src[1] = cr_ptr(host);
	CR_OK(r.cu.copy_batch(dst, src, n, 2, &a, &first, 1, r.s));
	CR(fake_sum().violations == 1);
	dst[1] = m.ptr + PART;
	CR_OK(r.cu.copy_batch(dst, src, n, 2, &a, &first, 1, r.s));
	CR(fake_sum().violations == 1);
	cr_go(gate);
	CR_OK(r.cu.stream_sync(r.s));
}
END_TEST

START_TEST(host_memory_in_use_is_not_unregistered)
{
	uint64_t *gate;
	struct cr_mem m;
	char *host;
	struct cr r;

	cr_open(&r);
	cr_new(&r, &m, r.gran);
	host = cr_host(&r, PART);
	gate = cr_gate(&r);
	cr_stop(&r, r.s, gate);
	CR_OK(r.cu.copy(m.ptr, cr_ptr(host), PART, r.s));
	CR_OK(r.cu.host_unregister(host));
	CR(fake_sum().violations == 1);
	cr_go(gate);
	CR_OK(r.cu.stream_sync(r.s));
}
END_TEST

static void touch(struct cr_child *me, void *arg)
{
	struct cr_mem m;
	struct cr r;

	(void)me;
	(void)arg;
	signal(SIGSEGV, SIG_DFL);
	cr_open(&r);
	cr_new(&r, &m, r.gran);
	*(volatile char *)(uintptr_t)m.ptr = 1;
}

START_TEST(the_cpu_does_not_reach_the_device)
{
	struct cr_child c;

	cr_fork(&c, touch, NULL);
	CR(cr_status(&c) == 128 + SIGSEGV);
}
END_TEST

START_TEST(unless_it_is_told_to)
{
	struct cr_child c;
	struct cr_mem m;
	struct cr r;

	fake_told("cpu=1");
	cr_open(&r);
	cr_new(&r, &m, r.gran);
	*(volatile char *)(uintptr_t)m.ptr = 9;
	CR(cr_is(&r, m.ptr, 9, 1));
	CR(*fake_peek(m.ptr) == 9);
	cr_free(&r, &m);
	cr_fork(&c, touch, NULL);
	CR(cr_status(&c) == 99);	/* CUDA is not for children */
}
END_TEST

START_TEST(fresh_memory_is_not_zero)
{
	struct cr_mem m;
	cu_ptr ptr;
	struct cr r;

	cr_open(&r);
	cr_new(&r, &m, r.gran);
	CR(cr_is(&r, m.ptr, 0xa5, m.bytes));
	CR_OK(r.cu.mem_alloc(&ptr, PART));
	CR(cr_is(&r, ptr, 0xa5, PART));
}
END_TEST

/* ------------------------------------------------------------ told to be another */

static void load(const char *conf, struct cu *ret, int want)
{
	char msg[256];

	fake_told(conf);
	CR(cu_load(ret, msg, sizeof(msg)) == want);
}

START_TEST(no_device)
{
	struct cu cu;

	load("gpus=0", &cu, -1);
}
END_TEST

START_TEST(nonsense_is_refused)
{
	struct cu cu;

	load("gpus=1,fial=cuMemCreate:1", &cu, -1);
}
END_TEST

START_TEST(old_drivers)
{
	static const struct {
		const char *conf;
		bool loads, v1, v2;
	} row[] = {
		{ "driver=11080", false, false, false },
		{ "driver=12000", true, false, false },
		{ "driver=12080", true, true, false },
		{ "driver=13000", true, true, true },
	};
	struct cu cu;

	load(row[_i].conf, &cu, row[_i].loads ? 0 : -1);
	if (!row[_i].loads)
		return;
	CR(!!cu.copy_batch_v1 == row[_i].v1);
	CR(!!cu.copy_batch == row[_i].v2);
}
END_TEST

START_TEST(attributes)
{
	struct cu_mem_prop p = {
		.type = CU_MEM_PINNED, .location = { CU_LOC_DEVICE, 0 },
	};
	struct cu cu;
	cu_mem mem;
	int v;

	load("vmm=0,mps=1,rohost=0,gpus=2", &cu, 0);
	CR_OK(cu.device_attr(&v, CU_ATTR_VMM, 1));
	CR(!v);
	CR_OK(cu.device_attr(&v, CU_ATTR_MPS, 0));
	CR(v);
	CR_OK(cu.device_attr(&v, CU_ATTR_READ_ONLY_REGISTER, 0));
	CR(!v);
	CR_OK(cu.device_count(&v));
	CR(v == 2);
	CR_IS(cu.mem_create(&mem, 2 << 20, &p, 0), CU_NOT_SUPPORTED);
}
END_TEST

START_TEST(visible_devices_have_an_order)
{
	struct cu_uuid u;
	char name[64];
	struct cu cu;
	int v;

	setenv("CUDA_VISIBLE_DEVICES", "2,0", 1);
	load("gpus=3", &cu, 0);
	CR_OK(cu.device_count(&v));
	CR(v == 2);
	CR_OK(cu.device_uuid(&u, 0));
	CR(u.bytes[15] == 2);
	CR_OK(cu.device_uuid(&u, 1));
	CR(u.bytes[15] == 0);
	CR_OK(cu.device_name(name, sizeof(name), 0));
	CR(!strcmp(name, "Fake GPU 2"));
	CR_IS(cu.device_get(&v, 2), CU_INVALID_DEVICE);
}
END_TEST

START_TEST(devices_have_access_each)
{
	struct cu_mem_access both[2] = {
		{ { CU_LOC_DEVICE, 0 }, CU_PROT_READWRITE },
		{ { CU_LOC_DEVICE, 1 }, CU_PROT_READWRITE },
	};
	struct cr_mem m;
	cu_ctx other;
	cu_stream s;
	struct cr r;

	fake_told("gpus=2");
	cr_open(&r);
	cr_new(&r, &m, r.gran);
	cr_fill(&r, m.ptr, 1, PART);
	CR_OK(r.cu.ctx_retain(&other, 1));
	CR_OK(r.cu.ctx_set(other));
	s = fake_stream(&r);
	CR_OK(r.cu.mem_set_access(m.ptr, m.bytes, both, 2));
	CR_OK(r.cu.copy(m.ptr + PART, m.ptr, PART, s));
	CR_OK(r.cu.stream_sync(s));
	cr_access(&r, m.ptr, m.bytes, CU_PROT_READ);		/* that of device 0 */
	both[1].flags = CU_PROT_NONE;
	CR_OK(r.cu.mem_set_access(m.ptr, m.bytes, &both[1], 1));
	CR_OK(r.cu.copy(m.ptr + PART, m.ptr, PART, s));
	CR_IS(r.cu.stream_sync(s), CU_ILLEGAL_ADDRESS);
	/* The other device's context is well. */
	CR_OK(r.cu.ctx_set(r.ctx));
	CR(cr_is(&r, m.ptr + PART, 1, PART));
}
END_TEST

/* ------------------------------------------------------------ stricter than it need be */

START_TEST(it_is_strict)
{
	struct cu_copy_attr a = { .src_order = CU_COPY_ORDER_ANY };
	size_t n = PART, none = 0, first = 0;
	struct cr_mem m;
	cu_ptr host;
	struct cr r;
	cu_mem mem;

	cr_open(&r);
	cr_new(&r, &m, 2 * r.gran);
	host = cr_ptr(cr_host(&r, PART));
	/* Not less than all of it, not a range with a mapping in it, not a piece of a page. */
	CR_NOT(r.cu.mem_map(m.ptr, r.gran, 0, m.mem, 0));
	CR_NOT(r.cu.mem_unreserve(m.ptr, m.bytes));
	CR_NOT(r.cu.mem_reserve(&(cu_ptr){ 0 }, 4096, 0, 0, 0));
	CR_NOT(r.cu.mem_set_access(m.ptr, r.gran, &(struct cu_mem_access){
		.location = { CU_LOC_DEVICE, 0 }, .flags = CU_PROT_READ }, 1));
	CR_NOT(r.cu.mem_release(4711));
	/* Batches: something, each with attributes. */
	CR_NOT(r.cu.copy_batch(&m.ptr, &host, &n, 0, &a, &first, 1, r.s));
	CR_NOT(r.cu.copy_batch(&m.ptr, &host, &none, 1, &a, &first, 1, r.s));
	CR_NOT(r.cu.copy_batch(&m.ptr, &host, &n, 1, NULL, NULL, 0, r.s));
	CR_NOT(r.cu.copy_batch(&m.ptr, &host, &n, 1, &a, &n, 1, r.s));
	CR_OK(r.cu.copy_batch(&m.ptr, &host, &n, 1, &a, &first, 1, r.s));
	/* What was imported is not exported again. */
	mem = cr_import(&r, cr_export(&r, m.mem));
	CR_NOT(r.cu.mem_export(&(int){ 0 }, mem, CU_MEM_POSIX_FD, 0));
	CR_NOT(r.cu.stream_write64(r.s, m.ptr + 4, 1, 0));
	CR_NOT(r.cu.stream_write64(r.s, cr_ptr(&r) & ~7ull, 1, 0));
	CR_NOT(r.cu.launch(NULL, 1, 1, 1, 1, 1, 1, 0, r.s, NULL, NULL));
	CR_OK(r.cu.stream_sync(r.s));
	CR_OK(r.cu.stream_destroy(r.s));
	CR_IS(r.cu.stream_query(r.s), CU_INVALID_HANDLE);
	CR_OK(r.cu.event_destroy(r.e));
	CR_IS(r.cu.event_query(r.e), CU_INVALID_HANDLE);
}
END_TEST

static void reads_after_free(struct cr_child *me, void *arg)
{
	struct cu_ipc_handle h;
	struct cr r;
	cu_ptr ptr;
	char b[64];

	(void)arg;
	cr_open(&r);
	cr_hear_bytes(me, &h, sizeof(h));
	CR_OK(r.cu.ipc_open(&ptr, h, CU_IPC_LAZY_PEER));
	CR_OK(cr_get(&r, b, ptr, sizeof(b)));
	cr_say(me, 0);
	cr_hear(me);
	CR_IS(cr_get(&r, b, ptr, sizeof(b)), CU_ILLEGAL_ADDRESS);
}

START_TEST(what_the_exporter_freed_is_gone)
{
	struct cu_ipc_handle h;
	struct cr_child c;
	struct cr r;
	cu_ptr ptr;

	cr_fork(&c, reads_after_free, NULL);
	cr_open(&r);
	CR_OK(r.cu.mem_alloc(&ptr, PART));
	CR_NOT(r.cu.ipc_get(&h, ptr + 512));
	CR_OK(r.cu.ipc_get(&h, ptr));
	cr_say_bytes(&c, &h, sizeof(h));
	cr_hear(&c);
	CR_OK(r.cu.mem_free(ptr));
	cr_say(&c, 0);
	cr_end(&c);
}
END_TEST

/* ------------------------------------------------------------ kernels */

START_TEST(kernels_run_on_the_cpu)
{
	const char *dir = getenv("KVMD_BUILD_DIR");
	char image[512];
	cu_function add, count;
	uint32_t n = 100, more = 5;
	uint64_t *gate, *host;
	struct cr_mem m;
	cu_module mod;
	struct cr r;
	void *args[] = { &m.ptr, &n, &more };

	fake_told("cpu=1");
	cr_open(&r);
	cr_new(&r, &m, r.gran);
	cr_fill(&r, m.ptr, 0, PART);
	snprintf(image, sizeof(image), "fakecuda:%s/fakecuda/kernels.so", dir ? dir : "build");
	CR_OK(r.cu.module_load(&mod, image));
	CR_IS(r.cu.module_function(&add, mod, "sample_none"), CU_NOT_FOUND);
	CR_OK(r.cu.module_function(&add, mod, "sample_add"));
	CR_OK(r.cu.module_function(&count, mod, "sample_count"));
	/* Arguments are taken at the launch, the work is done in the stream. */
	gate = cr_gate(&r);
	cr_stop(&r, r.s, gate);
	CR_OK(r.cu.launch(add, 2, 1, 1, 64, 1, 1, 0, r.s, args, NULL));
	more = 1000;
	CR(*(uint32_t *)fake_peek(m.ptr) == 0);
	cr_go(gate);
	CR_OK(r.cu.stream_sync(r.s));
	CR(((uint32_t *)fake_peek(m.ptr))[99] == 5 && ((uint32_t *)fake_peek(m.ptr))[100] == 0);
	host = cr_gate(&r);
	CR_OK(r.cu.launch(count, 2, 3, 1, 32, 2, 1, 0, r.s, (void *[]){ &host }, NULL));
	CR(*host == 384);
	CR_OK(r.cu.module_unload(mod));
	CR_NOT(r.cu.launch(add, 1, 1, 1, 1, 1, 1, 0, r.s, args, NULL));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("fakecuda");
	TCase *t;

	if (!fake_is_loaded())
		return 77;
	t = fake_case(s, "violations");
	tcase_add_test(t, writing_what_another_reads);
	tcase_add_test(t, touching_what_another_writes);
	tcase_add_test(t, the_dead_hold_nothing);
	tcase_add_test(t, ones_own_holds_do_not_hinder);
	tcase_add_test(t, copies_that_meet_are_ordered_by_their_stream);
	tcase_add_test(t, a_batch_is_not_ordered_in_itself);
	tcase_add_test(t, host_memory_in_use_is_not_unregistered);
	tcase_add_test(t, the_cpu_does_not_reach_the_device);
	tcase_add_test(t, unless_it_is_told_to);
	tcase_add_test(t, fresh_memory_is_not_zero);
	t = fake_case(s, "told to be another");
	tcase_add_test(t, no_device);
	tcase_add_test(t, nonsense_is_refused);
	tcase_add_loop_test(t, old_drivers, 0, 4);
	tcase_add_test(t, attributes);
	tcase_add_test(t, visible_devices_have_an_order);
	tcase_add_test(t, devices_have_access_each);
	t = fake_case(s, "strict");
	tcase_add_test(t, it_is_strict);
	tcase_add_test(t, what_the_exporter_freed_is_gone);
	tcase_add_test(t, kernels_run_on_the_cpu);
	return cr_main(s);
}
