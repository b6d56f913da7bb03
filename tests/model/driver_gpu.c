/* SPDX-License-Identifier: Apache-2.0 */
/*
 * driver_gpu.c - GPU steps as the model test plays them; the bytes of slots.
 */
#include "driver.h"

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

void check_rows(void)
{
	struct slot_use use[M_SESSIONS * M_SEQS * M_POS];
	unsigned nr = 0;

	for (unsigned i = 0; i < M_SESSIONS; i++) {
		for (uint32_t sq = 0; cli[i].life == ALIVE && sq < M_SEQS; sq++) {
			const struct m_seq *q = &mm.seq[i][sq];

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

/* A worker thread may be reading or writing it at this moment. */
static bool is_copied(uint32_t id)
{
	for (uint32_t i = 0; i < NR_COPY_JOBS; i++)
		if (mc.d->job[i].busy && (mc.d->job[i].dst == id || mc.d->job[i].src == id))
			return true;
	return false;
}

/* Nobody may read or write what is free; what is handed out again is fresh. */
void poison_free_slots(void)
{
	static uint64_t owner[M_SPACES][64];

	for (uint32_t sp = 0; sp < M_SPACES; sp++) {
		const struct space *space = space_find(mc.d->pool, geo[sp].name);
		const struct gpool *gp = space ? &space->gp[0] : NULL;

		for (uint32_t slot = 1; gp && slot < gp->max_slots; slot++) {
			const struct slab *s = gpool_slab(gp, slot);
			uint32_t id = gp->slot_owner[slot];
			const struct block *b = pool_block(mc.d->pool, id);
			uint64_t now = id ? (uint64_t)b->gen << 32 | id : 0;
			uint64_t *mem;

			if (!s || (s->state != SLAB_ACTIVE && s->state != SLAB_DRAINING) ||
			    (id && owner[sp][slot] == now) || (id && is_copied(id)))
				continue;
			mem = core_mem(gp, slot, 0, 0);
			if (!id)
				*mem = POISON;
			else if (*mem == POISON)
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
		struct m_seq *q = &mm.seq[i][sq];

		/* An UNSHARE leaves the content as it is: reading goes on. */
		if (!q->live || q->nr_structural != q->nr_unsharing || !rnd(3))
			continue;
		for (uint32_t pos = 0; pos < q->len; pos++) {
			struct m_pos *p = &q->pos[pos];
			bool scribble = p->kind == M_PRIVATE && !q->nr_pending && !rnd(8);

			if (p->kind == M_NULL)
				continue;
			if (!p->filled || scribble) {
				p->tag = pos < q->hole && !scribble ? m_tag(q->node[pos]) :
					 ++mm.next_tag;
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

void step_submit(unsigned i)
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

void step_complete(unsigned i)
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
