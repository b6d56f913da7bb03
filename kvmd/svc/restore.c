/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restore.c - a warm start: from the kept state to a daemon that serves.
 *
 * First spaces and slabs (restore_memory()), then, when the tiers are there, the
 * sessions' tables and one pass over the block array (restore_blocks()). What
 * cannot be used is dropped and said; where going on would be a guess nothing is
 * used (-EINVAL, -EUCLEAN: the caller lets go of everything that was kept).
 */
#include "kvmd/svc/keep.h"

#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kvmd/lib/clock.h"
#include "kvmd/lib/fault.h"
#include "kvmd/lib/log.h"
#include "kvmd/lib/mem.h"
#include "kvmd/reclaim/policy.h"

static bool is_text(const char *s, size_t bytes)
{
	return memchr(s, 0, bytes) != NULL;
}

/* ------------------------------------------------------------- spaces, slabs */

static void restore_space(struct daemon *d, uint32_t id, const struct space_kept *v)
{
	char msg[256] = "its name makes no sense";
	struct tenant *t = NULL;
	int err = -EINVAL;

	if (v->nr_groups <= KVMD_MAX_GROUPS && v->nr_shards <= KVMD_MAX_SHARDS &&
	    is_text(v->name, sizeof(v->name)) && is_text(v->tenant, sizeof(v->tenant))) {
		t = tenant_find(d->pool, v->tenant);
		snprintf(msg, sizeof(msg), "there is no tenant %s any more", v->tenant);
	}
	if (t)
		err = space_restore(d->pool, id, v, t, policy_find(d->conf.pool.policy), msg,
				    sizeof(msg));
	if (err)
		log_warn("space %.63s: not restored: %s", v->name, msg);
	else
		d->keep->nr.spaces++;
}

static void restore_spaces(struct daemon *d)
{
	struct keep_state *st = d->keep->st;
	bool torn;

	for (uint32_t id = 0; id < POOL_MAX_SPACES; id++) {
		const struct space_kept *p = keep_get(&st->space[id], &torn);
		struct space_kept v;

		if (torn)
			log_warn("space number %u: its record is damaged", id);
		if (!p)
			continue;
		v = *p;			/* the record is written anew on the way */
		restore_space(d, id, &v);
	}
	for (uint32_t i = 1; i < POOL_MAX_SIDS; i++) {
		const struct keep_sid *v = keep_get(&st->sid[i], &torn);

		if (v && !d->pool->sid[i].sp)
			sid_restore(d->pool, i, v->space, v->epoch);
	}
}

uint64_t keep_device_bytes(const void *ctx, const char *uuid)
{
	const struct keep *k = ctx;
	uint64_t bytes = 0;
	bool torn;

	for (uint32_t i = 0; i < POOL_MAX_SLABS; i++) {
		const struct slab_kept *v = keep_get(&k->st->slab[i], &torn);
		const struct space_kept *sp = v && v->state != SLAB_NONE && v->space < POOL_MAX_SPACES ?
					      keep_get(&k->st->space[v->space], &torn) : NULL;

		for (uint32_t s = 0; sp && s < min(sp->nr_shards, KVMD_MAX_SHARDS); s++)
			if (!strncmp(sp->device[s], uuid, sizeof(sp->device[s])))
				bytes += v->nr_ext / sp->nr_shards * v->extent_bytes;
	}
	return bytes;
}

static void slab_fds_back(struct daemon *d, uint32_t id, const struct slab_kept *v, const int *fd)
{
	char name[64];

	for (uint32_t i = 0; i < v->nr_ext; i++) {
		keep_slab_name(name, id, v->gen, i);
		keep_give_back(d, name, fd[i]);
	}
}

static bool has_memory(const struct daemon *d, const struct slab_kept *v)
{
	const struct space *sp = v->space < POOL_MAX_SPACES ? &d->pool->space[v->space] : NULL;

	return !sp || !sp->in_use || sp->dev[0]->ops->has_memory;
}

