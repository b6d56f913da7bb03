/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin_pressure.c - pressure, and requests that wait until it is reached.
 *
 * `pressure wait' is answered when a resource was short for so much of a window
 * of time. It is looked at whenever the pressure is, and at the moment when it
 * would be reached if nothing changed: nobody polls.
 */
#include "kvmd/svc/admin.h"

#include "kvmd/lib/clock.h"

#define MIN_WINDOW_MS	100u
#define MAX_WINDOW_MS	600000u

static void put_psi(const struct psi *p, struct json *j, uint64_t now)
{
	static const char *const windows[NR_PSI_WINDOW] = { "avg10", "avg60", "avg300" };
	double avg[NR_PSI_KIND][NR_PSI_WINDOW];

	psi_averages(p, now, avg);
	json_str(j, "level", psi_level_name(p->level));
	for (unsigned k = 0; k < NR_PSI_KIND; k++) {
		json_obj(j, psi_kind_name(k));
		for (unsigned w = 0; w < NR_PSI_WINDOW; w++)
			json_f64(j, windows[w], (double)(int64_t)(avg[k][w] * 1e4 + 0.5) / 100);
		json_u64(j, "total_us", psi_total_ns(p, k, now) / 1000);
		json_obj_end(j);
	}
}

void admin_put_pressure(const struct daemon *d, struct json *j)
{
	uint64_t now = clock_ns();

	put_psi(&d->psi[PSI_HBM], j, now);	/* alone, as before there were others */
	for (unsigned i = 0; i < NR_PSI_RES; i++) {
		json_obj(j, psi_res_name(i));
		put_psi(&d->psi[i], j, now);
		json_obj_end(j);
	}
}

static int show_pressure(struct admin_conn *c)
{
	const struct pool *p = c->d->pool;
	struct json *j = &c->j;

	admin_put_pressure(c->d, j);
	json_arr(j, "spaces");
	for (uint32_t i = 0; i < POOL_MAX_SPACES; i++) {
		const struct space *sp = &p->space[i];
		uint64_t waiters = 0;

		if (!sp->in_use)
			continue;
		for (uint32_t g = 0; g < sp->nr_groups; g++)
			waiters += sp->gp[g].nr_waiters;
		json_obj(j, NULL);
		json_str(j, "space", sp->name);
		json_str(j, "level", psi_level_name(reclaim_pressure(sp)));
		json_u64(j, "waiting_allocations", waiters);
		json_obj_end(j);
	}
	json_arr_end(j);
	return 0;
}

/* -------------------------------------------------------------------- waiting */

/* One of @nr words that @name() knows; the first when it is not given. */
static int arg_word(struct admin_conn *c, const char *key, unsigned nr,
		    const char *(*name)(unsigned), unsigned *ret_i)
{
	const char *word = admin_arg(c, key);
	unsigned i = 0;

	while (word && i < nr && strcmp(word, name(i)))
		i++;
	if (i == nr)
		return admin_refuse(c, -EINVAL, "no %s '%.20s'", key, word);
	*ret_i = i;
	return 0;
}

static int wait_start(struct admin_conn *c, unsigned res)
{
	uint64_t permille, ms;
	unsigned kind = 0;
	int err = arg_word(c, "kind", NR_PSI_KIND, psi_kind_name, &kind);

	if (!err)
		err = admin_arg_u64(c, "permille", 0, 1, 1000, &permille);
	if (!err)
		err = admin_arg_u64(c, "window_ms", 0, MIN_WINDOW_MS, MAX_WINDOW_MS, &ms);
	if (!err && (!permille || !ms))
		err = admin_refuse(c, -EINVAL, "permille= or window_ms= is missing");
	if (err)
		return err;
	psi_trigger_set(&c->trigger, &c->d->psi[res], kind, ms * 1000000, ms * 1000 * permille,
			clock_ns());
	c->each_look = c->started = true;
	return 0;
}

static int pressure_wait(struct admin_conn *c)
{
	uint64_t stall, next;
	unsigned res = 0;
	int err = arg_word(c, "resource", NR_PSI_RES, psi_res_name, &res);

	if (!err && !c->started)
		err = wait_start(c, res);
	if (err)
		return err;
	if (!psi_trigger_look(&c->trigger, &c->d->psi[res], clock_ns(), &stall, &next)) {
		c->wake_ns = next;
		return ADMIN_LATER;
	}
	json_str(&c->j, "resource", psi_res_name(res));
	json_str(&c->j, "kind", psi_kind_name(c->trigger.kind));
	json_u64(&c->j, "window_ms", c->trigger.window_ns / 1000000);
	json_u64(&c->j, "wanted_us", c->trigger.stall_ns / 1000);
	json_u64(&c->j, "stall_us", stall / 1000);
	return 0;
}

const struct admin_verb admin_pressure_verbs[] = {
	{ "pressure",	"show",	"",					false, show_pressure },
	{ "pressure",	"wait",	"resource kind permille window_ms ",	false, pressure_wait },
	{ 0 },
};
