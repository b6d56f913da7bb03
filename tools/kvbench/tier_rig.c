// SPDX-License-Identifier: Apache-2.0
/*
 * tier_rig.c - pool, workers, io_uring and tiers in this process: a daemon's core
 * thread without rings and clients.
 *
 * Records are given their keys by hand and no index is there: what the tiers ask
 * of a record is who it is.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "kvmd/lib/clock.h"
#include "kvmd/lib/mem.h"
#include "kvmd/lib/stats.h"
#include "kvmd/reclaim/policy.h"
#include "tools/kvbench/tier.h"

#define WAIT_NS	1000000ull

static unsigned nr_rigs;

/* -------------------------------------------------------------------- turning */

static uint64_t next_ns(struct tier *t)
{
	return t && t->ops->next_ns ? t->ops->next_ns(t) : 0;
}

bool rig_turn(struct rig *r)
{
	unsigned nr = uring_poll(r->u) + workers_reap(r->workers) + workers_reap(r->slow);

	if (r->ram)
		nr += r->ram->ops->poll(r->ram);
	if (r->disk)
		nr += r->disk->ops->poll(r->disk);
	return nr > 0;
}

void rig_wait(struct rig *r)
{
	uint64_t now = clock_ns(), until = now + WAIT_NS, t;

	t = next_ns(r->disk);
	if (t)
		until = min(until, t);
	t = next_ns(r->ram);
	if (t)
		until = min(until, t);
	if (until > now)
		uring_wait(r->u, until - now);
}

/* -------------------------------------------------------------------- set-up */

static void make_space(struct rig *r, const struct rig_opts *o)
{
	struct kvmd_space m = { .name = "bench", .nr_groups = 1, .nr_shards = 1 };
	char msg[256] = "";
	struct tenant *t;

	m.group[0] = (struct kvmd_group) {
		.plane_bytes = o->block, .planes = 1, .block_tokens = BENCH_TOKENS,
		.rule = KVMD_RULE_FULL,
		.max_slots = (uint32_t)(max(o->hbm_bytes / o->block, 1ull) + 1),
	};
	if (tenant_add(r->p, "default", &t) ||
	    space_create(r->p, &m, t, policy_find("lru"), &r->sp, msg, sizeof(msg)))
		kvb_die("no space for the tiers: %s", msg);
	r->gp = &r->sp->gp[0];
}

static void slab_ready(struct pool *p, struct slab *s)
{
	slab_activate(p, s);
}

static void slab_unmap(struct pool *p, struct slab *s)
{
	(void)p;
	(void)s;
}

static void slab_failed(struct pool *p, struct gpool *gp, int err)
{
	(void)p;
	(void)gp;
	kvb_die("no memory for the device: %s", strerror(-err));
}

static const struct pool_events events = {
	.slab_ready = slab_ready,
	.slab_unmap = slab_unmap,
	.slab_changed = slab_unmap,
	.slab_failed = slab_failed,
};

static void make_hbm(struct rig *r)
{
	while (r->gp->nr_slots + 1 < r->gp->max_slots) {
		if (slab_grow(r->p, r->gp) && !workers_nr_pending(r->workers))
			kvb_die("the device has no memory for %u blocks", r->gp->max_slots);
		while (workers_nr_pending(r->workers))
			if (!rig_turn(r))
				rig_wait(r);
	}
	for (uint32_t i = 0; i < r->gp->max_slabs; i++)
		if (r->gp->slab[i])
			memset(r->gp->slab[i]->ext[0].map, 0x41 + (int)i % 16,
			       r->gp->slab[i]->ext[0].bytes);
}

static void make_ram(struct rig *r, const struct rig_opts *o)
{
	const struct ram_opts ro = { .bytes = o->ram_bytes, .hugetlb = true, .lock = true };
	struct ram_info i;

	if (ram_create(&ro, r->u, r->slow, NULL, &r->ram))
		kvb_die("no RAM tier");
	do {
		if (!rig_turn(r))
			rig_wait(r);
		ram_get_info(r->ram, &i);
	} while (i.nr_ready < i.nr_chunks && !interrupted);
	if (i.text[0])
		kvb_note("RAM tier: %s", i.text);
}

static enum disk_verdict found(void *ctx, const struct disk_space *sp,
			       const struct disk_header *h, uint32_t place, uint32_t *ret_block)
{
	(void)ctx;
	(void)sp;
	(void)h;
	(void)place;
	(void)ret_block;
	return DISK_GONE;
}

