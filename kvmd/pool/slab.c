/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slab.c - slabs on demand: created by a worker, announced, used, drained, moved.
 *
 *   NONE -> CREATING -> ANNOUNCED -> ACTIVE <-> DRAINING -> UNMAPPING
 *     ^                     ^                                  |
 *     |                     +---- SCRUBBING <- WAIT_TENANT <---+
 *     +-------------- DESTROYING <-----------------------------+
 *
 * A slab is used only when every session of its space has mapped it, and its
 * memory goes on only when every session has unmapped it. Memory that changes
 * tenant waits until the old tenant's processes that mapped it are gone. It is
 * scrubbed whenever it changes space.
 */
#include "kvmd/pool/pool.h"

#include "kvmd/lib/clock.h"
#include "kvmd/lib/mem.h"
#include "kvmd/lib/stats.h"
#include "kvmd/pool/restore.h"

#define GROWTH_PAUSE_NS	100000000ull

static const char *const names[NR_SLAB_STATE] = {
	[SLAB_NONE]	   = "none",
	[SLAB_CREATING]	   = "creating",
	[SLAB_ANNOUNCED]   = "announced",
	[SLAB_ACTIVE]	   = "active",
	[SLAB_DRAINING]	   = "draining",
	[SLAB_UNMAPPING]   = "unmapping",
	[SLAB_WAIT_TENANT] = "waiting for the old tenant's processes",
	[SLAB_SCRUBBING]   = "scrubbing",
	[SLAB_DESTROYING]  = "destroying",
};

const char *slab_state_name(unsigned state)
{
	return state < NR_SLAB_STATE ? names[state] : "?";
}

bool slab_bits_empty(const uint64_t *map)
{
	uint64_t any = 0;

	for (unsigned i = 0; i < POOL_MAX_CONNS / 64; i++)
		any |= map[i];
	return !any;
}

/* ------------------------------------------------------------- accounting */

/* The pool a work item belongs to: slabs are an array inside it. */
static struct pool *slab_pool(struct slab *s)
{
	return container_of(s - s->id, struct pool, slab[0]);
}

static struct dev *ext_dev(const struct slab *s, uint32_t i)
{
	return s->gp->sp->dev[i / s->gp->geo.planes];
}

static void charge_devs(struct slab *s, int sign)
{
	struct space *sp = s->gp->sp;
	uint64_t bytes = s->gp->geo.planes * s->extent_bytes;

	for (uint32_t i = 0; i < sp->nr_shards; i++)
		sp->dev[i]->used_bytes += sign > 0 ? bytes : -bytes;
}

static uint32_t usable(const struct slab *s)
{
	return s->nr - (s->first == 0);
}

static void set_state(struct slab *s, uint32_t state)
{
	struct pool *p = slab_pool(s);

	s->state = state;
	if (p->events && p->events->slab_changed)
		p->events->slab_changed(p, s);
}

/* Slots and extent size of the slab at index @k of @gp. */
static void slab_shape(const struct gpool *gp, uint32_t k, uint32_t *ret_nr, uint64_t *ret_ext)
{
	uint32_t first = k * gp->slab_slots;

	*ret_nr = min(gp->slab_slots, gp->max_slots - first);
	*ret_ext = align_up((uint64_t)*ret_nr * gp->geo.plane_bytes,
			    gp->sp->dev[0]->granularity);
}

static uint32_t free_index(const struct gpool *gp)
{
	uint32_t k = 0;

	while (k < gp->max_slabs && gp->slab[k])
		k++;
	return k;
}

static bool budget_fits(const struct gpool *gp, uint64_t extent_bytes)
{
	const struct space *sp = gp->sp;

	for (uint32_t i = 0; i < sp->nr_shards; i++) {
		uint64_t need = 0;

		for (uint32_t r = 0; r < sp->nr_shards; r++)
			if (sp->dev[r] == sp->dev[i])
				need += gp->geo.planes * extent_bytes;
		if (sp->dev[i]->used_bytes + need > sp->dev[i]->budget_bytes)
			return false;
	}
	return true;
}

/* A device that failed is not asked again at once. */
static bool must_pause(const struct gpool *gp)
{
	return gp->growth_failed && clock_ns() < gp->growth_retry_ns;
}

