/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_model.c - random operations on the daemon's real code, against model.c.
 *
 * Three clients, two spaces of two tenants on one small device: memory runs out,
 * slabs move, clients die, steps complete late. Each step of the test does one
 * thing, then compares: completions with what the model says; rows with the
 * model's sequences; the bytes of every slot that a sequence or an unfinished
 * GPU step names with the content that was written for that key; and all of the
 * daemon's own books with each other (core_walk).
 *
 * GPU steps are played: one reads and writes the slots that its row named when it
 * was submitted, at the moment when it completes. Free slots are overwritten after
 * each step of the test, so that one that is freed too early is found at once.
 *
 * KVMD_MODEL_SEED (printed) and KVMD_MODEL_STEPS repeat a run.
 */
#include <check.h>
#include <stdio.h>

#include "kvmd/lib/clock.h"
#include "kvmd/lib/stats.h"
#include "model.h"
#include "tests/core_rig.h"

#define NR_OPS		32	/* entries in flight per client */
#define NR_STEPS	8	/* GPU steps in flight per client */
#define TICKET_NS	20000000ull
#define POISON		0x0123456789abcdefull	/* content of free slots */

struct access {
	void *mem;
	uint64_t tag;
	uint32_t seq, pos, slot;
	bool write;
};

struct gpu_step {
	uint64_t step;
	unsigned nr;
	struct access a[M_SEQS * M_POS];
};

struct flight {
	bool busy;
	struct kvmd_sqe e;
	struct m_seq seq;		/* OPEN: what it will be */
	uint64_t ticket_ns;		/* RECV: when it was sent, 0: a made-up one */
};

enum life { GONE, ALIVE, CLOSED };

struct client {
	struct core_client cl;
	enum life life;
	uint32_t space;
	uint64_t submitted;
	struct gpu_step step[NR_STEPS];
	unsigned first, nr_steps;
	bool prepared;			/* the last of them is not submitted yet */
	struct flight op[NR_OPS];
};

struct held_ticket {
	bool live;
	uint64_t id, since_ns;
	struct m_seq seq;
};

static struct core c;
static struct model m;
static struct client cli[M_SESSIONS];
static struct held_ticket tick[M_TICKETS];
static struct kvmd_space geo[M_SPACES];
static const char *const tenants[M_SPACES] = { "default", "other" };
static uint64_t rng, seed;
static uint64_t nr_done[KVMD_NR_OP], nr_refused[KVMD_NR_OP], seen[6];

static uint32_t rnd(uint32_t below)
{
	rng += 0x9e3779b97f4a7c15ull;
	return (uint32_t)((m_tag((uint32_t)(rng >> 32)) ^ m_tag((uint32_t)rng)) >> 8) % below;
}

#define CHECK(ok, ...)	core_ok_msg(ok, #ok ": " __VA_ARGS__)

/* --------------------------------------------------------------- content, rows */

static int32_t *row_of(unsigned i, uint32_t sq)
{
	return seq_row(&cli[i].cl.s->st, sq, 0);
}

static void *slot_mem(unsigned i, uint32_t slot)
{
	return core_mem(&cli[i].cl.s->sp->gp[0], slot, 0, 0);
}

static bool is_filled(const struct client *k, const struct m_pos *p)
{
	return p->filled && (!k->nr_steps || p->fill_step < k->step[k->first].step);
}

struct slot_use {
	uint32_t slot, space, epoch;
	uint64_t tag;			/* 0: private */
};

/* A private slot is one sequence's alone; a key has one slot, a slot one key. */
static void check_sharing(const struct slot_use *u, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		for (unsigned k = 0; k < i; k++) {
			bool same = u[i].slot == u[k].slot && u[i].space == u[k].space;

			if (u[i].space != u[k].space)
				continue;
			if (!u[i].tag || !u[k].tag)
				CHECK(!same, "slot %u is private and used twice", u[i].slot);
			else
				CHECK(same == (u[i].tag == u[k].tag && u[i].epoch == u[k].epoch),
				      "slots %u and %u", u[i].slot, u[k].slot);
		}
	}
}

