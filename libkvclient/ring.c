/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ring.c - entries out, completions in.
 *
 * Ordering, each with its partner in the daemon:
 *
 *	client						daemon
 *	fill entry					load pos or sq_tail, acquire
 *	store pos, sq_tail: release			copy entry
 *	full fence					store completion, pos, cq_tail: release
 *	load daemon_flags				full fence
 *	NEED_WAKEUP: write the bell			load client_flags
 *							NEED_WAKEUP: futex-wake cq_tail
 *
 * Sleeping: store client_flags, full fence, look again, futex-wait on cq_tail
 * with the value seen before that look. The fences on both sides make one of
 * the two see the other's store. News do not change cq_tail, so a wake-up for
 * them may be missed between the look and the wait; slices bound that, and
 * show a daemon that was killed.
 *
 * A completion counts as there when its pos word says so, or when it is below
 * cq_tail. Both are looked at, see KVCI_POS_DEPTH; cq_head may thus be ahead of
 * a cq_tail that the daemon is about to store.
 */
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "libkvclient/internal.h"

#define SPINS_HARD	64u		/* looks before the first pause instruction */
#define SPINS_CLOCK	64u		/* looks between two readings of the clock */
#define SPINS_SOCK	(1u << 20)	/* looks between two of the socket, in long spins */

static bool is_pow2(uint32_t v)
{
	return v && !(v & (v - 1));
}

int kvci_ring_init(struct kvc *k, const struct kvmd_hello_reply *r)
{
	char *base = (char *)k->ring;

	if (!is_pow2(r->sq_entries) || !is_pow2(r->cq_entries) || r->sq_entries > KVMD_MAX_SQ ||
	    r->cq_entries > KVMD_MAX_CQ || r->sq_off % 64 || r->cq_off % 64 ||
	    r->sq_off + (uint64_t)r->sq_entries * sizeof(struct kvmd_sqe) > r->ring_bytes ||
	    r->cq_off + (uint64_t)r->cq_entries * sizeof(struct kvmd_cqe) > r->ring_bytes)
		return -EPROTO;
	k->sq = (struct kvmd_sqe *)(void *)(base + r->sq_off);
	k->cq = (struct kvmd_cqe *)(void *)(base + r->cq_off);
	k->sq_entries = r->sq_entries;
	k->sq_mask = r->sq_entries - 1;
	k->cq_mask = r->cq_entries - 1;
	k->sq_taken = k->sq_tail = k->sq_head = 0;
	k->cq_head = k->cq_tail = 0;
	k->use_pos = r->features & KVMD_FEAT_POS;
	k->has_peeked = false;
	k->idle_peeks = 0;
	k->control_dirty = true;	/* have a look at the first peek */
	k->control_seq = 0;
	k->news_seq = ld_acq(&k->ring->news_seq);
	k->stash.head = k->stash.tail = 0;
	return kvci_sent_init(&k->sent, r->features & KVMD_FEAT_RESUME ?
			      r->sq_entries + r->cq_entries : 0);
}

/* ------------------------------------------------------------ submission */

struct kvmd_sqe *kvc_get_sqe(struct kvc *k)
{
	struct kvmd_sqe *e;

	if (unlikely(k->sq_taken - k->sq_head >= k->sq_entries)) {
		if (!k->ring)
			return NULL;
		/* acquire: pairs with the daemon's release once it has copied entries */
		k->sq_head = ld_acq(&k->ring->sq_head);
		if (k->sq_taken - k->sq_head >= k->sq_entries)
			return NULL;
	}
	e = &k->sq[k->sq_taken++ & k->sq_mask];
	memset(e, 0, offsetof(struct kvmd_sqe, pos));
	return e;
}

void kvci_bell(const struct kvc *k)
{
	const uint64_t one = 1;
	ssize_t n;

	/* Not blocking: a full counter rings as well. */
	n = write(k->bell, &one, sizeof(one));
	(void)n;
}

int kvc_submit(struct kvc *k)
{
	uint32_t from = k->sq_tail, to = k->sq_taken;

	if (unlikely(!k->ring || k->dead))
		return k->dead ? k->dead : -EINVAL;
	if (from == to)
		return 0;
	for (uint32_t i = from; i != to; i++) {
		struct kvmd_sqe *e = &k->sq[i & k->sq_mask];

		if (likely(k->sent.size))
			kvci_sent_put(&k->sent, e->user_data);
		st_rel(&e->pos, i + 1);
	}
	st_rel(&k->ring->sq_tail, to);
	k->sq_tail = to;
	smp_mb();
	if (ld_rlx(&k->ring->daemon_flags) & KVMD_RING_NEED_WAKEUP)
		kvci_bell(k);
	return (int)(to - from);
}