bool slab_can_grow(const struct pool *p, const struct gpool *gp)
{
	uint32_t nr, k = free_index(gp);
	uint64_t bytes;

	(void)p;
	if (k == gp->max_slabs || must_pause(gp))
		return false;
	slab_shape(gp, k, &nr, &bytes);
	return budget_fits(gp, bytes);
}

/* ----------------------------------------------------------------- workers */

static void create_fn(struct work *w)
{
	struct slab *s = container_of(w, struct slab, work);
	uint32_t nr = s->gp->geo.planes * s->gp->sp->nr_shards;

	s->work_err = -ENOMEM;
	s->ext = mem_calloc(nr, sizeof(*s->ext));
	if (!s->ext)
		return;
	for (s->nr_ext = 0; s->nr_ext < nr; s->nr_ext++) {
		struct dev *d = ext_dev(s, s->nr_ext);

		s->work_err = d->ops->extent_create(d, s->extent_bytes, &s->ext[s->nr_ext]);
		if (s->work_err)
			break;
	}
}

static void destroy_fn(struct work *w)
{
	struct slab *s = container_of(w, struct slab, work);

	while (s->nr_ext) {
		struct dev *d = ext_dev(s, --s->nr_ext);

		d->ops->extent_destroy(d, &s->ext[s->nr_ext]);
	}
	mem_free(s->ext);
	s->ext = NULL;
}

static void scrub_fn(struct work *w)
{
	struct slab *s = container_of(w, struct slab, work);

	s->work_err = 0;
	for (uint32_t i = 0; i < s->nr_ext && !s->work_err; i++) {
		struct dev *d = ext_dev(s, i);

		s->work_err = d->ops->extent_scrub(d, &s->ext[i]);
	}
}

static void slab_release(struct slab *s)
{
	memset(s->ever, 0, sizeof(s->ever));
	s->tainted = false;
	s->gen++;
	s->gp = s->taker = NULL;
	set_state(s, SLAB_NONE);
}

static void destroy_done(struct work *w)
{
	struct slab *s = container_of(w, struct slab, work);
	struct pool *p = slab_pool(s);
	struct gpool *gp = s->gp, *taker = s->taker;

	charge_devs(s, -1);
	gp->slab[s->first / gp->slab_slots] = NULL;
	slab_release(s);
	stat_inc(SLABS_DESTROYED);
	if (taker) {
		taker->growth_failed = false;
		(void)slab_grow(p, taker);
	}
}

static void destroy_start(struct slab *s)
{
	set_state(s, SLAB_DESTROYING);
	s->work.fn = destroy_fn;
	s->work.done = destroy_done;
	workers_submit(slab_pool(s)->workers, &s->work);
}

/* Fresh or scrubbed memory is there: fill the free stack, announce. */
static void slab_announce(struct pool *p, struct slab *s)
{
	struct gpool *gp = s->gp;

	s->nr_free = 0;
	for (uint32_t i = s->nr; i > (s->first == 0); i--)
		gp->free_slot[s->first + s->nr_free++] = s->first + i - 1;
	memset(s->mapped, 0, sizeof(s->mapped));
	memset(s->unacked, 0, sizeof(s->unacked));
	memset(s->late, 0, sizeof(s->late));
	set_state(s, SLAB_ANNOUNCED);
	s->deadline_ns = 0;
	if (p->events)
		p->events->slab_ready(p, s);
	else
		slab_activate(p, s);
}

static void create_done(struct work *w)
{
	struct slab *s = container_of(w, struct slab, work);
	struct pool *p = slab_pool(s);
	struct gpool *gp = s->gp;
	int err = s->work_err;

	if (!err) {
		stat_inc(SLABS_CREATED);
		slab_announce(p, s);
		return;
	}
	gp->nr_coming -= usable(s);
	gp->growth_failed = true;
	gp->growth_retry_ns = clock_ns() + GROWTH_PAUSE_NS;
	destroy_start(s);		/* what was made of it */
	if (p->events)
		p->events->slab_failed(p, gp, err);
}

/* ------------------------------------------------------------------ growing */

