// SPDX-License-Identifier: Apache-2.0
/*
 * disk_open.c - one file of the disk tier: found or made, checked, locked.
 *
 * The lock is an open-file-description lock on the descriptor that all I/O goes
 * through: io_uring holds that description while an I/O is under way, so the
 * lock of a daemon that died ends with its last I/O, not before.
 *
 * A file is only written to when it is new, empty, all zeros where our tables
 * would be, or ours. Everything here blocks: start-up and admin path.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "kvmd/lib/err.h"
#include "kvmd/lib/mem.h"
#include "kvmd/tier/disk_int.h"

#define MIN_SEGMENTS	16u		/* wanted; DISK_MIN_SEGMENTS are needed */

/* -------------------------------------------------------------- open and lock */

static int open_path(struct dfile *f, const char *path, bool *ret_new, char *msg, size_t n)
{
	struct stat st;
	int flags = O_DIRECT | O_CLOEXEC, err;

	*ret_new = false;
	if (stat(path, &st)) {
		if (errno != ENOENT)
			return err_text(-errno, msg, n, "%s: %s", path, strerror(errno));
		f->fd = open(path, flags | O_RDWR | O_CREAT | O_EXCL, 0600);
		*ret_new = f->fd >= 0;
	} else if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
		return err_text(-EINVAL, msg, n, "%s: neither a file nor a block device", path);
	} else {
		f->is_blk = S_ISBLK(st.st_mode);
		/* Root may write to everything: a file without any write bit is meant so. */
		f->read_only = !f->is_blk && !(st.st_mode & 0222);
		f->fd = f->read_only ? -1 : open(path, flags | O_RDWR);
		if (f->read_only || (f->fd < 0 && (errno == EACCES || errno == EROFS ||
						   errno == EPERM))) {
			f->read_only = true;
			f->fd = open(path, flags | O_RDONLY);
		}
	}
	if (f->fd >= 0)
		return 0;
	err = -errno;
	return err_text(err, msg, n, "%s: %s%s", path, strerror(-err),
			err == -EINVAL ? ": the file system has no O_DIRECT, use another" : "");
}

static int lock(struct dfile *f, char *msg, size_t n)
{
	struct flock fl = {
		.l_type = f->read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET,
	};

	if (!fcntl(f->fd, F_OFD_SETLK, &fl))
		return 0;
	if (errno == EAGAIN || errno == EACCES)
		return err_text(-EBUSY, msg, n, "%s: another daemon, or I/O of one that died, has "
				"it: stop it, or wait", f->path);
	return err_text(-errno, msg, n, "%s: lock: %s", f->path, strerror(errno));
}

static int size_of(struct dfile *f, uint64_t *ret_bytes)
{
	struct stat st;

	if (f->is_blk)
		return ioctl(f->fd, BLKGETSIZE64, ret_bytes) ? -errno : 0;
	if (fstat(f->fd, &st))
		return -errno;
	*ret_bytes = (uint64_t)st.st_size;
	return 0;
}

/* ------------------------------------------------------------------ what it is */

/* Neither copy of the superblock is right: blank, or not to be touched. */
static int not_ours(struct dfile *f, const uint8_t *mem, size_t got, char *msg, size_t n)
{
	const struct disk_super *s = (const struct disk_super *)mem;
	enum disk_why a = DISK_NO_MAGIC, b = DISK_NO_MAGIC;

	if (got >= 2 * DISK_ALIGN) {
		a = disk_super_check(&s[0]);
		b = disk_super_check(&s[1]);
	}
	if (a == DISK_NO_MAGIC && b == DISK_NO_MAGIC) {
		if (mem_is_zero(mem, got))
			return 0;
		return err_text(-EINVAL, msg, n, "%s: holds something that is not ours: it is left "
				"as it is; use another path, or remove it", f->path);
	}
	if (a == DISK_BAD_VERSION || b == DISK_BAD_VERSION)
		return err_text(-EINVAL, msg, n, "%s: of version %u, this daemon knows %u: use "
				"another path, or remove it", f->path,
				s[a == DISK_BAD_VERSION ? 0 : 1].version, DISK_VERSION);
	return err_text(-EINVAL, msg, n, "%s: both superblocks (offset 0: %s, offset %u: %s) are "
			"broken: check the device, remove the file to begin anew", f->path,
			disk_why_name(a), DISK_ALIGN, disk_why_name(b));
}