/* @fd has room for all extents there can be. */
static bool restore_slab(struct daemon *d, uint32_t id, const struct slab_kept *v, int *fd)
{
	struct keep *k = d->keep;
	char name[64];
	int err = 0;

	if (v->nr_ext > KVMD_MAX_PLANES * KVMD_MAX_SHARDS)
		return false;
	for (uint32_t i = 0; i < v->nr_ext; i++) {
		keep_slab_name(name, id, v->gen, i);
		fd[i] = keep_take(d, name);
		if (fd[i] < 0 && has_memory(d, v))
			err = -ENOENT;
	}
	k->stored_gen[id] = v->gen;
	k->stored_ext[id] = v->nr_ext;
	err = err ? err : slab_restore(d->pool, id, v, fd);
	if (!err)
		return true;
	slab_fds_back(d, id, v, fd);
	k->stored_ext[id] = 0;
	return false;
}

static void restore_slabs(struct daemon *d, int *fd)
{
	struct keep *k = d->keep;

	for (uint32_t id = 0; id < POOL_MAX_SLABS; id++) {
		bool torn;
		const struct slab_kept *p = keep_get(&k->st->slab[id], &torn);
		struct slab *s = &d->pool->slab[id];
		struct slab_kept v;

		k->nr.slabs_gone += torn;
		if (!p)
			continue;
		v = *p;
		s->gen = v.gen;
		if (v.state == SLAB_NONE)
			continue;
		if (restore_slab(d, id, &v, fd)) {
			k->nr.slabs++;
			continue;
		}
		/* A client may still have it: its number comes back as another one's. */
		k->nr.slabs_gone++;
		s->gen = v.gen + 1;
		keep_slab(d, s);
	}
}

int restore_memory(struct daemon *d, char *msg, size_t n)
{
	struct keep *k = d->keep;
	int *fd = mem_calloc(KVMD_MAX_PLANES * KVMD_MAX_SHARDS, sizeof(*fd));

	if (!fd) {
		snprintf(msg, n, "out of memory");
		return -ENOMEM;
	}
	k->restoring = true;
	restore_spaces(d);
	restore_slabs(d, fd);
	mem_free(fd);
	return 0;
}

/* ------------------------------------------------------------------ sessions */

static bool session_makes_sense(const struct keep_session *v)
{
	return is_text(v->label, sizeof(v->label)) && v->max_seqs && v->max_seqs <= 65536 &&
	       v->max_tokens && v->nr_ranks && v->nr_ranks <= KVMD_MAX_RANKS &&
	       v->nr_lanes && v->nr_lanes <= KVMD_MAX_LANES && is_pow2(v->sq_entries) &&
	       v->sq_entries <= KVMD_MAX_SQ && is_pow2(v->cq_entries) &&
	       v->cq_entries <= KVMD_MAX_CQ && v->args_bytes;
}

static int take_session(struct daemon *d, uint32_t id, const struct keep_session *v)
{
	int fd[KEEP_NR_FDS], err = 0;
	char name[64];

	if (!session_makes_sense(v))
		return -EINVAL;
	for (unsigned i = 0; i < KEEP_NR_FDS; i++) {
		keep_session_name(name, id, v->serial, i);
		fd[i] = keep_take(d, name);
		if (fd[i] < 0)
			err = -ENOENT;
	}
	err = err ? err : session_restore(d, id, v, fd);
	for (unsigned i = 0; i < KEEP_NR_FDS && err; i++) {
		keep_session_name(name, id, v->serial, i);
		keep_give_back(d, name, fd[i]);
	}
	return err;
}

/*
 * A process whose descriptor was lost is found by its number. One that has the
 * number by chance is waited for in vain, which is safe.
 */
static int process_fd(struct daemon *d, uint32_t id, const struct keep_conn *v)
{
	char name[64];
	int fd;

	keep_conn_name(name, id, v->n);
	fd = keep_take(d, name);
	if (fd < 0)
		fd = (int)syscall(SYS_pidfd_open, v->pid, 0);
	/* Over: something that is readable, as the descriptor of one would be. */
	return fd < 0 ? eventfd(1, EFD_CLOEXEC) : fd;
}

