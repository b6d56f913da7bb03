/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda_move.c - copies: the core thread queues them, movers do them.
 *
 * The driver's locks are held for long by others (registering memory takes
 * 0.1 s a GiB), so the core thread submits nothing itself. A lane has movers, each
 * with a stream of its own. One takes the batches that wait, up to CUDA_GROUP_BYTES,
 * as a group, sees it through (cuda_copy.c) and hands it back, while another's is on
 * its way. CUDA_GROUP_BYTES also bounds what an urgent batch finds before it in the
 * engine's queue, which knows no priorities.
 *
 * A group that fails is run again batch by batch, alone on the GPU, so that the
 * one that is at fault is known. A batch goes back only when nothing of it is under
 * way: its event came, or its context is gone.
 */
#include "kvmd/dev/cuda_int.h"

#include <signal.h>
#include <sys/prctl.h>

#include "kvmd/lib/fault.h"
#include "kvmd/lib/mem.h"
#include "kvmd/lib/stats.h"

#define SHARE_BYTES	(2u << 20)	/* less is not worth another mover */

/* --------------------------------------------------------------------- queues */

static struct lane *lane_for(struct cuda *c, const struct dev_batch *b)
{
	enum dev_way way = b->nr ? cuda_way_of(b->copy) : DEV_OUT;

	if (b->urgent || way == DEV_WITHIN)
		return &c->lane[LANE_URGENT];
	return &c->lane[way == DEV_OUT ? LANE_OUT : LANE_IN];
}

static uint64_t bytes_of(const struct dev_batch *b)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < b->nr; i++)
		bytes += b->copy[i].bytes;
	return bytes;
}

static void copy_done(struct work *w)
{
	struct dev_batch *b = container_of(w, struct dev_batch, work);
	struct dev *d = b->dev;
	uint64_t bytes[NR_DEV_WAY] = { 0 };

	for (unsigned i = 0; !b->err && i < b->nr; i++)
		if (b->copy[i].src->handle || b->copy[i].dst->handle)
			bytes[cuda_way_of(&b->copy[i])] += b->copy[i].bytes;
	for (unsigned i = 0; i < NR_DEV_WAY; i++)
		d->copied_bytes[i] += bytes[i];
	stat_add(DEV_COPIED_OUT_BYTES, bytes[DEV_OUT]);
	stat_add(DEV_COPIED_IN_BYTES, bytes[DEV_IN]);
	stat_add(DEV_COPIED_WITHIN_BYTES, bytes[DEV_WITHIN]);
	if (d->priv)
		cuda_account(d->priv);
	b->done(b);
}

void cuda_copy(struct dev *d, struct dev_batch *b)
{
	struct cuda *c = d->priv;
	struct lane *l;
	uint64_t bytes = bytes_of(b);

	b->dev = d;
	b->err = 0;
	b->work.next = NULL;
	b->work.done = copy_done;
	workers_adopt(d->workers);
	if (!c) {
		b->err = -EIO;
		workers_finish(d->workers, &b->work);
		return;
	}
	l = lane_for(c, b);
	pthread_mutex_lock(&l->lock);
	if (l->tail)
		l->tail->next = &b->work;
	else
		l->head = &b->work;
	l->tail = &b->work;
	l->bytes += bytes;
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&l->lock);
}

/* Other GPUs than the mover's that @b touches. */
static uint64_t others(const struct mover *m, const struct dev_batch *b)
{
	uint64_t mask = 0;

	for (unsigned i = 0; i < b->nr; i++) {
		const struct cuda *src = cuda_gpu_of(b->copy[i].src), *dst = cuda_gpu_of(b->copy[i].dst);

		mask |= (src ? cuda_bit(src) : 0) | (dst ? cuda_bit(dst) : 0);
	}
	return mask & ~cuda_bit(m->c);
}

/* What the idle ones are not to share: a group's bytes. */
static uint64_t fair_share(const struct lane *l)
{
	uint64_t share = l->bytes / (l->nr_idle + 1);

	return min(max(share, (uint64_t)SHARE_BYTES), (uint64_t)CUDA_GROUP_BYTES);
}

/* The next group; false: there is none and there will be none. */
static bool take(struct mover *m)
{
	struct lane *l = m->lane;
	uint64_t room;
	unsigned copies = 0;

	m->nr = 0;
	m->also = 0;
	pthread_mutex_lock(&l->lock);
	l->nr_idle++;
	while (!l->head && !l->stop)
		pthread_cond_wait(&l->wake, &l->lock);
	l->nr_idle--;
	room = fair_share(l);
	while (l->head && m->nr < CUDA_GROUP_COPIES) {
		struct dev_batch *b = container_of(l->head, struct dev_batch, work);
		uint64_t bytes = bytes_of(b), also = others(m, b);

		/* The first always; one that touches another GPU has a group to itself. */
		if (m->nr && (bytes > room || copies + b->nr > CUDA_GROUP_COPIES || also || m->also))
			break;
		l->head = b->work.next;
		if (!l->head)
			l->tail = NULL;
		l->bytes -= bytes;
		room -= min(room, bytes);
		copies += b->nr;
		m->also |= also;
		m->item[m->nr++] = (struct item) { .b = b };
	}
	pthread_mutex_unlock(&l->lock);
	return m->nr;
}

/* ------------------------------------------------------------------------ errors */

