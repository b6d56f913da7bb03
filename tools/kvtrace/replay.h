/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replay.h - play a trace through real client processes.
 *
 * The parent reads the trace, makes every key, starts a daemon if it was not
 * given one, and forks the clients; each is an engine over libkvclient that runs
 * its share of the requests one after the other. All that parent and clients
 * share is one anonymous page of counters and places in the trace: blocks are
 * shared by the daemon alone.
 *
 * A run (a pass) is over one set of spaces: all clients in one, or with
 * --compare private another pass with one space per client, or with --beside
 * another one on a daemon without lower tiers.
 */
#ifndef KVTRACE_REPLAY_H
#define KVTRACE_REPLAY_H

#include <kvclient.h>
#include <kvmd/codec.h>
#include <kvmd/stats.h>
#include <sys/types.h>

#include "tools/kvtrace/replay_hist.h"
#include "tools/kvtrace/trace.h"

#define REPLAY_MAX_CLIENTS	64
#define REPLAY_MAX_LATE		256
#define REPLAY_DONE		UINT64_MAX	/* a place behind every request */
#define REPLAY_MAX_CONF		32

/* ------------------------------------------------------------ options */

enum replay_verify { VERIFY_FULL, VERIFY_SAMPLE, VERIFY_NONE, NR_REPLAY_VERIFY };
enum replay_time { TIME_FAST, TIME_REAL, TIME_SCALED, NR_REPLAY_TIME };
enum replay_route { ROUTE_SESSION, ROUTE_RR, NR_REPLAY_ROUTE };
enum replay_capacity { CAP_PERCENT, CAP_BLOCKS, CAP_BYTES, NR_REPLAY_CAPACITY };
enum replay_beside { BESIDE_AUTO, BESIDE_YES, BESIDE_NO, NR_REPLAY_BESIDE };

/* Size of a lower tier: bytes, or blocks as multiples of the pool's. Both 0: no tier. */
struct replay_size {
	double times;
	uint64_t bytes;
};

struct replay_opts {
	const char *path;		/* trace */
	struct trace_opts load;
	uint32_t clients;
	enum replay_capacity cap_kind;
	double cap_percent;		/* of the trace's distinct blocks */
	uint64_t cap_value;		/* blocks or bytes */
	uint64_t block_bytes;		/* of one block over all planes and shards */
	uint32_t planes, shards;
	uint32_t codec;			/* enum kvmd_codec_id; blocks have bf16 values then */
	enum replay_verify verify;
	enum replay_time time;
	double scale;			/* trace seconds in one real one (TIME_SCALED) */
	enum replay_route route;
	const char *device;		/* kind of the own daemon's device */
	const char *policy;		/* NULL: the daemon's default */
	const char *watermarks;		/* "min,low,high"; NULL: the daemon's default */
	double wmark_min;		/* the first of them, a share of the pool */
	struct replay_size ram, disk;	/* tiers of the own daemon */
	const char *disk_path;		/* its disk file, kept; NULL: one that is removed */
	const char *conf[REPLAY_MAX_CONF]; /* SECTION.KEY=VALUE for the own daemon */
	uint32_t nr_conf;
	uint64_t recompute_tps;		/* tokens/s a client says it recomputes; 0: it does not */
	enum replay_beside beside;	/* AUTO: when there are tiers */
	const char *socket;		/* NULL: an own daemon */
	const char *admin;		/* its admin socket; NULL: socket + ".admin" */
	uint32_t late;			/* steps; 0: every step is over when it was submitted */
	uint32_t chunk;			/* blocks of one extend and publish */
	int32_t hints;			/* percent right; -1: give none */
	uint32_t kills;			/* clients to kill and start again */
	uint32_t restarts;		/* times the daemon is killed and comes back */
	bool keeper;			/* the own one under kvkeeper: it keeps its memory */
	uint64_t seed;
	uint32_t corrupt;		/* write every n-th block wrong (tests the check); 0: none */
	bool serial;
	bool decode;
	bool publish_decode;
	bool full_blocks;		/* leave out a partly filled last block */
	bool compare;			/* a second pass with private pools */
	bool json;
	bool quiet;
};

