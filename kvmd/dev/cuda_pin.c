/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda_pin.c - host memory registered with the driver, for all GPUs at once.
 *
 * Registration is the process's: one open GPU's context makes it, portable to the
 * others. The table is sorted by address and read by movers; a range counts as
 * registered from the end of its registration on. When the context that made
 * it is replaced, ranges are off until a worker has registered them again, and copied
 * from and to as any other memory. Any thread.
 */
#include "kvmd/dev/cuda_int.h"

#include "kvmd/lib/err.h"
#include "kvmd/lib/mem.h"

struct pin {
	uintptr_t addr;
	uint64_t bytes;
	bool on;			/* registered */
};

static pthread_mutex_t op = PTHREAD_MUTEX_INITIALIZER;	/* one change at a time */
static pthread_rwlock_t table_lock = PTHREAD_RWLOCK_INITIALIZER;	/* what follows */
static struct pin *table;		/* by address */
static unsigned nr, nr_room;
static struct cuda *via;		/* registers; NULL: no GPU is open */

/* What was lost is registered again, by a worker: it takes 0.1 s a GiB. */
static struct {
	struct work work;
	struct workers *workers;
	bool posted, wanted;		/* atomic */
} again;

/* First entry that ends after @addr. */
static unsigned find(uintptr_t addr)
{
	unsigned lo = 0, hi = nr;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;

		if (table[mid].addr + table[mid].bytes <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

void cuda_pins_get(void)
{
	pthread_rwlock_rdlock(&table_lock);
}

void cuda_pins_put(void)
{
	pthread_rwlock_unlock(&table_lock);
}

uint64_t cuda_pin_span(uintptr_t addr, uint64_t bytes, uintptr_t *ret_id)
{
	unsigned i = find(addr);

	*ret_id = 0;
	if (i == nr)
		return bytes;
	if (table[i].addr > addr)
		return min(bytes, (uint64_t)(table[i].addr - addr));
	if (table[i].on)
		*ret_id = table[i].addr;
	return min(bytes, (uint64_t)(table[i].addr + table[i].bytes - addr));
}

/* 0 or -errno: a place for one more. Under op and, for the table, its lock. */
static int make_room(void)
{
	struct pin *t;

	if (nr < nr_room)
		return 0;
	t = mem_realloc(table, (nr_room + 64) * sizeof(*t));
	if (!t)
		return -ENOMEM;
	table = t;
	nr_room += 64;
	return 0;
}

static struct cuda *registrar(void)
{
	struct cuda *c;

	pthread_rwlock_rdlock(&table_lock);
	c = via;
	pthread_rwlock_unlock(&table_lock);
	return c;
}

static void set_on(uintptr_t addr, bool on)
{
	unsigned i;

	pthread_rwlock_wrlock(&table_lock);
	i = find(addr);
	if (i < nr && table[i].addr == addr)
		table[i].on = on;
	pthread_rwlock_unlock(&table_lock);
}

/* Register an entry of the table. op is held. 0 or -errno, with the CUresult (0: lost). */
static int register_mem(struct cuda *c, uintptr_t addr, uint64_t bytes, int *ret_r)
{
	unsigned gen;
	int r, err = cuda_enter(c, 0, &gen);

	*ret_r = 0;
	if (err)
		return err;
	r = cuda_drv.host_register((void *)addr, bytes, CU_HOST_PORTABLE | CU_HOST_DEVICEMAP);
	/* Before the context can go, which puts all off again. */
	if (!r)
		set_on(addr, true);
	cuda_leave(c, 0);
	*ret_r = r;
	return cuda_errno(r);
}

static void unregister_mem(struct cuda *c, void *mem)
{
	unsigned gen;

	if (!c || cuda_enter(c, 0, &gen))
		return;
	(void)cuda_drv.host_unregister(mem);
	cuda_leave(c, 0);
}

/* Put in a range that is registered; -EEXIST: it overlaps one that is there. */
static int insert(uintptr_t addr, uint64_t bytes)
{
	unsigned at;
	int err;

	pthread_rwlock_wrlock(&table_lock);
	at = find(addr);
	err = at < nr && table[at].addr < addr + bytes ? -EEXIST : make_room();
	if (!err) {
		memmove(&table[at + 1], &table[at], (nr - at) * sizeof(table[0]));
		table[at] = (struct pin) { .addr = addr, .bytes = bytes };
		nr++;
	}
	pthread_rwlock_unlock(&table_lock);
	return err;
}

/* Was it there, and was it registered? */
static bool take_out(uintptr_t addr, bool *ret_on)
{
	bool there;
	unsigned i;

	pthread_rwlock_wrlock(&table_lock);
	i = find(addr);
	there = i < nr && table[i].addr == addr;
	if (there) {
		*ret_on = table[i].on;
		memmove(&table[i], &table[i + 1], (--nr - i) * sizeof(table[0]));
	}
	pthread_rwlock_unlock(&table_lock);
	return there;
}

int cuda_host_pin(void *mem, uint64_t bytes, char *msg, size_t n)
{
	uintptr_t addr = (uintptr_t)mem;
	int err = 0, r;
	struct cuda *c;
	bool on;

	pthread_mutex_lock(&op);
	c = registrar();
	if (!c)
		goto out_unlock;
	err = insert(addr, bytes);
	if (err) {
		err_text(err, msg, n, err == -EEXIST ? "it is pinned already" : "out of memory");
		goto out_unlock;
	}
	err = register_mem(c, addr, bytes, &r);
	if (err) {
		take_out(addr, &on);
		err_text(err, msg, n, "cannot pin %llu MiB for the GPU: %s%s",
			 (unsigned long long)(bytes >> 20), r ? cu_error(&cuda_drv, r) :
			 "the GPU is lost",
			 r == CU_OUT_OF_MEMORY || r == CU_OPERATING_SYSTEM ?
			 ": raise the limit of locked memory (ulimit -l, LimitMEMLOCK=)" : "");
	}

out_unlock:
	pthread_mutex_unlock(&op);
	return err;
}

void cuda_host_unpin(void *mem)
{
	bool on = false;

	pthread_mutex_lock(&op);
	if (take_out((uintptr_t)mem, &on) && on)
		unregister_mem(registrar(), mem);
	pthread_mutex_unlock(&op);
}

/* ---------------------------------------------------------- registered again */

/* The next range from *@at on that is off, registered; false: there is none. */
static bool again_one(uintptr_t *at)
{
	uint64_t bytes = 0;
	struct cuda *c;
	unsigned i;
	int r;

	pthread_mutex_lock(&op);
	pthread_rwlock_rdlock(&table_lock);
	c = via;
	for (i = find(*at); c && i < nr; i++)
		if (!table[i].on) {
			*at = table[i].addr;
			bytes = table[i].bytes;
			break;
		}
	pthread_rwlock_unlock(&table_lock);
	if (bytes) {
		(void)register_mem(c, *at, bytes, &r);
		/* What the driver still knows is as good. */
		if (r == CU_ALREADY_REGISTERED)
			set_on(*at, true);
		*at += bytes;
	}
	pthread_mutex_unlock(&op);
	return bytes;
}

static void all_again(void)
{
	uintptr_t at = 0;

	while (again_one(&at))
		;
}

static void again_fn(struct work *w)
{
	(void)w;
	while (__atomic_exchange_n(&again.wanted, false, __ATOMIC_SEQ_CST))
		all_again();
}

/* What was asked for while it ended is done by the next. */
static void again_done(struct work *w)
{
	(void)w;
	__atomic_store_n(&again.posted, false, __ATOMIC_SEQ_CST);
	if (ld_rlx(&again.wanted))
		cuda_pins_again(again.workers);
}

void cuda_pins_again(struct workers *w)
{
	__atomic_store_n(&again.wanted, true, __ATOMIC_SEQ_CST);
	if (__atomic_exchange_n(&again.posted, true, __ATOMIC_SEQ_CST))
		return;
	again.workers = w;
	again.work.fn = again_fn;
	again.work.done = again_done;
	workers_submit(w, &again.work);
}

/* ------------------------------------------------------- GPUs that come and go */

void cuda_pins_join(struct cuda *c)
{
	pthread_rwlock_wrlock(&table_lock);
	if (!via) {
		via = c;
		again.posted = again.wanted = false;	/* dropped by a former pool of workers */
	}
	pthread_rwlock_unlock(&table_lock);
	all_again();
}

bool cuda_pins_via(const struct cuda *c)
{
	bool any = false;

	pthread_rwlock_rdlock(&table_lock);
	for (unsigned i = 0; c == via && i < nr && !any; i++)
		any = table[i].on;
	pthread_rwlock_unlock(&table_lock);
	return any;
}

/* Under the table's lock: another GPU that is there. */
static struct cuda *other_gpu(const struct cuda *c)
{
	for (unsigned i = 0; i < CUDA_MAX_GPUS; i++)
		if (&cuda_gpu[i] != c && ld_rlx(&cuda_gpu[i].open) && !ld_rlx(&cuda_gpu[i].lost))
			return &cuda_gpu[i];
	return NULL;
}

void cuda_pins_lost(struct cuda *c)
{
	pthread_rwlock_wrlock(&table_lock);
	if (via == c) {
		for (unsigned i = 0; i < nr; i++)
			table[i].on = false;
		if (c->lost)
			via = other_gpu(c);
	}
	pthread_rwlock_unlock(&table_lock);
}

void cuda_pins_part(struct cuda *c)
{
	uint64_t locked;

	if (cuda_enter_alone(c, CUDA_ALL_GPUS, 0, CU_OK, &locked))
		return;		/* lost: it registers nothing any more */
	pthread_rwlock_wrlock(&table_lock);
	if (via == c) {
		for (unsigned i = 0; i < nr; i++) {
			if (table[i].on)
				(void)cuda_drv.host_unregister((void *)table[i].addr);
			table[i].on = false;
		}
		via = other_gpu(c);
		if (!nr) {
			mem_free(table);
			table = NULL;
			nr_room = 0;
		}
	}
	pthread_rwlock_unlock(&table_lock);
	cuda_leave_alone(locked);
	all_again();
}
