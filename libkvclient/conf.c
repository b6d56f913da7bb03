/* SPDX-License-Identifier: Apache-2.0 */
/*
 * conf.c - the caller's options and space, checked, completed and copied.
 *
 * The copy is what kvc_reconnect() uses; nothing of the caller's is kept.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libkvclient/internal.h"

#define DEFAULT_SQ		256u
#define DEFAULT_SEQS		256u
#define DEFAULT_TOKENS		131072u
#define DEFAULT_ARGS		(4ull << 20)
#define DEFAULT_SPIN_NS		20000ull
#define DEFAULT_RESUME_NS	30000000000ull

void kvc_opts_init(struct kvc_opts *o)
{
	memset(o, 0, sizeof(*o));
	o->size = sizeof(*o);
}

void kvc_space_init(struct kvc_space *s, const char *name)
{
	memset(s, 0, sizeof(*s));
	s->size = sizeof(*s);
	s->name = name;
}

static int copy_name(char *dst, size_t bytes, const char *src, const char *what)
{
	size_t len = src ? strlen(src) : 0;

	if (len >= bytes) {
		kvci_refuse("%s '%s' is longer than %zu bytes", what, src, bytes - 1);
		return -EINVAL;
	}
	memset(dst, 0, bytes);
	if (len)
		memcpy(dst, src, len);
	return 0;
}

static uint32_t roundup_pow2(uint32_t v)
{
	return v <= 1 || v > 1u << 31 ? v : 1u << (32 - __builtin_clz(v - 1));
}

int kvci_conf_opts(struct kvci_conf *c, const struct kvc_opts *o)
{
	struct kvc_opts *d = &c->opts;
	int err;

	kvc_opts_init(d);
	if (o) {
		/* A caller built against an older header has a shorter struct. */
		if (o->size < offsetof(struct kvc_opts, sq_entries))
			return -EINVAL;
		memcpy(d, o, o->size < sizeof(*d) ? o->size : sizeof(*d));
	}
	d->size = sizeof(*d);
	if (!d->socket)
		d->socket = secure_getenv("KVMD_SOCKET");
	if (!d->socket || !d->socket[0])
		d->socket = KVCI_SOCKET;
	if (!d->label)
		d->label = program_invocation_short_name;
	err = copy_name(c->socket, sizeof(c->socket), d->socket, "socket path");
	if (!err)
		err = copy_name(c->tenant, sizeof(c->tenant), d->tenant, "tenant");
	if (err)
		return err;
	/* A program's name may be long; a label is only shown. */
	snprintf(c->label, sizeof(c->label), "%s", d->label);
	d->socket = c->socket;
	d->tenant = c->tenant;
	d->label = c->label;
	d->sq_entries = roundup_pow2(d->sq_entries ? d->sq_entries : DEFAULT_SQ);
	d->cq_entries = roundup_pow2(d->cq_entries ? d->cq_entries : 4 * d->sq_entries);
	d->max_seqs = d->max_seqs ? d->max_seqs : DEFAULT_SEQS;
	d->max_tokens = d->max_tokens ? d->max_tokens : DEFAULT_TOKENS;
	d->nr_ranks = d->nr_ranks ? d->nr_ranks : 1;
	d->nr_lanes = d->nr_lanes ? d->nr_lanes : d->nr_ranks;
	d->args_bytes = d->args_bytes ? d->args_bytes : DEFAULT_ARGS;
	d->spin_ns = d->spin_ns ? d->spin_ns : DEFAULT_SPIN_NS;
	d->resume_ns = d->resume_ns ? d->resume_ns : DEFAULT_RESUME_NS;
	return 0;
}

int kvci_conf_space(struct kvci_conf *c, const struct kvc_space *s)
{
	struct kvmd_space *m = &c->space;
	int err;

	if (!s || s->size != sizeof(*s) || !s->name || !s->name[0] ||
	    (!s->salt && s->salt_bytes)) {
		kvci_refuse("a space needs a name, and kvc_space_init()");
		return -EINVAL;
	}
	if (s->nr_groups > KVMD_MAX_GROUPS || s->nr_shards > KVMD_MAX_SHARDS) {
		kvci_refuse("a space has at most %u groups and %u shards", KVMD_MAX_GROUPS,
			    KVMD_MAX_SHARDS);
		return -EINVAL;
	}
	kvci_msg_init(m, KVMD_MSG_SPACE, sizeof(*m), 0);
	err = copy_name(m->name, sizeof(m->name), s->name, "space");
	if (err)
		return err;
	kvci_salt_digest(s->salt, s->salt_bytes, m->salt_digest);
	m->flags = s->flags;
	if (!s->nr_groups) {
		m->flags |= KVMD_SPACE_ANY_GEOMETRY;
		return 0;
	}
	m->nr_groups = s->nr_groups;
	m->nr_shards = s->nr_shards ? s->nr_shards : 1;
	memcpy(m->group, s->group, s->nr_groups * sizeof(s->group[0]));
	for (uint32_t i = 0; i < m->nr_shards; i++) {
		err = copy_name(m->device[i], sizeof(m->device[i]), s->device[i], "device");
		if (err)
			return err;
	}
	return 0;
}
