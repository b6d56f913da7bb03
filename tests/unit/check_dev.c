/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_dev.c - device backends: memory, scrubbing, copies, failures.
 */
#include "kvmd/dev/dev.h"

#include <check.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kvmd/lib/fault.h"
#include "kvmd/wire.h"
#include "tests/quiet.h"
#include "tests/suite.h"

#define BYTES	16384

static struct workers *w;
static struct dev d;
static const char *const kinds[] = { "host", "null" };

static unsigned nr_done;
static pthread_t done_on;

static void setup(void)
{
	ck_assert_int_eq(workers_create(2, &w), 0);
	dev_init(&d, &dev_host_ops, "host-0", 1 << 20, w);
	nr_done = 0;
}

static void teardown(void)
{
	fault_disarm();
	workers_destroy(w);
}

static void arm(const char *spec)
{
	char text[128];

	ck_assert_msg(!fault_arm(spec, text, sizeof(text)), "%s", text);
}

static struct dev_extent extent(uint64_t bytes)
{
	struct dev_extent e;

	ck_assert_int_eq(d.ops->extent_create(&d, bytes, &e), 0);
	return e;
}

static void done(struct dev_batch *b)
{
	(void)b;
	nr_done++;
	done_on = pthread_self();
}

/* Wait until one more batch is done. */
static void reap(void)
{
	struct pollfd p = { .fd = workers_notify_fd(w), .events = POLLIN };
	unsigned was = nr_done;
	uint64_t n;

	while (workers_reap(w), nr_done == was)
		if (poll(&p, 1, -1) == 1)
			ck_assert(read(p.fd, &n, sizeof(n)) == sizeof(n));
}

static void filled(void *map, uint64_t from, uint64_t bytes, int with)
{
	const uint8_t *b = map;

	for (uint64_t i = from; i < from + bytes; i++)
		quiet_assert_msg(b[i] == with, "byte %llu is %d, not %d", (unsigned long long)i,
				 b[i], with);
}

/* ----------------------------------------------------------------- backends */

START_TEST(backends_are_found_by_name)
{
	ck_assert_ptr_eq(dev_ops_find("host"), &dev_host_ops);
	ck_assert_ptr_eq(dev_ops_find("null"), &dev_null_ops);
	ck_assert_ptr_null(dev_ops_find(""));
	ck_assert_ptr_null(dev_ops_find("HOST"));
	ck_assert_ptr_null(dev_ops_find("hos"));
	ck_assert_ptr_null(dev_ops_find("host null"));
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		ck_assert_str_eq(dev_ops_find(kinds[i])->name, kinds[i]);
		ck_assert_ptr_nonnull(strstr(dev_ops_names(), kinds[i]));
	}
}
END_TEST

START_TEST(init_takes_what_it_is_told)
{
	char uuid[64];

	memset(uuid, 'u', sizeof(uuid));
	uuid[63] = 0;
	memset(&d, 0xff, sizeof(d));
	dev_init(&d, &dev_null_ops, uuid, 12345, w);
	ck_assert_ptr_eq(d.ops, &dev_null_ops);
	ck_assert_uint_eq(strlen(d.uuid), sizeof(d.uuid) - 1);
	ck_assert_uint_eq(d.budget_bytes, 12345);
	ck_assert_uint_eq(d.used_bytes, 0);
	ck_assert_uint_eq(d.grace_ns, dev_null_ops.grace_ns);
	ck_assert(!d.hugetlb);
	ck_assert_ptr_eq(d.workers, w);
}
END_TEST

/* --------------------------------------------------------------------- host */

START_TEST(an_extent_is_zeroed_and_shared)
{
	struct dev_extent e = extent(BYTES);
	struct stat st;
	char *client;

	ck_assert_uint_eq(e.bytes, BYTES);
	ck_assert_int_eq(fstat(e.fd, &st), 0);
	ck_assert_int_eq(st.st_size, BYTES);
	filled(e.map, 0, BYTES, 0);
	client = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, e.fd, 0);
	ck_assert_ptr_ne(client, MAP_FAILED);
	client[77] = 5;
	ck_assert_int_eq(((char *)e.map)[77], 5);
	munmap(client, BYTES);
	d.ops->extent_destroy(&d, &e);
}
END_TEST

