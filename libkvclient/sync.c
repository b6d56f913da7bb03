/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sync.c - one entry, one wait.
 *
 * Each call marks its entry with a user_data of its own (top 16 bits set), waits
 * until the completion with that mark is the oldest in the ring, and puts those
 * of other entries aside, in order, for kvc_peek_cqe(). Room for these is made
 * before the entry is taken, so that nothing can fail half-way.
 */
#include <string.h>

#include "libkvclient/internal.h"

/* An entry's whole life on the caller's stack. */
struct call {
	struct kvmd_sqe *e;
	uint64_t tag;
	uint64_t off;		/* keys in the args area */
	bool has_args;
};

/* Takes what is in the ring into the stash; the entry marked @tag ends it: 1. */
static int collect(struct kvc *k, uint64_t tag, struct kvmd_cqe *ret_cqe)
{
	while (kvci_cq_ready(k)) {
		struct kvmd_cqe c = k->cq[k->cq_head & k->cq_mask];

		if (k->sent.size)
			kvci_sent_done(&k->sent, c.user_data);
		if (c.user_data != tag)
			kvci_stash_put(&k->stash, &c);
		/* release: the daemon may write over it */
		st_rel(&k->ring->cq_head, ++k->cq_head);
		if (c.user_data == tag) {
			*ret_cqe = c;
			return 1;
		}
	}
	return 0;
}

static int stash_reserve(struct kvc *k)
{
	return kvci_stash_reserve(&k->stash, k->sq_taken - k->cq_head);
}

/*
 * A free entry. With a full ring this waits until the daemon has taken some,
 * which it may only do when completions have a place.
 */
static int take_sqe(struct kvc *k, struct kvmd_sqe **ret_e)
{
	const struct timespec pause = { .tv_nsec = 20000 };
	struct kvmd_cqe none;
	struct kvmd_sqe *e;
	int err;

	for (;;) {
		err = stash_reserve(k);
		if (err)
			return err;
		e = kvc_get_sqe(k);
		if (e)
			break;
		err = kvc_submit(k);
		if (err < 0)
			return err;
		collect(k, UINT64_MAX, &none);
		err = kvci_news(k);
		if (err)
			return err;
		if (kvci_hung_up(k->sock)) {
			kvci_die(k, "the daemon is gone");
			return k->dead;
		}
		if (ld_acq(&k->ring->sq_head) == k->sq_head)
			nanosleep(&pause, NULL);
	}
	*ret_e = e;
	return 0;
}

static int begin(struct kvc *k, struct call *c)
{
	int err;

	memset(c, 0, sizeof(*c));
	if (k->dead)
		return k->dead;
	if (!k->ring)
		return -EINVAL;
	err = take_sqe(k, &c->e);
	if (err)
		return err;
	/* UINT64_MAX is nobody's: take_sqe() looks for it. */
	c->tag = KVCI_TAG << 48 | (++k->next_tag & 0x7fffffffffffull);
	return 0;
}

/* As begin(), with a copy of @nr keys in the args area. */
static int begin_keys(struct kvc *k, struct call *c, const void *keys, uint32_t nr)
{
	size_t bytes = (size_t)nr * KVMD_KEY_BYTES;
	uint64_t off = 0;
	void *p = NULL;
	int err;

	if (bytes > k->args_bytes)
		return k->dead ? k->dead : -E2BIG;
	if (bytes) {
		p = kvc_args_alloc(k, bytes, &off);
		if (!p)
			return k->dead ? k->dead : -ENOBUFS;
		memcpy(p, keys, bytes);
	}
	err = begin(k, c);
	if (err) {
		if (p)
			kvc_args_free(k, off);
		return err;
	}
	c->off = off;
	c->has_args = p != NULL;
	return 0;
}

static int end(struct kvc *k, struct call *c, struct kvmd_cqe *ret_cqe)
{
	struct kvmd_cqe cqe;
	int err;

	c->e->user_data = c->tag;
	err = kvc_submit(k);
	if (err > 0)
		err = 0;
	while (!err && !collect(k, c->tag, &cqe))
		err = kvci_cq_wait(k, KVCI_NO_DEADLINE);
	if (c->has_args)
		kvc_args_free(k, c->off);
	if (err)
		return err;
	if (ret_cqe)
		*ret_cqe = cqe;
	return cqe.res;
}

int kvc_nop(struct kvc *k)
{
	struct call c;
	int err = begin(k, &c);

	if (err)
		return err;
	kvc_prep_nop(c.e);
	return end(k, &c, NULL);
}

