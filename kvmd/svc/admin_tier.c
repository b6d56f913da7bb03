/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin_tier.c - tiers: how full, how fast, what they are doing; drained, added to.
 *
 * Totals that the tiers keep themselves; only `tier show disk' looks at every
 * segment of its files.
 */
#include "kvmd/svc/admin.h"

#include <stdio.h>

#include "kvmd/lib/clock.h"
#include "kvmd/lib/log.h"
#include "kvmd/lib/stats.h"

enum { ROW_HBM, ROW_RAM, ROW_DISK, NR_ROW };
static const char *const names[NR_ROW] = { "hbm", "ram", "disk" };

/* What one tier did since the start, and is doing. */
struct row {
	uint64_t bytes, used, blocks;
	uint64_t in_blocks, in_bytes, out_blocks, out_bytes;	/* since the start */
	uint64_t in_flight, out_flight;	/* bytes under way */
	uint64_t in_bps, out_bps;	/* while busy; 0: not measured */
	uint64_t in_queue, out_queue;	/* blocks that wait to be moved */
	uint64_t refused, errors;	/* blocks since the start */
	const char *state, *text;
	uint64_t done, total;		/* progress of that state, in @unit */
	const char *unit;
};

const char *admin_block_tier(const struct block *b)
{
	if (b->state == BLK_LOADING)
		return "loading";
	/* On its way out it is still where it was. */
	return blk_level_name(b->slot ? LEVEL_HBM : b->ram ? LEVEL_RAM : block_level(b));
}

/* ------------------------------------------------------------------ measuring */

static void fill_hbm(const struct daemon *d, struct row *r)
{
	const struct pool *p = d->pool;
	const struct tiers *t = d->tiers;
	uint64_t nr_free = 0;

	r->state = "ok";
	for (uint32_t i = 0; i < p->space_end; i++) {
		const struct space *sp = &p->space[i];

		for (uint32_t g = 0; sp->in_use && g < sp->nr_groups; g++) {
			const struct gpool *gp = &sp->gp[g];

			r->bytes += gp->nr_slots * gp->slot_bytes;
			nr_free += gp->nr_free * gp->slot_bytes;
			r->blocks += gp->nr_slots - gp->nr_free;
			r->out_queue += gp->out.nr;
		}
	}
	r->used = r->bytes - nr_free;
	r->in_blocks = stat_get(BLOCKS_LOADED) + stat_get(BLOCKS_SWAPPED_IN);
	r->in_bytes = stat_get(BYTES_LOADED);
	r->out_blocks = stat_get(BLOCKS_CLEANED) + stat_get(BLOCKS_SWAPPED_OUT);
	r->out_bytes = stat_get(BYTES_CLEANED);
	r->refused = stat_get(LOAD_REFUSED_SLOW) + stat_get(LOAD_REFUSED_NOMEM);
	r->errors = stat_get(LOADS_FAILED);
	if (!t)
		return;
	r->in_flight = t->in.inflight;
	r->out_flight = t->out.inflight;
	r->in_bps = t->in.bps;
	r->out_bps = t->out.bps;
	r->in_queue = t->load_q.nr + (t->prefetch_tail - t->prefetch_head);
}

static void fill_ram(const struct daemon *d, struct row *r, const struct ram_info *i)
{
	const struct tiers *t = d->tiers;

	r->bytes = t->ram->bytes;
	r->used = t->ram->used_bytes;
	r->blocks = i->nr_places;
	r->in_blocks = stat_get(BLOCKS_CLEANED) + stat_get(BLOCKS_SWAPPED_OUT) +
		       stat_get(BLOCKS_FETCHED);
	r->in_bytes = stat_get(BYTES_CLEANED) + stat_get(BYTES_FETCHED);
	r->out_blocks = stat_get(BLOCKS_LOADED) + stat_get(BLOCKS_SWAPPED_IN) +
			stat_get(BLOCKS_STORED);
	r->out_bytes = stat_get(BYTES_LOADED) + stat_get(BYTES_STORED);
	r->in_flight = t->out.inflight + t->fetch.inflight;
	r->out_flight = t->in.inflight + t->store.inflight;
	r->in_bps = t->out.bps;
	r->out_bps = t->in.bps;
	r->out_queue = t->ix->ram_out.nr;
	r->refused = stat_get(CLEAN_REFUSED_ADVICE) + stat_get(CLEAN_REFUSED_FULL) +
		     stat_get(CLEAN_REFUSED_TENANT);
	r->errors = stat_get(CHECKSUM_ERRORS);
	r->text = i->text;
	r->unit = "bytes";
	if (t->ram->broken) {
		r->state = "broken";
	} else if (t->ram->draining) {
		r->state = r->used ? "draining" : "drained";
		r->total = r->bytes;
		r->done = r->total - r->used;
	} else if (i->nr_ready < i->nr_chunks) {
		r->state = "growing";
		r->unit = "chunks";
		r->done = i->nr_ready;
		r->total = i->nr_chunks;
	} else {
		r->state = r->bytes > i->bytes ? "shrinking" : "ok";
	}
}

/* Payload bytes that records have on disk. */
static uint64_t disk_charged(const struct pool *p)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < p->nr_tenants; i++)
		bytes += p->tenant[i].disk_bytes;
	return bytes;
}

static void fill_disk(const struct daemon *d, struct row *r, const struct disk_info *i)
{
	const struct tiers *t = d->tiers;
	uint64_t charged = disk_charged(d->pool);

	r->bytes = t->disk->bytes;
	r->used = i->live_bytes;
	r->blocks = i->nr_places;
	r->in_blocks = stat_get(BLOCKS_STORED);
	r->in_bytes = stat_get(BYTES_STORED);
	r->out_blocks = stat_get(BLOCKS_FETCHED);
	r->out_bytes = stat_get(BYTES_FETCHED);
	r->in_flight = i->write_inflight;
	r->out_flight = i->read_inflight;
	r->in_bps = i->write_bps;
	r->out_bps = i->read_bps;
	r->refused = stat_get(STORE_REFUSED_ADMISSION) + stat_get(STORE_REFUSED_FULL) +
		     stat_get(STORE_REFUSED_TENANT);
	r->errors = stat_get(CHECKSUM_ERRORS);
	r->text = i->text;
	if (t->disk->broken) {
		r->state = "broken";
	} else if (t->disk->draining) {
		r->state = charged ? "draining" : "drained";
		r->unit = "bytes";
		r->total = i->bytes;
		r->done = r->total - min(charged, r->total);
	} else if (i->recovering) {
		r->state = "recovering";
		r->unit = "segments";
		r->done = i->recover_done;
		r->total = i->recover_total;
	} else {
		r->state = "ok";
	}
}

static void put_row(struct json *j, const struct row *r, const char *name)
{
	json_str(j, "tier", name);
	json_str(j, "state", r->state);
	json_u64(j, "bytes", r->bytes);
	json_u64(j, "used_bytes", r->used);
	json_u64(j, "free_bytes", r->bytes - min(r->used, r->bytes));
	json_u64(j, "blocks", r->blocks);
	json_u64(j, "in_blocks", r->in_blocks);
	json_u64(j, "in_bytes", r->in_bytes);
	json_u64(j, "out_blocks", r->out_blocks);
	json_u64(j, "out_bytes", r->out_bytes);
	json_u64(j, "in_flight_bytes", r->in_flight);
	json_u64(j, "out_flight_bytes", r->out_flight);
	json_u64(j, "in_queue_blocks", r->in_queue);
	json_u64(j, "out_queue_blocks", r->out_queue);
	json_u64(j, "in_bytes_per_s", r->in_bps);
	json_u64(j, "out_bytes_per_s", r->out_bps);
	json_u64(j, "refused_blocks", r->refused);
	json_u64(j, "error_blocks", r->errors);
	if (r->total) {
		json_u64(j, "progress_done", r->done);
		json_u64(j, "progress_total", r->total);
		json_str(j, "progress_unit", r->unit);
	}
	json_str(j, "message", r->text && r->text[0] ? r->text : NULL);
}

/* ------------------------------------------------------------------- showing */

static void put_ram(struct json *j, const struct ram_info *i)
{
	json_u64(j, "wanted_bytes", i->bytes);
	json_u64(j, "chunk_bytes", i->chunk_bytes);
	json_u64(j, "chunks", i->nr_chunks);
	json_u64(j, "ready_chunks", i->nr_ready);
	json_u64(j, "hugetlb_bytes", i->hugetlb_bytes);
	json_u64(j, "huge_shmem_bytes", i->thp_bytes);
	json_u64(j, "small_page_bytes", i->small_bytes);
	json_u64(j, "locked_bytes", i->locked_bytes);
	json_u64(j, "pinned_bytes", i->pinned_bytes);
	json_u64(j, "registered_bytes", i->registered_bytes);
	json_u64(j, "start_us", i->start_ns / 1000);
}

static void put_disk(struct json *j, const struct disk_info *i)
{
	json_u64(j, "files", i->nr_files);
	json_u64(j, "segments", i->nr_segments);
	json_u64(j, "free_segments", i->nr_free_segments);
	json_u64(j, "segment_used_bytes", i->used_bytes);
	json_u64(j, "parked_blocks", i->nr_parked);
	json_u64(j, "bad_ranges", i->nr_bad);
	json_bool(j, "recovering", i->recovering);
	json_u64(j, "recovered_segments", i->recover_done);
	json_u64(j, "recover_segments", i->recover_total);
	json_u64(j, "scrubbed_bytes", i->scrubbed_bytes);
	json_u64(j, "scrub_passes", i->scrub_pass);
	json_u64(j, "written_day_bytes", i->written_day);
}

static void put_file(struct json *j, const struct disk_file *f)
{
	json_obj(j, NULL);
	json_str(j, "file", f->path);
	json_str(j, "kind", f->is_block_device ? "device" : "file");
	json_str(j, "state", f->draining ? "draining" : f->read_only ? "read-only" : "ok");
	json_u64(j, "bytes", f->bytes);
	json_u64(j, "used_bytes", f->used_bytes);
	json_u64(j, "live_bytes", f->live_bytes);
	json_obj_end(j);
}

static void put_files(struct tier *disk, struct json *j)
{
	struct disk_file f;

	json_arr(j, "file_rows");
	for (unsigned i = 0; i < DISK_MAX_FILES; i++)
		if (disk_get_file(disk, i, &f))
			put_file(j, &f);
	json_arr_end(j);
}

/* Members of one tier; @whole: all there is to know. */
static void put_tier(const struct daemon *d, struct json *j, unsigned which, bool whole)
{
	struct row r = { 0 };

	if (which == ROW_HBM) {
		fill_hbm(d, &r);
		put_row(j, &r, names[which]);
	} else if (which == ROW_RAM) {
		struct ram_info i;

		ram_get_info(d->tiers->ram, &i);
		fill_ram(d, &r, &i);
		put_row(j, &r, names[which]);
		put_ram(j, &i);
	} else {
		struct disk_info i;

		disk_get_info(d->tiers->disk, &i);
		fill_disk(d, &r, &i);
		put_row(j, &r, names[which]);
		put_disk(j, &i);
		if (whole)
			put_files(d->tiers->disk, j);
	}
}

static bool has_tier(const struct daemon *d, unsigned which)
{
	return which == ROW_HBM || (d->tiers && (which == ROW_RAM || d->tiers->disk));
}

void admin_put_tiers(const struct daemon *d, struct json *j)
{
	json_arr(j, "tiers");
	for (unsigned i = 0; i < NR_ROW; i++) {
		if (!has_tier(d, i))
			continue;
		json_obj(j, NULL);
		put_tier(d, j, i, false);
		json_obj_end(j);
	}
	json_arr_end(j);
}

static int list_tiers(struct admin_conn *c)
{
	json_u64(&c->j, "now_ns", clock_ns());
	json_u64(&c->j, "boot_ns", c->d->start_ns);
	admin_put_tiers(c->d, &c->j);
	json_obj(&c->j, "counters");
	for (unsigned i = KVMD_STAT_BLOCKS_CLEANED; i < KVMD_NR_STAT; i++)
		json_u64(&c->j, stats_name(i), ld_rlx(&stats_val[i]));
	json_obj_end(&c->j);
	return 0;
}

/* "tier": a tier that is there. */
static int arg_tier(struct admin_conn *c, unsigned *ret_which)
{
	const char *name = admin_arg(c, "tier");
	unsigned i = 0;

	if (!name)
		return admin_refuse(c, -EINVAL, "tier= is missing: hbm, ram or disk");
	while (i < NR_ROW && strcmp(name, names[i]))
		i++;
	if (i == NR_ROW)
		return admin_refuse(c, -EINVAL, "no tier '%.40s': there are hbm, ram and disk",
				    name);
	if (!has_tier(c->d, i))
		return admin_refuse(c, -ENOENT, "there is no %s tier: set %s in the configuration "
				    "and start anew", name,
				    i == ROW_DISK ? "disk.path" : "ram.bytes");
	*ret_which = i;
	return 0;
}

static int show_tier(struct admin_conn *c)
{
	unsigned which = 0;
	int err = arg_tier(c, &which);

	if (!err)
		put_tier(c->d, &c->j, which, true);
	return err;
}

/* ------------------------------------------------------------------- draining */

/* What drain and undrain are about: a tier (*ret_path NULL), or a file of the disk tier. */
static int arg_target(struct admin_conn *c, struct tier **ret_t, const char **ret_path)
{
	const char *path = admin_arg(c, "path");
	struct tiers *t = c->d->tiers;
	unsigned which = ROW_DISK;
	int err = 0;

	if (!path)
		err = arg_tier(c, &which);
	else if (!t || !t->disk)
		err = admin_refuse(c, -ENOENT, "there is no disk tier");
	if (!err && which == ROW_HBM)
		err = admin_refuse(c, -EINVAL, "hbm is drained slab by slab: see `kvctl drain`");
	if (err)
		return err;
	*ret_t = which == ROW_RAM ? t->ram : t->disk;
	*ret_path = path;
	return 0;
}

static int drain(struct admin_conn *c, bool on)
{
	const char *path = NULL;
	struct tier *t = NULL;
	int err = arg_target(c, &t, &path);

	if (!err && path)
		err = on ? disk_drain_path(t, path, c->msg, sizeof(c->msg)) :
			   disk_undrain_path(t, path, c->msg, sizeof(c->msg));
	if (err)
		return err;
	if (!path)
		t->draining = on;
	c->d->tiers->drain_ns = 0;
	c->d->tiers->freed = true;	/* it looks at once */
	log_info("uid %u: %s %s", c->uid, on ? "draining" : "no longer draining",
		 path ? path : tier_kind_name(t->kind));
	json_str(&c->j, "tier", tier_kind_name(t->kind));
	json_str(&c->j, "file", path);
	json_bool(&c->j, "draining", on);
	return 0;
}

static int drain_start(struct admin_conn *c)
{
	return drain(c, true);
}

static int drain_stop(struct admin_conn *c)
{
	return drain(c, false);
}

/* --------------------------------------------------------------------- adding */

static int add_file(struct admin_conn *c)
{
	const char *path = admin_arg(c, "path");
	uint64_t bytes;
	int err = admin_arg_u64(c, "bytes", c->d->conf.disk.bytes, 1, UINT64_MAX, &bytes);

	if (!err && !path)
		err = admin_refuse(c, -EINVAL, "path= is missing: a file or block device");
	if (!err)
		err = disk_add_path(c->d->tiers->disk, path, bytes, c->msg, sizeof(c->msg));
	if (err)
		return err;
	log_info("uid %u: %s added to the disk tier; disk.path should name it by the next start",
		 c->uid, path);
	json_str(&c->j, "tier", "disk");
	json_str(&c->j, "file", path);
	json_u64(&c->j, "bytes", c->d->tiers->disk->bytes);
	return 0;
}

static int resize_ram(struct admin_conn *c)
{
	struct ram_info i;
	uint64_t bytes;
	int err = admin_arg_u64(c, "bytes", 0, 0, UINT64_MAX, &bytes);

	if (!err && !admin_arg(c, "bytes"))
		err = admin_refuse(c, -EINVAL, "bytes= is missing: the new size");
	if (!err && ram_resize(c->d->tiers->ram, bytes))
		err = admin_refuse(c, -EINVAL, "the RAM tier cannot have %llu bytes: at most %u "
				   "chunks of its size", (unsigned long long)bytes, RAM_MAX_CHUNKS);
	if (err)
		return err;
	c->d->conf.ram.bytes = bytes;
	ram_get_info(c->d->tiers->ram, &i);
	log_info("uid %u: the RAM tier is to have %llu MiB", c->uid,
		 (unsigned long long)(i.bytes >> 20));
	json_str(&c->j, "tier", "ram");
	json_null(&c->j, "file");
	json_u64(&c->j, "bytes", i.bytes);
	return 0;
}

static int add(struct admin_conn *c)
{
	unsigned which = 0;
	int err = arg_tier(c, &which);

	if (err)
		return err;
	if (which == ROW_HBM)
		return admin_refuse(c, -EINVAL, "hbm is what the devices have: see kvmd.conf(5)");
	if (which == ROW_RAM && admin_arg(c, "path"))
		return admin_refuse(c, -EINVAL, "tier add of ram takes no 'path'");
	return which == ROW_RAM ? resize_ram(c) : add_file(c);
}

const struct admin_verb admin_tier_verbs[] = {
	{ "tier",	"list",		"",			false, list_tiers },
	{ "tier",	"show",		"tier ",		false, show_tier },
	{ "tier",	"drain",	"tier path ",		false, drain_start },
	{ "tier",	"undrain",	"tier path ",		false, drain_stop },
	{ "tier",	"add",		"tier path bytes ",	false, add },
	{ 0 },
};
