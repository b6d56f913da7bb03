// SPDX-License-Identifier: Apache-2.0
/*
 * check_lib_uring.c - the one wait point: poll, read, cancel, wait.
 */
#include "kvmd/lib/fault.h"
#include "kvmd/lib/uring.h"

#include <check.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

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

	ck_assert(!r->armed);
	w->res = res;
	w->nr++;
	if (w->again)
		ck_assert_int_eq(uring_poll_fd(w->again, r, w->fd, POLLIN), 0);
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
	TCase *tc = tcase_create(behaviour);

	tcase_add_test(tc, test);
	suite_add_tcase(s, tc);
}

int main(void)
{
	Suite *s = suite_create("lib_uring");
	SRunner *sr;
	int nr_failed;

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
	add(s, "no memory and bad size", no_memory_and_bad_size);

	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	nr_failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return nr_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
