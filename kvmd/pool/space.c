/* SPDX-License-Identifier: Apache-2.0 */
/*
 * space.c - spaces, their geometry and epochs; tenants.
 */
#include "kvmd/pool/pool.h"

#include <stdio.h>

#include "kvmd/lib/mem.h"
#include "kvmd/lib/stats.h"
#include "kvmd/codec.h"
#include "kvmd/pool/policy.h"
#include "kvmd/pool/restore.h"

#define MAX_PLANE_BYTES	(1ull << 30)
#define MAX_SLOTS	(1u << 30)	/* table entries are int32 */

/* --------------------------------------------------------------- geometry */

static int bad(char *msg, size_t n, uint32_t g, const char *field, const char *want)
{
	snprintf(msg, n, "group %u: %s must be %s", g, field, want);
	return -EINVAL;
}

static int check_group(const struct kvmd_group *k, uint32_t g, char *msg, size_t n)
{
	const char *wrong;

	if (!k->planes || k->planes > KVMD_MAX_PLANES)
		return bad(msg, n, g, "planes", "1 to 512");
	if (!k->plane_bytes || k->plane_bytes > MAX_PLANE_BYTES || k->plane_bytes % 64)
		return bad(msg, n, g, "plane_bytes", "a multiple of 64, at most 1 GiB");
	if (!k->block_tokens || k->block_tokens > 65536)
		return bad(msg, n, g, "block_tokens", "1 to 65536");
	if (k->rule >= KVMD_NR_RULE)
		return bad(msg, n, g, "rule", "full, window or state");
	if (k->rule == KVMD_RULE_WINDOW ? !k->window : (k->window || k->sinks))
		return bad(msg, n, g, "window", "set for the window rule and for no other");
	if (k->flags & ~KVMD_GROUP_REPLICA)
		return bad(msg, n, g, "flags", "known bits");
	if (k->max_slots == 1 || k->max_slots > MAX_SLOTS)
		return bad(msg, n, g, "max_slots", "0 or 2 to 2^30");
	wrong = kvmd_codec_wrong(k);
	if (wrong) {
		snprintf(msg, n, "group %u: %s", g, wrong);
		return -EINVAL;
	}
	return 0;
}

int space_check_geometry(const struct kvmd_space *m, char *msg, size_t msg_bytes)
{
	if (!m->nr_groups || m->nr_groups > KVMD_MAX_GROUPS) {
		snprintf(msg, msg_bytes, "nr_groups must be 1 to %u", KVMD_MAX_GROUPS);
		return -EINVAL;
	}
	if (!m->nr_shards || m->nr_shards > KVMD_MAX_SHARDS) {
		snprintf(msg, msg_bytes, "nr_shards must be 1 to %u", KVMD_MAX_SHARDS);
		return -EINVAL;
	}
	for (uint32_t g = 0; g < m->nr_groups; g++) {
		int err = check_group(&m->group[g], g, msg, msg_bytes);

		if (err)
			return err;
	}
	return 0;
}

/* By UUID, as nvidia-smi writes it or without "GPU-", or by its name in the configuration. */
static bool device_is(const struct dev *d, const char *want)
{
	return !strcmp(d->uuid, strncmp(want, "GPU-", 4) ? want : want + 4) ||
	       !strcmp(d->name, want);
}

static int differs(char *msg, size_t n, const struct space *sp, uint32_t g, const char *field,
		   uint64_t have, uint64_t want)
{
	snprintf(msg, n, "space %s has group[%u].%s = %llu, not %llu: use the same or another name",
		 sp->name, g, field, (unsigned long long)have, (unsigned long long)want);
	return -EINVAL;
}

