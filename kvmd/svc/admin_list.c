/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin_list.c - what there can be many of: clients, sequences, blocks.
 *
 * Blocks and sequences are walked a bounded piece a turn. A listing ends after
 * limit= rows and names the place where the next one goes on ("next"; absent at
 * the end). What changes meanwhile may be seen or not, as in /proc.
 *
 * cur[0] is where the walk is, cur[1] how many rows are out.
 */
#include "kvmd/svc/admin.h"

#include <stdio.h>

#include "kvmd/lib/clock.h"

#define SEQ_ROWS	1024	/* positions of one sequence in one answer */

static int list_bounds(struct admin_conn *c, uint64_t *ret_limit, uint64_t *ret_offset)
{
	int err = admin_arg_u64(c, "limit", ADMIN_ROWS, 1, ADMIN_MAX_ROWS, ret_limit);

	return err ? err : admin_arg_u64(c, "offset", 0, 0, UINT64_MAX, ret_offset);
}

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
	int err = list_bounds(c, &limit, &offset);

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
	int err = list_bounds(c, &limit, &offset);

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

/* ------------------------------------------------------------------- blocks */

static const struct {
	uint8_t flag;
	const char *name;
} flag_names[] = {
	{ BLK_F_NO_STORE, "no_store" }, { BLK_F_TTL, "ttl" }, { BLK_F_PRIO, "prio" },
	{ BLK_F_COLD, "cold" }, { BLK_F_IDLE, "idle" },
};

static void put_block(const struct daemon *d, struct json *j, const struct block *b)
{
	const struct pool *p = d->pool;
	const struct sid_info *sid = &p->sid[b->sid];
	bool sealed = b->state == BLK_SEALED;

	json_obj(j, NULL);
	json_u64(j, "block", pool_id(p, b));
	json_u64(j, "generation", b->gen);
	json_str(j, "state", blk_state_name(b->state));
	json_str(j, "space", sid->sp ? sid->sp->name : NULL);
	json_u64(j, "group", b->group);
	json_u64(j, "epoch", sid->epoch);
	json_bool(j, "stale", sid->sp && sid->sp->sid != b->sid);
	json_u64(j, "slot", b->slot);
	json_u64(j, "leases", b->leases);
	json_u64(j, "children", b->nr_kids);
	if (sealed)
		json_u64(j, "parent", b->parent);
	else
		json_null(j, "parent");
	if (sealed || b->owner >= POOL_MAX_CONNS)
		json_null(j, "owner_session");
	else
		json_u64(j, "owner_session", d->session[b->owner].serial);
	json_u64(j, "position", b->pos);
	json_u64(j, "uses", b->uses);
	json_u64(j, "priority", b->prio);
	json_arr(j, "flags");
	for (size_t i = 0; i < ARRAY_SIZE(flag_names); i++)
		if (b->flags & flag_names[i].flag)
			json_str(j, NULL, flag_names[i].name);
	json_arr_end(j);
	if (b->flags & BLK_F_IDLE)
		json_u64(j, "idle_ms", admin_age_ms(p, b->last_use));
	else
		json_null(j, "idle_ms");
	if (sealed || b->state == BLK_SEALING)
		json_hex(j, "key", b->key, sizeof(b->key));
	else
		json_null(j, "key");
	json_obj_end(j);
}

struct block_filter {
	const struct space *sp;
	int group, state;		/* -1: any */
};

static int block_filter(struct admin_conn *c, struct block_filter *ret_f)
{
	const char *state = admin_arg(c, "state");
	struct space *sp;
	uint64_t group;
	int err = admin_arg_space(c, false, &sp);

	if (!err)
		err = admin_arg_u64(c, "group", UINT64_MAX, 0, KVMD_MAX_GROUPS - 1, &group);
	if (err)
		return err;
	*ret_f = (struct block_filter) { .sp = sp, .group = (int)group, .state = -1 };
	for (int s = 0; state && s < NR_BLK_STATE; s++)
		if (!strcmp(state, blk_state_name((unsigned)s)))
			ret_f->state = s;
	if (state && ret_f->state < 0)
		return admin_refuse(c, -EINVAL, "no block state '%.20s'", state);
	return 0;
}

static bool block_fits(const struct pool *p, const struct block *b, const struct block_filter *f)
{
	if (b->state == BLK_FREE || (f->state >= 0 && b->state != f->state))
		return false;
	if (f->group >= 0 && b->group != f->group)
		return false;
	return !f->sp || p->sid[b->sid].sp == f->sp;
}

static int list_blocks(struct admin_conn *c)
{
	const struct pool *p = c->d->pool;
	uint64_t limit, offset, looked = 0;
	struct block_filter f;
	int err = list_bounds(c, &limit, &offset);

	if (!err)
		err = block_filter(c, &f);
	if (err)
		return err;
	if (!c->started) {
		c->started = true;
		c->cur[0] = max(offset, (uint64_t)1);
		json_arr(&c->j, "blocks");
	}
	for (; c->cur[0] < p->next_fresh; c->cur[0]++) {
		const struct block *b = pool_block(p, (uint32_t)c->cur[0]);

		if (looked++ == ADMIN_SCAN)
			return ADMIN_MORE;
		if (!block_fits(p, b, &f))
			continue;
		if (c->cur[1]++ == limit) {
			json_arr_end(&c->j);
			json_u64(&c->j, "next", c->cur[0]);
			return 0;
		}
		put_block(c->d, &c->j, b);
		looked = min(looked + ADMIN_ROW_COST, (uint64_t)ADMIN_SCAN);
	}
	json_arr_end(&c->j);
	return 0;
}

static int find_by_key(struct admin_conn *c, const char *hex, struct block **ret_b)
{
	uint8_t key[KVMD_KEY_BYTES];
	struct space *sp;
	uint32_t g;
	int err = admin_arg_space(c, true, &sp);

	if (!err)
		err = admin_arg_group(c, sp, &g);
	if (!err && admin_parse_hex(hex, strlen(hex), key, sizeof(key)))
		err = admin_refuse(c, -EINVAL, "key: 64 hex digits are wanted");
	if (!err)
		*ret_b = index_find(c->d->ix, sp->sid, (uint8_t)g, key,
				    index_hash(c->d->ix, sp->sid, (uint8_t)g, key));
	return err;
}

static int show_block(struct admin_conn *c)
{
	const char *hex = admin_arg(c, "key");
	const struct pool *p = c->d->pool;
	struct block *b = NULL;
	uint64_t id;
	int err;

	if (hex) {
		err = find_by_key(c, hex, &b);
	} else {
		err = admin_arg_u64(c, "block", 0, 1, p->nr_blocks, &id);
		if (!err && !id)
			err = admin_refuse(c, -EINVAL, "block= or key= is missing");
		else if (!err && id < p->next_fresh)
			b = pool_block(p, (uint32_t)id);
	}
	if (err)
		return err;
	if (!b || b->state == BLK_FREE)
		return admin_refuse(c, -ENOENT,
				    "no such block: `kvctl explain` says why a key is not here");
	json_arr(&c->j, "blocks");
	put_block(c->d, &c->j, b);
	json_arr_end(&c->j);
	return 0;
}

const struct admin_verb admin_list_verbs[] = {
	{ "client",	"list",	"",					false, list_clients },
	{ "client",	"show",	"session ",				false, show_client },
	{ "seq",	"list",	"session limit offset ",		false, list_seqs },
	{ "seq",	"show",	"session seq group limit offset ",	false, show_seq },
	{ "block",	"list",	"space group state limit offset ",	false, list_blocks },
	{ "block",	"show",	"block space group key ",		false, show_block },
	{ 0 },
};
