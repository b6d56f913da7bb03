/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda_steps.c - rows for the GPU to read, steps that it completes.
 *
 * Two mappings of the session are registered with the driver when they are first
 * asked for: the tables, which this process may not write, and the page of steps.
 * Before such a mapping is replaced the registration goes, since it holds the old
 * pages; that of the steps, whose address stays, is made again at once.
 *
 * A lane is complete up to a step when all before it is: events of a lane count in
 * the order in which they were recorded, whatever streams they are on.
 */
#include <unistd.h>

#include "libkvclient/cuda.h"

/* ----------------------------------------------------------- registration */

static size_t whole_pages(size_t bytes)
{
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return (bytes + page - 1) / page * page;
}

/* Registers [p, p + bytes) for all GPUs. */
static int pin(struct kvci_cuda *c, void *p, size_t bytes, unsigned flags, const char *what)
{
	cu_ctx old;
	int err, r;

	err = kvci_cuda_enter(c, &c->gpu[0], &old);
	if (err)
		return err;
	r = c->cu->host_register(p, whole_pages(bytes), flags | CU_HOST_PORTABLE |
				 CU_HOST_DEVICEMAP);
	kvci_cuda_leave(c, old);
	return r ? kvci_cuda_fail(c, r, "cuMemHostRegister", "the %s, %zu bytes", what,
				  whole_pages(bytes)) : 0;
}

static void unpin(struct kvci_cuda *c, void *p)
{
	cu_ctx old;

	if (kvci_cuda_enter(c, &c->gpu[0], &old))
		return;
	c->cu->host_unregister(p);
	kvci_cuda_leave(c, old);
}

/* Device address of @p, which lies in registered memory. */
static int device_address(struct kvci_cuda *c, const void *p, uint64_t *ret_ptr)
{
	cu_ptr ptr;
	cu_ctx old;
	int err, r;

	err = kvci_cuda_enter(c, &c->gpu[0], &old);
	if (err)
		return err;
	r = c->cu->host_ptr(&ptr, (void *)(uintptr_t)p, 0);
	kvci_cuda_leave(c, old);
	if (r)
		return kvci_cuda_fail(c, r, "cuMemHostGetDevicePointer", "registered memory");
	*ret_ptr = ptr;
	return 0;
}

void kvci_cuda_unpin_tables(struct kvc *k)
{
	if (!k->cuda || !k->cuda->tables_pinned)
		return;
	unpin(k->cuda, k->tables);
	k->cuda->tables_pinned = false;
}

bool kvci_cuda_unpin_steps(struct kvc *k)
{
	if (!k->cuda || !k->cuda->steps_pinned)
		return false;
	unpin(k->cuda, k->steps);
	k->cuda->steps_pinned = false;
	return true;
}

int kvci_cuda_pin_steps(struct kvc *k)
{
	struct kvci_cuda *c = k->cuda;
	int err = c->steps_pinned ? 0 : pin(c, k->steps, sizeof(*k->steps), 0, "page of steps");

	c->steps_pinned |= !err;
	return err;
}

int kvc_cuda_rows(struct kvc *k, uint32_t group, uint64_t *ret_ptr)
{
	struct kvci_cuda *c = k->cuda;
	int err;

	if (!c)
		return -EOPNOTSUPP;
	if (!k->tables || group >= k->view.nr_groups)
		return k->tables ? -EINVAL : k->dead;
	for (uint32_t i = 0; i < c->nr_gpus; i++) {
		if (c->gpu[i].has_ro_register)
			continue;
		kvci_refuse("GPU %d cannot read memory that this process may not write: copy "
			    "the rows to it", c->gpu[i].ordinal);
		return -EOPNOTSUPP;
	}
	err = c->tables_pinned ? 0 : pin(c, k->tables, k->tables_bytes, CU_HOST_READ_ONLY,
					 "tables");
	if (err)
		return err;
	c->tables_pinned = true;
	return device_address(c, k->view.group[group].rows, ret_ptr);
}

int kvc_cuda_step_word(struct kvc *k, uint32_t lane, uint64_t *ret_ptr)
{
	int err;

	if (!k->cuda)
		return -EOPNOTSUPP;
	if (!k->steps || lane >= KVMD_MAX_LANES)
		return -EINVAL;
	err = kvci_cuda_pin_steps(k);
	return err ? err : device_address(k->cuda, &k->steps->lane[lane].completed_step, ret_ptr);
}

/* ----------------------------------------------------------------- streams */

/* Index of the GPU whose context the caller has current; else the first. */
static uint32_t likely_gpu(const struct kvci_cuda *c)
{
	cu_ctx now = NULL;

	if (c->cu->ctx_get(&now))
		return 0;
	for (uint32_t i = 0; i < c->nr_gpus; i++) {
		if (c->gpu[i].ctx == now)
			return i;
	}
	return 0;
}

/* The stream is another GPU's. */
static bool is_elsewhere(int r)
{
	return r == CU_INVALID_HANDLE || r == CU_INVALID_CONTEXT;
}

