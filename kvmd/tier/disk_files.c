/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_files.c - the files of the set, one by one, for the operator.
 *
 * Core thread only.
 */
#include "kvmd/tier/disk_int.h"

#include <stdio.h>

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

int disk_undrain_path(struct tier *t, const char *path, char *msg, size_t msg_bytes)
{
	struct disk *d = disk_of(tier_bottom(t));
	struct dfile *f, *it = NULL;

	for_each_file(d, f)
		if (!strcmp(f->path, path))
			it = f;
	if (!it) {
		snprintf(msg, msg_bytes, "%s: not a file of the disk tier", path);
		return -ENOENT;
	}
	if (!it->draining)
		return 0;
	if (it->drained) {
		snprintf(msg, msg_bytes, "%s: it is empty already and being closed", path);
		return -EBUSY;
	}
	it->draining = false;
	if (!it->read_only)
		d->nr_free += it->nr_free;
	d->t.bytes += it->nr_usable * it->sb->segment_bytes;
	return 0;
}
