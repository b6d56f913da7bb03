// SPDX-License-Identifier: Apache-2.0
/*
 * check_cuda_conformance_work.c - what kvmd takes for granted of the driver: work.
 *
 * Copies, registered host memory, streams, events, memory operations, contexts that
 * are poisoned and reset. The same assertions on the fake driver and on a real one.
 */
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/gpu/driver_rig.h"

#define PART	65536u
#define HOST	(1u << 20)

/* ------------------------------------------------------------ registered memory */

START_TEST(memory_is_registered_once)
{
	char *p, *both;
	struct cr r;
	cu_ptr dev;

	cr_open(&r);
	both = mmap(NULL, 2 * HOST, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CR(both != MAP_FAILED);
	CR_OK(r.cu.host_register(both, HOST, CU_HOST_PORTABLE | CU_HOST_DEVICEMAP));
	CR_IS(r.cu.host_register(both, HOST, CU_HOST_PORTABLE), CU_ALREADY_REGISTERED);
	CR_NOT(r.cu.host_register(both + HOST / 2, HOST, CU_HOST_PORTABLE));
	/* Its neighbour is another. */
	CR_OK(r.cu.host_register(both + HOST, HOST, CU_HOST_PORTABLE));
	/* The device uses the same addresses. */
	CR_OK(r.cu.host_ptr(&dev, both + 4096, 0));
	CR(dev == cr_ptr(both + 4096));
	CR_OK(r.cu.host_unregister(both));
	CR_NOT(r.cu.host_unregister(both));
	CR_OK(r.cu.host_register(both, HOST, CU_HOST_PORTABLE));
	CR_OK(r.cu.host_unregister(both));
	CR_OK(r.cu.host_unregister(both + HOST));
	p = malloc(64);
	CR_NOT(r.cu.host_unregister(p));
	free(p);
}
END_TEST

START_TEST(shared_files_are_registered)
{
	int fd = memfd_create("chunk", MFD_CLOEXEC);
	struct cr_mem m;
	char *p, *other;
	struct cr r;

	cr_open(&r);
	cr_new(&r, &m, r.gran);
	CR(fd >= 0 && !ftruncate(fd, HOST));
	p = mmap(NULL, HOST, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	other = mmap(NULL, HOST, PROT_READ, MAP_SHARED, fd, 0);
	CR(p != MAP_FAILED && other != MAP_FAILED);
	CR_OK(r.cu.host_register(p, HOST, CU_HOST_PORTABLE | CU_HOST_DEVICEMAP));
	cr_fill(&r, m.ptr, 3, PART);
	CR_OK(cr_get(&r, p + PART, m.ptr, PART));
	CR(other[PART] == 3 && other[2 * PART - 1] == 3 && other[2 * PART] == 0);
	CR_OK(r.cu.host_unregister(p));
	cr_free(&r, &m);
	close(fd);
}
END_TEST

START_TEST(read_only_memory_is_registered_as_such)
{
	int fd = memfd_create("table", MFD_CLOEXEC), can;
	struct cr_mem m;
	char *p;
	struct cr r;

	cr_open(&r);
	CR(fd >= 0 && !ftruncate(fd, HOST) && pwrite(fd, "table", 6, 0) == 6);
	p = mmap(NULL, HOST, PROT_READ, MAP_SHARED, fd, 0);
	CR(p != MAP_FAILED);
	CR_NOT(r.cu.host_register(p, HOST, CU_HOST_PORTABLE));
	CR_OK(r.cu.device_attr(&can, CU_ATTR_READ_ONLY_REGISTER, 0));
	if (can) {
		char b[6];

		cr_new(&r, &m, r.gran);
		CR_OK(r.cu.host_register(p, HOST, CU_HOST_PORTABLE | CU_HOST_READ_ONLY));
		CR_OK(cr_put(&r, m.ptr, p, 6));
		CR_OK(cr_get(&r, b, m.ptr, 6));
		CR(!strcmp(b, "table"));
		CR_OK(r.cu.host_unregister(p));
		cr_free(&r, &m);
	} else {
		CR_NOT(r.cu.host_register(p, HOST, CU_HOST_PORTABLE | CU_HOST_READ_ONLY));
	}
	close(fd);
}
END_TEST

/* ------------------------------------------------------------ copies */

START_TEST(a_copy_does_not_straddle_registrations)
{
	struct cr_mem m;
	char *p;
	struct cr r;

	cr_open(&r);
	cr_new(&r, &m, r.gran);
	p = mmap(NULL, 2 * HOST, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CR(p != MAP_FAILED);
	CR_OK(r.cu.host_register(p, HOST, CU_HOST_PORTABLE));
	CR_OK(r.cu.host_register(p + HOST, HOST, CU_HOST_PORTABLE));
	CR_NOT(r.cu.copy(m.ptr, cr_ptr(p + HOST - 4096), 8192, r.s));
	/* Up to its end, and from there on. */
	CR_OK(cr_put(&r, m.ptr, p + HOST - 4096, 4096));
	CR_OK(cr_put(&r, m.ptr, p + HOST, 4096));
	CR_OK(r.cu.host_unregister(p));
	CR_OK(r.cu.host_unregister(p + HOST));
	cr_free(&r, &m);
}
END_TEST

static int batch(struct cr *r, cu_ptr *dst, cu_ptr *src, size_t *n, size_t nr, cu_stream s)
{
	struct cu_copy_attr a = { .src_order = CU_COPY_ORDER_STREAM };
	size_t first = 0, bad;

	return r->cu.copy_batch ? r->cu.copy_batch(dst, src, n, nr, &a, &first, 1, s) :
		r->cu.copy_batch_v1(dst, src, n, nr, &a, &first, 1, &bad, s);
}

static bool has_batch(const struct cr *r)
{
	if (r->cu.copy_batch || r->cu.copy_batch_v1)
		return true;
	printf("SKIP: driver %d has no cuMemcpyBatchAsync\n", r->cu.version);
	fflush(stdout);
	return false;
}

/* 32 scattered pieces to the device and back, of the host memory given. */
static void round_trip(struct cr *r, char *host, const struct cr_mem *m)
{
	enum { NR = 32 };
	cu_ptr dst[NR], src[NR];
	size_t n[NR];
	int bad = 0;

	for (int i = 0; i < NR; i++) {
		memset(host + i * 4096, i + 1, 4096);
		src[i] = cr_ptr(host + i * 4096);
		dst[i] = m->ptr + (size_t)(NR - 1 - i) * 8192;
		n[i] = 4096;
	}
	CR_OK(batch(r, dst, src, n, NR, r->s));
	CR_OK(r->cu.stream_sync(r->s));
	memset(host, 0, NR * 4096);
	CR_OK(batch(r, src, dst, n, NR, r->s));
	CR_OK(r->cu.stream_sync(r->s));
	for (int i = 0; i < NR; i++)
		for (int k = 0; k < 4096; k++)
			bad += host[i * 4096 + k] != i + 1;
	CR(!bad);
}

START_TEST(batches_move_scattered_pieces)
{
	struct cr_mem m;
	char *plain;
	struct cr r;

	cr_open(&r);
	if (!has_batch(&r))
		return;
	cr_new(&r, &m, r.gran);
	round_trip(&r, cr_host(&r, HOST), &m);
	plain = malloc(HOST);
	CR(plain);
	round_trip(&r, plain, &m);
	free(plain);
	cr_free(&r, &m);
}
END_TEST

START_TEST(batches_are_refused_on_the_default_stream)
{
	struct cr_mem m;
	cu_ptr dst, src;
	size_t n = 4096;
	struct cr r;

	cr_open(&r);
	if (!has_batch(&r))
		return;
	cr_new(&r, &m, r.gran);
	dst = m.ptr;
	src = cr_ptr(cr_host(&r, HOST));
	CR_IS(batch(&r, &dst, &src, &n, 1, NULL), CU_INVALID_VALUE);
	CR_OK(batch(&r, &dst, &src, &n, 1, r.s));
	CR_OK(r.cu.stream_sync(r.s));
	cr_free(&r, &m);
}
END_TEST

START_TEST(the_device_copies_within_itself)
{
	struct cr_mem m;
	struct cr r;

	cr_open(&r);
	cr_new(&r, &m, 2 * r.gran);
	cr_fill(&r, m.ptr, 5, PART);
	CR_OK(r.cu.copy(m.ptr + r.gran, m.ptr, PART, r.s));
	CR_OK(r.cu.stream_sync(r.s));
	CR(cr_is(&r, m.ptr + r.gran, 5, PART));
	CR_OK(r.cu.set8(m.ptr, 0, PART, r.s));
	CR_OK(r.cu.stream_sync(r.s));
	CR(cr_is(&r, m.ptr, 0, PART));
	cr_free(&r, &m);
}
END_TEST

START_TEST(what_is_not_mapped_is_not_copied)
{
	char b[64];
	struct cr r;
	cu_ptr ptr;

	cr_open(&r);
	CR_OK(r.cu.mem_reserve(&ptr, r.gran, 0, 0, 0));
	CR_NOT(cr_get(&r, b, ptr, sizeof(b)));
}
END_TEST

/* The source is read when the copy runs: until then it must stay as it is. */
START_TEST(sources_are_read_late)
{
	uint64_t *gate;
	struct cr_mem m;
	char *host;
	struct cr r;

	cr_open(&r);
	cr_new(&r, &m, r.gran);
	host = cr_host(&r, HOST);
	gate = cr_gate(&r);
	memset(host, 1, PART);
	cr_stop(&r, r.s, gate);
	CR_OK(r.cu.copy(m.ptr, cr_ptr(host), PART, r.s));
	memset(host, 2, PART);
	cr_go(gate);
	CR_OK(r.cu.stream_sync(r.s));
	CR(cr_is(&r, m.ptr, 2, PART));
	cr_free(&r, &m);
}
END_TEST

/* ------------------------------------------------------------ streams and events */

START_TEST(an_event_is_done_when_the_stream_has_come_to_it)
{
	uint64_t *gate;
	struct cr r;

	cr_open(&r);
	gate = cr_gate(&r);
	CR_OK(r.cu.event_query(r.e));		/* never recorded */
	cr_stop(&r, r.s, gate);
	CR_OK(r.cu.event_record(r.e, r.s));
	CR_IS(r.cu.event_query(r.e), CU_NOT_READY);
	CR_IS(r.cu.stream_query(r.s), CU_NOT_READY);
	cr_go(gate);
	CR_OK(r.cu.event_sync(r.e));
	CR_OK(r.cu.event_query(r.e));
	CR_OK(r.cu.stream_sync(r.s));
	CR_OK(r.cu.stream_query(r.s));
	/* Recorded again it is not done again, until it is. */
	__atomic_store_n(gate, 0, __ATOMIC_RELEASE);
	cr_stop(&r, r.s, gate);
	CR_OK(r.cu.event_record(r.e, r.s));
	CR_IS(r.cu.event_query(r.e), CU_NOT_READY);
	cr_go(gate);
	CR_OK(r.cu.event_sync(r.e));
	CR_OK(r.cu.event_destroy(r.e));
}
END_TEST

START_TEST(streams_do_not_wait_for_each_other)
{
	uint64_t *gate;
	struct cr_mem m;
	cu_stream other;
	char *host;
	struct cr r;

	cr_open(&r);
	cr_new(&r, &m, r.gran);
	host = cr_host(&r, HOST);
	gate = cr_gate(&r);
	CR_OK(r.cu.stream_create(&other, CU_STREAM_OWN_ORDER, 0));
	cr_stop(&r, other, gate);
	memset(host, 6, PART);
	CR_OK(r.cu.copy(m.ptr, cr_ptr(host), PART, r.s));
	CR_OK(r.cu.event_record(r.e, r.s));
	CR_OK(r.cu.event_sync(r.e));
	CR_IS(r.cu.stream_query(other), CU_NOT_READY);
	cr_go(gate);
	CR_OK(r.cu.stream_sync(other));
	CR_OK(r.cu.stream_destroy(other));
	cr_free(&r, &m);
}
END_TEST

START_TEST(events_tell_the_time_between_them)
{
	cu_event from, to;
	struct cr_mem m;
	float ms = -1;
	struct cr r;

	cr_open(&r);
	cr_new(&r, &m, r.gran);
	CR_OK(r.cu.event_create(&from, 0));
	CR_OK(r.cu.event_create(&to, 0));
	CR_OK(r.cu.event_record(from, r.s));
	CR_OK(r.cu.set8(m.ptr, 1, r.gran, r.s));
	CR_OK(r.cu.event_record(to, r.s));
	CR_OK(r.cu.event_sync(to));
	CR_OK(r.cu.event_ms(&ms, from, to));
	CR(ms >= 0 && ms < 60000);
	cr_free(&r, &m);
}
END_TEST

/* The last operation of a step: when the value is there, so are the bytes before it. */
START_TEST(a_written_value_comes_after_what_is_before_it)
{
	uint64_t *gate, *word;
	struct cr_mem m;
	char *host;
	struct cr r;

	cr_open(&r);
	cr_new(&r, &m, r.gran);
	host = cr_host(&r, HOST);
	gate = cr_gate(&r);
	word = cr_gate(&r);
	cr_fill(&r, m.ptr, 7, HOST);
	cr_stop(&r, r.s, gate);
	CR_OK(r.cu.copy(cr_ptr(host), m.ptr, HOST, r.s));
	CR_OK(r.cu.stream_write64(r.s, cr_ptr(word), 0x1234567890abcdefull, 0));
	CR(__atomic_load_n(word, __ATOMIC_ACQUIRE) == 0);
	cr_go(gate);
	while (!__atomic_load_n(word, __ATOMIC_ACQUIRE))
		usleep(100);
	CR(*word == 0x1234567890abcdefull);
	CR(host[0] == 7 && !memcmp(host, host + 1, HOST - 1));
	cr_free(&r, &m);
}
END_TEST

static void write_word(struct cr_child *me, void *arg)
{
	int fd = *(int *)arg;
	uint64_t *p;
	struct cr r;

	cr_open(&r);
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CR(p != MAP_FAILED);
	CR_OK(r.cu.host_register(p, 4096, CU_HOST_PORTABLE | CU_HOST_DEVICEMAP));
	cr_hear(me);
	CR_OK(r.cu.stream_write64(r.s, cr_ptr(p), 77, 0));
	cr_hear(me);
}

START_TEST(another_process_sees_a_written_value)
{
	int fd = memfd_create("fence", MFD_CLOEXEC);
	struct cr_child c;
	uint64_t *p;

	CR(fd >= 0 && !ftruncate(fd, 4096));
	p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	CR(p != MAP_FAILED);
	cr_fork(&c, write_word, &fd);
	cr_say(&c, 0);
	while (!__atomic_load_n(p, __ATOMIC_ACQUIRE))
		usleep(100);
	CR(*p == 77);
	cr_say(&c, 0);
	cr_end(&c);
	close(fd);
}
END_TEST

/* ------------------------------------------------------------ contexts */

static void *without_context(void *arg)
{
	struct cr *r = arg;
	static int result[4];
	static char page[8192];
	cu_stream s;
	cu_ctx ctx = r;
	cu_ptr ptr;

	if (r->cu.ctx_get(&ctx) || ctx)
		result[3] = -1;
	result[0] = r->cu.mem_alloc(&ptr, 4096);
	result[1] = r->cu.stream_create(&s, CU_STREAM_OWN_ORDER, 0);
	result[2] = r->cu.host_register(page, sizeof(page), CU_HOST_PORTABLE);
	return result;
}

START_TEST(a_thread_has_no_context_until_it_takes_one)
{
	pthread_t t;
	void *ret;
	struct cr r;

	cr_open(&r);
	CR(!pthread_create(&t, NULL, without_context, &r));
	CR(!pthread_join(t, &ret));
	CR_IS(((int *)ret)[0], CU_INVALID_CONTEXT);
	CR_IS(((int *)ret)[1], CU_INVALID_CONTEXT);
	CR_IS(((int *)ret)[2], CU_INVALID_CONTEXT);
	CR(!((int *)ret)[3]);
}
END_TEST

START_TEST(what_is_no_module_is_not_loaded)
{
	cu_module mod;
	struct cr r;

	cr_open(&r);
	CR_NOT(r.cu.module_load(&mod, "this is no module at all"));
	CR_OK(r.cu.ctx_sync());
}
END_TEST

/* What a daemon does after a fatal error, @fd being memory full of 1. */
static void come_back(struct cr *r, int fd, void *host)
{
	cu_mem mem;
	cu_ptr ptr;

	CR_OK(r->cu.ctx_reset(0));
	CR_OK(r->cu.ctx_release(0));
	cr_context(r);
	mem = cr_import(r, fd);
	ptr = cr_map(r, mem, r->gran, CU_PROT_READWRITE);
	CR(cr_is(r, ptr, 1, PART));
	/* It is registered no more, and can be again. */
	CR_OK(r->cu.host_register(host, HOST, CU_HOST_PORTABLE));
	CR_OK(cr_put(r, ptr, host, PART));
	CR(cr_is(r, ptr, 0, PART));
	cr_unmap(r, ptr, r->gran);
	CR_OK(r->cu.mem_release(mem));
}

START_TEST(memory_survives_a_reset_by_its_fd)
{
	struct cr_mem m;
	cu_ptr alloc;
	void *host;
	struct cr r;
	int fd;

	cr_open(&r);
	cr_new(&r, &m, r.gran);
	host = cr_host(&r, HOST);
	CR_OK(r.cu.mem_alloc(&alloc, 4096));
	cr_fill(&r, m.ptr, 1, PART);
	fd = cr_export(&r, m.mem);
	come_back(&r, fd, host);
	close(fd);
}
END_TEST

START_TEST(a_poisoned_context_is_reset)
{
	struct cr_mem m;
	cu_ptr ro;
	void *host;
	struct cr r;
	int fd, err;

	cr_open(&r);
	cr_new(&r, &m, r.gran);
	host = cr_host(&r, HOST);
	cr_fill(&r, m.ptr, 1, PART);
	fd = cr_export(&r, m.mem);
	ro = cr_map(&r, m.mem, r.gran, CU_PROT_READ);
	err = cr_put(&r, ro, host, 64);
	CR(cu_is_sticky(err));
	CR_NOT(r.cu.stream_query(r.s));
	come_back(&r, fd, host);
	close(fd);
}
END_TEST

START_TEST(refusals_do_not_poison)
{
	struct cr_mem m;
	cu_stream s;
	struct cr r;

	cr_open(&r);
	cr_new(&r, &m, r.gran);
	CR_NOT(r.cu.mem_map(m.ptr, r.gran, 0, m.mem, 0));
	CR_NOT(r.cu.copy(m.ptr, 0, 64, r.s));
	CR_NOT(r.cu.mem_unmap(m.ptr, r.gran * 2));
	CR_OK(r.cu.stream_create(&s, CU_STREAM_OWN_ORDER, 0));
	CR_OK(r.cu.stream_destroy(s));
	cr_fill(&r, m.ptr, 1, PART);
	CR_OK(r.cu.ctx_sync());
	cr_free(&r, &m);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cuda_conformance_work");
	TCase *t;

	t = tcase_create("registered memory");
	tcase_add_test(t, memory_is_registered_once);
	tcase_add_test(t, shared_files_are_registered);
	tcase_add_test(t, read_only_memory_is_registered_as_such);
	suite_add_tcase(s, t);
	t = tcase_create("copies");
	tcase_add_test(t, a_copy_does_not_straddle_registrations);
	tcase_add_test(t, batches_move_scattered_pieces);
	tcase_add_test(t, batches_are_refused_on_the_default_stream);
	tcase_add_test(t, the_device_copies_within_itself);
	tcase_add_test(t, what_is_not_mapped_is_not_copied);
	tcase_add_test(t, sources_are_read_late);
	suite_add_tcase(s, t);
	t = tcase_create("streams and events");
	tcase_add_test(t, an_event_is_done_when_the_stream_has_come_to_it);
	tcase_add_test(t, streams_do_not_wait_for_each_other);
	tcase_add_test(t, events_tell_the_time_between_them);
	tcase_add_test(t, a_written_value_comes_after_what_is_before_it);
	tcase_add_test(t, another_process_sees_a_written_value);
	suite_add_tcase(s, t);
	t = tcase_create("contexts");
	tcase_add_test(t, a_thread_has_no_context_until_it_takes_one);
	tcase_add_test(t, what_is_no_module_is_not_loaded);
	tcase_add_test(t, memory_survives_a_reset_by_its_fd);
	tcase_add_test(t, a_poisoned_context_is_reset);
	tcase_add_test(t, refusals_do_not_poison);
	suite_add_tcase(s, t);
	return cr_main(s);
}
