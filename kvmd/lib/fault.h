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
 *
 * Sites "crash-..." are points at which the process kills itself with SIGKILL,
 * no handler run, no buffer flushed: "crash-header:nth=3" at the third header.
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
	FAULT_TIER_ALLOC,	/* a tier has no place: full */
	FAULT_CHUNK,		/* a RAM chunk cannot be made: -ENOMEM */
	FAULT_LOCK,		/* mlock(2): -ENOMEM */
	FAULT_REGISTER,		/* a fixed buffer is not registered: -ENOMEM */
	FAULT_SYNC,		/* fdatasync(2): -EIO */
	FAULT_SHORT,		/* a read or a write comes back short */
	/* Crash points, for fault_crash(). */
	CRASH_DATA,		/* payload written, its header not */
	CRASH_HEADER,		/* header written, the block not told to its owner */
	CRASH_SEAL,		/* all of a segment written, its head not */
	CRASH_SYNC,		/* head written, fdatasync not yet over */
	CRASH_COMPACT,		/* some of a segment's blocks moved, not all */
	CRASH_RECOVER,		/* some of the blocks found, not all */
	CRASH_RAM,		/* copied to RAM, not yet in the record */
	CRASH_KEEP,		/* some of the state given to the keeper, not all */
	NR_FAULT
};

/* Which calls fail. */
struct fault_rule {
	uint64_t nth;		/* fail this call, once; 0: off */
	uint64_t every;		/* fail each multiple of this call; 0: off */
	uint64_t prob;		/* of 2^32; 0: off */
	uint64_t seed;		/* of prob */
	uint64_t times;		/* most failures; UINT64_MAX: no limit */
};

/*
 * "KEY=VALUE,..." as above; writes into @pairs. @what is named when something is
 * missing. 0, or -EINVAL with a message in @msg (may be NULL), *ret_r untouched.
 */
int fault_rule_parse(struct fault_rule *ret_r, const char *what, char *pairs, char *msg,
		     size_t bytes);
/* Does call number @call (from 1) fail? r->times is the caller's to keep. */
bool fault_rule_fails(const struct fault_rule *r, uint64_t call);

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

void fault_die(void) __attribute__((noreturn, cold));

/* A crash point: the process ends here if it is to. */
static inline void fault_crash(enum fault_site point)
{
	if (fault_hit(point))
		fault_die();
}

#endif
