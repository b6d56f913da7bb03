// SPDX-License-Identifier: Apache-2.0
/*
 * disk_space.c - the space table and the superblocks, made durable.
 *
 * Every file of the set has the whole table. What is written is written to all
 * of them: copy A, fdatasync, copy B, fdatasync; only then it is acknowledged, so
 * that neither a crash nor one bad page brings an older epoch back. One entry or
 * one round of superblocks at a time.
 *
 * An entry given to another space, or to one of another geometry, gets a new
 * `inc': headers that name the former one are not there any more. No header
 * names an entry before it is durable. Core thread; the load at start blocks.
 */
#include <stdio.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "kvmd/lib/err.h"
#include "kvmd/lib/mem.h"
#include "kvmd/tier/disk_int.h"

#define DAY_S		86400u

/* --------------------------------------------------------------------- writing */

static void step(struct disk *d);

/* All files have it, or have failed. */
static void job_over(struct disk *d)
{
	struct dspace *sp = d->sp_cur >= 0 ? &d->sp[d->sp_cur] : NULL;
	int err = d->sp_err;

	if (err)
		disk_say(d, "%s could not be written: %s",
			 sp ? "the space table" : "a superblock", strerror(-err));
	for (unsigned i = 0; sp && i < d->nr_waiters;) {
		struct dwaiter w = d->waiter[i];

		if (w.idx != (uint32_t)d->sp_cur || w.seq > d->sp_seq) {
			i++;
			continue;
		}
		d->waiter[i] = d->waiter[--d->nr_waiters];
		w.done(w.ctx, err);
	}
	/* What changed meanwhile is dirty again; an inc that changed is not there. */
	if (sp && !err && ((struct disk_space *)d->sp_buf)->inc == sp->e->inc)
		sp->durable = true;
	d->sp_cur = SP_IDLE;
}

static void step_done(struct dio *io, int err)
{
	struct disk *d = io->ctx;

	if (err)
		d->sp_err = err;
	d->sp_file++;
	step(d);
}

static void submit(struct disk *d, struct dfile *f)
{
	unsigned copy = d->sp_step / 2;

	if (d->sp_cur == SP_SUPER && !(d->sp_step & 1)) {
		if (!copy) {
			f->sb->seq++;
			f->sb->hour = d->hour;
			memcpy(f->sb->hour_bytes, d->hour_bytes, sizeof(f->sb->hour_bytes));
			if (f->drained) {
				memset(f->sb->set_uuid, 0, sizeof(f->sb->set_uuid));
				f->sb->nr_files = 1;
				f->sb->index = 0;
			}
			disk_super_finish(f->sb);
		}
		memcpy(d->sp_buf, f->sb, DISK_ALIGN);
	}
	dio_start(&d->sp_io, f, d->sp_step & 1 ? DIO_SYNC : DIO_WRITE, d->sp_buf, DISK_ALIGN,
		  d->sp_cur == SP_SUPER ? copy * DISK_ALIGN :
		  disk_space_at((uint32_t)d->sp_cur, copy), step_done, d);
}

static void step(struct disk *d)
{
	for (;;) {
		while (d->sp_file < DISK_MAX_FILES && (!d->file[d->sp_file].path ||
						       d->file[d->sp_file].read_only))
			d->sp_file++;
		if (d->sp_file < DISK_MAX_FILES) {
			submit(d, &d->file[d->sp_file]);
			return;
		}
		d->sp_file = 0;
		if (++d->sp_step == 4)
			break;
	}
	job_over(d);
}

static void job_start(struct disk *d, int what)
{
	d->sp_cur = what;
	d->sp_step = d->sp_file = 0;
	d->sp_err = disk_writable(d) ? 0 : -EROFS;
	step(d);
}

void disk_space_pump(struct disk *d)
{
	if (d->sp_cur != SP_IDLE || d->closing)
		return;
	if (d->sb_dirty) {
		d->sb_dirty = false;
		job_start(d, SP_SUPER);
		return;
	}
	if (!d->nr_dirty)
		return;
	for (unsigned i = 0; i < DISK_MAX_SPACES; i++) {
		struct dspace *sp = &d->sp[i];

		if (!sp->dirty)
			continue;
		sp->dirty = false;
		d->nr_dirty--;
		disk_space_finish(sp->e);
		memcpy(d->sp_buf, sp->e, DISK_ALIGN);
		d->sp_seq = sp->e->seq;
		job_start(d, (int)i);
		return;
	}
}

bool disk_space_busy(const struct disk *d)
{
	return d->sp_cur != SP_IDLE || d->sb_dirty || d->nr_dirty;
}

