/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin_slab.c - slabs: where they are, what keeps one, draining it.
 */
#include "kvmd/svc/admin.h"

#include <stdio.h>

#include "kvmd/lib/clock.h"
#include "kvmd/lib/log.h"

static uint32_t nr_bits(const uint64_t *map)
{
	uint32_t nr = 0;

	for (uint32_t i = 0; i < POOL_MAX_CONNS / 64; i++)
		nr += (uint32_t)__builtin_popcountll(map[i]);
	return nr;
}

static void slab_why(const struct slab *s, char *buf, size_t n)
{
	buf[0] = '\0';
	switch (s->state) {
	case SLAB_CREATING:
		snprintf(buf, n, "being created");
		break;
	case SLAB_ANNOUNCED:
		snprintf(buf, n, "%u clients have yet to map it", nr_bits(s->unacked));
		break;
	case SLAB_DRAINING:
		snprintf(buf, n, "%u blocks are still in it", slab_nr_used(s));
		break;
	case SLAB_UNMAPPING:
		snprintf(buf, n, "%u clients have yet to unmap it", nr_bits(s->unacked));
		break;
	case SLAB_WAIT_TENANT:
		snprintf(buf, n, "%u processes of the former tenant still live", nr_bits(s->ever));
		break;
	case SLAB_SCRUBBING:
		snprintf(buf, n, "being zeroed");
		break;
	case SLAB_DESTROYING:
		snprintf(buf, n, "being given back to the device");
		break;
	default:
		break;
	}
}

static void put_slab(struct json *j, const struct slab *s, uint64_t now_ns)
{
	char why[128];

	slab_why(s, why, sizeof(why));
	json_u64(j, "slab", s->id);
	json_u64(j, "generation", s->gen);
	json_str(j, "state", slab_state_name(s->state));
	json_str(j, "space", s->gp->sp->name);
	json_u64(j, "group", s->gp->idx);
	json_str(j, "device", s->gp->sp->dev[0]->name);
	json_u64(j, "first_slot", s->first);
	json_u64(j, "slots", s->nr);
	json_u64(j, "used_slots", s->state == SLAB_CREATING ? 0 : slab_nr_used(s));
	json_u64(j, "bytes", admin_slab_bytes(s));
	json_u64(j, "mapped_clients", nr_bits(s->mapped));
	json_u64(j, "owing_clients", nr_bits(s->unacked));
	json_str(j, "taker_space", s->taker ? s->taker->sp->name : NULL);
	if (s->deadline_ns)
		json_i64(j, "deadline_ms", ((int64_t)s->deadline_ns - (int64_t)now_ns) / 1000000);
	else
		json_null(j, "deadline_ms");
	json_str(j, "why", why);
}

static int list_slabs(struct admin_conn *c)
{
	uint64_t now = clock_ns(), looked = 0;
	struct space *sp;
	int err = admin_arg_space(c, false, &sp);

	if (err)
		return err;
	if (!c->started) {
		c->started = true;
		json_arr(&c->j, "slabs");
	}
	for (; c->cur[0] < POOL_MAX_SLABS; c->cur[0]++) {
		const struct slab *s = &c->d->pool->slab[c->cur[0]];

		if (s->state == SLAB_NONE || (sp && s->gp->sp != sp))
			continue;
		if (looked >= ADMIN_SCAN)
			return ADMIN_MORE;
		looked += ADMIN_ROW_COST;
		json_obj(&c->j, NULL);
		put_slab(&c->j, s, now);
		json_obj_end(&c->j);
	}
	json_arr_end(&c->j);
	return 0;
}