START_TEST(nobody_resizes_an_extent)
{
	struct dev_extent e = extent(BYTES);

	ck_assert_int_eq(ftruncate(e.fd, 0), -1);
	ck_assert_int_eq(errno, EPERM);
	ck_assert_int_eq(ftruncate(e.fd, 2 * BYTES), -1);
	ck_assert_int_eq(errno, EPERM);
	ck_assert_int_eq(fcntl(e.fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	ck_assert_int_eq(fcntl(e.fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
	ck_assert_int_ne(fcntl(e.fd, F_GETFD) & FD_CLOEXEC, 0);
	d.ops->extent_destroy(&d, &e);
}
END_TEST

START_TEST(destroyed_extents_leave_nothing)
{
	struct dev_extent e = extent(BYTES), none = { .fd = -1 };
	int fd = e.fd;

	d.ops->extent_destroy(&d, &e);
	ck_assert_int_eq(fcntl(fd, F_GETFD), -1);
	ck_assert_int_eq(e.fd, -1);
	ck_assert_ptr_null(e.map);
	d.ops->extent_destroy(&d, &e);
	d.ops->extent_destroy(&d, &none);
}
END_TEST

/* A former daemon's memory, found again by its fd. */
START_TEST(an_extent_is_attached_with_its_bytes)
{
	struct dev_extent e = extent(BYTES), again = { .fd = 99 };
	int fd = dup(e.fd), open_fd = memfd_create("check", MFD_ALLOW_SEALING);

	memset(e.map, 3, BYTES);
	d.ops->extent_destroy(&d, &e);
	ck_assert_int_lt(d.ops->extent_attach(&d, fd, 2 * BYTES, &again), 0);
	ck_assert_int_lt(d.ops->extent_attach(&d, -1, BYTES, &again), 0);
	/* Whoever could shrink it could make the daemon fault. */
	ck_assert_int_eq(ftruncate(open_fd, BYTES), 0);
	ck_assert_int_lt(d.ops->extent_attach(&d, open_fd, BYTES, &again), 0);
	arm("slab:nth=1");
	ck_assert_int_eq(d.ops->extent_attach(&d, fd, BYTES, &again), -ENOMEM);
	ck_assert_int_eq(again.fd, 99);
	ck_assert_int_eq(d.ops->extent_attach(&d, fd, BYTES, &again), 0);
	ck_assert_int_eq(again.fd, fd);
	filled(again.map, 0, BYTES, 3);
	d.ops->extent_destroy(&d, &again);
	close(open_fd);
}
END_TEST

START_TEST(an_impossible_size_is_refused)
{
	struct dev_extent e = { .fd = 99, .bytes = 98 };

	ck_assert_int_lt(d.ops->extent_create(&d, 0, &e), 0);
	ck_assert_int_lt(d.ops->extent_create(&d, UINT64_MAX, &e), 0);
	ck_assert_int_eq(e.fd, 99);
	ck_assert_uint_eq(e.bytes, 98);
}
END_TEST

START_TEST(large_pages_are_a_wish)
{
	struct dev_extent e;

	d.hugetlb = true;
	e = extent(4 << 20);
	ck_assert_uint_eq(e.bytes, 4 << 20);
	ck_assert_int_eq(*(char *)e.map, 0);
	d.ops->extent_destroy(&d, &e);
	e = extent(BYTES);			/* not a multiple of one */
	d.ops->extent_destroy(&d, &e);
}
END_TEST

START_TEST(scrub_zeroes_for_every_mapper)
{
	struct dev_extent e = extent(BYTES);
	char *client = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, e.fd, 0);
	struct stat st;

	ck_assert_ptr_ne(client, MAP_FAILED);
	memset(e.map, 0xee, BYTES);
	filled(client, 0, BYTES, 0xee);
	ck_assert_int_eq(d.ops->extent_scrub(&d, &e), 0);
	filled(e.map, 0, BYTES, 0);
	filled(client, 0, BYTES, 0);
	ck_assert_int_eq(fstat(e.fd, &st), 0);
	ck_assert_int_eq(st.st_size, BYTES);
	munmap(client, BYTES);
	d.ops->extent_destroy(&d, &e);
}
END_TEST

START_TEST(copies_move_exactly_their_bytes)
{
	struct dev_extent a = extent(BYTES), b = extent(BYTES);
	struct dev_copy c[] = {
		{ .dst = &b, .src = &a, .dst_off = 0, .src_off = 4096, .bytes = 4096 },
		{ .dst = &b, .src = &a, .dst_off = 8192, .src_off = 0, .bytes = 100 },
		{ .dst = &b, .src = &a, .dst_off = BYTES - 1, .src_off = 4096, .bytes = 1 },
	};
	struct dev_batch batch = { .copy = c, .nr = 3, .err = -1, .done = done };

	memset(a.map, 1, 4096);
	memset((char *)a.map + 4096, 2, 4096);
	d.ops->copy(&d, &batch);
	ck_assert_uint_eq(nr_done, 0);		/* not before it is reaped */
	reap();
	ck_assert_uint_eq(nr_done, 1);
	ck_assert(pthread_equal(done_on, pthread_self()));
	ck_assert_int_eq(batch.err, 0);
	ck_assert_ptr_eq(batch.dev, &d);
	filled(b.map, 0, 4096, 2);
	filled(b.map, 4096, 4096, 0);
	filled(b.map, 8192, 100, 1);
	filled(b.map, 8292, BYTES - 8292 - 1, 0);
	filled(b.map, BYTES - 1, 1, 2);
	filled(a.map, 0, 4096, 1);
	d.ops->extent_destroy(&d, &a);
	d.ops->extent_destroy(&d, &b);
}
END_TEST

START_TEST(a_batch_can_be_used_again)
{
	struct dev_extent a = extent(BYTES);
	struct dev_copy c = { .dst = &a, .src = &a, .dst_off = 4096, .bytes = 16 };
	struct dev_batch batch = { .copy = &c, .nr = 1, .done = done };

	for (int i = 1; i < 5; i++) {
		memset(a.map, i, 16);
		d.ops->copy(&d, &batch);
		reap();
		filled(a.map, 4096, 16, i);
	}
	batch.nr = 0;
	d.ops->copy(&d, &batch);
	reap();
	ck_assert_int_eq(batch.err, 0);
	d.ops->extent_destroy(&d, &a);
}
END_TEST

/* A RAM chunk: a map and no fd. */
static struct dev_extent chunk(uint64_t bytes)
{
	void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ck_assert_ptr_ne(map, MAP_FAILED);
	return (struct dev_extent){ .fd = -1, .map = map, .bytes = bytes };
}

static void fill_random(struct dev_extent *e)
{
	uint32_t x = 12345;

	for (uint64_t i = 0; i < e->bytes; i++) {
		x = x * 1664525 + 1013904223;
		((uint8_t *)e->map)[i] = (uint8_t)(x >> 24);
	}
}

/* Planes gathered into one run and scattered again, summed on both ways. */
START_TEST(copies_to_and_from_ram_are_summed)
{
	enum { PLANE = 5000, PLANES = 6, BLOCK = PLANE * PLANES };
	struct dev_extent hbm[PLANES], ram = chunk(2 * BLOCK), back = chunk(2 * BLOCK);
	struct dev_copy c[PLANES];
	struct sum out, in;
	struct dev_batch batch = { .copy = c, .nr = PLANES, .sum = &out, .done = done };

	ck_assert(d.ops->sums);
	for (unsigned i = 0; i < PLANES; i++) {
		hbm[i] = extent(BYTES);
		fill_random(&hbm[i]);
		c[i] = (struct dev_copy){ .dst = &ram, .dst_off = 64 + i * PLANE, .src = &hbm[i],
					  .src_off = i * 1000, .bytes = PLANE };
	}
	sum_start(&out);
	d.ops->copy(&d, &batch);
	reap();
	ck_assert_int_eq(batch.err, 0);
	for (unsigned i = 0; i < PLANES; i++)
		ck_assert_int_eq(memcmp((char *)ram.map + 64 + i * PLANE,
					(char *)hbm[i].map + i * 1000, PLANE), 0);
	ck_assert_uint_eq(sum_end(&out), sum_of((char *)ram.map + 64, BLOCK));

	for (unsigned i = 0; i < PLANES; i++)
		c[i] = (struct dev_copy){ .dst = &hbm[i], .src = &ram,
					  .src_off = 64 + i * PLANE, .bytes = PLANE };
	sum_start(&in);
	batch.sum = &in;
	d.ops->copy(&d, &batch);
	reap();
	ck_assert_uint_eq(sum_end(&in), sum_end(&out));
	c[0] = (struct dev_copy){ .dst = &back, .src = &ram, .src_off = 64, .bytes = BLOCK };
	batch.nr = 1;
	batch.sum = NULL;		/* RAM to RAM, one cold run, without a sum */
	d.ops->copy(&d, &batch);
	reap();
	ck_assert_int_eq(memcmp(back.map, (char *)ram.map + 64, BLOCK), 0);
	ck_assert_uint_eq(sum_end(&in), sum_end(&out));
	for (unsigned i = 0; i < PLANES; i++)
		d.ops->extent_destroy(&d, &hbm[i]);
	munmap(ram.map, ram.bytes);
	munmap(back.map, back.bytes);
}
END_TEST

/* Holds the only thread until it is told to go on. */
struct stopper {
	struct work work;
	int ready[2], go[2];	/* pipes */
};

static void stop_fn(struct work *work)
{
	struct stopper *s = container_of(work, struct stopper, work);
	char c = 0;

	ck_assert_int_eq(write(s->ready[1], &c, 1), 1);
	ck_assert_int_eq(read(s->go[0], &c, 1), 1);
}

static void stop_done(struct work *work)
{
	(void)work;
}

static struct dev_batch *order[4];
static unsigned nr_order;

static void note_order(struct dev_batch *b)
{
	order[nr_order++] = b;
	done(b);
}

START_TEST(urgent_batches_overtake)
{
	struct stopper s = { .work = { .fn = stop_fn, .done = stop_done } };
	struct dev_batch b[4] = { 0 };
	char c = 0;

	workers_destroy(w);
	ck_assert_int_eq(workers_create(1, &w), 0);
	dev_init(&d, dev_ops_find(kinds[_i]), "x", 1 << 20, w);
	ck_assert_int_eq(pipe(s.ready) | pipe(s.go), 0);
	workers_submit(w, &s.work);
	ck_assert_int_eq(read(s.ready[0], &c, 1), 1);
	for (unsigned i = 0; i < 4; i++) {
		b[i].urgent = i >= 2;
		b[i].done = note_order;
		d.ops->copy(&d, &b[i]);
	}
	ck_assert_int_eq(write(s.go[1], &c, 1), 1);
	while (nr_done < 4)
		reap();
	ck_assert_ptr_eq(order[0], &b[2]);
	ck_assert_ptr_eq(order[1], &b[3]);
	ck_assert_ptr_eq(order[2], &b[0]);
	ck_assert_ptr_eq(order[3], &b[1]);
	for (unsigned i = 0; i < 2; i++) {
		close(s.ready[i]);
		close(s.go[i]);
	}
}
END_TEST

/* --------------------------------------------------------------------- null */

START_TEST(null_has_no_memory)
{
	struct dev_extent e;
	struct dev_copy c = { .dst = &e, .src = &e, .dst_off = 1ull << 39, .bytes = 1ull << 30 };
	struct sum s;
	struct dev_batch batch = { .copy = &c, .nr = 1, .sum = &s, .err = -1, .done = done };

	dev_init(&d, &dev_null_ops, "null-0", 1ull << 50, w);
	sum_start(&s);
	ck_assert(!d.ops->has_memory);
	ck_assert(!d.ops->sums);
	ck_assert(dev_host_ops.has_memory);
	ck_assert_uint_eq(d.ops->handle_kind, KVMD_HANDLE_NONE);
	e = extent(1ull << 40);
	ck_assert_int_eq(e.fd, -1);
	ck_assert_ptr_null(e.map);
	ck_assert_uint_eq(e.bytes, 1ull << 40);
	ck_assert_int_eq(d.ops->extent_scrub(&d, &e), 0);
	d.ops->copy(&d, &batch);
	ck_assert_uint_eq(nr_done, 0);
	reap();
	ck_assert_int_eq(batch.err, 0);
	ck_assert_uint_eq(sum_end(&s), sum_of("", 0));
	d.ops->extent_destroy(&d, &e);
}
END_TEST

/* ----------------------------------------------------------------- failures */

START_TEST(creation_fails)
{
	struct dev_extent e = { .fd = 99 };

	dev_init(&d, dev_ops_find(kinds[_i]), "x", 1 << 20, w);
	arm("slab:nth=1");
	ck_assert_int_eq(d.ops->extent_create(&d, BYTES, &e), -ENOMEM);
	ck_assert_int_eq(e.fd, 99);
	ck_assert_uint_eq(fault_nr_hits(FAULT_SLAB), 1);
	ck_assert_int_eq(d.ops->extent_create(&d, BYTES, &e), 0);
	d.ops->extent_destroy(&d, &e);
}
END_TEST

START_TEST(a_scrub_fails)
{
	struct dev_extent e;

	dev_init(&d, dev_ops_find(kinds[_i]), "x", 1 << 20, w);
	e = extent(BYTES);
	if (e.map)
		memset(e.map, 7, BYTES);
	arm("scrub:nth=1");
	ck_assert_int_eq(d.ops->extent_scrub(&d, &e), -EIO);
	if (e.map)
		filled(e.map, 0, BYTES, 7);
	ck_assert_int_eq(d.ops->extent_scrub(&d, &e), 0);
	if (e.map)
		filled(e.map, 0, BYTES, 0);
	d.ops->extent_destroy(&d, &e);
}
END_TEST

START_TEST(a_copy_fails)
{
	struct dev_extent e;
	struct dev_copy c = { .dst = &e, .src = &e, .dst_off = 4096, .bytes = 64 };
	struct dev_batch batch = { .copy = &c, .nr = 1, .done = done };

	dev_init(&d, dev_ops_find(kinds[_i]), "x", 1 << 20, w);
	e = extent(BYTES);
	if (e.map)
		memset(e.map, 7, 64);
	arm("copy:nth=1");
	d.ops->copy(&d, &batch);
	reap();
	ck_assert_int_eq(batch.err, -EIO);
	if (e.map)
		filled(e.map, 4096, 64, 0);
	d.ops->copy(&d, &batch);		/* and the next one does not */
	reap();
	ck_assert_int_eq(batch.err, 0);
	if (e.map)
		filled(e.map, 4096, 64, 7);
	d.ops->extent_destroy(&d, &e);
}
END_TEST

static TCase *group(Suite *s, const char *name)
{
	TCase *tc = tcase_create(name);

	tcase_add_checked_fixture(tc, setup, teardown);
	suite_add_tcase(s, tc);
	return tc;
}

int main(void)
{
	Suite *s = suite_create("dev");
	TCase *tc = group(s, "backends");

	tcase_add_test(tc, backends_are_found_by_name);
	tcase_add_test(tc, init_takes_what_it_is_told);
	tc = group(s, "host");
	tcase_add_test(tc, an_extent_is_zeroed_and_shared);
	tcase_add_test(tc, nobody_resizes_an_extent);
	tcase_add_test(tc, destroyed_extents_leave_nothing);
	tcase_add_test(tc, an_extent_is_attached_with_its_bytes);
	tcase_add_test(tc, an_impossible_size_is_refused);
	tcase_add_test(tc, large_pages_are_a_wish);
	tcase_add_test(tc, scrub_zeroes_for_every_mapper);
	tcase_add_test(tc, copies_move_exactly_their_bytes);
	tcase_add_test(tc, a_batch_can_be_used_again);
	tcase_add_test(tc, copies_to_and_from_ram_are_summed);
	tcase_add_loop_test(tc, urgent_batches_overtake, 0, 2);
	tc = group(s, "null");
	tcase_add_test(tc, null_has_no_memory);
	tc = group(s, "failures");
	tcase_add_loop_test(tc, creation_fails, 0, 2);
	tcase_add_loop_test(tc, a_scrub_fails, 0, 2);
	tcase_add_loop_test(tc, a_copy_fails, 0, 2);
	return suite_run(s);
}