static bool keep(void *ctx, uint32_t block, uint32_t place)
{
	struct rig *r = (struct rig *)ctx;

	if (r->place[block] == place)
		r->place[block] = 0;
	return false;
}

static void moved(void *ctx, uint32_t block, uint32_t from, uint32_t to)
{
	(void)from;
	((struct rig *)ctx)->place[block] = to;
}

static void lost(void *ctx, uint32_t block, uint32_t place)
{
	(void)place;
	((struct rig *)ctx)->place[block] = 0;
}

static void recovered(void *ctx)
{
	(void)ctx;
}

static void make_disk(struct rig *r, const struct rig_opts *o)
{
	const struct disk_events ev = { found, keep, moved, lost, recovered, r };
	struct disk_opts d = {
		.path = { o->disk }, .nr_paths = 1, .bytes = o->disk_bytes,
		.segment_bytes = 64 << 20, .block_bytes_hint = 256 << 10,
		.inflight_bytes = 4 << 20, .inflight_read_bytes = 512 << 10,
	};
	char msg[256] = "";
	struct disk_info i;

	if (disk_create(&d, r->p, r->u, r->workers, r->slow, &ev, &r->disk, msg, sizeof(msg)))
		kvb_die("no disk tier: %s", msg);
	do {
		if (!rig_turn(r))
			rig_wait(r);
		disk_get_info(r->disk, &i);
	} while (i.recovering && !interrupted);
}

/* Who the records are. */
static void make_records(struct rig *r)
{
	for (uint32_t i = 1; i <= r->nr_blocks; i++) {
		struct block *b = pool_block(r->p, i);

		bench_key(i, b->key);
		b->sid = r->sp->sid;
		b->state = BLK_SEALED;
	}
	r->place = (uint32_t *)mem_calloc(r->nr_blocks + 1, sizeof(*r->place));
	if (!r->place)
		kvb_die("no memory");
}

static void make_mem(struct rig *r, uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED)
		kvb_die("no memory");
	r->mem = (uint8_t *)p;
	r->mem_bytes = bytes;
	memset(p, 0x5a, bytes);
	if (uring_buffer_set(r->u, 0, p, bytes))
		kvb_die("%llu bytes cannot be registered with io_uring (ulimit -l?)",
			(unsigned long long)bytes);
}

void rig_init(struct rig *r, const struct rig_opts *o)
{
	const struct pool_opts po = {
		.nr_blocks = o->nr_blocks, .nr_nodes = 64, .slab_bytes = 256 << 20,
	};

	*r = (struct rig) { .nr_blocks = o->nr_blocks, .ops = dev_host_ops };
	if (!nr_rigs++ && stats_init())
		kvb_die("no counters");
	/* Threads stay where their creator was. */
	if (o->pinned)
		cpu_server();
	else
		cpu_any();
	if (workers_create(1, &r->workers) || workers_create(1, &r->slow))
		kvb_die("no threads");
	if (o->pinned)
		cpu_client();
	/* The RAM tier makes the table of fixed buffers itself. */
	if (uring_create(1024, &r->u) || (o->mem_bytes && uring_buffers_init(r->u, 1)) ||
	    uring_files_init(r->u, DISK_MAX_FILES) ||
	    worker_bell_start(&r->bell, r->u, r->workers) || pool_create(&po, r->workers, &r->p))
		kvb_die("no pool for the tiers");
	r->p->events = &events;
	dev_init(&r->p->dev[0], &r->ops, "host-0", o->hbm_bytes + (64 << 20), r->workers);
	r->p->nr_devs = 1;
	make_space(r, o);
	make_records(r);
	if (o->hbm_bytes)
		make_hbm(r);
	if (o->mem_bytes)
		make_mem(r, o->mem_bytes);
	if (o->ram_bytes)
		make_ram(r, o);
	if (o->disk)
		make_disk(r, o);
}

void rig_exit(struct rig *r)
{
	if (!r->u)
		return;
	while (r->disk && !disk_stop(r->disk) && !interrupted)
		if (!rig_turn(r))
			rig_wait(r);
	while (workers_nr_pending(r->workers) || workers_nr_pending(r->slow))
		rig_turn(r);
	tier_destroy(r->disk);
	tier_destroy(r->ram);
	uring_destroy(r->u);
	pool_destroy(r->p);
	workers_destroy(r->slow);
	workers_destroy(r->workers);
	if (!--nr_rigs)
		stats_exit();
	if (r->mem)
		munmap(r->mem, r->mem_bytes);
	mem_free(r->place);
	*r = (struct rig) { 0 };
}