/* Unless the caller says how: lower tiers too, and all there when it returns. */
static uint16_t open_flags(const struct kvc *k, uint16_t flags)
{
	const uint16_t said = KVMD_OPEN_LOAD | KVMD_OPEN_WAIT | KVMD_OPEN_BY_PLANE |
			      KVMD_OPEN_NO_HIT | KVC_OPEN_NO_LOAD;

	if (k->has_loads && !(flags & said))
		flags |= KVMD_OPEN_LOAD | KVMD_OPEN_WAIT;
	return flags & (uint16_t)~KVC_OPEN_NO_LOAD;
}

int kvc_seq_open(struct kvc *k, uint32_t seq, uint32_t gen, const void *keys, uint32_t nr_keys,
		 uint32_t tokens, uint32_t hints, uint16_t flags, struct kvmd_cqe *ret_cqe)
{
	struct call c;
	int err = begin_keys(k, &c, keys, nr_keys);

	if (err)
		return err;
	kvc_prep_open(c.e, seq, gen, c.off, nr_keys, tokens, hints);
	c.e->flags = open_flags(k, flags);
	return end(k, &c, ret_cqe);
}

/* The array of lists, then all keys, in one piece: *ret_off. */
static int copy_lists(struct kvc *k, const void *const keys[], const uint32_t nr_keys[],
		      uint64_t *ret_off)
{
	const uint32_t nr = k->view.nr_groups;
	size_t bytes = nr * sizeof(struct kvmd_key_list);
	uint64_t off, at;
	char *p;

	for (uint32_t g = 0; g < nr; g++)
		bytes += (size_t)nr_keys[g] * KVMD_KEY_BYTES;
	if (bytes > k->args_bytes)
		return k->dead ? k->dead : -E2BIG;
	p = (char *)kvc_args_alloc(k, bytes, &off);
	if (!p)
		return k->dead ? k->dead : -ENOBUFS;
	at = nr * sizeof(struct kvmd_key_list);
	for (uint32_t g = 0; g < nr; g++) {
		struct kvmd_key_list list = { .off = off + at, .nr = nr_keys[g] };
		size_t n = (size_t)nr_keys[g] * KVMD_KEY_BYTES;

		memcpy(p + g * sizeof(list), &list, sizeof(list));
		if (n)
			memcpy(p + at, keys[g], n);
		at += n;
	}
	*ret_off = off;
	return 0;
}

int kvc_seq_open_lists(struct kvc *k, uint32_t seq, uint32_t gen, const void *const keys[],
		       const uint32_t nr_keys[], uint32_t tokens, uint32_t hints, uint16_t flags,
		       struct kvmd_cqe *ret_cqe)
{
	struct call c;
	uint64_t off;
	int err;

	err = copy_lists(k, keys, nr_keys, &off);
	if (err)
		return err;
	err = begin(k, &c);
	if (err) {
		kvc_args_free(k, off);
		return err;
	}
	c.off = off;
	c.has_args = true;
	kvc_prep_open(c.e, seq, gen, off, k->view.nr_groups, tokens, hints);
	c.e->flags = open_flags(k, flags) | KVMD_OPEN_LISTS;
	return end(k, &c, ret_cqe);
}

int kvc_seq_extend(struct kvc *k, uint32_t seq, uint32_t gen, uint8_t group, uint32_t nr,
		   uint16_t flags, uint64_t timeout_ns, struct kvmd_cqe *ret_cqe)
{
	struct call c;
	int err = begin(k, &c);

	if (err)
		return err;
	kvc_prep_extend(c.e, seq, gen, group, nr, timeout_ns ? kvci_deadline(timeout_ns) : 0);
	c.e->flags = flags;
	return end(k, &c, ret_cqe);
}

int kvc_seq_publish(struct kvc *k, uint32_t seq, uint32_t gen, uint8_t group, uint32_t first,
		    const void *keys, uint32_t nr_keys, uint64_t step, struct kvmd_cqe *ret_cqe)
{
	struct call c;
	int err = begin_keys(k, &c, keys, nr_keys);

	if (err)
		return err;
	kvc_prep_publish(c.e, seq, gen, group, first, c.off, nr_keys, step);
	return end(k, &c, ret_cqe);
}

int kvc_seq_fork(struct kvc *k, uint32_t seq, uint32_t gen, uint32_t dst, uint32_t dst_gen,
		 uint64_t step)
{
	struct call c;
	int err = begin(k, &c);

	if (err)
		return err;
	kvc_prep_fork(c.e, seq, gen, dst, dst_gen, step, 0);
	return end(k, &c, NULL);
}

int kvc_seq_unshare(struct kvc *k, uint32_t seq, uint32_t gen, uint8_t group, uint32_t pos,
		    uint64_t step)
{
	struct call c;
	int err = begin(k, &c);

	if (err)
		return err;
	kvc_prep_unshare(c.e, seq, gen, group, pos, step, 0);
	return end(k, &c, NULL);
}

