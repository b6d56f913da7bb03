/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin_act.c - what an operator may do: raise an epoch, drop, inject faults,
 * check, reload, set the log level.
 *
 * Each takes effect at once or in bounded turns, says what it did, and is
 * logged with the uid that asked.
 */
#include "kvmd/svc/admin.h"

#include "kvmd/lib/clock.h"
#include "kvmd/lib/fault.h"
#include "kvmd/lib/log.h"
#include "kvmd/lib/stats.h"

#define DROP_BLOCKS	512	/* dropped in one turn */

/* ------------------------------------------------------------------- spaces */

/* count[0]: the former epoch; count[1]: what became of the new one is known. */
static void raise_durable(struct epoch_wait *w, int err)
{
	struct admin *a = w->d->admin;
	struct admin_conn *c = a ? &a->conn[w->conn] : NULL;

	if (!c || c->serial != w->connected_ns)
		return;
	c->count[1] = 1;
	if (c->state == ADMIN_WAIT)
		admin_resume(c, err);
	else
		c->wait_err = err;	/* at once, from within run() */
}

/* Not answered before it is on disk: a restart must not bring the former one back. */
static int raise_wait(struct admin_conn *c, struct space *sp)
{
	struct epoch_wait w = {
		.done = raise_durable, .conn = (uint32_t)(c - c->a->conn),
		.connected_ns = c->serial,
	};

	if (!c->d->tiers || !c->d->tiers->disk)
		c->count[1] = 1;
	else if (!epoch_make_durable(c->d, sp, &w))
		return admin_refuse(c, -EBUSY, "space %s is at epoch %llu now, but too many others "
				    "are being written to disk: raise it again", sp->name,
				    (unsigned long long)sp->epoch);
	return 0;
}

static int raise_begin(struct admin_conn *c, struct space *sp)
{
	uint64_t epoch;
	int err = admin_arg_u64(c, "epoch", 0, 1, UINT64_MAX, &epoch);

	if (err)
		return err;
	c->count[0] = sp->epoch;
	err = space_raise_epoch(c->d->pool, sp, epoch);
	if (err == -EINVAL)
		return admin_refuse(c, err, "space %s is at epoch %llu: a new one must be higher",
				    sp->name, (unsigned long long)sp->epoch);
	if (err)
		return admin_refuse(c, err, "too many former epochs still have blocks: try later");
	c->started = true;
	epoch_raised(c->d, sp);
	c->d->rc.kick = true;
	return raise_wait(c, sp);
}

static int space_raise(struct admin_conn *c)
{
	struct space *sp;
	int err = admin_arg_space(c, true, &sp);

	if (!err && !c->started)
		err = raise_begin(c, sp);
	if (err)
		return err;
	if (!c->count[1])
		return ADMIN_LATER;
	if (c->wait_err)
		return admin_refuse(c, c->wait_err, "space %s is at epoch %llu now, but a restart "
				    "may bring the former one back: disk: %s", sp->name,
				    (unsigned long long)sp->epoch, strerror(-c->wait_err));
	json_str(&c->j, "space", sp->name);
	json_u64(&c->j, "former_epoch", c->count[0]);
	json_u64(&c->j, "epoch", sp->epoch);
	json_u64(&c->j, "stale_blocks", sp->nr_stale);
	return 0;
}

/* Drop @b and what becomes a leaf by that, up to @budget. */
static void drop_chain(struct daemon *d, struct block *b, uint64_t *budget, uint64_t *ret_nr)
{
	while (*budget && index_can_evict(d->ix, b)) {
		uint32_t parent = b->parent;

		index_evict(d->ix, b, KVMD_MISS_DROPPED);
		stat_inc(BLOCKS_DROPPED);
		--*budget;
		++*ret_nr;
		if (!parent)
			return;
		b = pool_block(d->pool, parent);
	}
}

/*
 * Drop every idle block of a space or of all. From the last record down:
 * children mostly lie behind their parents, and a chain is climbed as it goes.
 * cur[0]: records still to look at, plus one; count[0]: dropped.
 */