static void check_rows(void)
{
	struct slot_use use[M_SESSIONS * M_SEQS * M_POS];
	unsigned nr = 0;

	for (unsigned i = 0; i < M_SESSIONS; i++) {
		for (uint32_t sq = 0; cli[i].life == ALIVE && sq < M_SEQS; sq++) {
			const struct m_seq *q = &m.seq[i][sq];

			for (uint32_t pos = 0; q->live && pos < q->len; pos++) {
				const struct m_pos *p = &q->pos[pos];
				uint32_t slot = (uint32_t)row_of(i, sq)[pos];
				uint64_t tag;

				CHECK((slot != 0) == (p->kind != M_NULL), "client %u seq %u pos %u",
				      i, sq, pos);
				if (!slot)
					continue;
				use[nr++] = (struct slot_use) {
					slot, q->space, q->epoch, p->kind == M_SEALED ? p->tag : 0,
				};
				memcpy(&tag, slot_mem(i, slot), sizeof(tag));
				if (is_filled(&cli[i], p))
					CHECK(tag == p->tag, "client %u seq %u pos %u slot %u has "
					      "another content", i, sq, pos, slot);
			}
		}
	}
	check_sharing(use, nr);
}

/* Nobody may read or write what is free; what is handed out again is fresh. */
static void poison_free_slots(void)
{
	static uint64_t owner[M_SPACES][64];

	for (uint32_t sp = 0; sp < M_SPACES; sp++) {
		const struct space *space = space_find(c.d->pool, geo[sp].name);
		const struct gpool *gp = space ? &space->gp[0] : NULL;

		for (uint32_t slot = 1; gp && slot < gp->max_slots; slot++) {
			const struct slab *s = gpool_slab(gp, slot);
			uint32_t id = gp->slot_owner[slot];
			uint64_t now = id ? (uint64_t)pool_block(c.d->pool, id)->gen << 32 | id : 0;
			uint64_t *mem;

			if (!s || (s->state != SLAB_ACTIVE && s->state != SLAB_DRAINING))
				continue;
			mem = core_mem(gp, slot, 0, 0);
			if (!id)
				*mem = POISON;
			else if (owner[sp][slot] != now && *mem == POISON)
				*mem = 0;
			owner[sp][slot] = now;
		}
	}
}

/* ------------------------------------------------------------------- GPU steps */

/*
 * A client reads its rows, and says later that the step was submitted; in between
 * it takes no completions and submits no entries.
 */
static void step_prepare(unsigned i)
{
	struct client *k = &cli[i];
	struct gpu_step *s = &k->step[(k->first + k->nr_steps) % NR_STEPS];

	if (k->nr_steps == NR_STEPS)
		return;
	*s = (struct gpu_step) { .step = ++k->submitted };
	for (uint32_t sq = 0; sq < M_SEQS; sq++) {
		struct m_seq *q = &m.seq[i][sq];

		if (!q->live || q->nr_structural || !rnd(3))
			continue;
		for (uint32_t pos = 0; pos < q->len; pos++) {
			struct m_pos *p = &q->pos[pos];
			bool scribble = p->kind == M_PRIVATE && !q->nr_pending && !rnd(8);

			if (p->kind == M_NULL)
				continue;
			if (!p->filled || scribble) {
				p->tag = pos < q->hole && !scribble ? m_tag(q->node[pos]) :
					 ++m.next_tag;
				p->filled = true;
				p->fill_step = s->step;
				s->a[s->nr].write = true;
			}
			s->a[s->nr].seq = sq;
			s->a[s->nr].pos = pos;
			s->a[s->nr].slot = (uint32_t)row_of(i, sq)[pos];
			s->a[s->nr].mem = slot_mem(i, s->a[s->nr].slot);
			s->a[s->nr++].tag = p->tag;
		}
	}
	k->prepared = true;
	k->nr_steps++;
}

static void step_submit(unsigned i)
{
	struct client *k = &cli[i];

	if (k->life != ALIVE)
		return;
	if (!k->prepared) {
		step_prepare(i);
		if (!rnd(4))
			return;
	}
	if (k->prepared) {
		core_step_submit(&k->cl, k->submitted);
		k->prepared = false;
	}
}

static void step_complete(unsigned i)
{
	struct client *k = &cli[i];
	struct gpu_step *s = &k->step[k->first];

	if (!k->nr_steps || (k->prepared && k->nr_steps == 1))
		return;
	for (unsigned n = 0; n < s->nr; n++) {
		uint64_t *mem = s->a[n].mem;

		CHECK(*mem != POISON, "client %u step %u: seq %u pos %u slot %u is free", i,
		      (unsigned)s->step, s->a[n].seq, s->a[n].pos, s->a[n].slot);
		CHECK(s->a[n].write || *mem == s->a[n].tag,
		      "client %u step %u: seq %u pos %u slot %u was reused", i,
		      (unsigned)s->step, s->a[n].seq, s->a[n].pos, s->a[n].slot);
		if (s->a[n].write)
			*mem = s->a[n].tag;
	}
	k->first = (k->first + 1) % NR_STEPS;
	k->nr_steps--;
	core_step_complete(&k->cl, s->step);
}

