/* SPDX-License-Identifier: Apache-2.0 */
/*
 * floor_srv.c - the floor server's loops.
 */
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tools/kvbench/bare.h"
#include "tools/kvbench/floor.h"

static struct bare pool[2];
static uint32_t ids[FLOOR_SEQS][FLOOR_KEYS];

static uint64_t work(struct floor_shm *s, const struct floor_req *r)
{
	struct bare *b = &pool[r->pool & 1];
	uint32_t *id = ids[r->seq % FLOOR_SEQS];
	int32_t *row = s->row[r->seq % FLOOR_SEQS];
	uint32_t nr = (uint32_t)r->nr;

	switch (r->op) {
	case FLOOR_OPEN:
		return bare_open(b, s->keys, nr, id, row);
	case FLOOR_CLOSE:
		return bare_close(b, id, nr);
	case FLOOR_ALLOC:
		return bare_alloc(b, id + r->first, nr, row + r->first);
	case FLOOR_FREE:
		return bare_free(b, id, nr);
	case FLOOR_PUBLISH:
		return bare_publish(b, id, s->keys, nr);
	case FLOOR_DROP:
		return bare_drop(b, id, nr);
	case FLOOR_LOOKUP:
		return r->pool ? bare_lookup_ahead(b, s->keys, nr) :
				 bare_lookup(b, s->keys, nr);
	case FLOOR_FILL:
		return bare_init(b, nr, (uint32_t)r->first);
	default:
		return 0;
	}
}

static bool mode_changed(const struct floor_shm *s, uint32_t mode)
{
	return ld_rlx(&s->mode) != mode;
}

/* Entries there are, at most @batch; 0: the mode changed. */
static uint32_t wait_entries(struct floor_shm *s, uint32_t mode, uint32_t head, uint32_t *tail,
			     uint32_t batch)
{
	uint32_t w = 0;

	if (*tail == head) {
		while ((*tail = ld_acq(&s->sq_tail)) == head) {
			if (mode_changed(s, mode))
				return 0;
			spin(&w);
		}
	}
	return min(*tail - head, batch);
}

static void serve_echo(struct floor_shm *s, uint32_t mode, uint32_t batch)
{
	uint32_t head = 0, tail = 0, n;

	while ((n = wait_entries(s, mode, head, &tail, batch))) {
		for (uint32_t k = 0; k < n; k++) {
			const uint64_t *e = s->sq[(head + k) & (FLOOR_SQ - 1)];
			uint64_t *c = s->cq[(head + k) & (FLOOR_CQ - 1)];

			c[0] = e[0];
			c[1] = e[1] + e[2];
			c[2] = e[3] + e[4];
			c[3] = e[5] + e[6] + e[7];
		}
		head += n;
		/* the answer first, then the places */
		st_rel(&s->cq_tail, head);
		st_rel(&s->sq_head, head);
	}
}

static void serve_phase(struct floor_shm *s, uint32_t mode, uint32_t batch)
{
	uint32_t head = 0, w = 0;

	for (;;) {
		uint32_t n = 0;

		for (; n < batch; n++, head++) {
			const uint64_t *e = s->sq[head & (FLOOR_SQ - 1)];
			uint64_t *c = s->cq[head & (FLOOR_CQ - 1)];

			if (ld_acq(&e[7]) != (uint64_t)head + 1)
				break;
			c[0] = e[0];
			c[1] = e[1] + e[2] + e[3];
			c[2] = e[4] + e[5] + e[6];
			st_rel(&c[3], (uint64_t)head + 1);
		}
		if (n) {
			st_rel(&s->sq_head, head);
			w = 0;
		} else if (mode_changed(s, mode)) {
			return;
		} else {
			spin(&w);
		}
	}
}

static void serve_work(struct floor_shm *s, uint32_t mode)
{
	uint32_t head = 0, tail = 0;

	while (wait_entries(s, mode, head, &tail, 1)) {
		uint64_t *c = s->cq[head & (FLOOR_CQ - 1)], t0;
		struct floor_req r;

		memcpy(&r, s->sq[head & (FLOOR_SQ - 1)], sizeof(r));
		t0 = ticks();
		c[1] = work(s, &r);
		c[2] = ticks() - t0;
		c[2] -= min(c[2], tick_cost);
		c[0] = r.op;
		c[3] = r.seq;
		head++;
		st_rel(&s->cq_tail, head);
		st_rel(&s->sq_head, head);
	}
}

void floor_serve(struct floor_shm *s)
{
	for (;;) {
		uint32_t mode = ld_acq(&s->mode);

		st_rel(&s->ack, mode);
		switch (mode & 0xff) {
		case FLOOR_ECHO:
			serve_echo(s, mode, s->batch);
			break;
		case FLOOR_PHASE:
			serve_phase(s, mode, s->batch);
			break;
		case FLOOR_WORK:
			serve_work(s, mode);
			break;
		case FLOOR_EXIT:
			_exit(0);
		default:
			syscall(SYS_futex, &s->mode, FUTEX_WAIT, mode, NULL, NULL, 0);
		}
	}
}
