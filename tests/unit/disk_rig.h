/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_rig.h - a disk tier on files of its own, and an owner for its blocks.
 *
 * There is no pool behind it: records are made by hand. Block n has key n, and
 * bytes that follow from n; rec[n] is what the owner knows of it, its record is
 * number n. Everything is gone with drig_exit(), files included.
 */
#ifndef TEST_DISK_RIG_H
#define TEST_DISK_RIG_H

#include <check.h>

#include "kvmd/lib/workers.h"
#include "kvmd/tier/disk.h"

#define DRIG_MAX	4096u		/* blocks */
#define DRIG_SPACES	4u
#define DRIG_MEM	(8u << 20)	/* bytes of fixed buffer 0 */

struct drig_rec {
	uint32_t place;			/* 0: not on disk */
	uint32_t parent;		/* block, 0: root */
	uint8_t space;
	bool keep;			/* answer to keep() */
	bool lost, was_kept, was_moved;
	uint8_t nr_later;		/* how often it had to wait */
};

struct drig {
	char dir[64];
	char path[DISK_MAX_FILES][96];
	struct disk_opts o;
	struct disk_events ev;
	struct pool *p;
	struct tenant tenant;
	struct uring *u;
	struct workers *w;
	struct uring_req bell;
	uint64_t bell_val;
	struct tier *t;			/* NULL: closed */
	char msg[320];
	uint8_t *mem;			/* DRIG_MEM, fixed buffer 0 */
	uint64_t block_bytes;
	struct drig_rec rec[DRIG_MAX];
	unsigned nr_keep, nr_moved, nr_lost, nr_taken, nr_parked, nr_later, nr_gone;
	bool recovered;
	unsigned open_after;		/* space 0 is opened when so many were parked; 0: not */
	uint32_t orphan_most;		/* when opened; 0: as it is */
	int raised;			/* last answer of disk_space_raise(), 1: none yet */
	uint8_t *acked;			/* [DRIG_MAX] shared with children: written, and told */
};

/* The suite's own: made before each test, gone after it, with the faults that it armed. */
extern struct drig drig;
/* A test with it. */
void drig_add(Suite *s, const char *behaviour, const TTest *test);

/* A request of the test's. */
struct drig_req {
	struct tier_req r;
	bool over;
};

void drig_init(struct drig *r);		/* a directory, rings; no tier yet */
void drig_exit(struct drig *r);
/* Open the tier with r->o; 0, or the error with text in r->msg. Waits for recovery. */
int drig_try_open(struct drig *r);
void drig_open(struct drig *r);
/* What there was is forgotten, spaces are closed: as after a restart. */
void drig_reopen(struct drig *r);
/* The same, and space 0 of epoch 1. */
void drig_open_one(struct drig *r);
void drig_close(struct drig *r, bool orderly);	/* not orderly: as if it were killed */
void drig_files(struct drig *r, unsigned nr);	/* paths of nr files */

/* Space @i is opened, with blocks of r->block_bytes. */
struct space *drig_space(struct drig *r, unsigned i, uint64_t epoch);
void drig_space_close(struct drig *r, unsigned i);
void drig_raise(struct drig *r, unsigned i, uint64_t epoch);	/* and wait: r->raised */
/*
 * Run @fn in a child that has its own rings, and dies in it: its wait status. The
 * tier is closed here; the files are free again when it returns.
 */
int drig_child(struct drig *r, void (*fn)(struct drig *r, void *arg), void *arg);
/* Record and bytes of block @n of space @i behind block @parent. */
void drig_block(struct drig *r, uint32_t n, unsigned i, uint32_t parent);
void drig_bytes(uint32_t n, void *p, uint64_t bytes);

void drig_step(struct drig *r);		/* one poll, and one wait for what is under way */
void drig_quiet(struct drig *r);	/* until nothing is under way any more */
#define drig_until(r, cond) do { while (!(cond)) drig_step(r); } while (0)

/* Start; false: no place. @at: offset in r->mem. */
bool drig_write_start(struct drig *r, struct drig_req *q, uint32_t n, uint64_t at);
void drig_read_start(struct drig *r, struct drig_req *q, uint32_t n, uint64_t at);
int drig_write(struct drig *r, uint32_t n);	/* and wait: its error; -ENOSPC: no place */
int drig_read(struct drig *r, uint32_t n);	/* and compare the bytes when it is 0 */
void drig_free(struct drig *r, uint32_t n);
/* Blocks first.. in a chain, written; asserts that they were. */
void drig_fill(struct drig *r, uint32_t first, uint32_t nr);
/* Blocks first.. without parents, each tried until there is a place. */
void drig_fill_roots(struct drig *r, uint32_t first, uint32_t nr);
/* How many of blocks @first.. are there; each of them is right. */
unsigned drig_nr_there(struct drig *r, uint32_t first, uint32_t nr);
void drig_arm(const char *spec);		/* faults, until fault_disarm() */
void drig_check(struct drig *r);		/* disk_check(), and owners agree */
struct disk_info drig_info(struct drig *r);
/* Offset in file @file of block @n's payload; its header. */
uint64_t drig_data_at(struct drig *r, uint32_t n);
uint64_t drig_header_at(struct drig *r, uint32_t n);
void drig_flip(struct drig *r, unsigned file, uint64_t at);	/* one bit in the closed file */
void drig_peek(struct drig *r, unsigned file, uint64_t at, void *p, size_t bytes);
void drig_poke(struct drig *r, unsigned file, uint64_t at, const void *p, size_t bytes);

#endif
