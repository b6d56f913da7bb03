// SPDX-License-Identifier: Apache-2.0
/*
 * entry.c - the way in: look-up of functions, cuInit(), what every call goes through.
 */
#include <stdlib.h>
#include <unistd.h>

#include "tests/fakecuda/fake.h"

struct fc fc = { .lock = PTHREAD_MUTEX_INITIALIZER };
__thread struct fc_ctx *fc_current;

static pthread_once_t conf_once = PTHREAD_ONCE_INIT;
static bool conf_bad;

static const struct {
	const char *name;
	int version;
	void *fn;
} table[NR_FC_FN] = {
#define X(member, name, version, args) { name, version, (void *)fc_##member },
	FC_FUNCS(X)
#undef X
};

const char *fc_fn_name(enum fc_fn fn)
{
	return table[fn].name;
}

/* CUDA does not survive fork(): a child of a process that used it has none. */
static void in_child(void)
{
	if (fc.inited)
		fc.forked = true;
}

/* CUDA_VISIBLE_DEVICES: the process' own order, hence no ordinals in protocols (1.6). */
static void find_visible(void)
{
	const char *s = getenv("CUDA_VISIBLE_DEVICES");
	char *end;
	long n;

	for (unsigned i = 0; !s && i < fc.conf.gpus; i++)
		fc.visible[fc.nr_gpus++] = i;
	while (s && *s && fc.nr_gpus < FC_MAX_GPUS) {
		n = strtol(s, &end, 10);
		if (end == s || n < 0 || n >= (long)fc.conf.gpus)
			break;
		fc.visible[fc.nr_gpus++] = n;
		s = *end == ',' ? end + 1 : end;
	}
}

static void read_conf(void)
{
	pthread_condattr_t a;

	pthread_condattr_init(&a);
	pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
	pthread_cond_init(&fc.done, &a);
	pthread_condattr_destroy(&a);
	conf_bad = fc_conf_read(&fc.conf, getenv("KVMD_FAKECUDA"));
	if (!conf_bad)
		find_visible();
	pthread_atfork(NULL, NULL, in_child);
}

cu_get_proc_fn cuGetProcAddress_v2;

/*
 * The newest that is not newer than asked for: one name has several signatures (the
 * two cuMemcpyBatchAsync, 1.8). What is unknown or newer than the driver is not found.
 */
int cuGetProcAddress_v2(const char *name, void **ret, int version, uint64_t flags, int *why)
{
	int best = -1, status = 1;	/* SYMBOL_NOT_FOUND */

	(void)flags;
	pthread_once(&conf_once, read_conf);
	for (int i = 0; i < NR_FC_FN; i++) {
		if (strcmp(table[i].name, name) || table[i].version > fc.conf.driver)
			continue;
		if (table[i].version > version && table[i].version > CU_MIN_DRIVER) {
			status = 2;	/* VERSION_NOT_SUFFICIENT */
			continue;
		}
		if (best < 0 || table[i].version > table[best].version)
			best = i;
	}
	if (version > fc.conf.driver)
		best = -1;
	if (why)
		*why = best < 0 ? status : 0;
	*ret = best < 0 ? NULL : table[best].fn;
	return best < 0 ? CU_NOT_FOUND : CU_OK;
}

static int start(void)
{
	const char *path = getenv("KVMD_FAKECUDA_STATE");
	struct fc_proc *slot = NULL, *p;

	fc.state = fc_state_open(path && *path ? path : NULL, true);
	if (!fc.state) {
		fprintf(stderr, "fakecuda: %s: %m\n", path ? path : "state");
		return CU_OPERATING_SYSTEM;
	}
	fc.pid = getpid();
	fc.start = fc_proc_start(fc.pid);
	fc_lock(fc.state);
	for (int i = 0; i < FC_MAX_PROCS; i++) {
		p = &fc.state->proc[i];
		if (p->pid == fc.pid) {
			slot = p;
			break;
		}
		if (!slot && !p->pid)
			slot = p;
	}
	for (int i = 0; !slot && i < FC_MAX_PROCS; i++)
		if (!fc_proc_start(fc.state->proc[i].pid))
			slot = &fc.state->proc[i];
	if (slot) {
		if (slot->pid != fc.pid || slot->start != fc.start)
			slot->calls = 0;
		slot->start = fc.start;
		slot->pid = fc.pid;
	}
	fc_unlock(fc.state);
	if (!slot)
		return CU_OUT_OF_MEMORY;
	fc.proc = slot;
	return CU_OK;
}

