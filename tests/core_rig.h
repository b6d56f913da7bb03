/* SPDX-License-Identifier: Apache-2.0 */
/*
 * core_rig.h - the whole daemon in the test's own thread, turned by hand.
 *
 * A real struct daemon, initialised by daemon_init() from options, but without
 * its loop: core_turn() does one round of what the loop does. Clients are fakes:
 * their connection is one end of a socket pair, their rings are used directly.
 * Time is real plus c.skew_ns; the policy clock is c.ticks. Nothing sleeps except
 * for work that is under way on the daemon's worker threads.
 *
 * core_walk() compares everything with everything: block array, slabs, index,
 * leases recounted from all who can hold one, rows, free stacks, nodes, tokens.
 */
#ifndef KVMD_TESTS_CORE_RIG_H
#define KVMD_TESTS_CORE_RIG_H

#include <check.h>

#include "kvmd/svc/daemon.h"


/* For what is checked very often: libcheck's own asserts each write to a file. */
#define core_ok_msg(c, ...)	do { if (unlikely(!(c))) ck_abort_msg(__VA_ARGS__); } while (0)
#define core_ok(c)		core_ok_msg(c, "%s does not hold", #c)

struct core {
	struct daemon *d;
	uint64_t skew_ns;		/* added to the clock */
	uint64_t base_ns;		/* the clock stands there; 0: it runs */
	uint64_t features;		/* of the next hello */
	bool by_hand;			/* finished work is taken by core_work() alone */
	struct core_client *client[8];	/* connected; core_settle() pumps them */
	void (*after)(void);		/* after each part of a turn; NULL: nothing */
	uint32_t ticks;			/* policy clock, 1/16 s */
};

struct core_client {
	struct core *c;
	struct conn *conn;
	struct session *s;
	int peer;			/* our end of its socket */
	uint32_t sq_tail, cq_head;
	uint64_t args_at;		/* next free byte of args, goes round */
	bool mute;			/* answers no slab messages */
	uint32_t nr_msgs;		/* received, of any type */
	int32_t last_err;		/* of the last reply */
	char text[KVMD_TEXT_BYTES];	/* of the last reply */
};

/* @opts: "pool.blocks=64", "device.host-0.bytes=1M", ...; NULL ends. */
int core_try(struct core *c, const char *const *opts);	/* what daemon_init() said */
void core_init(struct core *c, const char *const *opts);	/* must succeed */
void core_exit(struct core *c);

/* One group: full, one plane, @max_slots; change what else you like. */
void core_geometry(struct kvmd_space *m, const char *name, uint64_t plane_bytes,
		   uint32_t max_slots);
/* Connect and say hello: 0 or the refusal. */
int core_hello(struct core *c, struct core_client *cl, const char *tenant, uint32_t max_seqs,
	       uint32_t max_tokens);
int core_hello_with(struct core *c, struct core_client *cl, const struct kvmd_hello *h);
void core_hello_fill(struct kvmd_hello *h, const char *tenant, uint32_t max_seqs,
		     uint32_t max_tokens);
int core_space(struct core_client *cl, struct kvmd_space *m);
/* Both, and settled: the first slab is there. */
void core_client(struct core *c, struct core_client *cl, const char *tenant,
		 const struct kvmd_space *m, uint32_t max_seqs, uint32_t max_tokens);
void core_close(struct core_client *cl);	/* its socket closes */
void core_gone(struct core_client *cl);		/* and its process is gone */
bool core_pump(struct core_client *cl);		/* take messages, answer slabs; any? */

bool core_turn(struct core *c);			/* something was done */
void core_work(struct core *c);			/* wait for the workers */
void core_recovered(struct core *c);		/* and the disk tier has read what it had */
void core_settle(struct core *c);		/* until nothing is left to do; clients answer */
void core_quiet(struct core *c);		/* settled, and the disk tier's own I/O is over */

/* Put @bytes into args; their offset. */
uint64_t core_args(struct core_client *cl, const void *data, size_t bytes);
void core_submit(struct core_client *cl, const struct kvmd_sqe *e);
bool core_peek(struct core_client *cl, struct kvmd_cqe *ret_c);	/* and not take it */
bool core_take(struct core_client *cl, struct kvmd_cqe *ret_c);
/* Submit, settle, take the one completion. */
struct kvmd_cqe core_do(struct core_client *cl, const struct kvmd_sqe *e);
void core_step_submit(struct core_client *cl, uint64_t step);
void core_step_complete(struct core_client *cl, uint64_t step);

/* Entries. */
struct kvmd_sqe core_open(struct core_client *cl, uint32_t seq, const void *keys, uint32_t nr);
struct kvmd_sqe core_extend(uint32_t seq, uint32_t nr);
struct kvmd_sqe core_publish(struct core_client *cl, uint32_t seq, uint32_t first,
			     const void *keys, uint32_t nr);
struct kvmd_sqe core_op(uint8_t opcode, uint32_t seq);

/* Keys first .. first+nr-1 of the chain @chain, 32 bytes each. */
void core_keys(uint32_t chain, uint32_t first, uint32_t nr, uint8_t *ret_keys);
/* Open @seq, extend to @nr blocks, publish them all under @chain's keys. */
void core_fill(struct core_client *cl, uint32_t seq, uint32_t chain, uint32_t nr);

/* The daemon's own address of a slot's bytes. */
void *core_mem(const struct gpool *gp, uint32_t slot, uint32_t shard, uint32_t plane);

void core_walk(const struct core *c);		/* fails the test where something is wrong */
unsigned core_nr_fds(void);			/* open file descriptors of this process */
unsigned core_nr_maps(void);			/* its mappings of memfds */

#endif
