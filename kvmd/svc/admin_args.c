/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin_args.c - arguments of admin requests: numbers and the things they name.
 */
#include "kvmd/svc/admin.h"

#include "kvmd/lib/mem.h"

static const char *const misses[KVMD_NR_MISS] = {
	[KVMD_MISS_NONE]	= "none",
	[KVMD_MISS_NEVER]	= "never",
	[KVMD_MISS_EVICTED]	= "evicted",
	[KVMD_MISS_DROPPED]	= "dropped",
	[KVMD_MISS_EPOCH]	= "epoch",
	[KVMD_MISS_PENDING]	= "pending",
	[KVMD_MISS_REFUSED]	= "refused",
	[KVMD_MISS_UNASKED]	= "unasked",
	[KVMD_MISS_GROUP]	= "group",
};

static const char *const rules[KVMD_NR_RULE] = { "full", "window", "state" };

const char *admin_miss_name(unsigned miss)
{
	return miss < KVMD_NR_MISS ? misses[miss] : "?";
}

const char *admin_rule_name(unsigned rule)
{
	return rule < KVMD_NR_RULE ? rules[rule] : "?";
}

uint64_t admin_age_ms(const struct pool *p, uint32_t when)
{
	int32_t ticks = (int32_t)(p->now - when);

	return ticks > 0 ? (uint64_t)ticks * 1000 / POLICY_TICKS_PER_S : 0;
}

int admin_arg_u64(struct admin_conn *c, const char *key, uint64_t def, uint64_t lo, uint64_t hi,
		  uint64_t *ret_v)
{
	const char *val = admin_arg(c, key);
	uint64_t v = def;

	if (val && conf_parse_u64(val, &v))
		return admin_refuse(c, -EINVAL, "%s: '%.40s' is not a whole number", key, val);
	if (val && (v < lo || v > hi))
		return admin_refuse(c, -EINVAL, "%s: %llu is outside %llu to %llu", key,
				    (unsigned long long)v, (unsigned long long)lo,
				    (unsigned long long)hi);
	*ret_v = v;
	return 0;
}

int admin_arg_space(struct admin_conn *c, bool needed, struct space **ret_sp)
{
	const char *name = admin_arg(c, "space");
	struct space *sp = name ? space_find(c->d->pool, name) : NULL;

	if (!name && needed)
		return admin_refuse(c, -EINVAL, "space= is missing: see `kvctl space`");
	if (name && !sp)
		return admin_refuse(c, -ENOENT, "no space '%.63s': see `kvctl space`", name);
	*ret_sp = sp;
	return 0;
}

int admin_arg_group(struct admin_conn *c, const struct space *sp, uint32_t *ret_g)
{
	uint64_t g = 0;
	int err = admin_arg_u64(c, "group", 0, 0, KVMD_MAX_GROUPS - 1, &g);

	if (err)
		return err;
	if (g >= sp->nr_groups)
		return admin_refuse(c, -ENOENT, "space %s has %u groups: no group %llu", sp->name,
				    sp->nr_groups, (unsigned long long)g);
	*ret_g = (uint32_t)g;
	return 0;
}

int admin_arg_session(struct admin_conn *c, bool needed, struct session **ret_s)
{
	uint64_t serial = 0;
	int err = admin_arg_u64(c, "session", 0, 1, UINT32_MAX, &serial);

	*ret_s = NULL;
	if (err)
		return err;
	if (!serial)
		return needed ? admin_refuse(c, -EINVAL,
					     "session= is missing: see `kvctl client`") : 0;
	for (uint32_t i = 0; i < POOL_MAX_CONNS && !*ret_s; i++)
		if (c->d->session[i].state != SESSION_FREE && c->d->session[i].serial == serial)
			*ret_s = &c->d->session[i];
	if (!*ret_s)
		return admin_refuse(c, -ENOENT, "no session %llu: see `kvctl client`",
				    (unsigned long long)serial);
	return 0;
}

int admin_arg_slab(struct admin_conn *c, struct slab **ret_s)
{
	uint64_t id = 0;
	int err = admin_arg_u64(c, "slab", UINT64_MAX, 0, POOL_MAX_SLABS - 1, &id);

	if (err)
		return err;
	if (id == UINT64_MAX)
		return admin_refuse(c, -EINVAL, "slab= is missing: see `kvctl slab`");
	if (c->d->pool->slab[id].state == SLAB_NONE)
		return admin_refuse(c, -ENOENT, "no slab %llu: see `kvctl slab`",
				    (unsigned long long)id);
	*ret_s = &c->d->pool->slab[id];
	return 0;
}

int admin_arg_keys(struct admin_conn *c)
{
	const char *s = admin_arg(c, "keys");
	size_t nr = 0;

	if (!s || !*s)
		return admin_refuse(c, -EINVAL,
				    "keys= is missing: 64 hex digits each, commas between");
	c->keys = mem_calloc(strlen(s) / (2 * KVMD_KEY_BYTES) + 1, KVMD_KEY_BYTES);
	if (!c->keys)
		return admin_refuse(c, -ENOMEM, "out of memory for the keys");
	while (*s) {
		size_t len = strcspn(s, ",");

		if (admin_parse_hex(s, len, c->keys + nr * KVMD_KEY_BYTES, KVMD_KEY_BYTES))
			return admin_refuse(c, -EINVAL, "key %zu: 64 hex digits are wanted", nr);
		nr++;
		s += len + (s[len] == ',');
	}
	c->count[0] = nr;
	return 0;
}

int admin_arg_bounds(struct admin_conn *c, uint64_t *ret_limit, uint64_t *ret_offset)
{
	int err = admin_arg_u64(c, "limit", ADMIN_ROWS, 1, ADMIN_MAX_ROWS, ret_limit);

	return err ? err : admin_arg_u64(c, "offset", 0, 0, UINT64_MAX, ret_offset);
}
