/* SPDX-License-Identifier: Apache-2.0 */
/*
 * driver.h - what the parts of the model test share; see check_model.c.
 *
 * driver_gpu.c plays GPU steps and looks at content, driver_submit.c makes up
 * entries, driver_done.c compares completions with the model.
 */
#ifndef KVMD_TESTS_MODEL_DRIVER_H
#define KVMD_TESTS_MODEL_DRIVER_H

#include "model.h"
#include "tests/core_rig.h"

#define NR_OPS		32	/* entries in flight per client */
#define NR_STEPS	8	/* GPU steps in flight per client */
#define TICKET_NS	20000000ull
#define POISON		0x0123456789abcdefull	/* content of free slots */

struct access {
	void *mem;
	uint64_t tag;
	uint32_t seq, pos, slot;
	bool write;
};

struct gpu_step {
	uint64_t step;
	unsigned nr;
	struct access a[M_SEQS * M_POS];
};

struct flight {
	bool busy;
	struct kvmd_sqe e;
	struct m_seq seq;		/* OPEN: what it will be */
	uint64_t ticket_ns;		/* RECV: when it was sent, 0: a made-up one */
};

enum life { GONE, ALIVE, CLOSED };

struct client {
	struct core_client cl;
	enum life life;
	uint32_t space;
	uint64_t submitted;
	struct gpu_step step[NR_STEPS];
	unsigned first, nr_steps;
	bool prepared;			/* the last of them is not submitted yet */
	struct flight op[NR_OPS];
};

struct held_ticket {
	bool live;
	uint64_t id, since_ns;
	struct m_seq seq;
};

extern struct core mc;
extern struct model mm;
extern struct client cli[M_SESSIONS];
extern struct held_ticket tick[M_TICKETS];
extern struct kvmd_space geo[M_SPACES];
extern uint64_t rng;
extern uint64_t nr_done[KVMD_NR_OP], nr_refused[KVMD_NR_OP];

#define CHECK(ok, ...)	core_ok_msg(ok, #ok ": " __VA_ARGS__)

/* driver.c */
uint32_t rnd(uint32_t below);

/* driver_gpu.c */
void check_rows(void);			/* rows and content are what the model says */
void poison_free_slots(void);
void step_submit(unsigned i);		/* of client @i: prepare, submit, or both */
void step_complete(unsigned i);		/* its oldest one */

/* driver_submit.c */
bool is_structural(uint8_t op);		/* may release or move positions */
bool names_seq(const struct kvmd_sqe *e);
void pending(unsigned i, const struct kvmd_sqe *e, int add);	/* entries in flight */
void act(unsigned i);			/* one random entry of client @i */

/* driver_done.c */
void collect(void);			/* completions of all clients */

#endif
