/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dev_rig.h - GPU devices over the fake driver: opened as told, used, looked into.
 *
 * A test runs in a process of its own (libcheck's), so each tells the fake driver
 * what it is to be like before the first open. grig_exit() finds what is left.
 */
#ifndef KVMD_TESTS_DEV_RIG_H
#define KVMD_TESTS_DEV_RIG_H

#include "kvmd/dev/cuda_int.h"

#define GRIG_MIB	(1ull << 20)

extern struct workers *grig_w;
extern unsigned grig_nr_done;		/* batches */
extern unsigned grig_nr_trouble;	/* texts */

/* The driver that will be loaded is the fake. */
bool grig_is_fake(void);
void grig_init(void);			/* fixtures: workers, a state file */
void grig_exit(void);			/* nothing pending, no violation, no memory in use */

uint64_t grig_calls(const char *func);	/* of the driver by this process */
void grig_unhang(void);

/* Before the first open: $KVMD_FAKECUDA. */
void grig_driver(const char *conf);
/* With defaults: 64 MiB, VMM. */
struct dev_opts grig_opts(void);
void grig_open(struct dev *d, const struct dev_opts *o);	/* NULL: the defaults */
int grig_try(struct dev *d, const struct dev_opts *o, char msg[256]);

struct dev_extent grig_extent(struct dev *d, uint64_t bytes);
struct dev_extent grig_chunk(uint64_t bytes, bool pinned);	/* host memory */
void grig_drop(struct dev *d, struct dev_extent *e);		/* either; host memory: unpinned */
/* The bytes, wherever they are. */
uint8_t *grig_bytes(const struct dev_extent *e);

void grig_done(struct dev_batch *b);	/* for batch->done */
void grig_wait(unsigned nr_done);	/* until so many batches are done */
void grig_wait_trouble(unsigned nr);
void grig_settle(void);			/* until nothing is pending */
/* One copy by itself: its err. */
int grig_copy(struct dev *d, const struct dev_extent *dst, uint64_t dst_off,
	      const struct dev_extent *src, uint64_t src_off, uint64_t bytes, bool urgent);

/*
 * Random traffic between two extents on @d and three chunks, one of them not pinned,
 * in rounds without overlap, with sums; all bytes compared at the end of each.
 */
void grig_traffic(struct dev *d, unsigned rounds, uint64_t seed);

#endif
