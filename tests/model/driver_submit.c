/* SPDX-License-Identifier: Apache-2.0 */
/*
 * driver_submit.c - random entries for the model test.
 */
#include "driver.h"

/* ------------------------------------------------------------------ submitting */

bool is_structural(uint8_t op)
{
	return op != KVMD_OP_SEQ_EXTEND && op != KVMD_OP_SEQ_PUBLISH;
}

bool names_seq(const struct kvmd_sqe *e)
{
	return e->opcode >= KVMD_OP_SEQ_OPEN && e->opcode <= KVMD_OP_SEQ_CLOSE;
}

/* Entries in flight of the sequences an entry names. */
void pending(unsigned i, const struct kvmd_sqe *e, int add)
{
	struct m_seq *q = &mm.seq[i][e->seq];

	if (!names_seq(e))
		return;
	q->nr_pending += (unsigned)add;
	q->nr_structural += is_structural(e->opcode) ? (unsigned)add : 0;
	q->nr_publishing += e->opcode == KVMD_OP_SEQ_PUBLISH ? (unsigned)add : 0;
	q->nr_unsharing += e->opcode == KVMD_OP_SEQ_UNSHARE ? (unsigned)add : 0;
	if (e->opcode == KVMD_OP_SEQ_FORK) {
		mm.seq[i][e->first].nr_pending += (unsigned)add;
		mm.seq[i][e->first].nr_structural += (unsigned)add;
	}
}

static void submit(unsigned i, struct kvmd_sqe *e, const struct m_seq *seq, uint64_t ticket_ns)
{
	unsigned n = 0;

	while (cli[i].op[n].busy)
		if (++n == NR_OPS)
			return;
	e->user_data = n + 1;
	cli[i].op[n] = (struct flight) { .busy = true, .e = *e, .ticket_ns = ticket_ns };
	if (seq)
		cli[i].op[n].seq = *seq;
	pending(i, e, 1);
	core_submit(&cli[i].cl, e);
}

static void key_of(uint32_t node, uint8_t *key)
{
	uint64_t w[4] = { node, m_tag(node), ~m_tag(node), 7 };

	memcpy(key, w, sizeof(w));
}

static uint64_t put_keys(unsigned i, const uint32_t *node, uint32_t nr)
{
	uint8_t keys[M_POS * KVMD_KEY_BYTES];

	for (uint32_t n = 0; n < nr; n++)
		key_of(node[n], keys + n * KVMD_KEY_BYTES);
	return core_args(&cli[i].cl, keys, nr * KVMD_KEY_BYTES);
}

/* A prompt: four families, few forks in the way. */
static void new_prompt(unsigned i, struct m_seq *q)
{
	uint32_t node = m_child(0, rnd(4));

	*q = (struct m_seq) {
		.space = cli[i].space, .epoch = mm.epoch[cli[i].space], .gen = rnd(1000),
	};
	for (uint32_t n = 0; n < M_POS; n++)
		q->node[n] = node = m_child(node, rnd(5) ? 0 : rnd(3));
}

static struct kvmd_sqe entry(uint8_t op, unsigned i, uint32_t sq)
{
	return (struct kvmd_sqe) {
		.opcode = op, .seq = sq, .seq_gen = mm.seq[i][sq].gen,
		.step = is_structural(op) && op != KVMD_OP_SEQ_OPEN && op != KVMD_OP_SEQ_RECV ?
			cli[i].submitted : 0,
	};
}

static uint64_t deadline(void)
{
	return mc.d->now_ns + 100000ull * (1 + rnd(100));
}

static void do_open(unsigned i, uint32_t sq)
{
	struct kvmd_sqe e = entry(KVMD_OP_SEQ_OPEN, i, sq);
	struct m_seq q;

	if (mm.seq[i][sq].live || mm.seq[i][sq].nr_pending)
		return;
	new_prompt(i, &q);
	e.seq_gen = q.gen;
	e.nr = rnd(M_POS + 1);
	e.off = put_keys(i, q.node, e.nr);
	e.flags = rnd(12) ? 0 : rnd(2) ? KVMD_OPEN_NO_STORE : KVMD_OPEN_NO_HIT;
	q.no_store = e.flags & KVMD_OPEN_NO_STORE;
	submit(i, &e, &q, 0);
}

/* Publishes what has its key's content; now and then also what may not be. */
static void do_publish(unsigned i, uint32_t sq)
{
	struct kvmd_sqe e = entry(KVMD_OP_SEQ_PUBLISH, i, sq);
	struct m_seq *q = &mm.seq[i][sq];

	if (q->nr_publishing || q->nr_structural || !q->len)
		return;
	while (e.first < q->len - 1 && q->pos[e.first].kind == M_SEALED)
		e.first++;
	if (!rnd(4))
		e.first = rnd(q->len);
	e.nr = 1 + rnd((q->nr_pending || rnd(10) ? q->len : M_POS) - e.first);
	e.step = cli[i].submitted;
	for (uint32_t pos = e.first; pos < e.first + e.nr && pos < q->len; pos++) {
		const struct m_pos *p = &q->pos[pos];

		/* Behind a hole nothing is sealed, whatever its content. */
		if (pos < q->hole && p->kind == M_PRIVATE &&
		    (!p->filled || p->tag != m_tag(q->node[pos]))) {
			e.nr = pos - e.first;
			break;
		}
	}
	if (!e.nr)
		return;
	e.off = put_keys(i, q->node + e.first, e.nr);
	for (uint32_t pos = e.first; pos < e.first + e.nr && pos < q->len; pos++)
		if (q->pos[pos].kind == M_PRIVATE)
			m_note_publish(&mm, q, pos);
	submit(i, &e, NULL, 0);
}

