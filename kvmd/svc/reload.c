/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reload.c - what SIGHUP and `kvctl conf reload` may change.
 *
 * Options marked reloadable in the table take effect at once; of the others a
 * change is named and left alone. Tenants may be added; one that is no longer
 * in the file keeps its limits until the next start.
 */
#include "kvmd/svc/daemon.h"

#include <stdio.h>

#include "kvmd/lib/log.h"

static void warn_fixed(const char *section, const void *now, const void *next)
{
	for (size_t i = 0; i < config_table.nr_opts; i++) {
		const struct conf_opt *o = &config_table.opts[i];
		char a[256], b[256];

		if (strcmp(o->section, section) || o->reloadable)
			continue;
		conf_format(o, now, a, sizeof(a));
		conf_format(o, next, b, sizeof(b));
		if (strcmp(a, b))
			log_warn("reload: %s.%s stays %s until the next start", section, o->key, a);
	}
}

/* Take over the reloadable values of one plain section. */
static void take_values(const char *section, void *now, const void *next)
{
	static const size_t size[NR_CONF_TYPE] = {
		[CONF_BOOL] = sizeof(bool), [CONF_U32] = 4, [CONF_U64] = 8, [CONF_BYTES] = 8,
		[CONF_TIME] = 8, [CONF_PERMILLE] = 4, [CONF_ENUM] = 4,
	};

	for (size_t i = 0; i < config_table.nr_opts; i++) {
		const struct conf_opt *o = &config_table.opts[i];

		if (!strcmp(o->section, section) && o->reloadable && size[o->type])
			memcpy((char *)now + o->offset, (const char *)next + o->offset,
			       size[o->type]);
	}
}

static void apply_wmarks(struct daemon *d)
{
	const struct config_pool *c = &d->conf.pool;

	d->pool->opts.wmark_min = c->wmark_min;
	d->pool->opts.wmark_low = c->wmark_low;
	d->pool->opts.wmark_high = c->wmark_high;
	for (uint32_t i = 0; i < POOL_MAX_SPACES; i++)
		for (uint32_t g = 0; d->pool->space[i].in_use && g < d->pool->space[i].nr_groups; g++)
			gpool_wmarks(d->pool, &d->pool->space[i].gp[g]);
	d->rc.kick = true;
}

static int apply_tenants(struct daemon *d, const struct config *c, char *msg, size_t n)
{
	for (uint32_t i = 0; i < c->nr_tenants; i++) {
		struct tenant *t = tenant_find(d->pool, c->tenant[i].name);
		int err = t ? 0 : tenant_add(d->pool, c->tenant[i].name, &t);

		if (err) {
			snprintf(msg, n, "tenant %s: more than %u tenants", c->tenant[i].name,
				 POOL_MAX_TENANTS);
			return err;
		}
		err = config_apply_tenant(&c->tenant[i], t, msg, n);
		if (err)
			return err;
	}
	return 0;
}

void reload_shares(const struct daemon *d, struct config *c)
{
	for (uint32_t i = 0; i < c->nr_devs; i++)
		for (uint32_t k = 0; k < d->conf.nr_devs; k++)
			if (c->dev[i].share && !strcmp(c->dev[i].name, d->conf.dev[k].name))
				c->dev[i].bytes = d->conf.dev[k].bytes;
	config_size(c);
}

int reload_apply(struct daemon *d, const struct config *c, char *msg, size_t n)
{
	int err = apply_tenants(d, c, msg, n);

	if (err)
		return err;
	warn_fixed("daemon", &d->conf.daemon, &c->daemon);
	warn_fixed("pool", &d->conf.pool, &c->pool);
	warn_fixed("ram", &d->conf.ram, &c->ram);
	warn_fixed("disk", &d->conf.disk, &c->disk);
	take_values("daemon", &d->conf.daemon, &c->daemon);
	take_values("pool", &d->conf.pool, &c->pool);
	take_values("ram", &d->conf.ram, &c->ram);
	take_values("disk", &d->conf.disk, &c->disk);
	tiering_reload(d);
	d->pool->opts.slab_bytes = d->conf.pool.slab_bytes;
	for (uint32_t i = 0; i < c->nr_devs; i++)
		for (uint32_t k = 0; k < d->pool->nr_devs; k++)
			if (!strcmp(d->pool->dev[k].name, c->dev[i].name)) {
				if (!c->dev[i].share && !d->pool->dev[k].down)
					d->pool->dev[k].budget_bytes = c->dev[i].bytes;
				st_rlx(&d->pool->dev[k].hugetlb, c->dev[i].hugetlb);
				if (c->dev[i].grace_ns != UINT64_MAX)
					d->pool->dev[k].grace_ns = c->dev[i].grace_ns;
			}
	log_set_level(d->conf.daemon.log_level);
	apply_wmarks(d);
	return 0;
}
