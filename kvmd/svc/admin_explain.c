/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin_explain.c - why does this key list hit, or miss?
 *
 * Walks the keys as an open would, without taking a lease or touching a block,
 * and says of each what is here and in which tier; of a key that is not, what
 * the ghosts remember. The prefix rule counts: in a full group a block behind the
 * first miss cannot be hit, even if it is there ("behind").
 *
 * cur[0]: next key; cur[1]: leading hits; count[0]: keys in c->keys; count[1..4]:
 * hits by where they are.
 */
#include "kvmd/svc/admin.h"

#define TURN_KEYS	128	/* looked up and written in one turn */

static void put_here(struct admin_conn *c, const struct block *b, bool expired)
{
	struct json *j = &c->j;

	json_u64(j, "block", pool_id(c->d->pool, b));
	json_str(j, "tier", admin_block_tier(b));
	json_u64(j, "slot", b->slot);
	json_u64(j, "leases", b->leases);
	json_u64(j, "uses", b->uses);
	json_bool(j, "expired", expired);
	if (b->leases)
		json_null(j, "last_used_ms");
	else
		json_u64(j, "last_used_ms", admin_age_ms(c->d->pool, b->last_use));
}

enum { HITS_HBM = 1, HITS_RAM, HITS_DISK, HITS_LOADING };

static unsigned hits_of(const struct block *b)
{
	if (b->state == BLK_LOADING)
		return HITS_LOADING;
	/* On its way out it is still where it was. */
	return b->slot ? HITS_HBM : b->ram ? HITS_RAM : HITS_DISK;
}

static void put_key(struct admin_conn *c, const struct space *sp, uint32_t g, uint64_t i)
{
	const uint8_t *key = c->keys + i * KVMD_KEY_BYTES;
	const struct pool *p = c->d->pool;
	struct index *ix = c->d->ix;
	uint64_t hash = index_hash(ix, sp->sid, (uint8_t)g, key);
	const struct block *b = index_find(ix, sp->sid, (uint8_t)g, key, hash);
	const struct ghost *gh = b ? NULL : ghosts_find(ix->ghosts, hash);
	bool expired = b && (b->flags & BLK_F_TTL) && (int32_t)(p->now - b->until) >= 0;
	bool leading = sp->gp[g].geo.rule == KVMD_RULE_FULL;
	bool hit = b && !expired && (!leading || c->cur[1] == i);
	struct json *j = &c->j;

	c->cur[1] += hit && c->cur[1] == i;
	if (hit)
		c->count[hits_of(b)]++;
	json_obj(j, NULL);
	json_u64(j, "position", i);
	json_hex(j, "key", key, KVMD_KEY_BYTES);
	json_bool(j, "hit", hit);
	json_str(j, "reason", hit ? "hit" : expired ? "expired" : b ? "behind" :
		 admin_miss_name(miss_reason(c->d, sp, g, key)));
	if (b) {
		put_here(c, b, expired);
	} else if (gh) {
		json_u64(j, "uses", gh->uses);
		json_u64(j, "last_used_ms", admin_age_ms(p, gh->when));
	}
	json_obj_end(j);
}

static int explain_run(struct admin_conn *c)
{
	struct space *sp;
	uint64_t end;
	uint32_t g;
	int err = admin_arg_space(c, true, &sp);

	if (!err)
		err = admin_arg_group(c, sp, &g);
	if (!err && !c->started)
		err = admin_arg_keys(c);
	if (err)
		return err;
	if (!c->started) {
		c->started = true;
		json_str(&c->j, "space", sp->name);
		json_u64(&c->j, "epoch", sp->epoch);
		json_u64(&c->j, "group", g);
		json_str(&c->j, "rule", admin_rule_name(sp->gp[g].geo.rule));
		json_u64(&c->j, "block_tokens", sp->gp[g].geo.block_tokens);
		json_u64(&c->j, "asked_keys", c->count[0]);
		json_arr(&c->j, "keys");
	}
	end = min(c->count[0], c->cur[0] + TURN_KEYS);
	for (; c->cur[0] < end; c->cur[0]++)
		put_key(c, sp, g, c->cur[0]);
	if (end < c->count[0])
		return ADMIN_MORE;
	json_arr_end(&c->j);
	json_u64(&c->j, "leading_hits", c->cur[1]);
	json_u64(&c->j, "hbm_hits", c->count[HITS_HBM]);
	json_u64(&c->j, "ram_hits", c->count[HITS_RAM]);
	json_u64(&c->j, "disk_hits", c->count[HITS_DISK]);
	json_u64(&c->j, "loading_hits", c->count[HITS_LOADING]);
	return 0;
}

const struct admin_verb admin_explain_verbs[] = {
	{ "explain",	"run",	"space group keys ",	true, explain_run },
	{ 0 },
};
