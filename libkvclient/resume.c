/* SPDX-License-Identifier: Apache-2.0 */
/*
 * resume.c - the session goes on with the daemon that came after.
 *
 * A daemon that restarted may have kept the pool and its sessions (kvkeeper(8)).
 * Everything mapped is still true then: rings, args, steps, tables, and the slabs
 * that are announced again. What was on its way in the rings is not: completions
 * that are there are put aside for the caller, entries without one get theirs
 * here (-ECONNRESET), and both rings begin at zero. That is done before RESUME is
 * sent, so the new daemon never sees an entry of the old one.
 */
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "libkvclient/internal.h"

#define MAX_RESETS	3	/* connections that end without an answer */
#define MAX_RETRY_MS	1000u

/* Next completion that the old daemon left; pos counts also where cq_tail was not stored. */
static bool left_over(const struct kvc *k)
{
	if ((int32_t)(ld_acq(&k->ring->cq_tail) - k->cq_head) > 0)
		return true;
	return k->use_pos && ld_acq(&k->cq[k->cq_head & k->cq_mask].pos) == k->cq_head + 1;
}

static bool is_own(uint64_t user_data)
{
	return user_data >> 48 == KVCI_TAG;	/* whose caller knows already */
}

/* What was on its way ends: all that was submitted is in the stash then. */
static int settle(struct kvc *k)
{
	struct kvmd_cqe c;
	int err;

	err = kvci_stash_reserve(&k->stash, k->cq_mask + 1 + k->sent.tail - k->sent.head);
	if (err)
		return err;
	for (uint32_t i = 0; i <= k->cq_mask && left_over(k); i++) {
		c = k->cq[k->cq_head++ & k->cq_mask];
		kvci_sent_done(&k->sent, c.user_data);
		if (!is_own(c.user_data))
			kvci_stash_put(&k->stash, &c);
	}
	memset(&c, 0, sizeof(c));
	c.res = -ECONNRESET;
	while (kvci_sent_take(&k->sent, &c.user_data)) {
		if (!is_own(c.user_data))
			kvci_stash_put(&k->stash, &c);
	}
	return 0;
}

/* Both rings as on the first day. Nobody else looks at them now. */
static void rewind_rings(struct kvc *k)
{
	struct kvmd_ring *r = k->ring;

	st_rlx(&r->sq_tail, 0);
	st_rlx(&r->sq_head, 0);
	st_rlx(&r->cq_tail, 0);
	st_rlx(&r->cq_head, 0);
	st_rlx(&r->client_flags, 0);
	for (uint32_t i = 0; i < k->sq_entries; i++)
		st_rlx(&k->sq[i].pos, 0);
	for (uint32_t i = 0; i <= k->cq_mask; i++)
		st_rlx(&k->cq[i].pos, 0);
	k->sq_taken = k->sq_tail = k->sq_head = 0;
	k->cq_head = k->cq_tail = 0;
	/* The message that follows orders all of this before the daemon's next look. */
	smp_mb();
}

static void pause_ms(uint32_t ms, uint64_t left_ns)
{
	uint64_t ns = (ms < 1 ? 1 : ms > MAX_RETRY_MS ? MAX_RETRY_MS : ms) * 1000000ull;
	struct timespec ts;

	if (ns > left_ns)
		ns = left_ns;
	ts.tv_sec = (time_t)(ns / 1000000000ull);
	ts.tv_nsec = (long)(ns % 1000000000ull);
	nanosleep(&ts, NULL);
}

/* A daemon may listen before it reads: who hangs up then ends his session. */
static uint64_t reply_ns(uint64_t deadline_ns)
{
	uint64_t now = kvci_now();

	return deadline_ns < now + KVCI_HANDSHAKE_NS ? KVCI_HANDSHAKE_NS : deadline_ns - now;
}

/* RESUME on k->sock until it is answered by other than "still recovering". */
static int ask_resume(struct kvc *k, uint64_t deadline_ns, struct kvci_rx *rx)
{
	struct kvmd_resume m;
	uint64_t now;
	int err;

	for (;;) {
		kvci_msg_init(&m, KVMD_MSG_RESUME, sizeof(m), 0);
		m.version = KVMD_WIRE_VERSION;
		m.rank = k->rank;
		m.group_token = k->group_token;
		if (!k->rank) {
			m.session = k->view.session;
			memcpy(m.boot_id, k->boot_id, sizeof(m.boot_id));
		}
		rx->u.resume.retry_ms = 0;
		err = kvci_ask(k, &m, KVMD_MSG_RESUME_REPLY,
			       offsetof(struct kvmd_resume_reply, text), reply_ns(deadline_ns), rx);
		if (err != -EAGAIN)
			return err;
		now = kvci_now();
		if (now >= deadline_ns)
			return err;
		pause_ms(rx->u.resume.retry_ms, deadline_ns - now);
	}
}

/* The daemon took us back: its bell, and the slabs that are there now. */
static int go_on(struct kvc *k, struct kvci_rx *rx)
{
	const uint32_t nr_bells = k->rank ? rx->nr_fds : 1;
	uint32_t nr_slabs;
	int err;

	err = kvci_shape(rx, sizeof(rx->u.resume), nr_bells);
	if (!err && !k->rank) {
		close(k->bell);
		k->bell = rx->fd[0];
		rx->fd[0] = -1;
	}
	nr_slabs = rx->u.resume.nr_slabs;
	memcpy(k->boot_id, rx->u.resume.boot_id, sizeof(k->boot_id));
	kvci_rx_close(rx);
	if (err)
		return err;
	k->has_ack = false;
	k->idle_peeks = 0;
	if (k->ring)
		k->news_seq = ld_acq(&k->ring->news_seq);
	k->control_seq = 0;
	k->control_dirty = true;
	err = kvci_slabs_keep(k);
	if (!err)
		err = kvci_first_slabs(k, nr_slabs);
	return err ? err : kvci_slabs_sweep(k);
}

/* One connection: 1 resumed, or -errno with k->sock closed. */
static int try_once(struct kvc *k, uint64_t deadline_ns)
{
	struct kvci_rx rx;
	int err;

	err = kvci_connect(k->conf.socket, k->conf.opts.wait_ns, &k->sock);
	if (err)
		return err;
	if (k->ring) {
		err = settle(k);
		if (!err)
			rewind_rings(k);
	}
	if (!err)
		err = ask_resume(k, deadline_ns, &rx);
	if (!err)
		err = go_on(k, &rx);
	if (!err)
		return 1;
	close(k->sock);
	k->sock = -1;
	return err;
}

int kvci_resume(struct kvc *k)
{
	uint64_t deadline = kvci_deadline(k->conf.opts.resume_ns);
	int old = k->sock, err;

	for (int i = 0; i < MAX_RESETS; i++) {
		err = try_once(k, deadline);
		if (err != -ECONNRESET)
			break;
	}
	if (err == 1) {
		if (old >= 0)
			close(old);
		k->dead = 0;
		return 1;
	}
	k->sock = old;
	/* A daemon that hangs up over and over does not know what we ask for. */
	return err == -ECONNRESET ? -ESTALE : err;
}