int slab_grow(struct pool *p, struct gpool *gp)
{
	uint32_t nr, k = free_index(gp), i = 0;
	struct slab *s;
	uint64_t bytes;

	if (k == gp->max_slabs)
		return -ENOSPC;
	slab_shape(gp, k, &nr, &bytes);
	if (must_pause(gp) || !budget_fits(gp, bytes))
		return -ENOMEM;
	while (i < POOL_MAX_SLABS && p->slab[i].state != SLAB_NONE)
		i++;
	if (i == POOL_MAX_SLABS)
		return -ENOSPC;
	p->slab_end = max(p->slab_end, i + 1);
	s = &p->slab[i];
	s->gp = gp;
	s->taker = NULL;
	s->first = k * gp->slab_slots;
	s->nr = nr;
	s->nr_free = 0;
	s->extent_bytes = bytes;
	s->nr_ext = 0;
	set_state(s, SLAB_CREATING);
	gp->slab[k] = s;
	gp->nr_coming += usable(s);
	charge_devs(s, 1);
	s->work.fn = create_fn;
	s->work.done = create_done;
	workers_submit(p->workers, &s->work);
	return 0;
}

void slab_activate(struct pool *p, struct slab *s)
{
	struct gpool *gp = s->gp;

	(void)p;
	set_state(s, SLAB_ACTIVE);
	s->deadline_ns = 0;
	gp->nr_coming -= usable(s);
	gp->nr_slots += usable(s);
	gp->nr_free += s->nr_free;
	if (s->nr_free)
		list_add_tail(&s->avail, &gp->avail);
}

/* ----------------------------------------------------------------- draining */

void slab_drain(struct pool *p, struct slab *s, struct gpool *taker)
{
	struct gpool *gp = s->gp;

	if (s->state != SLAB_ACTIVE)
		return;
	set_state(s, SLAB_DRAINING);
	p->nr_draining++;
	s->taker = taker;
	gp->nr_slots -= usable(s);
	gp->nr_free -= s->nr_free;
	list_del(&s->avail);
	slab_advance(p, s);
}

void slab_undrain(struct pool *p, struct slab *s)
{
	if (s->state != SLAB_DRAINING)
		return;
	p->nr_draining--;
	s->gp->nr_coming += usable(s);
	s->taker = NULL;
	slab_activate(p, s);
}

/* Can the very memory of @s serve as @to's next slab? */
static bool same_shape(const struct slab *s, const struct gpool *to)
{
	uint32_t nr, k = free_index(to);
	uint64_t bytes;

	if (k == to->max_slabs || s->nr_ext != to->geo.planes * to->sp->nr_shards)
		return false;
	slab_shape(to, k, &nr, &bytes);
	if (bytes != s->extent_bytes)
		return false;
	for (uint32_t i = 0; i < s->nr_ext; i++)
		if (ext_dev(s, i) != to->sp->dev[i / to->geo.planes])
			return false;
	return true;
}

static void scrub_done(struct work *w)
{
	struct slab *s = container_of(w, struct slab, work);
	struct pool *p = slab_pool(s);
	struct gpool *to = s->taker;
	uint32_t k = free_index(to);

	stat_inc(SLABS_SCRUBBED);
	if (s->work_err || !same_shape(s, to)) {
		destroy_start(s);	/* not provably clean, or no place: never reused */
		return;
	}
	charge_devs(s, -1);
	s->gp->slab[s->first / s->gp->slab_slots] = NULL;
	s->gp = to;
	s->taker = NULL;
	s->gen++;
	s->first = k * to->slab_slots;
	slab_shape(to, k, &s->nr, &s->extent_bytes);
	to->slab[k] = s;
	charge_devs(s, 1);
	to->nr_coming += usable(s);
	stat_inc(SLABS_MOVED);
	slab_announce(p, s);
}

static void slab_unmapped(struct pool *p, struct slab *s)
{
	if (!s->taker || !same_shape(s, s->taker)) {
		destroy_start(s);
		return;
	}
	if (s->taker->sp->tenant != s->gp->sp->tenant && s->tainted) {
		destroy_start(s);
		return;
	}
	if (s->taker->sp->tenant != s->gp->sp->tenant && !slab_bits_empty(s->ever)) {
		p->nr_draining++;
		set_state(s, SLAB_WAIT_TENANT);
		return;
	}
	set_state(s, SLAB_SCRUBBING);
	s->work.fn = scrub_fn;
	s->work.done = scrub_done;
	workers_submit(p->workers, &s->work);
}