/* ------------------------------------------------------------ completion */

bool kvci_cq_ready(struct kvc *k)
{
	uint32_t head = k->cq_head;

	if ((int32_t)(k->cq_tail - head) > 0)
		return true;
	/* Each entry has one completion: the difference is what is unanswered. */
	if (k->use_pos && k->sq_tail - head <= KVCI_POS_DEPTH)
		return ld_acq(&k->cq[head & k->cq_mask].pos) == head + 1;
	k->cq_tail = ld_acq(&k->ring->cq_tail);
	return (int32_t)(k->cq_tail - head) > 0;
}

static inline bool news(const struct kvc *k)
{
	return ld_rlx(&k->ring->news_seq) != k->news_seq || k->control_dirty;
}

/* As news(), but not for what only a full socket holds up. */
static inline bool fresh_news(const struct kvc *k)
{
	return ld_rlx(&k->ring->news_seq) != k->news_seq || (k->control_dirty && !k->has_ack);
}

/*
 * Release: the daemon may write over the completions below. An entry is taken
 * only when its completion has a place; with more entries unanswered than there
 * are places the daemon may have gone to sleep over the rest.
 */
static inline void cq_advance(struct kvc *k, uint32_t nr)
{
	bool full = k->sq_tail - k->cq_head > k->cq_mask + 1;

	k->cq_head += nr;
	st_rel(&k->ring->cq_head, k->cq_head);
	if (likely(!full))
		return;
	smp_mb();	/* head before flag; the daemon: flag, fence, head */
	if (ld_rlx(&k->ring->daemon_flags) & KVMD_RING_NEED_WAKEUP)
		kvci_bell(k);
}

static bool stash_empty(const struct kvci_stash *s)
{
	return s->head == s->tail;
}

/* Room for @nr more, so that kvci_stash_put() cannot fail. */
int kvci_stash_reserve(struct kvci_stash *s, uint32_t nr)
{
	uint32_t have = s->tail - s->head, size = s->size ? s->size : 64;
	struct kvmd_cqe *cqe;

	if (have + nr <= s->size)
		return 0;
	while (size < have + nr)
		size *= 2;
	cqe = (struct kvmd_cqe *)malloc(size * sizeof(*cqe));
	if (!cqe)
		return -ENOMEM;
	for (uint32_t i = 0; i < have; i++)
		cqe[i] = s->cqe[(s->head + i) & (s->size - 1)];
	free(s->cqe);
	s->cqe = cqe;
	s->size = size;
	s->head = 0;
	s->tail = have;
	return 0;
}

void kvci_stash_put(struct kvci_stash *s, const struct kvmd_cqe *c)
{
	s->cqe[s->tail++ & (s->size - 1)] = *c;
}

/* Nothing came for long: is anybody there? */
static bool gone(struct kvc *k)
{
	if (k->dead)
		return true;
	if (!kvci_hung_up(k->sock))
		return false;
	kvci_die(k, "the daemon is gone");
	return true;
}

int kvc_peek_cqe(struct kvc *k, const struct kvmd_cqe **ret_cqe)
{
	if (unlikely(!stash_empty(&k->stash))) {
		k->peeked = k->stash.cqe[k->stash.head & (k->stash.size - 1)];
		goto out;
	}
	if (unlikely(!k->ring))
		return k->dead ? k->dead : -EINVAL;
	if (unlikely(news(k)))
		kvci_news(k);	/* the end shows below, behind the last completion */
	if (!kvci_cq_ready(k)) {
		if (k->dead)
			return k->dead;
		if (++k->idle_peeks < KVCI_IDLE_PEEKS)
			return -EAGAIN;
		k->idle_peeks = 0;
		if (!gone(k))
			return -EAGAIN;
		if (!kvci_cq_ready(k))
			return k->dead;
	}
	k->idle_peeks = 0;
	k->peeked = k->cq[k->cq_head & k->cq_mask];
out:
	k->has_peeked = true;
	*ret_cqe = &k->peeked;
	return 0;
}

void kvc_cqe_seen(struct kvc *k)
{
	if (!k->has_peeked)
		return;
	k->has_peeked = false;
	/* A synchronous call since the peek moved it into the stash, in front. */
	if (unlikely(!stash_empty(&k->stash))) {
		k->stash.head++;
		return;
	}
	if (likely(k->sent.size))
		kvci_sent_done(&k->sent, k->peeked.user_data);
	cq_advance(k, 1);
}

