/* SPDX-License-Identifier: Apache-2.0 */
/*
 * driver_done.c - completions compared with the model.
 */
#include "driver.h"

/* ----------------------------------------------------------------- completions */

/* What a client cannot foresee: shortage, a failed copy, or that it was cancelled. */
static bool is_shortage(int res)
{
	return res == -EIO || res == -EAGAIN || res == -ENOMEM || res == -EDEADLK ||
	       res == -EDQUOT || res == -ECANCELED;
}

/* The sequence is another one now; entries in flight still name it. */
static void put_seq(struct m_seq *to, const struct m_seq *from)
{
	unsigned nr_pending = to->nr_pending, nr_structural = to->nr_structural;
	unsigned nr_publishing = to->nr_publishing, nr_unsharing = to->nr_unsharing;

	*to = *from;
	to->nr_pending = nr_pending;
	to->nr_structural = nr_structural;
	to->nr_publishing = nr_publishing;
	to->nr_unsharing = nr_unsharing;
}

static void done_open(unsigned i, const struct flight *f, const struct kvmd_cqe *q)
{
	uint32_t lo, hi;

	if (q->res == -ECANCELED)
		return;
	CHECK(q->res >= 0, "open: %d", q->res);
	m_hit_bounds(&mm, &f->seq, f->e.nr, &lo, &hi);
	if (f->e.flags & KVMD_OPEN_NO_HIT)
		lo = hi = 0;
	CHECK((uint32_t)q->res >= lo && (uint32_t)q->res <= hi, "hit %d, not %u to %u", q->res, lo,
	      hi);
	CHECK(q->v1 == (uint32_t)q->res * 16, "tokens %u", q->v1);
	CHECK((q->v2 == KVMD_MISS_NONE) == ((uint32_t)q->res == f->e.nr &&
	      !(f->e.flags & KVMD_OPEN_NO_HIT)), "reason %u", q->v2);
	mm.seq[i][f->e.seq].live = true;
}

static void done_publish(unsigned i, const struct flight *f, const struct kvmd_cqe *q)
{
	struct m_seq *s = &mm.seq[i][f->e.seq];
	uint32_t takes = m_publish_takes(s, f->e.first, f->e.nr), sealed, priv, lo, hi;

	if (q->res < 0) {
		CHECK(q->res == -EINVAL && !takes, "publish: %d, takes %u", q->res, takes);
		return;
	}
	m_publish(&mm, s, f->e.first, takes, &sealed, &priv, &lo, &hi);
	CHECK((uint32_t)q->res == sealed && q->v1 == priv, "sealed %d, private %u, not %u, %u",
	      q->res, q->v1, sealed, priv);
	CHECK(q->v0 >= lo && q->v0 <= hi, "merged %u, not %u to %u", q->v0, lo, hi);
}

static void done_fork(unsigned i, const struct flight *f, const struct kvmd_cqe *q)
{
	struct m_seq *s = &mm.seq[i][f->e.seq], *to = &mm.seq[i][f->e.first];
	struct m_seq copy;

	if (q->res < 0) {
		CHECK(is_shortage(q->res) || (q->res == -EBUSY && to->live), "fork: %d", q->res);
		return;
	}
	CHECK(!to->live && (uint32_t)q->res == s->len, "fork: %d", q->res);
	CHECK(m_fork(s, &copy, f->e.arg) == q->v0, "copied %u", q->v0);
	put_seq(to, &copy);
	m_touch(&mm, to);
}

static void done_send(unsigned i, const struct flight *f, const struct kvmd_cqe *q)
{
	struct m_seq *s = &mm.seq[i][f->e.seq];

	CHECK(!q->res, "send: %d", q->res);
	for (unsigned t = 0; t < M_TICKETS; t++) {
		if (tick[t].live)
			continue;
		tick[t] = (struct held_ticket) {
			true, (uint64_t)q->v1 << 32 | q->v0, mc.d->now_ns, *s,
		};
		for (uint32_t p = 0; p < s->len; p++)
			tick[t].seq.pos[p].fill_step = 0;	/* its steps are over */
		break;
	}
	s->live = false;
}

static void done_recv(unsigned i, const struct flight *f, const struct kvmd_cqe *q)
{
	struct m_seq *s = &mm.seq[i][f->e.seq];

	if (q->res == -ENOENT && mc.d->now_ns >= f->ticket_ns + TICKET_NS)
		return;
	CHECK(f->ticket_ns && (uint32_t)q->res == f->seq.len, "recv: %d", q->res);
	put_seq(s, &f->seq);
	s->live = true;
	m_touch(&mm, s);
}

