/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keep.c - what is kept outside the process, as it changes.
 *
 * See keep.h. Descriptors are stored before the record that names them is written
 * and removed after it is cleared.
 */
#include "kvmd/svc/keep.h"

#include <stdio.h>

#include "kvmd/lib/fault.h"
#include "kvmd/lib/fdstore.h"
#include "kvmd/lib/log.h"

/* -------------------------------------------------------------- spaces, slabs */

void keep_space(struct daemon *d, const struct space *sp)
{
	struct space_kept v = {
		.epoch = sp->epoch, .nr_groups = sp->nr_groups, .nr_shards = sp->nr_shards,
		.sid = sp->sid,
	};
	struct keep_sid sid = { .space = sp->id, .epoch = sp->epoch };

	if (!keep_is_on(d))
		return;
	memcpy(v.name, sp->name, sizeof(v.name));
	memcpy(v.tenant, sp->tenant->name, sizeof(v.tenant));
	memcpy(v.salt_digest, sp->salt_digest, sizeof(v.salt_digest));
	for (uint32_t g = 0; g < sp->nr_groups; g++) {
		v.group[g] = sp->gp[g].geo;
		v.slab_slots[g] = sp->gp[g].slab_slots;
	}
	for (uint32_t s = 0; s < sp->nr_shards; s++)
		memcpy(v.device[s], sp->dev[s]->uuid, sizeof(v.device[s]));
	/* The number first: a space with a number that nobody knows would be dropped. */
	keep_put(&d->keep->st->sid[sp->sid], &sid);
	keep_put(&d->keep->st->space[sp->id], &v);
}

void keep_slab_name(char name[64], uint32_t id, uint32_t gen, uint32_t ext)
{
	snprintf(name, 64, "slab.%u.%u.%u", id, gen, ext);
}

static void slab_store(struct keep *k, const struct slab *s)
{
	char name[64];
	int err = 0;

	for (uint32_t i = 0; i < s->nr_ext && !err; i++) {
		keep_slab_name(name, s->id, s->gen, i);
		err = s->ext[i].fd >= 0 ? fdstore_add(name, s->ext[i].fd) : 0;
		fault_crash(CRASH_KEEP);
	}
	if (err)
		log_warn("slab %u: the supervisor did not take it (%s): a restart will lose what "
			 "is there", s->id, strerror(-err));
	k->stored_gen[s->id] = s->gen;
	k->stored_ext[s->id] = s->nr_ext;
}

static void slab_unstore(struct keep *k, uint32_t id)
{
	char name[64];

	for (uint32_t i = 0; i < k->stored_ext[id]; i++) {
		keep_slab_name(name, id, k->stored_gen[id], i);
		(void)fdstore_del(name);
	}
	k->stored_ext[id] = 0;
}

void keep_slab(struct daemon *d, const struct slab *s)
{
	bool whole = s->gp && s->state >= SLAB_ANNOUNCED && s->state <= SLAB_UNMAPPING;
	struct slab_kept v = { .state = SLAB_NONE, .gen = s->gen };
	struct keep *k = d->keep;

	if (!keep_is_on(d))
		return;
	if (whole) {
		v = (struct slab_kept) {
			.state = s->state, .gen = s->gen, .space = s->gp->sp->id,
			.group = s->gp->idx, .first = s->first, .nr = s->nr, .nr_ext = s->nr_ext,
			.tainted = s->tainted, .extent_bytes = s->extent_bytes,
		};
		memcpy(v.mapped, s->mapped, sizeof(v.mapped));
		memcpy(v.ever, s->ever, sizeof(v.ever));
		if (!k->stored_ext[s->id] && !k->restoring)
			slab_store(k, s);
	}
	keep_put(&k->st->slab[s->id], &v);
	if (!whole)
		slab_unstore(k, s->id);
}

/* ------------------------------------------------------- sessions, processes */

void keep_conn_name(char name[64], uint32_t id, uint32_t n)
{
	snprintf(name, 64, "pid.%u.%u", id, n);
}

