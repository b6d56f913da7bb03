// SPDX-License-Identifier: Apache-2.0
/*
 * disk_files.c - the files of the set one by one: shown, added, drained, closed.
 *
 * A file that is added has its superblocks written before it takes a block, and
 * those of the others then say that they are one more. A file being drained takes
 * no blocks; compaction empties its segments first. Then the superblocks of the
 * others say that they are one fewer, its own that it belongs to no set, and it is
 * closed. Core thread only; disk_add_path() blocks on the file being made.
 */
#include "kvmd/lib/err.h"
#include "kvmd/tier/disk_int.h"

bool disk_get_file(struct tier *t, unsigned idx, struct disk_file *ret_f)
{
	struct disk *d = disk_of(tier_bottom(t));
	const struct dfile *f = &d->file[idx];
	uint64_t live = 0;

	if (!f->path)
		return false;
	for (uint32_t i = 0; i < f->sb->nr_segments; i++)
		live += f->seg[i].live_pages;
	*ret_f = (struct disk_file) {
		.path = f->path, .bytes = f->nr_usable * f->sb->segment_bytes,
		.used_bytes = (f->nr_usable - f->nr_free) * f->sb->segment_bytes,
		.live_bytes = live * DISK_ALIGN, .is_block_device = f->is_blk,
		.read_only = f->read_only, .draining = f->draining,
	};
	return true;
}

/* ---------------------------------------------------------------------- joining */

int disk_add_path(struct tier *t, const char *path, uint64_t bytes, char *msg, size_t msg_bytes)
{
	struct disk *d = disk_of(tier_bottom(t));
	struct dfile *f, *new = NULL, *any = NULL;
	unsigned nr = 1;
	int err;

	if (d->recovering || d->scanning || d->fg_file || d->stopping)
		return err_text(-EBUSY, msg, msg_bytes, "the disk tier is recovering: try again");
	for (f = d->file; f < d->file + DISK_MAX_FILES; f++) {
		if (!f->path) {
			new = new ? new : f;
			continue;
		}
		if (f->drained)
			continue;	/* of no set any more */
		any = f;
		nr++;
	}
	if (!new)
		return err_text(-ENOSPC, msg, msg_bytes, "%s: there are %u files already", path,
				DISK_MAX_FILES);
	err = dfile_open(d, new, path, bytes, msg, msg_bytes);
	if (err)
		return err;
	if (!new->fresh) {
		err = err_text(-EINVAL, msg, msg_bytes, "%s: belongs to a set: remove it, or drain "
			       "it from there", path);
		goto err_close;
	}
	err = dfile_make(new, nr - 1, nr, any->sb->set_uuid, msg, msg_bytes);
	if (!err)
		err = dfile_set_up(new, msg, msg_bytes);
	if (!err && (disk_forget_fit(d) || disk_recover_fit(d)))
		err = err_text(-ENOMEM, msg, msg_bytes, "%s: out of memory", path);
	if (err)
		goto err_close;
	for_each_file(d, f)
		if (!f->drained)
			f->sb->nr_files = nr;
	d->sb_dirty = d->kick = true;
	disk_space_all_dirty(d);
	d->t.bytes += new->nr_usable * new->sb->segment_bytes;
	return 0;

err_close:
	d->nr_free -= new->nr_free;
	dfile_close(new);
	return err;
}

/* ---------------------------------------------------------------------- leaving */

/* It is empty: take it out of the set, then close it. */
void disk_drained(struct disk *d, struct dfile *f)
{
	struct dfile *other;
	unsigned nr = 0;

	for (unsigned i = 0; i < DISK_NR_SCAN; i++)
		if (d->scan[i].f == f)
			return;
	if (!f->drained) {
		f->drained = true;
		for_each_file(d, other)
			if (!other->drained)
				other->sb->index = nr++;
		for_each_file(d, other)
			other->sb->nr_files = nr;
		d->sb_dirty = true;
		return;
	}
	if (f->nr_io || d->sb_dirty || d->sp_cur != SP_IDLE || d->fg_file == f || d->c.busy)
		return;
	for (unsigned c = 0; c < NR_DQ; c++)
		if (f->q[c].wait.head || f->q[c].cur)
			return;
	disk_say(d, "%s: drained, and closed", f->path);
	disk_bad_close(d, f);
	dfile_close(f);
}

static struct dfile *find_file(struct disk *d, const char *path)
{
	struct dfile *f;

	for_each_file(d, f)
		if (!strcmp(f->path, path))
			return f;
	return NULL;
}

/* Does another file take what @it has? */
static bool has_other(const struct disk *d, const struct dfile *it)
{
	const struct dfile *f;

	for_each_file(d, f)
		if (f != it && !f->draining && !f->read_only)
			return true;
	return false;
}

static int no_such_file(const char *path, char *msg, size_t msg_bytes)
{
	return err_text(-ENOENT, msg, msg_bytes, "%s: not a file of the disk tier", path);
}

int disk_drain_path(struct tier *t, const char *path, char *msg, size_t msg_bytes)
{
	struct disk *d = disk_of(tier_bottom(t));
	struct dfile *f = find_file(d, path);

	if (!f)
		return no_such_file(path, msg, msg_bytes);
	if (f->draining)
		return 0;
	if (d->recovering)
		return err_text(-EBUSY, msg, msg_bytes, "%s: recovery is not over: try again",
				path);
	if (!has_other(d, f))
		return err_text(-EBUSY, msg, msg_bytes, "%s: there is no other file for its "
				"blocks: add one first", path);
	d->kick = true;
	f->draining = true;
	if (!f->read_only)
		d->nr_free -= f->nr_free;
	d->t.bytes -= f->nr_usable * f->sb->segment_bytes;
	for (unsigned i = 0; i < DISK_NR_OPEN; i++)
		if (f->open[i].s)
			dopen_close(&f->open[i]);
	return 0;
}

int disk_undrain_path(struct tier *t, const char *path, char *msg, size_t msg_bytes)
{
	struct disk *d = disk_of(tier_bottom(t));
	struct dfile *f = find_file(d, path);

	if (!f)
		return no_such_file(path, msg, msg_bytes);
	if (!f->draining)
		return 0;
	if (f->drained)
		return err_text(-EBUSY, msg, msg_bytes, "%s: it is empty already and being closed",
				path);
	f->draining = false;
	if (!f->read_only)
		d->nr_free += f->nr_free;
	d->t.bytes += f->nr_usable * f->sb->segment_bytes;
	return 0;
}
