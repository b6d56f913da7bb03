/* SPDX-License-Identifier: Apache-2.0 */
/*
 * seq.c - sequence tables and rows.
 */
#include "kvmd/index/seq.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kvmd/lib/mem.h"
#include "kvmd/lib/stats.h"

static const char *const names[NR_SEQ_STATE] = { "free", "live", "closing" };

const char *seq_state_name(unsigned state)
{
	return state < NR_SEQ_STATE ? names[state] : "?";
}

/* ------------------------------------------------------------------ set-up */

uint64_t seqtab_rows_bytes(const struct seqtab *st)
{
	return align_up(st->stride * st->max_seqs, 4096);
}

uint64_t seqtab_seqs_bytes(const struct seqtab *st)
{
	return align_up((uint64_t)st->max_seqs * sizeof(struct seq), 4096);
}

void seqtab_shape(struct seqtab *st, const struct space *sp, uint32_t max_tokens)
{
	st->stride = sizeof(struct kvmd_seq_status);
	for (uint32_t g = 0; g < sp->nr_groups; g++) {
		st->row_off[g] = (uint32_t)st->stride;
		st->row_blocks[g] = (uint32_t)div_round_up(max_tokens,
							   sp->gp[g].geo.block_tokens);
		st->stride += align_up(st->row_blocks[g] * sizeof(int32_t), 64);
	}
}

/*
 * The client may only read. FUTURE_WRITE would lock out the next daemon as well:
 * tables that are kept for it are handed out as a read-only description of a file
 * that only its owner can open anew.
 */
int seqtab_rows_open(struct seqtab *st)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", st->rows_fd);
	if (fchmod(st->rows_fd, 0600))
		return -errno;
	st->client_fd = open(path, O_RDONLY | O_CLOEXEC);
	return st->client_fd < 0 ? -errno : 0;
}

static int rows_seal(struct seqtab *st, bool kept)
{
	int err = mem_fd_seal(st->rows_fd, !kept);

	st->client_fd = st->rows_fd;
	return err || !kept ? err : seqtab_rows_open(st);
}

int seqtab_create(struct index *ix, struct space *sp, uint32_t max_seqs, uint32_t max_tokens,
		  struct seqtab *ret_st)
{
	struct seqtab st = { .ix = ix, .sp = sp, .max_seqs = max_seqs, .client_fd = -1 };
	void *map;
	int err;

	seqtab_shape(&st, sp, max_tokens);
	st.seq_fd = mem_fd_create("kvmd-seqs", seqtab_seqs_bytes(&st), false, &map);
	if (st.seq_fd < 0)
		return st.seq_fd;
	st.seq = map;
	st.mirror_fd = mem_fd_create("kvmd-mirror", seqtab_rows_bytes(&st), false, &map);
	if (st.mirror_fd < 0) {
		err = st.mirror_fd;
		goto err_close_seqs;
	}
	st.mirror = map;
	st.rows_fd = mem_fd_create("kvmd-tables", seqtab_rows_bytes(&st), false, &map);
	if (st.rows_fd < 0) {
		err = st.rows_fd;
		goto err_close_mirror;
	}
	st.rows = map;
	err = rows_seal(&st, ix->kept);
	if (err)
		goto err_close_rows;
	*ret_st = st;
	return 0;

err_close_rows:
	munmap(st.rows, seqtab_rows_bytes(&st));
	close(st.rows_fd);
err_close_mirror:
	munmap(st.mirror, seqtab_rows_bytes(&st));
	close(st.mirror_fd);
err_close_seqs:
	munmap(st.seq, seqtab_seqs_bytes(&st));
	close(st.seq_fd);
	return err;
}

void seqtab_destroy(struct seqtab *st)
{
	if (!st->seq)
		return;
	munmap(st->rows, seqtab_rows_bytes(st));
	munmap(st->mirror, seqtab_rows_bytes(st));
	munmap(st->seq, seqtab_seqs_bytes(st));
	if (st->client_fd != st->rows_fd)
		close(st->client_fd);
	close(st->rows_fd);
	close(st->mirror_fd);
	close(st->seq_fd);
	memset(st, 0, sizeof(*st));
}

/* --------------------------------------------------------------- sequences */

