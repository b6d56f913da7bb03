/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fault.h - fault injection by count and by probability, per site.
 *
 * A spec is "SITE:KEY=VALUE[,KEY=VALUE]", several separated by ';':
 *   nth=N        fail the Nth call from now (1 = the next), once
 *   every=N      fail every Nth call
 *   prob=P       fail with probability P (0..1), from seed=S
 *   times=N      stop after N failures
 * Example: KVMD_FAULT="alloc:nth=3;copy:prob=0.01,seed=7".
 * Disarmed, a check is one load. fault_hit() may be called by any thread.
 */
#ifndef KVMD_LIB_FAULT_H
#define KVMD_LIB_FAULT_H

#include "kvmd/lib/base.h"

enum fault_site {
	FAULT_ALLOC,		/* mem_*() returns NULL */
	FAULT_SLAB,		/* device slab creation: -ENOMEM */
	FAULT_COPY,		/* device copy completes with -EIO */
	FAULT_SCRUB,		/* device scrub completes with -EIO */
	FAULT_READ,		/* tier read: -EIO */
	FAULT_WRITE,		/* tier write: -EIO */
	FAULT_SEND,		/* control message to a client: -ENOBUFS */
	NR_FAULT
};

const char *fault_name(enum fault_site site);
/* 0, or -EINVAL with a message that names the word in @ret_msg (may be NULL). */
int fault_arm(const char *spec, char *ret_msg, size_t msg_bytes);
void fault_disarm(void);
uint64_t fault_nr_calls(enum fault_site site);	/* since the site was armed */
uint64_t fault_nr_hits(enum fault_site site);

extern bool fault_armed[NR_FAULT];
bool fault_hit_slow(enum fault_site site);

static inline bool fault_hit(enum fault_site site)
{
	return unlikely(ld_rlx(&fault_armed[site])) && fault_hit_slow(site);
}

#endif