/* The command line: an exit code; *ret_go: there is something to do. */
int replay_options(int argc, char **argv, struct replay_opts *o, bool *ret_go);

/* ------------------------------------------------------------ plan */

/* What every client knows before the first request; read-only after the fork. */
struct replay_plan {
	const struct replay_opts *o;
	struct trace t;
	uint8_t (*keys)[KVMD_KEY_BYTES];	/* by dense id */
	uint32_t *last_req;		/* by session: its last request */
	uint64_t capacity;		/* blocks of the whole pool */
	uint32_t max_prompt;		/* blocks */
	uint32_t max_row;		/* blocks, with those of the output */
	uint64_t tokens;		/* of all prompts */
	uint64_t blocks;		/* of all prompts, as they count in hit rates */
	uint64_t bound_blocks, bound_tokens; /* what a cache that never evicts would hit */
};

/* KVT_OK or KVT_REFUSED after a message. */
int plan_make(struct replay_plan *p, const struct replay_opts *o);
void plan_free(struct replay_plan *p);
/* Blocks in the pool: of @distinct, by the options. */
uint64_t plan_capacity(const struct replay_opts *o, uint64_t distinct);
/* Key of dense id's block whose id in the file is @id; equal ids, equal keys. */
void plan_key(uint64_t seed, uint64_t id, void *ret_key);
/* Key of an output block: private to the request, the same in another attempt. */
void plan_output_key(uint64_t seed, uint64_t req, uint32_t pos, void *ret_key);
/* The client that runs request @i. */
uint32_t plan_client(const struct replay_plan *p, uint64_t i);
/* The first request from @from on that @client runs, or REPLAY_DONE. */
uint64_t plan_next(const struct replay_plan *p, uint32_t client, uint64_t from);
/* Prompt and output blocks of request @i. */
uint32_t plan_prompt_blocks(const struct replay_plan *p, uint64_t i);
uint32_t plan_output_blocks(const struct replay_plan *p, uint64_t i);
/* Cut both to what a pool of @slots blocks can hold: leading blocks stay. */
void plan_fit(uint64_t slots, uint32_t *prompt, uint32_t *output);
/* KVMD_HINT_* of request @i. */
uint32_t plan_hint(const struct replay_plan *p, uint64_t i);
/* What the space's one group is; max_slots is the caller's. */
void plan_group(const struct replay_opts *o, uint32_t block_tokens, struct kvmd_group *ret_g);
/* Memory of one block in a lower tier, and bytes of such a tier; 0: there is none. */
uint64_t plan_place_bytes(const struct replay_opts *o);
uint64_t plan_tier_bytes(const struct replay_plan *p, const struct replay_size *s);

/* ------------------------------------------------------------ shared page */

enum replay_op { REPLAY_OPEN, REPLAY_EXTEND, REPLAY_PUBLISH, REPLAY_CLOSE, REPLAY_CLOCK,
		 NR_REPLAY_OP };
const char *replay_op_name(enum replay_op op);

/* Where the first wrong byte was. */
struct replay_wrong {
	uint64_t req, offset;		/* offset in the plane */
	uint32_t pos, slot, shard, plane;
};

/* One client's part; it alone writes, but next after its death, and want. */
struct replay_slot {
	uint64_t next;			/* request it runs or will run; REPLAY_DONE: none */
	uint64_t want;			/* request that it waits for the turn of; or REPLAY_DONE */
	uint64_t done;			/* requests */
	uint64_t hit_blocks, hit_tokens;	/* when a request came for the first time */
	uint64_t asked_tokens;		/* of all opens, of later attempts too */
	uint64_t merged_blocks;
	uint64_t private_blocks;	/* that a publish left private */
	uint64_t written_blocks;
	uint64_t verified_blocks;
	uint64_t wrong_blocks, wrong_bytes;
	uint64_t deadlocks, no_memory;	/* attempts that ended so */
	uint64_t cut;			/* requests longer than the pool */
	uint64_t counted;		/* request + 1 whose hits are in the sums already */
	uint64_t open_ns;		/* that opens took, summed */
	uint64_t resumed, anew;		/* times that a restarted daemon knew us, or not */
	uint32_t has_wrong;
	uint32_t clock_refused;		/* the daemon's clock is its own */
	struct replay_wrong wrong;
	struct hist hist[NR_REPLAY_OP];
} __attribute__((aligned(128)));

