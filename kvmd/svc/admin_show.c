/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin_show.c - what the daemon says of itself: status, counters, spaces,
 * tenants, devices.
 *
 * Each is a walk over a small fixed table; what is as long as the pool is in
 * admin_list.c and admin_block.c.
 */
#include "kvmd/svc/admin.h"

#include <unistd.h>

#include "kvmd/lib/clock.h"
#include "kvmd/lib/stats.h"
#include "kvmd/codec.h"
#include "kvmd/pool/policy.h"
#include "kvmd/svc/keep.h"

/* ------------------------------------------------------------------- memory */

/* What the slots of some gpools hold, in bytes. */
struct usage {
	uint64_t slot, free, idle, coming;
	uint64_t slots, free_slots, idle_slots, waiters;
};

static void usage_add(struct usage *u, const struct gpool *gp)
{
	u->slots += gp->nr_slots;
	u->free_slots += gp->nr_free;
	u->idle_slots += gp->nr_idle + gp->out.nr;	/* those are on their way down */
	u->waiters += gp->nr_waiters;
	u->slot += gp->nr_slots * gp->slot_bytes;
	u->free += gp->nr_free * gp->slot_bytes;
	u->idle += (gp->nr_idle + gp->out.nr) * gp->slot_bytes;
	u->coming += gp->nr_coming * gp->slot_bytes;
}