void seq_start(struct seqtab *st, uint32_t s, uint32_t gen)
{
	struct seq *q = &st->seq[s];

	*q = (struct seq) {
		.gen = gen,
		.sid = st->sp->sid,
		.q_head = q->q_head,
		.q_tail = q->q_tail,
		.blocked = q->blocked,
		.kicking = q->kicking,
	};
	for (uint32_t g = 0; g < st->sp->nr_groups; g++)
		q->hole[g] = UINT32_MAX;
	q->state = SEQ_LIVE;
	st->nr_live++;
	seq_tell_status(st, s);
}

/* Does a reader find @b's bytes in its slot? */
static bool is_there(const struct block *b)
{
	return b->slot && b->state != BLK_LOADING;
}

bool seq_arrivals(struct seqtab *st, uint32_t s, uint32_t g, uint32_t begun, bool *ret_lost)
{
	struct seq *q = &st->seq[s];
	const uint32_t *blocks = seq_blocks(st, s, g);
	int32_t *row = seq_row(st, s, g);

	for (; q->rdy[g] < q->len[g]; q->rdy[g]++) {
		uint32_t id = blocks[q->rdy[g]];
		const struct block *b = pool_block(st->ix->pool, id);

		if (!id)
			continue;
		if (!is_there(b)) {
			/* Not on its way any more, and without bytes in HBM: it failed. */
			*ret_lost |= b->state != BLK_LOADING && q->rdy[g] < begun;
			return false;
		}
		/* Pairs with the client's acquire of status.ready: bytes before it. */
		st_rel(&row[q->rdy[g]], (int32_t)b->slot);
	}
	return true;
}

void seq_tell_status(struct seqtab *st, uint32_t s)
{
	const struct seq *q = &st->seq[s];
	struct kvmd_seq_status *w = seq_status(st, s);
	uint32_t ready = q->loading || q->load_err ? q->rdy[0] : q->len[0];

	st_rlx(&w->gen, q->gen);
	st_rlx(&w->err, q->load_err);
	st_rlx(&w->coming, q->len[0] - ready);
	st_rel(&w->ready, ready);
}

void seq_cut(struct seqtab *st, uint32_t s, uint32_t g, uint32_t nr)
{
	struct seq *q = &st->seq[s];
	uint32_t *blocks = seq_blocks(st, s, g);

	while (q->len[g] > nr) {
		uint32_t pos = --q->len[g], id = blocks[pos];

		if (!id)
			continue;
		seq_set(st, s, g, pos, 0);
		index_put(st->ix, pool_block(st->ix->pool, id));
	}
}

void seq_append(struct seqtab *st, uint32_t s, uint32_t g, const uint32_t *ids, uint32_t nr)
{
	struct seq *q = &st->seq[s];
	uint32_t *blocks = seq_blocks(st, s, g) + q->len[g];
	int32_t *row = seq_row(st, s, g) + q->len[g];
	const struct pool *p = st->ix->pool;

	for (uint32_t i = 0; i < nr; i++) {
		blocks[i] = ids[i];
		st_rlx(&row[i], (int32_t)pool_block(p, ids[i])->slot);
	}
	q->len[g] += nr;
}

bool seq_drain(struct seqtab *st, uint32_t s, uint32_t *budget)
{
	struct seq *q = &st->seq[s];

	for (uint32_t g = st->sp->nr_groups; g-- > 0;) {
		uint32_t *blocks = seq_blocks(st, s, g);
		int32_t *row = seq_row(st, s, g);
		uint32_t len = q->len[g];

		while (len && *budget) {
			uint32_t id = blocks[--len];

			--*budget;
			blocks[len] = 0;
			st_rlx(&row[len], KVMD_SLOT_NULL);
			if (id)
				index_put(st->ix, pool_block(st->ix->pool, id));
		}
		q->len[g] = len;
		if (len)
			return false;
	}
	q->state = SEQ_FREE;
	st->nr_live--;
	return true;
}

uint32_t seq_nr_blocks(const struct seqtab *st, uint32_t s)
{
	const struct seq *q = &st->seq[s];
	uint32_t nr = 0;

	for (uint32_t g = 0; g < st->sp->nr_groups; g++) {
		const uint32_t *blocks = seq_blocks(st, s, g);

		for (uint32_t i = 0; i < q->len[g]; i++)
			nr += blocks[i] != 0;
	}
	return nr;
}
