/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policy_rig.h - one policy and a few blocks, moved by hand.
 */
#ifndef TEST_POLICY_RIG_H
#define TEST_POLICY_RIG_H

#include "kvmd/pool/policy.h"
#include "kvmd/pool/pool.h"

#define RIG_BLOCKS	4096

struct rig {
	struct pool *pool;
	struct gpool gp;
	struct policy *pol;
	uint32_t nr;			/* blocks made so far */
};

void rig_init(struct rig *r, const char *policy);
void rig_exit(struct rig *r);
/* Policy time in ticks from now on. */
void rig_clock(struct rig *r, uint32_t ticks);
/* A new sealed block, leased once, child of @parent (0: a root). Its number. */
uint32_t rig_seal(struct rig *r, uint32_t parent);
/* A chain of @nr, sealed and made idle, last first. Number of the first; they are in a row. */
uint32_t rig_chain(struct rig *r, uint32_t nr);
void rig_idle(struct rig *r, uint32_t id);
void rig_hit(struct rig *r, uint32_t id);	/* lease an idle block again */
uint32_t rig_victim(struct rig *r);		/* 0: none */
uint32_t rig_evict(struct rig *r);		/* take the victim out; 0: none */
void rig_remove(struct rig *r, uint32_t id);	/* take an idle block out */
/* Advise @id, as ADVISE does: tell the policy if it is idle. */
void rig_cold(struct rig *r, uint32_t id);
void rig_prio(struct rig *r, uint32_t id, uint8_t prio, uint32_t until);	/* 0: for ever */
void rig_ttl(struct rig *r, uint32_t id, uint32_t until);

#endif