static void put_holders(const struct daemon *d, struct json *j, const struct slab *s)
{
	json_arr(j, "holders");
	for (uint32_t i = 0; i < POOL_MAX_CONNS; i++) {
		const struct conn *k = &d->conn[i];

		if (!slab_bit(s->mapped, i) && !slab_bit(s->ever, i))
			continue;
		json_obj(j, NULL);
		json_u64(j, "pid", (uint64_t)k->pid);
		json_u64(j, "session", k->s ? k->s->serial : 0);
		json_bool(j, "mapped", slab_bit(s->mapped, i));
		json_bool(j, "owes_answer", slab_bit(s->unacked, i));
		json_obj_end(j);
	}
	json_arr_end(j);
}

enum { HELD_LEASED, HELD_PRIVATE, HELD_PARENT, HELD_IDLE };

/* cur[0]: slot of the slab; count[]: blocks by what holds them. */
static int show_slab(struct admin_conn *c)
{
	const struct pool *p = c->d->pool;
	struct slab *s;
	int err = admin_arg_slab(c, &s);

	if (err)
		return err;
	if (c->started && c->cur[1] != s->gen)
		return admin_refuse(c, -EAGAIN, "slab %u changed hands meanwhile", s->id);
	c->started = true;
	c->cur[1] = s->gen;
	for (uint32_t looked = 0; c->cur[0] < s->nr; c->cur[0]++) {
		uint32_t id = s->gp->slot_owner[s->first + c->cur[0]];
		const struct block *b = pool_block(p, id);

		if (looked++ == ADMIN_SCAN)
			return ADMIN_MORE;
		if (!id)
			continue;
		if (b->state != BLK_SEALED)
			c->count[HELD_PRIVATE]++;
		else if (b->leases)
			c->count[HELD_LEASED]++;
		else if (b->nr_kids)
			c->count[HELD_PARENT]++;
		else
			c->count[HELD_IDLE]++;
	}
	put_slab(&c->j, s, clock_ns());
	json_u64(&c->j, "leased_blocks", c->count[HELD_LEASED]);
	json_u64(&c->j, "private_blocks", c->count[HELD_PRIVATE]);
	json_u64(&c->j, "parent_blocks", c->count[HELD_PARENT]);
	json_u64(&c->j, "idle_blocks", c->count[HELD_IDLE]);
	put_holders(c->d, &c->j, s);
	return 0;
}

/* ----------------------------------------------------------------- draining */

static int drain_start(struct admin_conn *c)
{
	struct slab *s;
	int err = admin_arg_slab(c, &s);

	if (err)
		return err;
	if (s->state != SLAB_ACTIVE)
		return admin_refuse(c, -EBUSY, "slab %u is %s, only an active one can be drained",
				    s->id, slab_state_name(s->state));
	log_info("uid %u: draining slab %u of space %s", c->uid, s->id, s->gp->sp->name);
	s->scan = 0;
	json_u64(&c->j, "slab", s->id);
	json_u64(&c->j, "used_slots", slab_nr_used(s));
	slab_drain(c->d->pool, s, NULL);
	c->d->rc.kick = true;
	json_str(&c->j, "state", slab_state_name(s->state));
	return 0;
}

static int drain_stop(struct admin_conn *c)
{
	struct slab *s;
	int err = admin_arg_slab(c, &s);

	if (err)
		return err;
	if (s->state != SLAB_DRAINING)
		return admin_refuse(c, -EBUSY, "slab %u is %s, only a draining one can be kept",
				    s->id, slab_state_name(s->state));
	log_info("uid %u: no longer draining slab %u of space %s", c->uid, s->id,
		 s->gp->sp->name);
	slab_undrain(c->d->pool, s);
	c->d->rc.kick = true;
	json_u64(&c->j, "slab", s->id);
	json_str(&c->j, "state", slab_state_name(s->state));
	return 0;
}

const struct admin_verb admin_slab_verbs[] = {
	{ "slab",	"list",		"space ",	false, list_slabs },
	{ "slab",	"show",		"slab ",	false, show_slab },
	{ "drain",	"start",	"slab ",	false, drain_start },
	{ "drain",	"stop",		"slab ",	false, drain_stop },
	{ 0 },
};
