/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin_list.c - what there can be many of: clients and sequences.
 *
 * Sequences are walked a bounded piece a turn. A listing ends after limit= rows
 * and names the place where the next one goes on ("next"; absent at the end).
 * What changes meanwhile may be seen or not, as in /proc.
 *
 * cur[0] is where the walk is, cur[1] how many rows are out.
 */
#include "kvmd/svc/admin.h"

#include <stdio.h>

#include "kvmd/lib/clock.h"

#define SEQ_ROWS	1024	/* positions of one sequence in one answer */

/* ------------------------------------------------------------------ clients */

static void put_ranks(const struct daemon *d, struct json *j, const struct session *s)
{
	json_arr(j, "ranks");
	for (uint32_t i = 0; i < POOL_MAX_CONNS; i++) {
		const struct conn *k = &d->conn[i];

		if (k->state == CONN_FREE || k->s != s)
			continue;
		json_obj(j, NULL);
		json_u64(j, "rank", k->rank);
		json_u64(j, "pid", (uint64_t)k->pid);
		json_u64(j, "uid", k->uid);
		json_bool(j, "connected", k->state != CONN_GONE);
		json_obj_end(j);
	}
	json_arr_end(j);
}

static void put_client(const struct daemon *d, struct json *j, const struct session *s, bool whole)
{
	uint64_t now = clock_ns();
	const struct conn *k = &d->conn[s->id];

	json_u64(j, "session", s->serial);
	json_str(j, "label", s->label);
	json_u64(j, "pid", k->s == s ? (uint64_t)k->pid : 0);
	json_str(j, "tenant", s->tenant ? s->tenant->name : NULL);
	json_str(j, "space", s->sp ? s->sp->name : NULL);
	json_str(j, "state", session_state_name(s->state));
	json_u64(j, "ranks_connected", s->nr_conns);
	json_u64(j, "ranks_wanted", s->nr_ranks);
	json_u64(j, "sequences", s->st.nr_live);
	json_u64(j, "max_sequences", s->st.max_seqs);
	json_u64(j, "operations", s->nr_ops - s->nr_op_free);
	json_u64(j, "waiting_operations", s->nr_waiting);
	json_u64(j, "copying_operations", s->nr_copying);
	json_u64(j, "completed_step", s->completed);
	json_bool(j, "stalled", s->stalled);
	json_u64(j, "unmapped_slabs", s->held);
	json_u64(j, "entries", s->nr_entries);
	json_u64(j, "asked_blocks", s->nr_asked_blocks);
	json_u64(j, "hit_blocks", s->nr_hit_blocks);
	json_u64(j, "pinned_bytes", s->pinned_bytes);
	json_u64(j, "ring_bytes", s->ring_bytes);
	json_u64(j, "quiet_ms", s->last_entry_ns && now > s->last_entry_ns ?
		 (now - s->last_entry_ns) / 1000000 : 0);
	json_i64(j, "end_errno", -s->end_err);
	if (whole)
		put_ranks(d, j, s);
}

static int list_clients(struct admin_conn *c)
{
	json_arr(&c->j, "clients");
	for (uint32_t i = 0; i < POOL_MAX_CONNS; i++) {
		if (c->d->session[i].state == SESSION_FREE)
			continue;
		json_obj(&c->j, NULL);
		put_client(c->d, &c->j, &c->d->session[i], false);
		json_obj_end(&c->j);
	}
	json_arr_end(&c->j);
	return 0;
}

static int show_client(struct admin_conn *c)
{
	struct session *s;
	int err = admin_arg_session(c, true, &s);

	if (!err)
		put_client(c->d, &c->j, s, true);
	return err;
}

/* ---------------------------------------------------------------- sequences */

static void put_seq(struct json *j, const struct session *s, uint32_t n)
{
	const struct seq *q = &s->st.seq[n];
	uint64_t positions = 0;
	bool hole = false;

	for (uint32_t g = 0; g < s->sp->nr_groups; g++) {
		positions += q->len[g];
		hole |= q->hole[g] != UINT32_MAX;
	}
	json_obj(j, NULL);
	json_u64(j, "session", s->serial);
	json_u64(j, "seq", n);
	json_u64(j, "generation", q->gen);
	json_str(j, "state", seq_state_name(q->state));
	json_u64(j, "tokens", (uint64_t)q->len[0] * s->sp->gp[0].geo.block_tokens);
	json_u64(j, "positions", positions);
	json_bool(j, "no_store", q->flags & SEQ_F_NO_STORE);
	json_bool(j, "has_hole", hole);
	json_bool(j, "swapped", q->flags & SEQ_F_SWAPPED);
	json_bool(j, "broken", q->flags & SEQ_F_BROKEN);
	json_bool(j, "loading", q->loading);
	json_u64(j, "ready_positions", q->loading ? q->rdy[0] : q->len[0]);
	json_bool(j, "stale", q->sid != s->sp->sid);
	json_u64(j, "publishing", q->nr_publishing);
	json_bool(j, "waits", q->blocked != SEQ_NO_OP);
	json_str(j, "waits_for", q->blocked != SEQ_NO_OP ?
		 op_state_name(s->ops[q->blocked].state) : NULL);
	json_obj_end(j);
}

