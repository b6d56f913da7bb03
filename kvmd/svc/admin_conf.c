/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin_conf.c - what the daemon was told: options in force, the log level,
 * faults that are injected.
 */
#include "kvmd/svc/admin.h"

#include <stdio.h>

#include "kvmd/lib/fault.h"
#include "kvmd/lib/log.h"

/* A time that nobody set: something else decides. */
static bool is_unset(const struct conf_opt *o, const void *base)
{
	const uint64_t *v = (const uint64_t *)(const void *)((const char *)base + o->offset);

	return o->type == CONF_TIME && !o->def && *v == UINT64_MAX;
}

static void put_section(struct json *j, const char *section, const char *name, const void *base)
{
	for (size_t i = 0; i < config_table.nr_opts; i++) {
		const struct conf_opt *o = &config_table.opts[i];
		char value[512];

		if (strcmp(o->section, section))
			continue;
		conf_format(o, base, value, sizeof(value));
		if (!strcmp(o->key, "socket_mode"))	/* given and shown in octal */
			snprintf(value, sizeof(value), "%o",
				 ((const struct config_daemon *)base)->socket_mode);
		json_obj(j, NULL);
		json_str(j, "section", section);
		json_str(j, "name", name);
		json_str(j, "key", o->key);
		if (is_unset(o, base))
			json_null(j, "value");
		else
			json_str(j, "value", value);
		json_str(j, "default", o->def);
		json_bool(j, "reloadable", o->reloadable);
		json_str(j, "help", o->help);
		json_obj_end(j);
	}
}

static int show_conf(struct admin_conn *c)
{
	const struct config *cf = &c->d->conf;
	struct json *j = &c->j;

	json_str(j, "path", c->d->conf_path);
	json_arr(j, "options");
	put_section(j, "daemon", NULL, &cf->daemon);
	put_section(j, "pool", NULL, &cf->pool);
	put_section(j, "ram", NULL, &cf->ram);
	put_section(j, "disk", NULL, &cf->disk);
	for (uint32_t i = 0; i < cf->nr_devs; i++)
		put_section(j, "device", cf->dev[i].name, &cf->dev[i]);
	for (uint32_t i = 0; i < cf->nr_tenants; i++)
		put_section(j, "tenant", cf->tenant[i].name, &cf->tenant[i]);
	json_arr_end(j);
	return 0;
}

static int show_log(struct admin_conn *c)
{
	json_str(&c->j, "level", log_level_name(log_get_level()));
	return 0;
}

static int show_faults(struct admin_conn *c)
{
	struct json *j = &c->j;

	json_arr(j, "sites");
	for (unsigned i = 0; i < NR_FAULT; i++) {
		json_obj(j, NULL);
		json_str(j, "site", fault_name((enum fault_site)i));
		json_bool(j, "armed", ld_rlx(&fault_armed[i]));
		json_u64(j, "calls", fault_nr_calls((enum fault_site)i));
		json_u64(j, "hits", fault_nr_hits((enum fault_site)i));
		json_obj_end(j);
	}
	json_arr_end(j);
	return 0;
}

const struct admin_verb admin_conf_verbs[] = {
	{ "conf",	"show",	"",		false, show_conf },
	{ "log",	"show",	"",		false, show_log },
	{ "fault",	"show",	"",		false, show_faults },
	{ 0 },
};
