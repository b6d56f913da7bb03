/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tier.h - what the files of part "tier" share.
 *
 * Floors: fio as a child process (tier_fio.c), bare loops in this one
 * (tier_bare.c). Ours: the tiers through their own interface, driven by this
 * process as the daemon's core thread would (tier_rig.c, tier_disk.c,
 * tier_ram.c), and a daemon with clients (tier_daemon.c, tier_recover.c,
 * tier_start.c). All files of a run lie in bench.tier_dir, on one file system.
 */
#ifndef KVBENCH_TIER_H
#define KVBENCH_TIER_H

#include "kvmd/lib/worker_bell.h"
#include "kvmd/tier/disk.h"
#include "kvmd/tier/ram.h"
#include "tools/kvbench/kvbench.h"

#define NR_SIZES	3u
extern const uint64_t tier_size[NR_SIZES];	/* block: 256 KiB, 512 KiB, 2 MiB */

/* How much of everything; quick runs take less. */
struct tier_amounts {
	uint64_t file_bytes;		/* of fio's file, and of each disk tier */
	uint64_t mem_bytes;		/* of HBM and of RAM in the RAM tier's rows */
	uint64_t slice_ns;		/* one measurement of one thing */
	uint32_t recover_blocks;
};
extern struct tier_amounts tier_amounts;

/* DIR/@name in a static buffer of its own for each of the last few calls. */
const char *tier_path(const char *name);
uint64_t cpu_ns(void);			/* CPU time of this process so far */

/* ------------------------------------------------------------- tier_fio.c */

struct fio_job {
	bool write;
	uint64_t block;			/* bytes */
	unsigned depth;
	bool plain;			/* no fixed buffers, no registered file */
};

/* Is there an fio? Else prints the command that installs it and exits. */
void fio_check(void);
/* Make fio's file and write all of it, so that measurements only overwrite. */
void fio_layout(void);
/* Bytes a second; @for_ns 0: over the file once. */
double fio_run(const struct fio_job *j, uint64_t for_ns);
/* The depth at which fio is fastest, tried once. */
unsigned fio_best_depth(bool write, uint64_t block);

/* ------------------------------------------------------------ tier_bare.c */

struct bare_io {
	double bps;
	double cpu_ns;			/* per block */
	double p50_ns;
};

/* io_uring, one thread, one fixed file, fixed buffers; @look: read every byte too. */
void bare_io(const char *path, bool write, bool look, uint64_t block, unsigned depth,
	     uint64_t for_ns, struct bare_io *ret_r);

/* Copies of whole blocks to and fro between two sets, by one more thread. */
struct bare_copy {
	uint8_t **a, **b;		/* [nr] */
	uint32_t nr;
	uint64_t block;
	bool streaming;			/* else memcpy */
};
/* Which block of a set the copy number @k is about: all of them, far from each other. */
static inline uint32_t copy_pick(uint64_t k, uint32_t nr)
{
	return (uint32_t)((k * 1031 + k / nr) % nr);
}

double bare_copy(const struct bare_copy *c, uint64_t for_ns);	/* bytes a second */
const char *bare_copy_name(void);	/* "avx512", "avx2", "memcpy" */

/* ------------------------------------------------------------- tier_rig.c */

/* A pool with one space of one group and the tiers, without a daemon. */
struct rig {
	struct workers *workers, *slow;
	struct dev_ops ops;		/* of its device: the host's, to be changed */
	struct uring *u;
	struct worker_bell bell;	/* of workers; those of slow are seen in time */
	struct pool *p;
	struct space *sp;
	struct gpool *gp;
	struct tier *ram, *disk;	/* NULL: not there */
	uint8_t *mem;			/* fixed buffer 0 */
	uint64_t mem_bytes;
	uint32_t *place;		/* [nr_blocks + 1] in disk */
	uint32_t nr_blocks;
};

struct rig_opts {
	uint64_t block;			/* bytes */
	uint32_t nr_blocks;		/* records */
	uint64_t hbm_bytes, ram_bytes;	/* 0: none */
	const char *disk;		/* path, NULL: none */
	uint64_t disk_bytes;
	uint64_t mem_bytes;		/* of I/O buffer of its own; 0: none */
	bool pinned;			/* its workers on the server's processor */
};

void rig_init(struct rig *r, const struct rig_opts *o);
void rig_exit(struct rig *r);
/* One turn of a core thread: completions, workers, tiers. False: nothing happened. */
bool rig_turn(struct rig *r);
void rig_wait(struct rig *r);		/* sleep until something may happen */

/* ---------------------------------------------- what is measured, by subject */

void tier_disk_setup(void);
double tier_disk_rate(unsigned size, bool write);	/* bytes a second, the tier alone */
void tier_disk_round(void);				/* all else about it */
void tier_disk_end(void);
void tier_ram_setup(void);
void tier_ram_round(void);
void tier_ram_end(void);
void tier_daemon_setup(void);
double tier_daemon_rate(unsigned size, bool write);	/* the same behind a daemon */
void tier_nop_round(void);
void tier_recover_round(void);
void tier_start_round(void);

#endif