/* --------------------------------------------------------------------- entries */

static void mark(struct disk *d, struct dspace *sp)
{
	sp->e->seq++;
	d->nr_dirty += !sp->dirty;
	sp->dirty = true;
	d->kick = true;
}

void disk_space_all_dirty(struct disk *d)
{
	for (unsigned i = 0; i < DISK_MAX_SPACES; i++)
		if (d->sp[i].used)
			mark(d, &d->sp[i]);
}

static struct dspace *find(struct disk *d, const char *tenant, const char *name)
{
	for (unsigned i = 0; i < DISK_MAX_SPACES; i++)
		if (d->sp[i].used && !strcmp(d->sp[i].e->name, name) &&
		    !strcmp(d->sp[i].e->tenant, tenant))
			return &d->sp[i];
	return NULL;
}

static bool is_open(const struct disk *d, const struct dspace *sp)
{
	for (unsigned i = 0; i < POOL_MAX_SPACES; i++)
		if (d->p->space[i].in_use && d->sp_of[i] == sp->e->idx + 1)
			return true;
	return false;
}

/* An unused entry, else the one that was not opened for longest. NULL: all are open. */
static struct dspace *pick(struct disk *d)
{
	struct dspace *best = NULL;

	for (unsigned i = 0; i < DISK_MAX_SPACES; i++) {
		struct dspace *sp = &d->sp[i];

		if (!sp->used)
			return sp;
		if (!is_open(d, sp) && d->sp_cur != (int)i &&
		    (!best || sp->e->used_s < best->e->used_s))
			best = sp;
	}
	return best;
}

static uint32_t draw(void)
{
	uint32_t v = 0;

	while (!v)
		if (getrandom(&v, sizeof(v), 0) != sizeof(v))
			v = (uint32_t)time(NULL);	/* interrupted: better than none */
	return v;
}

static void describe(const struct space *sp, struct disk_space *e)
{
	memset(e->group, 0, sizeof(e->group));
	strcpy(e->name, sp->name);
	strcpy(e->tenant, sp->tenant->name);
	memcpy(e->salt_digest, sp->salt_digest, sizeof(e->salt_digest));
	e->nr_groups = sp->nr_groups;
	e->nr_shards = sp->nr_shards;
	for (uint32_t g = 0; g < sp->nr_groups; g++) {
		e->group[g] = sp->gp[g].geo;
		e->group[g].max_slots = 0;
	}
}

static bool same(const struct disk_space *a, const struct disk_space *b)
{
	return a->nr_groups == b->nr_groups && a->nr_shards == b->nr_shards &&
	       !memcmp(a->salt_digest, b->salt_digest, sizeof(a->salt_digest)) &&
	       !memcmp(a->group, b->group, sizeof(a->group));
}

/* Entry @sp is for @want now, which has another identity than what was there. */
static void give(struct disk *d, struct dspace *sp, const struct disk_space *want, uint64_t epoch)
{
	uint64_t seq = sp->e->seq;

	*sp->e = *want;
	sp->e->idx = (uint32_t)(sp - d->sp);
	sp->e->seq = seq;
	sp->e->inc = draw();
	sp->e->epoch = epoch;
	sp->used = true;
	sp->durable = false;
	for (unsigned i = 0; i < POOL_MAX_SPACES; i++)
		if (d->sp_of[i] == sp->e->idx + 1)
			d->sp_of[i] = 0;
}

static struct dspace *attach(struct disk *d, const struct space *space)
{
	struct disk_space want = { 0 };
	uint64_t now = (uint64_t)time(NULL);
	struct dspace *sp;
	bool change = false;

	describe(space, &want);
	sp = find(d, want.tenant, want.name);
	if (!sp || !same(sp->e, &want)) {
		sp = sp ? sp : pick(d);
		if (!sp) {
			disk_say(d, "space %s: no room in the space table, its blocks are not "
				 "stored", space->name);
			return NULL;
		}
		give(d, sp, &want, space->epoch);
		change = true;
	}
	if (space->epoch > sp->e->epoch) {
		sp->e->epoch = space->epoch;
		change = true;
	}
	if (change || now > sp->e->used_s + DAY_S) {
		sp->e->used_s = now;
		mark(d, sp);
	}
	d->sp_of[space - d->p->space] = (uint16_t)(sp->e->idx + 1);
	return sp;
}

static struct dspace *entry_of(struct disk *d, const struct space *space)
{
	unsigned i = d->sp_of[space - d->p->space];
	const struct disk_space *e;

