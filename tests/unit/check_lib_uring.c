// SPDX-License-Identifier: Apache-2.0
/*
 * check_lib_uring.c - the one wait point: poll, read, cancel, wait; I/O on fixed
 * buffers and files.
 */
#include "kvmd/lib/fault.h"
#include "kvmd/lib/uring.h"

#include <check.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/quiet.h"
#include "tests/suite.h"

#define MS	1000000ULL

struct wait {
	struct uring_req req;
	int res, nr;
	struct uring *again;	/* done() arms the poll anew */
	int fd;
};

static struct uring *ring;
static int efd;

static void wait_done(struct uring_req *r, int res)
{
	struct wait *w = container_of(r, struct wait, req);

	quiet_assert(!r->armed);
	w->res = res;
	w->nr++;
	if (w->again)
		quiet_assert_int_eq(uring_poll_fd(w->again, r, w->fd, POLLIN), 0);
}

static struct wait new_wait(void)
{
	return (struct wait){ .req = { .done = wait_done } };
}

static void raise_event(int fd)
{
	uint64_t one = 1;

	ck_assert_int_eq(write(fd, &one, sizeof(one)), sizeof(one));
}

/* Waits without a limit of its own: libcheck's stops what never comes. */
static void wait_for(const struct wait *w, int nr)
{
	while (w->nr < nr)
		uring_wait(ring, UINT64_MAX);
}

static void open_ring(void)
{
	int err = uring_create(8, &ring);

	ck_assert_msg(!err, "uring_create: %s", strerror(-err));
	efd = eventfd(0, EFD_CLOEXEC);
	ck_assert_int_ge(efd, 0);
}

static void close_ring(void)
{
	uring_destroy(ring);
	close(efd);
}

START_TEST(nothing_to_do)
{
	open_ring();
	ck_assert_uint_eq(uring_poll(ring), 0);
	ck_assert_uint_eq(uring_wait(ring, 0), 0);
	ck_assert_uint_eq(uring_wait(ring, 1 * MS), 0);
	close_ring();
}
END_TEST

START_TEST(poll_of_a_ready_fd)
{
	struct wait w = new_wait();

	open_ring();
	raise_event(efd);
	ck_assert_int_eq(uring_poll_fd(ring, &w.req, efd, POLLIN), 0);
	ck_assert(w.req.armed);
	wait_for(&w, 1);
	ck_assert_int_eq(w.res & POLLIN, POLLIN);
	ck_assert_uint_eq(uring_poll(ring), 0);
	ck_assert_int_eq(w.nr, 1);
	close_ring();
}
END_TEST

START_TEST(poll_waits_for_the_event)
{
	struct wait w = new_wait();

	open_ring();
	ck_assert_int_eq(uring_poll_fd(ring, &w.req, efd, POLLIN), 0);
	ck_assert_uint_eq(uring_poll(ring), 0);
	ck_assert_uint_eq(uring_wait(ring, 1 * MS), 0);
	ck_assert(w.req.armed);
	raise_event(efd);
	wait_for(&w, 1);
	close_ring();
}
END_TEST

START_TEST(uring_poll_alone_sees_it)
{
	struct wait w = new_wait();

	open_ring();
	ck_assert_int_eq(uring_poll_fd(ring, &w.req, efd, POLLIN), 0);
	uring_poll(ring);
	raise_event(efd);
	while (!w.nr)
		uring_poll(ring);
	ck_assert_int_eq(w.res & POLLIN, POLLIN);
	close_ring();
}
END_TEST

START_TEST(read_of_an_eventfd)
{
	struct wait w = new_wait();
	uint64_t v = 0;

	open_ring();
	ck_assert_int_eq(uring_read(ring, &w.req, efd, &v, sizeof(v)), 0);
	ck_assert_uint_eq(uring_poll(ring), 0);
	raise_event(efd);
	raise_event(efd);
	wait_for(&w, 1);
	ck_assert_int_eq(w.res, 8);
	ck_assert_uint_ge(v, 1);
	close_ring();
}
END_TEST

START_TEST(errors_come_to_done)
{
	struct wait p = new_wait(), r = new_wait();
	char c;

	open_ring();
	ck_assert_int_eq(uring_poll_fd(ring, &p.req, 9999, POLLIN), 0);
	ck_assert_int_eq(uring_read(ring, &r.req, 9999, &c, 1), 0);
	wait_for(&p, 1);
	wait_for(&r, 1);
	ck_assert_int_eq(p.res, -EBADF);
	ck_assert_int_eq(r.res, -EBADF);
	close_ring();
}
END_TEST

