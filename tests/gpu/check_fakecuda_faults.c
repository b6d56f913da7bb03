// SPDX-License-Identifier: Apache-2.0
/*
 * check_fakecuda_faults.c - the fake driver fails when told to, and keeps its accounts.
 */
#include <stdlib.h>
#include <unistd.h>

#include "tests/gpu/fake_rig.h"

/* ------------------------------------------------------------ told to fail */

START_TEST(the_nth_call_fails)
{
	struct cu_mem_prop p = {
		.type = CU_MEM_PINNED, .location = { CU_LOC_DEVICE, 0 },
	};
	struct cr r;
	cu_mem mem;

	fake_told("fail=cuMemCreate:2:2:2,fail=cuStreamCreateWithPriority:3");
	cr_open(&r);
	CR_OK(r.cu.mem_create(&mem, r.gran, &p, 0));
	CR_IS(r.cu.mem_create(&mem, r.gran, &p, 0), CU_OUT_OF_MEMORY);
	CR_IS(r.cu.mem_create(&mem, r.gran, &p, 0), CU_OUT_OF_MEMORY);
	CR_OK(r.cu.mem_create(&mem, r.gran, &p, 0));
	fake_stream(&r);
	CR_IS(r.cu.stream_create(&(cu_stream){ 0 }, 0, 0), CU_UNKNOWN);
	fake_stream(&r);
}
END_TEST

START_TEST(a_fatal_error_of_a_copy_is_final)
{
	struct cr_mem m;
	struct cr r;

	fake_told("fail=cuMemcpyAsync:2:719");
	cr_open(&r);
	cr_new(&r, &m, r.gran);
	cr_fill(&r, m.ptr, 1, PART);
	CR_IS(r.cu.copy(m.ptr + PART, m.ptr, PART, r.s), CU_LAUNCH_FAILED);
	CR_IS(r.cu.copy(m.ptr + PART, m.ptr, PART, r.s), CU_LAUNCH_FAILED);
	CR_IS(r.cu.event_query(r.e), CU_LAUNCH_FAILED);
	CR_OK(r.cu.ctx_reset(0));
	CR_IS(r.cu.event_query(r.e), CU_CONTEXT_IS_DESTROYED);
	CR_IS(r.cu.ctx_set(r.ctx), CU_CONTEXT_IS_DESTROYED);
	cr_context(&r);
	/* The mapping is there, the access has to be given again. */
	cr_access(&r, m.ptr, m.bytes, CU_PROT_READWRITE);
	CR(cr_is(&r, m.ptr, 1, PART));
}
END_TEST

START_TEST(broken_memory_stays_broken)
{
	struct cr_mem m;
	struct cr r;
	char b[64];
	int fd;

	fake_told("ecc=2");
	cr_open(&r);
	cr_new(&r, &m, 2 * r.gran);
	fd = cr_export(&r, m.mem);
	cr_fill(&r, m.ptr, 1, PART);
	CR_IS(cr_get(&r, b, m.ptr + 4096, sizeof(b)), CU_ECC_UNCORRECTABLE);
	CR_IS(r.cu.stream_query(r.s), CU_ECC_UNCORRECTABLE);
	for (int i = 0; i < 2; i++) {
		CR_OK(r.cu.ctx_reset(0));
		cr_context(&r);
		m.mem = cr_import(&r, fd);
		m.ptr = cr_map(&r, m.mem, m.bytes, CU_PROT_READWRITE);
		cr_fill(&r, m.ptr + r.gran, 1, PART);
		CR_IS(cr_get(&r, b, m.ptr, sizeof(b)), CU_ECC_UNCORRECTABLE);
	}
	close(fd);
}
END_TEST

START_TEST(a_copy_hangs_until_it_is_let_go)
{
	struct cr_mem m;
	cu_stream s;
	struct cr r;

	fake_told("hang=2");
	cr_open(&r);
	cr_new(&r, &m, r.gran);
	s = fake_stream(&r);
	cr_fill(&r, m.ptr, 1, PART);
	CR_OK(r.cu.copy(m.ptr + PART, m.ptr, PART, s));
	CR_OK(r.cu.event_record(r.e, s));
	/* Other streams go on. */
	cr_fill(&r, m.ptr + 2 * PART, 1, PART);
	CR_IS(r.cu.event_query(r.e), CU_NOT_READY);
	fake_unhang();
	CR_OK(r.cu.event_sync(r.e));
	CR(cr_is(&r, m.ptr + PART, 1, PART));
}
END_TEST