struct replay_page {
	uint64_t start_ns;		/* CLOCK_MONOTONIC of the trace's zero */
	uint32_t nr;
	struct replay_slot c[];
};

struct replay_daemon;

/* The daemon's counters, or how they changed. */
struct replay_stats {
	uint64_t val[KVMD_NR_STAT];
};

/* Counters over several lives of the daemon: each begins at 0. */
struct replay_lives {
	struct replay_stats base;	/* what this life's counters were when we came */
	struct replay_stats past;	/* changes in the lives before, summed */
	uint32_t nr_past;
	bool sums;			/* attribution summed at the end of each of those */
};

/* What clients and parent have in common for one pass. */
struct replay_run {
	const struct replay_plan *plan;
	struct replay_page *page;
	size_t page_bytes;
	const char *socket;
	bool is_private;		/* a space per client */
	uint32_t pass;
	uint64_t clock_base;		/* policy clock of the trace's zero, ns */
	uint64_t slots;			/* of each space */
	uint64_t fit;			/* of them, what one request may fill */
	uint64_t window;		/* requests that may be under way beside the oldest */
	char space[KVMD_NAME_BYTES];	/* prefix of the spaces' names */
	struct replay_daemon *d;	/* the parent's, see replay_daemon.h */
	struct replay_lives lives;
	int event[REPLAY_MAX_CLIENTS];	/* eventfd of each client: its turn may have come */
	uint64_t spent_ns;		/* out */
};

/* 0 or -errno. */
int run_page_make(struct replay_run *r, uint32_t clients);
void run_page_free(struct replay_run *r);
/* May request @i start? Every one before the window is finished. */
bool run_may_start(const struct replay_run *r, uint64_t i);
/* Client @c has finished up to before @next: tell those whose turn it is now. */
void run_advance(struct replay_run *r, uint32_t c, uint64_t next);
uint64_t run_done(const struct replay_run *r);	/* requests finished */

/*
 * One pass over the whole trace: fork, watch, wait. 0, or an exit code after a
 * message; no process is left in either case.
 */
int run_pass(struct replay_run *r);

/* The life of client @c, in its own process: an exit code. */
int client_main(struct replay_run *r, uint32_t c);

/* ------------------------------------------------------------ report */

struct replay_result {
	bool is_there;
	struct replay_slot sum;		/* over all clients; next, want: unused */
	struct replay_stats stats;	/* of this pass */
	uint32_t restarts;		/* of the daemon */
	bool sums;			/* attribution */
	uint64_t spent_ns;
	uint64_t slots;			/* of one space */
};

enum replay_pass { PASS_SHARED, PASS_PRIVATE, PASS_BESIDE, NR_REPLAY_PASS };

/* What was counted in the life that goes on. */
void stats_of_life(const struct replay_lives *l, const struct replay_stats *now,
		   struct replay_stats *ret_life);
/* Is what was asked for what it was attributed to? */
bool attribution_sums(const struct replay_stats *s);
/* Sum up a pass; @after: the daemon's counters now. */
void result_make(struct replay_result *res, const struct replay_run *r,
		 const struct replay_stats *after);
bool result_ok(const struct replay_result *res);
double ratio(uint64_t a, uint64_t b);

struct json;
/* What tiers add: moves, refusals, stalls, restarts. */
void text_tiers(const struct replay_result *a);
void json_tiers(struct json *j, const struct replay_plan *p, const struct replay_result *a);

/* @res: by enum replay_pass. 0 or -errno. */
int report_print(const struct replay_plan *p, const struct replay_result *res);

#endif
