/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tiering.c - the daemon's tiers: from its configuration, through its turns, to an
 * ordered stop; and epochs that are durable before they are acknowledged.
 */
#include "kvmd/svc/daemon.h"

#include <stdio.h>

#include "kvmd/lib/clock.h"
#include "kvmd/lib/log.h"
#include "kvmd/lib/mem.h"
#include "kvmd/lib/stats.h"

#define STOP_NS		30000000000ull	/* longest wait for writes at the end */

static void warn(void *ctx, const char *text)
{
	static struct log_ratelimit rl;

	(void)ctx;
	if (log_ratelimited(&rl, 10, 10000000000ull))
		log_warn("tiers: %s", text);
}

static void recovered(void *ctx)
{
	struct daemon *d = ctx;
	struct disk_info i;

	disk_get_info(d->tiers->disk, &i);
	if (!i.recover_total)
		return;			/* a new file */
	log_info("disk tier: read the summaries of %llu segments %llu ms after start: %llu blocks, "
		 "%llu of them of spaces that are not open", (unsigned long long)i.recover_total,
		 (unsigned long long)((clock_ns() - d->start_ns) / 1000000),
		 (unsigned long long)i.nr_places, (unsigned long long)i.nr_parked);
}

static struct tiers_events events = { .warn = warn, .recovered = recovered };

/* ------------------------------------------------------------------ start */

/* "a,b,c" into o->path[]; the words stay in @copy. */
static int split_paths(char *copy, struct disk_opts *o)
{
	char *save = NULL;

	for (char *w = strtok_r(copy, ", ", &save); w; w = strtok_r(NULL, ", ", &save)) {
		if (o->nr_paths == DISK_MAX_FILES)
			return -E2BIG;
		o->path[o->nr_paths++] = w;
	}
	return 0;
}

/* What may change while they run. */
static void take_tunables(const struct config *c, struct tiers_opts *o)
{
	o->admission = c->disk.admission;
	o->clean_ahead = c->pool.clean_ahead;
	o->copy_bytes = c->pool.copy_bytes;
	o->recompute = c->pool.recompute;
}

static void fill_opts(const struct config *c, struct tiers_opts *o)
{
	*o = (struct tiers_opts) {
		.ram = {
			.bytes = c->ram.bytes, .chunk_bytes = c->ram.chunk_bytes,
			.hugetlb = c->ram.hugetlb, .lock = c->ram.lock,
		},
		.disk = {
			.bytes = c->disk.bytes, .segment_bytes = c->disk.segment_bytes,
			.block_bytes_hint = c->disk.block_bytes_hint,
			.inflight_bytes = c->disk.inflight_bytes,
			.inflight_read_bytes = c->disk.inflight_read_bytes,
			.write_rate = c->disk.write_rate, .write_day = c->disk.write_day,
			.scrub_rate = c->disk.scrub_rate, .discard = c->disk.discard,
		},
		.ram_test = c->ram.test, .disk_test = c->disk.test,
	};
	take_tunables(c, o);
}

int tiering_start(struct daemon *d, const struct ram_keep *keep, const struct ram_kept *kept)
{
	struct tiers_opts o;
	char msg[512] = "";
	int err;

	fill_opts(&d->conf, &o);
	if (!o.ram.bytes)
		return 0;
	d->disk_paths = d->conf.disk.path ? mem_strdup(d->conf.disk.path) : NULL;
	if (d->disk_paths && split_paths(d->disk_paths, &o.disk)) {
		log_err("disk.path: more than %u paths", DISK_MAX_FILES);
		return -EINVAL;
	}
	err = workers_create(1, &d->slow);
	err = err ? err : worker_bell_start(&d->slow_bell, d->u, d->slow);
	if (err)
		return err;
	events.ctx = d;
	err = tiers_create(&o, d->pool, d->ix, d->u, d->workers, d->slow, keep, kept, &events,
			   &d->tiers, msg, sizeof(msg));
	if (err) {
		log_err("cannot start: %s", msg);
		return err;
	}
	d->rc.tiers = d->tiers;
	log_info("RAM tier of %llu MiB%s%s", (unsigned long long)(o.ram.bytes >> 20),
		 d->disk_paths ? ", disk tier " : "", d->disk_paths ? d->conf.disk.path : "");
	return 0;
}

