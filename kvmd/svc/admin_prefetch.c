/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin_prefetch.c - bring a key list up, as ADVISE willneed would.
 *
 * From the first key to the last, so that a chain comes from its root; it ends
 * at nothing: keys that are not cached are counted. cur[0]: next key; count[0]:
 * keys in c->keys, count[1..4]: of those in HBM, asked for, not cached, left out.
 */
#include "kvmd/svc/admin.h"

#include "kvmd/lib/log.h"

#define TURN_KEYS	1024	/* looked up in one turn */

enum { NR_KEYS, IN_HBM, ASKED, NOT_CACHED, LEFT_OUT };

static unsigned prefetch_key(struct daemon *d, const struct space *sp, uint32_t g,
			     const uint8_t *key)
{
	uint64_t hash = index_hash(d->ix, sp->sid, (uint8_t)g, key);
	struct block *b = index_find(d->ix, sp->sid, (uint8_t)g, key, hash);

	if (!index_hittable(d->ix, b))
		return NOT_CACHED;
	switch (block_willneed(d, b)) {
	case 0:
		return IN_HBM;
	case 1:
		return ASKED;
	default:
		return LEFT_OUT;
	}
}

static int prefetch_run(struct admin_conn *c)
{
	struct space *sp;
	uint64_t end;
	uint32_t g;
	int err = admin_arg_space(c, true, &sp);

	if (!err)
		err = admin_arg_group(c, sp, &g);
	if (!err && !c->d->tiers)
		err = admin_refuse(c, -ENOENT, "there is nothing below HBM: set ram.bytes in the "
				   "configuration and start anew");
	if (!err && !c->started)
		err = admin_arg_keys(c);
	if (err)
		return err;
	c->started = true;
	end = min(c->count[NR_KEYS], c->cur[0] + TURN_KEYS);
	for (; c->cur[0] < end; c->cur[0]++)
		c->count[prefetch_key(c->d, sp, g, c->keys + c->cur[0] * KVMD_KEY_BYTES)]++;
	if (end < c->count[NR_KEYS])
		return ADMIN_MORE;
	json_str(&c->j, "space", sp->name);
	json_u64(&c->j, "group", g);
	json_u64(&c->j, "keys", c->count[NR_KEYS]);
	json_u64(&c->j, "hbm_keys", c->count[IN_HBM]);
	json_u64(&c->j, "prefetched_keys", c->count[ASKED]);
	json_u64(&c->j, "missing_keys", c->count[NOT_CACHED]);
	json_u64(&c->j, "refused_keys", c->count[LEFT_OUT]);
	return 0;
}

const struct admin_verb admin_prefetch_verbs[] = {
	{ "prefetch",	"run",	"space group keys ",	true, prefetch_run },
	{ 0 },
};