START_TEST(cancel_ends_poll_and_read)
{
	struct wait p = new_wait(), r = new_wait(), idle = new_wait();
	uint64_t v;

	open_ring();
	ck_assert_int_eq(uring_poll_fd(ring, &p.req, efd, POLLIN), 0);
	ck_assert_int_eq(uring_read(ring, &r.req, efd, &v, sizeof(v)), 0);
	uring_poll(ring);
	uring_cancel(ring, &p.req);
	uring_cancel(ring, &r.req);
	uring_cancel(ring, &idle.req);
	wait_for(&p, 1);
	wait_for(&r, 1);
	ck_assert_int_eq(p.res, -ECANCELED);
	ck_assert_int_eq(r.res, -ECANCELED);
	ck_assert_int_eq(idle.nr, 0);
	close_ring();
}
END_TEST

START_TEST(cancel_of_what_is_still_queued)
{
	struct wait w = new_wait();

	open_ring();
	ck_assert_int_eq(uring_poll_fd(ring, &w.req, efd, POLLIN), 0);
	uring_cancel(ring, &w.req);
	wait_for(&w, 1);
	ck_assert_int_eq(w.res, -ECANCELED);
	close_ring();
}
END_TEST

START_TEST(done_may_arm_again)
{
	struct wait w = new_wait();
	int i;

	open_ring();
	w.again = ring;
	w.fd = efd;
	raise_event(efd);		/* stays readable */
	ck_assert_int_eq(uring_poll_fd(ring, &w.req, efd, POLLIN), 0);
	for (i = 1; i <= 100; i++)
		wait_for(&w, i);
	ck_assert(w.req.armed);
	w.again = NULL;
	close_ring();
}
END_TEST

START_TEST(more_requests_than_entries)
{
	struct wait w[200];
	int i;

	open_ring();
	raise_event(efd);
	for (i = 0; i < 200; i++) {
		w[i] = new_wait();
		ck_assert_int_eq(uring_poll_fd(ring, &w[i].req, efd, POLLIN), 0);
	}
	for (i = 0; i < 200; i++)
		wait_for(&w[i], 1);
	for (i = 0; i < 200; i++)
		ck_assert_int_eq(w[i].nr, 1);
	close_ring();
}
END_TEST

START_TEST(destroy_with_requests_armed)
{
	struct wait w = new_wait();

	open_ring();
	ck_assert_int_eq(uring_poll_fd(ring, &w.req, efd, POLLIN), 0);
	uring_poll(ring);
	close_ring();
	ck_assert_int_eq(w.nr, 0);
	uring_destroy(NULL);
}
END_TEST

/* More completions than the kernel has places for: none is lost. */
START_TEST(completions_overflow)
{
	enum { NR = 6000 };
	struct wait *w = calloc(NR, sizeof(*w));
	int i, n = 0;

	ck_assert_ptr_nonnull(w);
	open_ring();
	raise_event(efd);
	for (i = 0; i < NR; i++) {
		w[i] = new_wait();
		quiet_assert_int_eq(uring_poll_fd(ring, &w[i].req, efd, POLLIN), 0);
	}
	while (n < NR)
		n += (int)uring_wait(ring, UINT64_MAX);
	ck_assert_int_eq(n, NR);
	for (i = 0; i < NR; i++)
		quiet_assert_int_eq(w[i].nr, 1);
	ck_assert_uint_eq(uring_poll(ring), 0);
	close_ring();
	free(w);
}
END_TEST

/* ------------------------------------------------------------ fixed buffers and files */

#define IO	65536u

static int open_temp(int flags)
{
	const char *tmp = getenv("TMPDIR");
	char path[256];
	int fd, direct;

	snprintf(path, sizeof(path), "%s/uring.XXXXXX", tmp ? tmp : "/tmp");
	fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, 16 * IO), 0);
	if (flags) {
		direct = open(path, O_RDWR | O_CLOEXEC | flags);
		/* Not every file system has O_DIRECT; the I/O is the same. */
		if (direct >= 0) {
			close(fd);
			fd = direct;
		}
	}
	unlink(path);
	return fd;
}

static uint8_t *io_memory(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ck_assert_ptr_ne(p, MAP_FAILED);
	return p;
}

static void run_io(struct wait *w, int want)
{
	int nr = w->nr;

	ck_assert(w->req.armed);
	wait_for(w, nr + 1);
	ck_assert_int_eq(w->res, want);
}