static int look(struct dfile *f, uint64_t size, char *msg, size_t n)
{
	size_t bytes = min((uint64_t)DISK_SUMMARY_OFF, align_up(size, DISK_ALIGN));
	uint8_t *mem = mem_big_alloc(DISK_SUMMARY_OFF, false);
	const struct disk_super *s = (const struct disk_super *)mem, *best = NULL;
	ssize_t got = 0;
	int err = 0;

	if (!mem)
		return err_text(-ENOMEM, msg, n, "%s: out of memory", f->path);
	if (bytes)
		got = pread(f->fd, mem, bytes, 0);
	if (got < 0) {
		err = err_text(-errno, msg, n, "%s: read at offset 0: %s", f->path,
			       strerror(errno));
		goto out_free;
	}
	for (unsigned i = 0; i < 2 && got >= 2 * (ssize_t)DISK_ALIGN; i++)
		if (!disk_super_check(&s[i]) && (!best || s[i].seq > best->seq))
			best = &s[i];
	if (best && !mem_is_zero(best->set_uuid, sizeof(best->set_uuid))) {
		*f->sb = *best;
		for (unsigned i = 0; i < 2; i++)
			if (disk_super_check(&s[i]))
				disk_say(f->d, "%s: superblock at offset %u: %s: the other copy is "
					 "used", f->path, i * DISK_ALIGN,
					 disk_why_name(disk_super_check(&s[i])));
	} else {
		f->fresh = true;	/* blank, or drained and of no set any more */
		if (!best)
			err = not_ours(f, mem, (size_t)got, msg, n);
		if (!err && f->read_only)
			err = err_text(-EROFS, msg, n, "%s: empty, and cannot be written", f->path);
	}
out_free:
	mem_big_free(mem, DISK_SUMMARY_OFF);
	return err;
}

/*
 * What cannot fit is not begun: fallocate() takes all that is free before it fails,
 * and for that moment every other process finds the file system full.
 */
static bool is_too_much(const struct dfile *f, uint64_t more)
{
	struct statvfs v;

	return !fstatvfs(f->fd, &v) && more / v.f_frsize > v.f_bavail;
}

static int preallocate(struct dfile *f, uint64_t bytes, uint64_t *size, char *msg, size_t n)
{
	if (f->is_blk || *size >= bytes)
		return 0;
	errno = ENOSPC;
	if (is_too_much(f, bytes - *size) || fallocate(f->fd, 0, 0, (off_t)bytes))
		return err_text(-errno, msg, n, "%s: %llu bytes cannot be allocated: %s: make "
				"room, or ask for less", f->path, (unsigned long long)bytes,
				strerror(errno));
	*size = bytes;
	return 0;
}

/*
 * Open @path as @f: sb is what is there, or fresh is set and dfile_make() has to
 * follow; a file of less than @bytes is then allocated.
 */
int dfile_open(struct disk *d, struct dfile *f, const char *path, uint64_t bytes,
	       char *msg, size_t n)
{
	uint64_t size = 0;
	bool made;
	int err;

	*f = (struct dfile) { .d = d, .idx = (unsigned)(f - d->file), .fd = -1 };
	list_init(&f->free);
	err = open_path(f, path, &made, msg, n);
	if (err)
		return err;
	f->path = mem_strdup(path);
	f->sb = mem_big_alloc(DISK_ALIGN, false);
	if (!f->path || !f->sb) {
		err = err_text(-ENOMEM, msg, n, "%s: out of memory", path);
		goto err_close;
	}
	err = lock(f, msg, n);
	if (err)
		goto err_close;
	err = size_of(f, &size);
	if (err) {
		err_text(err, msg, n, "%s: size: %s", path, strerror(-err));
		goto err_close;
	}
	err = look(f, size, msg, n);
	if (!err && f->fresh)
		err = preallocate(f, bytes, &size, msg, n);
	if (!err)
		return 0;
	if (made)
		unlink(path);
err_close:
	dfile_close(f);
	return err;
}

static int write_supers(struct dfile *f, char *msg, size_t n)
{
	for (unsigned copy = 0; copy < 2; copy++) {
		off_t at = (off_t)(copy * DISK_ALIGN);

		if (pwrite(f->fd, f->sb, DISK_ALIGN, at) != (ssize_t)DISK_ALIGN || fdatasync(f->fd))
			return err_text(-EIO, msg, n, "%s: superblock at offset %llu: %s", f->path,
					(unsigned long long)at, strerror(errno));
	}
	return 0;
}

int dfile_make(struct dfile *f, unsigned index, unsigned nr_files, const uint8_t *uuid,
	       char *msg, size_t n)
{
	const struct disk_opts *o = &f->d->o;
	uint64_t size, gen0, segment = o->segment_bytes;
	char why[160];
	int err;

	err = size_of(f, &size);
	if (err)
		return err_text(err, msg, n, "%s: size: %s", f->path, strerror(-err));
	/* A small file: smaller segments, so that there are enough of them. */
	while (size / segment < MIN_SEGMENTS && segment % (2 * DISK_SEGMENT_UNIT) == 0 &&
	       segment / 2 >= o->block_bytes_hint)
		segment /= 2;
	err = disk_super_make(f->sb, size, segment, o->block_bytes_hint, why, sizeof(why));
	if (err)
		return err_text(err, msg, n, "%s: %s", f->path, why);
	/* A device may hold segments of a former set: their generations are not ours. */
	if (getrandom(&gen0, sizeof(gen0), 0) != sizeof(gen0))
		return err_text(-EIO, msg, n, "%s: no random number: %s", f->path, strerror(errno));
	f->sb->gen0 = gen0 >> 16;
	f->sb->seq = 1;
	f->sb->index = index;
	f->sb->nr_files = nr_files;
	memcpy(f->sb->set_uuid, uuid, sizeof(f->sb->set_uuid));
	disk_super_finish(f->sb);
	return write_supers(f, msg, n);
}