static int restore_conns(struct daemon *d)
{
	bool torn;

	for (uint32_t id = 0; id < POOL_MAX_CONNS; id++) {
		const struct keep_conn *v = keep_get(&d->keep->st->conn[id], &torn);
		struct session *s = NULL;
		int fd;

		if (!v)
			continue;
		if (v->session && v->session <= POOL_MAX_CONNS &&
		    d->session[v->session - 1].state == SESSION_KEPT)
			s = &d->session[v->session - 1];
		fd = process_fd(d, id, v);
		if (fd < 0)
			return fd;
		conn_restore(d, id, v, fd, s);
	}
	return 0;
}

static int restore_sessions(struct daemon *d, char *msg, size_t n)
{
	struct keep *k = d->keep;
	int err;

	for (uint32_t id = 0; id < POOL_MAX_CONNS; id++) {
		bool torn;
		const struct keep_session *v = keep_get(&k->st->session[id], &torn);

		if (!v)
			continue;
		if (v->space >= POOL_MAX_SPACES || !d->pool->space[v->space].in_use) {
			/* Its space was not restored, nor is its memory anybody's. */
			k->nr.sessions_gone++;
			keep_clear(&k->st->session[id]);
			continue;
		}
		err = take_session(d, id, v);
		if (err) {
			snprintf(msg, n, "client %u (%.63s) cannot be kept: %s", v->serial,
				 v->label, strerror(-err));
			return err;
		}
		d->next_serial = max(d->next_serial, v->serial);
		k->nr.sessions++;
	}
	err = restore_conns(d);
	if (err) {
		snprintf(msg, n, "clients' processes: %s", strerror(-err));
		return err;
	}
	for (uint32_t id = 0; id < POOL_MAX_CONNS; id++) {
		if (d->session[id].state == SESSION_FREE || d->conn[id].s == &d->session[id])
			continue;
		snprintf(msg, n, "client %u: nothing is known of its process",
			 d->session[id].serial);
		return -EINVAL;
	}
	return 0;
}

static uint32_t count_ended(const struct seqtab *st)
{
	uint32_t nr = 0;

	for (uint32_t s = 0; s < st->max_seqs; s++)
		nr += st->seq[s].state == SEQ_CLOSING && (st->seq[s].flags & SEQ_F_ENDED);
	return nr;
}

/* Its tables, and until when it may be reading what it had. False: it cannot go on. */
static bool begin_session(struct daemon *d, struct session *s, struct pool_restore *r)
{
	bool ok = seqtab_restore(&s->st, r, s->id);

	s->nr_ended = count_ended(&s->st);
	attrib_restore(&s->st);
	/* Pairs with kvc_step_submit(); what is submitted from now on uses leases only. */
	s->barrier_step = ld_acq(&s->ring.sh->submitted_step);
	s->barrier = true;
	s->sp->hold = true;
	d->keep->nr_barrier++;
	return ok;
}

/* --------------------------------------------------------------------- blocks */

static bool claim_ram(void *ctx, struct gpool *gp, uint32_t id, uint32_t place)
{
	struct daemon *d = ctx;
	uint64_t bytes = tier_ram_bytes(gp, pool_block(d->pool, id));

	if (!d->tiers || !ram_claim(d->tiers->ram, place, bytes, id))
		return false;
	gp->sp->tenant->ram_bytes += bytes;
	return true;
}