static void done_on_seq(unsigned i, const struct flight *f, const struct kvmd_cqe *q)
{
	struct m_seq *s = &mm.seq[i][f->e.seq];
	uint32_t want;

	if (q->res == -ECANCELED)
		return;
	if (!s->live || s->gen != f->e.seq_gen) {
		CHECK(q->res == (s->live ? -ESTALE : -ENOENT), "op %u: %d", f->e.opcode, q->res);
		return;
	}
	switch (f->e.opcode) {
	case KVMD_OP_SEQ_EXTEND:
		if (s->len + f->e.nr > M_POS)
			CHECK(q->res == -ENOSPC, "extend: %d", q->res);
		else if (q->res >= 0)
			CHECK((uint32_t)q->res == f->e.nr && q->v0 == s->len, "extend: %d", q->res);
		else
			CHECK(is_shortage(q->res), "extend: %d", q->res);
		if (q->res > 0)
			m_extend(s, (uint32_t)q->res);
		return;
	case KVMD_OP_SEQ_PUBLISH:
		return done_publish(i, f, q);
	case KVMD_OP_SEQ_FORK:
		return done_fork(i, f, q);
	case KVMD_OP_SEQ_UNSHARE:
		if (!is_shortage(q->res))
			CHECK(q->res == m_unshare(s, f->e.first), "unshare: %d", q->res);
		return;
	case KVMD_OP_SEQ_TRIM:
		want = (uint32_t)m_trim(s, f->e.flags, f->e.first, f->e.nr);
		CHECK(q->res == (int)want, "trim: %d, not %d", q->res, (int)want);
		return;
	case KVMD_OP_SEQ_REPLACE:
		want = (uint32_t)m_replace(s, f->e.flags, f->e.first, f->e.nr, f->e.arg);
		CHECK(q->res == (int)want, "replace: %d, not %d", q->res, (int)want);
		return;
	case KVMD_OP_SEQ_SEND:
		return done_send(i, f, q);
	default:
		CHECK(!q->res && q->v0 == s->len, "close: %d", q->res);
		s->live = false;
	}
}

static void done_keys(const struct flight *f, const struct kvmd_cqe *q)
{
	uint32_t lo, hi;

	m_hit_bounds(&mm, &f->seq, f->e.nr, &lo, &hi);
	if (f->e.opcode == KVMD_OP_LOOKUP && f->seq.epoch == mm.epoch[f->seq.space])
		CHECK((uint32_t)q->res >= lo && (uint32_t)q->res <= hi, "lookup: %d, not %u to %u",
		      q->res, lo, hi);
	else
		CHECK(q->res <= (int)f->e.nr, "advise: %d", q->res);
}

static void completed(unsigned i, const struct kvmd_cqe *q)
{
	struct flight *f = &cli[i].op[q->user_data - 1];

	CHECK(q->user_data && q->user_data <= NR_OPS && f->busy, "completion of nothing");
	f->busy = false;
	pending(i, &f->e, -1);
	nr_done[f->e.opcode]++;
	nr_refused[f->e.opcode] += q->res < 0;
	if (f->e.opcode == KVMD_OP_SEQ_OPEN) {
		done_open(i, f, q);
		if (q->res < 0)
			return;
		put_seq(&mm.seq[i][f->e.seq], &f->seq);
		m_open(&mm, &mm.seq[i][f->e.seq], (uint32_t)q->res);
	} else if (f->e.opcode == KVMD_OP_SEQ_RECV) {
		if (q->res != -ECANCELED)
			done_recv(i, f, q);
	} else if (names_seq(&f->e)) {
		done_on_seq(i, f, q);
	} else if (f->e.opcode == KVMD_OP_CANCEL) {
		CHECK(!q->res || q->res == -ENOENT || q->res == -EALREADY, "cancel: %d", q->res);
	} else {
		done_keys(f, q);
	}
}

void collect(void)
{
	struct kvmd_cqe q;

	mm.batch++;
	for (unsigned i = 0; i < M_SESSIONS; i++) {
		if (cli[i].life != ALIVE)
			continue;
		while (core_peek(&cli[i].cl, &q)) {
			cli[i].cl.cq_head++;
			completed(i, &q);
		}
	}
}
