/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ram_rig.c - see ram_rig.h.
 */
#include "ram_rig.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "kvmd/lib/fault.h"
#include "kvmd/lib/mem.h"
#include "tests/quiet.h"

static int *kept(struct rrig *r, const char *name)
{
	unsigned n;

	if (!strcmp(name, "ram-table"))
		return &r->table_fd;
	ck_assert_msg(sscanf(name, "ram-%u", &n) == 1 && n < RRIG_KEPT, "%s", name);
	return &r->chunk_fd[n];
}

static void keep_add(void *ctx, const char *name, int fd)
{
	struct rrig *r = ctx;
	int *at = kept(r, name);

	ck_assert_msg(*at < 0, "%s is kept already", name);
	*at = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	ck_assert_int_ge(*at, 0);
	r->nr_adds++;
}

static void keep_del(void *ctx, const char *name)
{
	struct rrig *r = ctx;
	int *at = kept(r, name);

	if (*at >= 0)
		close(*at);
	*at = -1;
	r->nr_dels++;
}

void rrig_init(struct rrig *r, const char *kind)
{
	char uuid[16];

	*r = (struct rrig) { .table_fd = -1 };
	for (unsigned i = 0; i < RRIG_KEPT; i++)
		r->chunk_fd[i] = -1;
	ck_assert_int_eq(workers_create(2, &r->w), 0);
	ck_assert_int_eq(workers_create(1, &r->slow), 0);
	ck_assert_int_eq(uring_create(8, &r->u), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(r->dev); i++) {
		snprintf(uuid, sizeof(uuid), "dev-%u", i);
		dev_init(&r->dev[i], dev_ops_find(kind), uuid, 1 << 30, r->w);
	}
}

static void free_space(struct rspace *s)
{
	uint32_t planes = s->sp.gp[0].geo.planes;

	for (uint32_t i = 0; i < s->slab.nr_ext; i++)
		s->sp.dev[i / planes]->ops->extent_destroy(s->sp.dev[i / planes], &s->slab.ext[i]);
	mem_free(s->slab.ext);
}

void rrig_exit(struct rrig *r)
{
	fault_disarm();
	rrig_settle(r);
	if (r->t) {
		rrig_clean(r);
		r->t->ops->destroy(r->t);
	}
	for (unsigned i = 0; i < r->nr_spaces; i++)
		free_space(&r->space[i]);
	for (unsigned i = 0; i < RRIG_KEPT; i++)
		if (r->chunk_fd[i] >= 0)
			close(r->chunk_fd[i]);
	if (r->table_fd >= 0)
		close(r->table_fd);
	uring_destroy(r->u);
	workers_destroy(r->slow);
	workers_destroy(r->w);
}

struct gpool *rrig_space(struct rrig *r, uint32_t planes, uint32_t shards, uint64_t plane_bytes,
			 bool replica)
{
	struct rspace *s = &r->space[r->nr_spaces++];
	struct gpool *gp = &s->sp.gp[0];

	ck_assert_uint_le(r->nr_spaces, ARRAY_SIZE(r->space));
	s->sp.nr_groups = 1;
	s->sp.nr_shards = shards;
	for (uint32_t i = 0; i < shards; i++)
		s->sp.dev[i] = &r->dev[i];
	gp->sp = &s->sp;
	gp->geo.planes = planes;
	gp->geo.plane_bytes = plane_bytes;
	gp->geo.flags = replica ? KVMD_GROUP_REPLICA : 0;
	gp->slot_bytes = planes * shards * plane_bytes;
	gp->max_slots = gp->slab_slots = RRIG_SLOTS;
	gp->max_slabs = 1;
	gp->slab = s->slabs;
	s->slabs[0] = &s->slab;
	s->slab.gp = gp;
	s->slab.nr = RRIG_SLOTS;
	s->slab.nr_ext = planes * shards;
	s->slab.ext = mem_calloc(s->slab.nr_ext, sizeof(*s->slab.ext));
	ck_assert_ptr_nonnull(s->slab.ext);
	for (uint32_t i = 0; i < s->slab.nr_ext; i++) {
		struct dev *d = s->sp.dev[i / planes];

		ck_assert_int_eq(d->ops->extent_create(d, align_up(RRIG_SLOTS * plane_bytes, 4096),
						       &s->slab.ext[i]), 0);
	}
	return gp;
}

static const struct ram_keep *keep(struct rrig *r)
{
	static struct ram_keep k;

	k = (struct ram_keep) { .add = keep_add, .del = keep_del, .ctx = r };
	return &k;
}