static int space_drop(struct admin_conn *c)
{
	struct pool *p = c->d->pool;
	uint64_t budget = DROP_BLOCKS, looked = 0, all;
	struct space *sp;
	int err = admin_arg_u64(c, "all", 0, 1, 1, &all);

	if (!err)
		err = admin_arg_space(c, !all, &sp);
	if (err)
		return err;
	if (!c->started)
		c->cur[0] = p->next_fresh;
	c->started = true;
	while (c->cur[0] > 1) {
		struct block *b = pool_block(p, (uint32_t)c->cur[0] - 1);

		if (looked++ == ADMIN_SCAN || !budget)
			return ADMIN_MORE;
		if ((b->state == BLK_SEALED || b->state == BLK_EVICTING) &&
		    (!sp || p->sid[b->sid].sp == sp))
			drop_chain(c->d, b, &budget, &c->count[0]);
		if (budget)
			c->cur[0]--;
	}
	c->d->rc.kick = true;
	log_info("uid %u: dropped %llu idle blocks of %s", c->uid,
		 (unsigned long long)c->count[0], sp ? sp->name : "all spaces");
	json_str(&c->j, "space", sp ? sp->name : NULL);
	json_u64(&c->j, "dropped_blocks", c->count[0]);
	return 0;
}

/* ------------------------------------------------------------------- faults */

static int faults_arm(struct admin_conn *c)
{
	const char *spec = admin_arg(c, "spec");

	if (!spec)
		return admin_refuse(c, -EINVAL, "spec= is missing: SITE:KEY=VALUE,...");
	if (fault_arm(spec, c->msg, sizeof(c->msg)))
		return -EINVAL;
	log_warn("uid %u: fault injection armed: %s", c->uid, spec);
	json_str(&c->j, "armed", spec);
	return 0;
}

static int faults_disarm(struct admin_conn *c)
{
	fault_disarm();
	log_info("uid %u: fault injection disarmed", c->uid);
	json_bool(&c->j, "disarmed", true);
	return 0;
}

/* -------------------------------------------------------------------- check */

/* Walks the whole array in one go: on a large pool clients wait that long. */
static int check_run(struct admin_conn *c)
{
	uint64_t start = clock_ns();
	char msg[256] = "";
	int err = pool_check(c->d->pool, msg, sizeof(msg));
	const char *room = "pool";

	if (!err) {
		room = "index";
		err = index_check(c->d->ix, msg, sizeof(msg));
	}
	if (!err && c->d->tiers) {
		room = "tiers";
		err = tiers_check(c->d->tiers, msg, sizeof(msg));
	}
	if (err) {
		log_err("check of the %s: %s", room, msg);
		return admin_refuse(c, err, "%s: %s", room, msg);
	}
	json_bool(&c->j, "ok", true);
	json_u64(&c->j, "records", c->d->pool->next_fresh - 1);
	json_u64(&c->j, "duration_us", (clock_ns() - start) / 1000);
	return 0;
}

/* --------------------------------------------------------------- housekeeping */

static int conf_reload(struct admin_conn *c)
{
	int err = daemon_reload(c->d, c->msg, sizeof(c->msg));

	if (err)
		return err;
	log_info("uid %u: configuration reloaded", c->uid);
	json_bool(&c->j, "reloaded", true);
	json_str(&c->j, "message", c->msg);
	return 0;
}

static int log_level(struct admin_conn *c)
{
	const char *word = admin_arg(c, "level");
	enum log_level level;

	if (!word)
		return admin_refuse(c, -EINVAL, "level= is missing: err, warn, info or debug");
	if (log_level_parse(word, &level))
		return admin_refuse(c, -EINVAL, "no log level '%.20s': err, warn, info or debug",
				    word);
	log_set_level(level);
	json_str(&c->j, "level", log_level_name(level));
	return 0;
}

const struct admin_verb admin_act_verbs[] = {
	{ "space",	"raise",	"space epoch ",		false, space_raise },
	{ "space",	"drop",		"space all ",		false, space_drop },
	{ "fault",	"arm",		"spec ",		false, faults_arm },
	{ "fault",	"disarm",	"",			false, faults_disarm },
	{ "check",	"run",		"",			false, check_run },
	{ "conf",	"reload",	"",			false, conf_reload },
	{ "log",	"level",	"level ",		false, log_level },
	{ 0 },
};
