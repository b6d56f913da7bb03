// SPDX-License-Identifier: Apache-2.0
/*
 * check_lib_workers.c - threads for what can only block.
 */
#include "kvmd/lib/fault.h"
#include "kvmd/lib/worker_bell.h"
#include "kvmd/lib/workers.h"

#include <check.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>

struct job {
	struct work work;
	sem_t *running;		/* fn() raises it first when there is one, */
	sem_t *gate;		/* and waits for this when there is one */
	pthread_t ran_on;
	int ran, done;
};

static int nr_done;		/* completions so far; each job notes its turn */

static struct job *job_of(struct work *w)
{
	return container_of(w, struct job, work);
}

static void job_fn(struct work *w)
{
	struct job *j = job_of(w);

	if (j->running)
		sem_post(j->running);
	if (j->gate)
		sem_wait(j->gate);
	j->ran_on = pthread_self();
	j->ran++;
}

static void job_done(struct work *w)
{
	job_of(w)->done = ++nr_done;
}

static struct work new_work(void)
{
	return (struct work){ .fn = job_fn, .done = job_done };
}

/* Wait on the notify fd and reap until @nr completions were seen. */
static void reap_until(struct workers *w, int nr)
{
	uint64_t events;

	while (nr_done < nr) {
		ck_assert_int_eq(read(workers_notify_fd(w), &events, sizeof(events)), 8);
		workers_reap(w);
	}
}

START_TEST(work_runs_on_a_thread_and_is_done_here)
{
	struct workers *w;
	struct job j = { .work = new_work() };

	ck_assert_int_eq(workers_create(2, &w), 0);
	ck_assert_uint_eq(workers_reap(w), 0);
	workers_submit(w, &j.work);
	ck_assert_uint_eq(workers_nr_pending(w), 1);
	reap_until(w, 1);
	ck_assert_int_eq(j.ran, 1);
	ck_assert_int_eq(j.done, 1);
	ck_assert(!pthread_equal(j.ran_on, pthread_self()));
	ck_assert_uint_eq(workers_nr_pending(w), 0);
	workers_destroy(w);
}
END_TEST

START_TEST(one_thread_keeps_the_order)
{
	struct workers *w;
	struct job j[100];
	int i;

	ck_assert_int_eq(workers_create(1, &w), 0);
	for (i = 0; i < 100; i++) {
		j[i] = (struct job){ .work = new_work() };
		workers_submit(w, &j[i].work);
	}
	reap_until(w, 100);
	for (i = 0; i < 100; i++)
		ck_assert_int_eq(j[i].done, i + 1);
	workers_destroy(w);
}
END_TEST

START_TEST(a_done_work_can_be_submitted_again)
{
	struct workers *w;
	struct job j = { .work = new_work() };
	int i;

	ck_assert_int_eq(workers_create(2, &w), 0);
	for (i = 1; i <= 50; i++) {
		workers_submit(w, &j.work);
		reap_until(w, i);
	}
	ck_assert_int_eq(j.ran, 50);
	workers_destroy(w);
}
END_TEST

START_TEST(notify_fd_is_quiet_until_something_is_done)
{
	struct pollfd p = { .events = POLLIN };
	struct workers *w;
	struct job j = { .work = new_work() };
	sem_t gate;

	sem_init(&gate, 0, 0);
	j.gate = &gate;
	ck_assert_int_eq(workers_create(1, &w), 0);
	p.fd = workers_notify_fd(w);
	workers_submit(w, &j.work);
	ck_assert_int_eq(poll(&p, 1, 0), 0);
	ck_assert_uint_eq(workers_reap(w), 0);
	sem_post(&gate);
	ck_assert_int_eq(poll(&p, 1, -1), 1);
	ck_assert_uint_eq(workers_reap(w), 1);
	workers_destroy(w);
	sem_destroy(&gate);
}
END_TEST

START_TEST(a_bell_ends_the_wait_each_time)
{
	struct worker_bell bell;
	struct workers *w;
	struct uring *u;
	struct job j = { .work = new_work() };

	ck_assert_int_eq(workers_create(1, &w), 0);
	ck_assert_int_eq(uring_create(8, &u), 0);
	ck_assert_int_eq(worker_bell_start(&bell, u, w), 0);
	for (int i = 1; i <= 3; i++) {
		workers_submit(w, &j.work);
		while (nr_done < i) {
			ck_assert_uint_ge(uring_wait(u, UINT64_MAX), 1);
			workers_reap(w);
		}
	}
	ck_assert_int_eq(j.ran, 3);
	uring_destroy(u);
	workers_destroy(w);
}
END_TEST

START_TEST(two_threads_work_at_once)
{
	struct workers *w;
	struct job a = { .work = new_work() }, b = { .work = new_work() };
	sem_t gate;

	sem_init(&gate, 0, 0);
	a.gate = &gate;
	ck_assert_int_eq(workers_create(2, &w), 0);
	workers_submit(w, &a.work);
	workers_submit(w, &b.work);
	/* b gets done while a holds its thread. */
	reap_until(w, 1);
	ck_assert_int_eq(b.done, 1);
	ck_assert_int_eq(a.done, 0);
	sem_post(&gate);
	reap_until(w, 2);
	workers_destroy(w);
	sem_destroy(&gate);
}
END_TEST