void slab_advance(struct pool *p, struct slab *s)
{
	switch (s->state) {
	case SLAB_DRAINING:
		if (slab_nr_used(s))
			return;
		set_state(s, SLAB_UNMAPPING);
		p->nr_draining--;
		memcpy(s->unacked, s->mapped, sizeof(s->unacked));
		if (!slab_bits_empty(s->unacked) && p->events)
			p->events->slab_unmap(p, s);
		if (slab_bits_empty(s->unacked))
			slab_unmapped(p, s);
		return;
	case SLAB_WAIT_TENANT:
		if (!slab_bits_empty(s->ever))
			return;
		p->nr_draining--;
		set_state(s, SLAB_UNMAPPING);
		slab_unmapped(p, s);
		return;
	case SLAB_UNMAPPING:
		if (slab_bits_empty(s->unacked))
			slab_unmapped(p, s);
		return;
	case SLAB_ANNOUNCED:
		if (slab_bits_empty(s->unacked))
			slab_activate(p, s);
		return;
	default:
		return;
	}
}

/* ---------------------------------------------------------------- restoring */

static int check_kept(const struct pool *p, uint32_t id, const struct slab_kept *k)
{
	const struct space *sp = k->space < POOL_MAX_SPACES ? &p->space[k->space] : NULL;
	const struct gpool *gp;
	uint32_t nr, at;
	uint64_t bytes;

	if (id >= POOL_MAX_SLABS || p->slab[id].state != SLAB_NONE || !sp || !sp->in_use ||
	    k->group >= sp->nr_groups)
		return -EINVAL;
	if (k->state < SLAB_ANNOUNCED || k->state > SLAB_UNMAPPING)
		return -EINVAL;
	gp = &sp->gp[k->group];
	at = k->first / gp->slab_slots;
	if (k->first % gp->slab_slots || at >= gp->max_slabs || gp->slab[at])
		return -EINVAL;
	slab_shape(gp, at, &nr, &bytes);
	return nr == k->nr && bytes == k->extent_bytes &&
	       k->nr_ext == gp->geo.planes * sp->nr_shards ? 0 : -EINVAL;
}

static int attach(struct slab *s, const int *fd)
{
	uint32_t nr = s->gp->geo.planes * s->gp->sp->nr_shards;
	int err;

	s->ext = mem_calloc(nr, sizeof(*s->ext));
	if (!s->ext)
		return -ENOMEM;
	for (s->nr_ext = 0; s->nr_ext < nr; s->nr_ext++) {
		struct dev *d = ext_dev(s, s->nr_ext);

		err = d->ops->extent_attach(d, fd[s->nr_ext], s->extent_bytes,
					    &s->ext[s->nr_ext]);
		if (err)
			goto err_detach;
	}
	return 0;

err_detach:
	while (s->nr_ext) {
		struct dev *d = ext_dev(s, --s->nr_ext);

		s->ext[s->nr_ext].fd = -1;	/* the caller's */
		d->ops->extent_destroy(d, &s->ext[s->nr_ext]);
	}
	mem_free(s->ext);
	s->ext = NULL;
	return err;
}

int slab_restore(struct pool *p, uint32_t id, const struct slab_kept *k, const int *fd)
{
	int err = check_kept(p, id, k);
	struct gpool *gp;
	struct slab *s;

	if (err)
		return err;
	gp = &p->space[k->space].gp[k->group];
	s = &p->slab[id];
	s->gp = gp;
	s->taker = NULL;
	s->first = k->first;
	s->nr = k->nr;
	s->nr_ext = 0;
	s->extent_bytes = k->extent_bytes;
	err = attach(s, fd);
	if (err) {
		s->gp = NULL;
		return err;
	}
	s->gen = k->gen;
	s->tainted = k->tainted;
	s->deadline_ns = 0;
	memcpy(s->mapped, k->mapped, sizeof(s->mapped));
	memcpy(s->ever, k->ever, sizeof(s->ever));
	memset(s->unacked, 0, sizeof(s->unacked));
	memset(s->late, 0, sizeof(s->late));
	p->slab_end = max(p->slab_end, id + 1);
	gp->slab[k->first / gp->slab_slots] = s;
	charge_devs(s, 1);
	s->nr_free = 0;
	gp->nr_slots += usable(s);
	set_state(s, SLAB_ACTIVE);
	return 0;
}