int fc_init(unsigned flags)
{
	int r = CU_OK;

	pthread_once(&conf_once, read_conf);
	if (fc.forked)
		return CU_NOT_INITIALIZED;
	if (conf_bad || flags)
		return CU_INVALID_VALUE;
	if (!fc.nr_gpus)
		return CU_NO_DEVICE;
	pthread_mutex_lock(&fc.lock);
	if (!fc.inited) {
		r = start();
		fc.inited = !r;
	}
	pthread_mutex_unlock(&fc.lock);
	return r ? r : fc_enter(FN_init);
}

/* What fails in the context's work, not what is refused before, poisons it (1.4). */
static bool poisons(enum fc_fn fn)
{
	switch (fn) {
	case FN_copy: case FN_copy_batch: case FN_copy_batch_v1: case FN_set8: case FN_launch:
	case FN_stream_query: case FN_stream_sync: case FN_event_query: case FN_event_sync:
	case FN_event_record: case FN_ctx_sync:
		return true;
	default:
		return false;
	}
}

int fc_enter(enum fc_fn fn)
{
	const struct fc_fail *f;
	uint64_t n;

	if (fc.forked || !__atomic_load_n(&fc.inited, __ATOMIC_ACQUIRE))
		return CU_NOT_INITIALIZED;
	n = __atomic_add_fetch(&fc.calls[fn], 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&fc.proc->calls, 1, __ATOMIC_RELAXED);
	/* Both cuMemcpyBatchAsync answer to the name. */
	if (fn == FN_copy_batch_v1)
		n += __atomic_load_n(&fc.calls[FN_copy_batch], __ATOMIC_RELAXED);
	for (unsigned i = 0; i < fc.conf.nr_fails; i++) {
		f = &fc.conf.fail[i];
		if (strcmp(table[f->fn].name, table[fn].name) || n < f->nth ||
		    n - f->nth >= f->count)
			continue;
		if (cu_is_sticky(f->code) && poisons(fn) && fc_current) {
			pthread_mutex_lock(&fc.lock);
			fc_poison(fc_current, f->code);
			pthread_mutex_unlock(&fc.lock);
		}
		return f->code;
	}
	return CU_OK;
}

int fc_enter_lock(enum fc_fn fn)
{
	int r = fc_enter(fn);

	if (!r)
		pthread_mutex_lock(&fc.lock);
	return r;
}

/*
 * Nothing works in a context after a fatal error of its work: "process must be
 * terminated and relaunched" [H 2834, 2855], or the context reset.
 */
int fc_enter_ctx(enum fc_fn fn, struct fc_ctx **ret)
{
	struct fc_ctx *c = fc_current;
	int r = fc_enter_lock(fn);

	if (r)
		return r;
	*ret = c;
	if (!c)
		return fc_leave(CU_INVALID_CONTEXT);
	if (c->dead)
		return fc_leave(CU_CONTEXT_IS_DESTROYED);
	return c->sticky ? fc_leave(c->sticky) : 0;
}

int fc_leave(int r)
{
	pthread_mutex_unlock(&fc.lock);
	return r;
}

int fc_physical(int dev)
{
	return dev >= 0 && dev < (int)fc.nr_gpus ? fc.visible[dev] : -1;
}

/* ------------------------------------------------------------ for tests */

uint64_t fakecuda_calls(const char *func)
{
	uint64_t n = 0;

	for (int i = 0; i < NR_FC_FN; i++)
		if (!func || !strcmp(func, table[i].name))
			n += __atomic_load_n(&fc.calls[i], __ATOMIC_RELAXED);
	return n;
}

void fakecuda_unhang(void)
{
	pthread_mutex_lock(&fc.lock);
	fc.unhangs = fc.nr_copies;
	pthread_cond_broadcast(&fc.done);
	pthread_mutex_unlock(&fc.lock);
}

void *fakecuda_peek(uint64_t ptr)
{
	struct fc_map *m;
	void *p;

	pthread_mutex_lock(&fc.lock);
	m = fc_map_at(ptr);
	p = m ? m->phys->alias + (ptr - m->ptr) : NULL;
	pthread_mutex_unlock(&fc.lock);
	return p;
}
