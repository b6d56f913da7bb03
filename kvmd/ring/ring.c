/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ring.c - creating rings, waking clients, fetching arguments.
 */
#include "kvmd/ring/ring.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kvmd/lib/mem.h"

uint32_t ring_sq_off(void)
{
	return sizeof(struct kvmd_ring);
}

uint32_t ring_cq_off(const struct ring *r)
{
	return ring_sq_off() + (r->sq_mask + 1) * (uint32_t)sizeof(struct kvmd_sqe);
}

int ring_create(uint32_t sq_entries, uint32_t cq_entries, struct ring *ret_r)
{
	struct ring r = { .sq_mask = sq_entries - 1, .cq_mask = cq_entries - 1 };
	void *map;
	int err;

	r.bytes = align_up(ring_cq_off(&r) + cq_entries * sizeof(struct kvmd_cqe), 4096);
	r.fd = mem_fd_create("kvmd-ring", r.bytes, false, &map);
	if (r.fd < 0)
		return r.fd;
	err = mem_fd_seal(r.fd, false);
	if (err) {
		munmap(map, r.bytes);
		close(r.fd);
		return err;
	}
	mem_populate(map, r.bytes, 1);
	r.sh = map;
	r.sqe = (struct kvmd_sqe *)(void *)((char *)map + ring_sq_off());
	r.cqe = (struct kvmd_cqe *)(void *)((char *)map + ring_cq_off(&r));
	*ret_r = r;
	return 0;
}

void ring_destroy(struct ring *r)
{
	if (!r->sh)
		return;
	munmap(r->sh, r->bytes);
	close(r->fd);
	r->sh = NULL;
}

void ring_wake(struct ring *r)
{
	syscall(SYS_futex, &r->sh->cq_tail, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void ring_fetch(void *dst, const void *src, size_t bytes)
{
	memcpy(dst, src, bytes);
	barrier();	/* as in ring_take(): nobody goes back to the shared bytes */
}