	if (!i)
		return NULL;
	/* The pool gives a space's number to another one when it is gone. */
	e = d->sp[i - 1].e;
	if (strcmp(e->name, space->name) || strcmp(e->tenant, space->tenant->name) ||
	    memcmp(e->salt_digest, space->salt_digest, sizeof(e->salt_digest)))
		return NULL;
	return &d->sp[i - 1];
}

struct dspace *disk_space_of(struct disk *d, const struct space *space)
{
	struct dspace *sp = entry_of(d, space);

	if (!sp)
		sp = attach(d, space);
	if (!sp || sp->durable)
		return sp;
	if (!sp->dirty && d->sp_cur != (int)sp->e->idx && disk_writable(d))
		mark(d, sp);		/* it failed: again */
	return NULL;
}

bool disk_space_coming(struct disk *d, const struct space *space)
{
	const struct dspace *sp = entry_of(d, space);

	return sp && !sp->durable && disk_writable(d);
}

void disk_space_opened(struct tier *t, const struct space *space)
{
	struct disk *d = disk_of(tier_bottom(t));
	struct dspace *sp = attach(d, space);

	if (sp && (d->nr_parked || d->scanning)) {
		d->rescan = true;
		d->rescan_in |= 1ull << sp->e->idx % 64;
	}
	d->kick = true;
}

uint64_t disk_space_epoch(struct tier *t, const char *tenant, const char *name)
{
	struct dspace *sp = find(disk_of(tier_bottom(t)), tenant, name);

	return sp ? sp->e->epoch : 0;
}

void disk_space_raise(struct tier *t, const struct space *space, uint64_t epoch,
		      void (*done)(void *ctx, int err), void *ctx)
{
	struct disk *d = disk_of(tier_bottom(t));
	struct dspace *sp = entry_of(d, space);

	if (!sp)
		sp = attach(d, space);
	if (!sp || d->nr_waiters == DISK_NR_WAITER) {
		done(ctx, sp ? -EBUSY : 0);	/* without an entry no block of it is on disk */
		return;
	}
	sp->e->epoch = max(sp->e->epoch, epoch);
	mark(d, sp);
	d->waiter[d->nr_waiters++] = (struct dwaiter) {
		.idx = sp->e->idx, .seq = sp->e->seq, .done = done, .ctx = ctx,
	};
}

/* ---------------------------------------------------------------------- set-up */

/* The table of @f, read now: of each entry the youngest right copy of all files counts. */
int disk_space_load(struct disk *d, struct dfile *f, char *msg, size_t n)
{
	size_t bytes = DISK_MAX_SPACES * 2 * DISK_ALIGN;
	uint8_t *mem = mem_big_alloc(bytes, false);
	ssize_t got;
	int err = 0;

	if (!mem)
		return err_text(-ENOMEM, msg, n, "%s: out of memory for the space table", f->path);
	got = pread(f->fd, mem, bytes, DISK_SPACE_OFF);
	if (got != (ssize_t)bytes)
		err = err_text(-EIO, msg, n, "%s: space table at offset %u: %s", f->path,
			       DISK_SPACE_OFF, got < 0 ? strerror(errno) : "file is too short");
	for (uint32_t i = 0; !err && i < DISK_MAX_SPACES * 2; i++) {
		const struct disk_space *e = (const struct disk_space *)(mem + i * DISK_ALIGN);
		enum disk_why why = disk_space_check(e, i / 2);
		struct dspace *sp = &d->sp[i / 2];

		if (why && (e->magic || e->seq))
			disk_say(d, "%s: entry %u of the space table at offset %llu: %s: not used",
				 f->path, i / 2, (unsigned long long)disk_space_at(i / 2, i % 2),
				 disk_why_name(why));
		if (why || (sp->used && sp->e->seq >= e->seq))
			continue;
		*sp->e = *e;
		sp->used = sp->durable = true;
	}
	mem_big_free(mem, bytes);
	return err;
}

int disk_space_init(struct disk *d)
{
	d->sp_cur = SP_IDLE;
	d->sp_mem = mem_big_alloc((DISK_MAX_SPACES + 1) * DISK_ALIGN, false);
	if (!d->sp_mem)
		return -ENOMEM;
	for (unsigned i = 0; i < DISK_MAX_SPACES; i++)
		d->sp[i].e = (struct disk_space *)((uint8_t *)d->sp_mem + i * DISK_ALIGN);
	d->sp_buf = (uint8_t *)d->sp_mem + DISK_MAX_SPACES * DISK_ALIGN;
	return 0;
}

void disk_space_exit(struct disk *d)
{
	mem_big_free(d->sp_mem, (DISK_MAX_SPACES + 1) * DISK_ALIGN);
}
