/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda_ctx.c - a GPU's context: its users, its end, the next one.
 *
 * Some errors (ECC, an illegal address) end a context: every call in it fails from
 * then on, for all threads. Device memory survives, since the exported handles hold
 * it. The first who sees such an error waits until nobody uses the context, resets
 * it, maps all extents again from their handles and goes on; the others find the
 * next generation. Memory registered with the old context is registered again
 * afterwards, by the way; until then copies with it are merely slower.
 *
 *	mover A				mover B
 *	enter (read)			enter (read)
 *	copy: ECC			copy: ECC, through no fault of its own
 *	leave				leave
 *	enter alone (write), gen is	...waits
 *	mine: rebuild; run my batches
 *	one by one; leave
 *					enter alone: gen is not mine, nothing to rebuild;
 *					run my batches one by one; leave
 *
 * Any thread but the core's, except init, open, close and cuda_account().
 */
#include "kvmd/dev/cuda_int.h"

#include <stdarg.h>
#include <time.h>

#include "kvmd/lib/stats.h"

static void news_done(struct work *w);

void cuda_ctx_init(struct cuda *c)
{
	pthread_rwlockattr_t a;

	/* A rebuild is not to wait for a stream of new readers. */
	pthread_rwlockattr_init(&a);
	pthread_rwlockattr_setkind_np(&a, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&c->lock, &a);
	pthread_rwlockattr_destroy(&a);
	pthread_mutex_init(&c->ext_lock, NULL);
	pthread_mutex_init(&c->news_lock, NULL);
	list_init(&c->extents);
	c->news.done = news_done;
}

/* ---------------------------------------------------------------------- news */

static uint64_t taken(uint64_t *count)
{
	return ld_rlx(count) ? __atomic_exchange_n(count, 0, __ATOMIC_RELAXED) : 0;
}

void cuda_account(struct cuda *c)
{
	uint64_t resets = taken(&c->nr_resets);

	stat_add(DEV_COPY_GROUPS, taken(&c->nr_groups));
	stat_add(DEV_COPIES_MERGED, taken(&c->nr_merged));
	stat_add(DEV_COPY_TIMEOUTS, taken(&c->nr_timeouts));
	stat_add(DEV_RESETS, resets);
	if (c->d)
		c->d->nr_resets += resets;
}

static void news_done(struct work *w)
{
	struct cuda *c = container_of(w, struct cuda, news);
	struct dev *d = c->d;
	char text[CUDA_TEXT];

	pthread_mutex_lock(&c->news_lock);
	c->posted = false;
	memcpy(text, c->text, sizeof(text));
	pthread_mutex_unlock(&c->news_lock);
	cuda_account(c);
	if (!d)
		return;		/* closed meanwhile */
	d->down = ld_rlx(&c->lost);
	snprintf(d->text, sizeof(d->text), "%s", text);
	if (d->troubled)
		d->troubled(d);
}

void cuda_say(struct cuda *c, const char *fmt, ...)
{
	bool post;
	va_list ap;

	pthread_mutex_lock(&c->news_lock);
	va_start(ap, fmt);
	vsnprintf(c->text, sizeof(c->text), fmt, ap);
	va_end(ap);
	post = !c->posted;
	c->posted = true;
	pthread_mutex_unlock(&c->news_lock);
	if (post) {
		workers_adopt(c->workers);
		workers_finish(c->workers, &c->news);
	}
}

int cuda_errno(int r)
{
	switch (r) {
	case CU_OK:
		return 0;
	case CU_INVALID_VALUE:
	case CU_INVALID_HANDLE:
		return -EINVAL;
	case CU_OUT_OF_MEMORY:
		return -ENOMEM;
	case CU_DEVICE_UNAVAILABLE:
		return -ENODEV;
	case CU_ECC_UNCORRECTABLE:
	case CU_CONTAINED:
		return -EHWPOISON;
	case CU_NOT_PERMITTED:
		return -EPERM;
	case CU_NOT_SUPPORTED:
		return -EOPNOTSUPP;
	default:
		return -EIO;
	}
}

/* --------------------------------------------------------------------- users */

static void lock_all(uint64_t mask, bool write)
{
	for (; mask; mask &= mask - 1) {
		struct cuda *c = &cuda_gpu[__builtin_ctzll(mask)];

		if (write)
			pthread_rwlock_wrlock(&c->lock);
		else
			pthread_rwlock_rdlock(&c->lock);
	}
}

static void unlock_all(uint64_t mask)
{
	for (; mask; mask &= mask - 1)
		pthread_rwlock_unlock(&cuda_gpu[__builtin_ctzll(mask)].lock);
}

int cuda_enter(struct cuda *c, uint64_t also, unsigned *ret_gen)
{
	lock_all(also | cuda_bit(c), false);
	if (c->lost || !c->open) {
		unlock_all(also | cuda_bit(c));
		return -EIO;
	}
	/* A context that is broken says so at the next call. */
	(void)cuda_drv.ctx_set(c->ctx);
	*ret_gen = c->gen;
	return 0;
}

void cuda_leave(struct cuda *c, uint64_t also)
{
	unlock_all(also | cuda_bit(c));
}

/*
 * Host memory is registered through one GPU and used by all: when that one's
 * context is reset, nothing may be under way on any.
 */
