// SPDX-License-Identifier: Apache-2.0
/*
 * disk_drain.c - a file leaves the set.
 *
 * A file being drained takes no blocks; compaction empties its segments first.
 * Then the superblocks of the others say that they are one fewer, its own that it
 * belongs to no set, and it is closed. Core thread only.
 */
#include <errno.h>
#include <stdio.h>

#include "kvmd/tier/disk_int.h"

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
		if (f->q[c].head || f->q[c].cur)
			return;
	disk_say(d, "%s: drained, and closed", f->path);
	disk_bad_close(d, f);
	dfile_close(f);
}

int disk_drain_path(struct tier *t, const char *path, char *msg, size_t msg_bytes)
{
	struct disk *d = disk_of(tier_bottom(t));
	struct dfile *f, *it = NULL;
	bool other = false;

	for_each_file(d, f) {
		if (!strcmp(f->path, path))
			it = f;
		else
			other |= !f->draining && !f->read_only;
	}
	if (!it) {
		snprintf(msg, msg_bytes, "%s: not a file of the disk tier", path);
		return -ENOENT;
	}
	if (it->draining)
		return 0;
	if (!other || d->recovering) {
		snprintf(msg, msg_bytes, d->recovering ? "%s: recovery is not over: try again" :
			 "%s: there is no other file for its blocks: add one first", path);
		return -EBUSY;
	}
	d->kick = true;
	it->draining = true;
	if (!it->read_only)
		d->nr_free -= it->nr_free;
	d->t.bytes -= it->nr_usable * it->sb->segment_bytes;
	for (unsigned i = 0; i < DISK_NR_OPEN; i++)
		if (it->open[i].s)
			dopen_close(&it->open[i]);
	return 0;
}