/* Idle blocks may lie in draining slabs too, which are no longer in nr_slots. */
static uint64_t less(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

static void put_usage(struct json *j, const struct usage *u)
{
	json_u64(j, "slots", u->slots);
	json_u64(j, "free_slots", u->free_slots);
	json_u64(j, "idle_slots", u->idle_slots);
	json_u64(j, "leased_slots", less(u->slots, u->free_slots + u->idle_slots));
	json_u64(j, "slot_bytes_total", u->slot);
	json_u64(j, "free_bytes", u->free);
	json_u64(j, "idle_bytes", u->idle);
	json_u64(j, "leased_bytes", less(u->slot, u->free + u->idle));
	json_u64(j, "coming_bytes", u->coming);
	json_u64(j, "waiting_allocations", u->waiters);
}

/* ------------------------------------------------------------------- status */

static void status_hbm(const struct daemon *d, struct json *j)
{
	const struct pool *p = d->pool;
	uint64_t budget = 0, in_slabs = 0;
	struct usage u = { 0 };

	for (uint32_t i = 0; i < p->nr_devs; i++) {
		budget += p->dev[i].budget_bytes;
		in_slabs += p->dev[i].used_bytes;
	}
	for (uint32_t i = 0; i < POOL_MAX_SPACES; i++)
		for (uint32_t g = 0; p->space[i].in_use && g < p->space[i].nr_groups; g++)
			usage_add(&u, &p->space[i].gp[g]);
	json_obj(j, "hbm");
	json_u64(j, "budget_bytes", budget);
	json_u64(j, "slab_bytes", in_slabs);
	put_usage(j, &u);
	json_obj_end(j);
}

static void status_metadata(const struct daemon *d, struct json *j)
{
	const struct pool *p = d->pool;

	json_obj(j, "metadata");
	json_u64(j, "records", p->nr_blocks);
	json_u64(j, "free_records", p->nr_free_blk);
	json_u64(j, "pool_bytes", p->metadata_bytes);
	json_u64(j, "index_bytes", index_bytes(d->ix));
	json_u64(j, "index_entries", d->ix->nr);
	json_u64(j, "ghost_bytes", ghosts_bytes(d->ix->ghosts));
	json_u64(j, "nodes", p->nr_nodes);
	json_u64(j, "free_nodes", p->nr_free_nodes);
	json_u64(j, "tickets", d->nr_tickets);
	json_obj_end(j);
}

static uint32_t nr_spaces(const struct pool *p)
{
	uint32_t nr = 0;

	for (uint32_t i = 0; i < POOL_MAX_SPACES; i++)
		nr += p->space[i].in_use;
	return nr;
}

/* What this daemon began with: none (no supervisor), cold, warm. */
static void status_restart(const struct daemon *d, struct json *j)
{
	static const char *const starts[] = { "none", "cold", "warm" };
	const struct keep *k = d->keep;

	json_obj(j, "restart");
	json_str(j, "start", starts[k ? k->start : KEEP_NONE]);
	if (k && k->start == KEEP_COLD)
		json_str(j, "why_cold", k->why_cold);
	if (k && k->start == KEEP_WARM) {
		json_u64(j, "restarts", k->run.restarts);
		json_u64(j, "took_us", k->nr.ns / 1000);
		json_u64(j, "spaces", k->nr.spaces);
		json_u64(j, "slabs", k->nr.slabs);
		json_u64(j, "slabs_lost", k->nr.slabs_gone);
		json_u64(j, "clients", k->nr.sessions);
		json_u64(j, "clients_lost", k->nr.sessions_gone);
		json_u64(j, "clients_resumed", k->nr.resumed);
		json_u64(j, "clients_not_past", k->nr_barrier);
		json_u64(j, "hbm_blocks", k->nr.hbm);
		json_u64(j, "ram_blocks", k->nr.ram);
		json_u64(j, "private_blocks", k->nr.open);
		json_u64(j, "disk_only_blocks", k->nr.disk);
		json_u64(j, "held_slots", k->nr.held);
		json_u64(j, "bad_slots", k->nr.bad);
		json_u64(j, "lost_blocks", k->nr.lost);
		json_u64(j, "damaged_records", k->nr.damaged);
	}
	json_obj_end(j);
}

static int show_status(struct admin_conn *c)
{
	const struct daemon *d = c->d;
	struct json *j = &c->j;
	uint32_t seqs = 0;

	for (uint32_t i = 0; i < d->nr_live; i++)
		seqs += d->live[i]->st.nr_live;
	json_str(j, "version", KVMD_VERSION);
	json_u64(j, "pid", (uint64_t)getpid());
	json_hex(j, "boot_id", d->boot_id, sizeof(d->boot_id));
	json_u64(j, "uptime_ms", less(clock_ns(), d->start_ns) / 1000000);
	json_str(j, "socket", d->conf.daemon.socket);
	json_str(j, "policy", d->conf.pool.policy);
	json_str(j, "clock", clock_policy_is_driven() ? "driven" : "real");
	json_u64(j, "sessions", d->nr_live);
	json_u64(j, "dying_sessions", d->nr_dying);
	json_u64(j, "sequences", seqs);
	json_u64(j, "spaces", nr_spaces(d->pool));
	json_u64(j, "tenants", d->pool->nr_tenants);
	json_u64(j, "devices", d->pool->nr_devs);
	status_hbm(d, j);
	status_metadata(d, j);
	json_obj(j, "pressure");
	admin_put_pressure(d, j);
	json_obj_end(j);
	admin_put_tiers(d, j);
	status_restart(d, j);
	json_obj(j, "counters");
	for (unsigned i = 0; i < KVMD_NR_STAT; i++)
		json_u64(j, stats_name(i), ld_rlx(&stats_val[i]));
	json_obj_end(j);
	return 0;
}

/* ----------------------------------------------------------------- counters */

static int show_stat(struct admin_conn *c)
{
	struct json *j = &c->j;

	json_u64(j, "now_ns", clock_ns());
	json_u64(j, "boot_ns", c->d->start_ns);
	json_str(j, "pressure_level", psi_level_name(c->d->psi[PSI_HBM].level));
	json_arr(j, "counters");
	for (unsigned i = 0; i < KVMD_NR_STAT; i++) {
		json_obj(j, NULL);
		json_str(j, "name", stats_name(i));
		json_str(j, "unit", stats_unit(i));
		json_str(j, "kind", stats_kind(i) == 'c' ? "counter" : "gauge");
		json_u64(j, "value", ld_rlx(&stats_val[i]));
		json_str(j, "help", stats_help(i));
		json_obj_end(j);
	}
	json_arr_end(j);
	return 0;
}

/* The page itself goes along as a descriptor. */
static int show_stat_fd(struct admin_conn *c)
{
	c->send_fd = stats_fd();
	if (c->send_fd < 0)
		return admin_refuse(c, -ENOENT, "there is no stats page");
	json_u64(&c->j, "nr", KVMD_NR_STAT);
	return 0;
}

/* ------------------------------------------------------------------- spaces */

/* What a block takes below HBM; one that the codec does not take is plain. */
static void put_codec(struct json *j, const struct gpool *gp)
{
	uint64_t plain = tier_block_bytes(gp), below = gp->coded_bytes ? gp->coded_bytes : plain;

	json_str(j, "codec", kvmd_codec_name(gp->geo.codec.id));
	json_u64(j, "plain_bytes", plain);
	json_u64(j, "below_bytes", below);
	json_f64(j, "codec_ratio", (double)(plain * 100 / below) / 100);
	json_f64(j, "codec_max_error", gp->codec_error);
}

/* Of a space whose groups have different ones. */
static const char *codec_of(const struct space *sp)
{
	for (uint32_t g = 1; g < sp->nr_groups; g++)
		if (sp->gp[g].geo.codec.id != sp->gp[0].geo.codec.id)
			return "mixed";
	return kvmd_codec_name(sp->gp[0].geo.codec.id);
}

static void put_group(struct json *j, const struct gpool *gp)
{
	struct usage u = { 0 };

	usage_add(&u, gp);
	json_obj(j, NULL);
	json_u64(j, "group", gp->idx);
	json_str(j, "rule", admin_rule_name(gp->geo.rule));
	json_u64(j, "planes", gp->geo.planes);
	json_u64(j, "plane_bytes", gp->geo.plane_bytes);
	json_u64(j, "block_tokens", gp->geo.block_tokens);
	json_u64(j, "window_tokens", gp->geo.window);
	json_u64(j, "sink_tokens", gp->geo.sinks);
	json_u64(j, "slot_bytes", gp->slot_bytes);
	put_codec(j, gp);
	json_u64(j, "max_slots", gp->max_slots);
	json_u64(j, "slab_slots", gp->slab_slots);
	put_usage(j, &u);
	json_u64(j, "wmark_min_slots", gp->wmark_min);
	json_u64(j, "wmark_low_slots", gp->wmark_low);
	json_u64(j, "wmark_high_slots", gp->wmark_high);
	json_str(j, "policy", gp->policy->ops->name);
	json_bool(j, "reclaiming", gp->reclaiming);
	json_bool(j, "growth_failed", gp->growth_failed);
	json_obj_end(j);
}

static void put_space(const struct pool *p, struct json *j, const struct space *sp, bool whole)
{
	struct usage u = { 0 };

	for (uint32_t g = 0; g < sp->nr_groups; g++)
		usage_add(&u, &sp->gp[g]);
	json_str(j, "space", sp->name);
	json_u64(j, "id", sp->id);
	json_str(j, "tenant", sp->tenant->name);
	json_u64(j, "epoch", sp->epoch);
	json_u64(j, "sessions", sp->nr_sessions);
	json_u64(j, "groups", sp->nr_groups);
	json_u64(j, "shards", sp->nr_shards);
	json_str(j, "device", sp->dev[0]->name);
	json_u64(j, "block_tokens", sp->gp[0].geo.block_tokens);
	json_str(j, "codec", codec_of(sp));
	json_u64(j, "sealed_blocks", p->sid[sp->sid].nr_sealed);
	json_u64(j, "stale_blocks", sp->nr_stale);
	json_str(j, "pressure_level", psi_level_name(reclaim_pressure(sp)));
	put_usage(j, &u);
	if (!whole)
		return;
	json_hex(j, "salt_digest", sp->salt_digest, sizeof(sp->salt_digest));
	json_arr(j, "shard_devices");
	for (uint32_t s = 0; s < sp->nr_shards; s++)
		json_str(j, NULL, sp->dev[s]->uuid);
	json_arr_end(j);
	json_arr(j, "group_rows");
	for (uint32_t g = 0; g < sp->nr_groups; g++)
		put_group(j, &sp->gp[g]);
	json_arr_end(j);
}

static int show_spaces(struct admin_conn *c)
{
	const struct pool *p = c->d->pool;

	json_arr(&c->j, "spaces");
	for (uint32_t i = 0; i < POOL_MAX_SPACES; i++) {
		if (!p->space[i].in_use)
			continue;
		json_obj(&c->j, NULL);
		put_space(p, &c->j, &p->space[i], false);
		json_obj_end(&c->j);
	}
	json_arr_end(&c->j);
	return 0;
}

static int show_space(struct admin_conn *c)
{
	struct space *sp;
	int err = admin_arg_space(c, true, &sp);

	if (!err)
		put_space(c->d->pool, &c->j, sp, true);
	return err;
}

/* ---------------------------------------------------------- tenants, devices */

static void put_tenant(struct json *j, const struct tenant *t)
{
	json_obj(j, NULL);
	json_str(j, "tenant", t->name);
	json_u64(j, "sessions", t->nr_sessions);
	json_u64(j, "max_sessions", t->max_sessions);
	json_u64(j, "sequences", t->nr_seqs);
	json_u64(j, "max_sequences", t->max_seqs);
	json_u64(j, "hbm_bytes", t->hbm_bytes);
	json_u64(j, "hbm_min_bytes", t->hbm_min);
	json_u64(j, "hbm_low_bytes", t->hbm_low);
	json_u64(j, "hbm_high_bytes", t->hbm_high);
	json_u64(j, "hbm_max_bytes", t->hbm_max);
	json_u64(j, "ram_bytes", t->ram_bytes);
	json_u64(j, "ram_max_bytes", t->ram_max);
	json_u64(j, "disk_bytes", t->disk_bytes);
	json_u64(j, "disk_max_bytes", t->disk_max);
	json_u64(j, "pinned_bytes", t->pinned_bytes);
	json_u64(j, "max_pinned_bytes", t->pin_bytes);
	json_u64(j, "ring_bytes", t->ring_bytes);
	json_u64(j, "max_ring_bytes", t->max_ring_bytes);
	json_u64(j, "low_events", t->events_low);
	json_u64(j, "high_events", t->events_high);
	json_u64(j, "max_events", t->events_max);
	json_obj_end(j);
}

static int show_tenants(struct admin_conn *c)
{
	json_arr(&c->j, "tenants");
	for (uint32_t i = 0; i < c->d->pool->nr_tenants; i++)
		put_tenant(&c->j, &c->d->pool->tenant[i]);
	json_arr_end(&c->j);
	return 0;
}

static uint32_t dev_slabs(const struct pool *p, const struct dev *dev)
{
	uint32_t nr = 0;

	for (uint32_t i = 0; i < POOL_MAX_SLABS; i++) {
		const struct slab *s = &p->slab[i];
		bool on = false;

		for (uint32_t r = 0; s->state != SLAB_NONE && r < s->gp->sp->nr_shards; r++)
			on |= s->gp->sp->dev[r] == dev;
		nr += on;
	}
	return nr;
}

static const char *handle_name(uint32_t kind)
{
	static const char *const names[KVMD_NR_HANDLE] = {
		[KVMD_HANDLE_NONE] = "none", [KVMD_HANDLE_MEMFD] = "memfd",
		[KVMD_HANDLE_CUDA_VMM] = "vmm", [KVMD_HANDLE_CUDA_LEGACY] = "legacy",
	};

	return kind < KVMD_NR_HANDLE ? names[kind] : "?";
}

static int show_devs(struct admin_conn *c)
{
	const struct pool *p = c->d->pool;
	struct json *j = &c->j;

	json_arr(j, "devices");
	for (uint32_t i = 0; i < p->nr_devs; i++) {
		const struct dev *dev = &p->dev[i];

		json_obj(j, NULL);
		json_str(j, "device", dev->name);
		json_str(j, "uuid", dev->uuid);
		json_str(j, "kind", dev->ops->name);
		json_str(j, "model", dev->model);
		json_str(j, "state", dev->down ? "down" : "up");
		json_str(j, "trouble", dev->text);
		json_u64(j, "budget_bytes", dev->budget_bytes);
		json_u64(j, "used_bytes", dev->used_bytes);
		json_u64(j, "slabs", dev_slabs(p, dev));
		json_u64(j, "granularity_bytes", dev->granularity);
		json_u64(j, "grace_ms", dev->grace_ns / 1000000);
		json_bool(j, "hugetlb", dev->hugetlb);
		json_str(j, "ipc", handle_name(dev->handle_kind));
		json_u64(j, "copied_out_bytes", dev->copied_bytes[DEV_OUT]);
		json_u64(j, "copied_in_bytes", dev->copied_bytes[DEV_IN]);
		json_u64(j, "copied_within_bytes", dev->copied_bytes[DEV_WITHIN]);
		json_u64(j, "resets", dev->nr_resets);
		json_obj_end(j);
	}
	json_arr_end(j);
	return 0;
}

const struct admin_verb admin_show_verbs[] = {
	{ "status",	"show",	"",		false, show_status },
	{ "stat",	"show",	"",		false, show_stat },
	{ "stat",	"fd",	"",		false, show_stat_fd },
	{ "space",	"list",	"",		false, show_spaces },
	{ "space",	"show",	"space ",	false, show_space },
	{ "tenant",	"list",	"",		false, show_tenants },
	{ "dev",	"list",	"",		false, show_devs },
	{ 0 },
};