int kvc_cuda_step_write(struct kvc *k, uint32_t lane, uint64_t step, void *stream)
{
	struct kvci_cuda *c = k->cuda;
	int err, r = CU_INVALID_HANDLE;
	uint64_t word;
	uint32_t at;

	err = kvc_cuda_step_word(k, lane, &word);
	if (err)
		return err;
	at = likely_gpu(c);
	for (uint32_t i = 0; i < c->nr_gpus && is_elsewhere(r); i++) {
		const struct kvci_gpu *g = &c->gpu[(at + i) % c->nr_gpus];
		cu_ctx old;

		if (!g->has_write64) {
			kvci_refuse("GPU %d has no 64-bit stream writes", g->ordinal);
			return -EOPNOTSUPP;
		}
		err = kvci_cuda_enter(c, g, &old);
		if (err)
			return err;
		/* Its default is a fence over the system before the write. */
		r = c->cu->stream_write64(stream, word, step, 0);
		kvci_cuda_leave(c, old);
	}
	return r ? kvci_cuda_fail(c, r, "cuStreamWriteValue64", "step %llu of lane %u",
				  (unsigned long long)step, lane) : 0;
}

/* ------------------------------------------------------------------ events */

/* An event of @g's, recorded on @stream: CUresult. */
static int record_on(struct kvci_cuda *c, struct kvci_gpu *g, cu_stream stream, cu_event *ret_e)
{
	cu_event e;
	int r = 0;

	if (g->nr_spare)
		e = g->spare[--g->nr_spare];
	else
		r = c->cu->event_create(&e, CU_EVENT_NO_TIMING);
	if (r)
		return r;
	r = c->cu->event_record(e, stream);
	if (r) {
		g->spare[g->nr_spare++] = e;
		return r;
	}
	*ret_e = e;
	return 0;
}

int kvc_cuda_step_event(struct kvc *k, uint32_t lane, uint64_t step, void *stream)
{
	struct kvci_cuda *c = k->cuda;
	struct kvci_mark *m;
	int err, r = CU_INVALID_HANDLE;
	uint32_t at;

	if (!c)
		return -EOPNOTSUPP;
	if (!k->steps || lane >= KVMD_MAX_LANES)
		return -EINVAL;
	if (c->nr_marks == KVC_CUDA_EVENTS)
		return -EBUSY;
	m = &c->mark[c->nr_marks];
	at = likely_gpu(c);
	for (uint32_t i = 0; i < c->nr_gpus && is_elsewhere(r); i++) {
		cu_ctx old;

		m->gpu = (at + i) % c->nr_gpus;
		err = kvci_cuda_enter(c, &c->gpu[m->gpu], &old);
		if (err)
			return err;
		r = record_on(c, &c->gpu[m->gpu], stream, &m->event);
		kvci_cuda_leave(c, old);
	}
	if (r)
		return kvci_cuda_fail(c, r, "cuEventRecord", "step %llu of lane %u",
				      (unsigned long long)step, lane);
	m->step = step;
	m->lane = lane;
	c->nr_marks++;
	return 0;
}

/* 1 passed, 0 not yet, -errno. */
static int query(struct kvci_cuda *c, const struct kvci_mark *m)
{
	struct kvci_gpu *g = &c->gpu[m->gpu];
	cu_ctx old;
	int err, r;

	err = kvci_cuda_enter(c, g, &old);
	if (err)
		return err;
	r = c->cu->event_query(m->event);
	kvci_cuda_leave(c, old);
	if (r == CU_NOT_READY)
		return 0;
	if (r)
		return kvci_cuda_fail(c, r, "cuEventQuery", "step %llu of lane %u",
				      (unsigned long long)m->step, m->lane);
	g->spare[g->nr_spare++] = m->event;
	return 1;
}

int kvc_cuda_steps(struct kvc *k)
{
	struct kvci_cuda *c = k->cuda;
	uint32_t kept = 0, waits = 0;	/* bit per lane */
	int err = 0;

	if (!c)
		return -EOPNOTSUPP;
	for (uint32_t i = 0; i < c->nr_marks; i++) {
		const struct kvci_mark m = c->mark[i];
		int is = waits & 1u << m.lane ? 0 : query(c, &m);

		if (is > 0) {
			kvc_step_complete(k, m.lane, m.step);
			continue;
		}
		err = err ? err : is;
		waits |= 1u << m.lane;
		c->mark[kept++] = m;
	}
	c->nr_marks = kept;
	return err ? err : (int)kept;
}

_Static_assert(KVMD_MAX_LANES <= 32, "a bit per lane");

void kvci_cuda_steps_exit(struct kvc *k)
{
	struct kvci_cuda *c = k->cuda;

	if (!c)
		return;
	(void)kvc_cuda_steps(k);
	/* What has not passed is not waited for; the driver frees it when it has. */
	for (uint32_t i = 0; i < c->nr_marks; i++) {
		struct kvci_gpu *g = &c->gpu[c->mark[i].gpu];

		g->spare[g->nr_spare++] = c->mark[i].event;
	}
	c->nr_marks = 0;
	for (uint32_t i = 0; i < c->nr_gpus; i++) {
		struct kvci_gpu *g = &c->gpu[i];
		cu_ctx old;

		if (!g->nr_spare || kvci_cuda_enter(c, g, &old))
			continue;
		while (g->nr_spare)
			c->cu->event_destroy(g->spare[--g->nr_spare]);
		kvci_cuda_leave(c, old);
	}
}