static uint64_t lock_alone(const struct cuda *c, uint64_t also)
{
	uint64_t mask;

	for (;;) {
		mask = cuda_pins_via(c) ? CUDA_ALL_GPUS : also | cuda_bit(c);
		lock_all(mask, true);
		if (mask == CUDA_ALL_GPUS || !cuda_pins_via(c))
			return mask;
		unlock_all(mask);
	}
}

int cuda_enter_alone(struct cuda *c, uint64_t also, unsigned gen, int why, uint64_t *ret_locked)
{
	uint64_t locked = lock_alone(c, also);

	if (c->open && !c->lost && cu_is_sticky(why) && c->gen == gen)
		(void)cuda_rebuild(c, why);
	if (c->lost || !c->open) {
		cuda_leave_alone(locked);
		return -EIO;
	}
	(void)cuda_drv.ctx_set(c->ctx);
	*ret_locked = locked;
	return 0;
}

void cuda_leave_alone(uint64_t locked)
{
	unlock_all(locked);
}

int cuda_run(struct cuda *c, int (*fn)(struct cuda *c, void *arg), void *arg)
{
	uint64_t locked;
	unsigned gen;
	int r;

	if (cuda_enter(c, 0, &gen))
		return CU_DEVICE_UNAVAILABLE;
	r = fn(c, arg);
	cuda_leave(c, 0);
	if (!cu_is_sticky(r))
		return r;
	if (cuda_enter_alone(c, 0, gen, r, &locked))
		return CU_DEVICE_UNAVAILABLE;
	r = fn(c, arg);
	if (cu_is_sticky(r))
		(void)cuda_rebuild(c, r);
	cuda_leave_alone(locked);
	return r;
}

int cuda_stream_end(cu_stream s)
{
	const struct timespec pause = { .tv_nsec = 100000 };
	int r = cuda_drv.stream_sync(s), q = CU_NOT_READY;

	/* A wait that failed waited for nothing. What cannot be known ends with its context. */
	while (r && !cu_is_sticky(r) && q == CU_NOT_READY) {
		q = cuda_drv.stream_query(s);
		if (q == CU_NOT_READY)
			nanosleep(&pause, NULL);
		else if (q)
			r = cu_is_sticky(q) ? q : CU_UNKNOWN;
	}
	(void)cuda_drv.stream_destroy(s);
	return r;
}

/* ------------------------------------------------------------------ contexts */

int cuda_ctx_open(struct cuda *c)
{
	int r;

	pthread_rwlock_wrlock(&c->lock);
	r = cuda_drv.ctx_retain(&c->ctx, c->ord);
	if (!r) {
		r = cuda_drv.ctx_set(c->ctx);
		if (r)
			(void)cuda_drv.ctx_release(c->ord);
	}
	if (!r) {
		c->gen++;
		st_rlx(&c->open, true);
		st_rlx(&c->lost, false);
	}
	pthread_rwlock_unlock(&c->lock);
	return r;
}

void cuda_ctx_close(struct cuda *c)
{
	pthread_rwlock_wrlock(&c->lock);
	if (!c->lost) {
		(void)cuda_drv.ctx_set(c->ctx);
		cuda_extents_unmap(c);
		(void)cuda_drv.ctx_set(NULL);
		(void)cuda_drv.ctx_release(c->ord);
	}
	st_rlx(&c->open, false);
	c->ctx = NULL;
	pthread_rwlock_unlock(&c->lock);
}

/* A new context with all extents in it: a CUresult, with @ret_what failed. */
static int renew(struct cuda *c, const char **ret_what)
{
	int r;

	/*
	 * First, for copies may still be on their way: what they write must be mapped until
	 * they are ended. Both: our share of the context goes, and what others hold of it.
	 */
	(void)cuda_drv.ctx_release(c->ord);
	(void)cuda_drv.ctx_reset(c->ord);
	*ret_what = "a new context was refused";
	r = cuda_drv.ctx_retain(&c->ctx, c->ord);
	if (r)
		return r;
	c->gen++;
	r = cuda_drv.ctx_set(c->ctx);
	if (r)
		goto err_release;
	cuda_extents_unmap(c);
	*ret_what = c->legacy ? "its memory went with the context (ipc = legacy)" :
		    "its memory could not be mapped again";
	r = cuda_extents_remap(c);
	if (!r)
		return 0;

err_release:
	(void)cuda_drv.ctx_release(c->ord);
	return r;
}

int cuda_rebuild(struct cuda *c, int why)
{
	const char *what;
	int r;

	if (c->lost)
		return -EIO;
	if (cuda_pins_via(c)) {
		cuda_pins_lost(c);
		/* Its worker waits for us; copies do without until then. */
		cuda_pins_again(c->workers);
	}
	r = renew(c, &what);
	__atomic_fetch_add(&c->nr_resets, 1, __ATOMIC_RELAXED);
	if (r) {
		st_rlx(&c->lost, true);
		c->ctx = NULL;
		/* Host memory may be registered through another GPU now. */
		cuda_pins_lost(c);
		cuda_pins_again(c->workers);
		cuda_say(c, "lost after %s: %s (%s): restart the daemon; if that does not help, "
			 "reset the GPU", cu_error(&cuda_drv, why), what, cu_error(&cuda_drv, r));
		return -EIO;
	}
	cuda_say(c, "%s ended the context, it was made anew: see the kernel log for an Xid",
		 cu_error(&cuda_drv, why));
	return 0;
}
