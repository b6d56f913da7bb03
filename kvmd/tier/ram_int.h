/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ram_int.h - the RAM tier's insides, shared by ram_*.c.
 *
 * ram.c gives out places, ram_empty.c says which to empty, ram_setup.c makes,
 * takes over and ends the tier, ram_chunk.c makes and gives up chunks in the
 * background, ram_copy.c runs requests, ram_code.c what is special about coded
 * blocks, ram_check.c looks whether all that is
 * counted adds up. All in the core thread, except the slow worker's part of a
 * chunk job, which writes struct ram_job alone.
 *
 * A chunk is CHUNK_READY from the turn in which its job came back: usable, not
 * yet a fixed buffer. It has a class (bytes of a place) while a place of it is
 * used or held, and is on exactly one list then if it has free places, or with
 * class 0 on the list of empty ones. Not listed: a chunk that leaves (its number
 * is not below nr_chunks any more) and the one that is being stolen.
 *
 * A place is FREE, USED (it has an owner) or HELD: freed by its owner, but a
 * request or ram_hold() still has its memory. Its bit is set while it is FREE.
 */
#ifndef KVMD_TIER_RAM_INT_H
#define KVMD_TIER_RAM_INT_H

#include "kvmd/lib/mem.h"
#include "kvmd/tier/ram.h"

#define RAM_PAGE	4096u		/* classes are multiples of it */
#define RAM_HUGE	(2u << 20)
#define RAM_MAX_CHUNK	(1ull << 30)
#define RAM_NONE	UINT32_MAX
#define RAM_NR_CTX	256u		/* requests under way at once */
#define RAM_NR_URGENT	32u		/* of those kept for urgent ones */
#define RAM_BAD_FAULTS	2u		/* a place is bad from then on */
#define RAM_COPIES	64u		/* copies of one round */
#define RAM_NR_STAGES	8u		/* blocks that are coded or decoded at once */
#define RAM_NR_STAGES_URGENT 1u		/* of those kept for urgent ones */
#define RAM_STAGES_BYTES (256ull << 20)	/* fewer of large blocks, though two at least */

#define RAM_MAGIC	0x454c42415452564bull	/* "KVRTABLE" */
#define RAM_VERSION	1u

/* In the table's memfd: what outlives the daemon, besides the bytes. */
struct ram_entry {
	uint64_t ino;			/* of the chunk's memfd; 0: no chunk */
	uint64_t cls;			/* bytes of its places; 0: empty */
};

/* The sums follow at sums_off: [chunk * chunk_bytes / 4096 + index], XXH3-64. */
struct ram_table {
	uint64_t magic;
	uint32_t version;
	uint32_t max_chunks;		/* RAM_MAX_CHUNKS */
	uint64_t chunk_bytes;
	uint64_t sums_off;		/* bytes */
	struct ram_entry chunk[RAM_MAX_CHUNKS];
};

enum place_state { PLACE_FREE, PLACE_USED, PLACE_HELD };

struct ram_place {
	uint32_t owner;			/* record while USED, else 0 */
	uint16_t busy;			/* requests and ram_hold()s */
	uint8_t state;			/* enum place_state */
	uint8_t faults;			/* times its bytes did not verify */
};

enum chunk_state { CHUNK_NONE, CHUNK_MAKING, CHUNK_READY, CHUNK_DROPPING };

struct ram_chunk {
	struct dev_extent ext;		/* fd -1 and the map: what the device sees */
	int fd;				/* memfd, ours */
	uint8_t state;			/* enum chunk_state */
	bool listed;
	bool locked, registered, pinned;
	bool reg_failed;		/* not tried again */
	bool adopted;			/* of a former daemon: not touched, not locked yet */
	struct mem_pages pages;		/* what it is made of */
	uint64_t cls;			/* bytes of a place; 0: empty */
	uint32_t nr_places, nr_free, nr_used, nr_held;
	uint32_t hint;			/* word of bits[]: none below has a bit */
	uint32_t prev, next;		/* on its list, circular, chunk numbers */
	struct ram_place *place;	/* [chunk_bytes / 4096] */
	uint64_t *bits;			/* free places of the class */
};