int rrig_create(struct rrig *r, uint64_t bytes, uint64_t chunk_bytes)
{
	const struct ram_opts o = { .bytes = bytes, .chunk_bytes = chunk_bytes };

	return ram_create(&o, r->no_buffers ? NULL : r->u, r->slow, keep(r), &r->t);
}

bool rrig_may_register(void)
{
	size_t bytes = 32u << 20;
	void *mem = mem_big_alloc(bytes, true);
	struct uring *u;
	bool may;

	ck_assert_ptr_nonnull(mem);
	ck_assert_int_eq(uring_create(8, &u), 0);
	may = !uring_buffers_init(u, 1) && !uring_buffer_set(u, 0, mem, bytes);
	uring_destroy(u);
	mem_big_free(mem, bytes);
	if (!may)
		printf("SKIP: RLIMIT_MEMLOCK is too small to register %zu bytes\n", bytes);
	return may;
}

void rrig_tier(struct rrig *r, uint64_t bytes, uint64_t chunk_bytes)
{
	ck_assert_int_eq(rrig_create(r, bytes, chunk_bytes), 0);
	rrig_settle(r);
	rrig_poll(r);
}

int rrig_restart(struct rrig *r, uint64_t bytes)
{
	const struct ram_opts o = { .bytes = bytes, .lock = true };
	int table_fd = r->table_fd, fd[RRIG_KEPT], err;

	rrig_settle(r);
	rrig_clean(r);
	r->t->ops->destroy(r->t);
	r->t = NULL;
	uring_destroy(r->u);
	ck_assert_int_eq(uring_create(8, &r->u), 0);
	for (unsigned i = 0; i < RRIG_KEPT; i++)
		fd[i] = r->chunk_fd[i] < 0 ? -1 : fcntl(r->chunk_fd[i], F_DUPFD_CLOEXEC, 0);
	table_fd = fcntl(table_fd, F_DUPFD_CLOEXEC, 0);
	err = ram_attach(&o, r->u, r->slow, keep(r), table_fd, fd, RRIG_KEPT, &r->t);
	if (err) {
		close(table_fd);
		for (unsigned i = 0; i < RRIG_KEPT; i++)
			if (fd[i] >= 0)
				close(fd[i]);
	}
	return err;
}

bool rrig_turn(struct rrig *r)
{
	struct pollfd p[2] = {
		{ .fd = workers_notify_fd(r->w), .events = POLLIN },
		{ .fd = workers_notify_fd(r->slow), .events = POLLIN },
	};
	uint64_t n;

	if (!workers_nr_pending(r->w) && !workers_nr_pending(r->slow))
		return false;
	if (workers_reap(r->w) + workers_reap(r->slow))
		return true;
	ck_assert_int_gt(poll(p, 2, -1), 0);
	for (int i = 0; i < 2; i++)
		if (p[i].revents)
			ck_assert(read(p[i].fd, &n, sizeof(n)) == sizeof(n));
	return true;
}

void rrig_settle(struct rrig *r)
{
	while (rrig_turn(r))
		;
}

void rrig_poll(struct rrig *r)
{
	while (r->t->ops->next_ns(r->t))
		(void)r->t->ops->poll(r->t);
}

void rrig_clean(struct rrig *r)
{
	char msg[256] = "";

	ck_assert_msg(!ram_check(r->t, msg, sizeof(msg)), "%s", msg);
}

struct ram_info rrig_info(struct rrig *r)
{
	struct ram_info i;

	ram_get_info(r->t, &i);
	return i;
}

uint32_t rrig_alloc(struct rrig *r, struct gpool *gp, uint32_t block)
{
	return r->t->ops->alloc(r->t, gp, block, tier_block_bytes(gp));
}

void rrig_free(struct rrig *r, uint32_t place)
{
	r->t->ops->free(r->t, place);
}

uint32_t rrig_fill(struct rrig *r, struct gpool *gp, uint32_t first, uint32_t *ret_place,
		   uint32_t most)
{
	uint32_t nr = 0, place;

	while (nr < most && (place = rrig_alloc(r, gp, first + nr))) {
		ret_place[nr++] = place;
		quiet_assert_uint_eq(ram_owner(r->t, place), first + nr - 1);
	}
	return nr;
}

void rrig_arm(const char *spec)
{
	char text[128] = "";

	ck_assert_msg(!fault_arm(spec, text, sizeof(text)), "%s", text);
}

void *rrig_plane(struct gpool *gp, uint32_t slot, uint32_t shard, uint32_t plane)
{
	const struct dev_extent *e = &gp->slab[0]->ext[shard * gp->geo.planes + plane];

	return e->map ? (char *)e->map + slot * gp->geo.plane_bytes : NULL;
}