START_TEST(urgent_work_overtakes_the_rest)
{
	struct workers *w;
	struct job first = { .work = new_work() }, rest[3], urgent[3];
	sem_t running, gate;
	int i;

	sem_init(&running, 0, 0);
	sem_init(&gate, 0, 0);
	first.running = &running;
	first.gate = &gate;
	ck_assert_int_eq(workers_create(1, &w), 0);
	workers_submit(w, &first.work);
	sem_wait(&running);
	for (i = 0; i < 3; i++) {
		rest[i] = (struct job){ .work = new_work() };
		urgent[i] = (struct job){ .work = new_work() };
		workers_submit(w, &rest[i].work);
		workers_submit_urgent(w, &urgent[i].work);
	}
	ck_assert_uint_eq(workers_nr_pending(w), 7);
	sem_post(&gate);
	reap_until(w, 7);
	ck_assert_int_eq(first.done, 1);
	for (i = 0; i < 3; i++) {
		ck_assert_int_eq(urgent[i].done, 2 + i);
		ck_assert_int_eq(rest[i].done, 5 + i);
	}
	ck_assert_uint_eq(workers_nr_pending(w), 0);
	workers_destroy(w);
	sem_destroy(&running);
	sem_destroy(&gate);
}
END_TEST

START_TEST(destroy_runs_what_is_queued)
{
	struct workers *w;
	struct job j[64];
	int i;

	ck_assert_int_eq(workers_create(2, &w), 0);
	for (i = 0; i < 64; i++) {
		j[i] = (struct job){ .work = new_work() };
		if (i & 1)
			workers_submit_urgent(w, &j[i].work);
		else
			workers_submit(w, &j[i].work);
	}
	workers_destroy(w);
	for (i = 0; i < 64; i++) {
		ck_assert_int_eq(j[i].ran, 1);
		ck_assert_int_eq(j[i].done, 0);
	}
}
END_TEST

struct foreigner {
	struct workers *w;
	struct job j[200];
};

static void *foreign_thread(void *arg)
{
	struct foreigner *f = arg;

	for (unsigned i = 0; i < ARRAY_SIZE(f->j); i++) {
		if (i & 1)
			workers_adopt(f->w);
		workers_finish(f->w, &f->j[i].work);
	}
	return NULL;
}

/* Half of the work is counted here, as a request is, half of it over there, as news is. */
START_TEST(foreign_threads_hand_work_back)
{
	static struct foreigner f[3];
	struct workers *w;
	pthread_t t[3];

	ck_assert_int_eq(workers_create(1, &w), 0);
	for (unsigned k = 0; k < 3; k++) {
		f[k].w = w;
		for (unsigned i = 0; i < ARRAY_SIZE(f[k].j); i++) {
			f[k].j[i] = (struct job){ .work = new_work() };
			if (!(i & 1))
				workers_adopt(w);
		}
	}
	ck_assert_uint_eq(workers_nr_pending(w), 300);
	for (unsigned k = 0; k < 3; k++)
		ck_assert_int_eq(pthread_create(&t[k], NULL, foreign_thread, &f[k]), 0);
	reap_until(w, 600);
	for (unsigned k = 0; k < 3; k++) {
		int last = 0;
		bool ordered = true;

		pthread_join(t[k], NULL);
		for (unsigned i = 0; i < ARRAY_SIZE(f[k].j); i++) {
			ordered &= !f[k].j[i].ran && f[k].j[i].done > last;
			last = f[k].j[i].done;
		}
		ck_assert(ordered);
	}
	ck_assert_uint_eq(workers_nr_pending(w), 0);
	workers_destroy(w);
}
END_TEST

START_TEST(bad_arguments_and_no_memory)
{
	struct workers *w = NULL;

	ck_assert_int_eq(workers_create(0, &w), -EINVAL);
	ck_assert_int_eq(workers_create(100000, &w), -EINVAL);
	ck_assert_int_eq(fault_arm("alloc:nth=1", NULL, 0), 0);
	ck_assert_int_eq(workers_create(1, &w), -ENOMEM);
	fault_disarm();
	ck_assert_ptr_null(w);
	workers_destroy(NULL);
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
	Suite *s = suite_create("lib_workers");
	SRunner *sr;
	int nr_failed;

	add(s, "work runs on a thread and is done here", work_runs_on_a_thread_and_is_done_here);
	add(s, "one thread keeps the order", one_thread_keeps_the_order);
	add(s, "a done work can be submitted again", a_done_work_can_be_submitted_again);
	add(s, "notify fd is quiet until something is done", notify_fd_is_quiet_until_something_is_done);
	add(s, "a bell ends the wait each time", a_bell_ends_the_wait_each_time);
	add(s, "two threads work at once", two_threads_work_at_once);
	add(s, "urgent work overtakes the rest", urgent_work_overtakes_the_rest);
	add(s, "destroy runs what is queued", destroy_runs_what_is_queued);
	add(s, "foreign threads hand work back", foreign_threads_hand_work_back);
	add(s, "bad arguments and no memory", bad_arguments_and_no_memory);

	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	nr_failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return nr_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