static bool is_poison(int r)
{
	return r == CU_ECC_UNCORRECTABLE || r == CU_CONTAINED;
}

static void say_failed(struct mover *m, int r)
{
	cuda_say(m->c, "a copy failed: %s%s", cu_error(&cuda_drv, r), is_poison(r) ?
		 ": its memory is not used again; the GPU should be reset when it can be" : "");
}

/* Alone: one item, at most twice. 0 or -errno. */
static int run_alone(struct mover *m, unsigned i)
{
	int r = CU_OK;

	for (unsigned tries = 0; tries < 2; tries++) {
		r = cuda_items_run(m, i, i + 1);
		if (cu_is_sticky(r) && cuda_rebuild(m->c, r))
			return -EIO;
		/* Nobody else was there to blame, so once is enough. */
		if (!r || is_poison(r))
			break;
	}
	if (r)
		say_failed(m, r);
	return !r ? 0 : is_poison(r) ? -EHWPOISON : -EIO;
}

/* The group failed with @r in context @gen. */
static void run_again(struct mover *m, unsigned gen, int r)
{
	uint64_t locked;
	bool lost = cuda_enter_alone(m->c, m->also, gen, r, &locked);

	for (unsigned i = 0; i < m->nr; i++) {
		struct dev_batch *b = m->item[i].b;

		b->err = lost || m->c->lost ? -EIO : run_alone(m, i);
	}
	if (!lost)
		cuda_leave_alone(locked);
}

/* ----------------------------------------------------------------------- threads */

static void hand_back(struct mover *m, unsigned i)
{
	struct dev_batch *b = m->item[i].b;

	if (!b->err && b->sum && !m->item[i].summed)
		cuda_item_sum(&m->item[i]);
	workers_finish(m->c->workers, &b->work);
}

/* Those that a test wants to fail leave the group. */
static void drop_faulty(struct mover *m)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < m->nr; i++) {
		if (fault_hit(FAULT_COPY)) {
			m->item[i].b->err = -EIO;
			m->item[i].summed = true;
			hand_back(m, i);
		} else {
			m->item[kept++] = m->item[i];
		}
	}
	m->nr = kept;
}

static void do_group(struct mover *m)
{
	unsigned gen = 0;
	int r;

	drop_faulty(m);
	if (!m->nr)
		return;
	if (cuda_enter(m->c, m->also, &gen)) {
		for (unsigned i = 0; i < m->nr; i++)
			m->item[i].b->err = -EIO;
	} else {
		r = cuda_items_run(m, 0, m->nr);
		cuda_leave(m->c, m->also);
		if (r)
			run_again(m, gen, r);
	}
	for (unsigned i = 0; i < m->nr; i++)
		hand_back(m, i);
}

static void *mover_thread(void *arg)
{
	struct mover *m = arg;
	unsigned gen;

	prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
	while (take(m))
		do_group(m);
	if (!cuda_enter(m->c, 0, &gen)) {
		if (m->gen == gen) {
			(void)cuda_drv.event_destroy(m->event);
			(void)cuda_drv.stream_destroy(m->stream);
		}
		cuda_leave(m->c, 0);
	}
	return NULL;
}

/* Signals are the core thread's: the threads start with all of them blocked. */
static int start_threads(struct cuda *c, unsigned nr)
{
	static const char *const name[NR_LANE] = { "kvmd-cuda-out", "kvmd-cuda-in", "kvmd-cuda-fast" };
	sigset_t all, old;
	int err = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	for (; !err && c->nr_movers < nr; c->nr_movers += !err) {
		struct mover *m = &c->mover[c->nr_movers];
		/* One for what is urgent, the others by turns. */
		unsigned lane = c->nr_movers ? (c->nr_movers - 1) % 2 : LANE_URGENT;

		m->c = c;
		m->lane = &c->lane[lane];
		err = -pthread_create(&m->thread, NULL, mover_thread, m);
		if (!err)
			pthread_setname_np(m->thread, name[lane]);
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return err;
}

int cuda_movers_start(struct cuda *c, unsigned copy_threads)
{
	unsigned nr = 2 * copy_threads + 1;
	int err;

	c->nr_movers = 0;
	c->mover = mem_calloc(nr, sizeof(*c->mover));
	if (!c->mover)
		return -ENOMEM;
	for (unsigned i = 0; i < NR_LANE; i++) {
		c->lane[i] = (struct lane) { .stop = false };
		pthread_mutex_init(&c->lane[i].lock, NULL);
		pthread_cond_init(&c->lane[i].wake, NULL);
	}
	err = start_threads(c, nr);
	if (err)
		cuda_movers_stop(c);
	return err;
}

void cuda_movers_stop(struct cuda *c)
{
	for (unsigned i = 0; i < NR_LANE; i++) {
		pthread_mutex_lock(&c->lane[i].lock);
		c->lane[i].stop = true;
		pthread_cond_broadcast(&c->lane[i].wake);
		pthread_mutex_unlock(&c->lane[i].lock);
	}
	for (unsigned i = 0; i < c->nr_movers; i++)
		pthread_join(c->mover[i].thread, NULL);
	for (unsigned i = 0; i < NR_LANE; i++) {
		pthread_cond_destroy(&c->lane[i].wake);
		pthread_mutex_destroy(&c->lane[i].lock);
	}
	mem_free(c->mover);
	c->mover = NULL;
	c->nr_movers = 0;
}
