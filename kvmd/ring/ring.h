/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ring.h - the daemon's side of one session's rings.
 *
 * Shared memory is read once into a private copy and never looked at again;
 * the daemon's own indices live here, never in the shared page. An index of
 * the client that cannot be (more entries than the ring holds) is -EPROTO and
 * ends the session. Core thread only.
 *
 * Acquire/release pairs: ring_poll()'s load of sq_tail or of an entry's pos
 * with the client's store of it; the client's load of cq_tail or of a
 * completion's pos with ring_complete() and ring_flush().
 */
#ifndef KVMD_RING_RING_H
#define KVMD_RING_RING_H

#include "kvmd/lib/base.h"
#include "kvmd/wire.h"

struct ring {
	struct kvmd_ring *sh;		/* shared */
	struct kvmd_sqe *sqe;
	struct kvmd_cqe *cqe;
	uint32_t sq_mask, cq_mask;
	uint32_t sq_head;		/* entries taken */
	uint32_t sq_seen;		/* entries known to be there */
	uint32_t cq_tail;		/* completions written */
	uint32_t cq_flushed;		/* of those published by cq_tail */
	uint32_t cq_head;		/* client's, as last read */
	uint32_t sq_published;		/* sq_head the client was told */
	bool use_pos;			/* the client fills pos words (KVMD_FEAT_POS) */
	bool bulk;			/* entries come in batches, or no pos: look at the tail */
	int fd;
	uint64_t bytes;
};

/* memfd with both rings, sealed. 0 or -errno. */
int ring_create(uint32_t sq_entries, uint32_t cq_entries, struct ring *ret_r);
/*
 * The rings of a former daemon's session, empty. Owns @fd on success; -EINVAL: it
 * has another size.
 */
int ring_attach(int fd, uint32_t sq_entries, uint32_t cq_entries, struct ring *ret_r);
/* The daemon's part of the shared head as on the first day; the client does its own. */
void ring_rewind(struct ring *r);
void ring_destroy(struct ring *r);
uint32_t ring_sq_off(void);
uint32_t ring_cq_off(const struct ring *r);

/*
 * Entries to take: 0 if none, -EPROTO for an impossible index. While a client
 * submits one at a time its entry's own pos word is polled, which costs one
 * cache line instead of two; the tail is read in bulk.
 */
static inline int ring_poll(struct ring *r)
{
	uint32_t nr = r->sq_seen - r->sq_head, tail;

	if (nr)
		return (int)nr;
	if (!r->bulk) {
		if (ld_acq(&r->sqe[r->sq_head & r->sq_mask].pos) != r->sq_head + 1)
			return 0;
		r->sq_seen = r->sq_head + 1;
		return 1;
	}
	tail = ld_acq(&r->sh->sq_tail);
	nr = tail - r->sq_head;
	if (unlikely(nr > r->sq_mask + 1))
		return -EPROTO;
	r->sq_seen = tail;
	return (int)nr;
}

/*
 * Before the daemon sleeps: does the tail say that entries are there? Then the
 * next ring_poll() goes by the tail, so that one without entries whose pos
 * words agree is found out. A tail behind what was found by pos is a store on
 * its way, whose writer looks at the flags afterwards.
 */
static inline bool ring_peek_tail(struct ring *r)
{
	uint32_t nr = ld_acq(&r->sh->sq_tail) - r->sq_head;

	if (!nr || (r->use_pos && nr >= UINT32_MAX - r->sq_mask))
		return false;
	r->bulk = true;
	return true;
}

/* After a single entry was answered: are more there already? Decides bulk. */
static inline int ring_poll_more(struct ring *r)
{
	uint32_t tail = ld_acq(&r->sh->sq_tail), nr = tail - r->sq_head;

	/* Entries that were found by their pos may be ahead of the tail's store. */
	if (r->use_pos && nr >= UINT32_MAX - r->sq_mask)
		nr = 0;
	if (unlikely(nr > r->sq_mask + 1))
		return -EPROTO;
	r->bulk = nr > 1 || !r->use_pos;
	r->sq_seen = r->sq_head + nr;
	return (int)nr;
}

/*
 * Private copy of the next entry; ring_poll() said that it is there. The
 * barrier keeps the compiler from going back to the shared entry: from here on
 * only the copy exists. (Word by word atomic loads would do the same, but the
 * check's wider loads would then stall on the narrow stores.)
 */
static inline void ring_take(struct ring *r, struct kvmd_sqe *ret_e)
{
	memcpy(ret_e, &r->sqe[r->sq_head & r->sq_mask], sizeof(*ret_e));
	barrier();
	r->sq_head++;
}

/* Read the client's head; nonsense leaves no room, which is nobody else's loss. */
static inline void ring_read_cq_head(struct ring *r)
{
	/* Pairs with the client's release of the places it has read. */
	r->cq_head = ld_acq(&r->sh->cq_head);
	if (r->cq_tail - r->cq_head > r->cq_mask + 1)
		r->cq_head = r->cq_tail - (r->cq_mask + 1);
}

/* Places for completions, @parked of which are promised. Reads the client's head when short. */
static inline uint32_t ring_cq_room(struct ring *r, uint32_t parked, uint32_t want)
{
	uint32_t size = r->cq_mask + 1, used = r->cq_tail - r->cq_head + parked;

	if (likely(size - used >= want && used <= size))
		return size - used;
	ring_read_cq_head(r);
	used = r->cq_tail - r->cq_head + parked;
	return used < size ? size - used : 0;
}

/* Write one completion; visible to a client that polls pos, and to all at ring_flush(). */
static inline void ring_complete(struct ring *r, const struct kvmd_cqe *c)
{
	struct kvmd_cqe *d = &r->cqe[r->cq_tail & r->cq_mask];

	d->user_data = c->user_data;
	d->res = c->res;
	d->flags = c->flags;
	d->resv = 0;
	d->v0 = c->v0;
	d->v1 = c->v1;
	d->v2 = c->v2;
	r->cq_tail++;
	st_rel(&d->pos, r->cq_tail);
}

/*
 * Publish completions and give submission places back. True: the client sleeps
 * and has to be woken by ring_wake().
 */
static inline bool ring_flush(struct ring *r)
{
	bool fresh = r->cq_tail != r->cq_flushed;

	if (fresh) {
		st_rel(&r->sh->cq_tail, r->cq_tail);
		r->cq_flushed = r->cq_tail;
	}
	if (r->sq_published != r->sq_head) {
		st_rel(&r->sh->sq_head, r->sq_head);
		r->sq_published = r->sq_head;
	}
	if (!fresh)
		return false;
	smp_mb();	/* tail store before flag load; pairs with the client's fence */
	return ld_rlx(&r->sh->client_flags) & KVMD_RING_NEED_WAKEUP;
}

void ring_wake(struct ring *r);		/* futex; one system call */

/* Copy @bytes (multiple of 8) out of an args area, once. */
void ring_fetch(void *dst, const void *src, size_t bytes);

/* One key, for a caller that looks at each once; see ring_take() for the barrier. */
static inline void ring_fetch_key(uint8_t *dst, const void *src)
{
	memcpy(dst, src, KVMD_KEY_BYTES);
	barrier();
}

#endif