/* ---------------------------------------------------------------------- set-up */

static int alloc_tables(struct dfile *f)
{
	uint64_t nr = f->sb->nr_segments;

	f->place_bytes = nr * f->sb->nr_headers * sizeof(struct dplace);
	f->seg = mem_big_alloc(nr * sizeof(struct dseg), false);
	f->place = mem_big_alloc(f->place_bytes, false);
	if (!f->seg || !f->place)
		return -ENOMEM;
	for (unsigned i = 0; i < DISK_NR_OPEN; i++) {
		f->open[i].f = f;
		f->open[i].image = mem_big_alloc(f->sb->summary_bytes, false);
		if (!f->open[i].image)
			return -ENOMEM;
	}
	return 0;
}

/* Tables and fixed file; segments are FREE in a fresh file, else UNREAD. */
int dfile_set_up(struct dfile *f, char *msg, size_t n)
{
	struct disk *d = f->d;
	uint64_t size;
	int err;

	f->seg_pages = (uint32_t)(f->sb->segment_bytes / DISK_ALIGN);
	err = alloc_tables(f);
	if (err)
		return err_text(err, msg, n, "%s: out of memory for its tables", f->path);
	err = size_of(f, &size);
	if (err)
		return err_text(err, msg, n, "%s: size: %s", f->path, strerror(-err));
	for (uint32_t i = 0; i < f->sb->nr_segments; i++) {
		struct dseg *s = &f->seg[i];

		list_init(&s->link);
		if (disk_data_at(f->sb, i) + f->sb->segment_bytes > size) {
			s->state = DS_GONE;
			continue;
		}
		f->nr_usable++;
		s->state = DS_UNREAD;
		if (f->fresh)
			disk_seg_free(d, f, s);
	}
	if (f->nr_usable < f->sb->nr_segments)
		disk_say(d, "%s: has %llu bytes, not %llu: %u of %u segments are lost", f->path,
			 (unsigned long long)size,
			 (unsigned long long)disk_data_at(f->sb, f->sb->nr_segments),
			 f->sb->nr_segments - f->nr_usable, f->sb->nr_segments);
	err = uring_file_set(d->u, d->o.file_base + f->idx, f->fd);
	if (err)
		return err_text(err, msg, n, "%s: io_uring: fixed file %u: %s", f->path,
				d->o.file_base + f->idx, strerror(-err));
	return 0;
}

/* No I/O is under way on it. NULL-safe in all its parts. */
void dfile_close(struct dfile *f)
{
	struct flock none = { .l_type = F_UNLCK, .l_whence = SEEK_SET };

	if (f->fd >= 0) {
		if (f->unsynced)
			(void)fdatasync(f->fd);	/* what it fails to keep is verified like all */
		/* The ring may let go of the file later; no I/O is under way: unlock now. */
		(void)fcntl(f->fd, F_OFD_SETLK, &none);
		(void)uring_file_set(f->d->u, f->d->o.file_base + f->idx, -1);
		close(f->fd);
	}
	if (f->seg)
		mem_big_free(f->seg, f->sb->nr_segments * sizeof(struct dseg));
	if (f->place)
		mem_big_free(f->place, f->place_bytes);
	for (unsigned i = 0; i < DISK_NR_OPEN; i++)
		if (f->open[i].image)
			mem_big_free(f->open[i].image, f->sb->summary_bytes);
	mem_big_free(f->sb, DISK_ALIGN);
	mem_free(f->path);
	memset(f, 0, sizeof(*f));
	f->fd = -1;
}

/* Do the files that are not fresh make one whole set? 0 with their uuid and number. */
int disk_set_check(struct disk *d, uint8_t *ret_uuid, unsigned *ret_nr, char *msg, size_t n)
{
	const struct disk_super *best = NULL;
	struct dfile *f, *first = NULL;
	bool whole = false;
	unsigned nr = 0;

	for_each_file(d, f) {
		if (f->fresh)
			continue;
		if (first && memcmp(first->sb->set_uuid, f->sb->set_uuid, sizeof(f->sb->set_uuid)))
			return err_text(-EINVAL, msg, n, "%s and %s belong to different sets: give "
					"the paths of one", first->path, f->path);
		if (!first)
			first = f;
		if (!best || f->sb->seq > best->seq)
			best = f->sb;
		nr++;
	}
	/* When a crash came between the superblocks of a change, some have the old number. */
	for_each_file(d, f)
		whole |= !f->fresh && (f->sb->nr_files == nr || f->sb->nr_files == d->o.nr_paths);
	if (best && !whole)
		return err_text(-EINVAL, msg, n, "%s: its set has %u files, %u are given: give all "
				"paths, or new ones", first->path, best->nr_files, nr);
	if (best)
		memcpy(ret_uuid, best->set_uuid, sizeof(best->set_uuid));
	*ret_nr = nr;
	return 0;
}