/* cur[0]: session << 32 | sequence. */
static int list_seqs(struct admin_conn *c)
{
	uint64_t limit, offset, looked = 0;
	struct session *only;
	int err = admin_arg_bounds(c, &limit, &offset);

	if (!err)
		err = admin_arg_session(c, false, &only);
	if (err)
		return err;
	if (!c->started) {
		c->started = true;
		c->cur[0] = only ? max(offset, (uint64_t)only->id << 32) : offset;
		json_arr(&c->j, "sequences");
	}
	for (;;) {
		uint64_t i = c->cur[0] >> 32;
		uint32_t n = (uint32_t)c->cur[0];
		const struct session *s;

		if (i >= POOL_MAX_CONNS || (only && i > only->id))
			break;
		s = &c->d->session[i];
		if (s->state == SESSION_FREE || !s->st.seq || n >= s->st.max_seqs) {
			c->cur[0] = (i + 1) << 32;
			continue;
		}
		if (c->cur[1] == limit) {
			json_arr_end(&c->j);
			json_u64(&c->j, "next", c->cur[0]);
			return 0;
		}
		if (looked++ == ADMIN_SCAN)
			return ADMIN_MORE;
		c->cur[0]++;
		if (s->st.seq[n].state == SEQ_FREE)
			continue;
		c->cur[1]++;
		put_seq(&c->j, s, n);
		looked = min(looked + ADMIN_ROW_COST, (uint64_t)ADMIN_SCAN);
	}
	json_arr_end(&c->j);
	return 0;
}

static void put_position(struct json *j, const struct pool *p, uint32_t pos, uint32_t id)
{
	const struct block *b = pool_block(p, id);

	json_obj(j, NULL);
	json_u64(j, "position", pos);
	json_u64(j, "block", id);
	json_u64(j, "slot", id ? b->slot : 0);
	json_str(j, "tier", id ? admin_block_tier(b) : NULL);
	json_str(j, "state", id ? blk_state_name(b->state) : "null");
	json_u64(j, "leases", id ? b->leases : 0);
	json_bool(j, "private", id && (b->state == BLK_OPEN || b->state == BLK_SEALING));
	json_obj_end(j);
}

static int show_seq(struct admin_conn *c)
{
	uint64_t n, limit, offset, end;
	struct session *s;
	uint32_t g;
	int err = admin_arg_bounds(c, &limit, &offset);

	limit = min(limit, (uint64_t)SEQ_ROWS);
	if (!err)
		err = admin_arg_session(c, true, &s);
	if (!err)
		err = admin_arg_u64(c, "seq", UINT64_MAX, 0, UINT32_MAX, &n);
	if (err)
		return err;
	if (!s->st.seq || n >= s->st.max_seqs || s->st.seq[n].state == SEQ_FREE)
		return admin_refuse(c, -ENOENT, "session %u has no such sequence: see `kvctl seq`",
				    s->serial);
	err = admin_arg_group(c, s->sp, &g);
	if (err)
		return err;
	json_arr(&c->j, "sequences");
	put_seq(&c->j, s, (uint32_t)n);
	json_arr_end(&c->j);
	json_arr(&c->j, "positions");
	end = s->st.seq[n].len[g];
	if (offset < end && end - offset > limit)
		end = offset + limit;
	for (uint64_t i = offset; i < end; i++)
		put_position(&c->j, c->d->pool, (uint32_t)i, seq_blocks(&s->st, (uint32_t)n, g)[i]);
	json_arr_end(&c->j);
	if (offset < end && end < s->st.seq[n].len[g])
		json_u64(&c->j, "next", end);
	return 0;
}

const struct admin_verb admin_list_verbs[] = {
	{ "client",	"list",	"",					false, list_clients },
	{ "client",	"show",	"session ",				false, show_client },
	{ "seq",	"list",	"session limit offset ",		false, list_seqs },
	{ "seq",	"show",	"session seq group limit offset ",	false, show_seq },
	{ 0 },
};