int kvc_seq_trim(struct kvc *k, uint32_t seq, uint32_t gen, uint8_t group, uint16_t flags,
		 uint32_t first, uint32_t nr, uint64_t step)
{
	struct call c;
	int err = begin(k, &c);

	if (err)
		return err;
	kvc_prep_trim(c.e, seq, gen, group, flags, first, nr, step);
	return end(k, &c, NULL);
}

int kvc_seq_replace(struct kvc *k, uint32_t seq, uint32_t gen, uint8_t group, uint16_t flags,
		    uint32_t first, uint32_t nr, uint32_t nr_new, uint64_t step)
{
	struct call c;
	int err = begin(k, &c);

	if (err)
		return err;
	kvc_prep_replace(c.e, seq, gen, group, flags, first, nr, nr_new, step);
	return end(k, &c, NULL);
}

int kvc_seq_send(struct kvc *k, uint32_t seq, uint32_t gen, uint64_t step, uint64_t *ret_ticket)
{
	struct kvmd_cqe cqe;
	struct call c;
	int err = begin(k, &c);

	if (err)
		return err;
	kvc_prep_send(c.e, seq, gen, step);
	err = end(k, &c, &cqe);
	if (err >= 0 && ret_ticket)
		*ret_ticket = (uint64_t)cqe.v1 << 32 | cqe.v0;
	return err;
}

int kvc_seq_recv(struct kvc *k, uint32_t seq, uint32_t gen, uint64_t ticket,
		 struct kvmd_cqe *ret_cqe)
{
	struct call c;
	int err = begin(k, &c);

	if (err)
		return err;
	kvc_prep_recv(c.e, seq, gen, ticket);
	return end(k, &c, ret_cqe);
}

int kvc_seq_wait(struct kvc *k, uint32_t seq, uint32_t gen, uint32_t blocks,
		 struct kvmd_cqe *ret_cqe)
{
	struct call c;
	int err = begin(k, &c);

	if (err)
		return err;
	kvc_prep_wait(c.e, seq, gen, blocks);
	return end(k, &c, ret_cqe);
}

int kvc_seq_swap_out(struct kvc *k, uint32_t seq, uint32_t gen, uint64_t step)
{
	struct call c;
	int err = begin(k, &c);

	if (err)
		return err;
	kvc_prep_swap_out(c.e, seq, gen, step);
	return end(k, &c, NULL);
}

int kvc_seq_swap_in(struct kvc *k, uint32_t seq, uint32_t gen, uint64_t timeout_ns)
{
	struct call c;
	int err = begin(k, &c);

	if (err)
		return err;
	kvc_prep_swap_in(c.e, seq, gen, timeout_ns ? kvci_deadline(timeout_ns) : 0);
	return end(k, &c, NULL);
}

int kvc_seq_close(struct kvc *k, uint32_t seq, uint32_t gen, uint64_t step, uint32_t hints)
{
	struct call c;
	int err = begin(k, &c);

	if (err)
		return err;
	kvc_prep_close(c.e, seq, gen, step, hints);
	return end(k, &c, NULL);
}

int kvc_cancel(struct kvc *k, uint64_t user_data)
{
	struct call c;
	int err = begin(k, &c);

	if (err)
		return err;
	kvc_prep_cancel(c.e, user_data);
	return end(k, &c, NULL);
}

int kvc_lookup(struct kvc *k, uint8_t group, const void *keys, uint32_t nr_keys,
	       struct kvmd_cqe *ret_cqe)
{
	struct call c;
	int err = begin_keys(k, &c, keys, nr_keys);

	if (err)
		return err;
	kvc_prep_lookup(c.e, group, c.off, nr_keys);
	return end(k, &c, ret_cqe);
}

int kvc_advise_keys(struct kvc *k, uint32_t advice, uint8_t group, const void *keys,
		    uint32_t nr_keys, uint64_t aux)
{
	struct call c;
	int err = begin_keys(k, &c, keys, nr_keys);

	if (err)
		return err;
	kvc_prep_advise_keys(c.e, advice, group, c.off, nr_keys, aux);
	return end(k, &c, NULL);
}

int kvc_advise_seq(struct kvc *k, uint32_t advice, uint32_t seq, uint32_t gen, uint8_t group,
		   uint32_t first, uint32_t nr, uint64_t aux)
{
	struct call c;
	int err = begin(k, &c);

	if (err)
		return err;
	kvc_prep_advise_seq(c.e, advice, seq, gen, group, first, nr, aux);
	return end(k, &c, NULL);
}

int kvc_clock(struct kvc *k, uint64_t ns)
{
	struct call c;
	int err = begin(k, &c);

	if (err)
		return err;
	kvc_prep_clock(c.e, ns);
	return end(k, &c, NULL);
}