static void do_fork(unsigned i, uint32_t sq)
{
	struct kvmd_sqe e = entry(KVMD_OP_SEQ_FORK, i, sq);
	uint32_t to = rnd(M_SEQS);

	if (to == sq || mm.seq[i][to].nr_pending || (mm.seq[i][to].live && rnd(10)))
		return;
	e.first = to;
	e.arg = rnd(1000);
	e.aux = deadline();
	submit(i, &e, NULL, 0);
}

static void do_recv(unsigned i, uint32_t sq)
{
	struct kvmd_sqe e = entry(KVMD_OP_SEQ_RECV, i, sq);
	unsigned t = rnd(M_TICKETS);
	struct m_seq q = tick[t].seq;
	bool made_up = !rnd(20);

	if (mm.seq[i][sq].live || mm.seq[i][sq].nr_pending ||
	    (!made_up && (!tick[t].live || q.space != cli[i].space)))
		return;
	e.aux = made_up ? rng | 1 : tick[t].id;
	e.seq_gen = q.gen = rnd(1000);
	if (!made_up)
		tick[t].live = false;
	submit(i, &e, &q, made_up ? 0 : tick[t].since_ns);
}

static void do_keys(unsigned i, uint32_t sq)
{
	struct kvmd_sqe e = { .opcode = rnd(2) ? KVMD_OP_LOOKUP : KVMD_OP_ADVISE };
	static const uint32_t advice[] = {
		KVMD_ADV_WILLNEED, KVMD_ADV_COLD, KVMD_ADV_DROP, KVMD_ADV_PIN, KVMD_ADV_UNPIN,
		KVMD_ADV_UNPIN, KVMD_ADV_PRIORITY, KVMD_ADV_NO_STORE,
	};
	struct m_seq q;

	(void)sq;
	new_prompt(i, &q);
	e.nr = rnd(M_POS + 1);
	e.off = put_keys(i, q.node, e.nr);
	if (e.opcode == KVMD_OP_ADVISE)
		e.arg = advice[rnd(ARRAY_SIZE(advice))];
	if (e.opcode == KVMD_OP_ADVISE && e.arg == KVMD_ADV_PRIORITY)
		e.aux = KVMD_PRIO(rnd(101), rnd(2000));
	submit(i, &e, &q, 0);
}

static void do_cancel(unsigned i)
{
	struct kvmd_sqe e = { .opcode = KVMD_OP_CANCEL, .aux = 1 + rnd(NR_OPS) };

	submit(i, &e, NULL, 0);
}

static void do_range(unsigned i, uint32_t sq, uint8_t op)
{
	struct kvmd_sqe e = entry(op, i, sq);
	uint32_t len = mm.seq[i][sq].len;

	e.first = rnd(len + 2);
	e.nr = rnd(4);
	if (op == KVMD_OP_SEQ_TRIM) {
		e.flags = (uint16_t)rnd(3);	/* a hole, KVMD_TRIM_TAIL, KVMD_TRIM_KEEP */
		e.nr = e.flags == KVMD_TRIM_TAIL ? 0 : e.nr;
	} else {
		e.flags = rnd(2) ? KVMD_REPLACE_HOLES : 0;
		e.nr++;
		e.arg = rnd(e.nr + 1);
	}
	submit(i, &e, NULL, 0);
}

static void do_simple(unsigned i, uint32_t sq, uint8_t op)
{
	struct kvmd_sqe e = entry(op, i, sq);

	if (op == KVMD_OP_SEQ_EXTEND) {
		e.nr = 1 + rnd(rnd(4) ? 4 : M_POS + 2);
		e.flags = rnd(4) ? 0 : KVMD_EXTEND_NOWAIT;
		e.aux = deadline();
	} else if (op == KVMD_OP_SEQ_UNSHARE) {
		e.first = rnd(mm.seq[i][sq].len + 1);
		e.aux = deadline();
	}
	submit(i, &e, NULL, 0);
}

void act(unsigned i)
{
	uint32_t sq = rnd(M_SEQS), what = rnd(100);
	bool live = mm.seq[i][sq].live;

	if (cli[i].life != ALIVE || cli[i].prepared)
		return;
	if (what < 6)
		return do_keys(i, sq);
	if (what < 9)
		return do_cancel(i);
	/* Entries for a sequence that is not there are refused; a few are enough. */
	if (!live && rnd(30))
		return rnd(8) ? do_open(i, sq) : do_recv(i, sq);
	if (what < 30)
		do_simple(i, sq, KVMD_OP_SEQ_EXTEND);
	else if (what < 72)
		do_publish(i, sq);
	else if (what < 78)
		do_fork(i, sq);
	else if (what < 82)
		do_simple(i, sq, KVMD_OP_SEQ_UNSHARE);
	else if (what < 86)
		do_range(i, sq, KVMD_OP_SEQ_TRIM);
	else if (what < 88)
		do_range(i, sq, KVMD_OP_SEQ_REPLACE);
	else if (what < 91)
		do_simple(i, sq, KVMD_OP_SEQ_SEND);
	else
		do_simple(i, sq, KVMD_OP_SEQ_CLOSE);
}
