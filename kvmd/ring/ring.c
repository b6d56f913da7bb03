/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ring.c - creating rings, waking clients, fetching arguments.
 */
#include "kvmd/ring/ring.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
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

int ring_attach(int fd, uint32_t sq_entries, uint32_t cq_entries, struct ring *ret_r)
{
	struct ring r = { .sq_mask = sq_entries - 1, .cq_mask = cq_entries - 1, .fd = fd };
	struct stat st;
	void *map;

	r.bytes = align_up(ring_cq_off(&r) + cq_entries * sizeof(struct kvmd_cqe), 4096);
	if (fstat(fd, &st) || (uint64_t)st.st_size != r.bytes)
		return -EINVAL;
	map = mmap(NULL, r.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	r.sh = map;
	r.sqe = (struct kvmd_sqe *)(void *)((char *)map + ring_sq_off());
	r.cqe = (struct kvmd_cqe *)(void *)((char *)map + ring_cq_off(&r));
	*ret_r = r;
	return 0;
}

void ring_rewind(struct ring *r)
{
	struct kvmd_ring *sh = r->sh;

	r->sq_head = r->sq_seen = r->sq_published = 0;
	r->cq_tail = r->cq_flushed = r->cq_head = 0;
	r->bulk = !r->use_pos;
	st_rlx(&sh->sq_head, 0u);
	st_rlx(&sh->cq_tail, 0u);
	st_rlx(&sh->daemon_flags, 0u);
	st_rlx(&sh->pressure, 0u);
	st_rlx(&sh->control_seq, 0u);
	st_rlx(&sh->ended, 0);
	/* What an entry's place says of it is a client's who did not rewind: void. */
	for (uint32_t i = 0; i <= r->sq_mask; i++)
		st_rlx(&r->sqe[i].pos, 0u);
	st_rel(&sh->news_seq, sh->news_seq + 1);
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