START_TEST(files_and_buffers_come_and_go)
{
	struct wait w = new_wait();
	uint8_t *m = io_memory(4 * IO);
	int fd = open_temp(O_DIRECT);

	open_ring();
	ck_assert_int_eq(uring_buffers_init(ring, 8), 0);
	ck_assert_int_eq(uring_files_init(ring, 4), 0);
	ck_assert_int_eq(uring_file_set(ring, 3, fd), 0);
	ck_assert_int_eq(uring_buffer_set(ring, 5, m, 2 * IO), 0);
	memset(m, 7, IO);

	ck_assert_int_eq(uring_pwrite(ring, &w.req, 3, 5, m, IO, 2 * IO), 0);
	run_io(&w, IO);
	ck_assert_int_eq(uring_pread(ring, &w.req, 3, 5, m + IO, IO, 2 * IO), 0);
	run_io(&w, IO);
	ck_assert_int_eq(memcmp(m, m + IO, IO), 0);
	/* Memory of no buffer, by name. */
	ck_assert_int_eq(uring_pread(ring, &w.req, 3, -1, m + 3 * IO, IO, 2 * IO), 0);
	run_io(&w, IO);
	ck_assert_int_eq(memcmp(m, m + 3 * IO, IO), 0);
	memset(m + 3 * IO, 8, IO);
	ck_assert_int_eq(uring_pwrite(ring, &w.req, 3, -1, m + 3 * IO, IO, 0), 0);
	run_io(&w, IO);
	ck_assert_int_eq(uring_fdatasync(ring, &w.req, 3), 0);
	run_io(&w, 0);
	ck_assert_int_eq(uring_pread(ring, &w.req, 3, 5, m, IO, 0), 0);
	run_io(&w, IO);
	ck_assert_int_eq(m[0] | m[IO - 1], 8);
	/* Beyond the end: short, then nothing. */
	ck_assert_int_eq(uring_pread(ring, &w.req, 3, 5, m, 2 * IO, 15 * IO), 0);
	run_io(&w, IO);
	ck_assert_int_eq(uring_pread(ring, &w.req, 3, 5, m, IO, 16 * IO), 0);
	run_io(&w, 0);

	/* A buffer covers what it covers; an empty place and a gone file nothing. */
	ck_assert_int_eq(uring_pread(ring, &w.req, 3, 5, m + 2 * IO, IO, 0), 0);
	run_io(&w, -EFAULT);
	ck_assert_int_eq(uring_pread(ring, &w.req, 3, 4, m, IO, 0), 0);
	run_io(&w, -EFAULT);
	ck_assert_int_eq(uring_buffer_set(ring, 5, NULL, 0), 0);
	ck_assert_int_eq(uring_pread(ring, &w.req, 3, 5, m, IO, 0), 0);
	run_io(&w, -EFAULT);
	ck_assert_int_eq(uring_buffer_set(ring, 5, m + 2 * IO, IO), 0);
	ck_assert_int_eq(uring_pread(ring, &w.req, 3, 5, m + 2 * IO, IO, 2 * IO), 0);
	run_io(&w, IO);
	ck_assert_int_eq(m[2 * IO], 7);
	ck_assert_int_eq(uring_file_set(ring, 3, -1), 0);
	ck_assert_int_eq(uring_pread(ring, &w.req, 3, -1, m, IO, 0), 0);
	run_io(&w, -EBADF);
	close_ring();
	close(fd);
	munmap(m, 4 * IO);
}
END_TEST

START_TEST(places_that_are_not_there)
{
	uint8_t *m = io_memory(IO);

	open_ring();
	ck_assert_int_lt(uring_buffer_set(ring, 0, m, IO), 0);	/* no table */
	ck_assert_int_lt(uring_file_set(ring, 0, efd), 0);
	ck_assert_int_lt(uring_buffers_init(ring, 0), 0);
	ck_assert_int_lt(uring_files_init(ring, 0), 0);
	ck_assert_int_eq(uring_buffers_init(ring, 2), 0);
	ck_assert_int_lt(uring_buffers_init(ring, 2), 0);	/* one table a ring */
	ck_assert_int_lt(uring_buffer_set(ring, 2, m, IO), 0);
	ck_assert_int_lt(uring_buffer_set(ring, 0, (void *)4096, IO), 0);
	ck_assert_int_eq(uring_files_init(ring, 1), 0);
	ck_assert_int_lt(uring_file_set(ring, 1, efd), 0);
	ck_assert_int_lt(uring_file_set(ring, 0, 9999), 0);
	close_ring();
	munmap(m, IO);
}
END_TEST

static void drop_capabilities(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[2] = { 0 };

	ck_assert_int_eq(syscall(SYS_capset, &head, none), 0);
}

