// SPDX-License-Identifier: Apache-2.0
/*
 * workers.c - two locked queues to the threads, a lock-free list back.
 *
 * Work goes in under a mutex (its senders are rare and slow by nature), into the
 * queue of what is urgent or that of the rest; a thread takes from the rest only
 * while nothing is urgent. Each queue keeps its order. It
 * comes back on a stack that workers push with compare-and-swap and the core
 * thread takes whole; the core thread turns it round, so that completions run
 * in the order they were pushed.
 *
 *	worker				core
 *	push on an empty stack
 *	write(eventfd)			read(eventfd) returns
 *					take the whole stack
 *	push on an empty stack
 *	write(eventfd)			...
 *
 * A push on a stack that is not empty needs no write: the one that made it
 * not empty is still to be taken.
 */
#include "kvmd/lib/workers.h"
#include "kvmd/lib/mem.h"

#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct queue {
	struct work *head, *tail;	/* submitted, not taken yet */
};

struct workers {
	pthread_mutex_t lock;		/* urgent, rest, stop */
	pthread_cond_t wake;
	struct queue urgent, rest;
	bool stop;
	struct work *finished;		/* stack; pushed by workers, taken by core */
	unsigned nr_pending;		/* submitted or adopted, done() not run; relaxed */
	int notify_fd;
	unsigned nr_threads;
	pthread_t threads[];
};

static void push_finished(struct workers *w, struct work *work)
{
	struct work *old = ld_rlx(&w->finished);
	uint64_t one = 1;

	do {
		work->next = old;
		/* Release pairs with the acquire exchange in workers_reap(). */
	} while (!__atomic_compare_exchange_n(&w->finished, &old, work, true,
					      __ATOMIC_RELEASE, __ATOMIC_RELAXED));
	if (!old) {
		while (write(w->notify_fd, &one, sizeof(one)) < 0 && errno == EINTR)
			;
	}
}

static void push(struct queue *q, struct work *work)
{
	work->next = NULL;
	if (q->tail)
		q->tail->next = work;
	else
		q->head = work;
	q->tail = work;
}

static struct work *pop(struct queue *q)
{
	struct work *work = q->head;

	if (work) {
		q->head = work->next;
		if (!q->head)
			q->tail = NULL;
	}
	return work;
}

static struct work *take(struct workers *w)
{
	struct work *work;

	pthread_mutex_lock(&w->lock);
	while (!w->urgent.head && !w->rest.head && !w->stop)
		pthread_cond_wait(&w->wake, &w->lock);
	work = pop(w->urgent.head ? &w->urgent : &w->rest);
	pthread_mutex_unlock(&w->lock);
	return work;
}

static void *worker_thread(void *arg)
{
	struct workers *w = arg;
	struct work *work;

	while ((work = take(w))) {
		work->fn(work);
		push_finished(w, work);
	}
	return NULL;
}

/* Signals are the core thread's: the threads start with all of them blocked. */
static int start_threads(struct workers *w, unsigned nr)
{
	sigset_t all, old;
	int err = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (!err && w->nr_threads < nr) {
		err = -pthread_create(&w->threads[w->nr_threads], NULL, worker_thread, w);
		if (!err)
			w->nr_threads++;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return err;
}

int workers_create(unsigned nr_threads, struct workers **ret_w)
{
	struct workers *w;
	int err;

	if (!nr_threads || nr_threads > 1024)
		return -EINVAL;
	w = mem_zalloc(sizeof(*w) + nr_threads * sizeof(w->threads[0]));
	if (!w)
		return -ENOMEM;
	/* Blocking: an io_uring read of a non-blocking eventfd would not wait. */
	w->notify_fd = eventfd(0, EFD_CLOEXEC);
	if (w->notify_fd < 0) {
		err = -errno;
		goto err_free;
	}
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->wake, NULL);
	err = start_threads(w, nr_threads);
	if (err) {
		workers_destroy(w);
		return err;
	}
	*ret_w = w;
	return 0;

err_free:
	mem_free(w);
	return err;
}

void workers_destroy(struct workers *w)
{
	unsigned i;

	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->stop = true;
	pthread_cond_broadcast(&w->wake);
	pthread_mutex_unlock(&w->lock);
	for (i = 0; i < w->nr_threads; i++)
		pthread_join(w->threads[i], NULL);
	pthread_cond_destroy(&w->wake);
	pthread_mutex_destroy(&w->lock);
	close(w->notify_fd);
	mem_free(w);
}

int workers_notify_fd(const struct workers *w)
{
	return w->notify_fd;
}

void workers_adopt(struct workers *w)
{
	__atomic_fetch_add(&w->nr_pending, 1, __ATOMIC_RELAXED);
}

void workers_finish(struct workers *w, struct work *work)
{
	push_finished(w, work);
}

static void submit(struct workers *w, struct queue *q, struct work *work)
{
	workers_adopt(w);
	pthread_mutex_lock(&w->lock);
	push(q, work);
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->lock);
}

void workers_submit(struct workers *w, struct work *work)
{
	submit(w, &w->rest, work);
}

void workers_submit_urgent(struct workers *w, struct work *work)
{
	submit(w, &w->urgent, work);
}

unsigned workers_reap(struct workers *w)
{
	struct work *stack, *next, *fifo = NULL;
	unsigned nr = 0;

	if (!ld_rlx(&w->finished))
		return 0;
	/* Acquire pairs with the release in push_finished(). */
	stack = __atomic_exchange_n(&w->finished, NULL, __ATOMIC_ACQUIRE);
	for (; stack; stack = next) {
		next = stack->next;
		stack->next = fifo;
		fifo = stack;
	}
	for (; fifo; fifo = next) {
		next = fifo->next;	/* done() may free or resubmit it */
		__atomic_fetch_sub(&w->nr_pending, 1, __ATOMIC_RELAXED);
		fifo->done(fifo);
		nr++;
	}
	return nr;
}

unsigned workers_nr_pending(const struct workers *w)
{
	return ld_rlx(&w->nr_pending);
}