void tiering_reload(struct daemon *d)
{
	const struct config *c = &d->conf;
	struct tiers *t = d->tiers;

	if (!t)
		return;
	take_tunables(c, &t->o);
	if (c->ram.bytes && ram_resize(t->ram, c->ram.bytes))
		log_warn("reload: ram.bytes: the RAM tier could not be resized");
	if (t->disk)
		disk_set_rates(t->disk, c->disk.write_rate, c->disk.write_day, c->disk.scrub_rate);
}

/* -------------------------------------------------------------------- turns */

/* Once, when all of the RAM tier is there: what it is made of. */
static void say_ram(struct daemon *d)
{
	struct ram_info i;

	ram_get_info(d->tiers->ram, &i);
	if (i.nr_ready < i.nr_chunks)
		return;
	d->ram_said = true;
	log_info("RAM tier: %u of %u chunks of %llu MiB ready after %llu ms: %llu MiB of hugetlb pages, "
		 "%llu of huge shmem pages, %llu of 4 KiB pages; %llu locked", i.nr_ready,
		 i.nr_chunks, (unsigned long long)(i.chunk_bytes >> 20),
		 (unsigned long long)(i.start_ns / 1000000),
		 (unsigned long long)(i.hugetlb_bytes >> 20), (unsigned long long)(i.thp_bytes >> 20),
		 (unsigned long long)(i.small_bytes >> 20), (unsigned long long)(i.locked_bytes >> 20));
}

/* What the tiers themselves met since the last look: they name chunk, or file and offset. */
static void say_met(struct daemon *d)
{
	const struct tiers *t = d->tiers;
	uint32_t ram = tier_bottom(t->ram)->nr_said;
	uint32_t disk = t->disk ? tier_bottom(t->disk)->nr_said : 0;
	struct disk_info di;
	struct ram_info ri;

	if (unlikely(ram != d->nr_said[TIER_RAM])) {
		d->nr_said[TIER_RAM] = ram;
		ram_get_info(t->ram, &ri);
		warn(d, ri.text);
	}
	if (unlikely(disk != d->nr_said[TIER_DISK])) {
		d->nr_said[TIER_DISK] = disk;
		disk_get_info(t->disk, &di);
		warn(d, di.text);
	}
}

bool tiering_turn(struct daemon *d)
{
	struct tiers *t = d->tiers;
	bool did = tiers_turn(t, d->now_ns);

	if (unlikely(!d->ram_said && t->ram->bytes != d->ram_bytes)) {
		d->ram_bytes = t->ram->bytes;
		say_ram(d);
	}
	say_met(d);
	if (t->freed) {
		t->freed = false;
		d->rc.kick = true;
	}
	return did;
}

/* Is there something to look at without waiting for an event? */
bool tiering_wants_turn(const struct daemon *d)
{
	const struct tiers *t = d->tiers;

	return tiers_is_busy(t) || t->freed || t->load_q.nr ||
	       (t->retry_ns && d->now_ns >= t->retry_ns);
}

/*
 * No more moves; what is under way ends, and the open segments are sealed, so
 * that the next start finds all of them.
 */
void tiering_stop(struct daemon *d)
{
	uint64_t end = clock_ns() + STOP_NS;

	if (!d->tiers)
		return;
	while (!tiers_stop(d->tiers)) {
		if (clock_ns() > end) {
			log_warn("writes to disk did not end in %llu s: what they held is lost",
				 STOP_NS / 1000000000ull);
			break;
		}
		(void)workers_reap(d->workers);
		(void)workers_reap(d->slow);
		(void)uring_wait(d->u, 1000000);
	}
	say_met(d);
}

void tiering_exit(struct daemon *d)
{
	while (d->slow && workers_nr_pending(d->slow))
		workers_reap(d->slow);
	tiers_destroy(d->tiers);
	d->tiers = NULL;
	workers_destroy(d->slow);
	mem_free(d->disk_paths);
}

/* ------------------------------------------------------------- durable epochs */

static void epoch_durable(void *ctx, int err)
{
	struct epoch_wait *w = ctx;
	void (*done)(struct epoch_wait *w, int err) = w->done;

	w->done = NULL;
	done(w, err);
}

bool epoch_make_durable(struct daemon *d, struct space *sp, const struct epoch_wait *to)
{
	struct epoch_wait *w = d->epoch_wait;

	if (!d->tiers || !d->tiers->disk)
		return false;
	while (w < d->epoch_wait + NR_EPOCH_WAIT && w->done)
		w++;
	if (w == d->epoch_wait + NR_EPOCH_WAIT)
		return false;
	*w = *to;
	w->d = d;
	disk_space_raise(d->tiers->disk, sp, sp->epoch, epoch_durable, w);
	return true;
}