START_TEST(memory_that_may_not_be_locked)
{
	struct rlimit limit;
	uint8_t *m;

	/* The ring itself, and for a while those of the tests before, are under it too. */
	ck_assert_int_eq(getrlimit(RLIMIT_MEMLOCK, &limit), 0);
	limit.rlim_cur = min(limit.rlim_cur, (rlim_t)(256 * IO));
	ck_assert_int_eq(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
	m = io_memory(limit.rlim_cur + IO);
	drop_capabilities();		/* or the limit is not for us */
	open_ring();
	ck_assert_int_eq(uring_buffers_init(ring, 1), 0);
	ck_assert_int_eq(uring_buffer_set(ring, 0, m, limit.rlim_cur + IO), -ENOMEM);
	close_ring();
	munmap(m, limit.rlim_cur + IO);
}
END_TEST

/* Some two thousand in flight on a ring of few entries, each seen once. */
START_TEST(many_reads_in_flight)
{
	enum { NR = 2000, BYTES = 1024 };
	struct wait *w = calloc(NR, sizeof(*w));
	uint8_t *m = io_memory(IO + NR * BYTES);
	int fd = open_temp(0), i, n = 0;

	ck_assert_ptr_nonnull(w);
	open_ring();
	ck_assert_int_eq(uring_buffers_init(ring, 1), 0);
	ck_assert_int_eq(uring_files_init(ring, 1), 0);
	ck_assert_int_eq(uring_buffer_set(ring, 0, m, IO + NR * BYTES), 0);
	ck_assert_int_eq(uring_file_set(ring, 0, fd), 0);
	for (i = 0; i < (int)(IO / BYTES); i++)
		memset(m + i * BYTES, i + 1, BYTES);
	w[0] = new_wait();
	ck_assert_int_eq(uring_pwrite(ring, &w[0].req, 0, 0, m, IO, 0), 0);
	uring_flush(ring);
	run_io(&w[0], IO);
	for (i = 0; i < NR; i++) {
		w[i] = new_wait();
		quiet_assert_int_eq(uring_pread(ring, &w[i].req, 0, 0, m + IO + i * BYTES, BYTES,
						(uint64_t)i * BYTES % IO), 0);
	}
	/* Never asleep: deferred completions come by uring_poll() alone. */
	while (n < NR)
		n += (int)uring_poll(ring);
	ck_assert_int_eq(n, NR);
	for (i = 0; i < NR; i++) {
		quiet_assert_int_eq(w[i].nr, 1);
		quiet_assert_int_eq(w[i].res, BYTES);
		quiet_assert_int_eq(m[IO + i * BYTES], i % (int)(IO / BYTES) + 1);
	}
	close_ring();
	close(fd);
	munmap(m, IO + NR * BYTES);
	free(w);
}
END_TEST

/* From now on io_uring_enter(2) ends the process. */
static void forbid_enter(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_enter, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { .len = ARRAY_SIZE(code), .filter = code };

	ck_assert_int_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	ck_assert_int_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog), 0);
}

/* The last of the tests: with CK_FORK=no none could follow. */
START_TEST(a_poll_of_nothing_is_no_system_call)
{
	struct wait w = new_wait();

	open_ring();
	ck_assert_int_eq(uring_poll_fd(ring, &w.req, efd, POLLIN), 0);
	uring_flush(ring);
	forbid_enter();
	for (int i = 0; i < 1000; i++)
		ck_assert_uint_eq(uring_poll(ring), 0);
	uring_flush(ring);
	ck_assert_uint_eq(uring_wait(ring, 0), 0);
	close_ring();
}
END_TEST

START_TEST(no_memory_and_bad_size)
{
	struct uring *u = NULL;

	ck_assert_int_eq(fault_arm("alloc:nth=1", NULL, 0), 0);
	ck_assert_int_eq(uring_create(8, &u), -ENOMEM);
	fault_disarm();
	ck_assert_int_eq(uring_create(0, &u), -EINVAL);
	ck_assert_ptr_null(u);
}
END_TEST

static void add(Suite *s, const char *behaviour, const TTest *test)
{
	suite_test(s, behaviour, test, NULL, NULL);
}

int main(void)
{
	Suite *s = suite_create("lib_uring");

	add(s, "nothing to do", nothing_to_do);
	add(s, "poll of a ready fd", poll_of_a_ready_fd);
	add(s, "poll waits for the event", poll_waits_for_the_event);
	add(s, "uring poll alone sees it", uring_poll_alone_sees_it);
	add(s, "read of an eventfd", read_of_an_eventfd);
	add(s, "errors come to done", errors_come_to_done);
	add(s, "cancel ends poll and read", cancel_ends_poll_and_read);
	add(s, "cancel of what is still queued", cancel_of_what_is_still_queued);
	add(s, "done may arm again", done_may_arm_again);
	add(s, "more requests than entries", more_requests_than_entries);
	add(s, "destroy with requests armed", destroy_with_requests_armed);
	add(s, "completions overflow", completions_overflow);
	add(s, "files and buffers come and go", files_and_buffers_come_and_go);
	add(s, "places that are not there", places_that_are_not_there);
	add(s, "memory that may not be locked", memory_that_may_not_be_locked);
	add(s, "many reads in flight", many_reads_in_flight);
	add(s, "no memory and bad size", no_memory_and_bad_size);
	add(s, "a poll of nothing is no system call", a_poll_of_nothing_is_no_system_call);

	return suite_run(s);
}
