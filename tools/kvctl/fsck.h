/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fsck.h - a walk of one file of the disk tier, read-only and without a daemon.
 *
 * What is wrong goes to fault() as it is found, with the offset it is at; what
 * there is goes to struct fsck_file. Nothing that the file says is believed
 * before it was checked. Formats: kvmd/tier/disk_format.h, kvmd-disk(5).
 */
#ifndef KVCTL_FSCK_H
#define KVCTL_FSCK_H

#include "kvmd/lib/base.h"
#include "kvmd/tier/disk_format.h"

struct fsck_space;

struct fsck_ops {
	bool data;		/* read every payload and compare its checksum */
	void (*fault)(void *ctx, uint64_t off, const char *text);
	/* May be NULL: a block that a daemon would find. */
	void (*block)(void *ctx, const struct fsck_space *sp, const struct disk_header *h);
	/* May be NULL; @done of @total segments. */
	void (*progress)(void *ctx, uint32_t done, uint32_t total);
	void *ctx;
};

struct fsck_space {
	struct disk_space e;		/* the copy that counts */
	bool there;
	uint64_t nr_live, live_bytes;
	uint64_t coded_bytes[KVMD_MAX_GROUPS]; /* of a coded block; 0: there is none */
};

struct fsck_file {
	uint64_t bytes;			/* of the file or device */
	bool locked;			/* a daemon has it */
	bool has_super;			/* super is right, the rest was looked at */
	struct disk_super super;
	uint32_t nr_segs[NR_DISK_SEG_STATE], nr_bad_segs;
	uint64_t nr_live, live_bytes;	/* blocks a daemon would find */
	uint64_t nr_dead;		/* dropped */
	uint64_t nr_old;		/* of a former epoch, or a space that gave its entry up */
	uint64_t nr_holes;		/* headers of sealed segments that were not written */
	uint64_t bad_bytes;		/* that are never used again */
	uint64_t nr_verified, verified_bytes; /* payloads read, with data */
	uint64_t nr_faults;
	struct fsck_space space[DISK_MAX_SPACES];
};

/*
 * Walk @path. 0, however many faults; -errno: it cannot be opened, is neither
 * file nor block device, or memory ran out. Blocks.
 */
int fsck_walk(const char *path, const struct fsck_ops *ops, struct fsck_file *ret_f);

#endif