START_TEST(a_reset_ends_what_hangs)
{
	struct cr_mem m;
	struct cr r;

	fake_told("hang=1");
	cr_open(&r);
	cr_new(&r, &m, r.gran);
	CR_OK(r.cu.copy(m.ptr + PART, m.ptr, PART, r.s));
	CR_OK(r.cu.ctx_reset(0));
	cr_context(&r);
	cr_access(&r, m.ptr, m.bytes, CU_PROT_READWRITE);
	CR(cr_is(&r, m.ptr + PART, 0xa5, PART));
	cr_fill(&r, m.ptr, 1, 2 * PART);
	CR(fake_sum().violations == 0);
}
END_TEST

/* ------------------------------------------------------------ accounts */

static void spender(struct cr_child *me, void *arg)
{
	struct cr_mem m;
	struct cr r;

	(void)arg;
	cr_open(&r);
	cr_new(&r, &m, 4 * r.gran);
	cr_send(me, cr_export(&r, m.mem));
	cr_hear(me);
}

/* Has an fd and nothing else, as a process that keeps them for a daemon. */
static void keeper(struct cr_child *me, void *arg)
{
	int fd = cr_take(me);

	(void)arg;
	cr_say(me, 0);
	cr_hear(me);
	close(fd);
	cr_say(me, 0);
	cr_hear(me);
}

START_TEST(memory_is_in_use_while_somebody_has_its_fd)
{
	struct cr_child c, k;
	size_t n = 8u << 20;
	int fd;

	cr_fork(&c, spender, NULL);
	cr_fork(&k, keeper, NULL);
	fd = cr_take(&c);
	CR(fake_sum().mem_bytes == n && fake_sum().nr_mem == 1);
	cr_kill(&c);
	CR(fake_sum().mem_bytes == n);
	cr_send(&k, fd);
	cr_hear(&k);
	CR(fake_sum().mem_bytes == n);
	cr_say(&k, 0);
	cr_hear(&k);
	CR(fake_sum().mem_bytes == 0 && fake_sum().nr_mem == 0);
	cr_say(&k, 0);
	cr_end(&k);
}
END_TEST

START_TEST(the_budget_is_that_of_all_processes)
{
	struct cu_mem_prop p = {
		.type = CU_MEM_PINNED, .location = { CU_LOC_DEVICE, 0 },
	};
	size_t free_now, total;
	struct cr_child c;
	struct cr r;
	cu_mem mem;

	fake_told("mem=16M");
	cr_fork(&c, spender, NULL);
	close(cr_take(&c));
	cr_open(&r);
	CR_OK(r.cu.mem_info(&free_now, &total));
	CR(total == 16 << 20 && free_now == 8 << 20);
	CR_IS(r.cu.mem_create(&mem, 5 * r.gran, &p, 0), CU_OUT_OF_MEMORY);
	cr_kill(&c);
	CR_OK(r.cu.mem_create(&mem, 5 * r.gran, &p, 0));
}
END_TEST

static void count_calls(struct cr_child *me, void *arg)
{
	uint64_t n;
	struct cr r;

	(void)arg;
	cr_open(&r);
	n = fake_calls(NULL);
	CR(fake_calls("cuMemCreate") == 0);
	cr_create(&r, r.gran);
	CR(fake_calls("cuMemCreate") == 1 && fake_calls(NULL) == n + 1);
	cr_say(me, n + 1);
	cr_hear(me);
	CR_OK(r.cu.ctx_sync());
	cr_say(me, 0);
	cr_hear(me);
}

START_TEST(calls_are_counted)
{
	struct cr_child c;
	uint64_t n;

	cr_fork(&c, count_calls, NULL);
	n = cr_hear(&c);
	CR(n && fakecuda_state_calls(fake_state(), c.pid) == n);
	cr_say(&c, 0);
	cr_hear(&c);
	CR(fakecuda_state_calls(fake_state(), c.pid) == n + 1);
	CR(fakecuda_state_calls(fake_state(), 1) == 0);
	CR(fakecuda_state_calls("/nonexistent/state", c.pid) == 0);
	cr_say(&c, 0);
	cr_end(&c);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("fakecuda_faults");
	TCase *t;

	if (!fake_is_loaded())
		return 77;
	t = fake_case(s, "told to fail");
	tcase_add_test(t, the_nth_call_fails);
	tcase_add_test(t, a_fatal_error_of_a_copy_is_final);
	tcase_add_test(t, broken_memory_stays_broken);
	tcase_add_test(t, a_copy_hangs_until_it_is_let_go);
	tcase_add_test(t, a_reset_ends_what_hangs);
	t = fake_case(s, "accounts");
	tcase_add_test(t, memory_is_in_use_while_somebody_has_its_fd);
	tcase_add_test(t, the_budget_is_that_of_all_processes);
	tcase_add_test(t, calls_are_counted);
	return cr_main(s);
}
