/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tiers.c - set-up, the turn, and whether a load is worth it.
 */
#include "kvmd/tier/move.h"

#include "kvmd/lib/clock.h"
#include "kvmd/lib/err.h"
#include "kvmd/lib/mem.h"

#define RETRY_NS	2000000ull	/* while something waits for the disk's own budget */

/* ------------------------------------------------------------------ set-up */

static int make_ram(struct tiers *t, struct uring *u, struct workers *slow,
		    const struct ram_keep *keep, const struct ram_kept *kept,
		    char *msg, size_t n)
{
	struct tier *ram;
	int err = -EINVAL;

	if (kept)
		err = ram_attach(&t->o.ram, u, slow, keep, kept->table_fd, kept->fd, kept->nr,
				 &ram);
	if (err)
		err = kept && err != -EINVAL ? err : ram_create(&t->o.ram, u, slow, keep, &ram);
	if (err)
		return err_text(err, msg, n, "RAM tier of %llu bytes: %s",
				(unsigned long long)t->o.ram.bytes, strerror(-err));
	t->ram = ram;
	return t->o.ram_test ? tier_stack(ram, t->o.ram_test, &t->ram, msg, n) : 0;
}

static int make_disk(struct tiers *t, struct uring *u, struct workers *workers,
		     struct workers *slow, char *msg, size_t n)
{
	struct tier *disk;
	int err;

	if (!t->o.disk.nr_paths)
		return 0;
	t->disk_ev = tiers_disk_events;
	t->disk_ev.ctx = t;
	err = disk_create(&t->o.disk, t->pool, u, workers, slow, &t->disk_ev, &disk, msg, n);
	if (err)
		return err;
	t->disk = disk;
	return t->o.disk_test ? tier_stack(disk, t->o.disk_test, &t->disk, msg, n) : 0;
}

int tiers_create(const struct tiers_opts *o, struct pool *p, struct index *ix, struct uring *u,
		 struct workers *workers, struct workers *slow, const struct ram_keep *keep,
		 const struct ram_kept *kept, const struct tiers_events *ev,
		 struct tiers **ret_t, char *msg, size_t msg_bytes)
{
	struct tiers *t = mem_big_alloc(sizeof(*t), true);
	int err;

	if (!t)
		return err_text(-ENOMEM, msg, msg_bytes, "out of memory for the tiers");
	t->pool = p;
	t->ix = ix;
	t->o = *o;
	t->ev = ev;
	t->now_ns = clock_ns();
	for (unsigned i = NR_MOVES; i-- > 0;) {
		t->move[i].next = t->free_move;
		t->free_move = &t->move[i];
	}
	t->nr_free_move = NR_MOVES;
	err = make_ram(t, u, slow, keep, kept, msg, msg_bytes);
	if (err)
		goto err_destroy;
	p->lower = &tiers_lower;
	p->lower_ctx = t;
	err = make_disk(t, u, workers, slow, msg, msg_bytes);
	if (err)
		goto err_destroy;
	*ret_t = t;
	return 0;

err_destroy:
	/* The RAM tier's first chunk may be being made. */
	while (workers_nr_pending(slow))
		workers_reap(slow);
	tiers_destroy(t);
	return err;
}

void tiers_destroy(struct tiers *t)
{
	if (!t)
		return;
	t->pool->lower = NULL;
	tier_destroy(t->disk);
	tier_destroy(t->ram);
	mem_big_free(t, sizeof(*t));
}

bool tiers_stop(struct tiers *t)
{
	t->stopping = true;
	t->now_ns = clock_ns();
	t->ram->ops->poll(t->ram);
	if (t->disk)
		t->disk->ops->poll(t->disk);
	if (t->nr_free_move != NR_MOVES)
		return false;
	return !t->disk || disk_stop(t->disk);
}

/* -------------------------------------------------------------------- the turn */

/* Blocks that leave HBM are copied when nobody waits for a load. */
static void pump_cleans(struct tiers *t)
{
	for (uint32_t i = 0; i < t->pool->space_end; i++) {
		struct space *sp = &t->pool->space[i];

		for (uint32_t g = 0; sp->in_use && g < sp->nr_groups; g++)
			if (sp->gp[g].out_next)
				tiers_pump_clean(t, &sp->gp[g]);
	}
}

bool tiers_turn(struct tiers *t, uint64_t now_ns)
{
	bool did;

	t->now_ns = now_ns;
	t->retry_ns = 0;
	did = t->ram->ops->poll(t->ram) > 0;
	if (t->disk)
		did |= t->disk->ops->poll(t->disk) > 0;
	if (t->stopping)
		return did;
	did |= tiers_pump_loads(t);
	if (!t->load_q.nr || t->load_q.nr < t->ix->ram_out.nr)
		pump_cleans(t);
	did |= tiers_lower_turn(t);
	if (t->load_q.nr || t->ix->ram_out.nr || t->prefetch_head != t->prefetch_tail)
		tiers_retry(t, now_ns + RETRY_NS);
	else if (t->arrived_head != t->arrived_tail && t->disk && !t->disk->broken)
		tiers_retry(t, max(now_ns + RETRY_NS, t->ahead_ns));
	return did;
}

uint64_t tiers_next_ns(struct tiers *t)
{
	uint64_t next = clock_earlier(t->retry_ns, t->ram->ops->next_ns(t->ram));

	return t->disk ? clock_earlier(next, t->disk->ops->next_ns(t->disk)) : next;
}

/* ------------------------------------------------------------ worth loading? */

static double seconds(uint64_t bytes, uint64_t bps)
{
	return bps ? (double)bytes / (double)bps : 0;
}

bool tiers_worth(const struct tiers *t, uint64_t ram_bytes, uint64_t disk_bytes, uint64_t tokens,
		 uint64_t tps)
{
	double load, wait_disk, wait_ram;

	if (!t->o.recompute || !tps)
		return true;
	/* Fetches and copies overlap: the slower of the two, behind its queue. */
	wait_ram = seconds(t->in.inflight + t->load_q_ram + t->load_q_disk, t->in.bps);
	wait_disk = disk_bytes ? seconds(t->fetch.inflight + t->load_q_disk, t->fetch.bps) : 0;
	load = max(wait_ram + seconds(ram_bytes + disk_bytes, t->in.bps),
		   wait_disk + seconds(disk_bytes, t->fetch.bps));
	return load <= (double)tokens / (double)tps;
}

/* --------------------------------------------------------------------- check */

int tiers_check(struct tiers *t, char *msg, size_t msg_bytes)
{
	const struct pool *p = t->pool;
	int err = ram_check(t->ram, msg, msg_bytes);

	if (!err && t->disk)
		err = disk_check(t->disk, msg, msg_bytes);
	for (uint32_t id = 1; id < p->next_fresh && !err; id++) {
		const struct block *b = pool_block(p, id);

		if (b->state == BLK_FREE)
			continue;
		if (b->ram && ram_owner(t->ram, b->ram) != id) {
			err = err_text(-EUCLEAN, msg, msg_bytes, "block %u: RAM place %u is block "
				       "%u's", id, b->ram, ram_owner(t->ram, b->ram));
		} else if (b->disk && (!t->disk || disk_owner(t->disk, b->disk) != id)) {
			err = err_text(-EUCLEAN, msg, msg_bytes, "block %u: disk place %u is block "
				       "%u's", id, b->disk,
				       t->disk ? disk_owner(t->disk, b->disk) : 0);
		}
	}
	return err;
}