enum job_kind { JOB_NONE, JOB_MAKE, JOB_ADOPT, JOB_DROP };

/* The one job for the slow workers. */
struct ram_job {
	struct work work;
	uint8_t kind;			/* enum job_kind; JOB_NONE: nothing under way */
	bool finished;			/* fn() ran */
	bool hugetlb, lock;		/* wanted */
	int err;			/* of the whole: no chunk */
	int lock_err;
	bool pin_failed;
	char pin_text[128];
	uint32_t chunk;
	uint64_t bytes;
	struct ram_chunk c;		/* made, or to be given up */
};

/* Memory that one block is in plain while it is coded or decoded. */
struct ram_stage {
	struct dev_extent ext;		/* what the device sees; the scratch is behind it */
	struct ram_stages *of;
	struct ram_stage *next;		/* free ones */
};

/* Stages of one size, in one piece of memory. Old: larger ones are in use. */
struct ram_stages {
	struct work work;		/* a slow worker's: pin, or in the end give up */
	bool working, finished;		/* given to it; it ran (atomic) */
	bool old;			/* core thread's */
	bool drop;			/* what the worker is to do: not pin, but give up */
	bool pinned;
	struct ram *rt;
	void *map;
	uint64_t map_bytes, block_bytes, scratch_bytes;
	uint32_t nr, nr_used;
	struct ram_stages *next;	/* older ones */
	struct ram_stage stage[RAM_NR_STAGES];
};

/* A request under way. */
struct ram_ctx {
	struct dev_batch batch;
	struct work work;		/* the sum, when the device does not make it */
	struct sum sum;
	struct ram *rt;
	struct tier_req *r;
	struct ram_chunk *c;
	struct ram_ctx *next;		/* free ones */
	uint64_t base;			/* of the place in its chunk, bytes */
	uint64_t off;			/* of the next copy in the present shard's bytes */
	uint32_t shard;			/* that is being copied */
	bool write;
	bool passing;			/* the device sums as it copies */
	struct ram_stage *stage;	/* the block is here on its way; NULL: not coded */
	uint64_t want;			/* read, coded: the sum of the place */
	int code_err;			/* what the worker says of it */
	uint64_t code_ns;		/* it took */
	double code_error;		/* image_encode() */
	struct dev_copy copy[RAM_COPIES];
};

struct ram {
	struct tier t;
	struct uring *u;		/* NULL: no fixed buffers */
	struct workers *slow;
	struct ram_keep keep;		/* add NULL: none */
	bool hugetlb, lock;
	uint64_t chunk_bytes;
	uint32_t chunk_pages;		/* places of the smallest class in a chunk */
	uint32_t nr_chunks;		/* wanted: numbers below it */
	uint32_t nr_ready;
	uint32_t end;			/* numbers from here on are not in use */
	struct ram_chunk *chunk;	/* [RAM_MAX_CHUNKS] */
	uint32_t *list;			/* [chunk_pages + 1] by class: first chunk + 1, 0: none */
	int table_fd;
	struct ram_table *table;
	uint64_t table_bytes;
	uint64_t *sum;			/* in the table's memfd */

	struct ram_job job;
	bool stuck;			/* a chunk could not be made: no more until a resize */
	bool claiming;			/* attached, and nothing allocated yet */
	bool said_hugetlb, said_lock, said_pin, said_register, said_big;
	uint32_t nr_bad;		/* places that are never used again */
	uint32_t nr_unreg;		/* ready chunks to be registered */
	uint64_t reg_due_ns;		/* not before, CLOCK_MONOTONIC */
	uint64_t born_ns, start_ns;
	char text[160];

	uint32_t steal, steal_idx;	/* chunk being emptied for others, RAM_NONE; cursor */
	uint32_t steal_was;		/* free places in it when the pass began */
	uint32_t steal_not;		/* chunk that could not be emptied last time */
	uint32_t drain, drain_idx;	/* cursor of ram_drain_next(), RAM_NONE: new pass */