static int rebuild(struct daemon *d, struct pool_restore *r, bool *ok, char *msg, size_t n)
{
	int err;

	for (uint32_t i = 0; i < POOL_MAX_CONNS; i++)
		if (d->session[i].state == SESSION_KEPT)
			seqtab_count(&d->session[i].st, r->refs, r->fresh);
	pool_restore_scan(r);
	fault_crash(CRASH_KEEP);
	err = index_restore(d->ix, r);
	fault_crash(CRASH_KEEP);
	for (uint32_t i = 0; i < POOL_MAX_CONNS && !err; i++) {
		if (d->session[i].state == SESSION_KEPT)
			ok[i] = begin_session(d, &d->session[i], r);
		fault_crash(CRASH_KEEP);
	}
	err = err ? err : index_restore_idle(d->ix, r);
	if (err) {
		snprintf(msg, n, "out of memory for the index");
		return err;
	}
	pool_restore_finish(r);
	err = pool_check(d->pool, msg, n);
	err = err ? err : index_check(d->ix, msg, n);
	return err || !d->tiers ? err : tiers_check(d->tiers, msg, n);
}

/* Those that cannot go on end as if they had died with the former daemon. */
static void end_broken(struct daemon *d, const bool *ok)
{
	struct keep *k = d->keep;
	bool torn;

	for (uint32_t i = 0; i < POOL_MAX_CONNS; i++) {
		const struct keep_session *v = keep_get(&k->st->session[i], &torn);
		struct session *s = &d->session[i];

		if (s->state != SESSION_KEPT)
			continue;
		if (!ok[i]) {
			k->nr.sessions_gone++;
			log_warn("client %u (%s, pid %d): its tables name what was not kept: it "
				 "has to start again", s->serial, s->label, (int)d->conn[i].pid);
		}
		if (!ok[i] || (v && v->dying))
			session_end(s, -ESTALE);
	}
}

static void take_figures(struct keep *k, const struct pool_restore *r)
{
	k->nr.hbm = r->nr_hbm;
	k->nr.ram = r->nr_ram;
	k->nr.open = r->nr_open;
	k->nr.held = r->nr_held;
	k->nr.bad = r->nr_bad;
	k->nr.disk = r->nr_disk;
	k->nr.damaged = r->nr_damaged;
	k->nr.lost = r->nr_lost;
	memcpy(k->held, r->held, sizeof(k->held));
}

static void say(struct daemon *d)
{
	const struct keep *k = d->keep;

	log_info("restored in %llu ms: %u spaces, %u slabs, %u clients; blocks: %u in HBM, "
		 "%u in RAM, %u private, %u only on disk; %u slots held until clients are past them",
		 (unsigned long long)(k->nr.ns / 1000000), k->nr.spaces, k->nr.slabs,
		 k->nr.sessions, k->nr.hbm, k->nr.ram, k->nr.open, k->nr.disk, k->nr.held);
	if (k->nr.damaged || k->nr.lost || k->nr.slabs_gone)
		log_warn("not restored: %u slabs, %u blocks whose bytes were nowhere, %u damaged "
			 "records", k->nr.slabs_gone, k->nr.lost, k->nr.damaged);
}

int restore_blocks(struct daemon *d, char *msg, size_t n)
{
	struct pool *p = d->pool;
	struct pool_restore r = {
		.p = p, .fresh = pool_array_fresh(p->blk), .claim = claim_ram, .ctx = d,
	};
	size_t bytes = ((size_t)p->nr_blocks + 1) * sizeof(*r.refs);
	bool ok[POOL_MAX_CONNS] = { false };
	struct keep *k = d->keep;
	int err;

	p->now = (uint32_t)(clock_policy_ns() / (1000000000 / POLICY_TICKS_PER_S));
	err = restore_sessions(d, msg, n);
	if (err)
		return err;
	r.refs = mem_big_alloc(bytes, false);
	if (!r.refs) {
		snprintf(msg, n, "out of memory for the scan of the block array");
		return -ENOMEM;
	}
	err = rebuild(d, &r, ok, msg, n);
	mem_big_free(r.refs, bytes);
	if (err)
		return err;
	take_figures(k, &r);
	end_broken(d, ok);
	for (uint32_t i = 0; d->tiers && i < p->space_end; i++)
		if (p->space[i].in_use)
			tiers_space_opened(d->tiers, &p->space[i]);
	k->restoring = false;
	k->deadline_ns = d->now_ns + d->conf.pool.resume_ns;
	k->nr.ns = clock_ns() - d->start_ns;
	say(d);
	return 0;
}