int space_same_geometry(const struct space *sp, const struct kvmd_space *m, char *msg, size_t n)
{
	if (sp->nr_groups != m->nr_groups || sp->nr_shards != m->nr_shards) {
		snprintf(msg, n, "space %s has nr_groups = %u, nr_shards = %u, not %u, %u",
			 sp->name, sp->nr_groups, sp->nr_shards, m->nr_groups, m->nr_shards);
		return -EINVAL;
	}
	if (memcmp(sp->salt_digest, m->salt_digest, sizeof(sp->salt_digest))) {
		snprintf(msg, n, "space %s has another salt_digest: its keys cannot match", sp->name);
		return -EINVAL;
	}
	for (uint32_t g = 0; g < sp->nr_groups; g++) {
		const struct kvmd_group *a = &sp->gp[g].geo, *b = &m->group[g];

#define CMP(f) do { if (a->f != b->f) \
		return differs(msg, n, sp, g, #f, a->f, b->f); } while (0)
		CMP(planes);
		CMP(plane_bytes);
		CMP(block_tokens);
		CMP(rule);
		CMP(window);
		CMP(sinks);
		CMP(flags);
		CMP(codec.id);
		CMP(codec.dtype);
		CMP(codec.scale_values);
		CMP(codec.parts);
		CMP(codec.channels);
		CMP(codec.kv_run);
		CMP(codec.exact_first);
		CMP(codec.exact_last);
		if (b->max_slots)
			CMP(max_slots);
#undef CMP
	}
	for (uint32_t i = 0; i < sp->nr_shards; i++) {
		if (!m->device[i][0] || device_is(sp->dev[i], m->device[i]))
			continue;
		snprintf(msg, n, "space %s has shard %u on device %s, not %s", sp->name, i,
			 sp->dev[i]->uuid, m->device[i]);
		return -EINVAL;
	}
	return 0;
}

/* ----------------------------------------------------------------- gpools */

static uint64_t gcd(uint64_t a, uint64_t b)
{
	while (b) {
		uint64_t t = a % b;

		a = b;
		b = t;
	}
	return a;
}

/*
 * Slots of a full slab: about slab_bytes, and every extent a multiple of the
 * granularity. Legacy handles are mapped wherever the driver likes: one slab holds
 * all slots then.
 */
static uint32_t slots_per_slab(const struct pool *p, const struct gpool *gp)
{
	const struct dev *d = gp->sp->dev[0];
	uint64_t unit = d->granularity / gcd(d->granularity, gp->geo.plane_bytes);
	uint64_t n = d->handle_kind == KVMD_HANDLE_CUDA_LEGACY ? gp->max_slots :
		     max(p->opts.slab_bytes / gp->slot_bytes, (uint64_t)1);

	return (uint32_t)min(align_up(n, unit), align_up(MAX_SLOTS, unit));
}

/* Budget of the devices under the space, in slots of @gp. */
static uint64_t budget_slots(const struct space *sp, const struct gpool *gp)
{
	uint64_t shard_bytes = gp->geo.planes * gp->geo.plane_bytes, least = UINT64_MAX;

	for (uint32_t s = 0; s < sp->nr_shards; s++) {
		uint32_t same = 0;

		for (uint32_t r = 0; r < sp->nr_shards; r++)
			same += sp->dev[r] == sp->dev[s];
		least = min(least, sp->dev[s]->budget_bytes / (shard_bytes * same));
	}
	return least;
}

/* Devices give memory in pieces of their granularity: does the first slab fit? */
static int slab_fits(const struct gpool *gp, char *msg, size_t n)
{
	const struct space *sp = gp->sp;
	uint64_t slots = min(gp->slab_slots, gp->max_slots);

	for (uint32_t s = 0; s < sp->nr_shards; s++) {
		const struct dev *d = sp->dev[s];
		uint64_t need = 0, ext = align_up(slots * gp->geo.plane_bytes, d->granularity);

		for (uint32_t r = 0; r < sp->nr_shards; r++)
			need += sp->dev[r] == d ? gp->geo.planes * ext : 0;
		if (need <= d->budget_bytes || d->granularity <= gp->geo.plane_bytes)
			continue;
		snprintf(msg, n, "group %u: a slab takes %llu KiB in %u planes, device %s gives pieces of "
			 "%llu KiB and has %llu KiB: use fewer planes (planes = 1), or raise its bytes",
			 gp->idx, (unsigned long long)need >> 10, gp->geo.planes, d->name,
			 (unsigned long long)d->granularity >> 10,
			 (unsigned long long)d->budget_bytes >> 10);
		return -ENOMEM;
	}
	return 0;
}

void gpool_wmarks(const struct pool *p, struct gpool *gp)
{
	uint64_t n = gp->max_slots - 1;

	gp->wmark_min = (uint32_t)(n * p->opts.wmark_min / 1000);
	gp->wmark_low = (uint32_t)(n * p->opts.wmark_low / 1000);
	gp->wmark_high = (uint32_t)(n * p->opts.wmark_high / 1000);
}

/* Another number of slots to a slab; there is no slab yet. */
static int gpool_reslab(struct gpool *gp, uint32_t slab_slots)
{
	uint32_t nr = (uint32_t)div_round_up(gp->max_slots, slab_slots);
	struct slab **slab = mem_calloc(nr, sizeof(*slab));

	if (!slab)
		return -ENOMEM;
	mem_free(gp->slab);
	gp->slab = slab;
	gp->slab_slots = slab_slots;
	gp->max_slabs = nr;
	return 0;
}

static int gpool_init(struct pool *p, struct space *sp, uint32_t g,
		      const struct policy_ops *pol, char *msg, size_t n)
{
	struct gpool *gp = &sp->gp[g];
	uint64_t slots;
	int err;

	gp->sp = sp;
	gp->idx = g;
	gp->slot_bytes = gp->geo.planes * gp->geo.plane_bytes * sp->nr_shards;
	gp->coded_bytes = kvmd_codec_bytes(&gp->geo, sp->nr_shards);
	slots = gp->geo.max_slots ? gp->geo.max_slots : budget_slots(sp, gp) + 1;
	if (slots < 2) {
		snprintf(msg, n, "group %u: one block of %llu bytes does not fit the device budget",
			 g, (unsigned long long)gp->slot_bytes);
		return -ENOMEM;
	}
	gp->max_slots = (uint32_t)min(slots, (uint64_t)MAX_SLOTS);
	gp->slab_slots = slots_per_slab(p, gp);
	/* One slab for all, the NULL slot's block included, is not larger than the device. */
	if (!gp->geo.max_slots && gp->slab_slots >= slots && slots > 2)
		gp->slab_slots = --gp->max_slots;
	gp->geo.max_slots = gp->max_slots;
	err = slab_fits(gp, msg, n);
	if (err)
		return err;
	gp->max_slabs = (uint32_t)div_round_up(gp->max_slots, gp->slab_slots);
	list_init(&gp->avail);
	list_init(&gp->waiters);
	gpool_wmarks(p, gp);
	gp->slab = mem_calloc(gp->max_slabs, sizeof(*gp->slab));
	gp->slot_owner = mem_big_alloc(gp->max_slots * sizeof(uint32_t), p->opts.populate);
	gp->free_slot = mem_big_alloc(gp->max_slots * sizeof(uint32_t), p->opts.populate);
	gp->policy = pol->create(p, gp);
	if (gp->slot_owner && gp->free_slot)
		p->metadata_bytes += 2ull * gp->max_slots * sizeof(uint32_t);
	if (!gp->slab || !gp->slot_owner || !gp->free_slot || !gp->policy) {
		snprintf(msg, n, "out of memory for the metadata of %u slots", gp->max_slots);
		return -ENOMEM;
	}
	return 0;
}

static void gpool_exit(struct pool *p, struct gpool *gp)
{
	for (uint32_t k = 0; gp->slab && k < gp->max_slabs; k++) {
		struct slab *s = gp->slab[k];

		for (uint32_t i = 0; s && i < s->nr_ext; i++)
			gp->sp->dev[i / gp->geo.planes]->ops->extent_destroy(
				gp->sp->dev[i / gp->geo.planes], &s->ext[i]);
		if (s) {
			mem_free(s->ext);
			s->ext = NULL;
			s->nr_ext = 0;
			s->state = SLAB_NONE;
		}
	}
	if (gp->policy)
		gp->policy->ops->destroy(gp->policy);
	if (gp->slot_owner && gp->free_slot)
		p->metadata_bytes -= 2ull * gp->max_slots * sizeof(uint32_t);
	mem_big_free(gp->free_slot, gp->max_slots * sizeof(uint32_t));
	mem_big_free(gp->slot_owner, gp->max_slots * sizeof(uint32_t));
	mem_free(gp->slab);
	memset(gp, 0, sizeof(*gp));
}

/* ------------------------------------------------------------------ spaces */

struct space *space_find(struct pool *p, const char *name)
{
	for (uint32_t i = 0; i < POOL_MAX_SPACES; i++)
		if (p->space[i].in_use && !strcmp(p->space[i].name, name))
			return &p->space[i];
	return NULL;
}

static void space_changed(struct pool *p, struct space *sp)
{
	if (p->events && p->events->space_changed)
		p->events->space_changed(p, sp);
}

static int sid_alloc(struct pool *p, struct space *sp, uint64_t epoch, uint16_t *ret_sid)
{
	/* The one unused for longest: a sequence may still carry a sid that has ended. */
	for (uint32_t n = 1; n < POOL_MAX_SIDS; n++) {
		uint32_t i = (p->last_sid + n - 1) % (POOL_MAX_SIDS - 1) + 1;

		if (p->sid[i].sp)
			continue;
		p->last_sid = i;
		p->sid[i] = (struct sid_info) { .sp = sp, .epoch = epoch };
		*ret_sid = (uint16_t)i;
		return 0;
	}
	return -ENOSPC;
}

static struct dev *named_device(struct pool *p, const char *want)
{
	for (uint32_t d = 0; d < p->nr_devs; d++)
		if (device_is(&p->dev[d], want))
			return &p->dev[d];
	return NULL;
}

static bool same_kind(const struct dev *a, const struct dev *b)
{
	return a->ops == b->ops && a->handle_kind == b->handle_kind &&
	       a->granularity == b->granularity;
}

/* Shards go round those of the first device's kind that are there. */
static struct dev *default_device(struct pool *p, const struct space *sp, uint32_t shard)
{
	struct dev *fit[POOL_MAX_DEVS];
	uint32_t nr = 0;

	for (uint32_t d = 0; d < p->nr_devs; d++)
		if (!p->dev[d].down && (!shard || same_kind(&p->dev[d], sp->dev[0])))
			fit[nr++] = &p->dev[d];
	return nr ? fit[shard % nr] : NULL;
}

static int space_devices(struct pool *p, struct space *sp, const struct kvmd_space *m,
			 char *msg, size_t n)
{
	for (uint32_t s = 0; s < sp->nr_shards; s++) {
		const char *want = m->device[s];

		sp->dev[s] = want[0] ? named_device(p, want) : default_device(p, sp, s);
		if (!sp->dev[s] && want[0]) {
			snprintf(msg, n, "no device %s for shard %u: see `kvctl dev list`", want, s);
			return -ENODEV;
		}
		if (!sp->dev[s] || sp->dev[s]->down) {
			const struct dev *d = sp->dev[s] ? sp->dev[s] : &p->dev[0];

			snprintf(msg, n, "device %s for shard %u is not there: %s", d->name, s,
				 d->text);
			return -ENODEV;
		}
		if (!same_kind(sp->dev[s], sp->dev[0])) {
			snprintf(msg, n, "shards on devices of two kinds (%s, %s)",
				 sp->dev[0]->ops->name, sp->dev[s]->ops->name);
			return -EINVAL;
		}
	}
	return 0;
}

/* With number @id, in its first epoch, without a sid. */
static int space_make(struct pool *p, uint32_t id, const struct kvmd_space *m, struct tenant *t,
		      const struct policy_ops *pol, char *msg, size_t n)
{
	struct space *sp = &p->space[id];
	int err;

	memset(sp, 0, sizeof(*sp));
	sp->id = id;
	sp->tenant = t;
	sp->nr_groups = m->nr_groups;
	sp->nr_shards = m->nr_shards;
	memcpy(sp->salt_digest, m->salt_digest, sizeof(sp->salt_digest));
	snprintf(sp->name, sizeof(sp->name), "%s", m->name);
	err = space_devices(p, sp, m, msg, n);
	if (err)
		return err;
	for (uint32_t g = 0; g < sp->nr_groups; g++) {
		sp->gp[g].geo = m->group[g];
		err = gpool_init(p, sp, g, pol, msg, n);
		if (err)
			goto err_exit_gpools;
	}
	return 0;

err_exit_gpools:
	for (uint32_t g = 0; g < sp->nr_groups; g++)
		gpool_exit(p, &sp->gp[g]);
	return err;
}

static void space_begin(struct pool *p, struct space *sp)
{
	sp->in_use = true;
	p->space_end = max(p->space_end, sp->id + 1);
	space_changed(p, sp);
}

int space_create(struct pool *p, const struct kvmd_space *m, struct tenant *t,
		 const struct policy_ops *pol, struct space **ret_sp, char *msg, size_t n)
{
	struct space *sp;
	uint32_t id;
	int err;

	for (id = 0; id < POOL_MAX_SPACES && p->space[id].in_use; id++)
		;
	if (id == POOL_MAX_SPACES) {
		snprintf(msg, n, "there are %u spaces, the most there can be", POOL_MAX_SPACES);
		return -ENOSPC;
	}
	sp = &p->space[id];
	err = space_make(p, id, m, t, pol, msg, n);
	if (err)
		return err;
	err = sid_alloc(p, sp, 0, &sp->sid);
	if (err) {
		snprintf(msg, n, "%u space epochs still have blocks: wait for reclaim",
			 POOL_MAX_SIDS);
		goto err_exit_gpools;
	}
	space_begin(p, sp);
	*ret_sp = sp;
	return 0;

err_exit_gpools:
	for (uint32_t g = 0; g < sp->nr_groups; g++)
		gpool_exit(p, &sp->gp[g]);
	return err;
}

int space_restore(struct pool *p, uint32_t id, const struct space_kept *k, struct tenant *t,
		  const struct policy_ops *pol, char *msg, size_t n)
{
	struct kvmd_space m = { .nr_groups = k->nr_groups, .nr_shards = k->nr_shards };
	struct space *sp = &p->space[id];
	int err;

	memcpy(m.name, k->name, sizeof(m.name));
	memcpy(m.salt_digest, k->salt_digest, sizeof(m.salt_digest));
	memcpy(m.group, k->group, sizeof(m.group));
	memcpy(m.device, k->device, sizeof(m.device));
	err = space_check_geometry(&m, msg, n);
	for (uint32_t g = 0; g < k->nr_groups && !err; g++)
		if (!m.group[g].max_slots || !k->slab_slots[g])
			err = -EINVAL;
	if (err)
		return err;
	if (!k->sid || k->sid >= POOL_MAX_SIDS || p->sid[k->sid].sp) {
		snprintf(msg, n, "epoch number %u is impossible", k->sid);
		return -EINVAL;
	}
	err = space_make(p, id, &m, t, pol, msg, n);
	if (err)
		return err;
	for (uint32_t g = 0; g < sp->nr_groups; g++) {
		struct gpool *gp = &sp->gp[g];

		/* The slots of a slab as they were, whatever slab_bytes is now. */
		err = gpool_reslab(gp, k->slab_slots[g]);
		if (err)
			goto err_exit_gpools;
	}
	sp->sid = (uint16_t)k->sid;
	sp->epoch = k->epoch;
	p->sid[k->sid] = (struct sid_info) { .sp = sp, .epoch = k->epoch };
	p->last_sid = max(p->last_sid, k->sid);
	space_begin(p, sp);
	return 0;

err_exit_gpools:
	snprintf(msg, n, "out of memory for the metadata of its slabs");
	for (uint32_t g = 0; g < sp->nr_groups; g++)
		gpool_exit(p, &sp->gp[g]);
	return err;
}

bool sid_restore(struct pool *p, uint32_t sid, uint32_t space, uint64_t epoch)
{
	if (!sid || sid >= POOL_MAX_SIDS || space >= POOL_MAX_SPACES ||
	    !p->space[space].in_use || p->sid[sid].sp)
		return false;
	p->sid[sid] = (struct sid_info) { .sp = &p->space[space], .epoch = epoch };
	p->last_sid = max(p->last_sid, sid);
	return true;
}

void space_destroy(struct pool *p, struct space *sp)
{
	for (uint32_t g = 0; g < sp->nr_groups; g++) {
		struct gpool *gp = &sp->gp[g];

		for (uint32_t k = 0; k < gp->max_slabs; k++)
			for (uint32_t i = 0; gp->slab[k] && i < gp->slab[k]->nr_ext; i++)
				sp->dev[i / gp->geo.planes]->used_bytes -= gp->slab[k]->extent_bytes;
		gpool_exit(p, gp);
	}
	for (uint32_t i = 1; i < POOL_MAX_SIDS; i++)
		if (p->sid[i].sp == sp)
			p->sid[i].sp = NULL;
	sp->in_use = false;
}

int space_raise_epoch(struct pool *p, struct space *sp, uint64_t epoch)
{
	struct sid_info *old = &p->sid[sp->sid];
	uint16_t sid;
	int err;

	if (!epoch)
		epoch = sp->epoch + 1;
	if (epoch <= sp->epoch)
		return -EINVAL;
	err = sid_alloc(p, sp, epoch, &sid);
	if (err)
		return err;
	sp->nr_stale += old->nr_sealed;
	if (!old->nr_records)
		old->sp = NULL;
	sp->sid = sid;
	sp->epoch = epoch;
	space_changed(p, sp);
	return 0;
}

/* ----------------------------------------------------------------- tenants */

struct tenant *tenant_find(struct pool *p, const char *name)
{
	for (uint32_t i = 0; i < p->nr_tenants; i++)
		if (!strcmp(p->tenant[i].name, name))
			return &p->tenant[i];
	return NULL;
}

int tenant_add(struct pool *p, const char *name, struct tenant **ret_t)
{
	struct tenant *t;

	if (p->nr_tenants == POOL_MAX_TENANTS)
		return -ENOSPC;
	t = &p->tenant[p->nr_tenants];
	*t = (struct tenant) { .id = p->nr_tenants++ };
	snprintf(t->name, sizeof(t->name), "%s", name);
	*ret_t = t;
	return 0;
}