/* ------------------------------------------------------------------ submitting */

static bool is_structural(uint8_t op)
{
	return op != KVMD_OP_SEQ_EXTEND && op != KVMD_OP_SEQ_PUBLISH;
}

static bool names_seq(const struct kvmd_sqe *e)
{
	return e->opcode >= KVMD_OP_SEQ_OPEN && e->opcode <= KVMD_OP_SEQ_CLOSE;
}

/* Entries in flight of the sequences an entry names. */
static void pending(unsigned i, const struct kvmd_sqe *e, int add)
{
	struct m_seq *q = &m.seq[i][e->seq];

	if (!names_seq(e))
		return;
	q->nr_pending += (unsigned)add;
	q->nr_structural += is_structural(e->opcode) ? (unsigned)add : 0;
	q->nr_publishing += e->opcode == KVMD_OP_SEQ_PUBLISH ? (unsigned)add : 0;
	if (e->opcode == KVMD_OP_SEQ_FORK) {
		m.seq[i][e->first].nr_pending += (unsigned)add;
		m.seq[i][e->first].nr_structural += (unsigned)add;
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
		.space = cli[i].space, .epoch = m.epoch[cli[i].space], .gen = rnd(1000),
	};
	for (uint32_t n = 0; n < M_POS; n++)
		q->node[n] = node = m_child(node, rnd(5) ? 0 : rnd(3));
}

static struct kvmd_sqe entry(uint8_t op, unsigned i, uint32_t sq)
{
	return (struct kvmd_sqe) {
		.opcode = op, .seq = sq, .seq_gen = m.seq[i][sq].gen,
		.step = is_structural(op) && op != KVMD_OP_SEQ_OPEN && op != KVMD_OP_SEQ_RECV ?
			cli[i].submitted : 0,
	};
}

static uint64_t deadline(void)
{
	return c.d->now_ns + 100000ull * (1 + rnd(100));
}

static void do_open(unsigned i, uint32_t sq)
{
	struct kvmd_sqe e = entry(KVMD_OP_SEQ_OPEN, i, sq);
	struct m_seq q;

	if (m.seq[i][sq].live || m.seq[i][sq].nr_pending)
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
	struct m_seq *q = &m.seq[i][sq];

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

		if (p->kind == M_PRIVATE && (!p->filled || p->tag != m_tag(q->node[pos]))) {
			e.nr = pos - e.first;
			break;
		}
	}
	if (!e.nr)
		return;
	e.off = put_keys(i, q->node + e.first, e.nr);
	for (uint32_t pos = e.first; pos < e.first + e.nr && pos < q->len; pos++)
		if (q->pos[pos].kind == M_PRIVATE)
			m_note_publish(&m, q, pos);
	submit(i, &e, NULL, 0);
}

static void do_fork(unsigned i, uint32_t sq)
{
	struct kvmd_sqe e = entry(KVMD_OP_SEQ_FORK, i, sq);
	uint32_t to = rnd(M_SEQS);

	if (to == sq || m.seq[i][to].nr_pending || (m.seq[i][to].live && rnd(10)))
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

	if (m.seq[i][sq].live || m.seq[i][sq].nr_pending ||
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
	uint32_t len = m.seq[i][sq].len;

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
		e.first = rnd(m.seq[i][sq].len + 1);
		e.aux = deadline();
	}
	submit(i, &e, NULL, 0);
}

