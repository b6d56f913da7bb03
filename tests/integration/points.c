/* SPDX-License-Identifier: Apache-2.0 */
/*
 * points.c - before, in and behind every kind of entry.
 *
 * "Waits" is made certain by a NOP behind the entry. What is said to be under
 * way may be over when the signal comes; that is a point too.
 */
#include "tests/integration/points.h"

#include <string.h>

static struct kvmd_sqe *entry(struct kvc *k)
{
	struct kvmd_sqe *e = kvc_get_sqe(k);

	T(e);
	e->user_data = 1;
	return e;
}

static void waits(struct kvc *k)
{
	T(kvc_submit(k) > 0);
	T_EQ(kvc_nop(k), 0);
}

static uint64_t put_keys(struct kvc *k)
{
	uint64_t off;
	void *at = kvc_args_alloc(k, POINT_KEYS * KEY, &off);

	T(at);
	make_keys(at, POINT_STREAM, 0, POINT_KEYS);
	return off;
}

/* Sequence 1: the chain published and two private blocks behind it. */
static void grown(struct kvc *k)
{
	open_publish(k, 1, POINT_KEYS, POINT_STREAM);
	T_EQ(kvc_seq_extend(k, 1, 1, 0, 2, 0, WAIT_NS, NULL), 2);
}

static void stepped(struct kvc *k)
{
	grown(k);
	kvc_step_submit(k, 1);
}

static void connected(struct kvc *k)
{
	T_EQ(kvc_nop(k), 0);
}

static void opened(struct kvc *k)
{
	T_EQ(kvc_seq_open(k, 1, 1, NULL, 0, 0, 0, 0, NULL), 0);
}

static void open_sent(struct kvc *k)
{
	uint64_t off = put_keys(k);

	kvc_prep_open(entry(k), 1, 1, off, POINT_KEYS, 0, 0);
	T(kvc_submit(k) > 0);
}

static void extended(struct kvc *k)
{
	open_extend(k, 1, 20, 0);
}

static void extend_sent(struct kvc *k)
{
	opened(k);
	kvc_prep_extend(entry(k), 1, 1, 0, 30, 0);
	T(kvc_submit(k) > 0);
}

static void extend_waits(struct kvc *k)
{
	open_extend(k, 1, 20, 0);
	kvc_prep_extend(entry(k), 1, 1, 0, POINT_SLOTS - 10, 0);
	waits(k);
}

static void entries_queue(struct kvc *k)
{
	extend_waits(k);
	kvc_prep_trim(entry(k), 1, 1, 0, KVMD_TRIM_TAIL, 3, 0, 0);
	kvc_prep_extend(entry(k), 1, 1, 0, 2, 0);
	kvc_prep_fork(entry(k), 1, 1, 2, 1, 0, 0);
	kvc_prep_close(entry(k), 1, 1, 0, 0);
	kvc_prep_open(entry(k), 1, 2, 0, 0, 0, 0);
	waits(k);
}

static void published(struct kvc *k)
{
	grown(k);
}

static void publish_waits(struct kvc *k)
{
	uint64_t off = put_keys(k);

	open_extend(k, 1, POINT_KEYS, 0);
	kvc_step_submit(k, 1);
	kvc_prep_publish(entry(k), 1, 1, 0, 0, off, POINT_KEYS, 1);
	waits(k);
}

/* The duplicate waits for a completion that is never taken. */
static void merged(struct kvc *k)
{
	uint64_t off = put_keys(k);

	open_publish(k, 1, POINT_KEYS, POINT_STREAM);
	open_extend(k, 2, POINT_KEYS, (uint64_t)POINT_STREAM << 8);
	kvc_prep_publish(entry(k), 2, 1, 0, 0, off, POINT_KEYS, 0);
	T(kvc_submit(k) > 0);
	while (slot_at(k, 0, 1, POINT_KEYS - 1) != slot_at(k, 0, 2, POINT_KEYS - 1))
		;
}

static void forked(struct kvc *k)
{
	grown(k);
	T_EQ(kvc_seq_fork(k, 1, 1, 2, 1, 0), POINT_KEYS + 2);
}

static void fork_waits(struct kvc *k)
{
	stepped(k);
	kvc_prep_fork(entry(k), 1, 1, 2, 1, 1, 0);
	waits(k);
}

static void fork_copies(struct kvc *k)
{
	open_extend(k, 1, 20, 0);
	kvc_prep_fork(entry(k), 1, 1, 2, 1, 0, 0);
	T(kvc_submit(k) > 0);
}

