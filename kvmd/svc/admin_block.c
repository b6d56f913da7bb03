/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin_block.c - block records, and where their bytes are.
 *
 * The array is walked a bounded piece a turn; see admin_list.c for how a listing
 * goes on. cur[0] is where the walk is, cur[1] how many rows are out.
 */
#include "kvmd/svc/admin.h"

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
	bool sealed = b->state == BLK_SEALED || b->state == BLK_LOADING ||
		      b->state == BLK_EVICTING;

	json_obj(j, NULL);
	json_u64(j, "block", pool_id(p, b));
	json_u64(j, "generation", b->gen);
	json_str(j, "state", blk_state_name(b->state));
	json_str(j, "space", sid->sp ? sid->sp->name : NULL);
	json_u64(j, "group", b->group);
	json_u64(j, "epoch", sid->epoch);
	json_bool(j, "stale", sid->sp && sid->sp->sid != b->sid);
	json_str(j, "tier", b->slot | b->ram | b->disk ? admin_block_tier(b) : NULL);
	json_u64(j, "slot", b->slot);
	json_u64(j, "ram_place", b->ram);
	json_u64(j, "disk_place", b->disk);
	json_bool(j, "ram_coded", b->ram && b->ram_coded);
	json_bool(j, "disk_coded", b->disk && b->disk_coded);
	json_bool(j, "moving", pool_is_moving(p, b));
	json_u64(j, "leases", b->leases);
	json_u64(j, "children", b->nr_kids);
	json_u64(j, "ram_children", b->nr_kids_ram);
	json_u64(j, "disk_children", b->nr_kids_disk);
	if (sealed)
		json_u64(j, "parent", b->parent);
	else
		json_null(j, "parent");
	if (sealed || block_is_lost(b) || b->owner >= POOL_MAX_CONNS)
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
	int group, state, level;	/* -1: any */
};

static int block_filter(struct admin_conn *c, struct block_filter *ret_f)
{
	const char *state = admin_arg(c, "state"), *tier = admin_arg(c, "tier");
	struct space *sp;
	uint64_t group;
	int err = admin_arg_space(c, false, &sp);

	if (!err)
		err = admin_arg_u64(c, "group", UINT64_MAX, 0, KVMD_MAX_GROUPS - 1, &group);
	if (err)
		return err;
	*ret_f = (struct block_filter) { .sp = sp, .group = (int)group, .state = -1, .level = -1 };
	for (int s = 0; state && s < NR_BLK_STATE; s++)
		if (!strcmp(state, blk_state_name((unsigned)s)))
			ret_f->state = s;
	if (state && ret_f->state < 0)
		return admin_refuse(c, -EINVAL, "no block state '%.20s'", state);
	for (int l = LEVEL_DISK; tier && l < NR_LEVEL; l++)
		if (!strcmp(tier, blk_level_name((unsigned)l)))
			ret_f->level = l;
	if (tier && ret_f->level < 0)
		return admin_refuse(c, -EINVAL, "no tier '%.20s': there are hbm, ram and disk",
				    tier);
	return 0;
}

/* Has @level its bytes, there or on the way there? */
static bool is_in(const struct block *b, int level)
{
	return level == LEVEL_HBM ? b->slot : level == LEVEL_RAM ? b->ram : b->disk;
}

static bool block_fits(const struct pool *p, const struct block *b, const struct block_filter *f)
{
	if (b->state == BLK_FREE || (f->state >= 0 && b->state != f->state))
		return false;
	if (f->group >= 0 && b->group != f->group)
		return false;
	if (f->level >= 0 && !is_in(b, f->level))
		return false;
	return !f->sp || p->sid[b->sid].sp == f->sp;
}

static int list_blocks(struct admin_conn *c)
{
	const struct pool *p = c->d->pool;
	uint64_t limit, offset, looked = 0;
	struct block_filter f;
	int err = admin_arg_bounds(c, &limit, &offset);

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

const struct admin_verb admin_block_verbs[] = {
	{ "block",	"list",	"space group state tier limit offset ",	false, list_blocks },
	{ "block",	"show",	"block space group key ",		false, show_block },
	{ 0 },
};