static void act(unsigned i)
{
	uint32_t sq = rnd(M_SEQS), what = rnd(100);
	bool live = m.seq[i][sq].live;

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

/* ----------------------------------------------------------------- completions */

/* What a client cannot foresee: shortage, or that somebody cancelled it. */
static bool is_shortage(int res)
{
	return res == -EAGAIN || res == -ENOMEM || res == -EDEADLK || res == -EDQUOT ||
	       res == -ECANCELED;
}

static void done_open(unsigned i, const struct flight *f, const struct kvmd_cqe *q)
{
	uint32_t lo, hi;

	if (q->res == -ECANCELED)
		return;
	CHECK(q->res >= 0, "open: %d", q->res);
	m_hit_bounds(&m, &f->seq, f->e.nr, &lo, &hi);
	if (f->e.flags & KVMD_OPEN_NO_HIT)
		lo = hi = 0;
	CHECK((uint32_t)q->res >= lo && (uint32_t)q->res <= hi, "hit %d, not %u to %u", q->res, lo,
	      hi);
	CHECK(q->v1 == (uint32_t)q->res * 16, "tokens %u", q->v1);
	CHECK((q->v2 == KVMD_MISS_NONE) == ((uint32_t)q->res == f->e.nr &&
	      !(f->e.flags & KVMD_OPEN_NO_HIT)), "reason %u", q->v2);
	m.seq[i][f->e.seq].live = true;
}

static void done_publish(unsigned i, const struct flight *f, const struct kvmd_cqe *q)
{
	struct m_seq *s = &m.seq[i][f->e.seq];
	uint32_t takes = m_publish_takes(s, f->e.first, f->e.nr), sealed, priv, lo, hi;

	if (q->res < 0) {
		CHECK(q->res == -EINVAL && !takes, "publish: %d, takes %u", q->res, takes);
		return;
	}
	m_publish(&m, s, f->e.first, takes, &sealed, &priv, &lo, &hi);
	CHECK((uint32_t)q->res == sealed && q->v1 == priv, "sealed %d, private %u, not %u, %u",
	      q->res, q->v1, sealed, priv);
	CHECK(q->v0 >= lo && q->v0 <= hi, "merged %u, not %u to %u", q->v0, lo, hi);
}

static void done_fork(unsigned i, const struct flight *f, const struct kvmd_cqe *q)
{
	struct m_seq *s = &m.seq[i][f->e.seq], *to = &m.seq[i][f->e.first];
	struct m_seq copy;

	if (q->res < 0) {
		CHECK(is_shortage(q->res) || (q->res == -EBUSY && to->live), "fork: %d", q->res);
		return;
	}
	CHECK(!to->live && (uint32_t)q->res == s->len, "fork: %d", q->res);
	CHECK(m_fork(s, &copy, f->e.arg) == q->v0, "copied %u", q->v0);
	copy.nr_pending = to->nr_pending;
	copy.nr_structural = to->nr_structural;
	*to = copy;
	m_touch(&m, to);
}

static void done_send(unsigned i, const struct flight *f, const struct kvmd_cqe *q)
{
	struct m_seq *s = &m.seq[i][f->e.seq];

	CHECK(!q->res, "send: %d", q->res);
	for (unsigned t = 0; t < M_TICKETS; t++) {
		if (tick[t].live)
			continue;
		tick[t] = (struct held_ticket) {
			true, (uint64_t)q->v1 << 32 | q->v0, c.d->now_ns, *s,
		};
		for (uint32_t p = 0; p < s->len; p++)
			tick[t].seq.pos[p].fill_step = 0;	/* its steps are over */
		break;
	}
	s->live = false;
}

static void done_recv(unsigned i, const struct flight *f, const struct kvmd_cqe *q)
{
	struct m_seq *s = &m.seq[i][f->e.seq];
	unsigned pend = s->nr_pending, structural = s->nr_structural;

	if (q->res == -ENOENT && c.d->now_ns >= f->ticket_ns + TICKET_NS)
		return;
	CHECK(f->ticket_ns && (uint32_t)q->res == f->seq.len, "recv: %d", q->res);
	*s = f->seq;
	s->live = true;
	s->nr_pending = pend;
	s->nr_structural = structural;
	s->nr_publishing = 0;
	m_touch(&m, s);
}

static void done_on_seq(unsigned i, const struct flight *f, const struct kvmd_cqe *q)
{
	struct m_seq *s = &m.seq[i][f->e.seq];
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

	m_hit_bounds(&m, &f->seq, f->e.nr, &lo, &hi);
	if (f->e.opcode == KVMD_OP_LOOKUP && f->seq.epoch == m.epoch[f->seq.space])
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
		m.seq[i][f->e.seq] = f->seq;
		m_open(&m, &m.seq[i][f->e.seq], (uint32_t)q->res);
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

static void collect(void)
{
	struct kvmd_cqe q;

	m.batch++;
	for (unsigned i = 0; i < M_SESSIONS; i++) {
		if (cli[i].life != ALIVE)
			continue;
		while (core_peek(&cli[i].cl, &q)) {
			cli[i].cl.cq_head++;
			completed(i, &q);
		}
	}
}

/* ------------------------------------------------------------ clients, the rest */

static void connect_client(unsigned i)
{
	struct client *k = &cli[i];

	*k = (struct client) { .space = i == M_SESSIONS - 1, .life = GONE };
	for (uint32_t sq = 0; sq < M_SEQS; sq++)
		m.seq[i][sq] = (struct m_seq) { 0 };
	core_client(&c, &k->cl, tenants[k->space], &geo[k->space], M_SEQS, M_POS * 16);
	k->life = ALIVE;
}

static void die(unsigned i)
{
	struct client *k = &cli[i];

	if (k->life != ALIVE)
		return;
	core_close(&k->cl);
	k->life = CLOSED;
	k->prepared = false;		/* what was prepared may be running */
	for (uint32_t sq = 0; sq < M_SEQS; sq++)
		m.seq[i][sq] = (struct m_seq) { 0 };
}

/* A dead client's steps run on until its process is gone. */
static void go_on_dying(unsigned i)
{
	struct client *k = &cli[i];

	if (k->life == CLOSED && !k->nr_steps) {
		core_gone(&k->cl);
		k->life = GONE;
	} else if (k->life == GONE) {
		connect_client(i);
	}
}

static void raise_epoch(uint32_t sp)
{
	struct space *space = space_find(c.d->pool, geo[sp].name);

	/* An open that is on its way could be of either epoch. */
	for (unsigned i = 0; i < M_SESSIONS; i++)
		for (unsigned n = 0; n < NR_OPS; n++)
			if (cli[i].life == ALIVE && cli[i].op[n].busy &&
			    cli[i].op[n].e.opcode == KVMD_OP_SEQ_OPEN)
				return;
	if (space && !space_raise_epoch(c.d->pool, space, 0)) {
		epoch_raised(c.d, space);
		m.epoch[sp]++;
	}
}

static void drain_some_slab(void)
{
	struct slab *s = &c.d->pool->slab[rnd(12)];

	if (s->state == SLAB_DRAINING && !s->taker) {
		slab_undrain(c.d->pool, s);
	} else if (s->state == SLAB_ACTIVE) {
		s->scan = 0;
		slab_drain(c.d->pool, s, NULL);
	}
	c.d->rc.kick = true;
}

/* They were seen before; now the daemon is told. */
static void take_completions(unsigned i)
{
	if (cli[i].life == ALIVE && !cli[i].prepared)
		st_rel(&cli[i].cl.s->ring.sh->cq_head, cli[i].cl.cq_head);
}

static void one_step(void)
{
	unsigned i = rnd(M_SESSIONS), what = rnd(1000);

	if (what < 600)
		act(i);
	else if (what < 740)
		step_submit(i);
	else if (what < 890)
		step_complete(i);
	else if (what < 930)
		take_completions(i);
	else if (what < 960)
		core_work(&c);
	else if (what < 963)
		die(i);
	else if (what < 965)
		raise_epoch(cli[i].space);
	else if (what < 970)
		drain_some_slab();
	else if (what < 990)
		go_on_dying(i);
	else
		c.skew_ns += what < 998 ? 200000 : TICKET_NS;
	c.skew_ns += rnd(20000);
	c.ticks += !rnd(10);
	if (rnd(3))
		core_turn(&c);
	if (rnd(2))
		for (i = 0; i < M_SESSIONS; i++)
			if (cli[i].life == ALIVE)
				core_pump(&cli[i].cl);
	/* The client must not run out of places for completions. */
	for (i = 0; i < M_SESSIONS; i++)
		if (cli[i].life == ALIVE && cli[i].cl.sq_tail - cli[i].cl.s->ring.sh->cq_head > 48)
			take_completions(i);
}

static void run(const char *const *opts, uint32_t nr_steps)
{
	core_init(&c, opts);
	c.base_ns = clock_ns();
	c.by_hand = true;
	c.after = collect;
	c.d->rc.throttle_ns = 0;	/* measured by the real clock */
	memset(&c.d->ix->seed, 7, sizeof(c.d->ix->seed));	/* a run can be repeated */
	m = (struct model) { .next_tag = 1 };
	memset(tick, 0, sizeof(tick));
	memset(cli, 0, sizeof(cli));
	core_geometry(&geo[0], "first", 1024, 41);
	core_geometry(&geo[1], "second", 1024, 33);
	for (unsigned i = 0; i < M_SESSIONS; i++)
		connect_client(i);
	for (uint32_t n = 0; n < nr_steps; n++) {
		one_step();
		poison_free_slots();
		check_rows();
		core_walk(&c);
	}
	for (unsigned i = 0; i < M_SESSIONS; i++) {
		die(i);
		while (cli[i].nr_steps)
			step_complete(i);
		if (cli[i].life == CLOSED)
			core_gone(&cli[i].cl);
	}
	c.skew_ns += 2 * TICKET_NS;
	core_settle(&c);
	core_walk(&c);
	/* What is left is cache, and nobody's. */
	for (uint32_t id = 1; id < c.d->pool->next_fresh; id++)
		ck_assert_uint_eq(pool_block(c.d->pool, id)->state == BLK_FREE ? 0 :
				  pool_block(c.d->pool, id)->leases, 0);
	seen[0] = stat_get(BLOCKS_HIT);
	seen[1] = stat_get(BLOCKS_PUBLISHED);
	seen[2] = stat_get(BLOCKS_MERGED);
	seen[3] = stat_get(BLOCKS_EVICTED);
	seen[4] = stat_get(SLABS_MOVED);
	seen[5] = stat_get(ALLOC_DEADLOCKS);
	core_exit(&c);
}

static uint32_t steps_of(uint32_t standard)
{
	const char *env = getenv("KVMD_MODEL_STEPS");

	return env ? (uint32_t)strtoul(env, NULL, 0) : standard;
}

static void start(int n)
{
	const char *env = getenv("KVMD_MODEL_SEED");

	seed = env ? strtoull(env, NULL, 0) : clock_ns() + (uint64_t)n;
	rng = seed;
	printf("seed %llu\n", (unsigned long long)seed);
	fflush(stdout);
}

static void report(void)
{
	for (unsigned op = 0; getenv("KVMD_MODEL_SEED") && op < KVMD_NR_OP; op++)
		if (nr_done[op])
			printf("%s: %llu, refused %llu\n", ring_op_name(op),
			       (unsigned long long)nr_done[op],
			       (unsigned long long)nr_refused[op]);
	if (getenv("KVMD_MODEL_SEED"))
		printf("hit %llu, sealed %llu, merged %llu, evicted %llu, moved %llu, deadlocks %llu\n",
		       (unsigned long long)seen[0], (unsigned long long)seen[1],
		       (unsigned long long)seen[2], (unsigned long long)seen[3],
		       (unsigned long long)seen[4], (unsigned long long)seen[5]);
}

#define COMMON	"pool.deadlock_time=100us", "pool.ticket_timeout=20ms", \
		"pool.step_stall=10000s", "pool.slab_bytes=8K", "pool.nodes=256", "tenant.other.pin_bytes=4K", \
		"tenant.default.pin_bytes=4K"

/* Slots are short: reclaim, waiting, deadlocks; slabs move between the spaces. */
START_TEST(memory_is_short)
{
	const char *const opts[] = {
		COMMON, "device.host-0.bytes=60K", "pool.policy=lru", "pool.blocks=200", NULL,
	};

	start(_i);
	run(opts, steps_of(40000));
	report();
}
END_TEST

/* Records are short before slots are. */
START_TEST(records_are_short)
{
	const char *const opts[] = {
		COMMON, "device.host-0.bytes=1M", "pool.policy=s3fifo", "pool.blocks=40", NULL,
	};

	start(_i + 1000);
	run(opts, steps_of(40000));
	report();
}
END_TEST

/* Watermarks, a max, a high and a min. */
START_TEST(tenants_have_limits)
{
	const char *const opts[] = {
		COMMON, "device.host-0.bytes=64K", "pool.blocks=100", "pool.wmark_min=5%",
		"pool.wmark_low=10%", "pool.wmark_high=20%", "tenant.default.hbm_max=30K",
		"tenant.default.hbm_high=24K", "tenant.other.hbm_min=8K", NULL,
	};

	start(_i + 2000);
	run(opts, steps_of(40000));
	report();
}
END_TEST

static void add(Suite *s, const char *name, const TTest *t)
{
	TCase *tc = tcase_create(name);

	tcase_set_timeout(tc, 600);
	tcase_add_loop_test(tc, t, 0, 4);
	suite_add_tcase(s, tc);
}

int main(void)
{
	Suite *s = suite_create("model");
	SRunner *sr;
	int failed;

	add(s, "memory", memory_is_short);
	add(s, "records", records_are_short);
	add(s, "tenants", tenants_have_limits);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