	struct ram_ctx *ctx, *free_ctx;	/* [RAM_NR_CTX] */
	uint32_t nr_free_ctx;
	struct tier_queue waiting[2][2];	/* without a context: [urgent][write] */
	struct tier_queue coded[2][2];	/* the same, need a stage too */
	struct ram_stages *stages;	/* in use; then old ones; NULL: no group has a codec */
	struct ram_stage *free_stage;	/* of stages */
	uint32_t nr_free_stages;
	struct tier_queue failed;	/* done() to be called by poll() */
	bool write_next;		/* of what is not urgent: turn about */
};

static inline struct ram *ram_of(struct tier *t)
{
	return container_of(tier_bottom(t), struct ram, t);
}

static inline uint32_t ram_place_chunk(uint32_t place)
{
	return (place - 1) >> RAM_IDX_BITS;
}

static inline uint32_t ram_place_idx(uint32_t place)
{
	return (place - 1) & ((1u << RAM_IDX_BITS) - 1);
}

static inline uint32_t ram_chunk_no(const struct ram *rt, const struct ram_chunk *c)
{
	return (uint32_t)(c - rt->chunk);
}

static inline bool ram_leaves(const struct ram *rt, const struct ram_chunk *c)
{
	return ram_chunk_no(rt, c) >= rt->nr_chunks;
}

/* ---------------------------------------------------------------- ram.c */

__printf(2, 3) void ram_say(struct ram *rt, const char *fmt, ...);
/* The chunk and record of a place that is used or held; NULL: no such place. */
struct ram_place *ram_lookup(struct ram *rt, uint32_t place, struct ram_chunk **ret_c);
void ram_busy_get(struct ram_place *p);
void ram_busy_put(struct ram *rt, struct ram_chunk *c, struct ram_place *p);
static inline uint64_t ram_class(uint64_t bytes)
{
	return align_up(bytes, RAM_PAGE);
}
/* A chunk of class @cls with free places, an empty one (0), or NULL. */
struct ram_chunk *ram_list_first(struct ram *rt, uint64_t cls);
/* Take the chunk that is being stolen back for its own class; NULL: it is of another. */
struct ram_chunk *ram_unsteal(struct ram *rt, uint64_t cls);
/* On the list that its state asks for, or on none. */
void ram_relist(struct ram *rt, struct ram_chunk *c);

/* ---------------------------------------------------------- ram_chunk.c */

/* Start the next background job, if there is one to do and none under way. */
void ram_kick(struct ram *rt);
/* @c is in the tier from now on. */
void ram_chunk_ready(struct ram *rt, struct ram_chunk *c);
void ram_chunk_release(struct ram_chunk *c, uint64_t bytes);
/* The daemon's own tables of one chunk. 0 or -ENOMEM. */
int ram_chunk_tables(struct ram_chunk *c, uint64_t bytes);
struct dev_extent ram_chunk_extent(void *map, uint64_t bytes);
void ram_keep_add(struct ram *rt, const char *name, int fd);
void ram_keep_chunk(struct ram *rt, uint32_t no, int fd);	/* -1: gone */
/* Take down the time it took when nothing is missing. */
void ram_all_ready(struct ram *rt);
/* Register at most one chunk. */
void ram_register_next(struct ram *rt);

/* ----------------------------------------------------------- ram_copy.c */

int ram_ctx_init(struct ram *rt);
void ram_ctx_exit(struct ram *rt);
void ram_read(struct tier *t, struct tier_req *r);
void ram_write(struct tier *t, struct tier_req *r);
/* End what was refused; how many done() ran. */
unsigned ram_refused(struct ram *rt);

/* ----------------------------------------------------------- ram_code.c */

/* Is the memory there that a coded block of @gp needs? */
bool ram_code_fits(const struct ram *rt, const struct gpool *gp);
/* May a request have a stage now? */
bool ram_stage_ready(const struct ram *rt, bool urgent);
struct ram_stage *ram_stage_get(struct ram *rt);
void ram_stage_put(struct ram *rt, struct ram_stage *s);
/* In a worker: code x->stage to the place, or verify the place and decode it. */
void ram_code_run(struct ram_ctx *x);
/* In the core thread, after it: count it. 0 or -errno. */
int ram_code_over(struct ram_ctx *x);
void ram_code_exit(struct ram *rt);

/* ---------------------------------------------------------- ram_setup.c */

void ram_destroy(struct tier *t);

extern const struct tier_ops ram_ops;

#endif
