/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.c - what the daemon announces: slabs, epoch, the end.
 *
 * Rings carry no such messages. The daemon changes words in the ring's head,
 * then news_seq with release; a look at news_seq per peek is all it costs. The
 * socket is read when control_seq changed, or by kvc_poll().
 *
 * At most one acknowledgement waits for room in the socket; until it is sent
 * nothing more is read, so the daemon's own queue bounds the work.
 */
#include <poll.h>
#include <sys/socket.h>

#include "libkvclient/internal.h"

void kvci_die(struct kvc *k, const char *why)
{
	if (k->dead)
		return;
	k->dead = -ECONNRESET;
	if (why)
		kvci_refuse("%s", why);
}

static int ack_send(struct kvc *k)
{
	int err;

	if (!k->has_ack)
		return 0;
	err = kvci_send(k->sock, &k->ack, sizeof(k->ack));
	if (!err)
		k->has_ack = false;
	return err;
}

static int ack(struct kvc *k, uint32_t type, const struct kvmd_slab *m, int err)
{
	kvci_msg_init(&k->ack, type, sizeof(k->ack), m->h.cookie);
	k->ack.h.err = err;
	k->ack.slab = m->slab;
	k->ack.gen = m->gen;
	k->has_ack = true;
	return ack_send(k);
}

/* Waits until @deadline_ns for room in the socket. */
int kvci_ack_flush(struct kvc *k, uint64_t deadline_ns)
{
	struct pollfd pfd = { .fd = k->sock, .events = POLLOUT };
	int err;

	while ((err = ack_send(k)) == -EAGAIN) {
		if (kvci_now() >= deadline_ns)
			return -ETIMEDOUT;
		if (poll(&pfd, 1, 100) < 0 && errno != EINTR)
			return -errno;
	}
	return err;
}

/*
 * Acts on one message that came unasked. -EAGAIN: done, but its acknowledgement
 * waits for room. Any other error ends the session: a slab that could not be
 * mapped must not be named by a completion.
 */
int kvci_control_msg(struct kvc *k, struct kvci_rx *rx)
{
	int err;

	switch (rx->u.h.type) {
	case KVMD_MSG_SLAB_ADD:
		err = kvci_slab_add(k, rx);
		kvci_rx_close(rx);
		if (!err)
			return 0;
		if (err > 0)
			return ack(k, KVMD_MSG_SLAB_ADDED, &rx->u.slab, 0);
		ack(k, KVMD_MSG_SLAB_ADDED, &rx->u.slab, err);
		return err;
	case KVMD_MSG_SLAB_DEL:
		kvci_rx_close(rx);
		if (rx->bytes != sizeof(rx->u.slab))
			return -EPROTO;
		err = kvci_slab_del(k, rx->u.slab.slab, rx->u.slab.gen);
		if (err)
			return err;
		return ack(k, KVMD_MSG_SLAB_DELETED, &rx->u.slab, 0);
	case KVMD_MSG_EPOCH_REPLY:
		/* of a kvc_epoch_raise() that ran out of time */
		kvci_rx_close(rx);
		return 0;
	default:
		kvci_rx_close(rx);
		return -EPROTO;
	}
}

/* The session cannot go on after @err; @told: refusals before what failed. */
static int control_fail(struct kvc *k, int err, unsigned told)
{
	if (err == -ECONNRESET) {
		kvci_die(k, "the daemon closed the connection");
	} else if (!k->dead) {
		if (kvci_nr_refusals() == told)
			kvci_refuse("a control message failed: %s", kvc_strerror(err));
		kvci_die(k, NULL);
		/* The library gives up first: the daemon shall see it at once. */
		shutdown(k->sock, SHUT_RDWR);
	}
	return k->dead;
}

int kvci_control_drain(struct kvc *k)
{
	const unsigned told = kvci_nr_refusals();
	struct kvci_rx rx;
	int err;

	k->control_dirty = true;
	err = ack_send(k);
	while (!err) {
		err = kvci_recv(k->sock, 0, &rx);
		if (err == -EAGAIN) {
			k->control_dirty = false;
			return 0;
		}
		if (!err)
			err = kvci_control_msg(k, &rx);
	}
	if (err == -EAGAIN)
		return 0;	/* the socket is full: go on at the next call */
	return control_fail(k, err, told);
}

int kvci_news(struct kvc *k)
{
	struct kvmd_ring *r = k->ring;
	uint32_t control_seq;
	int32_t ended;

	if (k->dead)
		return k->dead;
	/* acquire: pairs with the daemon's release after it wrote the words */
	k->news_seq = ld_acq(&r->news_seq);
	ended = ld_rlx(&r->ended);
	control_seq = ld_rlx(&r->control_seq);
	if (ended) {
		kvci_refuse("the daemon ended the session: %s", kvc_strerror(ended));
		kvci_die(k, NULL);
		return k->dead;
	}
	if (control_seq == k->control_seq && !k->control_dirty)
		return 0;
	k->control_seq = control_seq;
	return kvci_control_drain(k);
}

int kvc_poll(struct kvc *k)
{
	if (k->dead)
		return k->dead;
	if (k->ring) {
		k->control_dirty = true;
		return kvci_news(k);
	}
	return kvci_control_drain(k);
}

uint32_t kvc_pressure(const struct kvc *k)
{
	return k->ring ? ld_rlx(&k->ring->pressure) : KVMD_PRESSURE_NONE;
}

uint32_t kvc_epoch(const struct kvc *k)
{
	return k->ring ? ld_rlx(&k->ring->epoch) : 0;
}

static int epoch_reply(struct kvci_rx *rx, uint64_t *ret_epoch)
{
	kvci_rx_close(rx);
	if (rx->bytes != sizeof(rx->u.epoch))
		return -EPROTO;
	if (rx->u.h.err) {
		kvci_refuse("%.*s", (int)sizeof(rx->u.epoch.text), rx->u.epoch.text);
		return rx->u.h.err;
	}
	if (ret_epoch)
		*ret_epoch = rx->u.epoch.epoch;
	return 0;
}

int kvc_epoch_raise(struct kvc *k, uint64_t *ret_epoch)
{
	uint64_t deadline = kvci_deadline(KVCI_EPOCH_NS), cookie;
	const unsigned told = kvci_nr_refusals();
	struct kvmd_epoch m;
	struct kvci_rx rx;
	int err;

	if (k->dead)
		return k->dead;
	cookie = ++k->next_cookie;
	kvci_msg_init(&m, KVMD_MSG_EPOCH, sizeof(m), cookie);
	err = kvci_send(k->sock, &m, sizeof(m));
	if (err == -EAGAIN)
		return err;
	while (!err) {
		err = kvci_recv(k->sock, deadline, &rx);
		if (err == -ETIMEDOUT)
			return err;
		if (!err && rx.u.h.type == KVMD_MSG_EPOCH_REPLY && rx.u.h.cookie == cookie) {
			err = epoch_reply(&rx, ret_epoch);
			return err == -EPROTO ? control_fail(k, err, told) : err;
		}
		if (!err)
			err = kvci_control_msg(k, &rx);
		if (!err || err == -EAGAIN)
			err = kvci_ack_flush(k, deadline);
	}
	return control_fail(k, err, told);
}