int kvc_reap(struct kvc *k, struct kvmd_cqe *cqes, unsigned max)
{
	const struct kvmd_cqe *c;
	uint32_t n = 0, nr;
	int err;

	if (!max)
		return 0;
	k->has_peeked = false;
	while (n < max && !stash_empty(&k->stash))
		cqes[n++] = k->stash.cqe[k->stash.head++ & (k->stash.size - 1)];
	if (n)
		return (int)n;
	err = kvc_peek_cqe(k, &c);
	k->has_peeked = false;
	if (err)
		return err == -EAGAIN ? 0 : err;
	nr = k->cq_tail - k->cq_head;
	if ((int32_t)nr <= 0) {
		k->has_peeked = true;
		cqes[0] = *c;
		kvc_cqe_seen(k);
		return 1;
	}
	if (nr > max)
		nr = max;
	for (; n < nr; n++) {
		cqes[n] = k->cq[(k->cq_head + n) & k->cq_mask];
		if (likely(k->sent.size))
			kvci_sent_done(&k->sent, cqes[n].user_data);
	}
	cq_advance(k, nr);
	return (int)nr;
}

/* --------------------------------------------------------------- waiting */

static void futex_wait(uint32_t *word, uint32_t val, uint64_t ns)
{
	struct timespec ts = {
		.tv_sec = (time_t)(ns / 1000000000ull),
		.tv_nsec = (long)(ns % 1000000000ull),
	};

	/* Every reason to return is a reason to look again. */
	syscall(SYS_futex, word, FUTEX_WAIT, val, &ts, NULL, 0);
}

/* Spins until something is there (true) or it is time to sleep. */
static bool spin(struct kvc *k, uint64_t deadline_ns)
{
	uint64_t start = 0, now;

	for (uint32_t i = 1;; i++) {
		if (kvci_cq_ready(k) || fresh_news(k))
			return true;
		if (i % SPINS_SOCK == 0 && gone(k))
			return true;
		if (i < SPINS_HARD)
			continue;
		cpu_relax();
		if (i % SPINS_CLOCK)
			continue;
		now = kvci_now();
		if (!start)
			start = now;
		if (now - start >= k->spin_ns || now >= deadline_ns)
			return false;
	}
}

/* Sleeps for one slice at most; false: the deadline passed. */
static bool nap(struct kvc *k, uint64_t deadline_ns)
{
	uint32_t *word = &k->ring->cq_tail, val;
	uint64_t now = kvci_now(), ns = KVCI_SLICE_NS;

	if (now >= deadline_ns)
		return false;
	if (ns > deadline_ns - now)
		ns = deadline_ns - now;
	st_rlx(&k->ring->client_flags, KVMD_RING_NEED_WAKEUP);
	smp_mb();
	val = ld_acq(word);
	if (!kvci_cq_ready(k) && !fresh_news(k))
		futex_wait(word, val, ns);
	st_rlx(&k->ring->client_flags, 0);
	return true;
}

/*
 * Until a completion is there (0), the session is over (-ECONNRESET), or
 * @deadline_ns (-ETIMEDOUT). Announcements are handled meanwhile.
 */
int kvci_cq_wait(struct kvc *k, uint64_t deadline_ns)
{
	bool asleep = false;

	for (;;) {
		if (news(k))
			kvci_news(k);
		if (kvci_cq_ready(k))
			return 0;
		if (k->dead)
			return k->dead;
		if (!asleep && spin(k, deadline_ns))
			continue;
		asleep = true;
		if (!nap(k, deadline_ns))
			return -ETIMEDOUT;
		if (!kvci_cq_ready(k))
			gone(k);
	}
}

int kvc_wait_cqe(struct kvc *k, uint64_t timeout_ns, const struct kvmd_cqe **ret_cqe)
{
	uint64_t deadline = KVCI_NO_DEADLINE;
	int err;

	err = kvc_peek_cqe(k, ret_cqe);
	if (err != -EAGAIN || !timeout_ns)
		return err == -EAGAIN ? -ETIMEDOUT : err;
	if (timeout_ns != UINT64_MAX)
		deadline = kvci_deadline(timeout_ns);
	err = kvci_cq_wait(k, deadline);
	return err ? err : kvc_peek_cqe(k, ret_cqe);
}