/* It has some of its copies and waits for memory for the others. */
static void fork_stuck(struct kvc *k)
{
	open_extend(k, 1, 30, 0);
	kvc_prep_fork(entry(k), 1, 1, 2, 1, 0, 0);
	waits(k);
}

static void unshared(struct kvc *k)
{
	grown(k);
	T_EQ(kvc_seq_unshare(k, 1, 1, 0, 0, 0), 1);
}

static void unshare_waits(struct kvc *k)
{
	stepped(k);
	kvc_prep_unshare(entry(k), 1, 1, 0, 0, 1, 0);
	waits(k);
}

static void unshares_copy(struct kvc *k)
{
	grown(k);
	for (uint32_t i = 0; i < POINT_KEYS; i++)
		kvc_prep_unshare(entry(k), 1, 1, 0, i, 0, 0);
	T(kvc_submit(k) > 0);
}

static void trimmed(struct kvc *k)
{
	grown(k);
	T_EQ(kvc_seq_trim(k, 1, 1, 0, 0, 1, 2, 0), 2);
}

static void trim_waits(struct kvc *k)
{
	stepped(k);
	kvc_prep_trim(entry(k), 1, 1, 0, KVMD_TRIM_TAIL, 1, 0, 1);
	waits(k);
}

static void replaced(struct kvc *k)
{
	grown(k);
	T_EQ(kvc_seq_replace(k, 1, 1, 0, 0, 2, 2, 2, 0), POINT_KEYS);
}

static void replace_waits(struct kvc *k)
{
	stepped(k);
	kvc_prep_replace(entry(k), 1, 1, 0, 0, 2, 2, 2, 1);
	waits(k);
}

static void sent(struct kvc *k)
{
	uint64_t ticket;

	grown(k);
	T_EQ(kvc_seq_send(k, 1, 1, 0, &ticket), 0);
}

static void send_waits(struct kvc *k)
{
	stepped(k);
	kvc_prep_send(entry(k), 1, 1, 1);
	waits(k);
}

static void received(struct kvc *k)
{
	uint64_t ticket;

	grown(k);
	T_EQ(kvc_seq_send(k, 1, 1, 0, &ticket), 0);
	T_EQ(kvc_seq_recv(k, 7, 1, ticket, NULL), POINT_KEYS + 2);
}

static void closed(struct kvc *k)
{
	grown(k);
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
}

static void close_waits(struct kvc *k)
{
	stepped(k);
	kvc_prep_close(entry(k), 1, 1, 1, 0);
	waits(k);
}

static void pinned(struct kvc *k)
{
	unsigned char keys[POINT_KEYS][KEY];

	grown(k);
	make_keys(keys, POINT_STREAM, 0, POINT_KEYS);
	T_EQ(kvc_advise_keys(k, KVMD_ADV_PIN, 0, keys, POINT_KEYS, 0), POINT_KEYS);
	T_EQ(kvc_advise_keys(k, KVMD_ADV_PIN, 0, keys, POINT_KEYS, 0), POINT_KEYS);
	T_EQ(kvc_seq_close(k, 1, 1, 0, 0), 0);
}

static void cancelled(struct kvc *k)
{
	extend_waits(k);
	T_EQ(kvc_cancel(k, 1), 0);
}

static void cancel_sent(struct kvc *k)
{
	extend_waits(k);
	kvc_prep_cancel(entry(k), 1);
	T(kvc_submit(k) > 0);
}

#define P(f, nr)	{ #f, f, nr }
const struct point points[] = {
	P(connected, 0), P(opened, 0), P(open_sent, 0), P(extended, 0), P(extend_sent, 0),
	P(extend_waits, 0), P(entries_queue, 0), P(published, 4), P(publish_waits, 0),
	P(merged, 4), P(forked, 4), P(fork_waits, 4), P(fork_copies, 0), P(fork_stuck, 0),
	P(unshared, 4), P(unshare_waits, 4), P(unshares_copy, 4), P(trimmed, 4), P(trim_waits, 4),
	P(replaced, 4), P(replace_waits, 4), P(sent, 4), P(send_waits, 4), P(received, 4),
	P(closed, 4), P(close_waits, 4), P(pinned, 4), P(cancelled, 0), P(cancel_sent, 0),
};
const unsigned nr_points = sizeof(points) / sizeof(points[0]);