void keep_conn(struct daemon *d, const struct conn *c)
{
	struct keep *k = d->keep;
	struct keep_conn v = {
		.n = c->keep_n, .pid = c->pid, .uid = c->uid, .rank = c->rank,
		.session = c->s ? c->s->id + 1 : 0, .said_bye = c->said_bye,
	};
	char name[64];

	if (!keep_is_on(d) || !c->keep_n)
		return;
	if (c->state != CONN_FREE) {
		keep_put(&k->st->conn[c->id], &v);
		return;
	}
	keep_clear(&k->st->conn[c->id]);
	keep_conn_name(name, c->id, c->keep_n);
	(void)fdstore_del(name);
}

void keep_new_conn(struct conn *c)
{
	struct daemon *d = c->d;
	char name[64];

	if (!keep_is_on(d) || c->keep_n)
		return;
	c->keep_n = ++d->keep->next_conn;
	keep_conn_name(name, c->id, c->keep_n);
	if (fdstore_add(name, c->pidfd))
		log_warn("client pid %d: the supervisor did not take its pidfd", (int)c->pid);
	keep_conn(d, c);
}

static const char *const session_fds[KEEP_NR_FDS] = {
	[KEEP_FD_RING] = "ring", [KEEP_FD_ARGS] = "args", [KEEP_FD_STEPS] = "steps",
	[KEEP_FD_SEQS] = "seqs", [KEEP_FD_MIRROR] = "mirror", [KEEP_FD_ROWS] = "rows",
};

void keep_session_name(char name[64], uint32_t id, uint32_t serial, unsigned which)
{
	snprintf(name, 64, "sess.%u.%u.%s", id, serial, session_fds[which]);
}

void keep_session(struct daemon *d, const struct session *s)
{
	struct keep *k = d->keep;
	struct keep_session v = {
		.serial = s->serial, .space = s->sp ? s->sp->id : 0,
		.dying = s->state != SESSION_LIVE && s->state != SESSION_KEPT,
		.nr_ranks = s->nr_ranks, .nr_lanes = s->nr_lanes, .max_seqs = s->lim.max_seqs,
		.max_tokens = s->max_tokens, .sq_entries = s->ring.sq_mask + 1,
		.cq_entries = s->ring.cq_mask + 1, .use_pos = s->ring.use_pos,
		.args_bytes = s->lim.args_bytes, .group_token = s->group_token,
		.recompute_tps = s->recompute_tps,
	};
	char name[64];

	if (!keep_is_on(d) || !s->kept)
		return;
	if (s->state != SESSION_FREE) {
		memcpy(v.label, s->label, sizeof(v.label));
		memcpy(v.tenant, s->tenant->name, sizeof(v.tenant));
		keep_put(&k->st->session[s->id], &v);
		return;
	}
	keep_clear(&k->st->session[s->id]);
	for (unsigned i = 0; i < KEEP_NR_FDS; i++) {
		keep_session_name(name, s->id, s->serial, i);
		(void)fdstore_del(name);
	}
}

void keep_new_session(struct session *s)
{
	const int fd[KEEP_NR_FDS] = {
		[KEEP_FD_RING] = s->ring.fd, [KEEP_FD_ARGS] = s->args_fd,
		[KEEP_FD_STEPS] = s->steps_fd, [KEEP_FD_SEQS] = s->st.seq_fd,
		[KEEP_FD_MIRROR] = s->st.mirror_fd, [KEEP_FD_ROWS] = s->st.rows_fd,
	};
	struct daemon *d = s->d;
	char name[64];
	int err = 0;

	if (!keep_is_on(d))
		return;
	for (unsigned i = 0; i < KEEP_NR_FDS && !err; i++) {
		keep_session_name(name, s->id, s->serial, i);
		err = fdstore_add(name, fd[i]);
		fault_crash(CRASH_KEEP);
	}
	if (err)
		log_warn("client %u (%s): the supervisor did not take it (%s): a restart will end "
			 "it", s->serial, s->label, strerror(-err));
	s->kept = true;
	d->keep->run.next_serial = d->next_serial;
	d->keep->run.next_conn = d->keep->next_conn;
	keep_put(&d->keep->st->run, &d->keep->run);
	keep_session(d, s);
}
